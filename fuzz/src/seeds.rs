//! Well-formed input of the functions whose messages are signed or nested: what a client's library would send.

use std::collections::BTreeMap;

use bytes::Bytes;
use consort_crypto::hash::HashAlgorithm;
use consort_peer::chaincode::package;
use consort_protos::consort::endorsing::Asked;
use consort_protos::consort::identities::{GetArgs, ListArgs, RegisterArgs};
use consort_protos::consort::peer::{Chaincode, PeerState, SignedMembership};
use consort_protos::consort::privatedata::{Body, Fetch, Push, Signed, Wanted, body};
use consort_protos::consort::sealed::{DescribeRequest, PutRecord};
use consort_protos::envelope;
use consort_protos::fabric::common::{ChannelHeader, Envelope, HeaderType, SignatureHeader};
use consort_protos::fabric::discovery::{
    AuthInfo, ChaincodeQuery, ConfigQuery, LocalPeerQuery, PeerMembershipQuery, Query,
    Request as DiscoveryRequest, SignedRequest, query,
};
use consort_protos::fabric::gateway::{
    ChaincodeEventsRequest, CommitStatusRequest, EndorseRequest, EvaluateRequest,
    SignedChaincodeEventsRequest, SignedCommitStatusRequest, SubmitRequest,
};
use consort_protos::fabric::lifecycle::{
    ApproveChaincodeDefinitionForMyOrgArgs, CheckCommitReadinessArgs, CommitChaincodeDefinitionArgs,
    GetInstalledChaincodePackageArgs, InstallChaincodeArgs, QueryApprovedChaincodeDefinitionArgs,
    QueryChaincodeDefinitionArgs, QueryChaincodeDefinitionsArgs, QueryInstalledChaincodeArgs,
};
use consort_protos::fabric::orderer::{SeekNextCommit, SeekPosition, SeekSpecified, seek_position};
use consort_protos::fabric::protos::{
    ChaincodeCall, ChaincodeInput, ChaincodeInterest, Proposal, SignedProposal,
};
use consort_protos::proposal::{ProposalParts, new_proposal};
use prost::Message;

use crate::network::{CHANNEL, NETWORK, parts, signature, signed_proposal, timestamp};
use crate::orderer::BOUNDARY;
use crate::sealed;

/// A transaction id.
pub(crate) const TX_ID: &str = "6f142589e4ef6a1e62c9c816e2074f70baa9f7cf67c2f0c287d4ef907d6d2015";

/// Well-formed input of a function; none for those that the tests have other input for.
#[must_use]
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "evaluate_request" => evaluate_requests(),
        "endorse_request" => endorse_requests(),
        "submit_request" => submit_requests(),
        "commit_status_request" => commit_status_requests(),
        "chaincode_events_request" => chaincode_events_requests(),
        "discovery_request" => discovery_requests(),
        "proposal" => vec![proposal("qscc", CHANNEL, &[b"GetChainInfo", CHANNEL.as_bytes()]).encode_to_vec()],
        "proposal_payload" => proposal_payloads(),
        "lifecycle_arguments" => lifecycle_arguments(),
        "cscc_arguments" => cscc_arguments(),
        "qscc_arguments" => qscc_arguments(),
        "identities_arguments" => identities_arguments(),
        "sealed_arguments" => sealed::arguments(),
        "endorsing_stream" => endorsing_streams(),
        "sealed_describe" => vec![DescribeRequest { channel: CHANNEL.to_owned() }.encode_to_vec()],
        "sealed_deposit" => sealed::deposits(),
        "sealed_question" => sealed::questions(),
        "membership_statement" => vec![membership_statement()],
        "private_data_call" => private_data_calls(),
        "broadcast_envelope" => vec![transaction().encode_to_vec(), update().encode_to_vec()],
        "participation_join" => vec![form("config-block", &NETWORK.genesis.encode_to_vec())],
        "participation_update" => vec![form("config-update-envelope", &update().encode_to_vec())],
        "chaincode_package" => vec![package::pack("basic_1", b"\0asm\r\0\x01\0").unwrap_or_default()],
        "message_json" => {
            vec![br#"{"header":{"data_hash":null,"number":"0"}}"#.to_vec(), NETWORK.genesis.encode_to_vec()]
        }
        _ => texts(target).iter().map(|text| text.as_bytes().to_vec()).collect(),
    }
}

