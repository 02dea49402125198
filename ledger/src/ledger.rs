//! The books of one channel, and the one write that moves them from block to block.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use consort_crypto::hash::HashAlgorithm;
use consort_protos::{
    block,
    fabric::{
        common::{Block, BlockHeader, BlockMetadataIndex, BlockchainInfo, Metadata},
        protos::TxValidationCode,
    },
    ids::{BlockNumber, ChannelId, Height, TxNumber},
    rwset::{PrivateCollection, PrivateReadWriteSet},
    transaction::Transaction,
};
use prost::Message as _;
use tokio::sync::watch;

use crate::{
    ValidatedBlock, block_store,
    block_store::BlockStore,
    database::{Change, Column, Database},
    error::Error,
    genesis::Genesis,
    history::{self, History},
    holdings::{self, Holdings},
    index::{TransactionIndex, TxLocation, code_byte},
    missing::{self, MissingPrivate},
    mvcc::{self, CONFIG_KEY, KnownState},
    private::{PrivateChanges, has_private_writes},
    snapshot::{StateSnapshot, Views},
    state::{self, RocksState, StateReader},
    transient::{self, TransientStore},
    updates::commit_hash,
};

/// The columns of a ledger beside those of its parts.
const COLUMNS: [Column; 4] =
    [Column::Transactions, Column::PrivateKeys, Column::History, Column::CommitHashes];

/// The fact that names the channel.
const CHANNEL: &[u8] = b"channel";

/// The fact that holds the last block's commit hash.
const COMMIT_HASH: &[u8] = b"commit_hash";

/// One channel's books.
///
/// Committing is serial; everything else may be called from any number of threads at the same time.
pub struct Ledger {
    channel: ChannelId,
    database: Arc<Database>,
    blocks: BlockStore,
    state: Arc<RocksState>,
    index: TransactionIndex,
    transient: TransientStore,
    views: Arc<Views>,
    /// The last block's commit hash; whoever commits holds the lock.
    commit_hash: Mutex<Bytes>,
}

/// A block that is now part of the books.
#[derive(Debug, Clone)]
pub struct Committed {
    /// Its number.
    pub number: BlockNumber,
    /// The final codes.
    pub codes: Vec<TxValidationCode>,
    /// The block as it is stored, codes and commit hash in its metadata.
    pub block: Block,
}

impl Ledger {
    /// Opens the books of a channel.
    ///
    /// # Errors
    /// [`Error::Absent`] when there are none or their creation was not finished, [`Error::WrongChannel`], [`Error::Damaged`], or
    /// [`Error::Database`] when the folder cannot be opened.
    pub fn open(path: &Path, channel: &ChannelId) -> Result<Self, Error> {
        if !path.exists() {
            return Err(Error::Absent { path: path.to_owned() });
        }
        let database = open_database(path)?;
        let found =
            database.read(Column::Facts, CHANNEL)?.ok_or_else(|| Error::Absent { path: path.to_owned() })?;
        if found != channel.as_str().as_bytes() {
            let found = String::from_utf8_lossy(&found).into_owned();
            return Err(Error::WrongChannel { path: path.to_owned(), found, wanted: channel.to_string() });
        }
        let hash = BlockStore::over(database.clone())?.hash_algorithm();
        Self::over(database, channel.clone(), hash)
    }

    /// Begins the books of the channel that a genesis block defines. All of it is written at once, so that an interrupted creation leaves
    /// nothing that opens as a ledger, and can be repeated.
    ///
    /// # Errors
    /// [`Error::NotGenesis`], [`Error::Exists`], or as for [`Ledger::commit`].
    pub fn create(path: &Path, genesis: &Block) -> Result<Self, Error> {
        let Genesis { channel, config, tx_id, hash } = Genesis::read(genesis)?;
        let database = open_database(path)?;
        if database.read(Column::Facts, CHANNEL)?.is_some() {
            return Err(Error::Exists { path: path.to_owned() });
        }
        let ledger = Self::over(database, channel, hash)?;
        ledger.blocks.check_link(genesis)?;
        ledger.blocks.check_data(genesis)?;
        let mut block = genesis.clone();
        set_metadata(&mut block, &[TxValidationCode::Valid], None);
        let mut change = ledger.database.change();
        change.put(Column::Facts, CHANNEL, ledger.channel.as_str());
        let ids = ledger.index.look_up([Some(tx_id)].into_iter())?;
        ids.stage(BlockNumber::GENESIS, &[TxValidationCode::Valid], &mut change);
        let staged = ledger.blocks.stage(&block, &mut change)?;
        ledger.state.stage(&mvcc::genesis(config).changes(), Height::new(0, 0), &mut change);
        change.write()?;
        ledger.views.finish(BlockNumber::GENESIS);
        ledger.blocks.advance(staged);
        Ok(ledger)
    }

