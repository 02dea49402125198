//! Private keys.

use std::fmt;

use der::asn1::OctetStringRef;
use der::{Decode, Encode};
use p256::elliptic_curve::sec1::ToSec1Point;
use p256::pkcs8::{EncodePrivateKey, LineEnding, PrivateKeyInfoRef};
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{self as ring_signature, KeyPair};
use signature::Signer as _;
use signature::hazmat::PrehashSigner;
use x509_cert::spki::AlgorithmIdentifierRef;
use zeroize::Zeroizing;

use crate::algorithm::{EC_PUBLIC_KEY, ED25519, P256_CURVE, P384_CURVE, SM2_CURVE};
use crate::signature::{Curve, EcdsaSignature};
use crate::{Error, pem};

pub use crate::algorithm::{KeyAlgorithm, SM2_ID};
pub use crate::known_signers::SignatureCheck;
pub use crate::public_key::{PublicKey, Sm2PublicKey};

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

/// A private key. The secret is wiped when the key is dropped; signing contexts of the libraries beside it are not, as they
/// offer no way to.
pub struct PrivateKey {
    secret: Secret,
    public: PublicKey,
    random: SystemRandom,
}

enum Secret {
    P256 { secret: p256::SecretKey, pair: ring_signature::EcdsaKeyPair },
    P384 { secret: p384::SecretKey, signing: p384::ecdsa::SigningKey },
    Ed25519 { seed: Zeroizing<[u8; 32]>, pair: ring_signature::Ed25519KeyPair },
    Sm2 { secret: sm2::SecretKey, signing: Box<sm2::dsa::SigningKey> },
}

fn unusable(cause: impl fmt::Display) -> Error {
    Error::PrivateKey(cause.to_string())
}

