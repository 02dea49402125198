//! Names of values. Their byte order is Fabric's: namespace, collection, key.

use std::cmp::Ordering;

use crate::order::{prefix_end, push_part, split_part, strip_part};

/// What kind of value a key names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Values that every peer holds.
    Public,
    /// Hashes of private values, by hash of their key; every peer holds them.
    Hashed,
    /// Private values; only members of the collection hold them.
    Private,
}

/// The full name of a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateKey {
    space: Space,
    bytes: Vec<u8>,
    /// Where the key proper begins, behind namespace and collection.
    tail: usize,
}

impl StateKey {
    /// A public key of a namespace.
    #[must_use]
    pub fn public(namespace: &str, key: &str) -> Self {
        Self::new(Space::Public, &[namespace], key.as_bytes())
    }

    /// A private key by its SHA-256.
    #[must_use]
    pub fn hashed(namespace: &str, collection: &str, key_hash: &[u8]) -> Self {
        Self::new(Space::Hashed, &[namespace, collection], key_hash)
    }

    /// A private key.
    #[must_use]
    pub fn private(namespace: &str, collection: &str, key: &str) -> Self {
        Self::new(Space::Private, &[namespace, collection], key.as_bytes())
    }

    /// How this key stands to another one that is given by its parts (namespace, and collection where the space has some) and its
    /// key, without making that.
    pub(crate) fn compare(&self, space: Space, parts: &[&str], key: &[u8]) -> Ordering {
        self.space.cmp(&space).then_with(|| {
            let mut rest = self.bytes.as_slice();
            for part in parts {
                let ends = match strip_part(rest, part.as_bytes()) {
                    Ok(after) => after,
                    Err(order) => return order,
                };
                rest = ends;
            }
            rest.cmp(key)
        })
    }

    fn new(space: Space, parts: &[&str], key: &[u8]) -> Self {
        let mut bytes = prefix(parts, key.len());
        let tail = bytes.len();
        bytes.extend_from_slice(key);
        Self { space, bytes, tail }
    }

    /// Reads the name under which a store keeps a value; `None` for bytes that are no such name.
    pub(crate) fn from_stored(space: Space, bytes: Vec<u8>) -> Option<Self> {
        let (_, mut rest) = split_part(&bytes)?;
        if space != Space::Public {
            (_, rest) = split_part(rest)?;
        }
        let tail = bytes.len() - rest.len();
        Some(Self { space, bytes, tail })
    }

    /// The kind of value.
    #[must_use]
    pub fn space(&self) -> Space {
        self.space
    }

    /// The name as stores keep it: unique and ordered within its space.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The key without namespace and collection: text for public and private keys, a hash for hashed ones.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.bytes[self.tail..]
    }

    /// The key as text; lossy only for hashed keys and for damaged stores, since other keys are text on the way in.
    #[must_use]
    pub fn key_text(&self) -> String {
        String::from_utf8_lossy(self.key()).into_owned()
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> String {
        self.parts().0
    }

    /// The collection of a hashed or private key.
    #[must_use]
    pub fn collection(&self) -> Option<String> {
        self.parts().1
    }

    fn parts(&self) -> (String, Option<String>) {
        let text = |part: Vec<u8>| String::from_utf8_lossy(&part).into_owned();
        let (namespace, rest) =
            split_part(&self.bytes).expect("invariant: every constructor writes the namespace as a part");
        let collection = match self.space {
            Space::Public => None,
            Space::Hashed | Space::Private => split_part(rest).map(|(collection, _)| text(collection)),
        };
        (text(namespace), collection)
    }
}

fn prefix(parts: &[&str], room: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 2).sum::<usize>() + room);
    for part in parts {
        push_part(&mut bytes, part.as_bytes());
    }
    bytes
}

/// A range of keys, all of one space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    space: Space,
    start: Vec<u8>,
    end: Option<Vec<u8>>,
}

impl KeyRange {
    /// Public keys of a namespace from `start` up to `end`, which is left out; empty texts stand for the ends of the namespace.
    #[must_use]
    pub fn public(namespace: &str, start: &str, end: &str) -> Self {
        Self::between(Space::Public, &[namespace], start, end)
    }

    /// Public keys from `start` up to and including `end`; an empty `end` stands for the end of the namespace.
    #[must_use]
    pub fn public_inclusive(namespace: &str, start: &str, end: &str) -> Self {
        let mut range = Self::public(namespace, start, end);
        if let (Some(end), false) = (&mut range.end, end.is_empty()) {
            end.push(0);
        }
        range
    }

    /// Private keys of a collection from `start` up to `end`, which is left out; empty texts stand for the ends of the collection.
    #[must_use]
    pub fn private(namespace: &str, collection: &str, start: &str, end: &str) -> Self {
        Self::between(Space::Private, &[namespace, collection], start, end)
    }

    /// Everything of a space.
    #[must_use]
    pub fn all(space: Space) -> Self {
        Self { space, start: Vec::new(), end: None }
    }

    fn between(space: Space, parts: &[&str], start: &str, end: &str) -> Self {
        let prefix = prefix(parts, start.len().max(end.len()) + 1);
        let end = if end.is_empty() { prefix_end(&prefix) } else { Some([&prefix, end.as_bytes()].concat()) };
        let mut from = prefix;
        from.extend_from_slice(start.as_bytes());
        Self { space, start: from, end }
    }

    /// The kind of keys.
    #[must_use]
    pub fn space(&self) -> Space {
        self.space
    }

    /// First key, as stores keep it.
    #[must_use]
    pub fn start(&self) -> &[u8] {
        &self.start
    }

    /// The key before which the range ends, as stores keep it; `None` for the end of the space.
    #[must_use]
    pub fn end(&self) -> Option<&[u8]> {
        self.end.as_deref()
    }

    /// Whether no key can be inside.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// Whether a key is inside.
    #[must_use]
    pub fn contains(&self, key: &StateKey) -> bool {
        key.space == self.space
            && key.bytes.as_slice() >= self.start.as_slice()
            && self.end.as_ref().is_none_or(|end| key.bytes < *end)
    }
}
