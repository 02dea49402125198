//! Discovery over a real channel on which chaincode `basic` is defined.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use consort_crypto::hash::sha256;
use consort_msp::{Msp, MspManager, MspVersion, SigningIdentity};
use consort_node::server::PeerCertificate;
use consort_node::{Clock, ManualClock};
use consort_protos::fabric::discovery::discovery_server::Discovery as _;
use consort_protos::fabric::discovery::{
    AuthInfo, ChaincodeQuery, ChaincodeQueryResult, ConfigQuery, LocalPeerQuery, PeerMembershipQuery,
    PeerMembershipResult, Query, QueryResult, Request as DiscoveryRequest, SignedRequest, query,
    query_result,
};
use consort_protos::fabric::gossip::{GossipMessage, gossip_message};
use consort_protos::fabric::protos::{ChaincodeCall, ChaincodeInterest};
use proptest::prelude::any;
use prost::Message;
use time::macros::datetime;
use tonic::{Request, Status};

use super::{Discovery, DiscoverySetup};
use crate::channel::ChannelHandle;
use crate::endorser::Access;
use crate::gateway::{Directory, Member};
use crate::testing::{CHANNEL, Organisation, TestChannel, for_all};

struct Peers(Vec<Member>);

#[async_trait]
impl Directory for Peers {
    fn members(&self, _: &ChannelHandle) -> Vec<Member> {
        self.0.clone()
    }

    async fn refresh(&self, _: &ChannelHandle) {}
}

struct Bench {
    test: TestChannel,
    discovery: Discovery,
    clock: Arc<ManualClock>,
}

fn member(endpoint: &str, organisation: &Organisation, height: u64, chaincodes: &[(&str, &str)]) -> Member {
    Member {
        endpoint: endpoint.to_owned(),
        msp_id: organisation.msp_id.clone(),
        height,
        chaincodes: chaincodes.iter().map(|(name, version)| ((*name).into(), (*version).into())).collect(),
        local: endpoint.starts_with("peer0.org1"),
        identity: organisation.peer.serialized().clone(),
        incarnation_ms: 7,
        sequence: 3,
    }
}

async fn bench(second_runs: &[(&str, &str)], tls_binding: bool) -> Bench {
    let test = TestChannel::with_orderers(&["orderer.example.com:7050".to_owned()]).await;
    let network = &test.network;
    let peers = vec![
        member("peer0.org1:7051", &network.org1, 2, &[("basic", "1")]),
        member("peer0.org2:9051", &network.org2, 5, second_runs),
    ];
    let local = test.channel.bundle().msps().msp(&network.org1.msp_id).expect("Org1").config().clone();
    let msp = Msp::new(&local, MspVersion::V3_0).expect("an MSP");
    let clock = Arc::new(ManualClock::new(datetime!(2026-01-01 00:00 UTC)));
    let discovery = Discovery::new(DiscoverySetup {
        channels: Arc::clone(&test.channels),
        directory: Arc::new(Peers(peers)),
        access: Arc::new(Access::new(Arc::new(MspManager::new(vec![msp])), network.org1.msp_id.clone())),
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        tls_binding,
    });
    Bench { test, discovery, clock }
}

fn ask(channel: &str, query: query::Query) -> Query {
    Query { channel: channel.to_owned(), query: Some(query) }
}

fn interest(chaincode: &str, collections: &[&str]) -> ChaincodeInterest {
    let collection_names = collections.iter().map(|name| (*name).to_owned()).collect();
    let call = ChaincodeCall { name: chaincode.to_owned(), collection_names, ..ChaincodeCall::default() };
    ChaincodeInterest { chaincodes: vec![call] }
}

fn endorsers(interest: ChaincodeInterest) -> Query {
    ask(CHANNEL, query::Query::CcQuery(ChaincodeQuery { interests: vec![interest] }))
}

fn signed(by: &SigningIdentity, queries: Vec<Query>) -> SignedRequest {
    let authentication =
        AuthInfo { client_identity: by.serialized().clone(), client_tls_cert_hash: Bytes::new() };
    let request = DiscoveryRequest { authentication: Some(authentication), queries };
    let payload = Bytes::from(request.encode_to_vec());
    let signature = by.sign(&payload).expect("a signature").into();
    SignedRequest { payload, signature }
}

impl Bench {
    async fn ask(&self, by: &SigningIdentity, queries: Vec<Query>) -> Vec<query_result::Result> {
        let answer = self.discovery.discover(Request::new(signed(by, queries))).await.expect("an answer");
        let result = |result: QueryResult| result.result.expect("a result");
        answer.into_inner().results.into_iter().map(result).collect()
    }

    async fn one(&self, by: &SigningIdentity, query: Query) -> query_result::Result {
        self.ask(by, vec![query]).await.remove(0)
    }
}

fn error_text(result: query_result::Result) -> String {
    match result {
        query_result::Result::Error(error) => error.content,
        other => panic!("no error: {other:?}"),
    }
}

fn members(result: query_result::Result) -> PeerMembershipResult {
    match result {
        query_result::Result::Members(members) => members,
        other => panic!("no members: {other:?}"),
    }
}

