//! Where a channel's blocks can come from: its orderers, and the peers of the own organisation.
//!
//! Blocks prove themselves (header link, orderers' signatures), so a peer is as good a source as an orderer. Peers of other
//! organisations are not asked: their channel policies may not let them, and the own ones can always be added.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use consort_msp::SigningIdentity;
use consort_node::Clock;
use consort_node::dial::{Dialer, with_causes};
use consort_node::renewal::Current;
use consort_node::server::MESSAGE_BYTES_MAX;
use consort_protos::fabric::common::{self, Block, BlockMetadataIndex};
use consort_protos::fabric::protos::deliver_client::DeliverClient;
use consort_protos::fabric::{orderer, protos};
use futures::StreamExt;
use futures::stream::BoxStream;
use rand::seq::SliceRandom;
use tokio::sync::watch;

use super::orderers::{OrdererEndpoint, Orderers};
use super::seek::{self, Wanted};
use crate::channel::ChannelHandle;
use crate::config::{DeliverConfig, Preferred};
use crate::connections::{Connections, call_text};
use crate::gateway::{Directory, Member};

/// How often a peer that follows another one by preference asks an orderer whether it misses something.
const LOOK_AT_ORDERERS_EVERY: Duration = Duration::from_secs(5);

/// How long a block that exists takes to arrive, at most.
const EXISTING_BLOCK_WAIT: Duration = Duration::from_millis(500);

/// A node that can deliver the channel's blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// An orderer of the channel's configuration.
    Orderer(OrdererEndpoint),
    /// A peer of the own organisation.
    Peer {
        /// `host:port`.
        address: String,
    },
}

impl Source {
    /// Its `host:port`.
    pub(super) fn address(&self) -> &str {
        match self {
            Self::Orderer(orderer) => &orderer.address,
            Self::Peer { address } => address,
        }
    }

    /// What it is, for people.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Orderer(_) => "orderer",
            Self::Peer { .. } => "peer",
        }
    }
}

/// The blocks of a source, from the one that was asked for on; an error is a text, and the last item.
pub(super) type Blocks = BoxStream<'static, Result<Block, String>>;

/// Finds and opens the sources of one channel. Shared as `Arc`.
pub(super) struct Sources {
    pub(super) channel: Arc<ChannelHandle>,
    pub(super) orderers: Orderers,
    pub(super) connections: Arc<Connections>,
    pub(super) directory: Arc<dyn Directory>,
    pub(super) signer: Current<SigningIdentity>,
    pub(super) dialer: Dialer,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) config: DeliverConfig,
}

impl Sources {
    /// All sources, the preferred kind first; within a kind in random order, so that the peers of a channel spread over
    /// the orderers.
    pub(super) fn all(&self) -> Vec<Source> {
        let mut orderers: Vec<Source> =
            self.orderers.of(&self.channel.bundle()).into_iter().map(Source::Orderer).collect();
        let mut peers: Vec<Source> = self
            .own_peers()
            .into_iter()
            // One that is behind has nothing to give.
            .filter(|peer| peer.height >= self.channel.ledger().height())
            .map(|peer| Source::Peer { address: peer.endpoint })
            .collect();
        orderers.shuffle(&mut rand::rng());
        peers.shuffle(&mut rand::rng());
        match self.config.prefer {
            Preferred::Orderers => orderers.into_iter().chain(peers).collect(),
            Preferred::Peers => peers.into_iter().chain(orderers).collect(),
        }
    }

    /// Whether the channel still has this source.
    pub(super) fn offers(&self, source: &Source) -> bool {
        match source {
            Source::Orderer(orderer) => self.orderers.of(&self.channel.bundle()).contains(orderer),
            Source::Peer { .. } => true,
        }
    }

    /// The highest height that a peer of the own organisation says it has. Others could lie to keep this peer busy.
    pub(super) fn height_of_others(&self) -> u64 {
        self.own_peers().iter().map(|peer| peer.height).max().unwrap_or(0)
    }

    /// Changes when something was heard of another peer.
    pub(super) fn heard(&self) -> watch::Receiver<()> {
        self.directory.heard()
    }

    fn own_peers(&self) -> Vec<Member> {
        let signer = self.signer.get();
        let mut members = self.directory.members(&self.channel);
        members.retain(|member| !member.local && member.msp_id == *signer.msp_id());
        members
    }

    /// Opens the stream of a source.
    ///
    /// # Errors
    /// A text, also when the source takes too long.
    pub(super) async fn open(&self, source: &Source, first: u64) -> Result<Blocks, String> {
        self.ask(source, Wanted::From(first)).await
    }

