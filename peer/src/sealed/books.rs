//! Where domains, records, grants and requests lie in the namespace `_sealed`.
//!
//! A key is a kind and names, joined by `/`, which no name contains. Values are the messages of `consort/sealed.proto`. What can
//! change (the newest version of a record, the status of a grant) is apart from what never does, so that two transactions
//! conflict only where one of them must lose.

use bytes::Bytes;
use consort_crypto::certificate::Certificate;
use consort_crypto::hash::sha256_parts;
use consort_ledger::{SimulationError, StateSnapshot, TxSimulator};
use consort_msp::Identity;
use consort_protos::consort::sealed::{
    Domain, Grant, GrantStatus, Party, Record, RecordName, Request, Response,
};
use consort_protos::ids::MspId;
use prost::Message;

use super::SEALED;
use crate::registry::with_causes;

/// What marks an entry of an index; the key says it all.
const MARK: &[u8] = &[1];

/// Why a call has no effect: a status as in HTTP, and a text for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// 400 for a malformed call, 403, 404, 409 for what the books rule out; 500 when they cannot be read.
    pub status: i32,
    /// What is wrong and what to do.
    pub text: String,
}

impl Refusal {
    /// The call itself is wrong.
    pub(super) fn malformed(text: impl Into<String>) -> Self {
        Self { status: 400, text: text.into() }
    }

    /// The caller is not the one who may.
    pub(super) fn forbidden(text: impl Into<String>) -> Self {
        Self { status: 403, text: text.into() }
    }

    /// There is no such thing.
    pub(crate) fn unknown(text: impl Into<String>) -> Self {
        Self { status: 404, text: text.into() }
    }

    /// The books are not in the state that the call needs.
    pub(super) fn conflict(text: impl Into<String>) -> Self {
        Self { status: 409, text: text.into() }
    }

    pub(super) fn broken(text: impl Into<String>) -> Self {
        Self { status: 500, text: text.into() }
    }
}

/// A member's name that survives the renewal of its certificate.
#[must_use]
pub fn party(identity: &Identity) -> Party {
    party_of(identity.msp_id(), identity.certificate())
}

/// The same, of a certificate.
#[must_use]
pub fn party_of(msp_id: &MspId, certificate: &Certificate) -> Party {
    Party {
        msp_id: msp_id.to_string(),
        id: format!("x509::{}::{}", certificate.subject(), certificate.issuer()),
    }
}

/// A party for people.
pub(super) fn shown(party: &Party) -> String {
    format!("{} of {}", party.id, party.msp_id)
}

/// Key of a domain.
pub(super) fn domain_key(domain: &str) -> String {
    format!("domain/{domain}")
}

/// Key of the newest version of a record.
pub(super) fn head_key(record: &RecordName) -> String {
    format!("head/{}/{}", record.domain, record.key)
}

/// Key of one version of a record.
pub(super) fn record_key(record: &RecordName) -> String {
    format!("record/{}/{}/{:020}", record.domain, record.key, record.version)
}

/// Key of a grant.
pub(super) fn grant_key(grant: &str) -> String {
    format!("grant/{grant}")
}

/// Key of what changes about a grant.
pub(super) fn status_key(grant: &str) -> String {
    format!("status/{grant}")
}

/// Key of a request.
pub(super) fn request_key(tx_id: &str) -> String {
    format!("request/{tx_id}")
}

/// Key of a proxy's answer that was put on record. A wrong one does not stand in the way of a right one.
pub(super) fn response_key(tx_id: &str, index: u32, finding: i32) -> String {
    format!("response/{tx_id}/{index:05}/{finding}")
}

