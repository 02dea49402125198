//! A chaincode's definition, and the parameters that organisations approve.

use bytes::Bytes;
use consort_ledger::StateSnapshot;
use consort_protos::fabric::lifecycle::{
    ChaincodeEndorsementInfo, ChaincodeValidationInfo, SandboxLimits, StateMetadata,
};
use consort_protos::fabric::protos::CollectionConfigPackage;
use prost::Message;

use super::LIFECYCLE;
use super::state::{self, Record};
use crate::chaincode::Allowance;

/// Endorsement plugin of definitions that name none.
pub(super) const ENDORSEMENT_PLUGIN: &str = "escc";
/// Validation plugin of definitions that name none.
pub(super) const VALIDATION_PLUGIN: &str = "vscc";

/// What a channel has agreed to run under a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// The chaincode's name.
    pub name: String,
    /// Counts the definitions of this name, from 1.
    pub sequence: i64,
    /// The version, free text of the organisations.
    pub version: String,
    /// Whether the first invocation must be the initialisation.
    pub init_required: bool,
    /// The endorsement plugin.
    pub endorsement_plugin: String,
    /// The validation plugin.
    pub validation_plugin: String,
    /// The policy: a serialized `protos.ApplicationPolicy`.
    pub validation_parameter: Bytes,
    /// The collections.
    pub collections: CollectionConfigPackage,
    /// What one execution may use; absent when all is left open.
    pub limits: Option<SandboxLimits>,
}

