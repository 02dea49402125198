//! A change to a channel described by people: what an update is computed from.
//!
//! Only what is named changes; everything else stays as it is, versions and all. The result is a configuration to compare
//! with the present one ([`crate::update::compute`]).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use consort_crypto::revocation::RevocationList;
use consort_protos::fabric::{
    common::{Capabilities, Config, ConfigGroup, ConfigPolicy, ConfigValue, OrdererAddresses},
    etcdraft::{ConfigMetadata, Consenter},
    msp::{FabricMspConfig, MspConfig},
    orderer::{BatchSize, BatchTimeout, ConsensusType, consensus_type::State},
    protos::{AcLs, AnchorPeer, AnchorPeers, ApiResource},
};
use prost::Message;
use serde::Deserialize;

use crate::{
    ETCDRAFT,
    capabilities::Level,
    genesis::{
        as_go_prints, capabilities, orderer_policies, organisation_group, peer_policies, policy_message,
    },
    names::{
        ACLS, ADMINS, ANCHOR_PEERS, APPLICATION, BATCH_SIZE, BATCH_TIMEOUT, CAPABILITIES, CONSENSUS_TYPE,
        ENDPOINTS, MSP, ORDERER,
    },
    profile::{AnchorPeerProfile, ConsenterProfile, MspSource, OrganisationProfile, PemSource, ProfileError},
};

/// Changes to a channel. Every part may be left out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Change {
    /// The organisations that run peers.
    pub organisations: Members<OrganisationProfile>,
    /// The organisations that run orderers.
    pub orderer_organisations: Members<OrganisationProfile>,
    /// The members of the Raft cluster.
    pub consenters: Members<ConsenterProfile>,
    /// Where other organisations' peers find an organisation, in place of what is there: organisation to peers.
    pub anchor_peers: BTreeMap<String, Vec<AnchorPeerProfile>>,
    /// Where an organisation's orderers are, in place of what is there: organisation to `host:port`.
    pub orderer_endpoints: BTreeMap<String, Vec<String>>,
    /// When a block is cut; what is left out stays.
    pub batch: BatchChange,
    /// Whether only configurations are ordered; a change into or out of maintenance changes nothing else.
    pub maintenance: Option<bool>,
    /// Capabilities to switch on; those that are on stay.
    pub capabilities: CapabilityChange,
    /// Policies to add or replace, by path: `Application/Endorsement: ANY Endorsement`.
    pub policies: BTreeMap<String, String>,
    /// Access rules to add or replace: resource to policy path. An empty path goes back to the default.
    pub acls: BTreeMap<String, String>,
    /// Certificate revocation lists (PEM files) to publish, by organisation; an older list of the same issuer is replaced.
    pub revocation_lists: BTreeMap<String, Vec<PathBuf>>,
}

/// Members that come and go.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Members<T> {
    /// Those that join.
    pub add: Vec<T>,
    /// Names of those that leave; consenters by `host:port`.
    pub remove: Vec<String>,
}

impl<T> Default for Members<T> {
    fn default() -> Self {
        Self { add: Vec::new(), remove: Vec::new() }
    }
}

/// When a block is cut.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchChange {
    /// Messages in a block.
    pub max_message_count: Option<u32>,
    /// Bytes that no message may exceed.
    pub absolute_max_bytes: Option<u32>,
    /// Bytes at which a block is cut.
    pub preferred_max_bytes: Option<u32>,
    /// How long the first message of a block may wait, as Go writes durations (`2s`, `200ms`).
    pub timeout: Option<String>,
}

/// Capabilities to switch on. None is ever switched off: blocks that were judged by it have to be judged so again.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CapabilityChange {
    /// Those that every node must understand.
    pub channel: Vec<String>,
    /// Those that orderers must understand.
    pub orderer: Vec<String>,
    /// Those that peers must understand.
    pub application: Vec<String>,
}

