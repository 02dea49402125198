//! `kill -9` of a process that commits through the whole pipeline, at random moments, again and again: in the end its books are
//! those of a peer that nobody touched, byte for byte.
//!
//! `CONSORT_TEST_KILLS` sets how often (20), `CONSORT_TEST_SEED` the dice.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use consort_channel_config::{AGGREGATED_ENDORSEMENTS, REGISTERED_IDENTITIES};
use consort_protos::fabric::common::Block;
use prost::Message;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rocksdb::{DB, IteratorMode, Options};

use super::feed;
use super::history_tests::History;
use crate::registry::Channels;
use crate::testing::{CHANNEL, JoinedPeer};

/// Kills in a run that does not say how many.
const KILLS: u32 = 20;
/// Kills after which a run says how far it has come.
const PROGRESS_KILLS: u64 = 100;
/// Blocks of the chain; when a killed process has committed all of them, it begins anew.
const BLOCKS: usize = 60;
/// Blocks that it commits at most before its end comes near.
const LIFE_BLOCKS_MAX: u64 = 4;
/// Longest life after these: about a block more.
const LIFE_MAX: Duration = Duration::from_millis(20);
/// Longest life where it counts from the start of the process, so that the opening of the books is cut, too.
const OPENING_MAX: Duration = Duration::from_millis(60);
/// Longest time in which a process has to say something.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tells a child process where its books are.
const FOLDER: &str = "CONSORT_TEST_BOOKS";
/// Tells a child process where the blocks are.
const FILE: &str = "CONSORT_TEST_BLOCKS";

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn write_blocks(path: &Path, blocks: &[Block]) {
    let mut file = File::create(path).expect("a file");
    for block in blocks {
        let bytes = block.encode_length_delimited_to_vec();
        file.write_all(&bytes).expect("written");
    }
}

