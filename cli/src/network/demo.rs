//! `consort network demo`: the main job from nothing, explained step by step.

use anyhow::{Context, bail};
use consort_client_sdk::{Contract, Error, explain};
use consort_crypto::certificate::Certificate;
use consort_protos::fabric::msp::SerializedIdentity;
use prost::Message;

use super::{Folders, up};
use crate::access::Access;
use crate::layout::{MemberKind, members};
use crate::report::{Report, count};
use crate::topology::Organisation;

/// The chaincode that the walk-through calls; it offers the functions of Fabric's sample asset-transfer-basic.
const CHAINCODE: &str = "basic";

/// `consort network demo`.
///
/// # Errors
/// The first step that does not come out as it should.
pub(super) async fn run(folders: &Folders) -> anyhow::Result<()> {
    if folders.topology.channel.capabilities.sealed_data {
        return sealed_data(folders).await;
    }
    check(folders)?;
    println!(
        "Consort demonstration: a consortium of two organisations, from nothing to a committed transaction.\n"
    );
    let report = Report::begin(&format!("1. Network {} starts as native processes", folders.topology.name));
    let access = up::up(folders, &report).await?;
    report.line(&format!("ready after {}", report.elapsed()));

    println!(
        "\n2. Who takes part: every identity was issued by its organisation's own certificate authority"
    );
    identities(&access)?;

    let [first, second, ..] = access.topology.organisations.as_slice() else {
        bail!("the walk-through needs two organisations");
    };
    let asset = format!("asset-{:08x}", rand::random::<u32>());
    let ours = contract(&access, first).await?;
    let theirs = contract(&access, second).await?;

    println!(
        "\n3. {} creates {asset}: both organisations run the chaincode and sign what it did",
        user(first)
    );
    let block = create(&ours, &asset).await?;

    println!("\n4. {} reads it from the other organisation's peer", user(second));
    read_back(&theirs, &asset, &block).await?;

    println!("\n5. {} tries to create {asset} again", user(first));
    create_again(&ours, &asset).await?;

    println!("\n6. {} has another change endorsed by its own organisation only", user(first));
    one_endorsement(&ours, &asset, first, second).await?;

    println!("\nThe network keeps running.");
    println!("{}", up::usage(&access, folders));
    Ok(())
}

/// The walk-through for networks with sealed data.
async fn sealed_data(folders: &Folders) -> anyhow::Result<()> {
    println!(
        "Consort demonstration: sealed data. Who may read a record is decided later, by its owner; several organisations carry it out, and none of them can read.\n"
    );
    let report = Report::begin(&format!("1. Network {} starts as native processes", folders.topology.name));
    let access = up::up(folders, &report).await?;
    report.line(&format!("ready after {}", report.elapsed()));
    println!("\n2. Who takes part");
    identities(&access)?;
    crate::sealed::demo(&access).await?;
    println!("\nThe network keeps running; `consort sealed --help` says what to do with it.");
    println!("{}", up::usage(&access, folders));
    Ok(())
}

/// The walk-through explains what two organisations agree on, so it needs them.
fn check(folders: &Folders) -> anyhow::Result<()> {
    let topology = &folders.topology;
    anyhow::ensure!(
        topology.organisations.len() >= 2
            && topology.chaincodes.iter().any(|chaincode| chaincode.name == CHAINCODE),
        "the walk-through needs a network with two organisations and the chaincode '{CHAINCODE}', such as network-configs/two-org-raft.\nRemedy: use that one, or `consort network up` for {}.",
        topology.name
    );
    Ok(())
}

fn user(organisation: &Organisation) -> String {
    let name = organisation.member.users.first().map_or(crate::layout::ADMINISTRATOR, String::as_str);
    format!("{name}@{}", organisation.member.domain)
}

async fn contract(access: &Access, organisation: &Organisation) -> anyhow::Result<Contract> {
    let name = organisation.member.users.first().map_or(crate::layout::ADMINISTRATOR, String::as_str);
    let gateway = access.gateway_of(&organisation.member, name).await?;
    Ok(access.network(&gateway).contract(CHAINCODE))
}

