//! The ordering service's part of a configuration.

use std::time::Duration;

use bytes::Bytes;
use consort_protos::{
    fabric::{
        common::{ConfigGroup, OrdererAddresses, Orderers},
        etcdraft::ConfigMetadata,
        orderer::{BatchSize, BatchTimeout, ChannelRestrictions, ConsensusType, consensus_type::State},
    },
    ids::MspId,
};
use prost::Message;

use crate::{
    capabilities::{Capabilities, Level},
    duration,
    names::{
        BATCH_SIZE, BATCH_TIMEOUT, CAPABILITIES, CHANNEL_RESTRICTIONS, CONSENSUS_TYPE, ENDPOINTS,
        KAFKA_BROKERS, MSP, ORDERERS,
    },
    values::{Organisations, allow, capabilities, value},
};

/// Raft consensus, by its name in configurations.
pub const ETCDRAFT: &str = "etcdraft";

/// Snapshots are taken after this many bytes when the configuration says 0 (Fabric `orderer/consensus/etcdraft`).
const DEFAULT_SNAPSHOT_INTERVAL_BYTES: u32 = 16 * 1024 * 1024;

/// What the orderer group says.
#[derive(Debug, Clone)]
pub struct OrdererConfig {
    /// When a block is cut.
    pub batch: BatchConfig,
    /// `etcdraft` or another name; not checked before consenters are.
    pub consensus_type: String,
    /// The consensus type's own bytes, as configured.
    pub consensus_metadata: Bytes,
    /// Raft consenters in list order; empty if the type is another or the metadata does not parse.
    pub consenters: Vec<Consenter>,
    /// Raft's timing; `None` as for the consenters, or if it is absent or malformed.
    pub raft_options: Option<RaftOptions>,
    /// Consenters of a Byzantine channel, as configured.
    pub byzantine_consenters: Orderers,
    /// The organisations that run orderers, by group name.
    pub organisations: Vec<OrdererOrganisation>,
    /// Normal or maintenance.
    pub state: ConsensusState,
    /// How many channels may exist; 0 is no limit. Kept as configured.
    pub channels_max: u64,
    /// What orderers must understand.
    pub capabilities: Capabilities,
}

/// Limits of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchConfig {
    /// Messages.
    pub max_message_count: u32,
    /// Bytes that no message may exceed (payload and signature).
    pub absolute_max_bytes: u32,
    /// Bytes at which a block is cut.
    pub preferred_max_bytes: u32,
    /// How long the first message of a block may wait.
    pub timeout: Duration,
}

/// A member of the Raft cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consenter {
    /// Host name, as in its certificate.
    pub host: String,
    /// Port.
    pub port: u32,
    /// Certificate that it connects with, in PEM.
    pub client_tls_cert: Bytes,
    /// Certificate that it serves with, in PEM.
    pub server_tls_cert: Bytes,
}

impl Consenter {
    /// `host:port`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// Raft's timing and limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaftOptions {
    /// Length of a tick.
    pub tick_interval: Duration,
    /// Ticks without a leader before an election.
    pub election_tick: u32,
    /// Ticks between heartbeats.
    pub heartbeat_tick: u32,
    /// Blocks proposed and not yet applied.
    pub max_inflight_blocks: u32,
    /// Bytes of blocks between snapshots.
    pub snapshot_interval_bytes: u32,
}

/// An organisation that runs orderers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrdererOrganisation {
    /// Name of its group.
    pub name: String,
    /// Its MSP.
    pub msp_id: MspId,
    /// Its orderers, `host:port`.
    pub endpoints: Vec<String>,
}

/// Whether the channel serves transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsensusState {
    /// It does.
    Normal,
    /// Only configuration is taken, so that the consensus type can change.
    Maintenance,
}

