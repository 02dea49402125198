//! Books of one channel in memory, so that a component can be executed on a developer's machine.
//!
//! The rules are a peer's: reads see what was committed before the execution, a paginated query or a query of private data excludes
//! writes, and nothing is kept before [`MemoryHost::commit`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use consort_crypto::hash::sha256;

use super::host::{
    Callee, Creator, Host, HostError, Modification, Modifications, Page, Pairs, RangeHandle,
    TransactionContext,
};

/// Pairs in a batch of a range, as on a peer.
const BATCH_PAIRS: usize = 100;

/// A place in the books: namespace, collection (empty for public keys), key.
pub type Place = (String, String, String);

/// Committed values, and what the execution wrote.
#[derive(Debug, Default)]
pub struct Books {
    /// Values by place.
    pub committed: BTreeMap<Place, Bytes>,
    /// Endorsement policies of keys.
    pub policies: BTreeMap<Place, Bytes>,
    /// The committed changes of public keys, oldest first.
    pub history: BTreeMap<Place, Vec<Modification>>,
    /// What the execution wrote; an empty value deletes.
    pub written: BTreeMap<Place, Bytes>,
    /// Policies that the execution set; an empty one removes.
    pub policies_written: BTreeMap<Place, Bytes>,
    /// Private keys that the execution purged.
    pub purged: Vec<Place>,
    /// Keys that the execution read.
    pub reads: BTreeSet<Place>,
    /// Ranges of public keys that the execution read: namespace, start, and where it stopped (empty for the end of all keys).
    pub ranges_read: Vec<Place>,
    /// Collections that this machine holds; all of them without a choice.
    pub held: Option<BTreeSet<String>>,
    ranges: Vec<Open>,
    /// A query was made that excludes writes; the words say which kind.
    queried: Option<&'static str>,
}

/// A query that is being read.
#[derive(Debug)]
struct Open {
    pairs: Pairs,
    end: String,
    /// Its place among the ranges that were read; private keys are not recorded.
    recorded: Option<usize>,
}

/// The books as the host of executions. One execution runs at a time.
#[derive(Debug)]
pub struct MemoryHost {
    context: TransactionContext,
    creator: Creator,
    books: Mutex<Books>,
    /// Chaincodes that may be called, by name.
    pub callees: BTreeMap<String, Callee>,
}

fn place(namespace: &str, collection: &str, key: &str) -> Place {
    (namespace.to_owned(), collection.to_owned(), key.to_owned())
}

impl MemoryHost {
    /// Books of a transaction.
    #[must_use]
    pub fn new(context: TransactionContext, creator: Creator, books: Books) -> Self {
        Self { context, creator, books: Mutex::new(books), callees: BTreeMap::new() }
    }

    /// The books.
    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits what was written, as the next block would.
    pub fn commit(&self) {
        let mut books = self.books();
        let (tx_id, timestamp) = (self.context.tx_id.clone(), self.context.timestamp);
        for (place, value) in std::mem::take(&mut books.written) {
            if place.1.is_empty() {
                let is_delete = value.is_empty();
                let change =
                    Modification { tx_id: tx_id.clone(), timestamp, value: value.clone(), is_delete };
                books.history.entry(place.clone()).or_default().push(change);
            }
            if value.is_empty() {
                books.committed.remove(&place)
            } else {
                books.committed.insert(place, value)
            };
        }
        for (place, policy) in std::mem::take(&mut books.policies_written) {
            if policy.is_empty() {
                books.policies.remove(&place)
            } else {
                books.policies.insert(place, policy)
            };
        }
        books.purged.clear();
        books.reads.clear();
        books.ranges_read.clear();
        books.ranges.clear();
        books.queried = None;
    }

    /// Ends the books and hands them over.
    #[must_use]
    pub fn into_books(self) -> Books {
        self.books.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self, message: &str, text: &str) -> HostError {
        HostError::Refused(format!("{message} failed: transaction ID: {}: {text}", self.context.tx_id))
    }

