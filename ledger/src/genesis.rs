//! What a genesis block says about its channel.
//!
//! Its only envelope is the configuration; nobody signed it and its creator is empty, so that it is no ordinary transaction.

use bytes::Bytes;
use consort_crypto::hash::HashAlgorithm;
use consort_protos::{
    block,
    envelope::OpenEnvelope,
    fabric::common::{Block, ConfigEnvelope, HashingAlgorithm, HeaderType},
    ids::ChannelId,
};
use prost::Message as _;

use crate::error::Error;

/// The parts of a genesis block that the books need.
pub(crate) struct Genesis {
    pub(crate) channel: ChannelId,
    /// The encoded `ConfigEnvelope`.
    pub(crate) config: Bytes,
    pub(crate) tx_id: String,
    pub(crate) hash: HashAlgorithm,
}

impl Genesis {
    pub(crate) fn read(block: &Block) -> Result<Self, Error> {
        let fault = |reason: String| Error::NotGenesis { reason };
        let [envelope] = block::envelopes(block) else {
            return Err(fault("it does not hold exactly one envelope".to_owned()));
        };
        let envelope =
            OpenEnvelope::open(envelope.clone()).map_err(|malformed| fault(malformed.to_string()))?;
        if envelope.channel_header.r#type != HeaderType::Config as i32 {
            return Err(fault("its envelope is no configuration".to_owned()));
        }
        let config: ConfigEnvelope =
            envelope.data_as("configuration").map_err(|malformed| fault(malformed.to_string()))?;
        let hash = hashing(&config);
        if config.config.is_none() {
            return Err(fault("its configuration is empty".to_owned()));
        }
        let channel = ChannelId::parse(&envelope.channel_header.channel_id)
            .map_err(|invalid| fault(invalid.to_string()))?;
        let mut tx_id = envelope.channel_header.tx_id;
        if tx_id.is_empty() {
            tx_id = hash.tx_id(&envelope.nonce, &envelope.creator);
        }
        Ok(Self { channel, config: envelope.data, tx_id, hash })
    }
}

/// The hash that a first block names; SHA-256 if it names none that is known, or is no configuration: who makes a channel's
/// bundle judges that.
pub(crate) fn hash_algorithm(block: &Block) -> HashAlgorithm {
    Genesis::read(block).map(|genesis| genesis.hash).unwrap_or_default()
}

fn hashing(config: &ConfigEnvelope) -> HashAlgorithm {
    let root = config.config.as_ref().and_then(|config| config.channel_group.as_ref());
    let value = root.and_then(|root| root.values.get("HashingAlgorithm"));
    let message = value.and_then(|value| HashingAlgorithm::decode(value.value.as_ref()).ok());
    message.and_then(|message| HashAlgorithm::from_channel_name(&message.name)).unwrap_or_default()
}
