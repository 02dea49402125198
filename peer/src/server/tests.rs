//! A whole peer in this process: its services over real TLS, its channels after a restart.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
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
use consort_protos::ids::ChannelId;
use consort_protos::proposal::{ProposalParts, new_proposal};
use prost::Message;
use time::OffsetDateTime;
use tonic::Code;
use tonic::transport::Channel;

use super::{Peer, StartError};
use crate::config::PeerConfig;
use crate::connections::Connections;
use crate::testing::{CHANNEL, Network};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Writes everything that a peer of Org1 needs, and its configuration.
pub(super) fn write_peer(folder: &Path, network: &Network) -> PeerConfig {
    network.org1.write_msp(&folder.join("msp"));
    let tls = network.org1.tls("localhost");
    std::fs::write(folder.join("server.crt"), tls.cert).expect("written");
    std::fs::write(folder.join("server.key"), tls.key).expect("written");
    let text = "id: peer0\nendpoint: localhost:7051\nmsp:\n  id: Org1MSP\n  dir: msp\ndata_dir: data\nlisten:\n  \
                address: 127.0.0.1:0\ntls:\n  cert: server.crt\n  key: server.key\noperations:\n  \
                address: 127.0.0.1:0\n";
    let path = folder.join("peer.yaml");
    std::fs::write(&path, text).expect("written");
    PeerConfig::load(&path).expect("a configuration")
}

pub(super) async fn start(config: &PeerConfig, tasks: &Tasks) -> Peer {
    Peer::start(config.clone(), None, Arc::new(SystemClock), tasks).await.expect("started")
}

pub(super) fn connect(peer: &Peer, network: &Network) -> Channel {
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
    let folder = tempfile::tempdir().expect("a folder");
    let network = Network::new(&[]);
    let config = write_peer(folder.path(), &network);
    let tasks = Tasks::new();
    let peer = start(&config, &tasks).await;
    peer.channels.join(&network.genesis).expect("joined");
    let connection = connect(&peer, &network);
    let request = EvaluateRequest {
        transaction_id: String::new(),
        channel_id: CHANNEL.to_owned(),
        proposed_transaction: Some(chain_info(&network)),
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
    drop((events, refused, peer));
    tasks.shutdown(PATIENCE).await.expect("everything ends");

    let tasks = Tasks::new();
    let peer = start(&config, &tasks).await;
    assert_eq!(peer.channels.get(CHANNEL).expect("found again").ledger().height(), 1);
    tasks.shutdown(PATIENCE).await.expect("everything ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_channel_is_reported_and_harms_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let network = Network::new(&[]);
    let config = write_peer(folder.path(), &network);
    let broken = folder.path().join("data/channels/broken");
    std::fs::create_dir_all(broken.parent().expect("a parent")).expect("made");
    std::fs::create_dir_all(&broken).expect("made");
    std::fs::write(broken.join("CURRENT"), "nonsense").expect("written");
    let tasks = Tasks::new();
    let peer = start(&config, &tasks).await;
    peer.channels.join(&network.genesis).expect("another channel is joined");
    let answer = EndorserClient::new(connect(&peer, &network))
        .process_proposal(chain_info(&network))
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!(answer.response.expect("a response").status, 200);
    let faults = peer.channels.faults();
    let fault = faults.get("broken").expect("reported");
    assert!(fault.remedy.contains("broken"), "{fault}");
    tasks.shutdown(PATIENCE).await.expect("everything ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_a_peer_from_starting_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let network = Network::new(&[]);
    let config = write_peer(folder.path(), &network);
    let text = |error: StartError| consort_node::dial::with_causes(&error);
    let tasks = Tasks::new();
    let peer = start(&config, &tasks).await;
    let mut same_port = config.clone();
    same_port.listen.address = peer.address.to_string();
    let refused = Peer::start(same_port, None, Arc::new(SystemClock), &tasks).await;
    let refused = text(refused.expect_err("the port is in use"));
    assert!(refused.contains("listen.address") && refused.contains("in use"), "{refused}");
    drop(peer);
    tasks.shutdown(PATIENCE).await.expect("everything ends");
    std::fs::remove_dir_all(folder.path().join("msp/keystore")).expect("removed");
    let refused = Peer::start(config, None, Arc::new(SystemClock), &Tasks::new()).await;
    let refused = text(refused.expect_err("no key"));
    assert!(refused.contains("msp"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_peer_with_the_role_is_a_proxy_of_sealed_data() {
    let folder = tempfile::tempdir().expect("a folder");
    let network = Network::new(&[]);
    let mut config = write_peer(folder.path(), &network);
    let describe = || DescribeRequest { channel: CHANNEL.to_owned() };
    let tasks = Tasks::new();
    let peer = start(&config, &tasks).await;
    peer.channels.join(&network.genesis).expect("joined");
    let mut client = ProxyClient::new(connect(&peer, &network));
    let refused = client.describe(describe()).await.expect_err("no such service");
    assert_eq!(refused.code(), Code::Unimplemented, "{refused}");
    drop((client, peer));
    tasks.shutdown(PATIENCE).await.expect("everything ends");
    assert!(!folder.path().join("data/sealed").exists());

    config.sealed.proxy = true;
    let tasks = Tasks::new();
    let peer = start(&config, &tasks).await;
    let mut client = ProxyClient::new(connect(&peer, &network));
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
    drop((client, peer));
    tasks.shutdown(PATIENCE).await.expect("everything ends");

    let key = folder.path().join("data/sealed/keys/p256.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("set");
    let refused = Peer::start(config, None, Arc::new(SystemClock), &Tasks::new()).await;
    let refused = consort_node::dial::with_causes(&refused.expect_err("others can read the key"));
    assert!(refused.contains("chmod 600"), "{refused}");
}
