//! A network as its `network.yaml` describes it: organisations, nodes, ports, the channel, the chaincodes.
//!
//! [`Topology::load`] reads the file and reports every fault at once, each with its line. A [`Topology`] that exists is
//! therefore consistent: names are unique and well formed, no two processes share a port, references resolve.

mod claims;
mod document;
mod faults;
mod fingerprint;
mod names;
mod read;
mod section;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use consort_crypto::{hash::HashAlgorithm, key::KeyAlgorithm};
use serde::{Deserialize, Serialize};

use faults::Faults;
pub(crate) use fingerprint::Fingerprint;
pub(crate) use read::load_configuration;

/// The file that a configuration folder must hold.
pub(crate) const FILE_NAME: &str = "network.yaml";

/// Largest topology file that is read, in bytes; thousand-node networks stay far below.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A checked network description.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Topology {
    /// Name of the network, also of its default data folder.
    pub(crate) name: String,
    /// Addresses of hosts that are not on 127.0.0.1.
    pub(crate) hosts: BTreeMap<String, IpAddr>,
    /// Organisations that run peers.
    pub(crate) organisations: Vec<Organisation>,
    /// Organisations that run orderers.
    pub(crate) orderer_organisations: Vec<OrdererOrganisation>,
    /// The channel that all nodes join; of a channel that others run only what its members' nodes must know.
    pub(crate) channel: ChannelSpec,
    /// Chaincodes to deploy when the network comes up.
    pub(crate) chaincodes: Vec<ChaincodeSpec>,
    /// The configuration block of a channel that others run, when this is a new organisation's part of a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) joins: Option<PathBuf>,
}

/// What every organisation has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Name of the organisation, its group name in the channel configuration.
    pub(crate) name: String,
    /// MSP id.
    pub(crate) msp_id: String,
    /// Domain; names the credentials folder and the users (`User1@<domain>`).
    pub(crate) domain: String,
    /// Its certificate authority.
    pub(crate) authority: Authority,
    /// The root authority above it, when it is an intermediate one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root_authority: Option<Authority>,
    /// Users besides `Admin`.
    pub(crate) users: Vec<String>,
    /// What keys its authority and its identities have. TLS is always P-256.
    #[serde(default)]
    pub(crate) key_algorithm: KeyAlgorithm,
}

impl Member {
    /// Name of the authority that issues TLS certificates, which are on P-256 whatever the identities' keys: the
    /// organisation's own, or a second one of the same server.
    pub(crate) fn tls_authority(&self) -> String {
        self.tls_authority_of(&self.authority)
    }

    /// The same of one of its servers.
    pub(crate) fn tls_authority_of(&self, authority: &Authority) -> String {
        match self.key_algorithm {
            KeyAlgorithm::P256 => authority.name.clone(),
            _ => format!("{}-tls", authority.name),
        }
    }

    /// Its authorities' servers, the root's first.
    pub(crate) fn authorities(&self) -> impl Iterator<Item = &Authority> {
        self.root_authority.iter().chain(std::iter::once(&self.authority))
    }
}

/// An organisation that runs peers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Organisation {
    pub(crate) member: Member,
    pub(crate) peers: Vec<Peer>,
}

/// An organisation that runs orderers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OrdererOrganisation {
    pub(crate) member: Member,
    pub(crate) orderers: Vec<Orderer>,
}

/// A certificate authority.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Authority {
    /// CA name as Fabric CA clients give it; also the process name.
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// A peer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) operations_port: u16,
    /// Named in the channel configuration, so that peers of other organisations find it.
    pub(crate) anchor: bool,
    /// Re-encrypts sealed data for readers.
    #[serde(default)]
    pub(crate) sealed_proxy: bool,
}

/// An orderer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Orderer {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) admin_port: u16,
    pub(crate) operations_port: u16,
}

/// The channel of the network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ChannelSpec {
    pub(crate) name: String,
    pub(crate) batch: Batch,
    pub(crate) raft: Raft,
    pub(crate) capabilities: Capabilities,
    /// Blocks between two heights at which peers with BLS keys attest their books; the peers' own default if absent.
    #[serde(default)]
    pub(crate) attest_every_blocks: Option<u64>,
    /// The hash of blocks, transaction ids, proposals and private data.
    #[serde(default)]
    pub(crate) hashing: HashAlgorithm,
    /// The only algorithms that keys of members may have; none is no restriction.
    #[serde(default)]
    pub(crate) key_algorithms: Vec<KeyAlgorithm>,
    /// Rules that replace the defaults, by path: `Application/Endorsement: "ANY Endorsement"`.
    pub(crate) policies: BTreeMap<String, String>,
    /// Access rules: resource to policy path.
    pub(crate) acls: BTreeMap<String, String>,
}

/// When a block is cut.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Batch {
    pub(crate) max_message_count: u32,
    pub(crate) absolute_max_bytes: u32,
    pub(crate) preferred_max_bytes: u32,
    pub(crate) timeout: Duration,
}

impl Default for Batch {
    /// The values of Fabric's test network.
    fn default() -> Self {
        Self {
            max_message_count: 10,
            absolute_max_bytes: 99 * 1024 * 1024,
            preferred_max_bytes: 512 * 1024,
            timeout: Duration::from_secs(2),
        }
    }
}

/// Settings of the consensus protocol.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Raft {
    pub(crate) tick_interval: Duration,
    pub(crate) election_tick: u32,
    pub(crate) heartbeat_tick: u32,
    pub(crate) max_inflight_blocks: u32,
    pub(crate) snapshot_interval_bytes: u32,
}

