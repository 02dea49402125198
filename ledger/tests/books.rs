//! The ledger as its callers see it: what it refuses, what a snapshot shows, what happens to private data.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod blocks;

use std::collections::BTreeMap;

use bytes::Bytes;
use consort_crypto::hash::sha256;
use consort_ledger::{
    BlockStore, Error, Ledger, SNAPSHOT_LAG_BLOCKS_MAX, Simulation, SimulationError, TxSimulator,
    ValidatedBlock,
};
use consort_protos::{
    fabric::protos::TxValidationCode,
    ids::{BlockNumber, ChannelId, TxNumber},
    rwset::{PrivateReadWriteSet, TxReadWriteSet},
};
use proptest::prelude::*;

use blocks::CHAINCODE;

fn ledger() -> (tempfile::TempDir, Ledger) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::create(folder.path(), &blocks::genesis()).unwrap();
    (folder, ledger)
}

/// Commits one transaction with these results and the private data that came with it.
fn commit(
    ledger: &Ledger,
    rwset: &TxReadWriteSet,
    private: Option<PrivateReadWriteSet>,
) -> Result<TxValidationCode, Error> {
    let nonce = format!("block {}", ledger.height());
    let block = blocks::next_block(ledger, vec![blocks::envelope(&nonce, rwset)]);
    let private = private.map(|set| (TxNumber::new(0), set)).into_iter().collect();
    Ok(ledger.commit(blocks::accepted(block).with_private(private))?.codes[0])
}

fn put(ledger: &Ledger, key: &str, value: &str) {
    let code = commit(ledger, &blocks::results(vec![], vec![blocks::write(key, value)]), None).unwrap();
    assert_eq!(code, TxValidationCode::Valid);
}

fn simulate(
    ledger: &Ledger,
    run: impl FnOnce(&mut TxSimulator) -> Result<(), SimulationError>,
) -> Simulation {
    let mut simulator = TxSimulator::new(ledger.snapshot(), "tx");
    run(&mut simulator).unwrap();
    simulator.finish()
}

fn value(ledger: &Ledger, key: &str) -> Option<Bytes> {
    ledger.snapshot().get(CHAINCODE, key).unwrap().map(|value| value.value)
}

#[test]
fn a_block_that_is_not_the_next_one_is_refused_and_changes_nothing() {
    let (_folder, ledger) = ledger();
    put(&ledger, "a", "1");
    let envelope = || vec![blocks::envelope("new", &blocks::results(vec![], vec![blocks::write("a", "2")]))];
    let last = Bytes::copy_from_slice(&ledger.last_hash().unwrap());

    let gap = blocks::block(3, last.clone(), envelope());
    assert!(matches!(ledger.commit(blocks::accepted(gap)), Err(Error::OutOfOrder { found: 3, .. })));
    let again = blocks::block(1, last.clone(), envelope());
    assert!(matches!(ledger.commit(blocks::accepted(again)), Err(Error::OutOfOrder { found: 1, .. })));
    let unlinked = blocks::block(2, Bytes::from_static(&[7; 32]), envelope());
    assert!(matches!(ledger.commit(blocks::accepted(unlinked)), Err(Error::Unlinked { .. })));
    let mut forged = blocks::block(2, last, envelope());
    forged.header.as_mut().unwrap().data_hash = Bytes::from_static(&[7; 32]);
    assert!(matches!(ledger.commit(blocks::accepted(forged)), Err(Error::WrongDataHash { .. })));

    assert_eq!((ledger.height(), value(&ledger, "a")), (2, Some("1".into())));
    assert_eq!(ledger.poisoned(), None);
    put(&ledger, "a", "2");
}

