//! The books of a stopped peer of a real network: looked at with the tools, backed up, and restored, as `docs/operations.md` says.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use consort_e2e::{Network, consort};
use serde_json::Value;

const PEER: &str = "peer0.org1.example.com";
/// Longest time in which a restored peer fetches what it lacks.
const PATIENCE: Duration = Duration::from_secs(30);

fn create(network: &Network, id: &str) -> Result<()> {
    let committed = network.json(&["tx", "submit", "basic", "CreateAsset", id, "blue", "5", "Ada", "300"])?;
    assert_eq!(committed["code"], "VALID", "{committed}");
    Ok(())
}

fn ledger(arguments: &[&str]) -> Result<Value> {
    let text = consort(&[&["ledger"], arguments, &["--output", "json"]].concat())?.expect_success()?;
    serde_json::from_str(&text).with_context(|| format!("not one JSON document: {text}"))
}

fn refusal(arguments: &[&str]) -> Result<String> {
    consort(&[&["ledger"], arguments].concat())?.expect_failure()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").args([from, to]).status()?;
    ensure!(status.success(), "{} cannot be copied", from.display());
    Ok(())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A network with one asset, all of it stopped, and the data folder of its peer.
fn stopped() -> Result<(Network, PathBuf)> {
    let network = Network::start("one-org-solo")?;
    create(&network, "before")?;
    let books = network.data().join("peers").join(PEER);
    let running = refusal(&["verify", text(&books)])?;
    assert!(running.contains("stop it first"), "{running}");
    network.down()?;
    Ok((network, books))
}

#[test]
fn the_tools_look_at_a_stopped_peer_and_explain_what_they_cannot_do() -> Result<()> {
    let (network, data) = stopped()?;
    let books = text(&data);
    let verified = ledger(&["verify", books])?;
    assert_eq!(verified["right"], true, "{verified}");
    let counted = ledger(&["stat", books])?;
    let height = counted["height"].as_u64().context("a height")?;
    assert_eq!(counted["height"], verified["blocks"], "{counted}");
    let file = network.data().join("last.pb");
    let last = (height - 1).to_string();
    let exported = ledger(&["export-block", books, &last, "--file", text(&file)])?;
    assert_eq!(exported["bytes"].as_u64(), Some(std::fs::metadata(&file)?.len()), "{exported}");
    assert_eq!(exported["transactions"][0]["code"], "VALID", "{exported}");
    let other = network.data().join("other");
    copy(&data, &other)?;
    let compared = ledger(&["compare", books, text(&other)])?;
    assert_eq!((&compared["equal"], &compared["state_compared"]), (&true.into(), &true.into()), "{compared}");

    let beyond = refusal(&["export-block", books, &height.to_string()])?;
    assert!(beyond.contains(&format!("its height is {height}")), "{beyond}");
    let nowhere = refusal(&["stat", text(&network.data().join("nowhere"))])?;
    assert!(nowhere.contains("give the peer's data folder"), "{nowhere}");
    let twice = refusal(&["compare", books, books])?;
    assert!(twice.contains("same folder"), "{twice}");
    let channel = refusal(&["verify", books, "--channel", "elsewhere"])?;
    assert!(channel.contains("joined the channel"), "{channel}");
    Ok(())
}

#[test]
fn a_restored_backup_catches_up_and_has_the_books_of_the_original() -> Result<()> {
    let (network, data) = stopped()?;
    let (backup, latest) = (network.data().join("backup"), network.data().join("latest"));
    copy(&data, &backup)?;
    network.up()?;
    create(&network, "after")?;
    network.down()?;
    std::fs::rename(&data, &latest)?;
    copy(&backup, &data)?;
    network.up()?;
    let limit = Instant::now() + PATIENCE;
    while let Err(error) = network.json(&["tx", "evaluate", "basic", "ReadAsset", "after"]) {
        ensure!(Instant::now() < limit, "the restored peer does not catch up: {error:#}");
    }
    network.down()?;
    let compared = ledger(&["compare", text(&data), text(&latest)])?;
    assert_eq!((&compared["equal"], &compared["state_compared"]), (&true.into(), &true.into()), "{compared}");
    let older = ledger(&["compare", text(&data), text(&backup)])?;
    assert_eq!((&older["equal"], &older["state_compared"]), (&true.into(), &false.into()), "{older}");
    Ok(())
}
