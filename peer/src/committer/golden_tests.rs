//! The outside judge: a real Fabric channel is replayed from its genesis block, and every code and every commit hash must
//! be what Fabric's peer wrote down.

use std::path::PathBuf;
use std::sync::Arc;

use consort_crypto::hash::HashAlgorithm;
use consort_node::operations::HealthCheck;
use consort_node::{Metrics, Tasks};
use consort_protos::block;
use consort_protos::fabric::common;
use consort_protos::ids::{BlockNumber, MspId};
use prost::Message;

use super::block::{BlockFault, Position, header_hash, verify};
use super::pipeline::{IntakeError, pipeline};
use crate::channel::ChannelHandle;
use crate::registry::Channels;
use crate::telemetry::PeerMetrics;

/// Blocks of the golden channel.
const BLOCKS: u64 = 74;

/// A block of the golden channel, as its peer stored it.
pub(crate) fn golden(number: u64) -> common::Block {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join(format!("../protos/tests/golden/fabric-channel/blocks/{number:04}.pb"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    common::Block::decode(bytes.as_slice()).expect("a block")
}

/// A block as an orderer delivers it: without what the peer adds.
fn delivered(number: u64) -> common::Block {
    let mut delivered = golden(number);
    for index in [common::BlockMetadataIndex::TransactionsFilter, common::BlockMetadataIndex::CommitHash] {
        block::set_metadata(&mut delivered, index, bytes::Bytes::new());
    }
    delivered
}

/// Feeds blocks through the pipeline of a channel and waits until the last of them is committed.
pub(crate) async fn feed(channel: &Arc<ChannelHandle>, blocks: impl IntoIterator<Item = common::Block>) {
    let tasks = Tasks::new();
    let metrics = Arc::new(PeerMetrics::new(&Metrics::new()));
    let own = MspId::parse("Org1MSP").expect("an MSP id");
    let (mut intake, committer) = pipeline(channel, own, metrics);
    tasks.spawn("commit", false, committer.run(tasks.cancelled()));
    for block in blocks {
        let number = intake.next_number();
        intake.accept(block).await.unwrap_or_else(|error| panic!("block {number}: {error:?}"));
    }
    let mut height = channel.watch_height();
    let mut fault = channel.watch_fault();
    tokio::select! {
        reached = height.wait_for(|height| *height == intake.next_number()) => drop(reached.expect("a height")),
        stopped = fault.wait_for(Option::is_some) => panic!("{:?}", *stopped.expect("a fault")),
    }
    drop(intake);
    tasks.shutdown(std::time::Duration::from_secs(10)).await.expect("the committer ends");
}

/// Commits one block that the channel cannot judge, and waits until it has stopped.
pub(crate) async fn feed_until_it_stops(channel: &Arc<ChannelHandle>, block: common::Block) {
    let tasks = Tasks::new();
    let metrics = Arc::new(PeerMetrics::new(&Metrics::new()));
    let own = MspId::parse("Org1MSP").expect("an MSP id");
    let (mut intake, committer) = pipeline(channel, own, metrics);
    tasks.spawn("commit", false, committer.run(tasks.cancelled()));
    intake.accept(block).await.expect("the orderers' signatures are good");
    let mut fault = channel.watch_fault();
    drop(fault.wait_for(Option::is_some).await.expect("a fault"));
    drop(intake);
    tasks.shutdown(std::time::Duration::from_secs(10)).await.expect("the committer ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_code_and_commit_hash_of_a_real_channel_is_reproduced() {
    let folder = tempfile::tempdir().expect("a folder");
    let channels = Channels::open(folder.path()).expect("no channels yet");
    let channel = channels.join(&golden(0)).expect("joined");
    feed(&channel, (1..BLOCKS).map(delivered)).await;
    for number in 0..BLOCKS {
        let theirs = golden(number);
        let ours = channel.ledger().block(BlockNumber::new(number)).expect("readable").expect("stored");
        assert_eq!(ours.header, theirs.header, "header of block {number}");
        assert_eq!(ours.data, theirs.data, "data of block {number}");
        assert_eq!(block::flags(&ours), block::flags(&theirs), "codes of block {number}");
        assert_eq!(
            block::commit_hash(&ours).expect("parses"),
            block::commit_hash(&theirs).expect("parses"),
            "commit hash of block {number}"
        );
    }
    assert_eq!(channel.bundle().sequence(), 2, "two configuration updates took effect");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_channel_configuration_and_position() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let channels = Channels::open(folder.path()).expect("no channels yet");
        let channel = channels.join(&golden(0)).expect("joined");
        feed(&channel, (1..65).map(delivered)).await;
        assert!(channels.join(&golden(0)).is_err(), "a channel is joined once");
    }
    let channels = Channels::open(folder.path()).expect("the channel is found again");
    let channel = channels.get("mychannel").or_else(|| channels.list().pop()).expect("open");
    assert_eq!(channel.ledger().height(), 65);
    assert_eq!(channel.bundle().sequence(), 1);
    feed(&channel, (65..BLOCKS).map(delivered)).await;
    let last = channel.ledger().block(BlockNumber::new(BLOCKS - 1)).expect("readable").expect("stored");
    assert_eq!(block::commit_hash(&last), block::commit_hash(&golden(BLOCKS - 1)));
}

/// Copies a folder and what is in it.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a kind").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_backup_catches_up_and_equals_the_original() {
    let (folder, backup) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    {
        let channels = Channels::open(folder.path()).expect("no channels yet");
        let channel = channels.join(&golden(0)).expect("joined");
        feed(&channel, (1..40).map(delivered)).await;
    }
    copy(folder.path(), backup.path());
    let original = Channels::open(folder.path()).expect("opened").list().remove(0);
    feed(&original, (40..BLOCKS).map(delivered)).await;
    let restored = Channels::open(backup.path()).expect("opened").list().remove(0);
    assert_eq!(restored.ledger().height(), 40);
    feed(&restored, (40..BLOCKS).map(delivered)).await;
    assert_eq!(original.ledger().first_difference(restored.ledger()).expect("readable"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_block_stops_its_channel_with_cause_and_remedy_and_the_rest_stays_readable() {
    let folder = tempfile::tempdir().expect("a folder");
    {
        let channels = Channels::open(folder.path()).expect("no channels yet");
        let channel = channels.join(&golden(0)).expect("joined");
        feed(&channel, (1..60).map(delivered)).await;
    }
    // What was in the write-ahead log goes to files.
    drop(Channels::open(folder.path()).expect("opened"));
    let channel = std::fs::read_dir(folder.path().join("channels")).expect("readable").last();
    let files = std::fs::read_dir(channel.expect("one").expect("readable").path()).expect("readable");
    let blob = files
        .map(|file| file.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "blob"))
        .max_by_key(|path| std::fs::metadata(path).expect("a file").len())
        .expect("blocks in a file");
    let mut bytes = std::fs::read(&blob).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&blob, bytes).expect("written");

    let channels = Channels::open(folder.path()).expect("opened");
    let channel = channels.list().remove(0);
    let health = crate::health::ChannelsHealth(Arc::clone(&channels));
    health.check().await.expect("nothing was noticed yet");
    let read = |number| channel.ledger().block(BlockNumber::new(number)).is_ok();
    let unreadable: Vec<u64> = (0..60).filter(|number| !read(*number)).collect();
    assert_eq!(unreadable.len(), 1, "{unreadable:?}");
    let alarm = health.check().await.expect_err("the channel has stopped");
    assert!(alarm.contains("damaged") && alarm.contains("restore"), "{alarm}");
    let snapshot = channel.ledger().snapshot();
    assert!(snapshot.get("", "CHANNEL_CONFIG_ENV_BYTES").expect("readable").is_some());
    feed_until_it_stops(&channel, delivered(60)).await;
    assert_eq!(channel.ledger().height(), 60, "nothing is built on damaged books");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_block_is_refused_and_the_right_one_still_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let channels = Channels::open(folder.path()).expect("no channels yet");
    let channel = channels.join(&golden(0)).expect("joined");
    let tasks = Tasks::new();
    let metrics = Arc::new(PeerMetrics::new(&Metrics::new()));
    let (mut intake, committer) = pipeline(&channel, MspId::parse("Org1MSP").expect("an MSP id"), metrics);
    tasks.spawn("commit", false, committer.run(tasks.cancelled()));
    let refused = intake.accept(delivered(2)).await.expect_err("block 1 is due");
    assert!(matches!(refused, IntakeError::Refused(BlockFault::Number { expected: 1, actual: 2 })));
    intake.accept(delivered(1)).await.expect("the block that is due");
    channel.watch_height().wait_for(|height| *height == 2).await.expect("committed");
}

/// Breaks one thing of block 1 and tells the fault.
fn fault(break_it: impl FnOnce(&mut common::Block)) -> String {
    let bundle = consort_channel_config::ChannelBundle::from_block(&golden(0)).expect("a configuration");
    let position = Position { next: 1, last_hash: header_hash(&golden(0), HashAlgorithm::Sha256) };
    let mut block = delivered(1);
    verify(&bundle, &position, &block).expect("the real block is right");
    break_it(&mut block);
    let fault = verify(&bundle, &position, &block).expect_err("the broken block is wrong");
    consort_node::dial::with_causes(&fault)
}

fn header(block: &mut common::Block) -> &mut common::BlockHeader {
    block.header.as_mut().expect("a header")
}

fn data(block: &mut common::Block) -> &mut Vec<bytes::Bytes> {
    &mut block.data.as_mut().expect("data").data
}

#[test]
fn every_rule_for_delivered_blocks_is_checked() {
    let number = fault(|block| header(block).number = 7);
    assert_eq!(number, "expected block number is [1] but actual block number inside block is [7]");
    let link = fault(|block| header(block).previous_hash = vec![1].into());
    assert!(link.starts_with("Header.PreviousHash of block [1] is different"), "{link}");
    let metadata = fault(|block| block.metadata.as_mut().expect("metadata").metadata.truncate(4));
    assert!(metadata.contains("contains too few entries"), "{metadata}");
    let empty = fault(|block| data(block).clear());
    assert!(empty.ends_with("empty block"), "{empty}");
    let trailing = fault(|block| {
        let mut entry = data(block)[0].to_vec();
        entry.extend_from_slice(&[0x18, 0x01]);
        data(block)[0] = entry.into();
    });
    assert!(trailing.contains("does not match its raw form"), "{trailing}");
    let content = fault(|block| {
        let entry = delivered(2).data.expect("data").data[0].clone();
        data(block)[0] = entry;
    });
    assert!(content.starts_with("Header.DataHash is different"), "{content}");
    let unsigned = fault(|block| {
        block::set_metadata(block, common::BlockMetadataIndex::Signatures, bytes::Bytes::new());
    });
    assert!(unsigned.contains("0 sub-policies were satisfied"), "{unsigned}");
    let other = fault(|block| {
        let foreign = golden(2).metadata.expect("metadata").metadata[0].clone();
        block::set_metadata(block, common::BlockMetadataIndex::Signatures, foreign);
    });
    assert!(other.contains("0 sub-policies were satisfied"), "{other}");
}
