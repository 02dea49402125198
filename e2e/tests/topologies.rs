//! Other shapes of network than the demo's.

use anyhow::Result;
use consort_e2e::{Network, is_running};

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
