//! Approving and committing definitions: the steps over one transaction's simulation.
//!
//! Every read and write is recorded; endorsers of several organisations must record the same, so the steps follow
//! Fabric's (`core/chaincode/lifecycle/lifecycle.go`, `serializer.go`) one by one.

use std::collections::BTreeMap;

use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_ledger::state::StateReader as _;
use consort_ledger::{SimulationError, TxSimulator};
use consort_protos::fabric::lifecycle::StateMetadata;
use consort_protos::fabric::protos::{ApplicationPolicy, application_policy};
use prost::Message;

use super::definition::{Definition, DefinitionError, ENDORSEMENT_PLUGIN, Parameters, VALIDATION_PLUGIN};
use super::state::{self, Record};
use super::{LIFECYCLE, implicit_collection};

/// Policy of definitions that name none.
const ENDORSEMENT_POLICY: &str = "/Channel/Application/Endorsement";
/// Namespace of the lifecycle that came before this one; its definitions would be found there.
const LEGACY_LIFECYCLE: &str = "lscc";

/// Why a step cannot be done.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    /// The request is at fault; the text is Fabric's.
    #[error("{0}")]
    Refused(String),
    /// There is nothing of that name.
    #[error("{0}")]
    NotFound(String),
    /// A rule of the simulation, or the books.
    #[error(transparent)]
    Simulation(#[from] SimulationError),
    /// A definition in the books does not read.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
}

/// One organisation's agreement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Agreement {
    /// The fields that differ from the proposal; none when the organisation agrees.
    pub(super) mismatches: Vec<String>,
}

impl Agreement {
    pub(super) fn agrees(&self) -> bool {
        self.mismatches.is_empty()
    }
}

/// The part of the state that a record lies in.
#[derive(Clone, Copy)]
pub(super) enum Place<'p> {
    /// The channel's state.
    Public,
    /// A collection.
    Collection(&'p str),
}

/// The lifecycle's keys within one simulation.
pub(super) struct Books<'s> {
    pub(super) simulator: &'s mut TxSimulator,
}

