//! Replays a real Fabric channel and compares with what Fabric's peers stored.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod blocks;

use std::{fs, path::PathBuf};

use bytes::Bytes;
use consort_ledger::{
    Ledger, ValidatedBlock,
    state::{KeyRange, Space, StateReader as _, VersionedValue},
};
use consort_protos::{
    fabric::{
        common::{Block, Metadata},
        protos::TxValidationCode,
    },
    ids::{BlockNumber, ChannelId},
};
use prost::{Message as _, encoding::encode_varint};

const BLOCKS: u64 = 74;

/// One row of a snapshot file (Fabric `core/ledger/kvledger/txmgmt/privacyenabledstate`).
#[derive(Clone, PartialEq, prost::Message)]
struct SnapshotRecord {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    metadata: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    version: Bytes,
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../protos/tests/golden/fabric-channel").join(name)
}

fn block(number: u64) -> Block {
    let bytes = fs::read(golden(&format!("blocks/{number:04}.pb"))).unwrap();
    Block::decode(Bytes::from(bytes)).unwrap()
}

fn metadata(block: &Block, index: usize) -> Bytes {
    block.metadata.as_ref().unwrap().metadata[index].clone()
}

fn stored_codes(block: &Block) -> Vec<TxValidationCode> {
    metadata(block, 2).iter().map(|&code| TxValidationCode::try_from(i32::from(code)).unwrap()).collect()
}

/// The block as it comes from the orderer, with the codes that the checks before the version check would give.
fn before_version_check(block: &Block) -> ValidatedBlock {
    let codes = stored_codes(block)
        .into_iter()
        .map(|code| match code {
            TxValidationCode::MvccReadConflict | TxValidationCode::PhantomReadConflict => {
                TxValidationCode::Valid
            }
            other => other,
        })
        .collect();
    let transactions = blocks::open(block);
    let mut block = block.clone();
    let elements = &mut block.metadata.as_mut().unwrap().metadata;
    elements[2] = Bytes::new();
    elements[4] = Bytes::new();
    ValidatedBlock::new(block, transactions, codes).unwrap()
}

fn channel() -> ChannelId {
    consort_protos::transaction::Transaction::open(block(1).data.unwrap().data[0].clone())
        .unwrap()
        .channel
        .parse()
        .unwrap()
}

/// Replays the channel, opening the ledger anew after every `reopen` blocks.
fn replay(path: &std::path::Path, reopen: u64) -> Ledger {
    let mut ledger = Ledger::create(path, &block(0)).unwrap();
    assert_eq!(ledger.block(BlockNumber::new(0)).unwrap().unwrap(), block(0));
    for number in 1..BLOCKS {
        if number % reopen == 0 {
            drop(ledger);
            ledger = Ledger::open(path, &channel()).unwrap();
        }
        assert_eq!(ledger.height(), number);
        let expected = block(number);
        let committed = ledger.commit(before_version_check(&expected)).unwrap();
        assert_eq!(committed.codes, stored_codes(&expected), "codes of block {number}");
        let hash = Metadata::decode(metadata(&committed.block, 4)).unwrap().value;
        let expected_hash = Metadata::decode(metadata(&expected, 4)).unwrap().value;
        assert_eq!(hex::encode(hash), hex::encode(expected_hash), "commit hash of block {number}");
        assert_eq!(
            ledger.block(BlockNumber::new(number)).unwrap().unwrap(),
            expected,
            "block {number} as it is served"
        );
    }
    ledger
}

fn push_item(file: &mut Vec<u8>, item: &[u8]) {
    encode_varint(item.len() as u64, file);
    file.extend_from_slice(item);
}

fn push_number(bytes: &mut Vec<u8>, number: u64) {
    let digits: Vec<u8> = number.to_be_bytes().into_iter().skip_while(|&digit| digit == 0).collect();
    bytes.push(digits.len() as u8);
    bytes.extend_from_slice(&digits);
}

fn record(key: &[u8], value: &VersionedValue) -> Vec<u8> {
    let mut version = Vec::new();
    push_number(&mut version, value.version.block.get());
    push_number(&mut version, u64::from(value.version.tx.get()));
    SnapshotRecord {
        key: Bytes::copy_from_slice(key),
        value: value.value.clone(),
        metadata: value.metadata.clone(),
        version: version.into(),
    }
    .encode_to_vec()
}

