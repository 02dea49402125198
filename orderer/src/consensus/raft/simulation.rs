//! The orderers of one channel over a simulated network, on simulated disks, driven from a seed. Messages are delayed, reordered, doubled and lost; nodes
//! lose power at any write, and come back; some are cut off; clocks jump; consenters come and go; disks are emptied or set back to old copies.
//!
//! Nothing here knows a clock, a thread or a socket, so that a seed names one run. After each step no two nodes may have different blocks at one
//! height, ever. At the end all nodes run and hear each other again: they must agree on more, and what was acknowledged must be there exactly once.
//!
//! `CONSORT_SIMULATION_SEEDS` says how many fresh seeds are run besides the fixed ones, `CONSORT_SIMULATION_SEED` names the one to be run alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::Bytes;
use consort_crypto::preimage::block_hash;
use consort_protos::{
    consort::orderer::{Hello, Standing, Verdict},
    fabric::common::{BlockHeader, Envelope},
};
use prost::Message as _;
use raft::eraftpb::Message;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    machine::{Books as _, Machine, MachineError, Outbox, Settings, Ticket},
    simulated::{CONSENTERS, MemoryBooks, MemoryDisk, Power, configured},
};
use crate::{
    consensus::Leadership,
    submission::{Kind, Submission},
};

/// Nodes that can be consenters.
const NODES: u64 = 6;

/// Steps of a run before everything is repaired.
const STEPS: usize = 6_000;

/// Rounds in which repaired nodes must agree.
const ROUNDS: usize = 4_000;

type SimulatedMachine = Machine<MemoryDisk, MemoryBooks>;

/// One message on the wire.
#[derive(Clone)]
enum Packet {
    Raft(Box<Message>, Standing),
    Hello(Hello),
    Verdict(Verdict),
}

#[derive(Clone)]
struct Sent {
    from: u64,
    to: u64,
    packet: Packet,
}

/// Collects what a machine sends, by Raft id.
#[derive(Default)]
struct Collected {
    raft: Vec<(u64, Message, Standing)>,
    hellos: Vec<(u64, Hello)>,
}

impl Outbox for Collected {
    fn send(&mut self, to: u64, message: Message, standing: Standing) {
        self.raft.push((to, message, standing));
    }

    fn greet(&mut self, to: u64, hello: Hello) {
        self.hellos.push((to, hello));
    }
}

struct Node {
    number: u64,
    power: Power,
    disk: MemoryDisk,
    books: MemoryBooks,
    machine: Option<SimulatedMachine>,
    copy: Option<(MemoryDisk, MemoryBooks)>,
    /// It has joined the channel.
    joined: bool,
    /// Somebody called whom its configuration does not name.
    stranger: bool,
}

impl Node {
    fn new(number: u64, genesis: &[u64]) -> Self {
        let power = Power::default();
        Self {
            number,
            disk: MemoryDisk::new(power.clone()),
            books: MemoryBooks::new(number, genesis, power.clone()),
            power,
            machine: None,
            copy: None,
            joined: false,
            stranger: false,
        }
    }

    fn start(&mut self, random: &mut StdRng) {
        self.power.restore();
        self.books.reopen();
        let ticks = 10 + 3 * usize::try_from(self.number).unwrap() + random.random_range(0..3);
        let mut own = StdRng::seed_from_u64(random.random());
        let settings =
            Settings { random: Box::new(move || own.random()), election_ticks: Some((ticks, ticks + 1)) };
        self.machine = Some(Machine::open(self.disk.clone(), self.books.clone(), settings).unwrap());
    }

    fn stop(&mut self) {
        self.machine = None;
    }

    /// Raft's members as this node knows them.
    fn counted(&self) -> Vec<u64> {
        self.machine.as_ref().map_or_else(Vec::new, |machine| {
            let (voters, learners) = machine.members();
            voters.iter().chain(learners).copied().collect()
        })
    }

    fn is_voter(&self) -> bool {
        self.machine.as_ref().is_some_and(|machine| {
            machine.id().is_some_and(|id| machine.members().0.contains(&id)) && machine.obstacle().is_none()
        })
    }
}

