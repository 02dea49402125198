//! Whatever a client sends, the gateway answers with a code and never panics: every message, broken at every layer.

use bytes::Bytes;
use consort_protos::fabric::common::{ChannelHeader, Envelope, Header};
use consort_protos::fabric::gateway::gateway_server::Gateway as _;
use consort_protos::fabric::gateway::{
    ChaincodeEventsRequest, CommitStatusRequest, EndorseRequest, EvaluateRequest,
    SignedChaincodeEventsRequest, SignedCommitStatusRequest, SubmitRequest,
};
use consort_protos::fabric::orderer::{SeekPosition, SeekSpecified, seek_position};
use consort_protos::fabric::protos::{ChaincodeProposalPayload, Proposal, SignedProposal};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_oneof};
use proptest::test_runner::TestCaseResult;
use prost::Message;
use tokio::runtime::Runtime;
use tonic::{Code, Request};

use super::Gateway;
use super::tests::Bench;
use crate::testing::{CHANNEL, for_all};

/// Sends many messages to one gateway, which is gone with its books afterwards.
fn at_a_gateway<S: Strategy>(messages: &S, check: impl Fn(&Runtime, &Gateway, S::Value) -> TestCaseResult) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let (gateway, _test, _) = runtime.block_on(Bench::new()).gateway();
    for_all(128, messages, |message| check(&runtime, &gateway, message));
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

/// A channel that exists, or any name.
fn channel() -> impl Strategy<Value = String> {
    prop_oneof![Just(CHANNEL.to_owned()), any::<String>()]
}

/// A proposal whose layers hold up to some depth and are garbage below.
fn proposal() -> impl Strategy<Value = Option<SignedProposal>> {
    let layers = (channel(), bytes(), bytes(), bytes(), 0_u8..5);
    layers.prop_map(|(channel, garbage, nonce, signature, depth)| {
        if depth == 0 {
            return None;
        }
        let header = ChannelHeader { channel_id: channel, r#type: 3, ..ChannelHeader::default() };
        let header = Header { channel_header: header.encode_to_vec().into(), signature_header: nonce };
        let payload =
            ChaincodeProposalPayload { input: garbage.clone(), ..ChaincodeProposalPayload::default() };
        let proposal = Proposal {
            header: if depth > 2 { header.encode_to_vec().into() } else { garbage.clone() },
            payload: if depth > 3 { payload.encode_to_vec().into() } else { garbage.clone() },
            extension: Bytes::new(),
        };
        let proposal_bytes = if depth > 1 { proposal.encode_to_vec().into() } else { garbage };
        Some(SignedProposal { proposal_bytes, signature })
    })
}

#[test]
fn a_broken_proposal_is_an_invalid_argument() {
    let messages = (proposal(), channel(), any::<Vec<String>>());
    at_a_gateway(&messages, |runtime, gateway, (signed, channel_id, organisations)| {
        let evaluate = EvaluateRequest {
            channel_id: channel_id.clone(),
            proposed_transaction: signed.clone(),
            target_organizations: organisations.clone(),
            ..EvaluateRequest::default()
        };
        let refused = runtime.block_on(gateway.evaluate(Request::new(evaluate))).expect_err("refused");
        prop_assert!(refused.code() == Code::InvalidArgument, "{refused}");
        let endorse = EndorseRequest {
            channel_id,
            proposed_transaction: signed,
            endorsing_organizations: organisations,
            ..EndorseRequest::default()
        };
        let refused = runtime.block_on(gateway.endorse(Request::new(endorse))).expect_err("refused");
        prop_assert!(refused.code() == Code::InvalidArgument, "{refused}");
        Ok(())
    });
}

#[test]
fn a_broken_envelope_is_refused() {
    let messages = (bytes(), bytes(), channel(), any::<bool>());
    at_a_gateway(&messages, |runtime, gateway, (payload, signature, channel_id, there)| {
        let prepared_transaction = there.then_some(Envelope { payload, signature, ..Envelope::default() });
        let request = SubmitRequest { channel_id, prepared_transaction, ..SubmitRequest::default() };
        let refused = runtime.block_on(gateway.submit(Request::new(request))).expect_err("refused");
        let codes = [Code::InvalidArgument, Code::FailedPrecondition, Code::Unavailable];
        prop_assert!(codes.contains(&refused.code()), "{refused}");
        Ok(())
    });
}

#[test]
fn a_broken_question_is_refused() {
    let names = (channel(), any::<String>());
    let messages = (bytes(), bytes(), names, any::<bool>(), any::<u64>());
    at_a_gateway(&messages, |runtime, gateway, (garbage, signature, (channel_id, name), whole, number)| {
        let status = CommitStatusRequest {
            transaction_id: name.clone(),
            channel_id: channel_id.clone(),
            identity: garbage.clone(),
        };
        let request = if whole { status.encode_to_vec().into() } else { garbage.clone() };
        let request = SignedCommitStatusRequest { request, signature: signature.clone() };
        let refused = runtime.block_on(gateway.commit_status(Request::new(request))).expect_err("refused");
        let codes = [Code::InvalidArgument, Code::PermissionDenied];
        prop_assert!(codes.contains(&refused.code()), "{refused}");
        let position = seek_position::Type::Specified(SeekSpecified { number });
        let events = ChaincodeEventsRequest {
            channel_id,
            chaincode_id: name.clone(),
            identity: garbage.clone(),
            start_position: Some(SeekPosition { r#type: Some(position) }),
            after_transaction_id: name,
        };
        let request = if whole { events.encode_to_vec().into() } else { garbage };
        let request = SignedChaincodeEventsRequest { request, signature };
        let answer = runtime.block_on(gateway.chaincode_events(Request::new(request))).map(|_| ());
        let refused = answer.expect_err("refused");
        prop_assert!(codes.contains(&refused.code()), "{refused}");
        Ok(())
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_an_orderer_forgot_ends_with_the_deadline() {
    let (gateway, test, _) = Bench::new().await.gateway();
    let mut request = Request::new(super::tests::commit_status(&test, &"ab".repeat(32)));
    request.set_timeout(std::time::Duration::from_millis(100));
    let late = gateway.commit_status(request).await.expect_err("never committed");
    assert_eq!((late.code(), late.message()), (Code::DeadlineExceeded, "context deadline exceeded"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_who_wait_are_turned_away() {
    let (gateway, test, _) = Bench::new().await.gateway();
    let all = u32::try_from(super::WAITERS_MAX).expect("a small number");
    let _taken = gateway.waiters.try_acquire_many(all).expect("nobody waits yet");
    let request = Request::new(super::tests::commit_status(&test, &"ab".repeat(32)));
    let refused = gateway.commit_status(request).await.expect_err("no place");
    assert_eq!(refused.code(), Code::ResourceExhausted);
}
