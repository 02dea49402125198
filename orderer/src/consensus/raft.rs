//! Consensus by Raft, one group per channel.
//!
//! [`machine`] decides and is pure but for its log and books; [`shell`] is the task around it; [`transport`] reaches the others. That no
//! node ever votes without remembering what it promised is argued in [`admission`].

mod admission;
mod alone;
mod apply;
mod books;
mod catch_up;
mod disk;
#[cfg(test)]
mod elected;
mod fetch;
mod forwarding;
mod incoming;
mod introduction;
mod leading;
mod log;
mod machine;
mod membership;
mod memory;
mod opening;
mod pace;
mod reconfigure;
mod recovery;
mod roster;
mod shell;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod simulated_channel;
#[cfg(test)]
mod simulated_checks;
#[cfg(test)]
mod simulated_faults;
#[cfg(test)]
mod simulated_node;
#[cfg(test)]
mod simulation;
mod ticks;
mod transport;

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use consort_channel_config::{Consenter as ConfiguredConsenter, ETCDRAFT, RaftOptions};
use consort_crypto::certificate::Certificate;
use consort_node::dial::{Dialer, with_causes};
use consort_protos::{
    block,
    consort::orderer::{Hello, Introduced, Introduction, Standing, Verdict},
    ids::BlockNumber,
};
use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};
use tokio::sync::{
    Mutex,
    mpsc::{self, error::SendTimeoutError},
    oneshot, watch,
};

use self::{
    books::ChannelBooks,
    disk::Database,
    forwarding::ROOM_PATIENCE,
    machine::Machine,
    membership::Membership,
    shell::{Inbox, Incoming, Order, Parts, Shell},
    transport::Transport,
};
use crate::{
    channel::ChannelState,
    consensus::{Chain, Consenter, Leadership, Origin, Receipt, StartError, StepError},
    metrics::OrdererMetrics,
    submission::{Refusal, Submission},
};

/// Raft messages that wait for the channel's task; Raft repeats what is dropped beyond that.
const STEPS_QUEUE: usize = 1024;

/// Submissions that wait for the channel's task. They are in memory with their envelopes, so the bound is low; clients wait or try again.
const ORDERS_QUEUE: usize = 256;

/// Makes Raft chains.
pub(crate) struct RaftConsenter {
    pub(crate) own_certificate: Certificate,
    pub(crate) dialer: Dialer,
    pub(crate) metrics: OrdererMetrics,
}

impl RaftConsenter {
    fn membership(state: &ChannelState) -> Result<Membership, StartError> {
        let disk = |error: String| StartError::Disk(error);
        let last = BlockNumber::new(state.store().height().saturating_sub(1));
        let newest = state.store().block(last).map_err(|error| disk(with_causes(&error)))?;
        let newest = newest.ok_or_else(|| disk("there is no block".to_owned()))?;
        let noted = block::raft_metadata(&newest).map_err(|error| disk(with_causes(&error)))?;
        Membership::new(&consenters(state)?, noted.as_ref()).map_err(StartError::Configuration)
    }
}

fn consenters(state: &ChannelState) -> Result<Vec<ConfiguredConsenter>, StartError> {
    let bundle = state.bundle();
    let orderer = bundle.orderer();
    if orderer.consensus_type != ETCDRAFT {
        return Err(StartError::Configuration(format!(
            "consensus type {} is not Raft",
            orderer.consensus_type
        )));
    }
    Ok(orderer.consenters.clone())
}

fn check_timing(options: Option<RaftOptions>) -> Result<(), StartError> {
    let options =
        options.ok_or_else(|| StartError::Configuration("nil Raft config metadata options".to_owned()))?;
    if options.tick_interval.is_zero()
        || options.heartbeat_tick == 0
        || options.election_tick <= options.heartbeat_tick
    {
        return Err(StartError::Configuration("the Raft timing is not usable".to_owned()));
    }
    Ok(())
}

