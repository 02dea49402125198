//! `consort orderer`: the ordering service from the operator's side.

mod consenters;
mod recover;
mod status;

use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use consort_channel_config::ChannelBundle;
use consort_client_sdk::participation::OrdererAdmin;
use serde_json::json;

use crate::access::{Access, AccessOptions};
use crate::output::Output;
use crate::topology::{Orderer, OrdererOrganisation};

/// Orderers: how they are, which channels they serve, who the consenters are
#[derive(Debug, Subcommand)]
pub(crate) enum OrdererCommand {
    /// Show every orderer with its channels: relation, state, height, leader, term, and how far it is behind
    #[command(after_help = "Examples:\n  consort orderer status\n  consort orderer status --output json")]
    Status(StatusOptions),
    /// Make an orderer leave a channel; its blocks there are deleted
    #[command(after_help = "Example:\n  consort orderer leave orderer3.example.com")]
    Leave(LeaveOptions),
    /// Have a channel go on with one orderer after most of its consenters have lost their data for good
    #[command(after_help = "Example:\n  consort orderer recover orderer.example.com --accept-loss")]
    Recover(recover::RecoverOptions),
    /// Change the consenters of a channel, one at a time, by an update of its configuration
    #[command(subcommand)]
    Consenters(consenters::ConsentersCommand),
}

#[derive(Debug, Args)]
pub(crate) struct StatusOptions {
    #[command(flatten)]
    access: AccessOptions,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct LeaveOptions {
    #[command(flatten)]
    access: AccessOptions,

    /// The orderer that leaves
    #[arg(value_name = "HOST")]
    orderer: String,

    #[command(flatten)]
    output: Output,
}

/// Runs a `consort orderer` command.
///
/// # Errors
/// What the orderer answers.
pub(crate) async fn run(command: OrdererCommand) -> anyhow::Result<()> {
    match command {
        OrdererCommand::Status(options) => status::run(&options.access.open()?, options.output).await,
        OrdererCommand::Leave(options) => leave(&options).await,
        OrdererCommand::Recover(options) => recover::run(&options).await,
        OrdererCommand::Consenters(command) => consenters::run(command).await,
    }
}

async fn leave(options: &LeaveOptions) -> anyhow::Result<()> {
    let access = options.access.open()?;
    let (host, channel) = (&options.orderer, access.channel());
    let (organisation, orderer) = find(&access, host)?;
    admin(&access, organisation, orderer)?.remove(channel).await?;
    let json = json!({ "orderer": host, "channel": channel });
    options.output.print(&json, || format!("{host} has left channel {channel} and deleted its blocks"))
}

/// How long one orderer may take to say which configuration it has.
const ASKING_LIMIT: Duration = Duration::from_secs(3);

/// The newest configuration that any orderer has; `None` when none can be asked from here.
pub(crate) async fn newest_configuration(access: &Access, channel: &str) -> Option<ChannelBundle> {
    let mut newest: Option<ChannelBundle> = None;
    for (organisation, orderer) in access.topology.orderers() {
        let Ok(admin) = admin(access, organisation, orderer) else { continue };
        let asked = tokio::time::timeout(ASKING_LIMIT, consenters::current(&admin, channel)).await;
        if let Ok(Ok(bundle)) = asked
            && newest.as_ref().is_none_or(|newest| bundle.sequence() > newest.sequence())
        {
            newest = Some(bundle);
        }
    }
    newest
}

fn admin(
    access: &Access,
    organisation: &OrdererOrganisation,
    orderer: &Orderer,
) -> anyhow::Result<OrdererAdmin> {
    Ok(OrdererAdmin::new(&access.orderer_admin_endpoint(&organisation.member, orderer)?)?)
}

fn find<'a>(access: &'a Access, host: &str) -> anyhow::Result<(&'a OrdererOrganisation, &'a Orderer)> {
    access.topology.orderers().find(|(_, orderer)| orderer.host == host).with_context(|| {
        let hosts: Vec<&str> = access.topology.orderers().map(|(_, orderer)| orderer.host.as_str()).collect();
        format!("the network has no orderer '{host}' (known are: {})", hosts.join(", "))
    })
}
