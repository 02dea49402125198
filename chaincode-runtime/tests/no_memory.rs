//! A system that gives no more memory. Alone in its program, because the limit is the whole process's.

#![allow(clippy::unwrap_used, reason = "a test stops where something is wrong")]

mod parts;

use std::sync::Arc;

use consort_chaincode_runtime::{Limits, RuntimeError};
use parts::memory::memory_host;
use parts::{Runtime, component, small_limits};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Writable memory of this process, in bytes.
fn data_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn memory_that_the_system_refuses_is_this_peers_failure_and_not_the_chaincodes() {
    let runtime = Runtime::new(Limits { memory_bytes_max: 256 << 20, ..small_limits() });
    // Goes on without memory, as a chaincode could, and would then answer differently from other peers.
    let storm = component(
        "",
        "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
         (i32.store (i32.const 64) (i32.const 200)) (i32.const 64)",
    );
    let package = runtime.install("storm", &storm);
    // Starts the thread of the executions: its stack, too, is memory that the system could refuse.
    let quick = component("", "(i32.store (i32.const 64) (i32.const 200)) (i32.const 64)");
    let quick = runtime.install("quick", &quick);
    runtime.invoke("quick", &quick, Arc::new(memory_host()), &["Run"]).await.unwrap();
    let call = async || runtime.invoke("storm", &package, Arc::new(memory_host()), &["Run"]).await;
    let before = getrlimit(Resource::Data);
    setrlimit(Resource::Data, Rlimit { current: Some(data_bytes() + (48 << 20)), maximum: before.maximum })
        .unwrap();
    let refused = call().await;
    setrlimit(Resource::Data, before).unwrap();
    let error = refused.unwrap_err();
    assert!(matches!(&error, RuntimeError::Broken(text) if text.contains("no memory left")), "{error}");
    // With memory, the definition's limit is reached.
    assert!(call().await.unwrap().response.message.contains("may have 268435456"));
}
