//! Two peers that get to know each other over real TLS connections, and statements that count for nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use consort_msp::SigningIdentity;
use consort_node::config::{ClientAuth, ListenConfig};
use consort_node::dial::Dialer;
use consort_node::operations::HealthCheck;
use consort_node::server::{GrpcServer, Listener};
use consort_node::tls::ServerTls;
use consort_node::{Clock, ManualClock, Metrics, SystemClock, Tasks};
use consort_protos::consort::peer::SignedMembership;
use consort_protos::consort::peer::membership_server::MembershipServer;
use consort_protos::ids::ChannelId;
use time::macros::datetime;

use super::known::Known;
use super::statement::{Own, Statement};
use super::{LocalChaincodes, Membership, MembershipSetup};
use crate::channel::ChannelHandle;
use crate::config::MembershipConfig;
use crate::connections::Connections;
use crate::gateway::{Directory, Member};
use crate::health::ChannelsHealth;
use crate::telemetry::PeerMetrics;
use crate::testing::{CHANNEL, JoinedPeer, Network, Organisation, collections, spelled_policy};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Chaincodes that a test changes.
#[derive(Default)]
struct Installed(Mutex<Vec<(String, String)>>);

impl LocalChaincodes for Installed {
    fn chaincodes(&self, _: &ChannelHandle) -> Vec<(String, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn installed(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

pub(super) struct Peer {
    pub(super) membership: Membership,
    installed: Arc<Installed>,
    pub(super) joined: JoinedPeer,
    pub(super) endpoint: String,
}

pub(super) async fn peer(
    network: &Network,
    organisation: &Organisation,
    bootstrap_peers: Vec<String>,
    tasks: &Tasks,
) -> Peer {
    let listener = Listener::bind(&ListenConfig::new("127.0.0.1:0")).await.expect("a free port");
    let endpoint = format!("localhost:{}", listener.address().port());
    let joined = JoinedPeer::new(&network.genesis);
    let installed = Arc::new(Installed::default());
    let overrides = [("localhost".to_owned(), "127.0.0.1".to_owned())].into_iter().collect();
    let membership = Membership::new(MembershipSetup {
        channels: Arc::clone(&joined.channels),
        chaincodes: Arc::clone(&installed) as Arc<dyn LocalChaincodes>,
        signer: consort_node::renewal::Current::new(Arc::clone(&organisation.peer)),
        endpoint: endpoint.clone(),
        connections: Arc::new(Connections::new(Dialer::new(overrides, None))),
        clock: Arc::new(SystemClock),
        config: MembershipConfig { bootstrap_peers, attest_every_blocks: 2, ..MembershipConfig::default() },
        metrics: Arc::new(PeerMetrics::new(&Metrics::new())),
    });
    let tls = organisation.tls("localhost");
    let roots: [&[u8]; 0] = [];
    let tls = ServerTls::from_pem(tls.cert.as_bytes(), tls.key.as_bytes(), &roots, ClientAuth::None)
        .expect("a TLS configuration");
    GrpcServer::new(listener, Some(tls)).add_service(MembershipServer::new(membership.clone())).serve(tasks);
    Peer { membership, installed, joined, endpoint }
}

impl Peer {
    fn others(&self) -> Vec<Member> {
        let mut members = self.membership.members(&self.joined.channel);
        members.retain(|member| !member.local);
        members
    }

    /// Exchanges until the other peers are as wanted.
    pub(super) async fn wait(&self, wanted: impl Fn(&[Member]) -> bool) {
        tokio::time::timeout(PATIENCE, async {
            while !wanted(&self.others()) {
                self.membership.refresh(&self.joined.channel).await;
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{:?}", self.others()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_learn_of_each_other_and_of_new_chaincodes() {
    let tasks = Tasks::new();
    let network = Network::new(&[]);
    let first = peer(&network, &network.org1, Vec::new(), &tasks).await;
    let second = peer(&network, &network.org2, vec![first.endpoint.clone()], &tasks).await;
    second.wait(|others| others.len() == 1).await;
    assert_eq!(first.others()[0].endpoint, second.endpoint, "the asked one knows the asking one");
    assert_eq!(first.others()[0].msp_id, network.org2.msp_id);
    second.installed.0.lock().expect("installed").push(("basic".to_owned(), "1".to_owned()));
    first.wait(|others| others.first().is_some_and(|other| other.runs("basic", Some("1")))).await;
    tasks.shutdown(PATIENCE).await.expect("everything ends");
}

/// Commits a block that is the first after the genesis block.
pub(super) async fn commit_first(network: &Network, peer: &JoinedPeer, chaincode: &str) {
    let policy = spelled_policy("OR('Org1MSP.peer')");
    let definition = network.definition(chaincode, &policy, &collections()).build();
    let block = network.block_after(&network.genesis, vec![definition]);
    crate::committer::feed(&peer.channel, [block]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_whose_books_differ_notice() {
    let tasks = Tasks::new();
    let network = Network::new(&[]);
    let first = peer(&network, &network.org1, Vec::new(), &tasks).await;
    let second = peer(&network, &network.org2, vec![first.endpoint.clone()], &tasks).await;
    commit_first(&network, &first.joined, "one").await;
    commit_first(&network, &second.joined, "another").await;
    let channel = &first.joined.channel;
    second.wait(|others| others.iter().any(|other| other.height == 2)).await;
    first.membership.compare_books(channel);
    let found: Vec<(String, u64)> =
        channel.diverging().into_iter().map(|peer| (peer.endpoint, peer.block)).collect();
    assert_eq!(found, [(second.endpoint.clone(), 1)]);
    let health = ChannelsHealth(Arc::clone(&first.joined.channels));
    health.check().await.expect("what another organisation claims does not make this peer ill");
    let mut own = channel.diverging().remove(0);
    own.own_organisation = true;
    own.endpoint = "peer1.org1.example.com:7051".to_owned();
    channel.note_books_of(own.clone());
    let alarm = health.check().await.expect_err("a peer of the own organisation differs");
    assert!(alarm.contains("peer1.org1.example.com:7051") && alarm.contains("remedy"), "{alarm}");
    own.equal = true;
    channel.note_books_of(own);
    health.check().await.expect("the books are equal again");
    tasks.shutdown(PATIENCE).await.expect("everything ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exchange_runs_by_itself() {
    let tasks = Tasks::new();
    let network = Network::new(&[]);
    let first = peer(&network, &network.org1, Vec::new(), &tasks).await;
    let second = peer(&network, &network.org2, vec![first.endpoint.clone()], &tasks).await;
    second.membership.start(&tasks);
    second.membership.watch(&second.joined.channel, &tasks);
    tokio::time::timeout(PATIENCE, async {
        while first.others().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the first peer hears of the second one");
    tasks.shutdown(PATIENCE).await.expect("everything ends");
}

fn own(sequence: u64) -> Own {
    Own {
        channel: ChannelId::parse(CHANNEL).expect("a channel"),
        endpoint: "peer0.org1.example.com:7051".to_owned(),
        incarnation_ms: 1,
        sequence,
        height: 5,
        commit_hash: Bytes::new(),
        chaincodes: vec![("basic".to_owned(), "1".to_owned())],
        attestations: Vec::new(),
    }
}

#[test]
fn a_statement_counts_only_from_a_peer_of_the_channel() {
    let network = Network::new(&[]);
    let bundle =
        consort_channel_config::ChannelBundle::from_block(&network.genesis).expect("a configuration");
    let clock = ManualClock::new(datetime!(2026-01-01 00:00 UTC));
    let now = clock.now();
    let sign = |signer: &SigningIdentity| own(1).sign(signer, now).expect("a signature");
    let open = |signed: SignedMembership| Statement::open(signed, &bundle, now);
    open(sign(&network.org1.peer)).expect("a peer of Org1");
    let stranger = Organisation::new("Org1MSP");
    let text = |signed| open(signed).expect_err("refused").to_string();
    for signer in [&network.org1.client, &network.orderer.orderer, &stranger.peer] {
        let text = text(sign(signer));
        assert!(text.starts_with("its author is no peer of the channel"), "{text}");
    }
    let mut forged = sign(&network.org1.peer);
    forged.signature = sign(&network.org2.peer).signature;
    assert!(text(forged).starts_with("its author is no peer of the channel"));
    let mut elsewhere = own(1);
    elsewhere.channel = ChannelId::parse("other").expect("a channel");
    let elsewhere = elsewhere.sign(&network.org1.peer, now).expect("a signature");
    assert_eq!(text(elsewhere), "it is about another channel");
    let mut nowhere = own(1);
    nowhere.endpoint = "nowhere".to_owned();
    let nowhere = nowhere.sign(&network.org1.peer, now).expect("a signature");
    assert_eq!(text(nowhere), "malformed: the endpoint is not host:port");
    let garbage = SignedMembership { state: Bytes::from_static(b"\xff"), ..sign(&network.org1.peer) };
    assert!(text(garbage).starts_with("malformed"));
    clock.advance(Duration::from_secs(301));
    let late = Statement::open(sign(&network.org1.peer), &bundle, clock.now()).expect_err("old");
    assert!(late.to_string().starts_with("its time differs"), "{late}");
}

#[test]
fn older_statements_are_no_news_and_silent_peers_are_forgotten() {
    let network = Network::new(&[]);
    let bundle =
        consort_channel_config::ChannelBundle::from_block(&network.genesis).expect("a configuration");
    let clock = ManualClock::new(datetime!(2026-01-01 00:00 UTC));
    let known = Known::new(Duration::from_secs(15));
    let statement = |sequence: u64, height: u64| {
        let mut own = own(sequence);
        own.height = height;
        let signed = own.sign(&network.org1.peer, clock.now()).expect("a signature");
        Statement::open(signed, &bundle, clock.now()).expect("a statement")
    };
    let heights =
        || known.members(CHANNEL, clock.monotonic()).iter().map(|member| member.height).collect::<Vec<_>>();
    known.hear(statement(2, 7), clock.monotonic());
    known.hear(statement(1, 6), clock.monotonic());
    assert_eq!(heights(), [7]);
    known.hear(statement(3, 8), clock.monotonic());
    assert_eq!(heights(), [8]);
    clock.advance(Duration::from_secs(14));
    known.hear(statement(3, 8), clock.monotonic());
    assert_eq!(heights(), [8], "the same statement again is no sign of life");
    clock.advance(Duration::from_secs(1));
    assert!(heights().is_empty());
}
