//! Range queries of a simulation: fetched in Fabric's batches, recorded as they are fetched.

use std::collections::VecDeque;

use bytes::Bytes;
use consort_crypto::hash::HashAlgorithm;
use consort_protos::{
    ids::Height,
    rwset::{RangeQuery, Read},
};

use super::{SimulationError, TxSimulator, record::Record};
use crate::{
    error::Error,
    merkle::{MAX_DEGREE, RangeSummary},
    snapshot::StateSnapshot,
    state::{KeyRange, StateReader as _},
};

/// Results that a chaincode gets at a time. One more is fetched to know whether there is more, and that one is recorded, too;
/// so every endorser must use Fabric's number (`core/chaincode`: `MaxResultLimit`).
pub const BATCH_RESULTS: usize = 100;

/// Results of one query; Fabric's configured `ledger.state.totalQueryLimit`. Bounds what a run can make a peer hold.
pub const QUERY_RESULTS_MAX: usize = 100_000;

/// Entries that are read from the store at a time: a batch and its look-ahead.
const READ_AHEAD: usize = BATCH_RESULTS + 1;

/// A range query of one simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RangeId(usize);

/// Results of a range query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeBatch {
    /// Keys and values in key order.
    pub entries: Vec<(String, Bytes)>,
    /// Whether another batch follows.
    pub has_more: bool,
}

/// One page of a range query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Keys and values in key order.
    pub entries: Vec<(String, Bytes)>,
    /// Where the next page begins; empty at the end.
    pub bookmark: String,
}

impl TxSimulator {
    /// Starts a query of the public keys of a namespace from `start` up to `end`, which is left out; empty texts stand for the ends
    /// of the namespace. Results come from [`TxSimulator::next_batch`].
    pub fn range(&mut self, namespace: &str, start: &str, end: &str) -> RangeId {
        let hash = self.hash();
        self.ranges.open(Cursor::new(namespace, None, start, end, hash))
    }

    /// The next results of a query: at most [`BATCH_RESULTS`]. A query that has ended gives no more.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn next_batch(&mut self, range: RangeId) -> Result<RangeBatch, SimulationError> {
        let Some(cursor) = self.ranges.cursors.get_mut(range.0) else {
            return Ok(RangeBatch { entries: Vec::new(), has_more: false });
        };
        Ok(cursor.batch(&self.snapshot)?)
    }

    /// Ends a query early. What was fetched stays recorded.
    pub fn close_range(&mut self, range: RangeId) {
        if let Some(cursor) = self.ranges.cursors.get_mut(range.0) {
            cursor.close();
        }
    }

    /// One page of the public keys of a namespace. The transaction must not write, neither before nor after.
    ///
    /// # Errors
    /// After a write, or when the state cannot be read.
    pub fn page(
        &mut self,
        namespace: &str,
        start: &str,
        end: &str,
        results_max: usize,
        bookmark: &str,
    ) -> Result<Page, SimulationError> {
        if self.wrote {
            return Err(self.rule(
                "unsuppored transaction. Paginated queries are supported only in a read-only transaction",
            ));
        }
        self.queried_pages = true;
        let start = if bookmark.is_empty() { start } else { bookmark };
        let hash = self.hash();
        let range = self.ranges.open(Cursor::new(namespace, None, start, end, hash));
        let cursor = &mut self.ranges.cursors[range.0];
        let entries = cursor.take(&self.snapshot, results_max)?;
        let bookmark = cursor.peek(&self.snapshot)?.unwrap_or_default();
        cursor.close();
        Ok(Page { entries, bookmark })
    }

    /// Starts a query of private keys; nothing of it is recorded, so the transaction must not write, neither before nor after.
    ///
    /// # Errors
    /// After a write.
    pub fn private_range(
        &mut self,
        namespace: &str,
        collection: &str,
        start: &str,
        end: &str,
    ) -> Result<RangeId, SimulationError> {
        if self.wrote {
            return Err(self.rule(
                "unsuppored transaction. Queries on pvt data is supported only in a read-only transaction",
            ));
        }
        self.queried_private = true;
        let hash = self.hash();
        Ok(self.ranges.open(Cursor::new(namespace, Some(collection), start, end, hash)))
    }
}

/// The queries of a simulation in order of their creation.
#[derive(Default)]
pub(super) struct Ranges {
    cursors: Vec<Cursor>,
}

impl Ranges {
    fn open(&mut self, cursor: Cursor) -> RangeId {
        self.cursors.push(cursor);
        RangeId(self.cursors.len() - 1)
    }

