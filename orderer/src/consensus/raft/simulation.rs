//! Three machines over a simulated network, driven from a seed: messages are delayed, reordered and lost, nodes crash and come back, one is cut
//! off at times. Nothing here knows a clock, a thread or a socket, so that a seed names one run.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use consort_channel_config::BatchConfig;
use consort_crypto::preimage::block_hash;
use consort_protos::{
    block,
    fabric::common::{Block, BlockHeader, Envelope},
};
use prost::Message as _;
use raft::{
    GetEntriesContext, RaftState, RawNode, Storage, StorageError,
    eraftpb::{Entry, HardState, Message, Snapshot},
    storage::MemStorage,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    log::{Log, LogError, snapshot_block},
    machine::{Books, Machine, Outbox, Ticket},
};
use crate::{
    consensus::Leadership,
    submission::{Kind, Refusal, Submission},
};

const NODES: u64 = 3;

/// A log in memory; clones are the same log, as a reopened database is.
#[derive(Clone)]
struct MemoryLog {
    storage: MemStorage,
    applied: Arc<Mutex<(u64, u64)>>,
    beginning: Arc<Mutex<(u64, u64)>>,
}

impl MemoryLog {
    fn new() -> Self {
        let voters: Vec<u64> = (1..=NODES).collect();
        Self {
            storage: MemStorage::new_with_conf_state((voters, vec![])),
            applied: Arc::default(),
            beginning: Arc::default(),
        }
    }
}

impl Log for MemoryLog {
    fn write(&mut self, entries: &[Entry], hard_state: Option<&HardState>) -> Result<(), LogError> {
        let mut core = self.storage.wl();
        core.append(entries).map_err(|error| LogError::Damaged(error.to_string()))?;
        if let Some(hard_state) = hard_state {
            core.set_hardstate(hard_state.clone());
        }
        Ok(())
    }

    fn set_commit(&mut self, commit: u64) {
        let mut core = self.storage.wl();
        let known = core.hard_state().commit;
        core.mut_hard_state().commit = commit.max(known);
    }

    fn install(&mut self, snapshot: &Snapshot) -> Result<(), LogError> {
        *self.applied.lock().unwrap() = (0, 0);
        *self.beginning.lock().unwrap() = (snapshot.get_metadata().index, snapshot_block(snapshot).unwrap());
        self.storage
            .wl()
            .apply_snapshot(snapshot.clone())
            .map_err(|error| LogError::Damaged(error.to_string()))
    }

    fn compact(&mut self, index: u64) -> Result<(), LogError> {
        let mut core = self.storage.wl();
        core.compact(index + 1).map_err(|error| LogError::Damaged(error.to_string()))
    }

    fn applied(&mut self, index: u64, block: u64) {
        *self.applied.lock().unwrap() = (index, block);
    }
}

impl Storage for MemoryLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        self.storage.initial_state()
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        self.storage.entries(low, high, max_size, context)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.storage.term(index)
    }

    fn first_index(&self) -> raft::Result<u64> {
        self.storage.first_index()
    }

    fn last_index(&self) -> raft::Result<u64> {
        self.storage.last_index()
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let (index, block) = *self.applied.lock().unwrap();
        if index < request_index || index == 0 {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot { data: block.to_be_bytes().to_vec(), ..Snapshot::default() };
        snapshot.mut_metadata().index = index;
        snapshot.mut_metadata().term = self.storage.term(index)?;
        snapshot.mut_metadata().set_conf_state(self.storage.initial_state()?.conf_state);
        Ok(snapshot)
    }
}

/// Books in memory: each block with its Raft index. Clones are the same books.
#[derive(Clone)]
struct MemoryBooks(Arc<Mutex<Vec<(Block, u64)>>>);

impl MemoryBooks {
    fn new() -> Self {
        let genesis = block::assemble(BlockHeader::default(), vec![Bytes::from_static(b"genesis")]);
        Self(Arc::new(Mutex::new(vec![(genesis, 0)])))
    }

    fn headers(&self) -> Vec<BlockHeader> {
        self.0.lock().unwrap().iter().map(|(block, _)| block.header.clone().unwrap()).collect()
    }

    fn envelopes(&self) -> Vec<Bytes> {
        self.0
            .lock()
            .unwrap()
            .iter()
            .skip(1)
            .flat_map(|(block, _)| block::envelopes(block).to_vec())
            .collect()
    }

    fn last_index(&self) -> u64 {
        self.0.lock().unwrap().last().unwrap().1
    }
}

impl Books for MemoryBooks {
    fn height(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }

