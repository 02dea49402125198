//! What strangers send, as plain functions over bytes. A panic is a finding.
//!
//! Owns the functions, one per message, and the table of them ([`TARGETS`]), with well-formed input to start from ([`seeds`]). Does not know
//! where bytes come from: libFuzzer calls the functions through the programs in `targets/`, and the tests of this crate call them with
//! random, changed and well-formed input for a moment at every run, so that they cannot fall behind the code.
//!
//! A message to a service goes to that service, made of the parts of a real node (`peer`, `orderer`), twice: as it is, and with the name and
//! signature of a member put over it (`network`), since a stranger's signature would hide what lies behind.
//!
//! Always: a function takes any bytes, and asserts what must hold of what it could read and of what it was answered.

mod authority;
mod client;
mod files;
mod gateway;
mod membership;
mod network;
mod orderer;
mod peer;
mod sealed;
mod seeds;
mod services;

pub use authority::{authority_request, signing_request, token};
pub use client::{GENESIS, channel_block, configuration, identity, read_write_set, seek, transaction};
pub use files::{
    chaincode_package, channel_change, channel_profile, connection_profile, message_json, network_topology,
};
pub use gateway::{
    chaincode_events_request, commit_status_request, endorse_request, evaluate_request, submit_request,
};
pub use membership::{certificate, policy};
pub use orderer::{broadcast_envelope, participation_join, participation_update};
pub use peer::put_away;
pub use seeds::seeds;
pub use services::{
    cscc_arguments, discovery_request, endorsing_stream, identities_arguments, lifecycle_arguments,
    membership_statement, private_data_call, proposal, proposal_payload, qscc_arguments, sealed_arguments,
    sealed_deposit, sealed_describe, sealed_question,
};

/// A function over bytes that must not panic.
pub type Target = fn(&[u8]);

/// Every function with the name of its program in `targets/`.
pub const TARGETS: [(&str, Target); 39] = [
    ("authority_request", authority_request),
    ("broadcast_envelope", broadcast_envelope),
    ("certificate", certificate),
    ("chaincode_events_request", chaincode_events_request),
    ("chaincode_package", chaincode_package),
    ("channel_block", channel_block),
    ("channel_change", channel_change),
    ("channel_profile", channel_profile),
    ("commit_status_request", commit_status_request),
    ("configuration", configuration),
    ("connection_profile", connection_profile),
    ("cscc_arguments", cscc_arguments),
    ("discovery_request", discovery_request),
    ("endorse_request", endorse_request),
    ("endorsing_stream", endorsing_stream),
    ("evaluate_request", evaluate_request),
    ("identities_arguments", identities_arguments),
    ("identity", identity),
    ("lifecycle_arguments", lifecycle_arguments),
    ("membership_statement", membership_statement),
    ("message_json", message_json),
    ("network_topology", network_topology),
    ("participation_join", participation_join),
    ("participation_update", participation_update),
    ("policy", policy),
    ("private_data_call", private_data_call),
    ("proposal", proposal),
    ("proposal_payload", proposal_payload),
    ("qscc_arguments", qscc_arguments),
    ("read_write_set", read_write_set),
    ("sealed_arguments", sealed_arguments),
    ("sealed_deposit", sealed_deposit),
    ("sealed_describe", sealed_describe),
    ("sealed_question", sealed_question),
    ("seek", seek),
    ("signing_request", signing_request),
    ("submit_request", submit_request),
    ("token", token),
    ("transaction", transaction),
];
