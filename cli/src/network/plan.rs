//! Which processes a topology consists of, and where each listens.

use std::net::SocketAddr;

use crate::topology::{Member, Topology};

/// What a process does in the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Authority,
    Orderer,
    Peer,
}

impl Role {
    /// The role in words.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Authority => "CA",
            Self::Orderer => "orderer",
            Self::Peer => "peer",
        }
    }

    /// The program that plays it.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Authority => "consort-ca",
            Self::Orderer => "consort-orderer",
            Self::Peer => "consort-peer",
        }
    }
}

/// One process of the network.
#[derive(Debug, Clone)]
pub(crate) struct ProcessPlan {
    /// Name of the process, of its log and of its record.
    pub(crate) name: String,
    pub(crate) role: Role,
    /// Where clients reach it.
    pub(crate) address: SocketAddr,
    /// Every address that it listens on, with what it is for.
    pub(crate) listens: Vec<(&'static str, SocketAddr)>,
    /// Where `/healthz` is served; a CA is asked on its own address.
    pub(crate) operations: Option<SocketAddr>,
}

/// All processes: authorities (a root before those below it), then orderers, then peers.
pub(crate) fn processes(topology: &Topology) -> Vec<ProcessPlan> {
    let authorities = topology.members().flat_map(Member::authorities).map(|authority| {
        let address = topology.address(&authority.host, authority.port);
        ProcessPlan {
            name: authority.name.clone(),
            role: Role::Authority,
            address,
            listens: vec![("port", address)],
            operations: None,
        }
    });
    let orderers = topology.orderers().map(|(_, orderer)| {
        let at = |port| topology.address(&orderer.host, port);
        ProcessPlan {
            name: orderer.host.clone(),
            role: Role::Orderer,
            address: at(orderer.port),
            listens: vec![
                ("port", at(orderer.port)),
                ("admin port", at(orderer.admin_port)),
                ("operations port", at(orderer.operations_port)),
            ],
            operations: Some(at(orderer.operations_port)),
        }
    });
    let peers = topology.peers().map(|(_, peer)| {
        let at = |port| topology.address(&peer.host, port);
        ProcessPlan {
            name: peer.host.clone(),
            role: Role::Peer,
            address: at(peer.port),
            listens: vec![("port", at(peer.port)), ("operations port", at(peer.operations_port))],
            operations: Some(at(peer.operations_port)),
        }
    });
    authorities.chain(orderers).chain(peers).collect()
}
