//! May this node promise anything? Each consenter remembers what the others promised, and this is where it is asked and answered.
//!
//! # Why
//!
//! Raft's safety rests on memory: a voter never forgets a vote or an entry that it acknowledged. A consenter whose disk was emptied,
//! or set back to an old copy, breaks that, and two majorities may then decide differently. So a node speaks only when it is sure
//! to remember, and the others count what it says only when they find that it does.
//!
//! # How
//!
//! * A log has an **incarnation**, drawn when it is created, and each start of the process a **boot**, which counts the starts on disk and is drawn besides. Every Raft message carries
//!   both, with the term on the sender's disk and the last entry that it acknowledged in that term ([`Standing`]). A message counts only if the same incarnation and boot
//!   said **hello** before and was accepted. Each node keeps on disk, per Raft id, the incarnation and the highest
//!   (term, entry) that it heard from it ([`super::memory`]).
//! * A Raft id belongs to one incarnation for ever. Which, is agreed on in the log ([`super::roster`]). A log that is created anew has no
//!   id and promises nothing. It gets an id in one of two ways.
//!   - *First start of a channel*: it takes the id of its place in the genesis block when a majority of the **other** consenters have noted
//!     its incarnation on disk, none of them remembers another one, and none of them knows that the channel was ever used. Two incarnations
//!     that both did so would have asked two majorities of the others, which meet in a node that would have told the second about the
//!     first. (So the first start of a channel needs one orderer more than Raft's majority when their number is odd.)
//!   - *Otherwise* the leader agrees with the others, in the log, that the consenter leaves its old id and that this incarnation owns a fresh one, which nobody
//!     ever used; then removes the old id from Raft's members, adds the new one as a learner, and makes it a voter when it has
//!     caught up. Safety is then that of Raft's membership changes: the lost log is a member that will never speak again.
//! * A log that is older than what was promised with it (an old backup) has its old incarnation. At each start a node says hello
//!   with term and last entry as they are on disk, and does not take part before all others have answered, or an election timeout has passed
//!   for those that do not answer. Whoever remembers more objects, also later, and counts none of its messages meanwhile.
//!   A copy from before its log had an id says so, and those who heard it speak under one object as well.
//!   An old copy also counts fewer starts than the others have heard of, or as many with another draw.
//!   The same finding is made alone when the books are newer than the log. The node then gives up that log, says so loudly, and asks for a fresh id as above.
//!
//! # Cases
//!
//! * *Empty disk, lost log with or without its blocks* (Fabric #3639): a new incarnation; the second way.
//! * *Restored from an old copy; the leader itself restored; all restored at different heights* (Fabric #3223): those with the older
//!   copies are told so by those with the newer ones. The heights differ, so somebody remembers.
//! * *A majority lost its logs*: nobody can be elected or admitted. The channel stands still and says why, because what the lost logs acknowledged
//!   may be lost. It goes on only by the word of an operator ([`super::recovery`]).
//! * *Removed and added again* (Fabric #3992): the configuration gives the consenter a fresh id; an old log of it is refused as replaced, and
//!   begins anew.
//! * *What is left*: a node restored from an old copy of its disk, while every node that remembers its promises is unreachable for an election timeout, or has lost its
//!   own memory. It takes part then; in the first case it is found out as soon as one of them is heard. What a follower acknowledged is remembered by the leader to
//!   whom it said so, and what a leader has in its own log by whoever heard from it afterwards. So orderers are restored one at a time, each when the one before votes again;
//!   and the copy of a leader's disk from just before an entry that it counted itself, put back before anybody heard from it again, is not found out. A copy from the time when the node was the only consenter knows nobody to ask, and lets
//!   itself be told: [`super::alone`] says by whom, and what is left there.

use std::collections::{BTreeMap, BTreeSet};

use consort_protos::consort::orderer::{Hello, Standing, Verdict, verdict::Finding};
use raft::StateRole;
use tracing::{error, info};

use crate::consensus::Leadership;

use super::{
    disk::Disk,
    machine::{Books, Machine, MachineError},
    memory::boot,
};

/// Ticks between two hellos to a consenter that has not accepted yet.
pub(super) const HELLO_TICKS: u64 = 5;

/// Ticks between two hellos to all while no leader is known.
const DOUBT_TICKS: u64 = 4 * HELLO_TICKS;

/// What this node knows about its own right to take part.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) boot: u64,
    /// Term and last entry at the start.
    start: (u64, u64),
    phase: Phase,
    /// The last term with an entry that was acknowledged to its leader, and the last such entry.
    pub(super) acknowledged: (u64, u64),
    /// The Raft ids of those who accepted this boot.
    accepted: BTreeSet<u64>,
    /// By Raft id, the last start of another node whose hello was answered with one.
    greeted_back: BTreeMap<u64, u64>,
    /// Somebody knows that the channel was used before.
    history: bool,
    /// Why this node has no id.
    objection: Option<String>,
    /// Ticks that are left of the wait of those who know of nobody else ([`super::alone`]).
    pub(super) lone_ticks: usize,
    /// Somebody called whom the configuration here does not name.
    pub(super) was_called: bool,
}

