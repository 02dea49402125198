//! Private data between endorsement and commit.
//!
//! An endorser, and the members it hands data to, keep a transaction's private writes here until the transaction arrives in a block,
//! or until so many blocks passed that it will not (Fabric `core/transientstore/store.go`).

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use consort_crypto::hash::sha256;
use consort_protos::{ids::BlockNumber, rwset::PrivateReadWriteSet};

use crate::{
    database::{Change, Column, Database},
    error::Error,
    order::{prefix_end, push_part},
};

/// Different private sets that one transaction may have waiting: one per endorser that simulated it differently. More are an attack on the disk.
pub const SETS_PER_TRANSACTION_MAX: usize = 32;

/// Bytes of the private sets of one transaction that may wait: twice the largest message and a half, as all of them are looked through
/// in memory when the transaction is committed.
pub const TRANSACTION_BYTES_MAX: u64 = 256 << 20;

/// Bytes of private sets that may wait in all: what members hand over without ever ordering the transaction must not fill the disk.
pub const WAITING_BYTES_MAX: u64 = 1 << 30;

/// Blocks after which an endorsement is not expected to be ordered any more; Fabric's `transientstoreMaxBlockRetention`.
pub const RETENTION_BLOCKS: u64 = 20_000;

/// Outdated sets that one commit removes at most, so that clearing up never delays a block noticeably.
const EXPIRED_PER_COMMIT_MAX: usize = 256;

/// Locks that puts are spread over: two puts for one transaction wait for each other, and others hardly ever.
const LOCKS: usize = 64;

/// The columns of this store.
pub(crate) const COLUMNS: [Column; 2] = [Column::Transient, Column::TransientArrivals];

/// Keeps private sets by transaction id. Cloning gives another handle to the same store.
#[derive(Clone)]
pub struct TransientStore {
    database: Arc<Database>,
    /// Of the sets that wait.
    bytes: Arc<AtomicU64>,
    locks: Arc<[Mutex<()>; LOCKS]>,
}

impl TransientStore {
    pub(crate) fn over(database: Arc<Database>) -> Result<Self, Error> {
        let mut bytes = 0;
        for record in database.scan(Column::TransientArrivals, &[], None) {
            bytes += size(&record?.1);
        }
        let locks = Arc::new(std::array::from_fn(|_| Mutex::new(())));
        Ok(Self { database, bytes: Arc::new(AtomicU64::new(bytes)), locks })
    }

    /// Keeps a private set that arrived at ledger height `height`, and waits until it is on the disk. The same set twice is kept once.
    ///
    /// # Errors
    /// [`Error::TransientFull`] when too many different sets wait for this transaction, [`Error::TransientTransaction`] when they are too
    /// large, [`Error::TransientBytes`] when too many wait in all; else when it cannot be written.
    pub fn put(&self, tx_id: &str, height: BlockNumber, set: &PrivateReadWriteSet) -> Result<(), Error> {
        let bytes = set.encode();
        let prefix = transaction_prefix(tx_id);
        let lock = &self.locks[usize::from(sha256(&prefix)[0]) % LOCKS];
        let _same_transaction = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let key = [prefix.as_slice(), &sha256(&bytes)].concat();
        if self.database.contains(Column::Transient, &key)? {
            return Ok(());
        }
        let length = bytes.len() as u64;
        self.check_transaction(tx_id, length)?;
        self.reserve(length)?;
        let mut change = self.database.change();
        let arrival = height.get().to_be_bytes();
        change.put(Column::TransientArrivals, arrival_key(&arrival, &key), length.to_be_bytes());
        change.put(Column::Transient, key, [arrival.as_slice(), &bytes].concat());
        change.write().inspect_err(|_| self.forget(length))
    }

    /// Whether another set of so many bytes may wait for a transaction.
    fn check_transaction(&self, tx_id: &str, length: u64) -> Result<(), Error> {
        let (mut sets, mut waiting) = (0, length);
        for record in self.records(tx_id) {
            // The arrival stands before the set.
            waiting += (record?.1.len() as u64).saturating_sub(8);
            sets += 1;
        }
        let transaction = || tx_id.to_owned();
        if sets >= SETS_PER_TRANSACTION_MAX {
            return Err(Error::TransientFull { transaction: transaction(), limit: SETS_PER_TRANSACTION_MAX });
        }
        if waiting > TRANSACTION_BYTES_MAX {
            return Err(Error::TransientTransaction {
                transaction: transaction(),
                limit: TRANSACTION_BYTES_MAX,
            });
        }
        Ok(())
    }

