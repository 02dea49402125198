//! What one invocation costs: a fresh instance of the example chaincode that reads and writes one key.

#![allow(
    clippy::unwrap_used,
    unused_imports,
    reason = "a benchmark stops where a test would, and shares its parts with tests that are not compiled here"
)]

#[path = "../tests/chaincode_parts/mod.rs"]
mod chaincode_parts;

use std::sync::Arc;

use chaincode_parts::memory::MemoryHost;
use chaincode_parts::{Runtime, basic};
use consort_peer::chaincode::Limits;
use criterion::{Criterion, criterion_group, criterion_main};

fn one_key_put(criterion: &mut Criterion) {
    let Some(component) = basic() else { return };
    let executor =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let runtime = Runtime::new(Limits { instances_max: 4, ..Limits::default() });
    let package = runtime.install("basic_1.0", component);
    let arguments = ["CreateAsset", "asset7", "yellow", "5", "Tom", "1300"];
    criterion.bench_function("create one asset in a fresh instance", |bencher| {
        bencher.iter(|| {
            let host = Arc::new(MemoryHost::new());
            let execution = executor.block_on(runtime.invoke("basic", &package, host, &arguments)).unwrap();
            assert_eq!(execution.response.status, 200);
        });
    });
}

criterion_group!(benches, one_key_put);
criterion_main!(benches);
