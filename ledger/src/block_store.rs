//! The chain of blocks on disk. Used alone by an orderer, and inside a [`crate::Ledger`] by a peer.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use bytes::Bytes;
use consort_crypto::hash::HashAlgorithm;
use consort_protos::{
    fabric::common::{Block, BlockHeader},
    ids::BlockNumber,
};
use tokio::sync::watch;

use crate::{
    database::{Change, Column, Database},
    error::Error,
    genesis, stored_block,
};

/// The columns of a chain.
pub(crate) const COLUMNS: [Column; 4] =
    [Column::Facts, Column::Blocks, Column::Headers, Column::HeaderHashes];

/// The fact that says how many blocks there are.
const HEIGHT: &[u8] = b"height";

/// The fact that names the channel's hash; absent where it is SHA-256.
const HASHING: &[u8] = b"hashing";

/// An append-only chain of blocks, found by number and by header hash.
///
/// Every append is synced before it returns, unless it says otherwise. The link between headers is checked when a block is written and when it is read.
/// Cloning gives another handle to the same chain.
#[derive(Clone)]
pub struct BlockStore {
    database: Arc<Database>,
    tip: Arc<Mutex<Tip>>,
    /// That of the tip, to be had while a write holds it.
    hash: Arc<OnceLock<HashAlgorithm>>,
    heights: Arc<watch::Sender<u64>>,
}

/// The end of the chain.
#[derive(Debug, Clone, Default)]
struct Tip {
    height: u64,
    /// What the first block says; SHA-256 before there is one.
    hash: HashAlgorithm,
    last: Option<(BlockHeader, [u8; 32])>,
}

