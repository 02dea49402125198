//! Consensus by Raft, one group per channel.
//!
//! [`machine`] decides and is pure but for its log and books; [`shell`] is the task around it; [`transport`] reaches the others. That no
//! node ever votes without remembering what it promised is argued in [`admission`].

mod admission;
mod apply;
mod books;
mod disk;
mod fetch;
mod incoming;
mod log;
mod machine;
mod membership;
mod memory;
mod reconfigure;
mod roster;
mod shell;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod simulation;
mod transport;

use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::Bytes;
use consort_channel_config::{Consenter as ConfiguredConsenter, ETCDRAFT, RaftOptions};
use consort_crypto::certificate::Certificate;
use consort_node::dial::{Dialer, with_causes};
use consort_protos::{
    block,
    consort::orderer::{Hello, Standing, Verdict},
    ids::BlockNumber,
};
use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};
use tokio::sync::{
    mpsc::{
        self,
        error::{SendTimeoutError, TrySendError},
    },
    oneshot, watch,
};

use self::{
    books::ChannelBooks,
    disk::Database,
    machine::Machine,
    membership::Membership,
    shell::{Inbox, Incoming, Order, Parts, Settings, Shell},
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

/// How long a client waits for a place in that queue.
const ORDER_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

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

fn options(state: &ChannelState) -> Result<RaftOptions, StartError> {
    let options = state.bundle().orderer().raft_options;
    let options =
        options.ok_or_else(|| StartError::Configuration("nil Raft config metadata options".to_owned()))?;
    if options.tick_interval.is_zero()
        || options.heartbeat_tick == 0
        || options.election_tick <= options.heartbeat_tick
    {
        return Err(StartError::Configuration("the Raft timing is not usable".to_owned()));
    }
    Ok(options)
}

impl Consenter for RaftConsenter {
    fn start(&self, state: Arc<ChannelState>) -> Result<Arc<dyn Chain>, StartError> {
        let options = options(&state)?;
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
        let database = Database::open(&state.folder().join("raft")).map_err(|error| disk(&error))?;
        let random = machine::Settings { random: Box::new(rand::random::<u64>), election_ticks: None };
        let machine = Machine::open(database, books, random).map_err(|error| disk(&error))?;
        let (events, events_inbox) = mpsc::channel(STEPS_QUEUE);
        let transport = Transport::new(state.id().as_str(), self.dialer.clone(), &state.tasks, events);
        let (orders, orders_inbox) = mpsc::channel(ORDERS_QUEUE);
        let (steps, steps_inbox) = mpsc::channel(STEPS_QUEUE);
        let leadership = watch::Sender::new(Leadership::Nobody);
        let stranger = Arc::default();
        let chain = RaftChain {
            membership: Arc::clone(&membership),
            transport: Arc::clone(&transport),
            orders,
            steps,
            leadership: leadership.subscribe(),
            stranger: Arc::clone(&stranger),
        };
        let inbox = Inbox { orders: orders_inbox, steps: steps_inbox, events: events_inbox };
        let settings = Settings { dialer: self.dialer.clone(), tick_interval: options.tick_interval };
        let tasks = state.tasks.clone();
        let name = format!("channel {}", state.id());
        let parts =
            Parts { state, machine, transport, membership, leadership, stranger, metrics, inbox, settings };
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
    stranger: Arc<std::sync::atomic::AtomicBool>,
}

impl RaftChain {
    fn partner(&self, certificate: &[u8]) -> Result<u64, StepError> {
        let membership = self.membership.read().unwrap_or_else(PoisonError::into_inner);
        membership.partner_by_certificate(certificate).ok_or_else(|| {
            self.stranger.store(true, std::sync::atomic::Ordering::Relaxed);
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
                return self.transport.submit(id, submission.original, submission.sequence);
            }
            Leadership::Other(_) | Leadership::Nobody => return Err(Refusal::unavailable("no Raft leader")),
        }
        let (reply, receipt) = oneshot::channel();
        enqueue(&self.orders, Order { submission, reply }, origin).await?;
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

    fn is_consenter(&self, certificate: &[u8]) -> bool {
        let membership = self.membership.read().unwrap_or_else(PoisonError::into_inner);
        membership.id_by_certificate(certificate).is_some()
    }
}

fn busy() -> Refusal {
    Refusal::unavailable(format!("the orderer is busy: {ORDERS_QUEUE} messages wait on this channel"))
}

/// Hands an order to the channel's task. Clients wait a while for a place; other consenters never do, because Raft messages come behind
/// their submissions on the same stream.
async fn enqueue(orders: &mpsc::Sender<Order>, order: Order, origin: Origin) -> Result<(), Refusal> {
    let order = match (orders.try_send(order), origin) {
        (Ok(()), _) => return Ok(()),
        (Err(TrySendError::Closed(_)), _) => return Err(Refusal::unavailable("chain is stopped")),
        (Err(TrySendError::Full(_)), Origin::Consenter { .. }) => return Err(busy()),
        (Err(TrySendError::Full(order)), Origin::Client) => order,
    };
    orders.send_timeout(order, ORDER_PATIENCE).await.map_err(|error| match error {
        SendTimeoutError::Timeout(_) => busy(),
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
    use consort_protos::fabric::common::Status;
    use futures::FutureExt as _;

    use super::*;
    use crate::submission::Kind;

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
    async fn a_full_queue_refuses_other_consenters_at_once_and_lets_clients_wait() {
        let (orders, _inbox) = mpsc::channel(1);
        let consenter = Origin::Consenter { judged_at: None };
        enqueue(&orders, order(), consenter).await.unwrap();
        let refused = enqueue(&orders, order(), consenter).now_or_never().unwrap();
        assert_eq!(refused.unwrap_err().status, Status::ServiceUnavailable);
        assert!(enqueue(&orders, order(), Origin::Client).now_or_never().is_none());
    }
}
