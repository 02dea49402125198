//! The program as people call it: help, wrong input, exit codes.

use std::path::Path;
use std::process::{Command, Output};

fn consort(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_consort"))
        .args(arguments)
        .env_remove("CONSORT_NETWORK")
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .output()
        .expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn help_lists_the_nouns_and_how_to_begin() {
    let output = consort(&["--help"]);
    let help = text(&output.stdout);
    assert!(output.status.success());
    for noun in ["network", "chaincode", "tx", "channel", "block", "config", "context", "completion"] {
        assert!(help.contains(&format!("\n  {noun} ")), "{help}");
    }
    assert!(help.contains("consort network up --config network-configs/two-org-raft"), "{help}");
    assert!(!help.contains("detach"), "a hidden command shows in\n{help}");
}

#[test]
fn every_noun_lists_its_verbs() {
    for (noun, verbs) in [
        ("network", &["up", "down", "status", "logs", "clean", "demo"][..]),
        ("chaincode", &["build", "package", "install", "approve", "commit", "deploy", "query"][..]),
        ("tx", &["submit", "evaluate", "explain", "watch"][..]),
        ("channel", &["list", "info", "join", "fetch", "create", "plan", "sign", "apply"][..]),
        ("block", &["show"][..]),
        ("config", &["decode", "encode", "compute-update"][..]),
        ("sealed", &["whoami", "proxies", "domain", "seal", "grant", "read", "open", "revoke", "audit"][..]),
        ("context", &["list", "set", "use", "remove"][..]),
    ] {
        let help = text(&consort(&[noun, "--help"]).stdout);
        for verb in verbs {
            assert!(help.contains(&format!("\n  {verb} ")), "{noun} {verb} is missing in\n{help}");
        }
    }
}

#[test]
fn submit_shows_an_example() {
    let help = text(&consort(&["tx", "submit", "--help"]).stdout);
    assert!(help.contains("consort tx submit basic CreateAsset asset7"), "{help}");
    assert!(help.contains("--as <USER@DOMAIN>"), "{help}");
}

#[test]
fn a_wrong_topology_is_refused_with_every_fault_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("network.yaml"), "name: x\nchannel: { name: Big }\n").unwrap();
    let data = folder.path().join("data");
    let output = consort(&[
        "network",
        "up",
        "--config",
        &folder.path().display().to_string(),
        "--data",
        &data.display().to_string(),
    ]);
    let message = text(&output.stderr);
    assert!(!output.status.success());
    assert!(message.starts_with("error: the topology has 3 faults:"), "{message}");
    assert!(message.contains("network.yaml:2: name 'Big' must be small letters"), "{message}");
    assert!(message.contains("the network has no orderers"), "{message}");
    assert!(!data.exists());
}

#[test]
fn a_missing_network_is_answered_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_consort"))
        .args(["tx", "evaluate", "basic", "GetAllAssets"])
        .env_remove("CONSORT_NETWORK")
        .current_dir(folder.path())
        .output()
        .unwrap();
    let message = text(&output.stderr);
    assert!(!output.status.success());
    assert!(message.contains("Remedy: start one with `consort network up"), "{message}");
}

#[test]
fn down_without_a_network_has_nothing_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../network-configs/one-org-solo");
    let data = folder.path().join("none");
    let paths = [config.display().to_string(), data.display().to_string()];
    let output = consort(&["network", "down", "--config", &paths[0], "--data", &paths[1]]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("nothing to stop"));
}

#[test]
fn a_detached_program_leads_a_session_of_its_own() {
    let output = consort(&["detach", "--", "/bin/cat", "/proc/self/stat"]);
    let stat = text(&output.stdout);
    let after_name = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap();
    let pid = stat.split(' ').next().unwrap();
    // proc(5): the fourth field after the name is the session.
    assert_eq!(after_name.split_ascii_whitespace().nth(3), Some(pid), "{stat}");
}

#[test]
fn a_context_is_made_used_and_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_consort"))
            .args(arguments)
            .env("CONSORT_CONFIG", folder.path().join("consort.toml"))
            .env_remove("CONSORT_NETWORK")
            .current_dir(folder.path())
            .output()
            .unwrap()
    };
    let network = folder.path().join("nowhere").display().to_string();
    let set = ["context", "set", "org1-admin", "--network", &network, "--as", "Admin@org1.example.com"];
    assert!(run(&set).status.success());
    assert!(run(&["context", "use", "org1-admin"]).status.success());
    let listed = text(&run(&["context", "list"]).stdout);
    assert!(listed.contains("*  org1-admin"), "{listed}");
    let used = text(&run(&["tx", "evaluate", "basic", "GetAllAssets"]).stderr);
    assert!(used.contains(&network), "the context's network is not used: {used}");
    assert!(run(&["context", "remove", "org1-admin"]).status.success());
    let unknown = run(&["context", "use", "org1-admin"]);
    assert!(!unknown.status.success());
    assert!(text(&unknown.stderr).contains("Remedy"), "{}", text(&unknown.stderr));
}

#[test]
fn completions_are_printed_for_every_shell() {
    for (shell, sign) in
        [("bash", "complete -F"), ("zsh", "#compdef consort"), ("fish", "complete -c consort")]
    {
        let output = consort(&["completion", shell]);
        assert!(output.status.success());
        assert!(text(&output.stdout).contains(sign), "{shell}");
    }
}

#[test]
fn a_wrong_command_line_has_its_own_exit_code() {
    assert_eq!(consort(&["tx", "evaluate"]).status.code(), Some(2));
    assert_eq!(consort(&["tx", "evaluate", "basic", "x", "--network", "/nowhere"]).status.code(), Some(1));
}

#[test]
fn messages_go_through_json_on_standard_input_and_output() {
    let block =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../protos/tests/golden/fabric-channel/blocks/0000.pb");
    let output =
        consort(&["config", "decode", "--type", "common.Block", "--input", &block.display().to_string()]);
    let json = text(&output.stdout);
    assert!(json.starts_with("{\n\t\"data\": {"), "{}", &json[..200.min(json.len())]);
    assert!(json.contains("\"mod_policy\": \"Admins\""));
    let wrong =
        consort(&["config", "decode", "--type", "common.Blok", "--input", &block.display().to_string()]);
    assert!(text(&wrong.stderr).contains("there is no message type common.Blok"));
}
