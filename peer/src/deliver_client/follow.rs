//! Follows one channel: takes its blocks from an orderer, and from another one when that fails.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use consort_msp::SigningIdentity;
use consort_node::Clock;
use consort_node::dial::Dialer;
use consort_node::renewal::Current;
use consort_protos::fabric::common;
use consort_protos::fabric::orderer::{DeliverResponse, deliver_response};
use consort_protos::ids::MspId;
use rand::RngExt;
use rand::seq::SliceRandom;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::orderers::{OrdererEndpoint, Orderers};
use super::seek;
use crate::channel::ChannelHandle;
use crate::committer::block::BlockFault;
use crate::committer::pipeline::{Intake, IntakeError};
use crate::config::DeliverConfig;
use crate::connections::call_text;
use consort_node::dial::with_causes;

/// How long all orderers must fail before that is an error worth a line: a network that starts, or elects a new leader,
/// is without an orderer for a moment.
const SILENCE_BEFORE_ERROR: Duration = Duration::from_secs(3);

/// The task that keeps one channel up to date.
pub struct Follower {
    channel: Arc<ChannelHandle>,
    intake: Intake,
    orderers: Orderers,
    signer: Current<SigningIdentity>,
    dialer: Dialer,
    clock: Arc<dyn Clock>,
    config: DeliverConfig,
    /// Orderers that delivered a wrong block, with the end of their exclusion.
    avoided: HashMap<String, Instant>,
    /// Since when no orderer delivers, and whether that was said: once, and not every few seconds.
    unreachable: Option<(Instant, bool)>,
}

/// Why following an orderer ended.
enum End {
    /// The peer stops.
    Cancelled,
    /// The channel stopped.
    Stopped,
    /// The configuration no longer names this orderer.
    Removed,
    /// The orderer is gone or declined.
    Lost { cause: String, blocks: u64 },
    /// The orderer delivered what is not the next block.
    Wrong(BlockFault),
}

impl Follower {
    /// Makes the follower of a channel.
    #[must_use]
    pub fn new(
        channel: Arc<ChannelHandle>,
        intake: Intake,
        orderers: Orderers,
        signer: Current<SigningIdentity>,
        dialer: Dialer,
        clock: Arc<dyn Clock>,
        config: DeliverConfig,
    ) -> Self {
        Self {
            channel,
            intake,
            orderers,
            signer,
            dialer,
            clock,
            config,
            avoided: HashMap::new(),
            unreachable: None,
        }
    }

