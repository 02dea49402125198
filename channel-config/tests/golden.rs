//! The configuration of a real Fabric 3.1 channel: its genesis block, its two updates, and the same tree from a profile.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::{fs, path::PathBuf, time::Duration};

use bytes::Bytes;
use consort_channel_config::{
    ChannelBundle, ConfigError, ConsensusState, ETCDRAFT, Profile,
    profile::{
        AnchorPeerProfile, ApplicationProfile, BatchProfile, ConsenterProfile, MspSource, OrdererProfile,
        OrganisationProfile, PemSource, Policies, RaftProfile,
    },
    update::compute,
};
use consort_crypto::preimage;
use consort_msp::{MspVersion, policy::SignaturePolicy};
use consort_protos::{
    fabric::{
        common::{
            Block, Capabilities, ChannelHeader, Config, ConfigEnvelope, ConfigGroup, ConfigUpdate,
            ConfigUpdateEnvelope, Envelope, Payload, SignatureHeader,
        },
        msp::{FabricMspConfig, MspConfig},
        orderer::ConsensusType,
    },
    ids::{ChannelId, MspId},
};
use prost::Message;
use time::OffsetDateTime;

/// The configuration blocks of the channel.
const CONFIG_BLOCKS: [u64; 3] = [0, 64, 65];

fn block(number: u64) -> Block {
    let folder =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../protos/tests/golden/fabric-channel/blocks");
    let bytes = fs::read(folder.join(format!("{number:04}.pb"))).unwrap();
    Block::decode(bytes.as_slice()).unwrap()
}

fn payload(block: &Block) -> Payload {
    let envelope = Envelope::decode(block.data.as_ref().unwrap().data[0].as_ref()).unwrap();
    Payload::decode(envelope.payload.as_ref()).unwrap()
}

fn config_envelope(block: &Block) -> ConfigEnvelope {
    ConfigEnvelope::decode(payload(block).data.as_ref()).unwrap()
}

fn update_of(envelope: &ConfigEnvelope) -> (ConfigUpdateEnvelope, ConfigUpdate) {
    let payload = Payload::decode(envelope.last_update.as_ref().unwrap().payload.as_ref()).unwrap();
    let signed = ConfigUpdateEnvelope::decode(payload.data.as_ref()).unwrap();
    let update = ConfigUpdate::decode(signed.config_update.as_ref()).unwrap();
    (signed, update)
}

fn genesis() -> ChannelBundle {
    ChannelBundle::from_block(&block(0)).unwrap()
}

fn id(text: &str) -> MspId {
    MspId::parse(text).unwrap()
}

fn member<'a>(root: &'a ConfigGroup, path: &[&str]) -> &'a ConfigGroup {
    path.iter().fold(root, |group, name| &group.groups[*name])
}

#[test]
fn the_genesis_block_says_what_the_channel_was_made_with() {
    let bundle = genesis();
    assert_eq!(bundle.sequence(), 0);
    let orderer = bundle.orderer();
    assert_eq!(
        (
            orderer.batch.max_message_count,
            orderer.batch.absolute_max_bytes,
            orderer.batch.preferred_max_bytes
        ),
        (10, 10_485_760, 4_194_304)
    );
    assert_eq!(orderer.batch.timeout, Duration::from_millis(200));
    assert_eq!((orderer.consensus_type.as_str(), orderer.state), (ETCDRAFT, ConsensusState::Normal));
    assert_eq!(orderer.consenters.len(), 3);
    assert!(orderer.consenters.iter().all(|one| one.client_tls_cert == one.server_tls_cert));
    let raft = orderer.raft_options.unwrap();
    assert_eq!(
        (raft.tick_interval, raft.election_tick, raft.heartbeat_tick),
        (Duration::from_millis(500), 10, 1)
    );
    assert_eq!((raft.max_inflight_blocks, raft.snapshot_interval_bytes), (5, 16_777_216));
    assert_eq!(orderer.organisations.len(), 1);
    assert_eq!(orderer.organisations[0].name, "OrdererOrg");
    assert_eq!(orderer.organisations[0].msp_id, id("OrdererMSP"));
    assert_eq!(orderer.organisations[0].endpoints, ["127.0.0.1:6050", "127.0.0.1:6051", "127.0.0.1:6052"]);
    let application = bundle.application();
    let names: Vec<_> = application.organisations.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["Org1MSP", "Org2MSP"]);
    assert_eq!(application.organisations[0].anchor_peers, [("127.0.0.1".to_owned(), 7051)]);
    assert!(application.capabilities.purge_private_data() && application.capabilities.new_lifecycle());
    assert!(bundle.check_supported_by_orderers().is_ok() && bundle.check_supported_by_peers().is_ok());
    assert!(bundle.check_consenters().is_ok());
    assert_eq!(bundle.msps().msp(&id("Org1MSP")).unwrap().version(), MspVersion::V1_4_3);
    assert_eq!(bundle.tls_roots_of(&id("Org1MSP")).len(), 1);
    assert!(bundle.tls_roots_of(&id("Nobody")).is_empty());
    assert_eq!(bundle.acl("event/Block"), "/Channel/Application/Readers");
    assert_eq!(bundle.acl("peer/Propose"), "/Channel/Application/Writers");
    assert_eq!(ChannelBundle::for_joining(&block(0)).unwrap().channel(), bundle.channel());
}

