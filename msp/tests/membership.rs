//! Who belongs to an MSP, and as what: made certificates against Fabric's rules.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::fs;

use bytes::Bytes;
use consort_crypto::{
    certificate::{Certificate, ExtendedKeyUsage},
    issue::{CertificateAuthority, Template, Validity},
    key::PrivateKey,
    name::{DistinguishedName, NamePart},
    revocation::RevokedCertificate,
};
use consort_msp::{Msp, MspManager, MspVersion, Role, SigningIdentity, folder, principal, serialize};
use consort_protos::{
    fabric::{
        common::{
            CombinedPrincipal, MspIdentityAnonymity, MspPrincipal, OrganizationUnit,
            msp_principal::Classification,
        },
        msp::{FabricMspConfig, FabricNodeOUs, SerializedIdentity},
    },
    ids::MspId,
};
use prost::Message;
use time::{Duration, OffsetDateTime, macros::datetime};

const BEGIN: OffsetDateTime = datetime!(2020-01-01 00:00 UTC);

fn years(from: OffsetDateTime, count: i64) -> Validity {
    Validity { not_before: from, not_after: from + Duration::days(365 * count) }
}

fn root(name: &str) -> CertificateAuthority {
    let key = PrivateKey::generate_p256().unwrap();
    CertificateAuthority::new_root(&DistinguishedName::common_name(name), key, years(BEGIN, 20)).unwrap()
}

fn intermediate(parent: &CertificateAuthority, name: &str, path_len: Option<u8>) -> CertificateAuthority {
    let key = PrivateKey::generate_p256().unwrap();
    let template = Template::authority(DistinguishedName::common_name(name), years(BEGIN, 20), path_len);
    let certificate = parent.issue(&template, key.public_key()).unwrap();
    CertificateAuthority::new(certificate, key).unwrap()
}

fn subject(name: &str, units: &[&str]) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    for unit in units {
        subject.push(NamePart::OrganizationalUnit, unit);
    }
    subject.with(NamePart::CommonName, name)
}

struct Member {
    certificate: Certificate,
    key: PrivateKey,
}

fn issue(authority: &CertificateAuthority, template: &Template) -> Member {
    let key = PrivateKey::generate_p256().unwrap();
    let certificate = authority.issue(template, key.public_key()).unwrap();
    Member { certificate, key }
}

fn member(authority: &CertificateAuthority, name: &str, units: &[&str]) -> Member {
    let from = BEGIN + Duration::hours(1);
    issue(authority, &Template::identity(subject(name, units), years(from, 1)))
}

fn pem(certificate: &Certificate) -> Bytes {
    certificate.pem().into_bytes().into()
}

