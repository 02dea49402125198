//! What waits for one client: few messages, and few bytes.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::Status;

/// Blocks that are read ahead of a slow client; more would only hold memory.
pub(super) const RESPONSES_IN_FLIGHT: usize = 8;

/// Bytes that are read ahead of a slow client, in units of 1 KiB. A block that is larger waits alone.
const ROOM_KIB: u32 = 2 * 1024;

/// The answers of one stream.
pub struct Responses<R> {
    queue: mpsc::Receiver<Queued<R>>,
}

struct Queued<R> {
    answer: Result<R, Status>,
    /// The room that it takes until the client's transport has it.
    _room: Option<OwnedSemaphorePermit>,
}

impl<R> Responses<R> {
    /// Whether nothing will be added to what waits now.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.queue.sender_strong_count() == 0
    }
}

impl<R> Stream for Responses<R> {
    type Item = Result<R, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.queue.poll_recv(context).map(|next| next.map(|queued| queued.answer))
    }
}

impl<R> fmt::Debug for Responses<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Responses").finish_non_exhaustive()
    }
}

/// The client is gone.
pub(super) struct Gone;

/// The end of the queue that answers go in at.
pub(super) struct Answers<R> {
    queue: mpsc::Sender<Queued<R>>,
    room: Arc<Semaphore>,
}

/// Room for the reason with which a stream ends, however full the queue is.
pub(super) struct LastWord<R>(mpsc::OwnedPermit<Queued<R>>);

/// An empty queue.
pub(super) fn queue<R>() -> (Answers<R>, LastWord<R>, Responses<R>) {
    let (sender, receiver) = mpsc::channel(RESPONSES_IN_FLIGHT + 1);
    let last_word = sender.clone().try_reserve_owned().expect("invariant: a new queue is empty");
    let room = Arc::new(Semaphore::new(ROOM_KIB as usize));
    (Answers { queue: sender, room }, LastWord(last_word), Responses { queue: receiver })
}

impl<R> Answers<R> {
    /// Waits for room, and adds an answer that holds about so many bytes.
    pub(super) async fn send(&self, response: R, bytes: usize) -> Result<(), Gone> {
        let kib = u32::try_from(bytes / 1024).unwrap_or(ROOM_KIB).clamp(1, ROOM_KIB);
        let room = tokio::select! {
            room = Arc::clone(&self.room).acquire_many_owned(kib) => room.ok(),
            () = self.queue.closed() => return Err(Gone),
        };
        self.queue.send(Queued { answer: Ok(response), _room: room }).await.map_err(|_closed| Gone)
    }

    /// Returns when the client is gone.
    pub(super) async fn closed(&self) {
        self.queue.closed().await;
    }
}

impl<R> LastWord<R> {
    /// Ends the stream with a reason.
    pub(super) fn send(self, reason: Status) {
        self.0.send(Queued { answer: Err(reason), _room: None });
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    #[tokio::test]
    async fn large_answers_wait_for_the_client_and_small_ones_run_ahead() {
        let (answers, _last_word, mut responses) = queue();
        for number in 0..RESPONSES_IN_FLIGHT {
            assert!(answers.send(number, 10).now_or_never().is_some_and(|sent| sent.is_ok()));
        }
        for number in 0..RESPONSES_IN_FLIGHT {
            assert_eq!(responses.next().await.unwrap().unwrap(), number);
        }
        let large = 3 * 1024 * 1024;
        assert!(answers.send(1, large).now_or_never().is_some_and(|sent| sent.is_ok()));
        assert!(answers.send(2, large).now_or_never().is_none(), "a second one would double what is held");
        assert_eq!(responses.next().await.unwrap().unwrap(), 1);
        assert!(answers.send(2, large).now_or_never().is_some_and(|sent| sent.is_ok()));
        drop(responses);
        assert!(answers.send(3, large).await.is_err());
    }
}
