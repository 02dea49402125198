//! Vectors, and the attacks that aggregated signatures invite.

use blst::{blst_p1_affine, blst_p2_affine};
use proptest::prelude::*;
use serde::Deserialize;

use super::multiples::{COEFFICIENT_BYTES, Coefficient};
use super::*;

#[derive(Deserialize)]
struct Vectors {
    hash_to_curve: Vec<Hashed>,
    signers: Vec<Signer>,
    aggregate: Signed,
}

#[derive(Deserialize)]
struct Hashed {
    message: String,
    point: Coordinates,
}

#[derive(Deserialize)]
struct Coordinates {
    x: String,
    y: String,
}

#[derive(Deserialize)]
struct Signer {
    secret: String,
    key: String,
    owner: NamedOwner,
    proof: String,
    payload: String,
    signature: String,
}

#[derive(Deserialize)]
struct NamedOwner {
    msp_id: String,
    key_info_hash: String,
    channel: String,
}

#[derive(Deserialize)]
struct Signed {
    payload: String,
    signature: String,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("vectors.json")).unwrap()
}

fn key(number: u8) -> SecretKey {
    SecretKey::from_material(&[number; 32]).unwrap()
}

fn owner(channel: &str) -> Owner<'_> {
    Owner { msp_id: "Org1MSP", key_info_hash: [7; 32], channel }
}

/// Uncompressed coordinates in hexadecimal: the first 48 bytes are x, whatever the flags of the compressed form.
fn x_of(point: &blst_p1_affine) -> String {
    let mut bytes = group::write_p1(point);
    bytes[0] &= 0x1f;
    hex::encode(bytes)
}

#[test]
fn messages_hash_to_the_points_of_rfc_9380() {
    // Appendix J.9.1, the x coordinates; whether y is the larger one is the flag in the compressed form.
    const HALF: &str =
        "0d0088f51cbff34d258dd3db21a5d66bb23ba5c279c2895fb39869507b587b120f55ffff58a9ffffdcff7fffffffd555";
    let domain = b"QUUX-V01-CS02-with-BLS12381G1_XMD:SHA-256_SSWU_RO_";
    let published = [
        "052926add2207b76ca4fa57a8734416c8dc95e24501772c814278700eed6d1e4e8cf62d9c09db0fac349612b759e79a1",
        "03567bc5ef9c690c2ab2ecdf6a96ef1c139cc0b2f284dca0a9a7943388a49a3aee664ba5379a7655d3c68900be2f6903",
    ];
    let hashed = vectors().hash_to_curve;
    assert!(published.iter().zip(&hashed).all(|(x, hashed)| *x == hashed.point.x));
    for Hashed { message, point } in hashed {
        let found = group::hash_to_p1(&hex::decode(&message).unwrap(), domain);
        assert_eq!(x_of(&found), point.x, "message {message}");
        let larger = group::write_p1(&found)[0] & 0x20 != 0;
        assert_eq!(larger, point.y.as_str() > HALF, "message {message}");
    }
}

#[test]
fn signatures_keys_and_proofs_are_those_of_another_implementation() {
    let Vectors { signers, aggregate: expected, .. } = vectors();
    let together = endorsement("trade", expected.payload.as_bytes());
    let mut parts = Vec::new();
    for signer in &signers {
        let text = pem::encode(SECRET_KEY_LABEL, &hex::decode(&signer.secret).unwrap());
        let secret = SecretKey::from_pem(&text).unwrap();
        let owner = Owner {
            msp_id: &signer.owner.msp_id,
            key_info_hash: hex::decode(&signer.owner.key_info_hash).unwrap().try_into().unwrap(),
            channel: &signer.owner.channel,
        };
        let signature = secret.sign(&endorsement("trade", signer.payload.as_bytes()));
        assert_eq!(hex::encode(secret.public_key().as_bytes()), signer.key);
        assert_eq!(hex::encode(secret.prove(&owner).to_bytes()), signer.proof);
        assert_eq!(hex::encode(signature.to_bytes()), signer.signature);
        parts.push(secret.sign(&together));
    }
    assert_eq!(hex::encode(aggregate(&parts).unwrap().to_bytes()), expected.signature);
}

#[test]
fn a_key_survives_its_file_and_does_not_show() {
    let secret = SecretKey::generate().unwrap();
    let text = secret.to_pem();
    let read = SecretKey::from_pem(&text).unwrap();
    assert_eq!(read.public_key(), secret.public_key());
    let shown = format!("{secret:?}");
    assert!(shown.contains(&hex::encode(secret.public_key().as_bytes())));
    assert!(!shown.contains(&hex::encode(secret.secret.to_bytes())), "{shown}");
    assert!(SecretKey::from_pem("nothing").is_err());
    for contents in [&[0; 32][..], &[0xff; 32], &[1; 31]] {
        assert!(SecretKey::from_pem(&pem::encode(SECRET_KEY_LABEL, contents)).is_err());
    }
}

