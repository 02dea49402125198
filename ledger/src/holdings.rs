//! What this peer holds of a block's private data, what it lacks, and what it must forget in time.
//!
//! The state has a private value only once; beside it stand the sets as they came, by block, for those who may ask for a block with its
//! private data, also those of invalid transactions, which never reach the state. A set that a transaction promises and that did not come is
//! noted as missing, until it is supplied or expires.
//! Rules: Fabric `core/ledger/pvtdatastorage` and `core/ledger/kvledger/txmgmt/pvtstatepurgemgmt`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use consort_crypto::hash::HashAlgorithm;
use consort_protos::{
    fabric::protos::TxValidationCode,
    ids::{BlockNumber, Height, TxNumber},
    rwset::{PrivateCollection, PrivateNamespace, PrivateReadWriteSet},
    transaction::Transaction,
};

use crate::{
    ValidatedBlock,
    database::{Change, Column, Database},
    error::Error,
    missing::{self, MissingPrivate},
    order::{prefix_end, push_number, push_part, split_number, split_part},
    private::promised_collection,
    snapshot::Before,
    state::{self, RocksState, StateKey, StateReader as _},
    updates::{Update, UpdateBatch},
};

/// The columns beside those of the state.
pub(crate) const COLUMNS: [Column; 5] = [
    Column::PrivateSets,
    Column::PrivatePlaces,
    Column::MissingPrivate,
    Column::PrivateExpiry,
    Column::PrivatePurges,
];

/// What a channel's definitions say about a collection, as far as the books are concerned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CollectionTerms {
    /// Whether this peer's organisation holds the collection's data.
    pub member: bool,
    /// Blocks after which values are forgotten; 0 stands for never.
    pub blocks_to_live: u64,
}

/// The private side of one commit.
pub(crate) struct Holdings<'a> {
    pub(crate) database: &'a Database,
    pub(crate) state: &'a RocksState,
    pub(crate) block: &'a ValidatedBlock,
    pub(crate) codes: &'a [TxValidationCode],
    pub(crate) updates: &'a UpdateBatch,
}

/// A key that a transaction purges.
struct Purge<'a> {
    place: Height,
    namespace: &'a str,
    collection: &'a str,
    key_hash: &'a [u8],
}

impl Purge<'_> {
    fn is_of(&self, namespace: &str, collection: &str, key_hash: &[u8]) -> bool {
        self.namespace == namespace && self.collection == collection && self.key_hash == key_hash
    }
}

/// Values that end with a block because their time is over, and what they were.
#[derive(Debug, Default)]
pub(crate) struct Expired {
    pub(crate) changes: Vec<state::Change>,
    pub(crate) before: Before,
}

