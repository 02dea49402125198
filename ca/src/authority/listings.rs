//! Listings of identities and certificates, page by page.

use time::OffsetDateTime;

use super::{Authority, Caller};
use crate::attributes::REVOKER;
use crate::error::{ApiError, Code};
use crate::registry::{CertificateFilter, CertificateId, CertificateRecord, Identity, PAGE_ROWS, TimeWindow};
use crate::request::moment;

/// A part of a listing, and where the next part starts (after which entry), if there may be one.
pub type Page<Entry, Mark> = (Vec<Entry>, Option<Mark>);

/// The query of a certificate listing, as text.
#[derive(Debug, Default)]
pub struct CertificateQuery {
    /// Of this identity.
    pub id: Option<String>,
    /// With this authority key identifier.
    pub aki: Option<String>,
    /// With this serial number.
    pub serial: Option<String>,
    /// Revoked at or after.
    pub revoked_start: Option<String>,
    /// Revoked at or before.
    pub revoked_end: Option<String>,
    /// Ending at or after.
    pub expired_start: Option<String>,
    /// Ending at or before.
    pub expired_end: Option<String>,
    /// Only those not revoked.
    pub notrevoked: bool,
    /// Only those not expired.
    pub notexpired: bool,
}

impl CertificateQuery {
    /// The query with its moments read.
    ///
    /// # Errors
    /// When a moment cannot be read, or a window contradicts a flag.
    pub fn filter(&self, now: OffsetDateTime) -> Result<CertificateFilter, ApiError> {
        let refuse = |message: String| ApiError::bad_request(Code::BadBody, message);
        let read = |text: &Option<String>| moment(text.as_deref(), now).map_err(refuse);
        let revoked = TimeWindow { from: read(&self.revoked_start)?, to: read(&self.revoked_end)? };
        let expires = TimeWindow { from: read(&self.expired_start)?, to: read(&self.expired_end)? };
        if self.notrevoked && revoked != TimeWindow::default() {
            return Err(refuse("'notrevoked' and a window of revocation exclude each other".to_owned()));
        }
        if self.notexpired && expires != TimeWindow::default() {
            return Err(refuse("'notexpired' and a window of expiry exclude each other".to_owned()));
        }
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Ok(CertificateFilter {
            id: given(&self.id),
            serial: given(&self.serial),
            aki: given(&self.aki),
            revoked,
            expires,
            not_revoked: self.notrevoked,
            valid_after: self.notexpired.then_some(now.unix_timestamp()),
        })
    }
}

impl Authority {
    /// Judges whether the caller may list identities.
    ///
    /// # Errors
    /// An authorisation failure.
    pub fn may_list_identities(&self, caller: &Caller) -> Result<(), ApiError> {
        caller.require_registrar()
    }

    /// The identities that the caller has authority over, after the one named `after`.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub fn identities_page(&self, caller: &Caller, after: &str) -> Result<Page<Identity, String>, ApiError> {
        let own = caller.identity();
        let mut page = self.registry.identities(&own.affiliation, after)?;
        let next = (page.len() == PAGE_ROWS).then(|| page.last().map(|last| last.id.clone())).flatten();
        page.retain(|identity| own.attributes.may_act_on_type(&identity.kind));
        Ok((page, next))
    }

    /// Judges whether the caller may list certificates, and reads the query.
    ///
    /// # Errors
    /// An authorisation failure, or a query that cannot be read.
    pub fn may_list_certificates(
        &self,
        caller: &Caller,
        query: &CertificateQuery,
    ) -> Result<CertificateFilter, ApiError> {
        let attributes = &caller.identity().attributes;
        if !attributes.is_registrar() && !attributes.is_true(REVOKER) {
            let detail = "listing certificates needs hf.Registrar.Roles or hf.Revoker";
            return Err(ApiError::authorization(Code::MissingAttribute, detail));
        }
        query.filter(self.now())
    }

    /// The certificates in the caller's authority, after the one named `after`.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub fn certificates_page(
        &self,
        caller: &Caller,
        filter: &CertificateFilter,
        after: &CertificateId,
    ) -> Result<Page<CertificateRecord, CertificateId>, ApiError> {
        let page = self.registry.certificates(filter, &caller.identity().affiliation, after)?;
        let next =
            (page.len() == PAGE_ROWS).then(|| page.last().map(|last| last.certificate.clone())).flatten();
        Ok((page, next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_and_its_opposite_flag_exclude_each_other() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let contradiction = CertificateQuery {
            notrevoked: true,
            revoked_start: Some("now".to_owned()),
            ..CertificateQuery::default()
        };
        let plain =
            CertificateQuery { notexpired: true, id: Some(String::new()), ..CertificateQuery::default() };

        assert!(contradiction.filter(now).is_err());
        let filter = plain.filter(now).expect("filter");
        assert_eq!((filter.valid_after, filter.id), (Some(0), None));
    }
}
