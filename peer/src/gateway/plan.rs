//! Which organisations have to endorse what a chaincode touched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use consort_channel_config::ChannelBundle;
use consort_ledger::StateSnapshot;
use consort_msp::Identity;
use consort_protos::fabric::protos::{ChaincodeCall, ChaincodeInterest};
use consort_protos::ids::MspId;
use prost::Message;

use super::layout::{Layout, combine};
use super::network::Member;
use super::request::is_system;
use crate::channel::ChannelHandle;
use crate::committer::governance::Rule;
use consort_node::dial::with_causes;

/// Peers that an explanation names; more help nobody.
const REASONS_MAX: usize = 16;

/// What a transaction needs: alternatives of organisations, and who can serve.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Alternatives that the candidates can fill.
    pub(crate) layouts: Vec<Layout>,
    /// Peers that run everything that was touched, and may see it.
    pub(crate) candidates: Vec<Member>,
    rules: Vec<NamedRule>,
}

/// A policy and what it guards, in words.
#[derive(Debug)]
struct NamedRule {
    guards: String,
    rule: Rule,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub(crate) struct Impossible {
    /// The cause, in the words of Fabric's discovery service.
    pub(crate) cause: String,
    /// Which policy is not met by the peers that there are, branch by branch, and what keeps others from helping.
    pub(crate) explanation: Option<String>,
}

impl From<String> for Impossible {
    fn from(cause: String) -> Self {
        Self { cause, explanation: None }
    }
}

impl Plan {
    /// A plan of what the client demands; policies are not looked at.
    pub(super) fn without_rules(layouts: Vec<Layout>, candidates: Vec<Member>) -> Self {
        Self { layouts, candidates, rules: Vec::new() }
    }

    /// Whether policies made it, and not the client.
    pub(super) fn is_of_policies(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Which policies these endorsers do not satisfy, branch by branch.
    pub(super) fn unmet(&self, endorsers: &[Arc<Identity>]) -> Option<String> {
        unmet(&self.rules, endorsers)
    }
}

fn unmet(rules: &[NamedRule], endorsers: &[Arc<Identity>]) -> Option<String> {
    let reasons: Vec<String> = rules
        .iter()
        .filter_map(|named| {
            let reason = named.rule.evaluate(endorsers).err()?;
            Some(format!("the policy of {} is not met: {reason}", named.guards))
        })
        .collect();
    (!reasons.is_empty()).then(|| reasons.join("\n"))
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
/// [`Impossible`].
pub(crate) fn plan(
    channel: &ChannelHandle,
    interest: &ChaincodeInterest,
    members: &[Member],
    members_only: bool,
) -> Result<Plan, Impossible> {
    let books = Books::new(channel);
    let mut rules = Vec::new();
    let mut needs = Needs::default();
    for call in &interest.chaincodes {
        needs.add_call(&books, call, members_only, &mut rules)?;
    }
    let reachable: Vec<Member> = members.iter().filter(|member| needs.may_see(member)).cloned().collect();
    let candidates: Vec<Member> = reachable.iter().filter(|member| needs.runs(member)).cloned().collect();
    let layouts = layouts(&rules, &candidates)?;
    if !layouts.is_empty() {
        return Ok(Plan { layouts, candidates, rules });
    }
    let cause = if self::layouts(&rules, &reachable)?.is_empty() {
        "no peer combination can satisfy the endorsement policy"
    } else {
        "required chaincodes are not installed on sufficient peers"
    };
    let identities: Vec<Arc<Identity>> = candidates
        .iter()
        .filter_map(|member| books.bundle.msps().deserialize(&member.identity).ok())
        .collect();
    let mut reasons: Vec<String> = unmet(&rules, &identities).into_iter().collect();
    reasons.extend(members.iter().filter_map(|member| needs.lacks(member)).take(REASONS_MAX));
    Err(Impossible { cause: cause.to_owned(), explanation: Some(reasons.join("\n")) })
}

/// The peers that run every touched chaincode and may see every touched collection.
///
/// # Errors
/// The cause, in the words of Fabric's discovery service.
pub(crate) fn eligible(
    channel: &ChannelHandle,
    interest: &ChaincodeInterest,
    members: &[Member],
) -> Result<Vec<Member>, String> {
    let books = Books::new(channel);
    let mut needs = Needs::default();
    for call in &interest.chaincodes {
        needs.add_call(&books, call, false, &mut Vec::new())?;
    }
    Ok(members.iter().filter(|member| needs.may_see(member) && needs.runs(member)).cloned().collect())
}

/// The alternatives that the peers can fill.
fn layouts(rules: &[NamedRule], peers: &[Member]) -> Result<Vec<Layout>, String> {
    let peers = count(peers);
    let policies: Vec<_> =
        rules.iter().map(|named| named.rule.organisation_sets(&peers)).collect::<Result<_, _>>()?;
    Ok(combine(&policies, &peers))
}

/// A channel as one plan sees it.
struct Books<'c> {
    channel: &'c ChannelHandle,
    bundle: Arc<ChannelBundle>,
    snapshot: StateSnapshot,
}

impl<'c> Books<'c> {
    fn new(channel: &'c ChannelHandle) -> Self {
        Self { bundle: channel.bundle(), snapshot: channel.ledger().snapshot(), channel }
    }
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
        books: &Books<'_>,
        call: &ChaincodeCall,
        members_only: bool,
        rules: &mut Vec<NamedRule>,
    ) -> Result<(), String> {
        let bundle = &*books.bundle;
        let definitions = books.channel.definitions();
        let governance = definitions
            .governance(bundle, &books.snapshot, &call.name)
            .map_err(|error| with_causes(&error))?
            .ok_or_else(|| {
                format!("No metadata was found for chaincode {} in channel {}", call.name, bundle.channel())
            })?;
        for collection in &call.collection_names {
            let rule = governance.collection_rule(bundle, collection)?;
            rules.push(NamedRule { guards: format!("collection {collection} of {}", call.name), rule });
            if members_only || !call.no_private_reads {
                self.restrict(governance.collection_members(bundle, collection)?);
            }
        }
        if call.collection_names.is_empty() && !call.disregard_namespace_policy {
            let rule = governance.rule().clone();
            rules.push(NamedRule { guards: format!("chaincode {}", call.name), rule });
        }
        rules.extend(call.key_policies.iter().map(|policy| NamedRule {
            guards: format!("a key of {} that has its own", call.name),
            rule: Rule::of_key(bundle, &policy.encode_to_vec()),
        }));
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

    /// Why a peer is no candidate.
    fn lacks(&self, member: &Member) -> Option<String> {
        let who = format!("{} ({})", member.endpoint, member.msp_id);
        if !self.may_see(member) {
            return Some(format!("{who} is no member of a touched collection"));
        }
        let (name, version) =
            self.chaincodes.iter().find(|(name, version)| !member.runs(name, Some(version)))?;
        let other = member.chaincodes.iter().find(|(runs, _)| runs == name);
        Some(match other {
            Some((_, runs)) => format!("{who} runs version {runs} of {name}, and {version} is defined"),
            None => format!("{who} has no package of {name} version {version} installed"),
        })
    }
}

fn count(members: &[Member]) -> BTreeMap<MspId, usize> {
    let mut counts = BTreeMap::new();
    for member in members {
        *counts.entry(member.msp_id.clone()).or_default() += 1;
    }
    counts
}
