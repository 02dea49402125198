//! Private sets that wait for their transactions: how much may wait, and what a restart finds.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod blocks;

use consort_ledger::transient::{SETS_PER_TRANSACTION_MAX, TRANSACTION_BYTES_MAX, WAITING_BYTES_MAX};
use consort_ledger::{Error, Ledger, TxSimulator};
use consort_protos::ids::{BlockNumber, ChannelId};
use consort_protos::rwset::{PrivateCollection, PrivateNamespace, PrivateReadWriteSet, Write};

/// The size of a large value.
const LARGE: usize = 16 << 20;
/// Memory that a store full of sets may take beside what one set takes: buffers of the database.
const MEMORY_BYTES_MAX: u64 = 512 << 20;

fn ledger() -> (tempfile::TempDir, Ledger) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::create(folder.path(), &blocks::genesis()).unwrap();
    (folder, ledger)
}

fn set(key: &str, bytes: usize) -> PrivateReadWriteSet {
    let write = Write { key: key.to_owned(), is_delete: false, value: vec![7; bytes].into() };
    let collections = vec![PrivateCollection::new("secrets", vec![write], Vec::new())];
    let namespace = blocks::CHAINCODE.to_owned();
    PrivateReadWriteSet { namespaces: vec![PrivateNamespace { namespace, collections }] }
}

/// Memory of this process, in bytes: now, or the most so far.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn one_gibibyte_waits_and_no_more_until_some_of_it_is_committed() {
    let (folder, ledger) = ledger();
    let mut simulator = TxSimulator::new(ledger.snapshot(), "tx");
    simulator.put_private(blocks::CHAINCODE, "secrets", "key", vec![7; LARGE].into()).unwrap();
    let simulated = simulator.finish();
    let arrived = blocks::tx_id("block 1");
    ledger.transient().put(&arrived, BlockNumber::new(1), &simulated.private).unwrap();
    let before = memory("VmRSS:");
    // One transaction gets a part of it.
    let of_one = TRANSACTION_BYTES_MAX / (LARGE as u64 + 1024);
    for number in 0..of_one {
        ledger.transient().put("one", BlockNumber::new(1), &set(&number.to_string(), LARGE)).unwrap();
    }
    let refused = ledger.transient().put("one", BlockNumber::new(1), &set("more", LARGE)).unwrap_err();
    assert!(
        refused.to_string().contains("transaction one would have more than 268435456 bytes"),
        "{refused}"
    );
    let mut refused = None;
    for number in of_one..WAITING_BYTES_MAX / LARGE as u64 {
        let put = ledger.transient().put(&format!("tx {number}"), BlockNumber::new(1), &set("key", LARGE));
        refused = refused.or(put.err());
    }
    let text = refused.unwrap().to_string();
    assert!(text.contains("1073741824 bytes of private data wait for their transactions already"), "{text}");
    let waiting = ledger.transient().waiting_bytes();
    assert!((WAITING_BYTES_MAX - 2 * LARGE as u64..=WAITING_BYTES_MAX).contains(&waiting), "{waiting}");
    let grown = memory("VmHWM:").saturating_sub(before);
    assert!(grown < MEMORY_BYTES_MAX, "{grown} bytes of memory for {waiting} that wait");

    // A restart counts the same.
    drop(ledger);
    let ledger = Ledger::open(folder.path(), &ChannelId::parse(blocks::CHANNEL).unwrap()).unwrap();
    assert_eq!(ledger.transient().waiting_bytes(), waiting);
    let late = ledger.transient().put("late", BlockNumber::new(1), &set("late", LARGE));
    assert!(matches!(late, Err(Error::TransientBytes { limit: WAITING_BYTES_MAX })), "{late:?}");

    // What is committed makes room.
    let envelope = blocks::envelope("block 1", &simulated.rwset);
    let block = blocks::next_block(&ledger, vec![envelope]);
    ledger.commit(blocks::accepted(block)).unwrap();
    assert!(ledger.transient().waiting_bytes() < waiting - LARGE as u64);
    ledger.transient().put("late", BlockNumber::new(1), &set("late", LARGE)).unwrap();
}

#[test]
fn puts_at_one_time_do_not_exceed_a_transactions_limit_together() {
    let (_folder, ledger) = ledger();
    let outcomes: Vec<Result<(), Error>> = std::thread::scope(|scope| {
        let put = |number: usize| {
            let transient = ledger.transient().clone();
            scope.spawn(move || transient.put("tx", BlockNumber::new(1), &set(&number.to_string(), 8)))
        };
        let threads: Vec<_> = (0..SETS_PER_TRANSACTION_MAX + 8).map(put).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let refused: Vec<Error> = outcomes.into_iter().filter_map(Result::err).collect();
    assert_eq!(refused.len(), 8);
    assert!(refused.iter().all(|error| matches!(error, Error::TransientFull { .. })), "{refused:?}");
    assert_eq!(ledger.transient().sets("tx").unwrap().len(), SETS_PER_TRANSACTION_MAX);
}