    fn held(&self, books: &Books, message: &str, collection: &str) -> Result<(), HostError> {
        match &books.held {
            Some(held) if !held.contains(collection) => Err(self.refused(
                message,
                &format!("this peer does not hold the private data of collection {collection}"),
            )),
            _ => Ok(()),
        }
    }

    fn write(&self, message: &str, at: Place, value: Bytes) -> Result<(), HostError> {
        let mut books = self.books();
        self.may_write(&books, message)?;
        books.written.insert(at, value);
        Ok(())
    }

    fn may_write(&self, books: &Books, message: &str) -> Result<(), HostError> {
        match books.queried {
            // The words are Fabric's, its slip included (core/ledger/kvledger/txmgmt/txmgr/tx_simulator.go).
            Some(kind) => Err(self.refused(
                message,
                &format!(
                    "unsuppored transaction. Transaction has already performed {kind}. Writes are not allowed"
                ),
            )),
            None => Ok(()),
        }
    }

    fn exclude_writes(
        &self,
        books: &mut Books,
        message: &str,
        text: &str,
        kind: &'static str,
    ) -> Result<(), HostError> {
        if !books.written.is_empty() || !books.policies_written.is_empty() {
            return Err(self.refused(message, text));
        }
        books.queried = Some(kind);
        Ok(())
    }
}

fn pairs(books: &Books, namespace: &str, collection: &str, start: &str, end: &str) -> Pairs {
    books
        .committed
        .range((Bound::Included(place(namespace, collection, start)), Bound::Unbounded))
        .take_while(|((of, within, key), _)| {
            of == namespace && within == collection && (end.is_empty() || key.as_str() < end)
        })
        .map(|((_, _, key), value)| (key.clone(), value.clone()))
        .collect()
}

fn open(books: &mut Books, namespace: &str, collection: &str, start: &str, end: &str) -> RangeHandle {
    let pairs = pairs(books, namespace, collection, start, end);
    let recorded = collection.is_empty().then(|| {
        books.ranges_read.push(place(namespace, start, start));
        books.ranges_read.len() - 1
    });
    books.ranges.push(Open { pairs, end: end.to_owned(), recorded });
    RangeHandle(books.ranges.len() - 1)
}

fn read(books: &mut Books, at: Place) -> Option<Bytes> {
    let value = books.committed.get(&at).cloned();
    books.reads.insert(at);
    value
}

impl Host for MemoryHost {
    fn transaction(&self) -> &TransactionContext {
        &self.context
    }

    fn creator(&self) -> Result<Creator, HostError> {
        Ok(self.creator.clone())
    }

    fn get(&self, namespace: &str, key: &str) -> Result<Option<Bytes>, HostError> {
        Ok(read(&mut self.books(), place(namespace, "", key)))
    }

    fn put(&self, namespace: &str, key: &str, value: Bytes) -> Result<(), HostError> {
        self.write("PUT_STATE", place(namespace, "", key), value)
    }

    fn range(&self, namespace: &str, start: &str, end: &str) -> Result<RangeHandle, HostError> {
        Ok(open(&mut self.books(), namespace, "", start, end))
    }

    fn page(
        &self,
        namespace: &str,
        start: &str,
        end: &str,
        size: usize,
        bookmark: &str,
    ) -> Result<Page, HostError> {
        let mut books = self.books();
        self.exclude_writes(
            &mut books,
            "GET_STATE_BY_RANGE",
            "unsuppored transaction. Paginated queries are supported only in a read-only transaction",
            "a paginated query",
        )?;
        let start = if bookmark.is_empty() { start } else { bookmark };
        let mut entries = pairs(&books, namespace, "", start, end);
        let bookmark = entries.get(size).map(|(key, _)| key.clone()).unwrap_or_default();
        entries.truncate(size);
        Ok(Page { entries, bookmark })
    }

    fn history(&self, namespace: &str, key: &str) -> Result<Modifications, HostError> {
        let changes = self.books().history.get(&place(namespace, "", key)).cloned().unwrap_or_default();
        Ok(Box::new(changes.into_iter().rev().map(Ok)))
    }

