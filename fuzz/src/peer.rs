//! A peer in memory, put together of the parts of a real one: its services get what strangers and members send.
//!
//! It knows no other peer and dials nobody. Its orderer is the real judge of what clients send, behind which nothing is ordered.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use consort_node::config::HostOverrides;
use consort_node::dial::Dialer;
use consort_node::renewal::Current;
use consort_node::{Clock, ManualClock, Metrics, Tasks};
use consort_peer::chaincode::{Compiler, Limits, PackageStore, WasmRuntime};
use consort_peer::channel::ChannelHandle;
use consort_peer::config::{GatewayConfig, MembershipConfig, PrivateDataConfig};
use consort_peer::connections::Connections;
use consort_peer::deliver_client::OrdererEndpoint;
use consort_peer::discovery::{Discovery, DiscoverySetup};
use consort_peer::endorser::{Access, Endorser, EndorserParts, EndorserService};
use consort_peer::endorsing::{Endorsers, EndorsingService};
use consort_peer::gateway::{Gateway, OrderingService};
use consort_peer::membership::{LocalChaincodes, Membership, MembershipSetup};
use consort_peer::private::{PrivateData, PrivateDataSetup};
use consort_peer::registry::Channels;
use consort_peer::sealed::keys::Keys;
use consort_peer::sealed::service::{Proxies, ProxiesSetup};
use consort_peer::telemetry::PeerMetrics;
use consort_protos::fabric::common::{Envelope, Status};
use consort_protos::fabric::orderer::BroadcastResponse;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::network::{NETWORK, NOW};
use crate::orderer;

/// Where the peer says it is. Nobody listens there.
const ENDPOINT: &str = "peer0.org1.example.com:7051";

/// Longest answer. Nothing here waits for another node; the machine may be busy.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// How long a call is watched that waits for a block that never comes.
const WATCH: Duration = Duration::from_millis(2);

/// The peer that clients speak to; none before the first use and after [`put_away`].
static PEER: Mutex<Option<Arc<Peer>>> = Mutex::new(None);

/// One that other peers speak to. What they say of themselves must not make the first one dial them.
static TOLD: Mutex<Option<Arc<Peer>>> = Mutex::new(None);

/// The services of a peer.
pub(crate) struct Peer {
    runtime: Runtime,
    pub(crate) gateway: Gateway,
    pub(crate) discovery: Discovery,
    pub(crate) endorser: EndorserService,
    pub(crate) endorsing: EndorsingService<EndorserService>,
    pub(crate) membership: Membership,
    pub(crate) private: PrivateData,
    pub(crate) proxies: Proxies,
    _folder: TempDir,
}

/// The peer that clients speak to.
pub(crate) fn peer() -> Arc<Peer> {
    kept(&PEER)
}

/// The peer that other peers speak to.
pub(crate) fn told_peer() -> Arc<Peer> {
    kept(&TOLD)
}

fn kept(place: &Mutex<Option<Arc<Peer>>>) -> Arc<Peer> {
    let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(place.get_or_insert_with(|| Arc::new(Peer::new())))
}

