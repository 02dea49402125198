//! How much time to leave between two blocks: a pure function of what the last ones cost and brought.
//!
//! A consenter that has nothing else to do cuts at once, so that a single client never waits. But each block costs a sync of three logs, a
//! round of messages, a signature of every orderer, and a commit with its own sync at every peer, whether it holds one message or a hundred.
//! When messages keep coming, waiting a little makes blocks that are worth this.
//!
//! The rule: agreeing on blocks shall take at most one part in [`SHARE`] of the time, so that the pause is that multiple of the time that agreement
//! takes. On an idle machine this is a few milliseconds; on a busy one, where agreement takes longer, it grows up to [`PAUSE_MAX`] and relieves
//! everybody. A pause in which fewer than [`WORTH_MESSAGES`] would come is not made. `BatchTimeout` stays the upper bound, and a full block
//! is cut at once.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// The pause is so many times as long as agreement.
const SHARE: f64 = 6.0;

/// The longest pause. Twenty blocks in a second cost little; a longer wait would be felt by people.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// With fewer messages than this in it, a pause costs more than it saves. A single client that waits for each answer must not be taken for a crowd.
const WORTH_MESSAGES: f64 = 5.0;

/// A rate that held for so long counts as much as all that was before.
const RATE_MEMORY: Duration = Duration::from_millis(50);

/// The weight of the last block's agreement against all before.
const LAST_AGREEMENT: f64 = 0.125;

/// An agreement that took longer was held up by something else, such as an election.
const AGREEMENT_MAX: Duration = Duration::from_millis(100);

/// The pace of one channel's blocks.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last_cut: Option<Instant>,
    /// When the blocks were cut that are being agreed on; as many as may be in flight.
    in_flight: VecDeque<Instant>,
    /// How long agreement takes, in seconds.
    agreement: f64,
    /// Messages in a second.
    rate: f64,
}

impl Pace {
    /// A block of so many messages was cut.
    pub(super) fn cut(&mut self, messages: usize, now: Instant) {
        if let Some(last) = self.last_cut {
            let seconds = now.saturating_duration_since(last).as_secs_f64();
            #[expect(clippy::cast_precision_loss, reason = "a block has far fewer than 2^52 messages")]
            let messages = messages as f64;
            // The mean over both spans, also when no time has passed between two full blocks.
            let memory = RATE_MEMORY.as_secs_f64();
            self.rate = (self.rate * memory + messages) / (memory + seconds);
        }
        self.last_cut = Some(now);
        self.in_flight.push_back(now);
    }

    /// So many blocks are still being agreed on; those before them were agreed on until now.
    pub(super) fn agreed(&mut self, still_in_flight: usize, now: Instant) {
        while self.in_flight.len() > still_in_flight
            && let Some(cut) = self.in_flight.pop_front()
        {
            let took = now.saturating_duration_since(cut).min(AGREEMENT_MAX).as_secs_f64();
            self.agreement += (took - self.agreement) * LAST_AGREEMENT;
        }
    }

    /// When the next block may be cut that is not full; `None` when it may be at once.
    pub(super) fn next_cut(&self, now: Instant) -> Option<Instant> {
        let pause = (self.agreement * SHARE).min(PAUSE_MAX.as_secs_f64());
        if self.rate * pause < WORTH_MESSAGES {
            return None;
        }
        let next = self.last_cut? + Duration::from_secs_f64(pause);
        (next > now).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets messages come at a rate, with an agreement that takes so long, for a second; the messages of each block.
    fn blocks(pace: &mut Pace, start: Instant, per_second: u32, agreement: Duration) -> Vec<usize> {
        let every = Duration::from_secs(1) / per_second;
        let (mut now, mut waiting, mut sizes) = (start, 0, Vec::new());
        let mut agreed_at: Option<Instant> = None;
        for arrival in 1..=per_second {
            let due = start + every * arrival;
            // In steps of a tenth of a millisecond, what a task would be woken for.
            while now < due {
                now += Duration::from_micros(100).min(due - now);
                if agreed_at.is_some_and(|at| at <= now) {
                    pace.agreed(0, now);
                    agreed_at = None;
                }
                if waiting > 0 && agreed_at.is_none() && pace.next_cut(now).is_none() {
                    pace.cut(waiting, now);
                    sizes.push(std::mem::take(&mut waiting));
                    agreed_at = Some(now + agreement);
                }
            }
            waiting += 1;
        }
        sizes
    }

    #[test]
    fn a_message_from_time_to_time_is_a_block_at_once() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let sizes = blocks(&mut pace, start, 150, Duration::from_millis(3));
        assert!(sizes.iter().all(|size| *size == 1), "{sizes:?}");
        assert!(sizes.len() > 145);
    }

    #[test]
    fn messages_that_keep_coming_make_fewer_blocks_the_longer_agreement_takes() {
        let start = Instant::now();
        let per_second = [1, 3, 8].map(|agreement| {
            blocks(&mut Pace::default(), start, 1_000, Duration::from_millis(agreement)).len()
        });
        assert!((190..290).contains(&per_second[0]), "every 6 ms at the end: {per_second:?}");
        assert!((50..80).contains(&per_second[1]), "every 18 ms: {per_second:?}");
        assert!((18..32).contains(&per_second[2]), "every 48 ms: {per_second:?}");
    }

    #[test]
    fn when_the_crowd_has_gone_the_next_message_does_not_wait() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        blocks(&mut pace, start, 2_000, Duration::from_millis(8));
        let later = start + Duration::from_secs(4);
        assert_eq!(pace.next_cut(later), None);
        pace.cut(1, later);
        pace.agreed(0, later + Duration::from_millis(8));
        assert_eq!(pace.next_cut(later + Duration::from_millis(9)), None, "the crowd is forgotten");
    }

    #[test]
    fn full_blocks_in_a_row_and_an_election_leave_the_pause_within_its_bound() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        for _ in 0..5 {
            pace.cut(500, start);
        }
        pace.agreed(0, start + Duration::from_secs(9));
        let next = pace.next_cut(start);
        assert!(next.is_some_and(|next| next <= start + PAUSE_MAX), "{next:?}");
    }
}
