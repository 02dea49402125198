//! How fast a new peer catches up: it replays a channel of real signed transactions through the peer's whole pipeline.
//!
//! Every transaction has one client signature and two endorsements, reads two keys and writes one of 100 bytes; a block has
//! 500. A child process replays, so that its memory and its processor time are the replay's alone: once with tables of known
//! signers, once with the library only. The processor time of the signature checks by themselves is measured in the same
//! process, with all cores busy as in the replay; everything is reported beside it. `CONSORT_BENCH_TRANSACTIONS` sets the
//! length (50000; 1000000 shows whether the rate decays).

#![allow(
    clippy::unwrap_used,
    dead_code,
    unused_imports,
    reason = "a benchmark stops where a test would, and shares its network with the tests"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use consort_bench::Figure;
use consort_crypto::preimage;
use consort_node::{Metrics, Tasks};
use consort_protos::fabric::common::Block;
use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::ids::{BlockNumber, Height, MspId};
use consort_protos::rwset::{NamespaceReadWriteSet, Read as KeyRead, TxReadWriteSet};
use consort_protos::transaction::Transaction;
use prost::Message;
use rayon::prelude::*;

use consort_peer::committer::pipeline::{Committer, pipeline};
use consort_peer::telemetry::PeerMetrics;

mod channel {
    pub(crate) use consort_peer::channel::ChannelHandle;
}
mod registry {
    pub(crate) use consort_peer::registry::Channels;
}
mod committer {
    pub(crate) use consort_peer::committer::block;

    use consort_protos::fabric::common::Block;
    use prost::Message;

    pub(crate) fn golden_block(number: u64) -> Block {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../protos/tests/golden/fabric-channel/blocks");
        let bytes = std::fs::read(format!("{folder}/{number:04}.pb")).unwrap();
        Block::decode(bytes.as_slice()).unwrap()
    }

    pub(crate) async fn feed(
        channel: &std::sync::Arc<crate::channel::ChannelHandle>,
        blocks: impl IntoIterator<Item = Block>,
    ) {
        let mut run = crate::Run::start(channel);
        for block in blocks {
            run.intake.accept(block).await.unwrap();
        }
        run.finish(channel).await;
    }
}
#[path = "../src/testing/mod.rs"]
mod testing;

use channel::ChannelHandle;
use registry::Channels;
use testing::{Network, TestChannel, write};

/// Transactions of a block; a busy channel's usual batch.
const BLOCK_TRANSACTIONS: usize = 500;
/// Transactions of the default run.
const TRANSACTIONS: usize = 50_000;
/// Blocks between two lines about how far a long run is.
const PROGRESS_BLOCKS: usize = 200;
/// Transactions whose signatures are checked by themselves.
const SIGNATURE_SAMPLE: usize = 20_000;
/// Clock ticks per second in `/proc/self/stat`: `USER_HZ`, which is 100 on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Who checks signatures in a replay.
#[derive(Clone, Copy, PartialEq)]
enum Verification {
    /// Tables of known signers, as a peer does by default.
    Tables,
    /// The library alone, as a peer does with `verification.signer_tables_bytes: 0`.
    Library,
}

