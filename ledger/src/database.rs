//! One RocksDB with a column family per kind of record, and the rule that the first failed write is the last.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBIteratorWithThreadMode,
    ErrorKind, IngestExternalFileOptions, IteratorMode, Options, ReadOptions, SstFileWriter, WriteBatch,
    WriteOptions,
};

use crate::error::Error;

/// Bytes of a table's page before compression. A random read copies and checks one page, so that small ones are cheap. A page with
/// its trailer also has to stay below 1032 bytes: glibc hands out larger pieces of memory more slowly, and a read takes one.
const PAGE_BYTES: usize = 1000;

/// Entries of a table's index between two that are stored in full, the others as what is new in them. The index is kept in memory
/// and searched by halving; with every entry in full it is three times as large, and each step of the search misses the processor's
/// caches; with longer runs more of them is read than saved.
const INDEX_RUN_ENTRIES: i32 = 8;

/// All write buffers of one database together: some hundred blocks of the usual size.
const WRITE_BUFFERS_BYTES: usize = 48 << 20;

/// Write-ahead logs kept at most. Columns that change little would otherwise hold back logs of gigabytes, whose content stands in
/// the tables and blob files already.
const LOGS_BYTES_MAX: u64 = 64 << 20;

/// Values from this size on go to blob files: compaction then moves a pointer instead of a block.
const BLOB_BYTES_MIN: u64 = 1024;

/// File handles that one database keeps open, so that a peer with many channels stays below the usual limit of 1024.
const OPEN_FILES_MAX: i32 = 128;

/// Size of the tables that a column is filled with at once.
const FILL_FILE_BYTES: u64 = 64 << 20;

/// The kinds of records, each in a column family of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Column {
    /// Small facts about the books: height, channel, savepoint, commit hash.
    Facts,
    /// Block number to block.
    Blocks,
    /// Block number to header hash.
    Headers,
    /// Header hash to block number.
    HeaderHashes,
    /// Block number to commit hash.
    CommitHashes,
    /// Transaction id to place and code.
    Transactions,
    /// Public state.
    State,
    /// Hashes of private keys and values.
    HashedState,
    /// Private keys and values that this peer holds.
    PrivateState,
    /// Hash of a private key to the key.
    PrivateKeys,
    /// Private sets as they came, by block.
    PrivateSets,
    /// Which private sets hold a key, by its hash.
    PrivatePlaces,
    /// Private sets that did not come.
    MissingPrivate,
    /// Which private keys end with a block.
    PrivateExpiry,
    /// The last purge of a private key, by its hash.
    PrivatePurges,
    /// Which transactions wrote a key.
    History,
    /// Private sets between endorsement and commit.
    Transient,
    /// Arrival of private sets, in order of height.
    TransientArrivals,
}

impl Column {
    fn name(self) -> &'static str {
        match self {
            Self::Facts => "facts",
            Self::Blocks => "blocks",
            Self::Headers => "headers",
            Self::HeaderHashes => "header_hashes",
            Self::CommitHashes => "commit_hashes",
            Self::Transactions => "transactions",
            Self::State => "state",
            Self::HashedState => "hashed_state",
            Self::PrivateState => "private_state",
            Self::PrivateKeys => "private_keys",
            Self::PrivateSets => "private_sets",
            Self::PrivatePlaces => "private_places",
            Self::MissingPrivate => "missing_private",
            Self::PrivateExpiry => "private_expiry",
            Self::PrivatePurges => "private_purges",
            Self::History => "history",
            Self::Transient => "transient",
            Self::TransientArrivals => "transient_arrivals",
        }
    }

    fn options(self, shared: &BlockBasedOptions) -> Options {
        let mut options = Options::default();
        options.set_block_based_table_factory(shared);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_write_buffer_size(16 << 20);
        if self == Self::Blocks {
            options.set_enable_blob_files(true);
            options.set_min_blob_size(BLOB_BYTES_MIN);
            // Blocks are compressed before they are stored.
            options.set_blob_compression_type(DBCompressionType::None);
        }
        options
    }
}

/// How tables are built.
fn tables() -> BlockBasedOptions {
    let mut tables = BlockBasedOptions::default();
    tables.set_bloom_filter(10.0, false);
    tables.set_block_size(PAGE_BYTES);
    tables.set_index_block_restart_interval(INDEX_RUN_ENTRIES);
    tables
}

/// An open database. Writing stops for good after the first failure, and after the first sign of damage.
pub(crate) struct Database {
    db: DB,
    path: PathBuf,
    /// How single values are read; made once, since making it costs as much as a look-up in memory.
    reading: ReadOptions,
    poison: OnceLock<Poison>,
}

/// Why nothing is written any more.
struct Poison {
    reason: String,
    /// What is stored is damaged; else a write failed.
    damaged: bool,
}

