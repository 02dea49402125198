//! Defining a chaincode on a channel: approve for one organisation, see who has approved, commit, query.

use std::collections::BTreeMap;

use bytes::Bytes;
use consort_protos::fabric::common::SignaturePolicyEnvelope;
use consort_protos::fabric::lifecycle::{
    ApproveChaincodeDefinitionForMyOrgArgs, ChaincodeSource, CheckCommitReadinessArgs,
    CheckCommitReadinessResult, CommitChaincodeDefinitionArgs, QueryApprovedChaincodeDefinitionArgs,
    QueryApprovedChaincodeDefinitionResult, QueryChaincodeDefinitionArgs, QueryChaincodeDefinitionResult,
    QueryChaincodeDefinitionsArgs, QueryChaincodeDefinitionsResult, SandboxLimits, chaincode_source,
    query_chaincode_definitions_result::ChaincodeDefinition,
};
use consort_protos::fabric::protos::{ApplicationPolicy, CollectionConfigPackage, application_policy};
use prost::Message;

use crate::contract::{Call, Contract};
use crate::error::Error;
use crate::gateway::Network;
use crate::peer_admin::decode;
use crate::transaction::Committed;

/// Name of the system chaincode (Fabric `core/chaincode/lifecycle`).
const LIFECYCLE: &str = "_lifecycle";

/// Status for something that is not there.
const NOT_FOUND: i32 = 404;

/// A chaincode definition as organisations agree on it.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// Chaincode name.
    pub name: String,
    /// Version, free text of the organisations.
    pub version: String,
    /// 1 for the first definition, one more for every later one.
    pub sequence: i64,
    /// Who must endorse; the channel's `/Channel/Application/Endorsement` when absent.
    pub endorsement_policy: Option<EndorsementPolicy>,
    /// Private data collections.
    pub collections: Option<CollectionConfigPackage>,
    /// Whether the first call must be the initialisation.
    pub init_required: bool,
    /// What one execution may use, the same on every endorser; the network's defaults when absent.
    pub limits: Option<SandboxLimits>,
}

/// What an organisation's approval says about a definition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Readiness {
    /// Whether it has approved exactly this definition.
    pub approved: bool,
    /// What differs from the definition, in the lifecycle's words; empty when it has approved, or approved nothing.
    pub mismatches: Vec<String>,
}

/// Who must endorse a chaincode's transactions.
#[derive(Debug, Clone, PartialEq)]
pub enum EndorsementPolicy {
    /// A signature policy of its own.
    Signature(SignaturePolicyEnvelope),
    /// A policy of the channel, by path.
    Channel(String),
}

impl EndorsementPolicy {
    /// The form in which it stands in a definition (`protos.ApplicationPolicy`).
    #[must_use]
    pub fn to_application_policy(&self) -> ApplicationPolicy {
        let policy = match self {
            Self::Signature(policy) => application_policy::Type::SignaturePolicy(policy.clone()),
            Self::Channel(path) => application_policy::Type::ChannelConfigPolicyReference(path.clone()),
        };
        ApplicationPolicy { r#type: Some(policy) }
    }
}

impl Definition {
    fn validation_parameter(&self) -> Bytes {
        let policy = self.endorsement_policy.as_ref();
        policy.map(|policy| policy.to_application_policy().encode_to_vec().into()).unwrap_or_default()
    }
}

/// The lifecycle of chaincodes on a channel, as one organisation's administrator sees it.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    network: Network,
    contract: Contract,
}

impl Lifecycle {
    /// The lifecycle of the network's channel; the gateway's identity must be an administrator.
    #[must_use]
    pub fn new(network: &Network) -> Self {
        Self { network: network.clone(), contract: network.contract(LIFECYCLE) }
    }

