//! Which algorithms an MSP takes, and in which mixtures.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::fs;

use bytes::Bytes;
use consort_crypto::{
    certificate::Certificate,
    hash::{HashAlgorithm, sm3},
    issue::{CertificateAuthority, Template, Validity},
    key::{KeyAlgorithm, PrivateKey},
    name::{DistinguishedName, NamePart},
};
use consort_msp::{Msp, MspManager, MspVersion, SigningIdentity, folder, policy, serialize};
use consort_protos::{
    fabric::msp::{FabricCryptoConfig, FabricMspConfig, FabricNodeOUs},
    ids::MspId,
};
use std::sync::Arc;
use time::macros::datetime;

const VALIDITY: Validity =
    Validity { not_before: datetime!(2020-01-01 00:00 UTC), not_after: datetime!(2040-01-01 00:00 UTC) };

fn id() -> MspId {
    MspId::parse("Org1MSP").unwrap()
}

fn root(algorithm: KeyAlgorithm) -> CertificateAuthority {
    let key = PrivateKey::generate(algorithm).unwrap();
    let name = DistinguishedName::common_name(&format!("{algorithm} ca"));
    CertificateAuthority::new_root(&name, key, VALIDITY).unwrap()
}

fn lower(parent: &CertificateAuthority, algorithm: KeyAlgorithm) -> CertificateAuthority {
    let key = PrivateKey::generate(algorithm).unwrap();
    let name = DistinguishedName::common_name(&format!("{algorithm} lower"));
    let certificate = parent.issue(&Template::authority(name, VALIDITY, None), key.public_key()).unwrap();
    CertificateAuthority::new(certificate, key).unwrap()
}

fn peer(authority: &CertificateAuthority, algorithm: KeyAlgorithm) -> (Certificate, PrivateKey) {
    let key = PrivateKey::generate(algorithm).unwrap();
    let name = DistinguishedName::common_name("peer0").with(NamePart::OrganizationalUnit, "peer");
    (authority.issue(&Template::identity(name, VALIDITY), key.public_key()).unwrap(), key)
}

fn pem(certificate: &Certificate) -> Bytes {
    certificate.pem().into_bytes().into()
}

fn config(authorities: &[&CertificateAuthority], family: &str, algorithms: &[&str]) -> FabricMspConfig {
    let of = |root: bool| {
        let of_kind = authorities.iter().filter(|authority| {
            let certificate = authority.certificate();
            (certificate.subject_bytes() == certificate.issuer_bytes()) == root
        });
        of_kind.map(|authority| pem(authority.certificate())).collect()
    };
    FabricMspConfig {
        name: "Org1MSP".to_owned(),
        root_certs: of(true),
        intermediate_certs: of(false),
        crypto_config: Some(FabricCryptoConfig {
            signature_hash_family: family.to_owned(),
            identity_identifier_hash_function: String::new(),
            key_algorithms: algorithms.iter().map(|name| (*name).to_owned()).collect(),
        }),
        fabric_node_ous: Some(FabricNodeOUs::named(&Bytes::new())),
        ..FabricMspConfig::default()
    }
}

fn verdict(msp: Msp, certificate: &Certificate) -> Result<(), String> {
    let manager = MspManager::new(vec![msp]);
    let identity = manager.deserialize(&serialize(&id(), certificate)).map_err(|error| error.to_string())?;
    identity.validate().map_err(|error| error.to_string())
}

#[test]
fn an_msp_of_sm2_takes_sm2_alone_and_hashes_with_sm3() {
    let root = root(KeyAlgorithm::Sm2);
    let lower = lower(&root, KeyAlgorithm::Sm2);
    let config = config(&[&root, &lower], "SM3", &[]);
    let msp = || Msp::new(&config, MspVersion::V1_4_3).unwrap();
    let (certificate, key) = peer(&lower, KeyAlgorithm::Sm2);
    assert_eq!(verdict(msp(), &certificate), Ok(()));
    assert_eq!(msp().hash_algorithm(), HashAlgorithm::Sm3);
    assert_eq!(msp().key_algorithms().collect::<Vec<_>>(), [KeyAlgorithm::Sm2]);

    let manager = Arc::new(MspManager::new(vec![msp()]));
    let identity = manager.deserialize(&serialize(&id(), &certificate)).unwrap();
    assert_eq!(*identity.id().certificate_hash(), sm3(certificate.der()));
    let signed = policy::SignedData {
        identity: serialize(&id(), &certificate),
        message: Bytes::from_static(b"message"),
        signature: key.sign(b"message").unwrap().into(),
    };
    let rule = policy::SignaturePolicy::from_proto(&policy::parse("OR('Org1MSP.peer')").unwrap()).unwrap();
    policy::Policy::signature("rule", rule, manager).evaluate(&[signed]).unwrap();

    let (foreign, _) = peer(&lower, KeyAlgorithm::P256);
    let refused = verdict(msp(), &foreign).unwrap_err();
    assert!(refused.contains("public key algorithm: P-256 is not supported"), "{refused}");
}

