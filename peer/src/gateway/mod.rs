//! The gateway: the one service that an application needs (`gateway.Gateway`).
//!
//! It chooses endorsers that satisfy the policies of what a proposal touches, makes one transaction of their answers,
//! hands it to the ordering service, and tells its fate. Codes, texts and details are those of Fabric's gateway, since
//! clients compare with them. It never signs for the client and keeps no state of its own.

mod access;
mod aggregate;
mod chaincode_events;
mod collection;
mod commit_status;
mod details;
mod difference;
mod endorse;
mod entries;
mod evaluate;
#[cfg(test)]
mod garbage_tests;
mod layout;
mod network;
mod outcome;
pub(crate) mod plan;
mod request;
mod submit;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use consort_msp::policy::SignedData;
use consort_node::{Clock, Tasks};
use consort_protos::fabric::gateway::gateway_server::Gateway as GatewayService;
use consort_protos::fabric::gateway::{
    CommitStatusResponse, EndorseRequest, EndorseResponse, EvaluateRequest, EvaluateResponse,
    SignedChaincodeEventsRequest, SignedCommitStatusRequest, SubmitRequest, SubmitResponse,
};
use consort_protos::fabric::protos::ProposalResponse;
use consort_protos::ids::MspId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tonic::{Request as GrpcRequest, Response as GrpcResponse, Status};

use self::access::{Access, denied};
pub(crate) use self::chaincode_events::event_of;
pub(crate) use self::details::with_retry;
pub use self::network::{CallError, Directory, EndorserNetwork, Member, OrderingService};
pub(crate) use self::plan::plan;
use self::request::{Request, deadline, within};
use crate::channel::ChannelHandle;
use crate::config::GatewayConfig;
use crate::load::Gate;
use crate::registry::Channels;

/// Commits and event streams that are waited for at the same time, of all clients together. Each holds a few kilobytes.
const WAITERS_MAX: usize = 20_000;

/// How long a client may leave the events that wait for it; as long as a reader of blocks may.
const SLOW_READER_WAIT: Duration = Duration::from_secs(120);

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
    gate: Arc<Gate>,
    waiters: Arc<Semaphore>,
    tasks: Tasks,
    slow_reader_wait: Duration,
}

impl Gateway {
    /// Makes a gateway of the organisation `msp_id`; event streams are tasks of `tasks`.
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "made at one place, of what a peer consists of")]
    pub fn new(
        channels: Arc<Channels>,
        directory: Arc<dyn Directory>,
        endorsers: Arc<dyn EndorserNetwork>,
        orderers: Arc<dyn OrderingService>,
        msp_id: MspId,
        limits: GatewayConfig,
        clock: Arc<dyn Clock>,
        tasks: Tasks,
    ) -> Self {
        let gate = Arc::new(Gate::new("gateway", Arc::clone(&clock)));
        let waiters = Arc::new(Semaphore::new(WAITERS_MAX));
        Self {
            channels,
            directory,
            endorsers,
            orderers,
            msp_id,
            limits,
            clock,
            gate,
            waiters,
            tasks,
            slow_reader_wait: SLOW_READER_WAIT,
        }
    }

    /// Another bound for how long a client may take no events.
    #[must_use]
    pub fn slow_reader_wait(mut self, wait: Duration) -> Self {
        self.slow_reader_wait = wait;
        self
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

    /// A place among those who wait for commits.
    fn waiter(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.waiters).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!(
                "{WAITERS_MAX} clients wait for commits or events at this gateway already; use another one"
            ))
        })
    }

    async fn call(
        &self,
        channel: &ChannelHandle,
        member: &Member,
        request: &Request,
        limit: Duration,
    ) -> Result<ProposalResponse, CallError> {
        limited(limit, self.endorsers.process(channel, member, Arc::clone(&request.signed))).await
    }

    async fn call_to_evaluate(
        &self,
        channel: &ChannelHandle,
        member: &Member,
        request: &Request,
        limit: Duration,
    ) -> Result<ProposalResponse, CallError> {
        limited(limit, self.endorsers.evaluate(channel, member, Arc::clone(&request.signed))).await
    }
}

async fn limited<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    tokio::time::timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(CallError::Unavailable(format!("no answer within {} ms", limit.as_millis()))))
}

impl Gateway {
    /// How long one endorser may take: the configured limit, and with alternates left at most half of the caller's time,
    /// so that a peer that hangs does not take theirs.
    fn call_limit(&self, deadline: Option<Instant>, has_alternates: bool) -> Duration {
        let limit = self.limits.endorsement_timeout();
        match deadline {
            Some(deadline) if has_alternates => {
                limit.min(deadline.saturating_duration_since(Instant::now()) / 2)
            }
            _ => limit,
        }
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
        let _place = within(deadline, endorse::TIMEOUT_FIRST, self.gate.enter()).await?;
        self.endorse_proposal(request.into_inner(), deadline).await.map(GrpcResponse::new)
    }

    async fn submit(
        &self,
        request: GrpcRequest<SubmitRequest>,
    ) -> Result<GrpcResponse<SubmitResponse>, Status> {
        let deadline = deadline(request.metadata());
        let _place = within(deadline, submit::TIMEOUT, self.gate.enter()).await?;
        self.submit_envelope(request.into_inner(), deadline).await.map(GrpcResponse::new)
    }

    async fn commit_status(
        &self,
        request: GrpcRequest<SignedCommitStatusRequest>,
    ) -> Result<GrpcResponse<CommitStatusResponse>, Status> {
        let limit = deadline(request.metadata());
        let _waiter = self.waiter()?;
        let work = self.commit_status_of(request.into_inner());
        within(limit, "context deadline exceeded", work).await.map(GrpcResponse::new)
    }

    type ChaincodeEventsStream = chaincode_events::EventStream;

    async fn chaincode_events(
        &self,
        request: GrpcRequest<SignedChaincodeEventsRequest>,
    ) -> Result<GrpcResponse<Self::ChaincodeEventsStream>, Status> {
        let waiter = self.waiter()?;
        self.chaincode_event_stream(request.into_inner(), waiter).map(GrpcResponse::new)
    }

    async fn evaluate(
        &self,
        request: GrpcRequest<EvaluateRequest>,
    ) -> Result<GrpcResponse<EvaluateResponse>, Status> {
        let limit = deadline(request.metadata());
        let work = async {
            let _place = self.gate.enter().await?;
            self.evaluate_proposal(request.into_inner(), limit).await
        };
        within(limit, "evaluate timeout expired", work).await.map(GrpcResponse::new)
    }
}
