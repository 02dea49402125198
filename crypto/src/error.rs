//! What can go wrong with keys, signatures and certificates.

/// What can go wrong with keys, signatures and certificates.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no PEM block, or not the one that is needed.
    #[error("no PEM block {expected}")]
    Pem {
        /// The label that was looked for.
        expected: &'static str,
    },
    /// The private key is of no supported kind, or damaged.
    #[error("unusable private key: {0}")]
    PrivateKey(String),
    /// The public key is of no supported kind, or damaged.
    #[error("unusable public key: {0}")]
    PublicKey(String),
    /// The certificate, request or list does not parse.
    #[error("malformed {kind}: {reason}")]
    Malformed {
        /// What was read.
        kind: &'static str,
        /// Why it does not parse.
        reason: String,
    },
    /// The signature is no DER sequence of two positive integers.
    #[error("malformed signature")]
    SignatureEncoding,
    /// S is larger than half of the curve's order, so that the signature has a twin.
    #[error("Invalid S. Must be smaller than half the order")]
    HighS,
    /// The signature does not belong to message and key.
    #[error("The signature is invalid")]
    SignatureMismatch,
    /// The algorithm is known, but not for this purpose.
    #[error("unsupported algorithm: {0}")]
    Unsupported(String),
    /// Subject and issuer, or key and certificate, do not belong together.
    #[error("{0}")]
    DoesNotBelong(&'static str),
    /// The operating system gave no random numbers.
    #[error("no random numbers")]
    Random,
    /// A value does not fit into a certificate.
    #[error("cannot issue: {0}")]
    Issue(String),
    /// The TLS configuration cannot be used.
    #[error("unusable TLS configuration: {0}")]
    Tls(String),
}

/// A value that the writer of certificates refuses.
pub(crate) fn unwritable(cause: impl std::fmt::Display) -> Error {
    Error::Issue(cause.to_string())
}
