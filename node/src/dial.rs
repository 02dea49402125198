//! Connections to other nodes, with TLS always.

use std::{
    fmt, io,
    path::Path,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use consort_crypto::{certificate::Certificate, hash::sha256};
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, SignatureScheme, client::ResolvesClientCert, sign::CertifiedKey};
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};
use tower::Service;

use crate::{
    config::{HostOverrides, TlsConfig},
    renewal::{FromFiles, Renewable},
    tls,
};

/// Time for one attempt to connect; the caller then tries another node.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Silence after which a connection is asked whether it still lives.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// Time for the answer to that question.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens gRPC connections: maps configured host names to addresses, shows the node's client certificate.
///
/// Clones share the certificate; when it is replaced, connections that are opened or opened again show the new one.
#[derive(Clone)]
pub struct Dialer {
    overrides: HostOverrides,
    identity: Arc<Shown>,
    connect_timeout: Duration,
    /// How lost machines are noticed, where that must be soon.
    probes: Option<Probes>,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Dialer")
            .field("overrides", &self.overrides)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// The TLS certificate and key that a node shows to the nodes it dials.
#[derive(Clone)]
pub struct ClientIdentity {
    cert_pem: Vec<u8>,
    /// Ready for handshakes, or why it is not.
    key: Result<Arc<CertifiedKey>, String>,
    certificate_hash: Bytes,
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ClientIdentity")
    }
}

impl ClientIdentity {
    /// From PEM texts. When they cannot be used, [`Dialer::connect`] says so.
    #[must_use]
    pub fn from_pem(cert: &[u8], key: &[u8]) -> Self {
        let provider = rustls::crypto::ring::default_provider();
        let pair = tls::certified_key((cert, "the client certificate"), (key, "the client key"), &provider);
        let key = pair.map(Arc::new).map_err(|error| with_causes(&error));
        let first = key.as_ref().ok().and_then(|key: &Arc<CertifiedKey>| key.cert.first());
        let certificate_hash = first.map(|der| Bytes::copy_from_slice(&sha256(der))).unwrap_or_default();
        Self { cert_pem: cert.to_vec(), key, certificate_hash }
    }

    /// The certificate, in PEM.
    #[must_use]
    pub fn cert_pem(&self) -> &[u8] {
        &self.cert_pem
    }

    /// SHA-256 of the certificate (DER): what binds a signed request to the connection (Fabric's `tls_cert_hash`).
    /// Empty when the identity cannot be used.
    #[must_use]
    pub fn certificate_hash(&self) -> Bytes {
        self.certificate_hash.clone()
    }
}

/// What all connections of a dialer show.
struct Shown(RwLock<Option<ClientIdentity>>);

impl fmt::Debug for Shown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Shown").field(&self.current().is_some()).finish()
    }
}

