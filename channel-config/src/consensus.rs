//! The consenters of a channel: what makes a list of them acceptable, and what an update does to it.
//!
//! Source: Fabric `orderer/consensus/etcdraft` (metadata validation and membership).

use std::sync::Arc;

use bytes::Bytes;
use consort_crypto::certificate::Certificate;
use consort_msp::{CertificatePool, Usage};
use consort_protos::fabric::etcdraft::{ConfigMetadata, Consenter as ConsenterMessage, Options};
use prost::Message;

use crate::{ChannelBundle, Consenter, ETCDRAFT, duration};

/// What an update does to the members of the Raft cluster. Members are the same when their client certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsenterChange {
    /// Nobody comes or goes (order, hosts, ports and server certificates may change).
    None,
    /// One joins, under the next free id.
    Added(Consenter),
    /// One leaves.
    Removed(Consenter),
    /// One changes its certificate and keeps its id.
    Rotated {
        /// The entry as it was.
        from: Consenter,
        /// The entry as it will be.
        to: Consenter,
    },
}

impl ConsenterChange {
    /// Compares two lists of consenters.
    ///
    /// # Errors
    /// When more than one member joins or leaves: two quorums of the lists might then not meet.
    pub fn between(old: &[Consenter], new: &[Consenter]) -> Result<Self, String> {
        let missing_in = |list: &[Consenter], other: &[Consenter]| -> Vec<Consenter> {
            let known = |one: &Consenter| other.iter().any(|two| two.client_tls_cert == one.client_tls_cert);
            list.iter().filter(|one| !known(one)).cloned().collect()
        };
        let mut added = missing_in(new, old);
        let mut removed = missing_in(old, new);
        if added.len() > 1 || removed.len() > 1 {
            return Err(format!(
                "update of more than one consenter at a time is not supported, requested changes: add {} node(s), remove {} node(s)",
                added.len(),
                removed.len()
            ));
        }
        Ok(match (added.pop(), removed.pop()) {
            (None, None) => Self::None,
            (Some(added), None) => Self::Added(added),
            (None, Some(removed)) => Self::Removed(removed),
            (Some(to), Some(from)) => Self::Rotated { from, to },
        })
    }
}

/// Checks the consensus metadata of a configuration by itself, as for a genesis block or a join.
///
/// # Errors
/// The rule that it breaks, in Fabric's words.
pub(crate) fn check(bundle: &ChannelBundle) -> Result<(), String> {
    let orderer = bundle.orderer();
    if orderer.consensus_type != ETCDRAFT {
        return Err(format!(
            "consensus type {:?} is not supported, only {ETCDRAFT} is",
            orderer.consensus_type
        ));
    }
    let metadata = ConfigMetadata::decode(orderer.consensus_metadata.as_ref())
        .map_err(|error| format!("failed to unmarshal etcdraft metadata configuration: {error}"))?;
    check_metadata(bundle, &metadata).map_err(|error| format!("invalid new config metadata: {error}"))
}

/// Checks the consensus metadata of a new configuration, also against the old one.
pub(crate) fn check_update(old: &ChannelBundle, new: &ChannelBundle) -> Result<(), String> {
    check(new)?;
    ConsenterChange::between(&old.orderer().consenters, &new.orderer().consenters).map(|_| ())
}

fn check_metadata(bundle: &ChannelBundle, metadata: &ConfigMetadata) -> Result<(), String> {
    check_options(metadata.options.as_ref().ok_or("nil Raft config metadata options")?)?;
    if metadata.consenters.is_empty() {
        return Err("empty consenter set".to_owned());
    }
    let pool = tls_pool(bundle)?;
    for consenter in &metadata.consenters {
        check_consenter(&pool, consenter).map_err(|error| {
            format!("consenter {}:{} has invalid certificate: {error}", consenter.host, consenter.port)
        })?;
    }
    check_distinct(&metadata.consenters)
}

