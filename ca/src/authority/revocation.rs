//! Revoking identities and certificates, and the list of revoked certificates.

use axum::http::StatusCode;
use tracing::info;

use super::{Authority, Caller};
use crate::attributes::{GEN_CRL, REVOKER};
use crate::error::{ApiError, Code};
use crate::registry::{CertificateId, TimeWindow};
use crate::request::{CrlRequest, RevocationRequest, date};
use crate::revocation_reason::RevocationReason;

/// What a revocation did.
#[derive(Debug)]
pub struct Revocation {
    /// The certificates that are revoked now.
    pub certificates: Vec<CertificateId>,
    /// The new list of revoked certificates in PEM, if it was asked for.
    pub crl_pem: Option<String>,
}

impl Authority {
    /// Revokes one certificate, or an identity with all its certificates.
    ///
    /// A caller may revoke what is its own; for anything else it needs `hf.Revoker` and authority over the owner.
    ///
    /// # Errors
    /// Codes 8, 9, 10, 15 and 66, or an authorisation failure.
    pub fn revoke(&self, caller: &Caller, request: &RevocationRequest) -> Result<Revocation, ApiError> {
        let reason = RevocationReason::parse(&request.reason);
        let by_certificate = !request.serial.is_empty() && !request.aki.is_empty();
        let certificates = if by_certificate {
            let name = CertificateId::new(&request.serial, &request.aki);
            self.revoke_certificate(caller, name, &request.id, reason)?
        } else if !request.id.is_empty() {
            self.revoke_identity(caller, &request.id, reason)?
        } else {
            let message = "a revocation needs an identity (id) or a certificate (serial and aki)";
            return Err(ApiError::bad_request(Code::RevokeMissingArguments, message));
        };
        let crl_pem =
            if request.gencrl { Some(self.crl(TimeWindow::default(), self.unexpired())?) } else { None };
        Ok(Revocation { certificates, crl_pem })
    }

    fn revoke_certificate(
        &self,
        caller: &Caller,
        name: CertificateId,
        owner: &str,
        reason: RevocationReason,
    ) -> Result<Vec<CertificateId>, ApiError> {
        let own = caller.identity();
        let record = self.registry.certificate(&name)?;
        // Who may not revoke learns nothing about which certificates exist.
        if record.as_ref().is_none_or(|record| record.id != own.id) {
            caller.require_true(REVOKER)?;
        }
        let record = record.ok_or_else(|| {
            ApiError::not_found(
                Code::RevokeCertificateNotFound,
                "there is no certificate with this serial and aki",
            )
        })?;
        if record.id != own.id {
            match self.registry.identity(&record.id)? {
                Some(identity) => caller.require_authority_over(&identity)?,
                None => caller.require_affiliation(&record.affiliation)?,
            }
        }
        if !owner.is_empty() && owner != record.id {
            let message = "the certificate belongs to another identity than the one named";
            return Err(ApiError::bad_request(Code::RevokeWrongOwner, message));
        }
        if !self.registry.revoke_certificate(&name, self.deed(caller), reason.number())? {
            let message = "the certificate is revoked already";
            return Err(ApiError::new(StatusCode::NOT_FOUND, Code::AlreadyRevoked, message));
        }
        self.audit(caller, &record.id, &name, reason);
        Ok(vec![name])
    }

    fn revoke_identity(
        &self,
        caller: &Caller,
        id: &str,
        reason: RevocationReason,
    ) -> Result<Vec<CertificateId>, ApiError> {
        if caller.identity().id != id {
            caller.require_true(REVOKER)?;
        }
        let identity = self.registry.identity(id)?.ok_or_else(|| {
            ApiError::not_found(Code::RevokeIdentityNotFound, "there is no identity of this name to revoke")
        })?;
        if caller.identity().id != id {
            caller.require_authority_over(&identity)?;
        }
        let revoked = self.registry.revoke_identity(id, self.deed(caller), reason.number())?;
        info!(target: "audit", ca = self.name(), caller = caller.identity().id, id, ?reason, certificates = revoked.len(),
              "identity revoked");
        for name in &revoked {
            self.audit(caller, id, name, reason);
        }
        Ok(revoked)
    }

    /// The list of revoked, unexpired certificates in PEM, within the windows of the request.
    ///
    /// # Errors
    /// An authorisation failure without `hf.GenCRL`, or codes 36 and 37 for windows that cannot hold anything.
    pub fn generate_crl(&self, caller: &Caller, request: &CrlRequest) -> Result<String, ApiError> {
        caller.require_true(GEN_CRL)?;
        let window = |from: &Option<String>, to: &Option<String>, code| {
            let refuse = |message: String| ApiError::bad_request(code, message);
            let from = date(from.as_deref()).map_err(refuse)?;
            let to = date(to.as_deref()).map_err(refuse)?;
            if from.zip(to).is_some_and(|(from, to)| from > to) {
                return Err(refuse("the window ends before it starts".to_owned()));
            }
            Ok(TimeWindow { from, to })
        };
        let revoked = window(&request.revokedafter, &request.revokedbefore, Code::InvalidRevokedAfter)?;
        let expires = window(&request.expireafter, &request.expirebefore, Code::InvalidExpireAfter)?;
        // Expired certificates are refused anyway, so they are on no list unless a window asks for them.
        let expires = TimeWindow { from: expires.from.or(self.unexpired().from), ..expires };
        let crl = self.crl(revoked, expires)?;
        info!(target: "audit", ca = self.name(), caller = caller.identity().id, "list of revoked certificates made");
        Ok(crl)
    }

    fn unexpired(&self) -> TimeWindow {
        TimeWindow { from: Some(self.now().unix_timestamp()), to: None }
    }

    fn crl(&self, revoked: TimeWindow, expires: TimeWindow) -> Result<String, ApiError> {
        if self.issuer.has_ended(self.now()) {
            let detail = "the authority's own certificate has ended";
            return Err(ApiError::internal(Code::CrlGeneration, detail));
        }
        let entries = self.registry.revoked_certificates(revoked, expires)?;
        self.issuer
            .crl(&entries, self.now())
            .map_err(|error| ApiError::internal(Code::CrlGeneration, error.to_string()))
    }

    fn audit(&self, caller: &Caller, id: &str, name: &CertificateId, reason: RevocationReason) {
        self.meters.revoked.inc();
        info!(target: "audit", ca = self.name(), caller = caller.identity().id, id, serial = name.serial, aki = name.aki, ?reason,
              "certificate revoked");
    }
}
