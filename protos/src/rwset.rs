//! Read-write sets: what a transaction read, with versions, and what it wants to write.
//!
//! The order of the entries is part of the bytes that endorsers sign, so it must be the same on every peer: namespaces,
//! keys, collections and metadata names in byte order, collection entries in the order of the *raw* keys,
//! range queries in the order in which they were opened (Fabric `core/ledger/kvledger/txmgmt/rwsetutil`).
//! Whoever simulates builds them so; [`TxReadWriteSet::encode`] writes them down as they are.

use std::fmt;

use bytes::Bytes;
use prost::Message;

use crate::fabric::{kvrwset, rwset};
use crate::ids::Height;

/// Length of the salt of a private value's hash, in bytes. It is fixed, so that salt and value are told apart in what is hashed.
pub const SALT_BYTES: usize = 32;

/// The bytes are no read-write set.
#[derive(Debug, thiserror::Error)]
#[error("malformed read-write set of {place}")]
pub struct MalformedReadWriteSet {
    place: String,
    #[source]
    cause: Cause,
}

/// What is wrong with it.
#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Decode(#[from] prost::DecodeError),
    #[error("a salt of {0} bytes, where {SALT_BYTES} are due")]
    Salt(usize),
}

impl MalformedReadWriteSet {
    fn new(place: &str, cause: impl Into<Cause>) -> Self {
        Self { place: place.to_owned(), cause: cause.into() }
    }
}

/// Everything that a transaction read and wrote, by namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxReadWriteSet {
    /// One entry per namespace that was touched.
    pub namespaces: Vec<NamespaceReadWriteSet>,
}

/// What happened in the keys of one chaincode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceReadWriteSet {
    /// Name of the chaincode.
    pub namespace: String,
    /// Keys that were read.
    pub reads: Vec<Read>,
    /// Ranges that were iterated over.
    pub range_queries: Vec<RangeQuery>,
    /// Keys that are to be written or deleted.
    pub writes: Vec<Write>,
    /// Keys whose metadata is to be replaced.
    pub metadata_writes: Vec<MetadataWrite>,
    /// Private collections, with hashes in place of keys and values.
    pub collections: Vec<HashedCollection>,
}

/// A key and the version that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The key.
    pub key: String,
    /// Version of the value; `None` when the key was absent.
    pub version: Option<Height>,
}

/// An iteration over a range, kept so that phantoms can be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeQuery {
    /// First key of the range, inclusive.
    pub start_key: String,
    /// End of the range, exclusive, when exhausted; else the last key that was fetched.
    pub end_key: String,
    /// The iteration reached the end of the range.
    pub exhausted: bool,
    /// What the range held.
    pub reads: RangeReads,
}

/// The results of a range query, in full or summarised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeReads {
    /// Nothing was found, and no list is present.
    Empty,
    /// The results themselves.
    Raw(Vec<Read>),
    /// The topmost level of a tree of hashes over the results.
    Merkle(MerkleSummary),
}

/// The topmost level of a tree of hashes over the results of a range query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MerkleSummary {
    /// Most entries of a level before it is combined.
    pub max_degree: u32,
    /// Number of the level, counted from 1 at the leaves.
    pub max_level: u32,
    /// Hashes of that level.
    pub hashes: Vec<Bytes>,
}

/// A key and its new value.
#[derive(Clone, PartialEq, Eq)]
pub struct Write {
    /// The key.
    pub key: String,
    /// The key goes away.
    pub is_delete: bool,
    /// The new value; empty for a delete.
    pub value: Bytes,
}

// Values may be private data, so only their length is shown.
impl fmt::Debug for Write {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Write")
            .field("key", &self.key)
            .field("is_delete", &self.is_delete)
            .field("value_bytes", &self.value.len())
            .finish()
    }
}

/// A key and its new metadata; no entries delete the metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataWrite {
    /// The key.
    pub key: String,
    /// Names and values, by name.
    pub entries: Vec<MetadataEntry>,
}

/// One named piece of metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataEntry {
    /// The name, such as `VALIDATION_PARAMETER`.
    pub name: String,
    /// The value.
    pub value: Bytes,
}