impl BlockStore {
    /// Opens the chain in a folder; an empty or missing folder becomes an empty chain.
    ///
    /// # Errors
    /// When the folder cannot be opened as a database, or its last block is damaged.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::over(Arc::new(Database::open(path, &COLUMNS)?))
    }

    /// The chain inside a larger database.
    pub(crate) fn over(database: Arc<Database>) -> Result<Self, Error> {
        let mut store = Self {
            database,
            tip: Arc::default(),
            hash: Arc::default(),
            heights: Arc::new(watch::Sender::new(0)),
        };
        let height = match store.database.read(Column::Facts, HEIGHT)? {
            Some(bytes) => number(&bytes, "height")?,
            None => 0,
        };
        let hashing = match store.database.read(Column::Facts, HASHING)? {
            Some(name) => std::str::from_utf8(&name)
                .ok()
                .and_then(HashAlgorithm::from_channel_name)
                .ok_or_else(|| Error::damaged("hashing", "the name of no known hash".to_owned()))?,
            None => HashAlgorithm::Sha256,
        };
        if let Some(last) = height.checked_sub(1) {
            store.hash.get_or_init(|| hashing);
            let missing =
                || Error::damaged("block", format!("number {last} is missing below height {height}"));
            let header =
                store.block(BlockNumber::new(last))?.and_then(|block| block.header).ok_or_else(missing)?;
            let hash = hashing.block_hash(&header);
            store.tip = Arc::new(Mutex::new(Tip { height, hash: hashing, last: Some((header, hash)) }));
        }
        store.heights.send_replace(height);
        Ok(store)
    }

    fn tip(&self) -> MutexGuard<'_, Tip> {
        self.tip.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hash of the channel, which its first block names.
    #[must_use]
    pub fn hash_algorithm(&self) -> HashAlgorithm {
        self.hash.get().copied().unwrap_or_default()
    }

    /// How many blocks there are; also the number of the next one.
    #[must_use]
    pub fn height(&self) -> u64 {
        *self.heights.borrow()
    }

    /// Follows the height: the receiver wakes after each append.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.heights.subscribe()
    }

    /// The header of the last block; `None` for an empty chain.
    #[must_use]
    pub fn last_header(&self) -> Option<BlockHeader> {
        self.tip().last.clone().map(|(header, _)| header)
    }

    /// The hash of the last header; `None` for an empty chain.
    #[must_use]
    pub fn last_hash(&self) -> Option<[u8; 32]> {
        self.tip().last.as_ref().map(|(_, hash)| *hash)
    }

    /// Why the chain takes no more blocks; `None` while it does.
    #[must_use]
    pub fn poisoned(&self) -> Option<String> {
        self.database.poisoned()
    }

    /// Appends the next block and waits until it is on the disk.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`], [`Error::Unlinked`] or [`Error::WrongDataHash`] when the block is not the next one of this chain, which
    /// then is as before; [`Error::Database`] and, from then on, [`Error::Poisoned`] when it cannot be written.
    pub fn append(&self, block: &Block) -> Result<(), Error> {
        self.append_with(block, true)
    }

    /// Appends the next block without waiting for the disk, and without comparing its data with the header's hash: for a caller that has done so, and can make
    /// the last blocks again should the machine lose power. Blocks are then lost from the end of the chain. [`BlockStore::sync`] and each later
    /// [`BlockStore::append`] wait for all of them.
    ///
    /// # Errors
    /// As for [`BlockStore::append`], but for [`Error::WrongDataHash`].
    pub fn append_unsynced(&self, block: &Block) -> Result<(), Error> {
        self.append_with(block, false)
    }

    /// Waits until every block is on the disk.
    ///
    /// # Errors
    /// [`Error::Database`] and, from then on, [`Error::Poisoned`] when the disk fails.
    pub fn sync(&self) -> Result<(), Error> {
        self.database.sync()
    }

    fn append_with(&self, block: &Block, synced: bool) -> Result<(), Error> {
        let mut tip = self.tip();
        check_link(block, &tip)?;
        if synced {
            check_data(block, &tip)?;
        }
        let mut change = self.database.change();
        let next = stage(block, &tip, &mut change)?;
        if synced { change.write() } else { change.write_unsynced() }?;
        self.hash.get_or_init(|| next.hash);
        *tip = next;
        self.heights.send_replace(tip.height);
        Ok(())
    }

    /// Checks that a block's header is the next one of the chain.
    pub(crate) fn check_link(&self, block: &Block) -> Result<(), Error> {
        check_link(block, &self.tip())
    }

    /// Checks that a block's data are those of its header.
    pub(crate) fn check_data(&self, block: &Block) -> Result<(), Error> {
        check_data(block, &self.tip())
    }

    /// Makes the chain include a block that [`stage`] put into a change that has been written.
    pub(crate) fn advance(&self, staged: Staged) {
        let height = staged.0.height;
        self.hash.get_or_init(|| staged.0.hash);
        *self.tip() = staged.0;
        self.heights.send_replace(height);
    }

    /// Adds a block to what will be written with other records.
    pub(crate) fn stage(&self, block: &Block, change: &mut Change<'_>) -> Result<Staged, Error> {
        stage(block, &self.tip(), change).map(Staged)
    }

    /// The block with this number; `None` beyond the end of the chain.
    ///
    /// # Errors
    /// [`Error::Damaged`] when what is stored is not the block that was written.
    pub fn block(&self, number: BlockNumber) -> Result<Option<Block>, Error> {
        let Some(bytes) = self.database.read(Column::Blocks, &number.get().to_be_bytes())? else {
            return Ok(None);
        };
        self.open_stored(number, bytes).inspect_err(|error| {
            if let Error::Damaged { .. } = error {
                self.database.note_damage(&error.to_string());
            }
        })
    }

    fn open_stored(&self, number: BlockNumber, bytes: Bytes) -> Result<Option<Block>, Error> {
        let block = stored_block::decode(bytes)?;
        let header = block
            .header
            .as_ref()
            .ok_or_else(|| Error::damaged("block", format!("number {number} has no header")))?;
        let previous = match number.previous() {
            Some(previous) => self.header_hash(previous)?,
            None => Some(Bytes::new()),
        };
        let linked = header.number == number.get()
            && previous.as_ref() == Some(&header.previous_hash)
            && self
                .header_hash(number)?
                .is_some_and(|hash| hash == self.hash_algorithm().block_hash(header).as_slice());
        if linked {
            Ok(Some(block))
        } else {
            Err(Error::damaged("block", format!("number {number} does not fit into its chain")))
        }
    }

    /// The hash of a block's header.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn header_hash(&self, number: BlockNumber) -> Result<Option<Bytes>, Error> {
        self.database.read(Column::Headers, &number.get().to_be_bytes())
    }

    /// The number of the block whose header has this hash.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn number_by_hash(&self, header_hash: &[u8]) -> Result<Option<BlockNumber>, Error> {
        let bytes = self.database.read(Column::HeaderHashes, header_hash)?;
        bytes.map(|bytes| number(&bytes, "block number").map(BlockNumber::new)).transpose()
    }

    /// The block whose header has this hash.
    ///
    /// # Errors
    /// As for [`BlockStore::block`].
    pub fn block_by_hash(&self, header_hash: &[u8]) -> Result<Option<Block>, Error> {
        match self.number_by_hash(header_hash)? {
            Some(number) => self.block(number),
            None => Ok(None),
        }
    }
}

