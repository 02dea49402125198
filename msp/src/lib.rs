//! Who somebody is in a consortium, and whether enough of the right people signed.
//!
//! Owns MSP folders and configurations, identities and their validation (chains, revocation, organizational units), principals,
//! and the policy language with its evaluation. Knows no blocks and no channels: a channel's configuration hands its MSPs and
//! policies in.
//!
//! How data flows: an [`MspManager`] reads serialised identities; a [`policy::Policy`] asks it whether they are what its principals
//! demand; a refusal carries an explanation.
//!
//! Always: no decision depends on the clock (expiry is asked for at the doors, with [`Identity::expires_at`]), on randomness or on
//! map order, so that every peer decides alike. What an identity's bytes once meant under a manager never changes.

mod algorithms;
mod cache;
mod chain;
mod error;
pub mod folder;
mod identity;
mod manager;
mod msp;
mod organizational_unit;
pub mod policy;
pub mod principal;
mod revocation;
mod signing;

pub use self::{
    chain::{CertificatePool, Chain, Usage},
    error::{ChainError, FolderError, IdentityError, MspError, PrincipalError},
    identity::{Identity, IdentityId, serialize},
    manager::MspManager,
    msp::{Msp, MspVersion},
    principal::Role,
    signing::{BLS_KEYS, SigningIdentity},
};
