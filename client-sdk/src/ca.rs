//! A certificate authority, through Fabric CA's REST API: enrol, register, revoke, and manage what it knows.
//!
//! Works against `consort-ca` and Fabric CA alike. Calls other than [`CaClient::info`] and [`CaClient::enroll`] are signed
//! with an enrolled identity: a token in the `Authorization` header covers method, path and body (fabric-ca
//! `util/util.go`, format 1.4).

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use consort_crypto::bls::CertifiedKey;
use consort_crypto::certificate::{Certificate, SubjectAlternativeName};
use consort_crypto::key::PrivateKey;
use consort_crypto::request::CertificateRequest;
use consort_msp::{FolderError, SigningIdentity};
use consort_protos::ids::MspId;
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::connection::Endpoint;

mod messages;

pub use messages::{
    Affiliation, Attribute, AttributeRequest, AuditEntry, BlsWish, CaInformation, EnrollmentOptions,
    RegisteredIdentity, Registration, Revocation, Revoke,
};

/// How long a call may take; an enrolment costs the server a few milliseconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// A failed call to a certificate authority. Each text says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The address is not `host:port`, or the roots are no certificates.
    #[error("the certificate authority's address or roots cannot be used: {reason}")]
    Unusable {
        /// What is wrong.
        reason: String,
    },
    /// The authority does not answer, or its TLS certificate does not match.
    #[error(
        "cannot reach the certificate authority {address}; check that it runs, and that its host name and TLS root are right"
    )]
    Unreachable {
        /// The configured address.
        address: String,
        /// What the transport says.
        #[source]
        source: reqwest::Error,
    },
    /// The authority refused the call.
    #[error("the certificate authority {address} refused ({status}, code {code}): {message}. {remedy}")]
    Refused {
        /// The configured address.
        address: String,
        /// HTTP status.
        status: u16,
        /// Fabric CA's error code.
        code: u16,
        /// Its words.
        message: String,
        /// What usually helps.
        remedy: &'static str,
    },
    /// The answer is not what Fabric CA's API gives.
    #[error("the answer of {address} is not Fabric CA's: {reason}; is another server listening there?")]
    Malformed {
        /// The configured address.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The key cannot sign, or the signing request cannot be made.
    #[error("cannot sign for the certificate authority")]
    Sign(#[source] consort_crypto::Error),
}

impl CaError {
    /// Fabric CA's error code, when the authority refused.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// An identity with its key, as an enrolment gives it. It signs further calls.
#[derive(Debug)]
pub struct Enrollment {
    /// The identity's certificate (PEM).
    pub certificate_pem: String,
    /// Its private key, which never left this process.
    pub key: PrivateKey,
    /// The certificates of the authority (PEM, the issuing one first).
    pub ca_chain_pem: String,
}

impl Enrollment {
    /// An earlier enrolment from an MSP folder (`signcerts`, `keystore`, and the authorities beside them).
    ///
    /// # Errors
    /// When the folder holds no certificate with its key; the text names file and rule.
    pub fn from_folder(folder: &Path) -> Result<Self, EnrollmentFolderError> {
        // The name of the organisation plays no part in calls to its authority.
        let any = MspId::parse("any").expect("invariant: a plain word is an MSP id");
        let identity = SigningIdentity::from_folder(folder, &any)?;
        let keystore = folder.join("keystore");
        let wrong = |rule: String| FolderError::Rule { path: keystore.clone(), rule };
        let files = std::fs::read_dir(&keystore).map_err(|error| wrong(error.to_string()))?;
        let keys = files
            .filter_map(|file| Some(Zeroizing::new(std::fs::read_to_string(file.ok()?.path()).ok()?)))
            .filter_map(|text| PrivateKey::from_pem(&text).ok());
        let key = keys
            .into_iter()
            .find(|key| key.public_key() == identity.certificate().public_key())
            .ok_or_else(|| wrong("the key is gone".to_owned()))?;
        let above = ["intermediatecerts", "cacerts"].map(|part| pem_texts(&folder.join(part)));
        Ok(Self { certificate_pem: identity.certificate().pem(), key, ca_chain_pem: above.concat() })
    }

    /// The same with a key and certificate that were read elsewhere.
    ///
    /// # Errors
    /// [`CaError::Sign`] when they cannot be read, or do not belong together.
    pub fn from_pem(certificate_pem: &str, key_pem: &str, ca_chain_pem: &str) -> Result<Self, CaError> {
        let certificate = Certificate::from_pem(certificate_pem).map_err(CaError::Sign)?;
        let key = PrivateKey::from_pem(key_pem).map_err(CaError::Sign)?;
        if key.public_key() != certificate.public_key() {
            let reason = "the private key belongs to another certificate";
            return Err(CaError::Sign(consort_crypto::Error::DoesNotBelong(reason)));
        }
        let ca_chain_pem = ca_chain_pem.to_owned();
        Ok(Self { certificate_pem: certificate.pem(), key, ca_chain_pem })
    }
}

/// An MSP folder holds no usable enrolment.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct EnrollmentFolderError(#[from] FolderError);

/// The PEM texts of a folder, one after the other; nothing when there is no folder.
fn pem_texts(folder: &Path) -> String {
    let mut files: Vec<_> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path()).collect();
    files.sort();
    files.iter().filter_map(|file| std::fs::read_to_string(file).ok()).collect()
}

/// A connection to one certificate authority. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CaClient {
    address: String,
    ca_name: Option<String>,
    http: reqwest::Client,
}

