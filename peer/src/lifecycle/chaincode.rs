//! The system chaincode `_lifecycle`: its functions, who may call them, and how it answers
//! (Fabric `core/chaincode/lifecycle/scc.go`).

use std::sync::Arc;

use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_ledger::{SimulationError, TxSimulator};
use consort_msp::Identity;
use consort_msp::principal::Role;
use consort_protos::fabric::lifecycle::{
    ApproveChaincodeDefinitionForMyOrgArgs, ApproveChaincodeDefinitionForMyOrgResult, ChaincodeSource,
    CheckCommitReadinessArgs, CheckCommitReadinessResult, CommitChaincodeDefinitionArgs,
    CommitChaincodeDefinitionResult, QueryApprovedChaincodeDefinitionArgs,
    QueryApprovedChaincodeDefinitionResult, QueryApprovedChaincodeDefinitionsResult,
    QueryChaincodeDefinitionArgs, QueryChaincodeDefinitionResult, QueryChaincodeDefinitionsResult,
    SandboxLimits, chaincode_source, check_commit_readiness_result,
    query_approved_chaincode_definitions_result, query_chaincode_definitions_result,
};
use consort_protos::fabric::protos::Response;
use consort_protos::ids::MspId;
use prost::Message;

use super::approval::{Books, Place, StepError, fill_defaults};
use super::definition::{Definition, Parameters, metadata_range};
use super::installed::Installed;
use super::{LIFECYCLE, implicit_collection, names, state};
use crate::chaincode::PackageId;
use crate::endorser::Access;

/// Functions that concern this peer alone and need no channel.
const LOCAL_FUNCTIONS: [&str; 4] = [
    "InstallChaincode",
    "QueryInstalledChaincodes",
    "QueryInstalledChaincode",
    "GetInstalledChaincodePackage",
];
/// Functions of a channel that only an administrator of the peer's organisation may call.
const ORGANISATION_FUNCTIONS: [&str; 3] = [
    "ApproveChaincodeDefinitionForMyOrg",
    "QueryApprovedChaincodeDefinition",
    "QueryApprovedChaincodeDefinitions",
];
/// Functions of a channel that the channel's access rules guard.
const CHANNEL_FUNCTIONS: [&str; 4] = [
    "CommitChaincodeDefinition",
    "CheckCommitReadiness",
    "QueryChaincodeDefinition",
    "QueryChaincodeDefinitions",
];
/// Records that a listing of approvals reads at most.
const APPROVALS_MAX: usize = 10_000;

/// One call of the system chaincode.
pub struct LifecycleCall<'c> {
    /// Who signed the proposal; the signature holds.
    pub creator: &'c Arc<Identity>,
    /// Function and argument.
    pub arguments: &'c [Bytes],
    /// The channel's configuration and the transaction's simulation; none for a call without a channel.
    pub channel: Option<(&'c ChannelBundle, &'c mut TxSimulator)>,
}

/// The system chaincode. Shared as `Arc`.
pub struct LifecycleChaincode {
    installed: Installed,
    access: Arc<Access>,
    msp_id: MspId,
}

impl LifecycleChaincode {
    /// The system chaincode of a peer of an organisation.
    #[must_use]
    pub fn new(installed: Installed, access: Arc<Access>, msp_id: MspId) -> Self {
        Self { installed, access, msp_id }
    }

    /// Answers a call. Failures are responses; nothing here ends the peer.
    #[must_use]
    pub fn invoke(&self, call: LifecycleCall<'_>) -> Response {
        let Some((function, rest)) = call.arguments.split_first() else {
            return failure(500, "lifecycle scc must be invoked with arguments".to_owned());
        };
        let function = String::from_utf8_lossy(function).into_owned();
        let [argument] = rest else {
            return failure(
                500,
                format!(
                    "lifecycle scc operations require exactly two arguments but received {}",
                    rest.len() + 1
                ),
            );
        };
        if let Err(denied) = self.authorize(&function, &call) {
            return failure(500, format!("Failed to authorize invocation due to failed ACL check: {denied}"));
        }
        let result = if LOCAL_FUNCTIONS.contains(&function.as_str()) {
            self.installed.invoke(&function, argument)
        } else {
            match call.channel {
                Some((bundle, simulator)) => {
                    let (installed, msp_id) = (&self.installed, self.msp_id.as_str());
                    let step = Step { installed, msp_id, bundle, books: Books { simulator } };
                    step.invoke(&function, argument)
                }
                None => {
                    Err(StepError::Refused("no channel was named, and this function needs one".to_owned()))
                }
            }
        };
        match result {
            Ok(payload) => Response { status: 200, message: String::new(), payload },
            Err(error) => {
                let status = if matches!(error, StepError::NotFound(_)) { 404 } else { 500 };
                failure(
                    status,
                    format!(
                        "failed to invoke backing implementation of '{function}': {}",
                        with_causes(&error)
                    ),
                )
            }
        }
    }

