//! What an administrator and a curious user do from the command line, on a running network.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use consort_e2e::{Network, Outcome};

fn batch_size(network: &Network) -> Result<u64> {
    let block = network.json(&["block", "show", "config"])?;
    let orderer =
        &block["data"]["data"][0]["payload"]["data"]["config"]["channel_group"]["groups"]["Orderer"];
    orderer["values"]["BatchSize"]["value"]["max_message_count"]
        .as_u64()
        .context("no batch size in the block")
}

fn write(network: &Network, name: &str, text: &str) -> Result<String> {
    let path = network.config().join(name);
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}

fn as_administrator(network: &Network, verb: &str, file: &str, domain: &str) -> Result<Outcome> {
    network.consort(&["channel", verb, file, "--as", &format!("Admin@{domain}")])
}

#[test]
fn a_channel_is_changed_from_a_readable_file() -> Result<()> {
    let network = Network::start("two-org-raft")?;
    let change = write(&network, "batch.yaml", "batch: { max_message_count: 33, timeout: 1s }\n")?;
    let planned = network.consort(&["channel", "plan", &change])?.expect_success()?;
    assert!(planned.contains("Orderer/BatchSize.max_message_count: 10 -> 33"), "{planned}");
    assert!(planned.contains("Orderer/BatchTimeout.timeout: 2s -> 1s"), "{planned}");
    assert!(planned.contains("/Channel/Orderer/BatchSize (policy Admins): OrdererMSP"), "{planned}");
    let update = change.replace(".yaml", ".update");
    let refused = as_administrator(&network, "apply", &update, "org1.example.com")?.expect_failure()?;
    assert!(refused.contains("lacks signatures"), "{refused}");
    assert!(refused.contains("OrdererMSP"), "{refused}");
    let signed = as_administrator(&network, "sign", &update, "example.com")?.expect_success()?;
    assert!(signed.contains("It is complete"), "{signed}");
    as_administrator(&network, "apply", &update, "example.com")?.expect_success()?;
    assert_eq!(batch_size(&network)?, 33);
    let again = network.consort(&["channel", "plan", &change])?.expect_failure()?;
    assert!(again.contains("there is nothing to change"), "{again}");

    // A policy of the application needs both organisations, and an anchor peer its own administrator only.
    let change = write(
        &network,
        "policy.yaml",
        "policies: { Application/Endorsement: ANY Endorsement }\nanchor_peers: { Org1: [{ host: peer9.org1.example.com, port: 7051 }] }\n",
    )?;
    let planned = network.json(&["channel", "plan", &change])?;
    let demands = planned["demands"].as_array().context("no demands")?;
    assert_eq!(demands.len(), 2, "{planned}");
    let update = change.replace(".yaml", ".update");
    as_administrator(&network, "sign", &update, "org1.example.com")?.expect_success()?;
    as_administrator(&network, "apply", &update, "org2.example.com")?.expect_success()?;

    // The organisation's folder of the network serves as that of a third one.
    let msp = network.data().join("organizations/ordererOrganizations/example.com/msp");
    let change = write(
        &network,
        "add.yaml",
        &format!("organisations: {{ add: [{{ name: Org3, msp_id: Org3MSP, msp: {} }}] }}\n", msp.display()),
    )?;
    let planned = network.consort(&["channel", "plan", &change])?.expect_success()?;
    assert!(planned.contains("Application/Org3: the organisation joins"), "{planned}");
    assert!(planned.contains("Org1MSP and Org2MSP"), "{planned}");
    let update = change.replace(".yaml", ".update");
    as_administrator(&network, "sign", &update, "org1.example.com")?.expect_success()?;
    as_administrator(&network, "apply", &update, "org2.example.com")?.expect_success()?;
    let config = network.consort(&["block", "show", "config", "--output", "json"])?.expect_success()?;
    assert!(config.contains("\"Org3\""), "the new organisation is not in the configuration");
    Ok(())
}

/// Plans a change, signs and applies it. A leader refuses to change the consenters until it has heard from the others: then once more.
fn change(network: &Network, name: &str, text: &str, administrators: [&str; 2]) -> Result<String> {
    let change = write(network, name, text)?;
    let [one, other] = administrators;
    let planned = as_administrator(network, "plan", &change, one)?.expect_success()?;
    let update = change.replace(".yaml", ".update");
    as_administrator(network, "sign", &update, one)?.expect_success()?;
    until(&format!("{name} is applied"), || {
        let applied = as_administrator(network, "apply", &update, other)?;
        if !applied.success && applied.stderr.contains("nodes are alive") {
            return Ok(false);
        }
        applied.expect_success().map(|_| true)
    })?;
    Ok(planned)
}

fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let limit = Instant::now() + Duration::from_secs(60);
    while !holds()? {
        ensure!(Instant::now() < limit, "in vain: {what}");
    }
    Ok(())
}

#[test]
fn a_consenter_and_rules_of_access_are_changed_from_readable_files() -> Result<()> {
    const ORDERERS: [&str; 2] = ["example.com", "example.com"];
    const PEERS: [&str; 2] = ["org1.example.com", "org2.example.com"];
    let network = Network::start("two-org-raft")?;
    let (host, port) = ("orderer3.example.com", network.port(9050));
    let planned =
        change(&network, "leaves.yaml", &format!("consenters: {{ remove: ['{host}:{port}'] }}\n"), ORDERERS)?;
    assert!(planned.contains(host) && planned.contains("OrdererMSP"), "{planned}");
    let is = |relation: &str| {
        let status = network.json(&["orderer", "status"])?;
        let rows = status["channels"].as_array().context("no list of channels")?.clone();
        Ok(rows.iter().any(|row| row["orderer"] == host && row["relation"] == relation))
    };
    until("it follows", || is("follower"))?;
    let tls = network.data().join("organizations/ordererOrganizations/example.com/orderers").join(host);
    let certificate = tls.join("tls/server.crt").display().to_string();
    let returns = format!(
        "consenters:\n  add: [{{ host: {host}, port: {port}, client_tls_cert: {certificate}, server_tls_cert: {certificate} }}]\n"
    );
    change(&network, "returns.yaml", &returns, ORDERERS)?;
    until("it takes part", || is("consenter"))?;

    // Each resource by itself, on the peers of all organisations.
    let may = |question: &[&str], user: &str| -> Result<Outcome> {
        network.consort(&[question, &["--as", user, "--peer", "peer0.org1.example.com"]].concat())
    };
    let evaluate = ["tx", "evaluate", "basic", "GetAllAssets"];
    let show = ["block", "show", "newest"];
    let (client, administrator) = ("User1@org1.example.com", "Admin@org1.example.com");
    let rules = "policies: { Application/Auditors: \"OR('Org1MSP.admin', 'Org2MSP.admin')\" }\n\
                 acls: { peer/Propose: /Channel/Application/Auditors, event/Block: Auditors }\n";
    let planned = change(&network, "rules.yaml", rules, PEERS)?;
    let told = "access to peer/Propose: the default -> /Channel/Application/Auditors";
    assert!(planned.contains(told) && planned.contains("Org1MSP and Org2MSP"), "{planned}");
    until("clients may not propose any more", || Ok(!may(&evaluate, client)?.success))?;
    let refused = may(&evaluate, client)?.expect_failure()?;
    assert!(refused.contains("/Channel/Application/Auditors"), "{refused}");
    let refused = may(&show, client)?.expect_failure()?;
    assert!(refused.contains("FORBIDDEN"), "{refused}");
    may(&evaluate, administrator)?.expect_success()?;
    may(&show, administrator)?.expect_success()?;
    change(&network, "again.yaml", "acls: { peer/Propose: '', event/Block: '' }\n", PEERS)?;
    until("clients may propose again", || Ok(may(&evaluate, client)?.success))?;
    may(&show, client)?.expect_success()?;
    Ok(())
}

