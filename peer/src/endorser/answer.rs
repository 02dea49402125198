//! The response to a proposal: bytes that every honest endorser makes alike, and this peer's signature over them.

use bytes::Bytes;
use consort_crypto::preimage;
use consort_protos::fabric::protos::{
    ChaincodeAction, ChaincodeId, Endorsement, ProposalResponse, ProposalResponsePayload, Response,
};
use prost::Message;

use super::{Accepted, Endorser, Executed, STATUS_FAILED, STATUS_REFUSED, cosign, interest};
use crate::identities::functions::CallError;

/// Version of the response message.
const RESPONSE_VERSION: i32 = 1;

/// Status of a response about what is not there.
const STATUS_NOT_FOUND: i32 = 404;

/// A failure of this peer: a response without payload, by which a gateway knows to ask another one.
pub(super) fn failure(message: String) -> ProposalResponse {
    ProposalResponse {
        response: Some(Response { status: STATUS_FAILED, message, payload: Bytes::new() }),
        ..ProposalResponse::default()
    }
}

/// The response of a system chaincode that changes nothing.
pub(super) fn refusal(error: &CallError) -> Response {
    let status = if matches!(error, CallError::NotFound(_)) { STATUS_NOT_FOUND } else { STATUS_FAILED };
    Response { status, message: crate::registry::with_causes(error), payload: Bytes::new() }
}

impl Endorser {
    /// Makes the response. What may be endorsed is; what failed shows as much as a client may need.
    pub(super) fn answer(&self, accepted: &Accepted, executed: Executed) -> ProposalResponse {
        let status = executed.response.status;
        let refused = (STATUS_REFUSED..STATUS_FAILED).contains(&status);
        let Some(channel) = accepted.channel.as_ref().filter(|_| !refused) else {
            return ProposalResponse { response: Some(executed.response), ..ProposalResponse::default() };
        };
        let payload = payload(accepted, &executed);
        let interest = executed
            .simulation
            .as_ref()
            .map(|(simulation, host)| interest::interest(&simulation.rwset, host.snapshot()));
        let interest = match interest.transpose() {
            Ok(interest) => interest,
            Err(error) => return failure(format!("error in simulation: {error}")),
        };
        if status >= STATUS_FAILED {
            return ProposalResponse {
                response: Some(executed.response),
                payload,
                interest,
                ..ProposalResponse::default()
            };
        }
        // Taken once: certificate and key must be those of one identity, also while it is renewed.
        let signer = self.signer.get();
        let endorser = signer.serialized().clone();
        // This peer's gateway and its committer meet it again.
        match signer.sign_remembered(&preimage::endorsement(&payload, &endorser)) {
            Ok(signature) => ProposalResponse {
                version: RESPONSE_VERSION,
                response: Some(executed.response),
                cosignature: cosign::cosign(channel, &signer, &payload),
                payload,
                endorsement: Some(Endorsement { endorser, signature: signature.into() }),
                interest,
                ..ProposalResponse::default()
            },
            Err(error) => failure(format!("endorsing with plugin failed: {error}")),
        }
    }
}

/// The bytes that are signed.
fn payload(accepted: &Accepted, executed: &Executed) -> Bytes {
    let proposal = &accepted.proposal;
    let hash = accepted.channel.as_ref().map(|channel| channel.bundle().hash_algorithm()).unwrap_or_default();
    let hash = hash.proposal_hash(
        &proposal.channel_header_bytes,
        &proposal.signature_header_bytes,
        &proposal.payload_without_transient(),
    );
    let action = ChaincodeAction {
        results: executed
            .simulation
            .as_ref()
            .map(|(simulation, _)| simulation.rwset.encode())
            .unwrap_or_default(),
        events: executed.event.as_ref().map(|event| event.encode_to_vec().into()).unwrap_or_default(),
        response: Some(executed.response.clone()),
        chaincode_id: Some(ChaincodeId {
            path: String::new(),
            name: proposal.chaincode.name.clone(),
            version: executed.version.clone(),
        }),
    };
    ProposalResponsePayload {
        proposal_hash: Bytes::copy_from_slice(&hash),
        extension: action.encode_to_vec().into(),
    }
    .encode_to_vec()
    .into()
}
