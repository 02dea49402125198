//! A request as the handlers see it: read whole, within limits, before anything is judged.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, OriginalUri, Query};
use axum::http::{Request, StatusCode, header};
use serde::de::DeserializeOwned;

use crate::authority::{Authority, Caller};
use crate::error::{ApiError, Code};
use crate::request::JsonBody;

/// Largest body: a signing request with a hundred large attributes stays far below.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Time for a body to arrive; who sends it drop by drop holds a connection.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// One request.
pub(crate) struct Incoming {
    method: String,
    /// Path and query exactly as on the request line: tokens are signed over them.
    uri: String,
    authorization: Option<String>,
    query: HashMap<String, String>,
    body: Bytes,
}

impl<S: Send + Sync> FromRequest<S> for Incoming {
    type Rejection = ApiError;

    async fn from_request(request: Request<Body>, state: &S) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let Ok(OriginalUri(uri)) = OriginalUri::from_request_parts(&mut parts, state).await;
        let Query(query) = Query::try_from_uri(&uri)
            .map_err(|error| ApiError::bad_request(Code::BadBody, error.to_string()))?;
        let told = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        if told.and_then(|told| told.parse::<u64>().ok()).is_some_and(|told| told > BODY_BYTES_MAX as u64) {
            return Err(too_large());
        }
        let authorization = parts.headers.get(header::AUTHORIZATION);
        let authorization = authorization.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let too_slow = |_| {
            let message = "the body did not arrive within 30 s";
            ApiError::new(StatusCode::REQUEST_TIMEOUT, Code::BadBody, message)
        };
        let body = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_BYTES_MAX)).await;
        Ok(Self {
            method: parts.method.to_string(),
            uri: uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
            authorization,
            query,
            body: body.map_err(too_slow)?.map_err(|_| too_large())?,
        })
    }
}

impl Incoming {
    /// The `Authorization` header.
    pub(crate) fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }

    /// A parameter of the query.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// Whether a parameter of the query is set and true.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.parameter(name)
            .is_some_and(|value| matches!(value, "" | "1" | "t" | "T" | "true" | "True" | "TRUE"))
    }

    /// Verifies who sent the request.
    pub(crate) fn caller(&self, authority: &Authority, may_be_expired: bool) -> Result<Caller, ApiError> {
        authority.authenticate(self.authorization(), &self.method, &self.uri, &self.body, may_be_expired)
    }

    /// The authority that the request names, if it names one: by the query, else by the body.
    pub(crate) fn ca_name(&self) -> Option<String> {
        let in_body = || JsonBody::parse(&self.body).ok().and_then(|body| body.ca_name());
        self.parameter("ca").filter(|name| !name.is_empty()).map(str::to_owned).or_else(in_body)
    }

    /// The body as what the endpoint takes.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        JsonBody::parse(&self.body)?.read()
    }
}

fn too_large() -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, Code::BadBody, "the body is larger than 1 MiB")
}
