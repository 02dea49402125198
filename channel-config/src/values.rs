//! Reading the values of a group, and gathering the organisations' MSPs.

use std::collections::BTreeMap;

use consort_crypto::key::KeyAlgorithm;
use consort_msp::{Msp, MspManager, MspVersion};
use consort_protos::{
    fabric::{
        common::{Capabilities as CapabilitiesMessage, ConfigGroup},
        msp::MspConfig,
    },
    ids::MspId,
};
use prost::Message;

use crate::{
    capabilities::{Capabilities, Level},
    names::{CAPABILITIES, MSP},
};

/// Refuses values with names that the group does not know.
pub(crate) fn allow(group: &ConfigGroup, names: &[&str]) -> Result<(), String> {
    match group.values.keys().find(|key| !names.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(format!("failed to deserialize values: Unexpected key {key}")),
    }
}

/// A value of a group, if it is there.
pub(crate) fn value<M: Message + Default>(group: &ConfigGroup, name: &str) -> Result<Option<M>, String> {
    let Some(found) = group.values.get(name) else { return Ok(None) };
    M::decode(found.value.as_ref())
        .map(Some)
        .map_err(|error| format!("failed to deserialize values: {name}: {error}"))
}

/// The capabilities of a group; none if it has no such value.
pub(crate) fn capabilities(group: &ConfigGroup, level: Level) -> Result<Capabilities, String> {
    let message: CapabilitiesMessage = value(group, CAPABILITIES)?.unwrap_or_default();
    Ok(Capabilities::new(level, message.capabilities.into_keys()))
}

/// The MSPs of all organisations of a channel.
pub(crate) struct Organisations {
    version: MspVersion,
    msps: BTreeMap<MspId, (MspConfig, Msp)>,
}

impl Organisations {
    pub(crate) fn new(version: MspVersion) -> Self {
        Self { version, msps: BTreeMap::new() }
    }

    /// Sets an organisation's MSP up. One MSP may stand in several groups, but then with one configuration.
    pub(crate) fn add(&mut self, name: &str, group: &ConfigGroup) -> Result<MspId, String> {
        let config: MspConfig = value(group, MSP)?.unwrap_or_default();
        let known = self.msps.values().find(|(known, _)| *known == config);
        if let Some((_, msp)) = known {
            return Ok(msp.id().clone());
        }
        let msp = Msp::from_proto(&config, self.version).map_err(|error| match error {
            consort_msp::MspError::InvalidId { id, .. } if id.is_empty() && !config.config.is_empty() => {
                format!("MSP for org {name} has empty MSP ID")
            }
            // An MSP without anything is refused for its missing authorities, as Fabric does.
            consort_msp::MspError::InvalidId { id, .. } if id.is_empty() => {
                format!("setting up the MSP manager failed: {}", consort_msp::MspError::NoRoots)
            }
            consort_msp::MspError::UnsupportedType(_) => error.to_string(),
            error => format!("setting up the MSP manager failed: {error}"),
        })?;
        let id = msp.id().clone();
        if self.msps.contains_key(&id) {
            return Err(format!("Attempted to define two different versions of MSP: {id}"));
        }
        self.msps.insert(id.clone(), (config, msp));
        Ok(id)
    }

    /// Every MSP must restrict itself to these algorithms, if there are any.
    pub(crate) fn check_key_algorithms(&self, demanded: &[KeyAlgorithm]) -> Result<(), String> {
        if demanded.is_empty() {
            return Ok(());
        }
        for (_, msp) in self.msps.values() {
            if let Some(foreign) = msp.key_algorithms().find(|algorithm| !demanded.contains(algorithm)) {
                let demanded: Vec<&str> = demanded.iter().map(|algorithm| algorithm.name()).collect();
                return Err(format!(
                    "MSP {} allows {foreign} keys, but every member of the channel must use {} only",
                    msp.id(),
                    demanded.join(", ")
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn into_manager(self) -> MspManager {
        MspManager::new(self.msps.into_values().map(|(_, msp)| msp).collect())
    }
}
