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

    /// Finds out which ids of a block's transactions are here already; `None` for those without a readable id.
    pub(crate) fn look_up(&self, ids: impl Iterator<Item = Option<String>>) -> Result<KnownIds, Error> {
        let keys: Vec<Option<Vec<u8>>> =
            ids.map(|id| id.filter(|id| !id.is_empty()).map(|id| key(&id))).collect();
        let mut order: Vec<usize> = (0..keys.len()).filter(|&index| keys[index].is_some()).collect();
        // The sort is stable: of several with one id the first stays in front.
        order.sort_by(|&a, &b| keys[a].cmp(&keys[b]));
        let mut first = order.clone();
        first.dedup_by(|later, earlier| keys[*later] == keys[*earlier]);
        let known = self.database.contains_sorted(
            Column::Transactions,
            first.iter().filter_map(|&index| keys[index].as_deref()),
        )?;
        let mut ids = KnownIds { known: vec![false; keys.len()], new: vec![false; keys.len()], keys };
        let mut asked = first.iter().zip(&known).peekable();
        let mut found = false;
        for index in order {
            if let Some((_, known)) = asked.next_if(|(first, _)| **first == index) {
                found = *known;
                ids.new[index] = !found;
            }
            ids.known[index] = found;
        }
        Ok(ids)
    }
}

/// Which ids of a block's transactions the index holds already.
#[derive(Debug)]
pub(crate) struct KnownIds {
    /// Stored form of the ids; `None` where there is none.
    keys: Vec<Option<Vec<u8>>>,
    known: Vec<bool>,
    /// Not known, and not that of an earlier transaction of the block.
    new: Vec<bool>,
}

impl KnownIds {
    /// Whether the index holds the id of a transaction.
    pub(crate) fn is_known(&self, index: usize) -> bool {
        self.known.get(index).copied().unwrap_or(false)
    }

    /// Adds what is new to what will be written with the block.
    pub(crate) fn stage(&self, block: BlockNumber, codes: &[TxValidationCode], change: &mut Change<'_>) {
        for (((key, new), code), tx) in self.keys.iter().zip(&self.new).zip(codes).zip(0_u32..) {
            if let (Some(key), true) = (key, new) {
                let mut place = [0; 13];
                place[..8].copy_from_slice(&block.get().to_be_bytes());
                place[8..12].copy_from_slice(&tx.to_be_bytes());
                place[12] = code_byte(*code);
                change.put(Column::Transactions, key, place);
            }
        }
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
