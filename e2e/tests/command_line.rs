//! The command line as scripts and people use it: every noun answers in words and in JSON, says what is wrong with what it was
//! given, and ends with the exit code that `consort --help` lists.

use anyhow::{Result, ensure};
use consort_e2e::{Network, Outcome, consort};

/// Questions that change nothing, one or more of each noun.
const QUESTIONS: [&str; 22] = [
    "network status",
    "ca info",
    "ca audit",
    "ca affiliations list",
    "ca certificates list --valid",
    "identity list",
    "channel list",
    "channel list --orderer orderer.example.com",
    "channel info",
    "channel info --orderer orderer.example.com",
    "channel policy --path /Channel/Application/Writers",
    "chaincode query",
    "chaincode query basic",
    "chaincode readiness basic --version 2.0",
    "tx evaluate basic GetAllAssets",
    "block show newest",
    "block show 0",
    "orderer status",
    "peer status",
    "peer private",
    "doctor",
    "context list",
];

/// What is wrong, and what the message must say.
const WRONG: [(&str, &str); 11] = [
    ("ca info --org org9.example.com", "org1.example.com"),
    ("identity show /nonexistent", "/nonexistent"),
    ("channel info --orderer orderer9.example.com", "known are: orderer.example.com"),
    ("channel fetch 999999 --to /tmp/never.block", "NOT_FOUND"),
    ("channel plan /nonexistent.yaml", "/nonexistent.yaml"),
    ("channel join --orderer orderer.example.com", "--block"),
    ("chaincode query nothing", "no definition of 'nothing'"),
    ("tx evaluate basic ReadAsset nothing", "nothing"),
    ("tx evaluate basic ReadAsset nothing --as Eve@org1.example.com", "known are: Admin, User1"),
    ("block show 999999", "999999"),
    ("orderer leave orderer9.example.com", "known are: orderer.example.com"),
];

/// Every noun of the command line.
const NOUNS: [&str; 15] = [
    "network",
    "ca",
    "identity",
    "channel",
    "chaincode",
    "tx",
    "block",
    "ledger",
    "orderer",
    "peer",
    "config",
    "context",
    "sealed",
    "completion",
    "load",
];

/// Runs a command on a network that the environment does not name.
fn on(network: &Network, line: &str) -> Result<Outcome> {
    let mut words: Vec<&str> = line.split(' ').collect();
    let data = network.data().display().to_string();
    match words[0] {
        "context" => {}
        "network" => words.extend(["--data", &data]),
        _ if line.starts_with("identity show") => {}
        _ => words.extend(["--network", &data]),
    }
    consort(&words)
}

#[test]
fn every_noun_answers_in_words_and_in_json_and_says_what_is_wrong() -> Result<()> {
    let network = Network::start("one-org-solo")?;
    let mut faults = Vec::new();
    for line in QUESTIONS {
        let words = on(&network, line)?;
        let json = on(&network, &format!("{line} --output json"))?;
        let answers = serde_json::from_str::<serde_json::Value>(&json.stdout).is_ok();
        if !words.success || words.stdout.trim().is_empty() || !json.success || !answers {
            faults.push(format!("{line}:\n{words:?}\n{json:?}"));
        }
    }
    for (line, says) in WRONG {
        let outcome = on(&network, line)?;
        let is_named = outcome.stderr.starts_with("error: ") && outcome.stderr.contains(says);
        if outcome.code != Some(1) || !is_named || !outcome.stdout.is_empty() {
            faults.push(format!("{line} does not say '{says}':\n{outcome:?}"));
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    network.down()?;
    let outcome = on(&network, "tx evaluate basic GetAllAssets")?;
    ensure!(outcome.code == Some(4), "nobody is reached: {outcome:?}");
    Ok(())
}

#[test]
fn a_wrong_command_line_ends_with_2_and_every_noun_has_its_help() -> Result<()> {
    for noun in NOUNS {
        let outcome = consort(&[noun, "--no-such-option"])?;
        ensure!(outcome.code == Some(2) && outcome.stdout.is_empty(), "{noun}: {outcome:?}");
        let help = consort(&[noun, "--help"])?.expect_success()?;
        ensure!(help.contains("Usage: consort"), "{help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = consort(&["completion", shell])?.expect_success()?;
        ensure!(script.contains("chaincode"), "{shell}");
    }
    Ok(())
}

#[test]
fn a_transaction_of_which_nobody_can_tell_ends_with_5_and_can_be_asked_about_later() -> Result<()> {
    let network = Network::start("one-org-solo")?;
    // The orderer keeps its connections, takes what it is sent, and answers nothing.
    network.freeze("orderer.example.com")?;
    let outcome = on(&network, "tx submit basic CreateAsset late blue 5 Tomoko 300 --wait 2");
    network.thaw("orderer.example.com")?;
    let outcome = outcome?;
    ensure!(outcome.code == Some(5) && outcome.stdout.is_empty(), "nobody can tell: {outcome:?}");
    let rest = outcome.stderr.split("consort tx watch ").nth(1).unwrap_or_default();
    let id: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
    ensure!(id.len() == 64, "the message names the transaction: {outcome:?}");
    // Both copies that were handed over are one transaction.
    let watched = on(&network, &format!("tx watch {id}"))?.expect_success()?;
    ensure!(watched.contains("VALID"), "{watched}");
    let asset = on(&network, "tx evaluate basic ReadAsset late")?.expect_success()?;
    ensure!(asset.contains("Tomoko"), "{asset}");
    Ok(())
}
