//! Which transactions wrote a key, newest first.
//!
//! Only the places are stored; what was written stands in the blocks. Recorded are public writes of valid endorser transactions
//! (Fabric `core/ledger/kvledger/history`).

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use consort_protos::{
    fabric::{common::Block, queryresult::KeyModification},
    ids::{BlockNumber, Height, TxNumber},
    transaction::Transaction,
};

use crate::{
    block_store::BlockStore,
    database::{Change, Column, Database},
    error::Error,
    order::{prefix_end, push_part},
};

/// Places that are read from the index at a time.
const PAGE: usize = 64;

/// Adds a write of a key to what will be written with its block.
pub(crate) fn stage(namespace: &str, key: &str, place: Height, change: &mut Change<'_>) {
    let mut record = prefix(namespace, key);
    push_place(&mut record, place);
    change.put(Column::History, record, b"");
}

/// Whether a write of a key stands in the history.
pub(crate) fn contains(
    database: &Database,
    namespace: &str,
    key: &str,
    place: Height,
) -> Result<bool, Error> {
    let mut record = prefix(namespace, key);
    push_place(&mut record, place);
    database.contains(Column::History, &record)
}

fn prefix(namespace: &str, key: &str) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(namespace.len() + key.len() + 16);
    push_part(&mut prefix, namespace.as_bytes());
    push_part(&mut prefix, key.as_bytes());
    prefix
}

/// Inverted, so that later places sort first.
fn push_place(record: &mut Vec<u8>, place: Height) {
    record.extend_from_slice(&(!place.block.get()).to_be_bytes());
    record.extend_from_slice(&(!place.tx.get()).to_be_bytes());
}

fn split_place(bytes: &[u8]) -> Option<Height> {
    let (block, tx) = bytes.split_first_chunk::<8>()?;
    let tx: [u8; 4] = tx.try_into().ok()?;
    Some(Height::new(!u64::from_be_bytes(*block), !u32::from_be_bytes(tx)))
}

/// The modifications of one key, newest first. Borrows nothing, so that it can be kept between calls of a chaincode.
pub struct History {
    database: Arc<Database>,
    blocks: BlockStore,
    namespace: String,
    key: String,
    /// Where the next page of places begins; `None` after the last one.
    next: Option<Vec<u8>>,
    page: VecDeque<Height>,
    /// The block that was read last: often several places are in it.
    block: Option<(BlockNumber, Block)>,
}

impl History {
    /// The history of a key by blocks below `height`.
    pub(crate) fn of(
        database: Arc<Database>,
        blocks: BlockStore,
        namespace: &str,
        key: &str,
        height: BlockNumber,
    ) -> Self {
        let next = height.previous().map(|last| {
            let mut start = prefix(namespace, key);
            push_place(&mut start, Height { block: last, tx: TxNumber::new(u32::MAX) });
            start
        });
        Self {
            database,
            blocks,
            namespace: namespace.to_owned(),
            key: key.to_owned(),
            next,
            page: VecDeque::new(),
            block: None,
        }
    }

    fn fill(&mut self) -> Result<(), Error> {
        let Some(start) = self.next.take() else { return Ok(()) };
        let prefix = prefix(&self.namespace, &self.key);
        for record in self.database.scan(Column::History, &start, prefix_end(&prefix).as_deref()).take(PAGE) {
            let (mut record, _) = record?;
            let place = record.get(prefix.len()..).and_then(split_place);
            self.page.push_back(
                place.ok_or_else(|| Error::damaged("history", format!("{} bytes", record.len())))?,
            );
            if self.page.len() == PAGE {
                let mut after: Vec<u8> = std::mem::take(&mut record).into();
                after.push(0);
                self.next = Some(after);
            }
        }
        Ok(())
    }

    fn modification(&mut self, place: Height) -> Result<KeyModification, Error> {
        if self.block.as_ref().is_none_or(|(number, _)| *number != place.block) {
            let missing = || Error::damaged("history", format!("block {} is missing", place.block));
            self.block = Some((place.block, self.blocks.block(place.block)?.ok_or_else(missing)?));
        }
        let envelope =
            self.block.as_ref().and_then(|(_, block)| block.data.as_ref()?.data.get(place.tx.get() as usize));
        envelope
            .and_then(|envelope| read_modification(envelope, &self.namespace, &self.key))
            .ok_or_else(|| Error::damaged("history", format!("transaction {place} does not write the key")))
    }
}

fn read_modification(envelope: &Bytes, namespace: &str, key: &str) -> Option<KeyModification> {
    let transaction = Transaction::open(envelope.clone()).ok()?;
    let namespace = transaction.invocation()?.rwset.namespace(namespace)?;
    let write = namespace.writes.iter().rfind(|write| write.key == key)?;
    Some(KeyModification {
        tx_id: transaction.tx_id.clone(),
        value: write.value.clone(),
        timestamp: transaction.channel_header.timestamp,
        is_delete: write.is_delete,
    })
}

impl Iterator for History {
    type Item = Result<KeyModification, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty()
            && let Err(error) = self.fill()
        {
            return Some(Err(error));
        }
        let place = self.page.pop_front()?;
        Some(self.modification(place))
    }
}
