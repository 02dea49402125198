//! What ordering costs: three orderer processes over TLS, 1 KB envelopes that are judged by the Writers policy.
//!
//! Measures sustained throughput, the processor time that each orderer spends on a transaction, its memory from the first minute to the
//! last, and the latency at 1,000 transactions in a second. As machines differ and are shared, times are also given in checks of a P-256
//! signature, measured in the same run. `cargo bench -p consort-orderer` runs it; `ORDERING_SECONDS` (default 20) sets how long the load
//! lasts, 1800 shows memory over half an hour.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark fails where it stands")]

#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../tests/network/support.rs"]
mod support;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use consort_bench::Figure;
use consort_channel_config::profile::BatchProfile;
use consort_crypto::key::PrivateKey;
use consort_msp::SigningIdentity;
use consort_protos::fabric::{
    common::{Envelope, HeaderType, Status},
    orderer::BroadcastResponse,
};
use prost::Message;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;

use support::{CHANNEL, Choices, Network, sign};

/// Consenters of the channel.
const ORDERERS: usize = 3;
/// Streams of the load to each orderer, and messages of one stream that are on their way: as many as fill blocks.
const STREAMS: usize = 4;
const WINDOW: usize = 64;
/// Bytes of an envelope: payload and signature.
const ENVELOPE_BYTES: usize = 1024;
/// Different envelopes; orderers do not compare them.
const ENVELOPES: usize = 2_000;
/// What an answer waits for at least, as the collected run names it.
const SYNCED: &str = "write and sync of 4 KiB";
/// Before anything is measured.
const WARM_UP: Duration = Duration::from_secs(3);
/// The paced load.
const PACED_PER_SECOND: u32 = 1_000;
const PACED: Duration = Duration::from_secs(10);
/// Clock ticks in a second of `/proc/<pid>/stat` (`getconf CLK_TCK`), the same on all of Linux' common platforms.
const CLOCK_TICKS: f64 = 100.0;

fn main() {
    // `cargo test --benches` runs this with --test: then it only has to build.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let seconds = std::env::var("ORDERING_SECONDS")
        .map_or(20, |text| text.parse().expect("ORDERING_SECONDS is a number"));
    let check = signature_check();
    println!("{:<56} {:>10.1} us", "reference: one P-256 signature check", check * 1e6);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure(Duration::from_secs(seconds), check));
}

/// Processor time of one check, in seconds.
fn signature_check() -> f64 {
    const ROUNDS: u32 = 4_000;
    let key = PrivateKey::generate_p256().unwrap();
    let message = [7; ENVELOPE_BYTES];
    let signature = key.sign(&message).unwrap();
    let before = cpu_seconds(std::process::id());
    for _ in 0..ROUNDS {
        key.public_key().verify(std::hint::black_box(&message), &signature).unwrap();
    }
    (cpu_seconds(std::process::id()) - before) / f64::from(ROUNDS)
}

async fn measure(duration: Duration, check: f64) {
    let choices = Choices { batch: BatchProfile::default(), ..Choices::default() };
    let network = Arc::new(Network::up_as_processes(ORDERERS, choices).await);
    network.order(0, &network.message("the first")).await;
    let client = network.members.identity("client");
    let envelopes: Arc<Vec<Envelope>> =
        Arc::new((0..ENVELOPES).map(|number| envelope(&client, number)).collect());
    println!("{:<56} {:>10} B", "envelope", envelopes[0].encoded_len());
    sustained(&network, &envelopes, duration, check).await;
    paced(&network, &envelopes).await;
}

/// An envelope of the size that is measured.
fn envelope(client: &SigningIdentity, number: usize) -> Envelope {
    let size = |envelope: &Envelope| envelope.payload.len() + envelope.signature.len();
    let bare = size(&sign(client, CHANNEL, HeaderType::EndorserTransaction, Vec::new()));
    let mut data = vec![0; ENVELOPE_BYTES.saturating_sub(bare).max(8)];
    data[..8].copy_from_slice(&(number as u64).to_be_bytes());
    sign(client, CHANNEL, HeaderType::EndorserTransaction, data)
}

