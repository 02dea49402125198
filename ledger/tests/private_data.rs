//! What a peer holds of private data, what it lacks, and what it forgets.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod blocks;

use std::collections::BTreeMap;

use consort_crypto::hash::sha256;
use consort_ledger::{
    CollectionTerms, Error, Ledger, Simulation, TxSimulator,
    state::{MemoryState, StateReader as _},
};
use consort_protos::{
    fabric::protos::TxValidationCode,
    ids::{BlockNumber, ChannelId, Height, TxNumber},
    rwset::PrivateReadWriteSet,
};

use blocks::CHAINCODE;

const COLLECTION: &str = "secrets";

/// Two transactions that read a key and write it: the second one comes too late.
fn rivals(ledger: &Ledger, key: &str) -> [Simulation; 2] {
    ["1", "2"].map(|value| {
        simulate(ledger, |simulator| {
            simulator.private(CHAINCODE, COLLECTION, key).unwrap();
            simulator.put_private(CHAINCODE, COLLECTION, key, value.into()).unwrap();
        })
    })
}

fn ledger() -> (tempfile::TempDir, Ledger) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::create(folder.path(), &blocks::genesis()).unwrap();
    (folder, ledger)
}

fn simulate(ledger: &Ledger, run: impl FnOnce(&mut TxSimulator)) -> Simulation {
    let mut simulator = TxSimulator::new(ledger.snapshot(), "tx");
    run(&mut simulator);
    simulator.finish()
}

fn put(ledger: &Ledger, key: &str, value: &str) -> Simulation {
    let value = value.to_owned().into();
    simulate(ledger, |simulator| simulator.put_private(CHAINCODE, COLLECTION, key, value).unwrap())
}

fn purge(ledger: &Ledger, key: &str) -> Simulation {
    simulate(ledger, |simulator| simulator.purge_private(CHAINCODE, COLLECTION, key).unwrap())
}

/// Commits a block of these simulations; `given` says which private parts came with it.
fn commit(ledger: &Ledger, simulations: &[(&Simulation, bool)], blocks_to_live: u64) {
    let envelopes = simulations.iter().enumerate().map(|(index, (simulation, _))| {
        blocks::envelope(&format!("{}/{index}", ledger.height()), &simulation.rwset)
    });
    let block = blocks::next_block(ledger, envelopes.collect());
    let private: BTreeMap<TxNumber, PrivateReadWriteSet> = (0..)
        .zip(simulations)
        .filter(|(_, (_, given))| *given)
        .map(|(index, (simulation, _))| (TxNumber::new(index), simulation.private.clone()))
        .collect();
    let terms = CollectionTerms { member: true, blocks_to_live };
    let terms = BTreeMap::from([((CHAINCODE.to_owned(), COLLECTION.to_owned()), terms)]);
    ledger.commit(blocks::accepted(block).with_private(private).with_terms(terms)).unwrap();
}

fn plain(ledger: &Ledger, key: &str) -> Option<String> {
    let value = ledger.snapshot().private(CHAINCODE, COLLECTION, key).unwrap()?;
    Some(String::from_utf8(value.value.to_vec()).unwrap())
}

fn is_hashed(ledger: &Ledger, key: &str) -> bool {
    ledger.snapshot().hashed(CHAINCODE, COLLECTION, &sha256(key.as_bytes())).unwrap().is_some()
}

fn held_keys(ledger: &Ledger, block: u64) -> Vec<String> {
    let sets = ledger.private_sets(BlockNumber::new(block)).unwrap();
    let collections = sets.values().flat_map(|set| set.collection(CHAINCODE, COLLECTION));
    collections.flat_map(|collection| collection.writes().iter().map(|write| write.key.clone())).collect()
}

/// The books must also pass their own examination, whatever private data did.
fn examine(ledger: &Ledger) {
    let examination = ledger.examine(&MemoryState::new(), |_| {}).unwrap();
    assert_eq!(examination.faults, []);
}

