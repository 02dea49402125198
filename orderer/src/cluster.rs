//! `consort.orderer.Cluster`: what other consenters send to this one.

use std::sync::Arc;

use bytes::Bytes;
use consort_crypto::certificate::Certificate;
use consort_node::{Clock, Tasks, server::PeerCertificate};
use consort_protos::{
    consort::orderer::{
        Hello, StepRequest, StepResponse, Submission, cluster_server::Cluster, step_request::Content,
    },
    fabric::common::Status,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status as GrpcStatus, Streaming};

use crate::{
    broadcast::{outcome, submit},
    channel::Channel,
    consensus::{Origin, StepError},
    registrar::Registrar,
    submission::Refusal,
};

/// Answers that wait for a slow consenter.
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
        if parsed.not_after() <= self.clock.now() {
            return Err(GrpcStatus::unauthenticated("the TLS certificate has expired"));
        }
        let (responses, stream) = mpsc::channel(RESPONSES_QUEUE);
        let session = Session {
            registrar: Arc::clone(&self.registrar),
            tasks: self.tasks.clone(),
            certificate,
            responses,
        };
        let (cancelled, registrar) = (self.tasks.cancelled(), Arc::clone(&self.registrar));
        // A leader that stops hears from the others until it has handed over.
        let ended = async move {
            cancelled.cancelled().await;
            registrar.ended().await;
        };
        self.tasks.spawn("consenter stream", false, async move {
            tokio::select! {
                () = ended => {}
                () = session.run(request.into_inner()) => {}
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

fn refused(error: &StepError) -> GrpcStatus {
    match error {
        StepError::NotAuthorized => GrpcStatus::permission_denied(error.to_string()),
        StepError::Malformed => GrpcStatus::invalid_argument(error.to_string()),
    }
}

struct Session {
    registrar: Arc<Registrar>,
    tasks: Tasks,
    certificate: Bytes,
    responses: mpsc::Sender<Result<StepResponse, GrpcStatus>>,
}

impl Session {
    async fn run(self, mut requests: Streaming<StepRequest>) {
        while let Ok(Some(request)) = requests.message().await {
            if let Err(status) = self.take(request).await {
                // The stream ends in any case; whether the caller still hears why does not matter.
                let _ = self.responses.send(Err(status)).await;
                return;
            }
        }
    }

    async fn take(&self, request: StepRequest) -> Result<(), GrpcStatus> {
        let channel = self
            .registrar
            .get(&request.channel)
            .ok_or_else(|| GrpcStatus::not_found(format!("channel {} doesn't exist", request.channel)))?;
        match request.content {
            Some(Content::RaftMessage(message)) => channel
                .chain()
                .step(&self.certificate, request.standing.unwrap_or_default(), message)
                .map_err(|error| refused(&error)),
            Some(Content::Hello(hello)) => self.hello(request.channel, &channel, hello),
            Some(Content::Submission(submission)) if channel.chain().is_consenter(&self.certificate) => {
                self.forwarded(request.channel, submission).await;
                Ok(())
            }
            Some(Content::Submission(_)) => {
                Err(GrpcStatus::permission_denied(StepError::NotAuthorized.to_string()))
            }
            None => Err(GrpcStatus::invalid_argument("the request is empty")),
        }
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

    /// Takes a message in the order of the stream, and answers when its outcome is known.
    async fn forwarded(&self, channel: String, submission: Submission) {
        let id = submission.id;
        let taken = match submission.envelope {
            Some(envelope) => {
                let origin = Origin::Consenter { judged_at: submission.config_sequence };
                submit(&self.registrar, envelope, origin).await
            }
            None => Err(Refusal::bad_request("Message was empty")),
        };
        let responses = self.responses.clone();
        self.tasks.spawn("forwarded message", false, async move {
            let result = match taken {
                Ok(receipt) => outcome(receipt).await,
                Err(refusal) => Err(refusal),
            };
            let (status, info) = match result {
                Ok(()) => (Status::Success, String::new()),
                Err(refusal) => (refusal.status, refusal.info),
            };
            // A caller that is gone has told its client already.
            let _ = responses
                .send(Ok(StepResponse { channel, status: status as i32, info, id, verdict: None }))
                .await;
        });
    }
}
