//! A listener whose certificate is renewed: new connections see the new one, old ones go on.

use std::sync::Arc;

use axum::{Router, routing::get};
use consort_crypto::{
    certificate::SubjectAlternativeName,
    issue::{CertificateAuthority, DistinguishedName, Template, Validity},
    key::PrivateKey,
};
use consort_node::{
    Clock, SystemClock, Tasks,
    config::{ClientAuth, ListenConfig, TlsConfig},
    server::{self, Limits, Listener},
    tls::ServerTls,
};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

struct Authority(CertificateAuthority);

impl Authority {
    fn new() -> Self {
        let key = PrivateKey::generate_p256().expect("test material");
        Self(
            CertificateAuthority::new_root(&DistinguishedName::common_name("ca"), key, validity())
                .expect("test material"),
        )
    }

    fn renew(&self, config: &TlsConfig) -> Vec<u8> {
        let key = PrivateKey::generate_p256().expect("test material");
        let hosts = vec![SubjectAlternativeName::from_text("localhost")];
        let template = Template::tls(DistinguishedName::common_name("server"), validity(), hosts);
        let certificate = self.0.issue(&template, key.public_key()).expect("test material");
        std::fs::write(&config.key, key.to_pem().as_bytes()).expect("test material");
        std::fs::write(&config.cert, certificate.pem()).expect("test material");
        certificate.der().to_vec()
    }

    async fn connect(&self, address: std::net::SocketAddr) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        let pem = self.0.certificate().pem();
        roots
            .add(CertificateDer::from_pem_slice(pem.as_bytes()).expect("test material"))
            .expect("test material");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("test material")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await.expect("test material");
        let name = ServerName::try_from("localhost").expect("test material");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("test material")
    }
}

fn validity() -> Validity {
    let now = SystemClock.now();
    Validity { not_before: now - time::Duration::hours(1), not_after: now + time::Duration::days(100) }
}

fn shown(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().expect("test material")[0].to_vec()
}

/// One request on a connection that stays open.
async fn ask(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("test material");
    let mut answer = Vec::new();
    while !answer.ends_with(b"here") {
        let mut part = [0; 256];
        let read = stream.read(&mut part).await.expect("test material");
        assert!(read > 0, "the connection was closed");
        answer.extend_from_slice(&part[..read]);
    }
    String::from_utf8(answer).expect("test material")
}

#[tokio::test]
async fn new_connections_see_the_new_certificate_and_old_ones_go_on() {
    let (authority, folder, tasks) = (Authority::new(), tempfile::tempdir().unwrap(), Tasks::new());
    let config = TlsConfig {
        cert: folder.path().join("server.crt"),
        key: folder.path().join("server.key"),
        client_roots: Vec::new(),
        client_auth: ClientAuth::None,
    };
    let first = authority.renew(&config);
    let tls = ServerTls::load(&config).unwrap();
    let listener = Listener::bind(&ListenConfig::new("127.0.0.1:0")).await.unwrap();
    let address = listener.address();
    let renewable = tls.renewable(&config);
    let router = Router::new().route("/", get(|| async { "here" }));
    server::serve(listener, Some(tls), router, Limits::default(), &tasks);
    let mut old = authority.connect(address).await;
    assert!(ask(&mut old).await.starts_with("HTTP/1.1 200"));

    let second = authority.renew(&config);
    renewable.renew().unwrap().unwrap();

    let mut new = authority.connect(address).await;
    assert_eq!((shown(&old), shown(&new)), (first, second));
    assert!(ask(&mut old).await.starts_with("HTTP/1.1 200"));
    assert!(ask(&mut new).await.starts_with("HTTP/1.1 200"));
    drop((old, new));
    tasks.shutdown(std::time::Duration::from_secs(10)).await.unwrap();
}
