//! One channel's Raft node, cutter and block maker as a state machine: inputs in, effects out, no clock, no sockets, no threads.
//!
//! The shell feeds it messages, ticks and submissions and then calls [`Machine::drive`]; under a simulation the same code runs from a seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use consort_channel_config::{BatchConfig, RaftOptions};
use consort_crypto::hash::HashAlgorithm;
use consort_protos::{
    consort::orderer::{Hello, Standing},
    fabric::common::Block,
};
use raft::{
    RawNode, SnapshotStatus, StateRole,
    eraftpb::{Entry, EntryType, Message, MessageType},
};
use tracing::{debug, info, warn};

use super::{
    admission::{Knock, Own},
    disk::Disk,
    incoming,
    leading::{InFlight, Tip},
    log::{DiskLog, LogError},
    roster::Roster,
};
use crate::{
    consensus::Leadership,
    cutter::{CutReason, Cutter},
    submission::{Refusal, Submission},
};

/// The channel's books, as the machine needs them.
///
/// Duties of an implementation: a block that was appended survives a crash of the process; one of the machine too when it brought a configuration or was to be
/// synced, and with it all before it. Others may then be lost, from the end of the books. Limits and sequence are those after the last block.
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

    /// Raft's timing and bounds in force.
    fn raft_options(&self) -> RaftOptions;

    /// The number of consenters in the genesis block.
    fn genesis_consenters(&self) -> u64;

    /// The Raft ids of the consenters in the order of their list, and the next free one.
    fn ids(&self) -> (Vec<u64>, u64);

    /// The id among them that is this node's.
    fn own_id(&self) -> Option<u64>;

    /// Follows a change of the ids that is newer than the last block.
    fn set_ids(&mut self, ids: &[u64], next_id: u64);

    /// The ids as the block of this number notes them.
    fn ids_of(&self, number: u64) -> Result<(Vec<u64>, u64), String>;

    /// Whether a block brings a configuration.
    fn is_configuration(&self, block: &Block) -> bool;

    /// The Raft index of the last block.
    fn last_index(&self) -> u64;

    /// Whether a configuration may be proposed while only these consenters are active; the id of the one that it removes.
    fn check_quorum(&self, submission: &Submission, active: &[u64]) -> Result<Option<u64>, Refusal>;

    /// Whether an agreed block can be the next one. A pure function of the books and the block, so that all consenters decide alike.
    fn check(&self, block: &Block) -> Result<(), String>;

    /// Judges a message again under the configuration in force.
    fn judge_again(&self, stale: Submission) -> Result<Submission, Refusal>;

    /// Completes an agreed block (metadata, signature), writes it, and puts a configuration in it into force.
    fn append(&mut self, block: Block, raft_index: u64, synced: bool) -> Result<(), String>;

    /// Waits until all blocks survive a crash of the machine.
    fn sync(&mut self) -> Result<(), String>;
}

/// Takes what the machine wants to send.
pub(crate) trait Outbox {
    /// A message for a consenter, with what it says of its sender; it may be lost. `to` is the id that the configuration known here gives it.
    fn send(&mut self, to: u64, message: Message, standing: Standing);

    /// A hello for the consenter with this Raft id; it may be lost.
    fn greet(&mut self, to: u64, hello: Hello);
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
    #[error(
        "the other consenters have a block {number} that does not fit these books: this disk was a copy from before they came, and this orderer went on alone with \
         it; what it ordered since is on no other node. Have it leave the channel and join it again (consort orderer leave, consort channel join)"
    )]
    Forked { number: u64 },
}

/// What does not come from the channel.
pub(crate) struct Settings {
    /// Draws incarnations and boots.
    pub(crate) random: Box<dyn FnMut() -> u64 + Send>,
    /// Bounds of the election timeout in ticks, when Raft's own choice is not wanted.
    pub(crate) election_ticks: Option<(usize, usize)>,
}

