//! What an application hears of a request that lacks something: the codes and texts of Fabric's gateway
//! (`internal/pkg/gateway/api.go`), which its clients show and compare with.

use std::time::Duration;

use consort_protos::fabric::common::{ChannelHeader, Header};
use consort_protos::fabric::protos::{self, ChaincodeInvocationSpec, ChaincodeProposalPayload};

use super::*;
use crate::testing::Network;
use crate::testing::configuration::guard;

/// A proposal of which something was changed.
fn altered(
    test: &TestChannel,
    alter: impl FnOnce(&mut ChannelHeader, &mut ChaincodeInvocationSpec),
) -> SignedProposal {
    let (_, signed) = proposal(test, "basic", false);
    let mut whole = protos::Proposal::decode(signed.proposal_bytes.clone()).expect("a proposal");
    let mut header = Header::decode(whole.header).expect("a header");
    let mut channel_header = ChannelHeader::decode(header.channel_header).expect("a channel header");
    let mut payload = ChaincodeProposalPayload::decode(whole.payload).expect("a payload");
    let mut invocation = ChaincodeInvocationSpec::decode(payload.input).expect("an invocation");
    alter(&mut channel_header, &mut invocation);
    header.channel_header = channel_header.encode_to_vec().into();
    whole.header = header.encode_to_vec().into();
    payload.input = invocation.encode_to_vec().into();
    whole.payload = payload.encode_to_vec().into();
    SignedProposal { proposal_bytes: whole.encode_to_vec().into(), ..signed }
}

