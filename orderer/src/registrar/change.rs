//! Joining a channel and leaving it, while the orderer runs.

use std::{
    fs,
    path::Path,
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};

use consort_ledger::BlockStore;
use consort_node::deliver::Condition;
use consort_protos::{block, fabric::common::Block};
use prost::Message as _;
use tokio::sync::oneshot;
use tracing::{error, info};

use super::{
    JOIN_BLOCK, REMOVED, Registrar, RegistrarError, UNFINISHED,
    entry::{Description, Entry},
};
use crate::{channel::ChannelState, join_block};

/// A removal that takes longer goes on, but its caller is told.
const REMOVAL_WAIT: Duration = Duration::from_secs(20);

/// How often a removal looks whether anybody still holds the channel.
const REMOVAL_POLL: Duration = Duration::from_millis(20);

impl Registrar {
    /// Joins a channel by its first block or a later configuration block.
    ///
    /// # Errors
    /// [`RegistrarError`]; nothing is left on disk then.
    pub(crate) async fn join(self: &Arc<Self>, join: &Block) -> Result<Description, RegistrarError> {
        let bundle = join_block::check(join).map_err(RegistrarError::JoinBlock)?;
        let name = bundle.channel().as_str();
        let _changing = self.changing.lock().await;
        match self.read(name, |entry| matches!(entry, Entry::Leaving { .. })) {
            Some(true) => return Err(RegistrarError::PendingRemoval),
            Some(false) => return Err(RegistrarError::Exists),
            None => {}
        }
        let unfinished = self.folder.join(format!("{UNFINISHED}{name}"));
        let finished = self.folder.join(name);
        remove_if_there(&unfinished)?;
        let outcome = create(&unfinished, join).and_then(|()| {
            fs::rename(&unfinished, &finished)?;
            self.start(name).map_err(RegistrarError::Start)
        });
        if let Err(error) = outcome {
            remove_if_there(&unfinished)?;
            remove_if_there(&finished)?;
            return Err(error);
        }
        info!(channel = name, number = block::number(join).get(), "channel joined");
        self.describe(name).ok_or(RegistrarError::Unknown)
    }

    /// Leaves a channel and deletes its data, once nobody holds its files any more.
    ///
    /// # Errors
    /// When there is no such channel or its folder cannot be deleted.
    pub(crate) async fn remove(self: &Arc<Self>, name: &str) -> Result<(), RegistrarError> {
        let _changing = self.changing.lock().await;
        let held = self.leave(name)?;
        let (done, outcome) = oneshot::channel();
        let (registrar, name) = (Arc::clone(self), name.to_owned());
        // It goes on when the caller hangs up.
        self.tasks.spawn(format!("removal of {name}"), false, async move {
            while held.strong_count() > 0 {
                tokio::time::sleep(REMOVAL_POLL).await;
            }
            let _caller_may_be_gone = done.send(registrar.delete(&name).await);
        });
        match tokio::time::timeout(REMOVAL_WAIT, outcome).await {
            Ok(Ok(deleted)) => deleted,
            Ok(Err(_)) | Err(_) => Err(RegistrarError::StillHeld),
        }
    }

    /// Marks a channel as removed, for a restart too, and ends its tasks. Answers a handle that dies with the last user of its books.
    fn leave(&self, name: &str) -> Result<Weak<ChannelState>, RegistrarError> {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(name).ok_or(RegistrarError::Unknown)?;
        if matches!(entry, Entry::Leaving { .. }) {
            return Err(RegistrarError::PendingRemoval);
        }
        fs::write(self.folder.join(name).join(REMOVED), [])?;
        let leaving = Entry::Leaving { relation: entry.relation() };
        Ok(match entries.insert(name.to_owned(), leaving) {
            Some(Entry::Open { channel, .. }) => {
                channel.state().set_condition(Condition::Closed);
                channel.state().tasks.cancel();
                Arc::downgrade(channel.state())
            }
            Some(Entry::Empty { tasks, .. }) => {
                tasks.cancel();
                Weak::new()
            }
            Some(Entry::Broken(_) | Entry::Leaving { .. }) | None => Weak::new(),
        })
    }

    async fn delete(&self, name: &str) -> Result<(), RegistrarError> {
        let folder = self.folder.join(name);
        let deleted = tokio::task::spawn_blocking(move || fs::remove_dir_all(folder)).await;
        let deleted = deleted.unwrap_or_else(|fault| Err(std::io::Error::other(fault)));
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        match &deleted {
            Ok(()) => {
                entries.remove(name);
                info!(channel = name, "channel removed");
            }
            Err(error) => {
                let reason = format!("it was removed, but its folder cannot be deleted: {error}");
                error!(channel = name, reason, "the channel cannot be deleted");
                entries.insert(name.to_owned(), Entry::Broken(reason));
            }
        }
        Ok(deleted?)
    }
}

fn remove_if_there(folder: &Path) -> Result<(), std::io::Error> {
    if folder.exists() { fs::remove_dir_all(folder) } else { Ok(()) }
}

/// Writes what a channel begins with into a folder that does not count yet.
fn create(folder: &Path, join: &Block) -> Result<(), RegistrarError> {
    fs::create_dir_all(folder)?;
    if block::number(join).get() > 0 {
        let file = fs::File::create(folder.join(JOIN_BLOCK))?;
        std::io::Write::write_all(&mut &file, &join.encode_to_vec())?;
        file.sync_all()?;
        return Ok(());
    }
    let store =
        BlockStore::open(&folder.join("blocks")).map_err(|error| RegistrarError::Start(error.to_string()))?;
    store.append(join).map_err(|error| RegistrarError::JoinBlock(error.to_string()))
}
