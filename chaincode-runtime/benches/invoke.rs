//! What the sandbox costs, each figure beside the same work done natively in the same run.

#![allow(
    clippy::unwrap_used,
    unused_imports,
    reason = "a benchmark stops where a test would, and shares its parts with tests that are not compiled here"
)]

#[path = "../tests/parts/mod.rs"]
mod parts;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use consort_bench::Figure;
use consort_chaincode_runtime::{Limits, PackageId, PackageStore, WasmRuntime};
use consort_chaincode_sdk::testing::MemoryLedger;
use parts::memory::memory_host;
use parts::{Runtime, build_chaincode, component, package};

/// How long each measurement runs.
const WINDOW: Duration = Duration::from_secs(3);
/// Packages in the start-up measurement.
const PACKAGES: usize = 1000;
/// Bytes that are hashed.
const HASHED: &str = "1048576";

fn main() {
    // Cargo's own arguments, such as --bench, do not change anything.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/hashing");
    let Some(code) = build_chaincode(&folder) else { return };
    one_key(&code);
    throughput(&code);
    hashing(&code);
    start_up();
}

/// Mean time of a step, after a few to warm up.
fn mean(mut step: impl FnMut()) -> Duration {
    for _ in 0..20 {
        step();
    }
    let (began, mut runs) = (Instant::now(), 0);
    while began.elapsed() < WINDOW {
        step();
        runs += 1;
    }
    began.elapsed() / runs
}

fn executor(threads: usize) -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap()
}

fn installed(code: &[u8]) -> (Runtime, PackageId) {
    let runtime = Runtime::new(Limits { instances_max: 8, ..Limits::default() });
    let package = runtime.install("work", code);
    (runtime, package)
}

fn one_key(code: &[u8]) {
    let (runtime, package) = installed(code);
    let executor = executor(1);
    let sandbox = mean(|| {
        let execution = executor.block_on(runtime.invoke(
            "work",
            &package,
            Arc::new(memory_host()),
            &["Put", "key", "value"],
        ));
        assert_eq!(execution.unwrap().response.status, 200);
    });
    let ledger = MemoryLedger::new();
    let native = mean(|| {
        ledger.simulate(&hashing::chaincode(), "Put", &["key", "value"]).unwrap();
    });
    let figure =
        Figure::new("put on one key in the sandbox, besides native", micros(sandbox) - micros(native), "us");
    figure.at_most(30.0).limit("native", micros(native)).record();
    println!(
        "put on one key: sandbox {:.1} us, native {:.1} us, difference {:.1} us (wanted: at most 30)",
        micros(sandbox),
        micros(native),
        micros(sandbox) - micros(native)
    );
}

fn throughput(code: &[u8]) {
    let (runtime, package) = installed(code);
    let (runtime, executor) = (Arc::new(runtime), executor(2));
    let done = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    executor.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (runtime, package, done) = (Arc::clone(&runtime), package.clone(), Arc::clone(&done));
            tasks.spawn(async move {
                while began.elapsed() < WINDOW {
                    let host = Arc::new(memory_host());
                    let execution =
                        runtime.invoke("work", &package, host, &["Put", "key", "value"]).await.unwrap();
                    assert_eq!(execution.response.status, 200);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        tasks.join_all().await;
    });
    let rate = done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    Figure::new("invocations on two cores", rate, "/s").at_least(20_000.0).record();
    println!("invocations on two cores: {rate:.0} per second (wanted: at least 20000)");
}

fn hashing(code: &[u8]) {
    let (runtime, package) = installed(code);
    let executor = executor(1);
    let expected = MemoryLedger::new().evaluate(&hashing::chaincode(), "Hash", &[HASHED]).unwrap();
    let sandbox = mean(|| {
        let execution = executor
            .block_on(runtime.invoke("work", &package, Arc::new(memory_host()), &["Hash", HASHED]))
            .unwrap();
        assert_eq!(execution.response.payload, expected);
    });
    let native = mean(|| {
        assert_eq!(MemoryLedger::new().evaluate(&hashing::chaincode(), "Hash", &[HASHED]).unwrap(), expected);
    });
    let figure = Figure::new("SHA-256 of 1 MB in the sandbox", micros(sandbox) / 1e3, "ms");
    figure.at_most(2.0 * micros(native) / 1e3).limit("native", micros(native) / 1e3).record();
    println!(
        "SHA-256 of 1 MB: sandbox {:.2} ms, native {:.2} ms, ratio {:.2} (wanted: at most 2)",
        micros(sandbox) / 1000.0,
        micros(native) / 1000.0,
        sandbox.as_secs_f64() / native.as_secs_f64()
    );
}

/// Starting over a folder with many packages, beside an empty one. Nothing is compiled or even opened before it is called.
fn start_up() {
    let folder = tempfile::tempdir().unwrap();
    let start = |folder: &Path| {
        let began = Instant::now();
        let packages = Arc::new(PackageStore::open(&folder.join("packages"), 64 << 20).unwrap());
        let runtime = WasmRuntime::new(packages, &folder.join("compiled"), Limits::default()).unwrap();
        (began.elapsed(), runtime)
    };
    let (empty, runtime) = start(folder.path());
    let answer = "(i32.store (i32.const 64) (i32.const 200)) (i32.const 64)";
    for number in 0..PACKAGES {
        let code = component(&format!("(global i32 (i32.const {number}))"), answer);
        runtime.install(package(&format!("package_{number}"), &code)).unwrap();
    }
    drop(runtime);
    let (full, runtime) = start(folder.path());
    assert_eq!(runtime.packages().list().len(), PACKAGES);
    println!(
        "start with {PACKAGES} installed chaincodes: {:.1} ms more than with none (wanted: at most 5000)",
        (micros(full) - micros(empty)) / 1000.0
    );
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
