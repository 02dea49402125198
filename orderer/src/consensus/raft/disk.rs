//! Where a Raft log lies: a small map of keys to values that is written in batches.

use std::{path::Path, sync::Arc};

use prometheus_client::metrics::histogram::Histogram;
use rocksdb::{DB, DBCompressionType, Options, WriteBatch, WriteOptions};

use super::log::LogError;
use crate::metrics::timed;

/// Entries are written once and soon deleted; a small table in memory is enough.
const WRITE_BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// Puts and deletions (`None`) that happen together or not at all.
pub(crate) type Batch = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Takes a key with its value, and says whether it wants more.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<bool, LogError> + 'a;

/// A map on disk; clones are the same map.
///
/// Duties of an implementation: a batch happens whole or not at all; batches survive a crash in their order, and all up to a synced one
/// do once that one has returned.
pub(crate) trait Disk: Clone {
    /// Performs a batch.
    fn write(&self, batch: Batch, synced: bool) -> Result<(), LogError>;

    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, LogError>;

    /// Keys with values from a key on, in order, as long as the function wants more.
    fn scan(&self, from: &[u8], more: &mut Visit<'_>) -> Result<(), LogError>;
}

/// A database of its own, with the time that its synced writes take.
#[derive(Clone)]
pub(crate) struct Database {
    map: Arc<DB>,
    sync_seconds: Histogram,
}

impl Database {
    pub(crate) fn open(path: &Path, sync_seconds: Histogram) -> Result<Self, LogError> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_write_buffer_size(WRITE_BUFFER_BYTES);
        // Envelopes are mostly signatures and hashes, which do not get smaller, and entries are deleted soon.
        options.set_compression_type(DBCompressionType::None);
        options.set_max_write_buffer_number(2);
        options.set_keep_log_file_num(2);
        options.set_max_open_files(64);
        Ok(Self { map: Arc::new(DB::open(&options, path)?), sync_seconds })
    }
}

impl Disk for Database {
    fn write(&self, batch: Batch, synced: bool) -> Result<(), LogError> {
        let mut writes = WriteBatch::default();
        for (key, value) in batch {
            match value {
                Some(value) => writes.put(key, value),
                None => writes.delete(key),
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(synced);
        let write = || self.map.write_opt(writes, &options);
        let written = if synced { timed(&self.sync_seconds, write) } else { write() };
        Ok(written?)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, LogError> {
        Ok(self.map.get(key)?)
    }

    fn scan(&self, from: &[u8], more: &mut Visit<'_>) -> Result<(), LogError> {
        for record in self.map.iterator(rocksdb::IteratorMode::From(from, rocksdb::Direction::Forward)) {
            let (key, value) = record?;
            if !more(&key, &value)? {
                break;
            }
        }
        Ok(())
    }
}
