//! From a configuration to a serving authority.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use consort_crypto::certificate::{Certificate, SubjectAlternativeName};
use consort_crypto::issue::{CertificateAuthority, DistinguishedName, NamePart, Validity};
use consort_crypto::key::PrivateKey;
use consort_node::config::ClientAuth;
use consort_node::operations::{self, HealthCheck, Operations, OperationsError, Version};
use consort_node::server::{self, Limits, Listener, ServerError};
use consort_node::telemetry::LogHandle;
use consort_node::tls::{ServerTls, TlsError};
use consort_node::{Clock, Metrics, Tasks};
use time::{Duration, OffsetDateTime};
use tracing::{info, warn};

use crate::api;
use crate::authority::{Authority, BootstrapError, Meters};
use crate::config::{CaConfig, InvalidConfig, Subject};
use crate::folder::{DataFolder, FolderError};
use crate::issuer::Issuer;
use crate::password::{HashError, PasswordHashing};
use crate::registry::{Registry, RegistryError};

/// A TLS certificate that ends sooner than this is replaced at the start.
const TLS_REMAINING_MIN: Duration = Duration::days(30);

/// Backdating of the root, as that of what it issues.
const BACKDATED: Duration = Duration::minutes(5);

/// Open connections. Enrolments are short; a thousand wait here rather than in memory-hard hashing.
const CONNECTIONS_MAX: usize = 1_000;

