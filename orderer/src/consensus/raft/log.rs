//! The Raft log on disk: entries, hard state, and where the log begins.

use std::{collections::VecDeque, path::Path};

use protobuf::Message as _;
use raft::{
    GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata},
};
use rocksdb::{DB, Options, WriteBatch, WriteOptions};

/// Keys: one letter, then for entries the index (big-endian, so that they lie in order).
const ENTRY: u8 = b'e';
const HARD_STATE: &[u8] = b"h";
const BEGINNING: &[u8] = b"s";

/// Entries are written once and soon deleted; a small table in memory is enough.
const WRITE_BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// The log on disk failed; nothing more may be promised.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("the Raft log cannot be written or read")]
    Database(#[from] rocksdb::Error),
    #[error("the Raft log is damaged: {0}")]
    Damaged(String),
}

/// A log that the machine writes; Raft reads it through [`Storage`].
///
/// Duties of an implementation: what `write` and `install` were given survives a crash once they return.
pub(crate) trait Log: Storage {
    /// Appends entries (cutting off what they replace) and keeps the hard state.
    fn write(&mut self, entries: &[Entry], hard_state: Option<&HardState>) -> Result<(), LogError>;

    /// Notes how far entries are agreed on; it may be lost in a crash.
    fn set_commit(&mut self, commit: u64);

    /// Starts anew behind a snapshot that another node sent; what [`Log::applied`] noted holds no more.
    fn install(&mut self, snapshot: &Snapshot) -> Result<(), LogError>;

    /// Forgets the entries up to and including `index`, which are in the books.
    fn compact(&mut self, index: u64) -> Result<(), LogError>;

    /// Notes that the books contain `block` with the entry at `index`: what a snapshot for a node that lags behind would say.
    fn applied(&mut self, index: u64, block: u64);
}

/// The data of a snapshot: the number of its last block, which the receiver fetches from other nodes.
pub(crate) fn snapshot_block(snapshot: &Snapshot) -> Option<u64> {
    snapshot.get_data().try_into().ok().map(u64::from_be_bytes)
}

/// The log in a database of its own. All terms are kept in memory, entries are read from the database.
pub(crate) struct DiskLog {
    database: DB,
    synced: WriteOptions,
    state: RaftState,
    /// Index and term of the entry before the first, and the block that the books had there.
    before: SnapshotMetadata,
    before_block: u64,
    terms: VecDeque<u64>,
    applied: (u64, u64),
}

impl DiskLog {
    /// Opens the log in a folder; a new log starts at index 0 with these voters.
    pub(crate) fn open(path: &Path, voters: Vec<u64>) -> Result<Self, LogError> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_write_buffer_size(WRITE_BUFFER_BYTES);
        options.set_max_write_buffer_number(2);
        options.set_keep_log_file_num(2);
        options.set_max_open_files(64);
        let database = DB::open(&options, path)?;
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        let hard_state = match database.get(HARD_STATE)? {
            Some(bytes) => parse::<HardState>(&bytes)?,
            None => HardState::default(),
        };
        let beginning = match database.get(BEGINNING)? {
            Some(bytes) => parse::<Snapshot>(&bytes)?,
            None => Snapshot::default(),
        };
        let conf_state = ConfState { voters, ..ConfState::default() };
        let mut log = Self {
            synced,
            state: RaftState::new(hard_state, conf_state),
            before: beginning.get_metadata().clone(),
            before_block: snapshot_block(&beginning).unwrap_or_default(),
            terms: VecDeque::new(),
            applied: (0, 0),
            database,
        };
        log.read_terms()?;
        log.set_commit(log.before.index);
        Ok(log)
    }

    fn read_terms(&mut self) -> Result<(), LogError> {
        let from = key(self.before.index + 1);
        let iterator =
            self.database.iterator(rocksdb::IteratorMode::From(&from, rocksdb::Direction::Forward));
        for record in iterator {
            let (name, bytes) = record?;
            if name.first() != Some(&ENTRY) {
                break;
            }
            let entry = parse::<Entry>(&bytes)?;
            let expected = self.before.index + 1 + self.terms.len() as u64;
            if entry.index != expected {
                return Err(LogError::Damaged(format!("entry {expected} is missing before {}", entry.index)));
            }
            self.terms.push_back(entry.term);
        }
        Ok(())
    }

    /// Where the log begins: everything up to this index is in the books when they have this block.
    pub(crate) fn beginning(&self) -> (u64, u64) {
        (self.before.index, self.before_block)
    }

    /// Index of the last entry.
    pub(crate) fn last(&self) -> u64 {
        self.before.index + self.terms.len() as u64
    }

    fn entry(&self, index: u64) -> raft::Result<Entry> {
        let bytes = self.database.get(key(index)).map_err(|error| other(LogError::from(error)))?;
        let bytes = bytes.ok_or_else(|| other(LogError::Damaged(format!("entry {index} is missing"))))?;
        parse::<Entry>(&bytes).map_err(other)
    }
}

