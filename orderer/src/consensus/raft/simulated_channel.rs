//! The orderers of a simulated channel with the network between them: what happens in one step.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use consort_protos::fabric::common::Envelope;
use prost::Message as _;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    alone::{Evidence, Introduction},
    catch_up::{Fetched, NotAppended},
    machine::{Books as _, Machine, MachineError, Ticket},
    simulated::{Kept, MemoryBooks, configured},
    simulated_node::{Collected, Node, Packet, Sent, SimulatedMachine},
    simulation::Tally,
};
use crate::submission::{Kind, Submission};

/// Nodes that can be consenters.
pub(super) const NODES: u64 = 6;

/// Whether nodes sleep in the run of this seed.
fn rests(seed: u64) -> bool {
    seed.is_multiple_of(4)
}

pub(super) struct Simulation {
    pub(super) random: StdRng,
    pub(super) nodes: Vec<Node>,
    pub(super) wires: Vec<Sent>,
    pub(super) cut_off: BTreeSet<u64>,
    pub(super) submitted: u64,
    pub(super) waiting: BTreeMap<(u64, Ticket), Bytes>,
    pub(super) acknowledged: Vec<Bytes>,
    /// The hash of each block that any node ever had.
    pub(super) agreed: Vec<[u8; 32]>,
    /// The nodes that lost memory and are not voters again.
    pub(super) forgetful: BTreeSet<u64>,
    /// In this run machines lose power, and with it what they had not synced; in others disks are set back.
    pub(super) loses_unsynced: bool,
    /// Nodes that a configuration left out.
    pub(super) left_out: BTreeSet<u64>,
    /// In this run nodes sleep while nothing can happen.
    pub(super) rests: bool,
    /// Events are printed: this seed runs alone.
    pub(super) is_told: bool,
    /// An operator had to name the node that goes on: what only lost logs held is lost.
    pub(super) recovered: bool,
    pub(super) tally: Tally,
}

