//! Who a client is: a certificate under an MSP id, and something that signs for it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use consort_crypto::certificate::Certificate;
use consort_crypto::key::{PrivateKey, Signer};
use consort_msp::SigningIdentity;
use consort_protos::consort::identities::Entry;
use consort_protos::entry::EntryNumber;
use consort_protos::fabric::msp::SerializedIdentity;
use consort_protos::ids::MspId;
use prost::Message;
use zeroize::Zeroizing;

use crate::error::Error;

/// An identity that can sign. Cheap to clone.
#[derive(Clone)]
pub struct ClientIdentity {
    msp_id: String,
    serialized: Bytes,
    entry: Option<EntryNumber>,
    signer: Arc<dyn Signer>,
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClientIdentity").field("msp_id", &self.msp_id).finish_non_exhaustive()
    }
}

impl ClientIdentity {
    /// An identity from its certificate (PEM, used exactly as given) and a signer, which may live in an HSM.
    #[must_use]
    pub fn new(
        msp_id: impl Into<String>,
        certificate_pem: impl Into<Bytes>,
        signer: Arc<dyn Signer>,
    ) -> Self {
        let msp_id = msp_id.into();
        let identity = SerializedIdentity {
            mspid: msp_id.clone(),
            id_bytes: certificate_pem.into(),
            ..SerializedIdentity::default()
        };
        Self { msp_id, serialized: identity.encode_to_vec().into(), entry: None, signer }
    }

    /// An identity whose signatures a function makes: a wallet, an HSM, a service elsewhere. It gets the message, and returns
    /// the signature over its SHA-256 (ECDSA in DER, with a low S).
    ///
    /// ```
    /// use consort_client_sdk::ClientIdentity;
    ///
    /// let wallet = |message: &[u8]| Err(format!("the wallet is locked ({} bytes to sign)", message.len()));
    /// let identity = ClientIdentity::with_signer("Org1MSP", "certificate in PEM", wallet);
    /// assert!(identity.sign(b"proposal").is_err());
    /// ```
    #[must_use]
    pub fn with_signer<F>(msp_id: impl Into<String>, certificate_pem: impl Into<Bytes>, sign: F) -> Self
    where
        F: Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync + 'static,
    {
        Self::new(msp_id, certificate_pem, Arc::new(SigningFunction(sign)))
    }

    /// An identity that cannot sign: every step's bytes are signed elsewhere.
    #[must_use]
    pub fn without_key(msp_id: impl Into<String>, certificate_pem: impl Into<Bytes>) -> Self {
        Self::with_signer(msp_id, certificate_pem, |_| {
            Err("this identity has no key; take the bytes to sign out of each step".to_owned())
        })
    }

    /// An identity from its certificate and its private key in PEM (PKCS#8, as Fabric's tools and OpenSSL write it). It signs as the
    /// key does: ECDSA and SM2 in DER, Ed25519 plainly.
    ///
    /// ```
    /// use consort_client_sdk::ClientIdentity;
    ///
    /// let key = "-----BEGIN PRIVATE KEY-----\nno key\n-----END PRIVATE KEY-----\n";
    /// let error = ClientIdentity::from_pem("Org1MSP", "certificate in PEM", key).unwrap_err();
    /// assert!(matches!(error, consort_client_sdk::Error::Key(_)));
    /// ```
    ///
    /// # Errors
    /// [`Error::Key`] when the key cannot be read or belongs to another certificate.
    pub fn from_pem(
        msp_id: impl Into<String>,
        certificate_pem: impl Into<Bytes>,
        key_pem: &str,
    ) -> Result<Self, Error> {
        let certificate_pem = certificate_pem.into();
        let key = PrivateKey::from_pem(key_pem).map_err(Error::Key)?;
        let certificate = Certificate::from_pem(&certificate_pem).map_err(Error::Key)?;
        if certificate.public_key() != key.public_key() {
            let reason = "it belongs to another certificate".to_owned();
            return Err(Error::Key(consort_crypto::Error::PrivateKey(reason)));
        }
        Ok(Self::new(msp_id, certificate_pem, Arc::new(key)))
    }

    /// An identity from the files of its certificate and of its private key, as [`ClientIdentity::from_pem`] reads them.
    ///
    /// # Errors
    /// [`Error::Identity`] names the file that cannot be read; [`Error::Key`].
    pub fn from_files(msp_id: impl Into<String>, certificate: &Path, key: &Path) -> Result<Self, Error> {
        let read = |path: &Path| {
            std::fs::read_to_string(path)
                .map_err(|error| Error::Identity { folder: path.display().to_string(), source: error.into() })
        };
        let key = Zeroizing::new(read(key)?);
        Self::from_pem(msp_id, read(certificate)?, &key)
    }

