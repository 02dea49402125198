//! The door between a contract and the ledger behind it.

use crate::Error;

/// What a called chaincode answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Below 400 is a success.
    pub status: u32,
    /// Why the call failed; empty on success.
    pub message: String,
    /// The result.
    pub payload: Vec<u8>,
}

/// The client's time of the proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanoseconds: u32,
}

/// Who signed the proposal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientIdentity {
    /// The organisation's MSP id, such as `Org1MSP`.
    pub msp_id: String,
    /// The certificate, PEM.
    pub certificate: Vec<u8>,
    /// The subject's common name.
    pub common_name: String,
    /// `x509::<subject>::<issuer>`, unique within the organisation.
    pub id: String,
    /// The subject's organisational units.
    pub organizational_units: Vec<String>,
    /// Attributes that the certificate authority vouches for, sorted by name.
    pub attributes: Vec<(String, String)>,
}

impl ClientIdentity {
    /// The value of an attribute, if the certificate has it.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What Fabric's certificate authorities put into a certificate's organisational units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// An application or its user.
    Client,
    /// An administrator of the organisation.
    Admin,
    /// A peer.
    Peer,
    /// An orderer.
    Orderer,
}

impl Role {
    const fn unit(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Admin => "admin",
            Self::Peer => "peer",
            Self::Orderer => "orderer",
        }
    }
}

impl ClientIdentity {
    /// Whether the certificate carries a role, as an organisational unit (Fabric's NodeOUs).
    #[must_use]
    pub fn has_role(&self, role: Role) -> bool {
        self.organizational_units.iter().any(|unit| unit == role.unit())
    }

    /// Demands a role.
    ///
    /// # Errors
    /// The certificate does not carry it (status 403).
    pub fn require_role(&self, role: Role) -> Result<(), Error> {
        if self.has_role(role) {
            return Ok(());
        }
        Err(Error::with_status(403, format!("{} of {} is no {}", self.common_name, self.msp_id, role.unit())))
    }

    /// Demands an attribute with a value.
    ///
    /// # Errors
    /// The certificate does not have it (status 403).
    pub fn require_attribute(&self, name: &str, value: &str) -> Result<(), Error> {
        if self.attribute(name) == Some(value) {
            return Ok(());
        }
        let text = format!("{} of {} has no attribute {name}={value}", self.common_name, self.msp_id);
        Err(Error::with_status(403, text))
    }

    /// Demands an organisation.
    ///
    /// # Errors
    /// The client belongs to another one (status 403).
    pub fn require_msp_id(&self, msp_id: &str) -> Result<(), Error> {
        if self.msp_id == msp_id {
            return Ok(());
        }
        Err(Error::with_status(403, format!("a client of {} may not do what is for {msp_id}", self.msp_id)))
    }
}

/// One key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: String,
    /// The value, never empty.
    pub value: Vec<u8>,
}

/// One part of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The pairs, in the order of their keys.
    pub entries: Vec<KeyValue>,
    /// What to ask for the next page with; empty when there is none.
    pub bookmark: String,
}

/// A committed change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modification {
    /// The transaction that made it.
    pub tx_id: String,
    /// The client's time of it.
    pub timestamp: Timestamp,
    /// The value; empty for a deletion.
    pub value: Vec<u8>,
    /// Whether the key was deleted.
    pub is_delete: bool,
}

/// A proposal as it was signed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SignedProposal {
    /// A serialized `protos.Proposal`.
    pub proposal: Vec<u8>,
    /// The creator's signature over it.
    pub signature: Vec<u8>,
}

/// How loud a line in the peer's log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For the chaincode's author.
    Debug,
    /// For the operator, ordinary.
    Info,
    /// For the operator, unusual.
    Warn,
    /// For the operator, wrong.
    Error,
}

/// The pairs of a range, fetched in batches.
pub trait Cursor {
    /// The next pairs in the order of their keys; an empty batch is the end.
    ///
    /// # Errors
    /// What the ledger says when it cannot go on.
    fn next_batch(&mut self) -> Result<Vec<KeyValue>, Error>;
}

/// The changes of a key, fetched in batches.
pub trait HistoryCursor {
    /// The next changes, the newest first; an empty batch is the end.
    ///
    /// # Errors
    /// What the ledger says when it cannot go on.
    fn next_batch(&mut self) -> Result<Vec<Modification>, Error>;
}

