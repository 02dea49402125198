//! Signatures that were found good a moment ago.
//!
//! A peer meets most signatures twice within a second: a proposal's at the gateway and at its endorser, an endorsement's at the
//! gateway and in the block. Whether one holds is a fact about public values that nothing changes, so the second look may
//! answer from memory. Only good ones are kept, and all that the fact is about is compared: a place taken by another signature
//! costs a verification, never a verdict.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use super::Numbers;

/// Signatures that are remembered: those of some thousand transactions on their way to a block. Two megabytes.
const PLACES: usize = 8192;

/// A curve's uncompressed point, without its first byte.
const POINT_BYTES: usize = 64;

/// What verified: by which key, over which digest, which numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Fact {
    point: [u8; POINT_BYTES],
    digest: [u8; 32],
    r: [u8; 32],
    s: [u8; 32],
}

impl Fact {
    fn new(point: &[u8], digest: &[u8; 32], numbers: &Numbers) -> Option<Self> {
        let (&4, point) = point.split_first()? else { return None };
        Some(Self { point: point.try_into().ok()?, digest: *digest, r: numbers.r, s: numbers.s })
    }
}

/// Good signatures of one curve, each in the place that its digest gives it; the last one stays.
pub(crate) struct Remembered {
    places: Box<[Mutex<Option<Fact>>]>,
    /// Secret of this process, so that nobody can choose a digest that drives out another's.
    state: RandomState,
}

impl std::fmt::Debug for Remembered {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Remembered").field("places", &self.places.len()).finish_non_exhaustive()
    }
}

impl Remembered {
    pub(super) fn new() -> Self {
        Self { places: (0..PLACES).map(|_| Mutex::default()).collect(), state: RandomState::new() }
    }

    /// The verdict over a signature: from memory if it was found good, else by `verify`.
    ///
    /// # Errors
    /// That of `verify`.
    pub(crate) fn verify<E>(
        &self,
        point: &[u8],
        digest: &[u8; 32],
        numbers: &Numbers,
        verify: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(fact) = Fact::new(point, digest, numbers) else { return verify() };
        let place = usize::try_from(self.state.hash_one(digest) % PLACES as u64)
            .expect("invariant: there are fewer places");
        let known = *self.places[place].lock().unwrap_or_else(PoisonError::into_inner);
        if known == Some(fact) {
            return Ok(());
        }
        verify()?;
        *self.places[place].lock().unwrap_or_else(PoisonError::into_inner) = Some(fact);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Result<(), &str> = Ok(());
    const BAD: Result<(), &str> = Err("bad");

    fn numbers() -> Numbers {
        Numbers { r: [1; 32], s: [2; 32] }
    }

    #[test]
    fn a_good_signature_is_verified_once() {
        let remembered = Remembered::new();
        assert_eq!(remembered.verify(&[4; 65], &[7; 32], &numbers(), || GOOD), Ok(()));
        assert_eq!(remembered.verify(&[4; 65], &[7; 32], &numbers(), || BAD), Ok(()));
    }

    #[test]
    fn a_bad_signature_is_verified_each_time() {
        let remembered = Remembered::new();
        assert_eq!(remembered.verify(&[4; 65], &[7; 32], &numbers(), || BAD), BAD);
        assert_eq!(remembered.verify(&[4; 65], &[7; 32], &numbers(), || BAD), BAD);
        assert_eq!(remembered.verify(&[4; 65], &[7; 32], &numbers(), || GOOD), GOOD);
    }

    #[test]
    fn another_key_digest_or_number_is_another_signature() {
        let remembered = Remembered::new();
        assert_eq!(remembered.verify(&[4; 65], &[7; 32], &numbers(), || GOOD), GOOD);
        let mut point = [4; 65];
        point[64] = 5;
        assert_eq!(remembered.verify(&point, &[7; 32], &numbers(), || BAD), BAD);
        assert_eq!(remembered.verify(&[4; 65], &[8; 32], &numbers(), || BAD), BAD);
        for changed in [Numbers { r: [9; 32], ..numbers() }, Numbers { s: [9; 32], ..numbers() }] {
            assert_eq!(remembered.verify(&[4; 65], &[7; 32], &changed, || BAD), BAD);
        }
    }

    #[test]
    fn what_is_no_uncompressed_point_is_never_remembered() {
        let remembered = Remembered::new();
        for point in [&[][..], &[2; 33], &[3; 65], &[4; 64], &[4; 66]] {
            assert_eq!(remembered.verify(point, &[7; 32], &numbers(), || GOOD), GOOD);
            assert_eq!(remembered.verify(point, &[7; 32], &numbers(), || BAD), BAD);
        }
    }
}
