//! The configuration of `consort-ca`: one YAML file, overridden by `CONSORT_CA__…` variables.
//!
//! An example with every key stands in `docs/config/ca.example.yaml`.

use std::path::PathBuf;

use consort_node::config::ListenConfig;
use consort_node::operations::OperationsConfig;
use consort_node::telemetry::LogConfig;
use serde::Deserialize;

use crate::affiliation::{Affiliation, InvalidAffiliation};
use crate::authority::Settings;
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
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            max_enrollments: -1,
            password_attempts: 10,
            allow_removal: AllowRemoval::default(),
            reenroll_ignores_expiry: false,
        }
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
    /// The behaviour that the configuration asks for.
    pub fn settings(&self) -> Settings {
        Settings {
            name: self.ca.name.clone(),
            max_enrollments: self.rules.max_enrollments,
            password_attempts: self.rules.password_attempts,
            allow_identity_removal: self.rules.allow_removal.identities,
            allow_affiliation_removal: self.rules.allow_removal.affiliations,
            reenroll_ignores_expiry: self.rules.reenroll_ignores_expiry,
        }
    }

    /// The affiliation of the first administrator, and those that exist from the start.
    ///
    /// # Errors
    /// When a text is no affiliation.
    pub fn affiliations(&self) -> Result<(Affiliation, Vec<Affiliation>), InvalidConfig> {
        let parse = |key, text: &str| {
            Affiliation::parse(text).map_err(|source| InvalidConfig::Affiliation { key, source })
        };
        let own = parse("bootstrap.affiliation", &self.bootstrap.affiliation)?;
        let all = self.affiliations.iter().map(|text| parse("affiliations", text));
        Ok((own, all.collect::<Result<_, _>>()?))
    }

    /// Judges what the file's format cannot.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        self.affiliations()?;
        let texts = [
            ("ca.name", self.ca.name.as_str(), 64),
            ("ca.subject.common_name", self.ca.subject.common_name.as_str(), 64),
            ("ca.subject.organization", self.ca.subject.organization.as_str(), 64),
            ("bootstrap.id", self.bootstrap.id.as_str(), 64),
        ];
        for (key, text, limit) in texts {
            if text.is_empty() {
                return Err(InvalidConfig::Empty(key));
            }
            if text.chars().count() > limit {
                return Err(InvalidConfig::TooLong { key, limit });
            }
        }
        if self.bootstrap.secret.is_empty() {
            return Err(InvalidConfig::Empty("bootstrap.secret"));
        }
        if self.hosts.is_empty() {
            return Err(InvalidConfig::Empty("hosts"));
        }
        let spans = [
            ("ca.validity_days", self.ca.validity_days, 36500),
            ("expiry.identity_days", self.expiry.identity_days, 36500),
            ("expiry.tls_days", self.expiry.tls_days, 36500),
            ("expiry.ca_days", self.expiry.ca_days, 36500),
            ("expiry.crl_hours", self.expiry.crl_hours, 24 * 36500),
        ];
        if let Some((key, ..)) = spans.into_iter().find(|(_, value, most)| *value == 0 || value > most) {
            return Err(InvalidConfig::Number { key, rule: "at least 1 and at most 100 years" });
        }
        if self.rules.max_enrollments < -1 || self.rules.password_attempts < 0 {
            return Err(InvalidConfig::Number {
                key: "rules",
                rule: "-1 (no limit) or more, attempts 0 or more",
            });
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
