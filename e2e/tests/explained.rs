//! `consort tx explain` on a running network: the key and the other transaction, the policy and the signature that is missing. And
//! `consort doctor`, which finds what is broken and says what to do.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use consort_client_sdk::configuration::broadcast;
use consort_client_sdk::{ClientIdentity, ConnectionProfile, Contract, Endpoint, Gateway};
use consort_e2e::{Network, repository};
use consort_protos::fabric::common::{Envelope, Payload};
use consort_protos::fabric::protos::{ChaincodeActionPayload, Transaction};
use futures::future::try_join_all;
use prost::Message;

fn deploy(network: &Network, name: &str, example: &str, more: &[&str]) -> Result<()> {
    let path = repository().join("chaincode-sdk/examples").join(example).display().to_string();
    let arguments = ["chaincode", "deploy", name, "--version", "1.0", "--path", &path];
    network.consort(&[&arguments[..], more].concat())?.expect_success().map(drop)
}

/// Submits a call that is ordered and found invalid, and explains it.
fn explained(network: &Network, call: &[&str]) -> Result<String> {
    let outcome = network.consort(&[&["tx", "submit"], call].concat())?;
    assert_eq!(outcome.code, Some(3), "ordered and invalid: {outcome:?}");
    let said = outcome.expect_failure()?;
    let id =
        said.split_whitespace().find(|word| word.len() == 64).with_context(|| format!("no id in: {said}"))?;
    network.consort(&["tx", "explain", id])?.expect_success()
}

#[test]
fn an_invalid_transaction_is_explained_to_the_key_the_policy_and_the_signature() -> Result<()> {
    let network = Network::start("two-org-raft")?;
    either_organisation(&network)?;
    let only_first = explained(
        &network,
        &["basic", "CreateAsset", "half", "blue", "5", "Ada", "300", "--organisation", "Org1MSP"],
    )?;
    assert!(only_first.contains("the policy of chaincode basic is not met"), "{only_first}");
    assert!(only_first.contains("Org2MSP"), "{only_first}");

    network
        .consort(&[
            "tx",
            "submit",
            "agreement",
            "CreateAsset",
            "land",
            "green",
            "--transient",
            "asset_properties=secret",
        ])?
        .expect_success()?;
    let of_key = explained(
        &network,
        &["agreement", "ChangePublicDescription", "land", "brown", "--organisation", "Org2MSP"],
    )?;
    assert!(of_key.contains("the policy of key asset~land of agreement, set by transaction "), "{of_key}");
    assert!(
        of_key.contains("(agreement CreateAsset of User1@org1.example.com (Org1MSP), block "),
        "{of_key}"
    );

    let of_collection = explained(
        &network,
        &["vault", "PutPrivate", "pair", "price", "--transient", "value=7", "--organisation", "Org1MSP"],
    )?;
    assert!(of_collection.contains("the policy of collection pair of vault is not met"), "{of_collection}");
    assert!(
        !of_collection.contains("as it is defined now"),
        "the definition of the block is found: {of_collection}"
    );

    tokio::runtime::Runtime::new()?.block_on(conflicts(&network))
}

/// Chaincodes that one organisation may endorse, with stricter rules for one collection.
fn either_organisation(network: &Network) -> Result<()> {
    let any = "OR('Org1MSP.peer', 'Org2MSP.peer')";
    deploy(network, "agreement", "private-agreement", &["--endorsement-policy", any])?;
    let collections = network.config().join("collections.json");
    std::fs::write(
        &collections,
        r#"[{ "name": "pair", "policy": "OR('Org1MSP.member', 'Org2MSP.member')", "requiredPeerCount": 0, "maxPeerCount": 1,
             "endorsementPolicy": { "signaturePolicy": "AND('Org1MSP.peer', 'Org2MSP.peer')" } }]"#,
    )?;
    let collections = collections.display().to_string();
    deploy(network, "vault", "load", &["--endorsement-policy", any, "--collections-config", &collections])
}

/// Two transactions read the same key before either is ordered.
async fn conflicts(network: &Network) -> Result<()> {
    let organisation = network.peer_organisation("org1.example.com");
    let profile = ConnectionProfile::load(organisation.join("connection-org1.json"))?;
    let user = organisation.join("users/User1@org1.example.com/msp");
    let identity = ClientIdentity::from_folder(&user, profile.msp_id()?)?;
    let contract = Gateway::connect(&profile.gateways()?[0], identity.clone()).await?;
    let contract = contract.network("mychannel").contract("basic");
    damaged(network, &contract, &identity).await?;
    contract.submit("CreateAsset", ["wanted", "blue", "5", "Tomoko", "300"]).await?;
    let update = |owner: &str| contract.call("TransferAsset").arguments(["wanted", owner].map(str::to_owned));
    let (first, second) = (update("Ada").endorse().await?, update("Max").endorse().await?);
    let first = first.submit().await?.committed().await?.into_valid()?;
    let second = second.submit().await?.committed().await?;
    let said = network.consort(&["tx", "explain", &second.tx_id])?.expect_success()?;
    assert!(said.contains("MVCC_READ_CONFLICT"), "{said}");
    assert!(said.contains("key wanted of basic was read as transaction "), "{said}");
    assert!(
        said.contains(&format!("changed before this transaction's turn by transaction {}", first.tx_id)),
        "{said}"
    );
    phantoms(network, &contract).await
}

