//! What ordering costs: three orderer processes over TLS, 1 KB envelopes that are judged by the Writers policy.
//!
//! Measures sustained throughput, the processor time that each orderer spends on a transaction, its memory from the first minute to the
//! last, and the latency at 1,000 transactions in a second. As machines differ and are shared, times are also given in checks of a P-256
//! signature, measured in the same run. `cargo bench -p consort-orderer` runs it; `ORDERING_SECONDS` (default 20) sets how long the load
//! lasts, 1800 shows memory over half an hour. With `ORDERING_RATE` a steady load of so many transactions in a second takes the place of the
//! full one, and memory is shown each minute.

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
const PACED: Steady = Steady { per_second: 1_000, lasting: Duration::from_secs(10) };
/// Between two looks at the memory under a steady load.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Clock ticks in a second of `/proc/<pid>/stat` (`getconf CLK_TCK`), the same on all of Linux' common platforms.
const CLOCK_TICKS: f64 = 100.0;

fn main() {
    // `cargo test --benches` runs this with --test: then it only has to build.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let number = |name: &str| {
        std::env::var(name).ok().map(|text| {
            text.parse::<u32>().ok().filter(|number| *number > 0).expect("a number above zero is given")
        })
    };
    let duration = Duration::from_secs(number("ORDERING_SECONDS").unwrap_or(20).into());
    let steady = number("ORDERING_RATE").map(|per_second| Steady { per_second, lasting: duration });
    let check = signature_check();
    println!("{:<56} {:>10.1} us", "reference: one P-256 signature check", check * 1e6);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure(duration, steady, check));
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

async fn measure(duration: Duration, steady: Option<Steady>, check: f64) {
    let choices = Choices { batch: BatchProfile::default(), ..Choices::default() };
    let network = Arc::new(Network::up_as_processes(ORDERERS, choices).await);
    network.order(0, &network.message("the first")).await;
    let client = network.members.identity("client");
    let envelopes: Arc<Vec<Envelope>> =
        Arc::new((0..ENVELOPES).map(|number| envelope(&client, number)).collect());
    println!("{:<56} {:>10} B", "envelope", envelopes[0].encoded_len());
    if let Some(steady) = steady {
        return held(&network, &envelopes, steady, check).await;
    }
    sustained(&network, &envelopes, duration, check).await;
    paced(&network, &envelopes, PACED).await;
}

/// A rate that is held, with the memory of each minute.
async fn held(network: &Arc<Network>, envelopes: &Arc<Vec<Envelope>>, steady: Steady, check: f64) {
    let load = Load { ordered: AtomicU64::new(0), refused: AtomicU64::new(0), over: AtomicBool::new(false) };
    let first = Sample::of(network, &load);
    let mut memory = Vec::new();
    let looking = async {
        let mut next = tokio::time::interval(LOOK_EVERY.min(steady.lasting / 10));
        loop {
            next.tick().await;
            let sample = Sample::of(network, &load);
            let shown: Vec<String> = sample.memory_mb.iter().map(|mb| format!("{mb:.1}")).collect();
            println!(
                "{:>6.0} s: memory of the orderers {} MB",
                first.at.elapsed().as_secs_f64(),
                shown.join(" ")
            );
            memory.push(sample.memory_mb);
        }
    };
    let count = tokio::select! {
        count = paced(network, envelopes, steady) => count,
        () = looking => unreachable!("it looks until the load ends"),
    };
    let mut last = Sample::of(network, &load);
    last.ordered = count;
    report(&first, &last, check);
    for index in 0..ORDERERS {
        let middle = memory.len() / 2;
        // The first look comes before the load has reached its level.
        let (early, late) = (mean(&memory[1..middle.max(2)], index), mean(&memory[middle..], index));
        let name = format!("memory of orderer {index}, second half against first");
        println!("{name:<56} {:>10.2}  (wanted 1.00 over ORDERING_SECONDS=1800)", late / early);
    }
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
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let per_second = (at_last.ordered - at_first.ordered) as f64 / (at_last.at - at_first.at).as_secs_f64();
    println!("{:<56} {per_second:>10.0} tx/s  (wanted 6000 on an idle machine)", "sustained");
    let mean_seconds = report(&at_first, at_last, check);
    let checks = 2.0 / check;
    let figure = Figure::new("ordering, sustained", per_second, "tx/s").at_least(6_000.0);
    figure.limit("checking one signature each on two cores", checks).record();
    let figure =
        Figure::new("ordering, processor time per transaction and orderer", mean_seconds * 1e6, "us")
            .at_most(60.0);
    figure.limit("one signature check", check * 1e6).record();
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

/// Prints what a transaction costs; the mean of the orderers, in seconds.
fn report(first: &Sample, last: &Sample, check: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let ordered = (last.ordered - first.ordered) as f64;
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
    let own = (last.own_cpu_seconds - first.own_cpu_seconds) / ordered;
    println!("{:<56} {:>10.1} us", "processor time per transaction, the load itself", own * 1e6);
    mean
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

/// A pace at which messages are sent.
#[derive(Clone, Copy)]
struct Steady {
    per_second: u32,
    lasting: Duration,
}

/// Latency at a steady pace, from the moment at which a message should have left to its answer; the number of messages.
async fn paced(network: &Arc<Network>, envelopes: &Arc<Vec<Envelope>>, pace: Steady) -> u64 {
    let sent = Arc::new(AtomicUsize::new(0));
    let start = Instant::now() + Duration::from_millis(500);
    let mut streams = JoinSet::new();
    for stream in 0..ORDERERS {
        let (network, envelopes, sent) = (Arc::clone(network), Arc::clone(envelopes), Arc::clone(&sent));
        streams.spawn(async move { steady(&network, &envelopes, &sent, stream, (start, pace)).await });
    }
    let mut latencies = streams.join_all().await.concat();
    latencies.sort_unstable();
    let at = |share: usize| {
        latencies[(latencies.len() * share / 100).min(latencies.len() - 1)].as_secs_f64() * 1e3
    };
    let rate = pace.per_second;
    println!("{:<56} {:>10}", format!("messages at {rate} tx/s"), latencies.len());
    let name = format!("broadcast to SUCCESS at {rate} tx/s, p50");
    println!("{name:<56} {:>10.2} ms  (wanted at most 10 at 1000)", at(50));
    println!("{:<56} {:>10.2} ms", format!("broadcast to SUCCESS at {rate} tx/s, p99"), at(99));
    if rate == PACED.per_second {
        let figure = |name: &str, share| Figure::new(name, at(share), "ms").against(SYNCED);
        figure("ordering, latency at 1,000 tx/s, p50", 50).at_most(10.0).record();
        figure("ordering, latency at 1,000 tx/s, p99", 99).record();
    }
    latencies.len() as u64
}

async fn steady(
    network: &Network,
    envelopes: &[Envelope],
    sent: &AtomicUsize,
    stream: usize,
    (start, pace): (Instant, Steady),
) -> Vec<Duration> {
    let (requests, outgoing) = mpsc::channel(WINDOW);
    let mut client = network.client(stream);
    requests.send(envelopes[stream].clone()).await.unwrap();
    let mut responses = client.broadcast(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    responses.message().await.unwrap().unwrap();
    let pause = Duration::from_secs(1) * u32::try_from(ORDERERS).unwrap() / pace.per_second;
    let (due_times, mut due) = mpsc::channel::<Instant>(16 * 1024);
    let sending = async {
        let mut at = start + pause / 3 * u32::try_from(stream).unwrap();
        while at < start + pace.lasting {
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
