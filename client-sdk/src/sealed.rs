//! Sealed data: records whose readers are chosen later, on channels with the capability `CONSORT_SEALED_DATA`.
//!
//! One call each for an application: an owner [seals](SealedData::seal) records in a domain of its own, [grants](SealedData::grant)
//! them to a reader through proxies, and [revokes](SealedData::revoke) the grant; a reader [reads](SealedData::read) a record, which
//! requests it on the ledger first; anybody [audits](SealedData::audit) who could read what, and who did. The keys come from a
//! [`Keyring`], never from an identity.
//!
//! Nothing secret leaves this process but shares, each sealed to its proxy. The owner's client checks who a proxy is by its TLS
//! certificate, its organisation and its signature; the reader's client trusts no proxy: every fragment carries a proof.
//!
//! ```no_run
//! # async fn example(network: &consort_client_sdk::Network, peers: Vec<consort_client_sdk::sealed::ProxyPeer>) -> Result<(), Box<dyn std::error::Error>> {
//! use consort_client_sdk::sealed::{Keyring, Offer, SealedData, Suite};
//!
//! let keyring = Keyring::open_or_create("sealed-data.secret".as_ref())?;
//! let sealed = SealedData::new(network, peers)?;
//! let key = keyring.domain_key(Suite::P256, "mychannel", "st-anna")?;
//! sealed.create_domain("st-anna", &key, "records of St. Anna's").await?;
//! let record = sealed.seal("st-anna", "patient-17", b"blood group 0-").await?.name;
//! # let reader = sealed.party().clone();
//! # let reader_key = keyring.reader_key(Suite::P256, "mychannel")?;
//! let offer = Offer { uses_max: 3, ..Offer::new("grant-1", "st-anna", reader, reader_key.public_key(), 2) };
//! sealed.grant(&key, &offer).await?;
//! // In the reader's process, with its own key:
//! let opened = sealed.read("grant-1", &record, &reader_key).await?;
//! # Ok(())
//! # }
//! ```

mod error;
mod granting;
mod keyring;
mod opening;
mod proxies;
mod share;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use consort_crypto::hash::sha256;
use consort_crypto::pre;
use consort_protos::consort::sealed::{
    Audit, AuditPage, CreateDomain, DomainName, Elsewhere, GrantName, ListRecords, PutRecord, RecordPage,
    RequestName, Respond, Revoke, put_record, record,
};
use consort_protos::fabric::common::BlockchainInfo;
use consort_protos::sealed::{INLINE_BYTES_MAX, SEALED, domain_context, record_context};
use prost::Message;
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use crate::contract::Contract;
use crate::gateway::Network;
use crate::lifecycle::has_status;
use crate::transaction::Committed;

pub use consort_crypto::pre::{PublicKey, SecretKey, Suite};
pub use consort_protos::consort::sealed::{
    AuditEntry, Description, Domain, Filter, Grant, GrantAnswer, GrantStatus, Party, ProxyOf, Receipt,
    Record, RecordName, RequestAnswer, Response, SignedFragment, Terms, Validity, audit::About,
    response::Finding,
};
pub use error::{Error, Missing};
pub use granting::{Delivery, Granted, Offer, PreparedGrant};
pub use keyring::{Keyring, KeyringError};
pub use opening::{Opened, Requested};
pub use proxies::ProxyPeer;
pub use share::SealedShare;

/// Status of the chaincode for something that is not there.
const NOT_FOUND: i32 = 404;

/// Status of the chaincode for a call that comes too late, or too early.
const CONFLICT: i32 = 409;

/// How long a step is tried again: a peer may be a few blocks behind the step before, which this client, or another one who told it,
/// has seen committed.
const PATIENCE: Duration = Duration::from_secs(2);

/// Pause between two tries: about the time of a block.
const PAUSE: Duration = Duration::from_millis(50);

/// Sealed data of one channel, as one member uses it. Cheap to clone; clones share the connections to proxies.
#[derive(Debug, Clone)]
pub struct SealedData {
    contract: Contract,
    party: Party,
    proxies: Arc<[ProxyPeer]>,
}

/// A record that is on the ledger.
#[derive(Debug, Clone)]
pub struct SealedRecord {
    /// Its name, with the version.
    pub name: RecordName,
    /// The transaction that put it there.
    pub committed: Committed,
}

