//! Supervised tasks: named, counted, ended together.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::Display,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, error, warn};

use crate::signal::Signals;

/// The tasks of a process, or of a part of it ([`Tasks::child`]).
///
/// Cheap to clone. A task listens to [`Tasks::cancelled`] and finishes what it has begun before it returns.
/// A *critical* task that ends before the shutdown (by returning, by an error or by a panic) stops the whole process.
#[derive(Clone, Debug)]
pub struct Tasks {
    shared: Arc<Shared>,
    token: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    tracker: TaskTracker,
    root: CancellationToken,
    running: Mutex<BTreeMap<String, usize>>,
    failure: Mutex<Option<TaskFailure>>,
}

/// A critical task ended although nobody asked for a shutdown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("task {task} ended: {reason}")]
pub struct TaskFailure {
    /// The name it was spawned with.
    pub task: String,
    /// Its error, its panic, or that it simply returned.
    pub reason: String,
}

/// Some tasks did not end in the time that a shutdown gives them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("still running after the shutdown: {}", .0.join(", "))]
pub struct StillRunning(pub Vec<String>);

/// What a task may return: nothing, or an error that is worth a log line.
pub trait TaskOutcome: Send + 'static {
    /// The error's text, if there is one.
    fn failure(self) -> Option<String>;
}

