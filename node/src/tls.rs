//! TLS of a server: its identity and the roots of its clients, both of which may change while it runs.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use consort_crypto::certificate::Certificate;
use consort_msp::{IdentityError, MspManager};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject};
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::{
    config::{ClientAuth, TlsConfig},
    dial::with_causes,
    renewal::{FromFiles, Renewable},
};

/// Why a server's TLS identity or its client roots could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or unreadable.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A PEM text holds no certificate or one that cannot be read.
    #[error("{what} holds no readable PEM certificate: {reason}")]
    Certificate {
        /// The file or the role of the certificate.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// A PEM text holds no private key.
    #[error("{what} holds no readable PEM private key")]
    Key {
        /// The file or the role of the key.
        what: String,
    },
    /// Certificate and key do not belong together, or the algorithm is not known.
    #[error("the TLS certificate {cert} cannot be used with the key {key}: {reason}")]
    Pair {
        /// Where the certificate came from.
        cert: String,
        /// Where the key came from.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

/// The TLS side of a listener.
#[derive(Clone)]
pub struct ServerTls {
    pub(crate) config: Arc<rustls::ServerConfig>,
    identity: Arc<ShownIdentity>,
    roots: ClientRoots,
}

/// What new connections are shown. A connection keeps what it was shown when it began.
struct ShownIdentity(RwLock<Arc<CertifiedKey>>);

impl fmt::Debug for ShownIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ShownIdentity")
    }
}

impl ShownIdentity {
    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for ShownIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ServerTls").field("client_auth", &self.roots.mode).finish()
    }
}

impl ServerTls {
    /// Reads certificate, key and client roots from their files.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn load(config: &TlsConfig) -> Result<Self, TlsError> {
        let roots = config.client_roots.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
        Self::build(
            (&read(&config.cert)?, &config.cert.display().to_string()),
            (&read(&config.key)?, &config.key.display().to_string()),
            &roots,
            config.client_auth,
        )
    }

    /// From PEM texts: the certificate with its issuers behind it, its key, and the client roots.
    ///
    /// # Errors
    /// [`TlsError`] when one of them cannot be used.
    pub fn from_pem(
        cert: &[u8],
        key: &[u8],
        client_roots: &[impl AsRef<[u8]>],
        client_auth: ClientAuth,
    ) -> Result<Self, TlsError> {
        Self::build((cert, "given"), (key, "given"), client_roots, client_auth)
    }

    fn build(
        (cert, cert_source): (&[u8], &str),
        (key, key_source): (&[u8], &str),
        client_roots: &[impl AsRef<[u8]>],
        client_auth: ClientAuth,
    ) -> Result<Self, TlsError> {
        let roots = ClientRoots::new(client_auth);
        let pair_of = certified_key((cert, cert_source), (key, key_source), &roots.provider)?;
        let identity = Arc::new(ShownIdentity(RwLock::new(Arc::new(pair_of))));
        roots.replace(client_roots)?;
        let pair = |error: Error| TlsError::Pair {
            cert: cert_source.to_owned(),
            key: key_source.to_owned(),
            reason: error.to_string(),
        };
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&roots.provider))
            .with_safe_default_protocol_versions()
            .map_err(pair)?;
        let builder = match client_auth {
            ClientAuth::None => builder.with_no_client_auth(),
            ClientAuth::Optional | ClientAuth::Required => {
                builder.with_client_cert_verifier(Arc::new(roots.clone()))
            }
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&identity) as _);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A resumed session would keep a client certificate that the roots no longer cover.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { config: Arc::new(config), identity, roots })
    }

    /// From now on, new connections are shown this certificate (PEM, its issuers behind it); others go on as they began.
    ///
    /// # Errors
    /// [`TlsError`] when certificate and key cannot be used together; the old ones then stay.
    pub fn replace_identity(&self, cert: &[u8], key: &[u8]) -> Result<(), TlsError> {
        self.replace((cert, "given"), (key, "given"))
    }

    fn replace(&self, cert: (&[u8], &str), key: (&[u8], &str)) -> Result<(), TlsError> {
        let identity = certified_key(cert, key, &self.roots.provider)?;
        *self.identity.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(identity);
        Ok(())
    }

    /// The certificate that new connections are shown.
    ///
    /// # Errors
    /// When this program's own reader does not know its form although TLS does.
    pub fn certificate(&self) -> Result<Certificate, consort_crypto::Error> {
        let shown = self.identity.current();
        let first = shown.cert.first().map(AsRef::as_ref);
        Certificate::from_der(first.unwrap_or_default())
    }

    /// Shows new connections what the configured files hold now.
    ///
    /// # Errors
    /// In words for an operator; the old certificate then stays.
    pub fn reload(&self, config: &TlsConfig) -> Result<Certificate, String> {
        let told = |error: TlsError| with_causes(&error);
        let (cert, key) = (read(&config.cert).map_err(told)?, read(&config.key).map_err(told)?);
        let certificate = Certificate::from_pem(&cert)
            .map_err(|error| format!("{} holds no usable certificate: {error}", config.cert.display()))?;
        let sources = (config.cert.display().to_string(), config.key.display().to_string());
        self.replace((&cert, &sources.0), (&key, &sources.1)).map_err(told)?;
        Ok(certificate)
    }

    /// Shows the certificate in the configured files whenever they change.
    #[must_use]
    pub fn renewable(&self, config: &TlsConfig) -> Arc<dyn Renewable> {
        let name = format!("TLS certificate {}", config.cert.display());
        let files = vec![config.cert.clone(), config.key.clone()];
        let (tls, config) = (self.clone(), config.clone());
        Arc::new(FromFiles::new(name, files, move || tls.reload(&config)))
    }

    /// The roots of client certificates, to be replaced when a channel's configuration changes.
    #[must_use]
    pub fn client_roots(&self) -> &ClientRoots {
        &self.roots
    }
}

