//! Whether the nodes answer, how far their clocks are apart, and whether their books keep up.

use std::net::SocketAddr;

use futures::future::join_all;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::Finding;
use crate::access::Access;
use crate::authority::now;
use crate::network::status::{self, Row};
use crate::report::count;

/// Proposals and requests for blocks are refused when their time differs by more from the node's (Fabric's default), in seconds.
const WINDOW_SECONDS: i64 = 15 * 60;
/// A difference that no well-kept clock has, and that leaves most of the window, in seconds.
const APART_SECONDS: i64 = 10;
/// A node that is farther behind does not catch up by the next look.
const BEHIND_BLOCKS: u64 = 50;

/// Asks every node; also returns what each one said.
///
/// # Errors
/// The records of the processes cannot be read.
pub(super) async fn check(access: &Access) -> anyhow::Result<(Vec<Finding>, Vec<Row>)> {
    let rows = status::ask_all(access).await?;
    let mut findings = reachability(access, &rows);
    findings.extend(clocks(&rows).await);
    findings.extend(books(access, &rows));
    Ok((findings, rows))
}

fn reachability(access: &Access, rows: &[Row]) -> Vec<Finding> {
    let area = "reachability";
    let data = access.layout.root().display().to_string();
    let bad: Vec<Finding> = rows
        .iter()
        .filter(|row| row.health != "ok")
        .map(|row| {
            let remedy = if row.pid.is_none() {
                format!("consort network up --data {data}")
            } else {
                format!("consort network logs {} --data {data}", row.plan.name)
            };
            Finding::fault(area, format!("{} ({}): {}", row.plan.name, row.plan.address, row.health), remedy)
        })
        .collect();
    if bad.is_empty() {
        return vec![Finding::ok(area, format!("{} answer and are well", count(rows.len(), "node")))];
    }
    bad
}

/// The difference between a node's clock and this machine's, by the `Date` of an answer (RFC 9110), in seconds.
async fn clock(address: SocketAddr) -> Option<i64> {
    let asked = now();
    let date = status::date_of(address).await?;
    let told = OffsetDateTime::parse(&date, &Rfc2822).ok()?;
    // The node looked at its clock between question and answer, and tells whole seconds.
    let taken: time::Duration = now() - asked;
    let here: OffsetDateTime = asked + taken / 2;
    Some((told - here).whole_seconds())
}

async fn clocks(rows: &[Row]) -> Vec<Finding> {
    let area = "clocks";
    let asked =
        rows.iter().filter_map(|row| Some((row.plan.name.clone(), row.pid.and(row.plan.operations)?)));
    let told = join_all(asked.map(|(name, address)| async move { (name, clock(address).await) })).await;
    let known: Vec<(String, i64)> =
        told.into_iter().filter_map(|(name, difference)| Some((name, difference?))).collect();
    let bad: Vec<Finding> =
        known.iter().filter_map(|(name, difference)| judged(area, name, *difference)).collect();
    if !bad.is_empty() {
        return bad;
    }
    let most: Option<i64> = known.iter().map(|(_, difference)| difference.abs()).max();
    most.map(|most| {
        let nodes = count(known.len(), "node");
        Finding::ok(area, format!("the clocks of {nodes} are within {} s of this machine's", most.max(1_i64)))
    })
    .into_iter()
    .collect()
}

fn judged(area: &'static str, name: &str, difference: i64) -> Option<Finding> {
    let seconds = difference.unsigned_abs();
    let direction = if difference > 0 { "ahead of" } else { "behind" };
    let what = format!("the clock of {name} is {seconds} s {direction} this machine's");
    let remedy = "set both by NTP (timedatectl set-ntp true)";
    if difference.abs() >= WINDOW_SECONDS {
        let what = format!("{what}: it refuses everything that this machine signs");
        return Some(Finding::fault(area, what, remedy));
    }
    (difference.abs() >= APART_SECONDS).then(|| Finding::warning(area, what, remedy))
}

fn books(access: &Access, rows: &[Row]) -> Vec<Finding> {
    let area = "books";
    let best = status::best_known(rows.iter().map(|row| &row.heights));
    let mut findings = Vec::new();
    for (channel, height) in &best {
        for row in rows {
            let Some(own) = row.heights.get(channel) else { continue };
            let behind = height - own;
            if behind >= BEHIND_BLOCKS {
                findings.push(Finding::warning(
                    area,
                    format!("{} is {behind} blocks of channel {channel} behind", row.plan.name),
                    format!(
                        "consort network logs {} --data {}",
                        row.plan.name,
                        access.layout.root().display()
                    ),
                ));
            }
        }
        if findings.is_empty() {
            findings.push(Finding::ok(
                area,
                format!("channel {channel} has {height} blocks, and nobody is far behind"),
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_clock_is_judged_by_what_nodes_refuse() {
        let level = |difference| judged("clocks", "peer0", difference).map(|found| found.level);
        assert_eq!(level(3), None);
        assert_eq!(level(-60), Some(Level::Warning));
        assert_eq!(level(901), Some(Level::Fault));
        let text = judged("clocks", "peer0", -60).unwrap().what;
        assert_eq!(text, "the clock of peer0 is 60 s behind this machine's");
    }

    #[test]
    fn the_date_of_an_answer_is_read() {
        let read = OffsetDateTime::parse("Fri, 20 Nov 2026 21:12:02 GMT", &Rfc2822).unwrap();
        assert_eq!(read.unix_timestamp(), 1_795_209_122);
    }
}
