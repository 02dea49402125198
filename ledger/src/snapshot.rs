//! A view of the state that stays as it is while blocks are committed.
//!
//! A snapshot is a height and a shared handle: it borrows nothing, blocks nobody and may move to another thread. While snapshots are open,
//! each commit leaves behind the values that it replaced (it has them at hand anyway). A reader asks the store first and the replaced values
//! of the blocks from its height on second; the oldest of these wins. Since a commit publishes them *before* it writes,
//! a reader sees the old value whether or not the write happened in between.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use consort_crypto::hash::HashAlgorithm;
use consort_protos::ids::BlockNumber;

use crate::{
    error::Error,
    state::{Entry, KeyRange, Scan, StateKey, StateReader, VersionedValue},
};

/// Blocks that a snapshot may lag behind. A chaincode call lasts seconds at most; whoever holds a snapshot longer has forgotten it.
pub const SNAPSHOT_LAG_BLOCKS_MAX: usize = 1024;

/// Bytes of replaced values that are kept for open snapshots, so that a slow reader cannot make a busy ledger grow.
pub const SNAPSHOT_LAG_BYTES_MAX: usize = 256 << 20;

/// What blocks replaced, kept as long as an open snapshot needs it.
pub(crate) struct Views {
    inner: Mutex<Inner>,
}

struct Inner {
    /// Number of the next block.
    height: u64,
    /// How many snapshots are open, by height.
    open: BTreeMap<u64, usize>,
    /// What blocks replaced, ascending and without gap.
    replaced: VecDeque<Replaced>,
    replaced_bytes: usize,
    /// Snapshots below this height cannot be read any more.
    readable_from: u64,
}

/// The values of the keys that one block changed, as they were before.
pub(crate) type Before = BTreeMap<StateKey, Option<VersionedValue>>;

struct Replaced {
    block: u64,
    values: Arc<Before>,
    bytes: usize,
}

