//! The Rust client against a running network: off-line signing at each step, fail-over, events with checkpoints, and what administrators do.

use std::path::Path;

use anyhow::{Context, Result};
use consort_channel_config::update::compute;
use consort_channel_config::{Change, ChannelBundle};
use consort_client_sdk::blocks::{BlockPosition, BlockServer};
use consort_client_sdk::ca::{CaClient, EnrollmentOptions, Registration, Revoke};
use consort_client_sdk::checkpoint::{Checkpoint, Checkpointer, InFile};
use consort_client_sdk::configuration::{SignedUpdate, broadcast};
use consort_client_sdk::decode::{DecodedBlock, Kind};
use consort_client_sdk::lifecycle::{Definition, Lifecycle};
use consort_client_sdk::participation::OrdererAdmin;
use consort_client_sdk::peer_admin::PeerAdmin;
use consort_client_sdk::{
    ClientIdentity, ClientTlsIdentity, ConnectionProfile, Endpoint, Gateway, Gateways, Retries, blocks,
};
use consort_e2e::Network;
use consort_protos::fabric::common::Block;
use futures::StreamExt;
use prost::Message;

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
        fails_over(&network, &endpoint, &identity).await?;
        enrols_a_client(&network, &endpoint).await?;
        upgrades_a_chaincode(&network, &endpoint).await?;
        changes_the_configuration(&network, &endpoint).await
    })
}

/// An administrator of one of the two organisations.
fn administrator(network: &Network, domain: &str, msp_id: &str) -> Result<ClientIdentity> {
    let folder = network.peer_organisation(domain).join(format!("users/Admin@{domain}/msp"));
    Ok(ClientIdentity::from_folder(&folder, msp_id)?)
}

/// A node of this network by the port that its topology publishes.
fn node(network: &Network, host: &str, port: u16, roots: &Path) -> Result<Endpoint> {
    let port = network.port(port);
    let roots = std::fs::read(roots).with_context(|| roots.display().to_string())?;
    Ok(Endpoint::new(format!("{host}:{port}"), roots).connect_to(([127, 0, 0, 1], port).into()))
}

/// The authority: register, enrol, use, revoke.
async fn enrols_a_client(network: &Network, endpoint: &Endpoint) -> Result<()> {
    let roots = network.peer_organisation("org1.example.com").join("tlsca/tlsca.org1.example.com-cert.pem");
    let authority = CaClient::new(&node(network, "ca.org1.example.com", 7054, &roots)?, Some("ca-org1"))?;
    let secret = std::fs::read_to_string(network.data().join("secrets/ca-org1/admin"))?;
    let registrar = authority.enroll("admin", secret.trim(), &EnrollmentOptions::default()).await?;
    let registration =
        Registration { id: "carol".to_owned(), kind: Some("client".to_owned()), ..Registration::default() };
    let secret = authority.register(&registrar, &registration).await?;
    let enrolled = authority.enroll("carol", &secret, &EnrollmentOptions::default()).await?;
    let key = enrolled.key.to_pem();
    let carol = ClientIdentity::from_pem("Org1MSP", enrolled.certificate_pem.clone().into_bytes(), &key)?;
    let contract = Gateway::connect(endpoint, carol).await?.network("mychannel").contract("basic");
    let submitted = contract.call("CreateAsset").arguments(asset("carols")).endorse().await?.submit().await?;
    assert!(submitted.committed().await?.is_valid());
    let known = authority.identities(&registrar).await?;
    assert!(known.iter().any(|identity| identity.id == "carol"));
    let revoked = authority.revoke(&registrar, &Revoke::Identity("carol".to_owned()), "", true).await?;
    assert!(revoked.certificates.len() == 1 && revoked.crl_pem.is_some());
    let refused = authority.enroll("carol", &secret, &EnrollmentOptions::default()).await;
    assert!(refused.is_err(), "who is revoked enrols no more");
    Ok(())
}