/// A channel's Raft node with what it decides.
pub(crate) struct Machine<D: Disk, B: Books> {
    pub(super) node: RawNode<DiskLog<D>>,
    pub(super) books: B,
    pub(super) disk: D,
    pub(super) settings: Settings,
    /// The options that the node was made with.
    pub(super) options: RaftOptions,
    /// Its right to take part.
    pub(super) own: Own,
    /// The consenters as of the last applied entry.
    pub(super) roster: Roster,
    pub(super) genesis_consenters: u64,
    /// Nodes without an id that said hello, by the id of the consenter.
    pub(super) knocks: BTreeMap<u64, Knock>,
    /// Consenters to whom a hello is sent next.
    pub(super) greetings: BTreeSet<u64>,
    /// Ticks since the start.
    pub(super) ticks: u64,
    /// The last entry with which this leader changes the consenters.
    pub(super) change_index: u64,
    /// Ids that others speak under and that are newer than the configuration known here: with the id that it gives them.
    pub(super) aliases: BTreeMap<u64, u64>,
    /// When each consenter was last heard from, in ticks.
    pub(super) heard: BTreeMap<u64, u64>,
    /// Those who said last that their clocks may run slowly.
    pub(super) resting: BTreeSet<u64>,
    /// The last tick at which something was on its way here.
    pub(super) busy_at: u64,
    /// The last entry of which another leader has said in this life that it is agreed on.
    pub(super) told_commit: u64,
    /// Another incarnation was admitted in the place of this node's.
    pub(super) replaced: bool,
    pub(super) cutter: Cutter<(Submission, Ticket)>,
    /// The block that will be proposed next; only while this node leads and has caught up with its own log.
    pub(super) tip: Option<Tip>,
    /// The term in which `tip` was made, and when, in ticks.
    pub(super) term_led: u64,
    pub(super) led_since: u64,
    /// Changes of the consenters that wait until this leader knows who is alive.
    pub(super) held: VecDeque<(Submission, Ticket)>,
    pub(super) in_flight: VecDeque<InFlight>,
    pub(super) applied: u64,
    /// The books lack the blocks up to this one, which must be fetched before anything else is applied.
    pub(super) behind: Option<u64>,
    pub(super) uncompacted_bytes: u64,
    pub(super) outcomes: Vec<Outcome>,
    /// Why blocks were cut, and how many messages each has.
    pub(super) cuts: Vec<(CutReason, usize)>,
}

/// Whether the consenters change with these entries: Raft's members, or who they are.
fn changes_members(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| entry.get_entry_type() != EntryType::EntryNormal || !entry.context.is_empty())
}

impl<D: Disk, B: Books> Machine<D, B> {
    /// The log.
    pub(super) fn log(&self) -> &DiskLog<D> {
        self.node.store()
    }

    /// Asks for an election, unless a leader is known or the votes of an election are still being counted.
    pub(crate) fn campaign(&mut self) {
        if self.own.takes_part()
            && self.leadership() == Leadership::Nobody
            && self.node.raft.state != StateRole::Candidate
            && let Err(error) = self.node.campaign()
        {
            debug!(%error, "no election");
        }
    }

    /// A message of another consenter, of which the caller knows by its certificate that it has the Raft id `from`. What comes from another life
    /// of that node than the one that was accepted does not count, and what no consenter sends that keeps to Raft is dropped.
    pub(crate) fn step(&mut self, from: u64, standing: &Standing, mut message: Message) {
        let (ids, _) = self.books.ids();
        let speaks_for_itself = message.from == from || (message.from > from && !ids.contains(&message.from));
        let heard = speaks_for_itself && self.node.mut_store().note(message.from, standing);
        if !self.own.takes_part() || !heard || message.to != self.node.raft.id {
            debug!(from, "a Raft message of a node that has not been accepted, or for another one");
            return;
        }
        self.heard.insert(message.from, self.ticks);
        self.know_alias(message.from, from);
        self.hear_of_rest(message.from, standing.rests);
        if matches!(message.get_msg_type(), MessageType::MsgRequestPreVote | MessageType::MsgRequestVote) {
            self.woken_by(message.from);
        }
        if let Err(reason) = incoming::check(&self.node.raft, &mut message) {
            warn!(from = message.from, reason, "Raft message dropped");
            return;
        }
        if matches!(message.get_msg_type(), MessageType::MsgAppend | MessageType::MsgHeartbeat) {
            self.told_commit = self.told_commit.max(message.commit);
        }
        if let Err(error) = self.node.step(message) {
            debug!(%error, "Raft message ignored");
        }
    }

