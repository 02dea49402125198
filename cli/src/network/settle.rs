//! Waiting until a started network can serve: a leader, peers that have every block, peers that know each other.
//!
//! A node that answers is not yet a network that works: consenters elect, a peer that was away fetches what it missed, and
//! gateways learn from the other organisations' peers which chaincodes they run. The first transaction after `up` should
//! not be the one to find out.

use std::time::Duration;

use consort_client_sdk::participation::OrdererAdmin;
use consort_client_sdk::{Contract, Error};
use futures::future::try_join_all;
use tonic::Code;

use super::nodes::describe;
use super::session::Session;
use super::status::leads;
use crate::access::Access;
use crate::layout::{ADMINISTRATOR, MemberKind};
use crate::report::count;
use crate::topology::{Organisation, Peer};

/// How long an election and the fetching of missed blocks may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A function that every contract has or answers with an error; nothing is changed by it (Fabric's contract API).
const HARMLESS_FUNCTION: &str = "org.hyperledger.fabric:GetMetadata";

/// Waits until the channel has a leader.
///
/// # Errors
/// No orderer leads in time.
pub(super) async fn leader(access: &Access, session: &Session) -> anyhow::Result<((), String)> {
    let first = access.topology.orderers().next().map_or("", |(_, orderer)| &orderer.host);
    let what = format!("channel {} has no leader", access.channel());
    let leader = session.wait(first, &what, LIMIT, || find_leader(access)).await?;
    Ok(((), format!("{leader} leads channel {}", access.channel())))
}

async fn find_leader(access: &Access) -> Result<String, String> {
    for (_, orderer) in access.topology.orderers() {
        let address = access.topology.address(&orderer.host, orderer.operations_port);
        if leads(address, access.channel()).await == Some(true) {
            return Ok(orderer.host.clone());
        }
    }
    Err("no orderer has been elected".to_owned())
}

/// Waits until every peer has the blocks that the orderers have now, and every gateway finds every organisation's
/// chaincodes.
///
/// # Errors
/// A peer does not catch up, or does not find the others, in time.
pub(super) async fn peers(access: &Access, session: &Session) -> anyhow::Result<((), String)> {
    let height = orderers_height(access).await?;
    let catching_up = access
        .topology
        .peers()
        .map(|(organisation, peer)| caught_up(access, session, organisation, peer, height));
    try_join_all(catching_up).await?;
    let mut pairs = Vec::new();
    for chaincode in access.topology.chaincodes.iter().filter(|chaincode| !chaincode.init_required) {
        for (from, peer) in access.topology.peers() {
            for to in &access.topology.organisations {
                pairs.push(finds(access, session, (from, peer), to, &chaincode.name));
            }
        }
    }
    try_join_all(pairs).await?;
    let peers = count(access.topology.peers().count(), "peer");
    Ok(((), format!("{peers} at height {height}, each in contact with every organisation")))
}

async fn orderers_height(access: &Access) -> anyhow::Result<u64> {
    let mut height = 0;
    for (organisation, orderer) in access.topology.orderers() {
        let admin = OrdererAdmin::new(&access.orderer_admin_endpoint(&organisation.member, orderer)?)?;
        let status = admin.channel(access.channel()).await?;
        height = height.max(status.map_or(0, |status| status.height));
    }
    Ok(height)
}

async fn caught_up(
    access: &Access,
    session: &Session,
    organisation: &Organisation,
    peer: &Peer,
    height: u64,
) -> anyhow::Result<()> {
    let identity = access.identity_of(MemberKind::Peers, &organisation.member, ADMINISTRATOR)?;
    let admin = access.peer_admin(&access.peer_endpoint(&organisation.member, peer)?, identity)?;
    let what = format!("peer {} does not reach height {height}", peer.host);
    let ask = || async {
        let info = admin.chain_info(access.channel()).await.map_err(|error| describe(&error))?;
        if info.height >= height { Ok(()) } else { Err(format!("it is at height {}", info.height)) }
    };
    session.wait(&peer.host, &what, LIMIT, ask).await
}

/// Waits until a peer's gateway reaches an organisation's peers for a chaincode.
async fn finds(
    access: &Access,
    session: &Session,
    (from, peer): (&Organisation, &Peer),
    to: &Organisation,
    chaincode: &str,
) -> anyhow::Result<()> {
    let gateway = access.gateway_at(&from.member, peer, ADMINISTRATOR).await?;
    let contract = access.network(&gateway).contract(chaincode);
    let what = format!(
        "the gateway of {} finds no peer of {} with chaincode {chaincode}",
        peer.host, to.member.msp_id
    );
    session.wait(&peer.host, &what, LIMIT, || reaches(&contract, &to.member.msp_id)).await
}

/// An answer of the chaincode itself, even an error, shows that it runs where it was asked for.
async fn reaches(contract: &Contract, msp_id: &str) -> Result<(), String> {
    let call = contract.call(HARMLESS_FUNCTION).endorsing_organisations([msp_id]);
    match call.evaluate().await {
        Ok(_) | Err(Error::Chaincode { .. }) => Ok(()),
        Err(Error::Refused { refusal, .. }) if refusal.code == Code::Unknown => Ok(()),
        Err(error) => Err(describe(&error)),
    }
}
