//! The authority's key at work: certificates for signing requests, and lists of revoked certificates.

use consort_crypto::Error;
use consort_crypto::certificate::{Certificate, SubjectAlternativeName};
use consort_crypto::issue::{CertificateAuthority, DistinguishedName, NamePart, Template, Validity};
use consort_crypto::key::PublicKey;
use consort_crypto::request::CertificateRequest;
use consort_crypto::revocation::RevokedCertificate;
use time::{Duration, OffsetDateTime};

use crate::config::Expiry;
use crate::registry::Revoked;

/// Certificates are valid from this long before they are issued, so that a holder whose clock is behind can use them.
const BACKDATED: Duration = Duration::minutes(5);

/// A kind of certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Signs messages.
    Identity,
    /// TLS server and client.
    Tls,
    /// An intermediate authority.
    Ca,
}

impl Profile {
    /// The name by which requests ask for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "default",
            Self::Tls => "tls",
            Self::Ca => "ca",
        }
    }

    /// Reads the name of a profile; no name is the identity's.
    ///
    /// # Errors
    /// In words, when there is no such profile.
    pub fn parse(name: &str) -> Result<Self, String> {
        match name {
            "" | "default" => Ok(Self::Identity),
            "tls" => Ok(Self::Tls),
            "ca" => Ok(Self::Ca),
            other => {
                let shown: String = other.chars().take(64).collect();
                Err(format!("there is no profile '{shown}'; the profiles are default, tls and ca"))
            }
        }
    }
}

/// A certificate to issue.
pub struct Order<'a> {
    /// Whose key it is, and what the holder wishes.
    pub request: &'a CertificateRequest,
    /// What kind of certificate.
    pub profile: Profile,
    /// The organisational units, in place of those of the request.
    pub units: Vec<String>,
    /// Host names and addresses in place of those of the request.
    pub hosts: Option<Vec<String>>,
    /// The value of the attribute extension.
    pub attributes: Option<Vec<u8>>,
    /// An earlier end than the profile's, in seconds since 1970.
    pub not_after: Option<i64>,
}

/// Issues certificates and lists with the authority's key.
#[derive(Debug)]
pub struct Issuer {
    authority: CertificateAuthority,
    expiry: Expiry,
    /// The authorities above, the root last; none for a root.
    above: Vec<Certificate>,
    chain_pem: String,
    intermediate_path_length: u8,
}

impl Issuer {
    /// An issuer with this certificate and key, and the authorities `above` it, the root last.
    pub fn new(
        authority: CertificateAuthority,
        above: Vec<Certificate>,
        expiry: Expiry,
        intermediate_path_length: u8,
    ) -> Self {
        let own = std::iter::once(authority.certificate());
        let chain_pem = own.chain(&above).map(Certificate::pem).collect();
        Self { authority, expiry, above, chain_pem, intermediate_path_length }
    }

    /// How many authorities an intermediate one issued here may have below it; `None` when the authority's own
    /// certificate allows no authority below itself (RFC 5280, section 4.2.1.9).
    pub fn path_length_below(&self) -> Option<u8> {
        match self.certificate().path_len() {
            None => Some(self.intermediate_path_length),
            Some(own) => {
                let left = own.checked_sub(1)?;
                Some(u8::try_from(left).unwrap_or(u8::MAX).min(self.intermediate_path_length))
            }
        }
    }

    /// Whether the authority's own certificate has ended.
    pub fn has_ended(&self, now: OffsetDateTime) -> bool {
        self.chain().any(|certificate| certificate.not_after() <= now)
    }

    /// What a TLS server with this certificate shows: the certificate and the authorities below the root, in PEM.
    pub fn with_issuers(&self, certificate: &Certificate) -> String {
        let own = (!self.above.is_empty()).then(|| self.certificate());
        let between = self.above.iter().take(self.above.len().saturating_sub(1));
        std::iter::once(certificate).chain(own).chain(between).map(Certificate::pem).collect()
    }

