//! A channel described by people: what a genesis block is made of.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use consort_crypto::{hash::HashAlgorithm, key::KeyAlgorithm, pem};
use consort_msp::{FolderError, folder};
use consort_protos::{fabric::msp::FabricMspConfig, ids::MspId};
use serde::Deserialize;

/// A channel to be. Everything that is not said has Fabric's usual value.
///
/// Read from YAML with [`Profile::load`], or filled in code.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What everybody must understand; `V2_0` unless said otherwise.
    #[serde(default = "v2_0")]
    pub capabilities: Vec<String>,
    /// The hash of the channel: `sha256` (Fabric's, unless said otherwise) or `sm3`.
    #[serde(default)]
    pub hashing: HashAlgorithm,
    /// The only algorithms of keys that members may have (`sm2` and so on); none is no restriction.
    #[serde(default)]
    pub key_algorithms: Vec<KeyAlgorithm>,
    /// Policies of the channel, beside or instead of the usual `Readers`, `Writers` and `Admins`.
    #[serde(default)]
    pub policies: Policies,
    /// The ordering service.
    pub orderer: OrdererProfile,
    /// The organisations that run peers.
    pub application: ApplicationProfile,
}

/// Policies by name. `ANY Readers`, `ALL …`, `MAJORITY …` are implicit meta policies; everything else is a signature policy
/// such as `OR('Org1MSP.admin')`.
pub type Policies = BTreeMap<String, String>;

/// The ordering service of a channel.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrdererProfile {
    /// What orderers must understand; `V2_0` unless said otherwise.
    #[serde(default = "v2_0")]
    pub capabilities: Vec<String>,
    /// When a block is cut.
    #[serde(default)]
    pub batch: BatchProfile,
    /// Raft's timing and limits.
    #[serde(default)]
    pub raft: RaftProfile,
    /// How many channels may exist; 0 is no limit.
    #[serde(default)]
    pub channels_max: u64,
    /// The members of the Raft cluster; the order gives their ids.
    pub consenters: Vec<ConsenterProfile>,
    /// The organisations that run orderers.
    pub organisations: Vec<OrganisationProfile>,
    /// Policies beside or instead of the usual `Readers`, `Writers`, `Admins` and `BlockValidation`.
    #[serde(default)]
    pub policies: Policies,
}

/// When a block is cut.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchProfile {
    /// Messages in a block.
    pub max_message_count: u32,
    /// Bytes that no message may exceed.
    pub absolute_max_bytes: u32,
    /// Bytes at which a block is cut.
    pub preferred_max_bytes: u32,
    /// How long the first message of a block may wait, as Go writes durations (`2s`, `200ms`).
    pub timeout: String,
}

impl Default for BatchProfile {
    /// The values of Fabric's configtxgen.
    fn default() -> Self {
        Self {
            max_message_count: 500,
            absolute_max_bytes: 10 * 1024 * 1024,
            preferred_max_bytes: 2 * 1024 * 1024,
            timeout: "2s".to_owned(),
        }
    }
}

/// Raft's timing and limits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RaftProfile {
    /// Length of a tick, as Go writes durations.
    pub tick_interval: String,
    /// Ticks without a leader before an election.
    pub election_tick: u32,
    /// Ticks between heartbeats.
    pub heartbeat_tick: u32,
    /// Blocks proposed and not yet applied.
    pub max_inflight_blocks: u32,
    /// Bytes of blocks between snapshots.
    pub snapshot_interval_bytes: u32,
}

impl Default for RaftProfile {
    /// The values of Fabric's configtxgen.
    fn default() -> Self {
        Self {
            tick_interval: "500ms".to_owned(),
            election_tick: 10,
            heartbeat_tick: 1,
            max_inflight_blocks: 5,
            snapshot_interval_bytes: 16 * 1024 * 1024,
        }
    }
}

/// A member of the Raft cluster.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsenterProfile {
    /// Host name, as in its certificate.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Certificate that it connects with.
    pub client_tls_cert: PemSource,
    /// Certificate that it serves with.
    pub server_tls_cert: PemSource,
}

/// The application part of a channel.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplicationProfile {
    /// What peers must understand; `V2_5` unless said otherwise.
    #[serde(default = "v2_5")]
    pub capabilities: Vec<String>,
    /// The organisations that run peers.
    pub organisations: Vec<OrganisationProfile>,
    /// Policies beside or instead of the usual `Readers`, `Writers`, `Admins`, `Endorsement` and `LifecycleEndorsement`.
    #[serde(default)]
    pub policies: Policies,
    /// Access rules beside the defaults: resource to policy path.
    #[serde(default)]
    pub acls: BTreeMap<String, String>,
}