impl Log for DiskLog {
    fn write(&mut self, entries: &[Entry], hard_state: Option<&HardState>) -> Result<(), LogError> {
        let mut batch = WriteBatch::default();
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
                batch.delete(key(replaced));
            }
            for entry in entries {
                batch.put(key(entry.index), encode(entry)?);
            }
        }
        if let Some(hard_state) = hard_state {
            batch.put(HARD_STATE, encode(hard_state)?);
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.database.write_opt(batch, &self.synced)?;
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

    fn set_commit(&mut self, commit: u64) {
        let known = &mut self.state.hard_state.commit;
        *known = commit.max(*known);
    }

    fn install(&mut self, snapshot: &Snapshot) -> Result<(), LogError> {
        let metadata = snapshot.get_metadata();
        let mut hard_state = self.state.hard_state.clone();
        hard_state.commit = metadata.index.max(hard_state.commit);
        hard_state.term = metadata.term.max(hard_state.term);
        let mut batch = WriteBatch::default();
        batch.delete_range(key(0), key(u64::MAX));
        batch.put(BEGINNING, encode(snapshot)?);
        batch.put(HARD_STATE, encode(&hard_state)?);
        self.database.write_opt(batch, &self.synced)?;
        self.terms.clear();
        self.before = metadata.clone();
        self.before_block = snapshot_block(snapshot).unwrap_or_default();
        self.state.hard_state = hard_state;
        self.state.conf_state = metadata.get_conf_state().clone();
        // Nothing can be said about the books until the blocks up to there are in them.
        self.applied = (0, 0);
        Ok(())
    }

    fn compact(&mut self, index: u64) -> Result<(), LogError> {
        if index <= self.before.index || index > self.applied.0 {
            return Ok(());
        }
        let term = self.term(index).map_err(|error| LogError::Damaged(error.to_string()))?;
        let mut beginning = Snapshot { data: self.applied.1.to_be_bytes().to_vec(), ..Snapshot::default() };
        let metadata = beginning.mut_metadata();
        metadata.index = index;
        metadata.term = term;
        metadata.set_conf_state(self.state.conf_state.clone());
        let mut batch = WriteBatch::default();
        batch.delete_range(key(0), key(index + 1));
        batch.put(BEGINNING, encode(&beginning)?);
        self.database.write_opt(batch, &self.synced)?;
        let dropped = usize::try_from(index - self.before.index).unwrap_or(usize::MAX).min(self.terms.len());
        self.terms.drain(..dropped);
        self.before = beginning.take_metadata();
        self.before_block = self.applied.1;
        Ok(())
    }

    fn applied(&mut self, index: u64, block: u64) {
        self.applied = (index, block);
    }
}

impl Storage for DiskLog {
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
        let (index, block) = self.applied;
        if index < request_index || index == 0 {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot { data: block.to_be_bytes().to_vec(), ..Snapshot::default() };
        let term = self.term(index)?;
        let metadata = snapshot.mut_metadata();
        metadata.index = index;
        metadata.term = term;
        metadata.set_conf_state(self.state.conf_state.clone());
        Ok(snapshot)
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

fn other(error: LogError) -> raft::Error {
    raft::Error::Store(StorageError::Other(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: vec![7; 10], ..Entry::default() }
    }

    fn indexes(log: &DiskLog) -> Vec<(u64, u64)> {
        let first = log.first_index().unwrap();
        let entries = log.entries(first, log.last() + 1, None, GetEntriesContext::empty(false)).unwrap();
        entries.iter().map(|entry| (entry.index, entry.term)).collect()
    }

    #[test]
    fn entries_and_hard_state_are_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = DiskLog::open(folder.path(), vec![1]).unwrap();
        let hard_state = HardState { term: 2, vote: 1, commit: 1 };
        log.write(&[entry(1, 1), entry(2, 2)], Some(&hard_state)).unwrap();
        drop(log);
        let log = DiskLog::open(folder.path(), vec![1]).unwrap();
        assert_eq!(indexes(&log), [(1, 1), (2, 2)]);
        assert_eq!(log.initial_state().unwrap().hard_state, hard_state);
    }

    #[test]
    fn a_new_leaders_entries_replace_the_tail() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = DiskLog::open(folder.path(), vec![1]).unwrap();
        log.write(&[entry(1, 1), entry(2, 1), entry(3, 1)], None).unwrap();
        log.write(&[entry(2, 2)], None).unwrap();
        drop(log);
        let log = DiskLog::open(folder.path(), vec![1]).unwrap();
        assert_eq!(indexes(&log), [(1, 1), (2, 2)]);
    }

    #[test]
    fn a_gap_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = DiskLog::open(folder.path(), vec![1]).unwrap();
        assert!(matches!(log.write(&[entry(2, 1)], None), Err(LogError::Damaged(_))));
    }

    #[test]
    fn compaction_keeps_the_term_before_the_first_entry_and_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = DiskLog::open(folder.path(), vec![1, 2]).unwrap();
        log.write(&[entry(1, 1), entry(2, 1), entry(3, 2)], None).unwrap();
        log.applied(3, 9);
        log.compact(2).unwrap();
        drop(log);
        let log = DiskLog::open(folder.path(), vec![1, 2]).unwrap();
        assert_eq!((log.first_index().unwrap(), log.term(2).unwrap(), log.beginning()), (3, 1, (2, 9)));
        assert_eq!(indexes(&log), [(3, 2)]);
        assert!(matches!(log.term(1), Err(raft::Error::Store(StorageError::Compacted))));
    }

    #[test]
    fn a_snapshot_starts_the_log_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = DiskLog::open(folder.path(), vec![1, 2, 3]).unwrap();
        log.write(&[entry(1, 1)], None).unwrap();
        let mut snapshot = Snapshot { data: 4_u64.to_be_bytes().to_vec(), ..Snapshot::default() };
        snapshot.mut_metadata().index = 10;
        snapshot.mut_metadata().term = 3;
        log.applied(1, 1);
        log.install(&snapshot).unwrap();
        assert!(matches!(
            log.snapshot(0, 2),
            Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
        ));
        drop(log);
        let log = DiskLog::open(folder.path(), vec![1, 2, 3]).unwrap();
        assert_eq!((log.last(), log.beginning()), (10, (10, 4)));
        assert_eq!(log.initial_state().unwrap().hard_state.commit, 10);
    }
}
