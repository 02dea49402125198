//! The statements that a peer has heard, per channel.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use consort_msp::IdentityId;
use consort_protos::consort::peer::SignedMembership;
use consort_protos::ids::MspId;

use super::statement::Statement;
use crate::gateway::Member;

/// Peers that are remembered per channel. A channel of 20 organisations with 10 peers each stays far below.
const MEMBERS_MAX: usize = 1_000;

/// What has been heard.
#[derive(Debug)]
pub(super) struct Known {
    expiry: Duration,
    channels: Mutex<BTreeMap<String, BTreeMap<IdentityId, Heard>>>,
}

/// How far a peer's books are.
#[derive(Debug)]
pub(super) struct Position {
    pub(super) endpoint: String,
    pub(super) msp_id: MspId,
    pub(super) height: u64,
    pub(super) commit_hash: Bytes,
}

#[derive(Debug)]
struct Heard {
    statement: Statement,
    at: Instant,
}

impl Known {
    /// Remembers statements for the given time after the last news of their author.
    pub(super) fn new(expiry: Duration) -> Self {
        Self { expiry, channels: Mutex::default() }
    }

    /// Takes a statement if it is news; says whether endpoint or chaincodes of its author changed.
    pub(super) fn hear(&self, statement: Statement, now: Instant) -> bool {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let members = channels.entry(statement.state.channel.clone()).or_default();
        if let Some(heard) = members.get_mut(&statement.author) {
            if !statement.is_newer_than(&heard.statement) {
                return false;
            }
            let changed = heard.statement.state.chaincodes != statement.state.chaincodes
                || heard.statement.state.endpoint != statement.state.endpoint;
            *heard = Heard { statement, at: now };
            return changed;
        }
        members.retain(|_, heard| now.saturating_duration_since(heard.at) < self.expiry);
        if members.len() >= MEMBERS_MAX {
            return false;
        }
        tracing::info!(
            channel = %statement.state.channel, endpoint = %statement.state.endpoint, msp_id = %statement.msp_id, "peer found"
        );
        members.insert(statement.author.clone(), Heard { statement, at: now });
        true
    }

    /// The peers that were heard lately.
    pub(super) fn members(&self, channel: &str, now: Instant) -> Vec<Member> {
        self.live(channel, now, |statement| Member {
            endpoint: statement.state.endpoint.clone(),
            msp_id: statement.msp_id.clone(),
            height: statement.state.ledger_height,
            chaincodes: statement
                .state
                .chaincodes
                .iter()
                .map(|chaincode| (chaincode.name.clone(), chaincode.version.clone()))
                .collect(),
            local: false,
            identity: statement.signed.identity.clone(),
            incarnation_ms: statement.state.incarnation_ms,
            sequence: statement.state.sequence,
        })
    }

    /// How far their books are, with the commit hash there.
    pub(super) fn positions(&self, channel: &str, now: Instant) -> Vec<Position> {
        self.live(channel, now, |statement| Position {
            endpoint: statement.state.endpoint.clone(),
            msp_id: statement.msp_id.clone(),
            height: statement.state.ledger_height,
            commit_hash: statement.state.commit_hash.clone(),
        })
    }

    /// Their statements as they came.
    pub(super) fn signed(&self, channel: &str, now: Instant) -> Vec<SignedMembership> {
        self.live(channel, now, |statement| statement.signed.clone())
    }

    fn live<T>(&self, channel: &str, now: Instant, view: impl Fn(&Statement) -> T) -> Vec<T> {
        let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.get(channel).map_or_else(Vec::new, |members| {
            members
                .values()
                .filter(|heard| now.saturating_duration_since(heard.at) < self.expiry)
                .map(|heard| view(&heard.statement))
                .collect()
        })
    }
}
