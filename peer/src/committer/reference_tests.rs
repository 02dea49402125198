//! A second judge, written from Fabric's rules and for reading only: one transaction after the other over plain maps, with
//! nothing of the validator, the version checks or the books. What the real ones decide is compared with it.
//!
//! The table of identities and aggregates, which Fabric does not have, are in [`super::reference_table_tests`].
//!
//! Rules: Fabric `core/common/validation/msgvalidation.go`, `core/committer/txvalidator/v20`,
//! `core/common/validation/statebased`, `core/ledger/kvledger/txmgmt/validation`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use consort_crypto::bls::SecretKey;
use consort_crypto::key::PublicKey;
use consort_crypto::{hash::sha256, preimage};
use consort_msp::{MspManager, SigningIdentity};
use consort_protos::fabric::common::{
    Block, Capabilities, ChannelHeader, ConfigEnvelope, ConfigGroup, Envelope, HeaderType, Payload,
    SignatureHeader, SignaturePolicy, SignaturePolicyEnvelope, signature_policy,
};
use consort_protos::fabric::common::{MspPrincipal, MspRole, msp_role};
use consort_protos::fabric::kvrwset::{
    HashedRwSet, KvMetadataEntry, KvRead, KvrwSet, RangeQueryInfo, Version, range_query_info,
};
use consort_protos::fabric::lifecycle::{ChaincodeValidationInfo, StateData, state_data};
use consort_protos::fabric::msp::{FabricMspConfig, MspConfig, SerializedIdentity};
use consort_protos::fabric::protos::{
    ApplicationPolicy, ChaincodeAction, ChaincodeActionPayload, ChaincodeEndorsedAction,
    CollectionConfigPackage, ProposalResponsePayload, Transaction, application_policy, collection_config,
};
use consort_protos::fabric::rwset::{NsReadWriteSet, TxReadWriteSet};
use consort_protos::ids::Height;
use prost::Message;

use super::reference_table_tests::{TABLE, retired_entries};

/// The codes of Fabric that histories reach.
pub(super) mod code {
    pub(in super::super) const VALID: u8 = 0;
    pub(in super::super) const BAD_CREATOR_SIGNATURE: u8 = 4;
    pub(in super::super) const DUPLICATE_TXID: u8 = 9;
    pub(in super::super) const ENDORSEMENT_POLICY_FAILURE: u8 = 10;
    pub(in super::super) const MVCC_READ_CONFLICT: u8 = 11;
    pub(in super::super) const PHANTOM_READ_CONFLICT: u8 = 12;
    pub(in super::super) const ILLEGAL_WRITESET: u8 = 23;
    pub(in super::super) const INVALID_CHAINCODE: u8 = 25;
}

/// Namespace, collection (for hashed keys), key or key hash.
pub(super) type Key = (String, Option<String>, Bytes);

/// Value, metadata by name, version.
pub(super) type Value = (Bytes, BTreeMap<String, Bytes>, Height);

/// Somebody who signs in a history.
pub(super) struct Signer {
    serialized: Bytes,
    pub(super) msp_id: String,
    role: &'static str,
    pub(super) key: PublicKey,
    /// In PEM.
    pub(super) certificate: Bytes,
    /// By which an index names the certificate.
    pub(super) certificate_hash: String,
    /// The list that ends its validity as soon as a configuration has it.
    pub(super) revocation: Option<Bytes>,
}

impl Signer {
    pub(super) fn new(identity: &SigningIdentity, role: &'static str, msps: &MspManager) -> Self {
        let public = identity.identity(msps).expect("an identity of the channel");
        Self {
            serialized: identity.serialized().clone(),
            msp_id: identity.msp_id().to_string(),
            role,
            key: identity.certificate().public_key().clone(),
            certificate: identity.certificate().pem().into_bytes().into(),
            certificate_hash: hex::encode(public.id().certificate_hash()),
            revocation: None,
        }
    }
}

/// The judge and its books.
pub(super) struct Reference {
    pub(super) signers: Vec<Signer>,
    application: ConfigGroup,
    /// Those of the application.
    pub(super) capabilities: BTreeSet<String>,
    /// Lists of revoked certificates.
    revocations: BTreeSet<Bytes>,
    pub(super) state: BTreeMap<Key, Value>,
    ids: BTreeSet<String>,
    /// Every BLS key of a history, by its public one: there is one signature for a key and a message.
    pub(super) secrets: BTreeMap<Bytes, Arc<SecretKey>>,
}

