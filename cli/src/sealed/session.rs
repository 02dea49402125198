//! Who works on sealed data: the caller's connection, its keys, the peers that may serve as proxies.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use consort_client_sdk::Gateway;
use consort_client_sdk::sealed::{Keyring, Party, ProxyPeer, SealedData, SecretKey, Suite, suite_of};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::waiting::Waiting;
use crate::access::{Access, AccessOptions};
use crate::output::Output;
use crate::report::table;

/// The file with the secret of a user's keys, in the folder of its credentials.
pub(super) const SECRET_FILE: &str = "sealed-data.secret";

/// Options of every command on sealed data.
#[derive(Debug, Clone, Args)]
pub(crate) struct SealedOptions {
    #[command(flatten)]
    pub(super) access: AccessOptions,

    /// File with the secret of the caller's keys [default: sealed-data.secret beside its credentials; made when missing]
    #[arg(long, value_name = "FILE", env = "CONSORT_SEALED_SECRET")]
    secret: Option<PathBuf>,

    #[command(flatten)]
    pub(super) output: Output,
}

/// A caller's sealed data on one channel.
pub(super) struct Session {
    pub(super) sealed: SealedData,
    secret: PathBuf,
}

impl SealedOptions {
    pub(super) async fn open(&self) -> anyhow::Result<Session> {
        let access = self.access.open()?;
        let gateway = access.gateway(false).await?;
        let secret = match &self.secret {
            Some(file) => file.clone(),
            None => access.user_folder()?.join(SECRET_FILE),
        };
        Session::new(&access, &gateway, secret)
    }
}

impl Session {
    pub(super) fn new(access: &Access, gateway: &Gateway, secret: PathBuf) -> anyhow::Result<Self> {
        let network = access.network(gateway);
        let sealed = SealedData::new(&network, proxy_peers(access)?)?;
        Ok(Self { sealed, secret })
    }

    pub(super) fn keyring(&self) -> anyhow::Result<Keyring> {
        Ok(Keyring::open_or_create(&self.secret)?)
    }

    /// The key of a domain of the caller's.
    pub(super) fn domain_key(&self, suite: Suite, domain: &str) -> anyhow::Result<SecretKey> {
        Ok(self.keyring()?.domain_key(suite, self.sealed.network().channel(), domain)?)
    }

    /// The caller's key for what is granted to it.
    pub(super) fn reader_key(&self, suite: Suite) -> anyhow::Result<SecretKey> {
        Ok(self.keyring()?.reader_key(suite, self.sealed.network().channel())?)
    }

    /// The suite of a domain, which stands on the ledger.
    pub(super) async fn suite(&self, domain: &str) -> anyhow::Result<Suite> {
        Ok(suite_of(self.sealed.domain(domain).await?.suite)?)
    }

    /// Where the shares of a grant wait for their proxies.
    pub(super) fn waiting(&self, grant: &str) -> anyhow::Result<Waiting> {
        Waiting::new(&self.secret, self.sealed.network().channel(), grant)
    }

    /// The address of a peer with the role, by its host or its whole address.
    pub(super) fn proxy_address(&self, name: &str) -> anyhow::Result<String> {
        let known: Vec<&str> = self.sealed.proxy_peers().iter().map(ProxyPeer::address).collect();
        let host = |address: &str| address.rsplit_once(':').is_some_and(|(host, _)| host == name);
        let found = known.iter().find(|address| **address == name || host(address));
        let found = found.with_context(|| {
            format!("no peer {name} has the role of a proxy; those with it are {}", known.join(", "))
        })?;
        Ok((*found).to_owned())
    }

    pub(super) fn card(&self) -> anyhow::Result<ReaderCard> {
        let key = |suite| anyhow::Ok(hex::encode(self.reader_key(suite)?.public_key().to_bytes()));
        let Party { msp_id, id } = self.sealed.party().clone();
        Ok(ReaderCard { msp_id, id, p256: key(Suite::P256)?, sm2: key(Suite::Sm2)? })
    }
}

/// The peers with the role, by the network's description.
fn proxy_peers(access: &Access) -> anyhow::Result<Vec<ProxyPeer>> {
    let with_role = access.topology.peers().filter(|(_, peer)| peer.sealed_proxy);
    let reachable = with_role.map(|(organisation, peer)| {
        let endpoint = access.peer_endpoint(&organisation.member, peer)?;
        anyhow::Ok(ProxyPeer::new(&organisation.member.msp_id, &endpoint)?)
    });
    reachable.collect()
}

/// What a reader gives to owners: nothing in it is secret, and the owner must know that it is the reader's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReaderCard {
    pub(super) msp_id: String,
    pub(super) id: String,
    /// Public keys in hexadecimal, by suite.
    pub(super) p256: String,
    pub(super) sm2: String,
}

/// `consort sealed whoami`.
///
/// # Errors
/// The peer does not answer, or the secret's file cannot be used.
pub(super) async fn whoami(options: &SealedOptions) -> anyhow::Result<()> {
    let card = options.open().await?.card()?;
    options.output.print(&serde_json::to_value(&card)?, || {
        let rows = [
            ["organisation", &card.msp_id],
            ["identity", &card.id],
            ["reader key (p256)", &card.p256],
            ["reader key (sm2)", &card.sm2],
        ];
        table(&rows.map(|row| row.map(str::to_owned).to_vec()))
    })
}

/// `consort sealed proxies`.
///
/// # Errors
/// The peer does not answer.
pub(super) async fn proxies(options: &SealedOptions) -> anyhow::Result<()> {
    let session = options.open().await?;
    let mut rows = vec![["proxy", "organisation", "blocks", "state"].map(str::to_owned).to_vec()];
    let mut documents = Vec::new();
    for (peer, description) in session.sealed.describe_proxies().await {
        let (height, state) = match &description {
            Ok(description) => (description.height.to_string(), "serves".to_owned()),
            Err(missing) => (String::new(), missing.reason.clone()),
        };
        let (address, msp_id) = (peer.address().to_owned(), peer.msp_id().to_owned());
        documents.push(json!({
            "proxy": address, "msp_id": msp_id, "serves": description.is_ok(),
            "height": description.as_ref().ok().map(|description| description.height),
            "reason": description.as_ref().err().map(|missing| &missing.reason),
        }));
        rows.push(vec![address, msp_id, height, state]);
    }
    options.output.print(&json!(documents), || {
        if rows.len() > 1 {
            return table(&rows);
        }
        "no peer of this network has the role; give it to some with `sealed_proxy: true` in network.yaml"
            .to_owned()
    })
}
