//! certificates.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use super::Api;
use super::incoming::Incoming;
use super::listing::stream;
use crate::authority::CertificateQuery;
use crate::error::ApiError;
use crate::registry::CertificateId;

pub(super) async fn list(State(api): State<Arc<Api>>, incoming: Incoming) -> Result<Response, ApiError> {
    let authority = api.addressed(&incoming)?;
    let (caller, filter) = api
        .run_as_caller(incoming, |authority, caller, incoming| {
            let text = |name| incoming.parameter(name).map(str::to_owned);
            let query = CertificateQuery {
                id: text("id"),
                aki: text("aki"),
                serial: text("serial"),
                revoked_start: text("revoked_start"),
                revoked_end: text("revoked_end"),
                expired_start: text("expired_start"),
                expired_end: text("expired_end"),
                notrevoked: incoming.flag("notrevoked"),
                notexpired: incoming.flag("notexpired"),
            };
            let filter = authority.may_list_certificates(caller, &query)?;
            Ok((caller.clone(), filter))
        })
        .await?;
    let start = CertificateId { serial: String::new(), aki: String::new() };
    stream(api, authority, "certs", start, move |authority, after| {
        let (page, next) = authority.certificates_page(&caller, &filter, after)?;
        Ok((page.iter().map(|record| json!({ "PEM": record.pem })).collect(), next))
    })
    .await
}
