//! One channel's Raft node, cutter and block maker as a state machine: inputs in, effects out, no clock, no sockets, no threads.
//!
//! The shell feeds it messages, ticks and submissions and then calls [`Machine::drive`]; under a simulation the same code runs from a seed.
//! Source of the rules on proposing and losing leadership: Fabric `orderer/consensus/etcdraft/chain.go`.

use std::collections::VecDeque;

use consort_channel_config::BatchConfig;
use consort_crypto::hash::HashAlgorithm;
use consort_protos::{
    block,
    fabric::common::{Block, BlockHeader},
};
use prost::Message as _;
use raft::{
    GetEntriesContext, RawNode, SnapshotStatus, StateRole,
    eraftpb::{Entry, EntryType, Message, MessageType},
};
use tracing::{debug, info, warn};

use super::{
    incoming,
    log::{Log, LogError, snapshot_block},
};
use crate::{
    consensus::Leadership,
    cutter::{CutReason, Cutter},
    submission::{Kind, Refusal, Submission},
};

/// Entries that stay in the log behind a compaction, so that a node that is a little late needs no snapshot.
const KEPT_ENTRIES: u64 = 20;

/// What is read at once when entries are applied late, in bytes.
const READ_BYTES: u64 = 4 * 1024 * 1024;

/// The channel's books, as the machine needs them.
///
/// Duties of an implementation: a block that was appended survives a crash; limits and sequence are those after the last block.
pub(crate) trait Books {
    /// The number of blocks.
    fn height(&self) -> u64;

    /// The hash of the last header.
    fn last_hash(&self) -> [u8; 32];

    /// The hash of the channel.
    fn hash_algorithm(&self) -> HashAlgorithm {
        HashAlgorithm::Sha256
    }

    /// The limits in force.
    fn batch(&self) -> BatchConfig;

    /// The sequence of the configuration in force.
    fn sequence(&self) -> u64;

    /// Blocks that may be proposed and not yet agreed on.
    fn in_flight_max(&self) -> usize;

    /// Bytes of blocks between two compactions of the log.
    fn snapshot_interval_bytes(&self) -> u64;

    /// Judges a message again under the configuration in force.
    fn judge_again(&self, stale: Submission) -> Result<Submission, Refusal>;

    /// Completes an agreed block (metadata, signature), writes it, and puts a configuration in it into force.
    fn append(&mut self, block: Block, raft_index: u64) -> Result<(), String>;
}

/// Takes what the machine wants to send.
pub(crate) trait Outbox {
    /// A message for the consenter that it names; it may be lost.
    fn send(&mut self, message: Message);
}

/// Names a submission until its outcome is known.
pub(crate) type Ticket = u64;

/// What became of a submission.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) ticket: Ticket,
    pub(crate) result: Result<(), Refusal>,
}

/// The machine cannot go on; the channel stops on this node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MachineError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("Raft: {0}")]
    Raft(#[from] raft::Error),
    #[error("the books: {0}")]
    Books(String),
}

/// A channel's Raft node with what it decides.
pub(crate) struct Machine<L: Log, B: Books> {
    node: RawNode<L>,
    books: B,
    cutter: Cutter<(Submission, Ticket)>,
    /// The block that will be proposed next; only while this node leads and has caught up with its own log.
    tip: Option<Tip>,
    /// The term in which `tip` was made.
    term_led: u64,
    in_flight: VecDeque<InFlight>,
    applied: u64,
    /// The books lack the blocks up to this one, which must be fetched before anything else is applied.
    behind: Option<u64>,
    uncompacted_bytes: u64,
    outcomes: Vec<Outcome>,
    cuts: Vec<CutReason>,
}

struct Tip {
    next: u64,
    hash: [u8; 32],
}

struct InFlight {
    hash: [u8; 32],
    kind: Kind,
    tickets: Vec<Ticket>,
}

impl<L: Log, B: Books> Machine<L, B> {
    /// A node that has applied the log up to `applied`; `behind` is the last block that it has to fetch, if it has to.
    pub(crate) fn new(node: RawNode<L>, books: B, applied: u64, behind: Option<u64>) -> Self {
        Self {
            node,
            books,
            cutter: Cutter::default(),
            tip: None,
            term_led: 0,
            in_flight: VecDeque::new(),
            applied,
            behind,
            uncompacted_bytes: 0,
            outcomes: Vec::new(),
            cuts: Vec::new(),
        }
    }

