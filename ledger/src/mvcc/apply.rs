//! What a valid transaction makes of a key.

use std::collections::BTreeMap;

use bytes::Bytes;
use consort_crypto::hash::HashAlgorithm;
use consort_protos::{
    ids::Height,
    rwset::{HashedCollection, NamespaceReadWriteSet},
};

use crate::{
    state::{VersionedValue, encode_metadata},
    updates::Update,
};

/// Marks of what a transaction does to one key. Fabric *adds* them, so a key that stands twice in a forged list gets a mark that means
/// something else; every peer must come to the same result, hence the same arithmetic.
mod mark {
    pub(super) const PUT: u8 = 1;
    pub(super) const METADATA_PUT: u8 = 2;
    pub(super) const METADATA_DELETE: u8 = 4;
    pub(super) const DELETE: u8 = 8;
}

/// All that one transaction does to one key.
#[derive(Debug, Default)]
pub(super) struct Operations {
    marks: u8,
    value: Bytes,
    metadata: Bytes,
}

impl Operations {
    /// Sets a value and nothing else.
    pub(super) fn put(value: Bytes) -> Self {
        Self { marks: mark::PUT, value, metadata: Bytes::new() }
    }

    fn mark(&mut self, mark: u8) -> &mut Self {
        self.marks = self.marks.wrapping_add(mark);
        self
    }

    fn write(&mut self, is_delete: bool, value: &Bytes) {
        if is_delete {
            self.mark(mark::DELETE);
        } else {
            self.mark(mark::PUT).value = value.clone();
        }
    }

    fn write_metadata(&mut self, metadata: Option<Bytes>) {
        match metadata {
            Some(metadata) => self.mark(mark::METADATA_PUT).metadata = metadata,
            None => self.mark(mark::METADATA_DELETE).metadata = Bytes::new(),
        }
    }

    /// What becomes of the key, given its latest value; `None` when nothing does.
    pub(super) fn result(self, latest: Option<&VersionedValue>, version: Height) -> Option<Update> {
        let has = |mark: u8| self.marks & mark == mark;
        if has(mark::DELETE) {
            return Some(Update::Delete(version));
        }
        let (value, metadata) =
            if has(mark::PUT | mark::METADATA_PUT) || has(mark::PUT | mark::METADATA_DELETE) {
                (self.value, self.metadata)
            } else if self.marks == mark::PUT {
                (self.value, latest.map(|latest| latest.metadata.clone()).unwrap_or_default())
            } else {
                // Metadata alone changes a key that exists and gives it a new version; it creates none.
                (latest?.value.clone(), self.metadata)
            };
        Some(Update::Put(VersionedValue { value, metadata, version }))
    }
}

/// What a namespace's part of a transaction does, by public key.
pub(super) fn public_operations(namespace: &NamespaceReadWriteSet) -> BTreeMap<&str, Operations> {
    let mut operations = BTreeMap::<&str, Operations>::new();
    for write in &namespace.writes {
        let is_delete = write.is_delete || write.value.is_empty();
        operations.entry(&write.key).or_default().write(is_delete, &write.value);
    }
    for write in &namespace.metadata_writes {
        let metadata = (!write.entries.is_empty()).then(|| encode_metadata(&write.entries));
        operations.entry(&write.key).or_default().write_metadata(metadata);
    }
    operations
}

/// What a collection's part of a transaction does, by key hash.
pub(super) fn hashed_operations(
    collection: &HashedCollection,
    hash: HashAlgorithm,
) -> BTreeMap<&Bytes, Operations> {
    let nothing = hash.hash(&[]);
    let mut operations = BTreeMap::<&Bytes, Operations>::new();
    for write in &collection.hashed_writes {
        // The hash of nothing stands for a delete too: an empty value is one.
        let is_delete =
            write.is_delete || write.value_hash.is_empty() || write.value_hash == nothing.as_slice();
        operations.entry(&write.key_hash).or_default().write(is_delete, &write.value_hash);
    }
    for write in &collection.metadata_writes {
        let metadata = (!write.entries.is_empty()).then(|| encode_metadata(&write.entries));
        operations.entry(&write.key_hash).or_default().write_metadata(metadata);
    }
    operations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latest() -> VersionedValue {
        VersionedValue { value: "old".into(), metadata: "meta".into(), version: Height::new(1, 0) }
    }

    fn after(marks: &[u8], latest: Option<&VersionedValue>) -> Option<Option<(Bytes, Bytes)>> {
        let mut operations = Operations::default();
        for &mark in marks {
            match mark {
                mark::PUT => operations.write(false, &"new".into()),
                mark::DELETE => operations.write(true, &Bytes::new()),
                mark::METADATA_PUT => operations.write_metadata(Some("set".into())),
                _ => operations.write_metadata(None),
            }
        }
        let update = operations.result(latest, Height::new(2, 0))?;
        if let Update::Put(value) = &update {
            assert_eq!(value.version, Height::new(2, 0));
        }
        Some(update.value().map(|value| (value.value.clone(), value.metadata.clone())))
    }

    #[test]
    fn each_combination_of_operations_has_fabrics_result() {
        use mark::{DELETE, METADATA_DELETE, METADATA_PUT, PUT};
        let pair = |value: &'static str, metadata: &'static str| Some(Some((value.into(), metadata.into())));
        let old = latest();
        for (marks, existing, absent) in [
            (&[DELETE][..], Some(None), Some(None)),
            (&[DELETE, METADATA_PUT], Some(None), Some(None)),
            (&[PUT, METADATA_PUT], pair("new", "set"), pair("new", "set")),
            (&[PUT, METADATA_DELETE], pair("new", ""), pair("new", "")),
            (&[PUT], pair("new", "meta"), pair("new", "")),
            (&[METADATA_PUT], pair("old", "set"), None),
            (&[METADATA_DELETE], pair("old", ""), None),
        ] {
            assert_eq!(after(marks, Some(&old)), existing, "{marks:?} of an existing key");
            assert_eq!(after(marks, None), absent, "{marks:?} of an absent key");
        }
    }

    #[test]
    fn a_forged_list_with_one_key_twice_has_fabrics_result() {
        use mark::{DELETE, PUT};
        let pair = |value: &'static str, metadata: &'static str| Some(Some((value.into(), metadata.into())));
        let old = latest();
        assert_eq!(after(&[PUT, PUT], Some(&old)), pair("old", ""));
        assert_eq!(after(&[PUT, PUT], None), None);
        assert_eq!(after(&[PUT, PUT, PUT], Some(&old)), pair("new", ""));
        assert_eq!(after(&[DELETE, DELETE], Some(&old)), pair("old", ""));
        assert_eq!(after(&[DELETE, DELETE], None), None);
    }
}