/// An organisation. Which of its parts count depends on whether it runs orderers or peers; one that does both stands in both
/// lists.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrganisationProfile {
    /// Name of its group in the configuration; often the MSP id.
    pub name: String,
    /// Its MSP id.
    pub msp_id: MspId,
    /// Its MSP: a folder.
    pub msp: MspSource,
    /// Policies beside or instead of the usual ones (peers' organisations: `Readers`, `Writers`, `Admins`, `Endorsement`;
    /// orderers': `Readers`, `Writers`, `Admins`).
    #[serde(default)]
    pub policies: Policies,
    /// Its orderers, `host:port`.
    #[serde(default)]
    pub orderer_endpoints: Vec<String>,
    /// Where other organisations' peers find it.
    #[serde(default)]
    pub anchor_peers: Vec<AnchorPeerProfile>,
}

/// A peer that others may ask first.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorPeerProfile {
    /// Host name.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Where an MSP's configuration comes from.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "PathBuf")]
pub enum MspSource {
    /// A folder in the usual layout.
    Folder(PathBuf),
    /// The configuration itself.
    Config(Box<FabricMspConfig>),
}

impl From<PathBuf> for MspSource {
    fn from(path: PathBuf) -> Self {
        Self::Folder(path)
    }
}

impl From<FabricMspConfig> for MspSource {
    fn from(config: FabricMspConfig) -> Self {
        Self::Config(Box::new(config))
    }
}

impl MspSource {
    pub(crate) fn read(&self, id: &MspId) -> Result<FabricMspConfig, ProfileError> {
        match self {
            Self::Folder(path) => folder::load_config(path, id).map_err(ProfileError::Msp),
            Self::Config(config) => Ok(config.as_ref().clone()),
        }
    }
}

/// Where a certificate comes from.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "PathBuf")]
pub enum PemSource {
    /// A file.
    File(PathBuf),
    /// Its content.
    Pem(Bytes),
}

impl From<PathBuf> for PemSource {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl PemSource {
    /// The certificate alone: a server's file may have its issuers behind it.
    pub(crate) fn read(&self) -> Result<Bytes, ProfileError> {
        match self {
            Self::File(path) => {
                let text = std::fs::read(path)
                    .map_err(|source| ProfileError::Unreadable { path: path.clone(), source })?;
                let blocks: Vec<pem::Block> = pem::blocks(&text).take(2).collect();
                Ok(match blocks.as_slice() {
                    [first, _behind] => pem::encode(&first.label, &first.contents).into(),
                    _ => text.into(),
                })
            }
            Self::Pem(pem) => Ok(pem.clone()),
        }
    }
}

/// A profile cannot be made into a genesis block.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The profile is no valid YAML of its form.
    #[error("{path}: {reason}", path = path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// With line and column.
        reason: String,
    },
    /// An organisation's MSP cannot be used.
    #[error("{0}")]
    Msp(FolderError),
    /// A policy's text is wrong.
    #[error("{place}: policy {name}: {reason}")]
    Policy {
        /// The group it stands in.
        place: String,
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Two organisations of one section have the same name.
    #[error("{section} lists organisation {name} twice")]
    Twice {
        /// `orderer` or `application`.
        section: &'static str,
        /// The name.
        name: String,
    },
    /// The configuration would be refused by every node.
    #[error("the profile does not give a valid channel: {0}")]
    Config(#[from] crate::ConfigError),
}

impl Profile {
    /// Reads a profile from a YAML file; paths in it are relative to the file's folder.
    ///
    /// # Errors
    /// [`ProfileError`], with line and column where the file is wrong.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ProfileError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ProfileError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Reads a profile from the text of the file at `path`; paths in it are relative to the file's folder.
    ///
    /// # Errors
    /// [`ProfileError`], with line and column where the text is wrong.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ProfileError> {
        let mut profile: Self = serde_saphyr::from_str(text)
            .map_err(|error| ProfileError::Yaml { path: path.to_owned(), reason: error.to_string() })?;
        profile.resolve(path.parent().unwrap_or(Path::new("")));
        Ok(profile)
    }

    /// Makes relative paths start at `base`.
    pub fn resolve(&mut self, base: &Path) {
        let organisations = self.orderer.organisations.iter_mut().chain(&mut self.application.organisations);
        for organisation in organisations {
            if let MspSource::Folder(path) = &mut organisation.msp {
                *path = base.join(&path);
            }
        }
        for consenter in &mut self.orderer.consenters {
            for source in [&mut consenter.client_tls_cert, &mut consenter.server_tls_cert] {
                if let PemSource::File(path) = source {
                    *path = base.join(&path);
                }
            }
        }
    }
}

fn v2_0() -> Vec<String> {
    vec!["V2_0".to_owned()]
}

fn v2_5() -> Vec<String> {
    vec!["V2_5".to_owned()]
}
