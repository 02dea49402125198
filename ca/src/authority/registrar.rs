//! Registering, modifying and removing identities.

use axum::http::StatusCode;
use tracing::info;

use super::{Authority, Caller};
use crate::affiliation::Affiliation;
use crate::attributes::{Attribute, Attributes};
use crate::error::{ApiError, Code};
use crate::password::Secret;
use crate::registry::{Identity, IdentityChange, NewIdentity};
use crate::request::RegistrationRequest;
use crate::revocation_reason::RevocationReason;

/// Longest enrolment id in characters: it becomes the common name (X.520 `ub-common-name`).
const ID_CHARACTERS_MAX: usize = 64;

/// Longest type in characters: it becomes an organisational unit.
const TYPE_CHARACTERS_MAX: usize = 64;

impl Authority {
    /// Registers an identity and returns its secret.
    ///
    /// # Errors
    /// An authorisation failure when the caller may not give the type, place or attributes; code 74 when the name is
    /// taken; code 82 for a number of enrolments that is not allowed.
    pub fn register(&self, caller: &Caller, request: RegistrationRequest) -> Result<Secret, ApiError> {
        let identity = self.registration(caller, &request)?;
        let secret = request.secret.filter(|secret| !secret.is_empty()).unwrap_or_else(Secret::generate);
        let identity = NewIdentity { secret_hash: self.hash(&secret)?, ..identity };
        if !self.registry.add_identity(&identity)? {
            let message = format!("Identity '{}' is already registered", identity.id);
            return Err(ApiError::new(StatusCode::CONFLICT, Code::IdentityExists, message));
        }
        info!(target: "audit", ca = self.name(), caller = caller.identity().id, id = identity.id, kind = identity.kind,
              affiliation = %identity.affiliation, "identity registered");
        Ok(secret)
    }

    fn registration(&self, caller: &Caller, request: &RegistrationRequest) -> Result<NewIdentity, ApiError> {
        caller.require_registrar()?;
        check_id(&request.id)?;
        let own = caller.identity();
        let kind = if request.kind.is_empty() { own.kind.clone() } else { request.kind.clone() };
        check_type(&kind)?;
        caller.require_type(&kind)?;
        let affiliation = self.requested_affiliation(caller, request.affiliation.as_deref())?;
        let affiliation = affiliation.unwrap_or_else(|| own.affiliation.clone());
        let max_enrollments =
            enrollments(request.max_enrollments.unwrap_or_default(), self.settings.max_enrollments)?;
        let attributes = Attributes::default().changed(&request.attrs);
        may_give(caller, &request.attrs, &attributes)?;
        Ok(NewIdentity {
            attributes: attributes.with_fixed(&request.id, &kind, affiliation.as_str()),
            id: request.id.clone(),
            kind,
            affiliation,
            secret_hash: String::new(),
            max_enrollments,
        })
    }

    /// The identity of that name.
    ///
    /// # Errors
    /// Code 63 when there is none; an authorisation failure when the caller has no authority over it.
    pub fn identity(&self, caller: &Caller, id: &str) -> Result<Identity, ApiError> {
        caller.require_registrar()?;
        let identity = self.registry.identity(id)?.ok_or_else(|| unknown(id))?;
        caller.require_authority_over(&identity)?;
        Ok(identity)
    }

    /// Changes an identity; what the request leaves out stays. A new secret also forgives wrong attempts.
    ///
    /// # Errors
    /// As [`Authority::identity`] and [`Authority::register`].
    pub fn modify_identity(
        &self,
        caller: &Caller,
        id: &str,
        request: &RegistrationRequest,
    ) -> Result<Identity, ApiError> {
        let current = self.identity(caller, id)?;
        let kind = Some(request.kind.clone()).filter(|kind| !kind.is_empty());
        if let Some(kind) = &kind {
            check_type(kind)?;
            caller.require_type(kind)?;
        }
        let affiliation = self.requested_affiliation(caller, request.affiliation.as_deref())?;
        let attributes = current.attributes.changed(&request.attrs);
        may_give(caller, &request.attrs, &attributes)?;
        let secret = request.secret.as_ref().filter(|secret| !secret.is_empty());
        let max = request.max_enrollments.filter(|max| *max != 0);
        let change = IdentityChange {
            kind,
            affiliation,
            attributes: (!request.attrs.is_empty()).then_some(attributes),
            secret_hash: secret.map(|secret| self.hash(secret)).transpose()?,
            max_enrollments: max.map(|max| enrollments(max, self.settings.max_enrollments)).transpose()?,
        };
        let changed = self.registry.change_identity(id, &change)?.ok_or_else(|| unknown(id))?;
        info!(target: "audit", ca = self.name(), caller = caller.identity().id, id, new_secret = secret.is_some(),
              "identity modified");
        Ok(changed)
    }

