//! ChaincodeEvents: the events of one chaincode from a position on, block by block.

use std::pin::Pin;

use consort_protos::fabric::gateway::{
    ChaincodeEventsRequest, ChaincodeEventsResponse, SignedChaincodeEventsRequest,
};
use consort_protos::fabric::orderer::{SeekPosition, seek_position};
use consort_protos::fabric::protos::{ChaincodeEvent, TxValidationCode};
use consort_protos::transaction::Transaction;
use futures::Stream;
use prost::Message;
use tonic::Status;

use super::Gateway;
use crate::channel::{BlockCursor, ChannelHandle, CommittedBlock};
use consort_node::dial::with_causes;

/// Resource of the access control list.
const RESOURCE: &str = "gateway/ChaincodeEvents";

/// The stream of answers.
pub(super) type EventStream = Pin<Box<dyn Stream<Item = Result<ChaincodeEventsResponse, Status>> + Send>>;

impl Gateway {
    /// Starts a stream of events; it ends only with the caller or with the channel.
    pub(super) fn chaincode_event_stream(
        &self,
        signed: SignedChaincodeEventsRequest,
    ) -> Result<EventStream, Status> {
        let invalid =
            |reason: String| Status::invalid_argument(format!("invalid chaincode events request: {reason}"));
        let request = ChaincodeEventsRequest::decode(signed.request.clone())
            .map_err(|error| invalid(error.to_string()))?;
        if request.identity.is_empty() {
            return Err(Status::invalid_argument("no identity provided"));
        }
        if request.channel_id.is_empty() {
            return Err(Status::invalid_argument("no channel ID provided"));
        }
        if request.chaincode_id.is_empty() {
            return Err(Status::invalid_argument("no chaincode ID provided"));
        }
        let channel = self.permitted(
            &request.channel_id,
            RESOURCE,
            request.identity,
            signed.request,
            signed.signature,
        )?;
        let first = start(&channel, request.start_position.as_ref(), &request.after_transaction_id)?;
        let reader = EventReader {
            blocks: channel.blocks_from(first),
            chaincode: request.chaincode_id,
            skip_through: Some(request.after_transaction_id).filter(|tx_id| !tx_id.is_empty()),
        };
        Ok(Box::pin(futures::stream::try_unfold(reader, |mut reader| async move {
            let response = reader.next().await?;
            Ok(Some((response, reader)))
        })))
    }
}

/// The first block to look at. A transaction named as seen beats the position, when the ledger knows it.
fn start(channel: &ChannelHandle, position: Option<&SeekPosition>, after: &str) -> Result<u64, Status> {
    if !after.is_empty()
        && let Some((location, _)) =
            channel.ledger().transaction(after).map_err(|error| Status::aborted(with_causes(&error)))?
    {
        return Ok(location.block.get());
    }
    match position.and_then(|position| position.r#type.as_ref()) {
        None | Some(seek_position::Type::NextCommit(_)) => Ok(channel.ledger().height()),
        Some(seek_position::Type::Specified(specified)) => Ok(specified.number),
        Some(seek_position::Type::Newest(_)) => {
            Err(Status::invalid_argument("invalid start position type: *orderer.SeekPosition_Newest"))
        }
        Some(seek_position::Type::Oldest(_)) => {
            Err(Status::invalid_argument("invalid start position type: *orderer.SeekPosition_Oldest"))
        }
    }
}

struct EventReader {
    blocks: BlockCursor,
    chaincode: String,
    /// Events up to and including this transaction's are known to the caller.
    skip_through: Option<String>,
}

impl EventReader {
    async fn next(&mut self) -> Result<ChaincodeEventsResponse, Status> {
        loop {
            let block = self.blocks.next().await.map_err(|error| Status::aborted(with_causes(&error)))?;
            let events = self.events_of(&block);
            if !events.is_empty() {
                return Ok(ChaincodeEventsResponse { events, block_number: block.number().get() });
            }
        }
    }

    fn events_of(&mut self, block: &CommittedBlock) -> Vec<ChaincodeEvent> {
        let mut events = Vec::new();
        for (transaction, code) in block.transactions().iter().zip(block.codes()) {
            let Some(event) = transaction.as_ref().and_then(|transaction| event_of(transaction)) else {
                continue;
            };
            if *code != TxValidationCode::Valid || event.chaincode_id != self.chaincode {
                continue;
            }
            if let Some(last_seen) = &self.skip_through {
                if *last_seen == event.tx_id {
                    self.skip_through = None;
                }
                continue;
            }
            events.push(event.clone());
        }
        events
    }
}

/// The event of an endorser transaction, if it has a complete one.
pub(crate) fn event_of(transaction: &Transaction) -> Option<&ChaincodeEvent> {
    let event = transaction.invocation()?.event.as_ref()?;
    let complete = !event.chaincode_id.is_empty() && !event.event_name.is_empty() && !event.tx_id.is_empty();
    complete.then_some(event)
}
