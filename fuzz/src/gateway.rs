//! The gateway's requests, to a gateway of real parts: as they are, and with a member's signature instead of the sender's.
//!
//! What a stranger signs ends at the signature, and so would most changed bytes; with a member's name and signature put over them the
//! same bytes reach what lies behind.

use bytes::Bytes;
use consort_protos::envelope::OpenEnvelope;
use consort_protos::fabric::gateway::gateway_server::Gateway as _;
use consort_protos::fabric::gateway::{
    ChaincodeEventsRequest, CommitStatusRequest, EndorseRequest, EndorseResponse, EvaluateRequest,
    EvaluateResponse, SignedChaincodeEventsRequest, SignedCommitStatusRequest, SubmitRequest,
};
use futures::StreamExt;
use prost::Message;
use tonic::{Code, Request, Status};

use crate::network::{NETWORK, envelope_by, proposal_by, signature};
use crate::peer::peer;

/// Codes of what cannot be evaluated or endorsed (Fabric gateway documentation, "Error handling").
const PROPOSAL: [Code; 5] =
    [Code::InvalidArgument, Code::FailedPrecondition, Code::Unavailable, Code::Aborted, Code::Unknown];

/// A refusal has one of these codes and a text, and is none of a part that broke.
pub(crate) fn documented<T>(answer: Result<T, Status>, codes: &[Code]) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer),
        Err(status) => {
            assert!(codes.contains(&status.code()), "{status}");
            assert!(!status.message().is_empty(), "a refusal says why: {status}");
            sound(status.message());
            sound(&String::from_utf8_lossy(status.details()));
            None
        }
    }
}

/// No thread of the peer has panicked for this answer.
pub(crate) fn sound(text: &str) {
    assert!(!text.contains("ended unexpectedly"), "{text}");
}

fn evaluated(request: EvaluateRequest) -> Option<EvaluateResponse> {
    let peer = peer();
    let answer = peer.answer(peer.gateway.evaluate(Request::new(request)));
    documented(answer, &PROPOSAL).map(tonic::Response::into_inner)
}

/// `gateway.EvaluateRequest`.
///
/// # Panics
/// When the gateway's answer breaks a rule: a finding.
pub fn evaluate_request(bytes: &[u8]) {
    let Ok(request) = EvaluateRequest::decode(bytes) else { return };
    evaluated(request.clone());
    evaluated_by_member(request);
}

pub(crate) fn evaluated_by_member(request: EvaluateRequest) -> Option<EvaluateResponse> {
    let signed = proposal_by(&NETWORK.client, request.proposed_transaction.as_ref()?)?;
    let answer = evaluated(EvaluateRequest { proposed_transaction: Some(signed), ..request })?;
    assert!(answer.result.is_some(), "an answer has a result");
    Some(answer)
}

fn endorsed(request: EndorseRequest) -> Option<EndorseResponse> {
    let peer = peer();
    let answer = peer.answer(peer.gateway.endorse(Request::new(request)));
    documented(answer, &PROPOSAL).map(tonic::Response::into_inner)
}

/// `gateway.EndorseRequest`.
///
/// # Panics
/// When the gateway's answer breaks a rule: a finding.
pub fn endorse_request(bytes: &[u8]) {
    let Ok(request) = EndorseRequest::decode(bytes) else { return };
    endorsed(request.clone());
    endorsed_by_member(request);
}

pub(crate) fn endorsed_by_member(request: EndorseRequest) -> Option<EndorseResponse> {
    let signed = proposal_by(&NETWORK.client, request.proposed_transaction.as_ref()?)?;
    let answer = endorsed(EndorseRequest { proposed_transaction: Some(signed), ..request })?;
    let prepared = answer.prepared_transaction.clone().expect("an answer has a transaction");
    assert!(prepared.signature.is_empty(), "the client signs by itself");
    let opened = OpenEnvelope::from_message(prepared).expect("a prepared transaction can be opened");
    assert_eq!(opened.creator, *NETWORK.client.serialized(), "it is the client's");
    Some(answer)
}

