//! The packages that were installed on this peer, one file each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;

use super::package::{Package, PackageError, PackageId};

/// Ending of the files; the name before it is `<label>.<hash>`.
const SUFFIX: &str = ".tar.gz";
/// A package that is being written; what a crash leaves is overwritten by the next installation.
const UNFINISHED: &str = ".installing";

/// Why the folder of packages cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk refuses.
    #[error("{path} cannot be {action}", path = path.display())]
    File {
        /// What.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The package is not there.
    #[error("package {0} is not installed")]
    NotInstalled(PackageId),
    /// The package was there before.
    #[error("chaincode already successfully installed (package ID '{0}')")]
    AlreadyInstalled(PackageId),
    /// The file is not what was installed.
    #[error("the installed package {id} is damaged")]
    Damaged {
        /// The package.
        id: PackageId,
        /// What is wrong with it.
        #[source]
        source: Option<PackageError>,
    },
}

/// Installed packages. Shared as `Arc`; a package is never changed once it is there.
#[derive(Debug)]
pub struct PackageStore {
    folder: PathBuf,
    package_bytes_max: u64,
    installed: RwLock<BTreeSet<PackageId>>,
    /// By the name of a digest, packages by that digest of their id, as far as it was asked for.
    digests: RwLock<BTreeMap<&'static str, BTreeMap<[u8; 32], PackageId>>>,
}

