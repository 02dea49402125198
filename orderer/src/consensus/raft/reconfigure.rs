//! From the consenters that were agreed on to Raft's members, one change at a time.
//!
//! The roster says who the consenters are: the configuration blocks change it, and so does the admission of a node that lost its log. The leader compares it with
//! Raft's members and proposes the next step. A node that comes is a learner until it has caught up, so that it never stands
//! in a quorum that it cannot serve. Source of the rule on one change at a time: the Raft dissertation, section 4.

use std::collections::BTreeSet;

use protobuf::Message as _;
use raft::{
    ProgressState, StateRole,
    eraftpb::{ConfChange, ConfChangeType, ConfState, Entry},
};
use tracing::{debug, info, warn};

use crate::submission::{Refusal, Submission};

use super::{
    admission::{HELLO_TICKS, Knock},
    disk::Disk,
    machine::{Books, Machine, MachineError},
    roster::RosterChange,
};

/// A learner that lacks at most so many entries can vote: it will have them within a message or two.
const CLOSE_ENTRIES: u64 = 16;

/// How long a node without an id may ask before it is admitted with a fresh one, in election timeouts: at the first start of a channel it is about
/// to take the id of its place.
const PATIENCE_ELECTIONS: u64 = 3;

/// The next step towards the roster.
#[derive(Debug, PartialEq)]
enum Step {
    Roster(RosterChange),
    Member(ConfChangeType, u64),
    /// This node is none of the consenters any more: another one must lead.
    HandOver,
}

impl<D: Disk, B: Books> Machine<D, B> {
    /// Proposes the next step, when this node leads and none is under way.
    pub(super) fn reconfigure(&mut self) {
        let under_way = self.node.raft.has_pending_conf() || self.change_index > self.applied;
        if !self.leads() || under_way {
            return;
        }
        let Some(step) = self.next_step() else { return };
        let proposed = match &step {
            Step::Roster(change) => self.node.propose(prost::Message::encode_to_vec(change), Vec::new()),
            Step::Member(kind, id) => {
                let mut change = ConfChange::default();
                change.set_change_type(*kind);
                change.node_id = *id;
                self.node.propose_conf_change(Vec::new(), change)
            }
            Step::HandOver => {
                self.hand_over();
                return;
            }
        };
        match proposed {
            Ok(()) => {
                info!(?step, "a change of the consenters is proposed");
                self.change_index = self.node.raft.raft_log.last_index();
            }
            Err(error) => debug!(%error, "a change of the consenters could not be proposed"),
        }
    }

    fn next_step(&self) -> Option<Step> {
        self.leaving().or_else(|| self.owning()).or_else(|| self.knocking()).or_else(|| self.joining())
    }

    /// Whether a step is due, or will be when a node has knocked for long enough.
    pub(super) fn is_change_due(&self) -> bool {
        let is_unanswered = |(id, knock): (&u64, &Knock)| {
            self.roster.ids.contains(id) && !self.roster.is_owned_by(*id, knock.incarnation)
        };
        self.knocks.iter().any(is_unanswered) || self.next_step().is_some()
    }

    fn is_member(&self, id: u64) -> bool {
        let (voters, learners) = self.members();
        voters.contains(&id) || learners.contains(&id)
    }

    /// A configuration removed this node, and another one added it again, under another id.
    pub(super) fn is_readded(&self) -> bool {
        let Some((id, own)) = self.id().zip(self.books.own_id()) else { return false };
        own > id && !self.is_member(id)
    }

    /// Whether this node, when it is none of Raft's members any more, is still needed: the others may not know that its removal was agreed on. One that led when
    /// it was agreed on has told nobody yet, and nobody else may know after a crash; they then need its vote once more to find out. It has done its part when all
    /// voters have answered, or another leader has said so. Who is refused by the others need not wait for either: they do not count it.
    fn is_needed(&self) -> bool {
        let (raft, (_, changed_at)) = (&self.node.raft, self.log().roster());
        if raft.state != StateRole::Leader {
            return self.told_commit < changed_at;
        }
        let voters = self.members().0;
        raft.prs().iter().any(|(id, progress)| {
            *id != raft.id && voters.contains(id) && progress.committed_index < changed_at
        })
    }

