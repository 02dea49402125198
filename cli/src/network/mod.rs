//! `consort network`: a whole network of native processes from one description.

mod authorities;
mod demo;
mod down;
mod genesis;
mod joining;
mod node_config;
mod nodes;
mod plan;
mod ports;
mod profiles;
mod programs;
mod session;
mod settle;
pub(crate) mod status;
mod up;

pub(crate) use genesis::now;
pub(crate) use nodes::describe;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::access::{DATA_ROOT, network_folder};
use crate::context;
use crate::layout::Layout;
use crate::output::{Output, line};
use crate::processes::{Processes, follow};
use crate::topology::Topology;
pub(crate) use plan::{Role, processes};

/// Start, look at and stop a network of native processes on this machine
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Start what is not running: authorities, orderers, peers; join the channel; deploy the chaincodes
    #[command(
        after_help = "Examples:\n  consort network up --config network-configs/two-org-raft\n  consort network up --config org3     # a new organisation's part: docs/adding-an-organisation.md"
    )]
    Up(FolderOptions),
    /// Stop all processes and keep the data
    #[command(
        after_help = "Examples:\n  consort network down\n  consort network down --data .consort/two-org-raft"
    )]
    Down(FolderOptions),
    /// Show every process: address, health, channel height
    #[command(after_help = "Examples:\n  consort network status\n  consort network status --output json")]
    Status(StatusOptions),
    /// Show the last lines of the logs
    #[command(
        after_help = "Examples:\n  consort network logs\n  consort network logs peer0.org1.example.com -f"
    )]
    Logs(LogsOptions),
    /// Stop all processes and forget the data
    #[command(after_help = "Example:\n  consort network clean --data .consort/two-org-raft")]
    Clean(FolderOptions),
    /// Start a network and walk through the main job, explaining each step
    #[command(after_help = "Example:\n  consort network demo --config network-configs/two-org-raft")]
    Demo(FolderOptions),
}

/// Which network: its description, its data, or both.
#[derive(Debug, Clone, Args)]
pub(crate) struct FolderOptions {
    /// Folder that holds network.yaml
    #[arg(long, value_name = "FOLDER")]
    config: Option<PathBuf>,

    /// Folder for credentials, ledgers and logs [default: .consort/<name of the network>]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct StatusOptions {
    #[command(flatten)]
    folders: FolderOptions,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct LogsOptions {
    #[command(flatten)]
    folders: FolderOptions,

    /// Process, such as peer0.org1.example.com; all without it
    process: Option<String>,

    /// Go on showing what is added
    #[arg(short, long)]
    follow: bool,

    /// Number of lines of each process
    #[arg(short = 'n', long, default_value_t = 20)]
    lines: usize,
}

/// The folders of a network, both known.
#[derive(Debug, Clone)]
struct Folders {
    /// The description as it was named, for messages.
    config: PathBuf,
    layout: Layout,
    topology: Topology,
    warnings: Vec<String>,
}

impl FolderOptions {
    /// Finds data and description; a description that is not named is the one kept in the data folder.
    fn resolve(&self) -> anyhow::Result<Folders> {
        match (&self.config, &self.data) {
            (Some(config), data) => {
                let loaded = Topology::load(config)?;
                let default = || PathBuf::from(DATA_ROOT).join(&loaded.topology.name);
                let layout = Layout::new(&data.clone().unwrap_or_else(default))?;
                let config = config.clone();
                Ok(Folders { config, layout, topology: loaded.topology, warnings: loaded.warnings })
            }
            (None, Some(data)) => {
                let layout = Layout::new(data)?;
                let topology = layout.read_topology()?;
                Ok(Folders { config: layout.topology(), layout, topology, warnings: Vec::new() })
            }
            (None, None) => anyhow::bail!(
                "which network? Name its description with --config <folder>, or its data with --data <folder>"
            ),
        }
    }

    /// As [`FolderOptions::existing`]; without a name the network of the environment (`CONSORT_NETWORK`), of the context, or the only
    /// one that there is.
    fn existing_or_only(&self) -> anyhow::Result<Folders> {
        if self.config.is_some() || self.data.is_some() {
            return self.existing();
        }
        let named = std::env::var_os("CONSORT_NETWORK").map(PathBuf::from).or(context::current()?.network);
        let data = network_folder(named.as_deref())?;
        Self { config: None, data: Some(data) }.existing()
    }

    /// As [`FolderOptions::resolve`], for commands that only need the data of a network that was once started.
    fn existing(&self) -> anyhow::Result<Folders> {
        let mut folders = match self.resolve() {
            Ok(folders) => folders,
            // A description that has become invalid must not prevent stopping what it once started.
            Err(error) => match &self.data {
                Some(data) => {
                    FolderOptions { config: None, data: Some(data.clone()) }.resolve().map_err(|_| error)?
                }
                None => return Err(error),
            },
        };
        if let Ok(topology) = folders.layout.read_topology() {
            folders.topology = topology;
        }
        Ok(folders)
    }
}

/// Runs a `consort network` command.
///
/// # Errors
/// One message with cause and remedy.
pub(crate) async fn run(command: NetworkCommand) -> anyhow::Result<()> {
    match command {
        NetworkCommand::Up(options) => up::run(&options.resolve()?).await,
        NetworkCommand::Down(options) => down::run(&options.existing_or_only()?).await,
        NetworkCommand::Status(options) => {
            status::run(&options.folders.existing_or_only()?, options.output).await
        }
        NetworkCommand::Logs(options) => logs(&options).await,
        NetworkCommand::Clean(options) => down::clean(&options.existing()?).await,
        NetworkCommand::Demo(options) => demo::run(&options.resolve()?).await,
    }
}

async fn logs(options: &LogsOptions) -> anyhow::Result<()> {
    let folders = options.folders.existing_or_only()?;
    let processes = Processes::of(folders.layout.root())?;
    let mut names: Vec<String> =
        plan::processes(&folders.topology).into_iter().map(|plan| plan.name).collect();
    if let Some(wanted) = &options.process {
        anyhow::ensure!(names.contains(wanted), "no process '{wanted}' (known are: {})", names.join(", "));
        names.retain(|name| name == wanted);
    }
    for name in &names {
        let path = processes.log_path(name);
        if names.len() > 1 {
            line(&format!("--- {name} ({})", path.display()));
        }
        line(&processes.log_tail(name, 0, options.lines));
    }
    if options.follow {
        let files: Vec<_> = names.iter().map(|name| (name.clone(), processes.log_path(name))).collect();
        tokio::select! {
            result = follow(&files) => result?,
            _ = tokio::signal::ctrl_c() => {}
        }
    }
    Ok(())
}
