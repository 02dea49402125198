//! The audit log; Consort's own path.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Api;
use super::incoming::Incoming;
use super::listing::stream;
use crate::error::{ApiError, Code};
use crate::registry::AuditEntry;

pub(super) async fn list(State(api): State<Arc<Api>>, incoming: Incoming) -> Result<Response, ApiError> {
    let authority = api.addressed(&incoming)?;
    let after = match incoming.parameter("after").filter(|text| !text.is_empty()) {
        None => 0,
        Some(text) => text.parse::<i64>().map_err(|_| {
            ApiError::bad_request(Code::BadBody, "'after' is the number of a row of the audit log")
        })?,
    };
    api.run_as_caller(incoming, |authority, caller, _| authority.may_read_audit(caller)).await?;
    stream(api, authority, "entries", after, |authority, after| {
        let (page, next) = authority.audit_page(*after)?;
        Ok((page.iter().map(described).collect(), next))
    })
    .await
}

fn described(entry: &AuditEntry) -> Value {
    let at = OffsetDateTime::from_unix_timestamp(entry.at).ok().and_then(|at| at.format(&Rfc3339).ok());
    json!({
        "number": entry.number,
        "at": at,
        "caller": entry.caller,
        "action": entry.action.word(),
        "id": entry.id,
        "serial": entry.serial,
        "aki": entry.aki,
        "detail": entry.detail,
    })
}
