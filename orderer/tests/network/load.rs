//! Clients that keep sending while orderers come and go, and remember what was acknowledged.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use consort_protos::{
    block,
    fabric::{
        common::{Block, Envelope, HeaderType, Status},
        orderer::atomic_broadcast_client::AtomicBroadcastClient,
    },
};
use prost::Message;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::support::{CHANNEL, Network, PATIENCE, eventually, sign};

/// Clients at a time.
const CLIENTS: usize = 4;

/// A client that hears nothing for this long asks another orderer: its connection may lead nowhere.
const ANSWER_WAIT: Duration = Duration::from_secs(3);

/// A running load.
pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

struct Shared {
    over: AtomicBool,
    acknowledged: Mutex<Vec<Bytes>>,
}

impl Load {
    /// Starts clients that send to all orderers of a network in turn.
    pub(crate) fn start(network: &Network, orderers: usize) -> Self {
        let shared = Arc::new(Shared { over: AtomicBool::new(false), acknowledged: Mutex::default() });
        let mut clients = JoinSet::new();
        for name in 0..CLIENTS {
            let identity = network.members.identity("client");
            let connections: Vec<_> = (0..orderers).map(|index| network.client(index)).collect();
            let shared = Arc::clone(&shared);
            clients.spawn(async move {
                let mut number = 0;
                while !shared.over.load(Ordering::Relaxed) {
                    let data = format!("client {name} message {number}").into_bytes();
                    let envelope = sign(&identity, CHANNEL, HeaderType::EndorserTransaction, data);
                    if is_ordered(connections[(name + number) % orderers].clone(), &envelope).await {
                        shared.acknowledged.lock().unwrap().push(envelope.encode_to_vec().into());
                    }
                    number += 1;
                }
            });
        }
        Self { shared, clients }
    }

    /// How many messages were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> usize {
        self.shared.acknowledged.lock().unwrap().len()
    }

    /// Waits until so many more messages were acknowledged.
    pub(crate) async fn progress(&self, count: usize) {
        let wanted = self.acknowledged() + count;
        eventually(async || (self.acknowledged() >= wanted).then_some(())).await;
    }

    /// Ends the load; every message that was acknowledged, as bytes of its envelope.
    pub(crate) async fn end(mut self) -> Vec<Bytes> {
        self.shared.over.store(true, Ordering::Relaxed);
        while let Some(ended) = tokio::time::timeout(PATIENCE, self.clients.join_next()).await.unwrap() {
            ended.unwrap();
        }
        std::mem::take(&mut self.shared.acknowledged.lock().unwrap())
    }
}

/// Whether an orderer acknowledged a message; whatever else happens is for the client to live with.
async fn is_ordered(mut client: AtomicBroadcastClient<Channel>, envelope: &Envelope) -> bool {
    let asking = async {
        let mut responses = client.broadcast(tokio_stream::once(envelope.clone())).await.ok()?.into_inner();
        responses.message().await.ok()?
    };
    match tokio::time::timeout(ANSWER_WAIT, asking).await {
        Ok(Some(response)) => {
            assert!(
                matches!(response.status(), Status::Success | Status::ServiceUnavailable),
                "{response:?}"
            );
            if response.status() != Status::Success {
                // A moment for an election.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            response.status() == Status::Success
        }
        Ok(None) | Err(_) => {
            tokio::time::sleep(Duration::from_millis(20)).await;
            false
        }
    }
}

/// Checks that orderers have the same linked blocks, and every acknowledged message in them.
pub(crate) async fn assert_nothing_lost(network: &Network, orderers: &[usize], acknowledged: &[Bytes]) {
    let mut height = 0;
    for index in orderers {
        height = height.max(network.height(*index).await);
    }
    let mut first: Option<Vec<Block>> = None;
    for index in orderers {
        network.block(*index, height - 1).await;
        let blocks = network.blocks(*index).await;
        assert_linked(&blocks);
        let ordered: HashSet<Bytes> =
            blocks.iter().flat_map(|block| block::envelopes(block).to_vec()).collect();
        let lost = acknowledged.iter().filter(|envelope| !ordered.contains(*envelope)).count();
        assert_eq!(lost, 0, "orderer {index} lacks {lost} of {} acknowledged messages", acknowledged.len());
        let headers =
            |blocks: &[Block]| -> Vec<_> { blocks.iter().map(|block| block.header.clone()).collect() };
        if let Some(first) = &first {
            let common = first.len().min(blocks.len());
            assert_eq!(headers(&first[..common]), headers(&blocks[..common]));
        } else {
            first = Some(blocks);
        }
    }
}

fn assert_linked(blocks: &[Block]) {
    for pair in blocks.windows(2) {
        let previous = pair[0].header.as_ref().unwrap();
        let header = pair[1].header.as_ref().unwrap();
        assert_eq!(header.number, previous.number + 1);
        assert_eq!(header.previous_hash, consort_crypto::preimage::block_hash(previous).as_slice());
    }
}
