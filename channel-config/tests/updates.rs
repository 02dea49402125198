//! Updates of a channel whose administrators we hold: what Fabric 3.1 was observed to answer.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::collections::BTreeMap;

use bytes::Bytes;
use consort_channel_config::{
    ChannelBundle, ConfigError, ConsensusState, Profile,
    profile::{
        ApplicationProfile, BatchProfile, ConsenterProfile, MspSource, OrdererProfile, OrganisationProfile,
        PemSource, Policies, RaftProfile,
    },
    update::compute,
};
use consort_crypto::{
    issue::{CertificateAuthority, Template, Validity},
    key::PrivateKey,
    name::{DistinguishedName, NamePart},
    preimage,
};
use consort_msp::SigningIdentity;
use consort_protos::{
    fabric::{
        common::{
            Capabilities, Capability, ChannelHeader, Config, ConfigEnvelope, ConfigGroup, ConfigSignature,
            ConfigUpdate, ConfigUpdateEnvelope, ConfigValue, Envelope, HashingAlgorithm, Header, HeaderType,
            ImplicitMetaPolicy, OrdererAddresses, Payload, Policy, SignatureHeader,
        },
        etcdraft::ConfigMetadata,
        msp::{FabricMspConfig, FabricNodeOUs, MspConfig},
        orderer::{BatchSize, ConsensusType, consensus_type::State},
    },
    ids::{ChannelId, MspId},
};
use prost::Message;
use time::{Duration, OffsetDateTime, macros::datetime};

const BEGIN: OffsetDateTime = datetime!(2024-01-01 00:00 UTC);

fn validity() -> Validity {
    Validity { not_before: BEGIN, not_after: BEGIN + Duration::days(3650) }
}

fn authority(name: &str) -> CertificateAuthority {
    let key = PrivateKey::generate_p256().unwrap();
    CertificateAuthority::new_root(&DistinguishedName::common_name(name), key, validity()).unwrap()
}

fn pem(certificate: &consort_crypto::certificate::Certificate) -> Bytes {
    certificate.pem().into_bytes().into()
}

fn msp_id(text: &str) -> MspId {
    MspId::parse(text).unwrap()
}

struct Organisation {
    id: MspId,
    ca: CertificateAuthority,
    tls_ca: CertificateAuthority,
}

impl Organisation {
    fn new(id: &str) -> Self {
        Self { id: msp_id(id), ca: authority("ca"), tls_ca: authority("tlsca") }
    }

    fn signer(&self, name: &str, unit: &str) -> SigningIdentity {
        let key = PrivateKey::generate_p256().unwrap();
        let subject = DistinguishedName::new()
            .with(NamePart::OrganizationalUnit, unit)
            .with(NamePart::CommonName, name);
        let certificate = self.ca.issue(&Template::identity(subject, validity()), key.public_key()).unwrap();
        SigningIdentity::new(self.id.clone(), &pem(&certificate), key).unwrap()
    }

    fn tls_certificate(&self, host: &str) -> Bytes {
        let key = PrivateKey::generate_p256().unwrap();
        let template = Template::tls(DistinguishedName::common_name(host), validity(), Vec::new());
        pem(&self.tls_ca.issue(&template, key.public_key()).unwrap())
    }

    fn msp(&self) -> FabricMspConfig {
        FabricMspConfig {
            name: self.id.as_str().to_owned(),
            root_certs: vec![pem(self.ca.certificate())],
            tls_root_certs: vec![pem(self.tls_ca.certificate())],
            fabric_node_ous: Some(FabricNodeOUs::named(&Bytes::new())),
            ..FabricMspConfig::default()
        }
    }

    fn profile(&self) -> OrganisationProfile {
        OrganisationProfile {
            name: self.id.as_str().to_owned(),
            msp_id: self.id.clone(),
            msp: MspSource::from(self.msp()),
            policies: Policies::new(),
            orderer_endpoints: Vec::new(),
            anchor_peers: Vec::new(),
        }
    }
}

/// Two organisations with peers, one with three orderers, and their administrators.
struct Network {
    org1: Organisation,
    orderers: Organisation,
    admin1: SigningIdentity,
    admin2: SigningIdentity,
    orderer_admin: SigningIdentity,
    bundle: ChannelBundle,
}

