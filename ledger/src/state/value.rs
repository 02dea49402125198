//! A value with the transaction that wrote it, and the form in which it is stored.

use bytes::Bytes;
use consort_crypto::hash::HashAlgorithm;
use consort_protos::{
    fabric::kvrwset::{KvMetadataEntry, KvMetadataWrite},
    ids::Height,
    rwset::MetadataEntry,
};
use prost::Message as _;

use crate::{
    error::Error,
    order::{push_number, split_number},
};

/// A value of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionedValue {
    /// The bytes; for hashed keys the hash of the private value.
    pub value: Bytes,
    /// Metadata in Fabric's stored form (a `KVMetadataWrite` without its key); empty when the key has none. For private values the salt
    /// of their hash; empty in collections without salts.
    pub metadata: Bytes,
    /// The transaction that wrote the value or its metadata last.
    pub version: Height,
}

impl VersionedValue {
    /// The hash by which a private value stands on the ledger: of its salt and the value.
    #[must_use]
    pub fn private_hash(&self, hash: HashAlgorithm) -> [u8; 32] {
        hash.hash_parts(&[&self.metadata, &self.value])
    }

    /// One entry of the metadata, such as `VALIDATION_PARAMETER`.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the stored metadata cannot be read.
    pub fn metadata_entry(&self, name: &str) -> Result<Option<Bytes>, Error> {
        Ok(decode_metadata(&self.metadata)?
            .into_iter()
            .find(|entry| entry.name == name)
            .map(|entry| entry.value))
    }

    /// All entries of the metadata, in order of their names.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the stored metadata cannot be read.
    pub fn metadata_entries(&self) -> Result<Vec<(String, Bytes)>, Error> {
        Ok(decode_metadata(&self.metadata)?.into_iter().map(|entry| (entry.name, entry.value)).collect())
    }

    /// The stored form: version, length of the metadata, metadata, value.
    pub(crate) fn to_stored(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.value.len() + self.metadata.len() + 24);
        push_version(&mut bytes, self.version);
        push_number(&mut bytes, self.metadata.len() as u64);
        bytes.extend_from_slice(&self.metadata);
        bytes.extend_from_slice(&self.value);
        bytes
    }

    /// Reads the stored form, copying metadata and value.
    pub(crate) fn from_stored(bytes: &[u8]) -> Result<Self, Error> {
        let damaged = || Error::damaged("state value", format!("{} bytes", bytes.len()));
        let (version, rest) = split_version(bytes).ok_or_else(damaged)?;
        let (length, rest) = split_number(rest).ok_or_else(damaged)?;
        let length =
            usize::try_from(length).ok().filter(|&length| length <= rest.len()).ok_or_else(damaged)?;
        let (metadata, value) = rest.split_at(length);
        Ok(Self { value: Bytes::copy_from_slice(value), metadata: copied(metadata), version })
    }
}

/// Most values have no metadata; nothing is allocated for these.
fn copied(metadata: &[u8]) -> Bytes {
    if metadata.is_empty() { Bytes::new() } else { Bytes::copy_from_slice(metadata) }
}

/// Appends Fabric's `version bytes`: block and transaction in order preserving form.
pub(crate) fn push_version(bytes: &mut Vec<u8>, version: Height) {
    push_number(bytes, version.block.get());
    push_number(bytes, u64::from(version.tx.get()));
}

/// Reads `version bytes` and what follows them.
pub(crate) fn split_version(bytes: &[u8]) -> Option<(Height, &[u8])> {
    let (block, rest) = split_number(bytes)?;
    let (tx, rest) = split_number(rest)?;
    Some((Height::new(block, u32::try_from(tx).ok()?), rest))
}

/// The stored form of metadata: Fabric keeps the write as it came, without the key.
pub(crate) fn encode_metadata(entries: &[MetadataEntry]) -> Bytes {
    let message =
        |entry: &MetadataEntry| KvMetadataEntry { name: entry.name.clone(), value: entry.value.clone() };
    let entries = entries.iter().map(message).collect();
    KvMetadataWrite { key: String::new(), entries }.encode_to_vec().into()
}

/// Reads the stored form of metadata.
pub(crate) fn decode_metadata(bytes: &Bytes) -> Result<Vec<KvMetadataEntry>, Error> {
    let write = KvMetadataWrite::decode(bytes.clone())
        .map_err(|cause| Error::damaged("metadata", cause.to_string()))?;
    Ok(write.entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_read_back_as_stored(value: Vec<u8>, metadata: Vec<u8>, block: u64, tx: u32) {
            let value = VersionedValue { value: value.into(), metadata: metadata.into(), version: Height::new(block, tx) };
            prop_assert_eq!(VersionedValue::from_stored(&value.to_stored()).unwrap(), value);
        }

        #[test]
        fn foreign_bytes_are_an_error_not_a_panic(bytes: Vec<u8>) {
            let bytes = Bytes::from(bytes);
            let _ = VersionedValue::from_stored(&bytes);
            let _ = decode_metadata(&bytes);
        }
    }
}
