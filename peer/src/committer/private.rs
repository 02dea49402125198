//! The private data that this peer keeps with a block, of the collections that its organisation is a member of: what it holds since the
//! endorsement, and what other peers give it in the time that a commit waits.

use std::collections::BTreeMap;

use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_ledger::{CollectionTerms, StateSnapshot, ValidatedBlock};
use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::ids::{Height, MspId, TxNumber};
use consort_protos::rwset::{
    HashedCollection, PrivateCollection, PrivateNamespace, PrivateReadWriteSet, TxReadWriteSet,
};
use consort_protos::transaction::{Body, Transaction};

use super::governance::Governance;
use crate::channel::ChannelHandle;
use crate::private::{PrivateData, WantedSet};

/// What the books need to know of a block's private data.
#[derive(Debug, Default)]
pub(super) struct BlockPrivate {
    /// What this peer holds and keeps, by transaction.
    pub(super) sets: BTreeMap<TxNumber, PrivateReadWriteSet>,
    /// What the definitions before the block say about the collections that it writes.
    pub(super) terms: BTreeMap<(String, String), CollectionTerms>,
}

/// Collects it. Data that does not have the hash that the transaction promises is left out: whoever endorsed twice may
/// have several sets for one transaction. What is missing is asked of other peers, when there is a way to. Invalid transactions count as well, for
/// readers of the block (Fabric `gossip/privdata`, since capability `V1_4_2`), but for those whose id was there before: nobody has kept theirs.
pub(super) fn of_block(
    channel: &ChannelHandle,
    own: &MspId,
    others: Option<&PrivateData>,
    block: &ValidatedBlock,
) -> Result<BlockPrivate, consort_ledger::Error> {
    let (bundle, ledger) = (&*channel.bundle(), channel.ledger());
    let mut wanted = Vec::new();
    let mut private = BlockPrivate::default();
    let mut definitions = Definitions { bundle, own, state: ledger.snapshot(), known: BTreeMap::new() };
    for ((transaction, code), number) in block.transactions().iter().zip(block.codes()).zip(0_u32..) {
        let invocation = transaction.as_ref().and_then(|transaction| transaction.invocation());
        let (Some(transaction), Some(invocation)) = (transaction, invocation) else { continue };
        for (namespace, collection) in written(&invocation.rwset) {
            let name = (namespace.to_owned(), collection.name.clone());
            if !private.terms.contains_key(&name)
                && let Some(terms) = definitions.terms(namespace, &collection.name)
            {
                private.terms.insert(name, terms);
            }
        }
        if promised(&invocation.rwset).next().is_none() {
            continue;
        }
        let held = ledger.transient().sets(&transaction.tx_id)?;
        let place = Height { block: block.number(), tx: TxNumber::new(number) };
        let kept = keep(bundle, &private.terms, &invocation.rwset, &held);
        if *code != TxValidationCode::DuplicateTxid {
            let invalid = *code != TxValidationCode::Valid;
            wanted.extend(lacking(transaction, (place, invalid), &private.terms, &invocation.rwset, &kept));
        }
        if !kept.is_empty() {
            private.sets.insert(place.tx, kept);
        }
    }
    if let Some(others) = others.filter(|_| !wanted.is_empty()) {
        for (set, data) in others.fetch_for_commit(channel, wanted) {
            add(private.sets.entry(set.place.tx).or_default(), set.namespace, data);
        }
    }
    Ok(private)
}

/// What a transaction promises to the organisation and what is not at hand.
fn lacking(
    transaction: &Transaction,
    (place, invalid): (Height, bool),
    terms: &BTreeMap<(String, String), CollectionTerms>,
    set: &TxReadWriteSet,
    kept: &PrivateReadWriteSet,
) -> Vec<WantedSet> {
    let member = |namespace: &str, collection: &str| {
        terms.get(&(namespace.to_owned(), collection.to_owned())).is_some_and(|terms| terms.member)
    };
    let missing = promised(set).filter(|(namespace, collection)| {
        member(namespace, &collection.name) && kept.collection(namespace, &collection.name).is_none()
    });
    let wanted = missing.map(|(namespace, collection)| WantedSet {
        tx_id: transaction.tx_id.clone(),
        place,
        invalid,
        namespace: namespace.to_owned(),
        collection: collection.name.clone(),
        hash: collection.pvt_rwset_hash.clone(),
        endorsers: endorsers(transaction),
    });
    wanted.collect()
}

