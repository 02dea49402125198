//! What the rules refuse: calls that are malformed, that somebody else may make, or that the books rule out.

use std::sync::Arc;

use consort_crypto::pre;
use consort_protos::consort::sealed::{Elsewhere, Filter, Validity};
use prost_types::Timestamp;

use super::*;

/// Status and text of a refused call.
async fn refused(
    bench: &Bench,
    caller: &Arc<SigningIdentity>,
    function: &str,
    argument: &impl Message,
) -> (i32, String) {
    match bench.prepare(caller, function, argument).await {
        Err(refused) => refused,
        Ok(_) => panic!("{function} was endorsed"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_without_the_capability_has_no_sealed_data() {
    let network = Network::new(&[]);
    let peer = JoinedPeer::new(&network.genesis);
    let folder = tempfile::tempdir().unwrap();
    let endorser = endorser(&network.org1, &peer.channels, &peer.channel, folder.path());
    let secret = pre::SecretKey::generate(pre::Suite::P256).unwrap();
    let (signed, _) = proposal(
        &network.org1.client,
        "CreateDomain",
        &create_domain(&network.org1.client, "d", &secret),
        NOW,
    );
    let response = endorser.process(&signed).await.unwrap().response.unwrap();
    assert_eq!(response.status, 500);
    assert!(response.message.contains("CONSORT_SEALED_DATA"), "{}", response.message);
    // Nor can endorsers write there.
    let forged = network.transaction(SEALED).endorsed_by(&[&network.org1.peer, &network.org2.peer]).build();
    let block = network.block_after(&network.genesis, vec![forged]);
    feed(&peer.channel, [block]).await;
    let stored = peer.channel.ledger().block(BlockNumber::new(1)).unwrap().unwrap();
    let code = i32::from(consort_protos::block::flags(&stored).unwrap()[0]);
    assert_eq!(TxValidationCode::try_from(code).unwrap(), TxValidationCode::InvalidChaincode);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_domain_belongs_to_whoever_proves_to_know_its_key() {
    let mut bench = Bench::new();
    let secret = pre::SecretKey::generate(pre::Suite::P256).unwrap();
    let (owner, stranger) = (Arc::clone(&bench.owner), Arc::clone(&bench.stranger));
    // The proof is bound to its creator and to the domain's name.
    let input = create_domain(&owner, "clinic", &secret);
    let (status, text) = refused(&bench, &stranger, "CreateDomain", &input).await;
    assert_eq!(status, 400);
    assert!(text.contains("does not prove to know"), "{text}");
    let renamed =
        consort_protos::consort::sealed::CreateDomain { domain: "other".to_owned(), ..input.clone() };
    assert_eq!(refused(&bench, &owner, "CreateDomain", &renamed).await.0, 400);
    let another = pre::SecretKey::generate(pre::Suite::P256).unwrap().public_key().to_bytes();
    let stolen = consort_protos::consort::sealed::CreateDomain {
        public_key: another.to_vec().into(),
        ..input.clone()
    };
    assert_eq!(refused(&bench, &owner, "CreateDomain", &stolen).await.0, 400);
    bench.call(&owner, "CreateDomain", &input).await;
    assert_eq!(refused(&bench, &owner, "CreateDomain", &input).await.0, 409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_points_that_are_none_are_refused() {
    let bench = Bench::new();
    let secret = pre::SecretKey::generate(pre::Suite::P256).unwrap();
    let input = create_domain(&bench.owner, "clinic", &secret);
    let identity = vec![0_u8; 33];
    let short = input.public_key[..32].to_vec();
    // A coordinate above the field's prime.
    let mut beyond = vec![0xff_u8; 33];
    beyond[0] = 2;
    for key in [identity, short, beyond] {
        let broken =
            consort_protos::consort::sealed::CreateDomain { public_key: key.into(), ..input.clone() };
        let (status, text) = refused(&bench, &bench.owner, "CreateDomain", &broken).await;
        assert_eq!(status, 400);
        assert!(text.contains("no key of suite p256"), "{text}");
    }
    // A proof whose scalar is the group's order or more.
    let mut proof = input.proof.to_vec();
    let length = proof.len();
    proof[length - 32..].fill(0xff);
    let broken = consort_protos::consort::sealed::CreateDomain { proof: proof.into(), ..input.clone() };
    assert_eq!(refused(&bench, &bench.owner, "CreateDomain", &broken).await.0, 400);
    let other_suite =
        consort_protos::consort::sealed::CreateDomain { suite: Suite::Sm2.into(), ..input.clone() };
    assert_eq!(refused(&bench, &bench.owner, "CreateDomain", &other_suite).await.0, 400);
    let no_suite = consort_protos::consort::sealed::CreateDomain { suite: 7, ..input };
    assert_eq!(refused(&bench, &bench.owner, "CreateDomain", &no_suite).await.0, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_come_from_their_owner_with_their_own_capsule_in_their_order() {
    let mut bench = Bench::new();
    let secret = bench.domain("clinic", pre::Suite::P256).await;
    let record = name("clinic", "patient-7", 1);
    let sealed = bench.put(&secret, &record).await;
    let (owner, stranger) = (Arc::clone(&bench.owner), Arc::clone(&bench.stranger));
    let next = name("clinic", "patient-7", 2);
    // The capsule of version 1 is none of version 2, nor of another record.
    for other in [&next, &name("clinic", "patient-8", 1)] {
        let (status, text) = refused(&bench, &owner, "PutRecord", &put_record(other, &sealed)).await;
        assert_eq!(status, 400);
        assert!(text.contains("not one of this record"), "{text}");
    }
    for version in [0, 1, 3, u64::MAX] {
        let record = name("clinic", "patient-7", version);
        let sealed = pre::seal(&secret.public_key(), &record_context(CHANNEL, &record), RECORD).unwrap();
        assert_eq!(
            refused(&bench, &owner, "PutRecord", &put_record(&record, &sealed)).await.0,
            409,
            "{version}"
        );
    }
    let fresh = pre::seal(&secret.public_key(), &record_context(CHANNEL, &next), RECORD).unwrap();
    assert_eq!(refused(&bench, &stranger, "PutRecord", &put_record(&next, &fresh)).await.0, 403);
    let nowhere = name("nowhere", "patient-7", 1);
    assert_eq!(refused(&bench, &owner, "PutRecord", &put_record(&nowhere, &fresh)).await.0, 404);
    for key in ["", "a/b", "a\u{0}b", &"x".repeat(257)] {
        let record = name("clinic", key, 1);
        assert_eq!(
            refused(&bench, &owner, "PutRecord", &put_record(&record, &fresh)).await.0,
            400,
            "{key:?}"
        );
    }
    let mut large = put_record(&next, &fresh);
    large.content = Some(put_record::Content::Ciphertext(vec![0; 64 * 1024 + 1].into()));
    let (status, text) = refused(&bench, &owner, "PutRecord", &large).await;
    assert_eq!(status, 400);
    assert!(text.contains("keep more than 65536 elsewhere"), "{text}");
    let elsewhere = Elsewhere { sha256: vec![0; 32].into(), length: 1 << 40, location: "s3://x".to_owned() };
    large.content = Some(put_record::Content::Elsewhere(elsewhere));
    bench.call(&owner, "PutRecord", &large).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contradictory_grants_are_refused_with_the_reason() {
    let mut bench = Bench::new();
    let proxies = bench.proxies();
    let secret = bench.domain("clinic", pre::Suite::P256).await;
    let offer = bench.grant_to_reader("g1", "clinic", &secret, &proxies);
    let good = offer.split();
    // A coordinate above the field's prime; another suite's key may by chance be one of this suite's.
    let beyond: Vec<u8> = [2].into_iter().chain([0xff; 32]).collect();
    type Change = Box<dyn Fn(&mut Terms)>;
    let long: Vec<String> = (0..257).map(|number| number.to_string()).collect();
    let cases: Vec<(&str, Change)> = vec![
        ("threshold of 3 proxies must be 1 to 3, not 0", Box::new(|terms| terms.threshold = 0)),
        ("threshold of 3 proxies must be 1 to 3, not 4", Box::new(|terms| terms.threshold = 4)),
        ("has 1 to 64 proxies, not 0", Box::new(|terms| terms.proxies.clear())),
        ("place 2 has 1", Box::new(|terms| terms.proxies[1].index = 1)),
        ("proxy 2 is named twice", Box::new(|terms| terms.proxies[1].peer = terms.proxies[0].peer.clone())),
        (
            "proxy 3 is named twice",
            Box::new(|terms| terms.proxies[2].encryption_key = terms.proxies[0].encryption_key.clone()),
        ),
        (
            "is no organisation of channel",
            Box::new(|terms| terms.reader.as_mut().unwrap().msp_id = "NobodyMSP".to_owned()),
        ),
        ("the grant names no reader", Box::new(|terms| terms.reader = None)),
        ("no key of suite p256", Box::new(move |terms| terms.reader_key = beyond.clone().into())),
        ("another owner", Box::new(|terms| terms.owner = terms.reader.clone())),
        ("is for channel", Box::new(|terms| terms.channel = "otherchannel".to_owned())),
        ("the id of a grant", Box::new(|terms| terms.grant = "a/b".to_owned())),
        (
            "at most 256 keys and prefixes",
            Box::new(move |terms| terms.filter = Some(Filter { keys: long.clone(), prefixes: vec![] })),
        ),
        (
            "begin in block 9 and end in block 8",
            Box::new(|terms| {
                let validity = Validity { not_before_block: 9, not_after_block: 8, ..Validity::default() };
                terms.validity = Some(validity);
            }),
        ),
        (
            "would have ended with block 1",
            Box::new(|terms| {
                terms.validity = Some(Validity { not_after_block: 1, ..Validity::default() });
            }),
        ),
    ];
    for (reason, change) in cases {
        let mut terms = offer.terms.clone();
        change(&mut terms);
        let message = NewGrant { terms: terms.encode_to_vec().into(), ..good.message.clone() };
        let (status, text) = refused(&bench, &bench.owner, "Grant", &message).await;
        assert_eq!(status, 400, "{reason}");
        assert!(text.contains(reason), "{reason}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_needs_its_owner_its_commitments_and_one_way_to_write_it() {
    let mut bench = Bench::new();
    let proxies = bench.proxies();
    let secret = bench.domain("clinic", pre::Suite::P256).await;
    let offer = bench.grant_to_reader("g1", "clinic", &secret, &proxies);
    let good = offer.split();
    let (owner, stranger) = (Arc::clone(&bench.owner), Arc::clone(&bench.stranger));
    assert_eq!(refused(&bench, &stranger, "Grant", &good.message).await.0, 403);
    let mut fewer = good.message.clone();
    fewer.commitments.pop();
    let mut no_point = good.message.clone();
    no_point.commitments[1].point = vec![0; 33].into();
    let mut no_hash = good.message.clone();
    no_hash.commitments[2].sealed_share_sha256 = Bytes::new();
    let mut no_ephemeral = good.message.clone();
    no_ephemeral.ephemeral = vec![0; 33].into();
    // An unknown field: the same terms in other bytes.
    let mut longer = good.message.clone();
    longer.terms = [&longer.terms[..], &[0xf8, 0x06, 0x01]].concat().into();
    for broken in [fewer, no_point, no_hash, no_ephemeral, longer] {
        assert_eq!(refused(&bench, &owner, "Grant", &broken).await.0, 400);
    }
    bench.call(&owner, "Grant", &good.message).await;
    assert_eq!(refused(&bench, &owner, "Grant", &good.message).await.0, 409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_reader_asks_only_for_what_is_covered_and_only_in_time() {
    let mut bench = Bench::new();
    let proxies = bench.proxies();
    let secret = bench.domain("clinic", pre::Suite::P256).await;
    let record = name("clinic", "patient-7", 1);
    bench.put(&secret, &record).await;
    bench.put(&secret, &name("clinic", "visit-1", 1)).await;
    let mut offer = bench.grant_to_reader("g1", "clinic", &secret, &proxies);
    offer.terms.filter =
        Some(Filter { keys: vec!["patient-7".to_owned()], prefixes: vec!["scan-".to_owned()] });
    offer.terms.validity = Some(Validity {
        not_before: Some(Timestamp { seconds: NOW - 60, nanos: 0 }),
        not_after: Some(Timestamp { seconds: NOW + 60, nanos: 0 }),
        ..Validity::default()
    });
    bench.grant(&offer).await;
    let (owner, reader, stranger) =
        (Arc::clone(&bench.owner), Arc::clone(&bench.reader), Arc::clone(&bench.stranger));
    for other in [&owner, &stranger] {
        assert_eq!(refused(&bench, other, "Request", &request("g1", &record)).await.0, 403);
    }
    let uncovered = request("g1", &name("clinic", "visit-1", 1));
    assert_eq!(refused(&bench, &reader, "Request", &uncovered).await.0, 403);
    for missing in [name("clinic", "scan-9", 1), name("clinic", "patient-7", 2)] {
        assert_eq!(refused(&bench, &reader, "Request", &request("g1", &missing)).await.0, 404);
    }
    assert_eq!(refused(&bench, &reader, "Request", &request("g2", &record)).await.0, 404);
    for seconds in [NOW - 61, NOW + 61] {
        let outcome = bench.prepare_at(&reader, "Request", &request("g1", &record), seconds).await;
        assert_eq!(outcome.err().unwrap().0, 403);
    }
    bench.request("g1", &record).await;
    let revoke = Revoke { grant: "g1".to_owned(), reason: String::new() };
    for other in [&reader, &stranger] {
        assert_eq!(refused(&bench, other, "Revoke", &revoke).await.0, 403);
    }
    bench.call(&owner, "Revoke", &revoke).await;
    assert_eq!(refused(&bench, &owner, "Revoke", &revoke).await.0, 409);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_refused_and_unknown_functions_are_named() {
    let bench = Bench::new();
    for function in ["CreateDomain", "PutRecord", "Grant", "Revoke", "Request", "Respond", "Audit"] {
        let garbage = consort_protos::consort::sealed::DomainName { domain: "\u{1}".repeat(200) };
        let (status, _) = refused(&bench, &bench.owner, function, &garbage).await;
        assert!((400..=404).contains(&status), "{function}: {status}");
    }
    let (status, text) = refused(&bench, &bench.owner, "Steal", &Revoke::default()).await;
    assert_eq!(status, 404);
    assert!(text.contains("no function \"Steal\""), "{text}");
}
