//! Hashes to scalars and keys, each tagged with its suite and purpose.

use zeroize::{Zeroize, Zeroizing};

use super::Suite;
use super::element::Scalar;
use crate::hash::HashAlgorithm;

/// Bytes that SHA-256 and SM3 take at a time.
const BLOCK_BYTES: usize = 64;

/// Bytes of both hashes.
const HASH_BYTES: usize = 32;

/// Parts with their lengths before them (8 bytes, big-endian), so that no two lists of parts read alike.
fn framed(parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    Zeroizing::new(bytes)
}

/// Fills a buffer of at most 255 hashes with `expand_message_xmd` of RFC 9380 section 5.3.1.
pub(super) fn expand(suite: Suite, purpose: &str, parts: &[&[u8]], output: &mut [u8]) {
    let tag = format!("{}-{purpose}", suite.tag());
    let tag_length = [u8::try_from(tag.len()).expect("invariant: suites' tags and purposes are short")];
    let tag = [tag.as_bytes(), &tag_length].concat();
    let length = u16::try_from(output.len()).expect("invariant: callers take fewer than 255 hashes");
    let hash = suite.hash();
    let first = hash.hash_parts(&[&[0; BLOCK_BYTES], &framed(parts), &length.to_be_bytes(), &[0], &tag]);
    let mut last = Zeroizing::new([0; HASH_BYTES]);
    for (number, chunk) in (1u8..).zip(output.chunks_mut(HASH_BYTES)) {
        last.iter_mut().zip(first).for_each(|(byte, other)| *byte ^= other);
        *last = hash.hash_parts(&[last.as_ref(), &[number], &tag]);
        chunk.copy_from_slice(&last[..chunk.len()]);
    }
}

/// A scalar, with a bias below 2^-128.
pub(super) fn to_scalar(suite: Suite, purpose: &str, parts: &[&[u8]]) -> Scalar {
    let mut wide = Zeroizing::new([0; 48]);
    expand(suite, purpose, parts, wide.as_mut());
    Scalar::from_wide(suite, &wide)
}

/// Derives key material from a secret with HKDF (RFC 5869) over the suite's hash.
pub(super) fn derive(suite: Suite, purpose: &str, secret: &[u8], parts: &[&[u8]], output: &mut [u8]) {
    let info = framed(&[&[purpose.as_bytes()], parts].concat());
    hkdf(suite.hash(), suite.tag().as_bytes(), secret, &info, output);
}

fn hkdf(hash: HashAlgorithm, salt: &[u8], secret: &[u8], info: &[u8], output: &mut [u8]) {
    let key = Zeroizing::new(hmac(hash, salt, &[secret]));
    let mut last = Zeroizing::new([0; HASH_BYTES]);
    let mut last_length = 0;
    for (number, chunk) in (1u8..).zip(output.chunks_mut(HASH_BYTES)) {
        *last = hmac(hash, key.as_ref(), &[&last[..last_length], info, &[number]]);
        last_length = HASH_BYTES;
        chunk.copy_from_slice(&last[..chunk.len()]);
    }
}

/// HMAC (RFC 2104) with a key of at most a block.
fn hmac(hash: HashAlgorithm, key: &[u8], parts: &[&[u8]]) -> [u8; HASH_BYTES] {
    debug_assert!(key.len() <= BLOCK_BYTES, "longer keys would be hashed first");
    let pad = |value: u8| {
        let mut block = Zeroizing::new([value; BLOCK_BYTES]);
        block.iter_mut().zip(key).for_each(|(byte, other)| *byte ^= other);
        block
    };
    let (inner_pad, outer_pad) = (pad(0x36), pad(0x5c));
    let mut inner = hash.hash_parts(&[&[inner_pad.as_ref()], parts].concat());
    let outer = hash.hash_parts(&[outer_pad.as_ref(), &inner]);
    inner.zeroize();
    outer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hkdf_gives_the_output_of_rfc_5869() {
        // Appendix A.1.
        let mut output = [0; 42];
        let salt: Vec<u8> = (0..=12).collect();
        let info: Vec<u8> = (0xf0..=0xf9).collect();
        hkdf(HashAlgorithm::Sha256, &salt, &[0x0b; 22], &info, &mut output);
        let expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865";
        assert_eq!(hex::encode(output), expected);
    }

    #[test]
    fn suite_purpose_and_the_cut_between_parts_change_a_hash() {
        let reference = to_scalar(Suite::P256, "a", &[b"ab", b"c"]).to_bytes();
        assert_ne!(reference, to_scalar(Suite::P256, "b", &[b"ab", b"c"]).to_bytes());
        assert_ne!(reference, to_scalar(Suite::P256, "a", &[b"a", b"bc"]).to_bytes());
        assert_ne!(reference, to_scalar(Suite::P256, "a", &[b"ab", b"c", b""]).to_bytes());
        assert_ne!(reference, to_scalar(Suite::Sm2, "a", &[b"ab", b"c"]).to_bytes());
    }
}