fn endorsers(transaction: &Transaction) -> Vec<Bytes> {
    match &transaction.body {
        Ok(Body::Endorser(body)) => {
            body.endorsements.iter().map(|endorsement| endorsement.endorser.clone()).collect()
        }
        _ => Vec::new(),
    }
}

fn add(sets: &mut PrivateReadWriteSet, namespace: String, data: PrivateCollection) {
    match sets.namespaces.iter_mut().find(|known| known.namespace == namespace) {
        Some(known) => known.collections.push(data),
        None => sets.namespaces.push(PrivateNamespace { namespace, collections: vec![data] }),
    }
}

/// The definitions that a block's collections stand under, each read once.
struct Definitions<'a> {
    bundle: &'a ChannelBundle,
    own: &'a MspId,
    state: StateSnapshot,
    known: BTreeMap<String, Option<Governance>>,
}

impl Definitions<'_> {
    /// `None` when the collection is not defined.
    fn terms(&mut self, namespace: &str, collection: &str) -> Option<CollectionTerms> {
        let governance = self.known.entry(namespace.to_owned()).or_insert_with(|| {
            // A definition that cannot be read has stopped the channel before.
            Governance::find(self.bundle, &self.state, namespace).ok().flatten()
        });
        let governance = governance.as_ref()?;
        let members = governance.collection_members(self.bundle, collection).ok()?;
        Some(CollectionTerms {
            member: members.contains(self.own),
            blocks_to_live: governance.blocks_to_live(collection),
        })
    }
}

/// The collections that are written, with or without private writes (a key's policy is written in public).
fn written(set: &TxReadWriteSet) -> impl Iterator<Item = (&str, &HashedCollection)> {
    set.namespaces.iter().flat_map(|namespace| {
        let written = namespace
            .collections
            .iter()
            .filter(|collection| collection.is_written() || !collection.pvt_rwset_hash.is_empty());
        written.map(move |collection| (namespace.namespace.as_str(), collection))
    })
}

/// The collections with private writes.
fn promised(set: &TxReadWriteSet) -> impl Iterator<Item = (&str, &HashedCollection)> {
    set.namespaces.iter().flat_map(|namespace| {
        namespace
            .collections
            .iter()
            .filter(|collection| !collection.pvt_rwset_hash.is_empty())
            .map(move |collection| (namespace.namespace.as_str(), collection))
    })
}

fn keep(
    bundle: &ChannelBundle,
    terms: &BTreeMap<(String, String), CollectionTerms>,
    set: &TxReadWriteSet,
    held: &[PrivateReadWriteSet],
) -> PrivateReadWriteSet {
    let member = |namespace: &str, collection: &str| {
        terms.get(&(namespace.to_owned(), collection.to_owned())).is_some_and(|terms| terms.member)
    };
    let mut kept: BTreeMap<String, Vec<PrivateCollection>> = BTreeMap::new();
    for (namespace, collection) in promised(set) {
        let matching = held
            .iter()
            .filter_map(|set| set.collection(namespace, &collection.name))
            .find(|data| bundle.hash_algorithm().hash(data.bytes())[..] == collection.pvt_rwset_hash[..]);
        if let Some(data) = matching
            && member(namespace, &collection.name)
        {
            kept.entry(namespace.to_owned()).or_default().push(data.clone());
        }
    }
    let namespaces = kept
        .into_iter()
        .map(|(namespace, collections)| PrivateNamespace { namespace, collections })
        .collect();
    PrivateReadWriteSet { namespaces }
}
