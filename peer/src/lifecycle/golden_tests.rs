//! The lifecycle's transactions of a real Fabric channel, executed again: the read-write sets must be those that Fabric's
//! peers endorsed, byte for byte.

use std::sync::Arc;

use bytes::Bytes;
use consort_ledger::TxSimulator;
use consort_protos::fabric::common::Block;
use consort_protos::fabric::protos::{ChaincodeInvocationSpec, ChaincodeProposalPayload};
use consort_protos::ids::MspId;
use consort_protos::transaction::Transaction;
use prost::Message;

use super::{Definition, Installed, LifecycleCall, LifecycleChaincode};
use crate::chaincode::{Limits, PackageStore, WasmRuntime};
use crate::channel::ChannelHandle;
use crate::committer::{feed, golden_block};
use crate::endorser::Access;
use crate::registry::Channels;

/// Last block of the channel that changes a definition.
const LAST_BLOCK: u64 = 68;

struct Bench {
    channels: Arc<Channels>,
    channel: Arc<ChannelHandle>,
    runtime: Arc<WasmRuntime>,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let channels = Channels::open(folder.path()).unwrap();
        let channel = channels.join(&golden_block(0)).unwrap();
        let packages = Arc::new(PackageStore::open(&folder.path().join("packages"), 1 << 20).unwrap());
        let limits = Limits { instances_max: 1, memory_bytes_max: 1 << 20, ..Limits::default() };
        let runtime = Arc::new(WasmRuntime::new(packages, &folder.path().join("compiled"), limits).unwrap());
        Self { channels, channel, runtime, _folder: folder }
    }

    /// The system chaincode of a peer of an organisation.
    fn lifecycle(&self, msp_id: &str) -> LifecycleChaincode {
        let msp_id = MspId::parse(msp_id).unwrap();
        let access = Arc::new(Access::new(Arc::clone(self.channel.bundle().msps()), msp_id.clone()));
        let installed = Installed::new(Arc::clone(&self.runtime), Arc::clone(&self.channels), msp_id.clone());
        LifecycleChaincode::new(installed, access, msp_id)
    }

    /// Executes the proposal of a transaction on a peer of the first endorser's organisation.
    fn execute_again(&self, transaction: &Transaction) -> (i32, String, Bytes) {
        let endorser = transaction.endorser().unwrap();
        let payload = ChaincodeProposalPayload::decode(endorser.chaincode_proposal_payload.clone()).unwrap();
        let spec = ChaincodeInvocationSpec::decode(payload.input).unwrap().chaincode_spec.unwrap();
        let bundle = self.channel.bundle();
        let creator = bundle.msps().deserialize(&transaction.creator).unwrap();
        let peer = bundle.msps().deserialize(&endorser.endorsements[0].endorser).unwrap();
        let mut simulator = TxSimulator::new(self.channel.ledger().snapshot(), transaction.tx_id.clone());
        let response = self.lifecycle(peer.msp_id().as_str()).invoke(LifecycleCall {
            creator: &creator,
            arguments: &spec.input.unwrap().args,
            channel: Some((&bundle, &mut simulator)),
        });
        (response.status, response.message, simulator.finish().rwset.encode())
    }
}

fn lifecycle_transaction(block: &Block) -> Option<Transaction> {
    let transaction = Transaction::open(block.data.as_ref()?.data.first()?.clone()).ok()?;
    let is_lifecycle = transaction.endorser().is_some_and(|endorser| {
        endorser.invocation.as_ref().is_ok_and(|invocation| invocation.chaincode_id.name == super::LIFECYCLE)
    });
    is_lifecycle.then_some(transaction)
}

#[tokio::test]
async fn approvals_and_commits_of_a_real_channel_give_the_same_read_write_sets() {
    let bench = Bench::new();
    let mut checked = 0;
    for number in 1..=LAST_BLOCK {
        let block = golden_block(number);
        if let Some(transaction) = lifecycle_transaction(&block) {
            let (status, message, results) = bench.execute_again(&transaction);
            assert_eq!((status, message.as_str()), (200, ""), "block {number}");
            let invocation = transaction.endorser().unwrap().invocation.as_ref().unwrap();
            assert_eq!(results, invocation.action.results, "block {number}");
            checked += 1;
        }
        feed(&bench.channel, [block]).await;
    }
    assert_eq!(checked, 9);

    let snapshot = bench.channel.ledger().snapshot();
    assert_eq!(Definition::names(&snapshot).unwrap(), ["gold", "kvbench"]);
    let gold = Definition::read(&snapshot, "gold").unwrap().unwrap();
    assert_eq!((gold.sequence, gold.version.as_str(), gold.collections.config.len()), (2, "1", 2));
    assert_eq!(Definition::read(&snapshot, "absent").unwrap(), None);
}