impl Network {
    fn new() -> Self {
        let (org1, org2, orderers) =
            (Organisation::new("Org1MSP"), Organisation::new("Org2MSP"), Organisation::new("OrdererMSP"));
        let consenter = |host: &str, port| {
            let certificate = orderers.tls_certificate(host);
            ConsenterProfile {
                host: host.to_owned(),
                port,
                client_tls_cert: PemSource::Pem(certificate.clone()),
                server_tls_cert: PemSource::Pem(certificate),
            }
        };
        let orderer_endpoints = vec!["orderer.example.com:7050".to_owned()];
        let profile = Profile {
            hashing: Default::default(),
            key_algorithms: Vec::new(),
            capabilities: vec!["V2_0".to_owned()],
            policies: Policies::new(),
            orderer: OrdererProfile {
                capabilities: vec!["V2_0".to_owned()],
                batch: BatchProfile::default(),
                raft: RaftProfile::default(),
                channels_max: 0,
                consenters: vec![consenter("o1", 7050), consenter("o2", 8050), consenter("o3", 9050)],
                organisations: vec![OrganisationProfile { orderer_endpoints, ..orderers.profile() }],
                policies: Policies::new(),
            },
            application: ApplicationProfile {
                capabilities: vec!["V2_5".to_owned()],
                organisations: vec![org1.profile(), org2.profile()],
                policies: Policies::new(),
                acls: BTreeMap::new(),
            },
        };
        let channel = ChannelId::parse("mychannel").unwrap();
        let bundle =
            ChannelBundle::from_block(&profile.genesis_block(&channel, [1; 24], BEGIN).unwrap()).unwrap();
        Self {
            admin1: org1.signer("Admin@org1", "admin"),
            admin2: org2.signer("Admin@org2", "admin"),
            orderer_admin: orderers.signer("Admin@orderer", "admin"),
            org1,
            orderers,
            bundle,
        }
    }

    fn everybody(&self) -> Vec<&SigningIdentity> {
        vec![&self.admin1, &self.admin2, &self.orderer_admin]
    }

    fn update(&self, change: impl FnOnce(&mut ConfigGroup)) -> ConfigUpdate {
        let mut updated = self.bundle.config().clone();
        change(updated.channel_group.as_mut().unwrap());
        compute(self.bundle.config(), &updated, self.bundle.channel()).unwrap()
    }

    fn propose(
        &self,
        signers: &[&SigningIdentity],
        change: impl FnOnce(&mut ConfigGroup),
    ) -> Result<(ConfigEnvelope, ChannelBundle), ConfigError> {
        self.bundle.propose(&envelope(&self.update(change), signers))
    }

    fn refusal(&self, signers: &[&SigningIdentity], change: impl FnOnce(&mut ConfigGroup)) -> String {
        self.propose(signers, change).map(|_| ()).unwrap_err().to_string()
    }
}

fn envelope(update: &ConfigUpdate, signers: &[&SigningIdentity]) -> Envelope {
    let config_update = Bytes::from(update.encode_to_vec());
    let sign = |signer: &&SigningIdentity| {
        let header =
            SignatureHeader { creator: signer.serialized().clone(), nonce: Bytes::from_static(&[9; 24]) };
        let signature_header = Bytes::from(header.encode_to_vec());
        let message = preimage::config_signature(&signature_header, &config_update);
        ConfigSignature { signature_header, signature: signer.sign(&message).unwrap().into() }
    };
    let signatures = signers.iter().map(sign).collect();
    let signed = ConfigUpdateEnvelope { config_update: config_update.clone(), signatures };
    let channel_header = ChannelHeader {
        r#type: HeaderType::ConfigUpdate.into(),
        channel_id: "mychannel".to_owned(),
        ..ChannelHeader::default()
    };
    let header =
        Header { channel_header: channel_header.encode_to_vec().into(), signature_header: Bytes::new() };
    let payload = Payload { header: Some(header), data: signed.encode_to_vec().into() };
    Envelope { payload: payload.encode_to_vec().into(), signature: Bytes::new(), ..Envelope::default() }
}

