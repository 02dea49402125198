//! What governs a namespace: the policy of its chaincode and those of its collections.
//!
//! The definition is that of the last committed block (Fabric `core/chaincode/lifecycle/deployedcc_infoprovider.go`). The
//! namespaces of the lifecycle and of sealed data are governed by the channel configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use consort_channel_config::{ChannelBundle, EndorsementPolicyError};
use consort_ledger::StateSnapshot;
use consort_msp::Identity;
use consort_msp::policy::Policy;
use consort_msp::principal;
use consort_protos::fabric::protos::{
    CollectionConfig, StaticCollectionConfig, collection_config, collection_policy_config,
};
use consort_protos::ids::MspId;
use prost::Message;

use crate::identities::IDENTITIES;
use crate::lifecycle::{Definition, DefinitionError};
use crate::sealed::SEALED;

/// Namespace of chaincode definitions.
const LIFECYCLE: &str = "_lifecycle";
/// Prefix of the collection that every organisation has in every namespace.
const IMPLICIT_COLLECTION: &str = "_implicit_org_";
/// The only validation plugin; a definition that names another one cannot be judged by this peer.
const VALIDATION_PLUGIN: &str = "vscc";

/// Why the governance of a namespace cannot be told. Another peer might be able to: it is no verdict on a transaction.
#[derive(Debug, thiserror::Error)]
pub enum GovernanceError {
    /// The definition in the ledger cannot be read.
    #[error("the definition of chaincode {chaincode} cannot be read")]
    Definition {
        /// The chaincode.
        chaincode: String,
        /// The cause.
        #[source]
        source: DefinitionError,
    },
    /// The definition asks for a validation that this peer does not have.
    #[error("chaincode {chaincode} is validated by plugin {plugin}, which this peer does not have")]
    Plugin {
        /// The chaincode.
        chaincode: String,
        /// The plugin's name.
        plugin: String,
    },
}

/// A policy over endorsements; one that cannot be resolved can never be satisfied, for the reason given.
#[derive(Clone, Debug)]
pub struct Rule(Result<Arc<Policy>, String>);

impl Rule {
    /// The policy of a chaincode definition or of a collection: bytes of an `ApplicationPolicy`.
    #[must_use]
    pub fn of_chaincode(bundle: &ChannelBundle, parameter: &[u8]) -> Self {
        Self::resolved(bundle.endorsement_policy(parameter))
    }

    /// The policy of a single key: bytes of a `SignaturePolicyEnvelope`.
    #[must_use]
    pub fn of_key(bundle: &ChannelBundle, parameter: &[u8]) -> Self {
        Self::resolved(bundle.key_policy(parameter))
    }

    fn resolved(policy: Result<Policy, EndorsementPolicyError>) -> Self {
        Self(policy.map(Arc::new).map_err(|error| error.to_string()))
    }

    /// Whether the identities satisfy the rule.
    ///
    /// # Errors
    /// Why not.
    pub fn evaluate(&self, identities: &[Arc<Identity>]) -> Result<(), String> {
        // The long form has one line per branch of the policy: who was needed there, and who signed.
        self.0
            .as_ref()
            .map_err(Clone::clone)?
            .evaluate_identities(identities)
            .map_err(|error| format!("{error:#}").lines().map(str::trim).collect::<Vec<_>>().join("; "))
    }

    /// The combinations of organisations that can satisfy the rule with the given numbers of peers.
    ///
    /// # Errors
    /// Why there is none.
    pub fn organisation_sets(
        &self,
        peers: &BTreeMap<MspId, usize>,
    ) -> Result<Vec<BTreeMap<MspId, usize>>, String> {
        Ok(self.0.as_ref().map_err(Clone::clone)?.organisation_sets_within(peers))
    }
}

/// The policies of one namespace.
#[derive(Debug)]
pub struct Governance {
    version: String,
    rule: Rule,
    collections: Vec<CollectionConfig>,
}

