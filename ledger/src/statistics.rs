//! How large books are, and what is in them.

use std::collections::BTreeMap;

use consort_protos::fabric::protos::TxValidationCode;

use crate::{
    Ledger,
    database::Column,
    error::Error,
    missing,
    state::{KeyRange, Space, StateReader as _},
};

/// Missing private sets that are counted at most; who lacks more has other worries than their number.
const MISSING_COUNTED_MAX: usize = 100_000;

/// Numbers about a ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Blocks.
    pub height: u64,
    /// Number of the last configuration block.
    pub config_block: u64,
    /// Transactions with an id by code; a repeated id counts once.
    pub transactions: BTreeMap<String, u64>,
    /// Public keys by namespace.
    pub public_keys: BTreeMap<String, u64>,
    /// Hashed private keys by `namespace/collection`.
    pub hashed_keys: BTreeMap<String, u64>,
    /// Private keys that this peer holds, by `namespace/collection`.
    pub private_keys: BTreeMap<String, u64>,
    /// Private sets that this peer should hold and does not.
    pub missing_private: u64,
    /// Bytes on the disk by kind of record; what was written last is still in the write-ahead log and not counted.
    pub bytes: BTreeMap<&'static str, u64>,
}

impl Ledger {
    /// Counts. Reads the whole state and the index of transactions.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn statistics(&self) -> Result<Statistics, Error> {
        let mut counted = Statistics { height: self.height(), ..Statistics::default() };
        let config = self.last_config_block()?;
        counted.config_block = consort_protos::block::number(&config).get();
        for record in self.database().scan(Column::Transactions, &[], None) {
            let (_, value) = record?;
            let code = value.last().and_then(|code| TxValidationCode::try_from(i32::from(*code)).ok());
            let name = code.map_or("unknown", |code| code.as_str_name());
            *counted.transactions.entry(name.to_owned()).or_default() += 1;
        }
        let snapshot = self.snapshot();
        for (space, keys) in [
            (Space::Public, &mut counted.public_keys),
            (Space::Hashed, &mut counted.hashed_keys),
            (Space::Private, &mut counted.private_keys),
        ] {
            for entry in snapshot.scan(&KeyRange::all(space))? {
                let (key, _) = entry?;
                let name = match key.collection() {
                    None => key.namespace(),
                    Some(collection) => format!("{}/{collection}", key.namespace()),
                };
                *keys.entry(name).or_default() += 1;
            }
        }
        counted.missing_private = missing::after(self.database(), None, MISSING_COUNTED_MAX)?.len() as u64;
        for (name, columns) in [
            ("blocks", &[Column::Blocks, Column::Headers, Column::HeaderHashes, Column::CommitHashes][..]),
            ("transaction index", &[Column::Transactions]),
            ("public state", &[Column::State]),
            (
                "private data",
                &[
                    Column::HashedState,
                    Column::PrivateState,
                    Column::PrivateKeys,
                    Column::PrivateSets,
                    Column::PrivatePlaces,
                    Column::MissingPrivate,
                    Column::PrivateExpiry,
                    Column::PrivatePurges,
                ],
            ),
            ("history", &[Column::History]),
        ] {
            counted
                .bytes
                .insert(name, columns.iter().map(|column| self.database().column_bytes(*column)).sum());
        }
        Ok(counted)
    }
}
