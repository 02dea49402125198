//! What a peer counts.

use consort_node::Metrics;
use consort_node::telemetry::ChannelLabel;
use consort_protos::fabric::protos::TxValidationCode;
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

/// A channel, a chaincode, and whether the proposal was endorsed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndorsementLabel {
    channel: String,
    chaincode: String,
    endorsed: String,
}

/// The metrics of a peer.
pub struct PeerMetrics {
    heights: Family<ChannelLabel, Gauge>,
    commit_seconds: Family<ChannelLabel, Histogram>,
    transactions: Family<CodeLabel, Counter>,
    endorsements: Family<EndorsementLabel, Counter>,
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
        let endorsements = Family::<EndorsementLabel, Counter>::default();
        metrics.register(
            "endorsed_proposals",
            "Proposals that were run, by chaincode and outcome",
            endorsements.clone(),
        );
        Self {
            heights: metrics.channel_gauges("ledger_height", "Blocks in the ledger of a channel"),
            commit_seconds: metrics
                .channel_seconds("commit_seconds", "Time to judge and write a block, without waiting for it"),
            transactions,
            endorsements,
        }
    }

    /// Notes the height of a channel.
    pub fn height(&self, channel: &ChannelId, height: u64) {
        let label = ChannelLabel { channel: channel.to_string() };
        self.heights.get_or_create(&label).set(i64::try_from(height).unwrap_or(i64::MAX));
    }

    /// Notes a committed block.
    pub fn committed(&self, channel: &ChannelId, block: &CommittedBlock, seconds: f64) {
        self.height(channel, block.number().get() + 1);
        let label = ChannelLabel { channel: channel.to_string() };
        self.commit_seconds.get_or_create(&label).observe(seconds);
        for code in block.codes() {
            let code: &TxValidationCode = code;
            let label = CodeLabel { channel: channel.to_string(), code: code.as_str_name().to_owned() };
            self.transactions.get_or_create(&label).inc();
        }
    }

    /// Notes the outcome of a proposal. `chaincode` is only counted by name when it is defined, so that callers cannot
    /// make up labels.
    pub fn endorsement(&self, channel: &str, chaincode: &str, endorsed: bool) {
        let label = EndorsementLabel {
            channel: channel.to_owned(),
            chaincode: chaincode.to_owned(),
            endorsed: endorsed.to_string(),
        };
        self.endorsements.get_or_create(&label).inc();
    }
}

impl std::fmt::Debug for PeerMetrics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PeerMetrics")
    }
}
