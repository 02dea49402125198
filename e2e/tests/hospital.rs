//! Sealed data as its users see it: the hospital network, by the command line.

use std::path::Path;

use anyhow::{Context, Result};
use consort_e2e::Network;
use serde_json::Value;

const OWNER: &str = "Doctor@stanna.example.com";
const READER: &str = "Doctor@riverside.example.com";
const PROXIES: [&str; 3] =
    ["peer0.lakeside.example.com", "peer0.insurer.example.com", "peer0.institute.example.com"];
const SECRET: &str = "pacemaker since 2025, Prague";

/// A network with a record that is granted to the reader by two of three proxies.
fn granted() -> Result<Network> {
    let network = Network::start("hospital")?;
    let card = network.json(&["sealed", "whoami", "--as", READER])?;
    let file = network.config().join("reader.json");
    std::fs::write(&file, card.to_string())?;
    network.json(&["sealed", "domain", "wards", "--as", OWNER])?;
    network.json(&["sealed", "seal", "wards", "p17", "--text", SECRET, "--as", OWNER])?;
    let reader = file.display().to_string();
    let grant = network.json(&[
        "sealed",
        "grant",
        "g1",
        "wards",
        "--reader",
        &reader,
        "--threshold",
        "2",
        "--key",
        "p17",
        "--as",
        OWNER,
    ])?;
    assert_eq!((&grant["receipts"], &grant["undelivered"]), (&3.into(), &Value::Array(vec![])), "{grant}");
    Ok(network)
}

fn read(network: &Network) -> Result<Value> {
    network.json(&["sealed", "read", "g1", "wards", "p17", "--as", READER])
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
fn nobody_else_reads_a_record_and_its_text_is_on_no_disk() -> Result<()> {
    let network = granted()?;
    assert_eq!(read(&network)?["record"], SECRET);
    let stranger = "Researcher@institute.example.com";
    let refused =
        network.consort(&["sealed", "read", "g1", "wards", "p17", "--as", stranger])?.expect_failure()?;
    assert!(refused.contains("is not for"), "{refused}");
    let refused = network.consort(&["sealed", "show", "wards", "p17", "--as", stranger])?.expect_failure()?;
    assert!(refused.contains("this key does not open these bytes"), "{refused}");

    network.json(&["sealed", "revoke", "g1", "--reason", "discharged", "--as", OWNER])?;
    let refused =
        network.consort(&["sealed", "read", "g1", "wards", "p17", "--as", READER])?.expect_failure()?;
    assert!(refused.contains("was revoked"), "{refused}");
    let audit = network.json(&["sealed", "audit", "--record", "wards/p17"])?;
    assert_eq!(audit[0]["requests"].as_array().map(Vec::len), Some(1), "{audit}");
    assert_eq!(audit[0]["revocation_reason"], "discharged", "{audit}");
    assert_eq!(network.json(&["sealed", "show", "wards", "p17", "--as", OWNER])?["record"], SECRET);
    assert!(holders(&network.data(), SECRET.as_bytes())?.is_empty());
    Ok(())
}

/// Files below a folder that hold some bytes.
fn holders(folder: &Path, needle: &[u8]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(holders(&path, needle)?);
        } else if path.is_file() {
            let bytes = std::fs::read(&path).unwrap_or_default();
            if bytes.windows(needle.len()).any(|window| window == needle) {
                found.push(path.display().to_string());
            }
        }
    }
    Ok(found)
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
