use proptest::prelude::*;

use super::verify::Equation;
use super::*;
use crate::Error;
use crate::key::{KeyAlgorithm, PrivateKey};

#[test]
fn a_key_earns_its_tables_by_signing_and_old_ones_make_room() {
    let tables = Tables::<P256>::new(3 * Table::<P256>::bytes(SMALL_WINDOW_BITS));
    let keys: Vec<PrivateKey> = (0..5).map(|_| PrivateKey::generate_p256().unwrap()).collect();
    let point = |number: usize| keys[number].public_key().bytes();
    for number in 0..5 {
        for signature in 1..SMALL_AFTER {
            assert!(tables.of(point(number)).is_none(), "signature {signature}");
        }
        assert!(tables.of(point(number)).is_some());
    }
    let with_table = |number: usize| {
        let entries = tables.entries.read().unwrap();
        entries.get(point(number).as_ref()).is_some_and(|entry| entry.table.is_some())
    };
    assert_eq!((0..5).map(with_table).collect::<Vec<_>>(), [false, false, true, true, true]);
}

#[test]
fn a_busy_key_gets_a_large_table_once() {
    let tables = Tables::<Sm2>::new(TABLES_BYTES_MAX);
    let key = PrivateKey::generate(KeyAlgorithm::Sm2).unwrap();
    for _ in 0..LARGE_AFTER + 3 {
        tables.of(key.public_key().bytes());
    }
    let entries = tables.entries.read().unwrap();
    assert_eq!(entries[key.public_key().bytes().as_ref()].window_bits, LARGE_WINDOW_BITS);
}

/// A signature in many broken forms.
fn mutations(signature: &[u8], bit: usize) -> Vec<Vec<u8>> {
    let mut flipped = signature.to_vec();
    let bit = bit % (flipped.len() * 8);
    flipped[bit / 8] ^= 1 << (bit % 8);
    vec![signature.to_vec(), flipped, signature[..signature.len() - 1].to_vec()]
}

fn same(known: &Result<(), Error>, library: &Result<(), Error>, context: &str) {
    assert_eq!(known.is_ok(), library.is_ok(), "{context}: {known:?} but the library says {library:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn verdicts_equal_the_libraries(message in proptest::collection::vec(any::<u8>(), 0..100), bit in any::<usize>()) {
        for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::Sm2] {
            let key = PrivateKey::generate(algorithm).unwrap();
            let public = key.public_key();
            let signature = key.sign(&message).unwrap();
            for _ in 0..SMALL_AFTER {
                prop_assert!(public.verify(&message, &signature).is_ok());
            }
            for mutated in mutations(&signature, bit) {
                let context = format!("{algorithm:?} {}", hex::encode(&mutated));
                same(&public.verify(&message, &mutated), &public.verify_with_library(&message, &mutated), &context);
            }
            let other = [&message[..], b"."].concat();
            prop_assert!(public.verify(&other, &signature).is_err());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Good and damaged signatures of keys with tables of both sizes, without any, and of kinds that never have one.
    #[test]
    fn verdicts_together_are_those_of_each_alone(
        picks in proptest::collection::vec((0_usize..8, 0_usize..3, any::<usize>()), 0..80),
    ) {
        let keys = mixed_keys();
        let signed: Vec<(&PrivateKey, [u8; 8], Vec<u8>)> = picks
            .iter()
            .map(|(key, kind, bit)| {
                let (key, message) = (&keys[*key], bit.to_be_bytes());
                (key, message, mutations(&key.sign(&message).unwrap(), *bit).swap_remove(*kind))
            })
            .collect();
        let begin = |(key, message, signature): &(&PrivateKey, [u8; 8], Vec<u8>)| {
            key.public_key().begin_check(message, signature)
        };
        let mut checks: Vec<_> = signed.iter().map(begin).collect();
        SignatureCheck::settle(&mut checks);
        for ((key, message, signature), check) in signed.iter().zip(checks) {
            let together = check.verdict();
            let context = format!("{:?} {}", key.public_key(), hex::encode(signature));
            same(&together, &key.public_key().verify(message, signature), &context);
            same(&together, &key.public_key().verify_with_library(message, signature), &context);
        }
    }
}

/// Two keys each of P-256 and SM2 with small tables, one with a large one, and keys without.
fn mixed_keys() -> &'static [PrivateKey] {
    static KEYS: LazyLock<Vec<PrivateKey>> = LazyLock::new(|| {
        use KeyAlgorithm::{Ed25519, P256, P384, Sm2};
        let signed = [(P256, SMALL_AFTER), (P256, LARGE_AFTER), (P256, SMALL_AFTER), (P256, 0)];
        let signed =
            signed.into_iter().chain([(Sm2, SMALL_AFTER), (Sm2, LARGE_AFTER), (P384, 0), (Ed25519, 0)]);
        let key = |(algorithm, signatures): (KeyAlgorithm, u32)| {
            let key = PrivateKey::generate(algorithm).unwrap();
            let signature = key.sign(b"warm").unwrap();
            (0..signatures).for_each(|_| key.public_key().verify(b"warm", &signature).unwrap());
            key
        };
        signed.map(key).collect()
    });
    &KEYS
}