/// An endorser's signature is changed before the transaction is sent: it does not count, and the policy misses it.
async fn damaged(network: &Network, contract: &Contract, identity: &ClientIdentity) -> Result<()> {
    let asset = ["damaged", "blue", "5", "Ada", "1"].map(str::to_owned);
    let endorsed = contract.call("CreateAsset").arguments(asset).endorse().await?;
    let mut payload = Payload::decode(endorsed.payload().clone())?;
    let mut transaction = Transaction::decode(payload.data)?;
    let mut body = ChaincodeActionPayload::decode(transaction.actions[0].payload.clone())?;
    let endorsements = &mut body.action.as_mut().context("no action")?.endorsements;
    let of_another = endorsements[0].signature.clone();
    endorsements[1].signature = of_another;
    transaction.actions[0].payload = body.encode_to_vec().into();
    payload.data = transaction.encode_to_vec().into();
    let payload = Bytes::from(payload.encode_to_vec());
    let envelope = Envelope { signature: identity.sign(&payload)?, payload, ..Envelope::default() };
    let roots = network
        .data()
        .join("organizations/ordererOrganizations/example.com/tlsca/tlsca.example.com-cert.pem");
    let port = network.port(7050);
    let orderer = Endpoint::new(format!("orderer.example.com:{port}"), std::fs::read(roots)?)
        .connect_to(([127, 0, 0, 1], port).into());
    broadcast(&orderer, envelope).await?;
    let fate = contract.network().commit_status(endorsed.tx_id()).await?;
    assert!(!fate.is_valid(), "{fate:?}");
    let said = network.consort(&["tx", "explain", endorsed.tx_id()])?.expect_success()?;
    assert!(said.contains("ENDORSEMENT_POLICY_FAILURE"), "{said}");
    assert!(said.contains("the policy of chaincode basic is not met"), "{said}");
    let is_note = |line: &str| {
        line.contains("the signature of peer0.org")
            && line.ends_with("does not count: The signature is invalid")
    };
    assert!(said.lines().any(is_note), "{said}");
    Ok(())
}

/// A range of more keys than are recorded one by one (50 in Fabric) is read, and changed before the reader is ordered.
async fn phantoms(network: &Network, contract: &Contract) -> Result<()> {
    let asset =
        |number: u32| [format!("many{number:02}").as_str(), "blue", "5", "Tomoko", "300"].map(str::to_owned);
    try_join_all((0..60).map(|number| contract.submit("CreateAsset", asset(number)))).await?;
    let began = Instant::now();
    // Until both peers have the last block they read different ranges.
    let reader = loop {
        match contract.call("GetAllAssets").endorse().await {
            Err(error) if error.to_string().contains("do not match") => {
                anyhow::ensure!(began.elapsed() < Duration::from_secs(60), "{error}");
            }
            endorsed => break endorsed?,
        }
    };
    let appeared =
        contract.call("CreateAsset").arguments(["many30b", "red", "1", "Ada", "1"]).endorse().await?;
    let appeared = appeared.submit().await?.committed().await?.into_valid()?.tx_id;
    let vanished = contract.call("DeleteAsset").arguments(["many07"]).endorse().await?;
    let vanished = vanished.submit().await?.committed().await?.into_valid()?.tx_id;
    let read = reader.submit().await?.committed().await?;
    let said = network.consort(&["tx", "explain", &read.tx_id])?.expect_success()?;
    assert!(said.contains("PHANTOM_READ_CONFLICT"), "{said}");
    let lines: Vec<&str> = said.lines().filter(|line| line.contains(" the range from ")).collect();
    let named = [
        lines.iter().any(|line| line.contains("key many30b appeared in") && line.contains(&appeared)),
        lines.iter().any(|line| line.contains("key many07 vanished from") && line.contains(&vanished)),
    ];
    assert!(named == [true, true] && lines.len() == 2, "{said}");
    Ok(())
}

#[test]
fn the_doctor_finds_what_is_broken_and_says_what_to_do() -> Result<()> {
    let network = Network::start("two-org-raft")?;
    let well = network.consort(&["doctor"])?.expect_success()?;
    for area in
        ["certificates", "reachability", "clocks", "books", "policies", "chains", "ordering", "chaincodes"]
    {
        assert!(well.lines().any(|line| line.starts_with(area)), "{area} is not looked at:\n{well}");
    }
    assert!(!well.contains("fault") && !well.contains("do:"), "{well}");

    network.kill("peer0.org2.example.com")?;
    let organisation = network.peer_organisation("org1.example.com");
    std::fs::copy(
        organisation.join("users/User1@org1.example.com/tls/client.key"),
        organisation.join("peers/peer0.org1.example.com/tls/server.key"),
    )?;
    let ill = network.consort(&["doctor"])?.expect_failure()?;
    assert!(ill.contains("peer0.org2.example.com") && ill.contains("stopped"), "{ill}");
    assert!(ill.contains("do: consort network up"), "{ill}");
    assert!(ill.contains("server.key belongs to another certificate"), "{ill}");
    assert!(ill.contains("do: consort identity reenroll --cert"), "{ill}");
    assert!(ill.contains("chaincode basic 1.0 cannot be endorsed: 1 peer that are there have it"), "{ill}");
    let json = network.consort(&["doctor", "--output=json"])?;
    assert!(!json.success);
    let json: serde_json::Value = serde_json::from_str(&json.stdout)?;
    assert_eq!(json["ok"], false);
    let peers = network.consort(&["peer", "status"])?.expect_success()?;
    assert!(peers.contains("peer0.org1.example.com") && peers.contains("basic 1.0"), "{peers}");
    Ok(())
}