    /// One tick of Raft's clock.
    pub(crate) fn tick(&mut self) {
        self.node.tick();
    }

    /// Asks for an election, unless a leader is known or the votes of an election are still being counted.
    pub(crate) fn campaign(&mut self) {
        if self.leadership() == Leadership::Nobody
            && self.node.raft.state != StateRole::Candidate
            && let Err(error) = self.node.campaign()
        {
            debug!(%error, "no election");
        }
    }

    /// A message of another consenter, which the caller has identified. What no consenter sends that keeps to Raft is dropped.
    pub(crate) fn step(&mut self, mut message: Message) {
        if let Err(reason) = incoming::check(&self.node.raft, &mut message) {
            warn!(from = message.from, reason, "Raft message dropped");
            return;
        }
        if let Err(error) = self.node.step(message) {
            debug!(%error, "Raft message ignored");
        }
    }

    /// A consenter could not be reached.
    pub(crate) fn unreachable(&mut self, id: u64) {
        self.node.report_unreachable(id);
    }

    /// Asks the most advanced follower to lead.
    pub(crate) fn hand_over(&mut self) {
        let own = self.node.raft.id;
        let best = self
            .node
            .raft
            .prs()
            .iter()
            .filter(|(id, _)| **id != own)
            .max_by_key(|(_, progress)| progress.matched);
        if let Some((id, _)) = best {
            self.node.transfer_leader(*id);
        }
    }

    /// Whether a submission would be taken now: this node leads, has room in flight, and no configuration is on its way.
    pub(crate) fn accepts(&self) -> bool {
        self.tip.is_some()
            && self.in_flight.len() < self.books.in_flight_max()
            && self.in_flight.iter().all(|block| block.kind == Kind::Normal)
    }

    /// Whether this node can order at all.
    pub(crate) fn leads(&self) -> bool {
        self.tip.is_some()
    }

    /// Whether this node leads and nothing is being agreed on.
    pub(crate) fn is_idle(&self) -> bool {
        self.tip.is_some() && self.in_flight.is_empty()
    }

    /// Whether messages wait for their block.
    pub(crate) fn is_waiting(&self) -> bool {
        self.cutter.is_waiting()
    }

    /// How long a message may wait for its block.
    pub(crate) fn batch_timeout(&self) -> std::time::Duration {
        self.books.batch().timeout
    }

    /// Takes a submission; its outcome follows.
    pub(crate) fn submit(&mut self, submission: Submission, ticket: Ticket) {
        if self.tip.is_none() {
            return self.settle(ticket, Err(no_leader()));
        }
        let judged = if submission.sequence < self.books.sequence() {
            self.books.judge_again(submission)
        } else {
            Ok(submission)
        };
        match judged {
            Err(refusal) => {
                warn!(%refusal, "a message does not fit the configuration that came before it");
                self.settle(ticket, Err(refusal));
            }
            Ok(config) if config.kind == Kind::Config => {
                if let Some(batch) = self.cutter.cut() {
                    self.propose(batch, CutReason::Config);
                }
                self.propose(vec![(config, ticket)], CutReason::Config);
            }
            Ok(normal) => {
                let size = normal.size;
                for (batch, reason) in self.cutter.ordered(&self.books.batch(), (normal, ticket), size) {
                    self.propose(batch, reason);
                }
            }
        }
    }

    /// The first waiting message has waited for the batch timeout.
    pub(crate) fn batch_expired(&mut self) {
        self.cut(CutReason::Timeout);
    }

    /// Nothing is being agreed on: what waits need not wait for more.
    pub(crate) fn cut_if_idle(&mut self) {
        if self.is_idle() {
            self.cut(CutReason::Idle);
        }
    }

    fn cut(&mut self, reason: CutReason) {
        if self.accepts()
            && let Some(batch) = self.cutter.cut()
        {
            self.propose(batch, reason);
        }
    }