#[test]
fn an_aggregate_holds_for_its_signers_and_its_message_only() {
    let keys: Vec<SecretKey> = (1..=4).map(key).collect();
    let public: Vec<&PublicKey> = keys.iter().map(SecretKey::public_key).collect();
    let message = endorsement("trade", b"payload");
    let sum = aggregate(&keys.iter().map(|key| key.sign(&message)).collect::<Vec<_>>()).unwrap();
    let hashed = HashedMessage::new(&message);
    assert!(verify_aggregate(&public, &hashed, &sum));
    assert!(!verify_aggregate(&public[..3], &hashed, &sum));
    assert!(!verify_aggregate(&[public[0], public[1], public[2], public[2]], &hashed, &sum));
    assert!(!verify_aggregate(&[], &hashed, &sum));
    for other in [endorsement("trade", b"payloae"), endorsement("other", b"payload"), b"payload".to_vec()] {
        assert!(!verify_aggregate(&public, &HashedMessage::new(&other), &sum));
    }
    assert!(aggregate(&[]).is_none());
}

#[test]
fn fields_cannot_run_into_each_other() {
    assert_ne!(endorsement("ab", b"c"), endorsement("a", b"bc"));
    assert_ne!(statement("a", &[b"", b"x"]), statement("a", &[b"x", b""]));
    assert_ne!(statement("a", &[b"x"]), statement("a", &[b"x", b""]));
}

#[test]
fn a_key_made_from_anothers_signs_for_both_and_cannot_be_proved() {
    let (victim, evil) = (key(1), key(2));
    let mut rogue = evil.public_key().point().to_owned();
    let negated = negate(victim.public_key().point());
    rogue = group::sum_p2([&rogue, &negated].into_iter()).unwrap();
    let rogue = PublicKey::from_bytes(&compress(&rogue)).unwrap();
    // The attack: evil alone signs, and the sum of both keys is his own.
    let message = endorsement("trade", b"payload");
    let signature = evil.sign(&message);
    assert!(verify_aggregate(&[victim.public_key(), &rogue], &HashedMessage::new(&message), &signature));
    // The defence: he cannot prove that he holds the rogue key's secret.
    let forged = [evil.prove(&owner("trade")), victim.prove(&owner("trade"))];
    assert!(forged.iter().all(|proof| proof.verify(&rogue, &owner("trade")).is_err()));
}

#[test]
fn a_proof_is_good_for_its_owner_only() {
    let secret = key(1);
    let proof = secret.prove(&owner("trade"));
    assert!(proof.verify(secret.public_key(), &owner("trade")).is_ok());
    let others = [
        Owner { msp_id: "Org2MSP", ..owner("trade") },
        Owner { key_info_hash: [8; 32], ..owner("trade") },
        owner("other"),
        owner(""),
    ];
    for other in others {
        assert!(proof.verify(secret.public_key(), &other).is_err(), "{other:?}");
    }
    assert!(proof.verify(key(2).public_key(), &owner("trade")).is_err());
    // A signature over the same bytes is no proof: the ciphersuites differ.
    let signature = secret.sign(&owner("trade").message(secret.public_key()));
    assert!(Proof(signature).verify(secret.public_key(), &owner("trade")).is_err());
}

#[test]
fn only_canonical_points_of_the_subgroups_are_read() {
    let good = key(1).sign(b"x").to_bytes();
    assert!(Signature::from_bytes(&good).is_ok());
    let mut infinity = [0; SIGNATURE_BYTES];
    infinity[0] = 0xc0;
    let mut spoilt_infinity = infinity;
    spoilt_infinity[47] = 1;
    let mut uncompressed_flag = good;
    uncompressed_flag[0] &= 0x7f;
    let mut sorted_infinity = infinity;
    sorted_infinity[0] |= 0x20;
    // The field's modulus plus two would be a second encoding of x = 2.
    let mut beyond = hex::decode(
        "1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaad",
    )
    .unwrap();
    beyond[0] |= 0x80;
    let torsion = group::torsion::added_to(&key(1).sign(b"x").point);
    let wrong: [&[u8]; 8] = [
        &infinity,
        &spoilt_infinity,
        &uncompressed_flag,
        &sorted_infinity,
        &beyond,
        &torsion,
        &good[..47],
        &[],
    ];
    for bytes in wrong {
        assert!(Signature::from_bytes(bytes).is_err(), "{}", hex::encode(bytes));
    }
    let mut no_key = [0; PUBLIC_KEY_BYTES];
    assert!(PublicKey::from_bytes(&no_key).is_err());
    no_key[0] = 0xc0;
    assert!(PublicKey::from_bytes(&no_key).is_err(), "the identity is no key");
}

#[test]
fn a_component_of_small_order_would_pass_the_pairing_and_is_refused_before() {
    let secret = key(1);
    let message = HashedMessage::new(b"x");
    let bytes = group::torsion::added_to(&secret.sign(b"x").point);
    assert!(group::torsion::passes_unchecked(&bytes, &message.point(), secret.public_key().point()));
    assert!(Signature::from_bytes(&bytes).is_err());
}

/// A block: who signed which message, and the sums.
struct Block {
    keys: Vec<Vec<PublicKey>>,
    messages: Vec<HashedMessage>,
    signatures: Vec<Signature>,
}