    fn authorize(&self, function: &str, call: &LifecycleCall<'_>) -> Result<(), String> {
        if LOCAL_FUNCTIONS.contains(&function) || ORGANISATION_FUNCTIONS.contains(&function) {
            return self.access.local(Role::Admin, call.creator);
        }
        if !CHANNEL_FUNCTIONS.contains(&function) {
            return Err(format!("{LIFECYCLE} has no function {function:?}"));
        }
        match &call.channel {
            Some((bundle, _)) => {
                self.access.channel(bundle, &format!("{LIFECYCLE}/{function}"), call.creator)
            }
            None => Err("no channel was named, and this function needs one".to_owned()),
        }
    }
}

impl std::fmt::Debug for LifecycleChaincode {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("LifecycleChaincode").field("msp_id", &self.msp_id).finish_non_exhaustive()
    }
}

fn failure(status: i32, message: String) -> Response {
    Response { status, message, payload: Bytes::new() }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    crate::registry::with_causes(error)
}

/// Reads an argument.
pub(super) fn argument<M: Message + Default>(bytes: &Bytes) -> Result<M, StepError> {
    M::decode(bytes.clone())
        .map_err(|error| StepError::Refused(format!("failed to decode input arg: {error}")))
}

/// A function within a channel.
struct Step<'s> {
    installed: &'s Installed,
    msp_id: &'s str,
    bundle: &'s ChannelBundle,
    books: Books<'s>,
}

