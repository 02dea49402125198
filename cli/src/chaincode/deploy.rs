//! Deploying a chaincode on a whole network: build, install on every peer, approve for every organisation, commit.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use consort_client_sdk::Error;
use consort_client_sdk::lifecycle::{Definition, Lifecycle, Readiness};
use futures::future::try_join_all;

use crate::access::Access;
use crate::layout::ADMINISTRATOR;
use crate::report::{Report, count};
use crate::topology::{Member, Organisation, Peer};

/// How long a young network may take until it has a leader and its peers know each other.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// How often an attempt is repeated meanwhile.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// How often a peer is asked for its height.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// What the lifecycle answers when an organisation approves the same definition again (Fabric `core/chaincode/lifecycle`).
const SAME_APPROVAL: &str = "with unchanged content";

/// Where the package comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A crate to build.
    Crate(PathBuf),
    /// A package file.
    Package(PathBuf),
}

/// Deploys a definition and reports each step.
///
/// # Errors
/// The first step that fails, with what the network says.
pub(crate) async fn deploy(
    access: &Access,
    definition: &Definition,
    source: &Source,
    report: &Report,
) -> anyhow::Result<()> {
    if let Source::Crate(path) = source {
        report.line(&format!("building {} to WebAssembly (the first time takes minutes)", path.display()));
    }
    let parties = Parties::of(access);
    anyhow::ensure!(
        !parties.at_hand.is_empty(),
        "no organisation's administrator is at hand.\nRemedy: enrol {ADMINISTRATOR} of an organisation, or name the network with --network."
    );
    let package = report.step(package(definition, source)).await?;
    let package_id = report.step(install(access, &parties, definition, package)).await?;
    let block = report.step(approve(access, &parties, definition, &package_id)).await?;
    // Endorsers that have not seen every approval yet would answer differently.
    wait_for_block(access, &parties, block).await?;
    let missing = missing(access, &parties, definition).await?;
    match report.step(commit(access, &parties, definition)).await {
        Ok(block) => wait_for_block(access, &parties, block).await?,
        // What the others have not agreed to cannot be committed; that is no failure of what was asked for.
        Err(_) if !missing.is_empty() => report.line("not committed: other organisations have yet to agree"),
        Err(error) => return Err(error),
    }
    for line in &missing {
        report.line(line);
    }
    if !missing.is_empty() {
        report.line(&instructions(definition, &package_id));
    }
    Ok(())
}

/// The organisations of the channel, by whether their administrator's credentials are on this machine.
struct Parties<'a> {
    at_hand: Vec<&'a Organisation>,
}

impl<'a> Parties<'a> {
    fn of(access: &'a Access) -> Self {
        let at_hand = access.topology.organisations.iter().filter(|organisation| {
            let member = &organisation.member;
            access.identity_of(crate::layout::MemberKind::Peers, member, ADMINISTRATOR).is_ok()
        });
        Self { at_hand: at_hand.collect() }
    }

    fn holds(&self, member: &Member) -> bool {
        self.at_hand.iter().any(|organisation| organisation.member.name == member.name)
    }

    fn first(&self) -> anyhow::Result<&'a Member> {
        Ok(&self.at_hand.first().context("no organisation's administrator is at hand")?.member)
    }

    /// The peers of these organisations.
    fn peers(&self, access: &'a Access) -> Vec<(&'a Member, &'a Peer)> {
        let all = access.topology.peers();
        all.map(|(organisation, peer)| (&organisation.member, peer))
            .filter(|(member, _)| self.holds(member))
            .collect()
    }
}

/// A line for each organisation that has not agreed, with what it has approved instead.
async fn missing(
    access: &Access,
    parties: &Parties<'_>,
    definition: &Definition,
) -> anyhow::Result<Vec<String>> {
    let reports = lifecycle(access, parties.first()?).await?.readiness_reports(definition).await?;
    Ok(reports
        .iter()
        .filter(|(_, report)| !report.approved)
        .map(|(msp_id, report)| disagreement(msp_id, report))
        .collect())
}

/// Words for an organisation that has not approved a definition.
pub(super) fn disagreement(msp_id: &str, report: &Readiness) -> String {
    match report.mismatches.as_slice() {
        // The record itself differs: nothing was approved under this sequence.
        [] => format!("missing: {msp_id} has not approved"),
        [only] if only.starts_with("Chaincode") => {
            format!("missing: {msp_id} has approved nothing for this sequence")
        }
        fields => format!("missing: {msp_id} has approved something else ({} differ)", fields.join(", ")),
    }
}

/// What the administrators of the other organisations have to do.
fn instructions(definition: &Definition, package_id: &str) -> String {
    format!(
        "each of these organisations installs the package and runs\n  consort chaincode approve {} --version {} --sequence {} --package-id {package_id}\n\
         with the policy, collections and limits of this definition; then anybody runs `consort chaincode commit` with them",
        definition.name, definition.version, definition.sequence
    )
}

