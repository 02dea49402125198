//! The servers' configuration files, written anew at every start from the topology.

use serde_json::{Value, json};

use crate::layout::{Layout, MemberKind};
use consort_crypto::key::KeyAlgorithm;

use crate::topology::{Authority, Member, Orderer, OrdererOrganisation, Organisation, Peer, Topology};

/// The first line of every file.
const NOTE: &str = "# Written by `consort network up` at every start; a change here does not last.\n";

/// Names besides its own under which a server on this machine is reached.
const LOCAL_NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// The names in a server's TLS certificate.
pub(super) fn certificate_hosts(host: &str) -> Vec<String> {
    std::iter::once(host).chain(LOCAL_NAMES).map(str::to_owned).collect()
}

fn document(value: &Value) -> anyhow::Result<String> {
    Ok(format!("{NOTE}{}", serde_saphyr::to_string(value)?))
}

/// How an intermediate authority enrols at the root above it.
pub(super) struct Parent<'a> {
    pub(super) authority: &'a Authority,
    /// The secret of each identity that the root has registered for it.
    pub(super) secret: &'a str,
}

/// Common name of an authority that issues TLS certificates beside the one for identities.
pub(super) fn tls_common_name(host: &str) -> String {
    format!("tls{host}")
}

/// Configuration of `consort-ca`.
///
/// # Errors
/// None in practice: the values serialise.
pub(super) fn authority(
    layout: &Layout,
    topology: &Topology,
    (member, authority): (&Member, &Authority),
    (registrar, secret): (&str, &str),
    parent: Option<&Parent<'_>>,
) -> anyhow::Result<String> {
    let Authority { name, host, port } = authority;
    let bootstrap = json!({ "id": registrar, "secret": secret });
    let enrols = |common_name: &str, is_tls: bool| {
        parent.map(|Parent { authority, secret }| {
            let tls = member.tls_authority_of(authority);
            json!({
                "address": format!("{}:{}", authority.host, authority.port),
                "ca_name": if is_tls { &tls } else { &authority.name },
                "id": common_name,
                "secret": secret,
                "tls_roots": layout.authority_data(&tls).join("ca-cert.pem"),
                "connect_to": topology.address(&authority.host, authority.port).to_string(),
            })
        })
    };
    let identity = |name: &str, common_name: &str, key: KeyAlgorithm, is_tls: bool| {
        let mut identity = json!({
            "name": name,
            "subject": {
                "common_name": common_name,
                "organization": member.domain,
                "country": "US",
                "province": "North Carolina",
            },
            "key": key_config(key),
        });
        if let Some(parent) = enrols(common_name, is_tls) {
            identity["parent"] = parent;
        }
        identity
    };
    let mut config = json!({
        "listen": { "address": topology.address(host, *port).to_string() },
        "data": layout.authority_data(name),
        "ca": identity(name, host, member.key_algorithm, false),
        "hosts": certificate_hosts(host),
        "bootstrap": bootstrap,
    });
    let tls = member.tls_authority_of(authority);
    if tls != *name {
        // TLS stays on P-256, so that a second authority of the server issues its certificates.
        config["further"] = json!([{
            "data": layout.authority_data(&tls),
            "ca": identity(&tls, &tls_common_name(host), KeyAlgorithm::P256, true),
            "bootstrap": bootstrap,
        }]);
    }
    document(&config)
}

/// A kind of key as the authority's configuration says it.
fn key_config(key: KeyAlgorithm) -> serde_json::Value {
    let (algo, size) = match key {
        KeyAlgorithm::P256 => ("ecdsa", 256),
        KeyAlgorithm::P384 => ("ecdsa", 384),
        KeyAlgorithm::Ed25519 => ("ed25519", 256),
        KeyAlgorithm::Sm2 => ("sm2", 256),
    };
    json!({ "algo": algo, "size": size })
}