impl Step<'_> {
    fn invoke(mut self, function: &str, bytes: &Bytes) -> Result<Bytes, StepError> {
        let result = match function {
            "ApproveChaincodeDefinitionForMyOrg" => self.approve(argument(bytes)?)?.encode_to_vec(),
            "CheckCommitReadiness" => self.readiness(argument(bytes)?)?.encode_to_vec(),
            "CommitChaincodeDefinition" => self.commit(argument(bytes)?)?.encode_to_vec(),
            "QueryChaincodeDefinition" => {
                self.definition(&argument::<QueryChaincodeDefinitionArgs>(bytes)?)?.encode_to_vec()
            }
            "QueryChaincodeDefinitions" => self.definitions()?.encode_to_vec(),
            "QueryApprovedChaincodeDefinition" => {
                self.approved(&argument::<QueryApprovedChaincodeDefinitionArgs>(bytes)?)?.encode_to_vec()
            }
            "QueryApprovedChaincodeDefinitions" => self.all_approved()?.encode_to_vec(),
            other => return Err(StepError::Refused(format!("{LIFECYCLE} has no function {other:?}"))),
        };
        Ok(result.into())
    }

    /// Checks a proposed definition and completes it.
    fn checked(&mut self, mut definition: Definition) -> Result<Definition, StepError> {
        let invalid = |reason| StepError::Refused(format!("error validating chaincode definition: {reason}"));
        names::check(&definition.name, &definition.version).map_err(invalid)?;
        let in_force = self.books.in_force(&definition.name)?;
        let committed = in_force.as_ref().map(|definition| &definition.collections);
        names::check_collections(&definition.collections, committed).map_err(invalid)?;
        names::check_members(self.bundle, &definition.collections).map_err(invalid)?;
        // Nothing chosen is the same as no limits, in the same bytes.
        definition.limits = definition.limits.filter(|limits| *limits != SandboxLimits::default());
        definition.allowance().map_err(StepError::Refused)?;
        fill_defaults(self.bundle, &mut definition)?;
        Ok(definition)
    }

    fn approve(
        &mut self,
        input: ApproveChaincodeDefinitionForMyOrgArgs,
    ) -> Result<ApproveChaincodeDefinitionForMyOrgResult, StepError> {
        let package_id = match input.source.and_then(|source| source.r#type) {
            Some(chaincode_source::Type::LocalPackage(local)) => local.package_id,
            Some(chaincode_source::Type::Unavailable(_)) | None => String::new(),
        };
        let definition = self.checked(Definition {
            name: input.name,
            sequence: input.sequence,
            version: input.version,
            init_required: input.init_required,
            endorsement_plugin: input.endorsement_plugin,
            validation_plugin: input.validation_plugin,
            validation_parameter: input.validation_parameter,
            collections: input.collections.unwrap_or_default(),
            limits: input.limits,
        })?;
        self.books.approve(self.msp_id, &definition, &package_id)?;
        if let Ok(package) = PackageId::parse(&package_id) {
            self.installed.prepare(&package, &definition);
        }
        tracing::info!(
            channel = %self.bundle.channel(), chaincode = %definition.name, sequence = definition.sequence,
            "chaincode definition approved, waiting to be committed"
        );
        Ok(ApproveChaincodeDefinitionForMyOrgResult {})
    }

    fn readiness(
        &mut self,
        input: CheckCommitReadinessArgs,
    ) -> Result<CheckCommitReadinessResult, StepError> {
        let definition = self.checked(Definition {
            name: input.name,
            sequence: input.sequence,
            version: input.version,
            init_required: input.init_required,
            endorsement_plugin: input.endorsement_plugin,
            validation_plugin: input.validation_plugin,
            validation_parameter: input.validation_parameter,
            collections: input.collections.unwrap_or_default(),
            limits: input.limits,
        })?;
        let agreements = self.books.readiness(self.bundle, &definition)?;
        let approvals =
            agreements.iter().map(|(msp_id, agreement)| (msp_id.clone(), agreement.agrees())).collect();
        let mismatches = agreements
            .into_iter()
            .filter(|(_, agreement)| !agreement.agrees())
            .map(|(msp_id, agreement)| {
                (msp_id, check_commit_readiness_result::Mismatches { items: agreement.mismatches })
            })
            .collect();
        Ok(CheckCommitReadinessResult { approvals, mismatches })
    }

    fn commit(
        &mut self,
        input: CommitChaincodeDefinitionArgs,
    ) -> Result<CommitChaincodeDefinitionResult, StepError> {
        let definition = self.checked(Definition {
            name: input.name,
            sequence: input.sequence,
            version: input.version,
            init_required: input.init_required,
            endorsement_plugin: input.endorsement_plugin,
            validation_plugin: input.validation_plugin,
            validation_parameter: input.validation_parameter,
            collections: input.collections.unwrap_or_default(),
            limits: input.limits,
        })?;
        self.books.commit(self.bundle, self.msp_id, &definition)?;
        let chosen = self.installed.package_of(self.books.simulator.snapshot(), &definition);
        if let Some(package) = chosen.map_err(SimulationError::from)? {
            self.installed.prepare(&package, &definition);
        }
        Ok(CommitChaincodeDefinitionResult {})
    }

    fn definition(
        &mut self,
        input: &QueryChaincodeDefinitionArgs,
    ) -> Result<QueryChaincodeDefinitionResult, StepError> {
        let definition = self
            .books
            .definition(&input.name)?
            .ok_or_else(|| StepError::NotFound(format!("namespace {} is not defined", input.name)))?;
        let agreements = self.books.agreements(self.bundle, &definition)?;
        Ok(QueryChaincodeDefinitionResult {
            sequence: definition.sequence,
            version: definition.version,
            endorsement_plugin: definition.endorsement_plugin,
            validation_plugin: definition.validation_plugin,
            validation_parameter: definition.validation_parameter,
            collections: Some(definition.collections),
            init_required: definition.init_required,
            limits: definition.limits,
            approvals: agreements
                .iter()
                .map(|(msp_id, agreement)| (msp_id.clone(), agreement.agrees()))
                .collect(),
        })
    }

    fn definitions(&mut self) -> Result<QueryChaincodeDefinitionsResult, StepError> {
        let mut chaincode_definitions = Vec::new();
        for name in Definition::names(self.books.simulator.snapshot())? {
            let Some(definition) = self.books.definition(&name)? else { continue };
            chaincode_definitions.push(query_chaincode_definitions_result::ChaincodeDefinition {
                name,
                sequence: definition.sequence,
                version: definition.version,
                endorsement_plugin: definition.endorsement_plugin,
                validation_plugin: definition.validation_plugin,
                validation_parameter: definition.validation_parameter,
                collections: Some(definition.collections),
                init_required: definition.init_required,
                limits: definition.limits,
            });
        }
        Ok(QueryChaincodeDefinitionsResult { chaincode_definitions })
    }

    fn approved(
        &mut self,
        input: &QueryApprovedChaincodeDefinitionArgs,
    ) -> Result<QueryApprovedChaincodeDefinitionResult, StepError> {
        let collection = implicit_collection(self.msp_id);
        let mut sequence = input.sequence;
        if sequence == 0 {
            // Not said: what the organisation approved last is the next definition, or the one in force.
            let current = self.books.sequence(&input.name)?;
            let next = state::sequence_name(&input.name, current + 1);
            let pending = self.books.metadata(Place::Collection(&collection), state::NAMESPACES, &next)?;
            sequence = if pending.is_some() { current + 1 } else { current };
        }
        let (parameters, source) = self.approval(&collection, &input.name, sequence)?.ok_or_else(|| {
            StepError::NotFound(format!(
                "could not fetch approved chaincode definition (name: '{}', sequence: '{sequence}') on channel '{}'",
                input.name,
                self.bundle.channel()
            ))
        })?;
        Ok(QueryApprovedChaincodeDefinitionResult {
            sequence,
            version: parameters.endorsement.version,
            endorsement_plugin: parameters.endorsement.endorsement_plugin,
            validation_plugin: parameters.validation.validation_plugin,
            validation_parameter: parameters.validation.validation_parameter,
            collections: Some(parameters.collections),
            init_required: parameters.endorsement.init_required,
            limits: parameters.endorsement.limits,
            source: Some(source),
        })
    }

    fn all_approved(&mut self) -> Result<QueryApprovedChaincodeDefinitionsResult, StepError> {
        let collection = implicit_collection(self.msp_id);
        let mut approved_chaincode_definitions = Vec::new();
        for (name, sequence) in self.approval_names(&collection)? {
            let Some((parameters, source)) = self.approval(&collection, &name, sequence)? else { continue };
            approved_chaincode_definitions.push(
                query_approved_chaincode_definitions_result::ApprovedChaincodeDefinition {
                    name,
                    sequence,
                    version: parameters.endorsement.version,
                    endorsement_plugin: parameters.endorsement.endorsement_plugin,
                    validation_plugin: parameters.validation.validation_plugin,
                    validation_parameter: parameters.validation.validation_parameter,
                    collections: Some(parameters.collections),
                    init_required: parameters.endorsement.init_required,
                    limits: parameters.endorsement.limits,
                    source: Some(source),
                },
            );
        }
        Ok(QueryApprovedChaincodeDefinitionsResult { approved_chaincode_definitions })
    }

    /// Names and sequences of the organisation's approvals.
    fn approval_names(&mut self, collection: &str) -> Result<Vec<(String, i64)>, StepError> {
        let (start, end) = metadata_range();
        let range = self.books.simulator.private_range(LIFECYCLE, collection, &start, &end)?;
        let mut names = Vec::new();
        loop {
            let batch = self.books.simulator.next_batch(range)?;
            for (key, _) in &batch.entries {
                let parts = key.strip_prefix(start.as_str()).and_then(|record| record.rsplit_once('#'));
                if let Some((name, sequence)) = parts
                    && let Ok(sequence) = sequence.parse()
                {
                    names.push((name.to_owned(), sequence));
                }
            }
            if !batch.has_more || names.len() >= APPROVALS_MAX {
                return Ok(names);
            }
        }
    }

    fn approval(
        &mut self,
        collection: &str,
        name: &str,
        sequence: i64,
    ) -> Result<Option<(Parameters, ChaincodeSource)>, StepError> {
        let record = state::sequence_name(name, sequence);
        let place = Place::Collection(collection);
        if self.books.metadata(place, state::NAMESPACES, &record)?.is_none() {
            return Ok(None);
        }
        let parameters = self.books.parameters(place, &record)?;
        let package_id = self.books.package(collection, &record)?;
        let source = if package_id.is_empty() {
            chaincode_source::Type::Unavailable(chaincode_source::Unavailable {})
        } else {
            chaincode_source::Type::LocalPackage(chaincode_source::Local { package_id })
        };
        Ok(Some((parameters, ChaincodeSource { r#type: Some(source) })))
    }
}
