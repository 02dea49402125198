//! The two signature equations, checked with tables, many at once.

use std::sync::Arc;

use super::curve::{Curve, Jacobian, P256, Sm2};
use super::field::{self, Element, Limbs, Modulus};
use super::inverse::inverted;
use super::sums::Sums;
use super::table::Table;

/// Signatures that share their inversions at most: more would save less than one percent and leave the processor's second cache
/// (5 kB of points each).
const BATCH_MAX: usize = 64;

/// A signature that is to be checked with its key's table.
#[derive(Debug)]
pub(super) struct Equation<C: Curve> {
    pub(super) table: Arc<Table<C>>,
    pub(super) digest: Limbs,
    pub(super) r: Limbs,
    pub(super) s: Limbs,
}

/// The sum of a multiple of the generator and one of the key, and what its x must be congruent to modulo the order.
pub(super) struct Claim {
    of_generator: Limbs,
    of_key: Limbs,
    x: Limbs,
}

/// A curve with its signature scheme.
pub(super) trait Scheme: Curve {
    /// What each signature claims; none for numbers that no signature has.
    fn claims(equations: &[&Equation<Self>]) -> Vec<Option<Claim>>;
}

impl Scheme for P256 {
    /// ECDSA (SEC 1 section 4.1.4): all s are inverted together. Numbers out of range stay outside, so that no product is 0.
    fn claims(equations: &[&Equation<Self>]) -> Vec<Option<Claim>> {
        type Order = <P256 as Curve>::Order;
        let in_range =
            |equation: &Equation<Self>| is_scalar::<Order>(equation.r) && is_scalar::<Order>(equation.s);
        let mut product = Element::<Order>::ONE;
        let before: Vec<_> = equations
            .iter()
            .map(|equation| {
                let s = in_range(equation).then(|| Element::<Order>::new(equation.s))?;
                let before = product;
                product = product.times(s);
                Some((before, s))
            })
            .collect();
        let mut inverse = inverted(product);
        let mut claims: Vec<_> = equations
            .iter()
            .zip(before)
            .rev()
            .map(|(equation, before)| {
                let (before, s) = before?;
                let inverse_s = inverse.times(before);
                inverse = inverse.times(s);
                Some(Claim {
                    of_generator: inverse_s.times_plain(equation.digest),
                    of_key: inverse_s.times_plain(equation.r),
                    x: equation.r,
                })
            })
            .collect();
        claims.reverse();
        claims
    }
}

impl Scheme for Sm2 {
    /// GB/T 32918.2 section 7.1: nothing is divided.
    fn claims(equations: &[&Equation<Self>]) -> Vec<Option<Claim>> {
        type Order = <Sm2 as Curve>::Order;
        let claim = |Equation { digest, r, s, .. }: &Equation<Self>| {
            if !is_scalar::<Order>(*r) || !is_scalar::<Order>(*s) {
                return None;
            }
            let r = Element::<Order>::new(*r);
            let t = r.plus(Element::new(*s));
            let x = r.minus(Element::new(*digest)).value();
            (!t.is_zero()).then(|| Claim { of_generator: *s, of_key: t.value(), x })
        };
        equations.iter().map(|equation| claim(equation)).collect()
    }
}

/// Whether each signature holds, given the table of the curve's generator. The verdicts do not depend on which are asked
/// together.
pub(super) fn hold<C: Scheme>(generator: &Table<C>, equations: &[&Equation<C>]) -> Vec<bool> {
    equations.chunks(BATCH_MAX).flat_map(|batch| hold_batch(generator, batch)).collect()
}

fn hold_batch<C: Scheme>(generator: &Table<C>, equations: &[&Equation<C>]) -> Vec<bool> {
    let claims = C::claims(equations);
    let terms = equations.iter().map(|equation| generator.windows() + equation.table.windows()).sum();
    let mut sums = Sums::with_capacity(terms);
    for (claim, equation) in claims.iter().zip(equations) {
        sums.list(|points| {
            if let Some(claim) = claim {
                generator.append_multiple(points, claim.of_generator);
                equation.table.append_multiple(points, claim.of_key);
            }
        });
    }
    let verdict = |(claim, sum): (Option<Claim>, Jacobian<C>)| {
        claim.is_some_and(|claim| has_x_congruent(&sum, claim.x))
    };
    claims.into_iter().zip(sums.add_up()).map(verdict).collect()
}

fn is_scalar<M: Modulus>(number: Limbs) -> bool {
    number != [0; 4] && field::is_below(number, M::LIMBS)
}

/// Whether a point's x is congruent to a number modulo the group's order: x is that number, or larger by the order, which is
/// below the prime but close to it.
fn has_x_congruent<C: Curve>(point: &Jacobian<C>, number: Limbs) -> bool {
    let (larger, overflow) = field::add(number, <C::Order as Modulus>::LIMBS);
    point.has_x(number)
        || (!overflow && field::is_below(larger, <C::Prime as Modulus>::LIMBS) && point.has_x(larger))
}