impl PrivateKey {
    /// Makes a new key.
    ///
    /// # Errors
    ///
    /// When the operating system gives no random numbers.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self, Error> {
        let random = SystemRandom::new();
        let mut bytes = Zeroizing::new([0; 48]);
        loop {
            random.fill(bytes.as_mut()).map_err(|_| Error::Random)?;
            // All but one of 2^32 values at most are below a curve's order and not zero.
            let made = match algorithm {
                KeyAlgorithm::P256 => p256::SecretKey::from_slice(&bytes[..32]).map(Self::from_p256).ok(),
                KeyAlgorithm::P384 => p384::SecretKey::from_slice(&bytes[..]).map(Self::from_p384).ok(),
                KeyAlgorithm::Sm2 => sm2::SecretKey::from_slice(&bytes[..32]).map(Self::from_sm2).ok(),
                KeyAlgorithm::Ed25519 => Some(Self::from_seed(&bytes[..32])),
            };
            if let Some(key) = made {
                return key;
            }
        }
    }

    /// Makes a new key on P-256.
    ///
    /// # Errors
    ///
    /// When the operating system gives no random numbers.
    pub fn generate_p256() -> Result<Self, Error> {
        Self::generate(KeyAlgorithm::P256)
    }

    /// Reads a PEM key: PKCS#8 (`PRIVATE KEY`, with or without the public key) or SEC 1 (`EC PRIVATE KEY`).
    ///
    /// # Errors
    ///
    /// When there is no such block, or it holds no key of a [`KeyAlgorithm`].
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        for block in pem::blocks(text.as_bytes()) {
            let contents = Zeroizing::new(block.contents);
            match block.label.as_str() {
                "PRIVATE KEY" => return Self::from_pkcs8(&contents),
                "EC PRIVATE KEY" => return Self::from_sec1(&contents),
                _ => {}
            }
        }
        Err(Error::Pem { expected: "PRIVATE KEY" })
    }

    /// Reads a key as PKCS#8 in DER (RFC 5958).
    ///
    /// # Errors
    ///
    /// When it does not parse, or is of no [`KeyAlgorithm`].
    pub fn from_pkcs8(contents: &[u8]) -> Result<Self, Error> {
        let info = PrivateKeyInfoRef::try_from(contents).map_err(unusable)?;
        if info.algorithm.oid == ED25519 {
            let seed = <&OctetStringRef>::from_der(info.private_key.as_bytes()).map_err(unusable)?;
            return Self::from_seed(seed.as_bytes());
        }
        let curve = info.algorithm.parameters_oid().ok();
        match (info.algorithm.oid, curve) {
            (EC_PUBLIC_KEY, Some(P256_CURVE)) => {
                Self::from_p256(p256::SecretKey::try_from(info).map_err(unusable)?)
            }
            (EC_PUBLIC_KEY, Some(P384_CURVE)) => {
                Self::from_p384(p384::SecretKey::try_from(info).map_err(unusable)?)
            }
            (EC_PUBLIC_KEY, Some(SM2_CURVE)) => {
                Self::from_sm2(sm2::SecretKey::try_from(info).map_err(unusable)?)
            }
            (kind, curve) => Err(foreign(kind, curve)),
        }
    }

    fn from_sec1(contents: &[u8]) -> Result<Self, Error> {
        let parsed = sec1::EcPrivateKey::try_from(contents).map_err(unusable)?;
        match parsed.parameters.and_then(sec1::EcParameters::named_curve) {
            // Some tools leave the curve out; theirs is P-256.
            None | Some(P256_CURVE) => {
                Self::from_p256(p256::SecretKey::from_sec1_der(contents).map_err(unusable)?)
            }
            Some(P384_CURVE) => Self::from_p384(p384::SecretKey::from_sec1_der(contents).map_err(unusable)?),
            Some(SM2_CURVE) => Self::from_sm2(sm2::SecretKey::from_sec1_der(contents).map_err(unusable)?),
            curve => Err(foreign(EC_PUBLIC_KEY, curve)),
        }
    }

    fn from_p256(secret: p256::SecretKey) -> Result<Self, Error> {
        let random = SystemRandom::new();
        let point = secret.public_key().to_sec1_point(false);
        let scalar = Zeroizing::new(<[u8; 32]>::from(secret.to_bytes()));
        let pair = ring_signature::EcdsaKeyPair::from_private_key_and_public_key(
            &ring_signature::ECDSA_P256_SHA256_ASN1_SIGNING,
            scalar.as_ref(),
            point.as_bytes(),
            &random,
        )
        .map_err(unusable)?;
        let public = PublicKey::from_point(KeyAlgorithm::P256, point.as_bytes())?;
        Ok(Self { secret: Secret::P256 { secret, pair }, public, random })
    }

    fn from_p384(secret: p384::SecretKey) -> Result<Self, Error> {
        let point = secret.public_key().to_sec1_point(false);
        let public = PublicKey::from_point(KeyAlgorithm::P384, point.as_bytes())?;
        let signing = p384::ecdsa::SigningKey::from(&secret);
        Ok(Self { secret: Secret::P384 { secret, signing }, public, random: SystemRandom::new() })
    }

    fn from_sm2(secret: sm2::SecretKey) -> Result<Self, Error> {
        let point = secret.public_key().to_sec1_point(false);
        let public = PublicKey::from_point(KeyAlgorithm::Sm2, point.as_bytes())?;
        let signing = Box::new(sm2::dsa::SigningKey::new(SM2_ID, &secret).map_err(unusable)?);
        Ok(Self { secret: Secret::Sm2 { secret, signing }, public, random: SystemRandom::new() })
    }

    fn from_seed(seed: &[u8]) -> Result<Self, Error> {
        let pair = ring_signature::Ed25519KeyPair::from_seed_unchecked(seed).map_err(unusable)?;
        let seed = Zeroizing::new(<[u8; 32]>::try_from(seed).map_err(unusable)?);
        let public = PublicKey::from_ed25519(pair.public_key().as_ref())?;
        Ok(Self { secret: Secret::Ed25519 { seed, pair }, public, random: SystemRandom::new() })
    }

    /// The key as PKCS#8 in PEM.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        let text = match &self.secret {
            Secret::P256 { secret, .. } => secret.to_pkcs8_pem(LineEnding::LF),
            Secret::P384 { secret, .. } => secret.to_pkcs8_pem(LineEnding::LF),
            Secret::Sm2 { secret, .. } => secret.to_pkcs8_pem(LineEnding::LF),
            Secret::Ed25519 { seed, .. } => return seed_to_pem(seed),
        };
        text.expect("invariant: a key on a curve has a PKCS#8 form")
    }

    /// Signs a message: ECDSA over its SHA-256 whatever the curve, as DER with the lower S (as Fabric's nodes do); Ed25519
    /// over the message itself; SM2 over SM3 with [`SM2_ID`], as DER.
    ///
    /// # Errors
    ///
    /// When the operating system gives no random numbers.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        match &self.secret {
            Secret::P384 { signing, .. } => sign_p384(signing, &digest::SHA256, message),
            _ => self.sign_document(message),
        }
    }

    /// As [`PrivateKey::sign`], for signatures that this process soon meets again among others': its
    /// [`PublicKey::verify_remembered`] answers from memory.
    ///
    /// # Errors
    ///
    /// As [`PrivateKey::sign`].
    pub fn sign_remembered(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature = self.sign(message)?;
        self.public.remember_own(message, &signature);
        Ok(signature)
    }

    /// Signs a certificate, request or list with [`KeyAlgorithm::document_signature`].
    pub(crate) fn sign_document(&self, body: &[u8]) -> Result<Vec<u8>, Error> {
        match &self.secret {
            Secret::P256 { pair, .. } => {
                let signature = pair.sign(&self.random, body).map_err(|_| Error::Random)?;
                Ok(EcdsaSignature::from_der(signature.as_ref())?.into_low(Curve::P256).to_der())
            }
            Secret::P384 { signing, .. } => sign_p384(signing, &digest::SHA384, body),
            Secret::Ed25519 { pair, .. } => Ok(pair.sign(body).as_ref().to_vec()),
            Secret::Sm2 { signing, .. } => {
                let signature: sm2::dsa::Signature = signing.try_sign(body).map_err(unusable)?;
                Ok(signature.to_der().as_bytes().to_vec())
            }
        }
    }

    /// The key that verifies.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// The kind of the key.
    #[must_use]
    pub fn algorithm(&self) -> KeyAlgorithm {
        match &self.secret {
            Secret::P256 { .. } => KeyAlgorithm::P256,
            Secret::P384 { .. } => KeyAlgorithm::P384,
            Secret::Ed25519 { .. } => KeyAlgorithm::Ed25519,
            Secret::Sm2 { .. } => KeyAlgorithm::Sm2,
        }
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

fn foreign(kind: der::asn1::ObjectIdentifier, curve: Option<der::asn1::ObjectIdentifier>) -> Error {
    let curve = curve.map_or_else(String::new, |curve| format!(" with the curve {curve}"));
    Error::PrivateKey(format!(
        "algorithm {kind}{curve} (needed: a key on P-256, P-384 or the curve of SM2, or an Ed25519 key)"
    ))
}

fn sign_p384(
    key: &p384::ecdsa::SigningKey,
    hash: &'static digest::Algorithm,
    message: &[u8],
) -> Result<Vec<u8>, Error> {
    let hashed = digest::digest(hash, message);
    let signature: p384::ecdsa::Signature = key.sign_prehash(hashed.as_ref()).map_err(unusable)?;
    Ok(EcdsaSignature::from_der(signature.to_der().as_bytes())?.into_low(Curve::P384).to_der())
}

/// PKCS#8 of an Ed25519 key: the seed as an octet string within the octet string (RFC 8410 section 7).
fn seed_to_pem(seed: &[u8; 32]) -> Zeroizing<String> {
    let written = || -> Result<Zeroizing<String>, der::Error> {
        let inner = Zeroizing::new(OctetStringRef::new(seed)?.to_der()?);
        let algorithm = AlgorithmIdentifierRef { oid: ED25519, parameters: None };
        let info = PrivateKeyInfoRef::new(algorithm, OctetStringRef::new(&inner)?);
        let contents = Zeroizing::new(info.to_der()?);
        Ok(Zeroizing::new(pem::encode("PRIVATE KEY", &contents)))
    };
    written().expect("invariant: 32 bytes have a PKCS#8 form")
}
