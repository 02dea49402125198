//! The REST API: HTTP and JSON around the authority's operations.
//!
//! Every path is served below `/api/v1` and, as Fabric CA does, without that prefix. Every answer has the envelope
//! `{"result", "errors", "messages", "success"}`. Source: fabric-ca `swagger/swagger-fabric-ca.json`.

mod affiliations;
mod answer;
mod certificates;
mod identities;
mod incoming;
mod listing;
mod routes;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use tokio::sync::Semaphore;

use crate::authority::{Authority, Caller};
use crate::error::{ApiError, Code};
use incoming::Incoming;

/// Operations that run at once, per core. More would only hold memory for hashing secrets; the others wait.
const OPERATIONS_PER_CORE: usize = 4;

/// What the handlers share.
pub(crate) struct Api {
    authority: Arc<Authority>,
    places: Semaphore,
}

/// The router of the REST API.
pub(crate) fn router(authority: Arc<Authority>) -> Router {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let places = Semaphore::new(cores * OPERATIONS_PER_CORE);
    let api = Arc::new(Api { authority, places });
    let paths = paths();
    Router::new().merge(paths.clone()).nest("/api/v1", paths).fallback(routes::no_such_path).with_state(api)
}

fn paths() -> Router<Arc<Api>> {
    Router::new()
        .route("/cainfo", get(routes::information).post(routes::information))
        .route("/enroll", post(routes::enroll))
        .route("/reenroll", post(routes::reenroll))
        .route("/register", post(identities::register))
        .route("/revoke", post(routes::revoke))
        .route("/gencrl", post(routes::generate_crl))
        .route("/identities", get(identities::list).post(identities::add))
        .route("/identities/{id}", get(identities::show).put(identities::modify).delete(identities::remove))
        .route("/affiliations", get(affiliations::list).post(affiliations::add))
        .route(
            "/affiliations/{name}",
            get(affiliations::show).put(affiliations::rename).delete(affiliations::remove),
        )
        .route("/certificates", get(certificates::list))
        .method_not_allowed_fallback(routes::method_not_allowed)
}

impl Api {
    /// Runs an operation off the async threads: it hashes, signs and waits for the disk.
    pub(crate) async fn run<T, F>(&self, operation: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&Authority) -> Result<T, ApiError> + Send + 'static,
    {
        let closed = |detail: String| ApiError::internal(Code::Unknown, detail);
        let _place = self.places.acquire().await.map_err(|error| closed(error.to_string()))?;
        let authority = Arc::clone(&self.authority);
        tokio::task::spawn_blocking(move || operation(&authority))
            .await
            .map_err(|error| closed(format!("the operation ended early: {error}")))?
    }

    /// Runs an operation for the caller that the request's token proves.
    pub(crate) async fn run_as_caller<T, F>(&self, incoming: Incoming, operation: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&Authority, &Caller, Incoming) -> Result<T, ApiError> + Send + 'static,
    {
        self.run(move |authority| {
            let caller = incoming.caller(authority, false)?;
            operation(authority, &caller, incoming)
        })
        .await
    }
}
