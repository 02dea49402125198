//! A process that is killed, or whose disk fails, in the middle of commits: at random, and at every request to the disk.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod blocks;

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use consort_ledger::{Error, Ledger};
use consort_protos::ids::{BlockNumber, ChannelId};

/// Tells a child process where its ledger is.
const FOLDER: &str = "CONSORT_TEST_LEDGER";

fn channel() -> ChannelId {
    ChannelId::parse(blocks::CHANNEL).unwrap()
}

/// Commits a block that counts one up and writes a key of its own.
fn commit_next(ledger: &Ledger) -> Result<(), Error> {
    let number = ledger.height();
    let version =
        ledger.snapshot().get(blocks::CHAINCODE, "counter")?.map(|value| (value.version.block.get(), 0));
    let results = blocks::results(
        vec![blocks::read("counter", version)],
        vec![
            blocks::write("counter", &number.to_string()),
            blocks::write(&format!("key{number:06}"), &blocks::noise(number, 3000)),
        ],
    );
    let block = blocks::next_block(ledger, vec![blocks::envelope(&number.to_string(), &results)]);
    let committed = ledger.commit(blocks::accepted(block))?;
    assert_eq!(committed.codes, [consort_protos::fabric::protos::TxValidationCode::Valid]);
    Ok(())
}

/// All parts of the books stand at the same block.
fn check(ledger: &Ledger) {
    let height = ledger.height();
    let last = height - 1;
    let snapshot = ledger.snapshot();
    assert!(ledger.block(BlockNumber::new(last)).unwrap().is_some());
    assert!(ledger.block(BlockNumber::new(height)).unwrap().is_none());
    assert!(!ledger.contains_tx(&blocks::tx_id(&height.to_string())).unwrap());
    if last == 0 {
        assert_eq!(snapshot.get(blocks::CHAINCODE, "counter").unwrap(), None);
        return;
    }
    assert!(ledger.contains_tx(&blocks::tx_id(&last.to_string())).unwrap());
    let counter = snapshot.get(blocks::CHAINCODE, "counter").unwrap().unwrap();
    assert_eq!((counter.value, counter.version.block.get()), (last.to_string().into(), last));
    assert_eq!(snapshot.range(blocks::CHAINCODE, "key", "kez").unwrap().count() as u64, last);
    let newest =
        ledger.history(blocks::CHAINCODE, "counter", BlockNumber::new(height)).next().unwrap().unwrap();
    assert_eq!(newest.value, last.to_string());
}

fn child(test: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).env(FOLDER, folder);
    command
}

/// The folder of a child process; `None` when this is no child.
fn folder_of_child() -> Option<std::path::PathBuf> {
    std::env::var_os(FOLDER).map(Into::into)
}

#[test]
#[ignore = "a child process of the test below; does nothing by itself"]
fn commits_until_killed() {
    let Some(folder) = folder_of_child() else { return };
    let ledger =
        Ledger::open(&folder, &channel()).or_else(|_| Ledger::create(&folder, &blocks::genesis())).unwrap();
    loop {
        commit_next(&ledger).unwrap();
        println!("\ncommitted {}", ledger.height());
    }
}

#[test]
fn a_killed_process_leaves_the_books_before_or_after_a_block() {
    let folder = tempfile::tempdir().unwrap();
    let rounds = std::env::var("CONSORT_TEST_KILLS").ok().map_or(6, |text| text.parse().unwrap());
    for round in 0..rounds {
        let mut process =
            child("commits_until_killed", folder.path()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut acknowledged = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("committed ")?.parse::<u64>().ok());
        // A different number of commits each time, so that the kill falls into different places.
        let last = acknowledged.by_ref().take(1 + (round * 7 % 23) as usize).last().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        let ledger = Ledger::open(folder.path(), &channel()).unwrap();
        assert!(
            ledger.height() >= last,
            "{} blocks are left of {last} that were acknowledged",
            ledger.height()
        );
        check(&ledger);
    }
    // The same blocks in a ledger that nobody killed.
    let untouched_folder = tempfile::tempdir().unwrap();
    let untouched = Ledger::create(untouched_folder.path(), &blocks::genesis()).unwrap();
    let killed = Ledger::open(folder.path(), &channel()).unwrap();
    while untouched.height() < killed.height() {
        commit_next(&untouched).unwrap();
    }
    assert_eq!(killed.first_difference(&untouched).unwrap(), None);
    let examination = killed.examine(&consort_ledger::state::MemoryState::new(), |_| {}).unwrap();
    assert_eq!(examination.faults, []);
}