    /// Runs until the peer or the channel stops.
    pub async fn run(mut self, cancelled: CancellationToken) {
        let mut pause = Backoff::new(&self.config);
        loop {
            let mut causes: Vec<String> = Vec::new();
            let mut progress = false;
            for orderer in self.candidates() {
                match self.follow(&orderer, &cancelled).await {
                    End::Cancelled | End::Stopped => return,
                    End::Removed => progress = true,
                    End::Lost { cause, blocks } => {
                        progress |= blocks > 0;
                        self.note_loss(&orderer, &cause, blocks);
                        causes.push(format!("{}: {cause}", orderer.address));
                    }
                    End::Wrong(fault) => {
                        let reason = with_causes(&fault);
                        self.avoid(&orderer, &reason);
                        causes.push(format!("{}: {reason}", orderer.address));
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

    /// The orderers in random order, so that the peers of a channel spread over them; those to be avoided only when
    /// there is no other.
    fn candidates(&mut self) -> Vec<OrdererEndpoint> {
        let now = self.clock.monotonic();
        self.avoided.retain(|_, until| *until > now);
        let mut all = self.orderers.of(&self.channel.bundle());
        all.shuffle(&mut rand::rng());
        let trusted: Vec<OrdererEndpoint> =
            all.iter().filter(|orderer| !self.avoided.contains_key(&orderer.address)).cloned().collect();
        if trusted.is_empty() { all } else { trusted }
    }

    fn note_loss(&self, orderer: &OrdererEndpoint, cause: &str, blocks: u64) {
        let (channel, orderer) = (self.channel.id(), &orderer.address);
        if blocks > 0 {
            tracing::warn!(%channel, %orderer, %cause, blocks, "orderer lost, trying another");
        } else {
            tracing::debug!(%channel, %orderer, %cause, "an orderer does not deliver");
        }
    }

    fn avoid(&mut self, orderer: &OrdererEndpoint, reason: &str) {
        tracing::error!(
            channel = %self.channel.id(),
            orderer = %orderer.address,
            msp_id = orderer.msp_id.as_ref().map_or("", MspId::as_str),
            %reason,
            avoid_ms = self.config.avoid_ms,
            "an orderer delivered a wrong block; remedy: compare its ledger with the other orderers'"
        );
        let until = self.clock.monotonic() + Duration::from_millis(self.config.avoid_ms);
        self.avoided.insert(orderer.address.clone(), until);
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

    async fn follow(&mut self, orderer: &OrdererEndpoint, cancelled: &CancellationToken) -> End {
        let limit = Duration::from_millis(self.config.connect_timeout_ms);
        let opened = tokio::select! {
            () = cancelled.cancelled() => return End::Cancelled,
            opened = tokio::time::timeout(limit, self.open(orderer)) => opened,
        };
        let mut stream = match opened {
            Ok(Ok(stream)) => stream,
            Ok(Err(cause)) => return End::Lost { cause, blocks: 0 },
            Err(_) => {
                let cause = format!("no answer within {} ms", limit.as_millis());
                return End::Lost { cause, blocks: 0 };
            }
        };
        tracing::info!(
            channel = %self.channel.id(), orderer = %orderer.address, next = self.intake.next_number(), "following orderer"
        );
        if matches!(self.unreachable.take(), Some((_, true))) {
            tracing::info!(channel = %self.channel.id(), "an orderer can be reached again");
        }
        let mut bundle = self.channel.watch_bundle();
        let mut fault = self.channel.watch_fault();
        let mut blocks = 0;
        loop {
            let message = tokio::select! {
                () = cancelled.cancelled() => return End::Cancelled,
                () = stopped(&mut fault) => return End::Stopped,
                _changed = bundle.changed() => {
                    bundle.borrow_and_update();
                    if self.orderers.of(&self.channel.bundle()).contains(orderer) {
                        continue;
                    }
                    return End::Removed;
                }
                message = stream.message() => message,
            };
            let block = match content(message) {
                Ok(block) => block,
                Err(cause) => return End::Lost { cause, blocks },
            };
            match self.intake.accept(block).await {
                Ok(()) => blocks += 1,
                Err(IntakeError::Stopped) => return End::Stopped,
                Err(IntakeError::Refused(fault)) => return End::Wrong(fault),
            }
        }
    }

    async fn open(&self, orderer: &OrdererEndpoint) -> Result<Streaming<DeliverResponse>, String> {
        let request = seek::from_block(
            self.channel.id(),
            self.intake.next_number(),
            &self.signer.get(),
            self.dialer.identity().map(|identity| identity.certificate_hash()).unwrap_or_default(),
            self.clock.now(),
        )
        .map_err(|error| format!("the peer's key cannot sign: {}", with_causes(&error)))?;
        let mut client = self.orderers.client(orderer)?;
        // The request stream stays open: an orderer ends the delivery when it is closed.
        let requests = tokio_stream::StreamExt::chain(tokio_stream::once(request), tokio_stream::pending());
        client.deliver(requests).await.map(tonic::Response::into_inner).map_err(|status| call_text(&status))
    }
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Follower").field("channel", self.channel.id()).finish_non_exhaustive()
    }
}

async fn stopped(fault: &mut watch::Receiver<Option<crate::channel::ChannelFault>>) {
    // An error means that the channel is gone, which ends the follower just the same.
    let _either = fault.wait_for(Option::is_some).await;
}

fn content(message: Result<Option<DeliverResponse>, tonic::Status>) -> Result<common::Block, String> {
    match message {
        Err(status) => Err(call_text(&status)),
        Ok(None) => Err("the orderer closed the stream".to_owned()),
        Ok(Some(response)) => match response.r#type {
            Some(deliver_response::Type::Block(block)) => Ok(block),
            Some(deliver_response::Type::Status(status)) => {
                let name = common::Status::try_from(status)
                    .map_or_else(|_| status.to_string(), |known| known.as_str_name().to_owned());
                Err(format!("the orderer ended the delivery with status {name}"))
            }
            None => Err("the orderer sent an empty message".to_owned()),
        },
    }
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
