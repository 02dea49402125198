//! Every algorithm makes keys, signs messages, certificates, requests and lists, and reads what others wrote.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use consort_crypto::Error;
use consort_crypto::certificate::{Certificate, KeyUsage, SubjectAlternativeName};
use consort_crypto::issue::{
    CertificateAuthority, CertificateRequest, DistinguishedName, NamePart, Template, Validity,
};
use consort_crypto::key::{KeyAlgorithm, PrivateKey};
use consort_crypto::revocation::RevokedCertificate;
use proptest::prelude::*;
use time::macros::datetime;

#[path = "algorithms/judges.rs"]
mod judges;

use judges::{Judged, openssl, openssl_four};

const VALIDITY: Validity = Validity {
    not_before: datetime!(2026-01-01 00:00:00 UTC),
    not_after: datetime!(2056-01-01 00:00:00 UTC),
};

fn name(text: &str) -> DistinguishedName {
    DistinguishedName::new().with(NamePart::Country, "CN").with(NamePart::CommonName, text)
}

/// A root, an authority below it, and a peer's certificate with its key.
struct Chain {
    root: CertificateAuthority,
    intermediate: CertificateAuthority,
    leaf: Certificate,
    key: PrivateKey,
}

fn chain(algorithm: KeyAlgorithm) -> Chain {
    let root_key = PrivateKey::generate(algorithm).unwrap();
    let root = CertificateAuthority::new_root(&name("root"), root_key, VALIDITY).unwrap();
    let key = PrivateKey::generate(algorithm).unwrap();
    let mut template = Template::authority(name("intermediate"), VALIDITY, Some(0));
    template.key_usage = template.key_usage.and(KeyUsage::DIGITAL_SIGNATURE);
    let intermediate = root.issue(&template, key.public_key()).unwrap();
    let intermediate = CertificateAuthority::new(intermediate, key).unwrap();
    let key = PrivateKey::generate(algorithm).unwrap();
    let subject = name("peer0").with(NamePart::OrganizationalUnit, "peer");
    let leaf = intermediate.issue(&Template::identity(subject, VALIDITY), key.public_key()).unwrap();
    Chain { root, intermediate, leaf, key }
}

#[test]
fn every_algorithm_signs_what_its_public_key_verifies() {
    for algorithm in KeyAlgorithm::ALL {
        let (key, other) =
            (PrivateKey::generate(algorithm).unwrap(), PrivateKey::generate(algorithm).unwrap());
        let signature = key.sign(b"message").unwrap();
        key.public_key().verify(b"message", &signature).unwrap();
        assert!(matches!(key.public_key().verify(b"massage", &signature), Err(Error::SignatureMismatch)));
        assert!(matches!(other.public_key().verify(b"message", &signature), Err(Error::SignatureMismatch)));
        assert!(key.public_key().verify(b"message", b"").is_err());
        assert_eq!((key.algorithm(), key.public_key().key_algorithm()), (algorithm, Some(algorithm)));
    }
}

#[test]
fn every_key_survives_its_file() {
    for algorithm in KeyAlgorithm::ALL {
        let key = PrivateKey::generate(algorithm).unwrap();
        let read = PrivateKey::from_pem(&key.to_pem()).unwrap();
        assert_eq!((read.public_key(), read.algorithm()), (key.public_key(), algorithm));
        key.public_key().verify(b"m", &read.sign(b"m").unwrap()).unwrap();
        assert!(!format!("{key:?}").contains("secret"));
    }
}

#[test]
fn the_names_of_the_algorithms_are_read_and_others_are_refused() {
    for algorithm in KeyAlgorithm::ALL {
        assert_eq!(algorithm.to_string().parse::<KeyAlgorithm>().unwrap(), algorithm);
        assert_eq!(serde_json::to_string(&algorithm).unwrap(), format!("\"{algorithm}\""));
    }
    let refused = "p521".parse::<KeyAlgorithm>().unwrap_err().to_string();
    assert!(refused.contains("choose p256, p384, ed25519 or sm2"), "{refused}");
}

