//! Private and public keys.

use std::fmt;

use bytes::Bytes;
use p256::elliptic_curve::sec1::ToSec1Point;
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature as ring_signature;
use zeroize::Zeroizing;

use crate::signature::{Curve, EcdsaSignature};
use crate::{Error, der, pem};

/// Signs messages with a key that stays where it is.
///
/// An implementation hashes the message itself and returns a signature that [`PublicKey::verify`] accepts.
pub trait Signer: Send + Sync {
    /// Signs a message.
    ///
    /// # Errors
    ///
    /// When the key cannot be reached or used.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error>;
}

/// A private key on P-256. The scalar is wiped when the key is dropped; the signing context of `ring` beside it is not, as
/// that library offers no way to.
pub struct PrivateKey {
    secret: p256::SecretKey,
    pair: ring_signature::EcdsaKeyPair,
    public: PublicKey,
    random: SystemRandom,
}

impl PrivateKey {
    /// Makes a new key on P-256.
    ///
    /// # Errors
    ///
    /// When the operating system gives no random numbers.
    pub fn generate_p256() -> Result<Self, Error> {
        let random = SystemRandom::new();
        let mut bytes = Zeroizing::new([0; 32]);
        loop {
            random.fill(bytes.as_mut()).map_err(|_| Error::Random)?;
            // All but one of 2^32 values are below the order and not zero.
            if let Ok(secret) = p256::SecretKey::from_slice(bytes.as_ref()) {
                return Self::from_secret(secret);
            }
        }
    }

    /// Reads a PEM key: PKCS#8 (`PRIVATE KEY`, with or without the public key) or SEC 1 (`EC PRIVATE KEY`).
    ///
    /// # Errors
    ///
    /// When there is no such block, or it holds no key on P-256.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        for block in pem::blocks(text.as_bytes()) {
            let contents = Zeroizing::new(block.contents);
            let secret = match block.label.as_str() {
                "PRIVATE KEY" => {
                    p256::SecretKey::from_pkcs8_der(&contents).map_err(|cause| cause.to_string())
                }
                "EC PRIVATE KEY" => {
                    p256::SecretKey::from_sec1_der(&contents).map_err(|cause| cause.to_string())
                }
                _ => continue,
            };
            let explained = |cause| Error::PrivateKey(format!("{cause} (needed: a key on the curve P-256)"));
            return Self::from_secret(secret.map_err(explained)?);
        }
        Err(Error::Pem { expected: "PRIVATE KEY" })
    }

    fn from_secret(secret: p256::SecretKey) -> Result<Self, Error> {
        let random = SystemRandom::new();
        let point = secret.public_key().to_sec1_point(false);
        let scalar = Zeroizing::new(<[u8; 32]>::from(secret.to_bytes()));
        let pair = ring_signature::EcdsaKeyPair::from_private_key_and_public_key(
            &ring_signature::ECDSA_P256_SHA256_ASN1_SIGNING,
            scalar.as_ref(),
            point.as_bytes(),
            &random,
        )
        .map_err(|cause| Error::PrivateKey(cause.to_string()))?;
        let public = PublicKey::P256(Bytes::copy_from_slice(point.as_bytes()));
        Ok(Self { secret, pair, public, random })
    }

    /// The key as PKCS#8 in PEM.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        self.secret.to_pkcs8_pem(LineEnding::LF).expect("invariant: a key on P-256 has a PKCS#8 form")
    }

    /// Signs a message: ECDSA over its SHA-256, as DER with the lower S.
    ///
    /// # Errors
    ///
    /// When the operating system gives no random numbers.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature = self.pair.sign(&self.random, message).map_err(|_| Error::Random)?;
        Ok(EcdsaSignature::from_der(signature.as_ref())?.into_low(Curve::P256).to_der())
    }

    /// The key that verifies.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }
}

impl Signer for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        PrivateKey::sign(self, message)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PrivateKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// A public key. Messages are verified with keys on P-256 and P-384 and with Ed25519 keys; RSA keys occur in certificates of
/// authorities only.
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PublicKey {
    /// A point on NIST P-256, uncompressed (65 bytes).
    P256(Bytes),
    /// A point on NIST P-384, uncompressed (97 bytes).
    P384(Bytes),
    /// An Ed25519 key (32 bytes).
    Ed25519(Bytes),
    /// A PKCS#1 `RSAPublicKey`.
    Rsa(Bytes),
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey::{}({})", self.algorithm(), hex::encode(self.bytes()))
    }
}

