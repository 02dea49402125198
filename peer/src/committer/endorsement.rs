//! Whether a transaction's endorsements satisfy the policies of everything that it writes.
//!
//! Rules: Fabric `core/common/validation/statebased` (2.0 validator). Per written namespace and key: the key's own policy
//! when it has one, otherwise its collection's, otherwise the chaincode's; with no writes at all, the chaincode's.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_ledger::{Lookup, StateSnapshot};
use consort_msp::Identity;
use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::rwset::{NamespaceReadWriteSet, TxReadWriteSet};
use consort_protos::transaction::{EndorserTransaction, Rejection, Transaction};

use super::dependencies::{Dependencies, PolicyKey, written_keys};
use super::governance::{Governance, GovernanceError, Rule};
use crate::identities::IDENTITIES;
use crate::identities::rules::{self, Change};
use crate::sealed::{SEALED, validation as sealed};

/// Name of the metadata entry that holds a key's policy.
const VALIDATION_PARAMETER: &str = "VALIDATION_PARAMETER";

/// Why a transaction is not valid, or cannot be judged.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is invalid.
    Invalid(Rejection),
    /// This peer cannot tell.
    Undecidable(Undecidable),
}

/// Why this peer cannot judge a transaction: no verdict, but a reason to stop.
#[derive(Debug, thiserror::Error)]
pub enum Undecidable {
    /// The ledger could not be read.
    #[error("the state could not be read")]
    State(#[source] consort_ledger::Error),
    /// What governs a namespace cannot be told.
    #[error("a chaincode's policies cannot be told")]
    Governance(#[source] GovernanceError),
}

fn invalid(code: TxValidationCode, reason: String) -> Refusal {
    Refusal::Invalid(Rejection::new(code, reason))
}

fn unmet(reason: String) -> Refusal {
    invalid(TxValidationCode::EndorsementPolicyFailure, reason)
}

/// The policies in force for one block; what was looked up once is remembered.
pub(super) struct Policies<'a> {
    bundle: &'a ChannelBundle,
    state: &'a StateSnapshot,
    lookup: &'a Lookup,
    governance: Mutex<HashMap<String, Option<Arc<Governance>>>>,
    compiled: Mutex<HashMap<Bytes, Arc<Rule>>>,
}

/// What is judged: the read-write set and who endorsed it.
#[derive(Clone, Copy)]
pub(super) struct Endorsed<'a> {
    pub(super) index: usize,
    pub(super) transaction: &'a Transaction,
    pub(super) creator: &'a Arc<Identity>,
    pub(super) endorser: &'a EndorserTransaction,
    pub(super) chaincode: &'a str,
    pub(super) set: &'a TxReadWriteSet,
    pub(super) endorsers: &'a [Arc<Identity>],
}

impl<'a> Policies<'a> {
    pub(super) fn new(bundle: &'a ChannelBundle, state: &'a StateSnapshot, lookup: &'a Lookup) -> Self {
        Self { bundle, state, lookup, governance: Mutex::default(), compiled: Mutex::default() }
    }

