//! A TLS client certificate on a list of a member's MSP is refused like an identity on it, at the handshake and on connections that
//! are open already.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, routing::get};
use bytes::Bytes;
use consort_crypto::{
    certificate::{Certificate, SubjectAlternativeName},
    issue::{CertificateAuthority, DistinguishedName, Template, Validity},
    key::{KeyAlgorithm, PrivateKey},
    revocation::RevokedCertificate,
};
use consort_msp::{Msp, MspManager, MspVersion};
use consort_node::{
    Clock, SystemClock, Tasks,
    config::{ClientAuth, ListenConfig},
    renewal::{Current, load_msp, local_msp},
    server::{self, Limits, Listener},
    tls::ServerTls,
    trust::ClientTrust,
};
use consort_protos::{
    fabric::msp::{FabricMspConfig, FabricNodeOUs},
    ids::MspId,
};
use rustls::{CertificateError, Error, server::danger::ClientCertVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use time::macros::datetime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// More than anything here takes; a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

const VALIDITY: Validity =
    Validity { not_before: datetime!(2020-01-01 00:00 UTC), not_after: datetime!(2040-01-01 00:00 UTC) };

fn authority(algorithm: KeyAlgorithm) -> CertificateAuthority {
    let key = PrivateKey::generate(algorithm).unwrap();
    CertificateAuthority::new_root(&DistinguishedName::common_name("tlsca"), key, VALIDITY).unwrap()
}

fn pem(authority: &CertificateAuthority) -> Bytes {
    authority.certificate().pem().into_bytes().into()
}

fn issue(authority: &CertificateAuthority, not_after: time::OffsetDateTime) -> (Certificate, PrivateKey) {
    let key = PrivateKey::generate_p256().unwrap();
    let hosts = vec![SubjectAlternativeName::from_text("localhost")];
    let validity = Validity { not_after, ..VALIDITY };
    let template = Template::tls(DistinguishedName::common_name("peer0"), validity, hosts);
    (authority.issue(&template, key.public_key()).unwrap(), key)
}

fn list(authority: &CertificateAuthority, revoked: &Certificate) -> Bytes {
    let begin = VALIDITY.not_before;
    let entry = RevokedCertificate { serial: revoked.serial().to_vec(), revoked_at: begin, reason: 0 };
    let list = authority.issue_crl(&[entry], 1, begin, begin + time::Duration::days(1)).unwrap();
    list.pem().into_bytes().into()
}

/// The MSP of an organisation whose authority issues identities and TLS certificates.
fn msps(authority: &CertificateAuthority, lists: Vec<Bytes>) -> Arc<MspManager> {
    let config = FabricMspConfig {
        name: "Org1MSP".to_owned(),
        root_certs: vec![pem(authority)],
        tls_root_certs: vec![pem(authority)],
        revocation_list: lists,
        fabric_node_ous: Some(FabricNodeOUs::named(&Bytes::new())),
        ..FabricMspConfig::default()
    };
    Arc::new(MspManager::new(vec![Msp::new(&config, MspVersion::V1_4_3).unwrap()]))
}

fn server_tls(root: &CertificateAuthority) -> ServerTls {
    let (certificate, key) = issue(root, VALIDITY.not_after);
    let roots = [pem(root)];
    ServerTls::from_pem(certificate.pem().as_bytes(), key.to_pem().as_bytes(), &roots, ClientAuth::Required)
        .unwrap()
}

#[test]
fn a_listed_client_is_refused_and_lists_of_others_do_not_matter() {
    let (root, sibling) = (authority(KeyAlgorithm::P256), authority(KeyAlgorithm::P256));
    let ((good, _), (bad, _)) = (issue(&root, VALIDITY.not_after), issue(&root, VALIDITY.not_after));
    let server = server_tls(&root);
    let clients = server.client_roots();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
    let verdict = |certificate: &Certificate| {
        let der = CertificateDer::from(certificate.der().to_vec());
        clients.verify_client_cert(&der, &[], now).map(|_| ())
    };
    assert_eq!((verdict(&good), verdict(&bad)), (Ok(()), Ok(())));
    let members = msps(&root, vec![list(&sibling, &good), list(&root, &bad)]);
    let others = msps(&sibling, vec![list(&sibling, &good)]);
    clients.replace_with_members(&[pem(&root)], vec![members, others]).unwrap();
    assert_eq!(verdict(&good), Ok(()));
    assert_eq!(verdict(&bad), Err(Error::InvalidCertificate(CertificateError::Revoked)));
    clients.replace(&[pem(&root)]).unwrap();
    assert_eq!(verdict(&bad), Ok(()), "a new set of members is the whole set");
}

async fn connect(
    address: SocketAddr,
    root: &CertificateAuthority,
    (certificate, key): &(Certificate, PrivateKey),
) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(root.certificate().der().to_vec())).unwrap();
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from(certificate.der().to_vec())],
                PrivateKeyDer::from_pem_slice(key.to_pem().as_bytes()).unwrap(),
            )
            .unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

