//! Who did what: the rows that changes write, and the reading of them.

use super::{Authority, Caller};
use crate::error::{ApiError, Code};
use crate::registry::{AuditEntry, Deed, PAGE_ROWS};

use super::listings::Page;

impl Authority {
    /// A change that `caller` makes now.
    pub(super) fn deed<'a>(&self, caller: &'a Caller) -> Deed<'a> {
        Deed { caller: &caller.identity().id, at: self.now().unix_timestamp() }
    }

    /// Judges whether the caller may read the audit log: a registrar who stands above all affiliations.
    ///
    /// # Errors
    /// An authorisation failure.
    pub fn may_read_audit(&self, caller: &Caller) -> Result<(), ApiError> {
        caller.require_registrar()?;
        if caller.identity().affiliation.is_root() {
            return Ok(());
        }
        let detail = format!("'{}' does not stand above all affiliations", caller.identity().id);
        Err(ApiError::authorization(Code::AffiliationAuthority, detail))
    }

    /// The rows of the audit log after the one numbered `after`.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub fn audit_page(&self, after: i64) -> Result<Page<AuditEntry, i64>, ApiError> {
        let page = self.registry.audit(after)?;
        let next = (page.len() == PAGE_ROWS).then(|| page.last().map(|last| last.number)).flatten();
        Ok((page, next))
    }
}