    /// A consenter speaks under another id than the one known here; it is accepted.
    pub(super) fn know_alias(&mut self, id: u64, known: u64) {
        if self.aliases.get(&id) == Some(&known) {
            return;
        }
        // Also when it is known here under its id by now: what was sent to the former one would reach nobody.
        self.aliases.retain(|one, other| *one != id && *other != known);
        if id != known {
            self.aliases.insert(id, known);
        }
    }

    /// A consenter could not be reached.
    pub(crate) fn unreachable(&mut self, id: u64) {
        if self.resting.contains(&id) && self.leadership() == Leadership::Other(id) {
            self.wake_all();
        }
        self.hear_of_rest(id, false);
        self.node.report_unreachable(id);
    }

    /// Whether this node can order at all.
    pub(crate) fn leads(&self) -> bool {
        self.tip.is_some()
    }

    /// Whether this node leads and nothing is being agreed on.
    pub(crate) fn is_idle(&self) -> bool {
        self.tip.is_some() && self.in_flight.is_empty()
    }

    /// The number of blocks that are being agreed on.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether messages wait for their block.
    pub(crate) fn is_waiting(&self) -> bool {
        self.cutter.is_waiting()
    }

    /// By id, the entries that the others are not known to have; a leader knows.
    pub(crate) fn lags(&self) -> Vec<(u64, u64)> {
        if self.tip.is_none() {
            return Vec::new();
        }
        let (own, last) = (self.node.raft.id, self.node.raft.raft_log.last_index());
        let others = self.node.raft.prs().iter().filter(|(id, _)| **id != own);
        others.map(|(id, progress)| (*id, last.saturating_sub(progress.matched))).collect()
    }

    /// How long a message may wait for its block.
    pub(crate) fn batch_timeout(&self) -> std::time::Duration {
        self.books.batch().timeout
    }

    /// Whether [`Machine::drive`] would wait for the disk: for entries, a vote, a snapshot, or the books before the log is compacted. Changes of members
    /// wait as well, but are rare.
    pub(crate) fn will_sync(&self) -> bool {
        let (raft, log) = (&self.node.raft, &self.node.raft.raft_log);
        !log.unstable_entries().is_empty()
            || log.unstable_snapshot().is_some()
            || (raft.term, raft.vote) != self.log().voted()
            || self.is_compaction_due()
    }

    /// Performs what the inputs led to: writes the log, sends messages, applies what is agreed on.
    pub(crate) fn drive(&mut self, outbox: &mut impl Outbox) -> Result<(), MachineError> {
        self.reconfigure();
        self.compact()?;
        while self.own.takes_part() && self.node.has_ready() {
            let mut ready = self.node.ready();
            // A leader's entries may travel while it writes them itself: it counts its own copy only when it is on disk.
            // A former member that hears of its removal goes, and then nobody else may know that it was agreed on: so what tells of a change
            // of members waits until this node has put it on disk.
            let changes = changes_members(ready.committed_entries());
            let mut held = self.send_unless(changes, ready.take_messages(), outbox);
            if !ready.snapshot().is_empty() {
                self.install(&ready)?;
            }
            self.node.mut_store().write(ready.entries(), ready.hs(), changes)?;
            self.send(ready.take_persisted_messages(), outbox);
            self.follow_leadership();
            let committed = ready.take_committed_entries();
            let mut light = self.node.advance_append(ready);
            if let Some(commit) = light.commit_index() {
                self.node.mut_store().set_commit(commit);
            }
            let holds = !held.is_empty() || changes_members(light.committed_entries());
            held.extend(self.send_unless(holds, light.take_messages(), outbox));
            // Who acknowledged what is about to be acknowledged to clients is remembered at least by the operating system.
            if !committed.is_empty() {
                self.node.mut_store().keep_memory(false)?;
            }
            self.apply(committed)?;
            self.apply(light.take_committed_entries())?;
            self.send(held, outbox);
            self.node.advance_apply_to(self.applied);
            self.begin_to_lead();
            self.reconfigure();
        }
        self.begin_to_lead();
        if self.replaced || self.is_readded() {
            self.relapse("another log was admitted in the place of this node's".to_owned(), false)?;
        }
        self.follow_options()?;
        for to in std::mem::take(&mut self.greetings) {
            outbox.greet(to, self.hello());
        }
        Ok(())
    }

