//! Several authorities in one server, authorities below one another, and authorities with other keys.

use std::path::Path;
use std::sync::Arc;

use consort_ca::config::{CaConfig, InvalidConfig};
use consort_ca::server::{self, StartError};
use consort_client_sdk::Endpoint;
use consort_client_sdk::ca::{CaClient, CaError, EnrollmentOptions, Registration};
use consort_crypto::certificate::Certificate;
use consort_crypto::key::KeyAlgorithm;
use consort_node::{Clock, SystemClock, Tasks};

use crate::serving::{TestCa, configuration};

/// A second authority in the same server, as the configuration's key `further` takes it.
fn second(folder: &Path, name: &str, more: &str) -> String {
    format!(
        "further:\n  - data: {}\n    ca: {{ name: {name}, subject: {{ common_name: {name}.example.com, organization: Org1 }}{more} }}\n    \
         bootstrap: {{ id: admin, secret: otherpw }}\n    affiliations: [elsewhere]\n",
        folder.join(name).display()
    )
}

/// The configuration of an intermediate authority below `parent`.
fn below(parent: &TestCa, id: &str, secret: &str) -> String {
    let roots = parent.folder().join("tls-roots.pem");
    std::fs::write(&roots, &parent.serving.tls_roots_pem).expect("roots");
    format!(
        "parent: {{ address: 'ca.org1.example.com:{}', ca_name: ca-org1, id: {id}, secret: {secret}, tls_roots: {}, \
         connect_to: '{}', wait_s: 1 }}",
        parent.serving.address.port(),
        roots.display(),
        parent.serving.address,
    )
}

fn intermediate(folder: &Path, parent: &str, more: &str) -> CaConfig {
    let text = format!(
        "listen: {{ address: '127.0.0.1:0' }}\n\
         data: {}\n\
         ca:\n  name: ca-low\n  subject: {{ common_name: low, organization: org1.example.com }}\n  {parent}\n\
         hosts: [ca.org1.example.com, localhost, 127.0.0.1]\n\
         bootstrap: {{ id: admin, secret: lowpw }}\n\
         password_hashing: {{ memory_kib: 64, passes: 1 }}\n\
         {more}\n",
        folder.join("low").display()
    );
    consort_node::config::parse(&text, Path::new("low.yaml"), "NONE", []).expect("configuration")
}

fn client(serving: &server::Serving, roots: &str, name: Option<&str>) -> CaClient {
    let address = format!("ca.org1.example.com:{}", serving.address.port());
    let endpoint = Endpoint::new(address, roots.to_owned().into_bytes());
    CaClient::new(&endpoint.connect_to(serving.address), name).expect("client")
}

async fn authority_to_be(parent: &TestCa, id: &str) {
    let admin = parent.admin().await;
    let attribute = consort_client_sdk::ca::Attribute {
        name: "hf.IntermediateCA".to_owned(),
        value: "true".to_owned(),
        ecert: false,
    };
    let registration = Registration {
        id: id.to_owned(),
        kind: Some("client".to_owned()),
        secret: Some(format!("{id}pw")),
        max_enrollments: Some(-1),
        attributes: vec![attribute],
        ..Registration::default()
    };
    parent.client().register(&admin, &registration).await.expect("register");
}

#[tokio::test]
async fn authorities_of_one_server_share_nothing_but_the_address() {
    let folder = tempfile::tempdir().expect("folder");
    let ca = TestCa::start(&second(folder.path(), "ca-two", "")).await;
    let (one, two) = (ca.client(), ca.client_of("ca-two"));
    let options = EnrollmentOptions::default();

    let (first, other) = (one.info().await.expect("info"), two.info().await.expect("info"));
    assert_eq!((first.name.as_str(), other.name.as_str()), ("ca-org1", "ca-two"));
    assert_ne!(first.chain_pem, other.chain_pem);
    let wrong = two.enroll("admin", "adminpw", &options).await.expect_err("the other's secret");
    assert_eq!(wrong.code(), Some(20));
    let (own, others) = (ca.admin().await, two.enroll("admin", "otherpw", &options).await.expect("enrol"));
    assert_eq!(two.identities(&own).await.expect_err("a foreign token").code(), Some(20));
    assert_eq!(two.affiliations(&others, None).await.expect("tree").affiliations[0].name, "elsewhere");
    let user =
        Registration { id: "user1".to_owned(), secret: Some("pw".to_owned()), ..Registration::default() };
    two.register(&others, &user).await.expect("register");
    assert_eq!(one.identity(&own, "user1").await.expect_err("not here").code(), Some(63));
    let absent = ca.client_of("ca-three").info().await.expect_err("no such authority");
    assert_eq!(absent.code(), Some(19));

    let ca = ca.restart(&second(folder.path(), "ca-two", "")).await;
    assert_eq!(ca.client_of("ca-two").info().await.expect("info").chain_pem, other.chain_pem);
    ca.client_of("ca-two").identity(&others, "user1").await.expect("kept");
    ca.stop().await;
}

