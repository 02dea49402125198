//! Three consenters in the calling thread, for tests of what one of them does.

use bytes::Bytes;
use consort_protos::fabric::common::Envelope;
use prost::Message as _;
use rand::{SeedableRng as _, rngs::StdRng};

use super::{
    machine::{Outcome, Ticket},
    simulated::CONSENTERS,
    simulated_node::{Collected, Node, SimulatedMachine},
};
use crate::submission::{Kind, Submission};

/// Three consenters of which the first was just elected, by the vote of the second.
pub(super) struct Elected {
    nodes: Vec<Node>,
    /// Nobody hears this one, and it hears nobody.
    pub(super) silent: Option<usize>,
    /// Ticks that have passed and that a machine has not heard of.
    slept: [usize; 3],
}

impl Elected {
    pub(super) fn new() -> Self {
        let mut random = StdRng::seed_from_u64(7);
        let mut nodes: Vec<Node> = (1..=3).map(|number| Node::new(number, &[1, 2, 3])).collect();
        nodes.iter_mut().for_each(|node| node.start(&mut random));
        let mut elected = Self { nodes, silent: None, slept: [0; 3] };
        elected.exchange();
        elected.silent = Some(2);
        elected.machine(0).campaign();
        elected.exchange();
        assert!(elected.machine(0).leads());
        elected
    }

    pub(super) fn machine(&mut self, index: usize) -> &mut SimulatedMachine {
        self.nodes[index].machine.as_mut().unwrap()
    }

    /// A tick passes for all, and those wake who wanted to, and talk. Whether each woke because of the time.
    pub(super) fn sleep(&mut self) -> [bool; 3] {
        self.slept = self.slept.map(|slept| slept + 1);
        let slept = self.slept;
        let wakes = std::array::from_fn(|index| slept[index] >= self.machine(index).quiet_ticks());
        (0..3).filter(|index| wakes[*index]).for_each(|index| self.wake(index));
        self.exchange();
        (0..3).for_each(|index| self.machine(index).keep_memory().unwrap());
        wakes
    }

    /// So many ticks pass.
    pub(super) fn sleep_for(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.sleep();
        }
    }

    /// A machine hears of the ticks that have passed.
    fn wake(&mut self, index: usize) {
        let slept = std::mem::take(&mut self.slept[index]);
        self.machine(index).pass(slept).unwrap();
    }

    /// Lets the nodes talk until nothing is left to be said.
    pub(super) fn exchange(&mut self) {
        let mut is_quiet = false;
        while !std::mem::replace(&mut is_quiet, true) {
            for index in 0..3 {
                let mut sent = Collected::default();
                self.machine(index).drive(&mut sent).unwrap();
                let (from, silent) = (index as u64 + 1, self.silent);
                let is_heard = |to: u64| silent.is_none_or(|one| one != index && one != to as usize - 1);
                is_quiet &= sent.raft.is_empty() && sent.hellos.is_empty();
                for (to, message, standing) in sent.raft.into_iter().filter(|(to, ..)| is_heard(*to)) {
                    self.wake(to as usize - 1);
                    self.machine(to as usize - 1).step(from, &standing, message);
                }
                for (to, hello) in sent.hellos.into_iter().filter(|(to, _)| is_heard(*to)) {
                    self.wake(to as usize - 1);
                    let verdict = self.machine(to as usize - 1).hear(from, &hello).unwrap();
                    self.machine(index).judged(to, &verdict).unwrap();
                }
            }
        }
    }

    /// An operator takes the second consenter away.
    pub(super) fn remove_second(&mut self, ticket: Ticket) {
        let payload = Bytes::from(format!("{CONSENTERS} 1 3"));
        let original = Envelope { payload, ..Envelope::default() };
        let ordered = original.encode_to_vec().into();
        let submission = Submission { original, ordered, size: 7, kind: Kind::Config, sequence: 0 };
        self.machine(0).submit(submission, ticket);
        self.exchange();
    }

    pub(super) fn send(&mut self, text: &'static str, ticket: Ticket) {
        let original = Envelope { payload: Bytes::from_static(text.as_bytes()), ..Envelope::default() };
        let ordered = original.encode_to_vec().into();
        let submission = Submission { original, ordered, size: 7, kind: Kind::Normal, sequence: 0 };
        self.machine(0).submit(submission, ticket);
        self.machine(0).cut_if_idle();
    }

    pub(super) fn outcomes(&mut self) -> Vec<Outcome> {
        self.machine(0).take_outcomes()
    }
}
