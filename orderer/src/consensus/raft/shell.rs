//! The task around a channel's Raft machine: time, mailboxes, disk and network.

mod following;
mod missing;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use consort_node::{
    deliver::Condition,
    dial::{Dialer, with_causes},
};
use consort_protos::{
    consort::orderer::{Hello, Standing, Verdict},
    fabric::common::Block,
};
use protobuf::Message as _;
use raft::eraftpb::Message;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

use super::{
    alone::Introduction,
    books::ChannelBooks,
    disk::Database,
    introduction::Whereabouts,
    machine::{Books as _, Machine, Outbox, Ticket},
    membership::Membership,
    pace::Pace,
    ticks::Ticks,
    transport::{LinkEvent, Transport},
};
use crate::{
    channel::ChannelState,
    consensus::Leadership,
    metrics::{ChannelMetrics, timed},
    submission::{Refusal, Submission},
};

/// Inputs of one kind that are taken together before the log is written: they share its sync.
const DRAIN_MAX: usize = 512;

/// While no leader has been seen since the start, elections are asked for after a random pause between these, so that a network is
/// up quickly whatever its election timeout. A node that hears from a leader refuses (pre-vote), so this disturbs nobody. The pause doubles
/// up to the election timeout, so that elections that take longer than it come to an end.
const FIRST_ELECTION_MS: std::ops::Range<u64> = 100..400;

/// How long a leader that stops waits for another one to take over.
const HAND_OVER: Duration = Duration::from_secs(1);

/// So long an introduction counts; who still has reason for it makes it again.
const INTRODUCED_FOR: Duration = Duration::from_secs(10);

/// A submission with the way back to whoever waits for its outcome.
pub(super) struct Order {
    pub(super) submission: Submission,
    pub(super) reply: oneshot::Sender<Result<(), Refusal>>,
}

/// What others send; `from` is the Raft id that its certificate stands for.
pub(super) enum Incoming {
    Raft {
        from: u64,
        standing: Standing,
        message: Box<Message>,
    },
    Hello {
        from: u64,
        hello: Hello,
        reply: oneshot::Sender<Verdict>,
    },
    /// From a consenter that the configuration here does not name.
    Introduction {
        introduction: Introduction,
        whereabouts: Whereabouts,
    },
    /// An operator's word, not a consenter's.
    Recover {
        reply: oneshot::Sender<Result<(), String>>,
    },
}

/// What others send to the task.
pub(super) struct Inbox {
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) steps: mpsc::Receiver<Incoming>,
    pub(super) events: mpsc::Receiver<LinkEvent>,
}

/// What the task is made of.
pub(super) struct Parts {
    pub(super) state: Arc<ChannelState>,
    pub(super) machine: Machine<Database, ChannelBooks>,
    pub(super) transport: Arc<Transport>,
    pub(super) membership: Arc<RwLock<Membership>>,
    pub(super) leadership: watch::Sender<Leadership>,
    pub(super) stranger: Arc<AtomicBool>,
    pub(super) listens: Arc<AtomicBool>,
    pub(super) metrics: ChannelMetrics,
    pub(super) inbox: Inbox,
    pub(super) dialer: Dialer,
}

/// The task's state.
pub(super) struct Shell {
    parts: Parts,
    waiting: HashMap<Ticket, oneshot::Sender<Result<(), Refusal>>>,
    next_ticket: Ticket,
    ticks: Ticks,
    batch_deadline: Option<Instant>,
    pace: Pace,
    /// When the pause before the next block is over that somebody waits for.
    cut_at: Option<Instant>,
    election: Option<Instant>,
    /// Elections asked for since the start.
    elections: u32,
    /// The configuration sequence, the ids and the number of former consenters that the transport knows.
    connected_at: Option<(u64, Vec<u64>, bool)>,
    fetched: Option<mpsc::Receiver<Block>>,
    /// Where they are asked for, and since when.
    fetching: Option<(Vec<String>, Instant)>,
    /// Where unknown consenters say that blocks are, and until when that counts.
    introduced: Option<(Whereabouts, Instant)>,
    /// Consenters that do not take this node for one: a configuration that it lacks may have removed it.
    doubters: BTreeSet<u64>,
    obstacle: Option<String>,
}

/// What the task hears next.
enum Input {
    /// Only time has passed.
    Time,
    /// The first message that waits for its block has waited for long enough.
    BatchDeadline,
    /// No leader has shown up since the start.
    Election,
    Incoming(Incoming),
    Link(LinkEvent),
    /// A block that was fetched; `None` when there are no more.
    Fetched(Option<Block>),
    Order(Order),
}

