//! The private data of a block that a reader may see.
//!
//! Who is a member of a collection is told by the definition that was in force when the block was ordered: a member that joined
//! later does not see what was written before (Fabric `core/peer/deliverevents.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_ledger::Ledger;
use consort_msp::Identity;
use consort_node::dial::with_causes;
use consort_protos::fabric::lifecycle::{StateData, state_data};
use consort_protos::fabric::protos::{CollectionConfigPackage, collection_config, collection_policy_config};
use consort_protos::fabric::rwset::TxPvtReadWriteSet;
use consort_protos::ids::BlockNumber;
use consort_protos::rwset::PrivateReadWriteSet;
use prost::Message;

use crate::channel::ChannelHandle;
use crate::committer::governance::Rule;

/// Namespace of chaincode definitions.
const LIFECYCLE: &str = "_lifecycle";
/// Prefix of the collection that every organisation has in every namespace.
const IMPLICIT_COLLECTION: &str = "_implicit_org_";

/// The sets of a block by the transaction's position, without the collections that the reader is no member of.
///
/// # Errors
/// When the books cannot be read.
pub(super) fn readable(
    channel: &ChannelHandle,
    block: BlockNumber,
    reader: &Bytes,
) -> Result<BTreeMap<u64, TxPvtReadWriteSet>, String> {
    let sets = channel.ledger().private_sets(block).map_err(|error| with_causes(&error))?;
    if sets.is_empty() {
        return Ok(BTreeMap::new());
    }
    let bundle = channel.bundle();
    let identity = bundle.msps().deserialize(reader).map_err(|error| error.to_string())?;
    let mut known: BTreeMap<String, CollectionConfigPackage> = BTreeMap::new();
    let mut readable = BTreeMap::new();
    for (tx, mut set) in sets {
        for namespace in &mut set.namespaces {
            let name = namespace.namespace.clone();
            if !known.contains_key(&name) {
                let definition = collections_before(channel.ledger(), &name, block)?;
                known.insert(name.clone(), definition);
            }
            let collections = &known[&name];
            namespace.collections.retain(|set| is_member(&bundle, &identity, collections, set.name()));
        }
        set.namespaces.retain(|namespace| !namespace.collections.is_empty());
        if !set.is_empty() {
            readable.insert(u64::from(tx.get()), PrivateReadWriteSet::to_message(&set));
        }
    }
    Ok(readable)
}

/// The collections of a chaincode as they were defined before a block.
fn collections_before(
    ledger: &Ledger,
    chaincode: &str,
    block: BlockNumber,
) -> Result<CollectionConfigPackage, String> {
    let key = format!("namespaces/fields/{chaincode}/Collections");
    let Some(definition) = ledger.history(LIFECYCLE, &key, block).next() else {
        return Ok(CollectionConfigPackage::default());
    };
    let definition = definition.map_err(|error| with_causes(&error))?;
    let data = StateData::decode(definition.value).map_err(|error| error.to_string())?;
    match data.r#type {
        Some(state_data::Type::Bytes(package)) => {
            CollectionConfigPackage::decode(package).map_err(|error| error.to_string())
        }
        _ => Ok(CollectionConfigPackage::default()),
    }
}

fn is_member(
    bundle: &ChannelBundle,
    reader: &Arc<Identity>,
    collections: &CollectionConfigPackage,
    name: &str,
) -> bool {
    if let Some(msp_id) = name.strip_prefix(IMPLICIT_COLLECTION) {
        return reader.msp_id().as_str() == msp_id;
    }
    let policy = collections.config.iter().find_map(|config| match &config.payload {
        Some(collection_config::Payload::StaticCollectionConfig(config)) if config.name == name => {
            let collection_policy_config::Payload::SignaturePolicy(policy) =
                config.member_orgs_policy.as_ref()?.payload.as_ref()?;
            Some(policy.encode_to_vec())
        }
        _ => None,
    });
    policy.is_some_and(|policy| Rule::of_key(bundle, &policy).evaluate(std::slice::from_ref(reader)).is_ok())
}

#[cfg(test)]
mod tests {
    use consort_ledger::TxSimulator;
    use consort_protos::fabric::protos::TxValidationCode;

    use super::*;
    use crate::testing::TestChannel;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_reader_gets_the_private_data_of_its_collections_and_no_other() {
        let mut test = TestChannel::new().await;
        let mut simulator = TxSimulator::new(test.channel.ledger().snapshot(), "private");
        for (collection, value) in [("own", "of Org1"), ("_implicit_org_Org1MSP", "its own")] {
            simulator.put_private("basic", collection, "key", value.into()).expect("may write");
        }
        let simulation = simulator.finish();
        let transaction = test.basic().set(simulation.rwset);
        let height = BlockNumber::new(test.channel.ledger().height());
        let transient = test.channel.ledger().transient();
        transient.put(&transaction.tx_id(), height, &simulation.private).expect("kept");
        assert_eq!(test.commit(vec![transaction.build()]).await, [TxValidationCode::Valid]);
        let of_org1 =
            readable(&test.channel, height, test.network.org1.client.serialized()).expect("readable");
        assert_eq!(of_org1.len(), 1);
        assert_eq!(of_org1[&0], simulation.private.to_message());
        let of_org2 =
            readable(&test.channel, height, test.network.org2.client.serialized()).expect("readable");
        assert!(of_org2.is_empty(), "{of_org2:?}");
    }
}