impl Holdings<'_> {
    /// Adds what came, what did not, and when it expires to what will be written with the block.
    pub(crate) fn stage(&self, change: &mut Change<'_>) -> Result<(), Error> {
        let purges = self.purges();
        self.stage_purges(&purges, change)?;
        let number = self.block.number();
        // A collection's expiry is noted even when nothing but deletes is written: the sets themselves expire, too.
        let mut expiring: BTreeMap<(&str, &str), BTreeSet<&[u8]>> = BTreeMap::new();
        for (index, transaction, code) in self.transactions() {
            let place = Height { block: number, tx: TxNumber::new(index) };
            for (namespace, collection) in promised(transaction) {
                expiring.entry((namespace, collection)).or_default();
                let given = self.block.private().get(&place.tx);
                match given.and_then(|set| set.collection(namespace, collection)) {
                    Some(set) => self.stage_given(place, namespace, set, &purges, change),
                    None => self.stage_missing((place, code), namespace, collection, change),
                }
            }
        }
        for (namespace, changed) in &self.updates.namespaces {
            for (collection, keys) in &changed.hashed {
                let puts = keys.iter().filter(|(_, update)| matches!(update, Update::Put(_)));
                let hashes = expiring.entry((namespace.as_str(), collection.as_str())).or_default();
                hashes.extend(puts.map(|(hash, _)| &hash[..]));
            }
        }
        for ((namespace, collection), hashes) in expiring {
            let terms = self.block.terms(namespace, collection).unwrap_or_default();
            let Some(end) = end_of_life(number, terms) else { continue };
            let mut value = Vec::new();
            for hash in hashes {
                push_number(&mut value, hash.len() as u64);
                value.extend_from_slice(hash);
            }
            change.put(Column::PrivateExpiry, expiry_key(end, number, namespace, collection), value);
        }
        Ok(())
    }

    /// Keeps a set without the keys that the same block purges after it.
    fn stage_given(
        &self,
        place: Height,
        namespace: &str,
        set: &PrivateCollection,
        purges: &[Purge<'_>],
        change: &mut Change<'_>,
    ) {
        let purged_later = |key: &str| {
            let hash = self.hash().key_hash(key);
            purges.iter().any(|purge| purge.place.tx > place.tx && purge.is_of(namespace, set.name(), &hash))
        };
        if set.writes().iter().any(|write| purged_later(&write.key)) {
            stage_set(place, namespace, &without(set, purged_later), self.hash(), change);
        } else {
            stage_set(place, namespace, set, self.hash(), change);
        }
    }

    /// Notes that a set is missing. Of a transaction whose id was there before nobody has kept anything: what its endorsers held went with the
    /// first one. To search for it would be in vain, and to take it from the first would let values outlive their time.
    fn stage_missing(
        &self,
        (place, code): (Height, TxValidationCode),
        namespace: &str,
        collection: &str,
        change: &mut Change<'_>,
    ) {
        let terms = self.block.terms(namespace, collection);
        let invalid = code != TxValidationCode::Valid;
        if invalid && (code == TxValidationCode::DuplicateTxid || terms.is_none()) {
            return;
        }
        let member = terms.unwrap_or_default().member;
        let (namespace, collection) = (namespace.to_owned(), collection.to_owned());
        MissingPrivate { place, namespace, collection, member, invalid }.stage(change);
    }

    /// The values whose time ends with this block. A key that the block itself changes lives on; so does one that was written again
    /// since. The commit hash knows nothing of this.
    pub(crate) fn expire(&self, change: &mut Change<'_>) -> Result<Expired, Error> {
        let mut expired = Expired::default();
        for record in expiring_at(self.database, self.block.number())? {
            let Expiring { committed, namespace, collection, hashes } = record;
            for hash in hashes {
                let key = StateKey::hashed(&namespace, &collection, &hash);
                let updated = self.updates.hashed(&namespace, &collection, &hash).is_some();
                let Some(value) = self.state.read_one(&key)? else { continue };
                if updated || value.version.block != committed {
                    continue;
                }
                if let Some(plain) = self.database.read(Column::PrivateKeys, key.as_bytes())? {
                    let plain = StateKey::private(&namespace, &collection, &String::from_utf8_lossy(&plain));
                    expired.before.insert(plain.clone(), self.state.read_one(&plain)?);
                    expired.changes.push((plain, None));
                    change.delete(Column::PrivateKeys, key.as_bytes());
                }
                expired.before.insert(key.clone(), Some(value));
                expired.changes.push((key, None));
            }
            forget_sets(self.database, committed, (&namespace, &collection), self.hash(), change)?;
        }
        Ok(expired)
    }

    /// Cuts purged keys out of all older sets, and remembers them for sets that come later.
    fn stage_purges(&self, purges: &[Purge<'_>], change: &mut Change<'_>) -> Result<(), Error> {
        // By set: one that loses several keys is written once.
        let mut cuts: BTreeMap<Vec<u8>, (&str, BTreeSet<&[u8]>)> = BTreeMap::new();
        for purge in purges {
            let key = StateKey::hashed(purge.namespace, purge.collection, purge.key_hash);
            change.put(Column::PrivatePurges, key.as_bytes(), place_bytes(purge.place));
            let prefix = key.as_bytes();
            for record in self.database.scan(Column::PrivatePlaces, prefix, prefix_end(prefix).as_deref()) {
                let (record, _) = record?;
                let Some(place) = record.get(prefix.len()..).and_then(split_place) else { continue };
                let set = set_key(place, purge.namespace, purge.collection);
                cuts.entry(set).or_insert((purge.collection, BTreeSet::new())).1.insert(purge.key_hash);
                change.delete(Column::PrivatePlaces, record);
            }
        }
        for (key, (collection, hashes)) in cuts {
            let Some(bytes) = self.database.read(Column::PrivateSets, &key)? else { continue };
            let set = PrivateCollection::decode(collection, bytes)
                .map_err(|cause| Error::damaged("private set", cause.to_string()))?;
            let rest = without(&set, |key| hashes.contains(self.hash().key_hash(key).as_slice()));
            change.put(Column::PrivateSets, key, rest.bytes());
        }
        Ok(())
    }

    /// The keys that the block's valid transactions purge.
    fn purges(&self) -> Vec<Purge<'_>> {
        let mut purges = Vec::new();
        for (index, transaction) in self.valid() {
            let place = Height { block: self.block.number(), tx: TxNumber::new(index) };
            for namespace in
                transaction.invocation().iter().flat_map(|invocation| &invocation.rwset.namespaces)
            {
                for collection in &namespace.collections {
                    let purged = collection.hashed_writes.iter().filter(|write| write.is_purge);
                    purges.extend(purged.map(|write| Purge {
                        place,
                        namespace: &namespace.namespace,
                        collection: &collection.name,
                        key_hash: &write.key_hash,
                    }));
                }
            }
        }
        purges
    }

    fn hash(&self) -> HashAlgorithm {
        self.state.hash_algorithm()
    }

    /// The transactions that could be opened, with their numbers and codes.
    fn transactions(&self) -> impl Iterator<Item = (u32, &Transaction, TxValidationCode)> {
        let transactions = self.block.transactions().iter().zip(self.codes).zip(0_u32..);
        transactions.filter_map(|((transaction, code), index)| Some((index, transaction.as_deref()?, *code)))
    }

    fn valid(&self) -> impl Iterator<Item = (u32, &Transaction)> {
        self.transactions().filter_map(|(index, transaction, code)| {
            (code == TxValidationCode::Valid).then_some((index, transaction))
        })
    }
}

