//! The configuration of one orderer process.

use std::path::PathBuf;

use consort_node::{
    config::{ClientAuth, HostOverrides, ListenConfig, TlsConfig},
    operations::OperationsConfig,
    telemetry::LogConfig,
};
use consort_protos::ids::MspId;
use serde::{Deserialize, Serialize};

/// Everything that `consort-orderer` needs to know. Unknown keys are refused.
///
/// Each key can be replaced by an environment variable: `CONSORT_ORDERER__LOG__FILTER` for `log.filter`.
/// `docs/config/orderer.example.yaml` shows all of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrdererConfig {
    /// Where clients, peers and other consenters connect (gRPC).
    pub listen: ListenConfig,
    /// TLS of that listener. Its certificate must be the one that channel configurations name for this consenter, as client and as
    /// server: the node shows it to other consenters, too.
    pub tls: TlsConfig,
    /// Where operators join and remove channels (REST).
    pub admin: AdminConfig,
    /// `/healthz`, `/metrics`, `/version`, `/logspec`. Default: not served.
    #[serde(default)]
    pub operations: Option<OperationsConfig>,
    /// Who this node is when it signs blocks.
    pub msp: LocalMspConfig,
    /// Folder of all channels' blocks and logs.
    pub data: PathBuf,
    /// Host names of other nodes that are reached at other addresses.
    #[serde(default)]
    pub host_overrides: HostOverrides,
    /// What is logged. Default: `info` as text.
    #[serde(default)]
    pub log: LogConfig,
}

/// The admin listener. It gives power over channels to whoever has a certificate of its roots, so TLS with client certificates is not optional.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// Address and port, for example `127.0.0.1:7053`.
    pub address: String,
    /// PEM file with the server certificate.
    pub cert: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
    /// PEM files with the roots of administrators' client certificates.
    pub client_roots: Vec<PathBuf>,
}

impl AdminConfig {
    /// The listener's TLS: client certificates are demanded.
    #[must_use]
    pub fn tls(&self) -> TlsConfig {
        TlsConfig {
            cert: self.cert.clone(),
            key: self.key.clone(),
            client_roots: self.client_roots.clone(),
            client_auth: ClientAuth::Required,
        }
    }
}

/// The node's own identity.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalMspConfig {
    /// The MSP's id, for example `OrdererMSP`.
    pub id: MspId,
    /// MSP folder: `signcerts` and `keystore`, and the own organisation's `cacerts`, `tlscacerts`, `crls`, `config.yaml`.
    pub folder: PathBuf,
}