impl Database {
    /// Opens the folder, creating what is missing.
    pub(crate) fn open(path: &Path, columns: &[Column]) -> Result<Self, Error> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_db_write_buffer_size(WRITE_BUFFERS_BYTES);
        options.set_max_open_files(OPEN_FILES_MAX);
        options.set_keep_log_file_num(2);
        options.set_max_total_wal_size(LOGS_BYTES_MAX);
        options.set_paranoid_checks(true);
        let mut tables = tables();
        // The operating system caches the files. A cache of our own that is smaller than the state makes random reads slower, and one
        // that holds all of it hardly faster.
        tables.disable_cache();
        let descriptors =
            columns.iter().map(|column| ColumnFamilyDescriptor::new(column.name(), column.options(&tables)));
        let db = DB::open_cf_descriptors(&options, path, descriptors).map_err(|cause| Error::Database {
            path: path.to_owned(),
            action: "opening",
            cause: cause.into_string(),
        })?;
        Ok(Self { db, path: path.to_owned(), reading: ReadOptions::default(), poison: OnceLock::new() })
    }

    fn column(&self, column: Column) -> &ColumnFamily {
        self.db.cf_handle(column.name()).expect("invariant: a store uses the columns that it was opened with")
    }

    fn read_error(&self, cause: rocksdb::Error) -> Error {
        let lost = cause.kind() == ErrorKind::IOError
            && (cause.as_ref().contains("No such file") || cause.as_ref().contains("Input/output error"));
        if lost || cause.kind() == ErrorKind::Corruption {
            self.note_damage(cause.as_ref());
        }
        Error::Database { path: self.path.clone(), action: "reading", cause: cause.into_string() }
    }

    /// Value of a key.
    pub(crate) fn read(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.read_as(column, key, |value| Ok(Bytes::copy_from_slice(value)))
    }

    /// Whether the key has a value; cheap when it has none.
    pub(crate) fn contains(&self, column: Column, key: &[u8]) -> Result<bool, Error> {
        Ok(self.read_as(column, key, |_| Ok(()))?.is_some())
    }

    /// What `open` makes of the value of a key, in the memory of the database.
    pub(crate) fn read_as<V>(
        &self,
        column: Column,
        key: &[u8],
        open: impl FnOnce(&[u8]) -> Result<V, Error>,
    ) -> Result<Option<V>, Error> {
        let value = self.db.get_pinned_cf_opt(self.column(column), key, &self.reading);
        value.map_err(|cause| self.read_error(cause))?.map(|value| open(&value)).transpose()
    }

    /// What `open` makes of the values of keys that are given in ascending order, read in one round trip.
    pub(crate) fn read_sorted_as<'k, V>(
        &self,
        column: Column,
        keys: impl IntoIterator<Item = &'k [u8]>,
        open: impl Fn(&[u8]) -> Result<V, Error>,
    ) -> Result<Vec<Option<V>>, Error> {
        let found = self.db.batched_multi_get_cf(self.column(column), keys, true).into_iter();
        found
            .map(|value| {
                let value = value.map_err(|cause| self.read_error(cause))?;
                value.map(|value| open(&value)).transpose()
            })
            .collect()
    }

    /// Whether keys have values; the keys are given in ascending order, each once.
    pub(crate) fn contains_sorted<'k>(
        &self,
        column: Column,
        keys: impl IntoIterator<Item = &'k [u8]>,
    ) -> Result<Vec<bool>, Error> {
        let found = self.db.batched_multi_get_cf(self.column(column), keys, true).into_iter();
        found
            .map(|value| value.map(|slice| slice.is_some()).map_err(|cause| self.read_error(cause)))
            .collect()
    }

    /// Records with `start <= key < end` in key order; an end of `None` is the end of the column.
    pub(crate) fn scan(&self, column: Column, start: &[u8], end: Option<&[u8]>) -> DatabaseScan<'_> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(start);
        if let Some(end) = end {
            options.set_iterate_upper_bound(end);
        }
        let inverted = end.is_some_and(|end| end <= start);
        let iterator =
            (!inverted).then(|| self.db.iterator_cf_opt(self.column(column), options, IteratorMode::Start));
        DatabaseScan { database: self, iterator }
    }

    /// Bytes of the tables and blob files of a column.
    pub(crate) fn column_bytes(&self, column: Column) -> u64 {
        let property = |name: &str| self.db.property_int_value_cf(self.column(column), name).ok().flatten();
        let files = ["rocksdb.total-sst-files-size", "rocksdb.total-blob-file-size"];
        files.into_iter().filter_map(property).sum()
    }

    /// Fills a column that is empty with records in ascending key order, past the log: they are written to tables, which the
    /// database then takes over.
    ///
    /// # Errors
    /// [`Error::Database`], also when the records are not in order.
    pub(crate) fn fill(
        &self,
        column: Column,
        records: impl Iterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<(), Error> {
        let failed = |cause: rocksdb::Error| Error::Database {
            path: self.path.clone(),
            action: "filling",
            cause: cause.into_string(),
        };
        let options = column.options(&tables());
        let mut records = records.peekable();
        let mut files = Vec::new();
        while records.peek().is_some() {
            let file = self.path.join(format!("fill-{}-{}.sst", column.name(), files.len()));
            let mut writer = SstFileWriter::create(&options);
            writer.open(&file).map_err(failed)?;
            while writer.file_size() < FILL_FILE_BYTES
                && let Some((key, value)) = records.next()
            {
                writer.put(key, value).map_err(failed)?;
            }
            writer.finish().map_err(failed)?;
            files.push(file);
        }
        if files.is_empty() {
            return Ok(());
        }
        let mut taken = IngestExternalFileOptions::default();
        taken.set_move_files(true);
        self.db.ingest_external_file_cf_opts(self.column(column), &taken, files).map_err(failed)
    }

    /// An empty change of this database.
    pub(crate) fn change(&self) -> Change<'_> {
        Change { database: self, batch: WriteBatch::default() }
    }

    /// Waits until everything that was written is on the disk.
    ///
    /// # Errors
    /// As for [`Change::write`].
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.check_writable()?;
        self.db.flush_wal(true).map_err(|cause| self.write_error(cause))
    }

    fn check_writable(&self) -> Result<(), Error> {
        self.poisoned().map_or(Ok(()), |reason| Err(Error::Poisoned { reason }))
    }

    /// The first failed write is the last.
    fn write_error(&self, cause: rocksdb::Error) -> Error {
        let cause = cause.into_string();
        let poison =
            self.poison.get_or_init(|| Poison { reason: format!("a write failed: {cause}"), damaged: false });
        tracing::error!(
            path = %self.path.display(), reason = poison.reason,
            "a write failed, so the ledger stops; remedy: check the disk and its free space, then restart the node"
        );
        Error::Database { path: self.path.clone(), action: "writing", cause }
    }

    /// Why nothing is written any more.
    pub(crate) fn poisoned(&self) -> Option<String> {
        self.poison.get().map(|poison| poison.reason.clone())
    }

    /// Whether that is because what is stored is damaged.
    pub(crate) fn is_damaged(&self) -> bool {
        self.poison.get().is_some_and(|poison| poison.damaged)
    }

    /// Stops all writing, because something that was read is not what was written: whatever would be built on it could be wrong.
    pub(crate) fn note_damage(&self, what: &str) {
        self.poison.get_or_init(|| {
            tracing::error!(
                path = %self.path.display(), what,
                "what is stored is damaged, so the ledger stops; remedy: stop the node and restore the channel \
                 as docs/operations.md says for its kind"
            );
            Poison { reason: format!("what is stored is damaged: {what}"), damaged: true }
        });
    }
}

