//! How the gateway reaches endorsers: this peer's by a call, other peers' by `protos.Endorser`.

use std::sync::Arc;

use async_trait::async_trait;
use consort_node::dial::with_causes;
use consort_node::server::MESSAGE_BYTES_MAX;
use consort_protos::fabric::protos::endorser_client::EndorserClient;
use consort_protos::fabric::protos::{ProposalResponse, SignedProposal};

use crate::channel::ChannelHandle;
use crate::connections::Connections;
use crate::endorser::{Endorser, EndorserError};
use crate::gateway::{CallError, EndorserNetwork, Member};

/// Calls endorsers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Endorsers {
    local: Arc<Endorser>,
    connections: Arc<Connections>,
}

impl Endorsers {
    /// Uses this endorser for the local peer, and these connections for the others.
    #[must_use]
    pub fn new(local: Arc<Endorser>, connections: Arc<Connections>) -> Self {
        Self { local, connections }
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
            return self.local.process(&proposal).await.map_err(|error| match error {
                EndorserError::Unavailable(text) => CallError::Unavailable(text),
                EndorserError::Invalid(text) => CallError::Refused(text),
            });
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
            .map(tonic::Response::into_inner)
            .map_err(|status| CallError::Unavailable(with_causes(&status)))
    }
}
