//! Endorsements with one signature: what counts, and what every attack gets, on a peer that checks a block's aggregates
//! together as on one that checks each alone.

use std::sync::Arc;

use bytes::Bytes;
use consort_channel_config::{AGGREGATED_ENDORSEMENTS, REGISTERED_IDENTITIES};
use consort_crypto::bls::{self, Check, Owner, SecretKey, Signature};
use consort_ledger::ValidatedBlock;
use consort_msp::SigningIdentity;
use consort_protos::block::{commit_hash, envelopes, flags};
use consort_protos::consort::endorsement::AggregateEndorsement;
use consort_protos::consort::identities::{BlsKey, RegisterArgs, RenewArgs, RetireArgs};
use consort_protos::fabric::common::Block;
use consort_protos::fabric::protos::TxValidationCode::{self, EndorsementPolicyFailure, Valid};
use consort_protos::ids::BlockNumber;
use consort_protos::rwset::{
    HashedCollection, HashedWrite, MetadataEntry, MetadataWrite, NamespaceReadWriteSet, TxReadWriteSet,
};
use consort_protos::signers;
use prost::Message;

use super::block::{self, Position};
use super::structure::{self, Opened};
use super::{aggregate, feed, validator};
use crate::channel::{ChannelHandle, CommittedBlock};
use crate::identities::table::Table;
use crate::identities::testing::change;
use crate::testing::configuration::revoke;
use crate::testing::{CHANNEL, JoinedPeer, Network, TestChannel, TransactionBuilder};

/// The generator of G1 with a point of small order added to it: on the curve and outside of the subgroup (made with py_ecc).
const OUTSIDE: &str =
    "89cc53e3c5bcd46e16418011263d86916b1627671fe5b132acd5129628d6bc5a836d65544bcd27c6288deb3602a1246b";

/// A channel with aggregates, whose blocks are kept so that other peers can judge them again.
pub(crate) struct Story {
    pub(crate) test: TestChannel,
    admins: [Arc<SigningIdentity>; 2],
    pub(crate) keys: Vec<Arc<SecretKey>>,
    blocks: Vec<Block>,
}

/// The sum of these keys' signatures over what an endorser signs.
type Sum = Box<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

impl Story {
    /// The peers of both organisations are entries 0 and 1, with the keys of these numbers.
    pub(crate) async fn new() -> Self {
        let network = Network::with(&[], &[REGISTERED_IDENTITIES, AGGREGATED_ENDORSEMENTS]);
        let admins = [network.org1.identity("admin"), network.org2.identity("admin")];
        let keys = (0..4).map(|_| Arc::new(SecretKey::generate().unwrap())).collect();
        let test = TestChannel::of(network).await;
        let mut story = Self { test, admins, keys, blocks: Vec::new() };
        for organisation in [0, 1] {
            let register = story.register(organisation, &story.peer(organisation), organisation);
            assert_eq!(story.commit(vec![register]).await, [Valid]);
        }
        story
    }

    pub(crate) fn peer(&self, organisation: usize) -> Arc<SigningIdentity> {
        let network = &self.test.network;
        Arc::clone(&[&network.org1, &network.org2][organisation].peer)
    }

    pub(crate) async fn commit(&mut self, envelopes: Vec<Bytes>) -> Vec<TxValidationCode> {
        self.blocks.push(self.test.next_block(envelopes.clone()));
        self.test.commit(envelopes).await
    }

    /// A call of the table's functions by an organisation's administrator; none when the function refuses it.
    pub(crate) fn call(
        &self,
        organisation: usize,
        name: &'static str,
        argument: &impl Message,
    ) -> Option<Bytes> {
        let arguments = [Bytes::from(name), argument.encode_to_vec().into()];
        let snapshot = self.test.channel.ledger().snapshot();
        let builder = change(&self.test.channel, snapshot, &self.admins[organisation], &arguments)?;
        Some(builder.endorsed_by(&[&self.peer(organisation)]).build())
    }

    pub(crate) fn register(&self, organisation: usize, who: &SigningIdentity, key: usize) -> Bytes {
        let bls = Some(proved(&self.keys[key], who, CHANNEL));
        self.call(organisation, "Register", &RegisterArgs { certificate: pem(who), bls }).unwrap()
    }

