//! The service `consort.endorsing.Endorsing`: proposals on lasting streams.

use std::collections::HashMap;
use std::future::{Future, ready};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use consort_protos::consort::endorsing::answered::Outcome;
use consort_protos::consort::endorsing::endorsing_server::Endorsing;
use consort_protos::consort::endorsing::{Answered, Asked};
use consort_protos::fabric::protos::endorser_server::Endorser as EndorserRpc;
use futures::future::{AbortHandle, Abortable};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status, Streaming};

use super::UNANSWERED_MAX;

/// Streams that are served at the same time. With messages of at most 64 KiB, all that wait in them hold at most half a
/// gigabyte, as much as a listener gives to large messages; who finds no place calls `protos.Endorser`.
const STREAMS_MAX: usize = 256;

/// Serves the proposals of streams as an endorser serves calls.
#[derive(Debug)]
pub struct EndorsingService<E> {
    endorser: Arc<E>,
    places: Arc<Semaphore>,
}

impl<E> EndorsingService<E> {
    /// Answers as this endorser does.
    #[must_use]
    pub fn new(endorser: E) -> Self {
        Self { endorser: Arc::new(endorser), places: Arc::new(Semaphore::new(STREAMS_MAX)) }
    }
}

impl<E: EndorserRpc> EndorsingService<E> {
    /// Answers one stream of proposals, as they are done.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED when too many streams are served.
    pub fn serve(
        &self,
        asked: impl Stream<Item = Result<Asked, Status>> + Send + 'static,
    ) -> Result<BoxStream<'static, Result<Answered, Status>>, Status> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place =
            place.map_err(|_| Status::resource_exhausted("this peer serves no more streams of proposals"))?;
        let served =
            Served { endorser: Arc::clone(&self.endorser), running: Mutex::default(), _place: place };
        let served = Arc::new(served);
        let answers = asked
            .map(move |asked| answer(Arc::clone(&served), asked))
            .buffer_unordered(UNANSWERED_MAX)
            .filter_map(ready);
        Ok(answers.boxed())
    }
}

#[tonic::async_trait]
impl<E: EndorserRpc> Endorsing for EndorsingService<E> {
    type ProcessStream = BoxStream<'static, Result<Answered, Status>>;

    async fn process(
        &self,
        request: Request<Streaming<Asked>>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        self.serve(request.into_inner()).map(Response::new)
    }
}

/// One stream.
struct Served<E> {
    endorser: Arc<E>,
    /// Proposals that are worked on.
    running: Mutex<HashMap<u64, AbortHandle>>,
    _place: OwnedSemaphorePermit,
}

impl<E> Served<E> {
    fn running(&self) -> MutexGuard<'_, HashMap<u64, AbortHandle>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer to a message; none when nobody waits for it. What a message begins or ends is done at once, in the order of the messages.
fn answer<E: EndorserRpc>(
    served: Arc<Served<E>>,
    asked: Result<Asked, Status>,
) -> impl Future<Output = Option<Result<Answered, Status>>> {
    let asked = asked.map(|Asked { number, proposal }| {
        let Some(proposal) = proposal else {
            if let Some(running) = served.running().remove(&number) {
                running.abort();
            }
            return None;
        };
        let (handle, registration) = AbortHandle::new_pair();
        served.running().insert(number, handle);
        let endorser = Arc::clone(&served.endorser);
        let work = async move { endorser.process_proposal(Request::new(proposal)).await };
        Some((number, Abortable::new(work, registration)))
    });
    async move {
        let (number, work) = match asked {
            Ok(begun) => begun?,
            Err(status) => return Some(Err(status)),
        };
        let outcome = match work.await.ok()? {
            Ok(response) => Outcome::Response(response.into_inner()),
            Err(status) => Outcome::Refusal(status.message().to_owned()),
        };
        served.running().remove(&number);
        Some(Ok(Answered { number, outcome: Some(outcome) }))
    }
}
