//! The operating system's wish that the process should stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Handlers of SIGTERM and SIGINT. From their installation on a signal no longer ends the process; it is kept until somebody waits.
///
/// When a handler cannot be installed, that signal keeps its default action (which ends the process).
#[derive(Debug)]
pub struct Signals {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
}

impl Signals {
    /// Installs the handlers. To be called in a tokio runtime, before the process tells anybody that it is ready.
    #[must_use]
    pub fn install() -> Self {
        let installed = |kind: SignalKind| {
            signal(kind)
                .inspect_err(|error| tracing::warn!(%error, "no handler for a termination signal"))
                .ok()
        };
        Self { terminate: installed(SignalKind::terminate()), interrupt: installed(SignalKind::interrupt()) }
    }

    /// Completes when one of the signals has come since the installation.
    pub async fn received(&mut self) {
        tokio::select! {
            () = next(self.terminate.as_mut()) => {}
            () = next(self.interrupt.as_mut()) => {}
        }
    }
}

async fn next(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
