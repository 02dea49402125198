//! How long a block of 500 transactions takes: the version check alone, and the whole commit with its synced write.

#[path = "../tests/blocks/mod.rs"]
mod blocks;

use std::{hint::black_box, time::Duration, time::Instant};

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
}

criterion_group!(benches, commit);
criterion_main!(benches);
