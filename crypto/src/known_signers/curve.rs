//! Points of P-256 and of SM2's curve, both y^2 = x^3 - 3x + b.
//!
//! Formulas: Cohen, Miyaji, Ono 1998 (mixed addition) and Bernstein 2001 (doubling), from the Explicit-Formulas Database.

use std::fmt::Debug;

use super::field::{self, Element, Limbs, Modulus, P256Order, P256Prime, Sm2Order, Sm2Prime};
use super::inverse::inverted;

/// A curve with a group of prime order.
pub(super) trait Curve: Copy + Debug + 'static {
    /// Modulus of coordinates.
    type Prime: Modulus;
    /// Modulus of scalars.
    type Order: Modulus;
    /// The generator's coordinates.
    const GENERATOR: (Limbs, Limbs);
}

/// NIST P-256 (SP 800-186 section 3.2.1.3).
#[derive(Clone, Copy, Debug)]
pub(super) struct P256;

impl Curve for P256 {
    type Prime = P256Prime;
    type Order = P256Order;
    const GENERATOR: (Limbs, Limbs) = (
        [0xf4a1_3945_d898_c296, 0x7703_7d81_2deb_33a0, 0xf8bc_e6e5_63a4_40f2, 0x6b17_d1f2_e12c_4247],
        [0xcbb6_4068_37bf_51f5, 0x2bce_3357_6b31_5ece, 0x8ee7_eb4a_7c0f_9e16, 0x4fe3_42e2_fe1a_7f9b],
    );
}

/// The curve of SM2 (GB/T 32918.5).
#[derive(Clone, Copy, Debug)]
pub(super) struct Sm2;

impl Curve for Sm2 {
    type Prime = Sm2Prime;
    type Order = Sm2Order;
    const GENERATOR: (Limbs, Limbs) = (
        [0x715a_4589_334c_74c7, 0x8fe3_0bbf_f266_0be1, 0x5f99_0446_6a39_c994, 0x32c4_ae2c_1f19_8119],
        [0x02df_32e5_2139_f0a0, 0xd0a9_877c_c62a_4740, 0x59bd_cee3_6b69_2153, 0xbc37_36a2_f4f6_779c],
    );
}

/// A number modulo the curve's prime.
pub(super) type Coordinate<C> = Element<<C as Curve>::Prime>;

/// A point, or infinity when both coordinates are 0, which no point of these curves has for y.
#[derive(Clone, Copy, Debug)]
pub(super) struct Affine<C: Curve> {
    pub(super) x: Coordinate<C>,
    pub(super) y: Coordinate<C>,
}

impl<C: Curve> Affine<C> {
    pub(super) const INFINITY: Self = Self { x: Element::ZERO, y: Element::ZERO };

    #[inline(always)]
    pub(super) fn is_infinity(&self) -> bool {
        self.y.is_zero()
    }

    /// The group's generator.
    pub(super) fn generator() -> Self {
        Self { x: Element::new(C::GENERATOR.0), y: Element::new(C::GENERATOR.1) }
    }

    /// Reads an uncompressed point (SEC 1 section 2.3.3), which the caller knows to lie on the curve.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&[4], coordinates) = bytes.split_at_checked(1)? else { return None };
        let (x, y) = coordinates.split_at_checked(32)?;
        let number = |bytes: &[u8]| Some(Element::new(field::from_bytes(bytes.try_into().ok()?)));
        Some(Self { x: number(x)?, y: number(y)? })
    }
}

/// A point (x / z^2, y / z^3), or infinity when z is 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Jacobian<C: Curve> {
    x: Coordinate<C>,
    y: Coordinate<C>,
    z: Coordinate<C>,
}

impl<C: Curve> Jacobian<C> {
    pub(super) const INFINITY: Self = Self { x: Element::ONE, y: Element::ONE, z: Element::ZERO };

    pub(super) fn from_affine(point: &Affine<C>) -> Self {
        Self { x: point.x, y: point.y, z: Element::ONE }
    }

    pub(super) fn is_infinity(&self) -> bool {
        self.z.is_zero()
    }

    pub(super) fn doubled(&self) -> Self {
        let delta = self.z.squared();
        let gamma = self.y.squared();
        let beta = self.x.times(gamma);
        let product = self.x.minus(delta).times(self.x.plus(delta));
        let alpha = product.twice().plus(product);
        let beta4 = beta.twice().twice();
        let x = alpha.squared().minus(beta4.twice());
        let z = self.y.plus(self.z).squared().minus(gamma).minus(delta);
        let gamma8 = gamma.squared().twice().twice().twice();
        Self { x, y: alpha.times(beta4.minus(x)).minus(gamma8), z }
    }

    /// The sum with a point other than infinity, or with its negative.
    #[inline(always)]
    pub(super) fn plus(&self, point: &Affine<C>, negative: bool) -> Self {
        let point_y = if negative { point.y.negated() } else { point.y };
        if self.is_infinity() {
            return Self { x: point.x, y: point_y, z: Element::ONE };
        }
        let z2 = self.z.squared();
        let h = point.x.times(z2).minus(self.x);
        let r = point_y.times(self.z).times(z2).minus(self.y);
        if h.is_zero() {
            return if r.is_zero() { self.doubled() } else { Self::INFINITY };
        }
        let h2 = h.squared();
        let h3 = h.times(h2);
        let v = self.x.times(h2);
        let x = r.squared().minus(h3).minus(v.twice());
        Self { x, y: r.times(v.minus(x)).minus(self.y.times(h3)), z: self.z.times(h) }
    }

    /// Whether the affine x is this number, without dividing.
    pub(super) fn has_x(&self, x: Limbs) -> bool {
        !self.is_infinity() && Element::new(x).times(self.z.squared()) == self.x
    }

    /// Affine forms of many points with one inversion (Montgomery's trick). None of them is infinity.
    pub(super) fn to_affine(points: &[Self]) -> Vec<Affine<C>> {
        let mut products = Vec::with_capacity(points.len());
        let mut product = Coordinate::<C>::ONE;
        for point in points {
            products.push(product);
            product = product.times(point.z);
        }
        let mut inverse = inverted(product);
        let mut affine: Vec<Affine<C>> = points
            .iter()
            .zip(products)
            .rev()
            .map(|(point, before)| {
                let z = inverse.times(before);
                inverse = inverse.times(point.z);
                let z2 = z.squared();
                Affine { x: point.x.times(z2), y: point.y.times(z2).times(z) }
            })
            .collect();
        affine.reverse();
        affine
    }
}
