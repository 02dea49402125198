//! Judging blocks ahead and on all cores gives what judging one transaction after the other gives, whatever the blocks
//! change for their successors: configuration, chaincode definitions, policies of keys, the table of identities. A reference
//! judge, which shares no rule with the real one, says the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use consort_channel_config::{AGGREGATED_ENDORSEMENTS, REGISTERED_IDENTITIES};
use consort_ledger::state::{Entry, KeyRange, Space, StateReader};
use consort_ledger::{Ledger, ValidatedBlock};
use consort_protos::block::{commit_hash, envelopes, flags};
use consort_protos::entry::EntryNumber;
use consort_protos::fabric::common::Block;
use consort_protos::ids::BlockNumber;
use consort_protos::transaction::Transaction;

use super::block::{self, Position};
use super::history_tests::History;
use super::reference_tests::{Key, Value};
use super::structure::{self, Opened};
use super::{feed, validator};
use crate::channel::{ChannelHandle, CommittedBlock};
use crate::identities::table::Table;
use crate::testing::JoinedPeer;

/// Blocks of one history.
const BLOCKS: usize = 24;
/// Histories that begin with the same capabilities, in a run that does not say how many.
const HISTORIES: u64 = 4;
/// With what a channel can begin; the rest comes later.
const BEGINNINGS: [&[&str]; 3] =
    [&[], &[REGISTERED_IDENTITIES], &[REGISTERED_IDENTITIES, AGGREGATED_ENDORSEMENTS]];

/// Nothing ahead, nothing beside: the whole of a block after the whole of the block before it.
pub(super) fn commit_serially(channel: &ChannelHandle, block: Block) {
    let (bundle, ledger) = (channel.bundle(), channel.ledger());
    let position = Position { next: ledger.height(), last_hash: ledger.last_hash().unwrap_or_default() };
    block::verify(&bundle, &position, &block).expect("the next block");
    let snapshot = ledger.snapshot();
    let table = Table::new(&bundle, &snapshot);
    let alone = |entry| structure::open(&bundle, &table, std::slice::from_ref(entry));
    let mut transactions: Vec<Opened> = envelopes(&block).iter().flat_map(alone).collect();
    let seen = table.into_versions();
    let outcome = validator::validate(&bundle, ledger, &mut transactions, &seen).expect("decidable");
    let opened: Vec<_> = transactions.iter().map(|transaction| transaction.transaction().cloned()).collect();
    let validated = ValidatedBlock::new(block, opened.clone(), outcome.codes).expect("judged");
    let committed = ledger.commit(validated).expect("committed");
    let committed = CommittedBlock::new(Arc::new(committed.block), opened, committed.codes);
    channel.publish(Arc::new(committed), outcome.bundle.map(Arc::new));
}

fn state(ledger: &Ledger) -> Vec<Entry> {
    let snapshot = ledger.snapshot();
    let spaces = [Space::Public, Space::Hashed, Space::Private];
    spaces
        .into_iter()
        .flat_map(|space| {
            let scan = snapshot.scan(&KeyRange::all(space)).expect("readable");
            scan.collect::<Result<Vec<_>, _>>().expect("readable")
        })
        .collect()
}

/// The public and hashed state, as the reference keeps it.
fn shared_state(ledger: &Ledger) -> BTreeMap<Key, Value> {
    let entries = state(ledger).into_iter().filter(|(key, _)| key.space() != Space::Private);
    let entries = entries.map(|(key, value)| {
        let name = (key.namespace(), key.collection(), Bytes::copy_from_slice(key.key()));
        let metadata = value.metadata_entries().expect("readable").into_iter().collect();
        (name, (value.value, metadata, value.version))
    });
    entries.collect()
}

/// What occurred in some histories: codes, and ways to sign of valid transactions.
#[derive(Debug, Default)]
struct Seen {
    codes: BTreeMap<u8, u32>,
    valid: BTreeMap<&'static str, u32>,
}

impl Seen {
    fn note(&mut self, block: &Block, codes: &[u8]) {
        for (envelope, code) in envelopes(block).iter().zip(codes) {
            *self.codes.entry(*code).or_default() += 1;
            let Ok(transaction) = Transaction::open(envelope.clone()) else { continue };
            for way in ways(&transaction).into_iter().filter(|_| *code == 0) {
                *self.valid.entry(way).or_default() += 1;
            }
        }
    }
}

/// How a transaction is signed, where that is not as Fabric does it.
fn ways(transaction: &Transaction) -> Vec<&'static str> {
    let Some(endorser) = transaction.endorser() else { return Vec::new() };
    let by_number = |signer: &Bytes| EntryNumber::of_serialized(signer).is_some();
    let numbered = endorser.endorsements.iter().any(|endorsement| by_number(&endorsement.endorser));
    let table = endorser.invocation.as_ref().is_ok_and(|call| call.chaincode_id.name == "_identities");
    let together = endorser.aggregate.is_some();
    let all = [
        (by_number(&transaction.creator), "a creator's number"),
        (numbered, "an endorser's number"),
        (together, "an aggregate"),
        (together && !endorser.endorsements.is_empty(), "an aggregate beside endorsements"),
        (together && table, "an aggregate that changes the table"),
        (table, "a change of the table"),
    ];
    all.into_iter().filter_map(|(is, way)| is.then_some(way)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn judging_ahead_and_in_parallel_equals_judging_serially() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let first: u64 = number("CONSORT_TEST_SEED").unwrap_or(0);
    let histories: u64 = number("CONSORT_TEST_HISTORIES").unwrap_or(HISTORIES);
    let mut seen = Seen::default();
    for seed in first..first + histories {
        for capabilities in BEGINNINGS {
            judge_in_all_ways(seed, capabilities, &mut seen).await;
        }
        println!("{} histories, the last with seed {seed}: {seen:?}", 3 * (seed - first + 1));
    }
    let codes: Vec<u8> = seen.codes.into_keys().collect();
    assert_eq!(codes, [0, 4, 9, 10, 11, 12, 23, 25], "every way to fail occurred");
    assert_eq!(seen.valid.len(), 6, "every way to sign occurred: {:?}", seen.valid);
}

/// Compares what the pipeline, the validator on one thread and the reference make of a history.
async fn judge_in_all_ways(seed: u64, capabilities: &[&str], seen: &mut Seen) {
    let mut history = History::new(seed, capabilities);
    for _ in 0..BLOCKS {
        history.grow();
    }
    let history_of = format!("seed {seed}, beginning with {capabilities:?}");
    let pipelined = JoinedPeer::new(&history.network.genesis);
    feed(&pipelined.channel, history.blocks.clone()).await;
    let (serial, ours) = (history.peer.channel.ledger(), pipelined.channel.ledger());
    for (number, plain) in (1..serial.height()).map(BlockNumber::new).zip(&history.codes) {
        let expected = serial.block(number).expect("readable").expect("stored");
        let found = ours.block(number).expect("readable").expect("stored");
        assert_eq!(flags(&found), Some(&plain[..]), "codes of block {number} by the reference, {history_of}");
        assert_eq!(flags(&found), flags(&expected), "codes of block {number}, {history_of}");
        assert_eq!(commit_hash(&found), commit_hash(&expected), "hash of block {number}, {history_of}");
        seen.note(&found, plain);
    }
    assert_eq!(state(ours), state(serial), "state, {history_of}");
    assert_eq!(shared_state(ours), history.reference.state, "state by the reference, {history_of}");
}