fn set(group: &mut ConfigGroup, name: &str, value: &impl Message) {
    let entry = group
        .values
        .entry(name.to_owned())
        .or_insert_with(|| ConfigValue { mod_policy: "Admins".to_owned(), ..ConfigValue::default() });
    entry.value = value.encode_to_vec().into();
}

fn at<'a>(root: &'a mut ConfigGroup, path: &[&str]) -> &'a mut ConfigGroup {
    path.iter().fold(root, |group, name| group.groups.get_mut(*name).unwrap())
}

fn smaller_batch(root: &mut ConfigGroup) {
    let batch = BatchSize { max_message_count: 7, absolute_max_bytes: 1000, preferred_max_bytes: 500 };
    set(at(root, &["Orderer"]), "BatchSize", &batch);
}

fn capability(root: &mut ConfigGroup, path: &[&str], names: &[&str]) {
    let capabilities = names.iter().map(|name| ((*name).to_owned(), Capability {})).collect();
    set(at(root, path), "Capabilities", &Capabilities { capabilities });
}

fn remove_org2(root: &mut ConfigGroup) {
    at(root, &["Application"]).groups.remove("Org2MSP");
}

const DELTA: &str = "error authorizing update: error validating DeltaSet: ";

fn implicit(has: usize, needs: usize) -> String {
    format!(
        "implicit policy evaluation failed - {has} sub-policies were satisfied, but this policy requires {needs} of the 'Admins' sub-policies to be satisfied"
    )
}

#[test]
fn the_orderers_admin_decides_about_the_batch_size() {
    let network = Network::new();
    let (envelope, next) = network.propose(&[&network.orderer_admin], smaller_batch).unwrap();
    assert_eq!((next.sequence(), next.orderer().batch.max_message_count), (1, 7));
    assert_eq!(network.bundle.apply(&envelope).unwrap().config(), next.config());
    let refused =
        format!("{DELTA}policy for [Value]  /Channel/Orderer/BatchSize not satisfied: {}", implicit(0, 1));
    assert_eq!(network.refusal(&[], smaller_batch), refused);
    assert_eq!(network.refusal(&[&network.admin1], smaller_batch), refused);
    let both = [&network.admin1, &network.orderer_admin];
    assert!(network.propose(&both, smaller_batch).is_ok(), "surplus signatures are ignored");
}

#[test]
fn a_refusal_explains_who_was_needed_and_who_signed() {
    let network = Network::new();
    let error = network.propose(&[&network.admin1, &network.admin1], remove_org2).unwrap_err();
    let ConfigError::Update(consort_channel_config::UpdateError::Policy { refusal, .. }) = &error else {
        panic!("{error}")
    };
    assert!(error.is_permission_denied());
    let explanation = format!("{refusal:#}");
    for part in [
        "[unmet] /Channel/Application/Admins: MAJORITY Admins needs 2 of 2 groups, has 1",
        "[met] /Channel/Application/Org1MSP/Admins: needs 1 of 1, has 1",
        "signed by Admin@org1 (Org1MSP)",
        "[unmet] Org2MSP.admin",
        "the identity is a member of a different MSP (expected Org2MSP, got Org1MSP)",
        "signature 2 does not count: Admin@org1 (Org1MSP) signed before",
    ] {
        assert!(explanation.contains(part), "{part}\n---\n{explanation}");
    }
}

#[test]
fn removing_an_organisation_needs_a_majority() {
    let network = Network::new();
    let (_, next) = network.propose(&[&network.admin1, &network.admin2], remove_org2).unwrap();
    assert_eq!(next.application().organisations.len(), 1);
    let refused =
        format!("{DELTA}policy for [Group]  /Channel/Application not satisfied: {}", implicit(1, 2));
    assert_eq!(network.refusal(&[&network.admin1], remove_org2), refused);
    assert_eq!(
        network.refusal(&[&network.admin1, &network.admin1], remove_org2),
        refused,
        "one admin counts once"
    );
}