impl SealedData {
    /// Sealed data of a network's channel, with the peers that may serve as proxies, or may be asked as proxies of a grant.
    ///
    /// # Errors
    /// The gateway's identity is no certificate.
    pub fn new(network: &Network, proxies: impl IntoIterator<Item = ProxyPeer>) -> Result<Self, Error> {
        let identity = network.gateway().identity();
        let party = proxies::party_of(identity.serialized()).map_err(|reason| Error::Identity { reason })?;
        let contract = network.contract(SEALED);
        Ok(Self { contract, party, proxies: proxies.into_iter().collect() })
    }

    /// The caller as grants name it: its organisation, and subject and issuer of its certificate.
    #[must_use]
    pub fn party(&self) -> &Party {
        &self.party
    }

    /// The peers that may serve as proxies.
    #[must_use]
    pub fn proxy_peers(&self) -> &[ProxyPeer] {
        &self.proxies
    }

    /// The channel as seen through the caller's gateway.
    #[must_use]
    pub fn network(&self) -> &Network {
        self.contract.network()
    }

    fn channel(&self) -> &str {
        self.network().channel()
    }

    /// Number of blocks of the channel, for validity in blocks: the next block has this number.
    ///
    /// # Errors
    /// Those of an evaluation.
    pub async fn height(&self) -> Result<u64, Error> {
        let channel = self.channel().to_owned();
        let answer = self.network().contract("qscc").evaluate("GetChainInfo", [channel]).await?;
        Ok(decode::<BlockchainInfo>("GetChainInfo", &answer)?.height)
    }

    /// Creates a domain, owned by the caller, under a key that only the caller knows.
    ///
    /// # Errors
    /// Those of a transaction; the name is taken.
    pub async fn create_domain(
        &self,
        domain: &str,
        key: &SecretKey,
        description: &str,
    ) -> Result<Committed, Error> {
        let context = domain_context(self.channel(), domain, &self.party);
        let message = CreateDomain {
            domain: domain.to_owned(),
            suite: suite_number(key.suite()).into(),
            public_key: bytes(&key.public_key().to_bytes()),
            proof: bytes(&pre::prove_knowledge(key, &context)?.to_bytes()),
            description: description.to_owned(),
        };
        self.submit("CreateDomain", &message).await
    }

    /// A domain.
    ///
    /// # Errors
    /// Those of an evaluation.
    pub async fn domain(&self, domain: &str) -> Result<Domain, Error> {
        self.ask_patiently("GetDomain", &DomainName { domain: domain.to_owned() }).await
    }

    /// Seals a record of at most 64 KiB as the next version of its key, in a domain of the caller's. Only the domain's public key is
    /// used, which stands on the ledger.
    ///
    /// # Errors
    /// Those of a transaction; a longer record is for [`seal_elsewhere`](Self::seal_elsewhere).
    pub async fn seal(&self, domain: &str, key: &str, plaintext: &[u8]) -> Result<SealedRecord, Error> {
        let (name, sealed) = self.sealed(domain, key, plaintext).await?;
        if sealed.ciphertext.len() > INLINE_BYTES_MAX {
            return Err(Error::TooLong { bytes: plaintext.len() });
        }
        let content = put_record::Content::Ciphertext(sealed.ciphertext.into());
        self.put(name, &sealed.capsule, content).await
    }

    /// Seals a record of any length whose ciphertext is kept elsewhere: the ledger gets its hash, length and location. The
    /// ciphertext is returned, for the caller to put there.
    ///
    /// # Errors
    /// Those of a transaction.
    pub async fn seal_elsewhere(
        &self,
        domain: &str,
        key: &str,
        plaintext: &[u8],
        location: &str,
    ) -> Result<(SealedRecord, Vec<u8>), Error> {
        let (name, sealed) = self.sealed(domain, key, plaintext).await?;
        let content = put_record::Content::Elsewhere(Elsewhere {
            sha256: bytes(&sha256(&sealed.ciphertext)),
            length: sealed.ciphertext.len() as u64,
            location: location.to_owned(),
        });
        Ok((self.put(name, &sealed.capsule, content).await?, sealed.ciphertext))
    }

    async fn sealed(
        &self,
        domain: &str,
        key: &str,
        plaintext: &[u8],
    ) -> Result<(RecordName, pre::Sealed), Error> {
        let public = self.domain_key(domain).await?;
        let newest = RecordName { domain: domain.to_owned(), key: key.to_owned(), version: 0 };
        let version = match self.ask::<Record>("GetRecord", &newest).await {
            Ok(record) => record.name.unwrap_or_default().version,
            Err(Error::Call(error)) if has_status(&error, NOT_FOUND) => 0,
            Err(error) => return Err(error),
        };
        let name = RecordName { version: version + 1, ..newest };
        let sealed = pre::seal(&public, &record_context(self.channel(), &name), plaintext)?;
        Ok((name, sealed))
    }

