//! Which policies were in force when a block was judged, from the blocks before it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use consort_client_sdk::decode::{DecodedInvocation, DecodedTransaction, Kind};
use consort_protos::fabric::lifecycle::{
    CommitChaincodeDefinitionArgs, QueryChaincodeDefinitionArgs, QueryChaincodeDefinitionResult,
};
use consort_protos::fabric::protos::{CollectionConfigPackage, TxValidationCode, collection_config};
use consort_protos::rwset::MetadataEntry;
use prost::Message;

use super::{BLOCKS_SEARCHED_MAX, Backwards, Case, Place, who};

/// Namespace and chaincode of definitions.
pub(super) const LIFECYCLE: &str = "_lifecycle";
/// The function that puts a definition in force.
const COMMIT: &str = "CommitChaincodeDefinition";
/// Name of the metadata entry that holds a key's policy.
const VALIDATION_PARAMETER: &str = "VALIDATION_PARAMETER";

/// A chaincode's definition as far as policies go.
#[derive(Debug, Clone)]
pub(super) struct Definition {
    pub(super) version: String,
    pub(super) sequence: i64,
    pub(super) validation_parameter: Bytes,
    collections: CollectionConfigPackage,
    /// The transaction that put it in force; `None` when it is the present one, which may be younger than the block.
    since: Option<String>,
}