#[test]
fn a_chain_of_blocks_alone_refuses_gaps_and_wrong_links() {
    let folder = tempfile::tempdir().unwrap();
    let store = BlockStore::open(folder.path()).unwrap();
    let first = blocks::genesis();
    let hash = |block: &consort_protos::fabric::common::Block| {
        Bytes::copy_from_slice(&consort_crypto::preimage::block_hash(block.header.as_ref().unwrap()))
    };
    let second = blocks::block(1, hash(&first), vec![Bytes::from_static(b"anything")]);
    assert_eq!((store.height(), store.last_header()), (0, None));
    assert!(matches!(store.append(&second), Err(Error::OutOfOrder { found: 1, .. })));
    store.append(&first).unwrap();
    let heights = store.subscribe();
    assert!(matches!(store.append(&first), Err(Error::OutOfOrder { found: 0, .. })));
    let mut forged = second.clone();
    forged.data.as_mut().unwrap().data.push(Bytes::new());
    forged.data.as_mut().unwrap().data[0] = Bytes::from_static(b"something else");
    assert!(matches!(store.append(&forged), Err(Error::WrongDataHash { .. })));
    assert!(matches!(store.append(&blocks::block(1, Bytes::new(), vec![])), Err(Error::Unlinked { .. })));
    store.append(&second).unwrap();
    assert_eq!(*heights.borrow(), 2);
    drop(store);

    let store = BlockStore::open(folder.path()).unwrap();
    assert_eq!((store.height(), store.last_header()), (2, second.header.clone()));
    assert_eq!(store.block(BlockNumber::new(0)).unwrap(), Some(first));
    assert_eq!(store.block_by_hash(&hash(&second)).unwrap(), Some(second));
    assert_eq!(store.block_by_hash(b"unknown").unwrap(), None);
    assert_eq!(store.block(BlockNumber::new(2)).unwrap(), None);
}

#[test]
fn codes_and_transactions_must_match_the_block() {
    let block = blocks::block(1, Bytes::new(), vec![Bytes::from_static(b"garbage")]);
    let new = |transactions, codes| ValidatedBlock::new(block.clone(), transactions, codes);
    assert!(matches!(
        new(vec![], vec![TxValidationCode::BadPayload]),
        Err(Error::WrongCount { what: "transactions", .. })
    ));
    assert!(matches!(new(vec![None], vec![]), Err(Error::WrongCount { what: "codes", .. })));
    assert!(matches!(new(vec![None], vec![TxValidationCode::NotValidated]), Err(Error::NotValidated { .. })));
    assert!(matches!(new(vec![None], vec![TxValidationCode::Valid]), Err(Error::NotValidated { .. })));
    assert!(new(vec![None], vec![TxValidationCode::BadPayload]).is_ok());
}

#[test]
fn a_block_of_garbage_is_committed_as_garbage() {
    let (_folder, ledger) = ledger();
    let block = blocks::next_block(&ledger, vec![Bytes::from_static(b"garbage"), Bytes::new()]);
    let codes = vec![TxValidationCode::InvalidOtherReason, TxValidationCode::BadPayload];
    let committed =
        ledger.commit(ValidatedBlock::new(block, vec![None, None], codes.clone()).unwrap()).unwrap();
    assert_eq!(committed.codes, codes);
    assert_eq!(
        ledger.block(BlockNumber::new(1)).unwrap().unwrap().metadata.unwrap().metadata[2].as_ref(),
        [255, 2]
    );
}

#[test]
fn another_channels_books_do_not_open() {
    let (folder, ledger) = ledger();
    drop(ledger);
    let other = ChannelId::parse("otherchannel").unwrap();
    assert!(matches!(Ledger::open(folder.path(), &other), Err(Error::WrongChannel { .. })));
    let nowhere = folder.path().join("nowhere");
    assert!(matches!(Ledger::open(&nowhere, &other), Err(Error::Absent { .. })));
    assert!(!nowhere.exists());
    let ordinary = blocks::block(0, Bytes::new(), vec![blocks::envelope("a", &TxReadWriteSet::default())]);
    assert!(matches!(Ledger::create(&nowhere, &ordinary), Err(Error::NotGenesis { .. })));
}

#[test]
fn a_snapshot_stays_as_it_is_while_blocks_are_committed() {
    let (_folder, ledger) = ledger();
    put(&ledger, "a", "old");
    put(&ledger, "b", "old");
    let snapshot = ledger.snapshot();
    put(&ledger, "a", "new");
    put(&ledger, "b", "");
    put(&ledger, "c", "new");
    put(&ledger, "a", "newer");

    let texts = |snapshot: &consort_ledger::StateSnapshot| -> Vec<(String, Bytes)> {
        snapshot
            .range(CHAINCODE, "", "")
            .unwrap()
            .map(|entry| entry.map(|(key, value)| (key, value.value)).unwrap())
            .collect()
    };
    let pair = |key: &str, value: &'static str| (key.to_owned(), Bytes::from(value));
    assert_eq!(snapshot.height(), BlockNumber::new(3));
    assert_eq!(snapshot.get(CHAINCODE, "a").unwrap().unwrap().value, "old");
    assert_eq!(snapshot.get(CHAINCODE, "c").unwrap(), None);
    assert_eq!(texts(&snapshot), [pair("a", "old"), pair("b", "old")]);
    assert_eq!(texts(&snapshot.clone()), texts(&snapshot));
    assert_eq!(texts(&ledger.snapshot()), [pair("a", "newer"), pair("c", "new")]);
}

