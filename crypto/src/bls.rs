//! BLS signatures whose sums are signatures: many members sign one message, one signature of 48 bytes and one check remain.
//!
//! The proof-of-possession scheme of the IETF's BLS draft (draft-irtf-cfrg-bls-signature, ciphersuite
//! `BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_`): signatures in G1 (48 bytes), public keys in G2 (96 bytes), over the
//! `blst` library. A key counts only with a [`Proof`] that its owner holds the secret and that it belongs to that member;
//! without one, a key computed from somebody else's would sign for both.
//!
//! Always: a [`PublicKey`] and a [`Signature`] are canonical, in their subgroup and not the identity; whether an aggregate
//! holds does not depend on which others it is checked with ([`judge`]).

mod batch;
mod certified;
mod field;
mod group;
mod mapping;
mod message;
mod multiples;
mod proof;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use blst::{blst_p1_affine, blst_p2_affine, min_sig};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::{Error, pem};

pub use batch::{Check, judge, verify_batch};
pub use certified::{CertifiedKey, EXTENSION_OID};
pub use message::{HashedMessage, endorsement, statement};
pub use proof::{Owner, Proof};

/// Ciphersuite of signatures.
const SIGNATURE_SUITE: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";

/// Ciphersuite of proofs of possession.
const PROOF_SUITE: &[u8] = b"BLS_POP_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";

/// Bytes of a public key: a compressed point of G2.
pub const PUBLIC_KEY_BYTES: usize = 96;

/// Bytes of a signature: a compressed point of G1.
pub const SIGNATURE_BYTES: usize = 48;

/// Validated keys that are remembered, some 400 bytes each: the endorsers of many channels. Beyond it all are forgotten.
const REMEMBERED_KEYS_MAX: usize = 4096;

/// The keys that this process has validated.
static REMEMBERED: LazyLock<RwLock<HashMap<[u8; PUBLIC_KEY_BYTES], PublicKey>>> =
    LazyLock::new(RwLock::default);

/// Label of the PEM block that holds a secret key: the scalar as 32 bytes, big-endian.
const SECRET_KEY_LABEL: &str = "BLS12-381 PRIVATE KEY";

/// A secret key; wiped when it is dropped.
pub struct SecretKey {
    secret: min_sig::SecretKey,
    public: PublicKey,
}

impl SecretKey {
    /// Makes a new key from 32 bytes of the operating system's random numbers, by the draft's `KeyGen`. It has nothing in
    /// common with any other key of the member, so that neither can betray the other.
    ///
    /// # Errors
    ///
    /// When the operating system gives no random numbers.
    pub fn generate() -> Result<Self, Error> {
        let mut material = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(material.as_mut()).map_err(|_| Error::Random)?;
        Self::from_material(&material)
    }

    fn from_material(material: &[u8; 32]) -> Result<Self, Error> {
        Self::new(min_sig::SecretKey::key_gen(material, &[]).map_err(unusable_secret)?)
    }

    fn new(secret: min_sig::SecretKey) -> Result<Self, Error> {
        let public = PublicKey::from_bytes(&secret.sk_to_pk().compress())?;
        Ok(Self { secret, public })
    }

    /// Reads a key as [`Self::to_pem`] writes it.
    ///
    /// # Errors
    ///
    /// When there is no such block, or it holds no number between 1 and the order of the groups.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let block = pem::blocks(text.as_bytes()).find(|block| block.label == SECRET_KEY_LABEL);
        let contents = Zeroizing::new(block.ok_or(Error::Pem { expected: SECRET_KEY_LABEL })?.contents);
        Self::new(min_sig::SecretKey::from_bytes(&contents).map_err(unusable_secret)?)
    }

    /// The key in PEM, for a file that only its owner may read.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        let contents = Zeroizing::new(self.secret.to_bytes());
        Zeroizing::new(pem::encode(SECRET_KEY_LABEL, contents.as_ref()))
    }

    /// The key that verifies.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a message, which says by its first field what it is: see [`statement`].
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature { point: self.secret.sign(message, SIGNATURE_SUITE, &[]).into() }
    }

    /// Proves that this key's owner holds it, and that it belongs to `owner`.
    #[must_use]
    pub fn prove(&self, owner: &Owner<'_>) -> Proof {
        let message = owner.message(&self.public);
        Proof(Signature { point: self.secret.sign(&message, PROOF_SUITE, &[]).into() })
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SecretKey").field("public", &self.public).finish_non_exhaustive()
    }
}

