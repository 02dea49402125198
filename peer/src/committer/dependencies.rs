//! Which transactions of a block change the policy of a key that later ones of the block write.
//!
//! A metadata write of transaction j makes every later write to that key invalid, if the endorsements of j are valid for
//! the namespace: the later transaction was endorsed under a policy that no longer holds (Fabric
//! `core/common/validation/statebased/vpmanagerimpl.go`). Whether j itself survives the version check does not matter.
//!
//! In the same way a transaction that retires an entry of the table of identities takes it from every later transaction.

use std::collections::{BTreeSet, HashMap, HashSet};

use consort_protos::entry::EntryNumber;
use consort_protos::rwset::{NamespaceReadWriteSet, TxReadWriteSet};

use crate::identities::{self, IDENTITIES};

/// A key that may have a policy: public, or by its hash in a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PolicyKey<'a> {
    pub(super) namespace: &'a str,
    pub(super) collection: Option<&'a str>,
    pub(super) key: &'a [u8],
}

/// The keys that a namespace's part of a read-write set writes, in the order in which they are judged: public writes,
/// public metadata writes, then per collection hashed writes and hashed metadata writes.
pub(super) fn written_keys<'a>(set: &'a NamespaceReadWriteSet) -> impl Iterator<Item = PolicyKey<'a>> {
    let namespace: &'a str = set.namespace.as_str();
    let public = |key: &'a str| PolicyKey { namespace, collection: None, key: key.as_bytes() };
    let writes = set.writes.iter().map(move |write| public(&write.key));
    let metadata = set.metadata_writes.iter().map(move |write| public(&write.key));
    let hashed = set.collections.iter().flat_map(move |collection| {
        collection.hashed_writes.iter().map(move |write| PolicyKey {
            namespace,
            collection: Some(collection.name.as_str()),
            key: &write.key_hash,
        })
    });
    let hashed_metadata = set.collections.iter().flat_map(move |collection| {
        collection.metadata_writes.iter().map(move |write| PolicyKey {
            namespace,
            collection: Some(collection.name.as_str()),
            key: &write.key_hash,
        })
    });
    writes.chain(metadata).chain(hashed).chain(hashed_metadata)
}

fn metadata_keys(set: &NamespaceReadWriteSet) -> impl Iterator<Item = PolicyKey<'_>> {
    let namespace = set.namespace.as_str();
    let public = set.metadata_writes.iter().map(move |write| PolicyKey {
        namespace,
        collection: None,
        key: write.key.as_bytes(),
    });
    let hashed = set.collections.iter().flat_map(move |collection| {
        collection.metadata_writes.iter().map(move |write| PolicyKey {
            namespace,
            collection: Some(collection.name.as_str()),
            key: &write.key_hash,
        })
    });
    public.chain(hashed)
}

/// The metadata writes of a block, the entries of the table of identities that it retires, and which of their transactions
/// have passed.
#[derive(Debug, Default)]
pub(super) struct Dependencies<'a> {
    writers: HashMap<PolicyKey<'a>, Vec<usize>>,
    retiring: HashMap<EntryNumber, Vec<usize>>,
    passed: HashSet<(usize, &'a str)>,
}

impl<'a> Dependencies<'a> {
    /// Collects the metadata writes of every transaction that has a readable read-write set, valid or not.
    pub(super) fn of(sets: impl IntoIterator<Item = (usize, &'a TxReadWriteSet)>) -> Self {
        let mut writers: HashMap<PolicyKey<'a>, Vec<usize>> = HashMap::new();
        let mut retiring: HashMap<EntryNumber, Vec<usize>> = HashMap::new();
        for (index, set) in sets {
            for entry in set.namespaces.iter().flat_map(identities::rules::retired) {
                retiring.entry(entry).or_default().push(index);
            }
            for key in set.namespaces.iter().flat_map(metadata_keys) {
                writers.entry(key).or_default().push(index);
            }
        }
        Self { writers, retiring, passed: HashSet::new() }
    }

    /// Whether the transactions can be judged in any order.
    pub(super) fn is_empty(&self) -> bool {
        self.writers.is_empty() && self.retiring.is_empty()
    }

    /// Notes that the endorsements of a transaction are valid for a namespace.
    pub(super) fn pass(&mut self, index: usize, namespaces: &BTreeSet<&'a str>) {
        self.passed.extend(namespaces.iter().map(|namespace| (index, *namespace)));
    }

    /// Those of the entries that an earlier transaction of the block retired.
    pub(super) fn retired_before(
        &self,
        index: usize,
        entries: BTreeSet<EntryNumber>,
    ) -> BTreeSet<EntryNumber> {
        let earlier = |writer: &usize| *writer < index && self.passed.contains(&(*writer, IDENTITIES));
        let retired =
            |entry: &EntryNumber| self.retiring.get(entry).is_some_and(|writers| writers.iter().any(earlier));
        entries.into_iter().filter(retired).collect()
    }

    /// Whether an earlier transaction of the block changed the policy of the key.
    pub(super) fn changed_before(&self, index: usize, key: &PolicyKey<'_>) -> bool {
        self.writers.get(key).is_some_and(|writers| {
            writers.iter().any(|writer| *writer < index && self.passed.contains(&(*writer, key.namespace)))
        })
    }
}
