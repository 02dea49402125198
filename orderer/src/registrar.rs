//! The channels of this orderer: found on disk at the start, joined and removed while it runs.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use consort_channel_config::ChannelBundle;
use consort_crypto::preimage::block_data_hash;
use consort_ledger::BlockStore;
use consort_node::{Tasks, deliver};
use consort_protos::{block, fabric::common::Block, ids::ChannelId};
use tokio::sync::Mutex;
use tracing::{error, info, warn};

use crate::{
    channel::{Channel, ChannelState},
    consensus::{Consenter, raft::RaftConsenter},
    submission::Judge,
};

/// Folders of channels that are being created or deleted; nothing in them counts.
const UNFINISHED: &str = ".unfinished-";

/// A channel could not be joined or removed. Texts are Fabric's where it has them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistrarError {
    #[error("cannot join: channel already exists")]
    Exists,
    #[error("channel does not exist")]
    Unknown,
    #[error("invalid join block: {0}")]
    JoinBlock(String),
    #[error("cannot join: {0}")]
    Start(String),
    #[error("the folder of the channel cannot be changed: {0}")]
    Folder(#[from] std::io::Error),
}

/// All channels by name.
pub(crate) struct Registrar {
    folder: PathBuf,
    consenter: RaftConsenter,
    judge: Judge,
    tasks: Tasks,
    channels: RwLock<BTreeMap<String, Arc<Channel>>>,
    /// Channels that are on disk but cannot be served, with the reason.
    broken: RwLock<BTreeMap<String, String>>,
    /// One join or removal at a time.
    changing: Mutex<()>,
}

