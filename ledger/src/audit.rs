//! Whether books are what they should be: one ledger against itself, and two ledgers of a channel against each other.
//!
//! The chain proves the rest: it is replayed into an empty state, version checks included, and what comes out must be the codes, commit
//! hashes and state that are stored. Signatures and policies are not judged again: that takes the channel's identities.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use consort_crypto::hash::{HashAlgorithm, sha256};
use consort_protos::{
    block,
    fabric::{common::Block, protos::TxValidationCode},
    ids::{BlockNumber, Height, TxNumber},
    transaction::Transaction,
};

use crate::{
    Ledger,
    error::Error,
    genesis::Genesis,
    history, holdings,
    index::code_byte,
    missing, mvcc,
    state::{Entry, KeyRange, Scan, Space, StateKey, StateReader, StateStore, VersionedValue},
    updates::commit_hash,
};

/// Faults after which an examination ends: more say no more about the cause.
pub const FAULTS_MAX: usize = 100;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fault {
    /// The block.
    pub block: Option<u64>,
    /// The transaction's position in it.
    pub transaction: Option<u32>,
    /// The key, as `namespace/key` or `namespace/collection/hash`.
    pub key: Option<String>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(block) = self.block {
            write!(f, "block {block}")?;
            if let Some(transaction) = self.transaction {
                write!(f, ", transaction {transaction}")?;
            }
            f.write_str(": ")?;
        }
        if let Some(key) = &self.key {
            write!(f, "key {key}: ")?;
        }
        f.write_str(&self.what)
    }
}

/// The outcome of an examination.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examination {
    /// Blocks that were examined.
    pub blocks: u64,
    /// Their transactions.
    pub transactions: u64,
    /// Values in the state, of all kinds.
    pub keys: u64,
    /// What is wrong; empty when the books are right. At most [`FAULTS_MAX`].
    pub faults: Vec<Fault>,
}

impl Examination {
    fn fault(&mut self, block: Option<u64>, what: impl Into<String>) {
        self.faults.push(Fault { block, what: what.into(), ..Fault::default() });
    }

    fn is_full(&self) -> bool {
        self.faults.len() >= FAULTS_MAX
    }
}

impl Ledger {
    /// Examines the books: every block's hash, link and content, its place in the indexes, its codes and commit hash, and the state. The
    /// chain is replayed into `scratch`, an empty state that may be thrown away afterwards; `progress` hears of each block.
    ///
    /// # Errors
    /// When `scratch` cannot be used. What is wrong with the books themselves is in the answer.
    pub fn examine(
        &self,
        scratch: &dyn StateStore,
        mut progress: impl FnMut(u64),
    ) -> Result<Examination, Error> {
        let scratch = &Scratch { store: scratch, hash: self.hash_algorithm() };
        let mut found = Examination::default();
        let mut last_hash = Bytes::new();
        for number in 0..self.height() {
            match self.block(BlockNumber::new(number)) {
                Ok(Some(block)) => {
                    found.transactions += block::envelopes(&block).len() as u64;
                    last_hash = self.examine_block(&block, scratch, &last_hash, &mut found)?;
                }
                Ok(None) => found.fault(Some(number), "is missing"),
                Err(error) => found.fault(Some(number), with_causes(&error)),
            }
            found.blocks += 1;
            progress(number);
            if !found.faults.is_empty() {
                // What a broken block would have changed is not known, so that everything after it would look wrong.
                return Ok(found);
            }
        }
        self.examine_state(scratch, &mut found)?;
        Ok(found)
    }

