//! One joined channel: its ledger, its configuration in force, and the notifications of its commits.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_ledger::Ledger;
use consort_node::deliver::Condition;
use consort_protos::consort::attestations::Attestation;
use consort_protos::fabric::common;
use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::ids::{BlockNumber, ChannelId, MspId};
use consort_protos::transaction::Transaction;
use tokio::sync::{broadcast, watch};

use crate::attested::Attested;
use crate::definitions::Definitions;
use crate::fates::Fates;
use crate::lifecycle::writes_definitions;
use crate::private::Progress;

/// Committed blocks that a slow reader may fall behind before it has to read them from the ledger again. Blocks of
/// 500 transactions are about 2 MB, so that the queue holds some 30 MB at worst.
const COMMIT_NOTIFICATIONS: usize = 16;

/// A block after its commit, as the readers of the peer see it.
#[derive(Debug)]
pub struct CommittedBlock {
    number: BlockNumber,
    block: Arc<common::Block>,
    transactions: Vec<Option<Arc<Transaction>>>,
    codes: Vec<TxValidationCode>,
    outcomes: HashMap<String, TxValidationCode>,
}

impl CommittedBlock {
    /// Brings together a committed block, its opened transactions (`None` where an entry is no transaction) and the
    /// final codes; the three have one entry per transaction.
    #[must_use]
    pub fn new(
        block: Arc<common::Block>,
        transactions: Vec<Option<Arc<Transaction>>>,
        codes: Vec<TxValidationCode>,
    ) -> Self {
        let number = BlockNumber::new(block.header.as_ref().map_or(0, |header| header.number));
        let mut outcomes = HashMap::with_capacity(codes.len());
        for (transaction, code) in transactions.iter().zip(&codes) {
            if let Some(transaction) = transaction
                && !transaction.tx_id.is_empty()
            {
                // The first copy of an id is the one that counts: a later one is the duplicate.
                outcomes.entry(transaction.tx_id.clone()).or_insert(*code);
            }
        }
        Self { number, block, transactions, codes, outcomes }
    }

    /// Opens a block that the ledger returned, with the codes of its `TRANSACTIONS_FILTER` metadata.
    #[must_use]
    pub fn from_stored(block: common::Block) -> Self {
        let entries: &[Bytes] = consort_protos::block::envelopes(&block);
        let flags = consort_protos::block::flags(&block).unwrap_or_default();
        let codes = (0..entries.len())
            .map(|index| {
                flags
                    .get(index)
                    .and_then(|flag| TxValidationCode::try_from(i32::from(*flag)).ok())
                    .unwrap_or(TxValidationCode::NotValidated)
            })
            .collect();
        let transactions =
            entries.iter().map(|raw| Transaction::open(raw.clone()).ok().map(Arc::new)).collect();
        Self::new(Arc::new(block), transactions, codes)
    }

    /// The block's number.
    #[must_use]
    pub fn number(&self) -> BlockNumber {
        self.number
    }

    /// The block with its committed metadata (codes and commit hash filled in).
    #[must_use]
    pub fn block(&self) -> &Arc<common::Block> {
        &self.block
    }

    /// The opened transactions in block order, `None` where an entry could not be opened.
    #[must_use]
    pub fn transactions(&self) -> &[Option<Arc<Transaction>>] {
        &self.transactions
    }

    /// The final validation codes in block order.
    #[must_use]
    pub fn codes(&self) -> &[TxValidationCode] {
        &self.codes
    }

    /// The ids of the block's transactions with their codes, in no order (of copies the first counts).
    pub fn outcomes(&self) -> impl Iterator<Item = (&str, TxValidationCode)> {
        self.outcomes.iter().map(|(tx_id, code)| (tx_id.as_str(), *code))
    }

    /// The code of the transaction with this id, if the block holds it (the first copy counts).
    #[must_use]
    pub fn outcome(&self, tx_id: &str) -> Option<TxValidationCode> {
        self.outcomes.get(tx_id).copied()
    }
}

