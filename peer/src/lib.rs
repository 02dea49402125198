//! A peer: it endorses proposals, keeps the channels' ledgers, and is the door for applications.
//!
//! Owns the channels that this peer has joined ([`registry`], [`channel`]), the way of a block from the orderers to the
//! ledger ([`deliver_client`], [`committer`]), the services that applications and other peers call ([`gateway`],
//! [`discovery`], [`events`], [`membership`], [`endorser`], [`private`]), the chaincodes that run here ([`chaincode`]) and the system chaincodes
//! ([`lifecycle`], [`system`], [`identities`]).
//!
//! Does not own: formats and hashes (`protos`, `crypto`), who is who (`msp`), what a configuration means
//! (`channel-config`), how a block becomes durable (`ledger`), sockets, tasks and clocks (`node`).
//!
//! How data flows:
//!
//! ```text
//!  orderers ──► deliver_client ──► committer::Intake ──► queue ──► committer::Committer ──► ledger
//!               follow, fail over   block and signatures           state, policies, one write   │
//!                                                                                              ▼
//!  application ──► gateway ──► endorser (here, other peers) ──► orderers      channel: bundle, notifications ──► events
//! ```
//!
//! What always holds: a channel's bundle is replaced only after the configuration block that changes it is durable and
//! before the next block is judged; a channel that cannot decide a block stops alone, and says so in the log and in
//! `/healthz`; an invalid transaction is a code, never an error.

pub use consort_chaincode_runtime as chaincode;

mod attested;
pub mod channel;
pub mod committer;
pub mod config;
pub mod connections;
mod definitions;
pub mod deliver_client;
pub mod discovery;
pub mod endorser;
pub mod endorsing;
pub mod events;
mod fates;
pub mod gateway;
pub mod health;
pub mod identities;
pub mod lifecycle;
mod load;
pub mod membership;
pub mod private;
pub mod registry;
pub mod sealed;
pub mod server;
pub mod system;
pub mod telemetry;
#[cfg(test)]
mod testing;
