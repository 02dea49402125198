//! Blocks made for tests: well formed, unsigned, linked to each other.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(unreachable_pub, reason = "a module of tests has no crate to be public in")]

use std::sync::Arc;

use bytes::Bytes;
use consort_crypto::{hash::sha256, preimage};
use consort_ledger::{Ledger, ValidatedBlock};
use consort_protos::{
    fabric::{
        common::{
            Block, BlockData, BlockHeader, BlockMetadata, ChannelHeader, Config, ConfigEnvelope, ConfigGroup,
            Envelope, Header, HeaderType, Payload, SignatureHeader,
        },
        protos::{
            self, ChaincodeAction, ChaincodeActionPayload, ChaincodeEndorsedAction, ChaincodeHeaderExtension,
            ChaincodeId, ProposalResponsePayload, Response, TransactionAction, TxValidationCode,
        },
    },
    ids::Height,
    rwset::{NamespaceReadWriteSet, Read, TxReadWriteSet, Write},
    transaction::Transaction,
};

/// The channel of all blocks made here.
pub const CHANNEL: &str = "testchannel";

/// The chaincode of all transactions made here.
pub const CHAINCODE: &str = "books";

fn encode(message: &impl prost::Message) -> Bytes {
    message.encode_to_vec().into()
}

/// A genesis block with an empty configuration.
pub fn genesis() -> Block {
    let channel_header = ChannelHeader {
        r#type: HeaderType::Config as i32,
        channel_id: CHANNEL.to_owned(),
        ..ChannelHeader::default()
    };
    let signature_header = SignatureHeader { nonce: "genesis".into(), creator: Bytes::new() };
    let config = ConfigEnvelope {
        config: Some(Config { channel_group: Some(ConfigGroup::default()), ..Config::default() }),
        last_update: None,
    };
    let header =
        Header { channel_header: encode(&channel_header), signature_header: encode(&signature_header) };
    let payload = Payload { header: Some(header), data: encode(&config) };
    let envelope = Envelope { payload: encode(&payload), signature: Bytes::new(), ..Envelope::default() };
    block(0, Bytes::new(), vec![encode(&envelope)])
}

/// A block with these envelopes.
pub fn block(number: u64, previous_hash: Bytes, envelopes: Vec<Bytes>) -> Block {
    let data = BlockData { data: envelopes };
    let data_hash = Bytes::copy_from_slice(&preimage::block_data_hash(&data));
    Block {
        header: Some(BlockHeader { number, previous_hash, data_hash }),
        data: Some(data),
        metadata: Some(BlockMetadata { metadata: vec![Bytes::new(); 5] }),
    }
}

/// The block that follows a ledger's last one.
pub fn next_block(ledger: &Ledger, envelopes: Vec<Bytes>) -> Block {
    let previous = ledger.last_hash().map(|hash| Bytes::copy_from_slice(&hash)).unwrap_or_default();
    block(ledger.height(), previous, envelopes)
}

/// An endorser transaction with these results. The nonce makes its id unique.
pub fn envelope(nonce: &str, rwset: &TxReadWriteSet) -> Bytes {
    let chaincode =
        ChaincodeId { name: CHAINCODE.to_owned(), version: "1".to_owned(), ..ChaincodeId::default() };
    let extension = ChaincodeHeaderExtension { chaincode_id: Some(chaincode.clone()) };
    let nonce = Bytes::copy_from_slice(nonce.as_bytes());
    let creator = Bytes::from_static(b"somebody");
    let channel_header = encode(&ChannelHeader {
        r#type: HeaderType::EndorserTransaction as i32,
        channel_id: CHANNEL.to_owned(),
        tx_id: preimage::tx_id(&nonce, &creator),
        timestamp: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
        extension: encode(&extension),
        ..ChannelHeader::default()
    });
    let signature_header = encode(&SignatureHeader { creator, nonce });
    let proposal_payload = Bytes::from_static(b"\x0a\x00");
    let action = ChaincodeAction {
        results: rwset.encode(),
        response: Some(Response { status: 200, ..Response::default() }),
        chaincode_id: Some(chaincode),
        ..ChaincodeAction::default()
    };
    let proposal_hash = sha256(&[channel_header.as_ref(), &signature_header, &proposal_payload].concat());
    let response = ProposalResponsePayload {
        proposal_hash: Bytes::copy_from_slice(&proposal_hash),
        extension: encode(&action),
    };
    let endorsed = ChaincodeEndorsedAction {
        proposal_response_payload: encode(&response),
        ..ChaincodeEndorsedAction::default()
    };
    let action =
        ChaincodeActionPayload { chaincode_proposal_payload: proposal_payload, action: Some(endorsed) };
    let transaction = protos::Transaction {
        actions: vec![TransactionAction { header: signature_header.clone(), payload: encode(&action) }],
    };
    let payload =
        Payload { header: Some(Header { channel_header, signature_header }), data: encode(&transaction) };
    encode(&Envelope {
        payload: encode(&payload),
        signature: Bytes::from_static(b"signature"),
        ..Envelope::default()
    })
}

/// The transaction id that [`envelope`] gives for a nonce.
pub fn tx_id(nonce: &str) -> String {
    preimage::tx_id(nonce.as_bytes(), b"somebody")
}

/// Results in one namespace.
pub fn results(reads: Vec<Read>, writes: Vec<Write>) -> TxReadWriteSet {
    TxReadWriteSet {
        namespaces: vec![NamespaceReadWriteSet {
            namespace: CHAINCODE.to_owned(),
            reads,
            writes,
            ..NamespaceReadWriteSet::default()
        }],
    }
}

/// A read of a key at a version.
pub fn read(key: &str, version: Option<(u64, u32)>) -> Read {
    Read { key: key.to_owned(), version: version.map(|(block, tx)| Height::new(block, tx)) }
}

/// A write of a value; an empty one deletes.
pub fn write(key: &str, value: &str) -> Write {
    Write {
        key: key.to_owned(),
        is_delete: value.is_empty(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

/// Opens the transactions of a block.
pub fn open(block: &Block) -> Vec<Option<Arc<Transaction>>> {
    let data = block.data.as_ref().map(|data| data.data.clone()).unwrap_or_default();
    data.into_iter().map(|envelope| Transaction::open(envelope).ok().map(Arc::new)).collect()
}

/// Text that no compression makes much smaller, always the same for a seed.
pub fn noise(seed: u64, bytes: usize) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        // xorshift64*: any spread-out sequence will do.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 60
    };
    (0..bytes).map(|_| char::from_digit(next() as u32, 16).unwrap()).collect()
}

/// The block with all of its transactions taken for valid so far.
pub fn accepted(block: Block) -> ValidatedBlock {
    let codes = vec![TxValidationCode::Valid; block.data.as_ref().map_or(0, |data| data.data.len())];
    judged(block, codes)
}

/// The block with these codes so far.
pub fn judged(block: Block, codes: Vec<TxValidationCode>) -> ValidatedBlock {
    let transactions = open(&block);
    ValidatedBlock::new(block, transactions, codes).unwrap()
}
