//! What a proxy keeps of one channel: shares, the fragments that it made with them, and how far it has gone through the blocks.
//!
//! A share is a file with the bytes as its owner sealed them to this peer; it is opened in memory, for a moment, to make a fragment.
//! Erasing overwrites the file before it removes it. Fragments are public (only the reader can use them), but are
//! made once: after its share was erased, a request that was answered can be asked for again.
//!
//! ```text
//!  height                           blocks gone through
//!  shares/<grant>                   index (4 bytes), sealed share
//!  fragments/<request>.<block>      a SignedFragment's answer (AnsweredFragment)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::keys::{FOLDER_MODE, write_durably};

/// Most shares of one channel. Each stands for a grant in force; a proxy of more of them needs another machine.
pub const SHARES_MAX: usize = 100_000;
/// For how many blocks a fragment is kept after its request: a reader that lost its answers can ask again so long.
pub const FRAGMENT_BLOCKS: u64 = 10_000;
/// Longest file that is read; a share or a fragment is far smaller.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// What the name of a share's file begins with until it is complete.
const UNFINISHED_SHARE: &str = "share-";

/// A share as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct KeptShare {
    /// Which proxy of the grant this peer is.
    pub index: u32,
    /// The share, sealed to this peer.
    pub sealed: Bytes,
}

impl std::fmt::Debug for KeptShare {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("KeptShare").field("index", &self.index).finish_non_exhaustive()
    }
}

/// One channel's folder. One owner at a time.
#[derive(Debug)]
pub struct Vault {
    folder: PathBuf,
    height: u64,
    shares: BTreeSet<String>,
    /// By request: its block.
    fragments: BTreeMap<String, u64>,
    by_block: BTreeSet<(u64, String)>,
}

impl Vault {
    /// Opens the folder of a channel. A new one begins at `height`: there is no share that an earlier block could ask for.
    ///
    /// # Errors
    /// The folder cannot be read or written.
    pub fn open(folder: &Path, height: u64) -> io::Result<Self> {
        for name in ["shares", "fragments"] {
            fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder.join(name))?;
        }
        let mut vault = Self {
            folder: folder.to_owned(),
            height,
            shares: BTreeSet::new(),
            fragments: BTreeMap::new(),
            by_block: BTreeSet::new(),
        };
        match fs::read_to_string(vault.folder.join("height")) {
            Ok(text) => {
                vault.height = text.trim().parse().map_err(|_| {
                    io::Error::new(io::ErrorKind::InvalidData, "the file `height` holds no number")
                })?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => vault.note_height()?,
            Err(error) => return Err(error),
        }
        // A share on its way into its folder when the process ended.
        for name in vault.names("")?.iter().filter(|name| name.starts_with(UNFINISHED_SHARE)) {
            fs::remove_file(vault.folder.join(name))?;
        }
        vault.shares = vault.names("shares")?.into_iter().collect();
        for name in vault.names("fragments")? {
            let parts = name.rsplit_once('.').and_then(|(tx_id, block)| Some((tx_id, block.parse().ok()?)));
            match parts {
                Some((tx_id, block)) => vault.index_fragment(tx_id, block),
                None => fs::remove_file(vault.folder.join("fragments").join(&name))?,
            }
        }
        Ok(vault)
    }

    fn names(&self, kind: &str) -> io::Result<Vec<String>> {
        fs::read_dir(self.folder.join(kind))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn index_fragment(&mut self, tx_id: &str, block: u64) {
        self.fragments.insert(tx_id.to_owned(), block);
        self.by_block.insert((block, tx_id.to_owned()));
    }

    /// Number of blocks gone through.
    #[must_use]
    pub fn height(&self) -> u64 {
        self.height
    }

    /// Says how many blocks have been gone through.
    pub fn advance(&mut self, height: u64) {
        self.height = height;
    }

    /// Notes on the disk how many blocks have been gone through. What is noted late is only gone through again.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn note_height(&self) -> io::Result<()> {
        write_durably(&self.folder, &self.folder.join("height"), self.height.to_string().as_bytes())
    }

    /// The grants of which a share is held.
    #[must_use]
    pub fn grants(&self) -> &BTreeSet<String> {
        &self.shares
    }

    fn share_path(&self, grant: &str) -> PathBuf {
        self.folder.join("shares").join(grant)
    }

