//! The Raft log on disk: entries, hard state, where the log begins, which incarnation it is, and what it remembers of other nodes.

use std::collections::VecDeque;

use prost::Message as _;
use protobuf::Message as _;
use raft::{
    GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata},
};

use super::{
    disk::{Batch, Disk},
    memory::Memory,
    roster::Roster,
};

/// Keys: one letter, then for entries the index (big-endian, so that they lie in order).
const ENTRY: u8 = b'e';
const HARD_STATE: &[u8] = b"h";
const BEGINNING: &[u8] = b"s";
const ORIGIN: &[u8] = b"o";
const CONSENTERS: &[u8] = b"c";
const MEMORY: &[u8] = b"m";

/// The log on disk failed; nothing more may be promised.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("the Raft log cannot be written or read")]
    Database(#[from] rocksdb::Error),
    #[error("the Raft log is damaged: {0}")]
    Damaged(String),
}

/// Which log this is.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Origin {
    /// Drawn when it was created.
    #[prost(fixed64, tag = "1")]
    pub(crate) incarnation: u64,
    /// The Raft id under which it makes promises; 0 as long as it makes none.
    #[prost(uint64, tag = "2")]
    pub(crate) id: u64,
    /// The Raft index of the newest block that was in the books without having come through this log.
    #[prost(uint64, tag = "3")]
    pub(crate) floor: u64,
    /// How often a process was started with it.
    #[prost(uint64, tag = "4")]
    pub(crate) starts: u64,
    /// The channel went on without the log before this one while its node knew of no other consenter ([`super::alone`]).
    #[prost(bool, tag = "5")]
    pub(crate) superseded: bool,
    /// Where an operator had the channel go on with this node alone: lower ids, but for this node's, are of the history that was given up.
    #[prost(uint64, tag = "6")]
    pub(crate) fresh_from: u64,
}

/// The consenters as of an entry.
#[derive(Clone, PartialEq, prost::Message)]
struct Consenters {
    #[prost(uint64, tag = "1")]
    index: u64,
    #[prost(message, required, tag = "2")]
    roster: Roster,
    #[prost(uint64, repeated, tag = "3")]
    voters: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    learners: Vec<u64>,
}

impl Consenters {
    fn conf_state(&self) -> ConfState {
        ConfState { voters: self.voters.clone(), learners: self.learners.clone(), ..ConfState::default() }
    }
}

/// What a snapshot carries: where the books of its maker ended, which the receiver fetches from other nodes, and the roster there.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Position {
    /// The number of the last block.
    #[prost(uint64, tag = "1")]
    pub(crate) block: u64,
    #[prost(message, required, tag = "2")]
    pub(crate) roster: Roster,
}

impl Position {
    /// Reads it from a snapshot.
    pub(crate) fn of(snapshot: &Snapshot) -> Option<Self> {
        Self::decode(snapshot.get_data()).ok()
    }
}

/// The log in a map of its own. All terms are kept in memory, entries are read from the map.
pub(crate) struct DiskLog<D> {
    disk: D,
    state: RaftState,
    origin: Origin,
    consenters: Consenters,
    memory: Memory,
    /// Whether it changed since it was last written, and last synced.
    memory_changed: bool,
    memory_unsynced: bool,
    /// Index and term of the entry before the first, and the block that the books had there.
    before: SnapshotMetadata,
    before_block: u64,
    terms: VecDeque<u64>,
    applied: (u64, u64),
}

impl<D: Disk> DiskLog<D> {
    /// Opens a log. A new one begins at index 0 with the consenters of the genesis block as voters, and is `fresh`.
    pub(crate) fn open(disk: D, genesis: &Roster, fresh: Origin) -> Result<Self, LogError> {
        let origin = match disk.get(ORIGIN)? {
            Some(bytes) => decode::<Origin>(&bytes)?,
            None => {
                disk.write(vec![(ORIGIN.to_vec(), Some(fresh.encode_to_vec()))], true)?;
                fresh
            }
        };
        let hard_state = match disk.get(HARD_STATE)? {
            Some(bytes) => parse::<HardState>(&bytes)?,
            None => HardState::default(),
        };
        let beginning = match disk.get(BEGINNING)? {
            Some(bytes) => parse::<Snapshot>(&bytes)?,
            None => Snapshot::default(),
        };
        let consenters = match disk.get(CONSENTERS)? {
            Some(bytes) => decode::<Consenters>(&bytes)?,
            None => Consenters {
                index: 0,
                roster: genesis.clone(),
                voters: genesis.ids.clone(),
                learners: Vec::new(),
            },
        };
        let memory = match disk.get(MEMORY)? {
            Some(bytes) => decode::<Memory>(&bytes)?,
            None => Memory::default(),
        };
        let mut log = Self {
            state: RaftState::new(hard_state, consenters.conf_state()),
            origin,
            consenters,
            memory,
            memory_changed: false,
            memory_unsynced: false,
            before: beginning.get_metadata().clone(),
            before_block: Position::of(&beginning).unwrap_or_default().block,
            terms: VecDeque::new(),
            applied: (0, 0),
            disk,
        };
        log.read_terms()?;
        log.set_commit(log.before.index);
        Ok(log)
    }

