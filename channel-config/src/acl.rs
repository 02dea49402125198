//! Which policy guards which resource.
//!
//! Source: Fabric documentation, "Access Control Lists (ACL)", and `core/aclmgmt/defaultaclprovider.go`.

use std::collections::BTreeMap;

use consort_protos::fabric::protos::AcLs;

/// Policy that guards what changes the channel or runs chaincode.
const WRITERS: &str = "/Channel/Application/Writers";

/// Policy that guards what reads the channel.
const READERS: &str = "/Channel/Application/Readers";

/// What an unknown resource needs: nobody should gain from a name that was forgotten here.
const UNKNOWN: &str = "/Channel/Application/Admins";

const WRITER_RESOURCES: [&str; 12] = [
    "_lifecycle/CommitChaincodeDefinition",
    "_lifecycle/QueryChaincodeDefinition",
    "_lifecycle/QueryChaincodeDefinitions",
    "_lifecycle/CheckCommitReadiness",
    "peer/Propose",
    "peer/ChaincodeToChaincode",
    "_sealed/CreateDomain",
    "_sealed/PutRecord",
    "_sealed/Grant",
    "_sealed/Revoke",
    "_sealed/Request",
    "_sealed/Respond",
];

const READER_RESOURCES: [&str; 25] = [
    "qscc/GetAttestation",
    "_identities/Get",
    "_identities/List",
    "lscc/ChaincodeExists",
    "lscc/GetDeploymentSpec",
    "lscc/GetChaincodeData",
    "lscc/GetInstantiatedChaincodes",
    "lscc/GetCollectionsConfig",
    "qscc/GetChainInfo",
    "qscc/GetBlockByNumber",
    "qscc/GetBlockByHash",
    "qscc/GetTransactionByID",
    "qscc/GetBlockByTxID",
    "cscc/GetConfigBlock",
    "cscc/GetChannelConfig",
    "event/Block",
    "event/FilteredBlock",
    "gateway/CommitStatus",
    "gateway/ChaincodeEvents",
    "_sealed/GetDomain",
    "_sealed/GetRecord",
    "_sealed/GetGrant",
    "_sealed/GetRequest",
    "_sealed/Audit",
    "_sealed/ListRecords",
];

/// The channel's own entries: resource to policy path.
pub(crate) fn overrides(message: &AcLs) -> BTreeMap<String, String> {
    message
        .acls
        .iter()
        .filter(|(_, resource)| !resource.policy_ref.is_empty())
        .map(|(name, resource)| {
            let reference = resource.policy_ref.as_str();
            let path = if reference.starts_with('/') {
                reference.to_owned()
            } else {
                format!("/Channel/Application/{reference}")
            };
            (name.clone(), path)
        })
        .collect()
}

/// The policy that guards a resource when the channel says nothing.
pub(crate) fn default(resource: &str) -> &'static str {
    if WRITER_RESOURCES.contains(&resource) {
        WRITERS
    } else if READER_RESOURCES.contains(&resource) {
        READERS
    } else {
        UNKNOWN
    }
}

#[cfg(test)]
mod tests {
    use consort_protos::fabric::protos::ApiResource;

    use super::*;

    /// Fabric's resources with their policies (`core/aclmgmt/defaultaclprovider.go`), without those that are roles of the peer's own
    /// organisation.
    const FABRICS: [(&str, &str); 17] = [
        ("qscc/GetChainInfo", READERS),
        ("qscc/GetBlockByNumber", READERS),
        ("qscc/GetBlockByHash", READERS),
        ("qscc/GetTransactionByID", READERS),
        ("qscc/GetBlockByTxID", READERS),
        ("cscc/GetConfigBlock", READERS),
        ("cscc/GetChannelConfig", READERS),
        ("event/Block", READERS),
        ("event/FilteredBlock", READERS),
        ("gateway/CommitStatus", READERS),
        ("gateway/ChaincodeEvents", READERS),
        ("peer/Propose", WRITERS),
        ("peer/ChaincodeToChaincode", WRITERS),
        ("_lifecycle/CommitChaincodeDefinition", WRITERS),
        ("_lifecycle/QueryChaincodeDefinition", WRITERS),
        ("_lifecycle/QueryChaincodeDefinitions", WRITERS),
        ("_lifecycle/CheckCommitReadiness", WRITERS),
    ];

    #[test]
    fn a_channel_that_says_nothing_has_fabrics_policies() {
        for (resource, policy) in FABRICS {
            assert_eq!(default(resource), policy, "{resource}");
        }
        assert_eq!(default("qscc/SomethingNew"), "/Channel/Application/Admins");
    }

    #[test]
    fn a_channels_own_entries_are_paths_or_names_of_the_application() {
        let entry = |path: &str| ApiResource { policy_ref: path.to_owned() };
        let acls = [
            ("qscc/GetChainInfo", entry("/Channel/Orderer/Admins")),
            ("event/Block", entry("Auditors")),
            ("peer/Propose", entry("")),
        ];
        let acls = acls.map(|(name, entry)| (name.to_owned(), entry)).into();
        let own = overrides(&AcLs { acls });
        assert_eq!(own["qscc/GetChainInfo"], "/Channel/Orderer/Admins");
        assert_eq!(own["event/Block"], "/Channel/Application/Auditors");
        assert!(!own.contains_key("peer/Propose"), "an empty entry is none");
    }
}
