//! Names what two endorsers disagree on.

use bytes::Bytes;
use consort_protos::fabric::protos::{ChaincodeAction, ProposalResponsePayload};
use consort_protos::rwset::{NamespaceReadWriteSet, TxReadWriteSet};
use prost::Message;

/// One sentence about the first difference of two proposal response payloads. Values are never shown, they may be
/// confidential.
pub(super) fn describe(first: &Bytes, second: &Bytes) -> String {
    let (Some(first), Some(second)) = (open(first), open(second)) else {
        return "a payload does not parse".to_owned();
    };
    if first.proposal_hash != second.proposal_hash {
        return "the proposal hashes differ".to_owned();
    }
    if first.action.response != second.action.response {
        return "the chaincode's responses differ".to_owned();
    }
    if first.action.events != second.action.events {
        return "the chaincode's events differ".to_owned();
    }
    if first.action.chaincode_id != second.action.chaincode_id {
        return "the chaincode versions differ".to_owned();
    }
    let (Ok(left), Ok(right)) =
        (TxReadWriteSet::decode(&first.action.results), TxReadWriteSet::decode(&second.action.results))
    else {
        return "a read-write set does not parse".to_owned();
    };
    sets(&left, &right)
}

struct Opened {
    proposal_hash: Bytes,
    action: ChaincodeAction,
}

fn open(payload: &Bytes) -> Option<Opened> {
    let payload = ProposalResponsePayload::decode(payload.clone()).ok()?;
    let action = ChaincodeAction::decode(payload.extension).ok()?;
    Some(Opened { proposal_hash: payload.proposal_hash, action })
}

fn sets(left: &TxReadWriteSet, right: &TxReadWriteSet) -> String {
    for (left, right) in left.namespaces.iter().zip(&right.namespaces) {
        if left.namespace != right.namespace {
            return format!("one touched namespace {}, the other {}", left.namespace, right.namespace);
        }
        if left != right {
            return within(left, right);
        }
    }
    "one touched more namespaces than the other".to_owned()
}

fn within(left: &NamespaceReadWriteSet, right: &NamespaceReadWriteSet) -> String {
    let namespace = &left.namespace;
    if let Some((left, right)) = left.reads.iter().zip(&right.reads).find(|(left, right)| left != right) {
        if left.key == right.key {
            return format!("they read key {:?} of {namespace} in different versions", left.key);
        }
        return format!("one read key {:?} of {namespace}, the other {:?}", left.key, right.key);
    }
    if let Some((left, right)) = left.writes.iter().zip(&right.writes).find(|(left, right)| left != right) {
        if left.key == right.key {
            return format!("they write different values to key {:?} of {namespace}", left.key);
        }
        return format!("one writes key {:?} of {namespace}, the other {:?}", left.key, right.key);
    }
    format!(
        "the number of reads or writes, or what they did in a range or collection of {namespace}, differs"
    )
}
