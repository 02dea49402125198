//! Every function for a moment, with the input that is there and with input made from it.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use consort_crypto::{
    issue::{CertificateAuthority, DistinguishedName, Validity},
    key::{KeyAlgorithm, PrivateKey},
    request::CertificateRequest,
};
use consort_fuzz::{TARGETS, Target};
use prost::Message;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use time::macros::datetime;

/// How long each function runs when nothing else is asked for, in seconds.
const SECONDS: u64 = 1;

/// Longer input only repeats what shorter input shows.
const BYTES_MAX: usize = 2_048;

/// Well-formed input of every kind.
fn seeds() -> Vec<Vec<u8>> {
    const POLICY: &str = "OutOf(2, 'A.member', AND('B.peer', OR('C.admin', 'D.client')), 'E.orderer')";
    let validity =
        Validity { not_before: datetime!(2020-01-01 00:00 UTC), not_after: datetime!(2040-01-01 00:00 UTC) };
    let name = DistinguishedName::common_name("ca");
    let mut seeds = vec![POLICY.as_bytes().to_vec(), b"Y2VydA==.c2ln".to_vec()];
    seeds.push(consort_msp::policy::parse(POLICY).expect("a policy").encode_to_vec());
    for algorithm in KeyAlgorithm::ALL {
        let key = PrivateKey::generate(algorithm).expect("a key");
        let request = CertificateRequest::create(&key, "x", &[]).expect("a request");
        let root = CertificateAuthority::new_root(&name, key, validity).expect("a root");
        let list = root.issue_crl(&[], 1, validity.not_before, validity.not_after).expect("a list");
        seeds.extend([root.certificate().der().to_vec(), request.der().to_vec(), list.der().to_vec()]);
        seeds.extend([request.pem().into_bytes(), root.certificate().pem().into_bytes()]);
    }
    seeds
}

/// What libFuzzer left of a function's input.
fn kept(name: &str) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["corpus", "artifacts"].map(|folder| root.join(folder).join(name));
    let files = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    files.filter_map(|file| std::fs::read(file.path()).ok()).collect()
}

/// Random bytes, or one of the seeds with some of its bytes changed, left out, repeated or cut off.
fn input(seeds: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    if random.random_ratio(1, 8) {
        let mut bytes = vec![0; random.random_range(0..300)];
        random.fill_bytes(&mut bytes);
        return bytes;
    }
    let mut bytes = seeds[random.random_range(0..seeds.len())].clone();
    for _ in 0..random.random_range(1..5) {
        if bytes.is_empty() {
            break;
        }
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..5) {
            0 => bytes[at] = random.random(),
            1 => bytes[at] ^= 1 << random.random_range(0..8),
            2 => drop(bytes.remove(at)),
            3 => bytes.truncate(at),
            _ => {
                let end = bytes.len().min(at + random.random_range(1..40));
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

/// Says by which input a function failed, when it does.
struct Witness<'a> {
    name: &'a str,
    seed: u64,
    input: Vec<u8>,
}

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text: String = self.input.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("{} fails (CONSORT_FUZZ_SEED={}) with {text}", self.name, self.seed);
        }
    }
}

fn run(name: &str, target: Target, seeds: &[Vec<u8>], seed: u64, time: Duration) -> u64 {
    let mut witness = Witness { name, seed, input: Vec::new() };
    for known in seeds.iter().chain(&kept(name)) {
        witness.input.clone_from(known);
        target(&witness.input);
    }
    let (mut random, start, mut count) = (StdRng::seed_from_u64(seed), Instant::now(), 0);
    while start.elapsed() < time {
        witness.input = input(seeds, &mut random);
        target(&witness.input);
        count += 1;
    }
    count
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn no_function_panics_within_its_moment() {
    let time = Duration::from_secs(number("CONSORT_FUZZ_SECONDS").unwrap_or(SECONDS));
    let seed = number("CONSORT_FUZZ_SEED").unwrap_or_else(rand::random);
    let seeds = seeds();
    for (name, target) in TARGETS {
        let count = run(name, target, &seeds, seed, time);
        println!("{name}: {count} inputs, seed {seed}");
    }
}

#[test]
fn every_function_has_its_program_and_every_program_its_function() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("targets");
    let entries = std::fs::read_dir(folder).expect("the programs").flatten();
    let programs: BTreeSet<String> = entries
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".rs").map(str::to_owned))
        .collect();
    let functions: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(programs, functions);
}
