//! What openers accept and refuse, and with which code.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;

use bytes::Bytes;
use consort_protos::envelope::{self, OpenEnvelope};
use consort_protos::fabric::common::{ChannelHeader, Envelope, HeaderType, SignatureHeader};
use consort_protos::fabric::kvrwset;
use consort_protos::fabric::protos::{
    self, ChaincodeAction, ChaincodeEvent, ChaincodeId, Endorsement, ProposalResponsePayload, SignedProposal,
    TxValidationCode,
};
use consort_protos::ids::Height;
use consort_protos::proposal::{Proposal, ProposalParts, new_proposal, prepared_envelope};
use consort_protos::rwset::{
    NamespaceReadWriteSet, PrivateCollection, PrivateNamespace, PrivateReadWriteSet, RangeQuery, RangeReads,
    Read, TxReadWriteSet, Write,
};
use consort_protos::transaction::{Body, Transaction};
use proptest::prelude::*;
use prost::Message;

fn parts() -> ProposalParts {
    ProposalParts {
        channel: "mychannel".to_owned(),
        creator: Bytes::from_static(b"creator"),
        nonce: Bytes::from_static(b"nonce"),
        tx_id: "00".repeat(32),
        timestamp: prost_types::Timestamp { seconds: 1, nanos: 2 },
        chaincode: "basic".to_owned(),
        args: vec![Bytes::from_static(b"CreateAsset"), Bytes::from_static(b"a")],
        transient: BTreeMap::from([("secret".to_owned(), Bytes::from_static(b"hidden value"))]),
        is_init: false,
    }
}

fn signed(proposal: &protos::Proposal) -> SignedProposal {
    SignedProposal {
        proposal_bytes: proposal.encode_to_vec().into(),
        signature: Bytes::from_static(b"signature"),
    }
}

fn proposal() -> Proposal {
    Proposal::open(&signed(&new_proposal(parts()))).unwrap()
}

fn write(key: &str) -> Write {
    Write { key: key.to_owned(), is_delete: false, value: Bytes::from_static(b"v") }
}

fn action() -> ChaincodeAction {
    let set = NamespaceReadWriteSet {
        namespace: "basic".to_owned(),
        writes: vec![write("a")],
        ..Default::default()
    };
    ChaincodeAction {
        results: TxReadWriteSet { namespaces: vec![set] }.encode(),
        events: Bytes::new(),
        response: Some(protos::Response { status: 200, ..Default::default() }),
        chaincode_id: Some(ChaincodeId {
            name: "basic".to_owned(),
            version: "1.0".to_owned(),
            ..ChaincodeId::default()
        }),
    }
}

/// The envelope that a gateway would prepare for this action.
fn envelope_of(action: &ChaincodeAction) -> Bytes {
    let response = ProposalResponsePayload {
        proposal_hash: Bytes::from_static(&[7; 32]),
        extension: action.encode_to_vec().into(),
    };
    let endorsement = Endorsement { endorser: Bytes::from_static(b"e"), signature: Bytes::from_static(b"s") };
    let mut envelope =
        prepared_envelope(&proposal(), response.encode_to_vec().into(), vec![endorsement], None);
    envelope.signature = Bytes::from_static(b"signature");
    envelope.encode_to_vec().into()
}

fn invocation_code(change: impl FnOnce(&mut ChaincodeAction)) -> TxValidationCode {
    let mut action = action();
    change(&mut action);
    let transaction = Transaction::open(envelope_of(&action)).unwrap();
    transaction.endorser().unwrap().invocation.as_ref().unwrap_err().code
}

#[test]
fn a_proposal_and_its_endorsements_become_a_transaction() {
    let transaction = Transaction::open(envelope_of(&action())).unwrap();
    let endorser = transaction.endorser().unwrap();
    assert_eq!(transaction.channel, "mychannel");
    assert_eq!(endorser.chaincode_proposal_payload, proposal().payload_without_transient());
    assert_eq!(transaction.invocation().unwrap().rwset.namespaces[0].writes, [write("a")]);
    assert!(transaction.invocation().unwrap().event.is_none());
    let hidden = b"hidden value";
    assert!(!transaction.raw.windows(hidden.len()).any(|window| window == hidden), "transient data leaks");
}

