//! `consort-orderer`: one orderer process.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use consort_node::{SystemClock, Tasks, config, signal::Signals, telemetry};
use consort_orderer::{Orderer, config::OrdererConfig};

/// Most of what this process allocates is small and lives for one request; glibc's allocator spends more on merging the
/// pieces again than requests do on their content (docs/performance.md). RocksDB's C++ allocates here, too: in glibc's arenas,
/// one per thread, its short-lived tables left holes, and a busy process grew for as long as one looked.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Time for everything to end after a signal.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// One orderer of a Consort network.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file (YAML).
    #[arg(long)]
    config: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("consort-orderer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let config: OrdererConfig = config::load(&arguments.config, "CONSORT_ORDERER")?;
    let log = telemetry::init(&config.log)?;
    let signals = Signals::install();
    let tasks = Tasks::new();
    let orderer = Orderer::start(&config, Arc::new(SystemClock), Some(log), &tasks).await?;
    tracing::info!(address = %orderer.address, admin = %orderer.admin_address, "orderer started");
    tasks.run_until_stopped(signals, SHUTDOWN).await?;
    Ok(())
}
