//! The right to read, split among proxies.

use std::fmt;

use zeroize::Zeroizing;

use super::element::{POINT_BYTES, Point, SCALAR_BYTES, Scalar, one_suite};
use super::random::{Random, System};
use super::{Error, PublicKey, SecretKey, Suite, hash};

/// Proxies of one grant at most: more organisations than a consortium has.
pub const PROXIES_MAX: u16 = 256;

/// Bytes of a share's number.
pub(super) const INDEX_BYTES: usize = 2;

/// A proxy's part of the right to read; wiped when dropped. Whoever holds as many as the threshold, together with the reader's
/// secret key, can compute the owner's secret key.
pub struct Share {
    index: u16,
    pub(super) scalar: Zeroizing<Scalar>,
}

impl Share {
    /// Bytes of a share.
    pub const BYTES: usize = INDEX_BYTES + SCALAR_BYTES;

    /// The proxy's number in the grant, counted from 1.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// The suite.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.scalar.suite()
    }

    /// The number (2 bytes, big-endian), then the secret (32 bytes, big-endian).
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; Self::BYTES]> {
        let mut bytes = Zeroizing::new([0; Self::BYTES]);
        bytes[..INDEX_BYTES].copy_from_slice(&self.index.to_be_bytes());
        bytes[INDEX_BYTES..].copy_from_slice(&self.scalar.to_bytes());
        bytes
    }

    /// Reads a share. Whether it belongs to a grant, [`matches`](Self::matches) says.
    ///
    /// # Errors
    ///
    /// Another length; number 0; a secret that is zero or not below the group's order.
    pub fn from_bytes(suite: Suite, bytes: &[u8]) -> Result<Self, Error> {
        let Some((index, scalar)) = bytes.split_first_chunk().filter(|_| bytes.len() == Self::BYTES) else {
            return Err(Error::Length { kind: "a share", length: bytes.len(), expected: Self::BYTES });
        };
        let index = u16::from_be_bytes(*index);
        if index == 0 {
            return Err(Error::Index { index });
        }
        Ok(Self { index, scalar: Zeroizing::new(Scalar::from_bytes(suite, scalar)?) })
    }

    /// Whether the share is the one that the owner committed to.
    #[must_use]
    pub fn matches(&self, commitment: &Point) -> bool {
        self.suite() == commitment.suite() && self.commitment().is_ok_and(|own| own == *commitment)
    }

    /// The share's multiple of the second generator: public, and tells nothing about the share.
    pub(super) fn commitment(&self) -> Result<Point, Error> {
        Point::second_generator(self.suite()).element().times(&self.scalar).to_point()
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Share").field("index", &self.index).finish_non_exhaustive()
    }
}

/// What an owner makes for a grant.
#[derive(Debug)]
pub struct Split {
    /// One for each proxy, by its number; each is for that proxy alone.
    pub shares: Vec<Share>,
    /// The owner's Diffie-Hellman point for this grant; public.
    pub ephemeral: Point,
    /// What each share is held to, in the order of the shares; public.
    pub commitments: Vec<Point>,
}

/// What owner and reader know about a grant, and nobody else.
pub(super) struct GrantSecret {
    /// The factor between the owner's key and the polynomial's first coefficient.
    pub(super) factor: Zeroizing<Scalar>,
    /// Places the proxies' points, so that even all proxies together cannot interpolate.
    places: Zeroizing<[u8; 32]>,
    suite: Suite,
}

/// What the two Diffie-Hellman secrets of a grant are bound to.
pub(super) struct GrantKeys<'a> {
    pub(super) owner: &'a PublicKey,
    pub(super) reader: &'a PublicKey,
    pub(super) ephemeral: &'a Point,
    pub(super) grant: &'a [u8],
}

