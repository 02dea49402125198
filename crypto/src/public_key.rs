//! Public keys, and how signatures are verified with them.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use der::asn1::{AnyRef, BitString, ObjectIdentifier};
use ring::signature as ring_signature;
use signature::Verifier;
use sm3::{Digest, Sm3};
use x509_cert::spki::{AlgorithmIdentifier, SubjectPublicKeyInfoOwned};

use crate::Error;
use crate::algorithm::{
    EC_PUBLIC_KEY, ED25519, KeyAlgorithm, P256_CURVE, P384_CURVE, RSA_ENCRYPTION, SM2_CURVE, SM2_ID,
};
use crate::hash::sha256;
use crate::known_signers::{SignatureCheck, Signed};
use crate::signature::{Curve, EcdsaSignature};

/// A public key. Messages are verified with all kinds but RSA, which occurs in certificates of authorities only.
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PublicKey {
    /// A point on NIST P-256, uncompressed (65 bytes).
    P256(Bytes),
    /// A point on NIST P-384, uncompressed (97 bytes).
    P384(Bytes),
    /// An Ed25519 key (32 bytes).
    Ed25519(Bytes),
    /// A point on the curve of SM2.
    Sm2(Sm2PublicKey),
    /// A PKCS#1 `RSAPublicKey`.
    Rsa(Bytes),
}

/// A point on the curve of SM2, uncompressed (65 bytes), with what its signatures need: the parsed point and the hash of the
/// signer's id, curve and point that goes before every message.
#[derive(Clone)]
pub struct Sm2PublicKey {
    point: Bytes,
    verifying: Arc<sm2::dsa::VerifyingKey>,
    /// Hash of the signer's id, the curve and the point.
    prefix: [u8; 32],
}

impl PartialEq for Sm2PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.point == other.point
    }
}

impl Eq for Sm2PublicKey {}

impl Hash for Sm2PublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.point.hash(state);
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey::{}({})", self.algorithm(), hex::encode(self.bytes()))
    }
}

