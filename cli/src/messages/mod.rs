//! Fabric's messages as JSON that people can edit, in the form of Fabric's `configtxlator` (`protolator`).
//!
//! Field names are those of the schemas; 64-bit numbers are texts; bytes are Base64, and null when there are none; bytes that
//! hold another message ([`opaque`]) show that message. Keys are sorted, so that two documents can be compared by line.

mod opaque;
mod read;
mod write;

use std::sync::OnceLock;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::Value;

/// Messages within messages that are followed; Fabric's own have ten levels. It keeps a hostile file from exhausting the stack.
const DEPTH_MAX: usize = 64;

/// What to do with bytes that should hold a message and do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Say so.
    Refuse,
    /// Show them as Base64.
    Show,
}

/// Shows a message of the given type (`common.Block`).
///
/// # Errors
/// The type is unknown, or the bytes are no such message.
pub fn to_json(message_type: &str, bytes: &[u8], broken: Broken) -> anyhow::Result<Value> {
    let descriptor = descriptor(message_type)?;
    let message = DynamicMessage::decode(descriptor, bytes)
        .with_context(|| format!("the input is no {message_type}"))?;
    write::Writer { broken }.message(&message, "", 0)
}

/// Reads a message of the given type from its JSON form.
///
/// # Errors
/// The type is unknown, or the JSON does not describe one; the error names the place.
pub fn from_json(message_type: &str, json: &Value) -> anyhow::Result<Vec<u8>> {
    let message = read::message(&descriptor(message_type)?, json, "", message_type, 0)?;
    Ok(message.encode_to_vec())
}

/// Shows the content of a configuration value by its key (`BatchSize`); Base64 when the key or the content is unknown.
pub(crate) fn configuration_value(key: &str, bytes: &[u8]) -> Value {
    let shown = opaque::configuration_type(key)
        .and_then(|message_type| to_json(message_type, bytes, Broken::Show).ok());
    shown.unwrap_or_else(|| Value::from(STANDARD.encode(bytes)))
}

/// JSON as `configtxlator` prints it: indented with tabs, one line end at the end.
///
/// # Errors
/// None in practice: JSON values serialise.
pub(crate) fn print(json: &Value) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    serde::Serialize::serialize(json, &mut serializer)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| {
        DescriptorPool::decode(consort_protos::DESCRIPTORS)
            .expect("invariant: the build wrote the descriptors of the schemas that it compiled")
    })
}

