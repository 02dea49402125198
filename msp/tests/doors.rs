//! What a door judges beside membership: ends of validity and revocation, alike for signing identities and TLS; and the rules for
//! authorities that a configuration brings.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::sync::Arc;

use bytes::Bytes;
use consort_crypto::{
    certificate::Certificate,
    issue::{CertificateAuthority, Template, Validity},
    key::PrivateKey,
    name::{DistinguishedName, NamePart},
    revocation::RevokedCertificate,
};
use consort_msp::{IdentityError, Msp, MspManager, MspVersion, serialize};
use consort_protos::{
    fabric::msp::{FabricMspConfig, FabricNodeOUs},
    ids::MspId,
};
use time::{Duration, OffsetDateTime, macros::datetime};

const BEGIN: OffsetDateTime = datetime!(2020-01-01 00:00 UTC);
const END: OffsetDateTime = datetime!(2030-01-01 00:00 UTC);
const VALIDITY: Validity = Validity { not_before: BEGIN, not_after: END };

fn root(name: &str) -> CertificateAuthority {
    let key = PrivateKey::generate_p256().unwrap();
    CertificateAuthority::new_root(&DistinguishedName::common_name(name), key, VALIDITY).unwrap()
}

fn lower(parent: &CertificateAuthority, name: &str) -> CertificateAuthority {
    let key = PrivateKey::generate_p256().unwrap();
    let template = Template::authority(DistinguishedName::common_name(name), VALIDITY, None);
    let certificate = parent.issue(&template, key.public_key()).unwrap();
    CertificateAuthority::new(certificate, key).unwrap()
}

fn member(authority: &CertificateAuthority) -> Certificate {
    let subject = DistinguishedName::common_name("peer0").with(NamePart::OrganizationalUnit, "peer");
    let key = PrivateKey::generate_p256().unwrap();
    authority.issue(&Template::identity(subject, VALIDITY), key.public_key()).unwrap()
}

fn tls(authority: &CertificateAuthority) -> Arc<Certificate> {
    let template = Template::tls(DistinguishedName::common_name("peer0"), VALIDITY, Vec::new());
    let key = PrivateKey::generate_p256().unwrap();
    Arc::new(authority.issue(&template, key.public_key()).unwrap())
}

fn revokes(authority: &CertificateAuthority, certificates: &[&Certificate]) -> Bytes {
    let entries: Vec<RevokedCertificate> = certificates
        .iter()
        .map(|one| RevokedCertificate { serial: one.serial().to_vec(), revoked_at: BEGIN, reason: 0 })
        .collect();
    // Its dates are long past: they play no part.
    authority.issue_crl(&entries, 1, BEGIN, BEGIN + Duration::days(1)).unwrap().pem().into_bytes().into()
}

fn pem(certificate: &Certificate) -> Bytes {
    certificate.pem().into_bytes().into()
}

fn config(roots: &[&CertificateAuthority], intermediates: &[&CertificateAuthority]) -> FabricMspConfig {
    let pems = |list: &[&CertificateAuthority]| list.iter().map(|one| pem(one.certificate())).collect();
    FabricMspConfig {
        name: "Org1MSP".to_owned(),
        root_certs: pems(roots),
        intermediate_certs: pems(intermediates),
        fabric_node_ous: Some(FabricNodeOUs::named(&Bytes::new())),
        ..FabricMspConfig::default()
    }
}

fn msp(config: &FabricMspConfig) -> Result<Msp, String> {
    Msp::new(config, MspVersion::V1_4_3).map_err(|error| error.to_string())
}

fn admitted(msp: Msp, certificate: &Certificate, now: OffsetDateTime) -> Result<(), IdentityError> {
    let manager = MspManager::new(vec![msp]);
    manager.deserialize(&serialize(&MspId::parse("Org1MSP").unwrap(), certificate)).unwrap().admit(now)
}

#[test]
fn a_door_refuses_what_has_ended_while_committed_blocks_keep_their_verdict() {
    let root = root("ca");
    let certificate = member(&root);
    let of = |now| admitted(msp(&config(&[&root], &[])).unwrap(), &certificate, now);
    assert_eq!(of(END - Duration::SECOND), Ok(()));
    let ended = of(END).unwrap_err();
    assert_eq!(ended, IdentityError::Expired { name: "peer0".to_owned(), at: END });
    let manager = MspManager::new(vec![msp(&config(&[&root], &[])).unwrap()]);
    let identity = manager.deserialize(&serialize(&MspId::parse("Org1MSP").unwrap(), &certificate)).unwrap();
    assert_eq!(identity.validate(), Ok(()), "no clock decides about a committed block");
}

