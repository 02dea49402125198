//! Peers that hand each other private data over real TLS connections, and callers that get nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use consort_ledger::{Simulation, TxSimulator};
use consort_msp::SigningIdentity;
use consort_node::config::{ClientAuth, ListenConfig};
use consort_node::dial::{ClientIdentity, Dialer};
use consort_node::renewal::Current;
use consort_node::server::{GrpcServer, Listener};
use consort_node::tls::ServerTls;
use consort_node::{Metrics, SystemClock, Tasks};
use consort_protos::consort::privatedata::body::Content;
use consort_protos::consort::privatedata::private_data_server::PrivateDataServer;
use consort_protos::consort::privatedata::{Fetch, Push, Wanted};
use consort_protos::fabric::common::Block;
use consort_protos::fabric::protos::{
    CollectionConfig, CollectionConfigPackage, CollectionPolicyConfig, StaticCollectionConfig,
    TxValidationCode, collection_config, collection_policy_config,
};
use consort_protos::ids::BlockNumber;
use prost::Message as _;

use super::*;
use crate::committer::pipeline::pipeline;
use crate::gateway::Member;
use crate::testing::{CHANNEL, JoinedPeer, Network, Organisation, spelled_policy};

const PATIENCE: Duration = Duration::from_secs(20);

/// The peers that are known, as each of them sees them.
#[derive(Default)]
pub(super) struct Phonebook(Mutex<Vec<Member>>);

struct View {
    book: Arc<Phonebook>,
    own: String,
}

#[async_trait]
impl Directory for View {
    fn members(&self, _: &ChannelHandle) -> Vec<Member> {
        let members = self.book.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let local = |member: Member| Member { local: member.endpoint == self.own, ..member };
        members.into_iter().map(local).collect()
    }

    async fn refresh(&self, _: &ChannelHandle) {}
}

impl Phonebook {
    pub(super) fn add(&self, peer: &Peer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(peer.member.clone());
    }

    pub(super) fn remove(&self, peer: &Peer) {
        let mut members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|member| member.endpoint != peer.member.endpoint);
    }
}

pub(super) struct Peer {
    pub(super) private: PrivateData,
    joined: JoinedPeer,
    member: Member,
    organisation: consort_protos::ids::MspId,
}

/// Org1 with two peers, Org2 with one, and the chain that all follow.
pub(super) struct Consortium {
    pub(super) network: Network,
    pub(super) book: Arc<Phonebook>,
    pub(super) one: Peer,
    pub(super) another: Peer,
    pub(super) two: Peer,
    last: Block,
    tasks: Tasks,
}

async fn peer(
    network: &Network,
    organisation: &Organisation,
    signer: Arc<SigningIdentity>,
    book: &Arc<Phonebook>,
    tasks: &Tasks,
) -> Peer {
    let listener = Listener::bind(&ListenConfig::new("127.0.0.1:0")).await.expect("a free port");
    let endpoint = format!("localhost:{}", listener.address().port());
    let joined = JoinedPeer::new(&network.genesis);
    let tls = organisation.tls("localhost");
    let shown = ClientIdentity::from_pem(tls.cert.as_bytes(), tls.key.as_bytes());
    let overrides = [("localhost".to_owned(), "127.0.0.1".to_owned())].into_iter().collect();
    let member = Member {
        endpoint: endpoint.clone(),
        msp_id: organisation.msp_id.clone(),
        height: 1,
        chaincodes: Vec::new(),
        local: false,
        identity: signer.serialized().clone(),
        incarnation_ms: 0,
        sequence: 0,
    };
    let private = PrivateData::new(PrivateDataSetup {
        channels: Arc::clone(&joined.channels),
        directory: Arc::new(View { book: Arc::clone(book), own: endpoint }),
        signer: Current::new(signer),
        connections: Arc::new(Connections::new(Dialer::new(overrides, Some(shown)))),
        clock: Arc::new(SystemClock),
        config: PrivateDataConfig::default(),
        metrics: Arc::new(PeerMetrics::new(&Metrics::new())),
        tasks: tasks.clone(),
    });
    let roots: [&[u8]; 0] = [];
    let tls = ServerTls::from_pem(tls.cert.as_bytes(), tls.key.as_bytes(), &roots, ClientAuth::Optional)
        .expect("a TLS configuration");
    GrpcServer::new(listener, Some(tls)).add_service(PrivateDataServer::new(private.clone())).serve(tasks);
    let peer = Peer { private, joined, member, organisation: organisation.msp_id.clone() };
    book.add(&peer);
    peer
}

