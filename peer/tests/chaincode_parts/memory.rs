//! The books of one execution, in memory: enough of a ledger for the sandbox to be tested alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use consort_peer::chaincode::{Creator, Host, HostError, PackageId, RangeHandle, TransactionContext};

type Key = (String, String, String);

/// Committed values, and what the execution wrote.
#[derive(Default)]
pub struct Books {
    pub committed: BTreeMap<Key, Bytes>,
    pub written: BTreeMap<Key, Bytes>,
    pub policies: BTreeMap<Key, Bytes>,
    ranges: Vec<Vec<(String, Bytes)>>,
}

pub struct MemoryHost {
    context: TransactionContext,
    pub books: Mutex<Books>,
    pub callees: BTreeMap<String, PackageId>,
}

fn key(namespace: &str, collection: &str, key: &str) -> Key {
    (namespace.to_owned(), collection.to_owned(), key.to_owned())
}

impl MemoryHost {
    pub fn new() -> Self {
        let context = TransactionContext {
            tx_id: "11".repeat(32),
            channel: "mychannel".to_owned(),
            timestamp: prost_types::Timestamp { seconds: 1_700_000_000, nanos: 5 },
            transient: Arc::new(BTreeMap::from([("secret".to_owned(), Bytes::from_static(b"42"))])),
            peer_msp_id: "Org1MSP".to_owned(),
        };
        Self { context, books: Mutex::default(), callees: BTreeMap::new() }
    }

    /// Commits what was written, as the next block would.
    pub fn commit(&self) {
        let mut books = self.books.lock().unwrap();
        for (key, value) in std::mem::take(&mut books.written) {
            if value.is_empty() {
                books.committed.remove(&key)
            } else {
                books.committed.insert(key, value)
            };
        }
    }

    pub fn value(&self, namespace: &str, name: &str) -> Option<Bytes> {
        self.books.lock().unwrap().committed.get(&key(namespace, "", name)).cloned()
    }

    pub fn written(&self) -> Vec<String> {
        self.books
            .lock()
            .unwrap()
            .written
            .keys()
            .map(|(namespace, _, name)| format!("{namespace}/{name}"))
            .collect()
    }

    fn open(&self, namespace: &str, collection: &str, start: &str, end: &str) -> RangeHandle {
        let mut books = self.books.lock().unwrap();
        let pairs = books
            .committed
            .range(key(namespace, collection, start)..)
            .take_while(|((of, within, name), _)| {
                of == namespace && within == collection && (end.is_empty() || name.as_str() < end)
            })
            .map(|((_, _, name), value)| (name.clone(), value.clone()))
            .collect();
        books.ranges.push(pairs);
        RangeHandle(books.ranges.len() - 1)
    }
}

impl Host for MemoryHost {
    fn transaction(&self) -> &TransactionContext {
        &self.context
    }

    fn creator(&self) -> Result<Creator, HostError> {
        Ok(Creator { msp_id: "Org1MSP".to_owned(), common_name: "User1".to_owned(), ..Creator::default() })
    }

    fn get(&self, namespace: &str, name: &str) -> Result<Option<Bytes>, HostError> {
        self.private_get(namespace, "", name)
    }

    fn put(&self, namespace: &str, name: &str, value: Bytes) -> Result<(), HostError> {
        self.private_put(namespace, "", name, value)
    }

    fn range(&self, namespace: &str, start: &str, end: &str) -> Result<RangeHandle, HostError> {
        Ok(self.open(namespace, "", start, end))
    }

    fn range_next(&self, range: RangeHandle) -> Result<Vec<(String, Bytes)>, HostError> {
        let pairs = &mut self.books.lock().unwrap().ranges[range.0];
        let size = pairs.len().min(100);
        Ok(pairs.drain(..size).collect())
    }

    fn range_close(&self, range: RangeHandle) {
        self.books.lock().unwrap().ranges[range.0].clear();
    }

    fn validation_parameter(&self, namespace: &str, name: &str) -> Result<Option<Bytes>, HostError> {
        Ok(self.books.lock().unwrap().policies.get(&key(namespace, "", name)).cloned())
    }

    fn set_validation_parameter(&self, namespace: &str, name: &str, policy: Bytes) -> Result<(), HostError> {
        self.books.lock().unwrap().policies.insert(key(namespace, "", name), policy);
        Ok(())
    }

    fn private_get(&self, namespace: &str, collection: &str, name: &str) -> Result<Option<Bytes>, HostError> {
        Ok(self.books.lock().unwrap().committed.get(&key(namespace, collection, name)).cloned())
    }

    fn private_hash(&self, _: &str, collection: &str, _: &str) -> Result<Option<Bytes>, HostError> {
        Err(HostError::Refused(format!("collection [{collection}] not defined")))
    }

    fn private_put(
        &self,
        namespace: &str,
        collection: &str,
        name: &str,
        value: Bytes,
    ) -> Result<(), HostError> {
        self.books.lock().unwrap().written.insert(key(namespace, collection, name), value);
        Ok(())
    }

    fn private_purge(&self, namespace: &str, collection: &str, name: &str) -> Result<(), HostError> {
        self.private_put(namespace, collection, name, Bytes::new())
    }

    fn private_range(
        &self,
        namespace: &str,
        collection: &str,
        start: &str,
        end: &str,
    ) -> Result<RangeHandle, HostError> {
        Ok(self.open(namespace, collection, start, end))
    }

    fn callee(&self, _caller: &str, name: &str) -> Result<PackageId, HostError> {
        self.callees
            .get(name)
            .cloned()
            .ok_or_else(|| HostError::Refused(format!("chaincode {name} is not defined")))
    }

    fn other_channel(&self, channel: &str) -> Result<Arc<dyn Host>, HostError> {
        Err(HostError::Refused(format!("channel '{channel}' not found")))
    }
}
