//! How time reaches a channel's machine: in Raft's ticks, and at rest several of them at once, so that an idle orderer sleeps.
//!
//! A tick by which nothing happens is worth waking nobody for. So the machine says how many may come together ([`Machine::quiet_ticks`]), and the shell sleeps so
//! long ([`Ticks`]). Whatever else comes is handed over only after the ticks that have passed meanwhile, so the machine's clock is never behind what it
//! hears. A leader that has nothing to say says so less often: three times per election timeout rather than at every `heartbeat_tick`.
//!
//! # Rest
//!
//! When nothing has happened for some election timeouts, the clocks of all consenters run slowly ([`Machine::slowness`]), because an idle orderer should cost nothing, and
//! nobody waits for an election. A leader says with its heartbeats that it rests; a follower that has nothing to do either says so with its answers, and slows down
//! at once; the leader slows down when all the others say so. Anything but such a heartbeat or answer ends it for who hears it: a message, a hello, a connection that breaks
//! or is opened, a client's message here or for the leader. So a leader whose process ends is missed as soon as its connections break, one whose machine is lost when the operating system
//! misses it ([`super::transport`]), and in any case with the first message of a client, whose orderer greets the others for it; only one that hangs while nobody wants anything is missed ten times
//! later. A follower that wakes for nothing asks for votes that nobody gives, by which the leader hears that it is awake. Elections are safe whatever clocks do.

use std::{collections::BTreeSet, time::Duration};

use raft::{
    ProgressState, StateRole,
    eraftpb::{Message, MessageType},
};
use tokio::time::Instant;

use super::{
    disk::Disk,
    machine::{Books, Machine, MachineError},
};

/// How often a resting leader is heard within an election timeout: one message, and a second one, may be late without anybody noticing.
const BEATS_PER_ELECTION: usize = 3;

/// Quiet election timeouts after which clocks may run slowly.
const QUIET_ELECTIONS: u64 = 5;

/// So much longer a tick lasts at rest.
const SLOWNESS: u32 = 10;

