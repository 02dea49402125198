//! The published Node clients judge a running network: that of the gateway, and the older one that does without it.

use std::process::Command;

use anyhow::{Context, Result};
use consort_e2e::{Network, node_client};

#[test]
fn the_published_gateway_client_works_unchanged() -> Result<()> {
    gateway_client(&Network::start("two-org-raft")?, 7051, 9051)
}

#[test]
fn the_published_gateway_client_works_unchanged_where_endorsers_are_named_by_number() -> Result<()> {
    gateway_client(&Network::start("registered")?, 20051, 21051)
}

#[test]
fn the_published_gateway_client_works_unchanged_where_endorsers_sign_together() -> Result<()> {
    gateway_client(&Network::start("aggregated")?, 23051, 24051)
}

/// Runs the client as a user of the first organisation against its peer, with that of the second as another one.
fn gateway_client(network: &Network, first_port: u16, second_port: u16) -> Result<()> {
    let folder = node_client()?;
    let other = network.peer_organisation("org2.example.com").join("peers/peer0.org2.example.com/tls/ca.crt");

    let output = Command::new("node")
        .arg("gateway.mjs")
        .current_dir(&folder)
        .env("CRYPTO_PATH", network.peer_organisation("org1.example.com"))
        .env("MSP_ID", "Org1MSP")
        .env("USER_NAME", "User1@org1.example.com")
        .env("PEER_ENDPOINT", format!("127.0.0.1:{}", network.port(first_port)))
        .env("PEER_HOST_ALIAS", "peer0.org1.example.com")
        .env("OTHER_PEER_ENDPOINT", format!("127.0.0.1:{}", network.port(second_port)))
        .env("OTHER_PEER_HOST_ALIAS", "peer0.org2.example.com")
        .env("OTHER_TLS_CERT_PATH", other)
        .output()
        .context("node is missing: .ci/setup test installs it")?;

    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for step in [
        "evaluate and submit",
        "submit by steps",
        "off-line signing",
        "chaincode events",
        "filtered block events",
        "block events",
        "private data events",
        "checkpoints",
        "named organisations",
        "refusals",
        "the other organisation reads the same",
    ] {
        assert!(said.contains(&format!("ok {step}")), "the client did not get to '{step}':\n{said}");
    }
    Ok(())
}

#[test]
fn the_older_published_client_works_unchanged() -> Result<()> {
    let folder = node_client()?;
    let network = Network::start("two-org-raft")?;
    let organisation = network.peer_organisation("org1.example.com");
    let scratch = tempfile::tempdir()?;

    let output = Command::new("node")
        .arg("network.mjs")
        .current_dir(&folder)
        .env("CRYPTO_PATH", &organisation)
        .env("CONNECTION_PROFILE", organisation.join("connection-org1.json"))
        .env("MSP_ID", "Org1MSP")
        .env("USER_NAME", "User1@org1.example.com")
        .env("SCRATCH", scratch.path())
        .output()
        .context("node is missing: .ci/setup test installs it")?;

    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for step in [
        "discovery",
        "endorse and broadcast",
        "named organisations",
        "listeners",
        "checkpoint",
        "refusals",
        "strategies",
        "host names",
    ] {
        assert!(said.contains(&format!("ok {step}")), "the client did not get to '{step}':\n{said}");
    }
    Ok(())
}
