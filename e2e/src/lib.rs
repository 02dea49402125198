//! Networks of real processes for tests and measurements.
//!
//! Owns copies of `network-configs/`, moved to free ports and a temporary folder, and the processes that they start.
//! Does not link a server: everything goes through the binaries and their sockets, as for an operator.
//!
//! Always: a network listens on 127.0.0.1 only, and dropping it leaves no process and no file behind.

mod network;
mod node;
mod ports;

pub use network::{Network, Outcome, consort, is_running, repository};
pub use node::node_client;
pub use ports::move_to_free_ports;