    /// Counts bytes that are about to wait, unless there are too many: before they are written, so that puts at one time cannot exceed the
    /// limit together.
    fn reserve(&self, length: u64) -> Result<(), Error> {
        let with = |now: u64| now.checked_add(length).filter(|sum| *sum <= WAITING_BYTES_MAX);
        match self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with) {
            Ok(_before) => Ok(()),
            Err(_before) => Err(Error::TransientBytes { limit: WAITING_BYTES_MAX }),
        }
    }

    /// Bytes of the sets that wait.
    #[must_use]
    pub fn waiting_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The private sets that wait for a transaction.
    ///
    /// # Errors
    /// When the store cannot be read, or is damaged.
    pub fn sets(&self, tx_id: &str) -> Result<Vec<PrivateReadWriteSet>, Error> {
        self.records(tx_id)
            .map(|record| {
                let (_, bytes) = split_arrival(&record?.1)?;
                PrivateReadWriteSet::decode(&bytes)
                    .map_err(|cause| Error::damaged("private set", cause.to_string()))
            })
            .collect()
    }

    /// Adds the removal of transactions that a block contains to what will be written with it.
    pub(crate) fn stage_removal<'t>(
        &self,
        tx_ids: impl IntoIterator<Item = &'t str>,
        change: &mut Change<'_>,
    ) -> Result<(), Error> {
        for tx_id in tx_ids {
            for record in self.records(tx_id) {
                let (key, value) = record?;
                let (arrival, set) = split_arrival(&value)?;
                self.forget(set.len() as u64);
                change.delete(Column::TransientArrivals, arrival_key(&arrival, &key));
                change.delete(Column::Transient, key);
            }
        }
        Ok(())
    }

    /// Adds the removal of what arrived too long before a block to what will be written with it.
    pub(crate) fn stage_expiry(&self, block: BlockNumber, change: &mut Change<'_>) -> Result<(), Error> {
        let Some(limit) = block.get().checked_sub(RETENTION_BLOCKS) else { return Ok(()) };
        let outdated = self.database.scan(Column::TransientArrivals, &[], Some(&limit.to_be_bytes()));
        for record in outdated.take(EXPIRED_PER_COMMIT_MAX) {
            let (key, length) = record?;
            self.forget(size(&length));
            if let Some(set) = key.get(8..) {
                change.delete(Column::Transient, set);
            }
            change.delete(Column::TransientArrivals, key);
        }
        Ok(())
    }

    /// The count only bounds the disk: if the block's write fails, nothing is written here either.
    fn forget(&self, bytes: u64) {
        let rest = |now: u64| Some(now.saturating_sub(bytes));
        let _before = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest);
    }

    /// Read one by one: together they may be large.
    fn records(&self, tx_id: &str) -> impl Iterator<Item = Result<(Bytes, Bytes), Error>> {
        let prefix = transaction_prefix(tx_id);
        self.database
            .scan(Column::Transient, &prefix, prefix_end(&prefix).as_deref())
            .take(SETS_PER_TRANSACTION_MAX)
    }
}

fn transaction_prefix(tx_id: &str) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(tx_id.len() + 34);
    push_part(&mut prefix, tx_id.as_bytes());
    prefix
}

fn arrival_key(arrival: &[u8; 8], key: &[u8]) -> Vec<u8> {
    [arrival.as_slice(), key].concat()
}

/// The size of a set, as its arrival's record tells it.
fn size(length: &Bytes) -> u64 {
    length.as_ref().try_into().map_or(0, u64::from_be_bytes)
}

fn split_arrival(value: &Bytes) -> Result<([u8; 8], Bytes), Error> {
    match value.split_first_chunk::<8>() {
        Some((arrival, set)) => Ok((*arrival, value.slice_ref(set))),
        None => Err(Error::damaged("private set", format!("{} bytes", value.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use consort_protos::rwset::{PrivateCollection, PrivateNamespace, Write};

    fn set(key: &str) -> PrivateReadWriteSet {
        let write = Write { key: key.to_owned(), is_delete: false, value: "value".into() };
        let collections = vec![PrivateCollection::new("secrets", vec![write], Vec::new())];
        PrivateReadWriteSet {
            namespaces: vec![PrivateNamespace { namespace: "basic".to_owned(), collections }],
        }
    }

    #[test]
    fn what_was_never_ordered_goes_after_its_blocks_also_when_the_process_began_anew() {
        let folder = tempfile::tempdir().unwrap();
        let open =
            || TransientStore::over(Arc::new(Database::open(folder.path(), &COLUMNS).unwrap())).unwrap();
        let store = open();
        let sets: u64 = EXPIRED_PER_COMMIT_MAX as u64 + 1;
        for number in 0..sets {
            store.put(&format!("never {number}"), BlockNumber::new(7), &set("key")).unwrap();
        }
        store.put("later", BlockNumber::new(8), &set("key")).unwrap();
        let waiting = store.waiting_bytes();
        drop(store);
        let store = open();
        assert_eq!(store.waiting_bytes(), waiting);
        let commit = |number: u64| {
            let mut change = store.database.change();
            store.stage_expiry(BlockNumber::new(number), &mut change).unwrap();
            change.write().unwrap();
            store.waiting_bytes() / (waiting / (sets + 1))
        };
        assert_eq!(commit(RETENTION_BLOCKS + 7), sets + 1, "they may still be ordered");
        assert_eq!(commit(RETENTION_BLOCKS + 8), 2, "a bounded number with one block");
        assert_eq!(commit(RETENTION_BLOCKS + 8), 1);
        assert_eq!(store.sets("never 3").unwrap(), []);
        assert_eq!(store.sets("later").unwrap(), [set("key")]);
    }
}
