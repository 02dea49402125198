//! What a contract function works with.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::composite::{check_plain, composite_range, plain_start};
use crate::ledger::{ClientIdentity, Cursor, KeyValue, Ledger, Level, Response, Timestamp};
use crate::{Error, composite_key};

/// One invocation: the client's proposal and the chaincode's state.
///
/// Reads see the state as it was committed before this transaction; a function does not see its own writes.
#[expect(missing_debug_implementations, reason = "a context holds nothing of its own to show")]
pub struct Context<'l> {
    ledger: &'l dyn Ledger,
}

impl<'l> Context<'l> {
    /// A context over a ledger.
    #[must_use]
    pub fn new(ledger: &'l dyn Ledger) -> Self {
        Self { ledger }
    }

    /// The transaction id: 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn tx_id(&self) -> String {
        self.ledger.tx_id()
    }

    /// The channel's name.
    #[must_use]
    pub fn channel(&self) -> String {
        self.ledger.channel()
    }

    /// The name under which this chaincode is defined in the channel.
    #[must_use]
    pub fn chaincode(&self) -> String {
        self.ledger.chaincode()
    }

    /// The client's time of the proposal. It is the only time there is: endorsers have no clock.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        self.ledger.timestamp()
    }

    /// Who signed the proposal.
    ///
    /// # Errors
    /// The creator is not an X.509 identity.
    pub fn client(&self) -> Result<ClientIdentity, Error> {
        self.ledger.creator()
    }

    /// One entry of the transient data: what the client gave along without it entering the transaction.
    #[must_use]
    pub fn transient(&self, name: &str) -> Option<Vec<u8>> {
        self.ledger.transient(name)
    }

    /// The names of the transient data's entries, sorted.
    #[must_use]
    pub fn transient_names(&self) -> Vec<String> {
        self.ledger.transient_names()
    }

    /// The organisation of the executing peer. It differs between endorsers and must not enter a result.
    #[must_use]
    pub fn peer_msp_id(&self) -> String {
        self.ledger.peer_msp_id()
    }

    /// The value of a key.
    ///
    /// # Errors
    /// The ledger's.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.ledger.get(key)
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    /// The ledger's.
    pub fn exists(&self, key: &str) -> Result<bool, Error> {
        Ok(self.get(key)?.is_some())
    }

    /// Writes a value; an empty value deletes the key.
    ///
    /// # Errors
    /// The key is empty, or the ledger's.
    pub fn put(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        refuse_empty(key)?;
        self.ledger.put(key, value)
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// The ledger's.
    pub fn delete(&self, key: &str) -> Result<(), Error> {
        self.ledger.delete(key)
    }

    /// The value of a key, read from JSON.
    ///
    /// # Errors
    /// The value is not JSON of this type, or the ledger's.
    pub fn get_json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        self.get(key)?.map(|value| read_json(key, &value)).transpose()
    }

    /// Writes a value as JSON, fields in the order of the type's declaration.
    ///
    /// # Errors
    /// The value cannot be written as JSON, or the ledger's.
    pub fn put_json<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<(), Error> {
        self.put(key, &serde_json::to_vec(value)?)
    }

    /// The pairs from `start` up to, not including, `end`, in the order of their keys' bytes. An empty `start` is the first plain key
    /// (composite keys are left out), an empty `end` the end of all keys.
    ///
    /// The transaction becomes invalid if the range's content changes before it is committed.
    ///
    /// # Errors
    /// An end begins with U+0000, or the ledger's.
    pub fn range(&self, start: &str, end: &str) -> Result<Range, Error> {
        check_plain(start)?;
        check_plain(end)?;
        self.ledger.range(plain_start(start), end).map(Range::new)
    }

    /// The pairs whose composite keys begin with this type and these attributes.
    ///
    /// # Errors
    /// A component contains U+0000 or U+10FFFF, or the ledger's.
    pub fn composite_range(&self, object_type: &str, attributes: &[&str]) -> Result<Range, Error> {
        let (start, end) = composite_range(object_type, attributes)?;
        self.ledger.range(&start, &end).map(Range::new)
    }

    /// A composite key; see [`composite_key`].
    ///
    /// # Errors
    /// A component contains U+0000 or U+10FFFF.
    pub fn composite_key(&self, object_type: &str, attributes: &[&str]) -> Result<String, Error> {
        composite_key(object_type, attributes)
    }

    /// The endorsement policy of a key: a serialized `common.SignaturePolicyEnvelope`.
    ///
    /// # Errors
    /// The ledger's.
    pub fn validation_parameter(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.ledger.validation_parameter(key)
    }

    /// Sets the endorsement policy that later writes of this key need; an empty one removes it.
    ///
    /// # Errors
    /// The ledger's.
    pub fn set_validation_parameter(&self, key: &str, policy: &[u8]) -> Result<(), Error> {
        self.ledger.set_validation_parameter(key, policy)
    }

    /// A collection of private data.
    #[must_use]
    pub fn private<'c>(&'c self, collection: &'c str) -> Collection<'c> {
        Collection { ledger: self.ledger, name: collection }
    }

    /// Sets the transaction's event; a transaction has one at most, and the last one counts.
    ///
    /// # Errors
    /// The name is empty.
    pub fn emit(&self, name: &str, payload: &[u8]) -> Result<(), Error> {
        if name.is_empty() {
            return Err(Error::new("event name can not be empty string"));
        }
        self.ledger.set_event(name, payload)
    }

    /// Sets the transaction's event with a JSON payload.
    ///
    /// # Errors
    /// The name is empty or the payload cannot be written as JSON.
    pub fn emit_json<T: Serialize + ?Sized>(&self, name: &str, payload: &T) -> Result<(), Error> {
        self.emit(name, &serde_json::to_vec(payload)?)
    }

    /// Calls another chaincode of this channel; its reads and writes join this transaction.
    ///
    /// # Errors
    /// The called chaincode refused (its status and message), or it cannot be called.
    pub fn call(&self, chaincode: &str, arguments: &[&str]) -> Result<Vec<u8>, Error> {
        let arguments: Vec<Vec<u8>> = arguments.iter().map(|argument| argument.as_bytes().to_vec()).collect();
        let response = self.call_on("", chaincode, &arguments)?;
        if response.status >= 400 {
            return Err(Error::with_status(response.status, response.message));
        }
        Ok(response.payload)
    }

    /// Calls a chaincode of another channel, which only answers: nothing that it writes is kept.
    ///
    /// # Errors
    /// It cannot be called. A refusal is a [`Response`].
    pub fn call_on(&self, channel: &str, chaincode: &str, arguments: &[Vec<u8>]) -> Result<Response, Error> {
        self.ledger.invoke_chaincode(chaincode, arguments, channel)
    }

    /// Writes a line to the peer's log. Private data does not belong there.
    pub fn log(&self, level: Level, message: &str) {
        self.ledger.log(level, message);
    }
}

