//! Sealed data: threshold proxy re-encryption.
//!
//! An owner seals records under a key of a *domain* ([`seal`]). Later the owner splits the right to read into shares for proxies
//! ([`split`]); each proxy turns a record's capsule into a fragment for one reader, with a proof that it did so correctly
//! ([`re_encrypt`]); the reader, and nobody else, opens the record with as many fragments as the owner demanded ([`open`]).
//!
//! The scheme is an ElGamal key encapsulation with a Schnorr-like check, whose re-encryption key is shared after Shamir; the
//! published construction closest to it is Umbral (Nuñez 2018, "Umbral: a threshold proxy re-encryption scheme"). It differs on
//! purpose: the owner's signature on shares is replaced by commitments that the owner puts on the ledger; hashes bind suite,
//! purpose, record (`aux`), grant and request; the key of the data binds the whole capsule.
//!
//! Everything exists for two suites ([`Suite`]) that never mix: P-256 with SHA-256, HKDF (RFC 5869) and AES-256-GCM
//! (SP 800-38D); SM2's curve (GB/T 32918.5) with SM3 (GB/T 32905), HKDF over SM3 and SM4-GCM (RFC 8998).
//!
//! Does not know ledgers, identities or time: who may ask, and when, is decided by whoever holds a share.
//!
//! Always: no value holds the point at infinity; points and scalars that arrive are canonical; secrets are wiped when dropped and
//! never show up in `Debug` output; time varies with public values only.

mod capsule;
mod cipher;
mod element;
mod envelope;
mod error;
mod fragment;
mod hash;
mod knowledge;
mod opening;
mod random;
mod secret_key;
mod share;
mod suite;

pub use capsule::{Capsule, Sealed, open_own, seal};
pub use element::Point;
pub use envelope::{open_sealed, seal_to};
pub use error::Error;
pub use fragment::{Fragment, re_encrypt};
pub use knowledge::{Proof, prove_knowledge};
pub use opening::open;
pub use secret_key::{PublicKey, SecretKey};
pub use share::{PROXIES_MAX, Share, Split, split};
pub use suite::Suite;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod vectors;
