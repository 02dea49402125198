//! The version checks against a model that executes a block one transaction after the other.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod blocks;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use consort_ledger::{
    mvcc,
    state::{MemoryState, StateKey, StateReader as _, StateStore as _, VersionedValue},
};
use consort_protos::{
    fabric::protos::TxValidationCode,
    ids::{BlockNumber, Height},
    rwset::{
        MerkleSummary, MetadataEntry, MetadataWrite, NamespaceReadWriteSet, RangeQuery, RangeReads, Read,
        TxReadWriteSet, Write,
    },
};
use proptest::prelude::*;

use blocks::CHAINCODE;

const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// One step of a transaction, over indices into `KEYS`. Reads may be stale on purpose.
#[derive(Debug, Clone)]
enum Step {
    Read { key: usize, stale: bool },
    Range { start: usize, end: usize, exhausted: bool, stale: bool },
    Put { key: usize, value: u8 },
    Delete { key: usize },
    Metadata { key: usize, value: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS.len();
    let seldom = prop::bool::weighted(0.1);
    prop_oneof![
        (key.clone(), seldom).prop_map(|(key, stale)| Step::Read { key, stale }),
        (key.clone(), key.clone(), any::<bool>(), seldom)
            .prop_map(|(start, end, exhausted, stale)| Step::Range { start, end, exhausted, stale }),
        (key.clone(), 1..255_u8).prop_map(|(key, value)| Step::Put { key, value }),
        key.clone().prop_map(|key| Step::Delete { key }),
        (key, any::<u8>()).prop_map(|(key, value)| Step::Metadata { key, value }),
    ]
}

/// State of the model: value, metadata entry and version by key.
type Model = BTreeMap<String, (u8, Option<u8>, Height)>;

fn in_range(model: &Model, start: &str, end: &str, inclusive: bool) -> Vec<Read> {
    let inside = |key: &str| key >= start && (key < end || (inclusive && key == end));
    model
        .iter()
        .filter(|(key, _)| inside(key))
        .map(|(key, (_, _, version))| Read { key: key.clone(), version: Some(*version) })
        .collect()
}

/// The results that an endorser at this state would record for the steps.
fn simulate(steps: &[Step], model: &Model) -> NamespaceReadWriteSet {
    let mut results =
        NamespaceReadWriteSet { namespace: CHAINCODE.to_owned(), ..NamespaceReadWriteSet::default() };
    let mut writes = BTreeMap::new();
    let mut metadata = BTreeMap::new();
    for step in steps {
        match *step {
            Step::Read { key, stale } => {
                let version =
                    if stale { Some(Height::new(0, 77)) } else { model.get(KEYS[key]).map(|value| value.2) };
                results.reads.push(Read { key: KEYS[key].to_owned(), version });
            }
            Step::Range { start, end, exhausted, stale } => {
                let mut reads = in_range(model, KEYS[start], KEYS[end], !exhausted);
                if stale {
                    reads.pop();
                }
                results.range_queries.push(RangeQuery {
                    start_key: KEYS[start].to_owned(),
                    end_key: KEYS[end].to_owned(),
                    exhausted,
                    reads: RangeReads::Raw(reads),
                });
            }
            Step::Put { key, value } => {
                writes.insert(KEYS[key], Some(value));
            }
            Step::Delete { key } => {
                writes.insert(KEYS[key], None);
            }
            Step::Metadata { key, value } => {
                metadata.insert(KEYS[key], value);
            }
        }
    }
    results.writes = writes
        .into_iter()
        .map(|(key, value)| Write {
            key: key.to_owned(),
            is_delete: value.is_none(),
            value: value.map_or(Bytes::new(), |value| Bytes::from(vec![value])),
        })
        .collect();
    results.metadata_writes = metadata
        .into_iter()
        .map(|(key, value)| MetadataWrite {
            key: key.to_owned(),
            // Some of them delete.
            entries: (value >= 64)
                .then(|| MetadataEntry { name: "m".to_owned(), value: vec![value].into() })
                .into_iter()
                .collect(),
        })
        .collect();
    results
}

/// Executes a transaction on the model, or says why it cannot be.
fn execute(
    results: &NamespaceReadWriteSet,
    model: &mut Model,
    changed: &mut BTreeSet<String>,
    height: Height,
) -> TxValidationCode {
    for read in &results.reads {
        if changed.contains(&read.key) || model.get(&read.key).map(|value| value.2) != read.version {
            return TxValidationCode::MvccReadConflict;
        }
    }
    for query in &results.range_queries {
        let RangeReads::Raw(recorded) = &query.reads else { unreachable!("the model records few keys") };
        if in_range(model, &query.start_key, &query.end_key, !query.exhausted) != *recorded {
            return TxValidationCode::PhantomReadConflict;
        }
    }
    let before = model.clone();
    for write in &results.writes {
        changed.insert(write.key.clone());
        match write.value.first() {
            Some(&value) => {
                let kept = before.get(&write.key).and_then(|value| value.1);
                model.insert(write.key.clone(), (value, kept, height));
            }
            None => {
                model.remove(&write.key);
            }
        }
    }
    for write in &results.metadata_writes {
        // A key that the transaction deletes, or that does not exist, has no metadata.
        if let Some(value) = model.get_mut(&write.key) {
            changed.insert(write.key.clone());
            *value = (value.0, write.entries.first().map(|entry| entry.value[0]), height);
        }
    }
    TxValidationCode::Valid
}

fn content(value: &VersionedValue) -> (u8, Option<u8>, Height) {
    (value.value[0], value.metadata_entry("m").unwrap().map(|entry| entry[0]), value.version)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn codes_and_state_equal_those_of_one_transaction_after_the_other(
        blocks in prop::collection::vec(prop::collection::vec(prop::collection::vec(step(), 0..5), 1..8), 1..5),
    ) {
        let state = MemoryState::new();
        let mut model = Model::new();
        for (number, block) in (1_u64..).zip(blocks) {
            // All transactions of a block were simulated on the state before it.
            let results: Vec<_> = block.iter().map(|steps| simulate(steps, &model)).collect();
            let envelopes = results.iter().enumerate().map(|(index, results)| {
                blocks::envelope(&format!("{number}/{index}"), &TxReadWriteSet { namespaces: vec![results.clone()] })
            });
            let block = blocks::block(number, Bytes::new(), envelopes.collect());
            let given = vec![TxValidationCode::Valid; results.len()];
            let verdict = mvcc::validate(BlockNumber::new(number), &blocks::open(&block), &given, &state).unwrap();

            let mut changed = BTreeSet::new();
            let expected: Vec<_> = results.iter().zip(0..).map(|(results, index)| {
                execute(results, &mut model, &mut changed, Height::new(number, index))
            }).collect();
            prop_assert_eq!(verdict.codes, expected);
            state.apply(&verdict.updates.changes(), Height::new(number, 0)).unwrap();
            for key in KEYS {
                let stored = state.read_one(&StateKey::public(CHAINCODE, key)).unwrap();
                prop_assert_eq!(stored.as_ref().map(content), model.get(key).copied(), "{}", key);
            }
        }
    }

    #[test]
    fn forged_results_are_judged_without_a_panic(bytes: Vec<u8>, degree: u32, start: String, end: String, exhausted: bool) {
        let state = MemoryState::new();
        let value = VersionedValue { value: "v".into(), metadata: Bytes::new(), version: Height::new(1, 0) };
        let keys: Vec<_> = (0..200).map(|index| (StateKey::public(CHAINCODE, &format!("{index:03}")), Some(value.clone()))).collect();
        state.apply(&keys, Height::new(1, 0)).unwrap();
        let summary = MerkleSummary { max_degree: degree, max_level: degree, hashes: vec![bytes.into()] };
        let query = RangeQuery { start_key: start, end_key: end, exhausted, reads: RangeReads::Merkle(summary) };
        let results = NamespaceReadWriteSet { namespace: CHAINCODE.to_owned(), range_queries: vec![query], ..NamespaceReadWriteSet::default() };
        let block = blocks::block(2, Bytes::new(), vec![blocks::envelope("forged", &TxReadWriteSet { namespaces: vec![results] })]);
        let verdict = mvcc::validate(BlockNumber::new(2), &blocks::open(&block), &[TxValidationCode::Valid], &state).unwrap();
        prop_assert_eq!(verdict.codes, vec![TxValidationCode::PhantomReadConflict]);
    }
}

#[test]
fn a_transaction_that_was_refused_before_changes_nothing() {
    let state = MemoryState::new();
    let results = blocks::results(vec![], vec![blocks::write("a", "1")]);
    let block = blocks::block(1, Bytes::new(), vec![blocks::envelope("refused", &results)]);
    let codes = [TxValidationCode::EndorsementPolicyFailure];
    let verdict = mvcc::validate(BlockNumber::new(1), &blocks::open(&block), &codes, &state).unwrap();
    assert_eq!(verdict.codes, codes);
    assert!(verdict.updates.namespaces.is_empty());
}

#[test]
fn a_key_written_earlier_in_the_block_makes_every_read_of_it_stale() {
    let state = MemoryState::new();
    let write = blocks::results(vec![], vec![blocks::write("a", "1")]);
    let read = blocks::results(vec![blocks::read("a", None)], vec![]);
    let read_new = blocks::results(vec![blocks::read("a", Some((1, 0)))], vec![]);
    let named = [("w", write), ("r", read), ("n", read_new)];
    let envelopes = named.iter().map(|(nonce, results)| blocks::envelope(nonce, results)).collect();
    let block = blocks::block(1, Bytes::new(), envelopes);
    let verdict =
        mvcc::validate(BlockNumber::new(1), &blocks::open(&block), &[TxValidationCode::Valid; 3], &state)
            .unwrap();
    use TxValidationCode::{MvccReadConflict, Valid};
    assert_eq!(verdict.codes, [Valid, MvccReadConflict, MvccReadConflict]);
}
