//! The channels that this peer has joined.
//!
//! A channel is a folder `<data>/channels/<channel>` that holds a ledger with at least its genesis block. The ledger is
//! made by one write, so that a crash during a join leaves a folder without a ledger, which the next join fills.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use consort_channel_config::{ChannelBundle, ConfigError};
use consort_ledger::Ledger;
pub(crate) use consort_node::dial::with_causes;
use consort_protos::fabric::common;
use consort_protos::ids::ChannelId;
use prost::Message;
use tokio::sync::watch;

use crate::channel::{ChannelFault, ChannelHandle};

/// Namespace and key under which a committed configuration transaction leaves its envelope (Fabric
/// `core/peer/configtx_processor.go`).
const CONFIG_NAMESPACE: &str = "";
/// See [`CONFIG_NAMESPACE`].
const CONFIG_KEY: &str = "CHANNEL_CONFIG_ENV_BYTES";

/// Why a join was refused.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The block is not the first block of a channel.
    #[error("cannot join with block {number}: the genesis block (number 0) of the channel is needed")]
    NotGenesis {
        /// Number of the given block.
        number: u64,
    },
    /// The block has no header, no data, or its data hash is another.
    #[error("the genesis block is malformed: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// The block's configuration is not one that a peer can work with.
    #[error("the genesis block's configuration is not usable")]
    Config(#[source] ConfigError),
    /// The peer is a member already. The text is the one that Fabric's tools know.
    #[error("ledger [{channel}] already exists with state [ACTIVE]")]
    AlreadyJoined {
        /// The channel.
        channel: ChannelId,
    },
    /// The ledger could not be made.
    #[error("the ledger of channel {channel} could not be created")]
    Ledger {
        /// The channel.
        channel: ChannelId,
        /// The cause.
        #[source]
        source: consort_ledger::Error,
    },
}

/// Why a joined channel could not be opened at start. It concerns that channel alone.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("the folder name is not a channel name")]
    Name,
    #[error("the ledger could not be opened")]
    Ledger(#[source] consort_ledger::Error),
    #[error("the ledger holds no channel configuration")]
    NoConfig,
    #[error("the stored configuration does not parse")]
    Parse(#[source] prost::DecodeError),
    #[error("the stored configuration is not usable")]
    Config(#[source] ConfigError),
    #[error("the channel demands what this peer does not support")]
    Unsupported(#[source] ConfigError),
}

impl OpenError {
    /// What an operator can do about it.
    fn remedy(&self, path: &Path) -> String {
        match self {
            Self::Unsupported(_) => "run a newer version of the peer".to_owned(),
            Self::Ledger(error) if error.is_out_of_space() => {
                "free space on the disk, then restart the peer".to_owned()
            }
            _ => format!("restore {} from a backup, or remove it and join the channel again", path.display()),
        }
    }
}

/// All channels of this peer. Shared as `Arc`.
pub struct Channels {
    folder: PathBuf,
    open: RwLock<BTreeMap<String, Arc<ChannelHandle>>>,
    broken: RwLock<BTreeMap<String, ChannelFault>>,
    joins: watch::Sender<usize>,
    /// Held for the whole of a join, so that two joins of one channel do not meet.
    joining: Mutex<()>,
}

impl Channels {
    /// Opens every channel that was joined before. A channel that does not open is reported ([`Channels::faults`],
    /// the log) and does not keep the others from working.
    ///
    /// # Errors
    /// When the folder itself cannot be made or read.
    pub fn open(data: &Path) -> std::io::Result<Arc<Self>> {
        let folder = data.join("channels");
        fs::create_dir_all(&folder)?;
        let channels = Self {
            folder: folder.clone(),
            open: RwLock::default(),
            broken: RwLock::default(),
            joins: watch::Sender::new(0),
            joining: Mutex::new(()),
        };
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() {
                channels.open_one(name, &entry.path());
            }
        }
        Ok(Arc::new(channels))
    }

    /// The channel of this name, if it is joined and open.
    #[must_use]
    pub fn get(&self, channel: &str) -> Option<Arc<ChannelHandle>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).get(channel).cloned()
    }

    /// All open channels, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<ChannelHandle>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Changes with every join; whoever works per channel looks at [`Channels::list`] again then.
    #[must_use]
    pub fn watch_joins(&self) -> watch::Receiver<usize> {
        self.joins.subscribe()
    }

    /// The channels that do not work, with reason and remedy: those that did not open and those that stopped.
    #[must_use]
    pub fn faults(&self) -> BTreeMap<String, ChannelFault> {
        let mut faults = self.broken.read().unwrap_or_else(PoisonError::into_inner).clone();
        for channel in self.list() {
            if let Some(fault) = channel.fault() {
                faults.insert(channel.id().to_string(), fault);
            }
        }
        faults
    }

    /// Joins a channel by its genesis block: makes the ledger, opens it and announces the channel. Blocks the thread
    /// for the ledger's writes.
    ///
    /// # Errors
    /// [`JoinError`]; the peer is then as it was before.
    pub fn join(&self, genesis: &common::Block) -> Result<Arc<ChannelHandle>, JoinError> {
        let _one_at_a_time = self.joining.lock().unwrap_or_else(PoisonError::into_inner);
        let bundle = checked_genesis(genesis)?;
        let channel = bundle.channel().clone();
        let broken =
            self.broken.read().unwrap_or_else(PoisonError::into_inner).contains_key(channel.as_str());
        if broken || self.get(channel.as_str()).is_some() {
            return Err(JoinError::AlreadyJoined { channel });
        }
        let folder = self.folder.join(channel.as_str());
        let ledger = Ledger::create(&folder, genesis)
            .map_err(|source| JoinError::Ledger { channel: channel.clone(), source })?;
        let handle = Arc::new(ChannelHandle::new(&folder, Arc::new(ledger), Arc::new(bundle)));
        self.open
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(channel.to_string(), Arc::clone(&handle));
        self.joins.send_modify(|count| *count += 1);
        tracing::info!(%channel, "channel joined");
        Ok(handle)
    }

    fn open_one(&self, name: String, path: &Path) {
        match open_channel(&name, path) {
            Ok(handle) => {
                tracing::info!(channel = %name, height = handle.ledger().height(), "channel opened");
                self.open.write().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::new(handle));
            }
            Err(OpenError::Ledger(consort_ledger::Error::Absent { .. })) => {
                tracing::warn!(channel = %name, "a join was not finished; join the channel again");
            }
            Err(error) => {
                let fault = ChannelFault { reason: with_causes(&error), remedy: error.remedy(path) };
                tracing::error!(channel = %name, reason = %fault.reason, remedy = %fault.remedy, "channel not opened");
                self.broken.write().unwrap_or_else(PoisonError::into_inner).insert(name, fault);
            }
        }
    }
}

