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
//! use consort_chaincode_sdk::{Context, Error, contract};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Account {
//!     balance: u64,
//!     owner: String,
//! }
//!
//! #[derive(Default)]
//! pub struct Accounts;
//!
//! #[contract]
//! impl Accounts {
//!     #[submit]
//!     fn open(&self, context: &Context<'_>, id: &str, owner: String) -> Result<(), Error> {
//!         context.assets("account").create(&[id], &Account { balance: 0, owner })
//!     }
//!
//!     #[evaluate]
//!     fn balance(&self, context: &Context<'_>, id: &str) -> Result<u64, Error> {
//!         Ok(context.assets::<Account>("account").get(&[id])?.balance)
//!     }
//! }
//!
//! consort_chaincode_sdk::chaincode!(Accounts);
//!
//! use consort_chaincode_sdk::testing::MemoryLedger;
//! let mut ledger = MemoryLedger::new();
//! ledger.submit(&chaincode(), "Open", &["savings", "Tom"]).unwrap();
//! assert_eq!(ledger.evaluate(&chaincode(), "Accounts:Balance", &["savings"]).unwrap(), b"0");
//! ```

// The attribute's code names this crate, also where it is used inside of it.
extern crate self as consort_chaincode_sdk;

mod argument;
mod assets;
#[doc(hidden)]
pub mod chaincode;
mod collection;
mod composite;
mod context;
mod contract;
mod error;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod guest;
#[cfg(all(target_arch = "wasm32", feature = "heap"))]
#[allow(unsafe_code, reason = "an allocator hands out raw memory")]
mod heap;
mod ledger;
#[doc(hidden)]
pub mod parameter;
mod policy;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use argument::{FromArgument, IntoPayload, Json};
pub use assets::{AssetPage, AssetRange, Assets};
pub use chaincode::{Call, Chaincode, Description, Kind, Schema, Schemas};
pub use collection::Collection;
pub use composite::{composite_key, split_composite_key};
pub use consort_chaincode_macros::{Schema, contract};
pub use context::{Context, History, Range};
pub use contract::{Contract, Functions, Handler};
pub use error::Error;
pub use ledger::{
    ClientIdentity, Cursor, HistoryCursor, KeyValue, Ledger, Level, Modification, Page, Response, Role,
    SignedProposal, Timestamp,
};
pub use policy::KeyPolicy;

/// Makes the crate a chaincode of these contracts; the first one is meant when a client names none.
///
/// Defines the function `chaincode()`, for tests, and exports what a peer calls. Title and version in the metadata are the crate's.
///
/// ```
/// # use consort_chaincode_sdk::{Context, Error, contract};
/// # #[derive(Default)] pub struct Hello;
/// # #[contract] impl Hello {
/// #     #[evaluate] fn greet(&self, _: &Context<'_>, name: &str) -> Result<String, Error> { Ok(format!("good day, {name}")) }
/// # }
/// consort_chaincode_sdk::chaincode!(Hello);
/// ```
#[macro_export]
macro_rules! chaincode {
    ($($contract:expr),+ $(,)?) => {
        /// The chaincode of this crate.
        #[must_use]
        pub fn chaincode() -> $crate::Chaincode {
            $crate::Chaincode::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))$(.contract($contract))+
        }

        $crate::export!(chaincode);
    };
}

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
