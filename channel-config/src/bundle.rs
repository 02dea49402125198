//! A channel's configuration, read, checked and ready to be asked: an immutable snapshot shared as `Arc`.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use consort_crypto::{hash::HashAlgorithm, key::KeyAlgorithm};
use consort_msp::{MspManager, policy::PolicyManager};
use consort_protos::{
    fabric::common::{
        BlockDataHashingStructure, Config, ConfigEnvelope, ConfigGroup, ConfigUpdateEnvelope, Consortium,
        Envelope, HashingAlgorithm, HeaderType, OrdererAddresses, Orderers,
    },
    ids::{ChannelId, MspId},
};

use crate::{
    ApplicationConfig, ConfigError, OrdererConfig, acl,
    capabilities::{Capabilities, Level},
    consensus, envelope, maintenance,
    names::{
        APPLICATION, BLOCK_DATA_HASHING_STRUCTURE, CAPABILITIES, CONSORTIUM, CONSORTIUMS, HASHING_ALGORITHM,
        ORDERER, ORDERER_ADDRESSES, ORDERERS,
    },
    transition,
    tree::{self, ConfigMap},
    update,
    values::{Organisations, allow, capabilities, value},
};

/// A channel's configuration. Never changes: a configuration block makes a new one.
pub struct ChannelBundle {
    channel: ChannelId,
    config: Config,
    elements: ConfigMap,
    capabilities: Capabilities,
    hash: HashAlgorithm,
    orderer_addresses: Vec<String>,
    orderer: OrdererConfig,
    application: ApplicationConfig,
    has_consortiums: bool,
    msps: Arc<MspManager>,
    policies: PolicyManager,
}

impl ChannelBundle {
    /// Reads and checks a configuration by itself: values, MSPs, policies, names. It must have an orderer and an application
    /// section.
    ///
    /// # Errors
    /// [`ConfigError`] with the first rule that it breaks.
    pub fn new(channel: ChannelId, config: Config) -> Result<Self, ConfigError> {
        Draft::read(channel, config)?.complete()
    }

    /// Reads the configuration that a block carries: a genesis block or a later configuration block.
    ///
    /// # Errors
    /// When the block is no configuration block, or its configuration is not acceptable.
    pub fn from_block(block: &consort_protos::fabric::common::Block) -> Result<Self, ConfigError> {
        let (channel, envelope) = envelope::config_of_block(block)?;
        let config = envelope
            .config
            .ok_or_else(|| ConfigError::Incomplete("channelconfig Config cannot be nil".to_owned()))?;
        Self::new(channel, config)
    }

    /// The channel.
    #[must_use]
    pub fn channel(&self) -> &ChannelId {
        &self.channel
    }

