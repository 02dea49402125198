//! The gateway over a real channel, with endorsers and orderers in memory.

mod chaincode_events;
mod commit_status;
mod endorse;
mod evaluate;
mod refusals;
mod submit;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use consort_crypto::preimage;
use consort_msp::SigningIdentity;
use consort_node::{Clock, ManualClock, Tasks};
use consort_protos::fabric::common::{self, Envelope};
use consort_protos::fabric::gateway::gateway_server::Gateway as _;
use consort_protos::fabric::gateway::{
    ChaincodeEventsRequest, CommitStatusRequest, EndorseRequest, ErrorDetail, EvaluateRequest,
    SignedChaincodeEventsRequest, SignedCommitStatusRequest, SubmitRequest,
};
use consort_protos::fabric::orderer::{BroadcastResponse, SeekNextCommit, SeekPosition, seek_position};
use consort_protos::fabric::protos::{
    ChaincodeAction, ChaincodeCall, ChaincodeInterest, Endorsement, ProposalResponse,
    ProposalResponsePayload, Response, SignedProposal, TxValidationCode,
};
use consort_protos::fabric::rpc;
use consort_protos::ids::MspId;
use consort_protos::proposal::{Proposal, ProposalParts, new_proposal};
use consort_protos::transaction::Transaction;
use futures::StreamExt;
use prost::Message;
use time::macros::datetime;
use tonic::{Code, Request, Status};

use super::chaincode_events::RESPONSES_IN_FLIGHT;
use super::{CallError, Directory, EndorserNetwork, Gateway, Member, OrderingService};
use crate::channel::ChannelHandle;
use crate::config::GatewayConfig;
use crate::deliver_client::OrdererEndpoint;
use crate::testing::{CHANNEL, TestChannel, TransactionBuilder, write, writes};