/// What judges a client's certificate: its chain, and the MSPs that may have revoked it.
#[derive(Clone)]
struct Judges {
    chain: Arc<dyn ClientCertVerifier>,
    msps: Arc<[Arc<MspManager>]>,
}

impl Judges {
    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        self.check_members(end_entity, now)?;
        Ok(verified)
    }

    /// No MSP that answers for the certificate refuses it. Without lists there is nothing to add to what its chain says.
    fn check_members(&self, end_entity: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
        if !self.msps.iter().any(|msps| msps.revokes()) {
            return Ok(());
        }
        let certificate = Certificate::from_der(end_entity)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let certificate = Arc::new(certificate);
        let now =
            i64::try_from(now.as_secs()).ok().and_then(|now| OffsetDateTime::from_unix_timestamp(now).ok());
        let now = now.ok_or(Error::FailedToGetCurrentTime)?;
        for msps in self.msps.iter() {
            msps.judge_tls(&certificate, now).map_err(|refusal| match refusal {
                IdentityError::Revoked => Error::InvalidCertificate(CertificateError::Revoked),
                IdentityError::Expired { .. } => Error::InvalidCertificate(CertificateError::Expired),
                other => Error::General(other.to_string()),
            })?;
        }
        Ok(())
    }
}

/// The roots that client certificates must chain to (when they are required at all). Clones share one set.
#[derive(Clone)]
pub struct ClientRoots {
    mode: ClientAuth,
    provider: Arc<CryptoProvider>,
    judges: Arc<watch::Sender<Option<Judges>>>,
}

impl fmt::Debug for ClientRoots {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClientRoots").field("mode", &self.mode).finish()
    }
}

