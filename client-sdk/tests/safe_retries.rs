//! A submit whose answer is lost, and an orderer that takes a transaction and forgets it: nothing is made twice, and the caller learns
//! what became of it, or that nobody can tell.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use consort_client_sdk::{ClientIdentity, Deadlines, Error, Gateway, Gateways, Retries};
use consort_protos::fabric::gateway::gateway_server::{Gateway as GatewayService, GatewayServer};
use consort_protos::fabric::gateway::{
    ChaincodeEventsResponse, CommitStatusRequest, CommitStatusResponse, EndorseRequest, EndorseResponse,
    ErrorDetail, EvaluateRequest, EvaluateResponse, SignedChaincodeEventsRequest, SignedCommitStatusRequest,
    SubmitRequest, SubmitResponse,
};
use consort_protos::fabric::protos::{
    ChaincodeAction, ChaincodeId, ProposalResponsePayload, Response, TxValidationCode,
};
use consort_protos::fabric::rpc;
use consort_protos::proposal::{Proposal, prepared_envelope};
use consort_protos::rwset::TxReadWriteSet;
use futures::stream::{self, BoxStream};
use prost::Message;
use tokio::net::TcpListener;
use tonic::{Code, Request, Response as GrpcResponse, Status};

/// A gateway whose orderers take every transaction, and that loses answers.
#[derive(Clone, Default)]
struct Forgetful {
    seen: Arc<Mutex<Seen>>,
    /// Answers to `submit` that are lost on their way.
    lost: usize,
    /// Whether the transaction is committed after all.
    commits: bool,
    /// What each orderer says that does not take the transaction, if there is one.
    reasons: Vec<&'static str>,
}

#[derive(Default)]
struct Seen {
    endorsed: usize,
    submitted: Vec<Bytes>,
    asked: Vec<String>,
}

#[tonic::async_trait]
impl GatewayService for Forgetful {
    async fn endorse(
        &self,
        request: Request<EndorseRequest>,
    ) -> Result<GrpcResponse<EndorseResponse>, Status> {
        self.seen.lock().expect("no panic before").endorsed += 1;
        let signed = request.into_inner().proposed_transaction.expect("as the test sets it up");
        let proposal = Proposal::open(&signed).expect("as the test sets it up");
        let action = ChaincodeAction {
            results: TxReadWriteSet::default().encode(),
            response: Some(Response {
                status: 200,
                payload: Bytes::from_static(b"done"),
                ..Response::default()
            }),
            chaincode_id: Some(ChaincodeId {
                name: "basic".to_owned(),
                version: "1.0".to_owned(),
                ..ChaincodeId::default()
            }),
            ..ChaincodeAction::default()
        };
        let payload = ProposalResponsePayload {
            extension: action.encode_to_vec().into(),
            ..ProposalResponsePayload::default()
        };
        let envelope = prepared_envelope(&proposal, payload.encode_to_vec().into(), Vec::new(), None);
        Ok(GrpcResponse::new(EndorseResponse { prepared_transaction: Some(envelope) }))
    }

    async fn submit(&self, request: Request<SubmitRequest>) -> Result<GrpcResponse<SubmitResponse>, Status> {
        let envelope = request.into_inner().prepared_transaction.expect("as the test sets it up");
        let mut seen = self.seen.lock().expect("no panic before");
        seen.submitted.push(envelope.encode_to_vec().into());
        if !self.reasons.is_empty() {
            return Err(turned_away(&self.reasons));
        }
        if seen.submitted.len() <= self.lost {
            return Err(Status::unavailable("the connection was lost"));
        }
        Ok(GrpcResponse::new(SubmitResponse {}))
    }

    async fn commit_status(
        &self,
        request: Request<SignedCommitStatusRequest>,
    ) -> Result<GrpcResponse<CommitStatusResponse>, Status> {
        let request =
            CommitStatusRequest::decode(request.into_inner().request).expect("as the test sets it up");
        self.seen.lock().expect("no panic before").asked.push(request.transaction_id);
        if !self.commits {
            return Err(Status::deadline_exceeded("context deadline exceeded"));
        }
        let result = TxValidationCode::Valid.into();
        Ok(GrpcResponse::new(CommitStatusResponse { result, block_number: 7 }))
    }

    async fn evaluate(&self, _: Request<EvaluateRequest>) -> Result<GrpcResponse<EvaluateResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    type ChaincodeEventsStream = BoxStream<'static, Result<ChaincodeEventsResponse, Status>>;

    async fn chaincode_events(
        &self,
        _: Request<SignedChaincodeEventsRequest>,
    ) -> Result<GrpcResponse<Self::ChaincodeEventsStream>, Status> {
        Err(Status::unimplemented("not asked here"))
    }
}