impl Books<'_> {
    pub(super) fn get(&mut self, place: Place<'_>, key: &str) -> Result<Option<Bytes>, StepError> {
        Ok(match place {
            Place::Public => self.simulator.get(LIFECYCLE, key)?,
            Place::Collection(collection) => self.simulator.private(LIFECYCLE, collection, key)?,
        })
    }

    fn put(&mut self, place: Place<'_>, key: &str, value: Bytes) -> Result<(), StepError> {
        match place {
            Place::Public => self.simulator.put(LIFECYCLE, key, value)?,
            Place::Collection(collection) => self.simulator.put_private(LIFECYCLE, collection, key, value)?,
        }
        Ok(())
    }

    pub(super) fn metadata(
        &mut self,
        place: Place<'_>,
        kind: &str,
        name: &str,
    ) -> Result<Option<StateMetadata>, StepError> {
        let stored = self.get(place, &state::metadata_key(kind, name))?;
        stored.map(StateMetadata::decode).transpose().map_err(|error| {
            StepError::Refused(format!("could not unmarshal metadata for namespace {kind}/{name}: {error}"))
        })
    }

    pub(super) fn sequence(&mut self, name: &str) -> Result<i64, StepError> {
        let stored = self.get(Place::Public, &state::field_key(state::NAMESPACES, name, state::SEQUENCE))?;
        state::read_integer(stored)
            .map_err(|reason| StepError::Refused(format!("could not get current sequence: {reason}")))
    }

    pub(super) fn definition(&mut self, name: &str) -> Result<Option<Definition>, StepError> {
        Definition::read_with(&mut |key: &str| self.get(Place::Public, key), name)
    }

    pub(super) fn parameters(&mut self, place: Place<'_>, name: &str) -> Result<Parameters, StepError> {
        Parameters::read_with(&mut |key: &str| self.get(place, key), name)
    }

    pub(super) fn package(&mut self, collection: &str, name: &str) -> Result<String, StepError> {
        let key = state::field_key(state::CHAINCODE_SOURCES, name, state::PACKAGE_ID);
        let stored = self.get(Place::Collection(collection), &key)?;
        state::read_text(stored).map_err(|reason| {
            StepError::Refused(format!("could not deserialize package id of {name}: {reason}"))
        })
    }

    /// Writes a record: what has not changed is not written again, and fields that it no longer has are deleted.
    fn write(&mut self, place: Place<'_>, name: &str, record: &Record) -> Result<(), StepError> {
        let stored = self.metadata(place, record.kind, name)?;
        let mut existing = BTreeMap::new();
        for field in stored.iter().flat_map(|metadata| &metadata.fields) {
            let value = self.get(place, &state::field_key(record.kind, name, field))?;
            existing.insert(field.clone(), value);
        }
        for (field, value) in &record.fields {
            let before = existing.remove(*field).flatten();
            if before.as_ref() != Some(value) {
                self.put(place, &state::field_key(record.kind, name, field), value.clone())?;
            }
        }
        let metadata = record.metadata();
        if stored.is_none_or(|stored| stored.encode_to_vec() != metadata) {
            self.put(place, &state::metadata_key(record.kind, name), metadata)?;
        }
        for field in existing.into_keys() {
            self.put(place, &state::field_key(record.kind, name, &field), Bytes::new())?;
        }
        Ok(())
    }

    /// Compares a record with the hashes of what lies in a collection, whose values this peer need not have.
    fn compare(&mut self, collection: &str, name: &str, record: &Record) -> Result<Agreement, StepError> {
        let key = state::metadata_key(record.kind, name);
        if !self.has_hash(collection, &key, &record.metadata())? {
            return Ok(Agreement { mismatches: vec![record.datatype.to_owned()] });
        }
        let mut mismatches = Vec::new();
        for (field, value) in &record.fields {
            if !self.has_hash(collection, &state::field_key(record.kind, name, field), value)? {
                mismatches.push((*field).to_owned());
            }
        }
        Ok(Agreement { mismatches })
    }

    fn has_hash(&mut self, collection: &str, key: &str, value: &Bytes) -> Result<bool, StepError> {
        let hash = self.simulator.private_hash(LIFECYCLE, collection, key)?;
        Ok(hash.is_some_and(|hash| hash[..] == self.simulator.snapshot().hash_algorithm().hash(value)))
    }

    /// The definition in force, as Fabric looks it up to check a proposed one against it.
    pub(super) fn in_force(&mut self, name: &str) -> Result<Option<Definition>, StepError> {
        let definition = self.definition(name)?;
        if definition.is_none() {
            self.simulator.get(LEGACY_LIFECYCLE, name)?;
        }
        Ok(definition)
    }

    /// Writes an organisation's approval.
    pub(super) fn approve(
        &mut self,
        msp_id: &str,
        definition: &Definition,
        package_id: &str,
    ) -> Result<(), StepError> {
        let (name, requested) = (&definition.name, definition.sequence);
        let current = self.sequence(name)?;
        check_next(current, requested)?;
        if requested == current {
            let committed = self.definition(name)?.ok_or_else(|| {
                StepError::Refused(format!(
                    "missing metadata for currently committed sequence number ({current})"
                ))
            })?;
            if committed.parameters() != definition.parameters() {
                return Err(StepError::Refused(format!(
                    "attempted to redefine the current committed sequence ({current}) for namespace {name} with different \
                     parameters"
                )));
            }
        }
        let collection = implicit_collection(msp_id);
        let place = Place::Collection(&collection);
        let record = state::sequence_name(name, requested);
        if requested == current + 1 && self.is_unchanged(&collection, &record, definition, package_id)? {
            return Err(StepError::Refused(format!(
                "attempted to redefine uncommitted sequence ({requested}) for namespace {name} with unchanged content"
            )));
        }
        self.write(place, &record, &definition.parameters().record())?;
        let source = Record {
            kind: state::CHAINCODE_SOURCES,
            datatype: state::LOCAL_PACKAGE_TYPE,
            fields: vec![(state::PACKAGE_ID, state::text(package_id))],
        };
        self.write(place, &record, &source)
    }

    /// Whether the organisation has approved just this before.
    fn is_unchanged(
        &mut self,
        collection: &str,
        record: &str,
        definition: &Definition,
        package_id: &str,
    ) -> Result<bool, StepError> {
        let place = Place::Collection(collection);
        if self.metadata(place, state::NAMESPACES, record)?.is_none() {
            return Ok(false);
        }
        let same = self.parameters(place, record)? == definition.parameters();
        Ok(same && self.package(collection, record)? == package_id)
    }

    /// Who agrees to a definition: each organisation's approval is compared by its hashes.
    pub(super) fn agreements(
        &mut self,
        bundle: &ChannelBundle,
        definition: &Definition,
    ) -> Result<BTreeMap<String, Agreement>, StepError> {
        let record = state::sequence_name(&definition.name, definition.sequence);
        let expected = definition.parameters().record();
        let mut agreements = BTreeMap::new();
        for organisation in &bundle.application().organisations {
            let msp_id = organisation.msp_id.as_str();
            let agreement = self.compare(&implicit_collection(msp_id), &record, &expected)?;
            agreements.insert(msp_id.to_owned(), agreement);
        }
        Ok(agreements)
    }

    /// Checks that a definition is the next one and tells who agrees to it.
    pub(super) fn readiness(
        &mut self,
        bundle: &ChannelBundle,
        definition: &Definition,
    ) -> Result<BTreeMap<String, Agreement>, StepError> {
        let current = self.sequence(&definition.name)?;
        if definition.sequence != current + 1 {
            return Err(StepError::Refused(format!(
                "requested sequence is {}, but new definition must be sequence {}",
                definition.sequence,
                current + 1
            )));
        }
        self.agreements(bundle, definition)
    }

    /// Writes a definition into the channel's state.
    pub(super) fn commit(
        &mut self,
        bundle: &ChannelBundle,
        msp_id: &str,
        definition: &Definition,
    ) -> Result<(), StepError> {
        let agreements = self.readiness(bundle, definition)?;
        if !agreements.get(msp_id).is_some_and(Agreement::agrees) {
            return Err(StepError::Refused(format!(
                "chaincode definition not agreed to by this org ({msp_id})"
            )));
        }
        self.write(Place::Public, &definition.name, &definition.record())
    }
}

