//! Streams on which transactions go to orderers: opened once, shared by all who submit.
//!
//! A stream of its own for each transaction would cost both ends more than the transaction itself. Answers come in the order of the messages
//! (Fabric `orderer/common/broadcast`), so the waiting callers of a stream are a queue. An orderer ends a stream with its first refusal;
//! who waits behind that one, or on a stream that broke, is told so and sends again: a transaction id counts once, so a
//! second copy in the order does no harm.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use consort_node::Tasks;
use consort_protos::fabric::common::{Envelope, Status};
use consort_protos::fabric::orderer::BroadcastResponse;
use consort_protos::fabric::orderer::atomic_broadcast_client::AtomicBroadcastClient;
use consort_protos::ids::ChannelId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::OrdererEndpoint;
use crate::connections::call_text;

/// Messages of one stream that wait for their answers: as many as Consort's orderers take before they have answered the first.
const UNANSWERED_MAX: usize = 64;
/// Streams of one channel to one orderer. Together they hold a thousand transactions, twice what the gateway works on at a time;
/// what is beyond goes on a stream of its own.
const STREAMS_MAX: usize = 16;
/// A stream on which nothing happens is closed after this time.
const IDLE: Duration = Duration::from_secs(60);
/// An answer that somebody has waited for as long, in vain, makes a stream doubtful: the next messages go on another one.
const DOUBTFUL_AFTER: Duration = Duration::from_secs(2);

/// Why a message got no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// There is no stream with room for it.
    Full,
    /// The stream could not be opened: the orderer is not there.
    Unreachable(String),
    /// The stream ended before its turn came; a new one may work.
    Ended,
}

type Answer = Result<BroadcastResponse, Unanswered>;
type Client = AtomicBroadcastClient<Channel>;
type ByAddress = BTreeMap<String, Vec<Arc<Lasting>>>;
/// A message's stream, and where its answer comes.
type Placed = (Arc<Lasting>, oneshot::Receiver<Answer>);

/// The open streams, by channel and address: so a channel that stands still holds up no other.
pub(super) struct Broadcasts {
    tasks: Tasks,
    open_timeout: Duration,
    streams: Mutex<BTreeMap<ChannelId, ByAddress>>,
}

impl Broadcasts {
    /// No streams yet. Opening one may take the given time.
    pub(super) fn new(tasks: Tasks, open_timeout: Duration) -> Self {
        Self { tasks, open_timeout, streams: Mutex::default() }
    }

    /// Sends the envelope on a stream that is open or is opened now with the client that `connect` makes, and waits for its answer.
    /// `shown` tells the certificate that new connections show: what was opened with another one is used no more.
    ///
    /// # Errors
    /// The inner error says why no answer came; the outer one is that of `connect`.
    pub(super) async fn send(
        &self,
        (channel, orderer, shown): (&ChannelId, &OrdererEndpoint, &Bytes),
        envelope: &Envelope,
        connect: impl FnOnce() -> Result<Client, String>,
    ) -> Result<Answer, String> {
        let Some((stream, answer)) = self.place(channel, orderer, shown, envelope, connect)? else {
            return Ok(Err(Unanswered::Full));
        };
        let mut patience = Patience { stream: &stream, since: Instant::now(), answered: false };
        let answer = answer.await;
        patience.answered = true;
        Ok(answer.unwrap_or(Err(Unanswered::Ended)))
    }

