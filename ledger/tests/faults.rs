//! Disks that lie: a flipped bit, a missing file, a folder of another peer. The books must say so, and never answer wrongly.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod blocks;

use std::{
    fs,
    path::{Path, PathBuf},
};

use consort_ledger::{Error, Ledger, state::MemoryState};
use consort_protos::ids::{BlockNumber, ChannelId};

/// Blocks of a test's ledger: enough that they fill a blob file when the ledger is opened again.
const BLOCKS: u64 = 30;

fn channel() -> ChannelId {
    ChannelId::parse(blocks::CHANNEL).unwrap()
}

/// A ledger on the disk whose blocks stand in files.
fn fill(folder: &Path) {
    let ledger = Ledger::create(folder, &blocks::genesis()).unwrap();
    for _ in 1..BLOCKS {
        commit(&ledger, "x");
    }
    drop(ledger);
    // What was in the write-ahead log goes to tables and blob files now.
    drop(Ledger::open(folder, &channel()).unwrap());
}

fn commit(ledger: &Ledger, value: &str) {
    let number = ledger.height();
    let writes = vec![
        blocks::write("shared", &number.to_string()),
        blocks::write(&format!("key{number:04}"), &(value.to_owned() + &blocks::noise(number, 2_000))),
    ];
    let envelope = blocks::envelope(&number.to_string(), &blocks::results(vec![], writes));
    ledger.commit(blocks::accepted(blocks::next_block(ledger, vec![envelope]))).unwrap();
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

fn largest(files: &[PathBuf]) -> &PathBuf {
    files.iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

fn flip_bit_in_the_middle(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_flipped_bit_in_a_stored_block_is_an_error_and_the_other_blocks_stay_readable() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let blobs = files(folder.path(), "blob");
    flip_bit_in_the_middle(largest(&blobs));
    let ledger = Ledger::open(folder.path(), &channel()).unwrap();
    let read: Vec<bool> = (0..BLOCKS).map(|number| ledger.block(BlockNumber::new(number)).is_ok()).collect();
    assert_eq!(read.iter().filter(|readable| !**readable).count(), 1, "exactly the damaged block: {read:?}");
    let damaged = read.iter().position(|readable| !readable).unwrap() as u64;
    assert!(ledger.is_damaged() && ledger.poisoned().unwrap().contains("damaged"));
    let next = blocks::next_block(&ledger, vec![blocks::envelope("next", &blocks::results(vec![], vec![]))]);
    assert!(
        matches!(ledger.commit(blocks::accepted(next)), Err(Error::Poisoned { .. })),
        "nothing is built on it"
    );
    // The state does not depend on the block's file.
    let value = ledger.snapshot().get(blocks::CHAINCODE, "shared").unwrap().unwrap();
    assert_eq!(value.version.block.get(), BLOCKS - 1);
    let examination = ledger.examine(&MemoryState::new(), |_| {}).unwrap();
    assert_eq!(examination.faults.len(), 1);
    assert_eq!(examination.faults[0].block, Some(damaged));
}

#[test]
fn a_missing_file_is_found_when_the_ledger_is_opened() {
    for extension in ["blob", "sst"] {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path());
        fs::remove_file(largest(&files(folder.path(), extension))).unwrap();
        let error = match Ledger::open(folder.path(), &channel()) {
            Err(error) => error.to_string(),
            Ok(ledger) => {
                let read =
                    (0..BLOCKS).try_for_each(|number| ledger.block(BlockNumber::new(number)).map(drop));
                read.expect_err("the blocks are gone").to_string()
            }
        };
        assert!(error.contains("database"), "{extension}: {error}");
    }
}

#[test]
fn a_flipped_bit_in_a_table_never_gives_a_wrong_value() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    for table in files(folder.path(), "sst") {
        flip_bit_in_the_middle(&table);
    }
    // Whether it is found when the ledger is opened or when the page is read: no wrong answer, and no panic.
    let Ok(ledger) = Ledger::open(folder.path(), &channel()) else { return };
    for number in 1..BLOCKS {
        let key = format!("key{number:04}");
        if let Ok(value) = ledger.snapshot().get(blocks::CHAINCODE, &key) {
            assert_eq!(value.map(|value| value.version.block.get()), Some(number), "{key}");
        }
    }
}

#[test]
fn right_books_pass_their_examination() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let ledger = Ledger::open(folder.path(), &channel()).unwrap();
    let mut last = None;
    let examination = ledger.examine(&MemoryState::new(), |number| last = Some(number)).unwrap();
    assert_eq!((examination.blocks, examination.transactions, last), (BLOCKS, BLOCKS, Some(BLOCKS - 1)));
    assert_eq!(examination.faults, []);
    let statistics = ledger.statistics().unwrap();
    assert_eq!(statistics.height, BLOCKS);
    assert_eq!(statistics.transactions["VALID"], BLOCKS);
    assert_eq!(statistics.public_keys[blocks::CHAINCODE], BLOCKS);
    assert!(statistics.bytes["blocks"] > 0);
}

#[test]
fn the_first_difference_between_two_peers_is_found() {
    let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let [first, second, third] =
        [0, 1, 2].map(|index| Ledger::create(folders[index].path(), &blocks::genesis()).unwrap());
    for _ in 0..3 {
        commit(&first, "x");
        commit(&second, "x");
        commit(&third, "x");
    }
    assert_eq!(first.first_difference(&second).unwrap(), None);
    commit(&first, "x");
    assert_eq!(first.first_difference(&second).unwrap(), None, "one is ahead");
    commit(&second, "y");
    let difference = first.first_difference(&second).unwrap().unwrap();
    assert_eq!((difference.block, difference.transaction), (Some(4), Some(0)), "{difference}");

    // The same block, judged otherwise.
    let block = first.block(BlockNumber::new(4)).unwrap().unwrap();
    let codes = vec![consort_protos::fabric::protos::TxValidationCode::EndorsementPolicyFailure];
    let transactions = blocks::open(&block);
    third.commit(consort_ledger::ValidatedBlock::new(block, transactions, codes).unwrap()).unwrap();
    let difference = first.first_difference(&third).unwrap().unwrap();
    assert_eq!((difference.block, difference.transaction), (Some(4), Some(0)));
    assert!(difference.what.contains("ENDORSEMENT_POLICY_FAILURE"), "{difference}");
}
