//! One orderer of a simulation: its machine, what it stands on, and what it sends.

use std::collections::BTreeSet;

use consort_protos::consort::orderer::{Hello, Standing, Verdict};
use raft::eraftpb::Message;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    machine::{Machine, Outbox, Settings},
    simulated::{MemoryBooks, MemoryDisk, Power},
};

pub(super) type SimulatedMachine = Machine<MemoryDisk, MemoryBooks>;

/// One message on the wire.
#[derive(Clone)]
pub(super) enum Packet {
    Raft(Box<Message>, Standing),
    Hello(Hello),
    Verdict(Verdict),
    Introduction,
}

#[derive(Clone)]
pub(super) struct Sent {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) packet: Packet,
}

/// Collects what a machine sends, by Raft id.
#[derive(Default)]
pub(super) struct Collected {
    pub(super) raft: Vec<(u64, Message, Standing)>,
    pub(super) hellos: Vec<(u64, Hello)>,
}

impl Outbox for Collected {
    fn send(&mut self, to: u64, message: Message, standing: Standing) {
        self.raft.push((to, message, standing));
    }

    fn greet(&mut self, to: u64, hello: Hello) {
        self.hellos.push((to, hello));
    }
}

pub(super) struct Node {
    pub(super) number: u64,
    pub(super) power: Power,
    pub(super) disk: MemoryDisk,
    pub(super) books: MemoryBooks,
    pub(super) machine: Option<SimulatedMachine>,
    pub(super) copy: Option<(MemoryDisk, MemoryBooks)>,
    /// Ticks that have passed and that its machine has not heard of.
    pub(super) slept: usize,
    /// Ticks, as configured, since its own slow clock had one.
    pub(super) slowed: u32,
    /// It has joined the channel.
    pub(super) joined: bool,
    /// Somebody called whom its configuration does not name.
    pub(super) stranger: bool,
    /// The ids of those who did not take it for a consenter.
    pub(super) doubters: BTreeSet<u64>,
    /// A consenter that its configuration does not name has introduced itself.
    pub(super) called: bool,
    /// Its id, term and last entry, if it led when it was last looked at.
    pub(super) led_with: Option<(u64, (u64, u64))>,
    /// The orderer that it fetches blocks from, and the next one of that stream.
    pub(super) stream: Option<(u64, u64)>,
}

impl Node {
    pub(super) fn new(number: u64, genesis: &[u64]) -> Self {
        let power = Power::default();
        Self {
            number,
            disk: MemoryDisk::new(power.clone()),
            books: MemoryBooks::new(number, genesis, power.clone()),
            power,
            machine: None,
            copy: None,
            slept: 0,
            slowed: 0,
            joined: false,
            stranger: false,
            doubters: BTreeSet::new(),
            called: false,
            led_with: None,
            stream: None,
        }
    }

    pub(super) fn start(&mut self, random: &mut StdRng) {
        self.power.restore();
        self.books.reopen();
        self.doubters.clear();
        self.called = false;
        (self.slept, self.slowed) = (0, 0);
        let ticks = 10 + 3 * usize::try_from(self.number).unwrap() + random.random_range(0..3);
        let mut own = StdRng::seed_from_u64(random.random());
        let settings =
            Settings { random: Box::new(move || own.random()), election_ticks: Some((ticks, ticks + 1)) };
        self.machine = Some(Machine::open(self.disk.clone(), self.books.clone(), settings).unwrap());
    }

    pub(super) fn stop(&mut self) {
        self.machine = None;
        self.stream = None;
    }

    /// Its power has failed. With it goes what was not synced: of the log all, of the books a share.
    pub(super) fn lose_power(&mut self, unsynced: Option<f64>) {
        assert!(self.power.is_cut(), "node {} stops without a loss of power", self.number);
        self.stop();
        if let Some(share) = unsynced {
            self.disk.lose_unsynced();
            self.books.lose_unsynced(share);
        }
    }

    /// Raft's members as this node knows them.
    pub(super) fn counted(&self) -> Vec<u64> {
        self.machine.as_ref().map_or_else(Vec::new, Machine::counted)
    }

    pub(super) fn is_voter(&self) -> bool {
        self.machine.as_ref().is_some_and(|machine| {
            machine.id().is_some_and(|id| machine.members().0.contains(&id)) && machine.obstacle().is_none()
        })
    }
}