fn descriptor(message_type: &str) -> anyhow::Result<MessageDescriptor> {
    let Some(found) = pool().get_message_by_name(message_type) else {
        bail!(
            "there is no message type {message_type}.\nRemedy: name it with its package, such as common.Block, common.Config, \
             common.ConfigUpdate or common.Envelope."
        );
    };
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const BLOCKS: &str = "../protos/tests/golden/fabric-channel/blocks";

    fn golden(number: u32) -> Vec<u8> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(BLOCKS);
        std::fs::read(folder.join(format!("{number:04}.pb"))).unwrap()
    }

    #[test]
    fn a_real_configuration_block_shows_its_inside_in_configtxlators_spelling() {
        let json = to_json("common.Block", &golden(0), Broken::Refuse).unwrap();
        let payload = &json["data"]["data"][0]["payload"];
        assert_eq!(payload["header"]["channel_header"]["type"], 1);
        assert_eq!(payload["header"]["channel_header"]["epoch"], "0");
        assert_eq!(payload["header"]["channel_header"]["extension"], Value::Null);
        let group = &payload["data"]["config"]["channel_group"];
        assert_eq!(group["mod_policy"], "Admins");
        assert_eq!(group["values"]["HashingAlgorithm"]["value"]["name"], "SHA256");
        assert_eq!(group["policies"]["Admins"]["policy"]["type"], 3);
        assert_eq!(group["policies"]["Admins"]["policy"]["value"]["rule"], "MAJORITY");
        let consensus = &group["groups"]["Orderer"]["values"]["ConsensusType"]["value"];
        assert!(consensus["metadata"]["consenters"][0]["port"].is_number(), "{consensus}");
        let organisations = group["groups"]["Application"]["groups"].as_object().unwrap();
        let (_, organisation) = organisations.iter().next().unwrap();
        assert!(organisation["values"]["MSP"]["value"]["config"]["root_certs"].is_array());
        let admins = &organisation["policies"]["Admins"]["policy"]["value"];
        assert_eq!(admins["identities"][0]["principal_classification"], "ROLE");
        assert_eq!(admins["identities"][0]["principal"]["role"], "ADMIN");
    }

    /// What Fabric's configtxlator (2.4.9) printed.
    fn printed_by_configtxlator(name: &str) -> String {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/configtxlator");
        std::fs::read_to_string(folder.join(name)).unwrap()
    }

    #[test]
    fn a_block_is_printed_as_configtxlator_prints_it_to_the_byte() {
        for (number, name) in [(0, "block-0000.json"), (2, "block-0002.json")] {
            let bytes = golden(number);
            let json = to_json("common.Block", &bytes, Broken::Refuse).unwrap();
            let printed = String::from_utf8(print(&json).unwrap()).unwrap();
            assert_eq!(printed, printed_by_configtxlator(name), "{name}");
            let read = serde_json::from_str(&printed_by_configtxlator(name)).unwrap();
            let again = to_json("common.Block", &from_json("common.Block", &read).unwrap(), Broken::Refuse);
            assert_eq!(again.unwrap(), json, "{name} is read as it was written");
        }
    }

    #[test]
    fn an_update_is_computed_and_printed_as_configtxlator_does_it() {
        let block = to_json("common.Block", &golden(0), Broken::Refuse).unwrap();
        let original = block["data"]["data"][0]["payload"]["data"]["config"].clone();
        let mut updated = original.clone();
        let root = &mut updated["channel_group"]["groups"];
        root["Orderer"]["values"]["BatchSize"]["value"]["max_message_count"] = 77.into();
        root["Application"]["policies"]["Admins"]["policy"]["value"]["rule"] = "ANY".into();
        root["Application"]["groups"].as_object_mut().unwrap().remove("Org2MSP");
        let config = |json: &Value| {
            let bytes = from_json("common.Config", json).unwrap();
            consort_protos::fabric::common::Config::decode(bytes.as_slice()).unwrap()
        };
        let channel = consort_protos::ids::ChannelId::parse("golden").unwrap();
        let update =
            consort_channel_config::update::compute(&config(&original), &config(&updated), &channel).unwrap();
        let json = to_json("common.ConfigUpdate", &update.encode_to_vec(), Broken::Refuse).unwrap();
        let printed = String::from_utf8(print(&json).unwrap()).unwrap();
        assert_eq!(printed, printed_by_configtxlator("update.json"));
    }

    #[test]
    fn every_golden_block_survives_the_way_there_and_back() {
        for number in 0..14 {
            let bytes = golden(number);
            let json = to_json("common.Block", &bytes, Broken::Refuse).unwrap();
            let text = String::from_utf8(print(&json).unwrap()).unwrap();
            let again = from_json("common.Block", &serde_json::from_str(&text).unwrap()).unwrap();
            assert_eq!(to_json("common.Block", &again, Broken::Refuse).unwrap(), json, "block {number}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named_with_its_place() {
        let place = |json| from_json("common.BlockHeader", &json).unwrap_err().to_string();
        assert_eq!(place(json!({"nummer": "1"})), "common.BlockHeader has no field nummer");
        assert_eq!(
            place(json!({"number": "x"})),
            "common.BlockHeader.number: expected a whole number, found \"x\""
        );
        assert_eq!(
            place(json!({"data_hash": "?"})),
            "common.BlockHeader.data_hash: expected Base64, found \"?\""
        );
        let unknown = to_json("common.Nothing", b"", Broken::Refuse).unwrap_err().to_string();
        assert!(unknown.starts_with("there is no message type common.Nothing"), "{unknown}");
    }

    #[test]
    fn broken_bytes_are_shown_when_asked() {
        let envelope =
            from_json("common.Envelope", &json!({"payload": "/w==", "signature": "AA=="})).unwrap();
        assert!(to_json("common.Envelope", &envelope, Broken::Refuse).is_err());
        assert_eq!(to_json("common.Envelope", &envelope, Broken::Show).unwrap()["payload"], "/w==");
    }
}
