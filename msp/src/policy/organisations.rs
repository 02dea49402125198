//! Which organisations can satisfy a policy together.

use std::collections::BTreeMap;

use consort_protos::ids::MspId;

/// How many alternatives are looked at: a gateway tries only a few of them, while "10 of 30" has thirty million.
pub const MAX_ORGANISATION_SETS: usize = 256;

type Set = BTreeMap<MspId, usize>;

/// How many signers each organisation has; `None` when it does not matter.
pub(crate) type Available<'a> = Option<&'a BTreeMap<MspId, usize>>;

/// Whether there are enough signers for a set.
pub(crate) fn fits(set: &Set, available: Available<'_>) -> bool {
    available.is_none_or(|available| contains(available, set))
}

/// All ways to satisfy `count` of the rules, each rule given by its own alternatives. Adds signers up, as one signer counts for
/// one principal only. What lacks signers is left out before the rest is bounded: sets only grow, so it never comes to fit.
pub(crate) fn choose(
    count: usize,
    rules: impl Iterator<Item = Vec<Set>>,
    available: Available<'_>,
) -> Vec<Set> {
    // chosen[k]: the sets that satisfy exactly k of the rules seen so far.
    let mut chosen: Vec<Vec<Set>> = vec![vec![Set::new()]];
    for alternatives in rules {
        if chosen.len() <= count {
            chosen.push(Vec::new());
        }
        for already in (0..chosen.len() - 1).rev() {
            let mut grown = std::mem::take(&mut chosen[already + 1]);
            for set in &chosen[already] {
                let sums = alternatives.iter().map(|alternative| sum(set, alternative));
                grown.extend(sums.filter(|set| fits(set, available)));
                if grown.len() > MAX_ORGANISATION_SETS {
                    break;
                }
            }
            chosen[already + 1] = bounded(grown);
        }
    }
    if count < chosen.len() { chosen.swap_remove(count) } else { Vec::new() }
}

fn sum(left: &Set, right: &Set) -> Set {
    let mut sum = left.clone();
    for (msp, count) in right {
        *sum.entry(msp.clone()).or_default() += count;
    }
    sum
}

/// Without copies, smallest first, within the limit.
fn bounded(sets: Vec<Set>) -> Vec<Set> {
    let mut sized: Vec<(usize, Set)> = sets.into_iter().map(|set| (set.values().sum(), set)).collect();
    sized.sort_unstable();
    sized.dedup();
    sized.truncate(MAX_ORGANISATION_SETS);
    sized.into_iter().map(|(_, set)| set).collect()
}

/// Without sets that contain another, smallest first.
pub(crate) fn minimal(sets: Vec<Set>) -> Vec<Set> {
    let mut kept: Vec<Set> = Vec::new();
    for set in bounded(sets) {
        if !kept.iter().any(|smaller| contains(&set, smaller)) {
            kept.push(set);
        }
    }
    kept
}

fn contains(set: &Set, smaller: &Set) -> bool {
    smaller.iter().all(|(msp, count)| set.get(msp).is_some_and(|own| own >= count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{SignaturePolicy, parse};

    fn sets(policy: &str) -> Vec<String> {
        let policy = SignaturePolicy::from_proto(&parse(policy).unwrap()).unwrap();
        let show =
            |set: &Set| set.iter().map(|(msp, count)| format!("{msp}{count}")).collect::<Vec<_>>().join("+");
        minimal(policy.organisation_sets(None)).iter().map(show).collect()
    }

    #[test]
    fn organisation_sets_are_minimal_and_smallest_first() {
        assert_eq!(sets("AND('A.peer', 'B.peer')"), ["A1+B1"]);
        assert_eq!(sets("OR('A.peer', AND('B.peer', 'C.peer'))"), ["A1", "B1+C1"]);
        assert_eq!(sets("OR(AND('A.peer', 'B.peer'), 'A.peer')"), ["A1"]);
        assert_eq!(sets("OutOf(2, 'A.peer', 'B.peer', 'C.peer')"), ["A1+B1", "A1+C1", "B1+C1"]);
        assert_eq!(sets("AND('A.peer', 'A.peer')"), ["A2"]);
        assert_eq!(sets("OutOf(2, 'A.peer')"), Vec::<String>::new(), "cannot be satisfied");
        assert_eq!(sets("OutOf(0, 'A.peer')"), [""], "nobody needs to sign");
    }

    #[test]
    fn huge_policies_give_a_bounded_number_of_sets() {
        let names: Vec<String> = (0..40).map(|n| format!("'O{n}.peer'")).collect();
        let found = sets(&format!("OutOf(20, {})", names.join(", ")));
        assert!(!found.is_empty() && found.len() <= MAX_ORGANISATION_SETS);
    }

    #[test]
    fn sets_without_signers_do_not_push_out_those_with_signers() {
        let names: Vec<String> = (0..20).map(|n| format!("'O{n:02}.peer'")).collect();
        let policy = parse(&format!("OutOf(10, {})", names.join(", "))).unwrap();
        let policy = SignaturePolicy::from_proto(&policy).unwrap();
        // The first organisations, which every bounded set would hold, have nobody.
        let available: Set = (10..20).map(|n| (MspId::parse(&format!("O{n:02}")).unwrap(), 1)).collect();
        assert!(minimal(policy.organisation_sets(None)).iter().all(|set| !fits(set, Some(&available))));
        assert_eq!(minimal(policy.organisation_sets(Some(&available))), std::slice::from_ref(&available));
        let policy = SignaturePolicy::from_proto(&parse("OR('O00.peer', 'O11.peer')").unwrap()).unwrap();
        assert_eq!(policy.organisation_sets(Some(&available)).len(), 1);
    }
}