/// Peers and the lifecycle: what is joined and installed, approval by both organisations, commit.
async fn upgrades_a_chaincode(network: &Network, endpoint: &Endpoint) -> Result<()> {
    let one = administrator(network, "org1.example.com", "Org1MSP")?;
    let two = administrator(network, "org2.example.com", "Org2MSP")?;
    let peer = PeerAdmin::new(endpoint, one.clone())?;
    assert_eq!(peer.channels().await?, ["mychannel"]);
    let before = peer.chain_info("mychannel").await?.height;
    let package = peer.installed().await?.first().context("a package")?.package_id.clone();
    let roots = network.peer_organisation("org2.example.com").join("tlsca/tlsca.org2.example.com-cert.pem");
    let other = node(network, "peer0.org2.example.com", 9051, &roots)?;
    let channel = Gateway::connect(endpoint, one).await?.network("mychannel");
    let channel_of_two = Gateway::connect(&other, two).await?.network("mychannel");
    let lifecycle = Lifecycle::new(&channel);
    let present = lifecycle.committed("basic").await?.context("a definition")?;
    let next = Definition {
        name: "basic".to_owned(),
        version: "rust".to_owned(),
        sequence: present.sequence + 1,
        endorsement_policy: None,
        collections: None,
        init_required: false,
        limits: None,
    };
    lifecycle.approve(&next, Some(&package)).await?;
    let ready = lifecycle.readiness(&next).await?;
    assert_eq!((ready["Org1MSP"], ready["Org2MSP"]), (true, false), "{ready:?}");
    Lifecycle::new(&channel_of_two).approve(&next, Some(&package)).await?;
    lifecycle.commit(&next, ["Org1MSP", "Org2MSP"]).await?;
    let committed = lifecycle.committed("basic").await?.context("a definition")?;
    assert_eq!((committed.sequence, committed.version.as_str()), (next.sequence, "rust"));
    assert!(peer.chain_info("mychannel").await?.height > before);
    channel.contract("basic").evaluate("ReadAsset", ["carols"]).await?;
    Ok(())
}

/// Orderers and the configuration: what they serve, a change from its text, signatures, and the block that it makes.
async fn changes_the_configuration(network: &Network, endpoint: &Endpoint) -> Result<()> {
    let orderers = network.data().join("organizations/ordererOrganizations/example.com");
    let roots = orderers.join("tlsca/tlsca.example.com-cert.pem");
    let tls = orderers.join("users/Admin@example.com/tls");
    let identity = ClientTlsIdentity {
        certificate_pem: std::fs::read(tls.join("client.crt"))?.into(),
        key_pem: std::fs::read(tls.join("client.key"))?.into(),
    };
    let admin_endpoint = node(network, "orderer.example.com", 7053, &roots)?.with_client_tls(identity);
    let orderer = OrdererAdmin::new(&admin_endpoint)?;
    assert_eq!(orderer.channels().await?, ["mychannel"]);
    let status = orderer.channel("mychannel").await?.context("it is joined")?;
    assert_eq!((status.status.as_str(), status.consensus_relation.as_str()), ("active", "consenter"));
    assert!(orderer.channel("elsewhere").await?.is_none());

    let block = Block::decode(orderer.block("mychannel", "config").await?)?;
    let bundle = ChannelBundle::from_block(&block)?;
    let change = Change::parse("batch: { max_message_count: 44 }", Path::new("change.yaml"))?;
    let wanted = change.apply(bundle.config())?;
    let mut update = SignedUpdate::new(&compute(bundle.config(), &wanted, bundle.channel())?);
    let administrator =
        ClientIdentity::from_folder(&orderers.join("users/Admin@example.com/msp"), "OrdererMSP")?;
    let unsigned = update.envelope(&administrator)?;
    let broadcasting = node(network, "orderer.example.com", 7050, &roots)?;
    let refused = broadcast(&broadcasting, unsigned).await.expect_err("nobody has agreed to it");
    assert!(
        refused.to_string().contains("FORBIDDEN") || refused.to_string().contains("BAD_REQUEST"),
        "{refused}"
    );
    update.sign(&administrator)?;
    orderer.update(update.envelope(&administrator)?.encode_to_vec().into()).await?;

    let (_, reader) = user(network)?;
    let eventually = async {
        loop {
            let position = BlockPosition::Config;
            let newest =
                blocks::fetch_block(endpoint, BlockServer::Peer, &reader, "mychannel", position).await?;
            let bundle = ChannelBundle::from_block(&newest)?;
            if bundle.orderer().batch.max_message_count == 44 {
                return anyhow::Ok(());
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), eventually).await.context("no change")?
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