#[test]
fn every_algorithm_issues_a_chain_a_request_and_a_list() {
    for algorithm in KeyAlgorithm::ALL {
        let chain = chain(algorithm);
        let (root, intermediate) = (chain.root.certificate(), chain.intermediate.certificate());
        root.verify_issued_by(root).unwrap();
        intermediate.verify_issued_by(root).unwrap();
        chain.leaf.verify_issued_by(intermediate).unwrap();
        assert!(chain.leaf.verify_issued_by(root).is_err());
        assert_eq!(chain.leaf.public_key(), chain.key.public_key());

        let names = [SubjectAlternativeName::Dns("peer0.example.com".to_owned())];
        let request = CertificateRequest::create(&chain.key, "peer0", &names).unwrap();
        request.verify().unwrap();
        assert_eq!((request.public_key(), request.sans()), (chain.key.public_key(), &names[..]));

        let now = datetime!(2026-02-02 00:00:00 UTC);
        let entry = RevokedCertificate { serial: chain.leaf.serial().to_vec(), revoked_at: now, reason: 1 };
        let list = chain.intermediate.issue_crl(&[entry], 7, now, VALIDITY.not_after).unwrap();
        list.verify_issued_by(intermediate).unwrap();
        assert!(list.verify_issued_by(root).is_err());
        assert!(list.contains(&chain.leaf) && !list.contains(intermediate));
    }
}

#[test]
fn an_authority_certifies_keys_of_another_algorithm() {
    let root = chain(KeyAlgorithm::P256).root;
    for algorithm in KeyAlgorithm::ALL {
        let key = PrivateKey::generate(algorithm).unwrap();
        let leaf = root.issue(&Template::identity(name("x"), VALIDITY), key.public_key()).unwrap();
        leaf.verify_issued_by(root.certificate()).unwrap();
        assert_eq!(leaf.public_key().key_algorithm(), Some(algorithm));
    }
}

#[test]
fn an_sm2_signature_has_one_encoding() {
    let key = PrivateKey::generate(KeyAlgorithm::Sm2).unwrap();
    let mut signature = key.sign(b"m").unwrap();
    signature.push(0);
    assert!(matches!(key.public_key().verify(b"m", &signature), Err(Error::SignatureEncoding)));
    // A zero in front of r.
    let mut padded = key.sign(b"m").unwrap();
    padded.insert(4, 0);
    padded[1] += 1;
    padded[3] += 1;
    assert!(matches!(key.public_key().verify(b"m", &padded), Err(Error::SignatureEncoding)));
}

#[test]
fn a_p384_signature_over_a_message_is_low_and_over_sha256() {
    let key = PrivateKey::generate(KeyAlgorithm::P384).unwrap();
    let judged = Judged::new();
    judged.write("message", "message");
    judged.write("public.pem", &public_pem(&key));
    for _ in 0..20 {
        judged.write_bytes("signature", &key.sign(b"message").unwrap());
        judged.openssl("dgst -sha256 -verify public.pem -signature signature message");
    }
}

fn public_pem(key: &PrivateKey) -> String {
    consort_crypto::pem::encode("PUBLIC KEY", &key.public_key().to_der())
}

