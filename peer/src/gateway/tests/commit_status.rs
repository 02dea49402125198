//! CommitStatus: what became of a transaction, and who may know.

use super::*;
use crate::channel::ChannelFault;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commit_status_is_told_before_and_after_the_commit() {
    let (gateway, mut test, _) = Bench::new().await.gateway();
    let good = test.basic();
    let bad = test.basic().endorsed_by(&[]);
    let waiting = {
        let gateway = gateway.clone();
        let request = Request::new(commit_status(&test, &good.tx_id()));
        async move { gateway.commit_status(request).await }
    };
    let envelopes = vec![good.build(), bad.build()];
    let (status, codes) = tokio::join!(waiting, test.commit(envelopes));
    assert_eq!(codes, [TxValidationCode::Valid, TxValidationCode::EndorsementPolicyFailure]);
    let status = status.expect("a status").into_inner();
    assert_eq!((status.result, status.block_number), (0, 2));
    let request = Request::new(commit_status(&test, &bad.tx_id()));
    let status = gateway.commit_status(request).await.expect("a status").into_inner();
    assert_eq!((status.result, status.block_number), (TxValidationCode::EndorsementPolicyFailure as i32, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commit_status_is_only_told_to_members() {
    let (gateway, test, _) = Bench::new().await.gateway();
    let mut forged = commit_status(&test, "0");
    forged.signature = test.network.org2.client.sign(&forged.request).expect("a signature").into();
    let status = gateway.commit_status(Request::new(forged)).await.expect_err("forged");
    assert_eq!(status.code(), Code::PermissionDenied);
    let status = gateway
        .commit_status(Request::new(SignedCommitStatusRequest::default()))
        .await
        .expect_err("nothing asked");
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "no identity provided"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_at_a_channel_that_stops_hears_why() {
    let (gateway, test, _) = Bench::new().await.gateway();
    let request = Request::new(commit_status(&test, &"ab".repeat(32)));
    let events = ChaincodeEventsRequest {
        channel_id: CHANNEL.to_owned(),
        chaincode_id: "basic".to_owned(),
        identity: test.network.org1.client.serialized().clone(),
        ..ChaincodeEventsRequest::default()
    };
    let events = Bytes::from(events.encode_to_vec());
    let signature = test.network.org1.client.sign(&events).expect("a signature").into();
    let events = SignedChaincodeEventsRequest { request: events, signature };
    let mut stream = gateway.chaincode_events(Request::new(events)).await.expect("a stream").into_inner();
    let fault = ChannelFault { reason: "the disk is full".to_owned(), remedy: "free space".to_owned() };
    let (status, ()) = tokio::join!(gateway.commit_status(request), async { test.channel.stop(fault) });
    let status = status.expect_err("no block comes any more");
    assert_eq!(status.code(), Code::Aborted);
    assert!(status.message().contains("the disk is full"), "{status}");
    let last = stream.next().await.expect("an answer").expect_err("no event comes any more");
    assert_eq!(last.code(), Code::Aborted);
    assert!(last.message().contains("the disk is full"), "{last}");
    let (_, signed) = proposal(&test, "basic", false);
    let request = EvaluateRequest { proposed_transaction: Some(signed), ..EvaluateRequest::default() };
    let refused = gateway.evaluate(Request::new(request)).await.expect_err("the channel stopped");
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().starts_with("failed to get config for channel [mychannel]: "), "{refused}");
}
