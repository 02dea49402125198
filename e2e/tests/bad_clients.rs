//! Clients that send too much and clients that never read: they get a documented answer, and the peer's memory stays bounded.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use consort_client_sdk::blocks::follow;
use consort_client_sdk::{ClientIdentity, ConnectionProfile, Contract, Endpoint, Error, Gateway};
use consort_e2e::Network;
use futures::future::join_all;

const MIB: usize = 1024 * 1024;
const PEER: &str = "peer0.org1.example.com";

async fn application(network: &Network) -> Result<(Endpoint, ClientIdentity, Contract)> {
    let organisation = network.peer_organisation("org1.example.com");
    let profile = ConnectionProfile::load(organisation.join("connection-org1.json"))?;
    let user = organisation.join("users/User1@org1.example.com/msp");
    let identity = ClientIdentity::from_folder(&user, profile.msp_id()?)?;
    let endpoint = profile.gateways()?.remove(0);
    let contract =
        Gateway::connect(&endpoint, identity.clone()).await?.network("mychannel").contract("basic");
    Ok((endpoint, identity, contract))
}

fn resident(network: &Network) -> Result<usize> {
    Ok(usize::try_from(network.usage(PEER)?.0)?)
}

#[test]
fn huge_arguments_are_refused_and_many_large_ones_do_not_fill_the_memory() -> Result<()> {
    let network = Network::start("one-org-solo")?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let (endpoint, identity, contract) = application(&network).await?;
        let before = resident(&network)?;
        let refused = contract.evaluate("ReadAsset", [Bytes::from(vec![b'x'; 101 * MIB])]).await;
        let Err(Error::Refused { refusal, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(format!("{:?}", refusal.code), "ResourceExhausted", "{refusal}");

        // Twelve at once need more than the peer sets aside for large messages.
        let large = Bytes::from(vec![b'x'; 60 * MIB]);
        let calls = join_all((0..12).map(|_| async {
            let gateway = Gateway::connect(&endpoint, identity.clone()).await?;
            gateway.network("mychannel").contract("basic").evaluate("ReadAsset", [large.clone()]).await
        }));
        let watched = async {
            let mut most = 0;
            loop {
                most = most.max(resident(&network)?);
                tokio::time::sleep(Duration::from_millis(20)).await;
                if most > before + 2_048 * MIB {
                    return anyhow::Ok(most);
                }
            }
        };
        let answers = tokio::select! {
            answers = calls => answers,
            most = watched => panic!("the peer takes {} MiB", most? / MIB),
        };
        assert!(answers.iter().all(Result::is_err), "no asset has such a name");
        contract
            .submit("CreateAsset", ["after", "blue", "5", "Ada", "1"])
            .await
            .context("the peer goes on")?;
        Ok(())
    })
}

#[test]
fn streams_that_are_never_read_do_not_fill_the_memory() -> Result<()> {
    const STREAMS: usize = 100;
    let network = Network::start("one-org-solo")?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let (endpoint, identity, contract) = application(&network).await?;
        let colour = "x".repeat(400 * 1024);
        for id in 0..6 {
            contract
                .submit("CreateAsset", [&format!("a{id}"), &colour, "5", "Ada", "1"].map(String::from))
                .await?;
        }
        let before = resident(&network)?;
        // What is not read fills the window of its whole connection (RFC 9113, section 5.2), so the readers have one of their own.
        let readers = Gateway::connect(&endpoint, identity.clone()).await?.network("mychannel");
        let (mut blocks, mut events) = (Vec::new(), Vec::new());
        for _ in 0..STREAMS {
            blocks.push(follow(&endpoint, &identity, "mychannel", Some(0)).await?);
            events.push(readers.chaincode_events("basic").from_block(0).open().await?);
        }
        for id in 6..30 {
            contract
                .submit("CreateAsset", [&format!("a{id}"), &colour, "5", "Ada", "1"].map(String::from))
                .await?;
        }
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            let grown = resident(&network)?.saturating_sub(before);
            // All that the streams have to be given is 30 assets, twice (as write and as event), for each of 200 readers: 4.8 GB.
            ensure!(grown < 1_536 * MIB, "{} MiB for {} streams", grown / MIB, 2 * STREAMS);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("{} MiB for {} streams", resident(&network)?.saturating_sub(before) / MIB, 2 * STREAMS);
        Ok(())
    })
}