/// Files that people write.
fn texts(target: &str) -> &'static [&'static str] {
    match target {
        "connection_profile" => &[
            "client: { organization: Org1 }\norganizations: { Org1: { mspid: Org1MSP, peers: [p] } }\npeers:\n  p: \
             { url: 'grpcs://localhost:7051', tlsCACerts: { pem: roots }, grpcOptions: { ssl-target-name-override: p } }\n",
            r#"{"organizations":{"Org1":{"mspid":"Org1MSP","peers":["p"]}},"peers":{"p":{"url":"grpcs://p:1","tlsCACerts":{"path":"ca.pem"}}}}"#,
        ],
        "channel_change" => &[
            "batch: { max_message_count: 20, timeout: 1s }\n",
            "anchor_peers: { Org1MSP: [{ host: peer0.org1.example.com, port: 7051 }] }\n",
            "policies: { /Channel/Application/Writers: \"OR('Org1MSP.client')\" }\n",
            "organisations: { add: [{ name: Org3, msp_id: Org3MSP, msp: org3/msp }], remove: [Org2MSP] }\n",
        ],
        "channel_profile" => &[
            "orderer:\n  consenters: [{ host: o, port: 7050, client_tls_cert: a.pem, server_tls_cert: a.pem }]\n  \
             organisations: [{ name: O, msp_id: OMSP, msp: o }]\napplication:\n  organisations: [{ name: P, msp_id: PMSP, msp: p }]\n",
        ],
        "network_topology" => &[include_str!("../../network-configs/two-org-raft/network.yaml")],
        _ => &[],
    }
}

/// The arguments of a call.
pub(crate) fn input(args: &[&[u8]]) -> Vec<u8> {
    let args = args.iter().map(|argument| Bytes::copy_from_slice(argument)).collect();
    ChaincodeInput { args, ..ChaincodeInput::default() }.encode_to_vec()
}

fn unsigned_proposal(chaincode: &str, channel: &str, args: &[&[u8]]) -> Proposal {
    let args = args.iter().map(|argument| Bytes::copy_from_slice(argument)).collect();
    let transient = BTreeMap::from([("secret".to_owned(), Bytes::from_static(b"s"))]);
    new_proposal(ProposalParts { transient, ..parts(&NETWORK.client, chaincode, channel, args) })
}

fn proposal(chaincode: &str, channel: &str, args: &[&[u8]]) -> SignedProposal {
    signed_proposal(&NETWORK.client, &unsigned_proposal(chaincode, channel, args))
}

fn evaluate_requests() -> Vec<Vec<u8>> {
    let chain = proposal("qscc", CHANNEL, &[b"GetChainInfo", CHANNEL.as_bytes()]);
    let undefined = proposal("basic", CHANNEL, &[b"ReadAsset", b"asset1"]);
    let request = |signed, organisations: &[&str]| {
        let request = EvaluateRequest {
            transaction_id: TX_ID.to_owned(),
            channel_id: CHANNEL.to_owned(),
            proposed_transaction: Some(signed),
            target_organizations: organisations.iter().map(|name| (*name).to_owned()).collect(),
        };
        request.encode_to_vec()
    };
    vec![request(chain.clone(), &[]), request(chain, &["Org1MSP"]), request(undefined, &[])]
}

fn endorse_requests() -> Vec<Vec<u8>> {
    let args = QueryChaincodeDefinitionsArgs {}.encode_to_vec();
    let known = proposal("_lifecycle", CHANNEL, &[b"QueryChaincodeDefinitions", &args]);
    let undefined = proposal("basic", CHANNEL, &[b"CreateAsset", b"asset1"]);
    let request = |signed, organisations: &[&str]| {
        let request = EndorseRequest {
            transaction_id: TX_ID.to_owned(),
            channel_id: CHANNEL.to_owned(),
            proposed_transaction: Some(signed),
            endorsing_organizations: organisations.iter().map(|name| (*name).to_owned()).collect(),
        };
        request.encode_to_vec()
    };
    vec![request(known.clone(), &["Org1MSP"]), request(known, &[]), request(undefined, &[])]
}

