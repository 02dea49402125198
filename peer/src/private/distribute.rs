//! Handing out what a proposal writes, before the proposal is answered (Fabric `gossip/privdata/distributor.go`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use consort_ledger::StateSnapshot;
use consort_protos::consort::privatedata::{Push, body::Content};
use consort_protos::fabric::protos::CollectionConfigPackage;
use consort_protos::ids::MspId;
use consort_protos::rwset::{PrivateCollection, PrivateNamespace, PrivateReadWriteSet};
use rand::seq::SliceRandom;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::collections::CollectionRule;
use super::{OtherPeer, PrivateData};
use crate::channel::ChannelHandle;
use crate::lifecycle::{Definition, LIFECYCLE};
use crate::registry::with_causes;

/// How long an endorsement waits for peers that need not acknowledge. In good health all have answered by then; one that is down must
/// not slow down every private write.
const OPTIONAL_WAIT: Duration = Duration::from_millis(250);

/// The collections that a transaction writes, each with its rule.
#[derive(Debug)]
pub struct Written<'s> {
    collections: Vec<WrittenCollection<'s>>,
}

#[derive(Debug)]
struct WrittenCollection<'s> {
    namespace: &'s str,
    set: &'s PrivateCollection,
    rule: CollectionRule,
}

impl<'s> Written<'s> {
    /// Finds the rules that are in force in the state that the transaction was executed over.
    ///
    /// # Errors
    /// A definition cannot be read, or there is no such collection.
    pub fn of(
        channel: &ChannelHandle,
        state: &StateSnapshot,
        private: &'s PrivateReadWriteSet,
    ) -> Result<Self, String> {
        let bundle = channel.bundle();
        let mut collections = Vec::new();
        for PrivateNamespace { namespace, collections: sets } in &private.namespaces {
            let defined = match namespace.as_str() {
                LIFECYCLE => CollectionConfigPackage::default(),
                name => Definition::read(state, name)
                    .map_err(|error| with_causes(&error))?
                    .map(|definition| definition.collections)
                    .unwrap_or_default(),
            };
            for set in sets {
                let rule = CollectionRule::of(&bundle, &defined, set.name()).ok_or_else(|| {
                    format!("collection {}/{namespace}/{} could not be found", channel.id(), set.name())
                })?;
                collections.push(WrittenCollection { namespace, set, rule });
            }
        }
        Ok(Self { collections })
    }

    /// A peer outside of a collection must not get its data, so it endorses no writes to it. An organisation's implicit collection is
    /// what others write to in exchange with it, and demands its own endorsement anyway.
    ///
    /// # Errors
    /// Which collection it is.
    pub fn check_membership(&self, own: &MspId) -> Result<(), String> {
        let foreign = self
            .collections
            .iter()
            .find(|collection| !collection.rule.implicit && !collection.rule.organisations.contains(own));
        match foreign {
            Some(WrittenCollection { namespace, set, .. }) => Err(format!(
                "{own} is no member of collection {} of chaincode {namespace}, and only peers of members endorse writes to it; \
                 remedy: name endorsing organizations that are members",
                set.name()
            )),
            None => Ok(()),
        }
    }

    /// The part that an organisation holds.
    #[must_use]
    pub fn held_by(&self, organisation: &MspId) -> PrivateReadWriteSet {
        let held =
            self.collections.iter().filter(|collection| collection.rule.organisations.contains(organisation));
        sets(held.map(|collection| (collection.namespace, collection.set)))
    }

    /// What holds for a peer that knows no other ones.
    ///
    /// # Errors
    /// As [`PrivateData::distribute`].
    pub fn check_alone(&self) -> Result<(), String> {
        self.collections
            .iter()
            .try_for_each(|collection| collection.check_count(collection.rule.required_peers, 0))
    }
}

impl WrittenCollection<'_> {
    /// Whether there are as many other peers as are demanded, in the words of Fabric.
    fn check_count(&self, required: usize, eligible: usize) -> Result<(), String> {
        if eligible >= required {
            return Ok(());
        }
        Err(format!(
            "could not build private data dissemination plan for chaincode {} and collection {}: required to disseminate to at \
             least {required} peers, but know of only {eligible} eligible peers",
            self.namespace,
            self.set.name()
        ))
    }
}

/// One collection's way to its holders.
struct Plan<'s> {
    namespace: &'s str,
    set: &'s PrivateCollection,
    /// Peers that have not been tried: first one of each organisation, then the others.
    queue: VecDeque<usize>,
    required: usize,
    maximum: usize,
    acknowledged: usize,
}

impl Plan<'_> {
    fn lacks(&self) -> usize {
        self.required.saturating_sub(self.acknowledged)
    }
}