impl Views {
    pub(crate) fn new(height: u64) -> Arc<Self> {
        let inner = Inner {
            height,
            open: BTreeMap::new(),
            replaced: VecDeque::new(),
            replaced_bytes: 0,
            readable_from: 0,
        };
        Arc::new(Self { inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called before a block is written: from now on snapshots read around it.
    pub(crate) fn begin(&self, block: BlockNumber, values: Before) {
        let size = |(key, value): (&StateKey, &Option<VersionedValue>)| {
            key.as_bytes().len() + value.as_ref().map_or(0, |value| value.value.len() + value.metadata.len())
        };
        let bytes = values.iter().map(size).sum();
        let mut inner = self.lock();
        inner.replaced_bytes += bytes;
        inner.replaced.push_back(Replaced { block: block.get(), values: Arc::new(values), bytes });
    }

    /// Called after a block was written: new snapshots contain it.
    pub(crate) fn finish(&self, block: BlockNumber) {
        let mut inner = self.lock();
        inner.height = block.next().get();
        inner.prune();
    }

    /// What blocks from `height` on replaced, oldest first.
    fn since(&self, height: u64) -> Result<Vec<Arc<Before>>, Error> {
        let inner = self.lock();
        if height < inner.readable_from {
            return Err(Error::SnapshotExpired { height });
        }
        Ok(inner
            .replaced
            .iter()
            .filter(|replaced| replaced.block >= height)
            .map(|replaced| replaced.values.clone())
            .collect())
    }
}

impl Inner {
    /// Forgets what no open snapshot needs, and what exceeds the bounds.
    fn prune(&mut self) {
        let needed_from = self.open.keys().next().map_or(self.height, |&oldest| oldest.min(self.height));
        while let Some(first) = self.replaced.front() {
            let too_much =
                self.replaced.len() > SNAPSHOT_LAG_BLOCKS_MAX || self.replaced_bytes > SNAPSHOT_LAG_BYTES_MAX;
            // What a block replaces that is being written just now stays in any case.
            let forgotten = first.block < needed_from || (too_much && first.block < self.height);
            if !forgotten {
                return;
            }
            self.readable_from = self.readable_from.max(first.block + 1);
            self.replaced_bytes -= first.bytes;
            self.replaced.pop_front();
        }
    }
}

/// One open snapshot in the count.
struct View {
    views: Arc<Views>,
    height: u64,
}

impl View {
    fn open(views: &Arc<Views>, height: Option<u64>) -> Self {
        let mut inner = views.lock();
        let height = height.unwrap_or(inner.height);
        *inner.open.entry(height).or_default() += 1;
        Self { views: views.clone(), height }
    }
}

impl Clone for View {
    fn clone(&self) -> Self {
        Self::open(&self.views, Some(self.height))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let mut inner = self.views.lock();
        if let Some(count) = inner.open.get_mut(&self.height) {
            *count -= 1;
            if *count == 0 {
                inner.open.remove(&self.height);
                inner.prune();
            }
        }
    }
}

/// The state as it was after a block. Cheap to take, to clone and to send to another thread.
#[derive(Clone)]
pub struct StateSnapshot {
    state: Arc<dyn StateReader>,
    view: View,
}

impl StateSnapshot {
    /// A snapshot of a state that nobody changes while the snapshot is used.
    #[must_use]
    pub fn of(state: Arc<dyn StateReader>) -> Self {
        Self { state, view: View::open(&Views::new(0), None) }
    }

    pub(crate) fn open(state: Arc<dyn StateReader>, views: &Arc<Views>) -> Self {
        Self { state, view: View::open(views, None) }
    }

    /// Number of blocks whose changes are contained.
    #[must_use]
    pub fn height(&self) -> BlockNumber {
        BlockNumber::new(self.view.height)
    }

    /// Value of a public key.
    ///
    /// # Errors
    /// When the store cannot be read, or [`Error::SnapshotExpired`].
    pub fn get(&self, namespace: &str, key: &str) -> Result<Option<VersionedValue>, Error> {
        self.read_one(&StateKey::public(namespace, key))
    }

    /// Public keys of a namespace from `start` up to `end`, which is left out; empty texts stand for the ends of the namespace.
    ///
    /// # Errors
    /// When the store cannot be read, or [`Error::SnapshotExpired`].
    pub fn range(
        &self,
        namespace: &str,
        start: &str,
        end: &str,
    ) -> Result<impl Iterator<Item = Result<(String, VersionedValue), Error>> + '_, Error> {
        Ok(self
            .scan(&KeyRange::public(namespace, start, end))?
            .map(|entry| entry.map(|(key, value)| (key.key_text(), value))))
    }

    /// Hash of a private value, by the hash of its key; every peer has it.
    ///
    /// # Errors
    /// When the store cannot be read, or [`Error::SnapshotExpired`].
    pub fn hashed(
        &self,
        namespace: &str,
        collection: &str,
        key_hash: &[u8],
    ) -> Result<Option<VersionedValue>, Error> {
        self.read_one(&StateKey::hashed(namespace, collection, key_hash))
    }

    /// A private value, where this peer holds it.
    ///
    /// # Errors
    /// When the store cannot be read, or [`Error::SnapshotExpired`].
    pub fn private(
        &self,
        namespace: &str,
        collection: &str,
        key: &str,
    ) -> Result<Option<VersionedValue>, Error> {
        self.read_one(&StateKey::private(namespace, collection, key))
    }
}

impl StateReader for StateSnapshot {
    fn hash_algorithm(&self) -> HashAlgorithm {
        self.state.hash_algorithm()
    }

    fn read(&self, keys: &[StateKey]) -> Result<Vec<Option<VersionedValue>>, Error> {
        let mut values = self.state.read(keys)?;
        // Asked after the store: whatever the store already had of a later block was published before it was written.
        let replaced = self.view.views.since(self.view.height)?;
        if !replaced.is_empty() {
            for (key, value) in keys.iter().zip(&mut values) {
                if let Some(before) = replaced.iter().find_map(|block| block.get(key)) {
                    value.clone_from(before);
                }
            }
        }
        Ok(values)
    }

    fn read_one(&self, key: &StateKey) -> Result<Option<VersionedValue>, Error> {
        let value = self.state.read_one(key)?;
        // Asked after the store, as in `read`.
        let replaced = self.view.views.since(self.view.height)?;
        Ok(replaced.iter().find_map(|block| block.get(key)).cloned().unwrap_or(value))
    }

    fn scan(&self, range: &KeyRange) -> Result<Scan<'_>, Error> {
        let scan = self.state.scan(range)?;
        let mut replaced = BTreeMap::new();
        for block in self.view.views.since(self.view.height)?.iter().rev() {
            // Older blocks overwrite: what they replaced is what this snapshot shows.
            replaced.extend(
                block
                    .iter()
                    .filter(|(key, _)| range.contains(key))
                    .map(|(key, value)| (key.clone(), value.clone())),
            );
        }
        if replaced.is_empty() {
            return Ok(scan);
        }
        Ok(Box::new(Overlaid { under: scan.peekable(), over: replaced.into_iter().peekable() }))
    }
}

/// A scan with some of its entries replaced.
pub(crate) struct Overlaid<U: Iterator, O: Iterator> {
    /// Ascending.
    pub(crate) under: std::iter::Peekable<U>,
    /// Ascending; `None` hides the entry below.
    pub(crate) over: std::iter::Peekable<O>,
}

impl<U, O> Iterator for Overlaid<U, O>
where
    U: Iterator<Item = Result<Entry, Error>>,
    O: Iterator<Item = (StateKey, Option<VersionedValue>)>,
{
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((over, _)) = self.over.peek() else { return self.under.next() };
            match self.under.peek() {
                Some(Err(_)) => return self.under.next(),
                Some(Ok((under, _))) if under < over => return self.under.next(),
                Some(Ok((under, _))) if under == over => {
                    self.under.next();
                }
                _ => {}
            }
            let (key, value) = self.over.next()?;
            if let Some(value) = value {
                return Some(Ok((key, value)));
            }
        }
    }
}
