//! Endorse: collect the endorsements that satisfy the policies of what the proposal touches, and make one transaction
//! out of them.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use consort_crypto::preimage;
use consort_msp::{IdentityError, MspManager};
use consort_protos::fabric::gateway::{EndorseRequest, EndorseResponse, ErrorDetail};
use consort_protos::fabric::protos::{ChaincodeInterest, Endorsement, ProposalResponse};
use consort_protos::ids::MspId;
use consort_protos::proposal::prepared_envelope;
use futures::future::join_all;
use rand::seq::SliceRandom;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::details::status;
use super::layout::{Layout, prefer};
use super::network::Member;
use super::outcome::{detail, judge};
use super::plan::{Plan, bare, plan};
use super::request::{Request, is_system, within};
use super::{Gateway, best_first};
use crate::channel::ChannelHandle;

/// What a later endorser's different answer is called.
const MISMATCH: &str = "ProposalResponsePayloads do not match";
/// What was not finished when the caller's time was over before the first endorsement.
const TIMEOUT_FIRST: &str = "endorsement timeout expired while collecting first endorsement";
/// What was not finished when the caller's time was over later.
const TIMEOUT: &str = "endorsement timeout expired while collecting endorsements";

impl Gateway {
    /// Collects endorsements and returns the transaction without the client's signature.
    pub(super) async fn endorse_proposal(
        &self,
        request: EndorseRequest,
        deadline: Option<Instant>,
    ) -> Result<EndorseResponse, Status> {
        if request.proposed_transaction.is_none() {
            return Err(Status::invalid_argument("the proposed transaction must contain a signed proposal"));
        }
        let organisations = request.endorsing_organizations;
        let request = Request::open(request.proposed_transaction)?;
        let proposal = request.proposal()?;
        let channel = self.channel(&request.channel).map_err(Status::failed_precondition)?;
        let collected = if organisations.is_empty() {
            self.endorse_by_policy(&channel, &request, deadline).await?
        } else {
            let work = self.endorse_by_organisations(&channel, &request, &organisations);
            within(deadline, TIMEOUT, work).await?
        };
        let (payload, endorsements) = collected.into_parts()?;
        let envelope = prepared_envelope(&proposal, payload, endorsements);
        Ok(EndorseResponse { prepared_transaction: Some(envelope) })
    }

    async fn endorse_by_organisations(
        &self,
        channel: &ChannelHandle,
        request: &Request,
        organisations: &[String],
    ) -> Result<Collection, Status> {
        let mut named: Vec<&String> = organisations.iter().collect();
        named.sort();
        named.dedup();
        let runs = |member: &Member| is_system(&request.chaincode) || member.runs(&request.chaincode, None);
        let mut candidates: Vec<Member> = Vec::new();
        let mut missing: Vec<&str> = Vec::new();
        for attempt in 0..2 {
            if attempt == 1 {
                self.directory.refresh(channel).await;
            }
            candidates = self.directory.members(channel).into_iter().filter(|member| runs(member)).collect();
            missing = named
                .iter()
                .map(|name| name.as_str())
                .filter(|name| !candidates.iter().any(|member| member.msp_id.as_str() == *name))
                .collect();
            if missing.is_empty() {
                break;
            }
        }
        if !missing.is_empty() {
            return Err(Status::unavailable(format!(
                "failed to find any endorsing peers for org(s): {}",
                missing.join(", ")
            )));
        }
        candidates.retain(|member| named.iter().any(|name| *name == member.msp_id.as_str()));
        let layout: Layout = candidates.iter().map(|member| (member.msp_id.clone(), 1)).collect();
        best_first(&mut candidates);
        let mut collection = Collection::default();
        self.fill(channel, request, &mut collection, &[layout], &candidates).await?;
        Ok(collection)
    }

    async fn endorse_by_policy(
        &self,
        channel: &ChannelHandle,
        request: &Request,
        deadline: Option<Instant>,
    ) -> Result<Collection, Status> {
        let mut collection = Collection::default();
        let first = self.first_endorsement(channel, request, &mut collection);
        let interest = within(deadline, TIMEOUT_FIRST, first).await?;
        within(deadline, TIMEOUT, self.complete(channel, request, &interest, &mut collection)).await?;
        Ok(collection)
    }

    /// Adds what the policies of the touched things need besides the first endorsement.
    async fn complete(
        &self,
        channel: &ChannelHandle,
        request: &Request,
        interest: &ChaincodeInterest,
        collection: &mut Collection,
    ) -> Result<(), Status> {
        let mut plan = self.plan_for(channel, request, interest).await?;
        plan.layouts.shuffle(&mut rand::rng());
        prefer(&mut plan.layouts, collection.first_organisation());
        best_first(&mut plan.candidates);
        self.fill(channel, request, collection, &plan.layouts, &plan.candidates).await
    }

    /// Gets one endorsement, preferably of the own organisation, and learns from it what the proposal touches.
    async fn first_endorsement(
        &self,
        channel: &ChannelHandle,
        request: &Request,
        collection: &mut Collection,
    ) -> Result<ChaincodeInterest, Status> {
        let own = |members: Vec<Member>| -> Vec<Member> {
            members
                .into_iter()
                .filter(|member| member.msp_id == self.msp_id)
                .filter(|member| is_system(&request.chaincode) || member.runs(&request.chaincode, None))
                .collect()
        };
        let mut candidates = own(self.directory.members(channel));
        if candidates.is_empty() {
            if request.has_transient {
                return Err(Status::failed_precondition(
                    "no endorsers found in the gateway's organization; retry specifying endorsing organization(s) to \
                     protect transient data",
                ));
            }
            candidates = self.plan_for(channel, request, &bare(&request.chaincode)).await?.candidates;
        }
        best_first(&mut candidates);
        for member in &candidates {
            match judge(self.call(channel, member, request).await) {
                Ok(answer) => {
                    let interest = answer.interest.clone().unwrap_or_default();
                    if !collection.add(channel.bundle().msps(), member, answer) {
                        continue;
                    }
                    return Ok(if interest.chaincodes.is_empty() {
                        bare(&request.chaincode)
                    } else {
                        interest
                    });
                }
                Err(failure) => collection.fail(member, &failure.message),
            }
        }
        Err(status(
            Code::Aborted,
            "failed to endorse transaction, see attached details for more info",
            &collection.details,
        ))
    }