impl Block {
    fn new(transactions: usize) -> Self {
        let secrets: Vec<SecretKey> = (1..=5).map(key).collect();
        let mut block = Self { keys: Vec::new(), messages: Vec::new(), signatures: Vec::new() };
        for number in 0..transactions {
            let message = endorsement("trade", &number.to_be_bytes());
            let signers: Vec<&SecretKey> =
                secrets.iter().cycle().skip(number % 5).take(2 + number % 3).collect();
            let parts: Vec<Signature> = signers.iter().map(|signer| signer.sign(&message)).collect();
            block.keys.push(signers.iter().map(|signer| signer.public_key().clone()).collect());
            block.messages.push(HashedMessage::new(&message));
            block.signatures.push(aggregate(&parts).unwrap());
        }
        block
    }

    fn checks(&self) -> Vec<Check<'_>> {
        let parts = self.keys.iter().zip(&self.messages).zip(&self.signatures);
        parts.map(|((keys, message), signature)| Check { keys, message, signature }).collect()
    }
}

#[test]
fn two_wrong_signatures_that_cancel_each_other_are_both_found() {
    let mut block = Block::new(12);
    let shift = key(9).sign(b"shift").point;
    let minus = negate_signature(&shift);
    block.signatures[2] = aggregate(&[block.signatures[2], Signature { point: shift }]).unwrap();
    block.signatures[7] = aggregate(&[block.signatures[7], Signature { point: minus }]).unwrap();
    // A plain sum of the equations holds: with coefficients of one the batch would pass.
    let mut one = [0; COEFFICIENT_BYTES];
    one[0] = 1;
    let ones = [Coefficient::new(one); 12];
    assert!(batch::random_sum_holds(&block.checks(), &ones));
    let verdicts = judge(&block.checks());
    let wrong: Vec<usize> = (0..12).filter(|index| !verdicts[*index]).collect();
    assert_eq!(wrong, [2, 7]);
}

#[test]
fn a_block_is_judged_as_its_transactions_alone_whatever_is_wrong_and_however_it_is_cut() {
    for (size, spoilt) in [
        (0, vec![]),
        (1, vec![0]),
        (7, vec![3]),
        (8, vec![]),
        (33, vec![0, 31, 32]),
        (40, (0..40).step_by(2).collect()),
    ] {
        let mut block = Block::new(size);
        for index in &spoilt {
            let index: usize = *index;
            match index % 4 {
                0 => block.messages[index] = HashedMessage::new(b"another message"),
                1 => block.keys[index].truncate(1),
                2 => block.keys[index].push(key(40).public_key().clone()),
                _ => block.keys[index].clear(),
            }
        }
        let expected: Vec<bool> = (0..size).map(|index| !spoilt.contains(&index)).collect();
        let checks = block.checks();
        assert_eq!(judge(&checks), expected);
        assert_eq!(checks.iter().map(Check::holds).collect::<Vec<_>>(), expected);
        for cut in [3, 10] {
            let parts: Vec<bool> = checks.chunks(cut).flat_map(judge).collect();
            assert_eq!(parts, expected);
        }
        assert_eq!(verify_batch(&checks), Some(spoilt.is_empty()));
    }
}

#[test]
fn keys_whose_sum_is_the_identity_sign_nothing() {
    let secret = key(1);
    let negated = PublicKey::from_bytes(&compress(&negate(secret.public_key().point()))).unwrap();
    let keys = [secret.public_key().clone(), negated];
    let signature = secret.sign(b"x");
    let message = HashedMessage::new(b"x");
    let check = Check { keys: &keys, message: &message, signature: &signature };
    assert!(!check.holds());
    assert_eq!(verify_batch(&[check; 9]), Some(false));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..130)) {
        let _ = Signature::from_bytes(&bytes);
        let _ = PublicKey::from_bytes(&bytes);
        let _ = Proof::from_bytes(&bytes);
    }

    #[test]
    fn a_mutated_point_is_refused_or_says_the_same(position in 0usize..48, bit in 0u8..8) {
        let mut bytes = key(3).sign(b"x").to_bytes();
        bytes[position] ^= 1 << bit;
        if let Ok(read) = Signature::from_bytes(&bytes) {
            prop_assert_eq!(read.to_bytes(), bytes);
            prop_assert!(!key(3).public_key().verify(b"x", &read));
        }
    }
}

fn negate(point: &blst_p2_affine) -> blst_p2_affine {
    // The other root: flip the flag of the larger y in the compressed form.
    let mut bytes = compress(point);
    bytes[0] ^= 0x20;
    group::read_p2(&bytes).unwrap()
}

fn negate_signature(point: &blst_p1_affine) -> blst_p1_affine {
    let mut bytes = group::write_p1(point);
    bytes[0] ^= 0x20;
    group::read_p1(&bytes).unwrap()
}

fn compress(point: &blst_p2_affine) -> [u8; PUBLIC_KEY_BYTES] {
    min_sig::PublicKey::from(*point).compress()
}
