//! The configuration of `consort-ca`: one YAML file, overridden by `CONSORT_CA__…` variables.
//!
//! An example with every key stands in `docs/config/ca.example.yaml`.

mod authority;

pub use authority::{AuthorityConfig, ParentConfig};

use std::collections::BTreeSet;
use std::path::PathBuf;

use consort_crypto::key::KeyAlgorithm;
use consort_node::config::ListenConfig;
use consort_node::operations::OperationsConfig;
use consort_node::telemetry::LogConfig;
use serde::Deserialize;

use crate::affiliation::InvalidAffiliation;
use crate::password::{HashCost, Secret};

/// The whole configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaConfig {
    /// Where the REST API is served, always with TLS. Fabric CA's port is 7054.
    pub listen: ListenConfig,
    /// Folder for the key, the certificates and the registry; created at the first start. Back it up as a whole.
    pub data: PathBuf,
    /// Who this authority is.
    pub ca: CaIdentity,
    /// Host names and addresses that clients reach the API by; they go into its TLS certificate. Default: localhost
    /// and 127.0.0.1.
    #[serde(default = "local_hosts")]
    pub hosts: Vec<String>,
    /// The first administrator, who registers everybody else.
    pub bootstrap: Bootstrap,
    /// Affiliations that exist from the start; those above them are made too. Default: none.
    #[serde(default)]
    pub affiliations: Vec<String>,
    /// How long certificates and lists are valid.
    #[serde(default)]
    pub expiry: Expiry,
    /// What callers may do.
    #[serde(default)]
    pub rules: Rules,
    /// How costly it is to try a secret.
    #[serde(default)]
    pub password_hashing: HashCost,
    /// Further authorities in the same server, each with its own data folder, key, registry and affiliations. A request
    /// names one by `caname`; without a name it is for the authority above. Default: none.
    #[serde(default)]
    pub further: Vec<AuthorityConfig>,
    /// How many requests are answered.
    #[serde(default)]
    pub limits: RequestLimits,
    /// Health, metrics and version; without it they are not served.
    #[serde(default)]
    pub operations: Option<OperationsConfig>,
    /// What is logged. Issued and revoked certificates are logged under the target `audit` at level info.
    #[serde(default)]
    pub log: LogConfig,
}

/// Name and subject of the authority.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaIdentity {
    /// The name in requests (`caname`), for example `ca-org1`.
    pub name: String,
    /// The subject of its own certificate; used only when the certificate is made, at the first start.
    pub subject: Subject,
    /// How long its own certificate is valid, in days. Default 3650: replacing a root means new channel configurations.
    #[serde(default = "ten_years")]
    pub validity_days: u32,
    /// The key that is made at the first start; used only then. Default: ECDSA on P-256.
    #[serde(default)]
    pub key: KeyConfig,
    /// The authority above: with it, this is an intermediate authority, which enrols there at its first start. The
    /// subject's common name must then be the enrolment id. Default: none, this is a root.
    #[serde(default)]
    pub parent: Option<ParentConfig>,
}

/// A kind of key, as Fabric CA's `csr.key` says it, and SM2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyConfig {
    /// `ecdsa`, `ed25519` or `sm2`. Default `ecdsa`.
    pub algo: KeyKind,
    /// Bits: 256 or 384 with `ecdsa`, 256 with the others. Default 256.
    pub size: KeySize,
}

/// The algorithm of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// ECDSA on a NIST curve.
    #[default]
    Ecdsa,
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// SM2 with SM3 (GB/T 32918). TLS does not know such certificates, so another authority of the server must have a
    /// key of another kind; it then certifies the API.
    Sm2,
}

/// Bits of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct KeySize(pub u16);

impl Default for KeySize {
    fn default() -> Self {
        Self(256)
    }
}

impl KeyConfig {
    /// The algorithm, if kind and size name one.
    pub fn algorithm(&self) -> Option<KeyAlgorithm> {
        match (self.algo, self.size.0) {
            (KeyKind::Ecdsa, 256) => Some(KeyAlgorithm::P256),
            (KeyKind::Ecdsa, 384) => Some(KeyAlgorithm::P384),
            (KeyKind::Ed25519, 256) => Some(KeyAlgorithm::Ed25519),
            (KeyKind::Sm2, 256) => Some(KeyAlgorithm::Sm2),
            _ => None,
        }
    }
}