/// What a transaction is judged by: the books after the block before, and what earlier transactions of its block took away.
pub(super) struct Before {
    pub(super) state: BTreeMap<Key, Value>,
    /// Entries of the table of identities.
    pub(super) retired: BTreeSet<u64>,
}

/// What one write to a key consists of: a value or its removal, and metadata or their removal.
#[derive(Default)]
struct KeyWrite {
    value: Option<Option<Bytes>>,
    metadata: Option<BTreeMap<String, Bytes>>,
}

/// A transaction whose envelope has been taken apart.
pub(super) struct Opened {
    tx_id: String,
    pub(super) creator: usize,
    pub(super) chaincode: String,
    /// What the chaincode was called with.
    pub(super) proposal: Bytes,
    pub(super) sets: Vec<NsReadWriteSet>,
    /// Who endorsed it with a signature that holds, each once.
    pub(super) endorsers: Vec<usize>,
}

pub(super) fn decode<M: Message + Default>(bytes: &Bytes) -> M {
    M::decode(bytes.clone()).expect("histories are well formed")
}

impl Reference {
    /// Begins with the channel of a genesis block, and the identities that may sign in it.
    pub(super) fn new(genesis: &Block, signers: Vec<Signer>) -> Self {
        let mut reference = Self {
            signers,
            application: ConfigGroup::default(),
            capabilities: BTreeSet::new(),
            revocations: BTreeSet::new(),
            state: BTreeMap::new(),
            ids: BTreeSet::new(),
            secrets: BTreeMap::new(),
        };
        let envelope: Envelope = decode(&consort_protos::block::envelopes(genesis)[0]);
        let payload: Payload = decode(&envelope.payload);
        reference.configure(&payload.data, Height::new(0, 0));
        reference
    }