    /// The authority's own certificate.
    pub fn certificate(&self) -> &Certificate {
        self.authority.certificate()
    }

    /// The authority's certificates, its own first and the root last.
    pub fn chain(&self) -> impl Iterator<Item = &Certificate> {
        std::iter::once(self.certificate()).chain(&self.above)
    }

    /// The chain of the authority's certificates in PEM.
    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// Judges whether the certificate was issued here.
    ///
    /// # Errors
    /// In words, when it was not.
    pub fn verify_issued(&self, certificate: &Certificate) -> Result<(), String> {
        certificate.verify_issued_by(self.authority.certificate()).map_err(|error| error.to_string())
    }

    /// Issues a certificate.
    ///
    /// # Errors
    /// When the request's signature is not its key's, its BLS key is not proved, a name does not fit into a certificate, or the authority's own
    /// certificate has ended.
    pub fn issue(&self, order: &Order<'_>, now: OffsetDateTime) -> Result<Certificate, Error> {
        order.request.verify()?;
        if matches!(order.request.public_key(), PublicKey::Rsa(_)) {
            return Err(Error::Unsupported(
                "RSA keys are not certified; use P-256, P-384, Ed25519 or SM2".to_owned(),
            ));
        }
        let validity = self.validity(order, now)?;
        let subject = subject(order);
        let sans = match &order.hosts {
            Some(hosts) => hosts.iter().map(|host| SubjectAlternativeName::from_text(host)).collect(),
            None => order.request.sans().to_vec(),
        };
        let template = match order.profile {
            Profile::Identity => Template { sans, ..Template::identity(subject, validity) },
            Profile::Tls => Template::tls(subject, validity, sans),
            Profile::Ca => {
                let path_len = self.path_length_below().ok_or_else(|| {
                    Error::Issue("this authority's own certificate allows no authority below it".to_owned())
                })?;
                Template { sans, ..Template::authority(subject, validity, Some(path_len)) }
            }
        };
        // Whoever asks must prove that he holds the key, or he could have somebody else's certified.
        let bls_key = order.request.bls_key()?;
        if bls_key.is_some() && order.profile != Profile::Identity {
            return Err(Error::Issue(
                "only identities carry BLS keys; ask for it in the default profile".to_owned(),
            ));
        }
        let template = Template { attributes: order.attributes.clone(), bls_key, ..template };
        self.authority.issue(&template, order.request.public_key())
    }

    /// Issues the TLS certificate of the authority's own API.
    ///
    /// # Errors
    /// As [`Issuer::issue`].
    pub fn issue_server(
        &self,
        common_name: &str,
        hosts: &[String],
        key: &PublicKey,
        now: OffsetDateTime,
    ) -> Result<Certificate, Error> {
        let own = self.certificate();
        if own.not_after() <= now {
            return Err(Error::Issue("the authority's own certificate has ended".to_owned()));
        }
        let not_before = (now - BACKDATED).max(own.not_before());
        let not_after = (now + Duration::days(self.expiry.tls_days.into())).min(own.not_after());
        let sans = hosts.iter().map(|host| SubjectAlternativeName::from_text(host)).collect();
        let subject = DistinguishedName::common_name(common_name);
        let template = Template::tls(subject, Validity { not_before, not_after }, sans);
        self.authority.issue(&template, key)
    }

    /// Issues the list of these revoked certificates in PEM.
    ///
    /// # Errors
    /// When there are no random numbers.
    pub fn crl(&self, revoked: &[Revoked], now: OffsetDateTime) -> Result<String, Error> {
        let entries: Vec<RevokedCertificate> = revoked
            .iter()
            .map(|entry| RevokedCertificate {
                serial: bytes_of_hex(&entry.serial),
                revoked_at: OffsetDateTime::from_unix_timestamp(entry.revoked_at).unwrap_or(now),
                reason: entry.reason,
            })
            .collect();
        // Milliseconds grow from list to list, also across restarts.
        let number = u64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
        let next = now + Duration::hours(self.expiry.crl_hours.into());
        Ok(self.authority.issue_crl(&entries, number, now, next)?.pem())
    }

