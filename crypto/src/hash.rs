//! SHA-256, the only hash of a ledger.

use ring::digest;

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
    }
}
