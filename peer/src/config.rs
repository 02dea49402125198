//! The configuration of a peer process, one typed struct, read once at start.
//!
//! Sources in rising order: the defaults here, the YAML file, environment variables `CONSORT_PEER__<KEY>` (nested keys
//! joined by `__`). Unknown keys are refused. Relative paths are relative to the folder of the file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use consort_node::config::{HostOverrides, ListenConfig, TlsConfig};
use consort_node::operations::OperationsConfig;
use consort_node::telemetry::LogConfig;
use serde::Deserialize;

/// Prefix of the environment variables that override the file.
pub const ENVIRONMENT_PREFIX: &str = "CONSORT_PEER";

/// Everything that a peer is told from outside.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// The peer's name in logs and metrics, usually its host name: `peer0.org1.example.com`.
    pub id: String,
    /// `host:port` under which other peers and applications reach this peer. The host must be in the TLS certificate.
    pub endpoint: String,
    /// Who the peer is.
    pub msp: LocalMspConfig,
    /// Folder of ledgers, installed chaincodes and caches. It is made when it does not exist.
    pub data_dir: PathBuf,
    /// Where the gRPC services listen.
    pub listen: ListenConfig,
    /// Certificate and key of the gRPC listener, also shown as client to orderers and other peers.
    pub tls: TlsConfig,
    /// Where `/healthz`, `/metrics`, `/version` and `/logspec` are served; without TLS bind it to a local address.
    pub operations: OperationsConfig,
    /// Log filter and format.
    #[serde(default)]
    pub log: LogConfig,
    /// Addresses for host names (`host` or `host:port` to `address:port`), instead of a hosts file. The TLS server name
    /// stays the host name. Empty by default.
    #[serde(default)]
    pub host_overrides: HostOverrides,
    /// Replacements of orderer endpoints that the channel configuration names. Empty by default.
    #[serde(default)]
    pub orderer_overrides: Vec<OrdererOverride>,
    /// The gateway's time limits.
    #[serde(default)]
    pub gateway: GatewayConfig,
    /// What the endorser accepts.
    #[serde(default)]
    pub endorser: EndorserConfig,
    /// Limits of a chaincode's run.
    #[serde(default)]
    pub chaincode: ChaincodeConfig,
    /// How blocks are fetched.
    #[serde(default)]
    pub deliver: DeliverConfig,
    /// How peers get to know each other.
    #[serde(default)]
    pub membership: MembershipConfig,
    /// What the peer does for sealed data.
    #[serde(default)]
    pub sealed: SealedConfig,
    /// How private data goes between peers.
    #[serde(default)]
    pub private_data: PrivateDataConfig,
    /// How signatures are verified.
    #[serde(default)]
    pub verification: VerificationConfig,
}

/// The local MSP.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalMspConfig {
    /// MSP id of the peer's organisation: `Org1MSP`.
    pub id: String,
    /// MSP folder in Fabric's layout, with `signcerts` and `keystore`.
    pub dir: PathBuf,
}

/// One orderer endpoint to be replaced.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrdererOverride {
    /// `host:port` as the channel configuration names it.
    pub from: String,
    /// `host:port` to be used instead.
    pub to: String,
    /// PEM file of TLS roots for it; by default those of the channel configuration.
    #[serde(default)]
    pub tls_roots: Option<PathBuf>,
}

/// The gateway's time limits.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Limit for one call to one endorser, in milliseconds. 30 s, as in Fabric's sample configuration: longer than any
    /// sensible chaincode, shorter than a user's patience.
    pub endorsement_timeout_ms: u64,
    /// Limit for handing one transaction to the ordering service, in milliseconds. 30 s, as above.
    pub broadcast_timeout_ms: u64,
    /// How long a submit goes on asking while no orderer can take the transaction, in milliseconds. 4 s: orderers that
    /// lost their leader elect another one in less, and Fabric's clients give a submit 5 s.
    pub orderer_wait_ms: u64,
    /// Limit for connecting to another node, in milliseconds. 3 s: a node that takes longer is treated as down.
    pub dial_timeout_ms: u64,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            endorsement_timeout_ms: 30_000,
            broadcast_timeout_ms: 30_000,
            orderer_wait_ms: 4_000,
            dial_timeout_ms: 3_000,
        }
    }
}

