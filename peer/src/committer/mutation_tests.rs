//! Each check of the validator, broken once: everything else about the transaction is right, and the code must be the one
//! of the check.

use std::sync::Arc;

use bytes::Bytes;
use consort_crypto::preimage;
use consort_ledger::TxSimulator;
use consort_msp::SigningIdentity;
use consort_protos::fabric::common::{Envelope, HeaderType};
use consort_protos::fabric::protos::TxValidationCode::{self, *};
use consort_protos::fabric::protos::collection_config;
use consort_protos::fabric::protos::{ApplicationPolicy, ChaincodeAction, CollectionConfigPackage};
use consort_protos::rwset::{
    HashedCollection, HashedWrite, MetadataEntry, MetadataWrite, NamespaceReadWriteSet, TxReadWriteSet,
};
use prost::Message;

use crate::testing::{Organisation, TestChannel, TransactionBuilder, spelled_policy, write, writes};

/// A case: what is broken, and the code.
type Case = (&'static str, TxValidationCode, Box<dyn Fn(&mut TransactionBuilder)>);

fn case(
    name: &'static str,
    code: TxValidationCode,
    break_it: impl Fn(&mut TransactionBuilder) + 'static,
) -> Case {
    (name, code, Box::new(break_it))
}

fn structure_cases() -> Vec<Case> {
    vec![
        case("nothing", Valid, |_| {}),
        case("creator of no organisation", BadCreatorSignature, |tx| {
            tx.creator = Arc::clone(&Organisation::new("Org9MSP").client);
        }),
        case("creator of a false authority", BadCreatorSignature, |tx| {
            tx.creator = Arc::clone(&Organisation::new("Org1MSP").client);
        }),
        case("content does not parse", InvalidEndorserTransaction, |tx| {
            tx.change_payload = Some(Box::new(|payload| payload.data = Bytes::from_static(b"\x0a\xff")));
        }),
        case("proposal response does not parse", InvalidEndorserTransaction, |tx| {
            tx.change_action_payload = Some(Box::new(|payload| {
                payload.action.as_mut().expect("an action").proposal_response_payload =
                    Bytes::from_static(b"\x0a\xff");
            }));
        }),
        case("another proposal's hash", InvalidEndorserTransaction, |tx| {
            tx.change_response = Some(Box::new(|response| response.proposal_hash = vec![7; 32].into()));
        }),
        case("payload does not parse", BadPayload, |tx| {
            tx.change_envelope = Some(Box::new(|envelope: &mut Envelope| {
                envelope.payload = Bytes::from_static(b"\x0a\xff");
            }));
        }),
        case("header type", BadCommonHeader, |tx| {
            tx.change_channel_header =
                Some(Box::new(|header| header.r#type = HeaderType::DeliverSeekInfo as i32));
        }),
        case("epoch", BadCommonHeader, |tx| {
            tx.change_channel_header = Some(Box::new(|header| header.epoch = 1));
        }),
        case("empty nonce", BadCommonHeader, |tx| {
            tx.change_signature_header = Some(Box::new(|header| header.nonce = Bytes::new()));
        }),
        case("no header", BadCommonHeader, |tx| {
            tx.change_payload = Some(Box::new(|payload| payload.header = None));
        }),
        case("creator's signature", BadCreatorSignature, |tx| {
            tx.change_envelope = Some(Box::new(|envelope| {
                let mut signature = envelope.signature.to_vec();
                let last = signature.len() - 1;
                signature[last] ^= 1;
                envelope.signature = signature.into();
            }));
        }),
        case("channel", BadCreatorSignature, |tx| tx.channel = "other".to_owned()),
        case("a configuration update", UnsupportedTxPayload, |tx| {
            tx.change_channel_header =
                Some(Box::new(|header| header.r#type = HeaderType::ConfigUpdate as i32));
        }),
        case("a configuration without content", InvalidConfigTransaction, |tx| {
            tx.change_channel_header = Some(Box::new(|header| header.r#type = HeaderType::Config as i32));
            tx.change_payload = Some(Box::new(|payload| payload.data = Bytes::new()));
        }),
        case("transaction id", BadProposalTxid, |tx| {
            tx.change_channel_header = Some(Box::new(|header| header.tx_id.make_ascii_uppercase()));
        }),
    ]
}

fn body_cases() -> Vec<Case> {
    vec![
        case("no action", InvalidEndorserTransaction, |tx| {
            tx.change_transaction = Some(Box::new(|transaction| transaction.actions.clear()));
        }),
        case("two actions", InvalidEndorserTransaction, |tx| {
            tx.change_transaction = Some(Box::new(|transaction| {
                let action = transaction.actions[0].clone();
                transaction.actions.push(action);
            }));
        }),
        case("action without endorsed action", InvalidEndorserTransaction, |tx| {
            tx.change_action_payload = Some(Box::new(|payload| payload.action = None));
        }),
        case("another proposal's payload", InvalidEndorserTransaction, |tx| {
            tx.change_action_payload = Some(Box::new(|payload| {
                payload.chaincode_proposal_payload = Bytes::from_static(b"\x0a\x01x");
            }));
        }),
    ]
}

fn invocation_cases() -> Vec<Case> {
    let action = |change: fn(&mut ChaincodeAction)| {
        move |tx: &mut TransactionBuilder| tx.change_action = Some(Box::new(change))
    };
    vec![
        case("header extension", BadHeaderExtension, |tx| {
            tx.change_channel_header =
                Some(Box::new(|header| header.extension = Bytes::from_static(b"\xff")));
        }),
        case("no chaincode action", BadResponsePayload, |tx| {
            tx.change_response = Some(Box::new(|response| response.extension = Bytes::new()));
        }),
        case("chaincode action does not parse", BadResponsePayload, |tx| {
            tx.change_response =
                Some(Box::new(|response| response.extension = Bytes::from_static(b"\x0a\xff")));
        }),
        case("no chaincode name", InvalidChaincode, |tx| tx.chaincode.clear()),
        case(
            "an inner read-write set",
            BadRwset,
            // Namespace "a" with a set that does not parse.
            action(|action| action.results = Bytes::from_static(b"\x12\x07\x0a\x01a\x12\x02\x0a\xff")),
        ),
        case(
            "the hashes of a collection",
            BadRwset,
            action(|action| {
                action.results = Bytes::from_static(b"\x12\x09\x0a\x01a\x1a\x04\x12\x02\x0a\xff");
            }),
        ),
        case(
            "an event that does not parse",
            InvalidOtherReason,
            action(|action| action.events = Bytes::from_static(b"\x0a\xff")),
        ),
        case("read-write set", BadRwset, action(|action| action.results = Bytes::from_static(b"\x12\x05"))),
        case(
            "no chaincode id in the action",
            InvalidOtherReason,
            action(|action| action.chaincode_id = None),
        ),
        case(
            "another chaincode in the action",
            InvalidChaincode,
            action(|action| action.chaincode_id.as_mut().expect("an id").name = "other".to_owned()),
        ),
        case(
            "no version in the action",
            InvalidChaincode,
            action(|action| action.chaincode_id.as_mut().expect("an id").version.clear()),
        ),
        case(
            "event of another chaincode",
            InvalidOtherReason,
            action(|action| action.events = Bytes::from_static(b"\x0a\x05other")),
        ),
        case("namespace twice", IllegalWriteset, |tx| {
            let again = tx.set.namespaces[0].clone();
            tx.set.namespaces.push(again);
        }),
        case("write to an undefined chaincode", InvalidChaincode, |tx| {
            tx.set = writes("unknown", vec![write("key", b"value")]);
        }),
    ]
}

/// Namespaces of the peer's own chaincodes: no transaction may write them, and none may be one of their invocations.
fn system_cases() -> Vec<Case> {
    let write_to = |name: &'static str| {
        case("a write to a system namespace", InvalidChaincode, move |tx| {
            tx.set = writes(name, vec![write("basic", b"value")]);
        })
    };
    let call = |name: &'static str| {
        case("a call of a system chaincode", InvalidChaincode, move |tx| {
            tx.chaincode = name.to_owned();
            tx.set = writes(name, vec![]);
        })
    };
    let names = ["lscc", "qscc", "cscc", "escc", "vscc"];
    names.into_iter().map(write_to).chain(names.into_iter().map(call)).collect()
}

/// The codes that one broken transaction can have by itself. The others need a second one or a state: 9, 10, 11 and 12 have
/// tests of their own. Fabric's remaining codes belong to older validators (1, 13 to 15, 17, 18), to a state kept in CouchDB
/// (24), or to entries that make the whole block unacceptable (16, 20).
const CODES_OF_ONE: [TxValidationCode; 14] = [
    Valid,
    BadPayload,
    BadCommonHeader,
    BadCreatorSignature,
    InvalidEndorserTransaction,
    InvalidConfigTransaction,
    UnsupportedTxPayload,
    BadProposalTxid,
    BadHeaderExtension,
    BadResponsePayload,
    BadRwset,
    IllegalWriteset,
    InvalidChaincode,
    InvalidOtherReason,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_broken_part_gives_its_code() {
    let mut bench = TestChannel::new().await;
    let cases: Vec<Case> = structure_cases()
        .into_iter()
        .chain(body_cases())
        .chain(invocation_cases())
        .chain(system_cases())
        .collect();
    for code in CODES_OF_ONE {
        assert!(cases.iter().any(|(_, expected, _)| *expected == code), "no case for {code:?}");
    }
    let envelopes = cases
        .iter()
        .map(|(_, _, break_it)| {
            let mut builder = bench.basic();
            break_it(&mut builder);
            builder.build()
        })
        .collect();
    let codes = bench.commit(envelopes).await;
    for ((name, expected, _), code) in cases.iter().zip(codes) {
        assert_eq!(code, *expected, "{name}");
    }
}

/// What a transaction would record that runs these steps now.
fn simulated(bench: &TestChannel, steps: impl FnOnce(&mut TxSimulator)) -> Bytes {
    let mut simulator = TxSimulator::new(bench.channel.ledger().snapshot(), "simulated");
    steps(&mut simulator);
    bench.basic().set(simulator.finish().rwset).build()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_must_still_hold() {
    let mut bench = TestChannel::new().await;
    let put = |key: &str| writes("basic", vec![write(key, b"v")]);
    let filled: Vec<_> = (0..60).map(|index| write(&format!("key{index:02}"), b"v")).collect();
    let filled = bench.basic().set(writes("basic", filled)).build();
    assert_eq!(bench.commit(vec![filled]).await, [Valid]);
    let read = |tx: &mut TxSimulator| drop(tx.get("basic", "key00").expect("readable"));
    let read_nothing = |tx: &mut TxSimulator| drop(tx.get("basic", "new").expect("readable"));
    let query = |start: &'static str, end: &'static str| {
        move |tx: &mut TxSimulator| {
            let range = tx.range("basic", start, end);
            tx.next_batch(range).expect("readable");
        }
    };
    // More than 50 results are recorded as hashes, fewer as they are.
    let (summary, raw, empty) = (query("key00", "key99"), query("key00", "key05"), query("x", "z"));
    let hash_read = |tx: &mut TxSimulator| drop(tx.private_hash("basic", "own", "k").expect("readable"));
    let block = vec![
        simulated(&bench, read),
        simulated(&bench, summary),
        simulated(&bench, raw),
        bench.basic().set(put("key00")).build(),
        bench.basic().set(put("new")).build(),
        bench.basic().set(put("y")).build(),
        bench.basic().set(hashed("own")).build(),
        simulated(&bench, read),
        simulated(&bench, read_nothing),
        simulated(&bench, summary),
        simulated(&bench, raw),
        simulated(&bench, empty),
        simulated(&bench, query("key10", "key12")),
        simulated(&bench, hash_read),
        simulated(&bench, |tx| {
            read(tx);
            summary(tx);
        }),
    ];
    let stale: Vec<Bytes> =
        [simulated(&bench, read), simulated(&bench, summary), simulated(&bench, raw)].into();
    let (conflict, phantom) = (MvccReadConflict, PhantomReadConflict);
    assert_eq!(
        bench.commit(block).await,
        [
            Valid, Valid, Valid, Valid, Valid, Valid, Valid, conflict, conflict, phantom, phantom, phantom,
            Valid, conflict, conflict
        ],
    );
    assert_eq!(bench.commit(stale).await, [conflict, phantom, phantom]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endorsements_must_satisfy_the_chaincode_policy() {
    let mut bench = TestChannel::new().await;
    let (org1, org2) = (&bench.network.org1, &bench.network.org2);
    let stranger = Organisation::new("Org1MSP");
    let with = |endorsers: &[&Arc<SigningIdentity>]| bench.basic().endorsed_by(endorsers);
    let mut forged = with(&[&org1.peer, &org2.peer]);
    forged.change_endorsements = Some(Box::new(|endorsements| {
        endorsements[1].signature = endorsements[0].signature.clone();
    }));
    let mut over_other_bytes = with(&[&org1.peer, &org2.peer]);
    over_other_bytes.change_action_payload = Some(Box::new(|payload| {
        let action = payload.action.as_mut().expect("an action");
        let mut response = consort_protos::fabric::protos::ProposalResponsePayload::decode(
            action.proposal_response_payload.clone(),
        )
        .expect("a payload");
        let mut inner = ChaincodeAction::decode(response.extension).expect("an action");
        inner.results = writes("basic", vec![write("key", b"more")]).encode();
        response.extension = inner.encode_to_vec().into();
        action.proposal_response_payload = response.encode_to_vec().into();
    }));
    let envelopes = vec![
        with(&[&org1.peer, &org2.peer]).build(),
        with(&[&org2.peer, &org1.peer]).build(),
        with(&[&org1.peer]).build(),
        with(&[]).build(),
        with(&[&org1.peer, &org1.identity("peer")]).build(),
        with(&[&org1.peer, &org2.client]).build(),
        with(&[&org2.peer, &stranger.peer]).build(),
        forged.build(),
        over_other_bytes.build(),
    ];
    let codes = bench.commit(envelopes).await;
    let unmet = EndorsementPolicyFailure;
    assert_eq!(codes, [Valid, Valid, unmet, unmet, unmet, unmet, unmet, unmet, unmet]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_id_is_valid_once() {
    let mut bench = TestChannel::new().await;
    let envelope = bench.basic().build();
    let unendorsed = bench.basic().endorsed_by(&[]);
    let mut second = bench.basic();
    second.nonce = unendorsed.nonce.clone();
    let codes =
        bench.commit(vec![envelope.clone(), envelope.clone(), unendorsed.build(), second.build()]).await;
    assert_eq!(
        codes,
        [Valid, DuplicateTxid, EndorsementPolicyFailure, Valid],
        "an invalid first copy takes no id"
    );
    assert_eq!(bench.commit(vec![envelope]).await, [DuplicateTxid]);
}

/// A set that writes one private key of `basic`.
fn hashed(collection: &str) -> TxReadWriteSet {
    TxReadWriteSet {
        namespaces: vec![NamespaceReadWriteSet {
            namespace: "basic".to_owned(),
            collections: vec![HashedCollection {
                name: collection.to_owned(),
                hashed_writes: vec![HashedWrite {
                    key_hash: Bytes::copy_from_slice(&preimage::key_hash("k")),
                    is_delete: false,
                    value_hash: Bytes::copy_from_slice(&preimage::value_hash(b"v")),
                    is_purge: false,
                }],
                ..HashedCollection::default()
            }],
            ..NamespaceReadWriteSet::default()
        }],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_has_its_own_policy() {
    let mut bench = TestChannel::new().await;
    let (org1, org2) = (&bench.network.org1, &bench.network.org2);
    let mut mixed = hashed("own");
    mixed.namespaces[0].writes = vec![write("public", b"value")];
    let with = |set: TxReadWriteSet, endorsers: &[&Arc<SigningIdentity>]| {
        bench.basic().endorsed_by(endorsers).set(set).build()
    };
    let envelopes = vec![
        with(hashed("own"), &[&org1.peer]),
        with(hashed("own"), &[&org2.peer]),
        with(hashed("none"), &[&org1.peer, &org2.peer]),
        with(mixed.clone(), &[&org1.peer]),
        with(mixed, &[&org1.peer, &org2.peer]),
        with(hashed("_implicit_org_Org2MSP"), &[&org2.peer]),
        with(hashed("_implicit_org_Org2MSP"), &[&org1.peer]),
        with(hashed("_implicit_org_Org9MSP"), &[&org1.peer, &org2.peer]),
    ];
    let codes = bench.commit(envelopes).await;
    let unmet = EndorsementPolicyFailure;
    assert_eq!(codes, [Valid, unmet, unmet, unmet, Valid, Valid, unmet, unmet]);
}

/// A set that gives `key` the policy, and writes it when a value is given.
fn key_policy(key: &str, policy: &[u8], value: Option<&[u8]>) -> TxReadWriteSet {
    TxReadWriteSet {
        namespaces: vec![NamespaceReadWriteSet {
            namespace: "basic".to_owned(),
            writes: value.map(|value| write(key, value)).into_iter().collect(),
            metadata_writes: vec![MetadataWrite {
                key: key.to_owned(),
                entries: vec![MetadataEntry {
                    name: "VALIDATION_PARAMETER".to_owned(),
                    value: Bytes::copy_from_slice(policy),
                }],
            }],
            ..NamespaceReadWriteSet::default()
        }],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_may_have_its_own_policy() {
    let mut bench = TestChannel::new().await;
    let org1_only = consort_msp::policy::parse("OR('Org1MSP.peer')").expect("a policy").encode_to_vec();
    let put = |bench: &TestChannel, key: &str, endorsers: &[&Arc<SigningIdentity>]| {
        bench.basic().endorsed_by(endorsers).set(writes("basic", vec![write(key, b"v")])).build()
    };
    let set = |bench: &TestChannel, key: &str, policy: &[u8], value: Option<&[u8]>| {
        bench.basic().set(key_policy(key, policy, value)).build()
    };
    let unmet = EndorsementPolicyFailure;
    let policies = vec![
        set(&bench, "mine", &org1_only, Some(b"v")),
        set(&bench, "broken", b"\xff", Some(b"v")),
        put(&bench, "mine", &[&bench.network.org1.peer, &bench.network.org2.peer]),
        put(&bench, "other", &[&bench.network.org1.peer]),
    ];
    assert_eq!(
        bench.commit(policies).await,
        [Valid, Valid, unmet, unmet],
        "a key whose policy changes in this block cannot be written after it"
    );
    let (org1, org2) = (Arc::clone(&bench.network.org1.peer), Arc::clone(&bench.network.org2.peer));
    let writes = vec![
        put(&bench, "mine", &[&org1]),
        put(&bench, "mine", &[&org2]),
        put(&bench, "mine", &[&org1, &org2]),
        put(&bench, "broken", &[&org1, &org2]),
    ];
    assert_eq!(bench.commit(writes).await, [Valid, unmet, Valid, unmet]);
    let failed_change = bench.basic().endorsed_by(&[&org2]).set(key_policy("mine", &[], None)).build();
    let after = put(&bench, "mine", &[&org1]);
    assert_eq!(
        bench.commit(vec![failed_change, after]).await,
        [unmet, Valid],
        "an invalid change changes nothing"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_counts_from_the_next_block_on() {
    let mut bench = TestChannel::new().await;
    let policy: ApplicationPolicy = spelled_policy("OR('Org2MSP.peer')");
    let definition = bench.network.definition("later", &policy, &CollectionConfigPackage::default()).build();
    let unapproved = {
        let mut builder = bench.network.definition("never", &policy, &CollectionConfigPackage::default());
        builder.endorsers.truncate(1);
        builder.build()
    };
    let by_org2 = |bench: &TestChannel| {
        bench.network.transaction("later").endorsed_by(&[&bench.network.org2.peer]).build()
    };
    let use_now = by_org2(&bench);
    let codes = bench.commit(vec![definition, use_now, unapproved]).await;
    assert_eq!(codes, [Valid, InvalidChaincode, EndorsementPolicyFailure]);
    let use_then = by_org2(&bench);
    assert_eq!(bench.commit(vec![use_then]).await, [Valid]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_with_an_unknown_capability_stops_the_channel() {
    let bench = TestChannel::new().await;
    let demand = crate::testing::configuration::demand_the_unknown;
    let envelope = bench.network.configuration(&bench.channel.bundle(), demand);
    let block = bench.next_block(vec![envelope]);
    let height = bench.channel.ledger().height();
    crate::committer::feed_until_it_stops(&bench.channel, block).await;
    let fault = bench.channel.fault().expect("a fault");
    assert!(fault.reason.contains("V9_9"), "{fault}");
    assert!(fault.remedy.contains("newer version"), "{fault}");
    assert_eq!(bench.channel.ledger().height(), height, "the block is not committed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_cannot_be_read_stops_the_channel() {
    let bench = TestChannel::new().await;
    let mut builder = bench.basic();
    builder.change_channel_header = Some(Box::new(|header| header.r#type = HeaderType::Config as i32));
    builder.change_payload = Some(Box::new(|payload| payload.data = Bytes::from_static(b"\x0a\xff")));
    let block = bench.next_block(vec![builder.build()]);
    let height = bench.channel.ledger().height();
    crate::committer::feed_until_it_stops(&bench.channel, block).await;
    let fault = bench.channel.fault().expect("a fault");
    assert!(fault.reason.contains("malformed config envelope"), "{fault}");
    assert_eq!(bench.channel.ledger().height(), height, "the block is not committed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_with_an_empty_policy_has_that_of_its_chaincode() {
    let mut bench = TestChannel::new().await;
    let mut collections = crate::testing::collections();
    let Some(collection_config::Payload::StaticCollectionConfig(own)) = &mut collections.config[0].payload
    else {
        panic!("a static collection")
    };
    own.endorsement_policy = Some(Default::default());
    let policy = crate::testing::spelled_policy("OR('Org1MSP.peer')");
    assert_eq!(
        bench.commit(vec![bench.network.definition("lone", &policy, &collections).build()]).await,
        [Valid]
    );
    let mut set = hashed("own");
    set.namespaces[0].namespace = "lone".to_owned();
    let with = |endorser: &Arc<SigningIdentity>| {
        bench.network.transaction("lone").endorsed_by(&[endorser]).set(set.clone()).build()
    };
    // The channel's default would need both organisations.
    let envelopes = vec![with(&bench.network.org1.peer), with(&bench.network.org2.peer)];
    assert_eq!(bench.commit(envelopes).await, [Valid, EndorsementPolicyFailure]);
}
