//! What peers of several organisations sign together about their books, as processes: made at the configured heights, fetched
//! from one of them, and checked when none of them runs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use consort_e2e::{Network, Outcome, consort};
use consort_protos::consort::attestations::{Attestation, State};
use prost::Message;

/// Blocks between two attested heights.
const EVERY_BLOCKS: u64 = 2;

/// Peers exchange every two seconds.
const ATTESTED_WITHIN: Duration = Duration::from_secs(60);

fn network() -> Result<Network> {
    let network = Network::copy("aggregated")?;
    let file = network.config().join("network.yaml");
    let text = std::fs::read_to_string(&file)?;
    let name = "  name: mychannel\n";
    ensure!(text.contains(name), "{text}");
    std::fs::write(&file, text.replace(name, &format!("{name}  attest_every_blocks: {EVERY_BLOCKS}\n")))?;
    network.up()?;
    Ok(network)
}

/// A file that the test writes or has written.
fn file(network: &Network, name: &str) -> PathBuf {
    network.config().join(name)
}

fn fetch(network: &Network, what: &str, to: &Path) -> Result<()> {
    network.consort(&["channel", "fetch", what, "--to", &to.to_string_lossy()])?.expect_success()?;
    Ok(())
}

/// Asks a peer for its newest attestation until it is about a height of at least so many blocks.
fn attested(network: &Network, peer: &str, height_min: u64) -> Result<Attestation> {
    let (deadline, to) = (Instant::now() + ATTESTED_WITHIN, file(network, "books.attestation"));
    loop {
        let asked = network.consort(&[
            "ledger",
            "attest",
            "--to",
            &to.to_string_lossy(),
            "--peer",
            peer,
            "--as",
            &as_user(peer),
        ])?;
        if asked.success {
            let attestation = Attestation::decode(std::fs::read(&to)?.as_slice())?;
            if attestation.state.as_ref().is_some_and(|state| state.height >= height_min) {
                return Ok(attestation);
            }
        } else {
            ensure!(asked.stderr.contains("no attestation yet"), "{}", asked.stderr);
        }
        ensure!(Instant::now() < deadline, "no attestation at height {height_min}: {asked:?}");
    }
}

/// A user of a peer's organisation.
fn as_user(peer: &str) -> String {
    format!("User1@{}", peer.split_once('.').map_or(peer, |(_, domain)| domain))
}

fn verify(attestation: &Path, config: &Path, block: Option<&Path>) -> Result<Outcome> {
    let [attestation, config] = [attestation, config].map(Path::to_string_lossy);
    let mut arguments = vec!["ledger", "verify-attestation", &attestation, "--config", &config];
    let block = block.map(Path::to_string_lossy);
    if let Some(block) = &block {
        arguments.extend(["--block", block]);
    }
    consort(&arguments)
}

/// The attestation with another statement or other attesters.
fn changed(good: &Attestation, change: impl Fn(&mut State, &mut Attestation)) -> Attestation {
    let mut changed = good.clone();
    let mut state = changed.state.take().expect("an attestation states something");
    change(&mut state, &mut changed);
    changed.state = Some(state);
    changed
}

#[test]
fn what_organisations_attest_is_checked_off_line_with_nothing_but_a_configuration_block() -> Result<()> {
    let network = network()?;
    let first = attested(&network, "peer0.org1.example.com", EVERY_BLOCKS)?;
    let before = first.state.context("a state")?.height;
    for id in ["a", "b"] {
        let create = ["tx", "submit", "basic", "CreateAsset", id, "blue", "5", "Ada", "300"];
        network.consort(&create)?.expect_success()?;
    }
    let good = attested(&network, "peer0.org2.example.com", before + EVERY_BLOCKS)?;
    let state = good.state.clone().context("a state")?;
    assert_eq!(state.height % EVERY_BLOCKS, 0, "{state:?}");

    let [books, config, block, earlier] =
        ["books.attestation", "config.block", "attested.block", "earlier.block"]
            .map(|name| file(&network, name));
    fetch(&network, "config", &config)?;
    fetch(&network, &(state.height - 1).to_string(), &block)?;
    fetch(&network, &(state.height - 2).to_string(), &earlier)?;
    network.down()?;

    let shown = verify(&books, &config, Some(&block))?.expect_success()?;
    assert!(shown.contains(&format!("channel mychannel at height {}", state.height)), "{shown}");
    let commit_hash: String = state.commit_hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(shown.contains(&format!("its commit hash {commit_hash}")), "{shown}");
    let organisations =
        ["Org1MSP", "Org2MSP", "Org3MSP"].iter().filter(|name| shown.contains(**name)).count();
    assert!(organisations >= 2, "a majority of three signed: {shown}");

    for (tampered, reason) in [
        (changed(&good, |state, _| state.height += 1), "the signature does not hold"),
        (changed(&good, |state, _| state.commit_hash = vec![7; 32].into()), "the signature does not hold"),
        (changed(&good, |state, _| state.channel = "other".to_owned()), "it is about channel other"),
        (changed(&good, |_, all| drop(all.attesters.pop())), "the signature does not hold"),
        (changed(&good, |_, all| all.attesters.push(all.attesters[0].clone())), "stands there twice"),
    ] {
        let path = file(&network, "tampered.attestation");
        std::fs::write(&path, tampered.encode_to_vec())?;
        let refused = verify(&path, &config, None)?.expect_failure()?;
        assert!(refused.contains("the attestation does not hold") && refused.contains(reason), "{refused}");
    }
    let refused = verify(&books, &config, Some(&earlier))?.expect_failure()?;
    assert!(refused.contains("is not the one that was attested"), "{refused}");
    let refused = verify(&books, &block, None)?.expect_failure()?;
    assert!(refused.contains("consort channel fetch config"), "{refused}");

    // Peers that start again sign the same books again.
    network.up()?;
    attested(&network, "peer0.org2.example.com", state.height)?;
    Ok(())
}