    fn range_next(&self, range: RangeHandle) -> Result<Pairs, HostError> {
        let mut books = self.books();
        let Books { ranges, ranges_read, .. } = &mut *books;
        let Some(query) = ranges.get_mut(range.0) else { return Ok(Vec::new()) };
        let size = query.pairs.len().min(BATCH_PAIRS);
        let batch: Pairs = query.pairs.drain(..size).collect();
        if let Some(read) = query.recorded.and_then(|index| ranges_read.get_mut(index)) {
            read.2 = match (size == BATCH_PAIRS, batch.last()) {
                (true, Some((last, _))) => format!("{last}\0"),
                _ => query.end.clone(),
            };
        }
        Ok(batch)
    }

    fn range_close(&self, range: RangeHandle) {
        if let Some(query) = self.books().ranges.get_mut(range.0) {
            query.pairs = Vec::new();
        }
    }

    fn validation_parameter(&self, namespace: &str, key: &str) -> Result<Option<Bytes>, HostError> {
        self.private_validation_parameter(namespace, "", key)
    }

    fn set_validation_parameter(&self, namespace: &str, key: &str, policy: Bytes) -> Result<(), HostError> {
        self.set_private_validation_parameter(namespace, "", key, policy)
    }

    fn private_get(&self, namespace: &str, collection: &str, key: &str) -> Result<Option<Bytes>, HostError> {
        let mut books = self.books();
        self.held(&books, "GET_STATE", collection)?;
        Ok(read(&mut books, place(namespace, collection, key)))
    }

    fn private_hash(&self, namespace: &str, collection: &str, key: &str) -> Result<Option<Bytes>, HostError> {
        let value = read(&mut self.books(), place(namespace, collection, key));
        Ok(value.map(|value| Bytes::copy_from_slice(&sha256(&value))))
    }

    fn private_put(
        &self,
        namespace: &str,
        collection: &str,
        key: &str,
        value: Bytes,
    ) -> Result<(), HostError> {
        self.write("PUT_STATE", place(namespace, collection, key), value)
    }

    fn private_validation_parameter(
        &self,
        namespace: &str,
        collection: &str,
        key: &str,
    ) -> Result<Option<Bytes>, HostError> {
        let (mut books, at) = (self.books(), place(namespace, collection, key));
        books.reads.insert(at.clone());
        Ok(books.policies.get(&at).cloned())
    }

    fn set_private_validation_parameter(
        &self,
        namespace: &str,
        collection: &str,
        key: &str,
        policy: Bytes,
    ) -> Result<(), HostError> {
        let mut books = self.books();
        self.may_write(&books, "PUT_STATE_METADATA")?;
        books.policies_written.insert(place(namespace, collection, key), policy);
        Ok(())
    }

    fn private_purge(&self, namespace: &str, collection: &str, key: &str) -> Result<(), HostError> {
        let at = place(namespace, collection, key);
        self.write("PURGE_PRIVATE_DATA", at.clone(), Bytes::new())?;
        self.books().purged.push(at);
        Ok(())
    }

    fn private_range(
        &self,
        namespace: &str,
        collection: &str,
        start: &str,
        end: &str,
    ) -> Result<RangeHandle, HostError> {
        let mut books = self.books();
        self.held(&books, "GET_STATE_BY_RANGE", collection)?;
        self.exclude_writes(
            &mut books,
            "GET_STATE_BY_RANGE",
            "unsuppored transaction. Queries on pvt data is supported only in a read-only transaction",
            "queries on pvt data",
        )?;
        Ok(open(&mut books, namespace, collection, start, end))
    }

    fn callee(&self, _caller: &str, name: &str) -> Result<Callee, HostError> {
        let found = self.callees.get(name).cloned();
        found.ok_or_else(|| self.refused("INVOKE_CHAINCODE", &format!("chaincode {name} not found")))
    }

    fn other_channel(&self, channel: &str) -> Result<Arc<dyn Host>, HostError> {
        Err(self.refused("INVOKE_CHAINCODE", &format!("channel '{channel}' not found")))
    }
}
