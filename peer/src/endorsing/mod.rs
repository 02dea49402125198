//! How the gateway reaches endorsers: this peer's by a call, other peers' on lasting streams, or by `protos.Endorser` where
//! a peer serves none or a proposal is large.

mod service;
mod streams;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use consort_node::Tasks;
use consort_node::dial::with_causes;
use consort_node::server::MESSAGE_BYTES_MAX;
use consort_protos::consort::endorsing::answered::Outcome;
use consort_protos::fabric::protos::endorser_client::EndorserClient;
use consort_protos::fabric::protos::endorser_server::Endorser as EndorserRpc;
use consort_protos::fabric::protos::{ProposalResponse, SignedProposal};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

pub use self::service::EndorsingService;
use self::streams::{Streams, Unanswered, Way};
use crate::channel::ChannelHandle;
use crate::connections::{Connections, call_text};
use crate::endorser::{Endorser, EndorserError, EndorserService};
use crate::gateway::{CallError, EndorserNetwork, Member};
use crate::telemetry::PeerMetrics;

/// Proposals of one stream that are not answered yet.
const UNANSWERED_MAX: usize = 32;
/// The largest message to an endorser on a stream. What waits in streams is not counted, and must not become much.
pub(crate) const ASKED_BYTES_MAX: usize = 64 * 1024;

/// Calls endorsers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Endorsers {
    local: Arc<Endorser>,
    others: Arc<Others>,
    metrics: Arc<PeerMetrics>,
}

impl Endorsers {
    /// Uses this endorser for the local peer, and these connections for the others. What lasts belongs to `tasks`.
    #[must_use]
    pub fn new(
        local: Arc<Endorser>,
        connections: Arc<Connections>,
        metrics: Arc<PeerMetrics>,
        tasks: &Tasks,
    ) -> Self {
        Self { local, others: Arc::new(Others::new(connections, tasks)), metrics }
    }
}

/// The endorsers of other peers.
struct Others {
    connections: Arc<Connections>,
    streams: Streams,
}

impl std::fmt::Debug for Others {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Others").field("connections", &self.connections).finish_non_exhaustive()
    }
}

impl Others {
    fn new(connections: Arc<Connections>, tasks: &Tasks) -> Self {
        Self { connections, streams: Streams::new(tasks.clone()) }
    }

    /// Asks whoever is at the endpoint.
    async fn ask(
        &self,
        endpoint: &str,
        roots: &[Bytes],
        proposal: &SignedProposal,
    ) -> Result<ProposalResponse, CallError> {
        let shown = self.connections.certificate_hash();
        let way = Way { endpoint, roots, shown: &shown };
        let connect = || {
            let connection = self.connections.to(way.endpoint, way.roots);
            connection.map_err(|error| CallError::Unreachable(with_causes(&error)))
        };
        match self.streams.ask(way, proposal, connect).await? {
            Ok(Outcome::Response(response)) => Ok(response),
            Ok(Outcome::Refusal(text)) => Err(CallError::Unavailable(text)),
            Err(Unanswered::Unreachable(text)) => Err(CallError::Unreachable(text)),
            Err(Unanswered::NoStream) => call(connect()?, proposal).await,
        }
    }
}

#[async_trait]
impl EndorserNetwork for Endorsers {
    async fn process(
        &self,
        channel: &ChannelHandle,
        member: &Member,
        proposal: Arc<SignedProposal>,
    ) -> Result<ProposalResponse, CallError> {
        if member.local {
            let answer = self.local.process(&proposal).await;
            self.metrics.proposal(&answer);
            return answer.map_err(call_error);
        }
        let roots = channel.bundle().tls_roots_of(&member.msp_id);
        self.others.ask(&member.endpoint, &roots, &proposal).await
    }

    async fn evaluate(
        &self,
        channel: &ChannelHandle,
        member: &Member,
        proposal: Arc<SignedProposal>,
    ) -> Result<ProposalResponse, CallError> {
        if !member.local {
            return self.process(channel, member, proposal).await;
        }
        let answer = self.local.evaluate(&proposal).await;
        self.metrics.evaluation(&answer);
        answer.map_err(call_error)
    }
}

async fn call(connection: Channel, proposal: &SignedProposal) -> Result<ProposalResponse, CallError> {
    let mut client = EndorserClient::new(connection)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let answer = client.process_proposal(proposal.clone()).await;
    answer.map(Response::into_inner).map_err(|status| {
        let text = call_text(&status);
        // What the other end says has no cause on this side.
        if status.source().is_some() { CallError::Unreachable(text) } else { CallError::Unavailable(text) }
    })
}

fn call_error(error: EndorserError) -> CallError {
    match error {
        EndorserError::Unavailable(text) => CallError::Unavailable(text),
        EndorserError::Invalid(text) => CallError::Refused(text),
    }
}

/// The service `protos.Endorser`, counted.
#[derive(Clone, Debug)]
pub struct CountedEndorser {
    service: EndorserService,
    metrics: Arc<PeerMetrics>,
}

impl CountedEndorser {
    /// Counts what the service answers.
    #[must_use]
    pub fn new(service: EndorserService, metrics: Arc<PeerMetrics>) -> Self {
        Self { service, metrics }
    }
}

#[tonic::async_trait]
impl EndorserRpc for CountedEndorser {
    async fn process_proposal(
        &self,
        request: Request<SignedProposal>,
    ) -> Result<Response<ProposalResponse>, Status> {
        let answer = self.service.process_proposal(request).await.map(Response::into_inner);
        self.metrics.proposal(&answer);
        answer.map(Response::new)
    }
}
