//! How the peers of a channel know each other: who is there, how far its ledger is, and what it runs.
//!
//! Each peer signs a statement about itself per channel and exchanges it, every few seconds and at once after a change,
//! with the peers that it knows: those that it has heard of, the channel's anchor peers and the configured ones. The
//! answer is everything that the other one knows. A statement counts only when its author is a peer of one of the
//! channel's organisations; it is forgotten when its author falls silent. What a channel's peers say stays among them.

mod attestation;
#[cfg(test)]
mod attestation_tests;
mod exchange;
mod known;
mod statement;
#[cfg(test)]
mod tests;

pub use self::exchange::{LocalChaincodes, Membership, MembershipSetup};
