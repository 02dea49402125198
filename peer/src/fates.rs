//! Who waits for the fate of which transaction.
//!
//! A block wakes those whose transactions it holds, and nobody else: with a few hundred clients that wait, waking all of them for each block
//! costs more than looking up each transaction.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::ids::BlockNumber;
use tokio::sync::oneshot;

/// What became of a transaction: its code and its block.
pub(crate) type Fate = (TxValidationCode, BlockNumber);

/// The waiting, by transaction id.
#[derive(Debug, Default)]
pub(crate) struct Fates(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// Number of the next one who waits.
    next: u64,
    by_id: HashMap<String, Vec<(u64, oneshot::Sender<Fate>)>>,
}

/// One who waits; gone from the list when this is dropped.
pub(crate) struct Awaited<'a> {
    fates: &'a Fates,
    tx_id: &'a str,
    number: u64,
    /// What the next block that holds the transaction makes of it.
    pub(crate) fate: oneshot::Receiver<Fate>,
}

impl Fates {
    /// From now on a block that holds the transaction is heard of. Whoever waits looks into the books after this: the block may be there
    /// already.
    pub(crate) fn wait<'a>(&'a self, tx_id: &'a str) -> Awaited<'a> {
        let (sender, fate) = oneshot::channel();
        let mut waiting = self.waiting();
        waiting.next += 1;
        let number = waiting.next;
        waiting.by_id.entry(tx_id.to_owned()).or_default().push((number, sender));
        Awaited { fates: self, tx_id, number, fate }
    }

    /// Tells the waiting what a block made of its transactions.
    pub(crate) fn tell<'a>(
        &self,
        block: BlockNumber,
        outcomes: impl Iterator<Item = (&'a str, TxValidationCode)>,
    ) {
        let mut waiting = self.waiting();
        for (tx_id, code) in outcomes {
            if waiting.by_id.is_empty() {
                return;
            }
            for (_, sender) in waiting.by_id.remove(tx_id).into_iter().flatten() {
                // Whoever gave up waiting does not hear it.
                let _gone = sender.send((code, block));
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        let mut waiting = self.fates.waiting();
        let Some(same) = waiting.by_id.get_mut(self.tx_id) else { return };
        same.retain(|(number, _)| *number != self.number);
        if same.is_empty() {
            waiting.by_id.remove(self.tx_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_tells_those_who_wait_for_its_transactions_and_nobody_else() {
        let fates = Fates::default();
        let (mut first, mut second, mut other) = (fates.wait("a"), fates.wait("a"), fates.wait("b"));
        let outcomes = [("c", TxValidationCode::Valid), ("a", TxValidationCode::MvccReadConflict)];
        fates.tell(BlockNumber::new(7), outcomes.into_iter());
        let told = (TxValidationCode::MvccReadConflict, BlockNumber::new(7));
        assert_eq!((first.fate.try_recv(), second.fate.try_recv()), (Ok(told), Ok(told)));
        assert!(other.fate.try_recv().is_err());
    }

    #[test]
    fn whoever_stops_waiting_is_forgotten_and_the_others_are_not() {
        let fates = Fates::default();
        let (gone, mut stays) = (fates.wait("a"), fates.wait("a"));
        drop(gone);
        fates.tell(BlockNumber::new(1), std::iter::once(("a", TxValidationCode::Valid)));
        assert_eq!(stays.fate.try_recv(), Ok((TxValidationCode::Valid, BlockNumber::new(1))));
        drop(stays);
        assert!(fates.waiting().by_id.is_empty());
    }
}
