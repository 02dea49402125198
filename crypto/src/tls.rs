//! TLS configurations: version 1.2 or newer, keys on NIST curves and Ed25519, certificates of given authorities only.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::Error;

/// Protocols over TLS, in order of preference: gRPC needs `h2`.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Whether a server asks its clients for a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// It does not ask.
    #[default]
    None,
    /// A client may show one; a wrong one is refused.
    Optional,
    /// A client without one is refused.
    Required,
}

/// Makes the cryptography of `ring` the default of this process, for libraries that take the default. Later calls do
/// nothing.
pub fn install_default_provider() {
    // An error says that there is a default already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A server's side of TLS.
#[derive(Clone, Copy, Debug)]
pub struct ServerTls;

impl ServerTls {
    /// A server's configuration from PEM: its certificate (with intermediates, if any), its key, and the roots of clients.
    ///
    /// # Errors
    ///
    /// When certificate, key or roots do not parse or do not belong together, or clients are to be asked and there are no
    /// roots.
    pub fn from_pem(
        certificate: &[u8],
        key: &[u8],
        client_roots: &[Vec<u8>],
        client_auth: ClientAuth,
    ) -> Result<ServerConfig, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|cause| Error::Tls(cause.to_string()))?;
        let builder = match client_auth {
            ClientAuth::None => builder.with_no_client_auth(),
            ClientAuth::Optional | ClientAuth::Required => {
                let roots = Arc::new(root_store(client_roots)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier = if client_auth == ClientAuth::Optional {
                    verifier.allow_unauthenticated()
                } else {
                    verifier
                };
                let verifier =
                    verifier.build().map_err(|cause| Error::Tls(format!("client roots: {cause}")))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|cause| Error::Tls(format!("server certificate and key: {cause}")))?;
        config.alpn_protocols = PROTOCOLS.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(config)
    }
}

/// A client's side of TLS.
#[derive(Clone, Default)]
pub struct ClientTls {
    /// Roots of servers, as PEM.
    pub roots_pem: Vec<Vec<u8>>,
    /// The client's own certificate and key, as PEM, for servers that ask.
    pub identity_pem: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ClientTls")
            .field("roots", &self.roots_pem.len())
            .field("has_identity", &self.identity_pem.is_some())
            .finish()
    }
}

impl ClientTls {
    /// The configuration for connections.
    ///
    /// # Errors
    ///
    /// When roots, certificate or key do not parse or do not belong together.
    pub fn config(&self) -> Result<ClientConfig, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(root_store(&self.roots_pem)?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|cause| Error::Tls(format!("server roots: {cause}")))?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|cause| Error::Tls(cause.to_string()))?
            .with_webpki_verifier(verifier);
        let mut config = match &self.identity_pem {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
                .map_err(|cause| Error::Tls(format!("client certificate and key: {cause}")))?,
        };
        config.alpn_protocols = PROTOCOLS.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(config)
    }
}

/// All certificates of PEM texts as roots.
///
/// # Errors
///
/// When a text holds no certificate, or one that cannot be a root.
pub fn root_store(texts: &[Vec<u8>]) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for text in texts {
        for certificate in certificates(text)? {
            store.add(certificate).map_err(|cause| Error::Tls(format!("root certificate: {cause}")))?;
        }
    }
    Ok(store)
}

fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(Error::Pem { expected: "CERTIFICATE" }),
    }
}

fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(text).map_err(|_| Error::Pem { expected: "PRIVATE KEY" })
}