    /// The share of a grant.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn share(&self, grant: &str) -> io::Result<Option<KeptShare>> {
        if !self.shares.contains(grant) {
            return Ok(None);
        }
        let bytes = Bytes::from(read_file(&self.share_path(grant))?);
        let Some((index, sealed)) = bytes.split_first_chunk() else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file of a share is too short"));
        };
        Ok(Some(KeptShare { index: u32::from_be_bytes(*index), sealed: bytes.slice_ref(sealed) }))
    }

    /// Keeps a share; durable when it returns. `grant` is an id in the form that the ledger's rules demand.
    ///
    /// # Errors
    /// The file cannot be written, or there are [`SHARES_MAX`].
    pub fn put_share(&mut self, grant: &str, share: &KeptShare) -> io::Result<()> {
        if self.shares.len() >= SHARES_MAX && !self.shares.contains(grant) {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                format!("this proxy holds {SHARES_MAX} shares already"),
            ));
        }
        let bytes = [&share.index.to_be_bytes()[..], &share.sealed].concat();
        // Made outside of the folder, where every file name is the id of a grant.
        let path = self.share_path(grant);
        let unfinished = self.folder.join(format!("{UNFINISHED_SHARE}{grant}"));
        write_durably(&self.folder, &unfinished, &bytes)?;
        fs::rename(&unfinished, &path)?;
        fs::File::open(self.folder.join("shares"))?.sync_all()?;
        self.shares.insert(grant.to_owned());
        Ok(())
    }

    /// Erases a share: overwritten, then removed. What a file system or a backup keeps of it is still sealed.
    ///
    /// # Errors
    /// The file cannot be written or removed; it is tried again with the next block.
    pub fn erase_share(&mut self, grant: &str) -> io::Result<()> {
        if !self.shares.contains(grant) {
            return Ok(());
        }
        let path = self.share_path(grant);
        match fs::OpenOptions::new().write(true).open(&path) {
            Ok(mut file) => {
                let length = usize::try_from(file.metadata()?.len().min(FILE_BYTES_MAX)).unwrap_or(0);
                file.seek(io::SeekFrom::Start(0))?;
                file.write_all(&vec![0; length])?;
                file.sync_all()?;
                fs::remove_file(&path)?;
                fs::File::open(self.folder.join("shares"))?.sync_all()?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.shares.remove(grant);
        Ok(())
    }

    fn fragment_path(&self, tx_id: &str, block: u64) -> PathBuf {
        self.folder.join("fragments").join(format!("{tx_id}.{block}"))
    }

    /// Whether a request was answered.
    #[must_use]
    pub fn has_fragment(&self, tx_id: &str) -> bool {
        self.fragments.contains_key(tx_id)
    }

    /// The answer to a request.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn fragment(&self, tx_id: &str) -> io::Result<Option<Bytes>> {
        let Some(block) = self.fragments.get(tx_id) else { return Ok(None) };
        read_file(&self.fragment_path(tx_id, *block)).map(|bytes| Some(bytes.into()))
    }

    /// Keeps the answer to a request of a block. It is never replaced.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn put_fragment(&mut self, tx_id: &str, block: u64, answer: &[u8]) -> io::Result<()> {
        if self.has_fragment(tx_id) {
            return Ok(());
        }
        write_durably(&self.folder.join("fragments"), &self.fragment_path(tx_id, block), answer)?;
        self.index_fragment(tx_id, block);
        Ok(())
    }

    /// Removes a fragment.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn remove_fragment(&mut self, tx_id: &str) -> io::Result<()> {
        let Some(block) = self.fragments.get(tx_id).copied() else { return Ok(()) };
        match fs::remove_file(self.fragment_path(tx_id, block)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.fragments.remove(tx_id);
        self.by_block.remove(&(block, tx_id.to_owned()));
        Ok(())
    }

    /// Removes the fragments of requests that are [`FRAGMENT_BLOCKS`] old.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn remove_old_fragments(&mut self) -> io::Result<()> {
        let oldest = self.height.saturating_sub(FRAGMENT_BLOCKS);
        while let Some((block, tx_id)) = self.by_block.first().cloned() {
            if block >= oldest {
                break;
            }
            self.remove_fragment(&tx_id)?;
        }
        Ok(())
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(index: u32) -> KeptShare {
        KeptShare { index, sealed: Bytes::from_static(b"sealed bytes") }
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut vault = Vault::open(folder.path(), 7).unwrap();
        vault.put_share("g.1", &share(2)).unwrap();
        vault.put_share("g.unfinished", &share(3)).unwrap();
        vault.put_fragment("aa", 8, b"answer").unwrap();
        vault.advance(9);
        vault.note_height().unwrap();
        let vault = Vault::open(folder.path(), 0).unwrap();
        assert_eq!(vault.height(), 9);
        assert_eq!(vault.share("g.1").unwrap(), Some(share(2)));
        assert_eq!(vault.share("g.unfinished").unwrap(), Some(share(3)));
        assert_eq!(vault.share("g").unwrap(), None);
        assert_eq!(vault.fragment("aa").unwrap().unwrap(), "answer");
    }

    #[test]
    fn an_erased_share_is_gone_and_stays_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut vault = Vault::open(folder.path(), 0).unwrap();
        vault.put_share("g", &share(1)).unwrap();
        vault.erase_share("g").unwrap();
        assert_eq!(vault.share("g").unwrap(), None);
        assert!(Vault::open(folder.path(), 0).unwrap().grants().is_empty());
        assert_eq!(fs::read_dir(folder.path().join("shares")).unwrap().count(), 0);
    }

    #[test]
    fn a_fragment_is_never_replaced_and_goes_after_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let mut vault = Vault::open(folder.path(), 0).unwrap();
        vault.put_fragment("aa", 5, b"first").unwrap();
        vault.put_fragment("aa", 5, b"second").unwrap();
        assert_eq!(vault.fragment("aa").unwrap().unwrap(), "first");
        vault.advance(5 + FRAGMENT_BLOCKS);
        vault.remove_old_fragments().unwrap();
        assert!(vault.has_fragment("aa"));
        vault.advance(6 + FRAGMENT_BLOCKS);
        vault.remove_old_fragments().unwrap();
        assert_eq!(vault.fragment("aa").unwrap(), None);
    }
}