impl Definition {
    /// The policy of a collection in bytes, when the collection has one of its own.
    pub(super) fn collection_policy(&self, name: &str) -> Option<Vec<u8>> {
        self.collections.config.iter().find_map(|config| {
            let collection_config::Payload::StaticCollectionConfig(config) = config.payload.as_ref()?;
            let policy = config.endorsement_policy.as_ref().filter(|_| config.name == name)?;
            policy.r#type.is_some().then(|| policy.encode_to_vec())
        })
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct InForce {
    /// Policies of keys with the transaction that set them; `None` where a transaction took the policy away.
    keys: BTreeMap<Place, Option<(Bytes, String)>>,
    definitions: BTreeMap<String, Definition>,
    /// Where the search ended.
    oldest: u64,
    /// Keys of which nothing was found, although there are older blocks.
    unknown: usize,
}

impl InForce {
    pub(super) fn definition(&self, chaincode: &str) -> Option<&Definition> {
        self.definitions.get(chaincode)
    }

    /// The policy of a key, and who set it.
    pub(super) fn key_policy(&self, place: &Place) -> Option<(&Bytes, &str)> {
        self.keys.get(place)?.as_ref().map(|(policy, by)| (policy, by.as_str()))
    }

    pub(super) fn searched(&self) -> String {
        if self.oldest == 0 {
            return "all blocks before it were searched".to_owned();
        }
        format!("the blocks from {} on were searched", self.oldest)
    }

    /// What has to be known to judge the reasons.
    pub(super) fn notes(&self, invocation: &DecodedInvocation) -> Vec<String> {
        let mut notes = Vec::new();
        if self.unknown > 0 {
            notes.push(format!(
                "{} key(s) may have policies that were set before block {}, older than the {BLOCKS_SEARCHED_MAX} blocks that were \
                 searched",
                self.unknown, self.oldest
            ));
        }
        for (name, definition) in &self.definitions {
            if definition.since.is_none() {
                notes.push(format!(
                    "chaincode {name} is taken as it is defined now (version {}, sequence {}); its definition is older than the blocks \
                     that were searched, or younger than the transaction",
                    definition.version, definition.sequence
                ));
            }
        }
        if let Some(definition) = self.definitions.get(&invocation.chaincode)
            && definition.version != invocation.version
        {
            notes.push(format!(
                "chaincode {} was at version {}, and the transaction was endorsed for {}",
                invocation.chaincode, definition.version, invocation.version
            ));
        }
        notes
    }

    fn take(
        &mut self,
        number: u64,
        transaction: &DecodedTransaction,
        other: &DecodedInvocation,
        places: &mut BTreeSet<Place>,
        chaincodes: &mut BTreeSet<String>,
    ) {
        for (place, policy) in metadata(other) {
            if places.remove(&place) {
                let set = policy.map(|policy| (policy, who(number, transaction, other)));
                self.keys.insert(place, set);
            }
        }
        for place in deleted(other) {
            if places.remove(&place) {
                self.keys.insert(place, None);
            }
        }
        if let Some(arguments) = committed_definition(other)
            && chaincodes.remove(&arguments.name)
        {
            let since = Some(format!("transaction {} in block {number}", transaction.tx_id));
            let definition = Definition {
                version: arguments.version,
                sequence: arguments.sequence,
                validation_parameter: arguments.validation_parameter,
                collections: arguments.collections.unwrap_or_default(),
                since,
            };
            self.definitions.insert(arguments.name, definition);
        }
    }
}

impl Case {
    /// Searches the blocks before this one's for what governed these keys and chaincodes.
    pub(super) async fn in_force(
        &self,
        mut places: BTreeSet<Place>,
        mut chaincodes: BTreeSet<String>,
    ) -> anyhow::Result<InForce> {
        let mut found = InForce::default();
        let mut blocks = Backwards::from(self, self.block.number.saturating_sub(1));
        while !(places.is_empty() && chaincodes.is_empty())
            && let Some(block) = blocks.next().await?
        {
            for transaction in block.transactions.iter().rev() {
                if let Kind::Invocation(other) = &transaction.kind
                    && transaction.code == Some(TxValidationCode::Valid)
                {
                    found.take(block.number, transaction, other, &mut places, &mut chaincodes);
                }
            }
        }
        found.oldest = blocks.oldest();
        found.unknown = if found.oldest == 0 { 0 } else { places.len() };
        for name in chaincodes {
            if let Ok(definition) = self.present_definition(&name).await {
                found.definitions.insert(name, definition);
            }
        }
        Ok(found)
    }

    /// What put the version in force that a transaction was not endorsed for.
    pub(super) async fn version(&self, invocation: &DecodedInvocation) -> anyhow::Result<Vec<String>> {
        let name = &invocation.chaincode;
        let found = self.in_force(BTreeSet::new(), BTreeSet::from([name.clone()])).await?;
        let Some(definition) = found.definition(name) else {
            return Ok(vec![format!("no chaincode {name} is defined on the channel")]);
        };
        let since = definition.since.as_ref().map(|by| format!(" since {by}")).unwrap_or_default();
        Ok(vec![format!(
            "chaincode {name} was at version {} (sequence {}){since}, and the transaction was endorsed for version {}",
            definition.version, definition.sequence, invocation.version
        )])
    }

    async fn present_definition(&self, name: &str) -> anyhow::Result<Definition> {
        let arguments = QueryChaincodeDefinitionArgs { name: name.to_owned() };
        let arguments = vec![Bytes::from(arguments.encode_to_vec())];
        let answer =
            self.admin.query(&self.channel, LIFECYCLE, "QueryChaincodeDefinition", arguments).await?;
        let definition = QueryChaincodeDefinitionResult::decode(answer)?;
        Ok(Definition {
            version: definition.version,
            sequence: definition.sequence,
            validation_parameter: definition.validation_parameter,
            collections: definition.collections.unwrap_or_default(),
            since: None,
        })
    }
}

/// The definition that a transaction put in force, if it did.
fn committed_definition(invocation: &DecodedInvocation) -> Option<CommitChaincodeDefinitionArgs> {
    if invocation.chaincode != LIFECYCLE || invocation.function() != COMMIT {
        return None;
    }
    CommitChaincodeDefinitionArgs::decode(invocation.arguments.get(1)?.clone()).ok()
}

fn policy(entries: &[MetadataEntry]) -> Option<Bytes> {
    let entry = entries.iter().find(|entry| entry.name == VALIDATION_PARAMETER)?;
    Some(entry.value.clone()).filter(|value| !value.is_empty())
}

/// The keys whose policies a transaction sets, and to what.
pub(super) fn metadata(invocation: &DecodedInvocation) -> Vec<(Place, Option<Bytes>)> {
    let mut changes = Vec::new();
    for set in &invocation.rwset.namespaces {
        let public = |key: &String| Place::Public { namespace: set.namespace.clone(), key: key.clone() };
        changes.extend(set.metadata_writes.iter().map(|write| (public(&write.key), policy(&write.entries))));
        for collection in &set.collections {
            let writes = collection.metadata_writes.iter();
            changes.extend(
                writes
                    .map(|write| (Place::private(set, collection, &write.key_hash), policy(&write.entries))),
            );
        }
    }
    changes
}

/// The keys that a transaction deletes, and their policies with them.
fn deleted(invocation: &DecodedInvocation) -> Vec<Place> {
    let mut places = Vec::new();
    for set in &invocation.rwset.namespaces {
        let gone = set.writes.iter().filter(|write| write.is_delete);
        places.extend(
            gone.map(|write| Place::Public { namespace: set.namespace.clone(), key: write.key.clone() }),
        );
        for collection in &set.collections {
            let gone = collection.hashed_writes.iter().filter(|write| write.is_delete);
            places.extend(gone.map(|write| Place::private(set, collection, &write.key_hash)));
        }
    }
    places
}
