//! What is asked of a certificate authority, and what it answers.

use std::sync::Arc;

use consort_crypto::bls::SecretKey;
use consort_crypto::key::KeyAlgorithm;
use serde::{Deserialize, Serialize};

/// What a certificate shall be like.
#[derive(Debug, Clone, Default)]
pub struct EnrollmentOptions {
    /// `tls` for TLS certificates, `ca` for an intermediate authority; nothing for an identity.
    pub profile: Option<String>,
    /// Host names and addresses that the certificate is valid for.
    pub hosts: Vec<String>,
    /// The attributes that the certificate carries; nothing means those registered for it.
    pub attributes: Option<Vec<AttributeRequest>>,
    /// The kind of key that is made.
    pub key_algorithm: KeyAlgorithm,
    /// The key for signatures that add up which the certificate shall carry.
    pub bls_key: Option<BlsWish>,
}

/// A BLS key to be certified.
#[derive(Debug, Clone)]
pub struct BlsWish {
    /// The key, which is proved to the authority and stays here.
    pub secret: Arc<SecretKey>,
    /// The organisation whose member the holder is: the proof is good for no other.
    pub msp_id: String,
}

impl EnrollmentOptions {
    /// A TLS certificate for these hosts.
    #[must_use]
    pub fn tls(hosts: &[&str]) -> Self {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        Self { profile: Some("tls".to_owned()), hosts, ..Self::default() }
    }
}

/// One attribute that a certificate shall carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AttributeRequest {
    /// The attribute's name.
    pub name: String,
    /// Whether the enrolment goes on when the identity lacks it.
    pub optional: bool,
}

/// An attribute of an identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Whether certificates carry it by default.
    #[serde(default)]
    pub ecert: bool,
}

/// An identity to register, or the changes to one; what is `None` is left to the authority or unchanged.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Registration {
    /// The enrolment id.
    pub id: String,
    /// `client`, `peer`, `orderer`, `admin` or another word.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Where it stands (`org1.department1`; `.` is the root).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affiliation: Option<String>,
    /// Its secret; made by the authority when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// How often it may enrol; -1 is without limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_enrollments: Option<i64>,
    /// Its attributes.
    #[serde(rename = "attrs")]
    pub attributes: Vec<Attribute>,
}

/// A registered identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredIdentity {
    /// The enrolment id.
    pub id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it stands; empty for the root.
    #[serde(default)]
    pub affiliation: String,
    /// Its attributes.
    #[serde(rename = "attrs", default)]
    pub attributes: Vec<Attribute>,
    /// How often it may enrol; -1 is without limit.
    #[serde(default)]
    pub max_enrollments: i64,
}

/// An affiliation with those below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Affiliation {
    /// The full path; empty for the root.
    #[serde(default)]
    pub name: String,
    /// Those directly below.
    #[serde(default)]
    pub affiliations: Vec<Affiliation>,
    /// The identities that a change moved or removed.
    #[serde(default)]
    pub identities: Vec<RegisteredIdentity>,
}

/// A row of the audit log (`consort-ca` only).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its number, growing from 1.
    pub number: i64,
    /// When (RFC 3339).
    #[serde(default)]
    pub at: Option<String>,
    /// Whose request it was.
    pub caller: String,
    /// `issue`, `renew`, `revoke-certificate`, `revoke-identity` or `remove-identity`.
    pub action: String,
    /// The identity that it happened to.
    pub id: String,
    /// Serial number of the certificate in hexadecimal; empty for an identity.
    #[serde(default)]
    pub serial: String,
    /// Authority key identifier of the certificate in hexadecimal; empty for an identity.
    #[serde(default)]
    pub aki: String,
    /// Profile or reason.
    #[serde(default)]
    pub detail: String,
}

/// What the authority says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaInformation {
    /// Its name (`caname`).
    pub name: String,
    /// Its certificates (PEM, the issuing one first).
    pub chain_pem: String,
    /// The version of the API.
    pub version: String,
}

/// What to revoke.
#[derive(Debug, Clone)]
pub enum Revoke {
    /// An identity with all its certificates.
    Identity(String),
    /// One certificate, by serial number and authority key identifier in hexadecimal.
    Certificate {
        /// Serial number.
        serial: String,
        /// Authority key identifier.
        aki: String,
    },
}

/// What a revocation did.
#[derive(Debug, Clone)]
pub struct Revocation {
    /// Serial number and authority key identifier of each revoked certificate.
    pub certificates: Vec<(String, String)>,
    /// The new list of revoked certificates (PEM), when it was asked for.
    pub crl_pem: Option<String>,
}
