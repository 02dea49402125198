//! What a block changes in the public and hashed state, and Fabric's commit hash over it.

use std::collections::BTreeMap;

use bytes::Bytes;
use consort_crypto::hash::HashAlgorithm;
use consort_protos::ids::Height;
use prost::{
    Message,
    encoding::{encode_varint, encoded_len_varint},
};

use crate::state::{StateKey, VersionedValue, push_version};

/// The final change of one key by a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// The key has this value now.
    Put(VersionedValue),
    /// The key was deleted by this transaction.
    Delete(Height),
}

impl Update {
    /// The value that the key has now.
    #[must_use]
    pub fn value(&self) -> Option<&VersionedValue> {
        match self {
            Self::Put(value) => Some(value),
            Self::Delete(_) => None,
        }
    }
}

/// Changes inside one namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceUpdates {
    /// By key.
    pub public: BTreeMap<String, Update>,
    /// By collection, then by key hash.
    pub hashed: BTreeMap<String, BTreeMap<Bytes, Update>>,
}

/// All changes of a block, in the order that hashes and stores need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpdateBatch {
    /// By namespace.
    pub namespaces: BTreeMap<String, NamespaceUpdates>,
}

/// One row of the hashed list (Fabric `core/ledger/kvledger/txmgmt/txmgr/updates.proto`).
#[derive(Clone, PartialEq, Message)]
struct UpdateRow {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    collection: String,
    #[prost(bytes = "bytes", tag = "3")]
    key: Bytes,
    #[prost(bool, tag = "4")]
    is_delete: bool,
    #[prost(bytes = "bytes", tag = "5")]
    value: Bytes,
    #[prost(bytes = "vec", tag = "6")]
    version: Vec<u8>,
}

impl UpdateBatch {
    /// The change of a public key, if there is one.
    #[must_use]
    pub fn public(&self, namespace: &str, key: &str) -> Option<&Update> {
        self.namespaces.get(namespace)?.public.get(key)
    }

    /// The change of a hashed key, if there is one.
    #[must_use]
    pub fn hashed(&self, namespace: &str, collection: &str, key_hash: &[u8]) -> Option<&Update> {
        self.namespaces.get(namespace)?.hashed.get(collection)?.get(key_hash)
    }

    /// The changes as a store takes them, in key order.
    #[must_use]
    pub fn changes(&self) -> Vec<(StateKey, Option<VersionedValue>)> {
        let public = self.namespaces.iter().flat_map(|(namespace, updates)| {
            updates
                .public
                .iter()
                .map(move |(key, update)| (StateKey::public(namespace, key), update.value().cloned()))
        });
        let hashed = self.namespaces.iter().flat_map(|(namespace, updates)| {
            updates.hashed.iter().flat_map(move |(collection, keys)| {
                keys.iter().map(move |(key, update)| {
                    (StateKey::hashed(namespace, collection, key), update.value().cloned())
                })
            })
        });
        public.chain(hashed).collect()
    }

    /// The bytes that the commit hash covers: a list of rows, where the namespace stands only on its first row and the collection
    /// only on the first row of each. The channel's configuration (namespace "") is left out.
    #[must_use]
    pub fn hashed_form(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (namespace, updates) in self.namespaces.iter().filter(|(namespace, _)| !namespace.is_empty()) {
            let mut namespace = namespace.clone();
            for (key, update) in &updates.public {
                push_row(
                    &mut bytes,
                    std::mem::take(&mut namespace),
                    String::new(),
                    Bytes::copy_from_slice(key.as_bytes()),
                    update,
                );
            }
            for (collection, keys) in &updates.hashed {
                let mut collection = collection.clone();
                for (key, update) in keys {
                    push_row(
                        &mut bytes,
                        std::mem::take(&mut namespace),
                        std::mem::take(&mut collection),
                        key.clone(),
                        update,
                    );
                }
            }
        }
        bytes
    }
}

fn push_row(bytes: &mut Vec<u8>, namespace: String, collection: String, key: Bytes, update: &Update) {
    let (value, height) = match update {
        Update::Put(value) => (value.value.clone(), value.version),
        Update::Delete(height) => (Bytes::new(), *height),
    };
    let mut version = Vec::new();
    push_version(&mut version, height);
    let row = UpdateRow {
        namespace,
        collection,
        key,
        is_delete: matches!(update, Update::Delete(_)),
        value,
        version,
    };
    prost::encoding::message::encode(1, &row, bytes);
}

