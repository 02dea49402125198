//! Chaincode events as a stream.

use bytes::Bytes;
use consort_protos::fabric::gateway::{ChaincodeEventsRequest, SignedChaincodeEventsRequest};
use consort_protos::fabric::orderer::{SeekNextCommit, SeekPosition, SeekSpecified, seek_position};
use futures::stream::{self, BoxStream, StreamExt};
use prost::Message;

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::gateway::Network;

/// An event that a valid transaction emitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChaincodeEvent {
    /// Block that holds the transaction.
    pub block: u64,
    /// Transaction id.
    pub tx_id: String,
    /// Chaincode that emitted it.
    pub chaincode: String,
    /// Name given by the chaincode.
    pub name: String,
    /// Content given by the chaincode.
    pub payload: Bytes,
}

/// Which events to receive; [`EventStream::open`] begins.
#[derive(Debug, Clone)]
pub struct EventStream {
    network: Network,
    chaincode: String,
    start: Option<u64>,
    after: String,
}

impl EventStream {
    pub(crate) fn new(network: Network, chaincode: String) -> Self {
        Self { network, chaincode, start: None, after: String::new() }
    }

    /// Begins with this block instead of the next one to be committed.
    #[must_use]
    pub fn from_block(mut self, block: u64) -> Self {
        self.start = Some(block);
        self
    }

    /// Skips everything up to and including this transaction, where an earlier run left off.
    #[must_use]
    pub fn after_transaction(mut self, tx_id: impl Into<String>) -> Self {
        self.after = tx_id.into();
        self
    }

    /// Goes on where a checkpoint was saved; an empty one changes nothing.
    #[must_use]
    pub fn from_checkpoint(mut self, checkpoint: &Checkpoint) -> Self {
        if let Some(block) = checkpoint.block {
            self.start = Some(block);
            self.after = checkpoint.tx_id.clone().unwrap_or_default();
        }
        self
    }

    /// Opens the stream. It ends with an error when the connection is lost, and never by itself.
    ///
    /// # Errors
    /// [`Error::Refused`] when the gateway does not allow it; [`Error::Sign`].
    pub async fn open(self) -> Result<BoxStream<'static, Result<ChaincodeEvent, Error>>, Error> {
        let inner = &self.network.gateway().inner;
        let start = match self.start {
            Some(number) => seek_position::Type::Specified(SeekSpecified { number }),
            None => seek_position::Type::NextCommit(SeekNextCommit {}),
        };
        let request = ChaincodeEventsRequest {
            channel_id: self.network.channel().to_owned(),
            chaincode_id: self.chaincode,
            identity: inner.identity.serialized().clone(),
            start_position: Some(SeekPosition { r#type: Some(start) }),
            after_transaction_id: self.after,
        };
        let request = Bytes::from(request.encode_to_vec());
        let signature = inner.identity.sign(&request)?;
        let answer =
            inner.client.clone().chaincode_events(SignedChaincodeEventsRequest { request, signature }).await;
        let responses = answer.map_err(|status| Error::refused("chaincode events", &status))?.into_inner();
        let events = responses.flat_map(|response| {
            let events: Vec<Result<ChaincodeEvent, Error>> = match response {
                Ok(response) => {
                    let block = response.block_number;
                    let event = |event: consort_protos::fabric::protos::ChaincodeEvent| ChaincodeEvent {
                        block,
                        tx_id: event.tx_id,
                        chaincode: event.chaincode_id,
                        name: event.event_name,
                        payload: event.payload,
                    };
                    response.events.into_iter().map(|raw| Ok(event(raw))).collect()
                }
                Err(status) => vec![Err(Error::refused("chaincode events", &status))],
            };
            stream::iter(events)
        });
        Ok(events.boxed())
    }
}