fn descriptors(result: query_result::Result) -> ChaincodeQueryResult {
    match result {
        query_result::Result::CcQueryRes(result) => result,
        other => panic!("no descriptors: {other:?}"),
    }
}

#[tokio::test]
async fn the_configuration_names_msps_and_orderers() {
    let bench = bench(&[("basic", "1")], false).await;
    let client = Arc::clone(&bench.test.network.org1.client);
    let result = bench.one(&client, ask(CHANNEL, query::Query::ConfigQuery(ConfigQuery {}))).await;
    let query_result::Result::ConfigResult(config) = result else { panic!("{result:?}") };
    let msps: Vec<&str> = config.msps.keys().map(String::as_str).collect();
    assert_eq!(msps, ["OrdererMSP", "Org1MSP", "Org2MSP"]);
    assert_eq!(config.msps["Org1MSP"].name, "Org1MSP");
    let endpoint = &config.orderers["OrdererMSP"].endpoint[0];
    assert_eq!((endpoint.host.as_str(), endpoint.port), ("orderer.example.com", 7050));
}

#[tokio::test]
async fn peers_come_with_endpoint_height_and_chaincodes() {
    let bench = bench(&[("basic", "1")], false).await;
    let client = Arc::clone(&bench.test.network.org2.client);
    let query = query::Query::PeerQuery(PeerMembershipQuery::default());
    let found = members(bench.one(&client, ask(CHANNEL, query)).await);
    let peer = &found.peers_by_org["Org2MSP"].peers[0];
    assert_eq!(peer.identity, *bench.test.network.org2.peer.serialized());
    let open = |envelope: &Option<consort_protos::fabric::gossip::Envelope>| {
        let payload = envelope.as_ref().expect("an envelope").payload.clone();
        GossipMessage::decode(payload).expect("a message").content.expect("content")
    };
    let gossip_message::Content::AliveMsg(alive) = open(&peer.membership_info) else { panic!("not alive") };
    assert_eq!(alive.membership.expect("a member").endpoint, "peer0.org2:9051");
    assert_eq!(alive.timestamp.expect("a time").inc_num, 7);
    let gossip_message::Content::StateInfo(state) = open(&peer.state_info) else { panic!("no state") };
    assert_eq!(state.pki_id.len(), 32);
    assert_eq!(state.channel_mac, sha256(&[&state.pki_id[..], CHANNEL.as_bytes()].concat()).as_slice());
    let properties = state.properties.expect("properties");
    assert_eq!((properties.ledger_height, properties.chaincodes[0].name.as_str()), (5, "basic"));
}

#[tokio::test]
async fn a_filter_leaves_the_peers_that_can_serve() {
    let bench = bench(&[], false).await;
    let client = Arc::clone(&bench.test.network.org1.client);
    let filtered = |interest| query::Query::PeerQuery(PeerMembershipQuery { filter: Some(interest) });
    let found = members(bench.one(&client, ask(CHANNEL, filtered(interest("basic", &[])))).await);
    assert_eq!(found.peers_by_org.keys().collect::<Vec<_>>(), ["Org1MSP"]);
    let unknown = bench.one(&client, ask(CHANNEL, filtered(interest("nothing", &[])))).await;
    assert_eq!(error_text(unknown), "No metadata was found for chaincode nothing in channel mychannel");
}

#[tokio::test]
async fn endorsers_come_as_groups_and_layouts() {
    let bench = bench(&[("basic", "1")], false).await;
    let client = Arc::clone(&bench.test.network.org1.client);
    let found = descriptors(bench.one(&client, endorsers(interest("basic", &[]))).await);
    let descriptor = &found.content[0];
    assert_eq!(descriptor.chaincode, "basic");
    assert_eq!(descriptor.endorsers_by_groups.keys().collect::<Vec<_>>(), ["G0", "G1"]);
    assert_eq!(descriptor.layouts.len(), 1);
    assert!(descriptor.layouts[0].quantities_by_group.values().all(|count| *count == 1));
    let own = descriptors(bench.one(&client, endorsers(interest("basic", &["own"]))).await);
    let groups = &own.content[0].endorsers_by_groups;
    assert_eq!(groups.len(), 1, "the collection is Org1's alone");
    assert_eq!(groups["G0"].peers[0].identity, *bench.test.network.org1.peer.serialized());
}

#[tokio::test]
async fn what_cannot_be_endorsed_says_why() {
    let bench = bench(&[], false).await;
    let client = Arc::clone(&bench.test.network.org1.client);
    let text = error_text(bench.one(&client, endorsers(interest("basic", &[]))).await);
    assert_eq!(
        text,
        "failed constructing descriptor for chaincodes:{name:\"basic\"}: required chaincodes are not installed on \
         sufficient peers"
    );
    let text = error_text(bench.one(&client, endorsers(ChaincodeInterest::default())).await);
    assert_eq!(text, "chaincode interest must contain at least one chaincode");
    let text = error_text(bench.one(&client, endorsers(interest("", &[]))).await);
    assert_eq!(text, "chaincode name in interest cannot be empty");
    let none = ask(CHANNEL, query::Query::CcQuery(ChaincodeQuery::default()));
    let text = error_text(bench.one(&client, none).await);
    assert_eq!(text, "chaincode query must have at least one chaincode interest");
    let nothing = Query { channel: CHANNEL.to_owned(), query: None };
    assert_eq!(error_text(bench.one(&client, nothing).await), "unknown or missing request type");
}

