//! A whole peer in this process: its services over real TLS, its channels after a restart.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use consort_crypto::preimage;
use consort_msp::SigningIdentity;
use consort_node::dial::Dialer;
use consort_node::{SystemClock, Tasks};
use consort_protos::consort::sealed::proxy_client::ProxyClient;
use consort_protos::consort::sealed::{DescribeRequest, Description};
use consort_protos::entry::EntryNumber;
use consort_protos::fabric::common::{BlockchainInfo, Envelope, Payload, SignatureHeader, Status};
use consort_protos::fabric::gateway::EvaluateRequest;
use consort_protos::fabric::gateway::gateway_client::GatewayClient;
use consort_protos::fabric::protos::deliver_client::DeliverClient;
use consort_protos::fabric::protos::deliver_response::Type;
use consort_protos::fabric::protos::{SignedProposal, endorser_client::EndorserClient};
use consort_protos::ids::{BlockNumber, ChannelId};
use consort_protos::proposal::{ProposalParts, new_proposal};
use prost::Message;
use tempfile::TempDir;
use time::OffsetDateTime;
use tonic::Code;
use tonic::transport::Channel;

use super::Peer;
use crate::config::PeerConfig;
use crate::connections::Connections;
use crate::testing::{CHANNEL, Network};

const PATIENCE: Duration = Duration::from_secs(20);

/// Everything that a peer of Org1 needs, on the disk, and its configuration.
pub(super) struct Prepared {
    folder: TempDir,
    network: Network,
    config: PeerConfig,
}

impl Prepared {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let network = Network::new(&[]);
        let at = |name: &str| folder.path().join(name);
        network.org1.write_msp(&at("msp"));
        let tls = network.org1.tls("localhost");
        std::fs::write(at("server.crt"), tls.cert).expect("written");
        std::fs::write(at("server.key"), tls.key).expect("written");
        let text = "id: peer0\nendpoint: localhost:7051\nmsp:\n  id: Org1MSP\n  dir: msp\ndata_dir: data\nlisten:\n  \
                    address: 127.0.0.1:0\ntls:\n  cert: server.crt\n  key: server.key\noperations:\n  \
                    address: 127.0.0.1:0\n";
        std::fs::write(at("peer.yaml"), text).expect("written");
        let config = PeerConfig::load(&at("peer.yaml")).expect("a configuration");
        Self { folder, network, config }
    }

    /// Starts the peer with the channels that it has.
    pub(super) async fn start(self) -> Served {
        let tasks = Tasks::new();
        let peer =
            Peer::start(self.config.clone(), None, Arc::new(SystemClock), &tasks).await.expect("started");
        let connection = connect(&peer, &self.network);
        Served { prepared: self, peer, connection, tasks }
    }

    /// Starts the peer and lets it join the channel.
    pub(super) async fn joined(self) -> Served {
        let served = self.start().await;
        served.peer.channels.join(&served.prepared.network.genesis).expect("joined");
        served
    }

    async fn refused(&self) -> String {
        let refused = Peer::start(self.config.clone(), None, Arc::new(SystemClock), &Tasks::new()).await;
        consort_node::dial::with_causes(&refused.expect_err("it cannot start"))
    }
}

/// A running peer with a connection to it.
pub(super) struct Served {
    prepared: Prepared,
    pub(super) peer: Peer,
    pub(super) connection: Channel,
    tasks: Tasks,
}

impl Served {
    pub(super) fn network(&self) -> &Network {
        &self.prepared.network
    }

    /// Ends the peer; what is on the disk stays.
    pub(super) async fn stop(self) -> Prepared {
        let Self { prepared, peer, connection, tasks } = self;
        drop((peer, connection));
        tasks.shutdown(PATIENCE).await.expect("everything ends");
        prepared
    }
}

fn connect(peer: &Peer, network: &Network) -> Channel {
    let overrides = [("localhost".to_owned(), "127.0.0.1".to_owned())].into_iter().collect();
    let roots = [Bytes::from(network.org1.root_pem.clone())];
    Connections::new(Dialer::new(overrides, None))
        .to(&format!("localhost:{}", peer.address.port()), &roots)
        .expect("an endpoint")
}

