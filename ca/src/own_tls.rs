//! The TLS certificate of the API, which the first authority issues itself: kept in the folder, replaced in time.

use std::sync::{Arc, Mutex, PoisonError};

use consort_crypto::certificate::{Certificate, SubjectAlternativeName};
use consort_crypto::key::PrivateKey;
use consort_node::Clock;
use consort_node::config::ClientAuth;
use consort_node::renewal::Renewable;
use consort_node::tls::ServerTls;
use time::{Duration, OffsetDateTime};
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::authority::Authority;
use crate::folder::DataFolder;
use crate::opening::ends_soon;
use crate::server::StartError;

/// A TLS certificate that ends sooner than this is replaced.
const REMAINING_MIN: Duration = Duration::days(30);

/// The certificate, with the issuers below the root behind it.
const CERTIFICATE: &str = "tls-cert.pem";
/// Its key.
const KEY: &str = "tls-key.pem";

/// Clients of the API authenticate by secret or token, not by TLS.
const NO_ROOTS: &[Vec<u8>] = &[];

/// The API's side of TLS, and what is needed to renew it.
pub(crate) struct OwnTls {
    folder: DataFolder,
    name: String,
    hosts: Vec<String>,
    authority: Arc<Authority>,
    clock: Arc<dyn Clock>,
    server: ServerTls,
    current: Mutex<Pair>,
}

#[derive(Clone)]
struct Pair {
    certificate_pem: String,
    key_pem: Zeroizing<String>,
    certificate: Certificate,
}

impl OwnTls {
    /// The certificate in the folder while it is good for a month and names the configured hosts; else a new one.
    pub(crate) fn open(
        folder: DataFolder,
        name: String,
        hosts: Vec<String>,
        authority: Arc<Authority>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        let issued = |pair: Pair| -> Result<(Pair, ServerTls), StartError> {
            let (certificate, key) = (pair.certificate_pem.as_bytes(), pair.key_pem.as_bytes());
            let server = ServerTls::from_pem(certificate, key, NO_ROOTS, ClientAuth::None)?;
            Ok((pair, server))
        };
        let maker = Maker { folder: &folder, name: &name, hosts: &hosts, authority: &authority };
        let kept = match maker.kept()? {
            Some(pair) => match maker.judge(&pair.certificate, clock.now()) {
                Ok(()) => {
                    issued(pair).inspect_err(|error| warn!(%error, "the TLS certificate is replaced")).ok()
                }
                Err(reason) => {
                    info!(reason, "the TLS certificate is replaced");
                    None
                }
            },
            None => None,
        };
        let (pair, server) = match kept {
            Some(kept) => kept,
            None => issued(maker.make(clock.now())?)?,
        };
        Ok(Self { folder, name, hosts, authority, clock, server, current: Mutex::new(pair) })
    }

    /// The listener's side; it shows the newest certificate.
    pub(crate) fn server(&self) -> &ServerTls {
        &self.server
    }

    /// The authority that certified it.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The certificate that is shown.
    pub(crate) fn certificate(&self) -> Certificate {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).certificate.clone()
    }

    fn maker(&self) -> Maker<'_> {
        Maker { folder: &self.folder, name: &self.name, hosts: &self.hosts, authority: &self.authority }
    }

    /// Takes over what stands in the folder, or a new certificate when that one ends soon.
    fn newest(&self) -> Result<Option<Pair>, StartError> {
        let (maker, now) = (self.maker(), self.clock.now());
        let shown = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let kept = maker.kept()?.filter(|kept| maker.judge(&kept.certificate, now).is_ok());
        let Some(kept) = kept else {
            return if maker.judge(&shown.certificate, now).is_ok() {
                Ok(None)
            } else {
                maker.make(now).map(Some)
            };
        };
        let same = kept.certificate_pem == shown.certificate_pem && *kept.key_pem == *shown.key_pem;
        Ok((!same).then_some(kept))
    }
}

impl Renewable for OwnTls {
    fn name(&self) -> String {
        "TLS certificate of the API".to_owned()
    }

    fn renew(&self) -> Result<Option<Certificate>, String> {
        let Some(pair) = self.newest().map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        self.server
            .replace_identity(pair.certificate_pem.as_bytes(), pair.key_pem.as_bytes())
            .map_err(|error| error.to_string())?;
        let certificate = pair.certificate.clone();
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = pair;
        Ok(Some(certificate))
    }
}

/// Makes, keeps and judges the certificate.
struct Maker<'a> {
    folder: &'a DataFolder,
    name: &'a str,
    hosts: &'a [String],
    authority: &'a Authority,
}

impl Maker<'_> {
    fn kept(&self) -> Result<Option<Pair>, StartError> {
        let (Some(certificate_pem), Some(key)) = (self.folder.read(CERTIFICATE)?, self.folder.read(KEY)?)
        else {
            return Ok(None);
        };
        let Ok(certificate) = Certificate::from_pem(&certificate_pem) else {
            return Ok(None);
        };
        Ok(Some(Pair { certificate_pem, key_pem: Zeroizing::new(key), certificate }))
    }

    fn make(&self, now: OffsetDateTime) -> Result<Pair, StartError> {
        let key = PrivateKey::generate_p256().map_err(StartError::Make)?;
        let issued = self.authority.issue_for_server(self.name, self.hosts, &key, now)?;
        let certificate_pem = self.authority.with_issuers(&issued);
        self.folder.write_secret(KEY, &key.to_pem())?;
        self.folder.write_public(CERTIFICATE, &certificate_pem)?;
        Ok(Pair { certificate_pem, key_pem: key.to_pem(), certificate: issued })
    }

    fn judge(&self, certificate: &Certificate, now: OffsetDateTime) -> Result<(), String> {
        self.authority.issued_here(certificate)?;
        let last = self.authority.ends();
        if ends_soon(certificate, now, REMAINING_MIN) && certificate.not_after() < last {
            return Err("it ends soon".to_owned());
        }
        let hosts: Vec<_> = self.hosts.iter().map(|host| SubjectAlternativeName::from_text(host)).collect();
        if certificate.subject_alternative_names() != hosts {
            return Err("the configured hosts are others".to_owned());
        }
        Ok(())
    }
}
