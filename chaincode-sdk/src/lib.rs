//! For people who write chaincode.
//!
//! A chaincode is a set of functions over a [`Context`]; [`export!`] makes a WebAssembly component of them, which a
//! peer runs in a sandbox. The same functions run natively over [`testing::MemoryLedger`], so that `cargo test`
//! needs neither a peer nor WebAssembly.
//!
//! Owns the Rust side of the WIT package `consort:chaincode` (`wit/chaincode.wit`), the reading of arguments and writing
//! of results, and composite keys. Does not own execution: limits, versions and endorsement are the peer's.
//!
//! Data flows from the client's arguments through [`Contract::invoke`] to the [`Ledger`]; the payload and the
//! refusal flow back as one response.
//!
//! Always: a contract sees nothing but the proposal and the committed state, so it gives the same result on every peer.
//!
//! ```
//! use consort_chaincode_sdk::{Context, Error, Functions};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Account {
//!     balance: u64,
//!     owner: String,
//! }
//!
//! fn open(context: &Context, id: String, owner: String) -> Result<(), Error> {
//!     if context.exists(&id)? {
//!         return Err(Error::new(format!("the account {id} already exists")));
//!     }
//!     context.put_json(&id, &Account { balance: 0, owner })
//! }
//!
//! fn contract() -> Functions<'static> {
//!     Functions::new().function("Open", open)
//! }
//!
//! consort_chaincode_sdk::export!(contract);
//! ```

mod argument;
mod composite;
mod context;
mod contract;
mod error;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod guest;
mod ledger;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use argument::{FromArgument, IntoPayload, Json};
pub use composite::{composite_key, split_composite_key};
pub use context::{Collection, Context, Range};
pub use contract::{Contract, Functions, Handler};
pub use error::Error;
pub use ledger::{ClientIdentity, Cursor, KeyValue, Ledger, Level, Response, Timestamp};

/// Makes the crate a chaincode: names the function that builds its contract.
///
/// Built for `wasm32-unknown-unknown` it exports the component's `invoke`; in any other build it does nothing, so that
/// the crate can be tested natively. The crate must be a `cdylib` (and an `rlib` for its tests).
#[macro_export]
macro_rules! export {
    ($contract:path) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "the component's exports have fixed symbol names")]
        const _: () = {
            struct Exported;

            impl $crate::guest::bindings::Guest for Exported {
                fn invoke(
                    invocation: $crate::guest::bindings::Invocation,
                ) -> $crate::guest::bindings::Response {
                    $crate::guest::run(&$contract(), &invocation)
                }
            }

    $crate::guest::bindings::export_chaincode!(Exported with_types_in $crate::guest::bindings);
        };
        #[cfg(not(target_arch = "wasm32"))]
        const _: () = {
            // Named here too, so that a native build finds the same faults.
            let _ = $contract;
        };
    };
}
