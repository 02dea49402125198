//! Names what two endorsers disagree on: the first key, and what each of them says about it.
//!
//! Values are those of the public read-write set, which whoever may read the channel's blocks will see anyway; everybody
//! else learns the key only. Of private data a read-write set holds hashes.

use bytes::Bytes;
use consort_protos::fabric::protos::{ChaincodeAction, ChaincodeEvent, ProposalResponsePayload, Response};
use consort_protos::ids::Height;
use consort_protos::rwset::{
    HashedCollection, NamespaceReadWriteSet, RangeQuery, RangeReads, Read, TxReadWriteSet, Write,
};
use prost::Message;

/// Bytes of a value that are shown; enough to recognise it, and an error stays readable.
const VALUE_SHOWN_BYTES: usize = 64;

/// The first thing on which two proposal response payloads differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// What it is: `the value written to key "asset1" of basic`.
    what: String,
    /// What the first and the second say about it.
    sides: Option<(Side, Side)>,
}

/// What one endorser says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Side {
    /// A fact for everybody: a version, a count, a name.
    Plain(String),
    /// A value for readers of the channel.
    Value(String),
}

impl Difference {
    /// Finds the first difference.
    pub(super) fn between(first: &Bytes, second: &Bytes) -> Self {
        let (Some(first), Some(second)) = (open(first), open(second)) else {
            return Self::of("a payload that does not parse");
        };
        if first.proposal_hash != second.proposal_hash {
            return Self::of("the hash of the proposal");
        }
        let (left, right) = (&first.action, &second.action);
        if left.chaincode_id != right.chaincode_id {
            let version = |action: &ChaincodeAction| {
                action.chaincode_id.as_ref().map(|id| id.version.clone()).unwrap_or_default()
            };
            return Self::plain("the chaincode's version", version(left), version(right));
        }
        // The read-write set first: a different response is usually its consequence.
        match (TxReadWriteSet::decode(&left.results), TxReadWriteSet::decode(&right.results)) {
            (Ok(left), Ok(right)) => {
                if let Some(difference) = sets(&left, &right) {
                    return difference;
                }
            }
            _ => return Self::of("a read-write set that does not parse"),
        }
        if left.response != right.response {
            return responses(left.response.as_ref(), right.response.as_ref());
        }
        if left.events != right.events {
            return events(&left.events, &right.events);
        }
        Self::of("something outside what the chaincode did")
    }

    /// The sentence about two endorsers, with values when the reader of it may know them.
    pub(super) fn sentence(&self, first: &str, second: &str, values: bool) -> String {
        let what = &self.what;
        match &self.sides {
            Some((Side::Plain(left), Side::Plain(right))) => {
                format!("{first} and {second} differ in {what}: {left} and {right}")
            }
            Some((Side::Value(left) | Side::Plain(left), Side::Value(right) | Side::Plain(right)))
                if values =>
            {
                format!("{first} and {second} differ in {what}: {left} and {right}")
            }
            _ => format!("{first} and {second} differ in {what}"),
        }
    }

    fn of(what: impl Into<String>) -> Self {
        Self { what: what.into(), sides: None }
    }

    fn plain(what: impl Into<String>, left: String, right: String) -> Self {
        Self { what: what.into(), sides: Some((Side::Plain(left), Side::Plain(right))) }
    }

