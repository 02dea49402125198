//! Sealed data as its users see it: the hospital network, by the command line.

mod outsider;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use consort_crypto::pre;
use consort_e2e::{Network, Outcome};
use consort_protos::sealed::share_context;
use serde_json::Value;

use outsider::{Outsider, Secret, check, holders, log_everything, metrics};

const OWNER: &str = "Doctor@stanna.example.com";
const READER: &str = "Doctor@riverside.example.com";
const PROXIES: [&str; 3] =
    ["peer0.lakeside.example.com", "peer0.insurer.example.com", "peer0.institute.example.com"];
const SECRET: &str = "pacemaker since 2025, Prague";

/// Longest that nodes may be too busy to answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// A network with a record that is granted to the reader by two of three proxies.
fn granted() -> Result<Network> {
    let network = Network::start("hospital")?;
    grant(&network)?;
    Ok(network)
}

/// Repeats a command while it says that proxies were too busy to answer, as those who use it do; `retry` gives the next command.
fn patiently(
    network: &Network,
    mut command: Vec<String>,
    mut retry: impl FnMut(&Outcome) -> Option<Vec<String>>,
) -> Result<Value> {
    let until = Instant::now() + PATIENCE;
    loop {
        let words: Vec<&str> = command.iter().map(String::as_str).chain(["--output", "json"]).collect();
        let outcome = network.consort(&words)?;
        match retry(&outcome) {
            Some(next) if !outcome.success && Instant::now() < until => command = next,
            _ => return Ok(serde_json::from_str(&outcome.expect_success()?)?),
        }
    }
}

fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|word| (*word).to_owned()).collect()
}

/// Seals a record and grants it; all proxies have signed for their shares. One that is busy for seconds is left out of a grant or does
/// not take its share in time, and then it is asked again.
fn grant(network: &Network) -> Result<()> {
    let card = network.json(&["sealed", "whoami", "--as", READER])?;
    let file = network.config().join("reader.json");
    std::fs::write(&file, card.to_string())?;
    network.json(&["sealed", "domain", "wards", "--as", OWNER])?;
    network.json(&["sealed", "seal", "wards", "p17", "--text", SECRET, "--as", OWNER])?;
    let named = PROXIES.iter().flat_map(|proxy| ["--proxy", proxy]);
    let more: Vec<&str> = ["--key", "p17"].into_iter().chain(named).collect();
    let wish = grant_of(network, "g1", &more);
    let granted = patiently(network, wish.clone(), |refused| {
        refused.stderr.contains("Nothing was granted").then(|| wish.clone())
    })?;
    if granted["undelivered"] != Value::Array(vec![]) {
        let deliver = words(&["sealed", "deliver", "g1", "--as", OWNER]);
        let delivered = patiently(network, deliver.clone(), |failed| {
            failed.stderr.contains("nothing is lost").then(|| deliver.clone())
        })?;
        assert_eq!(delivered["receipts"], 3, "{delivered}");
    }
    Ok(())
}

/// The command that grants to the reader, by two proxies.
fn grant_of(network: &Network, name: &str, more: &[&str]) -> Vec<String> {
    let reader = network.config().join("reader.json").display().to_string();
    let grant = ["sealed", "grant", name, "wards", "--reader", &reader, "--threshold", "2", "--as", OWNER];
    words(&[&grant[..], more].concat())
}

