//! A revoked certificate on a running network: refused at every door within seconds of the channel's configuration, while what was
//! signed before stays valid. Everything is done with the tool, as an operator would.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use consort_client_sdk::blocks::{BlockPosition, BlockServer, fetch_block, follow};
use consort_client_sdk::participation::OrdererAdmin;
use consort_client_sdk::peer_admin::PeerAdmin;
use consort_client_sdk::{
    ClientIdentity, ClientTlsIdentity, Contract, Endorsed, Endpoint, Gateway, Signed, configuration,
};
use consort_e2e::Network;
use consort_protos::fabric::common::Envelope;
use consort_protos::fabric::discovery::discovery_client::DiscoveryClient;
use consort_protos::fabric::discovery::{
    AuthInfo, PeerMembershipQuery, Query, Request, SignedRequest, query, query_result,
};
use futures::StreamExt;
use prost::Message;

const CHANNEL: &str = "mychannel";

/// From the moment at which the configuration with the list is applied to the refusal at every door.
const LIMIT: Duration = Duration::from_secs(5);

/// How often a door is tried.
const PAUSE: Duration = Duration::from_millis(50);

/// The doors of a channel that are tried one by one; the open streams are beside them.
const DOORS: [&str; 9] = [
    "gateway evaluate",
    "gateway endorse",
    "gateway submit",
    "gateway commit status",
    "peer proposal",
    "peer deliver",
    "peer discovery",
    "orderer broadcast",
    "orderer deliver",
];

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A running network with what the test needs of it.
struct Stage {
    network: Network,
    folder: tempfile::TempDir,
    peer: Endpoint,
    orderer: Endpoint,
    admin: Endpoint,
}

impl Stage {
    fn start() -> Result<Self> {
        let network = Network::start("one-org-solo")?;
        let organizations = network.data().join("organizations");
        let at = |kind: &str, host: &str, port: u16| -> Result<Endpoint> {
            let roots = std::fs::read(organizations.join(kind).join(host).join("tls/ca.crt"))?;
            let port = network.port(port);
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            Ok(Endpoint::new(format!("{host}:{port}"), roots).connect_to(address))
        };
        let peers = "peerOrganizations/org1.example.com/peers";
        let orderers = "ordererOrganizations/example.com/orderers";
        let (peer, orderer, admin) = (
            at(peers, "peer0.org1.example.com", 17051)?,
            at(orderers, "orderer.example.com", 17050)?,
            at(orderers, "orderer.example.com", 17053)?,
        );
        let folder = tempfile::tempdir()?;
        Ok(Self { network, folder, peer, orderer, admin })
    }

    /// Registers and enrols somebody; answers the folder of the credentials.
    fn enroll(&self, id: &str, domain: &str, options: &[&str]) -> Result<PathBuf> {
        let (secret, msp) =
            (self.folder.path().join(format!("{id}.secret")), self.folder.path().join(id).join("msp"));
        let kind = if domain == "example.com" { "admin" } else { "client" };
        let registered =
            self.network.json(&["identity", "register", "--org", domain, "--id", id, "--type", kind])?;
        std::fs::write(&secret, registered["secret"].as_str().context("a secret")?)?;
        let (secret, folder) = (text(&secret), text(&msp));
        let enroll =
            ["identity", "enroll", "--org", domain, "--id", id, "--secret-file", &secret, "--msp", &folder];
        self.network.consort(&[&enroll[..], options].concat())?.expect_success()?;
        Ok(msp)
    }

    /// Revokes somebody; answers the file with the list.
    fn revoke(&self, id: &str, domain: &str) -> Result<PathBuf> {
        let list = self.folder.path().join(format!("{id}-crl.pem"));
        let revoke = [
            "identity",
            "revoke",
            "--org",
            domain,
            "--id",
            id,
            "--reason",
            "keycompromise",
            "--crl",
            &text(&list),
        ];
        self.network.consort(&revoke)?.expect_success()?;
        Ok(list)
    }

    /// Brings lists into the channel's configuration; both organisations sign.
    fn publish(&self, user_list: &Path, operator_list: &Path) -> Result<()> {
        let change = self.folder.path().join("revoke.yaml");
        let lists = format!(
            "revocation_lists: {{ Org1: [{}], OrdererOrg: [{}] }}\n",
            user_list.display(),
            operator_list.display()
        );
        std::fs::write(&change, lists)?;
        let update = text(&change.with_extension("update"));
        self.network.consort(&["channel", "plan", &text(&change)])?.expect_success()?;
        let sign = ["channel", "sign", &update, "--as", "Admin@example.com"];
        self.network.consort(&sign)?.expect_success()?;
        let apply = ["channel", "apply", &update, "--as", "Admin@org1.example.com"];
        self.network.consort(&apply)?.expect_success()?;
        Ok(())
    }
}

