//! Maintenance mode: what an update may change on the way in, inside, and on the way out, so that a migration to another consensus cannot
//! be mixed with anything else.
//!
//! Source of rules and texts: Fabric `orderer/common/msgprocessor/maintenancefilter.go`.

use consort_protos::fabric::common::{ConfigGroup, ConfigUpdate, ConfigUpdateEnvelope};
use prost::Message;

use crate::{
    ChannelBundle, ConsensusState, OrdererConfig,
    names::{CONSENSUS_TYPE, ORDERER},
};

/// The only consensus that a Raft channel may migrate to.
const BFT: &str = "BFT";

/// Checks an update against the state of the channel before it.
///
/// # Errors
/// The rule that it breaks.
pub(crate) fn check(
    current: &ChannelBundle,
    next: &OrdererConfig,
    update: &ConfigUpdateEnvelope,
) -> Result<(), String> {
    let now = current.orderer();
    if !now.capabilities.maintenance_mode() {
        return check_incapable(now, next);
    }
    if now.state != next.state {
        check_step(now, next, update)?;
    }
    if now.consensus_type != next.consensus_type {
        check_migration(now, next)?;
    }
    Ok(())
}

fn check_incapable(now: &OrdererConfig, next: &OrdererConfig) -> Result<(), String> {
    if next.state != ConsensusState::Normal {
        return Err(
            "next config attempted to change ConsensusType.State to STATE_MAINTENANCE, but capability is disabled"
                .to_owned(),
        );
    }
    if now.consensus_type != next.consensus_type {
        return Err(format!(
            "next config attempted to change ConsensusType.Type from {} to {}, but capability is disabled",
            now.consensus_type, next.consensus_type
        ));
    }
    Ok(())
}

/// Entering and leaving maintenance is an update of its own.
fn check_step(
    now: &OrdererConfig,
    next: &OrdererConfig,
    update: &ConfigUpdateEnvelope,
) -> Result<(), String> {
    let step =
        || format!("but ConsensusType.State is changing from {} to {}", name(now.state), name(next.state));
    if now.consensus_type != next.consensus_type {
        let (from, to) = (&now.consensus_type, &next.consensus_type);
        return Err(format!("attempted to change ConsensusType.Type from {from} to {to}, {}", step()));
    }
    if now.consensus_metadata != next.consensus_metadata {
        return Err(format!("attempted to change ConsensusType.Metadata, {}", step()));
    }
    let update = ConfigUpdate::decode(update.config_update.as_ref())
        .map_err(|error| format!("failed to parse config: {error}"))?;
    let write_set = update.write_set.ok_or("config update contains no changes")?;
    check_only_consensus_type(&write_set)
}

fn check_only_consensus_type(write_set: &ConfigGroup) -> Result<(), String> {
    if write_set.groups.is_empty() {
        return Err("config update contains no changes".to_owned());
    }
    if !write_set.values.is_empty() {
        return Err("config update contains changes to values in group Channel".to_owned());
    }
    if write_set.groups.len() > 1 {
        return Err("config update contains changes to more than one group".to_owned());
    }
    let orderer = write_set.groups.get(ORDERER).ok_or("update does not contain the Orderer group")?;
    if !orderer.groups.is_empty() {
        return Err("config update contains changes to groups within the Orderer group".to_owned());
    }
    if !orderer.values.contains_key(CONSENSUS_TYPE) {
        return Err("config update does not contain the ConsensusType value".to_owned());
    }
    if orderer.values.len() > 1 {
        return Err(
            "config update contain more then just the ConsensusType value in the Orderer group".to_owned()
        );
    }
    Ok(())
}

/// The consensus changes only inside maintenance.
fn check_migration(now: &OrdererConfig, next: &OrdererConfig) -> Result<(), String> {
    let (from, to) = (&now.consensus_type, &next.consensus_type);
    let attempted = format!("attempted to change consensus type from {from} to {to}");
    for (which, state) in [("current", now.state), ("next", next.state)] {
        if state != ConsensusState::Maintenance {
            return Err(format!(
                "{attempted}, but {which} config ConsensusType.State is not in maintenance mode"
            ));
        }
    }
    if to == BFT { Ok(()) } else { Err(format!("{attempted}, transition not supported")) }
}

fn name(state: ConsensusState) -> &'static str {
    match state {
        ConsensusState::Normal => "STATE_NORMAL",
        ConsensusState::Maintenance => "STATE_MAINTENANCE",
    }
}
