//! Chains from a certificate up to a root.
//!
//! The rules are RFC 5280's as Go's `crypto/x509` applies them without a host name, because that is what every Fabric node
//! does and a difference would fork a channel: issuers are found by exact name bytes, must be authorities within their
//! path length, must be allowed to sign certificates, and every certificate with an extended key usage must allow the use.
//! The time that counts is given by the caller: never the clock.

use std::sync::Arc;

use consort_crypto::certificate::{Certificate, ExtendedKeyUsage, KeyUsage};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use crate::ChainError;

/// A certificate and its issuers, the root last.
pub type Chain = Vec<Arc<Certificate>>;

/// Go's verifier gives up after as many signature checks; so do we, which also bounds the work of a hostile pool.
const MAX_SIGNATURE_CHECKS: usize = 100;

/// No real hierarchy is deeper.
const MAX_CHAIN_LENGTH: usize = 16;

/// What a chain's certificates must be allowed to be used for, wherever they restrict it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// serverAuth: the verifier's default, which membership checks use.
    Server,
    /// clientAuth or serverAuth: for consenters' TLS certificates.
    ClientOrServer,
}

/// Root and intermediate certificates to chain to.
#[derive(Debug, Clone, Default)]
pub struct CertificatePool {
    roots: Vec<Arc<Certificate>>,
    intermediates: Vec<Arc<Certificate>>,
}

impl CertificatePool {
    /// A pool of these certificates.
    #[must_use]
    pub fn new(roots: Vec<Arc<Certificate>>, intermediates: Vec<Arc<Certificate>>) -> Self {
        Self { roots: without_copies(roots), intermediates: without_copies(intermediates) }
    }

    /// The roots.
    #[must_use]
    pub fn roots(&self) -> &[Arc<Certificate>] {
        &self.roots
    }

    /// The intermediates.
    #[must_use]
    pub fn intermediates(&self) -> &[Arc<Certificate>] {
        &self.intermediates
    }

    /// Whether this very certificate is a root.
    #[must_use]
    pub fn is_root(&self, certificate: &Certificate) -> bool {
        self.roots.iter().any(|root| root.der() == certificate.der())
    }

    /// Every chain from `certificate` to a root, judged one second after the certificate's own begin: expiry by the clock
    /// does not matter, but an issuer must have been valid then.
    ///
    /// # Errors
    /// [`ChainError`] when there is none.
    pub fn chains(&self, certificate: &Arc<Certificate>, usage: Usage) -> Result<Vec<Chain>, ChainError> {
        let at = certificate.not_before() + Duration::seconds(1);
        check_link(certificate, at)?;
        let found = if self.is_root(certificate) {
            vec![vec![Arc::clone(certificate)]]
        } else {
            let mut search = Search { pool: self, at, checks: 0, first_problem: None, found: Vec::new() };
            search.extend(&mut vec![Arc::clone(certificate)])?;
            if search.found.is_empty() {
                return Err(search.first_problem.unwrap_or(ChainError::UnknownAuthority));
            }
            search.found
        };
        let usable: Vec<Chain> =
            found.into_iter().filter(|chain| chain.iter().all(|link| allows(link, usage))).collect();
        if usable.is_empty() { Err(ChainError::Usage) } else { Ok(usable) }
    }

    /// The one chain of a certificate.
    ///
    /// # Errors
    /// When there is none, or more than one: two authorities with one name and key make every identity ambiguous.
    pub fn only_chain(&self, certificate: &Arc<Certificate>) -> Result<Chain, ChainError> {
        let mut chains = self.chains(certificate, Usage::Server)?;
        match (chains.len(), chains.pop()) {
            (1, Some(chain)) => Ok(chain),
            (count, _) => Err(ChainError::SeveralChains(count)),
        }
    }
}

fn without_copies(certificates: Vec<Arc<Certificate>>) -> Vec<Arc<Certificate>> {
    let mut kept: Vec<Arc<Certificate>> = Vec::with_capacity(certificates.len());
    for certificate in certificates {
        if !kept.iter().any(|other| other.der() == certificate.der()) {
            kept.push(certificate);
        }
    }
    kept
}

/// Depth-first search over issuers.
struct Search<'a> {
    pool: &'a CertificatePool,
    at: OffsetDateTime,
    checks: usize,
    first_problem: Option<ChainError>,
    found: Vec<Chain>,
}

