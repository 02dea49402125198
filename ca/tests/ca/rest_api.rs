//! The REST API through our own client, over real TLS on a free port.

use consort_client_sdk::ca::{Attribute, AttributeRequest, CaError, EnrollmentOptions, Registration, Revoke};
use consort_crypto::certificate::{Certificate, ExtendedKeyUsage};
use consort_crypto::revocation::RevocationList;

use crate::serving::TestCa;

fn registration(id: &str, kind: &str) -> Registration {
    Registration {
        id: id.to_owned(),
        kind: Some(kind.to_owned()),
        secret: Some(format!("{id}pw")),
        ..Registration::default()
    }
}

fn attribute(name: &str, value: &str) -> Attribute {
    Attribute { name: name.to_owned(), value: value.to_owned(), ecert: true }
}

fn certificate(pem: &str) -> Certificate {
    Certificate::from_pem(pem).expect("certificate")
}

fn code<T: std::fmt::Debug>(result: Result<T, CaError>) -> Option<u16> {
    result.expect_err("refused").code()
}

#[tokio::test]
async fn the_authority_tells_its_name_and_certificate() {
    let ca = TestCa::start("").await;

    let info = ca.client().info().await.expect("info");

    assert_eq!(info.name, "ca-org1");
    assert_eq!(info.chain_pem, ca.serving.chain_pem);
    assert!(certificate(&info.chain_pem).is_ca());
    ca.stop().await;
}

#[tokio::test]
async fn an_identity_is_registered_and_enrolled() {
    let ca = TestCa::start("").await;
    let (client, admin) = (ca.client(), ca.admin().await);
    let mut peer = registration("peer0", "peer");
    peer.affiliation = Some("org1.department1".to_owned());
    peer.attributes = vec![attribute("rack", "7")];

    let secret = client.register(&admin, &peer).await.expect("register");
    let enrolled = client.enroll("peer0", &secret, &EnrollmentOptions::default()).await.expect("enrol");

    let issued = certificate(&enrolled.certificate_pem);
    let mut units = issued.organizational_units();
    units.sort();
    assert_eq!(units, ["department1", "org1", "peer"]);
    assert_eq!(issued.subject_common_name(), Some("peer0"));
    assert_eq!(issued.attributes().get("rack").map(String::as_str), Some("7"));
    assert_eq!(issued.attributes().get("hf.Type").map(String::as_str), Some("peer"));
    assert_eq!(issued.public_key(), enrolled.key.public_key());
    issued.verify_issued_by(&certificate(&enrolled.ca_chain_pem)).expect("issued by the authority");
    ca.stop().await;
}

#[tokio::test]
async fn a_tls_certificate_carries_its_hosts_and_purposes() {
    let ca = TestCa::start("").await;
    let hosts = ["peer0.org1.example.com", "localhost", "127.0.0.1"];

    let enrolled =
        ca.client().enroll("admin", "adminpw", &EnrollmentOptions::tls(&hosts)).await.expect("enrol");

    let issued = certificate(&enrolled.certificate_pem);
    let names: Vec<String> = issued.subject_alternative_names().iter().map(ToString::to_string).collect();
    assert_eq!(names, hosts);
    let purposes = issued.extended_key_usage().expect("purposes");
    assert!(
        purposes.contains(&ExtendedKeyUsage::ServerAuth) && purposes.contains(&ExtendedKeyUsage::ClientAuth)
    );
    ca.stop().await;
}

#[tokio::test]
async fn wrong_secrets_are_refused_alike_and_lock_the_identity_also_after_a_restart() {
    let more = "rules: { password_attempts: 3 }";
    let ca = TestCa::start(more).await;
    let (client, admin) = (ca.client(), ca.admin().await);
    client.register(&admin, &registration("user1", "client")).await.expect("register");
    let options = EnrollmentOptions::default();

    assert_eq!(code(client.enroll("nobody", "x", &options).await), Some(20));
    assert_eq!(code(client.enroll("user1", "wrong", &options).await), Some(20));
    client.enroll("user1", "user1pw", &options).await.expect("a right secret forgives");
    for _ in 0..3 {
        assert_eq!(code(client.enroll("user1", "wrong", &options).await), Some(20));
    }
    assert_eq!(code(client.enroll("user1", "user1pw", &options).await), Some(73));

    let ca = ca.restart(more).await;
    let client = ca.client();
    assert_eq!(code(client.enroll("user1", "user1pw", &options).await), Some(73));
    let change = Registration { secret: Some("new".to_owned()), ..registration("user1", "client") };
    client.modify_identity(&admin, &change).await.expect("the administrator's certificate still counts");
    client.enroll("user1", "new", &options).await.expect("a new secret forgives");
    ca.stop().await;
}

