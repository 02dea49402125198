//! `consort chaincode test`: a chaincode's own tests, against the compiled component in the sandbox.
//!
//! `cargo test` runs as always, but the SDK's ledger in memory sends each execution here, to a socket of this machine: a line of JSON with
//! all that the execution can see. It is executed by the runtime of the peers, and a line of JSON with what came of it goes back.
//! Bytes are texts in which each character is one byte (U+0000 to U+00FF).
//!
//! Chaincodes that a test installs beside the tested one are components, too, as far as `--with` says where they are. A test with one that
//! is not there executes natively, and the report says so.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use consort_chaincode_runtime::memory::{Books, MemoryHost, Place};
use consort_chaincode_runtime::{Creator, Execution, Modification, TransactionContext};
use consort_crypto::hash::sha256;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::build::{clean_command, shared_target_dir};
use super::local::{AllowanceOptions, ComponentOptions, LocalSandbox, component_of};
use crate::output::Output;

/// The variable by which the SDK finds the sandbox (`testing::SANDBOX_VARIABLE` there).
const SANDBOX_VARIABLE: &str = "CONSORT_CHAINCODE_SANDBOX";
/// Largest request: the whole state of a test.
const REQUEST_BYTES_MAX: u64 = 256 << 20;

#[derive(Debug, Args)]
pub(crate) struct TestOptions {
    #[command(flatten)]
    component: ComponentOptions,

    #[command(flatten)]
    allowance: AllowanceOptions,

    /// Another chaincode that tests install: the name there, and its crate, component or package
    #[arg(long = "with", value_name = "NAME=PATH", value_parser = other)]
    others: Vec<(String, PathBuf)>,

    #[command(flatten)]
    output: Output,

    /// What `cargo test` gets, such as the name of a test
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// What the executions of one function took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    calls: u64,
    refused: u64,
    fuel_max: u64,
    memory_bytes_max: usize,
    time_max: Duration,
}

/// What the tests executed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Report {
    /// By function.
    functions: BTreeMap<String, Tally>,
    /// Executions that were native, by the chaincode that has no component here.
    native: BTreeMap<String, u64>,
}

type Tallies = Arc<Mutex<Report>>;

fn other(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("another chaincode has the form name=path")?;
    Ok((name.to_owned(), PathBuf::from(path)))
}

/// Runs the tests and prints what each function took.
///
/// # Errors
/// The chaincode does not build, a peer would not install it, or a test fails.
pub(crate) async fn run(options: &TestOptions) -> anyhow::Result<()> {
    let component = options.component.load().await?;
    let mut sandbox = LocalSandbox::new(&component, options.allowance.allowance()?)?;
    for (name, path) in &options.others {
        sandbox.install(name, &component_of(path).await?)?;
    }
    let sandbox = Arc::new(sandbox);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("cannot listen on 127.0.0.1")?;
    let address = listener.local_addr()?;
    let tallies = Tallies::default();
    let folder = options.component.path.clone();
    let arguments = options.arguments.clone();
    let tests = tokio::task::spawn_blocking(move || {
        let mut command = clean_command("cargo".as_ref(), &folder);
        command.arg("test");
        if let Some(folder) = shared_target_dir() {
            command.arg("--target-dir").arg(folder);
        }
        command.args(arguments).env(SANDBOX_VARIABLE, address.to_string());
        command.status().context("cannot start cargo")
    });
    let status = tokio::select! {
        status = tests => status??,
        error = serve(listener, sandbox, Arc::clone(&tallies)) => return Err(error),
    };
    let tallies = tallies.lock().unwrap_or_else(PoisonError::into_inner).clone();
    options.output.print(&as_json(&tallies), || as_table(&tallies))?;
    if !status.success() {
        bail!("a test failed in the sandbox; what failed is above");
    }
    if tallies.functions.is_empty() && tallies.native.is_empty() {
        bail!(
            "the tests executed nothing in the sandbox.\nRemedy: let a test call `testing::MemoryLedger::submit` or `evaluate`."
        );
    }
    Ok(())
}

