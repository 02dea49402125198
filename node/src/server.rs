//! One listener for gRPC and plain HTTP, with TLS, limits and a clean end.

mod budget;
mod port_owner;

use std::{convert::Infallible, fmt, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use rustls_pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::{body::Body as GrpcBody, server::NamedService, service::RoutesBuilder};
use tower::{Service, ServiceExt};
use tracing::{debug, info, warn};

use self::budget::{Budget, Paid};
use crate::{
    Tasks,
    config::ListenConfig,
    tls::{ClientRoots, ServerTls},
};

/// The largest gRPC message in either direction, in bytes: what Fabric's peers and orderers accept.
///
/// Every generated service and client takes it by `max_decoding_message_size` and `max_encoding_message_size`.
pub const MESSAGE_BYTES_MAX: usize = 100 * 1024 * 1024;

/// How long running requests may go on after the server was told to stop.
const GRACE: Duration = Duration::from_secs(2);

/// After an accept that failed (too many open files), the next attempt waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bounds of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections; further ones wait in the operating system's backlog.
    pub connections: usize,
    /// Concurrent calls on one connection; a gateway client multiplexes all its calls on one.
    pub streams_per_connection: u32,
    /// TCP accept to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// Time for an HTTP/1 client to send its request head.
    pub header_timeout: Duration,
    /// Silence after which a connection is asked whether it still lives.
    pub keepalive_interval: Duration,
    /// Time for the answer to that question.
    pub keepalive_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            streams_per_connection: 2_500,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(30),
            keepalive_interval: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(20),
        }
    }
}

/// A server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address is not of the form host:port or does not resolve.
    #[error("`{address}` is not an address to listen at")]
    Address {
        /// What was configured.
        address: String,
        /// The resolver's answer.
        source: std::io::Error,
    },
    /// Another process listens there.
    #[error(
        "cannot listen at {address}: it is in use by {owner}. Stop that process, or configure another address"
    )]
    InUse {
        /// What was configured.
        address: String,
        /// Process name and id when they can be found.
        owner: String,
    },
    /// The operating system refuses for another reason.
    #[error("cannot listen at {address}")]
    Refused {
        /// What was configured.
        address: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
}

/// The client certificate of the connection that a request came on (DER), as a request extension.
/// `None` without TLS or when the client showed none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate(pub Option<Bytes>);

/// Where the request's connection comes from, as a request extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteAddress(pub SocketAddr);

/// A bound address; nothing is accepted before [`serve`].
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds the configured address.
    ///
    /// # Errors
    /// [`ServerError`] names the address, who has it, and what to do.
    pub async fn bind(config: &ListenConfig) -> Result<Self, ServerError> {
        let address = &config.address;
        let refused = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::AddrInUse => ServerError::InUse {
                address: address.clone(),
                owner: port_owner::of(address).unwrap_or_else(|| "another process".to_owned()),
            },
            _ => ServerError::Refused { address: address.clone(), source },
        };
        let _addresses = tokio::net::lookup_host(address.as_str())
            .await
            .map_err(|source| ServerError::Address { address: address.clone(), source })?;
        let tcp = TcpListener::bind(address.as_str()).await.map_err(refused)?;
        let bound = tcp.local_addr().map_err(refused)?;
        Ok(Self { tcp, address: bound })
    }

    /// The bound address, with the port that was chosen for port 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A gRPC server under construction: a listener, TLS and services.
pub struct GrpcServer {
    listener: Listener,
    tls: Option<ServerTls>,
    limits: Limits,
    routes: RoutesBuilder,
}

impl fmt::Debug for GrpcServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("GrpcServer").field("address", &self.listener.address).finish()
    }
}

impl GrpcServer {
    /// A server without services yet. `tls` is `None` only in tests.
    #[must_use]
    pub fn new(listener: Listener, tls: Option<ServerTls>) -> Self {
        Self { listener, tls, limits: Limits::default(), routes: RoutesBuilder::default() }
    }

    /// Other bounds than the default ones.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Adds a generated service; give it [`MESSAGE_BYTES_MAX`] as its message limits first.
    #[must_use]
    pub fn add_service<S>(mut self, service: S) -> Self
    where
        S: Service<Request<GrpcBody>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: axum::response::IntoResponse,
        S::Future: Send + 'static,
    {
        self.routes.add_service(service);
        self
    }

    /// Starts serving, as tasks of `tasks`.
    pub fn serve(self, tasks: &Tasks) {
        let router = self.routes.routes().into_axum_router();
        serve(self.listener, self.tls, router, self.limits, tasks);
    }
}

/// Serves a router (REST, or the routes of gRPC services) on a listener until the tasks are cancelled.
pub fn serve(listener: Listener, tls: Option<ServerTls>, router: Router, limits: Limits, tasks: &Tasks) {
    let address = listener.address;
    let client_roots = tls.as_ref().map(|tls| tls.client_roots().clone());
    let server = Arc::new(Server {
        acceptor: tls.map(|tls| TlsAcceptor::from(tls.config)),
        client_roots,
        router,
        limits,
        budget: Budget::default(),
        stop: tasks.cancelled(),
    });
    let connections = tasks.clone();
    info!(%address, tls = server.acceptor.is_some(), "listening");
    tasks.spawn(format!("listener {address}"), true, async move {
        accept(&listener.tcp, &server, &connections).await;
    });
}

/// What all connections of a listener share.
struct Server {
    acceptor: Option<TlsAcceptor>,
    client_roots: Option<ClientRoots>,
    router: Router,
    limits: Limits,
    budget: Budget,
    stop: CancellationToken,
}