/// Hands the machine's messages to the transport.
struct Wire<'a>(&'a Transport);

impl Outbox for Wire<'_> {
    fn send(&mut self, to: u64, message: Message, standing: Standing) {
        match message.write_to_bytes() {
            Ok(bytes) => self.0.send(to, bytes.into(), standing),
            Err(error) => warn!(%error, "a Raft message cannot be encoded"),
        }
    }

    fn greet(&mut self, to: u64, hello: Hello) {
        self.0.greet(to, hello);
    }
}

impl Shell {
    pub(super) fn new(parts: Parts) -> Self {
        let ticks = Ticks::new(parts.machine.books().raft_options().tick_interval, Instant::now());
        Self {
            parts,
            waiting: HashMap::new(),
            next_ticket: 0,
            ticks,
            batch_deadline: None,
            pace: Pace::default(),
            cut_at: None,
            election: None,
            elections: 0,
            connected_at: None,
            fetched: None,
            fetching: None,
            introduced: None,
            doubters: BTreeSet::new(),
            obstacle: None,
        }
    }

    /// Runs until the channel's tasks are cancelled or the disk fails; then the channel is marked as stopped.
    pub(super) async fn run(mut self) {
        let stopped = Stopped(Arc::clone(&self.parts.state), Arc::clone(&self.parts.transport));
        let cancelled = self.parts.state.tasks.cancelled();
        if let Err(reason) = self.serve(&cancelled).await {
            self.parts.state.fail(reason);
            self.parts.leadership.send_replace(Leadership::Nobody);
        }
        self.parts.metrics.leader.set(0);
        // The log's files are free before anybody hears of the end: the channel may be deleted or started anew at once.
        drop(self);
        drop(stopped);
    }

    async fn serve(&mut self, cancelled: &tokio_util::sync::CancellationToken) -> Result<(), String> {
        self.keep_leaving()?;
        self.election = Some(Instant::now() + self.election_pause());
        self.settle()?;
        while let Some(input) = self.next_input(cancelled).await {
            self.pass_time()?;
            self.take(input)?;
            self.settle()?;
            if self.is_removed() {
                info!(channel = %self.parts.state.id(), "this orderer is no consenter of the channel any more");
                self.parts.leadership.send_replace(Leadership::Nobody);
                return Ok(());
            }
        }
        self.leave().await
    }

    /// Waits for whatever comes next; `None` when the channel is to stop.
    async fn next_input(&mut self, cancelled: &tokio_util::sync::CancellationToken) -> Option<Input> {
        let takes_orders = self.parts.machine.accepts() || !self.parts.machine.leads();
        self.ticks.plan(self.parts.machine.quiet_ticks());
        let inbox = &mut self.parts.inbox;
        tokio::select! {
            biased;
            () = cancelled.cancelled() => None,
            () = sleep_until(self.ticks.due()) => Some(Input::Time),
            () = until(self.batch_deadline) => Some(Input::BatchDeadline),
            // The block is cut when the input is settled.
            () = until(self.cut_at) => Some(Input::Time),
            () = until(self.election) => Some(Input::Election),
            Some(incoming) = inbox.steps.recv() => Some(Input::Incoming(incoming)),
            Some(event) = inbox.events.recv() => Some(Input::Link(event)),
            block = next_fetched(&mut self.fetched) => Some(Input::Fetched(block)),
            Some(order) = inbox.orders.recv(), if takes_orders => Some(Input::Order(order)),
        }
    }

    fn take(&mut self, input: Input) -> Result<(), String> {
        match input {
            Input::Time => {}
            Input::BatchDeadline => {
                self.batch_deadline = None;
                self.parts.machine.batch_expired();
            }
            Input::Election => {
                self.parts.machine.campaign();
                self.elections = self.elections.saturating_add(1);
                self.election = Some(Instant::now() + self.election_pause());
            }
            Input::Incoming(incoming) => self.step(incoming)?,
            Input::Link(event) => self.link(&event)?,
            Input::Fetched(block) => self.take_fetched(block)?,
            Input::Order(order) => self.order(order),
        }
        Ok(())
    }

