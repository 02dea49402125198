//! Streams on which proposals go to other peers: opened once, shared by all calls of the gateway.
//!
//! A call of its own for each proposal costs both ends about as much as executing it. Answers carry the number of their proposal and
//! come as they are ready, so a slow execution holds nobody up. A proposal changes nothing at its endorser, so one whose
//! stream broke is simply asked again by a call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use consort_node::Tasks;
use consort_node::server::MESSAGE_BYTES_MAX;
use consort_protos::consort::endorsing::answered::Outcome;
use consort_protos::consort::endorsing::endorsing_client::EndorsingClient;
use consort_protos::consort::endorsing::{Answered, Asked};
use consort_protos::fabric::protos::SignedProposal;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

use super::{ASKED_BYTES_MAX, UNANSWERED_MAX};
use crate::connections::call_text;

/// Streams to one peer; beyond them proposals go as calls.
const STREAMS_MAX: usize = 8;
/// Another stream is opened, as long as there may be more, when each has so many proposals: one stream is served by one core.
const BUSY: usize = 16;
/// What a message holds besides proposal and signature: a number, and tags and lengths.
const FRAME_BYTES_MAX: usize = 64;
/// A stream on which nothing happens is closed after this time.
const IDLE: Duration = Duration::from_secs(60);
/// When a caller has waited in vain for so long, and nobody got an answer meanwhile, the stream takes no more.
const DOUBTFUL_AFTER: Duration = Duration::from_secs(2);
/// For so long a peer is not asked again for a stream after it said that it knows no streams or has no place for one.
const WITHOUT_STREAMS: Duration = Duration::from_secs(300);

/// Why a proposal got no answer on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// There is no stream for it; a call may reach the peer.
    NoStream,
    /// The peer is not there.
    Unreachable(String),
}

type Answer = Result<Outcome, Unanswered>;

/// Where streams lead, and as whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way<'w> {
    /// `host:port`.
    pub(super) endpoint: &'w str,
    /// TLS roots of whoever is there.
    pub(super) roots: &'w [Bytes],
    /// Hash of the own certificate that is shown there.
    pub(super) shown: &'w Bytes,
}

/// The streams of this peer, by endpoint. An endpoint has more than one set after a change of roots or of the own certificate.
pub(super) struct Streams {
    tasks: Tasks,
    sets: Mutex<HashMap<String, Vec<Set>>>,
}

/// The open streams of one way.
struct Set {
    roots: Vec<Bytes>,
    shown: Bytes,
    streams: Vec<Arc<Lasting>>,
    /// Until when the peer is not asked for streams.
    without: Arc<Mutex<Option<Instant>>>,
}

impl Set {
    fn of(way: Way<'_>) -> Self {
        Self {
            roots: way.roots.to_vec(),
            shown: way.shown.clone(),
            streams: Vec::new(),
            without: Arc::default(),
        }
    }

    fn is_for(&self, way: Way<'_>) -> bool {
        self.roots == way.roots && self.shown == way.shown
    }

    fn is_in_use(&self) -> bool {
        self.streams.iter().any(|stream| stream.is_open())
    }

    fn does_without(&self) -> bool {
        let until = *self.without.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// The first stream that is not busy, else the least busy one.
    fn choose(&self) -> Option<(&Arc<Lasting>, usize)> {
        let mut least: Option<(&Arc<Lasting>, usize)> = None;
        for stream in &self.streams {
            let load = stream.load();
            if load < BUSY {
                return Some((stream, load));
            }
            if least.is_none_or(|(_, so_far)| load < so_far) {
                least = Some((stream, load));
            }
        }
        least
    }
}

impl Streams {
    /// No streams yet.
    pub(super) fn new(tasks: Tasks) -> Self {
        Self { tasks, sets: Mutex::default() }
    }

    /// Sends a proposal on a stream that is open or is opened now over the connection that `connect` gives, and waits for its answer.
    /// When the caller stops waiting, the execution ends.
    ///
    /// # Errors
    /// The inner error says why no answer came; the outer one is that of `connect`.
    pub(super) async fn ask<E>(
        &self,
        way: Way<'_>,
        proposal: &SignedProposal,
        connect: impl FnOnce() -> Result<Channel, E>,
    ) -> Result<Answer, E> {
        let bytes = proposal.proposal_bytes.len() + proposal.signature.len() + FRAME_BYTES_MAX;
        if bytes > ASKED_BYTES_MAX {
            return Ok(Err(Unanswered::NoStream));
        }
        let Some(mut waiting) = self.place(way, proposal, connect)? else {
            return Ok(Err(Unanswered::NoStream));
        };
        let answer = (&mut waiting.answer).await;
        waiting.answered = true;
        Ok(answer.unwrap_or(Err(Unanswered::NoStream)))
    }

    fn place<E>(
        &self,
        way: Way<'_>,
        proposal: &SignedProposal,
        connect: impl FnOnce() -> Result<Channel, E>,
    ) -> Result<Option<Waiting>, E> {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if !sets.contains_key(way.endpoint) {
            sets.insert(way.endpoint.to_owned(), Vec::new());
        }
        let of_endpoint = sets.get_mut(way.endpoint).expect("invariant: it was inserted if it was not there");
        let known = of_endpoint.iter().position(|set| set.is_for(way));
        let index = known.unwrap_or_else(|| {
            of_endpoint.retain(Set::is_in_use);
            of_endpoint.push(Set::of(way));
            of_endpoint.len() - 1
        });
        let set = &mut of_endpoint[index];
        if set.does_without() {
            return Ok(None);
        }
        set.streams.retain(|stream| stream.is_open());
        if let Some((stream, load)) = set.choose()
            && (load < BUSY || set.streams.len() >= STREAMS_MAX)
        {
            return Ok(Lasting::take(stream, proposal));
        }
        let stream = self.begin(connect()?, Arc::clone(&set.without));
        let waiting = Lasting::take(&stream, proposal);
        set.streams.push(stream);
        Ok(waiting)
    }

