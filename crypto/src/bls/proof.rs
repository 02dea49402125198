//! Proofs that a key's owner holds its secret, and that the key is this member's.

use super::{Error, PROOF_SUITE, PublicKey, Signature, group, statement};
use crate::hash::sha256;
use crate::key;

/// First field of what a proof signs.
const POSSESSION: &str = "consort/bls-key/v1";

/// The member that a key belongs to. A proof made for one owner says nothing for another: nobody can enter somebody else's
/// key, with its proof, as his own.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// Its organisation.
    pub msp_id: &'a str,
    /// SHA-256 of the public key info of its certificate (`SubjectPublicKeyInfo` in DER), so that the proof outlives a
    /// renewal of the certificate with the same key.
    pub key_info_hash: [u8; 32],
    /// The channel that the key is registered on; empty for a key in a certificate, which is good for all channels.
    pub channel: &'a str,
}

impl<'a> Owner<'a> {
    /// The holder of a certificate with this public key, on a channel; none for all channels.
    #[must_use]
    pub fn new(msp_id: &'a str, holder: &key::PublicKey, channel: &'a str) -> Self {
        Self { msp_id, key_info_hash: sha256(&holder.to_der()), channel }
    }

    pub(super) fn message(&self, key: &PublicKey) -> Vec<u8> {
        statement(
            POSSESSION,
            &[key.as_bytes(), self.msp_id.as_bytes(), &self.key_info_hash, self.channel.as_bytes()],
        )
    }
}

/// A proof of possession: a signature over key and owner under a ciphersuite of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof(pub(super) Signature);

impl Proof {
    /// Reads a proof.
    ///
    /// # Errors
    ///
    /// Those of [`Signature::from_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        Signature::from_bytes(bytes).map(Self)
    }

    /// The compressed point.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; super::SIGNATURE_BYTES] {
        self.0.to_bytes()
    }

    /// Checks that the owner holds the secret of a key and claims it.
    ///
    /// # Errors
    ///
    /// [`Error::SignatureMismatch`] when the proof is of another key or for another owner.
    pub fn verify(&self, key: &PublicKey, owner: &Owner<'_>) -> Result<(), Error> {
        let message = group::hash_to_p1(&owner.message(key), PROOF_SUITE);
        let holds = group::pairings_agree(&[(&message, key.point())], &self.0.point);
        holds.then_some(()).ok_or(Error::SignatureMismatch)
    }
}
