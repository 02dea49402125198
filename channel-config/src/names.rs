//! Names in the configuration tree, and the rules for new ones.
//!
//! Source: Fabric `common/channelconfig` and `common/configtx/validator.go`.

/// Groups.
pub(crate) const CHANNEL: &str = "Channel";
pub(crate) const ORDERER: &str = "Orderer";
pub(crate) const APPLICATION: &str = "Application";
pub(crate) const CONSORTIUMS: &str = "Consortiums";

/// Values of the channel.
pub(crate) const HASHING_ALGORITHM: &str = "HashingAlgorithm";
pub(crate) const BLOCK_DATA_HASHING_STRUCTURE: &str = "BlockDataHashingStructure";
pub(crate) const ORDERER_ADDRESSES: &str = "OrdererAddresses";
pub(crate) const CONSORTIUM: &str = "Consortium";
pub(crate) const CAPABILITIES: &str = "Capabilities";
pub(crate) const ORDERERS: &str = "Orderers";

/// Values of the orderer group.
pub(crate) const CONSENSUS_TYPE: &str = "ConsensusType";
pub(crate) const BATCH_SIZE: &str = "BatchSize";
pub(crate) const BATCH_TIMEOUT: &str = "BatchTimeout";
pub(crate) const CHANNEL_RESTRICTIONS: &str = "ChannelRestrictions";
pub(crate) const KAFKA_BROKERS: &str = "KafkaBrokers";

/// Values of organisations and of the application group.
pub(crate) const MSP: &str = "MSP";
pub(crate) const ENDPOINTS: &str = "Endpoints";
pub(crate) const ANCHOR_PEERS: &str = "AnchorPeers";
pub(crate) const ACLS: &str = "ACLs";

/// The policy that governs an element unless something else is said.
pub(crate) const ADMINS: &str = "Admins";

/// Longest name of an element.
const NAME_LENGTH_MAX: usize = 249;

/// Checks the name of a group, value or policy.
///
/// # Errors
/// The rule that it breaks, in Fabric's words.
pub(crate) fn check_element_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("config ID illegal, cannot be empty".to_owned());
    }
    if name.len() > NAME_LENGTH_MAX {
        return Err(format!("config ID illegal, cannot be longer than {NAME_LENGTH_MAX}"));
    }
    if name == "." || name == ".." {
        return Err(format!("name '{name}' for config ID is not allowed"));
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-') {
        return Err(format!("config ID '{name}' contains illegal characters"));
    }
    Ok(())
}

/// Checks a mod_policy: a name or path that is set and well formed; whether it exists is not asked.
///
/// # Errors
/// The rule that it breaks, in Fabric's words.
pub(crate) fn check_mod_policy(mod_policy: &str) -> Result<(), String> {
    if mod_policy.is_empty() {
        return Err("mod_policy not set".to_owned());
    }
    let path = mod_policy.strip_prefix('/').unwrap_or(mod_policy);
    for (index, part) in path.split('/').enumerate() {
        check_element_name(part).map_err(|error| format!("path element at {index} is invalid: {error}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_mod_policies_follow_fabrics_rules() {
        assert_eq!(check_element_name("Org1.MSP-2"), Ok(()));
        assert_eq!(check_element_name("Foo_x").unwrap_err(), "config ID 'Foo_x' contains illegal characters");
        assert_eq!(check_element_name("..").unwrap_err(), "name '..' for config ID is not allowed");
        assert_eq!(
            check_element_name(&"a".repeat(250)).unwrap_err(),
            "config ID illegal, cannot be longer than 249"
        );
        assert_eq!(check_mod_policy(""), Err("mod_policy not set".to_owned()));
        assert_eq!(
            check_mod_policy("/Channel/Ord_x").unwrap_err(),
            "path element at 1 is invalid: config ID 'Ord_x' contains illegal characters"
        );
        assert_eq!(check_mod_policy("Org1MSP/Admins"), Ok(()));
    }
}