/// A collection of private data: members hold the values, everybody holds their hashes.
#[expect(missing_debug_implementations, reason = "a collection holds nothing of its own to show")]
pub struct Collection<'c> {
    ledger: &'c dyn Ledger,
    name: &'c str,
}

impl Collection<'_> {
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
        self.ledger.private_delete(self.name, key)
    }

    /// Deletes a key and every earlier value of it.
    ///
    /// # Errors
    /// The collection does not exist, or the channel has not enabled purging.
    pub fn purge(&self, key: &str) -> Result<(), Error> {
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

/// The pairs of a range, in the order of their keys' bytes. Ends after the first error.
#[expect(missing_debug_implementations, reason = "a cursor holds nothing of its own to show")]
pub struct Range {
    cursor: Option<Box<dyn Cursor>>,
    batch: std::vec::IntoIter<KeyValue>,
}

impl Range {
    fn new(cursor: Box<dyn Cursor>) -> Self {
        Self { cursor: Some(cursor), batch: Vec::new().into_iter() }
    }
}

impl Iterator for Range {
    type Item = Result<KeyValue, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(pair) = self.batch.next() {
            return Some(Ok(pair));
        }
        match self.cursor.as_mut()?.next_batch() {
            Ok(batch) => {
                self.batch = batch.into_iter();
                let first = self.batch.next();
                if first.is_none() {
                    self.cursor = None;
                }
                first.map(Ok)
            }
            Err(error) => {
                self.cursor = None;
                Some(Err(error))
            }
        }
    }
}

fn refuse_empty(key: &str) -> Result<(), Error> {
    if key.is_empty() { Err(Error::new("key must not be an empty string")) } else { Ok(()) }
}

fn read_json<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(value)
        .map_err(|error| Error::new(format!("the value of {key:?} is not what was expected: {error}")))
}
