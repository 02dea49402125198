//! One orderer process: its identity, its channels, its three listeners.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use consort_crypto::certificate::Certificate;
use consort_msp::{MspManager, SigningIdentity};
use consort_node::{
    Clock, Metrics, Tasks,
    config::{ClientAuth, ListenConfig},
    deliver::Deliver,
    dial::{ClientIdentity, Dialer},
    operations::{self, HealthCheck, Operations, OperationsConfig, Version},
    renewal::{Current, load_msp},
    server::{self, GrpcServer, Limits, Listener, MESSAGE_BYTES_MAX},
    telemetry::LogHandle,
    tls::ServerTls,
    trust::ClientTrust,
};
use consort_protos::{
    consort::orderer::cluster_server::ClusterServer,
    fabric::orderer::atomic_broadcast_server::AtomicBroadcastServer,
};

use crate::{
    broadcast::Broadcast, cluster::ClusterService, config::OrdererConfig, consensus::raft::RaftConsenter,
    metrics::OrdererMetrics, own_certificates::OwnCertificates, participation, registrar::Registrar,
    submission::Judge,
};

/// Name and version as `/version` shows them.
const VERSION: Version = Version { program: "consort-orderer", version: env!("CARGO_PKG_VERSION") };

/// A running orderer.
pub struct Orderer {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where operators connect.
    pub admin_address: SocketAddr,
    /// Where the operations are served, if they are.
    pub operations_address: Option<SocketAddr>,
}

