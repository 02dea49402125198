//! Blocks for those who may read them: one service for orderer and peer.
//!
//! A client sends signed envelopes, each asking for a range of blocks; every range is answered by its blocks and one status, and a
//! status other than SUCCESS ends the stream. Source of the rules: Fabric `orderer/ab.proto`, `peer/events.proto`, `common/deliver`.

mod queue;
mod request;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_msp::policy::SignedData;
use consort_protos::{
    entry::EntryNumber,
    fabric::common::{Block, Envelope, Status},
    ids::BlockNumber,
};
use futures::{Stream, StreamExt};
use time::OffsetDateTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::{debug, info, warn};

pub use self::queue::Responses;
use self::queue::{Answers, Gone, LastWord};
use self::request::Request;
use crate::{Clock, Tasks, server::PeerCertificate};

/// A request whose timestamp differs from the server's clock by more than this is refused (Fabric's default).
const TIME_WINDOW: Duration = Duration::from_secs(15 * 60);

/// Streams that one server feeds at a time (Fabric's default limit of its deliver service). Only who may read takes a place.
const STREAMS_MAX: usize = 2_500;

/// A client that takes no block for this long is sent away: it holds a place, and blocks in memory. Applications that work on one block for
/// longer than this ask again from where they are.
const SLOW_READER_WAIT: Duration = Duration::from_secs(120);

/// Only transactions name their creator by its entry: orderers, who deliver too, keep no table of identities, and whoever reads is judged
/// alike at every node.
const NAMED_BY_ENTRY: &str = "a reader named itself by its entry in the table of identities and is refused; remedy: requests for blocks carry \
                              the certificate";

/// A client that opens a stream and sends no request for this long is sent away: nothing is known of it, and it holds a task.
const FIRST_REQUEST_WAIT: Duration = Duration::from_secs(10);

/// Which blocks a request asks for at a height of `height` blocks, first and last. Whether its sender may read them is another
/// question.
///
/// # Errors
/// The status that a server answers with: the request is malformed, its time is not `now`, or no such blocks can be meant.
pub fn asked_blocks(envelope: Envelope, now: OffsetDateTime, height: u64) -> Result<(u64, u64), Status> {
    Request::open(envelope, now, TIME_WINDOW, None)?.seek()?.bounds(height)
}

/// Whether a source can go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// New blocks come.
    Serving,
    /// No new blocks for now, and why (no leader). Clients that asked for best effort wait.
    Unavailable(String),
    /// The channel is not served any more.
    Closed,
}

/// A channel's blocks.
///
/// Duties of an implementation: all functions answer without waiting; a block below the height exists for ever.
pub trait BlockSource: Send + Sync + 'static {
    /// The number of blocks, now and later.
    fn heights(&self) -> watch::Receiver<u64>;

    /// A block; `None` at and beyond the height.
    ///
    /// # Errors
    /// When the books cannot be read.
    fn block(&self, number: BlockNumber) -> Result<Option<Block>, String>;

    /// The configuration in force.
    fn bundle(&self) -> Arc<ChannelBundle>;

    /// Whether blocks that exist are delivered also while no new ones come. An orderer says no: who asks shall go to another
    /// one; a peer's books stay readable.
    fn serves_past(&self) -> bool {
        false
    }

    /// Whether new blocks come, now and later.
    fn condition(&self) -> watch::Receiver<Condition> {
        watch::Sender::new(Condition::Serving).subscribe()
    }
}

/// The channels that a server delivers from.
pub trait Channels: Send + Sync + 'static {
    /// What a channel is.
    type Source: BlockSource;

    /// The channel of that name.
    fn source(&self, channel: &str) -> Option<Arc<Self::Source>>;
}

/// What a client gets of a block: all of it, a summary, its private data.
///
/// Duties of an implementation: `block` shows the reader nothing that the policy does not cover.
pub trait Form<S>: Send + Sync + 'static {
    /// The message of the stream.
    type Response: Send + 'static;

    /// The policy that a reader must satisfy.
    fn policy<'a>(&self, bundle: &'a ChannelBundle) -> &'a str;

    /// The message that ends a range.
    fn status(&self, status: Status) -> Self::Response;

    /// The message for one block; `reader` is the serialized identity of who asks.
    ///
    /// # Errors
    /// When the books cannot be read; the range then ends with INTERNAL_SERVER_ERROR.
    fn block(&self, source: &S, block: Block, reader: &Bytes) -> Result<Self::Response, String>;
}