impl PublicKey {
    /// Verifies a signature over a message: ECDSA over SHA-256 whatever the curve, Ed25519 over the message itself, SM2 over
    /// SM3 with [`SM2_ID`]. The signature of an SM2 key must be the only DER form of its numbers.
    ///
    /// # Errors
    ///
    /// [`Error::HighS`] when the signature is the higher of the two twins of ECDSA; [`Error::SignatureEncoding`],
    /// [`Error::SignatureMismatch`]; [`Error::Unsupported`] for RSA.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        self.begin_check(message, signature).verdict()
    }

    /// As [`PublicKey::verify`], for signatures that this process meets more than once within seconds: one that was found good is not
    /// calculated again while it is remembered.
    ///
    /// # Errors
    ///
    /// As [`PublicKey::verify`].
    pub fn verify_remembered(&self, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        self.begin_remembered_check(message, signature).verdict()
    }

    /// Begins what [`PublicKey::verify`] does, so that it can be calculated together with others ([`SignatureCheck::settle`]).
    #[must_use]
    pub fn begin_check(&self, message: &[u8], signature: &[u8]) -> SignatureCheck {
        self.begin(message, signature, false)
    }

    /// Keeps in mind a signature that the private key has just made.
    pub(crate) fn remember_own(&self, message: &[u8], signature: &[u8]) {
        let parsed = EcdsaSignature::from_der(signature).ok();
        let Some(numbers) = parsed.and_then(|parsed| parsed.numbers()) else { return };
        let signed = |point, digest| Signed { point, digest, numbers: &numbers, remembered: true };
        match self {
            Self::P256(point) => SignatureCheck::keep_p256(signed(point, &sha256(message))),
            Self::Sm2(key) => SignatureCheck::keep_sm2(signed(&key.point, &key.digest(message))),
            _ => {}
        }
    }

    /// Begins what [`PublicKey::verify_remembered`] does, as [`PublicKey::begin_check`].
    #[must_use]
    pub fn begin_remembered_check(&self, message: &[u8], signature: &[u8]) -> SignatureCheck {
        self.begin(message, signature, true)
    }

    fn begin(&self, message: &[u8], signature: &[u8], remembered: bool) -> SignatureCheck {
        let begun = match self {
            Self::P256(point) => begin_p256(point, message, signature, remembered),
            Self::Sm2(key) => key.begin(message, signature, remembered),
            _ => Ok(SignatureCheck::judged(self.verify_with_library(message, signature))),
        };
        begun.unwrap_or_else(|error| SignatureCheck::judged(Err(error)))
    }

    /// As [`PublicKey::verify`], without the tables of known signers; what those are measured and judged by.
    ///
    /// # Errors
    ///
    /// As [`PublicKey::verify`].
    pub fn verify_with_library(&self, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        match self {
            Self::P256(point) => {
                verify_low(&ring_signature::ECDSA_P256_SHA256_ASN1, Curve::P256, point, message, signature)
            }
            Self::P384(point) => {
                verify_low(&ring_signature::ECDSA_P384_SHA256_ASN1, Curve::P384, point, message, signature)
            }
            Self::Ed25519(key) => check(&ring_signature::ED25519, key, message, signature),
            Self::Sm2(key) => key.verify(message, signature),
            Self::Rsa(_) => Err(Error::Unsupported("RSA keys sign no messages".to_owned())),
        }
    }

    /// Name of the algorithm for people.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        self.key_algorithm().map_or("RSA", KeyAlgorithm::title)
    }

    /// The kind of key that signs messages; `None` for RSA.
    #[must_use]
    pub fn key_algorithm(&self) -> Option<KeyAlgorithm> {
        match self {
            Self::P256(_) => Some(KeyAlgorithm::P256),
            Self::P384(_) => Some(KeyAlgorithm::P384),
            Self::Ed25519(_) => Some(KeyAlgorithm::Ed25519),
            Self::Sm2(_) => Some(KeyAlgorithm::Sm2),
            Self::Rsa(_) => None,
        }
    }

    /// The content of the key's bit string: the point, the Ed25519 key or the `RSAPublicKey`.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::P256(bytes) | Self::P384(bytes) | Self::Ed25519(bytes) | Self::Rsa(bytes) => bytes,
            Self::Sm2(key) => &key.point,
        }
    }

    /// The key as `SubjectPublicKeyInfo` (RFC 5280 section 4.1).
    pub(crate) fn to_info(&self) -> SubjectPublicKeyInfoOwned {
        let curve = |oid: &ObjectIdentifier| (EC_PUBLIC_KEY, Some(oid.into()));
        let (oid, parameters) = match self {
            Self::P256(_) => curve(&P256_CURVE),
            Self::P384(_) => curve(&P384_CURVE),
            Self::Sm2(_) => curve(&SM2_CURVE),
            Self::Ed25519(_) => (ED25519, None),
            Self::Rsa(_) => (RSA_ENCRYPTION, Some(AnyRef::NULL.into())),
        };
        SubjectPublicKeyInfoOwned {
            algorithm: AlgorithmIdentifier { oid, parameters },
            subject_public_key: BitString::from_bytes(self.bytes()).expect("invariant: a key is short"),
        }
    }

    /// The key as `SubjectPublicKeyInfo` in DER (RFC 5280 section 4.1).
    #[must_use]
    pub fn to_der(&self) -> Vec<u8> {
        der::Encode::to_der(&self.to_info()).expect("invariant: a key is short")
    }

    /// Takes an uncompressed point, which must lie on the curve.
    pub(crate) fn from_point(algorithm: KeyAlgorithm, bytes: &[u8]) -> Result<Self, Error> {
        let outside = || Error::PublicKey(format!("not a point on the curve of {}", algorithm.title()));
        // Go's reader knows uncompressed points only, and so must we, or the same certificate would be judged twice.
        if bytes.first() != Some(&4) {
            return Err(outside());
        }
        let point = Bytes::copy_from_slice(bytes);
        match algorithm {
            KeyAlgorithm::P256 if p256::PublicKey::from_sec1_bytes(bytes).is_ok() => Ok(Self::P256(point)),
            KeyAlgorithm::P384 if p384::PublicKey::from_sec1_bytes(bytes).is_ok() => Ok(Self::P384(point)),
            KeyAlgorithm::Sm2 => {
                let key = sm2::dsa::VerifyingKey::from_sec1_bytes(SM2_ID, bytes).map_err(|_| outside())?;
                Ok(Self::Sm2(Sm2PublicKey { prefix: sm2_prefix(&point), point, verifying: Arc::new(key) }))
            }
            _ => Err(outside()),
        }
    }

    pub(crate) fn from_ed25519(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() == 32 {
            Ok(Self::Ed25519(Bytes::copy_from_slice(bytes)))
        } else {
            Err(Error::PublicKey("an Ed25519 key has 32 bytes".to_owned()))
        }
    }

    /// Takes the parts of a parsed `SubjectPublicKeyInfo`; points must lie on their curve.
    pub(crate) fn from_info(info: &x509_parser::x509::SubjectPublicKeyInfo<'_>) -> Result<Self, Error> {
        let bytes: &[u8] = &info.subject_public_key.data;
        let identifier = |text: &str| ObjectIdentifier::new(text).ok();
        let algorithm = info.algorithm.algorithm.to_id_string();
        let curve = info.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        let curve = curve.map(|curve| curve.to_id_string()).unwrap_or_default();
        if info.subject_public_key.unused_bits != 0 {
            return Err(Error::PublicKey("not of whole bytes".to_owned()));
        }
        match (identifier(&algorithm), identifier(&curve)) {
            (Some(EC_PUBLIC_KEY), Some(P256_CURVE)) => Self::from_point(KeyAlgorithm::P256, bytes),
            (Some(EC_PUBLIC_KEY), Some(P384_CURVE)) => Self::from_point(KeyAlgorithm::P384, bytes),
            (Some(EC_PUBLIC_KEY), Some(SM2_CURVE)) => Self::from_point(KeyAlgorithm::Sm2, bytes),
            // Parameters must be absent (RFC 8410 section 3).
            (Some(ED25519), None) if info.algorithm.parameters.is_none() => Self::from_ed25519(bytes),
            (Some(RSA_ENCRYPTION), _) => Ok(Self::Rsa(Bytes::copy_from_slice(bytes))),
            _ => Err(Error::PublicKey(format!("algorithm {algorithm} {curve}"))),
        }
    }

    /// Verifies the signature of a certificate, request or list, whose algorithm is given by its identifier; high-S passes.
    pub(crate) fn verify_document(
        &self,
        algorithm: &str,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<(), Error> {
        let verifier: &dyn ring_signature::VerificationAlgorithm = match (self, algorithm) {
            (Self::P256(_), "1.2.840.10045.4.3.2") => &ring_signature::ECDSA_P256_SHA256_ASN1,
            (Self::P256(_), "1.2.840.10045.4.3.3") => &ring_signature::ECDSA_P256_SHA384_ASN1,
            (Self::P384(_), "1.2.840.10045.4.3.2") => &ring_signature::ECDSA_P384_SHA256_ASN1,
            (Self::P384(_), "1.2.840.10045.4.3.3") => &ring_signature::ECDSA_P384_SHA384_ASN1,
            (Self::Ed25519(_), "1.3.101.112") => &ring_signature::ED25519,
            (Self::Sm2(key), "1.2.156.10197.1.501") => return key.verify(signed, signature),
            (Self::Rsa(_), "1.2.840.113549.1.1.11") => &ring_signature::RSA_PKCS1_2048_8192_SHA256,
            (Self::Rsa(_), "1.2.840.113549.1.1.12") => &ring_signature::RSA_PKCS1_2048_8192_SHA384,
            (Self::Rsa(_), "1.2.840.113549.1.1.13") => &ring_signature::RSA_PKCS1_2048_8192_SHA512,
            _ => {
                return Err(Error::Unsupported(format!(
                    "signature {algorithm} by a key of {}",
                    self.algorithm()
                )));
            }
        };
        check(verifier, self.bytes(), signed, signature)
    }
}

