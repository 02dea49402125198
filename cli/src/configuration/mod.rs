//! `consort channel plan`, `sign` and `apply`: configuration changes from a readable file.

mod policies;
mod words;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use consort_channel_config::update::{self, ComputeError, Demand};
use consort_channel_config::{Change, ChannelBundle, ConsensusState};
use consort_client_sdk::blocks::{BlockPosition, BlockServer, fetch_block};
use consort_client_sdk::configuration::{SignedUpdate, broadcast};
use consort_protos::fabric::common::{Block, ConfigUpdate};
use prost::Message;
use serde_json::json;

use crate::access::{Access, AccessOptions};
use crate::files;
use crate::orderer;
use crate::ordering;
use crate::output::Output;

pub(crate) use policies::{PolicyOptions, show as policy};

/// How long an accepted update may take until a peer has it.
const APPLIED_LIMIT: Duration = Duration::from_secs(30);

/// How often the peer is asked for it.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(crate) struct PlanOptions {
    #[command(flatten)]
    access: AccessOptions,

    /// File that describes the change
    change: PathBuf,

    /// File to write the update to [default: the change's name with .update]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct SignOptions {
    #[command(flatten)]
    access: AccessOptions,

    /// File with the update (of `channel plan`, or of Fabric's tools)
    update: PathBuf,

    #[command(flatten)]
    output: Output,
}

/// Shows what a change would do and writes the update that does it.
///
/// # Errors
/// The file is wrong, or the change does not fit the channel.
pub(crate) async fn plan(options: &PlanOptions) -> anyhow::Result<()> {
    let access = options.access.open()?;
    let change = Change::load(&options.change)?;
    let bundle = current(&access).await?;
    let wanted = change.apply(bundle.config())?;
    let update = match update::compute(bundle.config(), &wanted, bundle.channel()) {
        Ok(update) => update,
        Err(ComputeError::NoDifferences) => bail!(
            "channel {} is already as {} describes it: there is nothing to change",
            bundle.channel(),
            options.change.display()
        ),
        Err(error) => return Err(error.into()),
    };
    let update = SignedUpdate::new(&update);
    let demands = update::demands(&bundle, update.content())?;
    let file = options.to.clone().unwrap_or_else(|| options.change.with_extension("update"));
    files::write_atomically(&file, &update.unsigned_envelope().encode_to_vec(), false)?;
    let changes = words::changes(bundle.config(), &wanted);
    let json = json!({
        "channel": bundle.channel().to_string(),
        "sequence": bundle.sequence(),
        "changes": changes,
        "demands": demands_json(&demands),
        "file": file,
    });
    options.output.print(&json, || {
        let mut lines = vec![format!("This would change channel {}:", bundle.channel())];
        lines.extend(changes.iter().map(|line| format!("  {line}")));
        lines.push("Signatures of administrators that it needs:".to_owned());
        lines.extend(demands.iter().map(|demand| format!("  {}", words::demand(demand))));
        let file = file.display();
        lines.push(format!("The update is in {file}. Next, as each of them:\n  consort channel sign {file} --as Admin@<domain>"));
        lines.push(format!("and then, once:\n  consort channel apply {file}"));
        lines.join("\n")
    })
}

/// Adds the caller's signature to an update.
///
/// # Errors
/// The file is no update, or the key cannot be used.
pub(crate) async fn sign(options: &SignOptions) -> anyhow::Result<()> {
    let access = options.access.open()?;
    let mut update = read(&options.update)?;
    update.sign(&access.identity(true)?)?;
    let bundle = current_of(&access, update.channel()).await?;
    let demands = update::demands(&bundle, update.content())?;
    files::write_atomically(&options.update, &update.unsigned_envelope().encode_to_vec(), false)?;
    let signatures = update.content().signatures.len();
    let json = json!({ "signatures": signatures, "demands": demands_json(&demands), "file": options.update });
    options.output.print(&json, || {
        let mut lines = vec![format!("{} has {signatures} signature(s) now:", options.update.display())];
        lines.extend(demands.iter().map(|demand| format!("  {}", words::demand(demand))));
        if demands.iter().all(|demand| demand.unmet.is_none()) {
            lines
                .push(format!("It is complete. Next:\n  consort channel apply {}", options.update.display()));
        }
        lines.join("\n")
    })
}

