//! A state in memory, for simulations without a disk and as the model of the stored one.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{PoisonError, RwLock},
};

use consort_protos::ids::Height;

use super::{Change, KeyRange, Scan, StateKey, StateReader, StateStore, VersionedValue};
use crate::error::Error;

/// Keeps a state in an ordered map.
#[derive(Debug, Default)]
pub struct MemoryState {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    values: BTreeMap<(super::Space, Vec<u8>), (StateKey, VersionedValue)>,
    savepoint: Option<Height>,
}

impl MemoryState {
    /// An empty state.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl StateReader for MemoryState {
    fn read(&self, keys: &[StateKey]) -> Result<Vec<Option<VersionedValue>>, Error> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        Ok(keys
            .iter()
            .map(|key| {
                inner.values.get(&(key.space(), key.as_bytes().to_vec())).map(|(_, value)| value.clone())
            })
            .collect())
    }

    fn scan(&self, range: &KeyRange) -> Result<Scan<'_>, Error> {
        if range.is_empty() {
            return Ok(Box::new(std::iter::empty()));
        }
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let start = Bound::Included((range.space(), range.start().to_vec()));
        let end = range.end().map_or(Bound::Unbounded, |end| Bound::Excluded((range.space(), end.to_vec())));
        let entries: Vec<_> = inner
            .values
            .range((start, end))
            .take_while(|((space, _), _)| *space == range.space())
            .map(|(_, entry)| Ok(entry.clone()))
            .collect();
        Ok(Box::new(entries.into_iter()))
    }
}

impl StateStore for MemoryState {
    fn apply(&self, changes: &[Change], savepoint: Height) -> Result<(), Error> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in changes {
            let name = (key.space(), key.as_bytes().to_vec());
            match value {
                Some(value) => inner.values.insert(name, (key.clone(), value.clone())),
                None => inner.values.remove(&name),
            };
        }
        inner.savepoint = Some(savepoint);
        Ok(())
    }

    fn savepoint(&self) -> Result<Option<Height>, Error> {
        Ok(self.inner.read().unwrap_or_else(PoisonError::into_inner).savepoint)
    }
}