    fn values(what: impl Into<String>, left: String, right: String) -> Self {
        Self { what: what.into(), sides: Some((Side::Value(left), Side::Value(right))) }
    }
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

fn sets(left: &TxReadWriteSet, right: &TxReadWriteSet) -> Option<Difference> {
    for (left, right) in left.namespaces.iter().zip(&right.namespaces) {
        if left.namespace != right.namespace {
            let names = (left.namespace.clone(), right.namespace.clone());
            return Some(Difference::plain("the chaincode whose keys are touched next", names.0, names.1));
        }
        if left != right {
            return Some(within(left, right));
        }
    }
    let counts = (left.namespaces.len(), right.namespaces.len());
    (counts.0 != counts.1).then(|| number("the number of chaincodes whose keys are touched", counts))
}

fn within(left: &NamespaceReadWriteSet, right: &NamespaceReadWriteSet) -> Difference {
    let name = &left.namespace;
    reads(&format!("of {name}"), &left.reads, &right.reads)
        .or_else(|| ranges(name, &left.range_queries, &right.range_queries))
        .or_else(|| writes(name, &left.writes, &right.writes))
        .or_else(|| {
            let metadata = left.metadata_writes.iter().zip(&right.metadata_writes);
            let (found, _) = metadata.into_iter().find(|(left, right)| left != right)?;
            Some(Difference::of(format!("the policy set for key {:?} of {name}", found.key)))
        })
        .or_else(|| {
            let (left, right) =
                left.collections.iter().zip(&right.collections).find(|(left, right)| left != right)?;
            Some(collection(name, left, right))
        })
        .unwrap_or_else(|| Difference::of(format!("the number of keys or collections touched in {name}")))
}

fn reads(place: &str, left: &[Read], right: &[Read]) -> Option<Difference> {
    if let Some((left, right)) = left.iter().zip(right).find(|(left, right)| left != right) {
        return Some(if left.key == right.key {
            let what = format!("the version read of key {:?} {place}", left.key);
            Difference::plain(what, version(left.version), version(right.version))
        } else {
            let what = format!("the key {place} that is read next");
            Difference::plain(what, format!("{:?}", left.key), format!("{:?}", right.key))
        });
    }
    let counts = (left.len(), right.len());
    let extra = if counts.0 > counts.1 { left.get(counts.1) } else { right.get(counts.0) };
    extra.map(|extra| Difference::of(format!("whether key {:?} {place} is read", extra.key)))
}

fn ranges(namespace: &str, left: &[RangeQuery], right: &[RangeQuery]) -> Option<Difference> {
    let Some((left, right)) = left.iter().zip(right).find(|(left, right)| left != right) else {
        let counts = (left.len(), right.len());
        return (counts.0 != counts.1)
            .then(|| number(&format!("the number of ranges read in {namespace}"), counts));
    };
    let range = format!("of the range from {:?} in {namespace}", left.start_key);
    if let (RangeReads::Raw(left), RangeReads::Raw(right)) = (&left.reads, &right.reads)
        && let Some(difference) = reads(&range, left, right)
    {
        return Some(difference);
    }
    Some(Difference::of(format!("the result {range}")))
}

fn writes(namespace: &str, left: &[Write], right: &[Write]) -> Option<Difference> {
    if let Some((left, right)) = left.iter().zip(right).find(|(left, right)| left != right) {
        return Some(if left.key == right.key {
            let what = format!("the value written to key {:?} of {namespace}", left.key);
            Difference::values(what, written(left), written(right))
        } else {
            let what = format!("the key of {namespace} that is written next");
            Difference::plain(what, format!("{:?}", left.key), format!("{:?}", right.key))
        });
    }
    let counts = (left.len(), right.len());
    let extra = if counts.0 > counts.1 { left.get(counts.1) } else { right.get(counts.0) };
    extra.map(|extra| Difference::of(format!("whether key {:?} of {namespace} is written", extra.key)))
}

fn collection(namespace: &str, left: &HashedCollection, right: &HashedCollection) -> Difference {
    if left.name != right.name {
        let what = format!("the collection of {namespace} that is touched next");
        return Difference::plain(what, left.name.clone(), right.name.clone());
    }
    let place = format!("of collection {} of {namespace}", left.name);
    let read = left.hashed_reads.iter().zip(&right.hashed_reads).find(|(left, right)| left != right);
    if let Some((left, right)) = read.filter(|(left, right)| left.key_hash == right.key_hash) {
        let what = format!("the version read of the key with hash {} {place}", hex::encode(&left.key_hash));
        return Difference::plain(what, version(left.version), version(right.version));
    }
    let written = left.hashed_writes.iter().zip(&right.hashed_writes).find(|(left, right)| left != right);
    if let Some((left, _)) = written.filter(|(left, right)| left.key_hash == right.key_hash) {
        let hash = hex::encode(&left.key_hash);
        return Difference::of(format!("the value written to the key with hash {hash} {place}"));
    }
    Difference::of(format!("the keys {place}"))
}

fn responses(left: Option<&Response>, right: Option<&Response>) -> Difference {
    let (left, right) = (left.cloned().unwrap_or_default(), right.cloned().unwrap_or_default());
    if left.status != right.status {
        return number("the status that the chaincode answers", (left.status, right.status));
    }
    if left.message != right.message {
        let what = "the message that the chaincode answers";
        return Difference::values(what, format!("{:?}", left.message), format!("{:?}", right.message));
    }
    Difference::values("the result that the chaincode returns", value(&left.payload), value(&right.payload))
}

fn events(left: &Bytes, right: &Bytes) -> Difference {
    let event = |bytes: &Bytes| ChaincodeEvent::decode(bytes.clone()).unwrap_or_default();
    let (left, right) = (event(left), event(right));
    if left.event_name != right.event_name {
        return Difference::plain("the name of the chaincode's event", left.event_name, right.event_name);
    }
    Difference::values("the content of the chaincode's event", value(&left.payload), value(&right.payload))
}

fn number<T: ToString>(what: &str, (left, right): (T, T)) -> Difference {
    Difference::plain(what, left.to_string(), right.to_string())
}

fn version(version: Option<Height>) -> String {
    version.map_or_else(
        || "absent".to_owned(),
        |height| format!("block {} transaction {}", height.block, height.tx),
    )
}

fn written(write: &Write) -> String {
    if write.is_delete { "deleted".to_owned() } else { value(&write.value) }
}

/// The beginning of a value as text, or in hexadecimal when it is none.
fn value(bytes: &Bytes) -> String {
    let shown = &bytes[..bytes.len().min(VALUE_SHOWN_BYTES)];
    let text = match std::str::from_utf8(shown) {
        Ok(text) => format!("{text:?}"),
        // A character may be cut in two at the end.
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => {
            format!("{:?}", String::from_utf8_lossy(&shown[..error.valid_up_to()]))
        }
        Err(_) => format!("0x{}", hex::encode(shown)),
    };
    if bytes.len() > shown.len() { format!("{text}... ({} bytes)", bytes.len()) } else { text }
}

#[cfg(test)]
mod tests {
    use consort_protos::ids::{BlockNumber, TxNumber};