impl TaskOutcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: Display + Send + 'static> TaskOutcome for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// A new family of tasks.
    #[must_use]
    pub fn new() -> Self {
        let root = CancellationToken::new();
        Self {
            token: root.clone(),
            shared: Arc::new(Shared {
                tracker: TaskTracker::new(),
                root,
                running: Mutex::default(),
                failure: Mutex::default(),
            }),
        }
    }

    /// Tasks that can be cancelled on their own (a channel that is left, a connection that closes)
    /// and that end with their parent at the latest.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), token: self.token.child_token() }
    }

    /// Tasks that go on when these are cancelled, for what others need to finish their work. A shutdown waits for them too, so whoever
    /// made them must [cancel](Tasks::cancel) them.
    #[must_use]
    pub fn lasting(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), token: CancellationToken::new() }
    }

    /// Starts a task. It must be called inside a tokio runtime.
    pub fn spawn<F>(&self, name: impl Into<Cow<'static, str>>, critical: bool, future: F)
    where
        F: Future + Send + 'static,
        F::Output: TaskOutcome,
    {
        let name = name.into();
        let shared = Arc::clone(&self.shared);
        let token = self.token.clone();
        shared.started(&name);
        self.shared.tracker.spawn(async move {
            let ended = AssertUnwindSafe(future).catch_unwind().await;
            let (reason, panicked) = match ended {
                Ok(outcome) => (outcome.failure(), false),
                Err(panic) => (Some(format!("panicked: {}", panic_text(panic.as_ref()))), true),
            };
            shared.ended(&name);
            shared.judge(&name, critical && !token.is_cancelled(), reason, panicked);
        });
    }

    /// The signal to stop. Await `cancelled()` on it.
    #[must_use]
    pub fn cancelled(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Asks the tasks of this family (and of its children) to stop, without waiting.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// The failure that stopped the process, if one did.
    #[must_use]
    pub fn failure(&self) -> Option<TaskFailure> {
        self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The names of the tasks that run now, with their number.
    #[must_use]
    pub fn running(&self) -> BTreeMap<String, usize> {
        let running = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.clone()
    }

    /// Waits until the process is told to stop (by one of `signals`) or a critical task fails, then ends all tasks.
    ///
    /// # Errors
    /// The failure of the critical task. Tasks that do not end within `timeout` are logged, not an error:
    /// the process goes down all the same.
    pub async fn run_until_stopped(
        &self,
        mut signals: Signals,
        timeout: Duration,
    ) -> Result<(), TaskFailure> {
        tokio::select! {
            () = signals.received() => {}
            () = self.token.cancelled() => {}
        }
        if let Err(still_running) = self.shutdown(timeout).await {
            warn!(tasks = %still_running.0.join(", "), "tasks did not end in time");
        }
        self.failure().map_or(Ok(()), Err)
    }

    /// Asks all tasks of the process to stop and waits for them.
    ///
    /// # Errors
    /// [`StillRunning`] names the tasks that are left when `timeout` is over.
    pub async fn shutdown(&self, timeout: Duration) -> Result<(), StillRunning> {
        self.shared.root.cancel();
        self.shared.tracker.close();
        match tokio::time::timeout(timeout, self.shared.tracker.wait()).await {
            Ok(()) => Ok(()),
            Err(_elapsed) => Err(StillRunning(self.running().into_keys().collect())),
        }
    }
}

impl Shared {
    fn started(&self, name: &str) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        *running.entry(name.to_owned()).or_default() += 1;
    }

    fn ended(&self, name: &str) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                running.remove(name);
            }
        }
    }

    /// Logs how a task ended; the end of a critical one stops the process.
    fn judge(&self, name: &str, fatal: bool, reason: Option<String>, panicked: bool) {
        if fatal {
            let reason = reason.unwrap_or_else(|| "it returned before the shutdown".to_owned());
            error!(task = name, reason, "a critical task ended, the process stops");
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert(TaskFailure { task: name.to_owned(), reason });
            drop(failure);
            self.root.cancel();
        } else if panicked {
            error!(task = name, reason, "task panicked");
        } else if let Some(reason) = reason {
            warn!(task = name, reason, "task failed");
        } else {
            debug!(task = name, "task ended");
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_shutdown_waits_for_a_task_to_finish_its_work() {
        let tasks = Tasks::new();
        let cancelled = tasks.cancelled();
        let (done, finished) = tokio::sync::oneshot::channel();
        tasks.spawn("worker", false, async move {
            cancelled.cancelled().await;
            let _ = done.send(());
        });
        tasks.shutdown(PATIENCE).await.unwrap();
        finished.await.unwrap();
        assert!(tasks.running().is_empty());
    }

    #[tokio::test]
    async fn a_critical_task_that_panics_stops_the_process_and_names_itself() {
        let tasks = Tasks::new();
        tasks.spawn("books", true, async {
            if true {
                panic!("disk full");
            }
        });
        let failure = tasks.run_until_stopped(Signals::install(), PATIENCE).await.unwrap_err();
        assert_eq!(failure.to_string(), "task books ended: panicked: disk full");
    }

    #[tokio::test]
    async fn an_ordinary_task_that_fails_leaves_the_process_alone() {
        let tasks = Tasks::new();
        tasks.spawn("guest", false, async { Err::<(), _>("went away") });
        tasks.shared.tracker.close();
        tasks.shared.tracker.wait().await;
        assert!(!tasks.cancelled().is_cancelled());
        assert_eq!(tasks.failure(), None);
    }

    #[tokio::test]
    async fn a_child_is_cancelled_alone() {
        let tasks = Tasks::new();
        let child = tasks.child();
        let cancelled = child.cancelled();
        child.spawn("channel", true, async move { cancelled.cancelled().await });
        child.cancel();
        tasks.shared.tracker.close();
        tasks.shared.tracker.wait().await;
        assert!(!tasks.cancelled().is_cancelled());
        assert_eq!(tasks.failure(), None);
    }

    #[tokio::test]
    async fn lasting_tasks_end_when_they_are_cancelled_themselves() {
        let tasks = Tasks::new();
        let lasting = tasks.lasting();
        let cancelled = lasting.cancelled();
        lasting.spawn("link", false, async move { cancelled.cancelled().await });
        let left = tasks.shutdown(Duration::from_millis(1)).await.unwrap_err();
        assert_eq!(left, StillRunning(vec!["link".to_owned()]));
        lasting.cancel();
        tasks.shutdown(PATIENCE).await.unwrap();
    }

    #[tokio::test]
    async fn a_task_that_ignores_the_shutdown_is_named() {
        let tasks = Tasks::new();
        tasks.spawn("deaf", false, std::future::pending::<()>());
        let left = tasks.shutdown(Duration::from_millis(1)).await.unwrap_err();
        assert_eq!(left.to_string(), "still running after the shutdown: deaf");
    }
}