impl Search<'_> {
    fn extend(&mut self, chain: &mut Chain) -> Result<(), ChainError> {
        let pool = self.pool;
        for root in &pool.roots {
            if self.accepts(chain, root)? {
                let mut complete = chain.clone();
                complete.push(Arc::clone(root));
                self.found.push(complete);
            }
        }
        if chain.len() >= MAX_CHAIN_LENGTH {
            return Ok(());
        }
        for intermediate in &pool.intermediates {
            if self.accepts(chain, intermediate)? {
                chain.push(Arc::clone(intermediate));
                self.extend(chain)?;
                chain.pop();
            }
        }
        Ok(())
    }

    /// Whether `issuer` may stand above the last certificate of the chain. The budget running out is an error, everything
    /// else is only noted.
    fn accepts(&mut self, chain: &Chain, issuer: &Arc<Certificate>) -> Result<bool, ChainError> {
        let Some(child) = chain.last() else { return Ok(false) };
        if child.issuer_bytes() != issuer.subject_bytes()
            || chain.iter().any(|link| same_holder(link, issuer))
        {
            return Ok(false);
        }
        self.checks += 1;
        if self.checks > MAX_SIGNATURE_CHECKS {
            return Err(ChainError::TooManyAttempts);
        }
        match self.judge(chain, child, issuer) {
            Ok(()) => Ok(true),
            Err(problem) => {
                self.first_problem.get_or_insert(problem);
                Ok(false)
            }
        }
    }

    fn judge(&self, chain: &Chain, child: &Certificate, issuer: &Certificate) -> Result<(), ChainError> {
        let candidate = |reason: &str| ChainError::Candidate {
            candidate: issuer.subject_common_name().unwrap_or_default().to_owned(),
            reason: reason.to_owned(),
        };
        if !issuer.is_ca() || !may_sign_certificates(issuer) {
            return Err(candidate(
                "x509: invalid signature: parent certificate cannot sign this kind of certificate",
            ));
        }
        if child.verify_issued_by(issuer).is_err() {
            return Err(candidate("x509: ECDSA verification failure"));
        }
        check_link(issuer, self.at)?;
        let below = chain.len() - 1;
        match issuer.path_len() {
            Some(allowed) if below > usize::try_from(allowed).unwrap_or(usize::MAX) => {
                Err(ChainError::PathLength)
            }
            _ => Ok(()),
        }
    }
}

/// Same subject, key and other names: the same authority under another certificate; a chain must not pass it twice.
fn same_holder(left: &Certificate, right: &Certificate) -> bool {
    left.subject_bytes() == right.subject_bytes()
        && left.public_key() == right.public_key()
        && left.subject_alternative_names() == right.subject_alternative_names()
}

/// What every certificate of a chain must hold by itself.
fn check_link(certificate: &Certificate, at: OffsetDateTime) -> Result<(), ChainError> {
    if certificate.has_unknown_critical_extension() {
        return Err(ChainError::CriticalExtension);
    }
    let text = |time: OffsetDateTime| time.format(&Rfc3339).unwrap_or_default();
    if at < certificate.not_before() {
        return Err(ChainError::Validity(format!(
            "{} is before {}",
            text(at),
            text(certificate.not_before())
        )));
    }
    if at > certificate.not_after() {
        return Err(ChainError::Validity(format!("{} is after {}", text(at), text(certificate.not_after()))));
    }
    Ok(())
}

/// A key usage extension, where present, must contain certificate signing.
pub(crate) fn may_sign_certificates(certificate: &Certificate) -> bool {
    certificate.key_usage().is_none_or(|usage| usage.contains(KeyUsage::CERTIFICATE_SIGN))
}

/// An extended key usage extension, where present, must contain the use or "any".
fn allows(certificate: &Certificate, usage: Usage) -> bool {
    let accepted = |purpose: &ExtendedKeyUsage| match purpose {
        ExtendedKeyUsage::Any | ExtendedKeyUsage::ServerAuth => true,
        ExtendedKeyUsage::ClientAuth => usage == Usage::ClientOrServer,
        _ => false,
    };
    certificate.extended_key_usage().is_none_or(|purposes| purposes.iter().any(accepted))
}
