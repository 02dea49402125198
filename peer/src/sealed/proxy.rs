//! A proxy of one channel: it goes through the committed blocks, answers requests and erases shares.
//!
//! What it decides by is committed: the request's own block, and the grant's status. A request that is valid in the ledger was made
//! by the reader whom the grant names, within its validity and uses, for a record that it covers; the proxy checks that again. A
//! revocation that it knows of counts at once, also against requests before it.
//!
//! Blocks come one after the other, so a proxy whose folder or ledger was restored from an old backup meets the revocation before any
//! later request, and erases the share that the backup brought back.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use consort_crypto::hash::sha256;
use consort_crypto::pre;
use consort_msp::SigningIdentity;
use consort_node::renewal::Current;
use consort_protos::consort::sealed::{
    AnsweredFragment, DepositRequest, Grant, GrantStatus, NewRequest, Party, Receipt, Request, Revoke, Terms,
};
use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::sealed::{record_context, request_context, share_context};
use consort_protos::transaction::Transaction;
use prost::Message;
use prost_types::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::SEALED;
use super::books::{Index, Refusal, View, Written, party_of};
use super::chaincode::{commitment, function, stored_terms};
use super::keys::Keys;
use super::rules;
use super::vault::{KeptShare, Vault};
use crate::channel::{ChannelHandle, CommittedBlock};
use crate::registry::with_causes;

/// Pause before a block is gone through again after the disk failed.
const RETRY: Duration = Duration::from_secs(1);
/// Blocks after which the height is noted on the disk although nothing happened: what a restart goes through again.
const HEIGHT_BLOCKS: u64 = 100;
/// Longest sealed share: 34 bytes, a point and a tag.
const SEALED_SHARE_BYTES_MAX: usize = 256;

/// Why a proxy does not do what it is asked for.
#[derive(Debug, thiserror::Error)]
pub enum ProxyFault {
    /// What was sent is wrong.
    #[error("{0}")]
    Malformed(String),
    /// Nothing of the kind is committed, as far as this proxy has come; a later block may bring it.
    #[error("{0}")]
    Unknown(String),
    /// The caller is not the reader.
    #[error("{0}")]
    Forbidden(String),
    /// The books rule it out.
    #[error("{0}")]
    Refused(String),
    /// The disk or the ledger failed.
    #[error("the proxy cannot tell")]
    Broken(#[source] Broken),
}

/// What fails on the side of this peer.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The folder of shares and fragments.
    #[error("the folder of sealed data cannot be read or written")]
    Vault(#[from] io::Error),
    /// The ledger.
    #[error("the ledger cannot be read: {0}")]
    Books(Refusal),
    /// A fragment could not be made.
    #[error("a fragment cannot be made")]
    Fragment(#[source] pre::Error),
}

impl From<Broken> for ProxyFault {
    fn from(cause: Broken) -> Self {
        Self::Broken(cause)
    }
}

impl From<io::Error> for ProxyFault {
    fn from(cause: io::Error) -> Self {
        Self::Broken(cause.into())
    }
}

impl From<Refusal> for ProxyFault {
    fn from(refusal: Refusal) -> Self {
        match refusal.status {
            404 => Self::Unknown(refusal.text),
            400 => Self::Malformed(refusal.text),
            403 | 409 => Self::Refused(refusal.text),
            _ => Self::Broken(Broken::Books(refusal)),
        }
    }
}

/// When a grant ends by itself.
#[derive(Clone, Copy, Debug)]
struct Ends {
    last_block: Option<u64>,
    last_time: Option<(i64, i32)>,
}

impl Ends {
    fn of(terms: &Terms) -> Self {
        let validity = terms.validity.as_ref();
        Self {
            last_block: validity.map(|validity| validity.not_after_block).filter(|block| *block != 0),
            last_time: validity.and_then(|validity| validity.not_after.as_ref()).map(rules::at),
        }
    }

    /// Whether no request of a later block can count.
    fn by(self, block: u64, time: Option<(i64, i32)>) -> bool {
        self.last_block.is_some_and(|last| block >= last)
            || self.last_time.zip(time).is_some_and(|(last, time)| time > last)
    }
}

struct Work {
    vault: Vault,
    /// Of the grants whose shares are held, as far as they have been looked up.
    ends: BTreeMap<String, Ends>,
}

/// A proxy of one channel. Shared as `Arc`; one task follows the blocks.
pub struct Proxy {
    channel: Arc<ChannelHandle>,
    keys: Arc<Keys>,
    signer: Current<SigningIdentity>,
    work: Mutex<Work>,
    progress: watch::Sender<u64>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Proxy").field("channel", self.channel.id()).finish_non_exhaustive()
    }
}

impl Proxy {
    /// Opens the folder of a channel.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn open(
        channel: Arc<ChannelHandle>,
        keys: Arc<Keys>,
        signer: Current<SigningIdentity>,
        folder: &Path,
    ) -> io::Result<Self> {
        let vault = Vault::open(folder, channel.ledger().height())?;
        let progress = watch::Sender::new(vault.height());
        let work = Mutex::new(Work { vault, ends: BTreeMap::new() });
        Ok(Self { channel, keys, signer, work, progress })
    }

