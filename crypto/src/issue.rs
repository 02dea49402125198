//! Issuing certificates and lists of revoked ones (RFC 5280).

use std::net::IpAddr;
use std::time::Duration;

use der::asn1::{GeneralizedTime, Ia5String, ObjectIdentifier, OctetString, Uint, UtcTime};
use der::oid::AssociatedOid;
use der::{DateTime, Decode, Encode};
use ring::rand::{SecureRandom, SystemRandom};
use time::OffsetDateTime;
use x509_cert::TbsCertificate;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{self, Builder, CertificateBuilder};
use x509_cert::crl::{RevokedCert, TbsCertList};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, CrlNumber, CrlReason, ExtendedKeyUsage as Purposes,
    KeyUsage as Usages, SubjectAltName, SubjectKeyIdentifier,
};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{DynSignatureAlgorithmIdentifier, SubjectPublicKeyInfoRef};
use x509_cert::time::Time;

use crate::Error;
use crate::bls::{CertifiedKey, EXTENSION_OID};
use crate::certificate::{ATTRIBUTES_OID, Certificate, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName};
use crate::document::{DocumentSigner, SignedDocument};
use crate::error::unwritable;
use crate::hash::{sha256, sm3};
use crate::key::{PrivateKey, PublicKey};
pub use crate::name::{DistinguishedName, NamePart};
pub use crate::request::CertificateRequest;
use crate::revocation::{RevocationList, RevokedCertificate};

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
    /// The holder's key for signatures that add up.
    pub bls_key: Option<CertifiedKey>,
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
            bls_key: None,
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
        let certificate = Profile::new(&template, key.public_key(), None)?.issue(&template, &key)?;
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
        let issuer = Name::from_der(self.certificate.subject_bytes()).map_err(unwritable)?;
        Profile::new(template, public_key, Some((issuer, self.key_id())))?.issue(template, &self.key)
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
        let entries = revoked.iter().map(revoked_entry).collect::<Result<Vec<_>, _>>()?;
        let number = CrlNumber(Uint::new(&number.to_be_bytes()).map_err(unwritable)?);
        let body = TbsCertList::<x509_cert::certificate::Rfc5280> {
            version: x509_cert::Version::V2,
            signature: DocumentSigner(&self.key).signature_algorithm_identifier().map_err(unwritable)?,
            issuer: Name::from_der(self.certificate.subject_bytes()).map_err(unwritable)?,
            this_update: moment(this_update)?,
            next_update: Some(moment(next_update)?),
            revoked_certificates: (!entries.is_empty()).then_some(entries),
            crl_extensions: Some(vec![authority_key_id(&self.key_id())?, extension(false, &number)?]),
        };
        RevocationList::from_der(&SignedDocument::sign(&body.to_der().map_err(unwritable)?, &self.key)?)
    }

    fn key_id(&self) -> Vec<u8> {
        let own = self.certificate.subject_key_id();
        own.map_or_else(|| key_id(self.certificate.public_key()), <[u8]>::to_vec)
    }
}

/// Identifier of a key: SHA-256 of the uncompressed point, as Fabric's key stores name it; SM3 of it for a key of SM2.
#[must_use]
pub fn key_id(key: &PublicKey) -> Vec<u8> {
    match key {
        PublicKey::Sm2(_) => sm3(key.bytes()).to_vec(),
        _ => sha256(key.bytes()).to_vec(),
    }
}

/// What the builder asks for while it writes a certificate: names and extensions, the latter in the order of Go's writer,
/// which Fabric's own tools use.
struct Profile {
    subject: Name,
    issuer: Option<Name>,
    extensions: Vec<Extension>,
    public_key: PublicKey,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, subject: &Name) -> Name {
        self.issuer.as_ref().unwrap_or(subject).clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        _key: SubjectPublicKeyInfoRef<'_>,
        _issuer_key: SubjectPublicKeyInfoRef<'_>,
        _body: &TbsCertificate,
    ) -> builder::Result<Vec<Extension>> {
        Ok(self.extensions.clone())
    }
}

