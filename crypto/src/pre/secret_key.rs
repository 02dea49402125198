//! Keys of domains, readers and proxies. They seal and open; they never sign.

use std::fmt;

use zeroize::Zeroizing;

use super::element::{Element, Point, SCALAR_BYTES, Scalar};
use super::random::{Random, System};
use super::{Error, Suite, hash};

/// The secret key of a domain, a reader or a proxy; wiped when dropped.
pub struct SecretKey {
    scalar: Zeroizing<Scalar>,
    public: PublicKey,
}

impl SecretKey {
    /// Makes a new key.
    ///
    /// # Errors
    ///
    /// When the operating system gives no random numbers.
    pub fn generate(suite: Suite) -> Result<Self, Error> {
        Self::generate_with(&mut System, suite)
    }

    pub(super) fn generate_with(random: &mut dyn Random, suite: Suite) -> Result<Self, Error> {
        Self::new(random.scalar(suite)?)
    }

    /// Derives the key of a purpose (a domain, say) from a master secret with HKDF (RFC 5869): the same every time, and useless
    /// for finding the master secret or the key of another purpose.
    ///
    /// # Errors
    ///
    /// With a probability of 2^-256, when the purpose has no key.
    pub fn derive(suite: Suite, master: &[u8; 32], purpose: &[u8]) -> Result<Self, Error> {
        let mut wide = Zeroizing::new([0; 48]);
        hash::derive(suite, "secret key", master, &[purpose], wide.as_mut());
        Self::new(Zeroizing::new(Scalar::from_wide(suite, &wide)))
    }

    fn new(scalar: Zeroizing<Scalar>) -> Result<Self, Error> {
        let public = PublicKey(Element::generated(&scalar).to_point()?);
        Ok(Self { scalar, public })
    }

    /// Reads 32 big-endian bytes.
    ///
    /// # Errors
    ///
    /// Another length; zero; a number that is not below the group's order.
    pub fn from_bytes(suite: Suite, bytes: &[u8]) -> Result<Self, Error> {
        Self::new(Zeroizing::new(Scalar::from_bytes(suite, bytes)?))
    }

    /// The number, as 32 big-endian bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; SCALAR_BYTES]> {
        Zeroizing::new(self.scalar.to_bytes())
    }

    /// The key that belongs to it.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.public
    }

    /// The suite.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.public.suite()
    }

    pub(super) fn scalar(&self) -> &Scalar {
        &self.scalar
    }

    /// The Diffie-Hellman secret with a point, encoded.
    pub(super) fn shared(
        &self,
        point: &Point,
    ) -> Result<Zeroizing<[u8; super::element::POINT_BYTES]>, Error> {
        let element = Zeroizing::new(point.element().times(&self.scalar));
        Ok(Zeroizing::new(element.to_point()?.to_bytes()))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SecretKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// The public key of a domain, a reader or a proxy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(Point);

impl PublicKey {
    /// Reads a compressed point (SEC 1 section 2.3.4).
    ///
    /// # Errors
    ///
    /// As [`Point::from_bytes`].
    pub fn from_bytes(suite: Suite, bytes: &[u8]) -> Result<Self, Error> {
        Point::from_bytes(suite, bytes).map(Self)
    }

    /// The compressed point: 33 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; super::element::POINT_BYTES] {
        self.0.to_bytes()
    }

    /// The suite.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.0.suite()
    }

    pub(super) fn point(&self) -> &Point {
        &self.0
    }
}

impl From<Point> for PublicKey {
    fn from(point: Point) -> Self {
        Self(point)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({}, {})", self.suite().name(), hex::encode(self.to_bytes()))
    }
}
