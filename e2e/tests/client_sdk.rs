//! The Rust client against a running network: off-line signing at each step, fail-over, events with checkpoints.

use anyhow::{Context, Result};
use consort_client_sdk::checkpoint::{Checkpoint, Checkpointer, InFile};
use consort_client_sdk::decode::{DecodedBlock, Kind};
use consort_client_sdk::{ClientIdentity, ConnectionProfile, Endpoint, Gateway, Gateways, Retries, blocks};
use consort_e2e::Network;
use futures::StreamExt;

/// The user that the applications are.
fn user(network: &Network) -> Result<(ConnectionProfile, ClientIdentity)> {
    let organisation = network.peer_organisation("org1.example.com");
    let profile = ConnectionProfile::load(organisation.join("connection-org1.yaml"))?;
    let user = organisation.join("users/User1@org1.example.com/msp");
    let identity = ClientIdentity::from_folder(&user, profile.msp_id()?)?;
    Ok((profile, identity))
}

fn asset(id: &str) -> [String; 5] {
    [id, "blue", "5", "Tomoko", "300"].map(str::to_owned)
}

#[test]
fn the_rust_client_does_what_it_promises() -> Result<()> {
    let network = Network::start("two-org-raft")?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let (profile, identity) = user(&network)?;
        let endpoint = profile.gateways()?.remove(0);
        signs_every_step_elsewhere(&network, &endpoint, &identity).await?;
        resumes_events(&network, &endpoint, &identity).await?;
        fails_over(&network, &endpoint, &identity).await
    })
}

async fn signs_every_step_elsewhere(
    network: &Network,
    endpoint: &Endpoint,
    identity: &ClientIdentity,
) -> Result<()> {
    // The gateway's identity has no key; the signatures come from another one of the same certificate.
    let folder =
        network.peer_organisation("org1.example.com").join("users/User1@org1.example.com/msp/signcerts");
    let keyless = ClientIdentity::without_key(identity.msp_id(), std::fs::read(folder.join("cert.pem"))?);
    let contract = Gateway::connect(endpoint, keyless).await?.network("mychannel").contract("basic");
    assert!(contract.evaluate("GetAllAssets", Vec::<String>::new()).await.is_err(), "there is no key");
    let proposal = contract.call("CreateAsset").arguments(asset("offline")).unsigned();
    let signature = identity.sign(proposal.bytes())?;
    let endorsed = proposal.signed(signature).endorse().await?;
    let signature = identity.sign(endorsed.payload())?;
    let submitted = endorsed.signed(signature).submit().await?;
    let request = submitted.status_request();
    let signature = identity.sign(request.bytes())?;
    let committed = request.committed(signature).await?;
    assert!(committed.is_valid());
    Ok(())
}

async fn resumes_events(network: &Network, endpoint: &Endpoint, identity: &ClientIdentity) -> Result<()> {
    let channel = Gateway::connect(endpoint, identity.clone()).await?.network("mychannel");
    let contract = channel.contract("basic");
    let first = contract.call("CreateAsset").arguments(asset("first")).endorse().await?.submit().await?;
    let first = first.committed().await?.into_valid()?;
    let second = contract.call("CreateAsset").arguments(asset("second")).endorse().await?.submit().await?;
    let second = second.committed().await?.into_valid()?;
    let mut checkpoint = InFile::new(network.config().join("checkpoint.json"));
    let mut events = channel.chaincode_events("basic").from_block(first.block).open().await?;
    let event = events.next().await.context("an event")??;
    assert_eq!(event.tx_id, first.tx_id);
    checkpoint.save(Checkpoint::after_event(&event))?;
    drop(events);
    let mut events = channel.chaincode_events("basic").from_checkpoint(&checkpoint.load()?).open().await?;
    let event = events.next().await.context("an event")??;
    assert_eq!(event.tx_id, second.tx_id, "the first event is not repeated");

    let mut blocks = blocks::follow(endpoint, identity, "mychannel", Some(second.block)).await?;
    let block = DecodedBlock::new(&blocks.next().await.context("a block")??)?;
    let found = block.transactions.iter().find(|transaction| transaction.tx_id == second.tx_id);
    let Kind::Invocation(invocation) = &found.context("the transaction")?.kind else {
        panic!("no invocation")
    };
    assert_eq!(invocation.function(), "CreateAsset");
    Ok(())
}

async fn fails_over(network: &Network, endpoint: &Endpoint, identity: &ClientIdentity) -> Result<()> {
    let other = network.peer_organisation("org2.example.com").join("tlsca/tlsca.org2.example.com-cert.pem");
    let port = network.port(9051);
    let second = Endpoint::new(format!("peer0.org2.example.com:{port}"), std::fs::read(other)?)
        .connect_to(([127, 0, 0, 1], port).into());
    // Nobody listens at the first one.
    let nowhere = Endpoint::new(&endpoint.address, endpoint.tls_roots_pem.clone())
        .connect_to(([127, 0, 0, 1], 1).into());
    let gateways = Gateways::new(&[nowhere, second], identity, Retries::default())?;
    let committed = gateways
        .submit("mychannel", "basic", |contract| contract.call("CreateAsset").arguments(asset("failover")))
        .await?;
    assert!(committed.is_valid());
    // The same envelope once more: it is the same transaction, and its fate is that of the first copy.
    let direct = Gateway::connect(endpoint, identity.clone()).await?.network("mychannel").contract("basic");
    let endorsed = direct.call("CreateAsset").arguments(asset("twice")).endorse().await?;
    let signed = endorsed.sign()?;
    let tx_id = signed.tx_id().to_owned();
    signed.clone().submit().await?.committed().await?.into_valid()?;
    signed.submit().await?;
    let fate = direct.network().commit_status(&tx_id).await?;
    assert!(fate.is_valid(), "the second copy changes nothing: {fate:?}");
    Ok(())
}