/// The public trace of a private collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HashedCollection {
    /// Name of the collection.
    pub name: String,
    /// Keys that were read.
    pub hashed_reads: Vec<HashedRead>,
    /// Keys that are to be written, deleted or purged.
    pub hashed_writes: Vec<HashedWrite>,
    /// Keys whose metadata is to be replaced.
    pub metadata_writes: Vec<HashedMetadataWrite>,
    /// SHA-256 of the private read-write set; empty when nothing was written.
    pub pvt_rwset_hash: Bytes,
}

/// The hash of a private key and the version that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashedRead {
    /// SHA-256 of the key.
    pub key_hash: Bytes,
    /// Version of the value; `None` when the key was absent.
    pub version: Option<Height>,
}

/// The hashes of a private key and its new value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashedWrite {
    /// SHA-256 of the key.
    pub key_hash: Bytes,
    /// The key goes away.
    pub is_delete: bool,
    /// SHA-256 of the value; empty for a delete.
    pub value_hash: Bytes,
    /// The key's history goes away too.
    pub is_purge: bool,
}

/// The hash of a private key and its new metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashedMetadataWrite {
    /// SHA-256 of the key.
    pub key_hash: Bytes,
    /// Names and values, by name.
    pub entries: Vec<MetadataEntry>,
}

impl TxReadWriteSet {
    /// The bytes that become `ChaincodeAction.results`.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let ns_rwset = self.namespaces.iter().map(NamespaceReadWriteSet::to_message).collect();
        rwset::TxReadWriteSet { data_model: 0, ns_rwset }.encode_to_vec().into()
    }

    /// Opens `ChaincodeAction.results` and everything nested in it.
    ///
    /// # Errors
    ///
    /// When any level does not parse, or a public key is not UTF-8.
    pub fn decode(bytes: &Bytes) -> Result<Self, MalformedReadWriteSet> {
        let message = rwset::TxReadWriteSet::decode(bytes.clone())
            .map_err(|cause| MalformedReadWriteSet::new("the transaction", cause))?;
        let namespaces = message
            .ns_rwset
            .into_iter()
            .map(NamespaceReadWriteSet::from_message)
            .collect::<Result<_, _>>()?;
        Ok(Self { namespaces })
    }

    /// The set of one namespace.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&NamespaceReadWriteSet> {
        self.namespaces.iter().find(|set| set.namespace == name)
    }
}

impl NamespaceReadWriteSet {
    /// Something is written here: keys, metadata, or either of them in a collection.
    #[must_use]
    pub fn is_written(&self) -> bool {
        !self.writes.is_empty()
            || !self.metadata_writes.is_empty()
            || self.collections.iter().any(HashedCollection::is_written)
    }

    fn to_message(&self) -> rwset::NsReadWriteSet {
        let set = kvrwset::KvrwSet {
            reads: self.reads.iter().map(Read::to_message).collect(),
            range_queries_info: self.range_queries.iter().map(RangeQuery::to_message).collect(),
            writes: self.writes.iter().map(Write::to_message).collect(),
            metadata_writes: self.metadata_writes.iter().map(MetadataWrite::to_message).collect(),
        };
        rwset::NsReadWriteSet {
            namespace: self.namespace.clone(),
            rwset: set.encode_to_vec().into(),
            collection_hashed_rwset: self.collections.iter().map(HashedCollection::to_message).collect(),
        }
    }

    fn from_message(message: rwset::NsReadWriteSet) -> Result<Self, MalformedReadWriteSet> {
        let set = kvrwset::KvrwSet::decode(message.rwset)
            .map_err(|cause| MalformedReadWriteSet::new(&message.namespace, cause))?;
        let collections = message
            .collection_hashed_rwset
            .into_iter()
            .map(HashedCollection::from_message)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            namespace: message.namespace,
            reads: set.reads.into_iter().map(Read::from_message).collect(),
            range_queries: set.range_queries_info.into_iter().map(RangeQuery::from_message).collect(),
            writes: set.writes.into_iter().map(Write::from_message).collect(),
            metadata_writes: set.metadata_writes.into_iter().map(MetadataWrite::from_message).collect(),
            collections,
        })
    }
}

