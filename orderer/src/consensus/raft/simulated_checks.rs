//! What must hold in a simulation, whatever happened.

use consort_crypto::preimage::block_hash;
use rand::RngExt as _;

use super::{
    machine::{Books as _, Machine},
    simulated::configured,
    simulated_channel::{NODES, Simulation, position},
    simulated_node::Node,
};

/// Rounds in which repaired nodes must agree.
const ROUNDS: usize = 4_000;

impl Simulation {
    /// No two nodes ever have different blocks at one height.
    pub(super) fn check(&mut self, number: u64) {
        let headers = self.nodes[position(number)].books.headers();
        let known = self.agreed.len();
        // Blocks that were there at the last check are not hashed again.
        for header in headers.iter().skip(known.saturating_sub(1)) {
            let (place, hash) = (usize::try_from(header.number).unwrap(), block_hash(header));
            match self.agreed.get(place) {
                Some(agreed) => {
                    assert_eq!(*agreed, hash, "two blocks with number {place}: {}", self.describe());
                }
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
    pub(super) fn heal(&mut self) {
        self.reconnect();
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
        if self.has_no_majority() && self.recover() {
            return self.heal();
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

    pub(super) fn describe(&self) -> String {
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

    /// A majority forgot: an operator names the orderer with the most blocks as the one that goes on. Whether that was possible.
    fn recover(&mut self) -> bool {
        let height = self.longest().height();
        let can = |node: &&Node| {
            node.machine.is_some() && node.books.own_id().is_some() && node.books.height() == height
        };
        let candidates: Vec<u64> = self.nodes.iter().filter(can).map(|node| node.number).collect();
        for number in candidates {
            let mut answer = Err(String::new());
            self.with(number, |machine| {
                answer = machine.recover()?;
                Ok(())
            });
            if answer.is_ok() {
                (self.recovered, self.tally.stalled) = (true, self.tally.stalled + 1);
                self.agreed.truncate(usize::try_from(height).unwrap());
                self.left_out.extend(1..=NODES);
                return true;
            }
            if self.is_told {
                eprintln!("node {number} cannot recover the channel: {answer:?}");
            }
        }
        false
    }

    /// Any minority of the voters goes silent; the others must agree on more.
    pub(super) fn go_on_without_a_minority(&mut self) {
        let mut voters = self.longest().consenters();
        let silent = (voters.len() - 1) / 2;
        for _ in 0..silent {
            let chosen = voters.swap_remove(self.random.random_range(0..voters.len()));
            self.cut_off.insert(chosen);
        }
        let before = self.acknowledged.len();
        for _ in 0..ROUNDS {
            for number in 1..=NODES {
                self.tick(number);
            }
            for sent in std::mem::take(&mut self.wires) {
                self.deliver(sent);
            }
            let leads =
                |number: &u64| self.nodes[position(*number)].machine.as_ref().is_some_and(Machine::accepts);
            if let Some(leader) = voters.iter().copied().find(leads) {
                self.submit(leader);
            }
            if self.acknowledged.len() > before {
                self.reconnect();
                return;
            }
        }
        panic!(
            "{voters:?} are a majority, run and hear each other, and do not agree on more: {}",
            self.describe()
        );
    }
}
