//! `orderer.AtomicBroadcast`: messages in, blocks out.
//!
//! Source of the statuses: Fabric `orderer/common/broadcast`.

use std::sync::Arc;

use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_node::{
    Tasks,
    deliver::{Deliver, Form, Responses},
    server::PeerCertificate,
};
use consort_protos::fabric::{
    common::{Block, Envelope, Status},
    orderer::{
        BroadcastResponse, DeliverResponse, atomic_broadcast_server::AtomicBroadcast, deliver_response::Type,
    },
};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesOrdered};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status as GrpcStatus, Streaming};
use tracing::debug;

use crate::{
    channel::Channel,
    consensus::{Origin, Receipt},
    registrar::Registrar,
    submission::{self, Refusal},
};

/// Messages of one stream that are being agreed on at a time. A client that sends without waiting fills blocks; more would let one
/// client hold the channel's whole queue.
const IN_FLIGHT_PER_STREAM: usize = 64;

/// Answers that wait for a slow client: those of one block are written together.
const RESPONSES_QUEUE: usize = IN_FLIGHT_PER_STREAM;

/// The gRPC service.
pub(crate) struct Broadcast {
    registrar: Arc<Registrar>,
    deliver: Deliver<Registrar>,
    tasks: Tasks,
}

impl Broadcast {
    pub(crate) fn new(registrar: Arc<Registrar>, deliver: Deliver<Registrar>, tasks: Tasks) -> Self {
        Self { registrar, deliver, tasks }
    }
}

#[tonic::async_trait]
impl AtomicBroadcast for Broadcast {
    type BroadcastStream = ReceiverStream<Result<BroadcastResponse, GrpcStatus>>;
    type DeliverStream = Responses<DeliverResponse>;

    async fn broadcast(
        &self,
        request: Request<Streaming<Envelope>>,
    ) -> Result<Response<Self::BroadcastStream>, GrpcStatus> {
        let (responses, stream) = mpsc::channel(RESPONSES_QUEUE);
        let session = Session { registrar: Arc::clone(&self.registrar), responses };
        let cancelled = self.tasks.cancelled();
        self.tasks.spawn("broadcast stream", false, async move {
            tokio::select! {
                () = cancelled.cancelled() => {}
                () = session.run(request.into_inner()) => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn deliver(
        &self,
        request: Request<Streaming<Envelope>>,
    ) -> Result<Response<Self::DeliverStream>, GrpcStatus> {
        let peer = request.extensions().get::<PeerCertificate>().cloned();
        self.deliver.serve(WholeBlocks, request.into_inner(), peer).map(Response::new)
    }
}

/// Finds the channel of a message and hands it over.
pub(crate) async fn submit(
    registrar: &Registrar,
    envelope: Envelope,
    origin: Origin,
) -> Result<Receipt, Refusal> {
    let open = submission::open(&envelope)?;
    let channel = registrar
        .get(&open.channel_header.channel_id)
        .ok_or_else(|| Refusal::bad_request("channel does not exist"))?;
    channel.submit(envelope, &open, origin).await
}

/// What a receipt brings; a chain that stops meanwhile leaves it open.
pub(crate) async fn outcome(receipt: Receipt) -> Result<(), Refusal> {
    receipt.await.unwrap_or_else(|_stopped| Err(Refusal::unavailable("chain is stopped")))
}

/// What becomes of a message.
type Pending = BoxFuture<'static, Result<(), Refusal>>;

/// One client's stream: answers come in the order of the messages.
struct Session {
    registrar: Arc<Registrar>,
    responses: mpsc::Sender<Result<BroadcastResponse, GrpcStatus>>,
}

impl Session {
    async fn run(&self, mut requests: Streaming<Envelope>) {
        let mut in_flight: FuturesOrdered<Pending> = FuturesOrdered::new();
        let mut reading = true;
        while reading || !in_flight.is_empty() {
            tokio::select! {
                request = requests.next(), if reading && in_flight.len() < IN_FLIGHT_PER_STREAM => {
                    let Some(Ok(envelope)) = request else {
                        reading = false;
                        continue;
                    };
                    let Some(taken) = self.take(envelope, &mut in_flight).await else { return };
                    // Nothing may be ordered behind a message that was refused.
                    reading = taken.is_ok();
                    in_flight.push_back(async move { outcome(taken?).await }.boxed());
                }
                Some(outcome) = in_flight.next() => {
                    if !self.answer(outcome).await {
                        return;
                    }
                }
                () = self.responses.closed() => return,
            }
        }
    }

    /// Takes a message, and answers earlier ones while it waits for room; `None` when the stream ends with one of these.
    async fn take(
        &self,
        envelope: Envelope,
        in_flight: &mut FuturesOrdered<Pending>,
    ) -> Option<Result<Receipt, Refusal>> {
        let taking = submit(&self.registrar, envelope, Origin::Client);
        tokio::pin!(taking);
        loop {
            tokio::select! {
                biased;
                taken = &mut taking => return Some(taken),
                Some(outcome) = in_flight.next() => if !self.answer(outcome).await {
                    return None;
                },
                () = self.responses.closed() => return None,
            }
        }
    }

    /// Whether the stream goes on behind this answer: it ends with the first refusal, and with its client.
    async fn answer(&self, outcome: Result<(), Refusal>) -> bool {
        let is_ordered = outcome.is_ok();
        let response = match outcome {
            Ok(()) => BroadcastResponse { status: Status::Success as i32, info: String::new() },
            Err(refusal) => {
                debug!(%refusal, "message refused");
                BroadcastResponse { status: refusal.status as i32, info: refusal.info }
            }
        };
        self.responses.send(Ok(response)).await.is_ok() && is_ordered
    }
}

/// Orderers deliver blocks as they are.
struct WholeBlocks;

impl Form<Channel> for WholeBlocks {
    type Response = DeliverResponse;

    fn policy<'a>(&self, bundle: &'a ChannelBundle) -> &'a str {
        if Channel::in_maintenance(bundle) { "/Channel/Orderer/Readers" } else { "/Channel/Readers" }
    }

    fn status(&self, status: Status) -> DeliverResponse {
        DeliverResponse { r#type: Some(Type::Status(status as i32)) }
    }

    fn block(&self, _source: &Channel, block: Block, _reader: &Bytes) -> Result<DeliverResponse, String> {
        Ok(DeliverResponse { r#type: Some(Type::Block(block)) })
    }
}
