//! What the chaincode tests share: a ledger in memory, packages, and components.

#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "shared by tests and a benchmark, each of which uses some of it"
)]

#[path = "../../../cli/src/chaincode/build.rs"]
pub mod build;
pub mod memory;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use consort_chaincode_runtime::{
    Allowance, ChaincodeRuntime, Execution, Host, Invocation, Limits, PackageId, PackageStore, RuntimeError,
    WasmRuntime,
};

/// A runtime with its folders, which go with it.
pub struct Runtime {
    pub runtime: WasmRuntime,
    /// As much as the runtime gives at most.
    pub allowance: Allowance,
    pub folder: tempfile::TempDir,
}

/// Limits that a test reaches quickly.
pub fn small_limits() -> Limits {
    Limits { fuel_max: 50_000_000, memory_bytes_max: 16 << 20, instances_max: 4, ..Limits::default() }
}

impl Runtime {
    pub fn new(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = open(folder.path(), limits);
        Self { runtime, allowance: allowance(limits), folder }
    }

    pub fn install(&self, label: &str, component: &[u8]) -> PackageId {
        self.runtime.install(package(label, component)).unwrap()
    }

    pub async fn invoke(
        &self,
        chaincode: &str,
        package: &PackageId,
        host: Arc<dyn Host>,
        arguments: &[&str],
    ) -> Result<Execution, RuntimeError> {
        self.runtime.invoke(self.invocation(chaincode, package, host, arguments)).await
    }

    pub fn invocation(
        &self,
        chaincode: &str,
        package: &PackageId,
        host: Arc<dyn Host>,
        arguments: &[&str],
    ) -> Invocation {
        let arguments =
            arguments.iter().map(|argument| Bytes::copy_from_slice(argument.as_bytes())).collect();
        Invocation {
            chaincode: chaincode.to_owned(),
            package: package.clone(),
            arguments,
            is_init: false,
            allowance: self.allowance,
            host,
        }
    }
}

pub fn allowance(limits: Limits) -> Allowance {
    Allowance { fuel: limits.fuel_max, memory_bytes: limits.memory_bytes_max as u64, ..Allowance::default() }
}

pub fn open(folder: &Path, limits: Limits) -> WasmRuntime {
    let packages = Arc::new(PackageStore::open(&folder.join("packages"), 64 << 20).unwrap());
    WasmRuntime::new(packages, &folder.join("compiled"), limits).unwrap()
}

/// An installable package.
pub fn package(label: &str, component: &[u8]) -> Bytes {
    consort_chaincode_runtime::package::pack(label, component).unwrap().into()
}

/// The component of the example chaincode, built once per test process; `None` with the reason on stderr if this machine has no compiler
/// for it.
pub fn basic() -> Option<&'static [u8]> {
    static BASIC: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../chaincode-sdk/examples/basic");
    BASIC.get_or_init(|| build_chaincode(&example)).as_deref()
}

/// The component of a crate; `None` with the reason on stderr if this machine has no compiler for it.
pub fn build_chaincode(folder: &Path) -> Option<Vec<u8>> {
    if let Err(reason) = build::Toolchain::detect(folder) {
        eprintln!("skipped, because the chaincode cannot be built here: {reason}");
        return None;
    }
    Some(build::build(folder, Some(&target_dir())).unwrap())
}

/// A folder of its own, so that this build does not wait for the one that runs the test.
fn target_dir() -> PathBuf {
    let shared = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    shared.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target")).join("chaincode")
}

/// A chaincode in WebAssembly text: the body of its `invoke`, which gets the invocation's address and size as parameters and leaves the
/// address of a response.
pub fn component(extra: &str, body: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
            (type $types (instance
                (type $response (record (field "status" u32) (field "message" string) (field "payload" (list u8))))
                (export "response" (type (eq $response)))
                (type $invocation (record (field "arguments" (list (list u8))) (field "is-init" bool)))
                (export "invocation" (type (eq $invocation)))
            ))
            (import "consort:chaincode/types@1.0.0" (instance $t (type $types)))
            (alias export $t "response" (type $response))
            (alias export $t "invocation" (type $invocation))
            (core module $m
                (memory (export "memory") 1)
                (global $next (mut i32) (i32.const 4096))
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                    (local $at i32)
                    global.get $next local.set $at
                    global.get $next local.get 3 i32.add i32.const 15 i32.add i32.const -16 i32.and global.set $next
                    local.get $at)
                {extra}
                (func $invoke_body (export "invoke") (param i32 i32 i32) (result i32) {body})
            )
            (core instance $i (instantiate $m))
            (func (export "invoke") (param "invocation" $invocation) (result $response)
                (canon lift (core func $i "invoke") (memory (core memory $i "memory")) (realloc (core func $i "cabi_realloc"))))
        )"#
    );
    wat::parse_str(text).unwrap()
}

