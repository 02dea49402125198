//! Well-formed input about sealed data: each call of `_sealed`, and what its proxies are sent.

use bytes::Bytes;
use consort_crypto::pre::{SecretKey, Suite, prove_knowledge};
use consort_protos::consort::sealed::{
    Audit, Commitment, CreateDomain, DepositRequest, DomainName, Filter, GrantName, ListRecords, NewGrant,
    NewRequest, Party, ProxyOf, PutRecord, Question, RecordName, RequestName, Respond, Revoke,
    SignedFragment, SignedQuestion, Terms, Validity, audit,
};
use consort_protos::sealed::domain_context;
use prost::Message;

use crate::network::{CHANNEL, NETWORK};
use crate::seeds::{TX_ID, input};

const DOMAIN: &str = "clinic";
const GRANT: &str = "g1";

/// Number of the suite P256 in messages.
const P256: i32 = consort_protos::consort::sealed::Suite::P256 as i32;

/// A record.
pub(crate) fn record_name() -> RecordName {
    RecordName { domain: DOMAIN.to_owned(), key: "one".to_owned(), ..RecordName::default() }
}

/// Who calls, as grants name it.
fn caller() -> Party {
    let certificate = NETWORK.admin.certificate();
    let id = format!("x509::{}::{}", certificate.subject(), certificate.issuer());
    Party { msp_id: NETWORK.admin.msp_id().to_string(), id }
}

fn secret_key() -> SecretKey {
    SecretKey::generate(Suite::P256).expect("invariant: the system gives random bytes")
}

fn create_domain() -> CreateDomain {
    let key = secret_key();
    let context = domain_context(CHANNEL, DOMAIN, &caller());
    let proof = prove_knowledge(&key, &context).expect("invariant: the system gives random bytes");
    CreateDomain {
        domain: DOMAIN.to_owned(),
        suite: P256,
        public_key: key.public_key().to_bytes().to_vec().into(),
        proof: proof.to_bytes().to_vec().into(),
        description: "wards".to_owned(),
    }
}

fn new_grant() -> NewGrant {
    let point = || Bytes::from(secret_key().public_key().to_bytes().to_vec());
    let proxy = ProxyOf {
        index: 1,
        peer: Some(caller()),
        encryption_key: point(),
        endpoint: "peer0.org1.example.com:7051".to_owned(),
    };
    let terms = Terms {
        channel: CHANNEL.to_owned(),
        grant: GRANT.to_owned(),
        domain: DOMAIN.to_owned(),
        owner: Some(caller()),
        reader: Some(caller()),
        reader_key: point(),
        filter: Some(Filter { keys: vec!["one".to_owned()], prefixes: Vec::new() }),
        threshold: 1,
        proxies: vec![proxy],
        validity: Some(Validity::default()),
        ..Terms::default()
    };
    let commitment = Commitment { point: point(), sealed_share_sha256: Bytes::from_static(&[7; 32]) };
    NewGrant { terms: terms.encode_to_vec().into(), ephemeral: point(), commitments: vec![commitment] }
}

/// A call of each function; the first makes a domain.
pub(crate) fn arguments() -> Vec<Vec<u8>> {
    let (domain, grant, tx_id) = (DOMAIN.to_owned(), GRANT.to_owned(), TX_ID.to_owned());
    let record = PutRecord {
        name: Some(record_name()),
        capsule: secret_key().public_key().to_bytes().to_vec().into(),
        ..PutRecord::default()
    };
    let about = [
        audit::About::Record(record_name()),
        audit::About::Reader(caller()),
        audit::About::Grant(grant.clone()),
        audit::About::Domain(domain.clone()),
    ];
    let calls = [
        ("CreateDomain", create_domain().encode_to_vec()),
        ("PutRecord", record.encode_to_vec()),
        ("Grant", new_grant().encode_to_vec()),
        ("Revoke", Revoke { grant: grant.clone(), reason: "over".to_owned() }.encode_to_vec()),
        ("Request", NewRequest { grant: grant.clone(), record: Some(record_name()) }.encode_to_vec()),
        ("Respond", Respond { answer: Some(SignedFragment::default()) }.encode_to_vec()),
        ("GetDomain", DomainName { domain: domain.clone() }.encode_to_vec()),
        ("GetRecord", record_name().encode_to_vec()),
        ("GetGrant", GrantName { grant }.encode_to_vec()),
        ("GetRequest", RequestName { tx_id }.encode_to_vec()),
        ("ListRecords", ListRecords { domain, ..ListRecords::default() }.encode_to_vec()),
    ];
    let audits = about.map(|about| Audit { about: Some(about), ..Audit::default() }.encode_to_vec());
    let calls = calls.into_iter().chain(audits.map(|audit| ("Audit", audit)));
    calls.map(|(function, argument)| input(&[function.as_bytes(), &argument])).collect()
}

/// A share.
pub(crate) fn deposits() -> Vec<Vec<u8>> {
    let deposit = DepositRequest {
        channel: CHANNEL.to_owned(),
        grant: TX_ID.to_owned(),
        index: 1,
        sealed_share: Bytes::from_static(&[3; 113]),
    };
    vec![deposit.encode_to_vec()]
}

/// A question, alone and signed by nobody.
pub(crate) fn questions() -> Vec<Vec<u8>> {
    let question = Question { channel: CHANNEL.to_owned(), request: TX_ID.to_owned() };
    let question = Bytes::from(question.encode_to_vec());
    vec![question.to_vec(), SignedQuestion { question, ..SignedQuestion::default() }.encode_to_vec()]
}