/// What a run did, to see that it did something.
#[derive(Debug, Default, PartialEq)]
struct Tally {
    acknowledged: usize,
    fetched: usize,
    reconfigured: usize,
    emptied: usize,
    set_back: usize,
    /// Runs that end without a leader because a majority lost its memory: a loss and a configuration came at once.
    stalled: usize,
    /// Logs that were given up although nothing had been lost: safe, but it costs an admission.
    given_up: usize,
}

struct Simulation {
    random: StdRng,
    nodes: Vec<Node>,
    wires: Vec<Sent>,
    cut_off: BTreeSet<u64>,
    submitted: u64,
    waiting: BTreeMap<(u64, Ticket), Bytes>,
    acknowledged: Vec<Bytes>,
    /// The hash of each block that any node ever had.
    agreed: Vec<[u8; 32]>,
    /// The nodes that lost memory and are not voters again.
    forgetful: BTreeSet<u64>,
    /// In this run machines lose power, and with it what they had not synced; in others disks are set back.
    loses_unsynced: bool,
    /// Nodes that a configuration left out.
    left_out: BTreeSet<u64>,
    tally: Tally,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let genesis: Vec<u64> = (1..=random.random_range(1..=5)).collect();
        let mut nodes: Vec<Node> = (1..=NODES).map(|number| Node::new(number, &genesis)).collect();
        for number in &genesis {
            let node = &mut nodes[position(*number)];
            node.joined = true;
            node.start(&mut random);
        }
        Self {
            loses_unsynced: random.random_bool(0.5),
            random,
            nodes,
            wires: Vec::new(),
            cut_off: BTreeSet::new(),
            submitted: 0,
            waiting: BTreeMap::new(),
            acknowledged: Vec::new(),
            agreed: Vec::new(),
            forgetful: BTreeSet::new(),
            left_out: BTreeSet::new(),
            tally: Tally::default(),
        }
    }

    fn any(&mut self) -> u64 {
        self.random.random_range(1..=NODES)
    }

    fn act(&mut self) {
        let number = self.any();
        match self.random.random_range(0..2000) {
            0..1150 => self.deliver_one(),
            1150..1200 => self.lose_or_double(),
            1200..1750 => self.tick(number),
            1750..1755 => (0..40).for_each(|_| self.tick(number)),
            1755..1910 => self.submit(number),
            1910..1918 => self.reconfigure(number),
            1918..1926 => self.fail(number),
            1926..1945 => self.come_back(number),
            1945..1948 => {
                self.cut_off.insert(number);
            }
            1948..1952 => self.cut_off.clear(),
            1952..1954 => self.copy(number),
            1954..1956 => self.set_back(number),
            1956..1958 => self.empty(number),
            1958..1963 => self.join(number),
            _ => {}
        }
    }

    fn deliver_one(&mut self) {
        if self.wires.is_empty() {
            return;
        }
        let position = self.random.random_range(0..self.wires.len());
        let sent = self.wires.swap_remove(position);
        self.deliver(sent);
    }

    fn lose_or_double(&mut self) {
        if self.wires.is_empty() {
            return;
        }
        let position = self.random.random_range(0..self.wires.len());
        if self.random.random_bool(0.7) {
            self.wires.swap_remove(position);
        } else {
            let again = self.wires[position].clone();
            self.wires.push(again);
        }
    }

    fn deliver(&mut self, sent: Sent) {
        if self.cut_off.contains(&sent.from) || self.cut_off.contains(&sent.to) {
            return;
        }
        let node = &mut self.nodes[position(sent.to)];
        if node.machine.is_none() {
            return;
        }
        let Some(from) = node.books.id_of(sent.from, &node.counted()) else {
            node.stranger = true;
            return;
        };
        match sent.packet {
            Packet::Raft(message, standing) => self.with(sent.to, |machine| {
                machine.step(from, &standing, *message);
                Ok(())
            }),
            Packet::Hello(hello) => {
                let mut verdict = None;
                self.with(sent.to, |machine| {
                    verdict = Some(machine.hear(from, &hello)?);
                    Ok(())
                });
                // Not told when the node failed meanwhile.
                if let (Some(verdict), true) = (verdict, self.nodes[position(sent.to)].machine.is_some()) {
                    self.wires.push(Sent { from: sent.to, to: sent.from, packet: Packet::Verdict(verdict) });
                }
            }
            Packet::Verdict(verdict) => self.with(sent.to, |machine| machine.judged(from, &verdict)),
        }
    }

    fn tick(&mut self, number: u64) {
        self.with(number, |machine| {
            machine.tick();
            machine.keep_memory()
        });
    }

    fn submission(&mut self, text: String, kind: Kind, sequence: u64) -> (Submission, Bytes) {
        let envelope = Envelope { payload: text.into_bytes().into(), ..Envelope::default() };
        let ordered: Bytes = envelope.encode_to_vec().into();
        let submission =
            Submission { original: envelope, ordered: ordered.clone(), size: 110, kind, sequence };
        (submission, ordered)
    }

    fn submit(&mut self, number: u64) {
        self.submitted += 1;
        let text = format!("message {} {}", self.submitted, "x".repeat(100));
        let sequence = self.nodes[position(number)].books.sequence();
        let (submission, ordered) = self.submission(text, Kind::Normal, sequence);
        self.hand_in(number, submission, ordered);
    }

    /// One consenter comes or goes.
    fn reconfigure(&mut self, number: u64) {
        let books = self.nodes[position(number)].books.clone();
        let mut next = books.consenters();
        let other = self.any();
        match next.iter().position(|one| *one == other) {
            Some(place) if next.len() > 1 => {
                next.remove(place);
            }
            None if next.len() < 5 => next.push(other),
            Some(_) | None => return,
        }
        self.submitted += 1;
        let numbers: Vec<String> = next.iter().map(u64::to_string).collect();
        let text = format!("{CONSENTERS} {}", numbers.join(" "));
        let (submission, ordered) = self.submission(text, Kind::Config, books.sequence());
        self.hand_in(number, submission, ordered);
    }

    fn hand_in(&mut self, number: u64, submission: Submission, ordered: Bytes) {
        let ticket = self.submitted;
        let accepts = self.nodes[position(number)].machine.as_ref().is_some_and(Machine::accepts);
        if accepts {
            if submission.kind == Kind::Normal {
                self.waiting.insert((number, ticket), ordered);
            }
            self.with(number, |machine| {
                machine.submit(submission, ticket);
                Ok(())
            });
        }
    }

    /// Its power will fail at one of its next writes.
    fn fail(&mut self, number: u64) {
        let (writes, done) = (self.random.random_range(0..6), self.random.random_bool(0.5));
        self.nodes[position(number)].power.fail_after(writes, done);
    }

    fn come_back(&mut self, number: u64) {
        let node = &mut self.nodes[position(number)];
        if node.machine.is_none() && node.joined {
            node.start(&mut self.random);
            self.follow_up(number);
        }
    }

    /// An operator copies its data folder.
    fn copy(&mut self, number: u64) {
        let node = &mut self.nodes[position(number)];
        if !self.forgetful.contains(&number) {
            node.copy = Some((node.disk.copy(), node.books.copy_for(number, node.power.clone())));
        }
    }

    /// Whether one more node may lose its memory without a majority having lost it.
    fn may_forget(&self, number: u64) -> bool {
        let consenters = self.longest().consenters();
        let forgetful = self.forgetful.iter().filter(|one| consenters.contains(one)).count();
        let is_settled = consenters.iter().all(|one| self.forgetful.contains(one) || self.is_voter(*one));
        let node = &self.nodes[position(number)];
        node.joined
            && consenters.contains(&number)
            && !self.forgetful.contains(&number)
            && is_settled
            && forgetful < (consenters.len() - 1) / 2
    }

    fn is_voter(&self, number: u64) -> bool {
        self.nodes[position(number)].is_voter()
    }

    /// An operator puts the copy back. The others are there to tell.
    fn set_back(&mut self, number: u64) {
        if self.loses_unsynced || !self.may_forget(number) || self.nodes[position(number)].copy.is_none() {
            return;
        }
        self.cut_off.clear();
        for other in 1..=NODES {
            self.nodes[position(other)].power.restore();
            self.come_back(other);
        }
        let node = &mut self.nodes[position(number)];
        let (disk, books) = node.copy.take().unwrap();
        (node.disk, node.books) = (disk, books);
        // What was said to others while it had its disk is no longer under way.
        self.wires.retain(|sent| sent.from != number && sent.to != number);
        self.waiting.retain(|(one, _), _| *one != number);
        let node = &mut self.nodes[position(number)];
        node.start(&mut self.random);
        self.forgetful.insert(number);
        self.tally.set_back += 1;
        self.follow_up(number);
        // Answers are here before the election timeout, as in any network that is in order.
        for _ in 0..20 {
            for sent in std::mem::take(&mut self.wires) {
                self.deliver(sent);
            }
        }
    }

    /// The disk is replaced by an empty one, and the channel joined again: by the genesis block while that names the consenters that there are, else by a later
    /// configuration, with the blocks of another node.
    fn empty(&mut self, number: u64) {
        if !self.may_forget(number) {
            return;
        }
        self.waiting.retain(|(one, _), _| *one != number);
        let keeps_blocks = self.random.random_bool(0.3);
        self.forgetful.insert(number);
        self.tally.emptied += 1;
        self.make_new(number, keeps_blocks);
    }

    fn make_new(&mut self, number: u64, keeps_blocks: bool) {
        let longest = self.longest();
        let node = &mut self.nodes[position(number)];
        node.stop();
        node.disk = MemoryDisk::new(node.power.clone());
        node.copy = None;
        if !keeps_blocks {
            let genesis: Vec<u64> = (1..=longest.genesis_consenters()).collect();
            node.books = if longest.consenters() == genesis && self.random.random_bool(0.5) {
                MemoryBooks::new(number, &genesis, node.power.clone())
            } else {
                longest.copy_for(number, node.power.clone())
            };
        }
        node.joined = true;
        node.start(&mut self.random);
        self.follow_up(number);
    }

    /// A node that the configuration names and that does not run the channel joins it: with what it had when it was a consenter before, or anew.
    fn join(&mut self, number: u64) {
        let node = &self.nodes[position(number)];
        if node.joined || !self.longest().consenters().contains(&number) {
            return;
        }
        let has_old_data = node.books.height() > 1 && self.random.random_bool(0.5);
        if has_old_data && node.books.own_id().is_some() {
            self.nodes[position(number)].joined = true;
            return self.come_back(number);
        }
        self.make_new(number, false);
    }

    fn longest(&self) -> MemoryBooks {
        self.nodes.iter().max_by_key(|node| node.books.height()).unwrap().books.clone()
    }

    /// Gives a running node an input and performs what follows.
    fn with(&mut self, number: u64, input: impl FnOnce(&mut SimulatedMachine) -> Result<(), MachineError>) {
        let node = &mut self.nodes[position(number)];
        let Some(machine) = &mut node.machine else { return };
        let had_id = machine.id();
        let outcome = input(machine);
        self.after(number, outcome);
        let node = &self.nodes[position(number)];
        let reason =
            node.machine.as_ref().filter(|machine| machine.id().is_none()).and_then(Machine::obstacle);
        // At the first start a node may take the id of its place just when the others lose patience and give it another one.
        let gave_up = had_id.is_some() && reason.is_some_and(|reason| !is_replaced(&reason));
        if gave_up && !self.forgetful.contains(&number) && !self.left_out.contains(&number) {
            self.tally.given_up += 1;
        }
    }

    fn follow_up(&mut self, number: u64) {
        self.after(number, Ok(()));
    }

    fn after(&mut self, number: u64, outcome: Result<(), MachineError>) {
        let node = &mut self.nodes[position(number)];
        let Some(machine) = &mut node.machine else { return };
        let mut collected = Collected::default();
        machine.cut_if_idle();
        let outcome = outcome.and_then(|()| machine.drive(&mut collected));
        for outcome in machine.take_outcomes() {
            if let Some(message) = self.waiting.remove(&(number, outcome.ticket))
                && outcome.result.is_ok()
            {
                self.acknowledged.push(message);
                self.tally.acknowledged += 1;
            }
        }
        machine.take_cuts();
        for (id, message, standing) in collected.raft {
            if let Some(to) = node.books.node_of(id) {
                let packet = Packet::Raft(Box::new(message), standing);
                self.wires.push(Sent { from: number, to, packet });
            }
        }
        for (id, hello) in collected.hellos {
            if let Some(to) = node.books.node_of(id) {
                self.wires.push(Sent { from: number, to, packet: Packet::Hello(hello) });
            }
        }
        if let Err(error) = outcome {
            assert!(node.power.is_cut(), "node {number} stops: {error}");
            node.stop();
            if self.loses_unsynced {
                node.disk.lose_unsynced();
            }
        }
        self.fetch(number);
        self.leave(number);
        self.check(number);
    }

    /// What the fetching of blocks does, from the node with the longest books: one block now and then, so that a node lags behind
    /// for a while, in which it may restart, lead, or get another snapshot.
    fn fetch(&mut self, number: u64) {
        if self.random.random_range(0..10) > 0 {
            return;
        }
        let longest = self.longest();
        let node = &mut self.nodes[position(number)];
        let Some(machine) = &mut node.machine else { return };
        if machine.leadership() != Leadership::Nobody {
            node.stranger = false;
        }
        let height = machine.books().height();
        let is_wanted = machine.behind().is_some_and(|last| height <= last)
            || node.stranger && machine.leadership() == Leadership::Nobody;
        let Some(kept) = longest.kept(height).filter(|_| is_wanted) else { return };
        self.tally.fetched += 1;
        let outcome = machine.fetching(kept.index()).and_then(|()| {
            machine.books_mut().append_fetched(&kept).map_err(MachineError::Books)?;
            machine.fetched()
        });
        if outcome.is_err() {
            assert!(node.power.is_cut());
            node.stop();
        }
    }

    /// A node that is no consenter any more and that Raft does not count leaves the channel.
    fn leave(&mut self, number: u64) {
        let node = &mut self.nodes[position(number)];
        let Some(machine) = &node.machine else { return };
        let is_counted = machine.id().is_some_and(|id| node.counted().contains(&id));
        let is_named = node.books.own_id().is_some();
        let is_voter = node.is_voter();
        if is_voter {
            self.forgetful.remove(&number);
        }
        if !is_named && !is_counted {
            node.stop();
            node.joined = false;
            self.tally.reconfigured += 1;
            self.forgetful.remove(&number);
        }
    }

    /// No two nodes ever have different blocks at one height.
    fn check(&mut self, number: u64) {
        let headers = self.nodes[position(number)].books.headers();
        let known = self.agreed.len();
        // Blocks that were there at the last check are not hashed again.
        for header in headers.iter().skip(known.saturating_sub(1)) {
            let (place, hash) = (usize::try_from(header.number).unwrap(), block_hash(header));
            match self.agreed.get(place) {
                Some(agreed) => assert_eq!(*agreed, hash, "two blocks with number {place}"),
                None => {
                    self.agreed.push(hash);
                    let kept = self.nodes[position(number)].books.kept(header.number).unwrap();
                    if let Some(named) = configured(&kept.block) {
                        self.left_out.extend((1..=NODES).filter(|node| !named.contains(node)));
                    }
                }
            }
        }
        if let (true, Some(last)) = (headers.len() < known, headers.last()) {
            assert_eq!(self.agreed[headers.len() - 1], block_hash(last), "two blocks with one number");
        }
    }

    /// All run and hear each other until they agree on one more message and all have it.
    fn heal(&mut self) {
        self.cut_off.clear();
        for round in 0..ROUNDS {
            for number in 1..=NODES {
                self.nodes[position(number)].power.restore();
                self.come_back(number);
                self.join(number);
                self.tick(number);
            }
            for sent in std::mem::take(&mut self.wires) {
                self.deliver(sent);
            }
            let leader = (1..=NODES)
                .find(|number| self.nodes[position(*number)].machine.as_ref().is_some_and(Machine::accepts));
            if let (true, Some(leader)) = (round > 100 && round % 10 == 0, leader)
                && self.is_whole(leader)
            {
                let before = self.acknowledged.len();
                self.submit(leader);
                for _ in 0..50 {
                    for sent in std::mem::take(&mut self.wires) {
                        self.deliver(sent);
                    }
                }
                let height = self.longest().height();
                let consenters = self.longest().consenters();
                let equal = consenters.iter().all(|one| self.nodes[position(*one)].books.height() == height);
                if self.acknowledged.len() > before && equal {
                    return;
                }
            }
        }
        if self.has_no_majority() {
            self.tally.stalled = 1;
            return;
        }
        panic!("the orderers do not agree although all run and hear each other: {}", self.describe());
    }

    /// All consenters are voters, and nobody else is.
    fn is_whole(&self, leader: u64) -> bool {
        let node = &self.nodes[position(leader)];
        let (voters, learners) = node.machine.as_ref().unwrap().members();
        let (mut voters, mut ids) = (voters.to_vec(), node.books.ids().0);
        voters.sort_unstable();
        ids.sort_unstable();
        learners.is_empty() && voters == ids
    }

    /// Too many of Raft's voters will never speak again.
    fn has_no_majority(&self) -> bool {
        let machines = || self.nodes.iter().filter_map(|node| node.machine.as_ref());
        let newest =
            machines().filter(|machine| machine.id().is_some()).max_by_key(|machine| machine.last_applied());
        let Some(newest) = newest else { return true };
        let voters = newest.members().0;
        let speak = voters.iter().filter(|voter| machines().any(|machine| machine.id() == Some(**voter)));
        speak.count() <= voters.len() / 2
    }

    fn describe(&self) -> String {
        let describe = |node: &Node| {
            let machine = node.machine.as_ref();
            format!(
                "\n  node {}: joined {}, height {}, consenters {:?}, ids {:?}, id {:?}, members {:?}, {:?}, term {:?}, {}",
                node.number,
                node.joined,
                node.books.height(),
                node.books.consenters(),
                node.books.ids(),
                machine.and_then(Machine::id),
                machine.map(Machine::members),
                machine.map(Machine::leadership),
                machine.map(Machine::term),
                machine.map(Machine::describe).unwrap_or_default(),
            )
        };
        self.nodes.iter().map(describe).collect()
    }
}

