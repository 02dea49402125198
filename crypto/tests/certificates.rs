//! Certificates are issued, read, verified and made low-S.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::Command;

use consort_crypto::bls::{CertifiedKey, SecretKey};
use consort_crypto::certificate::{Certificate, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName};
use consort_crypto::issue::{CertificateAuthority, DistinguishedName, NamePart, Template, Validity};
use consort_crypto::key::PrivateKey;
use consort_crypto::request::CertificateRequest;
use consort_crypto::revocation::{RevocationList, RevokedCertificate};
use consort_crypto::{Error, pem};
use proptest::prelude::*;
use time::macros::datetime;

const VALIDITY: Validity = Validity {
    not_before: datetime!(2026-01-01 00:00:00 UTC),
    not_after: datetime!(2056-01-01 00:00:00 UTC),
};

fn root() -> CertificateAuthority {
    let subject = DistinguishedName::new()
        .with(NamePart::Country, "US")
        .with(NamePart::CommonName, "ca.org1.example.com");
    CertificateAuthority::new_root(&subject, PrivateKey::generate_p256().unwrap(), VALIDITY).unwrap()
}

fn identity_template() -> Template {
    let subject = DistinguishedName::new()
        .with(NamePart::OrganizationalUnit, "client")
        .with(NamePart::OrganizationalUnit, "org1")
        .with(NamePart::OrganizationalUnit, "department1")
        .with(NamePart::CommonName, "user1");
    let mut template = Template::identity(subject, VALIDITY);
    template.attributes = Some(br#"{"attrs":{"hf.Type":"client","role":"clerk"}}"#.to_vec());
    template
}

fn names() -> Vec<SubjectAlternativeName> {
    ["peer0.org1.example.com", "127.0.0.1", "::1", "a@b.example", "https://x.example/y"]
        .map(SubjectAlternativeName::from_text)
        .to_vec()
}

#[test]
fn a_bls_key_is_carried_and_counts_for_its_holder_only() {
    let (root, key, bls) = (root(), PrivateKey::generate_p256().unwrap(), SecretKey::generate().unwrap());
    let proved = CertifiedKey::prove(&bls, "Org1MSP", key.public_key());
    let template = Template { bls_key: Some(proved.clone()), ..identity_template() };
    let certificate = root.issue(&template, key.public_key()).unwrap();
    assert_eq!(certificate.bls_key().unwrap(), Some(proved.clone()));
    assert!(!certificate.has_unknown_critical_extension());
    // An authority that does not look may put it elsewhere; it counts for nobody there.
    let other = PrivateKey::generate_p256().unwrap();
    assert!(root.issue(&template, other.public_key()).unwrap().bls_key().is_err());
    assert_eq!(root.issue(&identity_template(), other.public_key()).unwrap().bls_key().unwrap(), None);
    let mut renamed = proved.clone();
    renamed.msp_id = "Org2MSP".to_owned();
    assert!(CertifiedKey::from_der(&renamed.to_der(), key.public_key()).is_err());
    for bytes in [&proved.to_der()[1..], &[&proved.to_der()[..], b"."].concat(), b""] {
        assert!(CertifiedKey::from_der(bytes, key.public_key()).is_err());
    }
}

#[test]
fn an_identity_says_what_its_template_says() {
    let root = root();
    let key = PrivateKey::generate_p256().unwrap();
    let certificate = root.issue(&identity_template(), key.public_key()).unwrap();
    certificate.verify_issued_by(root.certificate()).unwrap();
    assert_eq!(certificate.subject_common_name(), Some("user1"));
    assert_eq!(certificate.organizational_units(), ["client", "org1", "department1"]);
    assert_eq!(certificate.attributes()["role"], "clerk");
    assert_eq!(certificate.key_usage(), Some(KeyUsage::DIGITAL_SIGNATURE));
    assert_eq!(certificate.extended_key_usage(), None);
    assert_eq!(
        (certificate.not_before(), certificate.not_after()),
        (VALIDITY.not_before, VALIDITY.not_after)
    );
    assert_eq!(certificate.authority_key_id(), root.certificate().subject_key_id());
    assert_eq!(certificate.subject_key_id().unwrap().len(), 32);
    assert_eq!(certificate.public_key(), key.public_key());
    assert_eq!(certificate.serial().len(), 16);
    assert!(!certificate.is_ca() && !certificate.has_unknown_critical_extension());
}

#[test]
fn a_tls_certificate_names_its_hosts_and_purposes() {
    let root = root();
    let key = PrivateKey::generate_p256().unwrap();
    let template = Template::tls(DistinguishedName::common_name("peer0"), VALIDITY, names());
    let certificate = root.issue(&template, key.public_key()).unwrap();
    assert_eq!(certificate.subject_alternative_names(), names());
    let purposes = [ExtendedKeyUsage::ServerAuth, ExtendedKeyUsage::ClientAuth];
    assert_eq!(certificate.extended_key_usage().unwrap(), purposes);
    assert!(certificate.key_usage().unwrap().contains(KeyUsage::KEY_ENCIPHERMENT));
}

#[test]
fn an_intermediate_issues_below_its_root() {
    let root = root();
    let key = PrivateKey::generate_p256().unwrap();
    let template = Template::authority(DistinguishedName::common_name("ica"), VALIDITY, Some(0));
    let certificate = root.issue(&template, key.public_key()).unwrap();
    assert_eq!((certificate.is_ca(), certificate.path_len()), (true, Some(0)));
    let intermediate = CertificateAuthority::from_pem(certificate.pem(), &key.to_pem()).unwrap();
    let leaf = intermediate.issue(&identity_template(), key.public_key()).unwrap();
    leaf.verify_issued_by(intermediate.certificate()).unwrap();
    assert!(matches!(leaf.verify_issued_by(root.certificate()), Err(Error::DoesNotBelong(_))));
}

#[test]
fn an_authority_needs_its_own_key_and_the_right_to_issue() {
    let root = root();
    let other = PrivateKey::generate_p256().unwrap();
    assert!(CertificateAuthority::from_pem(root.certificate().pem(), &other.to_pem()).is_err());
    let leaf = root.issue(&identity_template(), other.public_key()).unwrap();
    assert!(CertificateAuthority::from_pem(leaf.pem(), &other.to_pem()).is_err());
}

#[test]
fn units_of_one_relative_name_are_all_found() {
    let mut subject = DistinguishedName::new();
    subject.push_together(NamePart::OrganizationalUnit, &["peer", "b"]);
    subject.push(NamePart::CommonName, "x");
    let root = root();
    let certificate = root.issue(&Template::identity(subject, VALIDITY), root.key().public_key()).unwrap();
    // DER orders the members of a set by their bytes: the shorter comes first.
    assert_eq!(certificate.organizational_units(), ["b", "peer"]);
}

#[test]
fn names_that_do_not_fit_are_refused() {
    let root = root();
    for (part, value) in [
        (NamePart::CommonName, "x".repeat(65)),
        (NamePart::Country, "USA".to_owned()),
        (NamePart::CommonName, String::new()),
    ] {
        let template = Template::identity(DistinguishedName::new().with(part, &value), VALIDITY);
        assert!(matches!(root.issue(&template, root.key().public_key()), Err(Error::Issue(_))), "{value}");
    }
    let mut template = identity_template();
    template.not_after = template.not_before;
    assert!(matches!(root.issue(&template, root.key().public_key()), Err(Error::Issue(_))));
}

#[test]
fn a_request_proves_the_possession_of_its_key() {
    let key = PrivateKey::generate_p256().unwrap();
    let request = CertificateRequest::create(&key, "peer0", &names()).unwrap();
    let read = CertificateRequest::from_pem(request.pem().replace('\n', "\r\n")).unwrap();
    read.verify().unwrap();
    assert_eq!(read.common_name(), Some("peer0"));
    assert_eq!(read.sans(), names());
    assert_eq!(read.public_key(), key.public_key());
    assert!(!read.asks_for_ca());

    let mut stolen = request.der().to_vec();
    let last = stolen.len() - 1;
    stolen[last] ^= 1;
    assert!(CertificateRequest::from_der(&stolen).unwrap().verify().is_err());
}

#[test]
fn a_list_of_revoked_certificates_is_signed_by_its_authority() {
    let root = root();
    let certificate = root.issue(&identity_template(), root.key().public_key()).unwrap();
    let other = root.issue(&identity_template(), root.key().public_key()).unwrap();
    let revoked = [RevokedCertificate {
        serial: certificate.serial().to_vec(),
        revoked_at: datetime!(2026-02-01 00:00:00 UTC),
        reason: 1,
    }];
    let (now, next) = (datetime!(2026-02-02 00:00:00 UTC), datetime!(2026-03-02 00:00:00 UTC));
    let list = root.issue_crl(&revoked, 7, now, next).unwrap();
    let read = RevocationList::from_pem_or_der(list.pem().as_bytes()).unwrap();
    read.verify_issued_by(root.certificate()).unwrap();
    assert!(read.contains(&certificate) && !read.contains(&other));
    assert_eq!(read.revoked(), revoked);
    assert_eq!((read.this_update(), read.next_update()), (now, Some(next)));
    assert_eq!(read.authority_key_id(), root.certificate().subject_key_id());
    assert!(read.verify_issued_by(&other).is_ok(), "the same key");
    let empty = root.issue_crl(&[], 8, now, next).unwrap();
    assert!(empty.revoked().is_empty());
}

/// The same certificate with the other of the two valid signatures.
fn with_high_s(certificate: &Certificate) -> Vec<u8> {
    let der = certificate.der();
    let order = hex::decode("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551").unwrap();
    // SEQUENCE { SEQUENCE body, SEQUENCE algorithm (12 bytes), BIT STRING }, both sequences with two bytes of length.
    let body_length = usize::from(der[6]) * 256 + usize::from(der[7]);
    let start = 8 + body_length + 12;
    assert_eq!((der[1], der[5], der[start], der[start + 2]), (0x82, 0x82, 0x03, 0));
    let signature = &der[start + 3..];
    let r_length = usize::from(signature[3]);
    let r = &signature[2..4 + r_length];
    let s = &signature[4 + r_length + 2..];
    let mut low = vec![0; 32 - s.len().min(32)];
    low.extend_from_slice(&s[s.len().saturating_sub(32)..]);
    let (mut high, mut borrow) = (vec![0; 32], 0i16);
    for index in (0..32).rev() {
        let digit = i16::from(order[index]) - i16::from(low[index]) - borrow;
        borrow = i16::from(digit < 0);
        high[index] = u8::try_from(digit.rem_euclid(256)).unwrap();
    }
    let integer = [&[2, 33, 0][..], &high].concat();
    let pair = element(0x30, &[r, &integer].concat());
    let algorithm_and_body = &der[4..start];
    element(0x30, &[algorithm_and_body, &element(0x03, &[&[0], &pair[..]].concat())].concat())
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let header = match length {
        0..=127 => vec![tag, u8::try_from(length).unwrap()],
        128..=255 => vec![tag, 0x81, u8::try_from(length).unwrap()],
        _ => vec![tag, 0x82, u8::try_from(length >> 8).unwrap(), u8::try_from(length & 0xff).unwrap()],
    };
    [header, content.to_vec()].concat()
}

#[test]
fn a_certificate_with_a_high_signature_is_the_same_certificate() {
    let root = root();
    for certificate in
        [root.certificate().clone(), root.issue(&identity_template(), root.key().public_key()).unwrap()]
    {
        let high = with_high_s(&certificate);
        assert_ne!(high, certificate.der().as_ref());
        let read = Certificate::from_der(&high).unwrap();
        assert_eq!(read.der(), certificate.der());
        assert_eq!(read.fingerprint(), certificate.fingerprint());
        read.verify_issued_by(root.certificate()).unwrap();
    }
}

#[test]
fn bytes_after_a_certificate_are_refused() {
    let mut der = root().certificate().der().to_vec();
    der.push(0);
    assert!(Certificate::from_der(&der).is_err());
}

#[test]
fn the_first_block_is_read_whatever_surrounds_it() {
    let root = root();
    let text = format!("subject: x\n{}\ntrailing", pem::encode("ANYTHING", root.certificate().der()));
    assert_eq!(Certificate::from_pem(text).unwrap(), *root.certificate());
    let two = format!("{0}{0}", root.certificate().pem());
    assert_eq!(Certificate::all_from_pem(two.as_bytes()).unwrap().len(), 2);
    assert!(matches!(Certificate::from_pem("nothing"), Err(Error::Pem { .. })));
}

#[test]
fn openssl_accepts_what_we_issue() {
    let folder = tempfile::tempdir().unwrap();
    let root = root();
    let key = PrivateKey::generate_p256().unwrap();
    let mut template = Template::authority(DistinguishedName::common_name("ica"), VALIDITY, Some(0));
    template.key_usage = template.key_usage.and(KeyUsage::DIGITAL_SIGNATURE);
    let intermediate = root.issue(&template, key.public_key()).unwrap();
    let intermediate = CertificateAuthority::new(intermediate, key).unwrap();
    let leaf = intermediate
        .issue(
            &Template::tls(DistinguishedName::common_name("peer0"), VALIDITY, names()),
            root.key().public_key(),
        )
        .unwrap();
    let now = datetime!(2026-02-02 00:00:00 UTC);
    let list = root.issue_crl(&[], 1, now, datetime!(2056-01-01 00:00:00 UTC)).unwrap();
    let request = CertificateRequest::create(root.key(), "peer0", &names()).unwrap();
    for (file, text) in [
        ("root.pem", root.certificate().pem()),
        ("ica.pem", intermediate.certificate().pem()),
        ("leaf.pem", leaf.pem()),
        ("crl.pem", list.pem()),
        ("csr.pem", request.pem()),
        ("key.pem", root.key().to_pem().to_string()),
    ] {
        std::fs::write(folder.path().join(file), text).unwrap();
    }
    let openssl = |arguments: &str| {
        let output =
            Command::new("openssl").args(arguments.split(' ')).current_dir(folder.path()).output().unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "openssl {arguments}: {said}");
        said
    };
    openssl(
        "verify -x509_strict -CAfile root.pem -untrusted ica.pem -purpose sslserver -verify_hostname peer0.org1.example.com -attime 1770000000 leaf.pem",
    );
    openssl("crl -in crl.pem -CAfile root.pem -noout");
    openssl("req -in csr.pem -verify -noout");
    let text = openssl("x509 -in leaf.pem -noout -text");
    assert!(text.contains("IP Address:127.0.0.1") && text.contains("DNS:peer0.org1.example.com"), "{text}");
    openssl("pkey -in key.pem -check -noout");
}

