//! A channel's configuration: the tree that every node agrees on, its updates, and what it says.
//!
//! Owns the tree's form (Hyperledger Fabric's), the rules for a configuration by itself and for the step from one to the next,
//! the way from a readable [`profile::Profile`] to a genesis block, and [`ChannelBundle`], which nodes ask. Knows no ledgers, no
//! network and no clock; who orders and stores configuration blocks is others' business.
//!
//! How data flows: block or profile → `Config` → [`ChannelBundle`]; update envelope + bundle → the next `Config` → the next
//! bundle.
//!
//! Always: a bundle in use never changes; comparisons are by content, never by a re-encoding; what an orderer accepts with
//! [`ChannelBundle::propose`] a peer accepts with [`ChannelBundle::apply`]; no input panics.

mod acl;
mod application;
pub mod attestation;
mod bundle;
mod capabilities;
mod change;
mod consensus;
mod duration;
mod endorsement;
mod envelope;
mod error;
mod genesis;
mod maintenance;
mod names;
mod orderer;
pub mod profile;
mod transition;
mod tree;
pub mod update;
mod values;

pub use self::{
    application::{ApplicationConfig, ApplicationOrganisation},
    bundle::ChannelBundle,
    capabilities::{AGGREGATED_ENDORSEMENTS, Capabilities, Level, REGISTERED_IDENTITIES, SEALED_DATA},
    change::{BatchChange, CapabilityChange, Change, ChangeError, Members},
    consensus::ConsenterChange,
    endorsement::{DEFAULT_ENDORSEMENT, EndorsementPolicyError, LIFECYCLE_ENDORSEMENT},
    error::ConfigError,
    orderer::{
        BatchConfig, ConsensusState, Consenter, ETCDRAFT, OrdererConfig, OrdererOrganisation, RaftOptions,
    },
    profile::{Profile, ProfileError},
    update::UpdateError,
};
