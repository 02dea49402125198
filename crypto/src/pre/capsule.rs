//! Records that are sealed for their owner.

use zeroize::Zeroizing;

use super::cipher::MessageKey;
use super::element::{Element, POINT_BYTES, Point, SCALAR_BYTES, Scalar, one_suite};
use super::random::{Random, System};
use super::{Error, PublicKey, SecretKey, Suite, hash};

/// What carries the key of a record: two points (E = r G and V = u G) and a number (s = u + r h) by which anybody checks that
/// whoever made them knew r and u, and made them for this record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capsule {
    pub(super) e: Point,
    pub(super) v: Point,
    check: Check,
}

/// The capsule's number; a type of its own so that `Debug` shows bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Check(Scalar);

impl std::fmt::Debug for Check {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&hex::encode(self.0.to_bytes()))
    }
}

/// A sealed record: both parts may be public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Carries the key.
    pub capsule: Capsule,
    /// The record, encrypted; 16 bytes longer than the plaintext.
    pub ciphertext: Vec<u8>,
}

impl Capsule {
    /// Bytes of a capsule.
    pub const BYTES: usize = 2 * POINT_BYTES + SCALAR_BYTES;

    /// Both points, then the number.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..POINT_BYTES].copy_from_slice(self.e.as_bytes());
        bytes[POINT_BYTES..2 * POINT_BYTES].copy_from_slice(self.v.as_bytes());
        bytes[2 * POINT_BYTES..].copy_from_slice(&self.check.0.to_bytes());
        bytes
    }

    /// Reads a capsule, without [checking](Self::check) it.
    ///
    /// # Errors
    ///
    /// Another length; points or a number that are not canonical.
    pub fn from_bytes(suite: Suite, bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() != Self::BYTES {
            return Err(Error::Length { kind: "a capsule", length: bytes.len(), expected: Self::BYTES });
        }
        Ok(Self {
            e: Point::from_bytes(suite, &bytes[..POINT_BYTES])?,
            v: Point::from_bytes(suite, &bytes[POINT_BYTES..2 * POINT_BYTES])?,
            check: Check(Scalar::from_bytes(suite, &bytes[2 * POINT_BYTES..])?),
        })
    }

    /// The suite.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.e.suite()
    }

    /// Checks that the capsule was made for the record that `aux` names, and not changed since.
    ///
    /// # Errors
    ///
    /// [`Error::Capsule`] when it was not; [`Error::Suites`] never, as a capsule is of one suite.
    pub fn check(&self, aux: &[u8]) -> Result<(), Error> {
        let suite = self.suite();
        let h = challenge(&self.e, &self.v, aux);
        let terms = [
            (Element::generator(suite), self.check.0.negated()),
            (*self.v.element(), Scalar::from_index(suite, 1)),
            (*self.e.element(), h),
        ];
        if Element::public_sum_vanishes(suite, &terms) { Ok(()) } else { Err(Error::Capsule) }
    }

    /// The key of the record's ciphertext from the capsule's secret.
    pub(super) fn message_key(&self, secret: &Element) -> Result<MessageKey, Error> {
        let secret = Zeroizing::new(secret.to_point()?.to_bytes());
        let parts = [self.e.as_bytes(), self.v.as_bytes()];
        Ok(MessageKey::derive(self.suite(), "record", secret.as_ref(), &parts))
    }

    /// What the ciphertext is bound to.
    pub(super) fn associated(&self, aux: &[u8]) -> Vec<u8> {
        [&self.to_bytes(), aux].concat()
    }
}

fn challenge(e: &Point, v: &Point, aux: &[u8]) -> Scalar {
    hash::to_scalar(e.suite(), "capsule", &[e.as_bytes(), v.as_bytes(), aux])
}

/// Seals a record for the owner of a domain's key. Nobody needs to be asked, and only the public key is needed.
///
/// `aux` names the record (its channel, namespace, key and version, say): a capsule that is moved to another one is refused.
///
/// # Errors
///
/// When the operating system gives no random numbers, or the plaintext has more than 64 GiB.
pub fn seal(owner: &PublicKey, aux: &[u8], plaintext: &[u8]) -> Result<Sealed, Error> {
    seal_with(&mut System, owner, aux, plaintext)
}

pub(super) fn seal_with(
    random: &mut dyn Random,
    owner: &PublicKey,
    aux: &[u8],
    plaintext: &[u8],
) -> Result<Sealed, Error> {
    let suite = owner.suite();
    let (r, u) = (random.scalar(suite)?, random.scalar(suite)?);
    let (e, v) = (Element::generated(&r).to_point()?, Element::generated(&u).to_point()?);
    let check = Check(u.plus(&r.times(&challenge(&e, &v, aux))));
    let capsule = Capsule { e, v, check };
    let sum = Zeroizing::new(r.plus(&u));
    let secret = Zeroizing::new(owner.point().element().times(&sum));
    let ciphertext = capsule.message_key(&secret)?.seal(&capsule.associated(aux), plaintext)?;
    Ok(Sealed { capsule, ciphertext })
}

/// Opens a record with its owner's key.
///
/// # Errors
///
/// The capsule is not for this record; key and capsule are of different suites; the key or the ciphertext is another one.
pub fn open_own(
    owner: &SecretKey,
    aux: &[u8],
    capsule: &Capsule,
    ciphertext: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    one_suite(&[owner.suite(), capsule.suite()])?;
    capsule.check(aux)?;
    let both = capsule.e.element().plus(capsule.v.element());
    let secret = Zeroizing::new(both.times(owner.scalar()));
    capsule.message_key(&secret)?.open(&capsule.associated(aux), ciphertext)
}
