//! The operating system's wish that the process should stop.

use tokio::signal::unix::{SignalKind, signal};

/// Completes when the process receives SIGTERM or SIGINT.
///
/// When a handler cannot be installed, that signal keeps its default action (which ends the process) and this
/// function waits for the other one.
pub async fn wait() {
    let received = |kind: SignalKind| async move {
        match signal(kind) {
            Ok(mut stream) => {
                stream.recv().await;
            }
            Err(error) => {
                tracing::warn!(%error, "no handler for a termination signal");
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = received(SignalKind::terminate()) => {}
        () = received(SignalKind::interrupt()) => {}
    }
}
