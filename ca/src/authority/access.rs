//! Who is calling, and what the caller may act upon.

use consort_crypto::certificate::Certificate;

use super::{Authority, Proof};
use crate::affiliation::Affiliation;
use crate::attributes::AFFILIATION_MANAGER;
use crate::error::{ApiError, Code};
use crate::registry::{CertificateId, Identity};
use crate::token::Token;

/// An identity whose token was verified for this request.
#[derive(Debug, Clone)]
pub struct Caller(Identity);

impl Authority {
    /// Verifies the token of a request and finds its identity.
    ///
    /// `uri` is path and query as on the request line. With `may_be_expired` the certificate's end is not judged.
    ///
    /// # Errors
    /// An authentication failure; why goes to the log only.
    pub fn authenticate(
        &self,
        header: Option<&str>,
        method: &str,
        uri: &str,
        body: &[u8],
        may_be_expired: bool,
    ) -> Result<Caller, ApiError> {
        let token = Token::parse(header.ok_or_else(no_header)?)
            .map_err(|error| ApiError::authentication(Code::InvalidToken, error.to_string()))?;
        let certificate = Certificate::from_pem(&token.certificate_pem)
            .map_err(|error| ApiError::authentication(Code::InvalidToken, error.to_string()))?;
        certificate
            .public_key()
            .verify(&token.signed_bytes(method, uri, body), &token.signature)
            .map_err(|error| ApiError::authentication(Code::InvalidToken, error.to_string()))?;
        self.judge_certificate(&certificate, may_be_expired)?;
        let name = CertificateId::new(
            &certificate.serial_hex(),
            &hex::encode(certificate.authority_key_id().unwrap_or_default()),
        );
        let record = self.registry.certificate(&name)?.ok_or_else(|| {
            ApiError::authentication(Code::UntrustedCertificate, "the certificate is not in the registry")
        })?;
        if record.revoked_at.is_some() {
            return Err(ApiError::authentication(Code::CertificateRevoked, "the certificate is revoked"));
        }
        let identity = self.registry.identity(&record.id)?.ok_or_else(|| {
            ApiError::authentication(Code::InvalidUser, format!("identity '{}' was removed", record.id))
        })?;
        if identity.revoked {
            let detail = format!("identity '{}' is revoked", identity.id);
            return Err(ApiError::authentication(Code::CertificateRevoked, detail));
        }
        self.limit(&identity.id, Proof::Token)?;
        Ok(Caller(identity))
    }

    fn judge_certificate(&self, certificate: &Certificate, may_be_expired: bool) -> Result<(), ApiError> {
        self.issuer
            .verify_issued(certificate)
            .map_err(|error| ApiError::authentication(Code::UntrustedCertificate, error))?;
        let now = self.now();
        if certificate.not_before() > now || (certificate.not_after() < now && !may_be_expired) {
            let detail = "the certificate is not valid at this time";
            return Err(ApiError::authentication(Code::CertificateExpired, detail));
        }
        Ok(())
    }
}

impl Caller {
    /// The caller's identity as it stands in the registry.
    pub fn identity(&self) -> &Identity {
        &self.0
    }

    pub(super) fn require_registrar(&self) -> Result<(), ApiError> {
        if self.0.attributes.is_registrar() {
            return Ok(());
        }
        let detail = format!("'{}' lacks hf.Registrar.Roles", self.0.id);
        Err(ApiError::authorization(Code::MissingAttribute, detail))
    }

    pub(super) fn require_true(&self, attribute: &str) -> Result<(), ApiError> {
        if self.0.attributes.is_true(attribute) {
            return Ok(());
        }
        let detail = format!("'{}' lacks {attribute}", self.0.id);
        Err(ApiError::authorization(Code::MissingAttribute, detail))
    }

    pub(super) fn require_type(&self, kind: &str) -> Result<(), ApiError> {
        if self.0.attributes.may_act_on_type(kind) {
            return Ok(());
        }
        let detail = format!("'{}' may not act on identities of type '{kind}'", self.0.id);
        Err(ApiError::authorization(Code::TypeAuthority, detail))
    }

    pub(super) fn require_affiliation(&self, affiliation: &Affiliation) -> Result<(), ApiError> {
        if self.0.affiliation.contains(affiliation) {
            return Ok(());
        }
        let detail = format!("'{}' of '{}' may not act on '{affiliation}'", self.0.id, self.0.affiliation);
        Err(ApiError::authorization(Code::AffiliationAuthority, detail))
    }

    pub(super) fn require_authority_over(&self, identity: &Identity) -> Result<(), ApiError> {
        self.require_type(&identity.kind)?;
        self.require_affiliation(&identity.affiliation)
    }

    pub(super) fn require_affiliation_manager(&self) -> Result<(), ApiError> {
        self.require_true(AFFILIATION_MANAGER)
    }
}

pub(super) fn no_header() -> ApiError {
    ApiError::new(
        axum::http::StatusCode::UNAUTHORIZED,
        Code::NoAuthorizationHeader,
        "No authorization header",
    )
}
