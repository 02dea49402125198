//! The peer's other services: discovery, endorsers and their system chaincodes, proxies, and what other peers send.

use bytes::Bytes;
use consort_crypto::hash::sha256;
use consort_node::server::PeerCertificate;
use consort_protos::consort::endorsing::Asked;
use consort_protos::consort::peer::membership_server::Membership as _;
use consort_protos::consort::peer::{PeerState, SignedMembership};
use consort_protos::consort::privatedata::private_data_server::PrivateData as _;
use consort_protos::consort::privatedata::{Body, Signed, body};
use consort_protos::consort::sealed::proxy_server::Proxy as _;
use consort_protos::consort::sealed::{DepositRequest, DescribeRequest, Question, SignedQuestion};
use consort_protos::fabric::discovery::discovery_server::Discovery as _;
use consort_protos::fabric::discovery::{
    AuthInfo, Request as DiscoveryRequest, Response as DiscoveryResponse, SignedRequest,
};
use consort_protos::fabric::protos::endorser_server::Endorser as _;
use consort_protos::fabric::protos::{
    ChaincodeInput, ChaincodeProposalPayload, Proposal, ProposalResponse, SignedProposal,
};
use consort_protos::proposal::new_proposal;
use consort_protos::sealed::{QUESTION_TAG, signed_message};
use futures::StreamExt;
use prost::Message;
use tonic::{Code, Request, Response};

use crate::gateway::{documented, sound};
use crate::network::{CHANNEL, NETWORK, NOW, parts, proposal_by, signature, signed_proposal};
use crate::peer::{peer, told_peer};

/// What the connections of other peers show.
const CERTIFICATE: &[u8] = b"a certificate";

/// Messages of a stream that are looked at.
const STREAM_MAX: usize = 16;

/// `discovery.SignedRequest`, or the `Request` within.
///
/// # Panics
/// When the answer breaks a rule: a finding.
pub fn discovery_request(bytes: &[u8]) {
    let sent = SignedRequest::decode(bytes).ok();
    let inner = sent.as_ref().map_or_else(|| Bytes::copy_from_slice(bytes), |sent| sent.payload.clone());
    if let Some(sent) = sent {
        discovered(sent);
    }
    if let Ok(request) = DiscoveryRequest::decode(inner) {
        discovered_by_member(request);
    }
}

pub(crate) fn discovered_by_member(request: DiscoveryRequest) -> Option<DiscoveryResponse> {
    let client_identity = NETWORK.admin.serialized().clone();
    let authentication = Some(AuthInfo { client_identity, client_tls_cert_hash: Bytes::new() });
    let asked = request.queries.len();
    let payload = Bytes::from(DiscoveryRequest { authentication, ..request }.encode_to_vec());
    let answer = discovered(SignedRequest { signature: signature(&NETWORK.admin, &payload), payload })?;
    assert_eq!(answer.results.len(), asked, "every query has its result");
    Some(answer)
}

fn discovered(request: SignedRequest) -> Option<DiscoveryResponse> {
    let peer = peer();
    let answer = peer.answer(peer.discovery.discover(Request::new(request)));
    let answer = documented(answer, &[Code::Unknown])?.into_inner();
    assert!(answer.results.iter().all(|result| result.result.is_some()), "every result is one");
    Some(answer)
}

/// The endorser's answer: an error is Fabric's one code, and a response has a status.
pub(crate) fn processed(signed: SignedProposal) -> Option<ProposalResponse> {
    let peer = peer();
    let answer = peer.answer(peer.endorser.process_proposal(Request::new(signed)));
    let answer = documented(answer, &[Code::Unknown])?.into_inner();
    let response = answer.response.as_ref().expect("an endorser's answer has a response");
    sound(&response.message);
    assert!(response.status < 400 || answer.endorsement.is_none(), "a failure is not endorsed");
    Some(answer)
}

/// A `protos.SignedProposal` to an endorser: as it is, and by a member.
///
/// # Panics
/// When the answer breaks a rule: a finding.
pub fn proposal(bytes: &[u8]) {
    crate::client::opened_proposal(bytes);
    let Ok(sent) = SignedProposal::decode(bytes) else { return };
    let by_member = proposal_by(&NETWORK.client, &sent);
    processed(sent);
    by_member.map(processed);
}

