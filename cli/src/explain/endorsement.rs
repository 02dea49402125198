//! Which signature did not count, and which policy is therefore not met.
//!
//! The rules are those of the validator (Fabric `core/common/validation/statebased`): every key that is written needs its own
//! policy met when it has one, otherwise its collection's, otherwise the chaincode's.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, bail};
use consort_channel_config::{ChannelBundle, EndorsementPolicyError};
use consort_client_sdk::decode::{DecodedInvocation, Kind, Signer};
use consort_client_sdk::registered::EntryStatus;
use consort_crypto::bls::{self, HashedMessage, PublicKey};
use consort_crypto::preimage;
use consort_msp::Identity;
use consort_msp::policy::Policy;
use consort_protos::consort::endorsement::AggregateEndorsement;
use consort_protos::entry::EntryNumber;
use consort_protos::fabric::msp::SerializedIdentity;
use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::rwset::NamespaceReadWriteSet;
use consort_protos::signers;
use consort_protos::transaction::{Body, EndorserTransaction};
use prost::Message;

use super::in_force::{Definition, InForce, LIFECYCLE, metadata};
use super::{Case, Place};
use crate::registered;

/// System chaincodes that judge what is written to them by rules of their own.
const OWN_RULES: [&str; 2] = ["_identities", "_sealed"];
/// Prefix of the collection that every organisation has in every chaincode.
const IMPLICIT_COLLECTION: &str = "_implicit_org_";

/// Those whose signatures hold, and what is to be said about the others.
#[derive(Default)]
struct Signed {
    identities: Vec<Arc<Identity>>,
    notes: Vec<String>,
}

impl Case {
    /// Which signature did not count, and which policies are not met.
    pub(super) async fn endorsement(&self, invocation: &DecodedInvocation) -> anyhow::Result<Vec<String>> {
        let bundle = self.configuration().await?;
        let opened = self.transaction.opened.as_ref().context("the transaction does not open")?;
        let Ok(Body::Endorser(body)) = &opened.body else { bail!("the transaction is no invocation") };
        let mut signed = self.signed(&bundle, body).await?;
        if let Some(aggregate) = &body.aggregate {
            match self.together(&bundle, body, aggregate).await? {
                Ok(identities) => signed.identities.extend(identities),
                Err(wrong) => return Ok(vec![format!("the aggregated endorsement does not count: {wrong}")]),
            }
        }
        let sets = written_sets(invocation);
        let places: BTreeSet<Place> = sets.iter().flat_map(written).collect();
        let mut chaincodes: BTreeSet<String> = sets.iter().map(|set| set.namespace.clone()).collect();
        chaincodes.insert(invocation.chaincode.clone());
        chaincodes.retain(|name| name != LIFECYCLE && !OWN_RULES.contains(&name.as_str()));
        let in_force = self.in_force(places, chaincodes).await?;
        let mut reasons = Vec::new();
        for set in &sets {
            reasons.extend(self.judge(&bundle, &signed, &in_force, set));
        }
        if reasons.is_empty() {
            reasons.push(format!(
                "every policy that could be found is met by the signatures that hold: {}",
                in_force.searched()
            ));
        }
        reasons.extend(signed.notes.into_iter().map(|note| format!("note: {note}")));
        reasons.extend(in_force.notes(invocation).into_iter().map(|note| format!("note: {note}")));
        Ok(reasons)
    }

