//! What goes wrong in a simulation, and what operators do: power fails, disks are emptied or set back, consenters come and go.

use rand::RngExt as _;

use super::{
    machine::{Books as _, Machine},
    simulated::{CONSENTERS, MemoryBooks, MemoryDisk},
    simulated_channel::{NODES, Simulation, position},
    simulated_node::Node,
};
use crate::submission::Kind;

/// So often a node asks for blocks before its wait for them is over; some answers break, lie, or come from somebody who has nothing.
const ATTEMPTS: usize = 400;

impl Simulation {
    /// One consenter comes or goes.
    pub(super) fn reconfigure(&mut self, number: u64) {
        let other = self.any();
        self.change(number, other);
    }

    /// Another consenter comes, when all is well.
    pub(super) fn grow(&mut self) {
        self.heal();
        let consenters = self.longest().consenters();
        let leads =
            |number: &u64| self.nodes[position(*number)].machine.as_ref().is_some_and(Machine::accepts);
        let new = (1..=NODES).find(|number| !consenters.contains(number));
        if let (Some(leader), Some(new)) = (consenters.iter().copied().find(leads), new) {
            self.change(leader, new);
        }
        self.heal();
    }

    fn change(&mut self, number: u64, other: u64) {
        let books = self.nodes[position(number)].books.clone();
        let mut next = books.consenters();
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

    /// Its power will fail at one of its next writes.
    pub(super) fn fail(&mut self, number: u64) {
        let (writes, done) = (self.random.random_range(0..6), self.random.random_bool(0.5));
        self.nodes[position(number)].power.fail_after(writes, done);
    }

    pub(super) fn come_back(&mut self, number: u64) {
        let node = &mut self.nodes[position(number)];
        if node.machine.is_none() && node.joined {
            node.start(&mut self.random);
            self.connect(number);
            self.follow_up(number);
        }
    }

    /// An operator copies its data folder. A copy from when the node was alone is kept: nothing is more dangerous to put back.
    pub(super) fn copy(&mut self, number: u64) {
        let node = &mut self.nodes[position(number)];
        let has_lone_copy = node.copy.as_ref().is_some_and(|(_, books)| books.consenters() == [number]);
        let replaces = !has_lone_copy || node.books.consenters() == [number];
        if !self.forgetful.contains(&number) && replaces {
            node.copy = Some((node.disk.copy(), node.books.copy_for(number, node.power.clone())));
        }
    }

    /// The same, of the node that is the only consenter.
    pub(super) fn copy_alone(&mut self) {
        if let [only] = self.longest().consenters()[..] {
            self.copy(only);
        }
    }

    /// Whether one more node may lose its memory without a majority having lost it.
    pub(super) fn may_forget(&self, number: u64) -> bool {
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

    /// All others run and are within reach: they are there to tell.
    fn gather(&mut self) {
        self.reconnect();
        for other in 1..=NODES {
            self.nodes[position(other)].power.restore();
            self.come_back(other);
        }
    }

    /// Before the first tick of a node that has just come up, the others have told it what there is to tell, as in any network that is in order; and one that waits
    /// for blocks because it was called gets one.
    fn is_told(&mut self, number: u64) {
        let is_copy_alone = self.nodes[position(number)].machine.as_ref().is_some_and(Machine::is_alone)
            && self.longest().consenters() != [number];
        self.tally.set_back_alone += usize::from(is_copy_alone);
        for _ in 0..20 {
            for sent in std::mem::take(&mut self.wires) {
                self.deliver(sent);
            }
        }
        for _ in 0..ATTEMPTS {
            if !is_copy_alone
                || self.nodes[position(number)].machine.as_ref().is_none_or(Machine::must_not_go_on)
            {
                return;
            }
            self.fetch_one(number);
            self.follow_up(number);
        }
        panic!("node {number} was alone in its old copy, and nobody has told it: {}", self.describe());
    }

    /// Whether somebody is there to remember what a node promised: those to whom it said so have their memory, and a leader was heard since its last entry.
    fn is_remembered(&self, number: u64) -> bool {
        let consenters = self.longest().consenters();
        let all_remember = !consenters.iter().any(|one| self.forgetful.contains(one));
        let node = &self.nodes[position(number)];
        let is_known = node.led_with.is_none_or(|(id, promised)| {
            let others = self.nodes.iter().filter(|other| other.number != number);
            others
                .filter_map(|other| other.machine.as_ref())
                .any(|other| other.remembers(id) >= Some(promised))
        });
        all_remember && is_known
    }

    /// An operator puts the copy back.
    pub(super) fn set_back(&mut self, number: u64) {
        if self.loses_unsynced
            || !self.may_forget(number)
            || !self.is_remembered(number)
            || self.nodes[position(number)].copy.is_none()
        {
            return;
        }
        self.gather();
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
        self.connect(number);
        self.follow_up(number);
        self.is_told(number);
    }

    /// The same, of a node that was the only consenter when it was copied and no longer is.
    pub(super) fn set_back_alone(&mut self) {
        let consenters = self.longest().consenters();
        let is_lone = |node: &&Node| {
            let copied = node.copy.as_ref().map(|(_, books)| books.consenters());
            copied.is_some_and(|copied| copied == [node.number] && copied != consenters)
        };
        if let Some(number) = self.nodes.iter().find(is_lone).map(|node| node.number) {
            self.set_back(number);
        }
    }

    /// The disk is replaced by an empty one, and the channel joined again: by the genesis block while that names the consenters that there are or this node alone, else by a later
    /// configuration, with the blocks of another node.
    pub(super) fn empty(&mut self, number: u64) {
        if !self.may_forget(number) {
            return;
        }
        self.waiting.retain(|(one, _), _| *one != number);
        let keeps_blocks = self.random.random_bool(0.3);
        self.forgetful.insert(number);
        self.tally.emptied += 1;
        self.make_new(number, keeps_blocks);
    }

    pub(super) fn make_new(&mut self, number: u64, keeps_blocks: bool) {
        let longest = self.longest();
        let node = &mut self.nodes[position(number)];
        node.stop();
        node.disk = MemoryDisk::new(node.power.clone());
        node.copy = None;
        if !keeps_blocks {
            let genesis: Vec<u64> = (1..=longest.genesis_consenters()).collect();
            node.books =
                if (longest.consenters() == genesis || genesis == [number]) && self.random.random_bool(0.5) {
                    MemoryBooks::new(number, &genesis, node.power.clone())
                } else {
                    longest.copy_for(number, node.power.clone())
                };
        }
        node.joined = true;
        let is_alone = longest.consenters() != [number] && node.books.consenters() == [number];
        if is_alone {
            self.gather();
        }
        self.nodes[position(number)].start(&mut self.random);
        self.connect(number);
        self.follow_up(number);
        if is_alone {
            self.is_told(number);
        }
    }

    /// A node that the configuration names and that does not run the channel joins it: with what it had when it was a consenter before, or anew.
    pub(super) fn join(&mut self, number: u64) {
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
}
