//! Scalars and points of the two groups.
//!
//! Operands of one operation are of one suite: whoever takes values from outside compares their suites first.

use std::fmt;
use std::sync::LazyLock;

use p256::NistP256;
use p256::elliptic_curve::ff::{Field, PrimeField};
use p256::elliptic_curve::group::Group;
use p256::elliptic_curve::ops::{LinearCombination, Reduce};
use p256::elliptic_curve::sec1::{FromSec1Point, ModulusSize, Sec1Point, ToSec1Point};
use p256::elliptic_curve::{Curve, CurveArithmetic, CurveGroup, FieldBytes};
use sm2::Sm2;
use zeroize::DefaultIsZeroes;

use super::{Error, Suite, hash};

/// Bytes of a scalar, big-endian.
pub(super) const SCALAR_BYTES: usize = 32;

/// Bytes of a compressed point (SEC 1 section 2.3.3).
pub(super) const POINT_BYTES: usize = 33;

/// A curve of a suite, with its values taken out of and put into the types that name the suite at run time.
trait SuiteCurve:
    Curve<FieldBytesSize: ModulusSize>
    + CurveArithmetic<
        Scalar: PrimeField + Reduce<FieldBytes<Self>>,
        AffinePoint: FromSec1Point<Self> + ToSec1Point<Self>,
    >
{
    fn scalar(scalar: &Scalar) -> Self::Scalar;
    fn element(element: &Element) -> Self::ProjectivePoint;
    fn from_scalar(scalar: Self::Scalar) -> Scalar;
    fn from_element(element: Self::ProjectivePoint) -> Element;
}

macro_rules! suite_curve {
    ($curve:ty, $suite:ident) => {
        impl SuiteCurve for $curve {
            fn scalar(scalar: &Scalar) -> Self::Scalar {
                let Scalar::$suite(scalar) = scalar else { panic!("invariant: operands are of one suite") };
                *scalar
            }

            fn element(element: &Element) -> Self::ProjectivePoint {
                let Element::$suite(element) = element else {
                    panic!("invariant: operands are of one suite")
                };
                *element
            }

            fn from_scalar(scalar: Self::Scalar) -> Scalar {
                Scalar::$suite(scalar)
            }

            fn from_element(element: Self::ProjectivePoint) -> Element {
                Element::$suite(element)
            }
        }
    };
}
suite_curve!(NistP256, P256);
suite_curve!(Sm2, Sm2);

/// Calls a function that is generic over [`SuiteCurve`] for the curve of a suite.
macro_rules! on_curve {
    ($suite:expr, $function:ident($($argument:expr),*)) => {
        match $suite {
            Suite::P256 => $function::<NistP256>($($argument),*),
            Suite::Sm2 => $function::<Sm2>($($argument),*),
        }
    };
}

/// A number modulo a group's order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    /// For P-256.
    P256(p256::Scalar),
    /// For SM2.
    Sm2(sm2::Scalar),
}

impl Default for Scalar {
    fn default() -> Self {
        Self::P256(p256::Scalar::ZERO)
    }
}

impl DefaultIsZeroes for Scalar {}

impl Scalar {
    /// Reduces a number of 384 bits, big-endian.
    pub(super) fn from_wide(suite: Suite, bytes: &[u8; 48]) -> Self {
        fn reduced<C: SuiteCurve>(bytes: &[u8; 48]) -> Scalar {
            // high * 2^192 + low, each of 192 bits.
            let part = |bytes: &[u8]| {
                let mut padded = FieldBytes::<C>::default();
                padded[8..].copy_from_slice(bytes);
                C::Scalar::reduce(&padded)
            };
            let shift = C::Scalar::from_u128(1 << 96).square();
            C::from_scalar(part(&bytes[..24]) * shift + part(&bytes[24..]))
        }
        on_curve!(suite, reduced(bytes))
    }

    /// Takes 32 bytes that are below the order and not zero.
    pub(super) fn from_bytes(suite: Suite, bytes: &[u8]) -> Result<Self, Error> {
        fn parsed<C: SuiteCurve>(bytes: &[u8]) -> Option<Scalar> {
            let bytes = FieldBytes::<C>::try_from(bytes).ok()?;
            let scalar = C::Scalar::from_repr(bytes).into_option()?;
            (!bool::from(scalar.is_zero())).then(|| C::from_scalar(scalar))
        }
        on_curve!(suite, parsed(bytes)).ok_or(Error::Scalar)
    }

