//! `consort network status`: what runs, where, how it is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use consort_client_sdk::participation::OrdererAdmin;
use futures::future::join_all;
use serde_json::{Value, json};

use super::plan::{ProcessPlan, Role, processes};
use super::{Folders, authorities};
use crate::access::Access;
use crate::layout::{ADMINISTRATOR, MemberKind};
use crate::output::Output;
use crate::processes::Processes;
use crate::report::table;

/// How long one question may take; what does not answer in that time is not well.
const QUESTION_LIMIT: Duration = Duration::from_secs(2);

/// What is known about one process.
pub(crate) struct Row {
    pub(crate) plan: ProcessPlan,
    pub(crate) pid: Option<u32>,
    /// `ok`, or what is wrong.
    pub(crate) health: String,
    pub(crate) heights: Heights,
    leads: Option<bool>,
}

/// Blocks by channel.
pub(crate) type Heights = BTreeMap<String, u64>;

/// `consort network status`.
///
/// # Errors
/// The data folder cannot be read.
pub(super) async fn run(folders: &Folders, output: Output) -> anyhow::Result<()> {
    let access = Access::of(folders.layout.clone(), folders.topology.clone());
    let rows = ask_all(&access).await?;
    let best = best_known(rows.iter().map(|row| &row.heights));
    let list: Vec<Value> = rows.iter().map(|row| row.json(access.channel(), &best)).collect();
    let json = json!({ "network": folders.topology.name, "channel": access.channel(), "processes": list });
    output.print(&json, || text(&rows, access.channel(), &best))
}

/// Asks every process of a network how it is.
///
/// # Errors
/// The records of the processes cannot be read.
pub(crate) async fn ask_all(access: &Access) -> anyhow::Result<Vec<Row>> {
    let running = Processes::of(access.layout.root())?;
    let rows = join_all(processes(&access.topology).into_iter().map(|plan| {
        let pid = running.running(&plan.name).map(|record| record.identity.pid);
        row(access, plan, pid)
    }));
    Ok(rows.await)
}

/// The highest that anybody has come, by channel.
pub(crate) fn best_known<'h>(heights: impl Iterator<Item = &'h Heights>) -> Heights {
    let mut best = Heights::new();
    for (channel, height) in heights.flatten() {
        let known = best.entry(channel.clone()).or_default();
        *known = (*known).max(*height);
    }
    best
}

/// A process's blocks of a channel, and how many others have more.
fn standing(heights: &Heights, best: &Heights, channel: &str) -> Option<(u64, u64)> {
    let height = *heights.get(channel)?;
    Some((height, best.get(channel).map_or(0, |best| best.saturating_sub(height))))
}

fn text(rows: &[Row], channel: &str, best: &Heights) -> String {
    let mut text = format!("Channel {channel}\n{}", processes_table(rows, channel, best));
    for other in best.keys().filter(|other| *other != channel) {
        let heading = ["PROCESS", "HEIGHT", "BEHIND"].map(str::to_owned).to_vec();
        let lines = rows.iter().filter_map(|row| {
            let (height, behind) = standing(&row.heights, best, other)?;
            Some(vec![row.plan.name.clone(), height.to_string(), behind.to_string()])
        });
        let lines: Vec<Vec<String>> = std::iter::once(heading).chain(lines).collect();
        text.push_str(&format!("\nChannel {other}\n{}", table(&lines)));
    }
    text
}

fn processes_table(rows: &[Row], channel: &str, best: &Heights) -> String {
    let heading = ["PROCESS", "ROLE", "PID", "ADDRESS", "HEALTH", "HEIGHT", "BEHIND", ""];
    let heading = heading.map(str::to_owned).to_vec();
    let number = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
    let line = |row: &Row| {
        vec![
            row.plan.name.clone(),
            row.plan.role.name().to_owned(),
            row.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            row.plan.address.to_string(),
            row.health.clone(),
            number(standing(&row.heights, best, channel).map(|(height, _)| height)),
            number(standing(&row.heights, best, channel).map(|(_, behind)| behind)),
            if row.leads == Some(true) { "leader".to_owned() } else { String::new() },
        ]
    };
    let lines: Vec<Vec<String>> = std::iter::once(heading).chain(rows.iter().map(line)).collect();
    table(&lines)
}

impl Row {
    /// Whether the process orders.
    pub(crate) fn is_orderer(&self) -> bool {
        matches!(self.plan.role, Role::Orderer)
    }

    fn json(&self, channel: &str, best: &Heights) -> Value {
        let own = standing(&self.heights, best, channel);
        let channels = self.heights.keys().filter_map(|channel| {
            let (height, behind) = standing(&self.heights, best, channel)?;
            Some((channel.clone(), json!({ "height": height, "behind": behind })))
        });
        json!({
            "name": self.plan.name,
            "role": self.plan.role.name(),
            "pid": self.pid,
            "address": self.plan.address.to_string(),
            "health": self.health,
            "height": own.map(|(height, _)| height),
            "behind": own.map(|(_, behind)| behind),
            "channels": channels.collect::<serde_json::Map<_, _>>(),
            "leader": self.leads,
        })
    }
}

