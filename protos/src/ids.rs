//! Ids as types: built once, checked once, cheap to copy around.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::fabric::kvrwset::Version;

/// Longest channel name (Fabric `common/configtx`: names are parts of paths and topics).
const CHANNEL_ID_BYTES_MAX: usize = 249;

/// Longest name that is accepted where Fabric states no limit; names end up in keys and paths.
const NAME_BYTES_MAX: usize = 255;

/// The text is not an id of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind}: {rule}")]
pub struct InvalidId {
    kind: &'static str,
    text: String,
    rule: &'static str,
}

impl InvalidId {
    fn new(kind: &'static str, text: &str, rule: &'static str) -> Self {
        // The text may come from the network: the report stays short.
        Self { kind, text: text.chars().take(64).collect(), rule }
    }
}

macro_rules! name {
    ($(#[$documentation:meta])* $name:ident, $kind:literal, $check:path) => {
        $(#[$documentation])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text and takes it as an id.
            ///
            /// # Errors
            ///
            /// When the text breaks the rule of its kind; the error tells the rule.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                match $check(text) {
                    Ok(()) => Ok(Self(text.into())),
                    Err(rule) => Err(InvalidId::new($kind, text, rule)),
                }
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}({:?})", stringify!($name), &*self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(de::Error::custom)
            }
        }
    };
}

name! {
    /// Name of a channel: a lower-case letter, then lower-case letters, digits, dots and hyphens
    /// (Fabric `common/configtx/validator.go`).
    ChannelId, "channel id", check_channel_id
}

name! {
    /// Id of a membership service provider, such as `Org1MSP`. Fabric leaves the text free; ours must be printable without `/`,
    /// since it becomes part of keys and paths.
    MspId, "MSP id", check_msp_id
}

name! {
    /// Transaction id: lower-case hex of SHA-256(nonce, creator), 64 characters.
    TxId, "transaction id", check_tx_id
}

name! {
    /// A chaincode's keys; the same text as the chaincode's name.
    /// Fabric's system chaincodes begin with an underscore or are plain words (`_lifecycle`, `lscc`).
    Namespace, "namespace", check_namespace
}

fn check_channel_id(text: &str) -> Result<(), &'static str> {
    const RULE: &str =
        "a lower-case letter, then lower-case letters, digits, dots or hyphens, at most 249 in all";
    let rest = text.strip_prefix(|first: char| first.is_ascii_lowercase()).ok_or(RULE)?;
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'.' || byte == b'-';
    if text.len() <= CHANNEL_ID_BYTES_MAX && rest.bytes().all(allowed) { Ok(()) } else { Err(RULE) }
}

fn check_msp_id(text: &str) -> Result<(), &'static str> {
    let printable = text.chars().all(|letter| !letter.is_control() && letter != '/' && letter != '\\');
    if !text.is_empty() && text != "." && text != ".." && text.len() <= NAME_BYTES_MAX && printable {
        Ok(())
    } else {
        Err("1 to 255 bytes of printable text without slashes")
    }
}

fn check_tx_id(text: &str) -> Result<(), &'static str> {
    let allowed = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() == 64 && text.bytes().all(allowed) {
        Ok(())
    } else {
        Err("64 lower-case hexadecimal digits")
    }
}

fn check_namespace(text: &str) -> Result<(), &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.bytes().all(allowed) {
        Ok(())
    } else {
        Err("1 to 255 letters, digits, hyphens or underscores")
    }
}

/// Number of a block in its channel; genesis is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlockNumber(u64);

impl BlockNumber {
    /// The first block of every channel.
    pub const GENESIS: Self = Self(0);

    /// Takes a number as a block number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number of the following block. The last of all numbers follows itself: no chain gets there.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number of the preceding block; genesis has none.
    #[must_use]
    pub const fn previous(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }
}

impl fmt::Display for BlockNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Position of a transaction in its block, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TxNumber(u32);

impl TxNumber {
    /// Takes a number as a position.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for TxNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Where a value was written: the version of a key, and the place of a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Height {
    /// The block.
    pub block: BlockNumber,
    /// The transaction in the block.
    pub tx: TxNumber,
}

impl Height {
    /// The transaction at position `tx` of block `block`.
    #[must_use]
    pub const fn new(block: u64, tx: u32) -> Self {
        Self { block: BlockNumber::new(block), tx: TxNumber::new(tx) }
    }

    /// Reads a version out of a read-write set. A transaction number beyond 32 bits becomes the largest: no block holds so
    /// many transactions, so that neither of them is the version of anything.
    #[must_use]
    pub fn from_version(version: &Version) -> Self {
        Self::new(version.block_num, u32::try_from(version.tx_num).unwrap_or(u32::MAX))
    }

    /// The message that read-write sets hold.
    #[must_use]
    pub fn to_version(self) -> Version {
        Version { block_num: self.block.get(), tx_num: u64::from(self.tx.get()) }
    }
}

impl fmt::Display for Height {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "({}, {})", self.block, self.tx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_ids_follow_fabrics_rule() {
        for good in ["mychannel", "a", "a.b-c9"] {
            assert_eq!(ChannelId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "9a", "-a", "My", "a_b", "a/b", "ä", &"a".repeat(250)] {
            assert!(ChannelId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tx_ids_are_lower_case_hex_of_a_hash() {
        assert!(TxId::parse(&"0af".repeat(22)[..64]).is_ok());
        for bad in ["", "0a", &"A".repeat(64), &"a".repeat(65)] {
            assert!(TxId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_that_could_leave_a_folder_are_no_ids() {
        for bad in ["", ".", "..", "a/b", "a\\b", "a\0"] {
            assert!(MspId::parse(bad).is_err(), "{bad}");
            assert!(Namespace::parse(bad).is_err(), "{bad}");
        }
        assert!(Namespace::parse("_lifecycle").is_ok());
        assert!(MspId::parse("Org1MSP").is_ok());
    }

    #[test]
    fn ids_are_checked_when_they_are_read_from_a_file() {
        assert!(serde_json::from_str::<ChannelId>("\"mychannel\"").is_ok());
        let error = serde_json::from_str::<ChannelId>("\"My Channel\"").unwrap_err();
        assert!(error.to_string().contains("lower-case"), "{error}");
    }

    #[test]
    fn heights_order_by_block_then_transaction() {
        assert!(Height::new(1, 9) < Height::new(2, 0));
        assert!(Height::new(2, 0) < Height::new(2, 1));
        assert_eq!(Height::new(2, 1).to_string(), "(2, 1)");
    }

    #[test]
    fn a_transaction_number_beyond_32_bits_does_not_wrap_around() {
        assert_eq!(
            Height::from_version(&Version { block_num: 1, tx_num: 1 << 32 }),
            Height::new(1, u32::MAX)
        );
    }
}
