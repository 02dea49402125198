//! The encryption keys of a proxy, one per suite: what owners seal shares to.
//!
//! They are drawn at the first start with the role, and stay: shares that lie on the disk cannot be opened without them. Each is a
//! file that only the peer's user may read. They are keys of their own, not the peer's signing key.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use consort_crypto::pre;
use consort_protos::consort::sealed::{EncryptionKey, Suite};
use zeroize::Zeroizing;

/// Nobody but the owner reads the folder.
pub(super) const FOLDER_MODE: u32 = 0o700;
/// Nobody but the owner reads a file.
pub(super) const FILE_MODE: u32 = 0o600;
/// What others may do with a file, as bits of its mode.
const OTHERS: u32 = 0o077;
/// Bytes of a secret key.
const SECRET_BYTES: usize = 32;

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file cannot be read or written.
    #[error("the key file {path} cannot be read or written; the folder must belong to the peer's user")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Others than the peer's user may read the file.
    #[error("the key file {path} can be read by others (mode {mode:o}): run `chmod 600` on it")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file holds no key.
    #[error(
        "the key file {path} is damaged: restore it from a backup; without it the shares of sealed data that this peer holds are lost"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: pre::Error,
    },
    /// The system gave no random numbers.
    #[error("a key cannot be drawn")]
    Draw(#[source] pre::Error),
}

/// The keys of a proxy.
#[derive(Debug)]
pub struct Keys {
    p256: pre::SecretKey,
    sm2: pre::SecretKey,
}

impl Keys {
    /// Reads the keys in a folder; draws those that are not there.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn open(folder: &Path) -> Result<Self, KeysError> {
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| KeysError::File { path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder).map_err(file(folder))?;
        let key = |suite: pre::Suite| {
            let path = folder.join(format!("{}.key", suite.name()));
            if path.exists() { read(suite, &path) } else { draw(suite, folder, &path) }
        };
        Ok(Self { p256: key(pre::Suite::P256)?, sm2: key(pre::Suite::Sm2)? })
    }

    /// The secret key of a suite.
    #[must_use]
    pub fn secret(&self, suite: pre::Suite) -> &pre::SecretKey {
        match suite {
            pre::Suite::P256 => &self.p256,
            pre::Suite::Sm2 => &self.sm2,
        }
    }

    /// The public keys, as a proxy describes itself.
    #[must_use]
    pub fn public(&self) -> Vec<EncryptionKey> {
        let key = |suite: Suite, secret: &pre::SecretKey| EncryptionKey {
            suite: suite.into(),
            public_key: secret.public_key().to_bytes().to_vec().into(),
        };
        vec![key(Suite::P256, &self.p256), key(Suite::Sm2, &self.sm2)]
    }
}

fn read(suite: pre::Suite, path: &Path) -> Result<pre::SecretKey, KeysError> {
    let failed = |source| KeysError::File { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & OTHERS != 0 {
        return Err(KeysError::Exposed { path: path.to_owned(), mode });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES + 1));
    let limit = u64::try_from(SECRET_BYTES + 1).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    pre::SecretKey::from_bytes(suite, &bytes)
        .map_err(|source| KeysError::Damaged { path: path.to_owned(), source })
}

fn draw(suite: pre::Suite, folder: &Path, path: &Path) -> Result<pre::SecretKey, KeysError> {
    let key = pre::SecretKey::generate(suite).map_err(KeysError::Draw)?;
    write_durably(folder, path, &key.to_bytes()[..])
        .map_err(|source| KeysError::File { path: path.to_owned(), source })?;
    Ok(key)
}

/// Writes a file that is there as a whole or not at all, also after a crash.
pub(super) fn write_durably(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_drawn_once_and_only_their_owner_can_read_them() {
        let folder = tempfile::tempdir().unwrap();
        let first = Keys::open(&folder.path().join("keys")).unwrap();
        let second = Keys::open(&folder.path().join("keys")).unwrap();
        assert_eq!(first.public(), second.public());
        for name in ["p256.key", "sm2.key"] {
            let mode = fs::metadata(folder.path().join("keys").join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        Keys::open(folder.path()).unwrap();
        let path = folder.path().join("p256.key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Keys::open(folder.path()).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_damaged_key_is_not_replaced_by_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        Keys::open(folder.path()).unwrap();
        fs::write(folder.path().join("sm2.key"), b"short").unwrap();
        assert!(matches!(Keys::open(folder.path()).unwrap_err(), KeysError::Damaged { .. }));
        assert_eq!(fs::read(folder.path().join("sm2.key")).unwrap(), b"short");
    }
}
