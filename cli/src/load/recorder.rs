//! What a load run collects: latencies by stage, outcomes by code, and a time line by second.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

/// Longest latency that is told apart, in microseconds; a client gives up before.
const LATENCY_MAX_US: u64 = 120_000_000;

/// What became of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Committed as valid, or evaluated.
    Valid,
    /// Committed as invalid, with the validation code's name.
    Invalid(&'static str),
    /// Not committed: the stage and the reason, without what is particular to the transaction.
    Failed(String),
}

/// One transaction.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// From the moment at which it was due (open loop) or begun (closed loop) until its end.
    pub(crate) total: Duration,
    /// Time of each stage that it went through, in order: endorse, submit, commit.
    pub(crate) stages: [Option<Duration>; 3],
    pub(crate) outcome: Outcome,
}

/// Names of the stages of [`Sample::stages`].
pub(crate) const STAGES: [&str; 3] = ["endorse", "submit", "commit"];

/// What happened within one second.
#[derive(Debug, Clone)]
pub(crate) struct Second {
    pub(crate) valid: u64,
    pub(crate) invalid: u64,
    pub(crate) failed: u64,
    pub(crate) latency: Histogram<u64>,
}

/// Everything that was collected.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) total: Histogram<u64>,
    pub(crate) stages: [Histogram<u64>; 3],
    pub(crate) valid: u64,
    pub(crate) invalid: BTreeMap<&'static str, u64>,
    pub(crate) failed: BTreeMap<String, u64>,
    pub(crate) seconds: Vec<Second>,
}

impl Collected {
    fn new() -> Self {
        Self {
            total: histogram(3),
            stages: [histogram(3), histogram(3), histogram(3)],
            valid: 0,
            invalid: BTreeMap::new(),
            failed: BTreeMap::new(),
            seconds: Vec::new(),
        }
    }

    fn add(&mut self, second: usize, sample: &Sample) {
        while self.seconds.len() <= second {
            self.seconds.push(Second { valid: 0, invalid: 0, failed: 0, latency: histogram(2) });
        }
        let second = &mut self.seconds[second];
        match &sample.outcome {
            Outcome::Valid => {
                self.valid += 1;
                second.valid += 1;
            }
            Outcome::Invalid(code) => {
                *self.invalid.entry(code).or_default() += 1;
                second.invalid += 1;
            }
            Outcome::Failed(reason) => {
                *self.failed.entry(reason.clone()).or_default() += 1;
                second.failed += 1;
                return;
            }
        }
        record(&mut self.total, sample.total);
        record(&mut second.latency, sample.total);
        for (histogram, stage) in self.stages.iter_mut().zip(sample.stages) {
            if let Some(duration) = stage {
                record(histogram, duration);
            }
        }
    }
}

fn histogram(digits: u8) -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, digits)
        .expect("invariant: the bounds and digits are constants in range")
}

fn record(histogram: &mut Histogram<u64>, duration: Duration) {
    histogram.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(LATENCY_MAX_US).max(1));
}

/// A percentile in milliseconds; 0 when nothing was recorded.
pub(crate) fn milliseconds(histogram: &Histogram<u64>, percentile: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a latency are far below 2^52")]
    let microseconds = histogram.value_at_percentile(percentile) as f64;
    if histogram.is_empty() { 0.0 } else { microseconds / 1e3 }
}

/// Collects samples from all clients.
#[derive(Debug)]
pub(crate) struct Recorder {
    collected: Mutex<Collected>,
}

impl Recorder {
    /// Nothing collected yet.
    pub(crate) fn new() -> Self {
        Self { collected: Mutex::new(Collected::new()) }
    }

    fn lock(&self) -> MutexGuard<'_, Collected> {
        self.collected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a transaction that ended `since` the beginning of the measurement.
    pub(crate) fn add(&self, since: Duration, sample: &Sample) {
        let second = usize::try_from(since.as_secs()).unwrap_or(usize::MAX).min(MEASURED_SECONDS_MAX);
        self.lock().add(second, sample);
    }

    /// The last full second before `second`, for the progress line.
    pub(crate) fn second(&self, second: usize) -> Option<Second> {
        self.lock().seconds.get(second).cloned()
    }

    /// Hands over what was collected.
    pub(crate) fn take(&self) -> Collected {
        std::mem::replace(&mut *self.lock(), Collected::new())
    }
}

/// Seconds that the time line holds: a day.
const MEASURED_SECONDS_MAX: usize = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(outcome: Outcome) -> Sample {
        let stage = Some(Duration::from_millis(1));
        Sample { total: Duration::from_millis(5), stages: [stage, stage, None], outcome }
    }

    #[test]
    fn outcomes_are_counted_apart_and_failures_have_no_latency() {
        let recorder = Recorder::new();
        recorder.add(Duration::from_millis(100), &sample(Outcome::Valid));
        recorder.add(Duration::from_millis(1_900), &sample(Outcome::Invalid("MVCC_READ_CONFLICT")));
        recorder
            .add(Duration::from_millis(1_950), &sample(Outcome::Failed("submit: unavailable".to_owned())));
        let collected = recorder.take();
        assert_eq!(collected.valid, 1);
        assert_eq!(collected.invalid.into_iter().collect::<Vec<_>>(), [("MVCC_READ_CONFLICT", 1)]);
        assert_eq!(collected.failed.into_values().sum::<u64>(), 1);
        assert_eq!(collected.total.len(), 2);
        assert_eq!(collected.stages[2].len(), 0);
        assert_eq!(collected.seconds.iter().map(|second| second.valid).collect::<Vec<_>>(), [1, 0]);
        assert!((milliseconds(&collected.total, 50.0) - 5.0).abs() < 0.1);
    }
}
