//! Private data in a simulation. What is recorded publicly are hashes.
//!
//! Whether the collection exists, and whether the creator may touch it, is checked by the caller: that needs the chaincode's definition.

use std::collections::BTreeMap;

use bytes::Bytes;
use consort_crypto::hash::HashAlgorithm;
use consort_protos::ids::Height;

use super::{SimulationError, TxSimulator, record::PrivateWrite};
use crate::state::{StateReader, VersionedValue};

impl TxSimulator {
    /// A private value; the hashed read is recorded.
    ///
    /// # Errors
    /// When this peer does not hold the data that belongs to the committed hash, or the state cannot be read.
    pub fn private(
        &mut self,
        namespace: &str,
        collection: &str,
        key: &str,
    ) -> Result<Option<Bytes>, SimulationError> {
        let hashed = self.snapshot.hashed(namespace, collection, &self.hash().key_hash(key))?;
        let plain = self.snapshot.private(namespace, collection, key)?;
        let available = match (&hashed, &plain) {
            (None, None) => true,
            (Some(hashed), Some(plain)) => hashed.value == plain.private_hash(self.hash()).as_slice(),
            _ => false,
        };
        if !available {
            let version = |value: &Option<VersionedValue>| {
                value.as_ref().map_or_else(|| "<nil>".to_owned(), version_text)
            };
            return Err(SimulationError::Rule(format!(
                "private data matching public hash version is not available. Public hash version = {}, Private data version = {}",
                version(&hashed),
                version(&plain)
            )));
        }
        self.record_hashed_read(namespace, collection, key, hashed.map(|value| value.version));
        Ok(plain.map(|value| value.value))
    }

    /// Several private values, in the order of the keys; the hashed reads are recorded (Fabric `GetMultiplePrivateData`).
    ///
    /// # Errors
    /// As for [`TxSimulator::private`], for the first key that fails.
    pub fn private_many(
        &mut self,
        namespace: &str,
        collection: &str,
        keys: &[String],
    ) -> Result<Vec<Option<Bytes>>, SimulationError> {
        keys.iter().map(|key| self.private(namespace, collection, key)).collect()
    }

    /// The hash of a private value, which every peer has; the hashed read is recorded.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn private_hash(
        &mut self,
        namespace: &str,
        collection: &str,
        key: &str,
    ) -> Result<Option<Bytes>, SimulationError> {
        Ok(self.read_hashed(namespace, collection, key)?.map(|value| value.value))
    }

    /// Metadata of a private key by name; the hashed read is recorded.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn private_metadata(
        &mut self,
        namespace: &str,
        collection: &str,
        key: &str,
    ) -> Result<BTreeMap<String, Bytes>, SimulationError> {
        let entries = self
            .read_hashed(namespace, collection, key)?
            .map(|value| value.metadata_entries())
            .transpose()?;
        Ok(entries.unwrap_or_default().into_iter().collect())
    }

    /// That of the channel.
    pub(super) fn hash(&self) -> HashAlgorithm {
        self.snapshot.hash_algorithm()
    }

    fn read_hashed(
        &mut self,
        namespace: &str,
        collection: &str,
        key: &str,
    ) -> Result<Option<VersionedValue>, SimulationError> {
        let hashed = self.snapshot.hashed(namespace, collection, &self.hash().key_hash(key))?;
        self.record_hashed_read(namespace, collection, key, hashed.as_ref().map(|value| value.version));
        Ok(hashed)
    }

    fn record_hashed_read(&mut self, namespace: &str, collection: &str, key: &str, version: Option<Height>) {
        self.record.collection(namespace, collection).reads.insert(key.to_owned(), version);
    }

    /// Writes a private value. An empty value deletes it.
    ///
    /// # Errors
    /// After a paginated query or a query of private data.
    pub fn put_private(
        &mut self,
        namespace: &str,
        collection: &str,
        key: &str,
        value: Bytes,
    ) -> Result<(), SimulationError> {
        let write = if value.is_empty() { PrivateWrite::Delete } else { PrivateWrite::Put(value, None) };
        self.write_private(namespace, collection, key, write)
    }

    /// Writes a private value that stands on the ledger as the hash of salt and value. An empty value deletes the key.
    ///
    /// # Errors
    /// As for [`TxSimulator::put_private`].
    pub fn put_private_salted(
        &mut self,
        namespace: &str,
        collection: &str,
        key: &str,
        value: Bytes,
        salt: [u8; 32],
    ) -> Result<(), SimulationError> {
        let write =
            if value.is_empty() { PrivateWrite::Delete } else { PrivateWrite::Put(value, Some(salt)) };
        self.write_private(namespace, collection, key, write)
    }

    /// Deletes a private value and its hash.
    ///
    /// # Errors
    /// As for [`TxSimulator::put_private`].
    pub fn delete_private(
        &mut self,
        namespace: &str,
        collection: &str,
        key: &str,
    ) -> Result<(), SimulationError> {
        self.write_private(namespace, collection, key, PrivateWrite::Delete)
    }

    /// Deletes a private value and its hash, and whatever older values peers have kept of it.
    ///
    /// # Errors
    /// As for [`TxSimulator::put_private`].
    pub fn purge_private(
        &mut self,
        namespace: &str,
        collection: &str,
        key: &str,
    ) -> Result<(), SimulationError> {
        self.write_private(namespace, collection, key, PrivateWrite::Purge)
    }

    fn write_private(
        &mut self,
        namespace: &str,
        collection: &str,
        key: &str,
        write: PrivateWrite,
    ) -> Result<(), SimulationError> {
        self.may_write()?;
        self.record.collection(namespace, collection).writes.insert(key.to_owned(), write);
        Ok(())
    }

    /// Replaces all metadata of a private key; no entries delete it.
    ///
    /// # Errors
    /// As for [`TxSimulator::put_private`].
    pub fn put_private_metadata(
        &mut self,
        namespace: &str,
        collection: &str,
        key: &str,
        entries: BTreeMap<String, Bytes>,
    ) -> Result<(), SimulationError> {
        self.may_write()?;
        self.record.collection(namespace, collection).metadata_writes.insert(key.to_owned(), entries);
        Ok(())
    }
}

/// As Fabric prints a version.
fn version_text(value: &VersionedValue) -> String {
    format!("{{BlockNum: {}, TxNum: {}}}", value.version.block, value.version.tx)
}