/// Somebody with a connection and, prepared while he was a member, what he will hand in later.
struct Caller<'a> {
    stage: &'a Stage,
    identity: ClientIdentity,
    gateway: Gateway,
    signed: Signed,
    envelope: Envelope,
    old_transaction: String,
}

fn asset(id: &str) -> [String; 5] {
    [id, "blue", "5", "Ada", "300"].map(str::to_owned)
}

async fn endorsed(contract: &Contract, id: &str) -> Result<Endorsed> {
    Ok(contract.call("CreateAsset").arguments(asset(id)).endorse().await?)
}

impl<'a> Caller<'a> {
    async fn prepare(stage: &'a Stage, msp: &Path, name: &str) -> Result<Self> {
        let identity = ClientIdentity::from_folder(msp, "Org1MSP")?;
        let gateway = Gateway::connect(&stage.peer, identity.clone()).await?;
        let contract = gateway.network(CHANNEL).contract("basic");
        let old = endorsed(&contract, &format!("{name}-old")).await?;
        let old_transaction = old.tx_id().to_owned();
        old.submit().await?.committed().await?.into_valid()?;
        let signed = endorsed(&contract, &format!("{name}-late")).await?.sign()?;
        let payload = endorsed(&contract, &format!("{name}-raw")).await?.payload().clone();
        let envelope = Envelope { signature: identity.sign(&payload)?, payload, ..Envelope::default() };
        Ok(Self { stage, identity, gateway, signed, envelope, old_transaction })
    }

    fn contract(&self) -> Contract {
        self.gateway.network(CHANNEL).contract("basic")
    }

    /// Tries a door: `Ok(None)` is entry, `Ok(Some(_))` a refusal for who he is.
    async fn tries(&self, door: &str) -> Result<Option<String>> {
        let (peer, orderer, who) = (&self.stage.peer, &self.stage.orderer, &self.identity);
        let newest = BlockPosition::Newest;
        let outcome: Result<()> = match door {
            "gateway evaluate" => self
                .contract()
                .evaluate("GetAllAssets", Vec::<String>::new())
                .await
                .map(drop)
                .map_err(Into::into),
            "gateway endorse" => endorsed(&self.contract(), "never").await.map(drop),
            "gateway submit" => self.signed.submit_through(&self.gateway).await.map_err(Into::into),
            "gateway commit status" => {
                let network = self.gateway.network(CHANNEL);
                network.commit_status(&self.old_transaction).await.map(drop).map_err(Into::into)
            }
            "peer proposal" => {
                PeerAdmin::new(peer, who.clone())?.chain_info(CHANNEL).await.map(drop).map_err(Into::into)
            }
            "peer deliver" => {
                fetch_block(peer, BlockServer::Peer, who, CHANNEL, newest).await.map(drop).map_err(Into::into)
            }
            "peer discovery" => discovers(peer, who).await,
            "orderer broadcast" => {
                configuration::broadcast(orderer, self.envelope.clone()).await.map_err(Into::into)
            }
            "orderer deliver" => {
                let block = fetch_block(orderer, BlockServer::Orderer, who, CHANNEL, newest).await;
                block.map(drop).map_err(Into::into)
            }
            "peer without a channel" => {
                PeerAdmin::new(peer, who.clone())?.channels().await.map(drop).map_err(Into::into)
            }
            other => bail!("there is no door {other}"),
        };
        let Err(error) = outcome else { return Ok(None) };
        let said = format!("{error:#}").to_lowercase();
        let for_who_he_is = ["access denied", "permission denied", "forbidden"];
        ensure!(
            for_who_he_is.iter().any(|word| said.contains(word)),
            "{door} failed for another reason: {said}"
        );
        Ok(Some(said))
    }
}

/// Asks for the peers of the channel.
async fn discovers(peer: &Endpoint, who: &ClientIdentity) -> Result<()> {
    let authentication =
        Some(AuthInfo { client_identity: who.serialized().clone(), client_tls_cert_hash: Bytes::new() });
    let query = Query {
        channel: CHANNEL.to_owned(),
        query: Some(query::Query::PeerQuery(PeerMembershipQuery::default())),
    };
    let payload = Bytes::from(Request { authentication, queries: vec![query] }.encode_to_vec());
    let signature = who.sign(&payload)?;
    let mut client = DiscoveryClient::new(peer.connect().await?);
    let answer = client.discover(SignedRequest { payload, signature }).await?.into_inner();
    match answer.results.into_iter().next().and_then(|result| result.result) {
        Some(query_result::Result::Members(_)) => Ok(()),
        Some(query_result::Result::Error(error)) => bail!("{}", error.content),
        other => bail!("an unexpected answer: {other:?}"),
    }
}

