//! The policies that chaincode must satisfy, as a channel resolves them.
//!
//! Source: Fabric `core/policy/application.go`, `core/chaincode/lifecycle`, `core/handlers/validation/builtin/v20`.

use std::{collections::BTreeSet, sync::Arc};

use consort_msp::{
    Role,
    policy::{Policy, SignaturePolicy},
    principal,
};
use consort_protos::fabric::{
    common::{
        SignaturePolicy as RuleMessage, SignaturePolicyEnvelope,
        signature_policy::{NOutOf, Type},
    },
    protos::{ApplicationPolicy, application_policy},
};
use prost::Message;

use crate::ChannelBundle;

/// What chaincode without a policy of its own must satisfy.
pub const DEFAULT_ENDORSEMENT: &str = "/Channel/Application/Endorsement";

/// What changes of chaincode definitions must satisfy.
pub const LIFECYCLE_ENDORSEMENT: &str = "/Channel/Application/LifecycleEndorsement";

/// A chaincode's or key's policy cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EndorsementPolicyError(String);

impl ChannelBundle {
    /// The policy of a chaincode definition: the bytes of an `ApplicationPolicy`, or empty for the channel's default.
    ///
    /// # Errors
    /// When the bytes do not parse, the policy does not compile, or it refers to a policy that the channel does not have.
    pub fn endorsement_policy(&self, validation_parameter: &[u8]) -> Result<Policy, EndorsementPolicyError> {
        if validation_parameter.is_empty() {
            return self.default_endorsement().cloned();
        }
        let message = ApplicationPolicy::decode(validation_parameter).map_err(|error| {
            EndorsementPolicyError(format!("failed to unmarshal ApplicationPolicy bytes: {error}"))
        })?;
        match message.r#type {
            Some(application_policy::Type::SignaturePolicy(envelope)) => self.compile("endorsement policy", &envelope),
            Some(application_policy::Type::ChannelConfigPolicyReference(reference)) => {
                self.policies().policy(&reference).cloned().ok_or_else(|| {
                    EndorsementPolicyError(format!(
                        "could not create evaluator for channel reference policy: failed to retrieve policy for reference {reference}"
                    ))
                })
            }
            None => Err(EndorsementPolicyError("unsupported policy type <nil>".to_owned())),
        }
    }

    /// The policy of a single key: the bytes of a `SignaturePolicyEnvelope`.
    ///
    /// # Errors
    /// When the bytes do not parse or the policy does not compile.
    pub fn key_policy(&self, validation_parameter: &[u8]) -> Result<Policy, EndorsementPolicyError> {
        let envelope = SignaturePolicyEnvelope::decode(validation_parameter).map_err(|error| {
            EndorsementPolicyError(format!("could not unmarshal signature policy envelope: {error}"))
        })?;
        self.compile("key-level endorsement policy", &envelope)
    }

    /// What chaincode without a policy of its own must satisfy.
    ///
    /// # Errors
    /// When the channel does not define it.
    pub fn default_endorsement(&self) -> Result<&Policy, EndorsementPolicyError> {
        self.policies().policy(DEFAULT_ENDORSEMENT).ok_or_else(|| {
            EndorsementPolicyError(format!(
                "policy '{DEFAULT_ENDORSEMENT}' must be defined for channel '{}' before chaincode operations can be attempted",
                self.channel()
            ))
        })
    }

    /// What changes of chaincode definitions must satisfy: the channel's policy, or a majority of the application's
    /// organisations if it has none.
    ///
    /// # Errors
    /// When the application has more organisations than a policy can list.
    pub fn lifecycle_endorsement(&self) -> Result<Policy, EndorsementPolicyError> {
        if let Some(policy) = self.policies().policy(LIFECYCLE_ENDORSEMENT) {
            return Ok(policy.clone());
        }
        let members: BTreeSet<&str> = self
            .application()
            .organisations
            .iter()
            .map(|organisation| organisation.msp_id.as_str())
            .collect();
        let rules =
            (0_i32..).take(members.len()).map(|index| RuleMessage { r#type: Some(Type::SignedBy(index)) });
        let needed = i32::try_from(members.len() / 2 + 1)
            .map_err(|_| EndorsementPolicyError("too many organisations".to_owned()))?;
        let envelope = SignaturePolicyEnvelope {
            version: 0,
            rule: Some(RuleMessage {
                r#type: Some(Type::NOutOf(NOutOf { n: needed, rules: rules.collect() })),
            }),
            identities: members.iter().map(|member| principal::role(member, Role::Member)).collect(),
        };
        self.compile("majority of the application's organisations", &envelope)
    }

    /// What an organisation demands of endorsements that concern it alone, such as those of its implicit collections: its policy
    /// `Endorsement`, or any of its members if it has none.
    ///
    /// # Errors
    /// When the application has no such organisation.
    pub fn organisation_endorsement(&self, msp_id: &str) -> Result<Policy, EndorsementPolicyError> {
        let organisations = &self.application().organisations;
        let organisation =
            organisations.iter().find(|organisation| organisation.msp_id.as_str() == msp_id).ok_or_else(
                || EndorsementPolicyError(format!("the application has no organisation {msp_id}")),
            )?;
        let path = format!("/Channel/Application/{}/Endorsement", organisation.name);
        if let Some(policy) = self.policies().policy(&path) {
            return Ok(policy.clone());
        }
        let any_member = SignaturePolicyEnvelope {
            version: 0,
            rule: Some(RuleMessage { r#type: Some(Type::SignedBy(0)) }),
            identities: vec![principal::role(msp_id, Role::Member)],
        };
        self.compile("any member of the organisation", &any_member)
    }

    fn compile(
        &self,
        name: &str,
        envelope: &SignaturePolicyEnvelope,
    ) -> Result<Policy, EndorsementPolicyError> {
        let policy = SignaturePolicy::of_chaincode(envelope).map_err(|error| {
            EndorsementPolicyError(format!("could not create evaluator for signature policy: {error}"))
        })?;
        Ok(Policy::signature(name, policy, Arc::clone(self.msps())))
    }
}
