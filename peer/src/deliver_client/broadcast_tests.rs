//! Transactions on shared streams, to an orderer in this process over real TLS connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use consort_node::Tasks;
use consort_node::config::ClientAuth;
use consort_node::server::GrpcServer;
use consort_node::tls::ServerTls;
use consort_protos::fabric::common::Envelope;
use consort_protos::fabric::orderer::atomic_broadcast_server::{AtomicBroadcast, AtomicBroadcastServer};
use consort_protos::fabric::orderer::{BroadcastResponse, DeliverResponse};
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::tests::{PATIENCE, listener, orderers};
use super::{OrdererEndpoint, Orderers};
use crate::gateway::OrderingService;
use crate::testing::TestChannel;

/// A message that the orderer refuses, which ends its stream.
const REFUSED: &str = "refused";
/// A message with which the orderer's first stream breaks off, without an answer.
const BREAKS: &str = "breaks";

/// An orderer that answers with the payload.
#[derive(Clone, Default)]
struct Orderer {
    streams: Arc<AtomicUsize>,
    broken: Arc<AtomicUsize>,
}

impl Orderer {
    fn answer(&self, envelope: &Envelope) -> Option<BroadcastResponse> {
        let info = String::from_utf8_lossy(&envelope.payload).into_owned();
        match info.as_str() {
            REFUSED => Some(BroadcastResponse { status: 400, info }),
            BREAKS if self.broken.fetch_add(1, Ordering::SeqCst) == 0 => None,
            _ => Some(BroadcastResponse { status: 200, info }),
        }
    }
}

#[tonic::async_trait]
impl AtomicBroadcast for Orderer {
    type BroadcastStream = BoxStream<'static, Result<BroadcastResponse, Status>>;

    async fn broadcast(
        &self,
        request: Request<Streaming<Envelope>>,
    ) -> Result<Response<Self::BroadcastStream>, Status> {
        self.streams.fetch_add(1, Ordering::SeqCst);
        let state = Some((self.clone(), request.into_inner()));
        let answers = futures::stream::unfold(state, |state| async move {
            let (orderer, mut messages) = state?;
            let answer = orderer.answer(&messages.message().await.ok()??)?;
            let goes_on = answer.status == 200;
            Some((Ok(answer), goes_on.then_some((orderer, messages))))
        });
        Ok(Response::new(answers.boxed()))
    }

    type DeliverStream = BoxStream<'static, Result<DeliverResponse, Status>>;

    async fn deliver(
        &self,
        _: Request<Streaming<Envelope>>,
    ) -> Result<Response<Self::DeliverStream>, Status> {
        Err(Status::unimplemented("only messages are taken here"))
    }
}

/// A peer's way to one orderer.
struct Way {
    tasks: Tasks,
    test: TestChannel,
    orderer: Orderer,
    orderers: Orderers,
    endpoint: OrdererEndpoint,
}

impl Way {
    async fn new() -> Self {
        let tasks = Tasks::new();
        let (listener, address) = listener().await;
        let test = TestChannel::with_orderers(&[address]).await;
        let tls = test.network.orderer.tls("localhost");
        let roots: [&[u8]; 0] = [];
        let tls = ServerTls::from_pem(tls.cert.as_bytes(), tls.key.as_bytes(), &roots, ClientAuth::None)
            .expect("a TLS configuration");
        let orderer = Orderer::default();
        GrpcServer::new(listener, Some(tls))
            .add_service(AtomicBroadcastServer::new(orderer.clone()))
            .serve(&tasks);
        let orderers = orderers(&tasks);
        let endpoint = orderers.endpoints(&test.channel).remove(0);
        Self { tasks, test, orderer, orderers, endpoint }
    }

    /// Sends a message and checks that the answer is its own.
    async fn send(&self, payload: String) -> i32 {
        let envelope = Envelope {
            payload: Bytes::from(payload.clone()),
            signature: Bytes::from_static(b"s"),
            ..Envelope::default()
        };
        let answer = self.orderers.broadcast(&self.test.channel, &self.endpoint, &envelope).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.info, payload);
        answer.status
    }

    async fn end(self) {
        self.tasks.shutdown(PATIENCE).await.expect("everything ends");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_share_streams_and_each_gets_its_own_answer() {
    let way = Way::new().await;
    let statuses = join_all((0..150).map(|number| way.send(number.to_string()))).await;
    assert_eq!(statuses, [200; 150]);
    assert_eq!(way.send("one more".to_owned()).await, 200);
    let streams = way.orderer.streams.load(Ordering::SeqCst);
    assert!((1..=3).contains(&streams), "64 on a stream at a time: {streams} streams");
    way.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_for_its_sender_alone() {
    let way = Way::new().await;
    let message = |number: usize| if number % 10 == 7 { REFUSED.to_owned() } else { number.to_string() };
    let statuses = join_all((0..60).map(|number| way.send(message(number)))).await;
    for (number, status) in statuses.into_iter().enumerate() {
        assert_eq!(status, if number % 10 == 7 { 400 } else { 200 }, "message {number}");
    }
    way.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_on_a_stream_that_breaks_is_sent_again() {
    let way = Way::new().await;
    let message = |number: usize| if number == 5 { BREAKS.to_owned() } else { number.to_string() };
    let statuses = join_all((0..20).map(|number| way.send(message(number)))).await;
    assert_eq!(statuses, [200; 20]);
    assert!(way.orderer.broken.load(Ordering::SeqCst) > 1, "it was sent twice");
    way.end().await;
}
