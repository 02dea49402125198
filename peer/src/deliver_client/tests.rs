//! The follower against orderers in this process, over real TLS connections.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use consort_node::config::{ClientAuth, ListenConfig};
use consort_node::dial::Dialer;
use consort_node::server::{GrpcServer, Listener};
use consort_node::tls::ServerTls;
use consort_node::{Metrics, SystemClock, Tasks};
use consort_protos::fabric::common::{Block, Envelope, Payload};
use consort_protos::fabric::orderer::atomic_broadcast_server::{AtomicBroadcast, AtomicBroadcastServer};
use consort_protos::fabric::orderer::{
    BroadcastResponse, DeliverResponse, SeekInfo, deliver_response, seek_position,
};
use consort_protos::fabric::protos::deliver_server::DeliverServer;
use futures::StreamExt;
use futures::stream::BoxStream;
use prost::Message;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::{Follower, FollowerParts, Orderers};
use crate::channel::ChannelHandle;
use crate::committer::pipeline::pipeline;
use crate::config::{DeliverConfig, Preferred};
use crate::connections::Connections;
use crate::events::BlockEvents;
use crate::gateway::{Directory, Member, OrderingService};
use crate::telemetry::PeerMetrics;
use crate::testing::{JoinedPeer, TestChannel, TlsPair};

/// Longer than any step of these tests needs.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Time from the loss of a source to the first block from another one.
const CHANGE_OVER_MAX: Duration = Duration::from_secs(2);

/// The chain that the orderers of a test share.
type Chain = Arc<watch::Sender<Vec<Block>>>;

/// An orderer that delivers the chain's blocks.
#[derive(Clone)]
struct Orderer {
    chain: Chain,
    /// Deliver requests so far.
    asked: Arc<AtomicUsize>,
    /// Streams open now.
    following: Arc<AtomicUsize>,
    /// Turns the data of its blocks into other data.
    lies: bool,
    /// Number of the block that it says is its newest; else it is that of the chain.
    newest: Option<u64>,
    /// Closes every stream at once until it is set.
    willing: Arc<AtomicBool>,
    /// Set with the first request.
    sets: Arc<AtomicBool>,
}

impl Orderer {
    fn new(chain: &Chain) -> Self {
        Self {
            chain: Arc::clone(chain),
            asked: Arc::default(),
            following: Arc::default(),
            lies: false,
            newest: None,
            willing: Arc::new(AtomicBool::new(true)),
            sets: Arc::default(),
        }
    }

    /// Serves on the listener; the tasks end with the returned family.
    fn serve(&self, listener: Listener, tls: &TlsPair, tasks: &Tasks) -> Tasks {
        let own = tasks.child();
        let roots: [&[u8]; 0] = [];
        let tls = ServerTls::from_pem(tls.cert.as_bytes(), tls.key.as_bytes(), &roots, ClientAuth::None)
            .expect("a TLS configuration");
        GrpcServer::new(listener, Some(tls))
            .add_service(AtomicBroadcastServer::new(self.clone()))
            .serve(&own);
        own
    }
}