/// Why the authority cannot start. Each text names the cause and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// The data folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The registry cannot be used.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Secrets cannot be hashed at the configured cost.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The first administrator cannot be registered.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// Half of the authority's key pair is missing.
    #[error(
        "{path} is missing, while {other} is there; restore it from a backup, or choose another data folder"
    )]
    Missing {
        /// What is missing.
        path: PathBuf,
        /// What is there.
        other: PathBuf,
    },
    /// The registry is there, but not the key that it was kept for.
    #[error(
        "{registry} is there, but {path} is not; restore it from a backup, or choose another data folder"
    )]
    NoKey {
        /// The registry.
        registry: PathBuf,
        /// The certificate, whose key is missing as well or is of no use without it.
        path: PathBuf,
    },
    /// Key and certificate cannot be used together.
    #[error(
        "the certificate {certificate} and the key {key} cannot be used together; restore both from one backup, \
         or choose another data folder"
    )]
    KeyPair {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// What is wrong.
        #[source]
        source: consort_crypto::Error,
    },
    /// The authority's own certificate has ended.
    #[error("the certificate {path} ended at {ended}; nothing can be issued with it, a new root is needed")]
    Ended {
        /// The certificate.
        path: PathBuf,
        /// When.
        ended: OffsetDateTime,
    },
    /// A key or certificate cannot be made, for example because the configured subject does not fit.
    #[error("cannot make the authority's certificates; check ca.subject and hosts in the configuration")]
    Make(#[source] consort_crypto::Error),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The API's address cannot be used.
    #[error(transparent)]
    Listen(#[from] ServerError),
    /// The operations cannot be served.
    #[error(transparent)]
    Operations(#[from] OperationsError),
}

/// A serving authority.
#[derive(Debug, Clone)]
pub struct Serving {
    /// Where the REST API listens.
    pub address: SocketAddr,
    /// Where the operations are served, if they are.
    pub operations: Option<SocketAddr>,
    /// The authority's certificate in PEM: the TLS root for its clients, too.
    pub chain_pem: String,
}

/// Opens the data folder (making key, certificate and registry at the first start) and serves.
///
/// # Errors
/// [`StartError`]; nothing is left running then but what `tasks` ends.
pub async fn start(
    config: &CaConfig,
    clock: Arc<dyn Clock>,
    log: Option<LogHandle>,
    tasks: &Tasks,
) -> Result<Serving, StartError> {
    config.check()?;
    // The address first: a second process on the same configuration stops here, before it touches the folder.
    let listener = Listener::bind(&config.listen).await?;
    let metrics = Metrics::new();
    let (authority, tls) = open(config, &clock, &metrics)?;
    let authority = Arc::new(authority);
    let operations = match &config.operations {
        None => None,
        Some(settings) => {
            let version = Version { program: "consort-ca", version: env!("CARGO_PKG_VERSION") };
            let checks: Vec<Arc<dyn HealthCheck>> = vec![Arc::new(RegistryCheck(Arc::clone(&authority)))];
            let operations = Operations { version, metrics, log, checks, clock };
            Some(operations::serve(settings, operations, tasks).await?)
        }
    };
    let address = listener.address();
    let chain_pem = authority.chain_pem().to_owned();
    info!(name = authority.name(), %address, "certificate authority serves");
    let limits = Limits { connections: CONNECTIONS_MAX, ..Limits::default() };
    server::serve(listener, Some(tls), api::router(authority), limits, tasks);
    Ok(Serving { address, operations, chain_pem })
}

fn open(
    config: &CaConfig,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> Result<(Authority, ServerTls), StartError> {
    let folder = DataFolder::open(&config.data)?;
    let now = clock.now();
    let issuer = Issuer::new(key_pair(&folder, config, now)?, config.expiry);
    let fingerprint = hex::encode(issuer.certificate().fingerprint());
    let registry = Registry::open(&folder.path("registry.db"), &fingerprint)?;
    let tls = server_tls(&folder, config, &issuer, now)?;
    let hashing = PasswordHashing::new(config.password_hashing)?;
    let meters = Meters::new(metrics);
    let authority = Authority::new(config.settings(), issuer, registry, hashing, meters, Arc::clone(clock));
    let (own, all) = config.affiliations()?;
    let bootstrap = &config.bootstrap;
    if authority.bootstrap(&bootstrap.id, &bootstrap.secret, &own, &all)? {
        info!(target: "audit", id = bootstrap.id, "first administrator registered");
    }
    Ok((authority, tls))
}

/// The authority's key and certificate: those in the folder, or new ones at the first start.
fn key_pair(
    folder: &DataFolder,
    config: &CaConfig,
    now: OffsetDateTime,
) -> Result<CertificateAuthority, StartError> {
    let (key_path, certificate_path) = (folder.path("ca-key.pem"), folder.path("ca-cert.pem"));
    let key = folder.read("ca-key.pem")?;
    let certificate = folder.read("ca-cert.pem")?;
    let registry = folder.path("registry.db");
    let unusable =
        |source| StartError::KeyPair { certificate: certificate_path.clone(), key: key_path.clone(), source };
    match (key, certificate) {
        (Some(key), Some(certificate)) => {
            let authority = CertificateAuthority::from_pem(certificate, &key).map_err(unusable)?;
            let ended = authority.certificate().not_after();
            if ended <= now {
                return Err(StartError::Ended { path: certificate_path, ended });
            }
            Ok(authority)
        }
        (None, Some(_)) => Err(StartError::Missing { path: key_path, other: certificate_path }),
        (None | Some(_), None) if registry.exists() => {
            Err(StartError::NoKey { registry, path: certificate_path })
        }
        // A key alone was left by a first start that was cut off.
        (key, None) => {
            let key = key.map_or_else(PrivateKey::generate_p256, |key| PrivateKey::from_pem(&key));
            make_root(folder, config, key.map_err(unusable)?, now)
        }
    }
}

fn make_root(
    folder: &DataFolder,
    config: &CaConfig,
    key: PrivateKey,
    now: OffsetDateTime,
) -> Result<CertificateAuthority, StartError> {
    folder.write_secret("ca-key.pem", &key.to_pem())?;
    let validity = Validity {
        not_before: now - BACKDATED,
        not_after: now + Duration::days(config.ca.validity_days.into()),
    };
    let subject = distinguished_name(&config.ca.subject);
    let authority = CertificateAuthority::new_root(&subject, key, validity).map_err(StartError::Make)?;
    folder.write_public("ca-cert.pem", &authority.certificate().pem())?;
    info!(target: "audit", subject = authority.certificate().subject(),
          serial = authority.certificate().serial_hex(), "root certificate made");
    Ok(authority)
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

/// The TLS certificate of the API: the one in the folder while it is good for a month and names the configured hosts.
fn server_tls(
    folder: &DataFolder,
    config: &CaConfig,
    issuer: &Issuer,
    now: OffsetDateTime,
) -> Result<ServerTls, StartError> {
    if let (Some(certificate), Some(key)) = (folder.read("tls-cert.pem")?, folder.read("tls-key.pem")?) {
        match judge_tls(&certificate, config, issuer, now) {
            Ok(()) => {
                match ServerTls::from_pem(certificate.as_bytes(), key.as_bytes(), NO_ROOTS, ClientAuth::None)
                {
                    Ok(tls) => return Ok(tls),
                    Err(error) => warn!(%error, "the TLS certificate is replaced"),
                }
            }
            Err(reason) => info!(reason, "the TLS certificate is replaced"),
        }
    }
    let key = PrivateKey::generate_p256().map_err(StartError::Make)?;
    let name = &config.ca.subject.common_name;
    let issued = issuer.issue_server(name, &config.hosts, key.public_key(), now).map_err(StartError::Make)?;
    folder.write_secret("tls-key.pem", &key.to_pem())?;
    folder.write_public("tls-cert.pem", &issued.pem())?;
    info!(target: "audit", id = name, serial = issued.serial_hex(), not_after = %issued.not_after(),
          "certificate issued for the authority's own API");
    Ok(ServerTls::from_pem(issued.pem().as_bytes(), key.to_pem().as_bytes(), NO_ROOTS, ClientAuth::None)?)
}

/// Clients of the API authenticate by secret or token, not by TLS.
const NO_ROOTS: &[Vec<u8>] = &[];

fn judge_tls(pem: &str, config: &CaConfig, issuer: &Issuer, now: OffsetDateTime) -> Result<(), String> {
    let certificate = Certificate::from_pem(pem).map_err(|error| error.to_string())?;
    issuer.verify_issued(&certificate)?;
    if certificate.not_after() < now + TLS_REMAINING_MIN
        && certificate.not_after() < issuer.certificate().not_after()
    {
        return Err("it ends soon".to_owned());
    }
    let hosts: Vec<_> = config.hosts.iter().map(|host| SubjectAlternativeName::from_text(host)).collect();
    if certificate.subject_alternative_names() != hosts {
        return Err("the configured hosts are others".to_owned());
    }
    Ok(())
}

struct RegistryCheck(Arc<Authority>);

#[async_trait]
impl HealthCheck for RegistryCheck {
    fn component(&self) -> String {
        "registry".to_owned()
    }

    async fn check(&self) -> Result<(), String> {
        let authority = Arc::clone(&self.0);
        let answered = tokio::task::spawn_blocking(move || authority.check()).await;
        answered.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }
}
