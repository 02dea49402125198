//! What a network reaches end to end: two organisations that both endorse, three orderers, TLS, everything on this machine.
//!
//! Starts `load` on free ports and drives it with `consort load`: blind writes by as many clients as saturate it, by a single client, and
//! at half of the rate that was reached; evaluations. `CONSORT_BENCH_LOAD_SECONDS` sets how long the saturation lasts (20; 600 shows
//! whether rate and memory are held).

use anyhow::{Context, Result};
use consort_bench::Figure;
use consort_crypto::key::PrivateKey;
use consort_e2e::Network;
use serde_json::Value;
use std::hint::black_box;
use std::time::Instant;

/// Clients that saturate the network.
const CLIENTS: &str = "256";
/// Signature checks that one write cannot do without: the proposal at both endorsers, the envelope at one orderer, at each of two
/// peers the client's signature and two endorsements, and the request for the status. A peer that meets one again may remember it.
const CHECKS: f64 = 10.0;
/// Signatures of one write: proposal, envelope, status request, two endorsements.
const SIGNATURES: f64 = 5.0;
/// Checks by one key before its table is measured.
const WARM: u32 = 600;
/// Repetitions of a signature or a check.
const ROUNDS: u32 = 2_000;
/// What a committed write waits for at least, as the collected run names it.
const SYNCED: &str = "write and sync of 4 KiB";

fn main() -> Result<()> {
    // `cargo test --benches` runs this with --test: then it only has to build.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let seconds = std::env::var("CONSORT_BENCH_LOAD_SECONDS").unwrap_or_else(|_| "20".to_owned());
    let network = Network::start("load")?;
    let work = signature_work()?;
    let single = run(&network, &["put", "--clients", "1", "--duration", "10", "--warm-up", "2"])?;
    let saturated = run(&network, &["put", "--clients", CLIENTS, "--duration", &seconds])?;
    let reached = number(&saturated["valid_per_second"])?;
    let half = format!("{:.0}", (reached / 2.0).max(1.0));
    let halved = run(&network, &["put", "--rate", &half, "--duration", "15", "--warm-up", "3"])?;
    // As many connections as the empty calls have, which the rate is compared with.
    let evaluate = ["evaluate", "--clients", "64", "--connections", "4", "--duration", "8", "--warm-up", "2"];
    let evaluated = run(&network, &evaluate)?;

    show(
        &Figure::new("put, one client, p50", latency(&single, "p50_ms")?, "ms").at_most(12.0).against(SYNCED),
    );
    show(
        &Figure::new("put, one client, p99", latency(&single, "p99_ms")?, "ms").at_most(40.0).against(SYNCED),
    );
    saturation(&saturated, work)?;
    let figure = Figure::new("put at half of saturation, p50", latency(&halved, "p50_ms")?, "ms");
    show(&figure.against(SYNCED));
    let figure = Figure::new("put at half of saturation, p99", latency(&halved, "p99_ms")?, "ms");
    show(&figure.at_most(150.0).against(SYNCED));
    let figure = Figure::new("evaluate, 64 clients", number(&evaluated["valid_per_second"])?, "/s");
    show(&figure.at_least(8_000.0).against("empty gRPC calls on two cores"));
    Ok(())
}

fn saturation(report: &Value, work: f64) -> Result<()> {
    let rate =
        Figure::new("put at saturation", number(&report["valid_per_second"])?, "tx/s").at_least(1_800.0);
    show(&rate.limit("its signatures and checks alone on two cores", 2e6 / work));
    let all =
        Figure::new("put, processor time of all processes", number(&report["cpu_us_per_transaction"])?, "us");
    show(&all.at_most(1_050.0).limit("its signatures and checks alone", work));
    let latency = latency(report, "p50_ms")?;
    show(&Figure::new("put at saturation, p50", latency, "ms"));
    let processes = report["processes"].as_array().context("the report names no processes")?;
    let mut orderers = (0.0, 0.0_f64);
    for process in processes {
        let name = process["name"].as_str().context("a process has a name")?;
        let cpu = number(&process["cpu_us_per_transaction"])?;
        let memory = number(&process["memory_bytes_max"])? / 1e6;
        if name.starts_with("orderer") {
            orderers = (orderers.0 + cpu, orderers.1.max(memory));
            continue;
        }
        show(&Figure::new(format!("put, processor time of {name}"), cpu, "us"));
        if let Some(disk) = process["disk_bytes_per_transaction"].as_f64() {
            show(&Figure::new(format!("put, memory of {name}"), memory, "MB"));
            show(&Figure::new(format!("put, bytes on the disk of {name}"), disk, "bytes"));
        }
    }
    show(&Figure::new("put, processor time of three orderers", orderers.0, "us"));
    show(&Figure::new("put, memory of an orderer", orderers.1, "MB"));
    Ok(())
}

fn run(network: &Network, arguments: &[&str]) -> Result<Value> {
    let report = network.json(&[&["load"], arguments].concat())?;
    println!("{}", report["setting"].as_str().unwrap_or_default());
    Ok(report)
}

fn latency(report: &Value, percentile: &str) -> Result<f64> {
    number(&report["latencies"][0][percentile])
}

fn number(value: &Value) -> Result<f64> {
    value.as_f64().context("the report of consort load lacks a number")
}

fn show(figure: &Figure) {
    println!("{:<56} {:>10.2} {}", figure.name, figure.value, figure.unit);
    figure.record();
}

/// Microseconds of one processor for a write's signatures and checks and nothing else.
fn signature_work() -> Result<f64> {
    let key = PrivateKey::generate_p256()?;
    let message = [7; 1_000];
    let signature = key.sign(&message)?;
    for _ in 0..WARM {
        key.public_key().verify(&message, &signature)?;
    }
    let start = Instant::now();
    for _ in 0..ROUNDS {
        key.public_key().verify(black_box(&message), &signature)?;
    }
    let check = start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS);
    let start = Instant::now();
    for _ in 0..ROUNDS {
        black_box(key.sign(black_box(&message))?);
    }
    let sign = start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS);
    Ok(CHECKS * check + SIGNATURES * sign)
}
