//! What an attacker tries: refused with Fabric CA's codes, nothing changed, nothing told about which part was wrong.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use consort_client_sdk::ca::{
    Attribute, AuditEntry, CaError, Enrollment, EnrollmentOptions, Registration, Revoke,
};
use consort_crypto::certificate::{Certificate, SubjectAlternativeName};
use consort_crypto::issue::{DistinguishedName, NamePart};
use consort_crypto::key::PrivateKey;
use consort_crypto::request::CertificateRequest;
use futures::StreamExt;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::serving::TestCa;

fn user(id: &str) -> Registration {
    Registration {
        id: id.to_owned(),
        kind: Some("client".to_owned()),
        secret: Some(format!("{id}pw")),
        max_enrollments: Some(-1),
        ..Registration::default()
    }
}

fn told(error: &CaError) -> (u16, u16, String) {
    match error {
        CaError::Refused { status, code, message, .. } => (*status, *code, message.clone()),
        other => panic!("no refusal: {other}"),
    }
}

async fn enrolled(ca: &TestCa, id: &str) -> Enrollment {
    ca.client().enroll(id, &format!("{id}pw"), &EnrollmentOptions::default()).await.expect("enrol")
}

/// Everything in the registry that a request could have changed.
async fn books(ca: &TestCa, admin: &Enrollment) -> (usize, usize, Vec<AuditEntry>) {
    let client = ca.client();
    let identities = client.identities(admin).await.expect("identities").len();
    let certificates = client.certificates(admin, &[]).await.expect("certificates").len();
    (identities, certificates, client.audit(admin, 0).await.expect("audit"))
}

/// Posts a body with HTTP Basic, as an enrolment does.
async fn post_enroll(ca: &TestCa, id: &str, secret: &str, body: reqwest::Body) -> (StatusCode, Value) {
    post_enroll_with(&ca.http(), ca, id, secret, body).await
}

async fn post_enroll_with(
    http: &reqwest::Client,
    ca: &TestCa,
    id: &str,
    secret: &str,
    body: reqwest::Body,
) -> (StatusCode, Value) {
    let response = http
        .post(format!("https://localhost:{}/api/v1/enroll", ca.serving.address.port()))
        .basic_auth(id, Some(secret))
        .body(body)
        .send()
        .await
        .expect("answer");
    let status = response.status();
    (status, serde_json::from_slice(&response.bytes().await.expect("body")).expect("JSON"))
}

#[tokio::test]
async fn ten_thousand_wrong_secrets_lock_the_identity_and_tell_nothing_about_others() {
    let limits = "limits: { per_address: { per_second: 0 }, per_identity: { per_second: 0 } }";
    let ca = TestCa::start(limits).await;
    let admin = ca.admin().await;
    ca.client().register(&admin, &user("victim")).await.expect("register");
    let before = books(&ca, &admin).await;
    let (client, options) = (ca.client(), EnrollmentOptions::default());

    let http = ca.http();
    let guesses = futures::stream::iter(0..10_000_u32).map(|number| {
        let (ca, http, id) = (&ca, &http, if number % 2 == 0 { "victim" } else { "nobody" });
        async move {
            let secret = format!("guess{number}");
            let (status, envelope) = post_enroll_with(http, ca, id, &secret, "{}".into()).await;
            (id, status.as_u16(), envelope["errors"][0].clone())
        }
    });
    let answers: Vec<_> = guesses.buffer_unordered(16).collect().await;

    let of = |id: &str, code: u64| {
        answers
            .iter()
            .filter(|(name, status, error)| *name == id && *status == 401 && error["code"] == code)
            .count()
    };
    assert_eq!((of("victim", 20), of("victim", 73)), (10, 4990));
    assert_eq!((of("nobody", 20), of("nobody", 73)), (10, 4990), "an unknown name behaves like a known one");
    let texts: std::collections::BTreeSet<String> =
        answers.iter().map(|(_, _, error)| error.to_string()).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert_eq!(books(&ca, &admin).await, before);
    let right = client.enroll("victim", "victimpw", &options).await.expect_err("locked");
    assert_eq!(told(&right).1, 73);
    let ca = ca.restart(limits).await;
    let after = ca.client().enroll("victim", "victimpw", &options).await.expect_err("still locked");
    assert_eq!(told(&after).1, 73);
    let forgiven = Registration { secret: Some("new".to_owned()), ..user("victim") };
    ca.client().modify_identity(&admin, &forgiven).await.expect("a registrar sets a new secret");
    ca.client().enroll("victim", "new", &options).await.expect("enrol");
    ca.stop().await;
}

