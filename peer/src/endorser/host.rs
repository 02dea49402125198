//! A transaction's simulation as the books of a running chaincode.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_crypto::preimage::{PrivateWrite, SALT_SECRET, SALT_SECRET_BYTES_MIN};
use consort_ledger::simulator::RangeId;
use consort_ledger::{Simulation, SimulationError, StateSnapshot, TxSimulator};
use consort_msp::Identity;
use consort_protos::fabric::msp::SerializedIdentity;
use consort_protos::fabric::protos::{StaticCollectionConfig, collection_policy_config};
use consort_protos::ids::MspId;
use prost::Message;

use super::Access;
use crate::chaincode::host::{Modifications, Pairs};
use crate::chaincode::{
    Callee, Creator, Host, HostError, Modification, PackageId, PackageStore, Page, RangeHandle,
    TransactionContext,
};
use crate::channel::ChannelHandle;
use crate::lifecycle::{Definition, IMPLICIT_COLLECTION, LIFECYCLE, sources, state};
use crate::private::collections;
use crate::registry::{Channels, with_causes};

/// Metadata entry that holds a key's endorsement policy (Fabric `peer/policy.proto`, `MetaDataKeys`).
pub(super) const VALIDATION_PARAMETER: &str = "VALIDATION_PARAMETER";
/// Where the lifecycle before this one kept definitions; looked at when a name is not defined.
const LEGACY_LIFECYCLE: &str = "lscc";
/// Access rule of calls from chaincode to chaincode.
const CHAINCODE_TO_CHAINCODE: &str = "peer/ChaincodeToChaincode";

/// What executions on this peer have in common.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    pub(super) channels: Arc<Channels>,
    pub(super) packages: Arc<PackageStore>,
    pub(super) access: Arc<Access>,
    pub(super) msp_id: MspId,
}

/// The books of one channel during one transaction.
pub(super) struct ChannelHost {
    surroundings: Surroundings,
    bundle: Arc<ChannelBundle>,
    channel: Arc<ChannelHandle>,
    snapshot: StateSnapshot,
    context: TransactionContext,
    creator: Arc<Identity>,
    /// From which the salts of private values are derived; chaincode does not see it.
    salt_secret: Option<Bytes>,
    /// The chaincode whose initialisation this is, if it is one.
    initialised: Option<String>,
    work: Mutex<Work>,
}

struct Work {
    /// Taken away at the end; an execution that outlives its time finds nothing.
    simulator: Option<TxSimulator>,
    ranges: Vec<RangeState>,
    /// What the creator may do with each collection: by chaincode and collection.
    rights: BTreeMap<(String, String), Rights>,
    /// Definitions whose collections were looked up, by chaincode.
    definitions: BTreeMap<String, Arc<Definition>>,
}

struct RangeState {
    id: RangeId,
    finished: bool,
}

#[derive(Clone, Copy)]
struct Rights {
    read: bool,
    write: bool,
    /// Whether values are hashed with a salt.
    salted: bool,
}

impl ChannelHost {
    pub(super) fn new(
        surroundings: Surroundings,
        bundle: Arc<ChannelBundle>,
        channel: Arc<ChannelHandle>,
        context: TransactionContext,
        creator: Arc<Identity>,
        salt_secret: Option<Bytes>,
    ) -> Self {
        let snapshot = channel.ledger().snapshot();
        let work = Work {
            simulator: Some(TxSimulator::new(snapshot.clone(), context.tx_id.clone())),
            ranges: Vec::new(),
            rights: BTreeMap::new(),
            definitions: BTreeMap::new(),
        };
        let work = Mutex::new(work);
        let initialised = None;
        Self { surroundings, bundle, channel, snapshot, context, creator, salt_secret, initialised, work }
    }

    /// Takes the transaction for the initialisation of a chaincode, which may not touch private data (Fabric `core/chaincode/handler.go`).
    pub(super) fn initialising(mut self, chaincode: &str) -> Self {
        self.initialised = Some(chaincode.to_owned());
        self
    }

    /// The state that the transaction reads.
    pub(super) fn snapshot(&self) -> &StateSnapshot {
        &self.snapshot
    }