fn unusable_secret(cause: blst::BLST_ERROR) -> Error {
    Error::PrivateKey(format!("no BLS12-381 key: {cause:?}"))
}

/// A public key: a point of G2 that was validated when it was read. Copies share it.
#[derive(Clone)]
pub struct PublicKey(Arc<KeyPoint>);

struct KeyPoint {
    point: blst_p2_affine,
    bytes: [u8; PUBLIC_KEY_BYTES],
}

impl PublicKey {
    /// Reads a compressed point and validates it (the draft's `KeyValidate`): on the curve, in the subgroup, not the
    /// identity, in the one encoding that it has. Costs as much as a signature's check by tables, so keep what it returns.
    ///
    /// # Errors
    ///
    /// When it is none of these. The key still needs a [`Proof`] before it may stand in an aggregate.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let unusable = |reason: &str| Error::PublicKey(format!("no BLS12-381 key: {reason}"));
        let bytes: [u8; PUBLIC_KEY_BYTES] =
            bytes.try_into().map_err(|_| unusable("it does not have 96 bytes"))?;
        let point = group::read_p2(&bytes).ok_or_else(|| unusable("it is no valid point of the group"))?;
        Ok(Self(Arc::new(KeyPoint { point, bytes })))
    }

    /// [`Self::from_bytes`] for a key that is seen again and again, such as an endorser's: it is validated once.
    ///
    /// # Errors
    ///
    /// As [`Self::from_bytes`].
    pub fn remembered(bytes: &[u8]) -> Result<Self, Error> {
        let known = |keys: &HashMap<_, Self>| keys.get(bytes).cloned();
        if let Some(key) = known(&REMEMBERED.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(key);
        }
        let key = Self::from_bytes(bytes)?;
        let mut keys = REMEMBERED.write().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= REMEMBERED_KEYS_MAX {
            keys.clear();
        }
        keys.insert(*key.as_bytes(), key.clone());
        Ok(key)
    }

    /// The compressed point.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        &self.0.bytes
    }

    fn point(&self) -> &blst_p2_affine {
        &self.0.point
    }

    /// Whether this key signed a message.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        verify_aggregate(&[self], &HashedMessage::new(message), signature)
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.bytes == other.0.bytes
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({})", hex::encode(self.0.bytes))
    }
}

/// A signature, of one signer or a sum: a point of G1 in the subgroup, never the identity.
#[derive(Clone, Copy)]
pub struct Signature {
    point: blst_p1_affine,
}

impl Signature {
    /// Reads a compressed point. That it lies in the subgroup is part of what validity means, not an option: a point with
    /// a component of small order passes the pairing's equation, and peers that look would disagree with peers that do not.
    ///
    /// # Errors
    ///
    /// When it is not canonical, not on the curve, not in the subgroup or the identity.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let bytes = bytes.try_into().map_err(|_| Error::SignatureEncoding)?;
        group::read_p1(bytes).map(|point| Self { point }).ok_or(Error::SignatureEncoding)
    }

    /// The compressed point.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; SIGNATURE_BYTES] {
        group::write_p1(&self.point)
    }
}

impl PartialEq for Signature {
    fn eq(&self, other: &Self) -> bool {
        self.to_bytes() == other.to_bytes()
    }
}

impl Eq for Signature {}

impl fmt::Debug for Signature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Signature({})", hex::encode(self.to_bytes()))
    }
}

/// The sum of signatures. `None` when there are none, or when they cancel each other: such a sum could not be sent.
#[must_use]
pub fn aggregate<'a>(signatures: impl IntoIterator<Item = &'a Signature>) -> Option<Signature> {
    let sum = group::sum_p1(signatures.into_iter().map(|signature| &signature.point))?;
    Some(Signature { point: sum })
}

/// Whether a signature is the sum of the signatures of all keys over one message (the draft's `FastAggregateVerify`).
/// `false` without keys. Every key must have been entered with a verified [`Proof`]; a key that is named twice counts twice.
#[must_use]
pub fn verify_aggregate(keys: &[&PublicKey], message: &HashedMessage, signature: &Signature) -> bool {
    let Some(sum) = group::sum_p2(keys.iter().map(|key| key.point())) else { return false };
    group::pairings_agree(&[(&message.point(), &sum)], &signature.point)
}
