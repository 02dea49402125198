//! Greedy evaluation of a signature policy, exactly as Fabric's `common/cauthdsl` does it.
//!
//! A principal takes the first signer in order that is unused and satisfies it. A gate evaluates *all* its rules in order, each
//! on a copy of the marks, and keeps the copies of those that succeed. There is no backtracking, so the order of rules and
//! signers matters; every peer must decide alike, hence the exact imitation.

use super::signature::Rule;

/// Whether `identities` signers (numbered from 0) satisfy the rule; `judge(principal, identity)` tells whether a signer is what a
/// principal demands. Each pair is judged at most once.
pub(crate) fn satisfied(
    rule: &Rule,
    principals: usize,
    identities: usize,
    judge: impl Fn(usize, usize) -> bool,
) -> bool {
    let judged = vec![None; principals.saturating_mul(identities)];
    let mut evaluation = Evaluation { identities, judge, judged };
    evaluation.evaluate(rule, &mut vec![false; identities])
}

struct Evaluation<J> {
    identities: usize,
    judge: J,
    judged: Vec<Option<bool>>,
}

impl<J: Fn(usize, usize) -> bool> Evaluation<J> {
    fn evaluate(&mut self, rule: &Rule, used: &mut Vec<bool>) -> bool {
        match rule {
            Rule::SignedBy(principal) => {
                let taken = (0..self.identities)
                    .find(|&identity| !used[identity] && self.matches(*principal, identity));
                if let Some(identity) = taken {
                    used[identity] = true;
                }
                taken.is_some()
            }
            Rule::OutOf { count, rules } => {
                let mut met: i64 = 0;
                for rule in rules {
                    let mut attempt = used.clone();
                    if self.evaluate(rule, &mut attempt) {
                        met += 1;
                        *used = attempt;
                    }
                }
                met >= i64::from(*count)
            }
        }
    }

    fn matches(&mut self, principal: usize, identity: usize) -> bool {
        let judge = &self.judge;
        match self.judged.get_mut(principal * self.identities + identity) {
            Some(known) => *known.get_or_insert_with(|| judge(principal, identity)),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use consort_protos::fabric::common::SignaturePolicyEnvelope;

    use super::*;
    use crate::policy::{SignaturePolicy, parse};

    /// Signers are written `A1.admin`: organisation, number, role; everybody is a member.
    fn accepts(policy: &str, signers: &[&str]) -> bool {
        let envelope: SignaturePolicyEnvelope = parse(policy).unwrap();
        let policy = SignaturePolicy::from_proto(&envelope).unwrap();
        let names: Vec<String> = policy.principals.iter().map(crate::principal::describe).collect();
        satisfied(&policy.rule, names.len(), signers.len(), |principal, identity| {
            let (organisation, role) = names[principal].split_once('.').unwrap();
            let (signer, signer_role) = signers[identity].split_once('.').unwrap();
            signer.starts_with(organisation) && (role == "member" || role == signer_role)
        })
    }

    #[test]
    fn greedy_evaluation_decides_as_fabric_does() {
        let both = "AND('A.member', 'A.member')";
        assert!(!accepts(both, &["A1.peer"]));
        assert!(accepts(both, &["A1.peer", "A2.client"]));
        assert!(
            !accepts("AND('A.member', 'A.admin')", &["A1.admin", "A2.peer"]),
            "the member takes the admin"
        );
        assert!(accepts("AND('A.member', 'A.admin')", &["A2.peer", "A1.admin"]));
        assert!(accepts("AND('A.admin', 'A.member')", &["A1.admin", "A2.peer"]));
        assert!(accepts("OR(AND('A.peer', 'B.peer'), 'A.peer')", &["A1.peer"]), "a failed branch releases");
        assert!(
            !accepts("AND(OR('A.peer', 'B.peer'), 'B.peer')", &["A1.peer", "B1.peer"]),
            "the OR takes both"
        );
        assert!(!accepts("AND(OR('A.peer', 'B.peer'), 'A.peer')", &["A1.peer"]));
        assert!(!accepts("AND(OR('A.peer', 'B.peer'), 'A.peer')", &["A1.peer", "B1.peer"]));
        assert!(!accepts("OutOf(2, 'A.peer')", &["A1.peer", "A2.peer"]), "one rule counts once");
        assert!(accepts("OutOf(0, 'A.member')", &[]));
    }
}