    /// Replays one block; returns its commit hash.
    fn examine_block(
        &self,
        block: &Block,
        scratch: &Scratch<'_>,
        last_hash: &[u8],
        found: &mut Examination,
    ) -> Result<Bytes, Error> {
        let number = block::number(block);
        let at = Some(number.get());
        let header = block.header.as_ref().ok_or(Error::Headless)?;
        if block
            .data
            .as_ref()
            .is_none_or(|data| header.data_hash != self.hash_algorithm().block_data_hash(data).as_slice())
        {
            found.fault(at, "the data is not what the header describes");
        }
        let indexed = self
            .block_by_hash(&self.hash_algorithm().block_hash(header))
            .map(|found| found.map(|block| block::number(&block)));
        if !matches!(indexed, Ok(Some(place)) if place == number) {
            found.fault(at, "it is not found by the hash of its header");
        }
        if number == BlockNumber::GENESIS {
            let genesis = Genesis::read(block)?;
            scratch.store.apply(&mvcc::genesis(genesis.config).changes(), Height::new(0, 0))?;
            return Ok(Bytes::new());
        }
        let transactions: Vec<Option<Arc<Transaction>>> = block::envelopes(block)
            .iter()
            .map(|envelope| Transaction::open(envelope.clone()).ok().map(Arc::new))
            .collect();
        let stored = stored_codes(block, transactions.len());
        let verdict = mvcc::validate(number, &transactions, &before_version_checks(&stored), scratch)?;
        for (index, (stored, replayed)) in (0_u32..).zip(stored.iter().zip(&verdict.codes)) {
            if stored != replayed {
                let what =
                    format!("the stored code is {}, the replay gives {}", name(*stored), name(*replayed));
                found.faults.push(Fault { block: at, transaction: Some(index), what, ..Fault::default() });
            }
        }
        self.examine_indexes(number, &transactions, &verdict.codes, found);
        let codes: Vec<u8> = stored.iter().copied().map(code_byte).collect();
        let hash =
            Bytes::copy_from_slice(&commit_hash(self.hash_algorithm(), &codes, &verdict.updates, last_hash));
        if block::commit_hash(block).ok().flatten().as_ref() != Some(&hash) {
            found.fault(at, "the stored commit hash is not that of the replay");
        }
        if self.commit_hash(number)?.is_some_and(|indexed| indexed != hash) {
            found.fault(at, "the commit hash beside the block is not that of the replay");
        }
        let mut changes = verdict.updates.changes();
        for expiring in holdings::expiring_at(self.database(), number)? {
            for key_hash in &expiring.hashes {
                let key = StateKey::hashed(&expiring.namespace, &expiring.collection, key_hash);
                let updated =
                    verdict.updates.hashed(&expiring.namespace, &expiring.collection, key_hash).is_some();
                let value = scratch.read_one(&key)?;
                if !updated && value.is_some_and(|value| value.version.block == expiring.committed) {
                    changes.push((key, None));
                }
            }
        }
        changes.sort_by(|left, right| left.0.cmp(&right.0));
        let last = u32::try_from(transactions.len().saturating_sub(1)).unwrap_or(u32::MAX);
        scratch.store.apply(&changes, Height { block: number, tx: TxNumber::new(last) })?;
        Ok(hash)
    }

    /// Every id must lead to a transaction with that id, and every valid write must stand in the history.
    fn examine_indexes(
        &self,
        number: BlockNumber,
        transactions: &[Option<Arc<Transaction>>],
        codes: &[TxValidationCode],
        found: &mut Examination,
    ) {
        for (index, (transaction, code)) in (0_u32..).zip(transactions.iter().zip(codes)) {
            if found.is_full() {
                return;
            }
            let Some(transaction) = transaction else { continue };
            let place = Height { block: number, tx: TxNumber::new(index) };
            let mut fault = |what: String| {
                let (block, transaction) = (Some(number.get()), Some(index));
                found.faults.push(Fault { block, transaction, what, ..Fault::default() });
            };
            let id = crate::ledger::transaction_id(transaction, self.hash_algorithm());
            match self.transaction(&id) {
                Ok(Some((first, stored))) if first < place || (first == place && stored == *code) => {}
                Ok(Some((first, stored))) => {
                    fault(format!("the index leads from its id to {first} with code {}", name(stored)));
                }
                Ok(None) => fault("its id is not in the index".to_owned()),
                Err(error) => fault(with_causes(&error)),
            }
            let (Some(invocation), TxValidationCode::Valid) = (transaction.invocation(), code) else {
                continue;
            };
            for namespace in &invocation.rwset.namespaces {
                for write in &namespace.writes {
                    if !history::contains(self.database(), &namespace.namespace, &write.key, place)
                        .unwrap_or(false)
                    {
                        fault(format!("the history of {}/{} lacks it", namespace.namespace, write.key));
                    }
                }
            }
        }
    }