    /// An identity from an MSP folder (`signcerts`, `keystore`), as Fabric's tools write it.
    ///
    /// # Errors
    /// [`Error::Identity`] when the folder holds no matching certificate and key.
    pub fn from_folder(folder: &Path, msp_id: &str) -> Result<Self, Error> {
        let unusable = |source| Error::Identity { folder: folder.display().to_string(), source };
        let id = MspId::parse(msp_id).map_err(|error| unusable(error.into()))?;
        let identity = SigningIdentity::from_folder(folder, &id).map_err(|error| unusable(error.into()))?;
        let serialized = identity.serialized().clone();
        Ok(Self { msp_id: msp_id.to_owned(), serialized, entry: None, signer: Arc::new(identity) })
    }

    /// The MSP id.
    #[must_use]
    pub fn msp_id(&self) -> &str {
        &self.msp_id
    }

    /// The identity as it stands in messages (`msp.SerializedIdentity`).
    #[must_use]
    pub fn serialized(&self) -> &Bytes {
        &self.serialized
    }

    /// The same identity, named by an entry of the channel's table of identities ([`crate::registered`]) in its proposals and
    /// transactions, which saves its certificate twice in each. The gateway has to be one that knows such tables.
    #[must_use]
    pub fn named_by(self, entry: &Entry) -> Self {
        Self { entry: EntryNumber::new(entry.number), ..self }
    }

    /// The identity as it stands in proposals and transactions.
    #[must_use]
    pub fn creator(&self) -> Bytes {
        self.entry.map_or_else(|| self.serialized.clone(), EntryNumber::serialize)
    }

    /// Signs a message (SHA-256, then ECDSA, DER with low S).
    ///
    /// # Errors
    /// [`Error::Sign`] when the key cannot be used.
    pub fn sign(&self, message: &[u8]) -> Result<Bytes, Error> {
        self.signer.sign(message).map(Bytes::from).map_err(Error::Sign)
    }
}

/// A function as a signer.
struct SigningFunction<F>(F);

impl<F> Signer for SigningFunction<F>
where
    F: Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync,
{
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, consort_crypto::Error> {
        (self.0)(message).map_err(consort_crypto::Error::PrivateKey)
    }
}

#[cfg(test)]
mod tests {
    use consort_crypto::issue::{CertificateAuthority, DistinguishedName, Validity};
    use consort_crypto::key::KeyAlgorithm;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_key_in_a_file_signs_for_its_certificate_and_for_no_other() {
        let validity = Validity {
            not_before: datetime!(2020-01-01 00:00 UTC),
            not_after: datetime!(2040-01-01 00:00 UTC),
        };
        let made = |name: &str, algorithm| {
            let key = PrivateKey::generate(algorithm).unwrap();
            let text = key.to_pem().to_string();
            let root = CertificateAuthority::new_root(&DistinguishedName::common_name(name), key, validity);
            (root.unwrap().certificate().clone(), text)
        };
        let folder = tempfile::tempdir().unwrap();
        let (certificate_file, key_file) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        for algorithm in KeyAlgorithm::ALL {
            let (certificate, key) = made("alice", algorithm);
            std::fs::write(&certificate_file, certificate.pem()).unwrap();
            std::fs::write(&key_file, &key).unwrap();
            let identity = ClientIdentity::from_files("Org1MSP", &certificate_file, &key_file).unwrap();
            let signature = identity.sign(b"proposal").unwrap();
            certificate.public_key().verify(b"proposal", &signature).unwrap();
        }
        let ((mine, _), (_, other)) = (made("alice", KeyAlgorithm::P256), made("bob", KeyAlgorithm::P256));
        let error = ClientIdentity::from_pem("Org1MSP", mine.pem(), &other).unwrap_err();
        assert!(matches!(error, Error::Key(_)), "{error}");
        let missing = ClientIdentity::from_files("Org1MSP", &certificate_file, &folder.path().join("no.pem"));
        assert!(missing.unwrap_err().to_string().contains("no.pem"));
    }

    #[test]
    fn a_function_signs_for_an_identity() {
        let identity = ClientIdentity::with_signer("Org1MSP", "pem", |message| Ok(message.to_vec()));
        assert_eq!(identity.sign(b"m").unwrap(), Bytes::from_static(b"m"));
        let error = ClientIdentity::without_key("Org1MSP", "pem").sign(b"m").unwrap_err();
        assert!(matches!(error, Error::Sign(_)), "{error}");
    }
}
