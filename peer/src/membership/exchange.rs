//! Speaking and listening.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_msp::SigningIdentity;
use consort_node::dial::with_causes;
use consort_node::renewal::Current;
use consort_node::{Clock, Tasks};
use consort_protos::consort::peer::membership_client::MembershipClient;
use consort_protos::consort::peer::membership_server::Membership as MembershipService;
use consort_protos::consort::peer::{MembershipList, SignedMembership};
use consort_protos::ids::{BlockNumber, ChannelId};
use futures::StreamExt;
use rand::seq::SliceRandom;
use tokio::sync::{Notify, broadcast, watch};
use tonic::{Request, Response, Status};

use super::attestation::Attestations;
use super::known::Known;
use super::statement::{Own, Statement, milliseconds};
use crate::channel::{BooksOf, ChannelHandle};
use crate::config::MembershipConfig;
use crate::connections::{Connections, call_text};
use crate::gateway::{Directory, Member};
use crate::lifecycle::writes_definitions;
use crate::registry::Channels;
use crate::telemetry::PeerMetrics;

/// Peers that are asked in one round. With answers that hold everything the other one knows, news reaches hundreds of
/// peers in two rounds.
const PEERS_PER_ROUND_MAX: usize = 16;
/// After so many rounds without a block exchanges become rare.
const QUIET_ROUNDS: u32 = 5;
/// So many of them still fit into the time after which a silent peer is forgotten.
const EXCHANGES_PER_EXPIRY: u32 = 3;
/// How long one exchange may take.
const EXCHANGE_TIMEOUT: Duration = Duration::from_millis(900);
/// Shortest time between two rounds that clients cause, so that requests for what nobody has do not multiply.
const REFRESH_GAP: Duration = Duration::from_millis(250);
/// Largest answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// What runs on this peer.
///
/// Duties: the answer is that of the channel's last committed block; it changes only with a block or when
/// [`LocalChaincodes::installed`] does.
pub trait LocalChaincodes: Send + Sync {
    /// Chaincodes that are defined on the channel and installed here: name and version.
    fn chaincodes(&self, channel: &ChannelHandle) -> Vec<(String, String)>;

    /// How many packages have been installed here: a new one may run what is defined already. Quick.
    fn installed(&self) -> usize;
}

/// What runs here by the definitions in force, so that it is not read from the state for every request.
#[derive(Clone, Debug)]
struct Runs {
    /// Height since which no block has changed a definition.
    since: u64,
    installed: usize,
    chaincodes: Vec<(String, String)>,
}

/// What the membership is made of.
pub struct MembershipSetup {
    /// The joined channels.
    pub channels: Arc<Channels>,
    /// What runs here.
    pub chaincodes: Arc<dyn LocalChaincodes>,
    /// Who this peer is.
    pub signer: Current<SigningIdentity>,
    /// `host:port` that it announces.
    pub endpoint: String,
    /// How other peers are reached.
    pub connections: Arc<Connections>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Pauses and first contacts.
    pub config: MembershipConfig,
    /// What is counted.
    pub metrics: Arc<PeerMetrics>,
}

/// What is known about the peers of all channels. Cheap to clone.
#[derive(Clone)]
pub struct Membership {
    inner: Arc<Inner>,
}

struct Inner {
    setup: MembershipSetup,
    known: Known,
    heard: watch::Sender<()>,
    attestations: Attestations,
    incarnation_ms: u64,
    sequence: AtomicU64,
    /// Asks for a round now.
    wake: Notify,
    /// Exchanges are rare at the moment: the next block ends that.
    rests: AtomicBool,
    /// What runs here, by channel.
    runs: Mutex<BTreeMap<ChannelId, Runs>>,
    /// When the peers of a channel were last asked because somebody missed one.
    refreshed: Mutex<BTreeMap<ChannelId, Instant>>,
}

/// Whom to ask, and the TLS roots for it.
type Targets = BTreeMap<String, Vec<Bytes>>;

