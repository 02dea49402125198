//! The content of the answers, made of a channel's configuration and its known peers.

use std::collections::BTreeMap;

use consort_channel_config::ChannelBundle;
use consort_protos::fabric::discovery::{
    ConfigResult, EndorsementDescriptor, Endpoint, Endpoints, Layout, PeerMembershipResult, Peers,
};
use consort_protos::fabric::protos::{ChaincodeCall, ChaincodeInterest};
use consort_protos::ids::MspId;

use super::records;
use crate::channel::ChannelHandle;
use crate::gateway::{Member, plan};

/// Largest number of chaincode calls in one interest: each costs a look at its definition. A transaction that calls more
/// chaincodes than this has other problems.
pub(super) const CALLS_MAX: usize = 100;

/// The MSPs and the orderers of a channel.
pub(super) fn config(bundle: &ChannelBundle) -> ConfigResult {
    let msps = bundle.msps().msps().map(|msp| (msp.id().to_string(), msp.config().clone())).collect();
    let mut orderers: BTreeMap<String, Endpoints> = BTreeMap::new();
    for organisation in &bundle.orderer().organisations {
        orderers.entry(organisation.msp_id.to_string()).or_default();
    }
    for (msp_id, address) in bundle.orderer_endpoints() {
        let Some(endpoint) = endpoint(&address) else {
            tracing::warn!(channel = %bundle.channel(), %address, "an orderer's address is not host:port");
            continue;
        };
        match msp_id {
            Some(msp_id) => orderers.entry(msp_id.to_string()).or_default().endpoint.push(endpoint),
            // Global addresses belong to nobody in particular; Fabric lists them with every orderer organisation.
            None => orderers.values_mut().for_each(|of_one| of_one.endpoint.push(endpoint.clone())),
        }
    }
    ConfigResult { msps, orderers }
}

fn endpoint(address: &str) -> Option<Endpoint> {
    let (host, port) = address.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    (!host.is_empty()).then(|| Endpoint { host: host.to_owned(), port: port.into() })
}

/// Peers of a channel by organisation.
pub(super) fn members(members: &[Member], channel: &str) -> PeerMembershipResult {
    grouped(members.iter().map(|member| (member, records::in_channel(member, channel))))
}

/// Peers by organisation, without a channel's state.
pub(super) fn processes(members: &[Member]) -> PeerMembershipResult {
    grouped(members.iter().map(|member| (member, records::of_process(member))))
}

fn grouped<'a>(
    peers: impl Iterator<Item = (&'a Member, consort_protos::fabric::discovery::Peer)>,
) -> PeerMembershipResult {
    let mut result = PeerMembershipResult::default();
    for (member, peer) in peers {
        result.peers_by_org.entry(member.msp_id.to_string()).or_default().peers.push(peer);
    }
    result
}

/// Whether an interest is one; the text is the error's.
pub(super) fn check_interest(interest: &ChaincodeInterest) -> Result<(), String> {
    if interest.chaincodes.is_empty() {
        return Err("chaincode interest must contain at least one chaincode".to_owned());
    }
    if interest.chaincodes.len() > CALLS_MAX {
        return Err(format!("chaincode interest must not contain more than {CALLS_MAX} chaincodes"));
    }
    if interest.chaincodes.iter().any(|call| call.name.is_empty()) {
        return Err("chaincode name in interest cannot be empty".to_owned());
    }
    Ok(())
}

/// Who can endorse what an interest touches. One group per organisation, since its peers are interchangeable.
pub(super) fn descriptor(
    channel: &ChannelHandle,
    interest: &ChaincodeInterest,
    members: &[Member],
) -> Result<EndorsementDescriptor, String> {
    let plan = plan(channel, interest, members, false).map_err(|impossible| impossible.cause)?;
    let channel = channel.id().as_str();
    let mut groups: BTreeMap<&MspId, Peers> = BTreeMap::new();
    for member in &plan.candidates {
        groups.entry(&member.msp_id).or_default().peers.push(records::in_channel(member, channel));
    }
    groups.retain(|organisation, _| plan.layouts.iter().any(|layout| layout.contains_key(*organisation)));
    let names: BTreeMap<&MspId, String> =
        groups.keys().enumerate().map(|(index, organisation)| (*organisation, format!("G{index}"))).collect();
    let layouts = plan.layouts.iter().map(|layout| Layout {
        quantities_by_group: layout
            .iter()
            .filter_map(|(organisation, count)| {
                Some((names.get(organisation)?.clone(), u32::try_from(*count).unwrap_or(u32::MAX)))
            })
            .collect(),
    });
    Ok(EndorsementDescriptor {
        chaincode: interest.chaincodes.first().map(|call| call.name.clone()).unwrap_or_default(),
        layouts: layouts.collect(),
        endorsers_by_groups: groups
            .into_iter()
            .map(|(organisation, peers)| (names[organisation].clone(), peers))
            .collect(),
    })
}

/// An interest as Fabric's texts write it (protobuf text format).
pub(super) fn text(interest: &ChaincodeInterest) -> String {
    let call = |call: &ChaincodeCall| {
        let collections: String =
            call.collection_names.iter().map(|name| format!(" collection_names:{name:?}")).collect();
        let reads = if call.no_private_reads { " no_private_reads:true" } else { "" };
        format!("chaincodes:{{name:{:?}{collections}{reads}}}", call.name)
    };
    interest.chaincodes.iter().map(call).collect::<Vec<_>>().join(" ")
}
