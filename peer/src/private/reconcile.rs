//! The search for what was missing when its block was committed (Fabric `gossip/privdata/reconcile.go`).
//!
//! A search goes through everything that is missing, newest first, and asks each member's peer. While nothing comes the pauses grow; a peer
//! that appears, a new definition and newly missing data end a pause early. What invalid transactions wrote comes last, and only a part of it in
//! one search, the next part in the next: anybody who may send transactions can promise data that nobody has.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use consort_ledger::{Ledger, MissingPrivate};
use consort_protos::block;
use consort_protos::consort::privatedata::{LackingCollection, Status};
use consort_protos::fabric::common;
use consort_protos::rwset::{NamespaceReadWriteSet, PrivateCollection};
use consort_protos::transaction::{Body, Transaction};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::collections::Rules;
use super::fetch::{WANTED_MAX, WantedSet};
use super::{PrivateData, message};
use crate::channel::{ChannelHandle, CommittedBlock};
use crate::lifecycle::{Definition, LIFECYCLE};
use crate::registry::with_causes;

/// How often is looked whether a search is due, while something is missing or blocks come in.
const TICK: Duration = Duration::from_secs(1);
/// How long one peer may take in a search.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls' worth of sets of invalid transactions in one search: what valid ones wrote must not wait for it.
const BATCHES_OF_INVALID_MAX: usize = 8;
/// Missing sets that are counted for people and metrics.
const COUNTED_MAX: usize = 10_000;

/// How the search goes.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Sets that came late, since the start.
    pub supplied: u64,
    /// Milliseconds since 1970 at the end of the last search; 0 before the first.
    pub last_ms: u64,
    /// What the last search asked for.
    pub last_wanted: u64,
    /// What it got.
    pub last_supplied: u64,
    /// Why it did not get everything; empty when it did.
    pub last_reason: String,
    /// Up to which record of an invalid transaction the last search came; the next one begins behind it.
    invalid_after: Option<MissingPrivate>,
}

/// One search under way.
#[derive(Default)]
struct Round {
    wanted: u64,
    supplied: u64,
    reasons: BTreeSet<String>,
}

/// When the next search is due.
struct Pauses {
    pause: Duration,
    waited: Duration,
    /// Endpoints that were known at the last search, and the newest missing set.
    known: BTreeSet<String>,
    newest: Option<MissingPrivate>,
}

impl PrivateData {
    /// Searches for a channel's missing private data until the peer stops.
    pub async fn run_search(self, channel: Arc<ChannelHandle>, cancelled: CancellationToken) {
        let first = Duration::from_millis(self.setup().config.search_first_ms);
        let most = Duration::from_millis(self.setup().config.search_max_ms);
        let mut pauses =
            Pauses { pause: first, waited: Duration::ZERO, known: BTreeSet::new(), newest: None };
        let mut commits = channel.committed();
        // At the start a definition may have made this organisation a member without this peer noticing.
        let mut redefined = true;
        loop {
            tokio::select! {
                () = cancelled.cancelled() => return,
                () = tokio::time::sleep(TICK) => {}
            }
            redefined |= lifecycle_written(&mut commits);
            if std::mem::take(&mut redefined) {
                self.reconsider(&channel).await;
                pauses.pause = first;
            }
            // What cannot be read is tried again.
            let Some(newest) = self.count_missing(&channel).await else { continue };
            let Some(newest) = newest else {
                // Only another block can change that.
                tokio::select! {
                    () = cancelled.cancelled() => return,
                    block = commits.recv() => match block {
                        Ok(block) => redefined = writes_lifecycle(&block),
                        Err(broadcast::error::RecvError::Lagged(_)) => redefined = true,
                        Err(broadcast::error::RecvError::Closed) => return,
                    },
                }
                continue;
            };
            let known: BTreeSet<String> =
                self.others(&channel).into_iter().map(|peer| peer.member.endpoint).collect();
            pauses.waited += TICK;
            let appeared = !known.is_subset(&pauses.known);
            let whole = appeared || pauses.waited >= pauses.pause;
            if !whole && pauses.newest.as_ref() == Some(&newest) {
                continue;
            }
            let supplied = tokio::select! {
                () = cancelled.cancelled() => return,
                supplied = self.search(&channel, whole) => supplied,
            };
            pauses.known = known;
            pauses.newest = Some(newest);
            if whole || supplied > 0 {
                pauses.pause = if supplied > 0 || appeared { first } else { (pauses.pause * 2).min(most) };
                pauses.waited = Duration::ZERO;
            }
        }
    }

