//! Sealed data: who may read which record, decided later, recorded on the ledger (the system chaincode `_sealed`), and
//! carried out by peers that hold shares (the proxies).
//!
//! ```text
//!  owner ── CreateDomain, PutRecord, Grant, Revoke ──►┐
//!  reader ─ Request ─────────────────────────────────►├ chaincode ─► endorsed, ordered ─► validation ─► ledger
//!  anybody  Respond ─────────────────────────────────►┘                                                 │
//!  owner ── Deposit (a share) ──► service ─► vault ◄── follower: answers requests, erases shares ◄────────┘
//!  reader ─ Answer ─────────────► service ─► the fragment that the follower made
//! ```
//!
//! [`chaincode`] holds the rules, pure functions over the books ([`books`]) and the messages ([`rules`] checks their forms, [`audit`]
//! answers questions). [`validation`] runs the same rules again when a block is judged: a transaction of `_sealed` is valid only if
//! it writes, and tells in its event, exactly what the rules make of its creator's call. So endorsers, however many and
//! however malicious, can neither rewrite a grant nor invent a request; they only decide whether a call is endorsed at all
//! (the channel's policy `Endorsement`).
//!
//! A proxy ([`proxy`]) acts on committed blocks, one after the other: it makes the fragment of a request when it comes to the
//! request's block, and erases a share when it comes to the block that ends the grant. It has no clock. A share lies on the disk as
//! its owner sealed it to this peer ([`vault`], [`keys`]).
//!
//! What always holds: a fragment exists only for a request that is committed and valid, by the reader whom the grant names, for
//! a record that it covers; a request is answered with one and the same fragment however often it is asked for; shares and plain
//! records are never part of what is ordered, logged or shown.
//!
//! The namespace exists on channels with the application capability `CONSORT_SEALED_DATA`.

pub mod audit;
pub mod books;
pub mod chaincode;
pub mod keys;
pub mod proxy;
pub mod rules;
pub mod service;
pub mod validation;
pub mod vault;

pub use consort_protos::sealed::SEALED;

#[cfg(test)]
mod tests;