/// Tries until the door refuses; answers how long that took.
async fn shut(caller: &Caller<'_>, door: &str, since: Instant) -> Result<Duration> {
    while caller.tries(door).await?.is_none() {
        ensure!(since.elapsed() < LIMIT, "{door} is open after {} ms", since.elapsed().as_millis());
        tokio::time::sleep(PAUSE).await;
    }
    Ok(since.elapsed())
}

/// What an operator's TLS certificate opens: the orderer's administration.
fn operator(stage: &Stage, msp: &Path) -> Result<OrdererAdmin> {
    let certificate = std::fs::read(msp.join("signcerts/cert.pem"))?;
    let key = std::fs::read_dir(msp.join("keystore"))?.next().context("a key")??.path();
    let identity =
        ClientTlsIdentity { certificate_pem: certificate.into(), key_pem: std::fs::read(key)?.into() };
    Ok(OrdererAdmin::new(&stage.admin.clone().with_client_tls(identity))?)
}

#[test]
fn a_revoked_user_is_refused_at_every_door_within_five_seconds_and_old_transactions_stay_valid() -> Result<()>
{
    let stage = Stage::start()?;
    let leaver_msp = stage.enroll("leaver", "org1.example.com", &[])?;
    let stayer_msp = stage.enroll("stayer", "org1.example.com", &[])?;
    let operator_msp = stage.enroll("operator", "example.com", &["--profile", "tls"])?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let leaver = Caller::prepare(&stage, &leaver_msp, "leaver").await?;
        let stayer = Caller::prepare(&stage, &stayer_msp, "stayer").await?;
        for door in DOORS.iter().filter(|door| !["gateway submit", "orderer broadcast"].contains(door)) {
            ensure!(leaver.tries(door).await?.is_none(), "{door} is shut to a member");
        }
        ensure!(leaver.tries("peer without a channel").await?.is_none());
        let operator = operator(&stage, &operator_msp)?;
        ensure!(operator.channels().await? == [CHANNEL]);
        let mut blocks = follow(&stage.peer, &leaver.identity, CHANNEL, Some(0)).await?;
        let mut events = leaver.gateway.network(CHANNEL).chaincode_events("basic").open().await?;

        let lists = (stage.revoke("leaver", "org1.example.com")?, stage.revoke("operator", "example.com")?);
        // The peer's own folder judges those who speak of no channel.
        let own =
            stage.network.peer_organisation("org1.example.com").join("peers/peer0.org1.example.com/msp/crls");
        std::fs::create_dir_all(&own)?;
        std::fs::copy(&lists.0, own.join("crl.pem"))?;
        tokio::task::block_in_place(|| stage.publish(&lists.0, &lists.1))?;
        let since = Instant::now();

        for door in DOORS.iter().chain(&["peer without a channel"]) {
            println!("{door}: refused after {} ms", shut(&leaver, door, since).await?.as_millis());
        }
        let left = LIMIT.saturating_sub(since.elapsed());
        let ended =
            tokio::time::timeout(left, async { while blocks.next().await.is_some_and(|one| one.is_ok()) {} });
        ended.await.context("the open stream of blocks goes on")?;
        let left = LIMIT.saturating_sub(since.elapsed());
        let ended =
            tokio::time::timeout(left, async { while events.next().await.is_some_and(|one| one.is_ok()) {} });
        ended.await.context("the open stream of events goes on")?;
        println!("open streams: ended after {} ms", since.elapsed().as_millis());
        while operator.channels().await.is_ok() {
            ensure!(since.elapsed() < LIMIT, "the orderer's administration is open");
            tokio::time::sleep(PAUSE).await;
        }
        println!("administration by mutual TLS: refused after {} ms", since.elapsed().as_millis());

        for door in DOORS {
            ensure!(stayer.tries(door).await?.is_none(), "{door} is shut to somebody else");
        }
        let network = stayer.gateway.network(CHANNEL);
        ensure!(network.commit_status(&leaver.old_transaction).await?.is_valid(), "the past changed");
        let old = stayer.contract().evaluate("ReadAsset", ["leaver-old"]).await?;
        ensure!(!old.is_empty(), "what the leaver wrote is gone");
        Ok(())
    })
}
