//! Asking other peers for sets that this one lacks.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use consort_protos::consort::privatedata::{Fetch, Wanted, body::Content};
use consort_protos::ids::Height;
use consort_protos::rwset::PrivateCollection;
use rand::seq::SliceRandom;
use tokio::time::Instant;

use super::collections::Rules;
use super::{OtherPeer, PrivateData};
use crate::channel::ChannelHandle;

/// Sets that are asked for in one call.
pub(super) const WANTED_MAX: usize = 256;
/// How long one peer may take, so that one that does not answer leaves time for the others.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);
/// Pauses before the rounds at commit: data may still be on its way to those who are asked.
const ROUND_PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(100), Duration::from_millis(300)];

/// One transaction's writes to one collection, which this peer should have and does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedSet {
    /// The transaction's id.
    pub tx_id: String,
    /// Where the transaction stands.
    pub place: Height,
    /// The chaincode's namespace.
    pub namespace: String,
    /// The collection.
    pub collection: String,
    /// What the transaction promises.
    pub hash: Bytes,
    /// Whether the transaction is invalid: nothing can be read before or after, and nobody waits for it.
    pub invalid: bool,
    /// The transaction's endorsers (`msp.SerializedIdentity`), who are asked first.
    pub endorsers: Vec<Bytes>,
}

impl WantedSet {
    fn to_message(&self) -> Wanted {
        Wanted {
            tx_id: self.tx_id.clone(),
            block: self.place.block.get(),
            transaction: self.place.tx.get(),
            namespace: self.namespace.clone(),
            collection: self.collection.clone(),
            hash: self.hash.clone(),
        }
    }
}

/// Sets that came, and why others did not.
#[derive(Debug, Default)]
pub(super) struct Answered {
    /// With their places in the list that was asked for.
    pub(super) sets: Vec<(usize, PrivateCollection)>,
    /// Whether everything that was asked for was looked at.
    pub(super) complete: bool,
}

impl PrivateData {
    /// Asks for what a block lacks, for the configured time at most, so that the commit can go on. What invalid transactions wrote is asked for
    /// afterwards, once and for a shorter time: it takes no endorsement to send one, and whoever does must not hold up the channel. Sets that
    /// came have the hashes that their transactions promise; what did not come is left out. It blocks the thread, which must not be one that
    /// serves connections.
    #[must_use]
    pub fn fetch_for_commit(
        &self,
        channel: &ChannelHandle,
        wanted: Vec<WantedSet>,
    ) -> Vec<(WantedSet, PrivateCollection)> {
        let config = &self.setup().config;
        let (limit, limit_invalid) = (config.fetch_at_commit_ms, config.fetch_invalid_at_commit_ms);
        let (invalid, valid): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|set| set.invalid);
        tokio::runtime::Handle::current().block_on(async {
            let mut found = self.fetch_within(channel, valid, limit, &ROUND_PAUSES).await;
            found.extend(self.fetch_within(channel, invalid, limit_invalid, &ROUND_PAUSES[..1]).await);
            found
        })
    }

    async fn fetch_within(
        &self,
        channel: &ChannelHandle,
        mut wanted: Vec<WantedSet>,
        limit_ms: u64,
        pauses: &[Duration],
    ) -> Vec<(WantedSet, PrivateCollection)> {
        let deadline = Instant::now() + Duration::from_millis(limit_ms);
        let hash = channel.bundle().hash_algorithm();
        let mut found = Vec::new();
        for pause in pauses {
            if wanted.is_empty() || Instant::now() + *pause >= deadline {
                break;
            }
            tokio::time::sleep(*pause).await;
            let peers = self.sources(channel, &wanted);
            let mut later = false;
            for peer in &peers {
                let left = deadline.saturating_duration_since(Instant::now());
                if wanted.is_empty() || left.is_zero() {
                    return found;
                }
                let asked = self.fetch_from(channel, peer, &wanted, left.min(CALL_TIMEOUT)).await;
                let Ok(answered) = asked else {
                    later = true;
                    continue;
                };
                let has_all = wanted.iter().all(|set| set.place.block.get() < peer.member.height);
                later |= !answered.complete || !has_all;
                let mut came: BTreeMap<usize, PrivateCollection> = answered
                    .sets
                    .into_iter()
                    .filter(|(index, set)| hash.hash(set.bytes())[..] == wanted[*index].hash[..])
                    .collect();
                let mut rest = Vec::new();
                for (index, set) in std::mem::take(&mut wanted).into_iter().enumerate() {
                    match came.remove(&index) {
                        Some(data) => found.push((set, data)),
                        None => rest.push(set),
                    }
                }
                wanted = rest;
            }
            // Whoever has committed the block already will not have more of it in a moment.
            if wanted.is_empty() || !later {
                break;
            }
        }
        found
    }

    /// Whom to ask: endorsers of what is wanted first, then the own organisation, then others.
    pub(super) fn sources(&self, channel: &ChannelHandle, wanted: &[WantedSet]) -> Vec<OtherPeer> {
        let own = self.setup().signer.get().msp_id().clone();
        let mut peers = self.others(channel);
        peers.shuffle(&mut rand::rng());
        peers.sort_by_key(|peer| {
            let endorsed = |set: &WantedSet| set.endorsers.contains(&peer.member.identity);
            let endorser = wanted.iter().any(endorsed);
            (!endorser, peer.member.msp_id != own)
        });
        peers
    }

    /// Asks one peer for those sets of which it is a member, in as many calls as it takes.
    ///
    /// # Errors
    /// Why the peer gave no answer.
    pub(super) async fn fetch_from(
        &self,
        channel: &ChannelHandle,
        peer: &OtherPeer,
        wanted: &[WantedSet],
        timeout: Duration,
    ) -> Result<Answered, String> {
        let mut rules = Rules::new(channel);
        let mut asked = Vec::new();
        for (index, set) in wanted.iter().enumerate() {
            if rules.may_have(&peer.identity, (&set.namespace, &set.collection), set.place.block)? {
                asked.push(index);
            }
        }
        let deadline = Instant::now() + timeout;
        let mut answered = Answered::default();
        let mut next = 0;
        while next < asked.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(answered);
            }
            let call = &asked[next..asked.len().min(next + WANTED_MAX)];
            let list = call.iter().map(|index| wanted[*index].to_message()).collect();
            let answer = self.ask(channel, peer, Content::Fetch(Fetch { wanted: list }), left).await?;
            let mut last = None;
            for found in answer.found {
                let place = usize::try_from(found.index).ok().filter(|place| *place < call.len());
                let Some(place) = place.filter(|place| last.is_none_or(|last| *place > last)) else {
                    return Err("its answer is not in order".to_owned());
                };
                last = Some(place);
                let name = &wanted[call[place]].collection;
                let set = PrivateCollection::decode(name, found.set).map_err(|error| error.to_string())?;
                answered.sets.push((call[place], set));
            }
            let looked_at = usize::try_from(answer.looked_at).unwrap_or(0).min(call.len());
            if looked_at == 0 || last.is_some_and(|last| last >= looked_at) {
                return Err("its answer does not say how far it goes".to_owned());
            }
            next += looked_at;
        }
        answered.complete = true;
        Ok(answered)
    }
}