pub(super) fn collection(name: &str, members: &str, required: i32, maximum: i32) -> CollectionConfig {
    let policy = consort_msp::policy::parse(members).expect("a policy");
    let config = StaticCollectionConfig {
        name: name.to_owned(),
        member_orgs_policy: Some(CollectionPolicyConfig {
            payload: Some(collection_policy_config::Payload::SignaturePolicy(policy)),
        }),
        required_peer_count: required,
        maximum_peer_count: maximum,
        ..StaticCollectionConfig::default()
    };
    CollectionConfig { payload: Some(collection_config::Payload::StaticCollectionConfig(config)) }
}

pub(super) const ORG1: &str = "OR('Org1MSP.member')";
pub(super) const BOTH: &str = "OR('Org1MSP.member','Org2MSP.member')";

impl Peer {
    pub(super) fn channel(&self) -> &Arc<ChannelHandle> {
        &self.joined.channel
    }

    fn waiting(&self, tx_id: &str) -> Vec<String> {
        let sets = self.channel().ledger().transient().sets(tx_id).expect("readable");
        let namespaces = sets.iter().flat_map(|set| &set.namespaces);
        namespaces.flat_map(|namespace| &namespace.collections).map(|set| set.name().to_owned()).collect()
    }

    pub(super) fn value(&self, collection: &str, key: &str) -> Option<Bytes> {
        let snapshot = self.channel().ledger().snapshot();
        snapshot.private("basic", collection, key).expect("readable").map(|value| value.value)
    }

    async fn distribute(&self, tx_id: &str, simulation: &Simulation) -> Result<(), String> {
        let snapshot = self.channel().ledger().snapshot();
        let written = Written::of(self.channel(), &snapshot, &simulation.private)?;
        self.private.distribute(self.channel(), tx_id, 1, &written).await
    }

    pub(super) async fn commit(&self, block: Block, fetching: bool) {
        let tasks = Tasks::new();
        let metrics = Arc::new(PeerMetrics::new(&Metrics::new()));
        let (mut intake, committer) = pipeline(self.channel(), self.organisation.clone(), metrics);
        let committer = if fetching { committer.fetching(self.private.clone()) } else { committer };
        tasks.spawn("commit", false, committer.run(tasks.cancelled()));
        intake.accept(block).await.expect("the next block");
        let mut height = self.channel().watch_height();
        height.wait_for(|height| *height == intake.next_number()).await.expect("committed");
        drop(intake);
        tasks.shutdown(PATIENCE).await.expect("the committer ends");
    }

    /// What a peer is told when it makes this call.
    async fn calls(&self, other: &Peer, content: Content) -> String {
        let other = OtherPeer { member: other.member.clone(), identity: self.identity_of(other) };
        match content {
            push @ Content::Push(_) => {
                self.private.push(self.channel(), &other, push).await.expect_err("refused")
            }
            fetch @ Content::Fetch(_) => {
                let answer = self.private.ask(self.channel(), &other, fetch, PATIENCE).await;
                answer.map_or_else(|reason| reason, |answer| format!("{} sets", answer.found.len()))
            }
        }
    }

    fn identity_of(&self, other: &Peer) -> Arc<Identity> {
        self.channel().bundle().msps().deserialize(&other.member.identity).expect("known")
    }
}

impl Consortium {
    /// Chaincode `basic` with these collections; the policy is that any organisation endorses.
    pub(super) async fn new(collections: Vec<CollectionConfig>) -> Self {
        let network = Network::new(&[]);
        let (book, tasks) = (Arc::new(Phonebook::default()), Tasks::new());
        let one = peer(&network, &network.org1, Arc::clone(&network.org1.peer), &book, &tasks).await;
        let another = peer(&network, &network.org1, network.org1.identity("peer"), &book, &tasks).await;
        let two = peer(&network, &network.org2, Arc::clone(&network.org2.peer), &book, &tasks).await;
        let last = network.genesis.clone();
        let mut consortium = Self { network, book, one, another, two, last, tasks };
        consortium.define(collections).await;
        consortium
    }

    async fn define(&mut self, config: Vec<CollectionConfig>) {
        let policy = spelled_policy("OR('Org1MSP.peer','Org2MSP.peer')");
        let definition =
            self.network.definition("basic", &policy, &CollectionConfigPackage { config }).build();
        let block = self.next(vec![definition]);
        for peer in [&self.one, &self.another, &self.two] {
            peer.commit(block.clone(), false).await;
        }
    }