    use super::*;

    fn payload(set: &TxReadWriteSet, result: &str) -> Bytes {
        let action = ChaincodeAction {
            results: set.encode(),
            response: Some(Response {
                status: 200,
                payload: result.to_owned().into(),
                ..Response::default()
            }),
            ..ChaincodeAction::default()
        };
        let payload = ProposalResponsePayload {
            extension: action.encode_to_vec().into(),
            ..ProposalResponsePayload::default()
        };
        payload.encode_to_vec().into()
    }

    fn touched(reads: &[(&str, Option<u64>)], writes: &[(&str, &str)]) -> TxReadWriteSet {
        let height = |block| Height { block: BlockNumber::new(block), tx: TxNumber::new(0) };
        let set = NamespaceReadWriteSet {
            namespace: "basic".to_owned(),
            reads: reads
                .iter()
                .map(|(key, block)| Read { key: (*key).to_owned(), version: block.map(height) })
                .collect(),
            writes: writes
                .iter()
                .map(|(key, value)| Write {
                    key: (*key).to_owned(),
                    is_delete: false,
                    value: Bytes::copy_from_slice(value.as_bytes()),
                })
                .collect(),
            ..NamespaceReadWriteSet::default()
        };
        TxReadWriteSet { namespaces: vec![set] }
    }

    fn sentence(left: &TxReadWriteSet, right: &TxReadWriteSet, values: bool) -> String {
        Difference::between(&payload(left, "a"), &payload(right, "b")).sentence("Org1MSP", "Org2MSP", values)
    }

    #[test]
    fn the_first_key_is_named_with_its_values() {
        let (left, right) =
            (touched(&[], &[("k1", "x"), ("k2", "y")]), touched(&[], &[("k1", "x"), ("k2", "z")]));
        assert_eq!(
            sentence(&left, &right, true),
            "Org1MSP and Org2MSP differ in the value written to key \"k2\" of basic: \"y\" and \"z\""
        );
    }

    #[test]
    fn values_stay_hidden_from_those_who_may_not_read() {
        let text = sentence(&touched(&[], &[("k", "secret1")]), &touched(&[], &[("k", "secret2")]), false);
        assert_eq!(text, "Org1MSP and Org2MSP differ in the value written to key \"k\" of basic");
    }

    #[test]
    fn different_versions_are_facts_for_everybody() {
        let text = sentence(&touched(&[("k", Some(3))], &[]), &touched(&[("k", None)], &[]), false);
        assert_eq!(
            text,
            "Org1MSP and Org2MSP differ in the version read of key \"k\" of basic: block 3 transaction 0 and absent"
        );
    }

    #[test]
    fn a_key_that_only_one_of_them_touches_is_named() {
        let text = sentence(&touched(&[("a", None)], &[]), &touched(&[("a", None), ("b", None)], &[]), true);
        assert_eq!(text, "Org1MSP and Org2MSP differ in whether key \"b\" of basic is read");
    }

    #[test]
    fn results_are_compared_when_the_sets_are_equal() {
        let set = touched(&[], &[("k", "v")]);
        assert_eq!(
            sentence(&set, &set, true),
            "Org1MSP and Org2MSP differ in the result that the chaincode returns: \"a\" and \"b\""
        );
    }

    #[test]
    fn long_and_binary_values_are_shortened() {
        assert_eq!(value(&Bytes::from(vec![b'x'; 100])), format!("\"{}\"... (100 bytes)", "x".repeat(64)));
        assert_eq!(value(&Bytes::from_static(b"\xff\x00")), "0xff00");
    }

    #[test]
    fn garbage_is_named_as_such() {
        let text = Difference::between(&Bytes::from_static(b"\xff"), &Bytes::new()).sentence("A", "B", true);
        assert_eq!(text, "A and B differ in a payload that does not parse");
    }
}
