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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fact {
    point: [u8; POINT_BYTES],
    digest: [u8; 32],
    r: [u8; 32],
    s: [u8; 32],
}

impl Fact {
    pub(super) fn new(point: &[u8], digest: &[u8; 32], numbers: &Numbers) -> Option<Self> {
        let (&4, point) = point.split_first()? else { return None };
        Some(Self { point: point.try_into().ok()?, digest: *digest, r: numbers.r, s: numbers.s })
    }
}

/// Good signatures of one curve, each in the place that its digest gives it; the last one stays.
pub(super) struct Remembered {
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

    /// Whether this was found good, and its place was not taken since.
    pub(super) fn holds(&self, fact: &Fact) -> bool {
        let known = *self.place(fact).lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref() == Some(fact)
    }

    /// Remembers what was found good.
    pub(super) fn keep(&self, fact: &Fact) {
        *self.place(fact).lock().unwrap_or_else(PoisonError::into_inner) = Some(*fact);
    }

    fn place(&self, fact: &Fact) -> &Mutex<Option<Fact>> {
        let place = usize::try_from(self.state.hash_one(fact.digest) % PLACES as u64)
            .expect("invariant: there are fewer places");
        &self.places[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers() -> Numbers {
        Numbers { r: [1; 32], s: [2; 32] }
    }

    #[test]
    fn what_was_kept_holds_and_nothing_beside_it() {
        let remembered = Remembered::new();
        let good = Fact::new(&[4; 65], &[7; 32], &numbers()).unwrap();
        assert!(!remembered.holds(&good));
        remembered.keep(&good);
        assert!(remembered.holds(&good));
        let mut point = [4; 65];
        point[64] = 5;
        let others = [
            Fact::new(&point, &[7; 32], &numbers()),
            Fact::new(&[4; 65], &[8; 32], &numbers()),
            Fact::new(&[4; 65], &[7; 32], &Numbers { r: [9; 32], ..numbers() }),
            Fact::new(&[4; 65], &[7; 32], &Numbers { s: [9; 32], ..numbers() }),
        ];
        for other in others {
            assert!(!remembered.holds(&other.unwrap()));
        }
    }

    #[test]
    fn the_last_one_keeps_a_place() {
        let remembered = Remembered::new();
        let [first, second] =
            [[1; 32], [3; 32]].map(|r| Fact::new(&[4; 65], &[7; 32], &Numbers { r, s: [2; 32] }).unwrap());
        remembered.keep(&first);
        remembered.keep(&second);
        assert!(remembered.holds(&second) && !remembered.holds(&first));
    }

    #[test]
    fn what_is_no_uncompressed_point_is_never_remembered() {
        for point in [&[][..], &[2; 33], &[3; 65], &[4; 64], &[4; 66]] {
            assert!(Fact::new(point, &[7; 32], &numbers()).is_none());
        }
    }
}
