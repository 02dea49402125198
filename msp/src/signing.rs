//! An identity that can sign: a node's own, or a user's.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use consort_crypto::{
    bls,
    certificate::Certificate,
    key::{PrivateKey, Signer},
};
use consort_protos::ids::MspId;
use time::OffsetDateTime;

use crate::{FolderError, Identity, IdentityError, MspManager, folder, identity};

/// Folder of an MSP folder in which BLS keys lie.
pub const BLS_KEYS: &str = "blskeystore";

/// A certificate with its private key, under an MSP.
pub struct SigningIdentity {
    msp_id: MspId,
    certificate: Certificate,
    serialized: Bytes,
    key: PrivateKey,
    bls_keys: Vec<bls::SecretKey>,
}

impl SigningIdentity {
    /// Reads `signcerts` (one PEM certificate), `keystore` (the PKCS#8 PEM key that belongs to it) and, if it is there,
    /// `blskeystore` (PEM keys for signatures that add up) of an MSP folder.
    ///
    /// # Errors
    /// [`FolderError`] naming the folder and what is missing: no certificate, several certificates, no matching key, or a
    /// BLS key that cannot be read.
    pub fn from_folder(path: impl AsRef<Path>, msp_id: &MspId) -> Result<Self, FolderError> {
        let path = path.as_ref();
        let signcerts = path.join("signcerts");
        let rule = |path: &Path, rule: String| FolderError::Rule { path: path.to_owned(), rule };
        let mut certificates = folder::pem_files(&signcerts)?;
        let certificate_pem = match (certificates.len(), certificates.pop()) {
            (1, Some(pem)) => pem,
            (count, _) => {
                return Err(rule(&signcerts, format!("needs exactly one PEM certificate, found {count}")));
            }
        };
        let certificate = Certificate::from_pem(&certificate_pem)
            .map_err(|error| rule(&signcerts, format!("the certificate cannot be read: {error}")))?;
        let keystore = path.join("keystore");
        let mut reasons = Vec::new();
        for (file, content) in folder::files(&keystore)? {
            let shown = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let key = match std::str::from_utf8(&content) {
                Ok(text) => PrivateKey::from_pem(text).map_err(|error| error.to_string()),
                Err(_) => Err("no PEM file".to_owned()),
            };
            match key {
                Ok(key) if key.public_key() == certificate.public_key() => {
                    let bls_keys = bls_keys(&path.join(BLS_KEYS))?;
                    return Ok(Self { bls_keys, ..Self::with(msp_id.clone(), certificate, key) });
                }
                Ok(_) => reasons.push(format!("{shown} belongs to another certificate")),
                Err(reason) => reasons.push(format!("{shown}: {reason}")),
            }
        }
        let reasons = if reasons.is_empty() { "it is empty".to_owned() } else { reasons.join("; ") };
        Err(rule(&keystore, format!("holds no private key for the certificate in signcerts ({reasons})")))
    }

    /// An identity from its parts.
    ///
    /// # Errors
    /// When the certificate does not parse, or the key is not the certificate's.
    pub fn new(msp_id: MspId, certificate_pem: &[u8], key: PrivateKey) -> Result<Self, IdentityError> {
        let certificate = Certificate::from_pem(certificate_pem)
            .map_err(|error| IdentityError::Certificate(error.to_string()))?;
        if key.public_key() != certificate.public_key() {
            return Err(IdentityError::Certificate(
                "the private key belongs to another certificate".to_owned(),
            ));
        }
        Ok(Self::with(msp_id, certificate, key))
    }

    fn with(msp_id: MspId, certificate: Certificate, key: PrivateKey) -> Self {
        let serialized = identity::serialize(&msp_id, &certificate);
        Self { msp_id, certificate, serialized, key, bls_keys: Vec::new() }
    }

    /// The same identity with these keys for signatures that add up.
    #[must_use]
    pub fn with_bls_keys(self, bls_keys: Vec<bls::SecretKey>) -> Self {
        Self { bls_keys, ..self }
    }

    /// Its keys for signatures that add up; several while one takes the place of another.
    #[must_use]
    pub fn bls_keys(&self) -> &[bls::SecretKey] {
        &self.bls_keys
    }

    /// The MSP it belongs to.
    #[must_use]
    pub fn msp_id(&self) -> &MspId {
        &self.msp_id
    }

    /// Its certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Its `SerializedIdentity`: the creator or endorser of what it signs.
    #[must_use]
    pub fn serialized(&self) -> &Bytes {
        &self.serialized
    }

    /// When its certificate ends; a node refuses to start after that.
    #[must_use]
    pub fn expires_at(&self) -> OffsetDateTime {
        self.certificate.not_after()
    }

    /// Signs a message (SHA-256, ECDSA with low S, DER).
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, consort_crypto::Error> {
        self.key.sign(message)
    }

    /// As [`SigningIdentity::sign`], for signatures that this process soon meets again among others', and need not verify then.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn sign_remembered(&self, message: &[u8]) -> Result<Vec<u8>, consort_crypto::Error> {
        self.key.sign_remembered(message)
    }

    /// Itself as others see it: read and checked by a manager's MSPs.
    ///
    /// # Errors
    /// When the identity does not belong to one of the MSPs, or is not valid there.
    pub fn identity(&self, msps: &MspManager) -> Result<Arc<Identity>, IdentityError> {
        let identity = msps.deserialize(&self.serialized)?;
        identity.validate()?;
        Ok(identity)
    }
}

/// Keys in a folder that need not be there; ours, beside the folders of Fabric's MSP.
fn bls_keys(folder: &Path) -> Result<Vec<bls::SecretKey>, FolderError> {
    let read = |(file, content): (PathBuf, Bytes)| {
        let text = std::str::from_utf8(&content).map_err(|error| error.to_string());
        let key = text.and_then(|text| bls::SecretKey::from_pem(text).map_err(|error| error.to_string()));
        key.map_err(|reason| FolderError::Rule { path: file, rule: format!("holds no BLS key: {reason}") })
    };
    folder::files(folder)?.into_iter().map(read).collect()
}

impl Signer for SigningIdentity {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, consort_crypto::Error> {
        self.key.sign(message)
    }
}

impl fmt::Debug for SigningIdentity {
    /// Never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.certificate.subject_common_name().unwrap_or_default();
        write!(f, "SigningIdentity({name} of {})", self.msp_id)
    }
}