impl Simulation {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let genesis = random.random_range(1..=5);
        Self { rests: rests(seed), ..Self::of(random, genesis) }
    }

    /// A channel that begins with one consenter, whose disk keeps what was written.
    pub(super) fn of_one(seed: u64) -> Self {
        Self { loses_unsynced: false, rests: rests(seed), ..Self::of(StdRng::seed_from_u64(seed), 1) }
    }

    fn of(mut random: StdRng, genesis: u64) -> Self {
        let genesis: Vec<u64> = (1..=genesis).collect();
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
            rests: false,
            is_told: false,
            recovered: false,
            tally: Tally::default(),
        }
    }

    pub(super) fn any(&mut self) -> u64 {
        self.random.random_range(1..=NODES)
    }

    pub(super) fn act(&mut self) {
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
            1948..1952 => self.reconnect(),
            1952..1955 => self.copy(number),
            1968..1973 => self.copy_alone(),
            1973..1990 => self.set_back_alone(),
            1955..1961 => self.set_back(number),
            1961..1963 => self.empty(number),
            1963..1968 => self.join(number),
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

    pub(super) fn deliver(&mut self, sent: Sent) {
        if self.cut_off.contains(&sent.from) || self.cut_off.contains(&sent.to) {
            return;
        }
        let node = &mut self.nodes[position(sent.to)];
        if node.machine.is_none() {
            return;
        }
        let Some(from) = node.books.id_of(sent.from, &node.counted()) else {
            node.stranger = true;
            return self.refuse(&sent);
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
            Packet::Introduction => {}
        }
    }

    /// A node called whom the other one's configuration does not name: it introduces itself.
    fn refuse(&mut self, sent: &Sent) {
        if matches!(sent.packet, Packet::Introduction) {
            return self.introduced(sent.from, sent.to);
        }
        let sender = &mut self.nodes[position(sent.from)];
        sender.doubters.extend(sender.books.id_of(sent.to, &sender.counted()));
        let newest = sender.books.newest_configuration();
        let names = |number| configured(&newest.block).is_some_and(|named| named.contains(&number));
        if sender.machine.is_some() && names(sent.from) && names(sent.to) {
            self.wires.push(Sent { from: sent.from, to: sent.to, packet: Packet::Introduction });
        }
    }

    /// It shows the first block that is missing here. A lone consenter has made that itself; else it depends on who signed it whether it satisfies the rule in force.
    fn introduced(&mut self, from: u64, number: u64) {
        let is_signed = self.random.random_bool(0.5);
        let (caller, node) = (&self.nodes[position(from)], &self.nodes[position(number)]);
        let is_alone = node.machine.as_ref().is_some_and(Machine::is_alone);
        let Some(next) = caller.books.first_missing_in(&node.books) else { return };
        if caller.machine.is_none() || !(is_alone || is_signed) {
            return;
        }
        let evidence = match next.number() < node.books.height() {
            true => Evidence::Contradiction,
            false => Evidence::Proof,
        };
        let newest = caller.books.newest_configuration();
        let ids = [next.ids(), newest.ids()].concat();
        let introduction = Introduction { number: next.number(), ids, evidence };
        let mut counts = false;
        self.with(number, |machine| {
            counts = machine.introduced(&introduction)?;
            Ok(())
        });
        self.nodes[position(number)].called |= counts;
    }

    /// Nodes open streams to one that has come up, or within reach again, and it to them.
    pub(super) fn connect(&mut self, number: u64) {
        for other in (1..=NODES).filter(|other| *other != number) {
            for (one, another) in [(number, other), (other, number)] {
                let node = &self.nodes[position(one)];
                if let Some(id) = node.books.id_of(another, &node.counted()) {
                    self.with(one, |machine| {
                        machine.reached(id);
                        Ok(())
                    });
                }
            }
        }
    }

    /// All nodes that were cut off are within reach again.
    pub(super) fn reconnect(&mut self) {
        for number in std::mem::take(&mut self.cut_off) {
            self.connect(number);
        }
    }

    /// A tick passes for a node, which may sleep on.
    pub(super) fn tick(&mut self, number: u64) {
        let rests = self.rests;
        let node = &mut self.nodes[position(number)];
        let Some(machine) = &mut node.machine else { return };
        node.slowed += 1;
        if rests && node.slowed < machine.slowness() {
            return;
        }
        node.slowed = 0;
        node.slept += 1;
        if !rests || node.slept >= machine.quiet_ticks() {
            self.with(number, Machine::keep_memory);
        }
    }

    pub(super) fn submission(&mut self, text: String, kind: Kind, sequence: u64) -> (Submission, Bytes) {
        let envelope = Envelope { payload: text.into_bytes().into(), ..Envelope::default() };
        let ordered: Bytes = envelope.encode_to_vec().into();
        let submission =
            Submission { original: envelope, ordered: ordered.clone(), size: 110, kind, sequence };
        (submission, ordered)
    }

    pub(super) fn submit(&mut self, number: u64) {
        self.submitted += 1;
        let text = format!("message {} {}", self.submitted, "x".repeat(100));
        let sequence = self.nodes[position(number)].books.sequence();
        let (submission, ordered) = self.submission(text, Kind::Normal, sequence);
        self.hand_in(number, submission, ordered);
    }

    pub(super) fn hand_in(&mut self, number: u64, submission: Submission, ordered: Bytes) {
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

    pub(super) fn is_voter(&self, number: u64) -> bool {
        self.nodes[position(number)].is_voter()
    }

    pub(super) fn longest(&self) -> MemoryBooks {
        self.nodes.iter().max_by_key(|node| node.books.height()).unwrap().books.clone()
    }

    /// Gives a running node an input and performs what follows.
    pub(super) fn with(
        &mut self,
        number: u64,
        input: impl FnOnce(&mut SimulatedMachine) -> Result<(), MachineError>,
    ) {
        let node = &mut self.nodes[position(number)];
        let Some(machine) = &mut node.machine else { return };
        let had_id = machine.id();
        let outcome = machine.pass(std::mem::take(&mut node.slept)).and_then(|()| input(machine));
        self.after(number, outcome);
        let node = &self.nodes[position(number)];
        let reason =
            node.machine.as_ref().filter(|machine| machine.id().is_none()).and_then(Machine::obstacle);
        // At the first start a node may take the id of its place just when the others lose patience and give it another one.
        let gave_up = had_id.is_some() && reason.is_some_and(|reason| !is_replaced(&reason));
        if gave_up && !self.forgetful.contains(&number) && !self.left_out.contains(&number) {
            self.tally.given_up += 1;
            if self.is_told {
                eprintln!("node {number} gives up its log without need: {}", self.describe());
            }
        }
    }

    pub(super) fn follow_up(&mut self, number: u64) {
        self.after(number, Ok(()));
    }

    fn after(&mut self, number: u64, outcome: Result<(), MachineError>) {
        let node = &mut self.nodes[position(number)];
        let Some(machine) = &mut node.machine else { return };
        let mut collected = Collected::default();
        // A leader may leave a pause between blocks.
        if self.random.random_bool(0.7) {
            machine.cut_if_idle();
        }
        let outcome = outcome.and_then(|()| machine.drive(&mut collected));
        node.led_with = machine.led_with();
        for outcome in machine.take_outcomes() {
            if let Some(message) = self.waiting.remove(&(number, outcome.ticket))
                && outcome.result.is_ok()
            {
                self.acknowledged.push(message);
                self.tally.acknowledged += 1;
            }
        }
        machine.take_cuts();
        let counted = node.counted();
        for (id, message, standing) in collected.raft {
            if let Some(to) = node.books.node_of(id, &counted) {
                let packet = Packet::Raft(Box::new(message), standing);
                self.wires.push(Sent { from: number, to, packet });
            }
        }
        for (id, hello) in collected.hellos {
            if let Some(to) = node.books.node_of(id, &counted) {
                self.wires.push(Sent { from: number, to, packet: Packet::Hello(hello) });
            }
        }
        if let Err(error) = outcome {
            assert!(node.power.is_cut(), "node {number} stops: {error}");
            self.lose_power(number);
        }
        self.fetch(number);
        self.leave(number);
        self.check(number);
    }

    fn lose_power(&mut self, number: u64) {
        let unsynced = self.loses_unsynced.then(|| self.random.random());
        self.nodes[position(number)].lose_power(unsynced);
    }

    /// What the channel's task and its fetching do: one stream of blocks at a time, from any other orderer that runs. It comes slowly, so that a node lags
    /// behind for a while, in which it may restart, lead, or get another snapshot; and it may break, skip, repeat or lie.
    fn fetch(&mut self, number: u64) {
        if self.random.random_range(0..10) == 0 {
            self.fetch_one(number);
        }
    }

    pub(super) fn fetch_one(&mut self, number: u64) {
        let node = &mut self.nodes[position(number)];
        let Some(machine) = &mut node.machine else { return };
        if machine.is_led() {
            node.stranger = false;
            node.doubters.clear();
        }
        let (wanted, height) = (machine.wanted(node.stranger, node.called), machine.books().height());
        if wanted.is_none_or(|last| height > last) {
            node.stream = None;
            return;
        }
        let (source, next) = node.stream.unwrap_or((self.random.random_range(1..=NODES), height));
        let next = match self.random.random_range(0..40) {
            0 => next + 1,
            1 => next.saturating_sub(1),
            _ => next,
        };
        let lies = self.random.random_range(0..30) == 0;
        let is_cut = self.cut_off.contains(&source) || self.cut_off.contains(&number);
        let from = &self.nodes[position(source)];
        let kept = from.books.kept(next).filter(|_| from.machine.is_some() && !is_cut && source != number);
        let node = &mut self.nodes[position(number)];
        node.stream = kept.is_some().then_some((source, next + 1));
        if let Some(kept) = kept {
            self.take_fetched(number, &kept, lies);
        }
    }

    fn take_fetched(&mut self, number: u64, kept: &Kept, lies: bool) {
        let node = &mut self.nodes[position(number)];
        let Some(machine) = &mut node.machine else { return };
        let block = kept.number();
        let mut offer = kept.offer();
        if lies {
            offer.index = u64::MAX;
        }
        let check = |_: &MemoryBooks| match lies {
            true => Err("it is not signed by an orderer".to_owned()),
            false => Ok(()),
        };
        let taken = machine
            .take_fetched(&offer, check, |books| books.append_fetched(kept).map_err(NotAppended::Broken));
        match taken {
            Ok(Fetched::Taken) => {
                assert!(!lies || block < machine.books().height());
                self.tally.fetched += 1;
            }
            Ok(Fetched::Refused(_)) => node.stream = None,
            Err(_) => self.lose_power(number),
        }
    }

    /// A node that is no consenter any more and that Raft does not count leaves the channel.
    fn leave(&mut self, number: u64) {
        let node = &mut self.nodes[position(number)];
        let Some(machine) = &node.machine else { return };
        let may_go = machine.is_removed(&node.doubters);
        let is_voter = node.is_voter();
        if is_voter {
            self.forgetful.remove(&number);
        }
        if may_go {
            node.stop();
            node.joined = false;
            self.tally.reconfigured += 1;
            self.forgetful.remove(&number);
        }
    }
}

fn is_replaced(reason: &str) -> bool {
    reason.contains("another Raft id") || reason.contains("in the place of this node's")
}

/// The place of a node in the list.
pub(super) fn position(number: u64) -> usize {
    usize::try_from(number - 1).unwrap()
}
