//! The operator's view of a process: `/healthz`, `/metrics`, `/version`, `/logspec`.
//!
//! Paths and JSON are those of Fabric's operations service (Fabric documentation, "The Operations Service").

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::format_description::well_known::Rfc3339;

use crate::{
    Clock, Tasks,
    config::{ListenConfig, TlsConfig},
    server::{self, Limits, Listener, ServerError},
    telemetry::{LogHandle, Metrics},
    tls::ServerTls,
};

/// A check that takes longer than this counts as failed: probes give up after a few seconds.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// Where the operations are served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationsConfig {
    /// Address and port, for example `127.0.0.1:9444`.
    pub address: String,
    /// TLS of the listener; without it the operations are plain HTTP, for a scraper on the same machine.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
}

/// One component whose state decides whether the process is healthy.
///
/// Duties of an implementation: answer within [`CHECK_TIMEOUT`], change nothing, name no secret.
#[async_trait]
pub trait HealthCheck: Send + Sync {
    /// The component's name as it stands in the answer.
    fn component(&self) -> String;

    /// `Err` with the reason when the component cannot do its work.
    ///
    /// # Errors
    /// The reason, in words for an operator.
    async fn check(&self) -> Result<(), String>;
}

/// What the operations endpoints show.
#[derive(Clone)]
pub struct Operations {
    /// Name and version of the program, for `/version`.
    pub version: Version,
    /// The process's metrics.
    pub metrics: Metrics,
    /// The log whose filter `/logspec` shows and changes; without it that path answers 404.
    pub log: Option<LogHandle>,
    /// All must pass for `/healthz` to answer 200.
    pub checks: Vec<Arc<dyn HealthCheck>>,
    /// The time that stands in answers.
    pub clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Operations {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Operations").field("version", &self.version).finish_non_exhaustive()
    }
}

/// Name and version of a program.
#[derive(Debug, Clone, Serialize)]
pub struct Version {
    /// The program's name.
    #[serde(rename = "Program")]
    pub program: &'static str,
    /// Its version.
    #[serde(rename = "Version")]
    pub version: &'static str,
}

impl OperationsConfig {
    /// The TLS side of the listener, if it has one.
    ///
    /// # Errors
    /// [`OperationsError::Tls`] names the file that cannot be used.
    pub fn server_tls(&self) -> Result<Option<ServerTls>, OperationsError> {
        Ok(self.tls.as_ref().map(ServerTls::load).transpose()?)
    }

    /// The files with the roots of its clients.
    #[must_use]
    pub fn client_roots(&self) -> &[PathBuf] {
        self.tls.as_ref().map_or(&[], |tls| &tls.client_roots)
    }
}

/// Binds the listener and serves the operations until the tasks are cancelled. `tls` is that of the configuration, see
/// [`OperationsConfig::server_tls`].
///
/// # Errors
/// [`OperationsError`] when the address cannot be used.
pub async fn serve(
    config: &OperationsConfig,
    tls: Option<ServerTls>,
    operations: Operations,
    tasks: &Tasks,
) -> Result<std::net::SocketAddr, OperationsError> {
    let listener = Listener::bind(&ListenConfig::new(config.address.clone())).await?;
    let address = listener.address();
    server::serve(listener, tls, router(operations), Limits::default(), tasks);
    Ok(address)
}

/// The operations could not be served.
#[derive(Debug, thiserror::Error)]
pub enum OperationsError {
    /// The TLS files cannot be used.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// The address cannot be used.
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// The endpoints as a router.
pub fn router(operations: Operations) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .route("/logspec", get(log_filter).put(set_log_filter))
        .with_state(Arc::new(operations))
}

async fn health(State(operations): State<Arc<Operations>>) -> Response {
    let mut failed = Vec::new();
    for check in &operations.checks {
        let outcome = tokio::time::timeout(CHECK_TIMEOUT, check.check()).await;
        let reason = match outcome {
            Ok(Ok(())) => continue,
            Ok(Err(reason)) => reason,
            Err(_elapsed) => format!("no answer within {} s", CHECK_TIMEOUT.as_secs()),
        };
        failed.push(json!({ "component": check.component(), "reason": reason }));
    }
    let time = operations.clock.now().format(&Rfc3339).unwrap_or_default();
    if failed.is_empty() {
        return Json(json!({ "status": "OK", "time": time })).into_response();
    }
    let body = json!({ "status": "Service Unavailable", "time": time, "failed_checks": failed });
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}

async fn metrics(State(operations): State<Arc<Operations>>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], operations.metrics.encode()).into_response()
}

async fn version(State(operations): State<Arc<Operations>>) -> Response {
    Json(operations.version.clone()).into_response()
}

#[derive(Deserialize)]
struct LogSpecification {
    spec: String,
}

async fn log_filter(State(operations): State<Arc<Operations>>) -> Response {
    match &operations.log {
        Some(log) => Json(json!({ "spec": log.filter() })).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn set_log_filter(
    State(operations): State<Arc<Operations>>,
    Json(wanted): Json<LogSpecification>,
) -> Response {
    let Some(log) = &operations.log else {
        return StatusCode::NOT_FOUND.into_response();
    };
    match log.set_filter(&wanted.spec) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, Json(json!({ "error": error.to_string() }))).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        http::Request,
    };
    use tower::ServiceExt;

    use super::*;
    use crate::SystemClock;

    struct Leader(bool);

    #[async_trait]
    impl HealthCheck for Leader {
        fn component(&self) -> String {
            "channel mychannel".into()
        }

        async fn check(&self) -> Result<(), String> {
            if self.0 { Ok(()) } else { Err("no Raft leader".into()) }
        }
    }

    async fn fetch(path: &str, healthy: bool) -> (StatusCode, String) {
        let operations = Operations {
            version: Version { program: "consort-test", version: "0.1.0" },
            metrics: Metrics::new(),
            log: None,
            checks: vec![Arc::new(Leader(healthy))],
            clock: Arc::new(SystemClock),
        };
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(operations).oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 100_000).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn health_names_the_component_that_fails() {
        let (status, body) = fetch("/healthz", true).await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.contains("\"status\":\"OK\""), "{body}");
        let (status, body) = fetch("/healthz", false).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("channel mychannel") && body.contains("no Raft leader"), "{body}");
    }

    #[tokio::test]
    async fn version_and_metrics_are_served() {
        assert!(fetch("/version", true).await.1.contains("\"Version\":\"0.1.0\""));
        assert!(fetch("/metrics", true).await.1.ends_with("# EOF\n"));
        assert_eq!(fetch("/logspec", true).await.0, StatusCode::NOT_FOUND);
    }
}