    /// Removes an identity and revokes its certificates. `force` allows a caller to remove itself.
    ///
    /// # Errors
    /// Code 56 when removal is switched off or the caller would remove itself; else as [`Authority::identity`].
    pub fn remove_identity(&self, caller: &Caller, id: &str, force: bool) -> Result<Identity, ApiError> {
        let refuse = |message: &str| Err(ApiError::new(StatusCode::FORBIDDEN, Code::RemoveIdentity, message));
        if !self.settings.allow_identity_removal {
            return refuse(
                "removal of identities is switched off; the operator can allow it (allow_removal)",
            );
        }
        self.identity(caller, id)?;
        if caller.identity().id == id && !force {
            return refuse("this would remove the caller's own identity; use force");
        }
        let reason = RevocationReason::CessationOfOperation.number();
        let removed = self.registry.remove_identity(id, self.deed(caller), reason)?;
        info!(target: "audit", ca = self.name(), caller = caller.identity().id, id, "identity removed");
        removed.ok_or_else(|| unknown(id))
    }

    /// The place that a request names: nothing, the root for `.`, or an existing one within the caller's authority.
    fn requested_affiliation(
        &self,
        caller: &Caller,
        requested: Option<&str>,
    ) -> Result<Option<Affiliation>, ApiError> {
        let Some(text) = requested.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let refused = |detail: String| ApiError::authorization(Code::AffiliationAuthority, detail);
        let affiliation = Affiliation::parse(text).map_err(|error| refused(error.to_string()))?;
        caller.require_affiliation(&affiliation)?;
        if !self.registry.affiliation_exists(&affiliation)? {
            // Fabric CA hides this behind the authorisation failure; so a caller cannot probe for affiliations.
            return Err(ApiError::authorization(
                Code::AffiliationNotFound,
                format!("affiliation '{affiliation}' does not exist"),
            ));
        }
        Ok(Some(affiliation))
    }
}

fn may_give(caller: &Caller, requested: &[Attribute], resulting: &Attributes) -> Result<(), ApiError> {
    caller
        .identity()
        .attributes
        .may_give(requested, resulting)
        .map_err(|error| ApiError::authorization(Code::AttributeRegistration, error.to_string()))
}

fn unknown(id: &str) -> ApiError {
    let shown: String = id.chars().take(ID_CHARACTERS_MAX).collect();
    ApiError::not_found(Code::NotFound, format!("Identity '{shown}' does not exist"))
}

fn check_id(id: &str) -> Result<(), ApiError> {
    let refuse = |message: &str| Err(ApiError::bad_request(Code::BadBody, message));
    if id.is_empty() {
        return refuse("the registration lacks the enrolment id (id)");
    }
    if id.chars().count() > ID_CHARACTERS_MAX {
        return refuse("an enrolment id has at most 64 characters, as a certificate's common name");
    }
    // Ids become file names, log fields and parts of paths in the hands of others.
    if id.chars().any(|c| c.is_control() || "/\\'\"`;<>|*?".contains(c)) || id == "." || id == ".." {
        return refuse("an enrolment id holds no control characters, slashes, quotes or shell characters");
    }
    Ok(())
}

fn check_type(kind: &str) -> Result<(), ApiError> {
    let plain = kind.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if plain && kind.len() <= TYPE_CHARACTERS_MAX {
        return Ok(());
    }
    let message = "the type of an identity is a word of at most 64 letters, digits, '-', '_' and '.'";
    Err(ApiError::bad_request(Code::BadBody, message))
}

/// The enrolments of an identity below the authority's own limit; -1 is without limit.
///
/// Source: fabric-ca `lib/util.go`, `getMaxEnrollments`.
fn enrollments(requested: i64, ceiling: i64) -> Result<i64, ApiError> {
    let refuse = |message: String| Err(ApiError::bad_request(Code::BadMaxEnrollments, message));
    if requested < -1 {
        return refuse(format!("{requested} is no number of enrolments"));
    }
    match (requested, ceiling) {
        (_, 0) => refuse("enrolment by secret is switched off at this certificate authority".to_owned()),
        (0, ceiling) => Ok(ceiling),
        (requested, -1) => Ok(requested),
        (requested, ceiling) if requested == -1 || requested > ceiling => {
            refuse(format!("the certificate authority allows at most {ceiling} enrolments"))
        }
        (requested, _) => Ok(requested),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enrolments_stay_below_the_ceiling() {
        assert_eq!(enrollments(0, -1).ok(), Some(-1));
        assert_eq!(enrollments(5, -1).ok(), Some(5));
        assert_eq!(enrollments(0, 3).ok(), Some(3));
        assert_eq!(enrollments(2, 3).ok(), Some(2));
        for (requested, ceiling) in [(-2, -1), (-1, 3), (4, 3), (1, 0)] {
            assert_eq!(enrollments(requested, ceiling).expect_err("refused").code(), 82);
        }
    }

    #[test]
    fn ids_with_path_or_sql_characters_are_refused() {
        for id in ["", "..", "a/b", "a\\b", "x' OR '1'='1", "a;b", "nul\0", &"x".repeat(65)] {
            assert_eq!(check_id(id).expect_err(id).code(), 5);
        }
        for id in ["User1@org1.example.com", "peer0.org1", "Alice Smith", "Jörg"] {
            assert!(check_id(id).is_ok(), "{id}");
        }
    }
}
