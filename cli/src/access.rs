//! Who calls what: the identity and the node that a command uses, found in a network's data folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use consort_client_sdk::{
    ClientIdentity, ClientTlsIdentity, Endpoint, Gateway, Network, peer_admin::PeerAdmin,
};
use consort_crypto::hash::HashAlgorithm;

use crate::context;
use crate::layout::{ADMINISTRATOR, Layout, MemberKind, members};
use crate::topology::{Member, Orderer, Peer, Topology};

/// Folder that holds the data of networks, below the current one.
pub(crate) const DATA_ROOT: &str = ".consort";

/// Options that say on which network a command works, and as whom.
#[derive(Debug, Clone, Args)]
pub(crate) struct AccessOptions {
    /// Data folder of the network [default: the only one below .consort]
    #[arg(long, value_name = "FOLDER", env = "CONSORT_NETWORK")]
    network: Option<PathBuf>,

    /// Who calls, such as User1@org1.example.com [default: a user of the first organisation]
    #[arg(long = "as", value_name = "USER@DOMAIN", env = "CONSORT_AS")]
    user: Option<String>,

    /// The peer to call, such as peer0.org1.example.com [default: the first of the caller's organisation]
    #[arg(long, value_name = "HOST", env = "CONSORT_PEER_HOST")]
    peer: Option<String>,

    /// The channel [default: the network's]
    #[arg(long, value_name = "NAME", env = "CONSORT_CHANNEL")]
    channel: Option<String>,
}

/// The channel that a command works on when neither an option nor a topology names one.
const DEFAULT_CHANNEL: &str = "mychannel";

impl AccessOptions {
    /// The channel named with --channel, else Fabric's customary one; for a gateway outside of a network's data folder.
    pub(crate) fn channel_or_default(&self) -> String {
        self.channel.clone().unwrap_or_else(|| DEFAULT_CHANNEL.to_owned())
    }

    /// Opens the network.
    ///
    /// # Errors
    /// No network is found, or several.
    pub(crate) fn open(&self) -> anyhow::Result<Access> {
        let context = context::current()?;
        let options = Self {
            network: self.network.clone().or(context.network),
            user: self.user.clone().or(context.user),
            peer: self.peer.clone().or(context.peer),
            channel: self.channel.clone().or(context.channel),
        };
        let data = network_folder(options.network.as_deref())?;
        let layout = Layout::new(&data)?;
        let topology = layout.read_topology()?;
        Ok(Access { layout, topology, options })
    }
}

/// The data folder of a network: the named one, else the only one below the current folder.
///
/// # Errors
/// None is named, and there is none or there are several.
pub(crate) fn network_folder(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    match named {
        Some(folder) => Ok(folder.to_owned()),
        None => only_network(Path::new(DATA_ROOT)),
    }
}

/// The only network below a folder.
fn only_network(root: &Path) -> anyhow::Result<PathBuf> {
    let folders = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut networks: Vec<PathBuf> =
        folders.filter(|folder| folder.join("topology.json").is_file()).collect();
    networks.sort();
    match networks.as_slice() {
        [only] => Ok(only.clone()),
        [] => bail!(
            "no network below {}.\nRemedy: start one with `consort network up --config <folder>`, or name its data folder with --network.",
            root.display()
        ),
        several => {
            let names: Vec<String> = several.iter().map(|folder| folder.display().to_string()).collect();
            bail!("several networks: {}.\nRemedy: name one with --network.", names.join(", "))
        }
    }
}

/// A network with the caller's choices.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub(crate) layout: Layout,
    pub(crate) topology: Topology,
    options: AccessOptions,
}

impl Access {
    /// A network as the commands of `network` use it, with default choices.
    pub(crate) fn of(layout: Layout, topology: Topology) -> Self {
        let options = AccessOptions { network: None, user: None, peer: None, channel: None };
        Self { layout, topology, options }
    }

    /// The channel to work on.
    pub(crate) fn channel(&self) -> &str {
        self.options.channel.as_deref().unwrap_or(&self.topology.channel.name)
    }

    /// The channel to work on as seen through a gateway, with its hash if it is the network's own.
    pub(crate) fn network(&self, gateway: &Gateway) -> Network {
        gateway.network(self.channel()).with_hash(self.hash_algorithm())
    }

    fn hash_algorithm(&self) -> HashAlgorithm {
        let own = &self.topology.channel;
        if self.channel() == own.name { own.hashing } else { HashAlgorithm::Sha256 }
    }

    /// Prepares calls to a peer.
    pub(crate) fn peer_admin(
        &self,
        endpoint: &Endpoint,
        identity: ClientIdentity,
    ) -> Result<PeerAdmin, consort_client_sdk::Error> {
        Ok(PeerAdmin::new(endpoint, identity)?.with_hash(self.hash_algorithm()))
    }