    /// Whether [`Machine::keep_memory`] has anything to do.
    pub(crate) fn has_unsynced_memory(&self) -> bool {
        self.log().has_unsynced_memory()
    }

    /// Puts what others said on disk, now and then.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn keep_memory(&mut self) -> Result<(), MachineError> {
        Ok(self.node.mut_store().keep_memory(true)?)
    }

    /// The log is on disk with every entry, the books follow unsynced and are made again from the log: so they must be on disk before the log
    /// forgets anything, or notes something that stands upon them.
    pub(super) fn sync_books(&mut self) -> Result<(), MachineError> {
        self.books.sync().map_err(MachineError::Books)
    }

    /// Raft's timing as configured; a leader keeps the former one until another node leads.
    fn follow_options(&mut self) -> Result<(), MachineError> {
        let options = self.books.raft_options();
        let unchanged = (options.election_tick, options.heartbeat_tick, options.max_inflight_blocks)
            == (self.options.election_tick, self.options.heartbeat_tick, self.options.max_inflight_blocks);
        if unchanged || self.node.raft.state != StateRole::Follower || self.behind.is_some() {
            return Ok(());
        }
        info!(?options, "Raft goes on with the options of the configuration");
        self.restart()
    }

    /// Sends messages now, or gives them back to be sent later.
    fn send_unless(&mut self, holds: bool, messages: Vec<Message>, outbox: &mut impl Outbox) -> Vec<Message> {
        if holds {
            return messages;
        }
        self.send(messages, outbox);
        Vec::new()
    }

    fn send(&mut self, messages: Vec<Message>, outbox: &mut impl Outbox) {
        for message in messages {
            if message.get_msg_type() == MessageType::MsgAppendResponse && !message.reject {
                self.own.acknowledged = self.own.acknowledged.max((message.term, message.index));
            }
            let standing = Standing { rests: self.says_rest(&message), ..self.standing() };
            let snapshot_to = (message.get_msg_type() == MessageType::MsgSnapshot).then_some(message.to);
            let to = self.aliases.get(&message.to).copied().unwrap_or(message.to);
            outbox.send(to, message, standing);
            if let Some(id) = snapshot_to {
                // It is one small message; should it be lost, the next heartbeat finds the follower where it was.
                self.node.report_snapshot(id, SnapshotStatus::Finish);
            }
        }
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

    /// The Raft id that this node speaks under; `None` as long as it has none.
    pub(crate) fn id(&self) -> Option<u64> {
        Some(self.log().origin().id).filter(|id| *id != 0)
    }

    /// The last entry that is in the books.
    #[cfg(test)]
    pub(crate) fn last_applied(&self) -> u64 {
        self.applied
    }

    /// Its id, term and last entry, if this node leads.
    #[cfg(test)]
    pub(crate) fn led_with(&self) -> Option<(u64, (u64, u64))> {
        let leads = self.node.raft.state == StateRole::Leader;
        self.id().filter(|_| leads).map(|id| (id, self.log().promised()))
    }

    /// What this node remembers to have heard from another one.
    #[cfg(test)]
    pub(crate) fn remembers(&self, id: u64) -> Option<(u64, u64)> {
        self.log().memory().promised(id)
    }

    /// What a failed simulation shows.
    #[cfg(test)]
    pub(crate) fn describe(&self) -> String {
        let raft = &self.node.raft;
        format!(
            "applied {} (Raft {}), committed {}, last {}, change {}, pending {}, knocks {:?}, owners {:?}, behind {:?}, leads {}, roster {:?} of entry {}, followers {:?}, {:?}",
            self.applied,
            raft.raft_log.applied,
            raft.raft_log.committed,
            raft.raft_log.last_index(),
            self.change_index,
            raft.pending_conf_index,
            self.knocks,
            self.roster.owners,
            self.behind,
            self.leads(),
            self.roster.ids,
            self.log().roster().1,
            raft.prs().iter().collect::<Vec<_>>(),
            self.own,
        )
    }

    /// Raft's members: voters and learners.
    pub(crate) fn members(&self) -> (&[u64], &[u64]) {
        self.log().members()
    }

    /// The books.
    pub(crate) fn books(&self) -> &B {
        &self.books
    }
}
