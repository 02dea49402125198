//! Bringing a network up, as often as one likes: what runs is left alone, what exists is kept.

use anyhow::Context;

use super::programs::Programs;
use super::session::Session;
use super::{Folders, authorities, genesis, joining, nodes, plan, ports, profiles, settle};
use crate::access::Access;
use crate::chaincode::deploy;
use crate::chaincode::{collections, endorsement_policy};
use crate::files;
use crate::layout::ADMINISTRATOR;
use crate::processes::Processes;
use crate::registered;
use crate::report::{Report, count};
use crate::topology::{ChaincodeSource, ChaincodeSpec, Fingerprint};
use consort_client_sdk::lifecycle::{Definition, Lifecycle};

/// Name of this program.
const PROGRAM: &str = "consort";

/// `consort network up`.
///
/// # Errors
/// One message with cause and remedy; what this call started is stopped again.
pub(super) async fn run(folders: &Folders) -> anyhow::Result<()> {
    let report = Report::begin(&format!(
        "Starting network {} (data in {})",
        folders.topology.name,
        folders.layout.root().display()
    ));
    let access = up(folders, &report).await?;
    println!("Network {} is ready after {}.", folders.topology.name, report.elapsed());
    println!("{}", usage(&access, folders));
    Ok(())
}

/// Brings the network up and reports each step.
///
/// # Errors
/// As [`run`].
pub(super) async fn up(folders: &Folders, report: &Report) -> anyhow::Result<Access> {
    for warning in &folders.warnings {
        report.line(&format!("warning: {warning}"));
    }
    let (layout, topology) = (&folders.layout, &folders.topology);
    let programs = Programs::find()?;
    let fingerprint = Fingerprint::of(topology)?;
    fingerprint.check(layout.root(), &folders.config)?;
    let processes = Processes::of(layout.root())?;
    let plans = plan::processes(topology);
    ports::check_free(plans.iter().filter(|plan| processes.running(&plan.name).is_none()))?;

    let _lock = files::lock(layout.root())?;
    fingerprint.write(layout.root())?;
    layout.write_topology(topology)?;
    let access = Access::of(layout.clone(), topology.clone());
    let session = Session::new(processes);
    let outcome = tokio::select! {
        outcome = start(&access, &programs, &session, report) => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    match outcome {
        Ok(()) => Ok(access),
        Err(error) => {
            let stopped = session.stop_started().await;
            let note = match stopped {
                0 => "This command had started no process.".to_owned(),
                stopped => {
                    format!("The {} that this command had started ended with it.", count(stopped, "process"))
                }
            };
            Err(anyhow::anyhow!("{error:#}\n{note}"))
        }
    }
}

async fn start(
    access: &Access,
    programs: &Programs,
    session: &Session,
    report: &Report,
) -> anyhow::Result<()> {
    let (layout, topology) = (&access.layout, &access.topology);
    report.step(authorities::start(layout, topology, programs, session)).await?;
    report.step(authorities::enrol(layout, topology)).await?;
    profiles::write(layout, topology)?;
    if topology.joins.is_some() {
        joining::keep_configuration(layout, topology)?;
        report.step(nodes::start(layout, topology, programs, session)).await?;
        return report.step(joining::standing(access)).await;
    }
    let genesis = genesis::block(layout, topology)?;
    report.step(nodes::start(layout, topology, programs, session)).await?;
    report.step(nodes::join(access, session, &genesis)).await?;
    report.step(settle::leader(access, session)).await?;
    for chaincode in &topology.chaincodes {
        tokio::select! {
            outcome = ensure_deployed(access, chaincode, report) => outcome?,
            error = session.watch() => return Err(error),
        }
    }
    report.step(settle::peers(access, session)).await?;
    if topology.channel.capabilities.registered_identities {
        report.step(registered::register_peers(access)).await?;
    }
    Ok(())
}

/// Deploys a chaincode of the topology unless its version is committed already.
async fn ensure_deployed(access: &Access, chaincode: &ChaincodeSpec, report: &Report) -> anyhow::Result<()> {
    let first = access.topology.organisations.first().context("the network has no organisations")?;
    let gateway = access.gateway_of(&first.member, ADMINISTRATOR).await?;
    let lifecycle = Lifecycle::new(&access.network(&gateway));
    let committed = deploy::settled(|| lifecycle.committed(&chaincode.name)).await?;
    if let Some(found) = committed.as_ref().filter(|found| found.version == chaincode.version) {
        let (name, version, sequence) = (&chaincode.name, &found.version, found.sequence);
        report.line(&format!("chaincode {name} is defined already: version {version}, sequence {sequence}"));
        return Ok(());
    }
    let definition = Definition {
        name: chaincode.name.clone(),
        version: chaincode.version.clone(),
        sequence: committed.map_or(0, |found| found.sequence) + 1,
        endorsement_policy: chaincode.endorsement_policy.as_deref().map(endorsement_policy).transpose()?,
        collections: collections(&chaincode.collections)?,
        init_required: chaincode.init_required,
        limits: None,
    };
    let source = match &chaincode.source {
        ChaincodeSource::Crate(folder) => deploy::Source::Crate(folder.clone()),
        ChaincodeSource::Package(file) => deploy::Source::Package(file.clone()),
    };
    deploy::deploy(access, &definition, &source, report)
        .await
        .with_context(|| format!("chaincode {} could not be deployed", chaincode.name))
}

/// How to use the network that now runs.
pub(super) fn usage(access: &Access, folders: &Folders) -> String {
    let topology = &access.topology;
    let data = relative(access.layout.root());
    let config = folders.config.display();
    let consort = program();
    let mut text = String::from("Endpoints:\n");
    for (organisation, peer) in topology.peers() {
        text.push_str(&format!(
            "  gateway of {:<12} {}:{}\n",
            organisation.member.msp_id, peer.host, peer.port
        ));
    }
    text.push_str(&format!("Credentials: {data}/organizations (the layout of Fabric's test network)\n"));
    if let Some(chaincode) = topology.chaincodes.first() {
        let user = topology.organisations.first().map(|organisation| {
            let user = organisation.member.users.first().map_or(ADMINISTRATOR, String::as_str);
            format!("{user}@{}", organisation.member.domain)
        });
        let user = user.unwrap_or_default();
        let name = &chaincode.name;
        let examples = match name.as_str() {
            "basic" => ["submit basic CreateAsset asset7 blue 5 Tomoko 300", "evaluate basic GetAllAssets"]
                .map(str::to_owned),
            _ => [
                format!("submit {name} <function> <arguments>"),
                format!("evaluate {name} <function> <arguments>"),
            ],
        };
        text.push_str("Try:\n");
        for example in examples {
            text.push_str(&format!("  {consort} tx {example} --network {data} --as {user}\n"));
        }
    }
    if topology.joins.is_some() {
        text.push_str(&joining::next_steps(access, &data));
    }
    text.push_str(&format!(
        "Look: {consort} network status --config {config} --data {data}\n      {consort} network logs --config {config} --data {data} -f\n\
         Stop: {consort} network down --config {config} --data {data}   (keeps the data; `clean` forgets it)"
    ));
    text
}

/// How this program is called from here: by its name when that finds it, else by its path.
fn program() -> String {
    let Ok(this) = std::env::current_exe() else { return PROGRAM.to_owned() };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let first = std::env::split_paths(&path).map(|folder| folder.join(PROGRAM)).find(|file| file.is_file());
    if first.is_some_and(|file| file.canonicalize().is_ok_and(|file| file == this)) {
        return PROGRAM.to_owned();
    }
    relative(&this)
}

/// A path as it is written from the current folder.
pub(super) fn relative(path: &std::path::Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}
