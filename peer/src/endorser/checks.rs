//! What a proposal must be before anything is executed, in Fabric's order and words (`core/endorser/endorser.go`, `msgvalidation.go`).

use std::time::Duration;

use consort_crypto::hash::HashAlgorithm;
use consort_msp::{IdentityError, MspManager};
use consort_protos::fabric::protos::{ProposalResponse, SignedProposal};
use consort_protos::proposal::Proposal;
use time::OffsetDateTime;

use super::{Accepted, Endorser, EndorserError, answer, is_system};
use crate::identities;
use crate::registry::with_causes;

/// How long a proposal waits for the block with its signer's entry: several blocks of a busy channel.
const ENTRY_WAIT: Duration = Duration::from_millis(500);

/// Access rule of proposals to an application's chaincode.
const PROPOSE: &str = "peer/Propose";

impl Endorser {
    /// Opens and checks a proposal. The inner error is a response: the channel is not here.
    pub(super) async fn accept(
        &self,
        signed: &SignedProposal,
    ) -> Result<Result<Accepted, ProposalResponse>, EndorserError> {
        let proposal = Proposal::open(signed).map_err(EndorserError::Invalid)?;
        check_time(&proposal, self.clock.now(), self.time_window)?;
        let channel = if proposal.channel.is_empty() {
            None
        } else {
            match self.surroundings.channels.get(&proposal.channel) {
                Some(channel) => Some(channel),
                None => return Ok(Err(answer::failure(format!("channel '{}' not found", proposal.channel)))),
            }
        };
        // A proposal without a channel has Fabric's hash.
        let hash = channel.as_ref().map(|channel| channel.bundle().hash_algorithm()).unwrap_or_default();
        check_headers(&proposal, hash).map_err(invalid)?;
        let msps = match &channel {
            Some(channel) => channel.bundle().msps().clone(),
            None => self.surroundings.access.local_msps(),
        };
        let signer = match &channel {
            Some(channel) => {
                identities::with_certificate_within(channel, &proposal.creator, ENTRY_WAIT).await
            }
            None => proposal.creator.clone(),
        };
        let creator = creator(&msps, &signer, &proposal, self.clock.now())?;
        if let Some(channel) = &channel {
            let duplicate = channel.ledger().contains_tx(&proposal.tx_id).map_err(|error| {
                EndorserError::Unavailable(format!("the ledger cannot be read: {}", with_causes(&error)))
            })?;
            if duplicate {
                return Err(EndorserError::Invalid(format!(
                    "duplicate transaction found [{}]. Creator [{}]",
                    proposal.tx_id,
                    hex::encode(&proposal.creator)
                )));
            }
            if !is_system(&proposal.chaincode.name) {
                self.surroundings
                    .access
                    .channel(&channel.bundle(), PROPOSE, &creator)
                    .map_err(EndorserError::Invalid)?;
            }
        }
        Ok(Ok(Accepted { proposal, creator, channel }))
    }
}

fn invalid(reason: impl std::fmt::Display) -> EndorserError {
    EndorserError::Invalid(format!("error validating proposal: {reason}"))
}

fn check_time(proposal: &Proposal, now: OffsetDateTime, window: Duration) -> Result<(), EndorserError> {
    let stamp = proposal.timestamp.unwrap_or_default();
    let client = i128::from(stamp.seconds) * 1_000_000_000 + i128::from(stamp.nanos);
    let difference = client.abs_diff(now.unix_timestamp_nanos());
    if difference <= window.as_nanos() {
        return Ok(());
    }
    Err(EndorserError::Unavailable(format!(
        "request unauthorized due to incorrect timestamp {}.{:09}, peer time {}.{:09}",
        stamp.seconds,
        stamp.nanos,
        now.unix_timestamp(),
        now.nanosecond()
    )))
}

fn check_headers(proposal: &Proposal, hash: HashAlgorithm) -> Result<(), String> {
    proposal.check_headers()?;
    let expected = hash.tx_id(&proposal.nonce, &proposal.creator);
    if proposal.tx_id != expected {
        return Err(format!("incorrectly computed txid '{}' -- expected '{expected}'", proposal.tx_id));
    }
    Ok(())
}

/// The creator, valid and with a signature that holds. Why not is for the log alone: the answer does not help guessing.
fn creator(
    msps: &MspManager,
    signer: &[u8],
    proposal: &Proposal,
    now: OffsetDateTime,
) -> Result<std::sync::Arc<consort_msp::Identity>, EndorserError> {
    let channel = &proposal.channel;
    let creator = msps.deserialize(signer).map_err(|error| {
        tracing::warn!(%channel, tx_id = %proposal.tx_id, %error, "creator of a proposal is unknown");
        invalid(format!("access denied: channel [{channel}] creator org unknown, creator is malformed"))
    })?;
    if creator.expires_at() < now {
        return Err(EndorserError::Unavailable("proposal client identity expired".to_owned()));
    }
    let holds: Result<(), IdentityError> =
        msps.validate(&creator).and_then(|()| creator.verify(&proposal.bytes, &proposal.signature));
    holds.map_err(|error| {
        tracing::warn!(%channel, tx_id = %proposal.tx_id, creator = %creator.name(), %error, "creator of a proposal is refused");
        invalid(format!("access denied: channel [{channel}] creator org [{}]", creator.msp_id()))
    })?;
    Ok(creator)
}