/// A transaction as far as an orderer looks.
fn transaction() -> Envelope {
    enveloped(HeaderType::EndorserTransaction, Bytes::from_static(b"\x0a\x02\x0a\x00"))
}

/// An update that changes nothing.
fn update() -> Envelope {
    use consort_protos::fabric::common::{ConfigUpdate, ConfigUpdateEnvelope};
    let update = ConfigUpdate { channel_id: CHANNEL.to_owned(), ..ConfigUpdate::default() };
    let signed =
        ConfigUpdateEnvelope { config_update: update.encode_to_vec().into(), signatures: Vec::new() };
    enveloped(HeaderType::ConfigUpdate, signed.encode_to_vec().into())
}

fn enveloped(kind: HeaderType, data: Bytes) -> Envelope {
    let (creator, nonce) =
        (NETWORK.client.serialized().clone(), Bytes::from_static(b"a nonce of 24 bytes, yes"));
    let header = ChannelHeader {
        r#type: kind.into(),
        channel_id: CHANNEL.to_owned(),
        tx_id: HashAlgorithm::Sha256.tx_id(&nonce, &creator),
        timestamp: Some(timestamp()),
        ..ChannelHeader::default()
    };
    let payload = envelope::payload(&header, &SignatureHeader { creator, nonce }, data);
    Envelope { signature: signature(&NETWORK.client, &payload), payload, ..Envelope::default() }
}

fn submit_requests() -> Vec<Vec<u8>> {
    let request = SubmitRequest {
        transaction_id: TX_ID.to_owned(),
        channel_id: CHANNEL.to_owned(),
        prepared_transaction: Some(transaction()),
    };
    vec![request.encode_to_vec()]
}

fn commit_status_requests() -> Vec<Vec<u8>> {
    let request = CommitStatusRequest {
        transaction_id: TX_ID.to_owned(),
        channel_id: CHANNEL.to_owned(),
        identity: NETWORK.client.serialized().clone(),
    };
    let request = Bytes::from(request.encode_to_vec());
    let signature = signature(&NETWORK.client, &request);
    vec![request.to_vec(), SignedCommitStatusRequest { request, signature }.encode_to_vec()]
}

