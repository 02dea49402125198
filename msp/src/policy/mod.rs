//! Policies: who must have signed.
//!
//! A [`Policy`] is either a signature policy (gates over principals) or an implicit meta policy (so many of the sub-groups'
//! policies of one name). Evaluation is pure; the refusal carries an [`Explanation`] tree. Source of the rules: Fabric
//! `common/policies.proto`, `common/cauthdsl`, `common/policies`.

mod evaluation;
mod explanation;
pub mod implicit;
mod language;
mod lexer;
mod manager;
mod organisations;
mod screening;
mod signature;

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use consort_protos::ids::MspId;

use self::organisations::Available;
pub use self::{
    explanation::Explanation,
    implicit::{ImplicitRule, ImplicitTextError},
    language::{MAX_NESTING, PolicyTextError, parse, to_text},
    manager::{PolicyManager, PolicyManagerError},
    organisations::MAX_ORGANISATION_SETS,
    screening::{Screening, verified_identities},
    signature::{PolicyFormatError, SignaturePolicy},
};
use crate::{Identity, MspManager};

/// Sets of organisations that a dry run names; more would only be noise.
const SHOWN_ORGANISATION_SETS: usize = 8;

/// One signature with what it is over and whose it claims to be.
#[derive(Debug, Clone)]
pub struct SignedData {
    /// `SerializedIdentity` bytes.
    pub identity: Bytes,
    /// The signed bytes.
    pub message: Bytes,
    /// The signature.
    pub signature: Bytes,
}

/// A refusal: Fabric's words in one line, and a tree of reasons.
///
/// `{}` prints the line, which clients and logs of Fabric know; `{:#}` prints the line and the tree.
#[derive(Debug, Clone)]
pub struct PolicyError {
    summary: String,
    explanation: Box<Explanation>,
}

