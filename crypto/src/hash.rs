//! SHA-256 and SM3.

use ring::digest;
use sm3::Digest;

/// SM3 of a message (GB/T 32905).
#[must_use]
pub fn sm3(message: &[u8]) -> [u8; 32] {
    sm3_parts(&[message])
}

/// SM3 of the concatenation of parts.
#[must_use]
pub fn sm3_parts(parts: &[&[u8]]) -> [u8; 32] {
    let mut state = sm3::Sm3::new();
    for part in parts {
        state.update(part);
    }
    state.finalize().into()
}

/// SHA-256 of a message.
#[must_use]
pub fn sha256(message: &[u8]) -> [u8; 32] {
    sha256_parts(&[message])
}

/// SHA-256 of the concatenation of parts.
#[must_use]
pub fn sha256_parts(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("invariant: SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hash_like_their_concatenation() {
        // FIPS 180-4, "abc".
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex::encode(sha256(b"abc")), expected);
        assert_eq!(hex::encode(sha256_parts(&[b"a", b"", b"bc"])), expected);
        // GB/T 32905 appendix A.1, "abc".
        let expected = "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0";
        assert_eq!(hex::encode(sm3(b"abc")), expected);
        assert_eq!(hex::encode(sm3_parts(&[b"a", b"", b"bc"])), expected);
    }
}
