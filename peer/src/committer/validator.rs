//! The second half of a block's validation, against the state after the block before it.
//!
//! Gives every transaction its code but for the version checks, which are the ledger's. Pure but for reads. The rules are
//! Fabric's 2.0 validator's (`core/committer/txvalidator/v20`).

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use consort_channel_config::{ChannelBundle, ConfigError};
use consort_ledger::{Ledger, Lookup};
use consort_protos::entry::EntryNumber;
use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::transaction::Rejection;
use rayon::prelude::*;

use super::aggregate::{self, Aggregate};
use super::dependencies::Dependencies;
use super::endorsement::{Endorsed, Policies, Refusal, Undecidable};
use super::structure::{self, Opened, VerifiedTransaction};
use crate::identities::table::{Table, Versions};

/// A judged block.
#[derive(Debug)]
pub struct Outcome {
    /// One code per transaction.
    pub codes: Vec<TxValidationCode>,
    /// The configuration that the block brings, if it brings one.
    pub bundle: Option<ChannelBundle>,
    /// What was read of the books, which the commit needs again.
    pub lookup: Lookup,
}

/// Why this peer cannot judge a block. It stops the channel: another peer may know better.
#[derive(Debug, thiserror::Error)]
pub enum ValidationError {
    /// A transaction cannot be judged.
    #[error("transaction {index} cannot be judged")]
    Undecidable {
        /// Its position in the block.
        index: usize,
        /// The cause.
        #[source]
        source: Undecidable,
    },
    /// The ledger could not be read.
    #[error("the books could not be read")]
    Books(#[source] consort_ledger::Error),
    /// The table of identities could not be read.
    #[error("the table of identities could not be read: {0}")]
    Table(String),
    /// The orderers ordered a configuration that cannot be read.
    #[error("the configuration in transaction {index} cannot be read: {reason}")]
    Unreadable {
        /// Its position in the block.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The orderers ordered a configuration that does not follow from the present one, or that this peer does not
    /// support.
    #[error("the configuration in transaction {index} cannot be applied")]
    Config {
        /// Its position in the block.
        index: usize,
        /// The cause.
        #[source]
        source: ConfigError,
    },
}

impl ValidationError {
    /// What an operator can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Undecidable { .. } | Self::Books(_) | Self::Table(_) => {
                "check the disk, then restart the peer; if it happens again, restore the channel's folder from a backup"
            }
            Self::Unreadable { .. } => {
                "the orderers ordered what no peer of the channel can take: ask their operators"
            }
            Self::Config { .. } => {
                "if a capability is not supported, run a newer version of the peer; otherwise the orderers ordered what \
                 the channel's policies do not allow: ask their operators"
            }
        }
    }
}

/// Judges the transactions of the block after the ledger's last one. `bundle` is the configuration in force before it, `seen`
/// are the entries of the table of identities by which the transactions were opened: they may be older, and what named
/// another version of one is opened again.
///
/// # Errors
/// [`ValidationError`]; never because a transaction is invalid.
pub(crate) fn validate(
    bundle: &ChannelBundle,
    ledger: &Ledger,
    transactions: &mut [Opened],
    seen: &Versions,
) -> Result<Outcome, ValidationError> {
    let snapshot = ledger.snapshot();
    let table = Table::new(bundle, &snapshot);
    transactions.par_iter_mut().for_each(|opened| {
        let stale = opened.transaction().filter(|transaction| table.differs(seen, &table.named(transaction)));
        if let Some(transaction) = stale.cloned() {
            *opened = structure::judge(bundle, &table, transaction);
        }
    });
    aggregate::settle(transactions);
    let transactions = &*transactions;
    let opened: Vec<_> = transactions.iter().map(|transaction| transaction.transaction().cloned()).collect();
    let codes: Vec<_> = transactions.iter().map(Opened::code).collect();
    let lookup = ledger.look_up(&opened, &codes).map_err(ValidationError::Books)?;
    let policies = Policies::new(bundle, &snapshot, &lookup);
    let mut judgements = Judge { bundle, table: &table, policies, lookup: &lookup }.all(transactions)?;
    if let Some(reason) = table.failure() {
        return Err(ValidationError::Table(reason));
    }
    let bundle = apply_configurations(bundle, transactions)?;
    mark_repeated(transactions, &mut judgements);
    let codes = judgements
        .into_iter()
        .zip(transactions)
        .map(|(judgement, transaction)| match judgement {
            Ok(()) => TxValidationCode::Valid,
            Err(rejection) => {
                explain(transaction, &rejection);
                rejection.code
            }
        })
        .collect();
    Ok(Outcome { codes, bundle, lookup })
}

/// What a block's transactions are judged by.
struct Judge<'b> {
    bundle: &'b ChannelBundle,
    table: &'b Table<'b>,
    policies: Policies<'b>,
    lookup: &'b Lookup,
}

