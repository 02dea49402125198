//! The reader of docs/events.md: handles the events of `basic` and remembers where it is.
//!
//! Run against `make up`: `cargo run -p consort-client-sdk --example events -- .consort/two-org-raft checkpoint.json`

use std::path::Path;

use anyhow::Context;
use consort_client_sdk::checkpoint::{Checkpoint, Checkpointer, InFile};
use consort_client_sdk::{ChaincodeEvent, ClientIdentity, ConnectionProfile, Gateway};
use futures::StreamExt;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().context("name the network's data folder")?;
    let place = arguments.next().context("name the file for the checkpoint")?;

    let organisation = Path::new(&folder).join("organizations/peerOrganizations/org1.example.com");
    let profile = ConnectionProfile::load(organisation.join("connection-org1.json"))?;
    let user = organisation.join("users/User1@org1.example.com/msp");
    let identity = ClientIdentity::from_folder(&user, profile.msp_id()?)?;
    let network = Gateway::connect(&profile.gateways()?[0], identity).await?.network("mychannel");

    let mut checkpoint = InFile::new(place);
    let mut events = network.chaincode_events("basic").from_checkpoint(&checkpoint.load()?).open().await?;
    println!("listening");
    while let Some(event) = events.next().await {
        let event = event?;
        handle(&event);
        checkpoint.save(Checkpoint::after_event(&event))?;
    }
    Ok(())
}

fn handle(event: &ChaincodeEvent) {
    println!("{} {}", event.name, String::from_utf8_lossy(&event.payload));
}
