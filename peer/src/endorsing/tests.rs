//! Proposals to an endorser in this process, over real TLS connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use consort_node::Tasks;
use consort_node::config::{ClientAuth, ListenConfig};
use consort_node::dial::Dialer;
use consort_node::server::{GrpcServer, Listener};
use consort_node::tls::ServerTls;
use consort_protos::consort::endorsing::endorsing_server::{Endorsing, EndorsingServer};
use consort_protos::consort::endorsing::{Answered, Asked};
use consort_protos::fabric::protos::endorser_server::{Endorser, EndorserServer};
use consort_protos::fabric::protos::{ProposalResponse, Response as Outcome, SignedProposal};
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::BoxStream;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::{ASKED_BYTES_MAX, EndorsingService, Others, UNANSWERED_MAX};
use crate::connections::Connections;
use crate::gateway::CallError;
use crate::testing::Organisation;

/// Longer than any step of these tests needs.
const PATIENCE: Duration = Duration::from_secs(20);
/// A proposal that is refused.
const REFUSED: &str = "refused";
/// A proposal that is executed for ever.
const ENDLESS: &str = "endless";

/// An endorser that answers with the proposal.
#[derive(Clone, Default)]
struct Echo {
    executing: Arc<watch::Sender<usize>>,
}

/// One that is worked on.
struct Executing(Arc<watch::Sender<usize>>);

impl Drop for Executing {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[tonic::async_trait]
impl Endorser for Echo {
    async fn process_proposal(
        &self,
        request: Request<SignedProposal>,
    ) -> Result<Response<ProposalResponse>, Status> {
        self.executing.send_modify(|count| *count += 1);
        let _executing = Executing(Arc::clone(&self.executing));
        let payload = request.into_inner().proposal_bytes;
        match std::str::from_utf8(&payload) {
            Ok(REFUSED) => Err(Status::unknown("it is refused")),
            Ok(ENDLESS) => std::future::pending().await,
            _ => Ok(Response::new(ProposalResponse {
                response: Some(Outcome { status: 200, message: String::new(), payload }),
                ..ProposalResponse::default()
            })),
        }
    }
}

/// An endorser that counts what comes as a call.
#[derive(Clone, Default)]
struct Called {
    echo: Echo,
    calls: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl Endorser for Called {
    async fn process_proposal(
        &self,
        request: Request<SignedProposal>,
    ) -> Result<Response<ProposalResponse>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.echo.process_proposal(request).await
    }
}

/// Streams that break off with the first message.
struct Breaking;

#[tonic::async_trait]
impl Endorsing for Breaking {
    type ProcessStream = BoxStream<'static, Result<Answered, Status>>;

    async fn process(
        &self,
        request: Request<Streaming<Asked>>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        let broken = request.into_inner().map(|_| Err(Status::internal("broken")));
        Ok(Response::new(broken.boxed()))
    }
}

/// A gateway's way to one peer.
struct Way {
    tasks: Tasks,
    called: Called,
    others: Arc<Others>,
    endpoint: String,
    roots: Vec<Bytes>,
}

impl Way {
    /// To a peer that serves streams.
    async fn new() -> Self {
        Self::to(|server, called| {
            let service = EndorsingServer::new(EndorsingService::new(called.echo.clone()));
            server.add_service(service.max_decoding_message_size(ASKED_BYTES_MAX))
        })
        .await
    }

    /// To a peer that serves calls, and what is added.
    async fn to(add: impl FnOnce(GrpcServer, &Called) -> GrpcServer) -> Self {
        let tasks = Tasks::new();
        let listener = Listener::bind(&ListenConfig::new("127.0.0.1:0")).await.expect("a free port");
        let endpoint = format!("localhost:{}", listener.address().port());
        let organisation = Organisation::new("Org1MSP");
        let tls = organisation.tls("localhost");
        let roots: [&[u8]; 0] = [];
        let tls = ServerTls::from_pem(tls.cert.as_bytes(), tls.key.as_bytes(), &roots, ClientAuth::None)
            .expect("a TLS configuration");
        let called = Called::default();
        let server = GrpcServer::new(listener, Some(tls)).add_service(EndorserServer::new(called.clone()));
        add(server, &called).serve(&tasks);
        let overrides = [("localhost".to_owned(), "127.0.0.1".to_owned())].into_iter().collect();
        let connections = Arc::new(Connections::new(Dialer::new(overrides, None)));
        let others = Arc::new(Others::new(connections, &tasks));
        let roots = vec![Bytes::from(organisation.root_pem)];
        Self { tasks, called, others, endpoint, roots }
    }

