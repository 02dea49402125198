//! One authority of a server, and the authority above it.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::{Bootstrap, CaIdentity, Expiry, InvalidConfig, Rules};
use crate::affiliation::Affiliation;
use crate::authority::Settings;
use crate::password::Secret;

/// One authority: its folder, its name, its people, its rules. The keys mean what they mean at the top of the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorityConfig {
    /// Folder for the key, the certificate and the registry; its own, not that of another authority.
    pub data: PathBuf,
    /// Who this authority is.
    pub ca: CaIdentity,
    /// The first administrator.
    pub bootstrap: Bootstrap,
    /// Affiliations that exist from the start. Default: none.
    #[serde(default)]
    pub affiliations: Vec<String>,
    /// How long certificates and lists are valid.
    #[serde(default)]
    pub expiry: Expiry,
    /// What callers may do.
    #[serde(default)]
    pub rules: Rules,
}

/// The authority above an intermediate one, reached over Fabric CA's REST API with TLS.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParentConfig {
    /// Its address, for example `ca.root.example.com:7054`; the host must stand in its TLS certificate.
    pub address: String,
    /// Its name, where its server has several. Default: none.
    #[serde(default)]
    pub ca_name: Option<String>,
    /// The enrolment id of this authority there; it needs the attribute `hf.IntermediateCA=true`.
    pub id: String,
    /// Its secret there; used at the first start only.
    pub secret: Secret,
    /// PEM file with the roots of the parent's TLS certificate.
    pub tls_roots: PathBuf,
    /// Where to connect in place of what the resolver says of the host. Default: none.
    #[serde(default)]
    pub connect_to: Option<SocketAddr>,
    /// How long to wait for a parent that does not answer yet, in seconds. Default 30: servers of one network start
    /// together.
    #[serde(default = "half_a_minute")]
    pub wait_s: u32,
}

impl AuthorityConfig {
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

    pub(super) fn check(&self) -> Result<(), InvalidConfig> {
        self.affiliations()?;
        self.check_texts()?;
        if self.ca.key.algorithm().is_none() {
            let rule = "256 or 384 bits with ecdsa, 256 with ed25519 and sm2";
            return Err(InvalidConfig::Number { key: "ca.key.size", rule });
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

    fn check_texts(&self) -> Result<(), InvalidConfig> {
        let common_name = self.ca.subject.common_name.as_str();
        let texts = [
            ("ca.name", self.ca.name.as_str(), 64),
            ("ca.subject.common_name", common_name, 64),
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
        match &self.ca.parent {
            Some(parent) if parent.id != common_name => {
                Err(InvalidConfig::ParentName { common_name: common_name.to_owned(), id: parent.id.clone() })
            }
            _ => Ok(()),
        }
    }
}

fn half_a_minute() -> u32 {
    30
}
