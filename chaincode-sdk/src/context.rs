//! What a contract function works with.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::assets::Assets;
use crate::collection::Collection;
use crate::composite::{check_plain, composite_range, plain_start};
use crate::ledger::{
    ClientIdentity, Cursor, HistoryCursor, KeyValue, Ledger, Level, Modification, Page, Response,
    SignedProposal, Timestamp,
};
use crate::policy::KeyPolicy;
use crate::{Error, composite_key};

/// One invocation: the client's proposal and the chaincode's state.
///
/// Reads see the state as it was committed before this transaction; a function does not see its own writes.
#[expect(missing_debug_implementations, reason = "a context holds nothing of its own to show")]
pub struct Context<'l> {
    ledger: &'l dyn Ledger,
    /// The function that must not write, if it is one.
    read_only: Option<&'static str>,
}

impl<'l> Context<'l> {
    /// A context over a ledger.
    #[must_use]
    pub fn new(ledger: &'l dyn Ledger) -> Self {
        Self { ledger, read_only: None }
    }

    /// The same invocation for a function that must not write.
    #[doc(hidden)]
    #[must_use]
    pub fn read_only(&self, function: &'static str) -> Self {
        Self { ledger: self.ledger, read_only: Some(function) }
    }

    fn may_write(&self) -> Result<(), Error> {
        refuse_write(self.read_only)
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

    /// The function's name and its arguments, as they were sent.
    #[must_use]
    pub fn arguments(&self) -> Vec<Vec<u8>> {
        self.ledger.arguments()
    }

    /// The proposal as the client signed it.
    #[must_use]
    pub fn signed_proposal(&self) -> SignedProposal {
        self.ledger.signed_proposal()
    }

    /// SHA-256 over nonce, creator and epoch of the proposal (`GetBinding` of Fabric's shim).
    #[must_use]
    pub fn binding(&self) -> Vec<u8> {
        self.ledger.binding()
    }

    /// The transient data's entry, read from JSON.
    ///
    /// # Errors
    /// There is no such entry, or it is not JSON of this type. The value itself is not repeated, because it is not for everybody.
    pub fn transient_json<T: DeserializeOwned>(&self, name: &str) -> Result<T, Error> {
        let value = self
            .transient(name)
            .ok_or_else(|| Error::new(format!("the transient data has no entry {name:?}")))?;
        serde_json::from_slice(&value).map_err(|error| {
            Error::new(format!(
                "the entry {name:?} of the transient data is not what was expected (line {}, column {})",
                error.line(),
                error.column()
            ))
        })
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

    /// The values of several keys, in their order; cheaper than as many single reads.
    ///
    /// # Errors
    /// The ledger's.
    pub fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.ledger.get_many(keys)
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
        self.may_write()?;
        self.ledger.put(key, value)
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// The ledger's.
    pub fn delete(&self, key: &str) -> Result<(), Error> {
        self.may_write()?;
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

    /// At most `size` pairs of a range, from its start or from the bookmark of the page before. Only a transaction that writes nothing
    /// may ask.
    ///
    /// # Errors
    /// The transaction writes, the size is none or too large, or the ledger's.
    pub fn page(&self, start: &str, end: &str, size: u32, bookmark: &str) -> Result<Page, Error> {
        check_plain(start)?;
        check_plain(end)?;
        self.ledger.page(plain_start(start), end, size, bookmark)
    }

    /// One page of the pairs whose composite keys begin with this type and these attributes.
    ///
    /// # Errors
    /// As [`page`](Self::page), or a component contains U+0000 or U+10FFFF.
    pub fn composite_page(
        &self,
        object_type: &str,
        attributes: &[&str],
        size: u32,
        bookmark: &str,
    ) -> Result<Page, Error> {
        let (start, end) = composite_range(object_type, attributes)?;
        self.ledger.page(&start, &end, size, bookmark)
    }

    /// The committed changes of a key, the newest first. They are not checked again when the transaction is committed.
    ///
    /// # Errors
    /// The ledger's.
    pub fn history(&self, key: &str) -> Result<History, Error> {
        let cursor = self.ledger.history(key)?;
        Ok(History { cursor: Some(cursor), batch: Vec::new().into_iter() })
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
        self.may_write()?;
        self.ledger.set_validation_parameter(key, policy)
    }

    /// Sets who must endorse later changes of this key, instead of the chaincode's policy.
    ///
    /// # Errors
    /// The policy makes no sense, or the ledger's.
    pub fn set_key_policy(&self, key: &str, policy: &KeyPolicy) -> Result<(), Error> {
        self.set_validation_parameter(key, &policy.encode()?)
    }

    /// The assets of one kind, under composite keys.
    #[must_use]
    pub fn assets<'c, T: Serialize + DeserializeOwned>(&'c self, kind: &'c str) -> Assets<'c, 'l, T> {
        Assets::new(self, kind)
    }

    /// A collection of private data.
    #[must_use]
    pub fn private<'c>(&'c self, collection: &'c str) -> Collection<'c> {
        Collection::new(self.ledger, collection, self.read_only)
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

/// The pairs of a range, in the order of their keys' bytes. Ends after the first error.
#[expect(missing_debug_implementations, reason = "a cursor holds nothing of its own to show")]
pub struct Range {
    cursor: Option<Box<dyn Cursor>>,
    batch: std::vec::IntoIter<KeyValue>,
}

impl Range {
    pub(crate) fn new(cursor: Box<dyn Cursor>) -> Self {
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

/// The committed changes of a key, the newest first. Ends after the first error.
#[expect(missing_debug_implementations, reason = "a cursor holds nothing of its own to show")]
pub struct History {
    cursor: Option<Box<dyn HistoryCursor>>,
    batch: std::vec::IntoIter<Modification>,
}

impl Iterator for History {
    type Item = Result<Modification, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(change) = self.batch.next() {
            return Some(Ok(change));
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

/// Refuses a write of a function that is there to be evaluated.
pub(crate) fn refuse_write(read_only: Option<&'static str>) -> Result<(), Error> {
    match read_only {
        Some(function) => Err(Error::new(format!(
            "{function} is there to be evaluated and must not write; mark it #[submit]"
        ))),
        None => Ok(()),
    }
}

pub(crate) fn refuse_empty(key: &str) -> Result<(), Error> {
    if key.is_empty() { Err(Error::new("key must not be an empty string")) } else { Ok(()) }
}

pub(crate) fn read_json<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(value)
        .map_err(|error| Error::new(format!("the value of {key:?} is not what was expected: {error}")))
}