    /// The policies of one namespace that are not met.
    fn judge(
        &self,
        bundle: &ChannelBundle,
        signed: &Signed,
        in_force: &InForce,
        set: &NamespaceReadWriteSet,
    ) -> Vec<String> {
        let name = set.namespace.as_str();
        if OWN_RULES.contains(&name) {
            return vec![format!(
                "what is written to {name} has to be what its rules make of the call; here it is not"
            )];
        }
        let definition = in_force.definition(name);
        let (mut reasons, mut satisfied) = (Vec::new(), BTreeSet::new());
        let mut places = written(set);
        if places.is_empty() {
            let unmet = refusal(chaincode_policy(bundle, name, definition), signed);
            return unmet
                .map(|tree| format!("the policy of chaincode {name} is not met\n{tree}"))
                .into_iter()
                .collect();
        }
        places.dedup();
        for place in places {
            if let Some(by) = self.changed_before(&place) {
                reasons.push(format!(
                    "the policy of {place} was changed by an earlier transaction of the same block: {by}"
                ));
            } else if let Some((policy, by)) = in_force.key_policy(&place) {
                let unmet = refusal(bundle.key_policy(policy), signed);
                reasons.extend(
                    unmet.map(|tree| format!("the policy of {place}, set by {by}, is not met\n{tree}")),
                );
            } else if satisfied.insert(place.collection().map(str::to_owned)) {
                let (what, policy) = match place.collection() {
                    None => (format!("chaincode {name}"), chaincode_policy(bundle, name, definition)),
                    Some(collection) => (
                        format!("collection {collection} of {name}"),
                        collection_policy(bundle, name, definition, collection),
                    ),
                };
                let unmet = refusal(policy, signed);
                reasons.extend(unmet.map(|tree| format!("the policy of {what} is not met\n{tree}")));
            }
        }
        reasons
    }

    /// The transaction of the same block that changed the policy of a key before.
    fn changed_before(&self, place: &Place) -> Option<String> {
        let earlier = self.block.transactions.iter().take_while(|one| one.index < self.transaction.index);
        // The version check, which comes later, plays no part in it.
        let endorsed = [
            TxValidationCode::Valid,
            TxValidationCode::MvccReadConflict,
            TxValidationCode::PhantomReadConflict,
        ];
        earlier.filter(|one| one.code.is_some_and(|code| endorsed.contains(&code))).find_map(|one| {
            let Kind::Invocation(other) = &one.kind else { return None };
            metadata(other).iter().any(|(changed, _)| changed == place).then(|| one.tx_id.clone())
        })
    }

    /// Those who endorsed alone.
    async fn signed(&self, bundle: &ChannelBundle, body: &EndorserTransaction) -> anyhow::Result<Signed> {
        let mut signed = Signed::default();
        for endorsement in &body.endorsements {
            let (serialized, note) = self.certificate_of(&endorsement.endorser).await?;
            signed.notes.extend(note);
            let identity = match bundle.msps().deserialize(&serialized) {
                Ok(identity) => identity,
                Err(error) => {
                    let name = Signer::decode(&serialized)
                        .map_or_else(|_| "somebody".to_owned(), |one| one.to_string());
                    signed.notes.push(format!("the signature of {name} does not count: {error}"));
                    continue;
                }
            };
            let message = preimage::endorsement(&body.proposal_response_payload, &serialized);
            if let Err(error) = identity.verify(&message, &endorsement.signature) {
                signed.notes.push(format!("the signature of {identity} does not count: {error}"));
            } else if signed.identities.iter().any(|known| known.id() == identity.id()) {
                signed.notes.push(format!("{identity} signed twice, which counts once"));
            } else {
                if let Err(error) = bundle.msps().validate(&identity) {
                    signed.notes.push(format!("the certificate of {identity} does not count: {error}"));
                }
                signed.identities.push(identity);
            }
        }
        Ok(signed)
    }

