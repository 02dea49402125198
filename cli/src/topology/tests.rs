use super::*;

const GOOD: &str = r#"
name: tiny
organisations:
  - name: Org1
    msp_id: Org1MSP
    domain: org1.example.com
    ca: { name: ca-org1, port: 7054 }
    peers:
      - { host: peer0.org1.example.com, port: 7051, operations_port: 9444 }
    users: [User1]
orderer_organisations:
  - name: OrdererOrg
    msp_id: OrdererMSP
    domain: example.com
    ca: { name: ca-orderer, port: 9054 }
    orderers:
      - { host: orderer.example.com, port: 7050, admin_port: 7053, operations_port: 8443 }
channel:
  name: mychannel
"#;

fn load(text: &str) -> Result<Loaded, faults::InvalidTopology> {
    Topology::parse(text, Path::new("network.yaml"))
}

/// The faults as `line: message`.
fn faults(text: &str) -> Vec<(usize, String)> {
    let faults = load(text).unwrap_err().faults;
    faults.into_iter().map(|fault| (fault.line, fault.message)).collect()
}

/// A configuration folder of this repository.
fn shipped(name: &str) -> Loaded {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../network-configs").join(name);
    Topology::load(&folder).unwrap_or_else(|error| panic!("{error:#}"))
}

#[test]
fn silence_means_the_test_networks_values() {
    let topology = load(GOOD).unwrap().topology;
    assert_eq!(topology.organisations[0].member.authority.host, "ca.org1.example.com");
    assert!(topology.organisations[0].peers[0].anchor);
    assert_eq!(topology.channel.batch.max_message_count, 10);
    assert_eq!(topology.channel.batch.preferred_max_bytes, 524_288);
    assert_eq!(topology.channel.capabilities.application, "V2_5");
    assert_eq!(topology.address("peer0.org1.example.com", 7051).to_string(), "127.0.0.1:7051");
}

#[test]
fn sealed_data_and_its_proxies_are_asked_for_by_name() {
    let silent = load(GOOD).unwrap().topology;
    assert!(!silent.channel.capabilities.sealed_data);
    assert!(!silent.organisations[0].peers[0].sealed_proxy);
    let asked = GOOD
        .replacen("operations_port: 9444", "operations_port: 9444, sealed_proxy: true", 1)
        .replacen("channel:\n", "channel:\n  capabilities: { sealed_data: true }\n", 1);
    let asked = load(&asked).unwrap().topology;
    assert!(asked.channel.capabilities.sealed_data);
    assert!(asked.organisations[0].peers[0].sealed_proxy);
}

#[test]
fn the_shipped_networks_are_valid_and_without_warnings() {
    for (name, peers, orderers) in [("two-org-raft", 2, 3), ("one-org-solo", 1, 1), ("three-org", 5, 3)] {
        let loaded = shipped(name);
        assert_eq!(loaded.topology.name, name);
        assert_eq!(loaded.topology.peers().count(), peers);
        assert_eq!(loaded.topology.orderers().count(), orderers);
        assert_eq!(loaded.warnings, Vec::<String>::new());
    }
}

#[test]
fn the_shipped_networks_can_run_side_by_side() {
    let mut ports = std::collections::BTreeSet::new();
    for name in ["two-org-raft", "one-org-solo", "three-org"] {
        let topology = shipped(name).topology;
        for member in topology.members() {
            assert!(ports.insert(member.authority.port), "{name}: {}", member.authority.port);
        }
        for (_, peer) in topology.peers() {
            assert!(ports.insert(peer.port) && ports.insert(peer.operations_port), "{name}: {}", peer.host);
        }
        for (_, orderer) in topology.orderers() {
            let all = [orderer.port, orderer.admin_port, orderer.operations_port];
            assert!(all.into_iter().all(|port| ports.insert(port)), "{name}: {}", orderer.host);
        }
    }
}

