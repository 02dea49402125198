//! Other shapes of network than the demo's.

use anyhow::Result;
use consort_e2e::{Network, consort, is_running};

#[test]
fn one_organisation_with_one_peer_and_one_orderer_works() -> Result<()> {
    let network = Network::start("one-org-solo")?;
    let committed =
        network.json(&["tx", "submit", "basic", "CreateAsset", "a", "blue", "5", "Ada", "300"])?;
    assert_eq!(committed["code"], "VALID", "{committed}");
    Ok(())
}

#[test]
fn three_organisations_with_five_peers_and_three_orderers_work() -> Result<()> {
    let network = Network::start("three-org")?;
    let committed =
        network.json(&["tx", "submit", "basic", "CreateAsset", "a", "blue", "5", "Ada", "300"])?;
    assert_eq!(committed["code"], "VALID", "{committed}");
    let read = network.json(&["tx", "evaluate", "basic", "ReadAsset", "a"])?;
    assert!(read["result"].as_str().unwrap_or_default().contains("\"Owner\":\"Ada\""), "{read}");
    Ok(())
}

#[test]
fn stopping_and_starting_keeps_the_data_and_leaves_no_process() -> Result<()> {
    let network = Network::start("one-org-solo")?;
    network.json(&["tx", "submit", "basic", "CreateAsset", "kept", "blue", "5", "Ada", "300"])?;
    let processes: Vec<String> = std::fs::read_dir(network.data().join("processes"))?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json").map(str::to_owned))
        .collect();
    let pids: Vec<u32> = processes.iter().map(|name| network.pid(name)).collect::<Result<_>>()?;

    network.down()?;
    for pid in pids {
        assert!(!is_running(pid), "pid {pid} outlived `network down`");
    }
    network.up()?;
    let read = network.json(&["tx", "evaluate", "basic", "ReadAsset", "kept"])?;
    assert!(read["result"].as_str().unwrap_or_default().contains("\"ID\":\"kept\""), "{read}");
    Ok(())
}

#[test]
fn an_intermediate_authority_issues_while_its_root_may_be_off() -> Result<()> {
    let network = Network::start("intermediate-ca")?;
    let msp = network.peer_organisation("org1.example.com").join("msp");
    let show = |folder: &str| -> Result<serde_json::Value> {
        let file = msp.join(folder);
        let file = file.to_string_lossy();
        let shown = consort(&["identity", "show", &file, "--output", "json"])?.expect_success()?;
        Ok(serde_json::from_str(&shown)?)
    };
    let subject = |folder: &str| -> Result<String> { Ok(show(folder)?[0]["subject"].to_string()) };
    assert!(subject("cacerts/ca.org1.example.com-cert.pem")?.contains("CN=rca.org1.example.com"));
    assert!(subject("intermediatecerts/ca.org1.example.com-cert.pem")?.contains("CN=ca.org1.example.com"));
    assert!(
        subject("tlsintermediatecerts/tlsca.org1.example.com-cert.pem")?.contains("CN=ca.org1.example.com")
    );
    let peer = network.peer_organisation("org1.example.com").join("peers/peer0.org1.example.com");
    let peer_msp = peer.join("msp");
    consort(&["doctor", "--msp", &peer_msp.to_string_lossy(), "--mspid", "Org1MSP"])?.expect_success()?;
    let shown = std::fs::read_to_string(peer.join("tls/server.crt"))?;
    assert_eq!(shown.matches("BEGIN CERTIFICATE").count(), 2, "the peer shows what lies below the root");

    network.kill("rca-org1")?;
    let committed =
        network.json(&["tx", "submit", "basic", "CreateAsset", "a", "blue", "5", "Ada", "300"])?;
    assert_eq!(committed["code"], "VALID", "{committed}");
    let registered = network.json(&["identity", "register", "--id", "alice"])?;
    assert!(registered["secret"].is_string(), "{registered}");

    // Everything again: the root comes back, nobody enrols a second time.
    network.down()?;
    network.up()?;
    let read = network.json(&["tx", "evaluate", "basic", "ReadAsset", "a"])?;
    assert!(read["result"].as_str().unwrap_or_default().contains("\"ID\":\"a\""), "{read}");
    Ok(())
}
