//! What every long-running process of the network needs.
//!
//! Owns reading a configuration, logs and metrics, supervised tasks, the one kind of listener (TLS, gRPC and plain HTTP,
//! limits, a clean end), connections to other nodes, certificates that are renewed while a process runs, the operations
//! endpoints, and the service that delivers blocks.
//! Knows nothing of ledgers, consensus or chaincode: what it serves is handed in through small traits.
//!
//! A process reads its configuration ([`config::load`]), starts its log ([`telemetry::init`]) and its tasks ([`Tasks`]),
//! binds its listeners ([`server::Listener`]), and waits ([`Tasks::run_until_stopped`]).
//!
//! Always: a task has a name and ends with its family; a critical one that dies stops the process. Every listener bounds
//! its connections, the streams on them, and the time that a handshake may take.

pub mod clock;
pub mod config;
pub mod deliver;
pub mod dial;
pub mod operations;
pub mod renewal;
pub mod server;
pub mod signal;
pub mod tasks;
pub mod telemetry;
pub mod tls;
pub mod trust;

pub use clock::{Clock, ManualClock, SystemClock};
pub use tasks::Tasks;
pub use telemetry::Metrics;
