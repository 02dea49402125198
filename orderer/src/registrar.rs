//! The channels of this orderer: found on disk at the start, joined and removed while it runs.
//!
//! A channel has one keeper, a task that gives it the chain that its configuration asks for: Raft where this orderer is one of the
//! consenters, a [follower](crate::follower) elsewhere, and the other one after a configuration that changes this.

mod change;
mod entry;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use consort_channel_config::ChannelBundle;
use consort_ledger::BlockStore;
use consort_node::{
    Tasks,
    deliver::{self, Condition},
    dial::with_causes,
    trust::ClientTrust,
};
use consort_protos::{block, fabric::common::Block, ids::ChannelId};
use prost::Message as _;
use tokio::sync::{Mutex, mpsc, watch};
use tracing::{error, info, warn};

use self::entry::Entry;
pub(crate) use self::entry::{Description, Relation, Status};
use crate::{
    channel::{Channel, ChannelState},
    consensus::{Chain, Consenter, raft::RaftConsenter},
    follower::{Follower, FollowerChain, Target, names, others},
    join_block,
    pull::{Pull, orderer_roots},
    submission::Judge,
};

/// Folders of channels that are being created or deleted; nothing in them counts.
const UNFINISHED: &str = ".unfinished-";

/// In a channel's folder: the block by which it was joined, as long as the blocks before it are not here.
const JOIN_BLOCK: &str = "join.block";

/// In a channel's folder: it was removed, and only waits to be deleted.
const REMOVED: &str = "removed";

/// A channel could not be joined or removed. Texts are Fabric's where it has them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistrarError {
    #[error("cannot join: channel already exists")]
    Exists,
    #[error("channel does not exist")]
    Unknown,
    #[error("channel pending removal")]
    PendingRemoval,
    #[error("invalid join block: {0}")]
    JoinBlock(String),
    #[error("cannot join: {0}")]
    Start(String),
    #[error("the channel is left, but somebody still uses its folder; it is deleted as soon as that ends")]
    StillHeld,
    #[error("the folder of the channel cannot be changed: {0}")]
    Folder(#[from] std::io::Error),
}

