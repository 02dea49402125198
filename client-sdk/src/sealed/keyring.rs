//! The keys of an owner or reader: all derived from one secret in one file.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use consort_crypto::pre::{self, SecretKey, Suite};
use zeroize::Zeroizing;

/// Bytes of the secret.
const SECRET_BYTES: usize = 32;

/// Keys for domains and for reading, derived from a secret (HKDF). The secret is no identity's key; whoever loses the file loses every
/// key, and whoever reads it reads every record.
pub struct Keyring {
    secret: Zeroizing<[u8; SECRET_BYTES]>,
}

/// Why the secret's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The file cannot be read or written.
    #[error("the secret's file {path} cannot be read or written")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Others may read the file.
    #[error("the secret's file {path} can be read by others (mode {mode:o}): run `chmod 600` on it")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file holds something else.
    #[error("the secret's file {path} does not hold 64 hexadecimal digits: restore it from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A key cannot be drawn or derived.
    #[error("a key cannot be made")]
    Key(#[from] pre::Error),
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Keyring").finish_non_exhaustive()
    }
}

impl Keyring {
    /// Keys from a secret that is kept by other means.
    #[must_use]
    pub fn from_secret(secret: Zeroizing<[u8; SECRET_BYTES]>) -> Self {
        Self { secret }
    }

    /// Reads the secret in a file (64 hexadecimal digits) that nobody else may read.
    ///
    /// # Errors
    /// There is no such file; others may read it; it holds something else.
    pub fn open(path: &Path) -> Result<Self, KeyringError> {
        let failed = |source| KeyringError::File { path: path.to_owned(), source };
        refuse_exposed(path, &fs::metadata(path).map_err(failed)?)?;
        let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        hex::decode_to_slice(text.trim_end(), secret.as_mut())
            .map_err(|_| KeyringError::Damaged { path: path.to_owned() })?;
        Ok(Self { secret })
    }

    /// Draws a secret and writes it to a new file that nobody else may read (mode 0600).
    ///
    /// # Errors
    /// The file exists, or cannot be written; the system gives no random numbers.
    pub fn create(path: &Path) -> Result<Self, KeyringError> {
        let failed = |source| KeyringError::File { path: path.to_owned(), source };
        // A scalar below the order of P-256 has 256 bits of which none is predictable.
        let secret = SecretKey::generate(Suite::P256)?.to_bytes();
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path).map_err(failed)?;
        let text = Zeroizing::new(format!("{}\n", *Zeroizing::new(hex::encode(secret.as_ref()))));
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        Ok(Self { secret })
    }

    /// Reads the secret, or draws one when there is no such file.
    ///
    /// # Errors
    /// As [`open`](Self::open) and [`create`](Self::create).
    pub fn open_or_create(path: &Path) -> Result<Self, KeyringError> {
        if path.exists() { Self::open(path) } else { Self::create(path) }
    }

    /// The key of a domain of the owner's. A domain's key never serves another one: whoever learns it reads that domain only.
    ///
    /// # Errors
    /// With a probability of 2^-256.
    pub fn domain_key(&self, suite: Suite, channel: &str, domain: &str) -> Result<SecretKey, KeyringError> {
        self.key(suite, &["domain", channel, domain])
    }

    /// The key under which the reader is granted records of a channel.
    ///
    /// # Errors
    /// With a probability of 2^-256.
    pub fn reader_key(&self, suite: Suite, channel: &str) -> Result<SecretKey, KeyringError> {
        self.key(suite, &["reader", channel])
    }

    fn key(&self, suite: Suite, names: &[&str]) -> Result<SecretKey, KeyringError> {
        // Neither channels nor domains contain a line break.
        Ok(SecretKey::derive(suite, &self.secret, names.join("\n").as_bytes())?)
    }
}

#[cfg(unix)]
fn refuse_exposed(path: &Path, metadata: &fs::Metadata) -> Result<(), KeyringError> {
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(KeyringError::Exposed { path: path.to_owned(), mode }) }
}

#[cfg(not(unix))]
fn refuse_exposed(_: &Path, _: &fs::Metadata) -> Result<(), KeyringError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyring_reads_what_it_wrote_and_derives_the_same_keys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let made = Keyring::open_or_create(&path).unwrap();
        let read = Keyring::open_or_create(&path).unwrap();
        let key = |keyring: &Keyring, domain| {
            keyring.domain_key(Suite::P256, "mychannel", domain).unwrap().public_key()
        };
        assert_eq!(key(&made, "wards"), key(&read, "wards"));
        assert_ne!(key(&made, "wards"), key(&made, "labs"));
        assert_ne!(key(&made, "wards"), made.reader_key(Suite::P256, "mychannel").unwrap().public_key());
        assert!(matches!(Keyring::create(&path), Err(KeyringError::File { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        Keyring::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Keyring::open(&path).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_damaged_secret_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        Keyring::create(&path).unwrap();
        for damaged in ["", "abcd", &"0".repeat(63), &"g".repeat(64)] {
            fs::write(&path, damaged).unwrap();
            assert!(matches!(Keyring::open(&path), Err(KeyringError::Damaged { .. })), "{damaged}");
        }
    }
}
