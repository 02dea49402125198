//! The dependencies between crates point the way that docs/architecture.md draws.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result};
use consort_e2e::repository;

/// What each crate may use of ours; what its uses use is allowed with them.
const ARROWS: &[(&str, &[&str])] = &[
    ("consort-protos", &[]),
    ("consort-crypto", &["consort-protos"]),
    ("consort-msp", &["consort-crypto"]),
    ("consort-channel-config", &["consort-msp"]),
    ("consort-ledger", &["consort-crypto"]),
    ("consort-node", &["consort-channel-config"]),
    ("consort-orderer", &["consort-node", "consort-ledger"]),
    ("consort-peer", &["consort-node", "consort-ledger", "consort-chaincode-runtime"]),
    ("consort-ca", &["consort-node"]),
    ("consort-client-sdk", &["consort-msp"]),
    (
        "consort-cli",
        &["consort-client-sdk", "consort-channel-config", "consort-chaincode-runtime", "consort-ledger"],
    ),
    ("consort-chaincode-runtime", &["consort-crypto"]),
    ("consort-chaincode-macros", &[]),
    ("consort-chaincode-sdk", &["consort-chaincode-macros"]),
    ("basic", &["consort-chaincode-sdk"]),
    ("hashing", &["consort-chaincode-sdk"]),
    ("fungible-token", &["consort-chaincode-sdk"]),
    ("load", &["consort-chaincode-sdk"]),
    ("private-agreement", &["consort-chaincode-sdk"]),
    ("hash-time-lock", &["consort-chaincode-sdk"]),
    ("consort-e2e", &["consort-client-sdk"]),
    ("consort-bench", &[]),
    ("consort-fuzz", &["consort-ca", "consort-cli", "consort-orderer", "consort-peer"]),
];

fn allowed(name: &str, arrows: &BTreeMap<&str, &[&str]>, into: &mut BTreeSet<String>) {
    for next in arrows.get(name).copied().unwrap_or_default() {
        if into.insert((*next).to_owned()) {
            allowed(next, arrows, into);
        }
    }
}

#[test]
fn dependencies_point_one_way() -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(repository())
        .output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let ours: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();

    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().context("a package has a name")?;
        if !arrows.contains_key(name) {
            wrong.push(format!("{name} is not drawn: add it to this test and to docs/architecture.md"));
        }
        let mut may_use = BTreeSet::new();
        allowed(name, &arrows, &mut may_use);
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"].as_str().unwrap_or_default();
            // What only tests use does not ship.
            if ours.contains(used) && dependency["kind"] != "dev" && !may_use.contains(used) {
                wrong.push(format!("{name} uses {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}
