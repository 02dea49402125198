//! Where a load run sends its transactions: a network of this machine, or any gateway.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use consort_client_sdk::{ClientIdentity, Contract, Deadlines, Endpoint, Gateway};

use super::usage::Watched;
use crate::access::{Access, AccessOptions};
use crate::layout::MemberKind;
use crate::network::{Role, processes};
use crate::processes::Processes;

/// A gateway that is no part of a network of this machine, a Hyperledger Fabric peer for instance.
#[derive(Debug, Clone, Args)]
pub(crate) struct TargetOptions {
    /// A gateway outside of --network: host and port, the host as in its TLS certificate
    #[arg(long, value_name = "HOST:PORT", requires_all = ["tls_ca", "msp", "msp_id"])]
    endpoint: Option<String>,

    /// Address to connect to instead of resolving that host
    #[arg(long, value_name = "ADDRESS", requires = "endpoint")]
    connect_to: Option<SocketAddr>,

    /// TLS root certificates of that gateway (PEM)
    #[arg(long, value_name = "FILE", requires = "endpoint")]
    tls_ca: Option<PathBuf>,

    /// MSP folder of the client
    #[arg(long, value_name = "FOLDER", requires = "endpoint")]
    msp: Option<PathBuf>,

    /// MSP id of the client
    #[arg(long, value_name = "ID", requires = "endpoint")]
    msp_id: Option<String>,

    /// Also watch CPU and memory of these processes, and the bytes of their data folders, as name=pid or name=pid=folder (repeatable)
    #[arg(long = "watch", value_name = "NAME=PID[=FOLDER]")]
    watch: Vec<String>,
}

/// An open target.
#[derive(Debug)]
pub(crate) struct Target {
    /// The same chaincode over each connection.
    pub(crate) contracts: Vec<Contract>,
    /// The processes behind it, as far as they run here.
    pub(crate) processes: Vec<Watched>,
    /// Address of the gateway.
    pub(crate) peer: String,
}

impl Target {
    /// Opens the connections.
    ///
    /// # Errors
    /// Credentials cannot be read, or the gateway does not answer.
    pub(crate) async fn open(
        access: &AccessOptions,
        options: &TargetOptions,
        chaincode: &str,
        connections: usize,
    ) -> anyhow::Result<Self> {
        let mut processes = watched(&options.watch)?;
        let (endpoint, identity, channel) = match options.outside()? {
            Some((endpoint, identity)) => (endpoint, identity, access.channel_or_default()),
            None => {
                let access = access.open()?;
                let (member, peer) = access.peer()?;
                processes.extend(of_network(&access)?);
                (access.peer_endpoint(member, peer)?, access.identity(false)?, access.channel().to_owned())
            }
        };
        let mut contracts = Vec::with_capacity(connections);
        for _ in 0..connections {
            let gateway = Gateway::new(endpoint.connect().await?, identity.clone(), Deadlines::default());
            contracts.push(gateway.network(&channel).contract(chaincode));
        }
        Ok(Self { contracts, processes, peer: endpoint.address })
    }
}

impl TargetOptions {
    fn outside(&self) -> anyhow::Result<Option<(Endpoint, ClientIdentity)>> {
        let (Some(address), Some(roots), Some(msp), Some(msp_id)) =
            (&self.endpoint, &self.tls_ca, &self.msp, &self.msp_id)
        else {
            return Ok(None);
        };
        let pem = std::fs::read(roots).with_context(|| format!("cannot read {}", roots.display()))?;
        let mut endpoint = Endpoint::new(address, pem);
        if let Some(connect_to) = self.connect_to {
            endpoint = endpoint.connect_to(connect_to);
        }
        Ok(Some((endpoint, ClientIdentity::from_folder(msp, msp_id)?)))
    }
}

fn watched(options: &[String]) -> anyhow::Result<Vec<Watched>> {
    let parse = |option: &String| {
        let (name, pid) = option.split_once('=')?;
        let (pid, data) =
            pid.split_once('=').map_or((pid, None), |(pid, folder)| (pid, Some(PathBuf::from(folder))));
        Some(Watched { name: name.to_owned(), pid: pid.parse().ok()?, data })
    };
    options
        .iter()
        .map(|option| {
            let watched = parse(option).with_context(|| {
                format!("--watch '{option}' is not of the form name=pid or name=pid=folder")
            })?;
            let is_there = Path::new("/proc").join(watched.pid.to_string()).exists();
            anyhow::ensure!(is_there, "--watch '{option}': this machine runs no process {}", watched.pid);
            let lacking = watched.data.as_deref().filter(|folder| !folder.is_dir());
            anyhow::ensure!(lacking.is_none(), "--watch '{option}': that is no folder");
            Ok(watched)
        })
        .collect()
}

/// The peers and orderers of a network that run on this machine; peers with their data folders.
fn of_network(access: &Access) -> anyhow::Result<Vec<Watched>> {
    let running = Processes::of(access.layout.root())?;
    let nodes = processes(&access.topology).into_iter().filter(|plan| plan.role != Role::Authority);
    let watched = nodes.filter_map(|plan| {
        let pid = running.running(&plan.name)?.identity.pid;
        let data = (plan.role == Role::Peer).then(|| access.layout.node_data(MemberKind::Peers, &plan.name));
        Some(Watched { name: plan.name, pid, data })
    });
    Ok(watched.collect())
}
