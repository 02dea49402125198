//! Keys sign low, verify strictly and keep their secret.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use consort_crypto::Error;
use consort_crypto::key::{PrivateKey, PublicKey, Signer};
use proptest::prelude::*;

const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

/// The other valid signature: S replaced by order - S.
fn twin(signature: &[u8]) -> Vec<u8> {
    let order = hex::decode(ORDER).unwrap();
    let r_length = usize::from(signature[3]);
    let s = &signature[4 + r_length + 2..];
    let mut padded = vec![0; 32 - s.len()];
    padded.extend_from_slice(s);
    let (mut high, mut borrow) = (vec![0; 32], 0i16);
    for index in (0..32).rev() {
        let digit = i16::from(order[index]) - i16::from(padded[index]) - borrow;
        borrow = i16::from(digit < 0);
        high[index] = u8::try_from(digit.rem_euclid(256)).unwrap();
    }
    let mut content = signature[2..4 + r_length].to_vec();
    content.extend([2, 33, 0]);
    content.extend(high);
    let mut out = vec![0x30, u8::try_from(content.len()).unwrap()];
    out.extend(content);
    out
}

#[test]
fn the_higher_of_two_signatures_is_refused() {
    let key = PrivateKey::generate_p256().unwrap();
    let signature = key.sign(b"message").unwrap();
    key.public_key().verify(b"message", &signature).unwrap();
    assert!(matches!(key.public_key().verify(b"message", &twin(&signature)), Err(Error::HighS)));
}

#[test]
fn a_hundred_signatures_are_all_low() {
    let key = PrivateKey::generate_p256().unwrap();
    for number in 0..100u32 {
        let message = number.to_be_bytes();
        key.public_key().verify(&message, &key.sign(&message).unwrap()).unwrap();
    }
}

#[test]
fn bytes_after_a_signature_are_ignored_as_fabric_does() {
    let key = PrivateKey::generate_p256().unwrap();
    let mut signature = key.sign(b"message").unwrap();
    signature.extend([1, 2, 3]);
    key.public_key().verify(b"message", &signature).unwrap();
}

#[test]
fn another_message_or_key_does_not_verify() {
    let (key, other) = (PrivateKey::generate_p256().unwrap(), PrivateKey::generate_p256().unwrap());
    let signature = key.sign(b"message").unwrap();
    assert!(matches!(key.public_key().verify(b"massage", &signature), Err(Error::SignatureMismatch)));
    assert!(matches!(other.public_key().verify(b"message", &signature), Err(Error::SignatureMismatch)));
    assert!(matches!(key.public_key().verify(b"message", b""), Err(Error::SignatureEncoding)));
}

#[test]
fn a_key_survives_its_file_and_stays_out_of_debug_output() {
    let key = PrivateKey::generate_p256().unwrap();
    let text = key.to_pem();
    assert!(text.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    let read = PrivateKey::from_pem(&text).unwrap();
    assert_eq!(read.public_key(), key.public_key());
    let PublicKey::P256(point) = key.public_key() else { panic!("not P-256") };
    assert_eq!(point.len(), 65);
    let shown = format!("{key:?}");
    assert!(
        shown.starts_with("PrivateKey { public: PublicKey::P-256(04") && shown.ends_with(", .. }"),
        "{shown}"
    );
}

#[test]
fn files_without_a_key_are_refused() {
    assert!(matches!(PrivateKey::from_pem(""), Err(Error::Pem { .. })));
    let broken = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(matches!(PrivateKey::from_pem(broken), Err(Error::PrivateKey(_))));
}

#[test]
fn a_key_is_a_signer() {
    let key = PrivateKey::generate_p256().unwrap();
    let signer: &dyn Signer = &key;
    key.public_key().verify(b"m", &signer.sign(b"m").unwrap()).unwrap();
}

proptest! {
    #[test]
    fn arbitrary_signatures_are_refused(signature in proptest::collection::vec(any::<u8>(), 0..100), message in any::<Vec<u8>>()) {
        let key = PrivateKey::generate_p256().unwrap();
        prop_assert!(key.public_key().verify(&message, &signature).is_err());
    }
}
