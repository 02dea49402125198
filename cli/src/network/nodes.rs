//! Starting orderers and peers and joining them to the channel.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use consort_client_sdk::participation::OrdererAdmin;
use consort_protos::fabric::common::Block;
use futures::future::{try_join, try_join_all};
use prost::Message;

use super::node_config;
use super::plan::{ProcessPlan, Role, processes};
use super::programs::Programs;
use super::session::Session;
use super::status::is_healthy;
use crate::access::Access;
use crate::files;
use crate::layout::{ADMINISTRATOR, Layout, MemberKind};
use crate::report::{are, count};
use crate::topology::{Orderer, OrdererOrganisation, Organisation, Peer, Topology};

/// How long a node may take until it answers; opening a large ledger takes seconds.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long joining may take.
const JOIN_LIMIT: Duration = Duration::from_secs(30);

/// Writes the nodes' configuration, starts those that do not run, and waits until all are healthy.
///
/// # Errors
/// A node cannot be started or does not become healthy; its log is part of the message.
pub(super) async fn start(
    layout: &Layout,
    topology: &Topology,
    programs: &Programs,
    session: &Session,
) -> anyhow::Result<((), String)> {
    for (organisation, orderer) in topology.orderers() {
        write_config(layout, &orderer.host, &node_config::orderer(layout, topology, organisation, orderer)?)?;
        files::create_folder(&layout.node_data(MemberKind::Orderers, &orderer.host))?;
    }
    for (organisation, peer) in topology.peers() {
        write_config(layout, &peer.host, &node_config::peer(layout, topology, organisation, peer)?)?;
        files::create_folder(&layout.node_data(MemberKind::Peers, &peer.host))?;
    }
    let plans: Vec<ProcessPlan> =
        processes(topology).into_iter().filter(|plan| plan.role != Role::Authority).collect();
    let mut started = 0;
    for plan in &plans {
        let program = programs.of(plan.role);
        started += usize::from(session.ensure(&plan.name, program, &layout.config(&plan.name))?);
    }
    try_join_all(plans.iter().map(|plan| healthy(plan, session))).await?;
    let (peers, orderers) = (topology.peers().count(), topology.orderers().count());
    let all = match orderers {
        0 => count(peers, "peer"),
        _ => format!("{} and {}", count(orderers, "orderer"), count(peers, "peer")),
    };
    let outcome = match started {
        0 => format!("{all} {} running already", are(plans.len())),
        started if started == plans.len() => format!("{all} {} running", are(plans.len())),
        started => format!("{all} are running, {started} of them started now"),
    };
    Ok(((), outcome))
}

fn write_config(layout: &Layout, name: &str, text: &str) -> anyhow::Result<()> {
    files::write_atomically(&layout.config(name), text.as_bytes(), false)
}

async fn healthy(plan: &ProcessPlan, session: &Session) -> anyhow::Result<()> {
    let Some(address) = plan.operations else { return Ok(()) };
    let what = format!("{} {} does not become healthy", plan.role.name(), plan.name);
    session.wait(&plan.name, &what, START_LIMIT, || is_healthy(address)).await
}

/// Joins every node that has not joined yet.
///
/// # Errors
/// A node refuses, or does not answer.
pub(super) async fn join(
    access: &Access,
    session: &Session,
    genesis: &Bytes,
) -> anyhow::Result<((), String)> {
    let block = Block::decode(genesis.clone()).context("the kept genesis block is damaged")?;
    let orderers = access
        .topology
        .orderers()
        .map(|(organisation, orderer)| join_orderer(access, session, organisation, orderer, genesis));
    let peers = access
        .topology
        .peers()
        .map(|(organisation, peer)| join_peer(access, session, organisation, peer, &block));
    let (orderers, peers) = try_join(try_join_all(orderers), try_join_all(peers)).await?;
    let joined = orderers.iter().chain(&peers).filter(|joined| **joined).count();
    let all = format!("all {}", count(orderers.len() + peers.len(), "node"));
    let channel = access.channel();
    let outcome = match joined {
        0 => format!("{all} are in channel {channel} already"),
        _ => format!("channel {channel} joined by {all}"),
    };
    Ok(((), outcome))
}

/// Returns whether the orderer joined now.
async fn join_orderer(
    access: &Access,
    session: &Session,
    organisation: &OrdererOrganisation,
    orderer: &Orderer,
    genesis: &Bytes,
) -> anyhow::Result<bool> {
    let admin = OrdererAdmin::new(&access.orderer_admin_endpoint(&organisation.member, orderer)?)?;
    let what = format!("orderer {} does not answer on its admin port", orderer.host);
    let ask = || async { admin.channel(access.channel()).await.map_err(|error| describe(&error)) };
    if session.wait(&orderer.host, &what, JOIN_LIMIT, ask).await?.is_some() {
        return Ok(false);
    }
    let joined = admin.join(genesis.clone()).await;
    joined.with_context(|| format!("orderer {} cannot join channel {}", orderer.host, access.channel()))?;
    Ok(true)
}

/// Returns whether the peer joined now.
async fn join_peer(
    access: &Access,
    session: &Session,
    organisation: &Organisation,
    peer: &Peer,
    genesis: &Block,
) -> anyhow::Result<bool> {
    let member = &organisation.member;
    let identity = access.identity_of(MemberKind::Peers, member, ADMINISTRATOR)?;
    let admin = access.peer_admin(&access.peer_endpoint(member, peer)?, identity)?;
    let what = format!("peer {} does not answer", peer.host);
    let ask = || async { admin.channels().await.map_err(|error| describe(&error)) };
    let channels = session.wait(&peer.host, &what, JOIN_LIMIT, ask).await?;
    if channels.iter().any(|channel| channel == access.channel()) {
        return Ok(false);
    }
    let joined = admin.join(genesis).await;
    joined.with_context(|| format!("peer {} cannot join channel {}", peer.host, access.channel()))?;
    Ok(true)
}

/// An error with its innermost cause.
pub(crate) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let innermost = cause.to_string();
    if !text.contains(&innermost) {
        text = format!("{text}: {innermost}");
    }
    text
}
