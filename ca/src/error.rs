//! What a caller of the REST API is told when a request is refused.
//!
//! Fabric CA knows two families: an authentication failure and an authorisation failure tell the caller nothing
//! but their name (codes 20 and 71), and the real cause goes to the log; every other error tells its own code.
//! Source: fabric-ca `lib/caerrors/servererror.go`.

use axum::http::StatusCode;

use crate::registry::RegistryError;

/// The error codes of Fabric CA's REST API that this server uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Code {
    /// Nothing more exact is known.
    Unknown = 0,
    /// The path exists, the method does not.
    MethodNotAllowed = 1,
    /// The request has no `Authorization` header.
    NoAuthorizationHeader = 2,
    /// The request has no body, and needs one.
    EmptyBody = 4,
    /// The body is not what the endpoint takes.
    BadBody = 5,
    /// The certificate to revoke is unknown.
    RevokeCertificateNotFound = 8,
    /// The certificate to revoke belongs to another identity.
    RevokeWrongOwner = 9,
    /// The identity to revoke is unknown.
    RevokeIdentityNotFound = 10,
    /// A revocation names neither an identity nor a certificate.
    RevokeMissingArguments = 15,
    /// The affiliation is unknown.
    AffiliationNotFound = 16,
    /// This server has no CA of that name.
    CaNotFound = 19,
    /// Any authentication failure, as the caller sees it.
    Authentication = 20,
    /// The `Authorization` header is not HTTP Basic.
    NoUserPassword = 21,
    /// Enrolment is switched off.
    EnrollDisabled = 22,
    /// The identity is unknown.
    InvalidUser = 23,
    /// The secret is wrong, the identity is revoked or has no enrolments left.
    InvalidPassword = 24,
    /// The token cannot be read, or its signature is wrong.
    InvalidToken = 25,
    /// The token's certificate was not issued here.
    UntrustedCertificate = 26,
    /// The token's certificate has expired.
    CertificateExpired = 27,
    /// The token's certificate has been revoked.
    CertificateRevoked = 28,
    /// The certificate signing request cannot be read or its signature is wrong.
    BadSigningRequest = 31,
    /// `revokedafter` lies after `revokedbefore`.
    InvalidRevokedAfter = 36,
    /// `expireafter` lies after `expirebefore`.
    InvalidExpireAfter = 37,
    /// The list of revoked certificates could not be made.
    CrlGeneration = 41,
    /// An attribute may not be given to this identity.
    AttributeRegistration = 42,
    /// The caller does not hold an attribute that the endpoint asks for.
    MissingAttribute = 43,
    /// The caller may not act on this affiliation.
    AffiliationAuthority = 44,
    /// The caller may not act on identities of this type.
    TypeAuthority = 45,
    /// An identity may not be removed.
    RemoveIdentity = 56,
    /// An identity could not be modified.
    ModifyIdentity = 58,
    /// An affiliation could not be added.
    AddAffiliation = 60,
    /// An affiliation could not be removed.
    RemoveAffiliation = 61,
    /// The registry holds no such entry.
    NotFound = 63,
    /// An affiliation could not be modified.
    ModifyAffiliation = 64,
    /// The certificate or identity is revoked already.
    AlreadyRevoked = 66,
    /// Any authorisation failure, as the caller sees it.
    Authorization = 71,
    /// The secret was wrong too many times.
    PasswordAttempts = 73,
    /// An identity of that name exists.
    IdentityExists = 74,
    /// The common name of the signing request is not the caller's identity.
    CommonNameMismatch = 77,
    /// A field of the signing request is too long.
    FieldTooLong = 80,
    /// The number of enrolments asked for is not allowed.
    BadMaxEnrollments = 82,
}

/// A refused request: what the caller is told, and what the log is told.
#[derive(Debug, thiserror::Error)]
#[error("{message}{}", detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default())]
pub struct ApiError {
    status: StatusCode,
    code: Code,
    message: String,
    /// The code of the real cause, when the caller may not know it.
    local_code: Code,
    detail: Option<String>,
}

impl ApiError {
    /// An error that the caller may know exactly.
    pub fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), local_code: code, detail: None }
    }

    /// An authentication failure: the caller learns only that it is one.
    pub fn authentication(cause: Code, detail: impl Into<String>) -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            code: Code::Authentication,
            message: "Authentication failure".to_owned(),
            local_code: cause,
            detail: Some(detail.into()),
        }
    }

    /// An authorisation failure: the caller learns only that it is one.
    pub fn authorization(cause: Code, detail: impl Into<String>) -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            code: Code::Authorization,
            message: "Authorization failure".to_owned(),
            local_code: cause,
            detail: Some(detail.into()),
        }
    }

    /// A fault of this server: the caller learns only that there was one.
    pub fn internal(code: Code, detail: impl Into<String>) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code,
            message: "the certificate authority could not do this; its log says why".to_owned(),
            local_code: code,
            detail: Some(detail.into()),
        }
    }

    /// A caller that asks too often; nothing was judged.
    pub fn too_many_requests() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, Code::Unknown, "too many requests; try again in a second")
    }

    /// A request that asks for something that it must not contain: status 400.
    pub fn bad_request(code: Code, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// Something that does not exist: status 404.
    pub fn not_found(code: Code, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The code that the caller sees.
    pub fn code(&self) -> u16 {
        self.code as u16
    }

    /// The code of the real cause, for the log.
    pub fn local_code(&self) -> u16 {
        self.local_code as u16
    }

    /// The message that the caller sees.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What only the log is told.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        let source = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Self::internal(Code::Unknown, format!("{error}{source}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authentication_failure_keeps_its_cause_for_the_log() {
        let error = ApiError::authentication(Code::InvalidPassword, "wrong secret");

        assert_eq!((error.code(), error.message()), (20, "Authentication failure"));
        assert_eq!((error.local_code(), error.detail()), (24, Some("wrong secret")));
        assert_eq!(error.status(), StatusCode::UNAUTHORIZED);
    }
}
