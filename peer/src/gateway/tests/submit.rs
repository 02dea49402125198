//! Submit: which orderer takes a transaction.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_ends_with_the_first_orderer_that_decides() {
    let envelope = Envelope {
        payload: Bytes::from_static(b"p"),
        signature: Bytes::from_static(b"s"),
        ..Envelope::default()
    };
    type Answer = Result<(common::Status, &'static str), &'static str>;
    let submit = |orderers: Vec<(&'static str, Answer)>| {
        let envelope = envelope.clone();
        async move {
            let mut bench = Bench::new().await;
            bench.orderers = orderers
                .into_iter()
                .map(|(address, answer)| {
                    (address.to_owned(), answer.map(|(status, info)| (status as i32, info)))
                })
                .collect();
            let (gateway, _test, _) = bench.gateway();
            let request = SubmitRequest {
                transaction_id: String::new(),
                channel_id: CHANNEL.to_owned(),
                prepared_transaction: Some(envelope),
            };
            gateway.submit(Request::new(request)).await.map(drop)
        }
    };
    let unavailable = (common::Status::ServiceUnavailable, "no Raft leader");
    submit(vec![
        ("a:1", Err("refused")),
        ("b:1", Ok(unavailable)),
        ("c:1", Ok((common::Status::Success, ""))),
    ])
    .await
    .expect("the third orderer takes it");
    let status = submit(vec![("a:1", Ok((common::Status::Forbidden, "permission denied")))])
        .await
        .expect_err("forbidden");
    assert_eq!(
        (status.code(), status.message()),
        (
            Code::Aborted,
            "received unsuccessful response from orderer: status=FORBIDDEN, info=permission denied"
        )
    );
    let status = submit(vec![("a:1", Err("refused")), ("b:1", Err("refused"))]).await.expect_err("nobody");
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "no orderers could successfully process transaction")
    );
    assert_eq!(details(&status).len(), 2);
    let status = submit(Vec::new()).await.expect_err("no orderers");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "no orderer nodes available"));
}