/// Answers tests until it is dropped; the error is the socket's.
async fn serve(listener: TcpListener, sandbox: Arc<LocalSandbox>, tallies: Tallies) -> anyhow::Error {
    let mut connections = JoinSet::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => return anyhow::Error::new(error).context("the tests cannot reach the sandbox"),
        };
        let (sandbox, tallies) = (Arc::clone(&sandbox), Arc::clone(&tallies));
        connections.spawn(async move {
            if let Err(error) = answer(stream, &sandbox, &tallies).await {
                eprintln!("a test's execution failed in the sandbox: {error:#}");
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(mut stream: TcpStream, sandbox: &LocalSandbox, tallies: &Tallies) -> anyhow::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut line = String::new();
    BufReader::new(reader.take(REQUEST_BYTES_MAX)).read_line(&mut line).await?;
    let request: Value = serde_json::from_str(&line).context("the request is no JSON")?;
    let mut answer = execute(&request, sandbox, tallies).await.unwrap_or_else(
        |error| json!({ "status": 500, "message": format!("the sandbox cannot execute this: {error:#}") }),
    );
    if request["kind"] == "evaluate"
        && let Some(answer) = answer.as_object_mut()
    {
        // Nothing of an evaluation is committed.
        for name in ["writes", "policies", "event"] {
            answer.remove(name);
        }
    }
    let mut text = answer.to_string();
    text.push('\n');
    writer.write_all(text.as_bytes()).await?;
    Ok(())
}

async fn execute(request: &Value, sandbox: &LocalSandbox, tallies: &Tallies) -> anyhow::Result<Value> {
    let chaincode = word(&request["chaincode"]);
    let arguments: Vec<Bytes> = list(&request["arguments"]).iter().map(bytes).collect();
    let function =
        arguments.first().map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
    let mut host = MemoryHost::new(context(request), creator(&request["client"]), books(request));
    for name in list(&request["callees"]).iter().map(word) {
        let Some(callee) = sandbox.other(&name) else {
            *tallies.lock().unwrap_or_else(PoisonError::into_inner).native.entry(name).or_default() += 1;
            return Ok(json!({ "native": true }));
        };
        host.callees.insert(name, callee.clone());
    }
    let host = Arc::new(host);
    let began = Instant::now();
    let execution = sandbox.execute(&chaincode, arguments, Arc::clone(&host)).await?;
    let time = began.elapsed();
    {
        let mut tallies = tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = tallies.functions.entry(function).or_default();
        tally.calls += 1;
        tally.refused += u64::from(execution.response.status >= 400);
        tally.fuel_max = tally.fuel_max.max(execution.usage.fuel);
        tally.memory_bytes_max = tally.memory_bytes_max.max(execution.usage.memory_bytes);
        tally.time_max = tally.time_max.max(time);
    }
    Ok(response(&execution, &host.books()))
}

fn response(execution: &Execution, books: &Books) -> Value {
    let place = |(namespace, collection, key): &Place| json!([namespace, collection, key]);
    let written = |((namespace, collection, key), value): (&Place, &Bytes)| {
        json!([namespace, collection, key, text(value)])
    };
    let event =
        execution.event.as_ref().map(|event| json!({ "name": event.name, "payload": text(&event.payload) }));
    json!({
        "status": execution.response.status,
        "message": execution.response.message,
        "payload": text(&execution.response.payload),
        "event": event,
        "writes": books.written.iter().map(written).collect::<Vec<_>>(),
        "policies": books.policies_written.iter().map(written).collect::<Vec<_>>(),
        "reads": books.reads.iter().map(place).collect::<Vec<_>>(),
        "ranges": books.ranges_read.iter().map(place).collect::<Vec<_>>(),
    })
}

fn context(request: &Value) -> TransactionContext {
    let tx_id = word(&request["tx_id"]);
    let transient = request["transient"].as_object().into_iter().flatten();
    TransactionContext {
        binding: sha256(tx_id.as_bytes()),
        tx_id,
        channel: "mychannel".to_owned(),
        timestamp: timestamp(&request["timestamp"][0], &request["timestamp"][1]),
        transient: Arc::new(transient.map(|(name, value)| (name.clone(), bytes(value))).collect()),
        proposal: bytes(&request["proposal"][0]),
        signature: bytes(&request["proposal"][1]),
        peer_msp_id: word(&request["peer_msp_id"]),
    }
}

fn timestamp(seconds: &Value, nanoseconds: &Value) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: seconds.as_i64().unwrap_or_default(),
        nanos: nanoseconds.as_i64().and_then(|nanos| i32::try_from(nanos).ok()).unwrap_or_default(),
    }
}