    fn propose(&mut self, batch: Vec<(Submission, Ticket)>, reason: CutReason) {
        let (submissions, tickets): (Vec<Submission>, Vec<Ticket>) = batch.into_iter().unzip();
        let hashing = self.books.hash_algorithm();
        let Some(tip) = &mut self.tip else {
            return self.settle_all(tickets, &no_leader());
        };
        let kind = submissions.first().map_or(Kind::Normal, |first| first.kind);
        let envelopes: Vec<_> = submissions.into_iter().map(|submission| submission.ordered).collect();
        let header = BlockHeader {
            number: tip.next,
            previous_hash: tip.hash.to_vec().into(),
            data_hash: hashing.envelopes_hash(&envelopes).to_vec().into(),
        };
        let hash = hashing.block_hash(&header);
        let data = block::assemble(header, envelopes).encode_to_vec();
        if let Err(error) = self.node.propose(Vec::new(), data) {
            info!(%error, "a block could not be proposed");
            return self.settle_all(tickets, &no_leader());
        }
        *tip = Tip { next: tip.next + 1, hash };
        self.in_flight.push_back(InFlight { hash, kind, tickets });
        self.cuts.push(reason);
    }

    /// Performs what the inputs led to: writes the log, sends messages, applies what is agreed on.
    pub(crate) fn drive(&mut self, outbox: &mut impl Outbox) -> Result<(), MachineError> {
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            // A leader's entries may travel while it writes them itself: it counts its own copy only when it is on disk.
            self.send(ready.take_messages(), outbox);
            if !ready.snapshot().is_empty() {
                self.install(&ready)?;
            }
            self.node.mut_store().write(ready.entries(), ready.hs())?;
            self.send(ready.take_persisted_messages(), outbox);
            self.follow_leadership();
            let committed = ready.take_committed_entries();
            let mut light = self.node.advance_append(ready);
            if let Some(commit) = light.commit_index() {
                self.node.mut_store().set_commit(commit);
            }
            self.send(light.take_messages(), outbox);
            self.apply(committed)?;
            self.apply(light.take_committed_entries())?;
            self.node.advance_apply_to(self.applied);
            self.compact()?;
        }
        self.begin_to_lead();
        Ok(())
    }

    fn send(&mut self, messages: Vec<Message>, outbox: &mut impl Outbox) {
        for message in messages {
            let snapshot_to = (message.get_msg_type() == MessageType::MsgSnapshot).then_some(message.to);
            outbox.send(message);
            if let Some(id) = snapshot_to {
                // It is one small message; should it be lost, the next heartbeat finds the follower where it was.
                self.node.report_snapshot(id, SnapshotStatus::Finish);
            }
        }
    }

    fn install(&mut self, ready: &raft::Ready) -> Result<(), MachineError> {
        let snapshot = ready.snapshot();
        let last = snapshot_block(snapshot)
            .ok_or_else(|| MachineError::Books("a snapshot names no block".to_owned()))?;
        self.node.mut_store().install(snapshot)?;
        self.applied = snapshot.get_metadata().index;
        self.behind = (self.books.height() <= last).then_some(last);
        if self.behind.is_none() {
            self.node.mut_store().applied(self.applied, self.books.height() - 1);
        }
        info!(
            last_block = last,
            height = self.books.height(),
            "the log continues behind blocks to be fetched"
        );
        Ok(())
    }

    /// A leader that is none any more, or is one anew, drops what it had in hand; clients are told.
    fn follow_leadership(&mut self) {
        let leads = self.node.raft.state == StateRole::Leader && self.node.raft.term == self.term_led;
        if self.tip.is_some() && !leads {
            self.tip = None;
            let waiting = self.cutter.cut().unwrap_or_default().into_iter().map(|(_, ticket)| ticket);
            let in_flight = std::mem::take(&mut self.in_flight).into_iter().flat_map(|block| block.tickets);
            let tickets = waiting.chain(in_flight).collect();
            self.settle_all(
                tickets,
                &Refusal::unavailable("the Raft leader changed; the message may be lost"),
            );
        }
    }

    /// A new leader serves once everything before its term is in the books.
    fn begin_to_lead(&mut self) {
        let raft = &self.node.raft;
        let caught_up =
            self.behind.is_none() && raft.commit_to_current_term() && self.applied == raft.raft_log.committed;
        if self.tip.is_none() && raft.state == StateRole::Leader && caught_up {
            self.term_led = raft.term;
            self.tip = Some(Tip { next: self.books.height(), hash: self.books.last_hash() });
            info!(term = raft.term, height = self.books.height(), "this orderer leads");
        }
    }

    fn apply(&mut self, entries: Vec<Entry>) -> Result<(), MachineError> {
        for entry in entries {
            if self.behind.is_some() {
                // They are in the log, and are read from it when the missing blocks are here.
                return Ok(());
            }
            if entry.index <= self.applied {
                continue;
            }
            if entry.get_entry_type() == EntryType::EntryNormal && !entry.data.is_empty() {
                self.apply_block(&entry)?;
            }
            self.applied = entry.index;
            let last = self.books.height().saturating_sub(1);
            self.node.mut_store().applied(self.applied, last);
        }
        Ok(())
    }

    fn apply_block(&mut self, entry: &Entry) -> Result<(), MachineError> {
        let block = Block::decode(entry.data.as_slice())
            .map_err(|error| MachineError::Books(format!("entry {} is no block: {error}", entry.index)))?;
        let header = block
            .header
            .clone()
            .ok_or_else(|| MachineError::Books(format!("entry {} has no block header", entry.index)))?;
        let height = self.books.height();
        if header.number < height {
            debug!(number = header.number, height, "the block is in the books already");
            return Ok(());
        }
        self.books.append(block, entry.index).map_err(MachineError::Books)?;
        self.uncompacted_bytes += entry.data.len() as u64;
        let hash = self.books.hash_algorithm().block_hash(&header);
        if self.in_flight.front().is_some_and(|block| block.hash == hash)
            && let Some(agreed) = self.in_flight.pop_front()
        {
            for ticket in agreed.tickets {
                self.settle(ticket, Ok(()));
            }
        }
        Ok(())
    }

    /// A block that was fetched is in the books; goes on with the log when it was the last one that was missing.
    pub(crate) fn fetched(&mut self) -> Result<(), MachineError> {
        let height = self.books.height();
        if self.behind.is_none_or(|last| height <= last) {
            return Ok(());
        }
        self.behind = None;
        self.node.mut_store().applied(self.applied, height - 1);
        loop {
            let committed = self.node.raft.raft_log.committed.min(self.node.store().last_index()?);
            if self.applied >= committed {
                break;
            }
            let context = GetEntriesContext::empty(false);
            let entries = self.node.store().entries(self.applied + 1, committed + 1, READ_BYTES, context)?;
            self.apply(entries)?;
        }
        self.node.advance_apply_to(self.applied);
        info!(height = self.books.height(), "caught up");
        Ok(())
    }

    fn compact(&mut self) -> Result<(), MachineError> {
        if self.uncompacted_bytes >= self.books.snapshot_interval_bytes() {
            self.node.mut_store().compact(self.applied.saturating_sub(KEPT_ENTRIES))?;
            self.uncompacted_bytes = 0;
        }
        Ok(())
    }

    fn settle(&mut self, ticket: Ticket, result: Result<(), Refusal>) {
        self.outcomes.push(Outcome { ticket, result });
    }

    fn settle_all(&mut self, tickets: Vec<Ticket>, refusal: &Refusal) {
        self.outcomes
            .extend(tickets.into_iter().map(|ticket| Outcome { ticket, result: Err(refusal.clone()) }));
    }

    /// What became of submissions since the last call.
    pub(crate) fn take_outcomes(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.outcomes)
    }

    /// Why blocks were cut since the last call.
    pub(crate) fn take_cuts(&mut self) -> Vec<CutReason> {
        std::mem::take(&mut self.cuts)
    }

    /// Who leads.
    pub(crate) fn leadership(&self) -> Leadership {
        match self.node.raft.leader_id {
            raft::INVALID_ID => Leadership::Nobody,
            id if id == self.node.raft.id => Leadership::Own,
            id => Leadership::Other(id),
        }
    }

    /// The term.
    pub(crate) fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// The last block that has to be fetched from other nodes, if any has to.
    pub(crate) fn behind(&self) -> Option<u64> {
        self.behind
    }

    /// The books.
    pub(crate) fn books(&self) -> &B {
        &self.books
    }

    /// The books, to add a fetched block; [`Machine::fetched`] must follow.
    pub(crate) fn books_mut(&mut self) -> &mut B {
        &mut self.books
    }
}

fn no_leader() -> Refusal {
    Refusal::unavailable("no Raft leader")
}