/// Waits until every peer of the organisations at hand has a block.
async fn wait_for_block(access: &Access, parties: &Parties<'_>, block: u64) -> anyhow::Result<()> {
    let waits = parties.peers(access).into_iter().map(|(member, peer)| async move {
        let identity = access.identity_of(crate::layout::MemberKind::Peers, member, ADMINISTRATOR)?;
        let admin = access.peer_admin(&access.peer_endpoint(member, peer)?, identity)?;
        let began = Instant::now();
        while admin.chain_info(access.channel()).await?.height <= block {
            anyhow::ensure!(
                began.elapsed() < SETTLE_LIMIT,
                "{} has not received block {block} within {} s",
                peer.host,
                SETTLE_LIMIT.as_secs()
            );
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        anyhow::Ok(())
    });
    try_join_all(waits).await.map(|_| ())
}

async fn package(definition: &Definition, source: &Source) -> anyhow::Result<(Bytes, String)> {
    let name = &definition.name;
    match source {
        Source::Crate(path) => {
            let component = super::build_component(path).await?;
            let label = format!("{name}_{}", definition.version);
            let package = consort_chaincode_runtime::package::pack(&label, &component)?;
            let outcome = format!(
                "chaincode {name} built to WebAssembly: {} KB, {}",
                component.len() / 1024,
                short(&super::package_id(&label, &package))
            );
            Ok((package.into(), outcome))
        }
        Source::Package(path) => {
            let package = super::read(path)?;
            Ok((package.into(), format!("chaincode {name} read from {}", path.display())))
        }
    }
}

/// A package id short enough for a line.
fn short(package_id: &str) -> String {
    package_id.chars().take(package_id.find(':').unwrap_or(0) + 13).collect()
}

async fn install(
    access: &Access,
    parties: &Parties<'_>,
    definition: &Definition,
    package: Bytes,
) -> anyhow::Result<(String, String)> {
    let installs = parties.peers(access).into_iter().map(|(member, peer)| {
        let package = package.clone();
        async move {
            let identity = access.identity_of(crate::layout::MemberKind::Peers, member, ADMINISTRATOR)?;
            let admin = access.peer_admin(&access.peer_endpoint(member, peer)?, identity)?;
            let installed = admin.install(package).await;
            installed.with_context(|| format!("cannot install on {}", peer.host))
        }
    });
    let installed = try_join_all(installs).await?;
    let first = installed.first().context("the network has no peers")?;
    let outcome = format!("installed {} on {}", definition.name, count(installed.len(), "peer"));
    Ok((first.package_id.clone(), outcome))
}

/// Returns the last block that holds an approval.
async fn approve(
    access: &Access,
    parties: &Parties<'_>,
    definition: &Definition,
    package_id: &str,
) -> anyhow::Result<(u64, String)> {
    let approvals = parties.at_hand.iter().map(|organisation| async move {
        let member = &organisation.member;
        let lifecycle = lifecycle(access, member).await?;
        let approved = settled(|| lifecycle.approve(definition, Some(package_id))).await;
        let block = match approved {
            Ok(committed) => committed.block,
            // An earlier run, or an attempt whose answer was lost, has approved it already.
            Err(error) if error.to_string().contains(SAME_APPROVAL) => 0,
            Err(error) => {
                return Err(anyhow::Error::new(error).context(format!("{} cannot approve", member.msp_id)));
            }
        };
        anyhow::Ok((member.msp_id.clone(), block))
    });
    let (organisations, blocks): (Vec<String>, Vec<u64>) = try_join_all(approvals).await?.into_iter().unzip();
    let outcome = format!(
        "approved by {}: version {}, sequence {}",
        organisations.join(" and "),
        definition.version,
        definition.sequence
    );
    Ok((blocks.into_iter().max().unwrap_or(0), outcome))
}

/// Returns the block that holds the definition.
async fn commit(
    access: &Access,
    parties: &Parties<'_>,
    definition: &Definition,
) -> anyhow::Result<(u64, String)> {
    let lifecycle = lifecycle(access, parties.first()?).await?;
    let approvals = settled(|| lifecycle.readiness(definition)).await?;
    let organisations: Vec<String> =
        approvals.into_iter().filter(|(_, approved)| *approved).map(|(msp_id, _)| msp_id).collect();
    let committed = settled(|| lifecycle.commit(definition, organisations.clone()))
        .await
        .context("the definition cannot be committed")?;
    let outcome = format!(
        "definition of {} committed on channel {} in block {}, endorsed by {}",
        definition.name,
        access.channel(),
        committed.block,
        organisations.join(" and ")
    );
    Ok((committed.block, outcome))
}

async fn lifecycle(access: &Access, member: &Member) -> anyhow::Result<Lifecycle> {
    let gateway = access.gateway_of(member, ADMINISTRATOR).await?;
    Ok(Lifecycle::new(&access.network(&gateway)))
}

/// Repeats an attempt while the network is not ready yet: no leader, peers that do not know each other.
pub(crate) async fn settled<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let began = Instant::now();
    loop {
        match attempt().await {
            Err(error) if error.is_transient() && began.elapsed() < SETTLE_LIMIT => {
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_id_is_shortened_for_a_line() {
        assert_eq!(short("basic_1.0:0123456789abcdef"), "basic_1.0:0123456789ab");
    }

    #[test]
    fn what_another_organisation_has_to_do_is_told() {
        let report = |mismatches: &[&str]| Readiness {
            approved: false,
            mismatches: mismatches.iter().map(|text| (*text).to_owned()).collect(),
        };
        assert_eq!(
            disagreement("Org3MSP", &report(&["ChaincodeParameters"])),
            "missing: Org3MSP has approved nothing for this sequence"
        );
        assert_eq!(
            disagreement("Org3MSP", &report(&["EndorsementInfo", "Collections"])),
            "missing: Org3MSP has approved something else (EndorsementInfo, Collections differ)"
        );
    }
}