struct Following(Arc<AtomicUsize>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The number from which on blocks are wanted; `None` for the newest one only.
fn first_number(envelope: &Envelope) -> Option<u64> {
    let payload = Payload::decode(envelope.payload.clone()).expect("a payload");
    let seek = SeekInfo::decode(payload.data).expect("a seek request");
    match seek.start.and_then(|start| start.r#type) {
        Some(seek_position::Type::Specified(specified)) => Some(specified.number),
        Some(seek_position::Type::Newest(_)) => None,
        other => panic!("a peer asks for a number or the newest block, not {other:?}"),
    }
}

#[tonic::async_trait]
impl AtomicBroadcast for Orderer {
    type BroadcastStream = BoxStream<'static, Result<BroadcastResponse, Status>>;

    async fn broadcast(
        &self,
        request: Request<Streaming<Envelope>>,
    ) -> Result<Response<Self::BroadcastStream>, Status> {
        let answers = request.into_inner().map(|envelope| {
            envelope.map(|envelope| BroadcastResponse {
                status: 200,
                info: String::from_utf8_lossy(&envelope.payload).into_owned(),
            })
        });
        Ok(Response::new(answers.boxed()))
    }

    type DeliverStream = BoxStream<'static, Result<DeliverResponse, Status>>;

    async fn deliver(
        &self,
        request: Request<Streaming<Envelope>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        let mut requests = request.into_inner();
        let envelope = requests.message().await?.ok_or_else(|| Status::invalid_argument("no request"))?;
        let Some(first) = first_number(&envelope) else {
            let mut newest = self.chain.borrow().last().cloned().expect("a genesis block");
            if let (Some(number), Some(header)) = (self.newest, &mut newest.header) {
                header.number = number;
            }
            let response = DeliverResponse { r#type: Some(deliver_response::Type::Block(newest)) };
            return Ok(Response::new(futures::stream::iter([Ok(response)]).boxed()));
        };
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.sets.store(true, Ordering::SeqCst);
        if !self.willing.load(Ordering::SeqCst) {
            return Err(Status::unavailable("not now"));
        }
        self.following.fetch_add(1, Ordering::SeqCst);
        let state = (
            Following(Arc::clone(&self.following)),
            self.chain.subscribe(),
            usize::try_from(first).expect("small"),
            self.lies,
        );
        let blocks = futures::stream::unfold(state, |(following, mut chain, next, lies)| async move {
            let mut block = chain.wait_for(|blocks| blocks.len() > next).await.ok()?[next].clone();
            if lies {
                block.data.as_mut().expect("data").data[0] = Bytes::from_static(b"\x0a\x01x\x12\x01y");
            }
            let response = DeliverResponse { r#type: Some(deliver_response::Type::Block(block)) };
            Some((Ok(response), (following, chain, next + 1, lies)))
        });
        Ok(Response::new(blocks.boxed()))
    }
}

pub(super) async fn listener() -> (Listener, String) {
    let listener = Listener::bind(&ListenConfig::new("127.0.0.1:0")).await.expect("a free port");
    let endpoint = format!("localhost:{}", listener.address().port());
    (listener, endpoint)
}

fn connections() -> Arc<Connections> {
    let overrides = [("localhost".to_owned(), "127.0.0.1".to_owned())].into_iter().collect();
    Arc::new(Connections::new(Dialer::new(overrides, None)))
}

pub(super) fn orderers(tasks: &Tasks) -> Orderers {
    Orderers::new(connections(), &[], PATIENCE, tasks).expect("no overrides")
}

/// The peers that the follower has heard of.
#[derive(Default)]
struct Others(Mutex<Vec<Member>>, watch::Sender<()>);

#[async_trait::async_trait]
impl Directory for Others {
    fn members(&self, _: &ChannelHandle) -> Vec<Member> {
        self.0.lock().expect("the members").clone()
    }

    async fn refresh(&self, _: &ChannelHandle) {}

    fn heard(&self) -> watch::Receiver<()> {
        self.1.subscribe()
    }
}

/// Another peer of Org1 with the blocks of a chain, serving them; it says so in the directory.
async fn own_peer(test: &TestChannel, blocks: Vec<Block>, others: &Others, tasks: &Tasks) -> JoinedPeer {
    let peer = JoinedPeer::new(&test.network.genesis);
    crate::committer::feed(&peer.channel, blocks.into_iter().skip(1)).await;
    let (listener, endpoint) = listener().await;
    let tls = test.network.org1.tls("localhost");
    let roots: [&[u8]; 0] = [];
    let tls = ServerTls::from_pem(tls.cert.as_bytes(), tls.key.as_bytes(), &roots, ClientAuth::None)
        .expect("a TLS configuration");
    let events = BlockEvents::new(Arc::clone(&peer.channels), Arc::new(SystemClock), tasks, false);
    GrpcServer::new(listener, Some(tls)).add_service(DeliverServer::new(events)).serve(tasks);
    others.0.lock().expect("the members").push(Member {
        endpoint,
        msp_id: test.network.org1.msp_id.clone(),
        identity: test.network.org1.peer.serialized().clone(),
        incarnation_ms: 0,
        sequence: 0,
        height: peer.channel.ledger().height(),
        chaincodes: Vec::new(),
        local: false,
    });
    others.1.send_replace(());
    peer
}

/// Starts the channel's committer and follower.
fn follow(test: &TestChannel, tasks: &Tasks) {
    follow_with(test, Arc::default(), Preferred::Orderers, tasks);
}

fn follow_with(test: &TestChannel, others: Arc<Others>, prefer: Preferred, tasks: &Tasks) -> Metrics {
    let registry = Metrics::new();
    let metrics = Arc::new(PeerMetrics::new(&registry));
    let own = test.network.org1.msp_id.clone();
    let (intake, committer) = pipeline(&test.channel, own, Arc::clone(&metrics));
    let config = DeliverConfig {
        reconnect_first_ms: 1,
        reconnect_max_ms: 20,
        stall_ms: 100,
        prefer,
        ..DeliverConfig::default()
    };
    let parts = FollowerParts {
        orderers: orderers(tasks),
        connections: connections(),
        directory: others,
        signer: consort_node::renewal::Current::new(Arc::clone(&test.network.org1.peer)),
        dialer: Dialer::new(consort_node::config::HostOverrides::default(), None),
        clock: Arc::new(SystemClock),
        config,
        metrics,
    };
    let follower = Follower::new(Arc::clone(&test.channel), intake, parts);
    tasks.spawn("commit", false, committer.run(tasks.cancelled()));
    tasks.spawn("follow", false, follower.run(tasks.cancelled()));
    registry
}

async fn committed(test: &TestChannel, height: u64) {
    let mut heights = test.channel.watch_height();
    tokio::time::timeout(PATIENCE, heights.wait_for(|has| *has >= height))
        .await
        .unwrap_or_else(|_| panic!("height {height} was not reached"))
        .expect("the channel is there");
}

/// The channel's own blocks so far, and one more with a transaction.
async fn extend(test: &mut TestChannel, chain: &Chain) {
    let block = test.next_block(vec![test.basic().build()]);
    test.advance(block.clone());
    chain.send_modify(|blocks| blocks.push(block));
}

fn chain_of(test: &TestChannel) -> Chain {
    let stored = |number| {
        let number = consort_protos::ids::BlockNumber::new(number);
        test.channel.ledger().block(number).expect("readable").expect("stored")
    };
    Arc::new(watch::Sender::new((0..test.channel.ledger().height()).map(stored).collect()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_goes_to_another_orderer_when_one_dies() {
    let tasks = Tasks::new();
    let (first, first_endpoint) = listener().await;
    let (second, second_endpoint) = listener().await;
    let mut test = TestChannel::with_orderers(&[first_endpoint, second_endpoint]).await;
    let chain = chain_of(&test);
    let tls = test.network.orderer.tls("localhost");
    let orderers = [Orderer::new(&chain), Orderer::new(&chain)];
    let running = [orderers[0].serve(first, &tls, &tasks), orderers[1].serve(second, &tls, &tasks)];
    follow(&test, &tasks);
    extend(&mut test, &chain).await;
    committed(&test, 3).await;
    let followed = usize::from(orderers[0].following.load(Ordering::SeqCst) == 0);
    running[followed].cancel();
    // The dying orderer may still finish what it sends; the other one is asked as soon as its stream ends.
    tokio::time::timeout(PATIENCE, async {
        while orderers[followed].following.load(Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the stream ends");
    let died = Instant::now();
    tokio::time::timeout(PATIENCE, async {
        while orderers[1 - followed].following.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the other orderer is followed");
    extend(&mut test, &chain).await;
    committed(&test, 4).await;
    assert!(died.elapsed() < CHANGE_OVER_MAX, "{:?}", died.elapsed());
    tasks.shutdown(PATIENCE).await.expect("everything ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_orderers_blocks_come_from_a_peer_of_the_organisation_until_one_is_back() {
    let tasks = Tasks::new();
    let (listener, endpoint) = listener().await;
    let mut test = TestChannel::with_orderers(&[endpoint]).await;
    let chain = chain_of(&test);
    let mut orderer = Orderer::new(&chain);
    orderer.willing = Arc::default();
    let _running = orderer.serve(listener, &test.network.orderer.tls("localhost"), &tasks);
    extend(&mut test, &chain).await;
    let others = Arc::new(Others::default());
    let _peer = own_peer(&test, chain.borrow().clone(), &others, &tasks).await;
    let started = Instant::now();
    follow_with(&test, others, Preferred::Orderers, &tasks);
    committed(&test, 3).await;
    assert!(started.elapsed() < CHANGE_OVER_MAX, "{:?}", started.elapsed());
    assert_eq!(orderer.following.load(Ordering::SeqCst), 0);
    orderer.willing.store(true, Ordering::SeqCst);
    extend(&mut test, &chain).await;
    committed(&test, 4).await;
    assert!(orderer.following.load(Ordering::SeqCst) > 0, "the orderer is followed again");
    tasks.shutdown(PATIENCE).await.expect("everything ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_brings_nothing_while_others_move_on_is_left() {
    let tasks = Tasks::new();
    let (listener, endpoint) = listener().await;
    let mut test = TestChannel::with_orderers(&[endpoint]).await;
    let (stuck, chain) = (chain_of(&test), chain_of(&test));
    let orderer = Orderer::new(&stuck);
    let _running = orderer.serve(listener, &test.network.orderer.tls("localhost"), &tasks);
    extend(&mut test, &chain).await;
    let others = Arc::new(Others::default());
    let _peer = own_peer(&test, chain.borrow().clone(), &others, &tasks).await;
    let started = Instant::now();
    follow_with(&test, others, Preferred::Orderers, &tasks);
    committed(&test, 3).await;
    assert!(orderer.asked.load(Ordering::SeqCst) > 0, "the orderer came first");
    assert!(started.elapsed() < CHANGE_OVER_MAX, "{:?}", started.elapsed());
    tasks.shutdown(PATIENCE).await.expect("everything ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lag_is_measured_against_what_the_orderer_has() {
    let tasks = Tasks::new();
    let (listener, endpoint) = listener().await;
    let mut test = TestChannel::with_orderers(&[endpoint]).await;
    let chain = chain_of(&test);
    let mut orderer = Orderer::new(&chain);
    orderer.newest = Some(11);
    let _running = orderer.serve(listener, &test.network.orderer.tls("localhost"), &tasks);
    extend(&mut test, &chain).await;
    let metrics = follow_with(&test, Arc::default(), Preferred::Orderers, &tasks);
    committed(&test, 3).await;
    tokio::time::timeout(PATIENCE, async {
        while !metrics.encode().contains("blocks_behind{channel=\"mychannel\"} 9") {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("twelve blocks there, three here");
    tasks.shutdown(PATIENCE).await.expect("everything ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_of_the_organisation_can_be_preferred() {
    let tasks = Tasks::new();
    let (listener, endpoint) = listener().await;
    let mut test = TestChannel::with_orderers(&[endpoint]).await;
    let chain = chain_of(&test);
    let orderer = Orderer::new(&chain);
    let _running = orderer.serve(listener, &test.network.orderer.tls("localhost"), &tasks);
    extend(&mut test, &chain).await;
    let others = Arc::new(Others::default());
    let peer = own_peer(&test, chain.borrow().clone(), &others, &tasks).await;
    follow_with(&test, others, Preferred::Peers, &tasks);
    committed(&test, 3).await;
    assert_eq!(orderer.asked.load(Ordering::SeqCst), 0);
    // What the peer learns later comes over the same stream.
    let block = test.next_block(vec![test.basic().build()]);
    crate::committer::feed(&peer.channel, [block]).await;
    committed(&test, 4).await;
    assert_eq!(orderer.asked.load(Ordering::SeqCst), 0);
    tasks.shutdown(PATIENCE).await.expect("everything ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderer_with_a_wrong_block_is_left_out() {
    let tasks = Tasks::new();
    let (first, first_endpoint) = listener().await;
    let (second, second_endpoint) = listener().await;
    let mut test = TestChannel::with_orderers(&[first_endpoint.clone(), second_endpoint]).await;
    let chain = chain_of(&test);
    let tls = test.network.orderer.tls("localhost");
    let reported = format!("source=\"{first_endpoint}\"}} 1");
    let mut liar = Orderer::new(&chain);
    liar.lies = true;
    let mut honest = Orderer::new(&chain);
    // The honest one waits for the liar's turn, so that every run meets both.
    honest.willing = Arc::clone(&liar.sets);
    let _liar = liar.serve(first, &tls, &tasks);
    let _honest = honest.serve(second, &tls, &tasks);
    extend(&mut test, &chain).await;
    let metrics = follow_with(&test, Arc::default(), Preferred::Orderers, &tasks);
    committed(&test, 3).await;
    extend(&mut test, &chain).await;
    committed(&test, 4).await;
    assert_eq!(liar.asked.load(Ordering::SeqCst), 1, "asked once and then left out");
    let metrics = metrics.encode();
    let counted = metrics.lines().find(|line| line.contains("wrong_blocks") && line.ends_with(&reported));
    assert!(counted.is_some(), "who delivered it is told: {metrics}");
    tasks.shutdown(PATIENCE).await.expect("everything ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_are_asked_for_until_an_orderer_is_there() {
    let tasks = Tasks::new();
    let (first, endpoint) = listener().await;
    let mut test = TestChannel::with_orderers(&[endpoint]).await;
    let chain = chain_of(&test);
    let tls = test.network.orderer.tls("localhost");
    let mut orderer = Orderer::new(&chain);
    orderer.willing = Arc::default();
    let _running = orderer.serve(first, &tls, &tasks);
    extend(&mut test, &chain).await;
    follow(&test, &tasks);
    while orderer.asked.load(Ordering::SeqCst) < 3 {
        tokio::task::yield_now().await;
    }
    orderer.willing.store(true, Ordering::SeqCst);
    committed(&test, 3).await;
    tasks.shutdown(PATIENCE).await.expect("everything ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_reaches_an_orderer_that_proves_its_name() {
    let tasks = Tasks::new();
    let (right, right_endpoint) = listener().await;
    let (wrong, wrong_endpoint) = listener().await;
    let test = TestChannel::with_orderers(&[right_endpoint, wrong_endpoint]).await;
    let chain = chain_of(&test);
    let _right = Orderer::new(&chain).serve(right, &test.network.orderer.tls("localhost"), &tasks);
    let _wrong = Orderer::new(&chain).serve(wrong, &test.network.org1.tls("localhost"), &tasks);
    let orderers = orderers(&tasks);
    let endpoints = orderers.endpoints(&test.channel);
    let envelope = Envelope {
        payload: Bytes::from_static(b"p"),
        signature: Bytes::from_static(b"s"),
        ..Envelope::default()
    };
    let answer = orderers.broadcast(&test.channel, &endpoints[0], &envelope).await.expect("an answer");
    assert_eq!((answer.status, answer.info.as_str()), (200, "p"));
    let refused =
        orderers.broadcast(&test.channel, &endpoints[1], &envelope).await.expect_err("a certificate of Org1");
    assert!(refused.to_lowercase().contains("certificate"), "{refused}");
    tasks.shutdown(PATIENCE).await.expect("everything ends");
}