    /// Approves a definition for the identity's organisation and waits for the commit. Without a package id the
    /// organisation agrees to the definition but does not run the chaincode.
    ///
    /// # Errors
    /// Those of a transaction; [`Error::Refused`] carries the lifecycle's reason, such as a wrong sequence.
    pub async fn approve(
        &self,
        definition: &Definition,
        package_id: Option<&str>,
    ) -> Result<Committed, Error> {
        let source = match package_id {
            Some(id) => {
                chaincode_source::Type::LocalPackage(chaincode_source::Local { package_id: id.to_owned() })
            }
            None => chaincode_source::Type::Unavailable(chaincode_source::Unavailable {}),
        };
        let arguments = ApproveChaincodeDefinitionForMyOrgArgs {
            sequence: definition.sequence,
            name: definition.name.clone(),
            version: definition.version.clone(),
            validation_parameter: definition.validation_parameter(),
            collections: definition.collections.clone(),
            init_required: definition.init_required,
            limits: definition.limits,
            source: Some(ChaincodeSource { r#type: Some(source) }),
            ..Default::default()
        };
        let own = [self.network.gateway().identity().msp_id()];
        let call = self.call("ApproveChaincodeDefinitionForMyOrg", &arguments).endorsing_organisations(own);
        call.endorse().await?.submit().await?.committed().await?.into_valid()
    }

    /// Which organisations have approved exactly this definition.
    ///
    /// # Errors
    /// Those of an evaluation.
    pub async fn readiness(&self, definition: &Definition) -> Result<BTreeMap<String, bool>, Error> {
        let reports = self.readiness_reports(definition).await?;
        Ok(reports.into_iter().map(|(msp_id, report)| (msp_id, report.approved)).collect())
    }

    /// What every organisation's approval says about this definition, and in what it differs.
    ///
    /// # Errors
    /// Those of an evaluation.
    pub async fn readiness_reports(
        &self,
        definition: &Definition,
    ) -> Result<BTreeMap<String, Readiness>, Error> {
        let arguments = CheckCommitReadinessArgs {
            sequence: definition.sequence,
            name: definition.name.clone(),
            version: definition.version.clone(),
            validation_parameter: definition.validation_parameter(),
            collections: definition.collections.clone(),
            init_required: definition.init_required,
            limits: definition.limits,
            ..Default::default()
        };
        let answer = self.evaluate("CheckCommitReadiness", &arguments).await?;
        let mut result = decode::<CheckCommitReadinessResult>("CheckCommitReadiness", answer)?;
        let report = |(msp_id, approved): (String, bool)| {
            let mismatches = result.mismatches.remove(&msp_id).map(|found| found.items).unwrap_or_default();
            (msp_id, Readiness { approved, mismatches })
        };
        Ok(result.approvals.into_iter().map(report).collect())
    }

    /// Commits a definition that enough organisations have approved; `organisations` (MSP ids) endorse it.
    ///
    /// # Errors
    /// Those of a transaction.
    pub async fn commit<S: Into<String>>(
        &self,
        definition: &Definition,
        organisations: impl IntoIterator<Item = S>,
    ) -> Result<Committed, Error> {
        let arguments = CommitChaincodeDefinitionArgs {
            sequence: definition.sequence,
            name: definition.name.clone(),
            version: definition.version.clone(),
            validation_parameter: definition.validation_parameter(),
            collections: definition.collections.clone(),
            init_required: definition.init_required,
            limits: definition.limits,
            ..Default::default()
        };
        let call = self.call("CommitChaincodeDefinition", &arguments).endorsing_organisations(organisations);
        call.endorse().await?.submit().await?.committed().await?.into_valid()
    }

    /// The committed definition of a chaincode, if there is one.
    ///
    /// # Errors
    /// Those of an evaluation.
    pub async fn committed(&self, chaincode: &str) -> Result<Option<QueryChaincodeDefinitionResult>, Error> {
        let arguments = QueryChaincodeDefinitionArgs { name: chaincode.to_owned() };
        self.found("QueryChaincodeDefinition", &arguments).await
    }

    /// All committed definitions of the channel.
    ///
    /// # Errors
    /// Those of an evaluation.
    pub async fn all_committed(&self) -> Result<Vec<ChaincodeDefinition>, Error> {
        let answer = self.evaluate("QueryChaincodeDefinitions", &QueryChaincodeDefinitionsArgs {}).await?;
        let result = decode::<QueryChaincodeDefinitionsResult>("QueryChaincodeDefinitions", answer)?;
        Ok(result.chaincode_definitions)
    }

    /// What the identity's organisation has approved under a sequence, if anything.
    ///
    /// # Errors
    /// Those of an evaluation.
    pub async fn approved(
        &self,
        chaincode: &str,
        sequence: i64,
    ) -> Result<Option<QueryApprovedChaincodeDefinitionResult>, Error> {
        let arguments = QueryApprovedChaincodeDefinitionArgs { name: chaincode.to_owned(), sequence };
        self.found("QueryApprovedChaincodeDefinition", &arguments).await
    }

    /// An evaluation whose "not found" is an answer rather than an error.
    async fn found<M: Message + Default>(
        &self,
        function: &'static str,
        arguments: &impl Message,
    ) -> Result<Option<M>, Error> {
        match self.evaluate(function, arguments).await {
            Ok(answer) => decode(function, answer).map(Some),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The own organisation's peer is asked: it alone knows its organisation's approvals.
    async fn evaluate(&self, function: &'static str, arguments: &impl Message) -> Result<Bytes, Error> {
        let own = [self.network.gateway().identity().msp_id()];
        self.call(function, arguments).endorsing_organisations(own).evaluate().await
    }

    fn call(&self, function: &str, arguments: &impl Message) -> Call {
        self.contract.call(function).argument(arguments.encode_to_vec())
    }
}

fn is_not_found(error: &Error) -> bool {
    has_status(error, NOT_FOUND)
}

/// Whether a chaincode answered with a status. A gateway puts it into its text (`chaincode response 404, ...`).
pub(crate) fn has_status(error: &Error, wanted: i32) -> bool {
    match error {
        Error::Chaincode { status, .. } => *status == wanted,
        Error::Refused { refusal, .. } => {
            let text = format!("chaincode response {wanted}, ");
            refusal.message.contains(&text)
                || refusal.details.iter().any(|detail| detail.message.contains(&text))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_definition_is_recognised_in_the_gateways_text() {
        let status = tonic::Status::unknown(
            "evaluate call to endorser returned error: chaincode response 404, namespace basic is not defined",
        );
        assert!(is_not_found(&Error::refused("evaluate", &status)));
        assert!(!is_not_found(&Error::refused(
            "evaluate",
            &tonic::Status::unknown("chaincode response 500, x")
        )));
    }

    #[test]
    fn a_definition_without_policy_leaves_it_to_the_channel() {
        let mut definition = Definition {
            name: "basic".into(),
            version: "1.0".into(),
            sequence: 1,
            endorsement_policy: None,
            collections: None,
            init_required: false,
            limits: None,
        };
        assert!(definition.validation_parameter().is_empty());
        let path = "/Channel/Application/Endorsement".to_owned();
        definition.endorsement_policy = Some(EndorsementPolicy::Channel(path.clone()));
        let policy = ApplicationPolicy::decode(definition.validation_parameter()).unwrap();
        assert_eq!(policy.r#type, Some(application_policy::Type::ChannelConfigPolicyReference(path)));
    }
}
