//! Which organisations have to endorse what a chaincode touched.

use std::collections::{BTreeMap, BTreeSet};

use consort_channel_config::ChannelBundle;
use consort_ledger::StateSnapshot;
use consort_protos::fabric::protos::{ChaincodeCall, ChaincodeInterest};
use consort_protos::ids::MspId;
use prost::Message;

use super::layout::{Layout, combine};
use super::network::Member;
use super::request::is_system;
use crate::committer::governance::{Governance, Rule};
use consort_node::dial::with_causes;

/// What a transaction needs: alternatives of organisations, and who can serve.
#[derive(Debug)]
pub(super) struct Plan {
    /// Alternatives that the candidates can fill.
    pub(super) layouts: Vec<Layout>,
    /// Peers that run everything that was touched, and may see it.
    pub(super) candidates: Vec<Member>,
}

/// The interest in nothing but one chaincode.
pub(super) fn bare(chaincode: &str) -> ChaincodeInterest {
    ChaincodeInterest {
        chaincodes: vec![ChaincodeCall { name: chaincode.to_owned(), ..ChaincodeCall::default() }],
    }
}

/// Makes the plan for an interest. With `members_only`, peers outside the touched collections are never asked, whether
/// the collection was read or not: the proposal carries data that only members may see.
///
/// # Errors
/// The cause, in the words of Fabric's discovery service.
pub(super) fn plan(
    bundle: &ChannelBundle,
    state: &StateSnapshot,
    interest: &ChaincodeInterest,
    members: &[Member],
    members_only: bool,
) -> Result<Plan, String> {
    let mut rules = Vec::new();
    let mut needs = Needs::default();
    for call in &interest.chaincodes {
        needs.add_call(bundle, state, call, members_only, &mut rules)?;
    }
    let reachable: Vec<Member> = members.iter().filter(|member| needs.may_see(member)).cloned().collect();
    let candidates: Vec<Member> = reachable.iter().filter(|member| needs.runs(member)).cloned().collect();
    let layouts = layouts(&rules, &candidates)?;
    if !layouts.is_empty() {
        return Ok(Plan { layouts, candidates });
    }
    Err(if self::layouts(&rules, &reachable)?.is_empty() {
        "no peer combination can satisfy the endorsement policy".to_owned()
    } else {
        "required chaincodes are not installed on sufficient peers".to_owned()
    })
}

/// The alternatives that the peers can fill.
fn layouts(rules: &[Rule], peers: &[Member]) -> Result<Vec<Layout>, String> {
    let peers = count(peers);
    let policies: Vec<_> =
        rules.iter().map(|rule| rule.organisation_sets(&peers)).collect::<Result<_, _>>()?;
    Ok(combine(&policies, &peers))
}

/// What a peer must have to endorse.
#[derive(Default)]
struct Needs {
    /// Name and version of every touched chaincode.
    chaincodes: BTreeSet<(String, String)>,
    /// Organisations that may see every touched collection; `None` when no collection restricts.
    organisations: Option<BTreeSet<MspId>>,
}

impl Needs {
    fn add_call(
        &mut self,
        bundle: &ChannelBundle,
        state: &StateSnapshot,
        call: &ChaincodeCall,
        members_only: bool,
        rules: &mut Vec<Rule>,
    ) -> Result<(), String> {
        let governance = Governance::find(bundle, state, &call.name)
            .map_err(|error| with_causes(&error))?
            .ok_or_else(|| {
                format!("No metadata was found for chaincode {} in channel {}", call.name, bundle.channel())
            })?;
        for collection in &call.collection_names {
            rules.push(governance.collection_rule(bundle, collection)?);
            if members_only || !call.no_private_reads {
                self.restrict(governance.collection_members(bundle, collection)?);
            }
        }
        if call.collection_names.is_empty() && !call.disregard_namespace_policy {
            rules.push(governance.rule().clone());
        }
        rules.extend(call.key_policies.iter().map(|policy| Rule::of_key(bundle, &policy.encode_to_vec())));
        if !is_system(&call.name) {
            self.chaincodes.insert((call.name.clone(), governance.version().to_owned()));
        }
        Ok(())
    }

    fn restrict(&mut self, organisations: BTreeSet<MspId>) {
        self.organisations = Some(match self.organisations.take() {
            None => organisations,
            Some(so_far) => so_far.intersection(&organisations).cloned().collect(),
        });
    }

    fn may_see(&self, member: &Member) -> bool {
        self.organisations.as_ref().is_none_or(|organisations| organisations.contains(&member.msp_id))
    }

    fn runs(&self, member: &Member) -> bool {
        self.chaincodes.iter().all(|(name, version)| member.runs(name, Some(version)))
    }
}

fn count(members: &[Member]) -> BTreeMap<MspId, usize> {
    let mut counts = BTreeMap::new();
    for member in members {
        *counts.entry(member.msp_id.clone()).or_default() += 1;
    }
    counts
}
