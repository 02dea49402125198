//! The process of a peer: `consort-peer --config <yaml>`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use consort_node::{SystemClock, Tasks, signal::Signals, telemetry};
use consort_peer::config::PeerConfig;
use consort_peer::server::Peer;

/// Most of what this process allocates is small and lives for one request; glibc's allocator spends more on merging the
/// pieces again than requests do on their content (docs/performance.md). RocksDB's C++ allocates here, too: in glibc's arenas,
/// one per thread, its short-lived tables left holes, and a busy process grew for as long as one looked.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long tasks may take to finish what they have begun.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// A peer of a Consort network.
#[derive(Debug, Parser)]
#[command(name = "consort-peer", version)]
struct Arguments {
    /// The configuration file (docs/config/peer.example.yaml explains every key).
    #[arg(long)]
    config: PathBuf,
}

fn main() -> std::process::ExitCode {
    if let Some(ended) = consort_chaincode_runtime::compiler::serve() {
        return ended;
    }
    match run(&Arguments::parse()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("consort-peer: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let config = PeerConfig::load(&arguments.config)?;
    let log = telemetry::init(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the async runtime could not start")?;
    runtime.block_on(async {
        let signals = Signals::install();
        let tasks = Tasks::new();
        let id = config.id.clone();
        let peer = Peer::start(config, Some(log), Arc::new(SystemClock), &tasks).await?;
        tracing::info!(%id, address = %peer.address, operations = %peer.operations, "peer started");
        tasks.run_until_stopped(signals, SHUTDOWN_TIMEOUT).await?;
        tracing::info!(%id, "peer stopped");
        Ok(())
    })
}
