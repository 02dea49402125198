//! Whom the gateway talks to, as seams: the known peers, a way to call each, and the ordering service.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use consort_protos::fabric::common::Envelope;
use consort_protos::fabric::orderer::BroadcastResponse;
use consort_protos::fabric::protos::{ProposalResponse, SignedProposal};
use consort_protos::ids::MspId;
use tokio::sync::watch;

use crate::channel::ChannelHandle;
use crate::deliver_client::OrdererEndpoint;

/// A peer of a channel, as the gateway knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// `host:port`.
    pub endpoint: String,
    /// The peer's organisation.
    pub msp_id: MspId,
    /// Number of blocks it said it has.
    pub height: u64,
    /// Chaincodes that are defined on the channel and installed there: name and version.
    pub chaincodes: Vec<(String, String)>,
    /// Whether it is this peer.
    pub local: bool,
    /// The peer's identity (`msp.SerializedIdentity`).
    pub identity: Bytes,
    /// When the peer's process started, in milliseconds since 1970.
    pub incarnation_ms: u64,
    /// How many statements the process had made before this one.
    pub sequence: u64,
}

impl Member {
    /// Whether the peer runs the chaincode, in this version when one is given.
    #[must_use]
    pub fn runs(&self, chaincode: &str, version: Option<&str>) -> bool {
        self.chaincodes
            .iter()
            .any(|(name, has)| name == chaincode && version.is_none_or(|version| version == has))
    }
}

/// Why a call gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no connection to the endorser.
    #[error("{0}")]
    Unreachable(String),
    /// The endorser gave no answer in time or turned the call away; another one may not.
    #[error("{0}")]
    Unavailable(String),
    /// The endorser read the proposal and found it invalid.
    #[error("{0}")]
    Refused(String),
}

/// The peers of a channel.
///
/// Duties: the answer always holds this peer itself; every other entry was signed by the peer that it speaks about and
/// checked against the channel's configuration.
#[async_trait]
pub trait Directory: Send + Sync {
    /// The known peers of the channel.
    fn members(&self, channel: &ChannelHandle) -> Vec<Member>;

    /// Asks the other peers for news and waits until they answered or a second has passed. It may do nothing when that was
    /// done a moment ago.
    async fn refresh(&self, channel: &ChannelHandle);

    /// Changes when anything was heard of another peer, in whatever channel. One that is closed never changes.
    fn heard(&self) -> watch::Receiver<()> {
        watch::channel(()).1
    }
}

/// A way to call endorsers.
///
/// Duties: a call ends by itself within the caller's timeout plus a moment; the local peer is called without a socket.
#[async_trait]
pub trait EndorserNetwork: Send + Sync {
    /// Asks one peer to endorse.
    async fn process(
        &self,
        channel: &ChannelHandle,
        member: &Member,
        proposal: Arc<SignedProposal>,
    ) -> Result<ProposalResponse, CallError>;

    /// Asks one peer for the response alone; whether it endorses as well is its own affair.
    async fn evaluate(
        &self,
        channel: &ChannelHandle,
        member: &Member,
        proposal: Arc<SignedProposal>,
    ) -> Result<ProposalResponse, CallError> {
        self.process(channel, member, proposal).await
    }
}

/// A way to hand envelopes to orderers.
///
/// Duties: an answer is the orderer's own; an error is one of transport, with a text for an operator.
#[async_trait]
pub trait OrderingService: Send + Sync {
    /// The orderers of the channel.
    fn endpoints(&self, channel: &ChannelHandle) -> Vec<OrdererEndpoint>;

    /// Hands the envelope, a transaction of this channel, to one of them and waits for its answer. It may reach the orderer twice when a
    /// connection breaks.
    ///
    /// # Errors
    /// A text that says why no answer came.
    async fn broadcast(
        &self,
        channel: &ChannelHandle,
        orderer: &OrdererEndpoint,
        envelope: &Envelope,
    ) -> Result<BroadcastResponse, String>;
}