impl PolicyError {
    /// Why: which branch needed whom, who signed, and why each signature did not count.
    #[must_use]
    pub fn explanation(&self) -> &Explanation {
        &self.explanation
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary)?;
        if f.alternate() {
            write!(f, "\n{}", self.explanation)?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyError {}

/// A policy ready to be evaluated under the MSPs of a channel.
#[derive(Debug, Clone)]
pub struct Policy {
    name: String,
    kind: Kind,
    msps: Arc<MspManager>,
}

#[derive(Debug, Clone)]
enum Kind {
    Signature(SignaturePolicy),
    Implicit(Implicit),
}

#[derive(Debug, Clone)]
struct Implicit {
    sub_policy: String,
    rule: ImplicitRule,
    threshold: usize,
    /// Each direct sub-group with its policy; a group without one counts and rejects.
    children: Vec<(String, Option<Arc<Policy>>)>,
}

impl Policy {
    /// A signature policy under these MSPs; `name` is for people (a path or a chaincode's name).
    #[must_use]
    pub fn signature(name: impl Into<String>, policy: SignaturePolicy, msps: Arc<MspManager>) -> Self {
        Self { name: name.into(), kind: Kind::Signature(policy), msps }
    }

    fn implicit(
        name: String,
        rule: ImplicitRule,
        sub_policy: String,
        children: Vec<(String, Option<Arc<Policy>>)>,
        msps: Arc<MspManager>,
    ) -> Self {
        let threshold = rule.threshold(children.len());
        Self { name, kind: Kind::Implicit(Implicit { sub_policy, rule, threshold, children }), msps }
    }

    /// Its path (`/Channel/Application/Writers`) or other name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Evaluates over signatures: identities that cannot be read, whose signature is bad, or that signed before do not count.
    ///
    /// # Errors
    /// [`PolicyError`] when the policy is not satisfied.
    pub fn evaluate(&self, signatures: &[SignedData]) -> Result<(), PolicyError> {
        let (identities, refused) = Screening::begin(&self.msps, signatures.to_vec()).judge();
        self.evaluate_identities(&identities).map_err(|mut error| {
            let notes = refused
                .iter()
                .map(|(index, reason)| format!("signature {} does not count: {reason}", index + 1));
            error.explanation.add_notes(notes);
            error
        })
    }

    /// Evaluates over identities whose signatures are already verified and which are distinct.
    ///
    /// # Errors
    /// [`PolicyError`] when the policy is not satisfied.
    pub fn evaluate_identities(&self, identities: &[Arc<Identity>]) -> Result<(), PolicyError> {
        if self.satisfied_by(identities) {
            return Ok(());
        }
        Err(PolicyError {
            summary: self.refusal(identities),
            explanation: Box::new(self.explain(identities)),
        })
    }

    fn satisfied_by(&self, identities: &[Arc<Identity>]) -> bool {
        match &self.kind {
            Kind::Signature(policy) => policy.satisfied_by(identities, &self.msps),
            Kind::Implicit(implicit) => implicit.count(identities) >= implicit.threshold,
        }
    }

    /// Fabric's words for a refusal.
    fn refusal(&self, identities: &[Arc<Identity>]) -> String {
        match &self.kind {
            Kind::Signature(_) => "signature set did not satisfy policy".to_owned(),
            Kind::Implicit(implicit) => format!(
                "implicit policy evaluation failed - {} sub-policies were satisfied, but this policy requires {} of the '{}' sub-policies to be satisfied",
                implicit.count(identities),
                implicit.threshold,
                implicit.sub_policy
            ),
        }
    }

    fn explain(&self, identities: &[Arc<Identity>]) -> Explanation {
        match &self.kind {
            Kind::Signature(policy) => policy.explain(&self.name, identities, &self.msps),
            Kind::Implicit(implicit) => implicit.explain(&self.name, identities),
        }
    }

    /// Who could satisfy it: the tree of a refusal, with the candidates for each principal in place of those who signed. A branch
    /// is met if enough candidates exist; its root also names the smallest sets of organisations.
    #[must_use]
    pub fn dry_run(&self, candidates: &[Arc<Identity>]) -> Explanation {
        let mut explanation = self.candidates(candidates);
        let mut available: BTreeMap<MspId, usize> = BTreeMap::new();
        for candidate in candidates {
            *available.entry(candidate.msp_id().clone()).or_default() += 1;
        }
        explanation.satisfied &= !self.organisation_sets_within(&available).is_empty();
        let sets = self.organisation_sets();
        let shown = sets.iter().take(SHOWN_ORGANISATION_SETS).map(|set| {
            let members: Vec<String> = set
                .iter()
                .map(|(msp, count)| if *count == 1 { msp.to_string() } else { format!("{count} of {msp}") })
                .collect();
            let members =
                if members.is_empty() { "nobody needs to sign".to_owned() } else { members.join(" + ") };
            format!("enough: {members}")
        });
        explanation.add_notes(shown);
        match sets.len().saturating_sub(SHOWN_ORGANISATION_SETS) {
            0 if sets.is_empty() => explanation.add_notes(["no signatures can satisfy it".to_owned()]),
            0 => {}
            more => explanation.add_notes([format!("and {more} other sets")]),
        }
        explanation
    }

    fn candidates(&self, candidates: &[Arc<Identity>]) -> Explanation {
        match &self.kind {
            Kind::Signature(policy) => policy.dry_run(&self.name, candidates, &self.msps),
            Kind::Implicit(implicit) => implicit.tree(&self.name, |policy| policy.candidates(candidates)),
        }
    }

    /// The smallest sets of organisations whose signatures can satisfy it, with how many signers of each: fewest signers
    /// first, no set that contains another, at most [`MAX_ORGANISATION_SETS`]. Empty if nothing can satisfy it.
    #[must_use]
    pub fn organisation_sets(&self) -> Vec<BTreeMap<MspId, usize>> {
        organisations::minimal(self.all_organisation_sets(None))
    }

    /// The same, but only sets for which there are enough signers. The limit counts these alone, so that many organisations
    /// out of reach do not hide the few that can be reached.
    #[must_use]
    pub fn organisation_sets_within(
        &self,
        available: &BTreeMap<MspId, usize>,
    ) -> Vec<BTreeMap<MspId, usize>> {
        organisations::minimal(self.all_organisation_sets(Some(available)))
    }

    fn all_organisation_sets(&self, available: Available<'_>) -> Vec<BTreeMap<MspId, usize>> {
        match &self.kind {
            Kind::Signature(policy) => policy.organisation_sets(available),
            Kind::Implicit(implicit) => {
                let options = implicit.children.iter().map(|(_, policy)| {
                    policy.as_ref().map(|policy| policy.all_organisation_sets(available)).unwrap_or_default()
                });
                organisations::choose(implicit.threshold, options, available)
            }
        }
    }

    /// The signature policy, if it is one.
    #[must_use]
    pub fn as_signature(&self) -> Option<&SignaturePolicy> {
        match &self.kind {
            Kind::Signature(policy) => Some(policy),
            Kind::Implicit(_) => None,
        }
    }
}

impl Implicit {
    /// How many sub-policies hold; stops at the threshold, as Fabric does.
    fn count(&self, identities: &[Arc<Identity>]) -> usize {
        let holds = |policy: &Option<Arc<Policy>>| {
            policy.as_ref().is_some_and(|policy| policy.satisfied_by(identities))
        };
        self.children.iter().filter(|(_, policy)| holds(policy)).take(self.threshold).count()
    }

    fn explain(&self, name: &str, identities: &[Arc<Identity>]) -> Explanation {
        self.tree(name, |policy| policy.explain(identities))
    }

    fn tree(&self, name: &str, explain: impl Fn(&Policy) -> Explanation) -> Explanation {
        let branches: Vec<Explanation> = self
            .children
            .iter()
            .map(|(group, policy)| match policy {
                Some(policy) => explain(policy),
                None => Explanation::leaf(format!("{group} has no policy {}", self.sub_policy), false),
            })
            .collect();
        let met = branches.iter().filter(|branch| branch.satisfied).count();
        let requirement = format!(
            "{name}: {} {} needs {} of {} groups, has {met}",
            self.rule,
            self.sub_policy,
            self.threshold,
            self.children.len()
        );
        Explanation::gate(requirement, met >= self.threshold, branches)
    }
}
