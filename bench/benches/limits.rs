//! What this machine can do at best: signature checks, copies of memory, synced writes, empty gRPC calls over TLS.
//!
//! Other benchmarks' figures are compared with these. Each is the work alone, with the same libraries and settings as the servers use.

#![allow(clippy::unwrap_used, reason = "a benchmark stops where a test would")]

use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use consort_bench::Figure;
use consort_crypto::certificate::SubjectAlternativeName;
use consort_crypto::issue::{CertificateAuthority, DistinguishedName, Template, Validity};
use consort_crypto::key::PrivateKey;
use consort_node::config::{ClientAuth, HostOverrides, ListenConfig};
use consort_node::dial::Dialer;
use consort_node::server::{GrpcServer, Listener};
use consort_node::tls::ServerTls;
use consort_node::{Clock as _, SystemClock, Tasks};
use consort_protos::fabric::discovery::discovery_client::DiscoveryClient;
use consort_protos::fabric::discovery::discovery_server::{Discovery, DiscoveryServer};
use consort_protos::fabric::discovery::{Response, SignedRequest};
use tonic::transport::Channel;

/// Repetitions of what takes microseconds.
const ROUNDS: u32 = 5_000;
/// Checks by one key before its table is measured.
const WARM: u32 = 600;
/// Bytes that are copied at a time; more than a processor's cache holds.
const COPIED_BYTES: usize = 256 << 20;
/// Synced writes; their median counts.
const SYNCED: usize = 200;
/// Clients and connections of the empty calls, as many as the gateway's benchmark has.
const CLIENTS: usize = 64;
const CONNECTIONS: usize = 4;
/// How long empty calls are made.
const SPAN: Duration = Duration::from_secs(3);

fn main() {
    // `cargo test --benches` runs this with --test: then it only has to build.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    signatures();
    memory();
    disk();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(calls());
}

fn show(figure: &Figure) {
    println!("{:<48} {:>12.2} {}", figure.name, figure.value, figure.unit);
    figure.record();
}

fn microseconds(mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    (0..ROUNDS).for_each(|_| work());
    start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS)
}

fn signatures() {
    let key = PrivateKey::generate_p256().unwrap();
    let message = [7; 300];
    let signature = key.sign(&message).unwrap();
    (0..WARM).for_each(|_| key.public_key().verify(&message, &signature).unwrap());
    let library =
        microseconds(|| key.public_key().verify_with_library(black_box(&message), &signature).unwrap());
    let table = microseconds(|| key.public_key().verify(black_box(&message), &signature).unwrap());
    let sign = microseconds(|| drop(black_box(key.sign(black_box(&message)).unwrap())));
    show(&Figure::new("P-256 signature check by the library", library, "us"));
    show(&Figure::new("P-256 signature check of a known signer", table, "us"));
    show(&Figure::new("P-256 signature", sign, "us"));
}

fn memory() {
    let from = vec![1_u8; COPIED_BYTES];
    let mut to = vec![0_u8; COPIED_BYTES];
    to.copy_from_slice(black_box(&from));
    let start = Instant::now();
    let rounds = 8;
    (0..rounds).for_each(|_| black_box(&mut to).copy_from_slice(black_box(&from)));
    let bytes = COPIED_BYTES as f64 * f64::from(rounds);
    show(&Figure::new("copy of memory", bytes / start.elapsed().as_secs_f64() / 1e9, "GB/s"));
}

fn disk() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [("write and sync of 4 KiB", 4 << 10), ("write and sync of 1 MiB", 1 << 20)] {
        let block = vec![1_u8; bytes];
        let mut file = File::create(folder.path().join(name)).unwrap();
        let mut once = || {
            let start = Instant::now();
            file.write_all(&block).unwrap();
            file.sync_data().unwrap();
            start.elapsed().as_secs_f64() * 1e3
        };
        let mut times: Vec<f64> = (0..SYNCED).map(|_| once()).collect();
        times.sort_unstable_by(f64::total_cmp);
        show(&Figure::new(name, times[SYNCED / 2], "ms"));
    }
}

/// Answers nothing.
struct Empty;

#[tonic::async_trait]
impl Discovery for Empty {
    async fn discover(
        &self,
        _request: tonic::Request<SignedRequest>,
    ) -> Result<tonic::Response<Response>, tonic::Status> {
        Ok(tonic::Response::new(Response::default()))
    }
}

async fn calls() {
    let now = SystemClock.now();
    let validity = Validity { not_before: now, not_after: now + time::Duration::days(1) };
    let name = DistinguishedName::common_name("limits");
    let root = CertificateAuthority::new_root(&name, PrivateKey::generate_p256().unwrap(), validity).unwrap();
    let key = PrivateKey::generate_p256().unwrap();
    let hosts = vec![SubjectAlternativeName::from_text("localhost")];
    let certificate = root.issue(&Template::tls(name, validity, hosts), key.public_key()).unwrap();
    let roots = [root.certificate().pem().into_bytes()];
    let (certificate, key) = (certificate.pem(), key.to_pem());
    let tls =
        ServerTls::from_pem(certificate.as_bytes(), key.as_bytes(), &roots, ClientAuth::Optional).unwrap();
    let listener = Listener::bind(&ListenConfig::new("127.0.0.1:0")).await.unwrap();
    let endpoint = format!("localhost:{}", listener.address().port());
    let tasks = Tasks::new();
    GrpcServer::new(listener, Some(tls)).add_service(DiscoveryServer::new(Empty)).serve(&tasks);
    let dialer = Dialer::new(HostOverrides::default(), None);
    let clients: Vec<DiscoveryClient<Channel>> =
        (0..CONNECTIONS).map(|_| DiscoveryClient::new(dialer.connect(&endpoint, &roots).unwrap())).collect();

    let mut one = clients[0].clone();
    let mut times = Vec::new();
    for _ in 0..2_000 {
        let start = Instant::now();
        one.discover(SignedRequest::default()).await.unwrap();
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_unstable_by(f64::total_cmp);
    show(&Figure::new("empty gRPC call, one client, p50", times[times.len() / 2], "ms"));

    let start = Instant::now();
    let mut all = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let mut client = clients[client % CONNECTIONS].clone();
        all.spawn(async move {
            let mut calls = 0_u32;
            while start.elapsed() < SPAN {
                client.discover(SignedRequest::default()).await.unwrap();
                calls += 1;
            }
            calls
        });
    }
    let calls: u32 = all.join_all().await.into_iter().sum();
    let rate = f64::from(calls) / start.elapsed().as_secs_f64();
    show(&Figure::new("empty gRPC calls on two cores", rate, "/s"));
    tasks.shutdown(Duration::from_secs(5)).await.unwrap();
}
