//! The channel's books as the Raft machine writes them.

use std::sync::{Arc, PoisonError, RwLock};

use consort_channel_config::{BatchConfig, ChannelBundle, ConsenterChange, RaftOptions};
use consort_crypto::{certificate::Certificate, hash::HashAlgorithm};
use consort_node::dial::with_causes;
use consort_protos::{
    block,
    fabric::common::{Block, BlockHeader, Metadata},
    ids::BlockNumber,
};
use prost::Message;

use super::{machine::Books, membership::Membership};
use crate::{
    channel::ChannelState,
    consensus::revoked,
    metrics::{ChannelMetrics, timed},
    submission::{Refusal, Submission},
    writer::Writer,
};

/// Limits of a channel whose configuration has lost its Raft options, which no update can do.
const NO_OPTIONS: RaftOptions = RaftOptions {
    tick_interval: std::time::Duration::from_millis(500),
    election_tick: 10,
    heartbeat_tick: 1,
    max_inflight_blocks: 1,
    snapshot_interval_bytes: u32::MAX,
};

/// The books and the membership that they imply. The membership is shared with the transport.
pub(crate) struct ChannelBooks {
    state: Arc<ChannelState>,
    membership: Arc<RwLock<Membership>>,
    own_certificate: Certificate,
    metrics: ChannelMetrics,
    genesis_consenters: u64,
    last_index: u64,
}

impl ChannelBooks {
    /// # Errors
    /// When the first or the last block cannot be read.
    pub(crate) fn new(
        state: Arc<ChannelState>,
        membership: Arc<RwLock<Membership>>,
        own_certificate: Certificate,
        metrics: ChannelMetrics,
    ) -> Result<Self, String> {
        let genesis = ChannelBundle::from_block(&read(&state, 0)?).map_err(|error| error.to_string())?;
        let newest = read(&state, state.store().height().saturating_sub(1))?;
        let noted = block::raft_metadata(&newest).map_err(|error| error.to_string())?;
        Ok(Self {
            genesis_consenters: genesis.orderer().consenters.len() as u64,
            last_index: noted.map_or(0, |noted| noted.raft_index),
            state,
            membership,
            own_certificate,
            metrics,
        })
    }

    fn membership(&self) -> std::sync::RwLockReadGuard<'_, Membership> {
        self.membership.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks the signatures of a block that another orderer completed.
    pub(crate) fn check_fetched(&self, block: &Block) -> Result<(), String> {
        self.state.check_fetched(block)
    }

    /// Appends such a block.
    pub(crate) fn append_fetched(&mut self, block: &Block) -> Result<(), String> {
        let next = self.state.next_bundle(block)?;
        let noted = block::raft_metadata(block).map_err(|error| error.to_string())?;
        let current = self.state.bundle();
        let orderer = next.as_ref().unwrap_or(&current).orderer();
        let membership = Membership::new(&orderer.consenters, noted.as_ref())?;
        self.state.append(block, next, true)?;
        self.last_index = noted.map_or(0, |noted| noted.raft_index);
        self.set_membership(membership);
        Ok(())
    }

    /// The membership before the configuration in force; `None` for that of the genesis block.
    pub(crate) fn membership_before(&self) -> Result<Option<Membership>, String> {
        let Some(before) = self.state.last_config().get().checked_sub(1) else { return Ok(None) };
        let newest = read(&self.state, before)?;
        let config = match block::is_config(&newest) {
            true => before,
            false => block::last_config_index(&newest).map_err(|error| error.to_string())?.get(),
        };
        let bundle =
            ChannelBundle::from_block(&read(&self.state, config)?).map_err(|error| error.to_string())?;
        let noted = block::raft_metadata(&newest).map_err(|error| error.to_string())?;
        Membership::new(&bundle.orderer().consenters, noted.as_ref()).map(Some)
    }

    fn set_membership(&self, membership: Membership) {
        *self.membership.write().unwrap_or_else(PoisonError::into_inner) = membership;
    }
}

