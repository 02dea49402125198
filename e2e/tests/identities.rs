//! Identities on a running network, with the tool alone: register, enrol, look, revoke, and renew what servers show.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use consort_client_sdk::{ClientIdentity, Endpoint, Gateway};
use consort_e2e::{Network, Outcome, consort};
use serde_json::Value;

/// How long a running server may take to notice new files.
const PATIENCE: Duration = Duration::from_secs(30);

fn run(arguments: &[&str]) -> Result<Outcome> {
    consort(arguments)
}

fn json(arguments: &[&str]) -> Result<Value> {
    let mut all = arguments.to_vec();
    all.extend(["--output", "json"]);
    let text = run(&all)?.expect_success()?;
    serde_json::from_str(&text).with_context(|| format!("not one JSON document: {text}"))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The serial number of the certificate that a server shows to a new connection.
fn shown_serial(port: u16, folder: &Path) -> Result<String> {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-showcerts"])
        .stdin(Stdio::null())
        .output()
        .context("openssl is missing: this test needs it (apt-get install openssl)")?;
    let file = folder.join("shown.pem");
    std::fs::write(&file, output.stdout)?;
    let shown = json(&["identity", "show", &text(&file)])?;
    Ok(shown[0]["serial"].as_str().context("no certificate was shown")?.to_owned())
}

fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !holds()? {
        ensure!(start.elapsed() < PATIENCE, "{what} did not happen within {} s", PATIENCE.as_secs());
        std::thread::park_timeout(Duration::from_millis(100));
    }
    Ok(())
}

fn gateway_endpoint(network: &Network) -> Result<Endpoint> {
    let organisation = network.peer_organisation("org1.example.com");
    let roots = std::fs::read(organisation.join("peers/peer0.org1.example.com/tls/ca.crt"))?;
    let port = network.port(17051);
    let endpoint = Endpoint::new(format!("peer0.org1.example.com:{port}"), roots);
    Ok(endpoint.connect_to(([127, 0, 0, 1], port).into()))
}

/// Evaluates a transaction as the identity in an MSP folder.
fn reads_assets(network: &Network, msp: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let endpoint = gateway_endpoint(network)?;
    let identity = ClientIdentity::from_folder(msp, "Org1MSP")?;
    let assets = runtime.block_on(async {
        let gateway = Gateway::connect(&endpoint, identity).await?;
        gateway.network("mychannel").contract("basic").evaluate("GetAllAssets", Vec::<String>::new()).await
    })?;
    ensure!(!assets.is_empty(), "no answer");
    Ok(())
}

#[test]
fn an_identity_lives_from_its_registration_to_its_revocation() -> Result<()> {
    let network = Network::start("one-org-solo")?;
    let folder = tempfile::tempdir()?;
    let (msp, secret) = (text(&folder.path().join("alice/msp")), folder.path().join("secret"));

    let registered = network.json(&[
        "identity",
        "register",
        "--id",
        "alice",
        "--attribute",
        "role=auditor:ecert",
        "--max-enrollments",
        "2",
    ])?;
    std::fs::write(&secret, registered["secret"].as_str().context("a secret")?)?;
    network
        .consort(&["identity", "enroll", "--id", "alice", "--secret-file", &text(&secret), "--msp", &msp])?
        .expect_success()?;
    let shown = json(&["identity", "show", &msp])?;
    assert_eq!(shown[0]["attributes"]["role"], "auditor", "{shown}");
    assert_eq!(shown[0]["organizational_units"], serde_json::json!(["client"]));
    let words = run(&["identity", "show", &msp])?.expect_success()?;
    assert!(words.contains("for signing, as client") && words.contains("days left"), "{words}");
    let sound = json(&["doctor", "--msp", &msp, "--mspid", "Org1MSP"])?;
    assert_eq!(
        (&sound["ok"], &sound["identity"]["roles"]),
        (&Value::Bool(true), &serde_json::json!(["client"]))
    );

    reads_assets(&network, Path::new(&msp))?;

    let again = run(&["identity", "reenroll", "--network", &text(&network.data()), "--msp", &msp])?
        .expect_success()?;
    assert!(again.contains("alice renewed with a P-256 key"), "{again}");
    let renewed = json(&["identity", "show", &msp])?;
    assert_ne!(renewed[0]["serial"], shown[0]["serial"]);
    let listed = network.json(&["identity", "list", "--id", "alice"])?;
    assert_eq!((&listed[0]["type"], &listed[0]["max_enrollments"]), (&"client".into(), &2.into()));

    let crl = text(&folder.path().join("crl.pem"));
    let revoked =
        network.json(&["identity", "revoke", "--id", "alice", "--reason", "keycompromise", "--crl", &crl])?;
    assert_eq!(revoked["revoked"].as_array().map(Vec::len), Some(2), "{revoked}");
    std::fs::create_dir(Path::new(&msp).join("crls"))?;
    std::fs::copy(&crl, Path::new(&msp).join("crls/crl.pem"))?;
    let sick = run(&["doctor", "--msp", &msp, "--mspid", "Org1MSP"])?.expect_failure()?;
    assert!(sick.contains("signcerts/cert.pem") && sick.contains("revoked"), "{sick}");
    let refused = network
        .consort(&[
            "identity",
            "enroll",
            "--id",
            "alice",
            "--secret-file",
            &text(&secret),
            "--msp",
            &text(&folder.path().join("new")),
        ])?
        .expect_failure()?;
    assert!(refused.contains("code 20"), "{refused}");
    let audit = network.json(&["ca", "audit"])?;
    let last: Vec<&str> = audit
        .as_array()
        .context("rows")?
        .iter()
        .rev()
        .take(3)
        .filter_map(|row| row["action"].as_str())
        .collect();
    assert_eq!(last, ["revoke-certificate", "revoke-certificate", "revoke-identity"]);
    Ok(())
}

