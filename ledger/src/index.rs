//! Where a transaction stands, by its id.

use std::sync::Arc;

use consort_protos::{
    fabric::protos::TxValidationCode,
    ids::{BlockNumber, Height},
};

use crate::{
    database::{Change, Column, Database},
    error::Error,
    order::push_number,
};

/// The place of a transaction in the chain.
pub type TxLocation = Height;

/// Finds transactions by id. The first transaction with an id is the one that counts: a later one with the same id is a duplicate.
#[derive(Clone)]
pub(crate) struct TransactionIndex {
    database: Arc<Database>,
}

impl TransactionIndex {
    pub(crate) fn over(database: Arc<Database>) -> Self {
        Self { database }
    }

    pub(crate) fn contains(&self, tx_id: &str) -> Result<bool, Error> {
        self.database.contains(Column::Transactions, &key(tx_id))
    }

    pub(crate) fn find(&self, tx_id: &str) -> Result<Option<(TxLocation, TxValidationCode)>, Error> {
        let Some(bytes) = self.database.read(Column::Transactions, &key(tx_id))? else { return Ok(None) };
        let damaged = || Error::damaged("transaction index", format!("{} bytes", bytes.len()));
        let (block, rest) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
        let (tx, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        let code = match rest {
            [code] => TxValidationCode::try_from(i32::from(*code)).map_err(|_| damaged())?,
            _ => return Err(damaged()),
        };
        Ok(Some((Height::new(u64::from_be_bytes(*block), u32::from_be_bytes(*tx)), code)))
    }

    /// Adds a block's transactions to what will be written with it; `None` for those without a readable id.
    pub(crate) fn stage(
        &self,
        block: BlockNumber,
        transactions: &[(Option<String>, TxValidationCode)],
        change: &mut Change<'_>,
    ) -> Result<(), Error> {
        let named = transactions
            .iter()
            .zip(0_u32..)
            .filter_map(|((id, code), tx)| Some((key(id.as_deref()?), tx, *code)));
        let mut named: Vec<_> = named.filter(|(key, _, _)| key.len() > 1).collect();
        // The sort is stable: of several with one id the first stays.
        named.sort_by(|a, b| a.0.cmp(&b.0));
        named.dedup_by(|later, earlier| later.0 == earlier.0);
        let known = self
            .database
            .read_sorted(Column::Transactions, named.iter().map(|(key, _, _)| key.as_slice()))?;
        for ((key, tx, code), known) in named.iter().zip(known) {
            if known.is_none() {
                let place =
                    [block.get().to_be_bytes().as_slice(), &tx.to_be_bytes(), &[code_byte(*code)]].concat();
                change.put(Column::Transactions, key, place);
            }
        }
        Ok(())
    }
}

/// The byte that stands for a code in a block's metadata.
pub(crate) fn code_byte(code: TxValidationCode) -> u8 {
    u8::try_from(code as i32).expect("invariant: Fabric's codes are numbered from 0 to 255")
}

/// Shorter ids sort first, as in Fabric's exported lists.
fn key(tx_id: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(tx_id.len() + 2);
    push_number(&mut key, tx_id.len() as u64);
    key.extend_from_slice(tx_id.as_bytes());
    key
}
