//! Whether a channel can work: its policies can be met, its chaincodes endorsed, its transactions ordered.

use std::collections::BTreeMap;

use anyhow::Context;
use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_client_sdk::ClientIdentity;
use consort_client_sdk::blocks::{BlockPosition, BlockReader, BlockServer};
use consort_client_sdk::peer_admin::PeerAdmin;
use consort_protos::fabric::lifecycle::{QueryChaincodeDefinitionsArgs, QueryChaincodeDefinitionsResult};
use consort_protos::ids::MspId;
use prost::Message;

use super::Finding;
use crate::access::Access;
use crate::layout::{ADMINISTRATOR, MemberKind, members};
use crate::network::status::Row;
use crate::report::count;

const AREA: &str = "policies";

/// Policies without which a channel stands still or can never be changed.
const NEEDED: [&str; 8] = [
    "/Channel/Readers",
    "/Channel/Writers",
    "/Channel/Admins",
    "/Channel/Application/Admins",
    "/Channel/Application/Endorsement",
    "/Channel/Application/LifecycleEndorsement",
    "/Channel/Orderer/Admins",
    "/Channel/Orderer/BlockValidation",
];

/// Looks at the channel through a peer that answers.
pub(super) async fn check(access: &Access, rows: &[Row]) -> Vec<Finding> {
    let channel = access.channel();
    match read(access).await {
        Err(error) => vec![Finding::fault(
            AREA,
            format!("the configuration of channel {channel} cannot be read: {error:#}"),
            "start the peer, or ask another one with --peer",
        )],
        Ok((bundle, admin)) => {
            let mut findings = policies(&bundle);
            findings.extend(identities(access, &bundle));
            findings.extend(ordering(&bundle, rows, channel));
            findings.extend(chaincodes(access, &bundle, &admin, rows).await);
            findings
        }
    }
}

async fn read(access: &Access) -> anyhow::Result<(ChannelBundle, PeerAdmin)> {
    let (member, peer) = access.peer()?;
    let (endpoint, reader) = (access.peer_endpoint(member, peer)?, access.reader()?);
    let blocks = BlockReader::new(&endpoint, BlockServer::Peer, &reader, access.channel())?;
    let block = blocks.fetch(BlockPosition::Config).await?;
    let bundle = ChannelBundle::from_block(&block).context("the configuration block is not in order")?;
    Ok((bundle, access.peer_admin(&endpoint, reader)?))
}

fn policies(bundle: &ChannelBundle) -> Vec<Finding> {
    let remedy =
        "change it: consort channel plan <file> with `policies: { ... }` (docs/adding-an-organisation.md)";
    let unmet: Vec<Finding> = NEEDED
        .iter()
        .filter_map(|path| {
            let what = match bundle.policies().policy(path) {
                None => format!("the channel has no policy {path}"),
                Some(policy) if policy.organisation_sets().is_empty() => {
                    format!("no set of organisations can satisfy {path}")
                }
                Some(_) => return None,
            };
            Some(Finding::fault(AREA, what, remedy))
        })
        .collect();
    if unmet.is_empty() {
        let what =
            format!("the {} policies that channel {} needs can be met", NEEDED.len(), bundle.channel());
        return vec![Finding::ok(AREA, what)];
    }
    unmet
}

/// Whether the channel accepts those whose credentials are here.
fn identities(access: &Access, bundle: &ChannelBundle) -> Vec<Finding> {
    let mut all: Vec<(String, anyhow::Result<ClientIdentity>)> = Vec::new();
    for (kind, member) in members(&access.topology) {
        for user in std::iter::once(ADMINISTRATOR).chain(member.users.iter().map(String::as_str)) {
            all.push((format!("{user}@{}", member.domain), access.identity_of(kind, member, user)));
        }
    }
    let peers = access.topology.peers().map(|(of, peer)| (MemberKind::Peers, &of.member, &peer.host));
    let orderers =
        access.topology.orderers().map(|(of, orderer)| (MemberKind::Orderers, &of.member, &orderer.host));
    for (kind, member, host) in peers.chain(orderers) {
        let folder = access.layout.node(kind, &member.domain, host).join("msp");
        let identity = ClientIdentity::from_folder(&folder, &member.msp_id).map_err(anyhow::Error::from);
        all.push((host.clone(), identity));
    }
    let total = all.len();
    // Credentials that cannot be read have been told of already.
    let read = all.into_iter().filter_map(|(name, identity)| Some((name, identity.ok()?)));
    let refused: Vec<Finding> = read
        .filter_map(|(name, identity)| {
            let judged = bundle.msps().deserialize(identity.serialized());
            let reason = judged.and_then(|identity| identity.admit(crate::authority::now())).err()?;
            let what = format!("channel {} does not accept {name}: {reason}", bundle.channel());
            let remedy = "enrol it at the authority that the channel's configuration names, or publish the new authority or list \
                          there (docs/identities.md)";
            Some(Finding::fault("chains", what, remedy))
        })
        .collect();
    if refused.is_empty() {
        let all = count(total, "identity");
        return vec![Finding::ok(
            "chains",
            format!("channel {} accepts all {all} that are here", bundle.channel()),
        )];
    }
    refused
}

