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
