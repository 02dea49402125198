//! A bounded cache that forgets what was not asked for lately.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    sync::{PoisonError, RwLock},
};

/// Two generations: entries enter the young one; when that holds half of the capacity it becomes the old one, and what was
/// old and never asked for again is forgotten. Reading a young entry takes only a shared lock.
pub(crate) struct Cache<K, V> {
    half: usize,
    generations: RwLock<Generations<K, V>>,
}

struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    /// A cache of at most `capacity` entries.
    pub(crate) fn new(capacity: usize) -> Self {
        let generations = Generations { young: HashMap::new(), old: HashMap::new() };
        Self { half: (capacity / 2).max(1), generations: RwLock::new(generations) }
    }

    /// The entry for a key.
    pub(crate) fn find<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let old = {
            let generations = self.generations.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(value) = generations.young.get(key) {
                return Some(value.clone());
            }
            generations.old.get_key_value(key).map(|(key, value)| (key.clone(), value.clone()))
        };
        let (key, value) = old?;
        self.insert(key, value.clone());
        Some(value)
    }

    /// Remembers an entry.
    pub(crate) fn insert(&self, key: K, value: V) {
        let mut generations = self.generations.write().unwrap_or_else(PoisonError::into_inner);
        if generations.young.len() >= self.half && !generations.young.contains_key(&key) {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_stays_within_its_capacity_and_keeps_what_is_used() {
        let cache: Cache<u32, u32> = Cache::new(8);
        cache.insert(0, 0);
        for key in 1..1000 {
            cache.insert(key, key);
            assert_eq!(cache.find(&0), Some(0), "asked for every time");
            let generations = cache.generations.read().unwrap();
            assert!(generations.young.len() + generations.old.len() <= 8);
        }
        assert_eq!(cache.find(&1), None);
        assert_eq!(cache.find(&999), Some(999));
    }
}
