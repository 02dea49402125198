//! `consort chaincode inspect`: what a component is, before it is installed.

use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use consort_chaincode_runtime::memory::{Books, MemoryHost};
use consort_chaincode_runtime::{Allowance, Creator, TransactionContext, bounds};
use consort_crypto::hash::sha256;
use serde_json::{Value, json};
use wit_component::DecodedWasm;

use super::local::{ComponentOptions, LocalSandbox};
use crate::output::Output;

/// The function by which a contract describes itself (Fabric's contract interfaces).
const GET_METADATA: &str = "org.hyperledger.fabric:GetMetadata";

#[derive(Debug, Args)]
pub(crate) struct InspectOptions {
    #[command(flatten)]
    component: ComponentOptions,

    #[command(flatten)]
    output: Output,
}

/// What a component takes from outside and gives.
#[derive(Debug, PartialEq, Eq)]
struct Interface {
    imports: Vec<String>,
    exports: Vec<String>,
}

/// Shows size, hash, imports, exports, whether peers would install it, and the contract's functions.
///
/// # Errors
/// The file is no component.
pub(crate) async fn run(options: &InspectOptions) -> anyhow::Result<()> {
    let component = options.component.load().await?;
    bounds::check(&component).context("this is no component that a peer compiles")?;
    let interface = interface(&component)?;
    let sandbox = LocalSandbox::new(&component, Allowance::default());
    let (installable, metadata) = match &sandbox {
        Ok(sandbox) => (None, metadata(sandbox).await),
        Err(error) => (Some(format!("{error:#}")), None),
    };
    let functions = metadata.as_ref().map(functions).unwrap_or_default();
    let hash = hex::encode(sha256(&component));
    let json = json!({
        "bytes": component.len(),
        "sha256": hash,
        "imports": interface.imports,
        "exports": interface.exports,
        "refused_because": installable,
        "metadata": metadata,
    });
    options.output.print(&json, || {
        let mut lines = vec![format!("{} bytes, SHA-256 {hash}", component.len())];
        lines.extend(interface.imports.iter().map(|name| format!("imports {name}")));
        lines.extend(interface.exports.iter().map(|name| format!("exports {name}")));
        lines.push(match &installable {
            None => "peers install it".to_owned(),
            Some(reason) => format!("peers refuse it: {reason}"),
        });
        lines.extend(functions);
        lines.join("\n")
    })
}

fn interface(component: &[u8]) -> anyhow::Result<Interface> {
    let (resolve, world) = match wit_component::decode(component)? {
        DecodedWasm::Component(resolve, world) => (resolve, world),
        DecodedWasm::WitPackage(..) => bail!("this is an interface and no component"),
    };
    let world = &resolve.worlds[world];
    Ok(Interface {
        imports: world.imports.keys().map(|key| resolve.name_world_key(key)).collect(),
        exports: world.exports.keys().map(|key| resolve.name_world_key(key)).collect(),
    })
}

/// What the contract says about itself, if it was written with the SDK.
async fn metadata(sandbox: &LocalSandbox) -> Option<Value> {
    let context = TransactionContext {
        tx_id: "0".repeat(64),
        channel: "local".to_owned(),
        timestamp: prost_types::Timestamp::default(),
        transient: Arc::default(),
        proposal: Bytes::new(),
        signature: Bytes::new(),
        binding: [0; 32],
        peer_msp_id: String::new(),
    };
    let host = Arc::new(MemoryHost::new(context, Creator::default(), Books::default()));
    let execution =
        sandbox.execute("inspected", vec![Bytes::from_static(GET_METADATA.as_bytes())], host).await.ok()?;
    if execution.response.status >= 400 {
        return None;
    }
    serde_json::from_slice(&execution.response.payload).ok()
}

/// A line for each function: `submit AssetTransfer:CreateAsset(id: string, size: integer)`.
fn functions(metadata: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for (contract, content) in metadata["contracts"].as_object().into_iter().flatten() {
        for function in content["transactions"].as_array().into_iter().flatten() {
            let parameters: Vec<String> = function["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|parameter| format!("{}: {}", word(&parameter["name"]), kind(&parameter["schema"])))
                .collect();
            let returns = match &function["returns"] {
                Value::Null => String::new(),
                schema => format!(" -> {}", kind(schema)),
            };
            let tag = word(&function["tag"][0]);
            lines.push(format!(
                "{tag} {contract}:{}({}){returns}",
                word(&function["name"]),
                parameters.join(", ")
            ));
        }
    }
    lines
}

fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return name.to_owned();
    }
    match schema["type"].as_str() {
        Some("array") => format!("[{}]", kind(&schema["items"])),
        Some(kind) => kind.to_owned(),
        None => "any".to_owned(),
    }
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_shown_as_an_author_would_write_them() {
        let metadata = json!({"contracts": {"Assets": {"transactions": [
            {"name": "Create", "tag": ["submit", "SUBMIT"], "parameters": [
                {"name": "id", "schema": {"type": "string"}},
                {"name": "asset", "schema": {"$ref": "#/components/schemas/Asset"}}]},
            {"name": "List", "tag": ["evaluate"], "parameters": [],
                "returns": {"type": "array", "items": {"type": "integer"}}},
        ]}}});
        assert_eq!(
            functions(&metadata),
            ["submit Assets:Create(id: string, asset: Asset)", "evaluate Assets:List() -> [integer]"]
        );
    }
}