impl PrivateData {
    /// Hands the sets to as many members' peers as their collections say, spread over organisations, and waits until as many of them
    /// acknowledge as the collections require. When one fails another one is tried.
    ///
    /// # Errors
    /// Fewer acknowledge, or fewer are known; in the words of Fabric.
    pub async fn distribute(
        &self,
        channel: &Arc<ChannelHandle>,
        tx_id: &str,
        height: u64,
        written: &Written<'_>,
    ) -> Result<(), String> {
        let peers = self.others(channel);
        let (own, config) = (self.setup().signer.get().msp_id().clone(), &self.setup().config);
        let eligible = |rule: &CollectionRule| -> Vec<usize> {
            (0..peers.len()).filter(|index| rule.includes(&peers[*index].identity)).collect()
        };
        let mut plans = Vec::new();
        for collection in &written.collections {
            let rule = &collection.rule;
            let (required, maximum) = match rule.implicit {
                false => (rule.required_peers, rule.maximum_peers),
                true if rule.organisations.contains(&own) => {
                    (config.implicit_required_peers, config.implicit_max_peers)
                }
                // Its own peers endorse, and have it then.
                true => (0, 0),
            };
            let queue = spread(&peers, eligible(rule));
            collection.check_count(required, queue.len())?;
            let (namespace, set) = (collection.namespace, collection.set);
            plans.push(Plan { namespace, set, queue, required, maximum, acknowledged: 0 });
        }
        let wanted = plans.len();
        self.carry_out(channel, tx_id, height, &peers, &mut plans).await;
        let failed = plans.iter().filter(|plan| plan.lacks() > 0).count();
        if failed > 0 {
            return Err(format!("Failed disseminating {failed} out of {wanted} private dissemination plans"));
        }
        Ok(())
    }

    /// Goes on until every plan has its acknowledgements or nobody is left to try.
    async fn carry_out(
        &self,
        channel: &Arc<ChannelHandle>,
        tx_id: &str,
        height: u64,
        peers: &[OtherPeer],
        plans: &mut [Plan<'_>],
    ) {
        for round in 0.. {
            let mut recipients: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
            for (index, plan) in plans.iter_mut().enumerate() {
                let count = if round == 0 { plan.maximum.max(plan.required) } else { plan.lacks() };
                for peer in plan.queue.drain(..count.min(plan.queue.len())) {
                    recipients.entry(peer).or_default().push(index);
                }
            }
            if recipients.is_empty() {
                return;
            }
            self.push_round(channel, (tx_id, height), peers, plans, recipients).await;
            if plans.iter().all(|plan| plan.lacks() == 0) {
                return;
            }
        }
    }

    async fn push_round(
        &self,
        channel: &Arc<ChannelHandle>,
        (tx_id, height): (&str, u64),
        peers: &[OtherPeer],
        plans: &mut [Plan<'_>],
        recipients: BTreeMap<usize, Vec<usize>>,
    ) {
        let (sender, mut answers) = mpsc::channel(recipients.len());
        for (peer, collections) in recipients {
            let chosen = collections.iter().map(|index| (plans[*index].namespace, plans[*index].set));
            let push = Push { tx_id: tx_id.to_owned(), height, sets: Some(sets(chosen).to_message()) };
            self.start_push(channel, peers[peer].clone(), push, (sender.clone(), collections));
        }
        drop(sender);
        let optional_until = Instant::now() + OPTIONAL_WAIT;
        loop {
            let required = plans.iter().any(|plan| plan.lacks() > 0);
            let answer = if required {
                answers.recv().await
            } else {
                tokio::time::timeout_at(optional_until, answers.recv()).await.unwrap_or(None)
            };
            let Some(collections) = answer else { return };
            for index in collections {
                plans[index].acknowledged += 1;
            }
        }
    }

    /// Pushes in a task of its own, which goes on when nobody waits for it any more. An acknowledgement is told.
    fn start_push(
        &self,
        channel: &Arc<ChannelHandle>,
        peer: OtherPeer,
        push: Push,
        (told, collections): (mpsc::Sender<Vec<usize>>, Vec<usize>),
    ) {
        let metrics = Arc::clone(&self.setup().metrics);
        let Ok(place) = Arc::clone(&self.inner.pushes).try_acquire_owned() else {
            metrics.private_push(channel.id(), false);
            tracing::warn!(channel = %channel.id(), "too many pushes of private data are under way, one was left out");
            return;
        };
        let (private, channel) = (self.clone(), Arc::clone(channel));
        self.setup().tasks.spawn("push of private data", false, async move {
            let _place = place;
            let tx_id = push.tx_id.clone();
            let pushed = private.push(&channel, &peer, Content::Push(push)).await;
            metrics.private_push(channel.id(), pushed.is_ok());
            match pushed {
                // Nobody may be waiting any more.
                Ok(()) => drop(told.send(collections).await),
                Err(reason) => tracing::warn!(
                    channel = %channel.id(), %tx_id, peer = %peer.member.endpoint, %reason,
                    "a peer did not take private data"
                ),
            }
        });
    }
}

/// An order in which the first ones are of different organisations; else by chance.
fn spread(peers: &[OtherPeer], mut eligible: Vec<usize>) -> VecDeque<usize> {
    eligible.shuffle(&mut rand::rng());
    let mut seen: BTreeSet<&MspId> = BTreeSet::new();
    let (first, others): (Vec<usize>, Vec<usize>) =
        eligible.into_iter().partition(|index| seen.insert(&peers[*index].member.msp_id));
    first.into_iter().chain(others).collect()
}

/// Sets in the order in which they come, by namespace.
fn sets<'s>(chosen: impl Iterator<Item = (&'s str, &'s PrivateCollection)>) -> PrivateReadWriteSet {
    let mut namespaces: Vec<PrivateNamespace> = Vec::new();
    for (namespace, set) in chosen {
        match namespaces.last_mut() {
            Some(last) if last.namespace == namespace => last.collections.push(set.clone()),
            _ => namespaces
                .push(PrivateNamespace { namespace: namespace.to_owned(), collections: vec![set.clone()] }),
        }
    }
    PrivateReadWriteSet { namespaces }
}
