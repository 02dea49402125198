//! What can go wrong with a channel's books.

use std::path::PathBuf;

use consort_protos::ids::BlockNumber;

/// A failure of the books themselves. An invalid transaction is never one: it is a validation code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database refused an operation: a full or broken disk, a missing right, a folder in use.
    #[error("database {path}: {action} failed: {cause}", path = path.display())]
    Database {
        /// The folder of the database.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// The database's words.
        cause: String,
    },

    /// An earlier write failed, or something that was read is damaged, so nothing more is written: what the disk holds is not known
    /// until the ledger is opened again.
    #[error("the ledger stopped: {reason}")]
    Poisoned {
        /// The first failure.
        reason: String,
    },

    /// Stored bytes do not read back as what was written.
    #[error("stored {what} is damaged: {detail}")]
    Damaged {
        /// The kind of record.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },

    /// There is no ledger in the folder, or its creation was never finished.
    #[error("there is no ledger in {path}", path = path.display())]
    Absent {
        /// The folder that was to be opened.
        path: PathBuf,
    },

    /// A ledger is there already.
    #[error("there is a ledger in {path} already", path = path.display())]
    Exists {
        /// The folder that was to be filled.
        path: PathBuf,
    },

    /// The folder holds the books of another channel.
    #[error("the ledger in {path} belongs to channel {found}, not to {wanted}", path = path.display())]
    WrongChannel {
        /// The folder.
        path: PathBuf,
        /// The channel that its books name.
        found: String,
        /// The channel that was asked for.
        wanted: String,
    },

    /// The first block is not a genesis block of a channel.
    #[error("this is not a genesis block: {reason}")]
    NotGenesis {
        /// What is missing.
        reason: String,
    },

    /// The block has no header.
    #[error("the block has no header")]
    Headless,

    /// The block is not the next one.
    #[error("block number should have been {expected} but was {found}")]
    OutOfOrder {
        /// The number of the next block.
        expected: BlockNumber,
        /// The number that the header carries.
        found: u64,
    },

    /// The block names a predecessor that is not the last block of this channel.
    #[error(
        "block {number} does not follow the last block: its previous hash is {found}, the last header's hash is {expected}"
    )]
    Unlinked {
        /// The block that was to be appended.
        number: BlockNumber,
        /// Hash of the last header, in hex.
        expected: String,
        /// The hash that the block names, in hex.
        found: String,
    },

    /// The header's data hash is not the hash of the block's data.
    #[error("block {number} carries data that its header does not describe")]
    WrongDataHash {
        /// The block that was to be appended.
        number: BlockNumber,
    },

    /// The caller's codes or transactions do not match the block.
    #[error("block {number} has {transactions} transactions, but {given} {what} were given")]
    WrongCount {
        /// The block.
        number: BlockNumber,
        /// Envelopes in the block.
        transactions: usize,
        /// How many came.
        given: usize,
        /// Of what.
        what: &'static str,
    },

    /// A transaction reached the commit without having been judged.
    #[error("transaction {transaction} of block {number} was not validated")]
    NotValidated {
        /// The block.
        number: BlockNumber,
        /// Its index in the block.
        transaction: usize,
    },

    /// Private data given with a block is not what the transaction's hash promises.
    #[error(
        "private data of transaction {transaction} in block {number} for {namespace}/{collection} does not match its hash"
    )]
    PrivateDataMismatch {
        /// The block.
        number: BlockNumber,
        /// The transaction's index in the block.
        transaction: u32,
        /// The chaincode's namespace.
        namespace: String,
        /// The collection.
        collection: String,
    },

    /// A snapshot was held for so long that the values it needs were given up.
    #[error("the state snapshot at height {height} is too old to be read")]
    SnapshotExpired {
        /// The height that the snapshot shows.
        height: u64,
    },

    /// More private sets wait for one transaction than can be real.
    #[error("transaction {transaction} has {limit} private sets waiting already")]
    TransientFull {
        /// The transaction id.
        transaction: String,
        /// [`crate::transient::SETS_PER_TRANSACTION_MAX`].
        limit: usize,
    },

    /// More private data waits for one transaction than can be real.
    #[error("transaction {transaction} would have more than {limit} bytes of private sets waiting")]
    TransientTransaction {
        /// The transaction id.
        transaction: String,
        /// [`crate::transient::TRANSACTION_BYTES_MAX`].
        limit: u64,
    },

    /// More private data waits for its transactions than this peer keeps.
    #[error(
        "{limit} bytes of private data wait for their transactions already; they go as these are committed, or after {} blocks",
        crate::transient::RETENTION_BLOCKS
    )]
    TransientBytes {
        /// [`crate::transient::WAITING_BYTES_MAX`].
        limit: u64,
    },
}

impl Error {
    /// Whether a disk has no room left.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        matches!(self, Self::Database { cause, .. } if cause.contains("No space left"))
    }

    pub(crate) fn damaged(what: &'static str, detail: impl Into<String>) -> Self {
        Self::Damaged { what, detail: detail.into() }
    }
}
