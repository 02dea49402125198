//! The door between a running chaincode and the books of its channel.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::limits::Allowance;
use super::package::PackageId;

/// Why the host cannot do what the chaincode asks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// The chaincode asked for something that is not allowed; it gets the text and may go on.
    #[error("{0}")]
    Refused(String),
    /// This peer cannot go on; the execution ends and another peer may succeed.
    #[error("{0}")]
    Broken(String),
}

/// What is known of the proposal that is being executed.
#[derive(Debug, Clone)]
pub struct TransactionContext {
    /// Transaction id.
    pub tx_id: String,
    /// Channel.
    pub channel: String,
    /// The client's time; zero when the proposal has none.
    pub timestamp: prost_types::Timestamp,
    /// Transient data.
    pub transient: Arc<BTreeMap<String, Bytes>>,
    /// A serialized `protos.Proposal`, as it was signed.
    pub proposal: Bytes,
    /// The creator's signature over it.
    pub signature: Bytes,
    /// The channel's hash over nonce, creator and epoch (Fabric's shim calls it the binding).
    pub binding: [u8; 32],
    /// Organisation of this peer.
    pub peer_msp_id: String,
}

/// Who signed the proposal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Creator {
    /// The organisation.
    pub msp_id: String,
    /// The certificate, PEM, as it stands in the proposal.
    pub certificate: Vec<u8>,
    /// The subject's common name.
    pub common_name: String,
    /// `x509::<subject>::<issuer>`.
    pub id: String,
    /// The subject's organisational units.
    pub organizational_units: Vec<String>,
    /// Attributes that the certificate authority put into the certificate.
    pub attributes: BTreeMap<String, String>,
}

/// A started range query of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeHandle(pub usize);

/// One part of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The pairs.
    pub entries: Pairs,
    /// Where the next page begins; empty at the end.
    pub bookmark: String,
}

/// A committed change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modification {
    /// The transaction.
    pub tx_id: String,
    /// The client's time of it.
    pub timestamp: prost_types::Timestamp,
    /// The value; empty for a deletion.
    pub value: Bytes,
    /// Whether the key was deleted.
    pub is_delete: bool,
}

/// The changes of a key, newest first; each step reads the books.
pub type Modifications = Box<dyn Iterator<Item = Result<Modification, HostError>> + Send>;

/// A chaincode that is called by another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callee {
    /// The package that runs it here.
    pub package: PackageId,
    /// What its definition grants. Fuel and call depth are those of the transaction's first chaincode.
    pub allowance: Allowance,
}

/// Keys with their values.
pub type Pairs = Vec<(String, Bytes)>;

/// The books as one execution sees them.
///
/// Duties of an implementation: reads see one snapshot and are recorded; a namespace is the name of the chaincode that
/// asks; nothing is committed. Methods are called by one thread at a time.
#[expect(clippy::missing_errors_doc, reason = "every method fails alike: see HostError")]
pub trait Host: Send + Sync {
    /// The proposal.
    fn transaction(&self) -> &TransactionContext;
    /// Who signed it.
    fn creator(&self) -> Result<Creator, HostError>;

    /// The value of a key.
    fn get(&self, namespace: &str, key: &str) -> Result<Option<Bytes>, HostError>;
    /// The values of several keys, in their order.
    fn get_many(&self, namespace: &str, keys: &[String]) -> Result<Vec<Option<Bytes>>, HostError> {
        keys.iter().map(|key| self.get(namespace, key)).collect()
    }
    /// One part of a range; the transaction must not write.
    fn page(
        &self,
        namespace: &str,
        start: &str,
        end: &str,
        size: usize,
        bookmark: &str,
    ) -> Result<Page, HostError>;
    /// The committed changes of a key.
    fn history(&self, namespace: &str, key: &str) -> Result<Modifications, HostError>;
    /// Writes a value; an empty one deletes.
    fn put(&self, namespace: &str, key: &str, value: Bytes) -> Result<(), HostError>;
    /// Starts a range query from `start` up to, not including, `end`.
    fn range(&self, namespace: &str, start: &str, end: &str) -> Result<RangeHandle, HostError>;
    /// The next pairs of a query, at most 100; none at its end.
    fn range_next(&self, range: RangeHandle) -> Result<Pairs, HostError>;
    /// Ends a query early.
    fn range_close(&self, range: RangeHandle);
    /// The endorsement policy of a key.
    fn validation_parameter(&self, namespace: &str, key: &str) -> Result<Option<Bytes>, HostError>;
    /// Sets the endorsement policy of a key; an empty one removes it.
    fn set_validation_parameter(&self, namespace: &str, key: &str, policy: Bytes) -> Result<(), HostError>;

    /// The value of a private key.
    fn private_get(&self, namespace: &str, collection: &str, key: &str) -> Result<Option<Bytes>, HostError>;
    /// The SHA-256 of a private key's value.
    fn private_hash(&self, namespace: &str, collection: &str, key: &str) -> Result<Option<Bytes>, HostError>;
    /// Writes a private value; an empty one deletes.
    fn private_put(
        &self,
        namespace: &str,
        collection: &str,
        key: &str,
        value: Bytes,
    ) -> Result<(), HostError>;
    /// The endorsement policy of a private key.
    fn private_validation_parameter(
        &self,
        namespace: &str,
        collection: &str,
        key: &str,
    ) -> Result<Option<Bytes>, HostError>;
    /// Sets the endorsement policy of a private key; an empty one removes it.
    fn set_private_validation_parameter(
        &self,
        namespace: &str,
        collection: &str,
        key: &str,
        policy: Bytes,
    ) -> Result<(), HostError>;
    /// Deletes a private key and its past.
    fn private_purge(&self, namespace: &str, collection: &str, key: &str) -> Result<(), HostError>;
    /// Starts a range query over private keys.
    fn private_range(
        &self,
        namespace: &str,
        collection: &str,
        start: &str,
        end: &str,
    ) -> Result<RangeHandle, HostError>;

    /// Another chaincode of the same channel, for a call from `caller`.
    fn callee(&self, caller: &str, name: &str) -> Result<Callee, HostError>;
    /// The books of another channel, for a call whose writes are forgotten.
    fn other_channel(&self, channel: &str) -> Result<Arc<dyn Host>, HostError>;
}