#[test]
fn values_live_for_as_many_blocks_as_their_collection_says() {
    let (_folder, ledger) = ledger();
    let (short, renewed) = (put(&ledger, "short", "1"), put(&ledger, "renewed", "1"));
    commit(&ledger, &[(&short, true), (&renewed, true)], 2);
    let again = put(&ledger, "renewed", "2");
    commit(&ledger, &[(&again, true)], 2);
    commit(&ledger, &[], 2);
    assert_eq!((plain(&ledger, "short"), is_hashed(&ledger, "short")), (Some("1".to_owned()), true));
    let snapshot = ledger.snapshot();
    // Block 1 and two blocks to live: gone with block 4.
    commit(&ledger, &[], 2);
    assert_eq!((plain(&ledger, "short"), is_hashed(&ledger, "short")), (None, false));
    assert_eq!(plain(&ledger, "renewed"), Some("2".to_owned()), "written again since");
    assert!(held_keys(&ledger, 1).is_empty() && held_keys(&ledger, 2) == ["renewed"]);
    let before = snapshot.private(CHAINCODE, COLLECTION, "short").unwrap();
    assert_eq!(before.unwrap().value, "1", "an older snapshot still has it");
    commit(&ledger, &[], 2);
    assert_eq!((plain(&ledger, "renewed"), is_hashed(&ledger, "renewed")), (None, false));
    examine(&ledger);
}

#[test]
fn a_key_that_is_written_in_the_block_of_its_end_lives_on() {
    let (_folder, ledger) = ledger();
    let first = put(&ledger, "key", "1");
    commit(&ledger, &[(&first, true)], 1);
    commit(&ledger, &[], 1);
    let again = put(&ledger, "key", "2");
    commit(&ledger, &[(&again, true)], 1);
    assert_eq!((plain(&ledger, "key"), is_hashed(&ledger, "key")), (Some("2".to_owned()), true));
    examine(&ledger);
}

#[test]
fn without_an_end_values_stay() {
    let (_folder, ledger) = ledger();
    let (stays, overflows) = (put(&ledger, "stays", "1"), put(&ledger, "overflows", "1"));
    commit(&ledger, &[(&stays, true)], 0);
    commit(&ledger, &[(&overflows, true)], u64::MAX);
    for _ in 0..5 {
        commit(&ledger, &[], 0);
    }
    assert!(is_hashed(&ledger, "stays") && is_hashed(&ledger, "overflows"));
}

#[test]
fn what_did_not_come_is_missing_until_it_is_supplied() {
    let (_folder, ledger) = ledger();
    let (first, second) = (put(&ledger, "a", "1"), put(&ledger, "b", "2"));
    commit(&ledger, &[(&first, false), (&second, true)], 0);
    let newer = put(&ledger, "c", "3");
    commit(&ledger, &[(&newer, false)], 0);
    let missing = ledger.missing_private(10).unwrap();
    let places: Vec<_> = missing.iter().map(|missing| missing.place).collect();
    assert_eq!(places, [Height::new(2, 0), Height::new(1, 0)], "the newest first");
    assert_eq!((missing[0].namespace.as_str(), missing[0].collection.as_str()), (CHAINCODE, COLLECTION));
    assert_eq!(ledger.missing_private(1).unwrap().len(), 1);

    let set = |simulation: &Simulation| simulation.private.collection(CHAINCODE, COLLECTION).unwrap().clone();
    let wrong = ledger.supply_private(places[1], CHAINCODE, &set(&second)).unwrap_err();
    assert!(matches!(wrong, Error::PrivateDataMismatch { transaction: 0, .. }), "{wrong}");
    assert!(ledger.supply_private(places[1], CHAINCODE, &set(&first)).unwrap());
    assert!(!ledger.supply_private(places[1], CHAINCODE, &set(&first)).unwrap(), "it is there now");
    assert_eq!(plain(&ledger, "a"), Some("1".to_owned()));
    assert_eq!(held_keys(&ledger, 1), ["a", "b"]);
    assert_eq!(ledger.missing_private(10).unwrap().len(), 1);
    examine(&ledger);
}

#[test]
fn what_an_invalid_transaction_wrote_stays_beside_its_block() {
    let (_folder, ledger) = ledger();
    let [first, late] = rivals(&ledger, "a");
    commit(&ledger, &[(&first, true), (&late, true)], 2);
    assert_eq!(plain(&ledger, "a"), Some("1".to_owned()));
    assert_eq!(held_keys(&ledger, 1), ["a", "a"], "of the valid one and of the one that came too late");
    assert_eq!(ledger.missing_private(10).unwrap(), []);
    examine(&ledger);
    for _ in 0..3 {
        commit(&ledger, &[], 2);
    }
    assert!(held_keys(&ledger, 1).is_empty(), "they end with the collection's time");
    examine(&ledger);
}

