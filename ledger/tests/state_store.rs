//! What every state store must do, run on each of them.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use bytes::Bytes;
use consort_ledger::state::{
    Change, KeyRange, MemoryState, RocksState, Space, StateKey, StateReader, StateStore, VersionedValue,
};
use consort_protos::ids::Height;
use proptest::prelude::*;

fn value(text: &str, block: u64) -> VersionedValue {
    VersionedValue {
        value: Bytes::copy_from_slice(text.as_bytes()),
        metadata: Bytes::new(),
        version: Height::new(block, 0),
    }
}

fn keys(store: &dyn StateStore, range: &KeyRange) -> Vec<String> {
    store.scan(range).unwrap().map(|entry| entry.unwrap().0.key_text()).collect()
}

fn sorted(mut changes: Vec<Change>) -> Vec<Change> {
    changes.sort_by(|a, b| a.0.cmp(&b.0));
    changes
}

/// The duties of a store.
fn conforms(store: &dyn StateStore) {
    assert_eq!(store.savepoint().unwrap(), None);
    assert_eq!(store.read_one(&StateKey::public("ns", "a")).unwrap(), None);

    let first = ["a", "b", "c", "\u{0}composite\u{0}x\u{0}", "\u{10ffff}"]
        .map(|key| (StateKey::public("ns", key), Some(value(key, 1))));
    let others = [
        (StateKey::public("n", "zzz"), Some(value("before", 1))),
        (StateKey::public("ns2", "0"), Some(value("after", 1))),
        (StateKey::hashed("ns", "coll", &[0, 255, 0]), Some(value("hash", 1))),
        (StateKey::private("ns", "coll", "plain"), Some(value("plain", 1))),
        (StateKey::private("ns", "collection", "plain"), Some(value("other", 1))),
    ];
    store.apply(&sorted(first.into_iter().chain(others).collect()), Height::new(1, 4)).unwrap();
    assert_eq!(store.savepoint().unwrap(), Some(Height::new(1, 4)));

    // Keys of one space only, inside one namespace, in byte order.
    assert_eq!(
        keys(store, &KeyRange::public("ns", "", "")),
        ["\u{0}composite\u{0}x\u{0}", "a", "b", "c", "\u{10ffff}"]
    );
    assert_eq!(keys(store, &KeyRange::public("ns", "a", "c")), ["a", "b"]);
    assert_eq!(keys(store, &KeyRange::public_inclusive("ns", "a", "c")), ["a", "b", "c"]);
    assert_eq!(keys(store, &KeyRange::public("ns", "c", "a")), [""; 0]);
    assert_eq!(keys(store, &KeyRange::private("ns", "coll", "", "")), ["plain"]);
    assert_eq!(keys(store, &KeyRange::all(Space::Public)).len(), 7);

    // Reads answer in order, absent keys included, over all spaces.
    let asked = [
        StateKey::public("ns", "a"),
        StateKey::public("ns", "absent"),
        StateKey::hashed("ns", "coll", &[0, 255, 0]),
        StateKey::private("ns", "coll", "plain"),
    ];
    let answers = store.read(&asked).unwrap();
    assert_eq!(answers, [Some(value("a", 1)), None, Some(value("hash", 1)), Some(value("plain", 1))]);

    // Changes replace and remove.
    let metadata = VersionedValue { metadata: "meta".into(), ..value("new", 2) };
    let changes = sorted(vec![
        (StateKey::public("ns", "a"), Some(metadata.clone())),
        (StateKey::public("ns", "b"), None),
        (StateKey::public("ns", "never"), None),
    ]);
    store.apply(&changes, Height::new(2, 0)).unwrap();
    assert_eq!(store.read_one(&StateKey::public("ns", "a")).unwrap(), Some(metadata));
    assert_eq!(keys(store, &KeyRange::public("ns", "a", "d")), ["a", "c"]);
    assert_eq!(store.savepoint().unwrap(), Some(Height::new(2, 0)));
    store.apply(&[], Height::new(3, 0)).unwrap();
    assert_eq!(store.savepoint().unwrap(), Some(Height::new(3, 0)));
}

#[test]
fn a_state_in_memory_conforms() {
    conforms(&MemoryState::new());
}

#[test]
fn a_state_in_rocksdb_conforms_and_survives_being_closed() {
    let folder = tempfile::tempdir().unwrap();
    conforms(&RocksState::open(folder.path()).unwrap());
    let again = RocksState::open(folder.path()).unwrap();
    assert_eq!(again.savepoint().unwrap(), Some(Height::new(3, 0)));
    assert_eq!(keys(&again, &KeyRange::public("ns", "a", "d")), ["a", "c"]);
}

/// A name out of a small alphabet with awkward bytes, so that collisions and neighbours happen.
fn name() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!['\u{0}', '\u{1}', 'a', 'b', '\u{10ffff}']), 0..4)
        .prop_map(String::from_iter)
}

fn change() -> impl Strategy<Value = Change> {
    let key = (0..3, name(), name(), name()).prop_map(|(space, namespace, collection, key)| match space {
        0 => StateKey::public(&namespace, &key),
        1 => StateKey::hashed(&namespace, &collection, key.as_bytes()),
        _ => StateKey::private(&namespace, &collection, &key),
    });
    let content = (any::<Vec<u8>>(), any::<Vec<u8>>(), any::<u64>(), any::<u32>());
    (key, prop::option::of(content)).prop_map(|(key, content)| {
        let value = content.map(|(value, metadata, block, tx)| VersionedValue {
            value: value.into(),
            metadata: metadata.into(),
            version: Height::new(block, tx),
        });
        (key, value)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn both_stores_hold_the_same_state_after_the_same_changes(
        batches in prop::collection::vec(prop::collection::vec(change(), 0..12), 1..6),
        queries in prop::collection::vec((name(), name(), name()), 1..8),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (memory, rocks) = (MemoryState::new(), RocksState::open(folder.path()).unwrap());
        for (number, batch) in batches.into_iter().enumerate() {
            let mut batch = sorted(batch);
            batch.dedup_by(|a, b| a.0 == b.0);
            let savepoint = Height::new(number as u64, 0);
            memory.apply(&batch, savepoint).unwrap();
            rocks.apply(&batch, savepoint).unwrap();
            let keys: Vec<_> = batch.into_iter().map(|(key, _)| key).collect();
            prop_assert_eq!(memory.read(&keys).unwrap(), rocks.read(&keys).unwrap());
        }
        let all = |store: &dyn StateStore, range: &KeyRange| -> Vec<_> { store.scan(range).unwrap().map(Result::unwrap).collect() };
        for space in [Space::Public, Space::Hashed, Space::Private] {
            prop_assert_eq!(all(&memory, &KeyRange::all(space)), all(&rocks, &KeyRange::all(space)));
        }
        for (namespace, start, end) in queries {
            for range in [
                KeyRange::public(&namespace, &start, &end),
                KeyRange::public_inclusive(&namespace, &start, &end),
                KeyRange::private(&namespace, "a", &start, &end),
            ] {
                let found = all(&memory, &range);
                prop_assert!(found.iter().all(|(key, _)| range.contains(key)));
                prop_assert_eq!(found, all(&rocks, &range));
            }
        }
    }
}
