//! The endorsements that were collected for one proposal.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_crypto::preimage;
use consort_msp::{Identity, IdentityError, MspManager};
use consort_protos::consort::endorsement::Cosignature;
use consort_protos::fabric::gateway::ErrorDetail;
use consort_protos::fabric::protos::{Endorsement, ProposalResponse};
use consort_protos::ids::MspId;
use tonic::Status;

use super::difference::Difference;
use super::layout::Layout;
use super::network::Member;
use super::outcome::detail;

/// What a later endorser's different answer is called.
const MISMATCH: &str = "ProposalResponsePayloads do not match";
/// The resource whose readers see every value that a transaction writes.
const BLOCKS: &str = "event/Block";

/// An endorsement that counts.
pub(super) struct Endorsed {
    /// Whose it is.
    pub(super) identity: Arc<Identity>,
    /// The ordinary endorsement.
    pub(super) endorsement: Endorsement,
    /// What the endorser offers for an aggregate, unchecked.
    pub(super) cosignature: Option<Cosignature>,
}

/// The endorsements so far. All are over the same payload.
pub(super) struct Collection {
    /// Who asks, as the proposal says; an endorser has checked the signature before anything is told.
    creator: Bytes,
    first: Option<First>,
    endorsed: Vec<Endorsed>,
    /// Organisation and endpoint: a peer that announces another one's endpoint stands in nobody's way.
    asked: HashSet<(MspId, String)>,
    details: Vec<ErrorDetail>,
}

/// The answer that the others have to equal, and whose it is.
struct First {
    payload: Bytes,
    endorser: String,
}

impl Collection {
    /// Nothing yet.
    pub(super) fn new(creator: Bytes) -> Self {
        Self { creator, first: None, endorsed: Vec::new(), asked: HashSet::new(), details: Vec::new() }
    }

    /// The organisation whose endorsement came first.
    pub(super) fn first_organisation(&self) -> Option<&MspId> {
        self.endorsed.first().map(|endorsed| endorsed.identity.msp_id())
    }

    /// Who has endorsed.
    pub(super) fn endorsers(&self) -> Vec<Arc<Identity>> {
        self.endorsed.iter().map(|endorsed| Arc::clone(&endorsed.identity)).collect()
    }

    /// What went wrong, endorser by endorser.
    pub(super) fn details(&self) -> &[ErrorDetail] {
        &self.details
    }

    /// Takes an endorsement if it is the member's and over the same payload as the others; answers whether it was taken.
    pub(super) fn add(&mut self, bundle: &ChannelBundle, member: &Member, answer: ProposalResponse) -> bool {
        self.note(member);
        let Some(endorsement) = answer.endorsement else {
            self.fail(member, "the endorser's response has no endorsement");
            return false;
        };
        let endorser = match verify(bundle.msps(), member, &answer.payload, &endorsement) {
            Ok(endorser) => endorser,
            Err(reason) => {
                tracing::warn!(endorser = %member.endpoint, msp_id = %member.msp_id, %reason, "an endorsement does not count");
                self.fail(member, &reason);
                return false;
            }
        };
        match &self.first {
            None => self.first = Some(First { payload: answer.payload, endorser: name(member) }),
            Some(first) if first.payload == answer.payload => {}
            Some(first) => {
                let difference = Difference::between(&first.payload, &answer.payload);
                let (one, other) = (first.endorser.as_str(), name(member));
                let keys_only = difference.sentence(one, &other, false);
                tracing::warn!(channel = %bundle.channel(), difference = %keys_only, "endorsers disagree on a result");
                let told = difference.sentence(one, &other, may_read(bundle, &self.creator));
                self.fail(member, &format!("{MISMATCH}: {told}"));
                return false;
            }
        }
        if self.endorsed.iter().all(|other| other.endorsement.endorser != endorsement.endorser) {
            self.endorsed.push(Endorsed { identity: endorser, endorsement, cosignature: answer.cosignature });
        }
        true
    }

    /// Notes that a member was of no use.
    pub(super) fn fail(&mut self, member: &Member, message: &str) {
        self.note(member);
        self.details.push(detail(member, message));
    }

    fn note(&mut self, member: &Member) {
        self.asked.insert((member.msp_id.clone(), member.endpoint.clone()));
    }

    fn may_ask(&self, member: &Member) -> bool {
        !self.asked.contains(&(member.msp_id.clone(), member.endpoint.clone()))
    }

    /// Whom to ask next for a layout: nobody when it is complete, `None` when it cannot be completed.
    pub(super) fn next_calls(&self, layout: &Layout, candidates: &[Member]) -> Option<Vec<Member>> {
        let mut next = Vec::new();
        for (organisation, count) in layout {
            let has =
                self.endorsed.iter().filter(|endorsed| endorsed.identity.msp_id() == organisation).count();
            let missing = count.saturating_sub(has);
            let fresh: Vec<&Member> = candidates
                .iter()
                .filter(|member| member.msp_id == *organisation && self.may_ask(member))
                .take(missing)
                .collect();
            if fresh.len() < missing {
                return None;
            }
            next.extend(fresh.into_iter().cloned());
        }
        Some(next)
    }

    /// Whether somebody is left who could stand in for one of these, should it not answer.
    pub(super) fn has_alternates(&self, asked_now: &[Member], candidates: &[Member]) -> bool {
        candidates.iter().any(|member| {
            self.may_ask(member)
                && !asked_now.contains(member)
                && asked_now.iter().any(|asked| asked.msp_id == member.msp_id)
        })
    }

    /// The payload and its endorsements, one per endorser.
    pub(super) fn into_parts(self) -> Result<(Bytes, Vec<Endorsed>), Status> {
        let first = self.first.ok_or_else(|| Status::aborted("no endorsement was collected"))?;
        let mut seen = BTreeSet::new();
        let endorsements = self
            .endorsed
            .into_iter()
            .filter(|endorsed| seen.insert(endorsed.endorsement.endorser.clone()))
            .collect();
        Ok((first.payload, endorsements))
    }
}

/// An endorser in a sentence.
fn name(member: &Member) -> String {
    format!("{} ({})", member.msp_id, member.endpoint)
}

/// Whether somebody may see what transactions write.
fn may_read(bundle: &ChannelBundle, identity: &Bytes) -> bool {
    let Ok(identity) = bundle.msps().deserialize(identity) else { return false };
    let policy = bundle.policies().policy(bundle.acl(BLOCKS));
    policy.is_some_and(|policy| policy.evaluate_identities(&[identity]).is_ok())
}

/// The endorser, when the endorsement is what every committer will demand: by a valid identity, here of the member's
/// organisation, and with a signature that holds.
fn verify(
    msps: &MspManager,
    member: &Member,
    payload: &[u8],
    endorsement: &Endorsement,
) -> Result<Arc<Identity>, String> {
    let refused = |error: IdentityError| format!("the endorsement does not count: {error}");
    let endorser = msps.deserialize(&endorsement.endorser).map_err(refused)?;
    if *endorser.msp_id() != member.msp_id {
        return Err(format!(
            "the endorsement does not count: it is of {}, not of {}",
            endorser.msp_id(),
            member.msp_id
        ));
    }
    msps.validate(&endorser).map_err(refused)?;
    let message = preimage::endorsement(payload, &endorsement.endorser);
    endorser.verify(&message, &endorsement.signature).map_err(refused)?;
    Ok(endorser)
}
