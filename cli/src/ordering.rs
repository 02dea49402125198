//! How to reach the orderers of a channel: those of the network on this machine, or those that the configuration of a joined
//! channel names.

use std::net::SocketAddr;

use anyhow::Context;
use bytes::Bytes;
use consort_channel_config::ChannelBundle;
use consort_client_sdk::Endpoint;
use consort_client_sdk::blocks::{BlockPosition, BlockServer, fetch_block};
use consort_protos::fabric::common::Block;

use crate::access::Access;
use crate::network::describe;
use crate::topology;

/// The orderers' endpoints. A network that joined a channel of others finds them in `newest`, or in the configuration that it
/// was given.
///
/// # Errors
/// The TLS roots of the orderers, or the configuration, cannot be read.
pub(crate) fn endpoints(access: &Access, newest: Option<&ChannelBundle>) -> anyhow::Result<Vec<Endpoint>> {
    if access.topology.joins.is_none() {
        let own = access.topology.orderers();
        return own
            .map(|(organisation, orderer)| access.orderer_endpoint(&organisation.member, orderer))
            .collect();
    }
    match newest {
        Some(bundle) => Ok(named_in(access, bundle)),
        None => {
            let file = access.layout.joined_channel(&access.topology.channel.name);
            Ok(named_in(access, &topology::load_configuration(&file)?))
        }
    }
}

/// The endpoints that a configuration names, each with the TLS roots of its organisation, or of all where it names none.
fn named_in(access: &Access, bundle: &ChannelBundle) -> Vec<Endpoint> {
    let all =
        || bundle.orderer().organisations.iter().map(|organisation| organisation.msp_id.clone()).collect();
    let found = bundle.orderer_endpoints().into_iter().map(|(msp_id, address)| {
        let organisations: Vec<_> = msp_id.map_or_else(all, |msp_id| vec![msp_id]);
        let roots: Vec<Bytes> = organisations.iter().flat_map(|msp_id| bundle.tls_roots_of(msp_id)).collect();
        let endpoint = Endpoint::new(address, roots.concat());
        match overridden(access, &endpoint) {
            Some(address) => endpoint.connect_to(address),
            None => endpoint,
        }
    });
    found.collect()
}

/// Where the description puts a host that a name server does not know.
fn overridden(access: &Access, endpoint: &Endpoint) -> Option<SocketAddr> {
    let (host, port) = endpoint.host_and_port().ok()?;
    let address = access.topology.hosts.get(host)?;
    Some(SocketAddr::new(*address, port))
}

/// The orderer with this host name.
///
/// # Errors
/// There is none; the error names those that there are.
pub(crate) fn endpoint_of(access: &Access, host: &str) -> anyhow::Result<Endpoint> {
    let all = endpoints(access, None)?;
    let host_of = |endpoint: &Endpoint| endpoint.host_and_port().map_or("", |(host, _)| host).to_owned();
    let known: Vec<String> = all.iter().map(host_of).collect();
    let found = all.into_iter().find(|endpoint| host_of(endpoint) == host);
    found.with_context(|| format!("the network has no orderer '{host}' (known are: {})", known.join(", ")))
}

/// Fetches a block of the channel from the first orderer that gives it to an administrator of the caller's organisation.
///
/// # Errors
/// No orderer gives it; the error shows what each said.
pub(crate) async fn fetch(access: &Access, position: BlockPosition) -> anyhow::Result<Block> {
    let identity = access.identity(true)?;
    let channel = access.channel();
    let (mut refusals, mut last) = (Vec::new(), None);
    for endpoint in endpoints(access, None)? {
        match fetch_block(&endpoint, BlockServer::Orderer, &identity, channel, position).await {
            Ok(block) => return Ok(block),
            Err(error) => {
                refusals.push(format!("  {}", describe(&error)));
                last = Some(error);
            }
        }
    }
    let last = last.context("the network has no orderers")?;
    Err(anyhow::Error::new(last).context(format!(
        "no orderer gives the blocks of channel {channel} to {}:\n{}\nRemedy: when they refuse (FORBIDDEN), the channel does not have \
         the organisation yet: its members add it with `consort channel plan`, `sign` and `apply`. When none is reached, see to \
         the hosts of the topology or to the name server.",
        identity.msp_id(),
        refusals.join("\n")
    )))
}