    fn last_hash(&self) -> [u8; 32] {
        block_hash(self.headers().last().unwrap())
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
        0
    }

    fn in_flight_max(&self) -> usize {
        2
    }

    fn snapshot_interval_bytes(&self) -> u64 {
        300
    }

    fn judge_again(&self, stale: Submission) -> Result<Submission, Refusal> {
        Ok(stale)
    }

    fn append(&mut self, block: Block, raft_index: u64) -> Result<(), String> {
        let header = block.header.clone().unwrap();
        assert_eq!(header.number, self.height());
        assert_eq!(header.previous_hash, self.last_hash().as_slice());
        self.0.lock().unwrap().push((block, raft_index));
        Ok(())
    }
}

#[derive(Default)]
struct Sent(Vec<Message>);

impl Outbox for Sent {
    fn send(&mut self, message: Message) {
        self.0.push(message);
    }
}

struct Node {
    id: u64,
    log: MemoryLog,
    books: MemoryBooks,
    machine: Option<Machine<MemoryLog, MemoryBooks>>,
}

impl Node {
    fn new(id: u64) -> Self {
        let mut node = Self { id, log: MemoryLog::new(), books: MemoryBooks::new(), machine: None };
        node.start();
        node
    }

    fn start(&mut self) {
        let (beginning, beginning_block) = *self.log.beginning.lock().unwrap();
        let behind = (beginning > 0 && self.books.height() <= beginning_block).then_some(beginning_block);
        let applied = self.books.last_index().max(beginning);
        self.log.set_commit(applied);
        let noted = if behind.is_some() { (0, 0) } else { (applied, self.books.height() - 1) };
        self.log.applied(noted.0, noted.1);
        // Fixed but different election timeouts: Raft's own randomness would not follow the seed.
        let timeout = 10 + 3 * usize::try_from(self.id).unwrap();
        let config = raft::Config {
            id: self.id,
            election_tick: 10,
            heartbeat_tick: 1,
            min_election_tick: timeout,
            max_election_tick: timeout + 1,
            applied,
            max_inflight_msgs: 4,
            check_quorum: true,
            pre_vote: true,
            ..raft::Config::default()
        };
        let node = RawNode::new(&config, self.log.clone(), &super::logger()).unwrap();
        self.machine = Some(Machine::new(node, self.books.clone(), applied, behind));
    }
}

