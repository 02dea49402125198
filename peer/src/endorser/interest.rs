//! Whose endorsement policies a transaction touches, so that a gateway can choose endorsers
//! (Fabric `core/endorser/endorser.go`, `peer/proposal_response.proto`).

use consort_ledger::StateSnapshot;
use consort_ledger::state::VersionedValue;
use consort_protos::fabric::common::SignaturePolicyEnvelope;
use consort_protos::fabric::protos::{ChaincodeCall, ChaincodeInterest};
use consort_protos::rwset::{HashedCollection, NamespaceReadWriteSet, TxReadWriteSet};
use prost::Message;

use super::host::VALIDATION_PARAMETER;
use super::is_system;
use crate::registry::with_causes;
use crate::sealed::SEALED;

/// One entry per namespace and one per collection. System chaincodes are left out.
///
/// # Errors
/// The state, or a policy in it, cannot be read.
pub(super) fn interest(
    rwset: &TxReadWriteSet,
    snapshot: &StateSnapshot,
) -> Result<ChaincodeInterest, String> {
    let mut chaincodes = Vec::new();
    // Sealed data is governed by a policy as an application's chaincode is.
    let governed = |name: &str| name == SEALED || !is_system(name);
    for namespace in rwset.namespaces.iter().filter(|namespace| governed(&namespace.namespace)) {
        let mut policies = Policies { snapshot, found: Vec::new(), unguarded: false };
        policies.add_public(namespace)?;
        let writes_public = !namespace.writes.is_empty() || !namespace.metadata_writes.is_empty();
        let writes_private = namespace.collections.iter().any(HashedCollection::is_written);
        for collection in &namespace.collections {
            policies.add_hashed(&namespace.namespace, collection)?;
        }
        // Reads alone need the chaincode's policy; private writes alone do not.
        if writes_public || !writes_private {
            chaincodes.push(ChaincodeCall {
                name: namespace.namespace.clone(),
                disregard_namespace_policy: writes_public && !policies.unguarded,
                key_policies: policies.found,
                ..ChaincodeCall::default()
            });
        }
        chaincodes.extend(namespace.collections.iter().map(|collection| ChaincodeCall {
            name: namespace.namespace.clone(),
            collection_names: vec![collection.name.clone()],
            no_private_reads: collection.hashed_reads.is_empty(),
            ..ChaincodeCall::default()
        }));
    }
    Ok(ChaincodeInterest { chaincodes })
}

/// The policies of written keys.
struct Policies<'s> {
    snapshot: &'s StateSnapshot,
    found: Vec<SignaturePolicyEnvelope>,
    /// Whether a public key without a policy of its own is written.
    unguarded: bool,
}

impl Policies<'_> {
    fn add_public(&mut self, namespace: &NamespaceReadWriteSet) -> Result<(), String> {
        let written = namespace.writes.iter().map(|write| &write.key);
        for key in written.chain(namespace.metadata_writes.iter().map(|write| &write.key)) {
            let value = self.snapshot.get(&namespace.namespace, key).map_err(|error| with_causes(&error))?;
            if !self.add(value.as_ref())? {
                self.unguarded = true;
            }
        }
        Ok(())
    }

    fn add_hashed(&mut self, namespace: &str, collection: &HashedCollection) -> Result<(), String> {
        let written = collection.hashed_writes.iter().map(|write| &write.key_hash);
        for key_hash in written.chain(collection.metadata_writes.iter().map(|write| &write.key_hash)) {
            let value = self.snapshot.hashed(namespace, &collection.name, key_hash);
            self.add(value.map_err(|error| with_causes(&error))?.as_ref())?;
        }
        Ok(())
    }

    /// Adds the policy of a key; says whether it has one.
    fn add(&mut self, value: Option<&VersionedValue>) -> Result<bool, String> {
        let Some(value) = value else { return Ok(false) };
        let entry = value.metadata_entry(VALIDATION_PARAMETER).map_err(|error| with_causes(&error))?;
        let Some(policy) = entry.filter(|policy| !policy.is_empty()) else { return Ok(false) };
        let policy = SignaturePolicyEnvelope::decode(policy)
            .map_err(|error| format!("the endorsement policy of a key cannot be read: {error}"))?;
        if !self.found.contains(&policy) {
            self.found.push(policy);
        }
        Ok(true)
    }
}
