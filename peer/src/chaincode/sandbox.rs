//! The inside of an execution: every function that a chaincode can import, and what it costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use wasmtime::component::{HasSelf, Linker, Resource, ResourceTable};
use wasmtime::{ResourceLimiter, StoreContextMut};

use super::engine::TABLE_ELEMENTS_MAX;
use super::failure::{Bound, Broken};
use super::host::{Host, HostError, RangeHandle};
use super::runtime::{Event, Execution, Runner};

use self::bindings::Chaincode;
use self::bindings::consort::chaincode::types::{KeyValue, Response};
use self::bindings::consort::chaincode::{diagnostics, private_data, state, transaction, types};

pub(super) mod bindings {
    //! Generated from the WIT package, which documents it.
    #![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code")]
    wasmtime::component::bindgen!({
        path: "../chaincode-sdk/wit",
        world: "chaincode",
        imports: { default: trappable },
        with: {
            "consort:chaincode/state.range-cursor": super::Cursor,
            "consort:chaincode/private-data.range-cursor": super::PrivateCursor,
        },
    });
}

/// Work of one transaction, calls to other chaincodes included: one unit per byte that crosses the border, and
/// [`CALL_WORK`] per call. It bounds the time in the ledger and the size of the read-write set, which fuel does not.
const WORK_MAX: u64 = 512 << 20;
/// Work of a call besides its bytes; a quarter of a million calls are thus the most of one transaction.
const CALL_WORK: u64 = 2048;
/// Work of a call to another chaincode: an instance is made for it. Some two thousand are thus the most of one transaction.
const CALLEE_WORK: usize = 256 << 10;
/// Work of each result of a query besides its bytes: the record of having read it.
const RESULT_WORK: u64 = 128;
/// Largest value. An orderer refuses transactions of this size long before.
const VALUE_BYTES_MAX: usize = 32 << 20;
/// Longest key. Fabric has no limit; a longer key is a mistake and would sit in every index.
const KEY_BYTES_MAX: usize = 16 << 10;
/// Range queries that one chaincode may have open.
const CURSORS_MAX: usize = 1024;
/// Linear memories and instances, as the pool has them.
const INSTANCES_MAX: usize = 16;
/// Longest line in the log.
const LOG_BYTES_MAX: usize = 2048;
/// How deep chaincodes may call each other.
pub(super) const CALL_DEPTH_MAX: usize = 8;
/// Names that a chaincode cannot call.
const SYSTEM_CHAINCODES: [&str; 6] = ["_lifecycle", "lscc", "cscc", "qscc", "escc", "vscc"];
/// The interface of [`invoke_chaincode`], and its name there.
const TRANSACTION_INTERFACE: &str = "consort:chaincode/transaction@1.0.0";
const INVOKE_CHAINCODE: &str = "invoke-chaincode";

/// What all chaincodes of one transaction use up together, besides their fuel: each has what its caller had left.
#[derive(Debug)]
pub(super) struct Budget {
    work: AtomicU64,
    /// Set when the wall-clock limit has passed.
    pub(super) expired: AtomicBool,
}

impl Budget {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { work: AtomicU64::new(WORK_MAX), expired: AtomicBool::new(false) })
    }
}

/// A range over public keys.
#[expect(unreachable_pub, reason = "the generated bindings export it again, within this private module")]
pub struct Cursor(RangeHandle);
/// A range over private keys.
#[expect(unreachable_pub, reason = "the generated bindings export it again, within this private module")]
pub struct PrivateCursor(RangeHandle);

/// The data of one instance.
pub(super) struct Sandbox {
    /// The chaincode's name: the namespace of its keys.
    chaincode: String,
    host: Arc<dyn Host>,
    runner: Runner,
    budget: Arc<Budget>,
    depth: usize,
    table: ResourceTable,
    memory_bytes_max: usize,
    /// The event that was set last.
    pub(super) event: Option<Event>,
    /// The message of a panic.
    pub(super) panic: Option<String>,
}

/// A result for the chaincode, or the end of the execution.
type Answer<T> = wasmtime::Result<Result<T, String>>;

impl Sandbox {
    pub(super) fn new(
        chaincode: &str,
        host: Arc<dyn Host>,
        runner: Runner,
        budget: Arc<Budget>,
        depth: usize,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(CURSORS_MAX);
        let memory_bytes_max = runner.limits().memory_bytes_max;
        Self {
            chaincode: chaincode.to_owned(),
            host,
            runner,
            budget,
            depth,
            table,
            memory_bytes_max,
            event: None,
            panic: None,
        }
    }

