//! A node that knows of no other consenter: nobody is left whom it could ask whether its disk is an old copy.
//!
//! A channel may begin with one orderer and grow. A copy of that orderer's disk from its first days, or an empty disk with the genesis block, names this orderer
//! alone, and by itself looks like the disk of an orderer that was always alone. It cannot ask; so it lets itself be told.
//!
//! # The rule
//!
//! * Whoever could lead with nobody's consent (the books name no other consenter, or Raft counts no other voter) waits for [`LONE_WAIT`] at each start before it
//!   takes part, also when its log is new: an empty disk that is joined by the genesis block looks like a new channel.
//! * Every consenter keeps a stream to every consenter of its configuration, tries again half a second after an attempt has failed, and says hello first.
//!   One that is refused as unknown **introduces** itself ([`super::introduction`]): it finds out where the blocks here end, or part from its own, and shows
//!   the first one that is missing here.
//! * That block is proof when it links to the books and satisfies their own rule for blocks: a lone consenter makes all blocks itself, so it made
//!   this one, and has forgotten it. Nobody else's word counts, whatever configuration he shows.
//! * With the proof the log is given up, on disk, before anything else: this node never goes on alone with it again, whatever crashes and whoever is out of reach
//!   afterwards. It fetches the blocks from where the caller's configuration says that they are, judges each by the rule in force before it, learns from them who the
//!   others are, and asks to be admitted anew ([`super::admission`]). The same proof counts while it leads alone.
//! * When the books have another block in the place of that one, the node had gone on alone and the channel was forked here. The channel then
//!   stops on this node for good and says so. It is left and joined again by an operator.
//!
//! Who cannot sign blocks for the channel cannot make it do anything: a stranger learns how many blocks it has, and no more. Who can (the policy `BlockValidation`:
//! as usual, each member of an organisation that runs orderers) is believed, as he is by peers. An operator who knows better has the last word: after
//! `recover` ([`super::recovery`]) the node goes on alone with what it has.
//!
//! # What this guarantees
//!
//! An old copy does not order anything if one consenter that the present configuration names reaches it within [`LONE_WAIT`] of its start. If
//! none does (all others are down, or a partition lies between them and it), nothing distinguishes it from an orderer that was always alone and restarts: it goes on.
//! Then the first consenter that reaches it later stops it, and what it had ordered alone is on no other node: the others have another block with each of these
//! numbers, and peers that have theirs refuse blocks that do not link to them. Nothing calls an orderer that the present configuration does not name.

use std::time::Duration;

use tracing::{error, info, warn};

use super::{
    catch_up::Offer,
    disk::Disk,
    machine::{Books, Machine, MachineError},
};
/// How long a node that knows of no other consenter waits for one that knows of it. In this time [`super::transport`] tries twice or more to reach it: once a
/// second while nothing answers, every half second when it is refused.
pub(super) const LONE_WAIT: Duration = Duration::from_secs(2);

/// So many times longer a node waits that knows only former consenters, once per start, when another one has shown that there are more blocks: they must come in
/// this time.
const HEARD_WAITS: usize = 5;

/// How a consenter introduces itself that the configuration here does not name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Introduction {
    /// The first of its blocks that is not in the books here.
    pub(crate) number: u64,
    /// The Raft ids of the consenters then, and as of the newest configuration that it has.
    pub(crate) ids: Vec<u64>,
    pub(crate) evidence: Evidence,
}

/// What that block says about the books here, with which it shares all blocks before it, and whose rule its signatures satisfy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// It continues them.
    Proof,
    /// They have another block with this number.
    Contradiction,
}

/// The ticks of [`LONE_WAIT`]. The first tick comes at once.
pub(super) fn lone_ticks(tick: Duration) -> usize {
    let ticks = LONE_WAIT.as_nanos().div_ceil(tick.as_nanos().max(1));
    usize::try_from(ticks).unwrap_or(usize::MAX).saturating_add(1)
}

