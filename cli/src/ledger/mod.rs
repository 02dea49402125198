//! `consort ledger`: the books of a stopped peer, looked at from outside.

mod attest;
mod compare;
mod export;
mod stat;
mod verify;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use consort_ledger::Ledger;
use consort_protos::ids::ChannelId;

use crate::output::Output;

/// Examine the books of stopped peers, and what peers attest about theirs
#[derive(Debug, Subcommand)]
pub(crate) enum LedgerCommand {
    /// Check blocks, indexes and hashes, replay the chain, and compare the state with what comes out
    #[command(
        after_help = "Example:\n  consort ledger verify data/peers/peer0.org1.example.com --channel mychannel"
    )]
    Verify(Books),
    /// Count blocks, transactions by code, keys and bytes
    #[command(after_help = "Example:\n  consort ledger stat data/peers/peer0.org1.example.com --output json")]
    Stat(Books),
    /// Write one block to a file, as `common.Block`
    #[command(
        after_help = "Example:\n  consort ledger export-block data/peers/peer0.org1.example.com 7 --file block7.pb"
    )]
    ExportBlock(export::ExportOptions),
    /// Find the first difference between the books of two peers of a channel
    #[command(
        after_help = "Example:\n  consort ledger compare data/peers/peer0.org1.example.com data/peers/peer0.org2.example.com"
    )]
    Compare(compare::CompareOptions),
    /// Fetch from a running peer what enough members signed together about where the channel's books stand
    #[command(
        after_help = "Example:\n  consort ledger attest --to books.attestation --peer peer0.org1.example.com"
    )]
    Attest(attest::AttestOptions),
    /// Check an attestation off-line, with nothing but a configuration block of the channel
    #[command(
        after_help = "Example:\n  consort channel fetch config --to config.block\n  consort ledger verify-attestation books.attestation --config config.block"
    )]
    VerifyAttestation(attest::VerifyOptions),
}

/// Which books.
#[derive(Debug, Args)]
pub(crate) struct Books {
    /// Data folder of the stopped peer (`data_dir` in its configuration)
    data: PathBuf,

    #[command(flatten)]
    channel: ChannelOption,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
struct ChannelOption {
    /// Channel; may be left out when the peer has joined only one
    #[arg(long)]
    channel: Option<String>,
}

/// Runs a `consort ledger` command.
///
/// # Errors
/// When the books cannot be opened, and when they are not right.
pub(crate) async fn run(command: LedgerCommand) -> anyhow::Result<()> {
    match command {
        LedgerCommand::Verify(books) => verify::run(&books),
        LedgerCommand::Stat(books) => stat::run(&books),
        LedgerCommand::ExportBlock(options) => export::run(&options),
        LedgerCommand::Compare(options) => compare::run(&options),
        LedgerCommand::Attest(options) => attest::attest(&options).await,
        LedgerCommand::VerifyAttestation(options) => attest::verify(&options),
    }
}

/// Opens the ledger of a channel in a peer's data folder.
fn open(data: &Path, channel: &ChannelOption) -> anyhow::Result<Ledger> {
    let folder = data.join("channels");
    let name = match &channel.channel {
        Some(name) => name.clone(),
        None => only_channel(&folder)?,
    };
    let id = ChannelId::parse(&name)?;
    let path = folder.join(&name);
    Ledger::open(&path, &id).map_err(|error| {
        let text = error.to_string();
        let remedy = if text.contains("lock") {
            "the peer is running; stop it first (`consort network down`, or the peer's own service)"
        } else {
            "is this the data folder of a peer that has joined the channel?"
        };
        anyhow::Error::new(error)
            .context(format!("cannot open the books of {name} in {}: {remedy}", data.display()))
    })
}

fn only_channel(folder: &Path) -> anyhow::Result<String> {
    let entries = std::fs::read_dir(folder).with_context(|| {
        format!("{} cannot be read; give the peer's data folder, which holds `channels`", folder.display())
    })?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    match names.as_slice() {
        [name] => Ok(name.clone()),
        [] => bail!("there are no channels in {}: the peer has joined none", folder.display()),
        _ => bail!("the peer has joined {}; choose one with --channel", names.join(", ")),
    }
}

/// A hash for people.
fn hexadecimal(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

#[cfg(test)]
mod tests;
