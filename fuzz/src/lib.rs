//! What strangers send, as plain functions over bytes. A panic is a finding.
//!
//! Owns the functions, one per format, and the table of them ([`TARGETS`]). Does not know where bytes come from: libFuzzer calls the
//! functions through the programs in `targets/`, and the tests of this crate call them with random, changed and well-formed
//! input for a moment at every run, so that they cannot fall behind the code.
//!
//! Always: a function takes any bytes, and asserts what must hold of what it could read.

mod authority;
mod client;
mod membership;

pub use authority::{authority_request, signing_request, token};
pub use client::{
    GENESIS, channel_block, configuration, identity, proposal, read_write_set, seek, transaction,
};
pub use membership::{certificate, policy};

/// A function over bytes that must not panic.
pub type Target = fn(&[u8]);

/// Every function with the name of its program in `targets/`.
pub const TARGETS: [(&str, Target); 12] = [
    ("authority_request", authority_request),
    ("certificate", certificate),
    ("channel_block", channel_block),
    ("configuration", configuration),
    ("identity", identity),
    ("policy", policy),
    ("proposal", proposal),
    ("read_write_set", read_write_set),
    ("seek", seek),
    ("signing_request", signing_request),
    ("token", token),
    ("transaction", transaction),
];
