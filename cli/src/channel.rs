//! `consort channel`: channels of peers and orderers.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use consort_channel_config::{ChannelBundle, Profile};
use consort_client_sdk::blocks::{BlockPosition, BlockServer, fetch_block};
use consort_client_sdk::participation::OrdererAdmin;
use consort_client_sdk::peer_admin::PeerAdmin;
use consort_protos::fabric::common::Block;
use consort_protos::ids::ChannelId;
use prost::Message;
use serde_json::json;

use crate::access::{Access, AccessOptions};
use crate::configuration;
use crate::ordering;
use crate::output::Output;
use crate::registered;
use crate::topology::{Orderer, OrdererOrganisation};

/// How long joining waits for the blocks that there are already; of a long chain it tells what is left instead.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(10);

/// How often the peer is asked for its height meanwhile.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

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
    /// Join a peer or an orderer to a channel by its genesis block, which a peer's is asked of the orderers
    #[command(
        after_help = "Examples:\n  consort channel join --peer peer0.org3.example.com --network .consort/org3\n  consort channel join --block .consort/two-org-raft/channel/mychannel.block --orderer orderer4.example.com"
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

    /// File with the genesis block [default: the orderers are asked for it; an orderer needs the file]
    #[arg(long, value_name = "FILE")]
    block: Option<PathBuf>,
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

impl Position {
    /// Words for a block that cannot be had.
    pub(crate) fn missing(self) -> String {
        match self.0 {
            BlockPosition::Number(number) => {
                format!(
                    "block {number} cannot be had; `consort channel info` tells how many blocks there are"
                )
            }
            _ => "the block cannot be had".to_owned(),
        }
    }
}

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
    let (who, channel, height) = match (&options.node.orderer, &options.block) {
        (Some(host), Some(file)) => {
            let status = orderer_admin(&access, host)?.join(read(file)?.into()).await?;
            (host.clone(), status.name, None)
        }
        (Some(_), None) => bail!("an orderer joins with the file of a block: name it with --block"),
        (None, Some(file)) => {
            let block = Block::decode(read(file)?.as_slice())
                .with_context(|| format!("{} is not a block", file.display()))?;
            peer_admin(&access)?.join(&block).await?;
            (access.peer()?.1.host.clone(), channel_of(&block)?, None)
        }
        (None, None) => {
            let block = ordering::fetch(&access, BlockPosition::Oldest).await?;
            let admin = peer_admin(&access)?;
            admin.join(&block).await?;
            let height = catch_up(&access, &admin).await?;
            (access.peer()?.1.host.clone(), channel_of(&block)?, Some(height))
        }
    };
    let json = json!({ "node": who, "channel": channel, "height": height.map(|(height, _)| height) });
    options.node.output.print(&json, || {
        let joined = format!("{who} has joined channel {channel}");
        match height {
            None => joined,
            Some((height, of)) if height >= of => format!("{joined} and has all {height} blocks"),
            Some((0, of)) => format!(
                "{joined} and has yet to reach the block that adds its organisation, one of {of}; `consort channel info --peer {who}` \
                 answers from then on"
            ),
            Some((height, of)) => format!(
                "{joined} and has {height} of {of} blocks so far; `consort channel info --peer {who}` tells how it goes on"
            ),
        }
    })
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

fn channel_of(block: &Block) -> anyhow::Result<String> {
    Ok(ChannelBundle::from_block(block)?.channel().to_string())
}

/// Gives a peer that has just joined a moment to fetch the blocks that there are; answers its height and the orderers'.
async fn catch_up(access: &Access, admin: &PeerAdmin) -> anyhow::Result<(u64, u64)> {
    let newest = ordering::fetch(access, BlockPosition::Newest).await?;
    let of = newest.header.map_or(0, |header| header.number) + 1;
    let began = Instant::now();
    loop {
        // A peer knows its own organisation, and answers its administrator, from the block on that added it.
        let height = admin.chain_info(access.channel()).await.map_or(0, |info| info.height);
        if height >= of || began.elapsed() > CATCH_UP_LIMIT {
            return Ok((height, of));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn fetch(options: &FetchOptions) -> anyhow::Result<()> {
    let access = options.node.access.open()?;
    let (endpoint, server) = match &options.node.orderer {
        Some(host) => (ordering::endpoint_of(&access, host)?, BlockServer::Orderer),
        None => {
            let (member, peer) = access.peer()?;
            (access.peer_endpoint(member, peer)?, BlockServer::Peer)
        }
    };
    let identity = access.identity(false)?;
    let fetched = fetch_block(&endpoint, server, &identity, access.channel(), options.position.0).await;
    let block = fetched.with_context(|| options.position.missing())?;
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