fn is_replaced(reason: &str) -> bool {
    reason.contains("another Raft id") || reason.contains("in the place of this node's")
}

fn position(number: u64) -> usize {
    usize::try_from(number - 1).unwrap()
}

fn run(seed: u64) -> (Vec<BlockHeader>, Tally) {
    let mut simulation = Simulation::new(seed);
    for _ in 0..STEPS {
        simulation.act();
    }
    simulation.heal();
    let longest = simulation.longest();
    let envelopes = longest.envelopes();
    for message in &simulation.acknowledged {
        let copies = envelopes.iter().filter(|envelope| *envelope == message).count();
        assert_eq!(copies, 1, "an acknowledged message is in the books exactly once");
    }
    (longest.headers(), simulation.tally)
}

fn run_all(first: u64, count: u64) -> Tally {
    let mut sum = Tally::default();
    for done in 0..count {
        let seed = first + done;
        let Ok((_, tally)) = catch_unwind(AssertUnwindSafe(|| run(seed))) else {
            panic!("seed {seed} fails; CONSORT_SIMULATION_SEED={seed} runs it alone");
        };
        sum.acknowledged += tally.acknowledged;
        sum.fetched += tally.fetched;
        sum.reconfigured += tally.reconfigured;
        sum.emptied += tally.emptied;
        sum.set_back += tally.set_back;
        sum.stalled += tally.stalled;
        sum.given_up += tally.given_up;
        if (done + 1) % 50 == 0 {
            eprintln!("{} of {count} runs: {sum:?}", done + 1);
        }
    }
    sum
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn whatever_happens_books_never_differ_and_acknowledged_messages_are_kept() {
    if let Some(seed) = variable("CONSORT_SIMULATION_SEED") {
        let (headers, tally) = run(seed);
        eprintln!("seed {seed}: {} blocks, {tally:?}", headers.len());
        return;
    }
    let tally = run_all(0, 40);
    assert!(tally.acknowledged > 500, "the runs order messages at all: {tally:?}");
    assert!(tally.fetched > 20, "some nodes lag behind the log of the others: {tally:?}");
    assert!(tally.reconfigured > 2, "consenters go: {tally:?}");
    assert_eq!(tally.given_up, 0, "no log is given up without need: {tally:?}");
    assert!(tally.stalled < 2, "most runs end with a leader: {tally:?}");
    assert!(tally.emptied > 5 && tally.set_back > 2, "disks are lost: {tally:?}");
}

#[test]
fn fresh_seeds_hold_as_well() {
    let seeds = variable("CONSORT_SIMULATION_SEEDS").unwrap_or(10);
    let first = rand::random_range(1_000..u64::from(u32::MAX));
    eprintln!("{seeds} runs from seed {first}");
    let tally = run_all(first, seeds);
    eprintln!("{seeds} runs: {tally:?}");
}

#[test]
fn a_seed_names_one_run() {
    assert_eq!(run(42), run(42));
}
