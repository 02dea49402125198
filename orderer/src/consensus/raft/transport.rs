//! Messages to the other consenters of a channel: one stream to each, opened again when it breaks.
//!
//! Raft messages may be lost; submissions are answered or refused. Those that wait travel together, and their outcomes come back together.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use consort_channel_config::Consenter;
use consort_node::{
    Tasks,
    dial::{Dialer, with_causes},
    server::MESSAGE_BYTES_MAX,
};
use consort_protos::{
    consort::orderer::{
        Hello, Introduction, Standing, StepRequest, StepResponse, Verdict, cluster_client::ClusterClient,
        step_request::Content,
    },
    fabric::common::Envelope,
    ids::BlockNumber,
};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};
use tracing::{debug, info};

use super::{
    forwarding::{ANSWER_PATIENCE, BATCH_MESSAGES, Forwarding, ROOM_PATIENCE, Waiting, batches},
    introduction::Search,
    membership::Membership,
    shell::until,
};
use crate::{channel::ChannelState, consensus::Receipt, submission::Refusal};

/// Messages that wait for one consenter. Raft repeats what is dropped beyond that; each may carry a block.
const QUEUE_MESSAGES: usize = 128;

/// First and last pause between attempts to reach a consenter. One that comes up from an old copy of its disk waits so long that there are several
/// ([`super::alone::LONE_WAIT`]).
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// How long one attempt to reach a consenter may take.
const CONNECT_MAX: Duration = Duration::from_millis(1_500);

/// After which silence the other machine is asked whether it still knows the connection, and how long it may acknowledge nothing: one that went without a
/// word and is back with an old copy of its disk is reached while it waits, whatever the kernel still repeats on the former connection.
const PROBE_AFTER: Duration = Duration::from_secs(2);
const SILENCE_MAX: Duration = Duration::from_secs(7);

/// How long an introduction may take; then it is made again.
const INTRODUCTION_MAX: Duration = Duration::from_secs(5);

/// One thing to send that may be lost.
enum Outgoing {
    Raft(Bytes, Standing),
    Hello(Hello),
}

/// What the channel's task hears about the streams to the other consenters.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// There is a stream to this consenter.
    Open(u64),
    /// There is none any more.
    Broken(u64),
    /// This one does not take this node for a consenter.
    Refused(u64),
    /// It answers the hello.
    Verdict(u64, Verdict),
    /// A client's message is on its way to the leader, while this node rests.
    Wanted,
}

/// The way to the other consenters of one channel.
pub(crate) struct Transport {
    channel: String,
    /// It owns the tasks that use it.
    state: Weak<ChannelState>,
    dialer: Dialer,
    tasks: Tasks,
    events: mpsc::Sender<LinkEvent>,
    peers: Mutex<BTreeMap<u64, Peer>>,
    /// The channel's task rests, and wants to hear of clients.
    rests: AtomicBool,
}

struct Peer {
    consenter: Consenter,
    roots: Vec<Bytes>,
    queue: mpsc::Sender<Outgoing>,
    forwarding: Forwarding,
    wake: Arc<Notify>,
    tasks: Tasks,
}

impl Transport {
    /// `events` hears about the streams. They outlive the cancelling of the channel's tasks, so that leadership can be
    /// handed over; [`Transport::close`] ends them.
    pub(crate) fn new(
        state: &Arc<ChannelState>,
        dialer: Dialer,
        events: mpsc::Sender<LinkEvent>,
    ) -> Arc<Self> {
        let dialer = dialer.connect_timeout(CONNECT_MAX).probes(PROBE_AFTER, SILENCE_MAX);
        let (channel, tasks) = (state.id().as_str().to_owned(), state.tasks.lasting());
        let state = Arc::downgrade(state);
        Arc::new(Self {
            channel,
            state,
            dialer,
            tasks,
            events,
            peers: Mutex::default(),
            rests: AtomicBool::new(false),
        })
    }