/// Ends the peers that the functions made, and removes their folders. Further calls make new ones.
pub fn put_away() {
    for place in [&PEER, &TOLD] {
        drop(place.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Orderers of the channel, who judge and then order nothing.
struct Ordering;

#[async_trait]
impl OrderingService for Ordering {
    fn endpoints(&self, _: &ChannelHandle) -> Vec<OrdererEndpoint> {
        vec![OrdererEndpoint {
            address: "orderer.example.com:7050".to_owned(),
            msp_id: None,
            tls_roots: Vec::new(),
        }]
    }

    async fn broadcast(
        &self,
        _: &ChannelHandle,
        _: &OrdererEndpoint,
        envelope: &Envelope,
    ) -> Result<BroadcastResponse, String> {
        let (status, info) = match orderer::judged(envelope) {
            Ok(_) => (Status::Success, String::new()),
            Err(refusal) => (refusal.status, refusal.info),
        };
        Ok(BroadcastResponse { status: status.into(), info })
    }
}

impl Peer {
    #[expect(clippy::too_many_lines, reason = "the parts of a peer, each once")]
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("invariant: the system has a thread for it");
        let _inside = runtime.enter();
        let folder = tempfile::tempdir().expect("invariant: the system has a folder for temporary files");
        let path = folder.path();
        let tasks = Tasks::new();
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(NOW));
        let signer = Current::new(Arc::clone(&NETWORK.peer));
        let msp_id = NETWORK.peer.msp_id().clone();
        let channels = Channels::open(path).expect("invariant: the folder is new");
        let channel = channels.join(&NETWORK.genesis).expect("invariant: the block is a channel's first");
        let packages =
            PackageStore::open(&path.join("packages"), 16 << 20).expect("invariant: the folder is new");
        let limits = Limits { instances_max: 1, memory_bytes_max: 8 << 20, ..Limits::default() };
        let wasm =
            WasmRuntime::with_compiler(Arc::new(packages), &path.join("compiled"), limits, Compiler::InPlace);
        let access = Arc::new(Access::new(Arc::clone(channel.bundle().msps()), msp_id.clone()));
        let endorser = Arc::new(Endorser::new(EndorserParts {
            channels: Arc::clone(&channels),
            runtime: Arc::new(wasm.expect("invariant: one instance of eight megabytes fits")),
            signer: signer.clone(),
            access: Arc::clone(&access),
            clock: Arc::clone(&clock),
            time_window: Duration::from_secs(900),
        }));
        let connections = Arc::new(Connections::new(Dialer::new(HostOverrides::default(), None)));
        let metrics = Arc::new(PeerMetrics::new(&Metrics::new()));
        let membership = Membership::new(MembershipSetup {
            channels: Arc::clone(&channels),
            chaincodes: Arc::clone(&endorser) as Arc<dyn LocalChaincodes>,
            signer: signer.clone(),
            endpoint: ENDPOINT.to_owned(),
            connections: Arc::clone(&connections),
            clock: Arc::clone(&clock),
            config: MembershipConfig::default(),
            metrics: Arc::clone(&metrics),
        });
        let private = PrivateData::new(PrivateDataSetup {
            channels: Arc::clone(&channels),
            directory: Arc::new(membership.clone()),
            signer: signer.clone(),
            connections: Arc::clone(&connections),
            clock: Arc::clone(&clock),
            config: PrivateDataConfig::default(),
            metrics: Arc::clone(&metrics),
            tasks: tasks.clone(),
        });
        endorser.distribute_through(&private);
        let keys = Keys::open(&path.join("sealed/keys")).expect("invariant: the folder is new");
        let proxies = Proxies::new(
            ProxiesSetup {
                folder: path.join("sealed"),
                endpoint: ENDPOINT.to_owned(),
                signer,
                directory: Arc::new(membership.clone()),
                clock: Arc::clone(&clock),
            },
            keys,
        );
        proxies.start(&channel, &tasks);
        let gateway = Gateway::new(
            Arc::clone(&channels),
            Arc::new(membership.clone()),
            Arc::new(Endorsers::new(Arc::clone(&endorser), connections, metrics, &tasks)),
            Arc::new(Ordering),
            msp_id,
            // A transaction that is not taken is not offered again.
            GatewayConfig { orderer_wait_ms: 0, ..GatewayConfig::default() },
            Arc::clone(&clock),
            tasks.clone(),
        );
        let directory = Arc::new(membership.clone());
        let discovery =
            DiscoverySetup { channels, directory, access, clock: Arc::clone(&clock), tls_binding: false };
        let endorser = EndorserService::new(endorser, clock);
        drop(_inside);
        Self {
            runtime,
            gateway,
            discovery: Discovery::new(discovery),
            endorsing: EndorsingService::new(endorser.clone()),
            endorser,
            membership,
            private,
            proxies,
            _folder: folder,
        }
    }

    /// The answer to a call that needs nobody else.
    ///
    /// # Panics
    /// When it does not come: a finding.
    pub(crate) fn answer<T>(&self, call: impl Future<Output = T>) -> T {
        let bounded = async { tokio::time::timeout(ANSWER_MAX, call).await };
        self.runtime.block_on(bounded).expect("a call that waits for nobody is answered")
    }

    /// The answer to a call that may wait for a block, if there is one at once.
    pub(crate) fn answer_now<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        let bounded = async { tokio::time::timeout(WATCH, call).await };
        self.runtime.block_on(bounded).ok()
    }
}
