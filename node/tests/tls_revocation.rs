//! A TLS client certificate on a list of the channel's MSPs is refused like an identity on it.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::time::Duration;

use consort_crypto::{
    certificate::Certificate,
    issue::{CertificateAuthority, DistinguishedName, Template, Validity},
    key::{KeyAlgorithm, PrivateKey},
    revocation::RevokedCertificate,
};
use consort_node::{config::ClientAuth, tls::ServerTls};
use rustls::{CertificateError, Error, server::danger::ClientCertVerifier};
use rustls_pki_types::{CertificateDer, UnixTime};
use time::macros::datetime;

const VALIDITY: Validity =
    Validity { not_before: datetime!(2020-01-01 00:00 UTC), not_after: datetime!(2040-01-01 00:00 UTC) };

fn authority(algorithm: KeyAlgorithm) -> CertificateAuthority {
    let key = PrivateKey::generate(algorithm).unwrap();
    CertificateAuthority::new_root(&DistinguishedName::common_name("tlsca"), key, VALIDITY).unwrap()
}

fn list(authority: &CertificateAuthority, revoked: &Certificate) -> Vec<u8> {
    let begin = VALIDITY.not_before;
    let entry = RevokedCertificate { serial: revoked.serial().to_vec(), revoked_at: begin, reason: 0 };
    let list = authority.issue_crl(&[entry], 1, begin, begin + time::Duration::days(1)).unwrap();
    list.pem().into_bytes()
}

#[test]
fn a_listed_client_is_refused_and_lists_of_others_do_not_matter() {
    let (root, sibling, national) =
        (authority(KeyAlgorithm::P256), authority(KeyAlgorithm::P256), authority(KeyAlgorithm::Sm2));
    let issue = || {
        let key = PrivateKey::generate_p256().unwrap();
        let template = Template::tls(DistinguishedName::common_name("peer0"), VALIDITY, Vec::new());
        (root.issue(&template, key.public_key()).unwrap(), key)
    };
    let ((good, key), (bad, _)) = (issue(), issue());
    let roots = [root.certificate().pem().into_bytes()];
    let server =
        ServerTls::from_pem(good.pem().as_bytes(), key.to_pem().as_bytes(), &roots, ClientAuth::Required)
            .unwrap();
    let clients = server.client_roots();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
    let verdict = |certificate: &Certificate| {
        let der = CertificateDer::from(certificate.der().to_vec());
        clients.verify_client_cert(&der, &[], now).map(|_| ())
    };
    assert_eq!((verdict(&good), verdict(&bad)), (Ok(()), Ok(())));
    let lists = [list(&sibling, &good), list(&national, &good), b"no list".to_vec(), list(&root, &bad)];
    clients.replace_with_lists(&roots, &lists).unwrap();
    assert_eq!(verdict(&good), Ok(()));
    assert_eq!(verdict(&bad), Err(Error::InvalidCertificate(CertificateError::Revoked)));
    clients.replace(&roots).unwrap();
    assert_eq!(verdict(&bad), Ok(()), "a new set of lists is the whole set");
}
