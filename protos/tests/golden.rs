//! Every layer of every block of a real Fabric channel opens, and encodes to the same bytes again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use consort_protos::block;
use consort_protos::fabric::common::{Block, BlockMetadataIndex, HeaderType};
use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::ids::{BlockNumber, Height};
use consort_protos::rwset::{RangeReads, TxReadWriteSet};
use consort_protos::transaction::{Body, Transaction, is_canonical};
use prost::Message;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/fabric-channel")
}

fn stored(number: usize) -> Bytes {
    std::fs::read(folder().join(format!("blocks/{number:04}.pb"))).unwrap().into()
}

fn blocks() -> Vec<Block> {
    (0..74).map(|number| block::open(stored(number)).unwrap()).collect()
}

/// Transactions after genesis, with their places.
fn transactions() -> Vec<(u64, Transaction)> {
    let mut all = Vec::new();
    for block in &blocks()[1..] {
        for envelope in block::envelopes(block) {
            all.push((block::number(block).get(), Transaction::open(envelope.clone()).unwrap()));
        }
    }
    all
}

#[test]
fn all_blocks_encode_to_the_bytes_they_came_from() {
    for number in 0..74 {
        let bytes = stored(number);
        assert_eq!(block::open(bytes.clone()).unwrap().encode_to_vec(), bytes, "block {number}");
    }
}

#[test]
fn all_envelopes_are_canonical() {
    for block in blocks() {
        block::check_canonical(&block).unwrap();
    }
}

#[test]
fn all_transactions_open_in_full() {
    let transactions = transactions();
    let endorser = transactions.iter().filter(|(_, transaction)| transaction.endorser().is_some());
    let config = transactions.iter().filter(|(_, transaction)| transaction.config().is_some());
    assert_eq!((endorser.count(), config.count(), transactions.len()), (96, 2, 98));
    for (block, transaction) in &transactions {
        match transaction.body.as_ref().unwrap() {
            Body::Endorser(endorser) => {
                let invocation = endorser.invocation.as_ref().unwrap();
                assert_eq!(transaction.kind, HeaderType::EndorserTransaction);
                assert!(!endorser.endorsements.is_empty(), "block {block}");
                assert!(!invocation.chaincode_id.version.is_empty(), "block {block}");
                assert_eq!(endorser.action_header, transaction.signature_header_bytes);
            }
            Body::Config(config) => {
                assert!(transaction.tx_id.is_empty());
                assert!(config.envelope.config.is_some() && config.envelope.last_update.is_some());
            }
            Body::ConfigUpdate(_) => panic!("block {block} holds a config update"),
        }
        assert_eq!(transaction.channel, "mychannel");
    }
}

#[test]
fn all_read_write_sets_encode_to_the_bytes_they_came_from() {
    let mut count = 0;
    for (block, transaction) in transactions() {
        let Some(invocation) = transaction.invocation() else { continue };
        assert_eq!(invocation.rwset.encode(), invocation.action.results, "block {block}");
        count += 1;
    }
    assert_eq!(count, 96);
}

#[test]
fn outcomes_told_to_the_client_are_those_in_the_blocks() {
    let text = std::fs::read_to_string(folder().join("outcomes.json")).unwrap();
    let outcomes: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let mut codes = BTreeMap::new();
    for block in blocks() {
        let flags = block::flags(&block).unwrap();
        assert_eq!(flags.len(), block::envelopes(&block).len());
        for (envelope, code) in block::envelopes(&block).iter().zip(flags) {
            if let Ok(transaction) = Transaction::open(envelope.clone()) {
                codes
                    .entry((block::number(&block).get(), transaction.tx_id))
                    .or_insert_with(Vec::new)
                    .push(*code);
            }
        }
    }
    let mut compared = 0;
    for outcome in &outcomes {
        let (Some(id), Some(code), Some(block)) =
            (outcome["txid"].as_str(), outcome["code"].as_u64(), outcome["block"].as_u64())
        else {
            continue;
        };
        let found = &codes[&(block, id.to_owned())];
        assert!(found.iter().any(|found| u64::from(*found) == code), "{outcome}");
        assert!(TxValidationCode::try_from(i32::try_from(code).unwrap()).is_ok());
        compared += 1;
    }
    assert!(compared > 50, "only {compared} outcomes");
}

