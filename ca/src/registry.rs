//! The registry: identities, affiliations and issued certificates in one SQLite file.
//!
//! One process owns the file (exclusive lock, so a second certificate authority on the same folder is refused) and
//! one connection does everything, so that what is decided and what is written cannot drift apart. Every change is
//! one transaction, synced to disk before it is answered (write-ahead log, `synchronous = FULL`).
//!
//! This type is the seam: it takes and gives plain values, and nothing outside these files knows SQL.

mod affiliations;
mod certificates;
mod identities;
mod schema;

pub use affiliations::{AffiliationChange, AffiliationError, AffiliationTree};
pub use certificates::{
    CertificateFilter, CertificateId, CertificateRecord, EnrollmentRefused, Revoked, TimeWindow,
};
pub use identities::{Identity, IdentityChange, NewIdentity};

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, Transaction, TransactionBehavior};

/// Rows that one page of a listing holds; a listing is streamed page by page.
pub const PAGE_ROWS: usize = 100;

/// The books of one certificate authority.
pub struct Registry {
    connection: Mutex<Connection>,
}

/// Why the registry cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The file cannot be opened or created.
    #[error("the registry {path} cannot be opened; check that the folder exists and may be written")]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// Another process holds the file.
    #[error("the registry {path} is in use; stop the other consort-ca that runs on this data folder")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a registry of this program.
    #[error("{path} is not a registry of consort-ca; move it away or choose another data folder")]
    NotARegistry {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer program.
    #[error("the registry {path} has layout {found}, this program knows {known}; use the newer consort-ca")]
    Newer {
        /// The file.
        path: PathBuf,
        /// The layout in the file.
        found: i64,
        /// The newest layout that this program knows.
        known: i64,
    },
    /// The registry belongs to another certificate authority.
    #[error(
        "the registry {path} belongs to another certificate authority (certificate {found}, this one is {expected}); \
         put back the matching ca-cert.pem and ca-key.pem, or choose another data folder"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Fingerprint of the certificate that the registry was made for.
        found: String,
        /// Fingerprint of the certificate in the data folder.
        expected: String,
    },
    /// A statement failed.
    #[error("the registry could not be read or written")]
    Sql(#[from] rusqlite::Error),
    /// A row holds something that this program never wrote.
    #[error("the registry holds a damaged entry: {what}")]
    Damaged {
        /// Which entry and what is wrong.
        what: String,
    },
}

impl Registry {
    /// Opens the registry of the certificate authority with this fingerprint, creating it when there is none.
    ///
    /// # Errors
    /// See [`RegistryError`]; each says its remedy.
    pub fn open(path: &Path, fingerprint: &str) -> Result<Self, RegistryError> {
        let connection = schema::open(path, fingerprint)?;
        Ok(Self { connection: Mutex::new(connection) })
    }

    /// Whether the registry answers; for the health check.
    ///
    /// # Errors
    /// When SQLite does not answer.
    pub fn check(&self) -> Result<(), RegistryError> {
        self.read(|connection| Ok(connection.query_row("SELECT 1", [], |_| Ok(()))?))
    }

    fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        // A panic while the lock was held has rolled its transaction back: the connection is still good.
        query(&self.connection.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs `change` in one transaction, which is undone when it fails.
    fn write<T, E: From<RegistryError>>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(RegistryError::from)?;
        let result = change(&transaction)?;
        transaction.commit().map_err(RegistryError::from)?;
        Ok(result)
    }
}