    /// Charges a call and the bytes that it moves.
    fn charge(&self, bytes: usize) -> wasmtime::Result<()> {
        let cost = CALL_WORK.saturating_add(bytes as u64);
        let spent =
            self.budget.work.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(cost));
        spent.map(drop).map_err(|_| Bound::Work { limit: WORK_MAX }.into())
    }

    fn answer<T>(result: Result<T, HostError>) -> Answer<T> {
        match result {
            Ok(value) => Ok(Ok(value)),
            Err(HostError::Refused(text)) => Ok(Err(text)),
            Err(HostError::Broken(text)) => Err(Broken(text).into()),
        }
    }

    /// Passes a read on, with its costs.
    fn read(
        &self,
        key: &str,
        read: impl FnOnce(&dyn Host, &str) -> Result<Option<Bytes>, HostError>,
    ) -> Answer<Option<Vec<u8>>> {
        self.charge(key.len())?;
        let value = match Self::answer(read(self.host.as_ref(), &self.chaincode))? {
            Ok(value) => value,
            Err(text) => return Ok(Err(text)),
        };
        self.charge(value.as_ref().map_or(0, Bytes::len))?;
        Ok(Ok(value.map(|value| value.to_vec())))
    }

    /// Passes a write on, with its costs and limits.
    fn write(
        &self,
        key: &str,
        value: Vec<u8>,
        write: impl FnOnce(&dyn Host, &str, Bytes) -> Result<(), HostError>,
    ) -> Answer<()> {
        self.charge(key.len() + value.len())?;
        if let Err(text) = check_sizes(key, value.len()) {
            return Ok(Err(text));
        }
        Self::answer(write(self.host.as_ref(), &self.chaincode, value.into()))
    }

    fn batch(&self, range: RangeHandle) -> Answer<Vec<KeyValue>> {
        self.charge(0)?;
        let pairs = match Self::answer(self.host.range_next(range))? {
            Ok(pairs) => pairs,
            Err(text) => return Ok(Err(text)),
        };
        let bytes: usize = pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
        self.charge(bytes + pairs.len() * usize::try_from(RESULT_WORK).unwrap_or(usize::MAX))?;
        Ok(Ok(pairs.into_iter().map(|(key, value)| KeyValue { key, value: value.to_vec() }).collect()))
    }

    /// Calls another chaincode, which burns of `fuel`.
    fn call(&self, name: &str, arguments: Vec<Vec<u8>>, channel: &str, fuel: &mut u64) -> Answer<Response> {
        if SYSTEM_CHAINCODES.contains(&name) {
            return Ok(Err(format!("system chaincode {name} cannot be called from another chaincode")));
        }
        if self.depth + 1 >= CALL_DEPTH_MAX {
            return Ok(Err(format!("chaincodes call each other more than {CALL_DEPTH_MAX} deep")));
        }
        let elsewhere = !channel.is_empty() && channel != self.host.transaction().channel;
        let host = if elsewhere {
            match Self::answer(self.host.other_channel(channel))? {
                Ok(host) => host,
                Err(text) => return Ok(Err(text)),
            }
        } else {
            Arc::clone(&self.host)
        };
        let package = match Self::answer(host.callee(&self.chaincode, name))? {
            Ok(package) => package,
            Err(text) => return Ok(Err(text)),
        };
        let arguments = arguments.into_iter().map(Bytes::from).collect();
        let called = self.runner.call(name, &package, arguments, host, &self.budget, fuel, self.depth + 1);
        // The event of a called chaincode is dropped: a transaction has the event of its outermost chaincode.
        let Execution { response, event: _ } = called?;
        let status = u32::try_from(response.status).unwrap_or(500);
        Ok(Ok(Response { status, message: response.message, payload: response.payload.to_vec() }))
    }
}

fn check_sizes(key: &str, value_bytes: usize) -> Result<(), String> {
    if key.is_empty() {
        return Err("key must not be an empty string".to_owned());
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(format!("the key has {} bytes, and may have {KEY_BYTES_MAX}", key.len()));
    }
    if value_bytes > VALUE_BYTES_MAX {
        return Err(format!(
            "the value of key {key:?} has {value_bytes} bytes, and may have {VALUE_BYTES_MAX}"
        ));
    }
    Ok(())
}

/// Offers every import.
pub(super) fn link(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    Chaincode::add_to_linker::<_, HasSelf<_>>(linker, |sandbox: &mut Sandbox| sandbox)?;
    // The generated function sees the sandbox only; this one takes its place because it needs the store, which has the fuel.
    linker.allow_shadowing(true);
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
    store.data().charge(CALLEE_WORK + arguments.iter().map(Vec::len).sum::<usize>())?;
    let mut fuel = store.get_fuel()?;
    let answer = store.data().call(&name, arguments, &channel, &mut fuel)?;
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

fn too_many_cursors() -> String {
    format!("more than {CURSORS_MAX} range queries are open")
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

impl ResourceLimiter for Sandbox {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > self.memory_bytes_max {
            return Err(Bound::Memory { asked: desired, limit: self.memory_bytes_max }.into());
        }
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS_MAX {
            return Err(Bound::Table { asked: desired, limit: TABLE_ELEMENTS_MAX }.into());
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        INSTANCES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_have_sizes_and_the_text_says_which() {
        assert_eq!(check_sizes("key", VALUE_BYTES_MAX), Ok(()));
        assert_eq!(
            check_sizes("key", VALUE_BYTES_MAX + 1).unwrap_err(),
            "the value of key \"key\" has 33554433 bytes, and may have 33554432"
        );
        assert_eq!(
            check_sizes(&"k".repeat(KEY_BYTES_MAX + 1), 0).unwrap_err(),
            "the key has 16385 bytes, and may have 16384"
        );
        assert!(check_sizes("", 1).is_err());
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let mut text = "aé".to_owned();
        truncate(&mut text, 2);
        assert_eq!(text, "a…");
    }
}
