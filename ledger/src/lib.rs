//! One channel's books: blocks, state, private data, history, and the version checks that decide what a block changes.
//!
//! Owns what is on the disk of a channel and the order of writes during a commit. Does not know identities or policies: callers pass blocks
//! whose transactions were judged already ([`ValidatedBlock`]). Does not run chaincode: it records what a run reads and writes ([`TxSimulator`]).
//!
//! Data flows in one direction. A [`ValidatedBlock`] goes through [`mvcc`], which is pure and says which versions still hold and what changes;
//! [`updates`] derives Fabric's commit hash from that; [`Ledger::commit`] writes block, codes, state, private data, history, index and
//! savepoint in one synced batch and then wakes the subscribers. [`Ledger::examine`] replays what was committed and compares. Readers take a [`StateSnapshot`], which commits neither wait for nor disturb.
//! An orderer keeps its chain in a [`BlockStore`] alone.
//!
//! Always:
//! - block n carries the header hash of block n-1, checked on write and on read;
//! - block, codes, state, history, index and savepoint move together;
//! - after one failed write nothing more is written, until the books are opened again;
//! - the same blocks give the same state, byte for byte: no clock, no randomness, no hash-map order.

mod audit;
mod block_store;
mod database;
mod error;
mod genesis;
mod history;
mod holdings;
mod index;
mod ledger;
mod lookup;
pub mod merkle;
mod missing;
pub mod mvcc;
mod order;
mod private;
pub mod simulator;
mod snapshot;
pub mod state;
mod statistics;
pub mod stored_block;
pub mod transient;
pub mod updates;
mod validated_block;

pub use self::{
    audit::{Examination, FAULTS_MAX, Fault},
    block_store::BlockStore,
    error::Error,
    history::History,
    holdings::CollectionTerms,
    index::TxLocation,
    ledger::{Committed, Ledger},
    lookup::Lookup,
    missing::MissingPrivate,
    simulator::{Simulation, SimulationError, TxSimulator},
    snapshot::{SNAPSHOT_LAG_BLOCKS_MAX, SNAPSHOT_LAG_BYTES_MAX, StateSnapshot},
    statistics::Statistics,
    transient::TransientStore,
    validated_block::ValidatedBlock,
};