/// Grants to the reader, by two proxies.
fn grant_again(network: &Network, name: &str, more: &[&str]) -> Result<Value> {
    let command = grant_of(network, name, more);
    network.json(&command.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Where a proxy keeps what it has of sealed data.
fn vault(network: &Network, proxy: &str) -> PathBuf {
    network.data().join("peers").join(proxy).join("sealed")
}

/// Reads the record. The reader's peer may come to the grant later than the owner's; when too few proxies answer in time, the request
/// stands on the ledger and is opened again.
fn read(network: &Network) -> Result<Value> {
    let read = words(&["sealed", "read", "g1", "wards", "p17", "--as", READER]);
    patiently(network, read.clone(), |failed| {
        if failed.stderr.contains("chaincode response 404") {
            return Some(read.clone());
        }
        let (_, rest) = failed.stderr.split_once("Nothing is lost: request ")?;
        let request = rest.split_whitespace().next()?;
        Some(words(&["sealed", "open", request, "--as", READER]))
    })
}

#[test]
fn the_walk_through_of_the_hospital_network_comes_out() -> Result<()> {
    let network = Network::copy("hospital")?;
    let text = network.command("demo")?.expect_success()?;
    for line in [
        "opened: Jana Novak, born 1984: blood group 0-",
        "3 of 3 proxies checked their shares and signed for them; 2 must answer",
        "2 proxies answered, each with a proof that its answer is right",
        "refused, because no peer endorses the request:",
        "was revoked by transaction",
        "revoked by Doctor@stanna.example.com (StAnnaMSP): the patient was discharged",
    ] {
        assert!(text.contains(line), "{line:?} is missing in\n{text}");
    }
    Ok(())
}

#[test]
fn a_record_is_read_while_enough_proxies_answer_and_nothing_is_lost_when_they_do_not() -> Result<()> {
    let network = granted()?;
    assert_eq!(read(&network)?["record"], SECRET);

    network.kill(PROXIES[0])?;
    let with_two = read(&network)?;
    assert_eq!(with_two["record"], SECRET, "{with_two}");

    network.kill(PROXIES[1])?;
    let request = network.json(&["sealed", "request", "g1", "wards", "p17", "--as", READER])?;
    let request = request["request"].as_str().context("no request")?.to_owned();
    let with_one = network.consort(&["sealed", "open", &request, "--as", READER])?.expect_failure()?;
    assert!(with_one.contains("1 of the 2 answers needed came"), "{with_one}");
    assert!(
        with_one.contains("peer0.lakeside.example.com") && with_one.contains("(InsurerMSP)"),
        "{with_one}"
    );
    assert!(with_one.contains("Nothing is lost"), "{with_one}");

    network.up()?;
    let later = network.json(&["sealed", "open", &request, "--as", READER])?;
    assert_eq!(later["record"], SECRET, "{later}");
    Ok(())
}

#[test]
fn nobody_else_reads_a_record_and_nobody_after_its_revocation() -> Result<()> {
    let network = granted()?;
    assert_eq!(read(&network)?["record"], SECRET);
    let stranger = "Researcher@institute.example.com";
    let refused =
        network.consort(&["sealed", "read", "g1", "wards", "p17", "--as", stranger])?.expect_failure()?;
    assert!(refused.contains("is not for"), "{refused}");
    let refused = network.consort(&["sealed", "show", "wards", "p17", "--as", stranger])?.expect_failure()?;
    assert!(refused.contains("this key is not the domain's"), "{refused}");

    network.json(&["sealed", "revoke", "g1", "--reason", "discharged", "--as", OWNER])?;
    let refused =
        network.consort(&["sealed", "read", "g1", "wards", "p17", "--as", READER])?.expect_failure()?;
    assert!(refused.contains("was revoked"), "{refused}");
    let audit = network.json(&["sealed", "audit", "--record", "wards/p17"])?;
    assert_eq!(audit[0]["requests"].as_array().map(Vec::len), Some(1), "{audit}");
    assert_eq!(audit[0]["revocation_reason"], "discharged", "{audit}");
    assert_eq!(network.json(&["sealed", "show", "wards", "p17", "--as", OWNER])?["record"], SECRET);
    Ok(())
}

/// Waits until a request is in a block of this peer: one that is busy comes to it later than the reader's.
async fn until_there(outsider: &Outsider, request: &str) -> Result<()> {
    let request = Secret::new("", request.as_bytes());
    let until = Instant::now() + PATIENCE;
    while !outsider.blocks().await?.iter().any(|block| request.is_in(block)) {
        ensure!(Instant::now() < until, "the request is in no block");
    }
    Ok(())
}

#[test]
fn neither_records_nor_shares_are_in_any_file_log_metric_block_or_answer() -> Result<()> {
    let network = Network::start("hospital")?;
    log_everything(&network)?;
    grant(&network)?;
    let mut secrets = vec![Secret::new("the record", SECRET.as_bytes())];
    let mut sealed = Vec::new();
    for (proxy, index) in PROXIES.iter().zip(1..) {
        // As the proxy opens its share: with its key, which nobody else has.
        let key = std::fs::read(vault(&network, proxy).join("keys/p256.key"))?;
        let kept = std::fs::read(vault(&network, proxy).join("channels/patients/shares/g1"))?;
        let key = pre::SecretKey::from_bytes(pre::Suite::P256, &key)?;
        let share = pre::open_sealed(&key, &share_context("patients", "g1", index), &kept[4..])?;
        secrets.push(Secret::new(format!("share {index}"), &share[2..]));
        sealed.push(Secret::new(format!("sealed share {index}"), &kept[4..]));
    }
    for (share, proxy) in sealed.into_iter().zip(PROXIES) {
        let found = holders(&network.data(), &[share])?;
        assert!(found.len() == 1 && found[0].contains(proxy), "what is there is found: {found:?}");
    }
    let opened = read(&network)?;
    assert_eq!(opened["record"], SECRET);
    let request = opened["request"].as_str().context("no request")?;
    let outsider = Outsider::new(&network, ("institute", "InstituteMSP", "Researcher"), ("patients", 45051))?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(until_there(&outsider, request))?;

    let stranger = "Researcher@institute.example.com";
    let refused = network.consort(&["sealed", "open", request, "--as", stranger])?.expect_failure()?;
    assert!(refused.contains("this key is not the reader's"), "{refused}");
    for command in [
        vec!["sealed", "read", "g1", "wards", "p17"],
        vec!["sealed", "show", "wards", "p17"],
        vec!["sealed", "open", request],
        vec!["sealed", "audit", "--grant", "g1"],
        vec!["sealed", "audit", "--record", "wards/p17"],
    ] {
        let outcome = network.consort(&[&command[..], &["--as", stranger]].concat())?;
        check(&secrets, &command.join(" "), (outcome.stdout + &outcome.stderr).as_bytes());
    }
    runtime.block_on(async {
        outsider.blocks().await?.iter().for_each(|block| check(&secrets, "a block", block));
        for (peer, port) in
            [("stanna", 41051), ("riverside", 42051), ("lakeside", 43051), ("institute", 45051)]
        {
            check(
                &secrets,
                "discovery",
                &outsider.at(&network, peer, port)?.discovered("_sealed", &[]).await?,
            );
        }
        anyhow::Ok(())
    })?;
    for text in metrics(&network)? {
        check(&secrets, "the metrics of a node", text.as_bytes());
    }
    // Owner, reader, proxies, orderers, logs of all that was done: nobody has written it down, also not after it was opened.
    assert_eq!(holders(&network.data(), &secrets)?, [] as [String; 0]);
    Ok(())
}

#[test]
fn a_share_that_its_proxy_did_not_take_waits_until_it_does() -> Result<()> {
    let network = granted()?;
    let [down, other, _] = PROXIES;
    // The proxy describes itself, and cannot write.
    let shares = vault(&network, down).join("channels/patients/shares");
    let away = shares.with_extension("away");
    std::fs::rename(&shares, &away)?;
    std::fs::write(&shares, "in the way")?;
    let grant = grant_again(&network, "g2", &["--key", "p17"])?;
    assert_eq!(grant["receipts"], 2, "{grant}");
    let undelivered = grant["undelivered"].to_string();
    assert!(undelivered.contains(down) && !undelivered.contains(other), "{grant}");
    let deliver = |grant: &str| network.consort(&["sealed", "deliver", grant, "--as", OWNER]);
    let failed = deliver("g2")?.expect_failure()?;
    assert!(
        failed.contains(&format!("not delivered: {down}")) && failed.contains("nothing is lost"),
        "{failed}"
    );
    network.kill(down)?;
    let failed = deliver("g2")?.expect_failure()?;
    assert!(failed.contains("(LakesideMSP): it does not answer"), "{failed}");
    assert!(failed.contains("2 of 3 proxies of grant g2 have their shares; 2 must answer"), "{failed}");
    std::fs::remove_file(&shares)?;
    std::fs::rename(&away, &shares)?;

    // Who is down now is no proxy of a new grant, unless it is named: then there is none.
    let without = grant_again(&network, "g3", &[])?;
    assert_eq!(without["receipts"], 2, "{without}");
    assert!(without["left_out"].to_string().contains(down), "{without}");
    let named = grant_again(&network, "g4", &["--proxy", down, "--proxy", other]).unwrap_err().to_string();
    assert!(named.contains("not all of the proxies that were named can serve"), "{named}");
    assert!(
        named.contains(down) && !named.contains(other) && named.contains("Nothing was granted"),
        "{named}"
    );

    network.up()?;
    let done = network.json(&["sealed", "deliver", "g2", "--as", OWNER])?;
    assert_eq!((&done["receipts"], &done["undelivered"]), (&3.into(), &Value::Array(vec![])), "{done}");
    assert!(done["acknowledged"].to_string().contains(down), "{done}");
    let nothing = deliver("g2")?.expect_failure()?;
    assert!(nothing.contains("no shares of grant g2 wait"), "{nothing}");
    // The share serves: the others are away.
    network.kill(other)?;
    let opened = network.json(&["sealed", "read", "g2", "wards", "p17", "--as", READER])?;
    assert_eq!(opened["record"], SECRET, "{opened}");
    assert!(opened["proxies"].to_string().contains(down), "{opened}");
    Ok(())
}

#[test]
fn a_reader_who_lost_the_key_is_told_so_and_no_use_is_spent() -> Result<()> {
    let network = granted()?;
    let folder =
        network.peer_organisation("riverside.example.com").join("users/Doctor@riverside.example.com");
    let (secret, backup) = (folder.join("sealed-data.secret"), folder.join("backup"));
    std::fs::rename(&secret, &backup)?;
    let refused =
        network.consort(&["sealed", "read", "g1", "wards", "p17", "--as", READER])?.expect_failure()?;
    assert!(refused.contains("this key is not the reader's"), "{refused}");
    assert!(refused.contains("gives the owner a new reader key, for a new grant"), "{refused}");
    let audit = network.json(&["sealed", "audit", "--grant", "g1"])?;
    assert_eq!(audit[0]["requests"].as_array().map(Vec::len), Some(0), "{audit}");
    std::fs::rename(&backup, &secret)?;
    assert_eq!(read(&network)?["record"], SECRET);
    Ok(())
}

#[test]
fn impossible_wishes_are_refused_with_the_reason() -> Result<()> {
    let network = granted()?;
    let reader = network.config().join("reader.json").display().to_string();
    let wish = |threshold: &str, domain: &str| {
        network
            .consort(&[
                "sealed",
                "grant",
                "g2",
                domain,
                "--reader",
                &reader,
                "--threshold",
                threshold,
                "--as",
                OWNER,
            ])?
            .expect_failure()
    };
    let none = wish("0", "wards")?;
    assert!(none.contains("a threshold of 0 among 3 proxies is not possible"), "{none}");
    let many = wish("4", "wards")?;
    assert!(many.contains("4 proxies must answer, and only 3 can serve"), "{many}");
    let unknown = wish("2", "labs")?;
    assert!(unknown.contains("labs"), "{unknown}");
    let again = network.consort(&["sealed", "domain", "wards", "--as", OWNER])?.expect_failure()?;
    assert!(again.contains("exists already"), "{again}");
    Ok(())
}