impl ClientRoots {
    fn new(mode: ClientAuth) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Self { mode, provider, judges: Arc::new(watch::Sender::new(None)) }
    }

    /// From now on, connections are judged by these PEM certificates and no others.
    ///
    /// # Errors
    /// [`TlsError::Certificate`]; the old roots then stay in force.
    pub fn replace(&self, roots: &[impl AsRef<[u8]>]) -> Result<(), TlsError> {
        self.replace_with_members(roots, Vec::new())
    }

    /// The same, and what an MSP of these revoked is refused, as the identities that it revoked are (see
    /// [`MspManager::judge_tls`]). Connections that are open already end when their certificate counts no more.
    ///
    /// # Errors
    /// [`TlsError::Certificate`]; the old roots then stay in force.
    pub fn replace_with_members(
        &self,
        roots: &[impl AsRef<[u8]>],
        msps: Vec<Arc<MspManager>>,
    ) -> Result<(), TlsError> {
        let what = |what: &str, reason: String| TlsError::Certificate { what: what.to_owned(), reason };
        let mut store = RootCertStore::empty();
        for pem in roots {
            for certificate in certificates(pem.as_ref(), "a client root")? {
                store.add(certificate).map_err(|error| what("a client root", error.to_string()))?;
            }
        }
        let chain: Option<Arc<dyn ClientCertVerifier>> = if store.is_empty() {
            None
        } else {
            let built =
                WebPkiClientVerifier::builder_with_provider(Arc::new(store), Arc::clone(&self.provider))
                    .build();
            Some(built.map_err(|error| what("the client roots", error.to_string()))?)
        };
        self.judges.send_replace(chain.map(|chain| Judges { chain, msps: msps.into() }));
        Ok(())
    }

    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let judges = self.judges.borrow().clone();
        let none = || Error::General("this server has no roots for client certificates".into());
        judges.ok_or_else(none)?.judge(end_entity, intermediates, now)
    }

    /// Waits until the certificate that a client showed counts no more (its authority has left or revoked it, or it has ended),
    /// and answers why. Where certificates are not required nothing depends on them, and it waits for ever.
    pub(crate) async fn refusal(&self, shown: &[CertificateDer<'_>]) -> Error {
        let required = shown.split_first().filter(|_| self.mode == ClientAuth::Required);
        let Some((end_entity, intermediates)) = required else { return std::future::pending().await };
        let end = Certificate::from_der(end_entity).ok().map(|certificate| certificate.not_after());
        let mut changes = self.judges.subscribe();
        loop {
            let now = UnixTime::now();
            if let Err(refusal) = self.judge(end_entity, intermediates, now) {
                return refusal;
            }
            tokio::select! {
                // The sender is part of this value, so that it is there.
                _changed = changes.changed() => {}
                () = tokio::time::sleep(until(end, now)) => {}
            }
        }
    }
}

/// Time until just after an end, a day at most: a longer timer would not notice that the clock was set.
fn until(end: Option<OffsetDateTime>, now: UnixTime) -> Duration {
    const LONGEST: Duration = Duration::from_secs(24 * 3600);
    let end = end.and_then(|end| u64::try_from(end.unix_timestamp()).ok());
    let left = end.map(|end| end.saturating_sub(now.as_secs()) + 1);
    left.map_or(LONGEST, Duration::from_secs).min(LONGEST)
}

impl ClientCertVerifier for ClientRoots {
    fn client_auth_mandatory(&self) -> bool {
        self.mode == ClientAuth::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // The roots change while a handshake runs; clients choose their certificate without a hint.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.mode != ClientAuth::Required {
            return Ok(ClientCertVerified::assertion());
        }
        self.judge(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Certificate and key for TLS; they must belong together.
pub(crate) fn certified_key(
    (cert, cert_source): (&[u8], &str),
    (key, key_source): (&[u8], &str),
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(cert, cert_source)?;
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|_pem| TlsError::Key { what: key_source.to_owned() })?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| TlsError::Pair {
        cert: cert_source.to_owned(),
        key: key_source.to_owned(),
        reason: error.to_string(),
    })
}

/// The certificates of a PEM text, of which there must be at least one.
pub(crate) fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fault = |reason: String| TlsError::Certificate { what: what.to_owned(), reason };
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| fault(error.to_string()))?;
    if found.is_empty() {
        return Err(fault("there is none".to_owned()));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
}
