//! The way of a channel's blocks into its ledger: judged ahead, committed one after the other.
//!
//! Three blocks are at work at a time: one is received and compared with its place in the chain, the signatures in the one before
//! it are checked on all cores, and the one before that is committed. None waits for another but through the queues between them.

use std::sync::{Arc, LazyLock};

use consort_channel_config::ChannelBundle;
use consort_ledger::{Ledger, ValidatedBlock};
use consort_protos::envelope::OpenEnvelope;
use consort_protos::fabric::common::{self, HeaderType};
use consort_protos::ids::MspId;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::block::{self, BlockFault, Position};
use super::structure::{self, Opened};
use super::validator;
use super::{aggregate, private};
use crate::channel::{ChannelFault, ChannelHandle, CommittedBlock};
use crate::identities::table::{Table, Versions};
use crate::private::PrivateData;
use crate::telemetry::PeerMetrics;
use consort_node::dial::with_causes;

/// Verified blocks that wait for their signatures to be checked: with one the cores go on at once when they are done with a block.
const OPENING_QUEUE_BLOCKS: usize = 1;

/// Checked blocks that wait for their commit: one hides the disk's latency; more would only hold memory.
const COMMIT_QUEUE_BLOCKS: usize = 1;

/// The threads that judge the block that is being committed. The signatures of later blocks keep the usual ones busy, and what comes
/// to these waits until they are done with a block: every commit would take the time of several.
static JUDGES: LazyLock<Option<rayon::ThreadPool>> = LazyLock::new(|| {
    let threads = rayon::ThreadPoolBuilder::new().thread_name(|index| format!("judge-{index}")).build();
    threads.inspect_err(|cause| tracing::warn!(%cause, "blocks are judged on shared threads")).ok()
});

/// Why a block was not taken.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// It is not the next block of the channel.
    #[error("the block is not the next block of the channel")]
    Refused(#[source] BlockFault),
    /// The channel takes no more blocks; its fault says why.
    #[error("the channel has stopped")]
    Stopped,
}

/// The next block of the channel, signed by its orderers.
struct Verified {
    block: common::Block,
    /// The configuration in force before it.
    bundle: Arc<ChannelBundle>,
}

/// A verified block whose transactions are taken apart, with all their signatures checked.
struct Prepared {
    block: common::Block,
    transactions: Vec<Opened>,
    /// The entries of the table of identities by which they were opened; a block before may still change them.
    seen: Versions,
    /// The configuration that the signatures were checked against.
    bundle: Arc<ChannelBundle>,
}

/// Where blocks enter. One owner: the task that receives them.
pub struct Intake {
    channel: Arc<ChannelHandle>,
    position: Position,
    height: watch::Receiver<u64>,
    fault: watch::Receiver<Option<ChannelFault>>,
    /// Height at which the last configuration block that was taken is committed.
    config_height: u64,
    queue: mpsc::Sender<Verified>,
}

/// What checks signatures and commits. One owner: the channel's committing task.
pub struct Committer {
    channel: Arc<ChannelHandle>,
    /// The peer's organisation, which decides what private data it keeps.
    own: MspId,
    /// Where missing private data is fetched.
    others: Option<PrivateData>,
    queue: mpsc::Receiver<Verified>,
    metrics: Arc<PeerMetrics>,
}

/// Both ends of a channel's pipeline, standing where the ledger stands. `own` is the peer's organisation.
#[must_use]
pub fn pipeline(channel: &Arc<ChannelHandle>, own: MspId, metrics: Arc<PeerMetrics>) -> (Intake, Committer) {
    let (sender, receiver) = mpsc::channel(OPENING_QUEUE_BLOCKS);
    let height = channel.ledger().height();
    let intake = Intake {
        position: Position { next: height, last_hash: last_hash(channel) },
        height: channel.watch_height(),
        fault: channel.watch_fault(),
        config_height: 0,
        queue: sender,
        channel: Arc::clone(channel),
    };
    let committer = Committer { channel: Arc::clone(channel), own, others: None, queue: receiver, metrics };
    (intake, committer)
}

