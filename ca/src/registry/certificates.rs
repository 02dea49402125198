//! Issued certificates in the registry.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::audit::{AuditAction, Deed, append};
use super::{PAGE_ROWS, Registry, RegistryError, identities};
use crate::affiliation::Affiliation;

/// What names a certificate: serial number and authority key identifier.
///
/// Both in lower-case hexadecimal without leading zeros, as Fabric CA compares them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertificateId {
    /// The serial number.
    pub serial: String,
    /// The authority key identifier.
    pub aki: String,
}

impl CertificateId {
    /// Brings both numbers into the form in which they are compared: colons, capitals and leading zeros go.
    pub fn new(serial: &str, aki: &str) -> Self {
        Self { serial: canonical_hex(serial), aki: canonical_hex(aki) }
    }
}

/// A hexadecimal number in the form in which it is compared.
pub(crate) fn canonical_hex(text: &str) -> String {
    let plain: String = text.chars().filter(|c| *c != ':').map(|c| c.to_ascii_lowercase()).collect();
    plain.trim_start_matches('0').to_owned()
}

/// A certificate that this authority issued. Times are in seconds since 1970, UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRecord {
    /// What names it.
    pub certificate: CertificateId,
    /// The identity that it was issued to.
    pub id: String,
    /// The identity's affiliation when it was issued.
    pub affiliation: Affiliation,
    /// The certificate in PEM.
    pub pem: String,
    /// When it was issued.
    pub issued_at: i64,
    /// When it ends.
    pub not_after: i64,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
}

/// A revoked certificate, as the list of revoked certificates needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// The serial number in lower-case hexadecimal, without leading zeros.
    pub serial: String,
    /// When it was revoked, in seconds since 1970.
    pub revoked_at: i64,
    /// Why (RFC 5280, section 5.3.1).
    pub reason: u8,
}

/// A window of time in seconds since 1970; an open end is `None`, both ends belong to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TimeWindow {
    /// Earliest.
    pub from: Option<i64>,
    /// Latest.
    pub to: Option<i64>,
}

/// Which certificates a listing holds; everything set must hold.
#[derive(Debug, Clone, Default)]
pub struct CertificateFilter {
    /// Those of this identity.
    pub id: Option<String>,
    /// Those with this serial number.
    pub serial: Option<String>,
    /// Those with this authority key identifier.
    pub aki: Option<String>,
    /// Those revoked in this window.
    pub revoked: TimeWindow,
    /// Those that end in this window.
    pub expires: TimeWindow,
    /// Only those not revoked.
    pub not_revoked: bool,
    /// Only those that end after this moment.
    pub valid_after: Option<i64>,
}

/// Why a certificate is not handed out.
#[derive(Debug, thiserror::Error)]
pub enum EnrollmentRefused {
    /// The identity is gone.
    #[error("the identity does not exist")]
    Unknown,
    /// The identity is revoked.
    #[error("the identity is revoked")]
    Revoked,
    /// The identity has used all its enrolments.
    #[error("the identity has enrolled {0} times, which is all that it may")]
    Exhausted(i64),
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl From<rusqlite::Error> for EnrollmentRefused {
    fn from(error: rusqlite::Error) -> Self {
        Self::Registry(error.into())
    }
}

const COLUMNS: &str = "c.serial, c.aki, c.id, COALESCE(i.affiliation, c.affiliation), c.pem, c.issued_at, c.not_after, c.revoked_at";

impl Registry {
    /// Writes a new certificate down before it is handed out.
    ///
    /// With `counts` it is an enrolment by secret: it uses one of the identity's enrolments up and forgives wrong
    /// attempts. `ceiling` is the authority's own limit, -1 for none; `profile` stands in the audit log.
    ///
    /// # Errors
    /// When the identity has meanwhile been removed or revoked, or has no enrolments left.
    pub fn record_certificate(
        &self,
        record: &CertificateRecord,
        profile: &str,
        counts: bool,
        ceiling: i64,
    ) -> Result<(), EnrollmentRefused> {
        self.write(|transaction| {
            let identity = identities::find(transaction, &record.id)?.ok_or(EnrollmentRefused::Unknown)?;
            if identity.revoked {
                return Err(EnrollmentRefused::Revoked);
            }
            if counts {
                let max = allowed_enrollments(identity.max_enrollments, ceiling);
                if max >= 0 && identity.enrollments >= max {
                    return Err(EnrollmentRefused::Exhausted(identity.enrollments));
                }
                transaction
                    .prepare_cached(
                        "UPDATE identities SET enrollments = enrollments + 1, failed_attempts = 0 WHERE id = ?1",
                    )?
                    .execute([&record.id])?;
            }
            insert(transaction, record)?;
            let action = if counts { AuditAction::Issue } else { AuditAction::Renew };
            let deed = Deed { caller: &record.id, at: record.issued_at };
            let detail = format!("profile={profile}");
            append(transaction, &deed.on_certificate(action, &record.id, &record.certificate, detail))?;
            Ok(())
        })
    }

