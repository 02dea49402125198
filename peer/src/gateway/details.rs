//! The gateway's errors as clients read them: a code, a text, and one `gateway.ErrorDetail` per endpoint that failed.

use bytes::Bytes;
use consort_protos::fabric::gateway::ErrorDetail;
use consort_protos::fabric::rpc;
use prost::Message;
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
    fn a_status_without_details_has_no_trailer() {
        assert!(status(Code::NotFound, "none", &[]).details().is_empty());
    }
}
