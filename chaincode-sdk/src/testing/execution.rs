//! One execution over the ledger in memory, in this process.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::rc::Rc;

use super::{Event, MemoryLedger, Place, Simulated, Versioned};
use crate::contract::dispatch;
use crate::ledger::{
    ClientIdentity, Cursor, HistoryCursor, KeyValue, Ledger, Level, Modification, Page, Response,
    SignedProposal, Timestamp,
};
use crate::{Context, Contract, Error};

/// How many pairs a batch of a range holds, as on the peer.
const BATCH_PAIRS: usize = 100;
/// How deep chaincodes may call each other, as on the peer.
const CALL_DEPTH_MAX: usize = 8;
/// Longest key, as on the peer.
const KEY_BYTES_MAX: usize = 16 << 10;
/// Largest value, as on the peer.
const VALUE_BYTES_MAX: usize = 32 << 20;
/// Pairs of the largest page, as on the peer.
const PAGE_PAIRS_MAX: u32 = 100_000;

/// What a transaction read and wants to change.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    /// The version that was read, or none for a key that did not exist.
    pub(super) reads: BTreeMap<Place, Option<u64>>,
    pub(super) ranges: Vec<RangeRead>,
    pub(super) writes: BTreeMap<Place, Vec<u8>>,
    pub(super) policies: BTreeMap<Place, Vec<u8>>,
    pub(super) event: Option<Event>,
    /// A query was made that excludes writes; the words say which kind.
    queried: Option<&'static str>,
}

/// A range as far as it was read.
#[derive(Debug, Clone)]
pub(super) struct RangeRead {
    pub(super) namespace: String,
    pub(super) start: String,
    /// Where reading stopped; empty for the end of all keys.
    pub(super) end: String,
    pub(super) results: Vec<(String, u64)>,
}

/// Executes a function natively.
pub(super) fn execute(
    ledger: &MemoryLedger,
    contract: &dyn Contract,
    tx_id: &str,
    arguments: &[Vec<u8>],
) -> Result<Simulated, Error> {
    let record = Rc::new(RefCell::new(Record::default()));
    let execution =
        Execution { ledger, namespace: &ledger.chaincode, record: &record, tx_id, arguments, depth: 0 };
    let payload = dispatch(contract, &Context::new(&execution), arguments)?;
    let mut record = record.take();
    let event = record.event.take();
    Ok(Simulated { payload, event, record, tx_id: tx_id.to_owned(), timestamp: ledger.timestamp })
}

/// The pairs of a range of keys.
pub(super) fn pairs<'v>(
    values: &'v BTreeMap<Place, Versioned>,
    namespace: &'v str,
    collection: &'v str,
    start: &str,
    end: &'v str,
) -> impl Iterator<Item = (&'v str, &'v Versioned)> {
    let first = (namespace.to_owned(), collection.to_owned(), start.to_owned());
    values
        .range((Bound::Included(first), Bound::Unbounded))
        .take_while(move |((of, within, key), _)| {
            of == namespace && within == collection && (end.is_empty() || key.as_str() < end)
        })
        .map(|((_, _, key), versioned)| (key.as_str(), versioned))
}

/// One chaincode's part of a running transaction.
struct Execution<'l> {
    ledger: &'l MemoryLedger,
    namespace: &'l str,
    record: &'l Rc<RefCell<Record>>,
    tx_id: &'l str,
    arguments: &'l [Vec<u8>],
    depth: usize,
}

