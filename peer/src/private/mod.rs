//! Private data between the peers of a channel: handed out at endorsement, fetched at commit, and searched for afterwards.
//!
//! ```text
//!  endorser ── Push ──► members' peers: transient store         before the proposal is answered          distribute
//!  committer ── Fetch ─► endorsers, other members                for a bounded time, then without it      fetch
//!  reconciler ─ Fetch ─► members                                 in the background, with growing pauses   reconcile
//! ```
//!
//! Peers call each other directly ([`service`]): over TLS, each call signed by a peer's identity and bound to its recipient and its
//! connection ([`message`]). There is no gossip. Who is a member is told by the committed definitions alone ([`collections`]).
//!
//! What always holds: plain data leaves this peer only towards identities that satisfy the collection's member policy, and is kept only
//! when this peer's organisation is a member; what is fetched counts only when it has the hashes on the ledger; a commit waits for
//! missing data no longer than the configured time.

pub mod collections;
mod distribute;
mod fetch;
#[cfg(test)]
mod invalid_tests;
mod message;
mod reconcile;
mod service;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};
use std::time::Duration;

use consort_channel_config::ChannelBundle;
use consort_msp::{Identity, SigningIdentity};
use consort_node::dial::with_causes;
use consort_node::renewal::Current;
use consort_node::server::MESSAGE_BYTES_MAX;
use consort_node::{Clock, Tasks};
use consort_protos::consort::privatedata::body::Content;
use consort_protos::consort::privatedata::private_data_client::PrivateDataClient;
use consort_protos::consort::privatedata::{FetchAnswer, PushAnswer};
use tokio::sync::Semaphore;
use tonic::transport::Channel;

pub use self::distribute::Written;
pub use self::fetch::WantedSet;
pub use self::reconcile::{Progress, status};
use crate::channel::ChannelHandle;
use crate::config::PrivateDataConfig;
use crate::connections::{Connections, call_text};
use crate::gateway::{Directory, Member};
use crate::registry::Channels;
use crate::telemetry::PeerMetrics;

/// Pushes under way at one time. Each ends within the configured timeout; more would only hold memory.
const PUSHES_MAX: usize = 1_024;

/// What the parts have in common.
pub struct PrivateDataSetup {
    /// The joined channels.
    pub channels: Arc<Channels>,
    /// The known peers.
    pub directory: Arc<dyn Directory>,
    /// Who this peer is.
    pub signer: Current<SigningIdentity>,
    /// How other peers are reached.
    pub connections: Arc<Connections>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Limits and pauses.
    pub config: PrivateDataConfig,
    /// What is counted.
    pub metrics: Arc<PeerMetrics>,
    /// Where pushes go on that an endorsement does not wait for.
    pub tasks: Tasks,
}

/// Private data between peers. Cheap to clone.
#[derive(Clone)]
pub struct PrivateData {
    inner: Arc<Inner>,
}

struct Inner {
    setup: PrivateDataSetup,
    pushes: Arc<Semaphore>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PrivateData")
    }
}

impl std::fmt::Debug for PrivateData {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PrivateData")
    }
}

/// [`PrivateData`] as its endorser knows it, without keeping it alive: what knows the peers asks the endorser what runs here, so that
/// neither would ever go.
#[derive(Clone, Debug)]
pub struct WeakPrivateData(Weak<Inner>);

impl WeakPrivateData {
    /// The whole thing, unless the peer is stopping.
    #[must_use]
    pub fn upgrade(&self) -> Option<PrivateData> {
        self.0.upgrade().map(|inner| PrivateData { inner })
    }
}

/// Another peer of the channel, with its identity.
#[derive(Clone, Debug)]
struct OtherPeer {
    member: Member,
    identity: Arc<Identity>,
}

impl PrivateData {
    /// Makes it; nothing runs yet.
    #[must_use]
    pub fn new(setup: PrivateDataSetup) -> Self {
        let pushes = Arc::new(Semaphore::new(PUSHES_MAX));
        Self { inner: Arc::new(Inner { setup, pushes }) }
    }

    /// A reference that does not keep it alive.
    #[must_use]
    pub fn downgrade(&self) -> WeakPrivateData {
        WeakPrivateData(Arc::downgrade(&self.inner))
    }

    fn setup(&self) -> &PrivateDataSetup {
        &self.inner.setup
    }

    /// The other peers of a channel whose identities are valid.
    fn others(&self, channel: &ChannelHandle) -> Vec<OtherPeer> {
        let (bundle, now) = (channel.bundle(), self.setup().clock.now());
        let members = self.setup().directory.members(channel);
        let others = members.into_iter().filter(|member| !member.local);
        others
            .filter_map(|member| {
                let identity = message::peer_identity(&bundle, &member.identity, now).ok()?;
                Some(OtherPeer { member, identity })
            })
            .collect()
    }

    async fn push(&self, channel: &ChannelHandle, peer: &OtherPeer, content: Content) -> Result<(), String> {
        let timeout = Duration::from_millis(self.setup().config.push_timeout_ms);
        let (mut client, signed) = self.call(&channel.bundle(), channel.id().as_str(), peer, content)?;
        let answer = within(timeout, client.push(signed)).await?;
        let PushAnswer {} = answer.into_inner();
        Ok(())
    }

    async fn ask(
        &self,
        channel: &ChannelHandle,
        peer: &OtherPeer,
        content: Content,
        timeout: Duration,
    ) -> Result<FetchAnswer, String> {
        let (mut client, signed) = self.call(&channel.bundle(), channel.id().as_str(), peer, content)?;
        Ok(within(timeout, client.fetch(signed)).await?.into_inner())
    }

    /// A client for a peer, and the signed call for it.
    fn call(
        &self,
        bundle: &ChannelBundle,
        channel: &str,
        peer: &OtherPeer,
        content: Content,
    ) -> Result<(PrivateDataClient<Channel>, consort_protos::consort::privatedata::Signed), String> {
        let setup = self.setup();
        let roots = bundle.tls_roots_of(&peer.member.msp_id);
        let connection =
            setup.connections.to(&peer.member.endpoint, &roots).map_err(|error| with_causes(&error))?;
        let signed = message::seal(
            &setup.signer.get(),
            channel,
            &peer.member.identity,
            setup.connections.certificate_hash(),
            setup.clock.now(),
            content,
        )?;
        let client = PrivateDataClient::new(connection)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok((client, signed))
    }
}

async fn within<T>(
    timeout: Duration,
    call: impl Future<Output = Result<T, tonic::Status>>,
) -> Result<T, String> {
    tokio::time::timeout(timeout, call)
        .await
        .map_err(|_| format!("no answer within {} ms", timeout.as_millis()))?
        .map_err(|status| call_text(&status))
}
