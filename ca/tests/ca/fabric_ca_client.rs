//! Fabric's published CA client (npm `fabric-ca-client`) makes every call that it offers.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::serving::TestCa;

/// Installs the client below cargo's folder for test data; a second run finds it there.
fn installed() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fabric-ca-client");
    std::fs::create_dir_all(&folder).expect("folder");
    let lock = std::fs::read_to_string(source.join("package-lock.json")).expect("lock file");
    let done = folder.join("installed.lock");
    for file in ["package.json", "package-lock.json", "client.mjs"] {
        std::fs::copy(source.join(file), folder.join(file)).expect(file);
    }
    if std::fs::read_to_string(&done).is_ok_and(|before| before == lock) {
        return folder;
    }
    let output = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(&folder)
        .output()
        .expect("npm is missing: this test needs Node.js 18 or later with npm (apt-get install nodejs npm)");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "npm ci failed; does this machine reach the npm registry?\n{log}");
    std::fs::write(done, lock).expect("write");
    folder
}

#[tokio::test]
async fn every_call_of_fabric_ca_client_is_answered() {
    let ca = TestCa::start("rules: { allow_removal: { identities: true, affiliations: true } }").await;
    let root = ca.folder().join("root.pem");
    std::fs::write(&root, &ca.serving.chain_pem).expect("root");
    let url = format!("https://localhost:{}", ca.serving.address.port());

    let run = tokio::task::spawn_blocking(move || {
        Command::new("node")
            .arg("client.mjs")
            .current_dir(installed())
            .env("CA_URL", url)
            .env("CA_ROOT", root)
            .env("CA_NAME", "ca-org1")
            .env("CA_ID", "admin")
            .env("CA_SECRET", "adminpw")
            .output()
            .expect("node is missing: this test needs Node.js 18 or later (apt-get install nodejs)")
    });
    let output = run.await.expect("run");

    let (out, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{log}");
    ca.stop().await;
}
