//! The log on a real disk.

use prometheus_client::metrics::histogram::Histogram;

use super::{super::disk::Database, *};

fn open(folder: &tempfile::TempDir) -> DiskLog<Database> {
    let disk = Database::open(folder.path(), Histogram::new([1.0])).unwrap();
    DiskLog::open(disk, &Roster::genesis(3), Origin { incarnation: 7, id: 1, ..Origin::default() }).unwrap()
}

fn entry(index: u64, term: u64) -> Entry {
    Entry { index, term, data: vec![7; 10], ..Entry::default() }
}

fn indexes(log: &DiskLog<Database>) -> Vec<(u64, u64)> {
    let first = log.first_index().unwrap();
    let entries = log.entries(first, log.last() + 1, None, GetEntriesContext::empty(false)).unwrap();
    entries.iter().map(|entry| (entry.index, entry.term)).collect()
}

#[test]
fn entries_and_hard_state_are_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(&folder);
    let hard_state = HardState { term: 2, vote: 1, commit: 1 };
    log.write(&[entry(1, 1), entry(2, 2)], Some(&hard_state), false).unwrap();
    drop(log);
    let log = open(&folder);
    assert_eq!(indexes(&log), [(1, 1), (2, 2)]);
    assert_eq!(log.initial_state().unwrap().hard_state, hard_state);
}

#[test]
fn a_new_leaders_entries_replace_the_tail() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(&folder);
    log.write(&[entry(1, 1), entry(2, 1), entry(3, 1)], None, false).unwrap();
    log.write(&[entry(2, 2)], None, false).unwrap();
    drop(log);
    let log = open(&folder);
    assert_eq!(indexes(&log), [(1, 1), (2, 2)]);
}

#[test]
fn a_gap_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(&folder);
    assert!(matches!(log.write(&[entry(2, 1)], None, false), Err(LogError::Damaged(_))));
}

#[test]
fn compaction_keeps_the_term_before_the_first_entry_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(&folder);
    log.write(&[entry(1, 1), entry(2, 1), entry(3, 2)], None, false).unwrap();
    log.applied(3, 9);
    log.compact(2).unwrap();
    drop(log);
    let log = open(&folder);
    assert_eq!((log.first_index().unwrap(), log.term(2).unwrap(), log.beginning()), (3, 1, (2, 9)));
    assert_eq!(indexes(&log), [(3, 2)]);
    assert!(matches!(log.term(1), Err(raft::Error::Store(StorageError::Compacted))));
}

#[test]
fn a_snapshot_starts_the_log_anew() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(&folder);
    log.write(&[entry(1, 1)], None, false).unwrap();
    let mut snapshot = Snapshot {
        data: Position { block: 4, roster: Roster::genesis(2) }.encode_to_vec(),
        ..Snapshot::default()
    };
    snapshot.mut_metadata().index = 10;
    snapshot.mut_metadata().term = 3;
    log.applied(1, 1);
    log.install(&snapshot).unwrap();
    assert!(matches!(
        log.snapshot(0, 2),
        Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    ));
    drop(log);
    let log = open(&folder);
    assert_eq!((log.last(), log.beginning()), (10, (10, 4)));
    assert_eq!(log.initial_state().unwrap().hard_state.commit, 10);
}

#[test]
fn a_forgotten_log_begins_anew_as_another_one_and_still_knows_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(&folder);
    log.write(&[entry(1, 1)], Some(&HardState { term: 1, vote: 1, commit: 1 }), false).unwrap();
    let standing = consort_protos::consort::orderer::Standing { incarnation: 9, ..Default::default() };
    let hello = consort_protos::consort::orderer::Hello { standing: Some(standing), id: 2 };
    log.memory_mut().hear(2, &hello);
    log.keep_memory(true).unwrap();
    log.forget(Origin { incarnation: 8, floor: 5, ..Origin::default() }).unwrap();
    drop(log);
    let log = open(&folder);
    assert_eq!(log.promised(), (0, 0));
    assert_eq!(log.origin(), Origin { incarnation: 8, floor: 5, ..Origin::default() });
    assert_eq!(log.memory().speaker(2), Some(9));
}

#[test]
fn consenters_are_kept_with_the_entry_that_changed_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(&folder);
    let state = ConfState { voters: vec![1, 2], learners: vec![4], ..ConfState::default() };
    let mut roster = Roster::genesis(3);
    roster.apply(&crate::consensus::raft::roster::RosterChange::readmit(3, 70));
    log.set_consenters(12, &roster, Some(&state)).unwrap();
    drop(log);
    let log = open(&folder);
    assert_eq!(log.roster(), (&roster, 12));
    assert_eq!(log.initial_state().unwrap().conf_state, state);
}

#[test]
fn how_far_entries_are_agreed_on_needs_no_write_of_its_own_unless_members_change() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(&folder);
    let state = |commit| HardState { term: 1, vote: 1, commit };
    log.write(&[entry(1, 1), entry(2, 1)], Some(&state(0)), false).unwrap();
    log.write(&[], Some(&state(1)), false).unwrap();
    assert_eq!(log.initial_state().unwrap().hard_state.commit, 1);
    drop(log);
    let mut log = open(&folder);
    assert_eq!(log.initial_state().unwrap().hard_state, state(0));
    log.write(&[], Some(&state(2)), true).unwrap();
    drop(log);
    assert_eq!(open(&folder).initial_state().unwrap().hard_state, state(2));
}