/// A block's private sets that this peer holds, by transaction.
pub(crate) fn sets_of(
    database: &Database,
    block: BlockNumber,
) -> Result<BTreeMap<TxNumber, PrivateReadWriteSet>, Error> {
    let mut sets: BTreeMap<TxNumber, PrivateReadWriteSet> = BTreeMap::new();
    let start = block.get().to_be_bytes();
    for record in database.scan(Column::PrivateSets, &start, prefix_end(&start).as_deref()) {
        let (key, bytes) = record?;
        let (place, namespace, collection) = split_set_key(&key)?;
        let set = PrivateCollection::decode(&collection, bytes)
            .map_err(|cause| Error::damaged("private set", cause.to_string()))?;
        let namespaces = &mut sets.entry(place.tx).or_default().namespaces;
        match namespaces.last_mut() {
            Some(last) if last.namespace == namespace => last.collections.push(set),
            _ => namespaces.push(PrivateNamespace { namespace, collections: vec![set] }),
        }
    }
    Ok(sets)
}

/// One transaction's set for one collection, as far as it is held: without the keys that were purged since.
pub(crate) fn set_at(
    database: &Database,
    place: Height,
    namespace: &str,
    collection: &str,
) -> Result<Option<PrivateCollection>, Error> {
    let stored = database.read(Column::PrivateSets, &set_key(place, namespace, collection))?;
    stored
        .map(|bytes| PrivateCollection::decode(collection, bytes))
        .transpose()
        .map_err(|cause| Error::damaged("private set", cause.to_string()))
}

/// Stages a set that was missing and has come; `None` when it is not missing. What an invalid transaction wrote stays beside its block and away
/// from the state. The caller has checked the set against its hash.
pub(crate) fn supply(
    database: &Database,
    state: &RocksState,
    place: Height,
    namespace: &str,
    set: &PrivateCollection,
    change: &mut Change<'_>,
) -> Result<Option<()>, Error> {
    let missing = missing::stage_removal(database, place, (namespace, set.name()), change)?;
    let Some(missing) = missing else { return Ok(None) };
    let hash = state.hash_algorithm();
    let mut purged = BTreeSet::new();
    for (write, salt) in set.salted_writes() {
        let hashed = StateKey::hashed(namespace, set.name(), &hash.key_hash(&write.key));
        if is_purged(database, &hashed, place)? {
            purged.insert(write.key.clone());
            continue;
        }
        if missing.invalid {
            continue;
        }
        let current = state.read_one(&hashed)?;
        let promise = hash.hash_parts(&[salt, &write.value]);
        if let Some(current) = current.filter(|current| current.value == promise.as_slice()) {
            let plain = StateKey::private(namespace, set.name(), &write.key);
            let value = state::VersionedValue {
                value: write.value.clone(),
                metadata: salt.clone(),
                version: current.version,
            };
            state.stage_values(&[(plain, Some(value))], change);
            change.put(Column::PrivateKeys, hashed.as_bytes(), &write.key);
        }
    }
    stage_set(place, namespace, &without(set, |key| purged.contains(key)), hash, change);
    Ok(Some(()))
}

