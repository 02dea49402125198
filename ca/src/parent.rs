//! Enrolling an intermediate authority at the one above it, over Fabric CA's REST API.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use consort_crypto::certificate::Certificate;
use consort_crypto::issue::DistinguishedName;
use consort_crypto::key::PrivateKey;
use consort_crypto::request::CertificateRequest;
use consort_node::Clock;
use serde::Deserialize;
use serde_json::json;
use tracing::info;

use crate::chain::{self, BrokenChain};
use crate::config::ParentConfig;

/// Time for one attempt; an enrolment costs the parent a few milliseconds.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause before a parent that did not answer is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(300);

/// Largest answer that is read, in bytes: a chain of certificates in base64 stays far below.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Why the authority above did not give a certificate. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ParentError {
    /// The file with the TLS roots cannot be used.
    #[error("the TLS roots {path} of the parent authority cannot be used (ca.parent.tls_roots): {reason}")]
    Roots {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The address is no `host:port`.
    #[error("ca.parent.address '{0}' is not of the form host:port")]
    Address(String),
    /// The parent does not answer.
    #[error(
        "the parent authority {address} does not answer; check that it runs, its host name and its TLS roots"
    )]
    Unreachable {
        /// The configured address.
        address: String,
        /// What the transport says.
        #[source]
        source: reqwest::Error,
    },
    /// The parent refused.
    #[error(
        "the parent authority {address} refused (code {code}): {message}. Check ca.parent.id and ca.parent.secret, and \
         that the identity has hf.IntermediateCA=true and enrolments left there"
    )]
    Refused {
        /// The configured address.
        address: String,
        /// Fabric CA's code.
        code: u16,
        /// Its words.
        message: String,
    },
    /// The answer cannot be used.
    #[error("the answer of the parent authority {address} cannot be used: {reason}")]
    Answer {
        /// The configured address.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificates in the answer are no chain of authorities.
    #[error("the chain that the parent authority {address} gave cannot be used: {source}")]
    Chain {
        /// The configured address.
        address: String,
        /// What is wrong with it.
        source: BrokenChain,
    },
    /// The signing request cannot be made.
    #[error("cannot make the signing request; check ca.subject in the configuration")]
    Request(#[source] consort_crypto::Error),
}

#[derive(Deserialize)]
struct Envelope {
    success: bool,
    #[serde(default)]
    result: serde_json::Value,
    #[serde(default)]
    errors: Vec<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    code: u16,
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Enrolled {
    cert: String,
    server_info: ServerInformation,
}

#[derive(Deserialize)]
struct ServerInformation {
    #[serde(rename = "CAChain")]
    chain: String,
}

/// Has `key` certified as an intermediate authority. Returns the chain, the new certificate first and the root last.
///
/// # Errors
/// [`ParentError`]; a parent that does not answer is asked again for the configured time.
pub async fn enroll(
    config: &ParentConfig,
    key: &PrivateKey,
    subject: &DistinguishedName,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<Certificate>, ParentError> {
    let request = CertificateRequest::create_for(key, subject, &[]).map_err(ParentError::Request)?;
    let http = client(config)?;
    let mut body = json!({ "certificate_request": request.pem(), "profile": "ca" });
    if let Some(name) = &config.ca_name {
        body["caname"] = json!(name);
    }
    let body = body.to_string();
    let began = clock.monotonic();
    let patience = Duration::from_secs(config.wait_s.into());
    let text = loop {
        match ask(&http, config, &body).await {
            Err(ParentError::Unreachable { source, .. })
                if clock.monotonic().duration_since(began) < patience && !source.is_builder() =>
            {
                info!(address = config.address, error = %source, "the parent authority does not answer yet");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            answered => break answered?,
        }
    };
    chain_of(config, &text, key, clock)
}

fn client(config: &ParentConfig) -> Result<reqwest::Client, ParentError> {
    consort_crypto::tls::install_default_provider();
    let unusable =
        |reason: String| ParentError::Roots { path: config.tls_roots.display().to_string(), reason };
    let roots = std::fs::read(&config.tls_roots).map_err(|error| unusable(error.to_string()))?;
    let roots = reqwest::Certificate::from_pem_bundle(&roots).map_err(|error| unusable(error.to_string()))?;
    if roots.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    let mut builder = reqwest::Client::builder()
        .timeout(ATTEMPT_TIMEOUT)
        .https_only(true)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    for root in roots {
        builder = builder.add_root_certificate(root);
    }
    let (host, port) =
        config.address.rsplit_once(':').ok_or_else(|| ParentError::Address(config.address.clone()))?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(ParentError::Address(config.address.clone()));
    }
    if let Some(address) = config.connect_to {
        builder = builder.resolve(host, address);
    }
    builder.build().map_err(|error| unusable(error.to_string()))
}

async fn ask(http: &reqwest::Client, config: &ParentConfig, body: &str) -> Result<Vec<u8>, ParentError> {
    let unreachable = |source| ParentError::Unreachable { address: config.address.clone(), source };
    let request = http
        .post(format!("https://{}/api/v1/enroll", config.address))
        .basic_auth(&config.id, Some(config.secret.reveal()))
        .body(body.to_owned());
    let mut response = request.send().await.map_err(unreachable)?;
    let mut text = Vec::new();
    while let Some(part) = response.chunk().await.map_err(unreachable)? {
        text.extend_from_slice(&part);
        if text.len() > ANSWER_BYTES_MAX {
            return Err(answer(config, "it is larger than 1 MiB"));
        }
    }
    Ok(text)
}

fn chain_of(
    config: &ParentConfig,
    text: &[u8],
    key: &PrivateKey,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<Certificate>, ParentError> {
    let envelope: Envelope = serde_json::from_slice(text).map_err(|error| answer(config, &error))?;
    if !envelope.success {
        let refusal = envelope.errors.into_iter().next();
        let (code, message) = refusal.map_or((0, String::new()), |first| (first.code, first.message));
        return Err(ParentError::Refused { address: config.address.clone(), code, message });
    }
    let enrolled: Enrolled =
        serde_json::from_value(envelope.result).map_err(|error| answer(config, &error))?;
    let decoded = |text: &str| STANDARD.decode(text).map_err(|error| answer(config, &error));
    let own = Certificate::from_pem(decoded(&enrolled.cert)?).map_err(|error| answer(config, &error))?;
    let above = Certificate::all_from_pem(&decoded(&enrolled.server_info.chain)?)
        .map_err(|error| answer(config, &error))?;
    if own.public_key() != key.public_key() {
        return Err(answer(config, "the certificate is for another key"));
    }
    let chain: Vec<Certificate> = std::iter::once(own).chain(above).collect();
    let broken = |source| ParentError::Chain { address: config.address.clone(), source };
    chain::check(&chain, clock.now()).map_err(broken)?;
    Ok(chain)
}

fn answer(config: &ParentConfig, reason: &(impl ToString + ?Sized)) -> ParentError {
    ParentError::Answer { address: config.address.clone(), reason: reason.to_string() }
}
