//! What a chaincode function answers when it refuses.

use std::fmt;

/// The status of an ordinary failure, as Fabric's shims use it.
const STATUS_FAILURE: u32 = 500;

/// A refusal: the client sees the message, the transaction is not endorsed.
///
/// Anything that can be shown turns into one with `?` where that is unambiguous: texts and JSON faults do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    status: u32,
    message: String,
}

impl Error {
    /// A refusal with status 500.
    pub fn new(message: impl Into<String>) -> Self {
        Self { status: STATUS_FAILURE, message: message.into() }
    }

    /// A refusal with a status of its own.
    ///
    /// A status from 400 to 499 says that the request was at fault; 500 and above that the execution failed. A
    /// status below 400 would be a success and is raised to 500.
    pub fn with_status(status: u32, message: impl Into<String>) -> Self {
        let status = if status < 400 { STATUS_FAILURE } else { status };
        Self { status, message: message.into() }
    }

    /// The status of the response, at least 400.
    #[must_use]
    pub const fn status(&self) -> u32 {
        self.status
    }

    /// The text that the client sees.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

impl From<&str> for Error {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::new(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_never_carries_the_status_of_a_success() {
        assert_eq!(Error::with_status(200, "no").status(), 500);
        assert_eq!(Error::with_status(404, "no").status(), 404);
    }
}
