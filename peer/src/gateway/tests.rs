//! The gateway over a real channel, with endorsers and orderers in memory.

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
            Behaviour::Down => Err(CallError::Unavailable("connection refused".to_owned())),
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
        let test = TestChannel::new().await;
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

async fn evaluate(gateway: &Gateway, test: &TestChannel, targets: &[&str]) -> Result<Response, Status> {
    let (transaction_id, signed) = proposal(test, "basic", false);
    let request = EvaluateRequest {
        transaction_id,
        channel_id: CHANNEL.to_owned(),
        proposed_transaction: Some(signed),
        target_organizations: targets.iter().map(|target| (*target).to_owned()).collect(),
    };
    Ok(gateway.evaluate(Request::new(request)).await?.into_inner().result.expect("a result"))
}

async fn endorse(
    gateway: &Gateway,
    test: &TestChannel,
    organisations: &[&str],
    transient: bool,
) -> Result<Envelope, Status> {
    let (transaction_id, signed) = proposal(test, "basic", transient);
    let request = EndorseRequest {
        transaction_id,
        channel_id: CHANNEL.to_owned(),
        proposed_transaction: Some(signed),
        endorsing_organizations: organisations.iter().map(|name| (*name).to_owned()).collect(),
    };
    Ok(gateway
        .endorse(Request::new(request))
        .await?
        .into_inner()
        .prepared_transaction
        .expect("a transaction"))
}

