//! Opens what an application asks for, with the texts that clients compare with (Fabric `internal/pkg/gateway`).

use std::sync::Arc;
use std::time::Duration;

use consort_protos::fabric::common::{ChannelHeader, Header};
use consort_protos::fabric::protos::{
    self, ChaincodeInvocationSpec, ChaincodeProposalPayload, SignedProposal,
};
use consort_protos::proposal::Proposal;
use prost::Message;
use tokio::time::Instant;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::identities::IDENTITIES;
use crate::sealed::SEALED;

/// System chaincodes, which every peer of a channel runs.
const SYSTEM_CHAINCODES: [&str; 5] = ["_lifecycle", IDENTITIES, SEALED, "cscc", "qscc"];

/// How much earlier than the caller's own limit the gateway gives up.
const DEADLINE_LEAD: Duration = Duration::from_millis(20);

/// Whether every peer runs the chaincode without a definition.
pub(super) fn is_system(chaincode: &str) -> bool {
    SYSTEM_CHAINCODES.contains(&chaincode)
}

/// A proposal with the parts that the gateway decides by.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) signed: Arc<SignedProposal>,
    pub(super) channel: String,
    pub(super) chaincode: String,
    pub(super) has_transient: bool,
}

impl Request {
    /// Opens a signed proposal.
    ///
    /// # Errors
    /// INVALID_ARGUMENT with the first thing that is missing.
    pub(super) fn open(signed: Option<SignedProposal>) -> Result<Self, Status> {
        let refuse = |reason: String| {
            Status::invalid_argument(format!("failed to unpack transaction proposal: {reason}"))
        };
        let signed = signed.ok_or_else(|| refuse("a signed proposal is required".to_owned()))?;
        let proposal = decode::<protos::Proposal>(&signed.proposal_bytes, "Proposal").map_err(refuse)?;
        let header = decode::<Header>(&proposal.header, "Header").map_err(refuse)?;
        let channel_header =
            decode::<ChannelHeader>(&header.channel_header, "ChannelHeader").map_err(refuse)?;
        let channel = channel_header.channel_id;
        if channel.is_empty() {
            return Err(refuse("no channel id provided".to_owned()));
        }
        let payload = decode::<ChaincodeProposalPayload>(&proposal.payload, "ChaincodeProposalPayload")
            .map_err(refuse)?;
        let invocation =
            decode::<ChaincodeInvocationSpec>(&payload.input, "ChaincodeInvocationSpec").map_err(refuse)?;
        let missing = |what: &str| refuse(format!("no chaincode {what} is provided, channel id [{channel}]"));
        let spec = invocation.chaincode_spec.ok_or_else(|| missing("spec"))?;
        let chaincode = spec.chaincode_id.ok_or_else(|| missing("id"))?.name;
        if chaincode.is_empty() {
            return Err(missing("name"));
        }
        Ok(Self {
            has_transient: !payload.transient_map.is_empty(),
            signed: Arc::new(signed),
            channel,
            chaincode,
        })
    }

    /// All layers of the proposal, for the transaction that is made of it.
    ///
    /// # Errors
    /// INVALID_ARGUMENT with the layer that does not parse.
    pub(super) fn proposal(&self) -> Result<Proposal, Status> {
        Proposal::open(&self.signed).map_err(|reason| {
            Status::invalid_argument(format!("failed to unpack transaction proposal: {reason}"))
        })
    }
}

fn decode<M: Message + Default>(bytes: &[u8], what: &str) -> Result<M, String> {
    M::decode(bytes).map_err(|error| format!("error unmarshalling {what}: {error}"))
}

/// When the caller's time is over, by the `grpc-timeout` header.
pub(super) fn deadline(metadata: &MetadataMap) -> Option<Instant> {
    let limit = time_limit(metadata.get("grpc-timeout")?.to_str().ok()?)?;
    Instant::now().checked_add(limit)
}

/// A time limit as gRPC writes it: up to eight digits and a unit.
fn time_limit(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    let limit = match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    };
    // A little earlier than the caller, so that it reads what took so long.
    Some(limit.saturating_sub(DEADLINE_LEAD.min(limit / 10)))
}

/// Does some work until the deadline; `text` says what was not finished then.
///
/// # Errors
/// What the work returns, or DEADLINE_EXCEEDED.
pub(super) async fn within<T>(
    deadline: Option<Instant>,
    text: &'static str,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match deadline {
        None => work.await,
        Some(deadline) => tokio::time::timeout_at(deadline, work)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded(text))),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use consort_protos::fabric::protos::{ChaincodeId, ChaincodeSpec};

    use super::*;

    fn signed(channel: &str, spec: Option<ChaincodeSpec>) -> SignedProposal {
        let header = Header {
            channel_header: ChannelHeader { channel_id: channel.to_owned(), ..ChannelHeader::default() }
                .encode_to_vec()
                .into(),
            signature_header: Bytes::new(),
        };
        let payload = ChaincodeProposalPayload {
            input: ChaincodeInvocationSpec { chaincode_spec: spec }.encode_to_vec().into(),
            ..ChaincodeProposalPayload::default()
        };
        let proposal = protos::Proposal {
            header: header.encode_to_vec().into(),
            payload: payload.encode_to_vec().into(),
            extension: Bytes::new(),
        };
        SignedProposal { proposal_bytes: proposal.encode_to_vec().into(), signature: Bytes::new() }
    }

    #[test]
    fn what_is_missing_is_named() {
        let named = |name: &str| ChaincodeSpec {
            chaincode_id: Some(ChaincodeId { name: name.to_owned(), ..ChaincodeId::default() }),
            ..ChaincodeSpec::default()
        };
        let cases = [
            (None, "a signed proposal is required"),
            (Some(signed("", None)), "no channel id provided"),
            (Some(signed("c", None)), "no chaincode spec is provided, channel id [c]"),
            (
                Some(signed("c", Some(ChaincodeSpec::default()))),
                "no chaincode id is provided, channel id [c]",
            ),
            (Some(signed("c", Some(named("")))), "no chaincode name is provided, channel id [c]"),
        ];
        for (request, reason) in cases {
            let status = Request::open(request).expect_err("refused");
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            assert_eq!(status.message(), format!("failed to unpack transaction proposal: {reason}"));
        }
        let request = Request::open(Some(signed("c", Some(named("basic"))))).expect("complete");
        assert_eq!((request.channel.as_str(), request.chaincode.as_str()), ("c", "basic"));
    }

    #[test]
    fn the_time_limit_is_read_in_every_unit() {
        for (text, expected) in [
            ("2S", Some(Duration::from_millis(1_980))),
            ("150m", Some(Duration::from_millis(135))),
            ("1M", Some(Duration::from_millis(59_980))),
            ("10000u", Some(Duration::from_millis(9))),
            ("123456789S", None),
            ("S", None),
            ("5x", None),
        ] {
            assert_eq!(time_limit(text), expected, "{text}");
        }
    }
}
