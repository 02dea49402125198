//! The channel participation API: operators list, join and remove channels, and fetch blocks.
//!
//! Source of paths, bodies and statuses: Fabric `swagger-fabric.json` and `orderer/common/channelparticipation/restapi.go`. Below `/consort` there is what
//! Fabric has not.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, FromRequest as _, Multipart, Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use consort_node::server::MESSAGE_BYTES_MAX;
use consort_protos::{
    block,
    fabric::common::{Block, Envelope},
    ids::{BlockNumber, ChannelId},
};
use prost::Message;
use serde_json::{Value, json};

use crate::{
    broadcast::{outcome, submit},
    consensus::Origin,
    registrar::{Description, Registrar, RegistrarError, Relation, Status},
};

const CHANNELS: &str = "/participation/v1/channels";

/// The API as a router.
pub(crate) fn router(registrar: Arc<Registrar>) -> Router {
    Router::new()
        .route("/participation/v1/", get(|| async { Redirect::to(CHANNELS) }))
        .route(CHANNELS, get(list).post(join).put(update).fallback(|| not_allowed("GET, POST, PUT")))
        .route(
            "/participation/v1/channels/{channel}",
            get(one).delete(remove).fallback(|| not_allowed("GET, DELETE")),
        )
        .route(
            "/participation/v1/channels/{channel}/blocks/{block}",
            get(fetch).fallback(|| not_allowed("GET")),
        )
        .route("/consort/v1/channels/{channel}/recover", post(recover).fallback(|| not_allowed("POST")))
        .layer(DefaultBodyLimit::max(MESSAGE_BYTES_MAX))
        .with_state(registrar)
}

fn error(status: StatusCode, text: impl Into<String>) -> Response {
    (status, Json(json!({ "error": text.into() }))).into_response()
}

async fn not_allowed(allowed: &'static str) -> Response {
    let body = Json(json!({ "error": "invalid request method" }));
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, allowed)], body).into_response()
}

/// The client must be willing to read JSON.
fn accepts_json(headers: &HeaderMap) -> bool {
    let Some(accept) = headers.get(header::ACCEPT) else { return true };
    let accept = accept.to_str().unwrap_or_default();
    let wanted = |kind: &str| {
        matches!(kind.split(';').next().map(str::trim), Some("application/json" | "application/*" | "*/*"))
    };
    accept.is_empty() || accept.split(',').any(wanted)
}

fn url(channel: &str) -> String {
    format!("{CHANNELS}/{channel}")
}

async fn list(State(registrar): State<Arc<Registrar>>, headers: HeaderMap) -> Response {
    if !accepts_json(&headers) {
        return error(StatusCode::NOT_ACCEPTABLE, "response Content-Type is application/json only");
    }
    let channels: Vec<Value> =
        registrar.names().iter().map(|name| json!({ "name": name, "url": url(name) })).collect();
    let channels = if channels.is_empty() { Value::Null } else { channels.into() };
    let body = Json(json!({ "systemChannel": null, "channels": channels }));
    ([(header::CACHE_CONTROL, "no-store")], body).into_response()
}

async fn one(
    State(registrar): State<Arc<Registrar>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    if !accepts_json(&headers) {
        return error(StatusCode::NOT_ACCEPTABLE, "response Content-Type is application/json only");
    }
    if let Err(invalid) = ChannelId::parse(&name) {
        return error(StatusCode::BAD_REQUEST, format!("invalid channel ID: {invalid}"));
    }
    let Some(description) = registrar.describe(&name) else {
        return error(StatusCode::NOT_FOUND, "channel does not exist");
    };
    ([(header::CACHE_CONTROL, "no-store")], Json(in_json(&description))).into_response()
}

/// As Fabric writes it, in its order.
fn in_json(description: &Description) -> Value {
    json!({
        "name": description.name,
        "url": url(&description.name),
        "consensusRelation": match description.relation {
            Relation::Consenter => "consenter",
            Relation::Follower => "follower",
        },
        "status": match description.status {
            Status::Active => "active",
            Status::Onboarding => "onboarding",
            Status::Inactive => "inactive",
            Status::Failed => "failed",
        },
        "height": description.height,
    })
}

