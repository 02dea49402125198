//! Compiled chaincode on the disk, so that a restart does not compile again.
//!
//! An entry is native code that will be executed. Only an entry that this peer wrote is trusted: it carries a MAC under a key that this
//! folder alone has, over its name (the hash of the component, that of the engine's version and settings, and the ceiling of the stack) and its code, and it is
//! readable and writable by the peer's user alone. An entry that misses any of it is ignored and made anew.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use consort_crypto::hash::sha256;
use rand::Rng;
use ring::hmac;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::ceiling;
use super::compiler::{CompileError, Compiler};

/// Length of the MAC in front of an entry.
const MAC_BYTES: usize = 32;
/// Name of the file with the key of the MACs.
const KEY_FILE: &str = "key";
/// Length of the key.
const KEY_BYTES: usize = 32;
/// Rights that nobody but the owner may have.
const FOREIGN_RIGHTS: u32 = 0o077;

/// A folder of compiled components.
pub struct CompiledCache {
    folder: PathBuf,
    key: hmac::Key,
    /// Changes with the engine's version and settings.
    engine: String,
}

impl std::fmt::Debug for CompiledCache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CompiledCache").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Takes the bytes that a value hashes, so that a hash with a stable definition can be made of them.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

impl CompiledCache {
    /// Opens the folder, or makes it for this user alone.
    ///
    /// # Errors
    /// The folder or its key cannot be made.
    pub fn open(folder: &Path, engine: &Engine) -> std::io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut settings = Bytes::default();
        engine.precompile_compatibility_hash().hash(&mut settings);
        let engine = hex::encode(&sha256(&settings.0)[..8]);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &folder_key(folder)?);
        Ok(Self { folder: folder.to_path_buf(), key, engine })
    }

    /// The compiled form of a component with a ceiling of the stack: from the disk if it is there, otherwise compiled and kept.
    ///
    /// # Errors
    /// The component is invalid; the text says where. Or it takes too long.
    pub fn component(
        &self,
        engine: &Engine,
        component: &[u8],
        stack_bytes: u32,
        compiler: &Compiler,
    ) -> Result<Component, CompileError> {
        let path = self.path(component, stack_bytes);
        if let Some(found) = self.load(engine, &path) {
            return Ok(found);
        }
        let code = compiler.compile(engine, component, stack_bytes)?;
        if let Err(error) = self.keep(&path, &code) {
            // The next start compiles again; that is slower and not wrong.
            tracing::warn!(path = %path.display(), %error, "compiled chaincode could not be kept");
        }
        #[expect(
            unsafe_code,
            reason = "the bytes come from the compiler, in this process or in one of this very program that nobody else could write to; \
                      the engine itself refuses code of another version or other settings"
        )]
        let component = unsafe { Component::deserialize(engine, &code) };
        component.map_err(|error| CompileError::Invalid(format!("{error:#}")))
    }

    fn path(&self, component: &[u8], stack_bytes: u32) -> PathBuf {
        let (hash, engine) = (hex::encode(sha256(component)), &self.engine);
        self.folder.join(format!("{hash}-{engine}-{}-{stack_bytes}.cwasm", ceiling::VERSION))
    }

    /// What an entry's MAC covers.
    fn signed(path: &Path, code: &[u8]) -> Vec<u8> {
        let mut signed = path.file_name().unwrap_or_default().as_encoded_bytes().to_vec();
        signed.extend_from_slice(&sha256(code));
        signed
    }

    fn keep(&self, path: &Path, code: &[u8]) -> std::io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let unfinished = self.folder.join(format!(".{name}.{}", std::process::id()));
        let _left_by_a_crash = fs::remove_file(&unfinished);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(hmac::sign(&self.key, &Self::signed(path, code)).as_ref())?;
        file.write_all(code)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    }

    /// Reads an entry; `None` when there is none that can be trusted.
    fn load(&self, engine: &Engine, path: &Path) -> Option<Component> {
        let entry = read_own(path)?;
        let (mac, code) = entry.split_at_checked(MAC_BYTES)?;
        if hmac::verify(&self.key, &Self::signed(path, code), mac).is_err() {
            tracing::warn!(path = %path.display(), "compiled chaincode that this peer did not write, or that is damaged, is ignored");
            return None;
        }
        #[expect(
            unsafe_code,
            reason = "the bytes were written by `keep` from `Component::serialize`: their MAC is under this folder's own key, \
                      nobody but this user may read or write file and key, and the engine itself refuses code of another \
                      version or other settings"
        )]
        let component = unsafe { Component::deserialize(engine, code) };
        component
            .inspect_err(
                |error| tracing::warn!(path = %path.display(), %error, "compiled chaincode is ignored"),
            )
            .ok()
    }
}

