//! The ordering service: takes messages, agrees with other orderers on their order, cuts blocks, signs and delivers them.
//!
//! Owns what happens between broadcast and deliver: filters (`submission`), the cutter, the consensus seam with Raft behind it
//! (`consensus`), the block writer, the channels on disk (`registrar`), those that are only followed (`follower`), and the participation API. Does not know transactions: what an
//! envelope does to a ledger is the peers' business.
//!
//! A message comes in by broadcast, is judged under the channel's configuration, and goes to the chain of its channel, or on to the
//! leader's. The leader cuts blocks and proposes them; every consenter appends what was agreed on, completes it with metadata and its own
//! signature, and delivers it.
//!
//! Always: a block is on disk before it is delivered; what a Raft message promises is on disk before it is sent; a client hears SUCCESS only
//! when its message is in a block that a majority has; one channel's fault stops no other channel.

mod broadcast;
mod channel;
mod cluster;
pub mod config;
mod consensus;
mod cutter;
mod follower;
pub mod join_block;
mod metrics;
mod node;
mod own_certificates;
pub mod participation;
mod pull;
mod registrar;
pub mod submission;
mod writer;

pub use node::{Orderer, OrdererError};