struct Simulation {
    random: StdRng,
    nodes: Vec<Node>,
    wires: Vec<Message>,
    cut_off: Option<u64>,
    submitted: u64,
    waiting: BTreeMap<(u64, Ticket), Bytes>,
    acknowledged: Vec<Bytes>,
    fetches: usize,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            nodes: (1..=NODES).map(Node::new).collect(),
            wires: Vec::new(),
            cut_off: None,
            submitted: 0,
            waiting: BTreeMap::new(),
            acknowledged: Vec::new(),
            fetches: 0,
        }
    }

    fn any(&mut self) -> usize {
        self.random.random_range(0..self.nodes.len())
    }

    fn act(&mut self) {
        let node = self.any();
        match self.random.random_range(0..1000) {
            0..600 if !self.wires.is_empty() => {
                let position = self.random.random_range(0..self.wires.len());
                let message = self.wires.swap_remove(position);
                self.deliver(message);
            }
            600..640 if !self.wires.is_empty() => {
                let position = self.random.random_range(0..self.wires.len());
                self.wires.swap_remove(position);
            }
            640..900 => self.with(node, Machine::tick),
            900..980 => self.submit(node),
            980..985 => self.nodes[node].machine = None,
            985..988 if self.nodes[node].machine.is_none() => self.nodes[node].start(),
            995..998 => self.cut_off = Some(node as u64 + 1),
            998..1000 => self.cut_off = None,
            _ => {}
        }
    }

    fn deliver(&mut self, message: Message) {
        if self.cut_off.is_some_and(|id| id == message.from || id == message.to) {
            return;
        }
        let to = usize::try_from(message.to - 1).unwrap();
        self.with(to, |machine| machine.step(message));
    }

    fn submit(&mut self, node: usize) {
        self.submitted += 1;
        let envelope = Envelope {
            payload: format!("message {} {}", self.submitted, "x".repeat(100)).into_bytes().into(),
            ..Envelope::default()
        };
        let ordered: Bytes = envelope.encode_to_vec().into();
        let submission = Submission {
            original: envelope,
            ordered: ordered.clone(),
            size: 110,
            kind: Kind::Normal,
            sequence: 0,
        };
        let ticket = self.submitted;
        let taken = self.nodes[node].machine.as_ref().is_some_and(Machine::accepts);
        if taken {
            self.waiting.insert((node as u64 + 1, ticket), ordered);
            self.with(node, |machine| machine.submit(submission, ticket));
        }
    }

    /// Gives a running node an input and performs what follows.
    fn with(&mut self, position: usize, input: impl FnOnce(&mut Machine<MemoryLog, MemoryBooks>)) {
        let node = &mut self.nodes[position];
        let Some(machine) = &mut node.machine else { return };
        input(machine);
        machine.cut_if_idle();
        let mut sent = Sent::default();
        machine.drive(&mut sent).unwrap();
        self.wires.append(&mut sent.0);
        for outcome in machine.take_outcomes() {
            if let Some(message) = self.waiting.remove(&(node.id, outcome.ticket))
                && outcome.result.is_ok()
            {
                self.acknowledged.push(message);
            }
        }
        machine.take_cuts();
        if machine.behind().is_some() {
            self.fetch(position);
        }
        self.check();
    }

    /// What the fetching of blocks does, from the node with the longest books: one block now and then, so that a node lags behind
    /// for a while, in which it may restart, lead, or get another snapshot.
    fn fetch(&mut self, position: usize) {
        if self.random.random_range(0..10) > 0 {
            return;
        }
        self.fetches += 1;
        let longest = self.nodes.iter().max_by_key(|node| node.books.height()).unwrap().books.clone();
        let machine = self.nodes[position].machine.as_mut().unwrap();
        let Some(last) = machine.behind() else { return };
        let height = machine.books().height();
        let block = longest.0.lock().unwrap().get(usize::try_from(height).unwrap()).cloned();
        let Some((block, index)) = block else { return };
        assert!(height <= last);
        machine.books_mut().append(block, index).unwrap();
        machine.fetched().unwrap();
    }

    /// No two nodes ever have different blocks at one height.
    fn check(&self) {
        let chains: Vec<_> = self.nodes.iter().map(|node| node.books.headers()).collect();
        let longest = chains.iter().max_by_key(|chain| chain.len()).unwrap();
        assert!(chains.iter().all(|chain| longest.starts_with(chain)), "the books of two orderers differ");
    }

    /// All run and hear each other until they agree on one more message.
    fn heal(&mut self) {
        self.cut_off = None;
        for node in &mut self.nodes {
            if node.machine.is_none() {
                node.start();
            }
        }
        for round in 0..2_000 {
            for position in 0..self.nodes.len() {
                self.with(position, Machine::tick);
            }
            for message in std::mem::take(&mut self.wires) {
                self.deliver(message);
            }
            let leads = |node: &Node| {
                let leadership = node.machine.as_ref().unwrap().leadership();
                leadership == Leadership::Own && node.machine.as_ref().unwrap().accepts()
            };
            if round > 100
                && let Some(leader) = self.nodes.iter().position(leads)
            {
                let before = self.acknowledged.len();
                self.submit(leader);
                for _ in 0..50 {
                    for message in std::mem::take(&mut self.wires) {
                        self.deliver(message);
                    }
                }
                let equal = self.nodes.iter().all(|node| node.books.height() == self.nodes[0].books.height());
                if self.acknowledged.len() > before && equal {
                    return;
                }
            }
        }
        panic!("the orderers do not agree although all run and hear each other");
    }
}

fn run(seed: u64) -> (Vec<BlockHeader>, usize, usize) {
    let mut simulation = Simulation::new(seed);
    for _ in 0..6_000 {
        simulation.act();
    }
    simulation.heal();
    let envelopes = simulation.nodes[0].books.envelopes();
    for message in &simulation.acknowledged {
        let copies = envelopes.iter().filter(|envelope| *envelope == message).count();
        assert_eq!(copies, 1, "an acknowledged message is in the books exactly once");
    }
    (simulation.nodes[0].books.headers(), simulation.acknowledged.len(), simulation.fetches)
}

#[test]
fn whatever_the_network_does_books_never_differ_and_acknowledged_messages_are_kept() {
    let (mut acknowledged, mut fetched) = (0, 0);
    for seed in 0..100 {
        let outcome = std::panic::catch_unwind(|| run(seed));
        match outcome {
            Ok((_, messages, fetches)) => {
                acknowledged += messages;
                fetched += fetches;
            }
            Err(_) => panic!("seed {seed} fails"),
        }
    }
    assert!(acknowledged > 500, "the runs order messages at all: {acknowledged}");
    assert!(fetched > 5, "some nodes lag behind the log of the others: {fetched}");
}

#[test]
fn a_seed_names_one_run() {
    assert_eq!(run(42), run(42));
}