impl Execution<'_> {
    fn place(&self, collection: &str, key: &str) -> Place {
        (self.namespace.to_owned(), collection.to_owned(), key.to_owned())
    }

    fn read(&self, collection: &str, key: &str) -> Option<Vec<u8>> {
        let place = self.place(collection, key);
        let found = self.ledger.values.get(&place);
        let version = found.map(|versioned| versioned.version);
        self.record.borrow_mut().reads.insert(place, version);
        found.map(|versioned| versioned.value.clone())
    }

    fn write(&self, collection: &str, key: &str, value: &[u8]) -> Result<(), Error> {
        if key.is_empty() {
            return Err(Error::new("key must not be an empty string"));
        }
        if key.len() > KEY_BYTES_MAX {
            return Err(Error::new(format!("the key has {} bytes, and may have {KEY_BYTES_MAX}", key.len())));
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(Error::new(format!(
                "the value of key {key:?} has {} bytes, and may have {VALUE_BYTES_MAX}",
                value.len()
            )));
        }
        let mut record = self.record.borrow_mut();
        may_write(&record)?;
        record.writes.insert(self.place(collection, key), value.to_vec());
        Ok(())
    }

    fn set_policy(&self, collection: &str, key: &str, policy: &[u8]) -> Result<(), Error> {
        let mut record = self.record.borrow_mut();
        may_write(&record)?;
        record.policies.insert(self.place(collection, key), policy.to_vec());
        Ok(())
    }

    fn batches(&self, collection: &str, start: &str, end: &str) -> Batches {
        let pairs = pairs(&self.ledger.values, self.namespace, collection, start, end)
            .map(|(key, versioned)| (key.to_owned(), versioned.clone()))
            .collect();
        // Only public keys are checked again when the transaction is committed.
        let recorded = collection.is_empty().then(|| {
            let mut record = self.record.borrow_mut();
            record.ranges.push(RangeRead {
                namespace: self.namespace.to_owned(),
                start: start.to_owned(),
                end: start.to_owned(),
                results: Vec::new(),
            });
            (Rc::clone(self.record), record.ranges.len() - 1)
        });
        Batches { pairs, recorded, end: end.to_owned() }
    }

    fn exclude_writes(&self, text: &str, kind: &'static str) -> Result<(), Error> {
        let mut record = self.record.borrow_mut();
        if !record.writes.is_empty() || !record.policies.is_empty() {
            return Err(Error::new(text));
        }
        record.queried = Some(kind);
        Ok(())
    }

    fn held(&self, collection: &str) -> Result<(), Error> {
        match &self.ledger.held {
            Some(held) if !held.contains(collection) => Err(Error::new(format!(
                "this peer does not hold the private data of collection {collection}"
            ))),
            _ => Ok(()),
        }
    }
}

/// The words are Fabric's, its slip included (`core/ledger/kvledger/txmgmt/txmgr/tx_simulator.go`).
fn may_write(record: &Record) -> Result<(), Error> {
    match record.queried {
        Some(kind) => Err(Error::new(format!(
            "unsuppored transaction. Transaction has already performed {kind}. Writes are not allowed"
        ))),
        None => Ok(()),
    }
}