    /// A transaction of `basic`, of which nobody has endorsed anything alone, with these signers and this signature.
    fn signed(&self, entries: Bytes, sum: Sum) -> TransactionBuilder {
        let mut builder = self.test.network.transaction("basic");
        builder.change_action_payload = Some(Box::new(move |payload| {
            let action = payload.action.as_mut().unwrap();
            let signature = sum(&action.proposal_response_payload).into();
            action.aggregate = Some(AggregateEndorsement { signers: entries.clone(), signature });
        }));
        builder
    }

    /// The sum that keys make over the message of a channel.
    fn sum(&self, keys: &[usize], channel: &'static str) -> Sum {
        let keys: Vec<Arc<SecretKey>> = keys.iter().map(|key| Arc::clone(&self.keys[*key])).collect();
        Box::new(move |payload| {
            let message = bls::endorsement(channel, payload);
            let parts: Vec<Signature> = keys.iter().map(|key| key.sign(&message)).collect();
            bls::aggregate(&parts).unwrap().to_bytes().to_vec()
        })
    }

    /// Endorsed by entries with the keys of the same numbers, as it should be.
    fn together(&self, entries: &[usize]) -> TransactionBuilder {
        self.signed(set(entries), self.sum(entries, CHANNEL))
    }

    /// What other peers make of the same blocks: one that judges ahead, and one that checks every aggregate alone.
    async fn check_replays(&self) {
        let first = self.test.channel.ledger().block(BlockNumber::new(1)).unwrap().unwrap();
        let blocks: Vec<Block> = std::iter::once(first).chain(self.blocks.iter().cloned()).collect();
        let (ahead, alone) =
            (JoinedPeer::new(&self.test.network.genesis), JoinedPeer::new(&self.test.network.genesis));
        feed(&ahead.channel, blocks.clone()).await;
        blocks.into_iter().for_each(|block| commit_one_by_one(&alone.channel, block));
        let ours = self.test.channel.ledger();
        for theirs in [ahead.channel.ledger(), alone.channel.ledger()] {
            assert_eq!(ours.height(), theirs.height());
            for number in (1..ours.height()).map(BlockNumber::new) {
                let (ours, theirs) =
                    (ours.block(number).unwrap().unwrap(), theirs.block(number).unwrap().unwrap());
                assert_eq!(flags(&ours), flags(&theirs), "codes of block {number}");
                assert_eq!(commit_hash(&ours), commit_hash(&theirs), "hash of block {number}");
            }
        }
    }
}

/// Without any batch.
fn commit_one_by_one(channel: &ChannelHandle, block: Block) {
    let (bundle, ledger) = (channel.bundle(), channel.ledger());
    let position = Position { next: ledger.height(), last_hash: ledger.last_hash().unwrap_or_default() };
    block::verify(&bundle, &position, &block).unwrap();
    let snapshot = ledger.snapshot();
    let table = Table::new(&bundle, &snapshot);
    let alone = |entry| structure::open(&bundle, &table, std::slice::from_ref(entry));
    let mut transactions: Vec<Opened> = envelopes(&block).iter().flat_map(alone).collect();
    aggregate::settle_with(&mut transactions, |checks| checks.iter().map(Check::holds).collect());
    let seen = table.into_versions();
    let outcome = validator::validate(&bundle, ledger, &mut transactions, &seen).unwrap();
    let opened: Vec<_> = transactions.iter().map(|opened| opened.transaction().cloned()).collect();
    let committed =
        ledger.commit(ValidatedBlock::new(block, opened.clone(), outcome.codes).unwrap()).unwrap();
    let committed = CommittedBlock::new(Arc::new(committed.block), opened, committed.codes);
    channel.publish(Arc::new(committed), outcome.bundle.map(Arc::new));
}

fn pem(who: &SigningIdentity) -> Bytes {
    who.certificate().pem().into_bytes().into()
}

fn proved(key: &SecretKey, who: &SigningIdentity, channel: &str) -> BlsKey {
    let owner = Owner::new(who.msp_id().as_str(), who.certificate().public_key(), channel);
    BlsKey {
        public_key: key.public_key().as_bytes().to_vec().into(),
        proof: key.prove(&owner).to_bytes().to_vec().into(),
    }
}

fn set(entries: &[usize]) -> Bytes {
    signers::encode(entries.iter().map(|entry| *entry as u64)).unwrap()
}

