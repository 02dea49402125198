//! What can be wrong with a membership provider, an identity, or an identity's claim to be somebody.

use std::path::PathBuf;

/// An MSP's configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MspError {
    /// The configuration's bytes are no `FabricMSPConfig`.
    #[error("failed unmarshalling MSP config: {0}")]
    Malformed(String),
    /// Only X.509 providers (type 0) exist here.
    #[error("Setup error: unsupported msp type {0}")]
    UnsupportedType(i32),
    /// The configuration names no MSP id, or one that cannot be used.
    #[error("invalid MSP id {id:?}: {reason}")]
    InvalidId {
        /// The id as configured.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A hash that this implementation does not offer.
    #[error("MSP {msp}: {setting} {name} is not supported, only {supported} is")]
    UnsupportedHash {
        /// The MSP.
        msp: String,
        /// Which setting names it.
        setting: &'static str,
        /// What it names.
        name: String,
        /// What may stand there.
        supported: &'static str,
    },
    /// An algorithm of keys that cannot be allowed.
    #[error("MSP {msp}: key algorithm {name} cannot be allowed: {reason}")]
    KeyAlgorithm {
        /// The MSP.
        msp: String,
        /// The name given.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// No root certificate.
    #[error("expected at least one CA certificate")]
    NoRoots,
    /// A configured certificate does not parse.
    #[error("getCertFromPem error: {0}")]
    Certificate(String),
    /// A revocation list does not parse.
    #[error("could not parse RevocationList: {0}")]
    RevocationList(String),
    /// A configured authority breaks a rule of authorities.
    #[error("{0}")]
    Authority(String),
    /// An organizational unit identifier names a certificate that is not one of the authorities.
    #[error("Failed adding OU. Certificate [{0}] not in root or intermediate certs.")]
    ForeignUnitCertificate(String),
    /// NodeOUs lack a mandatory identifier (MSP versions 1.1 and 1.3).
    #[error("Failed setting up NodeOUs. {0} must be different from nil.")]
    MissingNodeUnit(&'static str),
    /// Neither a listed admin nor an admin organizational unit.
    #[error("administrators must be declared when no admin ou classification is set")]
    NoAdministrators,
    /// A listed admin does not belong here.
    #[error("admin {index} is invalid: {reason}")]
    Administrator {
        /// Position in the list, from 0.
        index: usize,
        /// Why.
        reason: String,
    },
}

/// An identity cannot be read, or is not valid under its MSP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The bytes are no `SerializedIdentity`.
    #[error("could not deserialize a SerializedIdentity: {0}")]
    Malformed(String),
    /// The identity's MSP is not among the known ones.
    #[error("MSP {0} is not defined on channel")]
    UnknownMsp(String),
    /// The certificate cannot be read.
    #[error("parseCertificate failed: {0}")]
    Certificate(String),
    /// The issuing chain is not acceptable.
    #[error("the supplied identity is not valid: {0}")]
    Chain(#[from] ChainError),
    /// Not valid under its MSP.
    #[error("{0}")]
    Invalid(String),
    /// The certificate is on a revocation list.
    #[error("could not validate identity against certification chain: The certificate has been revoked")]
    Revoked,
    /// The certificate is past its end. Asked at the doors only, never of what was committed.
    #[error("the certificate of {name} expired at {at}")]
    Expired {
        /// Common name of the holder.
        name: String,
        /// When it ended.
        at: time::OffsetDateTime,
    },
    /// A signature does not verify.
    #[error("The signature is invalid")]
    Signature,
}

/// Why no single chain leads from a certificate to a root. The texts are those of the Go verifier, which operators of Fabric know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// No acceptable issuer.
    #[error("x509: certificate signed by unknown authority")]
    UnknownAuthority,
    /// An issuer with the right name was found, but it may not or did not sign.
    #[error(
        "x509: certificate signed by unknown authority (possibly because of \"{reason}\" while trying to verify candidate authority certificate \"{candidate}\")"
    )]
    Candidate {
        /// Common name of the candidate.
        candidate: String,
        /// What was wrong.
        reason: String,
    },
    /// A certificate of the chain is outside its validity at the time of issue.
    #[error("x509: certificate has expired or is not yet valid: current time {0}")]
    Validity(String),
    /// An extended key usage forbids the use.
    #[error("x509: certificate specifies an incompatible key usage")]
    Usage,
    /// A critical extension that is not understood.
    #[error("x509: unhandled critical extension")]
    CriticalExtension,
    /// An issuer allows fewer intermediates below itself.
    #[error("x509: too many intermediates for path length constraint")]
    PathLength,
    /// An issuer is no authority.
    #[error("x509: certificate is not authorized to sign other certificates")]
    NotAuthority,
    /// Too many candidates had to be tried.
    #[error("x509: signature check attempts limit reached while verifying certificate chain")]
    TooManyAttempts,
    /// More than one chain.
    #[error("this MSP only supports a single validation chain, got {0}")]
    SeveralChains(usize),
}

/// An identity does not satisfy a principal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PrincipalError(pub(crate) String);

impl PrincipalError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// An MSP folder cannot be read. Every variant names the file or folder and the rule it breaks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// A file or folder cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Unreadable {
        /// Where.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {source}", path = path.display())]
    Unwritable {
        /// Where.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// `cacerts` holds no certificate.
    #[error("no ca certificate found in directory {path} (an MSP folder needs at least one PEM file there)", path = .0.display())]
    NoRoots(PathBuf),
    /// `signcerts` or `keystore` does not hold exactly what is needed.
    #[error("{path}: {rule}", path = path.display())]
    Rule {
        /// Where.
        path: PathBuf,
        /// What is demanded.
        rule: String,
    },
    /// `config.yaml` is not understood.
    #[error("{path} is not a valid MSP configuration (OrganizationalUnitIdentifiers, NodeOUs): {reason}", path = path.display())]
    Yaml {
        /// Where.
        path: PathBuf,
        /// Message with line and column.
        reason: String,
    },
    /// The folder's content is no valid MSP.
    #[error("{path} is not a valid MSP: {source}", path = path.display())]
    Msp {
        /// Where.
        path: PathBuf,
        /// The rule that is broken.
        source: MspError,
    },
}
