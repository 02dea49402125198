//! Signature policies: gates over principals.

use std::{collections::BTreeMap, sync::Arc};

use consort_protos::{
    fabric::common::{
        MspPrincipal, SignaturePolicy as RuleMessage, SignaturePolicyEnvelope, signature_policy::Type,
    },
    ids::MspId,
};
use prost::Message;

use super::{
    Explanation, MAX_NESTING, evaluation,
    organisations::{self, Available},
};
use crate::{
    Identity, MspManager,
    principal::{self, Demand},
};

/// A signature policy cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyFormatError {
    /// The bytes are no `SignaturePolicyEnvelope`.
    #[error("Error unmarshaling to SignaturePolicy: {0}")]
    Malformed(String),
    /// Only version 0 exists.
    #[error("This evaluator only understands messages of version 0, but version was {0}")]
    Version(i32),
    /// A rule is absent.
    #[error("Empty policy element")]
    Empty,
    /// A rule names a principal that the policy does not list.
    #[error("identity index out of range, requested {requested}, but identities length is {length}")]
    PrincipalIndex {
        /// The index asked for.
        requested: i32,
        /// How many principals there are.
        length: usize,
    },
    /// Gates are nested deeper than [`MAX_NESTING`].
    #[error("policy gates are nested too deeply")]
    TooDeep,
}

/// A compiled signature policy.
#[derive(Debug, Clone, PartialEq)]
pub struct SignaturePolicy {
    pub(crate) rule: Rule,
    pub(crate) principals: Vec<MspPrincipal>,
    demands: Vec<Demand>,
    envelope: SignaturePolicyEnvelope,
}

/// A rule, with its indices known to be in range.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Rule {
    SignedBy(usize),
    OutOf { count: i32, rules: Vec<Rule> },
}

impl SignaturePolicy {
    /// Compiles a policy of a channel configuration.
    ///
    /// # Errors
    /// [`PolicyFormatError`], also when the version is not 0.
    pub fn from_proto(envelope: &SignaturePolicyEnvelope) -> Result<Self, PolicyFormatError> {
        match envelope.version {
            0 => Self::of_chaincode(envelope),
            version => Err(PolicyFormatError::Version(version)),
        }
    }

    /// Compiles a policy of a chaincode definition or of a key, where Fabric does not look at the version.
    ///
    /// # Errors
    /// [`PolicyFormatError`].
    pub fn of_chaincode(envelope: &SignaturePolicyEnvelope) -> Result<Self, PolicyFormatError> {
        let rule = envelope.rule.as_ref().ok_or(PolicyFormatError::Empty)?;
        Ok(Self {
            rule: compile(rule, envelope.identities.len(), MAX_NESTING)?,
            principals: envelope.identities.clone(),
            demands: envelope.identities.iter().map(Demand::new).collect(),
            envelope: envelope.clone(),
        })
    }

    /// Compiles from the bytes of a `SignaturePolicyEnvelope` in a channel configuration.
    ///
    /// # Errors
    /// As [`SignaturePolicy::from_proto`]; also when the bytes do not parse.
    pub fn decode(bytes: &[u8]) -> Result<Self, PolicyFormatError> {
        let envelope = SignaturePolicyEnvelope::decode(bytes)
            .map_err(|error| PolicyFormatError::Malformed(error.to_string()))?;
        Self::from_proto(&envelope)
    }

    /// The message it was compiled from.
    #[must_use]
    pub fn envelope(&self) -> &SignaturePolicyEnvelope {
        &self.envelope
    }

    pub(crate) fn satisfied_by(&self, identities: &[Arc<Identity>], msps: &MspManager) -> bool {
        let judge = |principal: usize, identity: usize| {
            let demanded = self.demands.get(principal);
            let offered = identities.get(identity);
            demanded.zip(offered).is_some_and(|(demand, identity)| msps.meets(identity, demand))
        };
        evaluation::satisfied(&self.rule, self.principals.len(), identities.len(), judge)
    }

    pub(crate) fn explain(&self, name: &str, identities: &[Arc<Identity>], msps: &MspManager) -> Explanation {
        let mut explanation = Explainer { policy: self, identities, msps }
            .explain(&self.rule, &mut vec![false; identities.len()]);
        explanation.prefix(name);
        if identities.is_empty() {
            explanation.add_notes(["nobody signed validly".to_owned()]);
        }
        explanation
    }

    pub(crate) fn dry_run(&self, name: &str, candidates: &[Arc<Identity>], msps: &MspManager) -> Explanation {
        let mut explanation = self.candidates(&self.rule, candidates, msps);
        explanation.prefix(name);
        explanation
    }

