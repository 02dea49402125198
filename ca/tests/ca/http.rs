//! What arrives on the wire: envelopes, codes, limits, tokens.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use consort_client_sdk::ca::Enrollment;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::serving::TestCa;

struct Wire {
    http: reqwest::Client,
    base: String,
}

impl Wire {
    fn to(ca: &TestCa) -> Self {
        consort_crypto::tls::install_default_provider();
        let root = reqwest::Certificate::from_pem(ca.serving.chain_pem.as_bytes()).expect("root");
        let http = reqwest::Client::builder().add_root_certificate(root).no_proxy().build().expect("client");
        Self { http, base: format!("https://localhost:{}", ca.serving.address.port()) }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    /// A request with a token that is signed over `signed_path` and `signed_body`.
    fn signed(
        &self,
        caller: &Enrollment,
        (method, path): (Method, &str),
        signed_path: &str,
        signed_body: &str,
    ) -> reqwest::RequestBuilder {
        let certificate = STANDARD.encode(&caller.certificate_pem);
        let (uri, body) = (STANDARD.encode(signed_path), STANDARD.encode(signed_body));
        let message = format!("{method}.{uri}.{body}.{certificate}");
        let signature = STANDARD.encode(caller.key.sign(message.as_bytes()).expect("sign"));
        self.request(method, path).header("Authorization", format!("{certificate}.{signature}"))
    }
}

async fn answer(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.expect("answer");
    let status = response.status();
    (status, serde_json::from_slice(&response.bytes().await.expect("body")).expect("JSON"))
}

async fn code(request: reqwest::RequestBuilder) -> (u16, u64) {
    let (status, envelope) = answer(request).await;
    assert_eq!(envelope["success"], json!(false));
    assert_eq!(envelope["result"], json!(""));
    (status.as_u16(), envelope["errors"][0]["code"].as_u64().expect("code"))
}

#[tokio::test]
async fn cainfo_is_served_with_and_without_prefix_by_get_and_post() {
    let ca = TestCa::start("").await;
    let wire = Wire::to(&ca);

    for (method, path) in [
        (Method::GET, "/cainfo"),
        (Method::POST, "/api/v1/cainfo"),
        (Method::GET, "/api/v1/cainfo?ca=ca-org1"),
    ] {
        let (status, envelope) = answer(wire.request(method, path)).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(envelope["success"], json!(true));
        assert_eq!(envelope["result"]["CAName"], json!("ca-org1"));
        assert_eq!(envelope["result"]["IssuerPublicKey"], json!(""));
        assert_eq!(envelope["result"]["IssuerRevocationPublicKey"], json!(""));
    }
    let head = wire.request(Method::HEAD, "/cainfo").send().await.expect("head");
    assert_eq!(head.status(), StatusCode::OK);
    ca.stop().await;
}

#[tokio::test]
async fn faults_of_the_request_have_their_codes() {
    let ca = TestCa::start("").await;
    let wire = Wire::to(&ca);
    let login = |body: &str| {
        wire.request(Method::POST, "/enroll").basic_auth("admin", Some("adminpw")).body(body.to_owned())
    };

    assert_eq!(code(wire.request(Method::PUT, "/api/v1/enroll")).await, (405, 1));
    assert_eq!(code(wire.request(Method::GET, "/api/v2/cainfo")).await, (404, 0));
    assert_eq!(code(wire.request(Method::POST, "/enroll")).await, (401, 2));
    assert_eq!(code(wire.request(Method::GET, "/identities")).await, (401, 2));
    assert_eq!(code(wire.request(Method::GET, "/cainfo?ca=other")).await, (404, 19));
    let named = wire.request(Method::POST, "/cainfo").body(r#"{"CaName":"other"}"#);
    assert_eq!(code(named).await, (404, 19));
    assert_eq!(code(login("")).await, (400, 4));
    assert_eq!(code(login("{")).await, (400, 5));
    assert_eq!(code(login("{}")).await, (400, 31));
    assert_eq!(code(login(r#"{"certificate_request":"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"}"#)).await, (400, 31));
    assert_eq!(code(login(&"x".repeat(1024 * 1024 + 1))).await, (413, 5));
    let basic_elsewhere = wire.request(Method::GET, "/identities").basic_auth("admin", Some("adminpw"));
    assert_eq!(code(basic_elsewhere).await, (401, 20));
    ca.stop().await;
}

#[tokio::test]
async fn a_token_covers_method_path_and_body() {
    let ca = TestCa::start("").await;
    let (wire, admin) = (Wire::to(&ca), ca.admin().await);
    let body = r#"{"id":"user1","type":"client"}"#;
    let register = "/api/v1/register";
    let post = (Method::POST, register);

    let good = wire.signed(&admin, post.clone(), register, body).body(body);
    let other_body = wire.signed(&admin, post.clone(), register, "{}").body(body);
    let other_path = wire.signed(&admin, post.clone(), "/api/v1/revoke", body).body(body);
    let other_query = wire.signed(&admin, (Method::GET, "/identities?ca=ca-org1"), "/identities", "");
    let get = wire.signed(
        &admin,
        (Method::GET, "/identities/a%40b?ca=ca-org1"),
        "/identities/a%40b?ca=ca-org1",
        "",
    );

    assert_eq!(code(other_body).await, (401, 20));
    assert_eq!(code(other_path).await, (401, 20));
    assert_eq!(code(other_query).await, (401, 20));
    assert_eq!(code(get).await, (404, 63));
    let response = good.send().await.expect("answer");
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.headers()["location"], "/api/v1/identities/user1");
    ca.stop().await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_with_the_same_name_is_refused() {
    let (ca, sibling) = (TestCa::start("").await, TestCa::start("").await);
    let (wire, stranger) = (Wire::to(&ca), sibling.admin().await);

    let request = wire.signed(&stranger, (Method::GET, "/identities"), "/identities", "");

    assert_eq!(code(request).await, (401, 20));
    ca.stop().await;
    sibling.stop().await;
}

#[tokio::test]
async fn a_chunked_body_without_content_type_is_taken() {
    let ca = TestCa::start("").await;
    let (wire, admin) = (Wire::to(&ca), ca.admin().await);
    let body = r#"{"id":"user1","type":null,"affiliation":"org1","attrs":null,"max_enrollments":1}"#;
    let chunks =
        futures::stream::iter(body.as_bytes().chunks(7).map(|part| Ok::<_, std::io::Error>(part.to_vec())));

    let request = wire.signed(&admin, (Method::POST, "/register"), "/register", body);
    let (status, envelope) = answer(request.body(reqwest::Body::wrap_stream(chunks))).await;

    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(envelope["result"]["secret"].as_str().map(str::len), Some(12));
    ca.stop().await;
}