impl Consenter for RaftConsenter {
    fn start(&self, state: Arc<ChannelState>) -> Result<Arc<dyn Chain>, StartError> {
        check_timing(state.bundle().orderer().raft_options)?;
        let membership = Self::membership(&state)?;
        if membership.id_by_key(&self.own_certificate).is_none() {
            return Err(StartError::Configuration("this orderer is no consenter of the channel".to_owned()));
        }
        let disk = |error: &dyn std::error::Error| StartError::Disk(with_causes(&error));
        let membership = Arc::new(RwLock::new(membership));
        let metrics = self.metrics.of(state.id().as_str());
        metrics.height.set(i64::try_from(state.store().height()).unwrap_or(i64::MAX));
        let books = ChannelBooks::new(
            Arc::clone(&state),
            Arc::clone(&membership),
            self.own_certificate.clone(),
            metrics.clone(),
        )
        .map_err(StartError::Disk)?;
        let database = Database::open(&state.folder().join("raft"), metrics.log_sync_seconds.clone())
            .map_err(|error| disk(&error))?;
        let random = machine::Settings { random: Box::new(rand::random::<u64>), election_ticks: None };
        let machine = Machine::open(database, books, random).map_err(|error| disk(&error))?;
        let (events, events_inbox) = mpsc::channel(STEPS_QUEUE);
        let transport = Transport::new(&state, self.dialer.clone(), events);
        let (orders, orders_inbox) = mpsc::channel(ORDERS_QUEUE);
        let (steps, steps_inbox) = mpsc::channel(STEPS_QUEUE);
        let leadership = watch::Sender::new(Leadership::Nobody);
        let (stranger, listens) = (Arc::default(), Arc::new(AtomicBool::new(true)));
        let chain = RaftChain {
            membership: Arc::clone(&membership),
            transport: Arc::clone(&transport),
            orders,
            steps,
            leadership: leadership.subscribe(),
            stranger: Arc::clone(&stranger),
            listens: Arc::clone(&listens),
            state: Arc::clone(&state),
            own_certificate: self.own_certificate.clone(),
            introducing: Mutex::default(),
        };
        let inbox = Inbox { orders: orders_inbox, steps: steps_inbox, events: events_inbox };
        let tasks = state.tasks.clone();
        let name = format!("channel {}", state.id());
        let parts = Parts {
            state,
            machine,
            transport,
            membership,
            leadership,
            stranger,
            listens,
            metrics,
            inbox,
            dialer: self.dialer.clone(),
        };
        tasks.spawn(name, false, Shell::new(parts).run());
        Ok(Arc::new(chain))
    }
}

/// Raft's own log lines, in the process's log.
fn logger() -> slog::Logger {
    slog::Logger::root(RaftLines, slog::o!())
}

struct RaftLines;

impl slog::Drain for RaftLines {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &slog::Record<'_>, _values: &slog::OwnedKVList) -> Result<(), slog::Never> {
        match record.level() {
            slog::Level::Critical | slog::Level::Error => tracing::error!(target: "raft", "{}", record.msg()),
            slog::Level::Warning => tracing::warn!(target: "raft", "{}", record.msg()),
            _ => tracing::debug!(target: "raft", "{}", record.msg()),
        }
        Ok(())
    }
}

/// The handle of a channel's Raft chain.
struct RaftChain {
    membership: Arc<RwLock<Membership>>,
    transport: Arc<Transport>,
    orders: mpsc::Sender<Order>,
    steps: mpsc::Sender<Incoming>,
    leadership: watch::Receiver<Leadership>,
    /// Somebody called whom this node's configuration does not name: it may lack a newer one.
    stranger: Arc<AtomicBool>,
    state: Arc<ChannelState>,
    own_certificate: Certificate,
    /// Whether a consenter that the configuration does not name is heard.
    listens: Arc<AtomicBool>,
    /// One introduction is judged at a time; who comes meanwhile comes again.
    introducing: Mutex<()>,
}

impl RaftChain {
    fn partner(&self, certificate: &[u8]) -> Result<u64, StepError> {
        let membership = self.membership.read().unwrap_or_else(PoisonError::into_inner);
        membership.partner_by_certificate(certificate).ok_or_else(|| {
            self.stranger.store(true, Ordering::Relaxed);
            StepError::NotAuthorized
        })
    }
}

#[async_trait]
impl Chain for RaftChain {
    async fn order(&self, submission: Submission, origin: Origin) -> Result<Receipt, Refusal> {
        let leadership = *self.leadership.borrow();
        match leadership {
            Leadership::Own => {}
            Leadership::Other(id) if origin == Origin::Client => {
                return self.transport.submit(id, submission.original, submission.sequence).await;
            }
            Leadership::Other(_) | Leadership::Nobody => return Err(Refusal::unavailable("no Raft leader")),
        }
        let (reply, receipt) = oneshot::channel();
        enqueue(&self.orders, Order { submission, reply }, ROOM_PATIENCE).await?;
        Ok(receipt)
    }