#[tokio::test]
async fn guesses_made_at_once_are_counted_as_if_made_one_after_another() {
    let ca = TestCa::start("rules: { password_attempts: 5 }").await;
    let client = ca.client();
    let options = EnrollmentOptions::default();

    let guesses = (0..20).map(|_| client.enroll("admin", "wrong", &options));
    let codes: Vec<_> = futures::future::join_all(guesses).await.into_iter().map(code).collect();

    assert_eq!(codes.iter().filter(|code| **code == Some(20)).count(), 5);
    assert_eq!(codes.iter().filter(|code| **code == Some(73)).count(), 15);
    ca.stop().await;
}

#[tokio::test]
async fn enrolments_are_limited_and_renewals_are_not() {
    let ca = TestCa::start("").await;
    let (client, admin) = (ca.client(), ca.admin().await);
    let once = Registration { max_enrollments: Some(1), ..registration("user1", "client") };
    client.register(&admin, &once).await.expect("register");
    let options = EnrollmentOptions::default();

    let first = client.enroll("user1", "user1pw", &options).await.expect("first");
    assert_eq!(code(client.enroll("user1", "user1pw", &options).await), Some(20));
    let renewed = client.reenroll(&first, &options).await.expect("renewal");

    assert_ne!(renewed.certificate_pem, first.certificate_pem);
    assert_eq!(certificate(&renewed.certificate_pem).subject_common_name(), Some("user1"));
    ca.stop().await;
}

#[tokio::test]
async fn an_expired_certificate_no_longer_authenticates() {
    let year_and_day = std::time::Duration::from_secs(366 * 24 * 3600);
    let (strict, lenient) =
        (TestCa::start("").await, TestCa::start("rules: { reenroll_ignores_expiry: true }").await);
    let (own, other) = (strict.admin().await, lenient.admin().await);
    let options = EnrollmentOptions::default();
    strict.clock.advance(year_and_day);
    lenient.clock.advance(year_and_day);

    assert_eq!(code(strict.client().identities(&own).await), Some(20));
    assert_eq!(code(strict.client().reenroll(&own, &options).await), Some(20));
    assert_eq!(code(lenient.client().identities(&other).await), Some(20));
    lenient.client().reenroll(&other, &options).await.expect("allowed by the operator");
    strict.stop().await;
    lenient.stop().await;
}

#[tokio::test]
async fn only_a_registrar_within_its_authority_registers() {
    let ca = TestCa::start("").await;
    let (client, admin) = (ca.client(), ca.admin().await);
    let options = EnrollmentOptions::default();
    let mut registrar = registration("registrar", "client");
    registrar.affiliation = Some("org1".to_owned());
    registrar.attributes =
        vec![attribute("hf.Registrar.Roles", "client"), attribute("hf.Registrar.Attributes", "app.*")];
    client.register(&admin, &registrar).await.expect("registrar");
    client.register(&admin, &registration("plain", "client")).await.expect("plain");
    let registrar = client.enroll("registrar", "registrarpw", &options).await.expect("enrol");
    let plain = client.enroll("plain", "plainpw", &options).await.expect("enrol");
    let wish = |kind: &str, affiliation: &str, name: &str| Registration {
        affiliation: Some(affiliation.to_owned()),
        attributes: vec![attribute(name, "true")],
        ..registration("x", kind)
    };

    assert_eq!(code(client.register(&plain, &registration("x", "client")).await), Some(71));
    for wish in [
        wish("peer", "org1", "app.a"),
        wish("client", "org2", "app.a"),
        wish("client", ".", "app.a"),
        wish("client", "org1.nowhere", "app.a"),
        wish("client", "org1", "hf.Revoker"),
        wish("client", "org1", "hf.Type"),
        wish("client", "org1", "other"),
    ] {
        assert_eq!(code(client.register(&registrar, &wish).await), Some(71), "{wish:?}");
    }
    client
        .register(&registrar, &wish("client", "org1.department1", "app.a"))
        .await
        .expect("within authority");
    assert_eq!(code(client.register(&registrar, &wish("client", "org1", "app.a")).await), Some(74));
    let bad = Registration { max_enrollments: Some(-2), ..registration("y", "client") };
    assert_eq!(code(client.register(&admin, &bad).await), Some(82));
    assert_eq!(
        code(client.register(&admin, &registration("x'; DROP TABLE identities", "client")).await),
        Some(5)
    );
    ca.stop().await;
}

