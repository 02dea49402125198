//! Records what a chaincode run reads and writes.
//!
//! Reads show the committed state of the snapshot: a transaction does not see its own writes. What is recorded is what the peers of the
//! other organisations must come to as well, byte for byte. Rules: Fabric `core/ledger/kvledger/txmgmt/txmgr` (`tx_simulator.go`,
//! `query_executor.go`), `rwsetutil/rwset_builder.go` and, for batches, `core/chaincode/query_response_generator.go`.

mod private;
mod ranges;
mod record;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use consort_protos::rwset::{PrivateReadWriteSet, TxReadWriteSet};

pub use self::ranges::{BATCH_RESULTS, Page, QUERY_RESULTS_MAX, RangeBatch, RangeId};

use self::{ranges::Ranges, record::Record};
use crate::{
    error::Error,
    snapshot::StateSnapshot,
    state::{StateKey, StateReader as _, VersionedValue},
};

/// A simulation cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimulationError {
    /// The chaincode broke a rule; the text is Fabric's.
    #[error("{0}")]
    Rule(String),

    /// The state cannot be read.
    #[error("the state cannot be read")]
    Ledger(#[from] Error),
}

/// The result of a simulation.
#[derive(Debug, Clone, PartialEq)]
pub struct Simulation {
    /// What the transaction read and wrote, in canonical form.
    pub rwset: TxReadWriteSet,
    /// The plain private writes that the hashes in it stand for; empty without private writes.
    pub private: PrivateReadWriteSet,
}

/// Runs one transaction's reads and writes against a snapshot.
pub struct TxSimulator {
    snapshot: StateSnapshot,
    tx_id: String,
    record: Record,
    ranges: Ranges,
    /// What was done so far; some things exclude others.
    wrote: bool,
    queried_private: bool,
    queried_pages: bool,
}

impl TxSimulator {
    /// Starts the simulation of a transaction.
    #[must_use]
    pub fn new(snapshot: StateSnapshot, tx_id: impl Into<String>) -> Self {
        Self {
            snapshot,
            tx_id: tx_id.into(),
            record: Record::default(),
            ranges: Ranges::default(),
            wrote: false,
            queried_private: false,
            queried_pages: false,
        }
    }

    /// The state that is read.
    #[must_use]
    pub fn snapshot(&self) -> &StateSnapshot {
        &self.snapshot
    }

    /// Value of a public key; the read is recorded.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn get(&mut self, namespace: &str, key: &str) -> Result<Option<Bytes>, SimulationError> {
        Ok(self.read(namespace, key)?.map(|value| value.value))
    }

    /// Values of several public keys, in the order of the keys, in one trip to the store; each read is recorded
    /// (Fabric `GetMultipleStates`). A key may be asked for more than once.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn get_many(
        &mut self,
        namespace: &str,
        keys: &[String],
    ) -> Result<Vec<Option<Bytes>>, SimulationError> {
        let sorted: BTreeSet<StateKey> = keys.iter().map(|key| StateKey::public(namespace, key)).collect();
        let sorted: Vec<StateKey> = sorted.into_iter().collect();
        let values = self.snapshot.read(&sorted)?;
        let reads = &mut self.record.namespace(namespace).reads;
        let answer = |key: &String| {
            let place = sorted.binary_search(&StateKey::public(namespace, key));
            let value = place.ok().and_then(|place| values[place].as_ref());
            reads.insert(key.clone(), value.map(|value| value.version));
            value.map(|value| value.value.clone())
        };
        Ok(keys.iter().map(answer).collect())
    }

    /// Metadata of a public key by name, such as `VALIDATION_PARAMETER`; a read of the key is recorded.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn metadata(
        &mut self,
        namespace: &str,
        key: &str,
    ) -> Result<BTreeMap<String, Bytes>, SimulationError> {
        let entries = self.read(namespace, key)?.map(|value| value.metadata_entries()).transpose()?;
        Ok(entries.unwrap_or_default().into_iter().collect())
    }

    fn read(&mut self, namespace: &str, key: &str) -> Result<Option<VersionedValue>, SimulationError> {
        let value = self.snapshot.get(namespace, key)?;
        self.record
            .namespace(namespace)
            .reads
            .insert(key.to_owned(), value.as_ref().map(|value| value.version));
        Ok(value)
    }

    /// Writes a public key. An empty value deletes it, as in Fabric.
    ///
    /// # Errors
    /// After a paginated query or a query of private data.
    pub fn put(&mut self, namespace: &str, key: &str, value: Bytes) -> Result<(), SimulationError> {
        self.may_write()?;
        self.record.namespace(namespace).writes.insert(key.to_owned(), value);
        Ok(())
    }

    /// Deletes a public key.
    ///
    /// # Errors
    /// As for [`TxSimulator::put`].
    pub fn delete(&mut self, namespace: &str, key: &str) -> Result<(), SimulationError> {
        self.put(namespace, key, Bytes::new())
    }

    /// Replaces all metadata of a public key; no entries delete it.
    ///
    /// # Errors
    /// As for [`TxSimulator::put`].
    pub fn put_metadata(
        &mut self,
        namespace: &str,
        key: &str,
        entries: BTreeMap<String, Bytes>,
    ) -> Result<(), SimulationError> {
        self.may_write()?;
        self.record.namespace(namespace).metadata_writes.insert(key.to_owned(), entries);
        Ok(())
    }

    /// Ends the simulation.
    #[must_use]
    pub fn finish(mut self) -> Simulation {
        self.ranges.record(&mut self.record);
        let hash = self.hash();
        self.record.finish(hash)
    }

    fn may_write(&mut self) -> Result<(), SimulationError> {
        if self.queried_private {
            return Err(self.rule(
                "unsuppored transaction. Transaction has already performed queries on pvt data. Writes are not allowed",
            ));
        }
        if self.queried_pages {
            return Err(self.rule(
                "unsuppored transaction. Transaction has already performed a paginated query. Writes are not allowed",
            ));
        }
        self.wrote = true;
        Ok(())
    }

    fn rule(&self, text: &str) -> SimulationError {
        SimulationError::Rule(format!("txid [{}]: {text}", self.tx_id))
    }
}