fn last_hash(channel: &ChannelHandle) -> [u8; 32] {
    channel.ledger().last_hash().unwrap_or_default()
}

impl Intake {
    /// Number of the block that is due.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.position.next
    }

    /// Takes a block: checks it and queues it for the commit. Waits while the queue is full, and for the commit of a
    /// configuration block before it.
    ///
    /// # Errors
    /// [`IntakeError`]; the intake still waits for the same block then.
    pub async fn accept(&mut self, block: common::Block) -> Result<(), IntakeError> {
        self.wait_for_configuration().await?;
        let bundle = self.channel.bundle();
        let position = self.position.clone();
        let work = move || {
            let verified = block::verify(&bundle, &position, &block);
            let next = Position { next: position.next + 1, last_hash: header_hash(&bundle, &block) };
            verified.map(|()| (next, configures(&block), Verified { block, bundle }))
        };
        let verified = tokio::task::spawn_blocking(work).await;
        let (next, configures, verified) = match verified {
            Ok(verified) => verified.map_err(IntakeError::Refused)?,
            Err(panic) => {
                self.channel.stop(defect("checking a block", &panic));
                return Err(IntakeError::Stopped);
            }
        };
        self.queue.send(verified).await.map_err(|_| IntakeError::Stopped)?;
        if configures {
            self.config_height = next.next;
        }
        self.position = next;
        Ok(())
    }

    async fn wait_for_configuration(&mut self) -> Result<(), IntakeError> {
        let needed = self.config_height;
        tokio::select! {
            biased;
            reached = self.height.wait_for(|height| *height >= needed) => {
                reached.map(drop).map_err(|_| IntakeError::Stopped)
            }
            _stopped = self.fault.wait_for(Option::is_some) => Err(IntakeError::Stopped),
            () = self.queue.closed() => Err(IntakeError::Stopped),
        }
    }
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Intake").field("position", &self.position).finish_non_exhaustive()
    }
}

impl Committer {
    /// Asks other peers for private data that is not at hand. Without this it is noted as missing.
    #[must_use]
    pub fn fetching(mut self, others: PrivateData) -> Self {
        self.others = Some(others);
        self
    }

    /// Checks and commits what the intake queues, until the peer stops (the block at hand is finished), the intake is gone or the
    /// channel has a fault.
    pub async fn run(self, cancelled: CancellationToken) {
        let (sender, prepared) = mpsc::channel(COMMIT_QUEUE_BLOCKS);
        let Self { channel, own, others, queue, metrics } = self;
        let committing = Committing { channel: Arc::clone(&channel), own, others, metrics };
        tokio::join!(open_all(&channel, queue, sender), committing.commit_all(prepared, cancelled));
    }
}

/// Checks the signatures in blocks until nobody queues or commits any.
async fn open_all(
    channel: &Arc<ChannelHandle>,
    mut queue: mpsc::Receiver<Verified>,
    prepared: mpsc::Sender<Prepared>,
) {
    loop {
        let verified = tokio::select! {
            biased;
            () = prepared.closed() => return,
            verified = queue.recv() => verified,
        };
        let Some(verified) = verified else { return };
        let ledger = Arc::clone(channel.ledger());
        let opened = tokio::task::spawn_blocking(move || open(verified, &ledger)).await;
        match opened {
            Ok(opened) => {
                if prepared.send(opened).await.is_err() {
                    return;
                }
            }
            Err(panic) => return channel.stop(defect("checking a block", &panic)),
        }
    }
}

/// What a commit needs besides the block.
struct Committing {
    channel: Arc<ChannelHandle>,
    own: MspId,
    others: Option<PrivateData>,
    metrics: Arc<PeerMetrics>,
}

impl Committing {
    async fn commit_all(self, mut queue: mpsc::Receiver<Prepared>, cancelled: CancellationToken) {
        loop {
            let prepared = tokio::select! {
                biased;
                () = cancelled.cancelled() => return,
                prepared = queue.recv() => prepared,
            };
            let Some(prepared) = prepared else { return };
            let channel = Arc::clone(&self.channel);
            let metrics = Arc::clone(&self.metrics);
            let (own, others) = (self.own.clone(), self.others.clone());
            let work = move || commit(&channel, &own, others.as_ref(), prepared, &metrics);
            let done = tokio::task::spawn_blocking(work).await;
            let fault = match done {
                Ok(Ok(())) => continue,
                Ok(Err(fault)) => fault,
                Err(panic) => defect("committing a block", &panic),
            };
            self.channel.stop(fault);
            return;
        }
    }
}

