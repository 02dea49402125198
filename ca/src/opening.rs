//! Opening one authority: its folder, its key and chain (made or enrolled for at the first start), its registry.

use std::path::PathBuf;
use std::sync::Arc;

use consort_crypto::certificate::Certificate;
use consort_crypto::issue::{CertificateAuthority, DistinguishedName, NamePart, Validity};
use consort_crypto::key::PrivateKey;
use consort_node::Clock;
use time::{Duration, OffsetDateTime};
use tracing::info;

use crate::authority::{Authority, Meters};
use crate::chain;
use crate::config::{AuthorityConfig, ParentConfig, Subject};
use crate::folder::DataFolder;
use crate::issuer::Issuer;
use crate::parent;
use crate::password::PasswordHashing;
use crate::rate::RateLimiter;
use crate::registry::Registry;
use crate::server::StartError;

/// Backdating of the root, as that of what it issues.
const BACKDATED: Duration = Duration::minutes(5);

/// The authority's key.
const KEY: &str = "ca-key.pem";
/// The authority's certificate.
const CERTIFICATE: &str = "ca-cert.pem";
/// The certificate with those of the authorities above, the root last; only of an intermediate authority.
const CHAIN: &str = "ca-chain.pem";
/// Identities, affiliations, certificates.
const REGISTRY: &str = "registry.db";

/// What all authorities of a server share.
pub(crate) struct Shared {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) meters: Meters,
    pub(crate) hashing: Arc<PasswordHashing>,
    pub(crate) identity_limits: Arc<RateLimiter>,
}

/// Opens one authority, and registers its first administrator.
pub(crate) async fn open(
    config: &AuthorityConfig,
    shared: &Shared,
) -> Result<(Arc<Authority>, DataFolder), StartError> {
    let folder = DataFolder::open(&config.data)?;
    let place = Place { folder: &folder, config, clock: &shared.clock };
    let (authority, above) = place.key_and_chain().await?;
    let rules = &config.rules;
    let issuer = Issuer::new(authority, above, config.expiry, rules.intermediate_path_length);
    let fingerprint = hex::encode(issuer.certificate().fingerprint());
    let registry = Registry::open(&folder.path(REGISTRY), &fingerprint)?;
    let authority = Authority::new(config.settings(), issuer, registry, shared);
    let (own, all) = config.affiliations()?;
    let bootstrap = &config.bootstrap;
    if authority.bootstrap(&bootstrap.id, &bootstrap.secret, &own, &all)? {
        info!(target: "audit", ca = config.ca.name, id = bootstrap.id, "first administrator registered");
    }
    Ok((Arc::new(authority), folder))
}

/// Where one authority's key and certificates are kept.
struct Place<'a> {
    folder: &'a DataFolder,
    config: &'a AuthorityConfig,
    clock: &'a Arc<dyn Clock>,
}

