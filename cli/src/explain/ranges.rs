//! What changed in a range of which only hashes were recorded (more than 50 results).
//!
//! Hashes do not say what was read, but they tell whether a guess is right: the range is rebuilt from all blocks as it was at
//! the transaction's turn, then taken back block by block until its hashes are the recorded ones. What differs between the
//! two states is the answer, and nothing else can be.

use std::collections::{BTreeMap, BTreeSet};

use consort_client_sdk::decode::{DecodedBlock, DecodedInvocation, Kind};
use consort_crypto::hash::HashAlgorithm;
use consort_ledger::merkle::RangeSummary;
use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::ids::Height;
use consort_protos::rwset::{RangeQuery, RangeReads, Read};

use super::{Case, who};
use crate::block::key;

/// Blocks that are fetched to rebuild a range. At a thousand blocks a second this is what somebody waits for.
const BLOCKS_REBUILT_MAX: u64 = 20_000;

/// States that are compared with the recorded hashes; a transaction is nearly always endorsed on one of the last blocks.
const STATES_COMPARED_MAX: usize = 1_000;

/// Keys that are named; the rest is counted.
const KEYS_NAMED_MAX: usize = 10;

/// A namespace's range that was read, with the hash of its tree.
struct Question<'a> {
    namespace: &'a str,
    range: &'a RangeQuery,
    degree: u32,
    hash: HashAlgorithm,
}

/// A key as some transaction left it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Left {
    version: Height,
    by: String,
}

/// One change of one key, with what was there before.
struct Step {
    block: u64,
    key: String,
    before: Option<Left>,
}

/// A range as the blocks make it.
#[derive(Default)]
struct Rebuilt {
    keys: BTreeMap<String, Left>,
    steps: Vec<Step>,
    /// Who removed what is gone.
    removed: BTreeMap<String, String>,
}

/// What can be said of the ranges.
#[derive(Default)]
pub(super) struct Explained {
    /// The keys, and by whom they were changed.
    pub(super) named: Vec<String>,
    /// Why they cannot be named.
    pub(super) unknown: Vec<String>,
}

impl Case {
    /// Explains each range of which only hashes were recorded and that is not any more what was read.
    pub(super) async fn hashed_ranges(&self, invocation: &DecodedInvocation) -> anyhow::Result<Explained> {
        let hash = self.configuration().await?.hash_algorithm();
        let mut questions = Vec::new();
        for set in &invocation.rwset.namespaces {
            for range in &set.range_queries {
                if let RangeReads::Merkle(summary) = &range.reads {
                    let namespace = set.namespace.as_str();
                    questions.push(Question { namespace, range, degree: summary.max_degree, hash });
                }
            }
        }
        if questions.is_empty() {
            return Ok(Explained::default());
        }
        let rebuilt = match self.rebuild(&questions).await {
            Ok(rebuilt) => rebuilt,
            Err(why_not) => return Ok(Explained { unknown: vec![why_not], ..Explained::default() }),
        };
        let mut explained = Explained::default();
        for (question, range) in questions.iter().zip(rebuilt) {
            match range.explain(question) {
                Ok(named) => explained.named.extend(named),
                Err(why_not) => explained.unknown.push(why_not),
            }
        }
        Ok(explained)
    }

    /// The ranges at this transaction's turn, or why that cannot be known.
    async fn rebuild(&self, questions: &[Question<'_>]) -> Result<Vec<Rebuilt>, String> {
        let number = self.block.number;
        if number > BLOCKS_REBUILT_MAX {
            return Err(format!(
                "which key it was cannot be said: of the range only hashes were recorded, and to rebuild it takes every block since \
                 the first one; there are {number}, and at most {BLOCKS_REBUILT_MAX} are fetched"
            ));
        }
        let mut ranges: Vec<Rebuilt> = questions.iter().map(|_| Rebuilt::default()).collect();
        for number in 0..=number {
            let block = self.block_at(number).await.map_err(|error| {
                format!(
                    "which key it was cannot be said: of the range only hashes were recorded, and block {number}, which is needed to \
                     rebuild it, is not to be had: {error:#}"
                )
            })?;
            for (question, range) in questions.iter().zip(&mut ranges) {
                range.take(question, &block, (number == self.block.number).then_some(self.transaction.index));
            }
        }
        Ok(ranges)
    }
}

impl Question<'_> {
    fn holds(&self, key: &str) -> bool {
        let range = self.range;
        // An iteration that did not reach the end includes the last key that it saw.
        let end = range.end_key.as_str();
        let beyond = !end.is_empty() && (key > end || (range.exhausted && key == end));
        key >= range.start_key.as_str() && !beyond
    }

