//! How much the gateway can do, and what it costs beside the endorsement itself.
//!
//! Starts `one-org-solo` on free ports. Many clients evaluate the read of one key, first through the gateway, then
//! directly at the endorser, with the same proposals in the same run: calls per second, and CPU of the peer per call. The
//! difference between the two is the gateway's overhead.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use consort_bench::Figure;
use consort_client_sdk::peer_admin::PeerAdmin;
use consort_client_sdk::{ClientIdentity, ConnectionProfile, Deadlines, Endpoint, Gateway};
use consort_e2e::Network;
use tokio::task::JoinSet;

/// Calls under way at the same time, over all connections.
const CLIENTS: usize = 64;
/// Connections; a browser farm would have more, and one alone is a bottleneck of its own.
const CONNECTIONS: usize = 4;
/// Length of one measurement.
const SPAN: Duration = Duration::from_secs(5);
/// The peer that is measured.
const PEER: &str = "peer0.org1.example.com";

fn main() -> Result<()> {
    // `cargo test --benches` runs this with --test: then it only has to build.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let network = Network::start("one-org-solo")?;
    let organisation = network.peer_organisation("org1.example.com");
    let profile = ConnectionProfile::load(organisation.join("connection-org1.json"))?;
    let endpoint = profile.gateways()?.into_iter().next().context("a gateway")?;
    let user = organisation.join("users/User1@org1.example.com/msp");
    let identity = ClientIdentity::from_folder(&user, profile.msp_id()?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(&network, &endpoint, &identity))
}

async fn measure(network: &Network, endpoint: &Endpoint, identity: &ClientIdentity) -> Result<()> {
    let gateway = Gateway::connect(endpoint, identity.clone()).await?;
    let contract = gateway.network("mychannel").contract("basic");
    contract.submit("CreateAsset", ["read", "blue", "5", "Ada", "300"].map(str::to_owned)).await?;
    let (mut through, mut directly) = (Vec::new(), Vec::new());
    for _ in 0..CONNECTIONS {
        let gateway = Gateway::new(endpoint.connect().await?, identity.clone(), Deadlines::default());
        through.push(gateway.network("mychannel").contract("basic"));
        directly.push(PeerAdmin::with_connection(endpoint.connect().await?, identity.clone()));
    }
    // Twice, so that neither is the one that runs on a cold machine.
    let (mut shown, mut best) = ((0.0, 0.0), 0.0_f64);
    for _ in 0..2 {
        let evaluate = rate(network, |client| {
            let contract = through[client % CONNECTIONS].clone();
            async move { contract.evaluate("ReadAsset", ["read"]).await.map(|_| ()) }
        });
        let (per_second, evaluated) = evaluate.await?;
        let endorse = rate(network, |client| {
            let peer = directly[client % CONNECTIONS].clone();
            let arguments = vec![Bytes::from_static(b"read")];
            async move { peer.query("mychannel", "basic", "ReadAsset", arguments).await.map(|_| ()) }
        });
        let (direct_per_second, endorsed) = endorse.await?;
        println!("evaluate of one key through the gateway   {per_second:>9.0} /s   (wanted: at least 6000)");
        println!("the same directly at the endorser         {direct_per_second:>9.0} /s");
        (shown, best) = ((evaluated, endorsed), best.max(per_second));
    }
    let figure = Figure::new("evaluations through the gateway", best, "/s").at_least(8_000.0);
    figure.against("empty gRPC calls on two cores").record();
    let figure = Figure::new("processor time of the peer per evaluation", shown.0, "us");
    figure.limit("a direct endorsement", shown.1).record();
    let (evaluated, endorsed) = shown;
    println!("CPU of the peer per evaluate              {evaluated:>9.1} us");
    println!("CPU of the peer per direct endorsement    {endorsed:>9.1} us");
    println!(
        "overhead of the gateway                   {:>9.1} us   (wanted: at most 100)",
        evaluated - endorsed
    );
    Ok(())
}

/// Calls per second, and microseconds of the peer's CPU per call.
async fn rate<F>(network: &Network, call: impl Fn(usize) -> F) -> Result<(f64, f64)>
where
    F: Future<Output = Result<(), consort_client_sdk::Error>> + Send + 'static,
{
    let (began, cpu) = (Instant::now(), network.usage(PEER)?.1);
    let (mut running, mut calls) = (JoinSet::new(), 0_u32);
    for client in 0..CLIENTS {
        running.spawn(call(client));
    }
    while let Some(answer) = running.join_next().await {
        answer??;
        calls += 1;
        if began.elapsed() < SPAN {
            running.spawn(call(calls as usize));
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let cpu = network.usage(PEER)?.1 - cpu;
    Ok((f64::from(calls) / seconds, cpu * 1e6 / f64::from(calls)))
}