    /// Judges and applies a block; returns its codes.
    pub(super) fn commit(&mut self, block: &Block) -> Vec<u8> {
        let number = consort_protos::block::number(block).get();
        let mut before = Before { state: self.state.clone(), retired: BTreeSet::new() };
        let entries = consort_protos::block::envelopes(block);
        let mut codes = Vec::new();
        // Keys whose policy a transaction changes, with its place and whether its endorsements are right for the namespace.
        let mut changed: Vec<(Key, usize)> = Vec::new();
        let mut right: BTreeSet<(usize, String)> = BTreeSet::new();
        let mut opened = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let transaction = self.open(&before, entry);
            codes.push(match &transaction {
                Err(code) => *code,
                Ok(None) => code::VALID,
                Ok(Some(transaction)) => self.endorsements(&before, index, transaction, &changed, &mut right),
            });
            if let Ok(Some(transaction)) = &transaction {
                for set in &transaction.sets {
                    changed.extend(policy_changes(set).into_iter().map(|key| (key, index)));
                }
                if right.contains(&(index, TABLE.to_owned())) {
                    before.retired.extend(retired_entries(transaction));
                }
            }
            opened.push(transaction);
        }
        let mut seen = BTreeSet::new();
        for (code, transaction) in codes.iter_mut().zip(&opened) {
            if let (code::VALID, Ok(Some(transaction))) = (*code, transaction)
                && !seen.insert(transaction.tx_id.clone())
            {
                *code = code::DUPLICATE_TXID;
            }
        }
        let mut touched = BTreeSet::new();
        for (index, (code, transaction)) in codes.iter_mut().zip(&opened).enumerate() {
            let version = Height::new(number, index as u32);
            match transaction {
                Ok(Some(transaction)) if *code == code::VALID => {
                    *code = self.conflict(transaction, &touched);
                    if *code == code::VALID {
                        self.apply(transaction, version, &mut touched);
                    }
                }
                Ok(None) => {
                    let payload: Payload = decode(&decode::<Envelope>(&entries[index]).payload);
                    self.configure(&payload.data, version);
                }
                _ => {}
            }
        }
        self.ids.extend(entries.iter().map(tx_id));
        codes
    }

    fn configure(&mut self, data: &Bytes, version: Height) {
        let envelope: ConfigEnvelope = decode(data);
        let root = envelope.config.and_then(|config| config.channel_group).expect("a configuration");
        self.application = root.groups["Application"].clone();
        let capabilities: Capabilities = decode(&self.application.values["Capabilities"].value);
        self.capabilities = capabilities.capabilities.into_keys().collect();
        let organisations = self.application.groups.values();
        let definitions = organisations.map(|group| decode::<MspConfig>(&group.values["MSP"].value).config);
        let lists = definitions.flat_map(|config| decode::<FabricMspConfig>(&config).revocation_list);
        self.revocations = lists.collect();
        let key = (String::new(), None, Bytes::from_static(b"CHANNEL_CONFIG_ENV_BYTES"));
        self.state.insert(key, (data.clone(), BTreeMap::new(), version));
    }

    /// `None` for a configuration; the code when the transaction is invalid whatever the endorsements are.
    fn open(&self, before: &Before, entry: &Bytes) -> Result<Option<Opened>, u8> {
        let envelope: Envelope = decode(entry);
        let payload: Payload = decode(&envelope.payload);
        let header = payload.header.expect("a header");
        let channel_header: ChannelHeader = decode(&header.channel_header);
        let signature_header: SignatureHeader = decode(&header.signature_header);
        let creator = self.signer(before, &signature_header.creator).ok_or(code::BAD_CREATOR_SIGNATURE)?;
        if !self.is_valid(creator) || !self.signed(creator, &envelope.payload, &envelope.signature) {
            return Err(code::BAD_CREATOR_SIGNATURE);
        }
        if channel_header.r#type == HeaderType::Config as i32 {
            return Ok(None);
        }
        if self.ids.contains(&channel_header.tx_id) {
            return Err(code::DUPLICATE_TXID);
        }
        let transaction: Transaction = decode(&payload.data);
        let payload: ChaincodeActionPayload = decode(&transaction.actions[0].payload);
        let endorsed = payload.action.expect("an action");
        let response: ProposalResponsePayload = decode(&endorsed.proposal_response_payload);
        let action: ChaincodeAction = decode(&response.extension);
        let mut endorsers = self.endorsers(before, &endorsed);
        endorsers.extend(self.together(before, &endorsed).ok_or(code::ENDORSEMENT_POLICY_FAILURE)?);
        let mut each_once = BTreeSet::new();
        endorsers.retain(|endorser| self.is_valid(*endorser) && each_once.insert(*endorser));
        Ok(Some(Opened {
            tx_id: channel_header.tx_id,
            creator,
            chaincode: action.chaincode_id.expect("an id").name,
            proposal: payload.chaincode_proposal_payload,
            sets: decode::<TxReadWriteSet>(&action.results).ns_rwset,
            endorsers,
        }))
    }

    /// Who endorsed it alone. The certificate is part of what an endorser signs, also when a number stands for it.
    fn endorsers(&self, before: &Before, action: &ChaincodeEndorsedAction) -> Vec<usize> {
        let mut endorsers = Vec::new();
        for endorsement in &action.endorsements {
            let Some(signer) = self.signer(before, &endorsement.endorser) else { continue };
            let certificate = &self.signers[signer].serialized;
            let message = [&action.proposal_response_payload[..], &certificate[..]].concat();
            if self.signed(signer, &message, &endorsement.signature) {
                endorsers.push(signer);
            }
        }
        endorsers
    }

    fn signer(&self, before: &Before, serialized: &Bytes) -> Option<usize> {
        match decode::<SerializedIdentity>(serialized).entry.checked_sub(1) {
            Some(number) => self.holder(&self.entry(before, number)?),
            None => self.signers.iter().position(|signer| signer.serialized == *serialized),
        }
    }

    pub(super) fn is_valid(&self, signer: usize) -> bool {
        self.signers[signer].revocation.as_ref().is_none_or(|list| !self.revocations.contains(list))
    }

    pub(super) fn is_revoked(&self, serialized: &Bytes) -> bool {
        let position = self.signers.iter().position(|signer| signer.serialized == *serialized);
        position.is_some_and(|signer| !self.is_valid(signer))
    }

    fn signed(&self, signer: usize, message: &[u8], signature: &[u8]) -> bool {
        self.signers[signer].key.verify_with_library(message, signature).is_ok()
    }

    /// The endorsements against the state before the block, and the changes of policies before the transaction.
    fn endorsements(
        &self,
        before: &Before,
        index: usize,
        transaction: &Opened,
        changed: &[(Key, usize)],
        right: &mut BTreeSet<(usize, String)>,
    ) -> u8 {
        let mut written: BTreeMap<&str, Vec<Key>> = BTreeMap::new();
        for set in &transaction.sets {
            let keys = written_keys(set);
            if !keys.is_empty() {
                written.insert(&set.namespace, keys);
            }
        }
        written.entry(&transaction.chaincode).or_default();
        for (namespace, keys) in written {
            if namespace == TABLE && self.has_table() {
                let code = self.change_of_table(before, transaction);
                if code != code::VALID {
                    return code;
                }
                right.insert((index, namespace.to_owned()));
                continue;
            }
            let Some(chaincode) = self.chaincode(&before.state, namespace) else {
                return code::INVALID_CHAINCODE;
            };
            let satisfied = |policy: &Option<SignaturePolicyEnvelope>| {
                policy.as_ref().is_some_and(|policy| self.satisfied(policy, &transaction.endorsers))
            };
            if keys.is_empty() && !satisfied(&chaincode.policy) {
                return code::ENDORSEMENT_POLICY_FAILURE;
            }
            for key in &keys {
                let depends = changed.iter().any(|(other, writer)| {
                    other == key && *writer < index && right.contains(&(*writer, namespace.to_owned()))
                });
                let own =
                    before.state.get(key).and_then(|(_, metadata, _)| metadata.get("VALIDATION_PARAMETER"));
                let policy = match (own, &key.1) {
                    (Some(own), _) if !own.is_empty() => Some(decode(own)),
                    (_, None) => chaincode.policy.clone(),
                    (_, Some(collection)) => self.collection_policy(&chaincode, collection),
                };
                if depends || !satisfied(&policy) {
                    return code::ENDORSEMENT_POLICY_FAILURE;
                }
            }
            right.insert((index, namespace.to_owned()));
        }
        code::VALID
    }

    fn chaincode(&self, before: &BTreeMap<Key, Value>, name: &str) -> Option<Chaincode> {
        if name == "_lifecycle" {
            let policy = self.channel_policy("/Channel/Application/LifecycleEndorsement");
            return Some(Chaincode { policy, collections: CollectionConfigPackage::default() });
        }
        let field = |field: &str| {
            let key = format!("namespaces/{field}");
            before.get(&("_lifecycle".to_owned(), None, key.into())).map(|(value, _, _)| value)
        };
        field(&format!("metadata/{name}"))?;
        let bytes = |name: String| match decode::<StateData>(field(&name)?).r#type {
            Some(state_data::Type::Bytes(bytes)) => Some(bytes),
            _ => None,
        };
        let info: ChaincodeValidationInfo = decode(&bytes(format!("fields/{name}/ValidationInfo"))?);
        let collections = decode(&bytes(format!("fields/{name}/Collections"))?);
        let policy = self.application_policy(&decode(&info.validation_parameter));
        Some(Chaincode { policy, collections })
    }

    fn collection_policy(&self, chaincode: &Chaincode, name: &str) -> Option<SignaturePolicyEnvelope> {
        if let Some(msp_id) = name.strip_prefix("_implicit_org_") {
            // In the test network a group has the name of its MSP.
            return self.channel_policy(&format!("/Channel/Application/{msp_id}/Endorsement"));
        }
        let config = chaincode.collections.config.iter().find_map(|config| match &config.payload {
            Some(collection_config::Payload::StaticCollectionConfig(config)) if config.name == name => {
                Some(config)
            }
            _ => None,
        })?;
        match &config.endorsement_policy {
            Some(policy) => self.application_policy(policy),
            None => chaincode.policy.clone(),
        }
    }

    fn application_policy(&self, policy: &ApplicationPolicy) -> Option<SignaturePolicyEnvelope> {
        match policy.r#type.as_ref()? {
            application_policy::Type::SignaturePolicy(envelope) => Some(envelope.clone()),
            application_policy::Type::ChannelConfigPolicyReference(path) => self.channel_policy(path),
        }
    }

    pub(super) fn channel_policy(&self, path: &str) -> Option<SignaturePolicyEnvelope> {
        let path = path.strip_prefix("/Channel/Application/")?;
        let (group, name) = match path.split_once('/') {
            Some((group, name)) => (self.application.groups.get(group)?, name),
            None => (&self.application, path),
        };
        Some(decode(&group.policies.get(name)?.policy.as_ref()?.value))
    }

    pub(super) fn satisfied(&self, policy: &SignaturePolicyEnvelope, endorsers: &[usize]) -> bool {
        let mut used = vec![false; endorsers.len()];
        self.rule(policy, policy.rule.as_ref().expect("a rule"), endorsers, &mut used)
    }

    fn rule(
        &self,
        policy: &SignaturePolicyEnvelope,
        rule: &SignaturePolicy,
        endorsers: &[usize],
        used: &mut Vec<bool>,
    ) -> bool {
        match rule.r#type.as_ref().expect("a rule") {
            signature_policy::Type::SignedBy(principal) => {
                let principal = &policy.identities[*principal as usize];
                let free = (0..endorsers.len())
                    .find(|&index| !used[index] && is_a(&self.signers[endorsers[index]], principal));
                free.map(|index| used[index] = true).is_some()
            }
            signature_policy::Type::NOutOf(gate) => {
                let mut met = 0;
                for inner in &gate.rules {
                    let mut attempt = used.clone();
                    if self.rule(policy, inner, endorsers, &mut attempt) {
                        met += 1;
                        *used = attempt;
                    }
                }
                met >= gate.n
            }
        }
    }

    /// What was read, against the state as the transactions before have left it.
    fn conflict(&self, transaction: &Opened, touched: &BTreeSet<Key>) -> u8 {
        let holds = |key: &Key, version: Option<&Version>| {
            let current = self.state.get(key).map(|(_, _, version)| *version);
            let read = version.map(|version| Height::new(version.block_num, version.tx_num as u32));
            !touched.contains(key) && current == read
        };
        for set in &transaction.sets {
            let public: KvrwSet = decode(&set.rwset);
            let stale = |read: &KvRead| !holds(&public_key(&set.namespace, &read.key), read.version.as_ref());
            if public.reads.iter().any(stale) {
                return code::MVCC_READ_CONFLICT;
            }
            if public.range_queries_info.iter().any(|query| !self.same_range(&set.namespace, query)) {
                return code::PHANTOM_READ_CONFLICT;
            }
            for collection in &set.collection_hashed_rwset {
                let hashed: HashedRwSet = decode(&collection.hashed_rwset);
                let key = |hash: &Bytes| hashed_key(&set.namespace, &collection.collection_name, hash);
                if hashed.hashed_reads.iter().any(|read| !holds(&key(&read.key_hash), read.version.as_ref()))
                {
                    return code::MVCC_READ_CONFLICT;
                }
            }
        }
        code::VALID
    }

    /// Histories have few keys, so that ranges are recorded as they were.
    fn same_range(&self, namespace: &str, query: &RangeQueryInfo) -> bool {
        let recorded = match &query.reads_info {
            None => Vec::new(),
            Some(range_query_info::ReadsInfo::RawReads(reads)) => reads.kv_reads.clone(),
            Some(range_query_info::ReadsInfo::ReadsMerkleHashes(_)) => panic!("too many keys for a history"),
        };
        let inside = |key: &[u8]| {
            key >= query.start_key.as_bytes()
                && (query.end_key.is_empty()
                    || key < query.end_key.as_bytes()
                    || (!query.itr_exhausted && key == query.end_key.as_bytes()))
        };
        let current = self.state.iter().filter(|((space, collection, key), _)| {
            space == namespace && collection.is_none() && inside(key)
        });
        let current = current.map(|((_, _, key), (_, _, version))| (key.clone(), Some(*version)));
        let recorded = recorded.into_iter().map(|read| {
            let version = read.version.map(|version| Height::new(version.block_num, version.tx_num as u32));
            (Bytes::from(read.key), version)
        });
        current.eq(recorded)
    }

    fn apply(&mut self, transaction: &Opened, version: Height, touched: &mut BTreeSet<Key>) {
        for set in &transaction.sets {
            for (key, write) in writes(set) {
                let current = self.state.get(&key).cloned();
                let after = match (write.value, write.metadata) {
                    (Some(None), _) => None,
                    (Some(Some(value)), Some(metadata)) => Some((value, metadata, version)),
                    (Some(Some(value)), None) => {
                        let metadata = current.map(|(_, metadata, _)| metadata).unwrap_or_default();
                        Some((value, metadata, version))
                    }
                    // Metadata alone make no key.
                    (None, metadata) => {
                        let Some((value, _, _)) = current else { continue };
                        Some((value, metadata.unwrap_or_default(), version))
                    }
                };
                match after {
                    Some(value) => drop(self.state.insert(key.clone(), value)),
                    None => drop(self.state.remove(&key)),
                }
                touched.insert(key);
            }
        }
    }
}