#[test]
fn policies_are_found_by_path_and_tell_who_can_satisfy_them() {
    let bundle = genesis();
    let policies = bundle.policies();
    for path in
        ["/Channel/Writers", "/Channel/Orderer/BlockValidation", "/Channel/Application/Org1MSP/Admins"]
    {
        assert_eq!(policies.policy(path).unwrap().name(), path);
    }
    for path in ["", "/", "/Channel", "/ChannelX/Readers", "/Channel//Readers", "/Channel/Application/None"] {
        assert!(policies.policy(path).is_none(), "{path:?}");
    }
    assert!(policies.policy_from("Channel/Application", "Org1MSP/Admins").is_some());
    assert!(policies.policy_from("Channel/Application", "/Channel/Readers").is_none());
    let sets = |policy: &consort_msp::policy::Policy| {
        let show = |set: &std::collections::BTreeMap<MspId, usize>| {
            set.iter().map(|(msp, count)| format!("{msp}:{count}")).collect::<Vec<_>>().join("+")
        };
        policy.organisation_sets().iter().map(show).collect::<Vec<_>>()
    };
    let sets_at = |path: &str| sets(policies.policy(path).unwrap());
    assert_eq!(sets(&bundle.endorsement_policy(b"").unwrap()), ["Org1MSP:1+Org2MSP:1"]);
    assert_eq!(sets(&bundle.lifecycle_endorsement().unwrap()), ["Org1MSP:1+Org2MSP:1"]);
    assert_eq!(sets_at("/Channel/Application/Admins"), ["Org1MSP:1+Org2MSP:1"]);
    assert_eq!(sets_at("/Channel/Application/Writers"), ["Org1MSP:1", "Org2MSP:1"]);
    assert_eq!(sets_at("/Channel/Readers"), ["OrdererMSP:1", "Org1MSP:1", "Org2MSP:1"]);
}

#[test]
fn the_two_updates_lead_to_exactly_the_stored_configurations() {
    let mut bundle = genesis();
    for (sequence, number) in (1..).zip([64, 65]) {
        let stored = config_envelope(&block(number));
        let (proposed, by_orderer) = bundle.propose(stored.last_update.as_ref().unwrap()).unwrap();
        assert_eq!(proposed, stored, "block {number}");
        let by_peer = bundle.apply(&stored).unwrap();
        assert_eq!(by_peer.config(), by_orderer.config());
        assert_eq!(by_peer.sequence(), sequence);
        bundle = by_peer;
    }
    assert_eq!(bundle.orderer().batch.max_message_count, 7);
    let last = ChannelBundle::from_block(&block(65)).unwrap();
    assert_eq!(last.config(), bundle.config());
}

#[test]
fn computing_the_updates_again_gives_their_read_and_write_sets() {
    let configs: Vec<Config> =
        CONFIG_BLOCKS.iter().map(|n| config_envelope(&block(*n)).config.unwrap()).collect();
    let channel = genesis().channel().clone();
    for (index, number) in [(0, 64), (1, 65)] {
        let computed = compute(&configs[index], &configs[index + 1], &channel).unwrap();
        let (_, stored) = update_of(&config_envelope(&block(number)));
        assert_eq!(computed.read_set, stored.read_set, "block {number}");
        assert_eq!(computed.write_set, stored.write_set, "block {number}");
        assert_eq!(computed.channel_id, stored.channel_id);
    }
    let same = compute(&configs[0], &configs[0], &channel).unwrap_err();
    assert_eq!(same.to_string(), "no differences detected between original and updated config");
    let nothing = compute(&Config::default(), &configs[0], &channel).unwrap_err();
    assert_eq!(nothing.to_string(), "no channel group included for original config");
}