    /// Asks, and checks that an answer is the proposal's own.
    async fn ask(&self, proposal: impl Into<Bytes>) -> Result<(), CallError> {
        let proposal =
            SignedProposal { proposal_bytes: proposal.into(), signature: Bytes::from_static(b"s") };
        let answer = self.others.ask(&self.endpoint, &self.roots, &proposal).await?;
        assert_eq!(answer.response.expect("a response").payload, proposal.proposal_bytes);
        Ok(())
    }

    fn calls(&self) -> usize {
        self.called.calls.load(Ordering::SeqCst)
    }

    /// Waits until so many proposals are worked on.
    async fn executing(&self, count: usize) {
        let mut executing = self.called.echo.executing.subscribe();
        let reached = executing.wait_for(|now| *now == count);
        tokio::time::timeout(PATIENCE, reached).await.expect("in time").expect("the endorser");
    }

    async fn end(self) {
        self.tasks.shutdown(PATIENCE).await.expect("everything ends");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_share_streams_and_each_gets_its_own_answer() {
    let way = Way::new().await;
    let asked = (0..100).map(|number: i32| way.ask(number.to_string()));
    assert!(join_all(asked).await.iter().all(Result::is_ok));
    assert_eq!(way.calls(), 0);
    way.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_for_its_sender_alone_and_in_the_words_of_a_call() {
    let way = Way::new().await;
    let asked =
        (0..20).map(|number: i32| way.ask(if number == 7 { REFUSED.to_owned() } else { number.to_string() }));
    for (number, answer) in join_all(asked).await.into_iter().enumerate() {
        let refusal = CallError::Unavailable("it is refused".to_owned());
        assert_eq!(answer, if number == 7 { Err(refusal) } else { Ok(()) }, "proposal {number}");
    }
    way.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn executions_that_take_long_hold_up_nobody_and_end_when_nobody_waits() {
    let way = Way::new().await;
    let endless = join_all((0..UNANSWERED_MAX - 1).map(|_| way.ask(ENDLESS)));
    let others = async {
        way.executing(UNANSWERED_MAX - 1).await;
        for number in 0..10 {
            way.ask(number.to_string()).await.expect("an answer");
        }
    };
    tokio::select! {
        _ = endless => panic!("they never end"),
        () = others => {}
    }
    way.executing(0).await;
    assert_eq!(way.calls(), 0);
    way.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_large_goes_as_a_call() {
    let way = Way::new().await;
    way.ask(vec![b'x'; ASKED_BYTES_MAX]).await.expect("an answer");
    assert_eq!(way.calls(), 1);
    way.ask("small").await.expect("an answer");
    assert_eq!(way.calls(), 1);
    way.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_without_streams_is_asked_by_calls() {
    let way = Way::to(|server, _| server).await;
    for number in 1..=3 {
        way.ask(number.to_string()).await.expect("an answer");
        assert_eq!(way.calls(), number);
    }
    way.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_on_a_stream_that_breaks_is_asked_by_a_call() {
    let way = Way::to(|server, _| server.add_service(EndorsingServer::new(Breaking))).await;
    let asked = (0..5).map(|number: i32| way.ask(number.to_string()));
    assert!(join_all(asked).await.iter().all(Result::is_ok));
    assert_eq!(way.calls(), 5);
    way.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_not_there_is_unreachable() {
    let way = Way::new().await;
    let nowhere = Listener::bind(&ListenConfig::new("127.0.0.1:0")).await.expect("a free port");
    let endpoint = format!("localhost:{}", nowhere.address().port());
    drop(nowhere);
    let proposal = SignedProposal { proposal_bytes: Bytes::from_static(b"p"), signature: Bytes::new() };
    let answer = way.others.ask(&endpoint, &way.roots, &proposal).await;
    assert!(matches!(answer, Err(CallError::Unreachable(_))), "{answer:?}");
    way.end().await;
}
