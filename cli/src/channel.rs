//! `consort channel`: channels of peers and orderers.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use consort_channel_config::Profile;
use consort_client_sdk::blocks::{BlockPosition, BlockServer, fetch_block};
use consort_client_sdk::participation::OrdererAdmin;
use consort_client_sdk::peer_admin::PeerAdmin;
use consort_protos::fabric::common::Block;
use consort_protos::ids::ChannelId;
use prost::Message;
use serde_json::json;

use crate::access::{Access, AccessOptions};
use crate::configuration;
use crate::output::Output;
use crate::registered;
use crate::topology::{Orderer, OrdererOrganisation};

/// Channels of peers and orderers
#[derive(Debug, Subcommand)]
pub(crate) enum ChannelCommand {
    /// List the channels that a peer or an orderer has joined
    #[command(
        after_help = "Examples:\n  consort channel list\n  consort channel list --orderer orderer.example.com"
    )]
    List(NodeOptions),
    /// Show height and last hashes of the channel on a peer, or its state on an orderer
    #[command(
        after_help = "Examples:\n  consort channel info --peer peer0.org2.example.com\n  consort channel info --orderer orderer.example.com --output json"
    )]
    Info(NodeOptions),
    /// Join a peer or an orderer to a channel by its genesis block
    #[command(
        after_help = "Example:\n  consort channel join --block .consort/two-org-raft/channel/mychannel.block --peer peer0.org1.example.com"
    )]
    Join(JoinOptions),
    /// Fetch a block and write it to a file
    #[command(
        after_help = "Examples:\n  consort channel fetch config --to config.block\n  consort channel fetch 7 --to 7.block --orderer orderer.example.com"
    )]
    Fetch(FetchOptions),
    /// Make the genesis block of a new channel from its description
    #[command(
        after_help = "Example:\n  consort channel create second --profile second.yaml --to second.block\n  consort channel join --block second.block --orderer orderer.example.com\n  consort channel join --block second.block --peer peer0.org1.example.com"
    )]
    Create(CreateOptions),
    /// Show in words what a change would do and whose signatures it needs, and write the update
    #[command(
        after_help = "Example, with the file batch.yaml:\n  batch: { max_message_count: 50 }\n\n  consort channel plan batch.yaml\n  consort channel sign batch.update --as Admin@example.com\n  consort channel apply batch.update\n\nA file may also say: organisations (add, remove), orderer_organisations, consenters (add, remove), anchor_peers,\norderer_endpoints, policies, acls, revocation_lists. See docs/adding-an-organisation.md."
    )]
    Plan(configuration::PlanOptions),
    /// Add the caller's signature to an update (of `plan`, or of Fabric's tools)
    #[command(after_help = "Example:\n  consort channel sign add-org3.update --as Admin@org1.example.com")]
    Sign(configuration::SignOptions),
    /// Submit an update, with the caller's signature, and wait until a peer has it
    #[command(
        visible_alias = "update",
        after_help = "Example:\n  consort channel apply add-org3.update --as Admin@org2.example.com"
    )]
    Apply(configuration::SignOptions),
    /// The channel's table of identities: list, register, renew, retire
    #[command(subcommand)]
    Identities(registered::IdentitiesCommand),
    /// Say who could satisfy a policy of the channel, or whether given signers would, and why
    #[command(
        after_help = "Examples:\n  consort channel policy\n  consort channel policy --path /Channel/Application/Writers\n  consort channel policy --path /Channel/Application/Admins --signers Admin@org1.example.com,Admin@org2.example.com\n  consort channel policy --rule \"OutOf(2, 'Org1MSP.peer', 'Org2MSP.peer')\" --signers peer0.org1.example.com,Org2MSP:peer0.org2/msp\n\nNothing is signed or sent; the configuration is the one in force on the peer. The exit status is 1 when given signers\ndo not satisfy the policy."
    )]
    Policy(configuration::PolicyOptions),
}

#[derive(Debug, Args)]
pub(crate) struct CreateOptions {
    /// Name of the channel
    name: String,

    /// File that describes it (docs/operations.md)
    #[arg(long, value_name = "FILE")]
    profile: PathBuf,