    /// Ends the simulation; `None` when it was ended before.
    pub(super) fn finish(&self) -> Option<Simulation> {
        self.lock().simulator.take().map(TxSimulator::finish)
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the simulator; a refusal gets the form in which Fabric's shims show it.
    pub(super) fn simulate<T>(
        &self,
        message: &str,
        step: impl FnOnce(&mut TxSimulator) -> Result<T, SimulationError>,
    ) -> Result<T, HostError> {
        let mut work = self.lock();
        let simulator = work.simulator.as_mut().ok_or_else(ended)?;
        step(simulator).map_err(|error| match error {
            SimulationError::Rule(text) => self.refused(message, &text),
            other => HostError::Broken(with_causes(&other)),
        })
    }

    fn refused(&self, message: &str, text: &str) -> HostError {
        HostError::Refused(format!("{message} failed: transaction ID: {}: {text}", self.context.tx_id))
    }

    /// Finds the definition of an application's chaincode. The read of its sequence is recorded: a transaction that was endorsed
    /// before a new definition is committed becomes invalid after it.
    pub(super) fn definition(&self, name: &str) -> Result<Option<Arc<Definition>>, HostError> {
        self.simulate("INVOKE_CHAINCODE", |simulator| {
            let sequence =
                simulator.get(LIFECYCLE, &state::field_key(state::NAMESPACES, name, state::SEQUENCE))?;
            if sequence.is_none() {
                simulator.get(LEGACY_LIFECYCLE, name)?;
            }
            Ok(())
        })?;
        self.definition_in_force(name)
    }

    fn definition_in_force(&self, name: &str) -> Result<Option<Arc<Definition>>, HostError> {
        let found = self.channel.definitions().definition(&self.snapshot, name);
        found.map_err(|error| HostError::Broken(with_causes(&error)))
    }

    /// The installed package for a definition.
    pub(super) fn package(&self, definition: &Definition) -> Result<Option<PackageId>, HostError> {
        let Surroundings { packages, msp_id, .. } = &self.surroundings;
        sources::package_of(&self.snapshot, packages, msp_id.as_str(), definition)
            .map_err(|error| HostError::Broken(with_causes(&error)))
    }

    /// What the creator may do with a collection. The first question about a chaincode reads its definition, recorded.
    fn rights(&self, message: &str, chaincode: &str, collection: &str) -> Result<Rights, HostError> {
        if self.initialised.as_deref() == Some(chaincode) {
            return Err(self.refused(message, "private data APIs are not allowed in chaincode Init()"));
        }
        let key = (chaincode.to_owned(), collection.to_owned());
        if let Some(rights) = self.lock().rights.get(&key) {
            return Ok(*rights);
        }
        let definition = self.recorded_definition(message, chaincode)?;
        let rights = self.judge_rights(message, &definition, collection)?;
        self.lock().rights.insert(key, rights);
        Ok(rights)
    }

    fn recorded_definition(&self, message: &str, chaincode: &str) -> Result<Arc<Definition>, HostError> {
        if let Some(definition) = self.lock().definitions.get(chaincode) {
            return Ok(Arc::clone(definition));
        }
        self.simulate(message, |simulator| {
            simulator.get(LIFECYCLE, &state::metadata_key(state::NAMESPACES, chaincode))?;
            for field in
                [state::SEQUENCE, state::ENDORSEMENT_INFO, state::VALIDATION_INFO, state::COLLECTIONS]
            {
                simulator.get(LIFECYCLE, &state::field_key(state::NAMESPACES, chaincode, field))?;
            }
            Ok(())
        })?;
        let definition = self
            .definition_in_force(chaincode)?
            .ok_or_else(|| self.refused(message, &format!("chaincode {chaincode} not found")))?;
        self.lock().definitions.insert(chaincode.to_owned(), Arc::clone(&definition));
        Ok(definition)
    }

    fn judge_rights(
        &self,
        message: &str,
        definition: &Definition,
        collection: &str,
    ) -> Result<Rights, HostError> {
        let everything = Rights { read: true, write: true, salted: false };
        if let Some(msp_id) = collection.strip_prefix(IMPLICIT_COLLECTION) {
            let known = &self.bundle.application().organisations;
            if known.iter().any(|organisation| organisation.msp_id.as_str() == msp_id) {
                return Ok(everything);
            }
        }
        if definition.collections.config.is_empty() {
            return Err(self.refused(
                message,
                &format!(
                    "collection config not defined for chaincode [{}], pass the collection configuration upon chaincode \
                     definition/instantiation",
                    definition.name
                ),
            ));
        }
        let config = collections::find(&definition.collections, collection).ok_or_else(|| {
            let text = format!(
                "collection [{collection}] not defined in the collection config for chaincode [{}]",
                definition.name
            );
            self.refused(message, &text)
        })?;
        let everything = Rights { salted: config.salted_hashes, ..everything };
        if !config.member_only_read && !config.member_only_write {
            return Ok(everything);
        }
        if self.is_member(config) {
            return Ok(everything);
        }
        Ok(Rights { read: !config.member_only_read, write: !config.member_only_write, ..everything })
    }

    fn is_member(&self, config: &StaticCollectionConfig) -> bool {
        let policy = config.member_orgs_policy.as_ref().and_then(|policy| policy.payload.as_ref());
        let Some(collection_policy_config::Payload::SignaturePolicy(envelope)) = policy else { return false };
        let Ok(policy) = consort_msp::policy::SignaturePolicy::from_proto(envelope) else { return false };
        consort_msp::policy::Policy::signature(
            "members of the collection",
            policy,
            Arc::clone(self.bundle.msps()),
        )
        .evaluate_identities(std::slice::from_ref(&self.creator))
        .is_ok()
    }

    fn may_read(&self, message: &str, chaincode: &str, collection: &str) -> Result<(), HostError> {
        if self.rights(message, chaincode, collection)?.read {
            return Ok(());
        }
        Err(self.refused(
            message,
            &format!(
                "tx creator does not have read access permission on privatedata in chaincodeName:{chaincode} \
                 collectionName: {collection}"
            ),
        ))
    }

    fn may_write(&self, message: &str, chaincode: &str, collection: &str) -> Result<(), HostError> {
        if self.rights(message, chaincode, collection)?.write {
            return Ok(());
        }
        Err(self.refused(
            message,
            &format!(
                "tx creator does not have write access permission on privatedata in chaincodeName:{chaincode} \
                 collectionName: {collection}"
            ),
        ))
    }

    /// The salt of a value, where the collection asks for one: the same at all endorsers of the proposal, and unknown to whom the client does
    /// not give its secret.
    fn salt(
        &self,
        message: &str,
        chaincode: &str,
        collection: &str,
        key: &str,
    ) -> Result<Option<[u8; 32]>, HostError> {
        if !self.rights(message, chaincode, collection)?.salted {
            return Ok(None);
        }
        let secret = self.salt_secret.as_ref().filter(|secret| secret.len() >= SALT_SECRET_BYTES_MIN);
        let Some(secret) = secret else {
            let text = format!(
                "collection [{collection}] of chaincode [{chaincode}] hashes values with a salt, and the proposal's transient data has \
                 no entry {SALT_SECRET} of at least {SALT_SECRET_BYTES_MIN} bytes; remedy: Consort's client SDK adds it to calls with \
                 transient data, with other clients set it to random bytes, fresh for each proposal"
            );
            return Err(self.refused(message, &text));
        };
        let TransactionContext { channel, tx_id, .. } = &self.context;
        let write = PrivateWrite { channel, tx_id, namespace: chaincode, collection, key };
        Ok(Some(self.bundle.hash_algorithm().private_salt(secret, &write)))
    }

    fn may_set_key_policies(&self, message: &str) -> Result<(), HostError> {
        if self.bundle.application().capabilities.key_level_endorsement() {
            return Ok(());
        }
        let text = "key level endorsement is not enabled, channel application capability of V1_3 or later is required";
        Err(self.refused(message, text))
    }

    fn keep_range(&self, id: RangeId) -> RangeHandle {
        let mut work = self.lock();
        work.ranges.push(RangeState { id, finished: false });
        RangeHandle(work.ranges.len() - 1)
    }
}

fn policy_entries(policy: Bytes) -> BTreeMap<String, Bytes> {
    let entry = (VALIDATION_PARAMETER.to_owned(), policy);
    std::iter::once(entry).filter(|(_, policy)| !policy.is_empty()).collect()
}

fn ended() -> HostError {
    HostError::Broken("the simulation has ended".to_owned())
}

impl Host for ChannelHost {
    fn transaction(&self) -> &TransactionContext {
        &self.context
    }

