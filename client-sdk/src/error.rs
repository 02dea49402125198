//! What can go wrong between a client and a network, with the causes that the network names.

use std::fmt;
use std::time::Duration;

use consort_protos::fabric::gateway::ErrorDetail;
use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::fabric::rpc;
use prost::Message;
use tonic::{Code, Status};

/// Type of the detail that says when to call again.
const RETRY_TYPE: &str = "google.rpc.RetryInfo";

/// Trailer that says the same in milliseconds (gRFC A6).
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Parts of what a gateway says of an orderer that certainly did not order a transaction: it turns all of them away (Fabric
/// `orderer/common/msgprocessor/maintenancefilter.go`), or there was no connection to it.
const NEVER_TAKEN: [&str; 2] = ["normal transactions are rejected: maintenance mode", "tcp connect error"];

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address that is not `host:port`.
    #[error("'{0}' is not an address of the form host:port")]
    Address(String),

    /// A node does not answer, or is not who it should be.
    #[error("cannot connect to {endpoint}: {}", root_cause(source))]
    Connect {
        /// The configured address.
        endpoint: String,
        /// What the transport says.
        source: tonic::transport::Error,
    },

    /// A gRPC service refused a call.
    #[error("{call}: {refusal}")]
    Refused {
        /// The call in words: `endorse`, `submit`.
        call: &'static str,
        /// Status and details.
        refusal: Box<Refusal>,
    },

    /// The chaincode, or a system chaincode, answered with an error.
    #[error("{chaincode} {function}: status {status}: {message}")]
    Chaincode {
        /// Chaincode name.
        chaincode: String,
        /// Function that was called.
        function: String,
        /// Response status, 400 and above.
        status: i32,
        /// The chaincode's own text.
        message: String,
    },

    /// The transaction was ordered, and every peer found it invalid.
    #[error("transaction {tx_id} is in block {block} but invalid: {} ({}): {}", code.as_str_name(), *code as i32, explain(*code))]
    Invalid {
        /// Transaction id.
        tx_id: String,
        /// Why.
        code: TxValidationCode,
        /// The block that holds it.
        block: u64,
    },

    /// A list of gateways is empty.
    #[error("no gateway to call")]
    NoGateway,

    /// Nobody could tell what became of a transaction that may have been ordered. Ask again later; do not make it anew.
    #[error("transaction {tx_id} was handed over, and nobody could tell what became of it")]
    Unknown {
        /// Transaction id, to ask with.
        tx_id: String,
        /// Why the last gateway could not tell.
        #[source]
        source: Box<Error>,
    },

    /// A connection profile cannot be used.
    #[error("connection profile {path}: {reason}")]
    Profile {
        /// The file, or the profile's name.
        path: String,
        /// What is wrong.
        reason: String,
    },

    /// The identity's key could not sign.
    #[error("cannot sign")]
    Sign(#[source] consort_crypto::Error),

    /// A private key cannot be used for an identity.
    #[error("the private key cannot be used")]
    Key(#[source] consort_crypto::Error),

    /// An MSP folder or a file cannot be used as an identity.
    #[error("cannot read the identity in {folder}")]
    Identity {
        /// The folder or file.
        folder: String,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// A server's answer cannot be read.
    #[error("the answer to {call} is malformed: {reason}")]
    Malformed {
        /// The call in words.
        call: &'static str,
        /// What is wrong with it.
        reason: String,
    },

    /// An administration endpoint (REST) could not be called.
    #[error("cannot reach {endpoint}")]
    Unreachable {
        /// The configured address.
        endpoint: String,
        /// What the transport says.
        #[source]
        source: reqwest::Error,
    },

    /// An administration endpoint (REST) refused a call.
    #[error("{endpoint} refused: {status}: {message}")]
    RestRefused {
        /// The configured address.
        endpoint: String,
        /// HTTP status.
        status: u16,
        /// The server's text.
        message: String,
    },

    /// An orderer does not take an envelope.
    #[error("{endpoint} does not take the transaction: {status}: {info}")]
    Ordering {
        /// The configured address.
        endpoint: String,
        /// Fabric's status name, such as `FORBIDDEN` or `BAD_REQUEST`.
        status: String,
        /// The orderer's text.
        info: String,
    },

    /// A block stream ended with a status instead of a block.
    #[error("{endpoint} does not deliver from channel {channel}: {status}{}", delivery_remedy(status))]
    Delivery {
        /// The configured address.
        endpoint: String,
        /// Channel.
        channel: String,
        /// Fabric's status name, such as `FORBIDDEN` or `NOT_FOUND`.
        status: String,
    },
}

/// A gRPC status with the details that a gateway attaches: which endorser answered what.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// gRPC code.
    pub code: Code,
    /// The server's text.
    pub message: String,
    /// One entry per node that was asked.
    pub details: Vec<ErrorDetail>,
    /// After which time the server asks to be called again.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// Reads a status; details that cannot be read are left out.
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        let details = rpc::Status::decode(status.details()).map(|status| status.details).unwrap_or_default();
        let is_retry = |any: &&prost_types::Any| any.type_url.ends_with(RETRY_TYPE);
        let exact = status.metadata().get(PUSHBACK).and_then(|value| value.to_str().ok()?.parse().ok());
        let told = || {
            let retry = details.iter().find(is_retry)?;
            let delay = rpc::RetryInfo::decode(retry.value.as_slice()).ok()?.retry_delay?;
            Duration::try_from(delay).ok()
        };
        let retry_after = exact.map(Duration::from_millis).or_else(told);
        // Apart from that the type URL is not looked at, as in Fabric's own clients.
        let details = details
            .iter()
            .filter(|any| !is_retry(any))
            .filter_map(|any| ErrorDetail::decode(any.value.as_slice()).ok())
            .collect();
        Self { code: status.code(), message: status.message().to_owned(), details, retry_after }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", code_name(self.code), self.message)?;
        for detail in &self.details {
            write!(formatter, "\n  {} ({}): {}", detail.address, detail.msp_id, detail.message)?;
        }
        Ok(())
    }
}

impl Error {
    pub(crate) fn refused(call: &'static str, status: &Status) -> Self {
        Self::Refused { call, refusal: Box::new(Refusal::from_status(status)) }
    }

    pub(crate) fn malformed(call: &'static str, reason: impl fmt::Display) -> Self {
        Self::Malformed { call, reason: reason.to_string() }
    }

    /// The gateway's details, if this is a refusal that carries some.
    #[must_use]
    pub fn details(&self) -> &[ErrorDetail] {
        match self {
            Self::Refused { refusal, .. } => &refusal.details,
            _ => &[],
        }
    }

    /// After which time the server asks to be called again, if it did.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { refusal, .. } => refusal.retry_after,
            _ => None,
        }
    }

    /// Whether trying again a moment later may succeed: the node was not reachable or not ready.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Unreachable { .. } => true,
            Self::Refused { refusal, .. } => {
                matches!(refusal.code, Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted)
            }
            Self::Delivery { status, .. } | Self::Ordering { status, .. } => status == "SERVICE_UNAVAILABLE",
            Self::RestRefused { status, .. } => *status == 503,
            _ => false,
        }
    }

    /// Whether a transaction that was submitted in vain was certainly not ordered: each orderer said so, or could not be connected to.
    pub(crate) fn was_never_taken(&self) -> bool {
        let never = |detail: &ErrorDetail| NEVER_TAKEN.iter().any(|text| detail.message.contains(text));
        !self.details().is_empty() && self.details().iter().all(never)
    }
}

