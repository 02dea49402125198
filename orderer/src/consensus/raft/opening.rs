//! How a machine begins with the log that it finds, and begins anew with another one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use raft::RawNode;

use super::{
    admission::{Own, Waits},
    alone::lone_ticks,
    disk::Disk,
    log::{DiskLog, Origin},
    machine::{Books, Machine, MachineError, Settings},
    memory::boot,
    roster::Roster,
};
use crate::cutter::Cutter;

/// The id of a node that has none: it is in nobody's list of members, so that Raft lets it do nothing.
const NO_ID: u64 = u64::MAX;

/// A log as it is opened, with the point from which its node goes on.
struct Opened<D: Disk> {
    node: RawNode<DiskLog<D>>,
    applied: u64,
    behind: Option<u64>,
    roster: Roster,
    /// The books have blocks that came through this log and are not in it.
    lost: Option<String>,
}

fn open<D: Disk>(
    disk: &D,
    books: &mut impl Books,
    settings: &mut Settings,
    genesis: &Roster,
) -> Result<Opened<D>, MachineError> {
    let fresh = Origin { incarnation: (settings.random)(), floor: books.last_index(), ..Origin::default() };
    let mut log = DiskLog::open(disk.clone(), genesis, fresh)?;
    // Nothing came through a log that has no id yet: what is new in the books was fetched while this node only followed the channel.
    if log.origin().id == 0 {
        log.raise_floor(books.last_index())?;
    }
    let (beginning, beginning_block) = log.beginning();
    let (mut roster, roster_index) = (log.roster().0.clone(), log.roster().1);
    let in_books = books.last_index();
    let behind = (beginning > 0 && books.height() <= beginning_block).then_some(beginning_block);
    let came_through_log = in_books > log.origin().floor && in_books > beginning;
    let lost = (behind.is_none() && came_through_log && in_books > log.last()).then(|| {
        format!("the newest block was entry {in_books} of the Raft log, which ends at entry {}", log.last())
    });
    let applied = match (behind, came_through_log) {
        (Some(_), _) => beginning,
        (None, true) => in_books.min(log.last()),
        (None, false) => beginning.max(roster_index),
    };
    // Consenters are noted when their entry is agreed on, also when it came behind the last block.
    log.set_commit(applied.max(roster_index.min(log.last())));
    // A crash may have come between a configuration block and the note of its consenters. The note is made up for before anything else, because it is what
    // snapshots carry: whoever began with the former one would never see the block that changed it.
    if came_through_log && behind.is_none() && in_books > roster_index {
        let (ids, next_id) = books.ids_of(books.height() - 1).map_err(MachineError::Books)?;
        if roster.follow(&ids, next_id) {
            books.sync().map_err(MachineError::Books)?;
            log.set_consenters(in_books, &roster, None)?;
        }
    }
    if behind.is_none() {
        log.applied(applied, books.height() - 1);
        // At the same entry the log knows better: an operator may have given out ids since the block was made.
        if roster_index >= in_books {
            books.set_ids(&roster.ids, roster.next_id);
        }
    }
    let options = books.raft_options();
    let id = log.origin().id;
    let mut config = raft::Config {
        id: if id == 0 { NO_ID } else { id },
        election_tick: options.election_tick as usize,
        heartbeat_tick: options.heartbeat_tick as usize,
        applied,
        max_size_per_msg: books.batch().preferred_max_bytes.into(),
        max_inflight_msgs: options.max_inflight_blocks.max(1) as usize,
        check_quorum: true,
        pre_vote: true,
        ..raft::Config::default()
    };
    if let Some((min, max)) = settings.election_ticks {
        (config.min_election_tick, config.max_election_tick) = (min, max);
    }
    let node = RawNode::new(&config, log, &super::logger())?;
    Ok(Opened { node, applied, behind, roster, lost })
}

impl<D: Disk, B: Books> Machine<D, B> {
    /// Opens the log on `disk`, which continues the books.
    ///
    /// # Errors
    /// When the log cannot be used.
    pub(crate) fn open(disk: D, mut books: B, mut settings: Settings) -> Result<Self, MachineError> {
        let genesis_consenters = books.genesis_consenters();
        let genesis = Roster::genesis(genesis_consenters);
        let mut opened = open(&disk, &mut books, &mut settings, &genesis)?;
        let options = books.raft_options();
        let boot = boot(opened.node.mut_store().count_start()?, (settings.random)());
        let log = opened.node.store();
        let waits =
            Waits { election: options.election_tick as usize, alone: lone_ticks(options.tick_interval) };
        let own = Own::new(boot, log.promised(), log.origin().id != 0, waits);
        let mut machine = Self {
            node: opened.node,
            books,
            disk,
            settings,
            options,
            own,
            roster: opened.roster,
            genesis_consenters,
            knocks: BTreeMap::new(),
            greetings: BTreeSet::new(),
            ticks: 0,
            change_index: 0,
            heard: BTreeMap::new(),
            resting: BTreeSet::new(),
            busy_at: 0,
            aliases: BTreeMap::new(),
            told_commit: 0,
            replaced: false,
            cutter: Cutter::default(),
            tip: None,
            term_led: 0,
            led_since: 0,
            held: VecDeque::new(),
            in_flight: VecDeque::new(),
            applied: opened.applied,
            behind: opened.behind,
            uncompacted_bytes: 0,
            outcomes: Vec::new(),
            cuts: Vec::new(),
        };
        if let Some(reason) = opened.lost {
            machine.relapse(reason, false)?;
        }
        machine.greetings.extend(machine.unaware());
        machine.consider()?;
        Ok(machine)
    }

    /// Makes the node anew from the log on disk, under the options in force. What was in hand is refused.
    pub(super) fn restart(&mut self) -> Result<(), MachineError> {
        self.drop_in_hand();
        let genesis = Roster::genesis(self.genesis_consenters);
        let opened = open(&self.disk, &mut self.books, &mut self.settings, &genesis)?;
        self.options = self.books.raft_options();
        self.node = opened.node;
        self.roster = opened.roster;
        (self.applied, self.behind) = (opened.applied, opened.behind);
        (self.change_index, self.replaced) = (0, false);
        self.wake_up();
        Ok(())
    }

    /// Gives up the log and begins with a new one that has no id; `superseded` says that others are known to have gone on.
    pub(super) fn begin_anew(&mut self, superseded: bool) -> Result<(), MachineError> {
        let incarnation = (self.settings.random)();
        self.sync_books()?;
        self.node.mut_store().keep_memory(true)?;
        let floor = self.books.last_index();
        self.log().forget(Origin { incarnation, floor, superseded, ..Origin::default() })?;
        self.restart()?;
        let boot = boot(self.node.mut_store().count_start()?, (self.settings.random)());
        let alone = lone_ticks(self.books.raft_options().tick_interval);
        self.own = Own::new(boot, (0, 0), false, Waits { election: 0, alone });
        self.greetings.extend(self.unaware());
        Ok(())
    }
}
