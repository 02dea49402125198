//! Arithmetic modulo the primes of P-256 and SM2 and the orders of their groups, in Montgomery form with 64-bit limbs.
//!
//! Variable time: only public values come here.

use std::fmt::Debug;
use std::marker::PhantomData;

/// A number of 256 bits, least significant limb first.
pub(super) type Limbs = [u64; 4];

/// An odd modulus between 2^255 and 2^256.
pub(super) trait Modulus: Copy + Debug + Eq + 'static {
    /// The modulus.
    const LIMBS: Limbs;
    /// -1 / modulus modulo 2^64.
    const INVERSE: u64 = negated_inverse(Self::LIMBS[0]);
    /// 2^256 modulo the modulus.
    const ONE: Limbs = minus(Self::LIMBS);
    /// 2^512 modulo the modulus.
    const SQUARE: Limbs = shifted_256(Self::ONE, Self::LIMBS);

    /// Adds a multiple of the modulus that clears limb `at` of a product, without that limb.
    #[inline(always)]
    fn clear_limb(product: &mut [u64; 9], at: usize) {
        let factor = product[at].wrapping_mul(Self::INVERSE);
        let (_, mut carry) = factor.carrying_mul_add(Self::LIMBS[0], product[at], 0);
        for limb in 1..4 {
            (product[at + limb], carry) =
                factor.carrying_mul_add(Self::LIMBS[limb], product[at + limb], carry);
        }
        propagate(product, at + 4, carry);
    }
}

/// The prime of P-256: 2^256 - 2^224 + 2^192 + 2^96 - 1 (SP 800-186 section 3.2.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct P256Prime;

impl Modulus for P256Prime {
    const LIMBS: Limbs = [0xffff_ffff_ffff_ffff, 0x0000_0000_ffff_ffff, 0, 0xffff_ffff_0000_0001];

    /// The modulus is -1 modulo 2^64, so the factor is the limb itself, and factor * (modulus + 1) / 2^64 takes shifts only.
    #[inline(always)]
    fn clear_limb(product: &mut [u64; 9], at: usize) {
        let factor = product[at];
        let (low, high) = (factor << 32, factor >> 32);
        let (third, borrow) = factor.overflowing_sub(low);
        let fourth = factor.wrapping_sub(high).wrapping_sub(u64::from(borrow));
        add_at(product, at + 1, [low, high, third, fourth]);
    }
}

/// The order of the group of P-256 (SP 800-186 section 3.2.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct P256Order;

impl Modulus for P256Order {
    const LIMBS: Limbs =
        [0xf3b9_cac2_fc63_2551, 0xbce6_faad_a717_9e84, 0xffff_ffff_ffff_ffff, 0xffff_ffff_0000_0000];
}

/// The prime of SM2's curve: 2^256 - 2^224 - 2^96 + 2^64 - 1 (GB/T 32918.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sm2Prime;

impl Modulus for Sm2Prime {
    const LIMBS: Limbs =
        [0xffff_ffff_ffff_ffff, 0xffff_ffff_0000_0000, 0xffff_ffff_ffff_ffff, 0xffff_fffe_ffff_ffff];

    /// As for P-256: factor * (modulus + 1) / 2^64 = factor * (2^192 - 2^160 - 2^32 + 1).
    #[inline(always)]
    fn clear_limb(product: &mut [u64; 9], at: usize) {
        let factor = product[at];
        let (low, high) = (factor << 32, factor >> 32);
        let (first, borrow) = factor.overflowing_sub(low);
        let (second, borrow) = 0u64.borrowing_sub(high, borrow);
        let (third, borrow) = 0u64.borrowing_sub(low, borrow);
        let fourth = factor.wrapping_sub(high).wrapping_sub(u64::from(borrow));
        add_at(product, at + 1, [first, second, third, fourth]);
    }
}

/// The order of the group of SM2's curve (GB/T 32918.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sm2Order;

impl Modulus for Sm2Order {
    const LIMBS: Limbs =
        [0x53bb_f409_39d5_4123, 0x7203_df6b_21c6_052b, 0xffff_ffff_ffff_ffff, 0xffff_fffe_ffff_ffff];
}

/// A number modulo `M`, as its product with 2^256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element<M> {
    limbs: Limbs,
    modulus: PhantomData<M>,
}

impl<M: Modulus> Element<M> {
    pub(super) const ZERO: Self = Self::from_montgomery([0; 4]);
    pub(super) const ONE: Self = Self::from_montgomery(M::ONE);

    const fn from_montgomery(limbs: Limbs) -> Self {
        Self { limbs, modulus: PhantomData }
    }

    /// The residue of any number of 256 bits.
    pub(super) fn new(number: Limbs) -> Self {
        Self::from_montgomery(product::<M>(number, M::SQUARE))
    }