/// What expires with a block.
pub(crate) struct Expiring {
    pub(crate) committed: BlockNumber,
    pub(crate) namespace: String,
    pub(crate) collection: String,
    pub(crate) hashes: Vec<Vec<u8>>,
}

/// The keys that expire with a block. The records stay: who replays the chain needs them.
pub(crate) fn expiring_at(database: &Database, block: BlockNumber) -> Result<Vec<Expiring>, Error> {
    let damaged = || Error::damaged("expiry", format!("of block {block}"));
    let start = block.get().to_be_bytes();
    let mut found = Vec::new();
    for record in database.scan(Column::PrivateExpiry, &start, prefix_end(&start).as_deref()) {
        let (key, value) = record?;
        let (committed, rest) =
            key.get(8..).and_then(|rest| rest.split_first_chunk::<8>()).ok_or_else(damaged)?;
        let (namespace, collection) = split_names(rest).ok_or_else(damaged)?;
        let mut hashes = Vec::new();
        let mut rest: &[u8] = &value;
        while !rest.is_empty() {
            let (length, after) = split_number(rest).ok_or_else(damaged)?;
            let length = usize::try_from(length).map_err(|_| damaged())?;
            let (hash, after) = after.split_at_checked(length).ok_or_else(damaged)?;
            hashes.push(hash.to_vec());
            rest = after;
        }
        let committed = BlockNumber::new(u64::from_be_bytes(*committed));
        found.push(Expiring { committed, namespace, collection, hashes });
    }
    Ok(found)
}

/// The block with which values written by `number` end: one more than they may live (Fabric
/// `pvtdatapolicy.BTLPolicy.GetExpiringBlock`).
fn end_of_life(number: BlockNumber, terms: CollectionTerms) -> Option<BlockNumber> {
    if terms.blocks_to_live == 0 {
        return None;
    }
    let end = number.get().checked_add(terms.blocks_to_live)?.checked_add(1)?;
    Some(BlockNumber::new(end))
}

/// The collections for which a transaction promises private writes.
fn promised(transaction: &Transaction) -> impl Iterator<Item = (&str, &str)> {
    let namespaces = transaction.invocation().map(|invocation| invocation.rwset.namespaces.as_slice());
    namespaces.unwrap_or_default().iter().flat_map(|namespace| {
        let promises =
            namespace.collections.iter().filter(|collection| !collection.pvt_rwset_hash.is_empty());
        promises.map(|collection| (namespace.namespace.as_str(), collection.name.as_str()))
    })
}

fn stage_set(
    place: Height,
    namespace: &str,
    set: &PrivateCollection,
    hash: HashAlgorithm,
    change: &mut Change<'_>,
) {
    change.put(Column::PrivateSets, set_key(place, namespace, set.name()), set.bytes());
    for write in set.writes() {
        let key_hash = hash.key_hash(&write.key);
        change.put(Column::PrivatePlaces, place_key(namespace, set.name(), &key_hash, place), b"");
    }
}

/// Forgets the sets of a collection in one block, and that some are missing.
fn forget_sets(
    database: &Database,
    block: BlockNumber,
    (namespace, collection): (&str, &str),
    hash: HashAlgorithm,
    change: &mut Change<'_>,
) -> Result<(), Error> {
    let start = block.get().to_be_bytes();
    for record in database.scan(Column::PrivateSets, &start, prefix_end(&start).as_deref()) {
        let (key, bytes) = record?;
        let (place, of_namespace, of_collection) = split_set_key(&key)?;
        if of_namespace == namespace && of_collection == collection {
            let set = PrivateCollection::decode(collection, bytes)
                .map_err(|cause| Error::damaged("private set", cause.to_string()))?;
            for write in set.writes() {
                let key_hash = hash.key_hash(&write.key);
                change.delete(Column::PrivatePlaces, place_key(namespace, collection, &key_hash, place));
            }
            change.delete(Column::PrivateSets, &key);
        }
    }
    missing::forget(database, block, (namespace, collection), change)
}

/// A set without some of its keys.
fn without(set: &PrivateCollection, leave_out: impl Fn(&str) -> bool) -> PrivateCollection {
    let kept = set.salted_writes().filter(|(write, _)| !leave_out(&write.key));
    let writes = kept.map(|(write, salt)| (write.clone(), salt.clone())).collect();
    let metadata = set.metadata_writes().iter().filter(|write| !leave_out(&write.key)).cloned().collect();
    PrivateCollection::salted(set.name(), writes, metadata)
}