    /// Whether the configuration names this node no more, and nobody needs it: it has heard in the log from somebody who goes on that Raft does not count it, or most
    /// consenters do not take it for one (`doubters`). One of them alone may be an old copy that knows nobody.
    pub(crate) fn is_removed(&self, doubters: &BTreeSet<u64>) -> bool {
        if self.books.own_id().is_some() {
            return false;
        }
        let (consenters, _) = self.books.ids();
        let doubting = consenters.iter().filter(|id| doubters.contains(id)).count();
        let is_counted = self.id().is_some_and(|id| self.is_member(id));
        doubting > consenters.len() / 2 || !is_counted && !self.is_needed()
    }

    /// A member that is no consenter any more.
    fn leaving(&self) -> Option<Step> {
        let (voters, learners) = self.members();
        let gone = voters.iter().chain(learners).copied().filter(|id| !self.roster.ids.contains(id));
        // Those that do not answer first: the others are needed to agree on it.
        let gone = gone.min_by_key(|id| (self.is_active(*id), *id))?;
        if gone == self.node.raft.id {
            // As long as nobody can follow, the consenters that are joining come first.
            return self.successor().map(|_| Step::HandOver);
        }
        Some(Step::Member(ConfChangeType::RemoveNode, gone))
    }

    /// An id that is in use and whose owner is not in the log yet.
    fn owning(&self) -> Option<Step> {
        let own = self.log().origin();
        self.roster.ids.iter().filter(|id| !self.roster.owners.contains_key(id)).find_map(|id| {
            let speaker =
                if *id == own.id { Some(own.incarnation) } else { self.log().memory().speaker(*id) };
            speaker.map(|incarnation| Step::Roster(RosterChange::own(*id, incarnation)))
        })
    }

    /// A node that asks for an id. One that was just configured, and has never been a member, owns the id that it was given. Any other may have
    /// made promises under its id with another log.
    fn knocking(&self) -> Option<Step> {
        let patience = PATIENCE_ELECTIONS * self.node.raft.election_timeout() as u64;
        self.knocks.iter().find_map(|(id, knock)| {
            if !self.roster.ids.contains(id) || self.roster.is_owned_by(*id, knock.incarnation) {
                return None;
            }
            let owned = self.roster.owners.contains_key(id);
            if !owned && *id > self.genesis_consenters && !self.is_member(*id) {
                return Some(Step::Roster(RosterChange::own(*id, knock.incarnation)));
            }
            let has_waited = self.ticks >= knock.since + patience && knock.hellos >= patience / HELLO_TICKS;
            (owned || has_waited).then(|| Step::Roster(RosterChange::readmit(*id, knock.incarnation)))
        })
    }

    /// A consenter that is not a member yet, or a learner that has caught up.
    fn joining(&self) -> Option<Step> {
        let committed = self.node.raft.raft_log.committed;
        self.roster.ids.iter().find_map(|id| {
            if !self.is_member(*id) {
                let is_owned = self.roster.owners.contains_key(id);
                return is_owned.then_some(Step::Member(ConfChangeType::AddLearnerNode, *id));
            }
            if !self.members().1.contains(id) {
                return None;
            }
            let progress = self.node.raft.prs().get(*id)?;
            // Replicating: it has acknowledged what comes before, and does not wait for a snapshot.
            let is_close = self.is_active(*id)
                && progress.state == ProgressState::Replicate
                && progress.matched + CLOSE_ENTRIES >= committed;
            is_close.then_some(Step::Member(ConfChangeType::AddNode, *id))
        })
    }

    /// Applies an agreed change of the roster.
    pub(super) fn apply_roster_change(&mut self, entry: &Entry) -> Result<(), MachineError> {
        let Ok(change) = <RosterChange as prost::Message>::decode(entry.context.as_ref()) else {
            warn!(index = entry.index, "an entry is no change of the consenters, it is skipped");
            return Ok(());
        };
        if entry.index <= self.log().roster().1 || !self.roster.apply(&change) {
            return Ok(());
        }
        info!(?change, ids = ?self.roster.ids, "the consenters have changed");
        if entry.index > self.books.last_index() {
            self.books.set_ids(&self.roster.ids, self.roster.next_id);
        }
        self.keep_consenters(entry.index, None)?;
        self.roster_changed();
        let own = self.log().origin();
        self.replaced |= own.id != 0 && !self.roster.ids.contains(&own.id) && change.id == own.id;
        Ok(())
    }

