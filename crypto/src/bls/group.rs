//! The arithmetic of the two groups and their pairing: the functions of `blst` that its safe interface leaves out.
//!
//! Affine points here are never the identity: what would be is `None`. (Several of the library's loops do not expect it.)

#![expect(unsafe_code, reason = "blst offers the groups' arithmetic as C functions only")]

use blst::{
    BLST_ERROR, MultiPoint as _, blst_expand_message_xmd, blst_fp12, blst_hash_to_g1, blst_p1,
    blst_p1_add_or_double, blst_p1_add_or_double_affine, blst_p1_affine, blst_p1_affine_compress,
    blst_p1_affine_in_g1, blst_p1_affine_is_inf, blst_p1_double, blst_p1_from_affine, blst_p1_is_inf,
    blst_p1_mult, blst_p1_to_affine, blst_p1_uncompress, blst_p1s_to_affine, blst_p2,
    blst_p2_add_or_double_affine, blst_p2_affine, blst_p2_affine_compress, blst_p2_affine_generator,
    blst_p2_affine_in_g2, blst_p2_affine_is_inf, blst_p2_cneg, blst_p2_from_affine, blst_p2_is_inf,
    blst_p2_to_affine, blst_p2_uncompress,
};

use super::field::Number;
use super::{PUBLIC_KEY_BYTES, SIGNATURE_BYTES};

/// What brings a point of the curve into the subgroup: 1 - z for the curve's parameter z = -0xd201000000010000 (RFC 9380
/// section 8.8.1), little-endian.
const EFFECTIVE_COFACTOR: [u8; 8] = 0xd201_0000_0001_0001_u64.to_le_bytes();

/// A point of G1 from its only encoding; not the identity.
pub(super) fn read_p1(bytes: &[u8; SIGNATURE_BYTES]) -> Option<blst_p1_affine> {
    let mut point = blst_p1_affine::default();
    // SAFETY: the input has the 48 bytes that are read; all pointers live through the calls.
    let valid = unsafe {
        blst_p1_uncompress(&raw mut point, bytes.as_ptr()) == BLST_ERROR::BLST_SUCCESS
            && !blst_p1_affine_is_inf(&raw const point)
            && blst_p1_affine_in_g1(&raw const point)
    };
    (valid && write_p1(&point) == *bytes).then_some(point)
}

/// The compressed form of a point of G1.
pub(super) fn write_p1(point: &blst_p1_affine) -> [u8; SIGNATURE_BYTES] {
    let mut bytes = [0; SIGNATURE_BYTES];
    // SAFETY: the output has the 48 bytes that are written.
    unsafe { blst_p1_affine_compress(bytes.as_mut_ptr(), point) };
    bytes
}

/// A point of G2 from its only encoding; not the identity.
pub(super) fn read_p2(bytes: &[u8; PUBLIC_KEY_BYTES]) -> Option<blst_p2_affine> {
    let mut point = blst_p2_affine::default();
    let mut again = [0; PUBLIC_KEY_BYTES];
    // SAFETY: input and output have the 96 bytes that are read and written; all pointers live through the calls.
    let valid = unsafe {
        blst_p2_uncompress(&raw mut point, bytes.as_ptr()) == BLST_ERROR::BLST_SUCCESS
            && !blst_p2_affine_is_inf(&raw const point)
            && blst_p2_affine_in_g2(&raw const point)
            && {
                blst_p2_affine_compress(again.as_mut_ptr(), &raw const point);
                again == *bytes
            }
    };
    valid.then_some(point)
}

/// Hashes a message to a point of G1 (RFC 9380, `BLS12381G1_XMD:SHA-256_SSWU_RO_`).
pub(super) fn hash_to_p1(message: &[u8], suite: &[u8]) -> blst_p1_affine {
    let mut point = blst_p1::default();
    // SAFETY: pointers and lengths are those of the slices; an empty augmentation is never read.
    unsafe {
        blst_hash_to_g1(
            &raw mut point,
            message.as_ptr(),
            message.len(),
            suite.as_ptr(),
            suite.len(),
            std::ptr::null(),
            0,
        );
    }
    affine_p1(&point).expect("invariant: nobody knows a message that hashes to the identity")
}