    /// The number itself, below the modulus.
    pub(super) fn value(self) -> Limbs {
        product::<M>(self.limbs, [1, 0, 0, 0])
    }

    /// The product with any number of 256 bits, as a plain number below the modulus.
    pub(super) fn times_plain(self, number: Limbs) -> Limbs {
        product::<M>(self.limbs, number)
    }

    pub(super) fn is_zero(self) -> bool {
        self.limbs == [0; 4]
    }

    #[inline(always)]
    pub(super) fn plus(self, other: Self) -> Self {
        let (sum, carry) = add(self.limbs, other.limbs);
        Self::from_montgomery(below(sum, carry, M::LIMBS))
    }

    #[inline(always)]
    pub(super) fn minus(self, other: Self) -> Self {
        let (difference, borrow) = subtract(self.limbs, other.limbs);
        let mask = 0u64.wrapping_sub(u64::from(borrow));
        let (corrected, _) = add(difference, M::LIMBS.map(|limb| limb & mask));
        Self::from_montgomery(corrected)
    }

    #[inline(always)]
    pub(super) fn twice(self) -> Self {
        self.plus(self)
    }

    #[inline(always)]
    pub(super) fn times(self, other: Self) -> Self {
        Self::from_montgomery(product::<M>(self.limbs, other.limbs))
    }

    #[inline(always)]
    pub(super) fn squared(self) -> Self {
        Self::from_montgomery(square::<M>(self.limbs))
    }

    pub(super) fn negated(self) -> Self {
        Self::ZERO.minus(self)
    }
}

/// Reads 32 big-endian bytes.
pub(super) fn from_bytes(bytes: &[u8; 32]) -> Limbs {
    let mut limbs = [0; 4];
    for (limb, chunk) in limbs.iter_mut().rev().zip(bytes.chunks_exact(8)) {
        *limb = chunk.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    }
    limbs
}

/// Whether left < right.
pub(super) fn is_below(left: Limbs, right: Limbs) -> bool {
    subtract(left, right).1
}

/// left + right, and whether it passes 2^256.
#[inline(always)]
pub(super) fn add(left: Limbs, right: Limbs) -> (Limbs, bool) {
    let mut sum = [0; 4];
    let mut carry = false;
    for limb in 0..4 {
        (sum[limb], carry) = left[limb].carrying_add(right[limb], carry);
    }
    (sum, carry)
}

/// left - right, and whether it is negative.
#[inline(always)]
pub(super) fn subtract(left: Limbs, right: Limbs) -> (Limbs, bool) {
    let mut difference = [0; 4];
    let mut borrow = false;
    for limb in 0..4 {
        (difference[limb], borrow) = left[limb].borrowing_sub(right[limb], borrow);
    }
    (difference, borrow)
}

/// A number below twice the modulus, brought below the modulus.
#[inline(always)]
fn below(number: Limbs, carry: bool, modulus: Limbs) -> Limbs {
    let (reduced, borrow) = subtract(number, modulus);
    let keep = 0u64.wrapping_sub(u64::from(borrow && !carry));
    let mut result = [0; 4];
    for limb in 0..4 {
        result[limb] = (number[limb] & keep) | (reduced[limb] & !keep);
    }
    result
}

/// left * right / 2^256 modulo M; right may be any number of 256 bits when left is below the modulus.
#[inline(always)]
fn product<M: Modulus>(left: Limbs, right: Limbs) -> Limbs {
    let mut wide = [0u64; 9];
    for (at, factor) in right.into_iter().enumerate() {
        let mut carry = 0;
        for limb in 0..4 {
            (wide[at + limb], carry) = left[limb].carrying_mul_add(factor, wide[at + limb], carry);
        }
        wide[at + 4] = carry;
    }
    reduce::<M>(wide)
}

/// number^2 / 2^256 modulo M, with each product of two different limbs taken once.
#[inline(always)]
fn square<M: Modulus>(number: Limbs) -> Limbs {
    let mut wide = [0u64; 9];
    for at in 0..3 {
        let mut carry = 0;
        for limb in at + 1..4 {
            (wide[at + limb], carry) = number[limb].carrying_mul_add(number[at], wide[at + limb], carry);
        }
        wide[at + 4] = carry;
    }
    for limb in (1..8).rev() {
        wide[limb] = wide[limb] << 1 | wide[limb - 1] >> 63;
    }
    let mut carry = false;
    for limb in 0..4 {
        let (low, high) = number[limb].carrying_mul(number[limb], 0);
        (wide[2 * limb], carry) = wide[2 * limb].carrying_add(low, carry);
        (wide[2 * limb + 1], carry) = wide[2 * limb + 1].carrying_add(high, carry);
    }
    reduce::<M>(wide)
}