impl Verification {
    fn name(self) -> &'static str {
        match self {
            Self::Tables => "tables",
            Self::Library => "library",
        }
    }

    fn named(name: &str) -> Self {
        if name == Self::Library.name() { Self::Library } else { Self::Tables }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(place) = arguments.iter().position(|argument| argument == "--replay") {
        let [verification, blocks, folder] = [1, 2, 3].map(|offset| &arguments[place + offset]);
        return replay(Verification::named(verification), Path::new(blocks), Path::new(folder));
    }
    // `cargo test --benches` runs this with --test: then it only has to build.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let wanted =
        std::env::var("CONSORT_BENCH_TRANSACTIONS").ok().map_or(TRANSACTIONS, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let blocks = folder.path().join("blocks");
    generate(wanted.div_ceil(BLOCK_TRANSACTIONS), &blocks);
    let [tables, library] =
        [Verification::Tables, Verification::Library].map(|verification| run(verification, &blocks));
    let everything = ("the same, relative to the signature checks", "at most 1.60");
    report("with tables of known signers", &tables, 15_000.0, everything);
    let rest = ("everything but the signature checks, relative to these", "at most 0.40");
    report("with library verification only", &library, 8_500.0, rest);
}

/// Replays in a process of its own and reads what that found.
fn run(verification: Verification, blocks: &Path) -> BTreeMap<String, f64> {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--replay", verification.name()])
        .args([blocks, folder.path()])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "the replay failed");
    let text = String::from_utf8(output.stdout).unwrap();
    let figures = text.lines().filter_map(|line| line.split_once(' '));
    figures.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

fn report(title: &str, found: &BTreeMap<String, f64>, rate_wanted: f64, (ratio, ratio_wanted): (&str, &str)) {
    let (each, checks) = (found["processor_us"], found["checks_us"]);
    let compared = if ratio_wanted == "at most 0.40" { (each - checks) / checks } else { each / checks };
    Figure::new(format!("replay {title}"), found["rate"], "tx/s").at_least(rate_wanted).record();
    let figure = Figure::new(format!("replay {title}, processor time per transaction"), each, "us");
    let most = if ratio_wanted == "at most 0.40" { 1.4 } else { 1.6 };
    figure.at_most(most * checks).limit("its three signature checks", checks).record();
    println!("\nreplay of {} transactions {title}", found["transactions"]);
    row("rate", found["rate"], "tx/s", &format!("at least {rate_wanted} on 2 idle cores"));
    row("processor time per transaction", each, "us", "");
    row("cores busy on average", found["busy"], "", "all of them");
    row("of it the three signature checks", checks, "us", "");
    row(ratio, compared, "", ratio_wanted);
    row("rate of the last tenth, relative to the first", found["decay"], "", "at least 0.90");
    Figure::new(format!("replay {title}, peak memory"), found["memory"], "MB").at_most(300.0).record();
    row("peak memory", found["memory"], "MB", "below 300");
    row("bytes on disk, relative to the envelopes", found["disk"], "", "at most 1.3");
    row("bytes of an envelope", found["envelope"], "", "");
}

/// Writes the genesis block, the block that defines the chaincode, and the blocks to be replayed.
fn generate(count: usize, path: &Path) {
    let started = Instant::now();
    let network = Network::new(&[]);
    let mut file = BufWriter::new(File::create(path).unwrap());
    let policy = testing::channel_policy("/Channel/Application/Endorsement");
    let definition = network.definition("basic", &policy, &testing::collections()).build();
    let mut last = network.block_after(&network.genesis, vec![definition]);
    store(&mut file, &network.genesis);
    store(&mut file, &last);
    for number in 0..count {
        let first = number * BLOCK_TRANSACTIONS;
        let range = first..first + BLOCK_TRANSACTIONS;
        let envelopes = range.into_par_iter().map(|index| transaction(&network, index)).collect();
        last = network.block_after(&last, envelopes);
        store(&mut file, &last);
        say("signed", first + BLOCK_TRANSACTIONS, started);
    }
    file.flush().unwrap();
    println!(
        "{} transactions signed in {:.1} s",
        count * BLOCK_TRANSACTIONS,
        started.elapsed().as_secs_f64()
    );
}

/// Says how far a long run is.
fn say(what: &str, transactions: usize, started: Instant) {
    if transactions.is_multiple_of(PROGRESS_BLOCKS * BLOCK_TRANSACTIONS) {
        eprintln!("{transactions} transactions {what} in {:.1} s", started.elapsed().as_secs_f64());
    }
}

fn transaction(network: &Network, index: usize) -> Bytes {
    let read = |key: String, version| KeyRead { key, version };
    let key = format!("key{index:012}");
    let definition = NamespaceReadWriteSet {
        namespace: "_lifecycle".to_owned(),
        reads: vec![read("namespaces/fields/basic/Sequence".to_owned(), Some(Height::new(1, 0)))],
        ..NamespaceReadWriteSet::default()
    };
    let basic = NamespaceReadWriteSet {
        namespace: "basic".to_owned(),
        reads: vec![read(key.clone(), None)],
        writes: vec![write(&key, format!("{index:0100}").as_bytes())],
        ..NamespaceReadWriteSet::default()
    };
    network
        .transaction("basic")
        .endorsed_by(&[&network.org1.peer, &network.org2.peer])
        .set(TxReadWriteSet { namespaces: vec![definition, basic] })
        .build()
}

fn store(file: &mut impl std::io::Write, block: &Block) {
    let bytes = block.encode_to_vec();
    file.write_all(&u32::try_from(bytes.len()).unwrap().to_be_bytes()).unwrap();
    file.write_all(&bytes).unwrap();
}

/// The blocks of a file, one at a time.
struct Blocks(BufReader<File>);

impl Blocks {
    fn open(path: &Path) -> Self {
        Self(BufReader::with_capacity(1 << 20, File::open(path).unwrap()))
    }
}

impl Iterator for Blocks {
    type Item = Block;

    fn next(&mut self) -> Option<Block> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).ok()?;
        let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut bytes).unwrap();
        Some(Block::decode(Bytes::from(bytes)).unwrap())
    }
}

/// A pipeline at work.
struct Run {
    intake: consort_peer::committer::pipeline::Intake,
    tasks: Tasks,
}

impl Run {
    fn start(channel: &Arc<ChannelHandle>) -> Self {
        let tasks = Tasks::new();
        let metrics = Arc::new(PeerMetrics::new(&Metrics::new()));
        let (intake, committer) = pipeline(channel, MspId::parse("Org1MSP").unwrap(), metrics);
        tasks.spawn("commit", false, committer.run(tasks.cancelled()));
        Self { intake, tasks }
    }