/// The indices over grants, and the one over requests.
#[derive(Clone, Copy, Debug)]
pub(super) enum Index<'a> {
    /// Grants of a domain.
    Domain(&'a str),
    /// Grants to a reader.
    Reader(&'a Party),
    /// Grants of an owner.
    Owner(&'a Party),
    /// Requests under a grant.
    Grant(&'a str),
}

impl Index<'_> {
    /// What its keys begin with.
    pub(super) fn prefix(self) -> String {
        let hashed = |party: &Party| {
            let length = u64::try_from(party.msp_id.len()).unwrap_or(u64::MAX).to_be_bytes();
            hex::encode(sha256_parts(&[&length, party.msp_id.as_bytes(), party.id.as_bytes()]))
        };
        match self {
            Self::Domain(domain) => format!("of-domain/{domain}/"),
            Self::Reader(party) => format!("of-reader/{}/", hashed(party)),
            Self::Owner(party) => format!("of-owner/{}/", hashed(party)),
            Self::Grant(grant) => format!("of-grant/{grant}/"),
        }
    }
}

/// The end of the range of keys that begin so; the prefix ends with `/`, which `0` follows.
fn end_of(prefix: &str) -> String {
    format!("{}0", prefix.strip_suffix('/').unwrap_or(prefix))
}

/// The books of one transaction; every read and write is recorded.
pub(super) struct Books<'s> {
    simulator: &'s mut TxSimulator,
}

impl<'s> Books<'s> {
    pub(super) fn new(simulator: &'s mut TxSimulator) -> Self {
        Self { simulator }
    }

    fn read(&mut self, key: &str) -> Result<Option<Bytes>, Refusal> {
        self.simulator.get(SEALED, key).map_err(|error| unreadable(&error))
    }

    /// Whether a key has a value.
    pub(super) fn holds(&mut self, key: &str) -> Result<bool, Refusal> {
        Ok(self.read(key)?.is_some())
    }

    fn message<M: Message + Default>(&mut self, key: &str) -> Result<Option<M>, Refusal> {
        self.read(key)?.map(|bytes| stored(key, bytes)).transpose()
    }

    pub(super) fn domain(&mut self, domain: &str) -> Result<Domain, Refusal> {
        self.message(&domain_key(domain))?.ok_or_else(|| no_domain(domain))
    }

    /// The newest version of a record; 0 when there is none.
    pub(super) fn newest(&mut self, record: &RecordName) -> Result<u64, Refusal> {
        Ok(self.message::<RecordName>(&head_key(record))?.map_or(0, |head| head.version))
    }

    pub(super) fn record(&mut self, record: &RecordName) -> Result<Record, Refusal> {
        self.message(&record_key(record))?.ok_or_else(|| no_record(record))
    }

    pub(super) fn grant(&mut self, grant: &str) -> Result<Grant, Refusal> {
        self.message(&grant_key(grant))?.ok_or_else(|| no_grant(grant))
    }

    pub(super) fn status(&mut self, grant: &str) -> Result<GrantStatus, Refusal> {
        Ok(self.message(&status_key(grant))?.unwrap_or_default())
    }

    pub(super) fn request(&mut self, tx_id: &str) -> Result<Request, Refusal> {
        self.message(&request_key(tx_id))?.ok_or_else(|| no_request(tx_id))
    }

    pub(super) fn put(&mut self, key: &str, value: &impl Message) -> Result<(), Refusal> {
        self.write(key, value.encode_to_vec().into())
    }

    pub(super) fn mark(&mut self, index: Index<'_>, name: &str) -> Result<(), Refusal> {
        self.write(&format!("{}{name}", index.prefix()), Bytes::from_static(MARK))
    }

    fn write(&mut self, key: &str, value: Bytes) -> Result<(), Refusal> {
        self.simulator.put(SEALED, key, value).map_err(|error| unreadable(&error))
    }

    pub(super) fn snapshot(&self) -> View<'_> {
        View(self.simulator.snapshot())
    }
}

/// A value and the block that wrote it.
#[derive(Clone, Debug)]
pub(super) struct Written<M> {
    pub(super) value: M,
    pub(super) block: u64,
}

/// The committed books, for questions and for proxies. Nothing is recorded.
#[derive(Clone, Copy)]
pub(super) struct View<'s>(pub(super) &'s StateSnapshot);

