//! What somebody gets who must learn nothing: files, logs, metrics, blocks, answers to discovery; and the search for secrets in it.
#![allow(unreachable_pub, reason = "a module of tests has no crate to be public in")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use consort_client_sdk::blocks::{BlockPosition, BlockServer, fetch_block};
use consort_client_sdk::{ClientIdentity, Endpoint};
use consort_e2e::Network;
use consort_protos::fabric::discovery::discovery_client::DiscoveryClient;
use consort_protos::fabric::discovery::{
    AuthInfo, ChaincodeQuery, ConfigQuery, LocalPeerQuery, PeerMembershipQuery, Query, Request,
    SignedRequest, query,
};
use consort_protos::fabric::protos::{ChaincodeCall, ChaincodeInterest};
use memchr::memmem;
use prost::Message as _;

/// Bytes that must not be found, in every form in which bytes get into texts and files.
pub struct Secret {
    what: String,
    forms: Vec<Vec<u8>>,
}

impl Secret {
    pub fn new(what: impl Into<String>, bytes: &[u8]) -> Self {
        let decimals: Vec<String> = bytes.iter().map(u8::to_string).collect();
        let mut forms = vec![
            bytes.to_vec(),
            hex::encode(bytes).into_bytes(),
            hex::encode_upper(bytes).into_bytes(),
            decimals.join(", ").into_bytes(),
            bytes.escape_ascii().to_string().into_bytes(),
        ];
        // Base64 depends on where within three bytes the secret begins.
        for skipped in 0..3 {
            let whole = (bytes.len() - skipped) / 3 * 3;
            forms.push(STANDARD_NO_PAD.encode(&bytes[skipped..skipped + whole]).into_bytes());
        }
        Self { what: what.into(), forms }
    }

    pub fn is_in(&self, bytes: &[u8]) -> bool {
        self.forms.iter().any(|form| memmem::find(bytes, form).is_some())
    }
}

/// Checks that nothing of the secrets is in a text or message.
pub fn check(secrets: &[Secret], whose: &str, bytes: &[u8]) {
    for secret in secrets {
        assert!(!secret.is_in(bytes), "{} is in {whose}", secret.what);
    }
}

/// The files below a folder that hold one of the secrets.
pub fn holders(folder: &Path, secrets: &[Secret]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    // A running node may remove a file or a folder at any time.
    let Some(entries) = present(std::fs::read_dir(folder), folder)? else { return Ok(found) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(holders(&path, secrets)?);
            continue;
        }
        let Some(bytes) = present(std::fs::read(&path), &path)? else { continue };
        let held = secrets.iter().filter(|secret| secret.is_in(&bytes));
        found.extend(held.map(|secret| format!("{} is in {}", secret.what, path.display())));
    }
    Ok(found)
}

/// What was read, unless it is not there any more.
fn present<T>(read: std::io::Result<T>, path: &Path) -> Result<Option<T>> {
    match read {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        read => read.map(Some).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The ports at which the nodes of a network are operated.
fn operations_ports(network: &Network) -> Result<Vec<u16>> {
    let text = std::fs::read_to_string(network.config().join("network.yaml"))?;
    let ports = text.split("operations_port: ").skip(1).map(|rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().with_context(|| format!("no port: {digits:?}"))
    });
    ports.collect()
}

fn http(port: u16, head: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let length = body.len();
    let request = format!(
        "{head} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// From now on every node logs whatever it can.
pub fn log_everything(network: &Network) -> Result<()> {
    for port in operations_ports(network)? {
        let answer = http(port, "PUT /logspec", r#"{"spec":"trace"}"#)?;
        ensure!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    }
    Ok(())
}

/// The metrics of all nodes that run.
pub fn metrics(network: &Network) -> Result<Vec<String>> {
    operations_ports(network)?.into_iter().map(|port| http(port, "GET /metrics", "")).collect()
}

/// A member of the channel at a peer.
pub struct Outsider {
    pub peer: Endpoint,
    pub identity: ClientIdentity,
    pub channel: &'static str,
}

impl Outsider {
    /// A user of an organisation, at a published port of its first peer.
    pub fn new(
        network: &Network,
        (name, msp_id, user): (&str, &str, &str),
        (channel, published_port): (&'static str, u16),
    ) -> Result<Self> {
        let domain = format!("{name}.example.com");
        let folder = network.peer_organisation(&domain).join(format!("users/{user}@{domain}/msp"));
        let identity = ClientIdentity::from_folder(&folder, msp_id)?;
        Ok(Self { peer: first_peer(network, name, published_port)?, identity, channel })
    }

    /// The same user at the first peer of another organisation.
    pub fn at(&self, network: &Network, name: &str, published_port: u16) -> Result<Self> {
        let peer = first_peer(network, name, published_port)?;
        Ok(Self { peer, identity: self.identity.clone(), channel: self.channel })
    }

    /// All blocks of the channel, as they are delivered: transactions, proposals, read-write sets, responses, events.
    pub async fn blocks(&self) -> Result<Vec<Vec<u8>>> {
        let fetch =
            |position| fetch_block(&self.peer, BlockServer::Peer, &self.identity, self.channel, position);
        let newest = fetch(BlockPosition::Newest).await?;
        let last = newest.header.as_ref().context("a header")?.number;
        let mut blocks = Vec::new();
        for number in 0..=last {
            blocks.push(fetch(BlockPosition::Number(number)).await?.encode_to_vec());
        }
        Ok(blocks)
    }

    /// What discovery answers to all of its questions, about a chaincode with collections too.
    pub async fn discovered(&self, chaincode: &str, collections: &[&str]) -> Result<Vec<u8>> {
        let call = ChaincodeCall {
            name: chaincode.to_owned(),
            collection_names: collections.iter().map(|name| (*name).to_owned()).collect(),
            ..ChaincodeCall::default()
        };
        let interest = ChaincodeInterest { chaincodes: vec![call] };
        let about = |query| Query { channel: self.channel.to_owned(), query: Some(query) };
        let filter = Some(interest.clone());
        let queries = vec![
            about(query::Query::ConfigQuery(ConfigQuery {})),
            about(query::Query::PeerQuery(PeerMembershipQuery::default())),
            about(query::Query::PeerQuery(PeerMembershipQuery { filter })),
            about(query::Query::CcQuery(ChaincodeQuery { interests: vec![interest] })),
            Query { channel: String::new(), query: Some(query::Query::LocalPeers(LocalPeerQuery {})) },
        ];
        let asked = queries.len();
        let authentication = Some(AuthInfo {
            client_identity: self.identity.serialized().clone(),
            client_tls_cert_hash: Bytes::new(),
        });
        let payload = Bytes::from(Request { authentication, queries }.encode_to_vec());
        let signature = self.identity.sign(&payload)?;
        let mut client = DiscoveryClient::new(self.peer.connect().await?);
        let answer = client.discover(SignedRequest { payload, signature }).await?.into_inner();
        ensure!(answer.results.len() == asked, "{} answers to {asked} questions", answer.results.len());
        Ok(answer.encode_to_vec())
    }
}

fn first_peer(network: &Network, name: &str, published_port: u16) -> Result<Endpoint> {
    let host = format!("peer0.{name}.example.com");
    let organisation = network.peer_organisation(&format!("{name}.example.com"));
    let roots = std::fs::read(organisation.join(format!("peers/{host}/tls/ca.crt")))?;
    let port = network.port(published_port);
    Ok(Endpoint::new(format!("{host}:{port}"), roots).connect_to(([127, 0, 0, 1], port).into()))
}