#[tokio::test]
async fn a_revoked_identity_is_out_and_on_the_list() {
    let ca = TestCa::start("").await;
    let (client, admin) = (ca.client(), ca.admin().await);
    let options = EnrollmentOptions::default();
    client.register(&admin, &registration("user1", "client")).await.expect("register");
    let user = client.enroll("user1", "user1pw", &options).await.expect("enrol");
    let other = client.reenroll(&user, &options).await.expect("second certificate");
    let issued = certificate(&user.certificate_pem);
    let one = Revoke::Certificate {
        serial: issued.serial_hex().to_uppercase(),
        aki: format!("00{}", hex::encode(issued.authority_key_id().expect("key id"))),
    };

    let revoked = client.revoke(&admin, &one, "keycompromise", false).await.expect("one certificate");
    assert_eq!(revoked.certificates[0].0, issued.serial_hex());
    assert_eq!(code(client.revoke(&admin, &one, "", false).await), Some(66));
    assert_eq!(code(client.reenroll(&user, &options).await), Some(20));
    client.reenroll(&other, &options).await.expect("the other certificate still counts");

    let all = Revoke::Identity("user1".to_owned());
    let revoked = client.revoke(&admin, &all, "", true).await.expect("the identity");
    assert_eq!(revoked.certificates.len(), 2);
    assert_eq!(code(client.enroll("user1", "user1pw", &options).await), Some(20));
    assert_eq!(code(client.reenroll(&other, &options).await), Some(20));
    let list = RevocationList::from_pem_or_der(revoked.crl_pem.expect("list").as_bytes()).expect("list");
    assert_eq!(list.revoked().len(), 3);
    assert!(list.contains(&issued));
    list.verify_issued_by(&certificate(&ca.serving.chain_pem)).expect("signed by the authority");
    assert_eq!(
        code(client.revoke(&admin, &Revoke::Identity("nobody".to_owned()), "", false).await),
        Some(10)
    );

    let ca = ca.restart("").await;
    let crl = ca.client().gen_crl(&admin).await.expect("list after the restart");
    assert!(RevocationList::from_pem_or_der(crl.as_bytes()).expect("list").contains(&issued));
    assert_eq!(code(ca.client().reenroll(&other, &options).await), Some(20));
    ca.stop().await;
}

#[tokio::test]
async fn without_rights_only_the_own_certificate_can_be_revoked() {
    let ca = TestCa::start("").await;
    let (client, admin) = (ca.client(), ca.admin().await);
    let options = EnrollmentOptions::default();
    client.register(&admin, &registration("user1", "client")).await.expect("register");
    let user = client.enroll("user1", "user1pw", &options).await.expect("enrol");
    let foreign = Revoke::Certificate { serial: "1234".to_owned(), aki: "ab".to_owned() };

    assert_eq!(code(client.gen_crl(&user).await), Some(71));
    assert_eq!(code(client.certificates(&user, &[]).await), Some(71));
    assert_eq!(code(client.affiliations(&user, None).await), Some(71));
    assert_eq!(code(client.identities(&user).await), Some(71));
    assert_eq!(code(client.revoke(&user, &Revoke::Identity("admin".to_owned()), "", false).await), Some(71));
    assert_eq!(code(client.revoke(&user, &foreign, "", false).await), Some(71));
    assert_eq!(code(client.revoke(&admin, &foreign, "", false).await), Some(8));
    client.revoke(&user, &Revoke::Identity("user1".to_owned()), "", false).await.expect("its own");
    ca.stop().await;
}

#[tokio::test]
async fn identities_are_listed_changed_and_removed() {
    let more = "rules: { allow_removal: { identities: true } }";
    let ca = TestCa::start(more).await;
    let (client, admin) = (ca.client(), ca.admin().await);
    for number in 0..205 {
        let identity = registration(&format!("user{number:03}"), "client");
        client.register(&admin, &identity).await.expect("register");
    }

    let all = client.identities(&admin).await.expect("three pages");
    assert_eq!(all.len(), 206);
    let change = Registration {
        id: "user000".to_owned(),
        kind: Some("peer".to_owned()),
        affiliation: Some("org2".to_owned()),
        attributes: vec![attribute("a", "1")],
        ..Registration::default()
    };
    client.modify_identity(&admin, &change).await.expect("modify");
    let changed = client.identity(&admin, "user000").await.expect("one");
    assert_eq!((changed.kind.as_str(), changed.affiliation.as_str()), ("peer", "org2"));
    assert!(changed.attributes.iter().any(|own| own.name == "hf.Type" && own.value == "peer"));
    assert_eq!(code(client.identity(&admin, "nobody").await), Some(63));

    assert_eq!(code(client.remove_identity(&admin, "admin", false).await), Some(56));
    client.remove_identity(&admin, "user001", false).await.expect("remove");
    assert_eq!(code(client.identity(&admin, "user001").await), Some(63));
    let ca = ca.restart("").await;
    assert_eq!(code(ca.client().remove_identity(&admin, "user002", false).await), Some(56));
    ca.stop().await;
}