fn of(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_proposal_lacks_is_named_by_both_calls_that_take_one() {
    let (gateway, test, _) = Bench::new().await.gateway();
    let lacking = [
        (altered(&test, |header, _| header.channel_id.clear()), "no channel id provided"),
        (
            altered(&test, |_, invocation| invocation.chaincode_spec = None),
            "no chaincode spec is provided, channel id [mychannel]",
        ),
        (
            altered(&test, |_, invocation| {
                invocation.chaincode_spec.as_mut().expect("a spec").chaincode_id = None;
            }),
            "no chaincode id is provided, channel id [mychannel]",
        ),
        (
            altered(&test, |_, invocation| {
                let spec = invocation.chaincode_spec.as_mut().expect("a spec");
                spec.chaincode_id.as_mut().expect("an id").name.clear();
            }),
            "no chaincode name is provided, channel id [mychannel]",
        ),
    ];
    for (signed, text) in lacking {
        let text = format!("failed to unpack transaction proposal: {text}");
        let request = EvaluateRequest { proposed_transaction: Some(signed.clone()), ..Default::default() };
        let refused = gateway.evaluate(Request::new(request)).await.expect_err("refused");
        assert_eq!(of(&refused), (Code::InvalidArgument, text.as_str()));
        let request = EndorseRequest { proposed_transaction: Some(signed), ..Default::default() };
        let refused = gateway.endorse(Request::new(request)).await.expect_err("refused");
        assert_eq!(of(&refused), (Code::InvalidArgument, text.as_str()));
    }
    let refused = gateway.evaluate(Request::new(EvaluateRequest::default())).await.expect_err("refused");
    let text = "failed to unpack transaction proposal: a signed proposal is required";
    assert_eq!(of(&refused), (Code::InvalidArgument, text));
    let refused = gateway.endorse(Request::new(EndorseRequest::default())).await.expect_err("refused");
    let text = "the proposed transaction must contain a signed proposal";
    assert_eq!(of(&refused), (Code::InvalidArgument, text));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_is_not_joined_is_named_and_to_strangers_it_is_access_denied() {
    let (gateway, test, _) = Bench::new().await.gateway();
    let signed = altered(&test, |header, _| "elsewhere".clone_into(&mut header.channel_id));
    let text = "failed to get config for channel [elsewhere]: this peer has not joined the channel";
    let request = EvaluateRequest { proposed_transaction: Some(signed.clone()), ..Default::default() };
    let refused = gateway.evaluate(Request::new(request)).await.expect_err("refused");
    assert_eq!(of(&refused), (Code::Unavailable, text));
    let request = EndorseRequest { proposed_transaction: Some(signed), ..Default::default() };
    let refused = gateway.endorse(Request::new(request)).await.expect_err("refused");
    assert_eq!(of(&refused), (Code::FailedPrecondition, text));
    let request = CommitStatusRequest {
        transaction_id: "ab".to_owned(),
        channel_id: "elsewhere".to_owned(),
        identity: test.network.org1.client.serialized().clone(),
    };
    let request = SignedCommitStatusRequest { request: request.encode_to_vec().into(), ..Default::default() };
    let refused = gateway.commit_status(Request::new(request)).await.expect_err("refused");
    assert_eq!(of(&refused), (Code::PermissionDenied, "access denied: channel [elsewhere]"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_that_cannot_be_read_is_named() {
    let (gateway, _test, _) = Bench::new().await.gateway();
    let refused = async |proposal_bytes: Bytes| {
        let signed = SignedProposal { proposal_bytes, signature: Bytes::new() };
        let request = EvaluateRequest { proposed_transaction: Some(signed), ..Default::default() };
        gateway.evaluate(Request::new(request)).await.expect_err("refused")
    };
    let garbage = Bytes::from_static(b"\xff\xff");
    let status = refused(garbage.clone()).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    let text = "failed to unpack transaction proposal: error unmarshalling Proposal: ";
    assert!(status.message().starts_with(text), "{status}");
    let broken = protos::Proposal { header: garbage, ..protos::Proposal::default() };
    let status = refused(broken.encode_to_vec().into()).await;
    let text = "failed to unpack transaction proposal: error unmarshalling Header: ";
    assert!(status.message().starts_with(text), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_submission_lacks_is_named() {
    let (gateway, _test, _) = Bench::new().await.gateway();
    let submit = async |prepared_transaction, channel_id: &str| {
        let request = SubmitRequest {
            prepared_transaction,
            channel_id: channel_id.to_owned(),
            ..SubmitRequest::default()
        };
        gateway.submit(Request::new(request)).await.expect_err("refused")
    };
    let text = "a prepared transaction is required";
    assert_eq!(of(&submit(None, CHANNEL).await), (Code::InvalidArgument, text));
    let text = "prepared transaction must be signed";
    assert_eq!(of(&submit(Some(Envelope::default()), CHANNEL).await), (Code::InvalidArgument, text));
    let signed = Envelope { signature: Bytes::from_static(b"s"), ..Envelope::default() };
    let text = "failed to get config for channel [elsewhere]: this peer has not joined the channel";
    assert_eq!(of(&submit(Some(signed), "elsewhere").await), (Code::FailedPrecondition, text));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_question_about_a_transaction_or_events_lacks_is_named() {
    let (gateway, test, _) = Bench::new().await.gateway();
    let whole = CommitStatusRequest {
        transaction_id: "ab".to_owned(),
        channel_id: CHANNEL.to_owned(),
        identity: test.network.org1.client.serialized().clone(),
    };
    let lacking = [
        (CommitStatusRequest { identity: Bytes::new(), ..whole.clone() }, "no identity provided"),
        (CommitStatusRequest { channel_id: String::new(), ..whole.clone() }, "no channel ID provided"),
        (
            CommitStatusRequest { transaction_id: String::new(), ..whole },
            "transaction ID should not be empty",
        ),
    ];
    for (request, text) in lacking {
        let request =
            SignedCommitStatusRequest { request: request.encode_to_vec().into(), ..Default::default() };
        let refused = gateway.commit_status(Request::new(request)).await.expect_err("refused");
        assert_eq!(of(&refused), (Code::InvalidArgument, text));
    }
    let garbage = Bytes::from_static(b"\xff\xff");
    let request = SignedCommitStatusRequest { request: garbage.clone(), ..Default::default() };
    let refused = gateway.commit_status(Request::new(request)).await.expect_err("refused");
    assert!(refused.message().starts_with("invalid status request: "), "{refused}");
    let request = SignedChaincodeEventsRequest { request: garbage, ..Default::default() };
    let refused = gateway.chaincode_events(Request::new(request)).await.map(drop).expect_err("refused");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("invalid chaincode events request: "), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transient_data_does_not_leave_the_organisation_unasked() {
    let mut bench = Bench::new().await;
    bench.peers.retain(|member| member.endpoint == OTHER);
    let (gateway, test, endorsers) = bench.gateway();
    let (_, signed) = proposal(&test, "basic", true);
    let request = EvaluateRequest { proposed_transaction: Some(signed.clone()), ..Default::default() };
    let refused = gateway.evaluate(Request::new(request)).await.expect_err("refused");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("retry specifying target organization(s) to protect transient data"),
        "{refused}"
    );
    let request = EndorseRequest { proposed_transaction: Some(signed), ..Default::default() };
    let refused = gateway.endorse(Request::new(request)).await.expect_err("refused");
    let text = "no endorsers found in the gateway's organization; retry specifying endorsing organization(s) to \
                protect transient data";
    assert_eq!(of(&refused), (Code::FailedPrecondition, text));
    assert!(endorsers.asked.lock().expect("asked").is_empty(), "nobody saw it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evaluation_that_nobody_answers_ends_with_the_deadline() {
    let mut bench = Bench::new().await;
    for endpoint in [LOCAL, SECOND, OTHER] {
        bench.behave(endpoint, Behaviour::Hang);
    }
    let (gateway, test, _) = bench.gateway();
    let (_, signed) = proposal(&test, "basic", false);
    let mut request =
        Request::new(EvaluateRequest { proposed_transaction: Some(signed), ..Default::default() });
    request.set_timeout(Duration::from_millis(200));
    let late = gateway.evaluate(request).await.expect_err("nobody answers");
    assert_eq!(of(&late), (Code::DeadlineExceeded, "evaluate timeout expired"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_about_transactions_and_events_are_guarded_each_as_the_channel_says() {
    const GUARD: &str = "/Channel/Application/Org1MSP/Admins";
    for resource in ["gateway/CommitStatus", "gateway/ChaincodeEvents"] {
        let network = Network::altered(&[], |root| guard(root, &[resource], GUARD));
        let mut test = TestChannel::of(network).await;
        let known = test.basic();
        test.commit(vec![known.build()]).await;
        let (client, admin) = (Arc::clone(&test.network.org1.client), test.network.org1.identity("admin"));
        let (gateway, _test, _) = Bench::of(test).gateway();
        let status = async |who: &SigningIdentity| {
            let request = CommitStatusRequest {
                transaction_id: known.tx_id(),
                channel_id: CHANNEL.to_owned(),
                identity: who.serialized().clone(),
            };
            let request = Bytes::from(request.encode_to_vec());
            let signature = who.sign(&request).expect("a signature").into();
            gateway
                .commit_status(Request::new(SignedCommitStatusRequest { request, signature }))
                .await
                .map(drop)
        };
        let events = async |who: &SigningIdentity| {
            let request = ChaincodeEventsRequest {
                channel_id: CHANNEL.to_owned(),
                chaincode_id: "basic".to_owned(),
                identity: who.serialized().clone(),
                ..ChaincodeEventsRequest::default()
            };
            let request = Bytes::from(request.encode_to_vec());
            let signature = who.sign(&request).expect("a signature").into();
            gateway
                .chaincode_events(Request::new(SignedChaincodeEventsRequest { request, signature }))
                .await
                .map(drop)
        };
        let guards_status = resource == "gateway/CommitStatus";
        let allowed = [status(&client).await.is_ok(), events(&client).await.is_ok()];
        assert_eq!(allowed, [!guards_status, guards_status], "{resource}: a client");
        status(&admin).await.expect("the administrator may");
        events(&admin).await.expect("the administrator may");
    }
}