/// How long a node waits before it takes part, in ticks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waits {
    /// For consenters that do not answer.
    pub(super) election: usize,
    /// For consenters that it does not know.
    pub(super) alone: usize,
}

/// A node without an id that says hello.
#[derive(Debug, Clone, Copy)]
pub(super) struct Knock {
    pub(super) incarnation: u64,
    /// The tick of its first hello.
    pub(super) since: u64,
    /// How often it said it.
    pub(super) hellos: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The log has no id.
    Unassigned,
    /// It has one; the others are asked whether they remember more. So many ticks are left for those that do not answer.
    Asking { ticks: usize },
    /// It takes part.
    Member,
}

impl Own {
    pub(super) fn new(boot: u64, start: (u64, u64), has_id: bool, waits: Waits) -> Self {
        let phase = if has_id { Phase::Asking { ticks: waits.election } } else { Phase::Unassigned };
        Self {
            boot,
            start,
            phase,
            acknowledged: (0, 0),
            accepted: BTreeSet::new(),
            greeted_back: BTreeMap::new(),
            history: false,
            objection: None,
            lone_ticks: waits.alone,
            was_called: false,
        }
    }

    /// Waits for so many ticks more, if it does not take part yet.
    pub(super) fn wait_at_least(&mut self, more: usize) {
        self.lone_ticks = self.lone_ticks.max(more);
        if let Phase::Asking { ticks } = &mut self.phase {
            *ticks = (*ticks).max(more);
        }
    }

    /// Notes why this node has no id.
    pub(super) fn object(&mut self, reason: String) {
        self.objection = Some(reason);
    }

    /// Whether the node may send and take Raft messages.
    pub(super) fn takes_part(&self) -> bool {
        self.phase == Phase::Member
    }
}

impl<D: Disk, B: Books> Machine<D, B> {
    /// Whether this node sends and takes Raft messages.
    pub(crate) fn takes_part(&self) -> bool {
        self.own.takes_part()
    }

    /// Why this node does not take part, in words for an operator.
    pub(crate) fn obstacle(&self) -> Option<String> {
        match self.own.phase {
            Phase::Member => None,
            Phase::Unassigned | Phase::Asking { .. } if self.is_superseded() => Some(
                "the channel went on with consenters of which this node's disk, a copy from before they came, does not know: this node waits for \
                 them to deliver the blocks since then and to admit it anew"
                    .to_owned(),
            ),
            Phase::Unassigned | Phase::Asking { .. } if self.is_alone() => Some(
                "this node knows of no other consenter and waits a moment for one that knows of it, as its disk may be an old copy"
                    .to_owned(),
            ),
            Phase::Asking { .. } => {
                Some("the other consenters are asked whether they remember more than this node's log".to_owned())
            }
            Phase::Unassigned => Some(self.own.objection.as_ref().map_or_else(
                || {
                    "this node's Raft log is new: it waits for the other consenters to know it for a first start, or to admit it (if too many \
                     of them will not come: consort orderer recover)"
                        .to_owned()
                },
                |reason| {
                    format!(
                        "{reason}; this node must not vote and waits to be admitted with a fresh Raft id, for which the other consenters \
                         need a leader (if most of them have lost their logs: consort orderer recover)"
                    )
                },
            )),
        }
    }

    /// What this node's messages say of it: the term on disk, and the entries on disk that it must not lose in that term. A follower may lose
    /// entries that the term's leader has not sent it.
    pub(super) fn standing(&self) -> Standing {
        let (term, last) = self.log().promised();
        let leads = self.node.raft.state == StateRole::Leader && self.node.raft.term == term;
        let index = match self.own.acknowledged {
            _ if leads => last,
            (of, index) if of == term => index,
            _ => 0,
        };
        Standing {
            incarnation: self.log().origin().incarnation,
            boot: self.own.boot,
            term,
            index,
            rests: false,
        }
    }

    /// What this node says first.
    pub(super) fn hello(&self) -> Hello {
        let origin = self.log().origin();
        let (term, index) = self.own.start;
        let standing =
            Standing { incarnation: origin.incarnation, boot: self.own.boot, term, index, rests: false };
        Hello { standing: Some(standing), id: origin.id }
    }