/// A sum in G1.
pub(super) fn sum_p1<'a>(points: impl Iterator<Item = &'a blst_p1_affine>) -> Option<blst_p1_affine> {
    let mut sum = blst_p1::default();
    for point in points {
        // SAFETY: output and first input may be the same; all pointers live through the call.
        unsafe { blst_p1_add_or_double_affine(&raw mut sum, &raw const sum, point) };
    }
    affine_p1(&sum)
}

/// A sum in G2.
pub(super) fn sum_p2<'a>(points: impl Iterator<Item = &'a blst_p2_affine>) -> Option<blst_p2_affine> {
    let mut sum = blst_p2::default();
    for point in points {
        // SAFETY: output and first input may be the same; all pointers live through the call.
        unsafe { blst_p2_add_or_double_affine(&raw mut sum, &raw const sum, point) };
    }
    affine_p2(&sum)
}

/// Adds a point to a sum.
pub(super) fn add_p1(sum: &mut blst_p1, point: &blst_p1) {
    // SAFETY: output and first input may be the same; all pointers live through the call.
    unsafe { blst_p1_add_or_double(sum, sum, point) };
}

/// Adds an affine point to a sum.
pub(super) fn add_affine_p1(sum: &mut blst_p1, point: &blst_p1_affine) {
    // SAFETY: output and first input may be the same; all pointers live through the call.
    unsafe { blst_p1_add_or_double_affine(sum, sum, point) };
}

/// Doubles a point.
pub(super) fn double_p1(point: &mut blst_p1) {
    // SAFETY: output and input may be the same.
    unsafe { blst_p1_double(point, point) };
}

/// The point (x / z^2, y / z^3), which lies on the curve, or the identity when z is 0.
pub(super) fn jacobian_p1(x: Number, y: Number, z: Number) -> blst_p1 {
    blst_p1 { x: x.0, y: y.0, z: z.0 }
}

/// An affine point in the form of sums.
pub(super) fn jacobian_of(point: &blst_p1_affine) -> blst_p1 {
    let mut sum = blst_p1::default();
    // SAFETY: all pointers live through the call.
    unsafe { blst_p1_from_affine(&raw mut sum, point) };
    sum
}

/// The multiple of a point of the curve that lies in the subgroup: the last step of hashing (RFC 9380 section 7).
pub(super) fn into_subgroup(point: &blst_p1) -> blst_p1 {
    let mut multiple = blst_p1::default();
    // SAFETY: the multiplier has the bytes that are read.
    unsafe {
        let bits = 8 * EFFECTIVE_COFACTOR.len();
        blst_p1_mult(&raw mut multiple, point, EFFECTIVE_COFACTOR.as_ptr(), bits);
    }
    multiple
}

/// Uniform bytes of a message (RFC 9380 section 5.3.1, with SHA-256).
pub(super) fn expand<const BYTES: usize>(message: &[u8], suite: &[u8]) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    // SAFETY: pointers and lengths are those of the slices.
    unsafe {
        blst_expand_message_xmd(
            bytes.as_mut_ptr(),
            bytes.len(),
            message.as_ptr(),
            message.len(),
            suite.as_ptr(),
            suite.len(),
        );
    }
    bytes
}

/// The affine forms of points, with one inversion for all. None of them may be the identity.
pub(super) fn all_affine_p1(points: &[blst_p1]) -> Vec<blst_p1_affine> {
    let mut affine = vec![blst_p1_affine::default(); points.len()];
    let Some(first) = points.first() else { return affine };
    // Beginning and length: a null pointer after the first says that the others follow in memory.
    let list: [*const blst_p1; 2] = [first, std::ptr::null()];
    // SAFETY: as many points are read and written as both slices have.
    unsafe { blst_p1s_to_affine(affine.as_mut_ptr(), list.as_ptr(), points.len()) };
    affine
}

/// The sum of points of the curve, each multiplied with its number (little-endian), by buckets: for many points.
pub(super) fn multiply_p1<const BYTES: usize>(points: &[blst_p1_affine], numbers: &[[u8; BYTES]]) -> blst_p1 {
    assert_eq!(points.len(), numbers.len(), "invariant: every point has a number");
    if points.is_empty() {
        return blst_p1::default();
    }
    points.mult(numbers.as_flattened(), 8 * BYTES)
}

/// The affine form of a point of G1; `None` for the identity.
pub(super) fn affine_p1(point: &blst_p1) -> Option<blst_p1_affine> {
    let mut affine = blst_p1_affine::default();
    // SAFETY: all pointers live through the calls.
    unsafe {
        if blst_p1_is_inf(point) {
            return None;
        }
        blst_p1_to_affine(&raw mut affine, point);
    }
    Some(affine)
}