#[test]
fn the_authority_is_asked_and_managed() -> Result<()> {
    let network = Network::start("one-org-solo")?;
    let data = text(&network.data());
    let folder = tempfile::tempdir()?;

    let info = network.json(&["ca", "info"])?;
    assert_eq!((&info["name"], info["chain"].as_array().map(Vec::len)), (&"ca-org1".into(), Some(1)));
    let orderers = json(&["ca", "info", "--network", &data, "--org", "example.com"])?;
    assert_eq!(orderers["name"], "ca-orderer");
    run(&["ca", "affiliations", "add", "--network", &data, "org1.sales", "--force"])?.expect_success()?;
    run(&["ca", "affiliations", "rename", "--network", &data, "org1.sales", "org1.trade"])?
        .expect_success()?;
    let tree = run(&["ca", "affiliations", "list", "--network", &data])?.expect_success()?;
    assert_eq!(tree.trim(), "org1\norg1.trade");
    let removal =
        run(&["ca", "affiliations", "remove", "--network", &data, "org1.trade"])?.expect_failure()?;
    assert!(removal.contains("code 61"), "{removal}");
    let peers = json(&[
        "ca",
        "certificates",
        "list",
        "--network",
        &data,
        "--valid",
        "--id",
        "peer0.org1.example.com",
    ])?;
    assert_eq!(peers.as_array().map(Vec::len), Some(2), "one for signing, one for TLS: {peers}");
    let crl = text(&folder.path().join("crl.pem"));
    let list = network.json(&["ca", "gencrl", "--to", &crl])?;
    assert_eq!(list["revoked"], 0);
    assert!(std::fs::read_to_string(&crl)?.contains("BEGIN X509 CRL"));
    let unknown = run(&["ca", "info", "--network", &data, "--org", "nowhere"])?.expect_failure()?;
    assert!(unknown.contains("known are: org1.example.com, example.com"), "{unknown}");
    Ok(())
}

#[test]
fn a_running_peer_takes_over_renewed_certificates_while_connections_go_on() -> Result<()> {
    let network = Network::start("one-org-solo")?;
    let folder = tempfile::tempdir()?;
    let organisation = network.peer_organisation("org1.example.com");
    let peer = organisation.join("peers/peer0.org1.example.com");
    let (cert, key) = (text(&peer.join("tls/server.crt")), text(&peer.join("tls/server.key")));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let user =
        ClientIdentity::from_folder(&organisation.join("users/User1@org1.example.com/msp"), "Org1MSP")?;
    let gateway = runtime.block_on(Gateway::connect(&gateway_endpoint(&network)?, user))?;
    let contract = gateway.network("mychannel").contract("basic");
    let submit = |id: &str| -> Result<()> {
        let arguments = [id, "blue", "5", "Ada", "300"].map(str::to_owned);
        runtime.block_on(contract.submit("CreateAsset", arguments))?;
        Ok(())
    };
    submit("before")?;
    let before = shown_serial(network.port(17051), folder.path())?;

    // TLS: with a new key, in the files that the peer watches.
    network.consort(&["identity", "reenroll", "--cert", &cert, "--key", &key])?.expect_success()?;
    let wanted = json(&["identity", "show", &cert])?[0]["serial"].as_str().context("serial")?.to_owned();
    assert_ne!(wanted, before);
    hang_up(&network, "peer0.org1.example.com")?;
    until("the new TLS certificate", || Ok(shown_serial(network.port(17051), folder.path())? == wanted))?;
    submit("on the old connection")?;

    // The signing identity: endorsements carry the new certificate and still count.
    let msp = text(&peer.join("msp"));
    network.consort(&["identity", "reenroll", "--msp", &msp])?.expect_success()?;
    let signing = json(&["identity", "show", &msp])?[0]["serial"].as_str().context("serial")?.to_owned();
    hang_up(&network, "peer0.org1.example.com")?;
    until("the new signing identity", || Ok(network.metrics(17444)?.contains(&signing)))?;
    submit("endorsed by the new identity")?;
    let metrics = network.metrics(17444)?;
    for usage in ["tls", "signing", "channel"] {
        let named = format!("certificate_expires_in_seconds{{usage=\"{usage}\"");
        assert!(metrics.contains(&named), "{usage}: {metrics}");
    }

    // An orderer is known by its key: the renewed certificate keeps it.
    let orderer =
        network.data().join("organizations/ordererOrganizations/example.com/orderers/orderer.example.com");
    let (cert, key) = (text(&orderer.join("tls/server.crt")), text(&orderer.join("tls/server.key")));
    let renew =
        ["identity", "reenroll", "--org", "example.com", "--cert", &cert, "--key", &key, "--reuse-key"];
    network.consort(&renew)?.expect_success()?;
    let wanted = json(&["identity", "show", &cert])?[0]["serial"].as_str().context("serial")?.to_owned();
    hang_up(&network, "orderer.example.com")?;
    until("the orderer's new certificate", || {
        Ok(shown_serial(network.port(17050), folder.path())? == wanted)
    })?;
    submit("ordered after the renewal")?;
    Ok(())
}

/// SIGHUP: the process looks for new files at once.
fn hang_up(network: &Network, process: &str) -> Result<()> {
    let status = Command::new("kill").args(["-HUP", &network.pid(process)?.to_string()]).status()?;
    ensure!(status.success(), "kill -HUP failed");
    Ok(())
}
