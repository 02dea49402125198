//! The processes that one command starts: watched while it waits, stopped again when it fails.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::processes::{Processes, Started};

/// How often a condition is looked at; a process starts in some ten milliseconds.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long a process may take to end by itself.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(10);

/// How much of a failing process's log is shown.
const LOG_LINES: usize = 12;

/// The processes started by this command.
#[derive(Debug)]
pub(crate) struct Session {
    processes: Processes,
    started: Mutex<Vec<Started>>,
    /// Where in its log each started process began, so that an earlier run's words are not taken for this one's.
    log_starts: Mutex<BTreeMap<String, u64>>,
}

impl Session {
    /// A session that has started nothing yet.
    pub(crate) fn new(processes: Processes) -> Self {
        Self { processes, started: Mutex::default(), log_starts: Mutex::default() }
    }

    /// Starts a process unless it runs already. Returns whether it was started.
    ///
    /// # Errors
    /// The program cannot be started.
    pub(crate) fn ensure(&self, name: &str, program: &Path, config: &Path) -> anyhow::Result<bool> {
        if self.processes.running(name).is_some() {
            return Ok(false);
        }
        let arguments = ["--config".to_owned(), config.display().to_string()];
        let log_start = self.processes.log_length(name);
        self.log_starts.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), log_start);
        let started = self.processes.start(name, program, &arguments)?;
        self.lock().push(started);
        Ok(true)
    }

    /// Waits until a condition holds, as long as every started process lives.
    ///
    /// # Errors
    /// A process ended, or the time is up; names the last reason and shows the log of `process`.
    pub(crate) async fn wait<T, F>(
        &self,
        process: &str,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut() -> F,
    ) -> anyhow::Result<T>
    where
        F: Future<Output = Result<T, String>>,
    {
        let began = Instant::now();
        loop {
            let reason = match condition().await {
                Ok(value) => return Ok(value),
                Err(reason) => reason,
            };
            self.check_alive()?;
            if began.elapsed() >= limit {
                let log = self.describe_log(process);
                anyhow::bail!("{what}: not within {} s: {reason}{log}", limit.as_secs());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Fails when a process that this command started has ended.
    ///
    /// # Errors
    /// Names the process, how it ended and what it logged last.
    pub(crate) fn check_alive(&self) -> anyhow::Result<()> {
        for started in self.lock().iter_mut() {
            if let Some(status) = started.exited() {
                let log = self.describe_log(&started.name);
                anyhow::bail!("{} ended right after it was started ({status}){log}", started.name);
            }
        }
        Ok(())
    }

    /// Waits for the first started process to end by itself, which none should; the error says which.
    pub(crate) async fn watch(&self) -> anyhow::Error {
        loop {
            if let Err(error) = self.check_alive() {
                return error;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    fn describe_log(&self, process: &str) -> String {
        let path = self.processes.log_path(process);
        let starts = self.log_starts.lock().unwrap_or_else(PoisonError::into_inner);
        let start = starts.get(process).copied().unwrap_or(0);
        let tail = self.processes.log_tail(process, start, LOG_LINES);
        if tail.trim().is_empty() {
            return format!("\nIts log {} is empty.", path.display());
        }
        let indented: String = tail.lines().map(|line| format!("\n  | {line}")).collect();
        format!("\nThe last lines of {}:{indented}", path.display())
    }

    /// Stops every process that this command started. Returns how many.
    pub(crate) async fn stop_started(&self) -> usize {
        let names: Vec<String> = self.lock().drain(..).map(|started| started.name).collect();
        let stops = names.iter().map(|name| self.processes.stop(name, STOP_GRACE));
        futures::future::join_all(stops).await.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Started>> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
