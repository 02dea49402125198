//! Files that people get from others: profiles, topologies, changes of a configuration, messages as JSON, packages.

use std::path::Path;

use bytes::Bytes;
use consort_channel_config::{Change, Profile};
use consort_cli::{messages, topology};
use consort_client_sdk::ConnectionProfile;
use consort_peer::chaincode::package::Package;
use serde_json::Value;

use crate::network::NETWORK;

/// Where the files would be. There is nothing beside them.
const PATH: &str = "/nonexistent/file.yaml";

/// Most that a package is unpacked to.
const UNPACKED_BYTES_MAX: u64 = 1 << 20;

/// Messages that are shown and edited as JSON.
const MESSAGES: [&str; 5] =
    ["common.Block", "common.Config", "common.ConfigUpdate", "common.Envelope", "protos.SignedProposal"];

/// A connection profile, in YAML or JSON.
///
/// # Panics
/// When what was read breaks a rule: a finding.
pub fn connection_profile(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(profile) = ConnectionProfile::parse(text, Path::new(PATH)) {
        let _ = profile.msp_id();
        for endpoint in profile.gateways().unwrap_or_default() {
            assert!(!endpoint.address.is_empty(), "an endpoint has an address");
        }
    }
}

/// A change of a channel's configuration (`consort channel plan`).
///
/// # Panics
/// When what was read breaks a rule: a finding.
pub fn channel_change(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(change) = Change::parse(text, Path::new(PATH)) {
        let _ = change.apply(NETWORK.bundle.config());
    }
}

/// The profile of a new channel (`consort channel create`).
///
/// # Panics
/// When what was read breaks a rule: a finding.
pub fn channel_profile(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(profile) = Profile::parse(text, Path::new(PATH)) {
        let _ = profile.config();
    }
}

/// The description of a network (`consort network up`).
///
/// # Panics
/// When what was read breaks a rule: a finding.
pub fn network_topology(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(faults) = topology::check(text, Path::new(PATH)) {
        assert!(faults.contains(PATH), "a fault has its line: {faults}");
    }
}

/// A message as JSON (`consort config encode`), and as bytes to be shown so.
///
/// # Panics
/// When what was read breaks a rule: a finding.
pub fn message_json(bytes: &[u8]) {
    for name in MESSAGES {
        if let Ok(json) = serde_json::from_slice(bytes) {
            let _ = messages::from_json(name, &json);
        }
        let Ok(shown) = messages::to_json(name, bytes, messages::Broken::Refuse) else { continue };
        // Unknown fields are not shown; what is left of a message without them settles after the first time.
        let once = shown_again(name, &shown);
        assert_eq!(shown_again(name, &once), once, "{name} settles");
    }
}

fn shown_again(name: &str, json: &Value) -> Value {
    let written = messages::from_json(name, json).expect("what was shown is read");
    messages::to_json(name, &written, messages::Broken::Refuse).expect("what was written is shown")
}

/// A chaincode package, as it is installed.
///
/// # Panics
/// When what was read breaks a rule: a finding.
pub fn chaincode_package(bytes: &[u8]) {
    if let Ok(package) = Package::open(Bytes::copy_from_slice(bytes), UNPACKED_BYTES_MAX) {
        assert!(package.component.len() as u64 <= UNPACKED_BYTES_MAX, "a bound holds");
    }
}
