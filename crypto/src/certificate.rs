//! X.509 certificates (RFC 5280), read once and strictly.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use bytes::Bytes;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use crate::bls::{self, CertifiedKey};
use crate::document::{self, SignedDocument};
use crate::hash::sha256;
use crate::key::PublicKey;
use crate::signature::EcdsaSignature;
use crate::{Error, pem};

/// The extension in which Fabric's authorities put attributes of an identity, as JSON.
pub const ATTRIBUTES_OID: &str = "1.2.3.4.5.6.7.8.1";

/// Algorithm identifiers of ECDSA with SHA-1 and SHA-2.
const ECDSA_ALGORITHMS: [&str; 4] =
    ["1.2.840.10045.4.1", "1.2.840.10045.4.3.2", "1.2.840.10045.4.3.3", "1.2.840.10045.4.3.4"];

/// What a key may be used for (RFC 5280 section 4.2.1.3): a set of named bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyUsage(u16);

impl KeyUsage {
    /// Signatures over messages.
    pub const DIGITAL_SIGNATURE: Self = Self(1);
    /// Encryption of keys.
    pub const KEY_ENCIPHERMENT: Self = Self(1 << 2);
    /// Agreement on keys.
    pub const KEY_AGREEMENT: Self = Self(1 << 4);
    /// Signatures over certificates.
    pub const CERTIFICATE_SIGN: Self = Self(1 << 5);
    /// Signatures over lists of revoked certificates.
    pub const CRL_SIGN: Self = Self(1 << 6);

    /// Takes named bits; bit 0 is `digitalSignature`.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The named bits; bit 0 is `digitalSignature`.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Every use of `other` is allowed.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A purpose of a certificate (RFC 5280 section 4.2.1.12).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExtendedKeyUsage {
    /// Any purpose.
    Any,
    /// TLS server.
    ServerAuth,
    /// TLS client.
    ClientAuth,
    /// Another purpose, by its object identifier.
    Other(String),
}

/// Another name of a certificate's holder (RFC 5280 section 4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SubjectAlternativeName {
    /// A host name.
    Dns(String),
    /// An address.
    Ip(IpAddr),
    /// A mail address.
    Email(String),
    /// A URI.
    Uri(String),
}

impl SubjectAlternativeName {
    /// Takes a text as Fabric's tools do: an address, a mail address (with `@`), a URI (with `://`) or else a host name.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        match text.parse() {
            Ok(address) => Self::Ip(address),
            Err(_) if text.contains("://") => Self::Uri(text.to_owned()),
            Err(_) if text.contains('@') => Self::Email(text.to_owned()),
            Err(_) => Self::Dns(text.to_owned()),
        }
    }
}

impl fmt::Display for SubjectAlternativeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(text) | Self::Email(text) | Self::Uri(text) => formatter.write_str(text),
            Self::Ip(address) => address.fmt(formatter),
        }
    }
}

/// A certificate. Its DER is that of the input, except that an ECDSA signature with the higher S is replaced by its twin:
/// Fabric takes every hash and comparison over that form (`msp/cert.go`).
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Bytes,
    to_be_signed: Bytes,
    signature_algorithm: String,
    signature: Bytes,
    subject: Bytes,
    issuer: Bytes,
    subject_text: String,
    issuer_text: String,
    common_name: Option<String>,
    organizational_units: Vec<String>,
    serial: Bytes,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    public_key: PublicKey,
    extensions: Extensions,
}

#[derive(Clone, Default, PartialEq, Eq)]
struct Extensions {
    subject_key_id: Option<Bytes>,
    authority_key_id: Option<Bytes>,
    basic_constraints: Option<(bool, Option<u32>)>,
    key_usage: Option<KeyUsage>,
    extended_key_usage: Option<Vec<ExtendedKeyUsage>>,
    alternative_names: Vec<SubjectAlternativeName>,
    attributes: BTreeMap<String, String>,
    bls_key: Option<Bytes>,
    has_name_constraints: bool,
    has_unknown_critical: bool,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Certificate")
            .field("subject", &self.subject_text)
            .field("issuer", &self.issuer_text)
            .field("serial", &self.serial_hex())
            .finish_non_exhaustive()
    }
}

fn malformed(reason: impl Into<String>) -> Error {
    Error::Malformed { kind: "certificate", reason: reason.into() }
}