    /// Whether a state has the recorded hashes.
    fn matches(&self, keys: &BTreeMap<String, Left>) -> bool {
        let Some(mut summary) = RangeSummary::new(self.degree, self.hash) else { return false };
        for (key, left) in keys {
            summary.push(Read { key: key.clone(), version: Some(left.version) });
        }
        summary.finish() == self.range.reads
    }
}

impl Rebuilt {
    /// Takes over what a block changed; of this transaction's own block what was before its turn.
    fn take(&mut self, question: &Question<'_>, block: &DecodedBlock, before: Option<usize>) {
        for transaction in block.transactions.iter().take(before.unwrap_or(usize::MAX)) {
            let Kind::Invocation(invocation) = &transaction.kind else { continue };
            if transaction.code != Some(TxValidationCode::Valid) {
                continue;
            }
            let version = Height::new(block.number, u32::try_from(transaction.index).unwrap_or(u32::MAX));
            let by = who(block.number, transaction, invocation);
            let sets = invocation.rwset.namespaces.iter();
            for set in sets.filter(|set| set.namespace == question.namespace) {
                for write in set.writes.iter().filter(|write| question.holds(&write.key)) {
                    let left = (!write.is_delete).then(|| Left { version, by: by.clone() });
                    self.change(block.number, &write.key, left, &by);
                }
                // A change of its policy gives a key that is there a new version, too.
                for write in &set.metadata_writes {
                    if self.keys.contains_key(&write.key) {
                        self.change(block.number, &write.key, Some(Left { version, by: by.clone() }), &by);
                    }
                }
            }
        }
    }

    fn change(&mut self, block: u64, key: &str, left: Option<Left>, by: &str) {
        let before = match left {
            Some(left) => self.keys.insert(key.to_owned(), left),
            None => {
                self.removed.insert(key.to_owned(), by.to_owned());
                self.keys.remove(key)
            }
        };
        self.steps.push(Step { block, key: key.to_owned(), before });
    }

    /// The difference between what was read and what was there, or that no earlier state was what was read.
    fn explain(self, question: &Question<'_>) -> Result<Vec<String>, String> {
        if question.matches(&self.keys) {
            return Ok(Vec::new());
        }
        let of = format!(
            "the range from {} to {} of {}",
            key(&question.range.start_key),
            key(&question.range.end_key),
            question.namespace
        );
        let mut read = self.keys.clone();
        let mut touched = BTreeSet::new();
        let mut compared = 0;
        let mut steps = self.steps.iter().rev().peekable();
        while let Some(step) = steps.next() {
            match &step.before {
                Some(left) => read.insert(step.key.clone(), left.clone()),
                None => read.remove(&step.key),
            };
            touched.insert(step.key.as_str());
            // Transactions are executed on whole blocks.
            if steps.peek().is_some_and(|next| next.block == step.block) {
                continue;
            }
            if question.matches(&read) {
                return Ok(self.differences(&read, &touched, &of));
            }
            compared += 1;
            if compared == STATES_COMPARED_MAX {
                break;
            }
        }
        Err(format!(
            "which key it was cannot be said: of {of} only hashes were recorded, and none of its {compared} states before that the blocks \
             give has them. The endorsers executed it on older or on other books (`consort ledger compare`)"
        ))
    }

