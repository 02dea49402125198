//! Reading: a request on the ledger, fragments from proxies, the record.

use consort_crypto::pre::{self, Fragment, Point, PublicKey, SecretKey};
use consort_protos::consort::sealed::{
    AnsweredFragment, Domain, Grant, NewRequest, ProxyOf, Question, Record, RecordName, SignedFragment, Terms,
};
use consort_protos::sealed::{record_context, request_context};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use prost::Message;
use zeroize::Zeroizing;

use super::{Error, Missing, NOT_FOUND, SealedData, ciphertext_of, decode, suite_of};
use crate::lifecycle::has_status;

/// A request that is on the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requested {
    /// Its transaction, by which it is opened.
    pub request: String,
    /// Its block, at which proxies judge it.
    pub block: u64,
}

/// A record that was opened.
pub struct Opened {
    /// What the owner had sealed; wiped when dropped.
    pub plaintext: Zeroizing<Vec<u8>>,
    /// The record, with its version.
    pub record: RecordName,
    /// Addresses of the proxies whose fragments were used.
    pub proxies: Vec<String>,
    /// The proxies that gave none, or a wrong one, as far as they had answered by then.
    pub missing: Vec<Missing>,
    /// Signed answers with wrong fragments: [`SealedData::put_on_record`] makes them evidence.
    pub wrong: Vec<SignedFragment>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = formatter.debug_struct("Opened");
        shown.field("record", &self.record).field("proxies", &self.proxies).finish_non_exhaustive()
    }
}

/// Everything on the ledger that an opening depends on.
struct Case {
    terms: Terms,
    grant: Grant,
    record: Record,
    name: RecordName,
    owner: PublicKey,
    aux: Vec<u8>,
    bound: Vec<u8>,
    ephemeral: Point,
    commitments: Vec<Point>,
    capsule: pre::Capsule,
}

/// Fragments that came, and what did not.
#[derive(Default)]
struct Collected {
    fragments: Vec<Fragment>,
    proxies: Vec<String>,
    missing: Vec<Missing>,
    wrong: Vec<SignedFragment>,
}

impl SealedData {
    /// Requests a record under a grant; version 0 stands for the newest. It is on the ledger before any proxy answers.
    ///
    /// # Errors
    /// Those of a transaction: the grant is for another reader, over, used up or revoked, or does not cover the record.
    pub async fn request(&self, grant: &str, record: &RecordName) -> Result<Requested, Error> {
        let mut record = record.clone();
        if record.version == 0 {
            record = self.record(&record).await?.name.unwrap_or_default();
        }
        let message = NewRequest { grant: grant.to_owned(), record: Some(record) };
        let committed = self.submit("Request", &message).await?;
        Ok(Requested { request: committed.tx_id, block: committed.block })
    }

    /// Opens the record of a committed request of the caller's: asks the grant's proxies, all at once, until enough have answered
    /// right. It may be repeated.
    ///
    /// # Errors
    /// [`Error::TooFewAnswers`] names the proxies that are missing; nothing is lost then. [`Error::OtherKey`] when the grant was made
    /// for another key of the reader: a reader who lost the key needs a new grant.
    pub async fn open(&self, request: &str, reader_key: &SecretKey) -> Result<Opened, Error> {
        self.open_with(request, reader_key, None).await
    }

    /// As [`open`](Self::open), for a record whose ciphertext is kept elsewhere.
    ///
    /// # Errors
    /// As [`open`](Self::open); the ciphertext is not the one whose hash is on the ledger.
    pub async fn open_with(
        &self,
        request: &str,
        reader_key: &SecretKey,
        ciphertext: Option<&[u8]>,
    ) -> Result<Opened, Error> {
        let case = self.case(request).await?;
        if case.terms.reader_key[..] != reader_key.public_key().to_bytes() {
            return Err(Error::OtherKey { whose: "reader" });
        }
        let ciphertext = ciphertext_of(&case.record, ciphertext)?;
        let threshold = u16::try_from(case.terms.threshold).unwrap_or(u16::MAX);
        let Collected { fragments, proxies, missing, wrong } =
            self.collect(&case, request, usize::from(threshold)).await;
        if fragments.len() < usize::from(threshold) {
            let (request, answers) = (request.to_owned(), fragments.len());
            return Err(Error::TooFewAnswers { request, threshold, answers, missing });
        }
        let plaintext = pre::open(
            reader_key,
            &case.owner,
            &case.ephemeral,
            threshold,
            &case.aux,
            &case.grant.terms,
            &case.bound,
            &case.commitments,
            &case.capsule,
            &ciphertext,
            &fragments,
        )?;
        Ok(Opened { plaintext, record: case.name, proxies, missing, wrong })
    }

    /// Reads a record under a grant: requests it on the ledger, and opens it.
    ///
    /// # Errors
    /// As [`request`](Self::request) and [`open`](Self::open). A key that the grant does not name is refused before anything is requested,
    /// so that it costs no use of the grant.
    pub async fn read(
        &self,
        grant: &str,
        record: &RecordName,
        reader_key: &SecretKey,
    ) -> Result<Opened, Error> {
        self.check_reader_key(grant, reader_key).await?;
        let requested = self.request(grant, record).await?;
        self.open(&requested.request, reader_key).await
    }

