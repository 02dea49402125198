//! The inside of an execution: what an instance has, and what each of its calls costs.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;

use super::failure::{Bound, Broken};
use super::host::{Callee, Host, HostError, Modifications, RangeHandle};
use super::limits::Allowance;
use super::runtime::{Event, Execution, Runner};

use self::bindings::consort::chaincode::types::{KeyValue, Response};

pub(super) mod bindings {
    //! Generated from the WIT package, which documents it.
    #![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code")]
    wasmtime::component::bindgen!({
        path: "../chaincode-sdk/wit",
        world: "chaincode",
        imports: { default: trappable },
        with: {
            "consort:chaincode/state.range-cursor": super::Cursor,
            "consort:chaincode/state.history-cursor": super::HistoryCursor,
            "consort:chaincode/private-data.range-cursor": super::PrivateCursor,
        },
    });
}

/// Fuel of a call of the host besides its bytes: about what it takes in nanoseconds, the record of a read or write included. A quarter
/// of a million calls are thus the most of one transaction with the default fuel.
const CALL_FUEL: u64 = 8192;
/// Fuel of each byte that crosses the border: it is copied, hashed, signed and sent to every peer.
const BYTE_FUEL: u64 = 4;
/// Fuel of a call of another chaincode: an instance is made for it. Some two thousand are the most with the default fuel.
pub(super) const CALLEE_FUEL: u64 = 1 << 20;
/// Fuel of each result of a query besides its bytes: the record of having read it.
const RESULT_FUEL: u64 = 512;
/// Largest value. An orderer refuses transactions of this size long before.
const VALUE_BYTES_MAX: usize = 32 << 20;
/// Longest key. Fabric has no limit; a longer key is a mistake and would sit in every index.
const KEY_BYTES_MAX: usize = 16 << 10;
/// Queries that one chaincode may have open.
const CURSORS_MAX: usize = 1024;
/// Linear memories and instances, as the pool has them.
const INSTANCES_MAX: usize = 16;
/// Names that a chaincode cannot call.
const SYSTEM_CHAINCODES: [&str; 6] = ["_lifecycle", "lscc", "cscc", "qscc", "escc", "vscc"];

/// What all chaincodes of one transaction have in common.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// Set when the wall-clock limit has passed.
    pub(super) expired: AtomicBool,
}

/// A range over public keys.
#[expect(unreachable_pub, reason = "the generated bindings export it again, within this private module")]
pub struct Cursor(pub(super) RangeHandle);
/// A range over private keys.
#[expect(unreachable_pub, reason = "the generated bindings export it again, within this private module")]
pub struct PrivateCursor(pub(super) RangeHandle);
/// The changes of a key.
#[expect(unreachable_pub, reason = "the generated bindings export it again, within this private module")]
pub struct HistoryCursor(pub(super) Modifications);

/// Where an execution stands in a chain of calls, and what it may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    /// What the definition grants; fuel and call depth are those of the outermost chaincode.
    pub(super) allowance: Allowance,
    /// Memory that this peer is set to give at most.
    pub(super) memory_ceiling: usize,
    /// Callers above.
    pub(super) depth: usize,
    /// Fuel that is left of the transaction's.
    pub(super) fuel: u64,
}

/// The data of one instance.
pub(super) struct Sandbox {
    /// The chaincode's name: the namespace of its keys.
    pub(super) chaincode: String,
    pub(super) host: Arc<dyn Host>,
    runner: Runner,
    budget: Arc<Budget>,
    frame: Frame,
    /// Function and arguments.
    pub(super) arguments: Arc<Vec<Bytes>>,
    pub(super) table: ResourceTable,
    /// Fuel that the present host call costs and that was not yet taken from the store's.
    owed: u64,
    /// The present memory, in bytes; it never shrinks.
    memory_bytes: usize,
    /// The most memory so far of this chaincode and the ones that it called together, in bytes.
    pub(super) memory_bytes_max: usize,
    /// The event that was set last.
    pub(super) event: Option<Event>,
    /// The message of a panic.
    pub(super) panic: Option<String>,
}

/// A result for the chaincode, or the end of the execution.
pub(super) type Answer<T> = wasmtime::Result<Result<T, String>>;

impl Sandbox {
    pub(super) fn new(
        chaincode: &str,
        arguments: Arc<Vec<Bytes>>,
        host: Arc<dyn Host>,
        runner: Runner,
        budget: Arc<Budget>,
        frame: Frame,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(CURSORS_MAX);
        Self {
            chaincode: chaincode.to_owned(),
            host,
            runner,
            budget,
            frame,
            arguments,
            table,
            owed: 0,
            memory_bytes: 0,
            memory_bytes_max: 0,
            event: None,
            panic: None,
        }
    }

    /// Begins a host call with what the store has left.
    pub(super) fn resume(&mut self, left: u64) {
        self.frame.fuel = left;
    }

    /// Charges a call and the bytes that it moves. A call that costs more than is left ends the execution before its work is done.
    pub(super) fn charge(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.owe(CALL_FUEL.saturating_add((bytes as u64).saturating_mul(BYTE_FUEL)))
    }

    pub(super) fn owe(&mut self, fuel: u64) -> wasmtime::Result<()> {
        self.owed = self.owed.saturating_add(fuel);
        if self.owed > self.frame.fuel { Err(Bound::Fuel.into()) } else { Ok(()) }
    }

    /// Takes what is owed from what the store has left.
    pub(super) fn settle(&mut self, left: u64) -> Result<u64, Bound> {
        let owed = std::mem::take(&mut self.owed);
        self.frame.fuel = left.checked_sub(owed).ok_or(Bound::Fuel)?;
        Ok(self.frame.fuel)
    }