fn read(state: &ChannelState, number: u64) -> Result<Block, String> {
    let block = state.store().block(BlockNumber::new(number)).map_err(|error| with_causes(&error))?;
    block.ok_or_else(|| format!("block {number} is missing"))
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

    fn raft_options(&self) -> RaftOptions {
        self.state.bundle().orderer().raft_options.unwrap_or(NO_OPTIONS)
    }

    fn genesis_consenters(&self) -> u64 {
        self.genesis_consenters
    }

    fn ids(&self) -> (Vec<u64>, u64) {
        self.membership().ids()
    }

    fn own_id(&self) -> Option<u64> {
        self.membership().id_by_key(&self.own_certificate)
    }

    fn set_ids(&mut self, ids: &[u64], next_id: u64) {
        let membership = self.membership().with_ids(ids, next_id);
        match membership {
            Ok(membership) => self.set_membership(membership),
            Err(reason) => tracing::warn!(reason, "ids that do not fit the configuration are not taken"),
        }
    }

    fn ids_of(&self, number: u64) -> Result<(Vec<u64>, u64), String> {
        let noted = block::raft_metadata(&read(&self.state, number)?).map_err(|error| error.to_string())?;
        Ok(noted.map_or_else(
            || ((1..=self.genesis_consenters).collect(), self.genesis_consenters + 1),
            |noted| (noted.consenter_ids, noted.next_consenter_id),
        ))
    }

    fn is_configuration(&self, block: &Block) -> bool {
        block::is_config(block)
    }

    fn last_index(&self) -> u64 {
        self.last_index
    }

    fn check_quorum(&self, submission: &Submission, active: &[u64]) -> Result<Option<u64>, Refusal> {
        let block = block::assemble(BlockHeader::default(), vec![submission.ordered.clone()]);
        let next = self.state.next_bundle(&block).map_err(Refusal::bad_request)?;
        let Some(next) = next else { return Ok(None) };
        revoked::check_majority(&self.state.bundle(), &next)?;
        let (current, consenters) = (self.state.bundle(), &next.orderer().consenters);
        let change = ConsenterChange::between(&current.orderer().consenters, consenters)
            .map_err(Refusal::bad_request)?;
        let membership = self.membership();
        let gone = match &change {
            ConsenterChange::None => return Ok(None),
            ConsenterChange::Added(_) => None,
            ConsenterChange::Removed(consenter) | ConsenterChange::Rotated { from: consenter, .. } => {
                membership.id_of(consenter)
            }
        };
        let alive = membership.ids().0.iter().filter(|id| Some(**id) != gone && active.contains(id)).count();
        let needed = consenters.len() / 2 + 1;
        let is_small = consenters.len() <= 2 && !matches!(change, ConsenterChange::Removed(_));
        if is_small || alive >= needed {
            return Ok(gone.filter(|_| matches!(change, ConsenterChange::Removed(_))));
        }
        Err(Refusal::bad_request(format!(
            "error applying config update to existing channel '{}': consensus metadata update for channel config update is invalid: \
             {alive} out of {} nodes are alive, configuration will result in quorum loss",
            self.state.id(),
            consenters.len()
        )))
    }

    fn check(&self, block: &Block) -> Result<(), String> {
        let header = block.header.as_ref().ok_or("it has no header")?;
        let data = block.data.as_ref().ok_or("it has no data")?;
        let height = self.height();
        if header.number != height {
            return Err(format!("it is block {}, and {height} is the next", header.number));
        }
        if header.previous_hash != self.last_hash().as_slice() {
            return Err("it does not follow the last block".to_owned());
        }
        if header.data_hash != self.hash_algorithm().block_data_hash(data).as_slice() {
            return Err("its data hash is not that of its data".to_owned());
        }
        block::check_parts(block).map_err(|error| error.to_string())?;
        block::check_canonical(block).map_err(|error| error.to_string())?;
        if let Some(next) = self.state.next_bundle(block)? {
            self.membership().after(&next.orderer().consenters)?;
        }
        Ok(())
    }

    fn judge_again(&self, stale: Submission) -> Result<Submission, Refusal> {
        self.state.judge.judge_again(&self.state.bundle(), stale)
    }

    fn append(&mut self, mut block: Block, raft_index: u64, synced: bool) -> Result<(), String> {
        let next = self.state.next_bundle(&block)?;
        let last_config = if next.is_some() { block::number(&block) } else { self.state.last_config() };
        let mut membership = self.membership().clone();
        if let Some(next) = &next {
            membership = membership.after(&next.orderer().consenters)?;
        }
        let noted = membership.block_metadata(raft_index).encode_to_vec();
        let wrapped = Metadata { value: noted.into(), signatures: Vec::new() }.encode_to_vec();
        Writer::complete(&self.state.judge, &mut block, last_config, wrapped.into())?;
        let reconfigured = next.is_some();
        self.last_index = raft_index;
        timed(&self.metrics.block_write_seconds, || self.state.append(&block, next, synced))?;
        self.metrics.height.set(i64::try_from(self.height()).unwrap_or(i64::MAX));
        if reconfigured {
            self.set_membership(membership);
            tracing::info!(channel = %self.state.id(), sequence = self.sequence(), "configuration updated");
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), String> {
        self.state.store().sync().map_err(|error| with_causes(&error))
    }
}