/// The end of the chain once a staged block is written.
pub(crate) struct Staged(Tip);

fn check_link(block: &Block, tip: &Tip) -> Result<(), Error> {
    let header = block.header.as_ref().ok_or(Error::Headless)?;
    let expected = BlockNumber::new(tip.height);
    if header.number != tip.height {
        return Err(Error::OutOfOrder { expected, found: header.number });
    }
    let last = tip.last.as_ref().map(|(_, hash)| hash.as_slice()).unwrap_or_default();
    if header.previous_hash != last {
        return Err(Error::Unlinked {
            number: expected,
            expected: hexadecimal(last),
            found: hexadecimal(&header.previous_hash),
        });
    }
    Ok(())
}

fn check_data(block: &Block, tip: &Tip) -> Result<(), Error> {
    let header = block.header.as_ref().ok_or(Error::Headless)?;
    let expected = BlockNumber::new(header.number);
    let hash = hash_of(block, tip);
    let described =
        block.data.as_ref().is_some_and(|data| header.data_hash == hash.block_data_hash(data).as_slice());
    if described { Ok(()) } else { Err(Error::WrongDataHash { number: expected }) }
}

/// The hash that holds for a block: the chain's, or, of the first block, its own.
fn hash_of(block: &Block, tip: &Tip) -> HashAlgorithm {
    if tip.height == 0 { genesis::hash_algorithm(block) } else { tip.hash }
}

fn stage(block: &Block, tip: &Tip, change: &mut Change<'_>) -> Result<Tip, Error> {
    let header = block.header.clone().ok_or(Error::Headless)?;
    let hashing = hash_of(block, tip);
    let hash = hashing.block_hash(&header);
    let key = header.number.to_be_bytes();
    let height = header.number + 1;
    change.put(Column::Blocks, key, stored_block::encode(block));
    change.put(Column::Headers, key, hash);
    change.put(Column::HeaderHashes, hash, key);
    change.put(Column::Facts, HEIGHT, height.to_be_bytes());
    if header.number == 0 && hashing != HashAlgorithm::Sha256 {
        change.put(Column::Facts, HASHING, hashing.channel_name());
    }
    Ok(Tip { height, hash: hashing, last: Some((header, hash)) })
}

fn number(bytes: &[u8], what: &'static str) -> Result<u64, Error> {
    bytes
        .try_into()
        .map(u64::from_be_bytes)
        .map_err(|_| Error::damaged(what, format!("{} bytes", bytes.len())))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
