//! Blocks that come from other orderers by deliver: which are wanted, and what becomes of them.

use bytes::Bytes;
use raft::{GetEntriesContext, Storage as _};
use tracing::info;

use super::{
    disk::Disk,
    machine::{Books, Machine, MachineError},
};

/// What is read at once when entries are applied late, in bytes.
const READ_BYTES: u64 = 4 * 1024 * 1024;

/// What a delivered block says of itself.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) number: u64,
    pub(crate) previous_hash: Bytes,
    /// The entry as which it was agreed on, and the Raft ids of the consenters then.
    pub(crate) index: u64,
    pub(crate) ids: Vec<u64>,
}

/// What became of a block that another orderer delivered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fetched {
    /// It is in the books now, or was before.
    Taken,
    /// It is not the next block of this channel, and why; another orderer has to be asked.
    Refused(String),
}

/// Why a fetched block could not be appended.
pub(crate) enum NotAppended {
    /// The block is at fault.
    Wrong(String),
    /// The books are: they can no longer be written.
    Broken(String),
}

impl<D: Disk, B: Books> Machine<D, B> {
    /// The last block that has to come from other orderers, if any has to. A node that is `doubted`, because others do not take it for a consenter or are none in
    /// its eyes, wants whatever they have while it knows no leader: it may lack a configuration. One that leads alone wants it when somebody whom it does not know
    /// has introduced himself of late (`is_called`), and one that must not go on alone, always.
    pub(crate) fn wanted(&self, is_doubted: bool, is_called: bool) -> Option<u64> {
        let is_wanted = match self.is_led() {
            false => is_doubted || is_called || self.is_superseded(),
            true => is_called && self.is_alone(),
        };
        self.behind.or_else(|| is_wanted.then_some(u64::MAX))
    }

    /// Takes a block that another orderer offers, with the functions that check it and put it into the books.
    ///
    /// # Errors
    /// When the log or the books can no longer be written.
    pub(crate) fn take_fetched(
        &mut self,
        offer: &Offer,
        check: impl FnOnce(&B) -> Result<(), String>,
        append: impl FnOnce(&mut B) -> Result<(), NotAppended>,
    ) -> Result<Fetched, MachineError> {
        if offer.number < self.books.height() {
            return Ok(Fetched::Taken);
        }
        if offer.number > self.books.height() {
            return Ok(Fetched::Refused(format!("block {} was wanted", self.books.height())));
        }
        // What it says of its index counts only once it is known who says so.
        if let Err(reason) = check(&self.books) {
            return Ok(Fetched::Refused(reason));
        }
        if self.behind.is_none() && self.is_alone() {
            if self.is_of_given_up_history(&offer.ids) {
                return Ok(Fetched::Refused("it is of the history that an operator gave up".to_owned()));
            }
            self.offered_while_alone(offer)?;
        }
        self.fetching(offer.index)?;
        match append(&mut self.books) {
            Ok(()) => self.fetched().map(|()| Fetched::Taken),
            Err(NotAppended::Wrong(reason)) => Ok(Fetched::Refused(reason)),
            Err(NotAppended::Broken(reason)) => Err(MachineError::Books(reason)),
        }
    }

    /// A block that was fetched comes into the books next. While nothing is missing before the log's beginning, it comes from beyond the log's end.
    fn fetching(&mut self, index: u64) -> Result<(), MachineError> {
        if self.behind.is_none() {
            self.sync_books()?;
            self.node.mut_store().raise_floor(index)?;
        }
        Ok(())
    }

    /// A block that was fetched is in the books; goes on with the log when it was the last one that was missing.
    fn fetched(&mut self) -> Result<(), MachineError> {
        let height = self.books.height();
        if self.behind.is_none_or(|last| height <= last) {
            return Ok(());
        }
        self.behind = None;
        self.caught_up();
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
}