#[tokio::test]
async fn two_authorities_with_one_name_or_folder_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let same_name = configuration(folder.path(), &second(folder.path(), "ca-org1", ""));
    let same_folder = configuration(folder.path(), &second(folder.path(), "data", ""));

    assert!(matches!(same_name.check(), Err(InvalidConfig::Shared { what: "ca.name", .. })));
    assert!(matches!(same_folder.check(), Err(InvalidConfig::Shared { what: "data folder", .. })));
}

#[tokio::test]
async fn an_intermediate_authority_enrols_at_its_parent_and_keeps_its_chain_over_restarts() {
    let root = TestCa::start("").await;
    authority_to_be(&root, "low").await;
    let folder = tempfile::tempdir().expect("folder");
    let config = intermediate(folder.path(), &below(&root, "low", "lowpw"), "");
    let (tasks, clock) = (Tasks::new(), Arc::new(SystemClock));

    let serving = server::start(&config, clock, None, &tasks).await.expect("start");

    let chain = Certificate::all_from_pem(serving.chain_pem.as_bytes()).expect("chain");
    assert_eq!(chain.len(), 2);
    assert_eq!((chain[0].subject_common_name(), chain[0].path_len()), (Some("low"), Some(0)));
    assert_eq!(chain[1].pem(), root.serving.chain_pem);
    // The root alone is enough to trust the TLS certificate that the intermediate authority issued.
    let low = client(&serving, &root.serving.chain_pem, Some("ca-low"));
    let info = low.info().await.expect("info");
    assert_eq!(info.chain_pem, serving.chain_pem);
    let admin = low.enroll("admin", "lowpw", &EnrollmentOptions::default()).await.expect("enrol");
    let issued = Certificate::from_pem(&admin.certificate_pem).expect("certificate");
    issued.verify_issued_by(&chain[0]).expect("issued below");
    chain[0].verify_issued_by(&chain[1]).expect("issued above");
    low.identities(&admin).await.expect("its token counts");
    let foreign = client(&root.serving, &root.serving.chain_pem, None);
    assert_eq!(foreign.identities(&admin).await.expect_err("not the root's").code(), Some(20));
    // Below a path length of 0 there is no further authority.
    let options = EnrollmentOptions { profile: Some("ca".to_owned()), ..EnrollmentOptions::default() };
    let refused = low.enroll("admin", "lowpw", &options).await.expect_err("path length");
    assert!(
        matches!(&refused, CaError::Refused { status: 400, message, .. } if message.contains("path length")),
        "{refused}"
    );
    tasks.shutdown(std::time::Duration::from_secs(10)).await.expect("end");
    root.stop().await;

    let tasks = Tasks::new();
    let again =
        server::start(&config, Arc::new(SystemClock), None, &tasks).await.expect("without the parent");
    assert_eq!(again.chain_pem, serving.chain_pem);
    tasks.shutdown(std::time::Duration::from_secs(10)).await.expect("end");
    std::fs::remove_file(folder.path().join("low/ca-chain.pem")).expect("remove");
    let error =
        server::start(&config, Arc::new(SystemClock), None, &Tasks::new()).await.expect_err("no chain");
    assert!(error.to_string().contains("ca-chain.pem"), "{error}");
}

#[tokio::test]
async fn three_authorities_stand_above_one_another_where_the_root_allows_it() {
    let root = TestCa::start("rules: { intermediate_path_length: 1 }").await;
    authority_to_be(&root, "low").await;
    let folder = tempfile::tempdir().expect("folder");
    let config = intermediate(folder.path(), &below(&root, "low", "lowpw"), "");
    let tasks = Tasks::new();
    let middle = server::start(&config, Arc::new(SystemClock), None, &tasks).await.expect("start");
    let client = client(&middle, &root.serving.chain_pem, None);

    let options = EnrollmentOptions { profile: Some("ca".to_owned()), ..EnrollmentOptions::default() };
    let third = client.enroll("admin", "lowpw", &options).await.expect("enrol");

    let third = Certificate::from_pem(&third.certificate_pem).expect("certificate");
    assert_eq!((third.is_ca(), third.path_len()), (true, Some(0)));
    let mut chain = vec![third];
    chain.extend(Certificate::all_from_pem(middle.chain_pem.as_bytes()).expect("chain"));
    assert_eq!(consort_ca::chain::check(&chain, SystemClock.now()), Ok(()));
    tasks.shutdown(std::time::Duration::from_secs(10)).await.expect("end");
    root.stop().await;
}

