//! Puts a peer together and starts it.

#![expect(clippy::result_large_err, reason = "a peer fails to start at most once")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use consort_msp::{FolderError, MspManager, SigningIdentity};
use consort_node::config::ClientAuth;
use consort_node::dial::{ClientIdentity, Dialer};
use consort_node::operations::{self, Operations, OperationsError, Version};
use consort_node::renewal::{
    CertificateWatch, Current, WatchedCertificate, channel_authorities, load_msp, local_msp, signing_identity,
};
use consort_node::server::{GrpcServer, Listener, MESSAGE_BYTES_MAX, ServerError};
use consort_node::telemetry::LogHandle;
use consort_node::tls::{ServerTls, TlsError};
use consort_node::trust::ClientTrust;
use consort_node::{Clock, Metrics, Tasks};
use consort_protos::consort::endorsing::endorsing_server::EndorsingServer;
use consort_protos::consort::peer::membership_server::MembershipServer;
use consort_protos::consort::privatedata::private_data_server::PrivateDataServer;
use consort_protos::consort::sealed::proxy_server::ProxyServer;
use consort_protos::fabric::discovery::discovery_server::DiscoveryServer;
use consort_protos::fabric::gateway::gateway_server::GatewayServer;
use consort_protos::fabric::protos::deliver_server::DeliverServer;
use consort_protos::fabric::protos::endorser_server::EndorserServer;
use consort_protos::ids::MspId;

use crate::chaincode::{Limits, PackageStore, RuntimeError, StoreError, WasmRuntime};
use crate::channel::ChannelHandle;
use crate::committer::pipeline::pipeline;
use crate::config::PeerConfig;
use crate::connections::Connections;
use crate::deliver_client::{Follower, FollowerParts, Orderers, OverrideError};
use crate::discovery::{Discovery, DiscoverySetup};
use crate::endorser::{Access, Endorser, EndorserParts, EndorserService};
use crate::endorsing::{ASKED_BYTES_MAX, CountedEndorser, Endorsers, EndorsingService};
use crate::events::BlockEvents;
use crate::gateway::Gateway;
use crate::health::ChannelsHealth;
use crate::membership::{LocalChaincodes, Membership, MembershipSetup};
use crate::private::{PrivateData, PrivateDataSetup};
use crate::registry::Channels;
use crate::sealed::keys::{Keys, KeysError};
use crate::sealed::service::{Proxies, ProxiesSetup};
use crate::telemetry::PeerMetrics;

