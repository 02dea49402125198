//! Issuing certificates and lists of revoked ones (RFC 5280).

use std::net::IpAddr;

use ring::rand::{SecureRandom, SystemRandom};
use time::OffsetDateTime;

use crate::certificate::{Certificate, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName};
use crate::hash::sha256;
use crate::key::{PrivateKey, PublicKey};
pub use crate::name::{DistinguishedName, NamePart};
pub use crate::request::CertificateRequest;
use crate::revocation::{RevocationList, RevokedCertificate};
use crate::{Error, der};

const ECDSA_WITH_SHA256: [u32; 7] = [1, 2, 840, 10045, 4, 3, 2];
const SUBJECT_KEY_ID: [u32; 4] = [2, 5, 29, 14];
const KEY_USAGE: [u32; 4] = [2, 5, 29, 15];
const SUBJECT_ALTERNATIVE_NAME: [u32; 4] = [2, 5, 29, 17];
const BASIC_CONSTRAINTS: [u32; 4] = [2, 5, 29, 19];
const CRL_NUMBER: [u32; 4] = [2, 5, 29, 20];
const REASON_CODE: [u32; 4] = [2, 5, 29, 21];
const AUTHORITY_KEY_ID: [u32; 4] = [2, 5, 29, 35];
const EXTENDED_KEY_USAGE: [u32; 4] = [2, 5, 29, 37];
const ATTRIBUTES: [u32; 9] = [1, 2, 3, 4, 5, 6, 7, 8, 1];

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Start.
    pub not_before: OffsetDateTime,
    /// End.
    pub not_after: OffsetDateTime,
}

/// What a certificate is to say.
#[derive(Clone, Debug)]
pub struct Template {
    /// The holder's name.
    pub subject: DistinguishedName,
    /// What the key may be used for.
    pub key_usage: KeyUsage,
    /// Purposes; none leaves the extension out.
    pub extended: Vec<ExtendedKeyUsage>,
    /// Other names of the holder.
    pub sans: Vec<SubjectAlternativeName>,
    /// JSON for Fabric's attribute extension.
    pub attributes: Option<Vec<u8>>,
    /// Start of the validity.
    pub not_before: OffsetDateTime,
    /// End of the validity.
    pub not_after: OffsetDateTime,
    /// The holder is an authority.
    pub is_ca: bool,
    /// How many authorities may follow below; no limit when absent.
    pub path_len: Option<u8>,
}

impl Template {
    fn new(subject: DistinguishedName, validity: Validity, key_usage: KeyUsage) -> Self {
        Self {
            subject,
            key_usage,
            extended: Vec::new(),
            sans: Vec::new(),
            attributes: None,
            not_before: validity.not_before,
            not_after: validity.not_after,
            is_ca: false,
            path_len: None,
        }
    }

    /// A member of an organisation: signs messages.
    #[must_use]
    pub fn identity(subject: DistinguishedName, validity: Validity) -> Self {
        Self::new(subject, validity, KeyUsage::DIGITAL_SIGNATURE)
    }

    /// A TLS server and client.
    #[must_use]
    pub fn tls(subject: DistinguishedName, validity: Validity, sans: Vec<SubjectAlternativeName>) -> Self {
        let usage = KeyUsage::DIGITAL_SIGNATURE.and(KeyUsage::KEY_ENCIPHERMENT).and(KeyUsage::KEY_AGREEMENT);
        let extended = vec![ExtendedKeyUsage::ServerAuth, ExtendedKeyUsage::ClientAuth];
        Self { extended, sans, ..Self::new(subject, validity, usage) }
    }

    /// An authority.
    #[must_use]
    pub fn authority(subject: DistinguishedName, validity: Validity, path_len: Option<u8>) -> Self {
        let usage = KeyUsage::CERTIFICATE_SIGN.and(KeyUsage::CRL_SIGN);
        Self { is_ca: true, path_len, ..Self::new(subject, validity, usage) }
    }
}

/// An authority's certificate and key.
#[derive(Debug)]
pub struct CertificateAuthority {
    certificate: Certificate,
    key: PrivateKey,
}

impl CertificateAuthority {
    /// Makes a root: a certificate that signs itself, without limit on the authorities below it.
    ///
    /// # Errors
    ///
    /// When the name does not fit into a certificate, or there are no random numbers.
    pub fn new_root(subject: &DistinguishedName, key: PrivateKey, validity: Validity) -> Result<Self, Error> {
        let mut template = Template::authority(subject.clone(), validity, None);
        // Fabric's tools let authorities serve TLS with their own key, and its membership check wants server authentication
        // wherever purposes are named.
        template.key_usage =
            template.key_usage.and(KeyUsage::DIGITAL_SIGNATURE).and(KeyUsage::KEY_ENCIPHERMENT);
        template.extended = vec![ExtendedKeyUsage::ClientAuth, ExtendedKeyUsage::ServerAuth];
        let issuer = subject.to_der()?;
        let body = body(&template, key.public_key(), &issuer, None)?;
        let certificate = Certificate::from_der(&signed(&body, &key)?)?;
        Ok(Self { certificate, key })
    }

