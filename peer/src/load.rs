//! How much work is taken on: by how long it has to wait, not by how much there is.
//!
//! A call that finds no free place waits in a queue. While the queue empties now and then, it only evens out bursts, and a
//! call may wait for some time. A queue that has not been empty for a while is a standing one: it makes every call slower
//! and none faster, so calls are then let wait briefly only, and turned away with the time after which to come back (the
//! controlled delay of K. Nichols and V. Jacobson, "Controlling Queue Delay", ACM Queue 2012, as applied to servers by
//! B. Maurer, "Fail at Scale", ACM Queue 2015).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use consort_node::Clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::gateway::with_retry;

/// Calls that are worked on at the same time. Far more than the cores can run, because a call mostly waits for other
/// nodes; what counts is that the rest waits where its waiting is measured.
const PLACES: usize = 512;
/// Calls that may wait. Eight seconds' worth at a thousand calls per second; beyond it memory would be the limit.
const WAITING_MAX: usize = 8_192;
/// A queue that was empty within this time is a burst.
const STANDING_AFTER: Duration = Duration::from_millis(500);
/// How long a call may wait in a burst.
const BURST_DELAY: Duration = Duration::from_millis(500);
/// How long a call may wait in a standing queue.
const STANDING_DELAY: Duration = Duration::from_millis(20);
/// Shortest and longest pause that is asked of a caller who was turned away.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Standard trailer for such a pause, in milliseconds (gRFC A6).
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// The gate before a service's work.
pub(crate) struct Gate {
    service: &'static str,
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    measured: Mutex<Measured>,
    clock: Arc<dyn Clock>,
}

struct Measured {
    /// When a call last found nobody before it.
    empty_at: Instant,
    /// How long the calls waited that got a place lately: a moving average.
    delay: Duration,
}

/// A place; it is free again when this is dropped.
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Gate {
    /// An open gate before this service, which refusals name.
    pub(crate) fn new(service: &'static str, clock: Arc<dyn Clock>) -> Self {
        Self::with_places(service, PLACES, clock)
    }

    /// A gate with other bounds.
    pub(crate) fn with_places(service: &'static str, places: usize, clock: Arc<dyn Clock>) -> Self {
        let measured = Measured { empty_at: clock.monotonic(), delay: Duration::ZERO };
        Self {
            service,
            places: Arc::new(Semaphore::new(places)),
            waiting: AtomicUsize::new(0),
            measured: Mutex::new(measured),
            clock,
        }
    }

    /// Waits for a place, for as long as the queue allows now.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED with a pause after which to try again.
    pub(crate) async fn enter(&self) -> Result<Place, Status> {
        let came = self.clock.monotonic();
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            self.note(came, Duration::ZERO);
            return Ok(Place { _permit: permit });
        }
        let queued = Queued::new(&self.waiting);
        if queued.before >= WAITING_MAX {
            return Err(self.turn_away());
        }
        if queued.before == 0 {
            self.note_empty(came);
        }
        let patience = self.patience(came);
        match tokio::time::timeout(patience, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(permit)) => {
                let now = self.clock.monotonic();
                self.note_delay(now.saturating_duration_since(came));
                Ok(Place { _permit: permit })
            }
            // The semaphore is never closed; were it, nothing could be worked on.
            Ok(Err(_)) | Err(_) => Err(self.turn_away()),
        }
    }

    fn patience(&self, now: Instant) -> Duration {
        let measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = now.saturating_duration_since(measured.empty_at) > STANDING_AFTER;
        if standing { STANDING_DELAY } else { BURST_DELAY }
    }

    fn note(&self, now: Instant, delay: Duration) {
        self.note_delay(delay);
        self.note_empty(now);
    }

    fn note_empty(&self, now: Instant) {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner).empty_at = now;
    }

    fn note_delay(&self, delay: Duration) {
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        // One eighth of the news, as in TCP's smoothed round trip time (RFC 6298).
        measured.delay = (measured.delay * 7 + delay) / 8;
    }

    fn turn_away(&self) -> Status {
        let delay = self.measured.lock().unwrap_or_else(PoisonError::into_inner).delay;
        // Whoever comes back after twice the present delay finds the queue as long at most; the random part keeps those
        // who were turned away together from coming back together.
        let pause = (delay * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        let pause = pause.mul_f64(1.0 + rand::random::<f64>()).min(PAUSE_MAX);
        tracing::debug!(delay_ms = delay.as_millis(), "a call was turned away");
        refusal(self.service, pause)
    }
}

/// What a caller reads who was turned away.
fn refusal(service: &str, pause: Duration) -> Status {
    let milliseconds = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
    let message =
        format!("the {service} has more requests than it can answer in time; try again in {milliseconds} ms");
    let mut trailers = MetadataMap::new();
    trailers.insert(PUSHBACK, MetadataValue::from(milliseconds));
    with_retry(Code::ResourceExhausted, message, pause, trailers)
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Gate").field("service", &self.service).finish_non_exhaustive()
    }
}

/// One waiting call.
struct Queued<'a> {
    waiting: &'a AtomicUsize,
    before: usize,
}

impl<'a> Queued<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        Self { before: waiting.fetch_add(1, Ordering::Relaxed), waiting }
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use consort_node::ManualClock;
    use consort_protos::fabric::rpc;
    use prost::Message;
    use time::macros::datetime;

    use super::*;

    fn gate(places: usize) -> (Arc<Gate>, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(datetime!(2026-01-01 00:00 UTC)));
        (Arc::new(Gate::with_places("gateway", places, Arc::clone(&clock) as Arc<dyn Clock>)), clock)
    }

    #[tokio::test]
    async fn a_burst_waits_and_gets_its_place() {
        let (gate, _) = gate(1);
        let place = gate.enter().await.expect("free");
        let (second, ()) = tokio::join!(gate.enter(), async {
            assert_eq!(gate.waiting.load(Ordering::Relaxed), 1);
            drop(place);
        });
        second.expect("the place of the first");
    }

    #[tokio::test]
    async fn a_standing_queue_turns_away_soon_and_says_when_to_come_back() {
        let (gate, clock) = gate(1);
        let _place = gate.enter().await.expect("free");
        let waiting = Arc::clone(&gate);
        let (first, second) = tokio::join!(waiting.enter(), async {
            clock.advance(STANDING_AFTER * 2);
            let began = tokio::time::Instant::now();
            let status = gate.enter().await.map(|_| ()).expect_err("turned away");
            assert!(began.elapsed() < BURST_DELAY, "{:?}", began.elapsed());
            status
        });
        assert!(first.is_err(), "the first waits for as long as a burst may, and is turned away too");
        assert_eq!(second.code(), Code::ResourceExhausted);
        let pause: u64 = second
            .metadata()
            .get(PUSHBACK)
            .expect("a pause")
            .to_str()
            .expect("text")
            .parse()
            .expect("a number");
        assert!((100..=10_000).contains(&pause), "{pause}");
        let details = rpc::Status::decode(second.details()).expect("a google.rpc.Status").details;
        assert_eq!(details[0].type_url, "type.googleapis.com/google.rpc.RetryInfo");
    }

    #[tokio::test]
    async fn the_queue_is_bounded() {
        let (gate, _) = gate(1);
        let _place = gate.enter().await.expect("free");
        gate.waiting.store(WAITING_MAX, Ordering::Relaxed);
        let began = tokio::time::Instant::now();
        assert!(gate.enter().await.is_err());
        assert!(began.elapsed() < STANDING_DELAY);
    }
}
