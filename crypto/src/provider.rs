//! The doors to hashing and verifying, so that a channel with other algorithms needs no other code.

use std::fmt;
use std::sync::Arc;

use crate::Error;
use crate::hash;
use crate::key::PublicKey;

/// Hashes messages.
///
/// An implementation is deterministic and has no state.
pub trait Hasher: Send + Sync {
    /// Hash of the concatenation of parts.
    fn hash(&self, parts: &[&[u8]]) -> Vec<u8>;
}

/// Verifies signatures over messages.
///
/// An implementation is deterministic: every peer must come to the same answer.
pub trait Verifier: Send + Sync {
    /// Verifies a signature.
    ///
    /// # Errors
    ///
    /// When the signature does not hold, or the key is of a kind that signs no messages.
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8]) -> Result<(), Error>;
}

/// The algorithms of a channel.
#[derive(Clone)]
pub struct CryptoProvider {
    /// Hashes.
    pub hasher: Arc<dyn Hasher>,
    /// Verifies.
    pub verifier: Arc<dyn Verifier>,
}

impl fmt::Debug for CryptoProvider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CryptoProvider").finish_non_exhaustive()
    }
}

/// SHA-256.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sha256;

impl Hasher for Sha256 {
    fn hash(&self, parts: &[&[u8]]) -> Vec<u8> {
        hash::sha256_parts(parts).to_vec()
    }
}

/// The rules of [`PublicKey::verify`].
#[derive(Clone, Copy, Debug, Default)]
pub struct X509Verifier;

impl Verifier for X509Verifier {
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        key.verify(message, signature)
    }
}

impl CryptoProvider {
    /// The algorithms of every Fabric channel: SHA-256, and ECDSA or Ed25519 by the key.
    #[must_use]
    pub fn fabric() -> Self {
        Self { hasher: Arc::new(Sha256), verifier: Arc::new(X509Verifier) }
    }
}