/// A `protos.ChaincodeProposalPayload` with arguments and transient data, in an otherwise good proposal for an application's
/// chaincode and for one of the peer's.
///
/// # Panics
/// When the answer breaks a rule: a finding.
pub fn proposal_payload(bytes: &[u8]) {
    if ChaincodeProposalPayload::decode(bytes).is_err() {
        return;
    }
    for chaincode in ["basic", "_sealed", "_lifecycle"] {
        let proposal = new_proposal(parts(&NETWORK.admin, chaincode, CHANNEL, Vec::new()));
        processed(signed_proposal(
            &NETWORK.admin,
            &Proposal { payload: Bytes::copy_from_slice(bytes), ..proposal },
        ));
    }
}

/// The arguments (`protos.ChaincodeInput`) of a call of a system chaincode by an administrator.
pub(crate) fn called(chaincode: &str, channel: &str, bytes: &[u8]) -> Option<ProposalResponse> {
    let input = ChaincodeInput::decode(bytes).ok()?;
    let proposal = new_proposal(parts(&NETWORK.admin, chaincode, channel, input.args));
    processed(signed_proposal(&NETWORK.admin, &proposal))
}

/// Arguments of `_lifecycle`, on a channel and without one.
///
/// # Panics
/// When the answer breaks a rule: a finding.
pub fn lifecycle_arguments(bytes: &[u8]) {
    called("_lifecycle", CHANNEL, bytes);
    called("_lifecycle", "", bytes);
}

/// Arguments of `cscc`.
///
/// # Panics
/// When the answer breaks a rule: a finding.
pub fn cscc_arguments(bytes: &[u8]) {
    called("cscc", CHANNEL, bytes);
    called("cscc", "", bytes);
}

/// Arguments of `qscc`.
///
/// # Panics
/// When the answer breaks a rule: a finding.
pub fn qscc_arguments(bytes: &[u8]) {
    called("qscc", CHANNEL, bytes);
}

/// Arguments of `_identities`.
///
/// # Panics
/// When the answer breaks a rule: a finding.
pub fn identities_arguments(bytes: &[u8]) {
    called("_identities", CHANNEL, bytes);
}

/// Arguments of `_sealed`.
///
/// # Panics
/// When the answer breaks a rule: a finding.
pub fn sealed_arguments(bytes: &[u8]) {
    called("_sealed", CHANNEL, bytes);
}

/// A stream of `consort.endorsing.Asked`, each behind its length.
///
/// # Panics
/// When an answer breaks a rule: a finding.
pub fn endorsing_stream(bytes: &[u8]) {
    let mut rest = bytes;
    let mut asked = Vec::new();
    while !rest.is_empty() && asked.len() < STREAM_MAX {
        let Ok(next) = Asked::decode_length_delimited(&mut rest) else { break };
        asked.push(Ok(next));
    }
    let numbers: Vec<u64> = asked.iter().flatten().map(|asked: &Asked| asked.number).collect();
    let peer = peer();
    let Some(answers) = documented(peer.endorsing.serve(futures::stream::iter(asked)), &[]) else { return };
    for answer in peer.answer(answers.collect::<Vec<_>>()) {
        let answer = answer.expect("a proposal ends no stream");
        assert!(numbers.contains(&answer.number) && answer.outcome.is_some(), "{}", answer.number);
    }
}

const PROXY: [Code; 5] = [
    Code::InvalidArgument,
    Code::NotFound,
    Code::PermissionDenied,
    Code::FailedPrecondition,
    Code::Unavailable,
];

/// `consort.sealed.DescribeRequest`.
///
/// # Panics
/// When the answer breaks a rule: a finding.
pub fn sealed_describe(bytes: &[u8]) {
    let Ok(request) = DescribeRequest::decode(bytes) else { return };
    let known = request.channel == CHANNEL;
    let peer = peer();
    let answer = documented(peer.answer(peer.proxies.describe(Request::new(request))), &PROXY);
    assert_eq!(answer.is_some(), known, "a proxy describes itself in its channels");
}