    /// The channel.
    #[must_use]
    pub fn channel(&self) -> &Arc<ChannelHandle> {
        &self.channel
    }

    /// Number of blocks gone through, as a value that can be waited on.
    #[must_use]
    pub fn watch_progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    /// Who this peer is in grants.
    #[must_use]
    pub fn peer(&self) -> Party {
        let signer = self.signer.get();
        party_of(signer.msp_id(), signer.certificate())
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the channel until it is told to end. What fails is tried again: a proxy that cannot go on answers nobody.
    pub async fn run(self: Arc<Self>, cancelled: CancellationToken) {
        let first = *self.progress.borrow();
        let mut blocks = self.channel.blocks_from(first);
        let mut begun = false;
        loop {
            let block = tokio::select! {
                () = cancelled.cancelled() => return,
                block = blocks.next() => block,
            };
            let block = match block {
                Ok(block) => block,
                Err(error) => {
                    tracing::error!(channel = %self.channel.id(), error = %with_causes(&error), "the proxy of sealed data stops");
                    return;
                }
            };
            while !self.try_block(&block, !begun).await {
                tokio::select! {
                    () = cancelled.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
            begun = true;
        }
    }

    /// Goes through one block; says whether it could.
    async fn try_block(self: &Arc<Self>, block: &Arc<CommittedBlock>, all: bool) -> bool {
        let (proxy, next) = (Arc::clone(self), Arc::clone(block));
        let reason = match tokio::task::spawn_blocking(move || proxy.follow(&next, all)).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => with_causes(&error),
            Err(error) => error.to_string(),
        };
        tracing::error!(
            channel = %self.channel.id(), block = %block.number(), %reason,
            "a block was not gone through for sealed data; remedy: check the folder `sealed` in the data folder"
        );
        false
    }

    /// Goes through one block: answers its requests, erases the shares of grants that it ends. With `all`, every share that is
    /// held is looked at. It may be repeated.
    ///
    /// # Errors
    /// [`Broken`]; the block has to be gone through again.
    pub fn follow(&self, block: &CommittedBlock, all: bool) -> Result<(), Broken> {
        let number = block.number().get();
        let snapshot = self.channel.ledger().snapshot();
        let view = View(&snapshot);
        let mut work = self.lock();
        let mut touched: BTreeSet<String> = BTreeSet::new();
        let mut time = None;
        for (transaction, code) in block.transactions().iter().zip(block.codes()) {
            let Some(transaction) = transaction.as_ref().filter(|_| *code == TxValidationCode::Valid) else {
                continue;
            };
            let Some(step) = sealed_step(transaction) else { continue };
            time = time.max(transaction.channel_header.timestamp.as_ref().map(rules::at));
            if step.is_request {
                self.answer_request(&mut work.vault, view, &transaction.tx_id)?;
            }
            touched.extend(step.grant);
        }
        let sealed = time.is_some() || !touched.is_empty();
        let held: Vec<String> = work.vault.grants().iter().cloned().collect();
        for grant in held {
            let look = all || touched.contains(&grant);
            self.end_if_over(&mut work, view, &grant, (number, time), look)?;
        }
        work.vault.advance(number + 1);
        work.vault.remove_old_fragments()?;
        if sealed || all || number.is_multiple_of(HEIGHT_BLOCKS) {
            work.vault.note_height()?;
        }
        drop(work);
        self.progress.send_replace(number + 1);
        Ok(())
    }

    /// Erases the share of a grant that is over after a block; `look` says whether its status may have changed.
    fn end_if_over(
        &self,
        work: &mut Work,
        view: View<'_>,
        grant: &str,
        (block, time): (u64, Option<(i64, i32)>),
        look: bool,
    ) -> Result<(), Broken> {
        let ends = match work.ends.get(grant) {
            Some(ends) => *ends,
            None => {
                // A ledger that was restored from a backup may not have the grant yet.
                let Some(found) = found(view.grant(grant))? else { return Ok(()) };
                let ends = Ends::of(&stored_terms(&found.value).map_err(Broken::Books)?);
                work.ends.insert(grant.to_owned(), ends);
                ends
            }
        };
        let reason = if ends.by(block, time) {
            Some("expired")
        } else if look {
            self.ended_by_status(&work.vault, view, grant)?
        } else {
            None
        };
        let Some(reason) = reason else { return Ok(()) };
        if reason == REVOKED {
            for request in view.names(Index::Grant(grant), "", usize::MAX).map_err(Broken::Books)?.0 {
                work.vault.remove_fragment(&request)?;
            }
        }
        work.vault.erase_share(grant)?;
        work.ends.remove(grant);
        tracing::info!(channel = %self.channel.id(), %grant, reason, "share of sealed data erased");
        Ok(())
    }

    fn ended_by_status(
        &self,
        vault: &Vault,
        view: View<'_>,
        grant: &str,
    ) -> Result<Option<&'static str>, Broken> {
        let status = view.status(grant).map_err(Broken::Books)?.value;
        if status.revocation.is_some() {
            return Ok(Some(REVOKED));
        }
        let Some(found) = found(view.grant(grant))? else { return Ok(None) };
        let terms = stored_terms(&found.value).map_err(Broken::Books)?;
        if terms.uses_max == 0 || status.uses < terms.uses_max {
            return Ok(None);
        }
        // Not before the last request has its fragment: it may be in a block that is still to be gone through.
        let (requests, _) = view.names(Index::Grant(grant), "", usize::MAX).map_err(Broken::Books)?;
        Ok(requests.iter().all(|request| vault.has_fragment(request)).then_some("used up"))
    }

    /// Makes and keeps the fragment of a committed request, if this peer is a proxy of its grant and has the share.
    fn answer_request(&self, vault: &mut Vault, view: View<'_>, tx_id: &str) -> Result<(), Broken> {
        let Some(request) = view.request(tx_id).map_err(Broken::Books)? else { return Ok(()) };
        if vault.has_fragment(tx_id) {
            return Ok(());
        }
        let Some(grant) = found(view.grant(&request.value.grant))? else { return Ok(()) };
        let terms = stored_terms(&grant.value).map_err(Broken::Books)?;
        let status = view.status(&terms.grant).map_err(Broken::Books)?.value;
        if let Err(reason) = entitled(&terms, &status, &request) {
            tracing::warn!(channel = %self.channel.id(), %tx_id, %reason, "request for sealed data is not answered");
            return Ok(());
        }
        let suite = self.suite_of(view, &terms)?;
        let (Some(index), Some(kept)) = (self.index_in(&terms, suite), vault.share(&terms.grant)?) else {
            return Ok(());
        };
        let fragment = self
            .fragment(view, (&grant.value, &terms), &request.value, (index, suite), &kept)?
            .encode_to_vec();
        vault.put_fragment(tx_id, request.block, &fragment)?;
        Ok(())
    }

    fn suite_of(&self, view: View<'_>, terms: &Terms) -> Result<pre::Suite, Broken> {
        let domain = view.domain(&terms.domain).map_err(Broken::Books)?;
        rules::suite(domain.value.suite).map_err(Broken::Books)
    }

    /// Which proxy of a grant this peer is: named by its certificate's names and by its encryption key.
    fn index_in(&self, terms: &Terms, suite: pre::Suite) -> Option<u32> {
        let (own, key) = (self.peer(), self.keys.secret(suite).public_key().to_bytes());
        let mine = |peer: &Option<Party>, encryption_key: &[u8]| {
            peer.as_ref() == Some(&own) && *encryption_key == key
        };
        terms.proxies.iter().find(|proxy| mine(&proxy.peer, &proxy.encryption_key)).map(|proxy| proxy.index)
    }

    fn fragment(
        &self,
        view: View<'_>,
        (grant, terms): (&Grant, &Terms),
        request: &Request,
        (index, suite): (u32, pre::Suite),
        kept: &KeptShare,
    ) -> Result<AnsweredFragment, Broken> {
        let channel = self.channel.id().as_str();
        let name = request.record.clone().unwrap_or_default();
        let record = view.record(&name).map_err(Broken::Books)?.value;
        let context = share_context(channel, &terms.grant, index);
        let make = || {
            let opened = pre::open_sealed(self.keys.secret(suite), &context, &kept.sealed)?;
            let share = pre::Share::from_bytes(suite, &opened)?;
            let capsule = pre::Capsule::from_bytes(suite, &record.capsule)?;
            let bound = request_context(channel, &terms.grant, &request.tx_id, &name);
            pre::re_encrypt(&share, &capsule, &record_context(channel, &name), &grant.terms, &bound)
        };
        let fragment = make().map_err(Broken::Fragment)?;
        Ok(AnsweredFragment {
            channel: channel.to_owned(),
            grant: terms.grant.clone(),
            request: request.tx_id.clone(),
            index,
            fragment: fragment.to_bytes().to_vec().into(),
        })
    }

    /// Takes a share of a committed grant, after checking it; answers the requests that came before it.
    ///
    /// # Errors
    /// [`ProxyFault`]; nothing is kept then.
    pub fn deposit(&self, deposit: &DepositRequest) -> Result<Receipt, ProxyFault> {
        rules::id("the id of a grant", &deposit.grant)?;
        if deposit.sealed_share.len() > SEALED_SHARE_BYTES_MAX {
            return Err(ProxyFault::Malformed("the sealed share is too long".to_owned()));
        }
        let snapshot = self.channel.ledger().snapshot();
        let view = View(&snapshot);
        let grant = view.grant(&deposit.grant)?;
        let terms = stored_terms(&grant.value)?;
        let mut work = self.lock();
        self.check_open(&terms, &view.status(&terms.grant)?.value, work.vault.height())?;
        let share = self.check_share(view, (&grant.value, &terms), deposit)?;
        work.vault.put_share(&terms.grant, &share)?;
        work.ends.insert(terms.grant.clone(), Ends::of(&terms));
        let (requests, _) = view.names(Index::Grant(&terms.grant), "", usize::MAX)?;
        for request in requests {
            self.answer_request(&mut work.vault, view, &request)?;
        }
        tracing::info!(channel = %self.channel.id(), grant = %terms.grant, index = share.index, "share of sealed data taken");
        // The requests just answered may have been the last ones.
        let last = work.vault.height().saturating_sub(1);
        self.end_if_over(&mut work, view, &terms.grant, (last, None), true)?;
        Ok(Receipt {
            channel: deposit.channel.clone(),
            grant: terms.grant,
            index: share.index,
            sealed_share_sha256: sha256(&share.sealed).to_vec().into(),
            height: work.vault.height(),
        })
    }

    fn check_open(&self, terms: &Terms, status: &GrantStatus, height: u64) -> Result<(), ProxyFault> {
        let grant = &terms.grant;
        if status.revocation.is_some() {
            return Err(ProxyFault::Refused(format!("grant {grant:?} was revoked")));
        }
        if Ends::of(terms).by(height.saturating_sub(1), None) {
            return Err(ProxyFault::Refused(format!("grant {grant:?} has expired")));
        }
        Ok(())
    }

    fn check_share(
        &self,
        view: View<'_>,
        (grant, terms): (&Grant, &Terms),
        deposit: &DepositRequest,
    ) -> Result<KeptShare, ProxyFault> {
        let wrong = |reason: String| ProxyFault::Malformed(format!("grant {:?}: {reason}", terms.grant));
        let suite = self.suite_of(view, terms)?;
        let index = self.index_in(terms, suite).ok_or_else(|| {
            wrong("this peer, with its present encryption key, is none of its proxies".to_owned())
        })?;
        if deposit.index != index {
            return Err(wrong(format!("this peer is proxy {index}, and the share is for {}", deposit.index)));
        }
        let place = usize::try_from(index).ok().and_then(|index| index.checked_sub(1));
        let hash = place
            .and_then(|place| grant.commitments.get(place))
            .map(|commitment| &commitment.sealed_share_sha256);
        if hash.is_none_or(|hash| hash[..] != sha256(&deposit.sealed_share)) {
            return Err(wrong("the sealed share does not have the hash in the grant".to_owned()));
        }
        let context = share_context(self.channel.id().as_str(), &terms.grant, index);
        let fits = pre::open_sealed(self.keys.secret(suite), &context, &deposit.sealed_share)
            .and_then(|opened| pre::Share::from_bytes(suite, &opened))
            .and_then(|share| {
                let committed = commitment(grant, index).unwrap_or_default();
                Ok(u32::from(share.index()) == index
                    && share.matches(&pre::Point::from_bytes(suite, committed)?))
            })
            .map_err(|error| wrong(format!("the share cannot be opened: {error}")))?;
        if !fits {
            return Err(wrong("the share does not fit its commitment".to_owned()));
        }
        Ok(KeptShare { index, sealed: deposit.sealed_share.clone() })
    }

    /// The fragment for a committed request, to its reader.
    ///
    /// # Errors
    /// [`ProxyFault`].
    pub fn answer(&self, tx_id: &str, asker: &Party) -> Result<AnsweredFragment, ProxyFault> {
        rules::tx_id(tx_id)?;
        let snapshot = self.channel.ledger().snapshot();
        let view = View(&snapshot);
        let request = view.request(tx_id)?.ok_or_else(|| {
            ProxyFault::Unknown(format!("no valid transaction {tx_id} requests sealed data"))
        })?;
        if request.value.reader.as_ref() != Some(asker) {
            return Err(ProxyFault::Forbidden(format!("request {tx_id} was not made by the caller")));
        }
        let grant = view.grant(&request.value.grant)?;
        let terms = stored_terms(&grant.value)?;
        let status = view.status(&terms.grant)?.value;
        entitled(&terms, &status, &request).map_err(ProxyFault::Refused)?;
        let work = self.lock();
        if request.block >= work.vault.height() && !work.vault.has_fragment(tx_id) {
            return Err(ProxyFault::Unknown(format!(
                "the block of request {tx_id} was not gone through yet"
            )));
        }
        let kept = work.vault.fragment(tx_id)?;
        drop(work);
        let Some(kept) = kept else {
            let reason = match self.index_in(&terms, self.suite_of(view, &terms)?) {
                None => "this peer is none of its proxies",
                Some(_) => "its owner gave this proxy no share, or the answer is too old to be kept",
            };
            return Err(ProxyFault::Refused(format!("grant {:?}: {reason}", terms.grant)));
        };
        AnsweredFragment::decode(kept).map_err(|error| {
            ProxyFault::Broken(Broken::Vault(io::Error::new(io::ErrorKind::InvalidData, error)))
        })
    }
}

/// Why a revoked grant's share is erased.
const REVOKED: &str = "revoked";

/// What a valid transaction of `_sealed` is about, as far as a proxy cares.
struct SealedStep {
    is_request: bool,
    grant: Option<String>,
}

fn sealed_step(transaction: &Transaction) -> Option<SealedStep> {
    let invocation = transaction.invocation()?;
    if invocation.chaincode_id.name != SEALED {
        return None;
    }
    let arguments = transaction.endorser()?.arguments().ok()?;
    let (name, argument) = function(&arguments).ok()?;
    let grant = match name {
        "Request" => NewRequest::decode(argument.clone()).ok().map(|request| request.grant),
        "Revoke" => Revoke::decode(argument.clone()).ok().map(|revoke| revoke.grant),
        _ => None,
    };
    Some(SealedStep { is_request: name == "Request", grant })
}

/// Whether a committed request may be answered: the ledger's rules once more, and no revocation since.
fn entitled(terms: &Terms, status: &GrantStatus, request: &Written<Request>) -> Result<(), String> {
    let Written { value: Request { record, reader, timestamp, .. }, block } = request;
    if let Some(revocation) = &status.revocation {
        return Err(format!("grant {:?} was revoked by transaction {}", terms.grant, revocation.tx_id));
    }
    if reader.is_none() || *reader != terms.reader {
        return Err(format!("grant {:?} is for another reader", terms.grant));
    }
    let time: Timestamp = timestamp.unwrap_or_default();
    rules::in_time(terms, *block, &time).map_err(|refusal| refusal.text)?;
    if !record.as_ref().is_some_and(|record| rules::covers(terms, record)) {
        return Err(format!("grant {:?} does not cover the record", terms.grant));
    }
    Ok(())
}

/// `None` for what is not there.
fn found<T>(result: Result<T, Refusal>) -> Result<Option<T>, Broken> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(refusal) if refusal.status == 404 => Ok(None),
        Err(refusal) => Err(Broken::Books(refusal)),
    }
}
