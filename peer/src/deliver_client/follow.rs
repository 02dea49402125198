//! Follows one channel: takes its blocks from one source, and from another one when that fails.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use consort_msp::SigningIdentity;
use consort_node::Clock;
use consort_node::dial::{Dialer, with_causes};
use consort_node::renewal::Current;
use futures::StreamExt;
use rand::RngExt;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::orderers::Orderers;
use super::sources::{Source, Sources};
use crate::channel::ChannelHandle;
use crate::committer::block::BlockFault;
use crate::committer::pipeline::{Intake, IntakeError};
use crate::config::DeliverConfig;
use crate::connections::Connections;
use crate::gateway::Directory;
use crate::telemetry::PeerMetrics;

/// How long all sources must fail before that is an error worth a line: a network that starts, or elects a new leader,
/// is without an orderer for a moment.
const SILENCE_BEFORE_ERROR: Duration = Duration::from_secs(3);

/// How often the own height is compared with what other peers say, as long as it is lower or blocks come in.
const COMPARE_EVERY: Duration = Duration::from_millis(250);

/// What every channel's follower needs.
#[derive(Clone)]
pub struct FollowerParts {
    /// The orderers.
    pub orderers: Orderers,
    /// How other peers are reached.
    pub connections: Arc<Connections>,
    /// Who the other peers are, and how far.
    pub directory: Arc<dyn Directory>,
    /// Who this peer is.
    pub signer: Current<SigningIdentity>,
    /// Whose certificate other nodes are shown: it binds requests to the connection, for nodes that demand client certificates.
    pub dialer: Dialer,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Time limits and preferences.
    pub config: DeliverConfig,
    /// What is counted.
    pub metrics: Arc<PeerMetrics>,
}

/// The task that keeps one channel up to date.
pub struct Follower {
    channel: Arc<ChannelHandle>,
    intake: Intake,
    sources: Arc<Sources>,
    clock: Arc<dyn Clock>,
    config: DeliverConfig,
    metrics: Arc<PeerMetrics>,
    /// Sources that are left out, with the end of their exclusion.
    avoided: HashMap<String, Instant>,
    /// The source to try first.
    first: Option<Source>,
    /// Blocks that an orderer had when it was begun with, as far as it said so.
    offered: u64,
    /// Since when no source delivers, and whether that was said: once, and not every few seconds.
    unreachable: Option<(Instant, bool)>,
}

/// Why following a source ended.
enum End {
    /// The peer stops.
    Cancelled,
    /// The channel stopped.
    Stopped,
    /// The configuration no longer names this source.
    Removed,
    /// An orderer is the better source, while a peer was followed.
    Returned(Source),
    /// Peers of the organisation get blocks that this source does not bring.
    Stalled,
    /// The source is gone or declined.
    Lost { cause: String, blocks: u64 },
    /// The source delivered what is not the next block.
    Wrong(BlockFault),
}

impl Follower {
    /// Makes the follower of a channel.
    #[must_use]
    pub fn new(channel: Arc<ChannelHandle>, intake: Intake, parts: FollowerParts) -> Self {
        let sources = Sources {
            channel: Arc::clone(&channel),
            orderers: parts.orderers,
            connections: parts.connections,
            directory: parts.directory,
            signer: parts.signer,
            dialer: parts.dialer,
            clock: Arc::clone(&parts.clock),
            config: parts.config.clone(),
        };
        Self {
            channel,
            intake,
            sources: Arc::new(sources),
            clock: parts.clock,
            config: parts.config,
            metrics: parts.metrics,
            avoided: HashMap::new(),
            first: None,
            offered: 0,
            unreachable: None,
        }
    }

    /// Runs until the peer or the channel stops.
    pub async fn run(mut self, cancelled: CancellationToken) {
        let mut pause = Backoff::new(&self.config);
        loop {
            let mut causes: Vec<String> = Vec::new();
            let mut progress = false;
            for source in self.candidates() {
                match self.follow(&source, &cancelled).await {
                    End::Cancelled | End::Stopped => return,
                    End::Removed => progress = true,
                    End::Returned(orderer) => {
                        self.first = Some(orderer);
                        progress = true;
                    }
                    End::Stalled => {
                        self.leave_out(&source, Duration::from_millis(self.config.stall_ms) * 4);
                        causes.push(format!("{}: brings no blocks", source.address()));
                    }
                    End::Lost { cause, blocks } => {
                        progress |= blocks > 0;
                        self.note_loss(&source, &cause, blocks);
                        causes.push(format!("{}: {cause}", source.address()));
                    }
                    End::Wrong(fault) => {
                        let reason = with_causes(&fault);
                        self.avoid(&source, &reason);
                        causes.push(format!("{}: {reason}", source.address()));
                    }
                }
                if progress {
                    break;
                }
            }
            if progress {
                pause = Backoff::new(&self.config);
                continue;
            }
            self.say_unreachable(&causes);
            tokio::select! {
                () = cancelled.cancelled() => return,
                () = tokio::time::sleep(pause.next()) => {}
            }
        }
    }