fn id() -> MspId {
    MspId::parse("Org1MSP").unwrap()
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

fn manager(config: &FabricMspConfig) -> MspManager {
    MspManager::new(vec![Msp::new(config, MspVersion::V1_4_3).unwrap()])
}

fn verdict(manager: &MspManager, certificate: &Certificate) -> Result<(), String> {
    let identity = manager.deserialize(&serialize(&id(), certificate)).map_err(|error| error.to_string())?;
    manager.validate(&identity).map_err(|error| error.to_string())
}

fn satisfies(manager: &MspManager, member: &Member, principal: &MspPrincipal) -> Result<(), String> {
    let identity = manager.deserialize(&serialize(&id(), &member.certificate)).unwrap();
    manager.satisfies(&identity, principal).map_err(|error| error.to_string())
}

#[test]
fn organizational_units_give_exactly_one_role() {
    let root = root("ca");
    let manager = manager(&config(&[&root], &[]));
    let roles = |units: &[&str]| {
        let certificate = member(&root, "somebody", units).certificate;
        manager.deserialize(&serialize(&id(), &certificate)).unwrap().roles()
    };
    assert_eq!(roles(&["peer"]), [Role::Member, Role::Peer]);
    assert_eq!(roles(&["client", "department1"]), [Role::Member, Role::Client]);
    assert_eq!(roles(&["admin"]), [Role::Member, Role::Admin]);
    assert_eq!(roles(&["orderer"]), [Role::Member, Role::Orderer]);
    assert_eq!(roles(&["Peer"]), []);
    let of = |units: &[&str]| verdict(&manager, &member(&root, "x", units).certificate).unwrap_err();
    assert!(
        of(&["other"]).contains(
            "the identity does not have an OU that resolves to client, peer, orderer, or admin role."
        )
    );
    assert!(of(&["peer", "client"]).contains("not a combination of them"));
    assert!(of(&["peer", "peer"]).contains("not a combination of them"));
}

#[test]
fn units_bound_to_a_root_do_not_match_what_an_intermediate_issued() {
    let root = root("ca");
    let lower = intermediate(&root, "lower", None);
    let mut config = config(&[&root], &[&lower]);
    let peer = member(&lower, "peer0", &["peer"]).certificate;
    config.fabric_node_ous = Some(FabricNodeOUs::named(&pem(root.certificate())));
    assert!(
        verdict(&manager(&config), &peer)
            .unwrap_err()
            .contains("certifiersIdentifier does not match: [peer(")
    );
    config.fabric_node_ous = Some(FabricNodeOUs::named(&pem(lower.certificate())));
    assert_eq!(verdict(&manager(&config), &peer), Ok(()));
}

#[test]
fn an_authority_with_authorities_below_issues_no_identities() {
    let root = root("ca");
    let lower = intermediate(&root, "lower", None);
    let manager = manager(&config(&[&root], &[&lower]));
    assert_eq!(verdict(&manager, &member(&lower, "peer0", &["peer"]).certificate), Ok(()));
    let refused = verdict(&manager, &member(&root, "peer0", &["peer"]).certificate).unwrap_err();
    assert!(refused.contains("Parent certificate should be a leaf of the certification tree"), "{refused}");
}

#[test]
fn path_lengths_are_honoured() {
    let root = root("ca");
    let middle = intermediate(&root, "middle", Some(0));
    let lower = intermediate(&middle, "lower", None);
    // The authority itself passes, as with Go's verifier: only what it issues has too many authorities above.
    let manager = manager(&config(&[&root], &[&middle, &lower]));
    let refused = verdict(&manager, &member(&lower, "peer0", &["peer"]).certificate).unwrap_err();
    assert!(refused.contains("too many intermediates for path length constraint"), "{refused}");
}

#[test]
fn strangers_and_authorities_are_no_identities() {
    let root_certificate = root("ca");
    let manager = manager(&config(&[&root_certificate], &[]));
    let stranger = member(&root("ca"), "peer0", &["peer"]).certificate;
    assert!(verdict(&manager, &stranger).unwrap_err().contains("certificate signed by unknown authority"));
    let authority = verdict(&manager, root_certificate.certificate()).unwrap_err();
    assert!(
        authority.contains("Certificate Authority equals true cannot be used as an identity"),
        "{authority}"
    );
    let other = serialize(&MspId::parse("Org2MSP").unwrap(), &stranger);
    assert_eq!(manager.deserialize(&other).unwrap_err().to_string(), "MSP Org2MSP is not defined on channel");
}

#[test]
fn expiry_by_the_clock_does_not_matter_but_an_issuer_must_have_been_valid() {
    let root = root("ca");
    let manager = manager(&config(&[&root], &[]));
    let of = |from: OffsetDateTime| {
        let template = Template::identity(subject("p", &["peer"]), years(from, 1));
        verdict(&manager, &issue(&root, &template).certificate)
    };
    assert_eq!(of(BEGIN), Ok(()), "expired long ago");
    assert_eq!(of(BEGIN + Duration::days(365 * 19)), Ok(()), "not yet valid");
    let early = of(BEGIN - Duration::hours(1)).unwrap_err();
    assert!(early.contains("current time 2019-12-31T23:00:01Z is before 2020-01-01T00:00:00Z"), "{early}");
    assert!(of(BEGIN + Duration::days(365 * 21)).unwrap_err().contains(" is after "));
}

#[test]
fn an_extended_key_usage_must_allow_servers() {
    let root = root("ca");
    let manager = manager(&config(&[&root], &[]));
    let of = |purposes: Vec<ExtendedKeyUsage>| {
        let mut template = Template::identity(subject("p", &["peer"]), years(BEGIN, 1));
        template.extended = purposes;
        verdict(&manager, &issue(&root, &template).certificate)
    };
    assert_eq!(of(vec![ExtendedKeyUsage::ClientAuth, ExtendedKeyUsage::ServerAuth]), Ok(()));
    assert!(of(vec![ExtendedKeyUsage::ClientAuth]).unwrap_err().contains("incompatible key usage"));
}

#[test]
fn two_roots_with_one_key_make_every_identity_ambiguous() {
    let key = PrivateKey::generate_p256().unwrap();
    let name = DistinguishedName::common_name("ca");
    let again = PrivateKey::from_pem(&key.to_pem()).unwrap();
    let first = CertificateAuthority::new_root(&name, key, years(BEGIN, 20)).unwrap();
    let second = CertificateAuthority::new_root(&name, again, years(BEGIN, 21)).unwrap();
    let manager = manager(&config(&[&first, &second], &[]));
    let refused = verdict(&manager, &member(&first, "p", &["peer"]).certificate).unwrap_err();
    assert!(refused.contains("this MSP only supports a single validation chain, got 2"), "{refused}");
}

#[test]
fn revoked_certificates_are_refused_and_lists_of_others_are_ignored() {
    let authority = root("ca");
    let sibling = root("sibling");
    let good = member(&authority, "good", &["client"]);
    let bad = member(&authority, "bad", &["client"]);
    let entry = |member: &Member| RevokedCertificate {
        serial: member.certificate.serial().to_vec(),
        revoked_at: BEGIN,
        reason: 0,
    };
    let list = |by: &CertificateAuthority, members: &[&Member]| {
        let entries: Vec<_> = members.iter().map(|member| entry(member)).collect();
        let list = by.issue_crl(&entries, 1, BEGIN, BEGIN + Duration::days(1)).unwrap();
        Bytes::from(list.pem().into_bytes())
    };
    let mut config = config(&[&authority, &sibling], &[]);
    config.revocation_list = vec![list(&authority, &[&bad]), list(&sibling, &[&good])];
    let manager = manager(&config);
    assert_eq!(verdict(&manager, &good.certificate), Ok(()));
    assert!(verdict(&manager, &bad.certificate).unwrap_err().ends_with("The certificate has been revoked"));
    assert!(
        satisfies(&manager, &bad, &principal::role("Org1MSP", Role::Client)).unwrap_err().contains("revoked"),
        "principals ask for validity"
    );
}

#[test]
fn listed_admins_are_admins_whatever_their_unit() {
    let root = root("ca");
    let admin = member(&root, "old", &["client"]);
    let mut config = config(&[&root], &[]);
    config.admins = vec![pem(&admin.certificate)];
    let manager = manager(&config);
    assert_eq!(satisfies(&manager, &admin, &principal::role("Org1MSP", Role::Admin)), Ok(()));
    assert_eq!(satisfies(&manager, &admin, &principal::role("Org1MSP", Role::Client)), Ok(()));
    config.admins = vec![pem(&member(&root, "wrong", &["peer"]).certificate)];
    let error = Msp::new(&config, MspVersion::V1_4_3).unwrap_err().to_string();
    assert_eq!(
        error,
        "admin 0 is invalid: [The identity does not contain OU [CLIENT], MSP: [Org1MSP],The identity does not contain OU [ADMIN], MSP: [Org1MSP]]"
    );
}

#[test]
fn without_node_units_administrators_must_be_listed() {
    let root = root("ca");
    let mut config = config(&[&root], &[]);
    config.fabric_node_ous = None;
    assert_eq!(
        Msp::new(&config, MspVersion::V1_4_3).unwrap_err().to_string(),
        "administrators must be declared when no admin ou classification is set"
    );
    let anybody = member(&root, "anybody", &[]);
    config.admins = vec![pem(&anybody.certificate)];
    let manager = manager(&config);
    let role = |role| satisfies(&manager, &anybody, &principal::role("Org1MSP", role));
    assert_eq!((role(Role::Member), role(Role::Admin)), (Ok(()), Ok(())));
    assert!(role(Role::Peer).unwrap_err().contains("NodeOUs not activated. Cannot tell apart identities."));
    assert_eq!(role(Role::Orderer).unwrap_err(), "invalid MSP role type 4");
}

#[test]
fn principals_of_every_kind_are_judged() {
    let root = root("ca");
    let manager = manager(&config(&[&root], &[]));
    let peer = member(&root, "peer0", &["peer", "production"]);
    let judge = |kind: Classification, bytes: Vec<u8>| {
        let principal = MspPrincipal { principal_classification: kind.into(), principal: bytes.into() };
        satisfies(&manager, &peer, &principal)
    };
    let certifiers =
        manager.deserialize(&serialize(&id(), &peer.certificate)).unwrap().certifiers_identifier().unwrap();
    assert_eq!(certifiers, consort_crypto::hash::sha256(root.certificate().der()));
    let unit = |certifiers: &[u8]| OrganizationUnit {
        msp_identifier: "Org1MSP".to_owned(),
        organizational_unit_identifier: "production".to_owned(),
        certifiers_identifier: Bytes::copy_from_slice(certifiers),
    };
    assert_eq!(judge(Classification::OrganizationUnit, unit(&certifiers).encode_to_vec()), Ok(()));
    let unbound = judge(Classification::OrganizationUnit, unit(&[]).encode_to_vec());
    assert_eq!(unbound.unwrap_err(), "The identities do not match");

    let itself = SerializedIdentity {
        mspid: "Org1MSP".to_owned(),
        id_bytes: pem(&peer.certificate),
        ..SerializedIdentity::default()
    };
    assert_eq!(judge(Classification::Identity, itself.encode_to_vec()), Ok(()));
    let other = SerializedIdentity { id_bytes: pem(&member(&root, "p", &["peer"]).certificate), ..itself };
    assert_eq!(
        judge(Classification::Identity, other.encode_to_vec()).unwrap_err(),
        "The identities do not match"
    );

    let roles = |roles: &[Role]| {
        CombinedPrincipal { principals: roles.iter().map(|role| principal::role("Org1MSP", *role)).collect() }
            .encode_to_vec()
    };
    assert_eq!(judge(Classification::Combined, roles(&[Role::Peer, Role::Member])), Ok(()));
    assert!(judge(Classification::Combined, roles(&[Role::Peer, Role::Admin])).is_err());
    assert_eq!(
        judge(Classification::Combined, roles(&[])).unwrap_err(),
        "No principals in CombinedPrincipal"
    );

    let anonymous = MspIdentityAnonymity { anonymity_type: 1 }.encode_to_vec();
    assert_eq!(judge(Classification::Anonymity, Vec::new()), Ok(()));
    assert_eq!(
        judge(Classification::Anonymity, anonymous).unwrap_err(),
        "Principal is anonymous, but X.509 MSP does not support anonymous identities"
    );
    let foreign = principal::role("Org2MSP", Role::Member);
    assert_eq!(
        satisfies(&manager, &peer, &foreign).unwrap_err(),
        "the identity is a member of a different MSP (expected Org2MSP, got Org1MSP)"
    );
}

#[test]
fn other_wrappings_of_one_certificate_are_one_identity() {
    let root = root("ca");
    let manager = manager(&config(&[&root], &[]));
    let peer = member(&root, "peer0", &["peer"]);
    let wrapped = SerializedIdentity {
        mspid: "Org1MSP".to_owned(),
        id_bytes: format!("hello\n{}\n\ntrailing", peer.certificate.pem()).into_bytes().into(),
        ..SerializedIdentity::default()
    };
    let one = manager.deserialize(&serialize(&id(), &peer.certificate)).unwrap();
    let two = manager.deserialize(&wrapped.encode_to_vec()).unwrap();
    assert_ne!(one.serialized(), two.serialized());
    assert_eq!(one.id(), two.id());
}

#[test]
fn a_folder_gives_back_the_configuration_and_the_signing_identity() {
    let root = root("ca");
    let tls = consort_crypto::issue::CertificateAuthority::new_root(
        &DistinguishedName::common_name("tlsca"),
        PrivateKey::generate_p256().unwrap(),
        years(BEGIN, 20),
    )
    .unwrap();
    let lower = intermediate(&root, "lower", None);
    let mut config = config(&[&root], &[&lower]);
    config.tls_root_certs = vec![pem(tls.certificate())];
    config.fabric_node_ous = Some(FabricNodeOUs::named(&pem(lower.certificate())));
    config.crypto_config = Some(consort_protos::fabric::msp::FabricCryptoConfig {
        signature_hash_family: "SHA2".to_owned(),
        identity_identifier_hash_function: "SHA256".to_owned(),
        key_algorithms: Vec::new(),
    });
    let folder = tempfile::tempdir().unwrap();
    folder::write_config(folder.path(), &config).unwrap();
    assert_eq!(folder::load_config(folder.path(), &id()).unwrap(), config);

    let missing = SigningIdentity::from_folder(folder.path(), &id()).unwrap_err().to_string();
    assert!(missing.contains("signcerts") && missing.contains("exactly one PEM certificate"), "{missing}");
    let peer = member(&lower, "peer0", &["peer"]);
    fs::create_dir_all(folder.path().join("signcerts")).unwrap();
    fs::create_dir_all(folder.path().join("keystore")).unwrap();
    fs::write(folder.path().join("signcerts/cert.pem"), peer.certificate.pem()).unwrap();
    let other = PrivateKey::generate_p256().unwrap();
    fs::write(folder.path().join("keystore/other_sk"), other.to_pem().as_bytes()).unwrap();
    let foreign = SigningIdentity::from_folder(folder.path(), &id()).unwrap_err().to_string();
    assert!(foreign.contains("other_sk belongs to another certificate"), "{foreign}");
    fs::write(folder.path().join("keystore/priv_sk"), peer.key.to_pem().as_bytes()).unwrap();

    let signer = SigningIdentity::from_folder(folder.path(), &id()).unwrap();
    let manager = manager(&config);
    let identity = signer.identity(&manager).unwrap();
    let signature = signer.sign(b"message").unwrap();
    assert!(identity.verify(b"message", &signature).is_ok());
    assert!(identity.verify(b"massage", &signature).is_err());
    assert!(!format!("{signer:?}").contains("PRIVATE"));
}

#[test]
fn a_folder_with_faults_names_file_and_rule() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = || folder::load_config(folder.path(), &id()).unwrap_err().to_string();
    assert!(refusal().starts_with("no ca certificate found in directory"), "{}", refusal());
    let root = root("ca");
    fs::create_dir_all(folder.path().join("cacerts")).unwrap();
    fs::write(folder.path().join("cacerts/ca.pem"), root.certificate().pem()).unwrap();
    assert!(refusal().contains("administrators must be declared"), "{}", refusal());
    fs::write(folder.path().join("config.yaml"), "NodeOUs:\n  Enable: maybe\n").unwrap();
    assert!(refusal().contains("config.yaml is not a valid MSP configuration"), "{}", refusal());
    fs::write(
        folder.path().join("config.yaml"),
        "NodeOUs:\n  Enable: true\n  AdminOUIdentifier:\n    Certificate: cacerts/ca.pem\n    OrganizationalUnitIdentifier: admin\n",
    )
    .unwrap();
    let config = folder::load_config(folder.path(), &id()).unwrap();
    let units = config.fabric_node_ous.unwrap();
    assert_eq!(units.admin_ou_identifier.unwrap().certificate, pem(root.certificate()));
    assert_eq!(units.peer_ou_identifier, None);
}

#[test]
fn garbage_is_refused_without_panic() {
    let root = root("ca");
    let manager = manager(&config(&[&root], &[]));
    let good = serialize(&id(), &member(&root, "peer0", &["peer"]).certificate);
    for cut in 0..good.len() {
        let _ = manager.deserialize(&good[..cut]);
        let mut changed = good.to_vec();
        changed[cut] ^= 0x41;
        let _ = manager.deserialize(&changed);
    }
    assert!(manager.deserialize(&vec![0x0a; 100_000]).is_err());
    assert!(manager.deserialize(&good).is_ok());
}
