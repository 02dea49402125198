//! From a configuration to a serving authority.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use consort_crypto::key::KeyAlgorithm;
use consort_node::operations::{self, HealthCheck, Operations, OperationsError, Version};
use consort_node::renewal::{CertificateWatch, WatchedCertificate};
use consort_node::server::{self, Limits, Listener, ServerError};
use consort_node::telemetry::LogHandle;
use consort_node::tls::TlsError;
use consort_node::{Clock, Metrics, Tasks};
use time::OffsetDateTime;
use tracing::info;

use crate::api;
use crate::authority::{Authority, BootstrapError, Meters};
use crate::chain::BrokenChain;
use crate::config::{CaConfig, InvalidConfig};
use crate::folder::FolderError;
use crate::opening::{self, Shared};
use crate::own_tls::OwnTls;
use crate::parent::ParentError;
use crate::password::{HashError, PasswordHashing};
use crate::rate::{Rate, RateLimiter};
use crate::registry::RegistryError;

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
    /// The folder of an intermediate authority holds a root.
    #[error(
        "{path} is the certificate of a root, but the configuration names a parent (ca.parent); remove the parent, or \
         choose another data folder"
    )]
    RootInPlace {
        /// The certificate.
        path: PathBuf,
    },
    /// The authority's chain does not hold.
    #[error("the certificates in {path} are no chain of authorities: {source}; restore them from a backup")]
    Chain {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: BrokenChain,
    },
    /// The authority above gave no certificate.
    #[error(transparent)]
    Parent(#[from] ParentError),
    /// A certificate of the authority's chain has ended.
    #[error(
        "the authority of {path} ended at {ended} (its own certificate or one above it); nothing can be issued with \
         it, a new certificate is needed"
    )]
    Ended {
        /// The certificate.
        path: PathBuf,
        /// When.
        ended: OffsetDateTime,
    },
    /// A key or certificate cannot be made, for example because the configured subject does not fit.
    #[error("cannot make the authority's certificates; check ca.subject and hosts in the configuration")]
    Make(#[source] consort_crypto::Error),
    /// No authority can certify the server's TLS.
    #[error(
        "TLS does not know SM2 certificates, and no authority of this server has another key; add one (further, with \
         ca.key ecdsa): it certifies the API, and the organisation's TLS certificates come from it, too"
    )]
    NoTls,
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
    /// The certificates of the first authority in PEM, its own first.
    pub chain_pem: String,
    /// The TLS roots for its clients in PEM: the chain of the authority that certified the API.
    pub tls_roots_pem: String,
}

/// Opens the data folders (making keys, certificates and registries at the first start) and serves.
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
    let (authorities, tls) = open(config, &clock, &metrics).await?;
    watch(&authorities, &tls, &metrics, &clock, tasks);
    let operations = match &config.operations {
        None => None,
        Some(settings) => {
            let version = Version { program: "consort-ca", version: env!("CARGO_PKG_VERSION") };
            let check = |authority| Arc::new(RegistryCheck(authority)) as Arc<dyn HealthCheck>;
            let checks: Vec<_> = authorities.iter().map(Arc::clone).map(check).collect();
            let operations = Operations { version, metrics, log, checks, clock: Arc::clone(&clock) };
            Some(operations::serve(settings, settings.server_tls()?, operations, tasks).await?)
        }
    };
    let address = listener.address();
    let first = authorities.first().expect("invariant: a configuration has one authority at least");
    let chain_pem = first.chain_pem().to_owned();
    for authority in &authorities {
        info!(name = authority.name(), %address, "certificate authority serves");
    }
    let tls_roots_pem = tls.authority().chain_pem().to_owned();
    let limits = Limits { connections: CONNECTIONS_MAX, ..Limits::default() };
    let per_address = config.limits.per_address;
    let per_address = RateLimiter::new(Rate { per_second: per_address.per_second, burst: per_address.burst });
    let router = api::router(authorities, per_address, clock);
    server::serve(listener, Some(tls.server().clone()), router, limits, tasks);
    Ok(Serving { address, operations, chain_pem, tls_roots_pem })
}

async fn open(
    config: &CaConfig,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> Result<(Vec<Arc<Authority>>, Arc<OwnTls>), StartError> {
    let per_identity = config.limits.per_identity;
    let shared = Shared {
        clock: Arc::clone(clock),
        meters: Meters::new(metrics),
        hashing: Arc::new(PasswordHashing::new(config.password_hashing)?),
        identity_limits: Arc::new(RateLimiter::new(Rate {
            per_second: per_identity.per_second,
            burst: per_identity.burst,
        })),
    };
    let mut authorities = Vec::new();
    let mut own_tls: Option<OwnTls> = None;
    for settings in config.authorities() {
        let (authority, folder) = opening::open(&settings, &shared).await?;
        if own_tls.is_none() && authority.key_algorithm() != Some(KeyAlgorithm::Sm2) {
            // The first authority whose signatures TLS knows certifies the server that all of them share.
            let name = settings.ca.subject.common_name.clone();
            let (hosts, clock) = (config.hosts.clone(), Arc::clone(clock));
            own_tls = Some(OwnTls::open(folder, name, hosts, Arc::clone(&authority), clock)?);
        }
        authorities.push(authority);
    }
    let own_tls = own_tls.ok_or(StartError::NoTls)?;
    Ok((authorities, Arc::new(own_tls)))
}

/// Keeps the TLS certificate young, and tells in time which certificates end.
fn watch(
    authorities: &[Arc<Authority>],
    tls: &Arc<OwnTls>,
    metrics: &Metrics,
    clock: &Arc<dyn Clock>,
    tasks: &Tasks,
) {
    let mut watch = CertificateWatch::new(metrics, Arc::clone(clock));
    watch.renew(Arc::clone(tls) as _);
    let own = Arc::clone(tls);
    watch.certificates(move || vec![WatchedCertificate::own("tls", own.certificate())]);
    let authorities = authorities.to_vec();
    watch.certificates(move || {
        let chain = |authority: &Arc<Authority>| authority.chain();
        authorities.iter().flat_map(chain).map(|link| WatchedCertificate::own("authority", link)).collect()
    });
    watch.start(tasks);
}

struct RegistryCheck(Arc<Authority>);

#[async_trait]
impl HealthCheck for RegistryCheck {
    fn component(&self) -> String {
        format!("registry of {}", self.0.name())
    }

    async fn check(&self) -> Result<(), String> {
        let authority = Arc::clone(&self.0);
        let answered = tokio::task::spawn_blocking(move || authority.check()).await;
        answered.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }
}
