//! Where a reader of events left off, so that it goes on there after a restart.
//!
//! The rule of use is: handle an event, then save its checkpoint. A crash between the two repeats one event; none is lost.
//!
//! ```
//! use consort_client_sdk::checkpoint::{Checkpoint, Checkpointer, InFile};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("checkpoint.json");
//! let mut place = InFile::new(&path);
//! assert_eq!(place.load()?.block, None, "nothing has been handled");
//! place.save(Checkpoint::after_block(7))?;
//! // After a restart:
//! assert_eq!(InFile::new(&path).load()?.block, Some(8));
//! # Ok::<(), std::io::Error>(())
//! ```

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::events::ChaincodeEvent;

/// Everything up to here has been handled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The block to go on with; `None` before the first event.
    #[serde(rename = "blockNumber", default, with = "number_as_text")]
    pub block: Option<u64>,
    /// The last transaction of that block that has been handled; `None` when none of it has.
    #[serde(rename = "transactionId", default)]
    pub tx_id: Option<String>,
}

impl Checkpoint {
    /// After this event.
    #[must_use]
    pub fn after_event(event: &ChaincodeEvent) -> Self {
        Self { block: Some(event.block), tx_id: Some(event.tx_id.clone()) }
    }

    /// After all of this block.
    #[must_use]
    pub fn after_block(number: u64) -> Self {
        Self { block: number.checked_add(1), tx_id: None }
    }
}

/// A place where checkpoints are kept.
///
/// Duties: [`Checkpointer::load`] returns what [`Checkpointer::save`] was given last and reported as saved.
pub trait Checkpointer: Send {
    /// The last checkpoint; the empty one before the first.
    ///
    /// # Errors
    /// The place cannot be read.
    fn load(&self) -> std::io::Result<Checkpoint>;

    /// Keeps a checkpoint.
    ///
    /// # Errors
    /// The place cannot be written; the earlier checkpoint is still there.
    fn save(&mut self, checkpoint: Checkpoint) -> std::io::Result<()>;
}

/// Keeps the checkpoint for as long as the process runs: enough to survive a lost connection.
#[derive(Debug, Default)]
pub struct InMemory(Checkpoint);

impl Checkpointer for InMemory {
    fn load(&self) -> std::io::Result<Checkpoint> {
        Ok(self.0.clone())
    }

    fn save(&mut self, checkpoint: Checkpoint) -> std::io::Result<()> {
        self.0 = checkpoint;
        Ok(())
    }
}

/// Keeps the checkpoint in a file, in the form of Fabric's Node client (`checkpointers.file`), so that an application can
/// change its language without losing its place.
#[derive(Debug)]
pub struct InFile(PathBuf);

impl InFile {
    /// A checkpoint in this file, which need not exist.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
}

impl Checkpointer for InFile {
    fn load(&self) -> std::io::Result<Checkpoint> {
        match std::fs::read(&self.0) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(std::io::Error::other),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Checkpoint::default()),
            Err(error) => Err(error),
        }
    }

    /// A crash leaves the old content or the new one: the file is written beside, synced, and renamed.
    fn save(&mut self, checkpoint: Checkpoint) -> std::io::Result<()> {
        let mut name = self.0.file_name().unwrap_or_default().to_os_string();
        name.push(".new");
        let beside = self.0.with_file_name(name);
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(&serde_json::to_vec(&checkpoint).map_err(std::io::Error::other)?)?;
        file.sync_all()?;
        std::fs::rename(&beside, &self.0)?;
        std::fs::File::open(self.0.parent().filter(|path| *path != Path::new("")).unwrap_or(Path::new(".")))?
            .sync_all()
    }
}

/// A 64-bit number as a text, since JavaScript's numbers end at 2^53.
mod number_as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::ref_option, reason = "serde hands over a reference to the field")]
    pub(super) fn serialize<S: Serializer>(number: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match number {
            Some(number) => serializer.serialize_str(&number.to_string()),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        let text: Option<String> = Option::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(block: u64, tx_id: &str) -> ChaincodeEvent {
        ChaincodeEvent {
            block,
            tx_id: tx_id.to_owned(),
            chaincode: "basic".to_owned(),
            name: "CreateAsset".to_owned(),
            payload: bytes::Bytes::new(),
        }
    }

    #[test]
    fn a_file_survives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.json");
        let mut first = InFile::new(&path);
        assert_eq!(first.load().unwrap(), Checkpoint::default());
        first.save(Checkpoint::after_event(&event(7, "ab"))).unwrap();
        drop(first);
        let loaded = InFile::new(&path).load().unwrap();
        assert_eq!((loaded.block, loaded.tx_id.as_deref()), (Some(7), Some("ab")));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, r#"{"blockNumber":"7","transactionId":"ab"}"#);
    }

    #[test]
    fn the_node_clients_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.json");
        std::fs::write(&path, r#"{"blockNumber":"18446744073709551615"}"#).unwrap();
        assert_eq!(InFile::new(&path).load().unwrap().block, Some(u64::MAX));
        std::fs::write(&path, "{").unwrap();
        assert!(InFile::new(&path).load().is_err());
    }

    #[test]
    fn after_a_block_comes_the_next() {
        assert_eq!(Checkpoint::after_block(7).block, Some(8));
        let mut memory = InMemory::default();
        memory.save(Checkpoint::after_block(7)).unwrap();
        assert_eq!(memory.load().unwrap().block, Some(8));
    }
}
