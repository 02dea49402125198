//! `consort load`: drives a channel through the gateway protocol and reports what it reached.
//!
//! The generator only speaks Hyperledger Fabric's gateway protocol (endorse, sign, submit, commit status), so it measures any
//! peer that does with the same program. It can keep a number of clients busy (closed loop) or keep a rate (open loop, where a
//! latency counts from the moment at which the transaction was due, so that a stall is not hidden by waiting for it).
//!
//! ```text
//!  options -> target (connections, processes) -> workload (what each client calls) -> driver (closed or open loop)
//!                                                                                        |
//!                                             report (text, JSON, page)  <-  recorder (latencies, codes, time line)
//! ```

mod driver;
mod page;
mod recorder;
mod report;
mod target;
mod usage;
mod workload;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use crate::access::AccessOptions;
use crate::files;
use crate::output::Output;
use driver::{Loop, Plan};
use recorder::Recorder;
use report::{Report, Setting};
use target::{Target, TargetOptions};
use usage::Usage;
use workload::{Shape, Workload};

/// Most clients or transactions in flight; beyond it the generator measures itself.
const IN_FLIGHT_MAX: usize = 20_000;

/// Most connections; a peer refuses more from one address long before.
const CONNECTIONS_MAX: usize = 1_000;

/// Most bytes of a value; orderers take no larger message by default, and one that nearly fills a block measures only copying.
const VALUE_BYTES_MAX: usize = 10 << 20;

/// Clients that share one connection; beyond it HTTP/2 streams of one connection wait for each other.
const CLIENTS_PER_CONNECTION: usize = 64;

/// Drive a channel with transactions and report throughput, latency, CPU and memory
#[derive(Debug, Args)]
#[command(after_help = "\
The chaincode offers Put, Create, Update, Fill, Open, Transfer, Get, Range and PutPrivate; chaincode-sdk/examples/load does.

Examples:
  consort network up --config network-configs/load
  consort load put --clients 256 --duration 30
  consort load transfer --keys 1000 --zipf 1.1 --clients 64 --html transfer.html
  consort load put --rate 1000 --duration 60 --json put.json
  consort load evaluate --clients 32 --endpoint peer0.org1.example.com:7051 --connect-to 127.0.0.1:7051 \\
      --tls-ca tls/ca.crt --msp users/User1@org1.example.com/msp --msp-id Org1MSP")]
pub(crate) struct LoadOptions {
    /// What every client does
    #[arg(value_enum)]
    workload: Workload,

    #[command(flatten)]
    access: AccessOptions,

    #[command(flatten)]
    target: TargetOptions,

    /// Clients that each keep one transaction in flight (closed loop)
    #[arg(long, default_value_t = 64, conflicts_with = "rate")]
    clients: usize,

    /// Transactions per second, begun at fixed times whatever is still in flight (open loop)
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,

    /// Seconds that are measured
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    duration: u64,

    /// Seconds of the same load before anything is measured
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    warm_up: u64,

    /// Keys or accounts that update, transfer, evaluate and range choose from
    #[arg(long, default_value_t = 1000)]
    keys: u32,

    /// Skew of that choice: 0 is even, 1 is Zipf's law
    #[arg(long, default_value_t = 0.0)]
    zipf: f64,

    /// Bytes of a written value
    #[arg(long, default_value_t = 100, value_name = "BYTES")]
    size: usize,

    /// Keys that one range read returns
    #[arg(long, default_value_t = 100)]
    range: u32,

    /// Collection of private writes
    #[arg(long, default_value = "shared", value_name = "NAME")]
    collection: String,

    /// Chaincode to call
    #[arg(long, default_value = "load", value_name = "NAME")]
    chaincode: String,

    /// Connections to the gateway [default: one for every 64 clients]
    #[arg(long)]
    connections: Option<usize>,

    /// Also write the report as JSON to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Also write a page with latency and throughput over time to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    #[command(flatten)]
    output: Output,
}

impl LoadOptions {
    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            (1..=IN_FLIGHT_MAX).contains(&self.clients),
            "--clients must be between 1 and {IN_FLIGHT_MAX}"
        );
        anyhow::ensure!(self.duration > 0, "--duration must be at least 1 second");
        anyhow::ensure!(self.keys >= 2, "--keys must be at least 2");
        anyhow::ensure!(
            self.workload != Workload::Range || (1..=self.keys).contains(&self.range),
            "--range must be between 1 and --keys ({}): only so many keys are written for it to read",
            self.keys
        );
        anyhow::ensure!(
            (1..=VALUE_BYTES_MAX).contains(&self.size),
            "--size must be between 1 and {VALUE_BYTES_MAX} bytes"
        );
        anyhow::ensure!(
            self.zipf.is_finite() && self.zipf >= 0.0,
            "--zipf must not be negative; 0 chooses keys evenly"
        );
        anyhow::ensure!(
            self.rate.is_none_or(|rate| rate.is_finite() && rate > 0.0),
            "--rate must be above 0 transactions per second"
        );
        anyhow::ensure!(
            self.connections.is_none_or(|count| (1..=CONNECTIONS_MAX).contains(&count)),
            "--connections must be between 1 and {CONNECTIONS_MAX}"
        );
        Ok(())
    }

    fn pace(&self) -> Loop {
        match self.rate {
            Some(rate) => Loop::Open { per_second: rate, in_flight_max: IN_FLIGHT_MAX },
            None => Loop::Closed { clients: self.clients },
        }
    }

    fn shape(&self) -> Shape {
        Shape {
            workload: self.workload,
            keys: self.keys,
            zipf: self.zipf,
            value_bytes: self.size,
            range: self.range,
            collection: self.collection.clone(),
        }
    }

    fn connections(&self) -> usize {
        let clients = if self.rate.is_some() { CLIENTS_PER_CONNECTION * 8 } else { self.clients };
        self.connections.unwrap_or_else(|| clients.div_ceil(CLIENTS_PER_CONNECTION))
    }
}

/// Runs `consort load`.
///
/// # Errors
/// The target cannot be reached, the chaincode does not offer the functions, or a report cannot be written.
pub(crate) async fn run(options: LoadOptions) -> anyhow::Result<()> {
    options.check()?;
    let target = Target::open(&options.access, &options.target, &options.chaincode, options.connections())
        .await
        .context("cannot open the target of the load")?;
    let shape = options.shape();
    workload::prepare(&shape, &target.contracts).await?;
    let first = target.contracts.first().context("a target has at least one connection")?;
    driver::probe(&shape, first).await.with_context(|| {
        format!("chaincode {} does not run {} loads", options.chaincode, shape.workload.name())
    })?;

    let plan = Plan {
        pace: options.pace(),
        warm_up: Duration::from_secs(options.warm_up),
        duration: Duration::from_secs(options.duration),
    };
    let recorder = Arc::new(Recorder::new());
    let usage = Usage::of(&target.processes);
    let outcome = driver::drive(&plan, &shape, &target.contracts, &recorder, usage).await;

    let setting = Setting { shape, plan, connections: target.contracts.len(), peer: target.peer };
    let report = Report::new(setting, &recorder.take(), outcome);
    let json = report.json();
    // Printed first: a file that cannot be written must not cost the figures of a long run.
    options.output.print(&json, || report.text())?;
    if let Some(path) = &options.json {
        files::write_atomically(path, format!("{json:#}\n").as_bytes(), false)?;
    }
    if let Some(path) = &options.html {
        files::write_atomically(path, page::render(&report).as_bytes(), false)?;
    }
    Ok(())
}
