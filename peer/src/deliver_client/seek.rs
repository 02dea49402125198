//! The signed request with which a peer asks an orderer for blocks (Fabric `orderer/ab.proto`).

use bytes::Bytes;
use consort_msp::SigningIdentity;
use consort_protos::fabric::common::{ChannelHeader, Envelope, Header, HeaderType, Payload, SignatureHeader};
use consort_protos::fabric::orderer::{
    SeekInfo, SeekNewest, SeekPosition, SeekSpecified, seek_info, seek_position,
};
use consort_protos::ids::ChannelId;
use prost::Message;
use time::OffsetDateTime;

/// Bytes of a nonce, as everywhere in the protocol.
const NONCE_BYTES: usize = 24;

/// Which blocks are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All from this number on, for ever.
    From(u64),
    /// The one that is the last now.
    Newest,
}

/// Asks for all blocks from `first` on, for ever; see [`request`].
///
/// # Errors
/// When the identity's key cannot sign.
pub fn from_block(
    channel: &ChannelId,
    first: u64,
    signer: &SigningIdentity,
    tls_certificate_hash: Bytes,
    now: OffsetDateTime,
) -> Result<Envelope, consort_crypto::Error> {
    request(channel, Wanted::From(first), signer, tls_certificate_hash, now)
}

/// Asks for blocks. `tls_certificate_hash` binds the request to the caller's connection, for orderers that demand client
/// certificates.
///
/// # Errors
/// When the identity's key cannot sign.
pub(super) fn request(
    channel: &ChannelId,
    wanted: Wanted,
    signer: &SigningIdentity,
    tls_certificate_hash: Bytes,
    now: OffsetDateTime,
) -> Result<Envelope, consort_crypto::Error> {
    let specified = |number| seek_position::Type::Specified(SeekSpecified { number });
    let (start, stop) = match wanted {
        Wanted::From(first) => (specified(first), specified(u64::MAX)),
        Wanted::Newest => {
            (seek_position::Type::Newest(SeekNewest {}), seek_position::Type::Newest(SeekNewest {}))
        }
    };
    let seek = SeekInfo {
        start: Some(SeekPosition { r#type: Some(start) }),
        stop: Some(SeekPosition { r#type: Some(stop) }),
        behavior: seek_info::SeekBehavior::BlockUntilReady as i32,
        ..SeekInfo::default()
    };
    let channel_header = ChannelHeader {
        r#type: HeaderType::DeliverSeekInfo as i32,
        timestamp: Some(prost_types::Timestamp {
            seconds: now.unix_timestamp(),
            nanos: i32::try_from(now.nanosecond()).expect("invariant: below 1 000 000 000"),
        }),
        channel_id: channel.to_string(),
        tls_cert_hash: tls_certificate_hash,
        ..ChannelHeader::default()
    };
    let nonce: [u8; NONCE_BYTES] = rand::random();
    let signature_header =
        SignatureHeader { creator: signer.serialized().clone(), nonce: Bytes::copy_from_slice(&nonce) };
    let payload = Payload {
        header: Some(Header {
            channel_header: channel_header.encode_to_vec().into(),
            signature_header: signature_header.encode_to_vec().into(),
        }),
        data: seek.encode_to_vec().into(),
    };
    let payload = Bytes::from(payload.encode_to_vec());
    let signature = signer.sign(&payload)?;
    Ok(Envelope { payload, signature: signature.into(), ..Envelope::default() })
}
