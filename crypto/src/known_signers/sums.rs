//! Sums of many points at once, with shared inversions.
//!
//! Adding two affine points takes one inversion, two products and a square; with projective coordinates it takes no inversion
//! but eleven products. Inverting many numbers together costs three products each besides one inversion (Montgomery's trick).
//! So all points of all sums are added pair by pair, a layer at a time, each layer with one inversion for all its pairs; the few
//! that are left are added with projective coordinates.
//!
//! Points may be equal, opposite or infinite (whoever chooses keys and signatures can bring that about): such a pair gets a
//! divisor of its own that is never 0, so that it cannot spoil the others' inverses.

use super::curve::{Affine, Coordinate, Curve, Jacobian};
use super::inverse::inverted;

/// Pairs of a layer for which an inversion pays: it costs as much as sixteen additions save by it.
const PAIRS_MIN: usize = 16;

/// Lists of points, each to be added up.
#[derive(Debug)]
pub(super) struct Sums<C: Curve> {
    points: Vec<Affine<C>>,
    /// Where each list ends.
    ends: Vec<usize>,
}

impl<C: Curve> Sums<C> {
    /// No lists, with room for points.
    pub(super) fn with_capacity(points: usize) -> Self {
        Self { points: Vec::with_capacity(points), ends: Vec::new() }
    }

    /// Takes one more list, which `fill` appends.
    pub(super) fn list(&mut self, fill: impl FnOnce(&mut Vec<Affine<C>>)) {
        fill(&mut self.points);
        self.ends.push(self.points.len());
    }

    /// The sum of each list, in their order.
    pub(super) fn add_up(mut self) -> Vec<Jacobian<C>> {
        while self.pairs() >= PAIRS_MIN {
            self.halve();
        }
        let mut from = 0;
        let sum = |end: &usize| {
            let list = &self.points[from..*end];
            from = *end;
            list.iter().fold(Jacobian::INFINITY, |sum, point| {
                if point.is_infinity() { sum } else { sum.plus(point, false) }
            })
        };
        self.ends.iter().map(sum).collect()
    }

    fn pairs(&self) -> usize {
        let mut from = 0;
        let mut pairs = 0;
        for end in &self.ends {
            pairs += (end - from) / 2;
            from = *end;
        }
        pairs
    }

    /// Adds up the pairs of neighbours in each list; the last point of an odd list stays.
    fn halve(&mut self) {
        let mut products = Vec::with_capacity(self.points.len() / 2);
        let mut product = Coordinate::<C>::ONE;
        let mut from = 0;
        let mut halves = Vec::with_capacity(self.ends.len());
        let mut left = 0;
        for end in &self.ends {
            for pair in self.points[from..*end].chunks_exact(2) {
                products.push(product);
                product = product.times(divisor(&pair[0], &pair[1]));
            }
            left += (end - from).div_ceil(2);
            halves.push(left);
            from = *end;
        }
        // From the last pair to the first: `inverse` is that of the product of all divisors up to the pair.
        let mut inverse = inverted(product);
        let mut sums = vec![Affine::INFINITY; left];
        let mut places = sums.iter_mut().rev();
        for list in (0..self.ends.len()).rev() {
            let from = list.checked_sub(1).map_or(0, |before| self.ends[before]);
            for pair in self.points[from..self.ends[list]].chunks(2).rev() {
                let place = places
                    .next()
                    .expect("invariant: there is a place for each pair and each point left over");
                let [first, second] = pair else {
                    *place = pair[0];
                    continue;
                };
                let before = products.pop().expect("invariant: there is a product for each pair");
                *place = sum(first, second, inverse.times(before));
                inverse = inverse.times(divisor(first, second));
            }
        }
        (self.points, self.ends) = (sums, halves);
    }
}

/// What the slope of the line through two points is divided by; 1 where there is none. Never 0: no point has y = 0, as the
/// group's order is odd.
#[inline(always)]
fn divisor<C: Curve>(first: &Affine<C>, second: &Affine<C>) -> Coordinate<C> {
    if first.is_infinity() || second.is_infinity() {
        return Coordinate::<C>::ONE;
    }
    let difference = second.x.minus(first.x);
    if !difference.is_zero() {
        difference
    } else if first.y == second.y {
        first.y.twice()
    } else {
        Coordinate::<C>::ONE
    }
}

/// The sum of two points, given the inverse of their divisor.
#[inline(always)]
fn sum<C: Curve>(first: &Affine<C>, second: &Affine<C>, inverse: Coordinate<C>) -> Affine<C> {
    if first.is_infinity() {
        return *second;
    }
    if second.is_infinity() {
        return *first;
    }
    let slope = if first.x != second.x {
        second.y.minus(first.y).times(inverse)
    } else if first.y == second.y {
        // The tangent's: 3x^2 - 3 = 3 (x - 1) (x + 1).
        let one = Coordinate::<C>::ONE;
        let product = first.x.minus(one).times(first.x.plus(one));
        product.twice().plus(product).times(inverse)
    } else {
        return Affine::INFINITY;
    };
    let x = slope.squared().minus(first.x).minus(second.x);
    Affine { x, y: slope.times(first.x.minus(x)).minus(first.y) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::curve::{P256, Sm2};
    use super::*;

    /// The multiples -8 to 8 of the generator; 8 is infinity's place.
    fn multiples<C: Curve>() -> Vec<Affine<C>> {
        let generator = Affine::<C>::generator();
        let mut multiple = Jacobian::INFINITY;
        let positive: Vec<_> = (0..8)
            .map(|_| {
                multiple = multiple.plus(&generator, false);
                Jacobian::to_affine(&[multiple])[0]
            })
            .collect();
        let negative = positive.iter().rev().map(|point| Affine { x: point.x, y: point.y.negated() });
        negative.chain([Affine::INFINITY]).chain(positive.clone()).collect()
    }

    fn check<C: Curve>(lists: &[Vec<usize>]) {
        let multiples = multiples::<C>();
        let mut sums = Sums::with_capacity(0);
        for list in lists {
            sums.list(|points| points.extend(list.iter().map(|number| multiples[*number])));
        }
        let found = sums.add_up();
        assert_eq!(found.len(), lists.len());
        for (list, found) in lists.iter().zip(found) {
            let plain = list.iter().filter(|number| **number != 8);
            let expected = plain.fold(Jacobian::INFINITY, |sum, number| sum.plus(&multiples[*number], false));
            assert_eq!(found.is_infinity(), expected.is_infinity(), "{list:?}");
            if !expected.is_infinity() {
                let [found, expected] = [found, expected].map(|sum| Jacobian::to_affine(&[sum])[0]);
                assert_eq!((found.x, found.y), (expected.x, expected.y), "{list:?}");
            }
        }
    }

    #[test]
    fn every_pair_is_added_whatever_stands_beside_it() {
        let pairs: Vec<Vec<usize>> =
            (0..17).flat_map(|first| (0..17).map(move |second| vec![first, second])).collect();
        check::<P256>(&pairs);
        check::<Sm2>(&pairs);
    }

    proptest! {
        /// Small multiples meet often: layers are full of equal, opposite and infinite points.
        #[test]
        fn lists_are_added_up_as_one_by_one(
            lists in proptest::collection::vec(proptest::collection::vec(0_usize..17, 0..40), 0..12),
        ) {
            check::<P256>(&lists);
            check::<Sm2>(&lists);
        }
    }
}