#[test]
fn what_invalid_transactions_promised_is_missing_behind_the_valid_ones_also_after_a_restart() {
    let (folder, ledger) = ledger();
    let [first, late] = rivals(&ledger, "a");
    commit(&ledger, &[(&first, false), (&late, false)], 0);
    let [first_again, late_again] = rivals(&ledger, "b");
    commit(&ledger, &[(&first_again, true), (&late_again, false)], 0);
    drop(ledger);
    let ledger = Ledger::open(folder.path(), &ChannelId::parse(blocks::CHANNEL).unwrap()).unwrap();
    let missing = ledger.missing_private(10).unwrap();
    let found: Vec<_> = missing.iter().map(|missing| (missing.place, missing.invalid)).collect();
    assert_eq!(
        found,
        [(Height::new(1, 0), false), (Height::new(2, 1), true), (Height::new(1, 1), true)],
        "of each kind the newest first"
    );
    for (index, one) in missing.iter().enumerate() {
        assert_eq!(ledger.missing_private_after(one, 10).unwrap(), missing[index + 1..]);
    }
    assert_eq!(ledger.missing_private(2).unwrap(), missing[..2]);
    assert_eq!(ledger.missing_private_of_invalid(None, 1).unwrap(), missing[1..2]);
    assert_eq!(ledger.missing_private_of_invalid(Some(&missing[1]), 10).unwrap(), missing[2..]);
    examine(&ledger);
}

#[test]
fn what_an_invalid_transaction_wrote_comes_late_and_never_into_the_state() {
    let (folder, ledger) = ledger();
    let [first, late] = rivals(&ledger, "a");
    commit(&ledger, &[(&first, true), (&late, false)], 0);
    // The same value becomes current by a valid write: what the invalid one wrote has its hash, and is not it.
    let valid = put(&ledger, "a", "2");
    commit(&ledger, &[(&valid, false)], 0);
    let set = |simulation: &Simulation| simulation.private.collection(CHAINCODE, COLLECTION).unwrap().clone();
    let place = Height::new(1, 1);
    assert!(ledger.supply_private(place, CHAINCODE, &set(&first)).is_err(), "another value");
    assert!(ledger.supply_private(place, CHAINCODE, &set(&late)).unwrap());
    assert!(!ledger.supply_private(place, CHAINCODE, &set(&late)).unwrap(), "it is there now");
    let without_value = ledger.snapshot().private(CHAINCODE, COLLECTION, "a");
    assert!(!without_value.is_ok_and(|value| value.is_some_and(|value| value.value == "2")));
    assert_eq!(ledger.private_set(place, CHAINCODE, COLLECTION).unwrap(), Some(set(&late)));
    drop(ledger);
    let ledger = Ledger::open(folder.path(), &ChannelId::parse(blocks::CHANNEL).unwrap()).unwrap();
    assert_eq!(held_keys(&ledger, 1), ["a", "a"]);
    assert!(ledger.missing_private(10).unwrap().iter().all(|missing| !missing.invalid));
    examine(&ledger);
    assert!(ledger.supply_private(Height::new(2, 0), CHAINCODE, &set(&valid)).unwrap());
    assert_eq!(plain(&ledger, "a"), Some("2".to_owned()), "the valid one brings it");
}

#[test]
fn what_invalid_transactions_promised_is_forgotten_in_time_and_purged_with_its_key() {
    let (_folder, ledger) = ledger();
    let [first, late] = rivals(&ledger, "a");
    commit(&ledger, &[(&first, true), (&late, false)], 2);
    let [again, late_again] = rivals(&ledger, "a");
    commit(&ledger, &[(&again, true), (&late_again, true)], 2);
    let purge = purge(&ledger, "a");
    commit(&ledger, &[(&purge, true)], 2);
    assert!(held_keys(&ledger, 2).is_empty(), "of both");
    assert_eq!(ledger.missing_private(10).unwrap().len(), 1);
    commit(&ledger, &[], 2);
    assert_eq!(ledger.missing_private(10).unwrap(), [], "block 1 and two blocks to live: over with block 4");
    let set = late.private.collection(CHAINCODE, COLLECTION).unwrap();
    assert!(!ledger.supply_private(Height::new(1, 1), CHAINCODE, set).unwrap(), "nor is it taken any more");
    assert!(held_keys(&ledger, 1).is_empty());
    examine(&ledger);
}