/// A distinguished name.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Common name, for example `ca.org1.example.com`.
    pub common_name: String,
    /// Organisation, for example `org1.example.com`.
    pub organization: String,
    /// Organisational unit. Default: none.
    #[serde(default)]
    pub organizational_unit: Option<String>,
    /// Two letters. Default: none.
    #[serde(default)]
    pub country: Option<String>,
    /// State or province. Default: none.
    #[serde(default)]
    pub province: Option<String>,
    /// City. Default: none.
    #[serde(default)]
    pub locality: Option<String>,
}

/// The first administrator.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bootstrap {
    /// Enrolment id, for example `admin`.
    pub id: String,
    /// Its secret; better given as `CONSORT_CA__BOOTSTRAP__SECRET`. Once the identity exists, its secret is changed
    /// through the API and this one no longer counts.
    pub secret: Secret,
    /// Where it stands; it can act at and below. Default: the root, above all.
    #[serde(default)]
    pub affiliation: String,
}

/// How long what is issued is valid; nothing outlives the authority's own certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expiry {
    /// Certificates of identities, in days. Default 365, as Fabric CA's.
    pub identity_days: u32,
    /// TLS certificates (profile `tls`), in days. Default 365.
    pub tls_days: u32,
    /// Certificates of intermediate authorities (profile `ca`), in days. Default 1825.
    pub ca_days: u32,
    /// Lists of revoked certificates, in hours. Default 24.
    pub crl_hours: u32,
}

impl Default for Expiry {
    fn default() -> Self {
        Self { identity_days: 365, tls_days: 365, ca_days: 1825, crl_hours: 24 }
    }
}

/// What callers may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Most enrolments of one identity by its secret; -1 is no limit, 0 switches enrolment off. Default -1.
    pub max_enrollments: i64,
    /// Wrong secrets after which an identity can no longer enrol until a registrar gives it a new one; counted across
    /// restarts; 0 is no limit. Default 10, as Fabric CA's.
    pub password_attempts: i64,
    /// Whether identities and affiliations may be removed. Default: neither, because a removed name can be given anew.
    pub allow_removal: AllowRemoval,
    /// Whether an expired certificate may still be used to enrol anew. Default false.
    pub reenroll_ignores_expiry: bool,
    /// How many authorities may follow, one below the other, below an intermediate authority that is issued here.
    /// Default 0, as Fabric CA's profile `ca`; never more than the authority's own certificate leaves.
    pub intermediate_path_length: u8,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            max_enrollments: -1,
            password_attempts: 10,
            allow_removal: AllowRemoval::default(),
            reenroll_ignores_expiry: false,
            intermediate_path_length: 0,
        }
    }
}

/// How many requests are answered; what comes faster is refused with status 429 before anything is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RequestLimits {
    /// Of one address (of one /64 network with IPv6), whatever it asks.
    pub per_address: AddressRate,
    /// For one identity: enrolments in its name, right or wrong, and requests with its token.
    pub per_identity: IdentityRate,
}

/// A rate for one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AddressRate {
    /// Requests per second over time; 0 is no limit. Default 200: a script that enrols one after another stays below.
    pub per_second: u32,
    /// Requests at once after a pause. Default 1000: a consortium's whole network may enrol from behind one address.
    pub burst: u32,
}

impl Default for AddressRate {
    fn default() -> Self {
        Self { per_second: 200, burst: 1000 }
    }
}

/// A rate for one identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityRate {
    /// Requests per second over time; 0 is no limit. Default 100: a registrar's script stays below.
    pub per_second: u32,
    /// Requests at once after a pause. Default 1000.
    pub burst: u32,
}

impl Default for IdentityRate {
    fn default() -> Self {
        Self { per_second: 100, burst: 1000 }
    }
}

/// What may be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AllowRemoval {
    /// Identities.
    pub identities: bool,
    /// Affiliations.
    pub affiliations: bool,
}

