//! The registry: identities, affiliations, issued certificates and the audit log in one SQLite file.
//!
//! One process owns the file (exclusive lock, so a second certificate authority on the same folder is refused) and
//! one connection does everything, so that what is decided and what is written cannot drift apart. Every change is
//! atomic and synced to disk before it is answered (write-ahead log, `synchronous = FULL`); changes that wait for the
//! connection at the same time share one sync.
//!
//! This type is the seam: it takes and gives plain values of this crate, its methods are whole decisions ("record this
//! certificate unless the identity is revoked or has no enrolments left"), and nothing outside these files knows SQL or
//! SQLite. Another store fills it by doing the same decisions atomically: every method is one serialisable transaction,
//! durable when it returns, with its rows of the audit log in the same transaction.

mod affiliations;
mod audit;
mod certificates;
mod commit;
mod identities;
mod schema;

pub use affiliations::{AffiliationChange, AffiliationError, AffiliationTree};
pub use audit::{AuditAction, AuditEntry, Deed};
pub use certificates::{
    CertificateFilter, CertificateId, CertificateRecord, EnrollmentRefused, Revoked, TimeWindow,
};
pub use identities::{Identity, IdentityChange, NewIdentity};

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use commit::Books;

/// Rows that one page of a listing holds; a listing is streamed page by page.
pub const PAGE_ROWS: usize = 100;

/// The books of one certificate authority.
pub struct Registry {
    books: Books,
}

/// What the store below said.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why the registry cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The file cannot be opened or created.
    #[error("the registry {path} cannot be opened; check that the folder exists and may be written")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the store said.
        #[source]
        source: Cause,
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
    Store(#[source] Cause),
    /// A row holds something that this program never wrote.
    #[error("the registry holds a damaged entry: {what}")]
    Damaged {
        /// Which entry and what is wrong.
        what: String,
    },
}

impl From<rusqlite::Error> for RegistryError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Registry {
    /// Opens the registry of the certificate authority with this fingerprint, creating it when there is none.
    ///
    /// # Errors
    /// See [`RegistryError`]; each says its remedy.
    pub fn open(path: &Path, fingerprint: &str) -> Result<Self, RegistryError> {
        Ok(Self { books: Books::new(schema::open(path, fingerprint)?) })
    }

    /// Whether the registry answers; for the health check.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn check(&self) -> Result<(), RegistryError> {
        self.read(|connection| Ok(connection.query_row("SELECT 1", [], |_| Ok(()))?))
    }

    fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        self.books.read(query)
    }

    /// Runs `change` atomically: it is undone when it fails, and on disk when this returns.
    fn write<T, E: From<RegistryError>>(
        &self,
        change: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        self.books.write(change)
    }
}
