//! A chaincode definition from the command line or from a topology.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use consort_client_sdk::lifecycle::{Definition, EndorsementPolicy, Lifecycle};
use consort_protos::fabric::lifecycle::SandboxLimits;
use consort_protos::fabric::protos::{
    CollectionConfig, CollectionConfigPackage, CollectionPolicyConfig, StaticCollectionConfig,
    collection_config, collection_policy_config,
};
use serde::Deserialize;

use crate::topology::Collection;

/// Options that describe a definition.
#[derive(Debug, Args)]
pub(super) struct DefinitionOptions {
    /// Chaincode name
    pub(super) name: String,

    /// Version
    #[arg(long)]
    version: String,

    /// Sequence [default: one more than the committed one]
    #[arg(long)]
    sequence: Option<i64>,

    /// Who must endorse: a signature policy, or the path of a channel policy [default: the channel's]
    #[arg(long, value_name = "POLICY")]
    endorsement_policy: Option<String>,

    /// Collections, in the JSON form of Fabric's tools
    #[arg(long, value_name = "FILE")]
    collections_config: Option<PathBuf>,

    /// The first call must be the initialisation
    #[arg(long)]
    init_required: bool,

    /// Fuel of one execution, on every endorser [default: 2000000000]
    #[arg(long, value_name = "UNITS", default_value_t = 0, hide_default_value = true)]
    fuel: u64,

    /// Memory of one execution in bytes, on every endorser [default: 268435456]
    #[arg(long, value_name = "BYTES", default_value_t = 0, hide_default_value = true)]
    memory_bytes: u64,

    /// Chaincodes in a chain of calls, the first one included [default: 8]
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    call_depth: u32,

    /// Stack of each core module of a chaincode in bytes, on every endorser [default: 2097152]
    #[arg(long, value_name = "BYTES", default_value_t = 0, hide_default_value = true)]
    stack_bytes: u32,
}

impl DefinitionOptions {
    /// The limits, if any was chosen.
    fn limits(&self) -> Option<SandboxLimits> {
        let Self { fuel, memory_bytes, call_depth, stack_bytes, .. } = *self;
        let limits =
            SandboxLimits { fuel, memory_bytes, call_depth, stack_bytes, ..SandboxLimits::default() };
        Some(limits).filter(|limits| *limits != SandboxLimits::default())
    }

    /// Completes the definition; the committed one is asked for its sequence.
    ///
    /// # Errors
    /// A policy or the collections file cannot be read, or the network cannot be asked.
    pub(super) async fn resolve(&self, lifecycle: &Lifecycle) -> anyhow::Result<Definition> {
        let sequence = match self.sequence {
            Some(sequence) => sequence,
            None => lifecycle.committed(&self.name).await?.map_or(0, |found| found.sequence) + 1,
        };
        let collections = match &self.collections_config {
            Some(file) => {
                let text = super::read(file)?;
                let list: Vec<JsonCollection> = serde_json::from_slice(&text)
                    .with_context(|| format!("{} is no list of collections", file.display()))?;
                let list: Vec<Collection> = list.into_iter().map(JsonCollection::into_collection).collect();
                collections(&list)?
            }
            None => None,
        };
        let policy = self.endorsement_policy.as_deref();
        Ok(Definition {
            name: self.name.clone(),
            version: self.version.clone(),
            sequence,
            endorsement_policy: policy.map(endorsement_policy).transpose()?,
            collections,
            init_required: self.init_required,
            limits: self.limits(),
        })
    }
}

/// A path such as `/Channel/Application/Endorsement`, or a signature policy.
///
/// # Errors
/// The signature policy does not parse.
pub(crate) fn endorsement_policy(text: &str) -> anyhow::Result<EndorsementPolicy> {
    if text.starts_with('/') {
        return Ok(EndorsementPolicy::Channel(text.to_owned()));
    }
    let policy =
        consort_msp::policy::parse(text).with_context(|| format!("the policy '{text}' does not parse"))?;
    Ok(EndorsementPolicy::Signature(policy))
}

