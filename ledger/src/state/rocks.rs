//! A state in RocksDB.

use std::{path::Path, sync::Arc};

use consort_crypto::hash::HashAlgorithm;
use consort_protos::ids::Height;

use super::{
    Change, KeyRange, Scan, Space, StateKey, StateReader, StateStore, VersionedValue,
    value::{push_version, split_version},
};
use crate::{
    database::{self, Column, Database},
    error::Error,
};

/// The columns of a state.
pub(crate) const COLUMNS: [Column; 4] =
    [Column::Facts, Column::State, Column::HashedState, Column::PrivateState];

/// The fact that says how far the state has come.
const SAVEPOINT: &[u8] = b"savepoint";

/// Keeps a state in a RocksDB, alone or as part of a ledger's database.
#[derive(Clone)]
pub struct RocksState {
    database: Arc<Database>,
    hash: HashAlgorithm,
}

impl RocksState {
    /// Opens a database that holds nothing but a state.
    ///
    /// # Errors
    /// When the folder cannot be opened as a database.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self::over(Arc::new(Database::open(path, &COLUMNS)?), HashAlgorithm::Sha256))
    }

    /// The state inside a larger database.
    pub(crate) fn over(database: Arc<Database>, hash: HashAlgorithm) -> Self {
        Self { database, hash }
    }

    /// Adds changes and savepoint to what will be written with other records.
    pub(crate) fn stage(&self, changes: &[Change], savepoint: Height, write: &mut database::Change<'_>) {
        self.stage_values(changes, write);
        let mut bytes = Vec::new();
        push_version(&mut bytes, savepoint);
        write.put(Column::Facts, SAVEPOINT, bytes);
    }
}

impl RocksState {
    /// Fills an empty state with entries in ascending key order, much faster than blocks can; nothing is durable before it returns.
    ///
    /// # Errors
    /// [`Error::Database`], also when the entries are not in order. What was written then is not a state, and must be removed.
    pub fn fill(
        &self,
        entries: impl IntoIterator<Item = super::Entry>,
        savepoint: Height,
    ) -> Result<(), Error> {
        let mut entries = entries.into_iter().peekable();
        while let Some(space) = entries.peek().map(|(key, _)| key.space()) {
            let same = std::iter::from_fn(|| entries.next_if(|(key, _)| key.space() == space));
            let records = same.map(|(key, value)| (key.as_bytes().to_vec(), value.to_stored()));
            self.database.fill(column(space), records)?;
        }
        let mut write = self.database.change();
        self.stage(&[], savepoint, &mut write);
        write.write()
    }

    /// Adds changes that no block makes, such as private data that comes late.
    pub(crate) fn stage_values(&self, changes: &[Change], write: &mut database::Change<'_>) {
        for (key, value) in changes {
            match value {
                Some(value) => write.put(column(key.space()), key.as_bytes(), value.to_stored()),
                None => write.delete(column(key.space()), key.as_bytes()),
            }
        }
    }
}

fn column(space: Space) -> Column {
    match space {
        Space::Public => Column::State,
        Space::Hashed => Column::HashedState,
        Space::Private => Column::PrivateState,
    }
}

impl StateReader for RocksState {
    fn read(&self, keys: &[StateKey]) -> Result<Vec<Option<VersionedValue>>, Error> {
        let mut values = Vec::with_capacity(keys.len());
        if let [key] = keys {
            values.push(self.read_one(key)?);
            return Ok(values);
        }
        for group in keys.chunk_by(|a, b| a.space() == b.space()) {
            let (column, names) = (column(group[0].space()), group.iter().map(StateKey::as_bytes));
            values.append(&mut self.database.read_sorted_as(column, names, VersionedValue::from_stored)?);
        }
        Ok(values)
    }

    fn read_one(&self, key: &StateKey) -> Result<Option<VersionedValue>, Error> {
        self.database.read_as(column(key.space()), key.as_bytes(), VersionedValue::from_stored)
    }

    fn hash_algorithm(&self) -> HashAlgorithm {
        self.hash
    }

    fn scan(&self, range: &KeyRange) -> Result<Scan<'_>, Error> {
        let space = range.space();
        Ok(Box::new(self.database.scan(column(space), range.start(), range.end()).map(move |record| {
            let (key, value) = record?;
            let key = StateKey::from_stored(space, key.into())
                .ok_or_else(|| Error::damaged("state key", "namespace or collection without end"))?;
            Ok((key, VersionedValue::from_stored(&value)?))
        })))
    }
}

impl StateStore for RocksState {
    fn apply(&self, changes: &[Change], savepoint: Height) -> Result<(), Error> {
        let mut write = self.database.change();
        self.stage(changes, savepoint, &mut write);
        write.write()
    }

    fn savepoint(&self) -> Result<Option<Height>, Error> {
        let Some(bytes) = self.database.read(Column::Facts, SAVEPOINT)? else { return Ok(None) };
        match split_version(&bytes) {
            Some((version, [])) => Ok(Some(version)),
            _ => Err(Error::damaged("savepoint", format!("{} bytes", bytes.len()))),
        }
    }
}