/// Reads a file that belongs to this process's user and that nobody else may read or write.
fn read_own(path: &Path) -> Option<Vec<u8>> {
    let metadata = fs::symlink_metadata(path).ok()?;
    let own = rustix::process::geteuid().as_raw();
    if !metadata.is_file() || metadata.mode() & FOREIGN_RIGHTS != 0 || metadata.uid() != own {
        tracing::warn!(path = %path.display(), "a file of the compile cache with foreign rights or owner is ignored");
        return None;
    }
    fs::read(path).ok()
}

/// The key of a folder; made anew when there is none that can be trusted, which makes all entries unreadable.
fn folder_key(folder: &Path) -> std::io::Result<Vec<u8>> {
    let path = folder.join(KEY_FILE);
    if let Some(key) = read_own(&path).filter(|key| key.len() == KEY_BYTES) {
        return Ok(key);
    }
    let mut key = vec![0; KEY_BYTES];
    rand::rng().fill_bytes(&mut key);
    let _untrusted = fs::remove_file(&path);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(&key)?;
    file.sync_all()?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const COMPONENT: &str = "(component)";
    const STACK: u32 = 1 << 20;

    fn entry(folder: &Path) -> PathBuf {
        let mut entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.find(|path| path.extension().is_some()).unwrap()
    }

    #[test]
    fn an_entry_is_for_its_owner_alone_and_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = CompiledCache::open(folder.path(), &engine).unwrap();
        cache.component(&engine, &wat::parse_str(COMPONENT).unwrap(), STACK, &Compiler::InPlace).unwrap();
        let path = entry(folder.path());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(cache.load(&engine, &path).is_some());
    }

    #[test]
    fn an_entry_that_others_may_write_or_that_is_damaged_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = CompiledCache::open(folder.path(), &engine).unwrap();
        let component = wat::parse_str(COMPONENT).unwrap();
        cache.component(&engine, &component, STACK, &Compiler::InPlace).unwrap();
        let path = entry(folder.path());

        fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
        assert!(cache.load(&engine, &path).is_none());
        cache.component(&engine, &component, STACK, &Compiler::InPlace).unwrap();
        assert!(cache.load(&engine, &path).is_some());

        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(cache.load(&engine, &path).is_none());
        cache.component(&engine, &component, STACK, &Compiler::InPlace).unwrap();
        assert!(cache.load(&engine, &path).is_some());
    }

    #[test]
    fn an_entry_of_another_folder_or_under_another_name_is_not_trusted() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let engine = Engine::default();
        let cache = CompiledCache::open(folder.path(), &engine).unwrap();
        let foreign = CompiledCache::open(elsewhere.path(), &engine).unwrap();
        let component = wat::parse_str(COMPONENT).unwrap();
        foreign.component(&engine, &component, STACK, &Compiler::InPlace).unwrap();
        let path = cache.path(&component, STACK);
        fs::copy(entry(elsewhere.path()), &path).unwrap();
        assert!(cache.load(&engine, &path).is_none());

        cache.component(&engine, &component, STACK, &Compiler::InPlace).unwrap();
        let renamed = cache.path(b"another component", STACK);
        fs::copy(&path, &renamed).unwrap();
        assert!(cache.load(&engine, &renamed).is_none());
        // The folder is opened again with the same key.
        let again = CompiledCache::open(folder.path(), &engine).unwrap();
        assert!(again.load(&engine, &path).is_some());
    }

    #[test]
    fn garbage_is_no_component() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = CompiledCache::open(folder.path(), &engine).unwrap();
        assert!(cache.component(&engine, b"garbage", STACK, &Compiler::InPlace).is_err());
    }
}
