//! ChaincodeEvents: the events of one chaincode from a position on, block by block.

use std::time::Duration;

use consort_protos::fabric::gateway::{
    ChaincodeEventsRequest, ChaincodeEventsResponse, SignedChaincodeEventsRequest,
};
use consort_protos::fabric::orderer::{SeekPosition, seek_position};
use consort_protos::fabric::protos::{ChaincodeEvent, TxValidationCode};
use consort_protos::transaction::Transaction;
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Gateway;
use super::access::Access;
use crate::channel::{BlockCursor, ChannelHandle, CommittedBlock};
use consort_node::dial::with_causes;

/// Resource of the access control list.
const RESOURCE: &str = "gateway/ChaincodeEvents";

/// Answers that wait for a client, beside what the transport holds. They are parts of blocks, so few.
pub(super) const RESPONSES_IN_FLIGHT: usize = 2;

type Answer = Result<ChaincodeEventsResponse, Status>;

/// The stream of answers.
pub(super) type EventStream = ReceiverStream<Answer>;

impl Gateway {
    /// Starts a stream of events; it ends with the caller, with the channel, or when the caller may not read any more.
    pub(super) fn chaincode_event_stream(
        &self,
        signed: SignedChaincodeEventsRequest,
        waiter: OwnedSemaphorePermit,
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
        let access = self.permitted(
            &request.channel_id,
            RESOURCE,
            request.identity,
            signed.request,
            signed.signature,
        )?;
        let (first, skip) =
            start(access.channel(), request.start_position.as_ref(), request.after_transaction_id)?;
        let blocks = access.channel().blocks_from(first);
        let reader = EventReader { access, blocks, chaincode: request.chaincode_id, skip, _waiter: waiter };
        let (answers, stream) = mpsc::channel(RESPONSES_IN_FLIGHT + 1);
        let last_word = answers.clone().try_reserve_owned().expect("invariant: a new queue is empty");
        let (cancelled, wait) = (self.tasks.cancelled(), self.slow_reader_wait);
        self.tasks.spawn("chaincode events", false, async move {
            tokio::select! {
                () = cancelled.cancelled() => {}
                () = answers.closed() => {}
                reason = reader.run(&answers, wait) => drop(last_word.send(Err(reason))),
            }
        });
        Ok(ReceiverStream::new(stream))
    }
}

/// The first block to look at, and what of it the caller knows already. A transaction named as seen beats the position,
/// when the ledger knows it.
fn start(
    channel: &ChannelHandle,
    position: Option<&SeekPosition>,
    after: String,
) -> Result<(u64, Option<Skip>), Status> {
    if !after.is_empty()
        && let Some((location, _)) =
            channel.ledger().transaction(&after).map_err(|error| Status::aborted(with_causes(&error)))?
    {
        let block = location.block.get();
        return Ok((block, Some(Skip { tx_id: after, block: Some(block) })));
    }
    let first = match position.and_then(|position| position.r#type.as_ref()) {
        None | Some(seek_position::Type::NextCommit(_)) => channel.ledger().height(),
        Some(seek_position::Type::Specified(specified)) => specified.number,
        Some(seek_position::Type::Newest(_)) => {
            return Err(Status::invalid_argument(
                "invalid start position type: *orderer.SeekPosition_Newest",
            ));
        }
        Some(seek_position::Type::Oldest(_)) => {
            return Err(Status::invalid_argument(
                "invalid start position type: *orderer.SeekPosition_Oldest",
            ));
        }
    };
    let skip = (!after.is_empty()).then_some(Skip { tx_id: after, block: None });
    Ok((first, skip))
}

/// The transaction that the caller has seen last, whatever became of it and whether it had an event or not.
struct Skip {
    tx_id: String,
    /// Its block, if it is committed: nothing of later blocks is skipped.
    block: Option<u64>,
}

struct EventReader {
    access: Access,
    blocks: BlockCursor,
    chaincode: String,
    /// Events up to and including this transaction's are known to the caller.
    skip: Option<Skip>,
    _waiter: OwnedSemaphorePermit,
}

impl EventReader {
    /// Hands over events until something ends the stream, and returns what.
    async fn run(mut self, answers: &mpsc::Sender<Answer>, wait: Duration) -> Status {
        loop {
            let response = match self.next().await {
                Ok(response) => response,
                Err(status) => return status,
            };
            match tokio::time::timeout(wait, answers.send(Ok(response))).await {
                Ok(Ok(())) => {}
                Ok(Err(_closed)) => return Status::cancelled("the client is gone"),
                Err(_elapsed) => return slow(wait),
            }
        }
    }

    async fn next(&mut self) -> Result<ChaincodeEventsResponse, Status> {
        loop {
            let block = self.blocks.next().await.map_err(|error| Status::aborted(with_causes(&error)))?;
            self.access.check()?;
            let events = self.events_of(&block);
            if !events.is_empty() {
                return Ok(ChaincodeEventsResponse { events, block_number: block.number().get() });
            }
        }
    }

    fn events_of(&mut self, block: &CommittedBlock) -> Vec<ChaincodeEvent> {
        self.skip.take_if(|skip| skip.block.is_some_and(|last| block.number().get() > last));
        let mut events = Vec::new();
        for (transaction, code) in block.transactions().iter().zip(block.codes()) {
            let Some(transaction) = transaction else { continue };
            if let Some(skip) = &self.skip {
                if skip.tx_id == transaction.tx_id {
                    self.skip = None;
                }
                continue;
            }
            let Some(event) = event_of(transaction) else { continue };
            if *code == TxValidationCode::Valid && event.chaincode_id == self.chaincode {
                events.push(event.clone());
            }
        }
        events
    }
}

/// What a client reads that left its events waiting, once it reads again.
fn slow(wait: Duration) -> Status {
    let seconds = wait.as_secs();
    tracing::info!(seconds, "a reader that took no events for so many seconds is sent away");
    Status::resource_exhausted(format!(
        "no event was taken for {seconds} s: read faster, and ask again from the last event on"
    ))
}

/// The event of an endorser transaction, if it has a complete one.
pub(crate) fn event_of(transaction: &Transaction) -> Option<&ChaincodeEvent> {
    let event = transaction.invocation()?.event.as_ref()?;
    let complete = !event.chaincode_id.is_empty() && !event.event_name.is_empty() && !event.tx_id.is_empty();
    complete.then_some(event)
}