fn chaincode_events_requests() -> Vec<Vec<u8>> {
    let positions = [
        seek_position::Type::NextCommit(SeekNextCommit {}),
        seek_position::Type::Specified(SeekSpecified { number: 0 }),
    ];
    let request = |position| {
        let request = ChaincodeEventsRequest {
            channel_id: CHANNEL.to_owned(),
            chaincode_id: "basic".to_owned(),
            identity: NETWORK.client.serialized().clone(),
            start_position: Some(SeekPosition { r#type: Some(position) }),
            after_transaction_id: TX_ID.to_owned(),
        };
        let request = Bytes::from(request.encode_to_vec());
        SignedChaincodeEventsRequest { signature: signature(&NETWORK.client, &request), request }
            .encode_to_vec()
    };
    positions.map(request).to_vec()
}

/// Each query, and all of them in one request.
fn discovery_requests() -> Vec<Vec<u8>> {
    let call = |name: &str| ChaincodeCall { name: name.to_owned(), ..ChaincodeCall::default() };
    let interest = ChaincodeInterest { chaincodes: vec![call("basic"), call("_lifecycle")] };
    let queries = [
        query::Query::ConfigQuery(ConfigQuery {}),
        query::Query::PeerQuery(PeerMembershipQuery { filter: None }),
        query::Query::PeerQuery(PeerMembershipQuery { filter: Some(interest.clone()) }),
        query::Query::CcQuery(ChaincodeQuery { interests: vec![interest] }),
        query::Query::LocalPeers(LocalPeerQuery {}),
    ];
    let queries: Vec<Query> =
        queries.into_iter().map(|query| Query { channel: CHANNEL.to_owned(), query: Some(query) }).collect();
    let sets = queries.iter().map(|query| vec![query.clone()]).chain([queries.clone()]);
    let request = |queries| {
        let client_identity = NETWORK.admin.serialized().clone();
        let authentication = Some(AuthInfo { client_identity, client_tls_cert_hash: Bytes::new() });
        let payload = Bytes::from(DiscoveryRequest { authentication, queries }.encode_to_vec());
        SignedRequest { signature: signature(&NETWORK.admin, &payload), payload }.encode_to_vec()
    };
    sets.map(request).collect()
}

fn proposal_payloads() -> Vec<Vec<u8>> {
    let record = PutRecord { name: Some(sealed::record_name()), ..PutRecord::default() }.encode_to_vec();
    let calls: [(&str, &[&[u8]]); 2] = [("basic", &[b"Put", b"key"]), ("_sealed", &[b"PutRecord", &record])];
    calls.map(|(chaincode, args)| unsigned_proposal(chaincode, CHANNEL, args).payload.to_vec()).to_vec()
}

fn lifecycle_arguments() -> Vec<Vec<u8>> {
    let (name, version) = ("basic".to_owned(), "1".to_owned());
    let id = format!("basic_1:{}", "ab".repeat(32));
    let package = package::pack("basic_1", b"\0asm\r\0\x01\0").unwrap_or_default();
    let calls = [
        (
            "InstallChaincode",
            InstallChaincodeArgs { chaincode_install_package: package.into() }.encode_to_vec(),
        ),
        (
            "ApproveChaincodeDefinitionForMyOrg",
            ApproveChaincodeDefinitionForMyOrgArgs {
                sequence: 1,
                name: name.clone(),
                version: version.clone(),
                ..ApproveChaincodeDefinitionForMyOrgArgs::default()
            }
            .encode_to_vec(),
        ),
        (
            "CheckCommitReadiness",
            CheckCommitReadinessArgs {
                sequence: 1,
                name: name.clone(),
                version: version.clone(),
                ..CheckCommitReadinessArgs::default()
            }
            .encode_to_vec(),
        ),
        (
            "CommitChaincodeDefinition",
            CommitChaincodeDefinitionArgs {
                sequence: 1,
                name: name.clone(),
                version,
                ..CommitChaincodeDefinitionArgs::default()
            }
            .encode_to_vec(),
        ),
        ("QueryChaincodeDefinition", QueryChaincodeDefinitionArgs { name: name.clone() }.encode_to_vec()),
        ("QueryChaincodeDefinitions", Vec::new()),
        (
            "QueryApprovedChaincodeDefinition",
            QueryApprovedChaincodeDefinitionArgs { name, sequence: 1 }.encode_to_vec(),
        ),
        ("QueryApprovedChaincodeDefinitions", Vec::new()),
        ("QueryInstalledChaincode", QueryInstalledChaincodeArgs { package_id: id.clone() }.encode_to_vec()),
        ("GetInstalledChaincodePackage", GetInstalledChaincodePackageArgs { package_id: id }.encode_to_vec()),
        ("QueryInstalledChaincodes", Vec::new()),
    ];
    calls.iter().map(|(function, args)| input(&[function.as_bytes(), args])).collect()
}

fn cscc_arguments() -> Vec<Vec<u8>> {
    let block = NETWORK.genesis.encode_to_vec();
    let calls: [&[&[u8]]; 5] = [
        &[b"JoinChain", &block],
        &[b"GetChannels"],
        &[b"GetConfigBlock", CHANNEL.as_bytes()],
        &[b"GetChannelConfig", CHANNEL.as_bytes()],
        &[b"GetPrivateDataStatus", CHANNEL.as_bytes()],
    ];
    calls.iter().map(|args| input(args)).collect()
}

fn qscc_arguments() -> Vec<Vec<u8>> {
    let channel = CHANNEL.as_bytes();
    let calls: [&[&[u8]]; 5] = [
        &[b"GetChainInfo", channel],
        &[b"GetBlockByNumber", channel, b"0"],
        &[b"GetBlockByHash", channel, &[7; 32]],
        &[b"GetBlockByTxID", channel, TX_ID.as_bytes()],
        &[b"GetTransactionByID", channel, TX_ID.as_bytes()],
    ];
    calls.iter().map(|args| input(args)).collect()
}

fn identities_arguments() -> Vec<Vec<u8>> {
    let register = RegisterArgs {
        certificate: NETWORK.client.certificate().pem().into_bytes().into(),
        ..RegisterArgs::default()
    };
    vec![
        input(&[b"Register", &register.encode_to_vec()]),
        input(&[b"Get", &GetArgs::default().encode_to_vec()]),
        input(&[b"List", &ListArgs::default().encode_to_vec()]),
    ]
}

fn endorsing_streams() -> Vec<Vec<u8>> {
    let asked = |number, proposal| Asked { number, proposal }.encode_length_delimited_to_vec();
    let chain = proposal("qscc", CHANNEL, &[b"GetChainInfo", CHANNEL.as_bytes()]);
    vec![[asked(1, Some(chain.clone())), asked(2, Some(chain)), asked(1, None)].concat()]
}

fn membership_statement() -> Vec<u8> {
    let state = PeerState {
        channel: CHANNEL.to_owned(),
        endpoint: "peer0.org2.example.com:9051".to_owned(),
        incarnation_ms: 1,
        sequence: 1,
        ledger_height: 1,
        chaincodes: vec![Chaincode { name: "basic".to_owned(), version: "1".to_owned() }],
        ..PeerState::default()
    };
    SignedMembership { state: state.encode_to_vec().into(), ..SignedMembership::default() }.encode_to_vec()
}

fn private_data_calls() -> Vec<Vec<u8>> {
    let wanted = Wanted {
        tx_id: TX_ID.to_owned(),
        namespace: "basic".to_owned(),
        collection: "own".to_owned(),
        ..Wanted::default()
    };
    let contents = [
        body::Content::Fetch(Fetch { wanted: vec![wanted] }),
        body::Content::Push(Push { tx_id: TX_ID.to_owned(), height: 1, ..Push::default() }),
    ];
    let call = |content| {
        let body = Body { channel: CHANNEL.to_owned(), content: Some(content), ..Body::default() };
        Signed { body: body.encode_to_vec().into(), ..Signed::default() }.encode_to_vec()
    };
    contents.map(call).to_vec()
}

/// A form with one file (RFC 7578).
fn form(name: &str, content: &[u8]) -> Vec<u8> {
    let head = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}.pb\"\r\nContent-Type: \
         application/octet-stream\r\n\r\n"
    );
    [head.as_bytes(), content, format!("\r\n--{BOUNDARY}--\r\n").as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::NETWORK;
    use crate::{gateway, orderer, services};

    fn first<M: Message + Default>(target: &str) -> M {
        M::decode(seeds(target).remove(0).as_slice()).expect("well-formed")
    }

    #[test]
    fn well_formed_requests_come_through_to_what_lies_behind_the_gateways_door() {
        assert!(gateway::evaluated_by_member(first("evaluate_request")).is_some());
        assert!(gateway::endorsed_by_member(first("endorse_request")).is_some());
        assert!(gateway::submitted(first("submit_request")));
        assert!(gateway::committed_by_member(&first("commit_status_request")), "it waits");
        let signed: SignedChaincodeEventsRequest = first("chaincode_events_request");
        let request = ChaincodeEventsRequest::decode(signed.request).expect("well-formed");
        assert!(gateway::listened_by_member(&request));
        crate::put_away();
    }

    #[test]
    fn well_formed_requests_come_through_to_the_other_services() {
        for seed in seeds("discovery_request") {
            let signed = SignedRequest::decode(seed.as_slice()).expect("well-formed");
            let request = DiscoveryRequest::decode(signed.payload).expect("well-formed");
            assert!(services::discovered_by_member(request).is_some());
        }
        let succeed = |chaincode: &str, channel: &str, seed: &[u8]| {
            let response = services::called(chaincode, channel, seed).and_then(|answer| answer.response);
            response.is_some_and(|response| response.status == 200)
        };
        assert!(succeed("qscc", CHANNEL, &seeds("qscc_arguments")[0]));
        assert!(succeed("cscc", "", &seeds("cscc_arguments")[1]));
        let lifecycle = seeds("lifecycle_arguments");
        for seed in [&lifecycle[2], &lifecycle[5]] {
            assert!(succeed("_lifecycle", CHANNEL, seed));
        }
        assert!(succeed("_sealed", CHANNEL, &seeds("sealed_arguments")[0]), "a domain is made");
        assert!(succeed("_identities", CHANNEL, &seeds("identities_arguments")[2]));
        assert!(orderer::judged(&first("broadcast_envelope")).is_ok(), "a transaction is taken");
        assert!(NETWORK.bundle.check_consenters().is_ok());
        crate::put_away();
    }
}
