//! `consort ledger attest` and `verify-attestation`: where a channel's books stand, signed by enough of its members together.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use consort_channel_config::{ChannelBundle, attestation};
use consort_protos::consort::attestations::{Attestation, State};
use consort_protos::fabric::common::Block;
use prost::Message;
use serde_json::json;

use crate::access::AccessOptions;
use crate::output::Output;
use crate::report::count;

#[derive(Debug, Args)]
pub(crate) struct AttestOptions {
    #[command(flatten)]
    access: AccessOptions,

    /// File to write the attestation to
    #[arg(long, value_name = "FILE")]
    to: PathBuf,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyOptions {
    /// File with the attestation
    attestation: PathBuf,

    /// File with a configuration block of the channel, which says who its members are
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// File with the last block that the attestation is about, to be compared with it
    #[arg(long, value_name = "FILE")]
    block: Option<PathBuf>,

    #[command(flatten)]
    output: Output,
}

/// Fetches the newest attestation that a peer has put together.
///
/// # Errors
/// The peer does not answer, may not tell, or has none.
pub(crate) async fn attest(options: &AttestOptions) -> anyhow::Result<()> {
    let access = options.access.open()?;
    let (member, peer) = access.peer()?;
    let admin = access.peer_admin(&access.peer_endpoint(member, peer)?, access.reader()?)?;
    let channel = access.channel();
    let answer = admin.query(channel, "qscc", "GetAttestation", vec![channel.to_owned().into()]).await;
    let answer =
        answer.with_context(|| format!("peer {} gives no attestation of channel {channel}", peer.host))?;
    let attestation = attestation::decode(&answer)?;
    let state = stated(&attestation)?;
    std::fs::write(&options.to, &answer).with_context(|| format!("cannot write {}", options.to.display()))?;
    let json =
        json!({ "state": described(state), "attesters": attestation.attesters.len(), "file": options.to });
    options.output.print(&json, || {
        format!(
            "channel {channel} at height {}, signed by {}: {}",
            state.height,
            count(attestation.attesters.len(), "peer"),
            options.to.display()
        )
    })
}

/// Checks an attestation with nothing but the channel's configuration.
///
/// # Errors
/// A file cannot be read, or the attestation does not hold.
pub(crate) fn verify(options: &VerifyOptions) -> anyhow::Result<()> {
    let bundle = ChannelBundle::from_block(&read_block(&options.config)?).with_context(|| {
        format!(
            "{} is no configuration block.\nRemedy: fetch one with `consort channel fetch config`",
            options.config.display()
        )
    })?;
    let bytes = std::fs::read(&options.attestation)
        .with_context(|| format!("cannot read {}", options.attestation.display()))?;
    let attestation = attestation::decode(&bytes)?;
    let attesters = attestation::verify(&bundle, &attestation).context("the attestation does not hold")?;
    let state = stated(&attestation)?;
    if let Some(path) = &options.block {
        compare(&bundle, state, path)?;
    }
    let names: Vec<String> = attesters.iter().map(|attester| attester.identity.to_string()).collect();
    options.output.print(&json!({ "state": described(state), "attesters": names }), || {
        format!(
            "channel {} at height {}\n  hash of block {}'s header {}\n  its commit hash {}\nsigned by {}",
            state.channel,
            state.height,
            state.height - 1,
            hex::encode(&state.header_hash),
            hex::encode(&state.commit_hash),
            names.join(", ")
        )
    })
}

/// The block must be the attested one.
fn compare(bundle: &ChannelBundle, state: &State, path: &std::path::Path) -> anyhow::Result<()> {
    let block = read_block(path)?;
    let header = block.header.as_ref().with_context(|| format!("{} has no header", path.display()))?;
    if header.number + 1 != state.height
        || bundle.hash_algorithm().block_hash(header)[..] != state.header_hash[..]
    {
        bail!(
            "{} holds block {}, which is not the one that was attested: block {}",
            path.display(),
            header.number,
            state.height - 1
        );
    }
    if consort_protos::block::commit_hash(&block)?.is_some_and(|hash| hash != state.commit_hash) {
        bail!("{} has another commit hash than the attested one", path.display());
    }
    Ok(())
}

fn read_block(path: &std::path::Path) -> anyhow::Result<Block> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Block::decode(bytes.as_slice()).with_context(|| format!("{} is not a block", path.display()))
}

fn stated(attestation: &Attestation) -> anyhow::Result<&State> {
    attestation.state.as_ref().context("the attestation states nothing")
}

fn described(state: &State) -> serde_json::Value {
    json!({
        "channel": state.channel,
        "height": state.height,
        "header_hash": hex::encode(&state.header_hash),
        "commit_hash": hex::encode(&state.commit_hash),
    })
}
