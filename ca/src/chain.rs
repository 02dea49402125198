//! The chain of an authority's certificates: its own first, a root last.

use consort_crypto::certificate::{Certificate, KeyUsage};
use time::OffsetDateTime;

/// Most authorities above one another; Fabric's networks have two or three.
const CHAIN_LENGTH_MAX: usize = 8;

/// Why certificates are no chain of authorities.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BrokenChain {
    /// There is no certificate.
    #[error("it is empty")]
    Empty,
    /// There are more certificates than any real chain has.
    #[error("it has more than {CHAIN_LENGTH_MAX} certificates")]
    TooLong,
    /// A certificate may not sign others.
    #[error("'{0}' is not the certificate of an authority")]
    NotAuthority(String),
    /// A certificate is outside its time.
    #[error("'{subject}' is not valid now, it ends at {ended}")]
    Ended {
        /// Whose.
        subject: String,
        /// When it ends.
        ended: OffsetDateTime,
    },
    /// A certificate allows fewer authorities below it.
    #[error("'{0}' allows fewer authorities below it")]
    PathLength(String),
    /// A link does not hold.
    #[error("'{subject}' was not issued by '{issuer}'")]
    Link {
        /// The lower one.
        subject: String,
        /// The upper one.
        issuer: String,
    },
    /// The last certificate is no root.
    #[error("it does not end with a root: '{0}' was issued by another authority")]
    NoRoot(String),
}

/// Whether a certificate was issued by its own key.
pub fn is_root(certificate: &Certificate) -> bool {
    certificate.verify_issued_by(certificate).is_ok()
}

/// Judges a chain, the lowest authority first (RFC 5280, section 6.1: links, times, authority, path length).
///
/// # Errors
/// The first rule that is broken, from below.
pub fn check(chain: &[Certificate], now: OffsetDateTime) -> Result<(), BrokenChain> {
    let last = chain.last().ok_or(BrokenChain::Empty)?;
    if chain.len() > CHAIN_LENGTH_MAX {
        return Err(BrokenChain::TooLong);
    }
    for (below, certificate) in chain.iter().enumerate() {
        let subject = certificate.subject().to_owned();
        let signs = certificate.key_usage().is_none_or(|usage| usage.contains(KeyUsage::CERTIFICATE_SIGN));
        if !certificate.is_ca() || !signs {
            return Err(BrokenChain::NotAuthority(subject));
        }
        if certificate.not_before() > now || certificate.not_after() <= now {
            return Err(BrokenChain::Ended { subject, ended: certificate.not_after() });
        }
        if certificate.path_len().is_some_and(|most| (most as usize) < below) {
            return Err(BrokenChain::PathLength(subject));
        }
    }
    for pair in chain.windows(2) {
        let [lower, upper] = pair else { continue };
        lower.verify_issued_by(upper).map_err(|_| BrokenChain::Link {
            subject: lower.subject().to_owned(),
            issuer: upper.subject().to_owned(),
        })?;
    }
    if is_root(last) { Ok(()) } else { Err(BrokenChain::NoRoot(last.subject().to_owned())) }
}

#[cfg(test)]
mod tests {
    use consort_crypto::issue::{CertificateAuthority, DistinguishedName, Template, Validity};
    use consort_crypto::key::PrivateKey;
    use time::Duration;

    use super::*;

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).expect("moment")
    }

    fn validity() -> Validity {
        Validity { not_before: now() - Duration::days(1), not_after: now() + Duration::days(10) }
    }

    fn root(name: &str) -> CertificateAuthority {
        let key = PrivateKey::generate_p256().expect("key");
        CertificateAuthority::new_root(&DistinguishedName::common_name(name), key, validity()).expect("root")
    }

    fn below(parent: &CertificateAuthority, name: &str, path_len: Option<u8>) -> CertificateAuthority {
        let key = PrivateKey::generate_p256().expect("key");
        let template = Template::authority(DistinguishedName::common_name(name), validity(), path_len);
        let certificate = parent.issue(&template, key.public_key()).expect("issue");
        CertificateAuthority::new(certificate, key).expect("authority")
    }

    fn certificates(authorities: &[&CertificateAuthority]) -> Vec<Certificate> {
        authorities.iter().map(|authority| authority.certificate().clone()).collect()
    }

    #[test]
    fn a_chain_of_three_authorities_holds() {
        let root = root("root");
        let middle = below(&root, "middle", Some(1));
        let low = below(&middle, "low", Some(0));

        assert_eq!(check(&certificates(&[&low, &middle, &root]), now()), Ok(()));
        assert_eq!(check(&certificates(&[&root]), now()), Ok(()));
    }

    #[test]
    fn broken_chains_name_what_is_wrong() {
        let (one, other) = (root("root"), root("root"));
        let middle = below(&one, "middle", Some(0));
        let low = below(&middle, "low", Some(0));
        let end = below(&one, "end", None);
        let chain = certificates(&[&low, &middle, &one]);

        assert!(
            matches!(check(&chain, now()), Err(BrokenChain::PathLength(name)) if name.contains("middle"))
        );
        assert!(matches!(check(&certificates(&[&end, &other]), now()), Err(BrokenChain::Link { .. })));
        assert!(matches!(check(&certificates(&[&end]), now()), Err(BrokenChain::NoRoot(_))));
        assert!(matches!(
            check(&certificates(&[&end, &one]), now() + Duration::days(10)),
            Err(BrokenChain::Ended { .. })
        ));
        assert_eq!(check(&[], now()), Err(BrokenChain::Empty));
    }
}
