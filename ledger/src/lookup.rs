//! What judging one block needs of the books, read at once.

use std::sync::Arc;

use consort_protos::{fabric::protos::TxValidationCode, transaction::Transaction};

use crate::{
    Ledger, error::Error, index::KnownIds, ledger::transaction_id, mvcc::KnownState, state::VersionedValue,
};

/// What the books say about the transactions of the next block: whose ids they hold already, and the values of all keys that are
/// read or written. Reading these once serves the policies of keys as well as the version checks.
#[derive(Debug)]
pub struct Lookup {
    /// Height of the books that were asked.
    height: u64,
    transactions: Vec<Option<Arc<Transaction>>>,
    /// Whether the keys of a transaction were read.
    asked: Vec<bool>,
    ids: KnownIds,
    known: KnownState,
}

impl Ledger {
    /// Reads what judging the block after the last one needs. The keys of transactions that are invalid already, by their code or
    /// because the ledger holds their id, are not read.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn look_up(
        &self,
        transactions: &[Option<Arc<Transaction>>],
        codes: &[TxValidationCode],
    ) -> Result<Lookup, Error> {
        self.look_up_where(transactions, |index, known| {
            let repeated = || {
                known
                    && transactions[index]
                        .as_ref()
                        .is_some_and(|transaction| transaction.endorser().is_some())
            };
            codes.get(index) == Some(&TxValidationCode::Valid) && !repeated()
        })
    }

    /// Reads the keys of those transactions that are wanted, given their position and whether their id is known.
    pub(crate) fn look_up_where(
        &self,
        transactions: &[Option<Arc<Transaction>>],
        wanted: impl Fn(usize, bool) -> bool,
    ) -> Result<Lookup, Error> {
        let height = self.height();
        let ids = transactions.iter().map(|transaction| {
            transaction.as_deref().map(|transaction| transaction_id(transaction, self.hash_algorithm()))
        });
        let ids = self.index().look_up(ids)?;
        let asked: Vec<bool> =
            (0..transactions.len()).map(|index| wanted(index, ids.is_known(index))).collect();
        let known = KnownState::fetch(transactions, &asked, self.state())?;
        Ok(Lookup { height, transactions: transactions.to_vec(), asked, ids, known })
    }
}

impl Lookup {
    /// Whether the ledger holds the id of a transaction, given by its position in the block.
    #[must_use]
    pub fn is_known_id(&self, index: usize) -> bool {
        self.ids.is_known(index)
    }

    /// The committed value of a public key that a transaction of the block reads or writes.
    #[must_use]
    pub fn public(&self, namespace: &str, key: &str) -> Option<&VersionedValue> {
        self.known.public(namespace, key)
    }

    /// The committed hash of a private value that a transaction of the block reads or writes, by the hash of its key.
    #[must_use]
    pub fn hashed(&self, namespace: &str, collection: &str, key_hash: &[u8]) -> Option<&VersionedValue> {
        self.known.hashed(namespace, collection, key_hash)
    }

    /// Whether it holds everything that committing these transactions at this height needs.
    pub(crate) fn serves(
        &self,
        height: u64,
        transactions: &[Option<Arc<Transaction>>],
        codes: &[TxValidationCode],
    ) -> bool {
        let same =
            |(ours, theirs): (&Option<Arc<Transaction>>, &Option<Arc<Transaction>>)| match (ours, theirs) {
                (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
                (None, None) => true,
                _ => false,
            };
        self.height == height
            && self.transactions.len() == transactions.len()
            && self.transactions.iter().zip(transactions).all(same)
            && codes.iter().zip(&self.asked).all(|(code, asked)| *code != TxValidationCode::Valid || *asked)
    }

    pub(crate) fn into_parts(self) -> (KnownIds, KnownState) {
        (self.ids, self.known)
    }
}
