//! What a load run found, for people and for programs.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::driver::{Driven, Loop, Plan};
use super::recorder::{Collected, STAGES, Second, milliseconds};
use super::usage::ProcessUsage;
use super::workload::Shape;
use crate::report::table;

/// Percentiles that are reported.
const PERCENTILES: [f64; 4] = [50.0, 90.0, 99.0, 99.9];

/// How the run was set up.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) shape: Shape,
    pub(crate) plan: Plan,
    pub(crate) connections: usize,
    pub(crate) peer: String,
}

/// Latencies of one stage in milliseconds.
#[derive(Debug)]
pub(crate) struct Latency {
    pub(crate) stage: &'static str,
    pub(crate) percentiles: [f64; 4],
    pub(crate) max: f64,
}

/// A finished run.
#[derive(Debug)]
pub(crate) struct Report {
    setting: Setting,
    seconds_measured: f64,
    valid: u64,
    invalid: Vec<(&'static str, u64)>,
    failed: Vec<(String, u64)>,
    unfinished: u64,
    latencies: Vec<Latency>,
    time_line: Vec<Second>,
    processes: Vec<ProcessUsage>,
}

impl Report {
    /// Puts the collected figures together.
    pub(crate) fn new(setting: Setting, collected: &Collected, driven: Driven) -> Self {
        let whole = if setting.shape.workload.is_evaluated() { "evaluate" } else { "start to commit" };
        let stages = STAGES.iter().zip(&collected.stages).filter(|(_, histogram)| !histogram.is_empty());
        let latencies = std::iter::once((whole, &collected.total))
            .chain(stages.map(|(name, histogram)| (*name, histogram)))
            .map(|(stage, histogram)| latency(stage, histogram));
        Self {
            seconds_measured: driven.measured.as_secs_f64(),
            valid: collected.valid,
            invalid: collected.invalid.iter().map(|(code, count)| (*code, *count)).collect(),
            failed: collected.failed.iter().map(|(reason, count)| (reason.clone(), *count)).collect(),
            unfinished: driven.unfinished,
            latencies: latencies.collect(),
            time_line: collected.seconds.clone(),
            processes: driven.usage,
            setting,
        }
    }

    /// Valid transactions per second.
    pub(crate) fn throughput(&self) -> f64 {
        per(self.valid, self.seconds_measured)
    }

    /// The run in one line.
    pub(crate) fn headline(&self) -> String {
        let shape = &self.setting.shape;
        let pace = match self.setting.plan.pace {
            Loop::Closed { clients } => format!("{clients} clients (closed loop)"),
            Loop::Open { per_second, .. } => format!("{per_second} per second (open loop)"),
        };
        let keys = match (shape.workload.reads_prepared(), shape.zipf > 0.0) {
            (true, true) => format!(" over {} keys, skew {}", shape.keys, shape.zipf),
            (true, false) => format!(" over {} keys", shape.keys),
            (false, _) => String::new(),
        };
        format!(
            "{}{keys} of {} bytes at {}: {pace}, {} connections, {:.0} s measured",
            shape.workload.name(),
            shape.value_bytes,
            self.setting.peer,
            self.setting.connections,
            self.seconds_measured
        )
    }

    /// The seconds of the measurement.
    pub(crate) fn time_line(&self) -> &[Second] {
        &self.time_line
    }

    fn ended(&self) -> u64 {
        self.valid + self.invalid.iter().map(|(_, count)| count).sum::<u64>()
    }

    fn cpu_micros_per_transaction(&self, seconds: f64) -> f64 {
        per_transaction(seconds * 1e6, self.ended())
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut lines = vec![self.headline(), String::new()];
        lines.push(format!("valid    {:>9}   {:.1} per second", self.valid, self.throughput()));
        for (code, count) in &self.invalid {
            lines.push(format!("invalid  {count:>9}   {code}"));
        }
        for (reason, count) in &self.failed {
            lines.push(format!("failed   {count:>9}   {reason}"));
        }
        lines.push(format!("under way{:>9}   at the end; in none of the figures", self.unfinished));
        lines.push(String::new());
        let heading = ["LATENCY (ms)", "P50", "P90", "P99", "P99.9", "MAX"].map(str::to_owned).to_vec();
        let rows = self.latencies.iter().map(|latency| {
            let figures = latency.percentiles.iter().chain([&latency.max]);
            std::iter::once(latency.stage.to_owned())
                .chain(figures.map(|value| format!("{value:.1}")))
                .collect()
        });
        lines.push(table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>()));
        lines.push(String::new());
        lines.push(self.usage_table());
        lines.join("\n")
    }