#[tokio::test]
async fn signers_of_an_aggregate_count_as_single_ones() {
    let mut story = Story::new().await;
    let both = story.together(&[0, 1]).build();
    let one = story.together(&[0]).build();
    let mixed = story.together(&[0]).endorsed_by(&[&story.peer(1)]).build();
    // Alone and together, the same endorser is one.
    let twice = story.together(&[0]).endorsed_by(&[&story.peer(0)]).build();
    let codes = story.commit(vec![both.clone(), one, mixed, twice]).await;
    assert_eq!(codes, [Valid, EndorsementPolicyFailure, Valid, EndorsementPolicyFailure]);
    let single = story.test.basic().build();
    assert!(both.len() + 1_300 < single.len(), "{} bytes against {}", both.len(), single.len());
    story.check_replays().await;
}

#[tokio::test]
async fn policies_of_collections_and_keys_count_them_too() {
    let mut story = Story::new().await;
    let collection = HashedCollection {
        name: "own".to_owned(),
        hashed_writes: vec![HashedWrite {
            key_hash: Bytes::from_static(&[1; 32]),
            value_hash: Bytes::from_static(&[2; 32]),
            is_delete: false,
            is_purge: false,
        }],
        ..HashedCollection::default()
    };
    let private = TxReadWriteSet {
        namespaces: vec![NamespaceReadWriteSet {
            namespace: "basic".to_owned(),
            collections: vec![collection],
            ..NamespaceReadWriteSet::default()
        }],
    };
    let own = story.together(&[0]).set(private.clone()).build();
    let foreign = story.together(&[1]).set(private).build();
    assert_eq!(story.commit(vec![own, foreign]).await, [Valid, EndorsementPolicyFailure]);

    let policy = consort_msp::policy::parse("OutOf(1, 'Org2MSP.peer')").unwrap();
    let mut governed = crate::testing::writes("basic", vec![crate::testing::write("mine", b"1")]);
    governed.namespaces[0].metadata_writes = vec![MetadataWrite {
        key: "mine".to_owned(),
        entries: vec![MetadataEntry {
            name: "VALIDATION_PARAMETER".to_owned(),
            value: policy.encode_to_vec().into(),
        }],
    }];
    let change = story.together(&[0, 1]).set(governed).build();
    assert_eq!(story.commit(vec![change]).await, [Valid]);
    let write = || crate::testing::writes("basic", vec![crate::testing::write("mine", b"2")]);
    let by_second = story.together(&[1]).set(write()).build();
    let by_first = story.together(&[0]).set(write()).build();
    assert_eq!(story.commit(vec![by_second, by_first]).await, [Valid, EndorsementPolicyFailure]);
    story.check_replays().await;
}

/// Every forgery in one block with good transactions around it.
fn forgeries(story: &Story) -> Vec<TransactionBuilder> {
    let fixed = |bytes: Vec<u8>| -> Sum { Box::new(move |_| bytes.clone()) };
    let both = || set(&[0, 1]);
    let good = || story.sum(&[0, 1], CHANNEL);
    let mut infinity = vec![0; 48];
    infinity[0] = 0xc0;
    let uncompressed: Sum = {
        let good = good();
        Box::new(move |payload| {
            let mut bytes = good(payload);
            bytes[0] &= 0x7f;
            bytes
        })
    };
    let longer: Sum = {
        let good = good();
        Box::new(move |payload| [good(payload), vec![0]].concat())
    };
    vec![
        // More signers claimed than signed; fewer; others.
        story.signed(both(), story.sum(&[0], CHANNEL)),
        story.signed(set(&[0]), good()),
        story.signed(both(), story.sum(&[0, 2], CHANNEL)),
        // One signer twice in the sum: the set has no way to say so.
        story.signed(both(), story.sum(&[0, 0], CHANNEL)),
        // The message of another channel.
        story.signed(both(), story.sum(&[0, 1], "otherchannel")),
        // Sets in another form, empty, too large, and with an entry that is not there.
        story.signed(Bytes::from_static(&[0b11, 0]), good()),
        story.signed(Bytes::new(), good()),
        story.signed(Bytes::from_static(&[0]), good()),
        story.signed(Bytes::from_static(&[1; 1025]), good()),
        story.signed(set(&[0, 1, 7]), good()),
        // Points in another form, the identity, and outside of the subgroup.
        story.signed(both(), uncompressed),
        story.signed(both(), longer),
        story.signed(both(), fixed(infinity)),
        story.signed(both(), fixed(hex::decode(OUTSIDE).unwrap())),
        story.signed(both(), fixed(Vec::new())),
    ]
}

