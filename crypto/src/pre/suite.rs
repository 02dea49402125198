//! The two suites.

use crate::hash::HashAlgorithm;

/// A curve with the hash and the cipher that go with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Suite {
    /// NIST P-256, SHA-256, HKDF-SHA-256, AES-256-GCM.
    P256,
    /// SM2's curve, SM3, HKDF-SM3, SM4-GCM.
    Sm2,
}

impl Suite {
    /// The name in configurations and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::Sm2 => "sm2",
        }
    }

    /// Takes a [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::P256, Self::Sm2].into_iter().find(|suite| suite.name() == name)
    }

    /// What every hash and derived key of the suite is tagged with.
    pub(super) const fn tag(self) -> &'static str {
        match self {
            Self::P256 => "CONSORT-SEALED-V1-P256-SHA256-AES256GCM",
            Self::Sm2 => "CONSORT-SEALED-V1-SM2-SM3-SM4GCM",
        }
    }

    pub(super) const fn hash(self) -> HashAlgorithm {
        match self {
            Self::P256 => HashAlgorithm::Sha256,
            Self::Sm2 => HashAlgorithm::Sm3,
        }
    }
}