impl Registrar {
    /// Opens the folder of all channels and starts each. One that cannot be started is reported and does not stop the others.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(crate) fn open(
        data: &Path,
        consenter: RaftConsenter,
        judge: Judge,
        tasks: Tasks,
    ) -> Result<Arc<Self>, std::io::Error> {
        let folder = data.join("channels");
        fs::create_dir_all(&folder)?;
        let registrar = Self {
            folder,
            consenter,
            judge,
            tasks,
            channels: RwLock::default(),
            broken: RwLock::default(),
            changing: Mutex::default(),
        };
        for entry in fs::read_dir(&registrar.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(UNFINISHED) {
                fs::remove_dir_all(entry.path())?;
            } else if ChannelId::parse(&name).is_ok() {
                registrar.restore(&name, &entry.path());
            } else {
                warn!(name, "a folder among the channels is no channel, it is left alone");
            }
        }
        Ok(Arc::new(registrar))
    }

    fn restore(&self, name: &str, folder: &Path) {
        match self.start(folder) {
            Ok(channel) => {
                info!(channel = name, height = channel.state().store().height(), "channel opened");
                self.insert(name, channel);
            }
            Err(reason) => {
                error!(channel = name, reason, "the channel cannot be served");
                self.broken.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), reason);
            }
        }
    }

    fn start(&self, folder: &Path) -> Result<Arc<Channel>, String> {
        let state = Arc::new(ChannelState::open(folder, self.judge.clone(), self.tasks.child())?);
        let chain = self.consenter.start(Arc::clone(&state)).map_err(|error| error.to_string())?;
        Ok(Arc::new(Channel::new(state, chain)))
    }

    fn insert(&self, name: &str, channel: Arc<Channel>) {
        self.channels.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), channel);
    }

    /// The channel of that name.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Channel>> {
        self.channels.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The names of all channels, those that cannot be served included.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = self.broken();
        names.extend(
            self.channels
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .keys()
                .map(|name| (name.clone(), String::new())),
        );
        names.into_keys().collect()
    }

    /// Channels that are on disk but cannot be served, with the reason.
    pub(crate) fn broken(&self) -> BTreeMap<String, String> {
        self.broken.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All channels.
    pub(crate) fn all(&self) -> Vec<Arc<Channel>> {
        self.channels.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Waits until the chains of all channels have ended.
    pub(crate) async fn ended(&self) {
        for channel in self.all() {
            channel.state().ended().await;
        }
    }

    /// Joins a channel by its genesis block.
    ///
    /// # Errors
    /// [`RegistrarError`]; nothing is left on disk then.
    pub(crate) async fn join(&self, genesis: &Block) -> Result<Arc<Channel>, RegistrarError> {
        let bundle = check_join_block(genesis).map_err(RegistrarError::JoinBlock)?;
        let name = bundle.channel().as_str();
        let _changing = self.changing.lock().await;
        if self.get(name).is_some() || self.broken().contains_key(name) {
            return Err(RegistrarError::Exists);
        }
        let unfinished = self.folder.join(format!("{UNFINISHED}{name}"));
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        let outcome = self.create(&unfinished, genesis).and_then(|()| {
            fs::rename(&unfinished, self.folder.join(name))?;
            self.start(&self.folder.join(name)).map_err(RegistrarError::Start)
        });
        match outcome {
            Ok(channel) => {
                info!(channel = name, "channel joined");
                self.insert(name, Arc::clone(&channel));
                Ok(channel)
            }
            Err(error) => {
                for leftover in [unfinished, self.folder.join(name)] {
                    if leftover.exists() {
                        fs::remove_dir_all(leftover)?;
                    }
                }
                Err(error)
            }
        }
    }

    /// Writes the genesis block into a folder that does not count yet.
    fn create(&self, folder: &Path, genesis: &Block) -> Result<(), RegistrarError> {
        let start = |error: String| RegistrarError::Start(error);
        fs::create_dir_all(folder)?;
        let store = BlockStore::open(&folder.join("blocks")).map_err(|error| start(error.to_string()))?;
        store.append(genesis).map_err(|error| RegistrarError::JoinBlock(error.to_string()))?;
        drop(store);
        let state = ChannelState::open(folder, self.judge.clone(), self.tasks.child()).map_err(start)?;
        let member =
            self.consenter.is_member(&state).map_err(|error| RegistrarError::JoinBlock(error.to_string()))?;
        if member {
            return Ok(());
        }
        Err(RegistrarError::JoinBlock(
            "this orderer is no consenter of the channel: no consenter has a server certificate with its key"
                .to_owned(),
        ))
    }

    /// Leaves a channel and deletes its data.
    ///
    /// # Errors
    /// When there is no such channel or its folder cannot be deleted.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), RegistrarError> {
        let _changing = self.changing.lock().await;
        let channel = self.channels.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        let broken = self.broken.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        if channel.is_none() && broken.is_none() {
            return Err(RegistrarError::Unknown);
        }
        if let Some(channel) = channel {
            channel.state().set_condition(deliver::Condition::Closed);
            channel.state().tasks.cancel();
        }
        // Renamed first: a crash half-way leaves a folder that does not count.
        let unfinished = self.folder.join(format!("{UNFINISHED}{name}"));
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        fs::rename(self.folder.join(name), &unfinished)?;
        fs::remove_dir_all(&unfinished)?;
        info!(channel = name, "channel removed");
        Ok(())
    }
}

impl deliver::Channels for Registrar {
    type Source = Channel;

    fn source(&self, channel: &str) -> Option<Arc<Channel>> {
        self.get(channel)
    }
}

/// What a block must be to be joined by (Fabric `orderer/common/channelparticipation/validator.go`).
fn check_join_block(genesis: &Block) -> Result<ChannelBundle, String> {
    if !block::is_config(genesis) {
        return Err("block is not a config block".to_owned());
    }
    if genesis.metadata.as_ref().is_none_or(|metadata| metadata.metadata.is_empty()) {
        return Err("invalid block: does not have metadata".to_owned());
    }
    let (Some(header), Some(data)) = (&genesis.header, &genesis.data) else {
        return Err("invalid block: does not have header or data".to_owned());
    };
    if header.data_hash != block_data_hash(data).as_slice() {
        return Err("invalid block: Header.DataHash is different from Hash(block.Data)".to_owned());
    }
    let bundle = ChannelBundle::from_block(genesis).map_err(|error| format!("invalid config: {error}"))?;
    bundle.check_supported_by_orderers().map_err(|error| error.to_string())?;
    bundle.check_consenters().map_err(|error| {
        format!("failed to determine cluster membership from join-block: failed to validate config metadata of ordering config: {error}")
    })?;
    if header.number != 0 {
        return Err(format!("only a genesis block can be joined by, this is block {}", header.number));
    }
    Ok(bundle)
}