#[test]
fn transactions_and_blocks_are_explained() -> Result<()> {
    let network = Network::start("one-org-solo")?;
    let submitted =
        network.json(&["tx", "submit", "basic", "CreateAsset", "seen", "blue", "5", "Tomoko", "300"])?;
    let id = submitted["transaction"].as_str().context("no transaction id")?.to_owned();
    let explained = network.consort(&["tx", "explain", &id])?.expect_success()?;
    assert!(explained.contains(": VALID"), "{explained}");
    assert!(explained.contains("CreateAsset(seen, blue, 5, Tomoko, 300)"), "{explained}");
    assert!(explained.contains("writes basic/seen"), "{explained}");
    let watched = network.consort(&["tx", "watch", &id])?.expect_success()?;
    assert!(watched.contains("VALID"), "{watched}");
    let shown = network.consort(&["block", "show", "newest"])?.expect_success()?;
    assert!(shown.contains(&id), "{shown}");
    let unknown = network.consort(&["tx", "explain", "no-such-id"])?.expect_failure()?;
    assert!(unknown.contains("Remedy"), "{unknown}");

    // The configuration goes through files and back, as with configtxlator.
    let folder = network.config();
    let path = |name: &str| folder.join(name).display().to_string();
    let (block, json, config) = (path("config.block"), path("config.json"), path("config.pb"));
    network.consort(&["channel", "fetch", "config", "--to", &block])?.expect_success()?;
    let run = |arguments: &[&str]| consort_e2e::consort(arguments)?.expect_success();
    run(&["config", "decode", "--type", "common.Block", "--input", &block, "--output", &json])?;
    let decoded: serde_json::Value = serde_json::from_slice(&std::fs::read(Path::new(&json))?)?;
    let mut wanted = decoded["data"]["data"][0]["payload"]["data"]["config"].clone();
    std::fs::write(&json, serde_json::to_vec(&wanted)?)?;
    run(&["config", "encode", "--type", "common.Config", "--input", &json, "--output", &config])?;
    wanted["channel_group"]["groups"]["Orderer"]["values"]["BatchSize"]["value"]["max_message_count"] =
        7.into();
    std::fs::write(&json, serde_json::to_vec(&wanted)?)?;
    let update = path("update.pb");
    run(&[
        "config",
        "compute-update",
        "--channel",
        "mychannel",
        "--original",
        &config,
        "--updated",
        &json,
        "--output",
        &update,
    ])?;
    let shown = run(&["config", "decode", "--type", "common.ConfigUpdate", "--input", &update])?;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    let written = &shown["write_set"]["groups"]["Orderer"]["values"]["BatchSize"];
    assert_eq!((&written["value"]["max_message_count"], &written["version"]), (&7.into(), &"1".into()));
    Ok(())
}

#[test]
fn a_policy_tells_before_anybody_signs_who_could_satisfy_it() -> Result<()> {
    let network = Network::start("two-org-raft")?;
    let all = network.json(&["channel", "policy"])?;
    let policies = all["policies"].as_array().context("no policies")?;
    let lifecycle = "/Channel/Application/LifecycleEndorsement";
    let found = policies.iter().find(|one| one["policy"] == lifecycle).context("not listed")?;
    assert_eq!(found["rule"], "MAJORITY Endorsement");
    assert_eq!(found["enough"], serde_json::json!([{ "Org1MSP": 1, "Org2MSP": 1 }]));

    let possible = network.consort(&["channel", "policy", "--path", lifecycle])?.expect_success()?;
    assert!(possible.contains("Enough: Org1MSP and Org2MSP"), "{possible}");
    assert!(possible.contains("peer0.org2.example.com (Org2MSP) could sign"), "{possible}");

    let judge = |rule: &[&str], signers: &str| -> Result<Outcome> {
        network.consort(&[&["channel", "policy"], rule, &["--signers", signers]].concat())
    };
    let path = ["--path", lifecycle];
    let both = judge(&path, "peer0.org1.example.com,peer0.org2.example.com")?.expect_success()?;
    assert!(both.contains("[met] /Channel/Application/LifecycleEndorsement"), "{both}");
    let twice = "peer0.org1.example.com,peer0.org1.example.com,User1@org2.example.com";
    let one = judge(&path, twice)?.expect_failure()?;
    assert!(one.contains("[unmet] /Channel/Application/Org2/Endorsement"), "{one}");
    assert!(one.contains("not counted: peer0.org1.example.com: signed already"), "{one}");
    assert!(one.contains("these signers do not satisfy"), "{one}");

    let orderer = network.data().join("organizations/ordererOrganizations/example.com/msp");
    let stranger = format!("Org1MSP:{}", orderer.join("cacerts").join("ca.example.com-cert.pem").display());
    let rule = ["--rule", "OR('Org1MSP.admin', 'Org2MSP.admin')"];
    let foreign = judge(&rule, &stranger)?.expect_failure()?;
    assert!(foreign.contains("not counted: Org1MSP:"), "{foreign}");
    judge(&rule, "Admin@org2.example.com")?.expect_success()?;
    let unknown = network.consort(&["channel", "policy", "--path", "/Channel/Nothing"])?.expect_failure()?;
    assert!(unknown.contains("has no policy /Channel/Nothing") && unknown.contains(lifecycle), "{unknown}");
    Ok(())
}