    async fn finish(self, channel: &ChannelHandle) {
        let due = self.intake.next_number();
        channel.watch_height().wait_for(|height| *height >= due).await.unwrap();
        drop(self.intake);
        self.tasks.shutdown(Duration::from_secs(10)).await.unwrap();
    }
}

fn replay(verification: Verification, path: &Path, folder: &Path) {
    if verification == Verification::Library {
        consort_crypto::limit_signer_tables(0);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let channels = Channels::open(folder).unwrap();
    let mut blocks = Blocks::open(path);
    let channel = channels.join(&blocks.next().unwrap()).unwrap();
    let mut envelope_bytes = 0;
    let mut marks: Vec<(usize, Instant)> = Vec::new();
    let mut transactions = 0;
    let (elapsed, processor) = runtime.block_on(async {
        let mut run = Run::start(&channel);
        run.intake.accept(blocks.next().unwrap()).await.unwrap();
        channel.watch_height().wait_for(|height| *height == 2).await.unwrap();
        let (started, before) = (Instant::now(), processor_seconds());
        for block in blocks {
            marks.push((transactions, Instant::now()));
            let entries = &block.data.as_ref().unwrap().data;
            transactions += entries.len();
            envelope_bytes += entries.iter().map(Bytes::len).sum::<usize>();
            run.intake.accept(block).await.unwrap();
            say("taken", transactions, started);
        }
        run.finish(&channel).await;
        marks.push((transactions, Instant::now()));
        (started.elapsed(), processor_seconds() - before)
    });
    let memory = peak_memory();
    let last = channel.ledger().block(BlockNumber::new(channel.ledger().height() - 1)).unwrap().unwrap();
    let flags = consort_protos::block::flags(&last).unwrap();
    assert!(flags.iter().all(|flag| i32::from(*flag) == TxValidationCode::Valid as i32), "{flags:?}");
    let checks = signature_cost(&channel, path);
    drop(channel);
    drop(channels);
    let (first, last) = tenths(&marks);
    let count = transactions as f64;
    for (name, value) in [
        ("transactions", count),
        ("rate", count / elapsed.as_secs_f64()),
        ("processor_us", processor / count * 1e6),
        ("busy", processor / elapsed.as_secs_f64()),
        ("checks_us", checks),
        ("decay", last / first),
        ("memory", memory),
        ("disk", disk_bytes(folder) as f64 / envelope_bytes as f64),
        ("envelope", envelope_bytes as f64 / count),
    ] {
        println!("{name} {value}");
    }
}

fn row(name: &str, value: f64, unit: &str, wanted: &str) {
    let wanted = if wanted.is_empty() { String::new() } else { format!("   (wanted: {wanted})") };
    println!("  {name:<54} {value:>10.2} {unit}{wanted}");
}

/// Transactions per second of the first and of the last tenth.
fn tenths(marks: &[(usize, Instant)]) -> (f64, f64) {
    let steps = marks.len() - 1;
    let tenth = (steps / 10).max(1);
    let rate = |from: usize, to: usize| {
        (marks[to].0 - marks[from].0) as f64 / (marks[to].1 - marks[from].1).as_secs_f64()
    };
    (rate(0, tenth), rate(steps - tenth, steps))
}

/// Processor time of the three signature checks of a transaction in microseconds, with all cores busy.
fn signature_cost(channel: &ChannelHandle, path: &Path) -> f64 {
    let bundle = channel.bundle();
    let msps = bundle.msps();
    let mut checks: Vec<(Arc<consort_msp::Identity>, Vec<u8>, Bytes)> = Vec::new();
    let mut transactions = 0;
    for envelope in Blocks::open(path).skip(2).flat_map(|block| block.data.unwrap().data) {
        if transactions == SIGNATURE_SAMPLE {
            break;
        }
        transactions += 1;
        let transaction = Transaction::open(envelope).unwrap();
        let creator = msps.deserialize(&transaction.creator).unwrap();
        let endorser = transaction.endorser().unwrap();
        for endorsement in &endorser.endorsements {
            let identity = msps.deserialize(&endorsement.endorser).unwrap();
            let message = preimage::endorsement(&endorser.proposal_response_payload, &endorsement.endorser);
            checks.push((identity, message, endorsement.signature.clone()));
        }
        checks.push((creator, transaction.payload.to_vec(), transaction.signature));
    }
    let before = processor_seconds();
    checks.par_iter().for_each(|(identity, message, signature)| identity.verify(message, signature).unwrap());
    (processor_seconds() - before) / f64::from(transactions as u32) * 1e6
}

/// Processor time of this process so far, in seconds.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The command's name is in parentheses and may hold spaces; user and system time are the 14th and 15th field.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

/// The most memory that this process ever had, in MB.
fn peak_memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

fn disk_bytes(folder: &Path) -> u64 {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() { disk_bytes(&entry.path()) } else { metadata.len() }
        })
        .sum()
}