    /// Opens streams to new consenters, closes those to former ones and to those that `refuses` names, and reopens those whose address
    /// or roots changed.
    pub(crate) fn connect(
        &self,
        membership: &Membership,
        own: Option<u64>,
        roots: &[Bytes],
        refuses: impl Fn(&Consenter) -> bool,
    ) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted: BTreeMap<u64, &Consenter> =
            membership.partners().filter(|(id, consenter)| Some(*id) != own && !refuses(consenter)).collect();
        peers.retain(|id, peer| {
            let keep =
                wanted.get(id).is_some_and(|consenter| **consenter == peer.consenter) && peer.roots == roots;
            if !keep {
                peer.tasks.cancel();
            }
            keep
        });
        for (id, consenter) in wanted {
            peers.entry(id).or_insert_with(|| self.open(id, consenter, roots));
        }
    }

    /// Whether the channel's task rests: then it hears of the next message of a client that is forwarded.
    pub(crate) fn rests(&self, rests: bool) {
        self.rests.store(rests, Ordering::Relaxed);
    }

    /// Ends all streams.
    pub(crate) fn close(&self) {
        self.tasks.cancel();
    }

    /// This consenter has been heard: a stream to it need not wait to be tried again.
    pub(crate) fn wake(&self, id: u64) {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = peers.get(&id) {
            peer.wake.notify_one();
        }
    }

    fn open(&self, id: u64, consenter: &Consenter, roots: &[Bytes]) -> Peer {
        let (queue, outgoing) = mpsc::channel(QUEUE_MESSAGES);
        let (forwarding, waiting) = Forwarding::new(id, ROOM_PATIENCE, ANSWER_PATIENCE);
        let (tasks, wake) = (self.tasks.child(), Arc::new(Notify::new()));
        let link = Link {
            id,
            channel: self.channel.clone(),
            state: self.state.clone(),
            endpoint: consenter.endpoint(),
            roots: roots.to_vec(),
            dialer: self.dialer.clone(),
            events: self.events.clone(),
            wake: Arc::clone(&wake),
        };
        let cancelled = tasks.cancelled();
        tasks.spawn(format!("consenter {} of {}", link.endpoint, link.channel), false, async move {
            tokio::select! {
                () = cancelled.cancelled() => {}
                () = link.run(outgoing, waiting) => {}
            }
        });
        Peer { consenter: consenter.clone(), roots: roots.to_vec(), queue, forwarding, wake, tasks }
    }

    /// Sends a Raft message if there is room.
    pub(crate) fn send(&self, to: u64, message: Bytes, standing: Standing) {
        self.put(to, Outgoing::Raft(message, standing));
    }

    /// Sends a hello if there is room.
    pub(crate) fn greet(&self, to: u64, hello: Hello) {
        self.put(to, Outgoing::Hello(hello));
    }

    fn put(&self, to: u64, outgoing: Outgoing) {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = peers.get(&to)
            && peer.queue.try_send(outgoing).is_err()
        {
            debug!(channel = self.channel, to, "Raft message dropped, too many wait");
        }
    }

    /// This consenter leads now, or nobody does: clients hear that those before it may not have ordered their messages.
    pub(crate) fn leads(&self, leader: Option<u64>) {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        for peer in peers.iter().filter(|(id, _)| Some(**id) != leader).map(|(_, peer)| peer) {
            peer.forwarding.refuse_unanswered("the Raft leader changed; the message may be lost");
        }
    }

    /// Forwards a client's message, judged under the configuration of that sequence, to the consenter that leads. Waits a while for room.
    pub(crate) async fn submit(
        &self,
        to: u64,
        envelope: Envelope,
        sequence: u64,
    ) -> Result<Receipt, Refusal> {
        if self.rests.swap(false, Ordering::Relaxed) {
            // Full: then it hears enough.
            let _awake = self.events.try_send(LinkEvent::Wanted);
        }
        let forwarding = {
            let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
            peers.get(&to).map(|peer| peer.forwarding.clone())
        };
        let forwarding = forwarding.ok_or_else(|| Refusal::unavailable("no Raft leader"))?;
        forwarding.submit(envelope, sequence).await
    }
}

/// Why a stream ended.
struct Ended {
    reason: String,
    /// The other consenter does not take this node for one.
    is_unknown: bool,
}

impl Ended {
    fn because(reason: &str) -> Self {
        Self { reason: reason.to_owned(), is_unknown: false }
    }
}

/// The stream to one consenter.
struct Link {
    id: u64,
    channel: String,
    state: Weak<ChannelState>,
    endpoint: String,
    roots: Vec<Bytes>,
    dialer: Dialer,
    events: mpsc::Sender<LinkEvent>,
    wake: Arc<Notify>,
}

impl Link {
    async fn run(self, mut outgoing: mpsc::Receiver<Outgoing>, mut waiting: Waiting) {
        let mut pause = PAUSE_MIN;
        let mut said = false;
        loop {
            match self.session(&mut outgoing, &mut waiting, &mut said).await {
                Ok(()) => return,
                Err(error) => {
                    if !said {
                        info!(
                            channel = self.channel,
                            endpoint = self.endpoint,
                            error,
                            "consenter not reached"
                        );
                        said = true;
                        pause = PAUSE_MIN;
                    }
                }
            }
            waiting.refuse_sent(&format!("the connection to the Raft leader {} broke", self.id));
            self.tell(LinkEvent::Broken(self.id));
            self.discard_for(pause, &mut outgoing, &mut waiting).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// The machine may be busy: a lost report only delays what heartbeats and repeated hellos find out.
    fn tell(&self, event: LinkEvent) {
        let _dropped_when_busy = self.events.try_send(event);
    }

    /// What is sent while there is no stream is lost: clients are told, Raft repeats.
    async fn discard_for(
        &self,
        pause: Duration,
        outgoing: &mut mpsc::Receiver<Outgoing>,
        waiting: &mut Waiting,
    ) {
        let over = tokio::time::sleep(pause);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return,
                () = self.wake.notified() => return,
                _refused = waiting.next(1) => {
                    waiting.refuse_sent(&format!("the Raft leader {} is not reached", self.id));
                }
                item = outgoing.recv() => if item.is_none() {
                    return;
                },
            }
        }
    }

