//! A ledger in memory, so that a contract can be tested with `cargo test` and nothing else.
//!
//! ```
//! use consort_chaincode_sdk::testing::MemoryLedger;
//! use consort_chaincode_sdk::{Context, Error, Functions};
//!
//! fn put(context: &Context, key: String, value: String) -> Result<(), Error> {
//!     context.put(&key, value.as_bytes())
//! }
//!
//! let contract = Functions::new().function("Put", put);
//! let mut ledger = MemoryLedger::new();
//! ledger.submit(&contract, "Put", &["colour", "blue"]).unwrap();
//! assert_eq!(ledger.value("colour"), Some(b"blue".as_slice()));
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

use crate::contract::dispatch;
use crate::ledger::{ClientIdentity, Cursor, KeyValue, Ledger, Level, Response, Timestamp};
use crate::{Context, Contract, Error};

/// How many pairs a batch of a range holds, as on the peer.
const BATCH_PAIRS: usize = 100;
/// How deep chaincodes may call each other, as on the peer.
const CALL_DEPTH_MAX: usize = 8;

/// An event of a committed transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event's name.
    pub name: String,
    /// What the contract gave along.
    pub payload: Vec<u8>,
}

/// A place in the books: namespace, collection (empty for public keys), key.
type Place = (String, String, String);

/// Books of one channel, with one chaincode in the middle and others that it may call.
///
/// As on a real ledger, a transaction reads what earlier transactions committed and never its own writes, and a refused
/// transaction leaves nothing behind.
#[expect(missing_debug_implementations, reason = "contracts have nothing to show")]
pub struct MemoryLedger {
    values: BTreeMap<Place, Vec<u8>>,
    policies: BTreeMap<Place, Vec<u8>>,
    events: Vec<Event>,
    contracts: BTreeMap<String, Rc<dyn Contract>>,
    chaincode: String,
    client: ClientIdentity,
    timestamp: Timestamp,
    transient: BTreeMap<String, Vec<u8>>,
    transactions: u64,
}

impl Default for MemoryLedger {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryLedger {
    /// An empty ledger; the client is `User1` of `Org1MSP`.
    #[must_use]
    pub fn new() -> Self {
        let client = ClientIdentity {
            msp_id: "Org1MSP".to_owned(),
            common_name: "User1".to_owned(),
            id: "x509::CN=User1::CN=ca.org1".to_owned(),
            organizational_units: vec!["client".to_owned()],
            ..ClientIdentity::default()
        };
        Self {
            values: BTreeMap::new(),
            policies: BTreeMap::new(),
            events: Vec::new(),
            contracts: BTreeMap::new(),
            chaincode: "chaincode".to_owned(),
            client,
            timestamp: Timestamp::default(),
            transient: BTreeMap::new(),
            transactions: 0,
        }
    }

    /// Sets who signs the transactions from now on.
    pub fn set_client(&mut self, client: ClientIdentity) {
        self.client = client;
    }

    /// Sets the time that the client writes into the transactions from now on.
    pub fn set_timestamp(&mut self, timestamp: Timestamp) {
        self.timestamp = timestamp;
    }

    /// Sets one entry of the transient data of the transactions from now on.
    pub fn set_transient(&mut self, name: &str, value: &[u8]) {
        self.transient.insert(name.to_owned(), value.to_vec());
    }

    /// Installs another chaincode that the tested one may call.
    pub fn install(&mut self, name: &str, contract: Rc<dyn Contract>) {
        self.contracts.insert(name.to_owned(), contract);
    }

    /// Executes a function and commits what it wrote.
    ///
    /// # Errors
    /// The contract's refusal; nothing is committed then.
    pub fn submit(
        &mut self,
        contract: &dyn Contract,
        function: &str,
        arguments: &[&str],
    ) -> Result<Vec<u8>, Error> {
        let (payload, writes) = self.execute(contract, function, arguments)?;
        self.transactions += 1;
        for (place, value) in writes.values {
            if value.is_empty() {
                self.values.remove(&place)
            } else {
                self.values.insert(place, value)
            };
        }
        for (place, policy) in writes.policies {
            if policy.is_empty() {
                self.policies.remove(&place)
            } else {
                self.policies.insert(place, policy)
            };
        }
        self.events.extend(writes.event);
        Ok(payload)
    }

    /// Executes a function and forgets what it wrote.
    ///
    /// # Errors
    /// The contract's refusal.
    pub fn evaluate(
        &self,
        contract: &dyn Contract,
        function: &str,
        arguments: &[&str],
    ) -> Result<Vec<u8>, Error> {
        self.execute(contract, function, arguments).map(|(payload, _)| payload)
    }

    /// The committed value of a key of the tested chaincode.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&[u8]> {
        self.values.get(&(self.chaincode.clone(), String::new(), key.to_owned())).map(Vec::as_slice)
    }