impl PackageStore {
    /// Opens the folder and lists what is in it. Packages have at most `package_bytes_max` bytes, packed and unpacked.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn open(folder: &Path, package_bytes_max: u64) -> Result<Self, StoreError> {
        let failed = |source| StoreError::File { path: folder.to_path_buf(), action: "opened", source };
        fs::create_dir_all(folder).map_err(failed)?;
        let mut installed = BTreeSet::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            let id = name.strip_suffix(SUFFIX).and_then(|stem| {
                let (label, hash) = stem.rsplit_once('.')?;
                PackageId::parse(&format!("{label}:{hash}")).ok()
            });
            match id {
                Some(id) => {
                    installed.insert(id);
                }
                None if name == UNFINISHED => {}
                None => tracing::warn!(file = %name, "a file in the folder of packages is not a package"),
            }
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            package_bytes_max,
            installed: RwLock::new(installed),
            digests: RwLock::default(),
        })
    }

    /// The largest package, packed and unpacked, in bytes.
    #[must_use]
    pub fn package_bytes_max(&self) -> u64 {
        self.package_bytes_max
    }

    /// The ids of all installed packages, sorted.
    #[must_use]
    pub fn list(&self) -> Vec<PackageId> {
        self.installed.read().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Number of installed packages; it grows with each installation.
    #[must_use]
    pub fn count(&self) -> usize {
        self.installed.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether a package is installed.
    #[must_use]
    pub fn contains(&self, id: &PackageId) -> bool {
        self.installed.read().unwrap_or_else(PoisonError::into_inner).contains(id)
    }

    /// The installed package whose id has a digest. All callers must use one function for one `name`: its results are kept, so that the
    /// search does not grow with the number of packages.
    #[must_use]
    pub fn by_digest(
        &self,
        sought: &[u8],
        name: &'static str,
        digest: impl Fn(&PackageId) -> [u8; 32],
    ) -> Option<PackageId> {
        let sought: &[u8; 32] = sought.try_into().ok()?;
        {
            let digests = self.digests.read().unwrap_or_else(PoisonError::into_inner);
            let known = digests.get(name);
            if let Some(found) = known.and_then(|known| known.get(sought)) {
                return Some(found.clone());
            }
            // Packages are never taken away, so an equal number means that all are known.
            let installed = self.installed.read().unwrap_or_else(PoisonError::into_inner).len();
            if known.map_or(0, BTreeMap::len) == installed {
                return None;
            }
        }
        let all = self.list();
        let mut digests = self.digests.write().unwrap_or_else(PoisonError::into_inner);
        let known = digests.entry(name).or_default();
        known.extend(all.into_iter().map(|id| (digest(&id), id)));
        known.get(sought).cloned()
    }

    /// The bytes of an installed package.
    ///
    /// # Errors
    /// It is not installed, cannot be read, or is damaged.
    pub fn load(&self, id: &PackageId) -> Result<Bytes, StoreError> {
        if !self.contains(id) {
            return Err(StoreError::NotInstalled(id.clone()));
        }
        let path = self.path(id);
        let bytes: Bytes =
            fs::read(&path).map_err(|source| StoreError::File { path, action: "read", source })?.into();
        if PackageId::of(id.label(), &bytes) != *id {
            return Err(StoreError::Damaged { id: id.clone(), source: None });
        }
        Ok(bytes)
    }

    /// The component in an installed package.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn component(&self, id: &PackageId) -> Result<Vec<u8>, StoreError> {
        let bytes = self.load(id)?;
        Package::open(bytes, self.package_bytes_max)
            .map(|package| package.component)
            .map_err(|source| StoreError::Damaged { id: id.clone(), source: Some(source) })
    }

    /// Keeps a package; after the return it is on the disk.
    ///
    /// # Errors
    /// It is installed already, or cannot be written.
    pub fn save(&self, package: &Package) -> Result<(), StoreError> {
        // The lock is held over the write, so that two installations of one package do not meet.
        let mut installed = self.installed.write().unwrap_or_else(PoisonError::into_inner);
        if installed.contains(&package.id) {
            return Err(StoreError::AlreadyInstalled(package.id.clone()));
        }
        let path = self.path(&package.id);
        let failed = |source| StoreError::File { path: path.clone(), action: "written", source };
        let unfinished = self.folder.join(UNFINISHED);
        let mut file = fs::File::create(&unfinished).map_err(failed)?;
        file.write_all(&package.bytes).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        fs::rename(&unfinished, &path).map_err(failed)?;
        fs::File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        installed.insert(package.id.clone());
        Ok(())
    }

    fn path(&self, id: &PackageId) -> PathBuf {
        self.folder.join(format!("{}.{}{SUFFIX}", id.label(), id.hash()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::package::pack;
    use super::*;

    fn opened() -> Package {
        Package::open(pack("basic_1.0", b"component").unwrap().into(), 1 << 20).unwrap()
    }

    #[test]
    fn a_package_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let package = opened();
        PackageStore::open(folder.path(), 1 << 20).unwrap().save(&package).unwrap();
        let store = PackageStore::open(folder.path(), 1 << 20).unwrap();
        assert_eq!(store.list(), std::slice::from_ref(&package.id));
        assert_eq!(store.load(&package.id).unwrap(), package.bytes);
        assert_eq!(store.component(&package.id).unwrap(), b"component");
    }

    #[test]
    fn a_second_installation_names_the_package() {
        let folder = tempfile::tempdir().unwrap();
        let store = PackageStore::open(folder.path(), 1 << 20).unwrap();
        let package = opened();
        store.save(&package).unwrap();
        assert_eq!(
            store.save(&package).unwrap_err().to_string(),
            format!("chaincode already successfully installed (package ID '{}')", package.id)
        );
    }

    #[test]
    fn a_package_is_found_by_each_digest_of_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let store = PackageStore::open(folder.path(), 1 << 20).unwrap();
        let package = opened();
        assert_eq!(store.by_digest(&[7; 32], "seven", |_| [7; 32]), None);
        store.save(&package).unwrap();
        assert_eq!(store.by_digest(&[7; 32], "seven", |_| [7; 32]), Some(package.id.clone()));
        assert_eq!(store.by_digest(&[7; 32], "eight", |_| [8; 32]), None);
        assert_eq!(store.by_digest(&[8; 32], "eight", |_| [8; 32]), Some(package.id));
        assert_eq!(store.by_digest(b"short", "eight", |_| [8; 32]), None);
    }

    #[test]
    fn a_changed_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let store = PackageStore::open(folder.path(), 1 << 20).unwrap();
        let package = opened();
        store.save(&package).unwrap();
        fs::write(store.path(&package.id), b"other").unwrap();
        assert!(matches!(store.load(&package.id), Err(StoreError::Damaged { .. })));
    }
}
