//! Going on after a majority of the consenters has lost its memory, or never came: by the word of an operator, because no node can know it.
//!
//! A channel whose majority forgot stands still for good: whatever the others would decide could contradict what was acknowledged. An operator who
//! knows that the memory is lost, and not only out of reach, names the one orderer that goes on. It becomes the only voter, with its books and with what
//! its log holds behind them. All other consenters get fresh Raft ids: who lost its log is admitted as a newcomer, and who still has one is told that its
//! id was replaced and gives it up, because it counts members that are no more. The log begins anew at that place, so that whoever joins starts from a
//! snapshot and never sees the members of before.
//!
//! What was acknowledged and is nowhere but in the lost logs is lost. Source of the procedure: etcd's documentation, "Disaster recovery"
//! (a new cluster from one member); Fabric has none.

use prost::Message as _;
use raft::{Storage as _, eraftpb::Snapshot};
use tracing::error;

use super::{
    disk::Disk,
    log::{Origin, Position},
    machine::{Books, Machine, MachineError},
    roster::Roster,
};
use crate::consensus::Leadership;

impl<D: Disk, B: Books> Machine<D, B> {
    /// Makes this node the only voter. The inner answer says why not, in words for an operator; then nothing has changed.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub(crate) fn recover(&mut self) -> Result<Result<(), String>, MachineError> {
        let own = match self.place_to_recover() {
            Ok(own) => own,
            Err(reason) => return Ok(Err(reason)),
        };
        self.sync_books()?;
        self.node.mut_store().keep_memory(true)?;
        let covers_books = self.books.last_index() <= self.log().last();
        let keeps_log = self.id() == Some(own) && self.applied > 0 && covers_books;
        let (origin, beginning) = match keeps_log {
            true => self.behind_own_log(own)?,
            false => self.behind_books(own),
        };
        error!(
            id = origin.id,
            keeps_log,
            height = self.books.height(),
            "an operator had the channel go on with this orderer alone; what only lost logs held is lost, and the other consenters are admitted anew"
        );
        self.log().begin_at(origin, &beginning)?;
        self.restart()?;
        self.take_part_alone(keeps_log)?;
        self.campaign();
        Ok(Ok(()))
    }

    /// The id of this node's consenter, when the channel can be recovered from here.
    fn place_to_recover(&self) -> Result<u64, String> {
        let own = self.books.own_id().ok_or("this orderer is no consenter of the channel")?;
        if self.behind.is_some() {
            return Err("this orderer lacks blocks that were agreed on: recover from another one".to_owned());
        }
        if self.leadership() != Leadership::Nobody {
            return Err("the channel has a leader".to_owned());
        }
        let voters = self.members().0;
        let connected = voters.iter().filter(|id| self.is_active(**id)).count();
        if self.own.takes_part() && connected > voters.len() / 2 {
            return Err(format!(
                "{connected} of {} consenters are connected: they elect a leader by themselves",
                voters.len()
            ));
        }
        Ok(own)
    }

    /// The log goes on behind what is in the books, fetched blocks included: its last entries may be all that is left of something acknowledged.
    fn behind_own_log(&self, own: u64) -> Result<(Origin, Snapshot), MachineError> {
        let origin = Origin { fresh_from: self.next_id(), ..self.log().origin() };
        let index = self.applied.max(self.books.last_index());
        let term = self.log().term(index)?;
        Ok((origin, self.beginning(index, term, own, own, origin.incarnation)))
    }

    /// There is no log that goes with the books: a new one begins behind them.
    fn behind_books(&mut self, own: u64) -> (Origin, Snapshot) {
        let incarnation = (self.settings.random)();
        let id = self.next_id();
        let index = self.books.last_index().max(self.log().last()) + 1;
        let term = self.node.raft.term.max(1);
        let floor = self.books.last_index();
        let origin = Origin { incarnation, id, floor, fresh_from: id + 1, ..Origin::default() };
        (origin, self.beginning(index, term, own, id, incarnation))
    }

    /// The next id that was given to nobody.
    fn next_id(&self) -> u64 {
        self.books.ids().1.max(self.roster.next_id)
    }

    /// A beginning at which `own` is the only voter, as `id`, and all others have ids that nobody had.
    fn beginning(&self, index: u64, term: u64, own: u64, id: u64, incarnation: u64) -> Snapshot {
        let mut next_id = self.next_id().max(id + 1);
        let ids = self.books.ids().0.into_iter().map(|other| {
            if other == own {
                return id;
            }
            next_id += 1;
            next_id - 1
        });
        let ids = ids.collect();
        let roster = Roster { ids, next_id, owners: [(id, incarnation)].into() };
        let position = Position { block: self.books.height() - 1, roster };
        let mut beginning = Snapshot { data: position.encode_to_vec(), ..Snapshot::default() };
        let metadata = beginning.mut_metadata();
        (metadata.index, metadata.term) = (index, term);
        metadata.mut_conf_state().voters = vec![id];
        beginning
    }
}
