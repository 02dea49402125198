//! A block whose transactions have been judged, except for their versions.

use std::{collections::BTreeMap, sync::Arc};

use consort_protos::{
    fabric::{common::Block, protos::TxValidationCode},
    ids::{BlockNumber, TxNumber},
    rwset::PrivateReadWriteSet,
    transaction::Transaction,
};

use crate::{error::Error, holdings::CollectionTerms, lookup::Lookup};

/// A block with one code per transaction: `Valid` so far, or why not. What the ledger commits.
///
/// Whoever builds one has checked form, signatures, endorsement policies and duplicate ids, also within the block.
#[derive(Debug)]
pub struct ValidatedBlock {
    number: BlockNumber,
    block: Block,
    transactions: Vec<Option<Arc<Transaction>>>,
    codes: Vec<TxValidationCode>,
    private: BTreeMap<TxNumber, PrivateReadWriteSet>,
    terms: BTreeMap<(String, String), CollectionTerms>,
    lookup: Option<Lookup>,
    data_checked: bool,
}

impl ValidatedBlock {
    /// Joins a block with its opened transactions (`None` for those that do not open) and their codes, in the block's order.
    ///
    /// # Errors
    /// [`Error::Headless`], [`Error::WrongCount`] when a transaction has no code or no place, [`Error::NotValidated`] when one was left out.
    pub fn new(
        block: Block,
        transactions: Vec<Option<Arc<Transaction>>>,
        codes: Vec<TxValidationCode>,
    ) -> Result<Self, Error> {
        let number = BlockNumber::new(block.header.as_ref().ok_or(Error::Headless)?.number);
        let count = block.data.as_ref().map_or(0, |data| data.data.len());
        for (given, what) in [(transactions.len(), "transactions"), (codes.len(), "codes")] {
            if given != count {
                return Err(Error::WrongCount { number, transactions: count, given, what });
            }
        }
        let unjudged = |(transaction, code): (&Option<_>, &TxValidationCode)| {
            *code == TxValidationCode::NotValidated
                || (*code == TxValidationCode::Valid && transaction.is_none())
        };
        match transactions.iter().zip(&codes).position(unjudged) {
            Some(transaction) => Err(Error::NotValidated { number, transaction }),
            None => Ok(Self {
                number,
                block,
                transactions,
                codes,
                private: BTreeMap::new(),
                terms: BTreeMap::new(),
                lookup: None,
                data_checked: false,
            }),
        }
    }

    /// Adds the private data that this peer got for the block, by transaction. Data of transactions that turn
    /// out invalid stays beside the block and does not reach the state.
    #[must_use]
    pub fn with_private(mut self, private: BTreeMap<TxNumber, PrivateReadWriteSet>) -> Self {
        self.private = private;
        self
    }

    /// Adds what the channel's definitions before the block say about the collections that it writes, by namespace and collection. A
    /// collection that is left out is taken for one that this peer is no member of, and whose values live for ever; of an invalid
    /// transaction it is not missed at all, because nobody is a member.
    #[must_use]
    pub fn with_terms(mut self, terms: BTreeMap<(String, String), CollectionTerms>) -> Self {
        self.terms = terms;
        self
    }

    /// Adds what was read to judge the block, so that the commit need not read it again. One of other transactions or of another
    /// height is not used.
    #[must_use]
    pub fn with_lookup(mut self, lookup: Lookup) -> Self {
        self.lookup = Some(lookup);
        self
    }

    /// Says that the header's hash of the data was compared with the data already, so that the commit need not hash it again.
    #[must_use]
    pub fn with_checked_data(mut self) -> Self {
        self.data_checked = true;
        self
    }

    /// Whether the data were compared with the header already.
    pub(crate) fn data_checked(&self) -> bool {
        self.data_checked
    }

    /// What was read to judge the block, if it serves at this height.
    pub(crate) fn take_lookup(&mut self, height: u64) -> Option<Lookup> {
        self.lookup.take().filter(|lookup| lookup.serves(height, &self.transactions, &self.codes))
    }

    /// What is said about a collection; `None` when nothing is.
    pub(crate) fn terms(&self, namespace: &str, collection: &str) -> Option<CollectionTerms> {
        self.terms.get(&(namespace.to_owned(), collection.to_owned())).copied()
    }

    /// The block's number.
    #[must_use]
    pub fn number(&self) -> BlockNumber {
        self.number
    }

    /// The block as it came.
    #[must_use]
    pub fn block(&self) -> &Block {
        &self.block
    }

    /// The opened transactions.
    #[must_use]
    pub fn transactions(&self) -> &[Option<Arc<Transaction>>] {
        &self.transactions
    }

    /// The codes so far.
    #[must_use]
    pub fn codes(&self) -> &[TxValidationCode] {
        &self.codes
    }

    /// The private data by transaction.
    #[must_use]
    pub fn private(&self) -> &BTreeMap<TxNumber, PrivateReadWriteSet> {
        &self.private
    }

    pub(crate) fn into_block(self) -> Block {
        self.block
    }
}