impl std::fmt::Debug for Channels {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Channels").field("folder", &self.folder).finish_non_exhaustive()
    }
}

fn checked_genesis(genesis: &common::Block) -> Result<ChannelBundle, JoinError> {
    let malformed = |reason: &str| JoinError::Malformed { reason: reason.to_owned() };
    let header = genesis.header.as_ref().ok_or_else(|| malformed("the block has no header"))?;
    if header.number != 0 {
        return Err(JoinError::NotGenesis { number: header.number });
    }
    let data = genesis.data.as_ref().ok_or_else(|| malformed("the block has no data"))?;
    let bundle = ChannelBundle::from_block(genesis).map_err(JoinError::Config)?;
    if bundle.hash_algorithm().block_data_hash(data)[..] != header.data_hash[..] {
        return Err(malformed("the data hash in the header is not that of the data"));
    }
    bundle.check_supported_by_peers().map_err(JoinError::Config)?;
    Ok(bundle)
}

fn open_channel(name: &str, path: &Path) -> Result<ChannelHandle, OpenError> {
    let channel = ChannelId::parse(name).map_err(|_| OpenError::Name)?;
    let ledger = Ledger::open(path, &channel).map_err(OpenError::Ledger)?;
    let stored = ledger
        .snapshot()
        .get(CONFIG_NAMESPACE, CONFIG_KEY)
        .map_err(OpenError::Ledger)?
        .ok_or(OpenError::NoConfig)?;
    let envelope = common::ConfigEnvelope::decode(stored.value).map_err(OpenError::Parse)?;
    let config = envelope.config.ok_or(OpenError::NoConfig)?;
    let bundle = ChannelBundle::new(channel, config).map_err(OpenError::Config)?;
    bundle.check_supported_by_peers().map_err(OpenError::Unsupported)?;
    Ok(ChannelHandle::new(path, Arc::new(ledger), Arc::new(bundle)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::configuration::demand_the_unknown;
    use crate::testing::{CHANNEL, Network};

    #[test]
    fn a_channel_that_demands_an_unknown_capability_is_not_opened() {
        let mut genesis = Network::new(&[]).genesis;
        let data = genesis.data.as_mut().expect("data");
        let mut envelope = common::Envelope::decode(data.data[0].clone()).expect("an envelope");
        let mut payload = common::Payload::decode(envelope.payload).expect("a payload");
        let mut config = common::ConfigEnvelope::decode(payload.data).expect("a configuration");
        let root = config.config.as_mut().and_then(|config| config.channel_group.as_mut());
        demand_the_unknown(root.expect("a channel group"));
        payload.data = config.encode_to_vec().into();
        envelope.payload = payload.encode_to_vec().into();
        data.data[0] = envelope.encode_to_vec().into();
        let hash = consort_crypto::preimage::block_data_hash(data);
        genesis.header.as_mut().expect("a header").data_hash = bytes::Bytes::copy_from_slice(&hash);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("channels").join(CHANNEL);
        // What an older check let through, or a newer peer wrote.
        drop(Ledger::create(&path, &genesis).expect("a ledger"));
        let channels = Channels::open(folder.path()).expect("the folder opens");
        assert!(channels.get(CHANNEL).is_none());
        let fault = channels.faults().remove(CHANNEL).expect("a fault");
        assert!(fault.reason.contains("V9_9"), "{fault}");
        assert_eq!(fault.remedy, "run a newer version of the peer");
    }
}
