//! A channel that hashes with SM3: links, data, private data and the commit hash follow its first block.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod blocks;

use bytes::Bytes;
use consort_crypto::hash::{HashAlgorithm, sm3};
use consort_ledger::{BlockStore, Error, Ledger, TxSimulator};
use consort_protos::{
    fabric::{
        common::{Block, BlockData, ConfigEnvelope, ConfigValue, Envelope, HashingAlgorithm, Payload},
        protos::TxValidationCode,
    },
    ids::{BlockNumber, ChannelId, TxNumber},
};
use prost::Message;

use blocks::CHAINCODE;

/// The usual first block, with SM3 in its configuration.
fn genesis() -> Block {
    let mut block = blocks::genesis();
    let data = block.data.as_mut().unwrap();
    let mut envelope = Envelope::decode(data.data[0].clone()).unwrap();
    let mut payload = Payload::decode(envelope.payload.clone()).unwrap();
    let mut config = ConfigEnvelope::decode(payload.data.clone()).unwrap();
    let hashing = HashingAlgorithm { name: "SM3".to_owned(), key_algorithms: Vec::new() };
    let value = ConfigValue { value: hashing.encode_to_vec().into(), ..ConfigValue::default() };
    let root = config.config.as_mut().unwrap().channel_group.as_mut().unwrap();
    root.values.insert("HashingAlgorithm".to_owned(), value);
    payload.data = config.encode_to_vec().into();
    envelope.payload = payload.encode_to_vec().into();
    data.data[0] = envelope.encode_to_vec().into();
    rehash(&mut block);
    block
}

fn rehash(block: &mut Block) {
    let hash = HashAlgorithm::Sm3.block_data_hash(block.data.as_ref().unwrap_or(&BlockData::default()));
    block.header.as_mut().unwrap().data_hash = Bytes::copy_from_slice(&hash);
}

#[test]
fn a_channel_of_sm3_links_and_finds_everything_by_sm3() {
    let folder = tempfile::tempdir().unwrap();
    let first = genesis();
    let ledger = Ledger::create(folder.path(), &first).unwrap();
    assert_eq!(ledger.hash_algorithm(), HashAlgorithm::Sm3);
    let linked = HashAlgorithm::Sm3.block_hash(first.header.as_ref().unwrap());
    assert_eq!(ledger.last_hash(), Some(linked));

    let mut simulator = TxSimulator::new(ledger.snapshot(), "one");
    simulator.put_private(CHAINCODE, "secrets", "key", Bytes::from_static(b"value")).unwrap();
    let simulation = simulator.finish();
    let hashed = &simulation.rwset.namespaces[0].collections[0];
    assert_eq!(hashed.hashed_writes[0].key_hash, sm3(b"key").as_slice());
    assert_eq!(hashed.hashed_writes[0].value_hash, sm3(b"value").as_slice());
    assert_eq!(
        hashed.pvt_rwset_hash,
        sm3(simulation.private.namespaces[0].collections[0].bytes()).as_slice()
    );

    let envelope = blocks::envelope("one", &simulation.rwset);
    let foreign = blocks::next_block(&ledger, vec![envelope.clone()]);
    let refused = ledger.commit(blocks::accepted(foreign)).unwrap_err();
    assert!(matches!(refused, Error::WrongDataHash { .. }), "{refused}: its data hash is SHA-256");
    let mut next = blocks::next_block(&ledger, vec![envelope]);
    rehash(&mut next);
    let private = [(TxNumber::new(0), simulation.private)].into_iter().collect();
    let committed = ledger.commit(blocks::accepted(next).with_private(private)).unwrap();
    assert_eq!(committed.codes, [TxValidationCode::Valid]);
    assert_eq!(
        TxSimulator::new(ledger.snapshot(), "two").private(CHAINCODE, "secrets", "key").unwrap().unwrap(),
        "value"
    );

    drop(ledger);
    let ledger = Ledger::open(folder.path(), &ChannelId::parse(blocks::CHANNEL).unwrap()).unwrap();
    assert_eq!((ledger.hash_algorithm(), ledger.height()), (HashAlgorithm::Sm3, 2));
    assert!(ledger.block(BlockNumber::new(1)).unwrap().is_some());
}

#[test]
fn an_orderers_chain_remembers_its_hash() {
    let folder = tempfile::tempdir().unwrap();
    let first = genesis();
    let store = BlockStore::open(folder.path()).unwrap();
    store.append(&first).unwrap();
    assert_eq!(store.hash_algorithm(), HashAlgorithm::Sm3);
    drop(store);
    let store = BlockStore::open(folder.path()).unwrap();
    assert_eq!(store.last_hash(), Some(HashAlgorithm::Sm3.block_hash(first.header.as_ref().unwrap())));
    let hash = Bytes::copy_from_slice(&store.last_hash().unwrap());
    let mut next = blocks::block(1, hash, vec![Bytes::from_static(b"envelope")]);
    rehash(&mut next);
    store.append(&next).unwrap();
    assert_eq!(store.height(), 2);
}
