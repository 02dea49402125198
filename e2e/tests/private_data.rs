//! Private data on a running network of three organisations, two of which are members: the published Node client, a peer that was down, and
//! what those learn who are no members: from disks, logs, metrics, blocks, refusals and discovery.

mod outsider;

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use consort_client_sdk::Gateway;
use consort_e2e::{Network, node_client, repository};

use outsider::{Outsider, Secret, check, holders, log_everything, metrics};

/// Part of every private value of the test.
const SECRET: &str = "kept-between-two-8f3a61c0";

const COLLECTIONS: &str = r#"[
    { "name": "pair", "policy": "OR('MakerMSP.member', 'CarrierMSP.member')", "requiredPeerCount": 1, "maxPeerCount": 3,
      "memberOnlyRead": true, "memberOnlyWrite": true },
    { "name": "salted", "policy": "OR('MakerMSP.member', 'CarrierMSP.member')", "requiredPeerCount": 1, "maxPeerCount": 3,
      "memberOnlyRead": true, "saltedHashes": true },
    { "name": "signed", "policy": "OR('MakerMSP.member', 'CarrierMSP.member')", "requiredPeerCount": 1, "maxPeerCount": 3,
      "endorsementPolicy": { "signaturePolicy": "AND('MakerMSP.peer', 'CarrierMSP.peer')" } },
    { "name": "brief", "policy": "OR('MakerMSP.member', 'CarrierMSP.member')", "requiredPeerCount": 0, "maxPeerCount": 3,
      "blockToLive": 3 },
    { "name": "everybody", "policy": "OR('MakerMSP.member', 'CarrierMSP.member')", "requiredPeerCount": 4, "maxPeerCount": 4 }
]"#;

fn deploy(network: &Network, name: &str, example: &str, more: &[&str]) -> Result<()> {
    let path = repository().join("chaincode-sdk/examples").join(example);
    let path = path.display().to_string();
    let mut arguments = vec!["chaincode", "deploy", name, "--version", "1.0", "--path", &path];
    arguments.extend(more);
    network.consort(&arguments)?.expect_success().map(drop)
}

/// Deploys what the test calls, and what must not come to be.
fn deploys(network: &Network) -> Result<()> {
    let collections = network.config().join("collections.json");
    std::fs::write(&collections, COLLECTIONS)?;
    let any = "OR('MakerMSP.peer', 'CarrierMSP.peer', 'ShopMSP.peer')";
    let two = "OutOf(2, 'MakerMSP.peer', 'CarrierMSP.peer', 'ShopMSP.peer')";
    let collections = collections.display().to_string();
    deploy(network, "vault", "load", &["--endorsement-policy", two, "--collections-config", &collections])?;
    deploy(network, "agreement", "private-agreement", &["--endorsement-policy", any])?;
    let fresh = ["--init-required", "--endorsement-policy", any, "--collections-config", &collections];
    deploy(network, "fresh", "load", &fresh)?;
    let write = ["tx", "submit", "fresh", "PutPrivate", "pair", "price", "--transient", "value=1", "--init"];
    let refused =
        network.consort(&[&write[..], &["--as", "User1@maker.example.com"]].concat())?.expect_failure()?;
    assert!(refused.contains("private data APIs are not allowed in chaincode Init()"), "{refused}");
    let contradiction = network.config().join("contradiction.json");
    std::fs::write(&contradiction, COLLECTIONS.replace("CarrierMSP.member", "CarierMSP.member"))?;
    let path = repository().join("chaincode-sdk/examples/load").display().to_string();
    let contradiction = contradiction.display().to_string();
    let refused = network
        .consort(&[
            "chaincode",
            "deploy",
            "typo",
            "--version",
            "1",
            "--path",
            &path,
            "--collections-config",
            &contradiction,
        ])?
        .expect_failure()?;
    assert!(refused.contains("collection member 'CarierMSP' is not part of the channel"), "{refused}");
    Ok(())
}

fn lacking(network: &Network, peer: &str) -> Result<Vec<serde_json::Value>> {
    let domain = peer.split_once('.').context("a host name")?.1;
    let status = network.json(&["peer", "private", "--peer", peer, "--as", &format!("Admin@{domain}")])?;
    Ok(status["lacking"].as_array().cloned().unwrap_or_default())
}

/// Waits until a peer has a value and lacks nothing.
fn catches_up(network: &Network, peer: &str) -> Result<()> {
    let limit = Instant::now() + Duration::from_secs(60);
    let read = ["tx", "evaluate", "vault", "GetPrivate", "pair", "price", "--peer", peer];
    let arguments = [&read[..], &["--as", "User1@carrier.example.com"]].concat();
    loop {
        let value = network.json(&arguments);
        let done = value.as_ref().is_ok_and(|value| value["result"] == format!("{SECRET}-pair"));
        if done && lacking(network, peer)?.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < limit, "{peer} does not catch up: {value:?}");
    }
}

