//! What a simulated node stands on: a disk and books in memory that may lose power at any write.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use consort_channel_config::{BatchConfig, RaftOptions};
use consort_crypto::{hash::HashAlgorithm, preimage::block_hash};
use consort_protos::{
    block,
    fabric::common::{Block, BlockHeader, Envelope},
};
use prost::Message as _;

use super::{
    catch_up::Offer,
    disk::{Batch, Disk, Visit},
    log::LogError,
    machine::Books,
};
use crate::submission::{Refusal, Submission};

/// How an envelope that configures consenters begins; their numbers follow.
pub(super) const CONSENTERS: &str = "consenters";

/// The power of one node: it may fail at a write.
#[derive(Clone, Default)]
pub(super) struct Power(Arc<Mutex<Supply>>);

#[derive(Default)]
struct Supply {
    writes_left: Option<u32>,
    /// Whether the write during which it fails is still done.
    last_write_done: bool,
    is_cut: bool,
}

impl Power {
    /// It will fail after so many writes.
    pub(super) fn fail_after(&self, writes: u32, last_write_done: bool) {
        let mut supply = self.0.lock().unwrap();
        (supply.writes_left, supply.last_write_done) = (Some(writes), last_write_done);
    }

    pub(super) fn restore(&self) {
        *self.0.lock().unwrap() = Supply::default();
    }

    pub(super) fn is_cut(&self) -> bool {
        self.0.lock().unwrap().is_cut
    }

    /// Whether a write is done, and whether the node lives to know it.
    fn write(&self) -> (bool, bool) {
        let mut supply = self.0.lock().unwrap();
        if supply.is_cut {
            return (false, false);
        }
        match &mut supply.writes_left {
            None => (true, true),
            Some(0) => {
                supply.is_cut = true;
                (supply.last_write_done, false)
            }
            Some(left) => {
                *left -= 1;
                (true, true)
            }
        }
    }
}

/// A disk in memory; clones are the same disk.
#[derive(Clone, Default)]
pub(super) struct MemoryDisk {
    map: Arc<Mutex<Contents>>,
    power: Power,
}

#[derive(Clone, Default)]
struct Contents {
    synced: BTreeMap<Vec<u8>, Vec<u8>>,
    current: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl MemoryDisk {
    pub(super) fn new(power: Power) -> Self {
        Self { map: Arc::default(), power }
    }

    /// Another disk with the same contents.
    pub(super) fn copy(&self) -> Self {
        let contents = self.map.lock().unwrap().clone();
        Self { map: Arc::new(Mutex::new(contents)), power: self.power.clone() }
    }

    /// What was not synced is gone.
    pub(super) fn lose_unsynced(&self) {
        let mut contents = self.map.lock().unwrap();
        contents.current = contents.synced.clone();
    }
}

impl Disk for MemoryDisk {
    fn write(&self, batch: Batch, synced: bool) -> Result<(), LogError> {
        let (done, lives) = self.power.write();
        if done {
            let mut contents = self.map.lock().unwrap();
            for (key, value) in batch {
                match value {
                    Some(value) => contents.current.insert(key, value),
                    None => contents.current.remove(&key),
                };
            }
            if synced {
                contents.synced = contents.current.clone();
            }
        }
        if lives { Ok(()) } else { Err(LogError::Damaged("the power failed".to_owned())) }
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, LogError> {
        Ok(self.map.lock().unwrap().current.get(key).cloned())
    }

    fn scan(&self, from: &[u8], more: &mut Visit<'_>) -> Result<(), LogError> {
        for (key, value) in self.map.lock().unwrap().current.range(from.to_vec()..) {
            if !more(key, value)? {
                break;
            }
        }
        Ok(())
    }
}

/// A block with what its metadata would say.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) block: Block,
    index: u64,
    ids: Vec<u64>,
    next_id: u64,
}

/// Books in memory; clones are the same books. Consenters are known by the numbers of their nodes.
#[derive(Clone)]
pub(super) struct MemoryBooks {
    node: u64,
    power: Power,
    state: Arc<Mutex<State>>,
}

#[derive(Clone)]
struct State {
    kept: Vec<Kept>,
    /// So many of them outlive a loss of power.
    synced: usize,
    genesis: Vec<u64>,
    /// The nodes that are consenters, in the order of the configured list, with their ids.
    consenters: Vec<u64>,
    ids: Vec<u64>,
    next_id: u64,
    sequence: u64,
    /// The node of every id that was ever given away, as far as these books know.
    known: BTreeMap<u64, u64>,
}

impl MemoryBooks {
    pub(super) fn new(node: u64, genesis: &[u64], power: Power) -> Self {
        let first = block::assemble(BlockHeader::default(), vec![Bytes::from_static(b"genesis")]);
        let ids: Vec<u64> = (1..=genesis.len() as u64).collect();
        let next_id = ids.len() as u64 + 1;
        let kept = Kept { block: first, index: 0, ids: ids.clone(), next_id };
        let state = State {
            kept: vec![kept],
            synced: 1,
            genesis: genesis.to_vec(),
            consenters: genesis.to_vec(),
            known: ids.iter().copied().zip(genesis.iter().copied()).collect(),
            ids,
            next_id,
            sequence: 0,
        };
        Self { node, power, state: Arc::new(Mutex::new(state)) }
    }

