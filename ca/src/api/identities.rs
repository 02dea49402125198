//! register and identities.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::Api;
use super::answer::{Answer, Outcome};
use super::incoming::Incoming;
use super::listing::stream;
use crate::attributes::Attribute;
use crate::error::ApiError;
use crate::registry::Identity;
use crate::request::RegistrationRequest;

pub(super) async fn register(State(api): State<Arc<Api>>, incoming: Incoming) -> Outcome {
    api.run_as_caller(incoming, |authority, caller, incoming| {
        let request: RegistrationRequest = incoming.read()?;
        let id = request.id.clone();
        let secret = authority.register(caller, request)?;
        Ok(Answer::created(json!({ "secret": secret.reveal() })).at_identity(&id))
    })
    .await
}

pub(super) async fn add(State(api): State<Arc<Api>>, incoming: Incoming) -> Outcome {
    api.run_as_caller(incoming, |authority, caller, incoming| {
        let request: RegistrationRequest = incoming.read()?;
        let id = request.id.clone();
        let secret = authority.register(caller, request)?;
        let mut result = described(&authority.identity(caller, &id)?);
        result["secret"] = json!(secret.reveal());
        result["caname"] = json!(authority.name());
        Ok(Answer::created(result).at_identity(&id))
    })
    .await
}

pub(super) async fn list(State(api): State<Arc<Api>>, incoming: Incoming) -> Result<Response, ApiError> {
    let authority = api.addressed(&incoming)?;
    let caller = api
        .run_as_caller(incoming, |authority, caller, _| {
            authority.may_list_identities(caller)?;
            Ok(caller.clone())
        })
        .await?;
    stream(api, authority, "identities", String::new(), move |authority, after| {
        let (page, next) = authority.identities_page(&caller, after)?;
        Ok((page.iter().map(described).collect(), next))
    })
    .await
}

pub(super) async fn show(State(api): State<Arc<Api>>, Path(id): Path<String>, incoming: Incoming) -> Outcome {
    api.run_as_caller(incoming, move |authority, caller, _| {
        Ok(Answer::ok(with_name(described(&authority.identity(caller, &id)?), authority.name())))
    })
    .await
}

pub(super) async fn modify(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Outcome {
    api.run_as_caller(incoming, move |authority, caller, incoming| {
        let request: RegistrationRequest = incoming.read()?;
        let mut result = described(&authority.modify_identity(caller, &id, &request)?);
        if let Some(secret) = request.secret.filter(|secret| !secret.is_empty()) {
            result["secret"] = json!(secret.reveal());
        }
        Ok(Answer::ok(with_name(result, authority.name())))
    })
    .await
}

pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    incoming: Incoming,
) -> Outcome {
    api.run_as_caller(incoming, move |authority, caller, incoming| {
        let removed = authority.remove_identity(caller, &id, incoming.flag("force"))?;
        Ok(Answer::ok(with_name(described(&removed), authority.name())))
    })
    .await
}

/// An identity as the API shows it; never with its secret.
pub(super) fn described(identity: &Identity) -> Value {
    let attributes: Vec<&Attribute> = identity.attributes.iter().collect();
    json!({
        "id": identity.id,
        "type": identity.kind,
        "affiliation": identity.affiliation.as_str(),
        "attrs": attributes,
        "max_enrollments": identity.max_enrollments,
    })
}

pub(super) fn with_name(mut result: Value, name: &str) -> Value {
    result["caname"] = json!(name);
    result
}