impl GatewayConfig {
    /// Limit for one call to one endorser.
    #[must_use]
    pub fn endorsement_timeout(&self) -> Duration {
        Duration::from_millis(self.endorsement_timeout_ms)
    }

    /// Limit for handing one transaction to the ordering service.
    #[must_use]
    pub fn broadcast_timeout(&self) -> Duration {
        Duration::from_millis(self.broadcast_timeout_ms)
    }

    /// How long a submit goes on asking while no orderer can take the transaction.
    #[must_use]
    pub fn orderer_wait(&self) -> Duration {
        Duration::from_millis(self.orderer_wait_ms)
    }
}

/// What the endorser accepts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EndorserConfig {
    /// Largest difference between a proposal's timestamp and the peer's clock, in seconds. 15 min, as in Fabric: it
    /// bounds how long a recorded proposal can be used again.
    pub time_window_s: u64,
}

impl Default for EndorserConfig {
    fn default() -> Self {
        Self { time_window_s: 900 }
    }
}

/// What this peer gives a chaincode's run at most. The limits that hold on the channel are those of the chaincode's definition; a run
/// that would need more than this peer gives fails here, as this peer's failure, and may succeed on another one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChaincodeConfig {
    /// Fuel of one invocation: instructions, and calls of the ledger by number and bytes. 20 000 million, about what the wall-clock
    /// limit allows; ten times what definitions grant that choose nothing.
    pub fuel_max: u64,
    /// Largest linear memory of one instance, in bytes. 1 GiB, four times what definitions grant that choose nothing.
    pub memory_max_bytes: u64,
    /// Wall-clock limit of one invocation including its reads, in milliseconds. 30 s.
    pub execute_timeout_ms: u64,
    /// Instances at one time over all chaincodes; further invocations wait. 64.
    pub instances_max: u32,
    /// Largest chaincode package, in bytes. 64 MiB.
    pub package_max_bytes: u64,
}

impl Default for ChaincodeConfig {
    fn default() -> Self {
        Self {
            fuel_max: 20_000_000_000,
            memory_max_bytes: 1 << 30,
            execute_timeout_ms: 30_000,
            instances_max: 64,
            package_max_bytes: 64 << 20,
        }
    }
}

/// How blocks are fetched from orderers and peers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeliverConfig {
    /// First pause after every orderer failed once, in milliseconds; it doubles with jitter. 100 ms.
    pub reconnect_first_ms: u64,
    /// Longest pause, in milliseconds. 2 s: an orderer that comes back is found within it.
    pub reconnect_max_ms: u64,
    /// Limit for connecting and for the first answer, in milliseconds. 1.5 s, so that a dead orderer costs less than
    /// the two seconds in which another one must have taken over.
    pub connect_timeout_ms: u64,
    /// How long a node that delivered a wrong block is left out, in milliseconds. 5 min.
    pub avoid_ms: u64,
    /// How long peers of the organisation may be ahead while no block comes in, in milliseconds; then another source is
    /// tried. 1.5 s, so that blocks come again within two seconds.
    pub stall_ms: u64,
    /// Which sources come first: `orderers`, and peers of the own organisation when no orderer answers; or `peers`, which
    /// spares the orderers where an organisation has many. Orderers by default.
    pub prefer: Preferred,
}

/// The preferred sources of blocks.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Preferred {
    /// Orderers, then peers of the own organisation.
    #[default]
    Orderers,
    /// Peers of the own organisation, then orderers.
    Peers,
}

impl Default for DeliverConfig {
    fn default() -> Self {
        Self {
            reconnect_first_ms: 100,
            reconnect_max_ms: 2_000,
            connect_timeout_ms: 1_500,
            avoid_ms: 300_000,
            stall_ms: 1_500,
            prefer: Preferred::Orderers,
        }
    }
}

