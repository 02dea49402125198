//! Brings the channels' blocks from the orderers, or from other peers of the own organisation.
//!
//! One [`Follower`] per channel holds one stream to one source: an orderer of the channel's configuration or, when none
//! answers (or by preference), a peer of the own organisation. When the stream breaks, or brings nothing while others move
//! on, it goes to the next source at once, and pauses only when all have failed. Blocks go to the channel's
//! [`Intake`](crate::committer::pipeline::Intake), which judges them; a source whose block is wrong is left out for a
//! while.

#[cfg(test)]
mod broadcast_tests;
mod broadcasts;
mod follow;
mod orderers;
mod seek;
mod sources;
#[cfg(test)]
mod tests;

pub use self::follow::{Follower, FollowerParts};
pub use self::orderers::{OrdererEndpoint, Orderers, OverrideError};
pub use self::seek::from_block;
