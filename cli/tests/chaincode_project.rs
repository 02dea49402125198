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

/// A chaincode that asks another one, which its tests install: itself, under another name.
const ASKING: &str = r#"
//! Asks another chaincode.
use consort_chaincode_sdk::{Context, Error, contract};

/// The contract.
#[derive(Debug, Default)]
pub struct Asking;

#[contract]
impl Asking {
    /// Leaves a word.
    #[submit]
    fn say(&self, context: &Context<'_>, word: &str) -> Result<(), Error> {
        context.put("word", word.as_bytes())
    }

    /// Lets another chaincode leave a word.
    #[submit]
    fn let_say(&self, context: &Context<'_>, word: &str) -> Result<(), Error> {
        context.call("other", &["Say", word]).map(drop)
    }

    /// The word of another chaincode.
    #[evaluate]
    fn ask(&self, context: &Context<'_>) -> Result<Vec<u8>, Error> {
        context.call("other", &["Word"])
    }

    /// The own word.
    #[evaluate]
    fn word(&self, context: &Context<'_>) -> Result<Vec<u8>, Error> {
        Ok(context.get("word")?.unwrap_or_default())
    }
}

consort_chaincode_sdk::chaincode!(Asking);

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use consort_chaincode_sdk::testing::MemoryLedger;

    use super::*;

    #[test]
    fn another_chaincode_answers() {
        let mut ledger = MemoryLedger::new();
        ledger.install("other", Rc::new(chaincode()));
        ledger.submit(&chaincode(), "LetSay", &["hello"]).unwrap();
        assert_eq!(ledger.value("word"), None);
        assert_eq!(ledger.evaluate(&chaincode(), "Ask", &[]).unwrap(), b"hello");
    }
}
"#;

#[test]
fn other_chaincodes_that_a_test_installs_are_executed_in_the_sandbox_too() {
    let folder = tempfile::tempdir().unwrap();
    if let Err(reason) = Toolchain::detect(folder.path()) {
        eprintln!("skipped, because chaincode cannot be built here: {reason}");
        return;
    }
    succeeds(folder.path(), &["chaincode", "new", "asking"]);
    let project = folder.path().join("asking");
    std::fs::write(project.join("src/lib.rs"), ASKING).unwrap();
    succeeds(&project, &["chaincode", "build", "--path", ".", "--to", "asking.wasm"]);
    let report = |arguments: &[&str]| -> serde_json::Value {
        let all = [&["chaincode", "test", "--output", "json"], arguments].concat();
        let text = succeeds(&project, &all);
        serde_json::from_str(&text[text.find("{\n").unwrap()..]).unwrap()
    };
    let with = report(&["--with", "other=asking.wasm"]);
    assert_eq!(with["native"], serde_json::json!({}));
    let let_say = &with["functions"]["LetSay"];
    assert_eq!(let_say["calls"], 1, "{with}");
    // The call of another chaincode alone costs a mebi of fuel, and both have memory of their own.
    assert!(let_say["fuel_max"].as_u64().unwrap() > 1 << 20, "{with}");
    let alone = with["functions"]["Ask"]["memory_bytes_max"].as_u64().unwrap();
    assert!(alone >= 4 * 65_536, "{with}");

    let without = report(&[]);
    assert_eq!(without["functions"], serde_json::json!({}));
    assert_eq!(without["native"]["other"], 2, "{without}");
    let refused = consort(&project, &["chaincode", "test", "--with", "other"]);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(text.contains("another chaincode has the form name=path"), "{text}");
}