    fn read_terms(&mut self) -> Result<(), LogError> {
        let (first, terms) = (self.before.index + 1, &mut self.terms);
        self.disk.scan(&key(first), &mut |name, bytes| {
            if name.first() != Some(&ENTRY) {
                return Ok(false);
            }
            let entry = parse::<Entry>(bytes)?;
            let expected = first + terms.len() as u64;
            if entry.index != expected {
                return Err(LogError::Damaged(format!("entry {expected} is missing before {}", entry.index)));
            }
            terms.push_back(entry.term);
            Ok(true)
        })
    }

    /// Which log this is.
    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }

    /// The roster, and the entry up to which it follows the log.
    pub(crate) fn roster(&self) -> (&Roster, u64) {
        (&self.consenters.roster, self.consenters.index)
    }

    /// Raft's members as of the same entry: voters and learners.
    pub(crate) fn members(&self) -> (&[u64], &[u64]) {
        (&self.consenters.voters, &self.consenters.learners)
    }

    /// Where the log begins: everything up to this index is in the books when they have this block.
    pub(crate) fn beginning(&self) -> (u64, u64) {
        (self.before.index, self.before_block)
    }

    /// Index of the last entry.
    pub(crate) fn last(&self) -> u64 {
        self.before.index + self.terms.len() as u64
    }

    /// Term and last entry on disk: what this node must still have after any crash.
    pub(crate) fn promised(&self) -> (u64, u64) {
        (self.state.hard_state.term, self.last())
    }

    /// What it remembers of other nodes.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Changes what it remembers; on disk with the next write, or after [`DiskLog::keep_memory`].
    pub(crate) fn memory_mut(&mut self) -> &mut Memory {
        (self.memory_changed, self.memory_unsynced) = (true, true);
        &mut self.memory
    }

    /// Remembers what a message says of its sender; whether the message counts.
    pub(crate) fn note(&mut self, id: u64, said: &consort_protos::consort::orderer::Standing) -> bool {
        let (counts, learnt) = self.memory.note(id, said);
        self.memory_changed |= learnt;
        self.memory_unsynced |= learnt;
        counts
    }

    /// Writes what is remembered, if it changed; it survives a crash of the machine only when it is `synced`.
    pub(crate) fn keep_memory(&mut self, synced: bool) -> Result<(), LogError> {
        let changed = if synced { &mut self.memory_unsynced } else { &mut self.memory_changed };
        if !std::mem::take(changed) {
            return Ok(());
        }
        self.memory_changed = false;
        self.disk.write(vec![(MEMORY.to_vec(), Some(self.memory.encode_to_vec()))], synced)
    }

    /// Whether there is something new to be remembered that is not on disk.
    pub(crate) fn has_unsynced_memory(&self) -> bool {
        self.memory_unsynced
    }

    fn add_memory(&mut self, batch: &mut Batch) {
        if std::mem::take(&mut self.memory_unsynced) {
            self.memory_changed = false;
            batch.push((MEMORY.to_vec(), Some(self.memory.encode_to_vec())));
        }
    }

    /// Counts a start; on disk before anything is said in it.
    pub(crate) fn count_start(&mut self) -> Result<u64, LogError> {
        self.origin.starts += 1;
        self.disk.write(vec![(ORIGIN.to_vec(), Some(self.origin.encode_to_vec()))], true)?;
        Ok(self.origin.starts)
    }

    /// Gives a log that has made no promises its Raft id.
    pub(crate) fn assign(&mut self, id: u64) -> Result<(), LogError> {
        self.origin.id = id;
        self.origin.superseded = false;
        self.disk.write(vec![(ORIGIN.to_vec(), Some(self.origin.encode_to_vec()))], true)
    }

    /// Notes that a block of this Raft index comes into the books without having come through this log.
    pub(crate) fn raise_floor(&mut self, index: u64) -> Result<(), LogError> {
        if index <= self.origin.floor {
            return Ok(());
        }
        self.origin.floor = index;
        self.disk.write(vec![(ORIGIN.to_vec(), Some(self.origin.encode_to_vec()))], true)
    }

    /// Forgets everything but what is remembered of other nodes: another log begins, which has to be opened.
    pub(crate) fn forget(&self, fresh: Origin) -> Result<(), LogError> {
        let mut batch = self.deletions(self.last());
        batch.extend([HARD_STATE, BEGINNING, CONSENTERS].map(|name| (name.to_vec(), None)));
        batch.push((ORIGIN.to_vec(), Some(fresh.encode_to_vec())));
        self.disk.write(batch, true)
    }

    fn deletions(&self, last: u64) -> Batch {
        (self.before.index + 1..=last).map(|index| (key(index).to_vec(), None)).collect()
    }

    fn entry(&self, index: u64) -> raft::Result<Entry> {
        let bytes = self.disk.get(&key(index)).map_err(other)?;
        let bytes = bytes.ok_or_else(|| other(LogError::Damaged(format!("entry {index} is missing"))))?;
        parse::<Entry>(&bytes).map_err(other)
    }

    /// The term and the vote on disk.
    pub(crate) fn voted(&self) -> (u64, u64) {
        (self.state.hard_state.term, self.state.hard_state.vote)
    }

    /// Appends entries (cutting off what they replace) and keeps the hard state. What was given survives a crash once this returns, but for how far
    /// entries are agreed on where nothing else is new: Raft needs no memory of that (dissertation, section 3.8), the books have it, and who lost it hears it
    /// again. It comes to the disk with the next entries, or when this node's word for it is the last one that somebody waits for (`keeps_commit`).
    pub(crate) fn write(
        &mut self,
        entries: &[Entry],
        hard_state: Option<&HardState>,
        keeps_commit: bool,
    ) -> Result<(), LogError> {
        let mut batch = Batch::new();
        if let Some(first) = entries.first() {
            if first.index <= self.before.index || first.index > self.last() + 1 {
                return Err(LogError::Damaged(format!(
                    "entry {} does not follow {}",
                    first.index,
                    self.last()
                )));
            }
            let last = first.index + entries.len() as u64 - 1;
            for replaced in last + 1..=self.last() {
                batch.push((key(replaced).to_vec(), None));
            }
            for entry in entries {
                batch.push((key(entry.index).to_vec(), Some(encode(entry)?)));
            }
        }
        let votes = hard_state.is_some_and(|new| (new.term, new.vote) != self.voted());
        if let Some(hard_state) = hard_state.filter(|_| votes || keeps_commit || !batch.is_empty()) {
            batch.push((HARD_STATE.to_vec(), Some(encode(hard_state)?)));
        }
        if batch.is_empty() {
            if let Some(hard_state) = hard_state {
                self.state.hard_state = hard_state.clone();
            }
            return Ok(());
        }
        self.add_memory(&mut batch);
        self.disk.write(batch, true)?;
        if let Some(first) = entries.first() {
            let kept = usize::try_from(first.index - self.before.index - 1).unwrap_or(usize::MAX);
            self.terms.truncate(kept);
            self.terms.extend(entries.iter().map(|entry| entry.term));
        }
        if let Some(hard_state) = hard_state {
            self.state.hard_state = hard_state.clone();
        }
        Ok(())
    }

    /// Notes how far entries are agreed on; it may be lost in a crash.
    pub(crate) fn set_commit(&mut self, commit: u64) {
        let known = &mut self.state.hard_state.commit;
        *known = commit.max(*known);
    }

    /// Keeps the consenters as they are behind the entry at `index`.
    pub(crate) fn set_consenters(
        &mut self,
        index: u64,
        roster: &Roster,
        state: Option<&ConfState>,
    ) -> Result<(), LogError> {
        if let Some(state) = state {
            (self.consenters.voters, self.consenters.learners) =
                (state.voters.clone(), state.learners.clone());
        }
        self.consenters.index = index;
        self.consenters.roster = roster.clone();
        self.state.conf_state = self.consenters.conf_state();
        self.disk.write(vec![(CONSENTERS.to_vec(), Some(self.consenters.encode_to_vec()))], true)
    }

    /// Starts anew behind a snapshot that another node sent; what [`DiskLog::applied`] noted holds no more.
    pub(crate) fn install(&mut self, snapshot: &Snapshot) -> Result<(), LogError> {
        let metadata = snapshot.get_metadata();
        let position = Position::of(snapshot).unwrap_or_default();
        let mut hard_state = self.state.hard_state.clone();
        hard_state.commit = metadata.index.max(hard_state.commit);
        hard_state.term = metadata.term.max(hard_state.term);
        let conf_state = metadata.get_conf_state();
        let consenters = Consenters {
            index: metadata.index,
            roster: position.roster,
            voters: conf_state.voters.clone(),
            learners: conf_state.learners.clone(),
        };
        let mut batch = self.deletions(self.last());
        batch.push((BEGINNING.to_vec(), Some(encode(snapshot)?)));
        batch.push((HARD_STATE.to_vec(), Some(encode(&hard_state)?)));
        batch.push((CONSENTERS.to_vec(), Some(consenters.encode_to_vec())));
        self.disk.write(batch, true)?;
        self.terms.clear();
        self.before = metadata.clone();
        self.before_block = position.block;
        self.state = RaftState::new(hard_state, consenters.conf_state());
        self.consenters = consenters;
        // Nothing can be said about the books until the blocks up to there are in them.
        self.applied = (0, 0);
        Ok(())
    }

    /// Begins anew with these consenters, behind a place up to which everything is in the books: what the log said before about consenters does not
    /// count any more. Entries behind that place stay. The log has to be opened again.
    pub(crate) fn begin_at(&self, origin: Origin, beginning: &Snapshot) -> Result<(), LogError> {
        let metadata = beginning.get_metadata();
        let consenters = Consenters {
            index: metadata.index,
            roster: Position::of(beginning).unwrap_or_default().roster,
            voters: metadata.get_conf_state().voters.clone(),
            learners: Vec::new(),
        };
        let mut hard_state = self.state.hard_state.clone();
        hard_state.commit = metadata.index.max(hard_state.commit);
        hard_state.term = metadata.term.max(hard_state.term);
        let mut batch = self.deletions(metadata.index.min(self.last()));
        batch.push((BEGINNING.to_vec(), Some(encode(beginning)?)));
        batch.push((HARD_STATE.to_vec(), Some(encode(&hard_state)?)));
        batch.push((CONSENTERS.to_vec(), Some(consenters.encode_to_vec())));
        batch.push((ORIGIN.to_vec(), Some(origin.encode_to_vec())));
        self.disk.write(batch, true)
    }

    /// Forgets the entries up to and including `index`, which are in the books.
    pub(crate) fn compact(&mut self, index: u64) -> Result<(), LogError> {
        if index <= self.before.index || index > self.applied.0 {
            return Ok(());
        }
        let term = self.term(index).map_err(|error| LogError::Damaged(error.to_string()))?;
        let beginning = self.snapshot_at(index, term);
        let mut batch = self.deletions(index);
        batch.push((BEGINNING.to_vec(), Some(encode(&beginning)?)));
        self.disk.write(batch, true)?;
        let dropped = usize::try_from(index - self.before.index).unwrap_or(usize::MAX).min(self.terms.len());
        self.terms.drain(..dropped);
        self.before = beginning.get_metadata().clone();
        self.before_block = self.applied.1;
        Ok(())
    }

    /// Notes that the books contain `block` with the entry at `index`: what a snapshot for a node that lags behind would say.
    pub(crate) fn applied(&mut self, index: u64, block: u64) {
        self.applied = (index, block);
    }

    fn snapshot_at(&self, index: u64, term: u64) -> Snapshot {
        let position = Position { block: self.applied.1, roster: self.consenters.roster.clone() };
        let mut snapshot = Snapshot { data: position.encode_to_vec(), ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (index, term);
        metadata.set_conf_state(self.state.conf_state.clone());
        snapshot
    }
}