#[test]
fn removing_an_organisation_lists_all_that_remain() {
    let config = genesis().config().clone();
    let mut smaller = config.clone();
    let application = smaller.channel_group.as_mut().unwrap().groups.get_mut("Application").unwrap();
    application.groups.remove("Org2MSP");
    let update = compute(&config, &smaller, genesis().channel()).unwrap();
    let read = update.read_set.unwrap();
    let read = member(&read, &["Application"]);
    assert_eq!(read.groups.keys().collect::<Vec<_>>(), ["Org1MSP"]);
    assert_eq!((read.values.len(), read.policies.len(), read.mod_policy.as_str()), (1, 5, ""));
    let write = update.write_set.unwrap();
    assert_eq!(write.version, 0);
    let write = member(&write, &["Application"]);
    assert_eq!((write.version, write.mod_policy.as_str()), (1, "Admins"));
    assert_eq!(write.groups["Org1MSP"], ConfigGroup::default(), "unchanged members carry only their version");
}

#[test]
fn a_stored_update_does_not_apply_twice_or_out_of_turn() {
    let stored = config_envelope(&block(65));
    let error = genesis().apply(&stored).unwrap_err();
    assert_eq!(error.to_string(), "config currently at sequence 0, cannot validate config at sequence 2");
    let after = genesis().apply(&config_envelope(&block(64))).unwrap();
    let again = after.propose(config_envelope(&block(64)).last_update.as_ref().unwrap()).unwrap_err();
    assert!(
        again.to_string().ends_with(
            "attempt to set key [Value]  /Channel/Orderer/BatchSize to version 1, but key is at version 1"
        ),
        "{again}"
    );
    let mut forged = config_envelope(&block(64));
    forged.config.as_mut().unwrap().channel_group.as_mut().unwrap().version = 7;
    assert!(matches!(genesis().apply(&forged), Err(ConfigError::Mismatch)));
}

#[test]
fn a_config_envelope_is_no_update() {
    let envelope = Envelope::decode(block(64).data.unwrap().data[0].as_ref()).unwrap();
    assert_eq!(
        genesis().propose(&envelope).unwrap_err().to_string(),
        "error converting envelope to config update: invalid type CONFIG, expected CONFIG_UPDATE"
    );
    assert_eq!(
        genesis().propose(&Envelope::default()).unwrap_err().to_string(),
        "error converting envelope to config update: envelope must have a Header"
    );
}

/// The MSP of an organisation of the real channel.
fn msp(root: &ConfigGroup, path: &[&str]) -> FabricMspConfig {
    let value = &member(root, path).values["MSP"].value;
    FabricMspConfig::decode(MspConfig::decode(value.as_ref()).unwrap().config.as_ref()).unwrap()
}

fn golden_profile() -> Profile {
    let bundle = genesis();
    let root = bundle.config().channel_group.clone().unwrap();
    let organisation = |section: &str, name: &str, anchor: Option<u16>| {
        let config = msp(&root, &[section, name]);
        OrganisationProfile {
            name: name.to_owned(),
            msp_id: id(&config.name),
            msp: MspSource::from(config),
            policies: Policies::new(),
            orderer_endpoints: Vec::new(),
            anchor_peers: anchor
                .map(|port| AnchorPeerProfile { host: "127.0.0.1".to_owned(), port })
                .into_iter()
                .collect(),
        }
    };
    let consenter = |one: &consort_channel_config::Consenter| ConsenterProfile {
        host: one.host.clone(),
        port: u16::try_from(one.port).unwrap(),
        client_tls_cert: PemSource::Pem(one.client_tls_cert.clone()),
        server_tls_cert: PemSource::Pem(one.server_tls_cert.clone()),
    };
    let both = "AND('Org1MSP.peer', 'Org2MSP.peer')";
    let anchors: Vec<u16> =
        bundle.application().organisations.iter().map(|one| one.anchor_peers[0].1).collect();
    Profile {
        hashing: Default::default(),
        key_algorithms: Vec::new(),
        capabilities: vec!["V2_0".to_owned()],
        policies: Policies::new(),
        orderer: OrdererProfile {
            capabilities: vec!["V2_0".to_owned()],
            batch: BatchProfile {
                max_message_count: 10,
                absolute_max_bytes: 10_485_760,
                preferred_max_bytes: 4_194_304,
                timeout: "200ms".to_owned(),
            },
            raft: RaftProfile::default(),
            channels_max: 0,
            consenters: bundle.orderer().consenters.iter().map(consenter).collect(),
            organisations: vec![OrganisationProfile {
                orderer_endpoints: bundle.orderer().organisations[0].endpoints.clone(),
                ..organisation("Orderer", "OrdererOrg", None)
            }],
            policies: Policies::new(),
        },
        application: ApplicationProfile {
            capabilities: vec!["V2_5".to_owned()],
            organisations: vec![
                organisation("Application", "Org1MSP", Some(anchors[0])),
                organisation("Application", "Org2MSP", Some(anchors[1])),
            ],
            policies: [("Endorsement", both), ("LifecycleEndorsement", both)]
                .map(|(name, text)| (name.to_owned(), text.to_owned()))
                .into(),
            acls: std::collections::BTreeMap::new(),
        },
    }
}

