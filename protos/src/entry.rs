//! Signers named by number: the form of a `msp.SerializedIdentity` that stands for an entry of the channel's table of
//! identities (namespace `_identities`) instead of carrying a certificate.
//!
//! The form has one encoding only: field 1000 with 1 + the number, and nothing else.

use std::fmt;

use bytes::Bytes;
use prost::Message;

use crate::fabric::msp::SerializedIdentity;

/// The longest encoding: a tag of two bytes and a number of at most ten.
const BYTES_MAX: usize = 12;

/// Number of an entry in a channel's table of identities, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryNumber(u64);

impl EntryNumber {
    /// A number as the table gives it; the largest of 64 bits cannot be named.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        (number < u64::MAX).then_some(Self(number))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// The number that the bytes of a `SerializedIdentity` name; none for one that carries a certificate, for what is no
    /// such message, and for an encoding that is not [`EntryNumber::serialize`]'s.
    #[must_use]
    pub fn of_serialized(identity: &[u8]) -> Option<Self> {
        if identity.len() > BYTES_MAX {
            return None;
        }
        let message = SerializedIdentity::decode(identity).ok()?;
        let number = Self(message.entry.checked_sub(1)?);
        (number.serialize() == identity).then_some(number)
    }

    /// The `SerializedIdentity` that names the entry.
    #[must_use]
    pub fn serialize(self) -> Bytes {
        SerializedIdentity { entry: self.0 + 1, ..SerializedIdentity::default() }.encode_to_vec().into()
    }
}

impl fmt::Display for EntryNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_form() {
        for number in [0, 1, 126, 127, 128, u64::MAX - 1] {
            let number = EntryNumber::new(number).unwrap();
            assert_eq!(EntryNumber::of_serialized(&number.serialize()), Some(number));
        }
        assert_eq!(EntryNumber::new(0).unwrap().serialize()[..], [0xc0, 0x3e, 0x01]);
        assert_eq!(EntryNumber::new(u64::MAX), None);
    }

    #[test]
    fn another_encoding_names_nobody() {
        let certificate = SerializedIdentity {
            mspid: "A".to_owned(),
            id_bytes: Bytes::from_static(b"x"),
            ..SerializedIdentity::default()
        };
        let both = SerializedIdentity { entry: 1, ..certificate.clone() };
        for bytes in [
            &[][..],
            // Zero, written out.
            &[0xc0, 0x3e, 0x00],
            // One, in two bytes.
            &[0xc0, 0x3e, 0x81, 0x00],
            // Twice.
            &[0xc0, 0x3e, 0x01, 0xc0, 0x3e, 0x01],
            // With an empty MSP id, and with an unknown field.
            &[0x0a, 0x00, 0xc0, 0x3e, 0x01],
            &[0xc0, 0x3e, 0x01, 0x18, 0x01],
            &[0xc0, 0x3e],
            &certificate.encode_to_vec(),
            &both.encode_to_vec(),
        ] {
            assert_eq!(EntryNumber::of_serialized(bytes), None, "{bytes:02x?}");
        }
    }
}