/// Configuration of `consort-peer`.
///
/// # Errors
/// None in practice: the values serialise.
pub(super) fn peer(
    layout: &Layout,
    topology: &Topology,
    organisation: &Organisation,
    peer: &Peer,
) -> anyhow::Result<String> {
    let member = &organisation.member;
    let folder = layout.node(MemberKind::Peers, &member.domain, &peer.host);
    let own = organisation.peers.iter().filter(|other| other.host != peer.host);
    let own: Vec<String> = own.map(|other| format!("{}:{}", other.host, other.port)).collect();
    let mut membership = json!({ "bootstrap_peers": own });
    if let Some(blocks) = topology.channel.attest_every_blocks {
        membership["attest_every_blocks"] = blocks.into();
    }
    document(&json!({
        "id": peer.host,
        "endpoint": format!("{}:{}", peer.host, peer.port),
        "msp": { "id": member.msp_id, "dir": folder.join("msp") },
        "data_dir": layout.node_data(MemberKind::Peers, &peer.host),
        "listen": { "address": topology.address(&peer.host, peer.port).to_string() },
        "tls": { "cert": folder.join("tls/server.crt"), "key": folder.join("tls/server.key") },
        "operations": { "address": topology.address(&peer.host, peer.operations_port).to_string() },
        "host_overrides": topology.host_overrides(),
        "membership": membership,
        "sealed": { "proxy": peer.sealed_proxy },
    }))
}

/// Configuration of `consort-orderer`.
///
/// # Errors
/// None in practice: the values serialise.
pub(super) fn orderer(
    layout: &Layout,
    topology: &Topology,
    organisation: &OrdererOrganisation,
    orderer: &Orderer,
) -> anyhow::Result<String> {
    let member = &organisation.member;
    let folder = layout.node(MemberKind::Orderers, &member.domain, &orderer.host);
    let (cert, key) = (folder.join("tls/server.crt"), folder.join("tls/server.key"));
    let at = |port| topology.address(&orderer.host, port).to_string();
    document(&json!({
        "listen": { "address": at(orderer.port) },
        "tls": { "cert": cert, "key": key },
        "admin": {
            "address": at(orderer.admin_port),
            "cert": cert,
            "key": key,
            // Only its own organisation administers an orderer.
            "client_roots": [layout.tls_roots(MemberKind::Orderers, &member.domain)],
        },
        "operations": { "address": at(orderer.operations_port) },
        "msp": { "id": member.msp_id, "folder": folder.join("msp") },
        "data": layout.node_data(MemberKind::Orderers, &orderer.host),
        "host_overrides": topology.host_overrides(),
    }))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parsed(text: &str) -> Value {
        serde_saphyr::from_str(text).unwrap()
    }

    #[test]
    fn a_peers_file_names_its_own_files_ports_and_hosts() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../network-configs/three-org");
        let topology = Topology::load(&folder).unwrap().topology;
        let layout = Layout::new(Path::new("/data")).unwrap();
        let (organisation, first) = topology.peers().next().unwrap();
        let text = peer(&layout, &topology, organisation, first).unwrap();
        assert!(text.starts_with("# Written by `consort network up`"), "{text}");
        let value = parsed(&text);
        assert_eq!(value["listen"]["address"], "127.0.0.1:27051");
        assert_eq!(value["msp"]["id"], "MakerMSP");
        assert_eq!(value["host_overrides"]["orderer0.north.example.com"], "127.0.0.1");
        assert_eq!(value["membership"]["bootstrap_peers"], json!(["peer1.maker.example.com:27151"]));
    }

    #[test]
    fn a_secret_of_digits_stays_a_text() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../network-configs/one-org-solo");
        let topology = Topology::load(&folder).unwrap().topology;
        let layout = Layout::new(Path::new("/data")).unwrap();
        let member = &topology.organisations[0].member;
        for secret in ["12345678", "1e5", "0x12", "null"] {
            let text =
                authority(&layout, &topology, (member, &member.authority), ("admin", secret), None).unwrap();
            assert_eq!(parsed(&text)["bootstrap"]["secret"], secret, "{text}");
        }
    }

    #[test]
    fn an_orderer_is_administered_by_its_own_organisation_only() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../network-configs/three-org");
        let topology = Topology::load(&folder).unwrap().topology;
        let layout = Layout::new(Path::new("/data")).unwrap();
        let (organisation, first) = topology.orderers().next().unwrap();
        let value = parsed(&orderer(&layout, &topology, organisation, first).unwrap());
        let roots = value["admin"]["client_roots"].as_array().unwrap();
        assert_eq!(roots.len(), 1);
        assert!(roots[0].as_str().unwrap().ends_with("tlsca.north.example.com-cert.pem"), "{roots:?}");
    }
}
