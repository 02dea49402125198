//! The two signature equations, checked with tables.

use super::curve::{Curve, Jacobian, P256, Sm2};
use super::field::{self, Element, Limbs, Modulus};
use super::inverse::inverse_modulo;
use super::table::Table;

/// Whether numbers `r` and `s` are an ECDSA signature over a digest (SEC 1 section 4.1.4).
pub(super) fn ecdsa(generator: &Table<P256>, key: &Table<P256>, digest: Limbs, r: Limbs, s: Limbs) -> bool {
    type Order = <P256 as Curve>::Order;
    if !is_scalar::<Order>(r) || !is_scalar::<Order>(s) {
        return false;
    }
    let inverse = Element::<Order>::new(inverse_modulo::<Order>(s));
    let sum = generator.add_multiple(Jacobian::INFINITY, inverse.times_plain(digest));
    let sum = key.add_multiple(sum, inverse.times_plain(r));
    has_x_congruent::<P256>(&sum, r)
}

/// Whether numbers `r` and `s` are an SM2 signature over a digest (GB/T 32918.2 section 7.1).
pub(super) fn sm2(generator: &Table<Sm2>, key: &Table<Sm2>, digest: Limbs, r: Limbs, s: Limbs) -> bool {
    type Order = <Sm2 as Curve>::Order;
    if !is_scalar::<Order>(r) || !is_scalar::<Order>(s) {
        return false;
    }
    let t = Element::<Order>::new(r).plus(Element::new(s));
    if t.is_zero() {
        return false;
    }
    let sum = generator.add_multiple(Jacobian::INFINITY, s);
    let sum = key.add_multiple(sum, t.value());
    has_x_congruent::<Sm2>(&sum, Element::<Order>::new(r).minus(Element::new(digest)).value())
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