impl Certificate {
    /// Reads the first PEM block of a text, whatever its label; text around it does not matter.
    ///
    /// # Errors
    ///
    /// When there is no block, or it holds no certificate.
    pub fn from_pem(text: impl AsRef<[u8]>) -> Result<Self, Error> {
        let block = pem::first_block(text.as_ref()).ok_or(Error::Pem { expected: "CERTIFICATE" })?;
        Self::from_der(&block.contents)
    }

    /// Reads all certificates of a PEM text.
    ///
    /// # Errors
    ///
    /// When there is none, or one does not parse.
    pub fn all_from_pem(text: &[u8]) -> Result<Vec<Self>, Error> {
        let blocks = pem::blocks(text).filter(|block| block.label == "CERTIFICATE");
        let certificates =
            blocks.map(|block| Self::from_der(&block.contents)).collect::<Result<Vec<_>, _>>()?;
        if certificates.is_empty() { Err(Error::Pem { expected: "CERTIFICATE" }) } else { Ok(certificates) }
    }

    /// Reads DER.
    ///
    /// # Errors
    ///
    /// When the bytes are not exactly one certificate, an extension occurs twice or does not parse, or the key is of no
    /// supported kind.
    pub fn from_der(bytes: &[u8]) -> Result<Self, Error> {
        let der = match sanitised(bytes)? {
            Some(rewritten) => Bytes::from(rewritten),
            None => Bytes::copy_from_slice(bytes),
        };
        let parsed = parse(&der)?;
        let part = |slice: &[u8]| der.slice_ref(slice);
        let body = &parsed.tbs_certificate;
        let certificate = Self {
            to_be_signed: part(body.as_ref()),
            signature_algorithm: parsed.signature_algorithm.algorithm.to_id_string(),
            signature: part(&parsed.signature_value.data),
            subject: part(body.subject.as_raw()),
            issuer: part(body.issuer.as_raw()),
            subject_text: body.subject.to_string(),
            issuer_text: body.issuer.to_string(),
            common_name: values(&body.subject, "2.5.4.3").into_iter().next(),
            organizational_units: values(&body.subject, "2.5.4.11"),
            serial: part(body.raw_serial()),
            not_before: body.validity.not_before.to_datetime(),
            not_after: body.validity.not_after.to_datetime(),
            public_key: PublicKey::from_info(&body.subject_pki)?,
            extensions: Extensions::read(body.extensions())?,
            der: der.clone(),
        };
        Ok(certificate)
    }

    /// The certificate, low-S.
    #[must_use]
    pub fn der(&self) -> &Bytes {
        &self.der
    }