impl Membership {
    /// Knows only this peer at first; [`Membership::start`] begins the exchange.
    #[must_use]
    pub fn new(setup: MembershipSetup) -> Self {
        let inner = Inner {
            known: Known::new(Duration::from_millis(setup.config.expiry_ms)),
            heard: watch::Sender::default(),
            attestations: Attestations::new(setup.config.attest_every_blocks),
            incarnation_ms: milliseconds(setup.clock.now()),
            sequence: AtomicU64::new(0),
            wake: Notify::new(),
            rests: AtomicBool::new(false),
            runs: Mutex::default(),
            refreshed: Mutex::default(),
            setup,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Starts the exchange with the other peers and the watch over what runs here.
    pub fn start(&self, tasks: &Tasks) {
        let (rounds, cancelled) = (self.clone(), tasks.cancelled());
        tasks.spawn("membership", true, async move {
            tokio::select! {
                () = cancelled.cancelled() => {}
                () = rounds.run() => {}
            }
        });
    }

    /// Watches a channel: a block that may change what runs here is followed by an exchange at once.
    pub fn watch(&self, channel: &Arc<ChannelHandle>, tasks: &Tasks) {
        let (membership, channel, cancelled) = (self.clone(), Arc::clone(channel), tasks.cancelled());
        let mut commits = channel.committed();
        let mut bundle = channel.watch_bundle();
        tasks.spawn("membership of a channel", false, async move {
            membership.inner.wake.notify_one();
            loop {
                let news = tokio::select! {
                    () = cancelled.cancelled() => return,
                    changed = bundle.changed() => changed.is_ok(),
                    block = commits.recv() => match block {
                        Ok(block) => {
                            writes_definitions(&block) || membership.inner.rests.swap(false, Ordering::Relaxed)
                        }
                        Err(broadcast::error::RecvError::Lagged(_)) => true,
                        Err(broadcast::error::RecvError::Closed) => return,
                    },
                };
                if news {
                    membership.inner.wake.notify_one();
                }
            }
        });
    }

    /// Exchanges now and then, for ever; less often while no block comes in.
    async fn run(&self) {
        let Inner { setup, wake, rests, .. } = &*self.inner;
        let busy = Duration::from_millis(setup.config.interval_ms);
        let resting = busy.max(Duration::from_millis(setup.config.expiry_ms) / EXCHANGES_PER_EXPIRY);
        let (mut heights, mut quiet_rounds) = (Vec::new(), 0_u32);
        let mut round_began = tokio::time::Instant::now();
        loop {
            // Before the heights are read: a block that comes meanwhile ends the rest.
            rests.store(quiet_rounds + 1 >= QUIET_ROUNDS, Ordering::Relaxed);
            let now: Vec<u64> =
                setup.channels.list().iter().map(|channel| channel.ledger().height()).collect();
            quiet_rounds = if heights == now { QUIET_ROUNDS.min(quiet_rounds + 1) } else { 0 };
            heights = now;
            let at_rest = quiet_rounds == QUIET_ROUNDS;
            let pause = if at_rest { resting.saturating_sub(round_began.elapsed()).max(busy) } else { busy };
            if !at_rest {
                rests.store(false, Ordering::Relaxed);
            }
            // Whether by time or by wake: both mean a round now.
            let _either = tokio::time::timeout(pause, wake.notified()).await;
            round_began = tokio::time::Instant::now();
            for channel in setup.channels.list() {
                self.round(&channel).await;
                self.compare_books(&channel);
                self.attest(&channel);
            }
        }
    }

    /// Compares commit hashes with every peer that is not ahead: the same blocks must have made the same state.
    pub(super) fn compare_books(&self, channel: &ChannelHandle) {
        let setup = &self.inner.setup;
        let height = channel.ledger().height();
        for position in self.inner.known.positions(channel.id().as_str(), setup.clock.monotonic()) {
            let Some(last) = position.height.checked_sub(1).filter(|last| *last < height) else { continue };
            if position.commit_hash.is_empty() {
                continue;
            }
            // Where the own books cannot be read, the channel has other worries.
            let Ok(Some(own)) = channel.ledger().commit_hash(BlockNumber::new(last)) else { continue };
            channel.note_books_of(BooksOf {
                endpoint: position.endpoint,
                own_organisation: position.msp_id == *setup.signer.get().msp_id(),
                msp_id: position.msp_id,
                block: last,
                equal: own == position.commit_hash,
            });
        }
        setup.metrics.diverging(channel.id(), channel.diverging().len());
    }

    /// Adds up the shares of an attestation that have come in.
    pub(super) fn attest(&self, channel: &ChannelHandle) {
        self.inner.attestations.assemble(channel, &self.inner.setup.signer);
    }

    /// One exchange with every target. A second one follows when the first brought new peers.
    async fn round(&self, channel: &ChannelHandle) {
        let mut asked: BTreeSet<String> = BTreeSet::new();
        for _ in 0..2 {
            let targets: Vec<(String, Vec<Bytes>)> =
                self.targets(channel).into_iter().filter(|(target, _)| !asked.contains(target)).collect();
            if targets.is_empty() {
                return;
            }
            asked.extend(targets.iter().map(|(target, _)| target.clone()));
            futures::stream::iter(targets)
                .for_each_concurrent(PEERS_PER_ROUND_MAX, |(target, roots)| async move {
                    if let Err(reason) = self.exchange(channel, &target, &roots).await {
                        tracing::debug!(channel = %channel.id(), peer = %target, %reason, "no exchange with a peer");
                    }
                })
                .await;
        }
    }

    fn targets(&self, channel: &ChannelHandle) -> Targets {
        let setup = &self.inner.setup;
        let bundle = channel.bundle();
        let mut targets = Targets::new();
        let mut all_roots = Vec::new();
        for organisation in &bundle.application().organisations {
            let roots = bundle.tls_roots_of(&organisation.msp_id);
            for (host, port) in &organisation.anchor_peers {
                targets.insert(format!("{host}:{port}"), roots.clone());
            }
            all_roots.extend(roots);
        }
        for peer in &setup.config.bootstrap_peers {
            targets.entry(peer.clone()).or_insert_with(|| all_roots.clone());
        }
        let mut members = self.inner.known.members(channel.id().as_str(), setup.clock.monotonic());
        members.shuffle(&mut rand::rng());
        for member in members.into_iter().take(PEERS_PER_ROUND_MAX) {
            targets.entry(member.endpoint).or_insert_with(|| bundle.tls_roots_of(&member.msp_id));
        }
        targets.remove(&setup.endpoint);
        targets
    }

    async fn exchange(&self, channel: &ChannelHandle, target: &str, roots: &[Bytes]) -> Result<(), String> {
        let own = self.own(channel)?;
        let connection =
            self.inner.setup.connections.to(target, roots).map_err(|error| with_causes(&error))?;
        let mut client = MembershipClient::new(connection).max_decoding_message_size(ANSWER_BYTES_MAX);
        let answer = tokio::time::timeout(EXCHANGE_TIMEOUT, client.exchange(own))
            .await
            .map_err(|_| format!("no answer within {} ms", EXCHANGE_TIMEOUT.as_millis()))?
            .map_err(|status| call_text(&status))?;
        let bundle = channel.bundle();
        for signed in answer.into_inner().members {
            self.hear(signed, &bundle).unwrap_or_else(|reason| {
                tracing::debug!(channel = %channel.id(), peer = %target, %reason, "a statement was refused");
            });
        }
        Ok(())
    }

    fn own(&self, channel: &ChannelHandle) -> Result<SignedMembership, String> {
        let setup = &self.inner.setup;
        let height = channel.ledger().height();
        let last = height.checked_sub(1).map(BlockNumber::new);
        // The hash is left out when the books cannot be read: the channel reports that itself.
        let commit_hash = last.and_then(|last| channel.ledger().commit_hash(last).ok().flatten());
        let own = Own {
            channel: channel.id().clone(),
            endpoint: setup.endpoint.clone(),
            incarnation_ms: self.inner.incarnation_ms,
            sequence: self.inner.sequence.fetch_add(1, Ordering::Relaxed),
            height,
            commit_hash: commit_hash.unwrap_or_default(),
            chaincodes: self.local_chaincodes(channel),
            attestations: self.inner.attestations.own(channel, &setup.signer),
        };
        own.sign(&setup.signer.get(), setup.clock.now()).map_err(|error| with_causes(&error))
    }

    /// What runs here, as of the last committed block.
    fn local_chaincodes(&self, channel: &ChannelHandle) -> Vec<(String, String)> {
        let source = &self.inner.setup.chaincodes;
        // Both are read before the answer is made: a change in between makes it too old, never too new.
        let (since, installed) = (channel.definitions().since(), source.installed());
        {
            let known = self.inner.runs.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(runs) = known.get(channel.id())
                && (runs.since, runs.installed) == (since, installed)
            {
                return runs.chaincodes.clone();
            }
        }
        let chaincodes = source.chaincodes(channel);
        let runs = Runs { since, installed, chaincodes: chaincodes.clone() };
        self.inner.runs.lock().unwrap_or_else(PoisonError::into_inner).insert(channel.id().clone(), runs);
        chaincodes
    }

    /// Takes a statement; the own one comes back from others and is left out.
    fn hear(&self, signed: SignedMembership, bundle: &ChannelBundle) -> Result<(), String> {
        let setup = &self.inner.setup;
        if signed.identity == *setup.signer.get().serialized() {
            return Ok(());
        }
        let statement =
            Statement::open(signed, bundle, setup.clock.now()).map_err(|error| error.to_string())?;
        self.inner.attestations.hear(bundle.channel(), &statement);
        self.inner.known.hear(statement, setup.clock.monotonic());
        self.inner.heard.send_replace(());
        Ok(())
    }
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Membership")
            .field("endpoint", &self.inner.setup.endpoint)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Directory for Membership {
    fn heard(&self) -> watch::Receiver<()> {
        self.inner.heard.subscribe()
    }

    fn members(&self, channel: &ChannelHandle) -> Vec<Member> {
        let setup = &self.inner.setup;
        let mut members = vec![Member {
            endpoint: setup.endpoint.clone(),
            msp_id: setup.signer.get().msp_id().clone(),
            height: channel.ledger().height(),
            chaincodes: self.local_chaincodes(channel),
            local: true,
            identity: setup.signer.get().serialized().clone(),
            incarnation_ms: self.inner.incarnation_ms,
            sequence: self.inner.sequence.load(Ordering::Relaxed),
        }];
        members.extend(self.inner.known.members(channel.id().as_str(), setup.clock.monotonic()));
        members
    }

    async fn refresh(&self, channel: &ChannelHandle) {
        let now = self.inner.setup.clock.monotonic();
        {
            let mut refreshed = self.inner.refreshed.lock().unwrap_or_else(PoisonError::into_inner);
            let last = refreshed.get(channel.id());
            if last.is_some_and(|last| now.saturating_duration_since(*last) < REFRESH_GAP) {
                return;
            }
            refreshed.insert(channel.id().clone(), now);
        }
        // The round's own limits keep this short; the outcome shows in `members`.
        let _either = tokio::time::timeout(Duration::from_secs(1), self.round(channel)).await;
    }
}

#[tonic::async_trait]
impl MembershipService for Membership {
    async fn exchange(&self, request: Request<SignedMembership>) -> Result<Response<MembershipList>, Status> {
        let signed = request.into_inner();
        // One text for every reason: who is no member learns nothing, not even which channels exist.
        let denied = || Status::permission_denied("access denied");
        let state =
            <consort_protos::consort::peer::PeerState as prost::Message>::decode(signed.state.clone())
                .map_err(|_| denied())?;
        let channel = self.inner.setup.channels.get(&state.channel).ok_or_else(denied)?;
        self.hear(signed, &channel.bundle()).map_err(|reason| {
            tracing::info!(channel = %channel.id(), %reason, "an exchange was refused");
            denied()
        })?;
        let mut members = self.inner.known.signed(channel.id().as_str(), self.inner.setup.clock.monotonic());
        members.push(self.own(&channel).map_err(Status::internal)?);
        Ok(Response::new(MembershipList { members }))
    }
}