impl std::fmt::Debug for Committer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Committer").field("channel", self.channel.id()).finish_non_exhaustive()
    }
}

/// Hash that the block after this one has to name.
fn header_hash(bundle: &ChannelBundle, block: &common::Block) -> [u8; 32] {
    block::header_hash(block, bundle.hash_algorithm())
}

/// Whether the block holds what may change the rules for the next one.
fn configures(block: &common::Block) -> bool {
    let is_config = |entry: &bytes::Bytes| {
        OpenEnvelope::open(entry.clone())
            .is_ok_and(|envelope| envelope.channel_header.r#type == i32::from(HeaderType::Config))
    };
    consort_protos::block::envelopes(block).iter().any(is_config)
}

fn open(verified: Verified, ledger: &Ledger) -> Prepared {
    let Verified { block, bundle } = verified;
    let entries = block.data.as_ref().map_or(&[][..], |data| &data.data);
    let snapshot = ledger.snapshot();
    let table = Table::new(&bundle, &snapshot);
    let mut transactions = structure::open(&bundle, &table, entries);
    aggregate::settle(&mut transactions);
    let seen = table.into_versions();
    Prepared { block, transactions, seen, bundle }
}

/// Does a part of a commit on the threads that are kept for it.
fn apart<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    match &*JUDGES {
        Some(threads) => threads.install(work),
        None => work(),
    }
}

fn commit(
    channel: &ChannelHandle,
    own: &MspId,
    others: Option<&PrivateData>,
    prepared: Prepared,
    metrics: &PeerMetrics,
) -> Result<(), ChannelFault> {
    let started = std::time::Instant::now();
    let Prepared { block, mut transactions, seen, bundle } = prepared;
    assert!(
        Arc::ptr_eq(&bundle, &channel.bundle()),
        "invariant: the intake waits for a configuration block's commit before it checks the next block"
    );
    let ledger = channel.ledger();
    let outcome =
        apart(|| validator::validate(&bundle, ledger, &mut transactions, &seen)).map_err(|error| {
            ChannelFault {
                reason: format!("block {} cannot be judged: {}", number(&block), with_causes(&error)),
                remedy: error.remedy().to_owned(),
            }
        })?;
    let opened: Vec<_> = transactions.iter().map(|transaction| transaction.transaction().cloned()).collect();
    let committed = ValidatedBlock::new(block, opened.clone(), outcome.codes)
        .and_then(|validated| {
            // `prepare` compared the data with the header.
            let validated = validated.with_lookup(outcome.lookup).with_checked_data();
            let private = private::of_block(channel, own, others, &validated)?;
            ledger.commit(validated.with_private(private.sets).with_terms(private.terms))
        })
        .map_err(|error| ChannelFault {
            reason: format!("the ledger could not commit: {}", with_causes(&error)),
            remedy: channel.remedy_of_ledger(),
        })?;
    let committed = Arc::new(CommittedBlock::new(Arc::new(committed.block), opened, committed.codes));
    let seconds = started.elapsed().as_secs_f64();
    metrics.committed(channel.id(), &committed, seconds);
    tracing::info!(
        channel = %channel.id(), block = committed.number().get(), txs = committed.codes().len(), seconds, "block committed"
    );
    channel.publish(committed, outcome.bundle.map(Arc::new));
    Ok(())
}

fn number(block: &common::Block) -> u64 {
    block.header.as_ref().map_or(0, |header| header.number)
}

fn defect(doing: &str, panic: &tokio::task::JoinError) -> ChannelFault {
    ChannelFault {
        reason: format!("a defect of the peer while {doing}: {panic}"),
        remedy: "restart the peer, and report the log's last lines to the makers".to_owned(),
    }
}
