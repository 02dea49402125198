//! Discovery (`discovery.Discovery`): who is in a channel, how it is configured, and which peers can endorse what.
//!
//! The service of clients that choose endorsers and orderers themselves, such as `fabric-network`. It answers from the
//! channel's configuration and from what the membership exchange knows; it decides nothing that the gateway does not
//! decide in the same way. Texts are those of Fabric's `discovery/service.go`, with the cause behind them.
//!
//! Always: a caller without access to a channel gets the same answer as for a channel that does not exist.

mod answers;
mod records;
mod service;
#[cfg(test)]
mod tests;

pub use service::{Discovery, DiscoverySetup};
