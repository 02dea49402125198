//! What a peer counts.

use std::collections::BTreeMap;

use consort_node::Metrics;
use consort_node::telemetry::ChannelLabel;
use consort_protos::fabric::protos::{ProposalResponse, Response};
use consort_protos::ids::ChannelId;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::channel::CommittedBlock;

/// A channel and a validation code.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    channel: String,
    code: String,
}

/// How a proposal ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// A channel and whether a member's peer acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PushLabel {
    channel: String,
    outcome: &'static str,
}

/// A channel and the address of a node that delivers its blocks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabel {
    channel: String,
    source: String,
}

/// How many proposals ended how. Held ready, since every call counts here.
struct Proposals {
    endorsed: Counter,
    evaluated: Counter,
    failed: Counter,
    refused: Counter,
}

/// From this status on a response is a failure (Fabric `core/endorser`).
const STATUS_REFUSED: i32 = 400;

/// The metrics of a peer.
pub struct PeerMetrics {
    heights: Family<ChannelLabel, Gauge>,
    commit_seconds: Family<ChannelLabel, Histogram>,
    transactions: Family<CodeLabel, Counter>,
    proposals: Proposals,
    behind: Family<ChannelLabel, Gauge>,
    wrong_blocks: Family<SourceLabel, Counter>,
    diverging: Family<ChannelLabel, Gauge>,
    private_missing: Family<ChannelLabel, Gauge>,
    private_missing_invalid: Family<ChannelLabel, Gauge>,
    private_supplied: Family<ChannelLabel, Counter>,
    private_pushes: Family<PushLabel, Counter>,
}

