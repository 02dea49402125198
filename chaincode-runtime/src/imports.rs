//! Every function that a chaincode can import.

use bytes::Bytes;
use wasmtime::StoreContextMut;
use wasmtime::component::{HasSelf, Linker, Resource};

use super::failure::Broken;
use super::host::TransactionContext;
use super::offered;
use super::runtime::Event;
use super::sandbox::bindings::Chaincode;
use super::sandbox::bindings::consort::chaincode::types::{KeyValue, Response};
use super::sandbox::bindings::consort::chaincode::{
    composite_keys, diagnostics, private_data, state, transaction, types,
};
use super::sandbox::{Answer, CALLEE_FUEL, Cursor, HistoryCursor, PrivateCursor, Sandbox, too_many_cursors};

/// Longest line in the log.
const LOG_BYTES_MAX: usize = 2048;
/// Pairs of the largest page, as many as an ordinary query gives at most (Fabric `totalQueryLimit`).
const PAGE_PAIRS_MAX: u32 = 100_000;
/// Changes in a batch of a key's history.
const HISTORY_BATCH: usize = 100;
/// Opens a composite key and ends each word of it.
const SEPARATOR: char = '\u{0}';
/// Greater than every character of a word.
const BEYOND: char = '\u{10FFFF}';
/// The interface of [`invoke_chaincode`], and its name there.
pub(super) const TRANSACTION_INTERFACE: &str = "consort:chaincode/transaction@1.1.0";
const INVOKE_CHAINCODE: &str = "invoke-chaincode";