    /// How many updates led here.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.config.sequence
    }

    /// The configuration itself.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn elements(&self) -> &ConfigMap {
        &self.elements
    }

    /// The hash of blocks, transaction ids, proposals and private data. It never changes.
    #[must_use]
    pub fn hash_algorithm(&self) -> HashAlgorithm {
        self.hash
    }

    /// The MSPs of all organisations.
    #[must_use]
    pub fn msps(&self) -> &Arc<MspManager> {
        &self.msps
    }

    /// All policies.
    #[must_use]
    pub fn policies(&self) -> &PolicyManager {
        &self.policies
    }

    /// The channel's own capabilities.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The ordering service.
    #[must_use]
    pub fn orderer(&self) -> &OrdererConfig {
        &self.orderer
    }

    /// The peers' organisations and what they may do.
    #[must_use]
    pub fn application(&self) -> &ApplicationConfig {
        &self.application
    }

    /// Endpoints of all orderers: those of the organisations, or the global ones if no organisation lists any.
    #[must_use]
    pub fn orderer_endpoints(&self) -> Vec<(Option<MspId>, String)> {
        let of_organisations: Vec<_> = self
            .orderer
            .organisations
            .iter()
            .flat_map(|organisation| {
                organisation
                    .endpoints
                    .iter()
                    .map(|endpoint| (Some(organisation.msp_id.clone()), endpoint.clone()))
            })
            .collect();
        if of_organisations.is_empty() {
            return self.orderer_addresses.iter().map(|address| (None, address.clone())).collect();
        }
        of_organisations
    }

    /// TLS root and intermediate certificates of an organisation, in PEM; empty if the channel does not know it.
    #[must_use]
    pub fn tls_roots_of(&self, msp: &MspId) -> Vec<Bytes> {
        self.msps.msp(msp).map(|msp| [msp.tls_roots(), msp.tls_intermediates()].concat()).unwrap_or_default()
    }

    /// Path of the policy that guards a resource (`event/Block`): the channel's own entry, or the default. A resource that nobody
    /// knows needs the application's Admins.
    #[must_use]
    pub fn acl(&self, resource: &str) -> &str {
        self.application.acls.get(resource).map_or_else(|| acl::default(resource), String::as_str)
    }

    /// Whether a configuration has a consortiums section, which only system channels of old had.
    pub(crate) fn has_consortiums(&self) -> bool {
        self.has_consortiums
    }

    /// Whether peers understand what the channel demands of them; they look at the channel's and the application's capabilities.
    ///
    /// # Errors
    /// Names the capability.
    pub fn check_supported_by_peers(&self) -> Result<(), ConfigError> {
        self.capabilities.check_supported().map_err(ConfigError::Capabilities)?;
        self.application.capabilities.check_supported().map_err(ConfigError::Capabilities)
    }

    /// Whether orderers understand what the channel demands of them; they look at the channel's and the orderers' capabilities.
    ///
    /// # Errors
    /// Names the capability.
    pub fn check_supported_by_orderers(&self) -> Result<(), ConfigError> {
        supported_by_orderers(&self.capabilities, Some(&self.orderer)).map_err(ConfigError::Capabilities)
    }

    /// Whether the consenters are acceptable by themselves: Raft options, certificates under the orderers' TLS authorities, no
    /// certificate twice.
    ///
    /// # Errors
    /// The rule that is broken, in Fabric's words.
    pub fn check_consenters(&self) -> Result<(), ConfigError> {
        consensus::check(self).map_err(ConfigError::Consensus)
    }

    /// What an orderer does with an update that a client sent: authorises it, and checks the configuration that comes out by
    /// itself, against this one, and for its consenters.
    ///
    /// Answers the content of the CONFIG envelope that the orderer signs, and the bundle that will then hold.
    ///
    /// # Errors
    /// [`ConfigError`] with the first rule that is broken.
    pub fn propose(&self, update_envelope: &Envelope) -> Result<(ConfigEnvelope, Self), ConfigError> {
        let update = open_update(update_envelope)?;
        let draft = Draft::read(self.channel.clone(), update::authorize(self, &update)?)?;
        supported_by_orderers(&draft.capabilities, draft.orderer.as_ref())
            .map_err(ConfigError::Capabilities)?;
        transition::check(self, &draft)?;
        let next = draft.complete()?;
        maintenance::check(self, next.orderer(), &update).map_err(ConfigError::Maintenance)?;
        consensus::check_update(self, &next).map_err(ConfigError::Consensus)?;
        let config =
            ConfigEnvelope { config: Some(next.config.clone()), last_update: Some(update_envelope.clone()) };
        Ok((config, next))
    }

    /// What everybody does with a configuration that was ordered: authorises the update in it again and demands that it leads
    /// to exactly the configuration given. Consenters are not judged, as the orderers agreed on them.
    ///
    /// # Errors
    /// [`ConfigError`]: then the ordering service is not to be trusted, and the node must stop on this channel.
    pub fn apply(&self, proposed: &ConfigEnvelope) -> Result<Self, ConfigError> {
        let config = proposed
            .config
            .as_ref()
            .ok_or_else(|| ConfigError::Incomplete("channelconfig Config cannot be nil".to_owned()))?;
        if Some(config.sequence) != self.sequence().checked_add(1) {
            return Err(ConfigError::Sequence { current: self.sequence(), proposed: config.sequence });
        }
        let last_update = proposed.last_update.as_ref().ok_or_else(|| {
            ConfigError::Envelope("updated config does not include a config update".to_owned())
        })?;
        let result = update::authorize(self, &open_update(last_update)?)?;
        if result != *config {
            return Err(ConfigError::Mismatch);
        }
        let draft = Draft::read(self.channel.clone(), result)?;
        transition::check(self, &draft)?;
        draft.complete()
    }
}

