//! One channel on this orderer: its books, its configuration, its chain.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use consort_channel_config::{ChannelBundle, ConsensusState};
use consort_ledger::BlockStore;
use consort_msp::policy::SignedData;
use consort_node::{
    Tasks,
    deliver::{BlockSource, Condition},
    dial::with_causes,
};
use consort_protos::{
    block,
    envelope::OpenEnvelope,
    fabric::common::{Block, Envelope},
    ids::{BlockNumber, ChannelId},
};
use tokio::sync::watch;

use crate::{
    consensus::{Chain, Origin, Receipt},
    submission::{Judge, Refusal},
    writer::Writer,
};

/// The policy that fetched blocks must satisfy.
const BLOCK_VALIDATION: &str = "/Channel/Orderer/BlockValidation";

/// The books of a channel with the configuration in force.
pub(crate) struct ChannelState {
    id: ChannelId,
    folder: PathBuf,
    store: BlockStore,
    bundle: RwLock<Arc<ChannelBundle>>,
    last_config: RwLock<BlockNumber>,
    condition: watch::Sender<Condition>,
    failure: OnceLock<String>,
    configurations: watch::Sender<()>,
    pub(crate) judge: Judge,
    pub(crate) tasks: Tasks,
    /// The last block, for readers that follow: it need not be read, expanded and checked for each of them.
    newest: RwLock<Option<Block>>,
}

impl ChannelState {
    /// Opens the books in a channel's folder. `configurations` is told whenever a configuration comes into force.
    ///
    /// # Errors
    /// What is wrong with them, in words for an operator.
    pub(crate) fn open(
        folder: &Path,
        judge: Judge,
        tasks: Tasks,
        configurations: watch::Sender<()>,
    ) -> Result<Self, String> {
        let store = BlockStore::open(&folder.join("blocks")).map_err(|error| with_causes(&error))?;
        let newest = store.height().checked_sub(1).ok_or("there is no genesis block")?;
        let read = |number| -> Result<Block, String> {
            let block = store.block(number).map_err(|error| with_causes(&error))?;
            block.ok_or_else(|| format!("block {number} is missing"))
        };
        let newest = read(BlockNumber::new(newest))?;
        // A configuration block is its own last configuration, whatever a genesis block says.
        let last_config = if block::is_config(&newest) {
            block::number(&newest)
        } else {
            block::last_config_index(&newest).map_err(|error| error.to_string())?
        };
        let bundle = ChannelBundle::from_block(&read(last_config)?).map_err(|error| error.to_string())?;
        Ok(Self {
            id: bundle.channel().clone(),
            folder: folder.to_owned(),
            store,
            bundle: RwLock::new(Arc::new(bundle)),
            last_config: RwLock::new(last_config),
            failure: OnceLock::new(),
            condition: watch::Sender::new(Condition::Unavailable("no Raft leader".to_owned())),
            configurations,
            judge,
            tasks,
            newest: RwLock::default(),
        })
    }