#[test]
#[ignore = "a child process of the test below; does nothing by itself"]
fn commits_until_the_disk_is_full() {
    let Some(folder) = folder_of_child() else { return };
    let ledger = Ledger::create(&folder, &blocks::genesis()).unwrap();
    let failure = loop {
        if let Err(error) = commit_next(&ledger) {
            break error;
        }
    };
    assert!(matches!(failure, Error::Database { action: "writing", .. }), "{failure}");
    let height = ledger.height();
    assert!(ledger.poisoned().is_some());
    assert!(matches!(commit_next(&ledger), Err(Error::Poisoned { .. })));
    assert_eq!(ledger.height(), height);
    // What was committed can still be read.
    check(&ledger);
    println!("\nstopped at {height}");
}

#[test]
fn after_a_failed_write_nothing_more_is_written() {
    let folder = tempfile::tempdir().unwrap();
    // The shell ignores the signal for files that grow too large, so that the write fails as on a full disk.
    let mut limited = Command::new("sh");
    let exe = std::env::current_exe().unwrap();
    let script = "trap '' XFSZ; ulimit -f 300; exec \"$0\" --exact commits_until_the_disk_is_full --ignored --nocapture";
    let output = limited.args(["-c", script]).arg(exe).env(FOLDER, folder.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let stopped: u64 = text.lines().find_map(|line| line.strip_prefix("stopped at ")?.parse().ok()).unwrap();
    let ledger = Ledger::open(folder.path(), &channel()).unwrap();
    assert!(ledger.height() == stopped || ledger.height() == stopped + 1);
    check(&ledger);
    commit_next(&ledger).unwrap();
    check(&ledger);
}

/// What the library prints and counts from, see `disk/disk.c`.
const MARK: &str = "the disk is watched from here";
/// Tells a child process whether its ledger exists.
const PREPARED: &str = "CONSORT_TEST_PREPARED";
/// Blocks that a watched child commits.
const WATCHED_BLOCKS: u64 = 3;

#[test]
#[ignore = "a child process of the tests below; does nothing by itself"]
fn commits_on_a_watched_disk() {
    let Some(folder) = folder_of_child() else { return };
    let open = || Ledger::open(&folder, &channel());
    let opened = if std::env::var_os(PREPARED).is_some() {
        println!("\n{MARK}");
        open()
    } else {
        let ledger = Ledger::create(&folder, &blocks::genesis()).unwrap();
        println!("\n{MARK}");
        Ok(ledger)
    };
    let ledger = match opened {
        Ok(ledger) => ledger,
        Err(error) => return println!("\nstopped: {error}"),
    };
    for _ in 0..WATCHED_BLOCKS {
        if let Err(error) = commit_next(&ledger) {
            assert!(ledger.poisoned().is_some(), "{error}");
            assert!(matches!(commit_next(&ledger), Err(Error::Poisoned { .. })));
            check(&ledger);
            return println!("\nstopped: {error}");
        }
        println!("\ncommitted {}", ledger.height());
    }
    println!("\nfinished");
}

/// Builds the library that stands between a process and its disk.
fn watched_disk(folder: &Path) -> PathBuf {
    let library = folder.join("disk.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/disk/disk.c");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut command = Command::new(&compiler);
    command.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl");
    let built = command.output().expect("a C compiler, which building this workspace needs, too");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    library
}

/// How a watched child ended.
struct Watched {
    finished: bool,
    /// Height that it acknowledged last; 0 when it acknowledged nothing.
    acknowledged: u64,
    output: String,
}

fn watch(library: &Path, folder: &Path, request: u64, action: &str, prepared: bool) -> Watched {
    let mut command = child("commits_on_a_watched_disk", folder);
    command
        .env("LD_PRELOAD", library)
        .env("CONSORT_TEST_DISK_AT", request.to_string())
        .env("CONSORT_TEST_DISK_DO", action);
    if prepared {
        command.env(PREPARED, "yes");
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(MARK), "the child did not come far: {text}");
    let mut said = text.lines().filter_map(|line| line.strip_prefix("committed ")?.parse().ok());
    // A request while the books are closed ends the process after the last commit.
    let committed_all = text.lines().any(|line| line == "finished");
    let finished = committed_all && output.status.success();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        finished || action == "fail" || output.status.code().is_none(),
        "request {request}: {text}\n{errors}"
    );
    assert!(output.status.success() || action != "fail", "request {request}: {text}\n{errors}");
    Watched { finished, acknowledged: said.next_back().unwrap_or(0), output: text }
}