/// The collections of a definition; none is no package at all, as Fabric's tools send it.
///
/// # Errors
/// A policy does not parse.
pub(crate) fn collections(list: &[Collection]) -> anyhow::Result<Option<CollectionConfigPackage>> {
    if list.is_empty() {
        return Ok(None);
    }
    let config = list.iter().map(collection).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Some(CollectionConfigPackage { config }))
}

fn collection(collection: &Collection) -> anyhow::Result<CollectionConfig> {
    let members = consort_msp::policy::parse(&collection.policy)
        .with_context(|| format!("the policy of collection '{}' does not parse", collection.name))?;
    let endorsement = collection.endorsement_policy.as_deref().map(endorsement_policy).transpose()?;
    let payload = StaticCollectionConfig {
        name: collection.name.clone(),
        member_orgs_policy: Some(CollectionPolicyConfig {
            payload: Some(collection_policy_config::Payload::SignaturePolicy(members)),
        }),
        required_peer_count: i32::try_from(collection.required_peers)?,
        maximum_peer_count: i32::try_from(collection.max_peers)?,
        block_to_live: collection.block_to_live,
        member_only_read: collection.member_only_read,
        member_only_write: collection.member_only_write,
        salted_hashes: collection.salted_hashes,
        endorsement_policy: endorsement.map(|policy| policy.to_application_policy()),
    };
    Ok(CollectionConfig { payload: Some(collection_config::Payload::StaticCollectionConfig(payload)) })
}

/// A collection as `peer lifecycle chaincode --collections-config` reads it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct JsonCollection {
    name: String,
    policy: String,
    #[serde(default)]
    required_peer_count: u32,
    #[serde(default = "one")]
    max_peer_count: u32,
    #[serde(default)]
    block_to_live: u64,
    #[serde(default)]
    member_only_read: bool,
    #[serde(default)]
    member_only_write: bool,
    /// Consort's, not Fabric's.
    #[serde(default)]
    salted_hashes: bool,
    #[serde(default)]
    endorsement_policy: Option<JsonPolicy>,
}

fn one() -> u32 {
    1
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum JsonPolicy {
    SignaturePolicy(String),
    ChannelConfigPolicy(String),
}

impl JsonCollection {
    fn into_collection(self) -> Collection {
        Collection {
            name: self.name,
            policy: self.policy,
            required_peers: self.required_peer_count,
            max_peers: self.max_peer_count,
            block_to_live: self.block_to_live,
            member_only_read: self.member_only_read,
            member_only_write: self.member_only_write,
            salted_hashes: self.salted_hashes,
            endorsement_policy: self.endorsement_policy.map(|policy| match policy {
                JsonPolicy::SignaturePolicy(text) => text,
                JsonPolicy::ChannelConfigPolicy(path) if path.starts_with('/') => path,
                JsonPolicy::ChannelConfigPolicy(name) => format!("/Channel/Application/{name}"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collections_are_read_as_fabrics_tools_read_them() {
        let text = r#"[{"name": "assets", "policy": "OR('Org1MSP.member')", "requiredPeerCount": 1, "maxPeerCount": 2,
            "blockToLive": 5, "memberOnlyRead": true, "endorsementPolicy": {"signaturePolicy": "OR('Org1MSP.peer')"}}]"#;
        let list: Vec<JsonCollection> = serde_json::from_str(text).unwrap();
        let list: Vec<Collection> = list.into_iter().map(JsonCollection::into_collection).collect();
        let package = collections(&list).unwrap().unwrap();
        let Some(collection_config::Payload::StaticCollectionConfig(config)) = &package.config[0].payload
        else {
            panic!("a static collection")
        };
        assert_eq!(
            (config.name.as_str(), config.required_peer_count, config.block_to_live),
            ("assets", 1, 5)
        );
        assert!(config.member_only_read && !config.member_only_write);
        assert!(config.endorsement_policy.is_some());
    }

    #[test]
    fn a_policy_that_begins_with_a_slash_is_the_channels() {
        let policy = endorsement_policy("/Channel/Application/Endorsement").unwrap();
        assert_eq!(policy, EndorsementPolicy::Channel("/Channel/Application/Endorsement".to_owned()));
        assert!(endorsement_policy("AND('Org1MSP.peer'").is_err());
    }
}