pub(super) fn now() -> OffsetDateTime {
    consort_node::Clock::now(&SystemClock)
}

/// Asks `qscc` for the height of the channel.
pub(super) fn chain_info(network: &Network) -> SignedProposal {
    chain_info_by(&network.org1.client)
}

/// The same, asked by somebody.
pub(super) fn chain_info_by(client: &SigningIdentity) -> SignedProposal {
    let nonce: [u8; 24] = rand::random();
    let proposal = new_proposal(ProposalParts {
        channel: CHANNEL.to_owned(),
        creator: client.serialized().clone(),
        nonce: Bytes::copy_from_slice(&nonce),
        tx_id: preimage::tx_id(&nonce, client.serialized()),
        timestamp: prost_types::Timestamp { seconds: now().unix_timestamp(), nanos: 0 },
        chaincode: "qscc".to_owned(),
        args: vec![Bytes::from_static(b"GetChainInfo"), Bytes::from_static(CHANNEL.as_bytes())],
        transient: std::collections::BTreeMap::new(),
        is_init: false,
    });
    let proposal_bytes = Bytes::from(proposal.encode_to_vec());
    let signature = client.sign(&proposal_bytes).expect("a signature").into();
    SignedProposal { proposal_bytes, signature }
}

/// The same request by the same client, named by the channel's first entry instead of its certificate.
fn named_by_entry(request: &Envelope, client: &SigningIdentity) -> Envelope {
    let mut payload = Payload::decode(request.payload.clone()).expect("a payload");
    let header = payload.header.as_mut().expect("a header");
    let mut signer = SignatureHeader::decode(header.signature_header.clone()).expect("a signer");
    signer.creator = EntryNumber::new(0).expect("a number").serialize();
    header.signature_header = signer.encode_to_vec().into();
    let payload = Bytes::from(payload.encode_to_vec());
    let signature = client.sign(&payload).expect("a signature").into();
    Envelope { payload, signature, ..Envelope::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_serves_its_channel_and_finds_it_again_after_a_restart() {
    let served = Prepared::new().joined().await;
    let (network, connection) = (served.network(), served.connection.clone());
    let request = EvaluateRequest {
        transaction_id: String::new(),
        channel_id: CHANNEL.to_owned(),
        proposed_transaction: Some(chain_info(network)),
        target_organizations: Vec::new(),
    };
    let answer = GatewayClient::new(connection.clone()).evaluate(request).await.expect("an answer");
    let result = answer.into_inner().result.expect("a result");
    assert_eq!(BlockchainInfo::decode(result.payload).expect("chain info").height, 1);
    let channel = ChannelId::parse(CHANNEL).expect("a channel");
    let seek = crate::deliver_client::from_block(&channel, 0, &network.org1.client, Bytes::new(), now())
        .expect("signed");
    let mut events = DeliverClient::new(connection.clone())
        .deliver_filtered(tokio_stream::once(seek.clone()))
        .await
        .expect("a stream")
        .into_inner();
    match events.message().await.expect("an answer").and_then(|answer| answer.r#type) {
        Some(Type::FilteredBlock(block)) => {
            assert_eq!((block.number, block.channel_id.as_str()), (0, CHANNEL));
        }
        other => panic!("no summary of block 0 but {other:?}"),
    }
    // Who reads gives its certificate, also on a channel where transactions name entries.
    let by_entry = named_by_entry(&seek, &network.org1.client);
    let mut refused = DeliverClient::new(connection)
        .deliver_filtered(tokio_stream::once(by_entry))
        .await
        .expect("a stream")
        .into_inner();
    let answer = refused.message().await.expect("an answer").and_then(|answer| answer.r#type);
    assert_eq!(answer, Some(Type::Status(Status::Forbidden as i32)));
    drop((events, refused));
    let again = served.stop().await.start().await;
    assert_eq!(again.peer.channels.get(CHANNEL).expect("found again").ledger().height(), 1);
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_is_delivered_whole_as_a_summary_and_with_private_data() {
    let served = Prepared::new().joined().await;
    let ledger = Arc::clone(served.peer.channels.get(CHANNEL).expect("joined").ledger());
    let stored = ledger.block(BlockNumber::new(0)).expect("readable").expect("stored");
    let channel = ChannelId::parse(CHANNEL).expect("a channel");
    let reader = &served.network().org1.client;
    let seek =
        || crate::deliver_client::from_block(&channel, 0, reader, Bytes::new(), now()).expect("signed");
    let mut deliver = DeliverClient::new(served.connection.clone());
    let whole = deliver.deliver(tokio_stream::once(seek())).await.expect("a stream");
    let summary = deliver.deliver_filtered(tokio_stream::once(seek())).await.expect("a stream");
    let private = deliver.deliver_with_private_data(tokio_stream::once(seek())).await.expect("a stream");
    let mut answers = Vec::new();
    for stream in [whole, summary, private] {
        let answer = stream.into_inner().message().await.expect("an answer").expect("a block");
        answers.push(answer.r#type.expect("a block"));
    }
    let [Type::Block(whole), Type::FilteredBlock(summary), Type::BlockAndPrivateData(private)] = &answers[..]
    else {
        panic!("not the forms that were asked for: {answers:?}")
    };
    assert_eq!((whole, private.block.as_ref()), (&stored, Some(&stored)));
    assert!(private.private_data_map.is_empty());
    assert_eq!(summary.filtered_transactions.len(), 1);
    drop(ledger);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_channel_is_reported_and_harms_no_other() {
    let prepared = Prepared::new();
    let broken = prepared.folder.path().join("data/channels/broken");
    std::fs::create_dir_all(&broken).expect("made");
    std::fs::write(broken.join("CURRENT"), "nonsense").expect("written");
    let served = prepared.joined().await;
    let answer = EndorserClient::new(served.connection.clone())
        .process_proposal(chain_info(served.network()))
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!(answer.response.expect("a response").status, 200);
    let faults = served.peer.channels.faults();
    let fault = faults.get("broken").expect("reported");
    assert!(fault.remedy.contains("broken"), "{fault}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_a_peer_from_starting_is_named() {
    let mut served = Prepared::new().start().await;
    let free = served.prepared.config.listen.address.clone();
    served.prepared.config.listen.address = served.peer.address.to_string();
    let refused = served.prepared.refused().await;
    assert!(refused.contains("listen.address") && refused.contains("in use"), "{refused}");
    let mut prepared = served.stop().await;
    prepared.config.listen.address = free;
    std::fs::remove_dir_all(prepared.folder.path().join("msp/keystore")).expect("removed");
    let refused = prepared.refused().await;
    assert!(refused.contains("msp"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_peer_with_the_role_is_a_proxy_of_sealed_data() {
    let describe = || DescribeRequest { channel: CHANNEL.to_owned() };
    let served = Prepared::new().joined().await;
    let mut client = ProxyClient::new(served.connection.clone());
    let refused = client.describe(describe()).await.expect_err("no such service");
    assert_eq!(refused.code(), Code::Unimplemented, "{refused}");
    drop(client);
    let mut prepared = served.stop().await;
    assert!(!prepared.folder.path().join("data/sealed").exists());

    prepared.config.sealed.proxy = true;
    let served = prepared.start().await;
    let mut client = ProxyClient::new(served.connection.clone());
    let until_it_follows = async {
        loop {
            match client.describe(describe()).await {
                Ok(answer) => return answer.into_inner(),
                Err(status) => assert_eq!(status.code(), Code::NotFound, "{status}"),
            }
        }
    };
    let signed = tokio::time::timeout(PATIENCE, until_it_follows).await.expect("in time");
    let description = Description::decode(signed.description).expect("a description");
    assert_eq!((description.endpoint.as_str(), description.keys.len()), ("localhost:7051", 2));
    drop(client);
    let prepared = served.stop().await;

    let key = prepared.folder.path().join("data/sealed/keys/p256.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("set");
    let refused = prepared.refused().await;
    assert!(refused.contains("chmod 600"), "{refused}");
}
