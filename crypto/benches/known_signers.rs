//! Verification with tables of known signers against the libraries, ten signers at random, in one run.

use std::hint::black_box;

use consort_bench::Figure;
use consort_crypto::key::{KeyAlgorithm, PrivateKey, PublicKey, SignatureCheck};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

/// Signers that take turns.
const SIGNERS: usize = 10;

/// Signatures of each; enough that every key has its large table before anything is measured.
const SIGNATURES: usize = 600;

/// Signatures that are checked together: those of eight transactions with two endorsements, as the peer's committer does.
const TOGETHER: usize = 24;

fn verification(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("verify, ten signers");
    for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::Sm2] {
        let message = [7; 300];
        let keys: Vec<PrivateKey> = (0..SIGNERS)
            .map(|_| PrivateKey::generate(algorithm).expect("the system gives random numbers"))
            .collect();
        let signatures: Vec<Vec<u8>> =
            keys.iter().map(|key| key.sign(&message).expect("a new key signs")).collect();
        for _ in 0..SIGNATURES {
            for (key, signature) in keys.iter().zip(&signatures) {
                assert!(key.public_key().verify(&message, signature).is_ok());
            }
        }
        let mut turn = 0;
        let mut next = || {
            // A stride that is prime to the number of signers: no two neighbours, all in turn.
            turn = (turn + 7) % SIGNERS;
            (keys[turn].public_key(), &signatures[turn])
        };
        group.bench_function(BenchmarkId::new("library", algorithm.title()), |bencher| {
            bencher.iter(|| {
                let (key, signature) = next();
                black_box(key.verify_with_library(black_box(&message), signature)).is_ok()
            });
        });
        group.bench_function(BenchmarkId::new("table", algorithm.title()), |bencher| {
            bencher.iter(|| {
                let (key, signature) = next();
                black_box(key.verify(black_box(&message), signature)).is_ok()
            });
        });
        group.bench_function(BenchmarkId::new("table, 24 together", algorithm.title()), |bencher| {
            bencher.iter(|| {
                let begin = |(key, signature): (&PublicKey, &Vec<u8>)| {
                    key.begin_check(black_box(&message), signature)
                };
                let mut checks: Vec<SignatureCheck> = (0..TOGETHER).map(|_| begin(next())).collect();
                SignatureCheck::settle(&mut checks);
                checks.into_iter().all(|check| black_box(check.verdict()).is_ok())
            });
        });
    }
    group.finish();
    for (algorithm, most) in [("P-256", 20.0), ("SM2", 50.0)] {
        let [table, library] =
            ["table", "library"].map(|way| format!("verify, ten signers/{way}/{algorithm}"));
        if let Some([seconds, library]) = consort_bench::criterion([&table, &library]) {
            let figure = Figure::new(format!("check of a known signer, {algorithm}"), seconds * 1e6, "us");
            figure.at_most(most).limit("the library's check", library * 1e6).record();
        }
        let together = format!("verify, ten signers/table, 24 together/{algorithm}");
        if let Some([together, seconds]) = consort_bench::criterion([&together, &table]) {
            let each = together * 1e6 / TOGETHER as f64;
            let figure = Figure::new(format!("the same, 24 together, {algorithm}"), each, "us");
            figure.limit("its check alone", seconds * 1e6).record();
        }
    }
}

criterion_group!(benches, verification);
criterion_main!(benches);
