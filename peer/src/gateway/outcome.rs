//! What one endorser's answer means for the gateway.

use consort_protos::fabric::gateway::ErrorDetail;
use consort_protos::fabric::protos::ProposalResponse;
use tonic::Code;

use super::network::{CallError, Member};

/// Ending of the text of a chaincode whose run was cut off, in answers of Fabric peers too.
const STREAM_TERMINATED: &str = "chaincode stream terminated";

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// gRPC code for the client.
    pub(super) code: Code,
    /// Text for the client.
    pub(super) message: String,
    /// Whether another peer may do better.
    pub(super) retry: bool,
}

impl Failure {
    /// The failure as a detail that names the endorser.
    pub(super) fn detail(&self, member: &Member) -> ErrorDetail {
        detail(member, &self.message)
    }
}

/// A detail about one endorser.
pub(super) fn detail(member: &Member, message: &str) -> ErrorDetail {
    ErrorDetail {
        address: member.endpoint.clone(),
        msp_id: member.msp_id.to_string(),
        message: message.to_owned(),
    }
}

/// Splits answers into usable ones and failures. Status 500 without a payload is the peer's own failure (a chaincode
/// that answered has a payload): another peer may do better. Every other status outside 200..399 is the chaincode's
/// answer, which other peers would only repeat.
pub(super) fn judge(answer: Result<ProposalResponse, CallError>) -> Result<ProposalResponse, Failure> {
    let answer = answer.map_err(|error| match error {
        CallError::Unreachable(message) | CallError::Unavailable(message) => {
            Failure { code: Code::Unavailable, message, retry: true }
        }
        CallError::Refused(message) => Failure { code: Code::FailedPrecondition, message, retry: false },
    })?;
    let (status, text) =
        answer.response.as_ref().map_or((0, ""), |response| (response.status, response.message.as_str()));
    if (200..400).contains(&status) {
        return Ok(answer);
    }
    let message = format!("chaincode response {status}, {text}");
    if status == 500 && answer.payload.is_empty() {
        if text.ends_with(STREAM_TERMINATED) {
            tracing::warn!(%text, "an endorser lost its chaincode");
        }
        return Err(Failure { code: Code::Aborted, message, retry: true });
    }
    Err(Failure { code: Code::Unknown, message, retry: false })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use consort_protos::fabric::protos::Response;

    use super::*;

    fn answer(status: i32, message: &str, payload: &'static [u8]) -> ProposalResponse {
        ProposalResponse {
            response: Some(Response { status, message: message.to_owned(), payload: Bytes::new() }),
            payload: Bytes::from_static(payload),
            ..ProposalResponse::default()
        }
    }

    #[test]
    fn a_peer_failure_is_worth_another_peer() {
        let failure = judge(Ok(answer(500, "no chaincode", b""))).expect_err("a failure");
        assert_eq!(failure.code, Code::Aborted);
        assert!(failure.retry);
        assert_eq!(failure.message, "chaincode response 500, no chaincode");
    }

    #[test]
    fn a_chaincode_error_is_final() {
        for (status, payload) in [(500, &b"payload"[..]), (404, b""), (501, b""), (0, b"")] {
            let failure = judge(Ok(answer(status, "no", payload))).expect_err("a failure");
            assert_eq!((failure.code, failure.retry), (Code::Unknown, false), "status {status}");
        }
    }

    #[test]
    fn call_errors_keep_their_text() {
        let failure = judge(Err(CallError::Unavailable("down".to_owned()))).expect_err("a failure");
        assert_eq!(failure, Failure { code: Code::Unavailable, message: "down".to_owned(), retry: true });
        let failure = judge(Err(CallError::Refused("who?".to_owned()))).expect_err("a failure");
        assert_eq!((failure.code, failure.retry), (Code::FailedPrecondition, false));
    }

    #[test]
    fn redirects_count_as_success() {
        assert!(judge(Ok(answer(399, "", b"x"))).is_ok());
    }
}