    /// Those who endorsed together; or what is wrong with their aggregate.
    async fn together(
        &self,
        bundle: &ChannelBundle,
        body: &EndorserTransaction,
        aggregate: &AggregateEndorsement,
    ) -> anyhow::Result<Result<Vec<Arc<Identity>>, String>> {
        let Some(numbers) = signers::decode(&aggregate.signers) else {
            return Ok(Err("the set of its signers is not in its only form".to_owned()));
        };
        let (mut identities, mut keys) = (Vec::new(), Vec::new());
        for number in numbers.into_iter().filter_map(EntryNumber::new) {
            let entry = match registered::entry(&self.admin, &self.channel, number).await {
                Ok(entry) => entry,
                Err(error) => return Ok(Err(format!("entry {number} is not known: {error}"))),
            };
            if entry.status != EntryStatus::Active as i32 {
                return Ok(Err(format!("entry {number} is retired")));
            }
            let Some(key) = entry.bls.as_ref().and_then(|key| PublicKey::from_bytes(&key.public_key).ok())
            else {
                return Ok(Err(format!("entry {number} has no BLS key")));
            };
            let identity = SerializedIdentity { mspid: entry.msp_id, id_bytes: entry.certificate, entry: 0 };
            match bundle.msps().deserialize(&identity.encode_to_vec()) {
                Ok(identity) => identities.push(identity),
                Err(error) => return Ok(Err(format!("entry {number}: {error}"))),
            }
            keys.push(key);
        }
        let message = bls::endorsement(bundle.channel().as_str(), &body.proposal_response_payload);
        let keys: Vec<&PublicKey> = keys.iter().collect();
        let holds = bls::Signature::from_bytes(&aggregate.signature)
            .is_ok_and(|sum| bls::verify_aggregate(&keys, &HashedMessage::new(&message), &sum));
        if holds {
            return Ok(Ok(identities));
        }
        let names: Vec<String> = identities.iter().map(ToString::to_string).collect();
        Ok(Err(format!("it is not the sum of the signatures of {}", names.join(", "))))
    }
}

/// The namespaces that are judged: the written ones, and the called chaincode's in any case.
fn written_sets(invocation: &DecodedInvocation) -> Vec<NamespaceReadWriteSet> {
    let mut sets: Vec<NamespaceReadWriteSet> =
        invocation.rwset.namespaces.iter().filter(|set| set.is_written()).cloned().collect();
    if !sets.iter().any(|set| set.namespace == invocation.chaincode) {
        let namespace = invocation.chaincode.clone();
        sets.push(NamespaceReadWriteSet { namespace, ..NamespaceReadWriteSet::default() });
    }
    sets
}

/// Everything that a namespace's part writes, values and policies.
fn written(set: &NamespaceReadWriteSet) -> Vec<Place> {
    let values = set.writes.iter().map(|write| &write.key);
    let names = values.chain(set.metadata_writes.iter().map(|write| &write.key));
    let mut places: Vec<Place> =
        names.map(|key| Place::Public { namespace: set.namespace.clone(), key: key.clone() }).collect();
    for collection in &set.collections {
        let values = collection.hashed_writes.iter().map(|write| &write.key_hash);
        let hashes = values.chain(collection.metadata_writes.iter().map(|write| &write.key_hash));
        places.extend(hashes.map(|hash| Place::private(set, collection, hash)));
    }
    places
}

/// Why a policy is not met by those who signed.
fn refusal(policy: Result<Policy, EndorsementPolicyError>, signed: &Signed) -> Option<String> {
    match policy {
        Err(error) => Some(format!("it cannot be read, so that nothing meets it: {error}")),
        Ok(policy) => {
            policy.evaluate_identities(&signed.identities).err().map(|refusal| format!("{refusal:#}"))
        }
    }
}

fn chaincode_policy(
    bundle: &ChannelBundle,
    name: &str,
    definition: Option<&Definition>,
) -> Result<Policy, EndorsementPolicyError> {
    if name == LIFECYCLE {
        return bundle.lifecycle_endorsement();
    }
    bundle.endorsement_policy(definition.map_or(&[][..], |definition| &definition.validation_parameter))
}

fn collection_policy(
    bundle: &ChannelBundle,
    name: &str,
    definition: Option<&Definition>,
    collection: &str,
) -> Result<Policy, EndorsementPolicyError> {
    if let Some(msp_id) = collection.strip_prefix(IMPLICIT_COLLECTION) {
        return bundle.organisation_endorsement(msp_id);
    }
    match definition.and_then(|definition| definition.collection_policy(collection)) {
        Some(parameter) => bundle.endorsement_policy(&parameter),
        None => chaincode_policy(bundle, name, definition),
    }
}
