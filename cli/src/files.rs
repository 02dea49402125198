//! Writing files so that a crash leaves the old content or the new one, and secrets readable by their owner only.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::Context;

/// The file in a data folder that a command holds locked while it changes the network.
pub(crate) const LOCK_FILE_NAME: &str = "lock";

/// Creates a folder and its parents.
///
/// # Errors
/// Names the folder and the cause.
pub(crate) fn create_folder(path: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot create folder {}", path.display()))
}

/// Creates a folder for secrets, with access for its owner only.
///
/// # Errors
/// Names the folder and the cause.
pub(crate) fn create_secret_folder(path: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot create folder {}", path.display()))
}

/// Writes a file in one step: a temporary neighbour, synced, then renamed. A secret file gets mode 0600.
///
/// # Errors
/// Names the file and the cause.
pub(crate) fn write_atomically(path: &Path, content: &[u8], secret: bool) -> anyhow::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    create_folder(parent)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = parent.join(format!(".{name}.{}", std::process::id()));
    let written = write_new(&temporary, content, secret).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn write_new(path: &Path, content: &[u8], secret: bool) -> std::io::Result<()> {
    let mode = if secret { 0o600 } else { 0o644 };
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Locks a data folder against a second command that changes the network; the lock ends with the returned file.
///
/// # Errors
/// Another command holds the lock, or the folder cannot be written.
pub(crate) fn lock(data: &Path) -> anyhow::Result<File> {
    create_folder(data)?;
    let path = data.join(LOCK_FILE_NAME);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot write in {}", data.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => anyhow::bail!(
            "another `consort network` command is working on {} at this moment.\nRemedy: wait until it has finished, then try again.",
            data.display()
        ),
        Err(std::fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_readable_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/key.pem");
        write_atomically(&path, b"secret", true).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read(&path).unwrap(), b"secret");
    }

    #[test]
    fn writing_again_replaces_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_atomically(&path, b"long old content", false).unwrap();
        write_atomically(&path, b"new", false).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_second_command_on_the_same_data_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        let refused = lock(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("another `consort network` command"), "{refused}");
        drop(held);
        lock(folder.path()).unwrap();
    }
}
