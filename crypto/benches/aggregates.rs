//! What checking a block's endorsements costs by scheme and number of endorsers, and how many bytes they take, in one run.
//!
//! A block of 500 transactions, each endorsed by some of twenty signers, drawn at random per transaction. Prints microseconds
//! per transaction on one core (the fastest of several rounds in turn, so that other work on the machine counts little) and
//! bytes per transaction. `CONSORT_BENCH_ROUNDS` sets the rounds.

use std::hint::black_box;
use std::time::{Duration, Instant};

use consort_bench::Figure;
use consort_crypto::bls::{self, Check, HashedMessage, PublicKey as BlsKey, SecretKey, Signature};
use consort_crypto::issue::{CertificateAuthority, DistinguishedName, Template, Validity};
use consort_crypto::key::{KeyAlgorithm, PrivateKey, SignatureCheck};

/// Transactions of the block.
const TRANSACTIONS: usize = 500;
/// Transactions whose signatures are checked together with tables, as the peer's committer does.
const TOGETHER: usize = 8;
/// Bytes of what is endorsed.
const PAYLOAD_BYTES: usize = 512;
/// Everybody who endorses.
const SIGNERS: usize = 20;
/// Endorsers per transaction.
const ENDORSERS: [usize; 6] = [1, 2, 3, 5, 10, 20];
/// Signatures by each key before anything is measured, so that all have their large tables.
const WARM: usize = 520;
/// Most microseconds per transaction with ten endorsers in one aggregate.
const WANTED_MICROSECONDS: f64 = 180.0;

/// One transaction: who endorsed it, and their signatures over its payload.
struct Endorsed {
    payload: Vec<u8>,
    signers: Vec<usize>,
}

struct Classical {
    keys: Vec<PrivateKey>,
    /// Per transaction, in the order of its signers.
    signatures: Vec<Vec<Vec<u8>>>,
}

impl Classical {
    fn new(algorithm: KeyAlgorithm, block: &[Endorsed]) -> Self {
        let keys: Vec<PrivateKey> =
            (0..SIGNERS).map(|_| PrivateKey::generate(algorithm).expect("random numbers")).collect();
        for key in &keys {
            let signature = key.sign(b"warm").expect("a new key signs");
            (0..WARM).for_each(|_| assert!(key.public_key().verify(b"warm", &signature).is_ok()));
        }
        let sign = |transaction: &Endorsed| {
            let by = |signer: &usize| keys[*signer].sign(&transaction.payload).expect("a new key signs");
            transaction.signers.iter().map(by).collect()
        };
        let signatures = block.iter().map(sign).collect();
        Self { keys, signatures }
    }

    fn check_with_library(&self, block: &[Endorsed]) {
        for (transaction, signatures) in block.iter().zip(&self.signatures) {
            for (signer, signature) in transaction.signers.iter().zip(signatures) {
                let key = self.keys[*signer].public_key();
                assert!(key.verify_with_library(black_box(&transaction.payload), signature).is_ok());
            }
        }
    }

    /// With tables, those of some transactions at a time, as a peer does it.
    fn check(&self, block: &[Endorsed]) {
        for (transactions, signatures) in block.chunks(TOGETHER).zip(self.signatures.chunks(TOGETHER)) {
            let mut checks = Vec::new();
            for (transaction, signatures) in transactions.iter().zip(signatures) {
                let begin = |(signer, signature): (&usize, &Vec<u8>)| {
                    self.keys[*signer].public_key().begin_check(black_box(&transaction.payload), signature)
                };
                checks.extend(transaction.signers.iter().zip(signatures).map(begin));
            }
            SignatureCheck::settle(&mut checks);
            assert!(checks.into_iter().all(|check| check.verdict().is_ok()));
        }
    }
}

struct Aggregated {
    keys: Vec<Vec<BlsKey>>,
    sums: Vec<[u8; bls::SIGNATURE_BYTES]>,
}

impl Aggregated {
    fn new(secrets: &[SecretKey], block: &[Endorsed]) -> Self {
        let keys = |transaction: &Endorsed| {
            transaction.signers.iter().map(|signer| secrets[*signer].public_key().clone()).collect()
        };
        let sum = |transaction: &Endorsed| {
            let message = bls::endorsement("trade", &transaction.payload);
            let parts: Vec<Signature> =
                transaction.signers.iter().map(|signer| secrets[*signer].sign(&message)).collect();
            bls::aggregate(&parts).expect("signatures do not cancel").to_bytes()
        };
        Self { keys: block.iter().map(keys).collect(), sums: block.iter().map(sum).collect() }
    }

    /// As a peer does it, from the bytes on.
    fn check(&self, block: &[Endorsed], together: bool) {
        let opened: Vec<(HashedMessage, Signature)> = block
            .iter()
            .zip(&self.sums)
            .map(|(transaction, sum)| {
                let message = HashedMessage::new(&bls::endorsement("trade", &transaction.payload));
                (message, Signature::from_bytes(black_box(sum)).expect("a sum is a signature"))
            })
            .collect();
        let checks: Vec<Check<'_>> = opened
            .iter()
            .zip(&self.keys)
            .map(|((message, signature), keys)| Check { keys, message, signature })
            .collect();
        let holds = match together {
            true => bls::judge(&checks).into_iter().all(|holds| holds),
            false => checks.iter().all(Check::holds),
        };
        assert!(holds);
    }
}

