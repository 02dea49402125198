//! `consort block`: what is in a block, in words and in JSON.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use consort_client_sdk::blocks::{BlockServer, fetch_block};
use consort_client_sdk::decode::{DecodedBlock, DecodedInvocation, DecodedTransaction, Kind};
use consort_client_sdk::explain;
use consort_protos::fabric::common::Block;
use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::rwset::NamespaceReadWriteSet;
use prost::Message;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::access::{Access, AccessOptions};
use crate::channel::Position;
use crate::messages::{self, Broken};
use crate::output::Output;
use crate::registered;

/// Characters of an argument or a value that are shown in words.
const SHOWN_CHARACTERS: usize = 80;

/// Look into blocks
#[derive(Debug, Subcommand)]
pub(crate) enum BlockCommand {
    /// Show a block: who did what, what became of it; with --output json everything, as configtxlator shows it
    #[command(
        after_help = "Examples:\n  consort block show newest\n  consort block show 7 --peer peer0.org2.example.com\n  consort block show --file config.block --output json"
    )]
    Show(ShowOptions),
}

#[derive(Debug, Args)]
pub(crate) struct ShowOptions {
    #[command(flatten)]
    access: AccessOptions,

    /// oldest, newest, config or a block number
    #[arg(required_unless_present = "file")]
    position: Option<Position>,

    /// Show the block in a file instead of a network's
    #[arg(long, value_name = "FILE", conflicts_with = "position")]
    file: Option<PathBuf>,

    #[command(flatten)]
    output: Output,
}

/// Runs a `consort block` command.
///
/// # Errors
/// The block cannot be fetched or read.
pub(crate) async fn run(command: BlockCommand) -> anyhow::Result<()> {
    let BlockCommand::Show(options) = command;
    let (block, access) = load(&options).await?;
    let mut decoded = DecodedBlock::new(&block)?;
    if let Some(access) = access.filter(|_| !decoded.entries().is_empty()) {
        let (member, peer) = access.peer()?;
        let admin = access.peer_admin(&access.peer_endpoint(member, peer)?, access.reader()?)?;
        registered::name_entries(&mut decoded, &admin, access.channel()).await;
    }
    let json = messages::to_json("common.Block", &block.encode_to_vec(), Broken::Show)?;
    options.output.print(&json, || words(&decoded))
}

/// The block, and the network that it came from.
async fn load(options: &ShowOptions) -> anyhow::Result<(Block, Option<Access>)> {
    if let Some(file) = &options.file {
        let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let block = Block::decode(bytes.as_slice());
        return Ok((block.with_context(|| format!("{} is not a block", file.display()))?, None));
    }
    let position = options.position.context("name a block, or a file with --file")?;
    let access = options.access.open()?;
    let (member, peer) = access.peer()?;
    let endpoint = access.peer_endpoint(member, peer)?;
    let identity = access.reader()?;
    let fetched = fetch_block(&endpoint, BlockServer::Peer, &identity, access.channel(), position.0).await;
    let block = fetched.with_context(|| position.missing())?;
    Ok((block, Some(access)))
}

fn words(block: &DecodedBlock) -> String {
    let mut lines = vec![format!("block {}: {} transaction(s)", block.number, block.transactions.len())];
    lines.push(format!("  hash of the data     {}", hex::encode(&block.data_hash)));
    lines.push(format!("  hash of block before {}", hex::encode(&block.previous_hash)));
    for transaction in &block.transactions {
        lines.extend(transaction_words(transaction));
    }
    lines.join("\n")
}