/// What is left opens, holds at least what was acknowledged, goes on, and is the same as books that nothing happened to.
fn assert_unharmed(folder: &Path, untouched: &Ledger, watched: &Watched, what: &str) {
    let ledger = Ledger::open(folder, &channel()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let (height, acknowledged) = (ledger.height(), watched.acknowledged);
    assert!(height >= acknowledged && height <= acknowledged.max(1) + WATCHED_BLOCKS, "{what}: {height}");
    check(&ledger);
    while ledger.height() < untouched.height() {
        commit_next(&ledger).unwrap();
    }
    check(&ledger);
    assert_eq!(ledger.first_difference(untouched).unwrap(), None, "{what}: {}", watched.output);
}

fn untouched(folder: &Path, blocks: u64) -> Ledger {
    let ledger = Ledger::create(folder, &blocks::genesis()).unwrap();
    while ledger.height() < blocks {
        commit_next(&ledger).unwrap();
    }
    ledger
}

#[test]
fn a_commit_that_ends_at_any_request_to_the_disk_leaves_the_books_before_or_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let library = watched_disk(folder.path());
    let untouched = untouched(&folder.path().join("untouched"), 1 + WATCHED_BLOCKS);
    for action in ["kill", "torn", "fail"] {
        let mut request = 1;
        loop {
            let books = tempfile::tempdir().unwrap();
            let watched = watch(&library, books.path(), request, action, false);
            assert_unharmed(books.path(), &untouched, &watched, &format!("{action} at request {request}"));
            if watched.finished && action != "fail" {
                break;
            }
            // A failing request need not be one that a commit waits for; a log is not kept waiting by its end.
            if watched.finished && request > 4 * WATCHED_BLOCKS {
                break;
            }
            request += 1;
        }
        assert!(
            request > 2 * WATCHED_BLOCKS,
            "{action}: each block is written and synced: {request} requests"
        );
    }
}

#[test]
fn an_opening_that_ends_at_any_request_to_the_disk_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let library = watched_disk(folder.path());
    let before = 5;
    let untouched = untouched(&folder.path().join("untouched"), before + WATCHED_BLOCKS);
    // What stands in the log only is written to tables when the books are opened.
    drop(self::untouched(&folder.path().join("prepared"), before));
    let step = std::env::var("CONSORT_TEST_DISK_STEP").ok().map_or(12, |text| text.parse().unwrap());
    let mut request = 1;
    loop {
        let books = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(folder.path().join("prepared")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), books.path().join(file.file_name())).unwrap();
        }
        let mut watched = watch(&library, books.path(), request, "kill", true);
        watched.acknowledged = watched.acknowledged.max(before);
        assert_unharmed(books.path(), &untouched, &watched, &format!("kill at request {request}"));
        if watched.finished {
            break;
        }
        request += step;
    }
    assert!(request > 2 * WATCHED_BLOCKS);
}

#[test]
fn an_interrupted_creation_leaves_nothing_that_opens() {
    let folder = tempfile::tempdir().unwrap();
    // What a process leaves that was killed between making the database and writing the genesis block: a database without records.
    drop(consort_ledger::BlockStore::open(folder.path()).unwrap());
    assert!(matches!(Ledger::open(folder.path(), &channel()), Err(Error::Absent { .. })));
    let ledger = Ledger::create(folder.path(), &blocks::genesis()).unwrap();
    check(&ledger);
    drop(ledger);
    assert!(matches!(Ledger::create(folder.path(), &blocks::genesis()), Err(Error::Exists { .. })));
    check(&Ledger::open(folder.path(), &channel()).unwrap());
}
