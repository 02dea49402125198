//! Who is a member of a collection: now, and as of a block.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use consort_channel_config::ChannelBundle;
use consort_ledger::Ledger;
use consort_msp::policy::{Policy, SignaturePolicy};
use consort_msp::{Identity, principal};
use consort_protos::fabric::lifecycle::{StateData, state_data};
use consort_protos::fabric::protos::{
    CollectionConfigPackage, StaticCollectionConfig, collection_config, collection_policy_config,
};
use consort_protos::ids::{BlockNumber, MspId};
use prost::Message;

use crate::channel::ChannelHandle;
use crate::lifecycle::{Definition, IMPLICIT_COLLECTION, LIFECYCLE};
use crate::registry::with_causes;

/// What governs the plain data of one collection.
#[derive(Clone, Debug)]
pub struct CollectionRule {
    members: Members,
    /// The organisations whose peers hold the data: those that the member policy names.
    pub organisations: BTreeSet<MspId>,
    /// Other peers that must have the data before an endorsement is given.
    pub required_peers: usize,
    /// Other peers that get the data before an endorsement is given.
    pub maximum_peers: usize,
    /// Whether it is the collection that an organisation has without defining it.
    pub implicit: bool,
}

#[derive(Clone, Debug)]
enum Members {
    Organisation(MspId),
    Policy(Arc<Policy>),
}

impl CollectionRule {
    /// The rule of a collection of these definitions; `None` when there is no such collection, or its policy is broken. An implicit
    /// collection is that of an organisation of the channel; its peer counts are each peer's own affair and 0 here.
    #[must_use]
    pub fn of(bundle: &ChannelBundle, collections: &CollectionConfigPackage, name: &str) -> Option<Self> {
        if let Some(msp_id) = name.strip_prefix(IMPLICIT_COLLECTION) {
            let organisations = &bundle.application().organisations;
            let organisation =
                organisations.iter().find(|organisation| organisation.msp_id.as_str() == msp_id)?;
            let msp_id = organisation.msp_id.clone();
            return Some(Self {
                organisations: BTreeSet::from([msp_id.clone()]),
                members: Members::Organisation(msp_id),
                required_peers: 0,
                maximum_peers: 0,
                implicit: true,
            });
        }
        let config = find(collections, name)?;
        let collection_policy_config::Payload::SignaturePolicy(envelope) =
            config.member_orgs_policy.as_ref()?.payload.as_ref()?;
        let named = envelope.identities.iter().filter_map(principal::msp_id);
        let organisations = named.filter_map(|msp_id| MspId::parse(&msp_id).ok()).collect();
        let policy = SignaturePolicy::from_proto(envelope).ok()?;
        let policy = Policy::signature("members of the collection", policy, Arc::clone(bundle.msps()));
        Some(Self {
            members: Members::Policy(Arc::new(policy)),
            organisations,
            required_peers: usize::try_from(config.required_peer_count).unwrap_or(0),
            maximum_peers: usize::try_from(config.maximum_peer_count).unwrap_or(0),
            implicit: false,
        })
    }

    /// Whether somebody is a member. The identity must be valid for anything that is built on it.
    #[must_use]
    pub fn includes(&self, identity: &Arc<Identity>) -> bool {
        match &self.members {
            Members::Organisation(msp_id) => identity.msp_id() == msp_id,
            Members::Policy(policy) => policy.evaluate_identities(std::slice::from_ref(identity)).is_ok(),
        }
    }
}

/// The static collection of this name.
#[must_use]
pub fn find<'c>(collections: &'c CollectionConfigPackage, name: &str) -> Option<&'c StaticCollectionConfig> {
    collections.config.iter().find_map(|config| match &config.payload {
        Some(collection_config::Payload::StaticCollectionConfig(config)) if config.name == name => {
            Some(config)
        }
        _ => None,
    })
}

/// Rules as of the last committed block and as of earlier ones, each definition read once.
#[derive(Debug)]
pub struct Rules<'c> {
    channel: &'c ChannelHandle,
    bundle: Arc<ChannelBundle>,
    now: BTreeMap<String, CollectionConfigPackage>,
    before: BTreeMap<(String, u64), CollectionConfigPackage>,
}

