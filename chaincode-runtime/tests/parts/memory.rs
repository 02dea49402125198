//! The books of one execution, in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use consort_chaincode_runtime::memory::{Books, MemoryHost};
use consort_chaincode_runtime::{Allowance, Callee, Creator, PackageId, TransactionContext};

pub fn memory_host() -> MemoryHost {
    let context = TransactionContext {
        tx_id: "11".repeat(32),
        channel: "mychannel".to_owned(),
        timestamp: prost_types::Timestamp { seconds: 1_700_000_000, nanos: 5 },
        transient: Arc::new(BTreeMap::from([("secret".to_owned(), Bytes::from_static(b"42"))])),
        proposal: Bytes::from_static(b"proposal"),
        signature: Bytes::from_static(b"signature"),
        binding: [7; 32],
        peer_msp_id: "Org1MSP".to_owned(),
    };
    let creator =
        Creator { msp_id: "Org1MSP".to_owned(), common_name: "User1".to_owned(), ..Creator::default() };
    MemoryHost::new(context, creator, Books::default())
}

pub fn value(host: &MemoryHost, namespace: &str, name: &str) -> Option<Bytes> {
    host.books().committed.get(&(namespace.to_owned(), String::new(), name.to_owned())).cloned()
}

pub fn callee(package: PackageId) -> Callee {
    Callee { package, allowance: Allowance::default() }
}