impl<D: Disk, B: Books> Machine<D, B> {
    /// This many ticks of Raft's clock have passed.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub(crate) fn pass(&mut self, ticks: usize) -> Result<(), MachineError> {
        if !self.rests() {
            self.busy_at = self.ticks;
        }
        for _ in 0..ticks {
            if self.tick_admission()? {
                self.node.tick();
            }
            self.judge_held();
        }
        if ticks > 1 {
            self.keep_last_heartbeats();
        }
        Ok(())
    }

    /// Heartbeats that are sent together say the same: one for each is enough.
    fn keep_last_heartbeats(&mut self) {
        let messages = &mut self.node.raft.msgs;
        let mut told = BTreeSet::new();
        messages.reverse();
        messages
            .retain(|message| message.get_msg_type() != MessageType::MsgHeartbeat || told.insert(message.to));
        messages.reverse();
    }

    /// The ticks that may be passed together, the last of which is the first one by which something may happen; at least one.
    pub(crate) fn quiet_ticks(&self) -> usize {
        let raft = &self.node.raft;
        let quiet = match raft.state {
            StateRole::Leader if self.rests() => {
                // Followers go on with new options at once, a leader keeps the former ones.
                let configured = self.books.raft_options().election_tick as usize;
                (raft.election_timeout().min(configured) / BEATS_PER_ELECTION)
                    .max(raft.heartbeat_timeout())
                    .saturating_sub(raft.heartbeat_elapsed())
            }
            StateRole::Leader => raft.heartbeat_timeout().saturating_sub(raft.heartbeat_elapsed()),
            // Not up to the election itself: one who was stopped meanwhile hears first what came, and then lets the last tick pass.
            StateRole::Follower if self.rests() => {
                let timeout = raft.election_timeout().min(raft.randomized_election_timeout());
                timeout.saturating_sub(raft.election_elapsed + 1)
            }
            _ => 1,
        };
        quiet.max(1)
    }

    /// How many times longer than configured a tick may last.
    pub(crate) fn slowness(&self) -> u32 {
        let own = self.node.raft.id;
        let leads = self.node.raft.state == StateRole::Leader;
        let all_rest = || self.node.raft.prs().iter().all(|(id, _)| *id == own || self.resting.contains(id));
        if self.may_rest() && (!leads || all_rest()) { SLOWNESS } else { 1 }
    }

    /// Somebody wants something here. A leader whose clock ran slowly does not know who is alive.
    pub(crate) fn wake_up(&mut self) {
        if self.node.raft.state == StateRole::Leader && self.slowness() > 1 {
            self.heard.clear();
            self.led_since = self.ticks;
        }
        self.busy_at = self.ticks;
        self.resting.clear();
    }

    /// A client wants something of the leader, or the leader may be gone: the others are needed awake, should it not answer.
    pub(crate) fn wake_all(&mut self) {
        self.wake_up();
        self.greetings.extend(self.others());
    }

    /// Another consenter says that it rests, or does not.
    pub(super) fn hear_of_rest(&mut self, id: u64, rests: bool) {
        if rests {
            self.resting.insert(id);
        } else {
            self.resting.remove(&id);
        }
    }

    /// Another consenter greets or asks for a vote: it may miss the leader, and this node must be able to miss it as soon. The leader hears of it, too, and
    /// shows itself.
    pub(super) fn woken_by(&mut self, id: u64) {
        let leader = self.node.raft.leader_id;
        let follows_another = self.node.raft.state != StateRole::Leader && leader != id;
        if follows_another && self.resting.contains(&leader) {
            self.greetings.insert(self.aliases.get(&leader).copied().unwrap_or(leader));
            self.resting.clear();
        }
        self.resting.remove(&id);
    }

    /// Whether a message says that its sender rests.
    pub(super) fn says_rest(&self, message: &Message) -> bool {
        matches!(message.get_msg_type(), MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse)
            && self.may_rest()
    }

    /// A leader decides; the others follow it.
    fn may_rest(&self) -> bool {
        let raft = &self.node.raft;
        let is_time = match raft.state {
            StateRole::Leader => {
                self.ticks >= self.busy_at + QUIET_ELECTIONS * raft.election_timeout() as u64
            }
            _ => self.resting.contains(&raft.leader_id),
        };
        is_time && self.rests()
    }

    /// Whether only Raft's own clock can make something happen here: nothing is on its way, and nobody waits to be heard.
    fn rests(&self) -> bool {
        let waits = self.is_waiting() || !self.in_flight.is_empty() || !self.held.is_empty();
        let leads = self.node.raft.state == StateRole::Leader;
        !waits
            && self.takes_part()
            && self.is_led()
            && !self.has_unsynced_memory()
            && (!leads || self.leads() && self.all_have_everything() && !self.is_change_due())
            && self.unaware().is_empty()
    }

    /// Whether all of Raft's members are heard, and have acknowledged all that there is.
    fn all_have_everything(&self) -> bool {
        let raft = &self.node.raft;
        let last = raft.raft_log.last_index();
        raft.lead_transferee.is_none()
            && raft.prs().iter().all(|(id, progress)| {
                *id == raft.id
                    || progress.matched == last
                        && progress.state != ProgressState::Snapshot
                        && self.is_active(*id)
            })
    }
}

/// More than any election timeout that is of use; the bound keeps sums of times in their range.
const TOGETHER_MAX: u32 = 1_000;

/// The ticks that have passed and those that come, by a clock that the caller reads.
pub(super) struct Ticks {
    interval: Duration,
    /// When the first tick that was not handed out is due.
    next: Instant,
    /// How many are handed out together, unless somebody asks before.
    together: u32,
}