impl OrdererConfig {
    /// Reads the group; organisations' MSPs are added to `organisations`.
    pub(crate) fn read(
        group: &ConfigGroup,
        channel: &Capabilities,
        organisations: &mut Organisations,
    ) -> Result<Self, String> {
        allow(
            group,
            &[
                CONSENSUS_TYPE,
                BATCH_SIZE,
                BATCH_TIMEOUT,
                CHANNEL_RESTRICTIONS,
                CAPABILITIES,
                KAFKA_BROKERS,
                ORDERERS,
            ],
        )?;
        let consensus: ConsensusType = value(group, CONSENSUS_TYPE)?.unwrap_or_default();
        let restrictions: ChannelRestrictions = value(group, CHANNEL_RESTRICTIONS)?.unwrap_or_default();
        let capabilities = capabilities(group, Level::Orderer)?;
        let byzantine_consenters: Orderers = value(group, ORDERERS)?.unwrap_or_default();
        let batch = read_batch(group)?;
        let metadata = (consensus.r#type == ETCDRAFT)
            .then(|| ConfigMetadata::decode(consensus.metadata.as_ref()).ok())
            .flatten()
            .unwrap_or_default();
        let mut members = Vec::new();
        for (name, organisation) in &group.groups {
            members.push(read_organisation(name, organisation, channel, organisations)?);
        }
        Ok(Self {
            batch,
            consenters: metadata.consenters.iter().map(consenter).collect(),
            raft_options: raft_options(&metadata),
            byzantine_consenters,
            organisations: members,
            state: if consensus.state() == State::Maintenance {
                ConsensusState::Maintenance
            } else {
                ConsensusState::Normal
            },
            consensus_type: consensus.r#type,
            consensus_metadata: consensus.metadata,
            channels_max: restrictions.max_count,
            capabilities,
        })
    }
}

fn read_batch(group: &ConfigGroup) -> Result<BatchConfig, String> {
    let size: BatchSize = value(group, BATCH_SIZE)?.unwrap_or_default();
    let timeout: BatchTimeout = value(group, BATCH_TIMEOUT)?.unwrap_or_default();
    for (name, number) in [
        ("max message count", size.max_message_count),
        ("absolute max bytes", size.absolute_max_bytes),
        ("preferred max bytes", size.preferred_max_bytes),
    ] {
        if number == 0 {
            return Err(format!("Attempted to set the batch size {name} to an invalid value: 0"));
        }
    }
    if size.preferred_max_bytes > size.absolute_max_bytes {
        return Err(format!(
            "Attempted to set the batch size preferred max bytes ({}) greater than the absolute max bytes ({}).",
            size.preferred_max_bytes, size.absolute_max_bytes
        ));
    }
    let (negative, duration) = duration::parse(&timeout.timeout)
        .map_err(|error| format!("Attempted to set the batch timeout to a invalid value: {error}"))?;
    if negative || duration.is_zero() {
        let sign = if negative { "-" } else { "" };
        return Err(format!(
            "Attempted to set the batch timeout to a non-positive value: {sign}{}",
            duration::format(duration)
        ));
    }
    Ok(BatchConfig {
        max_message_count: size.max_message_count,
        absolute_max_bytes: size.absolute_max_bytes,
        preferred_max_bytes: size.preferred_max_bytes,
        timeout: duration,
    })
}

fn read_organisation(
    name: &str,
    group: &ConfigGroup,
    channel: &Capabilities,
    organisations: &mut Organisations,
) -> Result<OrdererOrganisation, String> {
    if !group.groups.is_empty() {
        return Err("OrdererOrg config does not allow sub-groups".to_owned());
    }
    if group.values.contains_key(ENDPOINTS) && !channel.organisation_endpoints() {
        return Err(format!(
            "Orderer Org {name} cannot contain endpoints value until V1_4_2+ capabilities have been enabled"
        ));
    }
    allow(group, &[MSP, ENDPOINTS])?;
    let endpoints: OrdererAddresses = value(group, ENDPOINTS)?.unwrap_or_default();
    let msp_id = organisations.add(name, group)?;
    Ok(OrdererOrganisation { name: name.to_owned(), msp_id, endpoints: endpoints.addresses })
}

fn consenter(message: &consort_protos::fabric::etcdraft::Consenter) -> Consenter {
    Consenter {
        host: message.host.clone(),
        port: message.port,
        client_tls_cert: message.client_tls_cert.clone(),
        server_tls_cert: message.server_tls_cert.clone(),
    }
}

fn raft_options(metadata: &ConfigMetadata) -> Option<RaftOptions> {
    let options = metadata.options.as_ref()?;
    let (negative, tick_interval) = duration::parse(&options.tick_interval).ok()?;
    let snapshot_interval_bytes = match options.snapshot_interval_size {
        0 => DEFAULT_SNAPSHOT_INTERVAL_BYTES,
        size => size,
    };
    (!negative).then_some(RaftOptions {
        tick_interval,
        election_tick: options.election_tick,
        heartbeat_tick: options.heartbeat_tick,
        max_inflight_blocks: options.max_inflight_blocks,
        snapshot_interval_bytes,
    })
}
