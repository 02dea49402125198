//! Hashes, signatures, certificates and TLS.
//!
//! Owns every preimage of the protocol ([`preimage`]), keys ([`key`]), signatures that add up ([`bls`]), the reading of
//! certificates ([`certificate`]), their issuing ([`issue`]), lists of revoked ones ([`revocation`]), TLS configurations
//! ([`tls`]) and sealed data ([`pre`]).
//! Does not know organisations, chains of trust or policies: that a signature holds says nothing about who may sign.
//!
//! Hashes and signatures are taken over slices that arrived, never over a re-encoding.
//!
//! Always: signatures that leave are low-S; signatures over messages that are high-S are refused; a certificate whose
//! signature is high-S is rewritten before anything else looks at it; keys never show up in `Debug` output.

mod algorithm;
pub mod bls;
pub mod certificate;
mod document;
mod error;
pub mod hash;
pub mod issue;
pub mod key;
mod known_signers;
pub mod name;
pub mod pem;
pub mod pre;
pub mod preimage;
mod public_key;
pub mod request;
pub mod revocation;
mod signature;
pub mod tls;

pub use error::Error;
pub use known_signers::limit_signer_tables;
