//! Point reads from a large state: random keys, one core, through a snapshot as chaincode reads them; beside them what a look-up
//! in a hash table and a copy of as many bytes cost in the same run.
//!
//! `CONSORT_BENCH_KEYS` sets how many keys there are (10000000).

#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]

use std::{collections::HashMap, hint::black_box, sync::Arc, time::Instant};

use consort_bench::Figure;
use consort_ledger::{
    StateSnapshot,
    state::{RocksState, StateKey, VersionedValue},
};
use consort_protos::ids::Height;

/// Keys of the default run.
const KEYS: u64 = 10_000_000;
/// Keys of the hash table: enough that it does not fit into a processor's cache.
const TABLE_KEYS: u64 = 1_000_000;
/// Bytes of a value.
const VALUE_BYTES: usize = 100;
/// Processor time that each measurement takes, in seconds.
const SECONDS: f64 = 3.0;
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
    let started = Instant::now();
    let entries = (0..keys).map(|index| {
        let value = format!("{index:0VALUE_BYTES$}").into();
        let value = VersionedValue { value, metadata: bytes::Bytes::new(), version: Height::new(1, 0) };
        (StateKey::public("bench", &name(index)), value)
    });
    state.fill(entries, Height::new(1, 0)).unwrap();
    println!("{keys} keys written in {:.1} s", started.elapsed().as_secs_f64());
    let snapshot = StateSnapshot::of(Arc::new(state));
    measure(&snapshot, keys, 1);
    let rate = measure(&snapshot, keys, 1);
    row(&format!("point reads from {keys} keys"), rate, "(wanted: at least 300000 from 10 million keys)");
    let many = measure(&snapshot, keys, AT_ONCE);
    row(&format!("the same, {AT_ONCE} keys at once"), many, "");
    let table = hash_table(TABLE_KEYS.min(keys));
    row("look-ups in a hash table with copies of the values", table, "");
    let figure = Figure::new(format!("point reads from {} million keys", keys / 1_000_000), rate, "/s");
    figure.at_least(300_000.0).limit("look-ups in a hash table", table).record();
    row("  point reads relative to them", rate / table, "");
    row("resident memory in MB", resident_megabytes(), "");
}

fn row(name: &str, value: f64, note: &str) {
    println!("{name:<54} {value:>12.2} {note}");
}

/// Look-ups per second in a hash table whose values are copied out.
fn hash_table(keys: u64) -> f64 {
    let value = vec![b'v'; VALUE_BYTES];
    let table: HashMap<String, Vec<u8>> = (0..keys).map(|index| (name(index), value.clone())).collect();
    let mut next = random(keys);
    let started = processor_seconds();
    let mut reads = 0_u32;
    while processor_seconds() - started < SECONDS {
        for _ in 0..1_000 {
            black_box(table[&name(next())].clone());
        }
        reads += 1_000;
    }
    f64::from(reads) / (processor_seconds() - started)
}

/// Processor time of this thread, so that what else runs on the machine counts as little as possible (proc(5), schedstat).
fn processor_seconds() -> f64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    times.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn resident_megabytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Numbers below a bound that are spread out (xorshift64*).
fn random(bound: u64) -> impl FnMut() -> u64 {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    move || {
        random ^= random >> 12;
        random ^= random << 25;
        random ^= random >> 27;
        random.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}

fn name(index: u64) -> String {
    format!("account{index:010}")
}

/// Reads random keys, `at_once` in one call.
fn measure(snapshot: &StateSnapshot, keys: u64, at_once: usize) -> f64 {
    use consort_ledger::state::StateReader as _;
    let mut next = random(keys);
    let started = processor_seconds();
    let mut reads = 0;
    while processor_seconds() - started < SECONDS {
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
    f64::from(u32::try_from(reads).unwrap()) / (processor_seconds() - started)
}