/// The deliver service of one server.
pub struct Deliver<C> {
    channels: Arc<C>,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    tls_binding: bool,
    slow_reader_wait: Duration,
    places: Arc<Semaphore>,
}

impl<C> Clone for Deliver<C> {
    fn clone(&self) -> Self {
        Self {
            channels: Arc::clone(&self.channels),
            clock: Arc::clone(&self.clock),
            tasks: self.tasks.clone(),
            tls_binding: self.tls_binding,
            slow_reader_wait: self.slow_reader_wait,
            places: Arc::clone(&self.places),
        }
    }
}

impl<C> std::fmt::Debug for Deliver<C> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Deliver").field("tls_binding", &self.tls_binding).finish_non_exhaustive()
    }
}

impl<C: Channels> Deliver<C> {
    /// `tls_binding`: the server requires client certificates, so that each request must name the one it came with.
    pub fn new(channels: Arc<C>, clock: Arc<dyn Clock>, tasks: Tasks, tls_binding: bool) -> Self {
        let places = Arc::new(Semaphore::new(STREAMS_MAX));
        Self { channels, clock, tasks, tls_binding, slow_reader_wait: SLOW_READER_WAIT, places }
    }

    /// Another bound for how long a client may take no block.
    #[must_use]
    pub fn slow_reader_wait(mut self, wait: Duration) -> Self {
        self.slow_reader_wait = wait;
        self
    }

    /// Serves one stream, in a task of its own.
    ///
    /// # Errors
    /// UNAVAILABLE once the tasks are cancelled. Too many streams are found out later: then the stream ends with RESOURCE_EXHAUSTED.
    pub fn serve<F, R>(
        &self,
        form: F,
        requests: R,
        peer: Option<PeerCertificate>,
    ) -> Result<Responses<F::Response>, tonic::Status>
    where
        F: Form<C::Source>,
        R: Stream<Item = Result<Envelope, tonic::Status>> + Unpin + Send + 'static,
    {
        let cancelled = self.tasks.cancelled();
        if cancelled.is_cancelled() {
            return Err(tonic::Status::unavailable("the server stops"));
        }
        let (server, stream) = Session::new(self.clone(), form, peer);
        self.tasks.spawn("deliver stream", false, async move {
            tokio::select! {
                () = cancelled.cancelled() => {}
                () = server.run(requests) => {}
            }
        });
        Ok(stream)
    }
}

/// One client's stream.
struct Session<C: Channels, F: Form<C::Source>> {
    deliver: Deliver<C>,
    form: F,
    peer: Option<PeerCertificate>,
    responses: Answers<F::Response>,
    last_word: LastWord<F::Response>,
    /// One of the places, from the first range on that the client may read.
    place: OnceLock<OwnedSemaphorePermit>,
}

/// Why nothing more can be sent.
enum Unsent {
    /// The client is gone; nobody is left to be told.
    Gone,
    /// The client reads too slowly.
    Slow,
}

impl<C: Channels, F: Form<C::Source>> Session<C, F> {
    fn new(deliver: Deliver<C>, form: F, peer: Option<PeerCertificate>) -> (Self, Responses<F::Response>) {
        let (responses, last_word, stream) = queue::queue();
        let session = Self { deliver, form, peer, responses, last_word, place: OnceLock::new() };
        (session, stream)
    }

    async fn run<R>(self, mut requests: R)
    where
        R: Stream<Item = Result<Envelope, tonic::Status>> + Unpin + Send,
    {
        let Ok(mut next) = tokio::time::timeout(FIRST_REQUEST_WAIT, requests.next()).await else {
            self.last_word.send(tonic::Status::deadline_exceeded("no request came"));
            return;
        };
        while let Some(Ok(envelope)) = next {
            let ended = tokio::select! {
                ended = self.range(envelope) => ended,
                () = self.responses.closed() => return,
            };
            let status = match ended {
                Ok(()) => Status::Success,
                Err(Ended::With(status)) => status,
                Err(Ended::Full) => {
                    let status = tonic::Status::resource_exhausted("too many deliver streams");
                    self.last_word.send(status);
                    return;
                }
                Err(Ended::Unsent(unsent)) => return self.give_up(&unsent),
            };
            match self.send(self.form.status(status), 0).await {
                Err(unsent) => return self.give_up(&unsent),
                Ok(()) if status != Status::Success => return,
                Ok(()) => {}
            }
            next = requests.next().await;
        }
    }

