//! Stopping a network, and forgetting its data.

use futures::future::join_all;

use super::Folders;
use super::plan::{self, Role};
use super::session::STOP_GRACE;
use crate::files;
use crate::processes::{Processes, Stopped};
use crate::report::{Report, count};
use crate::topology::Fingerprint;

/// Stops every process; peers first, so that they do not look for orderers that are gone.
///
/// # Errors
/// A process cannot be signalled.
pub(super) async fn run(folders: &Folders) -> anyhow::Result<()> {
    let root = folders.layout.root();
    if !Fingerprint::is_present(root) {
        println!("{} holds no network: nothing to stop.", root.display());
        return Ok(());
    }
    let _lock = files::lock(root)?;
    let report = Report::begin(&format!("Stopping network {}", folders.topology.name));
    let stopped = stop_all(folders, &report).await?;
    report.line(&format!("{} stopped; the data stays in {}", count(stopped, "process"), root.display()));
    Ok(())
}

/// Stops everything and deletes the data folder.
///
/// # Errors
/// A process cannot be stopped, or the folder is no network's data.
pub(super) async fn clean(folders: &Folders) -> anyhow::Result<()> {
    let root = folders.layout.root();
    if !root.exists() {
        println!("{} does not exist: nothing to forget.", root.display());
        return Ok(());
    }
    anyhow::ensure!(
        Fingerprint::is_present(root),
        "{} is no network's data folder (it has no fingerprint), so it is left alone",
        root.display()
    );
    let lock = files::lock(root)?;
    let report = Report::begin(&format!("Forgetting network {}", folders.topology.name));
    stop_all(folders, &report).await?;
    std::fs::remove_dir_all(root)?;
    drop(lock);
    report.line(&format!("{} is deleted", root.display()));
    Ok(())
}

async fn stop_all(folders: &Folders, report: &Report) -> anyhow::Result<usize> {
    let processes = Processes::of(folders.layout.root())?;
    let plans = plan::processes(&folders.topology);
    let planned = |role| plans.iter().filter(move |plan| plan.role == role).map(|plan| plan.name.clone());
    let mut stopped = 0;
    let mut known = Vec::new();
    for role in [Role::Peer, Role::Orderer, Role::Authority] {
        let names: Vec<String> = planned(role).collect();
        stopped += stop(&processes, &names, report).await?;
        known.extend(names);
    }
    // Whatever else has a record here was started by an earlier description.
    let rest: Vec<String> = processes.names().into_iter().filter(|name| !known.contains(name)).collect();
    Ok(stopped + stop(&processes, &rest, report).await?)
}

async fn stop(processes: &Processes, names: &[String], report: &Report) -> anyhow::Result<usize> {
    let outcomes = join_all(names.iter().map(|name| processes.stop(name, STOP_GRACE))).await;
    let mut stopped = 0;
    for (name, outcome) in names.iter().zip(outcomes) {
        match outcome? {
            Stopped::WasNotRunning => {}
            Stopped::Cleanly => stopped += 1,
            Stopped::Killed => {
                stopped += 1;
                let log = processes.log_path(name);
                report.line(&format!(
                    "{name} did not end within {} s and was killed; its log is {}",
                    STOP_GRACE.as_secs(),
                    log.display()
                ));
            }
        }
    }
    Ok(stopped)
}
