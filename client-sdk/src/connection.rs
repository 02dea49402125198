//! A TLS connection to a node: where it is, which name its certificate must carry, and which roots to trust.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

use crate::error::Error;

/// How long a connection may take to open; a node on the same continent answers in a tenth of it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A lost connection is noticed after this silence, even while only waiting for events.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Largest message that is taken from a node, as Fabric's nodes allow. What is sent is judged by the node, which says how much it takes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 100 * 1024 * 1024;

/// Where a node listens and how it is recognised.
#[derive(Clone)]
pub struct Endpoint {
    /// `host:port` as configured; the host is also the name in the node's TLS certificate.
    pub address: String,
    /// The address to connect to instead of resolving the host, so that no hosts file has to be edited.
    pub connect_to: Option<SocketAddr>,
    /// TLS root certificates (PEM, one or more) that the node's certificate must chain to.
    pub tls_roots_pem: Bytes,
    /// Certificate and private key (PEM) for a node that demands a client certificate.
    pub client_tls: Option<ClientTlsIdentity>,
}

/// A TLS client certificate with its key.
#[derive(Clone)]
pub struct ClientTlsIdentity {
    /// Certificate (PEM).
    pub certificate_pem: Bytes,
    /// Private key (PEM, PKCS#8).
    pub key_pem: Bytes,
}

impl std::fmt::Debug for ClientTlsIdentity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ClientTlsIdentity").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Endpoint")
            .field("address", &self.address)
            .field("connect_to", &self.connect_to)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// An endpoint that is resolved by its host name and needs no client certificate.
    #[must_use]
    pub fn new(address: impl Into<String>, tls_roots_pem: impl Into<Bytes>) -> Self {
        Self {
            address: address.into(),
            connect_to: None,
            tls_roots_pem: tls_roots_pem.into(),
            client_tls: None,
        }
    }

    /// Connects to this address instead of resolving the host.
    #[must_use]
    pub fn connect_to(mut self, address: SocketAddr) -> Self {
        self.connect_to = Some(address);
        self
    }

    /// Presents a client certificate.
    #[must_use]
    pub fn with_client_tls(mut self, identity: ClientTlsIdentity) -> Self {
        self.client_tls = Some(identity);
        self
    }

    /// Host and port of the address.
    ///
    /// # Errors
    /// [`Error::Address`] when it is not `host:port`.
    pub fn host_and_port(&self) -> Result<(&str, u16), Error> {
        let invalid = || Error::Address(self.address.clone());
        let (host, port) = self.address.rsplit_once(':').ok_or_else(invalid)?;
        let port = port.parse().map_err(|_| invalid())?;
        if host.is_empty() { Err(invalid()) } else { Ok((host, port)) }
    }

    /// Opens a gRPC connection.
    ///
    /// # Errors
    /// [`Error::Address`] for an address that is no `host:port`; [`Error::Connect`] when the node does not answer or
    /// its certificate does not match.
    pub async fn connect(&self) -> Result<Channel, Error> {
        let failed = |source| Error::Connect { endpoint: self.address.clone(), source };
        self.prepared()?.connect().await.map_err(failed)
    }

    /// Prepares a gRPC connection that opens with the first call and again after a loss.
    ///
    /// # Errors
    /// As [`Endpoint::connect`], apart from what only shows when connecting.
    pub fn connect_lazily(&self) -> Result<Channel, Error> {
        Ok(self.prepared()?.connect_lazy())
    }

    fn prepared(&self) -> Result<tonic::transport::Endpoint, Error> {
        let failed = |source| Error::Connect { endpoint: self.address.clone(), source };
        let (host, port) = self.host_and_port()?;
        let target = match self.connect_to {
            Some(address) => address.to_string(),
            None => format!("{host}:{port}"),
        };
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.tls_roots_pem))
            .domain_name(host);
        if let Some(identity) = &self.client_tls {
            tls = tls.identity(Identity::from_pem(&identity.certificate_pem, &identity.key_pem));
        }
        let origin =
            format!("https://{}", self.address).parse().map_err(|_| Error::Address(self.address.clone()))?;
        tonic::transport::Endpoint::from_shared(format!("https://{target}"))
            .map_err(failed)?
            .origin(origin)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .tls_config(tls)
            .map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_port_is_refused() {
        for wrong in ["peer0", "peer0:", ":7051", "peer0:70510"] {
            let endpoint = Endpoint::new(wrong, "roots");
            assert!(matches!(endpoint.host_and_port(), Err(Error::Address(address)) if address == wrong));
        }
        assert_eq!(Endpoint::new("peer0:7051", "").host_and_port().unwrap(), ("peer0", 7051));
    }

    #[test]
    fn a_private_key_never_shows_in_debug_output() {
        let identity = ClientTlsIdentity { certificate_pem: "cert".into(), key_pem: "very secret".into() };
        let endpoint = Endpoint::new("peer0:7051", "roots").with_client_tls(identity.clone());
        assert!(!format!("{endpoint:?} {identity:?}").contains("secret"));
    }
}