    async fn put(
        &self,
        name: RecordName,
        capsule: &pre::Capsule,
        content: put_record::Content,
    ) -> Result<SealedRecord, Error> {
        let capsule = bytes(&capsule.to_bytes());
        let message = PutRecord { name: Some(name.clone()), capsule, content: Some(content) };
        let committed = self.submit("PutRecord", &message).await?;
        Ok(SealedRecord { name, committed })
    }

    async fn domain_key(&self, domain: &str) -> Result<PublicKey, Error> {
        let domain = self.domain(domain).await?;
        Ok(PublicKey::from_bytes(suite_of(domain.suite)?, &domain.public_key)?)
    }

    /// A record as it stands on the ledger; version 0 is the newest.
    ///
    /// # Errors
    /// Those of an evaluation.
    pub async fn record(&self, name: &RecordName) -> Result<Record, Error> {
        self.ask_patiently("GetRecord", name).await
    }

    /// The records of a domain, with their newest versions.
    ///
    /// # Errors
    /// Those of an evaluation.
    pub async fn records(&self, domain: &str) -> Result<Vec<RecordName>, Error> {
        let mut question = ListRecords { domain: domain.to_owned(), ..ListRecords::default() };
        let mut records = Vec::new();
        loop {
            let page: RecordPage = self.ask("ListRecords", &question).await?;
            records.extend(page.records);
            if page.bookmark.is_empty() {
                return Ok(records);
            }
            question.bookmark = page.bookmark;
        }
    }

    /// Opens a record with its domain's key. `ciphertext` is for records that are kept elsewhere.
    ///
    /// # Errors
    /// Those of an evaluation; [`Error::OtherKey`]; a ciphertext that is missing or not the one on the ledger.
    pub async fn open_own(
        &self,
        key: &SecretKey,
        name: &RecordName,
        ciphertext: Option<&[u8]>,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        if self.domain_key(&name.domain).await? != key.public_key() {
            return Err(Error::OtherKey { whose: "domain" });
        }
        let record = self.record(name).await?;
        let capsule = pre::Capsule::from_bytes(key.suite(), &record.capsule)?;
        let aux = record_context(self.channel(), &record.name.clone().unwrap_or_default());
        let ciphertext = ciphertext_of(&record, ciphertext)?;
        Ok(pre::open_own(key, &aux, &capsule, &ciphertext)?)
    }

    /// Revokes a grant: from that block on no proxy answers a request, and the proxies erase their shares.
    ///
    /// # Errors
    /// Those of a transaction; the caller is not the owner.
    pub async fn revoke(&self, grant: &str, reason: &str) -> Result<Committed, Error> {
        self.submit("Revoke", &Revoke { grant: grant.to_owned(), reason: reason.to_owned() }).await
    }

    /// A grant with its status.
    ///
    /// # Errors
    /// Those of an evaluation.
    pub async fn grant_status(&self, grant: &str) -> Result<GrantAnswer, Error> {
        self.ask_patiently("GetGrant", &GrantName { grant: grant.to_owned() }).await
    }

    /// A request with the answers that were put on record.
    ///
    /// # Errors
    /// Those of an evaluation.
    pub async fn request_status(&self, request: &str) -> Result<RequestAnswer, Error> {
        self.ask_patiently("GetRequest", &RequestName { tx_id: request.to_owned() }).await
    }

    /// Who could read what, when; who did; by whose leave. All pages.
    ///
    /// # Errors
    /// Those of an evaluation.
    pub async fn audit(&self, about: About) -> Result<Vec<AuditEntry>, Error> {
        let mut question = Audit { about: Some(about), ..Audit::default() };
        let mut entries = Vec::new();
        loop {
            let page: AuditPage = self.ask("Audit", &question).await?;
            entries.extend(page.entries);
            if page.bookmark.is_empty() {
                return Ok(entries);
            }
            question.bookmark = page.bookmark;
        }
    }

    /// Puts a proxy's signed answer on record: a right one as evidence that it answered, a wrong one as evidence against it.
    ///
    /// # Errors
    /// Those of a transaction.
    pub async fn put_on_record(&self, answer: SignedFragment) -> Result<Committed, Error> {
        self.submit("Respond", &Respond { answer: Some(answer) }).await
    }

