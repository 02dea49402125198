//! The registry's file: its layout, and the checks before it is used.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension};

use super::RegistryError;

/// Marks the file as a registry of this program ("CsCA").
const APPLICATION_ID: i64 = 0x4373_4341;

/// The layout below: the second added the audit log.
const LAYOUT: i64 = 2;

/// A predecessor that is just ending gives the file up within this time.
const LOCK_WAIT: Duration = Duration::from_millis(500);

const TABLES: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE affiliations (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE identities (
    id TEXT PRIMARY KEY,
    type TEXT NOT NULL,
    affiliation TEXT NOT NULL,
    attributes TEXT NOT NULL,
    secret_hash TEXT NOT NULL,
    max_enrollments INTEGER NOT NULL,
    enrollments INTEGER NOT NULL DEFAULT 0,
    failed_attempts INTEGER NOT NULL DEFAULT 0,
    revoked INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX identities_by_affiliation ON identities (affiliation);
CREATE TABLE certificates (
    serial TEXT NOT NULL,
    aki TEXT NOT NULL,
    id TEXT NOT NULL,
    affiliation TEXT NOT NULL,
    pem TEXT NOT NULL,
    issued_at INTEGER NOT NULL,
    not_after INTEGER NOT NULL,
    revoked_at INTEGER,
    reason INTEGER,
    PRIMARY KEY (serial, aki)
) STRICT, WITHOUT ROWID;
CREATE INDEX certificates_by_id ON certificates (id);
CREATE INDEX certificates_revoked ON certificates (revoked_at) WHERE revoked_at IS NOT NULL;
";

/// What the second layout adds. The triggers keep the log append-only, also for a mistake in this program.
const AUDIT_TABLES: &str = "
CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    caller TEXT NOT NULL,
    action TEXT NOT NULL,
    id TEXT NOT NULL,
    serial TEXT NOT NULL,
    aki TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END;
CREATE TRIGGER audit_is_not_cut BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END;
";

/// Opens or creates the file and makes sure that it belongs to this certificate authority.
pub(super) fn open(path: &Path, fingerprint: &str) -> Result<Connection, RegistryError> {
    let mut connection = Connection::open(path).map_err(|source| opening_failed(path, source))?;
    prepare(&mut connection, path, fingerprint)?;
    Ok(connection)
}

fn prepare(connection: &mut Connection, path: &Path, fingerprint: &str) -> Result<(), RegistryError> {
    let failed = |source| opening_failed(path, source);
    connection.busy_timeout(LOCK_WAIT).map_err(failed)?;
    // Exclusive: the lock is taken by the first statement and kept until the process ends.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(failed)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(64);
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(failed)?;
    let application: i64 =
        transaction.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(failed)?;
    let layout: i64 =
        transaction.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    let tables: i64 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    if tables == 0 && application == 0 {
        transaction.execute_batch(TABLES).map_err(failed)?;
        transaction.execute_batch(AUDIT_TABLES).map_err(failed)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
        transaction.pragma_update(None, "user_version", LAYOUT).map_err(failed)?;
        transaction
            .execute("INSERT INTO meta (name, value) VALUES ('certificate', ?1)", [fingerprint])
            .map_err(failed)?;
    } else if application != APPLICATION_ID {
        return Err(RegistryError::NotARegistry { path: path.to_owned() });
    } else if layout == 1 {
        transaction.execute_batch(AUDIT_TABLES).map_err(failed)?;
        transaction.pragma_update(None, "user_version", LAYOUT).map_err(failed)?;
    } else if layout != LAYOUT {
        return Err(RegistryError::Newer { path: path.to_owned(), found: layout, known: LAYOUT });
    }
    let found: Option<String> = transaction
        .query_row("SELECT value FROM meta WHERE name = 'certificate'", [], |row| row.get(0))
        .optional()
        .map_err(failed)?;
    let found = found.unwrap_or_default();
    if found != fingerprint {
        let expected = fingerprint.to_owned();
        return Err(RegistryError::Foreign { path: path.to_owned(), found, expected });
    }
    transaction.commit().map_err(failed)?;
    Ok(())
}

fn opening_failed(path: &Path, source: rusqlite::Error) -> RegistryError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => RegistryError::InUse { path },
        Some(ErrorCode::NotADatabase) => RegistryError::NotARegistry { path },
        _ => RegistryError::Open { path, source: source.into() },
    }
}

#[cfg(test)]
mod tests {
    use crate::registry::{Registry, RegistryError};

    #[test]
    fn a_registry_of_another_authority_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("registry.db");
        drop(Registry::open(&path, "aa").expect("first start"));

        let second = Registry::open(&path, "bb");

        assert!(matches!(second, Err(RegistryError::Foreign { .. })));
        assert!(Registry::open(&path, "aa").is_ok());
    }

    #[test]
    fn a_registry_of_the_first_layout_gets_an_audit_log() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("registry.db");
        let old = rusqlite::Connection::open(&path).expect("file");
        old.execute_batch(super::TABLES).expect("tables");
        old.pragma_update(None, "application_id", super::APPLICATION_ID).expect("application");
        old.pragma_update(None, "user_version", 1).expect("layout");
        old.execute("INSERT INTO meta (name, value) VALUES ('certificate', 'aa')", []).expect("meta");
        drop(old);

        let registry = Registry::open(&path, "aa").expect("registry");

        assert!(registry.audit(0).expect("audit").is_empty());
    }

    #[test]
    fn a_second_process_on_the_same_file_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("registry.db");
        let _first = Registry::open(&path, "aa").expect("first");

        let second = Registry::open(&path, "aa");

        assert!(matches!(second, Err(RegistryError::InUse { .. })));
    }

    #[test]
    fn a_file_that_is_no_registry_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("registry.db");
        std::fs::write(&path, "certainly no database, but long enough to have a header").expect("write");

        assert!(matches!(Registry::open(&path, "aa"), Err(RegistryError::NotARegistry { .. })));
    }

    #[test]
    fn a_missing_folder_is_named() {
        let folder = tempfile::tempdir().expect("folder");

        let error = Registry::open(&folder.path().join("no/registry.db"), "aa").err().expect("error");

        assert!(error.to_string().contains("no/registry.db"), "{error}");
    }
}
