//! Connections to other nodes, with TLS always.

use std::{fmt, time::Duration};

use http::Uri;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::config::HostOverrides;

/// Time for one attempt to connect; the caller then tries another node.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Silence after which a connection is asked whether it still lives.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// Time for the answer to that question.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens gRPC connections: maps configured host names to addresses, shows the node's client certificate.
#[derive(Clone)]
pub struct Dialer {
    overrides: HostOverrides,
    identity: Option<ClientIdentity>,
    connect_timeout: Duration,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Dialer")
            .field("overrides", &self.overrides)
            .field("identity", &self.identity.is_some())
            .finish_non_exhaustive()
    }
}

/// The TLS certificate and key that a node shows to the nodes it dials.
#[derive(Clone)]
pub struct ClientIdentity {
    cert_pem: Vec<u8>,
    identity: Identity,
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ClientIdentity")
    }
}

impl ClientIdentity {
    /// From PEM texts.
    #[must_use]
    pub fn from_pem(cert: &[u8], key: &[u8]) -> Self {
        Self { cert_pem: cert.to_vec(), identity: Identity::from_pem(cert, key) }
    }

    /// The certificate, in PEM.
    #[must_use]
    pub fn cert_pem(&self) -> &[u8] {
        &self.cert_pem
    }
}

/// A connection could not even be prepared.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Not of the form host:port.
    #[error("`{endpoint}` is not an endpoint of the form host:port")]
    Endpoint {
        /// What was configured.
        endpoint: String,
    },
    /// Roots, certificate or key cannot be used.
    #[error("TLS for the connection to {endpoint}: {reason}")]
    Tls {
        /// The node that should be dialled.
        endpoint: String,
        /// What is wrong.
        reason: String,
    },
}

impl Dialer {
    /// A dialer; `identity` is shown to servers that ask for a client certificate.
    #[must_use]
    pub fn new(overrides: HostOverrides, identity: Option<ClientIdentity>) -> Self {
        Self { overrides, identity, connect_timeout: CONNECT_TIMEOUT }
    }

    /// Another bound for one attempt to connect.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The node's own client certificate.
    #[must_use]
    pub fn identity(&self) -> Option<&ClientIdentity> {
        self.identity.as_ref()
    }

    /// The address that stands for `endpoint` (`host:port`): the override of `host:port`, that of `host`, or itself.
    #[must_use]
    pub fn address<'a>(&'a self, endpoint: &'a str) -> std::borrow::Cow<'a, str> {
        if let Some(address) = self.overrides.get(endpoint) {
            return complete(address, endpoint);
        }
        match endpoint.rsplit_once(':').and_then(|(host, _)| self.overrides.get(host)) {
            Some(address) => complete(address, endpoint),
            None => endpoint.into(),
        }
    }

    /// A connection to `endpoint` (`host:port`) that is opened at its first call and again when it breaks.
    /// The server's certificate must carry the configured host name and chain to `roots` (PEM), whatever the override.
    ///
    /// # Errors
    /// [`DialError`] when endpoint or TLS material cannot be used; an unreachable node shows at the first call.
    pub fn connect(&self, endpoint: &str, roots: &[impl AsRef<[u8]>]) -> Result<Channel, DialError> {
        let not_an_endpoint = || DialError::Endpoint { endpoint: endpoint.to_owned() };
        let origin: Uri = format!("https://{endpoint}").parse().map_err(|_uri| not_an_endpoint())?;
        let host = origin.host().filter(|_| origin.port_u16().is_some()).ok_or_else(not_an_endpoint)?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let tls_fault = |error: tonic::transport::Error| DialError::Tls {
            endpoint: endpoint.to_owned(),
            reason: with_causes(&error),
        };
        let mut tls = ClientTlsConfig::new()
            .ca_certificates(roots.iter().map(|pem| Certificate::from_pem(pem.as_ref())))
            .domain_name(host);
        if let Some(identity) = &self.identity {
            tls = tls.identity(identity.identity.clone());
        }
        let target = Endpoint::from_shared(format!("https://{}", self.address(endpoint)))
            .map_err(|_uri| not_an_endpoint())?
            .origin(origin)
            .tls_config(tls)
            .map_err(tls_fault)?
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(1024 * 1024)
            .initial_connection_window_size(8 * 1024 * 1024);
        Ok(target.connect_lazy())
    }
}

/// An override without a port takes the endpoint's.
fn complete<'a>(address: &'a str, endpoint: &str) -> std::borrow::Cow<'a, str> {
    let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    match endpoint.rsplit_once(':') {
        Some((_, port)) if !has_port => format!("{address}:{port}").into(),
        _ => address.into(),
    }
}

/// An error with its causes in one line: tonic's own text is only "transport error".
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialer(overrides: &[(&str, &str)]) -> Dialer {
        let overrides = overrides.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Dialer::new(overrides, None)
    }

    #[test]
    fn an_override_replaces_host_and_keeps_the_port_unless_it_has_its_own() {
        let dialer = dialer(&[
            ("peer0.org1.example.com", "127.0.0.1"),
            ("peer0.org2.example.com:9051", "127.0.0.1:19051"),
        ]);
        assert_eq!(dialer.address("peer0.org1.example.com:7051"), "127.0.0.1:7051");
        assert_eq!(dialer.address("peer0.org2.example.com:9051"), "127.0.0.1:19051");
        assert_eq!(dialer.address("peer0.org2.example.com:1"), "peer0.org2.example.com:1");
    }

    #[tokio::test]
    async fn an_endpoint_without_port_is_refused() {
        let roots: [&[u8]; 0] = [];
        for endpoint in ["peer0", "", "a b:1", "peer0:port"] {
            let refused = dialer(&[]).connect(endpoint, &roots);
            assert!(matches!(refused, Err(DialError::Endpoint { .. })), "{endpoint}");
        }
    }

    #[tokio::test]
    async fn the_key_of_the_client_identity_is_not_printed() {
        let identity = ClientIdentity::from_pem(b"certificate", b"secret");
        let dialer = Dialer::new(HostOverrides::default(), Some(identity));
        let printed = format!("{dialer:?} {:?}", dialer.identity());
        assert!(!printed.contains("secret") && !printed.contains("115, 101, 99"), "{printed}");
    }
}
