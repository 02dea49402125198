//! Certificates of a running process: taken over when their files change, and told about before they end.
//!
//! One task looks at an interval, and at once on SIGHUP. What renews itself is a [`Renewable`]; what is only watched
//! comes from a source that is asked each time, so that a channel's new configuration shows.
//!
//! Always: what is new is taken over whole or not at all; what cannot be used leaves the old one in force.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fmt,
    fs::Metadata,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use consort_channel_config::ChannelBundle;
use consort_crypto::certificate::Certificate;
use consort_msp::{BLS_KEYS, FolderError, Msp, MspManager, MspVersion, SigningIdentity};
use consort_protos::ids::MspId;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
};
use time::OffsetDateTime;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::MissedTickBehavior,
};
use tracing::{info, warn};

use crate::{Clock, Metrics, Tasks, dial::with_causes};

/// How often files are looked at: what a list of revoked certificates in a folder says is to count within five seconds.
const INTERVAL: Duration = Duration::from_secs(2);

/// How often ends are looked at: reading the certificates of many channels is not free, and they end in days.
const TELLING_INTERVAL: Duration = Duration::from_secs(60);

/// A certificate that ends sooner than this is warned about.
const WARNING: time::Duration = time::Duration::days(30);

/// The same certificate is warned about once in this time.
const WARNING_PAUSE: time::Duration = time::Duration::days(1);

/// Certificates in the metric: those of a hundred channels with some organisations each; more would only grow the answer.
const WATCHED_MAX: usize = 2_000;

/// Something with a certificate that can be replaced while the process runs.
///
/// Duties of an implementation: look for something new, take it over whole or not at all, and go on with the old one
/// after an error. It may block for the time that reading a few files takes.
pub trait Renewable: Send + Sync {
    /// What it is, for the log.
    fn name(&self) -> String;

    /// Takes over what is new; `None` when nothing is.
    ///
    /// # Errors
    /// Why the new one cannot be used, in words for an operator.
    fn renew(&self) -> Result<Option<Certificate>, String>;
}

/// A certificate whose end is watched.
#[derive(Debug, Clone)]
pub struct WatchedCertificate {
    /// What it is for: `tls`, `signing`, `authority`, `channel`.
    pub usage: &'static str,
    /// The channel in whose configuration it stands; empty for the process's own.
    pub channel: String,
    /// The certificate.
    pub certificate: Certificate,
}

impl WatchedCertificate {
    /// One of the process itself.
    #[must_use]
    pub fn own(usage: &'static str, certificate: Certificate) -> Self {
        Self { usage, channel: String::new(), certificate }
    }
}

/// Labels of the metric.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
struct CertificateLabels {
    usage: String,
    channel: String,
    subject: String,
    serial: String,
}

type Source = Box<dyn Fn() -> Vec<WatchedCertificate> + Send + Sync>;

/// The task under construction: what renews itself, and what is watched.
pub struct CertificateWatch {
    renewables: Vec<(Arc<dyn Renewable>, Option<String>)>,
    sources: Vec<Source>,
    seconds: Family<CertificateLabels, Gauge>,
    shown: BTreeSet<CertificateLabels>,
    warned: BTreeMap<CertificateLabels, OffsetDateTime>,
    told: Option<Instant>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for CertificateWatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CertificateWatch").field("renewables", &self.renewables.len()).finish()
    }
}

impl CertificateWatch {
    /// A watch over nothing, with its metric `certificate_expires_in_seconds`.
    #[must_use]
    pub fn new(metrics: &Metrics, clock: Arc<dyn Clock>) -> Self {
        let seconds = Family::<CertificateLabels, Gauge>::default();
        metrics.register(
            "certificate_expires_in_seconds",
            "Time until a certificate ends, negative after its end",
            seconds.clone(),
        );
        let (shown, warned) = (BTreeSet::new(), BTreeMap::new());
        let (renewables, sources) = (Vec::new(), Vec::new());
        Self { renewables, sources, seconds, shown, warned, told: None, clock }
    }