/// How peers get to know each other.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MembershipConfig {
    /// `host:port` of peers to ask first, in addition to the anchor peers of each channel. Empty by default.
    pub bootstrap_peers: Vec<String>,
    /// Pause between two exchanges, in milliseconds. 2 s: heights and chaincodes that others see are at most that old. While no
    /// block comes in, a third of `expiry_ms`, if that is longer.
    pub interval_ms: u64,
    /// Age at which a silent peer is forgotten, in milliseconds. 15 s: seven missed exchanges, three at rest.
    pub expiry_ms: u64,
    /// At every so many blocks a peer with a BLS key signs where its books stand, and adds up what others sign; the same for
    /// all peers of a channel, 0 for never. 100: a busy channel is attested every few seconds, and a signature is a matter of a
    /// millisecond.
    pub attest_every_blocks: u64,
}

impl Default for MembershipConfig {
    fn default() -> Self {
        Self { bootstrap_peers: Vec::new(), interval_ms: 2_000, expiry_ms: 15_000, attest_every_blocks: 100 }
    }
}

/// What the peer does for sealed data. Every peer validates it; proxies also hold shares.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SealedConfig {
    /// Whether the peer is a proxy: it takes shares of grants, answers committed requests, and erases shares when their grants end.
    /// Its keys and the shares lie in `sealed` of the data folder. Off by default.
    pub proxy: bool,
}

/// How private data goes between peers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrivateDataConfig {
    /// How long a member's peer may take to acknowledge what an endorsement hands it, in milliseconds. 3 s, as in Fabric.
    pub push_timeout_ms: u64,
    /// How long a commit waits for missing private data, in milliseconds; 0 never waits. 2 s: data that exists comes in a fraction of it, and
    /// what does not come is searched for after the commit.
    pub fetch_at_commit_ms: u64,
    /// How long a commit waits for missing private data of invalid transactions, which is kept for readers of their blocks alone, in
    /// milliseconds; 0 leaves it to the search (Fabric's `skipPullingInvalidTransactionsDuringCommit`). 250 ms: enough to ask everybody once,
    /// and little for those to gain who send transactions without endorsements.
    pub fetch_invalid_at_commit_ms: u64,
    /// First pause between two searches for what is missing, in milliseconds; it doubles as long as nothing comes. 1 s.
    pub search_first_ms: u64,
    /// Longest pause, in milliseconds. 1 min; a peer that appears is asked within a second all the same.
    pub search_max_ms: u64,
    /// Other peers of the organisation that must have the data of its implicit collections before this one endorses. 0.
    pub implicit_required_peers: usize,
    /// Other peers of the organisation that get the data of its implicit collections. 1.
    pub implicit_max_peers: usize,
}

impl Default for PrivateDataConfig {
    fn default() -> Self {
        Self {
            push_timeout_ms: 3_000,
            fetch_at_commit_ms: 2_000,
            fetch_invalid_at_commit_ms: 250,
            search_first_ms: 1_000,
            search_max_ms: 60_000,
            implicit_required_peers: 0,
            implicit_max_peers: 1,
        }
    }
}

/// How signatures are verified.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VerificationConfig {
    /// Memory for the tables of signers that are seen again and again, in bytes. 64 MiB: a thousand clients and some hundred
    /// endorsers and orderers. With 0 every signature is verified with the library, which takes three to four times as long.
    pub signer_tables_bytes: usize,
}

impl Default for VerificationConfig {
    fn default() -> Self {
        Self { signer_tables_bytes: 64 << 20 }
    }
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file or the environment.
    #[error("the configuration cannot be read")]
    Read(#[source] consort_node::config::ConfigError),
    /// A value that parses but cannot work.
    #[error("configuration key `{key}`: {reason}")]
    Value {
        /// Dotted key.
        key: &'static str,
        /// What is wrong and what is expected.
        reason: String,
    },
}

impl PeerConfig {
    /// Reads and checks a configuration file; relative paths become relative to the file's folder.
    ///
    /// # Errors
    /// [`LoadError`], naming key and (for the file's syntax) line.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let mut config: Self =
            consort_node::config::load(path, ENVIRONMENT_PREFIX).map_err(LoadError::Read)?;
        config.resolve(path.parent().unwrap_or(Path::new(".")));
        config.check()?;
        Ok(config)
    }

