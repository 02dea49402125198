//! `consort.orderer.Cluster`: what other consenters send to this one.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use consort_crypto::certificate::Certificate;
use consort_msp::IdentityError;
use consort_node::{Clock, Tasks, server::PeerCertificate};
use consort_protos::{
    consort::orderer::{
        Hello, Introduced, Introduction, Outcome, StepRequest, StepResponse, Submission,
        cluster_server::Cluster, step_request::Content,
    },
    fabric::common::Status,
    ids::ChannelId,
};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status as GrpcStatus, Streaming};
use tracing::info;

use crate::{
    broadcast::{outcome, submit},
    channel::Channel,
    consensus::{FORWARDED_MAX, Origin, StepError, revoked},
    registrar::Registrar,
    submission::Refusal,
};

/// Answers that wait for a slow consenter; each may carry many outcomes.
const RESPONSES_QUEUE: usize = 256;

/// The gRPC service. Who calls is known by the TLS certificate of the connection.
pub(crate) struct ClusterService {
    pub(crate) registrar: Arc<Registrar>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tasks: Tasks,
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    type StepStream = ReceiverStream<Result<StepResponse, GrpcStatus>>;

    async fn step(
        &self,
        request: Request<Streaming<StepRequest>>,
    ) -> Result<Response<Self::StepStream>, GrpcStatus> {
        let shown = request.extensions().get::<PeerCertificate>().and_then(|peer| peer.0.clone());
        let certificate = shown.ok_or_else(|| GrpcStatus::unauthenticated("no TLS certificate sent"))?;
        let parsed = Certificate::from_der(&certificate)
            .map_err(|error| GrpcStatus::unauthenticated(error.to_string()))?;
        let (responses, stream) = mpsc::channel(RESPONSES_QUEUE);
        let (forwarded, waiting) = mpsc::channel(FORWARDED_MAX);
        let entrance = Entrance { registrar: Arc::clone(&self.registrar), responses: responses.clone() };
        let session = Session {
            registrar: Arc::clone(&self.registrar),
            tasks: self.tasks.clone(),
            opened_at: self.clock.now(),
            certificate,
            forwarded,
            parsed: Arc::new(parsed),
            admitted: BTreeMap::new(),
            responses,
        };
        session.check_end()?;
        let (cancelled, registrar) = (self.tasks.cancelled(), Arc::clone(&self.registrar));
        // A leader that stops hears from the others until it has handed over.
        let ended = async move {
            cancelled.cancelled().await;
            registrar.ended().await;
        };
        // The second one ends when the session has, which holds the other end of its queue.
        let both = async move { tokio::join!(session.run(request.into_inner()), entrance.run(waiting)) };
        self.tasks.spawn("consenter stream", false, async move {
            tokio::select! {
                () = ended => {}
                ((), ()) = both => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    /// The caller's authority may be as unknown here as the caller: what counts is who signed the block.
    async fn introduce(&self, request: Request<Introduction>) -> Result<Response<Introduced>, GrpcStatus> {
        let introduction = request.into_inner();
        let channel = self.registrar.get(&introduction.channel).ok_or_else(|| {
            GrpcStatus::not_found(format!("channel {} doesn't exist", introduction.channel))
        })?;
        let introduced = channel.chain().introduce(introduction).await;
        introduced.map(Response::new).map_err(GrpcStatus::invalid_argument)
    }
}

fn refused(error: &StepError) -> GrpcStatus {
    match error {
        StepError::NotAuthorized => GrpcStatus::permission_denied(error.to_string()),
        StepError::Malformed => GrpcStatus::invalid_argument(error.to_string()),
    }
}

/// What comes in on one stream. It is read without ever waiting, because Raft messages come behind submissions.
struct Session {
    registrar: Arc<Registrar>,
    tasks: Tasks,
    /// What the certificate's end is judged by: neither a clock that jumps nor a certificate that ends stalls a stream that is open.
    opened_at: OffsetDateTime,
    certificate: Bytes,
    forwarded: mpsc::Sender<Forwarded>,
    parsed: Arc<Certificate>,
    /// By channel, the configuration sequence under which its MSPs last admitted the certificate.
    admitted: BTreeMap<ChannelId, u64>,
    responses: mpsc::Sender<Result<StepResponse, GrpcStatus>>,
}

impl Session {
    async fn run(mut self, mut requests: Streaming<StepRequest>) {
        while let Ok(Some(request)) = requests.message().await {
            if let Err(status) = self.take(request).await {
                // The stream ends in any case; whether the caller still hears why does not matter.
                let _ = self.responses.send(Err(status)).await;
                return;
            }
        }
    }

    async fn take(&mut self, request: StepRequest) -> Result<(), GrpcStatus> {
        let channel = self
            .registrar
            .get(&request.channel)
            .ok_or_else(|| GrpcStatus::not_found(format!("channel {} doesn't exist", request.channel)))?;
        self.check_certificate(&channel)?;
        match request.content {
            Some(Content::RaftMessage(message)) => channel
                .chain()
                .step(&self.certificate, request.standing.unwrap_or_default(), message)
                .map_err(|error| refused(&error)),
            Some(Content::Hello(hello)) => self.hello(request.channel, &channel, hello),
            Some(Content::Submissions(batch)) if channel.chain().is_consenter(&self.certificate) => {
                self.forwarded(&request.channel.into(), batch.submissions)
            }
            Some(Content::Submissions(_)) => {
                Err(GrpcStatus::permission_denied(StepError::NotAuthorized.to_string()))
            }
            None => Err(GrpcStatus::invalid_argument("the request is empty")),
        }
    }

    fn check_end(&self) -> Result<(), GrpcStatus> {
        if self.parsed.not_after() <= self.opened_at {
            return Err(GrpcStatus::unauthenticated("the TLS certificate has expired"));
        }
        Ok(())
    }

    /// Consenters are known by their keys; a key whose certificate an MSP of the channel has revoked speaks for nobody.
    fn check_certificate(&mut self, channel: &Channel) -> Result<(), GrpcStatus> {
        let bundle = channel.state().bundle();
        if self.admitted.get(bundle.channel()) == Some(&bundle.sequence()) {
            return Ok(());
        }
        let judged = bundle.msps().judge_tls(&self.parsed, self.opened_at).and_then(|_known| {
            // A certificate that its holder signed himself says nothing about the one that was revoked.
            let is_revoked = revoked::is_key_revoked(&bundle, &self.parsed);
            if is_revoked { Err(IdentityError::Revoked) } else { Ok(()) }
        });
        judged.map_err(|refusal| {
            info!(channel = %bundle.channel(), subject = self.parsed.subject(), %refusal, "a consenter's TLS certificate is refused");
            GrpcStatus::permission_denied(refusal.to_string())
        })?;
        self.admitted.insert(bundle.channel().clone(), bundle.sequence());
        Ok(())
    }

    fn hello(&self, name: String, channel: &Channel, hello: Hello) -> Result<(), GrpcStatus> {
        let verdict = channel.chain().hello(&self.certificate, hello).map_err(|error| refused(&error))?;
        let responses = self.responses.clone();
        self.tasks.spawn("hello", false, async move {
            if let Ok(verdict) = verdict.await {
                let response =
                    StepResponse { channel: name, verdict: Some(verdict), ..StepResponse::default() };
                // A caller that is gone says hello again.
                let _ = responses.send(Ok(response)).await;
            }
        });
        Ok(())
    }

    /// Notes messages for the [`Entrance`]. A consenter that keeps to [`FORWARDED_MAX`] always finds room.
    fn forwarded(&self, channel: &Arc<str>, submissions: Vec<Submission>) -> Result<(), GrpcStatus> {
        for submission in submissions {
            let forwarded = Forwarded { channel: Arc::clone(channel), submission };
            if self.forwarded.try_send(forwarded).is_err() {
                return Err(GrpcStatus::resource_exhausted(format!(
                    "more than {FORWARDED_MAX} forwarded messages wait"
                )));
            }
        }
        Ok(())
    }
}

/// A message that another consenter took.
struct Forwarded {
    channel: Arc<str>,
    submission: Submission,
}

/// What becomes of a forwarded message, with its channel.
type Pending = BoxFuture<'static, (Arc<str>, Outcome)>;

/// Hands forwarded messages to their chains in the order of the stream, waiting for room, and answers as their outcomes become known.
struct Entrance {
    registrar: Arc<Registrar>,
    responses: mpsc::Sender<Result<StepResponse, GrpcStatus>>,
}

impl Entrance {
    async fn run(self, mut waiting: mpsc::Receiver<Forwarded>) {
        let mut pending: FuturesUnordered<Pending> = FuturesUnordered::new();
        let mut reading = true;
        while reading || !pending.is_empty() {
            tokio::select! {
                // The sender keeps to its bound, so that this does not grow: each message leaves with its answer.
                forwarded = waiting.recv(), if reading => match forwarded {
                    Some(forwarded) => match self.enter(forwarded, &mut pending).await {
                        Some(taken) => pending.push(taken),
                        None => return,
                    },
                    None => reading = false,
                },
                Some(first) = pending.next() => {
                    if self.answer(first, &mut pending).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Takes a message, and answers earlier ones while it waits for room; `None` when nobody hears the answers.
    async fn enter(&self, forwarded: Forwarded, pending: &mut FuturesUnordered<Pending>) -> Option<Pending> {
        let Forwarded { channel, submission } = forwarded;
        let (id, judged_at) = (submission.id, submission.config_sequence);
        let taking = async {
            match submission.envelope {
                Some(envelope) => submit(&self.registrar, envelope, Origin::Consenter { judged_at }).await,
                None => Err(Refusal::bad_request("Message was empty")),
            }
        };
        tokio::pin!(taking);
        let taken = loop {
            tokio::select! {
                biased;
                taken = &mut taking => break taken,
                Some(first) = pending.next() => self.answer(first, pending).await.ok()?,
            }
        };
        let ending = async move {
            let result = match taken {
                Ok(receipt) => outcome(receipt).await,
                Err(refusal) => Err(refusal),
            };
            let (status, info) = match result {
                Ok(()) => (Status::Success, String::new()),
                Err(refusal) => (refusal.status, refusal.info),
            };
            (channel, Outcome { id, status: status as i32, info })
        };
        Some(ending.boxed())
    }

    /// Tells the outcomes that are known by now: those of one block come together.
    async fn answer(
        &self,
        (channel, first): (Arc<str>, Outcome),
        pending: &mut FuturesUnordered<Pending>,
    ) -> Result<(), ()> {
        let (mut current, mut outcomes) = (channel, vec![first]);
        while let Some(Some((channel, outcome))) = pending.next().now_or_never() {
            if channel != current {
                self.send(&current, std::mem::take(&mut outcomes)).await?;
                current = channel;
            }
            outcomes.push(outcome);
        }
        self.send(&current, outcomes).await
    }

    /// A caller that is gone has told its clients already.
    async fn send(&self, channel: &str, outcomes: Vec<Outcome>) -> Result<(), ()> {
        let response = StepResponse { channel: channel.to_owned(), outcomes, verdict: None };
        self.responses.send(Ok(response)).await.map_err(|_gone| ())
    }
}