/// A space of the state in the form of Fabric's snapshot files: records, and number of keys by namespace.
fn exported(ledger: &Ledger, space: Space) -> (Vec<u8>, Vec<u8>) {
    let (mut data, mut namespaces) = (vec![1], Vec::<(String, u64)>::new());
    let snapshot = ledger.snapshot();
    for entry in snapshot.scan(&KeyRange::all(space)).unwrap() {
        let (key, value) = entry.unwrap();
        push_item(&mut data, &record(key.key(), &value));
        let namespace = match key.collection() {
            Some(collection) => format!("{}$$h{collection}", key.namespace()),
            None => key.namespace(),
        };
        match namespaces.last_mut() {
            Some((last, count)) if *last == namespace => *count += 1,
            _ => namespaces.push((namespace, 1)),
        }
    }
    let mut counts = vec![1];
    encode_varint(namespaces.len() as u64, &mut counts);
    for (namespace, count) in namespaces {
        push_item(&mut counts, namespace.as_bytes());
        encode_varint(count, &mut counts);
    }
    (data, counts)
}

#[test]
fn a_replayed_channel_has_fabrics_codes_hashes_and_state() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = replay(folder.path(), u64::MAX);
    for (space, name) in [(Space::Public, "public_state"), (Space::Hashed, "private_state_hashes")] {
        let (data, counts) = exported(&ledger, space);
        assert_eq!(
            counts,
            fs::read(golden(&format!("snapshot/{name}.metadata"))).unwrap(),
            "{name}.metadata"
        );
        assert!(data == fs::read(golden(&format!("snapshot/{name}.data"))).unwrap(), "{name}.data differs");
    }
}

#[test]
fn opening_again_between_blocks_changes_nothing() {
    let once = tempfile::tempdir().unwrap();
    let often = tempfile::tempdir().unwrap();
    let (once, often) = (replay(once.path(), u64::MAX), replay(often.path(), 5));
    assert_eq!(exported(&once, Space::Public), exported(&often, Space::Public));
    assert_eq!(exported(&once, Space::Hashed), exported(&often, Space::Hashed));
    assert_eq!(once.info(), often.info());
}

#[test]
fn every_transaction_is_found_by_its_id_at_its_first_place() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = replay(folder.path(), u64::MAX);
    let ids = fs::read(golden("snapshot/txids.data")).unwrap();
    let mut rest = &ids[1..];
    let mut count = 0;
    while let Some((&length, after)) = rest.split_first() {
        let (id, after) = after.split_at(usize::from(length));
        rest = after;
        let id = std::str::from_utf8(id).unwrap();
        assert!(ledger.contains_tx(id).unwrap(), "{id}");
        let (envelope, code) = ledger.transaction_envelope(id).unwrap().unwrap();
        let (place, same_code) = ledger.transaction(id).unwrap().unwrap();
        assert_eq!(code, same_code);
        assert_eq!(block(place.block.get()).data.unwrap().data[place.tx.get() as usize], envelope);
        count += 1;
    }
    assert_eq!(count, 97);
    // The envelope of block 60 comes again in block 61: the first place counts.
    let twice =
        consort_protos::transaction::Transaction::open(block(61).data.unwrap().data[0].clone()).unwrap();
    let (place, code) = ledger.transaction(&twice.tx_id).unwrap().unwrap();
    assert_eq!((place.block.get(), code), (60, TxValidationCode::Valid));
    assert!(!ledger.contains_tx("unknown").unwrap());
}

#[test]
fn history_names_every_valid_public_write_newest_first() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = replay(folder.path(), u64::MAX);
    let height = BlockNumber::new(ledger.height());
    let places = |namespace: &str, key: &str, height: BlockNumber| -> Vec<(u64, bool)> {
        let history = ledger.history(namespace, key, height).map(Result::unwrap);
        history
            .map(|change| {
                assert!(change.timestamp.is_some());
                (ledger.transaction(&change.tx_id).unwrap().unwrap().0.block.get(), change.is_delete)
            })
            .collect()
    };
    assert_eq!(places("gold", "aa", height), [(40, false), (32, false), (30, false)]);
    assert_eq!(places("gold", "ab", height), [(34, false), (33, true), (31, false)]);
    assert_eq!(places("gold", "ab", BlockNumber::new(34)), [(33, true), (31, false)]);
    assert_eq!(places("gold", "never", height), []);
}

#[test]
fn a_replayed_channel_passes_its_examination() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = replay(folder.path(), u64::MAX);
    let examination = ledger.examine(&consort_ledger::state::MemoryState::new(), |_| {}).unwrap();
    assert_eq!(examination.faults, []);
    assert_eq!((examination.blocks, examination.transactions), (74, 99));
}

#[test]
fn the_last_configuration_block_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = replay(folder.path(), u64::MAX);
    assert_eq!(ledger.last_config_block().unwrap(), block(65));
    assert_eq!(ledger.block_by_hash(&block(31).header.unwrap().previous_hash).unwrap().unwrap(), block(30));
    assert_eq!(ledger.info().height, BLOCKS);
    assert_eq!(ledger.info().previous_block_hash, block(73).header.unwrap().previous_hash);
}