    fn step(&self, certificate: &[u8], standing: Standing, message: Bytes) -> Result<(), StepError> {
        let from = self.partner(certificate)?;
        let mut parsed = Message::default();
        parsed.merge_from_bytes(&message).map_err(|_unreadable| StepError::Malformed)?;
        if !is_from_others(parsed.get_msg_type()) {
            return Err(StepError::Malformed);
        }
        // Full or stopped: Raft repeats what matters.
        let _dropped = self.steps.try_send(Incoming::Raft { from, standing, message: Box::new(parsed) });
        Ok(())
    }

    fn hello(&self, certificate: &[u8], hello: Hello) -> Result<oneshot::Receiver<Verdict>, StepError> {
        let from = self.partner(certificate)?;
        self.transport.wake(from);
        let (reply, verdict) = oneshot::channel();
        // Full or stopped: the hello is said again.
        let _dropped = self.steps.try_send(Incoming::Hello { from, hello, reply });
        Ok(verdict)
    }

    async fn introduce(&self, introduction: Introduction) -> Result<Introduced, String> {
        // Who follows a leader, or leads others, hears in the log who the consenters are.
        if !self.listens.load(Ordering::Relaxed) {
            return Ok(Introduced::default());
        }
        let Introduction { configuration, next, number, hash, .. } = introduction;
        let (Some(configuration), Some(next)) = (configuration, next) else {
            return introduction::answer(&self.state, number, &hash);
        };
        let listening = Introduced { listens: true, ..Introduced::default() };
        let Some(evidence) = introduction::place(&self.state, &next)? else { return Ok(listening) };
        let _one_at_a_time = self.introducing.try_lock().map_err(|_busy| "another one is being heard")?;
        let (state, own) = (Arc::clone(&self.state), self.own_certificate.clone());
        let judging = tokio::task::spawn_blocking(move || {
            introduction::judge(&state, &own, &configuration, &next, evidence)
        });
        let (introduction, whereabouts) = judging.await.map_err(|fault| fault.to_string())??;
        // Full or stopped: it is introduced again.
        let _dropped = self.steps.try_send(Incoming::Introduction { introduction, whereabouts });
        Ok(listening)
    }

    async fn recover(&self) -> Result<(), String> {
        let (reply, outcome) = oneshot::channel();
        let stopped = "the channel has stopped on this orderer";
        self.steps.send(Incoming::Recover { reply }).await.map_err(|_stopped| stopped.to_owned())?;
        outcome.await.unwrap_or_else(|_stopped| Err(stopped.to_owned()))
    }

    fn is_consenter(&self, certificate: &[u8]) -> bool {
        let membership = self.membership.read().unwrap_or_else(PoisonError::into_inner);
        membership.id_by_certificate(certificate).is_some()
    }
}

/// Hands an order to the channel's task, when there is a place in time.
async fn enqueue(orders: &mpsc::Sender<Order>, order: Order, patience: Duration) -> Result<(), Refusal> {
    orders.send_timeout(order, patience).await.map_err(|error| match error {
        SendTimeoutError::Timeout(_) => {
            Refusal::unavailable(format!("the orderer is busy: {ORDERS_QUEUE} messages wait on this channel"))
        }
        SendTimeoutError::Closed(_) => Refusal::unavailable("chain is stopped"),
    })
}

/// The messages that consenters send each other. Proposals are not among them: blocks are made by the leader alone.
fn is_from_others(kind: MessageType) -> bool {
    matches!(
        kind,
        MessageType::MsgAppend
            | MessageType::MsgAppendResponse
            | MessageType::MsgRequestVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse
            | MessageType::MsgSnapshot
            | MessageType::MsgHeartbeat
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgTimeoutNow
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::submission::Kind;
    use consort_protos::fabric::common::Status;

    fn order() -> Order {
        let submission = Submission {
            original: Default::default(),
            ordered: Bytes::new(),
            size: 0,
            kind: Kind::Normal,
            sequence: 0,
        };
        Order { submission, reply: oneshot::channel().0 }
    }

    #[tokio::test]
    async fn a_full_queue_lets_clients_wait_and_then_refuses_them_with_the_reason() {
        let (orders, mut inbox) = mpsc::channel(1);
        enqueue(&orders, order(), ROOM_PATIENCE).await.unwrap();
        let refused = enqueue(&orders, order(), Duration::from_millis(1)).await.unwrap_err();
        assert_eq!(refused.status, Status::ServiceUnavailable);
        assert!(refused.info.contains("messages wait on this channel"), "{refused}");
        let (taken, _first) = tokio::join!(enqueue(&orders, order(), ROOM_PATIENCE), inbox.recv());
        taken.unwrap();
    }
}