#[derive(Deserialize)]
struct Envelope {
    success: bool,
    #[serde(default)]
    result: Value,
    #[serde(default)]
    errors: Vec<EnvelopeError>,
}

#[derive(Deserialize)]
struct EnvelopeError {
    code: u16,
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServerInformation {
    #[serde(rename = "CAName", default)]
    name: String,
    #[serde(rename = "CAChain")]
    chain: String,
    #[serde(default)]
    version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EnrollmentResult {
    cert: String,
    server_info: ServerInformation,
}

impl CaClient {
    /// Prepares calls; nothing is sent yet. `ca_name` picks an authority of a server that has several.
    ///
    /// # Errors
    /// [`CaError::Unusable`] for an address that is no `host:port`, or roots that are no certificates.
    pub fn new(endpoint: &Endpoint, ca_name: Option<&str>) -> Result<Self, CaError> {
        consort_crypto::tls::install_default_provider();
        let unusable = |reason: String| CaError::Unusable { reason };
        let (host, _) = endpoint.host_and_port().map_err(|error| unusable(error.to_string()))?;
        let roots = reqwest::Certificate::from_pem_bundle(&endpoint.tls_roots_pem);
        let mut builder = reqwest::Client::builder()
            .timeout(CALL_TIMEOUT)
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        for root in roots.map_err(|error| unusable(error.to_string()))? {
            builder = builder.add_root_certificate(root);
        }
        if let Some(address) = endpoint.connect_to {
            builder = builder.resolve(host, address);
        }
        let http = builder.build().map_err(|error| unusable(error.to_string()))?;
        Ok(Self { address: endpoint.address.clone(), ca_name: ca_name.map(str::to_owned), http })
    }

    /// The authority's name, certificates and version.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn info(&self) -> Result<CaInformation, CaError> {
        let body = self.body(json!({}))?;
        let request = self.http.post(self.url("cainfo")).body(body);
        let info: ServerInformation = self.answer(request).await?;
        Ok(CaInformation { chain_pem: self.decoded(&info.chain)?, name: info.name, version: info.version })
    }

    /// Makes a key and has it certified for an identity, by its secret.
    ///
    /// # Errors
    /// [`CaError::Refused`], with code 20 when identity or secret are wrong.
    pub async fn enroll(
        &self,
        id: &str,
        secret: &str,
        options: &EnrollmentOptions,
    ) -> Result<Enrollment, CaError> {
        let (key, body) = self.signing_request(id, options)?;
        let request = self.http.post(self.url("enroll")).basic_auth(id, Some(secret)).body(body);
        let result = self.answer(request).await?;
        self.enrollment(key, &result)
    }

    /// Makes a new key and has it certified for the identity that `current` belongs to.
    ///
    /// # Errors
    /// [`CaError::Refused`], with code 20 when the current certificate is expired or revoked.
    pub async fn reenroll(
        &self,
        current: &Enrollment,
        options: &EnrollmentOptions,
    ) -> Result<Enrollment, CaError> {
        let certificate = Certificate::from_pem(&current.certificate_pem).map_err(CaError::Sign)?;
        let id = certificate.subject_common_name().unwrap_or_default().to_owned();
        let (key, body) = self.signing_request(&id, options)?;
        let result = self.signed(current, Method::POST, "reenroll", body).await?;
        self.enrollment(key, &result)
    }

    /// Has the key that `current` already has certified anew: for whoever is known by his key, as consenters are.
    ///
    /// # Errors
    /// As [`CaClient::reenroll`].
    pub async fn reenroll_same_key(
        &self,
        current: &Enrollment,
        options: &EnrollmentOptions,
    ) -> Result<Enrollment, CaError> {
        let certificate = Certificate::from_pem(&current.certificate_pem).map_err(CaError::Sign)?;
        let id = certificate.subject_common_name().unwrap_or_default();
        let key = PrivateKey::from_pem(&current.key.to_pem()).map_err(CaError::Sign)?;
        let body = self.request_for(&key, id, options)?;
        let result = self.signed(current, Method::POST, "reenroll", body).await?;
        self.enrollment(key, &result)
    }

    /// Registers an identity and returns its secret.
    ///
    /// # Errors
    /// [`CaError::Refused`], with code 71 when the registrar may not, 74 when the name is taken.
    pub async fn register(
        &self,
        registrar: &Enrollment,
        registration: &Registration,
    ) -> Result<String, CaError> {
        #[derive(Deserialize)]
        struct Secret {
            secret: String,
        }
        let body = self.body(registration)?;
        let secret: Secret = self.signed(registrar, Method::POST, "register", body).await?;
        Ok(secret.secret)
    }

    /// Revokes a certificate or an identity. `reason` is one of RFC 5280's words (`keycompromise`) or empty.
    ///
    /// # Errors
    /// [`CaError::Refused`], with code 71 when the caller may not, 66 when it is revoked already.
    pub async fn revoke(
        &self,
        caller: &Enrollment,
        what: &Revoke,
        reason: &str,
        with_crl: bool,
    ) -> Result<Revocation, CaError> {
        #[derive(Deserialize)]
        struct Revoked {
            #[serde(rename = "Serial")]
            serial: String,
            #[serde(rename = "AKI")]
            aki: String,
        }
        #[derive(Deserialize)]
        struct Answer {
            #[serde(rename = "RevokedCerts", default)]
            revoked: Vec<Revoked>,
            #[serde(rename = "CRL", default)]
            crl: String,
        }
        let mut body = match what {
            Revoke::Identity(id) => json!({ "id": id }),
            Revoke::Certificate { serial, aki } => json!({ "serial": serial, "aki": aki }),
        };
        body["reason"] = json!(reason);
        body["gencrl"] = json!(with_crl);
        let answer: Answer = self.signed(caller, Method::POST, "revoke", self.body(body)?).await?;
        Ok(Revocation {
            certificates: answer.revoked.into_iter().map(|revoked| (revoked.serial, revoked.aki)).collect(),
            crl_pem: Some(self.decoded(&answer.crl)?).filter(|pem| !pem.is_empty()),
        })
    }

    /// The list of revoked, unexpired certificates (PEM).
    ///
    /// # Errors
    /// [`CaError::Refused`], with code 71 without `hf.GenCRL`.
    pub async fn gen_crl(&self, caller: &Enrollment) -> Result<String, CaError> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(rename = "CRL")]
            crl: String,
        }
        let answer: Answer = self.signed(caller, Method::POST, "gencrl", self.body(json!({}))?).await?;
        self.decoded(&answer.crl)
    }

    /// All identities that the caller has authority over.
    ///
    /// # Errors
    /// [`CaError::Refused`], with code 71 when the caller is no registrar.
    pub async fn identities(&self, caller: &Enrollment) -> Result<Vec<RegisteredIdentity>, CaError> {
        #[derive(Deserialize)]
        struct Answer {
            identities: Vec<RegisteredIdentity>,
        }
        let answer: Answer =
            self.signed(caller, Method::GET, &self.addressed("identities"), Vec::new()).await?;
        Ok(answer.identities)
    }

    /// One identity.
    ///
    /// # Errors
    /// [`CaError::Refused`], with code 63 when there is none of this name.
    pub async fn identity(&self, caller: &Enrollment, id: &str) -> Result<RegisteredIdentity, CaError> {
        let path = self.addressed(&format!("identities/{}", escaped(id)));
        self.signed(caller, Method::GET, &path, Vec::new()).await
    }

    /// Changes an identity; a new secret also forgives wrong attempts.
    ///
    /// # Errors
    /// As [`CaClient::identity`] and [`CaClient::register`].
    pub async fn modify_identity(
        &self,
        caller: &Enrollment,
        change: &Registration,
    ) -> Result<RegisteredIdentity, CaError> {
        let path = format!("identities/{}", escaped(&change.id));
        self.signed(caller, Method::PUT, &path, self.body(change)?).await
    }

    /// Removes an identity and revokes its certificates, where the authority allows removal.
    ///
    /// # Errors
    /// [`CaError::Refused`], with code 56 when removal is switched off.
    pub async fn remove_identity(
        &self,
        caller: &Enrollment,
        id: &str,
        force: bool,
    ) -> Result<RegisteredIdentity, CaError> {
        let path = format!("identities/{}?force={force}", escaped(id));
        self.signed(caller, Method::DELETE, &path, Vec::new()).await
    }

    /// The affiliation with those below it; without a name, all that the caller may see.
    ///
    /// # Errors
    /// [`CaError::Refused`], with code 71 without `hf.AffiliationMgr`.
    pub async fn affiliations(
        &self,
        caller: &Enrollment,
        name: Option<&str>,
    ) -> Result<Affiliation, CaError> {
        let path = name.map_or("affiliations".to_owned(), |name| format!("affiliations/{}", escaped(name)));
        self.signed(caller, Method::GET, &self.addressed(&path), Vec::new()).await
    }

    /// Adds an affiliation; with `force` also those above it that are missing.
    ///
    /// # Errors
    /// [`CaError::Refused`], with code 60 when it exists or the one above is missing.
    pub async fn add_affiliation(&self, caller: &Enrollment, name: &str, force: bool) -> Result<(), CaError> {
        let path = format!("affiliations?force={force}");
        let body = self.body(json!({ "name": name }))?;
        let _added: Value = self.signed(caller, Method::POST, &path, body).await?;
        Ok(())
    }

    /// Renames an affiliation; with `force` the identities there follow.
    ///
    /// # Errors
    /// [`CaError::Refused`], with code 64 when identities depend on it.
    pub async fn rename_affiliation(
        &self,
        caller: &Enrollment,
        from: &str,
        to: &str,
        force: bool,
    ) -> Result<Affiliation, CaError> {
        let path = format!("affiliations/{}?force={force}", escaped(from));
        self.signed(caller, Method::PUT, &path, self.body(json!({ "name": to }))?).await
    }

    /// Removes an affiliation, where the authority allows removal.
    ///
    /// # Errors
    /// [`CaError::Refused`], with code 61 when removal is switched off or others depend on it.
    pub async fn remove_affiliation(
        &self,
        caller: &Enrollment,
        name: &str,
        force: bool,
    ) -> Result<Affiliation, CaError> {
        let path = format!("affiliations/{}?force={force}", escaped(name));
        self.signed(caller, Method::DELETE, &path, Vec::new()).await
    }

    /// The issued certificates (PEM) that match all of the query's `name=value` filters: `id`, `serial`, `aki`,
    /// `revoked_start`, `revoked_end`, `expired_start`, `expired_end`, `notrevoked`, `notexpired`.
    ///
    /// # Errors
    /// [`CaError::Refused`], with code 71 when the caller is neither registrar nor revoker.
    pub async fn certificates(
        &self,
        caller: &Enrollment,
        query: &[(&str, &str)],
    ) -> Result<Vec<String>, CaError> {
        #[derive(Deserialize)]
        struct Listed {
            #[serde(rename = "PEM")]
            pem: String,
        }
        #[derive(Deserialize)]
        struct Answer {
            certs: Vec<Listed>,
        }
        let query: Vec<String> =
            query.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let path = self.addressed(&format!("certificates?{}", query.join("&")));
        let answer: Answer = self.signed(caller, Method::GET, &path, Vec::new()).await?;
        Ok(answer.certs.into_iter().map(|listed| listed.pem).collect())
    }

    /// The rows of the audit log after the one numbered `after`: what was issued and revoked, by whom. `consort-ca` only.
    ///
    /// # Errors
    /// [`CaError::Refused`], with code 71 when the caller is no registrar above all affiliations.
    pub async fn audit(&self, caller: &Enrollment, after: i64) -> Result<Vec<AuditEntry>, CaError> {
        #[derive(Deserialize)]
        struct Answer {
            entries: Vec<AuditEntry>,
        }
        let path = self.addressed(&format!("audit?after={after}"));
        let answer: Answer = self.signed(caller, Method::GET, &path, Vec::new()).await?;
        Ok(answer.entries)
    }

    fn signing_request(
        &self,
        id: &str,
        options: &EnrollmentOptions,
    ) -> Result<(PrivateKey, Vec<u8>), CaError> {
        let key = PrivateKey::generate(options.key_algorithm).map_err(CaError::Sign)?;
        let body = self.request_for(&key, id, options)?;
        Ok((key, body))
    }

    fn request_for(
        &self,
        key: &PrivateKey,
        id: &str,
        options: &EnrollmentOptions,
    ) -> Result<Vec<u8>, CaError> {
        let sans: Vec<_> = options.hosts.iter().map(|host| SubjectAlternativeName::from_text(host)).collect();
        let request = match &options.bls_key {
            Some(wish) => {
                let proved = CertifiedKey::prove(&wish.secret, &wish.msp_id, key.public_key());
                CertificateRequest::create_with_bls(key, id, &sans, &proved)
            }
            None => CertificateRequest::create(key, id, &sans),
        };
        let request = request.map_err(CaError::Sign)?;
        let mut body = json!({ "certificate_request": request.pem() });
        if let Some(profile) = &options.profile {
            body["profile"] = json!(profile);
        }
        if let Some(attributes) = &options.attributes {
            body["attr_reqs"] = json!(attributes);
        }
        self.body(body)
    }

    fn enrollment(&self, key: PrivateKey, result: &EnrollmentResult) -> Result<Enrollment, CaError> {
        Ok(Enrollment {
            certificate_pem: self.decoded(&result.cert)?,
            key,
            ca_chain_pem: self.decoded(&result.server_info.chain)?,
        })
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}/api/v1/{path}", self.address)
    }

    /// The path with the authority's name in its query.
    fn addressed(&self, path: &str) -> String {
        let Some(name) = &self.ca_name else {
            return path.to_owned();
        };
        let joint = if path.contains('?') { '&' } else { '?' };
        format!("{path}{joint}ca={}", escaped(name))
    }

    /// The body with the authority's name in it.
    fn body(&self, value: impl Serialize) -> Result<Vec<u8>, CaError> {
        let unusable = |error: serde_json::Error| CaError::Unusable { reason: error.to_string() };
        let mut value = serde_json::to_value(value).map_err(unusable)?;
        if let (Some(name), Value::Object(object)) = (&self.ca_name, &mut value) {
            let object: &mut Map<String, Value> = object;
            object.insert("caname".to_owned(), json!(name));
        }
        serde_json::to_vec(&value).map_err(unusable)
    }

    /// A call with the caller's token over method, path and body.
    async fn signed<T: DeserializeOwned>(
        &self,
        caller: &Enrollment,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, CaError> {
        let certificate = STANDARD.encode(&caller.certificate_pem);
        let uri = STANDARD.encode(format!("/api/v1/{path}"));
        let message = format!("{method}.{uri}.{}.{certificate}", STANDARD.encode(&body));
        let signature = caller.key.sign(message.as_bytes()).map_err(CaError::Sign)?;
        let token = format!("{certificate}.{}", STANDARD.encode(signature));
        let request = self.http.request(method, self.url(path)).header("Authorization", token).body(body);
        self.answer(request).await
    }

    async fn answer<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, CaError> {
        let unreachable = |source| CaError::Unreachable { address: self.address.clone(), source };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(unreachable)?;
        let envelope: Envelope = serde_json::from_slice(&body).map_err(|error| self.malformed(&error))?;
        if envelope.success {
            return serde_json::from_value(envelope.result).map_err(|error| self.malformed(&error));
        }
        let first = envelope.errors.into_iter().next();
        let (code, message) = first.map_or((0, String::new()), |error| (error.code, error.message));
        let (address, remedy) = (self.address.clone(), remedy(code));
        Err(CaError::Refused { address, status, code, message, remedy })
    }

    fn decoded(&self, text: &str) -> Result<String, CaError> {
        let bytes = STANDARD.decode(text).map_err(|error| self.malformed(&error))?;
        String::from_utf8(bytes).map_err(|error| self.malformed(&error))
    }

    fn malformed(&self, error: &dyn std::fmt::Display) -> CaError {
        CaError::Malformed { address: self.address.clone(), reason: error.to_string() }
    }
}

