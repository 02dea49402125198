//! Readers of what the certificate authority is sent before it knows by whom.

use consort_ca::affiliation::Affiliation;
use consort_ca::request::{
    AffiliationRequest, CrlRequest, EnrollmentRequest, JsonBody, RegistrationRequest, RevocationRequest,
    date, moment,
};
use consort_ca::token::Token;
use consort_crypto::certificate::Certificate;
use consort_crypto::request::CertificateRequest;
use time::OffsetDateTime;

/// A signing request as it stands in the body of an enrolment: in PEM, or the contents of the PEM block alone.
///
/// # Panics
/// When what was read breaks a rule: a finding.
pub fn signing_request(bytes: &[u8]) {
    for request in
        [CertificateRequest::from_pem(bytes), CertificateRequest::from_der(bytes)].into_iter().flatten()
    {
        let _ = request.verify();
        let again =
            CertificateRequest::from_pem(request.pem()).expect("what was read is written and read again");
        assert_eq!(again.der(), request.der());
        assert_eq!(again.common_name(), request.common_name());
    }
}

/// An `Authorization` header, judged as far as the registry is not needed.
///
/// # Panics
/// When what was read breaks a rule: a finding.
pub fn token(bytes: &[u8]) {
    let Ok(token) =
        std::str::from_utf8(bytes).map_err(drop).and_then(|text| Token::parse(text).map_err(drop))
    else {
        return;
    };
    let signed = token.signed_bytes("GET", "/api/v1/identities", b"");
    if let Ok(certificate) = Certificate::from_pem(&token.certificate_pem) {
        let _ = certificate.public_key().verify(&signed, &token.signature);
    }
}

/// The body of a request to the authority's API, read as each of the requests that there are.
///
/// # Panics
/// When what was read breaks a rule: a finding.
pub fn authority_request(bytes: &[u8]) {
    let body = || JsonBody::parse(bytes).ok();
    let Some(first) = body() else { return };
    let _ = first.ca_name();
    let requests = [
        body().and_then(|body| body.read::<RegistrationRequest>().ok()).map(drop),
        body().and_then(|body| body.read::<RevocationRequest>().ok()).map(drop),
        body().and_then(|body| body.read::<CrlRequest>().ok()).map(drop),
        body().and_then(|body| body.read::<AffiliationRequest>().ok()).map(drop),
    ];
    let _ = requests.iter().flatten().count();
    if let Ok(request) = first.read::<EnrollmentRequest>() {
        if let Some(pem) = &request.certificate_request {
            signing_request(pem.as_bytes());
        }
        let _ = moment(request.notafter.as_deref(), OffsetDateTime::UNIX_EPOCH);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = (date(Some(text)), moment(Some(text), OffsetDateTime::UNIX_EPOCH));
        if let Ok(affiliation) = Affiliation::parse(text) {
            let again = Affiliation::parse(affiliation.as_str()).expect("what was read is read again");
            assert_eq!(again.as_str(), affiliation.as_str());
        }
    }
}
