//! The load generator against a network.

use anyhow::Result;
use consort_e2e::Network;

#[test]
fn a_short_load_run_reports_what_was_committed_and_what_it_cost() -> Result<()> {
    let network = Network::start("load")?;
    let short = ["--duration", "2", "--warm-up", "0", "--clients", "8", "--keys", "50"];
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
fn a_load_that_cannot_work_is_refused_before_it_begins() -> Result<()> {
    let network = Network::start("one-org-solo")?;
    let refused = network.consort(&["load", "put"])?.expect_failure()?;
    assert!(refused.contains("chaincode load does not run put loads"), "{refused}");
    let refused = network.consort(&["load", "put", "--chaincode", "basic"])?.expect_failure()?;
    assert!(refused.contains("Put"), "{refused}");
    let refused = network.consort(&["load", "put", "--clients", "0"])?.expect_failure()?;
    assert!(refused.contains("--clients must be between 1 and"), "{refused}");
    Ok(())
}