    /// The certificate of that name.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub fn certificate(&self, name: &CertificateId) -> Result<Option<CertificateRecord>, RegistryError> {
        self.read(|connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM certificates c LEFT JOIN identities i ON i.id = c.id \
                 WHERE c.serial = ?1 AND c.aki = ?2"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            statement.query_row([&name.serial, &name.aki], |row| Ok(from_row(row))).optional()?.transpose()
        })
    }

    /// Revokes one certificate; `false` when it is unknown or revoked already.
    ///
    /// # Errors
    /// When the registry cannot be written.
    pub fn revoke_certificate(
        &self,
        name: &CertificateId,
        deed: Deed<'_>,
        reason: u8,
    ) -> Result<bool, RegistryError> {
        self.write(|transaction| {
            let owner: Option<String> = transaction
                .prepare_cached(
                    "UPDATE certificates SET revoked_at = ?3, reason = ?4 \
                     WHERE serial = ?1 AND aki = ?2 AND revoked_at IS NULL RETURNING id",
                )?
                .query_row(params![name.serial, name.aki, deed.at, reason], |row| row.get(0))
                .optional()?;
            let Some(owner) = owner else {
                return Ok(false);
            };
            let action = AuditAction::RevokeCertificate;
            append(transaction, &deed.on_certificate(action, &owner, name, reason_text(reason)))?;
            Ok(true)
        })
    }

    /// Revokes an identity and all its certificates, which are returned.
    ///
    /// # Errors
    /// When the registry cannot be written.
    pub fn revoke_identity(
        &self,
        id: &str,
        deed: Deed<'_>,
        reason: u8,
    ) -> Result<Vec<CertificateId>, RegistryError> {
        self.write(|transaction| {
            transaction.execute("UPDATE identities SET revoked = 1 WHERE id = ?1", [id])?;
            append(transaction, &deed.on_identity(AuditAction::RevokeIdentity, id, reason_text(reason)))?;
            revoke_all(transaction, id, deed, reason)
        })
    }

    /// One page of the certificates of identities at or below an affiliation, after the one named `after`.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub fn certificates(
        &self,
        filter: &CertificateFilter,
        within: &Affiliation,
        after: &CertificateId,
    ) -> Result<Vec<CertificateRecord>, RegistryError> {
        let (conditions, mut values) = conditions(filter, within, after);
        values.push(Value::Integer(PAGE_ROWS as i64));
        let sql = format!(
            "SELECT {COLUMNS} FROM certificates c LEFT JOIN identities i ON i.id = c.id WHERE {} \
             ORDER BY c.serial, c.aki LIMIT ?",
            conditions.join(" AND ")
        );
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query(params_from_iter(values))?;
            let mut page = Vec::new();
            while let Some(row) = rows.next()? {
                page.push(from_row(row)?);
            }
            Ok(page)
        })
    }

    /// The revoked certificates in both windows, ordered by serial number.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub fn revoked_certificates(
        &self,
        revoked: TimeWindow,
        expires: TimeWindow,
    ) -> Result<Vec<Revoked>, RegistryError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT serial, revoked_at, reason FROM certificates WHERE revoked_at IS NOT NULL \
                 AND revoked_at >= ?1 AND revoked_at <= ?2 AND not_after >= ?3 AND not_after <= ?4 ORDER BY serial",
            )?;
            let (first, last) = (i64::MIN, i64::MAX);
            let window = params![
                revoked.from.unwrap_or(first),
                revoked.to.unwrap_or(last),
                expires.from.unwrap_or(first),
                expires.to.unwrap_or(last)
            ];
            let rows = statement.query_map(window, |row| {
                Ok(Revoked {
                    serial: row.get(0)?,
                    revoked_at: row.get(1)?,
                    reason: row.get::<_, Option<u8>>(2)?.unwrap_or_default(),
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

/// The enrolments that an identity has, below the authority's ceiling; -1 is without limit.
fn allowed_enrollments(own: i64, ceiling: i64) -> i64 {
    match (own, ceiling) {
        (own, -1) => own,
        (-1, ceiling) => ceiling,
        (own, ceiling) => own.min(ceiling),
    }
}

pub(super) fn revoke_all(
    connection: &Connection,
    id: &str,
    deed: Deed<'_>,
    reason: u8,
) -> Result<Vec<CertificateId>, RegistryError> {
    let mut statement = connection.prepare_cached(
        "UPDATE certificates SET revoked_at = ?2, reason = ?3 WHERE id = ?1 AND revoked_at IS NULL \
         RETURNING serial, aki",
    )?;
    let revoked = statement.query_map(params![id, deed.at, reason], |row| {
        Ok(CertificateId { serial: row.get(0)?, aki: row.get(1)? })
    })?;
    let revoked: Vec<CertificateId> = revoked.collect::<Result<_, _>>()?;
    for name in &revoked {
        let action = AuditAction::RevokeCertificate;
        append(connection, &deed.on_certificate(action, id, name, reason_text(reason)))?;
    }
    Ok(revoked)
}

/// The reason of a revocation as it stands in the audit log.
pub(super) fn reason_text(reason: u8) -> String {
    format!("reason={reason}")
}

fn insert(connection: &Connection, record: &CertificateRecord) -> Result<(), RegistryError> {
    connection
        .prepare_cached(
            "INSERT INTO certificates (serial, aki, id, affiliation, pem, issued_at, not_after) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            record.certificate.serial,
            record.certificate.aki,
            record.id,
            record.affiliation.as_str(),
            record.pem,
            record.issued_at,
            record.not_after
        ])?;
    Ok(())
}

fn conditions(
    filter: &CertificateFilter,
    within: &Affiliation,
    after: &CertificateId,
) -> (Vec<&'static str>, Vec<Value>) {
    let mut conditions = vec!["(c.serial, c.aki) > (?, ?)"];
    let mut values = vec![Value::Text(after.serial.clone()), Value::Text(after.aki.clone())];
    if !within.is_root() {
        let (from, to) = super::affiliations::below(within);
        conditions.push(
            "(COALESCE(i.affiliation, c.affiliation) = ? OR \
             (COALESCE(i.affiliation, c.affiliation) >= ? AND COALESCE(i.affiliation, c.affiliation) < ?))",
        );
        values.extend([within.as_str().to_owned(), from, to].map(Value::Text));
    }
    let texts = [
        ("c.id = ?", filter.id.clone()),
        ("c.serial = ?", filter.serial.as_deref().map(canonical_hex)),
        ("c.aki = ?", filter.aki.as_deref().map(canonical_hex)),
    ];
    for (condition, value) in texts {
        if let Some(value) = value {
            conditions.push(condition);
            values.push(Value::Text(value));
        }
    }
    let moments = [
        ("c.revoked_at >= ?", filter.revoked.from),
        ("c.revoked_at <= ?", filter.revoked.to),
        ("c.not_after >= ?", filter.expires.from),
        ("c.not_after <= ?", filter.expires.to),
        ("c.not_after > ?", filter.valid_after),
    ];
    for (condition, value) in moments {
        if let Some(value) = value {
            conditions.push(condition);
            values.push(Value::Integer(value));
        }
    }
    if filter.not_revoked {
        conditions.push("c.revoked_at IS NULL");
    }
    (conditions, values)
}

fn from_row(row: &Row<'_>) -> Result<CertificateRecord, RegistryError> {
    let certificate = CertificateId { serial: row.get(0)?, aki: row.get(1)? };
    let affiliation: String = row.get(3)?;
    let affiliation = Affiliation::parse(&affiliation).map_err(|_| RegistryError::Damaged {
        what: format!("the affiliation of certificate {}", certificate.serial),
    })?;
    Ok(CertificateRecord {
        certificate,
        id: row.get(2)?,
        affiliation,
        pem: row.get(4)?,
        issued_at: row.get(5)?,
        not_after: row.get(6)?,
        revoked_at: row.get(7)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::Attributes;
    use crate::registry::NewIdentity;

    fn registry() -> (tempfile::TempDir, Registry) {
        let folder = tempfile::tempdir().expect("folder");
        let registry = Registry::open(&folder.path().join("registry.db"), "aa").expect("registry");
        let alice = NewIdentity {
            id: "alice".to_owned(),
            kind: "client".to_owned(),
            affiliation: Affiliation::parse("org1").expect("affiliation"),
            attributes: Attributes::default(),
            secret_hash: String::new(),
            max_enrollments: 2,
        };
        registry.add_identity(&alice).expect("add");
        (folder, registry)
    }

    fn admin(at: i64) -> Deed<'static> {
        Deed { caller: "admin", at }
    }

    fn record(serial: &str) -> CertificateRecord {
        CertificateRecord {
            certificate: CertificateId::new(serial, "00AB"),
            id: "alice".to_owned(),
            affiliation: Affiliation::parse("org1").expect("affiliation"),
            pem: format!("pem {serial}"),
            issued_at: 10,
            not_after: 1000,
            revoked_at: None,
        }
    }

    #[test]
    fn enrolments_are_counted_and_limited() {
        let (_folder, registry) = registry();

        registry.record_certificate(&record("1"), "default", true, -1).expect("first");
        registry.record_certificate(&record("2"), "default", true, -1).expect("second");
        let third = registry.record_certificate(&record("3"), "default", true, -1);

        assert!(matches!(third, Err(EnrollmentRefused::Exhausted(2))));
        assert_eq!(registry.certificate(&CertificateId::new("3", "ab")).expect("read"), None);
        registry.record_certificate(&record("4"), "default", false, -1).expect("a renewal does not count");
    }

    #[test]
    fn a_revoked_identity_gets_no_certificate() {
        let (_folder, registry) = registry();
        registry.record_certificate(&record("0F:01"), "default", true, -1).expect("first");

        let revoked = registry.revoke_identity("alice", admin(20), 1).expect("revoke");
        let again = registry.record_certificate(&record("2"), "default", false, -1);

        assert_eq!(revoked, [CertificateId { serial: "f01".to_owned(), aki: "ab".to_owned() }]);
        assert!(matches!(again, Err(EnrollmentRefused::Revoked)));
        let log: Vec<_> =
            registry.audit(0).expect("audit").into_iter().map(|row| (row.action, row.caller)).collect();
        let rows = [
            (AuditAction::Issue, "alice"),
            (AuditAction::RevokeIdentity, "admin"),
            (AuditAction::RevokeCertificate, "admin"),
        ];
        assert_eq!(log, rows.map(|(action, caller)| (action, caller.to_owned())));
    }

    #[test]
    fn revoked_certificates_are_found_by_window() {
        let (_folder, registry) = registry();
        registry.record_certificate(&record("1"), "default", false, -1).expect("first");
        registry.record_certificate(&record("2"), "default", false, -1).expect("second");
        let name = CertificateId::new("1", "ab");

        assert!(registry.revoke_certificate(&name, admin(50), 4).expect("revoke"));
        assert!(!registry.revoke_certificate(&name, admin(60), 4).expect("again"));

        let all = registry.revoked_certificates(TimeWindow::default(), TimeWindow::default()).expect("all");
        assert_eq!(all, [Revoked { serial: "1".to_owned(), revoked_at: 50, reason: 4 }]);
        let late = TimeWindow { from: Some(51), to: None };
        assert!(registry.revoked_certificates(late, TimeWindow::default()).expect("late").is_empty());
    }

    #[test]
    fn listings_obey_filter_and_affiliation() {
        let (_folder, registry) = registry();
        registry.record_certificate(&record("1"), "default", false, -1).expect("first");
        registry.record_certificate(&record("2"), "default", false, -1).expect("second");
        registry.revoke_certificate(&CertificateId::new("1", "ab"), admin(50), 0).expect("revoke");
        let start = CertificateId::new("", "");
        let count = |filter: CertificateFilter, within: &str| {
            let within = Affiliation::parse(within).expect("affiliation");
            registry.certificates(&filter, &within, &start).expect("page").len()
        };

        assert_eq!(count(CertificateFilter::default(), ""), 2);
        assert_eq!(count(CertificateFilter::default(), "org1"), 2);
        assert_eq!(count(CertificateFilter::default(), "org2"), 0);
        assert_eq!(count(CertificateFilter { not_revoked: true, ..CertificateFilter::default() }, ""), 1);
        let unknown = CertificateFilter { id: Some("' OR 1=1".to_owned()), ..CertificateFilter::default() };
        assert_eq!(count(unknown, ""), 0);
        let ended = CertificateFilter { valid_after: Some(1000), ..CertificateFilter::default() };
        assert_eq!(count(ended, ""), 0);
    }
}