    /// Counts what is missing; gives the newest if there is any, and nothing at all where the books cannot be read.
    async fn count_missing(&self, channel: &Arc<ChannelHandle>) -> Option<Option<MissingPrivate>> {
        let missing = Self::list(channel, |ledger| ledger.missing_private(COUNTED_MAX)).await?;
        let invalid = missing.iter().filter(|set| set.invalid).count();
        self.setup().metrics.private_missing(channel.id(), missing.len() - invalid, invalid);
        Some(missing.into_iter().next())
    }

    async fn missing(
        &self,
        channel: &Arc<ChannelHandle>,
        after: Option<MissingPrivate>,
        results_max: usize,
    ) -> Vec<MissingPrivate> {
        Self::list(channel, move |ledger| match after {
            Some(last) => ledger.missing_private_after(&last, results_max),
            None => ledger.missing_private(results_max),
        })
        .await
        .unwrap_or_default()
    }

    /// `None` when the books cannot be read.
    async fn list(
        channel: &Arc<ChannelHandle>,
        read: impl FnOnce(&Ledger) -> Result<Vec<MissingPrivate>, consort_ledger::Error> + Send + 'static,
    ) -> Option<Vec<MissingPrivate>> {
        let ledger = Arc::clone(channel.ledger());
        match tokio::task::spawn_blocking(move || read(&ledger)).await {
            Ok(Ok(missing)) => Some(missing),
            Ok(Err(error)) => {
                tracing::error!(channel = %channel.id(), error = %with_causes(&error), "missing private data cannot be listed");
                None
            }
            Err(_stopping) => None,
        }
    }

    /// Goes once through everything that is missing, or through the newest part of it alone: what is missing since a moment ago may have been
    /// late only. Says how many sets came.
    pub(super) async fn search(&self, channel: &Arc<ChannelHandle>, whole: bool) -> u64 {
        let mut round = Round::default();
        let mut last = None;
        loop {
            let mut batch = self.missing(channel, last.take(), WANTED_MAX).await;
            batch.retain(|set| !set.invalid);
            let Some(end) = batch.last().cloned() else { break };
            self.search_batch(channel, batch, &mut round).await;
            last = Some(end);
            if !whole {
                break;
            }
        }
        let mut progress = channel.search_progress();
        if whole {
            progress.invalid_after =
                self.search_invalid(channel, progress.invalid_after.take(), &mut round).await;
        } else if round.wanted == 0 {
            let newest = Self::list(channel, |ledger| ledger.missing_private_of_invalid(None, WANTED_MAX));
            self.search_batch(channel, newest.await.unwrap_or_default(), &mut round).await;
        }
        self.conclude(channel, progress, round)
    }

    /// Goes through a part of what invalid transactions wrote; says where to go on.
    async fn search_invalid(
        &self,
        channel: &Arc<ChannelHandle>,
        mut after: Option<MissingPrivate>,
        round: &mut Round,
    ) -> Option<MissingPrivate> {
        for _ in 0..BATCHES_OF_INVALID_MAX {
            let last = after.take();
            let batch = Self::list(channel, move |ledger| {
                ledger.missing_private_of_invalid(last.as_ref(), WANTED_MAX)
            });
            let batch = batch.await.unwrap_or_default();
            let end = batch.last().cloned().filter(|_| batch.len() == WANTED_MAX);
            self.search_batch(channel, batch, round).await;
            after = Some(end?);
        }
        after
    }