#[test]
fn a_snapshot_that_is_held_too_long_says_so() {
    let (_folder, ledger) = ledger();
    let snapshot = ledger.snapshot();
    for _ in 0..=SNAPSHOT_LAG_BLOCKS_MAX {
        let block = blocks::next_block(&ledger, vec![]);
        ledger.commit(blocks::accepted(block)).unwrap();
    }
    assert!(matches!(snapshot.get(CHAINCODE, "a"), Err(Error::SnapshotExpired { height: 1 })));
    assert_eq!(value(&ledger, "a"), None);
}

#[test]
fn simulations_run_in_other_threads_while_blocks_are_committed() {
    let (_folder, ledger) = ledger();
    for key in 0..20 {
        put(&ledger, &format!("{key:02}"), "0");
    }
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = 0;
                    loop {
                        let end = ledger.height() >= 60;
                        let snapshot = ledger.snapshot();
                        let version =
                            |value: &consort_ledger::state::VersionedValue| value.version.block.get();
                        // Every block writes all keys, so all versions are the same.
                        let versions: Vec<_> = snapshot
                            .range(CHAINCODE, "", "")
                            .unwrap()
                            .map(|entry| version(&entry.unwrap().1))
                            .collect();
                        let single = version(&snapshot.get(CHAINCODE, "07").unwrap().unwrap());
                        if snapshot.height().get() > 21 {
                            assert_eq!(versions, [single; 20]);
                            assert_eq!(single, snapshot.height().get() - 1);
                            seen += 1;
                        }
                        if end {
                            return seen;
                        }
                    }
                })
            })
            .collect();
        while ledger.height() < 60 {
            let height = ledger.height().to_string();
            let writes = (0..20).map(|key| blocks::write(&format!("{key:02}"), &height)).collect();
            commit(&ledger, &blocks::results(vec![], writes), None).unwrap();
        }
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
}

#[test]
fn subscribers_learn_of_a_block_when_it_can_be_read() {
    let (_folder, ledger) = ledger();
    let mut heights = ledger.subscribe();
    assert_eq!(*heights.borrow_and_update(), 1);
    put(&ledger, "a", "1");
    assert!(heights.has_changed().unwrap());
    assert_eq!(*heights.borrow_and_update(), 2);
    assert_eq!(ledger.snapshot().height(), BlockNumber::new(2));
}

#[test]
fn private_data_is_kept_where_it_came_and_its_hash_everywhere() {
    let ((_with_folder, with), (_without_folder, without)) = (ledger(), ledger());
    let written =
        simulate(&with, |simulator| simulator.put_private(CHAINCODE, "secrets", "key", "plain".into()));
    commit(&with, &written.rwset, Some(written.private)).unwrap();
    commit(&without, &written.rwset, None).unwrap();
    for ledger in [&with, &without] {
        let hashed = ledger.snapshot().hashed(CHAINCODE, "secrets", &sha256(b"key")).unwrap().unwrap();
        assert_eq!(hashed.value, sha256(b"plain").as_slice());
    }
    let read =
        |ledger: &Ledger| TxSimulator::new(ledger.snapshot(), "tx").private(CHAINCODE, "secrets", "key");
    assert_eq!(read(&with).unwrap(), Some("plain".into()));
    let error = read(&without).unwrap_err().to_string();
    assert_eq!(
        error,
        "private data matching public hash version is not available. \
         Public hash version = {BlockNum: 1, TxNum: 0}, Private data version = <nil>"
    );

    // A delete removes the value also where its private part did not arrive.
    let deleted = simulate(&with, |simulator| simulator.purge_private(CHAINCODE, "secrets", "key"));
    commit(&with, &deleted.rwset, None).unwrap();
    assert_eq!(with.snapshot().private(CHAINCODE, "secrets", "key").unwrap(), None);
    assert_eq!(read(&with).unwrap(), None);
}

#[test]
fn private_data_that_is_not_what_was_endorsed_is_refused() {
    let (_folder, ledger) = ledger();
    let endorsed =
        simulate(&ledger, |simulator| simulator.put_private(CHAINCODE, "secrets", "key", "plain".into()));
    let forged =
        simulate(&ledger, |simulator| simulator.put_private(CHAINCODE, "secrets", "key", "forged".into()));
    let error = commit(&ledger, &endorsed.rwset, Some(forged.private)).unwrap_err();
    assert!(matches!(error, Error::PrivateDataMismatch { transaction: 0, .. }));
    assert_eq!(ledger.height(), 1);
    commit(&ledger, &endorsed.rwset, Some(endorsed.private)).unwrap();
}