    /// Moves what was fetched into the record.
    pub(super) fn record(&mut self, record: &mut Record) {
        for cursor in self.cursors.drain(..).filter(|cursor| cursor.collection.is_none()) {
            let namespace = cursor.namespace.clone();
            let query = cursor.into_query();
            let queries = &mut record.namespace(&namespace).range_queries;
            let same = |known: &RangeQuery| {
                known.start_key == query.start_key
                    && known.end_key == query.end_key
                    && known.exhausted == query.exhausted
            };
            if !queries.iter().any(same) {
                queries.push(query);
            }
        }
    }
}

/// A query and how far it has come. Holds no iterator: the snapshot does not change, so each refill seeks again.
struct Cursor {
    namespace: String,
    /// For private keys, which are not recorded.
    collection: Option<String>,
    start: String,
    end: String,
    /// Where the next refill begins; `None` when the store has no more.
    refill: Option<String>,
    buffer: VecDeque<(String, Bytes, Height)>,
    /// Fetched for a batch that has not been asked for.
    ahead: Option<(String, Bytes)>,
    fetched: usize,
    last_key: String,
    exhausted: bool,
    closed: bool,
    reads: RangeSummary,
}

impl Cursor {
    fn new(namespace: &str, collection: Option<&str>, start: &str, end: &str, hash: HashAlgorithm) -> Self {
        Self {
            namespace: namespace.to_owned(),
            collection: collection.map(ToOwned::to_owned),
            start: start.to_owned(),
            end: end.to_owned(),
            refill: Some(start.to_owned()),
            buffer: VecDeque::new(),
            ahead: None,
            fetched: 0,
            last_key: String::new(),
            exhausted: false,
            closed: false,
            reads: RangeSummary::new(MAX_DEGREE, hash).expect("invariant: Fabric's degree makes a tree"),
        }
    }

    fn close(&mut self) {
        self.closed = true;
        self.buffer.clear();
        self.ahead = None;
    }

    fn batch(&mut self, snapshot: &StateSnapshot) -> Result<RangeBatch, Error> {
        let mut entries: Vec<_> = self.ahead.take().into_iter().collect();
        while !self.closed {
            let Some(entry) = self.fetch(snapshot)? else {
                self.close();
                break;
            };
            if entries.len() == BATCH_RESULTS {
                self.ahead = Some(entry);
                return Ok(RangeBatch { entries, has_more: true });
            }
            entries.push(entry);
        }
        Ok(RangeBatch { entries, has_more: false })
    }

    fn take(&mut self, snapshot: &StateSnapshot, results_max: usize) -> Result<Vec<(String, Bytes)>, Error> {
        let mut entries = Vec::new();
        while entries.len() < results_max {
            let Some(entry) = self.fetch(snapshot)? else { break };
            entries.push(entry);
        }
        Ok(entries)
    }

    /// The next result, recorded.
    fn fetch(&mut self, snapshot: &StateSnapshot) -> Result<Option<(String, Bytes)>, Error> {
        if self.fetched == QUERY_RESULTS_MAX {
            // Stops before it is known whether there is more.
            return Ok(None);
        }
        self.fill(snapshot)?;
        let Some((key, value, version)) = self.buffer.pop_front() else {
            self.exhausted = true;
            return Ok(None);
        };
        self.fetched += 1;
        if self.collection.is_none() {
            self.reads.push(Read { key: key.clone(), version: Some(version) });
            self.last_key.clone_from(&key);
        }
        Ok(Some((key, value)))
    }

    /// The key of the next result, not recorded.
    fn peek(&mut self, snapshot: &StateSnapshot) -> Result<Option<String>, Error> {
        self.fill(snapshot)?;
        Ok(self.buffer.front().map(|(key, _, _)| key.clone()))
    }

    fn fill(&mut self, snapshot: &StateSnapshot) -> Result<(), Error> {
        if !self.buffer.is_empty() {
            return Ok(());
        }
        let Some(start) = self.refill.take() else { return Ok(()) };
        let range = match &self.collection {
            None => KeyRange::public(&self.namespace, &start, &self.end),
            Some(collection) => KeyRange::private(&self.namespace, collection, &start, &self.end),
        };
        if range.is_empty() {
            return Ok(());
        }
        for entry in snapshot.scan(&range)?.take(READ_AHEAD) {
            let (key, value) = entry?;
            self.buffer.push_back((key.key_text(), value.value, value.version));
        }
        if self.buffer.len() == READ_AHEAD {
            // The smallest text behind the last key.
            self.refill = self.buffer.back().map(|(key, _, _)| format!("{key}\0"));
        }
        Ok(())
    }

    fn into_query(self) -> RangeQuery {
        let end_key = if self.exhausted { self.end } else { self.last_key };
        RangeQuery { start_key: self.start, end_key, exhausted: self.exhausted, reads: self.reads.finish() }
    }
}