    /// The sources in the order in which they are tried; those to be left out only when there is no other.
    fn candidates(&mut self) -> Vec<Source> {
        let now = self.clock.monotonic();
        self.avoided.retain(|_, until| *until > now);
        let mut all = self.sources.all();
        if let Some(first) = self.first.take().filter(|first| self.sources.offers(first)) {
            all.retain(|source| *source != first);
            all.insert(0, first);
        }
        let trusted: Vec<Source> =
            all.iter().filter(|source| !self.avoided.contains_key(source.address())).cloned().collect();
        if trusted.is_empty() { all } else { trusted }
    }

    fn note_loss(&self, source: &Source, cause: &str, blocks: u64) {
        let (channel, kind, address) = (self.channel.id(), source.kind(), source.address());
        if blocks > 0 {
            tracing::warn!(%channel, kind, %address, %cause, blocks, "source of blocks lost, trying another");
        } else {
            tracing::debug!(%channel, kind, %address, %cause, "a source does not deliver");
        }
    }

    fn leave_out(&mut self, source: &Source, time: Duration) {
        let until = self.clock.monotonic() + time;
        self.avoided.insert(source.address().to_owned(), until);
    }

    fn avoid(&mut self, source: &Source, reason: &str) {
        let signer = self.sources.signer.get();
        let msp_id = match source {
            Source::Orderer(orderer) => orderer.msp_id.as_ref(),
            Source::Peer { .. } => Some(signer.msp_id()),
        };
        tracing::error!(
            channel = %self.channel.id(),
            kind = source.kind(),
            address = %source.address(),
            msp_id = msp_id.map_or("", |msp_id| msp_id.as_str()),
            %reason,
            avoid_ms = self.config.avoid_ms,
            "a wrong block was delivered and dropped; remedy: compare that node's ledger with those of the others"
        );
        self.metrics.wrong_block(self.channel.id(), source.address());
        self.leave_out(source, Duration::from_millis(self.config.avoid_ms));
    }

    fn say_unreachable(&mut self, causes: &[String]) {
        let now = self.clock.monotonic();
        let (since, said) = *self.unreachable.get_or_insert((now, false));
        if said || now.saturating_duration_since(since) < SILENCE_BEFORE_ERROR {
            return;
        }
        self.unreachable = Some((since, true));
        let causes = if causes.is_empty() {
            "the channel configuration names no orderer endpoint".to_owned()
        } else {
            causes.join("; ")
        };
        tracing::error!(
            channel = %self.channel.id(),
            %causes,
            "no orderer can be reached, blocks wait; remedy: start an orderer, or correct host_overrides or \
             orderer_overrides in the peer's configuration"
        );
    }

    async fn follow(&mut self, source: &Source, cancelled: &CancellationToken) -> End {
        let sources = Arc::clone(&self.sources);
        let opened = tokio::select! {
            () = cancelled.cancelled() => return End::Cancelled,
            opened = sources.open(source, self.intake.next_number()) => opened,
        };
        let mut stream = match opened {
            Ok(stream) => stream,
            Err(cause) => return End::Lost { cause, blocks: 0 },
        };
        self.say_following(source);
        let mut bundle = self.channel.watch_bundle();
        let mut fault = self.channel.watch_fault();
        let mut comparison = Comparison::new(sources.heard());
        let follows_peer = matches!(source, Source::Peer { .. });
        let mut better = std::pin::pin!(sources.orderer_is_better());
        let mut height = std::pin::pin!(sources.height_of(source));
        let mut height_known = false;
        let mut blocks = 0;
        loop {
            let message = tokio::select! {
                () = cancelled.cancelled() => return End::Cancelled,
                () = stopped(&mut fault) => return End::Stopped,
                orderer = &mut better, if follows_peer => return End::Returned(orderer),
                offered = &mut height, if !height_known => {
                    height_known = true;
                    self.offered = offered;
                    comparison.is_level = false;
                    continue;
                }
                _changed = bundle.changed() => {
                    bundle.borrow_and_update();
                    if sources.offers(source) {
                        continue;
                    }
                    return End::Removed;
                }
                () = comparison.due() => {
                    if self.is_stalled(&mut comparison) {
                        tracing::warn!(
                            channel = %self.channel.id(), kind = source.kind(), address = %source.address(),
                            "other peers have blocks that this source does not bring, trying another"
                        );
                        return End::Stalled;
                    }
                    continue;
                }
                message = stream.next() => message,
            };
            let block = match message {
                Some(Ok(block)) => block,
                Some(Err(cause)) => return End::Lost { cause, blocks },
                None => return End::Lost { cause: "the stream was closed".to_owned(), blocks },
            };
            match self.intake.accept(block).await {
                Ok(()) => blocks += 1,
                Err(IntakeError::Stopped) => return End::Stopped,
                Err(IntakeError::Refused(fault)) => return End::Wrong(fault),
            }
            (comparison.behind_since, comparison.is_level) = (None, false);
        }
    }

