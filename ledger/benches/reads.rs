//! Point reads from a large state: random keys, one core, through a snapshot as chaincode reads them, and many at once as a block's
//! version check does; beside them the same reads of the same files by RocksDB alone, without anything of ours, and what a look-up
//! in a hash table with a copy of as many bytes costs in the same run.
//!
//! The state is read once before, so that the operating system has it in memory. RocksDB alone is measured as the books use it, and
//! once more with a cache of its own that holds the whole state. `CONSORT_BENCH_KEYS` sets how many keys there are (10000000).

#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]

use std::{collections::HashMap, hint::black_box, path::Path, sync::Arc, time::Instant};

use consort_bench::Figure;
use consort_ledger::{
    StateSnapshot,
    state::{KeyRange, RocksState, Space, StateKey, StateReader as _, VersionedValue},
};
use consort_protos::ids::Height;
use rocksdb::{BlockBasedOptions, Cache, DB, Options};

/// Keys of the default run.
const KEYS: u64 = 10_000_000;
/// Keys of the hash table: enough that it does not fit into a processor's cache.
const TABLE_KEYS: u64 = 1_000_000;
/// Bytes of a value.
const VALUE_BYTES: usize = 100;
/// Processor time that each measurement takes, in seconds.
const SECONDS: f64 = 3.0;
/// Keys that are read at a time where several are: a block of a busy channel.
const AT_ONCE: usize = 500;
/// Bytes of cache for a key where the cache holds all of them: key, value, version, and the page's and the cache's own.
const CACHED_BYTES: u64 = 200;

fn main() {
    // `cargo test --benches` runs this with --test: then it only has to build.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let keys = std::env::var("CONSORT_BENCH_KEYS").ok().map_or(KEYS, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), keys);
    println!("point reads per second of processor time from {keys} keys");
    let (single, many) = read(folder.path(), keys);
    row("one at a time", single, "(wanted: at least 300000 from 10 million keys)");
    row(&format!("{AT_ONCE} at once"), many, "");
    row("memory of the process in MB", resident_megabytes(), "");
    let (alone, alone_many) = raw(folder.path(), keys, 0);
    row("RocksDB alone, one at a time", alone, "");
    row("  one at a time relative to it", single / alone, "");
    row(&format!("RocksDB alone, {AT_ONCE} at once"), alone_many, "");
    row(&format!("  {AT_ONCE} at once relative to it"), many / alone_many, "");
    let cache = usize::try_from(keys * CACHED_BYTES).unwrap();
    let (cached, cached_many) = raw(folder.path(), keys, cache);
    row("RocksDB alone with a cache for all keys, one at a time", cached, "");
    row(&format!("RocksDB alone with a cache for all keys, {AT_ONCE} at once"), cached_many, "");
    let table = hash_table(TABLE_KEYS.min(keys));
    row("look-ups in a hash table with copies of the values", table, "");
    row("  one at a time relative to them", single / table, "");
    let figure = Figure::new(format!("point reads from {} million keys", keys / 1_000_000), single, "/s");
    figure.at_least(300_000.0).limit("look-ups in a hash table", table).record();
}

fn row(name: &str, value: f64, note: &str) {
    println!("  {name:<60} {value:>12.2} {note}");
}

fn fill(folder: &Path, keys: u64) {
    let state = RocksState::open(folder).unwrap();
    let started = Instant::now();
    let entries = (0..keys).map(|index| {
        let value = VersionedValue { value: value(index), metadata: "".into(), version: Height::new(1, 0) };
        (StateKey::public("bench", &name(index)), value)
    });
    state.fill(entries, Height::new(1, 0)).unwrap();
    println!("{keys} keys written in {:.1} s", started.elapsed().as_secs_f64());
}

/// Reads per second: one at a time, many at once.
fn read(folder: &Path, keys: u64) -> (f64, f64) {
    let snapshot = StateSnapshot::of(Arc::new(RocksState::open(folder).unwrap()));
    assert_eq!(snapshot.scan(&KeyRange::all(Space::Public)).unwrap().count() as u64, keys);
    let mut next = random(keys);
    let single = rate(1, || assert!(snapshot.get("bench", &name(next())).unwrap().is_some()));
    row(
        "keys that are not there, one at a time",
        rate(1, || {
            assert!(snapshot.get("bench", &(name(next()) + "-")).unwrap().is_none());
        }),
        "",
    );
    let many = rate(AT_ONCE, || {
        let mut wanted: Vec<_> = (0..AT_ONCE).map(|_| StateKey::public("bench", &name(next()))).collect();
        wanted.sort_unstable();
        wanted.dedup();
        assert!(snapshot.read(&wanted).unwrap().iter().all(Option::is_some));
    });
    (single, many)
}

/// The same reads by RocksDB alone: one at a time, many at once.
fn raw(folder: &Path, keys: u64, cache: usize) -> (f64, f64) {
    let mut tables = BlockBasedOptions::default();
    if cache > 0 {
        tables.set_block_cache(&Cache::new_hyper_clock_cache(cache, 0));
    } else {
        tables.disable_cache();
    }
    let mut options = Options::default();
    options.set_block_based_table_factory(&tables);
    let columns = DB::list_cf(&options, folder).unwrap();
    let opened = columns.iter().map(|name| (name.as_str(), options.clone()));
    let db = DB::open_cf_with_opts_for_read_only(&options, folder, opened, false).unwrap();
    let column = db.cf_handle("state").unwrap();
    assert_eq!(db.iterator_cf(column, rocksdb::IteratorMode::Start).count() as u64, keys);
    let mut next = random(keys);
    let single = rate(1, || assert!(db.get_pinned_cf(column, stored_name(next())).unwrap().is_some()));
    let many = rate(AT_ONCE, || {
        let mut wanted: Vec<_> = (0..AT_ONCE).map(|_| stored_name(next())).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let found = db.batched_multi_get_cf(column, &wanted, true);
        assert!(found.into_iter().all(|value| value.unwrap().is_some()));
    });
    (single, many)
}

/// How often something is done per second of processor time, where one call does it several times.
fn rate(times: usize, mut call: impl FnMut()) -> f64 {
    let calls = 1_000_usize.div_ceil(times);
    let started = processor_seconds();
    let mut done = 0.0;
    while processor_seconds() - started < SECONDS {
        for _ in 0..calls {
            call();
        }
        done += (calls * times) as f64;
    }
    done / (processor_seconds() - started)
}

/// Look-ups per second in a hash table whose values are copied out.
fn hash_table(keys: u64) -> f64 {
    let table: HashMap<String, Vec<u8>> =
        (0..keys).map(|index| (name(index), value(index).to_vec())).collect();
    let mut next = random(keys);
    rate(1, || drop(black_box(table[&name(next())].clone())))
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

/// `account` and ten digits, put together by hand: formatting would cost a twentieth of a read.
fn name(index: u64) -> String {
    let mut text = *b"account0000000000";
    let (mut rest, mut place) = (index, text.len());
    while rest > 0 {
        place -= 1;
        text[place] = b'0' + u8::try_from(rest % 10).unwrap();
        rest /= 10;
    }
    std::str::from_utf8(&text).unwrap().to_owned()
}

/// The name as the state stores it.
fn stored_name(index: u64) -> Vec<u8> {
    StateKey::public("bench", &name(index)).as_bytes().to_vec()
}

/// Hexadecimal digits that no compression makes much smaller.
fn value(index: u64) -> bytes::Bytes {
    let mut state = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut digit = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b"0123456789abcdef"[(state >> 60) as usize]
    };
    (0..VALUE_BYTES).map(|_| digit()).collect()
}