    /// Takes an authority's certificate and key.
    ///
    /// # Errors
    ///
    /// When they do not parse or do not belong together, or the certificate is no authority's.
    pub fn from_pem(certificate: impl AsRef<[u8]>, key: &str) -> Result<Self, Error> {
        Self::new(Certificate::from_pem(certificate)?, PrivateKey::from_pem(key)?)
    }

    /// Takes an authority's certificate and key.
    ///
    /// # Errors
    ///
    /// When they do not belong together, or the certificate is no authority's.
    pub fn new(certificate: Certificate, key: PrivateKey) -> Result<Self, Error> {
        if certificate.public_key() != key.public_key() {
            return Err(Error::DoesNotBelong("the private key belongs to another certificate"));
        }
        if !certificate.is_ca() {
            return Err(Error::DoesNotBelong("the certificate is not that of an authority"));
        }
        Ok(Self { certificate, key })
    }

    /// The authority's own certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The authority's key.
    #[must_use]
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// Issues a certificate for a key, with a random serial number of 128 bits.
    ///
    /// # Errors
    ///
    /// When the template does not fit into a certificate, or there are no random numbers.
    pub fn issue(&self, template: &Template, public_key: &PublicKey) -> Result<Certificate, Error> {
        let authority = Some(self.key_id());
        let body = body(template, public_key, self.certificate.subject_bytes(), authority.as_deref())?;
        Certificate::from_der(&signed(&body, &self.key)?)
    }

    /// Issues the list of revoked certificates. `number` grows from list to list.
    ///
    /// # Errors
    ///
    /// When there are no random numbers.
    pub fn issue_crl(
        &self,
        revoked: &[RevokedCertificate],
        number: u64,
        this_update: OffsetDateTime,
        next_update: OffsetDateTime,
    ) -> Result<RevocationList, Error> {
        let entries: Vec<Vec<u8>> = revoked.iter().map(revoked_entry).collect();
        let entries =
            if entries.is_empty() { Vec::new() } else { der::element(der::SEQUENCE, &entries.concat()) };
        let extensions = der::sequence(&[
            &authority_key_id(&self.key_id()),
            &extension(&CRL_NUMBER, false, &der::unsigned(&number.to_be_bytes())),
        ]);
        let body = der::sequence(&[
            &der::unsigned(&[1]),
            &der::sequence(&[&der::object_identifier(&ECDSA_WITH_SHA256)]),
            self.certificate.subject_bytes(),
            &der::time(this_update),
            &der::time(next_update),
            &entries,
            &der::tagged(0, &extensions),
        ]);
        RevocationList::from_der(&signed(&body, &self.key)?)
    }

    fn key_id(&self) -> Vec<u8> {
        let own = self.certificate.subject_key_id();
        own.map_or_else(|| key_id(self.certificate.public_key()), <[u8]>::to_vec)
    }
}

/// Identifier of a key: SHA-256 of the uncompressed point, as Fabric's key stores name it.
#[must_use]
pub fn key_id(key: &PublicKey) -> Vec<u8> {
    sha256(key.bytes()).to_vec()
}

/// Joins a body to its signature by a key on P-256.
pub(crate) fn signed(body: &[u8], key: &PrivateKey) -> Result<Vec<u8>, Error> {
    let algorithm = der::sequence(&[&der::object_identifier(&ECDSA_WITH_SHA256)]);
    Ok(der::sequence(&[body, &algorithm, &der::bit_string(&key.sign(body)?)]))
}

fn body(
    template: &Template,
    key: &PublicKey,
    issuer: &[u8],
    authority: Option<&[u8]>,
) -> Result<Vec<u8>, Error> {
    if template.not_after <= template.not_before {
        return Err(Error::Issue("the validity ends before it begins".to_owned()));
    }
    Ok(der::sequence(&[
        &der::tagged(0, &der::unsigned(&[2])),
        &der::unsigned(&serial()?),
        &der::sequence(&[&der::object_identifier(&ECDSA_WITH_SHA256)]),
        issuer,
        &der::sequence(&[&der::time(template.not_before), &der::time(template.not_after)]),
        &template.subject.to_der()?,
        &key.to_der(),
        &der::tagged(3, &extensions(template, key, authority)?),
    ]))
}