#[test]
fn two_of_three_organisations_keep_data_between_them() -> Result<()> {
    let client = node_client()?;
    let network = Network::start("three-org")?;
    deploys(&network)?;
    log_everything(&network)?;
    network.kill("peer1.carrier.example.com")?;
    let ports = [("Maker", 27051), ("Carrier", 28051), ("Shop", 29051)];
    let ports: serde_json::Map<_, _> =
        ports.iter().map(|(name, port)| ((*name).to_owned(), network.port(*port).into())).collect();
    let output = Command::new("node")
        .arg("private.mjs")
        .current_dir(client)
        .env("ORGANISATIONS", network.data().join("organizations/peerOrganizations"))
        .env("PORTS", serde_json::Value::Object(ports).to_string())
        .env("SECRET", SECRET)
        .output()
        .context("node is missing: .ci/setup test installs it")?;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for step in [
        "members write and read",
        "private data events",
        "writes that cannot be",
        "ranges and purging",
        "others are refused",
        "salted hashes",
        "collection policies",
        "blocks to live",
        "private agreement",
    ] {
        assert!(said.contains(&format!("ok {step}")), "the client did not get to '{step}':\n{said}");
    }

    network.up()?;
    catches_up(&network, "peer1.carrier.example.com")?;
    // Only the one that was down is left to answer for its organisation.
    network.kill("peer0.carrier.example.com")?;
    catches_up(&network, "peer1.carrier.example.com")?;

    network.up()?;
    let secrets = [Secret::new("a private value", SECRET.as_bytes())];
    let data = network.data();
    assert!(!holders(&data.join("peers/peer0.maker.example.com"), &secrets)?.is_empty(), "the search works");
    assert_eq!(holders(&data.join("peers/peer0.shop.example.com"), &secrets)?, [] as [String; 0]);
    assert_eq!(holders(&data.join("orderers"), &secrets)?, [] as [String; 0]);
    assert_eq!(holders(&data.join("logs"), &secrets)?, [] as [String; 0], "members' logs neither");
    let log = std::fs::read(data.join("logs/peer0.shop.example.com.log"))?;
    assert!(String::from_utf8_lossy(&log).contains("TRACE"), "everything was logged");
    for text in metrics(&network)? {
        check(&secrets, "the metrics of a node", text.as_bytes());
    }
    tokio::runtime::Runtime::new()?.block_on(a_non_member_learns_nothing(&network, &secrets))
}

/// What a user of the third organisation gets from its own peer and from members' peers.
async fn a_non_member_learns_nothing(network: &Network, secrets: &[Secret]) -> Result<()> {
    let as_shop = ("shop", "ShopMSP", "User1");
    let own = Outsider::new(network, as_shop, ("trade", 29051))?;
    let blocks = own.blocks().await?;
    assert!(blocks.iter().any(|block| Secret::new("", b"PutPrivate").is_in(block)), "the writes are there");
    blocks.iter().for_each(|block| check(secrets, "a block", block));
    for (peer, port) in [("maker", 27051), ("carrier", 28051), ("shop", 29051)] {
        let asking = own.at(network, peer, port)?;
        check(secrets, "discovery", &asking.discovered("vault", &["pair", "salted"]).await?);
        let gateway = Gateway::connect(&asking.peer, own.identity.clone()).await?;
        let vault = gateway.network("trade").contract("vault");
        let agreement = gateway.network("trade").contract("agreement");
        for (contract, function, arguments) in [
            (&vault, "GetPrivate", vec!["pair", "price"]),
            (&vault, "GetPrivate", vec!["salted", "price"]),
            (&vault, "RangePrivate", vec!["pair", "a", "z"]),
            (&agreement, "ReadPrivateProperties", vec!["land"]),
        ] {
            let answer = contract.evaluate(function, arguments.clone()).await;
            assert!(answer.is_err(), "{function} {arguments:?} at {peer}: {answer:?}");
            check(secrets, "a refusal", format!("{answer:?}").as_bytes());
            let answer = contract.call(function).arguments(arguments).endorse().await.map(|_| ());
            check(secrets, "a refused endorsement", format!("{answer:?}").as_bytes());
        }
        // What it may ask for: hashes.
        check(secrets, "a hash", &vault.evaluate("HashPrivate", ["pair", "price"]).await?);
    }
    Ok(())
}
