//! affiliations.

use std::sync::Arc;

use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::Api;
use super::answer::{Answer, Outcome};
use super::identities::{described, with_name};
use super::incoming::Incoming;
use crate::registry::{AffiliationChange, AffiliationTree, Identity};
use crate::request::AffiliationRequest;

pub(super) async fn list(State(api): State<Arc<Api>>, incoming: Incoming) -> Outcome {
    api.run_as_caller(incoming, |authority, caller, _| {
        let tree = authority.affiliation(caller, None)?;
        Ok(Answer::ok(with_name(drawn(&tree, &[]), authority.name())))
    })
    .await
}

pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    incoming: Incoming,
) -> Outcome {
    api.run_as_caller(incoming, move |authority, caller, _| {
        let tree = authority.affiliation(caller, Some(&name))?;
        Ok(Answer::ok(with_name(drawn(&tree, &[]), authority.name())))
    })
    .await
}

pub(super) async fn add(State(api): State<Arc<Api>>, incoming: Incoming) -> Outcome {
    api.run_as_caller(incoming, |authority, caller, incoming| {
        let request: AffiliationRequest = incoming.read()?;
        let name = authority.add_affiliation(caller, &request.name, incoming.flag("force"))?;
        Ok(Answer::created(json!({ "name": name.as_str(), "caname": authority.name() })))
    })
    .await
}

pub(super) async fn rename(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    incoming: Incoming,
) -> Outcome {
    api.run_as_caller(incoming, move |authority, caller, incoming| {
        let request: AffiliationRequest = incoming.read()?;
        let change = authority.rename_affiliation(caller, &name, &request.name, incoming.flag("force"))?;
        Ok(Answer::ok(with_name(changed(&change), authority.name())))
    })
    .await
}

pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    incoming: Incoming,
) -> Outcome {
    api.run_as_caller(incoming, move |authority, caller, incoming| {
        let change = authority.remove_affiliation(caller, &name, incoming.flag("force"))?;
        Ok(Answer::ok(with_name(changed(&change), authority.name())))
    })
    .await
}

fn changed(change: &AffiliationChange) -> Value {
    drawn(&change.tree, &change.identities)
}

/// A tree as nested objects; depth is bounded by the 16 components of an affiliation.
fn drawn(tree: &AffiliationTree, identities: &[Identity]) -> Value {
    let below: Vec<Value> = tree.children.iter().map(|child| drawn(child, identities)).collect();
    let here = identities.iter().filter(|identity| identity.affiliation == tree.name);
    let here: Vec<Value> = here.map(described).collect();
    json!({ "name": tree.name.as_str(), "affiliations": below, "identities": here })
}