impl Profile {
    /// `authority`: its name and key identifier; none for a certificate that signs itself.
    fn new(template: &Template, key: &PublicKey, authority: Option<(Name, Vec<u8>)>) -> Result<Self, Error> {
        let (issuer, authority) = authority.unzip();
        Ok(Self {
            subject: template.subject.to_name()?,
            issuer,
            extensions: extensions(template, key, authority.as_deref())?,
            public_key: key.clone(),
        })
    }

    fn issue(self, template: &Template, key: &PrivateKey) -> Result<Certificate, Error> {
        if template.not_after <= template.not_before {
            return Err(Error::Issue("the validity ends before it begins".to_owned()));
        }
        let validity =
            x509_cert::time::Validity::new(moment(template.not_before)?, moment(template.not_after)?);
        let info = self.public_key.to_info();
        let mut builder = CertificateBuilder::new(self, serial()?, validity, info).map_err(unwritable)?;
        let body = builder.finalize(&DocumentSigner(key)).map_err(unwritable)?;
        Certificate::from_der(&SignedDocument::sign(&body, key)?)
    }
}

/// A positive number of 128 bits; its highest bit is clear, so that it takes 16 bytes at most.
fn serial() -> Result<SerialNumber, Error> {
    let mut serial = [0; 16];
    SystemRandom::new().fill(&mut serial).map_err(|_| Error::Random)?;
    serial[0] = (serial[0] & 0x7f) | 0x40;
    SerialNumber::new(&serial).map_err(unwritable)
}

fn extensions(
    template: &Template,
    key: &PublicKey,
    authority: Option<&[u8]>,
) -> Result<Vec<Extension>, Error> {
    let usages = Usages(x509_cert::der::flagset::FlagSet::new_truncated(template.key_usage.bits()));
    let mut all = vec![extension(true, &usages)?];
    if !template.extended.is_empty() {
        let purposes = template.extended.iter().map(purpose).collect::<Result<Vec<_>, _>>()?;
        all.push(extension(false, &Purposes(purposes))?);
    }
    let path_len_constraint = template.path_len.filter(|_| template.is_ca);
    all.push(extension(true, &BasicConstraints { ca: template.is_ca, path_len_constraint })?);
    let id = OctetString::new(key_id(key)).map_err(unwritable)?;
    all.push(extension(false, &SubjectKeyIdentifier(id))?);
    if let Some(authority) = authority {
        all.push(authority_key_id(authority)?);
    }
    if !template.sans.is_empty() {
        all.push(alternative_names(&template.sans)?);
    }
    if let Some(attributes) = &template.attributes {
        // JSON, not DER, is what Fabric's authority puts here.
        all.push(Extension {
            extn_id: ObjectIdentifier::new_unwrap(ATTRIBUTES_OID),
            critical: false,
            extn_value: OctetString::new(attributes.clone()).map_err(unwritable)?,
        });
    }
    if let Some(key) = &template.bls_key {
        all.push(bls_key(key)?);
    }
    Ok(all)
}

/// The extension with a BLS key.
pub(crate) fn bls_key(key: &CertifiedKey) -> Result<Extension, Error> {
    Ok(Extension {
        extn_id: ObjectIdentifier::new_unwrap(EXTENSION_OID),
        critical: false,
        extn_value: OctetString::new(key.to_der()).map_err(unwritable)?,
    })
}

fn extension<T: Encode + AssociatedOid>(critical: bool, value: &T) -> Result<Extension, Error> {
    let value = value.to_der().map_err(unwritable)?;
    let extn_value = OctetString::new(value).map_err(unwritable)?;
    Ok(Extension { extn_id: T::OID, critical, extn_value })
}