    /// The books of another node with the same blocks.
    pub(super) fn copy_for(&self, node: u64, power: Power) -> Self {
        Self { node, power, state: Arc::new(Mutex::new(self.state.lock().unwrap().clone())) }
    }

    /// As a start of the process finds them: the ids are those of the last block.
    pub(super) fn reopen(&self) {
        let mut state = self.state.lock().unwrap();
        let last = state.kept.last().unwrap();
        let (ids, next_id) = (last.ids.clone(), last.next_id);
        state.set_ids(&ids, next_id);
    }

    /// Of what was not synced a part is gone, from the end. Configurations are always synced.
    pub(super) fn lose_unsynced(&self, share: f64) {
        let mut state = self.state.lock().unwrap();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a few blocks"
        )]
        let lost = ((state.kept.len() - state.synced) as f64 * share).round() as usize;
        let left = state.kept.len() - lost;
        state.kept.truncate(left);
    }

    pub(super) fn headers(&self) -> Vec<BlockHeader> {
        let state = self.state.lock().unwrap();
        state.kept.iter().map(|kept| kept.block.header.clone().unwrap()).collect()
    }

    pub(super) fn envelopes(&self) -> Vec<Bytes> {
        let state = self.state.lock().unwrap();
        state.kept.iter().skip(1).flat_map(|kept| block::envelopes(&kept.block).to_vec()).collect()
    }

    pub(super) fn consenters(&self) -> Vec<u64> {
        self.state.lock().unwrap().consenters.clone()
    }

    /// The id of a node's consenter: what its certificate stands for.
    pub(super) fn id_of(&self, node: u64, counted: &[u64]) -> Option<u64> {
        let state = self.state.lock().unwrap();
        let current =
            state.consenters.iter().position(|one| *one == node).map(|position| state.ids[position]);
        current.or_else(|| {
            let former = |(id, owner): (&u64, &u64)| (*owner == node && counted.contains(id)).then_some(*id);
            state.known.iter().find_map(former)
        })
    }

    /// The node that messages for an id reach: a consenter, or a former one that Raft still counts.
    pub(super) fn node_of(&self, id: u64, counted: &[u64]) -> Option<u64> {
        let state = self.state.lock().unwrap();
        let current = state.ids.iter().position(|one| *one == id).map(|position| state.consenters[position]);
        current.or_else(|| state.known.get(&id).copied().filter(|_| counted.contains(&id)))
    }

    /// The newest configuration block.
    pub(super) fn newest_configuration(&self) -> Kept {
        let state = self.state.lock().unwrap();
        let newest = state.kept.iter().rev().find(|kept| configured(&kept.block).is_some());
        newest.unwrap_or(&state.kept[0]).clone()
    }

    pub(super) fn kept(&self, number: u64) -> Option<Kept> {
        self.state.lock().unwrap().kept.get(usize::try_from(number).unwrap()).cloned()
    }

    /// The first block that other books lack, or have otherwise.
    pub(super) fn first_missing_in(&self, others: &Self) -> Option<Kept> {
        let (own, others) = (self.headers(), others.headers());
        let missing = (0..own.len()).find(|number| others.get(*number) != own.get(*number))?;
        self.kept(missing as u64)
    }

    /// Appends a block as another node has it.
    pub(super) fn append_fetched(&mut self, kept: &Kept) -> Result<(), String> {
        self.put(kept.block.clone(), kept.index, Some((kept.ids.clone(), kept.next_id)), true)
    }

    fn put(
        &mut self,
        block: Block,
        index: u64,
        noted: Option<(Vec<u64>, u64)>,
        synced: bool,
    ) -> Result<(), String> {
        let header = block.header.clone().unwrap();
        assert_eq!(header.number, self.height());
        assert_eq!(header.previous_hash, self.last_hash().as_slice());
        let (done, lives) = self.power.write();
        if done {
            let mut state = self.state.lock().unwrap();
            let next = configured(&block);
            if let Some(next) = &next {
                state.reconfigure(next);
            }
            if let Some((ids, next_id)) = noted {
                state.set_ids(&ids, next_id);
            }
            let kept = Kept { block, index, ids: state.ids.clone(), next_id: state.next_id };
            state.kept.push(kept);
            if synced || next.is_some() {
                state.synced = state.kept.len();
            }
        }
        if lives { Ok(()) } else { Err("the power failed".to_owned()) }
    }
}

impl Kept {
    pub(super) fn number(&self) -> u64 {
        block::number(&self.block).get()
    }

    pub(super) fn ids(&self) -> &[u64] {
        &self.ids
    }

    pub(super) fn offer(&self) -> Offer {
        let previous_hash = self.block.header.as_ref().unwrap().previous_hash.clone();
        Offer { number: self.number(), previous_hash, index: self.index, ids: self.ids.clone() }
    }
}

