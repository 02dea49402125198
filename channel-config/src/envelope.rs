//! Opening and making the envelopes that carry configurations.

use consort_crypto::hash::HashAlgorithm;
use consort_protos::{
    fabric::common::{
        Block, ChannelHeader, ConfigEnvelope, Envelope, Header, HeaderType, Payload, SignatureHeader,
    },
    ids::ChannelId,
};
use prost::Message;

use crate::ConfigError;

/// The channel header and content of an envelope of a given type.
///
/// # Errors
/// In words what does not parse, or which type it has instead.
pub(crate) fn content<M: Message + Default>(
    envelope: &Envelope,
    expected: HeaderType,
) -> Result<(ChannelHeader, M), String> {
    let payload = Payload::decode(envelope.payload.as_ref())
        .map_err(|error| format!("error unmarshalling Payload: {error}"))?;
    let header = payload.header.ok_or("envelope must have a Header")?;
    let channel_header = ChannelHeader::decode(header.channel_header.as_ref())
        .map_err(|error| format!("error unmarshalling ChannelHeader: {error}"))?;
    if channel_header.r#type != i32::from(expected) {
        let found = HeaderType::try_from(channel_header.r#type)
            .map_or_else(|_| channel_header.r#type.to_string(), |kind| kind.as_str_name().to_owned());
        return Err(format!("invalid type {found}, expected {}", expected.as_str_name()));
    }
    let content =
        M::decode(payload.data.as_ref()).map_err(|error| format!("error unmarshalling data: {error}"))?;
    Ok((channel_header, content))
}

/// The channel and configuration of a configuration block: one with exactly one entry, of type CONFIG.
///
/// # Errors
/// When it is none, or does not parse.
pub(crate) fn config_of_block(block: &Block) -> Result<(ChannelId, ConfigEnvelope), ConfigError> {
    let entries = block.data.as_ref().map(|data| data.data.as_slice()).unwrap_or_default();
    let [entry] = entries else {
        return Err(ConfigError::Block("block is not a config block".to_owned()));
    };
    let envelope = Envelope::decode(entry.as_ref())
        .map_err(|error| ConfigError::Block(format!("block is not a config block: {error}")))?;
    let (header, config) = content(&envelope, HeaderType::Config)
        .map_err(|error| ConfigError::Block(format!("block is not a config block: {error}")))?;
    let channel = ChannelId::parse(&header.channel_id)
        .map_err(|error| ConfigError::Names(format!("bad channel ID: {error}")))?;
    Ok((channel, config))
}

/// The unsigned envelope of a genesis configuration.
pub(crate) fn genesis(
    channel: &ChannelId,
    config: &ConfigEnvelope,
    nonce: &[u8],
    seconds: i64,
    hash: HashAlgorithm,
) -> Envelope {
    let channel_header = ChannelHeader {
        r#type: HeaderType::Config.into(),
        version: 1,
        timestamp: Some(prost_types::Timestamp { seconds, nanos: 0 }),
        channel_id: channel.as_str().to_owned(),
        tx_id: hash.tx_id(nonce, b""),
        ..ChannelHeader::default()
    };
    let signature_header = SignatureHeader { nonce: nonce.to_vec().into(), ..SignatureHeader::default() };
    let header = Header {
        channel_header: channel_header.encode_to_vec().into(),
        signature_header: signature_header.encode_to_vec().into(),
    };
    let payload = Payload { header: Some(header), data: config.encode_to_vec().into() };
    Envelope { payload: payload.encode_to_vec().into(), ..Envelope::default() }
}
