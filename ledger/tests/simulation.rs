//! What a simulation records, and which rules stop it.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use consort_ledger::{
    StateSnapshot, TxSimulator,
    simulator::{BATCH_RESULTS, QUERY_RESULTS_MAX},
    state::{MemoryState, StateKey, StateStore as _, VersionedValue},
};
use consort_protos::{ids::Height, rwset::RangeReads};

/// A simulator over `count` keys `k000`, `k001`, … at version (5, 0).
fn simulator(count: usize) -> TxSimulator {
    let state = MemoryState::new();
    let value = VersionedValue { value: "v".into(), metadata: Bytes::new(), version: Height::new(5, 0) };
    let changes: Vec<_> = (0..count)
        .map(|index| (StateKey::public("cc", &format!("k{index:03}")), Some(value.clone())))
        .collect();
    state.apply(&changes, Height::new(5, 0)).unwrap();
    TxSimulator::new(StateSnapshot::of(Arc::new(state)), "id")
}

fn hexadecimal(text: &str) -> Bytes {
    hex::decode(text.replace(' ', "")).unwrap().into()
}

#[test]
fn a_write_after_a_read_of_the_definition_has_fabrics_bytes() {
    let state = MemoryState::new();
    let sequence = StateKey::public("_lifecycle", "namespaces/fields/gold/Sequence");
    let value =
        VersionedValue { value: "\u{8}\u{1}".into(), metadata: Bytes::new(), version: Height::new(29, 0) };
    state.apply(&[(sequence, Some(value))], Height::new(29, 0)).unwrap();
    let mut simulator = TxSimulator::new(StateSnapshot::of(Arc::new(state)), "id");
    simulator.get("_lifecycle", "namespaces/fields/gold/Sequence").unwrap();
    simulator.put("gold", "aa", "1".into()).unwrap();
    let expected = "12350a0a5f6c6966656379636c65 12270a250a1f6e616d657370616365732f6669656c64732f676f6c642f53657175656e6365 1202081d \
                    12110a04676f6c64 12091a070a0261611a0131";
    assert_eq!(simulator.finish().rwset.encode(), hexadecimal(expected));
}

#[test]
fn a_private_delete_has_fabrics_bytes_and_hash() {
    let mut simulator = simulator(0);
    simulator.delete_private("gold", "both", "ap").unwrap();
    let simulation = simulator.finish();
    let plain = simulation.private.collection("gold", "both").unwrap();
    assert_eq!(*plain.bytes(), hexadecimal("1a060a0261701001"));
    let hashed = &simulation.rwset.namespace("gold").unwrap().collections[0];
    assert_eq!(
        hashed.pvt_rwset_hash,
        hexadecimal("3781534eb849a24aaf85e276800658119c0bb896d9f8966462b7cc279e91bd44")
    );
    assert!(hashed.hashed_writes[0].is_delete && !hashed.hashed_writes[0].is_purge);
}

#[test]
fn a_transaction_does_not_see_its_own_writes() {
    let mut simulator = simulator(1);
    simulator.put("cc", "k000", "mine".into()).unwrap();
    assert_eq!(simulator.get("cc", "k000").unwrap(), Some("v".into()));
    let rwset = simulator.finish().rwset;
    let namespace = rwset.namespace("cc").unwrap();
    assert_eq!((namespace.reads.len(), namespace.writes.len()), (1, 1));
}

#[test]
fn everything_is_sorted_and_recorded_once() {
    let mut simulator = simulator(2);
    for key in ["k001", "absent", "k000", "k001"] {
        simulator.get("cc", key).unwrap();
    }
    for (key, value) in [("z", "1"), ("a", "2"), ("z", "3"), ("m", "")] {
        simulator.put("cc", key, value.into()).unwrap();
    }
    simulator.put_private("cc", "two", "b", "x".into()).unwrap();
    simulator.put_private("cc", "one", "b", "x".into()).unwrap();
    simulator.put_private("cc", "one", "a", "x".into()).unwrap();
    simulator.put("aa", "only", "x".into()).unwrap();
    let simulation = simulator.finish();
    let names: Vec<_> =
        simulation.rwset.namespaces.iter().map(|namespace| namespace.namespace.as_str()).collect();
    assert_eq!(names, ["aa", "cc"]);
    let namespace = simulation.rwset.namespace("cc").unwrap();
    let reads: Vec<_> = namespace.reads.iter().map(|read| (read.key.as_str(), read.version)).collect();
    let version = Some(Height::new(5, 0));
    assert_eq!(reads, [("absent", None), ("k000", version), ("k001", version)]);
    let writes: Vec<_> = namespace
        .writes
        .iter()
        .map(|write| (write.key.as_str(), &write.value[..], write.is_delete))
        .collect();
    assert_eq!(writes, [("a", &b"2"[..], false), ("m", &b""[..], true), ("z", &b"3"[..], false)]);
    let collections: Vec<_> =
        namespace.collections.iter().map(|collection| collection.name.as_str()).collect();
    assert_eq!(collections, ["one", "two"]);
    // The order of the plain keys; hashes sort otherwise: sha256("b") starts with 3e, sha256("a") with ca.
    let first: Vec<_> =
        namespace.collections[0].hashed_writes.iter().map(|write| write.key_hash[0]).collect();
    assert_eq!(first, [0xca, 0x3e]);
}

