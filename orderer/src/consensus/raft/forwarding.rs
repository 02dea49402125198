//! Messages of clients on their way to the consenter that leads: bounded, in batches, each with its way back.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use consort_protos::{
    consort::orderer::{Outcome, Submission, Submissions},
    fabric::common::{Envelope, Status},
};
use prost::Message as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::Instant,
};

use crate::{
    consensus::{FORWARDED_MAX, Receipt},
    submission::Refusal,
};

/// A client waits for room no longer than this; then it hears that the pipeline is full.
pub(super) const ROOM_PATIENCE: Duration = Duration::from_secs(5);

/// A forwarded message that the leader has not answered by then is refused.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// Messages that are taken together. Those that came while one batch was written make the next one, so that it need not be large.
pub(super) const BATCH_MESSAGES: usize = 256;

/// A request is closed when it has so many bytes of envelopes, well below what the receiver takes at once.
const BATCH_BYTES: usize = 1024 * 1024;

/// A message takes one place, and one more for so many bytes: with [`FORWARDED_MAX`] places the envelopes that are held for one leader stay below
/// 32 MiB, unless a single one is larger.
const PLACE_BYTES: usize = 16 * 1024;

/// A message that waits to be sent, or for its outcome.
struct Held {
    envelope: Envelope,
    sequence: u64,
    reply: oneshot::Sender<Result<(), Refusal>>,
    room: OwnedSemaphorePermit,
}

/// The near end: where messages go in.
#[derive(Clone)]
pub(super) struct Forwarding {
    leader: u64,
    patience: Duration,
    room: Arc<Semaphore>,
    queue: mpsc::Sender<Held>,
    sent: Unanswered,
}

/// The far end, which belongs to the stream.
pub(super) struct Waiting {
    queue: mpsc::Receiver<Held>,
    patience: Duration,
    next_id: u64,
    sent: Unanswered,
    /// By age: all wait equally long.
    due: VecDeque<(Instant, u64)>,
}

/// What was sent and has no outcome yet. A place is free only when the leader has answered, even if the client has given up.
#[derive(Clone, Default)]
struct Unanswered(Arc<Mutex<HashMap<u64, Sent>>>);

impl Unanswered {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Sent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Sent {
    reply: Option<oneshot::Sender<Result<(), Refusal>>>,
    _room: OwnedSemaphorePermit,
}

impl Forwarding {
    /// To the consenter with this Raft id. Clients wait so long for room, and for an answer.
    pub(super) fn new(leader: u64, for_room: Duration, for_answer: Duration) -> (Self, Waiting) {
        let (sender, queue) = mpsc::channel(FORWARDED_MAX);
        let (sent, due) = (Unanswered::default(), VecDeque::new());
        let waiting = Waiting { queue, patience: for_answer, next_id: 0, sent: sent.clone(), due };
        let room = Arc::new(Semaphore::new(FORWARDED_MAX));
        (Self { leader, patience: for_room, room, queue: sender, sent }, waiting)
    }

    /// Takes a message, when there is room in time.
    pub(super) async fn submit(&self, envelope: Envelope, sequence: u64) -> Result<Receipt, Refusal> {
        let places = 1 + envelope.encoded_len() / PLACE_BYTES;
        let places = u32::try_from(places.min(FORWARDED_MAX)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(places);
        let room = tokio::time::timeout(self.patience, room).await.ok().and_then(Result::ok);
        let room = room.ok_or_else(|| {
            let leader = self.leader;
            Refusal::unavailable(format!("too many messages wait for the Raft leader {leader}"))
        })?;
        let (reply, receipt) = oneshot::channel();
        let held = Held { envelope, sequence, reply, room };
        self.queue.try_send(held).map_err(|_ended| Refusal::unavailable("no Raft leader"))?;
        Ok(receipt)
    }
}

impl Forwarding {
    /// The consenter does not lead any more, and may be out of reach without anybody being told: clients need not wait for its answers, should they still come.
    pub(super) fn refuse_unanswered(&self, reason: &str) {
        let replies: Vec<_> = self.sent.lock().values_mut().filter_map(|sent| sent.reply.take()).collect();
        for reply in replies {
            let _client_may_be_gone = reply.send(Err(Refusal::unavailable(reason)));
        }
    }
}

impl Waiting {
    /// Up to so many messages that wait, at least one; they count as sent. Safe to be given up while it waits.
    pub(super) async fn next(&mut self, most: usize) -> Vec<Submission> {
        let mut taken = Vec::new();
        if self.queue.recv_many(&mut taken, most).await == 0 {
            // Nobody sends any more: the one who waits here is told so in another way.
            return std::future::pending().await;
        }
        let due = Instant::now() + self.patience;
        taken.into_iter().map(|held| self.note(held, due)).collect()
    }