    fn validity(&self, order: &Order<'_>, now: OffsetDateTime) -> Result<Validity, Error> {
        let own = self.certificate();
        let days = match order.profile {
            Profile::Identity => self.expiry.identity_days,
            Profile::Tls => self.expiry.tls_days,
            Profile::Ca => self.expiry.ca_days,
        };
        let wished = order.not_after.and_then(|wish| OffsetDateTime::from_unix_timestamp(wish).ok());
        let regular = now + Duration::days(days.into());
        let not_after = wished.map_or(regular, |wish| wish.min(regular)).min(own.not_after());
        if not_after <= now {
            return Err(Error::Issue("the certificate would have ended already".to_owned()));
        }
        Ok(Validity { not_before: (now - BACKDATED).max(own.not_before()), not_after })
    }
}

/// The subject of the request, but for its organisational units: those are the authority's to give.
fn subject(order: &Order<'_>) -> DistinguishedName {
    let wished = order.request.subject();
    let mut subject = DistinguishedName::new();
    for part in NamePart::ALL {
        if part == NamePart::OrganizationalUnit {
            let units: Vec<&str> = order.units.iter().map(String::as_str).collect();
            subject.push_together(part, &units);
            continue;
        }
        // One of each kind: a second common name could be read as another holder.
        if let Some((_, value)) = wished.parts().find(|(kind, value)| *kind == part && !value.is_empty()) {
            subject.push(part, value);
        }
    }
    subject
}

