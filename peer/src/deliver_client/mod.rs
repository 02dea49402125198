//! Brings the channels' blocks from the orderers.
//!
//! One [`Follower`] per channel holds one stream to one orderer of the channel's configuration. When the stream breaks it
//! goes to the next orderer at once, and pauses only when all have failed. Blocks go to the channel's
//! [`Intake`](crate::committer::pipeline::Intake), which judges them; an orderer whose block is wrong is left out for a
//! while.

mod follow;
mod orderers;
mod seek;
#[cfg(test)]
mod tests;

pub use self::follow::Follower;
pub use self::orderers::{OrdererEndpoint, Orderers, OverrideError};
pub use self::seek::from_block;