impl GrantSecret {
    /// Takes the secrets between ephemeral and reader, and between owner and reader.
    pub(super) fn new(
        keys: &GrantKeys<'_>,
        with_ephemeral: &[u8; POINT_BYTES],
        with_owner: &[u8; POINT_BYTES],
    ) -> Self {
        let suite = keys.owner.suite();
        let (owner, reader) = (keys.owner.point().as_bytes(), keys.reader.point().as_bytes());
        let parts = [keys.ephemeral.as_bytes(), reader, with_ephemeral, keys.grant];
        let factor = Zeroizing::new(hash::to_scalar(suite, "factor", &parts));
        let mut places = Zeroizing::new([0; 32]);
        hash::expand(suite, "places", &[owner, reader, with_owner, keys.grant], places.as_mut());
        Self { factor, places, suite }
    }

    /// Where the polynomial is evaluated for a proxy.
    pub(super) fn place(&self, index: u16) -> Zeroizing<Scalar> {
        let parts: [&[u8]; 2] = [&index.to_be_bytes(), self.places.as_ref()];
        Zeroizing::new(hash::to_scalar(self.suite, "place", &parts))
    }
}

/// Splits the right to read an owner's records among proxies, for one reader: `threshold` of them are needed. `grant` names the
/// grant; nothing made for it works for another.
///
/// # Errors
///
/// A threshold of 0 or above the number of proxies, more than [`PROXIES_MAX`] proxies, keys of different suites, no random
/// numbers.
pub fn split(
    owner: &SecretKey,
    reader: &PublicKey,
    threshold: u16,
    proxies: u16,
    grant: &[u8],
) -> Result<Split, Error> {
    split_with(&mut System, owner, reader, (threshold, proxies), grant)
}

pub(super) fn split_with(
    random: &mut dyn Random,
    owner: &SecretKey,
    reader: &PublicKey,
    (threshold, proxies): (u16, u16),
    grant: &[u8],
) -> Result<Split, Error> {
    let suite = one_suite(&[owner.suite(), reader.suite()])?;
    if threshold == 0 || threshold > proxies || proxies > PROXIES_MAX {
        return Err(Error::Threshold { threshold, proxies });
    }
    let ephemeral_key = SecretKey::generate_with(random, suite)?;
    let ephemeral = *ephemeral_key.public_key().point();
    let keys = GrantKeys { owner: &owner.public_key(), reader, ephemeral: &ephemeral, grant };
    let secret =
        GrantSecret::new(&keys, &*ephemeral_key.shared(reader.point())?, &*owner.shared(reader.point())?);
    let inverse = Zeroizing::new(secret.factor.inverted()?);
    let mut coefficients = vec![Zeroizing::new(owner.scalar().times(&inverse))];
    for _ in 1..threshold {
        coefficients.push(random.scalar(suite)?);
    }
    let share = |index| Share { index, scalar: evaluate(&coefficients, &secret.place(index)) };
    let shares: Vec<Share> = (1..=proxies).map(share).collect();
    let commitments = shares.iter().map(Share::commitment).collect::<Result<_, _>>()?;
    Ok(Split { shares, ephemeral, commitments })
}

/// The polynomial's value at a place, by Horner's rule. The first coefficient is the constant one.
fn evaluate(coefficients: &[Zeroizing<Scalar>], place: &Scalar) -> Zeroizing<Scalar> {
    let zero = Scalar::from_index(place.suite(), 0);
    let step = |value: Zeroizing<Scalar>, coefficient: &Zeroizing<Scalar>| {
        Zeroizing::new(value.times(place).plus(coefficient))
    };
    coefficients.iter().rev().fold(Zeroizing::new(zero), step)
}

/// The weights by which values at places add up to the value at zero (Lagrange).
pub(super) fn weights(places: &[Zeroizing<Scalar>]) -> Result<Vec<Zeroizing<Scalar>>, Error> {
    let weight = |own: usize| {
        let suite = places[own].suite();
        let mut numerator = Zeroizing::new(Scalar::from_index(suite, 1));
        let mut denominator = numerator.clone();
        for (other, place) in places.iter().enumerate().filter(|(other, _)| *other != own) {
            debug_assert_ne!(other, own);
            *numerator = numerator.times(place);
            *denominator = denominator.times(&place.minus(&places[own]));
        }
        Ok(Zeroizing::new(numerator.times(&denominator.inverted()?)))
    };
    (0..places.len()).map(weight).collect()
}