    /// Also renews this.
    pub fn renew(&mut self, renewable: Arc<dyn Renewable>) {
        self.renewables.push((renewable, None));
    }

    /// Also watches what `source` tells.
    pub fn certificates(&mut self, source: impl Fn() -> Vec<WatchedCertificate> + Send + Sync + 'static) {
        self.sources.push(Box::new(source));
    }

    /// Looks once now, and from then on as a task.
    pub fn start(mut self, tasks: &Tasks) {
        self.look();
        let stop = tasks.cancelled();
        tasks.spawn("certificates", false, async move {
            let mut hang_up = Wish::new();
            let mut interval = tokio::time::interval(INTERVAL);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = hang_up.next() => info!("SIGHUP: looking for new certificates"),
                    _ = interval.tick() => {}
                }
                // Files of a few kilobytes and some arithmetic: not worth a thread of its own.
                self.look();
            }
        });
    }

    /// Takes over what is new, and tells about ends.
    pub fn look(&mut self) {
        for (renewable, last_failure) in &mut self.renewables {
            match renewable.renew() {
                Ok(None) => *last_failure = None,
                Ok(Some(certificate)) => {
                    *last_failure = None;
                    self.told = None;
                    info!(what = renewable.name(), subject = certificate.subject(), serial = certificate.serial_hex(),
                          not_after = %certificate.not_after(), "certificate renewed");
                }
                Err(reason) => {
                    if last_failure.as_ref() != Some(&reason) {
                        warn!(
                            what = renewable.name(),
                            reason, "the new certificate cannot be used, the old one stays"
                        );
                    }
                    *last_failure = Some(reason);
                }
            }
        }
        let now = self.clock.monotonic();
        if self.told.is_none_or(|told| now.duration_since(told) >= TELLING_INTERVAL) {
            self.told = Some(now);
            self.tell();
        }
    }

    fn tell(&mut self) {
        let now = self.clock.now();
        let watched: Vec<WatchedCertificate> =
            self.sources.iter().flat_map(|source| source()).take(WATCHED_MAX).collect();
        let mut shown = BTreeSet::new();
        for WatchedCertificate { usage, channel, certificate } in &watched {
            let labels = CertificateLabels {
                usage: (*usage).to_owned(),
                channel: channel.clone(),
                subject: certificate.subject().to_owned(),
                serial: certificate.serial_hex(),
            };
            let left = certificate.not_after() - now;
            self.seconds.get_or_create(&labels).set(left.whole_seconds());
            if left < WARNING && self.warned.get(&labels).is_none_or(|last| *last + WARNING_PAUSE <= now) {
                warn!(usage, channel, subject = labels.subject, serial = labels.serial,
                      not_after = %certificate.not_after(), days = left.whole_days(),
                      "a certificate ends soon; renew it");
                self.warned.insert(labels.clone(), now);
            }
            shown.insert(labels);
        }
        for gone in self.shown.difference(&shown) {
            self.seconds.remove(gone);
        }
        self.warned.retain(|labels, _| shown.contains(labels));
        self.shown = shown;
    }
}

/// SIGHUP, if it can be received at all.
struct Wish(Option<Signal>);

impl Wish {
    fn new() -> Self {
        let received = signal(SignalKind::hangup());
        Self(received.inspect_err(|error| warn!(%error, "SIGHUP is not heard")).ok())
    }

    async fn next(&mut self) {
        match &mut self.0 {
            Some(signal) => {
                signal.recv().await;
            }
            None => std::future::pending().await,
        }
    }
}

/// A value that is replaced as a whole while others use it. Clones share it.
#[derive(Debug)]
pub struct Current<T>(Arc<RwLock<Arc<T>>>);

impl<T> Clone for Current<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Current<T> {
    /// Begins with `value`.
    #[must_use]
    pub fn new(value: Arc<T>) -> Self {
        Self(Arc::new(RwLock::new(value)))
    }

