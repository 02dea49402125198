//! What blocks hold besides their transactions: metadata, signatures, configuration.

use bytes::Bytes;
use prost::Message;

use crate::envelope::{OpenEnvelope, is_canonical};
use crate::fabric::common::{
    Block, BlockData, BlockHeader, BlockMetadata, BlockMetadataIndex, ConfigEnvelope, HeaderType, LastConfig,
    Metadata, MetadataSignature, OrdererBlockMetadata,
};
use crate::fabric::etcdraft;
use crate::ids::BlockNumber;

/// Entries of the metadata of every block (Fabric `common.BlockMetadataIndex`).
pub const METADATA_ENTRIES: usize = 5;

/// What is wrong with a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedBlock {
    /// The bytes are no block.
    #[error("no block")]
    Unreadable(#[source] prost::DecodeError),
    /// The block lacks its header, data or metadata.
    #[error("the block has no {0}")]
    Missing(&'static str),
    /// A metadata entry does not parse.
    #[error("malformed metadata entry {index}")]
    Metadata {
        /// Position of the entry.
        index: usize,
        /// Why it does not parse.
        #[source]
        cause: prost::DecodeError,
    },
    /// An envelope of the block is not in canonical form.
    #[error("transaction {position} is not encoded canonically")]
    NotCanonical {
        /// Position of the transaction.
        position: usize,
    },
    /// The block holds no configuration.
    #[error("the block holds no configuration: {0}")]
    NoConfiguration(String),
}

/// The orderers' signatures of a block, with what they cover besides the header.
#[derive(Clone, Debug)]
pub struct OrdererSignatures {
    /// Bytes of the signed metadata, as received.
    pub value: Bytes,
    /// The signed metadata.
    pub metadata: OrdererBlockMetadata,
    /// The signatures.
    pub signatures: Vec<MetadataSignature>,
}

/// Opens the bytes of a block and checks that header, data and metadata are present.
///
/// # Errors
///
/// When the bytes are no block, or a part is missing.
pub fn open(bytes: Bytes) -> Result<Block, MalformedBlock> {
    let block = Block::decode(bytes).map_err(MalformedBlock::Unreadable)?;
    check_parts(&block)?;
    Ok(block)
}

/// Header, data and metadata are present.
///
/// # Errors
///
/// Names the missing part.
pub fn check_parts(block: &Block) -> Result<(), MalformedBlock> {
    let missing = [
        ("header", block.header.is_none()),
        ("data", block.data.is_none()),
        ("metadata", block.metadata.is_none()),
    ];
    match missing.into_iter().find(|(_, is_missing)| *is_missing) {
        Some((part, _)) => Err(MalformedBlock::Missing(part)),
        None => Ok(()),
    }
}

/// Joins a header and envelopes to a block with empty metadata entries.
#[must_use]
pub fn assemble(header: BlockHeader, envelopes: Vec<Bytes>) -> Block {
    Block {
        header: Some(header),
        data: Some(BlockData { data: envelopes }),
        metadata: Some(BlockMetadata { metadata: vec![Bytes::new(); METADATA_ENTRIES] }),
    }
}

/// The block's number; 0 when it has no header, which [`open`] excludes.
#[must_use]
pub fn number(block: &Block) -> BlockNumber {
    BlockNumber::new(block.header.as_ref().map_or(0, |header| header.number))
}

/// The block's envelopes, as bytes.
#[must_use]
pub fn envelopes(block: &Block) -> &[Bytes] {
    block.data.as_ref().map_or(&[], |data| &data.data)
}

/// Every envelope is encoded canonically: see [`is_canonical`].
///
/// # Errors
///
/// Names the first envelope that is not.
pub fn check_canonical(block: &Block) -> Result<(), MalformedBlock> {
    match envelopes(block).iter().position(|envelope| !is_canonical(envelope)) {
        Some(position) => Err(MalformedBlock::NotCanonical { position }),
        None => Ok(()),
    }
}

/// A metadata entry; `None` when it is absent or empty.
#[must_use]
pub fn metadata(block: &Block, index: BlockMetadataIndex) -> Option<&Bytes> {
    block.metadata.as_ref()?.metadata.get(index as usize).filter(|entry| !entry.is_empty())
}

/// Replaces a metadata entry, adding empty ones before it where the block has fewer.
pub fn set_metadata(block: &mut Block, index: BlockMetadataIndex, entry: Bytes) {
    let entries = &mut block.metadata.get_or_insert_default().metadata;
    if entries.len() < METADATA_ENTRIES {
        entries.resize(METADATA_ENTRIES, Bytes::new());
    }
    entries[index as usize] = entry;
}

/// Validation codes, one byte per transaction; `None` before a peer has committed the block.
#[must_use]
pub fn flags(block: &Block) -> Option<&[u8]> {
    metadata(block, BlockMetadataIndex::TransactionsFilter).map(AsRef::as_ref)
}

/// The commit hash that a peer noted down; `None` in the genesis block and before the commit.
///
/// # Errors
///
/// When the entry does not parse.
pub fn commit_hash(block: &Block) -> Result<Option<Bytes>, MalformedBlock> {
    let entry = open_metadata(block, BlockMetadataIndex::CommitHash)?;
    Ok(entry.map(|metadata| metadata.value))
}

fn open_metadata(block: &Block, index: BlockMetadataIndex) -> Result<Option<Metadata>, MalformedBlock> {
    let Some(entry) = metadata(block, index) else { return Ok(None) };
    let opened = Metadata::decode(entry.clone());
    opened.map(Some).map_err(|cause| MalformedBlock::Metadata { index: index as usize, cause })
}

/// The orderers' signatures; `None` when the entry is absent.
///
/// # Errors
///
/// When the entry does not parse.
pub fn orderer_signatures(block: &Block) -> Result<Option<OrdererSignatures>, MalformedBlock> {
    let Some(entry) = open_metadata(block, BlockMetadataIndex::Signatures)? else { return Ok(None) };
    let metadata = OrdererBlockMetadata::decode(entry.value.clone()).map_err(|cause| {
        MalformedBlock::Metadata { index: BlockMetadataIndex::Signatures as usize, cause }
    })?;
    Ok(Some(OrdererSignatures { value: entry.value, metadata, signatures: entry.signatures }))
}

/// Number of the last block with a configuration, as the orderer noted it down: in its signed metadata, or in the older
/// entry of its own. Without either it is genesis.
///
/// # Errors
///
/// When an entry does not parse.
pub fn last_config_index(block: &Block) -> Result<BlockNumber, MalformedBlock> {
    if let Some(last_config) =
        orderer_signatures(block)?.and_then(|signatures| signatures.metadata.last_config)
    {
        return Ok(BlockNumber::new(last_config.index));
    }
    let index = BlockMetadataIndex::LastConfig;
    let Some(entry) = open_metadata(block, index)? else { return Ok(BlockNumber::GENESIS) };
    let last_config = LastConfig::decode(entry.value)
        .map_err(|cause| MalformedBlock::Metadata { index: index as usize, cause })?;
    Ok(BlockNumber::new(last_config.index))
}

/// What Raft noted down in the block; `None` when the block was not ordered by Raft, as genesis is not.
///
/// # Errors
///
/// When the entry does not parse.
pub fn raft_metadata(block: &Block) -> Result<Option<etcdraft::BlockMetadata>, MalformedBlock> {
    let malformed =
        |cause| MalformedBlock::Metadata { index: BlockMetadataIndex::Signatures as usize, cause };
    let Some(signatures) = orderer_signatures(block)? else { return Ok(None) };
    if signatures.metadata.consenter_metadata.is_empty() {
        return Ok(None);
    }
    let wrapped = Metadata::decode(signatures.metadata.consenter_metadata).map_err(malformed)?;
    etcdraft::BlockMetadata::decode(wrapped.value).map(Some).map_err(malformed)
}

/// The block holds one envelope of type CONFIG.
#[must_use]
pub fn is_config(block: &Block) -> bool {
    config_envelope(block).is_ok()
}

/// The configuration in a config block, genesis included.
///
/// # Errors
///
/// When the block does not hold exactly one envelope, or the envelope is no configuration.
pub fn config_envelope(block: &Block) -> Result<ConfigEnvelope, MalformedBlock> {
    let no = |reason: String| MalformedBlock::NoConfiguration(reason);
    let [envelope] = envelopes(block) else {
        return Err(no(format!("it has {} transactions instead of one", envelopes(block).len())));
    };
    let envelope = OpenEnvelope::open(envelope.clone()).map_err(|fault| no(fault.to_string()))?;
    if envelope.channel_header.r#type != i32::from(HeaderType::Config) {
        return Err(no(format!("its transaction has type {}", envelope.channel_header.r#type)));
    }
    envelope.data_as("config envelope").map_err(|fault| no(fault.to_string()))
}

/// Name of the channel, out of the header of the block's first envelope.
///
/// # Errors
///
/// When the block has no envelope, or the envelope's headers do not parse.
pub fn channel_id(block: &Block) -> Result<String, MalformedBlock> {
    let first = envelopes(block).first().ok_or(MalformedBlock::Missing("transaction"))?;
    let envelope = OpenEnvelope::open(first.clone())
        .map_err(|fault| MalformedBlock::NoConfiguration(fault.to_string()))?;
    Ok(envelope.channel_header.channel_id)
}