/// What a status of the deliver protocol, which has no text for it, stands for.
fn delivery_remedy(status: &str) -> &'static str {
    match status {
        "FORBIDDEN" => {
            " (the certificate has expired, is revoked, or does not satisfy the channel's policy of readers; requests for blocks carry a \
             certificate, also of who has an entry in the table of identities)"
        }
        "NOT_FOUND" => " (the node has not joined the channel, or there is no such block)",
        _ => "",
    }
}

/// The innermost cause; a transport error says only "transport error" itself.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The name of a gRPC code as the gRPC documentation writes it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// What a validation code means, in words for the person who submitted the transaction.
#[must_use]
pub fn explain(code: TxValidationCode) -> &'static str {
    match code {
        TxValidationCode::Valid => "the transaction is valid",
        TxValidationCode::EndorsementPolicyFailure => {
            "its endorsements do not satisfy the endorsement policy of the chaincode"
        }
        TxValidationCode::MvccReadConflict => {
            "a key that it read was changed by another transaction in the meantime; submit it again"
        }
        TxValidationCode::PhantomReadConflict => {
            "a range that it read was changed by another transaction in the meantime; submit it again"
        }
        TxValidationCode::DuplicateTxid => "a transaction with this id is already in the ledger",
        TxValidationCode::BadCreatorSignature => "the submitter's signature or identity does not hold",
        TxValidationCode::BadProposalTxid => "its id was not computed from its nonce and creator",
        TxValidationCode::InvalidChaincode | TxValidationCode::ExpiredChaincode => {
            "the chaincode's definition was changed after it was endorsed; submit it again"
        }
        TxValidationCode::IllegalWriteset | TxValidationCode::InvalidWriteset => {
            "it writes to a namespace that it must not write to"
        }
        TxValidationCode::InvalidConfigTransaction => {
            "the configuration update is not authorised or not valid"
        }
        _ => "the transaction is malformed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateways_details_are_part_of_the_text() {
        let detail = ErrorDetail {
            address: "peer0.org2.example.com:9051".into(),
            msp_id: "Org2MSP".into(),
            message: "chaincode response 500, the asset asset1 already exists".into(),
        };
        let any = prost_types::Any {
            type_url: "type.googleapis.com/gateway.ErrorDetail".into(),
            value: detail.encode_to_vec(),
        };
        let status = rpc::Status { code: 10, message: "failed".into(), details: vec![any] };
        let status = Status::with_details(Code::Aborted, "failed", status.encode_to_vec().into());
        let error = Error::refused("endorse", &status);
        let text = error.to_string();
        assert!(
            text.starts_with("endorse: ABORTED: failed\n  peer0.org2.example.com:9051 (Org2MSP): "),
            "{text}"
        );
        assert!(text.ends_with("already exists"), "{text}");
        assert_eq!(error.details().len(), 1);
    }

    #[test]
    fn a_busy_server_says_when_to_come_back() {
        let delay = prost_types::Duration { seconds: 2, nanos: 0 };
        let retry = rpc::RetryInfo { retry_delay: Some(delay) };
        let any = prost_types::Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".into(),
            value: retry.encode_to_vec(),
        };
        let details = rpc::Status { code: 8, message: "busy".into(), details: vec![any] };
        let mut status =
            Status::with_details(Code::ResourceExhausted, "busy", details.encode_to_vec().into());
        let error = Error::refused("evaluate", &status);
        assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
        assert!(error.is_transient() && error.details().is_empty());
        status.metadata_mut().insert(PUSHBACK, 150.into());
        assert_eq!(Error::refused("evaluate", &status).retry_after(), Some(Duration::from_millis(150)));
    }

    #[test]
    fn details_that_cannot_be_read_are_left_out() {
        let status = Status::with_details(Code::Unknown, "odd", bytes::Bytes::from_static(b"\xff\xff"));
        assert!(Refusal::from_status(&status).details.is_empty());
    }

    #[test]
    fn an_invalid_transaction_names_code_and_block() {
        let code = TxValidationCode::EndorsementPolicyFailure;
        let text = Error::Invalid { tx_id: "ab12".into(), code, block: 7 }.to_string();
        assert!(text.contains("ab12") && text.contains("block 7"), "{text}");
        assert!(text.contains("ENDORSEMENT_POLICY_FAILURE (10)"), "{text}");
    }
}