impl Governance {
    /// Finds what governs a namespace; `None` when no chaincode of that name is defined.
    ///
    /// # Errors
    /// [`GovernanceError`].
    pub fn find(
        bundle: &ChannelBundle,
        state: &StateSnapshot,
        namespace: &str,
    ) -> Result<Option<Self>, GovernanceError> {
        if namespace == LIFECYCLE {
            return Ok(Some(Self {
                version: String::new(),
                rule: Rule::resolved(bundle.lifecycle_endorsement()),
                collections: Vec::new(),
            }));
        }
        if namespace == IDENTITIES && bundle.application().capabilities.registered_identities() {
            let reason = "entries are governed by the organisation whose administrator changes them";
            return Ok(Some(Self {
                version: String::new(),
                rule: Rule(Err(reason.to_owned())),
                collections: Vec::new(),
            }));
        }
        if namespace == SEALED && bundle.application().capabilities.sealed_data() {
            return Ok(Some(Self {
                version: String::new(),
                rule: Rule::of_chaincode(bundle, &[]),
                collections: Vec::new(),
            }));
        }
        let definition = Definition::read(state, namespace)
            .map_err(|source| GovernanceError::Definition { chaincode: namespace.to_owned(), source })?;
        let Some(definition) = definition else { return Ok(None) };
        if definition.validation_plugin.is_empty() || definition.validation_parameter.is_empty() {
            return Ok(None);
        }
        if definition.validation_plugin != VALIDATION_PLUGIN {
            return Err(GovernanceError::Plugin {
                chaincode: namespace.to_owned(),
                plugin: definition.validation_plugin,
            });
        }
        Ok(Some(Self {
            rule: Rule::of_chaincode(bundle, &definition.validation_parameter),
            version: definition.version,
            collections: definition.collections.config,
        }))
    }

    /// The definition's version; empty for the lifecycle and for sealed data.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The chaincode's policy.
    #[must_use]
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// The policy of writes to a collection: its own, otherwise the chaincode's.
    ///
    /// # Errors
    /// Why no write can be valid.
    pub fn collection_rule(&self, bundle: &ChannelBundle, collection: &str) -> Result<Rule, String> {
        if let Some(msp_id) = collection.strip_prefix(IMPLICIT_COLLECTION) {
            return implicit_rule(bundle, collection, msp_id);
        }
        let policy = self.explicit(collection)?;
        Ok(policy
            .endorsement_policy
            .as_ref()
            // Fabric hands over the policy's bytes, and no bytes mean that there is none.
            .filter(|policy| policy.r#type.is_some())
            .map_or_else(|| self.rule.clone(), |policy| Rule::of_chaincode(bundle, &policy.encode_to_vec())))
    }

    /// The organisations that hold a collection's plain data.
    ///
    /// # Errors
    /// When there is no such collection, or its policy is broken.
    pub fn collection_members(
        &self,
        bundle: &ChannelBundle,
        collection: &str,
    ) -> Result<BTreeSet<MspId>, String> {
        if let Some(msp_id) = collection.strip_prefix(IMPLICIT_COLLECTION) {
            implicit_rule(bundle, collection, msp_id)?;
            return Ok(MspId::parse(msp_id).into_iter().collect());
        }
        let members = self.explicit(collection)?.member_orgs_policy.as_ref().and_then(|policy| {
            let collection_policy_config::Payload::SignaturePolicy(envelope) = policy.payload.as_ref()?;
            Some(envelope)
        });
        let Some(envelope) = members else { return Err(format!("collection '{collection}' has no members")) };
        Ok(envelope
            .identities
            .iter()
            .filter_map(principal::msp_id)
            .filter_map(|msp_id| MspId::parse(&msp_id).ok())
            .collect())
    }

    /// For how many blocks the values of a collection live; 0 stands for ever.
    #[must_use]
    pub fn blocks_to_live(&self, collection: &str) -> u64 {
        self.explicit(collection).map_or(0, |config| config.block_to_live)
    }

    fn explicit(&self, collection: &str) -> Result<&StaticCollectionConfig, String> {
        self.collections
            .iter()
            .find_map(|config| match &config.payload {
                Some(collection_config::Payload::StaticCollectionConfig(config))
                    if config.name == collection =>
                {
                    Some(config)
                }
                _ => None,
            })
            .ok_or_else(|| format!("no such collection '{collection}'"))
    }
}

fn implicit_rule(bundle: &ChannelBundle, collection: &str, msp_id: &str) -> Result<Rule, String> {
    organisation_rule(bundle, msp_id).map_err(|_| format!("no such collection '{collection}'"))
}

/// What an organisation demands of endorsements that concern it alone: its `Endorsement` policy, or any of its members if it
/// has none.
///
/// # Errors
/// The channel's application has no such organisation.
pub(crate) fn organisation_rule(bundle: &ChannelBundle, msp_id: &str) -> Result<Rule, String> {
    let policy = bundle.organisation_endorsement(msp_id).map_err(|error| error.to_string())?;
    Ok(Rule(Ok(Arc::new(policy))))
}
