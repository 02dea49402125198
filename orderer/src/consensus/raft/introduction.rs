//! What a consenter shows that is refused as unknown, and how it is judged: blocks count, not who brings them.
//!
//! Anybody can call, without a certificate that means anything here. So nothing that is costly, or lasts, is done before a block was shown that links to the
//! channel's own and is signed by its rule: whoever does not have the channel's blocks does not get beyond the comparison of two hashes.

use std::sync::Arc;

use bytes::Bytes;
use consort_crypto::certificate::Certificate;
use consort_node::dial::with_causes;
use consort_protos::{block, consort::orderer::Introduced, fabric::common::Block, ids::BlockNumber};

use super::alone::{Evidence, Introduction};
use crate::{
    channel::ChannelState,
    follower::{names, others},
    join_block,
    pull::orderer_roots,
};

/// Where an unknown configuration says that blocks are found. What comes from there is judged by the configuration in force here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Whereabouts {
    /// `host:port` of the other orderers, in their order.
    pub(super) endpoints: Vec<String>,
    /// TLS roots of their organisations, in PEM.
    pub(super) roots: Vec<Bytes>,
}

/// Looks for the first of a node's blocks that another one does not have, or has another one in its place. The end is tried first: elsewhere the blocks part only
/// where the other one went on alone.
#[derive(Debug)]
pub(super) struct Search {
    newest: u64,
    asked: u64,
    /// The other one has all blocks below the first number, and not the one with the second.
    between: Option<(u64, u64)>,
    is_over: bool,
}

impl Search {
    /// For a node with so many blocks.
    pub(super) fn new(height: u64) -> Self {
        let newest = height.saturating_sub(1);
        Self { newest, asked: newest, between: None, is_over: false }
    }

    /// The block about which the other one is asked next.
    pub(super) fn question(&self) -> Option<u64> {
        (!self.is_over).then_some(self.asked)
    }

    /// Takes its answer.
    pub(super) fn told(&mut self, answer: &Introduced) {
        let (shared, other) = match self.between {
            None if !answer.listens || answer.has => {
                self.is_over = true;
                return;
            }
            None => (0, answer.height.min(self.newest)),
            Some((_, other)) if answer.has => (self.asked + 1, other),
            Some((shared, _)) => (shared, self.asked),
        };
        self.asked = match self.between {
            None => other.saturating_sub(1),
            Some(_) => shared + (other - shared) / 2,
        };
        self.between = Some((shared, other));
        self.is_over = shared == other;
    }

    /// What was found: nothing when the other one lacks nothing, does not listen, or shares no block at all.
    pub(super) fn found(&self) -> Option<u64> {
        let (_, first) = self.between?;
        (self.is_over && first > 0).then_some(first)
    }
}

/// Says whether the books have a block.
///
/// # Errors
/// When they cannot be read.
pub(super) fn answer(state: &ChannelState, number: u64, hash: &[u8]) -> Result<Introduced, String> {
    let own = header_hash(state, number)?;
    let has = own.is_some_and(|own| own == hash);
    Ok(Introduced { listens: true, height: state.store().height(), has })
}

fn header_hash(state: &ChannelState, number: u64) -> Result<Option<Bytes>, String> {
    state.store().header_hash(BlockNumber::new(number)).map_err(|error| with_causes(&error))
}

/// Where a block stands by its header; `None` when the books have it.
///
/// # Errors
/// When it does not follow one of the channel's blocks.
pub(super) fn place(state: &ChannelState, next: &Block) -> Result<Option<Evidence>, String> {
    let header = next.header.as_ref().ok_or("the block has no header")?;
    let before = header.number.checked_sub(1).ok_or("the first block follows none")?;
    if header_hash(state, before)?.is_none_or(|own| own != header.previous_hash) {
        return Err("the block does not follow one of this channel's here".to_owned());
    }
    let shown = state.bundle().hash_algorithm().block_hash(header);
    Ok(match header_hash(state, header.number)? {
        None => Some(Evidence::Proof),
        Some(own) if own == shown.as_slice() => None,
        Some(_) => Some(Evidence::Contradiction),
    })
}

/// Judges a block of that place, shown with the newest configuration block that its bearer has.
///
/// # Errors
/// When the block is not signed by the rule in force here, or the other one is no configuration block of this channel that names this orderer and others.
pub(super) fn judge(
    state: &Arc<ChannelState>,
    own: &Certificate,
    configuration: &Block,
    next: &Block,
    evidence: Evidence,
) -> Result<(Introduction, Whereabouts), String> {
    state.check_fetched(next)?;
    let bundle = join_block::check(configuration)?;
    if bundle.channel() != state.id() {
        return Err(format!("the block is one of the channel {}", bundle.channel()));
    }
    if bundle.orderer().consenters.len() < 2 || !names(&bundle, own) {
        return Err("the configuration does not name this orderer and others".to_owned());
    }
    let mut ids = Vec::new();
    for shown in [next, configuration] {
        let noted = block::raft_metadata(shown).map_err(|error| error.to_string())?;
        ids.extend(noted.map(|noted| noted.consenter_ids).unwrap_or_default());
    }
    let mut endpoints = others(&bundle, own);
    endpoints.sort_unstable();
    let whereabouts = Whereabouts { endpoints, roots: orderer_roots(&bundle) };
    Ok((Introduction { number: block::number(next).get(), ids, evidence }, whereabouts))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a node with `height` blocks finds out of one with `other` blocks, of which it shares the first ones; and how often it asks.
    fn found(height: u64, other: u64, shared: u64) -> (Option<u64>, usize) {
        let mut search = Search::new(height);
        let mut asked = 0;
        while let Some(number) = search.question() {
            asked += 1;
            search.told(&Introduced { listens: true, height: other, has: number < shared });
        }
        (search.found(), asked)
    }

    #[test]
    fn the_first_block_is_found_that_the_other_one_does_not_have() {
        for height in 1..20 {
            for other in 1..20 {
                for shared in 0..=height.min(other) {
                    let expected = (shared < height && shared > 0).then_some(shared);
                    let (number, _) = found(height, other, shared);
                    assert_eq!(number, expected, "{height} blocks against {other}, {shared} of them shared");
                }
            }
        }
    }

    #[test]
    fn an_old_copy_costs_two_questions_and_another_history_few() {
        assert_eq!(found(1_000_000, 700, 700), (Some(700), 2));
        let (number, asked) = found(u64::MAX, u64::MAX, 3);
        assert_eq!(number, Some(3));
        assert!(asked < 70, "{asked}");
    }

    #[test]
    fn who_does_not_listen_is_asked_once() {
        let mut search = Search::new(9);
        assert_eq!(search.question(), Some(8));
        search.told(&Introduced::default());
        assert_eq!((search.question(), search.found()), (None, None));
    }
}
