//! The algorithms of keys, their names and their identifiers.

use std::fmt;
use std::str::FromStr;

use der::asn1::ObjectIdentifier;

use crate::Error;

/// `id-ecPublicKey` (RFC 5480 section 2.1.1): the kind of all keys that are points; the curve stands beside it.
pub(crate) const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// The curve NIST P-256 (RFC 5480 section 2.1.1.1).
pub(crate) const P256_CURVE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// The curve NIST P-384 (RFC 5480 section 2.1.1.1).
pub(crate) const P384_CURVE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
/// The curve of SM2 (GM/T 0006).
pub(crate) const SM2_CURVE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.156.10197.1.301");
/// Ed25519, key and signature (RFC 8410 section 3).
pub(crate) const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// RSA keys (RFC 8017 appendix C).
pub(crate) const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
/// SM2 signature over SM3 (GM/T 0006).
pub(crate) const SM2_WITH_SM3: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.156.10197.1.501");

/// The signer's id that goes into every SM2 signature over messages and certificates (GM/T 0009 section 10: the value to be
/// taken when nothing else was agreed). It is never taken from a message.
pub const SM2_ID: &str = "1234567812345678";

/// What kind of key signs.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum KeyAlgorithm {
    /// ECDSA on NIST P-256: Fabric's usual choice.
    #[default]
    P256,
    /// ECDSA on NIST P-384.
    P384,
    /// Ed25519 (RFC 8032). A channel takes such identities from capability `V3_0` on.
    Ed25519,
    /// SM2 with SM3 (GB/T 32918, GB/T 32905).
    Sm2,
}

impl KeyAlgorithm {
    /// All algorithms.
    pub const ALL: [Self; 4] = [Self::P256, Self::P384, Self::Ed25519, Self::Sm2];

    /// The name in configurations and on command lines: `p256`, `p384`, `ed25519` or `sm2`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::Ed25519 => "ed25519",
            Self::Sm2 => "sm2",
        }
    }

    /// The name for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::Ed25519 => "Ed25519",
            Self::Sm2 => "SM2",
        }
    }

    /// The algorithm with which such a key signs certificates, requests and lists.
    pub(crate) const fn document_signature(self) -> ObjectIdentifier {
        match self {
            Self::P256 => ECDSA_WITH_SHA256,
            Self::P384 => ECDSA_WITH_SHA384,
            Self::Ed25519 => ED25519,
            Self::Sm2 => SM2_WITH_SM3,
        }
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for KeyAlgorithm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == text).ok_or_else(|| {
            Error::Unsupported(format!("{text:?}: choose p256, p384, ed25519 or sm2 as the key's algorithm"))
        })
    }
}