    fn creator(&self) -> Result<Creator, HostError> {
        let certificate = self.creator.certificate();
        let serialized = SerializedIdentity::decode(self.creator.serialized().clone())
            .map_err(|error| HostError::Broken(error.to_string()))?;
        Ok(Creator {
            msp_id: self.creator.msp_id().to_string(),
            certificate: serialized.id_bytes.to_vec(),
            common_name: self.creator.name().to_owned(),
            id: format!("x509::{}::{}", certificate.subject(), certificate.issuer()),
            organizational_units: self.creator.organizational_units().to_vec(),
            attributes: certificate.attributes().clone(),
        })
    }

    fn get(&self, namespace: &str, key: &str) -> Result<Option<Bytes>, HostError> {
        self.simulate("GET_STATE", |simulator| simulator.get(namespace, key))
    }

    fn get_many(&self, namespace: &str, keys: &[String]) -> Result<Vec<Option<Bytes>>, HostError> {
        self.simulate("GET_STATE_MULTIPLE", |simulator| simulator.get_many(namespace, keys))
    }

    fn put(&self, namespace: &str, key: &str, value: Bytes) -> Result<(), HostError> {
        let message = if value.is_empty() { "DEL_STATE" } else { "PUT_STATE" };
        self.simulate(message, |simulator| simulator.put(namespace, key, value))
    }

