//! `kill -9` of nodes under a running network: what was committed stays, and the network goes on.

use std::time::{Duration, Instant};

use anyhow::Result;
use consort_e2e::Network;

fn create(network: &Network, id: &str) -> Result<()> {
    let committed = network.json(&["tx", "submit", "basic", "CreateAsset", id, "blue", "5", "Ada", "300"])?;
    assert_eq!(committed["code"], "VALID", "{committed}");
    Ok(())
}

/// Who owns an asset, as soon as a peer knows it; a peer that was cut off may need a moment to catch up.
fn owner_at(network: &Network, peer: &str, id: &str) -> Result<String> {
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        match network.json(&["tx", "evaluate", "basic", "ReadAsset", id, "--peer", peer]) {
            Ok(read) => {
                let asset: serde_json::Value =
                    serde_json::from_str(read["result"].as_str().unwrap_or_default())?;
                return Ok(asset["Owner"].as_str().unwrap_or_default().to_owned());
            }
            Err(error) if Instant::now() > limit => return Err(error),
            Err(_) => {}
        }
    }
}

#[test]
fn a_network_survives_kill_9_of_an_orderer_and_of_a_peer() -> Result<()> {
    let network = Network::start("two-org-raft")?;
    create(&network, "before")?;

    network.kill("orderer.example.com")?;
    create(&network, "without-an-orderer")?;
    network.up()?;
    create(&network, "with-the-orderer-again")?;

    network.kill("peer0.org2.example.com")?;
    network.up()?;
    create(&network, "with-the-peer-again")?;
    for id in ["before", "without-an-orderer", "with-the-orderer-again", "with-the-peer-again"] {
        assert_eq!(owner_at(&network, "peer0.org1.example.com", id)?, "Ada");
        assert_eq!(owner_at(&network, "peer0.org2.example.com", id)?, "Ada");
    }

    // All at once, as in a power cut.
    for process in
        ["orderer.example.com", "orderer2.example.com", "orderer3.example.com", "peer0.org1.example.com"]
    {
        network.kill(process)?;
    }
    network.up()?;
    create(&network, "after-the-power-cut")?;
    assert_eq!(owner_at(&network, "peer0.org1.example.com", "before")?, "Ada");
    assert_eq!(owner_at(&network, "peer0.org2.example.com", "after-the-power-cut")?, "Ada");
    Ok(())
}