#[inline(always)]
fn reduce<M: Modulus>(mut wide: [u64; 9]) -> Limbs {
    M::clear_limb(&mut wide, 0);
    M::clear_limb(&mut wide, 1);
    M::clear_limb(&mut wide, 2);
    M::clear_limb(&mut wide, 3);
    below([wide[4], wide[5], wide[6], wide[7]], wide[8] != 0, M::LIMBS)
}

/// Adds four limbs to a product at a place.
#[inline(always)]
fn add_at(product: &mut [u64; 9], at: usize, addend: Limbs) {
    let mut carry = false;
    for limb in 0..4 {
        (product[at + limb], carry) = product[at + limb].carrying_add(addend[limb], carry);
    }
    propagate(product, at + 4, u64::from(carry));
}

#[inline(always)]
fn propagate(product: &mut [u64; 9], from: usize, mut carry: u64) {
    for limb in &mut product[from..] {
        let overflow;
        (*limb, overflow) = limb.overflowing_add(carry);
        carry = u64::from(overflow);
    }
}

/// -1 / odd modulo 2^64, by Newton's iteration.
const fn negated_inverse(odd: u64) -> u64 {
    let mut inverse: u64 = 1;
    let mut round = 0;
    while round < 6 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
        round += 1;
    }
    inverse.wrapping_neg()
}

/// 2^256 - number, for a number that is not 0.
const fn minus(number: Limbs) -> Limbs {
    // The two's complement of a number that ends in a limb other than 0: only that limb takes the one.
    [number[0].wrapping_neg(), !number[1], !number[2], !number[3]]
}

/// number * 2^256 modulo the modulus, by doubling.
const fn shifted_256(mut number: Limbs, modulus: Limbs) -> Limbs {
    let mut round = 0;
    while round < 256 {
        let passes = number[3] >> 63 == 1;
        let doubled = [
            number[0] << 1,
            number[1] << 1 | number[0] >> 63,
            number[2] << 1 | number[1] >> 63,
            number[3] << 1 | number[2] >> 63,
        ];
        let mut reduced = [0; 4];
        let mut borrow = false;
        let mut limb = 0;
        while limb < 4 {
            let (difference, first) = doubled[limb].overflowing_sub(modulus[limb]);
            let (difference, second) = difference.overflowing_sub(borrow as u64);
            reduced[limb] = difference;
            borrow = first || second;
            limb += 1;
        }
        number = if passes || !borrow { reduced } else { doubled };
        round += 1;
    }
    number
}

#[cfg(test)]
mod tests {
    use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
    use crypto_bigint::{Odd, U256};
    use proptest::prelude::*;

    use super::super::inverse::inverted;
    use super::*;

    fn library(limbs: Limbs) -> U256 {
        U256::from_words(limbs)
    }

    fn agrees<M: Modulus>(left: Limbs, right: Limbs) {
        let modulus = Odd::new(library(M::LIMBS)).unwrap();
        let parameters = FixedMontyParams::new_vartime(modulus);
        let number = |limbs| FixedMontyForm::new(&library(limbs), &parameters);
        let (a, b) = (Element::<M>::new(left), Element::<M>::new(right));
        assert_eq!(library(a.times(b).value()), number(left).mul(&number(right)).retrieve());
        assert_eq!(library(a.squared().value()), number(left).square().retrieve());
        assert_eq!(library(a.plus(b).value()), number(left).add(&number(right)).retrieve());
        assert_eq!(library(a.minus(b).value()), number(left).sub(&number(right)).retrieve());
        assert_eq!(library(a.times_plain(right)), number(left).mul(&number(right)).retrieve());
        if !a.is_zero() {
            assert_eq!(a.times(inverted(a)), Element::ONE);
        }
    }

    fn all_agree(left: Limbs, right: Limbs) {
        agrees::<P256Prime>(left, right);
        agrees::<P256Order>(left, right);
        agrees::<Sm2Prime>(left, right);
        agrees::<Sm2Order>(left, right);
    }

    #[test]
    fn numbers_at_the_edges_agree_with_the_library() {
        let moduli = [P256Prime::LIMBS, P256Order::LIMBS, Sm2Prime::LIMBS, Sm2Order::LIMBS];
        let near = moduli.iter().flat_map(|modulus| {
            [0u64, 1, 2, 3, 4].map(|offset| {
                let less = library(*modulus).wrapping_sub(&U256::from_u64(2));
                less.wrapping_add(&U256::from_u64(offset)).to_words()
            })
        });
        let edges: Vec<Limbs> =
            near.chain([[0; 4], [1, 0, 0, 0], [u64::MAX; 4], [0, u64::MAX, 0, u64::MAX]]).collect();
        for left in &edges {
            for right in &edges {
                all_agree(*left, *right);
            }
        }
    }

    proptest! {
        #[test]
        fn any_numbers_agree_with_the_library(left: [u64; 4], right: [u64; 4]) {
            all_agree(left, right);
        }
    }
}