    pub(super) fn from_index(suite: Suite, index: u64) -> Self {
        match suite {
            Suite::P256 => Self::P256(index.into()),
            Suite::Sm2 => Self::Sm2(index.into()),
        }
    }

    pub(super) fn from_half(suite: Suite, bytes: [u8; 16]) -> Self {
        fn widened<C: SuiteCurve>(number: u128) -> Scalar {
            C::from_scalar(C::Scalar::from_u128(number))
        }
        on_curve!(suite, widened(u128::from_be_bytes(bytes)))
    }

    pub(super) fn suite(&self) -> Suite {
        match self {
            Self::P256(_) => Suite::P256,
            Self::Sm2(_) => Suite::Sm2,
        }
    }

    pub(super) fn to_bytes(self) -> [u8; SCALAR_BYTES] {
        match self {
            Self::P256(scalar) => scalar.to_repr().into(),
            Self::Sm2(scalar) => scalar.to_repr().into(),
        }
    }

    pub(super) fn is_zero(&self) -> bool {
        match self {
            Self::P256(scalar) => scalar.is_zero().into(),
            Self::Sm2(scalar) => scalar.is_zero().into(),
        }
    }

    pub(super) fn plus(&self, other: &Self) -> Self {
        fn sum<C: SuiteCurve>(left: &Scalar, right: &Scalar) -> Scalar {
            C::from_scalar(C::scalar(left) + C::scalar(right))
        }
        on_curve!(self.suite(), sum(self, other))
    }

    pub(super) fn times(&self, other: &Self) -> Self {
        fn product<C: SuiteCurve>(left: &Scalar, right: &Scalar) -> Scalar {
            C::from_scalar(C::scalar(left) * C::scalar(right))
        }
        on_curve!(self.suite(), product(self, other))
    }

    pub(super) fn negated(&self) -> Self {
        match self {
            Self::P256(scalar) => Self::P256(-*scalar),
            Self::Sm2(scalar) => Self::Sm2(-*scalar),
        }
    }

    pub(super) fn minus(&self, other: &Self) -> Self {
        self.plus(&other.negated())
    }

    /// 1 / self, in constant time.
    pub(super) fn inverted(&self) -> Result<Self, Error> {
        fn inverse<C: SuiteCurve>(scalar: &Scalar) -> Option<Scalar> {
            Field::invert(&C::scalar(scalar)).into_option().map(C::from_scalar)
        }
        on_curve!(self.suite(), inverse(self)).ok_or(Error::Scalar)
    }
}

/// A member of a group, the point at infinity included: what is computed with.
#[derive(Clone, Copy)]
pub(super) enum Element {
    /// On P-256.
    P256(p256::ProjectivePoint),
    /// On SM2's curve.
    Sm2(sm2::ProjectivePoint),
}

impl Default for Element {
    fn default() -> Self {
        Self::P256(p256::ProjectivePoint::IDENTITY)
    }
}

impl DefaultIsZeroes for Element {}

impl Element {
    /// The multiple of the generator, in constant time.
    pub(super) fn generated(scalar: &Scalar) -> Self {
        match scalar {
            Scalar::P256(scalar) => Self::P256(p256::ProjectivePoint::mul_by_generator(scalar)),
            Scalar::Sm2(scalar) => Self::Sm2(sm2::ProjectivePoint::mul_by_generator(scalar)),
        }
    }

    pub(super) fn generator(suite: Suite) -> Self {
        match suite {
            Suite::P256 => Self::P256(p256::ProjectivePoint::GENERATOR),
            Suite::Sm2 => Self::Sm2(sm2::ProjectivePoint::GENERATOR),
        }
    }

    pub(super) fn suite(&self) -> Suite {
        match self {
            Self::P256(_) => Suite::P256,
            Self::Sm2(_) => Suite::Sm2,
        }
    }

    pub(super) fn plus(&self, other: &Self) -> Self {
        fn sum<C: SuiteCurve>(left: &Element, right: &Element) -> Element {
            C::from_element(C::element(left) + C::element(right))
        }
        on_curve!(self.suite(), sum(self, other))
    }

    /// The multiple, in constant time.
    pub(super) fn times(&self, scalar: &Scalar) -> Self {
        fn product<C: SuiteCurve>(element: &Element, scalar: &Scalar) -> Element {
            C::from_element(C::element(element) * C::scalar(scalar))
        }
        on_curve!(self.suite(), product(self, scalar))
    }

