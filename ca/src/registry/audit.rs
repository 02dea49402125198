//! The audit log: one row for every certificate that was issued or revoked, written with what it tells. It only grows.

use rusqlite::{Connection, params};

use super::{CertificateId, PAGE_ROWS, Registry, RegistryError};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditAction {
    /// A certificate was issued, by secret.
    Issue,
    /// A certificate was issued, by an earlier certificate.
    Renew,
    /// A certificate was revoked.
    RevokeCertificate,
    /// An identity was revoked; its certificates have rows of their own.
    RevokeIdentity,
    /// An identity was removed; its certificates have rows of their own.
    RemoveIdentity,
}

impl AuditAction {
    const ALL: [Self; 5] =
        [Self::Issue, Self::Renew, Self::RevokeCertificate, Self::RevokeIdentity, Self::RemoveIdentity];

    /// The word in the log.
    pub fn word(self) -> &'static str {
        match self {
            Self::Issue => "issue",
            Self::Renew => "renew",
            Self::RevokeCertificate => "revoke-certificate",
            Self::RevokeIdentity => "revoke-identity",
            Self::RemoveIdentity => "remove-identity",
        }
    }
}

/// One row of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its number, growing from 1; given by the log.
    pub number: i64,
    /// When, in seconds since 1970.
    pub at: i64,
    /// Whose request it was.
    pub caller: String,
    /// What happened.
    pub action: AuditAction,
    /// The identity that it happened to.
    pub id: String,
    /// The certificate's serial number in hexadecimal; empty for an identity.
    pub serial: String,
    /// The certificate's authority key identifier in hexadecimal; empty for an identity.
    pub aki: String,
    /// The profile of an issue (`profile=tls`), the reason of a revocation (`reason=1`, RFC 5280, section 5.3.1).
    pub detail: String,
}

/// Who changes something, and when (seconds since 1970).
#[derive(Debug, Clone, Copy)]
pub struct Deed<'a> {
    /// Whose request it is.
    pub caller: &'a str,
    /// When.
    pub at: i64,
}

impl Deed<'_> {
    /// The row about an identity.
    pub(super) fn on_identity(self, action: AuditAction, id: &str, detail: String) -> AuditEntry {
        let caller = self.caller.to_owned();
        let (serial, aki) = (String::new(), String::new());
        AuditEntry { number: 0, at: self.at, caller, action, id: id.to_owned(), serial, aki, detail }
    }

    /// The row about a certificate.
    pub(super) fn on_certificate(
        self,
        action: AuditAction,
        id: &str,
        certificate: &CertificateId,
        detail: String,
    ) -> AuditEntry {
        let CertificateId { serial, aki } = certificate.clone();
        AuditEntry { serial, aki, ..self.on_identity(action, id, detail) }
    }
}

impl Registry {
    /// Adds a row about something that happens outside the registry.
    ///
    /// # Errors
    /// When the registry cannot be written.
    pub fn append_audit(&self, entry: &AuditEntry) -> Result<(), RegistryError> {
        self.write(|connection| append(connection, entry))
    }

    /// One page of the log after the row numbered `after`, oldest first.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub fn audit(&self, after: i64) -> Result<Vec<AuditEntry>, RegistryError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT number, at, caller, action, id, serial, aki, detail FROM audit WHERE number > ?1 \
                 ORDER BY number LIMIT ?2",
            )?;
            let mut rows = statement.query(params![after, PAGE_ROWS as i64])?;
            let mut page = Vec::new();
            while let Some(row) = rows.next()? {
                let (number, word): (i64, String) = (row.get(0)?, row.get(3)?);
                let action = AuditAction::ALL.into_iter().find(|action| action.word() == word);
                page.push(AuditEntry {
                    number,
                    at: row.get(1)?,
                    caller: row.get(2)?,
                    action: action.ok_or_else(|| RegistryError::Damaged {
                        what: format!("row {number} of the audit log"),
                    })?,
                    id: row.get(4)?,
                    serial: row.get(5)?,
                    aki: row.get(6)?,
                    detail: row.get(7)?,
                });
            }
            Ok(page)
        })
    }
}

pub(super) fn append(connection: &Connection, entry: &AuditEntry) -> Result<(), RegistryError> {
    connection
        .prepare_cached(
            "INSERT INTO audit (at, caller, action, id, serial, aki, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            entry.at,
            entry.caller,
            entry.action.word(),
            entry.id,
            entry.serial,
            entry.aki,
            entry.detail
        ])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_only_grows() {
        let folder = tempfile::tempdir().expect("folder");
        let registry = Registry::open(&folder.path().join("registry.db"), "aa").expect("registry");
        let deed = Deed { caller: "admin", at: 7 };
        for number in 1..=150 {
            let entry = deed.on_identity(AuditAction::RevokeIdentity, &format!("id{number}"), String::new());
            registry.append_audit(&entry).expect("append");
        }

        let first = registry.audit(0).expect("page");
        let second = registry.audit(first.last().expect("row").number).expect("page");

        assert_eq!((first.len(), second.len()), (PAGE_ROWS, 50));
        assert_eq!((first[0].number, first[0].id.as_str(), first[0].caller.as_str()), (1, "id1", "admin"));
        for forbidden in ["UPDATE audit SET caller = 'x'", "DELETE FROM audit"] {
            let refused: Result<(), RegistryError> = registry.write(|connection| {
                connection.execute(forbidden, [])?;
                Ok(())
            });
            assert!(refused.is_err(), "{forbidden}");
        }
        assert_eq!(registry.audit(100).expect("page").len(), 50);
    }
}