    /// Hands over a response that holds about so many bytes.
    async fn send(&self, response: F::Response, bytes: usize) -> Result<(), Unsent> {
        let sending = self.responses.send(response, bytes);
        match tokio::time::timeout(self.deliver.slow_reader_wait, sending).await {
            Ok(sent) => sent.map_err(|Gone| Unsent::Gone),
            Err(_elapsed) => Err(Unsent::Slow),
        }
    }

    fn give_up(self, unsent: &Unsent) {
        if matches!(unsent, Unsent::Slow) {
            let wait = self.deliver.slow_reader_wait.as_secs();
            info!(wait, "a reader that took no block for so many seconds is sent away");
            let text =
                format!("no block was taken for {wait} s: read faster, and ask again from the next block on");
            self.last_word.send(tonic::Status::resource_exhausted(text));
        }
    }

    /// Answers one request with its blocks.
    async fn range(&self, envelope: Envelope) -> Result<(), Ended> {
        let binding = if self.deliver.tls_binding { Some(self.peer.as_ref()) } else { None };
        let request = Request::open(envelope, self.deliver.clock.now(), TIME_WINDOW, binding)?;
        let Some(source) = self.deliver.channels.source(&request.channel) else {
            debug!(channel = request.channel, "blocks of an unknown channel asked for");
            return Err(Ended::With(Status::NotFound));
        };
        let seek = request.seek()?;
        let mut condition = source.condition();
        if !source.serves_past() {
            seek.check_condition(&condition.borrow())?;
        }
        let mut access = Access { request: &request.signed, allowed_at: None };
        self.check_access(&source, &mut access)?;
        self.take_place()?;
        let mut heights = source.heights();
        let (mut number, stop) = seek.bounds(*heights.borrow())?;
        loop {
            if seek.fail_if_not_ready && number >= *heights.borrow() {
                return Err(Ended::With(Status::NotFound));
            }
            wait_beyond(number, &mut heights, &mut condition, &seek).await?;
            let block = seek.shorten(read(&*source, number)?);
            self.check_access(&source, &mut access)?;
            let bytes = consort_protos::block::envelopes(&block).iter().map(Bytes::len).sum();
            let response = self
                .form
                .block(&source, block, &request.signed.identity)
                .map_err(|reason| internal(&reason))?;
            tokio::select! {
                sent = self.send(response, bytes) => sent?,
                // Nobody who reads slowly keeps a channel from being left.
                () = closed(&mut condition) => return Err(Ended::With(Status::ServiceUnavailable)),
            }
            if number == stop {
                return Ok(());
            }
            number += 1;
        }
    }

    fn take_place(&self) -> Result<(), Ended> {
        if self.place.get().is_none() {
            let place = Arc::clone(&self.deliver.places).try_acquire_owned();
            let _first = self.place.set(place.map_err(|_full| Ended::Full)?);
        }
        Ok(())
    }

    /// The reader's certificate has not expired and satisfies the policy of the configuration in force.
    fn check_access(&self, source: &Arc<C::Source>, access: &mut Access<'_>) -> Result<(), Ended> {
        let bundle = source.bundle();
        let forbidden = |reason: String| {
            debug!(channel = %bundle.channel(), reason, "reader refused");
            Ended::With(Status::Forbidden)
        };
        if let Some(entry) = EntryNumber::of_serialized(&access.request.identity) {
            // The protocol has no text for it, and the client cannot guess.
            info!(channel = %bundle.channel(), %entry, "{NAMED_BY_ENTRY}");
            return Err(Ended::With(Status::Forbidden));
        }
        let identity = bundle
            .msps()
            .deserialize(&access.request.identity)
            .map_err(|error| forbidden(error.to_string()))?;
        if identity.expires_at() <= self.deliver.clock.now() {
            return Err(forbidden("client identity expired".to_owned()));
        }
        if access.allowed_at == Some(bundle.sequence()) {
            return Ok(());
        }
        let path = self.form.policy(&bundle);
        let policy = bundle.policies().policy(path).ok_or_else(|| forbidden(format!("no policy {path}")))?;
        policy
            .evaluate(std::slice::from_ref(access.request))
            .map_err(|error| forbidden(format!("{error:#}")))?;
        access.allowed_at = Some(bundle.sequence());
        Ok(())
    }
}

/// Who asks, and at which configuration sequence the policy last allowed it.
struct Access<'a> {
    request: &'a SignedData,
    allowed_at: Option<u64>,
}

