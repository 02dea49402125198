//! The private data that this peer keeps with a block: what it holds since the endorsement, of the collections that its
//! organisation is a member of.

use std::collections::BTreeMap;

use consort_channel_config::ChannelBundle;
use consort_ledger::{Ledger, ValidatedBlock};
use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::ids::{MspId, TxNumber};
use consort_protos::rwset::{
    HashedCollection, PrivateCollection, PrivateNamespace, PrivateReadWriteSet, TxReadWriteSet,
};

use super::governance::Governance;

/// Collects it. Data that does not have the hash that the transaction promises is left out: whoever endorsed twice may
/// have several sets for one transaction.
pub(super) fn of_block(
    bundle: &ChannelBundle,
    ledger: &Ledger,
    own: &MspId,
    block: &ValidatedBlock,
) -> Result<BTreeMap<TxNumber, PrivateReadWriteSet>, consort_ledger::Error> {
    let mut private = BTreeMap::new();
    for ((transaction, code), number) in block.transactions().iter().zip(block.codes()).zip(0_u32..) {
        let Some(invocation) = transaction.as_ref().and_then(|transaction| transaction.invocation()) else {
            continue;
        };
        if *code != TxValidationCode::Valid || promised(&invocation.rwset).next().is_none() {
            continue;
        }
        let tx_id = transaction.as_ref().map_or("", |transaction| transaction.tx_id.as_str());
        let held = ledger.transient().sets(tx_id)?;
        let kept = keep(bundle, ledger, own, &invocation.rwset, &held);
        if !kept.is_empty() {
            private.insert(TxNumber::new(number), kept);
        }
    }
    Ok(private)
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
    ledger: &Ledger,
    own: &MspId,
    set: &TxReadWriteSet,
    held: &[PrivateReadWriteSet],
) -> PrivateReadWriteSet {
    let state = ledger.snapshot();
    let member = |namespace: &str, collection: &str| {
        // A definition that cannot be read has stopped the channel before.
        Governance::find(bundle, &state, namespace)
            .ok()
            .flatten()
            .and_then(|governance| governance.collection_members(bundle, collection).ok())
            .is_some_and(|members| members.contains(own))
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
