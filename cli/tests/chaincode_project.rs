//! A chaincode project from `consort chaincode new` to its tests in the sandbox, with the built program.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

use std::path::Path;
use std::process::{Command, Output};

use consort_cli::chaincode::build::Toolchain;

fn consort(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_consort")).current_dir(folder).args(arguments).output().unwrap()
}

fn succeeds(folder: &Path, arguments: &[&str]) -> String {
    let output = consort(folder, arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}\n{text}\n{errors}");
    text
}

#[test]
fn a_new_project_builds_alike_anywhere_and_passes_its_tests_in_the_sandbox() {
    let folder = tempfile::tempdir().unwrap();
    if let Err(reason) = Toolchain::detect(folder.path()) {
        eprintln!("skipped, because chaincode cannot be built here: {reason}");
        return;
    }
    let (here, elsewhere) = (folder.path().join("land-registry"), folder.path().join("some/where/land"));
    std::fs::create_dir_all(elsewhere.parent().unwrap()).unwrap();
    succeeds(folder.path(), &["chaincode", "new", "land-registry"]);
    succeeds(folder.path(), &["chaincode", "new", "land-registry", "--to", elsewhere.to_str().unwrap()]);
    let again = consort(folder.path(), &["chaincode", "new", "land-registry"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("exists already"));

    // The same sources give the same bytes, wherever they lie.
    for project in [&here, &elsewhere] {
        succeeds(project, &["chaincode", "build", "--path", ".", "--to", "land.wasm"]);
    }
    let component = std::fs::read(here.join("land.wasm")).unwrap();
    assert!(component == std::fs::read(elsewhere.join("land.wasm")).unwrap(), "two folders, two components");
    let secret = folder.path().to_str().unwrap().as_bytes();
    assert!(
        !component.windows(secret.len()).any(|part| part == secret),
        "the component names this machine's folders"
    );

    let shown = succeeds(&here, &["chaincode", "inspect", "--component", "land.wasm"]);
    for line in [
        "imports consort:chaincode/state@1.1.0",
        "exports invoke",
        "peers install it",
        "submit LandRegistry:Create(id: string, description: string)",
        "evaluate LandRegistry:Read(id: string) -> Item",
    ] {
        assert!(shown.lines().any(|found| found == line), "{line} is missing in\n{shown}");
    }

    let invoke = ["chaincode", "invoke", "--local", "--component", "land.wasm", "--state", "state.json"];
    let call = |arguments: &[&str]| consort(&here, &[&invoke[..], arguments].concat());
    assert!(call(&["Create", "1", "a lamp"]).status.success());
    let read = call(&["Read", "1"]);
    let text = String::from_utf8_lossy(&read.stdout);
    assert!(text.starts_with(r#"{"owner":"Org1MSP","description":"a lamp"}"#), "{text}");
    assert!(text.contains("fuel "), "{text}");
    let refused = call(&["Read"]);
    assert!(!refused.status.success());
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(text.contains("Read(id: String) expects 1 argument, but 0 were given"), "{text}");

    let report = succeeds(&here, &["chaincode", "test", "--output", "json"]);
    let report: serde_json::Value = serde_json::from_str(&report[report.find("{\n").unwrap()..]).unwrap();
    let create = &report["functions"]["Create"];
    assert_eq!(create["calls"], 2);
    assert!(create["fuel_max"].as_u64().unwrap() > 10_000, "{create}");
    assert!(create["memory_bytes_max"].as_u64().unwrap() >= 65_536, "{create}");
}