#[test]
fn every_fault_is_reported_at_once_with_its_line() {
    let text = r#"
name: Bad Name
organisations:
  - name: Org1
    msp_id: Org_1
    domain: org1.example.com
    ca: { name: ca-org1, port: 7054 }
    peers:
      - { host: peer0.org1.example.com, port: 70510, operations_port: 9444 }
      - { host: peer0.org1.example.com, port: 7054, operations_port: 9444 }
      - { host: peer2.org1.example.com, port: "7055", operatons_port: 9446 }
    users: [Admin]
orderer_organisations: []
channel:
  name: MyChannel
  batch: { timeout: 2, preferred_max_bytes: 5 GB }
  policies: { Application/Endorsement: "OR('Org9MSP.peer')" }
chaincodes:
  - { name: qscc, version: 1.0, path: no/such/folder }
"#;
    let found = faults(text);
    let expected = [
        (2, "name 'Bad Name' must be small letters"),
        (5, "msp_id 'Org_1' must be letters"),
        (9, "'port' is 70510; it must be from 1 to 65535"),
        (10, "host 'peer0.org1.example.com' is already that of peer peer0.org1.example.com (line 9)"),
        (10, "port 7054 on 127.0.0.1 is already that of CA of organisation Org1 (line 7)"),
        (10, "port 9444 on 127.0.0.1 is already that of"),
        (11, "'port' must be a whole number, not '7055'"),
        (11, "'operations_port' is missing"),
        (11, "unknown key 'operatons_port' (did you mean 'operations_port'?)"),
        (12, "every organisation has the user Admin already"),
        (2, "the network has no orderers"),
        (15, "name 'MyChannel' must be small letters"),
        (16, "'timeout' must be a duration such as '200ms' or '2s', not '2'"),
        (16, "'preferred_max_bytes' must be a size"),
        (17, "no organisation has the MSP id 'Org9MSP'"),
        (19, "name 'qscc' must be a name that no system chaincode has"),
        (19, "no Cargo.toml there"),
    ];
    for (line, message) in expected {
        let hit = found.iter().any(|(at, text)| *at == line && text.contains(message));
        assert!(hit, "line {line}: {message}\nfound: {found:#?}");
    }
    assert!(found.is_sorted_by_key(|(line, _)| *line));
}

#[test]
fn the_message_names_file_and_line_and_says_that_nothing_was_started() {
    let error = load("name: tiny\nnmae: x\n").unwrap_err().to_string();
    assert!(error.contains("network.yaml:2: topology: unknown key 'nmae' (did you mean 'name'?)"), "{error}");
    assert!(error.contains("network.yaml:1: topology: 'channel' is missing"), "{error}");
    assert!(error.contains("Nothing was started"), "{error}");
}

#[test]
fn an_even_number_of_orderers_is_a_warning() {
    let more = "      - { host: orderer2.example.com, port: 8050, admin_port: 8053, operations_port: 8444 }\nchannel:";
    let loaded = load(&GOOD.replace("channel:", more)).unwrap();
    assert!(loaded.warnings[0].contains("an odd number is better"), "{:?}", loaded.warnings);
}

#[test]
fn a_broken_policy_is_reported_with_its_cause() {
    let text = format!("{GOOD}  policies: {{ Application/Endorsement: \"ANY\" }}\n");
    let found = faults(&text);
    assert!(found[0].1.contains("the policy does not parse"), "{found:?}");
}

#[test]
fn a_host_on_another_address_may_reuse_a_port() {
    let text = GOOD.replace("port: 7050", "port: 7051");
    assert!(load(&text).is_err());
    let moved = format!("{text}hosts:\n  orderer.example.com: 127.0.0.2\n");
    assert!(load(&moved).is_ok());
}

#[test]
fn wrong_types_are_named() {
    let found = faults(&GOOD.replace("users: [User1]", "users: User1").replace("name: tiny", "name: [tiny]"));
    assert!(found.iter().any(|(_, text)| text.contains("'users' must be a list, not 'User1'")), "{found:?}");
    assert!(found.iter().any(|(_, text)| text.contains("'name' must be a text, not a list")), "{found:?}");
}

#[test]
fn data_of_another_topology_is_refused_and_the_difference_named() {
    let data = tempfile::tempdir().unwrap();
    let topology = load(GOOD).unwrap().topology;
    let fingerprint = Fingerprint::of(&topology).unwrap();
    assert!(!fingerprint.check(data.path(), Path::new("config")).unwrap());
    fingerprint.write(data.path()).unwrap();
    assert!(fingerprint.check(data.path(), Path::new("config")).unwrap());

    let changed = load(&GOOD.replace("7051", "7052")).unwrap().topology;
    let refused = Fingerprint::of(&changed).unwrap().check(data.path(), Path::new("config")).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("organisation Org1 has changed"), "{text}");
    assert!(text.contains("consort network clean"), "{text}");
}