    /// Tells the machine of the ticks since it last heard of any: what comes next finds it with the right time.
    fn pass_time(&mut self) -> Result<(), String> {
        let now = Instant::now();
        let passed = self.ticks.passed(now);
        if passed == 0 {
            return Ok(());
        }
        let machine = &mut self.parts.machine;
        // Who takes part writes nothing here, and to hand the thread over for nothing wakes others, at every tick.
        let ticked =
            if machine.takes_part() { machine.pass(passed) } else { blocking(|| machine.pass(passed)) };
        ticked.map_err(|error| with_causes(&error))?;
        // Nobody else could lead, and nobody's vote is needed.
        if self.is_single() {
            self.parts.machine.campaign();
        }
        self.show_lags();
        let machine = &mut self.parts.machine;
        let listens = !machine.is_led() || machine.is_alone();
        self.parts.listens.store(listens, Ordering::Relaxed);
        if machine.has_unsynced_memory() {
            blocking(|| machine.keep_memory()).map_err(|error| with_causes(&error))?;
        }
        let active = self.parts.machine.active().len();
        self.parts.metrics.active.set(i64::try_from(active).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Ticks last as long as configured, and longer at rest.
    fn follow_pace(&mut self) {
        let machine = &self.parts.machine;
        let slowness = machine.slowness();
        self.parts.transport.rests(slowness > 1);
        self.parts.metrics.rests.set(i64::from(slowness > 1));
        self.ticks.follow(machine.books().raft_options().tick_interval * slowness, Instant::now());
    }

    fn is_single(&self) -> bool {
        self.parts.machine.members().0.len() == 1
    }

    /// The configuration names this node no more, and Raft does not count it: it has heard so in the log from somebody who goes on, or the others do not listen any more.
    fn is_removed(&self) -> bool {
        self.parts.machine.is_removed(&self.doubters)
    }

    fn election_pause(&self) -> Duration {
        let first = Duration::from_millis(rand::random_range(FIRST_ELECTION_MS));
        let options = self.parts.machine.books().raft_options();
        election_pause(first, self.elections, options.tick_interval * options.election_tick)
    }

    fn step(&mut self, incoming: Incoming) -> Result<(), String> {
        self.take_incoming(incoming)?;
        for _ in 1..DRAIN_MAX {
            match self.parts.inbox.steps.try_recv() {
                Ok(incoming) => self.take_incoming(incoming)?,
                Err(_empty) => break,
            }
        }
        Ok(())
    }

    fn take_incoming(&mut self, incoming: Incoming) -> Result<(), String> {
        match incoming {
            Incoming::Raft { from, standing, message } => {
                self.parts.machine.step(from, &standing, *message);
            }
            Incoming::Hello { from, hello, reply } => {
                let machine = &mut self.parts.machine;
                let verdict = blocking(|| machine.hear(from, &hello)).map_err(|error| with_causes(&error))?;
                let _caller_may_be_gone = reply.send(verdict);
            }
            Incoming::Introduction { introduction, whereabouts } => {
                let machine = &mut self.parts.machine;
                let counts =
                    blocking(|| machine.introduced(&introduction)).map_err(|error| with_causes(&error))?;
                if counts {
                    self.introduced = Some((whereabouts, Instant::now() + INTRODUCED_FOR));
                }
            }
            Incoming::Recover { reply } => {
                let machine = &mut self.parts.machine;
                let outcome = blocking(|| machine.recover()).map_err(|error| with_causes(&error))?;
                let _caller_may_be_gone = reply.send(outcome);
            }
        }
        Ok(())
    }

    fn link(&mut self, event: &LinkEvent) -> Result<(), String> {
        match *event {
            LinkEvent::Open(id) => self.parts.machine.reached(id),
            LinkEvent::Broken(id) => self.parts.machine.unreachable(id),
            LinkEvent::Wanted => self.parts.machine.wake_all(),
            LinkEvent::Refused(id) => {
                self.doubters.insert(id);
            }
            LinkEvent::Verdict(id, ref verdict) => {
                let machine = &mut self.parts.machine;
                return blocking(|| machine.judged(id, verdict)).map_err(|error| with_causes(&error));
            }
        }
        Ok(())
    }

    fn order(&mut self, order: Order) {
        self.submit(order);
        for _ in 1..DRAIN_MAX {
            if self.parts.machine.leads() && !self.parts.machine.accepts() {
                return;
            }
            match self.parts.inbox.orders.try_recv() {
                Ok(order) => self.submit(order),
                Err(_empty) => return,
            }
        }
    }

    fn submit(&mut self, order: Order) {
        self.next_ticket += 1;
        self.waiting.insert(self.next_ticket, order.reply);
        self.parts.metrics.submissions.inc();
        self.parts.machine.submit(order.submission, self.next_ticket);
    }

    /// Does what the inputs led to, and tells whoever waits.
    fn settle(&mut self) -> Result<(), String> {
        let now = Instant::now();
        let next_cut = self.pace.next_cut(now);
        loop {
            if next_cut.is_none() {
                self.parts.machine.cut_if_idle();
            }
            let (machine, metrics) = (&mut self.parts.machine, &self.parts.metrics);
            let mut wire = Wire(&self.parts.transport);
            let waits = machine.will_sync();
            let mut drive = || timed(&metrics.drive_seconds, || machine.drive(&mut wire));
            // Giving this thread's other tasks away costs wake-ups, and most inputs need no disk.
            if waits { blocking(drive) } else { drive() }.map_err(|error| with_causes(&error))?;
            // A single consenter agrees with itself at once, and what waited meanwhile need not wait longer.
            if next_cut.is_some() || !(self.parts.machine.is_waiting() && self.parts.machine.is_idle()) {
                break;
            }
        }
        self.tell_outcomes();
        for (reason, messages) in self.parts.machine.take_cuts() {
            self.pace.cut(messages, now);
            self.parts.metrics.cut(reason);
        }
        self.pace.agreed(self.parts.machine.in_flight(), Instant::now());
        let is_waiting = self.parts.machine.is_waiting();
        self.cut_at = next_cut.filter(|_| is_waiting && self.parts.machine.is_idle());
        self.batch_deadline = match (is_waiting, self.batch_deadline) {
            (false, _) => None,
            (true, Some(running)) => Some(running),
            (true, None) => Some(Instant::now() + self.parts.machine.batch_timeout()),
        };
        self.publish_leadership();
        self.connect();
        self.fetch();
        self.follow_pace();
        Ok(())
    }

    fn tell_outcomes(&mut self) {
        for outcome in self.parts.machine.take_outcomes() {
            if outcome.result.is_err() {
                self.parts.metrics.refusals.inc();
            }
            if let Some(reply) = self.waiting.remove(&outcome.ticket) {
                let _client_may_be_gone = reply.send(outcome.result);
            }
        }
    }

    /// Hands leadership over, so that the others need not wait for an election.
    async fn leave(&mut self) -> Result<(), String> {
        if !self.parts.machine.leads() || self.is_single() {
            return Ok(());
        }
        self.parts.machine.hand_over();
        self.settle()?;
        let over = tokio::time::sleep(HAND_OVER);
        tokio::pin!(over);
        while self.parts.machine.leads() {
            tokio::select! {
                () = &mut over => return Ok(()),
                Some(incoming) = self.parts.inbox.steps.recv() => self.step(incoming)?,
            }
            self.settle()?;
        }
        Ok(())
    }
}

/// Tells readers that no new blocks come when the task ends in whatever way, and closes the streams to the other consenters.
struct Stopped(Arc<ChannelState>, Arc<Transport>);

impl Drop for Stopped {
    fn drop(&mut self) {
        self.1.close();
        if std::thread::panicking() {
            self.0.fail("a fault in the consensus of this channel".to_owned());
        } else if self.0.failure().is_none() {
            self.0.set_condition(Condition::Closed);
        }
    }
}

/// The pause before an election, after so many earlier ones.
fn election_pause(first: Duration, earlier: u32, election_timeout: Duration) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(earlier)).min(election_timeout)
}

/// Waits until then; for ever when there is no then.
pub(super) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn next_fetched(fetched: &mut Option<mpsc::Receiver<Block>>) -> Option<Block> {
    match fetched {
        Some(blocks) => blocks.recv().await,
        None => std::future::pending().await,
    }
}

/// Synced writes take milliseconds; the runtime's other tasks move to another thread meanwhile.
fn blocking<T>(act: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::current().runtime_flavor() {
        tokio::runtime::RuntimeFlavor::MultiThread => tokio::task::block_in_place(act),
        _ => act(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_between_first_elections_doubles_up_to_the_election_timeout() {
        let pauses = [0, 1, 2, 3, u32::MAX]
            .map(|earlier| election_pause(Duration::from_millis(300), earlier, Duration::from_secs(2)));
        assert_eq!(pauses.map(|pause| pause.as_millis()), [300, 600, 1200, 2000, 2000]);
    }
}