/// `consort.sealed.DepositRequest`.
///
/// # Panics
/// When the answer breaks a rule: a finding.
pub fn sealed_deposit(bytes: &[u8]) {
    let Ok(request) = DepositRequest::decode(bytes) else { return };
    let peer = peer();
    let answer = peer.answer_now(peer.proxies.deposit(Request::new(request)));
    let taken = answer.and_then(|answer| documented(answer, &PROXY));
    assert!(taken.is_none(), "there is no grant that a share could belong to");
}

/// `consort.sealed.SignedQuestion`, or the `Question` within.
///
/// # Panics
/// When the answer breaks a rule: a finding.
pub fn sealed_question(bytes: &[u8]) {
    let sent = SignedQuestion::decode(bytes).ok();
    let inner = sent.as_ref().map_or_else(|| Bytes::copy_from_slice(bytes), |sent| sent.question.clone());
    let by_member = Question::decode(inner.clone()).is_ok().then(|| SignedQuestion {
        identity: NETWORK.client.serialized().clone(),
        signature: signature(&NETWORK.client, &signed_message(QUESTION_TAG, &inner)),
        question: inner,
    });
    let peer = peer();
    for question in [sent, by_member].into_iter().flatten() {
        let answer = peer.answer_now(peer.proxies.answer(Request::new(question)));
        let answered = answer.and_then(|answer| documented(answer, &PROXY));
        assert!(answered.is_none(), "there is no request that could be answered");
    }
}

/// `consort.peer.SignedMembership`: as it is, and by a peer of the channel.
///
/// # Panics
/// When the answer breaks a rule: a finding.
pub fn membership_statement(bytes: &[u8]) {
    let Ok(sent) = SignedMembership::decode(bytes) else { return };
    let by_peer = PeerState::decode(sent.state.clone()).ok().map(|state| {
        let state = PeerState { timestamp_ms: now_ms(), ..state };
        let state = Bytes::from(state.encode_to_vec());
        let identity = NETWORK.other_peer.serialized().clone();
        let message = [b"consort.peer.Membership/1\0", state.as_ref()].concat();
        SignedMembership { signature: signature(&NETWORK.other_peer, &message), state, identity }
    });
    let peer = told_peer();
    for statement in [Some(sent), by_peer].into_iter().flatten() {
        let answer = peer.answer(peer.membership.exchange(Request::new(statement)));
        documented(answer, &[Code::PermissionDenied]);
    }
}

fn now_ms() -> u64 {
    u64::try_from(NOW.unix_timestamp()).unwrap_or_default() * 1_000
}

/// `consort.privatedata.Signed`, a push or a fetch: as it is, and by a peer of the channel.
///
/// # Panics
/// When the answer breaks a rule: a finding.
pub fn private_data_call(bytes: &[u8]) {
    let Ok(sent) = Signed::decode(bytes) else { return };
    let by_peer = Body::decode(sent.body.clone()).ok().map(|body| {
        let body = Body {
            recipient_hash: Bytes::copy_from_slice(&sha256(NETWORK.peer.serialized())),
            tls_cert_hash: Bytes::copy_from_slice(&sha256(CERTIFICATE)),
            timestamp_ms: now_ms(),
            ..body
        };
        let body = Bytes::from(body.encode_to_vec());
        let message = [b"consort.privatedata.PrivateData/1\0", body.as_ref()].concat();
        let identity = NETWORK.other_peer.serialized().clone();
        Signed { signature: signature(&NETWORK.other_peer, &message), body, identity }
    });
    for call in [Some(sent), by_peer].into_iter().flatten() {
        told(call);
    }
}

fn told(call: Signed) {
    let peer = told_peer();
    let kind = Body::decode(call.body.clone()).ok().and_then(|body| body.content);
    let mut request = Request::new(call);
    request.extensions_mut().insert(PeerCertificate(Some(Bytes::from_static(CERTIFICATE))));
    let codes = [Code::PermissionDenied, Code::InvalidArgument, Code::ResourceExhausted];
    if let Some(body::Content::Fetch(_)) = kind {
        let answer = peer.answer(peer.private.fetch(request)).map(Response::into_inner);
        let found = documented(answer, &codes).map(|answer| answer.found);
        assert!(found.is_none_or(|found| found.is_empty()), "there is nothing to be found");
    } else {
        documented(peer.answer(peer.private.push(request)), &codes);
    }
}
