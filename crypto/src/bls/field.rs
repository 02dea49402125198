//! Numbers modulo the prime of BLS12-381's coordinates: the functions of `blst` that its safe interface leaves out.

#![expect(unsafe_code, reason = "blst offers the field's arithmetic as C functions only")]

use blst::{
    blst_fp, blst_fp_add, blst_fp_cneg, blst_fp_eucl_inverse, blst_fp_from_be_bytes, blst_fp_mul,
    blst_fp_sqr, blst_fp_sqrt, blst_fp_sub, blst_lendian_from_fp,
};

/// Bytes of a number.
const BYTES: usize = 48;

/// A number modulo the prime, in the library's form (Montgomery's), of which each number has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Number(pub(super) blst_fp);

impl Number {
    pub(super) const ZERO: Self = Self(blst_fp { l: [0; 6] });

    /// A number of any length, big-endian, reduced.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let mut number = blst_fp::default();
        // SAFETY: the input has the bytes that are read.
        unsafe { blst_fp_from_be_bytes(&raw mut number, bytes.as_ptr(), bytes.len()) };
        Self(number)
    }

    /// A constant of a standard, as it is printed there.
    pub(super) fn constant(text: &str) -> Self {
        let padded = if text.len().is_multiple_of(2) { text.to_owned() } else { format!("0{text}") };
        Self::from_bytes(&hex::decode(padded).expect("invariant: the constants are hexadecimal"))
    }

    pub(super) fn plus(mut self, other: Self) -> Self {
        // SAFETY: output and input may be the same.
        unsafe { blst_fp_add(&raw mut self.0, &raw const self.0, &raw const other.0) };
        self
    }

    pub(super) fn minus(mut self, other: Self) -> Self {
        // SAFETY: output and input may be the same.
        unsafe { blst_fp_sub(&raw mut self.0, &raw const self.0, &raw const other.0) };
        self
    }

    pub(super) fn times(mut self, other: Self) -> Self {
        // SAFETY: output and input may be the same.
        unsafe { blst_fp_mul(&raw mut self.0, &raw const self.0, &raw const other.0) };
        self
    }

    pub(super) fn squared(mut self) -> Self {
        // SAFETY: output and input may be the same.
        unsafe { blst_fp_sqr(&raw mut self.0, &raw const self.0) };
        self
    }

    pub(super) fn negated(mut self) -> Self {
        // SAFETY: output and input may be the same.
        unsafe { blst_fp_cneg(&raw mut self.0, &raw const self.0, true) };
        self
    }

    /// 1 / number, in variable time; 0 for 0.
    pub(super) fn inverted(mut self) -> Self {
        // SAFETY: output and input may be the same.
        unsafe { blst_fp_eucl_inverse(&raw mut self.0, &raw const self.0) };
        self
    }

    /// A number whose square is this one, or its negative: of the two, one has a root, for the prime is 3 modulo 4.
    pub(super) fn root_up_to_sign(mut self) -> Self {
        // SAFETY: output and input may be the same. The output is written in both cases.
        unsafe { blst_fp_sqrt(&raw mut self.0, &raw const self.0) };
        self
    }

    /// Whether the number is odd: RFC 9380's `sgn0` for a prime field.
    pub(super) fn is_odd(self) -> bool {
        let mut bytes = [0; BYTES];
        // SAFETY: the output has the 48 bytes that are written.
        unsafe { blst_lendian_from_fp(bytes.as_mut_ptr(), &raw const self.0) };
        bytes[0] & 1 == 1
    }
}
