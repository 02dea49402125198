//! The certificate authority: every operation of the REST API, as a function over values.
//!
//! Nothing here knows HTTP. The functions block (hashing, disk); the API runs them off the async threads.

mod access;
mod affiliations;
mod audit;
mod enrollment;
mod listings;
mod registrar;
mod revocation;

pub use access::Caller;
pub use enrollment::Enrolled;
pub use listings::{CertificateQuery, Page};
pub use revocation::Revocation;

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use consort_crypto::certificate::Certificate;
use consort_crypto::key::{KeyAlgorithm, PrivateKey};
use consort_node::{Clock, Metrics};
use prometheus_client::metrics::counter::Counter;
use time::OffsetDateTime;

use crate::affiliation::Affiliation;
use crate::attributes::Attributes;
use crate::error::{ApiError, Code};
use crate::issuer::Issuer;
use crate::opening::Shared;
use crate::password::{HashError, PasswordHashing, Secret};
use crate::rate::RateLimiter;
use crate::registry::{AuditAction, AuditEntry, NewIdentity, Registry, RegistryError};
use crate::server::StartError;

/// Who stands in the audit log for what the authority does for itself.
const OWN_NAME: &str = "consort-ca";

/// What the operator decides about the authority's behaviour.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The authority's name in requests (`caname`).
    pub name: String,
    /// Most enrolments of one identity by its secret; -1 is no limit, 0 switches enrolment off.
    pub max_enrollments: i64,
    /// Wrong secrets after which an identity can no longer enrol; 0 is no limit.
    pub password_attempts: i64,
    /// Whether identities may be removed.
    pub allow_identity_removal: bool,
    /// Whether affiliations may be removed.
    pub allow_affiliation_removal: bool,
    /// Whether an expired certificate may still be used to enrol anew.
    pub reenroll_ignores_expiry: bool,
}

/// One certificate authority with its key and its books.
pub struct Authority {
    settings: Settings,
    issuer: Issuer,
    registry: Registry,
    hashing: Arc<PasswordHashing>,
    logins: Logins,
    guesses: Guesses,
    identity_limits: Arc<RateLimiter>,
    meters: Meters,
    clock: Arc<dyn Clock>,
}

/// What the authority counts.
#[derive(Debug, Clone)]
pub struct Meters {
    issued: Counter,
    revoked: Counter,
    wrong_secrets: Counter,
}

impl Meters {
    /// Registers the counters.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            issued: metrics.counter("ca_certificates_issued", "Certificates issued"),
            revoked: metrics.counter("ca_certificates_revoked", "Certificates revoked"),
            wrong_secrets: metrics.counter("ca_wrong_secrets", "Enrolments with a wrong secret"),
        }
    }
}

/// Turns in which secrets are judged: one at a time for each identity, so that guesses made at once count as if they
/// were made one after another.
struct Logins {
    /// Identities share a lock by the hash of their name; sharing only costs waiting.
    locks: Vec<Mutex<()>>,
    hasher: RandomState,
}

/// Locks that identities share.
const LOGIN_LOCKS: usize = 64;

impl Logins {
    fn new() -> Self {
        Self { locks: (0..LOGIN_LOCKS).map(|_| Mutex::new(())).collect(), hasher: RandomState::new() }
    }

