//! Private data between endorsement and commit.
//!
//! An endorser, and the members it hands data to, keep a transaction's private writes here until the transaction arrives in a block,
//! or until so many blocks passed that it will not (Fabric `core/transientstore/store.go`).

use std::sync::Arc;

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

/// Blocks after which an endorsement is not expected to be ordered any more; Fabric's `transientstoreMaxBlockRetention`.
pub const RETENTION_BLOCKS: u64 = 20_000;

/// Outdated sets that one commit removes at most, so that clearing up never delays a block noticeably.
const EXPIRED_PER_COMMIT_MAX: usize = 256;

/// The columns of this store.
pub(crate) const COLUMNS: [Column; 2] = [Column::Transient, Column::TransientArrivals];

/// Keeps private sets by transaction id. Cloning gives another handle to the same store.
#[derive(Clone)]
pub struct TransientStore {
    database: Arc<Database>,
}

impl TransientStore {
    pub(crate) fn over(database: Arc<Database>) -> Self {
        Self { database }
    }

    /// Keeps a private set that arrived at ledger height `height`, and waits until it is on the disk. The same set twice is kept once.
    ///
    /// # Errors
    /// [`Error::TransientFull`] when too many different sets wait for this transaction; else when it cannot be written.
    pub fn put(&self, tx_id: &str, height: BlockNumber, set: &PrivateReadWriteSet) -> Result<(), Error> {
        let bytes = set.encode();
        let key = [transaction_prefix(tx_id).as_slice(), &sha256(&bytes)].concat();
        if self.database.contains(Column::Transient, &key)? {
            return Ok(());
        }
        if self.keys(tx_id)?.len() >= SETS_PER_TRANSACTION_MAX {
            return Err(Error::TransientFull {
                transaction: tx_id.to_owned(),
                limit: SETS_PER_TRANSACTION_MAX,
            });
        }
        let mut change = self.database.change();
        let arrival = height.get().to_be_bytes();
        change.put(Column::TransientArrivals, arrival_key(&arrival, &key), b"");
        change.put(Column::Transient, key, [arrival.as_slice(), &bytes].concat());
        change.write()
    }

    /// The private sets that wait for a transaction.
    ///
    /// # Errors
    /// When the store cannot be read, or is damaged.
    pub fn sets(&self, tx_id: &str) -> Result<Vec<PrivateReadWriteSet>, Error> {
        self.records(tx_id)?
            .into_iter()
            .map(|(_, value)| {
                let (_, bytes) = split_arrival(&value)?;
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
            for (key, value) in self.records(tx_id)? {
                let (arrival, _) = split_arrival(&value)?;
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
            let (key, _) = record?;
            if let Some(set) = key.get(8..) {
                change.delete(Column::Transient, set);
            }
            change.delete(Column::TransientArrivals, key);
        }
        Ok(())
    }

    fn keys(&self, tx_id: &str) -> Result<Vec<Bytes>, Error> {
        Ok(self.records(tx_id)?.into_iter().map(|(key, _)| key).collect())
    }

    fn records(&self, tx_id: &str) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let prefix = transaction_prefix(tx_id);
        self.database
            .scan(Column::Transient, &prefix, prefix_end(&prefix).as_deref())
            .take(SETS_PER_TRANSACTION_MAX)
            .collect()
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

fn split_arrival(value: &Bytes) -> Result<([u8; 8], Bytes), Error> {
    match value.split_first_chunk::<8>() {
        Some((arrival, set)) => Ok((*arrival, value.slice_ref(set))),
        None => Err(Error::damaged("private set", format!("{} bytes", value.len()))),
    }
}