/// A transaction in words, one line each for what it did.
pub(crate) fn transaction_words(transaction: &DecodedTransaction) -> Vec<String> {
    let code = transaction.code.unwrap_or(TxValidationCode::NotValidated);
    let id = if transaction.tx_id.is_empty() { "(no id)" } else { transaction.tx_id.as_str() };
    let mut lines = vec![format!("  {} {id}: {}", transaction.index, code.as_str_name())];
    if code != TxValidationCode::Valid && code != TxValidationCode::NotValidated {
        lines.push(format!("      {}", explain(code)));
    }
    if let Some(creator) = &transaction.creator {
        let time = transaction.time.map(OffsetDateTime::from).and_then(|time| time.format(&Rfc3339).ok());
        lines.push(format!("      by {creator} at {}", time.as_deref().unwrap_or("an unknown time")));
    }
    match &transaction.kind {
        Kind::Configuration { sequence } => {
            lines.push(format!("      configuration {sequence} of the channel"));
        }
        Kind::Malformed(reason) => lines.push(format!("      malformed: {reason}")),
        Kind::Invocation(invocation) => lines.extend(invocation_words(invocation)),
    }
    lines
}

fn invocation_words(invocation: &DecodedInvocation) -> Vec<String> {
    let arguments: Vec<String> =
        invocation.arguments.iter().skip(1).map(|argument| shown(argument)).collect();
    let (chaincode, version) = (&invocation.chaincode, &invocation.version);
    let mut lines = vec![format!(
        "      {chaincode} (version {version}) {}({})",
        invocation.function(),
        arguments.join(", ")
    )];
    let endorsers: Vec<String> = invocation.endorsers.iter().map(ToString::to_string).collect();
    lines.push(format!("      endorsed by {}", endorsers.join(", ")));
    for namespace in &invocation.rwset.namespaces {
        lines.extend(namespace_words(namespace));
    }
    if let Some(event) = &invocation.event {
        lines.push(format!("      event {}: {}", event.event_name, shown(&event.payload)));
    }
    lines
}

fn namespace_words(set: &NamespaceReadWriteSet) -> Vec<String> {
    let name = &set.namespace;
    let mut lines = Vec::new();
    for read in &set.reads {
        let version = read.version.map_or_else(
            || "absent".to_owned(),
            |height| format!("of block {} transaction {}", height.block, height.tx),
        );
        lines.push(format!("      reads {name}/{}: {version}", key(&read.key)));
    }
    for range in &set.range_queries {
        lines.push(format!("      reads {name}/ from {} to {}", key(&range.start_key), key(&range.end_key)));
    }
    for write in &set.writes {
        let what = if write.is_delete { "deleted".to_owned() } else { shown(&write.value) };
        lines.push(format!("      writes {name}/{}: {what}", key(&write.key)));
    }
    for write in &set.metadata_writes {
        lines.push(format!("      sets the policy of {name}/{}", key(&write.key)));
    }
    for collection in &set.collections {
        let (reads, writes) = (collection.hashed_reads.len(), collection.hashed_writes.len());
        lines
            .push(format!("      collection {name}/{}: {reads} read(s), {writes} write(s)", collection.name));
    }
    lines
}

/// A key as people can read it: composite keys hold zero characters between their parts.
pub(crate) fn key(key: &str) -> String {
    if key.chars().any(char::is_control) {
        return key.split('\0').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("~");
    }
    key.to_owned()
}

/// A value as text, or in hexadecimal when it is none, shortened.
fn shown(bytes: &[u8]) -> String {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => format!("0x{}", hex::encode(&bytes[..bytes.len().min(SHOWN_CHARACTERS / 2)])),
    };
    if text.chars().count() <= SHOWN_CHARACTERS {
        return text;
    }
    let beginning: String = text.chars().take(SHOWN_CHARACTERS).collect();
    format!("{beginning}... ({} bytes)", bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_block_is_told_in_words() {
        let path = "../protos/tests/golden/fabric-channel/blocks/0014.pb";
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let block = Block::decode(std::fs::read(file).unwrap().as_slice()).unwrap();
        let text = words(&DecodedBlock::new(&block).unwrap());
        assert!(text.starts_with("block 14: "), "{text}");
        assert!(text.contains("endorsed by "), "{text}");
    }

    #[test]
    fn composite_keys_and_binary_values_are_readable() {
        assert_eq!(key("\0color~name\0blue\0a1\0"), "color~name~blue~a1");
        assert_eq!(shown(b"\x00\xff"), "0x00ff");
        assert!(shown(&[b'x'; 200]).ends_with("... (200 bytes)"));
    }
}
