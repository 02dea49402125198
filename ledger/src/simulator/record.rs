//! What a simulation has recorded, and its canonical form.
//!
//! Everything is sorted by the bytes of its key, each key once. Inside a collection the order is that of the plain keys, not of the
//! hashes which are written (Fabric `core/ledger/kvledger/txmgmt/rwsetutil/rwset_builder.go`).

use std::collections::BTreeMap;

use bytes::Bytes;
use consort_crypto::hash::HashAlgorithm;
use consort_protos::{
    ids::Height,
    rwset::{
        HashedCollection, HashedMetadataWrite, HashedRead, HashedWrite, MetadataEntry, MetadataWrite,
        NamespaceReadWriteSet, PrivateCollection, PrivateNamespace, PrivateReadWriteSet, RangeQuery, Read,
        TxReadWriteSet, Write,
    },
};

use super::Simulation;

/// Metadata by name; empty stands for deleting it.
type Entries = BTreeMap<String, Bytes>;

/// Everything that a simulation read and wrote.
#[derive(Default)]
pub(super) struct Record {
    namespaces: BTreeMap<String, NamespaceRecord>,
}

/// What was read and written in a namespace.
#[derive(Default)]
pub(super) struct NamespaceRecord {
    pub(super) reads: BTreeMap<String, Option<Height>>,
    pub(super) range_queries: Vec<RangeQuery>,
    /// An empty value is a delete.
    pub(super) writes: BTreeMap<String, Bytes>,
    pub(super) metadata_writes: BTreeMap<String, Entries>,
    collections: BTreeMap<String, CollectionRecord>,
}

/// What was read and written in a collection, by plain key.
#[derive(Default)]
pub(super) struct CollectionRecord {
    pub(super) reads: BTreeMap<String, Option<Height>>,
    pub(super) writes: BTreeMap<String, PrivateWrite>,
    pub(super) metadata_writes: BTreeMap<String, Entries>,
}

/// A change of a private key.
pub(super) enum PrivateWrite {
    /// A value, with the salt of its hash where the collection asks for one.
    Put(Bytes, Option<[u8; 32]>),
    Delete,
    Purge,
}

impl Record {
    pub(super) fn namespace(&mut self, namespace: &str) -> &mut NamespaceRecord {
        if !self.namespaces.contains_key(namespace) {
            self.namespaces.insert(namespace.to_owned(), NamespaceRecord::default());
        }
        self.namespaces.get_mut(namespace).expect("invariant: inserted just now where it was missing")
    }

    pub(super) fn collection(&mut self, namespace: &str, collection: &str) -> &mut CollectionRecord {
        self.namespace(namespace).collections.entry(collection.to_owned()).or_default()
    }

    /// The canonical read-write set and the private part of it, under the hash of the channel.
    pub(super) fn finish(self, hash: HashAlgorithm) -> Simulation {
        let mut rwset = TxReadWriteSet { namespaces: Vec::with_capacity(self.namespaces.len()) };
        let mut private = PrivateReadWriteSet { namespaces: Vec::new() };
        for (namespace, record) in self.namespaces {
            let mut collections = Vec::with_capacity(record.collections.len());
            let mut private_collections = Vec::new();
            for (name, collection) in record.collections {
                let (hashed, plain) = collection.finish(name, hash);
                collections.push(hashed);
                private_collections.extend(plain);
            }
            if !private_collections.is_empty() {
                private.namespaces.push(PrivateNamespace {
                    namespace: namespace.clone(),
                    collections: private_collections,
                });
            }
            rwset.namespaces.push(NamespaceReadWriteSet {
                namespace,
                reads: record.reads.into_iter().map(|(key, version)| Read { key, version }).collect(),
                range_queries: record.range_queries,
                writes: record
                    .writes
                    .into_iter()
                    .map(|(key, value)| Write { key, is_delete: value.is_empty(), value })
                    .collect(),
                metadata_writes: record.metadata_writes.into_iter().map(metadata_write).collect(),
                collections,
            });
        }
        Simulation { rwset, private }
    }
}

impl CollectionRecord {
    /// The hashed form, and the plain one where something was written.
    fn finish(self, name: String, hash: HashAlgorithm) -> (HashedCollection, Option<PrivateCollection>) {
        let salted = |salt: &[u8], value: &[u8]| Bytes::copy_from_slice(&hash.hash_parts(&[salt, value]));
        let hash = |bytes: &[u8]| Bytes::copy_from_slice(&hash.hash(bytes));
        let hashed_reads = self
            .reads
            .iter()
            .map(|(key, version)| HashedRead { key_hash: hash(key.as_bytes()), version: *version })
            .collect();
        let hashed_writes = self
            .writes
            .iter()
            .map(|(key, write)| HashedWrite {
                key_hash: hash(key.as_bytes()),
                is_delete: !matches!(write, PrivateWrite::Put(..)),
                value_hash: match write {
                    PrivateWrite::Put(value, salt) => salted(salt_bytes(salt), value),
                    PrivateWrite::Delete | PrivateWrite::Purge => Bytes::new(),
                },
                is_purge: matches!(write, PrivateWrite::Purge),
            })
            .collect();
        let metadata_writes = self
            .metadata_writes
            .iter()
            .map(|(key, entries)| HashedMetadataWrite {
                key_hash: hash(key.as_bytes()),
                entries: entries_of(entries),
            })
            .collect();
        let wrote = !self.writes.is_empty() || !self.metadata_writes.is_empty();
        let plain = wrote.then(|| {
            let writes = self.writes.into_iter().map(plain_write).collect();
            let metadata_writes =
                self.metadata_writes.into_keys().map(|key| MetadataWrite { key, entries: Vec::new() });
            PrivateCollection::salted(&name, writes, metadata_writes.collect())
        });
        let pvt_rwset_hash = plain.as_ref().map(|plain| hash(plain.bytes())).unwrap_or_default();
        (HashedCollection { name, hashed_reads, hashed_writes, metadata_writes, pvt_rwset_hash }, plain)
    }
}

/// A purge looks like a delete to those who hold the data.
fn plain_write((key, write): (String, PrivateWrite)) -> (Write, Bytes) {
    match write {
        PrivateWrite::Put(value, salt) => {
            (Write { key, is_delete: false, value }, Bytes::copy_from_slice(salt_bytes(&salt)))
        }
        PrivateWrite::Delete | PrivateWrite::Purge => {
            (Write { key, is_delete: true, value: Bytes::new() }, Bytes::new())
        }
    }
}

/// No bytes where there is no salt: the hash is then Fabric's.
fn salt_bytes(salt: &Option<[u8; 32]>) -> &[u8] {
    salt.as_ref().map_or(&[], |salt| salt)
}

fn metadata_write((key, entries): (String, Entries)) -> MetadataWrite {
    MetadataWrite { key, entries: entries_of(&entries) }
}

fn entries_of(entries: &Entries) -> Vec<MetadataEntry> {
    entries.iter().map(|(name, value)| MetadataEntry { name: name.clone(), value: value.clone() }).collect()
}