#[test]
fn metadata_names_the_last_configuration_and_the_raft_index() {
    let blocks = blocks();
    assert!(block::is_config(&blocks[0]) && block::is_config(&blocks[64]) && block::is_config(&blocks[65]));
    assert!(!block::is_config(&blocks[1]));
    assert_eq!(block::channel_id(&blocks[0]).unwrap(), "mychannel");
    for (number, block) in blocks.iter().enumerate() {
        let expected = match number {
            0..64 => 0,
            64 => 64,
            _ => 65,
        };
        assert_eq!(block::last_config_index(block).unwrap(), BlockNumber::new(expected), "block {number}");
    }
    assert_eq!(block::raft_metadata(&blocks[0]).unwrap(), None);
    let raft = block::raft_metadata(&blocks[1]).unwrap().unwrap();
    assert_eq!((raft.consenter_ids, raft.next_consenter_id, raft.raft_index), (vec![1, 2, 3], 4, 5));
    assert_eq!(block::commit_hash(&blocks[0]).unwrap(), None);
    assert_eq!(block::commit_hash(&blocks[1]).unwrap().unwrap().len(), 32);
}

#[test]
fn a_block_without_the_newer_metadata_names_its_configuration_in_the_older_one() {
    let mut blocks = blocks();
    block::set_metadata(&mut blocks[70], BlockMetadataIndex::Signatures, Bytes::new());
    assert_eq!(block::last_config_index(&blocks[70]).unwrap(), BlockNumber::new(65));
}

#[test]
fn a_range_of_150_keys_is_summarised_in_three_hashes() {
    let sets: Vec<TxReadWriteSet> = transactions()
        .into_iter()
        .filter(|(block, _)| *block == 36)
        .map(|(_, transaction)| transaction.invocation().unwrap().rwset.clone())
        .collect();
    let query =
        sets.iter().flat_map(|set| &set.namespaces).flat_map(|set| &set.range_queries).next().unwrap();
    let RangeReads::Merkle(summary) = &query.reads else { panic!("not summarised: {query:?}") };
    assert_eq!((summary.max_degree, summary.max_level, summary.hashes.len()), (50, 1, 3));
    assert!(query.exhausted);
}

#[test]
fn the_read_of_an_absent_key_has_no_version() {
    let (_, transaction) = transactions().into_iter().find(|(block, _)| *block == 34).unwrap();
    let set = transaction.invocation().unwrap().rwset.clone();
    let versions: Vec<Option<Height>> =
        set.namespaces.iter().flat_map(|set| &set.reads).map(|read| read.version).collect();
    assert!(versions.contains(&None), "{versions:?}");
}

#[test]
fn a_genesis_envelope_is_a_configuration_but_no_transaction() {
    let genesis = &blocks()[0];
    let rejection = Transaction::open(block::envelopes(genesis)[0].clone()).unwrap_err();
    assert_eq!(rejection.code, TxValidationCode::BadCommonHeader);
    assert_eq!(block::config_envelope(genesis).unwrap().config.unwrap().sequence, 0);
}

#[test]
fn an_envelope_with_a_byte_too_many_is_not_canonical() {
    let envelope = block::envelopes(&blocks()[30])[0].clone();
    let with = |tail: &[u8]| Bytes::from([&envelope[..], tail].concat());
    assert!(is_canonical(&envelope));
    assert!(!is_canonical(&with(&[0x1a, 0])), "an unknown field");
    assert!(!is_canonical(&with(&[0x12, 0])), "the signature twice");
    assert!(!is_canonical(&with(&[0x0a])), "half a field");
    assert!(!is_canonical(&with(&[0xc2, 0x3e, 1, 1])), "what is for orderers alone");
    assert!(!is_canonical(&with(&[0xc2, 0x3e, 0])), "the same, empty");
}

mod damaged {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn a_damaged_transaction_opens_or_is_rejected(
            block in 1..74usize, position in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
        ) {
            let block = block::open(stored(block)).unwrap();
            let mut envelope = block::envelopes(&block)[0].to_vec();
            let place = position.index(envelope.len());
            envelope[place] = byte;
            let _ = Transaction::open(Bytes::from(envelope.clone()));
            envelope.truncate(cut.index(envelope.len()));
            let _ = Transaction::open(Bytes::from(envelope));
        }
    }
}