impl State {
    fn reconfigure(&mut self, next: &[u64]) {
        let mut ids = Vec::new();
        for node in next {
            match self.consenters.iter().position(|one| one == node) {
                Some(position) => ids.push(self.ids[position]),
                None => {
                    ids.push(self.next_id);
                    self.next_id += 1;
                }
            }
        }
        self.consenters = next.to_vec();
        self.sequence += 1;
        let next_id = self.next_id;
        self.set_ids(&ids, next_id);
    }

    fn set_ids(&mut self, ids: &[u64], next_id: u64) {
        if ids.len() == self.consenters.len() {
            self.ids = ids.to_vec();
            self.next_id = next_id;
            self.known.extend(ids.iter().copied().zip(self.consenters.iter().copied()));
        }
    }
}

/// The consenters that a block configures.
pub(super) fn configured(block: &Block) -> Option<Vec<u64>> {
    let [only] = block::envelopes(block) else { return None };
    consenters_in(only)
}

fn consenters_in(envelope: &Bytes) -> Option<Vec<u64>> {
    let envelope = Envelope::decode(envelope.clone()).ok()?;
    let text = std::str::from_utf8(&envelope.payload).ok()?;
    Some(text.strip_prefix(CONSENTERS)?.split_whitespace().filter_map(|word| word.parse().ok()).collect())
}

impl Books for MemoryBooks {
    fn height(&self) -> u64 {
        self.state.lock().unwrap().kept.len() as u64
    }

    fn hash_algorithm(&self) -> HashAlgorithm {
        HashAlgorithm::Sha256
    }

    fn last_hash(&self) -> [u8; 32] {
        block_hash(self.state.lock().unwrap().kept.last().unwrap().block.header.as_ref().unwrap())
    }

    fn batch(&self) -> BatchConfig {
        BatchConfig {
            max_message_count: 3,
            absolute_max_bytes: 10_000,
            preferred_max_bytes: 10_000,
            timeout: Duration::from_secs(1),
        }
    }

    fn sequence(&self) -> u64 {
        self.state.lock().unwrap().sequence
    }

    fn raft_options(&self) -> RaftOptions {
        RaftOptions {
            tick_interval: Duration::from_millis(100),
            election_tick: 10,
            heartbeat_tick: 1,
            max_inflight_blocks: 2,
            snapshot_interval_bytes: 300,
        }
    }

    fn genesis_consenters(&self) -> u64 {
        self.state.lock().unwrap().genesis.len() as u64
    }

    fn ids(&self) -> (Vec<u64>, u64) {
        let state = self.state.lock().unwrap();
        (state.ids.clone(), state.next_id)
    }

    fn own_id(&self) -> Option<u64> {
        self.id_of(self.node, &[])
    }

    fn set_ids(&mut self, ids: &[u64], next_id: u64) {
        self.state.lock().unwrap().set_ids(ids, next_id);
    }

    fn ids_of(&self, number: u64) -> Result<(Vec<u64>, u64), String> {
        let kept = self.kept(number).unwrap();
        Ok((kept.ids, kept.next_id))
    }

    fn is_configuration(&self, block: &Block) -> bool {
        configured(block).is_some()
    }

    fn last_index(&self) -> u64 {
        self.state.lock().unwrap().kept.last().unwrap().index
    }

    /// Fabric's rule: what remains must hold a majority of the new consenters.
    fn check_quorum(&self, submission: &Submission, active: &[u64]) -> Result<Option<u64>, Refusal> {
        let next = consenters_in(&submission.ordered).unwrap();
        let state = self.state.lock().unwrap();
        let stays = |(node, id): (&u64, &u64)| (next.contains(node) && active.contains(id)).then_some(());
        let alive = state.consenters.iter().zip(&state.ids).filter_map(stays).count();
        let is_small = next.len() <= 2 && next.len() > state.consenters.len();
        if is_small || alive > next.len() / 2 {
            let mut gone = state.consenters.iter().zip(&state.ids).filter(|(node, _)| !next.contains(node));
            return Ok(gone.next().map(|(_, id)| *id));
        }
        Err(Refusal::bad_request("configuration will result in quorum loss"))
    }

    fn check(&self, block: &Block) -> Result<(), String> {
        let header = block.header.as_ref().ok_or("it has no header")?;
        if header.number != self.height() || header.previous_hash != self.last_hash().as_slice() {
            return Err("it does not follow the last block".to_owned());
        }
        Ok(())
    }

    fn judge_again(&self, stale: Submission) -> Result<Submission, Refusal> {
        if stale.sequence < self.sequence() && consenters_in(&stale.ordered).is_some() {
            return Err(Refusal::bad_request("the configuration has changed meanwhile"));
        }
        Ok(stale)
    }

    fn append(&mut self, block: Block, raft_index: u64, synced: bool) -> Result<(), String> {
        self.put(block, raft_index, None, synced)
    }

    fn sync(&mut self) -> Result<(), String> {
        let mut state = self.state.lock().unwrap();
        if state.synced == state.kept.len() {
            return Ok(());
        }
        let (done, lives) = self.power.write();
        if done {
            state.synced = state.kept.len();
        }
        if lives { Ok(()) } else { Err("the power failed".to_owned()) }
    }
}
