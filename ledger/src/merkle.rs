//! The summary of a long range query: a tree of hashes over the reads, of which only the top level is recorded.
//!
//! Rule: Fabric `core/ledger/kvledger/txmgmt/rwsetutil/query_results_helper.go`. Up to `max_degree` results are recorded as they are.

use bytes::Bytes;
use consort_crypto::hash::HashAlgorithm;
use consort_protos::{
    fabric::kvrwset::QueryReads,
    rwset::{MerkleSummary, RangeReads, Read},
};
use prost::Message as _;

/// Entries of a tree level before they are combined; a constant of Fabric, on which endorsers must agree.
pub const MAX_DEGREE: u32 = 50;

/// Smaller degrees would combine for ever.
const DEGREE_MIN: u32 = 2;

/// Collects the reads of one range query.
#[derive(Debug, Clone)]
pub struct RangeSummary {
    hash: HashAlgorithm,
    max_degree: u32,
    pending: Vec<Read>,
    tree: Option<Tree>,
}

impl RangeSummary {
    /// Starts a collection; `None` for a degree that no tree can have.
    #[must_use]
    pub fn new(max_degree: u32, hash: HashAlgorithm) -> Option<Self> {
        (max_degree >= DEGREE_MIN).then(|| Self { hash, max_degree, pending: Vec::new(), tree: None })
    }

    /// Adds a result. Reads come in key order.
    pub fn push(&mut self, read: Read) {
        self.pending.push(read);
        if self.pending.len() > self.max_degree as usize {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let kv_reads = self.pending.drain(..).map(|read| read.to_message()).collect();
        let leaf = QueryReads { kv_reads }.encode_to_vec();
        let degree = self.max_degree as usize;
        let hash = self.hash;
        self.tree.get_or_insert_with(|| Tree::new(hash)).push(hash.hash(&leaf), degree);
    }

    /// Ends the collection: nothing, all reads, or the top of the tree.
    #[must_use]
    pub fn finish(mut self) -> RangeReads {
        if self.tree.is_some() && !self.pending.is_empty() {
            self.flush();
        }
        match self.tree {
            None if self.pending.is_empty() => RangeReads::Empty,
            None => RangeReads::Raw(self.pending),
            Some(tree) => RangeReads::Merkle(tree.finish(self.max_degree)),
        }
    }
}

/// Levels from the leaves up; each holds at most the degree.
#[derive(Debug, Clone)]
struct Tree {
    hash: HashAlgorithm,
    levels: Vec<Vec<[u8; 32]>>,
}

impl Tree {
    fn new(hash: HashAlgorithm) -> Self {
        Self { hash, levels: Vec::new() }
    }

    fn push(&mut self, leaf: [u8; 32], degree: usize) {
        let mut hash = leaf;
        for index in 0.. {
            if self.levels.len() == index {
                self.levels.push(Vec::new());
            }
            self.levels[index].push(hash);
            if self.levels[index].len() <= degree {
                return;
            }
            let level = std::mem::take(&mut self.levels[index]);
            hash = self.combine(&level);
        }
    }

    fn combine(&self, hashes: &[[u8; 32]]) -> [u8; 32] {
        let parts: Vec<&[u8]> = hashes.iter().map(<[u8; 32]>::as_slice).collect();
        self.hash.hash_parts(&parts)
    }

    fn finish(mut self, max_degree: u32) -> MerkleSummary {
        let top = self.levels.len() - 1;
        for index in 0..top {
            let level = std::mem::take(&mut self.levels[index]);
            match level.as_slice() {
                [] => {}
                [single] => self.levels[index + 1].push(*single),
                several => {
                    let combined = self.combine(several);
                    self.levels[index + 1].push(combined);
                }
            }
        }
        if self.levels[top].len() > max_degree as usize {
            let combined = self.combine(&self.levels[top]);
            self.levels.push(vec![combined]);
        }
        let hashes = self.levels.last().map(Vec::as_slice).unwrap_or_default();
        MerkleSummary {
            max_degree,
            max_level: self.levels.len() as u32,
            hashes: hashes.iter().map(|hash| Bytes::copy_from_slice(hash)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use consort_crypto::hash::sha256;
    use consort_protos::ids::Height;

    use super::*;

    fn read(key: String, version: Height) -> Read {
        Read { key, version: Some(version) }
    }

    /// Level, number of hashes and digest of the hashes for ranges of `k000000`, `k000001`, …, all written by (1, index).
    fn summary_of(count: u32) -> (u32, usize, String) {
        let mut reads = RangeSummary::new(MAX_DEGREE, HashAlgorithm::Sha256).unwrap();
        for index in 0..count {
            reads.push(read(format!("k{index:06}"), Height::new(1, index)));
        }
        match reads.finish() {
            RangeReads::Empty => (0, 0, String::new()),
            RangeReads::Raw(reads) => (0, reads.len(), String::new()),
            RangeReads::Merkle(summary) => {
                let digest = sha256(&summary.hashes.concat());
                (summary.max_level, summary.hashes.len(), hex::encode(digest))
            }
        }
    }

    #[test]
    fn summaries_equal_those_of_fabric() {
        assert_eq!(summary_of(0), (0, 0, String::new()));
        assert_eq!(summary_of(50), (0, 50, String::new()));
        for (count, level, hashes, digest) in [
            (51, 1, 1, "8ef93aa2766ce57291adfe0dcb57e5ed08214efb30c182c0b6aee7a14e8104c3"),
            (52, 1, 2, "9735136d3f8376dfa3afdb57b378a90ef0c06d3bc22e34517b3396970b4e6d07"),
            (2550, 1, 50, "353aada31373553a4536c8007be43f8baa7a2b7bf3406d855fdf9217cffa7d8d"),
            (2551, 2, 1, "031cf875194ea5329a7cbad5a72ad9a3d2c9741d5dc0ca3f8b4e9342700c3453"),
            (2601, 2, 1, "e2b85f454b0854888a5a18e1bbc857442ead5e54e53064301d695414702ea515"),
            (2602, 2, 2, "f434b1b4af075c637287db1eb94db1d8c4b4e5ec112e7c24076ab8891582b73c"),
            (5000, 2, 2, "f0dbbcad3642cadce6cf5c78f44958a0de23f0cfecc868f6a366fa2e0d62f2aa"),
            (140_000, 3, 2, "657ba5b2a3a327c3fa28f94c53d8f92a0846b741194b22c6b556ab070a451a07"),
        ] {
            assert_eq!(summary_of(count), (level, hashes, digest.to_owned()), "{count} results");
        }
    }

    #[test]
    fn a_degree_that_would_combine_for_ever_is_refused() {
        assert!(RangeSummary::new(0, HashAlgorithm::Sha256).is_none());
        assert!(RangeSummary::new(1, HashAlgorithm::Sm3).is_none());
        let mut reads = RangeSummary::new(2, HashAlgorithm::Sm3).unwrap();
        for index in 0..1000 {
            reads.push(read(format!("{index:04}"), Height::new(1, index)));
        }
        assert!(matches!(reads.finish(), RangeReads::Merkle(summary) if summary.hashes.len() <= 2));
    }
}