    fn candidates(&self, rule: &Rule, candidates: &[Arc<Identity>], msps: &MspManager) -> Explanation {
        match rule {
            Rule::SignedBy(index) => {
                let Some((principal, demand)) = self.principals.get(*index).zip(self.demands.get(*index))
                else {
                    return Explanation::leaf(format!("principal {index} missing"), false);
                };
                let able = candidates.iter().filter(|candidate| msps.meets(candidate, demand));
                let notes: Vec<String> = able.map(|candidate| format!("{candidate} could sign")).collect();
                let mut leaf = Explanation::leaf(principal::describe(principal), !notes.is_empty());
                if notes.is_empty() {
                    leaf.add_notes(["nobody who is known could sign".to_owned()]);
                }
                leaf.add_notes(notes);
                leaf
            }
            Rule::OutOf { count, rules } => {
                let branches: Vec<Explanation> =
                    rules.iter().map(|rule| self.candidates(rule, candidates, msps)).collect();
                let able = branches.iter().filter(|branch| branch.satisfied).count();
                let requirement = format!("needs {count} of {}, could have {able}", rules.len());
                let met = i64::try_from(able).is_ok_and(|able| able >= i64::from(*count));
                Explanation::gate(requirement, met, branches)
            }
        }
    }

    pub(crate) fn organisation_sets(&self, available: Available<'_>) -> Vec<BTreeMap<MspId, usize>> {
        self.sets_of(&self.rule, available)
    }

    fn sets_of(&self, rule: &Rule, available: Available<'_>) -> Vec<BTreeMap<MspId, usize>> {
        match rule {
            Rule::SignedBy(index) => self
                .principals
                .get(*index)
                .and_then(principal::msp_id)
                .and_then(|id| MspId::parse(&id).ok())
                .map(|id| BTreeMap::from([(id, 1)]))
                .filter(|set| organisations::fits(set, available))
                .into_iter()
                .collect(),
            Rule::OutOf { count, rules } => {
                let count = usize::try_from(*count).unwrap_or(0);
                organisations::choose(
                    count,
                    rules.iter().map(|rule| self.sets_of(rule, available)),
                    available,
                )
            }
        }
    }
}

fn compile(rule: &RuleMessage, principals: usize, depth: usize) -> Result<Rule, PolicyFormatError> {
    match rule.r#type.as_ref().ok_or(PolicyFormatError::Empty)? {
        Type::SignedBy(index) => match usize::try_from(*index) {
            Ok(found) if found < principals => Ok(Rule::SignedBy(found)),
            _ => Err(PolicyFormatError::PrincipalIndex { requested: *index, length: principals }),
        },
        Type::NOutOf(_) if depth == 0 => Err(PolicyFormatError::TooDeep),
        Type::NOutOf(gate) => {
            let rules = gate.rules.iter().map(|rule| compile(rule, principals, depth - 1));
            Ok(Rule::OutOf { count: gate.n, rules: rules.collect::<Result<_, _>>()? })
        }
    }
}

/// Walks a policy as evaluation does and writes down what happened.
struct Explainer<'a> {
    policy: &'a SignaturePolicy,
    identities: &'a [Arc<Identity>],
    msps: &'a MspManager,
}

impl Explainer<'_> {
    fn explain(&self, rule: &Rule, used: &mut Vec<bool>) -> Explanation {
        match rule {
            Rule::SignedBy(index) => self.explain_principal(*index, used),
            Rule::OutOf { count, rules } => {
                let mut met: i64 = 0;
                let mut branches = Vec::with_capacity(rules.len());
                for rule in rules {
                    let mut attempt = used.clone();
                    let branch = self.explain(rule, &mut attempt);
                    if branch.satisfied {
                        met += 1;
                        *used = attempt;
                    }
                    branches.push(branch);
                }
                let requirement = format!("needs {count} of {}, has {met}", rules.len());
                Explanation::gate(requirement, met >= i64::from(*count), branches)
            }
        }
    }

    fn explain_principal(&self, index: usize, used: &mut [bool]) -> Explanation {
        let Some(demanded) = self.policy.principals.get(index) else {
            return Explanation::leaf(format!("principal {index} missing"), false);
        };
        let mut leaf = Explanation::leaf(principal::describe(demanded), false);
        let mut reasons = Vec::new();
        for (identity, used) in self.identities.iter().zip(used.iter_mut()) {
            match self.msps.satisfies(identity, demanded) {
                Ok(()) if !*used => {
                    *used = true;
                    leaf.satisfied = true;
                    leaf.notes = vec![format!("signed by {identity}")];
                    return leaf;
                }
                Ok(()) => reasons.push(format!("{identity} already counts for another principal")),
                Err(reason) => reasons.push(format!("{identity} does not count: {reason}")),
            }
        }
        leaf.add_notes(reasons);
        leaf
    }
}
