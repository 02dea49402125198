//! Which combinations of organisations satisfy several policies at once. Pure.
//!
//! Each policy is evaluated over all endorsements of a transaction, so that one endorsement serves every policy: the
//! combination of two alternatives needs, per organisation, the larger of the two counts (Fabric
//! `discovery/endorsement/endorsement.go` merges principal sets in the same way).

use std::collections::{BTreeMap, BTreeSet};

use consort_protos::ids::MspId;

/// Endorsements needed per organisation.
pub(crate) type Layout = BTreeMap<MspId, usize>;

/// Alternatives that are looked at. A policy of 20 organisations has more; the first of them are enough to find
/// reachable peers, and the bound keeps a policy from costing the gateway its memory.
const LAYOUTS_MAX: usize = 1_000;

/// Combines the alternatives of several policies; no policies need nothing. The result has no layout that contains
/// another one, and none that the given numbers of peers cannot fill: those are left out before the rest is bounded.
pub(super) fn combine(policies: &[Vec<Layout>], peers: &BTreeMap<MspId, usize>) -> Vec<Layout> {
    let mut combined = vec![Layout::new()];
    for alternatives in policies {
        let mut next = BTreeSet::new();
        'policy: for left in &combined {
            for right in alternatives {
                let merged = merge(left, right);
                if !fillable(&merged, peers) {
                    continue;
                }
                next.insert(merged);
                if next.len() >= LAYOUTS_MAX {
                    break 'policy;
                }
            }
        }
        combined = minimal(next.into_iter().collect());
    }
    combined
}

/// Whether the given numbers of peers can fill a layout.
fn fillable(layout: &Layout, peers: &BTreeMap<MspId, usize>) -> bool {
    layout.iter().all(|(organisation, count)| peers.get(organisation).copied().unwrap_or(0) >= *count)
}

/// Puts first what uses the endorsement that is there already, then what needs fewer endorsements.
pub(super) fn prefer(layouts: &mut [Layout], first: Option<&MspId>) {
    layouts.sort_by_key(|layout| {
        let reuses = first.is_some_and(|organisation| layout.contains_key(organisation));
        (!reuses, layout.values().sum::<usize>())
    });
}

fn merge(left: &Layout, right: &Layout) -> Layout {
    let mut merged = left.clone();
    for (organisation, count) in right {
        let entry = merged.entry(organisation.clone()).or_default();
        *entry = (*entry).max(*count);
    }
    merged
}

fn minimal(layouts: Vec<Layout>) -> Vec<Layout> {
    let contains = |large: &Layout, small: &Layout| {
        small.iter().all(|(organisation, count)| large.get(organisation).is_some_and(|has| has >= count))
    };
    let kept: Vec<bool> = layouts
        .iter()
        .map(|layout| !layouts.iter().any(|other| other != layout && contains(layout, other)))
        .collect();
    layouts.into_iter().zip(kept).filter_map(|(layout, keep)| keep.then_some(layout)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(organisations: &[(&str, usize)]) -> Layout {
        organisations.iter().map(|(name, count)| (MspId::parse(name).expect("an MSP id"), *count)).collect()
    }

    #[test]
    fn one_endorsement_serves_two_policies() {
        let both = vec![layout(&[("Org1MSP", 1), ("Org2MSP", 1)])];
        let one = vec![layout(&[("Org1MSP", 1)])];
        assert_eq!(combine(&[both.clone(), one], &both[0]), both);
    }

    #[test]
    fn larger_alternatives_are_dropped() {
        let either = vec![layout(&[("Org1MSP", 1)]), layout(&[("Org2MSP", 1)])];
        assert_eq!(
            combine(&[either.clone(), either.clone()], &layout(&[("Org1MSP", 1), ("Org2MSP", 1)])),
            either
        );
    }

    #[test]
    fn an_unsatisfiable_policy_leaves_nothing() {
        assert!(
            combine(&[vec![layout(&[("Org1MSP", 1)])], Vec::new()], &layout(&[("Org1MSP", 1)])).is_empty()
        );
    }

    #[test]
    fn the_first_endorser_is_used_when_possible() {
        let mut layouts = vec![layout(&[("Org2MSP", 1)]), layout(&[("Org1MSP", 1), ("Org3MSP", 1)])];
        prefer(&mut layouts, MspId::parse("Org1MSP").ok().as_ref());
        assert!(layouts[0].contains_key(&MspId::parse("Org1MSP").expect("an MSP id")));
    }

    #[test]
    fn layouts_without_enough_peers_are_left_out() {
        let layouts = vec![layout(&[("Org1MSP", 2)]), layout(&[("Org1MSP", 1)])];
        assert_eq!(combine(&[layouts], &layout(&[("Org1MSP", 1)])), vec![layout(&[("Org1MSP", 1)])]);
        let choices = |policy: usize| -> Vec<Layout> {
            (0..40).map(|choice| layout(&[(format!("Org{policy}x{choice:02}").as_str(), 1)])).collect()
        };
        let last = layout(&[("Org0x39", 1), ("Org1x39", 1)]);
        assert_eq!(
            combine(&[choices(0), choices(1)], &last),
            vec![last.clone()],
            "1600 combinations, one filled"
        );
    }

    #[test]
    fn the_number_of_layouts_is_bounded() {
        let policies: Vec<Vec<Layout>> = (0..12)
            .map(|policy| {
                (0..3).map(|choice| layout(&[(format!("Org{policy}x{choice}").as_str(), 1)])).collect()
            })
            .collect();
        let everybody = policies.iter().flatten().flat_map(Clone::clone).collect();
        assert!(combine(&policies, &everybody).len() <= LAYOUTS_MAX);
    }
}