/// Coefficients and generator of SM2's curve as its signatures hash them (GB/T 32918.5).
const SM2_PARAMETERS: [&str; 4] = [
    "fffffffeffffffffffffffffffffffffffffffff00000000fffffffffffffffc",
    "28e9fa9e9d9f5e344d5a9e4bcf6509a7f39789f515ab8f92ddbcbd414d940e93",
    "32c4ae2c1f1981195f9904466a39c9948fe30bbff2660be1715a4589334c74c7",
    "bc3736a2f4f6779c59bdcee36b692153d0a9877cc62a474002df32e52139f0a0",
];

/// The hash that goes before every message of an SM2 key with [`SM2_ID`] (GB/T 32918.2 section 5.5).
fn sm2_prefix(point: &[u8]) -> [u8; 32] {
    let bits = u16::try_from(SM2_ID.len() * 8).expect("invariant: the id is short");
    let mut hash = Sm3::new_with_prefix(bits.to_be_bytes()).chain_update(SM2_ID);
    for parameter in SM2_PARAMETERS {
        hash.update(hex::decode(parameter).expect("invariant: the parameters are hexadecimal"));
    }
    hash.chain_update(&point[1..]).finalize().into()
}

impl Sm2PublicKey {
    /// What is signed: the hash of the signer's prefix and the message.
    fn digest(&self, message: &[u8]) -> [u8; 32] {
        Sm3::new_with_prefix(self.prefix).chain_update(message).finalize().into()
    }