/// What governs a namespace; without a policy nothing can be endorsed.
struct Chaincode {
    policy: Option<SignaturePolicyEnvelope>,
    collections: CollectionConfigPackage,
}

fn is_a(signer: &Signer, principal: &MspPrincipal) -> bool {
    let role: MspRole = decode(&principal.principal);
    let wanted = msp_role::MspRoleType::try_from(role.role).expect("a role");
    role.msp_identifier == signer.msp_id
        && match wanted {
            msp_role::MspRoleType::Member => true,
            msp_role::MspRoleType::Peer => signer.role == "peer",
            msp_role::MspRoleType::Client => signer.role == "client",
            msp_role::MspRoleType::Admin => signer.role == "admin",
            _ => false,
        }
}

fn tx_id(entry: &Bytes) -> String {
    let payload: Payload = decode(&decode::<Envelope>(entry).payload);
    let header = payload.header.expect("a header");
    let id = decode::<ChannelHeader>(&header.channel_header).tx_id;
    if !id.is_empty() {
        return id;
    }
    let signature_header: SignatureHeader = decode(&header.signature_header);
    hex::encode(sha256(&[&signature_header.nonce[..], &signature_header.creator[..]].concat()))
}

pub(super) fn public_key(namespace: &str, key: &str) -> Key {
    (namespace.to_owned(), None, Bytes::copy_from_slice(key.as_bytes()))
}