/// Records of one column that become durable together.
pub(crate) struct Change<'a> {
    database: &'a Database,
    batch: WriteBatch,
}

impl Change<'_> {
    pub(crate) fn put(&mut self, column: Column, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.batch.put_cf(self.database.column(column), key, value);
    }

    pub(crate) fn delete(&mut self, column: Column, key: impl AsRef<[u8]>) {
        self.batch.delete_cf(self.database.column(column), key);
    }

    /// Writes everything and waits for the disk.
    ///
    /// # Errors
    /// [`Error::Poisoned`] when an earlier write failed; [`Error::Database`] when this one does, after which all later ones are refused.
    pub(crate) fn write(self) -> Result<(), Error> {
        self.write_with(true)
    }

    /// Writes everything without waiting for the disk: it outlives the process at once, and the machine's power only with a later write that waits, or
    /// [`Database::sync`]. Such writes are lost from the last one backwards, never in between.
    ///
    /// # Errors
    /// As for [`Change::write`].
    pub(crate) fn write_unsynced(self) -> Result<(), Error> {
        self.write_with(false)
    }

    fn write_with(self, sync: bool) -> Result<(), Error> {
        let database = self.database;
        database.check_writable()?;
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        database.db.write_opt(self.batch, &options).map_err(|cause| database.write_error(cause))
    }
}

/// Records of a column in key order.
pub(crate) struct DatabaseScan<'a> {
    database: &'a Database,
    iterator: Option<DBIteratorWithThreadMode<'a, DB>>,
}

impl Iterator for DatabaseScan<'_> {
    type Item = Result<(Bytes, Bytes), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.iterator.as_mut()?.next()?;
        Some(match item {
            Ok((key, value)) => Ok((Bytes::from(key), Bytes::from(value))),
            Err(cause) => Err(self.database.read_error(cause)),
        })
    }
}