    /// Puts the envelope on the first stream with room.
    fn place(
        &self,
        channel: &ChannelId,
        orderer: &OrdererEndpoint,
        shown: &Bytes,
        envelope: &Envelope,
        connect: impl FnOnce() -> Result<Client, String>,
    ) -> Result<Option<Placed>, String> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if !streams.get(channel).is_some_and(|of_channel| of_channel.contains_key(&orderer.address)) {
            streams.entry(channel.clone()).or_default().insert(orderer.address.clone(), Vec::new());
        }
        let places = streams.get_mut(channel).and_then(|of_channel| of_channel.get_mut(&orderer.address));
        let open = places.expect("invariant: it was inserted if it was not there");
        open.retain(|stream| stream.is_open() && stream.leads_to(orderer, shown));
        for stream in open.iter() {
            if let Some(answer) = stream.take(envelope) {
                return Ok(Some((Arc::clone(stream), answer)));
            }
        }
        if open.len() >= STREAMS_MAX {
            return Ok(None);
        }
        let stream = self.open(orderer, shown, connect()?);
        let placed = stream.take(envelope).map(|answer| (Arc::clone(&stream), answer));
        open.push(stream);
        Ok(placed)
    }

    fn open(&self, orderer: &OrdererEndpoint, shown: &Bytes, client: Client) -> Arc<Lasting> {
        let (sender, messages) = mpsc::channel(UNANSWERED_MAX);
        let stream = Arc::new(Lasting {
            tls_roots: orderer.tls_roots.clone(),
            shown: shown.clone(),
            state: Mutex::new(State { sender: Some(sender), waiting: VecDeque::new() }),
        });
        let (carried, limit) = (Arc::clone(&stream), self.open_timeout);
        let cancelled = self.tasks.cancelled();
        self.tasks.spawn("broadcast stream", false, async move {
            let end = tokio::select! {
                end = carried.carry(client, messages, limit) => end,
                () = cancelled.cancelled() => Unanswered::Unreachable("the peer is stopping".to_owned()),
            };
            carried.end(&end);
        });
        stream
    }
}

/// One stream.
struct Lasting {
    tls_roots: Vec<Bytes>,
    shown: Bytes,
    state: Mutex<State>,
}

struct State {
    /// Where messages go; `None` when the stream takes no more.
    sender: Option<mpsc::Sender<Envelope>>,
    /// Who waits for answers, in the order of the messages.
    waiting: VecDeque<oneshot::Sender<Answer>>,
}

impl Lasting {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_open(&self) -> bool {
        self.state().sender.is_some()
    }

    fn leads_to(&self, orderer: &OrdererEndpoint, shown: &Bytes) -> bool {
        self.tls_roots == orderer.tls_roots && self.shown == shown
    }

    /// Takes a message, if there is room.
    fn take(&self, envelope: &Envelope) -> Option<oneshot::Receiver<Answer>> {
        let mut state = self.state();
        if state.waiting.len() >= UNANSWERED_MAX {
            return None;
        }
        // Whatever is in the queue is waited for as well, so there is room in it unless the stream has ended.
        if state.sender.as_ref()?.try_send(envelope.clone()).is_err() {
            state.sender = None;
            return None;
        }
        let (answer, receiver) = oneshot::channel();
        state.waiting.push_back(answer);
        Some(receiver)
    }

    /// Opens the stream and hands out its answers. Returns what those are told who still wait.
    async fn carry(
        &self,
        mut client: Client,
        messages: mpsc::Receiver<Envelope>,
        open_timeout: Duration,
    ) -> Unanswered {
        let opened =
            tokio::time::timeout(open_timeout, client.broadcast(ReceiverStream::new(messages))).await;
        let mut answers = match opened {
            Ok(Ok(answers)) => answers.into_inner(),
            Ok(Err(status)) => return Unanswered::Unreachable(call_text(&status)),
            Err(_elapsed) => {
                return Unanswered::Unreachable(format!(
                    "no connection within {} ms",
                    open_timeout.as_millis()
                ));
            }
        };
        loop {
            match tokio::time::timeout(IDLE, answers.message()).await {
                Ok(Ok(Some(answer))) => {
                    if !self.hand_out(answer) {
                        return Unanswered::Ended;
                    }
                }
                Ok(Ok(None) | Err(_)) => return Unanswered::Ended,
                Err(_elapsed) => {
                    if self.close_if_idle() {
                        return Unanswered::Ended;
                    }
                }
            }
        }
    }