/// A definition in the state cannot be read. The state was written by validated transactions, so this is a fault of the books.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// The state cannot be read.
    #[error("the state cannot be read")]
    Ledger(#[source] consort_ledger::Error),
    /// The record is of another type.
    #[error("the definition of {chaincode} has type {found}")]
    Type {
        /// The chaincode.
        chaincode: String,
        /// The type.
        found: String,
    },
    /// A field does not read.
    #[error("field {field} of the definition of {chaincode} cannot be read: {reason}")]
    Field {
        /// The chaincode.
        chaincode: String,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads one public key of the lifecycle's namespace: from a snapshot, or through a recording simulation.
pub(super) type Read<'r, E> = dyn FnMut(&str) -> Result<Option<Bytes>, E> + 'r;

impl Definition {
    /// Reads the definition of a chaincode; `None` when the channel has none.
    ///
    /// # Errors
    /// [`DefinitionError`].
    pub fn read(state: &StateSnapshot, name: &str) -> Result<Option<Self>, DefinitionError> {
        let mut read = |key: &str| {
            state
                .get(LIFECYCLE, key)
                .map(|found| found.map(|value| value.value))
                .map_err(DefinitionError::Ledger)
        };
        Self::read_with(&mut read, name)
    }

    /// Reads the definition with the help of a function that reads single keys.
    pub(super) fn read_with<E: From<DefinitionError>>(
        read: &mut Read<'_, E>,
        name: &str,
    ) -> Result<Option<Self>, E> {
        let Some(metadata) = read(&state::metadata_key(state::NAMESPACES, name))? else { return Ok(None) };
        let field =
            |field, reason: String| DefinitionError::Field { chaincode: name.to_owned(), field, reason };
        let metadata =
            StateMetadata::decode(metadata).map_err(|error| field("metadata", error.to_string()))?;
        if metadata.datatype != state::DEFINITION_TYPE {
            return Err(DefinitionError::Type { chaincode: name.to_owned(), found: metadata.datatype }.into());
        }
        let mut stored = |field: &str| read(&state::field_key(state::NAMESPACES, name, field));
        let sequence =
            state::read_integer(stored(state::SEQUENCE)?).map_err(|reason| field(state::SEQUENCE, reason))?;
        let endorsement = message::<ChaincodeEndorsementInfo>(stored(state::ENDORSEMENT_INFO)?)
            .map_err(|reason| field(state::ENDORSEMENT_INFO, reason))?;
        let validation = message::<ChaincodeValidationInfo>(stored(state::VALIDATION_INFO)?)
            .map_err(|reason| field(state::VALIDATION_INFO, reason))?;
        let collections = message::<CollectionConfigPackage>(stored(state::COLLECTIONS)?)
            .map_err(|reason| field(state::COLLECTIONS, reason))?;
        Ok(Some(Self {
            name: name.to_owned(),
            sequence,
            version: endorsement.version,
            init_required: endorsement.init_required,
            endorsement_plugin: endorsement.endorsement_plugin,
            validation_plugin: validation.validation_plugin,
            validation_parameter: validation.validation_parameter,
            collections,
            limits: endorsement.limits,
        }))
    }

    /// The names of all chaincodes that are defined, sorted.
    ///
    /// # Errors
    /// [`DefinitionError::Ledger`].
    pub fn names(state: &StateSnapshot) -> Result<Vec<String>, DefinitionError> {
        let (start, end) = metadata_range();
        let pairs = state.range(LIFECYCLE, &start, &end).map_err(DefinitionError::Ledger)?;
        pairs
            .map(|pair| {
                let (key, _) = pair.map_err(DefinitionError::Ledger)?;
                Ok(key.strip_prefix(start.as_str()).unwrap_or(&key).to_owned())
            })
            .collect()
    }

    /// What one execution may use: the definition's limits, with the defaults of what it leaves open.
    ///
    /// # Errors
    /// A limit is larger than any peer has room for; the text names it.
    pub fn allowance(&self) -> Result<Allowance, String> {
        let SandboxLimits { fuel, memory_bytes, table_elements, call_depth, stack_bytes } =
            self.limits.unwrap_or_default();
        let asked = Allowance { fuel, memory_bytes, table_elements, call_depth, stack_bytes };
        Allowance::of_definition(asked).map_err(|reason| {
            format!("the definition of chaincode {} cannot be executed: {reason}", self.name)
        })
    }

    /// The part that organisations approve.
    #[must_use]
    pub fn parameters(&self) -> Parameters {
        Parameters {
            endorsement: ChaincodeEndorsementInfo {
                version: self.version.clone(),
                init_required: self.init_required,
                endorsement_plugin: self.endorsement_plugin.clone(),
                limits: self.limits,
            },
            validation: ChaincodeValidationInfo {
                validation_plugin: self.validation_plugin.clone(),
                validation_parameter: self.validation_parameter.clone(),
            },
            collections: self.collections.clone(),
        }
    }

    /// The record that a commit writes.
    #[must_use]
    pub fn record(&self) -> Record {
        let mut fields = vec![(state::SEQUENCE, state::integer(self.sequence))];
        fields.extend(self.parameters().fields());
        Record { kind: state::NAMESPACES, datatype: state::DEFINITION_TYPE, fields }
    }
}

/// First and last key of the definitions' metadata.
pub(super) fn metadata_range() -> (String, String) {
    let start = state::metadata_key(state::NAMESPACES, "");
    // '0' follows '/'.
    let end = format!("{}0", &start[..start.len() - 1]);
    (start, end)
}

fn message<M: Message + Default>(stored: Option<Bytes>) -> Result<M, String> {
    M::decode(state::read_bytes(stored)?).map_err(|error| error.to_string())
}

/// What organisations approve: a definition without its name and sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// Version, initialisation, endorsement plugin.
    pub endorsement: ChaincodeEndorsementInfo,
    /// Validation plugin and policy.
    pub validation: ChaincodeValidationInfo,
    /// The collections.
    pub collections: CollectionConfigPackage,
}

impl Parameters {
    fn fields(&self) -> Vec<(&'static str, Bytes)> {
        vec![
            (state::ENDORSEMENT_INFO, state::bytes(self.endorsement.encode_to_vec())),
            (state::VALIDATION_INFO, state::bytes(self.validation.encode_to_vec())),
            (state::COLLECTIONS, state::bytes(self.collections.encode_to_vec())),
        ]
    }

    /// The record of an approval.
    #[must_use]
    pub fn record(&self) -> Record {
        Record { kind: state::NAMESPACES, datatype: state::PARAMETERS_TYPE, fields: self.fields() }
    }

    /// Reads an approval's fields with the help of a function that reads single keys of the collection.
    pub(super) fn read_with<E: From<DefinitionError>>(read: &mut Read<'_, E>, name: &str) -> Result<Self, E> {
        let field =
            |field, reason: String| DefinitionError::Field { chaincode: name.to_owned(), field, reason };
        let mut stored = |field: &str| read(&state::field_key(state::NAMESPACES, name, field));
        Ok(Self {
            endorsement: message(stored(state::ENDORSEMENT_INFO)?)
                .map_err(|reason| field(state::ENDORSEMENT_INFO, reason))?,
            validation: message(stored(state::VALIDATION_INFO)?)
                .map_err(|reason| field(state::VALIDATION_INFO, reason))?,
            collections: message(stored(state::COLLECTIONS)?)
                .map_err(|reason| field(state::COLLECTIONS, reason))?,
        })
    }
}
