//! An application's connection to the network through one peer's gateway.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use consort_crypto::hash::HashAlgorithm;
use consort_protos::fabric::gateway::gateway_client::GatewayClient;
use tonic::transport::Channel;

use crate::connection::{Endpoint, MESSAGE_BYTES_MAX};
use crate::contract::Contract;
use crate::error::Error;
use crate::events::EventStream;
use crate::identity::ClientIdentity;
use crate::transaction::{Committed, commit_status};

/// How long each step may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// Evaluating: one peer runs the chaincode.
    pub evaluate: Duration,
    /// Endorsing: several peers run the chaincode.
    pub endorse: Duration,
    /// Submitting: an orderer takes the envelope.
    pub submit: Duration,
    /// Waiting until the transaction is in a block.
    pub commit: Duration,
}

impl Default for Deadlines {
    /// The values that Fabric's sample applications use, with more time to evaluate, because the first call of a
    /// chaincode may have to compile it.
    fn default() -> Self {
        Self {
            evaluate: Duration::from_secs(15),
            endorse: Duration::from_secs(15),
            submit: Duration::from_secs(5),
            commit: Duration::from_secs(60),
        }
    }
}

/// A connection to a gateway with an identity. Cheap to clone; clones share the connection.
#[derive(Debug, Clone)]
pub struct Gateway {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) client: GatewayClient<Channel>,
    pub(crate) identity: ClientIdentity,
    pub(crate) deadlines: Deadlines,
}

impl Gateway {
    /// Connects to a peer.
    ///
    /// # Errors
    /// [`Error::Connect`] when the peer does not answer or its TLS certificate does not match.
    pub async fn connect(endpoint: &Endpoint, identity: ClientIdentity) -> Result<Self, Error> {
        Ok(Self::new(endpoint.connect().await?, identity, Deadlines::default()))
    }

    /// Uses a connection that exists already (see [`Endpoint::connect`]), perhaps shared with others.
    #[must_use]
    pub fn new(connection: Channel, identity: ClientIdentity, deadlines: Deadlines) -> Self {
        let client = GatewayClient::new(connection).max_decoding_message_size(MESSAGE_BYTES_MAX);
        Self { inner: Arc::new(Inner { client, identity, deadlines }) }
    }

    /// The same connection and identity with other deadlines.
    #[must_use]
    pub fn with_deadlines(self, deadlines: Deadlines) -> Self {
        let Inner { client, identity, .. } = self.inner.as_ref();
        Self { inner: Arc::new(Inner { client: client.clone(), identity: identity.clone(), deadlines }) }
    }

    /// The identity that signs.
    #[must_use]
    pub fn identity(&self) -> &ClientIdentity {
        &self.inner.identity
    }

    /// A channel as seen through this gateway; nothing is sent yet.
    #[must_use]
    pub fn network(&self, channel: impl Into<String>) -> Network {
        Network { gateway: self.clone(), channel: channel.into(), hash: HashAlgorithm::Sha256 }
    }
}

/// A channel of the network.
#[derive(Debug, Clone)]
pub struct Network {
    gateway: Gateway,
    channel: String,
    hash: HashAlgorithm,
}

impl Network {
    /// The channel's name.
    #[must_use]
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// The same channel, which hashes with this algorithm (its configuration's `HashingAlgorithm`; SHA-256 unless said). A
    /// transaction's id is such a hash.
    #[must_use]
    pub fn with_hash(mut self, hash: HashAlgorithm) -> Self {
        self.hash = hash;
        self
    }

    /// The hash of the channel.
    #[must_use]
    pub fn hash_algorithm(&self) -> HashAlgorithm {
        self.hash
    }

    /// The gateway behind it.
    #[must_use]
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// A chaincode of the channel; nothing is sent yet.
    #[must_use]
    pub fn contract(&self, chaincode: impl Into<String>) -> Contract {
        Contract::new(self.clone(), chaincode.into())
    }

    /// Waits until a transaction is in a block and says what became of it, valid or not.
    ///
    /// # Errors
    /// [`Error::Refused`] when the gateway does not answer in time or the identity may not ask.
    pub async fn commit_status(&self, tx_id: &str) -> Result<Committed, Error> {
        commit_status(self, tx_id, Bytes::new()).await
    }

    /// The events that a chaincode's valid transactions emit, from the next block on unless told otherwise.
    #[must_use]
    pub fn chaincode_events(&self, chaincode: impl Into<String>) -> EventStream {
        EventStream::new(self.clone(), chaincode.into())
    }
}
