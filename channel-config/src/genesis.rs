//! From a profile to the first block of a channel.
//!
//! Source: Fabric `internal/configtxgen` (tree) and `common/genesis` (block).

use std::collections::BTreeMap;

use bytes::Bytes;
use consort_crypto::hash::HashAlgorithm;
use consort_msp::policy;
use consort_protos::{
    fabric::{
        common::{
            Block, BlockData, BlockDataHashingStructure, BlockHeader, BlockMetadata, Config, ConfigEnvelope,
            ConfigGroup, ConfigPolicy, ConfigValue, HashingAlgorithm, LastConfig, Metadata, OrdererAddresses,
            OrdererBlockMetadata, Policy, policy::PolicyType,
        },
        etcdraft::{ConfigMetadata, Consenter, Options},
        msp::MspConfig,
        orderer::{BatchSize, BatchTimeout, ChannelRestrictions, ConsensusType},
        protos::{AcLs, AnchorPeer, AnchorPeers, ApiResource},
    },
    ids::{ChannelId, MspId},
};
use prost::Message;
use time::OffsetDateTime;

use crate::{
    ChannelBundle, ConfigError, ETCDRAFT, duration, envelope,
    names::{
        ACLS, ADMINS, ANCHOR_PEERS, APPLICATION, BATCH_SIZE, BATCH_TIMEOUT, BLOCK_DATA_HASHING_STRUCTURE,
        CAPABILITIES, CHANNEL_RESTRICTIONS, CONSENSUS_TYPE, ENDPOINTS, HASHING_ALGORITHM, MSP, ORDERER,
    },
    profile::{OrdererProfile, OrganisationProfile, Policies, Profile, ProfileError},
};

/// Entries of a block's metadata (Fabric `common/common.proto`, `BlockMetadataIndex`).
const METADATA_ENTRIES: usize = 5;

impl Profile {
    /// The channel's first configuration, in Fabric's tree.
    ///
    /// # Errors
    /// [`ProfileError`] when files cannot be read or policies do not parse. Whether the configuration as a whole is acceptable is
    /// checked by [`Profile::genesis_block`].
    pub fn config(&self) -> Result<Config, ProfileError> {
        let mut root = group_with_policies("Channel", &usual_policies(), &self.policies)?;
        let hashing = HashingAlgorithm {
            name: self.hashing.channel_name().to_owned(),
            key_algorithms: self.key_algorithms.iter().map(ToString::to_string).collect(),
        };
        root.values.insert(HASHING_ALGORITHM.to_owned(), value(&hashing));
        root.values.insert(
            BLOCK_DATA_HASHING_STRUCTURE.to_owned(),
            value(&BlockDataHashingStructure { width: u32::MAX }),
        );
        root.values.insert(CAPABILITIES.to_owned(), capabilities(&self.capabilities));
        root.groups.insert(ORDERER.to_owned(), orderer(&self.orderer)?);
        root.groups.insert(APPLICATION.to_owned(), application(self)?);
        Ok(Config { sequence: 0, channel_group: Some(root) })
    }

    /// The channel's first block. `nonce` makes it unique (24 random bytes are usual); of `created_at` only whole seconds
    /// count.
    ///
    /// # Errors
    /// [`ProfileError`]; also when any node would refuse the configuration.
    pub fn genesis_block(
        &self,
        channel: &ChannelId,
        nonce: [u8; 24],
        created_at: OffsetDateTime,
    ) -> Result<Block, ProfileError> {
        let config = self.config()?;
        let bundle = ChannelBundle::new(channel.clone(), config.clone())?;
        bundle.check_supported_by_orderers()?;
        bundle.check_supported_by_peers()?;
        bundle.check_consenters()?;
        let content = ConfigEnvelope { config: Some(config), last_update: None };
        let envelope =
            envelope::genesis(channel, &content, &nonce, created_at.unix_timestamp(), self.hashing);
        Ok(block(envelope.encode_to_vec().into(), self.hashing))
    }
}

/// Block 0 around an envelope.
fn block(envelope: Bytes, hash: HashAlgorithm) -> Block {
    let data = BlockData { data: vec![envelope] };
    let header = BlockHeader {
        number: 0,
        previous_hash: Bytes::new(),
        data_hash: Bytes::copy_from_slice(&hash.block_data_hash(&data)),
    };
    let orderer_metadata = OrdererBlockMetadata {
        last_config: Some(LastConfig { index: 0 }),
        ..OrdererBlockMetadata::default()
    };
    let signatures = Metadata { value: orderer_metadata.encode_to_vec().into(), signatures: Vec::new() };
    let mut metadata = vec![Bytes::new(); METADATA_ENTRIES];
    metadata[0] = signatures.encode_to_vec().into();
    Block { header: Some(header), data: Some(data), metadata: Some(BlockMetadata { metadata }) }
}

