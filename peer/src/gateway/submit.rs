//! Submit: hand a signed transaction to the ordering service.

use std::time::Duration;

use consort_protos::fabric::common;
use consort_protos::fabric::gateway::{ErrorDetail, SubmitRequest, SubmitResponse};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rand::seq::SliceRandom;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::details::status;
use super::request::within;
use super::{Gateway, entries};
use crate::channel::ChannelHandle;
use crate::deliver_client::OrdererEndpoint;

/// What was not finished when the caller's time was over.
pub(super) const TIMEOUT: &str = "submit timeout expired while broadcasting to ordering service";

/// Consensus type of a channel whose orderers may lie.
const BFT: &str = "BFT";

/// What such an orderer says that has the transaction already, from another orderer or an earlier attempt.
const KNOWN_ALREADY: &str = "failed to submit request: request already exists";

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
        let envelope = entries::for_orderers(&channel, envelope);
        let mut orderers = self.orderers.endpoints(&channel);
        if orderers.is_empty() {
            return Err(Status::unavailable("no orderer nodes available"));
        }
        orderers.shuffle(&mut rand::rng());
        let limit = Instant::now() + self.limits.broadcast_timeout();
        let deadline = Some(deadline.map_or(limit, |deadline| deadline.min(limit)));
        if channel.bundle().orderer().consensus_type == BFT {
            return within(deadline, TIMEOUT, self.offer_to_quorum(&channel, &orderers, &envelope)).await;
        }
        within(deadline, TIMEOUT, self.offer_until_taken(&channel, &orderers, &envelope)).await
    }

    /// Offers the transaction to all orderers at once; it counts as taken when so many have it that an honest one is among
    /// any quorum (Fabric `internal/pkg/gateway/submit.go`).
    async fn offer_to_quorum(
        &self,
        channel: &ChannelHandle,
        orderers: &[OrdererEndpoint],
        envelope: &common::Envelope,
    ) -> Result<SubmitResponse, Status> {
        let quorum = Quorum::of(orderers.len());
        let mut answers: FuturesUnordered<_> = orderers
            .iter()
            .map(
                |orderer| async move { (orderer, self.orderers.broadcast(channel, orderer, envelope).await) },
            )
            .collect();
        let (mut taken, mut details) = (0, Vec::new());
        while let Some((orderer, answer)) = answers.next().await {
            let reason = match answer {
                Ok(answer)
                    if answer.status == common::Status::Success as i32 || answer.info == KNOWN_ALREADY =>
                {
                    taken += 1;
                    if taken >= quorum.needed {
                        return Ok(SubmitResponse {});
                    }
                    continue;
                }
                Ok(answer) => unsuccessful(answer.status, &answer.info),
                Err(reason) => reason,
            };
            details.push(refused_by(orderer, reason));
            if details.len() > orderers.len() - quorum.needed {
                break;
            }
        }
        let message = "insufficient number of orderers could successfully process transaction to satisfy quorum requirement";
        Err(status(Code::Unavailable, message, &details))
    }

    /// Asks again for a while when no orderer can take the transaction: an election of their leader passes. A second copy
    /// in the order does no harm, since a transaction id counts once.
    async fn offer_until_taken(
        &self,
        channel: &ChannelHandle,
        orderers: &[OrdererEndpoint],
        envelope: &common::Envelope,
    ) -> Result<SubmitResponse, Status> {
        let limit = Instant::now() + self.limits.orderer_wait();
        // What each orderer said in any round: a client must hear of an answer that was lost, also when the next round was refused.
        let mut reasons = Vec::new();
        loop {
            if let Some(answer) = self.offer(channel, orderers, envelope, &mut reasons).await {
                return answer;
            }
            if Instant::now() + ROUND_PAUSE >= limit {
                let message = "no orderers could successfully process transaction";
                return Err(status(Code::Unavailable, message, &reasons));
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }

    /// One round. No answer when none of them can take the transaction now; their reasons join those of the rounds before.
    async fn offer(
        &self,
        channel: &ChannelHandle,
        orderers: &[OrdererEndpoint],
        envelope: &common::Envelope,
        reasons: &mut Vec<ErrorDetail>,
    ) -> Option<Result<SubmitResponse, Status>> {
        for orderer in orderers {
            let reason = match self.orderers.broadcast(channel, orderer, envelope).await {
                Ok(answer) if answer.status == common::Status::Success as i32 => {
                    return Some(Ok(SubmitResponse {}));
                }
                Ok(answer) => {
                    let reason = unsuccessful(answer.status, &answer.info);
                    if (400..500).contains(&answer.status) {
                        return Some(Err(Status::aborted(reason)));
                    }
                    reason
                }
                Err(reason) => reason,
            };
            let refused = refused_by(orderer, reason);
            if !reasons.contains(&refused) {
                reasons.push(refused);
            }
        }
        None
    }
}

/// How many of n orderers have to take a transaction when f of them may lie: ceil((n + f + 1) / 2) with f = (n - 1) / 3.
struct Quorum {
    needed: usize,
}

impl Quorum {
    fn of(orderers: usize) -> Self {
        let faulty = orderers.saturating_sub(1) / 3;
        Self { needed: (orderers + faulty + 1).div_ceil(2) }
    }
}

fn unsuccessful(status: i32, info: &str) -> String {
    let name = status_name(status);
    format!("received unsuccessful response from orderer: status={name}, info={info}")
}

fn refused_by(orderer: &OrdererEndpoint, reason: String) -> ErrorDetail {
    tracing::warn!(orderer = %orderer.address, %reason, "an orderer did not take a transaction");
    ErrorDetail {
        address: orderer.address.clone(),
        msp_id: orderer.msp_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        message: reason,
    }
}

/// The name of an orderer's status, or its number when it has none.
fn status_name(status: i32) -> String {
    common::Status::try_from(status)
        .map_or_else(|_| status.to_string(), |known| known.as_str_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_fabrics() {
        let needed = |orderers| Quorum::of(orderers).needed;
        assert_eq!([1, 3, 4, 7, 10].map(needed), [1, 2, 3, 5, 7]);
    }
}