/// What is recorded after so many batches of a range over so many keys: number of reads, end key, exhausted.
fn recorded(keys: usize, batches: usize) -> (usize, String, bool) {
    let mut simulator = simulator(keys);
    let range = simulator.range("cc", "k", "l");
    for _ in 0..batches {
        assert!(simulator.next_batch(range).unwrap().entries.len() <= BATCH_RESULTS);
    }
    let rwset = simulator.finish().rwset;
    let query = &rwset.namespace("cc").unwrap().range_queries[0];
    let reads = match &query.reads {
        RangeReads::Empty => 0,
        RangeReads::Raw(reads) => reads.len(),
        // Leaves of 51 reads, the last one shorter.
        RangeReads::Merkle(summary) => usize::MAX - summary.hashes.len(),
    };
    (reads, query.end_key.clone(), query.exhausted)
}

#[test]
fn ranges_are_recorded_as_the_peer_fetches_them() {
    assert_eq!(recorded(0, 1), (0, "l".to_owned(), true));
    assert_eq!(recorded(3, 0), (0, String::new(), false));
    assert_eq!(recorded(3, 1), (3, "l".to_owned(), true));
    assert_eq!(recorded(50, 1), (50, "l".to_owned(), true));
    assert_eq!(recorded(51, 1), (usize::MAX - 1, "l".to_owned(), true));
    assert_eq!(recorded(100, 1), (usize::MAX - 2, "l".to_owned(), true));
    // One more than a batch is fetched to know that there is more: 101 reads in leaves of 51 and 50.
    assert_eq!(recorded(101, 1), (usize::MAX - 2, "k100".to_owned(), false));
    assert_eq!(recorded(101, 2), (usize::MAX - 2, "l".to_owned(), true));
    assert_eq!(recorded(250, 1), (usize::MAX - 2, "k100".to_owned(), false));
    assert_eq!(recorded(250, 2), (usize::MAX - 4, "k200".to_owned(), false));
    assert_eq!(recorded(250, 3), (usize::MAX - 5, "l".to_owned(), true));
    assert_eq!(recorded(250, 9), (usize::MAX - 5, "l".to_owned(), true));
}

#[test]
fn batches_give_every_result_once() {
    let mut simulator = simulator(250);
    let range = simulator.range("cc", "", "");
    let mut found = Vec::new();
    loop {
        let batch = simulator.next_batch(range).unwrap();
        found.extend(batch.entries.into_iter().map(|(key, _)| key));
        if !batch.has_more {
            break;
        }
    }
    assert_eq!(found, (0..250).map(|index| format!("k{index:03}")).collect::<Vec<_>>());
    assert!(simulator.next_batch(range).unwrap().entries.is_empty());
    const { assert!(QUERY_RESULTS_MAX > 250) };
}

#[test]
fn pages_end_where_the_next_one_begins() {
    let mut simulator = simulator(25);
    let (mut bookmark, mut sizes) = (String::new(), Vec::new());
    loop {
        let page = simulator.page("cc", "", "", 10, &bookmark).unwrap();
        sizes.push((page.entries.len(), page.bookmark.clone()));
        bookmark = page.bookmark;
        if bookmark.is_empty() {
            break;
        }
    }
    assert_eq!(sizes, [(10, "k010".to_owned()), (10, "k020".to_owned()), (5, String::new())]);
    let rwset = simulator.finish().rwset;
    let queries: Vec<_> = rwset
        .namespace("cc")
        .unwrap()
        .range_queries
        .iter()
        .map(|query| (query.start_key.as_str(), query.end_key.as_str(), query.exhausted))
        .collect();
    assert_eq!(queries, [("", "k009", false), ("k010", "k019", false), ("k020", "", true)]);
}

#[test]
fn several_keys_are_read_in_the_order_asked_for_and_each_is_recorded() {
    let mut many = simulator(3);
    let keys = ["k002", "absent", "k000", "k002"].map(str::to_owned);
    let value = Some(Bytes::from("v"));
    assert_eq!(many.get_many("cc", &keys).unwrap(), [value.clone(), None, value.clone(), value]);
    let mut single = simulator(3);
    for key in &keys {
        single.get("cc", key).unwrap();
    }
    assert_eq!(many.finish().rwset, single.finish().rwset);
}

#[test]
fn queries_that_cannot_be_checked_again_exclude_writes() {
    let text = |result: Result<(), consort_ledger::SimulationError>| result.unwrap_err().to_string();
    let mut after_private = simulator(0);
    after_private.private_range("cc", "coll", "", "").unwrap();
    assert_eq!(
        text(after_private.put("cc", "a", "1".into())),
        "txid [id]: unsuppored transaction. Transaction has already performed queries on pvt data. Writes are not allowed"
    );
    let mut after_page = simulator(0);
    after_page.page("cc", "", "", 10, "").unwrap();
    assert_eq!(
        text(after_page.delete("cc", "a")),
        "txid [id]: unsuppored transaction. Transaction has already performed a paginated query. Writes are not allowed"
    );
    assert!(after_page.put_metadata("cc", "a", BTreeMap::new()).is_err());
    assert!(after_page.put_private("cc", "coll", "a", "1".into()).is_err());
    let mut after_write = simulator(0);
    after_write.put("cc", "a", "1".into()).unwrap();
    assert_eq!(
        text(after_write.page("cc", "", "", 10, "").map(drop)),
        "txid [id]: unsuppored transaction. Paginated queries are supported only in a read-only transaction"
    );
    assert_eq!(
        text(after_write.private_range("cc", "coll", "", "").map(drop)),
        "txid [id]: unsuppored transaction. Queries on pvt data is supported only in a read-only transaction"
    );
}

#[test]
fn queries_of_private_data_leave_no_trace() {
    let mut simulator = simulator(0);
    let range = simulator.private_range("cc", "coll", "", "").unwrap();
    assert!(simulator.next_batch(range).unwrap().entries.is_empty());
    let simulation = simulator.finish();
    assert!(simulation.rwset.namespaces.is_empty());
    assert!(simulation.private.is_empty());
}