    fn note(&mut self, held: Held, due: Instant) -> Submission {
        self.next_id += 1;
        self.sent.lock().insert(self.next_id, Sent { reply: Some(held.reply), _room: held.room });
        self.due.push_back((due, self.next_id));
        Submission { envelope: Some(held.envelope), id: self.next_id, config_sequence: Some(held.sequence) }
    }

    /// What became of one.
    pub(super) fn end(&mut self, outcome: Outcome) {
        let mut sent = self.sent.lock();
        if let Some(reply) = sent.remove(&outcome.id).and_then(|sent| sent.reply) {
            let _client_may_be_gone = reply.send(result(outcome));
        }
        while self.due.front().is_some_and(|(_, id)| !sent.contains_key(id)) {
            self.due.pop_front();
        }
    }

    /// The stream has ended: what was sent will not be answered.
    pub(super) fn refuse_sent(&mut self, reason: &str) {
        self.due.clear();
        for reply in self.sent.lock().drain().filter_map(|(_, sent)| sent.reply) {
            let _client_may_be_gone = reply.send(Err(Refusal::unavailable(reason)));
        }
    }

    /// When the next answer is overdue.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.front().map(|(due, _)| *due)
    }

    /// Tells clients whose answer is overdue.
    pub(super) fn refuse_overdue(&mut self) {
        let now = Instant::now();
        while let Some((_, id)) = self.due.pop_front_if(|(due, _)| *due <= now) {
            if let Some(reply) = self.sent.lock().get_mut(&id).and_then(|sent| sent.reply.take()) {
                let patience = self.patience;
                let reason = format!("timed out ({patience:?}) waiting on forwarding to the Raft leader");
                let _client_may_be_gone = reply.send(Err(Refusal::unavailable(reason)));
            }
        }
    }
}

/// As many requests as the bytes need.
pub(super) fn batches(submissions: Vec<Submission>) -> Vec<Submissions> {
    let mut all: Vec<Submissions> = Vec::new();
    let mut bytes = 0;
    for submission in submissions {
        let size = submission.encoded_len();
        match all.last_mut() {
            Some(last) if bytes + size <= BATCH_BYTES => {
                bytes += size;
                last.submissions.push(submission);
            }
            _ => {
                bytes = size;
                all.push(Submissions { submissions: vec![submission] });
            }
        }
    }
    all
}

fn result(outcome: Outcome) -> Result<(), Refusal> {
    match Status::try_from(outcome.status) {
        Ok(Status::Success) => Ok(()),
        Ok(status) => Err(Refusal { status, info: outcome.info }),
        Err(_unknown) => Err(Refusal::unavailable(outcome.info)),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::FutureExt as _;

    use super::*;

    fn envelope(bytes: usize) -> Envelope {
        Envelope { payload: Bytes::from(vec![7; bytes]), ..Envelope::default() }
    }

    fn pair() -> (Forwarding, Waiting) {
        Forwarding::new(2, Duration::from_millis(100), Duration::from_millis(20))
    }

    fn success(id: u64) -> Outcome {
        Outcome { id, status: Status::Success as i32, info: String::new() }
    }

    #[tokio::test]
    async fn messages_that_wait_travel_together_and_are_answered_one_by_one() {
        let (forwarding, mut waiting) = pair();
        let mut receipts = Vec::new();
        for _ in 0..5 {
            receipts.push(forwarding.submit(envelope(100), 0).await.unwrap());
        }
        let sent = waiting.next(BATCH_MESSAGES).await;
        assert_eq!(sent.iter().map(|one| one.id).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        waiting.end(success(2));
        assert_eq!(receipts.remove(1).now_or_never().unwrap().unwrap(), Ok(()));
        waiting.refuse_sent("the connection broke");
        for receipt in receipts {
            assert_eq!(receipt.await.unwrap().unwrap_err().info, "the connection broke");
        }
    }

    #[tokio::test]
    async fn a_client_waits_for_room_and_hears_the_reason_when_there_is_none() {
        let (forwarding, mut waiting) = pair();
        let mut receipts = Vec::new();
        for _ in 0..FORWARDED_MAX {
            receipts.push(forwarding.submit(envelope(100), 0).await.unwrap());
        }
        let refused = forwarding.submit(envelope(100), 0).await.unwrap_err();
        assert_eq!(refused.status, Status::ServiceUnavailable);
        assert_eq!(refused.info, "too many messages wait for the Raft leader 2");

        waiting.next(FORWARDED_MAX).await;
        assert!(forwarding.submit(envelope(100), 0).now_or_never().is_none(), "sent is not answered");
        let (taken, ()) = tokio::join!(forwarding.submit(envelope(100), 0), async {
            tokio::task::yield_now().await;
            waiting.end(success(7));
        });
        assert!(taken.is_ok());
    }

    #[tokio::test]
    async fn large_messages_take_more_room_and_requests_of_their_own() {
        let (forwarding, mut waiting) = pair();
        let large = envelope(FORWARDED_MAX * PLACE_BYTES * 2);
        let _receipt = forwarding.submit(large, 0).await.unwrap();
        assert!(forwarding.submit(envelope(1), 0).now_or_never().is_none(), "one alone fills the room");
        waiting.next(1).await;
        waiting.end(success(1));

        let mut receipts = Vec::new();
        for bytes in [600 * 1024, 600 * 1024, 10, 3 * 1024 * 1024, 10] {
            receipts.push(forwarding.submit(envelope(bytes), 0).await.unwrap());
        }
        let requests = batches(waiting.next(BATCH_MESSAGES).await);
        assert_eq!(requests.iter().map(|one| one.submissions.len()).collect::<Vec<_>>(), [1, 2, 1, 1]);
    }

    #[tokio::test]
    async fn nobody_waits_for_the_answers_of_a_former_leader_and_their_places_stay_taken() {
        let (forwarding, mut waiting) = pair();
        let receipt = forwarding.submit(envelope(100), 0).await.unwrap();
        waiting.next(1).await;
        forwarding.refuse_unanswered("another one leads");
        assert_eq!(receipt.await.unwrap().unwrap_err().info, "another one leads");
        assert_eq!(forwarding.room.available_permits(), FORWARDED_MAX - 1);
        waiting.end(success(1));
        assert_eq!(forwarding.room.available_permits(), FORWARDED_MAX);
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_is_a_refusal_and_its_place_stays_taken() {
        let (forwarding, mut waiting) = pair();
        let receipt = forwarding.submit(envelope(100), 0).await.unwrap();
        waiting.next(1).await;
        tokio::time::sleep_until(waiting.next_due().unwrap()).await;
        waiting.refuse_overdue();
        assert!(receipt.await.unwrap().unwrap_err().info.contains("timed out (20ms)"));
        assert_eq!(forwarding.room.available_permits(), FORWARDED_MAX - 1);
        waiting.end(success(1));
        assert_eq!(forwarding.room.available_permits(), FORWARDED_MAX);
    }
}
