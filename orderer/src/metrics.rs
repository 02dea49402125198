//! The numbers that the orderer shows at `/metrics`.

use std::time::Instant;

use consort_node::{Metrics, telemetry::ChannelLabel};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};

use crate::cutter::CutReason;

/// Channel and reason of a cut.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct CutLabel {
    channel: String,
    reason: &'static str,
}

/// Channel and another consenter, `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PeerLabel {
    channel: String,
    consenter: String,
}

/// The metrics of all channels.
#[derive(Debug, Clone)]
pub(crate) struct OrdererMetrics {
    lags: Family<PeerLabel, Gauge>,
    leader: Family<ChannelLabel, Gauge>,
    term: Family<ChannelLabel, Gauge>,
    height: Family<ChannelLabel, Gauge>,
    voters: Family<ChannelLabel, Gauge>,
    active: Family<ChannelLabel, Gauge>,
    rests: Family<ChannelLabel, Gauge>,
    submissions: Family<ChannelLabel, Counter>,
    refusals: Family<ChannelLabel, Counter>,
    cuts: Family<CutLabel, Counter>,
    drive_seconds: Family<ChannelLabel, Histogram>,
    log_sync_seconds: Family<ChannelLabel, Histogram>,
    block_write_seconds: Family<ChannelLabel, Histogram>,
}

/// The metrics of one channel.
#[derive(Debug, Clone)]
pub(crate) struct ChannelMetrics {
    channel: String,
    lags: Family<PeerLabel, Gauge>,
    /// Whom `lags` shows.
    shown: Vec<PeerLabel>,
    pub(crate) leader: Gauge,
    pub(crate) term: Gauge,
    pub(crate) height: Gauge,
    pub(crate) voters: Gauge,
    pub(crate) active: Gauge,
    pub(crate) rests: Gauge,
    pub(crate) submissions: Counter,
    pub(crate) refusals: Counter,
    cuts: Family<CutLabel, Counter>,
    pub(crate) drive_seconds: Histogram,
    pub(crate) log_sync_seconds: Histogram,
    pub(crate) block_write_seconds: Histogram,
}

impl OrdererMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let cuts = Family::<CutLabel, Counter>::default();
        metrics.register(
            "orderer_blocks_cut",
            "Blocks cut by this orderer as leader, by reason",
            cuts.clone(),
        );
        let lags = Family::<PeerLabel, Gauge>::default();
        metrics.register(
            "orderer_raft_peer_lag_entries",
            "Entries of the Raft log that another consenter is not known to have; the leader knows",
            lags.clone(),
        );
        Self {
            lags,
            leader: metrics.channel_gauges("orderer_is_leader", "1 where this orderer leads the channel"),
            term: metrics.channel_gauges("orderer_raft_term", "Raft term of the channel"),
            height: metrics.channel_gauges("orderer_block_height", "Number of blocks of the channel"),
            active: metrics.channel_gauges(
                "orderer_raft_active",
                "Consenters that this one has heard from within an election timeout, itself among them",
            ),
            rests: metrics.channel_gauges(
                "orderer_raft_rests",
                "1 while nothing happens and the clock of the channel's Raft group runs slowly here",
            ),
            voters: metrics
                .channel_gauges("orderer_raft_voters", "Consenters that vote, as far as this one knows"),
            submissions: metrics.channel_counters("orderer_submissions", "Messages taken for ordering"),
            refusals: metrics.channel_counters("orderer_refusals", "Messages refused after they were taken"),
            drive_seconds: metrics.channel_seconds(
                "orderer_raft_step_seconds",
                "Time of a Raft step with its synced log write and the blocks that it completes",
            ),
            log_sync_seconds: metrics.channel_seconds(
                "orderer_raft_log_sync_seconds",
                "Time of a write of the Raft log until the disk has it (fsync)",
            ),
            block_write_seconds: metrics.channel_seconds(
                "orderer_block_write_seconds",
                "Time to write a block, which the Raft log on disk stands for until it is synced",
            ),
            cuts,
        }
    }

    pub(crate) fn of(&self, channel: &str) -> ChannelMetrics {
        let label = ChannelLabel { channel: channel.to_owned() };
        ChannelMetrics {
            channel: channel.to_owned(),
            lags: self.lags.clone(),
            shown: Vec::new(),
            leader: self.leader.get_or_create_owned(&label),
            term: self.term.get_or_create_owned(&label),
            height: self.height.get_or_create_owned(&label),
            voters: self.voters.get_or_create_owned(&label),
            active: self.active.get_or_create_owned(&label),
            rests: self.rests.get_or_create_owned(&label),
            submissions: self.submissions.get_or_create_owned(&label),
            refusals: self.refusals.get_or_create_owned(&label),
            cuts: self.cuts.clone(),
            drive_seconds: self.drive_seconds.get_or_create_owned(&label),
            log_sync_seconds: self.log_sync_seconds.get_or_create_owned(&label),
            block_write_seconds: self.block_write_seconds.get_or_create_owned(&label),
        }
    }
}

impl ChannelMetrics {
    /// How far the other consenters are behind; nothing where this orderer does not lead.
    pub(crate) fn show_lags(&mut self, lags: impl IntoIterator<Item = (String, u64)>) {
        let mut now = Vec::new();
        for (consenter, lag) in lags {
            let label = PeerLabel { channel: self.channel.clone(), consenter };
            self.lags.get_or_create(&label).set(i64::try_from(lag).unwrap_or(i64::MAX));
            now.push(label);
        }
        for gone in self.shown.iter().filter(|label| !now.contains(label)) {
            self.lags.remove(gone);
        }
        self.shown = now;
    }

    pub(crate) fn cut(&self, reason: CutReason) {
        let label = CutLabel { channel: self.channel.clone(), reason: reason.as_str() };
        self.cuts.get_or_create(&label).inc();
    }
}

/// Measures what a function takes.
pub(crate) fn timed<T>(histogram: &Histogram, act: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = act();
    histogram.observe(start.elapsed().as_secs_f64());
    result
}