impl Read {
    /// The message, as read-write sets and the leaves of a Merkle summary hold it.
    #[must_use]
    pub fn to_message(&self) -> kvrwset::KvRead {
        kvrwset::KvRead { key: self.key.clone(), version: self.version.map(Height::to_version) }
    }

    fn from_message(message: kvrwset::KvRead) -> Self {
        Self { key: message.key, version: message.version.as_ref().map(Height::from_version) }
    }
}

impl RangeQuery {
    fn to_message(&self) -> kvrwset::RangeQueryInfo {
        use kvrwset::range_query_info::ReadsInfo;
        let reads_info = match &self.reads {
            RangeReads::Empty => None,
            RangeReads::Raw(reads) => Some(ReadsInfo::RawReads(kvrwset::QueryReads {
                kv_reads: reads.iter().map(Read::to_message).collect(),
            })),
            RangeReads::Merkle(summary) => {
                Some(ReadsInfo::ReadsMerkleHashes(kvrwset::QueryReadsMerkleSummary {
                    max_degree: summary.max_degree,
                    max_level: summary.max_level,
                    max_level_hashes: summary.hashes.clone(),
                }))
            }
        };
        kvrwset::RangeQueryInfo {
            start_key: self.start_key.clone(),
            end_key: self.end_key.clone(),
            itr_exhausted: self.exhausted,
            reads_info,
        }
    }

    fn from_message(message: kvrwset::RangeQueryInfo) -> Self {
        use kvrwset::range_query_info::ReadsInfo;
        let reads = match message.reads_info {
            None => RangeReads::Empty,
            Some(ReadsInfo::RawReads(reads)) => {
                RangeReads::Raw(reads.kv_reads.into_iter().map(Read::from_message).collect())
            }
            Some(ReadsInfo::ReadsMerkleHashes(summary)) => RangeReads::Merkle(MerkleSummary {
                max_degree: summary.max_degree,
                max_level: summary.max_level,
                hashes: summary.max_level_hashes,
            }),
        };
        Self {
            start_key: message.start_key,
            end_key: message.end_key,
            exhausted: message.itr_exhausted,
            reads,
        }
    }
}

impl Write {
    fn to_message(&self) -> kvrwset::KvWrite {
        self.to_salted_message(&Bytes::new())
    }

    fn to_salted_message(&self, salt: &Bytes) -> kvrwset::KvWrite {
        kvrwset::KvWrite {
            key: self.key.clone(),
            is_delete: self.is_delete,
            value: self.value.clone(),
            salt: salt.clone(),
        }
    }

    fn from_message(message: kvrwset::KvWrite) -> Self {
        Self { key: message.key, is_delete: message.is_delete, value: message.value }
    }
}

impl MetadataWrite {
    fn to_message(&self) -> kvrwset::KvMetadataWrite {
        kvrwset::KvMetadataWrite { key: self.key.clone(), entries: entries_to_messages(&self.entries) }
    }

    fn from_message(message: kvrwset::KvMetadataWrite) -> Self {
        Self { key: message.key, entries: entries_from_messages(message.entries) }
    }
}

fn entries_to_messages(entries: &[MetadataEntry]) -> Vec<kvrwset::KvMetadataEntry> {
    let message = |entry: &MetadataEntry| kvrwset::KvMetadataEntry {
        name: entry.name.clone(),
        value: entry.value.clone(),
    };
    entries.iter().map(message).collect()
}

fn entries_from_messages(messages: Vec<kvrwset::KvMetadataEntry>) -> Vec<MetadataEntry> {
    messages.into_iter().map(|entry| MetadataEntry { name: entry.name, value: entry.value }).collect()
}

impl HashedCollection {
    /// Keys or metadata of the collection are written.
    #[must_use]
    pub fn is_written(&self) -> bool {
        !self.hashed_writes.is_empty() || !self.metadata_writes.is_empty()
    }

