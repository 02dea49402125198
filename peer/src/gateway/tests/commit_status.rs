//! CommitStatus: what became of a transaction, and who may know.

use super::*;

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