    /// Whether a grant of the caller's was made for this key.
    ///
    /// # Errors
    /// [`Error::OtherKey`] when it was made for another key of the caller; those of an evaluation. A grant that the caller's peer does not
    /// have yet, or that is for somebody else, is left to the request.
    pub async fn check_reader_key(&self, grant: &str, reader_key: &SecretKey) -> Result<(), Error> {
        let found = match self.grant_status(grant).await {
            Err(Error::Call(error)) if has_status(&error, NOT_FOUND) => return Ok(()),
            found => found?.grant.unwrap_or_default(),
        };
        let terms: Terms = decode("GetGrant", &found.terms)?;
        let own = terms.reader.as_ref() == Some(self.party());
        if own && terms.reader_key[..] != reader_key.public_key().to_bytes() {
            return Err(Error::OtherKey { whose: "reader" });
        }
        Ok(())
    }

    async fn case(&self, request: &str) -> Result<Case, Error> {
        let malformed = |reason: &str| Error::Malformed { call: "GetRequest", reason: reason.to_owned() };
        let asked = self.request_status(request).await?.request;
        let asked = asked.ok_or_else(|| malformed("no request"))?;
        let name = asked.record.ok_or_else(|| malformed("no record"))?;
        let (grant, record) = tokio::try_join!(self.grant_status(&asked.grant), self.record(&name))?;
        let grant = grant.grant.ok_or_else(|| malformed("no grant"))?;
        let terms: Terms = decode("GetGrant", &grant.terms)?;
        let Domain { suite, public_key, .. } = self.domain(&terms.domain).await?;
        let suite = suite_of(suite)?;
        let point = |bytes: &[u8]| Point::from_bytes(suite, bytes);
        Ok(Case {
            owner: PublicKey::from_bytes(suite, &public_key)?,
            aux: record_context(self.channel(), &name),
            bound: request_context(self.channel(), &asked.grant, request, &name),
            ephemeral: point(&grant.ephemeral)?,
            commitments: grant
                .commitments
                .iter()
                .map(|commitment| point(&commitment.point))
                .collect::<Result<_, _>>()?,
            capsule: pre::Capsule::from_bytes(suite, &record.capsule)?,
            terms,
            grant,
            record,
            name,
        })
    }

    /// Asks all proxies at once, and stops when enough fragments were proved right.
    async fn collect(&self, case: &Case, request: &str, enough: usize) -> Collected {
        let ask = async |proxy: &ProxyOf| (proxy.clone(), self.ask_proxy(case, request, proxy).await);
        let mut answers: FuturesUnordered<_> = case.terms.proxies.iter().map(ask).collect();
        let mut collected = Collected::default();
        while collected.fragments.len() < enough {
            let Some((proxy, answer)) = answers.next().await else { break };
            let reason = match answer {
                Ok((fragment, _)) if fragment.is_some() => {
                    collected.fragments.extend(fragment);
                    collected.proxies.push(proxy.endpoint);
                    continue;
                }
                Ok((_, signed)) => {
                    collected.wrong.push(signed);
                    "its fragment is wrong; its signature on it is evidence against it".to_owned()
                }
                Err(reason) => reason,
            };
            let msp_id = proxy.peer.map(|peer| peer.msp_id).unwrap_or_default();
            collected.missing.push(Missing { proxy: proxy.endpoint, msp_id, reason });
        }
        collected
    }

    /// A proxy's signed answer, with the fragment if it is right.
    async fn ask_proxy(
        &self,
        case: &Case,
        request: &str,
        proxy: &ProxyOf,
    ) -> Result<(Option<Fragment>, SignedFragment), String> {
        let peer = self.proxies.iter().find(|peer| peer.address() == proxy.endpoint);
        let peer = peer.ok_or("no way to reach it is known here")?;
        let party = proxy.peer.clone().unwrap_or_default();
        let question = Question { channel: self.channel().to_owned(), request: request.to_owned() };
        let identity = self.contract.network().gateway().identity();
        let signed = peer.answer(identity, &question, &party).await?;
        let answered = AnsweredFragment::decode(signed.answer.clone())
            .map_err(|error| format!("its answer cannot be read: {error}"))?;
        if (&answered.channel[..], &answered.request[..]) != (self.channel(), request) {
            return Err("its answer is to another request".to_owned());
        }
        Ok((right_fragment(case, proxy.index, &answered.fragment), signed))
    }
}

/// A fragment, if it is this proxy's and its proof holds.
fn right_fragment(case: &Case, index: u32, bytes: &[u8]) -> Option<Fragment> {
    let fragment = Fragment::from_bytes(case.capsule.suite(), bytes).ok()?;
    let place = usize::from(fragment.index()).checked_sub(1)?;
    let commitment = case.commitments.get(place)?;
    let verified = fragment.verify(&case.capsule, &case.aux, commitment, &case.grant.terms, &case.bound);
    (u32::from(fragment.index()) == index && verified.is_ok()).then_some(fragment)
}
