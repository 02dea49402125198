//! `consort config`: messages as JSON and back, and the update between two configurations, as `configtxlator` does it.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use consort_channel_config::update;
use consort_protos::fabric::common::Config;
use consort_protos::ids::ChannelId;
use prost::Message;

use crate::messages::{self, Broken};

/// Largest input: the largest message of the network.
const INPUT_BYTES_MAX: u64 = 100 * 1024 * 1024;

/// Translate messages to JSON and back, as Fabric's configtxlator does
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show a message as JSON, with the messages inside it
    #[command(
        after_help = "Examples:\n  consort channel fetch config --to config.block\n  consort config decode --type common.Block --input config.block --output config.json\n  consort config decode --type common.ConfigUpdate < update.pb"
    )]
    Decode(TranslateOptions),
    /// Make a message of its JSON
    #[command(
        after_help = "Example:\n  consort config encode --type common.Config --input config.json --output config.pb"
    )]
    Encode(TranslateOptions),
    /// Compute the update that leads from one configuration to another
    #[command(
        after_help = "Example:\n  consort config compute-update --channel mychannel --original old.pb --updated new.json --output update.pb\n\nThe configurations are of type common.Config, as protobuf or as JSON. For the common changes (an organisation, an anchor\npeer, the batch size ...) `consort channel plan` does all of it from a readable file."
    )]
    ComputeUpdate(ComputeOptions),
}

#[derive(Debug, Args)]
pub(crate) struct TranslateOptions {
    /// Type of the message, such as common.Block, common.Config, common.ConfigUpdate, common.Envelope
    #[arg(long = "type", value_name = "TYPE")]
    message_type: String,

    /// File to read [default: standard input]
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,

    /// File to write [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ComputeOptions {
    /// The channel that the update is for
    #[arg(long, alias = "channel_id", value_name = "NAME")]
    channel: String,

    /// The configuration as it is
    #[arg(long, value_name = "FILE")]
    original: PathBuf,

    /// The configuration as it should be
    #[arg(long, value_name = "FILE")]
    updated: PathBuf,

    /// File to write [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs a `consort config` command.
///
/// # Errors
/// The input cannot be read or is not what it should be.
pub(crate) fn run(command: &ConfigCommand) -> anyhow::Result<()> {
    match command {
        ConfigCommand::Decode(options) => {
            let bytes = read(options.input.as_deref())?;
            let json = messages::to_json(&options.message_type, &bytes, Broken::Refuse)?;
            write(options.output.as_deref(), &messages::print(&json)?)
        }
        ConfigCommand::Encode(options) => {
            let json = serde_json::from_slice(&read(options.input.as_deref())?)
                .context("the input is no JSON document")?;
            write(options.output.as_deref(), &messages::from_json(&options.message_type, &json)?)
        }
        ConfigCommand::ComputeUpdate(options) => {
            let channel = ChannelId::parse(&options.channel)?;
            let (original, updated) = (configuration(&options.original)?, configuration(&options.updated)?);
            let update = update::compute(&original, &updated, &channel)?;
            write(options.output.as_deref(), &update.encode_to_vec())
        }
    }
}

/// A configuration from a file, in either form.
fn configuration(path: &Path) -> anyhow::Result<Config> {
    let bytes = read(Some(path))?;
    let wrong = || format!("{} holds no common.Config", path.display());
    let bytes = if bytes.trim_ascii_start().starts_with(b"{") {
        messages::from_json("common.Config", &serde_json::from_slice(&bytes).with_context(wrong)?)?
    } else {
        bytes
    };
    Config::decode(bytes.as_slice()).with_context(wrong)
}

fn read(path: Option<&Path>) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match path {
        Some(path) => {
            let file =
                std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            file.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        }
        None => {
            std::io::stdin().lock().take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        }
    }
    ensure!(bytes.len() as u64 <= INPUT_BYTES_MAX, "the input is larger than {INPUT_BYTES_MAX} bytes");
    Ok(bytes)
}

fn write(path: Option<&Path>, bytes: &[u8]) -> anyhow::Result<()> {
    match path {
        Some(path) => crate::files::write_atomically(path, bytes, false),
        None => Ok(std::io::stdout().lock().write_all(bytes)?),
    }
}