    /// The certificate, low-S, as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        pem::encode("CERTIFICATE", &self.der)
    }

    /// SHA-256 of the low-S DER.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        sha256(&self.der)
    }

    /// DER of the subject's name.
    #[must_use]
    pub fn subject_bytes(&self) -> &Bytes {
        &self.subject
    }

    /// DER of the issuer's name.
    #[must_use]
    pub fn issuer_bytes(&self) -> &Bytes {
        &self.issuer
    }

    /// The subject's name for people.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject_text
    }

    /// The issuer's name for people.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer_text
    }

    /// The subject's first common name.
    #[must_use]
    pub fn subject_common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// The subject's organisational units, in order, repeated ones included.
    #[must_use]
    pub fn organizational_units(&self) -> Vec<String> {
        self.organizational_units.clone()
    }

    /// The serial number's bytes as they stand in the certificate; a leading zero is possible.
    #[must_use]
    pub fn serial(&self) -> &Bytes {
        &self.serial
    }

    /// The serial number in lower-case hex without leading zeros, as Fabric's authority keys its certificates.
    #[must_use]
    pub fn serial_hex(&self) -> String {
        let digits = hex::encode(&self.serial);
        match digits.trim_start_matches('0') {
            "" => "0".to_owned(),
            significant => significant.to_owned(),
        }
    }

    /// The subject key identifier.
    #[must_use]
    pub fn subject_key_id(&self) -> Option<&[u8]> {
        self.extensions.subject_key_id.as_deref()
    }

    /// The key identifier of the authority.
    #[must_use]
    pub fn authority_key_id(&self) -> Option<&[u8]> {
        self.extensions.authority_key_id.as_deref()
    }

    /// Start of the validity.
    #[must_use]
    pub fn not_before(&self) -> OffsetDateTime {
        self.not_before
    }

    /// End of the validity.
    #[must_use]
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// The basic constraints say that this is an authority.
    #[must_use]
    pub fn is_ca(&self) -> bool {
        self.extensions.basic_constraints.is_some_and(|(is_ca, _)| is_ca)
    }

    /// How many authorities may follow below this one; `None` is no limit.
    #[must_use]
    pub fn path_len(&self) -> Option<u32> {
        self.extensions.basic_constraints.and_then(|(_, path_len)| path_len)
    }

    /// The key usage; `None` when the extension is absent, which allows everything.
    #[must_use]
    pub fn key_usage(&self) -> Option<KeyUsage> {
        self.extensions.key_usage
    }

    /// The extended key usage; `None` when the extension is absent, which allows everything.
    #[must_use]
    pub fn extended_key_usage(&self) -> Option<&[ExtendedKeyUsage]> {
        self.extensions.extended_key_usage.as_deref()
    }

    /// The other names of the holder.
    #[must_use]
    pub fn subject_alternative_names(&self) -> &[SubjectAlternativeName] {
        &self.extensions.alternative_names
    }

    /// The holder's BLS key, if the certificate carries one.
    ///
    /// # Errors
    ///
    /// Those of [`CertifiedKey::from_der`]: an authority that does not look has certified a key that does not count.
    pub fn bls_key(&self) -> Result<Option<CertifiedKey>, Error> {
        let value = self.extensions.bls_key.as_deref();
        value.map(|value| CertifiedKey::from_der(value, &self.public_key)).transpose()
    }

    /// The identity's attributes out of Fabric's extension; empty when it is absent.
    #[must_use]
    pub fn attributes(&self) -> &BTreeMap<String, String> {
        &self.extensions.attributes
    }

    /// The certificate restricts the names below it.
    #[must_use]
    pub fn has_name_constraints(&self) -> bool {
        self.extensions.has_name_constraints
    }

    /// A critical extension is not understood, so that the certificate must not be accepted (RFC 5280 section 4.2).
    #[must_use]
    pub fn has_unknown_critical_extension(&self) -> bool {
        self.extensions.has_unknown_critical
    }

    /// The holder's key.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Object identifier of the algorithm that signed the certificate.
    #[must_use]
    pub fn signature_algorithm(&self) -> &str {
        &self.signature_algorithm
    }

    /// The names match and the signature is the issuer's. Whether the issuer is an authority, and its validity, are for
    /// the chain's check.
    ///
    /// # Errors
    ///
    /// When the names differ, or the signature does not hold.
    pub fn verify_issued_by(&self, issuer: &Certificate) -> Result<(), Error> {
        if self.issuer != issuer.subject {
            return Err(Error::DoesNotBelong("the issuer has another name"));
        }
        issuer.public_key.verify_document(&self.signature_algorithm, &self.to_be_signed, &self.signature)
    }
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Error> {
    document::check_strict(der).map_err(malformed)?;
    let (rest, parsed) = X509Certificate::from_der(der).map_err(|cause| malformed(cause.to_string()))?;
    if !rest.is_empty() {
        return Err(malformed("trailing data"));
    }
    if parsed.tbs_certificate.signature != parsed.signature_algorithm {
        return Err(malformed("inner and outer signature algorithm differ"));
    }
    Ok(parsed)
}

/// The same certificate with the lower S; `None` when it is low already or not signed with ECDSA.
fn sanitised(bytes: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let parsed = parse(bytes)?;
    if !ECDSA_ALGORITHMS.contains(&parsed.signature_algorithm.algorithm.to_id_string().as_str()) {
        return Ok(None);
    }
    let document = SignedDocument::from_der(bytes).map_err(malformed)?;
    let Ok(signature) = EcdsaSignature::from_exact_der(document.signature()) else {
        return Err(malformed("the signature is no pair of positive integers"));
    };
    let Some(curve) = signature.curve() else { return Ok(None) };
    let low = signature.into_low(curve).to_der();
    if low == document.signature() {
        return Ok(None);
    }
    Ok(Some(document.with_signature(&low)))
}

/// All values of an attribute of a name, in order.
pub(crate) fn values(name: &X509Name<'_>, oid: &str) -> Vec<String> {
    let attributes = name.iter_attributes().filter(|attribute| attribute.attr_type().to_id_string() == oid);
    attributes
        .map(|attribute| {
            attribute
                .as_str()
                .map_or_else(|_| String::from_utf8_lossy(attribute.as_slice()).into_owned(), str::to_owned)
        })
        .collect()
}

