//! Compiled chaincode on the disk, so that a restart does not compile again.
//!
//! An entry is native code that will be executed. It is trusted because of where it lies: in the peer's data folder,
//! readable and writable by the peer's user alone, under a name made of the hash of the component and of the engine's settings,
//! and with a checksum against half-written files. An entry that misses any of it is ignored and made anew.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use consort_crypto::hash::sha256;
use wasmtime::Engine;
use wasmtime::component::Component;

/// Length of the checksum in front of an entry.
const CHECKSUM_BYTES: usize = 32;
/// Rights that nobody but the owner may have.
const FOREIGN_RIGHTS: u32 = 0o077;

/// A folder of compiled components.
#[derive(Debug)]
pub struct CompiledCache {
    folder: PathBuf,
    /// Changes with the engine's version and settings.
    engine: u64,
}

impl CompiledCache {
    /// Opens the folder, or makes it for this user alone.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(folder: &Path, engine: &Engine) -> std::io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self { folder: folder.to_path_buf(), engine: hasher.finish() })
    }

    /// The compiled form of a component: from the disk if it is there, otherwise compiled and kept.
    ///
    /// # Errors
    /// The component is invalid; the text says where.
    pub fn component(&self, engine: &Engine, component: &[u8]) -> wasmtime::Result<Component> {
        let path = self.folder.join(format!("{}-{:016x}.cwasm", hex::encode(sha256(component)), self.engine));
        if let Some(found) = load(engine, &path) {
            return Ok(found);
        }
        let compiled = Component::new(engine, component)?;
        let code = compiled.serialize()?;
        if let Err(error) = self.keep(&path, &code) {
            // The next start compiles again; that is slower and not wrong.
            tracing::warn!(path = %path.display(), %error, "compiled chaincode could not be kept");
        }
        Ok(compiled)
    }

    fn keep(&self, path: &Path, code: &[u8]) -> std::io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let unfinished = self.folder.join(format!(".{name}.{}", std::process::id()));
        let _left_by_a_crash = fs::remove_file(&unfinished);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(&sha256(code))?;
        file.write_all(code)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    }
}

/// Reads an entry; `None` when there is none that can be trusted.
fn load(engine: &Engine, path: &Path) -> Option<Component> {
    let metadata = fs::symlink_metadata(path).ok()?;
    let own = fs::metadata(path.parent()?).ok()?.uid();
    if !metadata.is_file() || metadata.mode() & FOREIGN_RIGHTS != 0 || metadata.uid() != own {
        tracing::warn!(path = %path.display(), "compiled chaincode with foreign rights or owner is ignored");
        return None;
    }
    let entry = fs::read(path).ok()?;
    let (checksum, code) = entry.split_at_checked(CHECKSUM_BYTES)?;
    if checksum != sha256(code) {
        tracing::warn!(path = %path.display(), "damaged compiled chaincode is ignored");
        return None;
    }
    #[expect(
        unsafe_code,
        reason = "the bytes were written by `keep` from `Component::serialize`: the file belongs to the owner of the \
                  folder, nobody else may read or write it, and the checksum shows that it is whole; the engine \
                  itself refuses code of another version or other settings"
    )]
    let component = unsafe { Component::deserialize(engine, code) };
    component
        .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "compiled chaincode is ignored"))
        .ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const COMPONENT: &str = "(component)";

    fn entry(folder: &Path) -> PathBuf {
        fs::read_dir(folder).unwrap().next().unwrap().unwrap().path()
    }

    #[test]
    fn an_entry_is_for_its_owner_alone_and_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = CompiledCache::open(folder.path(), &engine).unwrap();
        cache.component(&engine, &wat::parse_str(COMPONENT).unwrap()).unwrap();
        let path = entry(folder.path());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(load(&engine, &path).is_some());
    }

    #[test]
    fn an_entry_that_others_may_write_or_that_is_damaged_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = CompiledCache::open(folder.path(), &engine).unwrap();
        let component = wat::parse_str(COMPONENT).unwrap();
        cache.component(&engine, &component).unwrap();
        let path = entry(folder.path());

        fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
        assert!(load(&engine, &path).is_none());
        cache.component(&engine, &component).unwrap();
        assert!(load(&engine, &path).is_some());

        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(load(&engine, &path).is_none());
        cache.component(&engine, &component).unwrap();
        assert!(load(&engine, &path).is_some());
    }

    #[test]
    fn garbage_is_no_component() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = CompiledCache::open(folder.path(), &engine).unwrap();
        assert!(cache.component(&engine, b"garbage").is_err());
    }
}
