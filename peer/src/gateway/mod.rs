//! The gateway: the one service that an application needs (`gateway.Gateway`).
//!
//! It chooses endorsers that satisfy the policies of what a proposal touches, makes one transaction of their answers,
//! hands it to the ordering service, and tells its fate. Codes, texts and details are those of Fabric's gateway, since
//! clients compare with them. It never signs for the client and keeps no state of its own.

mod access;
mod chaincode_events;
mod commit_status;
mod details;
mod difference;
mod endorse;
mod evaluate;
mod layout;
mod network;
mod outcome;
mod plan;
mod request;
mod submit;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use consort_msp::policy::SignedData;
use consort_node::Clock;
use consort_protos::fabric::gateway::gateway_server::Gateway as GatewayService;
use consort_protos::fabric::gateway::{
    CommitStatusResponse, EndorseRequest, EndorseResponse, EvaluateRequest, EvaluateResponse,
    SignedChaincodeEventsRequest, SignedCommitStatusRequest, SubmitRequest, SubmitResponse,
};
use consort_protos::fabric::protos::ProposalResponse;
use consort_protos::ids::MspId;
use tonic::{Request as GrpcRequest, Response as GrpcResponse, Status};

use self::access::{Access, denied};
pub(crate) use self::chaincode_events::event_of;
pub use self::network::{CallError, Directory, EndorserNetwork, Member, OrderingService};
use self::request::{Request, deadline, within};
use crate::channel::ChannelHandle;
use crate::config::GatewayConfig;
use crate::registry::Channels;

/// The gateway service. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    channels: Arc<Channels>,
    directory: Arc<dyn Directory>,
    endorsers: Arc<dyn EndorserNetwork>,
    orderers: Arc<dyn OrderingService>,
    msp_id: MspId,
    limits: GatewayConfig,
    clock: Arc<dyn Clock>,
}

impl Gateway {
    /// Makes a gateway of the organisation `msp_id`.
    #[must_use]
    pub fn new(
        channels: Arc<Channels>,
        directory: Arc<dyn Directory>,
        endorsers: Arc<dyn EndorserNetwork>,
        orderers: Arc<dyn OrderingService>,
        msp_id: MspId,
        limits: GatewayConfig,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { channels, directory, endorsers, orderers, msp_id, limits, clock }
    }

    fn channel(&self, channel: &str) -> Result<Arc<ChannelHandle>, String> {
        let handle = self.channels.get(channel).ok_or_else(|| {
            format!("failed to get config for channel [{channel}]: this peer has not joined the channel")
        })?;
        match handle.fault() {
            None => Ok(handle),
            Some(fault) => Err(format!("failed to get config for channel [{channel}]: {fault}")),
        }
    }

    /// Access to the channel, if the signer's certificate has not expired and the request satisfies the policy of the
    /// resource.
    fn permitted(
        &self,
        channel: &str,
        resource: &'static str,
        identity: Bytes,
        message: Bytes,
        signature: Bytes,
    ) -> Result<Access, Status> {
        let handle = self.channels.get(channel).ok_or_else(|| denied(channel))?;
        let signed = SignedData { identity, message, signature };
        Access::new(handle, resource, signed, Arc::clone(&self.clock))
    }

    async fn call(
        &self,
        channel: &ChannelHandle,
        member: &Member,
        request: &Request,
    ) -> Result<ProposalResponse, CallError> {
        let limit = self.limits.endorsement_timeout();
        let call = self.endorsers.process(channel, member, Arc::clone(&request.signed));
        tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
            Err(CallError::Unavailable(format!("no answer within {} ms", limit.as_millis())))
        })
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Gateway").field("msp_id", &self.msp_id).finish_non_exhaustive()
    }
}

/// The highest ledger first; this peer wins a tie.
fn best_first(members: &mut [Member]) {
    members.sort_by_key(|member| (std::cmp::Reverse(member.height), !member.local));
}

#[tonic::async_trait]
impl GatewayService for Gateway {
    async fn endorse(
        &self,
        request: GrpcRequest<EndorseRequest>,
    ) -> Result<GrpcResponse<EndorseResponse>, Status> {
        let deadline = deadline(request.metadata());
        self.endorse_proposal(request.into_inner(), deadline).await.map(GrpcResponse::new)
    }

    async fn submit(
        &self,
        request: GrpcRequest<SubmitRequest>,
    ) -> Result<GrpcResponse<SubmitResponse>, Status> {
        let deadline = deadline(request.metadata());
        self.submit_envelope(request.into_inner(), deadline).await.map(GrpcResponse::new)
    }

    async fn commit_status(
        &self,
        request: GrpcRequest<SignedCommitStatusRequest>,
    ) -> Result<GrpcResponse<CommitStatusResponse>, Status> {
        let limit = deadline(request.metadata());
        let work = self.commit_status_of(request.into_inner());
        within(limit, "context deadline exceeded", work).await.map(GrpcResponse::new)
    }

    type ChaincodeEventsStream = chaincode_events::EventStream;

    async fn chaincode_events(
        &self,
        request: GrpcRequest<SignedChaincodeEventsRequest>,
    ) -> Result<GrpcResponse<Self::ChaincodeEventsStream>, Status> {
        self.chaincode_event_stream(request.into_inner()).map(GrpcResponse::new)
    }

    async fn evaluate(
        &self,
        request: GrpcRequest<EvaluateRequest>,
    ) -> Result<GrpcResponse<EvaluateResponse>, Status> {
        let limit = deadline(request.metadata());
        let work = self.evaluate_proposal(request.into_inner());
        within(limit, "evaluate timeout expired", work).await.map(GrpcResponse::new)
    }
}
