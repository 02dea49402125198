//! The current values of a channel: what they are, how they are named, and the doors to where they are kept.

mod key;
mod memory;
mod rocks;
mod value;

pub use self::{
    key::{KeyRange, Space, StateKey},
    memory::MemoryState,
    rocks::RocksState,
    value::VersionedValue,
};

use consort_crypto::hash::HashAlgorithm;
use consort_protos::ids::Height;

use crate::error::Error;

pub(crate) use self::{
    rocks::COLUMNS as STORED_COLUMNS,
    value::{encode_metadata, push_version},
};

/// A key with its value.
pub type Entry = (StateKey, VersionedValue);

/// Entries in ascending key order.
pub type Scan<'a> = Box<dyn Iterator<Item = Result<Entry, Error>> + 'a>;

/// A change of one key: its new value, or `None` when it goes.
pub type Change = (StateKey, Option<VersionedValue>);

/// Reads a state.
///
/// An implementation scans from one point in time, in ascending byte order of the keys, and never returns entries outside the range.
pub trait StateReader: Send + Sync {
    /// Values of keys in ascending order, each at most once; the answers are in the same order.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn read(&self, keys: &[StateKey]) -> Result<Vec<Option<VersionedValue>>, Error>;

    /// Entries of a range in key order.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn scan(&self, range: &KeyRange) -> Result<Scan<'_>, Error>;

    /// The hash by which private keys are found, and which summarises long ranges; that of the channel.
    fn hash_algorithm(&self) -> HashAlgorithm {
        HashAlgorithm::Sha256
    }

    /// Value of one key.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn read_one(&self, key: &StateKey) -> Result<Option<VersionedValue>, Error> {
        Ok(self.read(std::slice::from_ref(key))?.pop().flatten())
    }
}

/// Keeps a state.
///
/// An implementation makes the changes and the savepoint of one call durable together or not at all, and answers later reads with them.
pub trait StateStore: StateReader {
    /// Makes changes, in ascending key order with each key at most once, and remembers how far the state has come.
    ///
    /// # Errors
    /// When the store cannot be written; the state is then as before.
    fn apply(&self, changes: &[Change], savepoint: Height) -> Result<(), Error>;

    /// The last transaction whose changes are contained; `None` for an empty state.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn savepoint(&self) -> Result<Option<Height>, Error>;
}
