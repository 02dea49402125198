//! CommitStatus: the fate of a transaction, now or as soon as it is committed.

use consort_protos::fabric::gateway::{CommitStatusRequest, CommitStatusResponse, SignedCommitStatusRequest};
use consort_protos::fabric::protos::TxValidationCode;
use prost::Message;
use tokio::sync::broadcast::error::RecvError;
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
    // Subscribe first: a commit between the look-up and the subscription would be missed for ever.
    let mut commits = channel.committed();
    let mut fault = channel.watch_fault();
    loop {
        if let Some(found) = stored(channel, tx_id)? {
            return Ok(found);
        }
        loop {
            if let Some(fault) = fault.borrow_and_update().as_ref() {
                return Err(Status::aborted(format!("the channel stopped: {fault}")));
            }
            let received = tokio::select! {
                received = commits.recv() => received,
                _changed = fault.changed() => continue,
            };
            match received {
                Ok(block) => {
                    if let Some(code) = block.outcome(tx_id) {
                        return Ok(response(code, block.number().get()));
                    }
                }
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return Err(Status::aborted("the channel is closed")),
            }
        }
    }
}

fn stored(channel: &ChannelHandle, tx_id: &str) -> Result<Option<CommitStatusResponse>, Status> {
    let found = channel.ledger().transaction(tx_id).map_err(|error| Status::aborted(with_causes(&error)))?;
    Ok(found.map(|(location, code)| response(code, location.block.get())))
}

fn response(code: TxValidationCode, block_number: u64) -> CommitStatusResponse {
    CommitStatusResponse { result: code as i32, block_number }
}