/// Why a channel stopped, and what its operator can do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; remedy: {remedy}")]
pub struct ChannelFault {
    /// What happened.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

/// What another peer says about its books, compared with the own ones.
#[derive(Clone, Debug)]
pub struct BooksOf {
    /// The peer's `host:port`.
    pub endpoint: String,
    /// Its organisation.
    pub msp_id: MspId,
    /// Whether that is this peer's organisation.
    pub own_organisation: bool,
    /// The block whose commit hashes were compared.
    pub block: u64,
    /// Whether they are equal.
    pub equal: bool,
}

/// Peers whose books differ that are remembered; a channel has fewer peers.
const DIVERGING_MAX: usize = 1_000;

/// One joined channel. Shared as `Arc`; the committer of the channel is the only writer.
pub struct ChannelHandle {
    id: ChannelId,
    ledger: Arc<Ledger>,
    bundle: watch::Sender<Arc<ChannelBundle>>,
    height: watch::Sender<u64>,
    fault: watch::Sender<Option<ChannelFault>>,
    condition: watch::Sender<Condition>,
    commits: broadcast::Sender<Arc<CommittedBlock>>,
    /// Who waits for the fate of a transaction.
    fates: Fates,
    /// What was read of the chaincode definitions in force.
    definitions: Definitions,
    /// Peers whose commit hash differs, by endpoint.
    diverging: Mutex<BTreeMap<String, BooksOf>>,
    /// How the search for missing private data goes.
    search: Mutex<Progress>,
    /// The newest attestation that this peer has put together.
    attested: Attested,
}

impl ChannelHandle {
    /// Brings together an open ledger and the bundle of the last configuration in it. `folder` is the channel's.
    #[must_use]
    pub fn new(folder: &Path, ledger: Arc<Ledger>, bundle: Arc<ChannelBundle>) -> Self {
        Self {
            id: bundle.channel().clone(),
            attested: Attested::load(folder, &ledger, &bundle),
            bundle: watch::Sender::new(bundle),
            height: watch::Sender::new(ledger.height()),
            fault: watch::Sender::new(None),
            condition: watch::Sender::new(Condition::Serving),
            commits: broadcast::Sender::new(COMMIT_NOTIFICATIONS),
            fates: Fates::default(),
            definitions: Definitions::new(ledger.height()),
            diverging: Mutex::default(),
            search: Mutex::default(),
            ledger,
        }
    }

    /// The channel's name.
    #[must_use]
    pub fn id(&self) -> &ChannelId {
        &self.id
    }

    /// The channel's books. Reads of many steps should go through one `snapshot()`.
    #[must_use]
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// The configuration in force: that of the last committed configuration block.
    #[must_use]
    pub fn bundle(&self) -> Arc<ChannelBundle> {
        Arc::clone(&self.bundle.borrow())
    }

    /// Follows the configuration in force.
    #[must_use]
    pub fn watch_bundle(&self) -> watch::Receiver<Arc<ChannelBundle>> {
        self.bundle.subscribe()
    }

    /// Number of committed blocks, as a value that can be waited on.
    #[must_use]
    pub fn watch_height(&self) -> watch::Receiver<u64> {
        self.height.subscribe()
    }

    /// Notifications of commits from now on. A reader that lags gets `Lagged` and continues from the ledger.
    #[must_use]
    pub fn committed(&self) -> broadcast::Receiver<Arc<CommittedBlock>> {
        self.commits.subscribe()
    }

    /// Who waits for the fate of a transaction of this channel.
    pub(crate) fn fates(&self) -> &Fates {
        &self.fates
    }

    /// The chaincode definitions in force.
    pub(crate) fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    /// Why the channel stopped, if it did: its own fault, or that of its ledger.
    #[must_use]
    pub fn fault(&self) -> Option<ChannelFault> {
        if let Some(fault) = self.fault.borrow().clone() {
            return Some(fault);
        }
        self.ledger.poisoned().map(|reason| ChannelFault {
            reason: format!("the ledger stopped: {reason}"),
            remedy: self.remedy_of_ledger(),
        })
    }

    /// What an operator can do about a ledger that stopped.
    pub(crate) fn remedy_of_ledger(&self) -> String {
        if self.ledger.is_damaged() {
            format!(
                "stop the peer and look with `consort ledger verify --channel {0}`; then restore channels/{0} in the data \
                 folder from a backup, or remove it and join the channel again",
                self.id
            )
        } else {
            "check the disk and its free space, then restart the peer".to_owned()
        }
    }

    /// What enough peers have signed together about where the books stood last; none until they have.
    #[must_use]
    pub fn attestation(&self) -> Option<Attestation> {
        self.attested.newest()
    }

    /// Keeps an attestation that was verified, beyond this process.
    pub(crate) fn set_attestation(&self, attestation: Attestation) {
        self.attested.keep(attestation);
    }

    /// The peers whose books differ from the own ones.
    #[must_use]
    pub fn diverging(&self) -> Vec<BooksOf> {
        self.diverging.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Takes the outcome of a comparison of commit hashes. A difference is said once, and so is its end.
    pub(crate) fn note_books_of(&self, peer: BooksOf) {
        let mut diverging = self.diverging.lock().unwrap_or_else(PoisonError::into_inner);
        if peer.equal {
            if let Some(before) = diverging.remove(&peer.endpoint) {
                tracing::warn!(channel = %self.id, peer = %before.endpoint, block = peer.block, "books are equal again");
            }
        } else if !diverging.contains_key(&peer.endpoint) && diverging.len() < DIVERGING_MAX {
            tracing::error!(
                channel = %self.id, peer = %peer.endpoint, msp_id = %peer.msp_id, block = peer.block,
                "books differ: another peer of the channel has another commit hash; remedy: stop both peers, run \
                 `consort ledger compare` on their folders, and restore the wrong one from a backup or let it join anew"
            );
            diverging.insert(peer.endpoint.clone(), peer);
        }
    }

    /// How the search for missing private data goes.
    #[must_use]
    pub fn search_progress(&self) -> Progress {
        self.search.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes how the search for missing private data goes.
    pub(crate) fn note_search(&self, progress: Progress) {
        *self.search.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }

    /// Follows the channel's fault.
    #[must_use]
    pub fn watch_fault(&self) -> watch::Receiver<Option<ChannelFault>> {
        self.fault.subscribe()
    }

    /// Whether readers may wait for new blocks.
    #[must_use]
    pub fn watch_condition(&self) -> watch::Receiver<Condition> {
        self.condition.subscribe()
    }

    /// Stops this channel and no other. The first fault stays.
    pub(crate) fn stop(&self, fault: ChannelFault) {
        tracing::error!(channel = %self.id, reason = %fault.reason, remedy = %fault.remedy, "channel stopped");
        self.condition.send_replace(Condition::Unavailable(fault.to_string()));
        self.fault.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(fault);
            }
            first
        });
    }