fn authority_key_id(id: &[u8]) -> Result<Extension, Error> {
    let key_identifier = Some(OctetString::new(id).map_err(unwritable)?);
    extension(false, &AuthorityKeyIdentifier { key_identifier, ..AuthorityKeyIdentifier::default() })
}

fn purpose(purpose: &ExtendedKeyUsage) -> Result<ObjectIdentifier, Error> {
    let text = match purpose {
        ExtendedKeyUsage::Any => "2.5.29.37.0",
        ExtendedKeyUsage::ServerAuth => "1.3.6.1.5.5.7.3.1",
        ExtendedKeyUsage::ClientAuth => "1.3.6.1.5.5.7.3.2",
        ExtendedKeyUsage::Other(text) => text,
    };
    ObjectIdentifier::new(text).map_err(|_| Error::Issue(format!("{text} is no object identifier")))
}

/// The extension of alternative names.
pub(crate) fn alternative_names(names: &[SubjectAlternativeName]) -> Result<Extension, Error> {
    let names = names.iter().map(|name| {
        let octets = |bytes: &[u8]| OctetString::new(bytes).map_err(unwritable);
        Ok(match name {
            SubjectAlternativeName::Email(text) => GeneralName::Rfc822Name(ascii(text)?),
            SubjectAlternativeName::Dns(text) => GeneralName::DnsName(ascii(text)?),
            SubjectAlternativeName::Uri(text) => GeneralName::UniformResourceIdentifier(ascii(text)?),
            SubjectAlternativeName::Ip(IpAddr::V4(address)) => {
                GeneralName::IpAddress(octets(&address.octets())?)
            }
            SubjectAlternativeName::Ip(IpAddr::V6(address)) => {
                GeneralName::IpAddress(octets(&address.octets())?)
            }
        })
    });
    extension(false, &SubjectAltName(names.collect::<Result<Vec<_>, Error>>()?))
}

fn ascii(text: &str) -> Result<Ia5String, Error> {
    let refused = || Error::Issue(format!("{text:?} is no alternative name: only ASCII is allowed"));
    if text.is_empty() {
        return Err(refused());
    }
    Ia5String::new(text).map_err(|_| refused())
}

fn revoked_entry(revoked: &RevokedCertificate) -> Result<RevokedCert, Error> {
    let reason = match revoked.reason {
        // "unspecified" is left out (RFC 5280 section 5.3.1).
        0 => None,
        1 => Some(CrlReason::KeyCompromise),
        2 => Some(CrlReason::CaCompromise),
        3 => Some(CrlReason::AffiliationChanged),
        4 => Some(CrlReason::Superseded),
        5 => Some(CrlReason::CessationOfOperation),
        6 => Some(CrlReason::CertificateHold),
        8 => Some(CrlReason::RemoveFromCRL),
        9 => Some(CrlReason::PrivilegeWithdrawn),
        10 => Some(CrlReason::AaCompromise),
        other => return Err(Error::Issue(format!("{other} is no reason of RFC 5280"))),
    };
    let extension = reason.map(|reason| extension(false, &reason)).transpose()?;
    Ok(RevokedCert {
        serial_number: SerialNumber::new(&revoked.serial).map_err(unwritable)?,
        revocation_date: moment(revoked.revoked_at)?,
        crl_entry_extensions: extension.map(|extension| vec![extension]),
    })
}

/// A time to the second, in the form that RFC 5280 section 4.1.2.5 demands for its year.
fn moment(time: OffsetDateTime) -> Result<Time, Error> {
    let seconds = u64::try_from(time.unix_timestamp()).map_err(unwritable)?;
    let date = DateTime::from_unix_duration(Duration::from_secs(seconds)).map_err(unwritable)?;
    if date.year() < 2050 {
        UtcTime::from_date_time(date).map(Time::UtcTime).map_err(unwritable)
    } else {
        Ok(Time::GeneralTime(GeneralizedTime::from_date_time(date)))
    }
}