fn read_blocks(path: &Path) -> Vec<Block> {
    let mut bytes = Vec::new();
    File::open(path).expect("a file").read_to_end(&mut bytes).expect("readable");
    let mut bytes = bytes::Bytes::from(bytes);
    let mut blocks = Vec::new();
    while !bytes.is_empty() {
        blocks.push(Block::decode_length_delimited(&mut bytes).expect("a block"));
    }
    blocks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a child process of the test below; does nothing by itself"]
async fn commits_blocks_until_killed() {
    let (Some(folder), Some(file)) = (std::env::var_os(FOLDER), std::env::var_os(FILE)) else { return };
    let mut blocks = read_blocks(file.as_ref());
    let channels = Channels::open(folder.as_ref()).expect("opens");
    assert!(channels.faults().is_empty(), "{:?}", channels.faults());
    let channel =
        channels.get(CHANNEL).unwrap_or_else(|| channels.join(&blocks[0]).expect("a channel to join"));
    let mut height = channel.watch_height();
    let opened = *height.borrow_and_update();
    println!("\nopened {opened}");
    let due = blocks.split_off(usize::try_from(opened).expect("small"));
    let tell = async {
        while height.changed().await.is_ok() {
            println!("committed {}", *height.borrow_and_update());
        }
    };
    tokio::select! {
        () = tell => {}
        () = feed(&channel, due) => println!("finished"),
    }
}

/// A process that commits, and what it says.
struct Victim {
    process: Child,
    lines: Receiver<String>,
    /// Height of the books when it opened them.
    opened: Option<u64>,
    /// Height that it said last.
    acknowledged: u64,
    finished: bool,
}

impl Victim {
    fn start(folder: &Path, file: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        let test = "committer::kill_tests::commits_blocks_until_killed";
        command.args(["--exact", test, "--ignored", "--nocapture"]).env(FOLDER, folder).env(FILE, file);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("a process");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        let (sender, lines) = sync_channel(BLOCKS);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { process, lines, opened: None, acknowledged: 0, finished: false }
    }

    fn note(&mut self, line: &str) {
        let height = |prefix: &str| line.strip_prefix(prefix)?.parse::<u64>().ok();
        if let Some(height) = height("opened ") {
            self.opened = Some(height);
            self.acknowledged = height;
        } else if let Some(height) = height("committed ") {
            self.acknowledged = height;
        } else if line == "finished" {
            self.finished = true;
        }
    }

    /// Lets it live until a time, or until it ends by itself.
    fn live_until(&mut self, end: Instant) {
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.note(&line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Lets it open its books and commit some blocks.
    fn live_for(&mut self, blocks: u64) {
        while !self.finished && self.opened.is_none_or(|opened| self.acknowledged < opened + blocks) {
            let line = self.lines.recv_timeout(PATIENCE).expect("it commits, and says so");
            self.note(&line);
        }
    }

    /// Kills it; what it said before counts.
    fn kill(mut self) -> Self {
        self.process.kill().expect("it can be killed");
        self.process.wait().expect("it ends");
        while let Ok(line) = self.lines.recv() {
            self.note(&line);
        }
        self
    }
}

/// One kind of record: its name and every record, in key order.
type Column = (String, Vec<(Box<[u8]>, Box<[u8]>)>);

/// Every record of a peer's books, by kind.
fn records(peer: &Path) -> Vec<Column> {
    let (path, options) = (peer.join("channels").join(CHANNEL), Options::default());
    let names = DB::list_cf(&options, &path).expect("a database");
    let database = DB::open_cf_for_read_only(&options, &path, &names, false).expect("readable");
    let column = |name: &String| {
        let column = database.cf_handle(name).expect("it was opened");
        let records = database.iterator_cf(column, IteratorMode::Start);
        (name.clone(), records.collect::<Result<_, _>>().expect("readable"))
    };
    names.iter().map(column).collect()
}

fn assert_same(peer: &Path, untouched: &[Column], what: &str) {
    let found = records(peer);
    assert_eq!(found.len(), untouched.len(), "{what}");
    for ((name, found), (_, expected)) in found.iter().zip(untouched) {
        let difference = found.iter().zip(expected).position(|(found, expected)| found != expected);
        assert_eq!((difference, found.len()), (None, expected.len()), "{name}: {what}");
    }
}

#[test]
fn a_peer_that_is_killed_again_and_again_ends_with_the_books_of_an_untouched_one() {
    let kills = number("CONSORT_TEST_KILLS").unwrap_or(u64::from(KILLS));
    let seed = number("CONSORT_TEST_SEED").unwrap_or(5);
    let mut history = History::new(seed, &[REGISTERED_IDENTITIES, AGGREGATED_ENDORSEMENTS]);
    while history.blocks.len() < BLOCKS {
        history.grow();
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("blocks");
    write_blocks(&file, &[&[history.network.genesis.clone()], &history.blocks[..]].concat());
    let untouched = JoinedPeer::new(&history.network.genesis);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(feed(&untouched.channel, history.blocks.clone()));
    let untouched = records(untouched.folder());
    let mut dice = StdRng::seed_from_u64(seed);
    eprintln!("{kills} kills with CONSORT_TEST_SEED={seed}");
    let begin = Instant::now();
    let (mut books, mut acknowledged, mut finished) = (tempfile::tempdir().expect("a folder"), 0, 0);
    for kill in 0..kills {
        if kill > 0 && kill.is_multiple_of(PROGRESS_KILLS) {
            eprintln!("{kill} kills, {finished} chains ended, {} s", begin.elapsed().as_secs());
        }
        let mut victim = Victim::start(books.path(), &file);
        if dice.random_range(0..4) == 0 {
            victim.live_until(Instant::now() + OPENING_MAX.mul_f64(dice.random()));
        } else {
            victim.live_for(dice.random_range(0..=LIFE_BLOCKS_MAX));
            victim.live_until(Instant::now() + LIFE_MAX.mul_f64(dice.random()));
        }
        let victim = victim.kill();
        if let Some(opened) = victim.opened {
            assert!(
                opened >= acknowledged,
                "{opened} of {acknowledged} blocks left, kill {kill}, seed {seed}"
            );
            acknowledged = victim.acknowledged;
        }
        if victim.finished {
            assert_same(books.path(), &untouched, &format!("kill {kill}, seed {seed}"));
            (books, acknowledged) = (tempfile::tempdir().expect("a folder"), 0);
            finished += 1;
        }
    }
    let mut last = Victim::start(books.path(), &file);
    last.live_until(Instant::now() + PATIENCE);
    let last = last.kill();
    assert!(last.finished && last.opened >= Some(acknowledged), "seed {seed}");
    assert_same(books.path(), &untouched, &format!("the end, seed {seed}"));
    println!("{kills} kills, {} chains of {} blocks", finished + 1, history.blocks.len());
}