    fn to_message(&self) -> rwset::CollectionHashedReadWriteSet {
        let hashed_reads = self.hashed_reads.iter().map(|read| kvrwset::KvReadHash {
            key_hash: read.key_hash.clone(),
            version: read.version.map(Height::to_version),
        });
        let hashed_writes = self.hashed_writes.iter().map(|write| kvrwset::KvWriteHash {
            key_hash: write.key_hash.clone(),
            is_delete: write.is_delete,
            value_hash: write.value_hash.clone(),
            is_purge: write.is_purge,
        });
        let metadata_writes = self.metadata_writes.iter().map(|write| kvrwset::KvMetadataWriteHash {
            key_hash: write.key_hash.clone(),
            entries: entries_to_messages(&write.entries),
        });
        let set = kvrwset::HashedRwSet {
            hashed_reads: hashed_reads.collect(),
            hashed_writes: hashed_writes.collect(),
            metadata_writes: metadata_writes.collect(),
        };
        rwset::CollectionHashedReadWriteSet {
            collection_name: self.name.clone(),
            hashed_rwset: set.encode_to_vec().into(),
            pvt_rwset_hash: self.pvt_rwset_hash.clone(),
        }
    }

    fn from_message(message: rwset::CollectionHashedReadWriteSet) -> Result<Self, MalformedReadWriteSet> {
        let set = kvrwset::HashedRwSet::decode(message.hashed_rwset)
            .map_err(|cause| MalformedReadWriteSet::new(&message.collection_name, cause))?;
        let hashed_reads = set.hashed_reads.into_iter().map(|read| HashedRead {
            key_hash: read.key_hash,
            version: read.version.as_ref().map(Height::from_version),
        });
        let hashed_writes = set.hashed_writes.into_iter().map(|write| HashedWrite {
            key_hash: write.key_hash,
            is_delete: write.is_delete,
            value_hash: write.value_hash,
            is_purge: write.is_purge,
        });
        let metadata_writes = set.metadata_writes.into_iter().map(|write| HashedMetadataWrite {
            key_hash: write.key_hash,
            entries: entries_from_messages(write.entries),
        });
        Ok(Self {
            name: message.collection_name,
            hashed_reads: hashed_reads.collect(),
            hashed_writes: hashed_writes.collect(),
            metadata_writes: metadata_writes.collect(),
            pvt_rwset_hash: message.pvt_rwset_hash,
        })
    }
}

/// What a transaction writes to private collections; travels beside the transaction, which holds its hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrivateReadWriteSet {
    /// One entry per namespace with private writes.
    pub namespaces: Vec<PrivateNamespace>,
}

/// Private writes of one chaincode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrivateNamespace {
    /// Name of the chaincode.
    pub namespace: String,
    /// One entry per collection with writes.
    pub collections: Vec<PrivateCollection>,
}

/// Writes to one private collection, together with the exact bytes that the public hash covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateCollection {
    name: String,
    bytes: Bytes,
    writes: Vec<Write>,
    /// One for each write; empty where there is none.
    salts: Vec<Bytes>,
    metadata_writes: Vec<MetadataWrite>,
}

