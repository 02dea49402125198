//! Lists of revoked certificates (RFC 5280 section 5).

use bytes::Bytes;
use time::OffsetDateTime;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::certificate::Certificate;
use crate::document::{self, SignedDocument};
use crate::{Error, pem};

/// An entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedCertificate {
    /// The serial number, big-endian.
    pub serial: Vec<u8>,
    /// When it was revoked.
    pub revoked_at: OffsetDateTime,
    /// Why (RFC 5280 section 5.3.1); 0 is unspecified.
    pub reason: u8,
}

/// A list of revoked certificates.
#[derive(Clone, Debug)]
pub struct RevocationList {
    der: Bytes,
    to_be_signed: Bytes,
    signature_algorithm: String,
    signature: Bytes,
    issuer: Bytes,
    authority_key_id: Option<Bytes>,
    this_update: OffsetDateTime,
    next_update: Option<OffsetDateTime>,
    revoked: Vec<RevokedCertificate>,
}

fn malformed(reason: impl Into<String>) -> Error {
    Error::Malformed { kind: "revocation list", reason: reason.into() }
}

impl RevocationList {
    /// Reads the first PEM block of a text, or the text as DER when it holds none.
    ///
    /// # Errors
    ///
    /// When it is no list.
    pub fn from_pem_or_der(bytes: &[u8]) -> Result<Self, Error> {
        match pem::first_block(bytes) {
            Some(block) => Self::from_der(&block.contents),
            None => Self::from_der(bytes),
        }
    }

    /// Reads DER.
    ///
    /// # Errors
    ///
    /// When the bytes are not exactly one list in DER, or its body names another algorithm than its signature.
    pub fn from_der(bytes: &[u8]) -> Result<Self, Error> {
        document::check_strict(bytes).map_err(malformed)?;
        SignedDocument::from_der(bytes).map_err(malformed)?;
        let der = Bytes::copy_from_slice(bytes);
        let (rest, parsed) =
            CertificateRevocationList::from_der(&der).map_err(|cause| malformed(cause.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("trailing data"));
        }
        let body = &parsed.tbs_cert_list;
        if body.signature != parsed.signature_algorithm {
            return Err(malformed("inner and outer signature algorithm differ"));
        }
        let authority_key_id =
            parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    id.key_identifier.as_ref().map(|id| der.slice_ref(id.0))
                }
                _ => None,
            });
        let revoked = parsed.iter_revoked_certificates().map(|entry| RevokedCertificate {
            serial: entry.raw_serial().to_vec(),
            revoked_at: entry.revocation_date.to_datetime(),
            reason: entry.reason_code().map_or(0, |(_, reason)| reason.0),
        });
        Ok(Self {
            to_be_signed: der.slice_ref(body.as_ref()),
            signature_algorithm: parsed.signature_algorithm.algorithm.to_id_string(),
            signature: der.slice_ref(&parsed.signature_value.data),
            issuer: der.slice_ref(body.issuer.as_raw()),
            authority_key_id,
            this_update: body.this_update.to_datetime(),
            next_update: body.next_update.map(|time| time.to_datetime()),
            revoked: revoked.collect(),
            der: der.clone(),
        })
    }

    /// The list as DER.
    #[must_use]
    pub fn der(&self) -> &Bytes {
        &self.der
    }

    /// The list as PEM (`X509 CRL`).
    #[must_use]
    pub fn pem(&self) -> String {
        pem::encode("X509 CRL", &self.der)
    }

    /// DER of the issuer's name.
    #[must_use]
    pub fn issuer_bytes(&self) -> &Bytes {
        &self.issuer
    }

    /// The key identifier of the authority.
    #[must_use]
    pub fn authority_key_id(&self) -> Option<&[u8]> {
        self.authority_key_id.as_deref()
    }

    /// When the list was issued.
    #[must_use]
    pub fn this_update(&self) -> OffsetDateTime {
        self.this_update
    }

    /// When the next list is due.
    #[must_use]
    pub fn next_update(&self) -> Option<OffsetDateTime> {
        self.next_update
    }

    /// The entries.
    #[must_use]
    pub fn revoked(&self) -> &[RevokedCertificate] {
        &self.revoked
    }

    /// The certificate's serial number is on the list. Whether both are of the same authority is for the caller to check.
    #[must_use]
    pub fn contains(&self, certificate: &Certificate) -> bool {
        let serial = without_zeros(certificate.serial());
        self.revoked.iter().any(|entry| without_zeros(&entry.serial) == serial)
    }

    /// The signature is the authority's.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub fn verify_issued_by(&self, authority: &Certificate) -> Result<(), Error> {
        authority.public_key().verify_document(&self.signature_algorithm, &self.to_be_signed, &self.signature)
    }
}

fn without_zeros(serial: &[u8]) -> &[u8] {
    &serial[serial.iter().take_while(|byte| **byte == 0).count()..]
}