impl Ledger for Execution<'_> {
    fn tx_id(&self) -> String {
        self.tx_id.to_owned()
    }

    fn channel(&self) -> String {
        "mychannel".to_owned()
    }

    fn chaincode(&self) -> String {
        self.namespace.to_owned()
    }

    fn timestamp(&self) -> Timestamp {
        self.ledger.timestamp
    }

    fn creator(&self) -> Result<ClientIdentity, Error> {
        Ok(self.ledger.client.clone())
    }

    fn transient(&self, name: &str) -> Option<Vec<u8>> {
        self.ledger.transient.get(name).cloned()
    }

    fn transient_names(&self) -> Vec<String> {
        self.ledger.transient.keys().cloned().collect()
    }

    fn peer_msp_id(&self) -> String {
        self.ledger.peer_msp_id.clone()
    }

    fn arguments(&self) -> Vec<Vec<u8>> {
        self.arguments.to_vec()
    }

    fn signed_proposal(&self) -> SignedProposal {
        self.ledger.proposal.clone()
    }

    fn binding(&self) -> Vec<u8> {
        ring::digest::digest(&ring::digest::SHA256, self.tx_id.as_bytes()).as_ref().to_vec()
    }

    fn set_event(&self, name: &str, payload: &[u8]) -> Result<(), Error> {
        // Only the outermost chaincode's event survives.
        if self.depth == 0 {
            self.record.borrow_mut().event = Some(Event { name: name.to_owned(), payload: payload.to_vec() });
        }
        Ok(())
    }

    fn invoke_chaincode(&self, name: &str, arguments: &[Vec<u8>], channel: &str) -> Result<Response, Error> {
        if !channel.is_empty() && channel != self.channel() {
            return Err(Error::new(format!("channel '{channel}' not found")));
        }
        if self.depth + 1 >= CALL_DEPTH_MAX {
            return Err(Error::new(format!("chaincodes call each other more than {CALL_DEPTH_MAX} deep")));
        }
        let contract = self
            .ledger
            .contracts
            .get(name)
            .ok_or_else(|| Error::new(format!("chaincode {name} not found")))?;
        let inner = Execution { namespace: name, arguments, depth: self.depth + 1, ..*self };
        Ok(match dispatch(contract.as_ref(), &Context::new(&inner), arguments) {
            Ok(payload) => Response { status: 200, message: String::new(), payload },
            Err(error) => {
                Response { status: error.status(), message: error.message().to_owned(), payload: Vec::new() }
            }
        })
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.read("", key))
    }

    fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        Ok(keys.iter().map(|key| self.read("", key)).collect())
    }

    fn page(&self, start: &str, end: &str, size: u32, bookmark: &str) -> Result<Page, Error> {
        if size == 0 || size > PAGE_PAIRS_MAX {
            return Err(Error::new(format!("a page has {size} pairs, and may have 1 to {PAGE_PAIRS_MAX}")));
        }
        self.exclude_writes(
            "unsuppored transaction. Paginated queries are supported only in a read-only transaction",
            "a paginated query",
        )?;
        let start = if bookmark.is_empty() { start } else { bookmark };
        let mut found = pairs(&self.ledger.values, self.namespace, "", start, end);
        let entries = found.by_ref().take(size as usize);
        let entries = entries
            .map(|(key, found)| KeyValue { key: key.to_owned(), value: found.value.clone() })
            .collect();
        Ok(Page { entries, bookmark: found.next().map(|(key, _)| key.to_owned()).unwrap_or_default() })
    }

    fn history(&self, key: &str) -> Result<Box<dyn HistoryCursor>, Error> {
        let changes = self.ledger.history.get(&self.place("", key)).cloned().unwrap_or_default();
        Ok(Box::new(Changes(changes.into_iter().rev().collect())))
    }

    fn put(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.write("", key, value)
    }

    fn delete(&self, key: &str) -> Result<(), Error> {
        self.write("", key, &[])
    }

    fn range(&self, start: &str, end: &str) -> Result<Box<dyn Cursor>, Error> {
        Ok(Box::new(self.batches("", start, end)))
    }

    fn validation_parameter(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.read("", key);
        Ok(self.ledger.policies.get(&self.place("", key)).cloned())
    }

    fn set_validation_parameter(&self, key: &str, policy: &[u8]) -> Result<(), Error> {
        self.set_policy("", key, policy)
    }

    fn private_get(&self, collection: &str, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.held(collection)?;
        Ok(self.read(collection, key))
    }

    fn private_get_many(&self, collection: &str, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        keys.iter().map(|key| self.private_get(collection, key)).collect()
    }

    fn private_hash(&self, collection: &str, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let value = self.read(collection, key);
        Ok(value.map(|value| ring::digest::digest(&ring::digest::SHA256, &value).as_ref().to_vec()))
    }

    fn private_put(&self, collection: &str, key: &str, value: &[u8]) -> Result<(), Error> {
        self.write(collection, key, value)
    }

    fn private_validation_parameter(&self, collection: &str, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.read(collection, key);
        Ok(self.ledger.policies.get(&self.place(collection, key)).cloned())
    }

    fn set_private_validation_parameter(
        &self,
        collection: &str,
        key: &str,
        policy: &[u8],
    ) -> Result<(), Error> {
        self.set_policy(collection, key, policy)
    }

    fn private_delete(&self, collection: &str, key: &str) -> Result<(), Error> {
        self.write(collection, key, &[])
    }

    fn private_purge(&self, collection: &str, key: &str) -> Result<(), Error> {
        // Of private keys this ledger keeps no past, so that nothing more is to be forgotten.
        self.write(collection, key, &[])
    }

    fn private_range(&self, collection: &str, start: &str, end: &str) -> Result<Box<dyn Cursor>, Error> {
        self.held(collection)?;
        self.exclude_writes(
            "unsuppored transaction. Queries on pvt data is supported only in a read-only transaction",
            "queries on pvt data",
        )?;
        Ok(Box::new(self.batches(collection, start, end)))
    }

    #[expect(clippy::print_stderr, reason = "a test's log is its output")]
    fn log(&self, level: Level, message: &str) {
        eprintln!("{level:?} {message}");
    }
}

/// A range, cut into batches; what was handed out is recorded.
struct Batches {
    pairs: VecDeque<(String, Versioned)>,
    recorded: Option<(Rc<RefCell<Record>>, usize)>,
    end: String,
}

impl Cursor for Batches {
    fn next_batch(&mut self) -> Result<Vec<KeyValue>, Error> {
        let size = self.pairs.len().min(BATCH_PAIRS);
        let batch: Vec<(String, Versioned)> = self.pairs.drain(..size).collect();
        if let Some((record, index)) = &self.recorded
            && let Some(range) = record.borrow_mut().ranges.get_mut(*index)
        {
            range.results.extend(batch.iter().map(|(key, versioned)| (key.clone(), versioned.version)));
            // Not exhausted: up to the key behind the last one that was seen.
            range.end = match (size == BATCH_PAIRS, batch.last()) {
                (true, Some((last, _))) => format!("{last}\0"),
                _ => self.end.clone(),
            };
        }
        Ok(batch.into_iter().map(|(key, versioned)| KeyValue { key, value: versioned.value }).collect())
    }
}

/// The changes of a key.
struct Changes(VecDeque<Modification>);

impl HistoryCursor for Changes {
    fn next_batch(&mut self) -> Result<Vec<Modification>, Error> {
        let size = self.0.len().min(BATCH_PAIRS);
        Ok(self.0.drain(..size).collect())
    }
}
