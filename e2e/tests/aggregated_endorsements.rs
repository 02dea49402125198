//! A network whose endorsers endorse together: what stands in its transactions, how large they are, and how keys change
//! while it runs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use consort_client_sdk::blocks::{BlockPosition, BlockServer, fetch_block};
use consort_client_sdk::registered::RegisteredIdentities;
use consort_client_sdk::{ClientIdentity, Committed, ConnectionProfile, Endpoint, Gateway};
use consort_e2e::{Network, consort};
use consort_protos::signers;
use consort_protos::transaction::Transaction;

/// Every organisation endorses.
const ORGANISATIONS: [&str; 3] = ["Org1MSP", "Org2MSP", "Org3MSP"];

/// A small transaction with three endorsements, by entries and with an aggregate.
const ENVELOPE_BYTES_MAX: usize = 900;

/// Files of a running peer are looked at every five seconds.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(30);

struct Application<'n> {
    network: &'n Network,
    endpoint: Endpoint,
}

impl<'n> Application<'n> {
    fn new(network: &'n Network) -> Result<Self> {
        let organisation = network.peer_organisation("org1.example.com");
        let profile = ConnectionProfile::load(organisation.join("connection-org1.yaml"))?;
        Ok(Self { network, endpoint: profile.gateways()?.remove(0) })
    }

    fn msp(&self, user: &str) -> PathBuf {
        let organisation = self.network.peer_organisation("org1.example.com");
        organisation.join("users").join(format!("{user}@org1.example.com")).join("msp")
    }

    fn identity(&self, user: &str) -> Result<ClientIdentity> {
        Ok(ClientIdentity::from_folder(&self.msp(user), "Org1MSP")?)
    }

    async fn create(&self, identity: &ClientIdentity, id: &str) -> Result<Committed> {
        let gateway = Gateway::connect(&self.endpoint, identity.clone()).await?;
        let contract = gateway.network("mychannel").contract("basic");
        let call = contract.call("CreateAsset").arguments([id, "blue", "5", "Ada", "300"].map(str::to_owned));
        let endorsed = call.endorsing_organisations(ORGANISATIONS).endorse().await?;
        Ok(endorsed.submit().await?.committed().await?)
    }

    /// A committed transaction as it lies in its block.
    async fn committed(&self, committed: &Committed) -> Result<Transaction> {
        let (position, reader) = (BlockPosition::Number(committed.block), self.identity("User1")?);
        let block = fetch_block(&self.endpoint, BlockServer::Peer, &reader, "mychannel", position).await?;
        let entries = consort_protos::block::envelopes(&block).iter();
        let mut opened = entries.filter_map(|entry| Transaction::open(entry.clone()).ok());
        opened.find(|found| found.tx_id == committed.tx_id).context("the block holds the transaction")
    }

    /// The entries that endorsed together; nobody endorsed alone.
    async fn signers(&self, committed: &Committed) -> Result<Vec<u64>> {
        anyhow::ensure!(committed.is_valid(), "{committed:?}");
        let transaction = self.committed(committed).await?;
        let endorser = transaction.endorser().context("an invocation")?;
        anyhow::ensure!(endorser.endorsements.is_empty(), "{} endorse alone", endorser.endorsements.len());
        let aggregate = endorser.aggregate.as_ref().context("an aggregate")?;
        signers::decode(&aggregate.signers).context("a set of signers")
    }
}

#[test]
fn three_endorsers_leave_one_signature_and_change_their_keys_while_the_network_runs() -> Result<()> {
    let network = Network::start("aggregated")?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let application = Application::new(&network)?;
        let user = application.identity("User1")?;
        let first = application.create(&user, "a").await?;
        assert_eq!(application.signers(&first).await?, [0, 1, 2]);
        let with_certificate = application.committed(&first).await?.raw.len();

        // With the client named by its entry, too.
        let admin = Gateway::connect(&application.endpoint, application.identity("Admin")?).await?;
        let table = RegisteredIdentities::new(&admin.network("mychannel"));
        let own = std::fs::read(application.msp("User1").join("signcerts/cert.pem"))?;
        let named = user.clone().named_by(&table.register(own, None).await?);
        let second = application.create(&named, "b").await?;
        assert_eq!(application.signers(&second).await?, [0, 1, 2]);
        let size = application.committed(&second).await?.raw.len();
        println!("three endorsements: {with_certificate} bytes with the client's certificate, {size} with entries alone");
        assert!(size <= ENVELOPE_BYTES_MAX, "{size} bytes");
        let shown = network.consort(&["block", "show", &second.block.to_string()])?.expect_success()?;
        assert!(shown.contains("entry 2: peer0.org3.example.com (Org3MSP)"), "{shown}");

        renew(&network)?;
        // No transaction fails meanwhile, and each carries an aggregate.
        let deadline = Instant::now() + TAKEN_OVER_WITHIN;
        let mut transactions = 0;
        while application.signers(&application.create(&named, &format!("c{transactions}")).await?).await? != [1, 2, 4] {
            anyhow::ensure!(Instant::now() < deadline, "the peer does not sign with its new key");
            transactions += 1;
        }
        identities(&network, &["retire", "0"])?;
        let last = application.create(&named, "d").await?;
        assert_eq!(application.signers(&last).await?, [1, 2, 4]);
        Ok(())
    })
}

/// Gives the peer of the first organisation a new certificate with a new BLS key, and registers it beside the entry before it.
fn renew(network: &Network) -> Result<()> {
    let msp = network.peer_organisation("org1.example.com").join("peers/peer0.org1.example.com/msp");
    let msp = msp.to_str().context("a path in UTF-8")?;
    network
        .consort(&["identity", "reenroll", "--msp", msp, "--bls", "--msp-id", "Org1MSP"])?
        .expect_success()?;
    let keys = std::fs::read_dir(std::path::Path::new(msp).join("blskeystore"))?.count();
    assert_eq!(keys, 2, "the key before stays until its entry is retired");
    identities(network, &["renew", "0", msp])
}

/// `consort channel identities ...` on a network, by the administrator of the first organisation.
fn identities(network: &Network, arguments: &[&str]) -> Result<()> {
    let data = network.data();
    let data = data.to_string_lossy();
    let command = ["channel", "identities"].into_iter().chain(arguments.iter().copied());
    let by = ["--as", "Admin@org1.example.com", "--network", &data];
    consort(&command.chain(by).collect::<Vec<_>>())?.expect_success()?;
    Ok(())
}