fn check_next(current: i64, requested: i64) -> Result<(), StepError> {
    let refused = |text| Err(StepError::Refused(text));
    if requested == 0 && current == 0 {
        return refused("requested sequence is 0, but first definable sequence number is 1".to_owned());
    }
    if requested < current {
        return refused(format!(
            "currently defined sequence {current} is larger than requested sequence {requested}"
        ));
    }
    if requested > current + 1 {
        return refused(format!(
            "requested sequence {requested} is larger than the next available sequence number {}",
            current + 1
        ));
    }
    Ok(())
}

/// Fills in what a proposed definition leaves open.
pub(super) fn fill_defaults(bundle: &ChannelBundle, definition: &mut Definition) -> Result<(), StepError> {
    if definition.endorsement_plugin.is_empty() {
        ENDORSEMENT_PLUGIN.clone_into(&mut definition.endorsement_plugin);
    }
    if definition.validation_plugin.is_empty() {
        VALIDATION_PLUGIN.clone_into(&mut definition.validation_plugin);
    }
    if definition.validation_parameter.is_empty() {
        if bundle.policies().policy(ENDORSEMENT_POLICY).is_none() {
            return Err(StepError::Refused(format!(
                "policy '{ENDORSEMENT_POLICY}' must be defined for channel '{}' before chaincode operations can be attempted",
                bundle.channel()
            )));
        }
        let reference = application_policy::Type::ChannelConfigPolicyReference(ENDORSEMENT_POLICY.to_owned());
        definition.validation_parameter =
            ApplicationPolicy { r#type: Some(reference) }.encode_to_vec().into();
    }
    Ok(())
}