/// Everything that a contract can learn or do.
///
/// Implemented by the peer (inside the sandbox) and by [`testing::MemoryLedger`](crate::testing::MemoryLedger).
/// Duties of an implementation: reads see the state as committed before the transaction, never the transaction's own writes;
/// an empty value written is a deletion; ranges are in the order of the keys' bytes.
#[expect(clippy::missing_errors_doc, reason = "every method fails alike: with the text of the ledger")]
pub trait Ledger {
    /// The transaction id.
    fn tx_id(&self) -> String;
    /// The channel's name.
    fn channel(&self) -> String;
    /// The name under which the chaincode is defined.
    fn chaincode(&self) -> String;
    /// The proposal's time.
    fn timestamp(&self) -> Timestamp;
    /// Who signed the proposal.
    fn creator(&self) -> Result<ClientIdentity, Error>;
    /// One entry of the transient data.
    fn transient(&self, name: &str) -> Option<Vec<u8>>;
    /// The names of the transient data, sorted.
    fn transient_names(&self) -> Vec<String>;
    /// The organisation of the executing peer; differs between endorsers.
    fn peer_msp_id(&self) -> String;
    /// Function and arguments, as they were sent.
    fn arguments(&self) -> Vec<Vec<u8>>;
    /// The proposal as it was signed.
    fn signed_proposal(&self) -> SignedProposal;
    /// SHA-256 over nonce, creator and epoch of the proposal.
    fn binding(&self) -> Vec<u8>;
    /// Sets the transaction's only event.
    fn set_event(&self, name: &str, payload: &[u8]) -> Result<(), Error>;
    /// Calls another chaincode; an empty channel means this one.
    fn invoke_chaincode(&self, name: &str, arguments: &[Vec<u8>], channel: &str) -> Result<Response, Error>;

    /// The value of a key.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error>;
    /// The values of several keys, in their order.
    fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>, Error>;
    /// One part of a range, in a transaction that writes nothing.
    fn page(&self, start: &str, end: &str, size: u32, bookmark: &str) -> Result<Page, Error>;
    /// The committed changes of a key.
    fn history(&self, key: &str) -> Result<Box<dyn HistoryCursor>, Error>;
    /// Writes a value.
    fn put(&self, key: &str, value: &[u8]) -> Result<(), Error>;
    /// Deletes a key.
    fn delete(&self, key: &str) -> Result<(), Error>;
    /// Keys from `start` up to, not including, `end`; an empty `end` is the end of all keys.
    fn range(&self, start: &str, end: &str) -> Result<Box<dyn Cursor>, Error>;
    /// The endorsement policy of a key.
    fn validation_parameter(&self, key: &str) -> Result<Option<Vec<u8>>, Error>;
    /// Sets the endorsement policy of a key.
    fn set_validation_parameter(&self, key: &str, policy: &[u8]) -> Result<(), Error>;

    /// The value of a private key.
    fn private_get(&self, collection: &str, key: &str) -> Result<Option<Vec<u8>>, Error>;
    /// The SHA-256 of a private key's value.
    fn private_hash(&self, collection: &str, key: &str) -> Result<Option<Vec<u8>>, Error>;
    /// Writes a private value.
    fn private_put(&self, collection: &str, key: &str, value: &[u8]) -> Result<(), Error>;
    /// The values of several private keys, in their order.
    fn private_get_many(&self, collection: &str, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>, Error>;
    /// The endorsement policy of a private key.
    fn private_validation_parameter(&self, collection: &str, key: &str) -> Result<Option<Vec<u8>>, Error>;
    /// Sets the endorsement policy of a private key.
    fn set_private_validation_parameter(
        &self,
        collection: &str,
        key: &str,
        policy: &[u8],
    ) -> Result<(), Error>;
    /// Deletes a private key.
    fn private_delete(&self, collection: &str, key: &str) -> Result<(), Error>;
    /// Deletes a private key and its past.
    fn private_purge(&self, collection: &str, key: &str) -> Result<(), Error>;
    /// Private keys from `start` up to, not including, `end`.
    fn private_range(&self, collection: &str, start: &str, end: &str) -> Result<Box<dyn Cursor>, Error>;

    /// Writes a line to the peer's log.
    fn log(&self, level: Level, message: &str);
}