    fn begin(&self, connection: Channel, without: Arc<Mutex<Option<Instant>>>) -> Arc<Lasting> {
        // A message for each proposal, and one for each that is given up.
        let (sender, messages) = mpsc::channel(2 * UNANSWERED_MAX);
        let state = State { sender: Some(sender), waiting: HashMap::new(), next: 0, heard: Instant::now() };
        let stream = Arc::new(Lasting { state: Mutex::new(state) });
        let carried = Arc::clone(&stream);
        let cancelled = self.tasks.cancelled();
        self.tasks.spawn("stream of proposals", false, async move {
            let end = tokio::select! {
                end = carried.carry(connection, messages) => end,
                () = cancelled.cancelled() => End::Stopping,
            };
            if let End::NotServed = end {
                let until = Instant::now() + WITHOUT_STREAMS;
                *without.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
            }
            carried.end(&end);
        });
        stream
    }
}

/// Why a stream ended.
enum End {
    /// The peer serves no streams, or no more.
    NotServed,
    /// There was none.
    Unreachable(String),
    /// It broke, or was idle.
    Over,
    /// This process ends.
    Stopping,
}

/// One stream.
struct Lasting {
    state: Mutex<State>,
}

struct State {
    /// Where messages go; `None` when the stream takes no more.
    sender: Option<mpsc::Sender<Asked>>,
    /// Who waits, by number.
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    /// Number of the next proposal.
    next: u64,
    /// When the last answer came.
    heard: Instant,
}

impl Lasting {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_open(&self) -> bool {
        self.state().sender.is_some()
    }

    fn load(&self) -> usize {
        self.state().waiting.len()
    }

    /// Takes a proposal, if there is room.
    fn take(stream: &Arc<Self>, proposal: &SignedProposal) -> Option<Waiting> {
        let mut state = stream.state();
        if state.waiting.len() >= UNANSWERED_MAX {
            return None;
        }
        let number = state.next;
        let asked = Asked { number, proposal: Some(proposal.clone()) };
        state.sender.as_ref()?.try_send(asked).ok()?;
        let (sender, answer) = oneshot::channel();
        state.next += 1;
        state.waiting.insert(number, sender);
        drop(state);
        Some(Waiting { stream: Arc::clone(stream), number, answer, since: Instant::now(), answered: false })
    }

    /// Opens the stream and hands out its answers.
    async fn carry(&self, connection: Channel, messages: mpsc::Receiver<Asked>) -> End {
        let mut client = EndorsingClient::new(connection).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let mut answers = match client.process(ReceiverStream::new(messages)).await {
            Ok(answers) => answers.into_inner(),
            Err(status) if matches!(status.code(), Code::Unimplemented | Code::ResourceExhausted) => {
                return End::NotServed;
            }
            Err(status) => return End::Unreachable(call_text(&status)),
        };
        loop {
            match tokio::time::timeout(IDLE, answers.message()).await {
                Ok(Ok(Some(answer))) => self.hand_out(answer),
                Ok(Ok(None) | Err(_)) => return End::Over,
                Err(_elapsed) if self.close_if_idle() => return End::Over,
                Err(_elapsed) => {}
            }
        }
    }

    fn hand_out(&self, answer: Answered) {
        let mut state = self.state();
        state.heard = Instant::now();
        let Some(waiting) = state.waiting.remove(&answer.number) else { return };
        // Whoever gave up waiting does not hear it.
        let _gone = waiting.send(answer.outcome.ok_or(Unanswered::NoStream));
    }

    /// Closes a stream that nobody waits on.
    fn close_if_idle(&self) -> bool {
        let mut state = self.state();
        let idle = state.waiting.is_empty();
        if idle {
            state.sender = None;
        }
        idle
    }

    fn end(&self, reason: &End) {
        let told = match reason {
            End::NotServed | End::Over => Unanswered::NoStream,
            End::Unreachable(text) => Unanswered::Unreachable(text.clone()),
            End::Stopping => Unanswered::Unreachable("the peer is stopping".to_owned()),
        };
        let mut state = self.state();
        state.sender = None;
        for (_, waiting) in state.waiting.drain() {
            let _gone = waiting.send(Err(told.clone()));
        }
    }

    /// Nobody waits for this number any more.
    fn give_up(&self, number: u64, since: Instant) {
        let mut state = self.state();
        if state.waiting.remove(&number).is_none() {
            return;
        }
        if let Some(sender) = &state.sender {
            // Without room for it the execution goes on to its end, and its answer is for nobody.
            let _full = sender.try_send(Asked { number, proposal: None });
        }
        if since.elapsed() >= DOUBTFUL_AFTER && state.heard <= since {
            state.sender = None;
        }
    }
}

/// Somebody who waits for an answer; gone without one, it tells the other end.
struct Waiting {
    stream: Arc<Lasting>,
    number: u64,
    answer: oneshot::Receiver<Answer>,
    since: Instant,
    answered: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.answered {
            self.stream.give_up(self.number, self.since);
        }
    }
}
