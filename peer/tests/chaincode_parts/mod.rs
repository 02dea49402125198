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

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use consort_peer::chaincode::{
    ChaincodeRuntime, Execution, Host, Invocation, Limits, PackageId, PackageStore, RuntimeError, WasmRuntime,
};

/// A runtime with its folders, which go with it.
pub struct Runtime {
    pub runtime: WasmRuntime,
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
        Self { runtime, folder }
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
        let arguments =
            arguments.iter().map(|argument| Bytes::copy_from_slice(argument.as_bytes())).collect();
        let invocation = Invocation {
            chaincode: chaincode.to_owned(),
            package: package.clone(),
            arguments,
            is_init: false,
            host,
        };
        self.runtime.invoke(invocation).await
    }
}

pub fn open(folder: &Path, limits: Limits) -> WasmRuntime {
    let packages = Arc::new(PackageStore::open(&folder.join("packages"), 64 << 20).unwrap());
    WasmRuntime::new(packages, &folder.join("compiled"), limits).unwrap()
}

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    let mut encoder = tar.into_inner().unwrap();
    encoder.flush().unwrap();
    encoder.finish().unwrap()
}

/// An installable package.
pub fn package(label: &str, component: &[u8]) -> Bytes {
    let metadata = format!(r#"{{"path":"","type":"wasm","label":"{label}"}}"#);
    let code = archive(&[("chaincode.wasm", component)]);
    archive(&[("metadata.json", metadata.as_bytes()), ("code.tar.gz", &code)]).into()
}

/// The component of the example chaincode, built once per test process; `None` with the reason on stderr if this machine has no compiler
/// for it.
pub fn basic() -> Option<&'static [u8]> {
    static BASIC: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    BASIC
        .get_or_init(|| {
            let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../chaincode-sdk/examples/basic");
            if let Err(reason) = build::Toolchain::detect(&example) {
                eprintln!("skipped, because the example chaincode cannot be built here: {reason}");
                return None;
            }
            Some(build::build(&example, Some(&target_dir())).unwrap())
        })
        .as_deref()
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
