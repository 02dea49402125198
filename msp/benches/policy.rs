//! What a policy costs besides signature checks: five organisations, identities already cached.
//!
//! The first figure of each group is one verification of an ECDSA signature, to compare within the same run.

mod organisations;

use std::{hint::black_box, time::Duration};

use consort_bench::Figure;
use consort_crypto::key::PrivateKey;
use criterion::{Criterion, criterion_group, criterion_main};
use organisations::Organisations;

/// The bound that the project sets itself for the evaluation besides signature checks.
const BOUND: Duration = Duration::from_micros(2);

/// Evaluations that are timed together.
const ROUND: u32 = 200;

fn evaluation(criterion: &mut Criterion) {
    let Organisations { msps, signers, policy } = Organisations::five();
    let read = |signers| organisations::read(&msps, signers);
    policy.evaluate_identities(&read(&signers)).expect("five peers satisfy it");

    let key = PrivateKey::generate_p256().expect("a key");
    let signature = key.sign(b"message").expect("a signature");
    let mut group = criterion.benchmark_group("policy of five organisations");
    group.bench_function("one signature check, to compare", |bencher| {
        bencher.iter(|| key.public_key().verify(black_box(b"message"), &signature));
    });
    group.bench_function("evaluation with cached identities", |bencher| {
        let identities = read(&signers);
        bencher.iter(|| policy.evaluate_identities(black_box(&identities)));
    });
    group.bench_function("finding five cached identities and evaluation", |bencher| {
        bencher.iter(|| policy.evaluate_identities(&read(black_box(&signers))));
    });
    group.finish();

    // The best of many short rounds: the machine does other work besides.
    let best = |work: &dyn Fn()| {
        let round = || {
            let start = std::time::Instant::now();
            (0..ROUND).for_each(|_| work());
            start.elapsed() / ROUND
        };
        (0..200).map(|_| round()).min().unwrap_or_default()
    };
    let evaluation = best(&|| policy.evaluate_identities(&read(black_box(&signers))).expect("satisfied"));
    let check = best(&|| key.public_key().verify(black_box(b"message"), &signature).expect("verifies"));
    let verdict = if evaluation <= BOUND { "within" } else { "BEYOND" };
    let figure = Figure::new("policy of five organisations", evaluation.as_secs_f64() * 1e6, "us");
    figure
        .at_most(BOUND.as_secs_f64() * 1e6)
        .limit("one signature check", check.as_secs_f64() * 1e6)
        .record();
    let share = 100.0 * evaluation.as_secs_f64() / check.as_secs_f64();
    println!(
        "five organisations besides signature checks: {evaluation:?} ({share:.1} % of one check, {check:?}), {verdict} the bound of {BOUND:?}"
    );
}

criterion_group!(benches, evaluation);
criterion_main!(benches);