impl<D: Disk, B: Books> Machine<D, B> {
    /// Whether this node could lead with nobody's consent.
    pub(crate) fn is_alone(&self) -> bool {
        let is_only_voter = self.id().is_some_and(|id| self.members().0 == [id]);
        is_only_voter || (self.books.own_id().is_some() && self.others().is_empty())
    }

    /// Raft's members as far as they matter to this node: those of a new log that has no id are the ones of the first block, whom the books may have left behind.
    pub(crate) fn counted(&self) -> Vec<u64> {
        if self.id().is_none() && self.is_alone() {
            return Vec::new();
        }
        let (voters, learners) = self.members();
        voters.iter().chain(learners).copied().collect()
    }

    /// Whether nothing speaks against that any more.
    pub(super) fn may_go_on(&self) -> bool {
        !self.is_alone() || (self.own.lone_ticks == 0 && !self.is_superseded())
    }

    /// Whether this node knows that it must not go on alone, or knows of others by now.
    #[cfg(test)]
    pub(crate) fn must_not_go_on(&self) -> bool {
        !self.is_alone() || self.log().origin().superseded
    }

    /// Whether blocks are known to be elsewhere that say who the others are, and are not here yet.
    pub(super) fn is_superseded(&self) -> bool {
        self.log().origin().superseded && self.is_alone()
    }

    /// A consenter whom the configuration here does not name says what it has. Whether blocks should be asked for where it says that they are.
    ///
    /// # Errors
    /// When the log cannot be written, or the channel went on without this node and this node without it.
    pub(crate) fn introduced(&mut self, introduction: &Introduction) -> Result<bool, MachineError> {
        if !self.is_alone() {
            // Those whom it knows remember what it promised. It gives the caller's blocks the time to say who else does.
            if introduction.evidence == Evidence::Proof {
                self.wait_for_blocks();
            }
            return Ok(!self.is_led());
        }
        if self.is_of_given_up_history(&introduction.ids) {
            return Ok(false);
        }
        match introduction.evidence {
            Evidence::Proof => self.supersede(introduction.number)?,
            Evidence::Contradiction => return self.contradicted(introduction.number).map(|()| true),
        }
        Ok(true)
    }

    /// Once per start, a node that does not take part yet waits longer.
    fn wait_for_blocks(&mut self) {
        if self.own.takes_part() || std::mem::replace(&mut self.own.was_called, true) {
            return;
        }
        info!(
            "a consenter that the configuration here does not name has more blocks: this node waits for them"
        );
        let ticks = HEARD_WAITS.saturating_mul(lone_ticks(self.books.raft_options().tick_interval));
        self.own.wait_at_least(ticks);
    }

    /// A block is offered that another node made and that satisfies the rule for blocks here.
    pub(super) fn offered_while_alone(&mut self, offer: &Offer) -> Result<(), MachineError> {
        if offer.previous_hash != self.books.last_hash().as_slice() {
            return self.contradicted(offer.number);
        }
        self.supersede(offer.number)
    }

    fn supersede(&mut self, number: u64) -> Result<(), MachineError> {
        if self.log().origin().superseded {
            return Ok(());
        }
        let height = self.books.height();
        let reason = format!(
            "this node's disk names no other consenter and ends before block {height}, but others have block {number}: it is a copy from before they came"
        );
        error!(
            reason,
            "this node must not go on alone: its Raft log is given up, and it asks to be admitted anew"
        );
        self.begin_anew(true)?;
        self.own.object(reason);
        Ok(())
    }

    fn contradicted(&mut self, number: u64) -> Result<(), MachineError> {
        self.supersede(number)?;
        warn!(number, height = self.books.height(), "the others have another history");
        Err(MachineError::Forked { number })
    }

    /// Whether a block that names these ids was made by those with whose history an operator broke ([`super::recovery`]).
    pub(super) fn is_of_given_up_history(&self, ids: &[u64]) -> bool {
        let (fresh_from, own) = (self.log().origin().fresh_from, self.id());
        ids.iter().any(|id| *id < fresh_from && Some(*id) != own)
    }
}
