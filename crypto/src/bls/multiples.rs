//! Sums of points of the curve of G1, each multiplied with a random coefficient.
//!
//! The curve y^2 = x^3 + 4 has an endomorphism that costs one multiplication: (x, y) goes to (βx, y), for a cube root β of 1,
//! which in the subgroup is the multiplication with a cube root λ of 1 modulo its order r (Gallant, Lambert, Vanstone 2001).
//! So coefficients a + bλ with a and b of 64 bits are as many as numbers of 128 bits, for half of the doublings. They differ
//! modulo r: a + bλ = 0 modulo r would make a^2 - ab + b^2 a multiple of r, which has 255 bits, and for differences of numbers
//! of 64 bits that is below 3 * 2^128.
//!
//! Points may lie outside of the subgroup, where the endomorphism is no multiplication but commutes with all of them.

use std::sync::LazyLock;

use blst::{blst_p1, blst_p1_affine};

use super::field::Number;
use super::group;

/// Bytes of a random coefficient, of which the lowest bit is set: a wrong batch passes with a probability of 2^-127.
pub(super) const COEFFICIENT_BYTES: usize = 16;

/// Bytes of either half of it.
const HALF_BYTES: usize = COEFFICIENT_BYTES / 2;

/// Places of a half's digits, which may carry into one place more.
const PLACES: usize = 8 * HALF_BYTES + 1;

/// Odd multiples of a point that digits of [`WINDOW_BITS`] take: 1, 3, 5, 7.
const MULTIPLES: usize = 4;

/// Bits of a digit, its sign among them: of as many places, at most one is not 0.
const WINDOW_BITS: u32 = 4;

/// From this many points on, sorting multiples into buckets (Pippenger) is quicker than adding each at its place.
const BUCKETS_FROM: usize = 32;

/// Points whose multiples are made in one go: 200 KiB of them.
const POINTS_AT_ONCE: usize = 512;

/// β, of the two primitive cube roots of 1 the one that goes with λ = z^2 - 1 for the curve's parameter z.
static CUBE_ROOT: LazyLock<Number> = LazyLock::new(|| {
    Number::constant(
        "1a0111ea397fe699ec02408663d4de85aa0d857d89759ad4897d29650fb85f9b409427eb4f49fffd8bfd00000000aaac",
    )
});

/// A coefficient a + bλ.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coefficient {
    halves: [[u8; HALF_BYTES]; 2],
}

impl Coefficient {
    /// From a and b, each little-endian.
    pub(super) fn new(bytes: [u8; COEFFICIENT_BYTES]) -> Self {
        let (halves, _) = bytes.as_chunks();
        Self { halves: [halves[0], halves[1]] }
    }

    /// The digits of both halves, from the lowest place on: odd numbers from -7 to 7, and many zeros between them.
    fn digits(&self) -> [[i8; PLACES]; 2] {
        self.halves.map(|half| digits(u64::from_le_bytes(half)))
    }
}

/// A point and what it is multiplied with.
#[derive(Clone, Copy)]
pub(super) struct Term {
    pub(super) point: blst_p1_affine,
    pub(super) coefficient: Coefficient,
}

/// The non-adjacent form of a number.
fn digits(number: u64) -> [i8; PLACES] {
    let mut digits = [0; PLACES];
    let mut rest = i128::from(number);
    for digit in &mut digits {
        if rest & 1 == 1 {
            let low = (rest & 0xf) as i8;
            *digit = if low > 7 { low - (1 << WINDOW_BITS) } else { low };
            rest -= i128::from(*digit);
        }
        rest >>= 1;
    }
    digits
}

/// The sum of terms.
pub(super) fn sum(terms: &[Term]) -> blst_p1 {
    sums(&[terms]).pop().expect("invariant: every list has a sum")
}

/// The sums of lists of terms. Together, for the multiples of all points take one inversion.
pub(super) fn sums(lists: &[&[Term]]) -> Vec<blst_p1> {
    let mut sums = Vec::with_capacity(lists.len());
    let mut waiting: Vec<&[Term]> = Vec::new();
    let mut points = 0;
    for list in lists {
        if list.len() >= BUCKETS_FROM {
            sums.append(&mut sums_by_places(&waiting));
            sums.push(sum_by_buckets(list));
            (points, waiting) = (0, Vec::new());
            continue;
        }
        waiting.push(list);
        points += list.len();
        if points >= POINTS_AT_ONCE {
            sums.append(&mut sums_by_places(&waiting));
            (points, waiting) = (0, Vec::new());
        }
    }
    sums.append(&mut sums_by_places(&waiting));
    sums
}

/// The endomorphism.
fn turned(point: &blst_p1_affine) -> blst_p1_affine {
    blst_p1_affine { x: Number(point.x).times(*CUBE_ROOT).0, y: point.y }
}

fn negated(point: &blst_p1_affine) -> blst_p1_affine {
    blst_p1_affine { x: point.x, y: Number(point.y).negated().0 }
}

fn sum_by_buckets(terms: &[Term]) -> blst_p1 {
    let points = terms.iter().map(|term| term.point);
    let points: Vec<blst_p1_affine> = points.flat_map(|point| [point, turned(&point)]).collect();
    let halves: Vec<[u8; HALF_BYTES]> = terms.iter().flat_map(|term| term.coefficient.halves).collect();
    group::multiply_p1(&points, &halves)
}

