//! Whether a block that an orderer delivered is the next block of the channel.
//!
//! The steps and texts are those of Fabric's deliver client (`common/deliverclient/block_verification.go`): position,
//! shape, data, signatures by the policy `/Channel/Orderer/BlockValidation` of the configuration in force before it.

use consort_channel_config::ChannelBundle;
use consort_crypto::{hash::HashAlgorithm, preimage};
use consort_msp::policy::{PolicyError, SignedData};
use consort_protos::block::MalformedBlock;
use consort_protos::fabric::common;
use consort_protos::transaction;
use prost::Message;

/// Policy of the orderers' signatures on a block.
const BLOCK_VALIDATION: &str = "/Channel/Orderer/BlockValidation";
/// Entries of a block's metadata: signatures, last config, transactions filter, orderer, commit hash.
const METADATA_ENTRIES: usize = 5;

/// Where a channel stands: what the next block must continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Number of the next block.
    pub next: u64,
    /// Header hash of the last block.
    pub last_hash: [u8; 32],
}

/// Why a delivered block is not the next block of the channel. It speaks against the orderer that delivered it.
#[derive(Debug, thiserror::Error)]
pub enum BlockFault {
    /// The block has no header.
    #[error("block without header on channel [{channel}]")]
    NoHeader {
        /// The channel.
        channel: String,
    },
    /// Another block was due.
    #[error("expected block number is [{expected}] but actual block number inside block is [{actual}]")]
    Number {
        /// The number that was due.
        expected: u64,
        /// The number in the header.
        actual: u64,
    },
    /// The block continues another chain.
    #[error(
        "Header.PreviousHash of block [{number}] is different from Hash(block.Header) of previous block, on channel \
         [{channel}], received: {received}, expected: {expected}"
    )]
    PreviousHash {
        /// The block.
        number: u64,
        /// The channel.
        channel: String,
        /// Hash in the header, hexadecimal.
        received: String,
        /// Hash of the last block's header, hexadecimal.
        expected: String,
    },
    /// The metadata is incomplete.
    #[error(
        "block with id [{number}] on channel [{channel}] does not have metadata or contains too few entries"
    )]
    Metadata {
        /// The block.
        number: u64,
        /// The channel.
        channel: String,
    },
    /// An entry is no canonical envelope, or there is none.
    #[error(
        "failed to verify transactions are well formed for block with id [{number}] on channel [{channel}]: {reason}"
    )]
    Transactions {
        /// The block.
        number: u64,
        /// The channel.
        channel: String,
        /// What is wrong.
        reason: String,
    },
    /// The data is not that of the header.
    #[error(
        "Header.DataHash is different from Hash(block.Data) for block with id [{number}] on channel [{channel}]; \
         Header: {header}, Data: {data}"
    )]
    DataHash {
        /// The block.
        number: u64,
        /// The channel.
        channel: String,
        /// Hash in the header, hexadecimal.
        header: String,
        /// Hash of the data, hexadecimal.
        data: String,
    },
    /// The signatures' metadata does not parse.
    #[error("error unmarshalling signatures from metadata of block [{number}] on channel [{channel}]")]
    Signatures {
        /// The block.
        number: u64,
        /// The channel.
        channel: String,
        /// The cause.
        #[source]
        source: MalformedBlock,
    },
    /// The configuration has no policy for blocks, so that no block can be trusted.
    #[error("no `/Channel/Orderer/BlockValidation` policy in config block")]
    NoPolicy,
    /// The signatures do not satisfy the policy.
    #[error("the signatures of block [{number}] on channel [{channel}] do not satisfy {BLOCK_VALIDATION}")]
    Policy {
        /// The block.
        number: u64,
        /// The channel.
        channel: String,
        /// Which part of the policy is unmet.
        #[source]
        source: PolicyError,
    },
}

/// Checks a block against the channel's position and the configuration in force before the block.
///
/// # Errors
/// [`BlockFault`]: the first rule that the block breaks.
pub fn verify(bundle: &ChannelBundle, position: &Position, block: &common::Block) -> Result<(), BlockFault> {
    let channel = || bundle.channel().to_string();
    let header = block.header.as_ref().ok_or_else(|| BlockFault::NoHeader { channel: channel() })?;
    let number = header.number;
    if number != position.next {
        return Err(BlockFault::Number { expected: position.next, actual: number });
    }
    if header.previous_hash[..] != position.last_hash[..] {
        return Err(BlockFault::PreviousHash {
            number,
            channel: channel(),
            received: hex::encode(&header.previous_hash),
            expected: hex::encode(position.last_hash),
        });
    }
    let entries = block.metadata.as_ref().map_or(&[][..], |metadata| &metadata.metadata);
    if entries.len() < METADATA_ENTRIES {
        return Err(BlockFault::Metadata { number, channel: channel() });
    }
    well_formed(block).map_err(|reason| BlockFault::Transactions { number, channel: channel(), reason })?;
    let hash = bundle.hash_algorithm();
    let data = block.data.as_ref().map(|data| hash.block_data_hash(data)).unwrap_or_default();
    if header.data_hash[..] != data[..] {
        return Err(BlockFault::DataHash {
            number,
            channel: channel(),
            header: hex::encode(&header.data_hash),
            data: hex::encode(data),
        });
    }
    signatures(bundle, header, block)
}

/// Hash of the block's header, which the next block has to carry; zeros for a block without header.
#[must_use]
pub fn header_hash(block: &common::Block, hash: HashAlgorithm) -> [u8; 32] {
    block.header.as_ref().map(|header| hash.block_hash(header)).unwrap_or_default()
}

fn well_formed(block: &common::Block) -> Result<(), String> {
    let entries = consort_protos::block::envelopes(block);
    if entries.is_empty() {
        return Err("empty block".to_owned());
    }
    // A configuration block carries what the orderer made, maps included: its encoding is free.
    if consort_protos::block::is_config(block) {
        return Ok(());
    }
    for (index, entry) in entries.iter().enumerate() {
        if let Some(([_, ..], [_, ..])) = transaction::canonical_parts(entry) {
            continue;
        }
        let envelope = common::Envelope::decode(entry.clone())
            .map_err(|error| format!("transaction {index} is invalid: {error}"))?;
        if envelope.payload.is_empty() {
            return Err(format!("transaction {index} has no payload"));
        }
        if envelope.signature.is_empty() {
            return Err(format!("transaction {index} has no signature"));
        }
        return Err(format!("transaction {index} does not match its raw form"));
    }
    Ok(())
}

fn signatures(
    bundle: &ChannelBundle,
    header: &common::BlockHeader,
    block: &common::Block,
) -> Result<(), BlockFault> {
    let number = header.number;
    let channel = || bundle.channel().to_string();
    let undecodable = |source| BlockFault::Signatures { number, channel: channel(), source };
    let mut signed = Vec::new();
    if let Some(metadata) = consort_protos::block::orderer_signatures(block).map_err(undecodable)? {
        for signature in &metadata.signatures {
            // An unreadable header has no signer that could count.
            let Ok(signer) = common::SignatureHeader::decode(signature.signature_header.clone()) else {
                continue;
            };
            let message = preimage::block_signature(&metadata.value, &signature.signature_header, header);
            signed.push(SignedData {
                identity: signer.creator,
                message: message.into(),
                signature: signature.signature.clone(),
            });
        }
    }
    let policy = bundle.policies().policy(BLOCK_VALIDATION).ok_or(BlockFault::NoPolicy)?;
    policy.evaluate(&signed).map_err(|source| BlockFault::Policy { number, channel: channel(), source })
}
