//! Where everything lies below a network's data folder.
//!
//! `organizations/` has the layout of Hyperledger Fabric's test network, so that applications configured for it find their
//! credentials:
//!
//! ```text
//! organizations/peerOrganizations/org1.example.com/ca/ca.org1.example.com-cert.pem
//!                                                  tlsca/tlsca.org1.example.com-cert.pem
//!                                                  msp/{cacerts,tlscacerts,config.yaml}
//!                                                  peers/peer0.org1.example.com/{msp,tls/{ca.crt,server.crt,server.key}}
//!                                                  users/User1@org1.example.com/{msp,tls/{ca.crt,client.crt,client.key}}
//! organizations/ordererOrganizations/example.com/  the same with orderers/ instead of peers/
//! ca/<name>/, peers/<host>/, orderers/<host>/       data of the servers
//! config/<process>.yaml, logs/<process>.log         what they read and write
//! channel/<name>.block                              the genesis block
//! channel/<name>.config.block                       the configuration of a channel that others run
//! ```

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::topology::{Member, Topology};

/// The user that administers its organisation.
pub(crate) const ADMINISTRATOR: &str = "Admin";

/// The paths of one data folder.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

/// What kind of nodes an organisation runs; decides the name of its folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemberKind {
    /// Runs peers.
    Peers,
    /// Runs orderers.
    Orderers,
}

impl MemberKind {
    fn organisations_folder(self) -> &'static str {
        match self {
            Self::Peers => "peerOrganizations",
            Self::Orderers => "ordererOrganizations",
        }
    }

    fn nodes_folder(self) -> &'static str {
        match self {
            Self::Peers => "peers",
            Self::Orderers => "orderers",
        }
    }
}

impl Layout {
    /// The layout below a data folder; the path is made absolute, because servers run elsewhere.
    ///
    /// # Errors
    /// The current folder cannot be found.
    pub(crate) fn new(data: &Path) -> anyhow::Result<Self> {
        let root = std::path::absolute(data).with_context(|| format!("cannot resolve {}", data.display()))?;
        Ok(Self { root })
    }

    /// The data folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The description that the data was made from, with absolute paths.
    pub(crate) fn topology(&self) -> PathBuf {
        self.root.join("topology.json")
    }

    /// The genesis block of a channel.
    pub(crate) fn genesis_block(&self, channel: &str) -> PathBuf {
        self.root.join("channel").join(format!("{channel}.block"))
    }

    /// The configuration of a channel that others run, as it was handed over.
    pub(crate) fn joined_channel(&self, channel: &str) -> PathBuf {
        self.root.join("channel").join(format!("{channel}.config.block"))
    }

    /// The configuration file of a process.
    pub(crate) fn config(&self, process: &str) -> PathBuf {
        self.root.join("config").join(format!("{process}.yaml"))
    }

    /// The folder in which a certificate authority keeps its keys and its registry.
    pub(crate) fn authority_data(&self, name: &str) -> PathBuf {
        self.root.join("ca").join(name)
    }

    /// The folder in which a node keeps its ledgers.
    pub(crate) fn node_data(&self, kind: MemberKind, host: &str) -> PathBuf {
        self.root.join(kind.nodes_folder()).join(host)
    }

    /// The enrolment secret of an identity.
    pub(crate) fn secret(&self, authority: &str, identity: &str) -> PathBuf {
        self.root.join("secrets").join(authority).join(identity)
    }

    /// An organisation's folder.
    pub(crate) fn organisation(&self, kind: MemberKind, domain: &str) -> PathBuf {
        self.root.join("organizations").join(kind.organisations_folder()).join(domain)
    }

    /// An organisation's own MSP, as it stands in the channel configuration.
    pub(crate) fn organisation_msp(&self, kind: MemberKind, domain: &str) -> PathBuf {
        self.organisation(kind, domain).join("msp")
    }

    /// A node's credentials (`msp`, `tls`).
    pub(crate) fn node(&self, kind: MemberKind, domain: &str, host: &str) -> PathBuf {
        self.organisation(kind, domain).join(kind.nodes_folder()).join(host)
    }

    /// A user's credentials (`msp`, `tls`).
    pub(crate) fn user(&self, kind: MemberKind, domain: &str, user: &str) -> PathBuf {
        self.organisation(kind, domain).join("users").join(format!("{user}@{domain}"))
    }

    /// The TLS roots of an organisation's nodes.
    pub(crate) fn tls_roots(&self, kind: MemberKind, domain: &str) -> PathBuf {
        self.organisation(kind, domain).join("tlsca").join(format!("tlsca.{domain}-cert.pem"))
    }

    /// The identity roots of an organisation.
    pub(crate) fn identity_roots(&self, kind: MemberKind, domain: &str) -> PathBuf {
        self.organisation(kind, domain).join("ca").join(format!("ca.{domain}-cert.pem"))
    }

    /// Keeps the description beside the data, for commands that are given only the data folder.
    ///
    /// # Errors
    /// An I/O error.
    pub(crate) fn write_topology(&self, topology: &Topology) -> anyhow::Result<()> {
        crate::files::write_atomically(&self.topology(), &serde_json::to_vec_pretty(topology)?, false)
    }

    /// The description that [`Layout::write_topology`] kept.
    ///
    /// # Errors
    /// The folder holds no network.
    pub(crate) fn read_topology(&self) -> anyhow::Result<Topology> {
        let path = self.topology();
        let text = std::fs::read(&path).with_context(|| {
            format!(
                "{} holds no network.\nRemedy: start one with `consort network up --config <folder> --data {}`, or name another data folder.",
                self.root.display(),
                self.root.display()
            )
        })?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
    }
}

/// All organisations of a topology with their kind.
pub(crate) fn members(topology: &Topology) -> impl Iterator<Item = (MemberKind, &Member)> {
    let peers = topology.organisations.iter().map(|organisation| (MemberKind::Peers, &organisation.member));
    let orderers = topology.orderer_organisations.iter();
    peers.chain(orderers.map(|organisation| (MemberKind::Orderers, &organisation.member)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_applications_find_their_files() {
        let layout = Layout::new(Path::new("/data")).unwrap();
        let below = |path: PathBuf| path.strip_prefix("/data/organizations").unwrap().display().to_string();
        assert_eq!(
            below(layout.user(MemberKind::Peers, "org1.example.com", "User1").join("msp")),
            "peerOrganizations/org1.example.com/users/User1@org1.example.com/msp"
        );
        assert_eq!(
            below(
                layout
                    .node(MemberKind::Peers, "org1.example.com", "peer0.org1.example.com")
                    .join("tls/ca.crt")
            ),
            "peerOrganizations/org1.example.com/peers/peer0.org1.example.com/tls/ca.crt"
        );
        assert_eq!(
            below(layout.node(MemberKind::Orderers, "example.com", "orderer.example.com")),
            "ordererOrganizations/example.com/orderers/orderer.example.com"
        );
        assert_eq!(
            below(layout.tls_roots(MemberKind::Orderers, "example.com")),
            "ordererOrganizations/example.com/tlsca/tlsca.example.com-cert.pem"
        );
    }
}
