//! When a block is full: a pure function over the messages that wait and the limits in force.
//!
//! Source of the rules: Fabric `orderer/common/blockcutter`.

use consort_channel_config::BatchConfig;

/// Messages that wait for their block, in the order in which they came.
#[derive(Debug)]
pub(crate) struct Cutter<T> {
    pending: Vec<T>,
    pending_bytes: u64,
}

/// Why a block was cut, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CutReason {
    /// So many messages as a block may have.
    Count,
    /// The next message would have made it larger than preferred.
    Bytes,
    /// The consenter had nothing else to do.
    Idle,
    /// The first message has waited for the batch timeout.
    Timeout,
    /// A configuration stands alone in its block.
    Config,
}

impl CutReason {
    /// The word in metrics and logs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Bytes => "bytes",
            Self::Idle => "idle",
            Self::Timeout => "timeout",
            Self::Config => "config",
        }
    }
}

impl<T> Default for Cutter<T> {
    fn default() -> Self {
        Self { pending: Vec::new(), pending_bytes: 0 }
    }
}

impl<T> Cutter<T> {
    /// Takes a message of `size` bytes (payload and signature). Answers the batches that are full now: none, one or two.
    pub(crate) fn ordered(
        &mut self,
        limits: &BatchConfig,
        message: T,
        size: usize,
    ) -> Vec<(Vec<T>, CutReason)> {
        let size = size as u64;
        let preferred = u64::from(limits.preferred_max_bytes);
        let mut batches = Vec::new();
        if size > preferred {
            batches.extend(self.cut().map(|batch| (batch, CutReason::Bytes)));
            batches.push((vec![message], CutReason::Bytes));
            return batches;
        }
        if self.pending_bytes + size > preferred {
            batches.extend(self.cut().map(|batch| (batch, CutReason::Bytes)));
        }
        self.pending.push(message);
        self.pending_bytes += size;
        if self.pending.len() >= limits.max_message_count as usize {
            batches.extend(self.cut().map(|batch| (batch, CutReason::Count)));
        }
        batches
    }

    /// Takes what waits; `None` when nothing does.
    pub(crate) fn cut(&mut self) -> Option<Vec<T>> {
        self.pending_bytes = 0;
        let batch = std::mem::take(&mut self.pending);
        (!batch.is_empty()).then_some(batch)
    }

    /// Whether a message waits.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: BatchConfig = BatchConfig {
        max_message_count: 3,
        absolute_max_bytes: 1000,
        preferred_max_bytes: 100,
        timeout: Duration::from_secs(2),
    };

    fn lengths(batches: &[(Vec<u8>, CutReason)]) -> Vec<(usize, CutReason)> {
        batches.iter().map(|(batch, reason)| (batch.len(), *reason)).collect()
    }

    #[test]
    fn the_last_message_of_the_count_completes_the_block() {
        let mut cutter = Cutter::default();
        assert!(cutter.ordered(&LIMITS, 1, 10).is_empty());
        assert!(cutter.ordered(&LIMITS, 2, 10).is_empty());
        assert_eq!(lengths(&cutter.ordered(&LIMITS, 3, 10)), [(3, CutReason::Count)]);
        assert!(!cutter.is_waiting());
    }

    #[test]
    fn a_message_that_would_overflow_starts_the_next_block() {
        let mut cutter = Cutter::default();
        cutter.ordered(&LIMITS, 1, 60);
        assert_eq!(lengths(&cutter.ordered(&LIMITS, 2, 60)), [(1, CutReason::Bytes)]);
        assert_eq!(cutter.cut(), Some(vec![2]));
        cutter.ordered(&LIMITS, 3, 60);
        assert!(cutter.ordered(&LIMITS, 4, 40).is_empty(), "exactly the preferred size still fits");
    }

    #[test]
    fn a_message_above_the_preferred_size_stands_alone_behind_what_waited() {
        let mut cutter = Cutter::default();
        cutter.ordered(&LIMITS, 1, 10);
        let batches = cutter.ordered(&LIMITS, 2, 101);
        assert_eq!(lengths(&batches), [(1, CutReason::Bytes), (1, CutReason::Bytes)]);
        assert_eq!(cutter.cut(), None);
    }

    #[test]
    fn with_a_count_of_one_each_message_is_a_block_even_after_an_overflow() {
        let limits = BatchConfig { max_message_count: 1, ..LIMITS };
        let mut cutter = Cutter::default();
        assert_eq!(lengths(&cutter.ordered(&limits, 1, 90)), [(1, CutReason::Count)]);
        assert_eq!(lengths(&cutter.ordered(&limits, 2, 90)), [(1, CutReason::Count)]);
    }
}
