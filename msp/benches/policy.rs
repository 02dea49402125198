//! What a policy costs besides signature checks: five organisations, identities already cached.
//!
//! The first figure of each group is one verification of an ECDSA signature, to compare within the same run.

use std::{hint::black_box, sync::Arc, time::Duration};

use bytes::Bytes;
use consort_bench::Figure;
use consort_crypto::{
    issue::{CertificateAuthority, Template, Validity},
    key::PrivateKey,
    name::{DistinguishedName, NamePart},
};
use consort_msp::{
    Identity, Msp, MspManager, MspVersion,
    policy::{Policy, SignaturePolicy, parse},
    serialize,
};
use consort_protos::{
    fabric::msp::{FabricMspConfig, FabricNodeOUs, FabricOuIdentifier},
    ids::MspId,
};
use criterion::{Criterion, criterion_group, criterion_main};
use time::macros::datetime;

/// The bound that the project sets itself for the evaluation besides signature checks.
const BOUND: Duration = Duration::from_micros(2);

/// Evaluations that are timed together.
const ROUND: u32 = 200;

const VALIDITY: Validity =
    Validity { not_before: datetime!(2020-01-01 00:00 UTC), not_after: datetime!(2040-01-01 00:00 UTC) };

fn organisation(number: usize) -> (Msp, Bytes) {
    let name = format!("Org{number}MSP");
    let key = PrivateKey::generate_p256().expect("a key");
    let authority = CertificateAuthority::new_root(&DistinguishedName::common_name(&name), key, VALIDITY)
        .expect("a root");
    let unit = |name: &str| {
        let organizational_unit_identifier = name.to_owned();
        Some(FabricOuIdentifier { certificate: Bytes::new(), organizational_unit_identifier })
    };
    let config = FabricMspConfig {
        name: name.clone(),
        root_certs: vec![authority.certificate().pem().into_bytes().into()],
        fabric_node_ous: Some(FabricNodeOUs {
            enable: true,
            client_ou_identifier: unit("client"),
            peer_ou_identifier: unit("peer"),
            admin_ou_identifier: unit("admin"),
            orderer_ou_identifier: unit("orderer"),
        }),
        ..FabricMspConfig::default()
    };
    let key = PrivateKey::generate_p256().expect("a key");
    let subject = DistinguishedName::common_name("peer0").with(NamePart::OrganizationalUnit, "peer");
    let certificate =
        authority.issue(&Template::identity(subject, VALIDITY), key.public_key()).expect("a certificate");
    let id = MspId::parse(&name).expect("an id");
    (Msp::new(&config, MspVersion::V1_4_3).expect("an MSP"), serialize(&id, &certificate))
}

fn evaluation(criterion: &mut Criterion) {
    let (msps, signers): (Vec<Msp>, Vec<Bytes>) = (1..=5).map(organisation).unzip();
    let msps = Arc::new(MspManager::new(msps));
    let text = "OutOf(3, 'Org1MSP.peer', 'Org2MSP.peer', 'Org3MSP.peer', 'Org4MSP.peer', 'Org5MSP.peer')";
    let rule = SignaturePolicy::from_proto(&parse(text).expect("a policy")).expect("a policy");
    let policy = Policy::signature("endorsement", rule, Arc::clone(&msps));
    let read = |signers: &[Bytes]| -> Vec<Arc<Identity>> {
        signers.iter().map(|signer| msps.deserialize(signer).expect("an identity")).collect()
    };
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