    /// The calling user and its organisation; `default` is the user when none was named.
    ///
    /// # Errors
    /// The name is not `<user>@<domain>` or no organisation has that domain.
    fn caller(&self, default: &str) -> anyhow::Result<(MemberKind, &Member, String)> {
        let Some(named) = &self.options.user else {
            let organisation = self.peers_organisation();
            let member = match organisation {
                Some(member) => member,
                None => {
                    &self.topology.organisations.first().context("the network has no organisations")?.member
                }
            };
            let user = if default == ADMINISTRATOR || member.users.is_empty() {
                ADMINISTRATOR.to_owned()
            } else {
                member.users[0].clone()
            };
            return Ok((MemberKind::Peers, member, user));
        };
        let (user, domain) = named.split_once('@').with_context(|| {
            format!("'{named}' is not of the form user@domain, such as User1@org1.example.com")
        })?;
        let found = members(&self.topology).find(|(_, member)| member.domain == domain);
        let (kind, member) = found.with_context(|| {
            let domains: Vec<&str> =
                members(&self.topology).map(|(_, member)| member.domain.as_str()).collect();
            format!("no organisation has the domain '{domain}' (known are: {})", domains.join(", "))
        })?;
        let known = user == ADMINISTRATOR || member.users.iter().any(|known| known == user);
        anyhow::ensure!(
            known,
            "{} has no user '{user}' (known are: {ADMINISTRATOR}, {})",
            member.name,
            member.users.join(", ")
        );
        Ok((kind, member, user.to_owned()))
    }

    /// Whether a peer was named with --peer.
    pub(crate) fn names_peer(&self) -> bool {
        self.options.peer.is_some()
    }

    /// The organisation of the peer named with --peer.
    fn peers_organisation(&self) -> Option<&Member> {
        let host = self.options.peer.as_ref()?;
        let found = self.topology.peers().find(|(_, peer)| &peer.host == host);
        found.map(|(organisation, _)| &organisation.member)
    }

    /// The caller's identity; without --as a user for transactions, an administrator for administration.
    ///
    /// # Errors
    /// The user is unknown or its credentials cannot be read.
    pub(crate) fn identity(&self, administrator: bool) -> anyhow::Result<ClientIdentity> {
        let (kind, member, user) = self.caller(if administrator { ADMINISTRATOR } else { "" })?;
        self.identity_of(kind, member, &user)
    }

    /// The folder of the caller's credentials.
    ///
    /// # Errors
    /// As [`Access::identity`].
    pub(crate) fn user_folder(&self) -> anyhow::Result<PathBuf> {
        let (kind, member, user) = self.caller("")?;
        Ok(self.layout.user(kind, &member.domain, &user))
    }

    /// An identity that may read what the chosen peer serves: the caller when it is of the peer's organisation, else that
    /// organisation's first user.
    ///
    /// # Errors
    /// As [`Access::identity`].
    pub(crate) fn reader(&self) -> anyhow::Result<ClientIdentity> {
        let (member, _) = self.peer()?;
        let (kind, caller, user) = self.caller("")?;
        if caller.name == member.name {
            return self.identity_of(kind, caller, &user);
        }
        let user = member.users.first().map_or(ADMINISTRATOR, String::as_str);
        self.identity_of(MemberKind::Peers, member, user)
    }

    /// The identity of a user.
    ///
    /// # Errors
    /// The credentials cannot be read.
    pub(crate) fn identity_of(
        &self,
        kind: MemberKind,
        member: &Member,
        user: &str,
    ) -> anyhow::Result<ClientIdentity> {
        let folder = self.layout.user(kind, &member.domain, user).join("msp");
        Ok(ClientIdentity::from_folder(&folder, &member.msp_id)?)
    }

    /// The peer to call: the one named, else the first of the caller's organisation.
    ///
    /// # Errors
    /// No such peer.
    pub(crate) fn peer(&self) -> anyhow::Result<(&Member, &Peer)> {
        if let Some(host) = &self.options.peer {
            let found = self.topology.peers().find(|(_, peer)| &peer.host == host);
            let (organisation, peer) = found.with_context(|| {
                let hosts: Vec<&str> = self.topology.peers().map(|(_, peer)| peer.host.as_str()).collect();
                format!("the network has no peer '{host}' (known are: {})", hosts.join(", "))
            })?;
            return Ok((&organisation.member, peer));
        }
        let (_, member, _) = self.caller("")?;
        let own = self.topology.peers().find(|(organisation, _)| organisation.member.name == member.name);
        let (organisation, peer) =
            own.or_else(|| self.topology.peers().next()).context("the network has no peers")?;
        Ok((&organisation.member, peer))
    }

    /// How to reach a peer.
    ///
    /// # Errors
    /// Its TLS roots cannot be read.
    pub(crate) fn peer_endpoint(&self, member: &Member, peer: &Peer) -> anyhow::Result<Endpoint> {
        self.endpoint(MemberKind::Peers, &member.domain, &peer.host, peer.port)
    }

    /// How to reach an orderer.
    ///
    /// # Errors
    /// Its TLS roots cannot be read.
    pub(crate) fn orderer_endpoint(&self, member: &Member, orderer: &Orderer) -> anyhow::Result<Endpoint> {
        self.endpoint(MemberKind::Orderers, &member.domain, &orderer.host, orderer.port)
    }