const EC_PUBLIC_KEY: [u32; 6] = [1, 2, 840, 10045, 2, 1];
const P256_CURVE: [u32; 7] = [1, 2, 840, 10045, 3, 1, 7];
const P384_CURVE: [u32; 5] = [1, 3, 132, 0, 34];
const ED25519: [u32; 4] = [1, 3, 101, 112];
const RSA_ENCRYPTION: [u32; 7] = [1, 2, 840, 113_549, 1, 1, 1];

impl PublicKey {
    /// Verifies a signature over a message: ECDSA over SHA-256 whatever the curve, Ed25519 over the message itself.
    ///
    /// # Errors
    ///
    /// [`Error::HighS`] when the signature is the higher of the two twins; [`Error::SignatureEncoding`],
    /// [`Error::SignatureMismatch`]; [`Error::Unsupported`] for RSA.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        match self {
            Self::P256(point) => {
                verify_low(&ring_signature::ECDSA_P256_SHA256_ASN1, Curve::P256, point, message, signature)
            }
            Self::P384(point) => {
                verify_low(&ring_signature::ECDSA_P384_SHA256_ASN1, Curve::P384, point, message, signature)
            }
            Self::Ed25519(key) => check(&ring_signature::ED25519, key, message, signature),
            Self::Rsa(_) => Err(Error::Unsupported("RSA keys sign no messages".to_owned())),
        }
    }

    /// Name of the algorithm.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::P256(_) => "P-256",
            Self::P384(_) => "P-384",
            Self::Ed25519(_) => "Ed25519",
            Self::Rsa(_) => "RSA",
        }
    }

    /// The content of the key's bit string: the point, the Ed25519 key or the `RSAPublicKey`.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::P256(bytes) | Self::P384(bytes) | Self::Ed25519(bytes) | Self::Rsa(bytes) => bytes,
        }
    }

    /// The key as `SubjectPublicKeyInfo` in DER (RFC 5280 section 4.1).
    #[must_use]
    pub fn to_der(&self) -> Vec<u8> {
        let oid = der::object_identifier;
        let algorithm = match self {
            Self::P256(_) => der::sequence(&[&oid(&EC_PUBLIC_KEY), &oid(&P256_CURVE)]),
            Self::P384(_) => der::sequence(&[&oid(&EC_PUBLIC_KEY), &oid(&P384_CURVE)]),
            Self::Ed25519(_) => der::sequence(&[&oid(&ED25519)]),
            Self::Rsa(_) => der::sequence(&[&oid(&RSA_ENCRYPTION), &[5, 0]]),
        };
        der::sequence(&[&algorithm, &der::bit_string(self.bytes())])
    }

    /// Takes the parts of a parsed `SubjectPublicKeyInfo`; points must lie on their curve.
    pub(crate) fn from_info(info: &x509_parser::x509::SubjectPublicKeyInfo<'_>) -> Result<Self, Error> {
        let bytes: &[u8] = &info.subject_public_key.data;
        let algorithm = info.algorithm.algorithm.to_id_string();
        let curve = info.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        let curve = curve.map(|curve| curve.to_id_string()).unwrap_or_default();
        let kept = Bytes::copy_from_slice(bytes);
        match (algorithm.as_str(), curve.as_str()) {
            ("1.2.840.10045.2.1", "1.2.840.10045.3.1.7") => {
                // Go's reader knows uncompressed points only, and so must we, or the same certificate would be judged twice.
                if bytes.first() != Some(&4) || p256::PublicKey::from_sec1_bytes(bytes).is_err() {
                    return Err(Error::PublicKey("not a point on P-256".to_owned()));
                }
                Ok(Self::P256(kept))
            }
            ("1.2.840.10045.2.1", "1.3.132.0.34") if bytes.len() == 97 && bytes[0] == 4 => {
                Ok(Self::P384(kept))
            }
            ("1.3.101.112", _) if bytes.len() == 32 => Ok(Self::Ed25519(kept)),
            ("1.2.840.113549.1.1.1", _) => Ok(Self::Rsa(kept)),
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