    /// Publishes a durable block: first the bundle it brings, then the block, then the height, then what became of its
    /// transactions, so that whoever hears of the block finds the configuration that it set, and whoever hears of a transaction the block.
    pub(crate) fn publish(&self, committed: Arc<CommittedBlock>, bundle: Option<Arc<ChannelBundle>>) {
        let height = committed.number().get() + 1;
        self.definitions.published(height, bundle.is_some() || writes_definitions(&committed));
        if let Some(bundle) = bundle {
            self.bundle.send_replace(bundle);
        }
        let published = Arc::clone(&committed);
        // An error only says that nobody listens now.
        let _nobody = self.commits.send(committed);
        self.height.send_replace(height);
        // Last, because whoever is told may ask for the block at once.
        self.fates.tell(published.number(), published.outcomes());
    }

    /// Reads committed blocks one after the other from `first` on, waiting for those to come.
    #[must_use]
    pub fn blocks_from(self: &Arc<Self>, first: u64) -> BlockCursor {
        BlockCursor {
            live: self.committed(),
            height: self.watch_height(),
            fault: self.watch_fault(),
            channel: Arc::clone(self),
            next: first,
            held: None,
        }
    }
}

/// Why a cursor cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CursorError {
    /// The block could not be read.
    #[error("block {number} could not be read from the ledger")]
    Ledger {
        /// The block.
        number: u64,
        /// The cause.
        #[source]
        source: consort_ledger::Error,
    },
    /// The ledger does not hold the block although its height says so (it begins with a snapshot).
    #[error("block {number} is not in the ledger")]
    Missing {
        /// The block.
        number: u64,
    },
    /// The channel stopped.
    #[error("the channel stopped")]
    Stopped(#[source] ChannelFault),
}

/// A reader of a channel's committed blocks, in order and without gaps. Blocks that were committed while it waited come
/// from memory, older ones from the ledger.
pub struct BlockCursor {
    channel: Arc<ChannelHandle>,
    next: u64,
    live: broadcast::Receiver<Arc<CommittedBlock>>,
    height: watch::Receiver<u64>,
    fault: watch::Receiver<Option<ChannelFault>>,
    held: Option<Arc<CommittedBlock>>,
}

impl BlockCursor {
    /// Waits for the next block. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`CursorError`]; the cursor stays where it is.
    pub async fn next(&mut self) -> Result<Arc<CommittedBlock>, CursorError> {
        while self.next >= *self.height.borrow_and_update() {
            if let Some(fault) = self.fault.borrow_and_update().clone() {
                return Err(CursorError::Stopped(fault));
            }
            tokio::select! {
                changed = self.height.changed() => changed.expect("invariant: self.channel holds the sender"),
                changed = self.fault.changed() => changed.expect("invariant: self.channel holds the sender"),
            }
        }
        let block = match self.take_from_memory() {
            Some(block) => block,
            None => self.read_from_ledger().await?,
        };
        self.next += 1;
        Ok(block)
    }

    fn take_from_memory(&mut self) -> Option<Arc<CommittedBlock>> {
        loop {
            let candidate = match self.held.take() {
                Some(held) => held,
                None => match self.live.try_recv() {
                    Ok(block) => block,
                    Err(broadcast::error::TryRecvError::Lagged(_)) => continue,
                    Err(_) => return None,
                },
            };
            match candidate.number().get().cmp(&self.next) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Some(candidate),
                std::cmp::Ordering::Greater => {
                    self.held = Some(candidate);
                    return None;
                }
            }
        }
    }

    async fn read_from_ledger(&self) -> Result<Arc<CommittedBlock>, CursorError> {
        let number = self.next;
        let ledger = Arc::clone(self.channel.ledger());
        let read = tokio::task::spawn_blocking(move || {
            ledger.block(BlockNumber::new(number)).map(|found| found.map(CommittedBlock::from_stored))
        });
        match read.await.expect("invariant: reading a block does not panic") {
            Ok(Some(block)) => Ok(Arc::new(block)),
            Ok(None) => Err(CursorError::Missing { number }),
            Err(source) => Err(CursorError::Ledger { number, source }),
        }
    }
}

impl std::fmt::Debug for ChannelHandle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ChannelHandle")
            .field("id", &self.id)
            .field("height", &*self.height.borrow())
            .finish_non_exhaustive()
    }
}