/// What a simulated endorser does with a proposal.
#[derive(Clone)]
enum Behaviour {
    /// Endorses a write of this value.
    Write(&'static str),
    /// Endorses a write of this value, with a signature over something else.
    Forge(&'static str),
    /// The chaincode answers with this status and text.
    Chaincode(i32, &'static str),
    /// The peer itself fails.
    Broken(&'static str),
    /// The peer does not answer.
    Down,
    /// The peer takes the call and never answers.
    Hang,
    /// The peer finds the proposal invalid.
    Refuse(&'static str),
}

pub(super) struct Endorsers {
    identities: BTreeMap<String, Arc<SigningIdentity>>,
    behaviours: BTreeMap<String, Behaviour>,
    interest: ChaincodeInterest,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl EndorserNetwork for Endorsers {
    async fn process(
        &self,
        _: &ChannelHandle,
        member: &Member,
        proposal: Arc<SignedProposal>,
    ) -> Result<ProposalResponse, CallError> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(member.endpoint.clone());
        let status = |status: i32, message: &str, payload: &'static [u8]| ProposalResponse {
            response: Some(Response { status, message: message.to_owned(), payload: Bytes::new() }),
            payload: Bytes::from_static(payload),
            ..ProposalResponse::default()
        };
        match &self.behaviours[&member.endpoint] {
            Behaviour::Hang => std::future::pending().await,
            Behaviour::Refuse(text) => Err(CallError::Refused((*text).to_owned())),
            Behaviour::Down => Err(CallError::Unreachable("connection refused".to_owned())),
            Behaviour::Broken(text) => Ok(status(500, text, b"")),
            Behaviour::Chaincode(code, text) => Ok(status(*code, text, b"payload")),
            Behaviour::Forge(value) => {
                let identity = &self.identities[&member.endpoint];
                let mut answer = self.endorse(&proposal, value, identity);
                let endorsement = answer.endorsement.as_mut().expect("an endorsement");
                endorsement.signature = identity.sign(b"something else").expect("a signature").into();
                Ok(answer)
            }
            Behaviour::Write(value) => Ok(self.endorse(&proposal, value, &self.identities[&member.endpoint])),
        }
    }
}

impl Endorsers {
    fn endorse(&self, signed: &SignedProposal, value: &str, identity: &SigningIdentity) -> ProposalResponse {
        let proposal = Proposal::open(signed).expect("a proposal");
        let response = Response {
            status: 200,
            message: String::new(),
            payload: Bytes::copy_from_slice(value.as_bytes()),
        };
        let action = ChaincodeAction {
            results: writes("basic", vec![write("key", value.as_bytes())]).encode(),
            response: Some(response.clone()),
            chaincode_id: Some(consort_protos::fabric::protos::ChaincodeId {
                name: "basic".to_owned(),
                version: "1".to_owned(),
                ..Default::default()
            }),
            ..ChaincodeAction::default()
        };
        let hash = preimage::proposal_hash(
            &proposal.channel_header_bytes,
            &proposal.signature_header_bytes,
            &proposal.payload_without_transient(),
        );
        let payload = ProposalResponsePayload {
            proposal_hash: Bytes::copy_from_slice(&hash),
            extension: action.encode_to_vec().into(),
        };
        let payload = Bytes::from(payload.encode_to_vec());
        let signature =
            identity.sign(&preimage::endorsement(&payload, identity.serialized())).expect("a signature");
        ProposalResponse {
            version: 1,
            response: Some(response),
            payload,
            endorsement: Some(Endorsement {
                endorser: identity.serialized().clone(),
                signature: signature.into(),
            }),
            interest: Some(self.interest.clone()),
            ..ProposalResponse::default()
        }
    }
}

struct Peers(Vec<Member>);

#[async_trait]
impl Directory for Peers {
    fn members(&self, _: &ChannelHandle) -> Vec<Member> {
        self.0.clone()
    }

    async fn refresh(&self, _: &ChannelHandle) {}
}

/// An orderer that takes a transaction and never answers.
const SILENT: &str = "silent:1";

/// Orderers by address, each with its answer.
struct OrderersInMemory(BTreeMap<String, Result<(i32, &'static str), &'static str>>);

#[async_trait]
impl OrderingService for OrderersInMemory {
    fn endpoints(&self, _: &ChannelHandle) -> Vec<OrdererEndpoint> {
        self.0
            .keys()
            .map(|address| OrdererEndpoint {
                address: address.clone(),
                msp_id: MspId::parse("OrdererMSP").ok(),
                tls_roots: Vec::new(),
            })
            .collect()
    }

    async fn broadcast(
        &self,
        _: &ChannelHandle,
        orderer: &OrdererEndpoint,
        _: &Envelope,
    ) -> Result<BroadcastResponse, String> {
        if orderer.address == SILENT {
            return std::future::pending().await;
        }
        match &self.0[&orderer.address] {
            Ok((status, info)) => Ok(BroadcastResponse { status: *status, info: (*info).to_owned() }),
            Err(text) => Err((*text).to_owned()),
        }
    }
}

/// A gateway of Org1 in front of three peers: two of Org1, one of Org2.
pub(super) struct Bench {
    test: TestChannel,
    clock: Arc<ManualClock>,
    endorsers: Endorsers,
    peers: Vec<Member>,
    orderers: BTreeMap<String, Result<(i32, &'static str), &'static str>>,
}

const LOCAL: &str = "peer0.org1:7051";
const SECOND: &str = "peer1.org1:8051";
const OTHER: &str = "peer0.org2:9051";

impl Bench {
    pub(super) async fn new() -> Self {
        Self::of(TestChannel::new().await)
    }

    fn of(test: TestChannel) -> Self {
        let identities = BTreeMap::from([
            (LOCAL.to_owned(), Arc::clone(&test.network.org1.peer)),
            (SECOND.to_owned(), test.network.org1.identity("peer")),
            (OTHER.to_owned(), Arc::clone(&test.network.org2.peer)),
        ]);
        let behaviours =
            identities.keys().map(|endpoint| (endpoint.clone(), Behaviour::Write("v"))).collect();
        let member = |endpoint: &str, msp_id: &str| Member {
            endpoint: endpoint.to_owned(),
            msp_id: MspId::parse(msp_id).expect("an MSP id"),
            height: 2,
            chaincodes: vec![("basic".to_owned(), "1".to_owned())],
            local: endpoint == LOCAL,
            identity: identities[endpoint].serialized().clone(),
            incarnation_ms: 1,
            sequence: 1,
        };
        let peers = vec![member(OTHER, "Org2MSP"), member(SECOND, "Org1MSP"), member(LOCAL, "Org1MSP")];
        let interest = ChaincodeInterest {
            chaincodes: vec![ChaincodeCall { name: "basic".to_owned(), ..ChaincodeCall::default() }],
        };
        let endorsers = Endorsers { identities, behaviours, interest, asked: Mutex::default() };
        let clock = Arc::new(ManualClock::new(datetime!(2026-01-01 00:00 UTC)));
        Self { test, clock, endorsers, peers, orderers: BTreeMap::new() }
    }

    fn behave(&mut self, endpoint: &str, behaviour: Behaviour) {
        self.endorsers.behaviours.insert(endpoint.to_owned(), behaviour);
    }

    pub(super) fn gateway(self) -> (Gateway, TestChannel, Arc<Endorsers>) {
        let endorsers = Arc::new(self.endorsers);
        let gateway = Gateway::new(
            Arc::clone(&self.test.channels),
            Arc::new(Peers(self.peers)),
            Arc::clone(&endorsers) as Arc<dyn EndorserNetwork>,
            Arc::new(OrderersInMemory(self.orderers)),
            MspId::parse("Org1MSP").expect("an MSP id"),
            GatewayConfig { orderer_wait_ms: 0, ..GatewayConfig::default() },
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            Tasks::new(),
        );
        (gateway, self.test, endorsers)
    }
}

fn proposal(test: &TestChannel, chaincode: &str, transient: bool) -> (String, SignedProposal) {
    let client = &test.network.org1.client;
    let nonce: [u8; 24] = rand::random();
    let tx_id = preimage::tx_id(&nonce, client.serialized());
    let transient = transient.then(|| ("secret".to_owned(), Bytes::from_static(b"s")));
    let proposal = new_proposal(ProposalParts {
        channel: CHANNEL.to_owned(),
        creator: client.serialized().clone(),
        nonce: Bytes::copy_from_slice(&nonce),
        tx_id: tx_id.clone(),
        timestamp: prost_types::Timestamp::default(),
        chaincode: chaincode.to_owned(),
        args: vec![Bytes::from_static(b"put")],
        transient: transient.into_iter().collect(),
        is_init: false,
    });
    let bytes = Bytes::from(proposal.encode_to_vec());
    let signature = client.sign(&bytes).expect("a signature").into();
    (tx_id, SignedProposal { proposal_bytes: bytes, signature })
}

fn details(status: &Status) -> Vec<ErrorDetail> {
    let wire = rpc::Status::decode(status.details()).expect("a google.rpc.Status");
    wire.details
        .iter()
        .map(|detail| ErrorDetail::decode(detail.value.as_slice()).expect("a detail"))
        .collect()
}

pub(super) fn commit_status(test: &TestChannel, tx_id: &str) -> SignedCommitStatusRequest {
    let client = &test.network.org1.client;
    let request = CommitStatusRequest {
        transaction_id: tx_id.to_owned(),
        channel_id: CHANNEL.to_owned(),
        identity: client.serialized().clone(),
    };
    let request = Bytes::from(request.encode_to_vec());
    let signature = client.sign(&request).expect("a signature").into();
    SignedCommitStatusRequest { request, signature }
}
