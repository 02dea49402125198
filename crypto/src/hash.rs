//! SHA-256 and SM3, and which of them a channel uses.

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

/// Length of the blocks that SHA-256 and SM3 work on, in bytes.
const BLOCK_BYTES: usize = 64;

/// The hash of a channel (its configuration's `HashingAlgorithm`): of blocks and their data, transaction ids, proposals and
/// private data. Also that of an MSP (identities and certifiers). Both have 32 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashAlgorithm {
    /// SHA-256: every Fabric channel.
    #[default]
    Sha256,
    /// SM3: channels with national algorithms.
    Sm3,
}

impl HashAlgorithm {
    /// Takes the name in a channel's configuration. Fabric accepts `SHA3_256` and hashes with SHA-256 all the same.
    #[must_use]
    pub fn from_channel_name(name: &str) -> Option<Self> {
        match name {
            "SHA256" | "SHA3_256" => Some(Self::Sha256),
            "SM3" => Some(Self::Sm3),
            _ => None,
        }
    }

    /// The name in a channel's configuration.
    #[must_use]
    pub const fn channel_name(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA256",
            Self::Sm3 => "SM3",
        }
    }

    /// Hash of a message.
    #[must_use]
    pub fn hash(self, message: &[u8]) -> [u8; 32] {
        self.hash_parts(&[message])
    }

    /// Hash of the concatenation of parts.
    #[must_use]
    pub fn hash_parts(self, parts: &[&[u8]]) -> [u8; 32] {
        match self {
            Self::Sha256 => sha256_parts(parts),
            Self::Sm3 => sm3_parts(parts),
        }
    }

    /// HMAC (RFC 2104) with this hash, over the concatenation of parts.
    #[must_use]
    pub fn hmac(self, key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
        let mut block = [0_u8; BLOCK_BYTES];
        if key.len() > BLOCK_BYTES {
            block[..32].copy_from_slice(&self.hash(key));
        } else {
            block[..key.len()].copy_from_slice(key);
        }
        let padded = |pad: u8| block.map(|byte| byte ^ pad);
        let (inner_pad, outer_pad) = (padded(0x36), padded(0x5c));
        let mut message: Vec<&[u8]> = vec![&inner_pad];
        message.extend(parts);
        let inner = self.hash_parts(&message);
        self.hash_parts(&[&outer_pad, &inner])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authentication_codes_are_those_of_the_standard() {
        // RFC 4231, test cases 2 and 6.
        let code = HashAlgorithm::Sha256.hmac(b"Jefe", &[b"what do ya want ", b"for nothing?"]);
        assert_eq!(hex::encode(code), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        let long = HashAlgorithm::Sha256
            .hmac(&[0xaa; 131], &[b"Test Using Larger Than Block-Size Key - Hash Key First"]);
        assert_eq!(hex::encode(long), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    }

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
