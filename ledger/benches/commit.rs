//! How long a block of 500 transactions takes: the version check alone, and the whole commit with its synced write.

#[path = "../tests/blocks/mod.rs"]
mod blocks;

use std::{fs::File, hint::black_box, io::Write as _, path::Path, time::Duration, time::Instant};

use consort_bench::Figure;
use consort_ledger::{Ledger, ValidatedBlock, mvcc};
use consort_protos::{fabric::protos::TxValidationCode, ids::BlockNumber};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Transactions in a block; a busy channel's usual batch.
const TRANSACTIONS: u64 = 500;

/// Each transaction reads and writes two keys of its own, as a transfer between accounts does.
fn transfers(ledger: &Ledger) -> ValidatedBlock {
    let number = ledger.height();
    let envelopes = (0..TRANSACTIONS).map(|index| {
        let keys = [format!("account{:06}", 2 * index), format!("account{:06}", 2 * index + 1)];
        let version = (number > 1).then(|| (number - 1, index as u32));
        let reads = keys.iter().map(|key| blocks::read(key, version)).collect();
        let writes = keys.iter().map(|key| blocks::write(key, &format!("{number:0100}"))).collect();
        blocks::envelope(&format!("{number}/{index}"), &blocks::results(reads, writes))
    });
    let envelopes = envelopes.collect();
    blocks::accepted(blocks::next_block(ledger, envelopes))
}

fn commit(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder for the ledger");
    let ledger = Ledger::create(folder.path(), &blocks::genesis()).expect("a new ledger");
    let mut group = criterion.benchmark_group("block of 500");
    group.throughput(Throughput::Elements(TRANSACTIONS));
    group.sample_size(20).measurement_time(Duration::from_secs(10));
    group.bench_function("commit", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut spent = Duration::ZERO;
            for _ in 0..iterations {
                let block = transfers(&ledger);
                let start = Instant::now();
                let committed = ledger.commit(block).expect("the next block");
                spent += start.elapsed();
                assert!(committed.codes.iter().all(|&code| code == TxValidationCode::Valid));
            }
            spent
        });
    });
    let block = transfers(&ledger);
    let number = BlockNumber::new(ledger.height());
    group.bench_function("version check", |bencher| {
        let snapshot = ledger.snapshot();
        bencher.iter(|| {
            mvcc::validate(number, black_box(block.transactions()), black_box(block.codes()), &snapshot)
                .expect("a readable state")
        });
    });
    group.finish();
    record(folder.path(), &block);
}

/// Says what was found to whoever collects it, beside what the disk takes for the bytes alone, and memory for a copy of them.
fn record(folder: &Path, block: &ValidatedBlock) {
    let found = consort_bench::criterion(["block of 500/commit", "block of 500/version check"]);
    let Some([committed, checked]) = found else { return };
    let bytes = block
        .transactions()
        .iter()
        .flatten()
        .map(|transaction| &transaction.raw[..])
        .collect::<Vec<_>>()
        .concat();
    let median = |work: &dyn Fn()| {
        let once = |_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64() * 1e3
        };
        let mut times: Vec<f64> = (0..21).map(once).collect();
        times.sort_unstable_by(f64::total_cmp);
        times[10]
    };
    let synced = median(&|| {
        let mut file = File::create(folder.join("alone")).expect("a file in the folder");
        file.write_all(&bytes).and_then(|()| file.sync_all()).expect("room on the disk");
    });
    let copied = median(&|| drop(black_box(black_box(&bytes).clone())));
    let figure = Figure::new("commit of a block of 500", committed * 1e3, "ms");
    figure.limit("write and sync of its bytes", synced).record();
    let figure = Figure::new("version check of a block of 500", checked * 1e3, "ms");
    figure.limit("a copy of its bytes in memory", copied).record();
}

criterion_group!(benches, commit);
criterion_main!(benches);