#[test]
fn the_channel_group_needs_a_majority_of_its_sections() {
    let network = Network::new();
    let addresses = |root: &mut ConfigGroup| {
        set(root, "OrdererAddresses", &OrdererAddresses { addresses: vec!["o:7050".to_owned()] });
        root.values.get_mut("OrdererAddresses").unwrap().mod_policy = "/Channel/Orderer/Admins".to_owned();
    };
    assert!(network.propose(&network.everybody(), addresses).is_ok());
    assert_eq!(
        network.refusal(&[&network.admin1, &network.admin2], addresses),
        format!("{DELTA}policy for [Group]  /Channel not satisfied: {}", implicit(1, 2))
    );
}

#[test]
fn an_organisations_own_values_need_its_own_admin() {
    let network = Network::new();
    let user = network.org1.signer("User1@org1", "client");
    let rename = |root: &mut ConfigGroup| {
        at(root, &["Application", "Org1MSP"]).policies.remove("Endorsement");
    };
    assert_eq!(
        network.refusal(&[&user, &network.admin2], rename),
        format!(
            "{DELTA}policy for [Group]  /Channel/Application/Org1MSP not satisfied: signature set did not satisfy policy"
        )
    );
    assert!(network.propose(&[&network.admin1], rename).is_ok());
}