impl Judge<'_> {
    fn all(&self, transactions: &[Opened]) -> Result<Vec<Result<(), Rejection>>, ValidationError> {
        let sets = transactions.iter().enumerate().filter_map(|(index, transaction)| match transaction {
            Opened::Endorser(verified) => Some((index, &verified.transaction.invocation()?.rwset)),
            _ => None,
        });
        let mut dependencies = Dependencies::of(sets);
        if dependencies.is_empty() {
            return (0..transactions.len())
                .into_par_iter()
                .map(|index| self.one(index, &transactions[index], &dependencies, &mut BTreeSet::new()))
                .collect();
        }
        // A key's policy or an entry changes within the block: each transaction depends on what became of those before it.
        let mut judgements = Vec::with_capacity(transactions.len());
        for (index, transaction) in transactions.iter().enumerate() {
            let mut passed = BTreeSet::new();
            let retired = self.retired_before(index, transaction, &dependencies);
            let judgement = if retired.is_empty() {
                self.one(index, transaction, &dependencies, &mut passed)?
            } else {
                self.without(index, transaction, retired, &dependencies, &mut passed)?
            };
            judgements.push(judgement);
            dependencies.pass(index, &passed);
        }
        Ok(judgements)
    }

    fn retired_before(
        &self,
        index: usize,
        transaction: &Opened,
        dependencies: &Dependencies<'_>,
    ) -> BTreeSet<EntryNumber> {
        let named = transaction.transaction().map(|transaction| self.table.named(transaction));
        dependencies.retired_before(index, named.unwrap_or_default())
    }

    /// Judges a transaction that names entries which an earlier one of the block retired.
    fn without<'t>(
        &self,
        index: usize,
        transaction: &'t Opened,
        retired: BTreeSet<EntryNumber>,
        dependencies: &Dependencies<'_>,
        passed: &mut BTreeSet<&'t str>,
    ) -> Result<Result<(), Rejection>, ValidationError> {
        let Some(opened) = transaction.transaction() else {
            return self.one(index, transaction, dependencies, passed);
        };
        let table = self.table.without(retired);
        let mut again = structure::judge(self.bundle, &table, Arc::clone(opened));
        aggregate::settle(std::slice::from_mut(&mut again));
        if let Some(reason) = table.failure() {
            return Err(ValidationError::Table(reason));
        }
        let mut passed_again = BTreeSet::new();
        let judgement = self.one(index, &again, dependencies, &mut passed_again)?;
        // The same names, out of the transaction that stays.
        let names = opened.invocation().into_iter().flat_map(|invocation| {
            let written = invocation.rwset.namespaces.iter().map(|set| set.namespace.as_str());
            written.chain([invocation.chaincode_id.name.as_str()])
        });
        passed.extend(names.filter(|name| passed_again.contains(name)));
        Ok(judgement)
    }

    fn one<'t>(
        &self,
        index: usize,
        transaction: &'t Opened,
        dependencies: &Dependencies<'_>,
        passed: &mut BTreeSet<&'t str>,
    ) -> Result<Result<(), Rejection>, ValidationError> {
        let verified = match transaction {
            Opened::Rejected { rejection, .. } if rejection.code == TxValidationCode::NotValidated => {
                return Err(ValidationError::Unreadable { index, reason: rejection.reason.clone() });
            }
            Opened::Rejected { rejection, .. } => return Ok(Err(rejection.clone())),
            Opened::Config(_) => return Ok(Ok(())),
            Opened::Endorser(verified) => verified,
        };
        if self.lookup.is_known_id(index) {
            return Ok(Err(Rejection::new(
                TxValidationCode::DuplicateTxid,
                "the transaction id is in the ledger already",
            )));
        }
        match invocation(index, verified, &self.policies, dependencies, passed) {
            Ok(()) => Ok(Ok(())),
            Err(Refusal::Invalid(rejection)) => Ok(Err(rejection)),
            Err(Refusal::Undecidable(source)) => Err(ValidationError::Undecidable { index, source }),
        }
    }
}

fn invocation<'t>(
    index: usize,
    verified: &'t VerifiedTransaction,
    policies: &Policies<'_>,
    dependencies: &Dependencies<'_>,
    passed: &mut BTreeSet<&'t str>,
) -> Result<(), Refusal> {
    let endorser = verified.endorser();
    let invocation = endorser.invocation.as_ref().map_err(|rejection| Refusal::Invalid(rejection.clone()))?;
    if let Aggregate::Refused(rejection) = &verified.aggregate {
        return Err(Refusal::Invalid(rejection.clone()));
    }
    let endorsed = Endorsed {
        index,
        transaction: &verified.transaction,
        creator: &verified.creator,
        endorser,
        chaincode: &invocation.chaincode_id.name,
        set: &invocation.rwset,
        endorsers: &verified.endorsers,
    };
    policies.judge(endorsed, dependencies, passed)
}

/// Applies the block's configurations one after the other; orderers put each into a block of its own. One that demands what
/// this peer does not understand is not applied: the blocks after it follow rules that the peer does not know.
fn apply_configurations(
    bundle: &ChannelBundle,
    transactions: &[Opened],
) -> Result<Option<ChannelBundle>, ValidationError> {
    let mut applied: Option<ChannelBundle> = None;
    for (index, transaction) in transactions.iter().enumerate() {
        let Opened::Config(transaction) = transaction else { continue };
        let config =
            transaction.config().expect("invariant: `structure::open` checked the body of a configuration");
        let next = applied.as_ref().unwrap_or(bundle).apply(&config.envelope);
        let supported = next.and_then(|next| next.check_supported_by_peers().map(|()| next));
        applied = Some(supported.map_err(|source| ValidationError::Config { index, source })?);
    }
    Ok(applied)
}

/// Of several valid transactions with one id the first stays; configurations take no part.
fn mark_repeated(transactions: &[Opened], judgements: &mut [Result<(), Rejection>]) {
    let mut seen: HashSet<&str> = HashSet::new();
    for (transaction, judgement) in transactions.iter().zip(judgements) {
        let Opened::Endorser(verified) = transaction else { continue };
        if judgement.is_ok() && !seen.insert(verified.transaction.tx_id.as_str()) {
            *judgement = Err(Rejection::new(
                TxValidationCode::DuplicateTxid,
                "an earlier transaction of the block has the same id",
            ));
        }
    }
}

fn explain(transaction: &Opened, rejection: &Rejection) {
    let tx_id = transaction.transaction().map_or("", |transaction| transaction.tx_id.as_str());
    tracing::warn!(%tx_id, code = rejection.code.as_str_name(), reason = %rejection.reason, "invalid transaction");
}
