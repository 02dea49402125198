//! Long listings, streamed page by page, so that a large registry costs little memory.

use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::{Value, json};

use super::Api;
use crate::authority::Authority;
use crate::error::ApiError;

/// What is still to be sent.
enum Rest<Mark> {
    /// These entries, and then what follows the mark.
    Page(Vec<Value>, Option<Mark>),
    /// What follows the mark.
    After(Mark),
    /// Nothing.
    Sent,
}

/// How far the answer is.
struct Sending<Mark> {
    authority: Arc<Authority>,
    rest: Rest<Mark>,
    key: &'static str,
    /// Whether the opening of the envelope was sent.
    started: bool,
    /// Whether an entry was sent, so that the next one follows a comma.
    entries_sent: bool,
}

/// Streams the envelope with the entries of all pages under `key`.
///
/// The first page is read before the answer starts, so that a failure there is still told properly.
pub(super) async fn stream<Mark, F>(
    api: Arc<Api>,
    authority: Arc<Authority>,
    key: &'static str,
    start: Mark,
    page: F,
) -> Result<Response, ApiError>
where
    Mark: Send + 'static,
    F: Fn(&Authority, &Mark) -> Result<(Vec<Value>, Option<Mark>), ApiError> + Send + Sync + 'static,
{
    let page = Arc::new(page);
    let (entries, next) = read(&api, &authority, &page, start).await?;
    let rest = Rest::Page(entries, next);
    let state = Sending { authority, rest, key, started: false, entries_sent: false };
    let parts = stream::unfold(state, move |sending| {
        let (api, page) = (Arc::clone(&api), Arc::clone(&page));
        async move { next_part(&api, &page, sending).await }
    });
    let headers = [(header::CONTENT_TYPE, "application/json")];
    Ok((StatusCode::OK, headers, Body::from_stream(parts)).into_response())
}

type Part<Mark> = Option<(io::Result<Bytes>, Sending<Mark>)>;

async fn next_part<Mark, F>(api: &Arc<Api>, page: &Arc<F>, mut sending: Sending<Mark>) -> Part<Mark>
where
    Mark: Send + 'static,
    F: Fn(&Authority, &Mark) -> Result<(Vec<Value>, Option<Mark>), ApiError> + Send + Sync + 'static,
{
    let (entries, next) = match sending.rest {
        Rest::Sent => return None,
        Rest::Page(entries, next) => (entries, next),
        Rest::After(mark) => match read(api, &sending.authority, page, mark).await {
            Ok(read) => read,
            Err(error) => {
                // The envelope is half sent: only a broken body can still say that something failed.
                sending.rest = Rest::Sent;
                return Some((Err(io::Error::other(error.to_string())), sending));
            }
        },
    };
    let mut text = String::new();
    if !sending.started {
        sending.started = true;
        text = format!("{{\"result\":{{\"{}\":[", sending.key);
    }
    for entry in &entries {
        if sending.entries_sent {
            text.push(',');
        }
        sending.entries_sent = true;
        text.push_str(&entry.to_string());
    }
    sending.rest = next.map_or(Rest::Sent, Rest::After);
    if matches!(sending.rest, Rest::Sent) {
        let name = json!(sending.authority.name());
        text.push_str(&format!("],\"caname\":{name}}},\"errors\":[],\"messages\":[],\"success\":true}}"));
    }
    Some((Ok(Bytes::from(text)), sending))
}

async fn read<Mark, F>(
    api: &Arc<Api>,
    authority: &Arc<Authority>,
    page: &Arc<F>,
    mark: Mark,
) -> Result<(Vec<Value>, Option<Mark>), ApiError>
where
    Mark: Send + 'static,
    F: Fn(&Authority, &Mark) -> Result<(Vec<Value>, Option<Mark>), ApiError> + Send + Sync + 'static,
{
    let page = Arc::clone(page);
    api.run(authority, move |authority| page(authority, &mark)).await
}
