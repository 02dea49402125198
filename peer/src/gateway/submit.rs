//! Submit: hand a signed transaction to the ordering service.

use std::time::Duration;

use consort_protos::fabric::common;
use consort_protos::fabric::gateway::{ErrorDetail, SubmitRequest, SubmitResponse};
use rand::seq::SliceRandom;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::Gateway;
use super::details::status;
use super::request::within;
use crate::deliver_client::OrdererEndpoint;

/// Pause between two rounds of asking all orderers: a fraction of an election, and no load.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

impl Gateway {
    /// Tries the channel's orderers in random order until one accepts the transaction. An orderer that finds fault with
    /// the transaction itself (4xx) ends the search, since the others would do the same.
    pub(super) async fn submit_envelope(
        &self,
        request: SubmitRequest,
        deadline: Option<Instant>,
    ) -> Result<SubmitResponse, Status> {
        let envelope = request
            .prepared_transaction
            .ok_or_else(|| Status::invalid_argument("a prepared transaction is required"))?;
        if envelope.signature.is_empty() {
            return Err(Status::invalid_argument("prepared transaction must be signed"));
        }
        let channel = self.channel(&request.channel_id).map_err(Status::failed_precondition)?;
        let mut orderers = self.orderers.endpoints(&channel);
        if orderers.is_empty() {
            return Err(Status::unavailable("no orderer nodes available"));
        }
        orderers.shuffle(&mut rand::rng());
        let work = self.offer_until_taken(&orderers, &envelope);
        let limit = Instant::now() + self.limits.broadcast_timeout();
        let deadline = Some(deadline.map_or(limit, |deadline| deadline.min(limit)));
        within(deadline, "submit timeout expired while broadcasting to ordering service", work).await
    }

    /// Asks again for a while when no orderer can take the transaction: an election of their leader passes. A second copy
    /// in the order does no harm, since a transaction id counts once.
    async fn offer_until_taken(
        &self,
        orderers: &[OrdererEndpoint],
        envelope: &common::Envelope,
    ) -> Result<SubmitResponse, Status> {
        let limit = Instant::now() + self.limits.orderer_wait();
        loop {
            let answer = self.offer(orderers, envelope).await;
            let passes = answer.as_ref().is_err_and(|status| status.code() == Code::Unavailable);
            if !passes || Instant::now() + ROUND_PAUSE >= limit {
                return answer;
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }

    async fn offer(
        &self,
        orderers: &[OrdererEndpoint],
        envelope: &common::Envelope,
    ) -> Result<SubmitResponse, Status> {
        let mut details = Vec::new();
        for orderer in orderers {
            let reason = match self.orderers.broadcast(orderer, envelope).await {
                Ok(answer) if answer.status == common::Status::Success as i32 => {
                    return Ok(SubmitResponse {});
                }
                Ok(answer) => {
                    let reason = format!(
                        "received unsuccessful response from orderer: status={}, info={}",
                        status_name(answer.status),
                        answer.info
                    );
                    if (400..500).contains(&answer.status) {
                        return Err(Status::aborted(reason));
                    }
                    reason
                }
                Err(reason) => reason,
            };
            tracing::warn!(orderer = %orderer.address, %reason, "an orderer did not take a transaction");
            details.push(ErrorDetail {
                address: orderer.address.clone(),
                msp_id: orderer.msp_id.as_ref().map(ToString::to_string).unwrap_or_default(),
                message: reason,
            });
        }
        Err(status(Code::Unavailable, "no orderers could successfully process transaction", &details))
    }
}

/// The name of an orderer's status, or its number when it has none.
fn status_name(status: i32) -> String {
    common::Status::try_from(status)
        .map_or_else(|_| status.to_string(), |known| known.as_str_name().to_owned())
}
