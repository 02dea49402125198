//! The committed values that a block's transactions ask for, fetched at once.

use std::{collections::BTreeSet, sync::Arc};

use consort_protos::{
    fabric::protos::TxValidationCode, rwset::NamespaceReadWriteSet, transaction::Transaction,
};

use super::CONFIG_KEY;
use crate::{
    error::Error,
    state::{StateKey, StateReader, VersionedValue},
};

/// Values before the block, by key; a key that was not asked for counts as absent.
#[derive(Debug, Default)]
pub(crate) struct KnownState {
    /// Ascending.
    keys: Vec<StateKey>,
    values: Vec<Option<VersionedValue>>,
}

impl KnownState {
    /// Reads every key that a transaction with the code `Valid` reads or writes.
    pub(super) fn fetch(
        transactions: &[Option<Arc<Transaction>>],
        codes: &[TxValidationCode],
        state: &dyn StateReader,
    ) -> Result<Self, Error> {
        let mut keys = BTreeSet::new();
        for (transaction, code) in transactions.iter().zip(codes) {
            let (Some(transaction), TxValidationCode::Valid) = (transaction, code) else { continue };
            if let Some(invocation) = transaction.invocation() {
                for namespace in &invocation.rwset.namespaces {
                    collect(namespace, &mut keys);
                }
            } else if transaction.config().is_some() {
                keys.insert(StateKey::public("", CONFIG_KEY));
            }
        }
        let keys: Vec<_> = keys.into_iter().collect();
        let values = state.read(&keys)?;
        Ok(Self { keys, values })
    }

    pub(super) fn public(&self, namespace: &str, key: &str) -> Option<&VersionedValue> {
        self.value(&StateKey::public(namespace, key))
    }

    pub(super) fn hashed(
        &self,
        namespace: &str,
        collection: &str,
        key_hash: &[u8],
    ) -> Option<&VersionedValue> {
        self.value(&StateKey::hashed(namespace, collection, key_hash))
    }

    pub(crate) fn value(&self, key: &StateKey) -> Option<&VersionedValue> {
        let index = self.keys.binary_search(key).ok()?;
        self.values[index].as_ref()
    }
}

fn collect(namespace: &NamespaceReadWriteSet, keys: &mut BTreeSet<StateKey>) {
    let name = &namespace.namespace;
    let reads = namespace.reads.iter().map(|read| &read.key);
    let writes = namespace.writes.iter().map(|write| &write.key);
    let metadata = namespace.metadata_writes.iter().map(|write| &write.key);
    keys.extend(reads.chain(writes).chain(metadata).map(|key| StateKey::public(name, key)));
    for collection in &namespace.collections {
        let reads = collection.hashed_reads.iter().map(|read| &read.key_hash);
        let writes = collection.hashed_writes.iter().map(|write| &write.key_hash);
        let metadata = collection.metadata_writes.iter().map(|write| &write.key_hash);
        keys.extend(
            reads.chain(writes).chain(metadata).map(|hash| StateKey::hashed(name, &collection.name, hash)),
        );
    }
}
