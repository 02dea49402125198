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
//!
//! The rules are a peer's: a transaction reads what earlier ones committed and never its own writes; keys and values have the same
//! limits; a paginated or private query excludes writes; and a transaction that was executed before another one was committed
//! becomes invalid if it read what that one wrote ([`MemoryLedger::simulate`], [`MemoryLedger::commit`]).
//!
//! `consort chaincode test` runs the same tests against the compiled component in the sandbox: it says so in the variable
//! [`SANDBOX_VARIABLE`], and every execution of this ledger then happens there.

mod execution;
mod sandbox;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::chaincode::Kind;
use crate::ledger::{ClientIdentity, Modification, SignedProposal, Timestamp};
use crate::{Contract, Error};

use self::execution::Record;

/// The variable with the address of the sandbox that executes instead of this process.
pub const SANDBOX_VARIABLE: &str = "CONSORT_CHAINCODE_SANDBOX";

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

/// A value and the transaction that wrote it, counted from 1.
#[derive(Debug, Clone)]
struct Versioned {
    value: Vec<u8>,
    version: u64,
}

/// A transaction that was executed and is not committed.
#[derive(Debug, Clone)]
pub struct Simulated {
    /// What the function returned.
    pub payload: Vec<u8>,
    /// The event, if one was set.
    pub event: Option<Event>,
    record: Record,
    tx_id: String,
    timestamp: Timestamp,
}

/// Why a simulated transaction did not become valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// A key that it read was written since (`MVCC_READ_CONFLICT`).
    Read {
        /// The key.
        key: String,
    },
    /// The content of a range that it read has changed since (`PHANTOM_READ_CONFLICT`).
    Phantom {
        /// The range's start.
        start: String,
        /// The range's end.
        end: String,
    },
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read { key } => {
                write!(formatter, "MVCC_READ_CONFLICT: {key:?} was written since it was read")
            }
            Self::Phantom { start, end } => {
                write!(
                    formatter,
                    "PHANTOM_READ_CONFLICT: keys from {start:?} to {end:?} changed since they were read"
                )
            }
        }
    }
}

impl std::error::Error for Conflict {}

/// Books of one channel, with one chaincode in the middle and others that it may call.
///
/// As on a real ledger, a transaction reads what earlier transactions committed and never its own writes, and a refused
/// transaction leaves nothing behind.
#[expect(missing_debug_implementations, reason = "contracts have nothing to show")]
pub struct MemoryLedger {
    values: BTreeMap<Place, Versioned>,
    policies: BTreeMap<Place, Vec<u8>>,
    history: BTreeMap<Place, Vec<Modification>>,
    events: Vec<Event>,
    contracts: BTreeMap<String, Rc<dyn Contract>>,
    /// Collections that the executing peer holds; all of them without a choice.
    held: Option<BTreeSet<String>>,
    chaincode: String,
    client: ClientIdentity,
    peer_msp_id: String,
    timestamp: Timestamp,
    transient: BTreeMap<String, Vec<u8>>,
    proposal: SignedProposal,
    /// Simulations so far: each is a transaction of its own.
    simulations: std::cell::Cell<u64>,
    committed: u64,
}

impl Default for MemoryLedger {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryLedger {
    /// An empty ledger; the client is `User1` of `Org1MSP`, and a peer of the same organisation executes.
    #[must_use]
    pub fn new() -> Self {
        Self {
            values: BTreeMap::new(),
            policies: BTreeMap::new(),
            history: BTreeMap::new(),
            events: Vec::new(),
            contracts: BTreeMap::new(),
            held: None,
            chaincode: "chaincode".to_owned(),
            client: Self::client("Org1MSP", "User1"),
            peer_msp_id: "Org1MSP".to_owned(),
            timestamp: Timestamp::default(),
            transient: BTreeMap::new(),
            proposal: SignedProposal::default(),
            simulations: std::cell::Cell::new(0),
            committed: 0,
        }
    }

    /// A client of an organisation, with the role `client`.
    #[must_use]
    pub fn client(msp_id: &str, common_name: &str) -> ClientIdentity {
        ClientIdentity {
            msp_id: msp_id.to_owned(),
            common_name: common_name.to_owned(),
            id: format!("x509::CN={common_name},OU=client::CN=ca.{}", msp_id.to_lowercase()),
            organizational_units: vec!["client".to_owned()],
            ..ClientIdentity::default()
        }
    }

    /// Sets who signs the transactions from now on.
    pub fn set_client(&mut self, client: ClientIdentity) {
        self.client = client;
    }

    /// Sets the organisation of the peer that executes from now on.
    pub fn set_peer_msp_id(&mut self, msp_id: &str) {
        msp_id.clone_into(&mut self.peer_msp_id);
    }

    /// Lets the executing peer hold these collections only: private values of others cannot be read, their hashes can.
    pub fn set_held_collections(&mut self, collections: &[&str]) {
        self.held = Some(collections.iter().map(|name| (*name).to_owned()).collect());
    }

    /// Lets the executing peer hold every collection again.
    pub fn hold_all_collections(&mut self) {
        self.held = None;
    }

    /// Sets the time that the client writes into the transactions from now on.
    pub fn set_timestamp(&mut self, timestamp: Timestamp) {
        self.timestamp = timestamp;
    }

    /// Sets one entry of the transient data of the transactions from now on.
    pub fn set_transient(&mut self, name: &str, value: &[u8]) {
        self.transient.insert(name.to_owned(), value.to_vec());
    }

