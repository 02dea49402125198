//! A new organisation's part of a network: its own authority and peers, for a channel that others run.
//!
//! The members of the channel hand over its configuration block. It names the orderers with their TLS roots and the anchor
//! peers of every organisation, so nothing else about the others has to be written down. Joining is a step of its own
//! (`consort channel join`), because the members must have added the organisation before.

use anyhow::Context;

use super::nodes::describe;
use crate::access::Access;
use crate::files;
use crate::layout::{ADMINISTRATOR, Layout, MemberKind};
use crate::topology::{Topology, load_configuration};

/// Keeps the channel's configuration beside the data, so that the file that was handed over may go.
///
/// # Errors
/// It is neither where the description says nor kept from an earlier start.
pub(super) fn keep_configuration(layout: &Layout, topology: &Topology) -> anyhow::Result<()> {
    let Some(source) = &topology.joins else { return Ok(()) };
    let kept = layout.joined_channel(&topology.channel.name);
    if !source.exists() && kept.exists() {
        return Ok(());
    }
    load_configuration(source)?;
    let bytes = std::fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
    files::write_atomically(&kept, &bytes, false)
}

/// Says how far the organisation's peers are in the channel.
///
/// # Errors
/// A peer does not answer.
pub(super) async fn standing(access: &Access) -> anyhow::Result<((), String)> {
    let channel = access.channel();
    let mut words = Vec::new();
    for (organisation, peer) in access.topology.peers() {
        let member = &organisation.member;
        let identity = access.identity_of(MemberKind::Peers, member, ADMINISTRATOR)?;
        let admin = access.peer_admin(&access.peer_endpoint(member, peer)?, identity)?;
        let failed = |error| anyhow::anyhow!("{} does not answer: {}", peer.host, describe(&error));
        let has_joined = admin.channels().await.map_err(failed)?.iter().any(|joined| joined == channel);
        words.push(if has_joined {
            format!(
                "{} is in channel {channel}, at height {}",
                peer.host,
                admin.chain_info(channel).await?.height
            )
        } else {
            format!("{} is not in channel {channel} yet", peer.host)
        });
    }
    Ok(((), words.join("; ")))
}

/// What a new organisation does next, as far as its peers have not joined.
pub(super) fn next_steps(access: &Access, data: &str) -> String {
    let mut text = String::new();
    let has_joined = |host: &str| {
        let channels = access.layout.node_data(MemberKind::Peers, host).join("channels");
        channels.join(access.channel()).exists()
    };
    for organisation in &access.topology.organisations {
        let member = &organisation.member;
        if organisation.peers.iter().all(|peer| has_joined(&peer.host)) {
            continue;
        }
        let msp = access.layout.organisation_msp(MemberKind::Peers, &member.domain);
        text.push_str(&format!(
            "Next, until the channel has {name}:\n  give the folder {msp} to a member, who plans the change with it\n\
             Next, when the change is applied:\n",
            name = member.name,
            msp = super::up::relative(&msp),
        ));
        for peer in organisation.peers.iter().filter(|peer| !has_joined(&peer.host)) {
            text.push_str(&format!("  consort channel join --peer {} --network {data}\n", peer.host));
        }
    }
    text
}
