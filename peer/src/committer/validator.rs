//! The second half of a block's validation, against the state after the block before it.
//!
//! Gives every transaction its code but for the version checks, which are the ledger's. Pure but for reads. The rules are
//! Fabric's 2.0 validator's (`core/committer/txvalidator/v20`).

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use consort_channel_config::{ChannelBundle, ConfigError};
use consort_ledger::{Ledger, StateSnapshot};
use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::transaction::{Rejection, Transaction};
use rayon::prelude::*;

use super::dependencies::Dependencies;
use super::endorsement::{Endorsed, Policies, Refusal, Undecidable};
use super::structure::{Opened, VerifiedTransaction};

/// A judged block.
#[derive(Debug)]
pub struct Outcome {
    /// One code per transaction.
    pub codes: Vec<TxValidationCode>,
    /// The configuration that the block brings, if it brings one.
    pub bundle: Option<ChannelBundle>,
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
    #[error("the transaction index could not be read")]
    Index(#[source] consort_ledger::Error),
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
            Self::Undecidable { .. } | Self::Index(_) => {
                "check the disk, then restart the peer; if it happens again, restore the channel's folder from a backup"
            }
            Self::Config { .. } => {
                "if a capability is not supported, run a newer version of the peer; otherwise the orderers ordered what \
                 the channel's policies do not allow: ask their operators"
            }
        }
    }
}

/// Judges the transactions of the block after the ledger's last one. `bundle` is the configuration in force before it.
///
/// # Errors
/// [`ValidationError`]; never because a transaction is invalid.
pub fn validate(
    bundle: &ChannelBundle,
    ledger: &Ledger,
    transactions: &[Opened],
) -> Result<Outcome, ValidationError> {
    let snapshot = ledger.snapshot();
    let duplicates = duplicates(ledger, transactions)?;
    let mut judgements = judge_endorsements(bundle, &snapshot, transactions, &duplicates)?;
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
    Ok(Outcome { codes, bundle })
}

/// Per transaction: is its id in the ledger already?
fn duplicates(ledger: &Ledger, transactions: &[Opened]) -> Result<Vec<bool>, ValidationError> {
    transactions
        .iter()
        .map(|transaction| match transaction {
            Opened::Endorser(verified) => {
                ledger.contains_tx(&verified.transaction.tx_id).map_err(ValidationError::Index)
            }
            _ => Ok(false),
        })
        .collect()
}

fn judge_endorsements(
    bundle: &ChannelBundle,
    snapshot: &StateSnapshot,
    transactions: &[Opened],
    duplicates: &[bool],
) -> Result<Vec<Result<(), Rejection>>, ValidationError> {
    let policies = Policies::new(bundle, snapshot);
    let sets = transactions.iter().enumerate().filter_map(|(index, transaction)| match transaction {
        Opened::Endorser(verified) => Some((index, &verified.transaction.invocation()?.rwset)),
        _ => None,
    });
    let mut dependencies = Dependencies::of(sets);
    if dependencies.is_empty() {
        return (0..transactions.len())
            .into_par_iter()
            .map(|index| {
                let mut passed = BTreeSet::new();
                judge(index, &transactions[index], duplicates[index], &policies, &dependencies, &mut passed)
            })
            .collect();
    }
    // A key's policy changes within the block: each transaction depends on what became of those before it.
    let mut judgements = Vec::with_capacity(transactions.len());
    for (index, transaction) in transactions.iter().enumerate() {
        let mut passed = BTreeSet::new();
        judgements.push(judge(index, transaction, duplicates[index], &policies, &dependencies, &mut passed)?);
        dependencies.pass(index, &passed);
    }
    Ok(judgements)
}

fn judge<'t>(
    index: usize,
    transaction: &'t Opened,
    duplicate: bool,
    policies: &Policies<'_>,
    dependencies: &Dependencies<'_>,
    passed: &mut BTreeSet<&'t str>,
) -> Result<Result<(), Rejection>, ValidationError> {
    let verified = match transaction {
        Opened::Rejected { rejection, .. } => return Ok(Err(rejection.clone())),
        Opened::Config(_) => return Ok(Ok(())),
        Opened::Endorser(verified) => verified,
    };
    if duplicate {
        return Ok(Err(Rejection::new(
            TxValidationCode::DuplicateTxid,
            "the transaction id is in the ledger already",
        )));
    }
    match invocation(index, verified, policies, dependencies, passed) {
        Ok(()) => Ok(Ok(())),
        Err(Refusal::Invalid(rejection)) => Ok(Err(rejection)),
        Err(Refusal::Undecidable(source)) => Err(ValidationError::Undecidable { index, source }),
    }
}

fn invocation<'t>(
    index: usize,
    verified: &'t VerifiedTransaction,
    policies: &Policies<'_>,
    dependencies: &Dependencies<'_>,
    passed: &mut BTreeSet<&'t str>,
) -> Result<(), Refusal> {
    let invocation =
        verified.endorser().invocation.as_ref().map_err(|rejection| Refusal::Invalid(rejection.clone()))?;
    let endorsed = Endorsed {
        index,
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
    let transaction: Option<&Arc<Transaction>> = match transaction {
        Opened::Rejected { transaction, .. } => transaction.as_ref(),
        Opened::Endorser(verified) => Some(&verified.transaction),
        Opened::Config(transaction) => Some(transaction),
    };
    let tx_id = transaction.map_or("", |transaction| transaction.tx_id.as_str());
    tracing::warn!(%tx_id, code = rejection.code.as_str_name(), reason = %rejection.reason, "invalid transaction");
}
