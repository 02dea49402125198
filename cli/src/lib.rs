//! The operator's tool: networks, chaincode, transactions, channels, the books of stopped peers, from the command line.
//!
//! Owns the description of a network ([`topology`](crate)), its processes on this machine and its credentials on disk. Knows no
//! server's code: it starts the servers' programs and speaks to them through `consort-client-sdk`, as an operator elsewhere
//! would.
//!
//! ```text
//!  network.yaml -> topology (every fault at once) -> plan of processes -> session (start, wait, stop on failure)
//!                                                        |
//!                       credentials from the CAs -> layout below the data folder -> access (who calls what)
//! ```
//!
//! Always: a command that fails says cause and remedy and leaves no process behind that it started; a process is signalled
//! only when its start time is the recorded one; a file that exists is complete.

mod access;
mod authority;
mod block;
mod ca;
pub mod chaincode;
mod channel;
mod config;
mod configuration;
mod context;
mod credentials;
mod doctor;
mod explain;
mod files;
mod identity;
mod layout;
mod ledger;
mod load;
pub mod messages;
mod network;
mod orderer;
mod ordering;
mod output;
mod peer;
mod processes;
mod registered;
mod report;
mod sealed;
pub mod topology;
mod tx;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Run and use Consort networks
#[derive(Debug, Parser)]
#[command(name = "consort", version, about, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Begin with:\n  consort network up --config network-configs/two-org-raft\n  consort tx evaluate basic GetAllAssets\n\nExit codes:\n  0  done\n  1  failed; the message says why and what to do\n  2  the command line is wrong\n  3  the transaction was ordered, and is invalid\n  4  a node was not reachable or not ready: trying again may help\n  5  the transaction may or may not have been ordered: ask with `consort tx watch <id>`"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start, look at and stop a network of native processes on this machine
    #[command(subcommand)]
    Network(network::NetworkCommand),
    /// Build, package and deploy chaincode
    #[command(subcommand)]
    Chaincode(chaincode::ChaincodeCommand),
    /// Call a chaincode function
    #[command(subcommand)]
    Tx(tx::TxCommand),
    /// Channels of peers and orderers
    #[command(subcommand)]
    Channel(channel::ChannelCommand),
    /// Orderers: how they are, which channels they serve, who the consenters are
    #[command(subcommand)]
    Orderer(orderer::OrdererCommand),
    /// Peers: which channels they serve and how far they are, what they lack of private data
    #[command(subcommand)]
    Peer(peer::PeerCommand),
    /// Drive a channel with transactions and report throughput, latency, CPU and memory
    Load(Box<load::LoadOptions>),
    /// Enrol, renew, register, revoke, and look at certificates
    #[command(subcommand)]
    Identity(identity::IdentityCommand),
    /// Ask and manage a certificate authority
    #[command(subcommand)]
    Ca(ca::CaCommand),
    Doctor(doctor::DoctorOptions),
    /// Look into blocks
    #[command(subcommand)]
    Block(block::BlockCommand),
    /// Translate messages to JSON and back, as Fabric's configtxlator does
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Sealed data: seal records, grant them to readers through proxies, read, revoke, audit
    #[command(subcommand)]
    Sealed(sealed::SealedCommand),
    /// Names for "this network, as this user"
    #[command(subcommand)]
    Context(context::ContextCommand),
    /// Print the completions for a shell
    #[command(
        after_help = "Examples:\n  source <(consort completion bash)\n  consort completion fish > ~/.config/fish/completions/consort.fish"
    )]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Examine the books of stopped peers
    #[command(subcommand)]
    Ledger(ledger::LedgerCommand),
    /// Run a program in a session of its own (how `network up` starts servers)
    #[command(name = processes::DETACH_COMMAND, hide = true)]
    Detach {
        program: PathBuf,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// Runs the tool with the arguments of this process.
#[must_use]
pub fn run() -> ExitCode {
    run_with(std::env::args_os())
}

fn run_with(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let command = Arguments::parse_from(arguments).command;
    if let Command::Detach { program, arguments } = command {
        return fail(&processes::detach(&program, &arguments));
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    match runtime.block_on(dispatch(command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

async fn dispatch(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Network(command) => network::run(command).await,
        Command::Chaincode(command) => chaincode::run(command).await,
        Command::Tx(command) => tx::run(command).await,
        Command::Channel(command) => channel::run(command).await,
        Command::Orderer(command) => orderer::run(command).await,
        Command::Peer(command) => peer::run(command).await,
        Command::Load(options) => load::run(*options).await,
        Command::Identity(command) => identity::run(command).await,
        Command::Ca(command) => ca::run(command).await,
        Command::Doctor(options) => doctor::run(&options).await,
        Command::Block(command) => block::run(command).await,
        Command::Config(command) => config::run(&command),
        Command::Sealed(command) => sealed::run(command).await,
        Command::Context(command) => context::run(command),
        Command::Completion { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "consort", &mut std::io::stdout());
            Ok(())
        }
        Command::Ledger(command) => ledger::run(command).await,
        Command::Detach { program, arguments } => Err(processes::detach(&program, &arguments)),
    }
}

/// Prints one message: what failed, then why, each cause once.
fn fail(error: &anyhow::Error) -> ExitCode {
    let mut text = format!("error: {error}");
    let mut last = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !last.contains(&cause) {
            text.push_str(&format!("\ncause: {cause}"));
        }
        last = cause;
    }
    eprintln!("{text}");
    exit_code(error)
}

/// What scripts can go by; the help lists it.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    use consort_client_sdk::{Error, sealed};
    let of_sealed_data = error.downcast_ref::<sealed::Error>();
    if matches!(
        of_sealed_data,
        Some(
            sealed::Error::TooFewAnswers { .. }
                | sealed::Error::TooFewProxies { .. }
                | sealed::Error::AbsentProxies { .. }
        )
    ) {
        return ExitCode::from(4);
    }
    let call = match of_sealed_data {
        Some(sealed::Error::Call(call)) => Some(call),
        _ => error.chain().find_map(|cause| cause.downcast_ref::<Error>()),
    };
    match call {
        Some(Error::Invalid { .. }) => ExitCode::from(3),
        Some(Error::Unknown { .. }) => ExitCode::from(5),
        Some(error) if error.is_transient() => ExitCode::from(4),
        _ => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands that do something, by their whole names.
    fn commands(command: &clap::Command, name: &str, found: &mut Vec<(String, clap::Command)>) {
        let below: Vec<&clap::Command> =
            command.get_subcommands().filter(|one| one.get_name() != "help" && !one.is_hide_set()).collect();
        for one in &below {
            commands(one, &format!("{name} {}", one.get_name()), found);
        }
        if below.is_empty() {
            found.push((name.to_owned(), command.clone()));
        }
    }

    /// Commands that tell a story while they work, or whose output is a file or a script: scripts go by their exit code.
    const WITHOUT_JSON: [&str; 14] = [
        "consort network up",
        "consort network down",
        "consort network logs",
        "consort network clean",
        "consort network demo",
        "consort chaincode new",
        "consort chaincode deploy",
        "consort config encode",
        "consort config decode",
        "consort config compute-update",
        "consort completion",
        "consort sealed demo",
        "consort ledger export",
        "consort chaincode invoke",
    ];

    #[test]
    fn scripts_can_tell_by_the_exit_code_what_a_failure_means() {
        use consort_client_sdk::Error;
        use consort_protos::fabric::protos::TxValidationCode;
        let of = |error: Error| format!("{:?}", exit_code(&anyhow::Error::new(error).context("more words")));
        let code = |code: u8| format!("{:?}", ExitCode::from(code));
        let invalid =
            Error::Invalid { tx_id: "ab".into(), code: TxValidationCode::MvccReadConflict, block: 7 };
        assert_eq!(of(invalid), code(3));
        let away = || Error::Ordering {
            endpoint: "orderer:7050".into(),
            status: "SERVICE_UNAVAILABLE".into(),
            info: String::new(),
        };
        assert_eq!(of(away()), code(4));
        assert_eq!(of(Error::Unknown { tx_id: "ab".into(), source: Box::new(away()) }), code(5));
        assert_eq!(of(Error::NoGateway), code(1));
    }

    #[test]
    fn every_command_that_answers_answers_in_json_too() {
        let mut found = Vec::new();
        commands(&Arguments::command(), "consort", &mut found);
        let without = found.iter().filter(|(_, command)| {
            !command.get_arguments().any(|argument| argument.get_long() == Some("output"))
        });
        let without: Vec<&str> = without.map(|(name, _)| name.as_str()).collect();
        let unexpected: Vec<&&str> = without.iter().filter(|name| !WITHOUT_JSON.contains(name)).collect();
        assert!(unexpected.is_empty(), "{unexpected:#?}");
    }

    #[test]
    fn the_help_of_every_command_teaches_by_example() {
        let mut found = Vec::new();
        commands(&Arguments::command(), "consort", &mut found);
        assert!(found.len() > 50, "{}", found.len());
        let without: Vec<&String> = found
            .iter()
            .filter(|(name, command)| {
                let help = command.clone().render_long_help().to_string();
                // Terminals wrap long lines, so line ends count as spaces.
                let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
                !help.contains("Example") || !help.contains(name.as_str())
            })
            .map(|(name, _)| name)
            .collect();
        assert!(without.is_empty(), "{without:#?}");
    }
}
