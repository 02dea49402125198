//! Whether an authority revoked a certificate.
//!
//! Source: RFC 5280 section 5 and the way Fabric's X.509 provider applies it: a list belongs to the authority whose key
//! identifier it names, counts only if that authority signed it, and its dates play no part, so that every peer decides alike.

use consort_crypto::{certificate::Certificate, revocation::RevocationList};

use crate::IdentityError;

const PREFIX: &str = "could not validate identity against certification chain: ";

/// Refuses a certificate that its issuer revoked. A matching list whose signature is not the issuer's is ignored.
pub(crate) fn check(
    lists: &[RevocationList],
    certificate: &Certificate,
    issuer: &Certificate,
) -> Result<(), IdentityError> {
    let Some(issuer_key_id) = issuer.subject_key_id() else {
        return Err(IdentityError::Invalid(format!(
            "{PREFIX}could not obtain Subject Key Identifier for signer cert: subjectKeyIdentifier not found in certificate"
        )));
    };
    for list in lists {
        let Some(authority_key_id) = list.authority_key_id() else {
            return Err(IdentityError::Invalid(format!(
                "{PREFIX}could not obtain Authority Key Identifier for crl: authorityKeyIdentifier not found in certificate"
            )));
        };
        if authority_key_id == issuer_key_id
            && list.contains(certificate)
            && list.verify_issued_by(issuer).is_ok()
        {
            return Err(IdentityError::Revoked);
        }
    }
    Ok(())
}
