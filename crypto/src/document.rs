//! The shape that certificates, requests and lists of revoked certificates share: a body, an algorithm, a signature
//! (RFC 5280 sections 4.1 and 5.1, RFC 2986 section 4.2).

use der::asn1::{AnyRef, BitStringRef, IntRef};
use der::{Decode, Encode, Reader, Sequence, SliceReader, Tag};
use signature::Keypair;
use x509_cert::spki::{
    self, AlgorithmIdentifierOwned, AlgorithmIdentifierRef, DynSignatureAlgorithmIdentifier, EncodePublicKey,
};

use crate::Error;
use crate::error::unwritable;
use crate::key::{PrivateKey, PublicKey};

/// How deep elements may lie within each other. A certificate with all extensions of RFC 5280 needs about ten.
const DEPTH_MAX: u8 = 24;

/// Object identifiers of RSA signatures begin so (RFC 8017 appendix A.2).
const RSA_ALGORITHMS: &str = "1.2.840.113549.1.1.";

/// A signed document. Its parts keep the bytes that were read.
#[derive(Sequence)]
pub(crate) struct SignedDocument<'a> {
    body: AnyRef<'a>,
    algorithm: AnyRef<'a>,
    signature: BitStringRef<'a>,
}

impl<'a> SignedDocument<'a> {
    /// Takes a document apart; says what is wrong otherwise.
    pub(crate) fn from_der(bytes: &'a [u8]) -> Result<Self, String> {
        let document = <Self as Decode>::from_der(bytes).map_err(|cause| cause.to_string())?;
        if document.signature.has_unused_bits() {
            return Err("the signature is not of whole bytes".to_owned());
        }
        Ok(document)
    }

    /// The algorithm's parameters are those of its standard: none (RFC 5758 section 3.2, RFC 8410 section 3, GM/T 0015), and a
    /// null for RSA (RFC 4055 section 5). A document whose body does not repeat the algorithm leaves it unsigned, so
    /// that a second form of it would be a second encoding of the document.
    pub(crate) fn check_algorithm(&self) -> Result<(), String> {
        let algorithm: AlgorithmIdentifierRef<'_> =
            self.algorithm.decode_as().map_err(|cause: der::Error| cause.to_string())?;
        let wants_null = algorithm.oid.to_string().starts_with(RSA_ALGORITHMS);
        match algorithm.parameters {
            None if !wants_null => Ok(()),
            Some(parameters) if wants_null && parameters.is_null() => Ok(()),
            _ => Err("the signature algorithm has other parameters than its standard gives it".to_owned()),
        }
    }

    /// The signature's bytes.
    pub(crate) fn signature(&self) -> &'a [u8] {
        self.signature.raw_bytes()
    }

    /// The same document with another signature.
    pub(crate) fn with_signature(&self, signature: &[u8]) -> Vec<u8> {
        let signature = BitStringRef::from_bytes(signature).expect("invariant: a signature is short");
        let document = SignedDocument { body: self.body, algorithm: self.algorithm, signature };
        document.to_der().expect("invariant: not longer than what was read")
    }

    /// Joins a body to its signature by a key.
    pub(crate) fn sign(body: &[u8], key: &PrivateKey) -> Result<Vec<u8>, Error> {
        let algorithm = DocumentSigner(key).signature_algorithm_identifier().map_err(unwritable)?;
        let algorithm = algorithm.to_der().map_err(unwritable)?;
        let signature = key.sign_document(body)?;
        let document = SignedDocument {
            body: AnyRef::from_der(body).map_err(unwritable)?,
            algorithm: AnyRef::from_der(&algorithm).map_err(unwritable)?,
            signature: BitStringRef::from_bytes(&signature).map_err(unwritable)?,
        };
        document.to_der().map_err(unwritable)
    }
}

/// A key as the certificate builder wants it: it names its algorithm and public key; [`SignedDocument::sign`] signs.
pub(crate) struct DocumentSigner<'a>(pub(crate) &'a PrivateKey);

impl Keypair for DocumentSigner<'_> {
    type VerifyingKey = PublicKey;

    fn verifying_key(&self) -> PublicKey {
        self.0.public_key().clone()
    }
}

impl DynSignatureAlgorithmIdentifier for DocumentSigner<'_> {
    fn signature_algorithm_identifier(&self) -> spki::Result<AlgorithmIdentifierOwned> {
        // None of the algorithms has parameters (RFC 5758 section 3.2, RFC 8410 section 3, GM/T 0015).
        Ok(AlgorithmIdentifierOwned { oid: self.0.algorithm().document_signature(), parameters: None })
    }
}

impl EncodePublicKey for PublicKey {
    fn to_public_key_der(&self) -> spki::Result<der::Document> {
        Ok(der::Document::encode_msg(&self.to_info())?)
    }
}

/// Every element has its only encoding as far as form goes: minimal lengths, minimal integers, truth values of `00` or `ff`,
/// nothing after the document (X.690 sections 10.1, 8.3.2 and 11.1). What octet strings wrap is looked at by those who open
/// them.
pub(crate) fn check_strict(bytes: &[u8]) -> Result<(), String> {
    let outer = AnyRef::from_der(bytes).map_err(|cause| cause.to_string())?;
    check_element(&outer, DEPTH_MAX).map_err(|cause| cause.to_string())
}

fn check_element(element: &AnyRef<'_>, depth: u8) -> Result<(), der::Error> {
    use der::Tagged;
    match element.tag() {
        Tag::Boolean => element.decode_as::<bool>().map(|_| ()),
        Tag::Integer => element.decode_as::<IntRef<'_>>().map(|_| ()),
        tag if !tag.is_constructed() => Ok(()),
        tag if depth == 0 => Err(tag.value_error().into()),
        _ => {
            let mut reader = SliceReader::new(element.value())?;
            while !reader.is_finished() {
                check_element(&AnyRef::decode(&mut reader)?, depth - 1)?;
            }
            Ok(())
        }
    }
}
