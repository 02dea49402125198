//! The seam between ordering and agreeing: chosen per channel by the consensus type of its configuration.

pub(crate) mod raft;
pub(crate) mod revoked;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use consort_protos::consort::orderer::{Hello, Introduced, Introduction, Standing, Verdict};
use tokio::sync::oneshot;

use crate::{
    channel::ChannelState,
    submission::{Refusal, Submission},
};

/// Messages of one channel's clients that a consenter may have forwarded to the leader and not heard of yet. Two full blocks of the largest usual count
/// are under way with them; beyond that clients wait. The leader takes so many without reading more slowly.
pub(crate) const FORWARDED_MAX: usize = 2048;

/// Makes chains of one consensus type.
///
/// Duties of an implementation: `start` continues exactly where the books on disk end.
pub(crate) trait Consenter: Send + Sync {
    /// Starts agreeing.
    ///
    /// # Errors
    /// [`StartError`] says why the channel cannot be served here.
    fn start(&self, state: Arc<ChannelState>) -> Result<Arc<dyn Chain>, StartError>;
}

/// One channel's consensus on this node.
///
/// Duties of an implementation: an order that is acknowledged is in a block that survives the loss of any minority of consenters;
/// every block is appended to the channel's books once, in order.
#[async_trait]
pub(crate) trait Chain: Send + Sync {
    /// Takes a judged message. It is accepted when this returns; the receipt says what became of it.
    ///
    /// # Errors
    /// The refusal for the client: no leader, or too much waits already.
    async fn order(&self, submission: Submission, origin: Origin) -> Result<Receipt, Refusal>;

    /// Takes a message of another consenter, which is known by its TLS certificate (DER), with what it says of its sender.
    ///
    /// # Errors
    /// When that certificate belongs to no other consenter, or the message cannot be read.
    fn step(&self, certificate: &[u8], standing: Standing, message: Bytes) -> Result<(), StepError>;

    /// Takes the hello of another consenter; the verdict follows, unless the chain stops.
    ///
    /// # Errors
    /// When that certificate belongs to no other consenter.
    fn hello(&self, certificate: &[u8], hello: Hello) -> Result<oneshot::Receiver<Verdict>, StepError>;

    /// A consenter that was refused as unknown asks where its blocks part from those here, or shows what is missing here. Anybody may call.
    ///
    /// # Errors
    /// Why what it shows proves nothing.
    async fn introduce(&self, introduction: Introduction) -> Result<Introduced, String>;

    /// Has the channel go on with this node as the only voter, because an operator knows that most of the others have lost their memory.
    ///
    /// # Errors
    /// Why not, in words for an operator.
    async fn recover(&self) -> Result<(), String>;

    /// Whether a TLS certificate (DER) belongs to a consenter.
    fn is_consenter(&self, certificate: &[u8]) -> bool;
}

/// Where a message came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A client: it is forwarded when another node leads.
    Client,
    /// Another consenter, which took this node for the leader: it is not forwarded again.
    Consenter {
        /// The configuration sequence under which that consenter judged it, if it says so.
        judged_at: Option<u64>,
    },
}

/// What becomes of a message that was taken: agreed on, or refused after all.
pub(crate) type Receipt = oneshot::Receiver<Result<(), Refusal>>;

/// Who leads a channel, as far as this node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leadership {
    /// Nobody.
    Nobody,
    /// This node.
    Own,
    /// The consenter with this id.
    Other(u64),
}

/// A channel cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The configuration names a consensus that this node does not have, or malformed metadata of it.
    #[error("{0}")]
    Configuration(String),
    /// The books or the log on disk cannot be used.
    #[error("the data on disk cannot be used: {0}")]
    Disk(String),
}

/// A message of another node is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    /// The text is Fabric's.
    #[error("certificate extracted from TLS connection isn't authorized")]
    NotAuthorized,
    /// It cannot be read, or is none that consenters send.
    #[error("the message is none of a consenter")]
    Malformed,
}
