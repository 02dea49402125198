//! `consort doctor`: what is wrong with a network, or with one MSP folder, and what to do about it.

mod channel;
mod credentials;
mod folder;
mod nodes;

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::access::AccessOptions;
use crate::output::Output;
use crate::report::{count, table};

/// Check a network: certificates, chains, clocks, reachability, policies, and say what to do; or one MSP folder
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  consort doctor\n  consort doctor --network .consort/two-org-raft --output json\n  consort doctor --msp alice/msp --mspid Org1MSP\n  consort doctor --msp organizations/peerOrganizations/org1.example.com/msp --mspid Org1MSP --no-identity\n\nThe exit status is 0 when nothing is wrong; warnings alone do not change it."
)]
pub(crate) struct DoctorOptions {
    #[command(flatten)]
    access: AccessOptions,

    /// An MSP folder to check instead of the network
    #[arg(long, value_name = "FOLDER", requires = "mspid")]
    msp: Option<PathBuf>,

    /// Id of the folder's MSP, such as Org1MSP
    #[arg(long, value_name = "ID", requires = "msp")]
    mspid: Option<String>,

    /// The folder is an organisation's, without an identity of its own
    #[arg(long, requires = "msp")]
    no_identity: bool,

    #[command(flatten)]
    output: Output,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Ok,
    Warning,
    Fault,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Fault => "fault",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    area: &'static str,
    level: Level,
    what: String,
    /// What to do about it; empty when nothing is to be done.
    remedy: String,
}

impl Finding {
    fn ok(area: &'static str, what: impl Into<String>) -> Self {
        Self { area, level: Level::Ok, what: what.into(), remedy: String::new() }
    }

    fn warning(area: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { area, level: Level::Warning, what: what.into(), remedy: remedy.into() }
    }

    fn fault(area: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { area, level: Level::Fault, what: what.into(), remedy: remedy.into() }
    }

    fn json(&self) -> Value {
        json!({ "area": self.area, "level": self.level.name(), "what": self.what, "remedy": self.remedy })
    }
}

/// Runs `consort doctor`.
///
/// # Errors
/// Something is wrong; everything that is was printed.
pub(crate) async fn run(options: &DoctorOptions) -> anyhow::Result<()> {
    if let Some(folder) = &options.msp {
        let msp_id = options.mspid.as_deref().context("--msp needs --mspid")?;
        return folder::run(folder, msp_id, !options.no_identity, options.output);
    }
    let access = options.access.open()?;
    let mut findings = credentials::check(&access);
    let (of_nodes, rows) = nodes::check(&access).await?;
    findings.extend(of_nodes);
    findings.extend(channel::check(&access, &rows).await);
    let faults = findings.iter().filter(|found| found.level == Level::Fault).count();
    let json = json!({
        "ok": faults == 0,
        "network": access.topology.name,
        "channel": access.channel(),
        "findings": findings.iter().map(Finding::json).collect::<Vec<Value>>(),
    });
    options.output.print(&json, || text(&findings))?;
    if faults > 0 {
        bail!("{} found", count(faults, "fault"));
    }
    Ok(())
}

fn text(findings: &[Finding]) -> String {
    let mut rows = Vec::new();
    for found in findings {
        let mut area = found.area.to_owned();
        let mut level = found.level.name().to_owned();
        let remedy = (!found.remedy.is_empty()).then(|| format!("do: {}", found.remedy));
        for line in found.what.lines().map(str::to_owned).chain(remedy) {
            rows.push(vec![std::mem::take(&mut area), std::mem::take(&mut level), line]);
        }
    }
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_says_what_to_do_below_it() {
        let findings = [
            Finding::ok("clocks", "all within 1 s"),
            Finding::fault("nodes", "peer0 is stopped", "consort network up"),
        ];
        let lines = "clocks  ok     all within 1 s\nnodes   fault  peer0 is stopped\n               do: consort network up";
        assert_eq!(text(&findings), lines);
    }
}
