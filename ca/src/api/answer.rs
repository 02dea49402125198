//! What every answer looks like.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::{HeaderValue, LOCATION, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::error::ApiError;

/// A successful answer.
pub(crate) struct Answer {
    status: StatusCode,
    result: Value,
    location: Option<String>,
}

/// What a handler returns.
pub(crate) type Outcome = Result<Answer, ApiError>;

impl Answer {
    /// Status 200.
    pub(crate) fn ok(result: Value) -> Self {
        Self { status: StatusCode::OK, result, location: None }
    }

    /// Status 201.
    pub(crate) fn created(result: Value) -> Self {
        Self { status: StatusCode::CREATED, result, location: None }
    }

    /// Names where the created identity is found.
    pub(crate) fn at_identity(mut self, id: &str) -> Self {
        self.location = Some(format!("/api/v1/identities/{}", percent_encoded(id)));
        self
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let envelope = json!({ "result": self.result, "errors": [], "messages": [], "success": true });
        let mut response = (self.status, Json(envelope)).into_response();
        if let Some(location) = self.location.and_then(|text| HeaderValue::try_from(text).ok()) {
            response.headers_mut().insert(LOCATION, location);
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (code, detail) = (self.local_code(), self.detail().unwrap_or_default());
        if self.status().is_server_error() {
            warn!(code, message = self.message(), detail, "request failed");
        } else {
            info!(code, message = self.message(), detail, "request refused");
        }
        let error = json!({ "code": self.code(), "message": self.message() });
        let envelope = json!({ "result": "", "errors": [error], "messages": [], "success": false });
        let mut response = (self.status(), Json(envelope)).into_response();
        if self.status() == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// A text as one segment of a path (RFC 3986, section 2).
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_escaped() {
        assert_eq!(percent_encoded("User1@org1 é"), "User1%40org1%20%C3%A9");
    }
}
