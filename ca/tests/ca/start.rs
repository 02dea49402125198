//! Starting: what is made, what is kept, and what is refused with a remedy.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use consort_ca::server::{self, StartError};
use consort_node::{SystemClock, Tasks};

use crate::serving::{TestCa, configuration};

async fn refused(folder: &std::path::Path) -> StartError {
    let tasks = Tasks::new();
    server::start(&configuration(folder, ""), Arc::new(SystemClock), None, &tasks).await.expect_err("refused")
}

#[tokio::test]
async fn a_restart_keeps_key_certificate_and_identities() {
    let ca = TestCa::start("").await;
    let root = ca.serving.chain_pem.clone();
    let admin = ca.admin().await;
    let data = ca.folder().join("data");
    for key in ["ca-key.pem", "tls-key.pem"] {
        let mode = std::fs::metadata(data.join(key)).expect(key).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    let tls = std::fs::read(data.join("tls-cert.pem")).expect("TLS certificate");

    let ca = ca.restart("").await;

    assert_eq!(ca.serving.chain_pem, root);
    assert_eq!(std::fs::read(data.join("tls-cert.pem")).expect("TLS certificate"), tls);
    assert_eq!(ca.client().identities(&admin).await.expect("the token still counts").len(), 1);
    ca.stop().await;
}

#[tokio::test]
async fn a_key_of_another_certificate_is_refused() {
    let (ca, other) = (TestCa::start("").await, TestCa::start("").await);
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path().join("data");
    std::fs::create_dir(&data).expect("folder");
    std::fs::copy(ca.folder().join("data/ca-cert.pem"), data.join("ca-cert.pem")).expect("copy");
    std::fs::copy(other.folder().join("data/ca-key.pem"), data.join("ca-key.pem")).expect("copy");

    let error = refused(folder.path()).await;

    assert!(matches!(error, StartError::KeyPair { .. }), "{error}");
    assert!(error.to_string().contains("restore both from one backup"), "{error}");
    ca.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_missing_key_is_never_replaced_silently() {
    let ca = TestCa::start("").await;
    let data = ca.folder().join("data");
    let folder = tempfile::tempdir().expect("folder");
    let copy = folder.path().join("data");
    std::fs::create_dir(&copy).expect("folder");
    std::fs::copy(data.join("ca-cert.pem"), copy.join("ca-cert.pem")).expect("copy");
    assert!(matches!(refused(folder.path()).await, StartError::Missing { .. }));

    std::fs::remove_file(copy.join("ca-cert.pem")).expect("remove");
    std::fs::write(copy.join("registry.db"), "").expect("write");
    assert!(matches!(refused(folder.path()).await, StartError::NoKey { .. }));
    ca.stop().await;
}

#[tokio::test]
async fn a_registry_of_another_authority_is_refused() {
    let (ca, other) = (TestCa::start("").await, TestCa::start("").await);
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path().join("data");
    std::fs::create_dir(&data).expect("folder");
    let (from, foreign) = (ca.folder().join("data"), other.folder().join("data"));
    for file in ["ca-cert.pem", "ca-key.pem"] {
        std::fs::copy(from.join(file), data.join(file)).expect("copy");
    }
    let kept = other.folder_after_stop().await;
    std::fs::copy(foreign.join("registry.db"), data.join("registry.db")).expect("copy");
    drop(kept);

    let error = refused(folder.path()).await;

    assert!(error.to_string().contains("belongs to another certificate authority"), "{error}");
    ca.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_named_and_nothing_is_written() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("listener");
    let folder = tempfile::tempdir().expect("folder");
    let mut config = configuration(folder.path(), "");
    config.listen.address = taken.local_addr().expect("address").to_string();

    let error = server::start(&config, Arc::new(SystemClock), None, &Tasks::new()).await.expect_err("in use");

    assert!(error.to_string().contains(&config.listen.address), "{error}");
    assert!(!folder.path().join("data").exists());
}

#[tokio::test]
async fn the_operations_tell_health_and_counts() {
    let ca = TestCa::start("operations: { address: '127.0.0.1:0' }").await;
    ca.admin().await;
    let address = ca.serving.operations.expect("operations");
    let get = async |path: &str| {
        consort_crypto::tls::install_default_provider();
        let url = format!("http://{address}{path}");
        reqwest::get(url).await.expect("answer").text().await.expect("text")
    };

    assert!(get("/healthz").await.contains("OK"));
    assert!(get("/metrics").await.contains("ca_certificates_issued_total 1"));
    assert!(get("/version").await.contains("consort-ca"));
    ca.stop().await;
}

#[test]
fn the_program_refuses_a_wrong_configuration_in_one_line() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("ca.yaml");
    std::fs::write(&path, "listen: { address: '127.0.0.1:0' }\nlisten2: 1\n").expect("write");

    let output = std::process::Command::new(env!("CARGO_BIN_EXE_consort-ca"))
        .arg("--config")
        .arg(&path)
        .output()
        .expect("run");

    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(text.contains("ca.yaml") && text.contains("listen2"), "{text}");
}

#[test]
fn the_program_ends_with_success_when_it_is_told_to() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("ca.yaml");
    let text = include_str!("../../../docs/config/ca.example.yaml");
    let data = folder.path().join("data");
    let text = text
        .replace("data/ca-org1", &data.display().to_string())
        .replace("127.0.0.1:7054", "127.0.0.1:0")
        .replace("127.0.0.1:17054", "127.0.0.1:0");
    std::fs::write(&path, text).expect("write");
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_consort-ca"))
        .arg("--config")
        .arg(&path)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("run");
    let log = std::io::BufReader::new(program.stderr.take().expect("log"));
    let mut lines = std::io::BufRead::lines(log);
    assert!(lines.any(|line| line.is_ok_and(|line| line.contains("certificate authority serves"))));

    let told = std::process::Command::new("kill").arg(program.id().to_string()).status().expect("kill");

    assert!(told.success());
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(program.wait().expect("end").success(), "{rest:?}");
    assert!(!rest.join("").contains("adminpw"));
}