impl<D: Disk> Storage for DiskLog<D> {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.state.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.before.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let limit = max_size.into().unwrap_or(u64::MAX);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for index in low..high {
            let entry = self.entry(index)?;
            bytes += u64::from(entry.compute_size());
            if bytes > limit && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.before.index {
            return Ok(self.before.term);
        }
        if index < self.before.index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let position = usize::try_from(index - self.before.index - 1).unwrap_or(usize::MAX);
        self.terms.get(position).copied().ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.before.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let index = self.applied.0;
        if index < request_index || index == 0 {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(self.snapshot_at(index, self.term(index)?))
    }
}

fn key(index: u64) -> [u8; 9] {
    let mut key = [ENTRY; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

fn encode(message: &impl protobuf::Message) -> Result<Vec<u8>, LogError> {
    message.write_to_bytes().map_err(|error| LogError::Damaged(error.to_string()))
}

fn parse<M: protobuf::Message>(bytes: &[u8]) -> Result<M, LogError> {
    let mut message = M::new();
    message.merge_from_bytes(bytes).map_err(|error| LogError::Damaged(error.to_string()))?;
    Ok(message)
}

fn decode<M: prost::Message + Default>(bytes: &[u8]) -> Result<M, LogError> {
    M::decode(bytes).map_err(|error| LogError::Damaged(error.to_string()))
}

fn other(error: LogError) -> raft::Error {
    raft::Error::Store(StorageError::Other(Box::new(error)))
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