    /// How to reach an orderer's administration endpoint, with its administrator's TLS certificate.
    ///
    /// # Errors
    /// TLS roots or the administrator's TLS files cannot be read.
    pub(crate) fn orderer_admin_endpoint(
        &self,
        member: &Member,
        orderer: &Orderer,
    ) -> anyhow::Result<Endpoint> {
        let endpoint =
            self.endpoint(MemberKind::Orderers, &member.domain, &orderer.host, orderer.admin_port)?;
        let tls = self.layout.user(MemberKind::Orderers, &member.domain, ADMINISTRATOR).join("tls");
        let identity = ClientTlsIdentity {
            certificate_pem: read(&tls.join("client.crt"))?,
            key_pem: read(&tls.join("client.key"))?,
        };
        Ok(endpoint.with_client_tls(identity))
    }

    fn endpoint(&self, kind: MemberKind, domain: &str, host: &str, port: u16) -> anyhow::Result<Endpoint> {
        let roots = read(&self.layout.tls_roots(kind, domain))?;
        let address: SocketAddr = self.topology.address(host, port);
        Ok(Endpoint::new(format!("{host}:{port}"), roots).connect_to(address))
    }

    /// A gateway connection through the chosen peer as the caller.
    ///
    /// # Errors
    /// The peer does not answer, or credentials cannot be read.
    pub(crate) async fn gateway(&self, administrator: bool) -> anyhow::Result<Gateway> {
        let (member, peer) = self.peer()?;
        let endpoint = self.peer_endpoint(member, peer)?;
        let identity = self.identity(administrator)?;
        Gateway::connect(&endpoint, identity).await.with_context(|| {
            format!("peer {} does not answer; `consort network status` shows what runs", peer.host)
        })
    }

    /// A gateway connection through an organisation's first peer as one of its users.
    ///
    /// # Errors
    /// As [`Access::gateway`].
    pub(crate) async fn gateway_of(&self, member: &Member, user: &str) -> anyhow::Result<Gateway> {
        let own = self.topology.peers().find(|(organisation, _)| organisation.member.name == member.name);
        let (_, peer) = own.with_context(|| format!("organisation {} has no peers", member.name))?;
        self.gateway_at(member, peer, user).await
    }

    /// A gateway connection through a given peer of an organisation as one of its users.
    ///
    /// # Errors
    /// As [`Access::gateway`].
    pub(crate) async fn gateway_at(
        &self,
        member: &Member,
        peer: &Peer,
        user: &str,
    ) -> anyhow::Result<Gateway> {
        let endpoint = self.peer_endpoint(member, peer)?;
        let identity = self.identity_of(MemberKind::Peers, member, user)?;
        Ok(Gateway::connect(&endpoint, identity).await?)
    }
}

fn read(path: &Path) -> anyhow::Result<Bytes> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(user: Option<&str>, peer: Option<&str>) -> Access {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../network-configs/two-org-raft");
        let topology = Topology::load(&folder).unwrap().topology;
        let mut access = Access::of(Layout::new(Path::new("/data")).unwrap(), topology);
        access.options.user = user.map(str::to_owned);
        access.options.peer = peer.map(str::to_owned);
        access
    }

    #[test]
    fn without_options_a_user_of_the_first_organisation_calls_its_own_peer() {
        let access = access(None, None);
        let (_, member, user) = access.caller("").unwrap();
        assert_eq!((member.name.as_str(), user.as_str()), ("Org1", "User1"));
        assert_eq!(access.caller(ADMINISTRATOR).unwrap().2, "Admin");
        assert_eq!(access.peer().unwrap().1.host, "peer0.org1.example.com");
        assert_eq!(access.channel(), "mychannel");
    }

    #[test]
    fn the_caller_decides_the_peer_and_the_peer_the_caller() {
        let by_user = access(Some("User1@org2.example.com"), None);
        assert_eq!(by_user.peer().unwrap().1.host, "peer0.org2.example.com");
        let by_peer = access(None, Some("peer0.org2.example.com"));
        assert_eq!(by_peer.caller("").unwrap().1.name, "Org2");
    }

    #[test]
    fn unknown_names_are_answered_with_the_known_ones() {
        let error = access(Some("User1@org3.example.com"), None).caller("").unwrap_err().to_string();
        assert!(error.contains("known are: org1.example.com, org2.example.com, example.com"), "{error}");
        let error = access(Some("Eve@org1.example.com"), None).caller("").unwrap_err().to_string();
        assert!(error.contains("known are: Admin, User1"), "{error}");
        let error = access(None, Some("peer9.org1.example.com")).peer().unwrap_err().to_string();
        assert!(error.contains("known are: peer0.org1.example.com"), "{error}");
    }

    #[test]
    fn without_a_network_the_remedy_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = only_network(folder.path()).unwrap_err().to_string();
        assert!(error.contains("consort network up"), "{error}");
    }
}