#[test]
fn what_nobody_can_have_is_not_missed() {
    let (_folder, ledger) = ledger();
    let [first, _] = rivals(&ledger, "a");
    let undefined = simulate(&ledger, |simulator| {
        simulator.put_private(CHAINCODE, "undefined", "a", "1".into()).unwrap();
    });
    commit(&ledger, &[(&first, true)], 0);
    let envelopes = [("1/0", &first), ("1", &undefined)].map(|(id, one)| blocks::envelope(id, &one.rwset));
    let block = blocks::next_block(&ledger, envelopes.to_vec());
    let codes = vec![TxValidationCode::DuplicateTxid, TxValidationCode::InvalidEndorserTransaction];
    let terms = CollectionTerms { member: true, blocks_to_live: 0 };
    let terms = BTreeMap::from([((CHAINCODE.to_owned(), COLLECTION.to_owned()), terms)]);
    ledger.commit(blocks::judged(block, codes).with_terms(terms)).unwrap();
    assert_eq!(
        ledger.missing_private(10).unwrap(),
        [],
        "a repeated id, and a collection that is not defined"
    );
    assert_eq!(ledger.reconsider_missing(|_, _| true).unwrap(), 0);
}

#[test]
fn what_invalid_transactions_promised_to_others_is_searched_for_once_the_organisation_is_a_member() {
    let (_folder, ledger) = ledger();
    let [first, late] = rivals(&ledger, "a");
    let envelopes = [("1", &first), ("2", &late)].map(|(id, one)| blocks::envelope(id, &one.rwset));
    let block = blocks::next_block(&ledger, envelopes.to_vec());
    let terms = CollectionTerms { member: false, blocks_to_live: 0 };
    let terms = BTreeMap::from([((CHAINCODE.to_owned(), COLLECTION.to_owned()), terms)]);
    ledger.commit(blocks::accepted(block).with_terms(terms)).unwrap();
    assert_eq!(ledger.missing_private(10).unwrap(), []);
    assert_eq!(ledger.reconsider_missing(|_, _| true).unwrap(), 2);
    let invalid: Vec<bool> =
        ledger.missing_private(10).unwrap().iter().map(|missing| missing.invalid).collect();
    assert_eq!(invalid, [false, true]);
}

#[test]
fn books_that_lack_the_newest_value_of_a_key_are_right_all_the_same() {
    let (_folder, ledger) = ledger();
    let old = put(&ledger, "a", "old");
    commit(&ledger, &[(&old, true)], 0);
    let new = put(&ledger, "a", "new");
    commit(&ledger, &[(&new, false)], 0);
    examine(&ledger);
    assert!(
        ledger
            .snapshot()
            .private(CHAINCODE, COLLECTION, "a")
            .unwrap()
            .is_none_or(|value| value.value != "new")
    );
    let set = new.private.collection(CHAINCODE, COLLECTION).unwrap();
    assert!(ledger.supply_private(Height::new(2, 0), CHAINCODE, set).unwrap());
    assert_eq!(plain(&ledger, "a"), Some("new".to_owned()));
    examine(&ledger);
}

#[test]
fn data_that_comes_late_does_not_replace_what_is_newer() {
    let (_folder, ledger) = ledger();
    let old = put(&ledger, "a", "old");
    commit(&ledger, &[(&old, false)], 0);
    let new = put(&ledger, "a", "new");
    commit(&ledger, &[(&new, true)], 0);
    let set = old.private.collection(CHAINCODE, COLLECTION).unwrap();
    assert!(ledger.supply_private(Height::new(1, 0), CHAINCODE, set).unwrap());
    assert_eq!(plain(&ledger, "a"), Some("new".to_owned()));
    examine(&ledger);
}

