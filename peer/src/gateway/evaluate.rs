//! Evaluate: ask one suitable peer, and the next one when it fails.

use bytes::Bytes;
use consort_protos::fabric::gateway::{EvaluateRequest, EvaluateResponse};
use consort_protos::fabric::protos::{ChaincodeAction, ProposalResponse, ProposalResponsePayload, Response};
use consort_protos::ids::MspId;
use prost::Message;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::details::status;
use super::network::Member;
use super::outcome::judge;
use super::request::{Request, is_system};
use super::{Gateway, best_first};
use crate::channel::ChannelHandle;

impl Gateway {
    /// Runs a proposal on one peer and returns the chaincode's answer.
    pub(super) async fn evaluate_proposal(
        &self,
        request: EvaluateRequest,
        deadline: Option<Instant>,
    ) -> Result<EvaluateResponse, Status> {
        let targets = request.target_organizations;
        let request = Request::open(request.proposed_transaction)?;
        let channel = self.channel(&request.channel).map_err(Status::unavailable)?;
        let mut candidates = self.evaluators(&channel, &request, &targets);
        if candidates.is_empty() {
            self.directory.refresh(&channel).await;
            candidates = self.evaluators(&channel, &request, &targets);
        }
        if candidates.is_empty() {
            return Err(nobody(&request, &targets));
        }
        let mut details = Vec::new();
        let mut last = Code::Unavailable;
        for (index, member) in candidates.iter().enumerate() {
            let limit = self.call_limit(deadline, index + 1 < candidates.len());
            match judge(self.call_to_evaluate(&channel, member, &request, limit).await) {
                Ok(answer) => return Ok(EvaluateResponse { result: Some(result_of(&answer)) }),
                Err(failure) => {
                    details.push(failure.detail(member));
                    if !failure.retry {
                        let message =
                            format!("evaluate call to endorser returned error: {}", failure.message);
                        return Err(status(failure.code, message, &details));
                    }
                    last = failure.code;
                }
            }
        }
        Err(status(last, "failed to evaluate transaction, see attached details for more info", &details))
    }

    fn evaluators(&self, channel: &ChannelHandle, request: &Request, targets: &[String]) -> Vec<Member> {
        let own_only = request.has_transient && targets.is_empty();
        let suits = |member: &Member| {
            let organisation = member.msp_id.as_str();
            (is_system(&request.chaincode) || member.runs(&request.chaincode, None))
                && (targets.is_empty() || targets.iter().any(|target| target == organisation))
                && (!own_only || member.msp_id == self.msp_id)
        };
        let mut members: Vec<Member> =
            self.directory.members(channel).into_iter().filter(|member| suits(member)).collect();
        own_first(&mut members, &self.msp_id);
        members
    }
}

/// Own organisation before others, then the best first.
fn own_first(members: &mut [Member], own: &MspId) {
    best_first(members);
    members.sort_by_key(|member| member.msp_id != *own);
}

fn nobody(request: &Request, targets: &[String]) -> Status {
    let text = format!(
        "no peers available to evaluate chaincode {} in channel {}",
        request.chaincode, request.channel
    );
    if request.has_transient && targets.is_empty() {
        return Status::failed_precondition(format!(
            "no endorsers found in the gateway's organization; retry specifying target organization(s) to protect \
             transient data: {text}"
        ));
    }
    Status::failed_precondition(text)
}

/// The chaincode's response; its payload is that of the endorsed action when there is one, since that is what was
/// signed. The own endorser signs nothing that is only evaluated.
fn result_of(answer: &ProposalResponse) -> Response {
    let mut response = answer.response.clone().unwrap_or_default();
    if let Some(payload) = endorsed_payload(&answer.payload) {
        response.payload = payload;
    }
    response
}

fn endorsed_payload(payload: &Bytes) -> Option<Bytes> {
    let payload = ProposalResponsePayload::decode(payload.clone()).ok()?;
    let action = ChaincodeAction::decode(payload.extension).ok()?;
    Some(action.response?.payload)
}