impl View<'_> {
    fn written<M: Message + Default>(self, key: &str) -> Result<Option<Written<M>>, Refusal> {
        let value = self.0.get(SEALED, key).map_err(|error| Refusal::broken(with_causes(&error)))?;
        let Some(value) = value else { return Ok(None) };
        let block = value.version.block.get();
        Ok(Some(Written { value: stored(key, value.value)?, block }))
    }

    pub(super) fn domain(self, domain: &str) -> Result<Written<Domain>, Refusal> {
        self.written(&domain_key(domain))?.ok_or_else(|| no_domain(domain))
    }

    pub(super) fn newest(self, record: &RecordName) -> Result<u64, Refusal> {
        Ok(self.written::<RecordName>(&head_key(record))?.map_or(0, |head| head.value.version))
    }

    pub(super) fn record(self, record: &RecordName) -> Result<Written<Record>, Refusal> {
        self.written(&record_key(record))?.ok_or_else(|| no_record(record))
    }

    pub(super) fn grant(self, grant: &str) -> Result<Written<Grant>, Refusal> {
        self.written(&grant_key(grant))?.ok_or_else(|| no_grant(grant))
    }

    /// The status and the block that changed it last, 0 for none.
    pub(super) fn status(self, grant: &str) -> Result<Written<GrantStatus>, Refusal> {
        let none = Written { value: GrantStatus::default(), block: 0 };
        Ok(self.written(&status_key(grant))?.unwrap_or(none))
    }

    pub(super) fn request(self, tx_id: &str) -> Result<Option<Written<Request>>, Refusal> {
        self.written(&request_key(tx_id))
    }

    /// The answers to a request that are on record.
    pub(super) fn responses(self, tx_id: &str) -> Result<Vec<Response>, Refusal> {
        let prefix = format!("response/{tx_id}/");
        let found = self.range(&prefix, "", usize::MAX)?;
        found.0.into_iter().map(|(key, value)| stored(&key, value)).collect()
    }

    /// Names in an index after `bookmark`, at most so many, and whether there are more.
    pub(super) fn names(
        self,
        index: Index<'_>,
        bookmark: &str,
        names_max: usize,
    ) -> Result<(Vec<String>, bool), Refusal> {
        let prefix = index.prefix();
        let (found, more) = self.range(&prefix, bookmark, names_max)?;
        let name = |key: &str| key.strip_prefix(&prefix).unwrap_or_default().to_owned();
        Ok((found.iter().map(|(key, _)| name(key)).collect(), more))
    }

    /// Newest versions of the records of a domain after `bookmark`.
    pub(super) fn heads(
        self,
        domain: &str,
        bookmark: &str,
        records_max: usize,
    ) -> Result<(Vec<RecordName>, bool), Refusal> {
        let (found, more) = self.range(&format!("head/{domain}/"), bookmark, records_max)?;
        let heads = found.into_iter().map(|(key, value)| stored(&key, value)).collect::<Result<_, _>>()?;
        Ok((heads, more))
    }

    fn range(
        self,
        prefix: &str,
        bookmark: &str,
        entries_max: usize,
    ) -> Result<(Vec<(String, Bytes)>, bool), Refusal> {
        let start = if bookmark.is_empty() { prefix.to_owned() } else { format!("{prefix}{bookmark}\u{1}") };
        let broken = |error| Refusal::broken(with_causes(&error));
        let mut found = Vec::new();
        for entry in self.0.range(SEALED, &start, &end_of(prefix)).map_err(broken)? {
            if found.len() == entries_max {
                return Ok((found, true));
            }
            let (key, value) = entry.map_err(broken)?;
            found.push((key, value.value));
        }
        Ok((found, false))
    }
}

fn stored<M: Message + Default>(key: &str, bytes: Bytes) -> Result<M, Refusal> {
    M::decode(bytes).map_err(|error| Refusal::broken(format!("the value of {key} cannot be read: {error}")))
}

fn unreadable(error: &SimulationError) -> Refusal {
    Refusal::broken(with_causes(error))
}

fn no_domain(domain: &str) -> Refusal {
    Refusal::unknown(format!("there is no domain {domain:?}"))
}

fn no_record(record: &RecordName) -> Refusal {
    let RecordName { domain, key, version } = record;
    // Version 0 stands for the newest.
    let version = if *version == 0 { String::new() } else { format!(" of version {version}") };
    Refusal::unknown(format!("domain {domain:?} has no record {key:?}{version}"))
}

fn no_grant(grant: &str) -> Refusal {
    Refusal::unknown(format!("there is no grant {grant:?}"))
}

fn no_request(tx_id: &str) -> Refusal {
    Refusal::unknown(format!("no transaction {tx_id:?} has requested a record"))
}
