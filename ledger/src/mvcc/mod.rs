//! Version checks: which transactions of a block saw a state that still holds when their turn comes, and what these change.
//!
//! Pure: the codes so far and the state go in, the final codes and the changes come out. Rules: Fabric
//! `core/ledger/kvledger/txmgmt/validation` (`validator.go`, `tx_ops.go`, `batch_preparer.go`).

mod apply;
mod known;
mod phantom;

use std::sync::Arc;

use bytes::Bytes;
use consort_protos::{
    fabric::protos::TxValidationCode,
    ids::{BlockNumber, Height},
    rwset::{NamespaceReadWriteSet, TxReadWriteSet},
    transaction::{Body, Transaction},
};

pub(crate) use self::known::KnownState;

use crate::{
    error::Error,
    state::{StateReader, VersionedValue},
    updates::{NamespaceUpdates, Update, UpdateBatch},
};

/// The public key under which the channel's configuration stands, in the namespace "".
pub const CONFIG_KEY: &str = "CHANNEL_CONFIG_ENV_BYTES";

/// The outcome for a block.
#[derive(Debug)]
pub struct Verdict {
    /// The final code of every transaction.
    pub codes: Vec<TxValidationCode>,
    /// What the valid ones change.
    pub updates: UpdateBatch,
    /// The values, before the block, of all keys that were asked for; among them every key that changes.
    pub(crate) known: KnownState,
}

/// Judges the transactions of a block in their order. Those whose code is not `Valid` keep it and change nothing.
///
/// A transaction that could not be opened is `None` and must have another code than `Valid`; it counts as
/// `INVALID_OTHER_REASON` otherwise.
///
/// # Errors
/// When the state cannot be read.
pub fn validate(
    number: BlockNumber,
    transactions: &[Option<Arc<Transaction>>],
    codes: &[TxValidationCode],
    state: &dyn StateReader,
) -> Result<Verdict, Error> {
    let wanted: Vec<bool> = codes.iter().map(|code| *code == TxValidationCode::Valid).collect();
    let known = KnownState::fetch(transactions, &wanted, state)?;
    judge(number, transactions, codes, state, known)
}

/// [`validate`] with values that have been read already: at least those that the transactions with the code `Valid` ask for.
pub(crate) fn judge(
    number: BlockNumber,
    transactions: &[Option<Arc<Transaction>>],
    codes: &[TxValidationCode],
    state: &dyn StateReader,
    known: KnownState,
) -> Result<Verdict, Error> {
    let mut judge = Judge { state, known, updates: UpdateBatch::default() };
    let mut verdicts = codes.to_vec();
    for (index, (transaction, verdict)) in transactions.iter().zip(&mut verdicts).enumerate() {
        if *verdict != TxValidationCode::Valid {
            continue;
        }
        let index = u32::try_from(index)
            .expect("invariant: a message of at most 2 GB holds fewer than 2^32 envelopes");
        *verdict = judge.transaction(transaction.as_deref(), Height::new(number.get(), index))?;
    }
    Ok(Verdict { codes: verdicts, updates: judge.updates, known: judge.known })
}

/// What a genesis block changes: it sets the configuration.
pub(crate) fn genesis(config: Bytes) -> UpdateBatch {
    let value = VersionedValue { value: config, metadata: Bytes::new(), version: Height::new(0, 0) };
    let public = [(CONFIG_KEY.to_owned(), Update::Put(value))].into();
    let updates = NamespaceUpdates { public, ..NamespaceUpdates::default() };
    UpdateBatch { namespaces: [(String::new(), updates)].into() }
}

/// The state as it is when the next transaction is judged.
struct Judge<'a> {
    state: &'a dyn StateReader,
    known: KnownState,
    updates: UpdateBatch,
}