    /// The other consenters, with those that are none any more as long as Raft counts them.
    pub(super) fn others(&self) -> BTreeSet<u64> {
        let own = [self.books.own_id(), self.id()];
        let (voters, learners) = self.members();
        let counted = voters.iter().chain(learners).copied().filter(|_| self.id().is_some());
        self.books.ids().0.into_iter().chain(counted).filter(|id| !own.contains(&Some(*id))).collect()
    }

    /// The consenters to whom a hello is due. Without an id all are asked again: one of them will know it one day.
    pub(super) fn unaware(&self) -> Vec<u64> {
        if self.own.phase == Phase::Unassigned {
            return self.others().into_iter().collect();
        }
        self.others().difference(&self.own.accepted).copied().collect()
    }

    /// Whether this node leads, or has heard from its leader of late. One without a vote never asks for an election, and holds on to a leader that is none any more.
    pub(crate) fn is_led(&self) -> bool {
        match self.leadership() {
            Leadership::Nobody => false,
            Leadership::Own => true,
            Leadership::Other(id) => self.is_active(id),
        }
    }

    /// A way to this consenter was opened: it may not have heard the last hello. Also one that accepted this node is greeted: its disk may have been set back
    /// to a copy that does not know this node, and then it hears of it before it takes part.
    pub(crate) fn reached(&mut self, id: u64) {
        self.hear_of_rest(id, false);
        self.greetings.insert(id);
    }

    /// Time passes for a node that does not take part yet. Whether Raft's clock runs.
    pub(super) fn tick_admission(&mut self) -> Result<bool, MachineError> {
        self.ticks += 1;
        self.own.lone_ticks = self.own.lone_ticks.saturating_sub(1);
        if self.ticks.is_multiple_of(HELLO_TICKS) {
            self.greetings.extend(self.unaware());
        }
        // Who accepted this node long ago may know better by now: that it was removed, and added again under another id.
        if self.ticks.is_multiple_of(DOUBT_TICKS) && !self.is_led() {
            self.greetings.extend(self.others());
        }
        if let Phase::Asking { ticks } = &mut self.own.phase {
            *ticks = ticks.saturating_sub(1);
            if *ticks == 0 && self.may_go_on() {
                info!("not all other consenters have answered; this node takes part");
                self.own.phase = Phase::Member;
            }
        }
        if !self.own.takes_part() && self.is_alone() {
            self.consider()?;
        }
        Ok(self.own.takes_part())
    }