    /// Follows a configuration block that is in the books.
    pub(super) fn follow_configuration(&mut self, index: u64, number: u64) -> Result<(), MachineError> {
        if index <= self.log().roster().1 {
            return Ok(());
        }
        let (ids, next_id) = self.books.ids_of(number).map_err(MachineError::Books)?;
        if self.roster.follow(&ids, next_id) {
            info!(ids = ?self.roster.ids, "the consenters have changed by configuration");
            self.keep_consenters(index, None)?;
            self.roster_changed();
        }
        Ok(())
    }

    /// Keeps the consenters as they are behind an entry. The books are on disk before it: what is noted stands upon their blocks.
    fn keep_consenters(&mut self, index: u64, state: Option<&ConfState>) -> Result<(), MachineError> {
        self.sync_books()?;
        Ok(self.node.mut_store().set_consenters(index, &self.roster, state)?)
    }

    fn roster_changed(&mut self) {
        let roster = &self.roster;
        self.knocks.retain(|id, _| roster.ids.contains(id));
        self.node.mut_store().memory_mut().retain(|id| roster.ids.contains(&id) || id >= roster.next_id);
    }

    /// Applies an agreed change of Raft's members.
    pub(super) fn apply_member_change(&mut self, entry: &Entry) -> Result<(), MachineError> {
        if entry.index <= self.log().roster().1 {
            return Ok(());
        }
        let mut change = ConfChange::default();
        if change.merge_from_bytes(&entry.data).is_err() || change.node_id == 0 {
            warn!(index = entry.index, "an entry is no change of members, it is skipped");
            return Ok(());
        }
        // What does not fit is refused by all alike, for all have the same members here.
        match self.node.apply_conf_change(&change) {
            Ok(state) => {
                info!(voters = ?state.voters, learners = ?state.learners, "Raft's members have changed");
                self.keep_consenters(entry.index, Some(&state))?;
            }
            Err(error) => warn!(%error, "a change of Raft's members is refused"),
        }
        Ok(())
    }

    /// Whether this node has heard from a consenter within the last election timeout.
    pub(super) fn is_active(&self, id: u64) -> bool {
        let timeout = self.node.raft.election_timeout() as u64;
        id == self.node.raft.id || self.heard.get(&id).is_some_and(|heard| heard + timeout >= self.ticks)
    }

    /// Whether a configuration leaves a majority of voters that answer: of the consenters that it names, and of those that Raft counts now.
    pub(super) fn check_change(&self, config: &Submission) -> Result<(), Refusal> {
        self.check_change_by(config, |id| self.is_active(id))
    }

    /// The same, if these answer.
    pub(super) fn check_change_by(
        &self,
        config: &Submission,
        answers: impl Fn(u64) -> bool,
    ) -> Result<(), Refusal> {
        let active: Vec<u64> = self.roster.ids.iter().copied().filter(|id| answers(*id)).collect();
        let Some(gone) = self.books.check_quorum(config, &active)? else { return Ok(()) };
        let stay: Vec<u64> = self.members().0.iter().copied().filter(|id| *id != gone).collect();
        let alive = stay.iter().filter(|id| answers(**id)).count();
        if stay.is_empty() || alive > stay.len() / 2 {
            return Ok(());
        }
        Err(Refusal::bad_request(format!(
            "{alive} out of {} nodes that vote are alive, configuration will result in quorum loss: wait until the consenters that are being \
             admitted have caught up",
            stay.len()
        )))
    }

    /// The consenters that this leader has heard from, itself among them.
    pub(crate) fn active(&self) -> Vec<u64> {
        self.roster.ids.iter().copied().filter(|id| self.is_active(*id)).collect()
    }

    /// The most advanced other voter that stays a consenter.
    fn successor(&self) -> Option<u64> {
        let (raft, voters) = (&self.node.raft, self.members().0);
        let stays = |id: u64| id != raft.id && voters.contains(&id) && self.roster.ids.contains(&id);
        let others = raft.prs().iter().filter(|(id, _)| stays(**id));
        others.max_by_key(|(id, progress)| (self.is_active(**id), progress.matched, **id)).map(|(id, _)| *id)
    }

    /// Asks the most advanced voter that stays a consenter to lead.
    pub(crate) fn hand_over(&mut self) {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader {
            return;
        }
        if let Some(id) = self.successor() {
            self.node.transfer_leader(id);
        }
    }
}