impl Default for Raft {
    /// Fabric's defaults (sampleconfig/configtx.yaml, EtcdRaft options).
    fn default() -> Self {
        Self {
            tick_interval: Duration::from_millis(500),
            election_tick: 10,
            heartbeat_tick: 1,
            max_inflight_blocks: 5,
            snapshot_interval_bytes: 16 * 1024 * 1024,
        }
    }
}

/// Capability switches of the channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Capabilities {
    pub(crate) channel: String,
    pub(crate) orderer: String,
    pub(crate) application: String,
    /// The channel keeps a table of identities, and transactions name signers by its numbers.
    #[serde(default)]
    pub(crate) registered_identities: bool,
    /// The channel has sealed data.
    #[serde(default)]
    pub(crate) sealed_data: bool,
    /// Registered identities endorse together, with one signature; peers have BLS keys.
    #[serde(default)]
    pub(crate) aggregated_endorsements: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            channel: "V2_0".to_owned(),
            orderer: "V2_0".to_owned(),
            application: "V2_5".to_owned(),
            registered_identities: false,
            sealed_data: false,
            aggregated_endorsements: false,
        }
    }
}

/// A chaincode to deploy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ChaincodeSpec {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) source: ChaincodeSource,
    /// Signature policy text, or the path of a channel policy when it starts with `/`; the channel's default when absent.
    pub(crate) endorsement_policy: Option<String>,
    pub(crate) init_required: bool,
    pub(crate) collections: Vec<Collection>,
}

/// Where a chaincode comes from; paths are absolute or relative to the current folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum ChaincodeSource {
    /// A Rust crate to build.
    Crate(PathBuf),
    /// A chaincode package (`.tar.gz`).
    Package(PathBuf),
}

/// A private data collection of a chaincode.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Collection {
    pub(crate) name: String,
    /// Who the members are, as a signature policy.
    pub(crate) policy: String,
    pub(crate) required_peers: u32,
    pub(crate) max_peers: u32,
    /// Blocks after which the data is purged; 0 keeps it for ever.
    pub(crate) block_to_live: u64,
    pub(crate) member_only_read: bool,
    pub(crate) member_only_write: bool,
    /// Whether values are hashed with a salt that outsiders cannot guess.
    #[serde(default)]
    pub(crate) salted_hashes: bool,
    pub(crate) endorsement_policy: Option<String>,
}

/// A topology together with what is doubtful about it.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) topology: Topology,
    pub(crate) warnings: Vec<String>,
}

/// Reads the text of a topology file at `file` as `consort network up` does, and returns what is doubtful in it.
///
/// # Errors
/// Everything that is wrong with it, a line each.
pub fn check(text: &str, file: &Path) -> Result<Vec<String>, String> {
    Topology::parse(text, file).map(|loaded| loaded.warnings).map_err(|faults| faults.to_string())
}

impl Topology {
    /// Reads `network.yaml` from a configuration folder (or the file itself).
    ///
    /// # Errors
    /// The file cannot be read, or [`faults::InvalidTopology`] with everything that is wrong with it.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Loaded> {
        let file = if path.is_dir() { path.join(FILE_NAME) } else { path.to_owned() };
        let size = std::fs::metadata(&file)
            .with_context(|| {
                format!("no topology at {} (expected a folder that holds {FILE_NAME})", file.display())
            })?
            .len();
        anyhow::ensure!(size <= FILE_BYTES_MAX, "{} is larger than {FILE_BYTES_MAX} bytes", file.display());
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(Self::parse(&text, &file)?)
    }

    fn parse(text: &str, file: &Path) -> Result<Loaded, faults::InvalidTopology> {
        let mut faults = Faults::default();
        let folder = file.parent().unwrap_or(Path::new("."));
        let topology =
            document::parse(text, &mut faults).and_then(|root| read::topology(&root, folder, &mut faults));
        let warnings = faults.into_result(file.to_owned())?;
        let topology = topology.expect("invariant: a topology that could not be read has left a fault");
        Ok(Loaded { topology, warnings })
    }

    /// The address at which a host of this network listens.
    pub(crate) fn address(&self, host: &str, port: u16) -> SocketAddr {
        let ip = self.hosts.get(host).copied().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        SocketAddr::new(ip, port)
    }

    /// Every configured host with its address, as the nodes' override tables need it.
    pub(crate) fn host_overrides(&self) -> BTreeMap<String, String> {
        let address = |host: &String| (host.clone(), self.address(host, 0).ip().to_string());
        let own = self.own_hosts().into_iter().map(address);
        own.chain(self.hosts.iter().map(|(host, ip)| (host.clone(), ip.to_string()))).collect()
    }

    /// The hosts of this network's own processes.
    pub(crate) fn own_hosts(&self) -> Vec<&String> {
        let authorities = self.members().flat_map(Member::authorities).map(|authority| &authority.host);
        let peers = self.peers().map(|(_, peer)| &peer.host);
        let orderers = self.orderers().map(|(_, orderer)| &orderer.host);
        authorities.chain(peers).chain(orderers).collect()
    }

    /// All organisations, peers' first.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        let peers = self.organisations.iter().map(|organisation| &organisation.member);
        peers.chain(self.orderer_organisations.iter().map(|organisation| &organisation.member))
    }

    /// All peers with their organisation.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (&Organisation, &Peer)> {
        self.organisations
            .iter()
            .flat_map(|organisation| organisation.peers.iter().map(move |peer| (organisation, peer)))
    }

    /// All orderers with their organisation.
    pub(crate) fn orderers(&self) -> impl Iterator<Item = (&OrdererOrganisation, &Orderer)> {
        self.orderer_organisations
            .iter()
            .flat_map(|organisation| organisation.orderers.iter().map(move |orderer| (organisation, orderer)))
    }
}

#[cfg(test)]
mod tests;