#[tokio::test]
async fn a_body_of_a_hundred_megabytes_is_refused_early_told_or_not() {
    const SIZE: u64 = 100 * 1024 * 1024;
    let ca = TestCa::start("").await;
    let admin = ca.admin().await;
    let before = books(&ca, &admin).await;
    let sent = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let parts = futures::stream::iter(0..SIZE / 65_536).map(move |_| {
        counted.fetch_add(65_536, std::sync::atomic::Ordering::Relaxed);
        Ok::<_, std::io::Error>(vec![b' '; 65_536])
    });

    let (status, envelope) = post_enroll(&ca, "admin", "adminpw", reqwest::Body::wrap_stream(parts)).await;

    assert_eq!((status.as_u16(), &envelope["errors"][0]["code"]), (413, &json!(5)));
    let read = sent.load(std::sync::atomic::Ordering::Relaxed);
    assert!(read < SIZE / 2, "{read} bytes were taken");
    assert_eq!(books(&ca, &admin).await, before);
    ca.stop().await;
}

#[tokio::test]
async fn names_with_sql_and_path_characters_are_only_wrong_names() {
    let ca = TestCa::start("").await;
    let admin = ca.admin().await;
    let before = books(&ca, &admin).await;
    let client = ca.client();
    let names = [
        "x' OR '1'='1",
        "x'; DROP TABLE identities; --",
        "../../etc/passwd",
        "a/b",
        "a\\b",
        "..",
        "%2e%2e",
        "nul\0",
    ];
    for name in names {
        if name != "%2e%2e" {
            let refused = client.register(&admin, &user(name)).await.expect_err(name);
            assert_eq!(told(&refused).0, 400, "{name}");
        }
        let login = client.enroll(name, "x", &EnrollmentOptions::default()).await.expect_err(name);
        assert_eq!(told(&login), (401, 20, "Authentication failure".to_owned()), "{name}");
        if name != ".." {
            let shown = client.identity(&admin, name).await.expect_err(name);
            assert_eq!(told(&shown).1, 63, "{name}");
        }
        let revoked =
            client.revoke(&admin, &Revoke::Identity(name.to_owned()), "", false).await.expect_err(name);
        assert_eq!(told(&revoked).1, 10, "{name}");
        let listed = client.certificates(&admin, &[("id", name)]).await.expect("a name like another");
        assert!(listed.is_empty());
    }
    assert_eq!(books(&ca, &admin).await, before);
    ca.stop().await;
}

#[tokio::test]
async fn a_revoked_registrar_can_do_nothing_more() {
    let ca = TestCa::start("").await;
    let admin = ca.admin().await;
    let roles =
        |name: &str, value: &str| Attribute { name: name.to_owned(), value: value.to_owned(), ecert: false };
    let registrar = Registration {
        attributes: vec![roles("hf.Registrar.Roles", "client"), roles("hf.Revoker", "true")],
        ..user("registrar")
    };
    ca.client().register(&admin, &registrar).await.expect("register");
    ca.client().register(&admin, &user("alice")).await.expect("register");
    let registrar = enrolled(&ca, "registrar").await;
    ca.client().register(&registrar, &user("bob")).await.expect("before");
    ca.client()
        .revoke(&admin, &Revoke::Identity("registrar".to_owned()), "keycompromise", false)
        .await
        .expect("revoke");
    let before = books(&ca, &admin).await;
    let client = ca.client();

    let attempts = [
        told(&client.register(&registrar, &user("eve")).await.expect_err("register")),
        told(
            &client
                .revoke(&registrar, &Revoke::Identity("alice".to_owned()), "", false)
                .await
                .expect_err("revoke"),
        ),
        told(&client.reenroll(&registrar, &EnrollmentOptions::default()).await.expect_err("reenroll")),
        told(&client.identities(&registrar).await.expect_err("list")),
        told(
            &client
                .enroll("registrar", "registrarpw", &EnrollmentOptions::default())
                .await
                .expect_err("enrol"),
        ),
    ];

    for attempt in attempts {
        assert_eq!(attempt, (401, 20, "Authentication failure".to_owned()));
    }
    assert_eq!(books(&ca, &admin).await, before);
    ca.stop().await;
}

