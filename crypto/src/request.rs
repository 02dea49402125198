//! Certificate signing requests (PKCS#10, RFC 2986).

use der::Encode;
use x509_cert::request::{CertReqInfo, ExtensionReq, Version};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

use crate::bls::{self, CertifiedKey};
use crate::certificate::{SubjectAlternativeName, alternative_name, values};
use crate::document::{self, SignedDocument};
use crate::error::unwritable;
use crate::key::{PrivateKey, PublicKey};
use crate::name::{DistinguishedName, NamePart};
use crate::{Error, issue, pem};

/// A certificate signing request: somebody shows a public key, and with a signature that the private key is theirs.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    der: Vec<u8>,
    to_be_signed: Vec<u8>,
    signature_algorithm: String,
    signature: Vec<u8>,
    subject: DistinguishedName,
    public_key: PublicKey,
    sans: Vec<SubjectAlternativeName>,
    asks_for_ca: bool,
    bls_key: Option<Vec<u8>>,
}

fn malformed(reason: impl Into<String>) -> Error {
    Error::Malformed { kind: "certificate request", reason: reason.into() }
}

impl CertificateRequest {
    /// Makes a request for a common name.
    ///
    /// # Errors
    ///
    /// When the name is too long, or the key cannot sign.
    pub fn create(
        key: &PrivateKey,
        common_name: &str,
        sans: &[SubjectAlternativeName],
    ) -> Result<Self, Error> {
        Self::create_for(key, &DistinguishedName::common_name(common_name), sans)
    }

    /// Makes a request for a common name and a BLS key, which the certificate shall carry.
    ///
    /// # Errors
    ///
    /// As [`CertificateRequest::create`].
    pub fn create_with_bls(
        key: &PrivateKey,
        common_name: &str,
        sans: &[SubjectAlternativeName],
        bls: &CertifiedKey,
    ) -> Result<Self, Error> {
        Self::make(key, &DistinguishedName::common_name(common_name), sans, Some(bls))
    }

    /// Makes a request for a whole name.
    ///
    /// # Errors
    ///
    /// When a part of the name is too long, or the key cannot sign.
    pub fn create_for(
        key: &PrivateKey,
        subject: &DistinguishedName,
        sans: &[SubjectAlternativeName],
    ) -> Result<Self, Error> {
        Self::make(key, subject, sans, None)
    }

    fn make(
        key: &PrivateKey,
        subject: &DistinguishedName,
        sans: &[SubjectAlternativeName],
        bls: Option<&CertifiedKey>,
    ) -> Result<Self, Error> {
        let mut body = CertReqInfo {
            version: Version::V1,
            subject: subject.to_name()?,
            public_key: key.public_key().to_info(),
            attributes: x509_cert::attr::Attributes::default(),
        };
        let mut extensions = Vec::new();
        if !sans.is_empty() {
            extensions.push(issue::alternative_names(sans)?);
        }
        if let Some(bls) = bls {
            extensions.push(issue::bls_key(bls)?);
        }
        if !extensions.is_empty() {
            let attribute = ExtensionReq(extensions).try_into().map_err(unwritable)?;
            body.attributes.insert(attribute).map_err(unwritable)?;
        }
        Self::from_der(&SignedDocument::sign(&body.to_der().map_err(unwritable)?, key)?)
    }

    /// Reads a PEM request (`CERTIFICATE REQUEST` or `NEW CERTIFICATE REQUEST`).
    ///
    /// # Errors
    ///
    /// When there is no such block, or it does not parse. The signature is not looked at: see
    /// [`CertificateRequest::verify`].
    pub fn from_pem(text: impl AsRef<[u8]>) -> Result<Self, Error> {
        let block = pem::blocks(text.as_ref())
            .find(|block| block.label == "CERTIFICATE REQUEST" || block.label == "NEW CERTIFICATE REQUEST")
            .ok_or(Error::Pem { expected: "CERTIFICATE REQUEST" })?;
        Self::from_der(&block.contents)
    }

    /// Reads a DER request.
    ///
    /// # Errors
    ///
    /// When the bytes are not exactly one request in DER: the frame around body and signature is not signed, so only its one
    /// encoding counts (X.690 section 10).
    pub fn from_der(bytes: &[u8]) -> Result<Self, Error> {
        document::check_strict(bytes).map_err(malformed)?;
        SignedDocument::from_der(bytes).and_then(|document| document.check_algorithm()).map_err(malformed)?;
        let (rest, parsed) =
            X509CertificationRequest::from_der(bytes).map_err(|cause| malformed(cause.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("trailing data"));
        }
        let body = &parsed.certification_request_info;
        let mut subject = DistinguishedName::new();
        for part in NamePart::ALL {
            for value in values(&body.subject, &part.identifier_text()) {
                subject.push(part, &value);
            }
        }
        let mut request = Self {
            der: bytes.to_vec(),
            to_be_signed: body.raw.to_vec(),
            signature_algorithm: parsed.signature_algorithm.algorithm.to_id_string(),
            signature: parsed.signature_value.data.to_vec(),
            subject,
            public_key: PublicKey::from_info(&body.subject_pki)?,
            sans: Vec::new(),
            asks_for_ca: false,
            bls_key: None,
        };
        for extension in parsed.requested_extensions().into_iter().flatten() {
            request.add(extension)?;
        }
        for attribute in body.iter_attributes() {
            let ParsedCriAttribute::ExtensionRequest(wished) = attribute.parsed_attribute() else { continue };
            let keys = wished.extensions.iter().filter(|wish| wish.oid.to_id_string() == bls::EXTENSION_OID);
            for wish in keys {
                if request.bls_key.replace(wish.value.to_vec()).is_some() {
                    return Err(malformed("two BLS keys"));
                }
            }
        }
        Ok(request)
    }

    fn add(&mut self, extension: &ParsedExtension<'_>) -> Result<(), Error> {
        match extension {
            ParsedExtension::SubjectAlternativeName(names) => {
                for name in &names.general_names {
                    self.sans.extend(alternative_name(name)?);
                }
            }
            ParsedExtension::BasicConstraints(constraints) => self.asks_for_ca |= constraints.ca,
            ParsedExtension::ParseError { error } => return Err(malformed(error.to_string())),
            _ => {}
        }
        Ok(())
    }

    /// The signature is that of the public key in the request.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub fn verify(&self) -> Result<(), Error> {
        self.public_key.verify_document(&self.signature_algorithm, &self.to_be_signed, &self.signature)
    }

    /// The request as DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The request as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        pem::encode("CERTIFICATE REQUEST", &self.der)
    }

    /// The wished common name.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        self.subject.parts().find(|(part, _)| *part == NamePart::CommonName).map(|(_, value)| value)
    }

    /// The parts of the wished name that are understood, by kind.
    #[must_use]
    pub fn subject(&self) -> &DistinguishedName {
        &self.subject
    }

    /// The wished other names.
    #[must_use]
    pub fn sans(&self) -> &[SubjectAlternativeName] {
        &self.sans
    }

    /// The key to be certified.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The BLS key that the certificate shall carry, if any.
    ///
    /// # Errors
    ///
    /// Those of [`CertifiedKey::from_der`]: whoever asks does not hold the key, or it is another member's.
    pub fn bls_key(&self) -> Result<Option<CertifiedKey>, Error> {
        self.bls_key.as_deref().map(|value| CertifiedKey::from_der(value, &self.public_key)).transpose()
    }

    /// The request wants to become an authority.
    #[must_use]
    pub fn asks_for_ca(&self) -> bool {
        self.asks_for_ca
    }
}