#[tokio::test]
async fn strangers_and_unknown_channels_get_the_same_answer() {
    let bench = bench(&[("basic", "1")], false).await;
    let config = |channel: &str| ask(channel, query::Query::ConfigQuery(ConfigQuery {}));
    let client = Arc::clone(&bench.test.network.org1.client);
    let stranger = Organisation::new("Org1MSP");
    let answers = [
        bench.one(&client, config("nowhere")).await,
        bench.one(&stranger.client, config(CHANNEL)).await,
        bench.one(&client, ask("", query::Query::LocalPeers(LocalPeerQuery {}))).await,
    ];
    for answer in answers {
        assert_eq!(error_text(answer), "access denied");
    }
    let mut forged = signed(&client, vec![config(CHANNEL)]);
    forged.signature = client.sign(b"something else").expect("a signature").into();
    let answer = bench.discovery.discover(Request::new(forged)).await.expect("an answer").into_inner();
    assert_eq!(error_text(answer.results[0].result.clone().expect("a result")), "access denied");
}

#[tokio::test]
async fn an_expired_client_learns_nothing() {
    const AGES: std::time::Duration = std::time::Duration::from_secs(3_000 * 366 * 24 * 3600);
    let bench = bench(&[("basic", "1")], false).await;
    let administrator = bench.test.network.org1.identity("admin");
    bench.clock.advance(AGES);
    let queries = [
        ask(CHANNEL, query::Query::ConfigQuery(ConfigQuery {})),
        ask("", query::Query::LocalPeers(LocalPeerQuery {})),
    ];
    for query in queries {
        assert_eq!(error_text(bench.one(&administrator, query).await), "access denied");
    }
}

#[tokio::test]
async fn an_administrator_sees_the_local_peers() {
    let bench = bench(&[("basic", "1")], false).await;
    let administrator = bench.test.network.org1.identity("admin");
    let query = ask("", query::Query::LocalPeers(LocalPeerQuery {}));
    let found = members(bench.one(&administrator, query).await);
    assert_eq!(found.peers_by_org.len(), 2);
    assert!(found.peers_by_org.values().flat_map(|peers| &peers.peers).all(|peer| peer.state_info.is_none()));
}

#[tokio::test]
async fn a_malformed_request_is_refused_with_a_text() {
    let bench = bench(&[], true).await;
    let client = Arc::clone(&bench.test.network.org1.client);
    let refuse = async |payload: Vec<u8>, certificate: Option<&'static [u8]>| -> Status {
        let mut request = Request::new(SignedRequest { payload: payload.into(), signature: Bytes::new() });
        request.extensions_mut().insert(PeerCertificate(certificate.map(Bytes::from_static)));
        bench.discovery.discover(request).await.expect_err("refused")
    };
    let request = |authentication| DiscoveryRequest { authentication, queries: Vec::new() }.encode_to_vec();
    let claims = AuthInfo {
        client_identity: client.serialized().clone(),
        client_tls_cert_hash: Bytes::from_static(b"another"),
    };
    let cases = [
        (refuse(b"\xff".to_vec(), None).await, "failed parsing request"),
        (refuse(request(None), None).await, "access denied, no authentication info in request"),
        (
            refuse(request(Some(AuthInfo::default())), None).await,
            "access denied, client identity wasn't supplied",
        ),
        (refuse(request(Some(claims.clone())), None).await, "client didn't send a TLS certificate"),
        (
            refuse(request(Some(claims)), Some(b"a certificate")).await,
            "client claimed TLS hash doesn't match computed TLS hash from gRPC stream",
        ),
    ];
    for (status, text) in cases {
        assert_eq!(status.code(), tonic::Code::Unknown);
        assert!(status.message().starts_with(text), "{}", status.message());
    }
}

#[test]
fn no_bytes_panic_the_service() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let bench = runtime.block_on(bench(&[("basic", "1")], false));
    let messages = (any::<Vec<u8>>(), any::<Vec<u8>>(), 0_usize..40);
    for_all(64, &messages, |(payload, signature, queries)| {
        let raw = SignedRequest { payload: payload.clone().into(), signature: signature.into() };
        let _any = runtime.block_on(bench.discovery.discover(Request::new(raw)));
        // Signed garbage: names and collections that mean nothing, in any number.
        let name = String::from_utf8_lossy(&payload).into_owned();
        let query = endorsers(interest(&name, &[&name]));
        let request = signed(&bench.test.network.org1.client, vec![query; queries]);
        let _any = runtime.block_on(bench.discovery.discover(Request::new(request)));
        Ok(())
    });
}