/// `gateway.SubmitRequest`.
///
/// # Panics
/// When the gateway's answer breaks a rule: a finding.
pub fn submit_request(bytes: &[u8]) {
    let Ok(request) = SubmitRequest::decode(bytes) else { return };
    submitted(request.clone());
    let signed = request.prepared_transaction.as_ref().and_then(|sent| envelope_by(&NETWORK.client, sent));
    if signed.is_some() {
        submitted(SubmitRequest { prepared_transaction: signed, ..request });
    }
}

pub(crate) fn submitted(request: SubmitRequest) -> bool {
    let peer = peer();
    let answer = peer.answer(peer.gateway.submit(Request::new(request)));
    let codes = [Code::InvalidArgument, Code::FailedPrecondition, Code::Aborted, Code::Unavailable];
    documented(answer, &codes).is_some()
}

/// `gateway.SignedCommitStatusRequest`, or the `CommitStatusRequest` within.
///
/// # Panics
/// When the gateway's answer breaks a rule: a finding.
pub fn commit_status_request(bytes: &[u8]) {
    let sent = SignedCommitStatusRequest::decode(bytes).ok();
    let inner = sent.as_ref().map_or_else(|| Bytes::copy_from_slice(bytes), |sent| sent.request.clone());
    if let Some(sent) = sent {
        committed(sent);
    }
    if let Ok(request) = CommitStatusRequest::decode(inner) {
        committed_by_member(&request);
    }
}

/// Whether the member's request waits for the transaction, which never comes.
pub(crate) fn committed_by_member(request: &CommitStatusRequest) -> bool {
    let identity = NETWORK.client.serialized().clone();
    let request = Bytes::from(CommitStatusRequest { identity, ..request.clone() }.encode_to_vec());
    committed(SignedCommitStatusRequest { signature: signature(&NETWORK.client, &request), request })
}

fn committed(request: SignedCommitStatusRequest) -> bool {
    let peer = peer();
    let Some(answer) = peer.answer_now(peer.gateway.commit_status(Request::new(request))) else {
        return true;
    };
    documented(answer, &[Code::InvalidArgument, Code::PermissionDenied]);
    false
}

/// `gateway.SignedChaincodeEventsRequest`, or the `ChaincodeEventsRequest` within.
///
/// # Panics
/// When the gateway's answer breaks a rule: a finding.
pub fn chaincode_events_request(bytes: &[u8]) {
    let sent = SignedChaincodeEventsRequest::decode(bytes).ok();
    let inner = sent.as_ref().map_or_else(|| Bytes::copy_from_slice(bytes), |sent| sent.request.clone());
    if let Some(sent) = sent {
        listened(sent);
    }
    if let Ok(request) = ChaincodeEventsRequest::decode(inner) {
        listened_by_member(&request);
    }
}

/// Whether the member's request is served.
pub(crate) fn listened_by_member(request: &ChaincodeEventsRequest) -> bool {
    let identity = NETWORK.client.serialized().clone();
    let request = Bytes::from(ChaincodeEventsRequest { identity, ..request.clone() }.encode_to_vec());
    listened(SignedChaincodeEventsRequest { signature: signature(&NETWORK.client, &request), request })
}

fn listened(request: SignedChaincodeEventsRequest) -> bool {
    let peer = peer();
    let answer = peer.answer(peer.gateway.chaincode_events(Request::new(request)));
    let codes = [Code::InvalidArgument, Code::PermissionDenied];
    let Some(stream) = documented(answer, &codes) else { return false };
    // There are no events in the channel; what can come is the end of the stream.
    let first = peer.answer_now(stream.into_inner().next());
    if let Some(Some(first)) = first {
        documented(first, &[Code::Aborted]);
    }
    true
}
