//! Whether a range query would give the same result now.

use std::{collections::BTreeMap, ops::Bound};

use consort_crypto::hash::HashAlgorithm;
use consort_protos::rwset::{RangeQuery, RangeReads, Read};

use crate::{
    error::Error,
    merkle::RangeSummary,
    snapshot::Overlaid,
    state::{KeyRange, Scan, StateKey, StateReader},
    updates::Update,
};

/// Repeats the query over the committed state and the changes of the block so far, and compares.
pub(super) fn holds(
    namespace: &str,
    query: &RangeQuery,
    changed: Option<&BTreeMap<String, Update>>,
    state: &dyn StateReader,
) -> Result<bool, Error> {
    // An iterator that was left early vouches for its last key, too.
    let range = if query.exhausted {
        KeyRange::public(namespace, &query.start_key, &query.end_key)
    } else {
        KeyRange::public_inclusive(namespace, &query.start_key, &query.end_key)
    };
    if range.is_empty() {
        return compare(query, Box::new(std::iter::empty()), state.hash_algorithm());
    }
    let committed = state.scan(&range)?;
    match changed {
        None => compare(query, committed, state.hash_algorithm()),
        Some(changed) => {
            let found = overlay(namespace, &range, query, changed, committed);
            compare(query, found, state.hash_algorithm())
        }
    }
}

fn overlay<'a>(
    namespace: &'a str,
    range: &'a KeyRange,
    query: &RangeQuery,
    changed: &'a BTreeMap<String, Update>,
    committed: Scan<'a>,
) -> Scan<'a> {
    let over = changed
        .range::<str, _>((Bound::Included(query.start_key.as_str()), Bound::Unbounded))
        .map(move |(key, update)| (StateKey::public(namespace, key), update.value().cloned()))
        .take_while(|(key, _)| range.contains(key));
    Box::new(Overlaid { under: committed.peekable(), over: over.peekable() })
}

fn compare(query: &RangeQuery, mut found: Scan<'_>, hash: HashAlgorithm) -> Result<bool, Error> {
    match &query.reads {
        RangeReads::Merkle(recorded) => {
            // No honest endorser records a degree that makes no tree.
            let Some(mut reads) = RangeSummary::new(recorded.max_degree, hash) else { return Ok(false) };
            for entry in found {
                let (key, value) = entry?;
                reads.push(Read { key: key.key_text(), version: Some(value.version) });
            }
            Ok(reads.finish() == query.reads)
        }
        RangeReads::Raw(recorded) => {
            for read in recorded {
                let Some(entry) = found.next() else { return Ok(false) };
                let (key, value) = entry?;
                if key.key() != read.key.as_bytes() || Some(value.version) != read.version {
                    return Ok(false);
                }
            }
            ends(found)
        }
        RangeReads::Empty => ends(found),
    }
}

fn ends(mut found: Scan<'_>) -> Result<bool, Error> {
    found.next().transpose().map(|more| more.is_none())
}