    /// The sum of multiples, in constant time. There is at least one.
    pub(super) fn sum(suite: Suite, terms: &[(Self, Scalar)]) -> Self {
        fn combined<C: SuiteCurve>(terms: &[(Element, Scalar)]) -> Element {
            C::from_element(C::ProjectivePoint::lincomb(&typed::<C>(terms)[..]))
        }
        on_curve!(suite, combined(terms))
    }

    /// Whether a sum of multiples of public values is the point at infinity, in variable time.
    pub(super) fn public_sum_vanishes(suite: Suite, terms: &[(Self, Scalar)]) -> bool {
        fn vanishes<C: SuiteCurve>(terms: &[(Element, Scalar)]) -> bool {
            C::ProjectivePoint::lincomb_vartime(&typed::<C>(terms)[..]).is_identity().into()
        }
        on_curve!(suite, vanishes(terms))
    }

    /// Checks that the element is not the point at infinity, and encodes it.
    pub(super) fn to_point(self) -> Result<Point, Error> {
        fn encoded<C: SuiteCurve>(element: &Element) -> Option<[u8; POINT_BYTES]> {
            let affine = C::element(element).to_affine();
            affine.to_sec1_point(true).as_bytes().try_into().ok()
        }
        let bytes = on_curve!(self.suite(), encoded(&self)).ok_or(Error::Point)?;
        Ok(Point { element: self, bytes })
    }
}

fn typed<C: SuiteCurve>(terms: &[(Element, Scalar)]) -> Vec<(C::ProjectivePoint, C::Scalar)> {
    terms.iter().map(|(element, scalar)| (C::element(element), C::scalar(scalar))).collect()
}

/// A point of a suite's curve, never the one at infinity.
#[derive(Clone, Copy)]
pub struct Point {
    element: Element,
    /// Compressed; kept because hashes take it again and again.
    bytes: [u8; POINT_BYTES],
}

impl Point {
    /// Reads a compressed point (SEC 1 section 2.3.4).
    ///
    /// # Errors
    ///
    /// Another length, form or curve; coordinates not below the prime; the point at infinity.
    pub fn from_bytes(suite: Suite, bytes: &[u8]) -> Result<Self, Error> {
        fn decoded<C: SuiteCurve>(bytes: &[u8]) -> Option<Element> {
            let point = Sec1Point::<C>::from_bytes(bytes).ok()?;
            let affine = C::AffinePoint::from_sec1_point(&point).into_option()?;
            Some(C::from_element(affine.into()))
        }
        let bytes: [u8; POINT_BYTES] = bytes.try_into().map_err(|_| Error::Point)?;
        if !matches!(bytes[0], 2 | 3) {
            return Err(Error::Point);
        }
        let element = on_curve!(suite, decoded(&bytes)).ok_or(Error::Point)?;
        Ok(Self { element, bytes })
    }

    /// The compressed form: 33 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; POINT_BYTES] {
        self.bytes
    }

    /// The curve's suite.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.element.suite()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn element(&self) -> &Element {
        &self.element
    }

    /// The second generator, whose logarithm nobody knows: the first point whose x is a hash of a counter (try and increment).
    pub(super) fn second_generator(suite: Suite) -> &'static Self {
        static P256_GENERATOR: LazyLock<Point> = LazyLock::new(|| find_second_generator(Suite::P256));
        static SM2_GENERATOR: LazyLock<Point> = LazyLock::new(|| find_second_generator(Suite::Sm2));
        match suite {
            Suite::P256 => &P256_GENERATOR,
            Suite::Sm2 => &SM2_GENERATOR,
        }
    }
}

fn find_second_generator(suite: Suite) -> Point {
    let candidate = |counter: u8| {
        let mut bytes = [2; POINT_BYTES];
        hash::expand(suite, "second generator", &[&[counter]], &mut bytes[1..]);
        Point::from_bytes(suite, &bytes).ok()
    };
    (0..=u8::MAX).find_map(candidate).expect("invariant: half of all numbers are coordinates of a point")
}

impl PartialEq for Point {
    fn eq(&self, other: &Self) -> bool {
        self.suite() == other.suite() && self.bytes == other.bytes
    }
}

impl Eq for Point {}

impl fmt::Debug for Point {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Point({}, {})", self.suite().name(), hex::encode(self.bytes))
    }
}

/// Compares suites of values that arrive together.
pub(super) fn one_suite(suites: &[Suite]) -> Result<Suite, Error> {
    match suites {
        [first, others @ ..] if others.iter().all(|suite| suite == first) => Ok(*first),
        _ => Err(Error::Suites),
    }
}