/// A chaincode in WebAssembly text that can call other ones: `(call $to name size)` calls the chaincode whose name is at this address. The
/// names `other` and `third`, of five bytes each, are at the addresses 16 and 32.
pub fn calling(extra: &str, body: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
            (type $types (instance
                (type $response (record (field "status" u32) (field "message" string) (field "payload" (list u8))))
                (export "response" (type $named (eq $response)))
                (type $invocation (record (field "arguments" (list (list u8))) (field "is-init" bool)))
                (export "invocation" (type (eq $invocation)))
            ))
            (import "consort:chaincode/types@1.0.0" (instance $t (type $types)))
            (alias export $t "response" (type $response))
            (alias export $t "invocation" (type $invocation))
            (type $transaction (instance
                (alias outer 1 $response (type $r))
                (export "response" (type $response (eq $r)))
                (export "invoke-chaincode" (func
                    (param "name" string) (param "arguments" (list (list u8))) (param "channel" string)
                    (result (result $response (error string)))))
            ))
            (import "consort:chaincode/transaction@1.0.0" (instance $x (type $transaction)))
            (core module $memory
                (memory (export "memory") 1)
                (global $next (export "next") (mut i32) (i32.const 4096))
                (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                    (local $at i32)
                    global.get $next local.set $at
                    global.get $next local.get 3 i32.add i32.const 15 i32.add i32.const -16 i32.and global.set $next
                    local.get $at))
            (core instance $mem (instantiate $memory))
            (core func $call (canon lower (func $x "invoke-chaincode")
                (memory (core memory $mem "memory")) (realloc (core func $mem "realloc"))))
            (core module $code
                (import "mem" "memory" (memory 1))
                (import "mem" "next" (global $next (mut i32)))
                (import "host" "call" (func $call (param i32 i32 i32 i32 i32 i32 i32)))
                (data (i32.const 16) "other")
                (data (i32.const 32) "third")
                (func $to (param i32 i32)
                    (global.set $next (i32.const 4096))
                    (call $call (local.get 0) (local.get 1) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                        (i32.const 128)))
                {extra}
                (func (export "invoke") (param i32 i32 i32) (result i32) (local $i i32)
                    {body}
                    (i32.store (i32.const 64) (i32.const 200))
                    i32.const 64))
            (core instance $run (instantiate $code
                (with "mem" (instance $mem)) (with "host" (instance (export "call" (func $call))))))
            (func (export "invoke") (param "invocation" $invocation) (result $response)
                (canon lift (core func $run "invoke")
                    (memory (core memory $mem "memory")) (realloc (core func $mem "realloc"))))
        )"#
    );
    wat::parse_str(text).unwrap()
}

/// A chaincode in WebAssembly text that can write: `(call $put key-address key-size value-address value-size)` leaves 0, or 1 when the ledger
/// refuses; `(call $refused)` then answers with the ledger's words. The key `key` is at address 16.
pub fn writing(extra: &str, body: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
            (type $types (instance
                (type $response (record (field "status" u32) (field "message" string) (field "payload" (list u8))))
                (export "response" (type $named (eq $response)))
                (type $invocation (record (field "arguments" (list (list u8))) (field "is-init" bool)))
                (export "invocation" (type (eq $invocation)))
            ))
            (import "consort:chaincode/types@1.0.0" (instance $t (type $types)))
            (alias export $t "response" (type $response))
            (alias export $t "invocation" (type $invocation))
            (type $state (instance
                (export "put" (func (param "key" string) (param "value" (list u8)) (result (result (error string)))))
            ))
            (import "consort:chaincode/state@1.0.0" (instance $s (type $state)))
            (core module $memory
                (memory (export "memory") 1)
                (global $next (export "next") (mut i32) (i32.const 4096))
                (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                    (local $at i32)
                    global.get $next local.set $at
                    global.get $next local.get 3 i32.add i32.const 15 i32.add i32.const -16 i32.and global.set $next
                    local.get $at))
            (core instance $mem (instantiate $memory))
            (core func $put (canon lower (func $s "put")
                (memory (core memory $mem "memory")) (realloc (core func $mem "realloc"))))
            (core module $code
                (import "mem" "memory" (memory 1))
                (import "mem" "next" (global $next (mut i32)))
                (import "host" "put" (func $host (param i32 i32 i32 i32 i32)))
                (data (i32.const 16) "key")
                (func $put (param i32 i32 i32 i32) (result i32)
                    (call $host (local.get 0) (local.get 1) (local.get 2) (local.get 3) (i32.const 128))
                    (i32.load8_u (i32.const 128)))
                (func $refused
                    (i32.store (i32.const 64) (i32.const 500))
                    (i32.store (i32.const 68) (i32.load (i32.const 132)))
                    (i32.store (i32.const 72) (i32.load (i32.const 136))))
                {extra}
                (func (export "invoke") (param i32 i32 i32) (result i32) (local $i i32)
                    (i32.store (i32.const 64) (i32.const 200))
                    {body}
                    i32.const 64))
            (core instance $run (instantiate $code
                (with "mem" (instance $mem)) (with "host" (instance (export "put" (func $put))))))
            (func (export "invoke") (param "invocation" $invocation) (result $response)
                (canon lift (core func $run "invoke")
                    (memory (core memory $mem "memory")) (realloc (core func $mem "realloc"))))
        )"#
    );
    wat::parse_str(text).unwrap()
}