    /// Gives an answer to whom it is for. Returns whether others may follow: none does after a refusal.
    fn hand_out(&self, answer: BroadcastResponse) -> bool {
        let mut state = self.state();
        let taken = answer.status == Status::Success as i32;
        if !taken {
            state.sender = None;
        }
        let Some(waiting) = state.waiting.pop_front() else {
            state.sender = None;
            return false;
        };
        // Whoever gave up waiting does not hear it.
        let _gone = waiting.send(Ok(answer));
        taken
    }

    /// Closes a stream that nobody waits on.
    fn close_if_idle(&self) -> bool {
        let mut state = self.state();
        let idle = state.waiting.iter().all(oneshot::Sender::is_closed);
        if idle {
            state.sender = None;
        }
        idle
    }

    /// Takes no more messages; those that were sent may still be answered.
    fn close(&self) {
        self.state().sender = None;
    }

    fn end(&self, reason: &Unanswered) {
        let mut state = self.state();
        state.sender = None;
        for waiting in state.waiting.drain(..) {
            let _gone = waiting.send(Err(reason.clone()));
        }
    }
}

/// Somebody who waits for an answer; gone without one, it may leave a doubtful stream behind.
struct Patience<'a> {
    stream: &'a Lasting,
    since: Instant,
    answered: bool,
}

impl Drop for Patience<'_> {
    fn drop(&mut self) {
        if !self.answered && self.since.elapsed() >= DOUBTFUL_AFTER {
            self.stream.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> (Lasting, mpsc::Receiver<Envelope>) {
        let (sender, messages) = mpsc::channel(UNANSWERED_MAX);
        let state = Mutex::new(State { sender: Some(sender), waiting: VecDeque::new() });
        (Lasting { tls_roots: Vec::new(), shown: Bytes::new(), state }, messages)
    }

    fn answer(status: Status) -> BroadcastResponse {
        BroadcastResponse { status: status as i32, info: String::new() }
    }

    #[test]
    fn a_stream_takes_as_many_as_may_wait_and_another_one_after_an_answer() {
        let (stream, _messages) = stream();
        let waiting: Vec<_> = (0..UNANSWERED_MAX).map_while(|_| stream.take(&Envelope::default())).collect();
        assert_eq!(waiting.len(), UNANSWERED_MAX);
        assert!(stream.take(&Envelope::default()).is_none() && stream.is_open());
    }

    #[test]
    fn a_refusal_ends_a_stream() {
        let (stream, _messages) = stream();
        let (mut first, mut second) =
            (stream.take(&Envelope::default()).unwrap(), stream.take(&Envelope::default()).unwrap());
        assert!(!stream.hand_out(answer(Status::BadRequest)));
        stream.end(&Unanswered::Ended);
        assert_eq!(first.try_recv(), Ok(Ok(answer(Status::BadRequest))));
        assert_eq!(second.try_recv(), Ok(Err(Unanswered::Ended)));
        assert!(stream.take(&Envelope::default()).is_none());
    }

    #[test]
    fn a_stream_whose_answers_fail_to_come_takes_no_more_and_a_caller_who_leaves_early_says_nothing() {
        let (stream, _messages) = stream();
        let long_ago = Instant::now().checked_sub(DOUBTFUL_AFTER).expect("the clock began earlier");
        drop(Patience { stream: &stream, since: Instant::now(), answered: false });
        drop(Patience { stream: &stream, since: long_ago, answered: true });
        assert!(stream.is_open());
        drop(Patience { stream: &stream, since: long_ago, answered: false });
        assert!(!stream.is_open());
    }

    #[test]
    fn a_stream_is_idle_when_nobody_waits_any_more() {
        let (stream, _messages) = stream();
        let waiting = stream.take(&Envelope::default()).unwrap();
        assert!(!stream.close_if_idle() && stream.is_open());
        drop(waiting);
        assert!(stream.close_if_idle() && !stream.is_open());
    }
}