    fn range(&self, namespace: &str, start: &str, end: &str) -> Result<RangeHandle, HostError> {
        let id =
            self.simulate("GET_STATE_BY_RANGE", |simulator| Ok(simulator.range(namespace, start, end)))?;
        Ok(self.keep_range(id))
    }

    fn page(
        &self,
        namespace: &str,
        start: &str,
        end: &str,
        size: usize,
        bookmark: &str,
    ) -> Result<Page, HostError> {
        let page = self.simulate("GET_STATE_BY_RANGE", |simulator| {
            simulator.page(namespace, start, end, size, bookmark)
        })?;
        Ok(Page { entries: page.entries, bookmark: page.bookmark })
    }

    fn history(&self, namespace: &str, key: &str) -> Result<Modifications, HostError> {
        let history = self.channel.ledger().history(namespace, key, self.snapshot.height());
        Ok(Box::new(history.map(|change| {
            let change = change.map_err(|error| HostError::Broken(with_causes(&error)))?;
            Ok(Modification {
                tx_id: change.tx_id,
                timestamp: change.timestamp.unwrap_or_default(),
                value: change.value,
                is_delete: change.is_delete,
            })
        })))
    }

    fn range_next(&self, range: RangeHandle) -> Result<Pairs, HostError> {
        let id = match self.lock().ranges.get(range.0) {
            Some(range) if !range.finished => range.id,
            _ => return Ok(Vec::new()),
        };
        let batch = self.simulate("QUERY_STATE_NEXT", |simulator| simulator.next_batch(id))?;
        if !batch.has_more
            && let Some(range) = self.lock().ranges.get_mut(range.0)
        {
            range.finished = true;
        }
        Ok(batch.entries)
    }

    fn range_close(&self, range: RangeHandle) {
        let mut work = self.lock();
        let Some(state) = work.ranges.get_mut(range.0) else { return };
        state.finished = true;
        let id = state.id;
        if let Some(simulator) = work.simulator.as_mut() {
            simulator.close_range(id);
        }
    }

    fn validation_parameter(&self, namespace: &str, key: &str) -> Result<Option<Bytes>, HostError> {
        let mut entries =
            self.simulate("GET_STATE_METADATA", |simulator| simulator.metadata(namespace, key))?;
        Ok(entries.remove(VALIDATION_PARAMETER).filter(|policy| !policy.is_empty()))
    }

    fn set_validation_parameter(&self, namespace: &str, key: &str, policy: Bytes) -> Result<(), HostError> {
        const MESSAGE: &str = "PUT_STATE_METADATA";
        self.may_set_key_policies(MESSAGE)?;
        let entries = policy_entries(policy);
        self.simulate(MESSAGE, |simulator| simulator.put_metadata(namespace, key, entries))
    }

    fn private_get(&self, namespace: &str, collection: &str, key: &str) -> Result<Option<Bytes>, HostError> {
        const MESSAGE: &str = "GET_STATE";
        self.may_read(MESSAGE, namespace, collection)?;
        self.simulate(MESSAGE, |simulator| simulator.private(namespace, collection, key))
    }

    fn private_hash(&self, namespace: &str, collection: &str, key: &str) -> Result<Option<Bytes>, HostError> {
        const MESSAGE: &str = "GET_PRIVATE_DATA_HASH";
        // The collection must exist; its members' privileges play no part.
        self.rights(MESSAGE, namespace, collection)?;
        self.simulate(MESSAGE, |simulator| simulator.private_hash(namespace, collection, key))
    }