impl Ticks {
    /// The first one is due at once.
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, next: now, together: 1 }
    }

    /// When to ask again at the latest.
    pub(super) fn due(&self) -> Instant {
        self.next + self.interval * (self.together - 1)
    }

    /// How many have passed since they were last handed out; never more than were planned, however late somebody asks.
    pub(super) fn passed(&mut self, now: Instant) -> usize {
        let Some(late) = now.checked_duration_since(self.next) else { return 0 };
        let whole = late.as_nanos() / self.interval.as_nanos().max(1);
        let passed = u32::try_from(whole).unwrap_or(u32::MAX).saturating_add(1).min(self.together);
        self.next += self.interval * passed;
        if self.next <= now {
            self.next = now + self.interval;
        }
        self.together = 1;
        passed as usize
    }

    /// Hands out so many of the next ones together.
    pub(super) fn plan(&mut self, together: usize) {
        self.together = u32::try_from(together).unwrap_or(u32::MAX).clamp(1, TOGETHER_MAX);
    }

    /// From now on they come at these intervals.
    pub(super) fn follow(&mut self, interval: Duration, now: Instant) {
        if interval < self.interval {
            self.next = self.next.min(now + interval);
        } else if interval > self.interval {
            self.next = now + interval;
        }
        self.interval = interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::{Leadership, raft::elected::Elected};

    const INTERVAL: Duration = Duration::from_millis(100);

    #[test]
    fn the_first_tick_comes_at_once_and_then_one_per_interval() {
        let start = Instant::now();
        let mut ticks = Ticks::new(INTERVAL, start);
        assert_eq!(ticks.due(), start);
        assert_eq!(ticks.passed(start), 1);
        assert_eq!((ticks.passed(start), ticks.due()), (0, start + INTERVAL));
        assert_eq!(ticks.passed(start + INTERVAL + INTERVAL / 2), 1);
        assert_eq!(ticks.due(), start + 2 * INTERVAL, "a wake-up that is late delays no other");
    }

    #[test]
    fn planned_ticks_come_together_and_sooner_when_somebody_asks() {
        let start = Instant::now();
        let mut ticks = Ticks::new(INTERVAL, start);
        ticks.passed(start);
        ticks.plan(5);
        assert_eq!(ticks.due(), start + 5 * INTERVAL);
        assert_eq!(ticks.passed(start + 2 * INTERVAL + INTERVAL / 2), 2);
        ticks.plan(3);
        assert_eq!(ticks.due(), start + 5 * INTERVAL);
        assert_eq!(ticks.passed(ticks.due()), 3);
    }

    #[test]
    fn a_process_that_was_stopped_makes_up_for_no_more_than_was_planned() {
        let start = Instant::now();
        let mut ticks = Ticks::new(INTERVAL, start);
        ticks.passed(start);
        ticks.plan(4);
        let late = start + 100 * INTERVAL;
        assert_eq!(ticks.passed(late), 4);
        assert_eq!((ticks.passed(late), ticks.due()), (0, late + INTERVAL));
    }

    #[test]
    fn another_interval_counts_from_now_on() {
        let start = Instant::now();
        let mut ticks = Ticks::new(INTERVAL, start);
        ticks.passed(start);
        ticks.follow(INTERVAL, start);
        assert_eq!(ticks.due(), start + INTERVAL);
        ticks.follow(10 * INTERVAL, start);
        assert_eq!(ticks.due(), start + 10 * INTERVAL);
        ticks.follow(INTERVAL, start + 2 * INTERVAL);
        assert_eq!(ticks.due(), start + 3 * INTERVAL);
    }

    /// All have heard of the leader and of all entries.
    fn at_rest() -> Elected {
        let mut elected = Elected::new();
        elected.silent = None;
        elected.sleep_for(20);
        elected
    }

    #[test]
    fn at_rest_a_leader_wakes_three_times_per_election_timeout_and_followers_for_it_alone() {
        let mut elected = at_rest();
        let mut woken = [0; 3];
        for _ in 0..300 {
            let wakes = elected.sleep();
            (0..3).for_each(|index| woken[index] += usize::from(wakes[index]));
        }
        assert_eq!(woken, [100, 0, 0]);
        assert!(elected.machine(0).leads());
        assert_eq!([1, 2].map(|index| elected.machine(index).leadership()), [Leadership::Other(1); 2]);
        assert!([1, 2].iter().all(|index| elected.machine(*index).is_led()));
    }

    #[test]
    fn a_resting_leader_that_falls_silent_is_replaced_in_time() {
        let mut elected = at_rest();
        elected.silent = Some(0);
        let passed = (1..).find(|_| {
            elected.sleep();
            elected.machine(1).leads() || elected.machine(2).leads()
        });
        // The followers of this test wait for 16 to 21 ticks.
        assert!(matches!(passed, Some(12..=22)), "{passed:?}");
    }

    #[test]
    fn a_leader_that_misses_somebody_or_has_work_is_heard_at_every_tick() {
        let mut elected = at_rest();
        elected.send("a message", 1);
        assert_eq!(elected.machine(0).quiet_ticks(), 1, "a block is being agreed on");
        elected.exchange();
        elected.sleep();
        assert_eq!(elected.machine(0).quiet_ticks(), 3);

        elected.silent = Some(2);
        elected.sleep_for(12);
        assert_eq!(elected.machine(0).quiet_ticks(), 1, "the third one has not been heard for long");
    }

    fn slowness(elected: &mut Elected) -> [u32; 3] {
        std::array::from_fn(|index| elected.machine(index).slowness())
    }

    /// Nothing has happened for long.
    fn asleep() -> Elected {
        let mut elected = at_rest();
        elected.sleep_for(60);
        assert_eq!(slowness(&mut elected), [SLOWNESS; 3]);
        elected
    }

    #[test]
    fn clocks_run_slowly_when_nothing_has_happened_for_long_and_a_message_wakes_all() {
        let mut elected = at_rest();
        assert_eq!(slowness(&mut elected), [1; 3]);
        elected.sleep_for(60);
        assert_eq!(slowness(&mut elected), [SLOWNESS; 3]);

        elected.send("a message", 1);
        elected.exchange();
        assert_eq!(slowness(&mut elected), [1; 3]);
        elected.sleep_for(60);
        assert_eq!(slowness(&mut elected), [SLOWNESS; 3]);
    }

    #[test]
    fn who_loses_the_leader_or_forwards_a_message_to_it_does_not_wait_long_for_it() {
        let mut elected = asleep();
        elected.silent = Some(0);
        elected.machine(1).unreachable(1);
        elected.exchange();
        assert_eq!(slowness(&mut elected), [SLOWNESS, 1, 1]);
        let mut elected = asleep();
        elected.silent = Some(0);
        elected.machine(1).wake_all();
        elected.exchange();
        assert_eq!(slowness(&mut elected), [SLOWNESS, 1, 1]);
    }

    #[test]
    fn a_connection_that_broke_and_is_back_does_not_end_the_rest_for_long() {
        let mut elected = asleep();
        elected.machine(0).unreachable(3);
        elected.machine(2).unreachable(1);
        elected.exchange();
        elected.machine(0).reached(3);
        elected.machine(2).reached(1);
        elected.exchange();
        elected.sleep_for(80);
        assert!(elected.machine(0).leads());
        assert_eq!(slowness(&mut elected), [SLOWNESS; 3]);
    }

    #[test]
    fn who_wakes_for_nothing_wakes_the_leader_and_changes_nothing() {
        let mut elected = asleep();
        elected.machine(1).wake_up();
        // Its clock runs ten times as fast as those of the others.
        for _ in 0..30 {
            elected.machine(1).pass(1).unwrap();
            elected.exchange();
            if slowness(&mut elected)[0] == 1 {
                break;
            }
        }
        assert_eq!(slowness(&mut elected)[0], 1, "it hears that one is awake");
        elected.sleep_for(60);
        assert!(elected.machine(0).leads());
        assert_eq!(slowness(&mut elected), [SLOWNESS; 3]);
    }

    #[test]
    fn a_leader_waits_for_all_to_rest() {
        let mut elected = at_rest();
        elected.silent = Some(2);
        elected.sleep_for(60);
        assert_eq!(slowness(&mut elected)[..2], [1, 1]);
    }
}