impl ChannelBundle {
    /// Checks a block that a node is asked to join a channel with, and reads it: a configuration block whose data is intact, and
    /// whose configuration the orderers here can serve.
    ///
    /// # Errors
    /// The rule that is broken, in Fabric's words (`orderer/common/channelparticipation`).
    pub fn for_joining(block: &Block) -> Result<Self, ConfigError> {
        let wrong = |text: &str| Err(ConfigError::Block(text.to_owned()));
        let bundle = Self::from_block(block)?;
        if block.metadata.as_ref().is_none_or(|metadata| metadata.metadata.is_empty()) {
            return wrong("invalid block: does not have metadata");
        }
        let (Some(header), Some(data)) = (&block.header, &block.data) else {
            return wrong("invalid block: does not have header and data");
        };
        if header.data_hash.as_ref() != bundle.hash_algorithm().block_data_hash(data).as_slice() {
            return wrong("invalid block: Header.DataHash is different from Hash(block.Data)");
        }
        if bundle.has_consortiums() {
            return wrong("invalid config: contains consortiums: system channel not supported");
        }
        bundle.check_supported_by_orderers()?;
        bundle.check_consenters().map_err(|error| match error {
            ConfigError::Consensus(reason) => ConfigError::Block(format!(
                "failed to determine cluster membership from join-block: failed to validate config metadata of ordering config: {reason}"
            )),
            error => error,
        })?;
        Ok(bundle)
    }
}

fn orderer(profile: &OrdererProfile) -> Result<ConfigGroup, ProfileError> {
    let mut usual = usual_policies();
    usual.insert("BlockValidation".to_owned(), "ANY Writers".to_owned());
    let mut group = group_with_policies("Orderer", &usual, &profile.policies)?;
    let mut consenters = Vec::with_capacity(profile.consenters.len());
    for consenter in &profile.consenters {
        consenters.push(Consenter {
            host: consenter.host.clone(),
            port: u32::from(consenter.port),
            client_tls_cert: consenter.client_tls_cert.read()?,
            server_tls_cert: consenter.server_tls_cert.read()?,
        });
    }
    let options = Options {
        tick_interval: as_go_prints(&profile.raft.tick_interval),
        election_tick: profile.raft.election_tick,
        heartbeat_tick: profile.raft.heartbeat_tick,
        max_inflight_blocks: profile.raft.max_inflight_blocks,
        snapshot_interval_size: profile.raft.snapshot_interval_bytes,
    };
    let metadata = ConfigMetadata { consenters, options: Some(options) };
    let consensus = ConsensusType {
        r#type: ETCDRAFT.to_owned(),
        metadata: metadata.encode_to_vec().into(),
        ..ConsensusType::default()
    };
    let batch = BatchSize {
        max_message_count: profile.batch.max_message_count,
        absolute_max_bytes: profile.batch.absolute_max_bytes,
        preferred_max_bytes: profile.batch.preferred_max_bytes,
    };
    let timeout = BatchTimeout { timeout: as_go_prints(&profile.batch.timeout) };
    group.values.insert(CONSENSUS_TYPE.to_owned(), value(&consensus));
    group.values.insert(BATCH_SIZE.to_owned(), value(&batch));
    group.values.insert(BATCH_TIMEOUT.to_owned(), value(&timeout));
    group.values.insert(
        CHANNEL_RESTRICTIONS.to_owned(),
        value(&ChannelRestrictions { max_count: profile.channels_max }),
    );
    group.values.insert(CAPABILITIES.to_owned(), capabilities(&profile.capabilities));
    for organisation in &profile.organisations {
        let mut member =
            organisation_group("Orderer", organisation, &orderer_policies(&organisation.msp_id))?;
        if !organisation.orderer_endpoints.is_empty() {
            let endpoints = OrdererAddresses { addresses: organisation.orderer_endpoints.clone() };
            member.values.insert(ENDPOINTS.to_owned(), value(&endpoints));
        }
        if group.groups.insert(organisation.name.clone(), member).is_some() {
            return Err(ProfileError::Twice { section: "orderer", name: organisation.name.clone() });
        }
    }
    Ok(group)
}

fn application(profile: &Profile) -> Result<ConfigGroup, ProfileError> {
    let profile = &profile.application;
    let mut usual = usual_policies();
    usual.insert("Endorsement".to_owned(), "MAJORITY Endorsement".to_owned());
    usual.insert("LifecycleEndorsement".to_owned(), "MAJORITY Endorsement".to_owned());
    let mut group = group_with_policies("Application", &usual, &profile.policies)?;
    group.values.insert(CAPABILITIES.to_owned(), capabilities(&profile.capabilities));
    if !profile.acls.is_empty() {
        let resource = |reference: &String| ApiResource { policy_ref: reference.clone() };
        let acls = profile.acls.iter().map(|(name, reference)| (name.clone(), resource(reference))).collect();
        group.values.insert(ACLS.to_owned(), value(&AcLs { acls }));
    }
    for organisation in &profile.organisations {
        let mut member =
            organisation_group("Application", organisation, &peer_policies(&organisation.msp_id))?;
        if !organisation.anchor_peers.is_empty() {
            let anchor = |peer: &crate::profile::AnchorPeerProfile| AnchorPeer {
                host: peer.host.clone(),
                port: i32::from(peer.port),
            };
            let anchors =
                AnchorPeers { anchor_peers: organisation.anchor_peers.iter().map(anchor).collect() };
            member.values.insert(ANCHOR_PEERS.to_owned(), value(&anchors));
        }
        if group.groups.insert(organisation.name.clone(), member).is_some() {
            return Err(ProfileError::Twice { section: "application", name: organisation.name.clone() });
        }
    }
    Ok(group)
}