/// A change cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The file is no valid YAML of its form, or a file that it names cannot be used.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The configuration has no such part.
    #[error("the channel has no {what} {name} (known are: {known})")]
    Unknown {
        /// `organisation`, `consenter` ...
        what: &'static str,
        /// What was named.
        name: String,
        /// What there is.
        known: String,
    },
    /// No version of a node that this program knows understands it.
    #[error("{level} capability {name} is not supported (known are: {known})")]
    Capability {
        /// `Channel`, `Orderer` or `Application`.
        level: &'static str,
        /// What was named.
        name: String,
        /// What there is.
        known: String,
    },
    /// What should be added is there.
    #[error("the channel has {what} {name} already")]
    Exists {
        /// `organisation`, `consenter` ...
        what: &'static str,
        /// What was named.
        name: String,
    },
    /// A policy path or text is wrong.
    #[error("policy {path}: {reason}")]
    Policy {
        /// The path as given.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A revocation list is none.
    #[error("{path} is no certificate revocation list in PEM: {reason}", path = path.display())]
    RevocationList {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The present configuration cannot be read.
    #[error("the present configuration has no readable {0}")]
    Configuration(&'static str),
}

impl Change {
    /// Reads a change from YAML; paths in it are relative to the file's folder.
    ///
    /// # Errors
    /// With line and column where the file is wrong.
    pub fn load(path: &Path) -> Result<Self, ChangeError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ProfileError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Reads a change from the text of the file at `path`; paths in it are relative to the file's folder.
    ///
    /// # Errors
    /// With line and column where the text is wrong.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ChangeError> {
        let mut change: Self = serde_saphyr::from_str(text)
            .map_err(|error| ProfileError::Yaml { path: path.to_owned(), reason: error.to_string() })?;
        change.resolve(path.parent().unwrap_or(Path::new("")));
        Ok(change)
    }

    fn resolve(&mut self, base: &Path) {
        for organisation in self.organisations.add.iter_mut().chain(&mut self.orderer_organisations.add) {
            if let MspSource::Folder(path) = &mut organisation.msp {
                *path = base.join(&path);
            }
        }
        for consenter in &mut self.consenters.add {
            for source in [&mut consenter.client_tls_cert, &mut consenter.server_tls_cert] {
                if let PemSource::File(path) = source {
                    *path = base.join(&path);
                }
            }
        }
        for path in self.revocation_lists.values_mut().flatten() {
            *path = base.join(&path);
        }
    }

    /// The configuration as it would be.
    ///
    /// # Errors
    /// The first part that does not fit the present one.
    pub fn apply(&self, config: &Config) -> Result<Config, ChangeError> {
        let mut config = config.clone();
        let root = config.channel_group.as_mut().ok_or(ChangeError::Configuration("channel group"))?;
        {
            let application = child(root, APPLICATION)?;
            change_organisations(application, &self.organisations, |organisation| {
                let usual = peer_policies(&organisation.msp_id);
                let mut group = organisation_group(APPLICATION, organisation, &usual)?;
                if !organisation.anchor_peers.is_empty() {
                    put(&mut group, ANCHOR_PEERS, &anchors(&organisation.anchor_peers));
                }
                Ok(group)
            })?;
            for (name, peers) in &self.anchor_peers {
                put(organisation(application, name)?, ANCHOR_PEERS, &anchors(peers));
            }
            self.change_acls(application)?;
        }
        let orderer = child(root, ORDERER)?;
        change_organisations(orderer, &self.orderer_organisations, |organisation| {
            let mut group =
                organisation_group(ORDERER, organisation, &orderer_policies(&organisation.msp_id))?;
            if !organisation.orderer_endpoints.is_empty() {
                let addresses = organisation.orderer_endpoints.clone();
                put(&mut group, ENDPOINTS, &OrdererAddresses { addresses });
            }
            Ok(group)
        })?;
        for (name, addresses) in &self.orderer_endpoints {
            let addresses = OrdererAddresses { addresses: addresses.clone() };
            put(organisation(orderer, name)?, ENDPOINTS, &addresses);
        }
        self.change_batch(orderer)?;
        self.switch_on(root)?;
        let orderer = child(root, ORDERER)?;
        self.change_consenters(orderer)?;
        self.change_maintenance(orderer)?;
        self.publish_revocations(root)?;
        for (path, text) in &self.policies {
            change_policy(root, path, text)?;
        }
        Ok(config)
    }

    fn change_acls(&self, application: &mut ConfigGroup) -> Result<(), ChangeError> {
        if self.acls.is_empty() {
            return Ok(());
        }
        let mut acls: AcLs = present(application, ACLS, "ACLs")?.unwrap_or_default();
        for (resource, path) in &self.acls {
            if path.is_empty() {
                acls.acls.remove(resource);
            } else {
                acls.acls.insert(resource.clone(), ApiResource { policy_ref: path.clone() });
            }
        }
        put(application, ACLS, &acls);
        Ok(())
    }

    fn change_batch(&self, orderer: &mut ConfigGroup) -> Result<(), ChangeError> {
        let batch = &self.batch;
        let mut size: BatchSize =
            present(orderer, BATCH_SIZE, "BatchSize")?.ok_or(ChangeError::Configuration("BatchSize"))?;
        let before = size;
        size.max_message_count = batch.max_message_count.unwrap_or(size.max_message_count);
        size.absolute_max_bytes = batch.absolute_max_bytes.unwrap_or(size.absolute_max_bytes);
        size.preferred_max_bytes = batch.preferred_max_bytes.unwrap_or(size.preferred_max_bytes);
        if size != before {
            put(orderer, BATCH_SIZE, &size);
        }
        if let Some(timeout) = &batch.timeout {
            put(orderer, BATCH_TIMEOUT, &BatchTimeout { timeout: as_go_prints(timeout) });
        }
        Ok(())
    }

    fn change_maintenance(&self, orderer: &mut ConfigGroup) -> Result<(), ChangeError> {
        let Some(maintenance) = self.maintenance else { return Ok(()) };
        let consensus: Option<ConsensusType> = present(orderer, CONSENSUS_TYPE, "ConsensusType")?;
        let mut consensus = consensus.ok_or(ChangeError::Configuration("ConsensusType"))?;
        consensus.set_state(if maintenance { State::Maintenance } else { State::Normal });
        put(orderer, CONSENSUS_TYPE, &consensus);
        Ok(())
    }

    fn switch_on(&self, root: &mut ConfigGroup) -> Result<(), ChangeError> {
        let CapabilityChange { channel, orderer, application } = &self.capabilities;
        add_capabilities(root, Level::Channel, channel)?;
        add_capabilities(child(root, ORDERER)?, Level::Orderer, orderer)?;
        add_capabilities(child(root, APPLICATION)?, Level::Application, application)
    }

    fn change_consenters(&self, orderer: &mut ConfigGroup) -> Result<(), ChangeError> {
        let Members { add, remove } = &self.consenters;
        if add.is_empty() && remove.is_empty() {
            return Ok(());
        }
        let unreadable = ChangeError::Configuration("ConsensusType of Raft");
        let consensus: Option<ConsensusType> = present(orderer, CONSENSUS_TYPE, "ConsensusType")?;
        let Some(mut consensus) = consensus.filter(|consensus| consensus.r#type == ETCDRAFT) else {
            return Err(unreadable);
        };
        let mut metadata = ConfigMetadata::decode(consensus.metadata).map_err(|_| unreadable)?;
        let endpoint = |consenter: &Consenter| format!("{}:{}", consenter.host, consenter.port);
        for name in remove {
            let known: Vec<String> = metadata.consenters.iter().map(endpoint).collect();
            let found = known.iter().position(|known| known == name).ok_or_else(|| ChangeError::Unknown {
                what: "consenter",
                name: name.clone(),
                known: known.join(", "),
            })?;
            metadata.consenters.remove(found);
        }
        for consenter in add {
            let new = Consenter {
                host: consenter.host.clone(),
                port: u32::from(consenter.port),
                client_tls_cert: consenter.client_tls_cert.read()?,
                server_tls_cert: consenter.server_tls_cert.read()?,
            };
            if metadata.consenters.iter().any(|known| endpoint(known) == endpoint(&new)) {
                return Err(ChangeError::Exists { what: "consenter", name: endpoint(&new) });
            }
            metadata.consenters.push(new);
        }
        consensus.metadata = metadata.encode_to_vec().into();
        put(orderer, CONSENSUS_TYPE, &consensus);
        Ok(())
    }

    fn publish_revocations(&self, root: &mut ConfigGroup) -> Result<(), ChangeError> {
        for (name, paths) in &self.revocation_lists {
            let mut found = false;
            for section in [APPLICATION, ORDERER] {
                let Some(member) = child(root, section)?.groups.get_mut(name) else { continue };
                found = true;
                revoke(member, paths)?;
            }
            if !found {
                let known = [APPLICATION, ORDERER]
                    .iter()
                    .filter_map(|section| root.groups.get(*section))
                    .flat_map(|section| section.groups.keys().cloned())
                    .collect::<Vec<_>>();
                return Err(ChangeError::Unknown {
                    what: "organisation",
                    name: name.clone(),
                    known: known.join(", "),
                });
            }
        }
        Ok(())
    }
}

/// Adds capabilities that this implementation understands: a node that does not would stop at the channel's next block.
fn add_capabilities(section: &mut ConfigGroup, level: Level, new: &[String]) -> Result<(), ChangeError> {
    if new.is_empty() {
        return Ok(());
    }
    if let Some(unknown) = new.iter().find(|name| !level.known().contains(&name.as_str())) {
        return Err(ChangeError::Capability {
            level: level.name(),
            name: unknown.clone(),
            known: level.known().join(", "),
        });
    }
    let present: Option<Capabilities> = present(section, CAPABILITIES, "Capabilities")?;
    let present = present.unwrap_or_default().capabilities.into_keys();
    let names: Vec<String> = present.chain(new.iter().cloned()).collect();
    let value = section.values.entry(CAPABILITIES.to_owned()).or_insert_with(|| capabilities(&[]));
    value.value = capabilities(&names).value;
    Ok(())
}

fn revoke(member: &mut ConfigGroup, paths: &[PathBuf]) -> Result<(), ChangeError> {
    let unreadable = || ChangeError::Configuration("MSP");
    let mut msp: MspConfig = present(member, MSP, "MSP")?.ok_or_else(unreadable)?;
    let mut fabric = FabricMspConfig::decode(msp.config).map_err(|_| unreadable())?;
    for path in paths {
        let pem =
            std::fs::read(path).map_err(|source| ProfileError::Unreadable { path: path.clone(), source })?;
        let wrong = |reason: String| ChangeError::RevocationList { path: path.clone(), reason };
        let new = RevocationList::from_pem_or_der(&pem).map_err(|error| wrong(error.to_string()))?;
        let same_issuer = |known: &Bytes| {
            RevocationList::from_pem_or_der(known)
                .is_ok_and(|known| known.issuer_bytes() == new.issuer_bytes())
        };
        fabric.revocation_list.retain(|known| !same_issuer(known));
        fabric.revocation_list.push(pem.into());
    }
    msp.config = fabric.encode_to_vec().into();
    put(member, MSP, &msp);
    Ok(())
}

fn change_organisations(
    section: &mut ConfigGroup,
    change: &Members<OrganisationProfile>,
    make: impl Fn(&OrganisationProfile) -> Result<ConfigGroup, ProfileError>,
) -> Result<(), ChangeError> {
    for name in &change.remove {
        organisation(section, name)?;
        section.groups.remove(name);
    }
    for new in &change.add {
        if section.groups.insert(new.name.clone(), make(new)?).is_some() {
            return Err(ChangeError::Exists { what: "organisation", name: new.name.clone() });
        }
    }
    Ok(())
}

/// Sets a policy by its path; `Application/Org1/Admins` and `/Channel/Application/Org1/Admins` are the same.
fn change_policy(root: &mut ConfigGroup, path: &str, text: &str) -> Result<(), ChangeError> {
    let wrong = |reason: String| ChangeError::Policy { path: path.to_owned(), reason };
    let parts: Vec<&str> = path.strip_prefix("/Channel/").unwrap_or(path).split('/').collect();
    let Some((name, groups)) = parts.split_last() else { return Err(wrong("the path is empty".to_owned())) };
    let mut group = root;
    for part in groups {
        let known = group.groups.keys().cloned().collect::<Vec<_>>().join(", ");
        group = group
            .groups
            .get_mut(*part)
            .ok_or_else(|| wrong(format!("there is no group {part} (known are: {known})")))?;
    }
    let policy = policy_message(text).map_err(wrong)?;
    let entry = group
        .policies
        .entry((*name).to_owned())
        .or_insert_with(|| ConfigPolicy { mod_policy: ADMINS.to_owned(), ..ConfigPolicy::default() });
    entry.policy = Some(policy);
    Ok(())
}

fn child<'a>(group: &'a mut ConfigGroup, name: &'static str) -> Result<&'a mut ConfigGroup, ChangeError> {
    group.groups.get_mut(name).ok_or(ChangeError::Configuration(name))
}

fn organisation<'a>(section: &'a mut ConfigGroup, name: &str) -> Result<&'a mut ConfigGroup, ChangeError> {
    if !section.groups.contains_key(name) {
        let known = section.groups.keys().cloned().collect::<Vec<_>>().join(", ");
        return Err(ChangeError::Unknown { what: "organisation", name: name.to_owned(), known });
    }
    Ok(section.groups.entry(name.to_owned()).or_default())
}

fn anchors(peers: &[AnchorPeerProfile]) -> AnchorPeers {
    let anchor =
        |peer: &AnchorPeerProfile| AnchorPeer { host: peer.host.clone(), port: i32::from(peer.port) };
    AnchorPeers { anchor_peers: peers.iter().map(anchor).collect() }
}

fn present<M: Message + Default>(
    group: &ConfigGroup,
    name: &str,
    what: &'static str,
) -> Result<Option<M>, ChangeError> {
    let Some(value) = group.values.get(name) else { return Ok(None) };
    M::decode(value.value.clone()).map(Some).map_err(|_| ChangeError::Configuration(what))
}

/// Sets a value's content; one that exists keeps its version and who may change it.
fn put<M: Message>(group: &mut ConfigGroup, name: &str, content: &M) {
    let value = group
        .values
        .entry(name.to_owned())
        .or_insert_with(|| ConfigValue { mod_policy: ADMINS.to_owned(), ..ConfigValue::default() });
    value.value = content.encode_to_vec().into();
}
