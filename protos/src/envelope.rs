//! The layers that every envelope shares: payload, header, channel header, signature header.

use bytes::Bytes;
use prost::Message;

use crate::fabric::common::{ChannelHeader, Envelope, Header, Payload, SignatureHeader};

/// Which layer of an envelope is missing or does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedEnvelope {
    /// The bytes are no envelope.
    #[error("no envelope: {0}")]
    Envelope(#[source] prost::DecodeError),
    /// The payload does not parse.
    #[error("no payload: {0}")]
    Payload(#[source] prost::DecodeError),
    /// The payload has no header.
    #[error("the payload has no header")]
    HeaderMissing,
    /// The channel header does not parse.
    #[error("no channel header: {0}")]
    ChannelHeader(#[source] prost::DecodeError),
    /// The signature header does not parse.
    #[error("no signature header: {0}")]
    SignatureHeader(#[source] prost::DecodeError),
    /// The data is not what the channel header says.
    #[error("no {kind}: {cause}")]
    Data {
        /// Name of the expected message.
        kind: &'static str,
        /// Why it does not parse.
        #[source]
        cause: prost::DecodeError,
    },
}

/// An envelope whose layers have been opened, with the exact bytes that signatures and hashes cover.
#[derive(Clone, Debug)]
pub struct OpenEnvelope {
    /// What the signature covers.
    pub payload: Bytes,
    /// The creator's signature.
    pub signature: Bytes,
    /// Bytes of the channel header as received.
    pub channel_header_bytes: Bytes,
    /// Bytes of the signature header as received.
    pub signature_header_bytes: Bytes,
    /// The channel header.
    pub channel_header: ChannelHeader,
    /// The serialized identity that signs.
    pub creator: Bytes,
    /// A number used once.
    pub nonce: Bytes,
    /// What the envelope carries.
    pub data: Bytes,
    /// On the way to orderers: the certificate behind a creator that is named by entry, as the sender claims it.
    pub claimed_creator: Bytes,
}

impl OpenEnvelope {
    /// Opens the bytes of an envelope.
    ///
    /// # Errors
    ///
    /// Names the layer that is missing or does not parse.
    pub fn open(raw: Bytes) -> Result<Self, MalformedEnvelope> {
        Self::from_message(Envelope::decode(raw).map_err(MalformedEnvelope::Envelope)?)
    }

    /// Opens an envelope that arrived inside another message.
    ///
    /// # Errors
    ///
    /// Names the layer that is missing or does not parse.
    pub fn from_message(envelope: Envelope) -> Result<Self, MalformedEnvelope> {
        let payload = Payload::decode(envelope.payload.clone()).map_err(MalformedEnvelope::Payload)?;
        let header = payload.header.ok_or(MalformedEnvelope::HeaderMissing)?;
        let channel_header =
            ChannelHeader::decode(header.channel_header.clone()).map_err(MalformedEnvelope::ChannelHeader)?;
        let signature_header = SignatureHeader::decode(header.signature_header.clone())
            .map_err(MalformedEnvelope::SignatureHeader)?;
        Ok(Self {
            payload: envelope.payload,
            signature: envelope.signature,
            channel_header_bytes: header.channel_header,
            signature_header_bytes: header.signature_header,
            channel_header,
            creator: signature_header.creator,
            nonce: signature_header.nonce,
            data: payload.data,
            claimed_creator: envelope.creator,
        })
    }

    /// Opens the data as the message that the channel header announces; the caller compares the header's type first.
    ///
    /// # Errors
    ///
    /// When the data is no such message; `kind` names it.
    pub fn data_as<M: Message + Default>(&self, kind: &'static str) -> Result<M, MalformedEnvelope> {
        M::decode(self.data.clone()).map_err(|cause| MalformedEnvelope::Data { kind, cause })
    }
}

/// Builds the payload of an envelope; the result is what its creator signs.
#[must_use]
pub fn payload(channel_header: &ChannelHeader, signature_header: &SignatureHeader, data: Bytes) -> Bytes {
    let header = Header {
        channel_header: channel_header.encode_to_vec().into(),
        signature_header: signature_header.encode_to_vec().into(),
    };
    Payload { header: Some(header), data }.encode_to_vec().into()
}

/// The bytes are an envelope and encode to themselves: no unknown field, no field twice, no trailing bytes, no explicit
/// default, and no certificate for the orderers alone. Block hashes run over concatenated envelopes, so without this rule the
/// same hash could stand for different divisions into envelopes (CVE-2023-46132).
#[must_use]
pub fn is_canonical(envelope_bytes: &[u8]) -> bool {
    canonical_parts(envelope_bytes).is_some()
}

/// Payload and signature of an envelope in canonical form, see [`is_canonical`]; an absent one is empty.
#[must_use]
pub fn canonical_parts(envelope_bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    const PAYLOAD: u8 = 1 << 3 | 2;
    const SIGNATURE: u8 = 2 << 3 | 2;
    let (payload, rest) = canonical_field(envelope_bytes, PAYLOAD)?;
    let (signature, rest) = canonical_field(rest, SIGNATURE)?;
    rest.is_empty().then_some((payload, signature))
}

/// Takes a field of bytes off the front, if its tag stands there: in the shortest form of its length, and not empty.
fn canonical_field(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let Some((_, mut rest)) = bytes.split_first().filter(|(first, _)| **first == tag) else {
        return Some((&[], bytes));
    };
    let mut length: u64 = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        length |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            // The last byte says something, so that no shorter form says the same; nor is the length zero.
            let shortest = length >> shift != 0;
            return usize::try_from(length)
                .ok()
                .filter(|_| shortest)
                .and_then(|length| rest.split_at_checked(length));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition: what is encoded again is the same.
    fn encodes_to_itself(bytes: &[u8]) -> bool {
        Envelope::decode(bytes)
            .is_ok_and(|envelope| envelope.creator.is_empty() && envelope.encode_to_vec() == bytes)
    }

    proptest! {
        #[test]
        fn canonical_is_what_encodes_to_itself(payload: Vec<u8>, signature: Vec<u8>, cut: prop::sample::Index, byte: u8) {
            let envelope = Envelope { payload: payload.clone().into(), signature: signature.clone().into(), ..Envelope::default() };
            let bytes = envelope.encode_to_vec();
            prop_assert_eq!(canonical_parts(&bytes), Some((payload.as_slice(), signature.as_slice())));
            let mut changed = bytes;
            if !changed.is_empty() {
                let place = cut.index(changed.len());
                changed[place] = byte;
                prop_assert_eq!(is_canonical(&changed), encodes_to_itself(&changed), "{:?}", changed);
                changed.insert(place, byte);
                prop_assert_eq!(is_canonical(&changed), encodes_to_itself(&changed), "{:?}", changed);
                changed.truncate(place);
                prop_assert_eq!(is_canonical(&changed), encodes_to_itself(&changed), "{:?}", changed);
            }
        }

        #[test]
        fn any_bytes_are_judged_alike(bytes in prop::collection::vec(prop_oneof![Just(0x0a), Just(0x12), 0..5_u8, any::<u8>()], 0..12)) {
            prop_assert_eq!(is_canonical(&bytes), encodes_to_itself(&bytes), "{:?}", bytes);
        }
    }
}