    pub(super) fn next(&mut self, envelopes: Vec<Bytes>) -> Block {
        self.last = self.network.block_after(&self.last, envelopes);
        self.last.clone()
    }

    pub(super) fn simulate(&self, run: impl FnOnce(&mut TxSimulator)) -> Simulation {
        let mut simulator = TxSimulator::new(self.one.channel().ledger().snapshot(), "private");
        run(&mut simulator);
        simulator.finish()
    }

    fn put(&self, collections: &[&str]) -> Simulation {
        self.simulate(|simulator| {
            for collection in collections {
                simulator.put_private("basic", collection, "key", "value".into()).expect("may write");
            }
        })
    }

    /// A transaction that the first peer endorsed, and its id.
    pub(super) fn transaction(&self, simulation: &Simulation) -> (String, Bytes) {
        let transaction = self.network.transaction("basic").set(simulation.rwset.clone());
        let transaction = transaction.endorsed_by(&[&self.network.org1.peer]);
        (transaction.tx_id(), transaction.build())
    }

    pub(super) async fn end(self) {
        self.tasks.shutdown(PATIENCE).await.expect("everything ends");
    }
}

pub(super) fn keep(peer: &Peer, tx_id: &str, simulation: &Simulation) {
    let transient = peer.channel().ledger().transient();
    transient.put(tx_id, BlockNumber::new(1), &simulation.private).expect("kept");
}