    /// The value at this moment. Whoever does several things that belong together takes it once.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on `value`; who took the old one finishes with it.
    pub fn replace(&self, value: Arc<T>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

impl<T> From<Arc<T>> for Current<T> {
    fn from(value: Arc<T>) -> Self {
        Self::new(value)
    }
}

/// Something that is made from files, and made anew when their content changes.
///
/// The content is compared, not the time of the change: a copy that keeps times is noticed, and a touch is not.
pub struct FromFiles<F> {
    name: String,
    files: Vec<PathBuf>,
    taken: Mutex<Taken>,
    take: F,
}

/// What was taken over last, and when there is no need to read it again.
#[derive(Default)]
struct Taken {
    contents: Vec<Vec<u8>>,
    marks: Vec<Vec<Mark>>,
    /// The marks were the same at two looks, and the contents were read after both.
    is_settled: bool,
}

/// What the file system tells of a file. It changes with the content: the time of the last change of the inode is the system's own, so a copy that keeps times changes
/// it, too. Two changes may come within one step of that clock, which is why marks count only when a later look finds them again.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mark {
    name: OsString,
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl<F> fmt::Debug for FromFiles<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FromFiles").field("files", &self.files).finish_non_exhaustive()
    }
}

impl<F, T> FromFiles<F>
where
    F: Fn() -> Result<T, String> + Send + Sync,
    T: Into<Option<Certificate>>,
{
    /// `take` reads the files or folders again and takes over what they hold, and answers the certificate if it is one. What is
    /// in them now counts as taken.
    pub fn new(name: impl Into<String>, files: Vec<PathBuf>, take: F) -> Self {
        let contents = files.iter().map(|file| content(file).unwrap_or_default()).collect();
        let taken = Taken { contents, ..Taken::default() };
        Self { name: name.into(), files, taken: Mutex::new(taken), take }
    }
}

impl<F> FromFiles<F> {
    fn each<T>(&self, read: impl Fn(&Path) -> std::io::Result<T>) -> Result<Vec<T>, String> {
        let named =
            |file: &PathBuf| read(file).map_err(|error| format!("cannot read {}: {error}", file.display()));
        self.files.iter().map(named).collect()
    }
}

impl<F, T> Renewable for FromFiles<F>
where
    F: Fn() -> Result<T, String> + Send + Sync,
    T: Into<Option<Certificate>>,
{
    fn name(&self) -> String {
        self.name.clone()
    }

    fn renew(&self) -> Result<Option<Certificate>, String> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let marks = self.each(marks)?;
        let are_known = taken.marks == marks;
        if are_known && taken.is_settled {
            return Ok(None);
        }
        let found = self.each(content)?;
        if taken.contents != found {
            // When it cannot be used, it is tried again at every look.
            taken.is_settled = false;
            let certificate = (self.take)()?;
            (taken.contents, taken.marks) = (found, marks);
            return Ok(certificate.into());
        }
        (taken.marks, taken.is_settled) = (marks, are_known);
        Ok(None)
    }
}

/// Signs with the identity in an MSP folder whenever its `signcerts`, `keystore` or `blskeystore` change. The new identity must be
/// valid now under the folder's own MSP, so that it belongs to the same organisation.
#[must_use]
pub fn signing_identity(
    folder: &Path,
    current: &Current<SigningIdentity>,
    clock: &Arc<dyn Clock>,
) -> Arc<dyn Renewable> {
    let (folder, current, clock) = (folder.to_owned(), current.clone(), Arc::clone(clock));
    let name = format!("signing identity {}", folder.display());
    let files = ["signcerts", "keystore", BLS_KEYS].map(|part| folder.join(part)).to_vec();
    Arc::new(FromFiles::new(name, files, move || {
        let msp_id = current.get().msp_id().clone();
        let renewed = SigningIdentity::from_folder(&folder, &msp_id).map_err(|error| error.to_string())?;
        if renewed.expires_at() <= clock.now() {
            return Err(format!("its certificate ended at {}", renewed.expires_at()));
        }
        let config = consort_msp::folder::load_config(&folder, &msp_id).map_err(|error| error.to_string())?;
        let msp = Msp::new(&config, MspVersion::V3_0).map_err(|error| error.to_string())?;
        renewed.identity(&MspManager::new(vec![msp])).map_err(|error| error.to_string())?;
        let certificate = renewed.certificate().clone();
        current.replace(Arc::new(renewed));
        Ok(certificate)
    }))
}