#[tokio::test]
async fn a_parent_that_refuses_or_does_not_answer_is_named_with_the_remedy() {
    let root = TestCa::start("").await;
    authority_to_be(&root, "low").await;
    let folder = tempfile::tempdir().expect("folder");
    let start = async |parent: &str| {
        let config = intermediate(folder.path(), parent, "");
        server::start(&config, Arc::new(SystemClock), None, &Tasks::new()).await.expect_err("refused")
    };

    let wrong = start(&below(&root, "low", "wrong")).await;
    let settings = below(&root, "low", "lowpw");
    let other_name = intermediate(folder.path(), &below(&root, "high", "x"), "").check();
    let kept = root.folder_after_stop().await;
    let silent = start(&settings).await;
    drop(kept);

    assert!(
        wrong.to_string().contains("code 20") && wrong.to_string().contains("ca.parent.secret"),
        "{wrong}"
    );
    assert!(matches!(other_name, Err(InvalidConfig::ParentName { .. })));
    assert!(
        matches!(silent, StartError::Parent(_)) && silent.to_string().contains("does not answer"),
        "{silent}"
    );
    assert!(!folder.path().join("low/ca-cert.pem").exists(), "the next start tries again");
}

#[tokio::test]
async fn an_authority_with_a_root_in_its_folder_is_not_made_an_intermediate_one() {
    let folder = tempfile::tempdir().expect("folder");
    let tasks = Tasks::new();
    let root = intermediate(folder.path(), "", "");
    server::start(&root, Arc::new(SystemClock), None, &tasks).await.expect("a root");
    tasks.shutdown(std::time::Duration::from_secs(10)).await.expect("end");
    let parent = "parent: { address: 'a:1', id: low, secret: x, tls_roots: x.pem }";

    let error =
        server::start(&intermediate(folder.path(), parent, ""), Arc::new(SystemClock), None, &Tasks::new())
            .await
            .expect_err("refused");

    assert!(matches!(error, StartError::RootInPlace { .. }), "{error}");
}

#[tokio::test]
async fn every_kind_of_key_issues_to_its_own_kind_and_its_tokens_count() {
    for (key, algorithm) in [
        ("{ algo: ecdsa, size: 384 }", KeyAlgorithm::P384),
        ("{ algo: ed25519 }", KeyAlgorithm::Ed25519),
        ("{ algo: sm2 }", KeyAlgorithm::Sm2),
    ] {
        let folder = tempfile::tempdir().expect("folder");
        let ca = TestCa::start(&second(folder.path(), "ca-two", &format!(", key: {key}"))).await;
        let two = ca.client_of("ca-two");
        let options = EnrollmentOptions { key_algorithm: algorithm, ..EnrollmentOptions::default() };

        let admin = two.enroll("admin", "otherpw", &options).await.expect("enrol");

        let chain = Certificate::from_pem(&admin.ca_chain_pem).expect("chain");
        let issued = Certificate::from_pem(&admin.certificate_pem).expect("certificate");
        assert_eq!(chain.public_key().key_algorithm(), Some(algorithm));
        assert_eq!(issued.public_key().key_algorithm(), Some(algorithm));
        issued.verify_issued_by(&chain).expect("issued");
        let user = Registration { id: "user1".to_owned(), ..Registration::default() };
        two.register(&admin, &user).await.expect("the token is signed with the key");
        let renewed = two.reenroll(&admin, &options).await.expect("renew");
        assert_eq!(renewed.key.algorithm(), algorithm);
        let crl = two.gen_crl(&admin).await.expect("list");
        consort_crypto::revocation::RevocationList::from_pem_or_der(crl.as_bytes())
            .expect("list")
            .verify_issued_by(&chain)
            .expect("signed by the authority");
        ca.stop().await;
    }
}

#[tokio::test]
async fn an_sm2_authority_alone_cannot_certify_its_server_and_says_what_helps() {
    let folder = tempfile::tempdir().expect("folder");
    let mut config = configuration(folder.path(), "");
    config.ca.key = serde_json::from_str(r#"{"algo":"sm2"}"#).expect("key");

    let error = server::start(&config, Arc::new(SystemClock), None, &Tasks::new()).await.expect_err("no TLS");

    assert!(error.to_string().contains("add one (further, with ca.key ecdsa)"), "{error}");
}
