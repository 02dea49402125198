//! Point reads from a large state: random keys, one core, through a snapshot as chaincode reads them.
//!
//! `CONSORT_BENCH_KEYS` sets how many keys there are (1000000).

#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use consort_ledger::{
    StateSnapshot,
    state::{RocksState, StateKey, StateStore as _, VersionedValue},
};
use consort_protos::ids::Height;

/// Keys of the default run.
const KEYS: u64 = 1_000_000;
/// Keys that are written at a time.
const BATCH: u64 = 20_000;
/// How long is read.
const DURATION: Duration = Duration::from_secs(3);
/// Keys that are read at a time where several are.
const AT_ONCE: usize = 100;

fn main() {
    // `cargo test --benches` runs this with --test: then it only has to build.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let keys = std::env::var("CONSORT_BENCH_KEYS").ok().map_or(KEYS, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let state = RocksState::open(folder.path()).unwrap();
    fill(&state, keys);
    let snapshot = StateSnapshot::of(Arc::new(state));
    let rate = measure(&snapshot, keys, 1);
    println!(
        "{:<50} {rate:>12.0} reads/s on one core   (wanted: at least 300000 from 10 million keys)",
        format!("point reads from {keys} keys")
    );
    let rate = measure(&snapshot, keys, AT_ONCE);
    println!("{:<50} {rate:>12.0} reads/s on one core", format!("the same, {AT_ONCE} keys at once"));
}

fn name(index: u64) -> String {
    format!("account{index:010}")
}

fn fill(state: &RocksState, keys: u64) {
    let version = Height::new(1, 0);
    for first in (0..keys).step_by(BATCH as usize) {
        let changes: Vec<_> = (first..keys.min(first + BATCH))
            .map(|index| {
                let value = VersionedValue {
                    value: format!("{index:0100}").into(),
                    metadata: bytes::Bytes::new(),
                    version,
                };
                (StateKey::public("bench", &name(index)), Some(value))
            })
            .collect();
        state.apply(&changes, version).unwrap();
    }
}

/// Reads random keys, `at_once` in one call.
fn measure(snapshot: &StateSnapshot, keys: u64, at_once: usize) -> f64 {
    use consort_ledger::state::StateReader as _;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        // xorshift64*: any spread-out sequence will do.
        random ^= random >> 12;
        random ^= random << 25;
        random ^= random >> 27;
        random.wrapping_mul(0x2545_f491_4f6c_dd1d) % keys
    };
    let started = Instant::now();
    let mut reads = 0;
    while started.elapsed() < DURATION {
        if at_once == 1 {
            for _ in 0..100 {
                assert!(snapshot.get("bench", &name(next())).unwrap().is_some());
            }
            reads += 100;
        } else {
            let mut wanted: Vec<_> = (0..at_once).map(|_| StateKey::public("bench", &name(next()))).collect();
            wanted.sort_unstable();
            wanted.dedup();
            reads += wanted.len();
            assert!(snapshot.read(&wanted).unwrap().iter().all(Option::is_some));
        }
    }
    f64::from(u32::try_from(reads).unwrap()) / started.elapsed().as_secs_f64()
}
