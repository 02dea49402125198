//! The gateway's errors as clients read them: a code, a text, and one `gateway.ErrorDetail` per endpoint that failed.

use std::time::Duration;

use bytes::Bytes;
use consort_protos::fabric::gateway::ErrorDetail;
use consort_protos::fabric::rpc;
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

/// Type URL of the details; published clients decode every detail as this message.
const DETAIL_TYPE: &str = "type.googleapis.com/gateway.ErrorDetail";

/// A status with details in the trailer `grpc-status-details-bin` (`google.rpc.Status`).
pub(super) fn status(code: Code, message: impl Into<String>, details: &[ErrorDetail]) -> Status {
    let message = message.into();
    if details.is_empty() {
        return Status::new(code, message);
    }
    let wire = rpc::Status {
        code: code as i32,
        message: message.clone(),
        details: details
            .iter()
            .map(|detail| prost_types::Any {
                type_url: DETAIL_TYPE.to_owned(),
                value: detail.encode_to_vec(),
            })
            .collect(),
    };
    Status::with_details(code, message, Bytes::from(wire.encode_to_vec()))
}

/// Type URL of the pause after which a call may be tried again.
const RETRY_TYPE: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// A status that says when to try again, as `google.rpc.RetryInfo`. Published gateway clients read every detail as an
/// `ErrorDetail`, some with a check that its texts are UTF-8; so the pause is given in whole seconds, whose bytes are, and
/// exactly in the trailers.
pub(crate) fn with_retry(
    code: Code,
    message: impl Into<String>,
    pause: Duration,
    trailers: MetadataMap,
) -> Status {
    let message = message.into();
    let seconds = i64::try_from(pause.as_millis().div_ceil(1_000)).unwrap_or(i64::MAX).min(127);
    let retry = rpc::RetryInfo { retry_delay: Some(prost_types::Duration { seconds, nanos: 0 }) };
    let wire = rpc::Status {
        code: code as i32,
        message: message.clone(),
        details: vec![prost_types::Any { type_url: RETRY_TYPE.to_owned(), value: retry.encode_to_vec() }],
    };
    Status::with_details_and_metadata(code, message, Bytes::from(wire.encode_to_vec()), trailers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_arrive_as_error_details_of_a_google_status() {
        let detail = ErrorDetail {
            address: "peer0.org1.example.com:7051".to_owned(),
            msp_id: "Org1MSP".to_owned(),
            message: "chaincode response 500, no".to_owned(),
        };
        let status = status(Code::Aborted, "failed", std::slice::from_ref(&detail));
        let wire = rpc::Status::decode(status.details()).expect("a google.rpc.Status");
        assert_eq!((wire.code, wire.message.as_str()), (10, "failed"));
        assert_eq!(wire.details[0].type_url, DETAIL_TYPE);
        assert_eq!(ErrorDetail::decode(wire.details[0].value.as_slice()).expect("a detail"), detail);
    }

    #[test]
    fn a_pause_is_readable_as_an_error_detail_too() {
        let pause = Duration::from_millis(1_300);
        let status = with_retry(Code::ResourceExhausted, "busy", pause, MetadataMap::new());
        let wire = rpc::Status::decode(status.details()).expect("a google.rpc.Status");
        let retry = rpc::RetryInfo::decode(wire.details[0].value.as_slice()).expect("a pause");
        assert_eq!(retry.retry_delay.expect("a duration").seconds, 2);
        ErrorDetail::decode(wire.details[0].value.as_slice()).expect("a detail to those who look for one");
    }

    #[test]
    fn a_status_without_details_has_no_trailer() {
        assert!(status(Code::NotFound, "none", &[]).details().is_empty());
    }
}