fn creator(client: &Value) -> Creator {
    let attributes = client["attributes"].as_object().into_iter().flatten();
    Creator {
        msp_id: word(&client["msp_id"]),
        certificate: bytes(&client["certificate"]).to_vec(),
        common_name: word(&client["common_name"]),
        id: word(&client["id"]),
        organizational_units: list(&client["organizational_units"]).iter().map(word).collect(),
        attributes: attributes.map(|(name, value)| (name.clone(), word(value))).collect(),
    }
}

fn books(request: &Value) -> Books {
    let mut books = Books::default();
    let place = |entry: &Value| (word(&entry[0]), word(&entry[1]), word(&entry[2]));
    for entry in list(&request["values"]) {
        books.committed.insert(place(entry), bytes(&entry[3]));
    }
    for entry in list(&request["policies"]) {
        books.policies.insert(place(entry), bytes(&entry[3]));
    }
    for entry in list(&request["history"]) {
        let change = Modification {
            value: bytes(&entry[3]),
            tx_id: word(&entry[4]),
            timestamp: timestamp(&entry[5], &entry[6]),
            is_delete: entry[7] == true,
        };
        books.history.entry(place(entry)).or_default().push(change);
    }
    books.held = request["held"].as_array().map(|held| held.iter().map(word).collect());
    books
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn bytes(value: &Value) -> Bytes {
    let characters = value.as_str().unwrap_or_default().chars();
    characters.map(|character| u8::try_from(character).unwrap_or(b'?')).collect()
}

fn as_json(report: &Report) -> Value {
    let functions: serde_json::Map<String, Value> = report
        .functions
        .iter()
        .map(|(function, tally)| {
            let figures = json!({
                "calls": tally.calls,
                "refused": tally.refused,
                "fuel_max": tally.fuel_max,
                "memory_bytes_max": tally.memory_bytes_max,
                "time_max_us": u64::try_from(tally.time_max.as_micros()).unwrap_or(u64::MAX),
            });
            (function.clone(), figures)
        })
        .collect();
    json!({ "functions": functions, "native": report.native })
}

fn as_table(report: &Report) -> String {
    let tallies = &report.functions;
    let width = tallies.keys().map(String::len).max().unwrap_or_default().max("function".len());
    let mut lines = vec![format!(
        "{:width$}  {:>6}  {:>7}  {:>12}  {:>10}  {:>9}",
        "function", "calls", "refused", "most fuel", "memory", "longest"
    )];
    for (function, tally) in tallies {
        lines.push(format!(
            "{function:width$}  {:>6}  {:>7}  {:>12}  {:>6} KiB  {:>6} us",
            tally.calls,
            tally.refused,
            tally.fuel_max,
            tally.memory_bytes_max / 1024,
            tally.time_max.as_micros()
        ));
    }
    for (name, executions) in &report.native {
        lines.push(format!(
            "{executions} executions were native: the chaincode {name}, which a test installed, has no component here.\n\
             Remedy: --with {name}=<its crate, component or package>"
        ));
    }
    lines.join("\n")
}
