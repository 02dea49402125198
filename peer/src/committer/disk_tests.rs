//! A channel whose disk is full or fails, or of whose files one is gone or changed, stops with cause and remedy; what it has can be read, other
//! channels run on, and once there is room it goes on where it was.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use consort_crypto::preimage;
use consort_ledger::Ledger;
use consort_node::operations::HealthCheck;
use consort_node::telemetry::LogConfig;
use consort_protos::fabric::common::{Block, ChannelHeader, Envelope, Payload};
use consort_protos::ids::BlockNumber;
use prost::Message;

use super::{feed, feed_until_it_stops};
use crate::channel::ChannelHandle;
use crate::registry::Channels;
use crate::testing::{CHANNEL, Network, channel_policy, collections, write, writes};

/// Bytes of the disk at first: the log and a few blocks fit on it.
const SMALL_MEGABYTES: u32 = 24;
/// Bytes of the disk after it was enlarged.
const LARGER_MEGABYTES: u32 = 192;
/// Blocks that do not fit.
const BLOCKS_MAX: usize = 200;
/// Bytes of a written value; blocks of one transaction.
const VALUE_BYTES: usize = 512 * 1024;

/// A disk in memory that ends with the test.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    /// Puts it over a folder; the reason when this machine forbids that.
    fn over(folder: &'a Path) -> Result<Self, String> {
        mount(folder, &format!("size={SMALL_MEGABYTES}m")).map(|()| Self(folder))
    }

    fn enlarge(&self) {
        mount(self.0, &format!("remount,size={LARGER_MEGABYTES}m"))
            .expect("what was mounted can be enlarged");
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _detached = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

fn mount(folder: &Path, options: &str) -> Result<(), String> {
    let mut command = Command::new("mount");
    let output = command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// The same network's channel under another name.
fn renamed(genesis: &Block, name: &str) -> Block {
    let mut genesis = genesis.clone();
    let data = genesis.data.as_mut().expect("data");
    let mut envelope = Envelope::decode(data.data[0].clone()).expect("an envelope");
    let mut payload = Payload::decode(envelope.payload).expect("a payload");
    let header = payload.header.as_mut().expect("a header");
    let mut channel_header = ChannelHeader::decode(header.channel_header.clone()).expect("a channel header");
    channel_header.channel_id = name.to_owned();
    header.channel_header = channel_header.encode_to_vec().into();
    envelope.payload = payload.encode_to_vec().into();
    data.data[0] = envelope.encode_to_vec().into();
    let hash = Bytes::copy_from_slice(&preimage::block_data_hash(data));
    genesis.header.as_mut().expect("a header").data_hash = hash;
    genesis
}

/// Makes the blocks of one channel.
struct Chain<'a> {
    network: &'a Network,
    channel: &'a str,
    last: Block,
}

impl Chain<'_> {
    fn definition(&mut self) -> Block {
        let policy = channel_policy("/Channel/Application/Endorsement");
        let mut definition = self.network.definition("basic", &policy, &collections());
        definition.channel = self.channel.to_owned();
        self.next(definition.build())
    }

    fn write(&mut self, key: &str, bytes: usize) -> Block {
        // Random, so that it does not become small when it is compressed.
        let value: Vec<u8> = (0..bytes).map(|_| rand::random()).collect();
        let endorsers = [&self.network.org1.peer, &self.network.org2.peer];
        let mut builder = self.network.transaction("basic").endorsed_by(&endorsers);
        builder.channel = self.channel.to_owned();
        let envelope = builder.set(writes("basic", vec![write(key, &value)])).build();
        self.next(envelope)
    }

    fn next(&mut self, envelope: Bytes) -> Block {
        self.last = self.network.block_after(&self.last, vec![envelope]);
        self.last.clone()
    }
}

/// Everything up to the last block can be read, and its changes are there.
fn assert_readable(ledger: &Ledger) {
    for number in 0..ledger.height() {
        assert!(ledger.block(BlockNumber::new(number)).expect("readable").is_some());
    }
    let last = ledger.height() - 1;
    let value = ledger.snapshot().get("basic", &format!("key{last}")).expect("readable").expect("written");
    assert_eq!(value.version.block.get(), last);
}