#[test]
fn private_sets_wait_until_their_transaction_is_committed() {
    let (folder, ledger) = ledger();
    let written =
        simulate(&ledger, |simulator| simulator.put_private(CHAINCODE, "secrets", "key", "plain".into()));
    let (tx_id, height) = (blocks::tx_id("block 1"), BlockNumber::new(1));
    ledger.transient().put(&tx_id, height, &written.private).unwrap();
    ledger.transient().put(&tx_id, height, &written.private).unwrap();
    ledger.transient().put("another", height, &written.private).unwrap();
    drop(ledger);
    let ledger = Ledger::open(folder.path(), &ChannelId::parse(blocks::CHANNEL).unwrap()).unwrap();
    let waiting = ledger.transient().sets(&tx_id).unwrap();
    assert_eq!(waiting, std::slice::from_ref(&written.private));
    commit(&ledger, &written.rwset, waiting.into_iter().next()).unwrap();
    assert_eq!(ledger.transient().sets(&tx_id).unwrap(), []);
    assert_eq!(ledger.transient().sets("another").unwrap().len(), 1);
    for number in 0..consort_ledger::transient::SETS_PER_TRANSACTION_MAX {
        let other = simulate(&ledger, |simulator| {
            simulator.put_private(CHAINCODE, "secrets", "key", number.to_string().into())
        });
        ledger.transient().put("many", height, &other.private).unwrap();
    }
    assert!(matches!(
        ledger.transient().put("many", height, &written.private),
        Err(Error::TransientFull { .. })
    ));
}

#[test]
fn simulated_results_are_valid_when_committed_next_and_stale_after_a_change() {
    let (_folder, ledger) = ledger();
    for key in 0..120 {
        put(&ledger, &format!("k{key:03}"), "v");
    }
    let sum = |ledger: &Ledger| {
        simulate(ledger, |simulator| {
            simulator.get(CHAINCODE, "total")?;
            let range = simulator.range(CHAINCODE, "k", "l");
            let mut count = 0;
            loop {
                let batch = simulator.next_batch(range)?;
                count += batch.entries.len();
                if !batch.has_more {
                    break;
                }
            }
            simulator.put(CHAINCODE, "total", count.to_string().into())?;
            simulator.put_metadata(CHAINCODE, "total", BTreeMap::from([("by".to_owned(), "me".into())]))
        })
    };
    let (first, second) = (sum(&ledger), sum(&ledger));
    assert_eq!(first, second);
    assert_eq!(commit(&ledger, &first.rwset, None).unwrap(), TxValidationCode::Valid);
    assert_eq!(value(&ledger, "total"), Some("120".into()));
    assert_eq!(commit(&ledger, &second.rwset, None).unwrap(), TxValidationCode::MvccReadConflict);
    let third = sum(&ledger);
    put(&ledger, "k120", "v");
    assert_eq!(commit(&ledger, &third.rwset, None).unwrap(), TxValidationCode::PhantomReadConflict);
    let mut simulator = TxSimulator::new(ledger.snapshot(), "tx");
    assert_eq!(
        simulator.metadata(CHAINCODE, "total").unwrap(),
        BTreeMap::from([("by".to_owned(), "me".into())])
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn random_envelopes_and_private_sets_do_not_panic(envelopes: Vec<Vec<u8>>, bytes: Vec<u8>) {
        let (_folder, ledger) = ledger();
        let block = blocks::next_block(&ledger, envelopes.into_iter().map(Bytes::from).collect());
        let transactions = blocks::open(&block);
        let codes = vec![TxValidationCode::BadPayload; transactions.len()];
        ledger.commit(ValidatedBlock::new(block, transactions, codes).unwrap()).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        prop_assert_eq!(ledger.transaction(&text).unwrap(), None);
        prop_assert_eq!(ledger.block_by_hash(&bytes).unwrap(), None);
        prop_assert_eq!(ledger.history(&text, &text, BlockNumber::new(2)).count(), 0);
        prop_assert_eq!(ledger.snapshot().hashed(&text, &text, &bytes).unwrap(), None);
        prop_assert!(ledger.transient().sets(&text).unwrap().is_empty());
    }
}