fn supported_by_orderers(channel: &Capabilities, orderer: Option<&OrdererConfig>) -> Result<(), String> {
    let demanded = |level: &str, error: String| {
        // Fabric names the capability twice here, and tools look for its text.
        format!("config requires unsupported {level} capabilities: {error}: {error}")
    };
    channel.check_supported().map_err(|error| demanded("channel", error))?;
    match orderer {
        Some(orderer) => orderer.capabilities.check_supported().map_err(|error| demanded("orderer", error)),
        None => Ok(()),
    }
}

/// A configuration that is acceptable by itself, but may lack a section.
pub(crate) struct Draft {
    channel: ChannelId,
    config: Config,
    elements: ConfigMap,
    pub(crate) capabilities: Capabilities,
    pub(crate) hash: HashAlgorithm,
    orderer_addresses: Vec<String>,
    pub(crate) orderer: Option<OrdererConfig>,
    pub(crate) application: Option<ApplicationConfig>,
    pub(crate) has_consortiums: bool,
    msps: Arc<MspManager>,
    policies: PolicyManager,
}

impl Draft {
    fn read(channel: ChannelId, config: Config) -> Result<Self, ConfigError> {
        let root = config
            .channel_group
            .as_ref()
            .ok_or_else(|| ConfigError::Incomplete("config must contain a channel group".to_owned()))?;
        check_capability_order(root)?;
        let values = Values::read(root).map_err(ConfigError::Values)?;
        let msps = Arc::new(values.organisations.into_manager());
        let policies = PolicyManager::new(root, &msps)?;
        let elements = tree::map(Some(root)).map_err(ConfigError::Names)?;
        Ok(Self {
            channel,
            elements,
            capabilities: values.capabilities,
            hash: values.hash,
            orderer_addresses: values.orderer_addresses,
            orderer: values.orderer,
            application: values.application,
            has_consortiums: root.groups.contains_key(CONSORTIUMS),
            msps,
            policies,
            config,
        })
    }

    fn complete(self) -> Result<ChannelBundle, ConfigError> {
        let missing =
            |section: &str| ConfigError::Incomplete(format!("invalid config: must contain {section} config"));
        Ok(ChannelBundle {
            orderer: self.orderer.ok_or_else(|| missing("orderer"))?,
            application: self.application.ok_or_else(|| missing("application"))?,
            channel: self.channel,
            config: self.config,
            elements: self.elements,
            capabilities: self.capabilities,
            hash: self.hash,
            orderer_addresses: self.orderer_addresses,
            has_consortiums: self.has_consortiums,
            msps: self.msps,
            policies: self.policies,
        })
    }
}

fn open_update(envelope: &Envelope) -> Result<ConfigUpdateEnvelope, ConfigError> {
    envelope::content(envelope, HeaderType::ConfigUpdate)
        .map(|(_, update)| update)
        .map_err(ConfigError::Envelope)
}

/// A channel cannot demand anything of everybody before its orderers can be asked to understand it.
fn check_capability_order(root: &ConfigGroup) -> Result<(), ConfigError> {
    let has_capabilities = |group: &ConfigGroup| group.values.contains_key(CAPABILITIES);
    let Some(orderer) = root.groups.get(ORDERER) else { return Ok(()) };
    if has_capabilities(orderer) {
        return Ok(());
    }
    let refused = |level: &str| {
        Err(ConfigError::Incomplete(format!(
            "cannot enable {level} capabilities without orderer support first"
        )))
    };
    if has_capabilities(root) {
        return refused("channel");
    }
    if root.groups.get(APPLICATION).is_some_and(has_capabilities) {
        return refused("application");
    }
    Ok(())
}

