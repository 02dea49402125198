//! What the second judge makes of signers that are named by number, of those who endorse together, and of changes to the
//! table of identities: the rules of the crate's `identities` module and of docs/aggregated-endorsements.md, written once more.
//!
//! An aggregate is compared with the sum that its signers' secret keys give: in this scheme (draft-irtf-cfrg-bls-signature,
//! section 2) a key has one signature for a message, so that nothing needs to be verified.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use consort_channel_config::{AGGREGATED_ENDORSEMENTS, REGISTERED_IDENTITIES};
use consort_crypto::bls::{self, Owner, Proof, PublicKey, Signature};
use consort_protos::consort::identities::{BlsKey, Entry, RegisterArgs, RenewArgs, RetireArgs, Status};
use consort_protos::fabric::kvrwset::{KvRead, KvWrite, KvrwSet, Version};
use consort_protos::fabric::protos::{
    ChaincodeEndorsedAction, ChaincodeInvocationSpec, ChaincodeProposalPayload,
};
use consort_protos::ids::Height;
use prost::Message;

use super::reference_tests::{Before, Opened, Reference, code, decode, public_key};
use crate::testing::CHANNEL;

/// The namespace of the table.
pub(super) const TABLE: &str = "_identities";

/// What a function of the table reads and writes, by key.
#[derive(Default)]
struct Effect {
    reads: BTreeMap<String, Option<Height>>,
    writes: BTreeMap<String, Bytes>,
}

impl Reference {
    pub(super) fn has_table(&self) -> bool {
        self.capabilities.contains(REGISTERED_IDENTITIES)
    }

    /// The entry that a number stands for, as long as it does.
    pub(super) fn entry(&self, before: &Before, number: u64) -> Option<Entry> {
        let stored = before.state.get(&public_key(TABLE, &entry_key(number)));
        let entry: Entry = decode(&stored.filter(|_| self.has_table())?.0);
        let counts = entry.status == Status::Active as i32 && !before.retired.contains(&number);
        counts.then_some(entry)
    }

    /// Whose certificate an entry has.
    pub(super) fn holder(&self, entry: &Entry) -> Option<usize> {
        self.signers
            .iter()
            .position(|signer| signer.msp_id == entry.msp_id && signer.certificate == entry.certificate)
    }

    /// Who endorsed together; none when that is not valid.
    pub(super) fn together(&self, before: &Before, action: &ChaincodeEndorsedAction) -> Option<Vec<usize>> {
        let seen = self.has_table() && self.capabilities.contains(AGGREGATED_ENDORSEMENTS);
        let Some(aggregate) = action.aggregate.as_ref().filter(|_| seen) else { return Some(Vec::new()) };
        let message = signed_together(&action.proposal_response_payload);
        let (mut signers, mut parts): (Vec<usize>, Vec<Signature>) = (Vec::new(), Vec::new());
        for number in numbers(&aggregate.signers)? {
            let entry = self.entry(before, number)?;
            let key = entry.bls.as_ref()?.public_key.clone();
            parts.push(self.secrets[&key].sign(&message));
            signers.extend(self.holder(&entry));
        }
        (bls::aggregate(&parts)?.to_bytes()[..] == aggregate.signature[..]).then_some(signers)
    }

    /// The code of a transaction that calls the table or writes to it.
    pub(super) fn change_of_table(&self, before: &Before, transaction: &Opened) -> u8 {
        if transaction.chaincode != TABLE {
            return code::ILLEGAL_WRITESET;
        }
        let organisation = &self.signers[transaction.creator].msp_id;
        let policy = self.channel_policy(&format!("/Channel/Application/{organisation}/Endorsement"));
        if !policy.is_some_and(|policy| self.satisfied(&policy, &transaction.endorsers)) {
            return code::ENDORSEMENT_POLICY_FAILURE;
        }
        let public = |set: &Bytes| decode::<KvrwSet>(set);
        let own = transaction.sets.iter().filter(|set| set.namespace == TABLE);
        let reads = own.flat_map(|set| public(&set.rwset).reads);
        let mut reads = reads.map(|read| (read.version.map(height), version(before, &read.key)));
        if reads.any(|(read, current)| read != current) {
            return code::MVCC_READ_CONFLICT;
        }
        let expected = self.effect(before, transaction).map(Effect::into_set);
        match (&transaction.sets[..], expected) {
            ([set], Some(expected))
                if set.namespace == TABLE
                    && set.collection_hashed_rwset.is_empty()
                    && public(&set.rwset) == expected =>
            {
                code::VALID
            }
            _ => code::ENDORSEMENT_POLICY_FAILURE,
        }
    }

    /// What the function that is called does; none when it refuses.
    fn effect(&self, before: &Before, transaction: &Opened) -> Option<Effect> {
        let creator = transaction.creator;
        let organisation = &self.signers[creator].msp_id;
        let admins = self.channel_policy(&format!("/Channel/Application/{organisation}/Admins"))?;
        if !self.satisfied(&admins, &[creator]) {
            return None;
        }
        let proposal: ChaincodeProposalPayload = decode(&transaction.proposal);
        let invocation: ChaincodeInvocationSpec = decode(&proposal.input);
        let arguments = invocation.chaincode_spec?.input?.args;
        let [function, argument] = &arguments[..] else { return None };
        let mut effect = Effect::default();
        match &function[..] {
            b"Register" => {
                let input = RegisterArgs::decode(argument.clone()).ok()?;
                self.add(before, &mut effect, organisation, &input.certificate, input.bls, None)?;
            }
            b"Renew" => {
                let input = RenewArgs::decode(argument.clone()).ok()?;
                let mut old = effect.own_entry(before, organisation, input.number)?;
                if old.renewed_by != 0 {
                    return None;
                }
                let renewed = Some(input.number);
                let new =
                    self.add(before, &mut effect, organisation, &input.certificate, input.bls, renewed)?;
                old.renewed_by = 1 + new;
                effect.write_entry(&old);
            }
            b"Retire" => {
                let input = RetireArgs::decode(argument.clone()).ok()?;
                let mut entry = effect.own_entry(before, organisation, input.number)?;
                entry.status = Status::Retired as i32;
                effect.write_entry(&entry);
            }
            _ => return None,
        }
        Some(effect)
    }

