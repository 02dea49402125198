//! The application of docs/first-application.md: reads a profile, creates an asset, reads it.
//!
//! Run against `make up`: `cargo run -p consort-client-sdk --example first_application -- .consort/two-org-raft`

use std::path::Path;

use anyhow::Context;
use consort_client_sdk::{ClientIdentity, ConnectionProfile, Gateway};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let network = std::env::args().nth(1).context("name the network's data folder")?;

    let organisation = Path::new(&network).join("organizations/peerOrganizations/org1.example.com");
    let profile = ConnectionProfile::load(organisation.join("connection-org1.json"))?;
    let user = organisation.join("users/User1@org1.example.com/msp");
    let identity = ClientIdentity::from_folder(&user, profile.msp_id()?)?;
    let gateway = Gateway::connect(&profile.gateways()?[0], identity).await?;

    let contract = gateway.network("mychannel").contract("basic");
    contract.submit("CreateAsset", ["asset8", "red", "3", "Ada", "100"]).await?;
    let asset = contract.evaluate("ReadAsset", ["asset8"]).await?;

    println!("{}", String::from_utf8_lossy(&asset));
    Ok(())
}