impl Extensions {
    fn read(extensions: &[X509Extension<'_>]) -> Result<Self, Error> {
        let mut read = Self::default();
        let mut seen = std::collections::BTreeSet::new();
        for extension in extensions {
            if !seen.insert(extension.oid.to_id_string()) {
                return Err(malformed(format!("extension {} occurs twice", extension.oid)));
            }
            read.add(extension)?;
        }
        Ok(read)
    }

    fn add(&mut self, extension: &X509Extension<'_>) -> Result<(), Error> {
        match extension.parsed_extension() {
            ParsedExtension::ParseError { error } => {
                return Err(malformed(format!("extension {}: {error}", extension.oid)));
            }
            ParsedExtension::SubjectKeyIdentifier(id) => {
                self.subject_key_id = Some(Bytes::copy_from_slice(id.0));
            }
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                self.authority_key_id = id.key_identifier.as_ref().map(|id| Bytes::copy_from_slice(id.0));
            }
            ParsedExtension::BasicConstraints(constraints) => {
                self.basic_constraints = Some((constraints.ca, constraints.path_len_constraint));
            }
            ParsedExtension::KeyUsage(usage) => self.key_usage = Some(KeyUsage(usage.flags)),
            ParsedExtension::ExtendedKeyUsage(usage) => self.extended_key_usage = Some(purposes(usage)),
            ParsedExtension::SubjectAlternativeName(names) => self.add_names(&names.general_names)?,
            ParsedExtension::NameConstraints(_) => {
                self.has_name_constraints = true;
                // Names below are not compared, so that a critical constraint must not pass.
                self.has_unknown_critical |= extension.critical;
            }
            ParsedExtension::CertificatePolicies(_) | ParsedExtension::CRLDistributionPoints(_) => {}
            _ if extension.oid.to_id_string() == ATTRIBUTES_OID => self.add_attributes(extension.value),
            _ if extension.oid.to_id_string() == bls::EXTENSION_OID => {
                self.bls_key = Some(Bytes::copy_from_slice(extension.value));
            }
            _ => self.has_unknown_critical |= extension.critical,
        }
        Ok(())
    }

    fn add_names(&mut self, names: &[GeneralName<'_>]) -> Result<(), Error> {
        for name in names {
            self.alternative_names.extend(alternative_name(name)?);
        }
        Ok(())
    }

    /// Text that is no such JSON counts as no attributes: other tools may use the number for something else.
    fn add_attributes(&mut self, text: &[u8]) {
        #[derive(serde::Deserialize)]
        struct Attributes {
            attrs: BTreeMap<String, String>,
        }
        if let Ok(parsed) = serde_json::from_slice::<Attributes>(text) {
            self.attributes = parsed.attrs;
        }
    }
}

fn purposes(usage: &x509_parser::extensions::ExtendedKeyUsage<'_>) -> Vec<ExtendedKeyUsage> {
    let named = [
        (usage.any, ExtendedKeyUsage::Any),
        (usage.server_auth, ExtendedKeyUsage::ServerAuth),
        (usage.client_auth, ExtendedKeyUsage::ClientAuth),
        (usage.code_signing, ExtendedKeyUsage::Other("1.3.6.1.5.5.7.3.3".to_owned())),
        (usage.email_protection, ExtendedKeyUsage::Other("1.3.6.1.5.5.7.3.4".to_owned())),
        (usage.time_stamping, ExtendedKeyUsage::Other("1.3.6.1.5.5.7.3.8".to_owned())),
        (usage.ocsp_signing, ExtendedKeyUsage::Other("1.3.6.1.5.5.7.3.9".to_owned())),
    ];
    let named = named.into_iter().filter(|(present, _)| *present).map(|(_, purpose)| purpose);
    named.chain(usage.other.iter().map(|oid| ExtendedKeyUsage::Other(oid.to_id_string()))).collect()
}

/// A name of a kind that is looked at; `None` for the others.
pub(crate) fn alternative_name(name: &GeneralName<'_>) -> Result<Option<SubjectAlternativeName>, Error> {
    Ok(match name {
        GeneralName::DNSName(name) => Some(SubjectAlternativeName::Dns((*name).to_owned())),
        GeneralName::RFC822Name(address) => Some(SubjectAlternativeName::Email((*address).to_owned())),
        GeneralName::URI(uri) => Some(SubjectAlternativeName::Uri((*uri).to_owned())),
        GeneralName::IPAddress(bytes) => {
            let address = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = address.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            Some(SubjectAlternativeName::Ip(
                address.map_err(|_| malformed("an address of neither 4 nor 16 bytes"))?,
            ))
        }
        GeneralName::Invalid(..) => return Err(malformed("a malformed alternative name")),
        _ => None,
    })
}