async fn join(State(registrar): State<Arc<Registrar>>, request: Request) -> Response {
    let bytes = match the_part(request, "config-block").await {
        Ok(bytes) => bytes,
        Err(refused) => return refused,
    };
    let genesis = match Block::decode(bytes) {
        Ok(block) => block,
        Err(fault) => {
            return error(
                StatusCode::BAD_REQUEST,
                format!("cannot unmarshal file part config-block into a block: {fault}"),
            );
        }
    };
    match registrar.join(&genesis).await {
        Ok(description) => {
            let location = [(header::LOCATION, url(&description.name))];
            (StatusCode::CREATED, location, Json(in_json(&description))).into_response()
        }
        Err(fault @ RegistrarError::Exists) => {
            let body = Json(json!({ "error": fault.to_string() }));
            (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, DELETE")], body).into_response()
        }
        Err(fault @ (RegistrarError::JoinBlock(_) | RegistrarError::Start(_))) => {
            error(StatusCode::BAD_REQUEST, fault.to_string())
        }
        Err(fault @ RegistrarError::PendingRemoval) => {
            error(StatusCode::CONFLICT, format!("cannot join: {fault}"))
        }
        Err(fault) => error(StatusCode::INTERNAL_SERVER_ERROR, fault.to_string()),
    }
}

async fn update(State(registrar): State<Arc<Registrar>>, request: Request) -> Response {
    let bytes = match the_part(request, "config-update-envelope").await {
        Ok(bytes) => bytes,
        Err(refused) => return refused,
    };
    let envelope = match Envelope::decode(bytes) {
        Ok(envelope) => envelope,
        Err(fault) => {
            return error(
                StatusCode::BAD_REQUEST,
                format!("cannot unmarshal file part config-update-envelope into an envelope: {fault}"),
            );
        }
    };
    let result = match submit(&registrar, envelope, Origin::Client).await {
        Ok(receipt) => outcome(receipt).await,
        Err(refusal) => Err(refusal),
    };
    match result {
        Ok(()) => StatusCode::CREATED.into_response(),
        Err(refusal) => {
            let status =
                u16::try_from(refusal.status as i32).ok().and_then(|code| StatusCode::from_u16(code).ok());
            error(status.unwrap_or(StatusCode::BAD_REQUEST), refusal.info)
        }
    }
}

/// The one file part that a request to join or to update must consist of (`multipart/form-data`, RFC 7578).
///
/// The body is read to its end before it is parsed: the parser (multer 3.1, `poll_next_field`) takes a form for cut off whose last byte comes just after it has
/// looked for the first boundary in vain, because it then looks whether the body has ended, and not once more for the boundary.
///
/// # Errors
/// The answer that says what is wrong with the form.
pub async fn the_part(request: Request, name: &str) -> Result<Bytes, Response> {
    let bad = |text: String| error(StatusCode::BAD_REQUEST, text);
    let unread = |text: String| bad(format!("cannot read form from request body: {text}"));
    let (head, body) = request.into_parts();
    let whole = Bytes::from_request(Request::from_parts(head.clone(), body), &()).await;
    let whole = whole.map_err(|rejection| unread(rejection.body_text()))?;
    let parts = Multipart::from_request(Request::from_parts(head, Body::from(whole)), &()).await;
    let mut parts = parts
        .map_err(|rejection| bad(format!("cannot parse a multipart form: {}", rejection.body_text())))?;
    let mut found = None;
    while let Some(part) = parts.next_field().await.map_err(|fault| unread(fault.body_text()))? {
        if part.name() != Some(name) || found.is_some() {
            return Err(bad(format!("form must contain exactly one file part, {name}")));
        }
        found = Some(
            part.bytes()
                .await
                .map_err(|fault| bad(format!("cannot read file part {name}: {}", fault.body_text())))?,
        );
    }
    found.ok_or_else(|| bad(format!("form does not contains part key: {name}")))
}

async fn remove(State(registrar): State<Arc<Registrar>>, Path(name): Path<String>) -> Response {
    match registrar.remove(&name).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(fault @ RegistrarError::Unknown) => error(StatusCode::NOT_FOUND, fault.to_string()),
        Err(fault @ RegistrarError::PendingRemoval) => error(StatusCode::CONFLICT, fault.to_string()),
        Err(fault) => error(StatusCode::INTERNAL_SERVER_ERROR, fault.to_string()),
    }
}

/// Has a channel whose majority has lost its memory go on with this orderer. 200 with the channel; 404; 409 with the reason why not.
async fn recover(State(registrar): State<Arc<Registrar>>, Path(name): Path<String>) -> Response {
    let Some(channel) = registrar.get(&name) else {
        return error(StatusCode::NOT_FOUND, "channel does not exist");
    };
    match (channel.chain().recover().await, registrar.describe(&name)) {
        (Ok(()), Some(description)) => Json(in_json(&description)).into_response(),
        (Ok(()), None) => error(StatusCode::NOT_FOUND, "channel does not exist"),
        (Err(reason), _) => error(StatusCode::CONFLICT, format!("cannot recover: {reason}")),
    }
}

async fn fetch(
    State(registrar): State<Arc<Registrar>>,
    Path((name, which)): Path<(String, String)>,
) -> Response {
    let Some(channel) = registrar.get(&name) else {
        return error(StatusCode::NOT_FOUND, "channel does not exist");
    };
    let store = channel.state().store();
    let number = match which.as_str() {
        "newest" => store.height().saturating_sub(1),
        "oldest" => 0,
        "config" => channel.state().last_config().get(),
        text => match text.parse() {
            Ok(number) => number,
            Err(_) => {
                return error(StatusCode::BAD_REQUEST, format!("invalid block number or name `{text}`"));
            }
        },
    };
    match store.block(BlockNumber::new(number)) {
        Ok(Some(found)) => {
            debug_assert_eq!(block::number(&found).get(), number);
            let headers =
                [(header::CONTENT_TYPE, "application/octet-stream"), (header::CACHE_CONTROL, "no-store")];
            (headers, found.encode_to_vec()).into_response()
        }
        Ok(None) => error(StatusCode::NOT_FOUND, format!("block {number} does not exist")),
        Err(fault) => error(StatusCode::INTERNAL_SERVER_ERROR, fault.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, task::Poll};

    use super::*;

    /// What a busy server sees: nothing at first, and when it looks again the body with its end.
    #[tokio::test]
    async fn a_form_that_comes_late_and_all_at_once_is_whole() {
        let form = "--limit\r\nContent-Disposition: form-data; name=\"config-block\"; filename=\"config.block\"\r\n\r\n\
                    a block\r\n--limit--\r\n";
        let mut looks = 0;
        let late = futures::stream::poll_fn(move |context| {
            looks += 1;
            match looks {
                1 => {
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
                2 => Poll::Ready(Some(Ok::<_, Infallible>(Bytes::from(form)))),
                _ => Poll::Ready(None),
            }
        });
        let request = Request::builder()
            .header(header::CONTENT_TYPE, "multipart/form-data; boundary=limit")
            .body(Body::from_stream(late))
            .unwrap();
        assert_eq!(the_part(request, "config-block").await.unwrap(), "a block");
    }
}
