//! Time as a value that is handed in, so that a test can set it.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use time::OffsetDateTime;

/// Where a decision takes its time from.
///
/// Duties of an implementation: `monotonic` never goes back; both functions are cheap and never block.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The wall clock, in UTC. It may jump.
    fn now(&self) -> OffsetDateTime;

    /// A clock for measuring spans. It never goes back.
    fn monotonic(&self) -> Instant;
}

/// The machine's clocks.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

/// A clock that stands still until it is moved; for tests and simulations.
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<(OffsetDateTime, Instant)>,
}

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn new(now: OffsetDateTime) -> Self {
        Self { state: Mutex::new((now, Instant::now())) }
    }

    /// Moves both clocks forward.
    pub fn advance(&self, span: Duration) {
        let mut state = self.lock();
        state.0 += span;
        state.1 += span;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (OffsetDateTime, Instant)> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> OffsetDateTime {
        self.lock().0
    }

    fn monotonic(&self) -> Instant {
        self.lock().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::new(OffsetDateTime::UNIX_EPOCH);
        let before = clock.monotonic();
        assert_eq!(clock.now(), OffsetDateTime::UNIX_EPOCH);
        clock.advance(Duration::from_secs(5));
        assert_eq!(clock.now().unix_timestamp(), 5);
        assert_eq!(clock.monotonic() - before, Duration::from_secs(5));
    }
}
