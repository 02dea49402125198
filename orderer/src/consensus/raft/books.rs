//! The channel's books as the Raft machine writes them.

use std::sync::{Arc, PoisonError, RwLock};

use consort_channel_config::{BatchConfig, RaftOptions};
use consort_crypto::hash::HashAlgorithm;
use consort_protos::{
    block,
    fabric::common::{Block, Metadata},
};
use prost::Message;

use super::{machine::Books, membership::Membership};
use crate::{
    channel::ChannelState,
    metrics::{ChannelMetrics, timed},
    submission::{Refusal, Submission},
    writer::Writer,
};

/// The books and the membership that they imply. The membership is shared with the transport.
pub(crate) struct ChannelBooks {
    state: Arc<ChannelState>,
    membership: Arc<RwLock<Membership>>,
    metrics: ChannelMetrics,
}

impl ChannelBooks {
    pub(crate) fn new(
        state: Arc<ChannelState>,
        membership: Arc<RwLock<Membership>>,
        metrics: ChannelMetrics,
    ) -> Self {
        Self { state, membership, metrics }
    }

    /// Appends a block that another orderer completed, after checking its signatures.
    pub(crate) fn append_fetched(&mut self, block: &Block) -> Result<(), String> {
        self.state.check_fetched(block)?;
        let next = self.state.next_bundle(block)?;
        let noted = block::raft_metadata(block).map_err(|error| error.to_string())?;
        let current = self.state.bundle();
        let orderer = next.as_ref().unwrap_or(&current).orderer();
        let membership = Membership::new(&orderer.consenters, noted.as_ref())?;
        self.state.append(block, next)?;
        self.set_membership(membership);
        Ok(())
    }

    fn set_membership(&self, membership: Membership) {
        *self.membership.write().unwrap_or_else(PoisonError::into_inner) = membership;
    }

    fn options(&self) -> Option<RaftOptions> {
        self.state.bundle().orderer().raft_options
    }
}

impl Books for ChannelBooks {
    fn height(&self) -> u64 {
        self.state.store().height()
    }

    fn last_hash(&self) -> [u8; 32] {
        self.state.store().last_hash().unwrap_or_default()
    }

    fn hash_algorithm(&self) -> HashAlgorithm {
        self.state.bundle().hash_algorithm()
    }

    fn batch(&self) -> BatchConfig {
        self.state.bundle().orderer().batch
    }

    fn sequence(&self) -> u64 {
        self.state.bundle().sequence()
    }

    fn in_flight_max(&self) -> usize {
        self.options().map_or(1, |options| options.max_inflight_blocks.max(1) as usize)
    }

    fn snapshot_interval_bytes(&self) -> u64 {
        self.options().map_or(u64::MAX, |options| u64::from(options.snapshot_interval_bytes))
    }

    fn judge_again(&self, stale: Submission) -> Result<Submission, Refusal> {
        self.state.judge.judge_again(&self.state.bundle(), stale)
    }

    fn append(&mut self, mut block: Block, raft_index: u64) -> Result<(), String> {
        let next = self.state.next_bundle(&block)?;
        let last_config = if next.is_some() { block::number(&block) } else { self.state.last_config() };
        let mut membership = self.membership.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(next) = &next {
            membership = membership.after(&next.orderer().consenters)?;
        }
        let noted = membership.block_metadata(raft_index).encode_to_vec();
        let wrapped = Metadata { value: noted.into(), signatures: Vec::new() }.encode_to_vec();
        Writer::complete(&self.state.judge, &mut block, last_config, wrapped.into())?;
        let reconfigured = next.is_some();
        timed(&self.metrics.block_write_seconds, || self.state.append(&block, next))?;
        self.metrics.height.set(i64::try_from(self.height()).unwrap_or(i64::MAX));
        if reconfigured {
            self.set_membership(membership);
            tracing::info!(channel = %self.state.id(), sequence = self.sequence(), "configuration updated");
        }
        Ok(())
    }
}