const TX: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_write_reaches_the_members_and_nobody_else() {
    let consortium =
        Consortium::new(vec![collection("own", ORG1, 1, 3), collection("both", BOTH, 2, 3)]).await;
    let simulation = consortium.put(&["both", "own"]);
    consortium.one.distribute(TX, &simulation).await.expect("acknowledged");
    assert_eq!(consortium.another.waiting(TX), ["both", "own"]);
    assert_eq!(consortium.two.waiting(TX), ["both"]);
    consortium.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_maximum_is_spread_over_organisations() {
    let consortium =
        Consortium::new(vec![collection("both", BOTH, 0, 1), collection("none", BOTH, 0, 0)]).await;
    let peers = consortium.two.private.others(consortium.two.channel());
    assert_eq!(peers.len(), 2, "both of Org1");
    let simulation = consortium.put(&["both", "none"]);
    consortium.one.distribute(TX, &simulation).await.expect("nothing is required");
    let holders =
        [&consortium.another, &consortium.two].iter().filter(|peer| !peer.waiting(TX).is_empty()).count();
    assert_eq!(holders, 1, "one peer at most");
    consortium.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organisations_own_peers_share_its_implicit_collection() {
    let consortium = Consortium::new(Vec::new()).await;
    let simulation = consortium.put(&["_implicit_org_Org1MSP", "_implicit_org_Org2MSP"]);
    consortium.one.distribute(TX, &simulation).await.expect("nothing is required");
    assert_eq!(consortium.another.waiting(TX), ["_implicit_org_Org1MSP"]);
    assert!(consortium.two.waiting(TX).is_empty(), "its own peers have it from their endorsement");
    let snapshot = consortium.one.channel().ledger().snapshot();
    let written = Written::of(consortium.one.channel(), &snapshot, &simulation.private).expect("known");
    let held = written.held_by(&consortium.network.org1.msp_id);
    assert!(held.collection("basic", "_implicit_org_Org1MSP").is_some());
    assert!(held.collection("basic", "_implicit_org_Org2MSP").is_none());
    consortium.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fewer_acknowledgements_than_required_are_an_error() {
    let consortium = Consortium::new(vec![collection("own", ORG1, 1, 1)]).await;
    let simulation = consortium.put(&["own"]);
    consortium.book.remove(&consortium.another);
    let unknown = consortium.one.distribute(TX, &simulation).await.expect_err("nobody is known");
    assert_eq!(
        unknown,
        "could not build private data dissemination plan for chaincode basic and collection own: required to disseminate to \
         at least 1 peers, but know of only 0 eligible peers"
    );
    let mut gone = consortium.another.member.clone();
    gone.endpoint = "localhost:1".to_owned();
    consortium.book.0.lock().expect("the book").push(gone);
    let down = consortium.one.distribute(TX, &simulation).await.expect_err("it does not answer");
    assert_eq!(down, "Failed disseminating 1 out of 1 private dissemination plans");
    consortium.book.add(&consortium.another);
    consortium.one.distribute(TX, &simulation).await.expect("the other one stands in");
    consortium.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_outside_of_a_collection_neither_hands_nor_gets_anything() {
    let consortium = Consortium::new(vec![collection("own", ORG1, 0, 1)]).await;
    let simulation = consortium.put(&["own"]);
    keep(&consortium.one, TX, &simulation);
    let (one, two) = (&consortium.one, &consortium.two);
    let snapshot = two.channel().ledger().snapshot();
    let written = Written::of(two.channel(), &snapshot, &simulation.private).expect("known");
    let refused = written.check_membership(&two.organisation).expect_err("it does not endorse");
    assert!(refused.contains("Org2MSP is no member of collection own of chaincode basic"), "{refused}");
    assert_eq!(written.check_membership(&one.organisation), Ok(()));
    let push = Push { tx_id: TX.replace('0', "f"), height: 1, sets: Some(simulation.private.to_message()) };
    assert_eq!(two.calls(one, Content::Push(push.clone())).await, "access denied");
    assert_eq!(one.calls(two, Content::Push(push.clone())).await, "access denied", "nor does it take any");
    assert!(one.waiting(&push.tx_id).is_empty() && two.waiting(&push.tx_id).is_empty());
    let hash = simulation.rwset.namespaces[0].collections[0].pvt_rwset_hash.clone();
    let wanted = Wanted {
        tx_id: TX.to_owned(),
        block: 2,
        transaction: 0,
        namespace: "basic".to_owned(),
        collection: "own".to_owned(),
        hash,
    };
    let fetch = Content::Fetch(Fetch { wanted: vec![wanted] });
    assert_eq!(two.calls(one, fetch.clone()).await, "access denied");
    assert_eq!(consortium.another.calls(one, fetch.clone()).await, "1 sets", "a member gets it");
    // No Org1 peer, but an Org1 client who has the peer's TLS key.
    let client = Peer {
        private: changed(&consortium.another, |setup| {
            setup.signer = Current::new(Arc::clone(&consortium.network.org1.client));
        }),
        joined: JoinedPeer::new(&consortium.network.genesis),
        member: consortium.another.member.clone(),
        organisation: consortium.another.organisation.clone(),
    };
    assert_eq!(client.calls(one, fetch).await, "access denied");
    consortium.end().await;
}

/// The same peer with another set-up.
pub(super) fn changed(peer: &Peer, change: impl FnOnce(&mut PrivateDataSetup)) -> PrivateData {
    let setup = peer.private.setup();
    let mut changed = PrivateDataSetup {
        channels: Arc::clone(&setup.channels),
        directory: Arc::clone(&setup.directory),
        signer: setup.signer.clone(),
        connections: Arc::clone(&setup.connections),
        clock: Arc::clone(&setup.clock),
        config: setup.config.clone(),
        metrics: Arc::clone(&setup.metrics),
        tasks: setup.tasks.clone(),
    };
    change(&mut changed);
    PrivateData::new(changed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_counts_for_one_recipient_on_one_connection() {
    use consort_node::server::PeerCertificate;
    let consortium = Consortium::new(Vec::new()).await;
    let bundle = consortium.one.channel().bundle();
    let signer = Arc::clone(&consortium.network.org1.peer);
    let now = consortium.one.private.setup().clock.now();
    let own = consortium.two.member.identity.clone();
    let certificate = PeerCertificate(Some(Bytes::from_static(b"a certificate")));
    let shown = Bytes::copy_from_slice(&consort_crypto::hash::sha256(b"a certificate"));
    let content = Content::Fetch(Fetch::default());
    let signed = message::seal(&signer, CHANNEL, &own, shown, now, content).expect("signed");
    let body = consort_protos::consort::privatedata::Body::decode(signed.body.clone()).expect("a body");
    let check = |certificate: &PeerCertificate, own: &[u8], seconds: i64| {
        let now = now + time::Duration::seconds(seconds);
        message::verify(&signed, &body, &bundle, Some(certificate), own, now)
            .map(|author| author.msp_id().clone())
    };
    assert_eq!(check(&certificate, &own, 0).expect("it counts"), consortium.network.org1.msp_id);
    let other = PeerCertificate(Some(Bytes::from_static(b"another certificate")));
    assert!(check(&other, &own, 0).is_err(), "another connection");
    assert!(check(&PeerCertificate(None), &own, 0).is_err(), "no certificate");
    assert!(check(&certificate, &consortium.another.member.identity, 0).is_err(), "another recipient");
    assert!(check(&certificate, &own, 301).is_err(), "later");
    let mut forged = signed.clone();
    forged.identity = consortium.another.member.identity.clone();
    assert!(
        message::verify(&forged, &body, &bundle, Some(&certificate), &own, now).is_err(),
        "another author"
    );
    consortium.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_at_commit_is_fetched_from_the_endorser() {
    let mut consortium = Consortium::new(vec![collection("own", ORG1, 0, 0)]).await;
    let simulation = consortium.put(&["own"]);
    let (tx_id, envelope) = consortium.transaction(&simulation);
    keep(&consortium.one, &tx_id, &simulation);
    let block = consortium.next(vec![envelope]);
    for peer in [&consortium.another, &consortium.two, &consortium.one] {
        peer.commit(block.clone(), true).await;
    }
    assert_eq!(consortium.another.value("own", "key"), Some("value".into()));
    assert_eq!(consortium.two.value("own", "key"), None);
    assert_eq!(consortium.two.channel().ledger().missing_private(10).expect("readable"), []);
    let codes = consortium.one.channel().ledger().transaction(&tx_id).expect("readable").expect("there").1;
    assert_eq!(codes, TxValidationCode::Valid);
    consortium.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_had_at_commit_is_found_later() {
    let mut consortium = Consortium::new(vec![collection("own", ORG1, 0, 0)]).await;
    let simulation = consortium.put(&["own"]);
    let (tx_id, envelope) = consortium.transaction(&simulation);
    keep(&consortium.one, &tx_id, &simulation);
    let block = consortium.next(vec![envelope]);
    consortium.book.remove(&consortium.one);
    consortium.another.commit(block.clone(), true).await;
    consortium.one.commit(block, true).await;
    let lacking = |peer: &Peer| status(peer.channel()).expect("readable").lacking;
    let found = &lacking(&consortium.another)[0];
    assert_eq!((found.collection.as_str(), found.sets, found.first_block), ("own", 1, 2));
    let (private, channel) = (&consortium.another.private, consortium.another.channel());
    assert_eq!(private.search(channel, true).await, 0);
    assert_eq!(channel.search_progress().last_reason, "no peer that was asked holds the rest");
    consortium.book.add(&consortium.one);
    assert_eq!(private.search(channel, true).await, 1);
    assert_eq!(consortium.another.value("own", "key"), Some("value".into()));
    assert!(lacking(&consortium.another).is_empty());
    let progress = channel.search_progress();
    assert_eq!((progress.supplied, progress.last_wanted, progress.last_reason.as_str()), (1, 1, ""));
    consortium.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_joins_later_gets_what_was_written_before_but_for_purged_keys() {
    let mut consortium = Consortium::new(vec![collection("grows", ORG1, 0, 1)]).await;
    let written = consortium.simulate(|simulator| {
        for key in ["kept", "purged"] {
            simulator.put_private("basic", "grows", key, "value".into()).expect("may write");
        }
    });
    let purge = consortium.simulate(|simulator| {
        simulator.purge_private("basic", "grows", "purged").expect("may purge");
    });
    for simulation in [&written, &purge] {
        let (tx_id, envelope) = consortium.transaction(simulation);
        keep(&consortium.one, &tx_id, simulation);
        let block = consortium.next(vec![envelope]);
        for peer in [&consortium.one, &consortium.two] {
            peer.commit(block.clone(), true).await;
        }
        consortium.another.commit(block, false).await;
    }
    assert_eq!(consortium.two.private.search(consortium.two.channel(), true).await, 0, "it is no member");
    consortium.define(vec![collection("grows", BOTH, 0, 1)]).await;
    let cancelled = consortium.tasks.cancelled();
    let search = consortium.two.private.clone().run_search(Arc::clone(consortium.two.channel()), cancelled);
    consortium.tasks.spawn("search", false, search);
    tokio::time::timeout(PATIENCE, async {
        while consortium.two.value("grows", "kept").is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("it is found");
    assert_eq!(consortium.two.value("grows", "purged"), None);
    assert_eq!(consortium.two.channel().ledger().missing_private(10).expect("readable").len(), 0);
    consortium.end().await;
}
