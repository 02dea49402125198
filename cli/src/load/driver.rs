//! Keeps the clients going: a fixed number of them, or a fixed rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use consort_client_sdk::{Call, Contract, Error};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::recorder::{Outcome, Recorder, Sample, milliseconds};
use super::usage::{Usage, UsageReport};
use super::workload::{Calls, Shape};

/// How the transactions are spaced.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Loop {
    /// Each client begins its next transaction when its last one ended.
    Closed { clients: usize },
    /// Transactions begin at fixed times; at most so many are in flight.
    Open { per_second: f64, in_flight_max: usize },
}

/// How long, how fast.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) pace: Loop,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
}

/// What a run used and how long it was measured.
#[derive(Debug)]
pub(crate) struct Driven {
    pub(crate) measured: Duration,
    /// Transactions that had begun and had not ended when the measurement did; their latencies are in no percentile.
    pub(crate) unfinished: u64,
    pub(crate) usage: UsageReport,
}

/// What the clients of a run share.
struct Run {
    begin: Instant,
    end: Instant,
    evaluated: bool,
    recorder: Arc<Recorder>,
    in_flight: AtomicU64,
}

/// How long the other organisations' peers may take to commit what was written for the load to read.
const SETTLE: Duration = Duration::from_secs(10);

/// How often the first call is made meanwhile.
const SETTLE_INTERVAL: Duration = Duration::from_millis(200);

/// Makes one call, so that a load that cannot work at all is refused before it begins. A load that reads what was just written
/// waits for peers that have not committed it yet.
///
/// # Errors
/// What the network answers: no such chaincode, no such function, no right to call it.
pub(crate) async fn probe(shape: &Shape, contract: &Contract) -> Result<(), Error> {
    let deadline = Instant::now() + SETTLE;
    let mut calls = Calls::new(shape);
    loop {
        let call = calls.next(contract);
        let answer = match shape.workload.is_evaluated() {
            true => call.evaluate().await.map(|_| ()),
            false => call.submit().await.map(|_| ()),
        };
        match answer {
            Err(_) if shape.workload.reads_prepared() && Instant::now() < deadline => {
                tokio::time::sleep(SETTLE_INTERVAL).await;
            }
            answer => return answer,
        }
    }
}

/// Drives the contracts for the planned time, or until the operator interrupts, and shows progress.
pub(crate) async fn drive(
    plan: &Plan,
    shape: &Shape,
    contracts: &[Contract],
    recorder: &Arc<Recorder>,
    mut usage: Usage,
) -> Driven {
    let begin = Instant::now() + plan.warm_up;
    let run = Arc::new(Run {
        begin,
        end: begin + plan.duration,
        evaluated: shape.workload.is_evaluated(),
        recorder: Arc::clone(recorder),
        in_flight: AtomicU64::new(0),
    });
    let mut clients = JoinSet::new();
    match plan.pace {
        Loop::Closed { clients: count } => {
            for contract in contracts.iter().cycle().take(count) {
                clients.spawn(closed(Arc::clone(&run), contract.clone(), Calls::new(shape)));
            }
        }
        Loop::Open { per_second, in_flight_max } => {
            let calls = Calls::new(shape);
            clients.spawn(open(Arc::clone(&run), contracts.to_vec(), calls, per_second, in_flight_max));
        }
    }
    if !plan.warm_up.is_zero() {
        eprintln!("warming up for {} s ...", plan.warm_up.as_secs());
    }
    let interrupted = tokio::select! {
        () = watch(&run, &mut usage) => false,
        _ = tokio::signal::ctrl_c() => true,
    };
    let measured = Instant::now().saturating_duration_since(begin).min(plan.duration);
    let unfinished = run.in_flight.load(Ordering::Relaxed);
    let usage = usage.finish();
    if interrupted {
        eprintln!("interrupted: the report covers what was measured so far");
        clients.abort_all();
    }
    while clients.join_next().await.is_some() {}
    Driven { measured, unfinished, usage }
}