/// A value of the configuration that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidConfig {
    /// A text is no affiliation.
    #[error("the configuration's {key}: {source}")]
    Affiliation {
        /// Where it stands.
        key: &'static str,
        /// What is wrong.
        source: InvalidAffiliation,
    },
    /// Something that must not be empty is.
    #[error("the configuration's {0} is empty; give it a value")]
    Empty(&'static str),
    /// A number is out of range.
    #[error("the configuration's {key} must be {rule}")]
    Number {
        /// Where it stands.
        key: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// Two authorities share what each needs for itself.
    #[error("two authorities of this server have the same {what} '{value}'; each needs its own")]
    Shared {
        /// What is shared.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// An intermediate authority would not carry the name under which its parent knows it.
    #[error(
        "ca.subject.common_name '{common_name}' of the intermediate authority must be its enrolment id at the parent, \
         '{id}' (ca.parent.id)"
    )]
    ParentName {
        /// The configured name.
        common_name: String,
        /// The enrolment id.
        id: String,
    },
    /// A text is too long for a certificate.
    #[error("the configuration's {key} is longer than {limit} characters, which a certificate cannot hold")]
    TooLong {
        /// Where it stands.
        key: &'static str,
        /// Most characters.
        limit: usize,
    },
}

impl CaConfig {
    /// All authorities of this server, the one that requests without a name are for first.
    pub fn authorities(&self) -> Vec<AuthorityConfig> {
        let first = AuthorityConfig {
            data: self.data.clone(),
            ca: self.ca.clone(),
            bootstrap: self.bootstrap.clone(),
            affiliations: self.affiliations.clone(),
            expiry: self.expiry,
            rules: self.rules,
        };
        std::iter::once(first).chain(self.further.iter().cloned()).collect()
    }

    /// Judges what the file's format cannot.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        if self.hosts.is_empty() {
            return Err(InvalidConfig::Empty("hosts"));
        }
        let (mut names, mut folders) = (BTreeSet::new(), BTreeSet::new());
        for authority in self.authorities() {
            authority.check()?;
            if !names.insert(authority.ca.name.clone()) {
                return Err(InvalidConfig::Shared { what: "ca.name", value: authority.ca.name });
            }
            if !folders.insert(authority.data.clone()) {
                let value = authority.data.display().to_string();
                return Err(InvalidConfig::Shared { what: "data folder", value });
            }
        }
        Ok(())
    }
}

fn local_hosts() -> Vec<String> {
    vec!["localhost".to_owned(), "127.0.0.1".to_owned()]
}

fn ten_years() -> u32 {
    3650
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const EXAMPLE: &str = include_str!("../../docs/config/ca.example.yaml");

    fn read(text: &str) -> CaConfig {
        consort_node::config::parse(text, Path::new("ca.yaml"), "CONSORT_CA", []).expect("configuration")
    }

    #[test]
    fn the_example_is_valid_and_shows_the_defaults() {
        let config = read(EXAMPLE);

        assert_eq!(config.check(), Ok(()));
        assert_eq!(config.expiry, Expiry::default());
        assert_eq!(config.rules, Rules::default());
        assert_eq!(config.password_hashing, HashCost::default());
        assert_eq!(config.limits, RequestLimits::default());
        assert_eq!(config.ca.key, KeyConfig::default());
    }

    #[test]
    fn values_that_cannot_work_are_named() {
        let mut config = read(EXAMPLE);
        config.affiliations.push("a..b".to_owned());
        assert!(config.check().expect_err("affiliation").to_string().contains("a..b"));

        let mut config = read(EXAMPLE);
        config.expiry.tls_days = 0;
        assert!(config.check().expect_err("days").to_string().contains("expiry.tls_days"));

        let mut config = read(EXAMPLE);
        config.bootstrap.secret = Secret::new(String::new());
        assert!(config.check().expect_err("secret").to_string().contains("bootstrap.secret"));
    }

    #[test]
    fn the_secret_is_not_printed() {
        assert!(!format!("{:?}", read(EXAMPLE)).contains("adminpw"));
    }
}