    /// The committed value of a private key of the tested chaincode.
    #[must_use]
    pub fn private_value(&self, collection: &str, key: &str) -> Option<&[u8]> {
        self.values.get(&(self.chaincode.clone(), collection.to_owned(), key.to_owned())).map(Vec::as_slice)
    }

    /// The events of all committed transactions, oldest first.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    fn execute(
        &self,
        contract: &dyn Contract,
        function: &str,
        arguments: &[&str],
    ) -> Result<(Vec<u8>, Writes), Error> {
        let mut all = vec![function.as_bytes().to_vec()];
        all.extend(arguments.iter().map(|argument| argument.as_bytes().to_vec()));
        let writes = RefCell::new(Writes::default());
        let execution = Execution { ledger: self, namespace: &self.chaincode, writes: &writes, depth: 0 };
        let payload = dispatch(contract, &Context::new(&execution), &all)?;
        Ok((payload, writes.into_inner()))
    }
}

/// What a transaction wants to change.
#[derive(Default)]
struct Writes {
    values: BTreeMap<Place, Vec<u8>>,
    policies: BTreeMap<Place, Vec<u8>>,
    event: Option<Event>,
}

/// One chaincode's part of a running transaction.
struct Execution<'l> {
    ledger: &'l MemoryLedger,
    namespace: &'l str,
    writes: &'l RefCell<Writes>,
    depth: usize,
}

impl Execution<'_> {
    fn place(&self, collection: &str, key: &str) -> Place {
        (self.namespace.to_owned(), collection.to_owned(), key.to_owned())
    }

    fn pairs(&self, collection: &str, start: &str, end: &str) -> Batches {
        let pairs = self
            .ledger
            .values
            .range((Bound::Included(self.place(collection, start)), Bound::Unbounded))
            .take_while(|((namespace, of, key), _)| {
                namespace == self.namespace && of == collection && (end.is_empty() || key.as_str() < end)
            })
            .map(|((_, _, key), value)| KeyValue { key: key.clone(), value: value.clone() })
            .collect();
        Batches { pairs }
    }
}

impl Ledger for Execution<'_> {
    fn tx_id(&self) -> String {
        format!("{:064x}", self.ledger.transactions + 1)
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
        "Org1MSP".to_owned()
    }

    fn set_event(&self, name: &str, payload: &[u8]) -> Result<(), Error> {
        // Only the outermost chaincode's event survives.
        if self.depth == 0 {
            self.writes.borrow_mut().event = Some(Event { name: name.to_owned(), payload: payload.to_vec() });
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
        let inner =
            Execution { ledger: self.ledger, namespace: name, writes: self.writes, depth: self.depth + 1 };
        Ok(match dispatch(contract.as_ref(), &Context::new(&inner), arguments) {
            Ok(payload) => Response { status: 200, message: String::new(), payload },
            Err(error) => {
                Response { status: error.status(), message: error.message().to_owned(), payload: Vec::new() }
            }
        })
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.ledger.values.get(&self.place("", key)).cloned())
    }

    fn put(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.writes.borrow_mut().values.insert(self.place("", key), value.to_vec());
        Ok(())
    }

    fn delete(&self, key: &str) -> Result<(), Error> {
        self.put(key, &[])
    }

    fn range(&self, start: &str, end: &str) -> Result<Box<dyn Cursor>, Error> {
        Ok(Box::new(self.pairs("", start, end)))
    }

    fn validation_parameter(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.ledger.policies.get(&self.place("", key)).cloned())
    }

    fn set_validation_parameter(&self, key: &str, policy: &[u8]) -> Result<(), Error> {
        self.writes.borrow_mut().policies.insert(self.place("", key), policy.to_vec());
        Ok(())
    }

    fn private_get(&self, collection: &str, key: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.ledger.values.get(&self.place(collection, key)).cloned())
    }

    fn private_hash(&self, collection: &str, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let value = self.ledger.values.get(&self.place(collection, key));
        Ok(value.map(|value| ring::digest::digest(&ring::digest::SHA256, value).as_ref().to_vec()))
    }

    fn private_put(&self, collection: &str, key: &str, value: &[u8]) -> Result<(), Error> {
        self.writes.borrow_mut().values.insert(self.place(collection, key), value.to_vec());
        Ok(())
    }

    fn private_delete(&self, collection: &str, key: &str) -> Result<(), Error> {
        self.private_put(collection, key, &[])
    }

    fn private_purge(&self, collection: &str, key: &str) -> Result<(), Error> {
        // This ledger keeps no past, so that nothing more is to be forgotten.
        self.private_put(collection, key, &[])
    }

    fn private_range(&self, collection: &str, start: &str, end: &str) -> Result<Box<dyn Cursor>, Error> {
        if !self.writes.borrow().values.is_empty() {
            return Err(Error::new(
                "unsuppored transaction. Queries on pvt data is supported only in a read-only transaction",
            ));
        }
        Ok(Box::new(self.pairs(collection, start, end)))
    }

    #[expect(clippy::print_stderr, reason = "a test's log is its output")]
    fn log(&self, level: Level, message: &str) {
        eprintln!("{level:?} {message}");
    }
}

