//! Capabilities that a change switches on.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use consort_channel_config::{Change, REGISTERED_IDENTITIES};
use consort_protos::fabric::common::{Block, Capabilities, Config, ConfigEnvelope, Envelope, Payload};
use prost::Message;

/// The configuration of a channel that Fabric 3.1 made.
fn published() -> Config {
    let path = "../protos/tests/golden/fabric-channel/blocks/0000.pb";
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let block = Block::decode(std::fs::read(file).unwrap().as_slice()).unwrap();
    let envelope = Envelope::decode(block.data.unwrap().data[0].clone()).unwrap();
    let payload = Payload::decode(envelope.payload).unwrap();
    ConfigEnvelope::decode(payload.data).unwrap().config.unwrap()
}

fn application(config: &Config) -> Vec<String> {
    let application = &config.channel_group.as_ref().unwrap().groups["Application"];
    let value = application.values["Capabilities"].value.clone();
    Capabilities::decode(value).unwrap().capabilities.into_keys().collect()
}

#[test]
fn capabilities_are_switched_on_beside_those_that_are_on() {
    let old = published();
    let mut change = Change::default();
    assert_eq!(change.apply(&old).unwrap(), old, "nothing is named, nothing changes");
    change.capabilities.application.push(REGISTERED_IDENTITIES.to_owned());
    let new = change.apply(&old).unwrap();
    assert_eq!(application(&new), [vec![REGISTERED_IDENTITIES.to_owned()], application(&old)].concat());
    assert_eq!(change.apply(&new).unwrap(), new, "they are on");
}

#[test]
fn a_capability_that_no_node_knows_is_refused_with_the_known_ones() {
    let mut change = Change::default();
    change.capabilities.orderer.push("V9".to_owned());
    let error = change.apply(&published()).unwrap_err().to_string();
    assert_eq!(error, "Orderer capability V9 is not supported (known are: V1_1, V1_4_2, V2_0)");
}
