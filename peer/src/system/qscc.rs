//! `qscc`: blocks and transactions of a channel, by number, hash and id; and the newest attestation of its books, which Fabric has not.

use std::sync::Arc;

use consort_protos::fabric::common::{Block, Envelope};
use consort_protos::fabric::protos::{ProcessedTransaction, Response};
use consort_protos::ids::BlockNumber;
use prost::Message;

use super::{SystemCall, channel, failure, success};
use crate::channel::ChannelHandle;
use crate::endorser::Access;
use crate::registry::{Channels, with_causes};

/// The name under which it is called.
pub const QSCC: &str = "qscc";

/// The query system chaincode. Shared as `Arc`.
#[derive(Debug)]
pub struct Qscc {
    channels: Arc<Channels>,
    access: Arc<Access>,
}

impl Qscc {
    /// The chaincode over a peer's channels.
    #[must_use]
    pub fn new(channels: Arc<Channels>, access: Arc<Access>) -> Self {
        Self { channels, access }
    }

    /// Answers a call; failures are responses.
    #[must_use]
    pub fn invoke(&self, call: &SystemCall<'_>) -> Response {
        self.answer(call).map_or_else(failure, success)
    }

    fn answer(&self, call: &SystemCall<'_>) -> Result<Vec<u8>, String> {
        if call.arguments.len() < 2 {
            return Err(format!("Incorrect number of arguments, {}", call.arguments.len()));
        }
        let (function, name) = (call.function(), call.text(1));
        let handle = channel(&self.channels, &name)?;
        self.access
            .channel(&handle.bundle(), &format!("{QSCC}/{function}"), call.creator)
            .map_err(|reason| format!("access denied for [{function}][{name}]: [{reason}]"))?;
        if function == "GetChainInfo" {
            return Ok(handle.ledger().info().encode_to_vec());
        }
        if function == "GetAttestation" {
            return attestation(&handle);
        }
        if call.arguments.len() < 3 {
            return Err(format!("missing 3rd argument for {function}"));
        }
        match function.as_str() {
            "GetBlockByNumber" => block_by_number(&handle, &call.text(2)),
            "GetBlockByHash" => {
                let hash = &call.arguments[2];
                let shown = hex::encode(&hash[..hash.len().min(64)]);
                let found = handle.ledger().block_by_hash(hash);
                let missing = format!("no such block hash [{shown}] in index");
                found_block(found, &format!("Failed to get block hash {shown}"), &missing)
            }
            "GetBlockByTxID" => {
                let tx_id = call.text(2);
                let found = handle.ledger().block_by_tx(&tx_id);
                let missing = format!("no such transaction ID [{tx_id}] in index");
                found_block(found, &format!("Failed to get block for txID {tx_id}"), &missing)
            }
            "GetTransactionByID" => transaction(&handle, &call.text(2)),
            other => Err(format!("Requested function {other} not found.")),
        }
    }
}

/// Ours: what enough peers have signed together about the books (`consort.attestations.Attestation`).
fn attestation(handle: &ChannelHandle) -> Result<Vec<u8>, String> {
    let attestation = handle.attestation().ok_or_else(|| {
        format!(
            "channel {} has no attestation yet: peers that satisfy {} have to sign one height with BLS keys (`membership.attest_every_blocks` in their configuration)",
            handle.id(),
            consort_channel_config::attestation::POLICY
        )
    })?;
    Ok(attestation.encode_to_vec())
}

/// The largest number stands for the newest block, as in Fabric (`common/ledger/blkstorage/blockfile_mgr.go`).
fn block_by_number(handle: &ChannelHandle, text: &str) -> Result<Vec<u8>, String> {
    let asked: u64 =
        text.parse().map_err(|error| format!("Failed to parse block number with error {error}"))?;
    let number = if asked == u64::MAX { handle.ledger().height().saturating_sub(1) } else { asked };
    let found = handle.ledger().block(BlockNumber::new(number));
    let missing = format!("no such block number [{number}] in index");
    found_block(found, &format!("Failed to get block number {number}"), &missing)
}

/// `failure` says what failed, `missing` what is said of a block that is not there.
fn found_block(
    found: Result<Option<Block>, consort_ledger::Error>,
    failure: &str,
    missing: &str,
) -> Result<Vec<u8>, String> {
    match found {
        Ok(Some(block)) => Ok(block.encode_to_vec()),
        Ok(None) => Err(format!("{failure}, error {missing}")),
        Err(error) => Err(format!("{failure}, error {}", with_causes(&error))),
    }
}

fn transaction(handle: &ChannelHandle, tx_id: &str) -> Result<Vec<u8>, String> {
    let missing = |reason: &str| format!("Failed to get transaction with id {tx_id}, error {reason}");
    let (envelope, code) = handle
        .ledger()
        .transaction_envelope(tx_id)
        .map_err(|error| missing(&with_causes(&error)))?
        .ok_or_else(|| missing(&format!("no such transaction ID [{tx_id}] in index")))?;
    let envelope = Envelope::decode(envelope).map_err(|error| missing(&error.to_string()))?;
    Ok(ProcessedTransaction { transaction_envelope: Some(envelope), validation_code: code.into() }
        .encode_to_vec())
}