/// Feeds blocks until one does not fit, which is the chain's last then.
async fn fill(channel: &Arc<ChannelHandle>, chain: &mut Chain<'_>) {
    for _ in 0..BLOCKS_MAX {
        let before = channel.ledger().height();
        let block = chain.write(&format!("key{before}"), VALUE_BYTES);
        let stop = feed_until_it_stops(channel, block);
        let mut height = channel.watch_height();
        tokio::select! {
            biased;
            () = stop => return,
            reached = height.wait_for(|height| *height > before) => drop(reached.expect("a height")),
        }
    }
    panic!("{BLOCKS_MAX} blocks of {VALUE_BYTES} bytes fit on {SMALL_MEGABYTES} MB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_its_channel_and_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let channels_folder = folder.path().join("channels");
    let small = channels_folder.join(CHANNEL);
    std::fs::create_dir_all(&small).expect("made");
    let disk = match SmallDisk::over(&small) {
        Ok(disk) => disk,
        Err(reason) => {
            eprintln!("skipped: this machine mounts no small disk (root is needed): {reason}");
            return;
        }
    };
    let network = Network::new(&[]);
    let other_genesis = renamed(&network.genesis, "other");
    let mut chain = Chain { network: &network, channel: CHANNEL, last: network.genesis.clone() };
    let mut other_chain = Chain { network: &network, channel: "other", last: other_genesis.clone() };
    let stopped_at = {
        let channels = Channels::open(folder.path()).expect("no channels yet");
        let channel = channels.join(&network.genesis).expect("joined");
        let other = channels.join(&other_genesis).expect("joined");
        feed(&channel, [chain.definition()]).await;
        feed(&other, [other_chain.definition()]).await;
        fill(&channel, &mut chain).await;
        let fault = channel.fault().expect("a fault");
        assert!(fault.reason.contains("No space left"), "{fault}");
        assert!(fault.remedy.contains("free space"), "{fault}");
        let health = crate::health::ChannelsHealth(Arc::clone(&channels));
        let alarm = health.check().await.expect_err("the channel has stopped");
        assert!(alarm.contains(CHANNEL) && alarm.contains("No space left"), "{alarm}");
        assert_readable(channel.ledger());
        feed(&other, [other_chain.write("key2", 10)]).await;
        assert_eq!(other.ledger().height(), 3, "the other channel runs on");
        channel.ledger().height()
    };
    disk.enlarge();
    let channels = Channels::open(folder.path()).expect("the folder opens");
    let channel = channels.get(CHANNEL).expect("opened");
    let height = channel.ledger().height();
    assert!(height == stopped_at || height == stopped_at + 1, "{height} blocks, stopped at {stopped_at}");
    assert_readable(channel.ledger());
    let due = (height == stopped_at).then(|| chain.last.clone());
    feed(&channel, due).await;
    let next = channel.ledger().height();
    feed(&channel, [chain.write(&format!("key{next}"), VALUE_BYTES)]).await;
    assert_readable(channel.ledger());
}

/// What the library between process and disk counts from, see `ledger/tests/disk/disk.c`.
const MARK: &str = "the disk is watched from here";
/// Tells a child process where its channels are.
const FOLDER: &str = "CONSORT_TEST_CHANNELS";
/// Blocks of which each is written and synced.
const WATCHED_BLOCKS: u64 = 2;

/// The library that lets one request to the disk fail.
fn failing_disk(folder: &Path) -> PathBuf {
    let library = folder.join("disk.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../ledger/tests/disk/disk.c");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut command = Command::new(&compiler);
    command.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl");
    let built = command.output().expect("a C compiler, which building this workspace needs, too");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    library
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a child process of the test below; does nothing by itself"]
async fn commits_until_the_disk_fails() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    consort_node::telemetry::init(&LogConfig::default()).expect("the only log");
    let network = Network::new(&[]);
    let other_genesis = renamed(&network.genesis, "other");
    let mut chain = Chain { network: &network, channel: CHANNEL, last: network.genesis.clone() };
    let mut other_chain = Chain { network: &network, channel: "other", last: other_genesis.clone() };
    let channels = Channels::open(folder.as_ref()).expect("no channels yet");
    let channel = channels.join(&network.genesis).expect("joined");
    let other = channels.join(&other_genesis).expect("joined");
    feed(&channel, [chain.definition(), chain.write("key2", 10)]).await;
    feed(&other, [other_chain.definition()]).await;
    println!("\n{MARK}");
    for number in 3..3 + WATCHED_BLOCKS {
        let stop = feed_until_it_stops(&channel, chain.write(&format!("key{number}"), 10));
        let mut height = channel.watch_height();
        tokio::select! {
            biased;
            () = stop => break,
            reached = height.wait_for(|height| *height > number) => drop(reached.expect("a height")),
        }
    }
    let fault = channel.fault().expect("one of the requests failed");
    assert!(!fault.remedy.is_empty(), "{fault}");
    let health = crate::health::ChannelsHealth(Arc::clone(&channels));
    let alarm = health.check().await.expect_err("the channel has stopped");
    assert!(alarm.contains(CHANNEL) && alarm.contains(&fault.remedy), "{alarm}");
    assert_readable(channel.ledger());
    feed(&other, [other_chain.write("key2", 10)]).await;
    assert_eq!(other.ledger().height(), 3, "the other channel runs on");
    println!("\nstopped: {fault}");
}

#[test]
fn a_failed_write_and_a_failed_sync_stop_their_channel_and_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let library = failing_disk(folder.path());
    let mut causes = String::new();
    for request in 1..=2 * WATCHED_BLOCKS {
        let data = tempfile::tempdir().expect("a folder");
        let mut child = Command::new(std::env::current_exe().expect("this program"));
        let test = "committer::disk_tests::commits_until_the_disk_fails";
        child.args(["--exact", test, "--ignored", "--nocapture"]).env(FOLDER, data.path());
        child.env("LD_PRELOAD", &library).env("CONSORT_TEST_DISK_AT", request.to_string());
        let output = child.env("CONSORT_TEST_DISK_DO", "fail").output().expect("a process");
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "request {request}: {text}\n{errors}");
        causes.extend(text.lines().filter_map(|line| line.strip_prefix("stopped: ")));
        let logged = errors.lines().find(|line| line.contains("channel stopped"));
        let logged = logged.unwrap_or_else(|| panic!("request {request} is not in the log: {errors}"));
        assert!(logged.contains(CHANNEL) && logged.contains("check the disk"), "cause and remedy: {logged}");
    }
    assert!(causes.contains("No space left") && causes.contains("Input/output error"), "{causes}");
}