impl PrivateReadWriteSet {
    /// Nothing private is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
    }

    /// The message that is sent to other peers and to clients.
    #[must_use]
    pub fn to_message(&self) -> rwset::TxPvtReadWriteSet {
        let collection = |collection: &PrivateCollection| rwset::CollectionPvtReadWriteSet {
            collection_name: collection.name.clone(),
            rwset: collection.bytes.clone(),
        };
        let namespace = |namespace: &PrivateNamespace| rwset::NsPvtReadWriteSet {
            namespace: namespace.namespace.clone(),
            collection_pvt_rwset: namespace.collections.iter().map(collection).collect(),
        };
        rwset::TxPvtReadWriteSet {
            data_model: 0,
            ns_pvt_rwset: self.namespaces.iter().map(namespace).collect(),
        }
    }

    /// The encoded message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.to_message().encode_to_vec().into()
    }

    /// Opens an encoded `rwset.TxPvtReadWriteSet` and everything nested in it.
    ///
    /// # Errors
    ///
    /// When any level does not parse.
    pub fn decode(bytes: &Bytes) -> Result<Self, MalformedReadWriteSet> {
        let message = rwset::TxPvtReadWriteSet::decode(bytes.clone())
            .map_err(|cause| MalformedReadWriteSet::new("a private transaction", cause))?;
        Self::from_message(message)
    }

    /// Opens a message and everything nested in it.
    ///
    /// # Errors
    ///
    /// When any level does not parse.
    pub fn from_message(message: rwset::TxPvtReadWriteSet) -> Result<Self, MalformedReadWriteSet> {
        let mut namespaces = Vec::new();
        for namespace in message.ns_pvt_rwset {
            let collections = namespace
                .collection_pvt_rwset
                .into_iter()
                .map(|collection| PrivateCollection::decode(&collection.collection_name, collection.rwset))
                .collect::<Result<_, _>>()?;
            namespaces.push(PrivateNamespace { namespace: namespace.namespace, collections });
        }
        Ok(Self { namespaces })
    }

    /// The writes to one collection.
    #[must_use]
    pub fn collection(&self, namespace: &str, name: &str) -> Option<&PrivateCollection> {
        let namespace = self.namespaces.iter().find(|candidate| candidate.namespace == namespace)?;
        namespace.collections.iter().find(|candidate| candidate.name == name)
    }
}

impl PrivateCollection {
    /// Takes writes in the order of their keys. A purge is a plain delete here; metadata writes name keys and hold no
    /// entries.
    #[must_use]
    pub fn new(name: &str, writes: Vec<Write>, metadata_writes: Vec<MetadataWrite>) -> Self {
        let unsalted = writes.into_iter().map(|write| (write, Bytes::new())).collect();
        Self::salted(name, unsalted, metadata_writes)
    }

    /// The same with a salt for each write: [`SALT_BYTES`], or none.
    #[must_use]
    pub fn salted(name: &str, writes: Vec<(Write, Bytes)>, metadata_writes: Vec<MetadataWrite>) -> Self {
        let set = kvrwset::KvrwSet {
            reads: Vec::new(),
            range_queries_info: Vec::new(),
            writes: writes.iter().map(|(write, salt)| write.to_salted_message(salt)).collect(),
            metadata_writes: metadata_writes.iter().map(MetadataWrite::to_message).collect(),
        };
        let bytes = set.encode_to_vec().into();
        let (writes, salts) = writes.into_iter().unzip();
        Self { name: name.to_owned(), bytes, writes, salts, metadata_writes }
    }

    /// Opens the bytes of a private `kvrwset.KVRWSet` and keeps them.
    ///
    /// # Errors
    ///
    /// When they do not parse, or a salt has another length than [`SALT_BYTES`].
    pub fn decode(name: &str, bytes: Bytes) -> Result<Self, MalformedReadWriteSet> {
        let set = kvrwset::KvrwSet::decode(bytes.clone())
            .map_err(|cause| MalformedReadWriteSet::new(name, cause))?;
        let salts: Vec<Bytes> = set.writes.iter().map(|write| write.salt.clone()).collect();
        if let Some(wrong) = salts.iter().find(|salt| !matches!(salt.len(), 0 | SALT_BYTES)) {
            return Err(MalformedReadWriteSet::new(name, Cause::Salt(wrong.len())));
        }
        Ok(Self {
            name: name.to_owned(),
            bytes,
            salts,
            writes: set.writes.into_iter().map(Write::from_message).collect(),
            metadata_writes: set.metadata_writes.into_iter().map(MetadataWrite::from_message).collect(),
        })
    }

    /// Name of the collection.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bytes whose SHA-256 is the collection's `pvt_rwset_hash`.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The writes, by key.
    #[must_use]
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// The writes, each with the salt of its value's hash, which is that of salt and value; the salt is empty where the collection asks
    /// for none.
    pub fn salted_writes(&self) -> impl Iterator<Item = (&Write, &Bytes)> {
        self.writes.iter().zip(&self.salts)
    }

    /// Keys whose metadata is replaced.
    #[must_use]
    pub fn metadata_writes(&self) -> &[MetadataWrite] {
        &self.metadata_writes
    }
}