/// Shows a line every second until the end.
async fn watch(run: &Run, usage: &mut Usage) {
    tokio::time::sleep_until(run.begin.into()).await;
    usage.begin();
    let mut second = 0;
    loop {
        let next = run.begin + Duration::from_secs(second as u64 + 1);
        if next > run.end {
            break;
        }
        tokio::time::sleep_until(next.into()).await;
        usage.sample();
        if let Some(past) = run.recorder.second(second) {
            eprintln!(
                "{:>5} s  {:>6} tx/s  p50 {:>7.1} ms  p99 {:>7.1} ms  in flight {:>5}  invalid {}  failed {}",
                second + 1,
                past.valid,
                milliseconds(&past.latency, 50.0),
                milliseconds(&past.latency, 99.0),
                run.in_flight.load(Ordering::Relaxed),
                past.invalid,
                past.failed
            );
        } else {
            eprintln!("{:>5} s  nothing ended", second + 1);
        }
        second += 1;
    }
    tokio::time::sleep_until(run.end.into()).await;
}

async fn closed(run: Arc<Run>, contract: Contract, mut calls: Calls) {
    while Instant::now() < run.end {
        let call = calls.next(&contract);
        let failed = one(&run, Instant::now(), call).await;
        if failed {
            // A refused client would otherwise ask again at once and measure only refusals.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn open(
    run: Arc<Run>,
    contracts: Vec<Contract>,
    mut calls: Calls,
    per_second: f64,
    in_flight_max: usize,
) {
    let room = Arc::new(Semaphore::new(in_flight_max));
    let mut started = JoinSet::new();
    let first = Instant::now();
    for (number, contract) in contracts.iter().cycle().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a run has far fewer than 2^52 transactions")]
        let due = first + Duration::from_secs_f64(number as f64 / per_second);
        if due >= run.end {
            break;
        }
        tokio::time::sleep_until(due.into()).await;
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { break };
        let (run, call) = (Arc::clone(&run), calls.next(contract));
        started.spawn(async move {
            one(&run, due, call).await;
            drop(permit);
        });
        while started.try_join_next().is_some() {}
    }
    while started.join_next().await.is_some() {}
}

/// One transaction from its due time to its end. Returns whether it failed.
async fn one(run: &Run, due: Instant, call: Call) -> bool {
    run.in_flight.fetch_add(1, Ordering::Relaxed);
    let mut stages = [None; 3];
    let outcome = if run.evaluated { evaluate(call).await } else { submit(call, &mut stages).await };
    run.in_flight.fetch_sub(1, Ordering::Relaxed);
    let failed = matches!(outcome, Outcome::Failed(_));
    let now = Instant::now();
    if now >= run.begin && now < run.end {
        let sample = Sample { total: now.duration_since(due), stages, outcome };
        run.recorder.add(now.duration_since(run.begin), &sample);
    }
    failed
}

async fn evaluate(call: Call) -> Outcome {
    match call.evaluate().await {
        Ok(_) => Outcome::Valid,
        Err(error) => failed("evaluate", &error),
    }
}

async fn submit(call: Call, stages: &mut [Option<Duration>; 3]) -> Outcome {
    let start = Instant::now();
    let endorsed = match call.endorse().await {
        Ok(endorsed) => endorsed,
        Err(error) => return failed("endorse", &error),
    };
    stages[0] = Some(start.elapsed());
    let start = Instant::now();
    let submitted = match endorsed.submit().await {
        Ok(submitted) => submitted,
        Err(error) => return failed("submit", &error),
    };
    stages[1] = Some(start.elapsed());
    let start = Instant::now();
    match submitted.committed().await {
        Ok(committed) => {
            stages[2] = Some(start.elapsed());
            if committed.is_valid() { Outcome::Valid } else { Outcome::Invalid(committed.code.as_str_name()) }
        }
        Err(error) => failed("commit", &error),
    }
}

/// Longest reason that is kept, in characters; reasons are counted, and one that differs each time would fill the memory.
const REASON_CHARACTERS_MAX: usize = 120;

fn failed(stage: &str, error: &Error) -> Outcome {
    let reason = match error {
        Error::Refused { refusal, .. } => {
            let first = refusal.details.first().map(|detail| detail.message.as_str()).unwrap_or_default();
            format!("{stage}: {:?}: {} {first}", refusal.code, refusal.message)
        }
        other => format!("{stage}: {other}"),
    };
    let blurred: String = reason
        .split_whitespace()
        .map(|word| if word.len() >= 32 && word.chars().any(|c| c.is_ascii_digit()) { "..." } else { word })
        .collect::<Vec<_>>()
        .join(" ");
    Outcome::Failed(blurred.chars().take(REASON_CHARACTERS_MAX).collect())
}