fn hashed_key(namespace: &str, collection: &str, hash: &Bytes) -> Key {
    (namespace.to_owned(), Some(collection.to_owned()), hash.clone())
}

/// The writes of a namespace by key, in the order in which their policies are asked.
fn each_write(set: &NsReadWriteSet) -> Vec<(Key, KeyWrite)> {
    let metadata = |entries: &[KvMetadataEntry]| {
        let entries = entries.iter().map(|entry| (entry.name.clone(), entry.value.clone())).collect();
        KeyWrite { metadata: Some(entries), ..KeyWrite::default() }
    };
    let public: KvrwSet = decode(&set.rwset);
    let mut all = Vec::new();
    for write in &public.writes {
        let value = (!write.is_delete && !write.value.is_empty()).then(|| write.value.clone());
        let write_of = KeyWrite { value: Some(value), ..KeyWrite::default() };
        all.push((public_key(&set.namespace, &write.key), write_of));
    }
    for write in &public.metadata_writes {
        all.push((public_key(&set.namespace, &write.key), metadata(&write.entries)));
    }
    let collections: Vec<(&str, HashedRwSet)> = set
        .collection_hashed_rwset
        .iter()
        .map(|collection| (collection.collection_name.as_str(), decode(&collection.hashed_rwset)))
        .collect();
    for (name, hashed) in &collections {
        for write in &hashed.hashed_writes {
            let gone = write.is_delete || write.value_hash[..] == preimage::value_hash(b"")[..];
            let value = (!gone).then(|| write.value_hash.clone());
            let write_of = KeyWrite { value: Some(value), ..KeyWrite::default() };
            all.push((hashed_key(&set.namespace, name, &write.key_hash), write_of));
        }
    }
    for (name, hashed) in &collections {
        for write in &hashed.metadata_writes {
            all.push((hashed_key(&set.namespace, name, &write.key_hash), metadata(&write.entries)));
        }
    }
    all
}

fn written_keys(set: &NsReadWriteSet) -> Vec<Key> {
    each_write(set).into_iter().map(|(key, _)| key).collect()
}

fn policy_changes(set: &NsReadWriteSet) -> Vec<Key> {
    let changes = each_write(set).into_iter().filter(|(_, write)| write.metadata.is_some());
    changes.map(|(key, _)| key).collect()
}

fn writes(set: &NsReadWriteSet) -> BTreeMap<Key, KeyWrite> {
    let mut writes: BTreeMap<Key, KeyWrite> = BTreeMap::new();
    for (key, write) in each_write(set) {
        let entry = writes.entry(key).or_default();
        entry.value = write.value.or(entry.value.take());
        entry.metadata = write.metadata.or(entry.metadata.take());
    }
    writes
}
