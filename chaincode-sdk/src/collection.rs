//! Private data.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;
use crate::composite::{check_plain, plain_start};
use crate::context::{Range, read_json, refuse_empty, refuse_write};
use crate::ledger::Ledger;
use crate::policy::KeyPolicy;

/// A collection of private data: members hold the values, everybody holds their hashes.
#[expect(missing_debug_implementations, reason = "a collection holds nothing of its own to show")]
pub struct Collection<'c> {
    ledger: &'c dyn Ledger,
    name: &'c str,
    read_only: Option<&'static str>,
}

impl<'c> Collection<'c> {
    pub(crate) fn new(ledger: &'c dyn Ledger, name: &'c str, read_only: Option<&'static str>) -> Self {
        Self { ledger, name, read_only }
    }

    /// The collection that every organisation has by itself, in every chaincode.
    #[must_use]
    pub fn implicit(msp_id: &str) -> String {
        format!("_implicit_org_{msp_id}")
    }

    /// The values of several keys, in their order.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.ledger.private_get_many(self.name, keys)
    }

    /// The endorsement policy of a key: a serialized `common.SignaturePolicyEnvelope`.
    ///
    /// # Errors
    /// The collection does not exist.
    pub fn validation_parameter(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.ledger.private_validation_parameter(self.name, key)
    }

    /// Sets who must endorse later changes of this key.
    ///
    /// # Errors
    /// The policy makes no sense, or the collection does not exist.
    pub fn set_key_policy(&self, key: &str, policy: &KeyPolicy) -> Result<(), Error> {
        refuse_write(self.read_only)?;
        self.ledger.set_private_validation_parameter(self.name, key, &policy.encode()?)
    }

    /// The value of a key.
    ///
    /// # Errors
    /// The peer is no member, does not hold the data, or the collection does not exist.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.ledger.private_get(self.name, key)
    }

    /// The value of a key, read from JSON.
    ///
    /// # Errors
    /// As [`get`](Self::get), or the value is not JSON of this type.
    pub fn get_json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        self.get(key)?.map(|value| read_json(key, &value)).transpose()
    }

    /// The SHA-256 of a key's value, which every peer of the channel knows.
    ///
    /// # Errors
    /// The collection does not exist.
    pub fn hash(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.ledger.private_hash(self.name, key)
    }

    /// Writes a value; an empty value deletes the key.
    ///
    /// # Errors
    /// The key is empty, or the collection does not exist.
    pub fn put(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        refuse_empty(key)?;
        refuse_write(self.read_only)?;
        self.ledger.private_put(self.name, key, value)
    }

    /// Writes a value as JSON.
    ///
    /// # Errors
    /// As [`put`](Self::put), or the value cannot be written as JSON.
    pub fn put_json<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<(), Error> {
        self.put(key, &serde_json::to_vec(value)?)
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// The collection does not exist.
    pub fn delete(&self, key: &str) -> Result<(), Error> {
        refuse_write(self.read_only)?;
        self.ledger.private_delete(self.name, key)
    }

    /// Deletes a key and every earlier value of it.
    ///
    /// # Errors
    /// The collection does not exist, or the channel has not enabled purging.
    pub fn purge(&self, key: &str) -> Result<(), Error> {
        refuse_write(self.read_only)?;
        self.ledger.private_purge(self.name, key)
    }

    /// The pairs from `start` up to, not including, `end`. Only a transaction that writes nothing may ask.
    ///
    /// # Errors
    /// An end begins with U+0000, or the ledger's.
    pub fn range(&self, start: &str, end: &str) -> Result<Range, Error> {
        check_plain(start)?;
        check_plain(end)?;
        self.ledger.private_range(self.name, plain_start(start), end).map(Range::new)
    }
}