impl Shown {
    fn current(&self) -> Option<ClientIdentity> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _roots: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let key = self.current()?.key.ok()?;
        key.key.choose_scheme(schemes).is_some().then_some(key)
    }

    fn has_certs(&self) -> bool {
        self.current().is_some()
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
        let identity = Arc::new(Shown(RwLock::new(identity)));
        Self { overrides, identity, connect_timeout: CONNECT_TIMEOUT, probes: None }
    }

    /// Another bound for one attempt to connect.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The operating systems ask each other after a silence of `interval`, in whole seconds, whether the connection still lives, and it is given up when
    /// nothing was acknowledged for `silence`. Unlike HTTP/2's pings this wakes no process; it says nothing of a process that hangs.
    #[must_use]
    pub fn probes(mut self, interval: Duration, silence: Duration) -> Self {
        self.probes = Some(Probes { interval, silence });
        self
    }

    /// The node's own client certificate, as connections show it from now on.
    #[must_use]
    pub fn identity(&self) -> Option<ClientIdentity> {
        self.identity.current()
    }

    /// SHA-256 of the certificate (DER) that connections show from now on; empty without one.
    #[must_use]
    pub fn certificate_hash(&self) -> Bytes {
        let shown = self.identity.0.read().unwrap_or_else(PoisonError::into_inner);
        shown.as_ref().map(ClientIdentity::certificate_hash).unwrap_or_default()
    }

    /// From now on, connections that are opened show this certificate; those that are open go on.
    pub fn replace_identity(&self, identity: ClientIdentity) {
        *self.identity.0.write().unwrap_or_else(PoisonError::into_inner) = Some(identity);
    }

    /// Shows on new connections what the configured files hold now.
    ///
    /// # Errors
    /// In words for an operator; the old certificate then stays.
    pub fn reload(&self, config: &TlsConfig) -> Result<Certificate, String> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        let (cert, key) = (read(&config.cert)?, read(&config.key)?);
        let identity = ClientIdentity::from_pem(&cert, &key);
        if let Err(reason) = &identity.key {
            return Err(reason.clone());
        }
        let certificate = Certificate::from_pem(&cert).map_err(|error| error.to_string())?;
        self.replace_identity(identity);
        Ok(certificate)
    }

    /// Shows the certificate in the configured files whenever they change.
    #[must_use]
    pub fn renewable(&self, config: &TlsConfig) -> Arc<dyn Renewable> {
        let name = format!("TLS client certificate {}", config.cert.display());
        let files = vec![config.cert.clone(), config.key.clone()];
        let (dialer, config) = (self.clone(), config.clone());
        Arc::new(FromFiles::new(name, files, move || dialer.reload(&config)))
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
        let connector = self.connector(endpoint, host, roots)?;
        // TLS is the connector's own, so that each new connection shows the newest certificate; tonic would add a second
        // layer of it for `https`. Requests carry the origin.
        let target = Endpoint::from_shared(format!("http://{}", self.address(endpoint)))
            .map_err(|_uri| not_an_endpoint())?
            .origin(origin)
            .connect_timeout(self.connect_timeout)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(1024 * 1024)
            .initial_connection_window_size(8 * 1024 * 1024);
        Ok(target.connect_with_connector_lazy(connector))
    }

    fn connector(
        &self,
        endpoint: &str,
        host: String,
        roots: &[impl AsRef<[u8]>],
    ) -> Result<Connector, DialError> {
        let fault = |reason: String| DialError::Tls { endpoint: endpoint.to_owned(), reason };
        if let Some(reason) = self.identity.current().and_then(|identity| identity.key.err()) {
            return Err(fault(reason));
        }
        let mut store = RootCertStore::empty();
        for pem in roots {
            let found = tls::certificates(pem.as_ref(), "a TLS root");
            for root in found.map_err(|error| fault(error.to_string()))? {
                store.add(root).map_err(|error| fault(error.to_string()))?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| fault(error.to_string()))?
            .with_root_certificates(store)
            .with_client_cert_resolver(Arc::clone(&self.identity) as _);
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would go on under the certificate that it began with.
        config.resumption = rustls::client::Resumption::disabled();
        let name = ServerName::try_from(host).map_err(|error| fault(error.to_string()))?;
        Ok(Connector { tls: TlsConnector::from(Arc::new(config)), name, probes: self.probes })
    }
}

/// Opens one TLS connection to the address in a URI, under the name that the certificate must carry.
#[derive(Clone)]
struct Connector {
    tls: TlsConnector,
    name: ServerName<'static>,
    probes: Option<Probes>,
}

/// How the operating system finds out that the machine at the other end is gone (tcp(7): `TCP_KEEPIDLE`, `TCP_KEEPINTVL`, `TCP_USER_TIMEOUT`).
#[derive(Debug, Clone, Copy)]
struct Probes {
    interval: Duration,
    silence: Duration,
}

impl Probes {
    fn set_on(self, stream: &TcpStream) -> io::Result<()> {
        let socket = SockRef::from(stream);
        socket
            .set_tcp_keepalive(&TcpKeepalive::new().with_time(self.interval).with_interval(self.interval))?;
        // Also bounds how long what was sent may stay unacknowledged, while the kernel repeats it after ever longer pauses.
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(self.silence))?;
        Ok(())
    }
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<TlsStream<TcpStream>>>> + Send>>;

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        let Self { tls, name, probes } = self.clone();
        Box::pin(async move {
            let (Some(host), Some(port)) = (uri.host(), uri.port_u16()) else {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "the address has no host or no port",
                ));
            };
            let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
            stream.set_nodelay(true)?;
            if let Some(probes) = probes {
                probes.set_on(&stream)?;
            }
            let stream = tls.connect(name, stream).await?;
            if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                return Err(io::Error::other("the server does not speak HTTP/2 (ALPN h2)"));
            }
            Ok(TokioIo::new(stream))
        })
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
