//! A channel that this orderer follows without being one of its consenters: its blocks come from the other orderers, verified, until a
//! configuration names this orderer, too.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_crypto::certificate::Certificate;
use consort_node::{
    deliver::Condition,
    dial::{Dialer, with_causes},
};
use consort_protos::{
    block,
    consort::orderer::{Hello, Introduced, Introduction, Standing, Verdict},
    fabric::common::Block,
    ids::BlockNumber,
};
use rand::seq::SliceRandom as _;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::{
    channel::ChannelState,
    consensus::{Chain, Origin, Receipt, StepError},
    pull::{Pull, orderer_roots},
    submission::{Refusal, Submission},
};

/// Fetched blocks that wait to be checked and written; more would only hold memory.
const FETCHED_QUEUE: usize = 8;

/// After a block that had to be refused, the next orderer is asked this much later.
const REFUSED_PAUSE: Duration = Duration::from_secs(2);

/// The configuration block by which a channel was joined, when that is not its first: the blocks that are fetched must lead to it.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) number: u64,
    pub(crate) header_hash: [u8; 32],
    /// Its configuration: where the blocks before it are found.
    pub(crate) bundle: Arc<ChannelBundle>,
    /// Where the block is kept until then.
    pub(crate) file: PathBuf,
}

impl Target {
    /// The target that a join block sets.
    pub(crate) fn new(join: &Block, bundle: ChannelBundle, file: PathBuf) -> Option<Self> {
        let header = join.header.as_ref()?;
        let header_hash = bundle.hash_algorithm().block_hash(header);
        Some(Self { number: header.number, header_hash, bundle: Arc::new(bundle), file })
    }
}

/// Whether the configuration names an orderer as consenter: by the key of its TLS certificate, so that a renewed certificate counts.
pub(crate) fn names(bundle: &ChannelBundle, own: &Certificate) -> bool {
    bundle.orderer().consenters.iter().any(|consenter| has_key(&consenter.server_tls_cert, own))
}

fn has_key(pem: &Bytes, own: &Certificate) -> bool {
    Certificate::from_pem(pem).is_ok_and(|certificate| certificate.public_key() == own.public_key())
}

/// Where the blocks of a channel are found: its consenters and the endpoints of its organisations, but not this orderer, in any order.
pub(crate) fn others(bundle: &ChannelBundle, own: &Certificate) -> Vec<String> {
    let (own_entries, other_entries): (Vec<_>, Vec<_>) =
        bundle.orderer().consenters.iter().partition(|consenter| has_key(&consenter.server_tls_cert, own));
    let own_endpoints: Vec<String> = own_entries.iter().map(|consenter| consenter.endpoint()).collect();
    let mut endpoints: Vec<String> = other_entries.iter().map(|consenter| consenter.endpoint()).collect();
    endpoints.extend(bundle.orderer_endpoints().into_iter().map(|(_, endpoint)| endpoint));
    endpoints.retain(|endpoint| !own_endpoints.contains(endpoint));
    endpoints.sort_unstable();
    endpoints.dedup();
    endpoints.shuffle(&mut rand::rng());
    endpoints
}

/// Follows a channel.
pub(crate) struct Follower {
    pub(crate) state: Arc<ChannelState>,
    pub(crate) dialer: Dialer,
    pub(crate) own_certificate: Certificate,
    pub(crate) target: Option<Target>,
}

impl Follower {
    /// Appends the channel's blocks until its configuration names this orderer.
    ///
    /// # Errors
    /// Why the channel has to stop here: the disk, or blocks that do not lead to the one that the operator gave.
    pub(crate) async fn run(mut self) -> Result<(), String> {
        loop {
            self.check_target()?;
            if self.target.is_none() {
                self.state.set_condition(Condition::Serving);
                if names(&self.state.bundle(), &self.own_certificate) {
                    info!(channel = %self.state.id(), "the configuration names this orderer as consenter");
                    return Ok(());
                }
            }
            self.follow().await?;
        }
    }

