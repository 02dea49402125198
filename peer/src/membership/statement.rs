//! What a peer says about itself in one channel, and who may say it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_msp::principal::{self, Role};
use consort_msp::{Identity, IdentityId, SigningIdentity};
use consort_protos::consort::attestations::Share;
use consort_protos::consort::peer::{Chaincode, PeerState, SignedMembership};
use consort_protos::ids::{ChannelId, MspId};
use prost::Message;
use time::OffsetDateTime;

use super::attestation::TOLD;

/// What the signature covers before the statement, so that it can be taken for nothing else.
const DOMAIN: &[u8] = b"consort.peer.Membership/1\0";
/// Largest statement, identity included: some 1 000 chaincodes. Nothing larger is kept or passed on.
const STATEMENT_BYTES_MAX: usize = 128 << 10;
/// Most chaincodes that one peer may list.
const CHAINCODES_MAX: usize = 1_000;
/// Longest endpoint: a DNS name of 253 characters, a colon and a port.
const ENDPOINT_BYTES_MAX: usize = 259;
/// Largest difference between a statement's time and the own clock. Generous to bad clocks; it only keeps old statements
/// from being shown again to a peer that has restarted.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(300);

/// Why a statement counts for nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum StatementError {
    /// It does not parse, or is out of bounds.
    #[error("malformed: {0}")]
    Malformed(String),
    /// It is about another channel.
    #[error("it is about another channel")]
    OtherChannel,
    /// It is too old, or from the future.
    #[error("its time differs by more than {} s from this peer's", CLOCK_DIFFERENCE_MAX.as_secs())]
    Time,
    /// Its author is no peer of the channel.
    #[error("its author is no peer of the channel: {0}")]
    Author(String),
}

/// What the own peer says.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) channel: ChannelId,
    pub(super) endpoint: String,
    pub(super) incarnation_ms: u64,
    pub(super) sequence: u64,
    pub(super) height: u64,
    /// Of the last block below the height; empty for the genesis block.
    pub(super) commit_hash: Bytes,
    pub(super) chaincodes: Vec<(String, String)>,
    pub(super) attestations: Vec<Share>,
}

impl Own {
    /// Signs the statement.
    pub(super) fn sign(
        self,
        signer: &SigningIdentity,
        now: OffsetDateTime,
    ) -> Result<SignedMembership, consort_crypto::Error> {
        let state = PeerState {
            channel: self.channel.to_string(),
            endpoint: self.endpoint,
            incarnation_ms: self.incarnation_ms,
            sequence: self.sequence,
            timestamp_ms: milliseconds(now),
            ledger_height: self.height,
            commit_hash: self.commit_hash,
            chaincodes: self
                .chaincodes
                .into_iter()
                .take(CHAINCODES_MAX)
                .map(|(name, version)| Chaincode { name, version })
                .collect(),
            attestations: self.attestations,
        };
        let state = Bytes::from(state.encode_to_vec());
        let signature = signer.sign(&signed_bytes(&state))?;
        Ok(SignedMembership { state, identity: signer.serialized().clone(), signature: signature.into() })
    }
}

/// A statement whose author is a peer of the channel and has signed it.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) author: IdentityId,
    pub(super) msp_id: MspId,
    pub(super) state: PeerState,
    /// As it came, to be passed on.
    pub(super) signed: SignedMembership,
}

impl Statement {
    /// Opens and checks a statement about the bundle's channel.
    pub(super) fn open(
        signed: SignedMembership,
        bundle: &ChannelBundle,
        now: OffsetDateTime,
    ) -> Result<Self, StatementError> {
        let malformed = |reason: &str| StatementError::Malformed(reason.to_owned());
        if signed.encoded_len() > STATEMENT_BYTES_MAX {
            return Err(malformed("too large"));
        }
        let state = PeerState::decode(signed.state.clone())
            .map_err(|error| StatementError::Malformed(error.to_string()))?;
        if state.channel != bundle.channel().as_str() {
            return Err(StatementError::OtherChannel);
        }
        if state.chaincodes.len() > CHAINCODES_MAX || state.endpoint.len() > ENDPOINT_BYTES_MAX {
            return Err(malformed("too many chaincodes, or too long an endpoint"));
        }
        if state.attestations.len() > TOLD {
            return Err(malformed("too many attested heights"));
        }
        if !matches!(state.commit_hash.len(), 0 | 32) {
            return Err(malformed("the commit hash does not have 32 bytes"));
        }
        if state
            .endpoint
            .rsplit_once(':')
            .is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
        {
            return Err(malformed("the endpoint is not host:port"));
        }
        if milliseconds(now).abs_diff(state.timestamp_ms) > CLOCK_DIFFERENCE_MAX.as_secs() * 1_000 {
            return Err(StatementError::Time);
        }
        let author = author(&signed, bundle)?;
        Ok(Self { author: author.id().clone(), msp_id: author.msp_id().clone(), state, signed })
    }

    /// Whether this statement was made after the other one of the same author.
    pub(super) fn is_newer_than(&self, other: &Self) -> bool {
        (self.state.incarnation_ms, self.state.sequence) > (other.state.incarnation_ms, other.state.sequence)
    }
}

/// The author, when it is a valid peer identity of an application organisation of the channel and signed the statement.
fn author(signed: &SignedMembership, bundle: &ChannelBundle) -> Result<Arc<Identity>, StatementError> {
    let refuse = |reason: String| StatementError::Author(reason);
    let identity = bundle.msps().deserialize(&signed.identity).map_err(|error| refuse(error.to_string()))?;
    let of_channel = bundle
        .application()
        .organisations
        .iter()
        .any(|organisation| organisation.msp_id == *identity.msp_id());
    if !of_channel {
        return Err(refuse(format!("{} is no application organisation", identity.msp_id())));
    }
    let member = principal::role(identity.msp_id().as_str(), Role::Member);
    bundle.msps().satisfies(&identity, &member).map_err(|error| refuse(error.to_string()))?;
    let roles = identity.roles();
    let other_role = [Role::Client, Role::Admin, Role::Orderer].iter().any(|role| roles.contains(role));
    if other_role && !roles.contains(&Role::Peer) {
        return Err(refuse("its certificate has another role".to_owned()));
    }
    identity
        .verify(&signed_bytes(&signed.state), &signed.signature)
        .map_err(|error| refuse(error.to_string()))?;
    Ok(identity)
}

fn signed_bytes(state: &[u8]) -> Vec<u8> {
    [DOMAIN, state].concat()
}

/// Milliseconds since 1970; 0 before.
pub(super) fn milliseconds(time: OffsetDateTime) -> u64 {
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
}
