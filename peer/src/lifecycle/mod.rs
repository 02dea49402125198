//! Chaincode definitions: what a channel has agreed to run, and how it agrees (the system chaincode `_lifecycle`).
//!
//! An organisation approves the parameters of a definition by writing them into its implicit collection; when enough have
//! approved, one transaction writes the definition into the channel's state ([`state`] has the layout, which is
//! Fabric's `core/chaincode/lifecycle`). Endorsers and validators read it from there ([`Definition::read`]).
//!
//! Which package runs a definition is every organisation's own choice and part of its approval. A peer recognises it by its
//! hash ([`sources`]), so that it needs no private data to run a chaincode.
//!
//! What always holds: nothing here is remembered between calls; the books are the only truth. (A channel keeps what it read until a block
//! writes here: [`writes_definitions`].)

mod approval;
mod chaincode;
mod definition;
mod installed;
mod names;
pub mod sources;
pub mod state;

pub use self::chaincode::{LifecycleCall, LifecycleChaincode};
pub use self::definition::{Definition, DefinitionError, Parameters};
pub use self::installed::Installed;

use consort_protos::rwset::NamespaceReadWriteSet;

use crate::channel::CommittedBlock;

/// Namespace of definitions, and the name of the system chaincode.
pub const LIFECYCLE: &str = "_lifecycle";
/// Prefix of the collection that every organisation has in every namespace.
pub const IMPLICIT_COLLECTION: &str = "_implicit_org_";

/// The implicit collection of an organisation.
#[must_use]
pub fn implicit_collection(msp_id: &str) -> String {
    format!("{IMPLICIT_COLLECTION}{msp_id}")
}

/// Whether a block holds a transaction that writes definitions or approvals, whatever became of it.
#[must_use]
pub fn writes_definitions(block: &CommittedBlock) -> bool {
    block.transactions().iter().flatten().any(|transaction| {
        transaction
            .invocation()
            .and_then(|invocation| invocation.rwset.namespace(LIFECYCLE))
            .is_some_and(NamespaceReadWriteSet::is_written)
    })
}

#[cfg(test)]
mod golden_tests;
