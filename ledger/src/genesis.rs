//! What a genesis block says about its channel.
//!
//! Its only envelope is the configuration; nobody signed it and its creator is empty, so that it is no ordinary transaction.

use bytes::Bytes;
use consort_crypto::preimage;
use consort_protos::{
    block,
    envelope::OpenEnvelope,
    fabric::common::{Block, ConfigEnvelope, HeaderType},
    ids::ChannelId,
};

use crate::error::Error;

/// The parts of a genesis block that the books need.
pub(crate) struct Genesis {
    pub(crate) channel: ChannelId,
    /// The encoded `ConfigEnvelope`.
    pub(crate) config: Bytes,
    pub(crate) tx_id: String,
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
        if config.config.is_none() {
            return Err(fault("its configuration is empty".to_owned()));
        }
        let channel = ChannelId::parse(&envelope.channel_header.channel_id)
            .map_err(|invalid| fault(invalid.to_string()))?;
        let mut tx_id = envelope.channel_header.tx_id;
        if tx_id.is_empty() {
            tx_id = preimage::tx_id(&envelope.nonce, &envelope.creator);
        }
        Ok(Self { channel, config: envelope.data, tx_id })
    }
}