/// What the tree's values say.
struct Values {
    capabilities: Capabilities,
    hash: HashAlgorithm,
    orderer_addresses: Vec<String>,
    orderer: Option<OrdererConfig>,
    application: Option<ApplicationConfig>,
    organisations: Organisations,
}

impl Values {
    fn read(root: &ConfigGroup) -> Result<Self, String> {
        allow(
            root,
            &[
                HASHING_ALGORITHM,
                BLOCK_DATA_HASHING_STRUCTURE,
                ORDERER_ADDRESSES,
                CONSORTIUM,
                CAPABILITIES,
                ORDERERS,
            ],
        )?;
        let capabilities = capabilities(root, Level::Channel)?;
        let addresses: OrdererAddresses = value(root, ORDERER_ADDRESSES)?.unwrap_or_default();
        let _: Option<Consortium> = value(root, CONSORTIUM)?;
        let _: Option<Orderers> = value(root, ORDERERS)?;
        let (hash, key_algorithms) = hashing(root)?;
        if !capabilities.organisation_endpoints() && addresses.addresses.is_empty() {
            return Err("Must set some OrdererAddresses".to_owned());
        }
        if capabilities.byzantine_consensus() && !addresses.addresses.is_empty() {
            return Err(
                "global OrdererAddresses are not allowed with V3_0 capability, use org specific addresses only"
                    .to_owned(),
            );
        }
        let mut organisations = Organisations::new(capabilities.msp_version());
        let mut orderer = None;
        let mut application = None;
        for (name, group) in &root.groups {
            let within = |error: String| format!("could not create channel {name} sub-group config: {error}");
            match name.as_str() {
                ORDERER => {
                    orderer =
                        Some(OrdererConfig::read(group, &capabilities, &mut organisations).map_err(within)?);
                }
                APPLICATION => {
                    application = Some(ApplicationConfig::read(group, &mut organisations).map_err(within)?);
                }
                CONSORTIUMS => {}
                _ => return Err(format!("Disallowed channel group: {name}")),
            }
        }
        if let (true, Some(orderer)) = (capabilities.byzantine_consensus(), &orderer) {
            check_endpoints(orderer)?;
        }
        organisations.check_key_algorithms(&key_algorithms)?;
        Ok(Self {
            capabilities,
            hash,
            orderer_addresses: addresses.addresses,
            orderer,
            application,
            organisations,
        })
    }
}

/// The channel's hash, and the only algorithms of keys that its members may allow (none: no restriction).
fn hashing(root: &ConfigGroup) -> Result<(HashAlgorithm, Vec<KeyAlgorithm>), String> {
    let algorithm: HashingAlgorithm = value(root, HASHING_ALGORITHM)?.unwrap_or_default();
    let hash = HashAlgorithm::from_channel_name(&algorithm.name)
        .ok_or_else(|| format!("Unknown hashing algorithm type: {}", algorithm.name))?;
    let keys = algorithm.key_algorithms.iter().map(|name| name.parse::<KeyAlgorithm>());
    let keys = keys.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    let structure: BlockDataHashingStructure = value(root, BLOCK_DATA_HASHING_STRUCTURE)?.unwrap_or_default();
    if structure.width != u32::MAX {
        return Err("BlockDataHashStructure width only supported at MaxUint32 in this version".to_owned());
    }
    Ok((hash, keys))
}

fn check_endpoints(orderer: &OrdererConfig) -> Result<(), String> {
    let silent: Vec<&str> = orderer
        .organisations
        .iter()
        .filter(|organisation| organisation.endpoints.is_empty())
        .map(|organisation| organisation.name.as_str())
        .collect();
    if silent.is_empty() {
        return Ok(());
    }
    Err(format!("some orderer organizations endpoints are empty: [{}]", silent.join(" ")))
}

impl fmt::Debug for ChannelBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChannelBundle({} at {})", self.channel, self.config.sequence)
    }
}