/// Why a peer could not start. Each text names what to look at.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The MSP id is not one.
    #[error("configuration key `msp.id`")]
    MspId(#[source] consort_protos::ids::InvalidId),
    /// The MSP folder is not usable.
    #[error("the MSP folder {path} cannot be used")]
    MspFolder {
        /// The folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: FolderError,
    },
    /// The peer's certificate is too old: nobody would accept what it signs.
    #[error("the peer's certificate in {path} expired at {expired}: enrol the peer again")]
    Expired {
        /// The MSP folder.
        path: PathBuf,
        /// When it expired.
        expired: time::OffsetDateTime,
    },
    /// A TLS file is not usable.
    #[error("TLS of the listener")]
    Tls(#[source] TlsError),
    /// A file cannot be read.
    #[error("the file {path} cannot be read")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// An orderer override is not usable.
    #[error("configuration key `orderer_overrides`")]
    Override(#[source] OverrideError),
    /// The data folder is not usable.
    #[error("the data folder {path} cannot be used")]
    Data {
        /// The folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The listener's address is not usable.
    #[error("configuration key `listen.address`")]
    Listen(#[source] ServerError),
    /// The operations' address is not usable.
    #[error("configuration key `operations`")]
    Operations(#[source] OperationsError),
    /// The installed chaincodes cannot be read.
    #[error("the installed chaincodes cannot be read")]
    Packages(#[source] StoreError),
    /// The chaincode runtime could not start.
    #[error("the chaincode runtime could not start")]
    Chaincode(#[source] RuntimeError),
    /// The encryption keys of a proxy cannot be used.
    #[error("configuration key `sealed.proxy`")]
    Sealed(#[source] KeysError),
}

/// A started peer.
#[derive(Debug)]
pub struct Peer {
    /// Its channels.
    pub channels: Arc<Channels>,
    /// Where its gRPC services listen.
    pub address: SocketAddr,
    /// Where its operations are served.
    pub operations: SocketAddr,
}

/// A generated service with the network's message limits.
macro_rules! limited {
    ($service:expr) => {
        limited!($service, MESSAGE_BYTES_MAX)
    };
    ($service:expr, $received_max:expr) => {
        $service.max_decoding_message_size($received_max).max_encoding_message_size(MESSAGE_BYTES_MAX)
    };
}

/// What the parts of a peer share.
struct Parts {
    config: PeerConfig,
    channels: Arc<Channels>,
    following: FollowerParts,
    membership: Membership,
    private: PrivateData,
    /// With the role of a proxy of sealed data.
    proxies: Option<Proxies>,
    tls: ServerTls,
    operations_tls: Option<ServerTls>,
    trust: Arc<ClientTrust>,
    local: Current<MspManager>,
}

/// Who the peer is.
struct Local {
    signer: Arc<SigningIdentity>,
    msps: Current<MspManager>,
}

impl Peer {
    /// Starts everything as tasks of `tasks`: services, the operations endpoints, and per joined channel the fetching and
    /// committing of blocks. Listeners are bound when this returns.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn start(
        config: PeerConfig,
        log: Option<LogHandle>,
        clock: Arc<dyn Clock>,
        tasks: &Tasks,
    ) -> Result<Self, StartError> {
        consort_crypto::limit_signer_tables(config.verification.signer_tables_bytes);
        let metrics = Metrics::new();
        let listener = Listener::bind(&config.listen).await.map_err(StartError::Listen)?;
        let address = listener.address();
        let (parts, server) = assemble(config, &metrics, clock, listener, tasks)?;
        parts.watch_certificates(&metrics, tasks);
        let operations = Operations {
            version: Version { program: "consort-peer", version: env!("CARGO_PKG_VERSION") },
            metrics,
            log,
            checks: vec![Arc::new(ChannelsHealth(Arc::clone(&parts.channels)))],
            clock: Arc::clone(&parts.following.clock),
        };
        let operations =
            operations::serve(&parts.config.operations, parts.operations_tls.clone(), operations, tasks)
                .await
                .map_err(StartError::Operations)?;
        let channels = Arc::clone(&parts.channels);
        parts.membership.start(tasks);
        server.serve(tasks);
        let (cancelled, of_channels) = (tasks.cancelled(), tasks.clone());
        tasks.spawn("channels", true, async move {
            tokio::select! {
                () = cancelled.cancelled() => {}
                () = parts.run_channels(&of_channels) => {}
            }
        });
        Ok(Self { channels, address, operations })
    }
}

impl Parts {
    /// Takes over renewed certificates, and tells in time which ones end.
    fn watch_certificates(&self, metrics: &Metrics, tasks: &Tasks) {
        let mut watch = CertificateWatch::new(metrics, Arc::clone(&self.following.clock));
        watch.renew(self.tls.renewable(&self.config.tls));
        watch.renew(self.following.dialer.renewable(&self.config.tls));
        watch.renew(signing_identity(&self.config.msp.dir, &self.following.signer, &self.following.clock));
        let (trust, msp_id) = (Arc::clone(&self.trust), self.following.signer.get().msp_id().clone());
        watch.renew(local_msp(&self.config.msp.dir, &msp_id, &self.local, move || trust.renew()));
        let (tls, signer) = (self.tls.clone(), self.following.signer.clone());
        watch.certificates(move || {
            let signing = signer.get().certificate().clone();
            let tls = tls.certificate().ok().map(|shown| WatchedCertificate::own("tls", shown));
            tls.into_iter().chain([WatchedCertificate::own("signing", signing)]).collect()
        });
        let channels = Arc::clone(&self.channels);
        watch.certificates(move || {
            channels.list().iter().flat_map(|channel| channel_authorities(&channel.bundle())).collect()
        });
        watch.start(tasks);
    }

    /// Starts the tasks of every channel, those joined later included.
    async fn run_channels(&self, tasks: &Tasks) {
        let mut joins = self.channels.watch_joins();
        let mut started: BTreeSet<String> = BTreeSet::new();
        loop {
            joins.borrow_and_update();
            for channel in self.channels.list() {
                if started.insert(channel.id().to_string()) {
                    self.start_channel(&channel, tasks);
                }
            }
            self.trust.renew();
            if joins.changed().await.is_err() {
                return;
            }
        }
    }

    fn start_channel(&self, channel: &Arc<ChannelHandle>, tasks: &Tasks) {
        let (intake, committer) = pipeline(
            channel,
            self.following.signer.get().msp_id().clone(),
            Arc::clone(&self.following.metrics),
        );
        self.following.metrics.height(channel.id(), channel.ledger().height());
        let follower = Follower::new(Arc::clone(channel), intake, self.following.clone());
        let committer = committer.fetching(self.private.clone());
        tasks.spawn(format!("commit {}", channel.id()), false, committer.run(tasks.cancelled()));
        let search = self.private.clone().run_search(Arc::clone(channel), tasks.cancelled());
        tasks.spawn(format!("search for private data {}", channel.id()), false, search);
        tasks.spawn(format!("follow {}", channel.id()), false, follower.run(tasks.cancelled()));
        self.membership.watch(channel, tasks);
        if let Some(proxies) = &self.proxies {
            proxies.start(channel, tasks);
        }
        follow(Arc::clone(&self.trust), channel, tasks);
    }
}

/// Renews the trust with every configuration of the channel: an organisation may have joined or left, or revoked somebody.
fn follow(trust: Arc<ClientTrust>, channel: &ChannelHandle, tasks: &Tasks) {
    let (mut bundle, cancelled) = (channel.watch_bundle(), tasks.cancelled());
    tasks.spawn(format!("client trust {}", channel.id()), false, async move {
        loop {
            tokio::select! {
                () = cancelled.cancelled() => return,
                changed = bundle.changed() => if changed.is_err() { return },
            }
            bundle.borrow_and_update();
            trust.renew();
        }
    });
}

fn assemble(
    config: PeerConfig,
    metrics: &Metrics,
    clock: Arc<dyn Clock>,
    listener: Listener,
    tasks: &Tasks,
) -> Result<(Parts, GrpcServer), StartError> {
    let Local { signer, msps: local } = Local::load(&config, &*clock)?;
    let (msp_id, signer) = (signer.msp_id().clone(), Current::new(signer));
    let tls = ServerTls::load(&config.tls).map_err(StartError::Tls)?;
    let dialer = dialer(&config)?;
    let connections = Arc::new(Connections::new(dialer.clone()));
    let dial_timeout = Duration::from_millis(config.gateway.dial_timeout_ms);
    let orderers = Orderers::new(Arc::clone(&connections), &config.orderer_overrides, dial_timeout, tasks)
        .map_err(StartError::Override)?;
    let channels = open_channels(&config)?;
    let peer_metrics = Arc::new(PeerMetrics::new(metrics));
    let access = Arc::new(Access::new(local.clone(), msp_id.clone()));
    let endorser = endorser(&config, &channels, &signer, &access, &clock)?;
    let membership = membership(&config, &channels, &endorser, &signer, &connections, &clock, &peer_metrics);
    let following = FollowerParts {
        orderers: orderers.clone(),
        connections: Arc::clone(&connections),
        directory: Arc::new(membership.clone()),
        signer,
        dialer,
        clock: Arc::clone(&clock),
        config: config.deliver.clone(),
        metrics: Arc::clone(&peer_metrics),
    };
    let private = private_data(&config, &channels, &following, tasks);
    endorser.distribute_through(&private);
    let gateway = Gateway::new(
        Arc::clone(&channels),
        Arc::new(membership.clone()),
        Arc::new(Endorsers::new(Arc::clone(&endorser), connections, Arc::clone(&peer_metrics), tasks)),
        Arc::new(orderers),
        msp_id,
        config.gateway.clone(),
        Arc::clone(&clock),
        tasks.clone(),
    );
    let tls_binding = config.tls.client_auth == ClientAuth::Required;
    let discovery = Discovery::new(DiscoverySetup {
        channels: Arc::clone(&channels),
        directory: Arc::new(membership.clone()),
        access,
        clock: Arc::clone(&clock),
        tls_binding,
    });
    let proxies = proxies(&config, &following.signer, &membership, &clock)?;
    let counted = CountedEndorser::new(EndorserService::new(endorser, Arc::clone(&clock)), peer_metrics);
    let events = BlockEvents::new(Arc::clone(&channels), clock, tasks, tls_binding);
    let server = GrpcServer::new(listener, Some(tls.clone()))
        .add_service(limited!(GatewayServer::new(gateway)))
        .add_service(limited!(EndorserServer::new(counted.clone())))
        .add_service(limited!(EndorsingServer::new(EndorsingService::new(counted)), ASKED_BYTES_MAX))
        .add_service(limited!(DeliverServer::new(events)))
        .add_service(DiscoveryServer::new(discovery))
        .add_service(limited!(PrivateDataServer::new(private.clone())))
        .add_service(MembershipServer::new(membership.clone()));
    let server = with_proxies(server, proxies.as_ref());
    let operations_tls = config.operations.server_tls().map_err(StartError::Operations)?;
    let trust = client_trust(&config, &channels, &local, (&tls, operations_tls.as_ref()));
    let parts = Parts {
        config,
        channels,
        following,
        membership,
        private,
        tls,
        operations_tls,
        trust,
        local,
        proxies,
    };
    Ok((parts, server))
}

fn open_channels(config: &PeerConfig) -> Result<Arc<Channels>, StartError> {
    let data = |source| StartError::Data { path: config.data_dir.clone(), source };
    Channels::open(&config.data_dir).map_err(data)
}

fn endorser(
    config: &PeerConfig,
    channels: &Arc<Channels>,
    signer: &Current<SigningIdentity>,
    access: &Arc<Access>,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<Endorser>, StartError> {
    Ok(Arc::new(Endorser::new(EndorserParts {
        channels: Arc::clone(channels),
        runtime: Arc::new(runtime(config)?),
        signer: signer.clone(),
        access: Arc::clone(access),
        clock: Arc::clone(clock),
        time_window: Duration::from_secs(config.endorser.time_window_s),
    })))
}

/// Adds the service of the proxies. Without the role it is not there, and its calls get UNIMPLEMENTED.
fn with_proxies(server: GrpcServer, proxies: Option<&Proxies>) -> GrpcServer {
    match proxies {
        Some(proxies) => server.add_service(ProxyServer::new(proxies.clone())),
        None => server,
    }
}

/// The proxies of sealed data, when the peer has the role.
fn proxies(
    config: &PeerConfig,
    signer: &Current<SigningIdentity>,
    membership: &Membership,
    clock: &Arc<dyn Clock>,
) -> Result<Option<Proxies>, StartError> {
    if !config.sealed.proxy {
        return Ok(None);
    }
    let folder = config.data_dir.join("sealed");
    let keys = Keys::open(&folder.join("keys")).map_err(StartError::Sealed)?;
    let setup = ProxiesSetup {
        folder,
        endpoint: config.endpoint.clone(),
        signer: signer.clone(),
        directory: Arc::new(membership.clone()),
        clock: Arc::clone(clock),
    };
    Ok(Some(Proxies::new(setup, keys)))
}

/// The own organisation's members and those of the joined channels may use the listener, and the configured ones; the
/// operations are for configured ones only.
fn client_trust(
    config: &PeerConfig,
    channels: &Arc<Channels>,
    local: &Current<MspManager>,
    (tls, operations_tls): (&ServerTls, Option<&ServerTls>),
) -> Arc<ClientTrust> {
    let channels = Arc::clone(channels);
    let bundles = move || channels.list().iter().map(|channel| channel.bundle()).collect();
    let trust = ClientTrust::new(local.clone(), bundles).of_members(tls, &config.tls.client_roots);
    Arc::new(match operations_tls {
        Some(operations) => trust.of_files(operations, config.operations.client_roots()),
        None => trust,
    })
}

impl Local {
    fn load(config: &PeerConfig, clock: &dyn Clock) -> Result<Self, StartError> {
        let path = || config.msp.dir.clone();
        let folder = |source| StartError::MspFolder { path: path(), source };
        let msp_id = MspId::parse(&config.msp.id).map_err(StartError::MspId)?;
        let signer = SigningIdentity::from_folder(&config.msp.dir, &msp_id).map_err(folder)?;
        let expired = signer.expires_at();
        if expired <= clock.now() {
            return Err(StartError::Expired { path: path(), expired });
        }
        let msps = load_msp(&config.msp.dir, &msp_id).map_err(folder)?;
        Ok(Self { signer: Arc::new(signer), msps: Current::new(Arc::new(msps)) })
    }
}

fn membership(
    config: &PeerConfig,
    channels: &Arc<Channels>,
    endorser: &Arc<Endorser>,
    signer: &Current<SigningIdentity>,
    connections: &Arc<Connections>,
    clock: &Arc<dyn Clock>,
    metrics: &Arc<PeerMetrics>,
) -> Membership {
    Membership::new(MembershipSetup {
        channels: Arc::clone(channels),
        chaincodes: Arc::clone(endorser) as Arc<dyn LocalChaincodes>,
        signer: signer.clone(),
        endpoint: config.endpoint.clone(),
        connections: Arc::clone(connections),
        clock: Arc::clone(clock),
        config: config.membership.clone(),
        metrics: Arc::clone(metrics),
    })
}

fn private_data(
    config: &PeerConfig,
    channels: &Arc<Channels>,
    following: &FollowerParts,
    tasks: &Tasks,
) -> PrivateData {
    PrivateData::new(PrivateDataSetup {
        channels: Arc::clone(channels),
        directory: Arc::clone(&following.directory),
        signer: following.signer.clone(),
        connections: Arc::clone(&following.connections),
        clock: Arc::clone(&following.clock),
        config: config.private_data.clone(),
        metrics: Arc::clone(&following.metrics),
        tasks: tasks.clone(),
    })
}

/// How other nodes are reached.
fn dialer(config: &PeerConfig) -> Result<Dialer, StartError> {
    let identity = client_identity(config)?;
    Ok(Dialer::new(config.host_overrides.clone(), Some(identity))
        .connect_timeout(Duration::from_millis(config.gateway.dial_timeout_ms)))
}

/// The runtime with the packages in the data folder.
fn runtime(config: &PeerConfig) -> Result<WasmRuntime, StartError> {
    let limits = Limits {
        fuel_max: config.chaincode.fuel_max,
        memory_bytes_max: usize::try_from(config.chaincode.memory_max_bytes).unwrap_or(usize::MAX),
        timeout: Duration::from_millis(config.chaincode.execute_timeout_ms),
        instances_max: config.chaincode.instances_max,
    };
    let packages =
        PackageStore::open(&config.data_dir.join("chaincodes"), config.chaincode.package_max_bytes)
            .map_err(StartError::Packages)?;
    WasmRuntime::new(Arc::new(packages), &config.data_dir.join("compiled"), limits)
        .map_err(StartError::Chaincode)
}

/// The TLS certificate that the peer shows to others.
fn client_identity(config: &PeerConfig) -> Result<ClientIdentity, StartError> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|source| StartError::File { path: path.clone(), source })
    };
    let cert = read(&config.tls.cert)?;
    let key = read(&config.tls.key)?;
    Ok(ClientIdentity::from_pem(&cert, &key))
}

#[cfg(test)]
mod bad_input_tests;
#[cfg(test)]
mod revocation_tests;
#[cfg(test)]
mod tests;
