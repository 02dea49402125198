//! What goes wrong in a simulation, and what operators do: power fails, disks are emptied or set back, consenters come and go.

use rand::RngExt as _;

use super::{
    machine::Books as _,
    simulated::{CONSENTERS, MemoryBooks, MemoryDisk},
    simulated_channel::{NODES, Simulation, position},
};
use crate::submission::Kind;

impl Simulation {
    /// One consenter comes or goes.
    pub(super) fn reconfigure(&mut self, number: u64) {
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

    /// Its power will fail at one of its next writes.
    pub(super) fn fail(&mut self, number: u64) {
        let (writes, done) = (self.random.random_range(0..6), self.random.random_bool(0.5));
        self.nodes[position(number)].power.fail_after(writes, done);
    }

    pub(super) fn come_back(&mut self, number: u64) {
        let node = &mut self.nodes[position(number)];
        if node.machine.is_none() && node.joined {
            node.start(&mut self.random);
            self.follow_up(number);
        }
    }

    /// An operator copies its data folder.
    pub(super) fn copy(&mut self, number: u64) {
        let node = &mut self.nodes[position(number)];
        if !self.forgetful.contains(&number) {
            node.copy = Some((node.disk.copy(), node.books.copy_for(number, node.power.clone())));
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

    /// Whether there is no copy, or one that knows nobody else: in it the node is the only consenter, and no longer is, so that it has nobody to ask
    /// ("What is left" in [`super::admission`]).
    fn is_copy_alone(&self, number: u64) -> bool {
        let Some((_, books)) = &self.nodes[position(number)].copy else { return true };
        books.consenters() == [number] && self.longest().consenters() != [number]
    }

    /// An operator puts the copy back. The others are there to tell.
    pub(super) fn set_back(&mut self, number: u64) {
        if self.loses_unsynced || !self.may_forget(number) || self.is_copy_alone(number) {
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