/// A range, cut into batches.
struct Batches {
    pairs: std::collections::VecDeque<KeyValue>,
}

impl Cursor for Batches {
    fn next_batch(&mut self) -> Result<Vec<KeyValue>, Error> {
        let size = self.pairs.len().min(BATCH_PAIRS);
        Ok(self.pairs.drain(..size).collect())
    }
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "a contract function owns its parameters")]
mod tests {
    use super::*;
    use crate::Functions;

    fn put(context: &Context<'_>, key: String, value: String) -> Result<bool, Error> {
        context.put(&key, value.as_bytes())?;
        context.emit("Put", key.as_bytes())?;
        context.exists(&key)
    }

    fn count(context: &Context<'_>, start: String, end: String) -> Result<u32, Error> {
        let mut number = 0;
        for pair in context.range(&start, &end)? {
            pair?;
            number += 1;
        }
        Ok(number)
    }

    fn refuse(context: &Context<'_>) -> Result<(), Error> {
        context.put("left", b"behind")?;
        Err(Error::new("no"))
    }

    fn delegate(context: &Context<'_>, key: String) -> Result<Vec<u8>, Error> {
        context.call("other", &["Put", &key, "x"])
    }

    fn secret(context: &Context<'_>) -> Result<(), Error> {
        let value = context.transient("value").ok_or("the transient data has no value")?;
        context.private("both").put("secret", &value)
    }

    fn contract() -> Functions<'static> {
        Functions::new()
            .function("Put", put)
            .function("Count", count)
            .function("Refuse", refuse)
            .function("Delegate", delegate)
            .function("Secret", secret)
    }

    #[test]
    fn a_transaction_does_not_see_its_own_writes() {
        let mut ledger = MemoryLedger::new();
        assert_eq!(ledger.submit(&contract(), "Put", &["a", "1"]).unwrap(), b"false");
        assert_eq!(ledger.submit(&contract(), "Put", &["a", "1"]).unwrap(), b"true");
    }

    #[test]
    fn an_evaluated_function_leaves_nothing_behind() {
        let ledger = MemoryLedger::new();
        ledger.evaluate(&contract(), "Put", &["a", "1"]).unwrap();
        assert_eq!(ledger.value("a"), None);
    }

    #[test]
    fn a_refused_transaction_leaves_nothing_behind() {
        let mut ledger = MemoryLedger::new();
        assert_eq!(ledger.submit(&contract(), "Refuse", &[]).unwrap_err().message(), "no");
        assert_eq!(ledger.value("left"), None);
    }

    #[test]
    fn a_range_spans_batches_and_leaves_composite_keys_out() {
        let mut ledger = MemoryLedger::new();
        for number in 0..250 {
            ledger.submit(&contract(), "Put", &[&format!("key{number:03}"), "1"]).unwrap();
        }
        ledger.submit(&contract(), "Put", &["\u{0}owner\u{0}tom\u{0}", "1"]).unwrap();
        assert_eq!(ledger.evaluate(&contract(), "Count", &["", ""]).unwrap(), b"250");
        assert_eq!(ledger.evaluate(&contract(), "Count", &["key100", "key200"]).unwrap(), b"100");
    }

    #[test]
    fn a_called_chaincode_writes_its_own_keys_in_the_same_transaction_and_its_event_is_dropped() {
        let mut ledger = MemoryLedger::new();
        ledger.install("other", Rc::new(contract()));
        ledger.submit(&contract(), "Delegate", &["k"]).unwrap();
        assert_eq!(ledger.value("k"), None);
        assert_eq!(ledger.values.keys().next().unwrap().0, "other");
        assert!(ledger.events().is_empty());
    }

    #[test]
    fn endless_calls_are_refused() {
        let mut ledger = MemoryLedger::new();
        let again = |context: &Context<'_>| context.call("other", &["Again"]);
        ledger.install("other", Rc::new(Functions::new().function("Again", again)));
        let error = ledger.submit(&Functions::new().function("Again", again), "Again", &[]).unwrap_err();
        assert_eq!(error.message(), "chaincodes call each other more than 8 deep");
    }

    #[test]
    fn private_values_come_from_the_transient_data() {
        let mut ledger = MemoryLedger::new();
        assert!(ledger.submit(&contract(), "Secret", &[]).is_err());
        ledger.set_transient("value", b"42");
        ledger.submit(&contract(), "Secret", &[]).unwrap();
        assert_eq!(ledger.private_value("both", "secret"), Some(b"42".as_slice()));
    }
}