fn details(status: &Status) -> Vec<ErrorDetail> {
    let wire = rpc::Status::decode(status.details()).expect("a google.rpc.Status");
    wire.details
        .iter()
        .map(|detail| ErrorDetail::decode(detail.value.as_slice()).expect("a detail"))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evaluation_goes_to_the_local_peer_and_on_when_it_fails() {
    let mut bench = Bench::new().await;
    bench.behave(LOCAL, Behaviour::Broken("chaincode stream terminated"));
    bench.behave(SECOND, Behaviour::Down);
    let (gateway, test, endorsers) = bench.gateway();
    let result = evaluate(&gateway, &test, &[]).await.expect("the third peer answers");
    assert_eq!(result.payload, Bytes::from_static(b"v"));
    assert_eq!(*endorsers.asked.lock().expect("asked"), [LOCAL, SECOND, OTHER]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chaincode_error_ends_an_evaluation() {
    let mut bench = Bench::new().await;
    bench.behave(LOCAL, Behaviour::Chaincode(500, "the asset a1 does not exist"));
    let (gateway, test, endorsers) = bench.gateway();
    let status = evaluate(&gateway, &test, &[]).await.expect_err("refused");
    assert_eq!(status.code(), Code::Unknown);
    let text =
        "evaluate call to endorser returned error: chaincode response 500, the asset a1 does not exist";
    assert_eq!(status.message(), text);
    assert_eq!(
        details(&status),
        [ErrorDetail {
            address: LOCAL.to_owned(),
            msp_id: "Org1MSP".to_owned(),
            message: "chaincode response 500, the asset a1 does not exist".to_owned(),
        }]
    );
    assert_eq!(endorsers.asked.lock().expect("asked").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evaluation_without_peers_says_so() {
    let (gateway, test, _) = Bench::new().await.gateway();
    let status = evaluate(&gateway, &test, &["Org9MSP"]).await.expect_err("no peer of Org9");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(status.message(), "no peers available to evaluate chaincode basic in channel mychannel");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_peers_down_are_all_named() {
    let mut bench = Bench::new().await;
    for endpoint in [LOCAL, SECOND, OTHER] {
        bench.behave(endpoint, Behaviour::Down);
    }
    let (gateway, test, _) = bench.gateway();
    let status = evaluate(&gateway, &test, &[]).await.expect_err("nobody answers");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "failed to evaluate transaction, see attached details for more info");
    assert_eq!(details(&status).len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endorsed_transaction_satisfies_the_policy_and_commits() {
    let (gateway, mut test, endorsers) = Bench::new().await.gateway();
    let mut envelope = endorse(&gateway, &test, &[], false).await.expect("endorsed");
    assert!(envelope.signature.is_empty());
    envelope.signature = test.network.org1.client.sign(&envelope.payload).expect("a signature").into();
    let asked = endorsers.asked.lock().expect("asked").clone();
    assert_eq!(asked, [LOCAL, OTHER], "one peer of each organisation, the local one first");
    let envelope = Bytes::from(envelope.encode_to_vec());
    let opened = Transaction::open(envelope.clone()).expect("a transaction");
    assert_eq!(opened.endorser().expect("an invocation").endorsements.len(), 2);
    assert_eq!(test.commit(vec![envelope]).await, [TxValidationCode::Valid]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_peer_of_the_organisation_replaces_a_failed_one() {
    let mut bench = Bench::new().await;
    bench.behave(LOCAL, Behaviour::Down);
    let (gateway, test, endorsers) = bench.gateway();
    endorse(&gateway, &test, &[], false).await.expect("endorsed");
    assert_eq!(*endorsers.asked.lock().expect("asked"), [LOCAL, SECOND, OTHER]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_with_the_endpoint_of_another_organisation_stands_in_nobodys_way() {
    let mut bench = Bench::new().await;
    let mut impostor = bench.peers[1].clone();
    OTHER.clone_into(&mut impostor.endpoint);
    impostor.height = 9;
    bench.peers.push(impostor);
    let (gateway, test, endorsers) = bench.gateway();
    endorse(&gateway, &test, &[], false).await.expect("endorsed");
    assert_eq!(*endorsers.asked.lock().expect("asked"), [OTHER, LOCAL, OTHER]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endorsement_with_a_bad_signature_is_replaced() {
    let mut bench = Bench::new().await;
    bench.behave(LOCAL, Behaviour::Forge("v"));
    let (gateway, mut test, endorsers) = bench.gateway();
    let mut envelope = endorse(&gateway, &test, &[], false).await.expect("another peer endorses");
    assert_eq!(*endorsers.asked.lock().expect("asked"), [LOCAL, SECOND, OTHER]);
    envelope.signature = test.network.org1.client.sign(&envelope.payload).expect("a signature").into();
    assert_eq!(test.commit(vec![envelope.encode_to_vec().into()]).await, [TxValidationCode::Valid]);
    let mut bench = Bench::new().await;
    bench.behave(OTHER, Behaviour::Forge("v"));
    let (gateway, test, _) = bench.gateway();
    let status = endorse(&gateway, &test, &[], false).await.expect_err("nobody else of Org2");
    let details = details(&status);
    assert_eq!(details[0].address, OTHER);
    assert!(details[0].message.starts_with("the endorsement does not count: "), "{}", details[0].message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn different_results_are_named_a_mismatch() {
    let mut bench = Bench::new().await;
    bench.behave(OTHER, Behaviour::Write("w"));
    let (gateway, test, _) = bench.gateway();
    let status = endorse(&gateway, &test, &[], false).await.expect_err("no agreement");
    assert_eq!(status.code(), Code::Aborted);
    assert_eq!(
        status.message(),
        "failed to collect enough transaction endorsements, see attached details for more info"
    );
    let details = details(&status);
    assert_eq!(
        (details[0].address.as_str(), details[0].message.as_str()),
        (
            OTHER,
            "ProposalResponsePayloads do not match: Org1MSP (peer0.org1:7051) and Org2MSP (peer0.org2:9051) differ in the \
             value written to key \"key\" of basic: \"v\" and \"w\""
        )
    );
    assert_eq!((details[1].address.as_str(), details[1].msp_id.as_str()), (LOCAL, "Org1MSP"));
    assert!(
        details[1].message.starts_with("the policy of chaincode basic is not met: "),
        "{}",
        details[1].message
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endorser_that_hangs_leaves_time_for_another() {
    let mut bench = Bench::new().await;
    bench.behave(LOCAL, Behaviour::Hang);
    let (gateway, test, endorsers) = bench.gateway();
    let (transaction_id, signed) = proposal(&test, "basic", false);
    let mut request = Request::new(EndorseRequest {
        transaction_id,
        channel_id: CHANNEL.to_owned(),
        proposed_transaction: Some(signed.clone()),
        endorsing_organizations: Vec::new(),
    });
    request.set_timeout(std::time::Duration::from_millis(1_500));
    gateway.endorse(request).await.expect("the second peer of Org1 stands in");
    assert_eq!(*endorsers.asked.lock().expect("asked"), [LOCAL, SECOND, OTHER]);
    let mut request = Request::new(EvaluateRequest {
        channel_id: CHANNEL.to_owned(),
        proposed_transaction: Some(signed),
        ..EvaluateRequest::default()
    });
    request.set_timeout(std::time::Duration::from_millis(1_500));
    gateway.evaluate(request).await.expect("another peer evaluates");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_endorsers_hang_the_deadline_says_where() {
    let mut bench = Bench::new().await;
    for endpoint in [LOCAL, SECOND, OTHER] {
        bench.behave(endpoint, Behaviour::Hang);
    }
    let (gateway, test, _) = bench.gateway();
    let timed = async |organisations: &[&str]| {
        let (transaction_id, signed) = proposal(&test, "basic", false);
        let mut request = Request::new(EndorseRequest {
            transaction_id,
            channel_id: CHANNEL.to_owned(),
            proposed_transaction: Some(signed),
            endorsing_organizations: organisations.iter().map(|name| (*name).to_owned()).collect(),
        });
        request.set_timeout(std::time::Duration::from_millis(200));
        gateway.endorse(request).await.map(|_| ()).expect_err("nobody answers")
    };
    let first = timed(&[]).await;
    assert_eq!(first.code(), Code::DeadlineExceeded);
    assert_eq!(first.message(), "endorsement timeout expired while collecting first endorsement");
    let named = timed(&["Org2MSP"]).await;
    assert_eq!(named.code(), Code::DeadlineExceeded);
    assert_eq!(named.message(), "endorsement timeout expired while collecting endorsements");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chaincode_error_at_all_own_peers_aborts() {
    let mut bench = Bench::new().await;
    bench.behave(LOCAL, Behaviour::Chaincode(500, "no"));
    bench.behave(SECOND, Behaviour::Chaincode(500, "no"));
    let (gateway, test, _) = bench.gateway();
    let status = endorse(&gateway, &test, &[], false).await.expect_err("refused");
    assert_eq!(status.code(), Code::Aborted);
    assert_eq!(status.message(), "failed to endorse transaction, see attached details for more info");
    assert_eq!(details(&status)[0].message, "chaincode response 500, no");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_satisfied_is_explained() {
    let mut bench = Bench::new().await;
    bench.peers.retain(|member| member.endpoint != OTHER);
    let (gateway, test, _) = bench.gateway();
    let status = endorse(&gateway, &test, &[], false).await.expect_err("no peer of Org2");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(
        status.message(),
        "no combination of peers can be derived which satisfy the endorsement policy: no peer combination can satisfy \
         the endorsement policy"
    );
    let explained = &details(&status)[0];
    assert_eq!((explained.address.as_str(), explained.msp_id.as_str()), (LOCAL, "Org1MSP"));
    assert!(
        explained.message.contains("the policy of chaincode basic is not met: "),
        "{}",
        explained.message
    );
    assert!(explained.message.contains("Org2"), "{}", explained.message);
    let status = endorse(&gateway, &test, &["Org1MSP", "Org2MSP"], false).await.expect_err("no peer of Org2");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "failed to find any endorsing peers for org(s): Org2MSP");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaincode_that_is_not_installed_everywhere_is_named() {
    let mut bench = Bench::new().await;
    for member in bench.peers.iter_mut().filter(|member| member.endpoint == OTHER) {
        member.chaincodes.clear();
    }
    let (gateway, test, _) = bench.gateway();
    let status = endorse(&gateway, &test, &[], false).await.expect_err("Org2 cannot run it");
    assert!(
        status.message().ends_with("required chaincodes are not installed on sufficient peers"),
        "{status}"
    );
    let explained = details(&status).remove(0).message;
    assert!(
        explained.ends_with("peer0.org2:9051 (Org2MSP) has no package of basic version 1 installed"),
        "{explained}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_stay_with_the_collections_members() {
    let mut bench = Bench::new().await;
    bench.endorsers.interest = ChaincodeInterest {
        chaincodes: vec![
            ChaincodeCall { name: "basic".to_owned(), ..ChaincodeCall::default() },
            ChaincodeCall {
                name: "basic".to_owned(),
                collection_names: vec!["own".to_owned()],
                no_private_reads: true,
                ..ChaincodeCall::default()
            },
        ],
    };
    let (gateway, test, endorsers) = bench.gateway();
    endorse(&gateway, &test, &[], false).await.expect("nothing secret goes to Org2");
    endorsers.asked.lock().expect("asked").clear();
    let status = endorse(&gateway, &test, &[], true).await.expect_err("Org2 is no member of the collection");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(
        status.message().starts_with(
            "requires endorsement from organisation(s) that are not in the distribution policy of the private data \
             collection(s): [own]"
        ),
        "{status}"
    );
    assert_eq!(*endorsers.asked.lock().expect("asked"), [LOCAL]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_ends_with_the_first_orderer_that_decides() {
    let envelope = Envelope {
        payload: Bytes::from_static(b"p"),
        signature: Bytes::from_static(b"s"),
        ..Envelope::default()
    };
    type Answer = Result<(common::Status, &'static str), &'static str>;
    let submit = |orderers: Vec<(&'static str, Answer)>| {
        let envelope = envelope.clone();
        async move {
            let mut bench = Bench::new().await;
            bench.orderers = orderers
                .into_iter()
                .map(|(address, answer)| {
                    (address.to_owned(), answer.map(|(status, info)| (status as i32, info)))
                })
                .collect();
            let (gateway, _test, _) = bench.gateway();
            let request = SubmitRequest {
                transaction_id: String::new(),
                channel_id: CHANNEL.to_owned(),
                prepared_transaction: Some(envelope),
            };
            gateway.submit(Request::new(request)).await.map(drop)
        }
    };
    let unavailable = (common::Status::ServiceUnavailable, "no Raft leader");
    submit(vec![
        ("a:1", Err("refused")),
        ("b:1", Ok(unavailable)),
        ("c:1", Ok((common::Status::Success, ""))),
    ])
    .await
    .expect("the third orderer takes it");
    let status = submit(vec![("a:1", Ok((common::Status::Forbidden, "permission denied")))])
        .await
        .expect_err("forbidden");
    assert_eq!(
        (status.code(), status.message()),
        (
            Code::Aborted,
            "received unsuccessful response from orderer: status=FORBIDDEN, info=permission denied"
        )
    );
    let status = submit(vec![("a:1", Err("refused")), ("b:1", Err("refused"))]).await.expect_err("nobody");
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "no orderers could successfully process transaction")
    );
    assert_eq!(details(&status).len(), 2);
    let status = submit(Vec::new()).await.expect_err("no orderers");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "no orderer nodes available"));
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commit_status_is_told_before_and_after_the_commit() {
    let (gateway, mut test, _) = Bench::new().await.gateway();
    let good = test.basic();
    let bad = test.basic().endorsed_by(&[]);
    let waiting = {
        let gateway = gateway.clone();
        let request = Request::new(commit_status(&test, &good.tx_id()));
        async move { gateway.commit_status(request).await }
    };
    let envelopes = vec![good.build(), bad.build()];
    let (status, codes) = tokio::join!(waiting, test.commit(envelopes));
    assert_eq!(codes, [TxValidationCode::Valid, TxValidationCode::EndorsementPolicyFailure]);
    let status = status.expect("a status").into_inner();
    assert_eq!((status.result, status.block_number), (0, 2));
    let request = Request::new(commit_status(&test, &bad.tx_id()));
    let status = gateway.commit_status(request).await.expect("a status").into_inner();
    assert_eq!((status.result, status.block_number), (TxValidationCode::EndorsementPolicyFailure as i32, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commit_status_is_only_told_to_members() {
    let (gateway, test, _) = Bench::new().await.gateway();
    let mut forged = commit_status(&test, "0");
    forged.signature = test.network.org2.client.sign(&forged.request).expect("a signature").into();
    let status = gateway.commit_status(Request::new(forged)).await.expect_err("forged");
    assert_eq!(status.code(), Code::PermissionDenied);
    let status = gateway
        .commit_status(Request::new(SignedCommitStatusRequest::default()))
        .await
        .expect_err("nothing asked");
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "no identity provided"));
}

fn events_request(
    test: &TestChannel,
    position: Option<seek_position::Type>,
    after: &str,
) -> SignedChaincodeEventsRequest {
    let client = &test.network.org1.client;
    let request = ChaincodeEventsRequest {
        channel_id: CHANNEL.to_owned(),
        chaincode_id: "basic".to_owned(),
        identity: client.serialized().clone(),
        start_position: position.map(|position| SeekPosition { r#type: Some(position) }),
        after_transaction_id: after.to_owned(),
    };
    let request = Bytes::from(request.encode_to_vec());
    let signature = client.sign(&request).expect("a signature").into();
    SignedChaincodeEventsRequest { request, signature }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaincode_events_come_in_order_and_can_be_resumed() {
    let (gateway, mut test, _) = Bench::new().await.gateway();
    let request = events_request(&test, Some(seek_position::Type::NextCommit(SeekNextCommit {})), "");
    let mut live = gateway.chaincode_events(Request::new(request)).await.expect("a stream").into_inner();
    let first = test.basic().event("created", b"1");
    let silent = test.basic();
    let second = test.basic().event("changed", b"2");
    let invalid = test.basic().endorsed_by(&[]).event("never", b"3");
    test.commit(vec![silent.build()]).await;
    test.commit(vec![first.build(), invalid.build(), second.build()]).await;
    let response = live.next().await.expect("an answer").expect("events");
    let names: Vec<&str> = response.events.iter().map(|event| event.event_name.as_str()).collect();
    assert_eq!((response.block_number, names), (3, vec!["created", "changed"]));
    let request = events_request(&test, None, &first.tx_id());
    let mut resumed = gateway.chaincode_events(Request::new(request)).await.expect("a stream").into_inner();
    let response = resumed.next().await.expect("an answer").expect("events");
    assert_eq!(response.events.len(), 1);
    assert_eq!(response.events[0].payload, Bytes::from_static(b"2"));
    let request = events_request(&test, Some(seek_position::Type::Oldest(Default::default())), "");
    let status = gateway.chaincode_events(Request::new(request)).await.map(drop).expect_err("not allowed");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("invalid start position type"), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_resume_after_any_committed_transaction() {
    let (gateway, mut test, _) = Bench::new().await.gateway();
    let first = test.basic().event("first", b"1");
    let silent = test.basic();
    let invalid = test.basic().endorsed_by(&[]).event("never", b"2");
    let other = test.basic().event("other", b"3");
    let second = test.basic().event("second", b"4");
    let later = test.basic().event("later", b"5");
    test.commit([&first, &silent, &invalid, &second].map(TransactionBuilder::build).to_vec()).await;
    test.commit(vec![other.build(), later.build()]).await;
    let seen = [(silent.tx_id(), "second", 2), (invalid.tx_id(), "second", 2), (other.tx_id(), "later", 3)];
    for (tx_id, name, block) in seen {
        let request = events_request(&test, None, &tx_id);
        let mut resumed =
            gateway.chaincode_events(Request::new(request)).await.expect("a stream").into_inner();
        let response = resumed.next().await.expect("an answer").expect("events");
        assert_eq!((response.events[0].event_name.as_str(), response.block_number), (name, block));
        assert_eq!(response.events.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_no_events_is_sent_away_with_the_reason() {
    let (gateway, mut test, _) = Bench::new().await.gateway();
    let gateway = gateway.slow_reader_wait(std::time::Duration::from_millis(20));
    let free = gateway.waiters.available_permits();
    let request = Request::new(events_request(&test, None, ""));
    let mut unread = gateway.chaincode_events(request).await.expect("a stream").into_inner();
    assert_eq!(gateway.waiters.available_permits(), free - 1);
    for _ in 0..RESPONSES_IN_FLIGHT + 2 {
        test.commit(vec![test.basic().event("unread", b"1").build()]).await;
    }
    tokio::time::timeout(PATIENCE, async {
        while gateway.waiters.available_permits() < free {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the place is free again while the client still does nothing");
    for _ in 0..RESPONSES_IN_FLIGHT {
        unread.next().await.expect("an answer").expect("events");
    }
    let reason = unread.next().await.expect("an answer").expect_err("sent away");
    assert_eq!(reason.code(), Code::ResourceExhausted);
    assert!(reason.message().contains("ask again from the last event on"), "{reason}");
    assert!(unread.next().await.is_none());
}

/// Longer than anything takes that is waited for here.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Longer than any certificate of the test network lasts.
const AGES: std::time::Duration = std::time::Duration::from_secs(3_000 * 366 * 24 * 3600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_opens_no_door_and_ends_a_stream() {
    let bench = Bench::new().await;
    let clock = Arc::clone(&bench.clock);
    let (gateway, mut test, _) = bench.gateway();
    let request = Request::new(events_request(&test, None, ""));
    let mut live = gateway.chaincode_events(request).await.expect("a stream").into_inner();
    test.commit(vec![test.basic().event("one", b"1").build()]).await;
    live.next().await.expect("an answer").expect("events");
    clock.advance(AGES);
    test.commit(vec![test.basic().event("two", b"2").build()]).await;
    let status = live.next().await.expect("an answer").expect_err("expired");
    assert_eq!(
        (status.code(), status.message()),
        (Code::PermissionDenied, "access denied: channel [mychannel]")
    );
    let status = gateway.commit_status(Request::new(commit_status(&test, "0"))).await.expect_err("expired");
    assert_eq!(status.code(), Code::PermissionDenied);
    let request = Request::new(events_request(&test, None, ""));
    let status = gateway.chaincode_events(request).await.map(drop).expect_err("expired");
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_when_the_policy_is_changed_against_its_reader() {
    let (gateway, mut test, _) = Bench::new().await.gateway();
    let request = Request::new(events_request(&test, None, ""));
    let mut live = gateway.chaincode_events(request).await.expect("a stream").into_inner();
    test.commit(vec![test.basic().event("one", b"1").build()]).await;
    live.next().await.expect("an answer").expect("events");
    let configuration = test.network.configuration(&test.channel.bundle(), |root| {
        let application = root.groups.get_mut("Application").expect("an application group");
        let admins = application.policies["Admins"].policy.clone();
        let readers = application.policies.get_mut("Readers").expect("readers");
        readers.policy = admins;
    });
    assert_eq!(test.commit(vec![configuration]).await, [TxValidationCode::Valid]);
    let status = live.next().await.expect("an answer").expect_err("clients are no readers any more");
    assert_eq!(status.code(), Code::PermissionDenied);
}