#[tokio::test]
async fn affiliations_are_managed() {
    let ca = TestCa::start("rules: { allow_removal: { affiliations: true } }").await;
    let (client, admin) = (ca.client(), ca.admin().await);
    let member = Registration { affiliation: Some("org2".to_owned()), ..registration("user1", "client") };
    client.register(&admin, &member).await.expect("register");

    client.add_affiliation(&admin, "org3.a", true).await.expect("add");
    assert_eq!(code(client.add_affiliation(&admin, "org3", true).await), Some(60));
    assert_eq!(code(client.add_affiliation(&admin, "org4.a", false).await), Some(60));
    assert_eq!(code(client.rename_affiliation(&admin, "org2", "org5", false).await), Some(64));
    let moved = client.rename_affiliation(&admin, "org2", "org5", true).await.expect("rename");
    assert_eq!((moved.name.as_str(), moved.identities.len()), ("org5", 1));
    assert_eq!(client.identity(&admin, "user1").await.expect("user1").affiliation, "org5");
    let all = client.affiliations(&admin, None).await.expect("all");
    let names: Vec<_> = all.affiliations.iter().map(|below| below.name.as_str()).collect();
    assert_eq!(names, ["org1", "org3", "org5"]);
    assert_eq!(code(client.remove_affiliation(&admin, "org5", false).await), Some(61));
    client.remove_affiliation(&admin, "org5", true).await.expect("remove");
    assert_eq!(code(client.identity(&admin, "user1").await), Some(63));
    assert_eq!(code(client.affiliations(&admin, Some("org5")).await), Some(63));
    ca.stop().await;
}

#[tokio::test]
async fn certificates_are_listed_by_filter() {
    let ca = TestCa::start("").await;
    let (client, admin) = (ca.client(), ca.admin().await);
    let options = EnrollmentOptions::default();
    client.register(&admin, &registration("user1", "client")).await.expect("register");
    let user = client.enroll("user1", "user1pw", &options).await.expect("enrol");
    client.enroll("user1", "user1pw", &options).await.expect("enrol");
    let serial = certificate(&user.certificate_pem).serial_hex();
    client.revoke(&user, &Revoke::Identity("user1".to_owned()), "", false).await.expect("revoke");
    let count = async |query: &[(&str, &str)]| client.certificates(&admin, query).await.expect("list").len();

    assert_eq!(count(&[]).await, 3);
    assert_eq!(count(&[("id", "user1")]).await, 2);
    assert_eq!(count(&[("serial", &serial)]).await, 1);
    assert_eq!(count(&[("notrevoked", "true")]).await, 1);
    assert_eq!(count(&[("revoked_start", "-1h"), ("revoked_end", "+1h")]).await, 2);
    assert_eq!(count(&[("expired_end", "now")]).await, 0);
    assert_eq!(code(client.certificates(&admin, &[("revoked_start", "soon")]).await), Some(5));
    ca.stop().await;
}

#[tokio::test]
async fn attributes_that_are_missing_fail_the_enrolment() {
    let ca = TestCa::start("").await;
    let ask = |optional| EnrollmentOptions {
        attributes: Some(vec![AttributeRequest { name: "email".to_owned(), optional }]),
        ..EnrollmentOptions::default()
    };

    let refused = ca.client().enroll("admin", "adminpw", &ask(false)).await.expect_err("required");
    let issued = ca.client().enroll("admin", "adminpw", &ask(true)).await.expect("optional");

    assert!(refused.to_string().contains("required attributes are missing"), "{refused}");
    assert!(certificate(&issued.certificate_pem).attributes().is_empty());
    ca.stop().await;
}

#[tokio::test]
async fn an_intermediate_authority_needs_the_attribute() {
    let ca = TestCa::start("").await;
    let (client, admin) = (ca.client(), ca.admin().await);
    client.register(&admin, &registration("user1", "client")).await.expect("register");
    let options = EnrollmentOptions { profile: Some("ca".to_owned()), ..EnrollmentOptions::default() };

    assert_eq!(code(client.enroll("user1", "user1pw", &options).await), Some(71));
    let authority = client.enroll("admin", "adminpw", &options).await.expect("administrator may");

    assert!(certificate(&authority.certificate_pem).is_ca());
    ca.stop().await;
}
