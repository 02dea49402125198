//! `consort orderer status`: what every orderer says of its channels, side by side.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use consort_client_sdk::participation::ChannelStatus;
use futures::future::join_all;
use serde_json::{Value, json};

use super::admin;
use crate::access::Access;
use crate::output::Output;
use crate::report::table;
use crate::topology::{Orderer, OrdererOrganisation};

/// How long one orderer may take to answer everything.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What one orderer says of one channel.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) orderer: String,
    pub(super) channel: String,
    pub(super) relation: String,
    pub(super) status: String,
    pub(super) height: u64,
    pub(super) leads: Option<bool>,
    pub(super) term: Option<u64>,
    /// Blocks that the highest orderer has and this one lacks.
    pub(super) behind: u64,
}

/// An orderer that does not answer, and why.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Silent {
    pub(super) orderer: String,
    reason: String,
}

/// `consort orderer status`.
///
/// # Errors
/// The network's credentials cannot be read.
pub(super) async fn run(access: &Access, output: Output) -> anyhow::Result<()> {
    let (rows, silent) = ask_all(access).await;
    let json = json!({
        "channels": rows.iter().map(Row::json).collect::<Vec<Value>>(),
        "silent": silent.iter().map(|one| json!({ "orderer": one.orderer, "reason": one.reason })).collect::<Vec<Value>>(),
    });
    output.print(&json, || text(&rows, &silent))
}

/// What all orderers of the network say, and who says nothing.
pub(super) async fn ask_all(access: &Access) -> (Vec<Row>, Vec<Silent>) {
    let asked = join_all(access.topology.orderers().map(|(organisation, orderer)| async move {
        let answer = tokio::time::timeout(ANSWER_LIMIT, ask(access, organisation, orderer)).await;
        let answer = answer.unwrap_or_else(|_elapsed| Err("no answer in time".to_owned()));
        answer.map_err(|reason| Silent { orderer: orderer.host.clone(), reason })
    }));
    let (mut rows, mut silent) = (Vec::new(), Vec::new());
    for answer in asked.await {
        match answer {
            Ok(found) => rows.extend(found),
            Err(one) => silent.push(one),
        }
    }
    measure(&mut rows);
    (rows, silent)
}

async fn ask(
    access: &Access,
    organisation: &OrdererOrganisation,
    orderer: &Orderer,
) -> Result<Vec<Row>, String> {
    let describe = |error: anyhow::Error| format!("{error:#}");
    let admin = admin(access, organisation, orderer).map_err(describe)?;
    let names = admin.channels().await.map_err(|error| describe(error.into()))?;
    let metrics = metrics(access.topology.address(&orderer.host, orderer.operations_port)).await;
    let mut rows = Vec::new();
    for name in names {
        if let Some(status) = admin.channel(&name).await.map_err(|error| describe(error.into()))? {
            rows.push(row(&orderer.host, status, metrics.as_deref()));
        }
    }
    Ok(rows)
}

/// The operations endpoint may be off or elsewhere; then leader and term stay unknown.
async fn metrics(address: SocketAddr) -> Option<String> {
    consort_crypto::tls::install_default_provider();
    let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_LIMIT).build().ok()?;
    client.get(format!("http://{address}/metrics")).send().await.ok()?.text().await.ok()
}

fn row(orderer: &str, status: ChannelStatus, metrics: Option<&str>) -> Row {
    // A follower has no part in elections.
    let is_consenter = status.consensus_relation == "consenter" && status.status == "active";
    let read = |metric| metrics.filter(|_| is_consenter).and_then(|text| gauge(text, metric, &status.name));
    Row {
        orderer: orderer.to_owned(),
        leads: read("orderer_is_leader").map(|value| value > 0),
        term: read("orderer_raft_term"),
        channel: status.name,
        relation: status.consensus_relation,
        status: status.status,
        height: status.height,
        behind: 0,
    }
}

/// One gauge of one channel in Prometheus' text format.
fn gauge(metrics: &str, metric: &str, channel: &str) -> Option<u64> {
    let start = format!("{metric}{{channel=\"{channel}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&start)?.trim().parse().ok())
}

fn measure(rows: &mut [Row]) {
    let mut highest: BTreeMap<String, u64> = BTreeMap::new();
    for row in rows.iter() {
        let height = highest.entry(row.channel.clone()).or_default();
        *height = row.height.max(*height);
    }
    for row in rows {
        row.behind = highest.get(&row.channel).map_or(0, |height| height - row.height);
    }
}

fn text(rows: &[Row], silent: &[Silent]) -> String {
    let heading = ["ORDERER", "CHANNEL", "RELATION", "STATUS", "HEIGHT", "LEADER", "TERM", "BEHIND"];
    let mut lines = vec![heading.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(|row| {
        vec![
            row.orderer.clone(),
            row.channel.clone(),
            row.relation.clone(),
            row.status.clone(),
            row.height.to_string(),
            match row.leads {
                Some(true) => "leader".to_owned(),
                Some(false) => String::new(),
                None => "?".to_owned(),
            },
            row.term.map_or_else(String::new, |term| term.to_string()),
            row.behind.to_string(),
        ]
    }));
    let unanswered = silent.iter().map(|one| format!("\n{} does not answer: {}", one.orderer, one.reason));
    format!("{}{}", table(&lines), unanswered.collect::<String>())
}

impl Row {
    fn json(&self) -> Value {
        json!({
            "orderer": self.orderer,
            "channel": self.channel,
            "relation": self.relation,
            "status": self.status,
            "height": self.height,
            "leader": self.leads,
            "term": self.term,
            "behind": self.behind,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# TYPE orderer_is_leader gauge\n\
        orderer_is_leader{channel=\"other\"} 0\n\
        orderer_is_leader{channel=\"mychannel\"} 1\n\
        orderer_raft_term{channel=\"mychannel\"} 7\n";

    fn status(relation: &str, height: u64) -> ChannelStatus {
        ChannelStatus {
            name: "mychannel".to_owned(),
            url: String::new(),
            consensus_relation: relation.to_owned(),
            status: "active".to_owned(),
            height,
        }
    }

    #[test]
    fn a_row_says_who_leads_and_how_far_behind_the_others_are() {
        let mut rows = vec![
            row("orderer1", status("consenter", 12), Some(METRICS)),
            row("orderer2", status("consenter", 10), None),
            row("orderer4", status("follower", 12), Some(METRICS)),
        ];
        measure(&mut rows);
        assert_eq!((rows[0].leads, rows[0].term, rows[0].behind), (Some(true), Some(7), 0));
        assert_eq!((rows[1].leads, rows[1].term, rows[1].behind), (None, None, 2));
        assert_eq!((rows[2].leads, rows[2].relation.as_str()), (None, "follower"));
        let silent = [Silent { orderer: "orderer3".to_owned(), reason: "connection refused".to_owned() }];
        let shown = text(&rows, &silent);
        assert!(shown.contains("orderer1  mychannel  consenter  active  12      leader  7     0"), "{shown}");
        assert!(shown.ends_with("\norderer3 does not answer: connection refused"), "{shown}");
    }
}
