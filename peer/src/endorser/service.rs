//! The gRPC service `protos.Endorser`.

use std::sync::Arc;

use consort_protos::fabric::protos::endorser_server::Endorser as EndorserRpc;
use consort_protos::fabric::protos::{ProposalResponse, SignedProposal};
use tonic::{Request, Response, Status};

use super::{Endorser, EndorserError};

/// Serves [`Endorser::process`].
#[derive(Debug, Clone)]
pub struct EndorserService {
    endorser: Arc<Endorser>,
}

impl EndorserService {
    /// The service of an endorser.
    #[must_use]
    pub fn new(endorser: Arc<Endorser>) -> Self {
        Self { endorser }
    }
}

#[tonic::async_trait]
impl EndorserRpc for EndorserService {
    async fn process_proposal(
        &self,
        request: Request<SignedProposal>,
    ) -> Result<Response<ProposalResponse>, Status> {
        let signed = request.into_inner();
        self.endorser.process(&signed).await.map(Response::new).map_err(|error| match error {
            // Fabric's tools know the texts, and this code for both.
            EndorserError::Unavailable(text) | EndorserError::Invalid(text) => Status::unknown(text),
        })
    }
}
