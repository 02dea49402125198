//! `consort orderer recover`: a channel whose majority has lost its memory goes on with one orderer, by an operator's word.
//!
//! Fabric has no such thing. The rules are those of etcd's documentation, "Disaster recovery": one member is named, the others join it anew.

use anyhow::{bail, ensure};
use clap::Args;
use serde_json::json;

use super::{admin, find, status};
use crate::access::AccessOptions;
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct RecoverOptions {
    #[command(flatten)]
    access: AccessOptions,

    /// The orderer that goes on: the one with the most blocks
    #[arg(value_name = "HOST")]
    orderer: String,

    /// You know that the other consenters have lost their data or never had any, and do not run elsewhere; what only they held is lost
    #[arg(long)]
    accept_loss: bool,

    #[command(flatten)]
    output: Output,
}

/// Runs `consort orderer recover`.
///
/// # Errors
/// The channel has a leader, another orderer has more blocks, or what the orderer answers.
pub(super) async fn run(options: &RecoverOptions) -> anyhow::Result<()> {
    let access = options.access.open()?;
    let (host, channel) = (&options.orderer, access.channel());
    let (organisation, orderer) = find(&access, host)?;
    let (rows, silent) = status::ask_all(&access).await;
    check(host, channel, &rows)?;
    if !options.accept_loss {
        let others: Vec<&str> = silent.iter().map(|one| one.orderer.as_str()).collect();
        let others = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
        bail!(
            "channel {channel} would go on with {host} alone; all other consenters would join it anew. Orderers that do not answer now: {others}. If one of them \
             still has its data, start it instead: a majority elects a leader by itself, and nothing is lost. If you know that their data is lost, run \
             this again with --accept-loss"
        );
    }
    admin(&access, organisation, orderer)?.recover(channel).await?;
    let json = json!({ "orderer": host, "channel": channel });
    options.output.print(&json, || {
        format!(
            "channel {channel} goes on with {host}. The other orderers are admitted as soon as they run; see: consort orderer status. One that has more blocks \
             than {host} must leave the channel and join it again"
        )
    })
}

/// Whether what the orderers say speaks against it.
fn check(host: &str, channel: &str, rows: &[status::Row]) -> anyhow::Result<()> {
    let rows: Vec<&status::Row> = rows.iter().filter(|row| row.channel == channel).collect();
    let Some(own) = rows.iter().find(|row| row.orderer == host) else {
        bail!(
            "{host} does not answer, or has not joined channel {channel}: start it, and join the channel with its genesis block"
        )
    };
    ensure!(own.relation == "consenter", "{host} is no consenter of channel {channel}");
    if let Some(leader) = rows.iter().find(|row| row.leads == Some(true)) {
        bail!(
            "{} leads channel {channel}: nothing has to be recovered (it notices within seconds when it has lost the others; then ask again)",
            leader.orderer
        );
    }
    if let Some(higher) = rows.iter().find(|row| row.relation == "consenter" && row.height > own.height) {
        bail!(
            "{} has {} blocks of channel {channel}, {host} has {}: recover {} instead",
            higher.orderer,
            higher.height,
            own.height,
            higher.orderer
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(orderer: &str, relation: &str, height: u64, leads: bool) -> status::Row {
        status::Row {
            orderer: orderer.to_owned(),
            channel: "mychannel".to_owned(),
            relation: relation.to_owned(),
            status: "active".to_owned(),
            height,
            leads: Some(leads),
            term: None,
            behind: 0,
        }
    }

    #[test]
    fn only_the_consenter_with_the_most_blocks_recovers_a_channel_and_only_without_a_leader() {
        let rows = [
            row("orderer1", "consenter", 7, false),
            row("orderer2", "consenter", 9, false),
            row("orderer4", "follower", 12, false),
        ];
        let refused =
            |host: &str, rows: &[status::Row]| check(host, "mychannel", rows).unwrap_err().to_string();
        assert!(refused("orderer1", &rows).contains("recover orderer2 instead"));
        assert!(refused("orderer3", &rows).contains("does not answer"));
        assert!(refused("orderer4", &rows).contains("no consenter"));
        check("orderer2", "mychannel", &rows).unwrap();
        let led = [row("orderer1", "consenter", 7, true), row("orderer2", "consenter", 9, false)];
        assert!(refused("orderer2", &led).contains("orderer1 leads"));
    }
}