    /// Plans; asks the other peers for news once when the known ones are not enough.
    async fn plan_for(
        &self,
        channel: &ChannelHandle,
        request: &Request,
        interest: &ChaincodeInterest,
    ) -> Result<Plan, Status> {
        let members_only = request.has_transient;
        let attempt = |members_only: bool| {
            let members = self.directory.members(channel);
            plan(&channel.bundle(), &channel.ledger().snapshot(), interest, &members, members_only)
        };
        if let Ok(plan) = attempt(members_only) {
            return Ok(plan);
        }
        self.directory.refresh(channel).await;
        let cause = match attempt(members_only) {
            Ok(plan) => return Ok(plan),
            Err(cause) => cause,
        };
        if members_only && attempt(false).is_ok() {
            let collections: Vec<&str> = interest
                .chaincodes
                .iter()
                .flat_map(|call| call.collection_names.iter().map(String::as_str))
                .collect();
            return Err(Status::failed_precondition(format!(
                "requires endorsement from organisation(s) that are not in the distribution policy of the private \
                 data collection(s): [{}]; retry specifying trusted endorsing organizations to protect transient data",
                collections.join(" ")
            )));
        }
        Err(Status::failed_precondition(format!(
            "no combination of peers can be derived which satisfy the endorsement policy: {cause}"
        )))
    }

    /// Asks until one of the layouts is complete. Every candidate is asked at most once.
    async fn fill(
        &self,
        channel: &ChannelHandle,
        request: &Request,
        collection: &mut Collection,
        layouts: &[Layout],
        candidates: &[Member],
    ) -> Result<(), Status> {
        for layout in layouts {
            while let Some(next) = collection.next_calls(layout, candidates) {
                if next.is_empty() {
                    return Ok(());
                }
                let calls = next.iter().map(|member| self.call(channel, member, request));
                for (member, answer) in next.iter().zip(join_all(calls).await) {
                    match judge(answer) {
                        Ok(answer) => {
                            collection.add(channel.bundle().msps(), member, answer);
                        }
                        Err(failure) => collection.fail(member, &failure.message),
                    }
                }
            }
        }
        Err(status(
            Code::Aborted,
            "failed to collect enough transaction endorsements, see attached details for more info",
            &collection.details,
        ))
    }
}

/// The endorsements so far. All are over the same payload.
#[derive(Default)]
struct Collection {
    payload: Option<Bytes>,
    endorsed: Vec<(MspId, Endorsement)>,
    /// Organisation and endpoint: a peer that announces another one's endpoint stands in nobody's way.
    asked: HashSet<(MspId, String)>,
    details: Vec<ErrorDetail>,
}

impl Collection {
    fn first_organisation(&self) -> Option<&MspId> {
        self.endorsed.first().map(|(organisation, _)| organisation)
    }

    /// Takes an endorsement if it is the member's and over the same payload as the others; answers whether it was taken.
    fn add(&mut self, msps: &MspManager, member: &Member, answer: ProposalResponse) -> bool {
        self.note(member);
        let Some(endorsement) = answer.endorsement else {
            self.fail(member, "the endorser's response has no endorsement");
            return false;
        };
        if let Err(reason) = verify(msps, member, &answer.payload, &endorsement) {
            tracing::warn!(endorser = %member.endpoint, msp_id = %member.msp_id, %reason, "an endorsement does not count");
            self.fail(member, &reason);
            return false;
        }
        match &self.payload {
            None => self.payload = Some(answer.payload),
            Some(payload) if *payload == answer.payload => {}
            Some(payload) => {
                let difference = super::difference::describe(payload, &answer.payload);
                tracing::warn!(endorser = %member.endpoint, %difference, "endorsers disagree on a result");
                self.fail(member, MISMATCH);
                return false;
            }
        }
        if self.endorsed.iter().all(|(_, other)| other.endorser != endorsement.endorser) {
            self.endorsed.push((member.msp_id.clone(), endorsement));
        }
        true
    }

    fn fail(&mut self, member: &Member, message: &str) {
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
    fn next_calls(&self, layout: &Layout, candidates: &[Member]) -> Option<Vec<Member>> {
        let mut next = Vec::new();
        for (organisation, count) in layout {
            let has = self.endorsed.iter().filter(|(msp_id, _)| msp_id == organisation).count();
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

    fn into_parts(self) -> Result<(Bytes, Vec<Endorsement>), Status> {
        let payload = self.payload.ok_or_else(|| Status::aborted("no endorsement was collected"))?;
        let mut seen = BTreeSet::new();
        let endorsements = self
            .endorsed
            .into_iter()
            .map(|(_, endorsement)| endorsement)
            .filter(|endorsement| seen.insert(endorsement.endorser.clone()))
            .collect();
        Ok((payload, endorsements))
    }
}

/// Whether an endorsement is what every committer will demand: by a valid identity, here of the member's organisation, and
/// with a signature that holds.
fn verify(
    msps: &MspManager,
    member: &Member,
    payload: &[u8],
    endorsement: &Endorsement,
) -> Result<(), String> {
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
    endorser.verify(&message, &endorsement.signature).map_err(refused)
}