impl Place<'_> {
    /// The key with its certificate and the authorities above: those in the folder, or new ones at the first start.
    async fn key_and_chain(&self) -> Result<(CertificateAuthority, Vec<Certificate>), StartError> {
        let (key_path, certificate_path) = (self.folder.path(KEY), self.folder.path(CERTIFICATE));
        let registry = self.folder.path(REGISTRY);
        match (self.folder.read(KEY)?, self.folder.read(CERTIFICATE)?) {
            (Some(key), Some(certificate)) => self.kept(&key, &certificate),
            (None, Some(_)) => Err(StartError::Missing { path: key_path, other: certificate_path }),
            (None | Some(_), None) if registry.exists() => {
                Err(StartError::NoKey { registry, path: certificate_path })
            }
            // A key alone was left by a first start that was cut off, or whose parent did not answer.
            (key, None) => {
                let key = self.key(key.as_deref())?;
                match &self.config.ca.parent {
                    None => Ok((self.make_root(key)?, Vec::new())),
                    Some(parent) => self.enroll(parent, key).await,
                }
            }
        }
    }

    fn key(&self, kept: Option<&str>) -> Result<PrivateKey, StartError> {
        if let Some(kept) = kept {
            return PrivateKey::from_pem(kept).map_err(|source| self.unusable(source));
        }
        // Only a checked configuration comes here, and a checked one names an algorithm.
        let algorithm = self.config.ca.key.algorithm().unwrap_or_default();
        let key = PrivateKey::generate(algorithm).map_err(StartError::Make)?;
        self.folder.write_secret(KEY, &key.to_pem())?;
        Ok(key)
    }

    fn kept(
        &self,
        key: &str,
        certificate: &str,
    ) -> Result<(CertificateAuthority, Vec<Certificate>), StartError> {
        let authority =
            CertificateAuthority::from_pem(certificate, key).map_err(|source| self.unusable(source))?;
        let (path, own) = (self.folder.path(CERTIFICATE), authority.certificate());
        let (root, now) = (chain::is_root(own), self.clock.now());
        if root && self.config.ca.parent.is_some() {
            return Err(StartError::RootInPlace { path });
        }
        let above = if root { Vec::new() } else { self.above(own)? };
        let ended = std::iter::once(own).chain(&above).map(Certificate::not_after).min();
        if let Some(ended) = ended.filter(|ended| *ended <= now) {
            return Err(StartError::Ended { path, ended });
        }
        let all: Vec<Certificate> = std::iter::once(own).chain(&above).cloned().collect();
        let path = self.folder.path(if root { CERTIFICATE } else { CHAIN });
        chain::check(&all, now).map_err(|source| StartError::Chain { path, source })?;
        Ok((authority, above))
    }

    /// The authorities above an intermediate one, as they were given at its enrolment.
    fn above(&self, own: &Certificate) -> Result<Vec<Certificate>, StartError> {
        let path = self.folder.path(CHAIN);
        let Some(text) = self.folder.read(CHAIN)? else {
            return Err(StartError::Missing { path, other: self.folder.path(CERTIFICATE) });
        };
        let all = Certificate::all_from_pem(text.as_bytes()).map_err(|source| self.unusable(source))?;
        Ok(all.into_iter().filter(|certificate| certificate.fingerprint() != own.fingerprint()).collect())
    }

    fn make_root(&self, key: PrivateKey) -> Result<CertificateAuthority, StartError> {
        let now = self.clock.now();
        let validity = Validity {
            not_before: now - BACKDATED,
            not_after: now + Duration::days(self.config.ca.validity_days.into()),
        };
        let subject = distinguished_name(&self.config.ca.subject);
        let authority = CertificateAuthority::new_root(&subject, key, validity).map_err(StartError::Make)?;
        self.folder.write_public(CERTIFICATE, &authority.certificate().pem())?;
        info!(target: "audit", ca = self.config.ca.name, subject = authority.certificate().subject(),
              serial = authority.certificate().serial_hex(), "root certificate made");
        Ok(authority)
    }

    async fn enroll(
        &self,
        parent: &ParentConfig,
        key: PrivateKey,
    ) -> Result<(CertificateAuthority, Vec<Certificate>), StartError> {
        let subject = distinguished_name(&self.config.ca.subject);
        let mut chain = parent::enroll(parent, &key, &subject, self.clock).await?;
        let texts: String = chain.iter().map(Certificate::pem).collect();
        let own = chain.remove(0);
        // The chain first: the certificate says that everything is there.
        self.folder.write_public(CHAIN, &texts)?;
        self.folder.write_public(CERTIFICATE, &own.pem())?;
        info!(target: "audit", ca = self.config.ca.name, subject = own.subject(), serial = own.serial_hex(),
              parent = parent.address, not_after = %own.not_after(), "enrolled as an intermediate authority");
        let authority = CertificateAuthority::new(own, key).map_err(|source| self.unusable(source))?;
        Ok((authority, chain))
    }

    fn unusable(&self, source: consort_crypto::Error) -> StartError {
        let (certificate, key): (PathBuf, PathBuf) = (self.folder.path(CERTIFICATE), self.folder.path(KEY));
        StartError::KeyPair { certificate, key, source }
    }
}

/// The order of Fabric's own tools: country, province, locality, organisation, unit, common name.
fn distinguished_name(subject: &Subject) -> DistinguishedName {
    let parts = [
        (NamePart::Country, subject.country.as_deref()),
        (NamePart::State, subject.province.as_deref()),
        (NamePart::Locality, subject.locality.as_deref()),
        (NamePart::Organization, Some(subject.organization.as_str())),
        (NamePart::OrganizationalUnit, subject.organizational_unit.as_deref()),
        (NamePart::CommonName, Some(subject.common_name.as_str())),
    ];
    parts
        .into_iter()
        .filter_map(|(part, value)| Some((part, value.filter(|value| !value.is_empty())?)))
        .fold(DistinguishedName::new(), |name, (part, value)| name.with(part, value))
}

/// Whether the moment is near enough to the end of a certificate that it should be replaced.
pub(crate) fn ends_soon(certificate: &Certificate, now: OffsetDateTime, span: Duration) -> bool {
    certificate.not_after() < now + span
}