    /// Begins a check with the key's table, if it has one, and from memory, if that is wanted.
    fn begin(&self, message: &[u8], signature: &[u8], remembered: bool) -> Result<SignatureCheck, Error> {
        let parsed = EcdsaSignature::from_exact_der(signature)?;
        let numbers = parsed.numbers().ok_or(Error::SignatureMismatch)?;
        let digest = self.digest(message);
        let signed = Signed { point: &self.point, digest: &digest, numbers: &numbers, remembered };
        Ok(SignatureCheck::sm2(signed, || self.verify(message, signature)))
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        let parsed = sm2::dsa::Signature::from_der(signature).map_err(|_| Error::SignatureEncoding)?;
        if parsed.to_der().as_bytes() != signature {
            return Err(Error::SignatureEncoding);
        }
        self.verifying.verify(message, &parsed).map_err(|_| Error::SignatureMismatch)
    }
}

/// Begins a check with the key's table, if it has one, and from memory, if that is wanted.
fn begin_p256(
    point: &[u8],
    message: &[u8],
    signature: &[u8],
    remembered: bool,
) -> Result<SignatureCheck, Error> {
    let parsed = EcdsaSignature::from_der(signature)?;
    if !parsed.is_low(Curve::P256) {
        return Err(Error::HighS);
    }
    let numbers = parsed.numbers().ok_or(Error::SignatureMismatch)?;
    let digest = sha256(message);
    let signed = Signed { point, digest: &digest, numbers: &numbers, remembered };
    let library = || check(&ring_signature::ECDSA_P256_SHA256_ASN1, point, message, &parsed.to_der());
    Ok(SignatureCheck::p256(signed, library))
}

fn verify_low(
    algorithm: &'static ring_signature::EcdsaVerificationAlgorithm,
    curve: Curve,
    point: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), Error> {
    let parsed = EcdsaSignature::from_der(signature)?;
    if !parsed.is_low(curve) {
        return Err(Error::HighS);
    }
    check(algorithm, point, message, &parsed.to_der())
}

fn check(
    algorithm: &'static dyn ring_signature::VerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), Error> {
    ring_signature::UnparsedPublicKey::new(algorithm, key)
        .verify(message, signature)
        .map_err(|_| Error::SignatureMismatch)
}