/// All channels by name.
pub(crate) struct Registrar {
    folder: PathBuf,
    consenter: RaftConsenter,
    judge: Judge,
    tasks: Tasks,
    entries: RwLock<BTreeMap<String, Entry>>,
    /// One join or removal at a time.
    changing: Mutex<()>,
    /// Told whenever a configuration comes into force or a channel comes or goes.
    configurations: watch::Sender<()>,
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
        let registrar = Arc::new(Self {
            folder,
            consenter,
            judge,
            tasks,
            entries: RwLock::default(),
            changing: Mutex::default(),
            configurations: watch::Sender::new(()),
        });
        for entry in fs::read_dir(&registrar.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(UNFINISHED) || entry.path().join(REMOVED).exists() {
                fs::remove_dir_all(entry.path())?;
            } else if ChannelId::parse(&name).is_ok() {
                registrar.restore(&name);
            } else {
                warn!(name, "a folder among the channels is no channel, it is left alone");
            }
        }
        Ok(registrar)
    }

    fn restore(self: &Arc<Self>, name: &str) {
        match self.start(name) {
            Ok(()) => info!(channel = name, "channel opened"),
            Err(reason) => {
                error!(channel = name, reason, "the channel cannot be served");
                self.insert(name, Entry::Broken(reason));
            }
        }
    }

    /// Starts a channel from its folder.
    fn start(self: &Arc<Self>, name: &str) -> Result<(), String> {
        let folder = self.folder.join(name);
        let target = read_target(&folder.join(JOIN_BLOCK))?;
        let Some(target) = target else { return self.serve(name, None) };
        let store = BlockStore::open(&folder.join("blocks")).map_err(|error| with_causes(&error))?;
        let height = store.height();
        drop(store);
        if height > 0 {
            return self.serve(name, Some(target));
        }
        let tasks = self.tasks.child();
        self.insert(name, Entry::Empty { relation: self.relation(&target.bundle), tasks: tasks.clone() });
        let (registrar, name, cancelled) = (Arc::clone(self), name.to_owned(), tasks.cancelled());
        tasks.spawn(format!("first block of {name}"), false, async move {
            tokio::select! {
                () = cancelled.cancelled() => {}
                () = registrar.fetch_first(&name, &target) => {}
            }
        });
        Ok(())
    }

    fn relation(&self, bundle: &ChannelBundle) -> Relation {
        if names(bundle, &self.consenter.own_certificate) { Relation::Consenter } else { Relation::Follower }
    }

    /// Serves a channel that has its first block.
    fn serve(self: &Arc<Self>, name: &str, target: Option<Target>) -> Result<(), String> {
        let folder = self.folder.join(name);
        let state = Arc::new(ChannelState::open(
            &folder,
            self.judge.clone(),
            self.tasks.child(),
            self.configurations.clone(),
        )?);
        // A copy beside the original would speak in its name.
        if state.id().as_str() != name {
            return Err(format!("the folder {name} holds the channel {}: move it elsewhere", state.id()));
        }
        let configured = self.relation(&state.bundle());
        let runs = if target.is_some() { Relation::Follower } else { configured };
        let shown = target.as_ref().map_or(configured, |target| self.relation(&target.bundle));
        let chain = match runs {
            Relation::Consenter => self.consent(&state)?,
            Relation::Follower => Arc::new(FollowerChain { onboarding: shown == Relation::Consenter }),
        };
        let channel = Arc::new(Channel::new(Arc::clone(&state), chain));
        let number = target.as_ref().map(|target| target.number);
        self.insert(name, Entry::Open { channel, relation: shown, target: number });
        let (registrar, name, tasks) = (Arc::clone(self), name.to_owned(), state.tasks.clone());
        tasks.spawn(format!("keeper of {name}"), false, async move {
            registrar.keep(&name, state, runs, target).await;
        });
        Ok(())
    }

    fn consent(&self, state: &Arc<ChannelState>) -> Result<Arc<dyn Chain>, String> {
        self.consenter.start(Arc::clone(state)).map_err(|error| error.to_string())
    }

    /// Gives a channel the chain that its configuration asks for, until it is left, fails, or the orderer stops.
    async fn keep(&self, name: &str, state: Arc<ChannelState>, runs: Relation, target: Option<Target>) {
        let cancelled = state.tasks.cancelled();
        let (mut runs, mut target) = (runs, target);
        loop {
            match runs {
                Relation::Consenter => state.ended().await,
                Relation::Follower => {
                    let follower = Follower {
                        state: Arc::clone(&state),
                        dialer: self.consenter.dialer.clone(),
                        own_certificate: self.consenter.own_certificate.clone(),
                        target: target.take(),
                    };
                    tokio::select! {
                        () = cancelled.cancelled() => state.set_condition(Condition::Closed),
                        result = follower.run() => if let Err(reason) = result { state.fail(reason) },
                    }
                }
            }
            if cancelled.is_cancelled() || state.failure().is_some() {
                return;
            }
            runs = self.relation(&state.bundle());
            let chain: Arc<dyn Chain> = match runs {
                Relation::Consenter => match self.consent(&state) {
                    Ok(chain) => chain,
                    Err(reason) => return state.fail(reason),
                },
                Relation::Follower => {
                    warn!(
                        channel = name,
                        "the configuration names this orderer as consenter no more, it follows"
                    );
                    state.set_condition(Condition::Serving);
                    Arc::new(FollowerChain { onboarding: false })
                }
            };
            let channel = Arc::new(Channel::new(Arc::clone(&state), chain));
            self.insert(name, Entry::Open { channel, relation: runs, target: None });
        }
    }

    /// Fetches the first block of a channel that was joined by a later one. Whether it is the right one shows when the blocks lead to that
    /// later one.
    async fn fetch_first(self: &Arc<Self>, name: &str, target: &Target) {
        let pull = Pull {
            channel: target.bundle.channel().clone(),
            judge: self.judge.clone(),
            dialer: self.consenter.dialer.clone(),
            roots: orderer_roots(&target.bundle),
            waits: false,
        };
        let endpoints = others(&target.bundle, &self.consenter.own_certificate);
        let (blocks, mut fetched) = mpsc::channel(1);
        let first = async {
            while let Some(block) = fetched.recv().await {
                match join_block::check(&block) {
                    Ok(bundle) if bundle.channel().as_str() == name && block::number(&block).get() == 0 => {
                        return Some(block);
                    }
                    Ok(_) => warn!(channel = name, "another block than the channel's first was delivered"),
                    Err(reason) => warn!(channel = name, reason, "a first block is refused"),
                }
            }
            None
        };
        let block = tokio::select! {
            () = pull.rounds(&endpoints, || 0, 0, blocks) => None,
            block = first => block,
        };
        let begun = block.ok_or_else(|| "no orderer delivers it".to_owned()).and_then(|block| {
            let store = BlockStore::open(&self.folder.join(name).join("blocks"))
                .map_err(|error| with_causes(&error))?;
            store.append(&block).map_err(|error| with_causes(&error))?;
            drop(store);
            self.serve(name, Some(target.clone()))
        });
        if let Err(reason) = begun {
            error!(channel = name, reason, "the channel cannot be served");
            self.insert(name, Entry::Broken(reason));
        }
    }

    /// A channel that is being removed stays so, whatever its tasks still do.
    fn insert(&self, name: &str, entry: Entry) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if !matches!(entries.get(name), Some(Entry::Leaving { .. })) {
            entries.insert(name.to_owned(), entry);
        }
        drop(entries);
        self.configurations.send_replace(());
    }

    fn read<T>(&self, name: &str, read: impl FnOnce(&Entry) -> T) -> Option<T> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).get(name).map(read)
    }

    /// Renews whose TLS certificates count, now and whenever a configuration comes into force.
    pub(crate) fn follow_configurations(&self, trust: Arc<ClientTrust>, tasks: &Tasks) {
        let (mut changes, cancelled) = (self.configurations.subscribe(), tasks.cancelled());
        trust.renew();
        tasks.spawn("client trust", false, async move {
            loop {
                tokio::select! {
                    () = cancelled.cancelled() => return,
                    changed = changes.changed() => if changed.is_err() { return },
                }
                trust.renew();
            }
        });
    }

    /// The configurations in force.
    pub(crate) fn bundles(&self) -> Vec<Arc<ChannelBundle>> {
        self.names()
            .iter()
            .filter_map(|name| self.get(name))
            .map(|channel| channel.state().bundle())
            .collect()
    }

    /// The channel of that name, if its blocks are here.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Channel>> {
        self.read(name, |entry| match entry {
            Entry::Open { channel, .. } => Some(Arc::clone(channel)),
            Entry::Empty { .. } | Entry::Broken(_) | Entry::Leaving { .. } => None,
        })
        .flatten()
    }

    /// The names of all channels, those that cannot be served included.
    pub(crate) fn names(&self) -> Vec<String> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// What operators are told about a channel.
    pub(crate) fn describe(&self, name: &str) -> Option<Description> {
        let mut description = self.read(name, |entry| entry.describe(name))?;
        // What the configuration says now, even if the chain has not followed it yet.
        if description.status == Status::Active
            && let Some(channel) = self.get(name)
        {
            description.relation = self.relation(&channel.state().bundle());
        }
        Some(description)
    }

    /// Channels that somebody should look at, with the reason.
    pub(crate) fn faults(&self) -> Vec<String> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let fault = |(name, entry): (&String, &Entry)| Some(format!("{name}: {}", entry.fault()?));
        entries.iter().filter_map(fault).collect()
    }

    /// Waits until the chains of all channels have ended.
    pub(crate) async fn ended(&self) {
        for name in self.names() {
            if let Some(channel) = self.get(&name) {
                channel.state().ended().await;
            }
        }
    }
}

/// The block by which a channel was joined, if the blocks before it are not all here.
fn read_target(file: &Path) -> Result<Option<Target>, String> {
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{} cannot be read: {error}", file.display())),
    };
    let damaged = |reason: String| format!("{} is damaged: {reason}", file.display());
    let join = Block::decode(bytes.as_slice()).map_err(|error| damaged(error.to_string()))?;
    let bundle = join_block::check(&join).map_err(damaged)?;
    Ok(Target::new(&join, bundle, file.to_owned()))
}

impl deliver::Channels for Registrar {
    type Source = Channel;

    fn source(&self, channel: &str) -> Option<Arc<Channel>> {
        self.get(channel)
    }
}