/// One line per organisation, with what its CA has issued.
fn identities(access: &Access) -> anyhow::Result<()> {
    let width = members(&access.topology).map(|(_, member)| member.msp_id.len()).max().unwrap_or(0);
    for (kind, member) in members(&access.topology) {
        let nodes = match kind {
            MemberKind::Peers => access
                .topology
                .peers()
                .filter(|(organisation, _)| organisation.member.name == member.name)
                .map(|(_, peer)| peer.host.clone())
                .collect::<Vec<_>>(),
            MemberKind::Orderers => access
                .topology
                .orderers()
                .filter(|(organisation, _)| organisation.member.name == member.name)
                .map(|(_, orderer)| orderer.host.clone())
                .collect(),
        };
        let roots = access.layout.identity_roots(kind, &member.domain);
        let pem = std::fs::read(&roots).with_context(|| format!("cannot read {}", roots.display()))?;
        let root = Certificate::from_pem(&pem)?;
        println!(
            "  {:<width$} {} ({}, {}) issued: {}, Admin{}",
            member.msp_id,
            member.authority.name,
            root.subject_common_name().unwrap_or("?"),
            count(nodes.len(), "node"),
            nodes.join(", "),
            member.users.iter().map(|user| format!(", {user}")).collect::<String>()
        );
    }
    Ok(())
}

/// A committed transaction, for the steps after it.
struct Reference {
    tx_id: String,
    block: u64,
}

async fn create(contract: &Contract, asset: &str) -> anyhow::Result<Reference> {
    let arguments = [asset, "blue", "5", "Tomoko", "300"].map(str::to_owned);
    let endorsed = contract.call("CreateAsset").arguments(arguments).endorse().await?;
    println!(
        "  endorsed by {}",
        endorsed.endorsers().iter().map(|identity| name(identity)).collect::<Vec<_>>().join(" and ")
    );
    let began = std::time::Instant::now();
    let committed = endorsed.submit().await?.committed().await?.into_valid()?;
    println!("  transaction {}", committed.tx_id);
    println!(
        "  committed in block {}: {} ({}), {} ms after it was submitted",
        committed.block,
        committed.code.as_str_name(),
        committed.code as i32,
        began.elapsed().as_millis()
    );
    Ok(Reference { tx_id: committed.tx_id, block: committed.block })
}

/// An endorser as `peer0.org1.example.com (Org1MSP)`.
fn name(identity: &[u8]) -> String {
    let Ok(identity) = SerializedIdentity::decode(identity) else {
        return "an unreadable identity".to_owned();
    };
    let certificate = Certificate::from_pem(&identity.id_bytes).ok();
    let common_name = certificate.as_ref().and_then(Certificate::subject_common_name).unwrap_or("?");
    format!("{common_name} ({})", identity.mspid)
}

async fn read_back(contract: &Contract, asset: &str, reference: &Reference) -> anyhow::Result<()> {
    // The other peer may be a moment behind; its own gateway says when it has the block.
    let seen = contract.network().commit_status(&reference.tx_id).await?;
    anyhow::ensure!(
        seen.block == reference.block,
        "the peers disagree: block {} and block {}",
        seen.block,
        reference.block
    );
    let value = contract.evaluate("ReadAsset", [asset.to_owned()]).await?;
    println!("  the same transaction is in its block {}; the value there is", seen.block);
    println!("  {}", String::from_utf8_lossy(&value));
    Ok(())
}

async fn create_again(contract: &Contract, asset: &str) -> anyhow::Result<()> {
    let arguments = [asset, "red", "7", "Brad", "400"].map(str::to_owned);
    match contract.submit("CreateAsset", arguments).await {
        Ok(_) => bail!("the second creation should have been refused"),
        Err(Error::Refused { refusal, .. }) => {
            println!("  refused before ordering, because the chaincode does not endorse it:");
            if refusal.details.is_empty() {
                println!("    {}", refusal.message);
            }
            for detail in &refusal.details {
                println!("    {} ({}): {}", detail.address, detail.msp_id, detail.message);
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

async fn one_endorsement(
    contract: &Contract,
    asset: &str,
    first: &Organisation,
    second: &Organisation,
) -> anyhow::Result<()> {
    let arguments = [asset, "green", "5", "Mallory", "1"].map(str::to_owned);
    let call = contract.call("UpdateAsset").arguments(arguments);
    let endorsed = call.endorsing_organisations([first.member.msp_id.clone()]).endorse().await?;
    println!(
        "  endorsed by {}",
        endorsed.endorsers().iter().map(|identity| name(identity)).collect::<Vec<_>>().join(" and ")
    );
    let committed = endorsed.submit().await?.committed().await?;
    anyhow::ensure!(!committed.is_valid(), "a transaction with one endorsement should be invalid");
    println!(
        "  ordered into block {}, and there every peer finds it invalid: {} ({})",
        committed.block,
        committed.code.as_str_name(),
        committed.code as i32
    );
    println!("  because {}: {} has not signed", explain(committed.code), second.member.msp_id);
    let value = contract.evaluate("ReadAsset", [asset.to_owned()]).await?;
    println!("  the ledger is unchanged: {}", String::from_utf8_lossy(&value));
    Ok(())
}