#[test]
fn signing_identities_and_tls_certificates_are_judged_alike() {
    let (signing, serving) = (root("ca"), root("tlsca"));
    let (identity, server, other) = (member(&signing), tls(&serving), tls(&serving));
    let mut config = config(&[&signing], &[]);
    config.tls_root_certs = vec![pem(serving.certificate())];
    config.revocation_list = vec![revokes(&signing, &[&identity]), revokes(&serving, &[&server])];
    let of_tls = |certificate: &Arc<Certificate>, now| msp(&config).unwrap().admit_tls(certificate, now);
    assert_eq!(admitted(msp(&config).unwrap(), &identity, BEGIN), Err(IdentityError::Revoked));
    assert_eq!(of_tls(&server, BEGIN), Err(IdentityError::Revoked));
    assert_eq!(of_tls(&other, BEGIN), Ok(()));
    assert!(matches!(of_tls(&other, END), Err(IdentityError::Expired { .. })));
    let stranger = tls(&root("tlsca"));
    assert!(matches!(of_tls(&stranger, BEGIN), Err(IdentityError::Chain(_))));
}

#[test]
fn a_revoked_authority_is_refused_with_its_msp() {
    let root = root("ca");
    let lower = lower(&root, "lower");
    let mut config = config(&[&root], &[&lower]);
    assert!(msp(&config).is_ok());
    config.revocation_list = vec![revokes(&root, &[lower.certificate()])];
    let refused = msp(&config).unwrap_err();
    assert!(
        refused.starts_with("CA Certificate is not valid, (SN: ") && refused.ends_with("has been revoked"),
        "{refused}"
    );
}

#[test]
fn a_list_of_a_sibling_authority_revokes_nothing() {
    let root = root("ca");
    let (left, right) = (lower(&root, "left"), lower(&root, "right"));
    let certificate = member(&left);
    let mut config = config(&[&root], &[&left, &right]);
    config.revocation_list = vec![revokes(&right, &[&certificate])];
    assert_eq!(admitted(msp(&config).unwrap(), &certificate, BEGIN), Ok(()));
    config.revocation_list.push(revokes(&left, &[&certificate]));
    assert_eq!(admitted(msp(&config).unwrap(), &certificate, BEGIN), Err(IdentityError::Revoked));
}

#[test]
fn a_forged_list_revokes_nothing() {
    let (authority, forger) = (root("ca"), root("ca"));
    let certificate = member(&authority);
    let mut config = config(&[&authority], &[]);
    // The forger's list with the authority's key identifier in it: the signature is the forger's.
    let mut forged = consort_crypto::pem::first_block(&revokes(&forger, &[&certificate])).unwrap().contents;
    let (theirs, ours) =
        (forger.certificate().subject_key_id().unwrap(), authority.certificate().subject_key_id().unwrap());
    let place = forged.windows(theirs.len()).position(|window| window == theirs).unwrap();
    forged[place..place + ours.len()].copy_from_slice(ours);
    config.revocation_list = vec![forged.into()];
    assert_eq!(admitted(msp(&config).unwrap(), &certificate, BEGIN), Ok(()));
}

#[test]
fn an_unknown_critical_extension_is_refused() {
    let root = root("ca");
    let issuer_key = rcgen::KeyPair::from_pem(&root.key().to_pem()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&root.certificate().pem(), issuer_key).unwrap();
    let issue = |critical: bool| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::OrganizationalUnitName, "peer");
        params.not_before = BEGIN;
        params.not_after = END;
        let mut extension = rcgen::CustomExtension::from_oid_content(&[1, 2, 3, 4, 5], vec![5, 0]);
        extension.set_criticality(critical);
        params.custom_extensions.push(extension);
        let key = rcgen::KeyPair::generate().unwrap();
        Certificate::from_pem(params.signed_by(&key, &issuer).unwrap().pem()).unwrap()
    };
    let manager = MspManager::new(vec![msp(&config(&[&root], &[])).unwrap()]);
    let read = |certificate: &Certificate| {
        manager.deserialize(&serialize(&MspId::parse("Org1MSP").unwrap(), certificate))
    };
    assert_eq!(read(&issue(false)).unwrap().validate(), Ok(()));
    let refused = read(&issue(true)).unwrap_err().to_string();
    assert!(refused.contains("x509: unhandled critical extension"), "{refused}");
}
