//! When a transaction that changes the table of identities is valid.
//!
//! Its creator and its endorsers must be those whom the creator's organisation demands, and what it writes must be what the
//! function that it calls writes. The second is found out by running the function again, so that no endorser, and no
//! majority of them, can alter an entry in any other way.

use std::collections::BTreeSet;
use std::sync::Arc;

use consort_channel_config::ChannelBundle;
use consort_ledger::{SimulationError, StateSnapshot, TxSimulator};
use consort_msp::Identity;
use consort_protos::consort::identities::Status;
use consort_protos::entry::EntryNumber;
use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::rwset::{NamespaceReadWriteSet, TxReadWriteSet};
use consort_protos::transaction::{EndorserTransaction, Rejection};

use super::functions::{self, Call, CallError};
use super::{IDENTITIES, state};
use crate::committer::governance::organisation_rule;

/// A transaction that calls `_identities`, or writes to its namespace.
#[derive(Clone, Copy)]
pub(crate) struct Change<'t> {
    /// Who signed it.
    pub(crate) creator: &'t Arc<Identity>,
    /// Its body.
    pub(crate) endorser: &'t EndorserTransaction,
    /// What it read and wrote.
    pub(crate) set: &'t TxReadWriteSet,
    /// The chaincode that it calls.
    pub(crate) chaincode: &'t str,
    /// Who endorsed it.
    pub(crate) endorsers: &'t [Arc<Identity>],
}

/// Judges a change over the state that the block before left. The inner error is the transaction's, the outer one this
/// peer's.
pub(crate) fn judge(
    bundle: &ChannelBundle,
    snapshot: &StateSnapshot,
    change: Change<'_>,
) -> Result<Result<(), Rejection>, consort_ledger::Error> {
    let reject = |code, reason: String| Ok(Err(Rejection::new(code, reason)));
    let unmet = |reason: String| reject(TxValidationCode::EndorsementPolicyFailure, reason);
    if change.chaincode != IDENTITIES {
        let reason = format!("chaincode {} writes to the table of identities", change.chaincode);
        return reject(TxValidationCode::IllegalWriteset, reason);
    }
    let msp_id = change.creator.msp_id();
    let rule = organisation_rule(bundle, msp_id.as_str());
    if let Err(reason) = rule.and_then(|rule| rule.evaluate(change.endorsers)) {
        return unmet(format!("endorsement of {msp_id}, whose entries these are: {reason}"));
    }
    if is_stale(snapshot, change.set)? {
        // It was simulated over another state, as the version check would find too. It is said here, because a change that is
        // not valid must not keep later transactions of the block from using an entry.
        let reason = "the table of identities has changed since the transaction was endorsed".to_owned();
        return reject(TxValidationCode::MvccReadConflict, reason);
    }
    let arguments = match change.endorser.arguments() {
        Ok(arguments) => arguments,
        Err(reason) => return unmet(reason),
    };
    let mut simulator = TxSimulator::new(snapshot.clone(), String::new());
    let call = Call { creator: change.creator, arguments: &arguments, bundle };
    match functions::perform(&call, &mut simulator) {
        Ok(_) if simulator.finish().rwset == *change.set => Ok(Ok(())),
        Ok(_) => unmet("the transaction does not write what the function that it calls writes".to_owned()),
        Err(CallError::State(SimulationError::Ledger(error))) => Err(error),
        Err(error) => unmet(error.to_string()),
    }
}

fn is_stale(snapshot: &StateSnapshot, set: &TxReadWriteSet) -> Result<bool, consort_ledger::Error> {
    let Some(set) = set.namespace(IDENTITIES) else { return Ok(false) };
    for read in &set.reads {
        let version = snapshot.get(IDENTITIES, &read.key)?.map(|value| value.version);
        if version != read.version {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The entries that a part of a read-write set takes out of use.
pub(crate) fn retired(set: &NamespaceReadWriteSet) -> BTreeSet<EntryNumber> {
    if set.namespace != IDENTITIES {
        return BTreeSet::new();
    }
    let writes = set.writes.iter().filter(|write| {
        let entry = state::read_entry(write.value.clone());
        write.is_delete || !entry.is_ok_and(|entry| entry.status == Status::Active as i32)
    });
    writes.filter_map(|write| state::entry_of_key(&write.key)).collect()
}