#[tokio::test]
async fn every_forgery_gets_the_same_code_whatever_it_is_checked_with() {
    let mut story = Story::new().await;
    let (forgeries, good) = (forgeries(&story), || story.together(&[0, 1]).build());
    let mut block = Vec::new();
    let mut expected = Vec::new();
    for forgery in &forgeries {
        block.extend([good(), forgery.build(), good()]);
        expected.extend([Valid, EndorsementPolicyFailure, Valid]);
    }
    // Good single endorsements beside a forged aggregate do not save the transaction.
    let beside = story.signed(set(&[0, 1]), story.sum(&[0], CHANNEL));
    block.push(beside.endorsed_by(&[&story.peer(0), &story.peer(1)]).build());
    expected.push(EndorsementPolicyFailure);
    assert_eq!(story.commit(block).await, expected);
    story.check_replays().await;
}

#[tokio::test]
async fn two_forgeries_that_cancel_each_other_are_both_found() {
    let mut story = Story::new().await;
    let shift = SecretKey::generate().unwrap().sign(b"shift").to_bytes();
    let mut minus = shift;
    minus[0] ^= 0x20;
    let shifted = |by: [u8; 48]| -> Sum {
        let good = story.sum(&[0, 1], CHANNEL);
        Box::new(move |payload| {
            let parts = [good(payload), by.to_vec()].map(|bytes| Signature::from_bytes(&bytes).unwrap());
            bls::aggregate(&parts).unwrap().to_bytes().to_vec()
        })
    };
    let mut block: Vec<Bytes> = (0..10).map(|_| story.together(&[0, 1]).build()).collect();
    block[3] = story.signed(set(&[0, 1]), shifted(shift)).build();
    block[8] = story.signed(set(&[0, 1]), shifted(minus)).build();
    let codes = story.commit(block).await;
    let wrong: Vec<usize> = (0..10).filter(|index| codes[*index] == EndorsementPolicyFailure).collect();
    assert_eq!(wrong, [3, 8]);
    story.check_replays().await;
}

#[tokio::test]
async fn a_key_is_registered_by_its_owner_and_once() {
    let mut story = Story::new().await;
    let newcomer = story.test.network.org2.identity("peer");
    let certificate = pem(&newcomer);
    let refused = |bls: BlsKey| {
        let input = RegisterArgs { certificate: certificate.clone(), bls: Some(bls) };
        assert!(story.call(1, "Register", &input).is_none());
    };
    // The key of entry 0, with the proof that was given for it, and with one that the newcomer makes up.
    let stolen = proved(&story.keys[0], &story.peer(0), CHANNEL);
    refused(stolen.clone());
    let made_up = proved(&story.keys[2], &newcomer, CHANNEL).proof;
    refused(BlsKey { proof: made_up, ..stolen });
    // His own key, proved for another channel or another member; another one's key that is proved for him.
    refused(proved(&story.keys[2], &newcomer, "otherchannel"));
    refused(proved(&story.keys[2], &story.peer(1), CHANNEL));
    refused(proved(&story.keys[0], &newcomer, CHANNEL));
    let own = story.register(1, &newcomer, 2);
    assert_eq!(story.commit(vec![own]).await, [Valid]);
    let transaction = story.together(&[0, 2]).build();
    assert_eq!(story.commit(vec![transaction]).await, [Valid]);
    story.check_replays().await;
}

/// Bytes with every occurrence of some replaced by as many others.
fn replaced(bytes: &Bytes, what: &[u8], with: &[u8]) -> Bytes {
    assert_eq!(what.len(), with.len());
    let mut bytes = bytes.to_vec();
    for place in 0..bytes.len().saturating_sub(what.len() - 1) {
        if bytes[place..].starts_with(what) {
            bytes[place..place + what.len()].copy_from_slice(with);
        }
    }
    bytes.into()
}