    /// A new entry: for a valid certificate of the organisation that stands in no other one, with a key that its owner has and
    /// that stands in none at all.
    fn add(
        &self,
        before: &Before,
        effect: &mut Effect,
        organisation: &str,
        certificate: &Bytes,
        bls: Option<BlsKey>,
        renewed: Option<u64>,
    ) -> Option<u64> {
        let of_signer = |signer: &usize| {
            let signer = &self.signers[*signer];
            signer.msp_id == organisation && signer.certificate == *certificate
        };
        let holder = (0..self.signers.len()).find(of_signer).filter(|signer| self.is_valid(*signer))?;
        let holder = &self.signers[holder];
        let index = format!("certificate/{organisation}/{}", holder.certificate_hash);
        if effect.number(before, &index).is_some_and(|number| Some(number) != renewed) {
            return None;
        }
        let number = effect.number(before, "total").unwrap_or(0);
        if let Some(key) = &bls {
            let public = PublicKey::from_bytes(&key.public_key).ok()?;
            let owner = Owner::new(organisation, &holder.key, CHANNEL);
            Proof::from_bytes(&key.proof).ok()?.verify(&public, &owner).ok()?;
            let index = format!("bls/{}", hex::encode(&key.public_key));
            if effect.number(before, &index).is_some() {
                return None;
            }
            effect.write_number(&index, number);
        }
        effect.write_number(&index, number);
        effect.write_number("total", number + 1);
        let status = Status::Active as i32;
        let (msp_id, certificate) = (organisation.to_owned(), certificate.clone());
        effect.write_entry(&Entry { msp_id, certificate, bls, status, number, renewed_by: 0 });
        Some(number)
    }
}

impl Effect {
    fn read(&mut self, before: &Before, key: &str) -> Option<Bytes> {
        self.reads.insert(key.to_owned(), version(before, key));
        before.state.get(&public_key(TABLE, key)).map(|(value, _, _)| value.clone())
    }

    fn number(&mut self, before: &Before, key: &str) -> Option<u64> {
        let stored = self.read(before, key)?;
        Some(u64::from_be_bytes(stored[..].try_into().expect("eight bytes")))
    }

    fn own_entry(&mut self, before: &Before, organisation: &str, number: u64) -> Option<Entry> {
        let entry: Entry = decode(&self.read(before, &entry_key(number))?);
        (entry.msp_id == organisation && entry.status == Status::Active as i32).then_some(entry)
    }

    fn write_number(&mut self, key: &str, number: u64) {
        self.writes.insert(key.to_owned(), Bytes::copy_from_slice(&number.to_be_bytes()));
    }

    fn write_entry(&mut self, entry: &Entry) {
        self.writes.insert(entry_key(entry.number), entry.encode_to_vec().into());
    }

    fn into_set(self) -> KvrwSet {
        let version =
            |height: Height| Version { block_num: height.block.get(), tx_num: height.tx.get().into() };
        let reads = self.reads.into_iter().map(|(key, read)| KvRead { key, version: read.map(version) });
        let writes = self.writes.into_iter().map(|(key, value)| KvWrite { key, value, ..KvWrite::default() });
        KvrwSet { reads: reads.collect(), writes: writes.collect(), ..KvrwSet::default() }
    }
}

/// The entries that a transaction takes out of use.
pub(super) fn retired_entries(transaction: &Opened) -> BTreeSet<u64> {
    let own = transaction.sets.iter().filter(|set| set.namespace == TABLE);
    let writes = own.flat_map(|set| decode::<KvrwSet>(&set.rwset).writes);
    let entries = writes.filter(|write| write.key.starts_with("entry/"));
    let entries = entries.map(|write| decode::<Entry>(&write.value));
    entries.filter(|entry| entry.status == Status::Retired as i32).map(|entry| entry.number).collect()
}

fn entry_key(number: u64) -> String {
    format!("entry/{number:016x}")
}

fn height(version: Version) -> Height {
    Height::new(version.block_num, version.tx_num as u32)
}

/// The version that a key of the table has.
fn version(before: &Before, key: &str) -> Option<Height> {
    before.state.get(&public_key(TABLE, key)).map(|(_, _, version)| *version)
}

/// The entries whose bits are set, lowest first; the last byte has one.
fn numbers(set: &Bytes) -> Option<Vec<u64>> {
    if *set.last()? == 0 {
        return None;
    }
    let bits = 0..8 * set.len() as u64;
    Some(bits.filter(|bit| set[(bit / 8) as usize] >> (bit % 8) & 1 == 1).collect())
}

/// Each field with its length before it: what it is, the channel, the proposal response payload.
fn signed_together(payload: &Bytes) -> Vec<u8> {
    let fields = [b"consort/endorse/v1", CHANNEL.as_bytes(), &payload[..]];
    fields.iter().flat_map(|field| [&(field.len() as u32).to_be_bytes()[..], field].concat()).collect()
}
