//! What an operator's mistakes get: one clear message with cause and remedy, and no process left behind.

use std::net::TcpListener;

use anyhow::Result;
use consort_e2e::{Network, is_running};

fn leaves_no_process(network: &Network) {
    let records = std::fs::read_dir(network.data().join("processes"));
    let left: Vec<String> = records
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json").map(str::to_owned))
        .filter(|name| network.pid(name).is_ok_and(is_running))
        .collect();
    assert!(left.is_empty(), "still running: {left:?}");
}

#[test]
fn a_port_in_use_is_named_with_its_claimant_and_the_remedy() -> Result<()> {
    let network = Network::copy("one-org-solo")?;
    let topology = std::fs::read_to_string(network.config().join("network.yaml"))?;
    let peers = topology.split("peers:").nth(1).expect("the topology has peers");
    let port: u16 = peers
        .split(" port: ")
        .nth(1)
        .expect("a peer has a port")
        .split(|c: char| !c.is_ascii_digit())
        .next()
        .unwrap()
        .parse()?;
    let _squatter = TcpListener::bind(("127.0.0.1", port))?;

    let said = network.command("up")?.expect_failure()?;

    assert!(said.contains(&port.to_string()), "{said}");
    assert!(said.contains("peer0"), "{said}");
    assert!(said.contains("Remedy"), "{said}");
    leaves_no_process(&network);
    Ok(())
}

#[test]
fn every_fault_of_a_topology_is_reported_at_once_with_its_line() -> Result<()> {
    let network = Network::copy("one-org-solo")?;
    let path = network.config().join("network.yaml");
    let text = std::fs::read_to_string(&path)?;
    let wrong = text.replace("msp_id:", "msp_idd:").replacen("port: ", "port: 99", 1) + "\nunknown_key: 1\n";
    std::fs::write(&path, wrong)?;

    let said = network.command("up")?.expect_failure()?;

    assert!(said.contains("msp_idd") && said.contains("unknown_key"), "{said}");
    assert!(said.matches("network.yaml:").count() >= 3, "{said}");
    assert!(!network.data().join("processes").exists());
    Ok(())
}

#[test]
fn a_data_folder_of_another_topology_is_refused_with_the_remedy() -> Result<()> {
    let network = Network::start("one-org-solo")?;
    network.down()?;
    let path = network.config().join("network.yaml");
    let text = std::fs::read_to_string(&path)?;
    std::fs::write(&path, text.replace("Org1MSP", "OtherMSP"))?;

    let said = network.command("up")?.expect_failure()?;

    assert!(said.contains("Remedy") && said.contains("clean"), "{said}");
    leaves_no_process(&network);
    Ok(())
}

#[test]
fn a_certificate_that_does_not_match_its_key_is_named() -> Result<()> {
    let network = Network::start("one-org-solo")?;
    network.down()?;
    let organisation = network.peer_organisation("org1.example.com");
    std::fs::copy(
        organisation.join("users/User1@org1.example.com/tls/client.crt"),
        organisation.join("peers/peer0.org1.example.com/tls/server.crt"),
    )?;

    let said = network.command("up")?.expect_failure()?;

    assert!(said.contains("server.crt") && said.contains("server.key"), "{said}");
    leaves_no_process(&network);
    Ok(())
}

#[test]
fn a_chaincode_that_does_not_build_shows_the_compilers_message() -> Result<()> {
    let network = Network::copy("one-org-solo")?;
    let path = network.config().join("network.yaml");
    let broken = network.config().join("broken");
    std::fs::create_dir_all(broken.join("src"))?;
    std::fs::write(
        broken.join("Cargo.toml"),
        "[package]\nname = \"broken\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[lib]\ncrate-type = [\"cdylib\"]\n[workspace]\n",
    )?;
    std::fs::write(broken.join("src/lib.rs"), "this is not Rust")?;
    let text = std::fs::read_to_string(&path)?;
    let original = text
        .lines()
        .find(|line| line.trim_start().starts_with("path:"))
        .expect("a chaincode has a path")
        .to_owned();
    std::fs::write(&path, text.replace(&original, &format!("    path: {}", broken.display())))?;

    let said = network.command("up")?.expect_failure()?;

    assert!(said.contains("error") && said.contains("broken"), "{said}");
    leaves_no_process(&network);
    Ok(())
}

#[test]
fn a_refused_call_says_why() -> Result<()> {
    let network = Network::start("one-org-solo")?;

    let said = network
        .consort(&["tx", "submit", "basic", "UpdateAsset", "nothing", "blue", "5", "Ada", "300"])?
        .expect_failure()?;

    assert!(said.contains("The asset nothing does not exist"), "{said}");
    Ok(())
}
