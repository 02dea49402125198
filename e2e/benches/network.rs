//! What a person waits for, and what an idle network costs.
//!
//! Starts `two-org-raft` on free ports and measures, through the gateway protocol: from `network up` on a built tree to the
//! first committed transaction; submit to commit of a single client; evaluate of one key; memory and CPU of each server
//! at rest. `cargo bench -p consort-e2e` runs it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use consort_bench::Figure;
use consort_client_sdk::{ClientIdentity, Contract, Endpoint, Gateway};
use consort_e2e::Network;

/// Transactions of the single client; enough for a steady 99th percentile.
const TRANSACTIONS: usize = 300;
/// Evaluations of the single client.
const EVALUATIONS: usize = 1_000;
/// How long the idle network is watched, when it has come to rest: the kernel tells processor time in steps of 10 ms, which are 0.02 % of this.
const IDLE: Duration = Duration::from_secs(50);
const COMING_TO_REST: Duration = Duration::from_secs(20);

fn main() -> Result<()> {
    // `cargo test --benches` runs this with --test: then it only has to build.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    // The first start builds the chaincode; a person waits for that once.
    Network::start("two-org-raft")?.down()?;

    let start = Instant::now();
    let network = Network::start("two-org-raft")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let gateway = connect(&network).await?;
        let contract = gateway.network("mychannel").contract("basic");
        create(&contract, "first").await?;
        row("network up to first committed transaction", start.elapsed().as_secs_f64(), "s", Some(15.0));
        latencies(&contract).await
    })?;
    idle(&network)
}

async fn connect(network: &Network) -> Result<Gateway> {
    let organisation = network.peer_organisation("org1.example.com");
    let roots = std::fs::read(organisation.join("peers/peer0.org1.example.com/tls/ca.crt"))?;
    let port = network.port(7051);
    let endpoint = Endpoint::new(format!("peer0.org1.example.com:{port}"), roots)
        .connect_to(([127, 0, 0, 1], port).into());
    let identity =
        ClientIdentity::from_folder(&organisation.join("users/User1@org1.example.com/msp"), "Org1MSP")?;
    Ok(Gateway::connect(&endpoint, identity).await?)
}

async fn create(contract: &Contract, id: &str) -> Result<()> {
    contract.submit("CreateAsset", [id, "blue", "5", "Ada", "300"].map(str::to_owned)).await?;
    Ok(())
}

async fn latencies(contract: &Contract) -> Result<()> {
    for warm_up in 0..20 {
        create(contract, &format!("warm-up-{warm_up}")).await?;
    }
    let mut submits = Vec::with_capacity(TRANSACTIONS);
    for number in 0..TRANSACTIONS {
        let start = Instant::now();
        create(contract, &format!("asset-{number}")).await?;
        submits.push(start.elapsed());
    }
    percentiles("submit to commit, one client", &mut submits, 25.0);

    let mut evaluates = Vec::with_capacity(EVALUATIONS);
    for _ in 0..EVALUATIONS {
        let start = Instant::now();
        contract.evaluate("ReadAsset", ["first"]).await?;
        evaluates.push(start.elapsed());
    }
    percentiles("evaluate of one key, one client", &mut evaluates, f64::MAX);
    Ok(())
}

fn percentiles(name: &str, durations: &mut [Duration], wanted: f64) {
    durations.sort_unstable();
    for percent in [50, 99] {
        let value = durations[(durations.len() * percent / 100).min(durations.len() - 1)];
        row(
            &format!("{name}, p{percent}"),
            value.as_secs_f64() * 1e3,
            "ms",
            (percent == 50 && wanted < f64::MAX).then_some(wanted),
        );
    }
}

fn idle(network: &Network) -> Result<()> {
    let processes = [
        ("peer0.org1.example.com", Some(150.0)),
        ("peer0.org2.example.com", Some(150.0)),
        ("orderer.example.com", Some(100.0)),
        ("orderer2.example.com", Some(100.0)),
        ("orderer3.example.com", Some(100.0)),
        ("ca-org1", None),
    ];
    std::thread::park_timeout(COMING_TO_REST);
    let before: Vec<f64> =
        processes.iter().map(|(name, _)| Ok(network.usage(name)?.1)).collect::<Result<_>>()?;
    std::thread::park_timeout(IDLE);
    for ((name, wanted), before) in processes.iter().zip(before) {
        let (resident, after) = network.usage(name).with_context(|| format!("{name} is gone"))?;
        #[expect(clippy::cast_precision_loss, reason = "memory is far below 2^52 bytes")]
        let megabytes = resident as f64 / 1e6;
        row(&format!("resident memory of idle {name}"), megabytes, "MB", *wanted);
        row(
            &format!("CPU of idle {name}"),
            (after - before) / IDLE.as_secs_f64() * 100.0,
            "% of a core",
            None,
        );
    }
    Ok(())
}

fn row(name: &str, value: f64, unit: &str, at_most: Option<f64>) {
    Figure { at_most, ..Figure::new(name, value, unit) }.record();
    let wanted = at_most.map_or_else(String::new, |most| format!("   (wanted: at most {most})"));
    println!("{name:<50} {value:>9.2} {unit}{wanted}");
}
