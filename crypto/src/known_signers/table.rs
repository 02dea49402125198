//! Multiples of a point, so that a scalar multiplication takes additions only.

use super::curve::{Affine, Curve, Jacobian};
use super::field::Limbs;

/// For every window of a scalar the multiples 1 to 2^(window - 1) of the point at that place.
#[derive(Debug)]
pub(super) struct Table<C: Curve> {
    window_bits: u32,
    points: Vec<Affine<C>>,
}

impl<C: Curve> Table<C> {
    /// Bytes of a table, without the few of its head.
    pub(super) const fn bytes(window_bits: u32) -> usize {
        windows(window_bits) * multiples(window_bits) * size_of::<Affine<C>>()
    }

    /// Builds a table: 4 bits take 33 KiB and a third of a millisecond, 6 bits 86 KiB, 8 bits 264 KiB.
    pub(super) fn new(point: &Affine<C>, window_bits: u32) -> Self {
        let mut base = Jacobian::from_affine(point);
        let mut bases = Vec::with_capacity(windows(window_bits));
        for _ in 0..windows(window_bits) {
            bases.push(base);
            for _ in 0..window_bits {
                base = base.doubled();
            }
        }
        let mut points = Vec::with_capacity(windows(window_bits) * multiples(window_bits));
        for base in Jacobian::to_affine(&bases) {
            let mut multiple = Jacobian::INFINITY;
            for _ in 0..multiples(window_bits) {
                multiple = multiple.plus(&base, false);
                points.push(multiple);
            }
        }
        Self { window_bits, points: Jacobian::to_affine(&points) }
    }

    /// Points that a multiple is at most the sum of.
    pub(super) fn windows(&self) -> usize {
        windows(self.window_bits)
    }

    /// Appends points whose sum is scalar * point.
    pub(super) fn append_multiple(&self, points: &mut Vec<Affine<C>>, scalar: Limbs) {
        let half = multiples(self.window_bits) as u64;
        let mut carry = 0;
        for (window, row) in self.points.chunks_exact(multiples(self.window_bits)).enumerate() {
            let digit = bits(scalar, window as u32 * self.window_bits, self.window_bits) + carry;
            // Digits above half of the window count down from the next one.
            let negative = digit > half;
            carry = u64::from(negative);
            let magnitude = if negative { 2 * half - digit } else { digit };
            if magnitude > 0 {
                let Affine { x, y } = row[magnitude as usize - 1];
                points.push(Affine { x, y: if negative { y.negated() } else { y } });
            }
        }
    }
}

/// Windows of a scalar of 256 bits, with room for the last one's carry.
const fn windows(window_bits: u32) -> usize {
    256 / window_bits as usize + 1
}

const fn multiples(window_bits: u32) -> usize {
    1 << (window_bits - 1)
}

/// Bits of a scalar from a place; beyond its end they are 0.
fn bits(scalar: Limbs, from: u32, count: u32) -> u64 {
    let limb = |index: usize| scalar.get(index).copied().unwrap_or(0);
    let (index, shift) = (from as usize / 64, from % 64);
    let mut value = limb(index) >> shift;
    if shift + count > 64 {
        value |= limb(index + 1) << (64 - shift);
    }
    value & ((1 << count) - 1)
}

#[cfg(test)]
mod tests {
    use super::super::curve::P256;
    use super::super::sums::Sums;
    use super::*;

    /// By doubling and adding, the way of the textbook.
    fn slowly(point: &Affine<P256>, scalar: Limbs) -> Jacobian<P256> {
        (0..256).rev().fold(Jacobian::INFINITY, |sum, bit| {
            let doubled = sum.doubled();
            if bits(scalar, bit, 1) == 1 { doubled.plus(point, false) } else { doubled }
        })
    }

    #[test]
    fn every_window_gives_the_textbooks_multiple() {
        let point = Affine::<P256>::generator();
        let scalars = [
            [0, 0, 0, 0],
            [1, 0, 0, 0],
            [8, 0, 0, 0],
            [u64::MAX; 4],
            [0x8888_8888_8888_8888; 4],
            [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210, 0x0f1e_2d3c_4b5a_6978, 0x8796_a5b4_c3d2_e1f0],
        ];
        for window_bits in [4, 5, 6, 8] {
            let table = Table::new(&point, window_bits);
            assert_eq!(table.points.len() * size_of::<Affine<P256>>(), Table::<P256>::bytes(window_bits));
            for scalar in scalars {
                let mut sums = Sums::with_capacity(table.windows());
                sums.list(|points| table.append_multiple(points, scalar));
                let (fast, slow) = (sums.add_up()[0], slowly(&point, scalar));
                assert_eq!(fast.is_infinity(), slow.is_infinity(), "{window_bits} {scalar:x?}");
                if !slow.is_infinity() {
                    let [fast, slow] = [fast, slow].map(|sum| Jacobian::to_affine(&[sum])[0]);
                    assert_eq!((fast.x, fast.y), (slow.x, slow.y), "{window_bits} {scalar:x?}");
                }
            }
        }
    }
}
