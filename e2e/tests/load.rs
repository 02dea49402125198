//! The load generator against a network.

use anyhow::Result;
use consort_e2e::{Network, consort};

#[test]
fn a_short_load_run_reports_what_was_committed_and_what_it_cost() -> Result<()> {
    let network = Network::start("load")?;
    let short = ["--duration", "2", "--warm-up", "0", "--clients", "8", "--keys", "50", "--range", "20"];
    for workload in ["put", "create", "update", "transfer", "private", "range", "evaluate"] {
        let page = network.data().join(format!("{workload}.html"));
        let page_argument = page.display().to_string();
        let mut arguments = vec!["load", workload, "--html", &page_argument];
        arguments.extend(short);
        let report = network.json(&arguments)?;
        assert!(report["valid"].as_u64().unwrap_or(0) > 0, "{workload}: {report}");
        assert!(report["latencies"][0]["p50_ms"].as_f64().unwrap_or(0.0) > 0.0, "{workload}: {report}");
        let processes = report["processes"].as_array().map_or(0, Vec::len);
        assert_eq!(processes, 6, "five nodes and the generator: {report}");
        assert!(std::fs::read_to_string(page)?.contains("<polyline"), "{workload}: the page draws nothing");
    }
    Ok(())
}

#[test]
fn a_load_run_measures_a_gateway_that_it_knows_by_its_address_alone() -> Result<()> {
    let network = Network::start("load")?;
    let organisation = network.peer_organisation("org1.example.com");
    let (endpoint, address) = (
        format!("peer0.org1.example.com:{}", network.port(7051)),
        format!("127.0.0.1:{}", network.port(7051)),
    );
    let tls = organisation.join("peers/peer0.org1.example.com/tls/ca.crt").display().to_string();
    let user = organisation.join("users/User1@org1.example.com/msp").display().to_string();
    let watched = format!("peer={}={}", network.pid("peer0.org1.example.com")?, network.data().display());
    let refused = format!("peer={}", u32::MAX);
    let outside = |watched: &str| {
        let target = ["--endpoint", &endpoint, "--connect-to", &address, "--tls-ca", &tls];
        let identity = ["--msp", &user, "--msp-id", "Org1MSP", "--watch", watched];
        let rest = ["--duration", "2", "--warm-up", "0", "--clients", "4", "--output", "json"];
        consort(&[&["load", "put"], &target[..], &identity, &rest].concat())
    };
    let report: serde_json::Value = serde_json::from_str(&outside(&watched)?.expect_success()?)?;
    assert!(report["valid"].as_u64().unwrap_or(0) > 0, "{report}");
    assert_eq!(
        report["processes"].as_array().map(Vec::len),
        Some(2),
        "the watched one and the generator: {report}"
    );
    assert!(report["processes"][0]["disk_bytes_per_transaction"].as_f64().unwrap_or(0.0) > 0.0, "{report}");
    let answer = outside(&refused)?.expect_failure()?;
    assert!(answer.contains("runs no process"), "{answer}");
    Ok(())
}

#[test]
fn a_load_that_cannot_work_is_refused_before_it_begins() -> Result<()> {
    let network = Network::start("one-org-solo")?;
    let refused = network.consort(&["load", "put"])?.expect_failure()?;
    assert!(refused.contains("chaincode load does not run put loads"), "{refused}");
    let refused = network.consort(&["load", "put", "--chaincode", "basic"])?.expect_failure()?;
    assert!(refused.contains("Put"), "{refused}");
    let refused = network.consort(&["load", "put", "--clients", "0"])?.expect_failure()?;
    assert!(refused.contains("--clients must be between 1 and"), "{refused}");
    for (workload, option, value, says) in [
        ("range", "--range", "1001", "--range must be between 1 and --keys (1000)"),
        ("update", "--keys", "1", "--keys must be at least 2"),
        ("transfer", "--zipf", "-1", "--zipf must not be negative"),
        ("put", "--rate", "0", "--rate must be above 0"),
        ("create", "--size", "0", "--size must be between 1 and"),
        ("evaluate", "--duration", "0", "--duration must be at least 1 second"),
        ("private", "--connections", "0", "--connections must be between 1 and"),
        ("put", "--watch", "peer", "is not of the form name=pid"),
    ] {
        let option = format!("{option}={value}");
        let refused = network.consort(&["load", workload, &option])?.expect_failure()?;
        assert!(refused.contains(says), "{workload} {option}: {refused}");
    }
    Ok(())
}