async fn accept(tcp: &TcpListener, server: &Arc<Server>, tasks: &Tasks) {
    let places = Arc::new(Semaphore::new(server.limits.connections));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, tcp.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = server.stop.cancelled() => return,
            next = next => next,
        };
        match (place, accepted) {
            (Ok(place), Ok((stream, remote))) => {
                let server = Arc::clone(server);
                tasks.spawn("connection", false, async move {
                    server.connection(stream, remote, place).await;
                });
            }
            (_, Err(error)) => {
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            (Err(_closed), _) => return,
        }
    }
}

impl Server {
    async fn connection(&self, stream: TcpStream, remote: SocketAddr, place: OwnedSemaphorePermit) {
        let _place = place;
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, %remote, "TCP_NODELAY refused");
        }
        let Some(acceptor) = &self.acceptor else {
            return self.requests(stream, remote, PeerCertificate(None), None).await;
        };
        let handshake = tokio::time::timeout(self.limits.handshake_timeout, acceptor.accept(stream));
        let handshake = tokio::select! {
            () = self.stop.cancelled() => return,
            handshake = handshake => handshake,
        };
        match handshake {
            Err(_elapsed) => debug!(%remote, "TLS handshake timed out"),
            Ok(Err(error)) => info!(%remote, %error, "TLS handshake failed"),
            Ok(Ok(stream)) => {
                let session = stream.get_ref().1;
                let shown: Vec<CertificateDer<'static>> = session
                    .peer_certificates()
                    .map(|chain| chain.iter().map(|one| one.clone().into_owned()).collect())
                    .unwrap_or_default();
                let certificate = shown.first().map(|certificate| Bytes::copy_from_slice(certificate));
                let h2 = session.alpn_protocol().map(|protocol| protocol == b"h2");
                tokio::select! {
                    () = self.requests(stream, remote, PeerCertificate(certificate), h2) => {}
                    reason = self.refusal(&shown) => {
                        info!(%remote, %reason, "a client's TLS certificate counts no more, its connection is ended");
                    }
                }
            }
        }
    }

    /// Waits until the certificates that a client showed count no more.
    async fn refusal(&self, shown: &[CertificateDer<'static>]) -> rustls::Error {
        match &self.client_roots {
            Some(roots) => roots.refusal(shown).await,
            None => std::future::pending().await,
        }
    }

    /// Serves the requests of one connection; `h2` is what ALPN agreed on, if it did.
    async fn requests<S>(&self, stream: S, remote: SocketAddr, peer: PeerCertificate, h2: Option<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            request.extensions_mut().insert(RemoteAddress(remote));
            let (router, account) = (self.router.clone(), self.budget.account());
            let request = if budget::is_grpc(request.headers()) {
                let path = request.uri().path().to_owned();
                request.map(|body| Body::new(Paid::new(body, &path, Arc::clone(&account))))
            } else {
                request.map(Body::new)
            };
            async move {
                let answered = answer(router, request).await;
                drop(account);
                answered
            }
        });
        let builder = self.protocol(h2);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                match tokio::time::timeout(GRACE, connection).await {
                    Ok(ended) => ended,
                    Err(_elapsed) => return,
                }
            }
        };
        if let Err(error) = ended {
            debug!(%remote, error, "connection ended");
        }
    }

    fn protocol(&self, h2: Option<bool>) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(self.limits.header_timeout);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(self.limits.keepalive_interval)
            .keep_alive_timeout(self.limits.keepalive_timeout)
            .max_concurrent_streams(self.limits.streams_per_connection)
            // Blocks and proposals of a few megabytes should not wait for window updates; idle connections cost nothing.
            .initial_stream_window_size(1024 * 1024)
            .initial_connection_window_size(8 * 1024 * 1024)
            .max_header_list_size(64 * 1024);
        match h2 {
            Some(true) => builder.http2_only(),
            Some(false) => builder.http1_only(),
            None => builder,
        }
    }
}

/// One request, within the deadline that a gRPC client set for it.
async fn answer(router: Router, request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let Some(deadline) = grpc_timeout(request.headers()) else {
        return router.oneshot(request).await;
    };
    match tokio::time::timeout(deadline, router.oneshot(request)).await {
        Ok(response) => response,
        Err(_elapsed) => {
            let status = tonic::Status::deadline_exceeded("context deadline exceeded");
            Ok(status.into_http::<Body>())
        }
    }
}

/// The `grpc-timeout` header: up to eight digits and a unit (gRPC over HTTP/2, "Requests").
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_deadlines_are_read_in_all_units_and_garbage_is_ignored() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            grpc_timeout(&headers)
        };
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(read("3M"), Some(Duration::from_secs(180)));
        assert_eq!(read("15S"), Some(Duration::from_secs(15)));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for garbage in ["", "S", "-1S", "999999999S", "1x", "1 S"] {
            assert_eq!(read(garbage), None, "{garbage}");
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_refused_with_address_owner_and_remedy() {
        let first = Listener::bind(&ListenConfig::new("127.0.0.1:0")).await.unwrap();
        let address = first.address().to_string();
        let error = Listener::bind(&ListenConfig::new(address.clone())).await.unwrap_err().to_string();
        assert!(error.contains(&address), "{error}");
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        assert!(error.contains("configure another address"), "{error}");
    }

    #[tokio::test]
    async fn something_that_is_no_address_is_refused() {
        let error = Listener::bind(&ListenConfig::new("nonsense")).await.unwrap_err().to_string();
        assert!(error.contains("`nonsense`"), "{error}");
    }
}
