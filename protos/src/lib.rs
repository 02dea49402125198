//! The messages of the network, and the one place where they are opened.
//!
//! Owns the schemas (`schemas/`: Hyperledger Fabric's packages, names and field numbers, and Consort's own services),
//! the types generated from them, validated ids, and the openers: [`envelope`] and [`transaction`] for what is signed and ordered,
//! [`proposal`] for what clients ask, [`rwset`] for read-write sets, [`block`] for blocks, [`entry`] and [`signers`]
//! for signers named by number.
//! Does not know keys, policies or state: whether a signature holds is for others to say.
//!
//! Bytes come in at an opener and leave as typed values that keep the exact slices which hashes and signatures cover;
//! nobody behind an opener decodes again, and nothing is ever re-encoded to be hashed.
//!
//! Always: an opener never panics and never allocates by a length that it was told; maps are ordered, so that encoding a
//! value gives the same bytes everywhere.

pub mod block;
pub mod entry;
pub mod envelope;
mod generated;
pub mod ids;
mod node_units;
pub mod proposal;
pub mod rwset;
pub mod sealed;
mod secrets;
pub mod signers;
pub mod transaction;

/// Hyperledger Fabric's messages and services, one module per protobuf package.
pub mod fabric {
    pub use crate::generated::google::rpc;
    pub use crate::generated::{
        common, discovery, etcdraft, gateway, gossip, kvrwset, lifecycle, msp, orderer, protos, queryresult,
        rwset,
    };
}

/// All schemas as an encoded `google.protobuf.FileDescriptorSet`, for tools that show messages to people.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Consort's own messages and services, which a Fabric client never sees.
pub mod consort {
    pub use crate::generated::consort::{
        attestations, endorsement, endorsing, identities, orderer, peer, privatedata, sealed,
    };
}