async fn sustained(network: &Arc<Network>, envelopes: &Arc<Vec<Envelope>>, duration: Duration, check: f64) {
    let load = Load { ordered: AtomicU64::new(0), refused: AtomicU64::new(0), over: AtomicBool::new(false) };
    let load = Arc::new(load);
    let mut streams = JoinSet::new();
    for stream in 0..ORDERERS * STREAMS {
        streams.spawn(flood(Arc::clone(network), Arc::clone(envelopes), Arc::clone(&load), stream));
    }
    tokio::time::sleep(WARM_UP).await;
    let at_first = Sample::of(network, &load);
    let mut middle = Vec::new();
    while at_first.at.elapsed() < duration {
        tokio::time::sleep(duration / 10).await;
        middle.push(Sample::of(network, &load));
    }
    load.over.store(true, Ordering::Relaxed);
    let at_last = middle.last().expect("invariant: at least one sample was taken");
    streams.join_all().await;
    report(&at_first, at_last, check);
    let mut memory: Vec<Vec<f64>> = vec![at_first.memory_mb.clone()];
    memory.extend(middle.iter().map(|sample| sample.memory_mb.clone()));
    for index in 0..ORDERERS {
        let series: Vec<String> = memory.iter().map(|sample| format!("{:.0}", sample[index])).collect();
        println!(
            "{:<56} {} MB",
            format!("resident memory of orderer {index} over {duration:?}"),
            series.join(" ")
        );
        let (early, late) =
            (mean(&memory[1..memory.len() / 2], index), mean(&memory[memory.len() / 2..], index));
        let name = format!("memory of orderer {index}, second half against first");
        println!("{name:<56} {:>10.2}  (wanted 1.00 over ORDERING_SECONDS=1800)", late / early);
    }
    println!(
        "{:<56} {:>10}",
        "messages refused as the pipeline was full",
        load.refused.load(Ordering::Relaxed)
    );
}

fn mean(samples: &[Vec<f64>], index: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a few samples")]
    let count = samples.len() as f64;
    samples.iter().map(|sample| sample[index]).sum::<f64>() / count
}

fn report(first: &Sample, last: &Sample, check: f64) {
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let ordered = (last.ordered - first.ordered) as f64;
    let elapsed = (last.at - first.at).as_secs_f64();
    println!("{:<56} {:>10.0} tx/s  (wanted 6000 on an idle machine)", "sustained", ordered / elapsed);
    let mut all = 0.0;
    for (index, (before, after)) in first.cpu_seconds.iter().zip(&last.cpu_seconds).enumerate() {
        let per_tx = (after - before) / ordered;
        all += per_tx;
        let name = format!("processor time per transaction, orderer {index}");
        println!("{name:<56} {:>10.1} us = {:.2} checks", per_tx * 1e6, per_tx / check);
    }
    let mean = all / ORDERERS as f64;
    println!(
        "{:<56} {:>10.1} us = {:.2} checks  (wanted at most 60 us)",
        "processor time per transaction, mean of the orderers",
        mean * 1e6,
        mean / check
    );
    let checks = 2.0 / check;
    let figure = Figure::new("ordering, sustained", ordered / elapsed, "tx/s").at_least(6_000.0);
    figure.limit("checking one signature each on two cores", checks).record();
    let figure =
        Figure::new("ordering, processor time per transaction and orderer", mean * 1e6, "us").at_most(60.0);
    figure.limit("one signature check", check * 1e6).record();
    let own = (last.own_cpu_seconds - first.own_cpu_seconds) / ordered;
    println!("{:<56} {:>10.1} us", "processor time per transaction, the load itself", own * 1e6);
}

/// What the streams of the load share.
struct Load {
    ordered: AtomicU64,
    refused: AtomicU64,
    over: AtomicBool,
}

/// One moment.
struct Sample {
    at: Instant,
    ordered: u64,
    cpu_seconds: Vec<f64>,
    own_cpu_seconds: f64,
    memory_mb: Vec<f64>,
}

impl Sample {
    fn of(network: &Network, load: &Load) -> Self {
        let ids: Vec<u32> = (0..ORDERERS).map(|index| network.process_id(index)).collect();
        Self {
            at: Instant::now(),
            ordered: load.ordered.load(Ordering::Relaxed),
            cpu_seconds: ids.iter().map(|id| cpu_seconds(*id)).collect(),
            own_cpu_seconds: cpu_seconds(std::process::id()),
            memory_mb: ids.iter().map(|id| memory_mb(*id)).collect(),
        }
    }
}

