//! `consort-ca --config <yaml>`: the certificate authority of one organisation.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use consort_ca::config::CaConfig;
use consort_ca::server;
use consort_node::{SystemClock, Tasks, config, signal::Signals, telemetry};

/// Time that running requests get when the process is told to stop.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// A certificate authority that speaks Fabric CA's REST API.
#[derive(Parser)]
#[command(name = "consort-ca", version)]
struct Arguments {
    /// The configuration (YAML); docs/config/ca.example.yaml shows every key.
    #[arg(long, env = "CONSORT_CA_CONFIG")]
    config: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("consort-ca: {}", explained(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error with its causes, but for those that its text already tells.
fn explained(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let config: CaConfig = config::load(&arguments.config, "CONSORT_CA")?;
    config.check()?;
    let log = telemetry::init(&config.log)?;
    let signals = Signals::install();
    let tasks = Tasks::new();
    server::start(&config, Arc::new(SystemClock), Some(log), &tasks).await?;
    tasks.run_until_stopped(signals, SHUTDOWN).await?;
    Ok(())
}