    /// Notes how a search went.
    fn conclude(&self, channel: &ChannelHandle, mut progress: Progress, round: Round) -> u64 {
        let Round { wanted, supplied, reasons } = round;
        progress.supplied += supplied;
        progress.last_ms = message::milliseconds(self.setup().clock.now());
        progress.last_wanted = wanted;
        progress.last_supplied = supplied;
        progress.last_reason = match wanted == supplied {
            true => String::new(),
            false if reasons.is_empty() => "no peer that was asked holds the rest".to_owned(),
            false => reasons.into_iter().collect::<Vec<_>>().join("; "),
        };
        if wanted > 0 {
            self.setup().metrics.private_supplied(channel.id(), supplied);
            tracing::info!(
                channel = %channel.id(), wanted, supplied, reason = %progress.last_reason, "searched for missing private data"
            );
        }
        channel.note_search(progress);
        supplied
    }

    async fn search_batch(
        &self,
        channel: &Arc<ChannelHandle>,
        batch: Vec<MissingPrivate>,
        round: &mut Round,
    ) {
        if batch.is_empty() {
            return;
        }
        round.wanted += batch.len() as u64;
        let handle = Arc::clone(channel);
        let described = tokio::task::spawn_blocking(move || describe(&handle, batch)).await;
        let mut wanted = described.unwrap_or_default();
        let peers = self.sources(channel, &wanted);
        if peers.is_empty() {
            round.reasons.insert("no other peer of the channel is known".to_owned());
        }
        for peer in &peers {
            if wanted.is_empty() {
                break;
            }
            let sets = match self.fetch_from(channel, peer, &wanted, CALL_TIMEOUT).await {
                Ok(answered) => answered.sets,
                Err(reason) => {
                    round.reasons.insert(format!("{}: {reason}", peer.member.endpoint));
                    continue;
                }
            };
            let came: Vec<(WantedSet, PrivateCollection)> =
                sets.into_iter().map(|(index, set)| (wanted[index].clone(), set)).collect();
            let (handle, endpoint) = (Arc::clone(channel), peer.member.endpoint.clone());
            let taken = tokio::task::spawn_blocking(move || take(&handle, &endpoint, came)).await;
            let taken = taken.unwrap_or_default();
            round.supplied += taken.len() as u64;
            wanted.retain(|set| !taken.contains(set));
        }
    }

    /// Looks whether the organisation has become a member of further collections.
    async fn reconsider(&self, channel: &Arc<ChannelHandle>) {
        let (handle, own) = (Arc::clone(channel), self.setup().signer.get().msp_id().clone());
        let done = tokio::task::spawn_blocking(move || {
            let mut rules = Rules::new(&handle);
            let mut members = BTreeSet::new();
            let names =
                Definition::names(&handle.ledger().snapshot()).map_err(|error| with_causes(&error))?;
            for namespace in names {
                for collection in rules.defined(&namespace)? {
                    let rule = rules.now(&namespace, &collection)?;
                    if rule.is_some_and(|rule| rule.organisations.contains(&own)) {
                        members.insert((namespace.clone(), collection));
                    }
                }
            }
            let is_member = |namespace: &str, collection: &str| {
                members.contains(&(namespace.to_owned(), collection.to_owned()))
            };
            handle.ledger().reconsider_missing(is_member).map_err(|error| with_causes(&error))
        });
        match done.await {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(sets)) => {
                tracing::info!(channel = %channel.id(), sets, "this organisation has become a member of collections with older data");
            }
            Ok(Err(reason)) => {
                tracing::error!(channel = %channel.id(), %reason, "membership of collections cannot be reconsidered");
            }
        }
    }
}

