//! Readers of what members show: certificates, requests, lists, keys, policies.

use consort_crypto::{
    certificate::Certificate, key::PrivateKey, request::CertificateRequest, revocation::RevocationList,
};
use consort_msp::policy::{self, SignaturePolicy};

/// Certificates, requests, lists and keys: whatever is read is read again from what is written of it.
///
/// # Panics
/// When what was read breaks a rule: a finding.
pub fn certificate(bytes: &[u8]) {
    if let Ok(read) = Certificate::from_der(bytes) {
        let again = Certificate::from_der(read.der()).expect("a certificate that was read is readable");
        assert_eq!(again.der(), read.der(), "reading settles after the first time");
        let _ = read.verify_issued_by(&read);
    }
    if let Ok(read) = CertificateRequest::from_der(bytes) {
        let _ = read.verify();
    }
    if let Ok(read) = RevocationList::from_pem_or_der(bytes) {
        RevocationList::from_der(read.der()).expect("a list that was read is readable");
    }
    let _ = Certificate::from_pem(bytes);
    let _ = PrivateKey::from_pem(&String::from_utf8_lossy(bytes));
}

/// Policies, as text and as messages: what compiles is printed and read back as itself.
///
/// # Panics
/// When what was read breaks a rule: a finding.
pub fn policy(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(read) = policy::parse(text)
    {
        SignaturePolicy::from_proto(&read).expect("a policy that was read compiles");
        let printed = policy::to_text(&read);
        if let Ok(again) = policy::parse(&printed) {
            assert_eq!(again, read, "{text}");
        }
    }
    if let Ok(read) = SignaturePolicy::decode(bytes) {
        let _ = policy::to_text(read.envelope());
    }
}
