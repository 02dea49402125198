//! The task around a channel's Raft machine: time, mailboxes, disk and network.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use consort_channel_config::Consenter;
use consort_node::{
    Tasks,
    deliver::Condition,
    dial::{Dialer, with_causes},
};
use consort_protos::{
    block,
    consort::orderer::{Hello, Standing, Verdict},
    fabric::common::Block,
};
use protobuf::Message as _;
use raft::eraftpb::Message;
use rand::seq::SliceRandom as _;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

use super::{
    alone::Introduction,
    books::ChannelBooks,
    catch_up::{Fetched, NotAppended, Offer},
    disk::Database,
    fetch::Fetch,
    introduction::Whereabouts,
    machine::{Books as _, Machine, Outbox, Ticket},
    membership::Membership,
    pace::Pace,
    ticks::Ticks,
    transport::{LinkEvent, Transport},
};
use crate::{
    channel::ChannelState,
    consensus::{Leadership, revoked},
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

/// Fetched blocks that wait to be checked and written; more would only hold memory.
const FETCHED_QUEUE: usize = 8;

/// So long an introduction counts; who still has reason for it makes it again.
const INTRODUCED_FOR: Duration = Duration::from_secs(10);

/// Blocks are asked for elsewhere, because of another introduction, after this time at the earliest.
const ELSEWHERE_AFTER: Duration = Duration::from_secs(2);

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

    /// A removal that was agreed on before a restart may still have to be carried out with the one who leaves.
    fn keep_leaving(&mut self) -> Result<(), String> {
        let counted = self.parts.machine.counted();
        let Some(earlier) = self.parts.machine.books().membership_before()? else { return Ok(()) };
        let mut membership = self.parts.membership.write().unwrap_or_else(PoisonError::into_inner);
        membership.keep_leaving(&earlier, &counted);
        Ok(())
    }

    fn show_lags(&mut self) {
        let lags = self.parts.machine.lags();
        let membership = self.parts.membership.read().unwrap_or_else(PoisonError::into_inner);
        let endpoint =
            |id: u64| membership.members().find(|(other, _)| *other == id).map(|(_, one)| one.endpoint());
        let named: Vec<(String, u64)> =
            lags.into_iter().filter_map(|(id, lag)| Some((endpoint(id)?, lag))).collect();
        drop(membership);
        self.parts.metrics.show_lags(named);
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
            LinkEvent::Wanted => self.parts.machine.wake_up(),
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

    fn publish_leadership(&mut self) {
        let leadership = match self.parts.machine.leadership() {
            // An elected leader orders only once everything before its term is in the books.
            Leadership::Own if !self.parts.machine.leads() => Leadership::Nobody,
            other => other,
        };
        if leadership != Leadership::Nobody {
            self.election = None;
        }
        if self.parts.machine.is_led() {
            self.doubters.clear();
            self.parts.stranger.store(false, Ordering::Relaxed);
        }
        let changed = self
            .parts
            .leadership
            .send_if_modified(|current| std::mem::replace(current, leadership) != leadership);
        let obstacle = self.parts.machine.obstacle();
        if changed {
            self.parts.transport.leads(match leadership {
                Leadership::Other(id) => Some(id),
                Leadership::Own | Leadership::Nobody => None,
            });
            self.parts.metrics.leader.set(i64::from(leadership == Leadership::Own));
            self.parts.metrics.term.set(i64::try_from(self.parts.machine.term()).unwrap_or(i64::MAX));
            info!(channel = %self.parts.state.id(), ?leadership, term = self.parts.machine.term(), "Raft leadership");
        }
        if changed || obstacle != self.obstacle {
            self.parts.state.set_condition(match (&obstacle, leadership) {
                (Some(reason), _) => Condition::Unavailable(reason.clone()),
                (None, Leadership::Nobody) => Condition::Unavailable("no Raft leader".to_owned()),
                (None, Leadership::Own | Leadership::Other(_)) => Condition::Serving,
            });
            self.obstacle = obstacle;
        }
    }

    /// Follows the configuration: who the consenters are and which roots their certificates have.
    fn connect(&mut self) {
        let books = self.parts.machine.books();
        let (sequence, own) = (books.sequence(), books.own_id());
        let voters = self.parts.machine.members().0.len();
        let counted = self.parts.machine.counted();
        self.parts.metrics.voters.set(i64::try_from(voters).unwrap_or(i64::MAX));
        let mut shared = self.parts.membership.write().unwrap_or_else(PoisonError::into_inner);
        shared.let_go(&counted);
        let at = (sequence, shared.ids().0, shared.has_leaving());
        if self.connected_at.as_ref() == Some(&at) {
            return;
        }
        self.connected_at = Some(at);
        let membership = shared.clone();
        drop(shared);
        let bundle = self.parts.state.bundle();
        let refuses = |consenter: &Consenter| revoked::is_revoked(bundle.msps(), consenter);
        self.parts.transport.connect(&membership, own, &self.roots(), refuses);
    }

    fn roots(&self) -> Vec<Bytes> {
        let bundle = self.parts.state.bundle();
        let organisations = bundle.orderer().organisations.iter();
        organisations.flat_map(|organisation| bundle.tls_roots_of(&organisation.msp_id)).collect()
    }

    /// Starts to fetch blocks when some are missing.
    fn fetch(&mut self) {
        let now = Instant::now();
        self.introduced.take_if(|(_, until)| *until < now);
        let is_doubted = !self.doubters.is_empty() || self.parts.stranger.load(Ordering::Relaxed);
        let Some(last) = self.parts.machine.wanted(is_doubted, self.introduced.is_some()) else {
            self.fetched = None;
            return;
        };
        let (mut endpoints, roots) = self.sources();
        let is_old = self
            .fetching
            .as_ref()
            .is_some_and(|(asked, since)| *asked != endpoints && *since + ELSEWHERE_AFTER < now);
        if endpoints.is_empty() || self.fetched.is_some() && !is_old {
            return;
        }
        self.fetching = Some((endpoints.clone(), now));
        endpoints.shuffle(&mut rand::rng());
        let fetch = Fetch {
            state: Arc::clone(&self.parts.state),
            dialer: self.parts.dialer.clone(),
            endpoints,
            roots,
            last,
        };
        let (blocks, fetched) = mpsc::channel(FETCHED_QUEUE);
        let tasks: &Tasks = &self.parts.state.tasks;
        let cancelled = tasks.cancelled();
        tasks.spawn(format!("fetch of {}", self.parts.state.id()), false, async move {
            tokio::select! {
                () = cancelled.cancelled() => {}
                () = fetch.run(blocks) => {}
            }
        });
        self.fetched = Some(fetched);
    }

    /// Who may have blocks that are missing here, with the TLS roots of their organisations: the other consenters, and those who have introduced themselves.
    fn sources(&self) -> (Vec<String>, Vec<Bytes>) {
        let own = self.parts.machine.books().own_id();
        let membership = self.parts.membership.read().unwrap_or_else(PoisonError::into_inner);
        let others = membership.members().filter(|(id, _)| Some(*id) != own);
        let mut endpoints: Vec<String> = others.map(|(_, consenter)| consenter.endpoint()).collect();
        drop(membership);
        let mut roots = self.roots();
        if let Some((whereabouts, _)) = &self.introduced {
            endpoints.extend_from_slice(&whereabouts.endpoints);
            roots.extend_from_slice(&whereabouts.roots);
        }
        endpoints.sort_unstable();
        endpoints.dedup();
        (endpoints, roots)
    }

    fn take_fetched(&mut self, block: Option<Block>) -> Result<(), String> {
        let Some(block) = block else {
            self.fetched = None;
            return Ok(());
        };
        let number = block::number(&block).get();
        let noted = block::raft_metadata(&block).map_err(|error| error.to_string());
        let (machine, state) = (&mut self.parts.machine, &self.parts.state);
        let taken = match noted {
            Ok(noted) => blocking(|| {
                let (index, ids) =
                    noted.map(|noted| (noted.raft_index, noted.consenter_ids)).unwrap_or_default();
                let previous_hash =
                    block.header.as_ref().map(|header| header.previous_hash.clone()).unwrap_or_default();
                let offer = Offer { number, previous_hash, index, ids };
                let check = |books: &ChannelBooks| books.check_fetched(&block);
                machine.take_fetched(&offer, check, |books| {
                    books.append_fetched(&block).map_err(|reason| match state.store().poisoned() {
                        Some(poisoned) => NotAppended::Broken(poisoned),
                        None => NotAppended::Wrong(reason),
                    })
                })
            })
            .map_err(|error| with_causes(&error))?,
            Err(reason) => Fetched::Refused(reason),
        };
        if let Fetched::Refused(reason) = taken {
            warn!(channel = %state.id(), number, reason, "a fetched block is refused, another orderer is asked");
            self.fetched = None;
            return Ok(());
        }
        let height = machine.books().height();
        self.parts.metrics.height.set(i64::try_from(height).unwrap_or(i64::MAX));
        Ok(())
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
