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
use consort_chaincode_runtime::{Limits, PackageId, PackageStore, THREAD_STACK_BYTES, WasmRuntime};
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
    // The name of one measurement is an argument for people who look into it.
    let only = std::env::args().nth(1).filter(|name| !name.starts_with('-'));
    let wanted = |name: &str| only.as_ref().is_none_or(|only| only == name);
    if wanted("put") {
        one_key(&code);
    }
    if wanted("throughput") {
        throughput(&code);
    }
    if wanted("hashing") {
        hashing(&code);
    }
    if wanted("start") {
        start_up();
    }
}

/// Mean times of a step.
#[derive(Clone, Copy)]
struct Mean {
    wall: Duration,
    /// Of all threads of this process.
    processor: Duration,
}

/// Mean times of a step, after a few to warm up.
fn mean(mut step: impl FnMut()) -> Mean {
    for _ in 0..20 {
        step();
    }
    let (began, used, mut runs) = (Instant::now(), processor_time(), 0);
    while began.elapsed() < WINDOW {
        step();
        runs += 1;
    }
    Mean { wall: began.elapsed() / runs, processor: (processor_time() - used) / runs }
}

/// Processor time that this process has used (proc(5), `/proc/self/stat`: fields 14 and 15, in ticks of 10 ms).
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = text.rsplit_once(") ").unwrap();
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second()).unwrap()
}

/// The means of a step in a thread that has room for the deepest calls.
fn mean_in_thread(step: impl FnMut() + Send) -> Mean {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(THREAD_STACK_BYTES);
        thread.spawn_scoped(scope, || mean(step)).unwrap().join().unwrap()
    })
}

fn executor(threads: usize) -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap()
}

fn installed(code: &[u8]) -> (Runtime, PackageId) {
    let runtime = Runtime::new(Limits { instances_max: 8, ..Limits::default() });
    let package = runtime.install("work", code);
    (runtime, package)
}

/// One key written, beside the same natively. What counts is processor time: on a machine with other work, and with two threads that wait
/// for each other, the clock on the wall says less.
fn one_key(code: &[u8]) {
    let (runtime, package) = installed(code);
    let executor = executor(1);
    let ledger = MemoryLedger::new();
    let native = mean(|| {
        ledger.simulate(&hashing::chaincode(), "Put", &["key", "value"]).unwrap();
    });
    let in_place = mean_in_thread(|| {
        let invocation =
            runtime.invocation("work", &package, Arc::new(memory_host()), &["Put", "key", "value"]);
        assert_eq!(runtime.runtime.execute(invocation).unwrap().response.status, 200);
    });
    let handed_over = mean(|| {
        let host = Arc::new(memory_host());
        let execution = executor.block_on(runtime.invoke("work", &package, host, &["Put", "key", "value"]));
        assert_eq!(execution.unwrap().response.status, 200);
    });
    for (what, taken) in [("in the calling thread", in_place), ("handed to a thread and back", handed_over)] {
        let besides = micros(taken.processor) - micros(native.processor);
        let figure = Figure::new(format!("put on one key {what}, processor besides native"), besides, "us");
        figure.at_most(30.0).limit("native", micros(native.processor)).record();
        println!(
            "put on one key, {what}: {besides:.1} us of processor besides {:.1} us native (wanted: at most 30), {:.1} us on the wall",
            micros(native.processor),
            micros(taken.wall)
        );
    }
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
    let figure = Figure::new("SHA-256 of 1 MB in the sandbox", micros(sandbox.processor) / 1e3, "ms");
    figure
        .at_most(2.0 * micros(native.processor) / 1e3)
        .limit("native", micros(native.processor) / 1e3)
        .record();
    println!(
        "SHA-256 of 1 MB: sandbox {:.2} ms, native {:.2} ms, ratio {:.2} (wanted: at most 2)",
        micros(sandbox.processor) / 1000.0,
        micros(native.processor) / 1000.0,
        sandbox.processor.as_secs_f64() / native.processor.as_secs_f64()
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