fn check_options(options: &Options) -> Result<(), String> {
    let Options { election_tick, heartbeat_tick, max_inflight_blocks, .. } = *options;
    if heartbeat_tick == 0 || election_tick == 0 || max_inflight_blocks == 0 {
        return Err(format!(
            "none of HeartbeatTick ({heartbeat_tick}), ElectionTick ({election_tick}) and MaxInflightBlocks ({max_inflight_blocks}) can be zero"
        ));
    }
    if election_tick <= heartbeat_tick {
        return Err(format!(
            "ElectionTick ({election_tick}) must be greater than HeartbeatTick ({heartbeat_tick})"
        ));
    }
    let (negative, tick) = duration::parse(&options.tick_interval).map_err(|error| {
        format!("failed to parse TickInterval ({}) to time duration: {error}", options.tick_interval)
    })?;
    if tick.is_zero() {
        return Err("TickInterval cannot be zero".to_owned());
    }
    // Fabric lets a negative interval pass and then spins; nothing of ours could run with it.
    if negative {
        return Err("TickInterval cannot be negative".to_owned());
    }
    Ok(())
}

/// The TLS authorities of all organisations that run orderers.
fn tls_pool(bundle: &ChannelBundle) -> Result<CertificatePool, String> {
    let parse = |certificates: Vec<Bytes>| {
        certificates
            .iter()
            .map(|pem| Certificate::from_pem(pem).map(Arc::new).map_err(|error| error.to_string()))
            .collect::<Result<Vec<_>, _>>()
    };
    let msps: Vec<_> = bundle
        .orderer()
        .organisations
        .iter()
        .filter_map(|organisation| bundle.msps().msp(&organisation.msp_id))
        .collect();
    let roots = parse(msps.iter().flat_map(|msp| msp.tls_roots().to_vec()).collect())?;
    let intermediates = parse(msps.iter().flat_map(|msp| msp.tls_intermediates().to_vec()).collect())?;
    Ok(CertificatePool::new(roots, intermediates))
}

fn check_consenter(pool: &CertificatePool, consenter: &ConsenterMessage) -> Result<(), String> {
    for (side, pem) in [("client", &consenter.client_tls_cert), ("server", &consenter.server_tls_cert)] {
        let certificate = Certificate::from_pem(pem).map_err(|error| {
            format!("parsing tls {side} cert of {}:{}: {error}", consenter.host, consenter.port)
        })?;
        let serial = certificate.serial_hex();
        pool.chains(&Arc::new(certificate), Usage::ClientOrServer)
            .map_err(|error| format!("verifying tls {side} cert with serial number {serial}: {error}"))?;
    }
    Ok(())
}

/// No certificate may stand in two entries; within one entry both may be the same.
fn check_distinct(consenters: &[ConsenterMessage]) -> Result<(), String> {
    for (index, one) in consenters.iter().enumerate() {
        let shares = |other: &&ConsenterMessage| {
            [&other.client_tls_cert, &other.server_tls_cert].iter().any(|certificate| {
                **certificate == one.client_tls_cert || **certificate == one.server_tls_cert
            })
        };
        if consenters[..index].iter().any(|other| shares(&other)) {
            let text = |pem: &Bytes| String::from_utf8_lossy(pem).into_owned();
            return Err(format!(
                "duplicate consenter: server cert: {}, client cert: {}",
                text(&one.server_tls_cert),
                text(&one.client_tls_cert)
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consenter(name: &'static str) -> Consenter {
        Consenter {
            host: name.to_owned(),
            port: 7050,
            client_tls_cert: Bytes::from_static(name.as_bytes()),
            server_tls_cert: Bytes::from_static(name.as_bytes()),
        }
    }

    #[test]
    fn one_consenter_may_come_or_go_at_a_time() {
        let list = |names: &[&'static str]| names.iter().map(|name| consenter(name)).collect::<Vec<_>>();
        let change = |new: &[&'static str]| ConsenterChange::between(&list(&["a", "b", "c"]), &list(new));
        assert_eq!(change(&["c", "a", "b"]), Ok(ConsenterChange::None));
        assert_eq!(change(&["a", "b", "c", "d"]), Ok(ConsenterChange::Added(consenter("d"))));
        assert_eq!(change(&["a", "c"]), Ok(ConsenterChange::Removed(consenter("b"))));
        assert_eq!(
            change(&["a", "b", "d"]),
            Ok(ConsenterChange::Rotated { from: consenter("c"), to: consenter("d") })
        );
        assert_eq!(
            change(&["a", "b", "c", "d", "e"]).unwrap_err(),
            "update of more than one consenter at a time is not supported, requested changes: add 2 node(s), remove 0 node(s)"
        );
    }
}