#[test]
fn transient_data_reaches_the_endorser_but_no_log() {
    let proposal = proposal();
    assert_eq!(proposal.transient["secret"], "hidden value");
    assert!(!format!("{proposal:?} {:?}", parts()).contains("hidden"));
    let payload = protos::ChaincodeProposalPayload { input: Bytes::new(), transient_map: proposal.transient };
    assert!(!format!("{payload:?}").contains("hidden"));
}

#[test]
fn headers_of_a_proposal_are_checked() {
    let refused = |change: fn(&mut Proposal)| {
        let mut proposal = proposal();
        change(&mut proposal);
        proposal.check_headers().unwrap_err()
    };
    assert_eq!(proposal().check_headers(), Ok(()));
    assert_eq!(refused(|proposal| proposal.channel_header.r#type = 2), "invalid header type CONFIG_UPDATE");
    assert_eq!(refused(|proposal| proposal.channel_header.epoch = 1), "epoch is non-zero");
    assert_eq!(refused(|proposal| proposal.nonce = Bytes::new()), "nonce is empty");
    assert_eq!(refused(|proposal| proposal.creator = Bytes::new()), "creator is empty");
    assert_eq!(refused(|proposal| proposal.signature = Bytes::new()), "signature bytes are nil");
}

#[test]
fn a_proposal_without_a_chaincode_is_refused() {
    let refused = |change: fn(&mut ProposalParts)| {
        let mut parts = parts();
        change(&mut parts);
        Proposal::open(&signed(&new_proposal(parts))).unwrap_err()
    };
    assert_eq!(
        refused(|parts| parts.chaincode.clear()),
        "ChaincodeHeaderExtension.ChaincodeId.Name is empty"
    );
    let empty = Proposal::open(&SignedProposal::default()).unwrap_err();
    assert_eq!(empty, "ChaincodeHeaderExtension.ChaincodeId is nil");
    let garbage = SignedProposal { proposal_bytes: Bytes::from_static(&[0xff]), signature: Bytes::new() };
    assert!(Proposal::open(&garbage).unwrap_err().starts_with("error unmarshalling Proposal"));
}

#[test]
fn later_faults_of_a_transaction_carry_their_own_codes() {
    use TxValidationCode as Code;
    assert_eq!(invocation_code(|action| action.results = Bytes::from_static(&[0xff])), Code::BadRwset);
    assert_eq!(invocation_code(|action| action.chaincode_id = None), Code::InvalidOtherReason);
    assert_eq!(
        invocation_code(|action| action.chaincode_id.as_mut().unwrap().version.clear()),
        Code::InvalidChaincode
    );
    assert_eq!(
        invocation_code(|action| action.chaincode_id.as_mut().unwrap().name = "other".to_owned()),
        Code::InvalidChaincode
    );
    assert_eq!(
        invocation_code(|action| action.events = Bytes::from_static(&[0xff])),
        Code::InvalidOtherReason
    );
    let foreign = ChaincodeEvent { chaincode_id: "other".to_owned(), ..ChaincodeEvent::default() };
    assert_eq!(
        invocation_code(|action| action.events = foreign.encode_to_vec().into()),
        Code::InvalidOtherReason
    );
    assert_eq!(
        invocation_code(|action| {
            let set = NamespaceReadWriteSet { namespace: "basic".to_owned(), ..Default::default() };
            action.results = TxReadWriteSet { namespaces: vec![set.clone(), set] }.encode();
        }),
        Code::IllegalWriteset
    );
}

#[test]
fn a_nested_set_that_does_not_parse_is_a_bad_read_write_set() {
    use consort_protos::fabric::rwset;
    let broken = rwset::NsReadWriteSet { rwset: Bytes::from_static(&[0xff]), ..Default::default() };
    let set = rwset::TxReadWriteSet { data_model: 0, ns_rwset: vec![broken] };
    let code = invocation_code(|action| action.results = set.encode_to_vec().into());
    assert_eq!(code, TxValidationCode::BadRwset);
}

fn envelope_with(
    header: &ChannelHeader,
    creator: &'static [u8],
    nonce: &'static [u8],
    data: &'static [u8],
) -> Bytes {
    let signature_header =
        SignatureHeader { creator: Bytes::from_static(creator), nonce: Bytes::from_static(nonce) };
    let payload = envelope::payload(header, &signature_header, Bytes::from_static(data));
    Envelope { payload, signature: Bytes::from_static(b"s"), ..Envelope::default() }.encode_to_vec().into()
}

fn header(kind: HeaderType) -> ChannelHeader {
    ChannelHeader { r#type: kind.into(), channel_id: "mychannel".to_owned(), ..ChannelHeader::default() }
}

#[test]
fn outer_faults_of_a_transaction_carry_fabrics_codes() {
    use TxValidationCode as Code;
    let code = |raw: Bytes| Transaction::open(raw).unwrap_err().code;
    assert_eq!(code(Bytes::from_static(&[0xff])), Code::InvalidOtherReason);
    let envelope =
        Envelope { payload: Bytes::from_static(&[0xff]), signature: Bytes::new(), ..Envelope::default() };
    assert_eq!(code(envelope.encode_to_vec().into()), Code::BadPayload);
    assert_eq!(code(Bytes::new()), Code::BadCommonHeader);
    let endorser = header(HeaderType::EndorserTransaction);
    assert_eq!(code(envelope_with(&header(HeaderType::Message), b"c", b"n", b"")), Code::BadCommonHeader);
    assert_eq!(code(envelope_with(&endorser, b"", b"n", b"")), Code::BadCommonHeader);
    assert_eq!(code(envelope_with(&endorser, b"c", b"", b"")), Code::BadCommonHeader);
    let late = ChannelHeader { epoch: 1, ..endorser };
    assert_eq!(code(envelope_with(&late, b"c", b"n", b"")), Code::BadCommonHeader);
}

#[test]
fn faults_of_the_body_wait_for_the_signature() {
    use TxValidationCode as Code;
    let code = |kind, data| {
        let transaction = Transaction::open(envelope_with(&header(kind), b"c", b"n", data)).unwrap();
        transaction.body.unwrap_err().code
    };
    assert_eq!(code(HeaderType::EndorserTransaction, b""), Code::InvalidEndorserTransaction);
    // An action whose payload lacks the endorsed action; Fabric's own validator dies of it.
    assert_eq!(
        code(HeaderType::EndorserTransaction, b"\x0a\x08\x0a\x06\x0a\x01c\x12\x01n"),
        Code::InvalidEndorserTransaction
    );
    assert_eq!(code(HeaderType::Config, b""), Code::InvalidConfigTransaction);
    assert_eq!(code(HeaderType::Config, b"\xff"), Code::NotValidated, "a peer stops there");
    assert_eq!(code(HeaderType::ConfigUpdate, b"\xff"), Code::UnsupportedTxPayload);
}

#[test]
fn a_config_update_opens_on_its_way_to_the_orderer() {
    let raw = envelope_with(&header(HeaderType::ConfigUpdate), b"c", b"n", b"\x0a\x01u");
    let transaction = Transaction::open(raw).unwrap();
    let Ok(Body::ConfigUpdate(update)) = &transaction.body else { panic!("{:?}", transaction.body) };
    assert_eq!(update.config_update, "u");
}

#[test]
fn the_version_of_genesis_is_present_and_empty() {
    let read = Read { key: "k".to_owned(), version: Some(Height::new(0, 0)) };
    assert_eq!(read.to_message().encode_to_vec(), b"\x0a\x01k\x12\x00");
    let absent = Read { key: "k".to_owned(), version: None };
    assert_eq!(absent.to_message().encode_to_vec(), b"\x0a\x01k");
}

#[test]
fn a_public_key_that_is_not_utf8_is_refused() {
    let set = kvrwset::KvrwSet { writes: vec![kvrwset::KvWrite::default()], ..Default::default() };
    let mut bytes = set.encode_to_vec();
    bytes.extend([0x1a, 3, 0x0a, 1, 0xff]);
    let namespace =
        consort_protos::fabric::rwset::NsReadWriteSet { rwset: bytes.into(), ..Default::default() };
    let set = consort_protos::fabric::rwset::TxReadWriteSet { data_model: 0, ns_rwset: vec![namespace] };
    assert!(TxReadWriteSet::decode(&set.encode_to_vec().into()).is_err());
}

#[test]
fn private_writes_keep_the_bytes_that_their_hash_covers() {
    let collection = PrivateCollection::new("secrets", vec![write("a"), write("b")], Vec::new());
    let set = PrivateReadWriteSet {
        namespaces: vec![PrivateNamespace {
            namespace: "basic".to_owned(),
            collections: vec![collection.clone()],
        }],
    };
    let opened = PrivateReadWriteSet::decode(&set.encode()).unwrap();
    assert_eq!(opened, set);
    assert_eq!(opened.collection("basic", "secrets").unwrap().bytes(), collection.bytes());
    assert!(!format!("{:?}", set.to_message()).contains("\"v\""), "private values in Debug output");
}

fn keys() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-c]{1,3}", any::<String>()]
}

fn reads() -> impl Strategy<Value = Read> {
    let version =
        proptest::option::of((any::<u64>(), any::<u32>()).prop_map(|(block, tx)| Height::new(block, tx)));
    (keys(), version).prop_map(|(key, version)| Read { key, version })
}

fn sets() -> impl Strategy<Value = TxReadWriteSet> {
    let writes = (keys(), any::<bool>(), any::<Vec<u8>>()).prop_map(|(key, is_delete, value)| Write {
        key,
        is_delete,
        value: value.into(),
    });
    let ranges = (keys(), keys(), any::<bool>(), proptest::collection::vec(reads(), 0..4)).prop_map(
        |(start_key, end_key, exhausted, reads)| RangeQuery {
            start_key,
            end_key,
            exhausted,
            reads: RangeReads::Raw(reads),
        },
    );
    let several = 0..4usize;
    let namespace = (
        keys(),
        proptest::collection::vec(reads(), several.clone()),
        proptest::collection::vec(ranges, several.clone()),
        proptest::collection::vec(writes, several.clone()),
    )
        .prop_map(|(namespace, reads, range_queries, writes)| NamespaceReadWriteSet {
            namespace,
            reads,
            range_queries,
            writes,
            ..NamespaceReadWriteSet::default()
        });
    proptest::collection::vec(namespace, several).prop_map(|namespaces| TxReadWriteSet { namespaces })
}

proptest! {
    #[test]
    fn read_write_sets_survive_encoding(set in sets()) {
        prop_assert_eq!(TxReadWriteSet::decode(&set.encode()).unwrap(), set);
    }

    #[test]
    fn arbitrary_bytes_never_panic_an_opener(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let bytes = Bytes::from(bytes);
        let _ = Transaction::open(bytes.clone());
        let _ = OpenEnvelope::open(bytes.clone());
        let _ = Proposal::open(&SignedProposal { proposal_bytes: bytes.clone(), signature: Bytes::new() });
        let _ = TxReadWriteSet::decode(&bytes);
        let _ = PrivateReadWriteSet::decode(&bytes);
        let _ = consort_protos::block::open(bytes);
    }

    #[test]
    fn a_damaged_proposal_opens_or_is_refused(position in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = new_proposal(parts()).encode_to_vec();
        let place = position.index(bytes.len());
        bytes[place] = byte;
        let _ = Proposal::open(&SignedProposal { proposal_bytes: bytes.into(), signature: Bytes::new() });
    }
}

#[test]
fn nesting_beyond_the_limit_is_refused() {
    use consort_protos::fabric::common::{ConfigGroup, SignaturePolicy};
    let mut nested = Vec::new();
    for _ in 0..2_000 {
        // rules (field 2) of n_out_of (field 2).
        nested = [
            vec![0x12],
            length(nested.len() + 1 + length(nested.len()).len()),
            vec![0x12],
            length(nested.len()),
            nested,
        ]
        .concat();
    }
    assert!(SignaturePolicy::decode(Bytes::from(nested.clone())).is_err());
    assert!(ConfigGroup::decode(Bytes::from(nested)).is_err());
}

fn length(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
    out
}