    /// Once the block by which the channel was joined is here, everything before it is proven by its hash.
    fn check_target(&mut self) -> Result<(), String> {
        let Some(target) = &self.target else { return Ok(()) };
        let store = self.state.store();
        if store.height() <= target.number {
            let waits = format!("onboarding: block {} of {}", store.height(), target.number);
            self.state.set_condition(Condition::Unavailable(waits));
            return Ok(());
        }
        let found =
            store.header_hash(BlockNumber::new(target.number)).map_err(|error| with_causes(&error))?;
        if found.as_deref() != Some(target.header_hash.as_slice()) {
            return Err(format!(
                "the blocks that other orderers delivered do not lead to block {} by which the channel was joined: remove the channel here, \
                 and join it by a configuration block that its consenters have",
                target.number
            ));
        }
        std::fs::remove_file(&target.file)
            .map_err(|error| format!("{} cannot be deleted: {error}", target.file.display()))?;
        self.target = None;
        Ok(())
    }

    /// Appends blocks until the configuration changes, the target is reached, or a block has to be refused.
    async fn follow(&self) -> Result<(), String> {
        let current = self.state.bundle();
        let bundle = self.target.as_ref().map_or(&current, |target| &target.bundle);
        let pull = Pull {
            channel: self.state.id().clone(),
            judge: self.state.judge.clone(),
            dialer: self.dialer.clone(),
            roots: orderer_roots(bundle),
            waits: true,
        };
        let endpoints = others(bundle, &self.own_certificate);
        let (blocks, mut fetched) = mpsc::channel(FETCHED_QUEUE);
        let height = || self.state.store().height();
        tokio::select! {
            () = pull.rounds(&endpoints, height, u64::MAX, blocks) => Ok(()),
            taken = self.take(&mut fetched) => taken,
        }
    }

    async fn take(&self, fetched: &mut mpsc::Receiver<Block>) -> Result<(), String> {
        while let Some(block) = fetched.recv().await {
            let number = block::number(&block).get();
            if number < self.state.store().height() {
                continue;
            }
            let is_config = block::is_config(&block);
            let state = Arc::clone(&self.state);
            let appended = tokio::task::spawn_blocking(move || append(&state, &block)).await;
            if let Err(reason) = appended.unwrap_or_else(|fault| Err(fault.to_string())) {
                if let Some(poisoned) = self.state.store().poisoned() {
                    return Err(poisoned);
                }
                warn!(channel = %self.state.id(), number, reason, "a block is refused, another orderer is asked");
                tokio::time::sleep(REFUSED_PAUSE).await;
                return Ok(());
            }
            if is_config || self.target.as_ref().is_some_and(|target| target.number == number) {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn append(state: &ChannelState, block: &Block) -> Result<(), String> {
    state.check_fetched(block)?;
    let next = state.next_bundle(block)?;
    state.append(block, next, true)
}

/// The chain of a channel that is only followed: it takes nothing.
pub(crate) struct FollowerChain {
    /// It follows only until the blocks are here that make it a consenter.
    pub(crate) onboarding: bool,
}

#[async_trait]
impl Chain for FollowerChain {
    async fn order(&self, _submission: Submission, _origin: Origin) -> Result<Receipt, Refusal> {
        if self.onboarding {
            return Err(Refusal::unavailable("onboarding: this orderer fetches the channel's blocks"));
        }
        // The first words are Fabric's, which hides followed channels from clients.
        Err(Refusal::bad_request(
            "channel does not exist: this orderer only follows it, send to one of its consenters",
        ))
    }

    fn step(&self, _certificate: &[u8], _standing: Standing, _message: Bytes) -> Result<(), StepError> {
        Err(StepError::NotAuthorized)
    }

    fn hello(&self, _certificate: &[u8], _hello: Hello) -> Result<oneshot::Receiver<Verdict>, StepError> {
        Err(StepError::NotAuthorized)
    }

    /// It follows whatever its orderers deliver.
    async fn introduce(&self, _introduction: Introduction) -> Result<Introduced, String> {
        Ok(Introduced::default())
    }

    async fn recover(&self) -> Result<(), String> {
        Err("this orderer follows the channel and has no part in its consensus".to_owned())
    }

    fn is_consenter(&self, _certificate: &[u8]) -> bool {
        false
    }
}
