//! cainfo, enroll, reenroll, revoke, gencrl, and what is not there.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Api;
use super::answer::{Answer, Outcome};
use super::incoming::Incoming;
use crate::authority::{Authority, Enrolled};
use crate::error::{ApiError, Code};

/// The version of Fabric CA whose API this is. SDKs read it to choose the form of the token: from 1.4 on, it covers
/// method and URI.
const API_VERSION: &str = "1.5.15";

pub(super) async fn information(State(api): State<Arc<Api>>, incoming: Incoming) -> Outcome {
    let authority = api.addressed(&incoming)?;
    Ok(Answer::ok(server_information(&authority, API_VERSION)))
}

pub(super) async fn enroll(State(api): State<Arc<Api>>, incoming: Incoming) -> Outcome {
    let addressed = api.addressed(&incoming)?;
    api.run(&addressed, move |authority| {
        let identity = authority.log_in(incoming.authorization())?;
        let enrolled = authority.enroll(&identity, incoming.read()?)?;
        Ok(enrollment(authority, &enrolled))
    })
    .await
}

pub(super) async fn reenroll(State(api): State<Arc<Api>>, incoming: Incoming) -> Outcome {
    let addressed = api.addressed(&incoming)?;
    api.run(&addressed, move |authority| {
        let caller = incoming.caller(authority, authority.reenroll_ignores_expiry())?;
        let enrolled = authority.reenroll(&caller, incoming.read()?)?;
        Ok(enrollment(authority, &enrolled))
    })
    .await
}

pub(super) async fn revoke(State(api): State<Arc<Api>>, incoming: Incoming) -> Outcome {
    api.run_as_caller(incoming, |authority, caller, incoming| {
        let revocation = authority.revoke(caller, &incoming.read()?)?;
        let revoked: Vec<Value> = revocation
            .certificates
            .iter()
            .map(|name| json!({ "Serial": name.serial, "AKI": name.aki }))
            .collect();
        let crl = STANDARD.encode(revocation.crl_pem.unwrap_or_default());
        Ok(Answer::ok(json!({ "RevokedCerts": revoked, "CRL": crl })))
    })
    .await
}

pub(super) async fn generate_crl(State(api): State<Arc<Api>>, incoming: Incoming) -> Outcome {
    api.run_as_caller(incoming, |authority, caller, incoming| {
        let crl = authority.generate_crl(caller, &incoming.read()?)?;
        Ok(Answer::ok(json!({ "CRL": STANDARD.encode(crl) })))
    })
    .await
}

/// Idemix credentials are a second kind of identity (anonymous ones) that Consort's members do not accept.
pub(super) async fn no_idemix() -> ApiError {
    let message =
        "idemix credentials are not issued here; enrol for an X.509 certificate (POST /api/v1/enroll)";
    ApiError::new(StatusCode::NOT_IMPLEMENTED, Code::Unknown, message)
}

pub(super) async fn no_such_path() -> ApiError {
    ApiError::not_found(Code::Unknown, "there is no such path; the API's paths start with /api/v1")
}

pub(super) async fn method_not_allowed() -> ApiError {
    let message = "the method is not allowed at this path";
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, Code::MethodNotAllowed, message)
}

fn enrollment(authority: &Authority, enrolled: &Enrolled) -> Answer {
    // The version stays empty here, as in Fabric CA.
    Answer::created(json!({
        "Cert": STANDARD.encode(&enrolled.certificate_pem),
        "ServerInfo": server_information(authority, ""),
    }))
}

/// The idemix fields are empty but there: fabric-ca-client decodes them without looking.
fn server_information(authority: &Authority, version: &str) -> Value {
    json!({
        "CAName": authority.name(),
        "CAChain": STANDARD.encode(authority.chain_pem()),
        "IssuerPublicKey": "",
        "IssuerRevocationPublicKey": "",
        "Version": version,
    })
}
