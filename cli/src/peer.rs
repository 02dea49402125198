//! `consort peer`: a peer from its administrator's side.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use consort_protos::consort::privatedata::{LackingCollection, Status};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::access::{Access, AccessOptions};
use crate::layout::{ADMINISTRATOR, MemberKind};
use crate::output::Output;
use crate::report::table;
use crate::topology::{Member, Peer};

/// How long one peer may take to answer everything.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Peers: which channels they serve and how far they are, what they lack of private data
#[derive(Debug, Subcommand)]
pub(crate) enum PeerCommand {
    /// Show every peer with its channels: height, how far it is behind, and the chaincodes that it can run there
    #[command(after_help = "Examples:\n  consort peer status\n  consort peer status --output json")]
    Status(PrivateOptions),
    /// Show the private data that a peer should hold and does not, and how its search for it goes
    #[command(
        after_help = "Examples:\n  consort peer private --peer peer1.org1.example.com\n  consort peer private --peer peer1.org1.example.com --output json\n\nA peer lacks data that nobody could give it when the block was committed; it goes on searching by itself. What invalid transactions\nwrote never becomes readable; it is kept for readers of blocks with their private data. The answer is for\nadministrators of the peer's organisation, whose credentials must be at hand."
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
        PeerCommand::Status(options) => status(&options).await,
        PeerCommand::Private(options) => private(&options).await,
    }
}

/// What a peer says of one channel, or why it says nothing.
struct Standing {
    peer: String,
    answer: Result<OnChannel, String>,
}

struct OnChannel {
    channel: String,
    height: u64,
    chaincodes: Vec<String>,
}

async fn status(options: &PrivateOptions) -> anyhow::Result<()> {
    let access = options.access.open()?;
    let asked = join_all(access.topology.peers().map(|(organisation, peer)| {
        let access = &access;
        async move {
            let answer =
                tokio::time::timeout(ANSWER_LIMIT, channels(access, &organisation.member, peer)).await;
            let of = |answer| Standing { peer: peer.host.clone(), answer };
            match answer {
                Ok(Ok(found)) => found.into_iter().map(|one| of(Ok(one))).collect(),
                Ok(Err(error)) => vec![of(Err(format!("{error:#}")))],
                Err(_elapsed) => vec![of(Err("no answer in time".to_owned()))],
            }
        }
    }));
    let standings: Vec<Standing> = asked.await.into_iter().flatten().collect();
    let mut best: BTreeMap<String, u64> = BTreeMap::new();
    for one in standings.iter().filter_map(|standing| standing.answer.as_ref().ok()) {
        let known = best.entry(one.channel.clone()).or_default();
        *known = (*known).max(one.height);
    }
    let behind = |one: &OnChannel| best.get(&one.channel).map_or(0, |best| best - one.height);
    let json: Vec<Value> = standings
        .iter()
        .map(|standing| match &standing.answer {
            Ok(one) => json!({
                "peer": standing.peer, "channel": one.channel, "height": one.height, "behind": behind(one),
                "chaincodes": one.chaincodes,
            }),
            Err(reason) => json!({ "peer": standing.peer, "reason": reason }),
        })
        .collect();
    options.output.print(&json!({ "peers": json }), || {
        let mut rows =
            vec![["PEER", "CHANNEL", "HEIGHT", "BEHIND", "CHAINCODES"].map(str::to_owned).to_vec()];
        rows.extend(standings.iter().map(|standing| match &standing.answer {
            Ok(one) => vec![
                standing.peer.clone(),
                one.channel.clone(),
                one.height.to_string(),
                behind(one).to_string(),
                one.chaincodes.join(", "),
            ],
            Err(reason) => {
                vec![standing.peer.clone(), "-".to_owned(), "-".to_owned(), "-".to_owned(), reason.clone()]
            }
        }));
        table(&rows)
    })
}

/// The channels of one peer, as its administrator sees them.
async fn channels(access: &Access, member: &Member, peer: &Peer) -> anyhow::Result<Vec<OnChannel>> {
    let identity = access.identity_of(MemberKind::Peers, member, ADMINISTRATOR)?;
    let admin = access.peer_admin(&access.peer_endpoint(member, peer)?, identity)?;
    let installed = admin.installed().await?;
    let mut found = Vec::new();
    for channel in admin.channels().await? {
        let height = admin.chain_info(&channel).await?.height;
        let references = installed.iter().filter_map(|package| package.references.get(&channel));
        let mut chaincodes: Vec<String> = references
            .flat_map(|references| &references.chaincodes)
            .map(|chaincode| format!("{} {}", chaincode.name, chaincode.version))
            .collect();
        chaincodes.sort();
        found.push(OnChannel { channel, height, chaincodes });
    }
    Ok(found)
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
                "of_invalid_transactions": one.invalid, "first_block": one.first_block, "last_block": one.last_block,
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
    let status = admin.private_data_status(access.channel()).await.with_context(|| {
        format!(
            "{} does not tell what it lacks of channel {}.\n\
             Remedy: `consort peer status` shows which peers answer, and which channels they have joined",
            peer.host,
            access.channel()
        )
    })?;
    Ok((peer.host.clone(), status))
}

fn text(host: &str, channel: &str, status: &Status) -> String {
    let mut lines = Vec::new();
    if status.lacking.is_empty() {
        lines.push(format!("{host} lacks no private data of channel {channel}"));
    } else {
        lines.push(format!("{host} lacks private data of channel {channel}:"));
        let row = |one: &LackingCollection| {
            let blocks = format!("{} to {}", one.first_block, one.last_block);
            let [all, invalid] = [one.sets, one.invalid].map(|sets| sets.to_string());
            vec![one.namespace.clone(), one.collection.clone(), all, invalid, blocks]
        };
        let heads = ["CHAINCODE", "COLLECTION", "TRANSACTIONS", "OF THESE INVALID", "BLOCKS"];
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
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
        lines.push("not everything came:".to_owned());
        lines.extend(status.last_reason.split("; ").map(|reason| format!("  {reason}")));
        lines.push("the peer goes on searching by itself, and at once when another peer appears".to_owned());
    }
    lines.join("\n")
}
