//! Who stands behind a number, in one state.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_ledger::StateSnapshot;
use consort_msp::Identity;
use consort_protos::consort::identities::{Entry, Status};
use consort_protos::entry::EntryNumber;
use consort_protos::fabric::msp::SerializedIdentity;
use consort_protos::ids::Height;
use consort_protos::signers;
use consort_protos::transaction::Transaction;
use prost::Message;

use super::{IDENTITIES, state};
use consort_node::dial::with_causes;

/// The entries of one state, each read once. Validated identities behind them are remembered by the bundle's MSPs.
pub(crate) struct Table<'s> {
    /// Whether the channel has a table at all.
    enabled: bool,
    /// Whether its entries endorse together.
    aggregates: bool,
    snapshot: &'s StateSnapshot,
    found: Mutex<HashMap<EntryNumber, Found>>,
    /// Entries that do not count although the state has them.
    without: BTreeSet<EntryNumber>,
    failure: Mutex<Option<String>>,
}

/// What the state says about a number.
#[derive(Clone)]
struct Found {
    /// The transaction that wrote the entry last.
    version: Option<Height>,
    /// Who it stands for, if the entry counts.
    signer: Option<Signer>,
}

/// Who stands behind a number.
#[derive(Clone)]
pub(crate) struct Signer {
    /// The `SerializedIdentity` with the certificate.
    pub(crate) serialized: Bytes,
    /// The BLS key, whose proof was checked when the entry was written.
    pub(crate) bls_key: Option<Bytes>,
}

/// Which version of each entry a judgement saw; none for an entry that was not there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Versions(HashMap<EntryNumber, Option<Height>>);

impl<'s> Table<'s> {
    /// The table of a state, under the configuration in force.
    pub(crate) fn new(bundle: &ChannelBundle, snapshot: &'s StateSnapshot) -> Self {
        Self {
            enabled: bundle.application().capabilities.registered_identities(),
            aggregates: bundle.application().capabilities.aggregated_endorsements(),
            snapshot,
            found: Mutex::default(),
            without: BTreeSet::new(),
            failure: Mutex::default(),
        }
    }

    /// The same table, in which some entries do not count.
    pub(crate) fn without(&self, entries: BTreeSet<EntryNumber>) -> Self {
        Self {
            enabled: self.enabled,
            aggregates: self.aggregates,
            snapshot: self.snapshot,
            found: Mutex::new(self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()),
            without: entries,
            failure: Mutex::default(),
        }
    }

    /// A signer's `SerializedIdentity` with its certificate: itself, unless it is named by number. None for a number that
    /// stands for nobody.
    pub(crate) fn certificate_of(&self, signer: &Bytes) -> Option<Bytes> {
        match EntryNumber::of_serialized(signer) {
            None => Some(signer.clone()),
            Some(number) => self.signer(number).map(|signer| signer.serialized),
        }
    }

    /// Who stands behind a number; none for a number that stands for nobody.
    pub(crate) fn signer(&self, number: EntryNumber) -> Option<Signer> {
        if !self.enabled || self.without.contains(&number) {
            return None;
        }
        self.find(number).signer
    }

    /// The entries that a transaction names: its creator, its endorsers, and those who endorsed it together. None on a channel without a table.
    pub(crate) fn named(&self, transaction: &Transaction) -> BTreeSet<EntryNumber> {
        if !self.enabled {
            return BTreeSet::new();
        }
        let endorser = transaction.endorser();
        let endorsements = endorser.map(|endorser| endorser.endorsements.as_slice());
        let endorsers = endorsements.unwrap_or_default().iter().map(|endorsement| &endorsement.endorser);
        let alone = std::iter::once(&transaction.creator)
            .chain(endorsers)
            .filter_map(|signer| EntryNumber::of_serialized(signer));
        let aggregate = endorser.and_then(|endorser| endorser.aggregate.as_ref()).filter(|_| self.aggregates);
        let together =
            aggregate.and_then(|aggregate| signers::decode(&aggregate.signers)).unwrap_or_default();
        alone.chain(together.into_iter().filter_map(EntryNumber::new)).collect()
    }

    /// Whether an earlier judgement saw other entries than this table has.
    pub(crate) fn differs(&self, seen: &Versions, entries: &BTreeSet<EntryNumber>) -> bool {
        entries.iter().any(|number| seen.0.get(number) != Some(&self.find(*number).version))
    }

    /// What was looked up so far.
    pub(crate) fn into_versions(self) -> Versions {
        // After a failed read nothing was seen, so that everything is looked up again.
        if self.failure().is_some() {
            return Versions::default();
        }
        let found = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        Versions(found.into_iter().map(|(number, found)| (number, found.version)).collect())
    }

    /// Why the state could not be read, if it could not: then no answer of this table counts.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn find(&self, number: EntryNumber) -> Found {
        let mut known = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(&number) {
            return found.clone();
        }
        let found = self.read(number).unwrap_or_else(|reason| {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
            Found { version: None, signer: None }
        });
        known.insert(number, found.clone());
        found
    }

    fn read(&self, number: EntryNumber) -> Result<Found, String> {
        let stored = self
            .snapshot
            .get(IDENTITIES, &state::entry_key(number.get()))
            .map_err(|error| with_causes(&error))?;
        let Some(stored) = stored else { return Ok(Found { version: None, signer: None }) };
        let entry = state::read_entry(stored.value)?;
        let signer = (entry.status == Status::Active as i32)
            .then(|| Signer { serialized: serialized(&entry), bls_key: entry.bls.map(|key| key.public_key) });
        Ok(Found { version: Some(stored.version), signer })
    }
}

/// The entry that an identity is registered with, if it counts.
///
/// # Errors
/// The state cannot be read.
pub(crate) fn entry_of(snapshot: &StateSnapshot, identity: &Identity) -> Result<Option<Entry>, String> {
    indexed(snapshot, &state::certificate_key(identity.id()))
}

/// The entry with a BLS key, if it counts.
///
/// # Errors
/// The state cannot be read.
pub(crate) fn entry_with_key(snapshot: &StateSnapshot, key: &[u8]) -> Result<Option<Entry>, String> {
    indexed(snapshot, &state::bls_key(key))
}

/// The entry whose number lies under a key, if it counts.
fn indexed(snapshot: &StateSnapshot, index: &str) -> Result<Option<Entry>, String> {
    let value = |key: &str| -> Result<Option<Bytes>, String> {
        let stored = snapshot.get(IDENTITIES, key).map_err(|error| with_causes(&error))?;
        Ok(stored.map(|stored| stored.value))
    };
    let Some(number) = value(index)? else { return Ok(None) };
    let entry = value(&state::entry_key(state::read_number(&number)?))?.map(state::read_entry).transpose()?;
    Ok(entry.filter(|entry| entry.status == Status::Active as i32))
}

/// The identity that an entry stands for, as its owner writes it when it signs.
pub(crate) fn serialized(entry: &Entry) -> Bytes {
    SerializedIdentity {
        mspid: entry.msp_id.clone(),
        id_bytes: entry.certificate.clone(),
        ..SerializedIdentity::default()
    }
    .encode_to_vec()
    .into()
}