#[test]
fn a_chain_mixes_algorithms_only_where_the_configuration_allows_it() {
    let (national, nist) = (root(KeyAlgorithm::Sm2), root(KeyAlgorithm::P256));
    let refusal = |config: &FabricMspConfig| Msp::new(config, MspVersion::V3_0).unwrap_err().to_string();
    let sm2 = refusal(&config(&[&national], "SHA2", &[]));
    assert!(sm2.contains("a key of SM2, but the MSP allows p256, p384, ed25519 only"), "{sm2}");
    let p256 = refusal(&config(&[&nist], "SM3", &[]));
    assert!(p256.contains("a key of P-256, but the MSP allows sm2 only"), "{p256}");
    let below = lower(&nist, KeyAlgorithm::Sm2);
    assert!(refusal(&config(&[&nist, &below], "SHA2", &[])).contains("a key of SM2"));
    let fabric = Msp::new(&config(&[&nist], "SHA2", &[]), MspVersion::V3_0).unwrap();
    let refused = verdict(fabric, &peer(&nist, KeyAlgorithm::Sm2).0).unwrap_err();
    assert!(refused.contains("public key algorithm: SM2 is not supported"), "{refused}");

    let mixed = config(&[&nist, &below], "SHA2", &["p256", "sm2"]);
    let msp = || Msp::new(&mixed, MspVersion::V1_4_3).unwrap();
    for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::Sm2] {
        assert_eq!(verdict(msp(), &peer(&below, algorithm).0), Ok(()));
    }
    let (third, _) = peer(&below, KeyAlgorithm::P384);
    assert!(verdict(msp(), &third).unwrap_err().contains("P-384 is not supported"));
}

#[test]
fn ed25519_needs_the_rules_of_version_three() {
    let root = root(KeyAlgorithm::P256);
    let (certificate, _) = peer(&root, KeyAlgorithm::Ed25519);
    let config_of = |algorithms: &[&str]| config(&[&root], "SHA2", algorithms);
    let msp = |version| Msp::new(&config_of(&[]), version).unwrap();
    assert_eq!(verdict(msp(MspVersion::V3_0), &certificate), Ok(()));
    let refused = verdict(msp(MspVersion::V1_4_3), &certificate).unwrap_err();
    assert!(refused.contains("public key algorithm: Ed25519 is not supported"), "{refused}");
    let listed = Msp::new(&config_of(&["p256", "ed25519"]), MspVersion::V1_4_3).unwrap_err().to_string();
    assert!(listed.contains("ed25519 cannot be allowed: it needs the channel capability V3_0"), "{listed}");
    let unknown = Msp::new(&config_of(&["p521"]), MspVersion::V3_0).unwrap_err().to_string();
    assert!(unknown.contains("the algorithms are p256, p384, ed25519 and sm2"), "{unknown}");
}

#[test]
fn every_fabric_algorithm_may_stand_above_every_other_as_in_fabric() {
    let all = [KeyAlgorithm::P256, KeyAlgorithm::P384, KeyAlgorithm::Ed25519];
    for above in all {
        let root = root(above);
        for below in all {
            let msp = Msp::new(&config(&[&root], "SHA2", &[]), MspVersion::V3_0).unwrap();
            assert_eq!(verdict(msp, &peer(&root, below).0), Ok(()), "{below} under {above}");
        }
    }
}

#[test]
fn a_folder_of_sm2_gives_an_msp_of_sm2_and_its_signing_identity() {
    let root = root(KeyAlgorithm::Sm2);
    let written = FabricMspConfig {
        crypto_config: Some(FabricCryptoConfig {
            signature_hash_family: "SM3".to_owned(),
            identity_identifier_hash_function: "SM3".to_owned(),
            key_algorithms: Vec::new(),
        }),
        ..config(&[&root], "SM3", &[])
    };
    let folder = tempfile::tempdir().unwrap();
    folder::write_config(folder.path(), &written).unwrap();
    assert_eq!(folder::load_config(folder.path(), &id()).unwrap(), written);
    let (certificate, key) = peer(&root, KeyAlgorithm::Sm2);
    for (name, text) in [("signcerts/cert.pem", certificate.pem()), ("keystore/sk", key.to_pem().to_string())]
    {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let signer = SigningIdentity::from_folder(folder.path(), &id()).unwrap();
    let manager = MspManager::new(vec![Msp::new(&written, MspVersion::V3_0).unwrap()]);
    let identity = signer.identity(&manager).unwrap();
    identity.verify(b"m", &signer.sign(b"m").unwrap()).unwrap();
}

#[test]
fn a_folder_may_name_the_algorithms_that_its_chains_mix() {
    let (nist, national) = (root(KeyAlgorithm::P256), root(KeyAlgorithm::Sm2));
    let written = config(&[&nist, &national], "SHA2", &["p256", "sm2"]);
    let folder = tempfile::tempdir().unwrap();
    folder::write_config(folder.path(), &written).unwrap();
    let read = folder::load_config(folder.path(), &id()).unwrap();
    assert_eq!(read.crypto_config.unwrap().key_algorithms, ["p256", "sm2"]);
}
