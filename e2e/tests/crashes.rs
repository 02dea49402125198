//! `kill -9` of nodes under a running network: what was committed stays, and the network goes on.

use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use consort_e2e::{Network, consort};

fn create(network: &Network, id: &str) -> Result<()> {
    let committed = network.json(&["tx", "submit", "basic", "CreateAsset", id, "blue", "5", "Ada", "300"])?;
    assert_eq!(committed["code"], "VALID", "{committed}");
    Ok(())
}

/// Who owns an asset, as soon as a peer knows it; a peer that was cut off may need a moment to catch up.
fn owner_at(network: &Network, peer: &str, id: &str) -> Result<String> {
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        match network.json(&["tx", "evaluate", "basic", "ReadAsset", id, "--peer", peer]) {
            Ok(read) => {
                let asset: serde_json::Value =
                    serde_json::from_str(read["result"].as_str().unwrap_or_default())?;
                return Ok(asset["Owner"].as_str().unwrap_or_default().to_owned());
            }
            Err(error) if Instant::now() > limit => return Err(error),
            Err(_) => {}
        }
    }
}

#[test]
fn a_network_survives_kill_9_of_an_orderer_and_of_a_peer() -> Result<()> {
    let network = Network::start("two-org-raft")?;
    create(&network, "before")?;

    network.kill("orderer.example.com")?;
    create(&network, "without-an-orderer")?;
    network.up()?;
    create(&network, "with-the-orderer-again")?;

    network.kill("peer0.org2.example.com")?;
    network.up()?;
    create(&network, "with-the-peer-again")?;
    for id in ["before", "without-an-orderer", "with-the-orderer-again", "with-the-peer-again"] {
        assert_eq!(owner_at(&network, "peer0.org1.example.com", id)?, "Ada");
        assert_eq!(owner_at(&network, "peer0.org2.example.com", id)?, "Ada");
    }

    // All at once, as in a power cut.
    for process in
        ["orderer.example.com", "orderer2.example.com", "orderer3.example.com", "peer0.org1.example.com"]
    {
        network.kill(process)?;
    }
    network.up()?;
    create(&network, "after-the-power-cut")?;
    assert_eq!(owner_at(&network, "peer0.org1.example.com", "before")?, "Ada");
    assert_eq!(owner_at(&network, "peer0.org2.example.com", "after-the-power-cut")?, "Ada");
    Ok(())
}

/// Kills of a peer under load, unless `CONSORT_TEST_KILLS` says otherwise.
const PEER_KILLS: u32 = 15;
/// Kills after which a run says how far it has come.
const PROGRESS_KILLS: u32 = 100;
/// Longest time from a peer's start to its end: most ends come while it opens its books, or catches up.
const LIFE_MAX: Duration = Duration::from_millis(800);
/// Longest time in which a peer that lives catches up.
const PATIENCE: Duration = Duration::from_secs(120);

const UNTOUCHED: &str = "peer0.org1.example.com";
const VICTIM: &str = "peer0.org2.example.com";

/// A process that does not outlive the test.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Writes through the peer that nobody kills until it is told to stop; returns how many writes were committed.
fn load(network: &Network, stop: &AtomicBool) -> Result<u64> {
    let mut committed = 0;
    while !stop.load(Ordering::Relaxed) {
        let arguments = ["load", "put", "--clients", "8", "--duration", "2", "--warm-up", "0"];
        committed += network.json(&[&arguments[..], &["--peer", UNTOUCHED]].concat())?["valid"]
            .as_u64()
            .context("the load does not say how many transactions are valid")?;
    }
    Ok(committed)
}

/// Starts and kills the peer as often as wanted, unless the load ends before.
fn kill_again_and_again(network: &Network, until_ended: &mpsc::Receiver<()>, seed: u64) -> Result<u32> {
    let kills = setting("CONSORT_TEST_KILLS", PEER_KILLS);
    eprintln!("{kills} kills with CONSORT_TEST_SEED={seed}");
    let begin = Instant::now();
    let mut dice = seed;
    for kill in 0..kills {
        if kill > 0 && kill.is_multiple_of(PROGRESS_KILLS) {
            eprintln!("{kill} kills in {} s", begin.elapsed().as_secs());
        }
        // A linear congruential generator: any spread-out sequence will do.
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let life = LIFE_MAX.mul_f64((dice >> 33) as f64 / f64::from(1_u32 << 31));
        let mut victim = Victim(network.spawn(VICTIM)?);
        let waited = until_ended.recv_timeout(life);
        ensure!(waited == Err(mpsc::RecvTimeoutError::Timeout), "the load ended, seed {seed}");
        let ended = victim.0.try_wait()?;
        ensure!(ended.is_none(), "{VICTIM} ended by itself ({ended:?}), seed {seed}");
    }
    Ok(kills)
}

fn height(network: &Network, peer: &str) -> Result<u64> {
    let (config, data) = (network.config().display().to_string(), network.data().display().to_string());
    let asked = ["network", "status", "--config", &config, "--data", &data, "--output", "json"];
    let status: serde_json::Value = serde_json::from_str(&consort(&asked)?.expect_success()?)?;
    let processes = status["processes"].as_array().cloned().unwrap_or_default();
    let own = processes.into_iter().find(|process| process["name"] == peer);
    own.and_then(|own| own["height"].as_u64()).with_context(|| format!("{peer} says no height"))
}

#[test]
fn the_books_of_a_peer_that_is_killed_again_and_again_equal_those_of_another_one() -> Result<()> {
    let seed = setting("CONSORT_TEST_SEED", 20);
    let network = Network::copy("load")?;
    // Either peer's endorsement does, so that blocks come while one of them is down.
    let topology = network.config().join("network.yaml");
    let text = std::fs::read_to_string(&topology)?;
    let either = "    endorsement_policy: \"OR('Org1MSP.peer', 'Org2MSP.peer')\"\n    collections:";
    std::fs::write(&topology, text.replace("    collections:", either))?;
    network.up()?;
    let stop = AtomicBool::new(false);
    network.kill(VICTIM)?;
    let (ended, until_ended) = mpsc::sync_channel::<()>(1);
    let (kills, committed) = std::thread::scope(|scope| -> Result<(u32, u64)> {
        let loader = scope.spawn(|| {
            let committed = load(&network, &stop);
            drop(ended);
            committed
        });
        let killed = kill_again_and_again(&network, &until_ended, seed);
        stop.store(true, Ordering::Relaxed);
        let committed = loader.join().expect("the load does not panic")?;
        Ok((killed?, committed))
    })?;
    assert!(committed > 0, "nothing was committed between {kills} kills, seed {seed}");
    network.up()?;
    let last = height(&network, UNTOUCHED)?;
    let limit = Instant::now() + PATIENCE;
    while height(&network, VICTIM)? < last {
        ensure!(Instant::now() < limit, "{VICTIM} does not catch up, seed {seed}");
    }
    network.down()?;
    let books = |peer: &str| network.data().join("peers").join(peer).display().to_string();
    let (killed, untouched) = (books(VICTIM), books(UNTOUCHED));
    let compared = consort(&["ledger", "compare", &killed, &untouched, "--output", "json"])?;
    let compared: serde_json::Value = serde_json::from_str(&compared.expect_success()?)?;
    assert_eq!(compared["equal"], true, "seed {seed}: {compared}");
    assert_eq!(compared["state_compared"], true, "seed {seed}: {compared}");
    consort(&["ledger", "verify", &killed])?.expect_success()?;
    println!("{kills} kills while {committed} transactions were committed in {last} blocks");
    Ok(())
}
