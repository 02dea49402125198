//! What strangers send, as plain functions over bytes. A panic is a finding.
//!
//! Owns the functions, one per format, and the table of them ([`TARGETS`]). Does not know where bytes come from: libFuzzer calls the
//! functions through the programs in `targets/`, and the tests of this crate call them with random, changed and well-formed
//! input for a moment at every run, so that they cannot fall behind the code.
//!
//! Always: a function takes any bytes, and asserts what must hold of what it could read.

mod authority;
mod membership;

pub use authority::{signing_request, token};
pub use membership::{certificate, policy};

/// A function over bytes that must not panic.
pub type Target = fn(&[u8]);

/// Every function with the name of its program in `targets/`.
pub const TARGETS: [(&str, Target); 4] = [
    ("certificate", certificate),
    ("policy", policy),
    ("token", token),
    ("signing_request", signing_request),
];
