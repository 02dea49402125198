//! The REST API: HTTP and JSON around the authorities' operations.
//!
//! Every path is served below `/api/v1` and, as Fabric CA does, without that prefix. Every answer has the envelope
//! `{"result", "errors", "messages", "success"}`. Source: fabric-ca `swagger/swagger-fabric-ca.json`. The path `audit`
//! is Consort's own.

mod affiliations;
mod answer;
mod audit;
mod certificates;
mod identities;
mod incoming;
mod listing;
mod routes;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use consort_node::Clock;
use consort_node::server::RemoteAddress;
use tokio::sync::Semaphore;

use crate::authority::{Authority, Caller};
use crate::error::{ApiError, Code};
use crate::rate::{RateLimiter, subscriber};
use incoming::Incoming;

/// Operations that run at once, per core. More would only hold memory for hashing secrets; the others wait.
const OPERATIONS_PER_CORE: usize = 4;

/// What the handlers share.
pub(crate) struct Api {
    /// The first one answers requests that name none.
    authorities: Vec<Arc<Authority>>,
    places: Semaphore,
    per_address: RateLimiter,
    clock: Arc<dyn Clock>,
}

/// The router of the REST API.
pub(crate) fn router(
    authorities: Vec<Arc<Authority>>,
    per_address: RateLimiter,
    clock: Arc<dyn Clock>,
) -> Router {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let places = Semaphore::new(cores * OPERATIONS_PER_CORE);
    let api = Arc::new(Api { authorities, places, per_address, clock });
    let paths = paths();
    Router::new()
        .merge(paths.clone())
        .nest("/api/v1", paths)
        .fallback(routes::no_such_path)
        .layer(middleware::from_fn_with_state(Arc::clone(&api), limited))
        .with_state(api)
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
        .route("/audit", get(audit::list))
        .route("/idemix/credential", post(routes::no_idemix))
        .route("/idemix/cri", post(routes::no_idemix))
        .method_not_allowed_fallback(routes::method_not_allowed)
}

/// Refuses an address that asks too often, before anything of the request is read.
async fn limited(State(api): State<Arc<Api>>, request: Request<Body>, next: Next) -> Response {
    if let Some(RemoteAddress(remote)) = request.extensions().get()
        && !api.per_address.allows(subscriber(remote.ip()), api.clock.monotonic())
    {
        return ApiError::too_many_requests().into_response();
    }
    next.run(request).await
}

impl Api {
    /// The authority that the request is for: the one it names by the query, else by the body, else the first.
    pub(crate) fn addressed(&self, incoming: &Incoming) -> Result<Arc<Authority>, ApiError> {
        let found = match incoming.ca_name() {
            None => self.authorities.first(),
            Some(name) => {
                let named = self.authorities.iter().find(|authority| authority.name() == name);
                if named.is_none() {
                    let shown: String = name.chars().take(64).collect();
                    let message = format!("CA '{shown}' does not exist");
                    return Err(ApiError::not_found(Code::CaNotFound, message));
                }
                named
            }
        };
        found.map(Arc::clone).ok_or_else(|| ApiError::internal(Code::Unknown, "there is no authority"))
    }

    /// Runs an operation off the async threads: it hashes, signs and waits for the disk.
    pub(crate) async fn run<T, F>(&self, authority: &Arc<Authority>, operation: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&Authority) -> Result<T, ApiError> + Send + 'static,
    {
        let closed = |detail: String| ApiError::internal(Code::Unknown, detail);
        let _place = self.places.acquire().await.map_err(|error| closed(error.to_string()))?;
        let authority = Arc::clone(authority);
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
        let authority = self.addressed(&incoming)?;
        self.run(&authority, move |authority| {
            let caller = incoming.caller(authority, false)?;
            operation(authority, &caller, incoming)
        })
        .await
    }
}