pub(crate) fn organisation_group(
    section: &str,
    organisation: &OrganisationProfile,
    usual: &Policies,
) -> Result<ConfigGroup, ProfileError> {
    let place = format!("{section}/{}", organisation.name);
    let mut group = group_with_policies(&place, usual, &organisation.policies)?;
    let config = organisation.msp.read(&organisation.msp_id)?;
    let config = MspConfig { r#type: 0, config: config.encode_to_vec().into() };
    group.values.insert(MSP.to_owned(), value(&config));
    Ok(group)
}

/// A group governed by its Admins, with the usual policies and those that the profile adds or replaces.
fn group_with_policies(place: &str, usual: &Policies, own: &Policies) -> Result<ConfigGroup, ProfileError> {
    let mut texts = usual.clone();
    texts.extend(own.iter().map(|(name, text)| (name.clone(), text.clone())));
    let mut group = ConfigGroup { mod_policy: ADMINS.to_owned(), ..ConfigGroup::default() };
    for (name, text) in texts {
        let policy = policy_message(&text).map_err(|reason| ProfileError::Policy {
            place: place.to_owned(),
            name: name.clone(),
            reason,
        })?;
        let entry = ConfigPolicy { version: 0, policy: Some(policy), mod_policy: ADMINS.to_owned() };
        group.policies.insert(name, entry);
    }
    Ok(group)
}

/// A policy from its text; the first word tells the kinds apart.
pub(crate) fn policy_message(text: &str) -> Result<Policy, String> {
    let first = text.split(' ').next().unwrap_or_default();
    if !text.contains('(') && ["ANY", "ALL", "MAJORITY"].iter().any(|rule| first.eq_ignore_ascii_case(rule)) {
        let policy = policy::implicit::parse(text)
            .map_err(|error| format!("invalid implicit meta policy rule '{text}': {error}"))?;
        return Ok(Policy { r#type: PolicyType::ImplicitMeta.into(), value: policy.encode_to_vec().into() });
    }
    let policy =
        policy::parse(text).map_err(|error| format!("invalid signature policy rule '{text}': {error}"))?;
    Ok(Policy { r#type: PolicyType::Signature.into(), value: policy.encode_to_vec().into() })
}

fn usual_policies() -> Policies {
    texts(&[("Readers", "ANY Readers"), ("Writers", "ANY Writers"), ("Admins", "MAJORITY Admins")])
}

pub(crate) fn peer_policies(id: &MspId) -> Policies {
    texts(&[
        ("Readers", &format!("OR('{id}.admin', '{id}.peer', '{id}.client')")),
        ("Writers", &format!("OR('{id}.admin', '{id}.client')")),
        ("Admins", &format!("OR('{id}.admin')")),
        ("Endorsement", &format!("OR('{id}.peer')")),
    ])
}

pub(crate) fn orderer_policies(id: &MspId) -> Policies {
    texts(&[
        ("Readers", &format!("OR('{id}.member')")),
        ("Writers", &format!("OR('{id}.member')")),
        ("Admins", &format!("OR('{id}.admin')")),
    ])
}

fn texts(policies: &[(&str, &str)]) -> Policies {
    policies.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect::<BTreeMap<_, _>>()
}

/// A duration in the form in which Go prints it; what does not parse stays, and is refused when the configuration is checked.
pub(crate) fn as_go_prints(text: &str) -> String {
    match duration::parse(text) {
        Ok((false, duration)) => duration::format(duration),
        _ => text.to_owned(),
    }
}

fn value<M: Message>(message: &M) -> ConfigValue {
    ConfigValue { version: 0, value: message.encode_to_vec().into(), mod_policy: ADMINS.to_owned() }
}

/// Capabilities in the very bytes that Fabric's tools write: each entry carries its empty value, which prost would leave
/// out. Tools that decode and encode again then see no difference.
pub(crate) fn capabilities(names: &[String]) -> ConfigValue {
    const ENTRY: u8 = 0x0a;
    const KEY: u8 = 0x0a;
    const EMPTY_VALUE: [u8; 2] = [0x12, 0];
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort();
    sorted.dedup();
    let mut bytes = Vec::new();
    for name in sorted {
        let mut entry = vec![KEY];
        entry.extend(length_delimited(name.as_bytes()));
        entry.extend(EMPTY_VALUE);
        bytes.push(ENTRY);
        bytes.extend(length_delimited(&entry));
    }
    ConfigValue { version: 0, value: bytes.into(), mod_policy: ADMINS.to_owned() }
}

/// Content behind its length as a varint.
fn length_delimited(content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(content.len() + 2);
    prost::encoding::encode_varint(content.len() as u64, &mut bytes);
    bytes.extend_from_slice(content);
    bytes
}
