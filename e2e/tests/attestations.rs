//! What peers of several organisations say about their books, as processes: what they sign together is made at the configured
//! heights, fetched from one of them, and checked when none of them runs; who has other books is named.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use consort_e2e::{Network, Outcome, consort};
use consort_ledger::{Ledger, ValidatedBlock};
use consort_protos::block::{envelopes, flags};
use consort_protos::consort::attestations::{Attestation, State};
use consort_protos::fabric::common::Block;
use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::ids::{BlockNumber, ChannelId};
use consort_protos::transaction::Transaction;
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

const CHANNEL: &str = "mychannel";

/// Whose books are replaced, and who tell: the latter with the published ports of their operations.
const FORGED: &str = "peer0.org3.example.com";
const OTHERS: [(&str, u16); 2] = [("peer0.org1.example.com", 23444), ("peer0.org2.example.com", 24444)];

/// The block as a peer would write it that judges by other rules: its first transaction is refused.
fn judged_otherwise(block: Block, refuse: bool) -> Result<ValidatedBlock> {
    let codes = flags(&block).context("a committed block has flags")?.iter();
    let mut codes: Vec<_> =
        codes.map(|flag| TxValidationCode::try_from(i32::from(*flag))).collect::<Result<_, _>>()?;
    if refuse {
        ensure!(codes[0] == TxValidationCode::Valid, "the block's first transaction is {:?}", codes[0]);
        codes[0] = TxValidationCode::EndorsementPolicyFailure;
    }
    let open = |envelope: &bytes::Bytes| Transaction::open(envelope.clone()).ok().map(Arc::new);
    let transactions = envelopes(&block).iter().map(open).collect();
    Ok(ValidatedBlock::new(block, transactions, codes)?)
}

/// Puts books in the place of a stopped peer's that have the same blocks, with another verdict in the last of them.
fn forge_books(folder: &Path) -> Result<u64> {
    let channel = ChannelId::parse(CHANNEL)?;
    let forged = folder.with_extension("forged");
    let last = {
        let right = Ledger::open(folder, &channel)?;
        let block = |number| right.block(BlockNumber::new(number))?.context("it is below the height");
        let wrong = Ledger::create(&forged, &block(0)?)?;
        let last = right.height() - 1;
        for number in 1..=last {
            wrong.commit(judged_otherwise(block(number)?, number == last)?)?;
        }
        ensure!(wrong.last_hash() == right.last_hash(), "the blocks are the same");
        let hash = |ledger: &Ledger| ledger.commit_hash(BlockNumber::new(last));
        ensure!(hash(&right)? != hash(&wrong)?, "the commit hashes are not");
        last
    };
    fs::remove_dir_all(folder)?;
    fs::rename(&forged, folder)?;
    Ok(last)
}

#[test]
fn a_peer_with_other_books_is_named_by_all_others_until_it_has_joined_anew() -> Result<()> {
    let network = network()?;
    let create = |id: &str| {
        network.json(&["tx", "submit", "basic", "CreateAsset", id, "blue", "5", "Ada", "300"]).map(drop)
    };
    create("a")?;
    let asset = |peer: &str| network.consort(&["tx", "evaluate", "basic", "ReadAsset", "a", "--peer", peer]);
    until("the block at the third peer", || Ok(asset(FORGED)?.success))?;
    network.kill(FORGED)?;
    let books = |peer: &str| network.data().join("peers").join(peer);
    let folder = books(FORGED);
    let block = forge_books(&folder.join("channels").join(CHANNEL))?;
    network.up()?;

    let diverging = |count: u8| format!("diverging_peers{{channel=\"{CHANNEL}\"}} {count}\n");
    for (peer, port) in OTHERS {
        until("the number of peers with other books", || Ok(network.metrics(port)?.contains(&diverging(1))))?;
        let log = fs::read_to_string(network.data().join("logs").join(format!("{peer}.log")))?;
        let line = log.lines().find(|line| line.contains("books differ")).context("the log names it")?;
        for named in [FORGED, "Org3MSP", "consort ledger compare"] {
            ensure!(line.contains(named), "{named} is not named: {line}");
        }
    }
    // The two with the same books go on, and attest them without the third.
    for id in ["b", "c"] {
        create(id)?;
    }
    let attestation = attested(&network, OTHERS[0].0, block + EVERY_BLOCKS)?;
    assert_eq!(attestation.attesters.len(), OTHERS.len(), "{attestation:?}");

    // As the alarm says: the books are compared, and the wrong ones made anew from the blocks.
    network.down()?;
    let folders = [folder.clone(), books(OTHERS[0].0)].map(|folder| folder.display().to_string());
    let compared = consort(&["ledger", "compare", &folders[0], &folders[1]])?.expect_failure()?;
    assert!(compared.contains(&format!("block {block}")), "{compared}");
    fs::remove_dir_all(folder.join("channels").join(CHANNEL))?;
    network.up()?;
    for (_, port) in OTHERS {
        until("books that are equal again", || Ok(network.metrics(port)?.contains(&diverging(0))))?;
    }
    assert!(asset(FORGED)?.success);
    Ok(())
}

fn until(what: &str, mut reached: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + ATTESTED_WITHIN;
    while !reached()? {
        ensure!(Instant::now() < deadline, "waited in vain for {what}");
    }
    Ok(())
}
