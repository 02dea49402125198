//! What a block changes in the private data that this peer holds.

use std::collections::BTreeMap;

use bytes::Bytes;
use consort_crypto::hash::HashAlgorithm;
use consort_protos::{
    fabric::protos::TxValidationCode,
    ids::Height,
    rwset::{HashedCollection, PrivateCollection},
    transaction::Transaction,
};

use crate::{
    ValidatedBlock,
    database::{Change, Column, Database},
    error::Error,
    state::{StateKey, VersionedValue},
    updates::{Update, UpdateBatch},
};

/// Changes of private values, and of the table that leads from the hash of a key to the key.
///
/// The table lets a delete or a purge remove the private value on every peer that holds it, also on one that did not get the
/// private part of the deleting transaction.
#[derive(Debug, Default)]
pub(crate) struct PrivateChanges {
    values: BTreeMap<StateKey, Option<VersionedValue>>,
    /// From the hashed key's stored form to the private key.
    keys: BTreeMap<Vec<u8>, Option<StateKey>>,
}

impl PrivateChanges {
    /// Checks the private data that came with a block against the hashes in its transactions, and collects what the valid ones change.
    ///
    /// # Errors
    /// [`Error::PrivateDataMismatch`] when data is not what a transaction promises; else when the database cannot be read.
    pub(crate) fn collect(
        block: &ValidatedBlock,
        codes: &[TxValidationCode],
        updates: &UpdateBatch,
        database: &Database,
        hash: HashAlgorithm,
    ) -> Result<Self, Error> {
        let mut changes = Self::default();
        let number = block.number();
        for (&tx, set) in block.private() {
            let index = tx.get() as usize;
            let valid = codes.get(index) == Some(&TxValidationCode::Valid);
            let transaction = block.transactions().get(index).and_then(Option::as_ref);
            for namespace in &set.namespaces {
                for collection in &namespace.collections {
                    let promised = transaction.and_then(|transaction| {
                        promise(transaction, &namespace.namespace, collection.name())
                    });
                    if promised != Some(&Bytes::copy_from_slice(&hash.hash(collection.bytes()))) {
                        return Err(Error::PrivateDataMismatch {
                            number,
                            transaction: tx.get(),
                            namespace: namespace.namespace.clone(),
                            collection: collection.name().to_owned(),
                        });
                    }
                    if valid {
                        changes.write(&namespace.namespace, collection, Height { block: number, tx }, hash);
                    }
                }
            }
        }
        changes.follow_deletes(updates, database)?;
        Ok(changes)
    }

    fn write(
        &mut self,
        namespace: &str,
        collection: &PrivateCollection,
        version: Height,
        hash: HashAlgorithm,
    ) {
        for (write, salt) in collection.salted_writes() {
            let key = StateKey::private(namespace, collection.name(), &write.key);
            let hashed = StateKey::hashed(namespace, collection.name(), &hash.key_hash(&write.key));
            let deleted = write.is_delete || write.value.is_empty();
            let value = (!deleted).then(|| VersionedValue {
                value: write.value.clone(),
                metadata: salt.clone(),
                version,
            });
            self.keys.insert(hashed.as_bytes().to_vec(), (!deleted).then(|| key.clone()));
            self.values.insert(key, value);
        }
    }

    /// Removes the private value of every hash that the block deletes.
    fn follow_deletes(&mut self, updates: &UpdateBatch, database: &Database) -> Result<(), Error> {
        for (namespace, changed) in &updates.namespaces {
            for (collection, keys) in &changed.hashed {
                for (hash, _) in keys.iter().filter(|(_, update)| matches!(update, Update::Delete(_))) {
                    let hashed = StateKey::hashed(namespace, collection, hash).as_bytes().to_vec();
                    let staged = self.keys.get(&hashed).cloned().flatten();
                    let key = match staged {
                        Some(key) => Some(key),
                        None => stored_key(&hashed, namespace, collection, database)?,
                    };
                    if let Some(key) = key {
                        self.values.insert(key, None);
                        self.keys.insert(hashed, None);
                    }
                }
            }
        }
        Ok(())
    }

    /// The private values that change, in key order.
    pub(crate) fn values(&self) -> impl Iterator<Item = (StateKey, Option<VersionedValue>)> + '_ {
        self.values.iter().map(|(key, value)| (key.clone(), value.clone()))
    }

    /// Adds the table's changes to what will be written with the block.
    pub(crate) fn stage_keys(&self, change: &mut Change<'_>) {
        for (hashed, key) in &self.keys {
            match key {
                Some(key) => change.put(Column::PrivateKeys, hashed, key.key()),
                None => change.delete(Column::PrivateKeys, hashed),
            }
        }
    }
}

fn stored_key(
    hashed: &[u8],
    namespace: &str,
    collection: &str,
    database: &Database,
) -> Result<Option<StateKey>, Error> {
    let Some(key) = database.read(Column::PrivateKeys, hashed)? else { return Ok(None) };
    let key = std::str::from_utf8(&key).map_err(|cause| Error::damaged("private key", cause.to_string()))?;
    Ok(Some(StateKey::private(namespace, collection, key)))
}

/// The hash of a collection's private writes, as the endorsed transaction states it.
fn promise<'t>(transaction: &'t Transaction, namespace: &str, collection: &str) -> Option<&'t Bytes> {
    Some(&promised_collection(transaction, namespace, collection)?.pvt_rwset_hash)
}

/// What a transaction states about its private writes to a collection.
pub(crate) fn promised_collection<'t>(
    transaction: &'t Transaction,
    namespace: &str,
    collection: &str,
) -> Option<&'t HashedCollection> {
    let namespace = transaction.invocation()?.rwset.namespace(namespace)?;
    namespace.collections.iter().find(|candidate| candidate.name == collection)
}

/// Whether a transaction has private writes somewhere.
pub(crate) fn has_private_writes(transaction: &Transaction) -> bool {
    let Some(invocation) = transaction.invocation() else { return false };
    invocation
        .rwset
        .namespaces
        .iter()
        .flat_map(|namespace| &namespace.collections)
        .any(|collection| !collection.pvt_rwset_hash.is_empty())
}
