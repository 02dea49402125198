//! Project Wycheproof's vectors for ECDSA, against the tables and the library.

use der::asn1::UintRef;
use der::{Decode, Sequence};

use super::SMALL_AFTER;
use crate::Error;
use crate::key::KeyAlgorithm;
use crate::public_key::PublicKey;

const VECTORS: &str = include_str!("../../tests/wycheproof/ecdsa_p256_sha256.txt");

/// A signature as DER demands it, to its last byte.
#[derive(Sequence)]
struct Strict<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

fn bytes(text: &str) -> Vec<u8> {
    if text == "-" { Vec::new() } else { hex::decode(text).unwrap() }
}

#[test]
fn every_vector_gets_its_verdict_with_and_without_a_table() {
    let lines = VECTORS.lines().filter(|line| !line.starts_with('#'));
    let mut judged = 0;
    for line in lines {
        let [number, verdict, key, message, signature] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("not five columns: {line}");
        };
        let (message, signature) = (bytes(message), bytes(signature));
        let key = PublicKey::from_point(KeyAlgorithm::P256, &bytes(key)).unwrap();
        let library = key.verify_with_library(&message, &signature);
        // A signature that does not parse is refused before it is counted; the table comes with those that do.
        for signing in 0..=SMALL_AFTER {
            let known = key.verify(&message, &signature);
            assert_eq!(
                known.is_ok(),
                library.is_ok(),
                "vector {number}, signature {signing}: {known:?}, {library:?}"
            );
        }
        match (verdict, &library) {
            ("valid", Ok(()) | Err(Error::HighS)) | ("invalid", Err(_)) => {}
            // Bytes after a signature are ignored, as Fabric's nodes do.
            ("invalid", Ok(())) => {
                assert!(Strict::from_der(&signature).is_err(), "vector {number} is accepted");
            }
            _ => panic!("vector {number} is {verdict} but gets {library:?}"),
        }
        judged += 1;
    }
    assert_eq!(judged, 484);
}