#[tokio::test]
async fn an_ended_authority_issues_and_lists_nothing() {
    let ca = TestCa::start("rules: { reenroll_ignores_expiry: true }").await;
    let admin = ca.admin().await;
    ca.clock.advance(Duration::from_secs(3651 * 24 * 3600));
    let client = ca.client();
    let options = EnrollmentOptions::default();

    let enroll = told(&client.enroll("admin", "adminpw", &options).await.expect_err("enrol"));
    let reenroll = told(&client.reenroll(&admin, &options).await.expect_err("renew"));
    let crl = told(&client.gen_crl(&admin).await.expect_err("list"));

    assert_eq!((enroll.0, enroll.1, reenroll.0, crl.0, crl.1), (500, 0, 500, 401, 20));
    assert!(enroll.2.contains("its log says why"), "{}", enroll.2);
    ca.stop().await;
}

#[tokio::test]
async fn units_and_attributes_in_a_signing_request_give_nothing() {
    let ca = TestCa::start("").await;
    let admin = ca.admin().await;
    ca.client().register(&admin, &user("mallory")).await.expect("register");
    let key = PrivateKey::generate_p256().expect("key");
    let wishes = DistinguishedName::common_name("mallory")
        .with(NamePart::OrganizationalUnit, "admin")
        .with(NamePart::OrganizationalUnit, "peer")
        .with(NamePart::CommonName, "admin");
    let request = CertificateRequest::create_for(
        &key,
        &wishes,
        &[SubjectAlternativeName::from_text("mallory.example.com")],
    )
    .expect("request");
    let ask = |extra: Value| {
        let mut body = json!({ "certificate_request": request.pem() });
        body.as_object_mut().expect("object").extend(extra.as_object().expect("object").clone());
        reqwest::Body::from(body.to_string())
    };
    let before = books(&ca, &admin).await;

    let lacking =
        post_enroll(&ca, "mallory", "mallorypw", ask(json!({"attr_reqs": [{"name": "hf.Revoker"}]}))).await;
    let authority = post_enroll(&ca, "mallory", "mallorypw", ask(json!({"profile": "ca"}))).await;
    let idemix = post_enroll(&ca, "mallory", "mallorypw", ask(json!({"profile": "idemix"}))).await;
    assert_eq!((lacking.0.as_u16(), authority.0.as_u16(), idemix.0.as_u16()), (400, 403, 400));
    assert_eq!(authority.1["errors"][0]["code"], json!(71));
    assert_eq!(authority.1["errors"][0]["message"], json!("Authorization failure"));
    assert_eq!(books(&ca, &admin).await, before, "refused requests leave no trace");

    let (status, envelope) = post_enroll(&ca, "mallory", "mallorypw", ask(json!({}))).await;
    assert_eq!(status.as_u16(), 201);
    let pem = STANDARD.decode(envelope["result"]["Cert"].as_str().expect("certificate")).expect("base64");
    let issued = Certificate::from_pem(pem).expect("certificate");
    assert_eq!(issued.organizational_units(), ["client"]);
    assert_eq!(issued.subject_common_name(), Some("mallory"));
    assert_eq!(issued.subject().matches("CN=").count(), 1, "{}", issued.subject());
    assert_eq!(
        issued.attributes().keys().collect::<Vec<_>>(),
        ["hf.Affiliation", "hf.EnrollmentID", "hf.Type"]
    );
    ca.stop().await;
}

