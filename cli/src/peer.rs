//! `consort peer`: a peer from its administrator's side.

use clap::{Args, Subcommand};
use consort_protos::consort::privatedata::{LackingCollection, Status};
use serde_json::{Value, json};

use crate::access::{Access, AccessOptions};
use crate::layout::{ADMINISTRATOR, MemberKind};
use crate::output::Output;
use crate::report::table;

/// Peers: what they lack of private data
#[derive(Debug, Subcommand)]
pub(crate) enum PeerCommand {
    /// Show the private data that a peer should hold and does not, and how its search for it goes
    #[command(
        after_help = "Example:\n  consort peer private --peer peer1.org1.example.com\n\nA peer lacks data that nobody could give it when the block was committed; it goes on searching by itself. The answer is for\nadministrators of the peer's organisation, whose credentials must be at hand."
    )]
    Private(PrivateOptions),
}

#[derive(Debug, Args)]
pub(crate) struct PrivateOptions {
    #[command(flatten)]
    access: AccessOptions,

    #[command(flatten)]
    output: Output,
}

/// Runs a `consort peer` command.
///
/// # Errors
/// What the peer answers.
pub(crate) async fn run(command: PeerCommand) -> anyhow::Result<()> {
    match command {
        PeerCommand::Private(options) => private(&options).await,
    }
}

async fn private(options: &PrivateOptions) -> anyhow::Result<()> {
    let access = options.access.open()?;
    let (host, status) = ask(&access).await?;
    let lacking: Vec<Value> = status
        .lacking
        .iter()
        .map(|one| {
            json!({
                "chaincode": one.namespace, "collection": one.collection, "sets": one.sets,
                "first_block": one.first_block, "last_block": one.last_block,
            })
        })
        .collect();
    let json = json!({
        "peer": host, "channel": access.channel(), "lacking": lacking, "counted_up_to": status.counted_up_to,
        "supplied": status.supplied, "last_search_ms": status.last_search_ms, "last_wanted": status.last_wanted,
        "last_supplied": status.last_supplied, "last_reason": status.last_reason,
    });
    options.output.print(&json, || text(&host, access.channel(), &status))
}

async fn ask(access: &Access) -> anyhow::Result<(String, Status)> {
    let (member, peer) = access.peer()?;
    let identity = access.identity_of(MemberKind::Peers, member, ADMINISTRATOR)?;
    let admin = access.peer_admin(&access.peer_endpoint(member, peer)?, identity)?;
    Ok((peer.host.clone(), admin.private_data_status(access.channel()).await?))
}

fn text(host: &str, channel: &str, status: &Status) -> String {
    let mut lines = Vec::new();
    if status.lacking.is_empty() {
        lines.push(format!("{host} lacks no private data of channel {channel}"));
    } else {
        lines.push(format!("{host} lacks private data of channel {channel}:"));
        let row = |one: &LackingCollection| {
            let blocks = format!("{} to {}", one.first_block, one.last_block);
            vec![one.namespace.clone(), one.collection.clone(), one.sets.to_string(), blocks]
        };
        let mut rows =
            vec![["CHAINCODE", "COLLECTION", "TRANSACTIONS", "BLOCKS"].map(str::to_owned).to_vec()];
        rows.extend(status.lacking.iter().map(row));
        lines.push(table(&rows));
    }
    if status.counted_up_to > 0 {
        lines.push(format!("only the newest {} were counted", status.counted_up_to));
    }
    if status.last_search_ms > 0 {
        lines.push(format!(
            "the last search asked for {} and got {}; {} came late since the peer's start",
            status.last_wanted, status.last_supplied, status.supplied
        ));
    }
    if !status.last_reason.is_empty() {
        lines.push(format!("not everything came: {}", status.last_reason));
    }
    lines.join("\n")
}
