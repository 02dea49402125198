//! The genesis block of a topology's channel, made once and kept.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use bytes::Bytes;
use consort_channel_config::profile::{
    AnchorPeerProfile, ApplicationProfile, BatchProfile, ConsenterProfile, MspSource, OrdererProfile,
    OrganisationProfile, PemSource, Policies, Profile, RaftProfile,
};
use consort_channel_config::{AGGREGATED_ENDORSEMENTS, REGISTERED_IDENTITIES, SEALED_DATA};
use consort_protos::ids::{ChannelId, MspId};
use prost::Message;

use crate::files;
use crate::layout::{Layout, MemberKind};
use crate::topology::{Capabilities, Member, Topology};

/// The kept genesis block, or a new one.
///
/// # Errors
/// Credentials are missing, or the description gives no valid channel.
pub(super) fn block(layout: &Layout, topology: &Topology) -> anyhow::Result<Bytes> {
    let path = layout.genesis_block(&topology.channel.name);
    if let Ok(block) = std::fs::read(&path) {
        return Ok(block.into());
    }
    let channel = ChannelId::parse(&topology.channel.name)?;
    let profile = profile(layout, topology)?;
    let block = profile
        .genesis_block(&channel, rand::random(), now())
        .context("the topology gives no valid channel configuration")?;
    let bytes = block.encode_to_vec();
    files::write_atomically(&path, &bytes, false)?;
    Ok(bytes.into())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the genesis block says when an operator made it; nothing is decided by it"
)]
pub(crate) fn now() -> time::OffsetDateTime {
    SystemTime::now().into()
}

/// The description in the terms of a channel profile.
fn profile(layout: &Layout, topology: &Topology) -> anyhow::Result<Profile> {
    let channel = &topology.channel;
    let mut policies = SortedPolicies::of(&channel.policies);
    let consenters = topology.orderers().map(|(organisation, orderer)| {
        let tls = layout.node(MemberKind::Orderers, &organisation.member.domain, &orderer.host).join("tls");
        let certificate = tls.join("server.crt");
        ConsenterProfile {
            host: orderer.host.clone(),
            port: orderer.port,
            client_tls_cert: PemSource::File(certificate.clone()),
            server_tls_cert: PemSource::File(certificate),
        }
    });
    let consenters = consenters.collect();
    let mut orderer_organisations = Vec::new();
    for organisation in &topology.orderer_organisations {
        let mut profile = member(layout, MemberKind::Orderers, &organisation.member)?;
        profile.policies = policies.take("Orderer", &organisation.member.name);
        profile.orderer_endpoints = organisation
            .orderers
            .iter()
            .map(|orderer| format!("{}:{}", orderer.host, orderer.port))
            .collect();
        orderer_organisations.push(profile);
    }
    let mut organisations = Vec::new();
    for organisation in &topology.organisations {
        let mut profile = member(layout, MemberKind::Peers, &organisation.member)?;
        profile.policies = policies.take("Application", &organisation.member.name);
        let anchors = organisation.peers.iter().filter(|peer| peer.anchor);
        profile.anchor_peers =
            anchors.map(|peer| AnchorPeerProfile { host: peer.host.clone(), port: peer.port }).collect();
        organisations.push(profile);
    }
    Ok(Profile {
        hashing: channel.hashing,
        key_algorithms: channel.key_algorithms.clone(),
        capabilities: vec![channel.capabilities.channel.clone()],
        policies: policies.take("", ""),
        orderer: OrdererProfile {
            capabilities: vec![channel.capabilities.orderer.clone()],
            batch: BatchProfile {
                max_message_count: channel.batch.max_message_count,
                absolute_max_bytes: channel.batch.absolute_max_bytes,
                preferred_max_bytes: channel.batch.preferred_max_bytes,
                timeout: go_duration(channel.batch.timeout),
            },
            raft: RaftProfile {
                tick_interval: go_duration(channel.raft.tick_interval),
                election_tick: channel.raft.election_tick,
                heartbeat_tick: channel.raft.heartbeat_tick,
                max_inflight_blocks: channel.raft.max_inflight_blocks,
                snapshot_interval_bytes: channel.raft.snapshot_interval_bytes,
            },
            channels_max: 0,
            consenters,
            organisations: orderer_organisations,
            policies: policies.take("Orderer", ""),
        },
        application: ApplicationProfile {
            capabilities: application_capabilities(&channel.capabilities),
            organisations,
            policies: policies.take("Application", ""),
            acls: channel.acls.clone(),
        },
    })
}

fn application_capabilities(capabilities: &Capabilities) -> Vec<String> {
    let ours = [
        (capabilities.registered_identities, REGISTERED_IDENTITIES),
        (capabilities.aggregated_endorsements, AGGREGATED_ENDORSEMENTS),
        (capabilities.sealed_data, SEALED_DATA),
    ];
    let ours = ours.into_iter().filter(|(wanted, _)| *wanted).map(|(_, name)| name.to_owned());
    std::iter::once(capabilities.application.clone()).chain(ours).collect()
}

fn member(layout: &Layout, kind: MemberKind, member: &Member) -> anyhow::Result<OrganisationProfile> {
    Ok(OrganisationProfile {
        name: member.name.clone(),
        msp_id: MspId::parse(&member.msp_id)?,
        msp: MspSource::Folder(layout.organisation_msp(kind, &member.domain)),
        policies: Policies::new(),
        orderer_endpoints: Vec::new(),
        anchor_peers: Vec::new(),
    })
}

/// The topology's policies by the group that they stand in.
struct SortedPolicies(BTreeMap<(String, String), Policies>);

impl SortedPolicies {
    fn of(policies: &BTreeMap<String, String>) -> Self {
        let mut sorted: BTreeMap<(String, String), Policies> = BTreeMap::new();
        for (path, rule) in policies {
            let parts: Vec<&str> = path.split('/').collect();
            let (section, organisation, name) = match parts.as_slice() {
                [section, organisation, name] => (*section, *organisation, *name),
                [section, name] => (*section, "", *name),
                _ => ("", "", path.as_str()),
            };
            let group = sorted.entry((section.to_owned(), organisation.to_owned())).or_default();
            group.insert(name.to_owned(), rule.clone());
        }
        Self(sorted)
    }

    fn take(&mut self, section: &str, organisation: &str) -> Policies {
        self.0.remove(&(section.to_owned(), organisation.to_owned())).unwrap_or_default()
    }
}

/// A duration as Go writes it, as far as the topology's syntax reaches.
fn go_duration(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        assert_eq!(go_duration(Duration::from_secs(2)), "2s");
        assert_eq!(go_duration(Duration::from_millis(1_500)), "1500ms");
    }

    #[test]
    fn policies_go_to_the_group_that_their_path_names() {
        let policies = [("Admins", "a"), ("Application/Endorsement", "b"), ("Application/Org1/Writers", "c")];
        let policies = policies.map(|(path, rule)| (path.to_owned(), rule.to_owned()));
        let mut sorted = SortedPolicies::of(&policies.into_iter().collect());
        assert_eq!(sorted.take("", "")["Admins"], "a");
        assert_eq!(sorted.take("Application", "")["Endorsement"], "b");
        assert_eq!(sorted.take("Application", "Org1")["Writers"], "c");
        assert!(sorted.take("Orderer", "").is_empty());
    }
}
