//! A channel whose disk is full stops, with cause and remedy; what it has can be read, other channels run on, and once there is
//! room it goes on where it was.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use consort_crypto::preimage;
use consort_ledger::Ledger;
use consort_node::operations::HealthCheck;
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