/// Why a range has ended early.
enum Ended {
    With(Status),
    /// No place is left.
    Full,
    Unsent(Unsent),
}

impl From<Unsent> for Ended {
    fn from(unsent: Unsent) -> Self {
        Self::Unsent(unsent)
    }
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        Self::With(status)
    }
}

fn internal(reason: &str) -> Ended {
    warn!(reason, "a block could not be delivered");
    Ended::With(Status::InternalServerError)
}

fn read<S: BlockSource>(source: &S, number: u64) -> Result<Block, Ended> {
    source
        .block(BlockNumber::new(number))
        .map_err(|reason| internal(&reason))?
        .ok_or_else(|| internal(&format!("block {number} is missing below the height")))
}

/// Waits until block `number` exists.
async fn wait_beyond(
    number: u64,
    heights: &mut watch::Receiver<u64>,
    condition: &mut watch::Receiver<Condition>,
    seek: &request::Seek,
) -> Result<(), Ended> {
    loop {
        if *heights.borrow_and_update() > number {
            return Ok(());
        }
        seek.check_condition(&condition.borrow_and_update())?;
        tokio::select! {
            changed = heights.changed() => changed.map_err(|_closed| Status::ServiceUnavailable)?,
            () = changed(condition) => {}
        }
    }
}

/// A condition whose owner is gone stays as it is.
async fn changed(condition: &mut watch::Receiver<Condition>) {
    if condition.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Returns when the source is served no more.
async fn closed(condition: &mut watch::Receiver<Condition>) {
    if condition.wait_for(|now| *now == Condition::Closed).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::queue::RESPONSES_IN_FLIGHT;
    use super::*;
    use crate::SystemClock;

    enum Nothing {}

    impl BlockSource for Nothing {
        fn heights(&self) -> watch::Receiver<u64> {
            match *self {}
        }

        fn block(&self, _number: BlockNumber) -> Result<Option<Block>, String> {
            match *self {}
        }

        fn bundle(&self) -> Arc<ChannelBundle> {
            match *self {}
        }
    }

    struct NoChannels;

    impl Channels for NoChannels {
        type Source = Nothing;

        fn source(&self, _channel: &str) -> Option<Arc<Nothing>> {
            None
        }
    }

    struct Statuses;

    impl Form<Nothing> for Statuses {
        type Response = Status;

        fn policy<'a>(&self, _bundle: &'a ChannelBundle) -> &'a str {
            "/Channel/Readers"
        }

        fn status(&self, status: Status) -> Status {
            status
        }

        fn block(&self, source: &Nothing, _block: Block, _reader: &Bytes) -> Result<Status, String> {
            match *source {}
        }
    }

    #[tokio::test]
    async fn streams_without_a_request_take_no_place_from_others() {
        let tasks = Tasks::new();
        let deliver = Deliver::new(Arc::new(NoChannels), Arc::new(SystemClock), tasks.clone(), false);
        let silent: Vec<_> = (0..STREAMS_MAX)
            .map(|_| deliver.serve(Statuses, futures::stream::pending(), None).unwrap())
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(deliver.places.available_permits(), STREAMS_MAX);
        let request = futures::stream::iter([Ok(Envelope::default())]);
        let mut answers = deliver.serve(Statuses, request, None).unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap(), Status::BadRequest);
        drop(silent);
        tasks.shutdown(Duration::from_secs(10)).await.unwrap();
        assert!(deliver.serve(Statuses, futures::stream::pending(), None).is_err());
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_sent_away_with_the_reason() {
        let tasks = Tasks::new();
        let deliver = Deliver::new(Arc::new(NoChannels), Arc::new(SystemClock), tasks, false)
            .slow_reader_wait(Duration::from_millis(5));
        let (session, mut answers) = Session::new(deliver, Statuses, None);
        for _ in 0..RESPONSES_IN_FLIGHT {
            assert!(session.send(Status::Success, 0).await.is_ok());
        }
        let Err(unsent) = session.send(Status::Success, 0).await else { panic!("the queue is bounded") };
        session.give_up(&unsent);
        for _ in 0..RESPONSES_IN_FLIGHT {
            assert_eq!(answers.next().await.unwrap().unwrap(), Status::Success);
        }
        let reason = answers.next().await.unwrap().unwrap_err();
        assert_eq!(reason.code(), tonic::Code::ResourceExhausted);
        assert!(reason.message().contains("no block was taken"), "{reason}");
        assert!(answers.next().await.is_none());
    }
}