    fn over(database: Arc<Database>, channel: ChannelId, hash: HashAlgorithm) -> Result<Self, Error> {
        let blocks = BlockStore::over(database.clone())?;
        let commit_hash = database.read(Column::Facts, COMMIT_HASH)?.unwrap_or_default();
        Ok(Self {
            channel,
            state: Arc::new(RocksState::over(database.clone(), hash)),
            index: TransactionIndex::over(database.clone()),
            transient: TransientStore::over(database.clone())?,
            views: Views::new(blocks.height()),
            commit_hash: Mutex::new(commit_hash),
            blocks,
            database,
        })
    }

    /// The channel.
    #[must_use]
    pub fn channel(&self) -> &ChannelId {
        &self.channel
    }

    /// The hash of the channel, which its first block names.
    #[must_use]
    pub fn hash_algorithm(&self) -> HashAlgorithm {
        self.blocks.hash_algorithm()
    }

    /// How many blocks are committed; also the number of the next one.
    #[must_use]
    pub fn height(&self) -> u64 {
        self.blocks.height()
    }

    /// Follows the height. When a receiver wakes, the block's state, index and history can be read.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.blocks.subscribe()
    }

    /// The hash of the last block's header.
    #[must_use]
    pub fn last_hash(&self) -> Option<[u8; 32]> {
        self.blocks.last_hash()
    }

    /// Height and ends of the chain, as `qscc` reports them.
    #[must_use]
    pub fn info(&self) -> BlockchainInfo {
        let header = self.blocks.last_header();
        let block_hash =
            |header: &BlockHeader| Bytes::copy_from_slice(&self.hash_algorithm().block_hash(header));
        BlockchainInfo {
            height: self.height(),
            current_block_hash: header.as_ref().map(block_hash).unwrap_or_default(),
            previous_block_hash: header.map(|header| header.previous_hash).unwrap_or_default(),
            ..BlockchainInfo::default()
        }
    }

    /// The block with this number, with its final metadata; `None` beyond the end.
    ///
    /// # Errors
    /// [`Error::Damaged`] when what is stored is not what was written; [`Error::Database`] when it cannot be read.
    pub fn block(&self, number: BlockNumber) -> Result<Option<Block>, Error> {
        self.blocks.block(number)
    }

    /// The block whose header has this hash.
    ///
    /// # Errors
    /// As for [`Ledger::block`].
    pub fn block_by_hash(&self, header_hash: &[u8]) -> Result<Option<Block>, Error> {
        self.blocks.block_by_hash(header_hash)
    }

    /// The block that holds the first transaction with this id.
    ///
    /// # Errors
    /// As for [`Ledger::block`].
    pub fn block_by_tx(&self, tx_id: &str) -> Result<Option<Block>, Error> {
        match self.index.find(tx_id)? {
            Some((place, _)) => self.blocks.block(place.block),
            None => Ok(None),
        }
    }

    /// Where the first transaction with this id stands, and its code.
    ///
    /// # Errors
    /// As for [`Ledger::block`].
    pub fn transaction(&self, tx_id: &str) -> Result<Option<(TxLocation, TxValidationCode)>, Error> {
        self.index.find(tx_id)
    }

    /// The envelope of the first transaction with this id, and its code.
    ///
    /// # Errors
    /// As for [`Ledger::block`].
    pub fn transaction_envelope(&self, tx_id: &str) -> Result<Option<(Bytes, TxValidationCode)>, Error> {
        let Some((place, code)) = self.index.find(tx_id)? else { return Ok(None) };
        let missing = || Error::damaged("transaction index", format!("no transaction at {place}"));
        let block = self.blocks.block(place.block)?.ok_or_else(missing)?;
        let envelope = block
            .data
            .as_ref()
            .and_then(|data| data.data.get(place.tx.get() as usize))
            .ok_or_else(missing)?;
        Ok(Some((envelope.clone(), code)))
    }

    /// Whether a transaction with this id is in the chain, valid or not. Cheap when it is not.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn contains_tx(&self, tx_id: &str) -> Result<bool, Error> {
        self.index.contains(tx_id)
    }

    /// The commit hash of a block: what its transactions made of the state, chained to that of the block before. `None` for the genesis
    /// block and beyond the end.
    ///
    /// # Errors
    /// As for [`Ledger::block`].
    pub fn commit_hash(&self, number: BlockNumber) -> Result<Option<Bytes>, Error> {
        self.database.read(Column::CommitHashes, &number.get().to_be_bytes())
    }

    /// The last configuration block.
    ///
    /// # Errors
    /// As for [`Ledger::block`].
    pub fn last_config_block(&self) -> Result<Block, Error> {
        let config = self
            .snapshot()
            .get("", CONFIG_KEY)?
            .ok_or_else(|| Error::damaged("state", "no configuration"))?;
        let number = config.version.block;
        self.blocks
            .block(number)?
            .ok_or_else(|| Error::damaged("block", format!("configuration block {number} is missing")))
    }

    /// The state after the last committed block, unchanged by later ones.
    #[must_use]
    pub fn snapshot(&self) -> StateSnapshot {
        StateSnapshot::open(self.state.clone(), &self.views)
    }

    /// The modifications of a public key by blocks below `height`, newest first. A simulation passes its snapshot's height.
    #[must_use]
    pub fn history(&self, namespace: &str, key: &str, height: BlockNumber) -> History {
        History::of(self.database.clone(), self.blocks.clone(), namespace, key, height)
    }

    /// Where private data waits between endorsement and commit.
    #[must_use]
    pub fn transient(&self) -> &TransientStore {
        &self.transient
    }

    /// Why nothing is committed any more; `None` while all is well.
    #[must_use]
    pub fn poisoned(&self) -> Option<String> {
        self.database.poisoned()
    }

    /// Whether nothing is committed any more because something that was read is not what was written; what can still be read is right.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.database.is_damaged()
    }

    /// The private sets of a block that this peer holds, by transaction; keys that were purged since are cut out.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn private_sets(
        &self,
        number: BlockNumber,
    ) -> Result<BTreeMap<TxNumber, PrivateReadWriteSet>, Error> {
        holdings::sets_of(&self.database, number)
    }

    /// Private data that this peer should have and does not: of valid transactions, of the newest blocks first, and then of invalid ones.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn missing_private(&self, results_max: usize) -> Result<Vec<MissingPrivate>, Error> {
        missing::after(&self.database, None, results_max)
    }

    /// The same, from the record after `last` on.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn missing_private_after(
        &self,
        last: &MissingPrivate,
        results_max: usize,
    ) -> Result<Vec<MissingPrivate>, Error> {
        missing::after(&self.database, Some(last), results_max)
    }

    /// Private data of invalid transactions that this peer should have and does not, of the newest blocks first, from the record after
    /// `last` on.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn missing_private_of_invalid(
        &self,
        last: Option<&MissingPrivate>,
        results_max: usize,
    ) -> Result<Vec<MissingPrivate>, Error> {
        missing::of_invalid_after(&self.database, last, results_max)
    }

    /// Takes the organisation for a member of further collections: what is missing of them counts as missing from now on. Says how many sets.
    ///
    /// # Errors
    /// As for [`Ledger::commit`].
    pub fn reconsider_missing(&self, is_member: impl Fn(&str, &str) -> bool) -> Result<usize, Error> {
        let _no_commit_meanwhile = self.commit_hash.lock().unwrap_or_else(PoisonError::into_inner);
        missing::reconsider(&self.database, is_member)
    }

    /// One transaction's private writes to one collection, where this peer holds them; keys that were purged since are cut out.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn private_set(
        &self,
        place: TxLocation,
        namespace: &str,
        collection: &str,
    ) -> Result<Option<PrivateCollection>, Error> {
        holdings::set_at(&self.database, place, namespace, collection)
    }

    /// Takes private data that was missing when its block was committed. Values that are still current become readable, unless their transaction
    /// is invalid. Says whether the data was missing at all.
    ///
    /// # Errors
    /// [`Error::PrivateDataMismatch`] when it is not what the transaction promised; else as for [`Ledger::commit`].
    pub fn supply_private(
        &self,
        place: TxLocation,
        namespace: &str,
        set: &PrivateCollection,
    ) -> Result<bool, Error> {
        let _no_commit_meanwhile = self.commit_hash.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = self.blocks.block(place.block)?.and_then(|block| {
            let envelope = block::envelopes(&block).get(place.tx.get() as usize).cloned();
            envelope.and_then(|envelope| Transaction::open(envelope).ok())
        });
        let hash = self.hash_algorithm();
        let promised = match &transaction {
            Some(transaction) => {
                holdings::is_promised(&self.database, transaction, place, namespace, set, hash)?
            }
            None => false,
        };
        if !promised {
            return Err(Error::PrivateDataMismatch {
                number: place.block,
                transaction: place.tx.get(),
                namespace: namespace.to_owned(),
                collection: set.name().to_owned(),
            });
        }
        let mut change = self.database.change();
        let supplied = holdings::supply(&self.database, &self.state, place, namespace, set, &mut change)?;
        if supplied.is_some() {
            change.write()?;
        }
        Ok(supplied.is_some())
    }

    /// The hash of a block's header, as it is indexed.
    pub(crate) fn header_hash(&self, number: BlockNumber) -> Result<Option<Bytes>, Error> {
        self.blocks.header_hash(number)
    }

    pub(crate) fn index(&self) -> &TransactionIndex {
        &self.index
    }

    pub(crate) fn state(&self) -> &RocksState {
        &self.state
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// Checks the versions of a block's transactions and moves the books on: block, codes, state, private data, history, index and savepoint
    /// in one synced write. Blocks the thread for the time of a disk write.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`], [`Error::Unlinked`], [`Error::WrongDataHash`] or [`Error::PrivateDataMismatch`] when the block is not the next one;
    /// the books are then as before. [`Error::Database`] and, from then on, [`Error::Poisoned`] when a write fails.
    pub fn commit(&self, mut block: ValidatedBlock) -> Result<Committed, Error> {
        let mut last_hash = self.commit_hash.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = self.poisoned() {
            return Err(Error::Poisoned { reason });
        }
        self.blocks.check_link(block.block())?;
        if !block.data_checked() {
            self.blocks.check_data(block.block())?;
        }
        let number = block.number();
        let lookup = match block.take_lookup(self.height()) {
            Some(lookup) => lookup,
            None => self.look_up_where(block.transactions(), |index, _| {
                block.codes()[index] == TxValidationCode::Valid
            })?,
        };
        let (ids, known) = lookup.into_parts();
        let verdict = mvcc::judge(number, block.transactions(), block.codes(), self.state.as_ref(), known)?;
        let private = PrivateChanges::collect(
            &block,
            &verdict.codes,
            &verdict.updates,
            &self.database,
            self.hash_algorithm(),
        )?;
        let holdings = Holdings {
            database: &self.database,
            state: &self.state,
            block: &block,
            codes: &verdict.codes,
            updates: &verdict.updates,
        };
        let code_bytes: Vec<u8> = verdict.codes.iter().copied().map(code_byte).collect();
        let hash = Bytes::copy_from_slice(&commit_hash(
            self.hash_algorithm(),
            &code_bytes,
            &verdict.updates,
            &last_hash,
        ));

        let mut change = self.database.change();
        let mut changes = verdict.updates.changes();
        changes.extend(private.values());
        let mut before = self.before(&changes, &verdict.known)?;
        holdings.stage(&mut change)?;
        let expired = holdings.expire(&mut change)?;
        before.extend(expired.before);
        self.state.stage_values(&expired.changes, &mut change);
        // What the block itself changes comes after what expires with it, and wins.
        self.state.stage(&changes, savepoint(number, block.codes().len()), &mut change);
        private.stage_keys(&mut change);
        stage_history(&block, &verdict.codes, &mut change);
        self.stage_transient(&block, &mut change)?;
        ids.stage(number, &verdict.codes, &mut change);
        let mut stored = block.into_block();
        set_metadata(&mut stored, &verdict.codes, Some(&hash));
        let staged = self.blocks.stage(&stored, &mut change)?;
        change.put(Column::Facts, COMMIT_HASH, &hash);
        change.put(Column::CommitHashes, number.get().to_be_bytes(), &hash);

        self.views.begin(number, before);
        change.write()?;
        *last_hash = hash;
        self.views.finish(number);
        self.blocks.advance(staged);
        Ok(Committed { number, codes: verdict.codes, block: stored })
    }

    /// The values that a block is about to replace.
    fn before(
        &self,
        changes: &[state::Change],
        known: &KnownState,
    ) -> Result<crate::snapshot::Before, Error> {
        let (private, shared): (Vec<_>, Vec<_>) =
            changes.iter().map(|(key, _)| key.clone()).partition(|key| key.space() == state::Space::Private);
        let values = self.state.read(&private)?;
        let shared = shared.into_iter().map(|key| {
            let value = known.value(&key).cloned();
            (key, value)
        });
        Ok(shared.chain(private.into_iter().zip(values)).collect())
    }

    fn stage_transient(&self, block: &ValidatedBlock, change: &mut Change<'_>) -> Result<(), Error> {
        let arrived =
            block.transactions().iter().flatten().filter(|transaction| has_private_writes(transaction));
        self.transient.stage_removal(arrived.map(|transaction| transaction.tx_id.as_str()), change)?;
        self.transient.stage_expiry(block.number(), change)
    }
}