impl PeerMetrics {
    /// Registers the metrics.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let transactions = Family::<CodeLabel, Counter>::default();
        metrics.register(
            "committed_transactions",
            "Committed transactions by validation code",
            transactions.clone(),
        );
        let endorsements = Family::<OutcomeLabel, Counter>::default();
        metrics.register(
            "proposals",
            "Proposals by outcome: endorsed, evaluated (for the caller's information), failed (an answer without endorsement) or refused \
             (not executed)",
            endorsements.clone(),
        );
        let outcome = |outcome| endorsements.get_or_create(&OutcomeLabel { outcome }).clone();
        let proposals = Proposals {
            endorsed: outcome("endorsed"),
            evaluated: outcome("evaluated"),
            failed: outcome("failed"),
            refused: outcome("refused"),
        };
        let wrong_blocks = Family::<SourceLabel, Counter>::default();
        metrics.register(
            "wrong_blocks",
            "Blocks that were dropped because they are not the channel's, by the node that delivered them",
            wrong_blocks.clone(),
        );
        let private_supplied = Family::<ChannelLabel, Counter>::default();
        metrics.register(
            "private_data_supplied",
            "Private sets that came after their block had been committed",
            private_supplied.clone(),
        );
        let private_pushes = Family::<PushLabel, Counter>::default();
        metrics.register(
            "private_data_pushes",
            "Calls that handed private data to another peer, by outcome: acknowledged or failed",
            private_pushes.clone(),
        );
        Self {
            private_missing: metrics.channel_gauges(
                "private_data_missing",
                "Private sets of valid transactions that this peer should hold and does not, counted up to 10000",
            ),
            private_missing_invalid: metrics.channel_gauges(
                "private_data_missing_invalid",
                "The same of invalid transactions, which nobody can read but with their blocks; all are counted up to 10000",
            ),
            private_supplied,
            private_pushes,
            behind: metrics.channel_gauges(
                "blocks_behind",
                "Blocks that orderers or peers of the organisation have and this one does not",
            ),
            diverging: metrics.channel_gauges(
                "diverging_peers",
                "Peers of the channel that reported another commit hash than this one has",
            ),
            wrong_blocks,
            heights: metrics.channel_gauges("ledger_height", "Blocks in the ledger of a channel"),
            commit_seconds: metrics
                .channel_seconds("commit_seconds", "Time to judge and write a block, without waiting for it"),
            transactions,
            proposals,
        }
    }

    /// Notes the height of a channel.
    pub fn height(&self, channel: &ChannelId, height: u64) {
        let label = ChannelLabel { channel: channel.to_string() };
        self.heights.get_or_create(&label).set(i64::try_from(height).unwrap_or(i64::MAX));
    }

    /// Notes how many blocks of a channel other nodes have and this one does not.
    pub fn behind(&self, channel: &ChannelId, blocks: u64) {
        let label = ChannelLabel { channel: channel.to_string() };
        self.behind.get_or_create(&label).set(i64::try_from(blocks).unwrap_or(i64::MAX));
    }

    /// Notes a wrong block and who delivered it. The label is an address of the configuration or of an own peer.
    pub fn wrong_block(&self, channel: &ChannelId, source: &str) {
        let label = SourceLabel { channel: channel.to_string(), source: source.to_owned() };
        self.wrong_blocks.get_or_create(&label).inc();
    }

    /// Notes how many peers have other books than this one.
    pub fn diverging(&self, channel: &ChannelId, peers: usize) {
        let label = ChannelLabel { channel: channel.to_string() };
        self.diverging.get_or_create(&label).set(i64::try_from(peers).unwrap_or(i64::MAX));
    }

    /// Notes how many private sets are missing, of valid transactions and of invalid ones.
    pub fn private_missing(&self, channel: &ChannelId, valid: usize, invalid: usize) {
        let label = ChannelLabel { channel: channel.to_string() };
        for (gauge, sets) in [(&self.private_missing, valid), (&self.private_missing_invalid, invalid)] {
            gauge.get_or_create(&label).set(i64::try_from(sets).unwrap_or(i64::MAX));
        }
    }

    /// Notes private sets that came late.
    pub fn private_supplied(&self, channel: &ChannelId, sets: u64) {
        let label = ChannelLabel { channel: channel.to_string() };
        self.private_supplied.get_or_create(&label).inc_by(sets);
    }

    /// Notes how a call ended that handed private data to another peer.
    pub fn private_push(&self, channel: &ChannelId, acknowledged: bool) {
        let outcome = if acknowledged { "acknowledged" } else { "failed" };
        let label = PushLabel { channel: channel.to_string(), outcome };
        self.private_pushes.get_or_create(&label).inc();
    }

    /// Notes a committed block.
    pub fn committed(&self, channel: &ChannelId, block: &CommittedBlock, seconds: f64) {
        self.height(channel, block.number().get() + 1);
        let label = ChannelLabel { channel: channel.to_string() };
        self.commit_seconds.get_or_create(&label).observe(seconds);
        let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
        for code in block.codes() {
            *counts.entry(code.as_str_name()).or_default() += 1;
        }
        for (code, count) in counts {
            let label = CodeLabel { channel: channel.to_string(), code: code.to_owned() };
            self.transactions.get_or_create(&label).inc_by(count);
        }
    }

    /// Notes how a proposal ended.
    pub fn proposal<E>(&self, answer: &Result<ProposalResponse, E>) {
        let counter = match answer {
            Ok(answer) if answer.endorsement.is_some() => &self.proposals.endorsed,
            Ok(_) => &self.proposals.failed,
            Err(_) => &self.proposals.refused,
        };
        counter.inc();
    }

    /// Notes how a proposal ended that was executed for the caller's information.
    pub fn evaluation<E>(&self, answer: &Result<ProposalResponse, E>) {
        let succeeded = |response: &Response| response.status < STATUS_REFUSED;
        let counter = match answer {
            Ok(answer) if answer.response.as_ref().is_some_and(succeeded) => &self.proposals.evaluated,
            Ok(_) => &self.proposals.failed,
            Err(_) => &self.proposals.refused,
        };
        counter.inc();
    }
}

impl std::fmt::Debug for PeerMetrics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PeerMetrics")
    }
}