    fn private_put(
        &self,
        namespace: &str,
        collection: &str,
        key: &str,
        value: Bytes,
    ) -> Result<(), HostError> {
        let message = if value.is_empty() { "DEL_STATE" } else { "PUT_STATE" };
        self.may_write(message, namespace, collection)?;
        match self.salt(message, namespace, collection, key)? {
            Some(salt) => self.simulate(message, |simulator| {
                simulator.put_private_salted(namespace, collection, key, value, salt)
            }),
            None => {
                self.simulate(message, |simulator| simulator.put_private(namespace, collection, key, value))
            }
        }
    }

    fn private_validation_parameter(
        &self,
        namespace: &str,
        collection: &str,
        key: &str,
    ) -> Result<Option<Bytes>, HostError> {
        const MESSAGE: &str = "GET_STATE_METADATA";
        self.may_read(MESSAGE, namespace, collection)?;
        let mut entries =
            self.simulate(MESSAGE, |simulator| simulator.private_metadata(namespace, collection, key))?;
        Ok(entries.remove(VALIDATION_PARAMETER).filter(|policy| !policy.is_empty()))
    }

    fn set_private_validation_parameter(
        &self,
        namespace: &str,
        collection: &str,
        key: &str,
        policy: Bytes,
    ) -> Result<(), HostError> {
        const MESSAGE: &str = "PUT_STATE_METADATA";
        self.may_set_key_policies(MESSAGE)?;
        self.may_write(MESSAGE, namespace, collection)?;
        let entries = policy_entries(policy);
        self.simulate(MESSAGE, |simulator| {
            simulator.put_private_metadata(namespace, collection, key, entries)
        })
    }

    fn private_purge(&self, namespace: &str, collection: &str, key: &str) -> Result<(), HostError> {
        const MESSAGE: &str = "PURGE_PRIVATE_DATA";
        if !self.bundle.application().capabilities.purge_private_data() {
            let text = "purge private data is not enabled, channel application capability of V2_5 or later is required";
            return Err(self.refused(MESSAGE, text));
        }
        self.may_write(MESSAGE, namespace, collection)?;
        self.simulate(MESSAGE, |simulator| simulator.purge_private(namespace, collection, key))
    }

    fn private_range(
        &self,
        namespace: &str,
        collection: &str,
        start: &str,
        end: &str,
    ) -> Result<RangeHandle, HostError> {
        const MESSAGE: &str = "GET_STATE_BY_RANGE";
        self.may_read(MESSAGE, namespace, collection)?;
        let id =
            self.simulate(MESSAGE, |simulator| simulator.private_range(namespace, collection, start, end))?;
        Ok(self.keep_range(id))
    }

    fn callee(&self, _caller: &str, name: &str) -> Result<Callee, HostError> {
        const MESSAGE: &str = "INVOKE_CHAINCODE";
        self.surroundings
            .access
            .channel(&self.bundle, CHAINCODE_TO_CHAINCODE, &self.creator)
            .map_err(|reason| self.refused(MESSAGE, &reason))?;
        let definition = self
            .definition(name)?
            .ok_or_else(|| self.refused(MESSAGE, &format!("chaincode {name} not found")))?;
        // Another peer of the organisation may have it.
        let package = self.package(&definition)?.ok_or_else(|| {
            HostError::Broken(format!(
                "chaincode definition for '{name}' exists, but chaincode is not installed"
            ))
        })?;
        Ok(Callee { package, allowance: definition.allowance().map_err(HostError::Broken)? })
    }

    fn other_channel(&self, channel: &str) -> Result<Arc<dyn Host>, HostError> {
        const MESSAGE: &str = "INVOKE_CHAINCODE";
        let handle = self
            .surroundings
            .channels
            .get(channel)
            .ok_or_else(|| self.refused(MESSAGE, &format!("channel '{channel}' not found")))?;
        let bundle = handle.bundle();
        let mut context = self.context.clone();
        channel.clone_into(&mut context.channel);
        // The creator must be known there; the access rule is checked when the called chaincode is looked up.
        let creator = bundle
            .msps()
            .deserialize(self.creator.serialized())
            .map_err(|error| self.refused(MESSAGE, &error.to_string()))?;
        let secret = self.salt_secret.clone();
        Ok(Arc::new(Self::new(self.surroundings.clone(), bundle, handle, context, creator, secret)))
    }
}