/// Whether enough consenters are there.
fn ordering(bundle: &ChannelBundle, rows: &[Row], channel: &str) -> Vec<Finding> {
    let consenters = bundle.orderer().consenters.len();
    let needed = consenters / 2 + 1;
    let there = rows
        .iter()
        .filter(|row| row.is_orderer() && row.health == "ok" && row.heights.contains_key(channel))
        .count();
    let said =
        format!("{there} of {consenters} consenters of channel {channel} are there, and {needed} are needed");
    let remedy = "start the others (consort network up), or see consort orderer status";
    vec![match there {
        there if there < needed => Finding::fault("ordering", said, remedy),
        there if there < consenters => Finding::warning("ordering", said, remedy),
        _ => Finding::ok("ordering", said),
    }]
}

/// Whether the peers that are there can endorse each chaincode.
async fn chaincodes(
    access: &Access,
    bundle: &ChannelBundle,
    admin: &PeerAdmin,
    rows: &[Row],
) -> Vec<Finding> {
    let definitions = match definitions(admin, access.channel()).await {
        Ok(definitions) => definitions.chaincode_definitions,
        Err(error) => {
            let what = format!("the chaincodes of channel {} cannot be listed: {error:#}", access.channel());
            return vec![Finding::warning("chaincodes", what, "ask another peer with --peer")];
        }
    };
    let runnable = runnable(access, rows).await;
    let mut findings = Vec::new();
    for definition in &definitions {
        let key = (definition.name.clone(), definition.version.clone());
        let peers: BTreeMap<MspId, usize> = runnable.get(&key).cloned().unwrap_or_default();
        let (name, version) = (&definition.name, &definition.version);
        let remedy = format!(
            "consort chaincode install on more peers, or start those that have it; consort chaincode query {name} shows its policy"
        );
        let policy = match bundle.endorsement_policy(&definition.validation_parameter) {
            Ok(policy) => policy,
            Err(error) => {
                let what = format!("the policy of chaincode {name} cannot be read: {error}");
                findings.push(Finding::fault("chaincodes", what, remedy));
                continue;
            }
        };
        let total: usize = peers.values().sum();
        findings.push(if policy.organisation_sets_within(&peers).is_empty() {
            let what = format!(
                "chaincode {name} {version} cannot be endorsed: {} that are there have it",
                count(total, "peer")
            );
            Finding::fault("chaincodes", what, remedy)
        } else {
            let peers = count(total, "peer");
            Finding::ok(
                "chaincodes",
                format!("chaincode {name} {version} can be endorsed; {peers} can run it"),
            )
        });
    }
    findings
}

async fn definitions(admin: &PeerAdmin, channel: &str) -> anyhow::Result<QueryChaincodeDefinitionsResult> {
    let arguments = vec![Bytes::from(QueryChaincodeDefinitionsArgs {}.encode_to_vec())];
    let answer = admin.query(channel, "_lifecycle", "QueryChaincodeDefinitions", arguments).await?;
    Ok(QueryChaincodeDefinitionsResult::decode(answer)?)
}

/// For each chaincode and version, how many peers of each organisation are there and have it.
async fn runnable(access: &Access, rows: &[Row]) -> BTreeMap<(String, String), BTreeMap<MspId, usize>> {
    let mut found: BTreeMap<(String, String), BTreeMap<MspId, usize>> = BTreeMap::new();
    for (organisation, peer) in access.topology.peers() {
        let there = rows.iter().any(|row| row.plan.name == peer.host && row.health == "ok");
        let Ok(msp_id) = MspId::parse(&organisation.member.msp_id) else { continue };
        let installed = match installed(access, &organisation.member, peer).await {
            Ok(installed) if there => installed,
            _ => continue,
        };
        for key in installed {
            *found.entry(key).or_default().entry(msp_id.clone()).or_default() += 1;
        }
    }
    found
}

/// Chaincodes and versions of the channel that a peer can run.
async fn installed(
    access: &Access,
    member: &crate::topology::Member,
    peer: &crate::topology::Peer,
) -> anyhow::Result<Vec<(String, String)>> {
    let identity = access.identity_of(MemberKind::Peers, member, ADMINISTRATOR)?;
    let admin = access.peer_admin(&access.peer_endpoint(member, peer)?, identity)?;
    let mut found = Vec::new();
    for package in admin.installed().await? {
        for (channel, references) in package.references {
            let own = references.chaincodes.into_iter().filter(|_| channel == access.channel());
            found.extend(own.map(|chaincode| (chaincode.name, chaincode.version)));
        }
    }
    Ok(found)
}