    /// The stored state must be the replayed one, and every private value that of its hash.
    fn examine_state(&self, scratch: &Scratch<'_>, found: &mut Examination) -> Result<(), Error> {
        let (snapshot, hash) = (self.snapshot(), self.hash_algorithm());
        for space in [Space::Public, Space::Hashed] {
            let (stored, replayed) =
                (snapshot.scan(&KeyRange::all(space))?, scratch.scan(&KeyRange::all(space))?);
            for difference in Differences::new(stored, replayed) {
                let Pair { key, left: stored, right: replayed } = difference?;
                found.keys += 1;
                if stored != replayed && !found.is_full() {
                    let what = match (&stored, &replayed) {
                        (None, _) => "the state lacks it".to_owned(),
                        (_, None) => "the state has it, the blocks do not".to_owned(),
                        (Some(stored), Some(replayed)) if stored.version != replayed.version => format!(
                            "the state has version {}, the blocks give {}",
                            stored.version, replayed.version
                        ),
                        _ => "the state has another value than the blocks give".to_owned(),
                    };
                    found.faults.push(Fault { key: Some(key_text(&key)), what, ..Fault::default() });
                }
            }
        }
        let mut lacking = None;
        for entry in snapshot.scan(&KeyRange::all(Space::Private))? {
            let (key, value) = entry?;
            found.keys += 1;
            let collection = key.collection().unwrap_or_default();
            let hashed = snapshot.hashed(&key.namespace(), &collection, &hash.hash(key.key()))?;
            let newest = hashed.as_ref().map(|hashed| hashed.version);
            let mut right = hashed.is_some_and(|hashed| hashed.value == value.private_hash(hash).as_slice());
            if let (false, Some(newest)) = (right, newest) {
                // Who lacks the newest value still holds the one before, which nobody can read any more.
                let lacking = match &mut lacking {
                    Some(lacking) => lacking,
                    None => lacking.insert(missing::of_valid(self.database())?),
                };
                let lacks = lacking.get(&(key.namespace(), collection.clone()));
                right = lacks.is_some_and(|places| {
                    places.iter().any(|place| value.version < *place && *place <= newest)
                });
            }
            if !right && !found.is_full() {
                let key = StateKey::hashed(&key.namespace(), &collection, &hash.hash(key.key()));
                let what = "the private value is not that of its hash".to_owned();
                found.faults.push(Fault { key: Some(key_text(&key)), what, ..Fault::default() });
            }
        }
        Ok(())
    }

    /// The first place where the books of another peer of the channel differ from these; `None` when they are equal as far as both go.
    /// Private data is left out: peers hold different parts of it.
    ///
    /// # Errors
    /// When one of the ledgers cannot be read.
    pub fn first_difference(&self, other: &Self) -> Result<Option<Fault>, Error> {
        for number in (0..self.height().min(other.height())).map(BlockNumber::new) {
            let hashes =
                |ledger: &Self| Ok::<_, Error>((ledger.header_hash(number)?, ledger.commit_hash(number)?));
            let (left, right) = (hashes(self)?, hashes(other)?);
            if left != right || left.0.is_none() {
                return block_difference(self, other, number);
            }
        }
        if self.height() != other.height() {
            return Ok(None);
        }
        let (left, right) = (self.snapshot(), other.snapshot());
        for space in [Space::Public, Space::Hashed] {
            for pair in
                Differences::new(left.scan(&KeyRange::all(space))?, right.scan(&KeyRange::all(space))?)
            {
                let Pair { key, left, right } = pair?;
                if left != right {
                    // The transaction that one of them has applied and the other has not.
                    let version = left.iter().chain(&right).map(|value| value.version).max();
                    let text = |value: &Option<VersionedValue>| match value {
                        None => "absent".to_owned(),
                        Some(value) => {
                            format!("version {}, SHA-256 {}", value.version, hex_text(&sha256(&value.value)))
                        }
                    };
                    return Ok(Some(Fault {
                        block: version.map(|version| version.block.get()),
                        transaction: version.map(|version| version.tx.get()),
                        key: Some(key_text(&key)),
                        what: format!("{} in the first, {} in the second", text(&left), text(&right)),
                    }));
                }
            }
        }
        Ok(None)
    }
}

fn block_difference(left: &Ledger, right: &Ledger, number: BlockNumber) -> Result<Option<Fault>, Error> {
    let block = Some(number.get());
    let read = |ledger: &Ledger, which: &str| match ledger.block(number) {
        Ok(Some(block)) => Ok(block),
        Ok(None) => Err(format!("it is missing in the {which} ledger")),
        Err(error) => Err(format!("it cannot be read in the {which} ledger: {}", with_causes(&error))),
    };
    let (first, second) = match (read(left, "first"), read(right, "second")) {
        (Ok(first), Ok(second)) => (first, second),
        (Err(what), _) | (_, Err(what)) => return Ok(Some(Fault { block, what, ..Fault::default() })),
    };
    let envelopes = (block::envelopes(&first), block::envelopes(&second));
    let transaction = envelopes.0.iter().zip(envelopes.1).position(|(left, right)| left != right);
    if first.header != second.header || envelopes.0 != envelopes.1 {
        let transaction = transaction.and_then(|index| u32::try_from(index).ok());
        let what = "the blocks are different".to_owned();
        return Ok(Some(Fault { block, transaction, what, key: None }));
    }
    let codes = [&first, &second].map(|block| stored_codes(block, envelopes.0.len()));
    if let Some(index) = codes[0].iter().zip(&codes[1]).position(|(left, right)| left != right) {
        let what = format!(
            "the code is {} in the first ledger and {} in the second",
            name(codes[0][index]),
            name(codes[1][index])
        );
        return Ok(Some(Fault { block, transaction: u32::try_from(index).ok(), key: None, what }));
    }
    let what = "the commit hashes differ although blocks and codes are equal; verify both ledgers".to_owned();
    Ok(Some(Fault { block, what, ..Fault::default() }))
}