    /// Another consenter says hello; the caller knows by its certificate that it has the Raft id `from`.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub(crate) fn hear(&mut self, from: u64, hello: &Hello) -> Result<Verdict, MachineError> {
        let said = hello.standing.unwrap_or_default();
        self.woken_by(from);
        let mut verdict = Verdict {
            incarnation: said.incarnation,
            boot: said.boot,
            id: hello.id,
            history: self.books.height() > 1 || !self.roster.owners.is_empty(),
            ..Verdict::default()
        };
        let known_boot = self.log().memory().boot(if hello.id == 0 { from } else { hello.id });
        let finding = self.find(from, hello, &mut verdict);
        verdict.set_finding(finding);
        self.node.mut_store().keep_memory(true)?;
        // A node that has just come up may not know this one yet, and one that came up from an older copy of its disk has forgotten that it
        // accepted it: then it would not hear this node's messages, though this one hears its. Answered once for each of its starts: two nodes that cannot
        // accept each other would otherwise greet each other without end.
        let is_new = self.own.greeted_back.insert(from, said.boot) != Some(said.boot);
        if is_new && known_boot != Some(said.boot) {
            self.own.accepted.remove(&from);
        }
        if is_new && !self.own.accepted.contains(&from) {
            self.greetings.insert(from);
        }
        Ok(verdict)
    }

    fn find(&mut self, from: u64, hello: &Hello, verdict: &mut Verdict) -> Finding {
        let incarnation = hello.standing.unwrap_or_default().incarnation;
        let id = if hello.id == 0 { from } else { hello.id };
        if id < from {
            return Finding::Replaced;
        }
        // A later id than the one known here: this node lags behind the log that gave it.
        if id > from && self.books.ids().0.contains(&id) {
            return Finding::Undecided;
        }
        let owner = self.roster.owners.get(&id).copied();
        if hello.id == 0 {
            let said = hello.standing.unwrap_or_default();
            if let Some(known) = self.log().memory().spoke_before(id, &said) {
                (verdict.term, verdict.index) = known.promised();
                return Finding::Regressed;
            }
            if owner == Some(incarnation) {
                verdict.id = id;
                return Finding::Assigned;
            }
            // It has an id meanwhile; this was said before.
            if self.log().memory().speaker(id) == Some(incarnation) {
                return Finding::Undecided;
            }
            let new = Knock { incarnation, since: self.ticks, hellos: 0 };
            let knock = self.knocks.entry(id).or_insert(new);
            if knock.incarnation != incarnation {
                *knock = new;
            }
            knock.hellos += 1;
        } else {
            self.knocks.remove(&id);
        }
        if owner.is_some_and(|owner| owner != incarnation) {
            return Finding::OtherIncarnation;
        }
        let (finding, known) = self.node.mut_store().memory_mut().hear(id, hello);
        if let Some(known) = known {
            (verdict.term, verdict.index) = known.promised();
        }
        finding
    }

    /// Another consenter answers this node's hello.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub(crate) fn judged(&mut self, from: u64, verdict: &Verdict) -> Result<(), MachineError> {
        let origin = self.log().origin();
        let is_late = verdict.finding() != Finding::Assigned && verdict.id != origin.id;
        if verdict.incarnation != origin.incarnation || verdict.boot != self.own.boot || is_late {
            return Ok(());
        }
        match verdict.finding() {
            Finding::Accepted => {
                self.own.accepted.insert(from);
                self.own.history |= verdict.history;
                self.consider()
            }
            Finding::Assigned if origin.id == 0 && verdict.id != 0 => {
                info!(id = verdict.id, "the other consenters have admitted this node");
                self.take_id(verdict.id)?;
                // Others may remember that this log, or one of which it is a copy, had the id before.
                self.own.phase = Phase::Asking { ticks: self.node.raft.election_timeout() };
                self.consider()
            }
            Finding::Assigned | Finding::Undecided => Ok(()),
            Finding::OtherIncarnation => self.objected(from, origin.id != 0, "spoke with another log before"),
            Finding::Replaced => self.objected(from, origin.id != 0, "was given another Raft id"),
            Finding::Regressed => {
                let (term, index) = self.own.start;
                let reason = format!(
                    "promised up to term {} and entry {} before, but its log ended at term {term} and entry {index}",
                    verdict.term, verdict.index
                );
                self.objected(from, true, &reason)
            }
        }
    }

    /// A log that made promises, or is a copy of one that did, is given up; one that never had an id stays as it is.
    fn objected(&mut self, from: u64, made_promises: bool, what: &str) -> Result<(), MachineError> {
        let reason = format!("consenter {from} remembers that this consenter {what}");
        if made_promises {
            return self.relapse(reason, true);
        }
        self.own.objection.get_or_insert(reason);
        Ok(())
    }

    /// Gives up the log: it cannot keep what was promised with it. When another consenter has told so, the channel went on without it, also when the books name nobody
    /// else.
    pub(super) fn relapse(&mut self, reason: String, is_told: bool) -> Result<(), MachineError> {
        error!(
            reason,
            "the Raft log of this node is older than its promises (an old backup, or another disk): it is given up, and this node asks to be \
             admitted anew"
        );
        self.begin_anew(is_told && self.books.own_id().is_some_and(|own| self.books.ids().0 == [own]))?;
        self.own.objection = Some(reason);
        Ok(())
    }

    /// Goes on when enough others have answered.
    pub(super) fn consider(&mut self) -> Result<(), MachineError> {
        let others = self.others();
        let accepted = others.intersection(&self.own.accepted).count();
        match self.own.phase {
            Phase::Member => Ok(()),
            Phase::Asking { .. } => {
                if accepted == others.len() && self.may_go_on() {
                    self.own.phase = Phase::Member;
                }
                Ok(())
            }
            Phase::Unassigned => {
                let is_first_start = self.books.height() == 1
                    && !self.own.history
                    && self.own.objection.is_none()
                    && accepted > others.len() / 2;
                match self.books.own_id() {
                    // A lone consenter has nobody to contradict, and its books hold all that it acknowledged, unless somebody says otherwise.
                    Some(id) if is_first_start || (others.is_empty() && self.may_go_on()) => self.take_id(id),
                    _ => Ok(()),
                }
            }
        }
    }

    /// Goes on as the only voter, with what is known of the others forgotten.
    pub(super) fn take_part_alone(&mut self, same_log: bool) -> Result<(), MachineError> {
        if !same_log {
            let boot = boot(self.node.mut_store().count_start()?, (self.settings.random)());
            self.own = Own::new(boot, self.log().promised(), true, Waits { election: 0, alone: 0 });
        }
        self.own.phase = Phase::Member;
        self.own.accepted.clear();
        self.own.objection = None;
        self.knocks.clear();
        self.heard.clear();
        self.aliases.clear();
        self.greetings.extend(self.unaware());
        Ok(())
    }

    fn take_id(&mut self, id: u64) -> Result<(), MachineError> {
        self.node.mut_store().assign(id)?;
        self.restart()?;
        self.own.phase = Phase::Member;
        // The others know the incarnation, but not that it has its id.
        self.own.accepted.clear();
        self.greetings.extend(self.unaware());
        Ok(())
    }
}
