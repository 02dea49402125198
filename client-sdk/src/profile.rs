//! Connection profiles: the files that describe an organisation's nodes to Fabric's clients, in JSON or YAML.
//!
//! Read are the parts that say where the peers are and how they are recognised; a gateway finds everything else by itself.
//! Source: fabric-sdk-node documentation, "Connection Profile".

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::connection::Endpoint;
use crate::error::Error;

/// A connection profile.
#[derive(Debug, Clone, Deserialize)]
pub struct ConnectionProfile {
    /// Name of the profile.
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    client: Client,
    #[serde(default)]
    organizations: BTreeMap<String, Organisation>,
    #[serde(default)]
    peers: BTreeMap<String, Node>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Client {
    #[serde(default)]
    organization: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Organisation {
    mspid: String,
    #[serde(default)]
    peers: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Node {
    url: String,
    #[serde(rename = "tlsCACerts", default)]
    tls_roots: Pem,
    #[serde(rename = "grpcOptions", default)]
    options: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Pem {
    #[serde(default)]
    pem: Option<Texts>,
    #[serde(default)]
    path: Option<PathBuf>,
}

/// One text, or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Several(Vec<String>),
}

fn wrong(path: &Path, reason: String) -> Error {
    Error::Profile { path: path.display().to_string(), reason }
}

impl ConnectionProfile {
    /// Reads a profile; paths in it are relative to the file's folder.
    ///
    /// ```
    /// use consort_client_sdk::ConnectionProfile;
    ///
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("connection-org1.yaml");
    /// # std::fs::write(&path, "
    /// # organizations: { Org1: { mspid: Org1MSP, peers: [peer0.org1.example.com] } }
    /// # peers: { peer0.org1.example.com: { url: 'grpcs://peer0.org1.example.com:7051', tlsCACerts: { pem: roots } } }
    /// # ").unwrap();
    /// let profile = ConnectionProfile::load(&path)?;
    /// assert_eq!(profile.msp_id()?, "Org1MSP");
    /// assert_eq!(profile.gateways()?[0].address, "peer0.org1.example.com:7051");
    /// # Ok::<(), consort_client_sdk::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Profile`] names the file and what is wrong.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| wrong(path, error.to_string()))?;
        Self::parse(&text, path)
    }

    /// Reads a profile from the text of the file at `path`; paths in it are relative to the file's folder.
    ///
    /// # Errors
    /// [`Error::Profile`] names the file and what is wrong.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        // JSON is YAML.
        let mut profile: Self =
            serde_saphyr::from_str(text).map_err(|error| wrong(path, error.to_string()))?;
        let base = path.parent().unwrap_or(Path::new(""));
        for node in profile.peers.values_mut() {
            node.tls_roots.path = node.tls_roots.path.take().map(|file| base.join(file));
        }
        Ok(profile)
    }

    /// The MSP id of the organisation that the profile is for.
    ///
    /// # Errors
    /// [`Error::Profile`] when the profile does not say.
    pub fn msp_id(&self) -> Result<&str, Error> {
        Ok(&self.own()?.mspid)
    }

    /// How to reach the gateways of the organisation that the profile is for, in the profile's order.
    ///
    /// # Errors
    /// [`Error::Profile`] when a peer is missing, has no TLS roots, or no `grpcs` URL.
    pub fn gateways(&self) -> Result<Vec<Endpoint>, Error> {
        self.own()?.peers.iter().map(|name| self.endpoint(name)).collect()
    }

    fn own(&self) -> Result<&Organisation, Error> {
        let named = self.organizations.get(&self.client.organization);
        let only = || (self.organizations.len() == 1).then(|| self.organizations.values().next()).flatten();
        named
            .or_else(only)
            .ok_or_else(|| self.wrong("client.organization names none of the organizations in it".to_owned()))
    }

    fn endpoint(&self, name: &str) -> Result<Endpoint, Error> {
        let node = self.peers.get(name).ok_or_else(|| self.wrong(format!("it has no peer {name}")))?;
        let address = node.url.strip_prefix("grpcs://").ok_or_else(|| {
            self.wrong(format!("peer {name} has the URL {}, and only grpcs:// is spoken", node.url))
        })?;
        let roots = match (&node.tls_roots.pem, &node.tls_roots.path) {
            (Some(Texts::One(pem)), _) => pem.clone().into_bytes(),
            (Some(Texts::Several(pems)), _) => pems.join("\n").into_bytes(),
            (None, Some(path)) => std::fs::read(path)
                .map_err(|error| self.wrong(format!("{} of peer {name}: {error}", path.display())))?,
            (None, None) => return Err(self.wrong(format!("peer {name} has no tlsCACerts"))),
        };
        let Some(host) = node.options.get("ssl-target-name-override").and_then(serde_json::Value::as_str)
        else {
            return Ok(Endpoint::new(address, roots));
        };
        // The certificate's name and the address differ: connect to the one, demand the other.
        let (_, port) =
            Endpoint::new(address, "").host_and_port().map(|(host, port)| (host.to_owned(), port))?;
        let endpoint = Endpoint::new(format!("{host}:{port}"), roots);
        let reached = address.rsplit_once(':').map_or(address, |(reached, _)| reached);
        Ok(match reached.parse::<IpAddr>() {
            Ok(ip) => endpoint.connect_to(SocketAddr::new(ip, port)),
            Err(_) if reached == "localhost" => {
                endpoint.connect_to(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
            }
            Err(_) => endpoint,
        })
    }

    fn wrong(&self, reason: String) -> Error {
        Error::Profile { path: self.name.clone(), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "
name: test-network-org1
client: { organization: Org1 }
organizations:
  Org1: { mspid: Org1MSP, peers: [peer0.org1.example.com] }
peers:
  peer0.org1.example.com:
    url: grpcs://localhost:7051
    tlsCACerts: { path: ca.pem }
    grpcOptions: { ssl-target-name-override: peer0.org1.example.com, request-timeout: 3 }
certificateAuthorities: { ca.org1.example.com: { url: https://localhost:7054 } }
";

    fn load(text: &str) -> Result<ConnectionProfile, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("connection.yaml");
        std::fs::write(&path, text).unwrap();
        std::fs::write(folder.path().join("ca.pem"), "roots").unwrap();
        let profile = ConnectionProfile::load(&path)?;
        profile.gateways()?;
        Ok(profile)
    }

    #[test]
    fn fabrics_profile_leads_to_its_peers() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), "roots").unwrap();
        let path = folder.path().join("connection.yaml");
        std::fs::write(&path, YAML).unwrap();
        let profile = ConnectionProfile::load(&path).unwrap();
        assert_eq!(profile.msp_id().unwrap(), "Org1MSP");
        let endpoints = profile.gateways().unwrap();
        assert_eq!(endpoints[0].address, "peer0.org1.example.com:7051");
        assert_eq!(endpoints[0].connect_to, Some("127.0.0.1:7051".parse().unwrap()));
        assert_eq!(endpoints[0].tls_roots_pem, bytes::Bytes::from_static(b"roots"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = |change: (&str, &str)| load(&YAML.replace(change.0, change.1)).unwrap_err().to_string();
        assert!(missing(("grpcs://", "grpc://")).contains("only grpcs:// is spoken"));
        assert!(missing(("tlsCACerts: { path: ca.pem }", "x: 1")).contains("has no tlsCACerts"));
        assert!(missing(("peers: [peer0", "peers: [peer9")).contains("it has no peer peer9"));
    }
}
