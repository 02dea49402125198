//! Sealed data: fragment with proof, verification, and opening from three, beside one multiplication of a point in the same run.
//! Wanted: at most 2 ms each on P-256, on one core.

use std::hint::black_box;

use consort_bench::Figure;
use consort_crypto::pre::{self, Fragment, SecretKey, Suite};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const AUX: &[u8] = b"wards|_sealed|patient-17|3";
const GRANT: &[u8] = b"wards|grant-5";
const REQUEST: &[u8] = b"wards|request-9";

fn sealed_data(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sealed data (wanted: 2 ms each on P-256)");
    for suite in [Suite::P256, Suite::Sm2] {
        let [owner, reader] =
            [(); 2].map(|()| SecretKey::generate(suite).expect("the system gives random numbers"));
        let public = owner.public_key();
        let sealed = pre::seal(&public, AUX, &[7; 1024]).expect("1 KiB is sealed");
        let split = pre::split(&owner, &reader.public_key(), 3, 5, GRANT).expect("3 of 5 is possible");
        let capsule = &sealed.capsule;
        let answer = |at: usize| {
            pre::re_encrypt(&split.shares[at], capsule, AUX, GRANT, REQUEST).expect("the capsule holds")
        };
        let fragments: Vec<Fragment> = [4, 0, 2].map(answer).into();
        let mut measure = |name: &str, work: &mut dyn FnMut()| {
            group.bench_function(BenchmarkId::new(name, suite.name()), |bencher| bencher.iter(&mut *work));
        };
        measure("one multiplication of a point", &mut || {
            black_box(split.shares[0].matches(black_box(&split.commitments[0])));
        });
        measure("seal 1 KiB", &mut || {
            black_box(pre::seal(&public, AUX, black_box(&[7; 1024])).expect("1 KiB is sealed"));
        });
        measure("split 3 of 5", &mut || {
            black_box(pre::split(&owner, &reader.public_key(), 3, 5, GRANT).expect("3 of 5 is possible"));
        });
        measure("fragment with proof", &mut || {
            black_box(answer(black_box(1)));
        });
        measure("verification of a fragment", &mut || {
            let bytes = black_box(&fragments[1]).to_bytes();
            let fragment = Fragment::from_bytes(suite, &bytes).expect("what was written is read");
            fragment
                .verify(capsule, AUX, &split.commitments[0], GRANT, REQUEST)
                .expect("the fragment is right");
        });
        measure("opening from three", &mut || {
            let opened = pre::open(
                &reader,
                &public,
                &split.ephemeral,
                3,
                AUX,
                GRANT,
                REQUEST,
                &split.commitments,
                capsule,
                &sealed.ciphertext,
                black_box(&fragments),
            );
            black_box(opened.expect("three of three"));
        });
    }
    group.finish();
    record();
}

/// Says what was found to whoever collects it.
fn record() {
    let id = |name: &str| format!("sealed data (wanted: 2 ms each on P-256)/{name}/{}", Suite::P256.name());
    let point = id("one multiplication of a point");
    for name in ["seal 1 KiB", "fragment with proof", "verification of a fragment", "opening from three"] {
        if let Some([point, found]) = consort_bench::criterion([&point, &id(name)]) {
            let figure = Figure::new(format!("sealed data, {name}"), found * 1e3, "ms").at_most(2.0);
            figure.limit("one multiplication of a point", point * 1e3).record();
        }
    }
}

criterion_group!(benches, sealed_data);
criterion_main!(benches);