    async fn submit(&self, function: &str, message: &impl Message) -> Result<Committed, Error> {
        let call = self.contract.call(function).argument(message.encode_to_vec());
        let deadline = Instant::now() + PATIENCE;
        let endorsed = loop {
            match call.clone().endorse().await {
                Err(error) if may_be_behind(function, &error) && Instant::now() < deadline => {
                    sleep(PAUSE).await;
                }
                outcome => break outcome?,
            }
        };
        Ok(endorsed.submit().await?.committed().await?.into_valid()?)
    }

    /// Asks for something that is there, as far as the caller knows: the peer that is asked may not have its block yet.
    async fn ask_patiently<M: Message + Default>(
        &self,
        function: &'static str,
        message: &impl Message,
    ) -> Result<M, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.ask(function, message).await {
                Err(Error::Call(error)) if has_status(&error, NOT_FOUND) && Instant::now() < deadline => {
                    sleep(PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn ask<M: Message + Default>(
        &self,
        function: &'static str,
        message: &impl Message,
    ) -> Result<M, Error> {
        decode(function, &self.contract.evaluate(function, [message.encode_to_vec()]).await?)
    }
}

/// Whether an endorser that is a few blocks behind would refuse a call like this.
fn may_be_behind(function: &str, error: &crate::Error) -> bool {
    // A domain, record or grant that it does not have yet; the version before the one that is put.
    has_status(error, NOT_FOUND) || (function == "PutRecord" && has_status(error, CONFLICT))
}

fn decode<M: Message + Default>(call: &'static str, answer: &[u8]) -> Result<M, Error> {
    M::decode(answer).map_err(|error| Error::Malformed { call, reason: error.to_string() })
}

fn bytes(slice: &[u8]) -> Bytes {
    Bytes::copy_from_slice(slice)
}

fn suite_number(suite: Suite) -> consort_protos::consort::sealed::Suite {
    use consort_protos::consort::sealed::Suite as Number;
    match suite {
        Suite::P256 => Number::P256,
        Suite::Sm2 => Number::Sm2,
    }
}

/// The suite that a message names.
///
/// # Errors
/// It names none, or one that this version does not know.
pub fn suite_of(number: i32) -> Result<Suite, Error> {
    let known = [Suite::P256, Suite::Sm2].into_iter().find(|suite| i32::from(suite_number(*suite)) == number);
    known.ok_or_else(|| Error::Malformed { call: "GetDomain", reason: format!("unknown suite {number}") })
}

/// The ciphertext of a record: its own, or the given one after comparing it with the ledger's hash.
fn ciphertext_of(record: &Record, given: Option<&[u8]>) -> Result<Bytes, Error> {
    match (&record.content, given) {
        (Some(record::Content::Ciphertext(own)), _) => Ok(own.clone()),
        (Some(record::Content::Elsewhere(elsewhere)), Some(given)) => {
            if sha256(given)[..] == elsewhere.sha256[..] {
                Ok(bytes(given))
            } else {
                Err(Error::OtherCiphertext { location: elsewhere.location.clone() })
            }
        }
        (Some(record::Content::Elsewhere(elsewhere)), None) => {
            Err(Error::Elsewhere { location: elsewhere.location.clone() })
        }
        (None, _) => {
            Err(Error::Malformed { call: "GetRecord", reason: "a record without content".to_owned() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept_elsewhere(ciphertext: &[u8]) -> Record {
        let elsewhere =
            Elsewhere { sha256: bytes(&sha256(ciphertext)), length: 1, location: "s3://scans/17".to_owned() };
        Record { content: Some(record::Content::Elsewhere(elsewhere)), ..Record::default() }
    }

    #[test]
    fn a_ciphertext_from_elsewhere_is_held_to_the_ledgers_hash() {
        let record = kept_elsewhere(b"ciphertext");
        assert_eq!(&ciphertext_of(&record, Some(b"ciphertext")).unwrap()[..], b"ciphertext");
        let other = ciphertext_of(&record, Some(b"ciphertexT")).unwrap_err();
        assert!(matches!(&other, Error::OtherCiphertext { .. }), "{other}");
        let none = ciphertext_of(&record, None).unwrap_err();
        assert!(none.to_string().contains("s3://scans/17"), "{none}");
    }

    #[test]
    fn suites_have_the_numbers_of_the_messages() {
        for suite in [Suite::P256, Suite::Sm2] {
            assert_eq!(suite_of(suite_number(suite).into()).unwrap(), suite);
        }
        assert!(suite_of(0).is_err() && suite_of(3).is_err());
    }
}
