//! Logs and metrics of a process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry},
};
use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Directives of the form `level` or `target=level`, joined by commas: `info,consort_orderer=debug`. Default: `info`.
    pub filter: String,
    /// Lines for people or objects for machines. Default: `text`.
    pub format: LogFormat,
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of text.
    #[default]
    Text,
    /// One JSON object on a line.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Text }
    }
}

/// The log could not be set up or its filter not be changed.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The directives are not understood.
    #[error("the log filter `{filter}` is not valid: {reason}")]
    Filter {
        /// What was given.
        filter: String,
        /// The parser's words.
        reason: String,
    },
    /// A process has one log; it was set up before.
    #[error("the log of this process is already set up")]
    AlreadySet,
    /// The log's filter is gone, which happens only while the process ends.
    #[error("the log is no longer there")]
    Gone,
}

/// Changes what is logged while the process runs (`/logspec`).
#[derive(Clone)]
pub struct LogHandle {
    handle: reload::Handle<EnvFilter, tracing_subscriber::Registry>,
    current: Arc<Mutex<String>>,
}

impl std::fmt::Debug for LogHandle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("LogHandle").field("filter", &self.filter()).finish()
    }
}

impl LogHandle {
    /// The directives in force.
    #[must_use]
    pub fn filter(&self) -> String {
        lock(&self.current).clone()
    }

    /// Replaces the directives.
    ///
    /// # Errors
    /// [`TelemetryError::Filter`] when they are not understood; the old ones then stay.
    pub fn set_filter(&self, filter: &str) -> Result<(), TelemetryError> {
        let parsed = parse_filter(filter)?;
        self.handle.reload(parsed).map_err(|_gone| TelemetryError::Gone)?;
        filter.clone_into(&mut lock(&self.current));
        Ok(())
    }
}

fn parse_filter(filter: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder()
        .parse(filter)
        .map_err(|error| TelemetryError::Filter { filter: filter.to_owned(), reason: error.to_string() })
}

/// Sends the process's log to standard error.
///
/// # Errors
/// [`TelemetryError::Filter`] when the directives are not understood, [`TelemetryError::AlreadySet`] at a second call.
pub fn init(config: &LogConfig) -> Result<LogHandle, TelemetryError> {
    let (filter, handle) = reload::Layer::new(parse_filter(&config.filter)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match config.format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|_already| TelemetryError::AlreadySet)?;
    Ok(LogHandle { handle, current: Arc::new(Mutex::new(config.filter.clone())) })
}

/// Labels of a metric that is kept per channel.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ChannelLabel {
    /// The channel's id.
    pub channel: String,
}

/// Upper bounds of latency buckets, in seconds: from the time of a synced write to that of a slow wide-area commit.
pub const SECONDS_BUCKETS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// The metrics of a process, in Prometheus' text form. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    resident_bytes: Gauge,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// An empty set, but for the process's own numbers.
    #[must_use]
    pub fn new() -> Self {
        let resident_bytes = Gauge::default();
        let metrics = Self { registry: Arc::default(), resident_bytes: resident_bytes.clone() };
        metrics.register(
            "process_resident_memory_bytes",
            "Memory of the process that is in use",
            resident_bytes,
        );
        metrics
    }

    /// Adds a metric under `name` (base units at its end: `commit_seconds`); `help` is one sentence without its dot.
    pub fn register(&self, name: &str, help: &str, metric: impl Metric) {
        lock(&self.registry).register(name, help, metric);
    }

    /// A new counter; its name gets the suffix `_total` when it is written.
    #[must_use]
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        let metric = Counter::default();
        self.register(name, help, metric.clone());
        metric
    }

    /// A new gauge.
    #[must_use]
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        let metric = Gauge::default();
        self.register(name, help, metric.clone());
        metric
    }

    /// A new histogram of seconds.
    #[must_use]
    pub fn seconds(&self, name: &str, help: &str) -> Histogram {
        let metric = seconds_histogram();
        self.register(name, help, metric.clone());
        metric
    }

    /// A gauge per channel.
    #[must_use]
    pub fn channel_gauges(&self, name: &str, help: &str) -> Family<ChannelLabel, Gauge> {
        let metric = Family::<ChannelLabel, Gauge>::default();
        self.register(name, help, metric.clone());
        metric
    }

    /// A counter per channel.
    #[must_use]
    pub fn channel_counters(&self, name: &str, help: &str) -> Family<ChannelLabel, Counter> {
        let metric = Family::<ChannelLabel, Counter>::default();
        self.register(name, help, metric.clone());
        metric
    }

    /// A histogram of seconds per channel.
    #[must_use]
    pub fn channel_seconds(&self, name: &str, help: &str) -> Family<ChannelLabel, Histogram> {
        let metric = Family::<ChannelLabel, Histogram>::new_with_constructor(seconds_histogram);
        self.register(name, help, metric.clone());
        metric
    }

    /// All metrics as text (OpenMetrics 1.0).
    #[must_use]
    pub fn encode(&self) -> String {
        if let Some(bytes) = resident_bytes() {
            self.resident_bytes.set(bytes);
        }
        let mut text = String::new();
        if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &lock(&self.registry)) {
            tracing::warn!(%error, "metrics could not be written");
        }
        text
    }
}

fn seconds_histogram() -> Histogram {
    Histogram::new(SECONDS_BUCKETS)
}

/// `VmRSS` of `/proc/self/status` (proc(5)), which is in kibibytes.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_written_with_their_labels_and_the_memory_in_use() {
        let metrics = Metrics::new();
        metrics.counter("blocks_cut", "Blocks cut").inc();
        let heights = metrics.channel_gauges("block_height", "Blocks in the channel");
        heights.get_or_create(&ChannelLabel { channel: "mychannel".into() }).set(7);
        let text = metrics.encode();
        assert!(text.contains("blocks_cut_total 1"), "{text}");
        assert!(text.contains("block_height{channel=\"mychannel\"} 7"), "{text}");
        let resident = text.lines().find(|l| l.starts_with("process_resident_memory_bytes")).unwrap();
        assert!(!resident.ends_with(" 0"), "{resident}");
    }

    #[test]
    fn a_log_filter_that_is_not_understood_is_refused_and_the_old_one_stays() {
        let log = init(&LogConfig { filter: "warn".into(), format: LogFormat::Json }).unwrap();
        assert!(matches!(log.set_filter("a=b=c"), Err(TelemetryError::Filter { .. })));
        assert_eq!(log.filter(), "warn");
        log.set_filter("error,consort_node=info").unwrap();
        assert_eq!(log.filter(), "error,consort_node=info");
    }
}
