//! Configuration updates: computing one from two trees, and judging one against the current configuration.
//!
//! Source: Fabric documentation, "Updating a channel configuration", `internal/configtxlator/update` and `common/configtx`.

mod authorize;
mod compute;
mod demands;

pub use self::{
    authorize::{UpdateError, authorize},
    compute::{ComputeError, compute},
    demands::{Demand, demands},
};