/// One request on a connection that stays open; `false` when the server has closed it.
async fn is_answered(stream: &mut TlsStream<TcpStream>) -> bool {
    let mut answer = Vec::new();
    let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    while asked.is_ok() && !answer.ends_with(b"here") {
        let mut part = [0; 256];
        match stream.read(&mut part).await {
            Ok(read) if read > 0 => answer.extend_from_slice(&part[..read]),
            _ => return false,
        }
    }
    asked.is_ok()
}

/// Waits until the server closes an idle connection.
async fn is_closed(stream: &mut TlsStream<TcpStream>) -> bool {
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 16])).await;
    read.is_ok_and(|read| read.is_err() || read.is_ok_and(|bytes| bytes == 0))
}

async fn serve(tls: &ServerTls, tasks: &Tasks) -> SocketAddr {
    let listener = Listener::bind(&ListenConfig::new("127.0.0.1:0")).await.unwrap();
    let address = listener.address();
    let router = Router::new().route("/", get(|| async { "here" }));
    server::serve(listener, Some(tls.clone()), router, Limits::default(), tasks);
    address
}

#[tokio::test]
async fn an_open_connection_ends_when_its_certificate_is_revoked_and_others_go_on() {
    let (root, tasks) = (authority(KeyAlgorithm::P256), Tasks::new());
    let (good, bad) = (issue(&root, VALIDITY.not_after), issue(&root, VALIDITY.not_after));
    let tls = server_tls(&root);
    let address = serve(&tls, &tasks).await;
    let mut goods = connect(address, &root, &good).await;
    let mut bads = connect(address, &root, &bad).await;
    assert!(is_answered(&mut goods).await && is_answered(&mut bads).await);

    let members = msps(&root, vec![list(&root, &bad.0)]);
    tls.client_roots().replace_with_members(&[pem(&root)], vec![members]).unwrap();

    assert!(is_closed(&mut bads).await, "the open connection of the revoked one");
    assert!(is_answered(&mut goods).await, "the open connection of the other one");
    // With TLS 1.3 the client learns of the refusal after its side of the handshake.
    assert!(!is_answered(&mut connect(address, &root, &bad).await).await, "a new connection");
    assert!(is_answered(&mut connect(address, &root, &good).await).await);
    tasks.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn an_open_connection_ends_with_its_certificate() {
    let (root, tasks) = (authority(KeyAlgorithm::P256), Tasks::new());
    let brief = issue(&root, SystemClock.now() + time::Duration::seconds(2));
    let tls = server_tls(&root);
    let address = serve(&tls, &tasks).await;
    let mut stream = connect(address, &root, &brief).await;
    assert!(is_answered(&mut stream).await);
    assert!(is_closed(&mut stream).await);
    assert!(SystemClock.now() >= brief.0.not_after());
    tasks.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_list_in_the_nodes_own_msp_folder_counts_without_a_restart() {
    let (root, tasks, folder) = (authority(KeyAlgorithm::P256), Tasks::new(), tempfile::tempdir().unwrap());
    let path = folder.path();
    for part in ["cacerts", "tlscacerts", "admincerts"] {
        std::fs::create_dir(path.join(part)).unwrap();
    }
    std::fs::write(path.join("cacerts/ca.pem"), pem(&root)).unwrap();
    std::fs::write(path.join("tlscacerts/ca.pem"), pem(&root)).unwrap();
    std::fs::write(
        path.join("config.yaml"),
        "NodeOUs:\n  Enable: true\n  AdminOUIdentifier: { OrganizationalUnitIdentifier: admin }\n  \
         ClientOUIdentifier: { OrganizationalUnitIdentifier: client }\n",
    )
    .unwrap();
    let msp_id = MspId::parse("Org1MSP").unwrap();
    let own = Current::new(Arc::new(load_msp(path, &msp_id).unwrap()));
    let tls = server_tls(&root);
    let roots = path.join("tlscacerts/ca.pem");
    let trust = Arc::new(ClientTrust::new(own.clone(), Vec::new).of_files(&tls, &[roots]));
    trust.renew();
    let renewable = local_msp(path, &msp_id, &own, move || trust.renew());
    let address = serve(&tls, &tasks).await;
    let bad = issue(&root, VALIDITY.not_after);
    let mut stream = connect(address, &root, &bad).await;
    assert!(is_answered(&mut stream).await);
    assert!(renewable.renew().unwrap().is_none());

    std::fs::create_dir(path.join("crls")).unwrap();
    std::fs::write(path.join("crls/list.pem"), b"no list").unwrap();
    renewable.renew().unwrap();
    assert!(is_answered(&mut stream).await, "a file that is no list changes nothing");
    std::fs::write(path.join("crls/list.pem"), list(&root, &bad.0)).unwrap();
    renewable.renew().unwrap();

    assert!(is_closed(&mut stream).await);
    let revoked = Arc::new(bad.0);
    assert!(own.get().judge_tls(&revoked, VALIDITY.not_before).is_err(), "the node's own judgement");
    tasks.shutdown(PATIENCE).await.unwrap();
}