/// The bytes of a hexadecimal number without leading zeros.
fn bytes_of_hex(text: &str) -> Vec<u8> {
    let even = if text.len().is_multiple_of(2) { text.to_owned() } else { format!("0{text}") };
    hex::decode(even).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use consort_crypto::bls::{CertifiedKey, SecretKey};
    use consort_crypto::key::PrivateKey;
    use consort_crypto::revocation::RevocationList;

    use super::*;

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).expect("moment")
    }

    fn issuer(days: i64) -> Issuer {
        let validity =
            Validity { not_before: now() - Duration::days(1), not_after: now() + Duration::days(days) };
        let key = PrivateKey::generate_p256().expect("key");
        let subject = DistinguishedName::common_name("ca.org1.example.com");
        let root = CertificateAuthority::new_root(&subject, key, validity).expect("root");
        Issuer::new(root, Vec::new(), Expiry::default(), 0)
    }

    fn request(sans: &[&str]) -> CertificateRequest {
        let key = PrivateKey::generate_p256().expect("key");
        let subject = DistinguishedName::common_name("alice")
            .with(NamePart::OrganizationalUnit, "admin")
            .with(NamePart::Organization, "Org1");
        let sans: Vec<_> = sans.iter().map(|san| SubjectAlternativeName::from_text(san)).collect();
        CertificateRequest::create_for(&key, &subject, &sans).expect("request")
    }

    fn order(request: &CertificateRequest, profile: Profile) -> Order<'_> {
        let units = vec!["client".to_owned(), "org1".to_owned()];
        Order { request, profile, units, hosts: None, attributes: None, not_after: None }
    }

    #[test]
    fn wished_units_are_replaced_by_the_authoritys() {
        let (issuer, request) = (issuer(4000), request(&[]));

        let issued = issuer.issue(&order(&request, Profile::Identity), now()).expect("issue");

        let mut units = issued.organizational_units();
        units.sort();
        assert_eq!(units, ["client", "org1"]);
        assert_eq!(issued.subject_common_name(), Some("alice"));
        assert!(!issued.is_ca());
        assert!(issuer.verify_issued(&issued).is_ok());
        assert!(super::tests::issuer(10).verify_issued(&issued).is_err());
    }

    #[test]
    fn a_bls_key_is_certified_when_it_is_proved_for_this_key() {
        let (bls, key) = (SecretKey::generate().unwrap(), PrivateKey::generate_p256().unwrap());
        let other = PrivateKey::generate_p256().unwrap();
        let proved = CertifiedKey::prove(&bls, "Org1MSP", key.public_key());
        let ask = |key: &PrivateKey| CertificateRequest::create_with_bls(key, "peer0", &[], &proved).unwrap();
        let issuer = issuer(10);
        let issued = issuer.issue(&order(&ask(&key), Profile::Identity), now()).unwrap();
        assert_eq!(issued.bls_key().unwrap(), Some(proved.clone()));
        assert!(!issued.has_unknown_critical_extension());
        // The same key and proof in somebody else's request.
        let stolen = ask(&other);
        stolen.verify().unwrap();
        assert!(issuer.issue(&order(&stolen, Profile::Identity), now()).is_err());
        assert!(issuer.issue(&order(&ask(&key), Profile::Tls), now()).is_err());
    }

    #[test]
    fn nothing_outlives_the_authority() {
        let (issuer, request) = (issuer(10), request(&[]));

        let issued = issuer.issue(&order(&request, Profile::Identity), now()).expect("issue");

        assert_eq!(issued.not_after(), issuer.certificate().not_after());
        assert!(issuer.issue(&order(&request, Profile::Identity), now() + Duration::days(11)).is_err());
    }

    #[test]
    fn tls_certificates_carry_their_hosts() {
        let (issuer, request) = (issuer(4000), request(&["peer0.org1.example.com", "127.0.0.1"]));

        let issued = issuer.issue(&order(&request, Profile::Tls), now()).expect("issue");

        assert_eq!(issued.subject_alternative_names(), request.sans());
        assert!(issued.extended_key_usage().is_some());
    }

    #[test]
    fn an_intermediate_authority_has_none_below_it() {
        let (issuer, request) = (issuer(4000), request(&[]));

        let issued = issuer.issue(&order(&request, Profile::Ca), now()).expect("issue");

        assert!(issued.is_ca());
        assert_eq!(issued.path_len(), Some(0));
    }

    #[test]
    fn an_authority_without_path_length_issues_no_authority() {
        let above = issuer(4000);
        let key = PrivateKey::generate_p256().expect("key");
        let subject = DistinguishedName::common_name("low");
        let wish = CertificateRequest::create_for(&key, &subject, &[]).expect("request");
        let certificate = above.issue(&order(&wish, Profile::Ca), now()).expect("issue");
        let authority = CertificateAuthority::new(certificate, key).expect("authority");

        let low = Issuer::new(authority, vec![above.certificate().clone()], Expiry::default(), 3);

        assert_eq!((above.path_length_below(), low.path_length_below()), (Some(0), None));
        assert!(low.issue(&order(&request(&[]), Profile::Ca), now()).is_err());
        let leaf = low.issue(&order(&request(&[]), Profile::Identity), now()).expect("issue");
        assert_eq!(low.chain_pem().matches("BEGIN").count(), 2);
        assert_eq!(low.with_issuers(&leaf).matches("BEGIN").count(), 2);
        assert_eq!(above.with_issuers(&leaf).matches("BEGIN").count(), 1);
    }

    #[test]
    fn the_list_holds_what_was_revoked() {
        let (issuer, request) = (issuer(4000), request(&[]));
        let issued = issuer.issue(&order(&request, Profile::Identity), now()).expect("issue");
        let entry = Revoked { serial: issued.serial_hex(), revoked_at: 1_700_000_000, reason: 1 };

        let pem = issuer.crl(&[entry], now()).expect("list");

        let list = RevocationList::from_pem_or_der(pem.as_bytes()).expect("list");
        assert!(list.contains(&issued));
        assert!(list.verify_issued_by(issuer.certificate()).is_ok());
    }

    #[test]
    fn an_unknown_profile_is_named() {
        assert!(Profile::parse("idemix").expect_err("unknown").contains("idemix"));
    }
}