    /// How many blocks an orderer has; 0 when it does not say, and for peers, which say it in the membership exchange.
    pub(super) async fn height_of(&self, source: &Source) -> u64 {
        if let Source::Peer { .. } = source {
            return 0;
        }
        let Ok(mut blocks) = self.ask(source, Wanted::Newest).await else { return 0 };
        match tokio::time::timeout(EXISTING_BLOCK_WAIT, blocks.next()).await {
            Ok(Some(Ok(block))) => consort_protos::block::number(&block).get().saturating_add(1),
            _ => 0,
        }
    }

    async fn ask(&self, source: &Source, wanted: Wanted) -> Result<Blocks, String> {
        let limit = Duration::from_millis(self.config.connect_timeout_ms);
        tokio::time::timeout(limit, self.request(source, wanted))
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} ms", limit.as_millis())))
    }

    async fn request(&self, source: &Source, wanted: Wanted) -> Result<Blocks, String> {
        let request = seek::request(
            self.channel.id(),
            wanted,
            &self.signer.get(),
            self.dialer.identity().map(|identity| identity.certificate_hash()).unwrap_or_default(),
            self.clock.now(),
        )
        .map_err(|error| format!("the peer's key cannot sign: {}", with_causes(&error)))?;
        // The request stream stays open: a source ends the delivery when it is closed.
        let requests = tokio_stream::StreamExt::chain(tokio_stream::once(request), tokio_stream::pending());
        match source {
            Source::Orderer(orderer) => {
                let mut client = self.orderers.client(orderer)?;
                let answers = client.deliver(requests).await.map_err(|status| call_text(&status))?;
                Ok(answers.into_inner().map(|answer| of_orderer(answer).map(undecided)).boxed())
            }
            Source::Peer { address } => {
                let roots = self.channel.bundle().tls_roots_of(self.signer.get().msp_id());
                let connection = self.connections.to(address, &roots).map_err(|error| with_causes(&error))?;
                let mut client = DeliverClient::new(connection).max_decoding_message_size(MESSAGE_BYTES_MAX);
                let answers = client.deliver(requests).await.map_err(|status| call_text(&status))?;
                Ok(answers.into_inner().map(|answer| of_peer(answer).map(undecided)).boxed())
            }
        }
    }

    /// Waits, while a peer is followed, for an orderer to go to: where orderers are preferred, one that answers; else one
    /// that has a block which the peer did not bring (two peers may be following each other).
    pub(super) async fn orderer_is_better(&self) -> Source {
        let pause = match self.config.prefer {
            Preferred::Orderers => Duration::from_millis(self.config.reconnect_max_ms),
            Preferred::Peers => LOOK_AT_ORDERERS_EVERY,
        };
        loop {
            tokio::time::sleep(pause).await;
            for orderer in self.orderers.of(&self.channel.bundle()) {
                let source = Source::Orderer(orderer);
                let Ok(mut blocks) = self.open(&source, self.channel.ledger().height()).await else {
                    continue;
                };
                if self.config.prefer == Preferred::Orderers {
                    return source;
                }
                let first = tokio::time::timeout(EXISTING_BLOCK_WAIT, blocks.next()).await;
                if let Ok(Some(Ok(block))) = first
                    && consort_protos::block::number(&block).get() >= self.channel.ledger().height()
                {
                    return source;
                }
            }
        }
    }
}

/// The block as the orderers made it: codes and commit hash are for this peer to find.
fn undecided(mut block: Block) -> Block {
    for index in [BlockMetadataIndex::TransactionsFilter, BlockMetadataIndex::CommitHash] {
        if block.metadata.as_ref().is_some_and(|metadata| metadata.metadata.len() > index as usize) {
            consort_protos::block::set_metadata(&mut block, index, Bytes::new());
        }
    }
    block
}

fn of_orderer(answer: Result<orderer::DeliverResponse, tonic::Status>) -> Result<Block, String> {
    use orderer::deliver_response::Type;
    match answer.map_err(|status| call_text(&status))?.r#type {
        Some(Type::Block(block)) => Ok(block),
        Some(Type::Status(status)) => Err(ended(status)),
        None => Err("an empty message came".to_owned()),
    }
}

fn of_peer(answer: Result<protos::DeliverResponse, tonic::Status>) -> Result<Block, String> {
    use protos::deliver_response::Type;
    match answer.map_err(|status| call_text(&status))?.r#type {
        Some(Type::Block(block)) => Ok(block),
        Some(Type::Status(status)) => Err(ended(status)),
        _ => Err("something else than a block came".to_owned()),
    }
}

fn ended(status: i32) -> String {
    let name = common::Status::try_from(status)
        .map_or_else(|_| status.to_string(), |known| known.as_str_name().to_owned());
    format!("the delivery ended with status {name}")
}