#[tokio::test]
async fn a_rogue_key_is_refused_by_every_peer_though_all_endorsers_let_it_pass() {
    let mut story = Story::new().await;
    let newcomer = story.test.network.org2.identity("peer");
    let own = proved(&story.keys[2], &newcomer, CHANNEL);
    let stolen = story.keys[0].public_key().as_bytes().to_vec().into();
    let rogues = [
        // Another member's key: with the proof of an own key, and with the proof that the other one gave.
        BlsKey { public_key: stolen, proof: own.proof.clone() },
        proved(&story.keys[0], &story.peer(0), CHANNEL),
        // The own key, proved for another channel, and by another organisation's member.
        proved(&story.keys[2], &newcomer, "otherchannel"),
        proved(&story.keys[2], &story.peer(0), CHANNEL),
    ];
    let registration = |bls: &BlsKey| -> Bytes {
        RegisterArgs { certificate: pem(&newcomer), bls: Some(bls.clone()) }.encode_to_vec().into()
    };
    let mut block = Vec::new();
    for rogue in &rogues {
        let arguments = [Bytes::from("Register"), registration(&own)];
        let snapshot = story.test.channel.ledger().snapshot();
        let mut builder = change(&story.test.channel, snapshot, &story.admins[1], &arguments).unwrap();
        // The call and what it writes, as they would be if the function let the key pass.
        builder.arguments[1] = registration(rogue);
        for write in &mut builder.set.namespaces[0].writes {
            let value = replaced(&write.value, &own.public_key, &rogue.public_key);
            write.value = replaced(&value, &own.proof, &rogue.proof);
        }
        block.push(builder.endorsed_by(&[&story.peer(0), &story.peer(1)]).build());
    }
    block.push(story.register(1, &newcomer, 2));
    let mut expected = vec![EndorsementPolicyFailure; rogues.len()];
    expected.push(Valid);
    assert_eq!(story.commit(block).await, expected);
    story.check_replays().await;
}

#[tokio::test]
async fn an_entry_counts_from_the_block_after_its_own_until_the_one_that_retires_it() {
    let mut story = Story::new().await;
    let newcomer = story.test.network.org2.identity("peer");
    let register = story.register(1, &newcomer, 2);
    let with_newcomer = || story.together(&[0, 2]).build();
    let early = with_newcomer();
    let later = with_newcomer();
    assert_eq!(story.commit(vec![register, early]).await, [Valid, EndorsementPolicyFailure]);
    assert_eq!(story.commit(vec![later]).await, [Valid]);
    let retire = story.call(1, "Retire", &RetireArgs { number: 2 }).unwrap();
    let (before, after, next) =
        (story.together(&[0, 2]).build(), story.together(&[0, 2]).build(), story.together(&[0, 2]).build());
    assert_eq!(story.commit(vec![before, retire, after]).await, [Valid, Valid, EndorsementPolicyFailure]);
    assert_eq!(story.commit(vec![next]).await, [EndorsementPolicyFailure]);
    story.check_replays().await;
}

#[tokio::test]
async fn a_key_changes_while_both_entries_count() {
    let mut story = Story::new().await;
    let renewal = RenewArgs {
        number: 0,
        certificate: pem(&story.peer(0)),
        bls: Some(proved(&story.keys[2], &story.peer(0), CHANNEL)),
    };
    let renew = story.call(0, "Renew", &renewal).unwrap();
    assert_eq!(story.commit(vec![renew]).await, [Valid]);
    let (old, new) = (story.together(&[0, 1]).build(), story.together(&[1, 2]).build());
    // Both keys of one endorser are one endorser.
    let both_keys = story.together(&[0, 2]).build();
    assert_eq!(story.commit(vec![old, new, both_keys]).await, [Valid, Valid, EndorsementPolicyFailure]);
    let retire = story.call(0, "Retire", &RetireArgs { number: 0 }).unwrap();
    assert_eq!(story.commit(vec![retire]).await, [Valid]);
    let (old, new) = (story.together(&[0, 1]).build(), story.together(&[1, 2]).build());
    assert_eq!(story.commit(vec![old, new]).await, [EndorsementPolicyFailure, Valid]);
    story.check_replays().await;
}

#[tokio::test]
async fn a_revoked_signer_counts_no_more_from_the_configuration_that_says_so() {
    let mut story = Story::new().await;
    let list = story.test.network.org1.revocation(&story.peer(0));
    let bundle = story.test.channel.bundle();
    let envelope = story.test.network.configuration(&bundle, |root| revoke(root, "Org1MSP", &list));
    assert_eq!(story.commit(vec![envelope]).await, [Valid]);
    let transaction = story.together(&[0, 1]).build();
    assert_eq!(story.commit(vec![transaction]).await, [EndorsementPolicyFailure]);
    story.check_replays().await;
}

#[tokio::test]
async fn a_channel_without_the_capability_does_not_see_aggregates() {
    let network = Network::with(&[], &[REGISTERED_IDENTITIES]);
    let mut test = TestChannel::of(network).await;
    let mut builder = test.basic();
    builder.change_action_payload = Some(Box::new(|payload| {
        let nonsense = AggregateEndorsement { signers: Bytes::from_static(&[0]), signature: Bytes::new() };
        payload.action.as_mut().unwrap().aggregate = Some(nonsense);
    }));
    assert_eq!(test.commit(vec![builder.build()]).await, [Valid]);
}
