//! Verdicts of the tables, of each signature alone and of many together, against three libraries, over many random and mutated
//! signatures.
//!
//! `CONSORT_TEST_SIGNATURES` says how many verdicts are compared per algorithm; millions take some minutes with optimised code:
//!
//! ```text
//! CONSORT_TEST_SIGNATURES=2000000 cargo test --release -p consort-crypto --lib comparison -- --nocapture
//! ```

use super::SMALL_AFTER;
use crate::hash::sha256;
use crate::key::{KeyAlgorithm, PrivateKey, PublicKey, SignatureCheck};
use crate::signature::{Curve, EcdsaSignature};

/// Verdicts that are compared when nobody says how many.
const VERDICTS: usize = 2_000;
/// Verdicts between two lines that say how far a long run is.
const TOLD_EVERY: usize = 100_000;
/// Keys that take turns.
const KEYS: usize = 16;
/// What is made of one signature.
const MUTATIONS: usize = 16;
/// Signatures whose mutations are checked together at most: with them batches of all sizes, and some that are divided.
const SIGNATURES: usize = 8;

const P256_ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
const SM2_ORDER: &str = "fffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d54123";

/// A small generator (xorshift): the same numbers from the same seed.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&self.next().to_be_bytes()));
        bytes
    }
}

/// The order plus a small difference.
fn near(order: &str, difference: i8) -> [u8; 32] {
    let mut bytes: [u8; 32] = hex::decode(order).unwrap().try_into().unwrap();
    bytes[31] = bytes[31].wrapping_add_signed(difference);
    bytes
}

/// DER of two positive numbers.
fn der(r: &[u8; 32], s: &[u8; 32]) -> Vec<u8> {
    let integer = |number: &[u8; 32]| {
        let zeros = number.iter().take_while(|byte| **byte == 0).count().min(31);
        let mut content = number[zeros..].to_vec();
        if content[0] & 0x80 != 0 {
            content.insert(0, 0);
        }
        [vec![2, u8::try_from(content.len()).unwrap()], content].concat()
    };
    let content = [integer(r), integer(s)].concat();
    [vec![0x30, u8::try_from(content.len()).unwrap()], content].concat()
}

/// Another signature made of a good one; most are wrong, some are right in another way.
fn mutated(good: &[u8], order: &str, numbers: &mut Numbers) -> Vec<u8> {
    let parsed = EcdsaSignature::from_der(good).unwrap().numbers().unwrap();
    let (mut r, mut s) = (parsed.r, parsed.s);
    let mut small = [0; 32];
    small[31] = u8::try_from(numbers.below(3)).unwrap();
    let edges = [small, near(order, 0), near(order, -1), near(order, 1), [0xff; 32]];
    let edge = edges[numbers.below(edges.len())];
    match numbers.below(10) {
        0 => return good.to_vec(),
        1 => {
            let mut bytes = good.to_vec();
            let bit = numbers.below(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            return bytes;
        }
        2 => std::mem::swap(&mut r, &mut s),
        3 => r = edge,
        4 => s = edge,
        5 => (r, s) = (edge, edges[numbers.below(edges.len())]),
        6 => r = numbers.bytes(),
        7 => s = numbers.bytes(),
        8 => r[numbers.below(32)] ^= 1 << numbers.below(8),
        _ => s[numbers.below(32)] ^= 1 << numbers.below(8),
    }
    der(&r, &s)
}

/// What the `p256` crate says of an ECDSA signature whose S is low.
fn p256_verdict(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    use p256::ecdsa::signature::hazmat::PrehashVerifier;
    let Ok(parsed) = EcdsaSignature::from_der(signature) else { return false };
    let Some(numbers) = parsed.numbers().filter(|_| parsed.is_low(Curve::P256)) else { return false };
    let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(point).unwrap();
    let signature = p256::ecdsa::Signature::from_scalars(numbers.r, numbers.s);
    signature.is_ok_and(|signature| key.verify_prehash(&sha256(message), &signature).is_ok())
}

/// What is verified: by which key, which message, which signature.
type Case = (PublicKey, [u8; 32], Vec<u8>);

/// What is made of a few good signatures; as many as are checked together at a time.
fn cases(keys: &[PrivateKey], order: &str, numbers: &mut Numbers) -> Vec<Case> {
    let mut cases = Vec::new();
    for _ in 0..=numbers.below(SIGNATURES) {
        let key = &keys[numbers.below(KEYS)];
        let message = numbers.bytes();
        let good = key.sign(&message).unwrap();
        for _ in 0..MUTATIONS {
            let signature = mutated(&good, order, numbers);
            let (verifier, message) = match numbers.below(12) {
                0 => (&keys[numbers.below(KEYS)], message),
                1 => (key, numbers.bytes()),
                _ => (key, message),
            };
            cases.push((verifier.public_key().clone(), message, signature));
        }
    }
    cases
}

fn compare(algorithm: KeyAlgorithm, order: &str) {
    let wanted = std::env::var("CONSORT_TEST_SIGNATURES").ok().and_then(|text| text.parse().ok());
    let wanted: usize = wanted.unwrap_or(VERDICTS);
    let seed = u64::from_be_bytes(sha256(&wanted.to_be_bytes())[..8].try_into().unwrap());
    println!("{algorithm}: {wanted} verdicts from seed {seed:#x}");
    let mut numbers = Numbers(seed);
    let keys: Vec<PrivateKey> = (0..KEYS).map(|_| PrivateKey::generate(algorithm).unwrap()).collect();
    for key in &keys {
        let signature = key.sign(b"warm").unwrap();
        (0..=SMALL_AFTER).for_each(|_| assert!(key.public_key().verify(b"warm", &signature).is_ok()));
    }
    let (mut done, mut valid) = (0, 0);
    while done < wanted {
        let cases = cases(&keys, order, &mut numbers);
        let begin = |(public, message, signature): &Case| public.begin_check(message, signature);
        let mut together: Vec<SignatureCheck> = cases.iter().map(begin).collect();
        SignatureCheck::settle(&mut together);
        for ((public, message, signature), together) in cases.iter().zip(together) {
            let library = public.verify_with_library(message, signature).is_ok();
            let context =
                || format!("seed {seed:#x}: {public:?} {} {}", hex::encode(message), hex::encode(signature));
            assert_eq!(public.verify(message, signature).is_ok(), library, "alone: {}", context());
            assert_eq!(together.verdict().is_ok(), library, "together: {}", context());
            if algorithm == KeyAlgorithm::P256 {
                assert_eq!(p256_verdict(public.bytes(), message, signature), library, "p256: {}", context());
            }
            valid += usize::from(library);
            done += 1;
            if done % TOLD_EVERY == 0 {
                println!(
                    "{algorithm}: {done} of {wanted} verdicts equal, {valid} of them that a signature holds"
                );
            }
        }
    }
    assert!(valid > wanted / 20 && valid < wanted / 2, "{valid} of {wanted} hold");
    println!("{algorithm}: {done} verdicts equal, {valid} of them that a signature holds");
}

#[test]
fn p256_verdicts_are_those_of_ring_and_p256() {
    compare(KeyAlgorithm::P256, P256_ORDER);
}

#[test]
fn sm2_verdicts_are_those_of_the_library() {
    compare(KeyAlgorithm::Sm2, SM2_ORDER);
}
