//! Proofs that somebody knows the secret key to a public one.

use std::fmt;

use super::element::{Element, POINT_BYTES, Point, SCALAR_BYTES, Scalar};
use super::random::{Random, System};
use super::{Error, PublicKey, SecretKey, Suite, hash};

/// A proof of knowledge of a secret key (Schnorr 1991, made non-interactive by hashing), bound to a context.
#[derive(Clone, PartialEq, Eq)]
pub struct Proof {
    point: Point,
    response: Scalar,
}

impl Proof {
    /// Bytes of a proof.
    pub const BYTES: usize = POINT_BYTES + SCALAR_BYTES;

    /// The point, then the response (32 bytes, big-endian).
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..POINT_BYTES].copy_from_slice(self.point.as_bytes());
        bytes[POINT_BYTES..].copy_from_slice(&self.response.to_bytes());
        bytes
    }

    /// Reads a proof, without [verifying](Self::verify) it.
    ///
    /// # Errors
    ///
    /// Another length; a point or a number that is not canonical.
    pub fn from_bytes(suite: Suite, bytes: &[u8]) -> Result<Self, Error> {
        let Some((point, response)) =
            bytes.split_at_checked(POINT_BYTES).filter(|_| bytes.len() == Self::BYTES)
        else {
            return Err(Error::Length { kind: "a proof", length: bytes.len(), expected: Self::BYTES });
        };
        let point = Point::from_bytes(suite, point)?;
        Ok(Self { point, response: Scalar::from_bytes(suite, response)? })
    }

    /// Verifies that whoever made the proof for this context knew the secret key.
    ///
    /// # Errors
    ///
    /// [`Error::Knowledge`] when not; [`Error::Suites`] when key and proof are of different suites.
    pub fn verify(&self, public: &PublicKey, context: &[u8]) -> Result<(), Error> {
        let suite = public.suite();
        if self.point.suite() != suite {
            return Err(Error::Suites);
        }
        let terms = [
            (Element::generator(suite), self.response.negated()),
            (*self.point.element(), Scalar::from_index(suite, 1)),
            (*public.point().element(), challenge(public, &self.point, context)),
        ];
        if Element::public_sum_vanishes(suite, &terms) { Ok(()) } else { Err(Error::Knowledge) }
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Proof({})", hex::encode(self.to_bytes()))
    }
}

fn challenge(public: &PublicKey, point: &Point, context: &[u8]) -> Scalar {
    hash::to_scalar(public.suite(), "knowledge", &[public.point().as_bytes(), point.as_bytes(), context])
}

/// Proves knowledge of a secret key for a context (the place where the public key is registered, say).
///
/// # Errors
///
/// When the operating system gives no random numbers.
pub fn prove_knowledge(secret: &SecretKey, context: &[u8]) -> Result<Proof, Error> {
    prove_knowledge_with(&mut System, secret, context)
}

pub(super) fn prove_knowledge_with(
    random: &mut dyn Random,
    secret: &SecretKey,
    context: &[u8],
) -> Result<Proof, Error> {
    let blind = random.scalar(secret.suite())?;
    let point = Element::generated(&blind).to_point()?;
    let challenge = challenge(&secret.public_key(), &point, context);
    Ok(Proof { point, response: blind.plus(&challenge.times(secret.scalar())) })
}
