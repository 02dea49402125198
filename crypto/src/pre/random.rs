//! Where random numbers come from.

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::element::Scalar;
use super::{Error, Suite};

/// A source of random bytes. An implementation's bytes are unpredictable, except for those of the tests that fix vectors.
pub(super) trait Random {
    /// Fills a buffer.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error>;

    /// A scalar, other than zero, with a bias below 2^-128.
    fn scalar(&mut self, suite: Suite) -> Result<Zeroizing<Scalar>, Error> {
        let mut bytes = Zeroizing::new([0; 48]);
        self.fill(bytes.as_mut())?;
        let scalar = Zeroizing::new(Scalar::from_wide(suite, &bytes));
        // One in 2^256: a source that returns zeros all the time is broken, and another try would not mend it.
        if scalar.is_zero() { Err(Error::Random) } else { Ok(scalar) }
    }
}

/// The operating system's.
pub(super) struct System;

impl Random for System {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        SystemRandom::new().fill(bytes).map_err(|_| Error::Random)
    }
}