    /// Empties the transient data of the transactions from now on.
    pub fn clear_transient(&mut self) {
        self.transient.clear();
    }

    /// Sets the bytes that the chaincode sees as its signed proposal.
    pub fn set_signed_proposal(&mut self, proposal: SignedProposal) {
        self.proposal = proposal;
    }

    /// Installs another chaincode that the tested one may call. `consort chaincode test --with <name>=<crate>` executes it in the sandbox,
    /// too; without a component of it, a ledger with it executes natively even there.
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
        let arguments: Vec<&[u8]> = arguments.iter().map(|argument| argument.as_bytes()).collect();
        self.submit_bytes(contract, function, &arguments)
    }

    /// Executes a function with any bytes as arguments and commits what it wrote.
    ///
    /// # Errors
    /// The contract's refusal; nothing is committed then.
    pub fn submit_bytes(
        &mut self,
        contract: &dyn Contract,
        function: &str,
        arguments: &[&[u8]],
    ) -> Result<Vec<u8>, Error> {
        let simulated = self.execute(contract, function, arguments, Kind::Submit)?;
        let payload = simulated.payload.clone();
        self.apply(simulated);
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
        let arguments: Vec<&[u8]> = arguments.iter().map(|argument| argument.as_bytes()).collect();
        self.execute(contract, function, &arguments, Kind::Evaluate).map(|simulated| simulated.payload)
    }

    /// Executes a function, to be committed later: what an endorsed transaction is that waits for its block.
    ///
    /// # Errors
    /// The contract's refusal.
    pub fn simulate(
        &self,
        contract: &dyn Contract,
        function: &str,
        arguments: &[&str],
    ) -> Result<Simulated, Error> {
        let arguments: Vec<&[u8]> = arguments.iter().map(|argument| argument.as_bytes()).collect();
        self.execute(contract, function, &arguments, Kind::Submit)
    }

    /// Commits a simulated transaction if nothing that it read has changed since.
    ///
    /// # Errors
    /// [`Conflict`]; the transaction is invalid and leaves nothing behind.
    pub fn commit(&mut self, simulated: Simulated) -> Result<(), Conflict> {
        self.check(&simulated.record)?;
        self.apply(simulated);
        Ok(())
    }

    /// The committed value of a key of the tested chaincode.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&[u8]> {
        self.private_value("", key)
    }

    /// The committed value of a private key of the tested chaincode.
    #[must_use]
    pub fn private_value(&self, collection: &str, key: &str) -> Option<&[u8]> {
        let place = (self.chaincode.clone(), collection.to_owned(), key.to_owned());
        self.values.get(&place).map(|versioned| versioned.value.as_slice())
    }

    /// The committed endorsement policy of a key of the tested chaincode.
    #[must_use]
    pub fn key_policy(&self, key: &str) -> Option<&[u8]> {
        let place = (self.chaincode.clone(), String::new(), key.to_owned());
        self.policies.get(&place).map(Vec::as_slice)
    }

    /// The events of all committed transactions, oldest first.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    fn next_tx_id(&self) -> String {
        self.simulations.set(self.simulations.get() + 1);
        format!("{:064x}", self.simulations.get())
    }

    fn execute(
        &self,
        contract: &dyn Contract,
        function: &str,
        arguments: &[&[u8]],
        kind: Kind,
    ) -> Result<Simulated, Error> {
        let mut all = vec![function.as_bytes().to_vec()];
        all.extend(arguments.iter().map(|argument| argument.to_vec()));
        let tx_id = self.next_tx_id();
        if let Ok(address) = std::env::var(SANDBOX_VARIABLE)
            && let Some(simulated) = sandbox::execute(self, &address, &tx_id, &all, kind)?
        {
            return Ok(simulated);
        }
        execution::execute(self, contract, &tx_id, &all)
    }

    fn check(&self, record: &Record) -> Result<(), Conflict> {
        for (place, version) in &record.reads {
            if self.values.get(place).map(|versioned| versioned.version) != *version {
                return Err(Conflict::Read { key: place.2.clone() });
            }
        }
        for range in &record.ranges {
            let now: Vec<(String, u64)> =
                execution::pairs(&self.values, &range.namespace, "", &range.start, &range.end)
                    .map(|(key, versioned)| (key.to_owned(), versioned.version))
                    .collect();
            if now != range.results {
                return Err(Conflict::Phantom { start: range.start.clone(), end: range.end.clone() });
            }
        }
        Ok(())
    }

    fn apply(&mut self, simulated: Simulated) {
        let Simulated { record, event, tx_id, timestamp, .. } = simulated;
        self.committed += 1;
        for (place, value) in record.writes {
            if place.1.is_empty() {
                let is_delete = value.is_empty();
                let change =
                    Modification { tx_id: tx_id.clone(), timestamp, value: value.clone(), is_delete };
                self.history.entry(place.clone()).or_default().push(change);
            }
            if value.is_empty() {
                self.values.remove(&place);
            } else {
                self.values.insert(place, Versioned { value, version: self.committed });
            }
        }
        for (place, policy) in record.policies {
            if policy.is_empty() {
                self.policies.remove(&place);
            } else {
                self.policies.insert(place, policy);
            }
        }
        self.events.extend(event);
    }
}

#[cfg(test)]
mod tests;
