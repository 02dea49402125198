//! CommitStatus: the fate of a transaction, now or as soon as it is committed.

use consort_protos::fabric::gateway::{CommitStatusRequest, CommitStatusResponse, SignedCommitStatusRequest};
use consort_protos::fabric::protos::TxValidationCode;
use prost::Message;
use tonic::Status;

use super::Gateway;
use crate::channel::ChannelHandle;
use consort_node::dial::with_causes;

/// Resource of the access control list.
const RESOURCE: &str = "gateway/CommitStatus";

impl Gateway {
    /// Waits until the transaction is in a block and returns its code.
    pub(super) async fn commit_status_of(
        &self,
        signed: SignedCommitStatusRequest,
    ) -> Result<CommitStatusResponse, Status> {
        let request = CommitStatusRequest::decode(signed.request.clone())
            .map_err(|error| Status::invalid_argument(format!("invalid status request: {error}")))?;
        if request.identity.is_empty() {
            return Err(Status::invalid_argument("no identity provided"));
        }
        if request.channel_id.is_empty() {
            return Err(Status::invalid_argument("no channel ID provided"));
        }
        if request.transaction_id.is_empty() {
            return Err(Status::invalid_argument("transaction ID should not be empty"));
        }
        let access = self.permitted(
            &request.channel_id,
            RESOURCE,
            request.identity,
            signed.request,
            signed.signature,
        )?;
        wait_for(access.channel(), &request.transaction_id).await
    }
}

async fn wait_for(channel: &ChannelHandle, tx_id: &str) -> Result<CommitStatusResponse, Status> {
    // Wait first: a commit between the look-up and the waiting would be missed for ever.
    let mut awaited = channel.fates().wait(tx_id);
    // A block that is in the books and not published yet is told of in a moment, when readers find it.
    if let Some(found) = stored(channel, tx_id)?
        && found.block_number < *channel.watch_height().borrow()
    {
        return Ok(found);
    }
    let mut fault = channel.watch_fault();
    let stopped = async {
        match fault.wait_for(Option::is_some).await {
            Ok(fault) => fault.as_ref().map(ToString::to_string).unwrap_or_default(),
            Err(_closed) => "it is closed".to_owned(),
        }
    };
    tokio::select! {
        biased;
        fate = &mut awaited.fate => match fate {
            Ok((code, block)) => Ok(response(code, block.get())),
            Err(_closed) => Err(Status::aborted("the channel is closed")),
        },
        fault = stopped => Err(Status::aborted(format!("the channel stopped: {fault}"))),
    }
}

fn stored(channel: &ChannelHandle, tx_id: &str) -> Result<Option<CommitStatusResponse>, Status> {
    let found = channel.ledger().transaction(tx_id).map_err(|error| Status::aborted(with_causes(&error)))?;
    Ok(found.map(|(location, code)| response(code, location.block.get())))
}

fn response(code: TxValidationCode, block_number: u64) -> CommitStatusResponse {
    CommitStatusResponse { result: code as i32, block_number }
}
