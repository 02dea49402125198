//! Submit: which orderer takes a transaction.

use std::time::Duration;

use consort_protos::fabric::orderer::ConsensusType;

use super::*;
use crate::testing::Network;

/// What an orderer answers, or why there is no answer.
type Answer = Result<(common::Status, &'static str), &'static str>;

const TAKEN: Answer = Ok((common::Status::Success, ""));

/// Submits at a gateway with these orderers.
async fn submit(
    mut bench: Bench,
    orderers: &[(&str, Answer)],
    timeout: Option<Duration>,
) -> Result<(), Status> {
    let answer = |(address, answer): &(&str, Answer)| {
        ((*address).to_owned(), answer.map(|(status, info)| (status as i32, info)))
    };
    bench.orderers = orderers.iter().map(answer).collect();
    let (gateway, _test, _) = bench.gateway();
    let envelope = Envelope {
        payload: Bytes::from_static(b"p"),
        signature: Bytes::from_static(b"s"),
        ..Envelope::default()
    };
    let mut request = Request::new(SubmitRequest {
        channel_id: CHANNEL.to_owned(),
        prepared_transaction: Some(envelope),
        ..SubmitRequest::default()
    });
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    gateway.submit(request).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_to_orderers_that_do_not_answer_ends_with_the_deadline() {
    let bench = Bench::new().await;
    let late = submit(bench, &[(SILENT, TAKEN)], Some(Duration::from_millis(200))).await;
    let late = late.expect_err("nobody answers");
    assert_eq!(
        (late.code(), late.message()),
        (Code::DeadlineExceeded, "submit timeout expired while broadcasting to ordering service")
    );
}

/// A channel whose orderers are those of Fabric's BFT; peers may follow it, Consort's orderers do not serve it.
async fn byzantine() -> Bench {
    let network = Network::altered(&[], |root| {
        let orderer = root.groups.get_mut("Orderer").expect("an orderer group");
        let entry = orderer.values.get_mut("ConsensusType").expect("a consensus type");
        let mut consensus = ConsensusType::decode(entry.value.clone()).expect("a consensus type");
        "BFT".clone_into(&mut consensus.r#type);
        entry.value = consensus.encode_to_vec().into();
    });
    let test = TestChannel::of(network).await;
    let refused = test.channel.bundle().check_consenters().expect_err("only peers follow it");
    assert!(
        refused.to_string().contains("consensus type \"BFT\" is not supported, only etcdraft is"),
        "{refused}"
    );
    Bench::of(test)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orderers_that_may_lie_must_take_a_transaction_with_a_quorum() {
    // Four orderers, of which one may lie: three have to have it.
    let known: Answer =
        Ok((common::Status::InternalServerError, "failed to submit request: request already exists"));
    let (refused, down): (Answer, Answer) =
        (Ok((common::Status::Forbidden, "permission denied")), Err("refused"));
    let three = [("a:1", TAKEN), ("b:1", TAKEN), ("c:1", known), ("d:1", down)];
    submit(byzantine().await, &three, None).await.expect("three have it, one of them from before");
    let two = [("a:1", TAKEN), ("b:1", TAKEN), ("c:1", refused), ("d:1", down)];
    let status = submit(byzantine().await, &two, None).await.expect_err("two are not enough");
    assert_eq!(
        (status.code(), status.message()),
        (
            Code::Unavailable,
            "insufficient number of orderers could successfully process transaction to satisfy quorum requirement"
        )
    );
    let mut told: Vec<String> = details(&status).into_iter().map(|detail| detail.message).collect();
    told.sort();
    let text = "received unsuccessful response from orderer: status=FORBIDDEN, info=permission denied";
    assert_eq!(told, [text, "refused"]);
    let silent = [("a:1", TAKEN), ("b:1", TAKEN), (SILENT, TAKEN), ("d:1", TAKEN)];
    submit(byzantine().await, &silent, Some(Duration::from_secs(30)))
        .await
        .expect("nobody waits for the fourth");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_ends_with_the_first_orderer_that_decides() {
    let submit = async |orderers: Vec<(&str, Answer)>| submit(Bench::new().await, &orderers, None).await;
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