#[test]
fn what_a_new_configuration_says_is_checked_too() {
    let network = Network::new();
    let all = network.everybody();
    let ok = |change: &dyn Fn(&mut ConfigGroup)| {
        network.propose(&all, change).map(|_| ()).map_err(|e| e.to_string())
    };
    let refused = |change: &dyn Fn(&mut ConfigGroup)| network.refusal(&all, change);
    assert_eq!(
        ok(&|root| at(root, &["Orderer"]).values.get_mut("BatchTimeout").unwrap().mod_policy =
            "Nobody".to_owned()),
        Ok(())
    );
    assert_eq!(ok(&|root| capability(root, &[], &["V3_0"])), Ok(()));
    for names in [&["V9"][..], &[], &["V1_1"], &["V1_3"]] {
        assert_eq!(
            refused(&|root| capability(root, &[], names)),
            "initializing channelconfig failed: Must set some OrdererAddresses"
        );
    }
    assert_eq!(
        refused(&|root| capability(root, &["Orderer"], &["V3_0"])),
        "config update is not compatible: config requires unsupported orderer capabilities: Orderer capability V3_0 is required but not supported: Orderer capability V3_0 is required but not supported"
    );
    assert_eq!(
        refused(&|root| {
            at(root, &["Orderer"]).values.remove("Capabilities");
        }),
        "cannot enable channel capabilities without orderer support first"
    );
    assert_eq!(ok(&|root| set(root, "HashingAlgorithm", &hashing("SHA3_256", &[]))), Ok(()));
    assert_eq!(
        refused(&|root| set(root, "HashingAlgorithm", &hashing("SM3", &[]))),
        "attempted to change the hashing algorithm from SHA256 to SM3"
    );
    assert_eq!(
        refused(&|root| set(root, "HashingAlgorithm", &hashing("SHA256", &["sm2"]))),
        "initializing channelconfig failed: MSP OrdererMSP allows p256 keys, but every member of the channel must use sm2 only"
    );
    for (group, section) in [("Orderer", "orderer"), ("Application", "application")] {
        assert_eq!(
            refused(&|root| {
                root.groups.remove(group);
            }),
            format!("current config has {section} section, but new config does not")
        );
    }
    assert_eq!(
        ok(&|root| {
            let policy = ImplicitMetaPolicy { sub_policy: "Unknown".to_owned(), rule: 0 };
            let entry = at(root, &["Application"]).policies.get_mut("Writers").unwrap();
            entry.policy = Some(Policy { r#type: 3, value: policy.encode_to_vec().into() });
        }),
        Ok(()),
        "an implicit policy over a name that nobody has"
    );
}

#[test]
fn an_organisation_keeps_its_msp_id() {
    let network = Network::new();
    let refused = network.refusal(&[&network.admin1], |root| {
        let config = FabricMspConfig { name: "NewMSP".to_owned(), ..network.org1.msp() };
        let config = MspConfig { r#type: 0, config: config.encode_to_vec().into() };
        set(at(root, &["Application", "Org1MSP"]), "MSP", &config);
    });
    assert_eq!(refused, "application org Org1MSP attempted to change MSP ID from Org1MSP to NewMSP");
}

#[test]
fn names_versions_and_channels_are_checked() {
    let network = Network::new();
    let signers = network.everybody();
    let refused =
        |update: &ConfigUpdate| network.bundle.propose(&envelope(update, &signers)).unwrap_err().to_string();
    let good = network.update(smaller_batch);

    let mut other = good.clone();
    other.channel_id = "other".to_owned();
    assert_eq!(
        refused(&other),
        "error authorizing update: ConfigUpdate for channel 'other' but envelope for channel 'mychannel'"
    );
    let mut stale = good.clone();
    at(stale.read_set.as_mut().unwrap(), &["Orderer"]).version = 3;
    assert_eq!(
        refused(&stale),
        "error authorizing update: error validating ReadSet: proposed update requires that key [Group]  /Channel/Orderer be at version 3, but it is currently at version 0"
    );
    let mut unknown = good.clone();
    unknown.read_set.as_mut().unwrap().groups.insert("Missing".to_owned(), ConfigGroup::default());
    assert_eq!(
        refused(&unknown),
        "error authorizing update: error validating ReadSet: existing config does not contain element for [Group]  /Channel/Missing but was in the read set"
    );
    let mut name = good.clone();
    let value = at(name.write_set.as_mut().unwrap(), &["Orderer"]).values["BatchSize"].clone();
    at(name.write_set.as_mut().unwrap(), &["Orderer"]).values.insert("Foo_x".to_owned(), value);
    assert_eq!(
        refused(&name),
        "error authorizing update: error mapping WriteSet: illegal characters in key: [Value]   : config ID 'Foo_x' contains illegal characters"
    );
    let mut jump = good.clone();
    at(jump.write_set.as_mut().unwrap(), &["Orderer"]).values.get_mut("BatchSize").unwrap().version = 2;
    assert_eq!(
        refused(&jump),
        format!(
            "{DELTA}attempt to set key [Value]  /Channel/Orderer/BatchSize to version 2, but key is at version 0"
        )
    );
    let mut ungoverned = good.clone();
    at(ungoverned.write_set.as_mut().unwrap(), &["Orderer"])
        .values
        .get_mut("BatchSize")
        .unwrap()
        .mod_policy
        .clear();
    assert_eq!(
        refused(&ungoverned),
        format!(
            "{DELTA}invalid mod_policy for element [Value]  /Channel/Orderer/BatchSize: mod_policy not set"
        )
    );
    let mut empty = good;
    empty.write_set = empty.read_set.clone();
    assert_eq!(refused(&empty), format!("{DELTA}delta set was empty -- update would have no effect"));
}

#[test]
fn an_update_that_only_adds_without_raising_its_group_changes_nothing_but_the_sequence() {
    let network = Network::new();
    let mut update = network.update(smaller_batch);
    let orderer = at(update.write_set.as_mut().unwrap(), &["Orderer"]);
    let mut value = orderer.values.remove("BatchSize").unwrap();
    value.version = 0;
    orderer.values.insert("KafkaBrokers".to_owned(), value);
    let (_, next) = network.bundle.propose(&envelope(&update, &[])).unwrap();
    assert_eq!(next.sequence(), 1);
    assert_eq!(next.config().channel_group, network.bundle.config().channel_group);
}

/// Rewrites the list of consenters.
fn change_consenters(root: &mut ConfigGroup, change: impl FnOnce(&mut ConfigMetadata)) {
    let orderer = at(root, &["Orderer"]);
    let mut consensus = ConsensusType::decode(orderer.values["ConsensusType"].value.as_ref()).unwrap();
    let mut metadata = ConfigMetadata::decode(consensus.metadata.as_ref()).unwrap();
    change(&mut metadata);
    consensus.metadata = metadata.encode_to_vec().into();
    set(orderer, "ConsensusType", &consensus);
}

#[test]
fn consenters_change_one_by_one_and_under_their_own_authorities() {
    let network = Network::new();
    let by = [&network.orderer_admin];
    let new = |host: &str, certificate: Bytes| consort_protos::fabric::etcdraft::Consenter {
        host: host.to_owned(),
        port: 7050,
        client_tls_cert: certificate.clone(),
        server_tls_cert: certificate,
    };
    let add = |count: usize| {
        let network = &network;
        move |root: &mut ConfigGroup| {
            change_consenters(root, |metadata| {
                for _ in 0..count {
                    metadata.consenters.push(new("o4", network.orderers.tls_certificate("o4")));
                }
            });
        }
    };
    let (_, next) = network.propose(&by, add(1)).unwrap();
    assert_eq!(next.orderer().consenters.len(), 4);
    const PREFIX: &str = "consensus metadata update for channel config update is invalid: ";
    assert_eq!(
        network.refusal(&by, add(2)),
        format!(
            "{PREFIX}update of more than one consenter at a time is not supported, requested changes: add 2 node(s), remove 0 node(s)"
        )
    );
    let foreign = network.refusal(&by, |root| {
        change_consenters(root, |metadata| {
            metadata.consenters[2] = new("o3", network.org1.tls_certificate("o3"));
        });
    });
    assert!(
        foreign.starts_with(&format!(
            "{PREFIX}invalid new config metadata: consenter o3:7050 has invalid certificate: verifying tls client cert with serial number"
        )) && foreign.contains("certificate signed by unknown authority"),
        "{foreign}"
    );
    let missing = network.refusal(&by, |root| change_consenters(root, |metadata| metadata.options = None));
    assert_eq!(missing, format!("{PREFIX}invalid new config metadata: nil Raft config metadata options"));
}

#[test]
fn lifecycle_endorsement_falls_back_to_a_majority_of_organisations() {
    let network = Network::new();
    let (_, next) = network
        .propose(&network.everybody(), |root| {
            at(root, &["Application"]).policies.remove("LifecycleEndorsement");
            at(root, &["Application"]).policies.remove("Endorsement");
        })
        .unwrap();
    let policy = next.lifecycle_endorsement().unwrap();
    let text = consort_msp::policy::to_text(policy.as_signature().unwrap().envelope());
    assert_eq!(text, "AND('Org1MSP.member', 'Org2MSP.member')");
    assert_eq!(
        next.endorsement_policy(b"").unwrap_err().to_string(),
        "policy '/Channel/Application/Endorsement' must be defined for channel 'mychannel' before chaincode operations can be attempted"
    );
}

#[test]
fn an_incomplete_configuration_is_refused_with_its_fault() {
    let network = Network::new();
    let channel = network.bundle.channel().clone();
    let refused = |change: &dyn Fn(&mut ConfigGroup)| {
        let mut config: Config = network.bundle.config().clone();
        change(config.channel_group.as_mut().unwrap());
        ChannelBundle::new(channel.clone(), config).unwrap_err().to_string()
    };
    let empty = ChannelBundle::new(channel.clone(), Config::default()).unwrap_err().to_string();
    assert_eq!(empty, "config must contain a channel group");
    let without = |name: &'static str| {
        refused(&move |root| {
            root.values.remove(name);
        })
    };
    assert_eq!(
        without("HashingAlgorithm"),
        "initializing channelconfig failed: Unknown hashing algorithm type: "
    );
    assert_eq!(
        without("BlockDataHashingStructure"),
        "initializing channelconfig failed: BlockDataHashStructure width only supported at MaxUint32 in this version"
    );
    assert_eq!(
        refused(&|root| set(root, "Foo", &Policy::default())),
        "initializing channelconfig failed: failed to deserialize values: Unexpected key Foo"
    );
    assert!(
        refused(&|root| {
            root.groups.insert("Foo".to_owned(), ConfigGroup::default());
        })
        .starts_with("initializing channelconfig failed: Disallowed channel group: ")
    );
    assert_eq!(
        refused(&|root| {
            at(root, &["Application", "Org1MSP"]).values.remove("MSP");
        }),
        "initializing channelconfig failed: could not create channel Application sub-group config: setting up the MSP manager failed: expected at least one CA certificate"
    );
    assert_eq!(
        refused(&|root| at(root, &["Orderer"]).policies.get_mut("Writers").unwrap().policy = None),
        "initializing policymanager failed: policy Writers at path Channel/Orderer was nil"
    );
    assert_eq!(
        refused(&|root| {
            let entry = at(root, &["Orderer"]).policies.get_mut("Writers").unwrap();
            entry.policy = Some(Policy { r#type: 1, value: Bytes::new() });
        }),
        "initializing policymanager failed: policy Writers at path Channel/Orderer did not compile: Empty policy element"
    );
    assert_eq!(
        refused(&|root| {
            let entry = at(root, &["Orderer"]).policies.get_mut("Writers").unwrap();
            entry.policy = Some(Policy { r#type: 2, value: Bytes::new() });
        }),
        "initializing policymanager failed: policy Writers at path Channel/Orderer has unknown policy type: 2"
    );
}

/// Rewrites the consensus type.
fn change_consensus(root: &mut ConfigGroup, change: impl FnOnce(&mut ConsensusType)) {
    let orderer = at(root, &["Orderer"]);
    let mut consensus = ConsensusType::decode(orderer.values["ConsensusType"].value.as_ref()).unwrap();
    change(&mut consensus);
    set(orderer, "ConsensusType", &consensus);
}

#[test]
fn maintenance_is_entered_and_left_by_an_update_of_its_own() {
    const PREFIX: &str = "config update for existing channel did not pass maintenance checks: config transaction inspection failed: ";
    let network = Network::new();
    let everybody = network.everybody();
    let enter =
        |root: &mut ConfigGroup| change_consensus(root, |consensus| consensus.set_state(State::Maintenance));
    let refused = |change: &dyn Fn(&mut ConfigGroup)| {
        let text = network.refusal(&everybody, |root| {
            enter(root);
            change(root);
        });
        text.strip_prefix(PREFIX).unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    let (_, inside) = network.propose(&[&network.orderer_admin], enter).unwrap();
    assert_eq!(inside.orderer().state, ConsensusState::Maintenance);

    assert_eq!(
        refused(&|root| smaller_batch(root)),
        "config update contain more then just the ConsensusType value in the Orderer group"
    );
    let timing = refused(&|root| {
        change_consenters(root, |metadata| metadata.options.as_mut().unwrap().election_tick += 1);
    });
    assert_eq!(
        timing,
        "attempted to change ConsensusType.Metadata, but ConsensusType.State is changing from STATE_NORMAL to STATE_MAINTENANCE"
    );
    let consensus = refused(&|root| change_consensus(root, |consensus| consensus.r#type = "BFT".to_owned()));
    assert_eq!(
        consensus,
        "attempted to change ConsensusType.Type from etcdraft to BFT, but ConsensusType.State is changing from STATE_NORMAL to STATE_MAINTENANCE"
    );
    let members = refused(&|root| {
        at(root, &["Application"]).policies.remove("Endorsement");
    });
    assert_eq!(members, "config update contains changes to more than one group");
}

#[test]
fn the_consensus_type_changes_only_in_maintenance() {
    let network = Network::new();
    let outside = network.refusal(&[&network.orderer_admin], |root| {
        change_consensus(root, |consensus| consensus.r#type = "BFT".to_owned());
    });
    assert!(
        outside.ends_with(
            "attempted to change consensus type from etcdraft to BFT, but current config ConsensusType.State is not in maintenance mode"
        ),
        "{outside}"
    );
    // And what it changes to must be something that the orderers know: Fabric's BFT is nothing of theirs.
    let signers = [&network.orderer_admin];
    let maintenance =
        |root: &mut ConfigGroup| change_consensus(root, |consensus| consensus.set_state(State::Maintenance));
    let (_, inside) = network.propose(&signers, maintenance).unwrap();
    let mut wanted = inside.config().clone();
    change_consensus(wanted.channel_group.as_mut().unwrap(), |consensus| {
        consensus.r#type = "BFT".to_owned();
    });
    let update = compute(inside.config(), &wanted, inside.channel()).unwrap();
    let refused = inside.propose(&envelope(&update, &signers)).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("consensus type \"BFT\" is not supported, only etcdraft is"), "{refused}");
}

fn hashing(name: &str, key_algorithms: &[&str]) -> HashingAlgorithm {
    let key_algorithms = key_algorithms.iter().map(|name| (*name).to_owned()).collect();
    HashingAlgorithm { name: name.to_owned(), key_algorithms }
}