/// Fabric's commit hash of a block: over the final codes, the changes and the hash of the block before
/// (Fabric `core/ledger/kvledger/kv_ledger.go`, `addBlockCommitHash`).
#[must_use]
pub fn commit_hash(hash: HashAlgorithm, codes: &[u8], updates: &UpdateBatch, previous: &[u8]) -> [u8; 32] {
    let mut count = Vec::with_capacity(encoded_len_varint(codes.len() as u64));
    encode_varint(codes.len() as u64, &mut count);
    hash.hash_parts(&[&count, codes, &updates.hashed_form(), previous])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes, changes and previous hash of blocks of a real Fabric channel, with the hashed bytes and the hash that its peers stored.
    #[test]
    fn hashes_equal_those_of_fabric() {
        let put =
            |version| Update::Put(VersionedValue { value: "1".into(), metadata: Bytes::new(), version });
        let public = |key: &str, update| NamespaceUpdates {
            public: [(key.to_owned(), update)].into(),
            hashed: BTreeMap::new(),
        };
        let key_hash =
            hex::decode("7978f506baa16285f4f3f6cee4f425c0bd5e06883e37ede4a8d8e62c03d660ef").unwrap();
        let private = NamespaceUpdates {
            public: BTreeMap::new(),
            hashed: [("both".to_owned(), [(key_hash.into(), Update::Delete(Height::new(57, 0)))].into())]
                .into(),
        };
        for (namespace, updates, bytes, previous, hash) in [
            (
                "gold",
                public("aa", put(Height::new(30, 0))),
                "0a120a04676f6c641a0261612a01313203011e00",
                "b64a7c69cee3001ada29f42215ffeee4064fd13422251bf3f6488178a9bce133",
                "fbcf4e4c531a88f755e5d597fdc28b82cb638dc9209f6b69832a5e0ad7fe0cc2",
            ),
            (
                "gold",
                public("ab", Update::Delete(Height::new(33, 0))),
                "0a110a04676f6c641a02616220013203012100",
                "152a474900c48101f2f85bb635647005e5c70294bde41e9e0999525c0421d00e",
                "dba4136bcca5c239f943aeb5824e3cb08300227920d0c8e0bc28f5c9e8440d00",
            ),
            (
                "gold",
                private,
                "0a350a04676f6c641204626f74681a207978f506baa16285f4f3f6cee4f425c0bd5e06883e37ede4a8d8e62c03d660ef20013203013900",
                "d8f52fe88d57a881f04e23365c57a4922e7f2eb7ed36e7ffa393af929183e83f",
                "59f21ee183f1e0b681bbcc3ebe349221470910d79e47f38a6dea07444c4b84e6",
            ),
            (
                "",
                public("CHANNEL_CONFIG_ENV_BYTES", put(Height::new(64, 0))),
                "",
                "3a55a1d8d1c2f405ab07104cb8cbf2fc8d41973ac7943df23d4c21f2fb58dd69",
                "42577db7db4987719ea509523b783833c047e52aa879ae5d18fb5b4c0c140c81",
            ),
        ] {
            let updates = UpdateBatch { namespaces: [(namespace.to_owned(), updates)].into() };
            assert_eq!(hex::encode(updates.hashed_form()), bytes);
            assert_eq!(
                hex::encode(commit_hash(
                    HashAlgorithm::Sha256,
                    &[0],
                    &updates,
                    &hex::decode(previous).unwrap()
                )),
                hash
            );
        }
    }

    #[test]
    fn namespace_and_collection_stand_on_their_first_row_only() {
        let put = || {
            Update::Put(VersionedValue {
                value: "v".into(),
                metadata: "m".into(),
                version: Height::new(1, 0),
            })
        };
        let collection =
            |keys: [&'static str; 2]| keys.map(|key| (Bytes::from(key), put())).into_iter().collect();
        let updates = NamespaceUpdates {
            public: ["a", "b"].map(|key| (key.to_owned(), put())).into(),
            hashed: [("c1".to_owned(), collection(["x", "y"])), ("c2".to_owned(), collection(["x", "y"]))]
                .into(),
        };
        let batch = UpdateBatch { namespaces: [("ns".to_owned(), updates)].into() };
        #[derive(Clone, PartialEq, Message)]
        struct Rows {
            #[prost(message, repeated, tag = "1")]
            rows: Vec<UpdateRow>,
        }
        let rows = Rows::decode(batch.hashed_form().as_slice()).unwrap().rows;
        let names: Vec<_> =
            rows.iter().map(|row| (row.namespace.as_str(), row.collection.as_str())).collect();
        assert_eq!(names, [("ns", ""), ("", ""), ("", "c1"), ("", ""), ("", "c2"), ("", "")]);
    }
}