    fn resolve(&mut self, base: &Path) {
        self.msp.dir = base.join(&self.msp.dir);
        self.data_dir = base.join(&self.data_dir);
        resolve_tls(&mut self.tls, base);
        if let Some(tls) = &mut self.operations.tls {
            resolve_tls(tls, base);
        }
        for replacement in &mut self.orderer_overrides {
            replacement.tls_roots = replacement.tls_roots.take().map(|path| base.join(path));
        }
    }

    fn check(&self) -> Result<(), LoadError> {
        endpoint("endpoint", &self.endpoint)?;
        for peer in &self.membership.bootstrap_peers {
            endpoint("membership.bootstrap_peers", peer)?;
        }
        for replacement in &self.orderer_overrides {
            endpoint("orderer_overrides.from", &replacement.from)?;
            endpoint("orderer_overrides.to", &replacement.to)?;
        }
        if self.id.is_empty() {
            return Err(LoadError::Value { key: "id", reason: "must not be empty".to_owned() });
        }
        let positive = [
            ("gateway.endorsement_timeout_ms", self.gateway.endorsement_timeout_ms),
            ("gateway.broadcast_timeout_ms", self.gateway.broadcast_timeout_ms),
            ("gateway.dial_timeout_ms", self.gateway.dial_timeout_ms),
            ("deliver.reconnect_first_ms", self.deliver.reconnect_first_ms),
            ("deliver.reconnect_max_ms", self.deliver.reconnect_max_ms),
            ("deliver.connect_timeout_ms", self.deliver.connect_timeout_ms),
            ("deliver.stall_ms", self.deliver.stall_ms),
            ("membership.interval_ms", self.membership.interval_ms),
            ("chaincode.execute_timeout_ms", self.chaincode.execute_timeout_ms),
            ("private_data.push_timeout_ms", self.private_data.push_timeout_ms),
            ("private_data.search_first_ms", self.private_data.search_first_ms),
        ];
        for (key, value) in positive {
            if value == 0 {
                return Err(LoadError::Value { key, reason: "must be at least 1".to_owned() });
            }
        }
        if self.private_data.search_max_ms < self.private_data.search_first_ms {
            return Err(LoadError::Value {
                key: "private_data.search_max_ms",
                reason: "must be at least private_data.search_first_ms".to_owned(),
            });
        }
        if self.private_data.implicit_max_peers < self.private_data.implicit_required_peers {
            return Err(LoadError::Value {
                key: "private_data.implicit_max_peers",
                reason: "must be at least private_data.implicit_required_peers".to_owned(),
            });
        }
        if self.membership.expiry_ms <= self.membership.interval_ms {
            return Err(LoadError::Value {
                key: "membership.expiry_ms",
                reason: "must be larger than membership.interval_ms".to_owned(),
            });
        }
        Ok(())
    }
}

fn resolve_tls(tls: &mut TlsConfig, base: &Path) {
    tls.cert = base.join(&tls.cert);
    tls.key = base.join(&tls.key);
    for root in &mut tls.client_roots {
        *root = base.join(&*root);
    }
}

fn endpoint(key: &'static str, value: &str) -> Result<(), LoadError> {
    let well_formed = value
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0));
    if well_formed {
        return Ok(());
    }
    Err(LoadError::Value {
        key,
        reason: format!("`{value}` is not host:port, such as peer0.org1.example.com:7051"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_in_the_docs_is_accepted() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/config/peer.example.yaml");
        let config = PeerConfig::load(&path).expect("the example loads");
        assert_eq!(config.endpoint, "peer0.org1.example.com:7051");
        assert!(config.msp.dir.ends_with("docs/config/msp"));
    }

    #[test]
    fn an_endpoint_without_port_is_refused_by_key() {
        let error = endpoint("endpoint", "peer0.org1.example.com").expect_err("no port");
        assert!(error.to_string().contains("`endpoint`"), "{error}");
    }
}
