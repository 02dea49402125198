//! Where entries lie in the state, and in which bytes.
//!
//! `entry/<number>` holds an [`Entry`]; the number has sixteen hexadecimal digits, so that keys sort as numbers do. `total` holds
//! how many there are. `certificate/<MSP id>/<hash>` and `bls/<key>` hold the number of the entry that has that certificate
//! or key; they stay when it is retired, so that neither is ever registered twice. Numbers have eight bytes, the highest first.

use bytes::Bytes;
use consort_msp::IdentityId;
use consort_protos::consort::identities::Entry;
use consort_protos::entry::EntryNumber;
use prost::Message;

/// Key of the number of entries.
pub const TOTAL: &str = "total";

const ENTRY: &str = "entry/";

/// Key of an entry.
#[must_use]
pub fn entry_key(number: u64) -> String {
    format!("{ENTRY}{number:016x}")
}

/// The number in the key of an entry; none for other keys.
#[must_use]
pub fn entry_of_key(key: &str) -> Option<EntryNumber> {
    let number = u64::from_str_radix(key.strip_prefix(ENTRY)?, 16).ok()?;
    EntryNumber::new(number).filter(|number| entry_key(number.get()) == key)
}

/// Key of the entry that has a certificate, whatever the form that it is written in.
#[must_use]
pub fn certificate_key(identity: &IdentityId) -> String {
    format!("certificate/{}/{}", identity.msp_id(), hex::encode(identity.certificate_hash()))
}

/// Key of the entry that has a BLS key.
#[must_use]
pub fn bls_key(public_key: &[u8]) -> String {
    format!("bls/{}", hex::encode(public_key))
}

/// The bytes of a number.
#[must_use]
pub fn number(value: u64) -> Bytes {
    Bytes::copy_from_slice(&value.to_be_bytes())
}

/// Reads a number.
///
/// # Errors
/// There are not eight bytes.
pub fn read_number(stored: &[u8]) -> Result<u64, String> {
    let bytes = <[u8; 8]>::try_from(stored).map_err(|_| format!("a number has {} bytes", stored.len()))?;
    Ok(u64::from_be_bytes(bytes))
}

/// Reads an entry.
///
/// # Errors
/// The bytes are no entry.
pub fn read_entry(stored: Bytes) -> Result<Entry, String> {
    Entry::decode(stored).map_err(|error| format!("an entry does not parse: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_entries_sort_by_number_and_read_back() {
        let keys: Vec<String> = [0, 9, 10, 255, 256, u64::MAX - 1].map(entry_key).into();
        assert!(keys.is_sorted());
        assert!(
            keys.iter().all(|key| entry_of_key(key).is_some_and(|number| entry_key(number.get()) == *key))
        );
        for key in [
            "total",
            "entry/",
            "entry/1",
            "entry/000000000000000G",
            "entry/ffffffffffffffff",
            "entry/+00000000000000a",
        ] {
            assert_eq!(entry_of_key(key), None, "{key}");
        }
    }

    #[test]
    fn a_number_has_eight_bytes() {
        assert_eq!(read_number(&number(7)), Ok(7));
        assert!(read_number(&[1]).is_err());
    }
}
