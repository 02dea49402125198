//! How the gateway reaches endorsers: this peer's by a call, other peers' by `protos.Endorser`.

use std::sync::Arc;

use async_trait::async_trait;
use consort_node::dial::with_causes;
use consort_node::server::MESSAGE_BYTES_MAX;
use consort_protos::fabric::protos::endorser_client::EndorserClient;
use consort_protos::fabric::protos::endorser_server::Endorser as EndorserRpc;
use consort_protos::fabric::protos::{ProposalResponse, SignedProposal};
use tonic::{Request, Response, Status};

use crate::channel::ChannelHandle;
use crate::connections::{Connections, call_text};
use crate::endorser::{Endorser, EndorserError, EndorserService};
use crate::gateway::{CallError, EndorserNetwork, Member};
use crate::telemetry::PeerMetrics;

/// Calls endorsers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Endorsers {
    local: Arc<Endorser>,
    connections: Arc<Connections>,
    metrics: Arc<PeerMetrics>,
}

impl Endorsers {
    /// Uses this endorser for the local peer, and these connections for the others.
    #[must_use]
    pub fn new(local: Arc<Endorser>, connections: Arc<Connections>, metrics: Arc<PeerMetrics>) -> Self {
        Self { local, connections, metrics }
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
        let connection = self
            .connections
            .to(&member.endpoint, &roots)
            .map_err(|error| CallError::Unavailable(with_causes(&error)))?;
        let mut client = EndorserClient::new(connection)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        client
            .process_proposal(SignedProposal::clone(&proposal))
            .await
            .map(Response::into_inner)
            .map_err(|status| CallError::Unavailable(call_text(&status)))
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