    fn usage_table(&self) -> String {
        let heading = ["PROCESS", "CPU (s)", "CPU PER TX (us)", "MEMORY (MB)", "DISK PER TX (bytes)"]
            .map(str::to_owned);
        let mut rows = vec![heading.to_vec()];
        for process in &self.processes {
            let disk = process.disk_bytes.map(|bytes| per_transaction(as_f64(bytes), self.ended()));
            rows.push(vec![
                process.name.clone(),
                format!("{:.2}", process.cpu_seconds),
                format!("{:.0}", self.cpu_micros_per_transaction(process.cpu_seconds)),
                format!("{:.0}", as_f64(process.memory_bytes_max) / 1e6),
                disk.map_or_else(String::new, |bytes| format!("{bytes:.0}")),
            ]);
        }
        let all: f64 = self.processes.iter().map(|process| process.cpu_seconds).sum();
        rows.push(vec![
            "all".to_owned(),
            format!("{all:.2}"),
            format!("{:.0}", self.cpu_micros_per_transaction(all)),
            String::new(),
            String::new(),
        ]);
        table(&rows)
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let latencies = self.latencies.iter().map(|latency| {
            let [p50, p90, p99, p999] = latency.percentiles;
            json!({ "stage": latency.stage, "p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "p99_9_ms": p999, "max_ms": latency.max })
        });
        let processes = self.processes.iter().map(|process| {
            json!({
                "name": process.name,
                "cpu_seconds": process.cpu_seconds,
                "cpu_us_per_transaction": self.cpu_micros_per_transaction(process.cpu_seconds),
                "memory_bytes_max": process.memory_bytes_max,
                "disk_bytes_per_transaction":
                    process.disk_bytes.map(|bytes| per_transaction(as_f64(bytes), self.ended())),
            })
        });
        let seconds = self.time_line.iter().map(|second| {
            json!({
                "valid": second.valid,
                "invalid": second.invalid,
                "failed": second.failed,
                "p50_ms": milliseconds(&second.latency, 50.0),
                "p99_ms": milliseconds(&second.latency, 99.0),
            })
        });
        let all: f64 = self.processes.iter().map(|process| process.cpu_seconds).sum();
        json!({
            "setting": self.headline(),
            "workload": self.setting.shape.workload.name(),
            "seconds": self.seconds_measured,
            "valid": self.valid,
            "valid_per_second": self.throughput(),
            "invalid": self.invalid.iter().map(|(code, count)| json!({ "code": code, "count": count })).collect::<Vec<_>>(),
            "failed": self.failed.iter().map(|(reason, count)| json!({ "reason": reason, "count": count })).collect::<Vec<_>>(),
            "unfinished": self.unfinished,
            "latencies": latencies.collect::<Vec<_>>(),
            "cpu_us_per_transaction": self.cpu_micros_per_transaction(all),
            "processes": processes.collect::<Vec<_>>(),
            "time_line": seconds.collect::<Vec<_>>(),
        })
    }
}

fn latency(stage: &'static str, histogram: &Histogram<u64>) -> Latency {
    Latency {
        stage,
        percentiles: PERCENTILES.map(|percentile| milliseconds(histogram, percentile)),
        max: milliseconds(histogram, 100.0),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts and bytes of a run are far below 2^52")]
fn as_f64(number: u64) -> f64 {
    number as f64
}

fn per(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { as_f64(count) / seconds } else { 0.0 }
}

fn per_transaction(amount: f64, transactions: u64) -> f64 {
    if transactions == 0 { 0.0 } else { amount / as_f64(transactions) }
}