    fn say_following(&mut self, source: &Source) {
        let (channel, next) = (self.channel.id(), self.intake.next_number());
        tracing::info!(%channel, kind = source.kind(), address = %source.address(), next, "following");
        if matches!(self.unreachable.take(), Some((_, true))) {
            tracing::info!(%channel, "blocks can be had again");
        }
    }

    /// Whether peers of the organisation have been ahead for too long without a block coming in. Notes the lag.
    fn is_stalled(&self, comparison: &mut Comparison) -> bool {
        let others = self.sources.height_of_others();
        // What an orderer says delays nothing and decides nothing: it is the measure of a peer that catches up.
        let best = others.max(self.offered).max(self.intake.next_number());
        let behind = best.saturating_sub(self.channel.ledger().height());
        self.metrics.behind(self.channel.id(), behind);
        comparison.is_level = behind == 0;
        if others <= self.intake.next_number() {
            comparison.behind_since = None;
            return false;
        }
        let now = self.clock.monotonic();
        let since = *comparison.behind_since.get_or_insert(now);
        now.saturating_duration_since(since) >= Duration::from_millis(self.config.stall_ms)
    }
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Follower").field("channel", self.channel.id()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for FollowerParts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("FollowerParts").field("config", &self.config).finish_non_exhaustive()
    }
}

/// When the own height is compared with what other peers say: when something was heard of one, and now and then until it is as high.
struct Comparison {
    heard: watch::Receiver<()>,
    interval: tokio::time::Interval,
    /// The books had all blocks that anybody spoke of.
    is_level: bool,
    /// Since when other peers have been ahead without a block coming in.
    behind_since: Option<Instant>,
}

impl Comparison {
    fn new(heard: watch::Receiver<()>) -> Self {
        let mut interval = tokio::time::interval(COMPARE_EVERY);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { heard, interval, is_level: false, behind_since: None }
    }

    async fn due(&mut self) {
        tokio::select! {
            Ok(()) = self.heard.changed() => {}
            _tick = self.interval.tick(), if !self.is_level => {}
            else => std::future::pending().await,
        }
    }
}

async fn stopped(fault: &mut watch::Receiver<Option<crate::channel::ChannelFault>>) {
    // An error means that the channel is gone, which ends the follower just the same.
    let _either = fault.wait_for(Option::is_some).await;
}

/// Pauses that double up to a limit, each shortened by a random part so that peers do not come back all at once.
struct Backoff {
    next_ms: u64,
    max_ms: u64,
}

impl Backoff {
    fn new(config: &DeliverConfig) -> Self {
        Self {
            next_ms: config.reconnect_first_ms.min(config.reconnect_max_ms).max(1),
            max_ms: config.reconnect_max_ms.max(1),
        }
    }

    fn next(&mut self) -> Duration {
        let upper = self.next_ms;
        self.next_ms = upper.saturating_mul(2).min(self.max_ms);
        Duration::from_millis(rand::rng().random_range(upper.div_ceil(2)..=upper))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_limit_and_vary() {
        let config =
            DeliverConfig { reconnect_first_ms: 100, reconnect_max_ms: 1_000, ..DeliverConfig::default() };
        let mut pause = Backoff::new(&config);
        for upper in [100, 200, 400, 800, 1_000, 1_000] {
            let next = pause.next().as_millis();
            assert!((upper / 2..=upper).contains(&next), "{next} is not within half of {upper}");
        }
    }
}