    pub(crate) fn id(&self) -> &ChannelId {
        &self.id
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn store(&self) -> &BlockStore {
        &self.store
    }

    /// The configuration in force.
    pub(crate) fn bundle(&self) -> Arc<ChannelBundle> {
        Arc::clone(&self.bundle.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The number of the block that brought it.
    pub(crate) fn last_config(&self) -> BlockNumber {
        *self.last_config.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_condition(&self, condition: Condition) {
        self.condition.send_if_modified(|current| {
            let changed = *current != condition;
            *current = condition;
            changed
        });
    }

    pub(crate) fn condition_now(&self) -> Condition {
        self.condition.borrow().clone()
    }

    /// The channel stops on this orderer; the first reason stays.
    pub(crate) fn fail(&self, reason: String) {
        tracing::error!(channel = %self.id, reason, "the channel stops on this orderer");
        let _first_stays = self.failure.set(reason.clone());
        self.set_condition(Condition::Unavailable(reason));
    }

    /// Waits until the channel's chain has ended, in whatever way.
    pub(crate) async fn ended(&self) {
        let mut condition = self.condition.subscribe();
        let has_ended = |now: &Condition| *now == Condition::Closed || self.failure.get().is_some();
        // It fails only when the sender is gone, which is part of this state.
        let _now = condition.wait_for(has_ended).await;
    }

    /// Why the channel has stopped on this orderer.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// The configuration that a block brings: checked against the one in force.
    pub(crate) fn next_bundle(&self, block: &Block) -> Result<Option<ChannelBundle>, String> {
        if !block::is_config(block) {
            return Ok(None);
        }
        let envelope = block::config_envelope(block).map_err(|error| error.to_string())?;
        self.bundle().apply(&envelope).map(Some).map_err(|error| error.to_string())
    }

    /// Appends the next block and puts its configuration into force. A configuration is on disk when this returns; another block need not be
    /// unless it shall be `synced`, and then the caller has compared its data with its header.
    pub(crate) fn append(
        &self,
        block: &Block,
        next: Option<ChannelBundle>,
        synced: bool,
    ) -> Result<(), String> {
        // Before readers hear of the height: they ask at once.
        self.keep_newest(Some(block.clone()));
        self.write(block, next, synced).inspect_err(|_| self.keep_newest(None))
    }

    fn keep_newest(&self, block: Option<Block>) {
        *self.newest.write().unwrap_or_else(PoisonError::into_inner) = block;
    }

    /// A block of the books; `None` beyond their end.
    pub(crate) fn block(&self, number: BlockNumber) -> Result<Option<Block>, String> {
        if number.get() < self.store.height() {
            let newest = self.newest.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(newest) = newest.as_ref().filter(|newest| block::number(newest) == number) {
                return Ok(Some(newest.clone()));
            }
        }
        self.store.block(number).map_err(|error| with_causes(&error))
    }

    fn write(&self, block: &Block, next: Option<ChannelBundle>, synced: bool) -> Result<(), String> {
        let store = &self.store;
        let Some(next) = next else {
            let appended = if synced { store.append(block) } else { store.append_unsynced(block) };
            return appended.map_err(|error| with_causes(&error));
        };
        // In force before readers hear of the block: it may be the one that revokes their right to read. Should the block not be written,
        // the channel stops here.
        let before = self.bundle();
        self.put_in_force(Arc::new(next));
        store.append(block).map_err(|error| {
            self.put_in_force(before);
            with_causes(&error)
        })?;
        *self.last_config.write().unwrap_or_else(PoisonError::into_inner) = block::number(block);
        Ok(())
    }

    fn put_in_force(&self, bundle: Arc<ChannelBundle>) {
        *self.bundle.write().unwrap_or_else(PoisonError::into_inner) = bundle;
        self.configurations.send_replace(());
    }

    /// Checks a block that another orderer delivered: canonical, signed as the configuration in force demands. Number, link and data
    /// hash are checked when it is appended.
    pub(crate) fn check_fetched(&self, block: &Block) -> Result<(), String> {
        let number = block::number(block);
        block::check_parts(block).map_err(|error| error.to_string())?;
        block::check_canonical(block).map_err(|error| error.to_string())?;
        let header = block.header.as_ref().ok_or("no header")?;
        let signatures = block::orderer_signatures(block)
            .map_err(|error| error.to_string())?
            .ok_or_else(|| format!("block {number} is not signed"))?;
        let signed = signatures
            .signatures
            .iter()
            .map(|signature| Writer::signed_data(&signatures.value, signature, header))
            .collect::<Result<Vec<SignedData>, String>>()?;
        let bundle = self.bundle();
        let policy = bundle.policies().policy(BLOCK_VALIDATION).ok_or("no BlockValidation policy")?;
        policy.evaluate(&signed).map_err(|error| format!("block {number}: {error:#}"))
    }
}

impl std::fmt::Debug for ChannelState {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "channel {} at height {}", self.id, self.store.height())
    }
}

/// A channel that this orderer serves.
pub(crate) struct Channel {
    state: Arc<ChannelState>,
    chain: Arc<dyn Chain>,
}

impl Channel {
    pub(crate) fn new(state: Arc<ChannelState>, chain: Arc<dyn Chain>) -> Self {
        Self { state, chain }
    }

    pub(crate) fn state(&self) -> &Arc<ChannelState> {
        &self.state
    }

    pub(crate) fn chain(&self) -> &Arc<dyn Chain> {
        &self.chain
    }

    /// Judges a message and hands it to the chain; the receipt says what became of it.
    pub(crate) async fn submit(
        &self,
        envelope: Envelope,
        open: &OpenEnvelope,
        origin: Origin,
    ) -> Result<Receipt, Refusal> {
        let (judge, bundle) = (&self.state.judge, self.state.bundle());
        let submission = match origin {
            Origin::Client | Origin::Consenter { judged_at: None } => judge.judge(&bundle, envelope, open)?,
            Origin::Consenter { judged_at: Some(sequence) } => {
                judge.judge_forwarded(&bundle, envelope, open, sequence)?
            }
        };
        self.chain.order(submission, origin).await
    }

    /// Whether the chain is in maintenance, where only its orderers may write and read.
    pub(crate) fn in_maintenance(bundle: &ChannelBundle) -> bool {
        bundle.orderer().state == ConsensusState::Maintenance
    }
}

impl BlockSource for Channel {
    fn heights(&self) -> watch::Receiver<u64> {
        self.state.store.subscribe()
    }

    fn block(&self, number: BlockNumber) -> Result<Option<Block>, String> {
        self.state.block(number)
    }

    fn bundle(&self) -> Arc<ChannelBundle> {
        self.state.bundle()
    }

    fn condition(&self) -> watch::Receiver<Condition> {
        self.state.condition.subscribe()
    }
}