    pub(super) fn answer<T>(result: Result<T, HostError>) -> Answer<T> {
        match result {
            Ok(value) => Ok(Ok(value)),
            Err(HostError::Refused(text)) => Ok(Err(text)),
            Err(HostError::Broken(text)) => Err(Broken(text).into()),
        }
    }

    /// Passes a read on, with its costs.
    pub(super) fn read(
        &mut self,
        key: &str,
        read: impl FnOnce(&dyn Host, &str) -> Result<Option<Bytes>, HostError>,
    ) -> Answer<Option<Vec<u8>>> {
        self.charge(key.len())?;
        let value = match Self::answer(read(self.host.as_ref(), &self.chaincode))? {
            Ok(value) => value,
            Err(text) => return Ok(Err(text)),
        };
        self.owe(BYTE_FUEL.saturating_mul(value.as_ref().map_or(0, Bytes::len) as u64))?;
        Ok(Ok(value.map(|value| value.to_vec())))
    }

    /// Passes the read of several keys on, with its costs: those of one call, and of each result.
    pub(super) fn read_many(
        &mut self,
        keys: &[String],
        read: impl FnOnce(&dyn Host, &str) -> Result<Vec<Option<Bytes>>, HostError>,
    ) -> Answer<Vec<Option<Vec<u8>>>> {
        self.charge(keys.iter().map(String::len).sum())?;
        self.owe(CALL_FUEL.saturating_mul(keys.len() as u64) / 4)?;
        let values = match Self::answer(read(self.host.as_ref(), &self.chaincode))? {
            Ok(values) => values,
            Err(text) => return Ok(Err(text)),
        };
        let bytes: usize = values.iter().flatten().map(Bytes::len).sum();
        self.owe(BYTE_FUEL.saturating_mul(bytes as u64))?;
        Ok(Ok(values.into_iter().map(|value| value.map(|value| value.to_vec())).collect()))
    }

    /// Passes a write on, with its costs and limits.
    pub(super) fn write(
        &mut self,
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

    pub(super) fn batch(&mut self, range: RangeHandle) -> Answer<Vec<KeyValue>> {
        self.charge(0)?;
        match Self::answer(self.host.range_next(range))? {
            Ok(pairs) => self.pairs(pairs).map(Ok),
            Err(text) => Ok(Err(text)),
        }
    }

    /// Charges the results of a query and hands them over.
    pub(super) fn pairs(&mut self, pairs: Vec<(String, Bytes)>) -> wasmtime::Result<Vec<KeyValue>> {
        let bytes: usize = pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
        self.owe(RESULT_FUEL.saturating_mul(pairs.len() as u64))?;
        self.owe(BYTE_FUEL.saturating_mul(bytes as u64))?;
        Ok(pairs.into_iter().map(|(key, value)| KeyValue { key, value: value.to_vec() }).collect())
    }

    /// Calls another chaincode, which burns of `fuel`.
    pub(super) fn call(
        &mut self,
        name: &str,
        arguments: Vec<Vec<u8>>,
        channel: &str,
        fuel: &mut u64,
    ) -> Answer<Response> {
        if SYSTEM_CHAINCODES.contains(&name) {
            return Ok(Err(format!("system chaincode {name} cannot be called from another chaincode")));
        }
        let call_depth = self.frame.allowance.call_depth;
        if self.frame.depth + 1 >= call_depth as usize {
            return Ok(Err(format!("chaincodes call each other more than {call_depth} deep")));
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
        let Callee { package, allowance } = match Self::answer(host.callee(&self.chaincode, name))? {
            Ok(callee) => callee,
            Err(text) => return Ok(Err(text)),
        };
        let outermost = self.frame.allowance;
        let frame = Frame {
            allowance: Allowance { fuel: outermost.fuel, call_depth: outermost.call_depth, ..allowance },
            memory_ceiling: self.frame.memory_ceiling,
            depth: self.frame.depth + 1,
            fuel: *fuel,
        };
        let arguments = arguments.into_iter().map(Bytes::from).collect();
        let called = self.runner.call(name, &package, arguments, host, &self.budget, frame);
        // The event of a called chaincode is dropped: a transaction has the event of its outermost chaincode.
        let (Execution { response, usage, .. }, left) = called?;
        *fuel = left;
        self.memory_bytes_max =
            self.memory_bytes_max.max(self.memory_bytes.saturating_add(usage.memory_bytes));
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

pub(super) fn too_many_cursors() -> String {
    format!("more than {CURSORS_MAX} queries are open")
}

impl ResourceLimiter for Sandbox {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // The module's own maximum: the instruction answers -1, everywhere alike.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let limit = usize::try_from(self.frame.allowance.memory_bytes).unwrap_or(usize::MAX);
        if desired > limit {
            return Err(Bound::Memory { asked: desired, limit }.into());
        }
        let ceiling = self.frame.memory_ceiling;
        if desired > ceiling {
            return Err(Broken(format!(
                "chaincode {} may have {limit} bytes of memory, and this peer's configuration gives {ceiling} \
                 (chaincode.memory_max_bytes)",
                self.chaincode
            ))
            .into());
        }
        self.memory_bytes = self.memory_bytes.max(desired);
        self.memory_bytes_max = self.memory_bytes_max.max(desired);
        Ok(true)
    }

    /// What was allowed and still fails is refused by the system. The chaincode must not see it, or it could go on differently here.
    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(Broken(format!("this peer has no memory left for chaincode {}: {error:#}", self.chaincode))
            .into())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let limit = self.frame.allowance.table_elements as usize;
        if desired > limit {
            return Err(Bound::Table { asked: desired, limit }.into());
        }
        Ok(maximum.is_none_or(|maximum| desired <= maximum))
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(Broken(format!("this peer has no table for chaincode {}: {error:#}", self.chaincode)).into())
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
}