    fn differences(&self, read: &BTreeMap<String, Left>, touched: &BTreeSet<&str>, of: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for name in touched {
            let named = key(name);
            match (read.get(*name), self.keys.get(*name)) {
                (None, Some(now)) => lines.push(format!("key {named} appeared in {of} by {}", now.by)),
                (Some(then), Some(now)) if then != now => {
                    lines.push(format!("key {named} in {of} was changed by {}", now.by));
                }
                (Some(_), None) => {
                    let by = self.removed.get(*name).map_or("", String::as_str);
                    lines.push(format!("key {named} vanished from {of} by {by}"));
                }
                _ => {}
            }
        }
        let more = lines.len().saturating_sub(KEYS_NAMED_MAX);
        if more > 0 {
            lines.truncate(KEYS_NAMED_MAX);
            lines.push(format!("and {more} more keys of that range"));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEGREE: u32 = 3;

    fn range(keys: &BTreeMap<String, Left>) -> RangeQuery {
        let mut summary = RangeSummary::new(DEGREE, HashAlgorithm::Sha256).unwrap();
        for (key, left) in keys {
            summary.push(Read { key: key.clone(), version: Some(left.version) });
        }
        RangeQuery {
            start_key: "a".to_owned(),
            end_key: "z".to_owned(),
            exhausted: true,
            reads: summary.finish(),
        }
    }

    /// Ten keys in block 1, then one change in each later block.
    fn story(changes: &[(&str, bool)]) -> (RangeQuery, Rebuilt) {
        let mut rebuilt = Rebuilt::default();
        let left = |block: u64| Left { version: Height::new(block, 0), by: format!("block {block}") };
        for name in ["b", "c", "d", "e", "f", "g", "h", "i", "j", "k"] {
            rebuilt.change(1, name, Some(left(1)), "block 1");
        }
        let read = range(&rebuilt.keys);
        for (block, (name, removed)) in (2..).zip(changes) {
            let by = format!("block {block}");
            rebuilt.change(block, name, (!removed).then(|| left(block)), &by);
        }
        (read, rebuilt)
    }

    fn explained(read: &RangeQuery, rebuilt: Rebuilt) -> Result<Vec<String>, String> {
        let question =
            Question { namespace: "basic", range: read, degree: DEGREE, hash: HashAlgorithm::Sha256 };
        rebuilt.explain(&question)
    }

    #[test]
    fn what_appeared_changed_and_vanished_since_the_reading_is_named() {
        let (read, rebuilt) = story(&[("bb", false), ("c", false), ("d", true)]);
        assert!(matches!(read.reads, RangeReads::Merkle(_)));
        assert_eq!(
            explained(&read, rebuilt).unwrap(),
            [
                "key bb appeared in the range from a to z of basic by block 2",
                "key c in the range from a to z of basic was changed by block 3",
                "key d vanished from the range from a to z of basic by block 4",
            ]
        );
    }

    #[test]
    fn a_key_that_came_and_went_meanwhile_is_not_named() {
        let (read, rebuilt) = story(&[("bb", false), ("bb", true), ("k", false)]);
        let lines = explained(&read, rebuilt).unwrap();
        assert_eq!(lines, ["key k in the range from a to z of basic was changed by block 4"]);
    }

    #[test]
    fn an_unchanged_range_needs_no_explanation_and_an_unknown_one_says_so() {
        let (read, rebuilt) = story(&[]);
        assert!(explained(&read, rebuilt).unwrap().is_empty());
        let (mut read, rebuilt) = story(&[("c", false)]);
        let RangeReads::Merkle(summary) = &mut read.reads else { panic!("a summary") };
        summary.hashes[0] = vec![0; 32].into();
        let why_not = explained(&read, rebuilt).unwrap_err();
        assert!(why_not.starts_with("which key it was cannot be said: of the range"), "{why_not}");
    }

    #[test]
    fn an_iteration_that_was_left_early_holds_its_last_key() {
        let (mut read, _) = story(&[]);
        let holds = |read: &RangeQuery| {
            let question =
                Question { namespace: "basic", range: read, degree: DEGREE, hash: HashAlgorithm::Sha256 };
            (question.holds("z"), question.holds("a"), question.holds("zz"))
        };
        assert_eq!(holds(&read), (false, true, false));
        read.exhausted = false;
        assert_eq!(holds(&read), (true, true, false));
    }
}
