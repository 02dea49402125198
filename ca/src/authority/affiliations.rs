//! Managing affiliations.

use axum::http::StatusCode;
use tracing::info;

use super::{Authority, Caller};
use crate::affiliation::Affiliation;
use crate::error::{ApiError, Code};
use crate::registry::{AffiliationChange, AffiliationError, AffiliationTree};
use crate::revocation_reason::RevocationReason;

impl Authority {
    /// The affiliation with those below it; without a name, all that the caller may see.
    ///
    /// # Errors
    /// When the caller may not, or there is no such affiliation.
    pub fn affiliation(&self, caller: &Caller, name: Option<&str>) -> Result<AffiliationTree, ApiError> {
        caller.require_affiliation_manager()?;
        let name = match name {
            Some(name) => parse(name, Code::NotFound)?,
            None => caller.identity().affiliation.clone(),
        };
        caller.require_affiliation(&name)?;
        let tree = self.registry.affiliation_tree(&name)?;
        tree.ok_or_else(|| missing(&name))
    }

    /// Adds an affiliation; with `force` also those above it that are missing.
    ///
    /// # Errors
    /// When the caller may not, the name is taken, or the one above is missing.
    pub fn add_affiliation(&self, caller: &Caller, name: &str, force: bool) -> Result<Affiliation, ApiError> {
        caller.require_affiliation_manager()?;
        let name = parse(name, Code::AddAffiliation)?;
        if name.is_root() {
            return Err(ApiError::bad_request(Code::AddAffiliation, "the affiliation needs a name"));
        }
        caller.require_affiliation(&name)?;
        self.registry.add_affiliation(&name, force).map_err(|error| told(error, Code::AddAffiliation))?;
        info!(target: "audit", ca = self.name(), caller = caller.identity().id, affiliation = %name, "affiliation added");
        Ok(name)
    }

    /// Renames an affiliation and those below it; with `force` the identities there follow.
    ///
    /// # Errors
    /// When the caller may not, or the registry's rules forbid it.
    pub fn rename_affiliation(
        &self,
        caller: &Caller,
        from: &str,
        to: &str,
        force: bool,
    ) -> Result<AffiliationChange, ApiError> {
        caller.require_affiliation_manager()?;
        let (from, to) = (parse(from, Code::ModifyAffiliation)?, parse(to, Code::ModifyAffiliation)?);
        caller.require_affiliation(&from)?;
        caller.require_affiliation(&to)?;
        let change = self
            .registry
            .rename_affiliation(&from, &to, force)
            .map_err(|error| told(error, Code::ModifyAffiliation))?;
        info!(target: "audit", ca = self.name(), caller = caller.identity().id, %from, %to, identities = change.identities.len(),
              "affiliation renamed");
        Ok(change)
    }

    /// Removes an affiliation; with `force` also those below it and the identities there.
    ///
    /// # Errors
    /// When removal is switched off, the caller may not, or others depend on it.
    pub fn remove_affiliation(
        &self,
        caller: &Caller,
        name: &str,
        force: bool,
    ) -> Result<AffiliationChange, ApiError> {
        if !self.settings.allow_affiliation_removal {
            let message =
                "removal of affiliations is switched off; the operator can allow it (allow_removal)";
            return Err(ApiError::new(StatusCode::FORBIDDEN, Code::RemoveAffiliation, message));
        }
        caller.require_affiliation_manager()?;
        let name = parse(name, Code::RemoveAffiliation)?;
        caller.require_affiliation(&name)?;
        let reason = RevocationReason::CessationOfOperation.number();
        let change = self
            .registry
            .remove_affiliation(&name, force, self.deed(caller), reason)
            .map_err(|error| told(error, Code::RemoveAffiliation))?;
        info!(target: "audit", ca = self.name(), caller = caller.identity().id, affiliation = %name,
              identities = change.identities.len(), "affiliation removed");
        Ok(change)
    }
}

fn parse(name: &str, code: Code) -> Result<Affiliation, ApiError> {
    Affiliation::parse(name).map_err(|error| ApiError::bad_request(code, error.to_string()))
}

fn missing(name: &Affiliation) -> ApiError {
    ApiError::not_found(Code::NotFound, format!("affiliation '{name}' does not exist"))
}

fn told(error: AffiliationError, code: Code) -> ApiError {
    let message = error.to_string();
    match error {
        AffiliationError::Exists(_) => ApiError::new(StatusCode::CONFLICT, code, message),
        AffiliationError::Missing(name) => missing(&name),
        AffiliationError::Registry(error) => error.into(),
        _ => ApiError::bad_request(code, message),
    }
}
