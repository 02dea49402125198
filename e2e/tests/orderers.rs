//! Orderers that come and go in a running network, by the operator's commands, while clients go on.

use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use consort_e2e::{Network, consort, is_running};
use serde_json::Value;

/// Nothing here takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

const FIRST: &str = "orderer.example.com";
const SECOND: &str = "orderer2.example.com";
const THIRD: &str = "orderer3.example.com";
const FOURTH: &str = "orderer4.example.com";

/// A client that submits one transaction after the other, and remembers which ones were committed. It ends with the test.
struct Client {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    committed: Mutex<Vec<String>>,
    more: Condvar,
}

impl Client {
    fn start(network: &Arc<Network>) -> Self {
        let shared = Arc::new(Shared::default());
        let (network, own) = (Arc::clone(network), Arc::clone(&shared));
        let thread = std::thread::spawn(move || {
            for number in 1.. {
                if own.over.load(Ordering::Relaxed) {
                    return;
                }
                let id = format!("under-load-{number}");
                // Of a transaction that fails the client knows nothing; that is its own concern here.
                let create = ["tx", "submit", "basic", "CreateAsset", &id, "blue", "5", "Ada", "300"];
                if network.json(&create).is_ok_and(|answer| answer["code"] == "VALID") {
                    own.committed.lock().unwrap_or_else(PoisonError::into_inner).push(id);
                    own.more.notify_all();
                }
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// Waits until so many more transactions were committed.
    fn progress(&self, count: usize) -> Result<()> {
        let committed = self.shared.committed.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = committed.len() + count;
        let waited =
            self.shared.more.wait_timeout_while(committed, PATIENCE, |committed| committed.len() < wanted);
        let (committed, _) = waited.unwrap_or_else(PoisonError::into_inner);
        ensure!(committed.len() >= wanted, "the client's transactions are not committed any more");
        Ok(())
    }

    /// Every transaction that was committed in the eyes of the client.
    fn end(mut self) -> Vec<String> {
        self.stop();
        std::mem::take(&mut *self.shared.committed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn stop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of it has been printed, and shows as missing progress.
            let _ended = thread.join();
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop();
    }
}

fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let limit = Instant::now() + PATIENCE;
    while !holds()? {
        ensure!(Instant::now() < limit, "in vain: {what}");
    }
    Ok(())
}

fn rows(network: &Network) -> Result<Vec<Value>> {
    let status = network.json(&["orderer", "status"])?;
    Ok(status["channels"].as_array().context("no list of channels")?.clone())
}

/// Waits until exactly these orderers have the channel, each with its relation, and one leads.
fn settled(network: &Network, wanted: &[(&str, &str)]) -> Result<()> {
    until(&format!("{wanted:?}"), || {
        let rows = rows(network)?;
        let is_there = |(host, relation): &(&str, &str)| {
            rows.iter().any(|row| {
                row["orderer"] == *host && row["relation"] == *relation && row["status"] == "active"
            })
        };
        let leaders = rows.iter().filter(|row| row["leader"] == true).count();
        Ok(leaders == 1 && rows.len() == wanted.len() && wanted.iter().all(is_there))
    })
}

/// Changes the consenters. Until a leader that was just elected has heard from the others it refuses, because it does not know that they are there.
fn change(network: &Network, what: &str, host: &str) -> Result<()> {
    let data = network.data();
    until(&format!("orderer consenters {what} {host}"), || {
        let outcome = consort(&["orderer", "consenters", what, host, "--network", &data.to_string_lossy()])?;
        if !outcome.success && outcome.stderr.contains("nodes are alive") {
            return Ok(false);
        }
        outcome.expect_success().map(|_| true)
    })
}

fn leader(network: &Network) -> Result<String> {
    let mut found = None;
    until("somebody leads", || {
        found = rows(network)?.iter().find(|row| row["leader"] == true).map(|row| row["orderer"].clone());
        Ok(found.is_some())
    })?;
    Ok(found.and_then(|host| host.as_str().map(str::to_owned)).unwrap_or_default())
}

/// SIGTERM.
fn stop(network: &Network, process: &str) -> Result<()> {
    let pid = network.pid(process)?;
    ensure!(Command::new("kill").args(["-TERM", &pid.to_string()]).status()?.success(), "kill failed");
    until(&format!("{process} stops"), || Ok(!is_running(pid)))
}

/// Adds a fourth orderer to the topology.
fn describe_a_fourth(network: &Network) -> Result<()> {
    let file = network.config().join("network.yaml");
    let text = std::fs::read_to_string(&file)?;
    let third = text.lines().find(|line| line.contains(THIRD)).context("no third orderer")?;
    let listeners = [0; 3].map(|port| TcpListener::bind(("127.0.0.1", port)));
    let mut ports = Vec::new();
    for listener in listeners {
        ports.push(listener?.local_addr()?.port());
    }
    let [port, admin, operations] = ports.as_slice() else { bail!("three ports were asked for") };
    let fourth = format!(
        "      - {{ host: {FOURTH}, port: {port}, admin_port: {admin}, operations_port: {operations} }}"
    );
    std::fs::write(&file, text.replace(third, &format!("{third}\n{fourth}")))?;
    Ok(())
}

#[test]
fn an_orderer_is_replaced_and_the_leader_removed_while_transactions_flow() -> Result<()> {
    let network = Arc::new(Network::start("two-org-raft")?);
    describe_a_fourth(&network)?;
    network.up()?;
    let consenter = |host| (host, "consenter");
    settled(&network, &[consenter(FIRST), consenter(SECOND), consenter(THIRD), (FOURTH, "follower")])?;
    // On one machine names are a table in each configuration, which is read at the start.
    for orderer in [FIRST, SECOND, THIRD] {
        stop(&network, orderer)?;
        network.up()?;
    }
    let client = Client::start(&network);
    client.progress(2)?;

    // Of three, the one that is lost goes first: with it among four, the two that are left would be no majority.
    stop(&network, THIRD)?;
    change(&network, "remove", THIRD)?;
    client.progress(2)?;
    change(&network, "add", FOURTH)?;
    settled(&network, &[consenter(FIRST), consenter(SECOND), consenter(FOURTH)])?;
    client.progress(2)?;

    let leading = leader(&network)?;
    change(&network, "remove", &leading)?;
    client.progress(2)?;
    let others = [FIRST, SECOND, FOURTH].into_iter().filter(|host| *host != leading);
    let mut wanted: Vec<(&str, &str)> = others.map(consenter).collect();
    settled(&network, &[wanted.as_slice(), &[(leading.as_str(), "follower")]].concat())?;
    network.json(&["orderer", "leave", &leading])?;
    settled(&network, &wanted)?;
    client.progress(2)?;

    // And back again, with nothing of before.
    network.up()?;
    change(&network, "add", &leading)?;
    wanted.push(consenter(&leading));
    until("all three are consenters", || {
        let rows = rows(&network)?;
        Ok(wanted.iter().all(|(host, _)| {
            rows.iter().any(|row| row["orderer"] == *host && row["relation"] == "consenter")
        }))
    })?;
    client.progress(2)?;
    for id in client.end() {
        let asset = network.json(&["tx", "evaluate", "basic", "ReadAsset", &id])?;
        ensure!(asset.to_string().contains(&id), "{id} was committed and is lost: {asset}");
    }
    Ok(())
}
