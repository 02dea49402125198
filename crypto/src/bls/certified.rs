//! A BLS key in a certificate, or in the request for one.

use der::asn1::{ObjectIdentifier, OctetStringRef, Utf8StringRef};
use der::{Decode, Encode, Sequence};

use super::{Owner, Proof, PublicKey, SecretKey};
use crate::{Error, key};

/// The extension with a BLS key, beside Fabric's extension with attributes (1.2.3.4.5.6.7.8.1) and never critical: whoever
/// does not know it passes it over.
pub const EXTENSION_OID: &str = "1.2.3.4.5.6.7.8.1000";

/// The only suite: BLS12-381, signatures in G1, proof-of-possession scheme.
const SUITE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.3.4.5.6.7.8.1000.1");

/// The only version of the extension.
const VERSION: u8 = 1;

#[derive(Sequence)]
struct Value<'a> {
    version: u8,
    suite: ObjectIdentifier,
    msp_id: Utf8StringRef<'a>,
    public_key: &'a OctetStringRef,
    proof: &'a OctetStringRef,
}

/// A BLS key that belongs to the holder of a certificate: SEQUENCE { version INTEGER, suite OBJECT IDENTIFIER, mspId
/// UTF8String, publicKey OCTET STRING, proof OCTET STRING }. The proof names the organisation and the certificate's own public
/// key, and no channel: it is good for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertifiedKey {
    /// The organisation that the holder is a member of.
    pub msp_id: String,
    /// The key.
    pub public_key: PublicKey,
    /// The proof, which is verified: values of this type come from [`Self::prove`] and [`Self::from_der`] only.
    pub proof: Proof,
}

impl CertifiedKey {
    /// Proves a key for the holder of another key, which the certificate is about.
    #[must_use]
    pub fn prove(secret: &SecretKey, msp_id: &str, holder: &key::PublicKey) -> Self {
        let proof = secret.prove(&Owner::new(msp_id, holder, ""));
        Self { msp_id: msp_id.to_owned(), public_key: secret.public_key().clone(), proof }
    }

    /// Reads the extension's value and checks the proof against the certificate's public key.
    ///
    /// # Errors
    ///
    /// When it is no such value in DER, the key is not valid, or the proof is not that of key, organisation and holder.
    pub fn from_der(value: &[u8], holder: &key::PublicKey) -> Result<Self, Error> {
        let malformed = |reason: String| Error::Malformed { kind: "BLS key extension", reason };
        let read = Value::from_der(value).map_err(|cause| malformed(cause.to_string()))?;
        if read.version != VERSION || read.suite != SUITE {
            return Err(malformed(format!(
                "version {} and suite {} are not known",
                read.version, read.suite
            )));
        }
        let msp_id = read.msp_id.as_str().to_owned();
        let public_key = PublicKey::from_bytes(read.public_key.as_bytes())?;
        let proof = Proof::from_bytes(read.proof.as_bytes())?;
        proof.verify(&public_key, &Owner::new(&msp_id, holder, ""))?;
        Ok(Self { msp_id, public_key, proof })
    }

    /// The extension's value.
    ///
    /// # Panics
    ///
    /// When the organisation's name has 256 MiB or more.
    #[must_use]
    pub fn to_der(&self) -> Vec<u8> {
        let written = || -> Result<Vec<u8>, der::Error> {
            let proof = self.proof.to_bytes();
            let value = Value {
                version: VERSION,
                suite: SUITE,
                msp_id: Utf8StringRef::new(&self.msp_id)?,
                public_key: OctetStringRef::new(self.public_key.as_bytes())?,
                proof: OctetStringRef::new(&proof)?,
            };
            value.to_der()
        };
        written().expect("invariant: names are short")
    }
}
