//! A network whose channel keeps a table of identities: what stands in its transactions, and how large they are.

use std::path::Path;

use anyhow::{Context, Result};
use consort_client_sdk::blocks::{BlockPosition, BlockServer, fetch_block};
use consort_client_sdk::decode::{DecodedBlock, DecodedTransaction, Kind, Signer};
use consort_client_sdk::registered::{EntryStatus, RegisteredIdentities};
use consort_client_sdk::{ClientIdentity, Committed, ConnectionProfile, Endpoint, Gateway};
use consort_e2e::{Network, Outcome, consort};
use consort_protos::entry::EntryNumber;

/// Every organisation endorses.
const ORGANISATIONS: [&str; 3] = ["Org1MSP", "Org2MSP", "Org3MSP"];

struct Application<'n> {
    network: &'n Network,
    endpoint: Endpoint,
    msp_id: String,
}

impl<'n> Application<'n> {
    fn new(network: &'n Network) -> Result<Self> {
        let organisation = network.peer_organisation("org1.example.com");
        let profile = ConnectionProfile::load(organisation.join("connection-org1.yaml"))?;
        let msp_id = profile.msp_id()?.to_owned();
        Ok(Self { network, endpoint: profile.gateways()?.remove(0), msp_id })
    }

    fn identity(&self, user: &str) -> Result<ClientIdentity> {
        Ok(ClientIdentity::from_folder(&self.msp(user), &self.msp_id)?)
    }

    fn msp(&self, user: &str) -> std::path::PathBuf {
        let organisation = self.network.peer_organisation("org1.example.com");
        organisation.join("users").join(format!("{user}@org1.example.com")).join("msp")
    }

    async fn create(&self, identity: &ClientIdentity, id: &str) -> Result<Committed> {
        let gateway = Gateway::connect(&self.endpoint, identity.clone()).await?;
        let contract = gateway.network("mychannel").contract("basic");
        let call = contract.call("CreateAsset").arguments([id, "blue", "5", "Ada", "300"].map(str::to_owned));
        let endorsed = call.endorsing_organisations(ORGANISATIONS).endorse().await?;
        Ok(endorsed.submit().await?.committed().await?)
    }

    /// A committed transaction as it lies in its block, with the size of its envelope.
    async fn committed(&self, committed: &Committed) -> Result<(DecodedTransaction, usize)> {
        let (position, reader) = (BlockPosition::Number(committed.block), self.identity("User1")?);
        let block = fetch_block(&self.endpoint, BlockServer::Peer, &reader, "mychannel", position).await?;
        let decoded = DecodedBlock::new(&block)?;
        let found = decoded.transactions.into_iter().find(|found| found.tx_id == committed.tx_id);
        let found = found.context("the block holds the transaction")?;
        let size = found.opened.as_ref().context("it opens")?.raw.len();
        Ok((found, size))
    }
}

fn endorsers(transaction: &DecodedTransaction) -> Vec<Signer> {
    match &transaction.kind {
        Kind::Invocation(invocation) => invocation.endorsers.clone(),
        other => panic!("no invocation: {other:?}"),
    }
}

fn certificate(folder: &Path) -> Result<Vec<u8>> {
    Ok(std::fs::read(folder.join("signcerts/cert.pem"))?)
}

#[test]
fn transactions_name_their_signers_by_number() -> Result<()> {
    let network = Network::start("registered")?;
    let listed = identities(&network, &["list", "--output", "json"])?.expect_success()?;
    let listed: serde_json::Value = serde_json::from_str(&listed)?;
    let entries = listed["entries"].as_array().context("entries")?;
    assert_eq!(entries.len(), 3, "`network up` registers every peer: {listed}");
    tokio::runtime::Runtime::new()?.block_on(async {
        let application = Application::new(&network)?;
        let user = application.identity("User1")?;
        let by_certificate = application.create(&user, "a").await?;
        assert!(by_certificate.is_valid());
        let (transaction, with_entries) = application.committed(&by_certificate).await?;
        assert!(endorsers(&transaction).iter().all(|endorser| endorser.entry.is_some()), "{transaction:?}");
        assert_eq!(transaction.creator.context("a creator")?.msp_id, "Org1MSP", "the client sends its certificate");

        // The client registers, and is named by number from then on.
        let admin = Gateway::connect(&application.endpoint, application.identity("Admin")?).await?;
        let table = RegisteredIdentities::new(&admin.network("mychannel"));
        let own = certificate(&application.msp("User1"))?;
        let entry = table.register(own.clone(), None).await?;
        assert_eq!(entry.number, 3);
        assert_eq!(table.of_certificate("Org1MSP", own).await?, entry);
        let named = user.clone().named_by(&entry);
        let by_number = application.create(&named, "b").await?;
        assert!(by_number.is_valid(), "{by_number:?}");
        let (transaction, all_entries) = application.committed(&by_number).await?;
        assert_eq!(transaction.creator.context("a creator")?.entry.map(EntryNumber::get), Some(3));
        println!("three endorsements: {with_entries} bytes with the client's certificate, {all_entries} by numbers alone");
        assert!(all_entries < 1_200, "{all_entries} bytes");

        // What is retired counts no more, at the door already.
        table.retire(entry.number).await?;
        assert_eq!(table.get(entry.number).await?.status, EntryStatus::Retired as i32);
        let refused = application.create(&named, "c").await.err().context("refused")?;
        assert!(format!("{refused:?}").contains("creator"), "{refused:?}");
        assert!(application.create(&user, "c").await?.is_valid(), "the certificate itself is as good as ever");
        shows_who_is_behind(&network, &by_number)
    })
}

/// `consort channel identities ...` on a network.
fn identities(network: &Network, arguments: &[&str]) -> Result<Outcome> {
    let data = network.data();
    let data = data.to_string_lossy();
    let command = ["channel", "identities"].into_iter().chain(arguments.iter().copied());
    consort(&command.chain(["--network", &data]).collect::<Vec<_>>())
}

/// The tool shows the identity behind a number.
fn shows_who_is_behind(network: &Network, committed: &Committed) -> Result<()> {
    let block = network.consort(&["block", "show", &committed.block.to_string()])?.expect_success()?;
    assert!(block.contains("by entry 3: User1"), "{block}");
    assert!(block.contains("entry 0: peer0.org1.example.com (Org1MSP)"), "{block}");
    let explained = network.consort(&["tx", "explain", &committed.tx_id])?.expect_success()?;
    assert!(explained.contains("entry 2: peer0.org3.example.com (Org3MSP)"), "{explained}");
    let foreign = ["retire", "0", "--as", "Admin@org2.example.com"];
    let refused = identities(network, &foreign)?.expect_failure()?;
    assert!(refused.contains("entry 0 is Org1MSP's"), "{refused}");
    Ok(())
}
