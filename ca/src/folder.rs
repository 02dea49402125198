//! The data folder: the authority's key and certificate, the TLS certificate of its API, the registry.
//!
//! | File | What | Mode |
//! |---|---|---|
//! | `ca-key.pem`, `ca-cert.pem` | the authority | 0600, 0644 |
//! | `tls-key.pem`, `tls-cert.pem` | the API's TLS certificate, issued by the authority | 0600, 0644 |
//! | `registry.db` (and `-wal`) | identities, affiliations, certificates | 0600 |

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file that only this process's user reads.
const SECRET: u32 = 0o600;

/// A file that everybody may read.
const PUBLIC: u32 = 0o644;

/// The data folder of one authority.
#[derive(Debug, Clone)]
pub struct DataFolder(PathBuf);

/// The data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The folder cannot be created or entered.
    #[error("the data folder {path} cannot be used; check that it is a folder that this user may write")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file in it cannot be read or written.
    #[error("the file {path} cannot be read or written; check owner and permissions")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl DataFolder {
    /// Opens the folder, creating it when there is none.
    ///
    /// # Errors
    /// When it cannot be created, or something else has its name.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let failed = |source| FolderError::Folder { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        Ok(Self(path.to_owned()))
    }

    /// The file of that name.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The file's text; `None` when there is no such file.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read(&self, name: &str) -> Result<Option<String>, FolderError> {
        let path = self.path(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FolderError::File { path, source }),
        }
    }

    /// Writes a key: whole or not at all, readable by this user only.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_secret(&self, name: &str, text: &str) -> Result<(), FolderError> {
        self.write(name, text, SECRET)
    }

    /// Writes a certificate: whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_public(&self, name: &str, text: &str) -> Result<(), FolderError> {
        self.write(name, text, PUBLIC)
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> Result<(), FolderError> {
        let path = self.path(name);
        let written = || {
            let temporary = self.path(&format!("{name}.new"));
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)?;
            File::open(&self.0)?.sync_all()
        };
        written().map_err(|source| FolderError::File { path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_readable_by_their_owner_only() {
        let root = tempfile::tempdir().expect("folder");
        let folder = DataFolder::open(&root.path().join("a/b")).expect("open");

        folder.write_secret("key.pem", "secret").expect("write");

        let mode = std::fs::metadata(folder.path("key.pem")).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(folder.read("key.pem").expect("read").as_deref(), Some("secret"));
        assert_eq!(folder.read("other.pem").expect("read"), None);
    }

    #[test]
    fn a_file_in_place_of_the_folder_is_named() {
        let root = tempfile::tempdir().expect("folder");
        let path = root.path().join("data");
        std::fs::write(&path, "").expect("write");

        let error = DataFolder::open(&path).expect_err("no folder");

        assert!(error.to_string().contains("data"), "{error}");
    }
}