#[test]
fn a_purged_key_leaves_no_trace_in_older_sets_nor_in_those_that_come_later() {
    let (_folder, ledger) = ledger();
    let both = simulate(&ledger, |simulator| {
        for key in ["kept", "purged"] {
            simulator.put_private(CHAINCODE, COLLECTION, key, "v".into()).unwrap();
        }
    });
    commit(&ledger, &[(&both, true)], 0);
    commit(&ledger, &[(&both, false)], 0);
    let purge = purge(&ledger, "purged");
    // In one block: written, purged, written again.
    commit(&ledger, &[(&both, true), (&purge, true), (&both, true)], 0);
    let set = both.private.collection(CHAINCODE, COLLECTION).unwrap();
    assert!(ledger.supply_private(Height::new(2, 0), CHAINCODE, set).unwrap());
    assert_eq!(held_keys(&ledger, 1), ["kept"]);
    assert_eq!(held_keys(&ledger, 2), ["kept"]);
    assert_eq!(held_keys(&ledger, 3), ["kept", "purged", "kept", "purged"], "the purge itself names its key");
    assert_eq!(plain(&ledger, "purged"), Some("v".to_owned()), "the last write came after the purge");
    examine(&ledger);
}

#[test]
fn expired_data_is_no_longer_missing() {
    let (_folder, ledger) = ledger();
    let first = put(&ledger, "a", "1");
    commit(&ledger, &[(&first, false)], 1);
    assert_eq!(ledger.missing_private(10).unwrap().len(), 1);
    commit(&ledger, &[], 1);
    commit(&ledger, &[], 1);
    assert_eq!(ledger.missing_private(10).unwrap(), []);
    assert!(!is_hashed(&ledger, "a"));
    let scratch = MemoryState::new();
    assert_eq!(ledger.examine(&scratch, |_| {}).unwrap().faults, []);
    let hashed = consort_ledger::state::KeyRange::all(consort_ledger::state::Space::Hashed);
    assert_eq!(scratch.scan(&hashed).unwrap().count(), 0);
}

#[test]
fn a_set_without_keys_that_were_purged_is_taken_and_no_other_part_of_one() {
    let (_folder, ledger) = ledger();
    let both = simulate(&ledger, |simulator| {
        for key in ["kept", "purged"] {
            simulator.put_private(CHAINCODE, COLLECTION, key, "v".into()).unwrap();
        }
    });
    commit(&ledger, &[(&both, false)], 0);
    let rest = put(&ledger, "kept", "v");
    let rest = rest.private.collection(CHAINCODE, COLLECTION).unwrap();
    let early = ledger.supply_private(Height::new(1, 0), CHAINCODE, rest).unwrap_err();
    assert!(matches!(early, Error::PrivateDataMismatch { .. }), "nothing has been purged yet: {early}");
    let purge = purge(&ledger, "purged");
    commit(&ledger, &[(&purge, true)], 0);
    let other = put(&ledger, "kept", "another");
    let other = other.private.collection(CHAINCODE, COLLECTION).unwrap();
    assert!(ledger.supply_private(Height::new(1, 0), CHAINCODE, other).is_err(), "another value");
    assert!(ledger.supply_private(Height::new(1, 0), CHAINCODE, rest).unwrap());
    assert_eq!(plain(&ledger, "kept"), Some("v".to_owned()));
    assert_eq!(held_keys(&ledger, 1), ["kept"]);
    examine(&ledger);
}

#[test]
fn what_others_hold_is_searched_for_once_the_organisation_is_a_member() {
    let (_folder, ledger) = ledger();
    let first = put(&ledger, "a", "1");
    let block = blocks::next_block(&ledger, vec![blocks::envelope("1", &first.rwset)]);
    ledger.commit(blocks::accepted(block)).unwrap();
    assert_eq!(ledger.missing_private(10).unwrap(), []);
    assert_eq!(ledger.reconsider_missing(|_, collection| collection == "other").unwrap(), 0);
    assert_eq!(ledger.reconsider_missing(|_, collection| collection == COLLECTION).unwrap(), 1);
    let missing = ledger.missing_private(10).unwrap();
    assert_eq!(missing.len(), 1);
    assert_eq!(ledger.missing_private_after(&missing[0], 10).unwrap(), []);
    let set = first.private.collection(CHAINCODE, COLLECTION).unwrap();
    assert!(ledger.supply_private(missing[0].place, CHAINCODE, set).unwrap());
    assert_eq!(plain(&ledger, "a"), Some("1".to_owned()));
}
