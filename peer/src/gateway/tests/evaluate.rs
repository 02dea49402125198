//! Evaluate: one peer answers, another when it fails.

use super::*;

async fn evaluate(gateway: &Gateway, test: &TestChannel, targets: &[&str]) -> Result<Response, Status> {
    let (transaction_id, signed) = proposal(test, "basic", false);
    let request = EvaluateRequest {
        transaction_id,
        channel_id: CHANNEL.to_owned(),
        proposed_transaction: Some(signed),
        target_organizations: targets.iter().map(|target| (*target).to_owned()).collect(),
    };
    Ok(gateway.evaluate(Request::new(request)).await?.into_inner().result.expect("a result"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evaluation_goes_to_the_local_peer_and_on_when_it_fails() {
    let mut bench = Bench::new().await;
    bench.behave(LOCAL, Behaviour::Broken("chaincode stream terminated"));
    bench.behave(SECOND, Behaviour::Down);
    let (gateway, test, endorsers) = bench.gateway();
    let result = evaluate(&gateway, &test, &[]).await.expect("the third peer answers");
    assert_eq!(result.payload, Bytes::from_static(b"v"));
    assert_eq!(*endorsers.asked.lock().expect("asked"), [LOCAL, SECOND, OTHER]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_peer_of_the_own_organisation_that_has_most_blocks_is_asked_first() {
    let mut bench = Bench::new().await;
    for member in &mut bench.peers {
        member.height = match member.endpoint.as_str() {
            LOCAL => 7,
            SECOND => 8,
            _ => 9,
        };
    }
    let (gateway, test, endorsers) = bench.gateway();
    evaluate(&gateway, &test, &[]).await.expect("an answer");
    assert_eq!(*endorsers.asked.lock().expect("asked"), [SECOND]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chaincode_error_ends_an_evaluation() {
    let mut bench = Bench::new().await;
    bench.behave(LOCAL, Behaviour::Chaincode(500, "the asset a1 does not exist"));
    let (gateway, test, endorsers) = bench.gateway();
    let status = evaluate(&gateway, &test, &[]).await.expect_err("refused");
    assert_eq!(status.code(), Code::Unknown);
    let text =
        "evaluate call to endorser returned error: chaincode response 500, the asset a1 does not exist";
    assert_eq!(status.message(), text);
    assert_eq!(
        details(&status),
        [ErrorDetail {
            address: LOCAL.to_owned(),
            msp_id: "Org1MSP".to_owned(),
            message: "chaincode response 500, the asset a1 does not exist".to_owned(),
        }]
    );
    assert_eq!(endorsers.asked.lock().expect("asked").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evaluation_without_peers_says_so() {
    let (gateway, test, _) = Bench::new().await.gateway();
    let status = evaluate(&gateway, &test, &["Org9MSP"]).await.expect_err("no peer of Org9");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(status.message(), "no peers available to evaluate chaincode basic in channel mychannel");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_peers_down_are_all_named() {
    let mut bench = Bench::new().await;
    for endpoint in [LOCAL, SECOND, OTHER] {
        bench.behave(endpoint, Behaviour::Down);
    }
    let (gateway, test, _) = bench.gateway();
    let status = evaluate(&gateway, &test, &[]).await.expect_err("nobody answers");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "failed to evaluate transaction, see attached details for more info");
    assert_eq!(details(&status).len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_all_fail_by_themselves_abort() {
    let mut bench = Bench::new().await;
    for endpoint in [LOCAL, SECOND, OTHER] {
        bench.behave(endpoint, Behaviour::Broken("out of memory"));
    }
    let (gateway, test, _) = bench.gateway();
    let status = evaluate(&gateway, &test, &[]).await.expect_err("nobody can");
    assert_eq!(status.code(), Code::Aborted);
    assert_eq!(status.message(), "failed to evaluate transaction, see attached details for more info");
    let details = details(&status);
    assert!(
        details.iter().all(|detail| detail.message == "chaincode response 500, out of memory"),
        "{details:?}"
    );
    assert_eq!(details.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_that_the_own_peer_finds_invalid_goes_to_no_other() {
    let mut bench = Bench::new().await;
    bench.behave(LOCAL, Behaviour::Refuse("error validating proposal: epoch is non-zero"));
    let (gateway, test, endorsers) = bench.gateway();
    let status = evaluate(&gateway, &test, &[]).await.expect_err("invalid");
    assert_eq!(status.code(), Code::FailedPrecondition);
    let text = "evaluate call to endorser returned error: error validating proposal: epoch is non-zero";
    assert_eq!(status.message(), text);
    assert_eq!(details(&status)[0].message, "error validating proposal: epoch is non-zero");
    assert_eq!(*endorsers.asked.lock().expect("asked"), [LOCAL]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn named_organisations_alone_are_asked() {
    let (gateway, test, endorsers) = Bench::new().await.gateway();
    evaluate(&gateway, &test, &["Org2MSP"]).await.expect("an answer");
    assert_eq!(*endorsers.asked.lock().expect("asked"), [OTHER]);
}