/// Opens what a tree holds as bytes, so that two encodings of one value are equal.
fn opened(mut config: Config) -> Config {
    fn open(group: &mut ConfigGroup) {
        for (name, value) in &mut group.values {
            let bytes = value.value.as_ref();
            let again = match name.as_str() {
                "Capabilities" => Capabilities::decode(bytes).unwrap().encode_to_vec(),
                "MSP" => MspConfig::decode(bytes).unwrap().encode_to_vec(),
                "ConsensusType" => ConsensusType::decode(bytes).unwrap().encode_to_vec(),
                _ => bytes.to_vec(),
            };
            value.value = Bytes::from(again);
        }
        group.groups.values_mut().for_each(open);
    }
    open(config.channel_group.as_mut().unwrap());
    config
}

#[test]
fn the_same_profile_gives_the_same_tree_in_a_block_of_the_same_form() {
    let channel = ChannelId::parse("gold").unwrap();
    let nonce = [7_u8; 24];
    let made = golden_profile()
        .genesis_block(&channel, nonce, OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap())
        .unwrap();
    let golden = block(0);
    let (ours, theirs) = (config_envelope(&made), config_envelope(&golden));
    assert_eq!(ours.last_update, None);
    assert_eq!(opened(ours.config.clone().unwrap()), opened(theirs.config.clone().unwrap()));
    let values =
        |config: &Config, path: &[&str]| member(config.channel_group.as_ref().unwrap(), path).values.clone();
    for path in
        [&[][..], &["Orderer"], &["Application"], &["Application", "Org1MSP"], &["Orderer", "OrdererOrg"]]
    {
        let (ours, theirs) = (ours.config.as_ref().unwrap(), theirs.config.as_ref().unwrap());
        assert_eq!(values(ours, path), values(theirs, path), "the bytes of all values, too: {path:?}");
    }

    let header = payload(&made).header.unwrap();
    let channel_header = ChannelHeader::decode(header.channel_header.as_ref()).unwrap();
    assert_eq!((channel_header.r#type, channel_header.version, channel_header.epoch), (1, 1, 0));
    assert_eq!(channel_header.channel_id, "gold");
    assert_eq!(channel_header.tx_id, preimage::tx_id(&nonce, b""));
    assert_eq!(channel_header.timestamp.unwrap().nanos, 0);
    let signature_header = SignatureHeader::decode(header.signature_header.as_ref()).unwrap();
    assert!(signature_header.creator.is_empty() && signature_header.nonce.as_ref() == nonce);
    let data = made.data.as_ref().unwrap();
    assert_eq!(made.header.as_ref().unwrap().data_hash.as_ref(), preimage::block_data_hash(data));
    let metadata = &made.metadata.as_ref().unwrap().metadata;
    assert_eq!(metadata.len(), 5);
    assert_eq!(metadata[0].as_ref(), [0x0a, 0x02, 0x0a, 0x00]);
    assert!(metadata[1..].iter().all(Bytes::is_empty));
    assert_eq!(ChannelBundle::for_joining(&made).unwrap().channel(), &channel);
}

#[test]
fn a_tampered_join_block_is_refused() {
    let refusal = |change: &dyn Fn(&mut Block)| {
        let mut block = block(0);
        change(&mut block);
        ChannelBundle::for_joining(&block).unwrap_err().to_string()
    };
    assert_eq!(
        refusal(&|block| block.header.as_mut().unwrap().data_hash = Bytes::from_static(b"x")),
        "invalid block: Header.DataHash is different from Hash(block.Data)"
    );
    assert_eq!(refusal(&|block| block.metadata = None), "invalid block: does not have metadata");
    assert_eq!(refusal(&|block| block.data.as_mut().unwrap().data.clear()), "block is not a config block");
}

#[test]
fn the_profile_refuses_what_no_node_would_take() {
    let refusal = |change: &dyn Fn(&mut Profile)| {
        let mut profile = golden_profile();
        change(&mut profile);
        let channel = ChannelId::parse("gold").unwrap();
        profile.genesis_block(&channel, [0; 24], OffsetDateTime::UNIX_EPOCH).unwrap_err().to_string()
    };
    let batch = refusal(&|profile| profile.orderer.batch.max_message_count = 0);
    assert!(
        batch.ends_with(
            "initializing channelconfig failed: could not create channel Orderer sub-group config: Attempted to set the batch size max message count to an invalid value: 0"
        ),
        "{batch}"
    );
    let timeout = refusal(&|profile| profile.orderer.batch.timeout = "abc".to_owned());
    assert!(
        timeout.ends_with(
            "Attempted to set the batch timeout to a invalid value: time: invalid duration \"abc\""
        )
    );
    let policy = refusal(&|profile| {
        profile.policies.insert("Readers".to_owned(), "any Readers".to_owned());
    });
    assert_eq!(
        policy,
        "Channel: policy Readers: invalid implicit meta policy rule 'any Readers': unknown rule type 'any', expected ALL, ANY, or MAJORITY"
    );
    let capability = refusal(&|profile| profile.orderer.capabilities = vec!["V3_0".to_owned()]);
    assert!(capability.ends_with("Orderer capability V3_0 is required but not supported"), "{capability}");
    let ticks = refusal(&|profile| profile.orderer.raft.election_tick = 1);
    assert!(
        ticks.ends_with(
            "invalid new config metadata: ElectionTick (1) must be greater than HeartbeatTick (1)"
        )
    );
    let empty = refusal(&|profile| profile.orderer.consenters.clear());
    assert!(empty.ends_with("empty consenter set"), "{empty}");
    let twice = refusal(&|profile| {
        let first = profile.orderer.consenters[0].clone();
        profile.orderer.consenters.push(first);
    });
    assert!(twice.contains("duplicate consenter: server cert: -----BEGIN CERTIFICATE-----"), "{twice}");
    let two_versions = refusal(&|profile| {
        let mut copy = profile.orderer.organisations[0].clone();
        copy.msp_id = id("Org1MSP");
        copy.name = "Other".to_owned();
        if let MspSource::Config(config) = &mut copy.msp {
            config.name = "Org1MSP".to_owned();
        }
        profile.application.organisations.push(copy);
    });
    assert!(
        two_versions.contains("Attempted to define two different versions of MSP: Org1MSP"),
        "{two_versions}"
    );
}

#[test]
fn cut_and_changed_blocks_never_panic() {
    let good = block(64).encode_to_vec();
    let mut opened = 0;
    for position in (0..good.len()).step_by(23) {
        let mut changed = good.clone();
        changed[position] ^= 0x21;
        for bytes in [&good[..position], &changed] {
            let Ok(block) = Block::decode(bytes) else { continue };
            opened += 1;
            let _ = ChannelBundle::from_block(&block);
            let entry = block.data.as_ref().and_then(|data| data.data.first());
            if let Some(Ok(envelope)) = entry.map(|entry| Envelope::decode(entry.as_ref())) {
                let _ = genesis_once().propose(&envelope);
            }
        }
    }
    assert!(opened > 0);
}

fn genesis_once() -> &'static ChannelBundle {
    static GENESIS: std::sync::OnceLock<ChannelBundle> = std::sync::OnceLock::new();
    GENESIS.get_or_init(genesis)
}

#[test]
fn policies_of_the_channel_print_as_text() {
    let bundle = genesis();
    let text = |path: &str| {
        let policy: &SignaturePolicy = bundle.policies().policy(path).unwrap().as_signature().unwrap();
        consort_msp::policy::to_text(policy.envelope())
    };
    assert_eq!(text("/Channel/Application/Endorsement"), "AND('Org1MSP.peer', 'Org2MSP.peer')");
    assert_eq!(text("/Channel/Application/Org1MSP/Writers"), "OR('Org1MSP.admin', 'Org1MSP.client')");
}