/// Why an orderer cannot start; the text is for its operator.
#[derive(Debug, thiserror::Error)]
pub enum OrdererError {
    /// A TLS file.
    #[error(transparent)]
    Tls(#[from] consort_node::tls::TlsError),
    /// An address.
    #[error(transparent)]
    Server(#[from] server::ServerError),
    /// The operations listener.
    #[error(transparent)]
    Operations(#[from] operations::OperationsError),
    /// The MSP folder.
    #[error("the identity in the MSP folder cannot be used: {0}")]
    Identity(#[from] consort_msp::FolderError),
    /// The identity's certificate is over.
    #[error("the certificate in the MSP folder expired at {0}: enrol this orderer again")]
    Expired(time::OffsetDateTime),
    /// The TLS certificate.
    #[error("the TLS certificate {path} cannot be read: {reason}")]
    Certificate {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The data folder.
    #[error("the data folder {path} cannot be used")]
    Data {
        /// The folder.
        path: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
}

impl Orderer {
    /// Binds the listeners, opens the channels on disk and serves, as tasks of `tasks`. All addresses are bound before anything on disk is touched.
    ///
    /// # Errors
    /// [`OrdererError`] with the first thing that cannot be used.
    pub async fn start(
        config: &OrdererConfig,
        clock: Arc<dyn Clock>,
        log: Option<LogHandle>,
        tasks: &Tasks,
    ) -> Result<Self, OrdererError> {
        let identity = SigningIdentity::from_folder(&config.msp.folder, &config.msp.id)?;
        if identity.expires_at() <= clock.now() {
            return Err(OrdererError::Expired(identity.expires_at()));
        }
        let local = Current::new(Arc::new(load_msp(&config.msp.folder, &config.msp.id)?));
        let tls = ServerTls::load(&config.tls)?;
        let admin_tls = ServerTls::load(&config.admin.tls())?;
        let operations_tls =
            config.operations.as_ref().map(OperationsConfig::server_tls).transpose()?.flatten();
        let (own_certificate, client_identity) = own_tls(config)?;
        let identity = Current::new(Arc::new(identity));
        let listener = Listener::bind(&config.listen).await?;
        let admin = Listener::bind(&ListenConfig::new(config.admin.address.clone())).await?;
        let (address, admin_address) = (listener.address(), admin.address());

        let metrics = Metrics::new();
        let dialer = Dialer::new(config.host_overrides.clone(), Some(client_identity));
        let consenter = RaftConsenter {
            own_certificate: own_certificate.clone(),
            dialer: dialer.clone(),
            metrics: OrdererMetrics::new(&metrics),
        };
        let judge = Judge { identity: identity.clone(), clock: Arc::clone(&clock) };
        let registrar = Registrar::open(&config.data, consenter, judge, tasks.clone())
            .map_err(|source| OrdererError::Data { path: config.data.display().to_string(), source })?;

        let tls_binding = config.tls.client_auth == ClientAuth::Required;
        let deliver = Deliver::new(Arc::clone(&registrar), Arc::clone(&clock), tasks.clone(), tls_binding);
        let broadcast = Broadcast::new(Arc::clone(&registrar), deliver, tasks.clone());
        let cluster = ClusterService {
            registrar: Arc::clone(&registrar),
            clock: Arc::clone(&clock),
            tasks: tasks.clone(),
        };
        let trust = client_trust(config, &registrar, &local, (&tls, &admin_tls, operations_tls.as_ref()));
        registrar.follow_configurations(Arc::clone(&trust), tasks);
        let own = OwnCertificates {
            config,
            identity,
            tls: &tls,
            admin_tls: &admin_tls,
            dialer,
            own_certificate,
            local,
            trust,
        };
        own.watch(&registrar, &metrics, &clock, tasks);
        GrpcServer::new(listener, Some(tls))
            .add_service(
                AtomicBroadcastServer::new(broadcast)
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(MESSAGE_BYTES_MAX),
            )
            .add_service(
                ClusterServer::new(cluster)
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(MESSAGE_BYTES_MAX),
            )
            .serve(tasks);
        let router = participation::router(Arc::clone(&registrar));
        server::serve(admin, Some(admin_tls), router, Limits::default(), tasks);
        let operations_address = match &config.operations {
            Some(operations) => {
                let checks: Vec<Arc<dyn HealthCheck>> = vec![Arc::new(ChannelHealth(registrar))];
                let shown = Operations { version: VERSION, metrics, log, checks, clock };
                Some(operations::serve(operations, operations_tls, shown, tasks).await?)
            }
            None => None,
        };
        Ok(Self { address, admin_address, operations_address })
    }
}

/// Members of the channels and of the own organisation may use the main listener, and the configured ones; the other listeners
/// are for configured ones only.
fn client_trust(
    config: &OrdererConfig,
    registrar: &Arc<Registrar>,
    local: &Current<MspManager>,
    (tls, admin_tls, operations_tls): (&ServerTls, &ServerTls, Option<&ServerTls>),
) -> Arc<ClientTrust> {
    // The registrar holds what is told of its configurations: not the other way round as well.
    let registrar = Arc::downgrade(registrar);
    let bundles = move || registrar.upgrade().map(|registrar| registrar.bundles()).unwrap_or_default();
    let trust = ClientTrust::new(local.clone(), bundles)
        .of_members(tls, &config.tls.client_roots)
        .of_files(admin_tls, &config.admin.client_roots);
    Arc::new(match (operations_tls, &config.operations) {
        (Some(tls), Some(operations)) => trust.of_files(tls, operations.client_roots()),
        _ => trust,
    })
}

/// The listener's TLS certificate, to be found among the consenters and to be shown to them.
fn own_tls(config: &OrdererConfig) -> Result<(Certificate, ClientIdentity), OrdererError> {
    let unreadable = |path: &std::path::Path, reason: String| OrdererError::Certificate {
        path: path.display().to_string(),
        reason,
    };
    let read =
        |path: &std::path::Path| std::fs::read(path).map_err(|error| unreadable(path, error.to_string()));
    let (cert, key) = (read(&config.tls.cert)?, read(&config.tls.key)?);
    let certificate =
        Certificate::from_pem(&cert).map_err(|error| unreadable(&config.tls.cert, error.to_string()))?;
    Ok((certificate, ClientIdentity::from_pem(&cert, &key)))
}

/// Healthy when every channel can be served and, where this orderer is a consenter, has a leader.
struct ChannelHealth(Arc<Registrar>);

#[async_trait]
impl HealthCheck for ChannelHealth {
    fn component(&self) -> String {
        "channels".to_owned()
    }

    async fn check(&self) -> Result<(), String> {
        let faults = self.0.faults();
        if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
    }
}
