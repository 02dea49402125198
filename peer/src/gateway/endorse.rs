//! Endorse: collect the endorsements that satisfy the policies of what the proposal touches, and make one transaction
//! out of them.

use consort_protos::fabric::gateway::{EndorseRequest, EndorseResponse, ErrorDetail};
use consort_protos::fabric::protos::ChaincodeInterest;
use consort_protos::proposal::prepared_envelope;
use futures::future::join_all;
use rand::seq::SliceRandom;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::collection::Collection;
use super::details::status;
use super::layout::{Layout, prefer};
use super::network::{CallError, Member};
use super::outcome::judge;
use super::plan::{Impossible, Plan, bare, plan};
use super::request::{Request, is_system, within};
use super::{Gateway, aggregate, best_first, entries};
use crate::channel::ChannelHandle;
use crate::identities::{IDENTITIES, with_certificate};

/// What was not finished when the caller's time was over before the first endorsement.
pub(super) const TIMEOUT_FIRST: &str = "endorsement timeout expired while collecting first endorsement";
/// What was not finished when the caller's time was over later.
const TIMEOUT: &str = "endorsement timeout expired while collecting endorsements";

/// Those who are missing cannot be connected to.
const UNREACHABLE: &str =
    "failed to select a set of endorsers that satisfy the endorsement policy due to unavailability of peers";

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
        let mut organisations = request.endorsing_organizations;
        let request = Request::open(request.proposed_transaction)?;
        let proposal = request.proposal()?;
        let channel = self.channel(&request.channel).map_err(Status::failed_precondition)?;
        let creator = with_certificate(&channel, &proposal.creator);
        if organisations.is_empty() && request.chaincode == IDENTITIES {
            // Entries are governed by the caller's organisation, which no definition can say.
            organisations = entries::organisation_of(&channel, &creator).into_iter().collect();
        }
        let collection = Collection::new(creator);
        let collected = if organisations.is_empty() {
            self.endorse_by_policy(&channel, &request, collection, deadline).await?
        } else {
            let work =
                self.endorse_by_organisations(&channel, &request, &organisations, collection, deadline);
            within(deadline, TIMEOUT, work).await?
        };
        let (payload, endorsements) = collected.into_parts()?;
        let (bundle, snapshot) = (channel.bundle(), channel.ledger().snapshot());
        let (alone, together) = aggregate::join(&bundle, &snapshot, &payload, endorsements);
        let endorsements = entries::by_number(&channel, alone);
        let envelope = prepared_envelope(&proposal, payload, endorsements, together);
        Ok(EndorseResponse { prepared_transaction: Some(envelope) })
    }

    async fn endorse_by_organisations(
        &self,
        channel: &ChannelHandle,
        request: &Request,
        organisations: &[String],
        mut collection: Collection,
        deadline: Option<Instant>,
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
        let plan = Plan::without_rules(vec![layout], candidates);
        self.fill(channel, request, &mut collection, &plan, deadline).await?;
        Ok(collection)
    }

    async fn endorse_by_policy(
        &self,
        channel: &ChannelHandle,
        request: &Request,
        mut collection: Collection,
        deadline: Option<Instant>,
    ) -> Result<Collection, Status> {
        let first = self.first_endorsement(channel, request, &mut collection, deadline);
        let interest = within(deadline, TIMEOUT_FIRST, first).await?;
        let rest = self.complete(channel, request, &interest, &mut collection, deadline);
        within(deadline, TIMEOUT, rest).await?;
        Ok(collection)
    }

    /// Adds what the policies of the touched things need besides the first endorsement.
    async fn complete(
        &self,
        channel: &ChannelHandle,
        request: &Request,
        interest: &ChaincodeInterest,
        collection: &mut Collection,
        deadline: Option<Instant>,
    ) -> Result<(), Status> {
        let mut plan = self.plan_for(channel, request, interest).await?;
        plan.layouts.shuffle(&mut rand::rng());
        prefer(&mut plan.layouts, collection.first_organisation());
        best_first(&mut plan.candidates);
        self.fill(channel, request, collection, &plan, deadline).await
    }

    /// Gets one endorsement, preferably of the own organisation, and learns from it what the proposal touches.
    async fn first_endorsement(
        &self,
        channel: &ChannelHandle,
        request: &Request,
        collection: &mut Collection,
        deadline: Option<Instant>,
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
        for (index, member) in candidates.iter().enumerate() {
            let limit = self.call_limit(deadline, index + 1 < candidates.len());
            match judge(self.call(channel, member, request, limit).await) {
                Ok(answer) => {
                    let interest = answer.interest.clone().unwrap_or_default();
                    if !collection.add(&channel.bundle(), member, answer) {
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
            collection.details(),
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
            plan(channel, interest, &members, members_only)
        };
        if let Ok(plan) = attempt(members_only) {
            return Ok(plan);
        }
        self.directory.refresh(channel).await;
        let cause: Impossible = match attempt(members_only) {
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
        let message =
            format!("no combination of peers can be derived which satisfy the endorsement policy: {cause}");
        let details: Vec<ErrorDetail> =
            cause.explanation.iter().map(|explanation| self.own_detail(channel, explanation)).collect();
        Err(status(Code::FailedPrecondition, message, &details))
    }

    /// A detail in which this peer explains something.
    fn own_detail(&self, channel: &ChannelHandle, message: &str) -> ErrorDetail {
        let local = self.directory.members(channel).into_iter().find(|member| member.local);
        ErrorDetail {
            address: local.map(|member| member.endpoint).unwrap_or_default(),
            msp_id: self.msp_id.to_string(),
            message: message.to_owned(),
        }
    }

    /// Asks until one of the layouts is complete. Every candidate is asked at most once.
    async fn fill(
        &self,
        channel: &ChannelHandle,
        request: &Request,
        collection: &mut Collection,
        plan: &Plan,
        deadline: Option<Instant>,
    ) -> Result<(), Status> {
        let (mut unreachable, mut failed) = (Vec::new(), 0);
        for layout in &plan.layouts {
            while let Some(next) = collection.next_calls(layout, &plan.candidates) {
                if next.is_empty() {
                    return Ok(());
                }
                let limit = self.call_limit(deadline, collection.has_alternates(&next, &plan.candidates));
                let calls = next.iter().map(|member| self.call(channel, member, request, limit));
                for (member, answer) in next.iter().zip(join_all(calls).await) {
                    if let Err(CallError::Unreachable(_)) = answer {
                        unreachable.push(member.endpoint.clone());
                    }
                    let added = match judge(answer) {
                        Ok(answer) => collection.add(&channel.bundle(), member, answer),
                        Err(failure) => {
                            collection.fail(member, &failure.message);
                            false
                        }
                    };
                    failed += usize::from(!added);
                }
            }
        }
        let mut details = collection.details().to_vec();
        let unmet = plan.unmet(&collection.endorsers());
        details.extend(unmet.iter().map(|explanation| self.own_detail(channel, explanation)));
        if plan.is_of_policies() && failed > 0 && unreachable.len() == failed {
            // As Fabric says it, which dials the endorsers before it asks them.
            let message = format!("{UNREACHABLE}: [{}]", unreachable.join(" "));
            return Err(status(Code::FailedPrecondition, message, &details));
        }
        Err(status(
            Code::Aborted,
            "failed to collect enough transaction endorsements, see attached details for more info",
            &details,
        ))
    }
}