/// What an administrator is told about a channel's missing private data.
///
/// # Errors
/// The books cannot be read.
pub fn status(channel: &ChannelHandle) -> Result<Status, consort_ledger::Error> {
    let missing = channel.ledger().missing_private(COUNTED_MAX)?;
    let mut lacking: Vec<LackingCollection> = Vec::new();
    for set in &missing {
        let block = set.place.block.get();
        let known = lacking
            .iter_mut()
            .find(|known| known.namespace == set.namespace && known.collection == set.collection);
        match known {
            Some(known) => {
                known.sets += 1;
                known.invalid += u64::from(set.invalid);
                known.first_block = known.first_block.min(block);
                known.last_block = known.last_block.max(block);
            }
            None => lacking.push(LackingCollection {
                namespace: set.namespace.clone(),
                collection: set.collection.clone(),
                sets: 1,
                first_block: block,
                last_block: block,
                invalid: u64::from(set.invalid),
            }),
        }
    }
    let progress = channel.search_progress();
    Ok(Status {
        lacking,
        counted_up_to: if missing.len() == COUNTED_MAX { COUNTED_MAX as u64 } else { 0 },
        supplied: progress.supplied,
        last_search_ms: progress.last_ms,
        last_wanted: progress.last_wanted,
        last_supplied: progress.last_supplied,
        last_reason: progress.last_reason,
    })
}

/// Whether a block has been committed since the last look that writes definitions.
fn lifecycle_written(commits: &mut broadcast::Receiver<Arc<CommittedBlock>>) -> bool {
    let mut written = false;
    loop {
        match commits.try_recv() {
            Ok(block) => written |= writes_lifecycle(&block),
            Err(broadcast::error::TryRecvError::Lagged(_)) => written = true,
            Err(_) => return written,
        }
    }
}

fn writes_lifecycle(block: &CommittedBlock) -> bool {
    block.transactions().iter().flatten().any(|transaction| {
        let invocation = transaction.invocation();
        let lifecycle = invocation.and_then(|invocation| invocation.rwset.namespace(LIFECYCLE));
        lifecycle.is_some_and(NamespaceReadWriteSet::is_written)
    })
}

/// Reads from the blocks what is to be asked for. Blocks come in descending order, each read once.
fn describe(channel: &ChannelHandle, missing: Vec<MissingPrivate>) -> Vec<WantedSet> {
    let mut read: Option<(u64, common::Block)> = None;
    let mut wanted = Vec::new();
    for set in missing {
        let number = set.place.block;
        if read.as_ref().is_none_or(|(known, _)| *known != number.get()) {
            // A block that cannot be read is the ledger's worry, which says so itself.
            read = channel.ledger().block(number).ok().flatten().map(|block| (number.get(), block));
        }
        let Some((_, block)) = &read else { continue };
        let envelope = block::envelopes(block).get(set.place.tx.get() as usize).cloned();
        let Some(transaction) = envelope.and_then(|envelope| Transaction::open(envelope).ok()) else {
            continue;
        };
        let hash = transaction
            .invocation()
            .and_then(|invocation| invocation.rwset.namespace(&set.namespace))
            .and_then(|namespace| {
                namespace.collections.iter().find(|candidate| candidate.name == set.collection)
            })
            .map(|collection| collection.pvt_rwset_hash.clone());
        let Some(hash) = hash else { continue };
        let endorsers: Vec<Bytes> = match &transaction.body {
            Ok(Body::Endorser(body)) => {
                body.endorsements.iter().map(|endorsement| endorsement.endorser.clone()).collect()
            }
            _ => Vec::new(),
        };
        let MissingPrivate { place, namespace, collection, invalid, .. } = set;
        wanted.push(WantedSet {
            tx_id: transaction.tx_id.clone(),
            place,
            namespace,
            collection,
            hash,
            invalid,
            endorsers,
        });
    }
    wanted
}

/// Puts sets into the books; gives those that were right.
fn take(
    channel: &ChannelHandle,
    endpoint: &str,
    came: Vec<(WantedSet, PrivateCollection)>,
) -> Vec<WantedSet> {
    let mut taken = Vec::new();
    for (wanted, set) in came {
        match channel.ledger().supply_private(wanted.place, &wanted.namespace, &set) {
            Ok(_) => taken.push(wanted),
            Err(error) => tracing::warn!(
                channel = %channel.id(), peer = %endpoint, error = %with_causes(&error), "private data of a peer was not taken"
            ),
        }
    }
    taken
}