/// Numbers at the edges of the order, signatures by the generator itself and by its negative.
#[test]
fn edges_of_the_numbers_get_the_libraries_verdict() {
    let order = hex::decode("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551").unwrap();
    let generator = "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
                     4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
    let negative = "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
                    b01cbd1c01e58065711814b583f061e9d431cca994cea1313449bf97c840ae0a";
    let small = |number: u8| {
        let mut bytes = [0; 32];
        bytes[31] = number;
        bytes
    };
    let near = |offset: u8| {
        let mut bytes: [u8; 32] = order.clone().try_into().unwrap();
        bytes[31] = bytes[31].wrapping_sub(offset);
        bytes
    };
    let numbers = [small(0), small(1), small(2), near(0), near(1), near(2), [0xff; 32]];
    for point in [generator, negative] {
        let point = hex::decode(point.replace(' ', "")).unwrap();
        let table = Arc::new(Table::<P256>::new(&Affine::from_bytes(&point).unwrap(), SMALL_WINDOW_BITS));
        let digests = [[0; 32], small(1), near(0), near(1), [0xff; 32]];
        let cases: Vec<[[u8; 32]; 3]> = digests
            .into_iter()
            .flat_map(|digest| numbers.map(|r| (digest, r)))
            .flat_map(|(digest, r)| numbers.map(|s| [digest, r, s]))
            .collect();
        let equation = |case: &[[u8; 32]; 3]| {
            let [digest, r, s] = case.map(|bytes| field::from_bytes(&bytes));
            Equation { table: Arc::clone(&table), digest, r, s }
        };
        let equations: Vec<_> = cases.iter().map(equation).collect();
        let together = verify::hold(&P256_GENERATOR, &equations.iter().collect::<Vec<_>>());
        for ((case, equation), together) in cases.iter().zip(&equations).zip(together) {
            let [digest, r, s] = case;
            let context = case.map(hex::encode);
            let library = p256_verdict(&point, digest, r, s);
            assert_eq!(together, library, "together: {context:?}");
            assert_eq!(verify::hold(&P256_GENERATOR, &[equation]), [library], "alone: {context:?}");
        }
    }
}

fn p256_verdict(point: &[u8], digest: &[u8; 32], r: &[u8; 32], s: &[u8; 32]) -> bool {
    use p256::ecdsa::signature::hazmat::PrehashVerifier;
    let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(point).unwrap();
    let signature = p256::ecdsa::Signature::from_scalars(*r, *s);
    signature.is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok())
}

#[test]
fn without_memory_there_are_no_tables() {
    let tables = Tables::<P256>::new(TABLES_BYTES_MAX);
    let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    let table = || tables.of(key.public_key().bytes());
    assert!((0..=SMALL_AFTER).filter_map(|_| table()).count() > 0, "a table was earned");
    tables.bytes_max.store(0, Ordering::Relaxed);
    assert!((0..=SMALL_AFTER).all(|_| table().is_none()));
}

#[test]
fn what_a_key_signs_to_be_remembered_is_judged_without_a_calculation_and_nothing_else_is() {
    for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::Sm2] {
        let key = PrivateKey::generate(algorithm).unwrap();
        let signature = key.sign_remembered(b"endorsed").unwrap();
        let judged = |message: &[u8], signature: &[u8]| {
            let check = key.public_key().begin_remembered_check(message, signature);
            format!("{check:?}") == "SignatureCheck(Judged(Ok(())))"
        };
        assert!(judged(b"endorsed", &signature), "{algorithm:?}");
        assert!(!judged(b"forged", &signature), "{algorithm:?}");
        assert!(key.public_key().verify_remembered(b"forged", &signature).is_err(), "{algorithm:?}");
    }
}