    fn turn(&self, id: &str) -> MutexGuard<'_, ()> {
        let index = self.hasher.hash_one(id) % LOGIN_LOCKS as u64;
        self.locks[index as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a request shows in whose name it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Proof {
    Secret,
    Token,
}

/// Names of which there is no identity are remembered up to this number with their wrong guesses.
const GUESSED_NAMES_MAX: usize = 10_000;

/// Wrong guesses for names of which there is no identity. They meet the same limit as those for identities, so that the
/// limit does not tell which names exist.
#[derive(Default)]
struct Guesses {
    /// By a keyed hash, so that the memory does not depend on what is guessed.
    counts: Mutex<HashMap<u64, i64>>,
    hasher: RandomState,
}

impl Guesses {
    /// The wrong guesses for this name so far; counts one more.
    fn count(&self, id: &str) -> i64 {
        let key = self.hasher.hash_one(id);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= GUESSED_NAMES_MAX && !counts.contains_key(&key) {
            counts.clear();
        }
        let count = counts.entry(key).or_default();
        let before = *count;
        *count = count.saturating_add(1);
        before
    }
}

/// The first administrator could not be registered.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The secret cannot be hashed.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The affiliation does not follow the rules.
    #[error("the registry could not take the affiliations of the configuration")]
    Affiliation(#[from] crate::registry::AffiliationError),
}

impl Authority {
    /// Puts the parts together.
    pub(crate) fn new(settings: Settings, issuer: Issuer, registry: Registry, shared: &Shared) -> Self {
        Self {
            settings,
            issuer,
            registry,
            hashing: Arc::clone(&shared.hashing),
            logins: Logins::new(),
            guesses: Guesses::default(),
            identity_limits: Arc::clone(&shared.identity_limits),
            meters: shared.meters.clone(),
            clock: Arc::clone(&shared.clock),
        }
    }

    /// The authority's name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Makes sure that the affiliations exist, and the first administrator with this secret.
    ///
    /// An administrator that exists already keeps its secret and attributes. Returns whether it was new.
    ///
    /// # Errors
    /// When the registry cannot be written.
    pub fn bootstrap(
        &self,
        id: &str,
        secret: &Secret,
        affiliation: &Affiliation,
        affiliations: &[Affiliation],
    ) -> Result<bool, BootstrapError> {
        for wanted in affiliations.iter().chain([affiliation]) {
            if !self.registry.affiliation_exists(wanted)? {
                self.registry.add_affiliation(wanted, true)?;
            }
        }
        if self.registry.identity(id)?.is_some() {
            return Ok(false);
        }
        let kind = "client";
        let administrator = NewIdentity {
            id: id.to_owned(),
            kind: kind.to_owned(),
            affiliation: affiliation.clone(),
            attributes: Attributes::administrator().with_fixed(id, kind, affiliation.as_str()),
            secret_hash: self.hashing.hash(secret)?,
            max_enrollments: -1,
        };
        Ok(self.registry.add_identity(&administrator)?)
    }

    /// Whether the registry answers; for the health check.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(&self) -> Result<(), RegistryError> {
        self.registry.check()
    }

    /// The chain of the authority's certificates in PEM.
    pub fn chain_pem(&self) -> &str {
        self.issuer.chain_pem()
    }

    /// The authority's certificate and those above it, the root last.
    pub(crate) fn chain(&self) -> Vec<Certificate> {
        self.issuer.chain().cloned().collect()
    }

    /// The kind of the authority's key.
    pub(crate) fn key_algorithm(&self) -> Option<KeyAlgorithm> {
        self.issuer.certificate().public_key().key_algorithm()
    }

    /// When the authority's own certificate ends.
    pub(crate) fn ends(&self) -> OffsetDateTime {
        self.issuer.certificate().not_after()
    }

    /// Judges whether a certificate was issued here.
    pub(crate) fn issued_here(&self, certificate: &Certificate) -> Result<(), String> {
        self.issuer.verify_issued(certificate)
    }

    /// What a TLS server with this certificate shows, in PEM.
    pub(crate) fn with_issuers(&self, certificate: &Certificate) -> String {
        self.issuer.with_issuers(certificate)
    }

    /// Issues the TLS certificate of the API, and writes it into the audit log.
    pub(crate) fn issue_for_server(
        &self,
        common_name: &str,
        hosts: &[String],
        key: &PrivateKey,
        now: OffsetDateTime,
    ) -> Result<Certificate, StartError> {
        let issued =
            self.issuer.issue_server(common_name, hosts, key.public_key(), now).map_err(StartError::Make)?;
        let aki = issued.authority_key_id().map(hex::encode).unwrap_or_default();
        let entry = AuditEntry {
            number: 0,
            at: now.unix_timestamp(),
            caller: OWN_NAME.to_owned(),
            action: AuditAction::Issue,
            id: common_name.to_owned(),
            serial: issued.serial_hex(),
            aki,
            detail: "profile=tls".to_owned(),
        };
        self.registry.append_audit(&entry)?;
        tracing::info!(target: "audit", ca = self.name(), id = common_name, serial = issued.serial_hex(),
                       not_after = %issued.not_after(), "certificate issued for the authority's own API");
        Ok(issued)
    }

    /// Judges whether there may be another request in the name of `id`, whether or not there is such an identity.
    /// Guesses of secrets do not use up what a holder of the key may ask.
    fn limit(&self, id: &str, proof: Proof) -> Result<(), ApiError> {
        if self.identity_limits.allows((self.name(), id, proof), self.clock.monotonic()) {
            return Ok(());
        }
        Err(ApiError::too_many_requests())
    }

    fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    fn hash(&self, secret: &Secret) -> Result<String, ApiError> {
        if secret.reveal().len() > crate::password::SECRET_BYTES_MAX {
            return Err(ApiError::bad_request(Code::BadBody, "a secret has at most 512 bytes"));
        }
        self.hashing.hash(secret).map_err(|error| ApiError::internal(Code::Unknown, error.to_string()))
    }
}