/// The refusal of a gateway whose orderers do not take a transaction.
fn turned_away(reasons: &[&str]) -> Status {
    let detail = |reason: &&str| ErrorDetail { message: (*reason).to_owned(), ..ErrorDetail::default() };
    let details = reasons.iter().map(|reason| prost_types::Any {
        type_url: "type.googleapis.com/gateway.ErrorDetail".to_owned(),
        value: detail(reason).encode_to_vec(),
    });
    let message = "no orderers could successfully process transaction";
    let status = rpc::Status { details: details.collect(), ..rpc::Status::default() };
    Status::with_details(Code::Unavailable, message, status.encode_to_vec().into())
}

/// Serves the gateway for as long as the work takes.
async fn with<T>(gateway: Forgetful, work: impl AsyncFnOnce(Gateways) -> T) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("as the test sets it up");
    let address = listener.local_addr().expect("as the test sets it up");
    let incoming =
        stream::unfold(listener, |tcp| async move { Some((tcp.accept().await.map(|(one, _)| one), tcp)) });
    let server = tonic::transport::Server::builder()
        .add_service(GatewayServer::new(gateway))
        .serve_with_incoming(Box::pin(incoming));
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"))
        .expect("as the test sets it up")
        .connect_lazy();
    let identity = ClientIdentity::with_signer("Org1MSP", "a certificate", |message| Ok(message.to_vec()));
    let retries =
        Retries { attempts: 4, pause: Duration::from_millis(1), pause_max: Duration::from_millis(5) };
    let gateways = Gateways::of(vec![Gateway::new(channel, identity, Deadlines::default())], retries)
        .expect("as the test sets it up");
    tokio::select! {
        ended = server => panic!("the server ended: {ended:?}"),
        done = work(gateways) => done,
    }
}

#[tokio::test]
async fn a_lost_answer_costs_a_repetition_of_the_same_envelope_and_never_a_second_transaction() {
    let gateway = Forgetful { lost: 2, commits: true, ..Forgetful::default() };
    let seen = Arc::clone(&gateway.seen);
    let committed = with(gateway, async |gateways: Gateways| {
        gateways.submit("mychannel", "basic", |contract| contract.call("Create")).await
    });
    let committed = committed.await.expect("as the test sets it up");
    assert!(committed.is_valid() && committed.block == 7 && committed.result == "done");
    let seen = seen.lock().expect("no panic before");
    assert_eq!((seen.endorsed, seen.submitted.len()), (1, 3));
    assert!(seen.submitted.iter().all(|envelope| *envelope == seen.submitted[0]));
    assert_eq!(seen.asked, [committed.tx_id]);
}

#[tokio::test]
async fn when_every_answer_is_lost_the_outcome_is_asked_for() {
    let gateway = Forgetful { lost: usize::MAX, commits: true, ..Forgetful::default() };
    let seen = Arc::clone(&gateway.seen);
    let committed = with(gateway, async |gateways: Gateways| {
        gateways.submit("mychannel", "basic", |contract| contract.call("Create")).await
    });
    assert!(committed.await.expect("as the test sets it up").is_valid());
    assert_eq!(seen.lock().expect("no panic before").asked.len(), 1);
}

#[tokio::test]
async fn a_transaction_that_was_taken_and_forgotten_is_reported_as_unknown_with_its_id() {
    let gateway = Forgetful::default();
    let seen = Arc::clone(&gateway.seen);
    let forgotten = with(gateway, async |gateways: Gateways| {
        gateways.submit("mychannel", "basic", |contract| contract.call("Create")).await
    });
    let Err(Error::Unknown { tx_id, source }) = forgotten.await else { panic!("nobody can tell") };
    let Error::Refused { refusal, .. } = &*source else { panic!("{source}") };
    assert_eq!(refusal.code, Code::DeadlineExceeded);
    let seen = seen.lock().expect("no panic before");
    assert!(seen.asked.iter().all(|asked| *asked == tx_id));
    assert_eq!((seen.endorsed, seen.submitted.len()), (1, 1), "what may be ordered is not made again");
}

#[tokio::test]
async fn what_every_orderer_turned_away_is_refused_and_not_asked_about() {
    const MAINTENANCE: &str = "received unsuccessful response from orderer: status=SERVICE_UNAVAILABLE, info=normal transactions are rejected: maintenance mode";
    const DOWN: &str = "tcp connect error: Connection refused (os error 111)";
    for (reasons, is_known) in
        [(vec![MAINTENANCE, DOWN], true), (vec![MAINTENANCE, "the connection was lost"], false)]
    {
        let gateway = Forgetful { reasons, ..Forgetful::default() };
        let seen = Arc::clone(&gateway.seen);
        let refused = with(gateway, async |gateways: Gateways| {
            gateways.submit("mychannel", "basic", |contract| contract.call("Create")).await
        });
        let refused = refused.await.expect_err("no orderer took it");
        assert_eq!(!matches!(refused, Error::Unknown { .. }), is_known, "{refused}");
        assert_eq!(seen.lock().expect("no panic before").asked.is_empty(), is_known);
    }
}