fn stored_codes(block: &Block, count: usize) -> Vec<TxValidationCode> {
    let flags = block::flags(block).unwrap_or_default();
    let code = |index: usize| {
        let flag = flags.get(index).map(|flag| i32::from(*flag));
        flag.and_then(|flag| TxValidationCode::try_from(flag).ok()).unwrap_or(TxValidationCode::NotValidated)
    };
    (0..count).map(code).collect()
}

/// The codes as they were before the version checks, which the replay repeats.
fn before_version_checks(stored: &[TxValidationCode]) -> Vec<TxValidationCode> {
    let before = |code: &TxValidationCode| match code {
        TxValidationCode::MvccReadConflict | TxValidationCode::PhantomReadConflict => TxValidationCode::Valid,
        other => *other,
    };
    stored.iter().map(before).collect()
}

fn name(code: TxValidationCode) -> &'static str {
    code.as_str_name()
}

/// A key for people.
fn key_text(key: &StateKey) -> String {
    match key.collection() {
        None => format!("{}/{}", key.namespace(), key.key_text().escape_debug()),
        Some(collection) => format!("{}/{collection}/{}", key.namespace(), hex_text(key.key())),
    }
}

fn hex_text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn with_causes(error: &Error) -> String {
    error.to_string()
}

/// An empty state at first, which hashes as the channel does.
struct Scratch<'a> {
    store: &'a dyn StateStore,
    hash: HashAlgorithm,
}

impl StateReader for Scratch<'_> {
    fn read(&self, keys: &[StateKey]) -> Result<Vec<Option<VersionedValue>>, Error> {
        self.store.read(keys)
    }

    fn scan(&self, range: &KeyRange) -> Result<Scan<'_>, Error> {
        self.store.scan(range)
    }

    fn hash_algorithm(&self) -> HashAlgorithm {
        self.hash
    }
}

/// Two values of one key.
struct Pair {
    key: StateKey,
    left: Option<VersionedValue>,
    right: Option<VersionedValue>,
}

/// Walks two scans side by side.
struct Differences<L: Iterator, R: Iterator> {
    left: std::iter::Peekable<L>,
    right: std::iter::Peekable<R>,
}

impl<L, R> Differences<L, R>
where
    L: Iterator<Item = Result<Entry, Error>>,
    R: Iterator<Item = Result<Entry, Error>>,
{
    fn new(left: L, right: R) -> Self {
        Self { left: left.peekable(), right: right.peekable() }
    }
}

impl<L, R> Iterator for Differences<L, R>
where
    L: Iterator<Item = Result<Entry, Error>>,
    R: Iterator<Item = Result<Entry, Error>>,
{
    type Item = Result<Pair, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        use std::cmp::Ordering::{Equal, Greater, Less};
        let order = match (self.left.peek(), self.right.peek()) {
            (None, None) => return None,
            (Some(Err(_)), _) | (Some(_), None) => Less,
            (_, Some(Err(_))) | (None, Some(_)) => Greater,
            (Some(Ok((left, _))), Some(Ok((right, _)))) => left.cmp(right),
        };
        let left = if order == Greater { None } else { self.left.next() };
        let right = if order == Less { None } else { self.right.next() };
        Some(match (order, left, right) {
            (Less, Some(left), _) => left.map(|(key, value)| Pair { key, left: Some(value), right: None }),
            (Greater, _, Some(right)) => {
                right.map(|(key, value)| Pair { key, left: None, right: Some(value) })
            }
            (Equal, Some(Ok((key, left))), Some(Ok((_, right)))) => {
                Ok(Pair { key, left: Some(left), right: Some(right) })
            }
            (_, Some(Err(error)), _) | (_, _, Some(Err(error))) => Err(error),
            _ => return None,
        })
    }
}