/// What usually helps, by Fabric CA's error code.
fn remedy(code: u16) -> &'static str {
    match code {
        19 => "Check the name of the certificate authority (caname)",
        20 => {
            "Check the identity and its secret; or the certificate is expired, revoked or of another authority"
        }
        31 | 77 | 80 => "Check the signing request: its common name must be the enrolment id",
        71 => "The caller lacks the attribute, type or affiliation for this; the authority's log says which",
        73 => "A registrar must give the identity a new secret",
        74 => "Choose another name, or enrol the existing identity",
        _ => "The authority's log says more",
    }
}

/// A text as part of a path or query (RFC 3986, section 2).
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authoritys_name_goes_into_query_and_body() {
        let mut client = CaClient::new(&Endpoint::new("ca:7054", ""), Some("ca-org1")).unwrap();

        assert_eq!(client.addressed("identities"), "identities?ca=ca-org1");
        assert_eq!(client.addressed("certificates?id=a"), "certificates?id=a&ca=ca-org1");
        assert_eq!(client.body(json!({ "id": "a" })).unwrap(), br#"{"id":"a","caname":"ca-org1"}"#);

        client.ca_name = None;
        assert_eq!(client.addressed("identities"), "identities");
    }

    #[test]
    fn texts_in_paths_are_escaped() {
        assert_eq!(escaped("User1@org1/x"), "User1%40org1%2Fx");
    }

    #[test]
    fn an_address_without_port_is_refused() {
        let error = CaClient::new(&Endpoint::new("ca.org1.example.com", ""), None).unwrap_err();
        assert!(error.to_string().contains("ca.org1.example.com"), "{error}");
    }
}