impl Judge<'_> {
    fn transaction(
        &mut self,
        transaction: Option<&Transaction>,
        height: Height,
    ) -> Result<TxValidationCode, Error> {
        let body = match transaction.map(|transaction| &transaction.body) {
            None => return Ok(TxValidationCode::InvalidOtherReason),
            Some(Err(rejection)) => return Ok(rejection.code),
            Some(Ok(body)) => body,
        };
        match body {
            Body::Endorser(endorser) => {
                let rwset = match &endorser.invocation {
                    Ok(invocation) => &invocation.rwset,
                    Err(rejection) => return Ok(rejection.code),
                };
                for namespace in &rwset.namespaces {
                    if let Some(code) = self.conflict(namespace)? {
                        return Ok(code);
                    }
                }
                self.apply(rwset, height);
            }
            Body::Config(config) => self.apply_config(config.bytes.clone(), height),
            Body::ConfigUpdate(_) => {}
        }
        Ok(TxValidationCode::Valid)
    }

    /// Why the reads of a namespace do not hold any more, if they do not.
    fn conflict(&self, namespace: &NamespaceReadWriteSet) -> Result<Option<TxValidationCode>, Error> {
        let changed = self.updates.namespaces.get(&namespace.namespace);
        for read in &namespace.reads {
            let updated = changed.is_some_and(|changed| changed.public.contains_key(&read.key));
            if updated
                || self.known.public(&namespace.namespace, &read.key).map(|value| value.version)
                    != read.version
            {
                return Ok(Some(TxValidationCode::MvccReadConflict));
            }
        }
        for query in &namespace.range_queries {
            if !phantom::holds(
                &namespace.namespace,
                query,
                changed.map(|changed| &changed.public),
                self.state,
            )? {
                return Ok(Some(TxValidationCode::PhantomReadConflict));
            }
        }
        let stale = namespace.collections.iter().any(|collection| {
            let changed = changed.and_then(|changed| changed.hashed.get(&collection.name));
            collection.hashed_reads.iter().any(|read| {
                let committed = self.known.hashed(&namespace.namespace, &collection.name, &read.key_hash);
                changed.is_some_and(|changed| changed.contains_key(&read.key_hash))
                    || committed.map(|value| value.version) != read.version
            })
        });
        Ok(stale.then_some(TxValidationCode::MvccReadConflict))
    }

    fn apply(&mut self, rwset: &TxReadWriteSet, height: Height) {
        for namespace in &rwset.namespaces {
            let mut public = Vec::new();
            for (key, operations) in apply::public_operations(namespace) {
                let update = self.updates.public(&namespace.namespace, key);
                let latest =
                    update.map_or_else(|| self.known.public(&namespace.namespace, key), Update::value);
                public.extend(operations.result(latest, height).map(|update| (key.to_owned(), update)));
            }
            let mut hashed = Vec::new();
            for collection in &namespace.collections {
                for (key, operations) in apply::hashed_operations(collection, self.state.hash_algorithm()) {
                    let update = self.updates.hashed(&namespace.namespace, &collection.name, key);
                    let latest = update.map_or_else(
                        || self.known.hashed(&namespace.namespace, &collection.name, key),
                        Update::value,
                    );
                    hashed.extend(
                        operations
                            .result(latest, height)
                            .map(|update| (&collection.name, key.clone(), update)),
                    );
                }
            }
            if public.is_empty() && hashed.is_empty() {
                continue;
            }
            let changed = self.namespace(&namespace.namespace);
            changed.public.extend(public);
            for (collection, key, update) in hashed {
                changed.hashed.entry(collection.clone()).or_default().insert(key, update);
            }
        }
    }

    fn apply_config(&mut self, config: Bytes, height: Height) {
        let latest = self
            .updates
            .public("", CONFIG_KEY)
            .map_or_else(|| self.known.public("", CONFIG_KEY), Update::value);
        let update = apply::Operations::put(config).result(latest, height);
        self.namespace("").public.extend(update.map(|update| (CONFIG_KEY.to_owned(), update)));
    }

    fn namespace(&mut self, namespace: &str) -> &mut NamespaceUpdates {
        self.updates.namespaces.entry(namespace.to_owned()).or_default()
    }
}