#[test]
fn keys_of_openssl_are_read_in_both_forms() {
    let openssl = |arguments: &str| {
        let output = Command::new("openssl").args(arguments.split(' ')).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let message = b"message";
    for text in [
        openssl("ecparam -name prime256v1 -genkey -noout"),
        openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"),
    ] {
        let key = PrivateKey::from_pem(&text).unwrap();
        key.public_key().verify(message, &key.sign(message).unwrap()).unwrap();
    }
    let other = openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp256k1");
    assert!(matches!(PrivateKey::from_pem(&other), Err(Error::PrivateKey(_))));
}

#[test]
fn an_authority_on_p384_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    let openssl = |arguments: &str| {
        let output =
            Command::new("openssl").args(arguments.split(' ')).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -keyout key.pem -out root.pem -days 9 -subj /CN=root",
    );
    let root = Certificate::from_pem(std::fs::read(folder.path().join("root.pem")).unwrap()).unwrap();
    root.verify_issued_by(&root).unwrap();
    assert_eq!((root.public_key().algorithm(), root.is_ca()), ("P-384", true));

    std::fs::write(folder.path().join("message"), "message").unwrap();
    // openssl leaves S where it falls: about half of the signatures are low.
    let (mut low, mut high) = (0, 0);
    while low == 0 || high == 0 {
        openssl("dgst -sha256 -sign key.pem -out signature message");
        match root.public_key().verify(b"message", &std::fs::read(folder.path().join("signature")).unwrap()) {
            Ok(()) => low += 1,
            Err(Error::HighS) => high += 1,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn an_rsa_root_certifies_but_signs_no_messages() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out root.pem -days 9 -subj /CN=root";
    let output =
        Command::new("openssl").args(arguments.split(' ')).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let root = Certificate::from_pem(std::fs::read(folder.path().join("root.pem")).unwrap()).unwrap();
    root.verify_issued_by(&root).unwrap();
    assert!(matches!(root.public_key().verify(b"m", b"s"), Err(Error::Unsupported(_))));
}

#[test]
fn another_encoding_of_a_certificate_is_refused() {
    let der = root().certificate().der().to_vec();
    assert_eq!(der[..2], [0x30, 0x82]);
    // The length in three bytes where two are enough.
    let mut long = vec![0x30, 0x83, 0];
    long.extend_from_slice(&der[2..]);
    assert!(matches!(Certificate::from_der(&long), Err(Error::Malformed { .. })));
    // Bits of the signature's last byte declared unused: the byte before its sequence.
    let place = (0..der.len() - 3)
        .rev()
        .find(|place| der[*place] == 3 && usize::from(der[place + 1]) == der.len() - place - 2)
        .unwrap();
    let mut unused = der.clone();
    unused[place + 2] = 1;
    assert!(matches!(Certificate::from_der(&unused), Err(Error::Malformed { .. })));
    // TRUE written as 1 in the basic constraints' flag (a critical extension).
    let flag = (0..der.len() - 3).find(|place| der[*place..place + 3] == [1, 1, 0xff]).unwrap();
    let mut truth = der;
    truth[flag + 2] = 1;
    assert!(matches!(Certificate::from_der(&truth), Err(Error::Malformed { .. })));
}

#[test]
fn damaged_certificates_never_panic() {
    let root = root();
    let certificate = root.issue(&identity_template(), root.key().public_key()).unwrap();
    let der = certificate.der();
    for place in 0..der.len() {
        for flip in [1, 0x80, 0xff] {
            let mut damaged = der.to_vec();
            damaged[place] ^= flip;
            let _ = Certificate::from_der(&damaged);
        }
        let _ = Certificate::from_der(&der[..place]);
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_a_reader(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Certificate::from_der(&bytes);
        let _ = Certificate::from_pem(&bytes);
        let _ = CertificateRequest::from_der(&bytes);
        let _ = RevocationList::from_pem_or_der(&bytes);
        let _ = PrivateKey::from_pem(&String::from_utf8_lossy(&bytes));
    }
}
