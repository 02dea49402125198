//! Connection profiles: the files that older Fabric clients (`fabric-network`) are configured by.
//!
//! One per organisation that runs peers, as JSON and as YAML, in the place and with the content that Fabric's test network
//! writes (`organizations/ccp-template.json` of fabric-samples): `connection-org1.json` in the organisation's folder.

use serde_json::{Map, Value, json};

use crate::files;
use crate::layout::{Layout, MemberKind};
use crate::topology::{Organisation, Topology};

/// How long a client waits for an endorser, in seconds, as in Fabric's template.
const ENDORSER_TIMEOUT: &str = "300";

/// Writes the profiles of all organisations.
///
/// # Errors
/// The TLS roots cannot be read, or a file cannot be written.
pub(super) fn write(layout: &Layout, topology: &Topology) -> anyhow::Result<()> {
    for organisation in &topology.organisations {
        let domain = &organisation.member.domain;
        let roots = std::fs::read_to_string(layout.tls_roots(MemberKind::Peers, domain))?;
        let profile = profile(topology, organisation, &roots);
        let folder = layout.organisation(MemberKind::Peers, domain);
        let name = short_name(organisation);
        let json = serde_json::to_string_pretty(&profile)? + "\n";
        files::write_atomically(&folder.join(format!("connection-{name}.json")), json.as_bytes(), false)?;
        let mut yaml = String::from("---\n");
        write_yaml(&profile, 0, &mut yaml);
        files::write_atomically(&folder.join(format!("connection-{name}.yaml")), yaml.as_bytes(), false)?;
    }
    Ok(())
}

/// `org1` of `org1.example.com`: Fabric's test network names the files so.
fn short_name(organisation: &Organisation) -> &str {
    let domain = organisation.member.domain.as_str();
    domain.split_once('.').map_or(domain, |(first, _)| first)
}

fn profile(topology: &Topology, organisation: &Organisation, roots: &str) -> Value {
    let member = &organisation.member;
    let peer = |host: &str, port: u16| {
        json!({
            "url": format!("grpcs://{}", reached(topology, host, port)),
            "tlsCACerts": { "pem": roots },
            "grpcOptions": { "ssl-target-name-override": host, "hostnameOverride": host },
        })
    };
    let peers: Map<String, Value> =
        organisation.peers.iter().map(|found| (found.host.clone(), peer(&found.host, found.port))).collect();
    let authority = &member.authority;
    let name = &member.name;
    json!({
        "name": format!("{}-{}", topology.name, short_name(organisation)),
        "version": "1.0.0",
        "client": {
            "organization": name,
            "connection": { "timeout": { "peer": { "endorser": ENDORSER_TIMEOUT } } },
        },
        "organizations": { name: {
            "mspid": member.msp_id,
            "peers": organisation.peers.iter().map(|peer| &peer.host).collect::<Vec<_>>(),
            "certificateAuthorities": [authority.host],
        }},
        "peers": peers,
        "certificateAuthorities": { &authority.host: {
            "url": format!("https://{}", reached(topology, &authority.host, authority.port)),
            "caName": authority.name,
            "tlsCACerts": { "pem": [roots] },
            "httpOptions": { "verify": false },
        }},
    })
}

/// Where a host of this network is reached from this machine.
fn reached(topology: &Topology, host: &str, port: u16) -> String {
    let address = topology.address(host, port);
    if address.ip().is_loopback() { format!("localhost:{port}") } else { address.to_string() }
}

/// Appends a value in YAML's block style; texts of several lines (PEM) as literal blocks.
fn write_yaml(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                out.push_str(&format!("{indent}{}:", Value::from(key.as_str())));
                write_entry(value, depth, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                out.push_str(&format!("{indent}-"));
                write_entry(item, depth, out);
            }
        }
        scalar => out.push_str(&format!("{indent}{scalar}\n")),
    }
}

fn write_entry(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(_) | Value::Array(_) => {
            out.push('\n');
            write_yaml(value, depth + 1, out);
        }
        Value::String(text) if text.contains('\n') => {
            let indent = "  ".repeat(depth + 1);
            out.push_str(" |\n");
            for line in text.lines() {
                out.push_str(&format!("{indent}{line}\n"));
            }
        }
        scalar => out.push_str(&format!(" {scalar}\n")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn written() -> (String, String) {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../network-configs/two-org-raft");
        let topology = Topology::load(&config).unwrap().topology;
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path()).unwrap();
        for organisation in &topology.organisations {
            let roots = layout.tls_roots(MemberKind::Peers, &organisation.member.domain);
            files::write_atomically(&roots, b"-----BEGIN CERTIFICATE-----\nAA==\n-----END\n", false).unwrap();
        }
        write(&layout, &topology).unwrap();
        let organisation = layout.organisation(MemberKind::Peers, "org1.example.com");
        let read = |name: &str| std::fs::read_to_string(organisation.join(name)).unwrap();
        (read("connection-org1.json"), read("connection-org1.yaml"))
    }

    #[test]
    fn the_profile_has_the_content_of_fabrics_template() {
        let profile: Value = serde_json::from_str(&written().0).unwrap();
        assert_eq!(profile["organizations"]["Org1"]["mspid"], "Org1MSP");
        let peer = &profile["peers"]["peer0.org1.example.com"];
        assert_eq!(peer["url"], "grpcs://localhost:7051");
        assert_eq!(peer["grpcOptions"]["ssl-target-name-override"], "peer0.org1.example.com");
        let authority = &profile["certificateAuthorities"]["ca.org1.example.com"];
        assert_eq!(
            (&authority["url"], &authority["caName"]),
            (&json!("https://localhost:7054"), &json!("ca-org1"))
        );
        assert_eq!(profile["client"]["connection"]["timeout"]["peer"]["endorser"], "300");
    }

    #[test]
    fn both_forms_say_the_same() {
        let (json, yaml) = written();
        let json: Value = serde_json::from_str(&json).unwrap();
        let yaml: Value = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(json, yaml);
    }
}