async fn row(access: &Access, plan: ProcessPlan, pid: Option<u32>) -> Row {
    if pid.is_none() {
        return Row { plan, pid, health: "stopped".to_owned(), heights: Heights::new(), leads: None };
    }
    let health = match limited(health(access, &plan)).await {
        Some(Ok(())) => "ok".to_owned(),
        Some(Err(reason)) => reason,
        None => "no answer".to_owned(),
    };
    let heights = limited(heights(access, &plan)).await.flatten().unwrap_or_default();
    let leads = match (plan.role, plan.operations) {
        (Role::Orderer, Some(address)) => limited(leads(address, access.channel())).await.flatten(),
        _ => None,
    };
    Row { plan, pid, health, heights, leads }
}

async fn limited<T>(question: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(QUESTION_LIMIT, question).await.ok()
}

/// A node says at its operations endpoint how it is; an authority is asked through its own API.
async fn health(access: &Access, plan: &ProcessPlan) -> Result<(), String> {
    if let Some(address) = plan.operations {
        return is_healthy(address).await;
    }
    let topology = &access.topology;
    let mut all = topology.members().flat_map(|member| member.authorities().map(move |one| (member, one)));
    match all.find(|(_, authority)| authority.name == plan.name) {
        Some((member, authority)) => {
            authorities::is_healthy(&access.layout, topology, member, authority).await
        }
        None => Err("not part of the topology".to_owned()),
    }
}

/// Asks `/healthz`; the error says what is not well.
///
/// # Errors
/// The reason in words.
pub(super) async fn is_healthy(address: SocketAddr) -> Result<(), String> {
    let response = operations_get(address, "/healthz").await?;
    if response.status().is_success() {
        return Ok(());
    }
    let status = response.status();
    let body = response.text().await.unwrap_or_default();
    Err(format!("{status} {}", body.trim()))
}

/// Whether an orderer leads a channel, from its metrics.
pub(super) async fn leads(address: SocketAddr, channel: &str) -> Option<bool> {
    let metrics = operations_get(address, "/metrics").await.ok()?.text().await.ok()?;
    is_leader(&metrics, channel)
}

fn is_leader(metrics: &str, channel: &str) -> Option<bool> {
    let label = format!("channel=\"{channel}\"");
    let line = metrics.lines().find(|line| {
        line.split_once('{').is_some_and(|(name, rest)| name.ends_with("is_leader") && rest.contains(&label))
    })?;
    let value: f64 = line.rsplit_once(' ')?.1.parse().ok()?;
    Some(value >= 1.0)
}

/// The `Date` that a node puts on its answers.
pub(crate) async fn date_of(address: SocketAddr) -> Option<String> {
    let response = operations_get(address, "/healthz").await.ok()?;
    Some(response.headers().get(reqwest::header::DATE)?.to_str().ok()?.to_owned())
}

async fn operations_get(address: SocketAddr, path: &str) -> Result<reqwest::Response, String> {
    consort_crypto::tls::install_default_provider();
    let client = reqwest::Client::builder().no_proxy().timeout(QUESTION_LIMIT).build();
    let client = client.map_err(|error| super::nodes::describe(&error))?;
    let response = client.get(format!("http://{address}{path}")).send().await;
    response.map_err(|error| super::nodes::describe(&error))
}

/// How far a node has come in each of its channels.
async fn heights(access: &Access, plan: &ProcessPlan) -> Option<Heights> {
    let mut heights = Heights::new();
    if let Some((organisation, peer)) = access.topology.peers().find(|(_, peer)| peer.host == plan.name) {
        let member = &organisation.member;
        let identity = access.identity_of(MemberKind::Peers, member, ADMINISTRATOR).ok()?;
        let admin = access.peer_admin(&access.peer_endpoint(member, peer).ok()?, identity).ok()?;
        for channel in admin.channels().await.ok()? {
            let height = admin.chain_info(&channel).await.ok()?.height;
            heights.insert(channel, height);
        }
        return Some(heights);
    }
    let (organisation, orderer) =
        access.topology.orderers().find(|(_, orderer)| orderer.host == plan.name)?;
    let endpoint = access.orderer_admin_endpoint(&organisation.member, orderer).ok()?;
    let admin = OrdererAdmin::new(&endpoint).ok()?;
    for channel in admin.channels().await.ok()? {
        let height = admin.channel(&channel).await.ok()??.height;
        heights.insert(channel, height);
    }
    Some(heights)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_behind_by_what_the_farthest_has_more() {
        let heights = |of: &[(&str, u64)]| -> Heights {
            of.iter().map(|(channel, height)| ((*channel).to_owned(), *height)).collect()
        };
        let (first, second) = (heights(&[("a", 7), ("b", 2)]), heights(&[("a", 9)]));
        let best = best_known([&first, &second].into_iter());
        assert_eq!(best, heights(&[("a", 9), ("b", 2)]));
        assert_eq!(standing(&first, &best, "a"), Some((7, 2)));
        assert_eq!(standing(&first, &best, "b"), Some((2, 0)));
        assert_eq!(standing(&second, &best, "b"), None, "not joined");
    }

    #[test]
    fn the_leader_of_a_channel_is_read_from_the_metrics() {
        let metrics = "# TYPE orderer_is_leader gauge\n\
            orderer_is_leader{channel=\"other\"} 0\n\
            orderer_is_leader{channel=\"mychannel\"} 1\n";
        assert_eq!(is_leader(metrics, "mychannel"), Some(true));
        assert_eq!(is_leader(metrics, "other"), Some(false));
        assert_eq!(is_leader(metrics, "third"), None);
    }
}