#[test]
fn users_and_chaincodes_may_be_added_later() {
    let data = tempfile::tempdir().unwrap();
    let topology = load(GOOD).unwrap().topology;
    Fingerprint::of(&topology).unwrap().write(data.path()).unwrap();
    let more = load(&GOOD.replace("[User1]", "[User1, User2]")).unwrap().topology;
    assert!(Fingerprint::of(&more).unwrap().check(data.path(), Path::new("config")).unwrap());
}

#[test]
fn orderers_come_and_go_but_do_not_change() {
    const ORDERER: &str =
        "      - { host: orderer.example.com, port: 7050, admin_port: 7053, operations_port: 8443 }\n";
    let data = tempfile::tempdir().unwrap();
    let check = |text: &str| {
        let fingerprint = Fingerprint::of(&load(text).unwrap().topology).unwrap();
        fingerprint.check(data.path(), Path::new("config")).map_err(|error| error.to_string())
    };
    let second = ORDERER.replace("orderer.", "orderer2.").replace("70", "80").replace("84", "85");
    let two = GOOD.replace(ORDERER, &format!("{ORDERER}{second}"));
    Fingerprint::of(&load(GOOD).unwrap().topology).unwrap().write(data.path()).unwrap();
    assert!(check(&two).unwrap(), "one is added");
    Fingerprint::of(&load(&two).unwrap().topology).unwrap().write(data.path()).unwrap();
    assert!(check(GOOD).unwrap(), "one is gone");
    let moved = check(&two.replace("8050", "8051")).unwrap_err();
    assert!(moved.contains("orderer node orderer2.example.com has changed"), "{moved}");
}

#[test]
fn a_folder_with_foreign_files_is_no_data_folder() {
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("thesis.txt"), "precious").unwrap();
    let topology = load(GOOD).unwrap().topology;
    let refused = Fingerprint::of(&topology).unwrap().check(data.path(), Path::new("config")).unwrap_err();
    assert!(refused.to_string().contains("no network's data folder"), "{refused}");
}

/// A new organisation's part, and the configuration block of Fabric's test network as what it was given.
fn joining(block: &str) -> String {
    let block = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../protos/tests/golden/fabric-channel/blocks")
        .join(block);
    let own = GOOD.split_once("orderer_organisations:").unwrap().0;
    format!("{own}joins: {}\nhosts: {{ orderer.example.com: 192.0.2.7 }}\n", block.display())
}

#[test]
fn who_joins_a_channel_describes_only_its_own_part() {
    let topology = load(&joining("0000.pb")).unwrap().topology;
    assert_eq!((topology.channel.name.as_str(), topology.orderers().count()), ("mychannel", 0));
    assert!(topology.joins.is_some_and(|file| file.is_absolute()));
    let overrides = load(&joining("0000.pb")).unwrap().topology.host_overrides();
    assert_eq!(overrides["orderer.example.com"], "192.0.2.7");
    assert_eq!(overrides["peer0.org1.example.com"], "127.0.0.1");
}

#[test]
fn what_the_others_decide_is_no_business_of_who_joins() {
    let more = format!("{}channel: {{ name: other }}\n", joining("0000.pb"));
    let found = faults(&more);
    assert!(found.iter().any(|(_, text)| text.contains("unknown key 'channel'")), "{found:?}");
}

#[test]
fn a_block_that_is_none_or_holds_no_configuration_is_named_with_the_remedy() {
    for (block, why) in [("0008.pb", "is no configuration block"), ("9999.pb", "cannot read")] {
        let found = faults(&joining(block));
        let (line, text) = &found[0];
        assert!(text.starts_with("joins: ") && text.contains(why), "{found:?}");
        assert!(text.contains("consort channel fetch config --to"), "{found:?}");
        assert_eq!(*line, joining(block).lines().position(|line| line.starts_with("joins:")).unwrap() + 1);
    }
}

#[test]
fn where_others_are_may_change_and_who_joins_may_be_given_a_newer_configuration() {
    let data = tempfile::tempdir().unwrap();
    let first = load(&joining("0000.pb")).unwrap().topology;
    Fingerprint::of(&first).unwrap().write(data.path()).unwrap();
    let moved = joining("0000.pb").replace("192.0.2.7", "192.0.2.8");
    let moved = load(&moved).unwrap().topology;
    assert!(Fingerprint::of(&moved).unwrap().check(data.path(), Path::new("config")).unwrap());
}