/// User and system time of a process, in seconds (`man 5 proc`: fields 14 and 15 of stat).
fn cpu_seconds(id: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let behind_name = text.rsplit_once(')').unwrap().1;
    let ticks: f64 =
        behind_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<f64>().unwrap()).sum();
    ticks / CLOCK_TICKS
}

/// Resident memory of a process.
fn memory_mb(id: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// One stream that keeps as many messages on their way as it may. A refusal ends the stream, which then is opened again.
async fn flood(network: Arc<Network>, envelopes: Arc<Vec<Envelope>>, load: Arc<Load>, stream: usize) {
    let mut number = stream;
    let mut next = || {
        number += ORDERERS * STREAMS;
        envelopes[number % envelopes.len()].clone()
    };
    while !load.over.load(Ordering::Relaxed) {
        let (requests, outgoing) = mpsc::channel(WINDOW);
        for _ in 0..WINDOW {
            requests.send(next()).await.unwrap();
        }
        let mut client = network.client(stream % ORDERERS);
        let mut responses = client.broadcast(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        while let Some(response) = responses.message().await.unwrap() {
            if !is_ordered(&response) {
                load.refused.fetch_add(1, Ordering::Relaxed);
                break;
            }
            load.ordered.fetch_add(1, Ordering::Relaxed);
            if load.over.load(Ordering::Relaxed) || requests.send(next()).await.is_err() {
                break;
            }
        }
    }
}

fn is_ordered(response: &BroadcastResponse) -> bool {
    assert!(matches!(response.status(), Status::Success | Status::ServiceUnavailable), "{response:?}");
    response.status() == Status::Success
}

/// Latency at a steady pace, from the moment at which a message should have left to its answer.
async fn paced(network: &Arc<Network>, envelopes: &Arc<Vec<Envelope>>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let start = Instant::now() + Duration::from_millis(500);
    let mut streams = JoinSet::new();
    for stream in 0..ORDERERS {
        let (network, envelopes, sent) = (Arc::clone(network), Arc::clone(envelopes), Arc::clone(&sent));
        streams.spawn(async move { steady(&network, &envelopes, &sent, stream, start).await });
    }
    let mut latencies = streams.join_all().await.concat();
    latencies.sort_unstable();
    let at = |share: usize| {
        latencies[(latencies.len() * share / 100).min(latencies.len() - 1)].as_secs_f64() * 1e3
    };
    println!("{:<56} {:>10}", "messages at 1,000 tx/s", latencies.len());
    Figure::new("ordering, latency at 1,000 tx/s, p50", at(50), "ms").at_most(10.0).against(SYNCED).record();
    Figure::new("ordering, latency at 1,000 tx/s, p99", at(99), "ms").against(SYNCED).record();
    println!("{:<56} {:>10.2} ms  (wanted at most 10)", "broadcast to SUCCESS at 1,000 tx/s, p50", at(50));
    println!("{:<56} {:>10.2} ms", "broadcast to SUCCESS at 1,000 tx/s, p99", at(99));
}

async fn steady(
    network: &Network,
    envelopes: &[Envelope],
    sent: &AtomicUsize,
    stream: usize,
    start: Instant,
) -> Vec<Duration> {
    let (requests, outgoing) = mpsc::channel(WINDOW);
    let mut client = network.client(stream);
    requests.send(envelopes[stream].clone()).await.unwrap();
    let mut responses = client.broadcast(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    responses.message().await.unwrap().unwrap();
    let pause = Duration::from_secs(1) * u32::try_from(ORDERERS).unwrap() / PACED_PER_SECOND;
    let (due_times, mut due) = mpsc::channel::<Instant>(16 * 1024);
    let sending = async {
        let mut at = start + pause / 3 * u32::try_from(stream).unwrap();
        while at < start + PACED {
            tokio::time::sleep_until(at.into()).await;
            due_times.send(at).await.unwrap();
            let number = sent.fetch_add(1, Ordering::Relaxed);
            requests.send(envelopes[number % envelopes.len()].clone()).await.unwrap();
            at += pause;
        }
        drop(requests);
        drop(due_times);
    };
    let answering = async {
        let mut latencies = Vec::new();
        while let Some(at) = due.recv().await {
            let response = responses.message().await.unwrap().unwrap();
            assert!(is_ordered(&response), "{response:?}");
            latencies.push(at.elapsed());
        }
        latencies
    };
    let ((), latencies) = tokio::join!(sending, answering);
    latencies
}