    /// One stream from its opening to its end; `Ok` when nobody sends any more.
    async fn session(
        &self,
        outgoing: &mut mpsc::Receiver<Outgoing>,
        waiting: &mut Waiting,
        said: &mut bool,
    ) -> Result<(), String> {
        let channel = self.dialer.connect(&self.endpoint, &self.roots).map_err(|error| error.to_string())?;
        let mut client = ClusterClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let (requests, stream) = mpsc::channel(QUEUE_MESSAGES);
        let responses = client
            .step(ReceiverStream::new(stream))
            .await
            .map_err(|status| with_causes(&status))?
            .into_inner();
        debug!(channel = self.channel, endpoint = self.endpoint, "consenter reached");
        self.tell(LinkEvent::Open(self.id));
        let ended = self.exchange(outgoing, waiting, &requests, responses, said).await;
        if let Err(Ended { is_unknown: true, .. }) = &ended {
            self.tell(LinkEvent::Refused(self.id));
            self.introduce(client).await;
        }
        ended.map_err(|ended| ended.reason)
    }

    /// The other consenter does not take this node for one: the configuration of one of the two is older.
    async fn introduce(&self, client: ClusterClient<Channel>) {
        let shown = tokio::time::timeout(INTRODUCTION_MAX, self.show_what_is_missing(client)).await;
        debug!(channel = self.channel, endpoint = self.endpoint, ?shown, "introduced to a consenter");
    }

    /// Finds out where the other one's blocks end, or part from those here, and shows it the first one that it lacks; the number of that.
    async fn show_what_is_missing(&self, mut client: ClusterClient<Channel>) -> Result<Option<u64>, String> {
        let of_channel = || Introduction { channel: self.channel.clone(), ..Introduction::default() };
        let mut search = Search::new(self.state()?.store().height());
        while let Some(number) = search.question() {
            let hash = self.state()?.store().header_hash(BlockNumber::new(number));
            let hash = hash.map_err(|error| with_causes(&error))?.unwrap_or_default();
            let question = Introduction { number, hash, ..of_channel() };
            let answer = client.introduce(question).await.map_err(|status| with_causes(&status))?;
            search.told(answer.get_ref());
        }
        let Some(number) = search.found() else { return Ok(None) };
        let state = self.state()?;
        let (configuration, next) =
            (state.block(state.last_config())?, state.block(BlockNumber::new(number))?);
        drop(state);
        let shown = client.introduce(Introduction { configuration, next, ..of_channel() }).await;
        shown.map(|_heard| Some(number)).map_err(|status| with_causes(&status))
    }

    fn state(&self) -> Result<Arc<ChannelState>, String> {
        self.state.upgrade().ok_or_else(|| "the channel has stopped".to_owned())
    }

    async fn exchange(
        &self,
        outgoing: &mut mpsc::Receiver<Outgoing>,
        waiting: &mut Waiting,
        requests: &mpsc::Sender<StepRequest>,
        mut responses: Streaming<StepResponse>,
        said: &mut bool,
    ) -> Result<(), Ended> {
        let send = async |content: Content, standing: Option<Standing>| {
            let request = StepRequest { channel: self.channel.clone(), content: Some(content), standing };
            requests.send(request).await.map_err(|_closed| Ended::because("the stream broke"))
        };
        loop {
            let due = waiting.next_due();
            tokio::select! {
                item = outgoing.recv() => match item {
                    None => return Ok(()),
                    Some(Outgoing::Raft(message, of)) => send(Content::RaftMessage(message), Some(of)).await?,
                    Some(Outgoing::Hello(hello)) => send(Content::Hello(hello), None).await?,
                },
                submissions = waiting.next(BATCH_MESSAGES) => {
                    for batch in batches(submissions) {
                        send(Content::Submissions(batch), None).await?;
                    }
                }
                () = until(due) => waiting.refuse_overdue(),
                response = responses.message() => match response {
                    Ok(Some(response)) => {
                        *said = false;
                        response.outcomes.into_iter().for_each(|outcome| waiting.end(outcome));
                        if let Some(verdict) = response.verdict {
                            self.tell(LinkEvent::Verdict(self.id, verdict));
                        }
                    }
                    Ok(None) => return Err(Ended::because("the consenter closed the stream")),
                    Err(status) => return Err(Ended {
                        reason: format!("{}: {}", status.code(), status.message()),
                        is_unknown: status.code() == tonic::Code::PermissionDenied,
                    }),
                },
            }
        }
    }
}
