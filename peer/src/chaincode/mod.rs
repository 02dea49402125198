//! The chaincodes that run on this peer: installed packages, and the sandbox that executes them.
//!
//! A package ([`package`]) is installed once ([`store`]), compiled once ([`compiled`]), and then executed in fresh instances
//! ([`runtime`]). What a running chaincode can see and do is the WIT package `consort:chaincode` and nothing else; each of
//! its functions ends at the [`Host`](host::Host) of the execution.
//!
//! What always holds: an execution is bounded in instructions, memory, stack, host work and wall-clock time; whatever a chaincode
//! does ends as its own failure and never as the peer's; a time limit that differs between peers is never reported as the chaincode's.

pub mod compiled;
mod engine;
mod failure;
pub mod host;
pub mod package;
pub mod runtime;
mod sandbox;
pub mod store;

pub use self::host::{Creator, Host, HostError, RangeHandle, TransactionContext};
pub use self::package::{Package, PackageError, PackageId};
pub use self::runtime::{
    ChaincodeRuntime, Event, Execution, InstallError, Invocation, Limits, RuntimeError, WasmRuntime,
};
pub use self::store::{PackageStore, StoreError};
