//! Threads on which chaincode is executed, with a stack of our own choice.
//!
//! Most executions take some twenty microseconds, about as long as it takes to wake a thread. So an execution that comes while others
//! run waits for a thread that runs already, as long as these go on quickly, and a thread is woken only when they do not:
//! at once when nothing was begun lately or several wait, and after [`PATIENCE`] when it turns out that what runs takes long.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// How long an execution may wait for a thread that runs before another one is woken for it.
const PATIENCE: Duration = Duration::from_millis(1);
/// Threads that began something within this time will soon be done with it.
const LATELY: Duration = Duration::from_micros(200);
/// Executions that may wait for each thread that runs.
const WAITING_PER_THREAD: usize = 2;
/// A thread with nothing to do ends after this time.
const IDLE: Duration = Duration::from_secs(10);

type Work = Box<dyn FnOnce() + Send>;

/// Threads that come and go with the work. What is dropped ends them when their work is done.
pub(crate) struct Threads {
    shared: Arc<Shared>,
}

/// The work has no result.
#[derive(Debug, thiserror::Error)]
#[error("it panicked, or the system gives no thread for it; the log says which")]
pub(crate) struct Lost;

struct Shared {
    state: Mutex<State>,
    called: Condvar,
    threads_max: usize,
    stack_bytes: usize,
}

struct State {
    /// Bounded by the callers, each of which holds a slot.
    waiting: VecDeque<Work>,
    threads: usize,
    /// Threads that wait and that nobody has called.
    idle: usize,
    /// Calls that no thread has followed yet.
    calls: usize,
    /// When a thread last began something.
    began: Option<Instant>,
    closed: bool,
}

impl Threads {
    /// No threads yet, and never more than so many, each with a stack of so many bytes.
    pub(crate) fn new(threads_max: usize, stack_bytes: usize) -> Self {
        let state =
            State { waiting: VecDeque::new(), threads: 0, idle: 0, calls: 0, began: None, closed: false };
        let shared = Shared {
            state: Mutex::new(state),
            called: Condvar::new(),
            threads_max: threads_max.max(1),
            stack_bytes,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Executes work that nobody waits for.
    pub(crate) fn begin(&self, work: impl FnOnce() + Send + 'static) {
        if !self.shared.take(Box::new(work)) {
            self.shared.hurry();
        }
    }

    /// Executes the work on one of the threads. It goes on when the caller does not wait for its end.
    ///
    /// # Errors
    /// [`Lost`].
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Lost> {
        let (sender, mut result) = oneshot::channel();
        let work = Box::new(move || {
            // Whoever waits no more does not hear it.
            let _gone = sender.send(work());
        });
        if self.shared.take(work) {
            return result.await.map_err(|_| Lost);
        }
        tokio::select! {
            biased;
            result = &mut result => return result.map_err(|_| Lost),
            () = tokio::time::sleep(PATIENCE) => self.shared.hurry(),
        }
        result.await.map_err(|_| Lost)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.shared.called.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes work; answers whether a thread was called for it.
    fn take(self: &Arc<Self>, work: Work) -> bool {
        let mut state = self.state();
        state.waiting.push_back(work);
        let running = state.threads - state.idle;
        let quick = state.began.is_some_and(|began| began.elapsed() < LATELY);
        if quick && state.waiting.len() <= running * WAITING_PER_THREAD {
            return false;
        }
        self.call(state);
        true
    }

    /// Calls a thread if work still waits.
    fn hurry(self: &Arc<Self>) {
        let state = self.state();
        if !state.waiting.is_empty() {
            self.call(state);
        }
    }

    /// Calls a thread that waits, or begins one if there may be more.
    fn call(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.idle > 0 {
            state.idle -= 1;
            state.calls += 1;
            drop(state);
            self.called.notify_one();
            return;
        }
        if state.threads >= self.threads_max {
            return;
        }
        state.threads += 1;
        drop(state);
        let shared = Arc::clone(self);
        let begun = std::thread::Builder::new()
            .name("chaincode".to_owned())
            .stack_size(self.stack_bytes)
            .spawn(move || shared.serve());
        if let Err(error) = begun {
            tracing::error!(%error, "a thread for chaincode cannot be started");
            let mut state = self.state();
            state.threads -= 1;
            if state.threads == 0 {
                // Their callers are told that the execution ended.
                state.waiting.clear();
            }
        }
    }

    /// A thread's life.
    fn serve(&self) {
        let mut state = self.state();
        loop {
            while let Some(work) = state.waiting.pop_front() {
                state.began = Some(Instant::now());
                drop(state);
                // Its caller learns of a panic by the result that does not come; the hook has reported it.
                let _panicked = catch_unwind(AssertUnwindSafe(work));
                state = self.state();
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let (after, outcome) = self
                .called
                .wait_timeout_while(state, IDLE, |state| state.calls == 0 && !state.closed)
                .unwrap_or_else(PoisonError::into_inner);
            state = after;
            if state.calls > 0 {
                state.calls -= 1;
            } else {
                state.idle -= 1;
                if outcome.timed_out() {
                    break;
                }
            }
        }
        state.threads -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use futures::future::join_all;

    use super::*;

    const STACK_BYTES: usize = 256 * 1024;

    #[tokio::test]
    async fn every_execution_gives_its_result() {
        let threads = Threads::new(4, STACK_BYTES);
        let results = join_all((0..1_000).map(|number: u32| threads.run(move || number + 1))).await;
        for (number, result) in (1..).zip(results) {
            assert_eq!(result.expect("no panic"), number);
        }
        assert!(threads.shared.state().threads <= 4);
    }

    #[tokio::test]
    async fn a_panic_is_told_and_harms_no_other() {
        let threads = Threads::new(1, STACK_BYTES);
        assert!(threads.run(|| assert_eq!(1, 2)).await.is_err());
        assert_eq!(threads.run(|| 7).await.expect("no panic"), 7);
    }

    #[tokio::test]
    async fn what_takes_long_holds_up_nobody_while_there_may_be_more_threads() {
        let threads = Threads::new(8, STACK_BYTES);
        let (release, held) = sync_channel::<()>(0);
        let held = Arc::new(Mutex::new(held));
        let long = |_: u32| {
            let held = Arc::clone(&held);
            threads.run(move || held.lock().unwrap().recv().is_err())
        };
        let long = join_all((0..3).map(long));
        let quick = async {
            let results = join_all((0..100).map(|number: u32| threads.run(move || number))).await;
            drop(release);
            results
        };
        let (long, quick) = tokio::join!(long, quick);
        assert!(long.iter().all(Result::is_ok) && quick.iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn what_waits_runs_when_a_thread_is_free() {
        let threads = Threads::new(1, STACK_BYTES);
        let results = join_all((0..100).map(|number: u32| threads.run(move || number))).await;
        assert!(results.iter().all(Result::is_ok));
        assert_eq!(threads.shared.state().threads, 1);
    }

    #[test]
    fn work_that_nobody_waits_for_is_done() {
        let threads = Threads::new(2, STACK_BYTES);
        let (sender, results) = sync_channel(0);
        for number in 0..100 {
            let sender = sender.clone();
            threads.begin(move || sender.send(number).unwrap());
        }
        let mut results: Vec<i32> = results.iter().take(100).collect();
        results.sort_unstable();
        assert_eq!(results, (0..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn threads_end_with_their_owner() {
        let threads = Threads::new(2, STACK_BYTES);
        threads.run(|| ()).await.expect("no panic");
        let shared = Arc::downgrade(&threads.shared);
        drop(threads);
        while shared.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