/// Submits an update, with the caller's signature, and waits until a peer has it.
///
/// # Errors
/// Signatures are missing (the error says whose), or no orderer takes it.
pub(crate) async fn apply(options: &SignOptions) -> anyhow::Result<()> {
    let access = options.access.open()?;
    let identity = access.identity(true)?;
    let mut update = read(&options.update)?;
    update.sign(&identity)?;
    let bundle = current_of(&access, update.channel()).await?;
    let open: Vec<Demand> = update::demands(&bundle, update.content())?
        .into_iter()
        .filter(|demand| demand.unmet.is_some())
        .collect();
    if !open.is_empty() {
        bail!("{}", missing_signatures(&options.update, &open));
    }
    let envelope = update.envelope(&identity)?;
    let (mut refusals, mut last) = (Vec::new(), None);
    for endpoint in ordering::endpoints(&access, Some(&bundle))? {
        match broadcast(&endpoint, envelope.clone()).await {
            Ok(()) => {
                let (sequence, who) = applied(&access, update.channel(), bundle.sequence()).await?;
                let json = json!({ "channel": update.channel(), "sequence": sequence });
                return options.output.print(&json, || {
                    format!("channel {} has configuration {sequence} now{}", update.channel(), who.note())
                });
            }
            // What one orderer finds wrong with the update itself, the others would too.
            Err(error) if !error.is_transient() => return Err(error.into()),
            Err(error) => {
                refusals.push(format!("  {error}"));
                last = Some(error);
            }
        }
    }
    let last = last.context("the network has no orderers")?;
    Err(anyhow::Error::new(last).context(format!("no orderer took the update:\n{}", refusals.join("\n"))))
}

fn missing_signatures(file: &Path, open: &[Demand]) -> String {
    let mut lines = vec![format!("{} lacks signatures:", file.display())];
    for demand in open {
        lines.push(format!("  {}", words::demand(demand)));
        let reason = demand.unmet.as_deref().unwrap_or_default();
        lines.extend(reason.lines().map(|line| format!("      {line}")));
    }
    lines
        .push(format!("Remedy: let them run `consort channel sign {} --as Admin@<domain>`.", file.display()));
    lines.join("\n")
}

fn demands_json(demands: &[Demand]) -> Vec<serde_json::Value> {
    let one = |demand: &Demand| {
        let set = |set: &std::collections::BTreeMap<_, usize>| {
            set.iter().map(|(organisation, count)| (format!("{organisation}"), json!(count))).collect()
        };
        let signers: Vec<serde_json::Map<_, _>> = demand.signers.iter().map(set).collect();
        json!({
            "element": demand.element,
            "policy": demand.policy,
            "signers": signers,
            "satisfied": demand.unmet.is_none(),
        })
    };
    demands.iter().map(one).collect()
}

fn read(path: &Path) -> anyhow::Result<SignedUpdate> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    // What `config compute-update` and configtxlator write is the update alone, without a place for signatures.
    let bare = ConfigUpdate::decode(bytes.as_slice()).ok().filter(|update| !update.channel_id.is_empty());
    match (SignedUpdate::from_envelope(&bytes), bare) {
        (Ok(update), _) => Ok(update),
        (Err(_), Some(update)) => Ok(SignedUpdate::new(&update)),
        (Err(error), None) => {
            Err(error).with_context(|| format!("{} holds no configuration update", path.display()))
        }
    }
}

/// The configuration in force: as a peer has it, or an orderer that has a newer one. In maintenance peers get no blocks.
pub(crate) async fn current(access: &Access) -> anyhow::Result<ChannelBundle> {
    current_of(access, access.channel()).await
}

async fn current_of(access: &Access, channel: &str) -> anyhow::Result<ChannelBundle> {
    let of_peer = peers(access, channel).await?;
    let of_orderers = orderer::newest_configuration(access, channel).await;
    Ok(of_orderers.filter(|newest| newest.sequence() > of_peer.sequence()).unwrap_or(of_peer))
}

async fn peers(access: &Access, channel: &str) -> anyhow::Result<ChannelBundle> {
    let (member, peer) = access.peer()?;
    let endpoint = access.peer_endpoint(member, peer)?;
    // An administrator of orderers is no reader of the application's blocks in every channel; a user of the peer's is.
    let identity = access.reader()?;
    let block: Block =
        fetch_block(&endpoint, BlockServer::Peer, &identity, channel, BlockPosition::Config).await?;
    Ok(ChannelBundle::from_block(&block)?)
}

/// Who has a new configuration.
enum Holder {
    Peer,
    /// It began or prolonged maintenance, in which orderers deliver to orderers alone (Fabric, "Migrating from Kafka to Raft": the maintenance mode).
    OrderersOnly,
}

impl Holder {
    fn note(&self) -> &'static str {
        match self {
            Self::Peer => "",
            Self::OrderersOnly => {
                " and is in maintenance: peers hear of it when maintenance ends (a change file with `maintenance: false`)"
            }
        }
    }
}

/// Waits until the peer has a later configuration, or cannot get it; answers its sequence.
async fn applied(access: &Access, channel: &str, before: u64) -> anyhow::Result<(u64, Holder)> {
    let began = Instant::now();
    loop {
        let sequence = peers(access, channel).await?.sequence();
        if sequence > before {
            return Ok((sequence, Holder::Peer));
        }
        let of_orderers = orderer::newest_configuration(access, channel).await;
        if let Some(newest) = of_orderers.filter(|newest| newest.sequence() > before)
            && newest.orderer().state == ConsensusState::Maintenance
        {
            return Ok((newest.sequence(), Holder::OrderersOnly));
        }
        ensure!(
            began.elapsed() < APPLIED_LIMIT,
            "an orderer took the update, but after {} s the peer still has configuration {before}.\nRemedy: look at the \
             orderers' and the peer's logs (`consort network logs`); the update itself need not be sent again.",
            APPLIED_LIMIT.as_secs()
        );
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