fn names(namespace: &str, collection: &str) -> Vec<u8> {
    let mut names = Vec::with_capacity(namespace.len() + collection.len() + 4);
    push_part(&mut names, namespace.as_bytes());
    push_part(&mut names, collection.as_bytes());
    names
}

fn split_names(bytes: &[u8]) -> Option<(String, String)> {
    let (namespace, rest) = split_part(bytes)?;
    let (collection, rest) = split_part(rest)?;
    if !rest.is_empty() {
        return None;
    }
    Some((String::from_utf8(namespace).ok()?, String::from_utf8(collection).ok()?))
}

fn place_bytes(place: Height) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&place.block.get().to_be_bytes());
    bytes[8..].copy_from_slice(&place.tx.get().to_be_bytes());
    bytes
}

fn split_place(bytes: &[u8]) -> Option<Height> {
    let (block, tx) = bytes.split_first_chunk::<8>()?;
    let tx: [u8; 4] = tx.try_into().ok()?;
    Some(Height::new(u64::from_be_bytes(*block), u32::from_be_bytes(tx)))
}

pub(crate) fn set_key(place: Height, namespace: &str, collection: &str) -> Vec<u8> {
    [place_bytes(place).as_slice(), &names(namespace, collection)].concat()
}

pub(crate) fn split_set_key(key: &[u8]) -> Result<(Height, String, String), Error> {
    let split =
        key.split_at_checked(12).and_then(|(place, rest)| Some((split_place(place)?, split_names(rest)?)));
    let (place, (namespace, collection)) =
        split.ok_or_else(|| Error::damaged("private set", format!("key of {} bytes", key.len())))?;
    Ok((place, namespace, collection))
}

fn place_key(namespace: &str, collection: &str, key_hash: &[u8], place: Height) -> Vec<u8> {
    [StateKey::hashed(namespace, collection, key_hash).as_bytes(), &place_bytes(place)].concat()
}

fn expiry_key(end: BlockNumber, committed: BlockNumber, namespace: &str, collection: &str) -> Vec<u8> {
    let names = names(namespace, collection);
    [end.get().to_be_bytes().as_slice(), &committed.get().to_be_bytes(), &names].concat()
}

/// Whether a key was purged by a transaction that is not before the one at `place`.
fn is_purged(database: &Database, hashed: &StateKey, place: Height) -> Result<bool, Error> {
    let marker = database.read(Column::PrivatePurges, hashed.as_bytes())?;
    Ok(marker.as_deref().is_some_and(|marker| marker >= place_bytes(place).as_slice()))
}

/// Whether a set is what its transaction promises: the whole of it, or all of it but keys that were purged since. Who holds the data has
/// cut these out, so that the hash of the whole no longer shows it; the hashes of the single writes do.
pub(crate) fn is_promised(
    database: &Database,
    transaction: &Transaction,
    place: Height,
    namespace: &str,
    set: &PrivateCollection,
    hash: HashAlgorithm,
) -> Result<bool, Error> {
    let Some(promised) = promised_collection(transaction, namespace, set.name()) else { return Ok(false) };
    if promised.pvt_rwset_hash[..] == hash.hash(set.bytes()) {
        return Ok(true);
    }
    let mut given: BTreeMap<[u8; 32], Bytes> = BTreeMap::new();
    for (write, salt) in set.salted_writes() {
        let value = match write.is_delete {
            true => Bytes::new(),
            false => Bytes::copy_from_slice(&hash.hash_parts(&[salt, &write.value])),
        };
        given.insert(hash.key_hash(&write.key), value);
    }
    for expected in &promised.hashed_writes {
        let key_hash: Option<[u8; 32]> = expected.key_hash[..].try_into().ok();
        match key_hash.and_then(|key_hash| given.remove(&key_hash)) {
            Some(value) if value == expected.value_hash => {}
            Some(_) => return Ok(false),
            None => {
                let hashed = StateKey::hashed(namespace, set.name(), &expected.key_hash);
                if !is_purged(database, &hashed, place)? {
                    return Ok(false);
                }
            }
        }
    }
    let metadata_promised = |key: &str| {
        let key_hash = hash.key_hash(key);
        promised.metadata_writes.iter().any(|expected| expected.key_hash[..] == key_hash)
    };
    Ok(given.is_empty() && set.metadata_writes().iter().all(|write| metadata_promised(&write.key)))
}
