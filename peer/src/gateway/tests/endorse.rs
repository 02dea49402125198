//! Endorse: who is asked, what stands in, and how a refusal explains itself.

use super::*;
use crate::testing::spelled_policy;

async fn endorse(
    gateway: &Gateway,
    test: &TestChannel,
    organisations: &[&str],
    transient: bool,
) -> Result<Envelope, Status> {
    let signed = proposal(test, "basic", transient);
    endorse_proposal(gateway, signed, organisations).await
}

async fn endorse_proposal(
    gateway: &Gateway,
    (transaction_id, signed): (String, SignedProposal),
    organisations: &[&str],
) -> Result<Envelope, Status> {
    let request = EndorseRequest {
        transaction_id,
        channel_id: CHANNEL.to_owned(),
        proposed_transaction: Some(signed),
        endorsing_organizations: organisations.iter().map(|name| (*name).to_owned()).collect(),
    };
    Ok(gateway
        .endorse(Request::new(request))
        .await?
        .into_inner()
        .prepared_transaction
        .expect("a transaction"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endorsed_transaction_satisfies_the_policy_and_commits() {
    let (gateway, mut test, endorsers) = Bench::new().await.gateway();
    let mut envelope = endorse(&gateway, &test, &[], false).await.expect("endorsed");
    assert!(envelope.signature.is_empty());
    envelope.signature = test.network.org1.client.sign(&envelope.payload).expect("a signature").into();
    let asked = endorsers.asked.lock().expect("asked").clone();
    assert_eq!(asked, [LOCAL, OTHER], "one peer of each organisation, the local one first");
    let envelope = Bytes::from(envelope.encode_to_vec());
    let opened = Transaction::open(envelope.clone()).expect("a transaction");
    assert_eq!(opened.endorser().expect("an invocation").endorsements.len(), 2);
    assert_eq!(test.commit(vec![envelope]).await, [TxValidationCode::Valid]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_peer_of_the_organisation_replaces_a_failed_one() {
    let mut bench = Bench::new().await;
    bench.behave(LOCAL, Behaviour::Down);
    let (gateway, test, endorsers) = bench.gateway();
    endorse(&gateway, &test, &[], false).await.expect("endorsed");
    assert_eq!(*endorsers.asked.lock().expect("asked"), [LOCAL, SECOND, OTHER]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_with_the_endpoint_of_another_organisation_stands_in_nobodys_way() {
    let mut bench = Bench::new().await;
    let mut impostor = bench.peers[1].clone();
    OTHER.clone_into(&mut impostor.endpoint);
    impostor.height = 9;
    bench.peers.push(impostor);
    let (gateway, test, endorsers) = bench.gateway();
    endorse(&gateway, &test, &[], false).await.expect("endorsed");
    assert_eq!(*endorsers.asked.lock().expect("asked"), [OTHER, LOCAL, OTHER]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endorsement_with_a_bad_signature_is_replaced() {
    let mut bench = Bench::new().await;
    bench.behave(LOCAL, Behaviour::Forge("v"));
    let (gateway, mut test, endorsers) = bench.gateway();
    let mut envelope = endorse(&gateway, &test, &[], false).await.expect("another peer endorses");
    assert_eq!(*endorsers.asked.lock().expect("asked"), [LOCAL, SECOND, OTHER]);
    envelope.signature = test.network.org1.client.sign(&envelope.payload).expect("a signature").into();
    assert_eq!(test.commit(vec![envelope.encode_to_vec().into()]).await, [TxValidationCode::Valid]);
    let mut bench = Bench::new().await;
    bench.behave(OTHER, Behaviour::Forge("v"));
    let (gateway, test, _) = bench.gateway();
    let status = endorse(&gateway, &test, &[], false).await.expect_err("nobody else of Org2");
    let details = details(&status);
    assert_eq!(details[0].address, OTHER);
    assert!(details[0].message.starts_with("the endorsement does not count: "), "{}", details[0].message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endorsers_that_cannot_be_connected_to_are_named_as_by_fabric() {
    let mut bench = Bench::new().await;
    bench.behave(OTHER, Behaviour::Down);
    let (gateway, test, _) = bench.gateway();
    let status = endorse(&gateway, &test, &[], false).await.expect_err("nobody else of Org2");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(
        status.message(),
        "failed to select a set of endorsers that satisfy the endorsement policy due to unavailability of peers: \
         [peer0.org2:9051]"
    );
    let details = details(&status);
    assert_eq!((details[0].address.as_str(), details[0].message.as_str()), (OTHER, "connection refused"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn different_results_are_named_a_mismatch() {
    let mut bench = Bench::new().await;
    bench.behave(OTHER, Behaviour::Write("w"));
    let (gateway, test, _) = bench.gateway();
    let status = endorse(&gateway, &test, &[], false).await.expect_err("no agreement");
    assert_eq!(status.code(), Code::Aborted);
    assert_eq!(
        status.message(),
        "failed to collect enough transaction endorsements, see attached details for more info"
    );
    let details = details(&status);
    assert_eq!(
        (details[0].address.as_str(), details[0].message.as_str()),
        (
            OTHER,
            "ProposalResponsePayloads do not match: Org1MSP (peer0.org1:7051) and Org2MSP (peer0.org2:9051) differ in the \
             value written to key \"key\" of basic: \"v\" and \"w\""
        )
    );
    assert_eq!((details[1].address.as_str(), details[1].msp_id.as_str()), (LOCAL, "Org1MSP"));
    assert!(
        details[1].message.starts_with("the policy of chaincode basic is not met: "),
        "{}",
        details[1].message
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_differ_are_named_to_those_who_may_read_blocks_only() {
    let mut bench = Bench::new().await;
    bench.behave(OTHER, Behaviour::Write("another secret"));
    let (gateway, mut test, _) = bench.gateway();
    let configuration = test.network.configuration(&test.channel.bundle(), |root| {
        let application = root.groups.get_mut("Application").expect("an application group");
        let admins = application.policies["Admins"].policy.clone();
        application.policies.get_mut("Readers").expect("readers").policy = admins;
    });
    assert_eq!(test.commit(vec![configuration]).await, [TxValidationCode::Valid]);
    let status = endorse(&gateway, &test, &[], false).await.expect_err("no agreement");
    let details = details(&status);
    assert_eq!(
        details[0].message,
        "ProposalResponsePayloads do not match: Org1MSP (peer0.org1:7051) and Org2MSP (peer0.org2:9051) differ in the \
         value written to key \"key\" of basic"
    );
    assert!(details.iter().all(|detail| !detail.message.contains("another secret")), "{details:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endorser_that_hangs_leaves_time_for_another() {
    let mut bench = Bench::new().await;
    bench.behave(LOCAL, Behaviour::Hang);
    let (gateway, test, endorsers) = bench.gateway();
    let (transaction_id, signed) = proposal(&test, "basic", false);
    let mut request = Request::new(EndorseRequest {
        transaction_id,
        channel_id: CHANNEL.to_owned(),
        proposed_transaction: Some(signed.clone()),
        endorsing_organizations: Vec::new(),
    });
    request.set_timeout(std::time::Duration::from_millis(1_500));
    gateway.endorse(request).await.expect("the second peer of Org1 stands in");
    assert_eq!(*endorsers.asked.lock().expect("asked"), [LOCAL, SECOND, OTHER]);
    let mut request = Request::new(EvaluateRequest {
        channel_id: CHANNEL.to_owned(),
        proposed_transaction: Some(signed),
        ..EvaluateRequest::default()
    });
    request.set_timeout(std::time::Duration::from_millis(1_500));
    gateway.evaluate(request).await.expect("another peer evaluates");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_endorsers_hang_the_deadline_says_where() {
    let mut bench = Bench::new().await;
    for endpoint in [LOCAL, SECOND, OTHER] {
        bench.behave(endpoint, Behaviour::Hang);
    }
    let (gateway, test, _) = bench.gateway();
    let timed = async |organisations: &[&str]| {
        let (transaction_id, signed) = proposal(&test, "basic", false);
        let mut request = Request::new(EndorseRequest {
            transaction_id,
            channel_id: CHANNEL.to_owned(),
            proposed_transaction: Some(signed),
            endorsing_organizations: organisations.iter().map(|name| (*name).to_owned()).collect(),
        });
        request.set_timeout(std::time::Duration::from_millis(200));
        gateway.endorse(request).await.map(|_| ()).expect_err("nobody answers")
    };
    let first = timed(&[]).await;
    assert_eq!(first.code(), Code::DeadlineExceeded);
    assert_eq!(first.message(), "endorsement timeout expired while collecting first endorsement");
    let named = timed(&["Org2MSP"]).await;
    assert_eq!(named.code(), Code::DeadlineExceeded);
    assert_eq!(named.message(), "endorsement timeout expired while collecting endorsements");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chaincode_error_at_all_own_peers_aborts() {
    let mut bench = Bench::new().await;
    bench.behave(LOCAL, Behaviour::Chaincode(500, "no"));
    bench.behave(SECOND, Behaviour::Chaincode(500, "no"));
    let (gateway, test, _) = bench.gateway();
    let status = endorse(&gateway, &test, &[], false).await.expect_err("refused");
    assert_eq!(status.code(), Code::Aborted);
    assert_eq!(status.message(), "failed to endorse transaction, see attached details for more info");
    assert_eq!(details(&status)[0].message, "chaincode response 500, no");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_satisfied_is_explained() {
    let mut bench = Bench::new().await;
    bench.peers.retain(|member| member.endpoint != OTHER);
    let (gateway, test, _) = bench.gateway();
    let status = endorse(&gateway, &test, &[], false).await.expect_err("no peer of Org2");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(
        status.message(),
        "no combination of peers can be derived which satisfy the endorsement policy: no peer combination can satisfy \
         the endorsement policy"
    );
    let explained = &details(&status)[0];
    assert_eq!((explained.address.as_str(), explained.msp_id.as_str()), (LOCAL, "Org1MSP"));
    assert!(
        explained.message.contains("the policy of chaincode basic is not met: "),
        "{}",
        explained.message
    );
    assert!(explained.message.contains("Org2"), "{}", explained.message);
    let status = endorse(&gateway, &test, &["Org1MSP", "Org2MSP"], false).await.expect_err("no peer of Org2");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "failed to find any endorsing peers for org(s): Org2MSP");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaincode_that_is_not_installed_everywhere_is_named() {
    let mut bench = Bench::new().await;
    for member in bench.peers.iter_mut().filter(|member| member.endpoint == OTHER) {
        member.chaincodes.clear();
    }
    let (gateway, test, _) = bench.gateway();
    let status = endorse(&gateway, &test, &[], false).await.expect_err("Org2 cannot run it");
    assert!(
        status.message().ends_with("required chaincodes are not installed on sufficient peers"),
        "{status}"
    );
    let explained = details(&status).remove(0).message;
    assert!(
        explained.ends_with("peer0.org2:9051 (Org2MSP) has no package of basic version 1 installed"),
        "{explained}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_stay_with_the_collections_members() {
    let mut bench = Bench::new().await;
    bench.endorsers.interest = ChaincodeInterest {
        chaincodes: vec![
            ChaincodeCall { name: "basic".to_owned(), ..ChaincodeCall::default() },
            ChaincodeCall {
                name: "basic".to_owned(),
                collection_names: vec!["own".to_owned()],
                no_private_reads: true,
                ..ChaincodeCall::default()
            },
        ],
    };
    let (gateway, test, endorsers) = bench.gateway();
    endorse(&gateway, &test, &[], false).await.expect("nothing secret goes to Org2");
    endorsers.asked.lock().expect("asked").clear();
    let status = endorse(&gateway, &test, &[], true).await.expect_err("Org2 is no member of the collection");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(
        status.message().starts_with(
            "requires endorsement from organisation(s) that are not in the distribution policy of the private data \
             collection(s): [own]"
        ),
        "{status}"
    );
    assert_eq!(*endorsers.asked.lock().expect("asked"), [LOCAL]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_peer_of_each_named_organisation_is_asked_and_its_alternate_when_it_fails() {
    let mut bench = Bench::new().await;
    for member in &mut bench.peers {
        member.height = if member.endpoint == SECOND { 8 } else { 2 };
    }
    bench.behave(SECOND, Behaviour::Broken("no chaincode"));
    let (gateway, test, endorsers) = bench.gateway();
    // No policy is looked at: that of the chaincode needs both organisations.
    endorse(&gateway, &test, &["Org1MSP"], false).await.expect("endorsed");
    assert_eq!(*endorsers.asked.lock().expect("asked"), [SECOND, LOCAL], "the higher one first");
    endorsers.asked.lock().expect("asked").clear();
    endorse(&gateway, &test, &["Org2MSP"], false).await.expect("endorsed");
    assert_eq!(*endorsers.asked.lock().expect("asked"), [OTHER]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chaincode_that_the_own_organisation_does_not_run_is_endorsed_by_others() {
    let mut test = TestChannel::new().await;
    let policy = spelled_policy("OR('Org2MSP.peer')");
    let definition = test.network.definition("theirs", &policy, &Default::default()).build();
    assert_eq!(test.commit(vec![definition]).await, [TxValidationCode::Valid]);
    let mut bench = Bench::of(test);
    for member in bench.peers.iter_mut().filter(|member| member.endpoint == OTHER) {
        member.chaincodes.push(("theirs".to_owned(), "1".to_owned()));
    }
    bench.endorsers.interest.chaincodes[0].name = "theirs".to_owned();
    let (gateway, test, endorsers) = bench.gateway();
    let signed = proposal(&test, "theirs", false);
    endorse_proposal(&gateway, signed, &[]).await.expect("Org2 endorses");
    assert_eq!(*endorsers.asked.lock().expect("asked"), [OTHER]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chaincode_that_nobody_defined_is_named() {
    let (gateway, test, _) = Bench::new().await.gateway();
    let signed = proposal(&test, "nothing", false);
    let status = endorse_proposal(&gateway, signed, &[]).await.expect_err("no such chaincode");
    assert_eq!(
        (status.code(), status.message()),
        (
            Code::FailedPrecondition,
            "no combination of peers can be derived which satisfy the endorsement policy: No metadata was found for chaincode nothing in channel mychannel"
        )
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endorser_counts_once() {
    let mut bench = Bench::new().await;
    // Another endpoint of the same peer.
    let mut again = bench.peers.iter().find(|member| member.endpoint == LOCAL).expect("a peer").clone();
    SECOND.clone_into(&mut again.endpoint);
    again.local = false;
    bench.peers.retain(|member| member.endpoint != SECOND);
    bench.peers.push(again);
    let peer = Arc::clone(&bench.endorsers.identities[LOCAL]);
    bench.endorsers.identities.insert(SECOND.to_owned(), peer);
    let (gateway, test, _) = bench.gateway();
    let envelope = endorse(&gateway, &test, &[], false).await.expect("endorsed");
    let opened = Transaction::open(Bytes::from(envelope.encode_to_vec())).expect("a transaction");
    let endorsements = &opened.endorser().expect("an invocation").endorsements;
    let mut endorsers: Vec<&Bytes> = endorsements.iter().map(|endorsement| &endorsement.endorser).collect();
    endorsers.dedup();
    assert_eq!(endorsers.len(), 2, "one of each organisation");
}