/// What of an MSP folder makes the MSP (Fabric documentation, "Membership Service Provider (MSP)"), beside the node's own identity.
const MSP_PARTS: [&str; 7] = [
    "cacerts",
    "intermediatecerts",
    "admincerts",
    "crls",
    "tlscacerts",
    "tlsintermediatecerts",
    "config.yaml",
];

/// The MSP in a node's own folder, by which callers are judged whom no channel knows.
///
/// # Errors
/// The file that cannot be used and why.
pub fn load_msp(folder: &Path, msp_id: &MspId) -> Result<MspManager, FolderError> {
    let config = consort_msp::folder::load_config(folder, msp_id)?;
    let msp = Msp::new(&config, MspVersion::V3_0)
        .map_err(|source| FolderError::Msp { path: folder.to_owned(), source })?;
    Ok(MspManager::new(vec![msp]))
}

/// Judges by what is in an MSP folder whenever its authorities, administrators or lists of revoked certificates change; `then` is
/// called after each change.
#[must_use]
pub fn local_msp(
    folder: &Path,
    msp_id: &MspId,
    current: &Current<MspManager>,
    then: impl Fn() + Send + Sync + 'static,
) -> Arc<dyn Renewable> {
    let (folder, msp_id, current) = (folder.to_owned(), msp_id.clone(), current.clone());
    let name = format!("membership in {}", folder.display());
    let files = MSP_PARTS.iter().map(|part| folder.join(part)).collect();
    Arc::new(FromFiles::new(name, files, move || {
        let msps = load_msp(&folder, &msp_id).map_err(|error| with_causes(&error))?;
        current.replace(Arc::new(msps));
        info!(folder = %folder.display(), "the local MSP was read again");
        then();
        Ok(None::<Certificate>)
    }))
}

/// The authorities in a channel's configuration, whose end stops a whole organisation.
#[must_use]
pub fn channel_authorities(bundle: &ChannelBundle) -> Vec<WatchedCertificate> {
    let channel = bundle.channel().as_str();
    let configs = bundle.msps().msps().map(Msp::config);
    let all = configs.flat_map(|config| {
        config.root_certs.iter().chain(&config.intermediate_certs).chain(&config.tls_root_certs)
    });
    let distinct: BTreeSet<&[u8]> = all.map(AsRef::as_ref).collect();
    let watched = distinct.into_iter().filter_map(|pem| Certificate::from_pem(pem).ok());
    watched
        .map(|certificate| WatchedCertificate { usage: "channel", channel: channel.to_owned(), certificate })
        .collect()
}

/// The marks of a file, or of all files in a folder; none of what is not there.
fn marks(path: &Path) -> std::io::Result<Vec<Mark>> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    if !metadata.is_dir() {
        return Ok(vec![Mark::new(OsString::new(), &metadata)]);
    }
    let mut marks = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        // Behind a link, too; one that leads nowhere is no file.
        if let Ok(metadata) = std::fs::metadata(entry.path())
            && metadata.is_file()
        {
            marks.push(Mark::new(entry.file_name(), &metadata));
        }
    }
    marks.sort();
    Ok(marks)
}