    /// Judges the written namespaces and the invoked one. `passed` collects those that are satisfied, also when a later
    /// one is not.
    pub(super) fn judge<'t>(
        &self,
        transaction: Endorsed<'t>,
        dependencies: &Dependencies<'_>,
        passed: &mut BTreeSet<&'t str>,
    ) -> Result<(), Refusal> {
        for namespace in written_namespaces(transaction) {
            let governance = self.governance(namespace)?.ok_or_else(|| {
                invalid(TxValidationCode::InvalidChaincode, format!("chaincode {namespace} is not defined"))
            })?;
            if namespace == IDENTITIES {
                self.judge_table(transaction)?;
                passed.insert(namespace);
                continue;
            }
            let set = transaction.set.namespace(namespace);
            self.judge_namespace(transaction, set, &governance, dependencies)?;
            if namespace == SEALED {
                self.judge_sealed(transaction)?;
            }
            passed.insert(namespace);
        }
        Ok(())
    }

    /// The table of identities has rules of its own.
    fn judge_table(&self, transaction: Endorsed<'_>) -> Result<(), Refusal> {
        let Endorsed { creator, endorser, chaincode, set, endorsers, .. } = transaction;
        let change = Change { creator, endorser, set, chaincode, endorsers };
        rules::judge(self.bundle, self.state, change)
            .map_err(|error| Refusal::Undecidable(Undecidable::State(error)))?
            .map_err(Refusal::Invalid)
    }

    /// What a transaction does to sealed data is judged by the rules themselves.
    fn judge_sealed(&self, endorsed: Endorsed<'_>) -> Result<(), Refusal> {
        let Endorsed { transaction, creator, .. } = endorsed;
        sealed::judge(self.bundle, self.state, transaction, creator).map_err(|fault| match fault {
            sealed::Fault::Invalid(rejection) => Refusal::Invalid(rejection),
            sealed::Fault::Unreadable(error) => Refusal::Undecidable(Undecidable::State(error)),
        })
    }

    fn judge_namespace(
        &self,
        transaction: Endorsed<'_>,
        set: Option<&NamespaceReadWriteSet>,
        governance: &Governance,
        dependencies: &Dependencies<'_>,
    ) -> Result<(), Refusal> {
        // `None` stands for the chaincode's own policy.
        let mut satisfied: BTreeSet<Option<&str>> = BTreeSet::new();
        let mut some = false;
        for key in set.into_iter().flat_map(written_keys) {
            if dependencies.changed_before(transaction.index, &key) {
                return Err(unmet(format!(
                    "the policy of a key of {} is changed by an earlier transaction of the block",
                    key.namespace
                )));
            }
            if let Some(policy) = self.key_policy(&key)? {
                evaluate(&policy, transaction.endorsers, || "key-level policy".to_owned())?;
            } else if !satisfied.contains(&key.collection) {
                self.judge_namespace_rule(transaction, governance, key.collection)?;
                satisfied.insert(key.collection);
            }
            some = true;
        }
        if !some {
            self.judge_namespace_rule(transaction, governance, None)?;
        }
        Ok(())
    }

    fn judge_namespace_rule(
        &self,
        transaction: Endorsed<'_>,
        governance: &Governance,
        collection: Option<&str>,
    ) -> Result<(), Refusal> {
        match collection {
            None => evaluate(governance.rule(), transaction.endorsers, || "chaincode policy".to_owned()),
            Some(collection) => {
                let rule = governance.collection_rule(self.bundle, collection).map_err(unmet)?;
                evaluate(&rule, transaction.endorsers, || format!("policy of collection {collection}"))
            }
        }
    }

    fn governance(&self, namespace: &str) -> Result<Option<Arc<Governance>>, Refusal> {
        let mut known = self.governance.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(namespace) {
            return Ok(found.clone());
        }
        let found = Governance::find(self.bundle, self.state, namespace)
            .map_err(|error| Refusal::Undecidable(Undecidable::Governance(error)))?
            .map(Arc::new);
        known.insert(namespace.to_owned(), found.clone());
        Ok(found)
    }

    /// The policy that the key itself has in the committed state.
    fn key_policy(&self, key: &PolicyKey<'_>) -> Result<Option<Arc<Rule>>, Refusal> {
        let stored = match key.collection {
            Some(collection) => self.lookup.hashed(key.namespace, collection, key.key),
            None => {
                let text =
                    std::str::from_utf8(key.key).expect("invariant: public keys come from a protobuf string");
                self.lookup.public(key.namespace, text)
            }
        };
        let Some(stored) = stored else { return Ok(None) };
        if stored.metadata.is_empty() {
            return Ok(None);
        }
        let entry = stored
            .metadata_entry(VALIDATION_PARAMETER)
            .map_err(|error| Refusal::Undecidable(Undecidable::State(error)))?;
        Ok(entry.filter(|policy| !policy.is_empty()).map(|policy| self.compile(&policy)))
    }

    /// A key's policy is a `SignaturePolicyEnvelope`. One that does not parse can never be satisfied: endorsed
    /// transactions can write anything there, and must not be able to stop a peer with it.
    fn compile(&self, policy: &Bytes) -> Arc<Rule> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rule) = compiled.get(policy) {
            return Arc::clone(rule);
        }
        let rule = Arc::new(Rule::of_key(self.bundle, policy));
        compiled.insert(policy.clone(), Arc::clone(&rule));
        rule
    }
}

fn evaluate(rule: &Rule, endorsers: &[Arc<Identity>], what: impl Fn() -> String) -> Result<(), Refusal> {
    rule.evaluate(endorsers).map_err(|reason| unmet(format!("{}: {reason}", what())))
}

/// Namespaces with writes of any kind, and always the invoked chaincode's.
fn written_namespaces(transaction: Endorsed<'_>) -> BTreeSet<&str> {
    let mut namespaces: BTreeSet<&str> = transaction
        .set
        .namespaces
        .iter()
        .filter(|set| set.is_written())
        .map(|set| set.namespace.as_str())
        .collect();
    namespaces.insert(transaction.chaincode);
    namespaces
}