/// Two channels whose blocks are stored in files, all of it closed.
async fn stored<'n>(folder: &Path, network: &'n Network) -> [Chain<'n>; 2] {
    let other_genesis = renamed(&network.genesis, "other");
    let mut chain = Chain { network, channel: CHANNEL, last: network.genesis.clone() };
    let mut other_chain = Chain { network, channel: "other", last: other_genesis.clone() };
    {
        let channels = Channels::open(folder).expect("no channels yet");
        let channel = channels.join(&network.genesis).expect("joined");
        let other = channels.join(&other_genesis).expect("joined");
        feed(&channel, [chain.definition(), chain.write("key2", VALUE_BYTES)]).await;
        feed(&other, [other_chain.definition()]).await;
    }
    // What was in the write-ahead log goes to files.
    drop(Channels::open(folder).expect("opened"));
    [chain, other_chain]
}

/// The largest of a channel's files of one kind.
fn largest_file(folder: &Path, extension: &str) -> PathBuf {
    let files = std::fs::read_dir(folder.join("channels").join(CHANNEL)).expect("readable");
    files
        .map(|file| file.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .max_by_key(|path| std::fs::metadata(path).expect("a file").len())
        .expect("such a file")
}

/// `/healthz` names the stopped channel, and the other one takes its next block.
async fn assert_alone(channels: &Arc<Channels>, other_chain: &mut Chain<'_>, what: &str) {
    let health = crate::health::ChannelsHealth(Arc::clone(channels));
    let alarm = health.check().await.expect_err("the channel has stopped");
    assert!(alarm.contains(CHANNEL) && alarm.contains("restore"), "{what}: {alarm}");
    let other = channels.get("other").expect("opened");
    feed(&other, [other_chain.write("key2", 10)]).await;
    assert_eq!(other.ledger().height(), 3, "{what}: the other channel runs on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_file_stops_its_channel_and_no_other() {
    let network = Network::new(&[]);
    for extension in ["sst", "blob"] {
        let folder = tempfile::tempdir().expect("a folder");
        let [mut chain, mut other_chain] = stored(folder.path(), &network).await;
        std::fs::remove_file(largest_file(folder.path(), extension)).expect("removed");
        let channels = Channels::open(folder.path()).expect("the folder opens");
        if let Some(channel) = channels.get(CHANNEL) {
            feed_until_it_stops(&channel, chain.write("key3", 10)).await;
        }
        assert_alone(&channels, &mut other_chain, extension).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_a_stored_block_stops_its_channel_and_no_other() {
    let network = Network::new(&[]);
    let folder = tempfile::tempdir().expect("a folder");
    let [mut chain, mut other_chain] = stored(folder.path(), &network).await;
    // The write of half a megabyte is nearly all of it.
    let file = largest_file(folder.path(), "blob");
    let mut bytes = std::fs::read(&file).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).expect("written");
    let channels = Channels::open(folder.path()).expect("the folder opens");
    let Some(channel) = channels.get(CHANNEL) else {
        // The newest block is read when its channel is opened.
        return assert_alone(&channels, &mut other_chain, "found when opened").await;
    };
    let ledger = channel.ledger();
    let damaged = (0..ledger.height()).filter(|number| ledger.block(BlockNumber::new(*number)).is_err());
    assert_eq!(damaged.count(), 1, "the others can be read");
    assert!(ledger.snapshot().get("basic", "key2").expect("readable").is_some(), "and so can the state");
    assert_alone(&channels, &mut other_chain, "found when read").await;
    feed_until_it_stops(&channel, chain.write("key3", 10)).await;
    assert_eq!(ledger.height(), 3, "nothing is built on it");
}