/// A positive number of 128 bits; its highest bit is clear, so that it takes 16 bytes at most.
fn serial() -> Result<[u8; 16], Error> {
    let mut serial = [0; 16];
    SystemRandom::new().fill(&mut serial).map_err(|_| Error::Random)?;
    serial[0] = (serial[0] & 0x7f) | 0x40;
    Ok(serial)
}

/// Extensions in the order of Go's writer, which Fabric's own tools use.
fn extensions(template: &Template, key: &PublicKey, authority: Option<&[u8]>) -> Result<Vec<u8>, Error> {
    let mut all = extension(&KEY_USAGE, true, &der::named_bits(template.key_usage.bits()));
    if !template.extended.is_empty() {
        let purposes = template.extended.iter().map(purpose).collect::<Result<Vec<_>, _>>()?;
        all.extend(extension(&EXTENDED_KEY_USAGE, false, &der::element(der::SEQUENCE, &purposes.concat())));
    }
    all.extend(extension(&BASIC_CONSTRAINTS, true, &basic_constraints(template)));
    all.extend(extension(&SUBJECT_KEY_ID, false, &der::element(der::OCTET_STRING, &key_id(key))));
    if let Some(authority) = authority {
        all.extend(authority_key_id(authority));
    }
    if !template.sans.is_empty() {
        all.extend(alternative_names(&template.sans)?);
    }
    if let Some(attributes) = &template.attributes {
        all.extend(extension(&ATTRIBUTES, false, attributes));
    }
    Ok(der::element(der::SEQUENCE, &all))
}

fn extension(identifier: &[u32], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { der::boolean(true) } else { Vec::new() };
    der::sequence(&[&der::object_identifier(identifier), &critical, &der::element(der::OCTET_STRING, value)])
}

fn basic_constraints(template: &Template) -> Vec<u8> {
    if !template.is_ca {
        return der::sequence(&[]);
    }
    let path_len = template.path_len.map_or_else(Vec::new, |length| der::unsigned(&[length]));
    der::sequence(&[&der::boolean(true), &path_len])
}

fn authority_key_id(id: &[u8]) -> Vec<u8> {
    extension(&AUTHORITY_KEY_ID, false, &der::sequence(&[&der::tagged_primitive(0, id)]))
}

fn purpose(purpose: &ExtendedKeyUsage) -> Result<Vec<u8>, Error> {
    let components = match purpose {
        ExtendedKeyUsage::Any => vec![2, 5, 29, 37, 0],
        ExtendedKeyUsage::ServerAuth => vec![1, 3, 6, 1, 5, 5, 7, 3, 1],
        ExtendedKeyUsage::ClientAuth => vec![1, 3, 6, 1, 5, 5, 7, 3, 2],
        ExtendedKeyUsage::Other(text) => {
            let components = text.split('.').map(str::parse).collect::<Result<Vec<u32>, _>>();
            components.map_err(|_| Error::Issue(format!("{text} is no object identifier")))?
        }
    };
    match components.as_slice() {
        [0..=2, 0..=39, ..] => Ok(der::object_identifier(&components)),
        _ => Err(Error::Issue("an object identifier begins with 0 to 2 and 0 to 39".to_owned())),
    }
}

/// The extension of alternative names.
pub(crate) fn alternative_names(names: &[SubjectAlternativeName]) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    for name in names {
        let (number, content) = match name {
            SubjectAlternativeName::Email(text) => (1, ascii(text)?),
            SubjectAlternativeName::Dns(text) => (2, ascii(text)?),
            SubjectAlternativeName::Uri(text) => (6, ascii(text)?),
            SubjectAlternativeName::Ip(IpAddr::V4(address)) => (7, address.octets().to_vec()),
            SubjectAlternativeName::Ip(IpAddr::V6(address)) => (7, address.octets().to_vec()),
        };
        all.extend(der::tagged_primitive(number, &content));
    }
    Ok(extension(&SUBJECT_ALTERNATIVE_NAME, false, &der::element(der::SEQUENCE, &all)))
}

fn ascii(text: &str) -> Result<Vec<u8>, Error> {
    if text.is_ascii() && !text.is_empty() {
        Ok(text.as_bytes().to_vec())
    } else {
        Err(Error::Issue(format!("{text:?} is no alternative name: only ASCII is allowed")))
    }
}

fn revoked_entry(revoked: &RevokedCertificate) -> Vec<u8> {
    let reason = match revoked.reason {
        // "unspecified" is left out (RFC 5280 section 5.3.1).
        0 => Vec::new(),
        reason => der::sequence(&[&extension(&REASON_CODE, false, &der::enumerated(reason))]),
    };
    der::sequence(&[&der::unsigned(&revoked.serial), &der::time(revoked.revoked_at), &reason])
}
