//! The gRPC service `protos.Endorser`.

use std::sync::Arc;

use consort_node::Clock;
use consort_protos::fabric::protos::endorser_server::Endorser as EndorserRpc;
use consort_protos::fabric::protos::{ProposalResponse, SignedProposal};
use tonic::{Request, Response, Status};

use super::{Endorser, EndorserError};
use crate::load::Gate;

/// Serves [`Endorser::process`], as much of it at a time as can be answered in time.
#[derive(Debug, Clone)]
pub struct EndorserService {
    endorser: Arc<Endorser>,
    gate: Arc<Gate>,
}

impl EndorserService {
    /// The service of an endorser.
    #[must_use]
    pub fn new(endorser: Arc<Endorser>, clock: Arc<dyn Clock>) -> Self {
        Self { endorser, gate: Arc::new(Gate::new("endorser", clock)) }
    }
}

#[tonic::async_trait]
impl EndorserRpc for EndorserService {
    async fn process_proposal(
        &self,
        request: Request<SignedProposal>,
    ) -> Result<Response<ProposalResponse>, Status> {
        let _place = self.gate.enter().await?;
        let signed = request.into_inner();
        self.endorser.process(&signed).await.map(Response::new).map_err(|error| match error {
            // Fabric's tools know the texts, and this code for both.
            EndorserError::Unavailable(text) | EndorserError::Invalid(text) => Status::unknown(text),
        })
    }
}

#[cfg(test)]
impl EndorserService {
    /// A service that takes so many proposals at the same time.
    pub(super) fn with_places(endorser: Arc<Endorser>, places: usize, clock: Arc<dyn Clock>) -> Self {
        Self { endorser, gate: Arc::new(Gate::with_places("endorser", places, clock)) }
    }
}