/// Offers every import. A component that was made for an earlier version of the package finds its functions among these.
pub(super) fn link(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    Chaincode::add_to_linker::<_, HasSelf<_>>(linker, |sandbox: &mut Sandbox| sandbox)?;
    // The generated functions see the sandbox only; these take their places because they need the store, which has the fuel.
    linker.allow_shadowing(true);
    offered::link(linker)?;
    linker.instance(TRANSACTION_INTERFACE)?.func_wrap(INVOKE_CHAINCODE, invoke_chaincode)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Calls another chaincode. It may burn what its caller has left, and what it burnt is missing to its caller: all chaincodes
/// of a transaction burn no more than one may.
fn invoke_chaincode(
    mut store: StoreContextMut<'_, Sandbox>,
    (name, arguments, channel): (String, Vec<Vec<u8>>, String),
) -> wasmtime::Result<(Result<Response, String>,)> {
    let left = store.get_fuel()?;
    let sandbox = store.data_mut();
    sandbox.resume(left);
    sandbox.owe(CALLEE_FUEL)?;
    sandbox.charge(arguments.iter().map(Vec::len).sum::<usize>())?;
    let mut fuel = sandbox.settle(left)?;
    let answer = sandbox.call(&name, arguments, &channel, &mut fuel)?;
    sandbox.settle(fuel)?;
    store.set_fuel(fuel)?;
    Ok((answer,))
}

impl types::Host for Sandbox {}

impl transaction::Host for Sandbox {
    fn id(&mut self) -> wasmtime::Result<String> {
        self.charge(0)?;
        Ok(self.host.transaction().tx_id.clone())
    }

    fn channel(&mut self) -> wasmtime::Result<String> {
        self.charge(0)?;
        Ok(self.host.transaction().channel.clone())
    }

    fn chaincode(&mut self) -> wasmtime::Result<String> {
        self.charge(0)?;
        Ok(self.chaincode.clone())
    }

    fn timestamp(&mut self) -> wasmtime::Result<transaction::Instant> {
        self.charge(0)?;
        let time = &self.host.transaction().timestamp;
        Ok(transaction::Instant {
            seconds: time.seconds,
            nanoseconds: u32::try_from(time.nanos).unwrap_or_default(),
        })
    }

    fn creator(&mut self) -> Answer<transaction::ClientIdentity> {
        self.charge(0)?;
        let creator = match Self::answer(self.host.creator())? {
            Ok(creator) => creator,
            Err(text) => return Ok(Err(text)),
        };
        self.charge(creator.certificate.len())?;
        Ok(Ok(transaction::ClientIdentity {
            msp_id: creator.msp_id,
            certificate: creator.certificate,
            common_name: creator.common_name,
            id: creator.id,
            organizational_units: creator.organizational_units,
            attributes: creator.attributes.into_iter().collect(),
        }))
    }

    fn transient(&mut self, name: String) -> wasmtime::Result<Option<Vec<u8>>> {
        self.charge(name.len())?;
        let value = self.host.transaction().transient.get(&name).cloned();
        self.charge(value.as_ref().map_or(0, Bytes::len))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn arguments(&mut self) -> wasmtime::Result<Vec<Vec<u8>>> {
        self.charge(self.arguments.iter().map(Bytes::len).sum())?;
        Ok(self.arguments.iter().map(|argument| argument.to_vec()).collect())
    }

    fn signed_proposal(&mut self) -> wasmtime::Result<transaction::SignedProposalBytes> {
        let TransactionContext { proposal, signature, .. } = self.host.transaction();
        let (proposal, signature) = (proposal.to_vec(), signature.to_vec());
        self.charge(proposal.len() + signature.len())?;
        Ok(transaction::SignedProposalBytes { proposal, signature })
    }

    fn binding(&mut self) -> wasmtime::Result<Vec<u8>> {
        self.charge(0)?;
        Ok(self.host.transaction().binding.to_vec())
    }

    fn transient_names(&mut self) -> wasmtime::Result<Vec<String>> {
        self.charge(0)?;
        Ok(self.host.transaction().transient.keys().cloned().collect())
    }

    fn peer_msp_id(&mut self) -> wasmtime::Result<String> {
        self.charge(0)?;
        Ok(self.host.transaction().peer_msp_id.clone())
    }

    fn set_event(&mut self, name: String, payload: Vec<u8>) -> Answer<()> {
        self.charge(name.len() + payload.len())?;
        if name.is_empty() {
            return Ok(Err("event name can not be empty string".to_owned()));
        }
        self.event = Some(Event { name, payload: payload.into() });
        Ok(Ok(()))
    }

    fn invoke_chaincode(&mut self, _: String, _: Vec<Vec<u8>>, _: String) -> Answer<Response> {
        Err(Broken(format!("{INVOKE_CHAINCODE} is linked without the caller's fuel")).into())
    }
}

impl state::Host for Sandbox {
    fn get(&mut self, key: String) -> Answer<Option<Vec<u8>>> {
        self.read(&key, |host, namespace| host.get(namespace, &key))
    }

    fn get_many(&mut self, keys: Vec<String>) -> Answer<Vec<Option<Vec<u8>>>> {
        self.read_many(&keys, |host, namespace| host.get_many(namespace, &keys))
    }

    fn range_page(&mut self, start: String, end: String, size: u32, bookmark: String) -> Answer<state::Page> {
        self.charge(start.len() + end.len() + bookmark.len())?;
        if size == 0 || size > PAGE_PAIRS_MAX {
            return Ok(Err(format!("a page has {size} pairs, and may have 1 to {PAGE_PAIRS_MAX}")));
        }
        let page = self.host.page(&self.chaincode, &start, &end, size as usize, &bookmark);
        match Self::answer(page)? {
            Ok(page) => Ok(Ok(state::Page { entries: self.pairs(page.entries)?, bookmark: page.bookmark })),
            Err(text) => Ok(Err(text)),
        }
    }

    fn history(&mut self, key: String) -> Answer<Resource<HistoryCursor>> {
        self.charge(key.len())?;
        match Self::answer(self.host.history(&self.chaincode, &key))? {
            Ok(changes) => Ok(self.table.push(HistoryCursor(changes)).map_err(|_| too_many_cursors())),
            Err(text) => Ok(Err(text)),
        }
    }

    fn put(&mut self, key: String, value: Vec<u8>) -> Answer<()> {
        self.write(&key, value, |host, namespace, value| host.put(namespace, &key, value))
    }

    fn delete(&mut self, key: String) -> Answer<()> {
        self.put(key, Vec::new())
    }

    fn range(&mut self, start: String, end: String) -> Answer<Resource<Cursor>> {
        self.charge(start.len() + end.len())?;
        match Self::answer(self.host.range(&self.chaincode, &start, &end))? {
            Ok(range) => Ok(self.table.push(Cursor(range)).map_err(|_| too_many_cursors())),
            Err(text) => Ok(Err(text)),
        }
    }

    fn validation_parameter(&mut self, key: String) -> Answer<Option<Vec<u8>>> {
        self.read(&key, |host, namespace| host.validation_parameter(namespace, &key))
    }

    fn set_validation_parameter(&mut self, key: String, policy: Vec<u8>) -> Answer<()> {
        self.write(&key, policy, |host, namespace, policy| {
            host.set_validation_parameter(namespace, &key, policy)
        })
    }
}

impl state::HostRangeCursor for Sandbox {
    fn next(&mut self, cursor: Resource<Cursor>) -> Answer<Vec<KeyValue>> {
        let range = self.table.get(&cursor)?.0;
        self.batch(range)
    }

    fn drop(&mut self, cursor: Resource<Cursor>) -> wasmtime::Result<()> {
        let cursor = self.table.delete(cursor)?;
        self.host.range_close(cursor.0);
        Ok(())
    }
}

impl state::HostHistoryCursor for Sandbox {
    fn next(&mut self, cursor: Resource<HistoryCursor>) -> Answer<Vec<state::Modification>> {
        self.charge(0)?;
        let mut batch = Vec::new();
        while batch.len() < HISTORY_BATCH {
            let Some(change) = self.table.get_mut(&cursor)?.0.next() else { break };
            let change = match Self::answer(change)? {
                Ok(change) => change,
                Err(text) => return Ok(Err(text)),
            };
            // Each change lies in a block of its own, which is read and opened.
            self.charge(change.value.len())?;
            batch.push(state::Modification {
                tx_id: change.tx_id,
                seconds: change.timestamp.seconds,
                nanoseconds: u32::try_from(change.timestamp.nanos).unwrap_or_default(),
                value: change.value.to_vec(),
                is_delete: change.is_delete,
            });
        }
        Ok(Ok(batch))
    }

    fn drop(&mut self, cursor: Resource<HistoryCursor>) -> wasmtime::Result<()> {
        self.table.delete(cursor)?;
        Ok(())
    }
}

impl composite_keys::Host for Sandbox {
    fn create(&mut self, object_type: String, attributes: Vec<String>) -> Answer<String> {
        self.charge(object_type.len() + attributes.iter().map(String::len).sum::<usize>())?;
        Ok(composite_key(&object_type, &attributes))
    }

    fn split(&mut self, key: String) -> Answer<Vec<String>> {
        self.charge(key.len())?;
        let words = key.strip_prefix(SEPARATOR).and_then(|rest| rest.strip_suffix(SEPARATOR));
        Ok(words
            .map(|words| words.split(SEPARATOR).map(str::to_owned).collect())
            .ok_or_else(|| format!("{key:?} is not a composite key")))
    }

    fn bounds(&mut self, object_type: String, attributes: Vec<String>) -> Answer<(String, String)> {
        self.charge(object_type.len() + attributes.iter().map(String::len).sum::<usize>())?;
        Ok(composite_key(&object_type, &attributes).map(|start| {
            let end = format!("{start}{BEYOND}");
            (start, end)
        }))
    }
}

/// The layout of Fabric's shims (`shim.CreateCompositeKey`).
fn composite_key(object_type: &str, attributes: &[String]) -> Result<String, String> {
    let mut key = String::from(SEPARATOR);
    for word in std::iter::once(object_type).chain(attributes.iter().map(String::as_str)) {
        if word.contains([SEPARATOR, BEYOND]) {
            return Err(
                "a word of a composite key contains U+0000 or U+10FFFF, which is not allowed".to_owned()
            );
        }
        key.push_str(word);
        key.push(SEPARATOR);
    }
    Ok(key)
}

impl private_data::Host for Sandbox {
    fn get(&mut self, collection: String, key: String) -> Answer<Option<Vec<u8>>> {
        self.read(&key, |host, namespace| host.private_get(namespace, &collection, &key))
    }

    fn hash(&mut self, collection: String, key: String) -> Answer<Option<Vec<u8>>> {
        self.read(&key, |host, namespace| host.private_hash(namespace, &collection, &key))
    }

    fn put(&mut self, collection: String, key: String, value: Vec<u8>) -> Answer<()> {
        self.write(&key, value, |host, namespace, value| {
            host.private_put(namespace, &collection, &key, value)
        })
    }

    fn delete(&mut self, collection: String, key: String) -> Answer<()> {
        private_data::Host::put(self, collection, key, Vec::new())
    }

    fn purge(&mut self, collection: String, key: String) -> Answer<()> {
        self.write(&key, Vec::new(), |host, namespace, _| host.private_purge(namespace, &collection, &key))
    }

    fn get_many(&mut self, collection: String, keys: Vec<String>) -> Answer<Vec<Option<Vec<u8>>>> {
        self.read_many(&keys, |host, namespace| {
            keys.iter().map(|key| host.private_get(namespace, &collection, key)).collect()
        })
    }

    fn validation_parameter(&mut self, collection: String, key: String) -> Answer<Option<Vec<u8>>> {
        self.read(&key, |host, namespace| host.private_validation_parameter(namespace, &collection, &key))
    }

    fn set_validation_parameter(&mut self, collection: String, key: String, policy: Vec<u8>) -> Answer<()> {
        self.write(&key, policy, |host, namespace, policy| {
            host.set_private_validation_parameter(namespace, &collection, &key, policy)
        })
    }

    fn range(&mut self, collection: String, start: String, end: String) -> Answer<Resource<PrivateCursor>> {
        self.charge(start.len() + end.len())?;
        match Self::answer(self.host.private_range(&self.chaincode, &collection, &start, &end))? {
            Ok(range) => Ok(self.table.push(PrivateCursor(range)).map_err(|_| too_many_cursors())),
            Err(text) => Ok(Err(text)),
        }
    }
}

impl private_data::HostRangeCursor for Sandbox {
    fn next(&mut self, cursor: Resource<PrivateCursor>) -> Answer<Vec<KeyValue>> {
        let range = self.table.get(&cursor)?.0;
        self.batch(range)
    }

    fn drop(&mut self, cursor: Resource<PrivateCursor>) -> wasmtime::Result<()> {
        let cursor = self.table.delete(cursor)?;
        self.host.range_close(cursor.0);
        Ok(())
    }
}

impl diagnostics::Host for Sandbox {
    fn log(&mut self, level: diagnostics::Level, mut message: String) -> wasmtime::Result<()> {
        self.charge(message.len())?;
        truncate(&mut message, LOG_BYTES_MAX);
        let (chaincode, tx_id) = (&self.chaincode, &self.host.transaction().tx_id);
        match level {
            diagnostics::Level::Debug => tracing::debug!(%chaincode, %tx_id, %message, "chaincode says"),
            diagnostics::Level::Info => tracing::info!(%chaincode, %tx_id, %message, "chaincode says"),
            diagnostics::Level::Warn => tracing::warn!(%chaincode, %tx_id, %message, "chaincode says"),
            diagnostics::Level::Error => tracing::error!(%chaincode, %tx_id, %message, "chaincode says"),
        }
        Ok(())
    }

    fn panicked(&mut self, mut message: String) -> wasmtime::Result<()> {
        truncate(&mut message, LOG_BYTES_MAX);
        self.panic = Some(message);
        Ok(())
    }
}

/// Cuts a text at a character's border.
fn truncate(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        let mut text = "aé".to_owned();
        truncate(&mut text, 2);
        assert_eq!(text, "a…");
    }

    #[test]
    fn a_composite_key_has_the_layout_of_the_shims() {
        let attributes = ["tom".to_owned(), "1".to_owned()];
        assert_eq!(composite_key("owner~id", &attributes).unwrap(), "\u{0}owner~id\u{0}tom\u{0}1\u{0}");
        assert!(composite_key("owner", &["a\u{0}".to_owned()]).is_err());
    }
}
