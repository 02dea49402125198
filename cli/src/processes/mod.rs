//! The servers of a network as detached native processes.
//!
//! A process is started in a session of its own with its output in a log file, so that it outlives the command that
//! started it. A record with its pid *and start time* is kept; a process is only ever signalled through a pidfd that
//! was opened before the start time was compared, so that a recycled pid is never hit.

mod identity;
mod log;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::files;
pub(crate) use identity::ProcessIdentity;
pub(crate) use log::{follow, tail};

/// How often a stopping process is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The hidden subcommand that starts a program in a session of its own.
pub(crate) const DETACH_COMMAND: &str = "detach";

/// What is kept about a started process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Who it is, safe against recycled pids.
    pub(crate) identity: ProcessIdentity,
    /// Program and arguments.
    pub(crate) command: Vec<String>,
}

/// How a process came to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// It was not running.
    WasNotRunning,
    /// It ended by itself after SIGTERM.
    Cleanly,
    /// It did not end in time and was killed.
    Killed,
}

/// The processes of one data folder.
#[derive(Debug, Clone)]
pub(crate) struct Processes {
    records: PathBuf,
    logs: PathBuf,
    /// Command that runs a program in a session of its own, normally this program's own subcommand.
    launcher: Vec<OsString>,
}

/// A process that this command has started.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) name: String,
    child: Child,
}

impl Started {
    /// How the process ended, if it has.
    pub(crate) fn exited(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(status.to_string())
    }
}

impl Processes {
    /// The processes whose records are in a data folder.
    ///
    /// # Errors
    /// This program's own file cannot be found; it is needed to start others.
    pub(crate) fn of(data: &Path) -> anyhow::Result<Self> {
        let this = std::env::current_exe().context("cannot find the consort program itself")?;
        Ok(Self::with_launcher(data, vec![this.into(), DETACH_COMMAND.into(), "--".into()]))
    }

    fn with_launcher(data: &Path, launcher: Vec<OsString>) -> Self {
        Self { records: data.join("processes"), logs: data.join("logs"), launcher }
    }

    /// The log file of a process.
    pub(crate) fn log_path(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    fn record_path(&self, name: &str) -> PathBuf {
        self.records.join(format!("{name}.json"))
    }

    /// Starts a program detached, appending its output to `<name>.log`.
    ///
    /// # Errors
    /// The program cannot be started, or its record cannot be written (it is stopped again then).
    pub(crate) fn start(&self, name: &str, program: &Path, arguments: &[String]) -> anyhow::Result<Started> {
        files::create_folder(&self.logs)?;
        files::create_folder(&self.records)?;
        let path = self.log_path(name);
        let open = || OpenOptions::new().create(true).append(true).open(&path);
        let (output, errors) = open()
            .and_then(|file| Ok((file.try_clone()?, file)))
            .with_context(|| format!("cannot write {}", path.display()))?;
        let mut child = Command::new(&self.launcher[0])
            .args(&self.launcher[1..])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let mut command = vec![program.display().to_string()];
        command.extend_from_slice(arguments);
        let written = ProcessIdentity::of(child.id())
            .with_context(|| format!("{name} ended at once"))
            .and_then(|identity| {
                let record = serde_json::to_vec_pretty(&Record { identity, command })?;
                files::write_atomically(&self.record_path(name), &record, false)
            });
        if let Err(error) = written {
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
        Ok(Started { name: name.to_owned(), child })
    }

    /// The record of a process, if it is running now.
    pub(crate) fn running(&self, name: &str) -> Option<Record> {
        self.record(name).filter(|record| record.identity.is_alive())
    }

    /// Names of all processes that have a record, running or not.
    pub(crate) fn names(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&self.records) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some(name.strip_suffix(".json")?.to_owned()).filter(|name| !name.starts_with('.'))
        });
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    fn record(&self, name: &str) -> Option<Record> {
        let text = std::fs::read(self.record_path(name)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Asks a process to end (SIGTERM) and kills it when it has not ended after `grace`.
    ///
    /// # Errors
    /// The process may not be signalled (it belongs to another user).
    pub(crate) async fn stop(&self, name: &str, grace: Duration) -> anyhow::Result<Stopped> {
        let Some(record) = self.record(name) else { return Ok(Stopped::WasNotRunning) };
        let outcome = stop_process(&record.identity, grace)
            .await
            .with_context(|| format!("cannot stop {name} (pid {})", record.identity.pid))?;
        let _ = std::fs::remove_file(self.record_path(name));
        Ok(outcome)
    }

    /// The length of a process's log in bytes.
    pub(crate) fn log_length(&self, name: &str) -> u64 {
        std::fs::metadata(self.log_path(name)).map_or(0, |metadata| metadata.len())
    }

    /// The last lines of what a process has logged from a position on.
    pub(crate) fn log_tail(&self, name: &str, start: u64, lines: usize) -> String {
        tail(&self.log_path(name), start, lines).unwrap_or_default()
    }
}

async fn stop_process(identity: &ProcessIdentity, grace: Duration) -> anyhow::Result<Stopped> {
    let Some(pid) = identity.pid() else { return Ok(Stopped::WasNotRunning) };
    // The descriptor first, then the comparison: from here on the pid cannot be recycled under our hands.
    let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(Stopped::WasNotRunning) };
    if !identity.is_alive() {
        return Ok(Stopped::WasNotRunning);
    }
    pidfd_send_signal(&descriptor, Signal::TERM)?;
    if wait_for_end(identity, grace).await {
        return Ok(Stopped::Cleanly);
    }
    pidfd_send_signal(&descriptor, Signal::KILL)?;
    wait_for_end(identity, grace).await;
    Ok(Stopped::Killed)
}

async fn wait_for_end(identity: &ProcessIdentity, limit: Duration) -> bool {
    let start = Instant::now();
    while identity.is_alive() {
        if start.elapsed() >= limit {
            return false;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    true
}

/// What the hidden subcommand does: leave the caller's session and become the program. Returns only on failure.
pub(crate) fn detach(program: &Path, arguments: &[String]) -> anyhow::Error {
    if let Err(error) = rustix::process::setsid() {
        return anyhow::Error::new(error).context("cannot open a session of its own");
    }
    let error = Command::new(program).args(arguments).exec();
    anyhow::Error::new(error).context(format!("cannot run {}", program.display()))
}

#[cfg(test)]
mod tests;