impl Mark {
    fn new(name: OsString, metadata: &Metadata) -> Self {
        Self {
            name,
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A file's content, or that of all files in a folder with their names, as one value to compare (a hash, so that no
/// second copy of a key stays in memory); what is not there is empty.
fn content(path: &Path) -> std::io::Result<Vec<u8>> {
    if !path.try_exists()? {
        return Ok(Vec::new());
    }
    let mut parts = Vec::new();
    if path.is_dir() {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
        files.retain(|file| file.is_file());
        files.sort();
        for file in files {
            parts.extend_from_slice(file.as_os_str().as_encoded_bytes());
            parts.extend_from_slice(&consort_crypto::hash::sha256(&std::fs::read(&file)?));
        }
    } else {
        parts = std::fs::read(path)?;
    }
    Ok(consort_crypto::hash::sha256(&parts).to_vec())
}

#[cfg(test)]
mod tests {
    use consort_crypto::{
        issue::{CertificateAuthority, DistinguishedName, NamePart, Template, Validity},
        key::PrivateKey,
        request::CertificateRequest,
    };

    use super::*;
    use crate::{ManualClock, SystemClock, config::ClientAuth, tls::ServerTls};

    struct Organisation {
        authority: CertificateAuthority,
        folder: tempfile::TempDir,
    }

    impl Organisation {
        fn new() -> Self {
            let now = SystemClock.now();
            let validity = Validity {
                not_before: now - time::Duration::days(1),
                not_after: now + time::Duration::days(1000),
            };
            let key = PrivateKey::generate_p256().unwrap();
            let name = DistinguishedName::common_name("ca.org1");
            let authority = CertificateAuthority::new_root(&name, key, validity).unwrap();
            let folder = tempfile::tempdir().unwrap();
            for part in ["cacerts", "signcerts", "keystore"] {
                std::fs::create_dir(folder.path().join(part)).unwrap();
            }
            std::fs::write(folder.path().join("cacerts/ca.pem"), authority.certificate().pem()).unwrap();
            let units = "NodeOUs:\n  Enable: true\n  PeerOUIdentifier: { OrganizationalUnitIdentifier: peer }\n  \
                         AdminOUIdentifier: { OrganizationalUnitIdentifier: admin }\n  \
                         ClientOUIdentifier: { OrganizationalUnitIdentifier: client }\n  \
                         OrdererOUIdentifier: { OrganizationalUnitIdentifier: orderer }\n";
            std::fs::write(folder.path().join("config.yaml"), units).unwrap();
            Self { authority, folder }
        }

        /// A peer's certificate and key in PEM, valid for so many days.
        fn peer(&self, days: i64) -> (Certificate, String) {
            let now = SystemClock.now();
            let key = PrivateKey::generate_p256().unwrap();
            let name = DistinguishedName::common_name("peer0").with(NamePart::OrganizationalUnit, "peer");
            let request = CertificateRequest::create_for(&key, &name, &[]).unwrap();
            let validity = Validity {
                not_before: now - time::Duration::hours(1),
                not_after: now + time::Duration::days(days),
            };
            let template = Template::identity(name, validity);
            let certificate = self.authority.issue(&template, request.public_key()).unwrap();
            (certificate, key.to_pem().to_string())
        }

        fn sign_with(&self, (certificate, key): &(Certificate, String)) {
            std::fs::write(self.folder.path().join("signcerts/cert.pem"), certificate.pem()).unwrap();
            std::fs::write(self.folder.path().join("keystore/priv_sk"), key).unwrap();
        }
    }

    #[test]
    fn files_are_read_again_when_the_system_says_that_they_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (file, other) = (folder.path().join("a.pem"), folder.path().join("b.pem"));
        std::fs::write(&file, "first").unwrap();
        let written = std::fs::metadata(&file).unwrap().modified().unwrap();
        let renewable = FromFiles::new("a folder", vec![folder.path().to_owned()], || Ok(None));
        let look = || {
            renewable.renew().unwrap();
            renewable.taken.lock().unwrap().is_settled
        };
        assert_eq!([look(), look(), look()], [false, true, true], "at first it may still be written to");

        std::fs::write(&file, "again").unwrap();
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(written).unwrap();
        assert_eq!([look(), look()], [false, true], "a copy that keeps size and times is noticed");

        std::fs::rename(&file, &other).unwrap();
        assert!(!look(), "another name is noticed");
    }

    #[test]
    fn a_renewed_signing_identity_is_taken_over_and_a_foreign_one_is_not() {
        let (organisation, stranger) = (Organisation::new(), Organisation::new());
        let (first, second, foreign) = (organisation.peer(10), organisation.peer(20), stranger.peer(30));
        organisation.sign_with(&first);
        let msp_id = consort_protos::ids::MspId::parse("Org1MSP").unwrap();
        let identity = SigningIdentity::from_folder(organisation.folder.path(), &msp_id).unwrap();
        let current = Current::new(Arc::new(identity));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let renewable = signing_identity(organisation.folder.path(), &current, &clock);
        assert!(renewable.renew().unwrap().is_none());
        let taken = current.get();

        organisation.sign_with(&second);
        let renewed = renewable.renew().unwrap().unwrap();
        organisation.sign_with(&foreign);
        let refused = renewable.renew().unwrap_err();

        assert_eq!(renewed, second.0);
        assert_eq!(current.get().certificate(), &second.0);
        assert_eq!(taken.certificate(), &first.0, "who took the old one goes on with it");
        assert!(refused.contains("signed by unknown authority"), "{refused}");
        organisation.sign_with(&second);
        assert!(renewable.renew().unwrap().is_none(), "what is in force is in the files again");
    }

    #[test]
    fn a_tls_certificate_whose_key_is_not_there_yet_waits_for_it() {
        let organisation = Organisation::new();
        let (first, second) = (organisation.peer(10), organisation.peer(20));
        let folder = organisation.folder.path();
        let config = crate::config::TlsConfig {
            cert: folder.join("server.crt"),
            key: folder.join("server.key"),
            client_roots: Vec::new(),
            client_auth: ClientAuth::None,
        };
        std::fs::write(&config.cert, first.0.pem()).unwrap();
        std::fs::write(&config.key, &first.1).unwrap();
        let tls = ServerTls::load(&config).unwrap();
        let renewable = tls.renewable(&config);

        std::fs::write(&config.cert, second.0.pem()).unwrap();
        let half = renewable.renew().unwrap_err();
        assert_eq!(tls.certificate().unwrap(), first.0);
        std::fs::write(&config.key, &second.1).unwrap();
        let whole = renewable.renew().unwrap().unwrap();

        assert!(half.contains("server.key"), "{half}");
        assert_eq!((&whole, &tls.certificate().unwrap()), (&second.0, &second.0));
    }

    #[test]
    fn ends_are_shown_and_what_is_gone_is_not() {
        let organisation = Organisation::new();
        let (soon, late) = (organisation.peer(10).0, organisation.peer(300).0);
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let metrics = Metrics::new();
        let mut watch = CertificateWatch::new(&metrics, Arc::clone(&clock) as _);
        let shown = Arc::new(Mutex::new(vec![
            WatchedCertificate::own("tls", soon.clone()),
            WatchedCertificate { usage: "channel", channel: "mychannel".to_owned(), certificate: late },
        ]));
        let source = Arc::clone(&shown);
        watch.certificates(move || source.lock().unwrap().clone());

        watch.look();
        let before = metrics.encode();
        assert_eq!(watch.warned.len(), 1);
        shown.lock().unwrap().remove(1);
        clock.advance(Duration::from_secs(24 * 3600));
        watch.look();
        let after = metrics.encode();

        let line = |text: &str, usage: &str| {
            let wanted = format!("usage=\"{usage}\"");
            let found = text
                .lines()
                .find(|line| line.starts_with("certificate_expires_in_seconds{") && line.contains(&wanted));
            found.map(|line| line.rsplit(' ').next().unwrap().parse::<i64>().unwrap())
        };
        let (first, second) = (line(&before, "tls").unwrap(), line(&after, "tls").unwrap());
        assert_eq!(first - second, 24 * 3600);
        assert!(before.contains(&format!("serial=\"{}\"", soon.serial_hex())), "{before}");
        assert!(line(&before, "channel").is_some_and(|seconds| seconds > 200 * 24 * 3600));
        assert_eq!(line(&after, "channel"), None);
    }
}
