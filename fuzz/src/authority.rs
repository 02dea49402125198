//! Readers of what the certificate authority is sent before it knows by whom.

use consort_ca::token::Token;
use consort_crypto::certificate::Certificate;
use consort_crypto::request::CertificateRequest;

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