fn affine_p2(point: &blst_p2) -> Option<blst_p2_affine> {
    let mut affine = blst_p2_affine::default();
    // SAFETY: all pointers live through the calls.
    unsafe {
        if blst_p2_is_inf(point) {
            return None;
        }
        blst_p2_to_affine(&raw mut affine, point);
    }
    Some(affine)
}

fn negated_generator() -> blst_p2_affine {
    let mut point = blst_p2::default();
    // SAFETY: the generator is a constant of the library.
    unsafe {
        blst_p2_from_affine(&raw mut point, blst_p2_affine_generator());
        blst_p2_cneg(&raw mut point, true);
    }
    affine_p2(&point).expect("invariant: the generator is not the identity")
}

/// Whether the product of the pairings is the pairing of the signature with the generator of G2.
pub(super) fn pairings_agree(
    pairs: &[(&blst_p1_affine, &blst_p2_affine)],
    signature: &blst_p1_affine,
) -> bool {
    let mut messages: Vec<blst_p1_affine> = pairs.iter().map(|(message, _)| **message).collect();
    let mut keys: Vec<blst_p2_affine> = pairs.iter().map(|(_, key)| **key).collect();
    messages.push(*signature);
    keys.push(negated_generator());
    blst_fp12::miller_loop_n(&keys, &messages).final_exp() == blst_fp12::default()
}

/// The sum of the points that two numbers map to, in the subgroup, by the library.
#[cfg(test)]
pub(super) fn map_with_library(first: blst::blst_fp, second: blst::blst_fp) -> blst_p1 {
    let mut point = blst_p1::default();
    // SAFETY: all pointers live through the call.
    unsafe { blst::blst_map_to_g1(&raw mut point, &raw const first, &raw const second) };
    point
}

#[cfg(test)]
pub(super) mod torsion {
    //! Points on the curve of G1 that are outside of the subgroup, for attacks.

    use super::*;

    /// The sum of a signature and a point whose order divides the cofactor.
    pub(in crate::bls) fn added_to(point: &blst_p1_affine) -> [u8; SIGNATURE_BYTES] {
        // The order of the subgroup, little-endian: what remains of any point of the curve after it has small order.
        let mut order =
            hex::decode("73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001").unwrap();
        order.reverse();
        let outside = (0u8..).find_map(point_on_curve).unwrap();
        let mut small = blst_p1::default();
        let mut sum = blst_p1::default();
        // SAFETY: the order has 32 bytes; all pointers live through the calls.
        unsafe {
            blst_p1_from_affine(&raw mut small, &raw const outside);
            blst_p1_mult(&raw mut small, &raw const small, order.as_ptr(), 255);
            blst_p1_from_affine(&raw mut sum, point);
        }
        assert!(affine_p1(&small).is_some(), "the point was in the subgroup");
        add_p1(&mut sum, &small);
        write_p1(&affine_p1(&sum).unwrap())
    }

    fn point_on_curve(x: u8) -> Option<blst_p1_affine> {
        let mut bytes = [0; SIGNATURE_BYTES];
        bytes[0] = 0x80;
        bytes[SIGNATURE_BYTES - 1] = x;
        let mut point = blst_p1_affine::default();
        // SAFETY: the input has 48 bytes.
        let read = unsafe { blst_p1_uncompress(&raw mut point, bytes.as_ptr()) };
        // SAFETY: the point lives through the call.
        let inside = unsafe { blst_p1_affine_in_g1(&raw const point) };
        (read == BLST_ERROR::BLST_SUCCESS && !inside).then_some(point)
    }

    /// Whether the equation of the pairings holds for bytes that are on the curve, whatever their subgroup.
    pub(in crate::bls) fn passes_unchecked(
        bytes: &[u8; SIGNATURE_BYTES],
        message: &blst_p1_affine,
        key: &blst_p2_affine,
    ) -> bool {
        let mut point = blst_p1_affine::default();
        // SAFETY: the input has 48 bytes.
        let read = unsafe { blst_p1_uncompress(&raw mut point, bytes.as_ptr()) };
        read == BLST_ERROR::BLST_SUCCESS && pairings_agree(&[(message, key)], &point)
    }
}