fn block(endorsers: usize) -> Vec<Endorsed> {
    // A fixed generator: the same blocks in every run.
    let mut state = 0x2545_f491_4f6c_dd1d_u64 ^ endorsers as u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..TRANSACTIONS)
        .map(|number| {
            let mut signers: Vec<usize> = (0..SIGNERS).collect();
            for place in 0..endorsers {
                let other =
                    place + usize::try_from(next() % (SIGNERS - place) as u64).expect("a small number");
                signers.swap(place, other);
            }
            signers.truncate(endorsers);
            let mut payload = vec![7; PAYLOAD_BYTES];
            payload[..8].copy_from_slice(&number.to_be_bytes());
            Endorsed { payload, signers }
        })
        .collect()
}

/// Bytes of a serialized identity with a certificate as Consort's authority issues it.
fn certificate_bytes() -> usize {
    let key = PrivateKey::generate_p256().expect("random numbers");
    let not_before = time::macros::datetime!(2026-01-01 00:00 UTC);
    let validity = Validity { not_before, not_after: not_before + time::Duration::days(365) };
    let name = DistinguishedName::common_name("ca.org1.example.com");
    let root = PrivateKey::generate_p256().expect("random numbers");
    let root = CertificateAuthority::new_root(&name, root, validity).expect("a root");
    let template = Template::identity(DistinguishedName::common_name("peer0.org1.example.com"), validity);
    let certificate = root.issue(&template, key.public_key()).expect("a certificate");
    certificate.pem().len() + "Org1MSP".len() + 6
}

/// The fastest of several rounds of each, in turn, in microseconds per transaction.
fn measure(rounds: usize, works: &[&dyn Fn()]) -> Vec<f64> {
    let mut best = vec![Duration::MAX; works.len()];
    for _ in 0..rounds {
        for (best, work) in best.iter_mut().zip(works) {
            let started = Instant::now();
            work();
            *best = (*best).min(started.elapsed());
        }
    }
    best.iter().map(|time| time.as_secs_f64() * 1e6 / TRANSACTIONS as f64).collect()
}

fn main() {
    let rounds = std::env::var("CONSORT_BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let secrets: Vec<SecretKey> =
        (0..SIGNERS).map(|_| SecretKey::generate().expect("random numbers")).collect();
    println!("endorsements of a block of {TRANSACTIONS}, microseconds per transaction on one core:");
    println!("endorsers  P-256 ring  P-256 tables  SM2 crate  SM2 tables  BLS alone  BLS together");
    let mut together = Vec::new();
    for endorsers in ENDORSERS {
        let block = block(endorsers);
        let p256 = Classical::new(KeyAlgorithm::P256, &block);
        let sm2 = Classical::new(KeyAlgorithm::Sm2, &block);
        let sums = Aggregated::new(&secrets, &block);
        let took = measure(
            rounds,
            &[
                &|| p256.check_with_library(&block),
                &|| p256.check(&block),
                &|| sm2.check_with_library(&block),
                &|| sm2.check(&block),
                &|| sums.check(&block, false),
                &|| sums.check(&block, true),
            ],
        );
        let shown: Vec<String> = took.iter().map(|time| format!("{time:>10.1}")).collect();
        println!("{endorsers:>9}  {}", shown.join("  "));
        together.push((endorsers, took[5], took[0]));
    }
    println!("bytes per transaction (identities and signatures):");
    println!("endorsers  with certificates  by entry  aggregated");
    let certificate = certificate_bytes();
    for endorsers in ENDORSERS {
        // Tags and lengths: 3 + 3 for the message and its certificate, 2 + 2 + 2 for those by entry, 4 + 2 + 2 for a sum.
        let (classical, entry, sum) =
            (endorsers * (certificate + 71 + 8), endorsers * (4 + 71 + 6), 48 + SIGNERS.div_ceil(8) + 8);
        println!("{endorsers:>9}  {classical:>17}  {entry:>8}  {sum:>10}");
    }
    let of = |wanted: usize| together.iter().find(|(endorsers, ..)| *endorsers == wanted).expect("measured");
    let (ten, two) = (of(10), of(2));
    let figure = Figure::new("ten endorsements together, per transaction", ten.1, "us");
    figure.at_most(WANTED_MICROSECONDS).limit("ten checks of ring", ten.2).record();
    println!(
        "ten endorsers together: {:.1} us per transaction, {:.2} of ring's {:.1} us (wanted: at most {WANTED_MICROSECONDS})",
        ten.1,
        ten.1 / ten.2,
        ten.2
    );
    println!("ten endorsers cost {:.2} times as much as two (wanted: nearly flat)", ten.1 / two.1);
}
