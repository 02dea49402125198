//! Which key was changed by which transaction.

use std::collections::{BTreeMap, BTreeSet};

use consort_client_sdk::decode::{DecodedInvocation, DecodedTransaction, Kind};
use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::ids::Height;
use consort_protos::rwset::{NamespaceReadWriteSet, RangeQuery, RangeReads, Read};

use super::ranges::Explained;
use super::{BLOCKS_SEARCHED_MAX, Backwards, Case, Place, who};
use crate::block::key;

type At = (u64, u64);

impl Case {
    /// Which key was changed by which transaction.
    pub(super) async fn conflicts(&self, invocation: &DecodedInvocation) -> anyhow::Result<Vec<String>> {
        let mut search = Search::new(invocation);
        let mut blocks = Backwards::from(self, self.block.number);
        while !search.is_over()
            && let Some(block) = blocks.next().await?
        {
            for transaction in block.transactions.iter().rev() {
                let before = block.number < self.block.number || transaction.index < self.transaction.index;
                let valid = transaction.code == Some(TxValidationCode::Valid);
                if let Kind::Invocation(other) = &transaction.kind
                    && before
                    && valid
                {
                    search.look_at(block.number, transaction, other);
                }
            }
        }
        if !search.reasons.is_empty() {
            return Ok(search.reasons);
        }
        let Explained { mut named, unknown } = self.hashed_ranges(invocation).await?;
        if named.is_empty() {
            named = search.perhaps;
        }
        named.extend(unknown);
        if named.is_empty() {
            named.push(format!(
                "the change is older than the last {BLOCKS_SEARCHED_MAX} blocks, which were searched"
            ));
        }
        Ok(named)
    }
}

/// What was read, and what was found out about it.
struct Search<'a> {
    reads: BTreeMap<Place, Option<At>>,
    sets: &'a [NamespaceReadWriteSet],
    /// Keys whose last change was looked at.
    seen: BTreeSet<Place>,
    reasons: Vec<String>,
    /// What may have happened in ranges of which only hashes were kept.
    perhaps: Vec<String>,
}

impl<'a> Search<'a> {
    fn new(invocation: &'a DecodedInvocation) -> Self {
        Self {
            reads: reads(invocation),
            sets: &invocation.rwset.namespaces,
            seen: BTreeSet::new(),
            reasons: Vec::new(),
            perhaps: Vec::new(),
        }
    }

    fn is_over(&self) -> bool {
        self.reads.is_empty() && self.sets.iter().all(|set| set.range_queries.is_empty())
    }

    fn look_at(&mut self, number: u64, transaction: &DecodedTransaction, other: &DecodedInvocation) {
        let written = (number, transaction.index as u64);
        for place in writes(other) {
            if let Some(version) = self.reads.remove(&place)
                && version != Some(written)
            {
                self.reasons.push(conflict(&place, version, number, transaction, other));
            }
            if !self.seen.insert(place.clone()) {
                continue;
            }
            let Some(range) = self.sets.iter().find_map(|set| range_of(set, &place)) else { continue };
            let by = who(number, transaction, other);
            match &range.reads {
                RangeReads::Raw(found) if knows(found, &place, written) => {}
                RangeReads::Raw(_) | RangeReads::Empty => self.reasons.push(format!(
                    "{place} is in a range that it read, and was changed by {by}"
                )),
                // Only hashes of what was found are there; this is what can be said if the range cannot be rebuilt.
                RangeReads::Merkle(_) if self.perhaps.is_empty() => self.perhaps.push(format!(
                    "the range from {} to {} that it read was changed; the last change in it before this transaction's turn is that of \
                     {place} by {by}",
                    key(&range.start_key),
                    key(&range.end_key)
                )),
                RangeReads::Merkle(_) => {}
            }
        }
    }
}

fn at(height: Height) -> At {
    (height.block.get(), height.tx.get().into())
}

/// Everything that was read by name, with the version found.
fn reads(invocation: &DecodedInvocation) -> BTreeMap<Place, Option<At>> {
    let mut reads = BTreeMap::new();
    for set in &invocation.rwset.namespaces {
        let namespace = || set.namespace.clone();
        for read in &set.reads {
            let place = Place::Public { namespace: namespace(), key: read.key.clone() };
            reads.insert(place, read.version.map(at));
        }
        for collection in &set.collections {
            for read in &collection.hashed_reads {
                let place = Place::private(set, collection, &read.key_hash);
                reads.insert(place, read.version.map(at));
            }
        }
    }
    reads
}

fn writes(invocation: &DecodedInvocation) -> Vec<Place> {
    let mut places = Vec::new();
    for set in &invocation.rwset.namespaces {
        let names = set.writes.iter().map(|write| &write.key);
        let names = names.chain(set.metadata_writes.iter().map(|write| &write.key));
        places.extend(names.map(|key| Place::Public { namespace: set.namespace.clone(), key: key.clone() }));
        for collection in &set.collections {
            places.extend(
                collection.hashed_writes.iter().map(|write| Place::private(set, collection, &write.key_hash)),
            );
        }
    }
    places
}

/// The range of a namespace in which a public key lies.
fn range_of<'a>(set: &'a NamespaceReadWriteSet, place: &Place) -> Option<&'a RangeQuery> {
    let Place::Public { namespace, key } = place else { return None };
    if set.namespace != *namespace {
        return None;
    }
    set.range_queries.iter().find(|range| {
        // An iteration that did not reach the end includes the last key that it saw.
        let beyond =
            !range.end_key.is_empty() && (*key > range.end_key || (range.exhausted && *key == range.end_key));
        *key >= range.start_key && !beyond
    })
}

/// Whether the range was read after the key had been written so.
fn knows(found: &[Read], place: &Place, written: At) -> bool {
    let Place::Public { key, .. } = place else { return false };
    found.iter().any(|read| read.key == *key && read.version.map(at) == Some(written))
}

fn conflict(
    place: &Place,
    version: Option<At>,
    number: u64,
    transaction: &DecodedTransaction,
    other: &DecodedInvocation,
) -> String {
    let read = version.map_or_else(
        || "when it did not exist".to_owned(),
        |(block, index)| format!("as transaction {index} of block {block} left it"),
    );
    format!(
        "{place} was read {read}, and changed before this transaction's turn by {}",
        who(number, transaction, other)
    )
}
