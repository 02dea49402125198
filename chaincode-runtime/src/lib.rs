//! The sandbox that executes chaincode: installed packages, compiled components, instances.
//!
//! A package ([`package`]) is installed once ([`store`]), checked ([`bounds`]) and compiled once ([`compiler`], [`compiled`]), and then executed in
//! fresh instances ([`runtime`]). What a running chaincode can see and do is the WIT package `consort:chaincode` and nothing else; each of
//! its functions ends at the [`Host`](host::Host) of the execution: a channel's ledger on a peer, or [`memory`] on a developer's
//! machine.
//!
//! Does not own: the books, identities, definitions and their agreement; a caller passes what a definition allows as [`Allowance`].
//!
//! Data flows from an [`Invocation`] through an instance to the host and back as an [`Execution`].
//!
//! What always holds: an execution is bounded in instructions, memory, stack, host work and wall-clock time; whatever a chaincode
//! does ends as its own failure and never as the peer's; what depends on this machine is never reported as the chaincode's.

pub mod bounds;
mod ceiling;
pub mod compiled;
pub mod compiler;
mod engine;
mod failure;
pub mod host;
mod imports;
pub mod limits;
pub mod memory;
mod offered;
pub mod package;
pub mod runtime;
mod sandbox;
pub mod store;
mod threads;

pub use self::compiler::Compiler;
pub use self::engine::THREAD_STACK_BYTES;
pub use self::host::{Callee, Creator, Host, HostError, Modification, Page, RangeHandle, TransactionContext};
pub use self::limits::{Allowance, Limits};
pub use self::package::{Package, PackageError, PackageId};
pub use self::runtime::{
    ChaincodeRuntime, Event, Execution, InstallError, Invocation, Response, RuntimeError, Usage, WasmRuntime,
};
pub use self::store::{PackageStore, StoreError};

/// An error with all its causes, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
