//! The committed values that a block's transactions ask for, fetched at once.

use std::{cmp::Ordering, sync::Arc};

use consort_protos::{rwset::NamespaceReadWriteSet, transaction::Transaction};

use super::CONFIG_KEY;
use crate::{
    error::Error,
    state::{Space, StateKey, StateReader, VersionedValue},
};

/// Values before the block, by key; a key that was not asked for counts as absent.
#[derive(Debug, Default)]
pub(crate) struct KnownState {
    /// Ascending.
    keys: Vec<StateKey>,
    values: Vec<Option<VersionedValue>>,
}

impl KnownState {
    /// Reads every key that a wanted transaction reads or writes.
    pub(crate) fn fetch(
        transactions: &[Option<Arc<Transaction>>],
        wanted: &[bool],
        state: &dyn StateReader,
    ) -> Result<Self, Error> {
        let mut keys = Vec::new();
        for (transaction, wanted) in transactions.iter().zip(wanted) {
            let (Some(transaction), true) = (transaction, wanted) else { continue };
            if let Some(invocation) = transaction.invocation() {
                for namespace in &invocation.rwset.namespaces {
                    collect(namespace, &mut keys);
                }
            } else if transaction.config().is_some() {
                keys.push(StateKey::public("", CONFIG_KEY));
            }
        }
        keys.sort_unstable();
        keys.dedup();
        let values = state.read(&keys)?;
        Ok(Self { keys, values })
    }

    pub(crate) fn public(&self, namespace: &str, key: &str) -> Option<&VersionedValue> {
        self.find(|known| known.compare(Space::Public, &[namespace], key.as_bytes()))
    }

    pub(crate) fn hashed(
        &self,
        namespace: &str,
        collection: &str,
        key_hash: &[u8],
    ) -> Option<&VersionedValue> {
        self.find(|known| known.compare(Space::Hashed, &[namespace, collection], key_hash))
    }

    fn find(&self, order: impl Fn(&StateKey) -> Ordering) -> Option<&VersionedValue> {
        let index = self.keys.binary_search_by(order).ok()?;
        self.values[index].as_ref()
    }

    pub(crate) fn value(&self, key: &StateKey) -> Option<&VersionedValue> {
        let index = self.keys.binary_search(key).ok()?;
        self.values[index].as_ref()
    }
}

fn collect(namespace: &NamespaceReadWriteSet, keys: &mut Vec<StateKey>) {
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