fn open_database(path: &Path) -> Result<Arc<Database>, Error> {
    let mut columns = [
        &COLUMNS[..],
        &block_store::COLUMNS,
        &state::STORED_COLUMNS,
        &transient::COLUMNS,
        &holdings::COLUMNS,
    ]
    .concat();
    columns.sort_unstable();
    columns.dedup();
    Ok(Arc::new(Database::open(path, &columns)?))
}

/// The last transaction of a block; an empty block counts as having one.
fn savepoint(number: BlockNumber, transactions: usize) -> Height {
    let last = u32::try_from(transactions.saturating_sub(1))
        .expect("invariant: a message of at most 2 GB holds fewer than 2^32 envelopes");
    Height { block: number, tx: TxNumber::new(last) }
}

fn set_metadata(block: &mut Block, codes: &[TxValidationCode], commit_hash: Option<&Bytes>) {
    let flags = codes.iter().copied().map(code_byte).collect();
    block::set_metadata(block, BlockMetadataIndex::TransactionsFilter, flags);
    let hash = commit_hash
        .map(|hash| Metadata { value: hash.clone(), signatures: Vec::new() }.encode_to_vec().into());
    block::set_metadata(block, BlockMetadataIndex::CommitHash, hash.unwrap_or_default());
}

/// The id under which a transaction counts.
pub(crate) fn transaction_id(transaction: &Transaction, hash: HashAlgorithm) -> String {
    if transaction.tx_id.is_empty() {
        // An orderer's configuration transaction names no id; it counts under the one that its header gives.
        hash.tx_id(&transaction.nonce, &transaction.creator)
    } else {
        transaction.tx_id.clone()
    }
}

fn stage_history(block: &ValidatedBlock, codes: &[TxValidationCode], change: &mut Change<'_>) {
    for ((transaction, code), tx) in block.transactions().iter().zip(codes).zip(0_u32..) {
        let (Some(transaction), TxValidationCode::Valid) = (transaction, code) else { continue };
        let Some(invocation) = transaction.invocation() else { continue };
        let place = Height { block: block.number(), tx: TxNumber::new(tx) };
        for namespace in &invocation.rwset.namespaces {
            for write in &namespace.writes {
                history::stage(&namespace.namespace, &write.key, place, change);
            }
        }
    }
}