#[tokio::test]
async fn an_address_that_asks_too_often_is_refused_and_recovers() {
    let ca = TestCa::start("limits: { per_address: { per_second: 1, burst: 5 } }").await;
    let ask = async || {
        let url = format!("https://localhost:{}/cainfo", ca.serving.address.port());
        let response = ca.http().get(url).send().await.expect("answer");
        (response.status().as_u16(), response.headers().get("retry-after").cloned())
    };

    let mut answers = Vec::new();
    for _ in 0..7 {
        answers.push(ask().await);
    }
    ca.clock.advance(Duration::from_secs(2));
    let later = ask().await;

    let codes: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
    assert_eq!(codes, [200, 200, 200, 200, 200, 429, 429]);
    assert!(answers[6].1.as_ref().is_some_and(|value| value == "1"));
    assert_eq!(later.0, 200);
    ca.stop().await;
}

#[tokio::test]
async fn guesses_in_one_name_are_limited_without_stopping_the_holder_of_the_key() {
    let limits = "limits: { per_identity: { per_second: 1, burst: 4 } }\nrules: { password_attempts: 0 }";
    let ca = TestCa::start(limits).await;
    let admin = ca.admin().await;
    let client = ca.client();

    let mut codes = Vec::new();
    for _ in 0..5 {
        let refused =
            client.enroll("admin", "wrong", &EnrollmentOptions::default()).await.expect_err("wrong");
        codes.push(told(&refused).0);
    }

    assert_eq!(codes, [401, 401, 401, 429, 429], "the administrator's own enrolment was the first");
    client.identities(&admin).await.expect("the token is judged by itself");
    ca.stop().await;
}

#[tokio::test]
async fn idemix_is_refused_in_clear_words() {
    let ca = TestCa::start("").await;
    for path in ["idemix/credential", "api/v1/idemix/cri"] {
        let url = format!("https://localhost:{}/{path}", ca.serving.address.port());
        let response = ca.http().post(url).body("{}").send().await.expect("answer");
        assert_eq!(response.status().as_u16(), 501);
        assert!(response.text().await.expect("text").contains("idemix credentials are not issued here"));
    }
    ca.stop().await;
}

#[tokio::test]
async fn the_audit_log_tells_every_issue_and_revocation_also_after_a_restart() {
    let ca = TestCa::start("").await;
    let admin = ca.admin().await;
    ca.client().register(&admin, &user("alice")).await.expect("register");
    let alice = enrolled(&ca, "alice").await;
    let renewed = ca.client().reenroll(&alice, &EnrollmentOptions::default()).await.expect("renew");
    ca.client()
        .revoke(&admin, &Revoke::Identity("alice".to_owned()), "keycompromise", false)
        .await
        .expect("revoke");

    let ca = ca.restart("").await;
    let log = ca.client().audit(&admin, 0).await.expect("audit");

    let rows: Vec<(&str, &str, &str, &str)> = log
        .iter()
        .map(|row| (row.caller.as_str(), row.action.as_str(), row.id.as_str(), row.detail.as_str()))
        .collect();
    assert_eq!(
        rows,
        [
            ("consort-ca", "issue", "ca.org1.example.com", "profile=tls"),
            ("admin", "issue", "admin", "profile=default"),
            ("alice", "issue", "alice", "profile=default"),
            ("alice", "renew", "alice", "profile=default"),
            ("admin", "revoke-identity", "alice", "reason=1"),
            ("admin", "revoke-certificate", "alice", "reason=1"),
            ("admin", "revoke-certificate", "alice", "reason=1"),
        ]
    );
    let serial = Certificate::from_pem(&renewed.certificate_pem).expect("certificate").serial_hex();
    assert_eq!(log[3].serial, serial.trim_start_matches('0'));
    assert!(ca.client().audit(&admin, log[5].number).await.expect("audit").len() == 1);
    ca.client().register(&admin, &user("bob")).await.expect("register");
    let bob = enrolled(&ca, "bob").await;
    assert_eq!(told(&ca.client().audit(&bob, 0).await.expect_err("no registrar")).1, 71);
    let mode = std::fs::metadata(ca.folder().join("data/ca-key.pem")).expect("key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    ca.stop().await;
}