    /// File to write the genesis block to
    #[arg(long, value_name = "FILE")]
    to: PathBuf,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct NodeOptions {
    #[command(flatten)]
    access: AccessOptions,

    /// Ask this orderer instead of a peer
    #[arg(long, value_name = "HOST", conflicts_with = "peer")]
    orderer: Option<String>,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct JoinOptions {
    #[command(flatten)]
    node: NodeOptions,

    /// File with the genesis block
    #[arg(long, value_name = "FILE")]
    block: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct FetchOptions {
    #[command(flatten)]
    node: NodeOptions,

    /// oldest, newest, config or a block number
    position: Position,

    /// File to write
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

/// A block position as it is written on the command line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position(pub(crate) BlockPosition);

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "oldest" => Ok(Self(BlockPosition::Oldest)),
            "newest" => Ok(Self(BlockPosition::Newest)),
            "config" => Ok(Self(BlockPosition::Config)),
            number => match number.parse() {
                Ok(number) => Ok(Self(BlockPosition::Number(number))),
                Err(_) => Err("expected oldest, newest, config or a block number".to_owned()),
            },
        }
    }
}

/// Runs a `consort channel` command.
///
/// # Errors
/// What the node answers.
pub(crate) async fn run(command: ChannelCommand) -> anyhow::Result<()> {
    match command {
        ChannelCommand::List(options) => list(&options).await,
        ChannelCommand::Info(options) => info(&options).await,
        ChannelCommand::Join(options) => join(&options).await,
        ChannelCommand::Fetch(options) => fetch(&options).await,
        ChannelCommand::Create(options) => create(&options),
        ChannelCommand::Plan(options) => configuration::plan(&options).await,
        ChannelCommand::Sign(options) => configuration::sign(&options).await,
        ChannelCommand::Apply(options) => configuration::apply(&options).await,
        ChannelCommand::Identities(command) => registered::run(command).await,
        ChannelCommand::Policy(options) => configuration::policy(&options).await,
    }
}

async fn list(options: &NodeOptions) -> anyhow::Result<()> {
    let access = options.access.open()?;
    let channels = match &options.orderer {
        Some(host) => orderer_admin(&access, host)?.channels().await?,
        None => peer_admin(&access)?.channels().await?,
    };
    options.output.print(&json!({ "channels": channels }), || channels.join("\n"))
}

async fn info(options: &NodeOptions) -> anyhow::Result<()> {
    let access = options.access.open()?;
    let channel = access.channel();
    if let Some(host) = &options.orderer {
        let status = orderer_admin(&access, host)?.channel(channel).await?;
        let Some(status) = status else { bail!("{host} has not joined channel {channel}") };
        return options.output.print(&serde_json::to_value(&status)?, || {
            format!(
                "channel {channel} on {host}: {} ({}), height {}",
                status.status, status.consensus_relation, status.height
            )
        });
    }
    let info = peer_admin(&access)?.chain_info(channel).await?;
    let (current, previous) = (hex::encode(&info.current_block_hash), hex::encode(&info.previous_block_hash));
    let json = json!({
        "channel": channel,
        "height": info.height,
        "current_block_hash": current,
        "previous_block_hash": previous,
    });
    options.output.print(&json, || {
        format!(
            "channel {channel}: height {}\ncurrent block hash  {current}\nprevious block hash {previous}",
            info.height
        )
    })
}

async fn join(options: &JoinOptions) -> anyhow::Result<()> {
    let access = options.node.access.open()?;
    let bytes =
        std::fs::read(&options.block).with_context(|| format!("cannot read {}", options.block.display()))?;
    let (who, channel) = match &options.node.orderer {
        Some(host) => {
            let status = orderer_admin(&access, host)?.join(bytes.into()).await?;
            (host.clone(), status.name)
        }
        None => {
            let block = Block::decode(bytes.as_slice())
                .with_context(|| format!("{} is not a block", options.block.display()))?;
            peer_admin(&access)?.join(&block).await?;
            (access.peer()?.1.host.clone(), access.channel().to_owned())
        }
    };
    let json = json!({ "node": who, "channel": channel });
    options.node.output.print(&json, || format!("{who} has joined channel {channel}"))
}

async fn fetch(options: &FetchOptions) -> anyhow::Result<()> {
    let access = options.node.access.open()?;
    let (endpoint, server) = match &options.node.orderer {
        Some(host) => {
            let (organisation, orderer) = find_orderer(&access, host)?;
            (access.orderer_endpoint(&organisation.member, orderer)?, BlockServer::Orderer)
        }
        None => {
            let (member, peer) = access.peer()?;
            (access.peer_endpoint(member, peer)?, BlockServer::Peer)
        }
    };
    let identity = access.identity(false)?;
    let block = fetch_block(&endpoint, server, &identity, access.channel(), options.position.0).await?;
    let number = block.header.as_ref().map_or(0, |header| header.number);
    crate::files::write_atomically(&options.to, &block.encode_to_vec(), false)?;
    let json = json!({ "number": number, "file": options.to });
    options.node.output.print(&json, || format!("block {number} is in {}", options.to.display()))
}

fn create(options: &CreateOptions) -> anyhow::Result<()> {
    let channel = ChannelId::parse(&options.name)?;
    let block =
        Profile::load(&options.profile)?.genesis_block(&channel, rand::random(), crate::network::now())?;
    crate::files::write_atomically(&options.to, &block.encode_to_vec(), false)?;
    options.output.print(&json!({ "channel": options.name, "file": options.to }), || {
        format!(
            "The genesis block of channel {channel} is in {}. Next, for each orderer and peer:\n  consort channel join --block {} \
             --orderer <host> (or --peer <host>)",
            options.to.display(),
            options.to.display()
        )
    })
}

fn peer_admin(access: &Access) -> anyhow::Result<PeerAdmin> {
    let (member, peer) = access.peer()?;
    Ok(access.peer_admin(&access.peer_endpoint(member, peer)?, access.identity(true)?)?)
}

fn orderer_admin(access: &Access, host: &str) -> anyhow::Result<OrdererAdmin> {
    let (organisation, orderer) = find_orderer(access, host)?;
    Ok(OrdererAdmin::new(&access.orderer_admin_endpoint(&organisation.member, orderer)?)?)
}

fn find_orderer<'a>(
    access: &'a Access,
    host: &str,
) -> anyhow::Result<(&'a OrdererOrganisation, &'a Orderer)> {
    access.topology.orderers().find(|(_, orderer)| orderer.host == host).with_context(|| {
        let hosts: Vec<&str> = access.topology.orderers().map(|(_, orderer)| orderer.host.as_str()).collect();
        format!("the network has no orderer '{host}' (known are: {})", hosts.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_peer_channel_fetch_reads_them() {
        assert_eq!("config".parse::<Position>().unwrap().0, BlockPosition::Config);
        assert_eq!("7".parse::<Position>().unwrap().0, BlockPosition::Number(7));
        assert!("-1".parse::<Position>().is_err());
    }
}