impl<'c> Rules<'c> {
    /// The rules of a channel as it is now.
    #[must_use]
    pub fn new(channel: &'c ChannelHandle) -> Self {
        Self { bundle: channel.bundle(), channel, now: BTreeMap::new(), before: BTreeMap::new() }
    }

    /// The configuration that identities are judged by.
    #[must_use]
    pub fn bundle(&self) -> &ChannelBundle {
        &self.bundle
    }

    /// The rule in force.
    ///
    /// # Errors
    /// When the definition cannot be read.
    pub fn now(&mut self, namespace: &str, collection: &str) -> Result<Option<CollectionRule>, String> {
        if !self.now.contains_key(namespace) {
            let collections = if namespace == LIFECYCLE {
                CollectionConfigPackage::default()
            } else {
                Definition::read(&self.channel.ledger().snapshot(), namespace)
                    .map_err(|error| with_causes(&error))?
                    .map(|definition| definition.collections)
                    .unwrap_or_default()
            };
            self.now.insert(namespace.to_owned(), collections);
        }
        Ok(CollectionRule::of(&self.bundle, &self.now[namespace], collection))
    }

    /// The names of the collections that a chaincode defines.
    ///
    /// # Errors
    /// When the definition cannot be read.
    pub fn defined(&mut self, namespace: &str) -> Result<Vec<String>, String> {
        self.now(namespace, "")?;
        let named = self.now.get(namespace).into_iter().flat_map(|package| &package.config);
        let name = |payload: &collection_config::Payload| {
            let collection_config::Payload::StaticCollectionConfig(config) = payload;
            config.name.clone()
        };
        Ok(named.filter_map(|config| config.payload.as_ref().map(name)).collect())
    }

    /// The rule that was in force when a block was ordered: that of the blocks before it.
    ///
    /// # Errors
    /// When the definition cannot be read.
    pub fn before(
        &mut self,
        namespace: &str,
        collection: &str,
        block: BlockNumber,
    ) -> Result<Option<CollectionRule>, String> {
        let key = (namespace.to_owned(), block.get());
        if !self.before.contains_key(&key) {
            let collections = collections_before(self.channel.ledger(), namespace, block)?;
            self.before.insert(key.clone(), collections);
        }
        Ok(CollectionRule::of(&self.bundle, &self.before[&key], collection))
    }

    /// Whether somebody may have the data that a transaction of a block wrote: who was a member then was given it, and who has become
    /// a member since gets what was written before, as in Fabric (its documentation of private data, "reconciliation").
    ///
    /// # Errors
    /// When a definition cannot be read.
    pub fn may_have(
        &mut self,
        identity: &Arc<Identity>,
        (namespace, collection): (&str, &str),
        block: BlockNumber,
    ) -> Result<bool, String> {
        if self.now(namespace, collection)?.is_some_and(|rule| rule.includes(identity)) {
            return Ok(true);
        }
        // What this peer has not committed has no other definition than the one in force.
        if block.get() >= self.channel.ledger().height() {
            return Ok(false);
        }
        Ok(self.before(namespace, collection, block)?.is_some_and(|rule| rule.includes(identity)))
    }
}

/// The collections of a chaincode as they were defined before a block.
fn collections_before(
    ledger: &Ledger,
    chaincode: &str,
    block: BlockNumber,
) -> Result<CollectionConfigPackage, String> {
    let key = format!("namespaces/fields/{chaincode}/Collections");
    let Some(definition) = ledger.history(LIFECYCLE, &key, block).next() else {
        return Ok(CollectionConfigPackage::default());
    };
    let definition = definition.map_err(|error| with_causes(&error))?;
    let data = StateData::decode(definition.value).map_err(|error| error.to_string())?;
    match data.r#type {
        Some(state_data::Type::Bytes(package)) => {
            CollectionConfigPackage::decode(package).map_err(|error| error.to_string())
        }
        _ => Ok(CollectionConfigPackage::default()),
    }
}
