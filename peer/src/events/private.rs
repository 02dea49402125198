//! The private data of a block that a reader may see.
//!
//! Who is a member of a collection is told by the definition that was in force when the block was ordered: a member that joined
//! later does not see what was written before (Fabric `core/peer/deliverevents.go`).

use std::collections::BTreeMap;

use bytes::Bytes;
use consort_node::dial::with_causes;
use consort_protos::fabric::rwset::TxPvtReadWriteSet;
use consort_protos::ids::BlockNumber;
use consort_protos::rwset::{PrivateNamespace, PrivateReadWriteSet};

use crate::channel::ChannelHandle;
use crate::private::collections::Rules;

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
    let mut rules = Rules::new(channel);
    let mut readable = BTreeMap::new();
    for (tx, mut set) in sets {
        for PrivateNamespace { namespace, collections } in &mut set.namespaces {
            let mut kept = Vec::new();
            for set in std::mem::take(collections) {
                let rule = rules.before(namespace, set.name(), block)?;
                if rule.is_some_and(|rule| rule.includes(&identity)) {
                    kept.push(set);
                }
            }
            *collections = kept;
        }
        set.namespaces.retain(|namespace| !namespace.collections.is_empty());
        if !set.is_empty() {
            readable.insert(u64::from(tx.get()), PrivateReadWriteSet::to_message(&set));
        }
    }
    Ok(readable)
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

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_reader_gets_what_an_invalid_transaction_wrote_too() {
        let mut test = TestChannel::new().await;
        let height = BlockNumber::new(test.channel.ledger().height());
        let rivals = ["first", "late"].map(|value| {
            let mut simulator = TxSimulator::new(test.channel.ledger().snapshot(), "private");
            simulator.private("basic", "own", "key").expect("may read");
            simulator.put_private("basic", "own", "key", value.into()).expect("may write");
            let simulation = simulator.finish();
            let transaction = test.basic().set(simulation.rwset);
            let transient = test.channel.ledger().transient();
            transient.put(&transaction.tx_id(), height, &simulation.private).expect("kept");
            (transaction.build(), simulation.private)
        });
        let [(first, _), (late, wrote)] = rivals;
        let codes = test.commit(vec![first, late]).await;
        assert_eq!(codes, [TxValidationCode::Valid, TxValidationCode::MvccReadConflict]);
        let of_org1 =
            readable(&test.channel, height, test.network.org1.client.serialized()).expect("readable");
        assert_eq!(of_org1.keys().copied().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(of_org1[&1], wrote.to_message());
        let of_org2 =
            readable(&test.channel, height, test.network.org2.client.serialized()).expect("readable");
        assert!(of_org2.is_empty(), "{of_org2:?}");
    }
}
