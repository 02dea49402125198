//! From the decision to grant a record to the opened record, on an idle network.
//!
//! Starts `hospital` on free ports: an owner grants by two of three proxies, the reader requests and opens.
//! `cargo bench -p consort-e2e --bench sealed_reading` runs it; beside it one plain transaction of the same network.

use std::time::{Duration, Instant};

use anyhow::Result;
use consort_bench::Figure;
use consort_client_sdk::sealed::{Keyring, Offer, ProxyPeer, SealedData, Suite};
use consort_client_sdk::{ClientIdentity, Endpoint, Gateway};
use consort_e2e::Network;

/// Grants that are measured; enough for a steady median.
const GRANTS: usize = 60;
/// Grants before that.
const WARM_UP: usize = 5;

fn main() -> Result<()> {
    // `cargo test --benches` runs this with --test: then it only has to build.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let network = Network::start("hospital")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(measure(&network))
}

async fn measure(network: &Network) -> Result<()> {
    let keyring = Keyring::create(&network.config().join("secret"))?;
    let owner = caller(network, "stanna", "StAnnaMSP", 41051).await?;
    let reader = caller(network, "riverside", "RiversideMSP", 42051).await?;
    let key = keyring.domain_key(Suite::P256, "patients", "wards")?;
    let reader_key = keyring.reader_key(Suite::P256, "patients")?;
    owner.create_domain("wards", &key, "").await?;
    let (mut transactions, mut grants, mut readings) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..WARM_UP + GRANTS {
        let start = Instant::now();
        let record = owner.seal("wards", &format!("p{number}"), &[7; 1024]).await?.name;
        transactions.push(start.elapsed());
        let (party, public) = (reader.party().clone(), reader_key.public_key());
        let offer = Offer::new(format!("g{number}"), "wards", party, public, 2);
        let start = Instant::now();
        let granted = owner.grant(&key, &offer).await?;
        reader_has(&reader, &granted.committed.tx_id).await?;
        let read = Instant::now();
        let opened = reader.read(&offer.grant, &record, &reader_key).await?;
        readings.push(read.elapsed());
        grants.push(start.elapsed());
        assert_eq!(opened.plaintext.len(), 1024);
    }
    let transaction = row("seal 1 KB to commit, p50", &mut transactions, "");
    row("request to opened record, p50", &mut readings, "");
    let grant = row("grant to opened record, p50", &mut grants, "   (wanted: below 100)");
    Figure::new("grant to opened record, p50", grant, "ms")
        .at_most(100.0)
        .limit("one transaction", transaction)
        .record();
    Ok(())
}

/// The reader's peer may be a moment behind the owner's.
async fn reader_has(reader: &SealedData, tx_id: &str) -> Result<()> {
    reader.network().commit_status(tx_id).await?.into_valid()?;
    Ok(())
}

fn endpoint(network: &Network, name: &str, published: u16) -> Result<Endpoint> {
    let host = format!("peer0.{name}.example.com");
    let organisation = network.peer_organisation(&format!("{name}.example.com"));
    let roots = std::fs::read(organisation.join(format!("peers/{host}/tls/ca.crt")))?;
    let port = network.port(published);
    Ok(Endpoint::new(format!("{host}:{port}"), roots).connect_to(([127, 0, 0, 1], port).into()))
}

async fn caller(network: &Network, name: &str, msp_id: &str, published: u16) -> Result<SealedData> {
    let organisation = network.peer_organisation(&format!("{name}.example.com"));
    let folder = organisation.join(format!("users/Doctor@{name}.example.com/msp"));
    let identity = ClientIdentity::from_folder(&folder, msp_id)?;
    let gateway = Gateway::connect(&endpoint(network, name, published)?, identity).await?;
    let proxies = [
        ("lakeside", "LakesideMSP", 43051),
        ("insurer", "InsurerMSP", 44051),
        ("institute", "InstituteMSP", 45051),
    ];
    let proxies: Vec<ProxyPeer> = proxies
        .iter()
        .map(|(name, msp_id, port)| Ok(ProxyPeer::new(*msp_id, &endpoint(network, name, *port)?)?))
        .collect::<Result<_>>()?;
    Ok(SealedData::new(&gateway.network("patients"), proxies)?)
}

fn row(name: &str, durations: &mut [Duration], wanted: &str) -> f64 {
    let measured = &mut durations[WARM_UP..];
    measured.sort_unstable();
    let median = measured[measured.len() / 2].as_secs_f64() * 1e3;
    println!("{name:<50} {median:>9.2} ms{wanted}");
    median
}
