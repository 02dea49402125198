//! A handshake in memory succeeds or fails as the configurations say.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;

use consort_crypto::certificate::SubjectAlternativeName;
use consort_crypto::issue::{CertificateAuthority, DistinguishedName, Template, Validity};
use consort_crypto::key::PrivateKey;
use consort_crypto::tls::{ClientAuth, ClientTls, ServerTls};
use rustls::{ClientConnection, ServerConnection};
use time::macros::datetime;

const VALIDITY: Validity = Validity {
    not_before: datetime!(2020-01-01 00:00:00 UTC),
    not_after: datetime!(2120-01-01 00:00:00 UTC),
};
const HOST: &str = "peer0.org1.example.com";

fn authority() -> CertificateAuthority {
    let subject = DistinguishedName::common_name("tlsca.org1.example.com");
    CertificateAuthority::new_root(&subject, PrivateKey::generate_p256().unwrap(), VALIDITY).unwrap()
}

fn identity(authority: &CertificateAuthority) -> (Vec<u8>, Vec<u8>) {
    let key = PrivateKey::generate_p256().unwrap();
    let names = vec![SubjectAlternativeName::from_text(HOST)];
    let template = Template::tls(DistinguishedName::common_name("peer0"), VALIDITY, names);
    let certificate = authority.issue(&template, key.public_key()).unwrap();
    (certificate.pem().into_bytes(), key.to_pem().as_bytes().to_vec())
}

/// Moves bytes between both sides until the handshake is over or one side refuses.
fn shake_hands(
    server: rustls::ServerConfig,
    client: rustls::ClientConfig,
    host: &'static str,
) -> Result<ServerConnection, rustls::Error> {
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), host.try_into().unwrap()).unwrap();
    while server.is_handshaking() || client.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(server)
}

fn client(roots: &CertificateAuthority, identity_pem: Option<(Vec<u8>, Vec<u8>)>) -> rustls::ClientConfig {
    ClientTls { roots_pem: vec![roots.certificate().pem().into_bytes()], identity_pem }.config().unwrap()
}

fn server(authority: &CertificateAuthority, client_auth: ClientAuth) -> rustls::ServerConfig {
    let (certificate, key) = identity(authority);
    ServerTls::from_pem(&certificate, &key, &[authority.certificate().pem().into_bytes()], client_auth)
        .unwrap()
}

#[test]
fn both_sides_know_each_other_after_a_mutual_handshake() {
    let authority = authority();
    let own = identity(&authority);
    let connection =
        shake_hands(server(&authority, ClientAuth::Required), client(&authority, Some(own)), HOST).unwrap();
    assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(connection.peer_certificates().unwrap().len(), 1);
}

#[test]
fn a_client_without_certificate_is_refused_only_where_one_is_required() {
    let authority = authority();
    for (mode, accepted) in
        [(ClientAuth::None, true), (ClientAuth::Optional, true), (ClientAuth::Required, false)]
    {
        let outcome = shake_hands(server(&authority, mode), client(&authority, None), HOST);
        assert_eq!(outcome.is_ok(), accepted, "{mode:?}");
    }
}

#[test]
fn a_client_of_another_authority_is_refused() {
    let (authority, foreign) = (authority(), authority());
    let stranger = identity(&foreign);
    let outcome =
        shake_hands(server(&authority, ClientAuth::Optional), client(&authority, Some(stranger)), HOST);
    assert!(outcome.is_err());
}

#[test]
fn a_server_of_another_authority_or_name_is_refused() {
    let (authority, foreign) = (authority(), authority());
    assert!(shake_hands(server(&authority, ClientAuth::None), client(&foreign, None), HOST).is_err());
    assert!(
        shake_hands(server(&authority, ClientAuth::None), client(&authority, None), "other.example.com")
            .is_err()
    );
}

#[test]
fn a_key_of_another_certificate_is_refused_at_the_start() {
    let authority = authority();
    let ((certificate, _), (_, key)) = (identity(&authority), identity(&authority));
    let error = ServerTls::from_pem(&certificate, &key, &[], ClientAuth::None).unwrap_err();
    assert!(error.to_string().contains("certificate and key"), "{error}");
}

#[test]
fn a_server_that_asks_needs_roots() {
    let authority = authority();
    let (certificate, key) = identity(&authority);
    assert!(ServerTls::from_pem(&certificate, &key, &[], ClientAuth::Required).is_err());
}

#[test]
fn keys_stay_out_of_debug_output() {
    let authority = authority();
    let tls = ClientTls { roots_pem: Vec::new(), identity_pem: Some(identity(&authority)) };
    assert_eq!(format!("{tls:?}"), "ClientTls { roots: 0, has_identity: true }");
}