#[test]
fn openssl_reads_our_keys_and_we_read_its() {
    let kinds = [
        (KeyAlgorithm::P256, "EC -pkeyopt ec_paramgen_curve:P-256"),
        (KeyAlgorithm::P384, "EC -pkeyopt ec_paramgen_curve:P-384"),
        (KeyAlgorithm::Ed25519, "ED25519"),
        (KeyAlgorithm::Sm2, "SM2"),
    ];
    for (algorithm, kind) in kinds {
        let judged = Judged::new();
        judged.write("key.pem", &PrivateKey::generate(algorithm).unwrap().to_pem());
        let checked = judged.openssl("pkey -in key.pem -noout -text");
        assert!(checked.contains("priv:"), "{checked}");
        let theirs = PrivateKey::from_pem(&openssl(&format!("genpkey -algorithm {kind}"))).unwrap();
        assert_eq!(theirs.algorithm(), algorithm);
        theirs.public_key().verify(b"m", &theirs.sign(b"m").unwrap()).unwrap();
    }
    for (algorithm, curve) in
        [(KeyAlgorithm::P256, "prime256v1"), (KeyAlgorithm::P384, "secp384r1"), (KeyAlgorithm::Sm2, "SM2")]
    {
        let old = openssl(&format!("ecparam -name {curve} -genkey -noout"));
        assert_eq!(PrivateKey::from_pem(&old).unwrap().algorithm(), algorithm);
    }
    let foreign =
        PrivateKey::from_pem(&openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp521r1"));
    let refused = foreign.unwrap_err().to_string();
    assert!(refused.contains("needed: a key on P-256, P-384 or the curve of SM2"), "{refused}");
}

#[test]
fn sm2_signatures_over_messages_agree_with_openssl_in_both_directions() {
    let key = PrivateKey::generate(KeyAlgorithm::Sm2).unwrap();
    let judged = Judged::new();
    judged.write("message", "message");
    judged.write("key.pem", &key.to_pem());
    judged.write("public.pem", &public_pem(&key));
    judged.write_bytes("signature", &key.sign(b"message").unwrap());
    let id = "-sm3 -sigopt distid:1234567812345678";
    judged.openssl(&format!("dgst {id} -verify public.pem -signature signature message"));
    judged.openssl(&format!("dgst {id} -sign key.pem -out theirs message"));
    key.public_key().verify(b"message", &judged.read("theirs")).unwrap();
    // Another id is another message.
    judged.openssl("dgst -sm3 -sigopt distid:somebody -sign key.pem -out foreign message");
    assert!(key.public_key().verify(b"message", &judged.read("foreign")).is_err());
}

#[test]
fn openssl_verifies_an_sm2_chain_of_three_levels_link_by_link() {
    let judged = judged_chain(&chain(KeyAlgorithm::Sm2));
    let id = "-vfyopt distid:1234567812345678";
    let link = |authority: &str, subject: &str| {
        format!("verify -x509_strict -partial_chain -attime 1770000000 {id} -CAfile {authority} {subject}")
    };
    // The id reaches the certificate under judgement only, so that the root's signature over itself is for OpenSSL 4.
    judged.openssl(&link("root.pem", "intermediate.pem"));
    judged.openssl(&link("intermediate.pem", "leaf.pem"));
    judged.openssl(&format!("req -in request.pem -verify -noout {id}"));
    let wrong = link("intermediate.pem", "leaf.pem").replace("1234567812345678", "somebody");
    assert!(judged.openssl_refuses(&wrong).contains("signature failure"));
}

#[test]
fn openssl_verifies_chains_of_p384_and_ed25519_as_a_whole() {
    for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519] {
        let judged = judged_chain(&chain(algorithm));
        judged.openssl(
            "verify -x509_strict -attime 1770000000 -CAfile root.pem -untrusted intermediate.pem leaf.pem",
        );
        judged.openssl("req -in request.pem -verify -noout");
        judged.openssl("crl -in list.pem -CAfile root.pem -noout");
    }
}

#[test]
fn openssl_four_verifies_an_sm2_chain_of_three_levels_as_a_whole() {
    for algorithm in [KeyAlgorithm::Sm2, KeyAlgorithm::P384, KeyAlgorithm::Ed25519] {
        let good = chain(algorithm);
        let judged = judged_chain(&good);
        openssl_four(&judged, "root.pem intermediate.pem leaf.pem", "valid");
        let mut damaged = good.leaf.der().to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        judged.write("leaf.pem", &consort_crypto::pem::encode("CERTIFICATE", &damaged));
        openssl_four(&judged, "root.pem intermediate.pem leaf.pem", "signature failure");
    }
}

fn judged_chain(chain: &Chain) -> Judged {
    let judged = Judged::new();
    let now = datetime!(2026-02-02 00:00:00 UTC);
    judged.write("root.pem", &chain.root.certificate().pem());
    judged.write("intermediate.pem", &chain.intermediate.certificate().pem());
    judged.write("leaf.pem", &chain.leaf.pem());
    judged.write("request.pem", &CertificateRequest::create(&chain.key, "peer0", &[]).unwrap().pem());
    judged.write("list.pem", &chain.root.issue_crl(&[], 1, now, VALIDITY.not_after).unwrap().pem());
    judged
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn every_message_is_signed_and_no_noise_is_a_signature(message in any::<Vec<u8>>(), noise in proptest::collection::vec(any::<u8>(), 0..100)) {
        for algorithm in KeyAlgorithm::ALL {
            let key = PrivateKey::generate(algorithm).unwrap();
            key.public_key().verify(&message, &key.sign(&message).unwrap()).unwrap();
            prop_assert!(key.public_key().verify(&message, &noise).is_err());
        }
    }
}