/// Doubles from the highest place down, once for all points of a list, and adds the multiples at their places.
fn sums_by_places(lists: &[&[Term]]) -> Vec<blst_p1> {
    let multiples: Vec<blst_p1> = lists.iter().flat_map(|list| list.iter()).flat_map(odd_multiples).collect();
    let multiples = group::all_affine_p1(&multiples);
    let (mut of_points, _) = multiples.as_chunks::<MULTIPLES>();
    let mut sums = Vec::with_capacity(lists.len());
    for list in lists {
        let (tables, rest) = of_points.split_at(list.len());
        of_points = rest;
        let tables: Vec<_> =
            tables.iter().zip(*list).map(|(table, term)| Table::new(table, &term.coefficient)).collect();
        let mut sum = blst_p1::default();
        for place in (0..PLACES).rev() {
            group::double_p1(&mut sum);
            tables.iter().for_each(|table| table.add(&mut sum, place));
        }
        sums.push(sum);
    }
    sums
}

/// 1, 3, 5 and 7 times a point. None of them is the identity: the group's order has no factor 5 or 7, and nobody knows a
/// message that hashes to a point of order 3.
fn odd_multiples(term: &Term) -> [blst_p1; MULTIPLES] {
    let single = group::jacobian_of(&term.point);
    let mut double = single;
    group::double_p1(&mut double);
    let mut multiples = [single; MULTIPLES];
    for index in 1..MULTIPLES {
        multiples[index] = multiples[index - 1];
        group::add_p1(&mut multiples[index], &double);
    }
    multiples
}

/// What is added for a point at each place.
struct Table {
    /// The odd multiples, and their images under the endomorphism.
    multiples: [[blst_p1_affine; MULTIPLES]; 2],
    digits: [[i8; PLACES]; 2],
}

impl Table {
    fn new(multiples: &[blst_p1_affine; MULTIPLES], coefficient: &Coefficient) -> Self {
        Self { multiples: [*multiples, multiples.each_ref().map(turned)], digits: coefficient.digits() }
    }

    fn add(&self, sum: &mut blst_p1, place: usize) {
        for (multiples, digits) in self.multiples.iter().zip(&self.digits) {
            let digit = digits[place];
            if digit == 0 {
                continue;
            }
            let multiple = &multiples[usize::from(digit.unsigned_abs() / 2)];
            if digit > 0 {
                group::add_affine_p1(sum, multiple);
            } else {
                group::add_affine_p1(sum, &negated(multiple));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{SIGNATURE_SUITE, mapping};
    use super::*;

    /// λ.
    const EIGENVALUE: &str = "ac45a4010001a40200000000ffffffff";

    fn point(number: u8) -> blst_p1_affine {
        mapping::hash(&[number], SIGNATURE_SUITE)
    }

    fn bytes(point: &blst_p1) -> Option<[u8; 48]> {
        group::affine_p1(point).map(|point| group::write_p1(&point))
    }

    /// Little-endian multiples, by the library.
    fn multiple(point: &blst_p1, number: &[u8]) -> blst_p1 {
        let affine = group::affine_p1(point).unwrap();
        let mut padded = [0; 32];
        padded[..number.len()].copy_from_slice(number);
        group::multiply_p1(&[affine], &[padded])
    }

    #[test]
    fn the_endomorphism_multiplies_in_the_subgroup_and_commutes_outside() {
        let mut eigenvalue = hex::decode(EIGENVALUE).unwrap();
        eigenvalue.reverse();
        let outside = point(1);
        let inside = group::into_subgroup(&group::jacobian_of(&outside));
        let turned_inside = group::jacobian_of(&turned(&group::affine_p1(&inside).unwrap()));
        let cleared = group::into_subgroup(&group::jacobian_of(&turned(&outside)));
        assert_eq!(bytes(&cleared), bytes(&turned_inside));
        assert_eq!(bytes(&turned_inside), bytes(&multiple(&inside, &eigenvalue)));
    }

    proptest! {
        #[test]
        fn digits_stand_for_their_number(number in any::<u64>()) {
            let value = digits(number).iter().rev().fold(0_i128, |value, digit| 2 * value + i128::from(*digit));
            prop_assert_eq!(value, i128::from(number));
            prop_assert!(digits(number).iter().all(|digit| *digit == 0 || (digit % 2 != 0 && digit.abs() <= 7)));
        }
    }

    #[test]
    fn all_ways_of_adding_give_one_sum() {
        let edges =
            [1_u64, 2, 7, 8, u64::MAX, u64::MAX - 1, 1 << 63, 0x8888_8888_8888_8888, 0x7777_7777_7777_7777];
        let terms: Vec<Term> = (0..40_u8)
            .map(|number| {
                let (a, b) = (edges[usize::from(number) % 9], edges[usize::from(number / 3) % 9]);
                let halves = [a.to_le_bytes(), b.to_le_bytes()];
                // Some points twice, and one with its negative.
                let point = if number == 39 { negated(&point(0)) } else { point(number % 30) };
                Term { point, coefficient: Coefficient { halves } }
            })
            .collect();
        let slowly = |terms: &[Term]| {
            let mut sum = blst_p1::default();
            for term in terms {
                for (point, half) in [term.point, turned(&term.point)].iter().zip(term.coefficient.halves) {
                    let part = multiple(&group::jacobian_of(point), &half);
                    group::add_p1(&mut sum, &part);
                }
            }
            sum
        };
        for count in [0, 1, 2, 5, BUCKETS_FROM - 1, BUCKETS_FROM, terms.len()] {
            assert_eq!(bytes(&sum(&terms[..count])), bytes(&slowly(&terms[..count])), "{count} terms");
        }
        let lists: Vec<&[Term]> = vec![&terms[..1], &[], &terms[..35], &terms[3..9], &terms[39..]];
        let together: Vec<_> = sums(&lists).iter().map(bytes).collect();
        assert_eq!(together, lists.iter().map(|terms| bytes(&slowly(terms))).collect::<Vec<_>>());
    }
}
